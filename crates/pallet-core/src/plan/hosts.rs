//! Pure: which hosts of an inventory become nodes, which nodes have lost theirs, and whose a host is that two nodes have.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Node, Removal, Snapshot};
use crate::group::{Group, Host, HostsShape, hosts::place};
use pallet_api::group_node::NodeHost;
use pallet_api::reason::Reason;

/// How many hosts a message names.
const NAMED: usize = 3;
/// Why a node waits whose host is another's.
pub const TAKEN: Reason = Reason::HostInUse;

/// The hosts that are nobody's, in the order in which they are taken. One whose node is being removed is still that node's.
pub fn free<'a>(snapshot: &Snapshot, hosts: &'a HostsShape) -> Vec<&'a Host> {
    let named = by_name(hosts);
    let mine = snapshot.nodes.values().filter_map(|node| node.host.as_ref());
    let present = |bound: &NodeHost| match named.get(bound.name.as_str()) {
        Some(host) => host.place(),
        None => place(&bound.address, bound.port),
    };
    let (names, places): (BTreeSet<&str>, BTreeSet<String>) =
        mine.map(|bound| (bound.name.as_str(), present(bound))).unzip();
    let free = |host: &&Host| {
        let place = host.place();
        !names.contains(host.name()) && !places.contains(&place) && !snapshot.occupied.contains_key(&place)
    };
    hosts.inventory.iter().filter(free).collect()
}

/// The nodes that have no host: it is in the inventory no more, or somebody else's since before anything was done there.
pub fn without<'a>(snapshot: &Snapshot, group: &Group, live: &[&'a Node]) -> Vec<(&'a Node, Removal)> {
    if group.node.hosts().is_none() {
        return Vec::new();
    }
    let why = |node: &Node| match snapshot.machine(node) {
        None => Some(Removal::HostWithdrawn),
        Some(machine) if machine.state.is_waiting() && node.record.incarnation.is_none() => Some(Removal::HostInUse),
        Some(_) => None,
    };
    live.iter().filter_map(|node| Some((*node, why(node)?))).collect()
}

/// What a node's right to a machine is worth: of two that have the same, the smaller prevails. It follows from what stands in the
/// API alone, so that all groups come to the same answer.
///
/// Two groups may take one machine at once, where a creation had no clear answer or the operator that leads has changed; and an
/// edit of an inventory may lead a node to a machine that is another's.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// By what it has the machine.
    pub claim: Claim,
    /// Since when the node is there.
    pub since: Timestamp,
    /// The node's UID.
    pub node: String,
}

/// By what a node has a machine, the better before the worse.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Claim {
    /// Its status says that it has been at work there.
    Works,
    /// It took the machine as it is.
    Took,
    /// An edit of the inventory led it there.
    Led,
}

/// A node that has a machine, as the nodes of other groups see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Occupant {
    /// What its right is worth.
    pub right: Right,
    /// Which it is, for people.
    pub who: String,
}

impl Occupant {
    /// A node of `group` whose machine is there now.
    pub fn new(node: &Node, there: &str, group: &str) -> Self {
        let works = node.written().incarnation.as_ref().is_some_and(|incarnation| incarnation.instance == there);
        let took = node.host.as_ref().is_some_and(|taken| place(&taken.address, taken.port) == there);
        let claim = match (works, took) {
            (true, _) => Claim::Works,
            (false, true) => Claim::Took,
            (false, false) => Claim::Led,
        };
        let right = Right { claim, since: node.created, node: node.uid.clone() };
        Self { right, who: format!("node {} of group {group}", node.name) }
    }
}

/// Where a node's machine is, as its status says. One whose status names no address any more has none; one without a status is
/// where it was taken.
pub fn told_place(node: &Node) -> Option<String> {
    let taken = node.host.as_ref()?;
    if node.reported.conditions.is_empty() {
        return Some(place(&taken.address, taken.port));
    }
    let address = node.reported.address.as_ref()?;
    // A port of its own is known from where it was at work.
    let prefix = place(address, 0);
    let prefix = prefix.trim_end_matches('0');
    let worked = node.written().incarnation.as_ref().map(|incarnation| &incarnation.instance);
    let worked = worked.filter(|instance| instance.starts_with(prefix));
    Some(worked.cloned().unwrap_or_else(|| place(address, taken.port)))
}

/// Where the machines of a group's nodes are, by their UIDs, as the inventory has them now; nothing where a node has none.
pub fn places(snapshot: &Snapshot) -> Vec<(String, Option<String>)> {
    let Some(hosts) = snapshot.for_removal().and_then(|group| group.node.hosts()).filter(|hosts| hosts.is_read) else {
        return Vec::new();
    };
    let present: BTreeMap<&str, String> =
        present(snapshot, hosts).into_iter().map(|(node, host)| (node.uid.as_str(), host.place())).collect();
    let bound = snapshot.nodes.values().filter(|node| node.host.is_some());
    bound.map(|node| (node.uid.clone(), present.get(node.uid.as_str()).cloned())).collect()
}

/// Keeps who has the better right to a place.
pub fn seat(holders: &mut BTreeMap<String, Occupant>, place: String, occupant: Occupant) {
    let better = |known: &Occupant| occupant.right < known.right;
    if holders.get(&place).is_none_or(better) {
        holders.insert(place, occupant);
    }
}

fn by_name(hosts: &HostsShape) -> BTreeMap<&str, &Host> {
    hosts.inventory.iter().map(|host| (host.name(), host)).collect()
}

/// The nodes with their hosts, as the inventory has them now. What one that was not read says of them is not known.
fn present<'a>(snapshot: &'a Snapshot, hosts: &'a HostsShape) -> Vec<(&'a Node, Cow<'a, Host>)> {
    let named = by_name(hosts);
    let host = |node: &'a Arc<Node>| {
        let bound = node.host.as_ref()?;
        match named.get(bound.name.as_str()) {
            Some(host) => Some((&**node, Cow::Borrowed(*host))),
            None if hosts.is_read => None,
            None => {
                let address = node.reported.address.as_ref().unwrap_or(&bound.address);
                let bound = NodeHost { address: address.clone(), ..bound.clone() };
                Some((&**node, Cow::Owned(Host::remembered(&bound))))
            }
        }
    };
    snapshot.nodes.values().filter_map(host).collect()
}

/// How a node stands to its host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It is this node's.
    Own,
    /// It is another node's, which has the better right to it.
    Taken {
        /// Whose, for people.
        by: String,
    },
    /// What the inventory says of it has not been read since the operator started: how it is reached, and its keys, may stand there.
    Unread,
}

/// How the nodes of a group stand to their hosts. A node whose host is in the inventory no more has none.
pub fn standings<'a>(snapshot: &'a Snapshot, hosts: &'a HostsShape) -> Vec<(&'a Node, Cow<'a, Host>, Standing)> {
    let found = present(snapshot, hosts);
    let mut holders: BTreeMap<String, Occupant> = BTreeMap::new();
    let name = &snapshot.head.key.name;
    let own = found.iter().map(|(node, host)| (host.place(), Occupant::new(node, &host.place(), name)));
    let others = snapshot.occupied.iter().map(|(place, occupant)| (place.clone(), occupant.clone()));
    own.chain(others).for_each(|(place, occupant)| seat(&mut holders, place, occupant));
    let standing = |node: &Node, host: &Host| match holders.get(&host.place()) {
        Some(holder) if holder.right.node != node.uid => Standing::Taken { by: holder.who.clone() },
        _ if !hosts.is_read => Standing::Unread,
        _ => Standing::Own,
    };
    let stands = |(node, host): (&'a Node, Cow<'a, Host>)| {
        let standing = standing(node, &host);
        (node, host, standing)
    };
    found.into_iter().map(stands).collect()
}

/// What is said where there are fewer hosts than nodes are asked for.
pub fn shortage(snapshot: &Snapshot, group: &Group) -> Option<String> {
    let hosts = group.node.hosts()?;
    let live = snapshot.live().count();
    if live >= group.count as usize || !free(snapshot, hosts).is_empty() {
        return None;
    }
    let others = hosts.inventory.iter().filter_map(|host| Some((host.name(), snapshot.occupied.get(&host.place())?)));
    let others: Vec<String> = others.map(|(name, owner)| format!("{name} is {}", owner.who)).collect();
    let more = others.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let taken = match others.len() {
        0 => String::new(),
        _ => format!("; of others: {}{more}", others[..others.len().min(NAMED)].join(", ")),
    };
    let (selected, listed) = (hosts.inventory.len(), hosts.listed);
    let listed = match selected == listed {
        true => format!("{listed} are in the inventory"),
        false => format!("{listed} are in the inventory, {selected} match the selector"),
    };
    Some(format!(
        "{live} of {} nodes have a host: {listed}{taken}; add hosts, or set spec.count to {live}",
        group.count
    ))
}
