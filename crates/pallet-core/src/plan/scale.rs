//! Pure: which nodes to add and which to remove.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{Machine, MachineState, Node, Snapshot, claims, hosts, revisions};
use crate::{
    group::{Group, Replacement},
    phase::PhaseName,
};
use pallet_api::group_node::Outcome;

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

impl std::fmt::Display for Rank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rank::Marked => "marked by pallet.dev/delete-node",
            Rank::Unhealthy => "it does not run",
            Rank::NeverBootstrapped => "nothing has succeeded on it yet",
            Rank::HighestOrdinal => "highest ordinal",
        })
    }
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
    let machine = snapshot.machine(node);
    let runs =
        machine.is_some_and(|machine| !machine.deleting && matches!(machine.state, MachineState::Running { .. }));
    // Of a host nobody tells whether it runs: it can be reached, or it cannot.
    let runs = runs && (node.host.is_none() || !snapshot.troubles.contains_key(&node.name));
    if node.marked || machine.is_some_and(|machine| machine.marked) {
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
    let phase_results = &node.record.phase_results;
    match phase_results.get(&PhaseName::bootstrap()) {
        Some(phase_result) => phase_result.outcome == Outcome::Succeeded,
        None => phase_results.values().any(|phase_result| phase_result.outcome == Outcome::Succeeded),
    }
}

/// Whether what backs a node was made otherwise than it would be made now.
pub fn is_outdated(group: &Group, machine: &Machine) -> bool {
    machine.template_hash != group.node.hash() || claims::lacks_volume(group, machine)
}

/// The nodes whose pod was made from another template and that are to be replaced for it.
pub fn outdated<'a>(snapshot: &Snapshot, group: &Group, live: &[&'a Node]) -> Vec<&'a Node> {
    if group.rollout.replacement == Replacement::Never {
        return Vec::new();
    }
    let made_otherwise =
        |node: &&&Node| snapshot.machine(node).is_some_and(|machine| !machine.deleting && is_outdated(group, machine));
    live.iter().filter(made_otherwise).copied().collect()
}

/// How many nodes there may be now: the count, and a surge while nodes are replaced.
pub fn target(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> u32 {
    let replaced = outdated(snapshot, group, live).len() as u32;
    group.count + group.rollout.max_surge.min(replaced)
}

/// The nodes to replace now, those that do no good first: they take nothing away. Of the others as many as may be
/// unavailable, marked ones first, then those that are coming back, then the highest ordinal.
///
/// A node that was lost and is coming back counts as available. While the present template has worked on no node, and is tried
/// on as many as may be unavailable, no further node is replaced.
pub fn replaced<'a>(snapshot: &Snapshot, group: &Group, live: &[&'a Node]) -> Vec<(&'a Node, bool)> {
    let available = |node: &Node| is_available(snapshot, group, node);
    let counts = |node: &Node| available(node) || recovers(snapshot, node);
    let least = group.count.saturating_sub(group.rollout.max_unavailable) as usize;
    let spare = live.iter().filter(|node| counts(node)).count().saturating_sub(least);
    let (mut healthy, unhealthy): (Vec<&Node>, Vec<&Node>) =
        outdated(snapshot, group, live).into_iter().partition(|node| counts(node));
    let marked = |node: &Node| node.marked || snapshot.machine(node).is_some_and(|machine| machine.marked);
    healthy.sort_by_key(|node| (Reverse(marked(node)), available(node), Reverse(node.ordinal)));
    healthy.truncate(spare);
    if revisions::is_stuck(snapshot, group, live) {
        return healthy.into_iter().map(|node| (node, available(node))).collect();
    }
    let unhealthy = unhealthy.into_iter().map(|node| (node, false));
    unhealthy.chain(healthy.into_iter().map(|node| (node, available(node)))).collect()
}

/// Whether a node serves.
pub(super) fn is_available(snapshot: &Snapshot, group: &Group, node: &Node) -> bool {
    let serves = |machine: &Machine| {
        !machine.deleting && machine.ready && (machine.gate_open || (!machine.gated && has_converged(group, node)))
    };
    snapshot.machine(node).is_some_and(serves)
}

fn recovers(snapshot: &Snapshot, node: &Node) -> bool {
    snapshot.machine(node).is_some_and(|machine| !machine.deleting && revisions::is_recovering(snapshot, node, machine))
}

/// When the first node that is coming back does not count as available any more.
pub fn recovery_ends(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> Option<Timestamp> {
    let coming = outdated(snapshot, group, live).into_iter().filter(|node| recovers(snapshot, node));
    coming.filter_map(|node| snapshot.machine(node)).map(|machine| machine.created + revisions::RECOVERS_FOR).min()
}

/// Whether every phase has succeeded on a node, if not as it is declared now: it served, and an edit takes nothing away.
fn has_converged(group: &Group, node: &Node) -> bool {
    let done =
        |phase: &PhaseName| node.record.phase_results.get(phase).is_some_and(|r| r.outcome == Outcome::Succeeded);
    group.phases.converged().iter().all(done)
}

/// A pod that is still there so long after its grace period does not go by itself, as on a lost machine.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// The nodes that are being removed and whose ordinals their successors take, so that these are waited for.
///
/// A name stays with its ordinal: a count that goes down and up again renames nobody. Exceptions: another host is another node; a surge is for not
/// waiting, so a node that is replaced under one keeps its ordinal to itself; and a pod that does not go must not leave the
/// group short for ever, unless others know the node by its name ([`NodeShape::is_named`]) or its data is bound to it.
fn waited_for<'a>(snapshot: &'a Snapshot, group: &'a Group) -> impl Iterator<Item = &'a Arc<Node>> {
    let claims = !group.node.claims().is_empty();
    let surges = group.rollout.replacement == Replacement::WhenChanged && group.rollout.max_surge > 0;
    let leaving =
        move |node: &&Arc<Node>| node.deletion.is_some() && node.finalized && (claims || node.ordinal < group.count);
    snapshot.nodes.values().filter(leaving).filter(move |node| match snapshot.machine(node) {
        None => true,
        // Its successor is another machine.
        Some(_) if node.host.is_some() => false,
        Some(_) if claims => true,
        Some(machine) if surges && is_outdated(group, machine) => false,
        Some(machine) => group.node.is_named() || overdue_from(machine).is_none_or(|time| time > snapshot.now),
    })
}

/// From when on a machine that is being deleted counts as one that does not go.
fn overdue_from(machine: &Machine) -> Option<Timestamp> {
    machine.ends.map(|end| end + OVERDUE)
}

/// When a node that is waited for is waited for no longer, though nothing happens.
pub fn wait_ends(snapshot: &Snapshot, group: &Group) -> Option<Timestamp> {
    let ends = waited_for(snapshot, group).filter_map(|node| snapshot.machine(node).and_then(overdue_from));
    ends.filter(|time| *time > snapshot.now).min()
}

/// The ordinals of the nodes to create: the lowest free ones. A node that is being removed keeps its ordinal till it is
/// gone, and one whose name somebody else holds is passed over. What may have been created already comes first, and where that is
/// more than is missing, none is created before it is known: there could be one node too many. An ordinal whose claims are there
/// comes before one that would begin anew.
pub fn missing(snapshot: &Snapshot, group: &Group, live: usize, target: u32) -> Vec<u32> {
    let free = |ordinal: &u32| !snapshot.nodes.contains_key(ordinal) && !snapshot.foreign_nodes.contains_key(ordinal);
    let claims = !group.node.claims().is_empty();
    let mut wanted = (target as usize).saturating_sub(live + waited_for(snapshot, group).count());
    if let Some(shape) = group.node.hosts() {
        wanted = wanted.min(hosts::free(snapshot, shape).len());
    }
    if snapshot.uncertain.iter().filter(|ordinal| free(ordinal)).count() > wanted {
        return Vec::new();
    }
    let kept: BTreeSet<u32> = if claims { with_claims(snapshot, group) } else { BTreeSet::new() };
    let first: BTreeSet<u32> = snapshot.uncertain.iter().chain(&kept).copied().collect();
    let (uncertain, kept) = (snapshot.uncertain.iter(), kept.iter().filter(|n| !snapshot.uncertain.contains(n)));
    let others = (0..).filter(|ordinal| !first.contains(ordinal));
    uncertain.chain(kept).copied().chain(others).filter(free).take(wanted).collect()
}

/// The ordinal of the node for what runs on one node of a group only: the lowest that is there, or is to be made in the
/// place of one that is gone.
pub fn chosen(live: &BTreeSet<u32>, count: u32) -> Option<u32> {
    let free = (live.len() < count as usize).then(|| (0..).find(|ordinal| !live.contains(ordinal))).flatten();
    live.first().copied().into_iter().chain(free).min()
}

/// The ordinals of which the group has claims.
fn with_claims(snapshot: &Snapshot, group: &Group) -> BTreeSet<u32> {
    let ordinal = |node: &str| node.strip_prefix(&group.key.name)?.strip_prefix('-')?.parse::<u32>().ok();
    snapshot.claims.values().filter(|claim| !claim.deleting).filter_map(|claim| ordinal(&claim.node)).collect()
}
