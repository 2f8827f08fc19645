//! Pure: machines that exist, and how they are reached.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::core::{Selector, SelectorExt};
use serde::Serialize;
use serde_json::Value;

use crate::{
    phase::action::KeyRef,
    target::{Elevation, Endpoint, Hop, Trust},
};
use pallet_api::group_node::NodeHost;

/// The hosts of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct HostsShape {
    /// The hosts that may be used, in the order in which they are taken. Empty until the inventory was read, where it stands
    /// elsewhere.
    pub inventory: Vec<Host>,
    /// Whether it is known what the inventory lists. Where it stands elsewhere and cannot be read, it may not be.
    pub is_read: bool,
    /// How many hosts the inventory lists, those that are not selected too.
    pub listed: usize,
    /// Where the inventory stands, where not in the group.
    pub source: Option<KeyRef>,
    /// What the labels of a host must match.
    pub selector: Selector,
    /// How hosts are reached that say nothing else.
    pub access: Access,
}

/// How hosts are reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// As whom to log in.
    pub user: String,
    /// Where the private key is.
    pub key: KeyRef,
    /// The keys of hosts that name none.
    pub known_hosts: Option<Trust>,
    /// How to become another user.
    pub elevation: Option<Elevation>,
    /// A host that connections go through.
    pub jump: Option<Hop>,
    /// How long it may take to connect and log in.
    pub connect_timeout: Duration,
}

/// A host of an inventory.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its IP address or DNS name, in its canonical form.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// As whom to log in there, where it says so.
    pub user: Option<String>,
    /// Its own keys.
    pub trust: Vec<Trust>,
    /// What templates see of it.
    pub attributes: Arc<Attributes>,
}

/// What templates see of a host. Of a pod or a virtual machine there is nothing to see.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Attributes {
    /// What it is called in the inventory.
    pub host: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its parameters.
    pub params: BTreeMap<String, Value>,
}

impl Host {
    /// A host of which only that is known what its node remembers.
    pub fn remembered(bound: &NodeHost) -> Self {
        Self {
            address: bound.address.clone(),
            port: bound.port,
            user: None,
            trust: Vec::new(),
            attributes: Arc::new(Attributes { host: bound.name.clone(), ..Attributes::default() }),
        }
    }

    /// What it is called in the inventory.
    pub fn name(&self) -> &str {
        &self.attributes.host
    }

    /// Whether its labels match.
    pub fn matches(&self, selector: &Selector) -> bool {
        selector.matches(&self.attributes.labels)
    }

    /// Which machine it is: two hosts with the same place are one.
    pub fn place(&self) -> String {
        place(&self.address, self.port)
    }

    /// What a node remembers of it.
    pub fn bound(&self) -> NodeHost {
        NodeHost { name: self.name().to_owned(), address: self.address.clone(), port: self.port }
    }
}

/// An address and a port, as a URL writes them.
pub fn place(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

impl HostsShape {
    /// Takes over the hosts of an inventory that was read, as far as they are selected.
    pub fn take_inventory(&mut self, hosts: &[Host]) {
        self.inventory = hosts.iter().filter(|host| host.matches(&self.selector)).cloned().collect();
        self.listed = hosts.len();
        self.is_read = true;
    }

    /// Where the jump host is that connections go through. The same private address behind another one is another machine.
    pub fn via(&self) -> Option<String> {
        self.access.jump.as_ref().map(|jump| place(&jump.address, jump.port))
    }

    /// How a host is reached.
    pub fn endpoint(&self, namespace: &str, host: &Host) -> Endpoint {
        let Access { user, key, known_hosts, elevation, jump, connect_timeout } = self.access.clone();
        let user = host.user.clone().unwrap_or(user);
        Endpoint {
            namespace: namespace.to_owned(),
            name: host.name().to_owned(),
            address: host.address.clone(),
            port: host.port,
            // Who is that user already becomes nobody else.
            elevation: elevation.filter(|elevation| elevation.user != user),
            user,
            key,
            trust: if host.trust.is_empty() { known_hosts.into_iter().collect() } else { host.trust.clone() },
            jump: jump.map(Box::new),
            connect_timeout,
        }
    }
}
