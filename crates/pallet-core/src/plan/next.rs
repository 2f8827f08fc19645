//! Pure: what is due on one node by phases and phase results alone. A session asks it between any two phases.

mod fill;

use std::{cell::OnceCell, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Record, drift};
use crate::{
    facts,
    group::{Attributes, Group, GroupKey, NodeShape, Retry, resolve},
    phase::{
        Action, ActionKind, Digest, PhaseName, Rerun,
        budget::Budget as WorkBudget,
        expect, hex,
        render::{self, Context, GroupContext, Login, LoginKey, NodeContext, RenderError, Rendered},
    },
};
use pallet_api::group_node::{Outcome, PhaseResult};

use fill::{Fill, Remembered, Whole};
pub use fill::{Filled, Outline};

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
    /// The last run was interrupted because the node was replaced, which was no failure.
    Interrupted(PhaseName),
    /// A run was lost from sight; the node's journal is asked.
    Probe(PhaseName),
    /// A former operator may have changed the node without storing the result.
    Unread,
    /// A manual step of the phase was acknowledged.
    Acknowledged(PhaseName),
    /// The node was found otherwise than the phase would leave it.
    Drifted(PhaseName),
    /// Nothing has to be done: it is time to look.
    Look,
    /// The node is being removed.
    Farewell,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NewNode => write!(f, "the node is new"),
            Why::NewIncarnation => write!(f, "the node was restarted or replaced"),
            Why::Changed(phase) => write!(f, "{phase} changed"),
            Why::Due(phase) => write!(f, "{phase} has not run yet"),
            Why::Retry(phase, attempt) => write!(f, "{phase} failed, attempt {attempt} is due"),
            Why::Interrupted(phase) => write!(f, "{phase} was interrupted when the node was replaced"),
            Why::Probe(phase) => write!(f, "a run of {phase} was lost from sight"),
            Why::Unread => {
                write!(f, "the operator was restarted while the node was not converged; it reads the journal")
            }
            Why::Acknowledged(phase) => write!(f, "a manual step of {phase} was acknowledged"),
            Why::Drifted(phase) => write!(f, "the node differs from what {phase} would leave behind"),
            Why::Look => write!(f, "it is time to look"),
            Why::Farewell => write!(f, "the node is being removed"),
        }
    }
}

/// What is due on a node by phases and phase results alone. A session needs the phase that is to run as it was rendered; a plan
/// needs its [`Outline`].
#[derive(Clone, Debug, PartialEq)]
pub enum Next<R = Rendered> {
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
        rendered: Box<R>,
        /// The place of the action to begin with.
        from: u32,
        /// Which attempt this is.
        attempt: u32,
        /// The run of the phase result that this one replaces; empty where there is none.
        previous: String,
        /// Why.
        why: Why,
    },
    /// The facts are to be compared with what is expected of them.
    Test {
        /// Over what is expected, and over the runs that came before it.
        digest: Digest,
        /// A name for this look at these facts. What has succeeded under it need not be looked at again.
        look: String,
        /// Which attempt this is.
        attempt: u32,
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
    /// A phase waits at a manual step for a person.
    Manual {
        /// The phase.
        phase: PhaseName,
        /// The action.
        action: String,
        /// What is to be done.
        message: String,
        /// The run that waits: what is to be acknowledged.
        run_id: String,
    },
    /// A phase waits for a person's leave.
    Held {
        /// The phase.
        phase: PhaseName,
    },
    /// A phase waits for nodes of a role, as it says itself.
    Wait {
        /// The phase.
        phase: PhaseName,
        /// For people.
        message: String,
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

impl<R: Filled> Next<R> {
    /// The phase that it is about.
    pub fn phase(&self) -> Option<PhaseName> {
        match self {
            Next::Gather { .. } => Some(PhaseName::settings()),
            Next::Run { rendered, .. } => Some(rendered.phase().clone()),
            Next::Test { .. } => Some(PhaseName::test()),
            Next::Unrenderable { phase, .. }
            | Next::Wait { phase, .. }
            | Next::Held { phase }
            | Next::Manual { phase, .. }
            | Next::Backoff { phase, .. }
            | Next::Halt { phase } => Some(phase.clone()),
            Next::Settled => None,
        }
    }
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
    /// What else is known of it, where it is a host.
    pub attributes: Arc<Attributes>,
    /// The value of its retry annotation.
    pub retry_token: String,
    /// The run that waits at a manual step and was acknowledged.
    pub ack: String,
}

/// What is due on a node, given that its record speaks of the incarnation at hand.
///
/// The stored facts are trusted as long as settings is declared as it was: an idle node is asked nothing. A session reads
/// them anew before it runs any phase but bootstrap, and asks again.
pub fn next(group: &Group, identity: &Identity, record: &Record, now: Timestamp) -> Next {
    Look::new(group, identity, record, now, Whole).next()
}

/// The same for a plan: what was rendered before under the same circumstances is not rendered again.
pub fn outline(group: &Group, identity: &Identity, record: &Record, now: Timestamp) -> Next<Outline> {
    Look::new(group, identity, record, now, Remembered::default()).next()
}

/// What is due of one phase, whether or not others come before it.
pub fn due(
    group: &Group,
    identity: &Identity,
    record: &Record,
    now: Timestamp,
    phase: &PhaseName,
) -> Option<Next<Outline>> {
    let look = Look::new(group, identity, record, now, Remembered::default());
    if *phase == PhaseName::settings() {
        return look.settings();
    }
    match group.phases.actions.get(phase) {
        Some(actions) => look.phase(phase, actions),
        None => {
            let place = group.phases.sequence.iter().position(|other| other == phase)?;
            look.test(&group.phases.sequence[..place])
        }
    }
}

/// What is due on a node that is being removed: destroy-server, until it has succeeded once or its attempts are used up.
///
/// It goes ahead though another phase has failed. What it needs of settings is there where settings could be read.
pub fn farewell(group: &Group, identity: &Identity, record: &Record, now: Timestamp) -> Next {
    Look::new(group, identity, record, now, Whole).farewell()
}

/// The same for a plan.
pub fn outlined_farewell(group: &Group, identity: &Identity, record: &Record, now: Timestamp) -> Next<Outline> {
    Look::new(group, identity, record, now, Remembered::default()).farewell()
}

/// A phase as it would run on a node.
///
/// # Errors
/// Where it cannot be made ready.
pub fn rendered(
    group: &Group,
    identity: &Identity,
    record: &Record,
    phase: &PhaseName,
) -> Result<Rendered, RenderError> {
    let actions = group.phases.actions.get(phase).cloned().unwrap_or_default();
    let look = Look::new(group, identity, record, Timestamp::UNIX_EPOCH, Whole);
    look.values().clone()?;
    look.render(phase, &actions)
}

/// Looks at what test expects, with the facts of the record, those that change by themselves included.
pub fn examine(group: &Group, identity: &Identity, record: &Record) -> Vec<expect::Finding> {
    let settings = values(group, identity, record).unwrap_or_default();
    let context = context(group, identity, record, settings).with_volatile();
    let mut findings = Vec::new();
    // What comes from one ServerSpec stands together.
    for expectations in group.phases.expectations.chunk_by(|a, b| a.origin == b.origin) {
        let origin = expectations.first().and_then(|expectation| expectation.origin.as_deref());
        let seen = serde_json::to_value(context.within(origin)).unwrap_or_default();
        findings.extend(expect::examine(expectations, &seen, &context.budget));
    }
    findings
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
    Context {
        group: GroupContext { name, namespace, count: group.count },
        node: node_context(identity),
        facts: declared(group, facts::without_volatile(&record.facts)),
        settings,
        params: group.phases.params.clone(),
        nodes: group.inputs.nodes.clone(),
        inputs: group.inputs.clone(),
        whole: declared(group, record.facts.clone()),
        login: login(group, identity),
        budget: WorkBudget::new(),
    }
}

/// As whom the operator logs in on a node.
fn login(group: &Group, identity: &Identity) -> Option<Login> {
    match &group.node {
        NodeShape::Pod(_) => None,
        NodeShape::VirtualMachine(machine) => Some(Login { user: machine.user.clone(), key: LoginKey::Made }),
        NodeShape::Hosts(hosts) => {
            let host = hosts.inventory.iter().find(|host| host.name() == identity.attributes.host);
            let user = host.and_then(|host| host.user.clone()).unwrap_or_else(|| hosts.access.user.clone());
            let key = group.inputs.login_key.clone().map_or(LoginKey::Unknown, LoginKey::Known);
            Some(Login { user, key })
        }
    }
}

fn node_context(identity: &Identity) -> NodeContext {
    NodeContext {
        name: identity.name.clone(),
        ordinal: identity.ordinal,
        address: identity.address.clone(),
        attributes: identity.attributes.clone(),
    }
}

/// The facts, with a null for each of the group's own that has no value.
fn declared(group: &Group, facts: facts::Facts) -> facts::Facts {
    facts::with_declared(facts, group.phases.settings.facts.iter().map(|fact| fact.name.as_str()))
}

/// The retry token that a node's attempts count under: both annotations give attempts back. It has at most 64 bytes.
pub fn retry_token(group: &Group, identity: &Identity) -> String {
    match (group.retry_token.as_str(), identity.retry_token.as_str()) {
        ("", "") => String::new(),
        (group, node) => resolve::bounded(&format!("{group}/{node}"), resolve::TOKEN_LIMIT),
    }
}

/// A node, and what is known of how its phases are filled in.
struct Look<'a, F> {
    group: &'a Group,
    identity: &'a Identity,
    record: &'a Record,
    now: Timestamp,
    fill: F,
    /// The values of settings, where they were needed.
    values: OnceCell<Result<BTreeMap<String, Value>, RenderError>>,
    /// What every phase but bootstrap sees, where one was rendered.
    context: OnceCell<Context>,
}

enum Budget {
    Attempt(u32, Why),
    Wait(Timestamp, u32),
    Spent,
}

impl<'a, F: Fill> Look<'a, F> {
    fn new(group: &'a Group, identity: &'a Identity, record: &'a Record, now: Timestamp, fill: F) -> Self {
        Self { group, identity, record, now, fill, values: OnceCell::new(), context: OnceCell::new() }
    }

    fn next(&self) -> Next<F::Of> {
        let next = self.anything();
        match next.phase() {
            // It may have run out of attempts, or wait for its next: that is known from before.
            Some(phase) if self.group.unapproved.contains(&phase) && !matches!(next, Next::Halt { .. }) => {
                Next::Held { phase }
            }
            _ => next,
        }
    }

    fn anything(&self) -> Next<F::Of> {
        let group = self.group;
        if group.phases.is_empty() {
            return Next::Settled;
        }
        let bootstrap = PhaseName::bootstrap();
        if let Some(actions) = group.phases.actions.get(&bootstrap)
            && let Some(next) = self.phase(&bootstrap, actions)
        {
            return next;
        }
        if let Some(next) = self.settings() {
            return next;
        }
        match F::values(self) {
            Ok(()) => {}
            Err(error) if error.waits() => {
                return Next::Wait { phase: PhaseName::settings(), message: error.to_string() };
            }
            // They could be filled in when settings ran; what they depend on has changed since.
            Err(_) => return Next::Gather { attempt: 1, why: Why::Changed(PhaseName::settings()) },
        }
        for (place, phase) in group.phases.sequence.iter().enumerate() {
            let due = match group.phases.actions.get(phase) {
                Some(actions) => self.phase(phase, actions),
                None => self.test(&group.phases.sequence[..place]),
            };
            if let Some(next) = due {
                return next;
            }
        }
        Next::Settled
    }

    fn farewell(&self) -> Next<F::Of> {
        let phase = PhaseName::destroy_server();
        let done = self
            .record
            .phase_results
            .get(&phase)
            .is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded);
        let Some(actions) = self.group.phases.destroy().filter(|_| !done) else { return Next::Settled };
        self.phase(&phase, actions).unwrap_or(Next::Settled)
    }

    fn values(&self) -> &Result<BTreeMap<String, Value>, RenderError> {
        self.values.get_or_init(|| values(self.group, self.identity, self.record))
    }

    /// Whether this is the node for what runs on one node only.
    fn is_chosen(&self) -> bool {
        self.group.chosen.is_none_or(|chosen| chosen == self.identity.ordinal)
    }

    fn render(&self, phase: &PhaseName, actions: &[Action]) -> Result<Rendered, RenderError> {
        let token = if *phase == PhaseName::configure() { &self.group.phases.reapply } else { "" };
        let context = |settings| context(self.group, self.identity, self.record, settings);
        if *phase == PhaseName::bootstrap() {
            // Facts of the group's own are not there before settings: bootstrap is rendered without its values.
            return render::phase(phase, actions, token, self.is_chosen(), &context(BTreeMap::new()));
        }
        let seen = self.context.get_or_init(|| context(self.values().clone().unwrap_or_default()));
        render::phase(phase, actions, token, self.is_chosen(), seen)
    }

    /// What is due of one phase, or nothing.
    fn phase(&self, phase: &PhaseName, actions: &Arc<Vec<Action>>) -> Option<Next<F::Of>> {
        let phase_result = self.record.phase_results.get(phase);
        let succeeded = phase_result.is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded);
        if succeeded && (phase.rerun() == Rerun::PerIncarnation || self.group.phases.on_demand) {
            return None;
        }
        let rendered = match F::phase(self, phase, actions) {
            Ok(rendered) => rendered,
            Err(error) if error.waits() => {
                return Some(Next::Wait { phase: phase.clone(), message: error.to_string() });
            }
            Err(error) => return Some(self.unrenderable(phase, unrendered(actions), error)),
        };
        if succeeded && phase_result.is_some_and(|phase_result| phase_result.digest == rendered.digest().as_str()) {
            if !drift::calls_for(self.group, self.record, phase) {
                return None;
            }
            let (previous, why) = (
                phase_result.map(|phase_result| phase_result.run_id.clone()).unwrap_or_default(),
                Why::Drifted(phase.clone()),
            );
            return Some(Next::Run { rendered: Box::new(rendered), from: 0, attempt: 1, previous, why });
        }
        let previous = phase_result.map(|phase_result| phase_result.run_id.clone()).unwrap_or_default();
        let same = phase_result.filter(|phase_result| phase_result.digest == rendered.digest().as_str());
        if let Some(waiting) = same.filter(|phase_result| phase_result.outcome == Outcome::Waiting) {
            return Some(self.manual(phase, actions, rendered, waiting));
        }
        // What was done before a step that was acknowledged is not done again.
        let from = same.map(|phase_result| phase_result.from).unwrap_or_default();
        Some(match self.budget(phase, phase_result, rendered.digest()) {
            Budget::Attempt(attempt, why) => Next::Run { rendered: Box::new(rendered), from, attempt, previous, why },
            Budget::Wait(until, attempt) => Next::Backoff { phase: phase.clone(), until, attempt },
            Budget::Spent => Next::Halt { phase: phase.clone() },
        })
    }

    /// A phase that has got to a manual step.
    fn manual(&self, phase: &PhaseName, actions: &[Action], rendered: F::Of, waiting: &PhaseResult) -> Next<F::Of> {
        let (run_id, done) = (waiting.run_id.clone(), waiting.actions.len());
        if self.identity.ack == run_id {
            let why = Why::Acknowledged(phase.clone());
            let from = u32::try_from(done).unwrap_or(u32::MAX);
            return Next::Run { rendered: Box::new(rendered), from, attempt: 1, previous: run_id, why };
        }
        // Its text is kept nowhere.
        let calls = self.render(phase, actions).map(|rendered| rendered.calls).unwrap_or_default();
        let step = done.checked_sub(1).and_then(|place| calls.get(place));
        let message = match step.map(|call| &call.kind) {
            Some(ActionKind::Manual { message }) => message.clone(),
            _ => String::new(),
        };
        let action = step.map(|call| call.name.clone()).unwrap_or_default();
        Next::Manual { phase: phase.clone(), action, message, run_id }
    }

    fn settings(&self) -> Option<Next<F::Of>> {
        let phase = PhaseName::settings();
        let digest = &self.group.phases.settings.digest;
        let phase_result = self.record.phase_results.get(&phase);
        let done = phase_result.is_some_and(|r| r.outcome == Outcome::Succeeded && r.digest == digest.as_str());
        if done {
            return None;
        }
        // What a value lacked may be there by now: nodes of a role, a fact.
        let by_values =
            phase_result.is_some_and(|r| r.outcome == Outcome::Failed && r.message.starts_with(render::VALUES));
        if by_values && F::values(self).is_ok() {
            return Some(Next::Gather { attempt: 1, why: Why::Changed(phase) });
        }
        Some(match self.budget(&phase, phase_result, digest) {
            Budget::Attempt(attempt, why) => Next::Gather { attempt, why },
            Budget::Wait(until, attempt) => Next::Backoff { phase, until, attempt },
            Budget::Spent => Next::Halt { phase },
        })
    }

    /// Test is due when something has run since, or the facts were read again since, whatever came of it.
    fn test(&self, before: &[PhaseName]) -> Option<Next<F::Of>> {
        let phase = PhaseName::test();
        let phase_results = &self.record.phase_results;
        let runs = before.iter().filter_map(|phase| Some(&phase_results.get(phase)?.run_id));
        let expected = self.group.phases.expectations.iter().map(|e| json!([e.name, e.expression])).collect::<Value>();
        // Facts are left out: they are what is tested, and every reading of them is a new look.
        let settings = self.group.phases.settings.digest.as_str();
        let (key, params) = (&self.group.key, self.group.phases.params.as_object());
        let mut about = json!([settings, node_context(self.identity), key.name, key.namespace]);
        if let (Value::Array(about), Some(params)) = (&mut about, params.filter(|params| !params.is_empty())) {
            about.push(params.clone().into());
        }
        let digest = Digest::of("test", &json!([expected, about, runs.collect::<Vec<_>>()]));
        let read = phase_results.get(&PhaseName::settings());
        let read =
            read.map(|phase_result| format!("{} {}", phase_result.run_id, phase_result.finished_at.0.as_second()));
        let seal = Sha256::digest(format!("{digest} {}", read.unwrap_or_default()).as_bytes());
        let look = format!("{phase}-{}", hex(&seal[..10]));
        let phase_result = phase_results.get(&phase);
        let succeeded = phase_result.filter(|phase_result| phase_result.outcome == Outcome::Succeeded);
        let holds = |phase_result: &PhaseResult| phase_result.digest == digest.as_str() && phase_result.run_id == look;
        if succeeded.is_some_and(|phase_result| self.group.phases.on_demand || holds(phase_result)) {
            return None;
        }
        Some(match self.budget(&phase, phase_result, &digest) {
            Budget::Attempt(attempt, why) => Next::Test { digest, look, attempt, why },
            Budget::Wait(until, attempt) => Next::Backoff { phase, until, attempt },
            Budget::Spent => Next::Halt { phase },
        })
    }

    fn unrenderable(&self, phase: &PhaseName, digest: Digest, error: RenderError) -> Next<F::Of> {
        match self.budget(phase, self.record.phase_results.get(phase), &digest) {
            Budget::Attempt(attempt, _) => Next::Unrenderable { phase: phase.clone(), digest, attempt, error },
            Budget::Wait(until, attempt) => Next::Backoff { phase: phase.clone(), until, attempt },
            Budget::Spent => Next::Halt { phase: phase.clone() },
        }
    }

    /// 1 + limit attempts at one digest under one retry token, with a growing pause between them.
    fn budget(&self, phase: &PhaseName, phase_result: Option<&PhaseResult>, digest: &Digest) -> Budget {
        let Some(phase_result) = phase_result else { return Budget::Attempt(1, Why::Due(phase.clone())) };
        let same = phase_result.digest == digest.as_str()
            && phase_result.retry_token == retry_token(self.group, self.identity);
        if phase_result.outcome == Outcome::Succeeded || !same {
            return Budget::Attempt(1, Why::Changed(phase.clone()));
        }
        if phase_result.outcome == Outcome::Interrupted {
            return self.interrupted(phase, phase_result);
        }
        if phase_result.attempt > self.group.retry.limit {
            return Budget::Spent;
        }
        let pause = self.group.retry.pause(phase_result.attempt, jitter(&self.identity.name, phase_result.attempt));
        let until = after(phase_result.finished_at.0, pause);
        let attempt = phase_result.attempt.saturating_add(1);
        if self.now < until && !is_ahead(phase_result.finished_at.0, self.now) {
            Budget::Wait(until, attempt)
        } else {
            Budget::Attempt(attempt, Why::Retry(phase.clone(), attempt))
        }
    }

    /// The attempt that was interrupted counts for nothing and is made again: at once after the first interruption, later each time
    /// after that, since what ends the node may be the phase itself.
    fn interrupted(&self, phase: &PhaseName, phase_result: &PhaseResult) -> Budget {
        let attempt = phase_result.attempt.max(1);
        let again = Budget::Attempt(attempt, Why::Interrupted(phase.clone()));
        let Some(before) = phase_result.interruptions.checked_sub(2) else { return again };
        let retry = Retry { backoff: self.group.retry.backoff.max(AFTER_INTERRUPTIONS), ..self.group.retry };
        let pause = retry.pause(before.saturating_add(1), jitter(&self.identity.name, phase_result.interruptions));
        let until = after(phase_result.finished_at.0, pause);
        if self.now < until && !is_ahead(phase_result.finished_at.0, self.now) {
            Budget::Wait(until, attempt)
        } else {
            again
        }
    }
}

/// The least pause after a second interruption, whatever the group's own backoff is. It doubles as that does.
const AFTER_INTERRUPTIONS: Duration = Duration::from_secs(5);

/// How far a time may lie in the future before it is known to come from a clock that was ahead. Replicas differ by less, and a
/// session may end while a reconcile is under way.
const AHEAD: SignedDuration = SignedDuration::from_secs(5);

/// Whether a stored time was written by a clock that was ahead. Nothing waits for such a time: it may be years away.
pub(super) fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > AHEAD
}

/// A time so much later; the last there is where that is beyond it.
pub(super) fn after(time: Timestamp, pause: Duration) -> Timestamp {
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    time.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// The digest of a phase that could not be rendered: over its source, so that an edit gives it its attempts back.
fn unrendered(actions: &[Action]) -> Digest {
    Digest::of("unrendered", &actions.iter().map(render::model).collect())
}

/// The same for the same node and attempt, so that a plan does not change from one look to the next.
pub(super) fn jitter(node: &str, attempt: u32) -> u8 {
    Sha256::digest(format!("{node} {attempt}").as_bytes())[0]
}
