//! Pure: what the status of a Lift says. Conditions follow kstatus: `Reconciling` and `Stalled` stand only while they hold, and
//! never both.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{LiftPlan, LiftSnapshot, Target, Wait, Work, is_done, written};
use crate::plan::{Node, intervals, status::phase_error};
use pallet_api::reason::Reason;
use pallet_api::{
    conditions::{Verdict, clip, stamp},
    group_node::{Effect, Outcome, PhaseResult},
    group_spec::PhaseError,
    lift::{ActionCounts, NodeOutcome, NodesByOutcome},
};

/// How many phase errors a Lift's status shows.
const ERRORS_SHOWN: usize = 10;
/// How many nodes a condition names.
const NAMED: usize = 3;

/// A Lift that waits for something before it can start.
pub(super) fn waiting(snapshot: &LiftSnapshot, plan: &mut LiftPlan, wait: &Wait) {
    let kind = if wait.person { "Stalled" } else { "Reconciling" };
    conclude(snapshot, plan, kind, &wait.reason, format!("it has not started: {}", wait.message));
}

/// A Lift that ends without having started.
pub(super) fn never_started(snapshot: &LiftSnapshot, plan: &mut LiftPlan, reason: impl Into<String>, message: String) {
    plan.status.completion_time = Some(Time(snapshot.now));
    if snapshot.head.finalized {
        plan.effects.push(super::Effect::Release);
    }
    conclude(snapshot, plan, "Failed", reason, message);
}

/// Sets the conditions. `kind` is how it stands: `Complete`, `Failed`, `Reconciling` or `Stalled`.
fn conclude(
    snapshot: &LiftSnapshot,
    plan: &mut LiftPlan,
    kind: &'static str,
    reason: impl Into<String>,
    message: String,
) {
    let reason = reason.into();
    let verdict = |kind, status| Verdict { kind, status, reason: reason.clone(), message: message.clone() };
    let mut verdicts = vec![verdict("Complete", kind == "Complete"), verdict("Failed", kind == "Failed")];
    match kind {
        // Without it kstatus would take a failed operation for one that is as it should be.
        "Failed" => verdicts.push(verdict("Stalled", true)),
        "Reconciling" | "Stalled" => verdicts.push(verdict(kind, true)),
        _ => {}
    }
    let generation = Some(snapshot.head.generation);
    plan.status.conditions = stamp(verdicts, &snapshot.status.conditions, generation, snapshot.now);
}

impl Work {
    /// Writes down where the nodes stand, and whether the Lift has ended.
    pub(super) fn report(&self, snapshot: &LiftSnapshot, plan: &mut LiftPlan) {
        let status = &mut plan.status;
        status.nodes = self.outcomes.len() as u32;
        status.succeeded = self.count(|outcome| outcome == NodeOutcome::Succeeded);
        let failed = [NodeOutcome::Failed, NodeOutcome::TimedOut, NodeOutcome::Cancelled];
        status.failed = self.count(|outcome| failed.contains(&outcome));
        status.running = self.count(|outcome| outcome == NodeOutcome::Running);
        status.pending = self.count(|outcome| outcome == NodeOutcome::Pending);
        status.outcomes = self.by_outcome();
        self.errors(snapshot, plan);
        self.actions(snapshot, plan);
        let open = self.outcomes.values().any(|outcome| !is_done(*outcome));
        if open {
            let (kind, reason, message) = self.progress(snapshot, plan);
            conclude(snapshot, plan, kind, &reason, message);
            return;
        }
        plan.status.completion_time = Some(Time(snapshot.now));
        plan.status.suspended_since = None;
        let (kind, reason, message) = self.result(snapshot, plan);
        conclude(snapshot, plan, kind, reason, message);
    }

    fn by_outcome(&self) -> Vec<NodesByOutcome> {
        let mut sets: BTreeMap<(&str, NodeOutcome), BTreeSet<u32>> = BTreeMap::new();
        for ((group, ordinal), outcome) in &self.outcomes {
            sets.entry((group, *outcome)).or_default().insert(*ordinal);
        }
        let shown = |((group, outcome), nodes): (_, BTreeSet<u32>)| {
            let (group, outcome): (&str, NodeOutcome) = (group, outcome);
            NodesByOutcome { group: group.to_owned(), outcome, nodes: intervals::text(&nodes) }
        };
        sets.into_iter().map(|((group, outcome), nodes)| shown(((group, outcome), nodes))).collect()
    }

    /// How it stands while it goes on.
    fn progress(&self, snapshot: &LiftSnapshot, plan: &LiftPlan) -> (&'static str, String, String) {
        let done = self.outcomes.values().filter(|outcome| is_done(**outcome)).count();
        let mut message = format!("{done} of {} nodes are done", self.outcomes.len());
        if plan.status.ending_since.is_some() {
            message += "; what runs is being ended";
            return ("Reconciling", Reason::Ending.into(), message);
        }
        if snapshot.spec.suspend {
            message += "; suspended: set spec.suspend to false to go on";
            return ("Reconciling", Reason::Suspended.into(), message);
        }
        let open = self.outcomes.iter().filter(|(_, outcome)| !is_done(**outcome));
        let moving = open.clone().any(|(target, _)| !self.waits.contains_key(target));
        // Those whose turn has not come wait for the others.
        let first = self.waits.iter().find(|(_, wait)| wait.person);
        let queued = |wait: &Wait| Reason::is_one_of(&wait.reason, &[Reason::Queued, Reason::WaitingForBarrier]);
        let stuck = !moving && first.is_some() && self.waits.values().all(|wait| wait.person || queued(wait));
        let shown = first.or_else(|| self.waits.iter().find(|(_, wait)| !queued(wait)));
        let shown = shown.or_else(|| self.waits.iter().next().filter(|_| !moving));
        if let Some(((group, ordinal), wait)) = shown {
            message += &format!("; {group}-{ordinal}: {}: {}", wait.reason, wait.message);
        }
        match first {
            Some((_, wait)) if stuck => ("Stalled", wait.reason.clone(), message),
            _ => ("Reconciling", Reason::Running.into(), message),
        }
    }

    /// What has become of it.
    fn result(&self, snapshot: &LiftSnapshot, plan: &LiftPlan) -> (&'static str, Reason, String) {
        let status = &plan.status;
        let gone = self.count(|outcome| outcome == NodeOutcome::Removed);
        let aside = if gone > 0 { format!("; {gone} were removed before they were done") } else { String::new() };
        let total = status.nodes;
        if total == 0 {
            return ("Complete", Reason::NoNodes, "there was no node: nothing was done".to_owned());
        }
        let unfinished = self.count(|outcome| outcome == NodeOutcome::Skipped);
        if status.failed == 0 && unfinished == 0 {
            if status.succeeded == 0 {
                return (
                    "Failed",
                    Reason::NodesRemoved,
                    format!("all {total} nodes were removed before they were done"),
                );
            }
            let dry = if snapshot.spec.dry_run { "a dry run: " } else { "" };
            return (
                "Complete",
                Reason::Succeeded,
                format!("{dry}{} of {total} nodes succeeded{aside}", status.succeeded),
            );
        }
        let named: Vec<String> =
            status.phase_errors.iter().take(NAMED).map(|e| format!("{}: {}", e.node, clip(&e.message, 240))).collect();
        let named = if named.is_empty() { String::new() } else { format!("; {}", named.join("; ")) };
        let skipped = if unfinished > 0 {
            format!("; {unfinished} were not begun or not finished for that")
        } else {
            String::new()
        };
        let message = format!("{} of {total} nodes failed{skipped}{aside}{named}", status.failed);
        let has = |wanted: NodeOutcome| self.count(|outcome| outcome == wanted) > 0;
        let reason = match () {
            () if has(NodeOutcome::Cancelled) => Reason::Cancelled,
            () if status.ending_since.is_some() => Reason::TimedOut,
            () if unfinished > 0 => Reason::Stopped,
            () => Reason::NodesFailed,
        };
        ("Failed", reason, message)
    }

    /// The phases that failed on the nodes that are there, and those that were known of others.
    fn errors(&self, snapshot: &LiftSnapshot, plan: &mut LiftPlan) {
        let here = |target: &Target| snapshot.node(target).map(|(_, node)| node);
        let names: BTreeSet<String> = self.outcomes.keys().filter_map(here).map(|node| node.name.clone()).collect();
        let old = snapshot.status.phase_errors.iter().filter(|error| !names.contains(&error.node)).cloned();
        let nodes = self.outcomes.keys().filter_map(here);
        let new = nodes
            .flat_map(|node| phase_results(node, &snapshot.head.uid).map(move |phase_result| (node, phase_result)));
        let failed =
            new.filter(|(_, phase_result)| !matches!(phase_result.outcome, Outcome::Succeeded | Outcome::Waiting));
        let mut errors: Vec<PhaseError> =
            old.chain(failed.map(|(node, phase_result)| phase_error(node, phase_result))).collect();
        plan.status.phase_errors_omitted = errors.len().saturating_sub(ERRORS_SHOWN) as u32;
        errors.truncate(ERRORS_SHOWN);
        plan.status.phase_errors = errors;
    }

    /// What the actions did on the nodes that are done.
    fn actions(&self, snapshot: &LiftSnapshot, plan: &mut LiftPlan) {
        let mut counts = ActionCounts::default();
        let done = self.outcomes.iter().filter(|(_, outcome)| is_done(**outcome));
        let nodes = done.filter_map(|(target, _)| snapshot.node(target)).map(|(_, node)| node);
        for action in nodes
            .flat_map(|node| phase_results(node, &snapshot.head.uid))
            .flat_map(|phase_result| &phase_result.actions)
        {
            let count = match action.result {
                Effect::Changed => &mut counts.changed,
                Effect::Unchanged => &mut counts.unchanged,
                Effect::Skipped => &mut counts.skipped,
                Effect::Failed => &mut counts.failed,
                Effect::Unknown | Effect::Waiting => &mut counts.unknown,
            };
            *count += 1;
        }
        if counts != ActionCounts::default() {
            plan.status.actions = Some(counts);
        }
    }
}

/// What the Lift has written on a node.
fn phase_results<'a>(node: &'a Node, uid: &str) -> impl Iterator<Item = &'a PhaseResult> + use<'a> {
    let durable = node.written();
    written(durable, uid).into_iter().flat_map(|lift| &lift.phase_results)
}
