//! Pure: nodes that are hosts. Nobody watches a host: it is taken to run as long as it is in the inventory, and whether it
//! can be reached is seen by whoever goes there.

use std::sync::Arc;

use crate::{
    group::{GroupKey, Head, Host, HostsShape, Kind},
    plan::{Machine, MachineState, Node},
    transport::Target,
};

/// The host of a node.
pub fn machine(head: &Head, hosts: &HostsShape, host: &Host, node: &Node) -> Machine {
    let GroupKey { namespace, .. } = &head.key;
    Machine {
        name: host.name().to_owned(),
        uid: host.name().to_owned(),
        controller: Some(head.uid.clone()),
        node: Some(node.uid.clone()),
        deleting: false,
        marked: false,
        kind: Kind::Host,
        target: Some(Target::Machine(Arc::new(hosts.endpoint(namespace, host)))),
        attributes: host.attributes.clone(),
        state: MachineState::Running { id: host.place() },
        address: Some(host.address.clone()),
        ready: true,
        gate_open: false,
        gated: false,
        template_hash: String::new(),
        created: node.created,
    }
}
