//! Pure: the next step of one node.
//!
//! [`next`] decides from the phases and the phase results alone what is due. [`step`] is the reconcile's view: it adds what
//! stands around the node, its pod, its session, its troubles. [`farewell`] is the same for a node that is being removed.

use jiff::{SignedDuration, Timestamp};

use super::{
    Loss, Machine, MachineState, Node, SessionView, Trouble,
    next::{self, Identity, Next, Outline, Why},
};
use crate::{group::Group, phase::PhaseName};
use pallet_api::group_node::Outcome;
use pallet_api::reason::Reason;

/// Where a node stands, and what it waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It waits for something outside: its pod, the kubelet, somebody else's object.
    Await(Cause),
    /// A session is at work on it.
    Follow(Option<PhaseName>),
    /// A session is due.
    Run {
        /// The first phase that it would run, as far as can be told before the facts are read again.
        phase: PhaseName,
        /// Why.
        why: Why,
    },
    /// A phase failed and is tried again later.
    Backoff {
        /// The phase.
        phase: PhaseName,
        /// When.
        until: Timestamp,
    },
    /// A phase failed and is not tried again until somebody does something.
    Halt {
        /// The phase.
        phase: PhaseName,
    },
    /// Everything is done as it is declared.
    Settled,
}

impl Step {
    /// When to look again, though nothing happened.
    pub fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Step::Await(Cause::NameConflict | Cause::ClaimConflict { .. }) => Some(now + super::LOOK_AGAIN),
            // Nobody tells when the other lets go.
            Step::Await(Cause::MachineWaiting { reason, .. }) if *reason == super::hosts::TAKEN => {
                Some(now + super::ASK_AGAIN)
            }
            Step::Backoff { until, .. } => Some(*until),
            Step::Await(Cause::Unreachable(trouble)) => Some(trouble.until),
            _ => None,
        }
    }
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// Its pod is to be created.
    MachineMissing,
    /// Its pod is going; a new one follows.
    MachineTerminating,
    /// Something that is not the group's stands at the name of its pod.
    NameConflict,
    /// Its container does not run.
    MachineWaiting {
        /// As the kubelet or the scheduler calls it.
        reason: String,
        /// For people.
        message: String,
    },
    /// A phase waits for a person's leave.
    Approval {
        /// The phase.
        due: PhaseName,
    },
    /// A phase waits at a manual step for a person.
    Manual {
        /// The phase.
        due: PhaseName,
        /// The action.
        action: String,
        /// What is to be done.
        message: String,
        /// What is to be acknowledged.
        run_id: String,
    },
    /// A phase needs more nodes of a role than there are.
    Nodes {
        /// The phase that is due on it.
        due: PhaseName,
        /// For people.
        message: String,
    },
    /// It could not be reached; it is tried again.
    Unreachable(Trouble),
    /// The other nodes are to come as far first.
    Barrier {
        /// The phase that is due on it.
        due: PhaseName,
        /// The phase that the others are at.
        at: PhaseName,
    },
    /// Too many nodes are failing.
    Stopped {
        /// The phase that is due on it.
        due: PhaseName,
    },
    /// The API server refuses to make its pod.
    Refused {
        /// One CamelCase word.
        reason: Reason,
        /// What the API server says.
        message: String,
    },
    /// A claim of its is going; its pod cannot be made before.
    ClaimTerminating {
        /// The claim.
        claim: String,
    },
    /// A claim that it needs for its pod is somebody else's.
    ClaimConflict {
        /// The claim.
        claim: String,
        /// Whose it is, and what to do.
        message: String,
    },
}

/// A node and all that stands around it.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Its group.
    pub group: &'a Group,
    /// The node.
    pub node: &'a Node,
    /// Its pod.
    pub machine: Option<&'a Machine>,
    /// Whether something that is not the group's stands at the pod's name.
    pub foreign: bool,
    /// The session at work on it.
    pub session: Option<&'a SessionView>,
    /// Why it could not be reached.
    pub trouble: Option<&'a Trouble>,
    /// Whether its journal may hold what its record does not.
    pub unread: bool,
    /// The time.
    pub now: Timestamp,
}

/// The next step of a node. Total: whatever is observed, there is one.
pub fn step(situation: &Situation) -> Step {
    let Situation { group, node, machine, foreign, session, trouble, unread, now } = *situation;
    if let Some(session) = session {
        return Step::Follow(session.running.as_ref().map(|running| PhaseName::new(&running.phase)));
    }
    let machine = match machine {
        _ if foreign => return Step::Await(Cause::NameConflict),
        None => return Step::Await(Cause::MachineMissing),
        Some(machine) if machine.deleting => return Step::Await(Cause::MachineTerminating),
        Some(machine) => machine,
    };
    match &machine.state {
        MachineState::Waiting { reason, message } => return Step::Await(waiting(reason, message)),
        MachineState::Gone { reason, message } => {
            return Step::Await(waiting(reason, &format!("{message}; it ended for good and is replaced")));
        }
        MachineState::Running { .. } => {}
    }
    let identity = identity(node, Some(machine));
    let due = if is_current(node, machine) {
        match node.record.phase_results.values().find(|phase_result| phase_result.outcome == Outcome::Unknown) {
            Some(lost) => run(&PhaseName::new(&lost.phase), Why::Probe(PhaseName::new(&lost.phase))),
            None => match known(next::outline(group, &identity, &node.record, now)) {
                Step::Settled if unread => run(&last(group), Why::Unread),
                step => step,
            },
        }
    } else if group.phases.is_empty() {
        Step::Settled
    } else if node.record.incarnation.is_none() {
        run(&first(group), Why::NewNode)
    } else {
        // A phase that kills its own container still has to wait for its next attempt.
        let loss = lost_as(group, node, machine);
        match known(next::outline(group, &identity, &node.record.reborn(None, loss), now)) {
            wait @ (Step::Backoff { .. } | Step::Halt { .. }) => wait,
            _ => run(&first(group), Why::NewIncarnation),
        }
    };
    match (due, trouble) {
        (Step::Run { .. }, Some(trouble))
            if trouble.holds(machine, now)
                && trouble
                    .about
                    .as_ref()
                    .is_none_or(|about| *about == group.fingerprint(&next::retry_token(group, &identity))) =>
        {
            Step::Await(Cause::Unreachable(trouble.clone()))
        }
        (due, _) => due,
    }
}

/// How the life that the node's record speaks of was lost, given that the machine runs another one now.
pub fn lost_as(group: &Group, node: &Node, machine: &Machine) -> Loss {
    let instance = machine.instance().unwrap_or_default();
    Loss::between(node.record.incarnation.as_ref(), &machine.uid, instance, group.node.kind())
}

/// Whether the container of a pod is another one than the record speaks of, or is between two starts: nothing of what the phases
/// have made is there any more, and its readiness gate must not be open.
pub fn is_restarted(node: &Node, machine: &Machine) -> bool {
    let known = node.record.incarnation.as_ref().filter(|known| known.uid == machine.uid);
    known.is_some_and(|known| machine.instance() != Some(known.instance.as_str()))
}

/// Whether the node's record speaks of the life that its pod has now.
pub fn is_current(node: &Node, machine: &Machine) -> bool {
    let running = |instance: &str| matches!(&machine.state, MachineState::Running { id } if id == instance);
    node.record.incarnation.as_ref().is_some_and(|known| known.uid == machine.uid && running(&known.instance))
}

/// Where the farewell of a node stands: what has to happen before its pod may go.
#[derive(Clone, Debug, PartialEq)]
pub enum Farewell {
    /// Nothing more: its pod may go. Where destroy-server was promised and has not succeeded, this says why.
    Over(Option<String>),
    /// It waits, is at work, or is due.
    Due(Step),
}

/// The next step of a node that is being removed.
///
/// Whatever goes wrong, it is over at the deadline. A node on which nothing was ever done has nothing to undo.
pub fn farewell(situation: &Situation) -> Farewell {
    let Situation { group, node, machine, session, trouble, now, .. } = *situation;
    let worked_on = node.record.incarnation.is_some() || group.phases.is_empty();
    if group.phases.destroy().is_none() || !worked_on {
        return Farewell::Over(None);
    }
    let destroy = PhaseName::destroy_server();
    let phase_result = node.record.phase_results.get(&destroy);
    let late = deadline(group, node).is_some_and(|deadline| deadline <= now);
    // A pod that others delete still runs for its grace period: what can be done then is done.
    let runs = |machine: &Machine| !machine.deleting || machine.instance().is_some();
    let there = machine.filter(|machine| !late && runs(machine));
    // What came of it is written before the pod goes: whoever leads then finds a pod that is gone, and no journal.
    let unwritten = phase_result.is_some() && node.saved.is_some() && there.is_some();
    if phase_result.is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded) {
        return if unwritten { Farewell::Due(Step::Settled) } else { Farewell::Over(None) };
    }
    let broken = || match phase_result {
        Some(phase_result) => {
            Farewell::Over(Some(format!("attempt {} of it: {}", phase_result.attempt, phase_result.message)))
        }
        None if late => Farewell::Over(Some("its deadline passed".to_owned())),
        None => Farewell::Over(Some(format!("its {} went first", group.node.kind().noun()))),
    };
    let Some(machine) = there else { return broken() };
    let lost = phase_result.is_some_and(|phase_result| phase_result.outcome == Outcome::Unknown);
    let due = match next::outlined_farewell(group, &identity(node, Some(machine)), &node.record, now) {
        // It may still be going: it is looked for before anything else, whatever attempts are left.
        _ if lost => run(&destroy, Why::Farewell),
        Next::Halt { phase } if unwritten => return Farewell::Due(Step::Halt { phase }),
        Next::Settled | Next::Halt { .. } => return broken(),
        Next::Held { phase } => Step::Await(Cause::Approval { due: phase }),
        Next::Wait { phase, message } => Step::Await(Cause::Nodes { due: phase, message }),
        Next::Manual { phase, action, message, run_id } => {
            Step::Await(Cause::Manual { due: phase, action, message, run_id })
        }
        Next::Backoff { phase, until, .. } => Step::Backoff { phase, until },
        _ => run(&destroy, Why::Farewell),
    };
    if let Some(session) = session {
        return Farewell::Due(Step::Follow(session.running.as_ref().map(|running| PhaseName::new(&running.phase))));
    }
    Farewell::Due(match &machine.state {
        MachineState::Gone { .. } => return broken(),
        MachineState::Waiting { reason, message } => Step::Await(waiting(reason, message)),
        MachineState::Running { .. } => match trouble {
            Some(trouble) if trouble.holds(machine, now) => Step::Await(Cause::Unreachable(trouble.clone())),
            _ => due,
        },
    })
}

/// When the removal of a node waits no longer.
pub fn deadline(group: &Group, node: &Node) -> Option<Timestamp> {
    let patience = SignedDuration::try_from(group.destroy_timeout).unwrap_or(SignedDuration::MAX);
    node.deleted_at.map(|since| since + patience)
}

/// Who a node is, as what backs it shows.
pub fn identity(node: &Node, machine: Option<&Machine>) -> Identity {
    Identity {
        name: node.name.clone(),
        ordinal: node.ordinal,
        address: machine.and_then(|machine| machine.address.clone()).unwrap_or_default(),
        attributes: machine.map(|machine| machine.attributes.clone()).unwrap_or_default(),
        retry_token: node.retry_token.clone(),
        ack: node.ack.clone(),
    }
}

fn waiting(reason: &str, message: &str) -> Cause {
    Cause::MachineWaiting { reason: reason.to_owned(), message: message.to_owned() }
}

fn run(phase: &PhaseName, why: Why) -> Step {
    Step::Run { phase: phase.clone(), why }
}

fn first(group: &Group) -> PhaseName {
    group.phases.converged().into_iter().next().unwrap_or_else(PhaseName::settings)
}

fn last(group: &Group) -> PhaseName {
    group.phases.converged().pop().unwrap_or_else(PhaseName::settings)
}

/// What comes next, as a step.
pub(super) fn known(next: Next<Outline>) -> Step {
    match next {
        Next::Gather { why, .. } => run(&PhaseName::settings(), why),
        Next::Test { why, .. } => run(&PhaseName::test(), why),
        Next::Run { rendered, why, .. } => run(&rendered.phase, why),
        Next::Unrenderable { phase, attempt, .. } => run(&phase, Why::Retry(phase.clone(), attempt)),
        Next::Held { phase } => Step::Await(Cause::Approval { due: phase }),
        Next::Wait { phase, message } => Step::Await(Cause::Nodes { due: phase, message }),
        Next::Manual { phase, action, message, run_id } => {
            Step::Await(Cause::Manual { due: phase, action, message, run_id })
        }
        Next::Backoff { phase, until, .. } => Step::Backoff { phase, until },
        Next::Halt { phase } => Step::Halt { phase },
        Next::Settled => Step::Settled,
    }
}
