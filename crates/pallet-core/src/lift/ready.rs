//! Pure: whether something may be begun on a node for a Lift, and what it waits for otherwise.

use jiff::Timestamp;

use super::{GroupView, LiftSnapshot, Target, Wait, begin, written};
use crate::{
    group::Group,
    phase::PhaseName,
    plan::{
        Bound, LiftRun, Machine, MachineState, Node, Record, Step,
        next::{self, Identity, Next, Outline},
        progress,
    },
};
use pallet_api::group_node::{NodeLift, Outcome};
use pallet_api::reason::Reason;

/// How many Lifts may be unfinished on one node: of more its status could not keep what they did.
const UNFINISHED: usize = 7;

/// Why nothing is begun on a node now.
pub(super) enum Hold {
    /// A session for this Lift is at work, or has just ended and is not written yet.
    Busy,
    /// Not before this time.
    At(Timestamp, Wait),
    /// Till something else has happened.
    Till(Wait),
    /// It will never be ready.
    Lost,
}

/// Whether a run for the Lift was lost from sight there: it may still be going.
pub(super) fn lost(node: &Node, uid: &str) -> bool {
    let phase_results = written(&node.record, uid).into_iter().flat_map(|lift| &lift.phase_results);
    phase_results.into_iter().any(|phase_result| phase_result.outcome == Outcome::Unknown)
}

/// Whether a session for the Lift may be opened on a node now, and with what.
pub(super) fn ready(
    snapshot: &LiftSnapshot,
    target: &Target,
    view: &GroupView,
    node: &Node,
    bound: &Bound,
) -> Result<LiftRun, Hold> {
    let known = written(&node.record, &snapshot.head.uid);
    if known.is_some_and(|lift| lift.outcome.is_some()) || snapshot.session(view, node).is_some() {
        return Err(Hold::Busy);
    }
    let lifted = view.lifted.as_ref().map_err(|errors| Hold::Till(begin::invalid(target, errors)))?;
    if let Some(other) = view.taken.get(&target.1) {
        return Err(Hold::Till(Wait::new(Reason::Queued, format!("Lift {other} was there first"))));
    }
    let unfinished = |lift: &&NodeLift| lift.outcome.is_none() && snapshot.open.contains(&lift.uid);
    if known.is_none() && node.record.lifts.iter().filter(unfinished).count() >= UNFINISHED {
        return Err(Hold::Till(Wait::new(Reason::Queued, "as many Lifts are unfinished on it as its status holds")));
    }
    let Some(machine) = view.snapshot.machine(node).filter(|machine| !machine.deleting) else {
        let kind = view.snapshot.kind();
        return Err(Hold::Till(Wait::new(kind.absent(), format!("it has no {}", kind.noun()))));
    };
    match &machine.state {
        MachineState::Running { .. } => {}
        MachineState::Waiting { reason, message } => return Err(Hold::Till(Wait::new(reason, message.clone()))),
        MachineState::Gone { reason, message } => {
            return Err(Hold::Till(Wait::new(reason, format!("{message}; it has ended for good"))));
        }
    }
    if let Some(trouble) = view.snapshot.troubles.get(&node.name)
        && trouble.holds(machine, snapshot.now)
        && trouble.about.is_none()
    {
        return Err(Hold::At(trouble.until, Wait::new(&trouble.reason, trouble.message.clone())));
    }
    if view.snapshot.sessions.contains_key(&node.name) {
        return Err(Hold::Till(Wait::new(Reason::Converging, "converge is at work on it")));
    }
    let after_bootstrap = needs_bootstrap(view, lifted);
    let paused = view.snapshot.group.as_ref().is_ok_and(|group| group.paused);
    let step = view.plan.steps.get(&node.ordinal);
    if after_bootstrap && !is_bootstrapped(node, machine) {
        return match step {
            Some(Step::Halt { phase }) if *phase == PhaseName::bootstrap() => Err(Hold::Lost),
            _ => Err(Hold::Till(Wait::new(Reason::NotBootstrapped, "bootstrap has not succeeded on it"))),
        };
    }
    // Converge was asked first; where it does nothing by itself, nobody waits for it.
    if let (Some(Step::Run { why, .. }), false) = (step, paused) {
        return Err(Hold::Till(Wait::new(Reason::Converging, format!("converge comes first: {why}"))));
    }
    if !lost(node, &snapshot.head.uid) {
        let due = due(snapshot, view, lifted, node);
        let phase_results = known.into_iter().flat_map(|lift| &lift.phase_results);
        let interrupted = phase_results.into_iter().any(|phase_result| {
            phase_result.outcome == Outcome::Interrupted
                && due.phase().is_some_and(|phase| phase.as_str() == phase_result.phase)
        });
        held(node, due, interrupted, bound, lifted)?;
    }
    Ok(run(snapshot, view, lifted, bound.clone()))
}

/// What keeps a node from the phase that is due on it.
fn held(node: &Node, due: Next<Outline>, interrupted: bool, bound: &Bound, lifted: &Group) -> Result<(), Hold> {
    let barred = due.phase().is_some_and(|phase| !bound.allows(lifted, &phase));
    match due {
        Next::Backoff { phase, until, attempt } => {
            let message = match interrupted {
                true => format!("{phase} was interrupted again and again; attempt {attempt} follows"),
                false => format!("{phase} failed; attempt {attempt} follows"),
            };
            Err(Hold::At(until, Wait::new(Reason::Backoff, message)))
        }
        Next::Manual { phase, action, message, run_id } => {
            let ack = format!("kubectl annotate groupnode {} pallet.dev/ack={run_id} --overwrite", node.name);
            let message = format!("{phase} waits at {action}: {message}; when that is done: {ack}");
            Err(Hold::Till(Wait::for_person(Reason::ManualStep, message)))
        }
        Next::Held { phase } => {
            let message = format!("{phase} waits for the approval of status.plan of its GroupSpec");
            Err(Hold::Till(Wait::for_person(Reason::WaitingForApproval, message)))
        }
        Next::Wait { phase, message } => {
            Err(Hold::Till(Wait::new(Reason::WaitingForNodes, format!("{phase} is due; {message}"))))
        }
        _ if barred => {
            Err(Hold::Till(Wait::new(Reason::WaitingForBarrier, "the other nodes are to come as far first")))
        }
        _ => Ok(()),
    }
}

/// What is due on a node for the Lift.
pub(super) fn due(snapshot: &LiftSnapshot, view: &GroupView, lifted: &Group, node: &Node) -> Next<Outline> {
    let own = written(&node.record, &snapshot.head.uid);
    let phase_results = own.into_iter().flat_map(|lift| &lift.phase_results);
    let record = Record {
        incarnation: node.record.incarnation.clone(),
        facts: node.record.facts.clone(),
        phase_results: phase_results
            .map(|phase_result| (PhaseName::new(&phase_result.phase), phase_result.clone()))
            .collect(),
        ..Record::default()
    };
    let identity = identity(node, view.snapshot.machine(node));
    if record.phase_results.is_empty() && lifted.unapproved.is_empty() {
        // Nothing has run: settings is due, whatever follows.
        return Next::Gather { attempt: 1, why: next::Why::Due(PhaseName::settings()) };
    }
    next::outline(lifted, &identity, &record, snapshot.now)
}

/// Who a node is for a Lift: what gives converge its attempts back gives a Lift none.
pub fn identity(node: &Node, machine: Option<&Machine>) -> Identity {
    Identity { retry_token: String::new(), ..progress::identity(node, machine) }
}

/// Whether converge has to bring a node through bootstrap before.
fn needs_bootstrap(view: &GroupView, lifted: &Group) -> bool {
    let bootstrap = PhaseName::bootstrap();
    let declared = view.snapshot.group.as_ref().is_ok_and(|group| group.phases.actions.contains_key(&bootstrap));
    declared && !lifted.phases.sequence.contains(&bootstrap)
}

fn is_bootstrapped(node: &Node, machine: &Machine) -> bool {
    let phase_result = node.record.phase_results.get(&PhaseName::bootstrap());
    progress::is_current(node, machine)
        && phase_result.is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded)
}

/// What a session has to know of the Lift.
pub(super) fn run(snapshot: &LiftSnapshot, view: &GroupView, lifted: &Group, bound: Bound) -> LiftRun {
    let spec = &snapshot.spec;
    // By its process, install is done where it is done; by its name it was asked for.
    let settled = if spec.process.is_some() { vec![PhaseName::install()] } else { Vec::new() };
    LiftRun {
        uid: snapshot.head.uid.clone(),
        name: snapshot.head.key.name.clone(),
        bound,
        deadline: snapshot.deadline().unwrap_or(Timestamp::MAX),
        dry_run: spec.dry_run,
        ends: None,
        after_bootstrap: needs_bootstrap(view, lifted),
        overrides: spec.with.as_ref().is_some_and(|with| !with.is_empty()),
        settled,
        open: snapshot.open.clone(),
    }
}
