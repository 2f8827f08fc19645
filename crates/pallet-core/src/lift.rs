//! Pure: **where lift is decided**: what a Lift does next, and what has become of it, as values.
//!
//! [`plan`] is a total function of a [`LiftSnapshot`]; it reads no clock and no cluster. What is durable of a Lift stands in
//! its status (which nodes it is for, and on which of them something was begun) and in the GroupNodes (the phase results, and what
//! has become of each node). Nothing is begun on a node before the status says that it may have been.

pub mod begin;
mod ending;
pub mod queue;
mod ready;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    group::{
        FieldError, Group, GroupKey,
        resolve::{self, Round},
    },
    phase::PhaseName,
    plan::{self, Bound, LiftRun, MachineState, Node, Record, SessionView, Snapshot, earliest, intervals, next::Next},
};
use pallet_api::reason::Reason;
use pallet_api::{
    LiftFields, LiftStatus,
    converge::{OnFailure, Order},
    group_node::NodeLift,
    lift::{NodeOutcome, NodesByOutcome},
};
use ready::Hold;
pub use ready::identity;

/// What is known of a Lift whatever its spec says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Its namespace and name.
    pub key: GroupKey,
    /// Its UID.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the operator's finalizer is on it.
    pub finalized: bool,
}

/// All that a Lift depends on, at one moment.
#[derive(Clone, Debug)]
pub struct LiftSnapshot {
    /// The time.
    pub now: Timestamp,
    /// The Lift.
    pub head: Head,
    /// What it asks for.
    pub spec: LiftFields,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Its status as it stands.
    pub status: LiftStatus,
    /// The groups that are there of those that it names, by name.
    pub groups: BTreeMap<String, GroupView>,
    /// The UIDs of the Lifts of its namespace that have not ended.
    pub open: BTreeSet<String>,
}

/// A group, as a Lift sees it.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// What its converge is planned from.
    pub snapshot: Snapshot,
    /// That plan.
    pub plan: plan::Plan,
    /// The group with what the Lift asks for in place of what it converges by, or what is wrong with that.
    pub lifted: Result<Group, Vec<FieldError>>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its nodes on which another Lift comes first, with the name of that one.
    pub taken: BTreeMap<u32, String>,
}

/// What is to be done for a Lift, and what its status is to say before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiftPlan {
    /// The status. It is written before anything is begun.
    pub status: LiftStatus,
    /// In the order in which they are to be done.
    pub effects: Vec<Effect>,
    /// How far the sessions at work for it may go.
    pub bounds: BTreeMap<Target, Bound>,
    /// When to look again, though nothing happened.
    pub wake: Option<Timestamp>,
}

/// A node of a Lift: its group and its ordinal.
pub type Target = (String, u32);

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Put the finalizer on the Lift, before anything is begun for it.
    Finalize,
    /// Let the Lift go: nothing that it began is at work any more.
    Release,
    /// Delete the Lift: it ended long enough ago.
    Delete,
    /// Open a session on a node.
    Start {
        /// The node.
        target: Target,
        /// What it is to do.
        run: LiftRun,
    },
    /// End a session. What runs goes on till it is ended by another.
    End {
        /// The node.
        target: Target,
        /// Why.
        why: &'static str,
    },
}

/// How long a node that cannot be reached is waited for when what a Lift began there is to be ended, and how long one that is
/// lost holds the others at a barrier.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// What to do next.
pub fn plan(snapshot: &LiftSnapshot) -> LiftPlan {
    let mut plan = LiftPlan { status: snapshot.status.clone(), ..LiftPlan::default() };
    plan.status.observed_generation = Some(snapshot.head.generation);
    if snapshot.status.completion_time.is_some() {
        ended(snapshot, &mut plan);
        return plan;
    }
    snapshot.count_suspension(&mut plan.status);
    let mut work = if snapshot.status.start_time.is_some() {
        Work::resume(snapshot)
    } else {
        match begin::begin(snapshot, &mut plan) {
            Some(work) => work,
            None => return plan,
        }
    };
    let started = plan.status.start_time.as_ref().map_or(snapshot.now, |time| time.0);
    work.look(snapshot, started);
    match ending::reason(snapshot, &plan.status) {
        Some(outcome) => work.end(snapshot, outcome, &mut plan),
        None => work.go_on(snapshot, &mut plan),
    }
    work.report(snapshot, &mut plan);
    if !snapshot.head.finalized && !snapshot.head.deleting && plan.status.completion_time.is_none() {
        // Nothing is begun that a deletion would not end.
        plan.effects = vec![Effect::Finalize];
        plan.status = snapshot.status.clone();
    }
    if plan.status.completion_time.is_some() && snapshot.head.finalized {
        plan.effects.push(Effect::Release);
    }
    plan
}

/// A Lift that has ended: it is let go, and deleted when its time has come.
fn ended(snapshot: &LiftSnapshot, plan: &mut LiftPlan) {
    // What it came to stands whatever is edited since, or `kubectl wait` would wait for the edit to be heeded.
    for condition in &mut plan.status.conditions {
        condition.observed_generation = Some(snapshot.head.generation);
    }
    if snapshot.head.finalized {
        plan.effects.push(Effect::Release);
        return;
    }
    let (Some(ttl), Some(end)) = (snapshot.spec.ttl_seconds_after_finished, &snapshot.status.completion_time) else {
        return;
    };
    let due = end.0 + SignedDuration::from_secs(ttl.into());
    if due <= snapshot.now && !snapshot.head.deleting {
        plan.effects.push(Effect::Delete);
    } else {
        plan.wake = earliest(plan.wake, Some(due));
    }
}

impl LiftSnapshot {
    /// When the time of the Lift is over; never while it is suspended. Before it has started it counts from its creation.
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.spec.suspend {
            return None;
        }
        let from = self.status.start_time.as_ref().map_or(self.head.created, |time| time.0);
        let suspended = match &self.status.suspended_since {
            Some(since) => self.now.duration_since(since.0),
            None => SignedDuration::ZERO,
        };
        let timeout = SignedDuration::try_from(self.timeout).unwrap_or(SignedDuration::MAX);
        Some(from + timeout + SignedDuration::from_secs(self.status.suspended_seconds.into()) + suspended)
    }

    fn count_suspension(&self, status: &mut LiftStatus) {
        match (&status.suspended_since, self.spec.suspend) {
            (None, true) => status.suspended_since = Some(Time(self.now)),
            (Some(since), false) => {
                let seconds = self.now.duration_since(since.0).as_secs().max(0);
                status.suspended_seconds =
                    status.suspended_seconds.saturating_add(u32::try_from(seconds).unwrap_or(u32::MAX));
                status.suspended_since = None;
            }
            _ => {}
        }
    }

    fn node(&self, (group, ordinal): &Target) -> Option<(&GroupView, &Node)> {
        let view = self.groups.get(group)?;
        let node = view.snapshot.nodes.get(ordinal).filter(|node| node.deletion.is_none())?;
        Some((view, node))
    }

    /// The session at work on a node for this Lift.
    fn session<'a>(&self, view: &'a GroupView, node: &Node) -> Option<&'a SessionView> {
        let session = view.snapshot.sessions.get(&node.name)?;
        (session.lift.as_ref() == Some(&self.head.uid)).then_some(session)
    }
}

/// What a Lift has written on a node.
pub fn written<'a>(record: &'a Record, uid: &str) -> Option<&'a NodeLift> {
    record.lifts.iter().find(|lift| lift.uid == uid)
}

/// Whether nothing more follows.
pub fn is_done(outcome: NodeOutcome) -> bool {
    !matches!(outcome, NodeOutcome::Pending | NodeOutcome::Running)
}

/// The nodes of a Lift, and what is found out about them in one pass.
#[derive(Debug, Default)]
struct Work {
    outcomes: BTreeMap<Target, NodeOutcome>,
    /// What those wait for that go no further now.
    waits: BTreeMap<Target, Wait>,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq)]
struct Wait {
    reason: String,
    message: String,
    /// Whether it goes on only when a person does something.
    person: bool,
}

impl Wait {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), person: false }
    }

    fn for_person(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { person: true, ..Self::new(reason, message) }
    }
}

impl Work {
    /// The nodes as the status has them.
    fn resume(snapshot: &LiftSnapshot) -> Self {
        let of = |nodes: &NodesByOutcome| {
            let (group, outcome) = (nodes.group.clone(), nodes.outcome);
            intervals::parse(&nodes.nodes).into_iter().map(move |ordinal| ((group.clone(), ordinal), outcome))
        };
        Self { outcomes: snapshot.status.outcomes.iter().flat_map(of).collect(), waits: BTreeMap::new() }
    }

    fn open(&self) -> Vec<(Target, NodeOutcome)> {
        let open = self.outcomes.iter().filter(|(_, outcome)| !is_done(**outcome));
        open.map(|(target, outcome)| (target.clone(), *outcome)).collect()
    }

    fn set(&mut self, target: &Target, outcome: NodeOutcome) {
        self.outcomes.insert(target.clone(), outcome);
        self.waits.remove(target);
    }

    fn count(&self, of: impl Fn(NodeOutcome) -> bool) -> u32 {
        self.outcomes.values().filter(|outcome| of(**outcome)).count() as u32
    }

    /// What has been written of the nodes since: those that are done, and those that are gone. A node that was made after the
    /// Lift had started is another one.
    fn look(&mut self, snapshot: &LiftSnapshot, started: Timestamp) {
        for (target, outcome) in self.open() {
            let Some((_, node)) = snapshot.node(&target).filter(|(_, node)| node.created <= started) else {
                self.set(&target, NodeOutcome::Removed);
                continue;
            };
            let durable = node.written();
            match written(durable, &snapshot.head.uid) {
                Some(NodeLift { outcome: Some(done), .. }) => self.set(&target, *done),
                Some(_) if outcome == NodeOutcome::Pending => self.set(&target, NodeOutcome::Running),
                _ => {}
            }
        }
    }

    /// Begins what may be begun, and tells the sessions at work how far they may go.
    fn go_on(&mut self, snapshot: &LiftSnapshot, plan: &mut LiftPlan) {
        let rollout = &snapshot.spec.rollout;
        let total = u32::try_from(self.outcomes.len()).unwrap_or(u32::MAX);
        let most = rollout.max_failures.as_ref().and_then(|value| resolve::share(value, total, Round::Down));
        let most = most.or((rollout.on_failure == OnFailure::StopAll).then_some(0));
        let failed = self.count(|outcome| matches!(outcome, NodeOutcome::Failed | NodeOutcome::TimedOut));
        let stopped = most.is_some_and(|most| failed > most);
        if stopped {
            self.stop(snapshot);
        }
        let bound = match rollout.order {
            _ if stopped || snapshot.spec.suspend => Bound::Hold,
            Order::Barrier => self.barrier(snapshot),
            Order::Independent => Bound::Free,
        };
        plan.bounds = self.open().into_iter().map(|(target, _)| (target, bound.clone())).collect();
        plan.wake = earliest(plan.wake, snapshot.deadline());
        if bound == Bound::Hold {
            return;
        }
        let parallel = resolve::share(&rollout.max_parallel, total, Round::Up).unwrap_or(1).max(1);
        let mut begun = self.count(|outcome| outcome == NodeOutcome::Running);
        let mut rooms: BTreeMap<&str, u32> = BTreeMap::new();
        for (target, outcome) in self.open() {
            let Some((view, node)) = snapshot.node(&target) else { continue };
            let fresh = outcome == NodeOutcome::Pending;
            if fresh && begun >= parallel {
                self.waits.insert(target, Wait::new(Reason::Queued, "its turn comes when another node is done"));
                continue;
            }
            let run = match ready::ready(snapshot, &target, view, node, &bound) {
                Ok(run) => run,
                Err(Hold::At(time, wait)) => {
                    plan.wake = earliest(plan.wake, Some(time));
                    self.waits.insert(target, wait);
                    continue;
                }
                Err(Hold::Till(wait)) => {
                    self.waits.insert(target, wait);
                    continue;
                }
                Err(Hold::Busy) => continue,
                Err(Hold::Lost) => {
                    self.set(&target, NodeOutcome::Failed);
                    continue;
                }
            };
            let group = view.snapshot.head.key.name.as_str();
            let room = rooms.entry(group).or_insert_with(|| {
                let open = u32::try_from(view.snapshot.sessions.len()).unwrap_or(u32::MAX);
                view.snapshot.session_limit.saturating_sub(open)
            });
            if *room == 0 {
                self.waits.insert(target, Wait::new(Reason::Queued, "as many sessions are open as one group may have"));
                continue;
            }
            *room -= 1;
            begun += u32::from(fresh);
            self.set(&target, NodeOutcome::Running);
            plan.effects.push(Effect::Start { target, run });
        }
    }

    /// More nodes have failed than are allowed: what was not begun is left, and what was goes to the end of its phase.
    fn stop(&mut self, snapshot: &LiftSnapshot) {
        for (target, outcome) in self.open() {
            let at_work = snapshot.node(&target).is_some_and(|(view, node)| {
                let unsaved = written(&node.record, &snapshot.head.uid).is_some_and(|lift| lift.outcome.is_some());
                unsaved || snapshot.session(view, node).is_some() || ready::lost(node, &snapshot.head.uid)
            });
            if outcome == NodeOutcome::Pending || !at_work {
                self.set(&target, NodeOutcome::Skipped);
            }
        }
    }

    /// How far the nodes may go where all go through one phase before any begins the next.
    fn barrier(&self, snapshot: &LiftSnapshot) -> Bound {
        let started = snapshot.status.start_time.as_ref().map_or(snapshot.now, |time| time.0);
        let late = snapshot.now >= started + PATIENCE;
        let mut at: Option<(usize, PhaseName)> = None;
        for (target, _) in self.open() {
            let Some((view, node)) = snapshot.node(&target) else { continue };
            let Ok(lifted) = &view.lifted else { continue };
            let there = view
                .snapshot
                .machine(node)
                .is_some_and(|machine| matches!(machine.state, MachineState::Running { .. }));
            let troubled = view.snapshot.troubles.get(&node.name).is_some_and(|t| t.since + PATIENCE < snapshot.now);
            if (late && !there) || troubled {
                continue;
            }
            let due = ready::due(snapshot, view, lifted, node);
            let Some(phase) = due.phase() else { continue };
            if matches!(due, Next::Halt { .. }) {
                continue;
            }
            let place = lifted.phases.converged().iter().position(|other| *other == phase).unwrap_or(0);
            if at.as_ref().is_none_or(|(first, _)| place < *first) {
                at = Some((place, phase));
            }
        }
        at.map_or(Bound::Free, |(_, phase)| Bound::Through(phase))
    }
}

/// The groups that a Lift has nodes of, or would have.
pub fn names(spec: &LiftFields, status: &LiftStatus) -> BTreeSet<String> {
    let named = spec.groups.iter().flatten().cloned();
    if status.start_time.is_some() {
        return status.outcomes.iter().map(|nodes| nodes.group.clone()).collect();
    }
    named.collect()
}
