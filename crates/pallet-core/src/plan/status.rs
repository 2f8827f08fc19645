//! Pure: what the status of a group and of its nodes says, recomputed from facts on every pass, and when it is written.
//!
//! Conditions follow kstatus: `Reconciling` and `Stalled` stand only while they hold, and never both.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    Heal, Intervals, Machine, Node, QUOTA, SessionKind, Snapshot, Step, TemplateVerdict, claims, drift, intervals,
    progress::{self, Cause, is_current},
    refusals, restore, scale, stuck,
};
use crate::{
    group::{FieldError, Group, Kind, Replacement},
    phase::{PhaseName, budget::REASON},
};
use pallet_api::reason::Reason;
use pallet_api::{
    GROUP_LABEL, GroupNodeStatus, GroupSpecStatus,
    conditions::{Verdict, clip, stamp},
    group_node::{Effect, MachineRef, Outcome, PhaseResult},
    group_spec::{PhaseCounts, PhaseError},
};

/// How many phase errors a group's status shows.
const ERRORS_SHOWN: usize = 5;
/// A run is shown in its node's status when it has lasted this long. Most nodes are done before, and cost one write.
const SHOW_RUN_AFTER: SignedDuration = SignedDuration::from_secs(2);
/// A further run of the same session, or of a node that was shown waiting, is shown when it has lasted this long.
const SHOW_NEXT_RUN_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// A node that waits is shown when it has waited this long: a pod that starts as pods do is not worth a write.
const SHOW_WAIT_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A node that was shown waiting for something else is shown waiting for its turn when it has waited this long in all.
const SHOW_TURN_AFTER: SignedDuration = SignedDuration::from_secs(300);

/// Whether a node's status is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// Now, as this.
    Now(Box<GroupNodeStatus>),
    /// Not before this time.
    At(Timestamp),
    /// Not at all: it says what is so, or somebody at work on the node will say more soon.
    No,
}

/// Whether the status of a node is to be written. Without a step, as under a spec that cannot be read, only what was
/// learned is.
pub fn node(snapshot: &Snapshot, node: &Node, step: Option<&Step>) -> Due {
    let now = snapshot.now;
    let Some(step) = step else {
        let learned = node.saved.is_some() && !snapshot.sessions.contains_key(&node.name);
        return if learned { Due::Now(Box::new(with_record(node))) } else { Due::No };
    };
    let wanted = node_status(snapshot, node, step);
    if wanted == node.status() {
        return Due::No;
    }
    let not_before = match (step, snapshot.working(node)) {
        (_, Some(session)) => {
            let Some(running) = &session.running else { return Due::No };
            if session.kind == SessionKind::Converge && !snapshot.listed().contain(node.ordinal) {
                // The group lists it first; that write is due, and has this looked at again.
                return Due::No;
            }
            match &node.reported.running {
                Some(shown) if shown.run_id == running.run_id => return Due::No,
                Some(_) => running.started_at.0 + SHOW_NEXT_RUN_AFTER,
                // An interruption is told while the run goes on: afterwards nothing would tell of it.
                None if newly_interrupted(node) => running.started_at.0 + SHOW_RUN_AFTER,
                // That it is not converged was said before: while it waited for its turn.
                None if said_unconverged(node).is_some() => running.started_at.0 + SHOW_NEXT_RUN_AFTER,
                None => running.started_at.0 + SHOW_RUN_AFTER,
            }
        }
        (Step::Await(_) | Step::Run { .. }, None) if node.saved.is_none() => match said_unconverged(node) {
            // That its turn has not come is no news to whoever was told that it waits.
            Some(since) if matches!(step, Step::Run { .. }) => since + SHOW_TURN_AFTER,
            Some(since) => since + SHOW_WAIT_AFTER,
            None if node.reported.conditions.is_empty() => node.created + SHOW_WAIT_AFTER,
            None => now,
        },
        _ => now,
    };
    if not_before <= now { Due::Now(Box::new(wanted)) } else { Due::At(not_before) }
}

/// Whether a run was interrupted, and no status says so yet.
fn newly_interrupted(node: &Node) -> bool {
    let Some(saved) = &node.saved else { return false };
    let mut interrupted =
        node.record.phase_results.iter().filter(|(_, phase_result)| phase_result.outcome == Outcome::Interrupted);
    interrupted.any(|(phase, phase_result)| saved.phase_results.get(phase) != Some(phase_result))
}

/// Since when the node's status says that it is not converged, where it does.
fn said_unconverged(node: &Node) -> Option<Timestamp> {
    let condition = node.reported.conditions.iter().find(|c| c.type_ == "Converged" && c.status == "False")?;
    Some(condition.last_transition_time.0)
}

/// The node's status as it stands, with what was learned since.
fn with_record(node: &Node) -> GroupNodeStatus {
    GroupNodeStatus {
        incarnation: node.record.incarnation.clone(),
        facts: node.record.facts.clone(),
        phase_results: node.record.in_order(),
        drift: node.record.drift.clone(),
        lifts: node.record.lifts.clone(),
        running: None,
        ..node.status()
    }
}

fn node_status(snapshot: &Snapshot, node: &Node, step: &Step) -> GroupNodeStatus {
    let machine = snapshot.machine(node);
    let running = snapshot.working(node).and_then(|session| session.running.clone());
    let mut verdict = explain(snapshot.kind(), node, step, running.as_ref().map(|r| r.attempt));
    if let Some(aside) = machine.and_then(|machine| beside(snapshot, machine, step)) {
        verdict.1 += &aside;
    }
    if node.deletion.is_some() {
        verdict = (Reason::Removing.into(), format!("the node is being removed; {}: {}", verdict.0, verdict.1));
    }
    let (reason, message) = verdict;
    let drifted = snapshot.in_force().and_then(|group| drift::of_node(group, &node.record));
    let verdict = Verdict { kind: "Converged", status: *step == Step::Settled, reason, message };
    GroupNodeStatus {
        machine_ref: machine.map(machine_ref),
        template_hash: converged_on(node, step, machine),
        address: machine.and_then(|machine| machine.address.clone()),
        running,
        conditions: stamp(
            std::iter::once(verdict).chain(drifted).collect(),
            &node.reported.conditions,
            None,
            snapshot.now,
        ),
        ..with_record(node)
    }
}

/// The template on which a node converged last. One that was recorded under another hash stays as it was recorded.
fn converged_on(node: &Node, step: &Step, machine: Option<&Machine>) -> Option<String> {
    let hash = machine.filter(|_| *step == Step::Settled).map(|machine| machine.template_hash.clone());
    let news = hash.filter(|hash| !hash.is_empty() && *hash != node.template_hash);
    news.or_else(|| node.reported.template_hash.clone())
}

/// What else is to be said of a node whose step does not say it: a pod that is being deleted and why, one that does not go, a container
/// beside that of the phases that has failed.
fn beside(snapshot: &Snapshot, machine: &Machine, step: &Step) -> Option<String> {
    let noun = machine.kind.noun();
    match step {
        Step::Await(Cause::MachineTerminating) => {
            let why = machine.going.as_ref().and_then(|going| going.why.as_ref());
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            let stuck = stuck::machine(machine, snapshot.now);
            Some(why + &stuck.map(|stuck| format!("; {stuck}")).unwrap_or_default())
        }
        Step::Settled => {
            let unready = machine.unready.as_ref().filter(|unready| unready.broken)?;
            Some(format!("; but its {noun} is not Ready: {}", unready.message))
        }
        _ => None,
    }
}

fn machine_ref(machine: &Machine) -> MachineRef {
    let (kind, name, uid) = (machine.kind.name().to_owned(), machine.name.clone(), machine.uid.clone());
    MachineRef { kind, name, uid: if machine.kind == Kind::Host { String::new() } else { uid } }
}

/// Whether the last attempt at a phase ended before it ran, since its templates and conditions take too much work.
fn was_cut(node: &Node, phase: &PhaseName) -> bool {
    let phase_result =
        node.record.phase_results.get(phase).filter(|phase_result| phase_result.outcome == Outcome::Failed);
    let rest = phase_result.and_then(|phase_result| phase_result.message.strip_prefix("action ")?.split_once(": "));
    rest.is_some_and(|(_, message)| message.starts_with(&format!("{REASON}: ")))
}

/// Reason and message of a node's condition.
fn explain(kind: Kind, node: &Node, step: &Step, attempt: Option<u32>) -> (String, String) {
    let noun = kind.noun();
    let failure = |phase: &PhaseName| node.record.phase_results.get(phase).map(failure_line).unwrap_or_default();
    let (reason, message): (String, String) = match step {
        Step::Settled => (Reason::Converged.into(), "every phase is done as it is declared".to_owned()),
        Step::Follow(Some(phase)) => {
            (Reason::Running.into(), format!("{phase} runs, attempt {}", attempt.unwrap_or(1)))
        }
        Step::Follow(None) => (Reason::Running.into(), "a session is open".to_owned()),
        Step::Run { why, .. } => (Reason::Pending.into(), why.to_string()),
        Step::Backoff { phase, until } if node.record.is_interrupted(phase) => {
            let times = node.record.phase_results.get(phase).map_or(0, |phase_result| phase_result.interruptions);
            let until = until.strftime("%H:%M:%S UTC");
            (
                Reason::Interrupted.into(),
                format!("{}; interrupted {times} times in a row; it runs again at {until}", failure(phase)),
            )
        }
        Step::Backoff { phase, until } => {
            (Reason::Backoff.into(), format!("{}; tried again at {}", failure(phase), until.strftime("%H:%M:%S UTC")))
        }
        Step::Halt { phase } if *phase == PhaseName::test() => (
            Reason::TestFailed.into(),
            format!(
                "{}; no attempts are left: mend the node or the expectation, or annotate with pallet.dev/retry",
                failure(phase)
            ),
        ),
        Step::Halt { phase } if was_cut(node, phase) => (
            REASON.into(),
            format!(
                "{}; no attempts are left: simplify the template or condition, or annotate with pallet.dev/retry",
                failure(phase)
            ),
        ),
        Step::Halt { phase } => (
            Reason::PhaseFailed.into(),
            format!("{}; no attempts are left: change the phase, or annotate with pallet.dev/retry", failure(phase)),
        ),
        Step::Await(Cause::MachineMissing) if kind == Kind::Host => {
            return (Reason::HostMissing.into(), "its host is in the inventory no more".into());
        }
        Step::Await(Cause::MachineMissing) => {
            return (kind.missing().into(), format!("its {noun} is to be created"));
        }
        Step::Await(Cause::MachineTerminating) => {
            return (kind.terminating().into(), format!("its {noun} is going"));
        }
        Step::Await(Cause::NameConflict) => (
            Reason::NameConflict.into(),
            format!("there is a {noun} {} that does not belong to this group; delete or rename it", node.name),
        ),
        Step::Await(Cause::MachineWaiting { reason, message }) => (reason.clone(), message.clone()),
        Step::Await(Cause::Refused { reason, message }) => ((*reason).into(), message.clone()),
        Step::Await(Cause::Barrier { due, at }) => (
            Reason::WaitingForBarrier.into(),
            format!("{due} is due; it begins when no other node has {at} before it any more"),
        ),
        Step::Await(Cause::Stopped { due }) => (
            Reason::RolloutStopped.into(),
            format!("{due} is due, but more nodes are failing than spec.converge.rollout allows"),
        ),
        Step::Await(Cause::ClaimTerminating { claim }) => {
            (Reason::ClaimTerminating.into(), format!("its claim {claim} is going; its pod is made when that is gone"))
        }
        Step::Await(Cause::ClaimConflict { message, .. }) => (Reason::NameConflict.into(), message.clone()),
        Step::Await(Cause::Manual { due, action, message, run_id }) => (
            Reason::ManualStep.into(),
            format!(
                "{due} waits at {action}: {message}; when that is done: kubectl annotate groupnode {} pallet.dev/ack={run_id} --overwrite",
                node.name
            ),
        ),
        Step::Await(Cause::Approval { due }) => (
            Reason::WaitingForApproval.into(),
            format!("{due} is due; it waits for the approval of status.plan of the GroupSpec"),
        ),
        Step::Await(Cause::Nodes { due, message }) => {
            (Reason::WaitingForNodes.into(), format!("{due} is due; {message}"))
        }
        Step::Await(Cause::Unreachable(trouble)) => (trouble.reason.clone(), trouble.message.clone()),
    };
    (reason.to_owned(), message)
}

/// A failed attempt, as a status shows it.
pub(crate) fn phase_error(node: &Node, phase_result: &PhaseResult) -> PhaseError {
    PhaseError {
        node: node.name.clone(),
        phase: phase_result.phase.clone(),
        action: phase_result.actions.iter().find(|a| a.result == Effect::Failed).map(|a| a.name.clone()),
        outcome: phase_result.outcome,
        attempt: phase_result.attempt,
        exit_code: phase_result.exit_code,
        message: clip(&failure_line(phase_result), 400),
    }
}

/// A failed attempt in a line.
fn failure_line(phase_result: &PhaseResult) -> String {
    let last =
        phase_result.output.lines().rev().find(|line| !line.trim().is_empty()).map(|line| clip(line.trim(), 160));
    let said = last.map(|line| format!(": {line}")).unwrap_or_default();
    format!("{} attempt {}: {}{said}", phase_result.phase, phase_result.attempt, phase_result.message)
}

/// The status of a group. Its size does not grow with the count.
pub fn group(snapshot: &Snapshot, steps: &BTreeMap<u32, Step>) -> GroupSpecStatus {
    let live: Vec<&Node> = snapshot.live().collect();
    let count = |holds: &dyn Fn(&Node) -> bool| live.iter().filter(|node| holds(node)).count() as u32;
    // Of a declaration that cannot be used nobody knows what it would take: what nodes have said last counts, as long as their
    // machines live.
    let is_met = |node: &Node| snapshot.machine(node).is_some_and(|machine| progress::is_current(node, machine));
    let was_settled = |node: &Node| {
        let said = |c: &Condition| c.type_ == "Converged" && c.status == "True";
        is_met(node) && node.reported.conditions.iter().any(said)
    };
    let is_known = snapshot.group.is_ok() || snapshot.heal == Heal::Fully;
    let settled = |node: &Node| match steps.get(&node.ordinal) {
        None if !is_known => was_settled(node),
        step => step == Some(&Step::Settled),
    };
    let group = snapshot.in_force().filter(|_| is_known);
    let mut status = GroupSpecStatus {
        observed_generation: Some(snapshot.head.generation),
        count: group.map_or(snapshot.status.count, |_| Some(snapshot.head.count)),
        replicas: live.len() as u32,
        converged_replicas: count(&settled),
        ready_replicas: count(&|node| {
            settled(node) && snapshot.machine(node).is_some_and(|machine| !machine.deleting && machine.ready)
        }),
        // Under a declaration that cannot be used, those of the last that could.
        updated_replicas: snapshot.for_removal().map_or(snapshot.status.updated_replicas, |group| {
            count(&|node| snapshot.machine(node).is_some_and(|machine| !scale::is_outdated(group, machine)))
        }),
        selector: format!("{GROUP_LABEL}={}", snapshot.head.key.name),
        unconverged: unconverged(snapshot, &live, steps, group.is_some()),
        plan: snapshot.leave.proposal.as_ref().map(|proposal| proposal.shown(snapshot.head.generation)),
        approved: snapshot.leave.approved.clone(),
        phases: group
            .map_or_else(|| snapshot.status.phases.clone(), |group| phase_counts(snapshot, group, &live, steps)),
        ..GroupSpecStatus::default()
    };
    (status.phase_errors, status.phase_errors_omitted) = phase_errors(snapshot, group, &live);
    let mut verdicts = verdicts(snapshot, &status, &live, steps);
    tell_refusals(snapshot, steps, &mut verdicts);
    verdicts.extend(group.and_then(|group| drift::of_group(group, &live)));
    verdicts.extend(group.and_then(|group| claims::of_group(snapshot, group, &live)));
    verdicts.extend(restore::of_group(&live));
    status.conditions = stamp(verdicts, &snapshot.status.conditions, Some(snapshot.head.generation), snapshot.now);
    status
}

/// Adds what the API server has refused to what is said of the group, in its own words. Where that keeps nodes from being made it is
/// the reason, too; a policy or a quota stalls the group when nothing else moves.
fn tell_refusals(snapshot: &Snapshot, steps: &BTreeMap<u32, Step>, verdicts: &mut [Verdict]) {
    let rests =
        |step: &Step| *step == Step::Settled || is_stuck(step) || matches!(step, Step::Await(Cause::Refused { .. }));
    let told = verdicts.first().map(|verdict| verdict.message.clone()).unwrap_or_default();
    let (reason, line) = refusals::shown(snapshot, &told);
    for verdict in verdicts.iter_mut() {
        if let Some(reason) = reason.filter(|_| {
            [Reason::Scaling, Reason::Replacing, Reason::Converging].iter().any(|reason| verdict.reason == *reason)
        }) {
            verdict.reason = reason.into();
            if verdict.kind == "Reconciling"
                && [QUOTA, Reason::Forbidden].contains(&reason)
                && steps.values().all(rests)
            {
                verdict.kind = "Stalled";
            }
        }
        verdict.message += &line.as_ref().map(|line| format!("; {line}")).unwrap_or_default();
    }
}

/// The nodes that an operator that starts later must not take for converged without a word from their journals.
fn unconverged(snapshot: &Snapshot, live: &[&Node], steps: &BTreeMap<u32, Step>, is_known: bool) -> String {
    let listed = Intervals::of(&snapshot.status.unconverged);
    let open = |node: &&&Node| match steps.get(&node.ordinal) {
        // What a drift check or a Lift has found lists nobody.
        Some(Step::Settled) => node.saved.is_some() && listed.contain(node.ordinal),
        Some(_) => true,
        // Under a spec that cannot be used, who was listed stays so.
        None => is_known || listed.contain(node.ordinal),
    };
    intervals::covering(&live.iter().filter(open).map(|node| node.ordinal).collect())
}

fn phase_counts(snapshot: &Snapshot, group: &Group, live: &[&Node], steps: &BTreeMap<u32, Step>) -> Vec<PhaseCounts> {
    let sequence = group.phases.converged();
    let mut counts: Vec<PhaseCounts> =
        sequence.iter().map(|phase| PhaseCounts { phase: phase.to_string(), ..PhaseCounts::default() }).collect();
    for node in live {
        let step = steps.get(&node.ordinal);
        // The phase that the node stands at: what is before it is done, what is behind it is not.
        let at = match step {
            Some(Step::Settled) => sequence.len(),
            Some(
                Step::Run { phase, .. }
                | Step::Backoff { phase, .. }
                | Step::Halt { phase }
                | Step::Await(
                    Cause::Barrier { due: phase, .. }
                    | Cause::Stopped { due: phase }
                    | Cause::Nodes { due: phase, .. }
                    | Cause::Manual { due: phase, .. }
                    | Cause::Approval { due: phase },
                ),
            ) => sequence.iter().position(|p| p == phase).unwrap_or(0),
            Some(Step::Follow(Some(phase))) => sequence.iter().position(|p| p == phase).unwrap_or(0),
            _ => {
                let done = |phase: &&PhaseName| {
                    node.record
                        .phase_results
                        .get(phase)
                        .is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded)
                };
                if snapshot.machine(node).is_some() { sequence.iter().take_while(done).count() } else { 0 }
            }
        };
        for (place, count) in counts.iter_mut().enumerate() {
            let cell = match (place.cmp(&at), step) {
                (std::cmp::Ordering::Less, _) => &mut count.succeeded,
                (std::cmp::Ordering::Equal, Some(Step::Follow(Some(_)))) => &mut count.running,
                (std::cmp::Ordering::Equal, Some(Step::Backoff { phase, .. }))
                    if !node.record.is_interrupted(phase) =>
                {
                    &mut count.failed
                }
                (std::cmp::Ordering::Equal, Some(Step::Halt { .. })) => &mut count.failed,
                _ => &mut count.pending,
            };
            *cell += 1;
        }
    }
    counts
}

fn phase_errors(snapshot: &Snapshot, group: Option<&Group>, live: &[&Node]) -> (Vec<PhaseError>, u32) {
    // A run that is lost together with its pod is no error: it was interrupted, or is going to count as a failed attempt.
    let there =
        |node: &Node| snapshot.machine(node).is_some_and(|machine| !machine.deleting && is_current(node, machine));
    let mut errors: Vec<PhaseError> = live
        .iter()
        .flat_map(|node| node.record.phase_results.values().map(move |phase_result| (node, phase_result)))
        .filter(|(_, phase_result)| {
            !matches!(phase_result.outcome, Outcome::Succeeded | Outcome::Waiting | Outcome::Interrupted)
        })
        .filter(|(node, phase_result)| phase_result.outcome != Outcome::Unknown || there(node))
        // What is no longer declared can no longer be wrong.
        .filter(|(_, phase_result)| group.is_none_or(|group| group.phases.declares(&phase_result.phase)))
        .map(|(node, phase_result)| phase_error(node, phase_result))
        .collect();
    errors.sort_by(|a, b| (b.attempt, &a.node).cmp(&(a.attempt, &b.node)));
    let omitted = errors.len().saturating_sub(ERRORS_SHOWN);
    errors.truncate(ERRORS_SHOWN);
    (errors, omitted as u32)
}

fn ready(status: bool, reason: impl Into<String>, message: String) -> Verdict {
    Verdict { kind: "Ready", status, reason: reason.into(), message }
}

/// `Ready` is False, and `kind` is True beside it.
fn with(kind: &'static str, reason: impl Into<String>, message: String) -> Vec<Verdict> {
    let reason = reason.into();
    vec![ready(false, reason.clone(), message.clone()), Verdict { kind, status: true, reason, message }]
}

fn verdicts(
    snapshot: &Snapshot,
    status: &GroupSpecStatus,
    live: &[&Node],
    steps: &BTreeMap<u32, Step>,
) -> Vec<Verdict> {
    if snapshot.head.deletion.is_some() {
        let removing = snapshot.nodes.len();
        let stuck = stuck::first(snapshot).map(|stuck| format!("; {stuck}")).unwrap_or_default();
        return with("Reconciling", Reason::Deleting, format!("{removing} nodes are still to be removed{stuck}"));
    }
    let group = match &snapshot.group {
        Ok(group) => group,
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let mut message = lines.join("; ");
            if let Some(group) = snapshot.in_force() {
                message += &format!(
                    "; until then nodes are kept as last declared validly: {} of {} nodes are converged",
                    status.converged_replicas, group.count
                );
            }
            return with("Stalled", FieldError::reason(errors, Reason::InvalidSpec), message);
        }
    };
    if let TemplateVerdict::Refused { reason, message } = &snapshot.template
        && super::is_wanted(snapshot, group, live)
    {
        let (path, noun) = (snapshot.kind().path(), snapshot.kind().noun());
        return with("Stalled", *reason, format!("{path}: no {noun} can be made from it: {message}"));
    }
    let old_template = older(snapshot, group, live);
    let shortage = super::hosts::shortage(snapshot, group);
    let replaces = group.rollout.replacement == Replacement::WhenChanged;
    let aside = aside(group, old_template);
    let progress = format!("{} of {} nodes are converged{aside}", status.converged_replicas, group.count);
    if let (Some(proposal), false) = (&snapshot.leave.proposal, group.paused) {
        // What was approved is still being brought about, or nothing goes on without a person.
        let waits = |step: &Step| *step == Step::Settled || is_stuck(step);
        let asks = format!(
            "{progress}; status.plan waits for approval: kubectl annotate groupspec {} pallet.dev/approve={} --overwrite",
            snapshot.head.key.name, proposal.digest
        );
        if steps.values().all(waits) && status.replicas >= group.count {
            return with("Stalled", Reason::WaitingForApproval, asks);
        }
        return with("Reconciling", reconciling_reason(snapshot, status, group), asks);
    }
    if status.replicas == group.count && status.converged_replicas == group.count && (old_template == 0 || !replaces) {
        // The gate of a pod does not open while the group is paused.
        if status.ready_replicas < group.count && !group.paused {
            let waiting = group.count - status.ready_replicas;
            return with(
                "Reconciling",
                snapshot.kind().not_ready(),
                format!(
                    "{waiting} of {} converged nodes have a {} that is not Ready{}",
                    group.count,
                    snapshot.kind().noun(),
                    first_unready(snapshot, live)
                ),
            );
        }
        if status.ready_replicas == group.count {
            let message = format!("{} of {} nodes are converged{aside}", group.count, group.count);
            return vec![ready(true, Reason::Converged, message)];
        }
    }
    if group.paused {
        return vec![ready(false, Reason::Paused, format!("{progress}; paused: set spec.paused to false to go on"))];
    }
    if let Some(shortage) = &shortage
        && steps.values().all(|step| *step == Step::Settled || is_stuck(step))
        && snapshot.live().count() == snapshot.nodes.len()
    {
        return with("Stalled", Reason::NotEnoughHosts, format!("{progress}; {shortage}"));
    }
    let blocked: Vec<&&Node> = live.iter().filter(|node| steps.get(&node.ordinal).is_some_and(is_stuck)).collect();
    let moving = steps.values().any(|step| !is_stuck(step) && *step != Step::Settled);
    let removing = snapshot.nodes.values().any(|node| node.deletion.is_some());
    // A surge that has got stuck is as stuck as any.
    let complete = status.replicas >= group.count && !removing;
    let is_stopped = |step: &Step| matches!(step, Step::Await(Cause::Stopped { .. }));
    // Of a rollout that has stopped, the node that stopped it says more than one that waits.
    let cause = blocked.iter().find(|node| !steps.get(&node.ordinal).is_some_and(is_stopped)).or(blocked.first());
    match cause {
        Some(first) if complete && !moving => {
            let (mut reason, message) =
                steps.get(&first.ordinal).map(|step| explain(snapshot.kind(), first, step, None)).unwrap_or_default();
            let waiting = steps.values().filter(|step| is_stopped(step)).count();
            let mut more = String::new();
            if waiting > 0 {
                reason = Reason::RolloutStopped.into();
                more = format!(" ({waiting} nodes wait for that)");
            }
            let others = blocked.len().saturating_sub(waiting + 1);
            if others > 0 {
                more = format!(" (and {others} more nodes){more}");
            }
            with("Stalled", reason, format!("{progress}; {}: {message}{more}", first.name))
        }
        _ => {
            let mut troubled = live.iter().filter_map(|node| in_trouble(snapshot, node, steps.get(&node.ordinal)?));
            let trouble = troubled.next().map(|first| match troubled.count() {
                0 => first,
                more => format!("{first} (and {more} more nodes)"),
            });
            let stuck = stuck::first(snapshot).filter(|_| trouble.is_none());
            let trouble = shortage
                .into_iter()
                .chain(trouble)
                .chain(stuck)
                .map(|trouble| format!("; {trouble}"))
                .collect::<String>();
            with("Reconciling", reconciling_reason(snapshot, status, group), format!("{progress}{trouble}"))
        }
    }
}

/// Whether a node goes on only when a person does something.
fn is_stuck(step: &Step) -> bool {
    let waits_for_somebody = matches!(
        step,
        Step::Halt { .. }
            | Step::Await(
                Cause::NameConflict
                    | Cause::ClaimConflict { .. }
                    | Cause::Stopped { .. }
                    | Cause::Manual { .. }
                    | Cause::Approval { .. }
            )
    );
    waits_for_somebody || never_settles(step)
}

/// Whether a phase goes round for ever, until it is edited.
fn never_settles(step: &Step) -> bool {
    matches!(step, Step::Await(Cause::Unreachable(trouble)) if trouble.about.is_some())
}

/// How many nodes have a pod that was made from another template.
fn older(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> u32 {
    let otherwise = |node: &&&Node| snapshot.machine(node).is_some_and(|machine| scale::is_outdated(group, machine));
    live.iter().filter(otherwise).count() as u32
}

/// What people should know besides.
fn aside(group: &Group, old_template: u32) -> String {
    let (mut aside, noun) = (String::new(), group.node.kind().noun());
    if old_template > 0 {
        aside = match group.rollout.replacement {
            Replacement::WhenChanged => {
                format!("; {old_template} run an older {noun} template and are still to be replaced")
            }
            Replacement::Never if group.needs_approval => String::new(),
            Replacement::Never => {
                let what =
                    if group.node.kind() == Kind::VirtualMachine { "GroupNodes".into() } else { format!("{noun}s") };
                format!("; {old_template} run an older {noun} template: delete their {what} to have them made anew")
            }
        };
    }
    if let Some(role) = &group.inputs.restless {
        aside += &format!(
            "; the facts of nodes of role {role} keep changing, and with them what uses them here: they are taken over ever more rarely"
        );
    }
    if !group.phases.idle.is_empty() {
        let names: Vec<&str> = group.phases.idle.iter().map(PhaseName::as_str).collect();
        aside += &format!(
            "; declared, but run by nothing: {} (list it in spec.converge.phases or in a process)",
            names.join(", ")
        );
    }
    aside
}

/// What keeps a node from going on, in a line, where it has lasted longer than a pod takes to start.
fn in_trouble(snapshot: &Snapshot, node: &Node, step: &Step) -> Option<String> {
    let machine = snapshot.machine(node);
    let lasting = match step {
        Step::Backoff { .. }
        | Step::Halt { .. }
        | Step::Await(
            Cause::Unreachable(_)
            | Cause::NameConflict
            | Cause::ClaimConflict { .. }
            | Cause::Nodes { .. }
            | Cause::Manual { .. }
            | Cause::Refused { .. }
            | Cause::ClaimTerminating { .. },
        ) => true,
        Step::Await(Cause::MachineTerminating) => {
            machine.is_some_and(|machine| stuck::machine(machine, snapshot.now).is_some())
        }
        Step::Await(Cause::MachineWaiting { .. }) => {
            machine.is_some_and(|machine| shown_waiting(machine) <= snapshot.now)
        }
        _ => false,
    };
    let (reason, mut message) = explain(snapshot.kind(), node, step, None);
    message += &machine.and_then(|machine| beside(snapshot, machine, step)).unwrap_or_default();
    lasting.then(|| clip(&format!("{}: {reason}: {message}", node.name), 400))
}

/// When a machine that waits is told of at its group. What starts as pods do is not told of before.
fn shown_waiting(machine: &Machine) -> Timestamp {
    machine.created + SHOW_WAIT_AFTER
}

/// When the group's message is another one, though nothing happens: what waits is told of.
pub(super) fn wake(snapshot: &Snapshot, steps: &BTreeMap<u32, Step>) -> Option<Timestamp> {
    let waits = |node: &&Node| matches!(steps.get(&node.ordinal), Some(Step::Await(Cause::MachineWaiting { .. })));
    let waiting = snapshot.live().filter(waits).filter_map(|node| snapshot.machine(node));
    waiting.map(shown_waiting).filter(|time| *time > snapshot.now).min()
}

/// The first node that is converged and whose machine is not Ready, with the cause.
fn first_unready(snapshot: &Snapshot, live: &[&Node]) -> String {
    let found = live.iter().find_map(|node| {
        let machine = snapshot.machine(node).filter(|machine| !machine.ready)?;
        Some(format!("; {}: {}", node.name, machine.unready.as_ref()?.message))
    });
    found.unwrap_or_default()
}

fn reconciling_reason(snapshot: &Snapshot, status: &GroupSpecStatus, group: &Group) -> Reason {
    let removing = snapshot.nodes.values().any(|node| node.deletion.is_some());
    let replaces = group.rollout.replacement == Replacement::WhenChanged;
    let live: Vec<&Node> = snapshot.live().collect();
    if replaces && older(snapshot, group, &live) > 0 {
        return Reason::Replacing;
    }
    if status.replicas != group.count || removing { Reason::Scaling } else { Reason::Converging }
}
