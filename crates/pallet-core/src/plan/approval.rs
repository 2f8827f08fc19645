//! Pure: what a group under `approval: Manual` may do, and what it asks leave for.
//!
//! What was approved is kept in the status: a count, a template, the phases by their source digests, and the nodes that may
//! go. Whatever brings the group there needs no further leave: a lost node is replaced, a failed phase tried again, a phase run
//! anew since facts changed. Whatever is declared otherwise waits, and is shown as a plan under a digest of the whole.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;

use super::{
    Node, Removal, Snapshot, intervals,
    next::{self, Next},
    progress, scale,
};
use crate::{
    group::{Group, Replacement},
    phase::{Digest, PhaseName},
};
use pallet_api::group_spec::{Approved, PlanStatus, PlannedPhase, PlannedRemoval};

/// What a group waits for leave to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// What is to be approved.
    pub digest: Digest,
    /// The nodes to create.
    pub creates: BTreeSet<u32>,
    /// The nodes to remove, and why each.
    pub removals: BTreeMap<u32, scale::Rank>,
    /// The nodes to replace, since their pod template has changed.
    pub replaces: BTreeSet<u32>,
    /// The phases to run, in their order: on which nodes, and why.
    pub phases: Vec<(PhaseName, BTreeSet<u32>, &'static str)>,
}

/// Where a group stands with its approval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leave {
    /// What was approved, to be kept; new where it has just been given.
    pub approved: Option<Approved>,
    /// What waits.
    pub proposal: Option<Proposal>,
    /// The only nodes that may be removed as surplus; all of them where there is no set.
    pub victims: Option<BTreeSet<u32>>,
    /// Leave has just been given: it is written before anything is done on it.
    pub just_given: bool,
}

/// Holds a group back as far as it has no leave. `approve` is what the annotation says.
pub fn gate(snapshot: &mut Snapshot) {
    let Ok(declared) = &snapshot.group else {
        snapshot.leave.approved = snapshot.status.approved.clone();
        let live = snapshot.live().count();
        if let Some(good) = snapshot.last_good.as_mut().filter(|good| good.needs_approval) {
            *good = held_back(good, snapshot.status.approved.as_ref(), live);
        }
        return;
    };
    if !declared.needs_approval {
        return;
    }
    let (asked, known) = (target(declared), snapshot.status.approved.clone());
    let live: Vec<&Node> = snapshot.live().collect();
    let surplus = scale::victims(snapshot, &live, scale::target(snapshot, declared, &live));
    let removals: BTreeMap<u32, scale::Rank> = surplus.iter().map(|(node, rank)| (node.ordinal, *rank)).collect();
    let victims =
        known.as_ref().filter(|known| known.count == asked.count).map(|known| intervals::parse(&known.victims));
    let victims = victims.unwrap_or_default();
    let same = known.as_ref().is_some_and(|known| {
        (known.count, &known.sources) == (asked.count, &asked.sources) && declared.node.is_made_as(&known.template)
    });
    let mut leave = Leave { approved: known.clone(), victims: Some(victims.clone()), ..Leave::default() };
    if !same || removals.keys().any(|ordinal| !victims.contains(ordinal)) {
        let proposal = propose(snapshot, declared, known.as_ref(), &live, removals);
        let named = intervals::text(&proposal.removals.keys().copied().collect());
        let given = snapshot.head.approve == proposal.digest.as_str() || proposal.is_empty();
        let approved = Approved { digest: proposal.digest.to_string(), victims: named, ..asked };
        if given {
            leave.victims = Some(proposal.removals.keys().copied().collect());
            leave.just_given = true;
            leave.approved = Some(approved);
        } else {
            leave.proposal = Some(proposal);
        }
    }
    if leave.proposal.is_some() {
        let held = held_back(declared, known.as_ref(), live.len());
        snapshot.group = Ok(held);
    }
    snapshot.leave = leave;
}

/// What is declared, as far as it needs leave.
fn target(group: &Group) -> Approved {
    Approved {
        digest: String::new(),
        count: group.count,
        template: group.node.hash().to_owned(),
        sources: group
            .phases
            .sources()
            .into_iter()
            .map(|(phase, digest)| (phase.to_string(), digest.to_string()))
            .collect(),
        victims: String::new(),
    }
}

/// The group with what it has no leave for taken back.
fn held_back(declared: &Group, known: Option<&Approved>, live: usize) -> Group {
    let mut group = declared.clone();
    group.count = known.map_or(live as u32, |known| known.count);
    if known.is_none_or(|known| !group.node.is_made_as(&known.template)) {
        group.rollout.replacement = Replacement::Never;
    }
    let approved = |phase: &PhaseName, digest: &Digest| {
        known.is_some_and(|known| known.sources.get(phase.as_str()).is_some_and(|source| source == digest.as_str()))
    };
    group.unapproved = declared
        .phases
        .sources()
        .into_iter()
        .filter(|(phase, digest)| !approved(phase, digest))
        .map(|(phase, _)| phase)
        .collect();
    group
}

fn propose(
    snapshot: &Snapshot,
    declared: &Group,
    known: Option<&Approved>,
    live: &[&Node],
    removals: BTreeMap<u32, scale::Rank>,
) -> Proposal {
    let staying: Vec<&Node> = live.iter().copied().filter(|node| !removals.contains_key(&node.ordinal)).collect();
    let creates: BTreeSet<u32> =
        scale::missing(snapshot, declared, staying.len(), declared.count).into_iter().collect();
    let replaces: BTreeSet<u32> =
        scale::outdated(snapshot, declared, &staying).into_iter().map(|node| node.ordinal).collect();
    let fresh: BTreeSet<u32> = creates.union(&replaces).copied().collect();
    let mut phases = Vec::new();
    let sources = declared.phases.sources();
    for phase in declared.phases.converged() {
        let source = sources.get(&phase).map(Digest::as_str);
        let before = known.and_then(|known| known.sources.get(phase.as_str())).map(String::as_str);
        let due = |node: &&&Node| !fresh.contains(&node.ordinal) && is_due(snapshot, declared, node, &phase);
        let mut nodes: BTreeSet<u32> = staying.iter().filter(due).map(|node| node.ordinal).collect();
        let why = match before {
            None if known.is_some() || !nodes.is_empty() => "declared anew",
            Some(before) if Some(before) != source => "changed",
            _ if nodes.is_empty() => "new nodes",
            _ => "due",
        };
        nodes.extend(&fresh);
        // What runs on no node that is there may run on the next.
        let otherwise = known.is_some() && before != source;
        if !nodes.is_empty() || otherwise {
            phases.push((phase, nodes, why));
        }
    }
    let asked = target(declared);
    let victims: Vec<u32> = removals.keys().copied().collect();
    let digest = Digest::of(
        "plan",
        &json!([snapshot.head.uid, declared.generation, asked.count, asked.template, asked.sources, victims]),
    );
    Proposal { digest, creates, removals, replaces, phases }
}

/// Whether a phase is to run on a node that is there, as far as can be told before the facts are read again.
fn is_due(snapshot: &Snapshot, declared: &Group, node: &Node, phase: &PhaseName) -> bool {
    let Some(machine) = snapshot.machine(node) else { return true };
    if !progress::is_current(node, machine) {
        return true;
    }
    let due = next::due(declared, &progress::identity(node, Some(machine)), &node.record, snapshot.now, phase);
    !matches!(due, None | Some(Next::Halt { .. }))
}

impl Proposal {
    /// Whether there is nothing to do: then nobody has to be asked.
    fn is_empty(&self) -> bool {
        self.creates.is_empty() && self.removals.is_empty() && self.replaces.is_empty() && self.phases.is_empty()
    }

    /// As the status shows it: nodes by intervals, and so few of these that it stays small.
    pub fn shown(&self, generation: i64) -> PlanStatus {
        let mut removals: BTreeMap<scale::Rank, BTreeSet<u32>> = BTreeMap::new();
        for (ordinal, rank) in &self.removals {
            removals.entry(*rank).or_default().insert(*ordinal);
        }
        PlanStatus {
            digest: self.digest.to_string(),
            generation,
            creates: intervals::shortened(&self.creates),
            removals: removals
                .into_iter()
                .map(|(rank, nodes)| PlannedRemoval { nodes: intervals::shortened(&nodes), reason: rank.to_string() })
                .collect(),
            replaces: intervals::shortened(&self.replaces),
            phases: self
                .phases
                .iter()
                .map(|(phase, nodes, why)| PlannedPhase {
                    phase: phase.to_string(),
                    nodes: intervals::shortened(nodes),
                    reason: (*why).to_owned(),
                })
                .collect(),
        }
    }
}

impl Leave {
    /// When to look again: leave that was just given is used in the next pass.
    pub fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.just_given.then_some(now)
    }

    /// Whether a surplus node may be removed.
    pub fn allows(&self, node: &Node, why: &Removal) -> bool {
        match why {
            Removal::Surplus(_) => self.victims.as_ref().is_none_or(|victims| victims.contains(&node.ordinal)),
            Removal::GroupDeleted | Removal::Replaced { .. } | Removal::HostWithdrawn | Removal::HostInUse => true,
        }
    }
}
