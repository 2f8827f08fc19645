//! Pure: which hosts of an inventory become nodes, and which nodes have lost theirs.

use std::collections::BTreeSet;

use super::{Node, Snapshot};
use crate::group::{Group, Host, HostsShape, hosts::place};

/// How many hosts a message names.
const NAMED: usize = 3;

/// The hosts that are nobody's, in the order in which they are taken. One whose node is being removed is still that node's.
pub fn free<'a>(snapshot: &Snapshot, hosts: &'a HostsShape) -> Vec<&'a Host> {
    let mine = snapshot.nodes.values().filter_map(|node| node.host.as_ref());
    let (names, places): (BTreeSet<&str>, BTreeSet<String>) =
        mine.map(|host| (host.name.as_str(), place(&host.address, host.port))).unzip();
    let free = |host: &&Host| {
        let place = host.place();
        !names.contains(host.name()) && !places.contains(&place) && !snapshot.occupied.contains_key(&place)
    };
    hosts.inventory.iter().filter(free).collect()
}

/// The nodes whose host is in the inventory no more.
pub fn withdrawn<'a>(snapshot: &Snapshot, group: &Group, live: &[&'a Node]) -> Vec<&'a Node> {
    if group.node.hosts().is_none() {
        return Vec::new();
    }
    live.iter().filter(|node| snapshot.machine(node).is_none()).copied().collect()
}

/// What is said where there are fewer hosts than nodes are asked for.
pub fn shortage(snapshot: &Snapshot, group: &Group) -> Option<String> {
    let hosts = group.node.hosts()?;
    let live = snapshot.live().count();
    if live >= group.count as usize || !free(snapshot, hosts).is_empty() {
        return None;
    }
    let others = hosts.inventory.iter().filter_map(|host| Some((host.name(), snapshot.occupied.get(&host.place())?)));
    let others: Vec<String> = others.map(|(name, owner)| format!("{name} is {owner}")).collect();
    let more = others.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let taken = match others.len() {
        0 => String::new(),
        _ => format!("; of others: {}{more}", others[..others.len().min(NAMED)].join(", ")),
    };
    let listed = hosts.inventory.len();
    Some(format!(
        "{live} of {} nodes have a host: {listed} are in the inventory{taken}; add hosts, or set spec.count to {live}",
        group.count
    ))
}
