//! Pure: a Lift that was cancelled or deleted, or whose time is over: what it has begun is ended on the nodes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Effect, GroupView, LiftPlan, LiftSnapshot, PATIENCE, Wait, Work, ready::run, written};
use crate::plan::{Bound, MachineState, Node, earliest};
use pallet_api::reason::Reason;
use pallet_api::{LiftStatus, lift::NodeOutcome};

/// Whether the Lift is to end before it is done, and as what its nodes count then.
pub(super) fn reason(snapshot: &LiftSnapshot, status: &LiftStatus) -> Option<NodeOutcome> {
    let late = snapshot.deadline().is_some_and(|deadline| deadline <= snapshot.now);
    // What began to end for one reason does not end for another.
    let ended_late = status.ending_since.as_ref().zip(snapshot.deadline()).is_some_and(|(since, end)| end <= since.0);
    match snapshot.spec.cancel || snapshot.head.deleting {
        true if !ended_late => Some(NodeOutcome::Cancelled),
        _ => late.then_some(NodeOutcome::TimedOut),
    }
}

impl Work {
    /// What was not begun is left; what was is ended by a session that does nothing else.
    pub(super) fn end(&mut self, snapshot: &LiftSnapshot, outcome: NodeOutcome, plan: &mut LiftPlan) {
        let since = plan.status.ending_since.get_or_insert(Time(snapshot.now)).0;
        let patient = snapshot.now < since + PATIENCE;
        for (target, known) in self.open() {
            if known == NodeOutcome::Pending {
                self.set(&target, outcome);
                continue;
            }
            let Some((view, node)) = snapshot.node(&target) else { continue };
            plan.bounds.insert(target.clone(), Bound::Hold);
            match ending(snapshot, view, node, since) {
                Ending::Written => {}
                Ending::Over => self.set(&target, outcome),
                _ if !patient => self.set(&target, outcome),
                Ending::Close => plan.effects.push(Effect::End { target, why: "its Lift is being ended" }),
                Ending::Wait(until) => {
                    plan.wake = earliest(plan.wake, until);
                    self.waits.insert(target, Wait::new(Reason::Ending, "what runs on it is being ended"));
                }
                Ending::Begin => match &view.lifted {
                    Ok(lifted) => {
                        let run = run(snapshot, view, lifted, Bound::Free);
                        let run = crate::plan::LiftRun { ends: Some(outcome), ..run };
                        plan.effects.push(Effect::Start { target, run });
                    }
                    // What cannot be read cannot be asked for; the deadline on the node ends it.
                    Err(_) => self.set(&target, outcome),
                },
            }
        }
        plan.wake = earliest(plan.wake, Some(since + PATIENCE));
    }
}

/// Where the ending of what a Lift began on a node stands.
enum Ending {
    /// What has become of it is known, and is being written.
    Written,
    /// Nothing of it can be left.
    Over,
    /// The session that is at work is to go first.
    Close,
    /// It is under way, or waits.
    Wait(Option<Timestamp>),
    /// It is to be begun.
    Begin,
}

fn ending(snapshot: &LiftSnapshot, view: &GroupView, node: &Node, since: Timestamp) -> Ending {
    if let Some(session) = snapshot.session(view, node) {
        return if session.since < since { Ending::Close } else { Ending::Wait(None) };
    }
    if written(&node.record, &snapshot.head.uid).is_some_and(|lift| lift.outcome.is_some()) {
        return Ending::Written;
    }
    // What ran there has ended with it.
    let machine = view.snapshot.machine(node);
    let running = machine.filter(|machine| matches!(machine.state, MachineState::Running { .. }));
    let Some(machine) = running else { return Ending::Over };
    match view.snapshot.troubles.get(&node.name) {
        Some(trouble) if trouble.holds(machine, snapshot.now) && trouble.about.is_none() => {
            Ending::Wait(Some(trouble.until))
        }
        _ if view.snapshot.sessions.contains_key(&node.name) => Ending::Wait(None),
        _ => Ending::Begin,
    }
}
