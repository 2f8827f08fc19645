//! Pure: which nodes to add and which to remove.

use super::{Container, Node, Snapshot};
use crate::{api::group_node::Outcome, phase::PhaseName};

/// Why a surplus node goes before another, worst first. Ties go to the higher ordinal.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rank {
    /// Somebody marked it.
    Marked,
    /// It has no running pod.
    Unhealthy,
    /// Nothing has succeeded on it yet.
    NeverBootstrapped,
    /// Nothing speaks against it but its place.
    HighestOrdinal,
}

/// The nodes that are more than `count`, in the order in which they go.
pub fn victims<'a>(snapshot: &Snapshot, live: &[&'a Node], count: u32) -> Vec<(&'a Node, Rank)> {
    let surplus = live.len().saturating_sub(count as usize);
    let mut ranked: Vec<_> = live.iter().map(|node| (*node, rank(snapshot, node))).collect();
    ranked.sort_by_key(|(node, rank)| (*rank, std::cmp::Reverse(node.ordinal)));
    ranked.truncate(surplus);
    ranked
}

fn rank(snapshot: &Snapshot, node: &Node) -> Rank {
    let pod = snapshot.pod(node);
    let runs = pod.is_some_and(|pod| !pod.deleting && matches!(pod.container, Container::Running { .. }));
    if node.marked || pod.is_some_and(|pod| pod.marked) {
        Rank::Marked
    } else if !runs {
        Rank::Unhealthy
    } else if !bootstrapped(node) {
        Rank::NeverBootstrapped
    } else {
        Rank::HighestOrdinal
    }
}

fn bootstrapped(node: &Node) -> bool {
    let receipts = &node.record.receipts;
    match receipts.get(&PhaseName::bootstrap()) {
        Some(receipt) => receipt.outcome == Outcome::Succeeded,
        None => receipts.values().any(|receipt| receipt.outcome == Outcome::Succeeded),
    }
}

/// The ordinals of the nodes to create: the lowest free ones. A node that is being removed keeps its ordinal till it is
/// gone, and one whose name somebody else holds is passed over. What may have been created already comes first, or there
/// could be one node too many.
pub fn missing(snapshot: &Snapshot, live: usize, count: u32) -> Vec<u32> {
    let free = |ordinal: &u32| !snapshot.nodes.contains_key(ordinal) && !snapshot.foreign_nodes.contains_key(ordinal);
    let (uncertain, certain) = (snapshot.uncertain.iter().copied(), (0..).filter(|n| !snapshot.uncertain.contains(n)));
    uncertain.chain(certain).filter(free).take((count as usize).saturating_sub(live)).collect()
}
