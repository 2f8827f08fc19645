//! Pure: which nodes to add and which to remove.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use super::{Container, Node, Snapshot, Step};
use crate::{
    api::group_node::Outcome,
    group::{Group, Replacement},
    phase::PhaseName,
};

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
    ranked.sort_by_key(|(node, rank)| (*rank, Reverse(node.ordinal)));
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

/// The nodes whose pod was made from another template and that are to be replaced for it.
fn outdated<'a>(snapshot: &Snapshot, group: &Group, live: &[&'a Node]) -> Vec<&'a Node> {
    if group.rollout.replacement == Replacement::Never {
        return Vec::new();
    }
    let made_otherwise =
        |node: &&&Node| snapshot.pod(node).is_some_and(|pod| !pod.deleting && pod.template_hash != group.pod.hash);
    live.iter().filter(made_otherwise).copied().collect()
}

/// How many nodes there may be now: the count, and a surge while nodes are replaced.
pub fn target(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> u32 {
    let replaced = outdated(snapshot, group, live).len() as u32;
    group.count + group.rollout.max_surge.min(replaced)
}

/// The nodes to replace now, those that do no good first: they take nothing away. Of the others as many as may be
/// unavailable, marked ones first, then the highest ordinal.
pub fn replaced<'a>(
    snapshot: &Snapshot,
    group: &Group,
    live: &[&'a Node],
    steps: &BTreeMap<u32, Step>,
) -> Vec<(&'a Node, bool)> {
    let available = |node: &Node| {
        let settled = steps.get(&node.ordinal) == Some(&Step::Settled);
        snapshot.pod(node).is_some_and(|pod| !pod.deleting && pod.ready && (pod.gate_open || settled))
    };
    let least = group.count.saturating_sub(group.rollout.max_unavailable) as usize;
    let spare = live.iter().filter(|node| available(node)).count().saturating_sub(least);
    let (mut healthy, unhealthy): (Vec<&Node>, Vec<&Node>) =
        outdated(snapshot, group, live).into_iter().partition(|node| available(node));
    let marked = |node: &Node| node.marked || snapshot.pod(node).is_some_and(|pod| pod.marked);
    healthy.sort_by_key(|node| (Reverse(marked(node)), Reverse(node.ordinal)));
    healthy.truncate(spare);
    let unhealthy = unhealthy.into_iter().map(|node| (node, false));
    unhealthy.chain(healthy.into_iter().map(|node| (node, true))).collect()
}

/// The ordinals of the nodes to create: the lowest free ones. A node that is being removed keeps its ordinal till it is
/// gone, and one whose name somebody else holds is passed over. What may have been created already comes first, or there
/// could be one node too many.
///
/// A node that is replaced without a surge, or that will be gone in a moment, is waited for: the new one takes its place,
/// its name and its claims.
pub fn missing(snapshot: &Snapshot, group: &Group, live: usize, target: u32) -> Vec<u32> {
    let free = |ordinal: &u32| !snapshot.nodes.contains_key(ordinal) && !snapshot.foreign_nodes.contains_key(ordinal);
    let (uncertain, certain) = (snapshot.uncertain.iter().copied(), (0..).filter(|n| !snapshot.uncertain.contains(n)));
    let in_place = group.rollout.replacement == Replacement::WhenChanged && group.rollout.max_surge == 0;
    let leaving = |node: &&Arc<Node>| node.deletion.is_some() && node.finalized && node.ordinal < group.count;
    let waited_for = snapshot.nodes.values().filter(leaving);
    let waited_for = waited_for.filter(|node| match snapshot.pod(node) {
        None => true,
        Some(pod) => in_place && pod.template_hash != group.pod.hash,
    });
    let wanted = (target as usize).saturating_sub(live + waited_for.count());
    uncertain.chain(certain).filter(free).take(wanted).collect()
}
