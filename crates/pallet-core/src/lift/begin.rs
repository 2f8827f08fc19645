//! Pure: how a Lift starts: which nodes it is for, and what keeps it from starting.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Effect, GroupView, LiftPlan, LiftSnapshot, Target, Wait, Work, status};
use crate::{
    group::{FieldError, Group},
    phase::PhaseName,
    plan::{self, Node, Snapshot, earliest},
};
use pallet_api::reason::Reason;
use pallet_api::{LiftFields, lift::NodeOutcome};

/// Fixes the nodes of a Lift, or says in the plan why it cannot start yet.
pub(super) fn begin(snapshot: &LiftSnapshot, plan: &mut LiftPlan) -> Option<Work> {
    if snapshot.head.deleting {
        plan.effects.extend(snapshot.head.finalized.then_some(Effect::Release));
        return None;
    }
    if snapshot.spec.cancel {
        status::never_started(snapshot, plan, Reason::Cancelled, "it was cancelled before it started".to_owned());
        return None;
    }
    let wait = waits(snapshot);
    if snapshot.deadline().is_some_and(|deadline| deadline <= snapshot.now) {
        let why = wait.map(|wait| format!(": {}", wait.message)).unwrap_or_default();
        status::never_started(
            snapshot,
            plan,
            Reason::TimedOut,
            format!("its time was over before it could start{why}"),
        );
        return None;
    }
    plan.wake = earliest(plan.wake, snapshot.deadline());
    if snapshot.spec.suspend {
        let wait = Wait::new(Reason::Suspended, "set spec.suspend to false to have it start");
        status::waiting(snapshot, plan, &wait);
        return None;
    }
    if let Some(wait) = wait {
        status::waiting(snapshot, plan, &wait);
        return None;
    }
    let nodes: Vec<(Target, &Node)> = snapshot.groups.values().flat_map(|view| targets(snapshot, view)).collect();
    // The clocks of the API server and of the operator may differ: none of its nodes is younger than the Lift's start.
    let youngest = nodes.iter().map(|(_, node)| node.created).max().unwrap_or(snapshot.now);
    let start: Timestamp = snapshot.now.max(youngest);
    plan.status.start_time = Some(Time(start));
    let outcomes: BTreeMap<Target, NodeOutcome> =
        nodes.into_iter().map(|(target, _)| (target, NodeOutcome::Pending)).collect();
    Some(Work { outcomes, waits: BTreeMap::new() })
}

/// Fits a group that was parsed for a Lift to what its converge knows: the phases that have no leave, and the node for what
/// runs on one node only. That is the one that converge chose where the Lift is for it, or what is run there would not be
/// what converge runs; else the first that it is for.
pub fn fitted(lifted: Group, seen: &Snapshot, spec: &LiftFields) -> Group {
    let Ok(group) = &seen.group else { return lifted };
    let named = |node: &Node| spec.nodes.as_ref().is_none_or(|names| names.contains(&node.name));
    let mine: BTreeSet<u32> = seen.live().filter(|node| named(node)).map(|node| node.ordinal).collect();
    let chosen = group.chosen.filter(|chosen| mine.contains(chosen)).or_else(|| mine.first().copied());
    Group { unapproved: group.unapproved.clone(), chosen, ..lifted }
}

/// The nodes of a group that a Lift is for.
fn targets<'a>(snapshot: &'a LiftSnapshot, view: &'a GroupView) -> impl Iterator<Item = (Target, &'a Node)> {
    let name = view.snapshot.head.key.name.clone();
    let named = move |node: &&Node| snapshot.spec.nodes.as_ref().is_none_or(|names| names.contains(&node.name));
    let with_role = snapshot.spec.role.as_ref().is_none_or(|role| view.roles.contains(role));
    let live = view.snapshot.live().filter(move |_| with_role).filter(named);
    live.map(move |node| ((name.clone(), node.ordinal), node))
}

/// What keeps it from starting, if anything does.
fn waits(snapshot: &LiftSnapshot) -> Option<Wait> {
    let stalled = |reason: Reason, message: String| Some(Wait::for_person(reason, message));
    let named = snapshot.spec.groups.iter().flatten();
    if let Some(name) = named.into_iter().find(|name| !snapshot.groups.contains_key(*name)) {
        let message = format!("there is no GroupSpec {name:?} in this namespace; make it, or make another Lift");
        return stalled(Reason::GroupMissing, message);
    }
    for (name, view) in &snapshot.groups {
        if view.snapshot.head.deletion.is_some() {
            return stalled(Reason::GroupDeleting, format!("GroupSpec {name} is being deleted"));
        }
        if let Err(errors) = &view.snapshot.group {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            return stalled(Reason::InvalidGroup, format!("GroupSpec {name} cannot be used: {first}"));
        }
        if let Err(errors) = &view.lifted {
            return Some(invalid(&(name.clone(), 0), errors));
        }
        if is_being_made(view) {
            return Some(Wait::new(Reason::NodesMissing, format!("nodes of GroupSpec {name} are being created")));
        }
    }
    if let Some(phase) = unknown_phase(snapshot) {
        let message =
            format!("nobody defines a phase {phase:?}; the groups have {}", known_phases(snapshot).join(", "));
        return stalled(Reason::UnknownPhase, message);
    }
    let there = |name: &&String| {
        let mut nodes = snapshot.groups.values().flat_map(|view| targets(snapshot, view));
        nodes.any(|(_, node)| node.name == **name)
    };
    let missing = snapshot.spec.nodes.iter().flatten().find(|name| !there(name))?;
    stalled(Reason::NodeMissing, format!("spec.nodes: there is no node {missing:?} in the groups that it is for"))
}

/// Whether nodes are missing that will be there in a moment.
fn is_being_made(view: &GroupView) -> bool {
    let making = |effect: &plan::Effect| {
        matches!(
            effect,
            plan::Effect::Finalize
                | plan::Effect::CreateNode { .. }
                | plan::Effect::TakeHost { .. }
                | plan::Effect::CheckTemplate
        )
    };
    view.snapshot.group.as_ref().is_ok_and(|group| !group.paused && group.count > 0)
        && view.plan.effects.iter().any(making)
}

/// A phase that is asked for and that none of the groups declares.
fn unknown_phase(snapshot: &LiftSnapshot) -> Option<&String> {
    let always =
        |name: &&String| [PhaseName::settings(), PhaseName::configure()].contains(&PhaseName::new(name.as_str()));
    let known = known_phases(snapshot);
    let asked = snapshot.spec.phases.iter().flatten().filter(|name| !always(name));
    asked.into_iter().find(|name| !snapshot.groups.is_empty() && !known.contains(name))
}

/// The phases that any of the groups declares.
fn known_phases(snapshot: &LiftSnapshot) -> Vec<String> {
    let of = |view: &GroupView| -> Vec<String> {
        let Ok(group) = &view.snapshot.group else { return Vec::new() };
        let tested = (!group.phases.expectations.is_empty()).then(PhaseName::test);
        let own = group.phases.actions.keys().filter(|phase| **phase != PhaseName::prepare());
        own.cloned().chain(tested).map(|phase| phase.to_string()).collect()
    };
    let mut names: Vec<String> = snapshot.groups.values().flat_map(of).collect();
    names.push(PhaseName::settings().to_string());
    names.sort();
    names.dedup();
    names
}

/// What is said of a group that cannot be lifted as it is asked for.
pub(super) fn invalid((group, _): &Target, errors: &[FieldError]) -> Wait {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Wait::for_person(
        FieldError::reason(errors, Reason::InvalidLift),
        format!("for GroupSpec {group}: {}", lines.join("; ")),
    )
}
