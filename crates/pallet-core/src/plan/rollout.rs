//! Pure: how nodes proceed relative to each other: barriers, and what stops a rollout.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    MachineState, Node, Snapshot, Step,
    next::{self, Why},
    progress::{self, Cause, identity},
    scale,
};
use crate::{
    group::{Group, Order, Replacement},
    phase::PhaseName,
};

/// How far a node may go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bound {
    /// As far as there is something to do.
    Free,
    /// Through this phase, and not beyond: the others are to come as far first.
    Through(PhaseName),
    /// No further phase starts.
    Hold,
}

impl Bound {
    /// Whether a phase may start.
    pub fn allows(&self, group: &Group, phase: &PhaseName) -> bool {
        let sequence = group.phases.converged();
        let place = |phase: &PhaseName| sequence.iter().position(|other| other == phase);
        match self {
            Bound::Free => true,
            Bound::Hold => false,
            // What is not in the list any more bounds nothing.
            Bound::Through(last) => place(last).is_none_or(|last| place(phase) <= Some(last)),
        }
    }
}

/// A node that is lost from sight for this long is not waited for at a barrier.
const LOST_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How far every node may go, and whether the rollout has stopped.
#[derive(Debug, Default)]
pub struct Judgement {
    /// By ordinal.
    pub bounds: BTreeMap<u32, Bound>,
    /// More nodes are failing than are allowed: nothing further is begun.
    pub stopped: bool,
}

/// How far every node may go.
///
/// Where more nodes are failing than are allowed, the healthy ones stop, and those that fail use their attempts up. Nodes
/// that are replaced for a template that is `sound` do not count. At a
/// barrier, every node may go through the earliest phase that any of them still has before it.
pub fn judge(
    snapshot: &Snapshot,
    group: &Group,
    sound: bool,
    live: &[&Node],
    steps: &BTreeMap<u32, Step>,
) -> Judgement {
    let all = |bound: Bound| live.iter().map(|node| (node.ordinal, bound.clone())).collect::<BTreeMap<_, _>>();
    if group.paused {
        return Judgement { bounds: all(Bound::Hold), stopped: false };
    }
    if group.rollout.max_failures.is_none() && group.rollout.order == Order::Independent {
        return Judgement { bounds: all(Bound::Free), stopped: false };
    }
    let stands: Vec<Stand> = live
        .iter()
        .filter_map(|node| Some(Stand::of(snapshot, group, sound, node, steps.get(&node.ordinal)?)))
        .collect();
    let mut bounds = match group.rollout.order {
        Order::Independent => all(Bound::Free),
        Order::Barrier => barrier(group, &stands),
    };
    let failing = stands.iter().filter(|stand| stand.failing).count();
    let stopped = group.rollout.max_failures.is_some_and(|most| failing > most as usize);
    if stopped {
        bounds.extend(stands.iter().filter(|stand| !stand.failing).map(|stand| (stand.ordinal, Bound::Hold)));
    }
    Judgement { bounds, stopped }
}

/// Where a node stands in a rollout, a session at work on it or not.
struct Stand {
    ordinal: u32,
    /// The place in the order of phases of what it has before it; behind the last where it has nothing.
    place: usize,
    /// Its last attempt failed.
    failing: bool,
    /// It has no attempts left.
    halted: bool,
    /// Whether it was through all phases before.
    veteran: bool,
    /// Whether there is hope that it will go on.
    present: bool,
}

impl Stand {
    fn of(snapshot: &Snapshot, group: &Group, sound: bool, node: &Node, step: &Step) -> Self {
        let sequence = group.phases.converged();
        let machine = snapshot.machine(node);
        let met = machine.is_some_and(|machine| progress::is_current(node, machine));
        let due = match (step, machine) {
            // What is due on it whatever its session is at: the settings that come before every phase do not count.
            (Step::Follow(_), Some(machine)) => {
                let due = met.then(|| next::outline(group, &identity(node, Some(machine)), &node.record, snapshot.now));
                due.map_or_else(|| step.clone(), progress::known)
            }
            _ => step.clone(),
        };
        let phase = match &due {
            // Only its journal is read, as far as is known.
            Step::Settled | Step::Run { why: Why::Unread, .. } => None,
            Step::Run { phase, .. } | Step::Backoff { phase, .. } | Step::Halt { phase } => Some(phase),
            Step::Await(Cause::Nodes { due, .. } | Cause::Manual { due, .. } | Cause::Approval { due }) => Some(due),
            Step::Await(_) | Step::Follow(_) => sequence.first(),
        };
        let place = phase.map_or(sequence.len(), |phase| sequence.iter().position(|p| p == phase).unwrap_or(0));
        let tried = |phase: &PhaseName| node.record.phase_results.contains_key(phase);
        let patience = SignedDuration::try_from(group.timeout).unwrap_or(SignedDuration::MAX);
        let present = match (step, machine) {
            (Step::Await(Cause::Unreachable(trouble)), _) => snapshot.now < trouble.since + LOST_AFTER,
            (Step::Await(Cause::NameConflict | Cause::ClaimConflict { .. }), _) => false,
            (_, Some(machine)) if matches!(machine.state, MachineState::Running { .. }) => !machine.deleting,
            // A pod takes its time to come; one that does not come at all must not hold the others for ever.
            _ => snapshot.now < node.created + patience,
        };
        // One that is to be replaced must not keep the very rollout from going on that replaces it.
        let old = machine.is_some_and(|machine| scale::is_outdated(group, machine));
        let replaced = sound && old && group.rollout.replacement == Replacement::WhenChanged;
        Self {
            ordinal: node.ordinal,
            place,
            failing: !replaced
                && (matches!(&due, Step::Backoff { phase, .. } if !node.record.is_interrupted(phase))
                    || matches!(&due, Step::Halt { .. })
                    || matches!(&due, Step::Run { why: Why::Retry(_, attempt), .. } if *attempt > 1)),
            halted: matches!(due, Step::Halt { .. }),
            veteran: met && sequence.iter().all(tried),
            present,
        }
    }
}

/// Those that have been through all phases once hold each other; who joins later catches up alone. In a new group all are
/// new, and hold each other. Who is lost or has failed for good holds nobody.
fn barrier(group: &Group, stands: &[Stand]) -> BTreeMap<u32, Bound> {
    let sequence = group.phases.converged();
    let veterans = stands.iter().any(|stand| stand.veteran);
    let bound_by = |stand: &Stand| stand.veteran == veterans;
    let holding = stands.iter().filter(|stand| bound_by(stand) && stand.present && !stand.halted);
    let at = holding.map(|stand| stand.place).min().and_then(|place| sequence.get(place));
    let bound = |stand: &Stand| match at {
        Some(phase) if bound_by(stand) => Bound::Through(phase.clone()),
        _ => Bound::Free,
    };
    stands.iter().map(|stand| (stand.ordinal, bound(stand))).collect()
}

/// When a barrier waits no longer for a node that does not come, or is lost.
pub fn patience_ends(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> Option<Timestamp> {
    if group.rollout.order != Order::Barrier {
        return None;
    }
    let patience = SignedDuration::try_from(group.timeout).unwrap_or(SignedDuration::MAX);
    let runs = |node: &Node| {
        snapshot.machine(node).is_some_and(|machine| matches!(machine.state, MachineState::Running { .. }))
    };
    let ends = live.iter().map(|node| match snapshot.troubles.get(&node.name) {
        Some(trouble) => trouble.since + LOST_AFTER,
        None if !runs(node) => node.created + patience,
        None => snapshot.now,
    });
    ends.filter(|end| *end > snapshot.now).min()
}

/// The step of a node that may not go as far as it could.
pub fn held_back(group: &Group, step: Step, bound: &Bound) -> Step {
    match (step, bound) {
        // What was lost from sight is looked for all the same: it may still be going.
        (step @ Step::Run { why: Why::Probe(_) | Why::Unread, .. }, _) => step,
        (Step::Run { phase, .. }, Bound::Hold) if !group.paused => Step::Await(Cause::Stopped { due: phase }),
        (Step::Run { phase, .. }, Bound::Through(at)) if !bound.allows(group, &phase) => {
            Step::Await(Cause::Barrier { due: phase, at: at.clone() })
        }
        (step, _) => step,
    }
}
