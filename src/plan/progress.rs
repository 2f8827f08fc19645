//! Pure: the next step of one node.
//!
//! [`next`] decides from the phases and the receipts alone what is due on a node; a session asks it between any two
//! phases. [`step`] is the reconcile's view: it adds what stands around the node, its pod, its session, its troubles.

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Container, Node, Pod, Record, SessionView, Trouble};
use crate::{
    api::group_node::{Outcome, Receipt},
    facts,
    group::{Group, GroupKey},
    phase::{
        Action, Digest, PhaseName, Rerun,
        render::{self, Context, GroupContext, NodeContext, RenderError, Rendered},
    },
};

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
            Step::Await(Cause::NameTaken) => Some(now + super::LOOK_AGAIN),
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
    PodMissing,
    /// Its pod is going; a new one follows.
    PodTerminating,
    /// Something that is not the group's stands at the name of its pod.
    NameTaken,
    /// Its container does not run.
    ContainerWaiting {
        /// As the kubelet or the scheduler calls it.
        reason: String,
        /// For people.
        message: String,
    },
    /// It could not be reached; it is tried again.
    Unreachable(Trouble),
}

/// Why a session is opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Why {
    /// Nothing has run on the node yet.
    NewNode,
    /// The node was restarted or replaced: nothing of what had run is there any more.
    NewIncarnation,
    /// The phase is declared otherwise than when it last ran, or facts that it uses have changed.
    Changed(PhaseName),
    /// The phase has not run yet.
    Due(PhaseName),
    /// The phase failed, and its pause is over.
    Retry(PhaseName, u32),
    /// A run was lost from sight; the node's journal is asked.
    Probe(PhaseName),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NewNode => write!(f, "the node is new"),
            Why::NewIncarnation => write!(f, "the node was restarted or replaced"),
            Why::Changed(phase) => write!(f, "{phase} changed"),
            Why::Due(phase) => write!(f, "{phase} has not run yet"),
            Why::Retry(phase, attempt) => write!(f, "{phase} failed, attempt {attempt} is due"),
            Why::Probe(phase) => write!(f, "a run of {phase} was lost from sight"),
        }
    }
}

/// What is due on a node by phases and receipts alone.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The facts are to be read, and settings run.
    Gather {
        /// Which attempt this is.
        attempt: u32,
        /// Why.
        why: Why,
    },
    /// A phase is to run.
    Run {
        /// What.
        rendered: Box<Rendered>,
        /// Which attempt this is.
        attempt: u32,
        /// The run of the receipt that this one replaces; empty where there is none.
        previous: String,
        /// Why.
        why: Why,
    },
    /// A phase could not be made ready for this node: it fails without having run.
    Unrenderable {
        /// The phase.
        phase: PhaseName,
        /// Over what was declared.
        digest: Digest,
        /// Which attempt this is.
        attempt: u32,
        /// What was wrong.
        error: RenderError,
    },
    /// A failed phase waits for its next attempt.
    Backoff {
        /// The phase.
        phase: PhaseName,
        /// When.
        until: Timestamp,
        /// The attempt that is due then.
        attempt: u32,
    },
    /// A failed phase has no attempts left.
    Halt {
        /// The phase.
        phase: PhaseName,
    },
    /// Nothing.
    Settled,
}

/// Who a node is, for its templates.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ordinal: u32,
    /// Its address, empty until it is known.
    pub address: String,
    /// The value of its retry annotation.
    pub retry_token: String,
}

/// What is due on a node, given that its record speaks of the incarnation at hand.
///
/// The stored facts are trusted as long as settings is declared as it was: an idle node is asked nothing. A session reads
/// them anew before it runs any phase but bootstrap, and asks again.
pub fn next(group: &Group, identity: &Identity, record: &Record, now: Timestamp) -> Next {
    let look = Look { group, identity, record, now };
    if group.phases.is_empty() {
        return Next::Settled;
    }
    let bootstrap = PhaseName::bootstrap();
    if let Some(actions) = group.phases.actions.get(&bootstrap) {
        // Facts of the group's own are not there before settings: bootstrap is rendered without its values.
        let context = context(group, identity, record, BTreeMap::new());
        if let Some(next) = look.phase(&bootstrap, actions, &context) {
            return next;
        }
    }
    if let Some(next) = look.settings() {
        return next;
    }
    let Ok(settings) = values(group, identity, record) else {
        // They could be filled in when settings ran; what they depend on has changed since.
        return Next::Gather { attempt: 1, why: Why::Changed(PhaseName::settings()) };
    };
    let context = context(group, identity, record, settings);
    for phase in &group.phases.sequence {
        let Some(actions) = group.phases.actions.get(phase) else { continue };
        if let Some(next) = look.phase(phase, actions, &context) {
            return next;
        }
    }
    Next::Settled
}

/// The values of settings on a node.
///
/// # Errors
/// The first one that cannot be filled in with the facts of the record.
pub fn values(group: &Group, identity: &Identity, record: &Record) -> Result<BTreeMap<String, Value>, RenderError> {
    render::values(&group.phases.settings.values, &context(group, identity, record, BTreeMap::new()))
}

fn context(group: &Group, identity: &Identity, record: &Record, settings: BTreeMap<String, Value>) -> Context {
    let GroupKey { namespace, name } = group.key.clone();
    let declared = group.phases.settings.facts.iter().map(|fact| fact.name.as_str());
    Context {
        group: GroupContext { name, namespace, count: group.count },
        node: NodeContext { name: identity.name.clone(), ordinal: identity.ordinal, address: identity.address.clone() },
        facts: facts::with_declared(facts::without_volatile(&record.facts), declared),
        settings,
    }
}

/// The retry token that a node's attempts count under: both annotations give attempts back.
pub fn retry_token(group: &Group, identity: &Identity) -> String {
    match (group.retry_token.as_str(), identity.retry_token.as_str()) {
        ("", "") => String::new(),
        (group, node) => format!("{group}/{node}"),
    }
}

struct Look<'a> {
    group: &'a Group,
    identity: &'a Identity,
    record: &'a Record,
    now: Timestamp,
}

enum Budget {
    Attempt(u32, Why),
    Wait(Timestamp, u32),
    Spent,
}

impl Look<'_> {
    /// What is due of one phase, or nothing.
    fn phase(&self, phase: &PhaseName, actions: &Arc<Vec<Action>>, context: &Context) -> Option<Next> {
        let receipt = self.record.receipts.get(phase);
        let succeeded = receipt.is_some_and(|receipt| receipt.outcome == Outcome::Succeeded);
        if succeeded && phase.rerun() == Rerun::PerIncarnation {
            return None;
        }
        let rendered = match render::phase(phase, actions, context) {
            Ok(rendered) => rendered,
            Err(error) => return Some(self.unrenderable(phase, unrendered(actions), error)),
        };
        if succeeded && receipt.is_some_and(|receipt| receipt.digest == rendered.digest.as_str()) {
            return None;
        }
        let previous = receipt.map(|receipt| receipt.run_id.clone()).unwrap_or_default();
        Some(match self.budget(phase, receipt, &rendered.digest) {
            Budget::Attempt(attempt, why) => Next::Run { rendered: Box::new(rendered), attempt, previous, why },
            Budget::Wait(until, attempt) => Next::Backoff { phase: phase.clone(), until, attempt },
            Budget::Spent => Next::Halt { phase: phase.clone() },
        })
    }

    fn settings(&self) -> Option<Next> {
        let phase = PhaseName::settings();
        let digest = &self.group.phases.settings.digest;
        let receipt = self.record.receipts.get(&phase);
        let done = receipt.is_some_and(|r| r.outcome == Outcome::Succeeded && r.digest == digest.as_str());
        if done {
            return None;
        }
        Some(match self.budget(&phase, receipt, digest) {
            Budget::Attempt(attempt, why) => Next::Gather { attempt, why },
            Budget::Wait(until, attempt) => Next::Backoff { phase, until, attempt },
            Budget::Spent => Next::Halt { phase },
        })
    }

    fn unrenderable(&self, phase: &PhaseName, digest: Digest, error: RenderError) -> Next {
        match self.budget(phase, self.record.receipts.get(phase), &digest) {
            Budget::Attempt(attempt, _) => Next::Unrenderable { phase: phase.clone(), digest, attempt, error },
            Budget::Wait(until, attempt) => Next::Backoff { phase: phase.clone(), until, attempt },
            Budget::Spent => Next::Halt { phase: phase.clone() },
        }
    }

    /// 1 + limit attempts at one digest under one retry token, with a growing pause between them.
    fn budget(&self, phase: &PhaseName, receipt: Option<&Receipt>, digest: &Digest) -> Budget {
        let Some(receipt) = receipt else { return Budget::Attempt(1, Why::Due(phase.clone())) };
        let same = receipt.digest == digest.as_str() && receipt.retry_token == retry_token(self.group, self.identity);
        if receipt.outcome == Outcome::Succeeded || !same {
            return Budget::Attempt(1, Why::Changed(phase.clone()));
        }
        if receipt.attempt > self.group.retry.limit {
            return Budget::Spent;
        }
        let pause = self.group.retry.pause(receipt.attempt, jitter(&self.identity.name, receipt.attempt));
        let until = receipt.finished_at.0 + SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
        let attempt = receipt.attempt + 1;
        if self.now < until {
            Budget::Wait(until, attempt)
        } else {
            Budget::Attempt(attempt, Why::Retry(phase.clone(), attempt))
        }
    }
}

/// The digest of a phase that could not be rendered: over its source, so that an edit gives it its attempts back.
fn unrendered(actions: &[Action]) -> Digest {
    Digest::of("unrendered", &actions.iter().map(render::model).collect())
}

/// The same for the same node and attempt, so that a plan does not change from one look to the next.
fn jitter(node: &str, attempt: u32) -> u8 {
    Sha256::digest(format!("{node} {attempt}").as_bytes())[0]
}

/// A node and all that stands around it.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Its group.
    pub group: &'a Group,
    /// The node.
    pub node: &'a Node,
    /// Its pod.
    pub pod: Option<&'a Pod>,
    /// Whether something that is not the group's stands at the pod's name.
    pub foreign: bool,
    /// The session at work on it.
    pub session: Option<&'a SessionView>,
    /// Why it could not be reached.
    pub trouble: Option<&'a Trouble>,
    /// The time.
    pub now: Timestamp,
}

/// The next step of a node. Total: whatever is observed, there is one.
pub fn step(situation: &Situation) -> Step {
    let Situation { group, node, pod, foreign, session, trouble, now } = *situation;
    if let Some(session) = session {
        return Step::Follow(session.running.as_ref().map(|running| PhaseName::new(&running.phase)));
    }
    let pod = match pod {
        _ if foreign => return Step::Await(Cause::NameTaken),
        None => return Step::Await(Cause::PodMissing),
        Some(pod) if pod.deleting => return Step::Await(Cause::PodTerminating),
        Some(pod) => pod,
    };
    let instance = match &pod.container {
        Container::Waiting { reason, message } => return Step::Await(waiting(reason, message)),
        Container::Gone { reason } => return Step::Await(waiting(reason, "its pod ended for good and is replaced")),
        Container::Running { id } => id,
    };
    let identity = identity(node, pod);
    let incarnation = node.record.incarnation.as_ref();
    let current = incarnation.is_some_and(|i| i.uid == pod.uid && i.instance == *instance);
    let due = if current {
        match node.record.receipts.values().find(|receipt| receipt.outcome == Outcome::Unknown) {
            Some(lost) => run(&PhaseName::new(&lost.phase), Why::Probe(PhaseName::new(&lost.phase))),
            None => known(next(group, &identity, &node.record, now)),
        }
    } else if group.phases.is_empty() {
        Step::Settled
    } else if incarnation.is_none() {
        run(&first(group), Why::NewNode)
    } else {
        // A phase that kills its own container still has to wait for its next attempt.
        match known(next(group, &identity, &node.record.reborn(None), now)) {
            wait @ (Step::Backoff { .. } | Step::Halt { .. }) => wait,
            _ => run(&first(group), Why::NewIncarnation),
        }
    };
    match (due, trouble) {
        (Step::Run { .. }, Some(trouble)) if trouble.instance == *instance && now < trouble.until => {
            Step::Await(Cause::Unreachable(trouble.clone()))
        }
        (due, _) => due,
    }
}

/// Who a node is, as its pod shows it.
pub fn identity(node: &Node, pod: &Pod) -> Identity {
    Identity {
        name: node.name.clone(),
        ordinal: node.ordinal,
        address: pod.address.clone().unwrap_or_default(),
        retry_token: node.retry_token.clone(),
    }
}

fn waiting(reason: &str, message: &str) -> Cause {
    Cause::ContainerWaiting { reason: reason.to_owned(), message: message.to_owned() }
}

fn run(phase: &PhaseName, why: Why) -> Step {
    Step::Run { phase: phase.clone(), why }
}

fn first(group: &Group) -> PhaseName {
    group.phases.converged().into_iter().next().unwrap_or_else(PhaseName::settings)
}

fn known(next: Next) -> Step {
    match next {
        Next::Gather { why, .. } => run(&PhaseName::settings(), why),
        Next::Run { rendered, why, .. } => run(&rendered.phase, why),
        Next::Unrenderable { phase, attempt, .. } => run(&phase, Why::Retry(phase.clone(), attempt)),
        Next::Backoff { phase, until, .. } => Step::Backoff { phase, until },
        Next::Halt { phase } => Step::Halt { phase },
        Next::Settled => Step::Settled,
    }
}
