//! Pure: one session on one node, from the first word to the last: what to ask next, and what to make of the answer.
//!
//! A session first learns which incarnation it speaks to and what the journal holds, and settles what was lost from sight.
//! Then it asks [`next::next`] between any two phases, with the newest spec. It reads no clock and moves no bytes.

pub mod agent;
mod check;
pub mod frame;
mod journal;
pub mod lift;
pub mod mask;
pub mod memory;
mod results;
pub mod secrets;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    facts,
    group::Group,
    phase::{Digest, PhaseName, compile, run_id, secret},
    plan::{
        Bound, LiftRun, Purpose, Record, SessionKind,
        next::{self, Identity, Next},
    },
    text,
};
use pallet_api::reason::Reason;
use pallet_api::{
    conditions::clip,
    group_node::{Outcome, PhaseResult, Running},
};

use check::Check;
use frame::{Frame, OUTPUT_LIMIT, Past};
use lift::Aside;
use mask::{Cut, Mask};
use secrets::KnownSecrets;

/// No phase may run longer; the schema says so.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A session.
#[derive(Debug)]
pub struct Session {
    group: Arc<Group>,
    identity: Identity,
    incarnation: Meant,
    nonce: String,
    purpose: Purpose,
    record: Record,
    stage: Stage,
    /// At most [`MOST_PASTS`].
    pasts: Vec<Past>,
    /// How often another run held the node.
    busy: u32,
    /// Every run of the journal that no phase result spoke of was taken over.
    caught_up: bool,
    /// The built-in facts were read in this session.
    read: bool,
    /// Settings has run in this session.
    gathered: bool,
    /// What is known of the facts since anything ran that may have changed them.
    view: View,
    /// How often settings was run.
    readings: u32,
    /// How often each phase ran in this session under the present spec.
    ran: BTreeMap<PhaseName, u32>,
    /// The secrets that its phases may need, and what takes them out of what the node says.
    known: KnownSecrets,
    mask: Mask,
    /// What it has found, where it only looks.
    check: Check,
    /// What it puts aside of the node's record, where it is for a Lift.
    aside: Option<Aside>,
}

/// How much of the facts was read since anything ran.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum View {
    /// Nothing.
    Old,
    /// The built-in ones.
    BuiltIn,
    /// All, by settings.
    Whole,
}

/// The most runs that a node may list. The journal keeps 33 at the most.
const MOST_PASTS: usize = 64;

/// How often other runs may hold the node in one session. Each is waited for.
const MOST_BUSY: u32 = 64;

/// A phase that its own effects make another one runs so often in one session.
const RUNS_IN_A_SESSION: u32 = 3;

#[derive(Debug)]
enum Stage {
    Hello,
    Facts,
    /// Runs that somebody started are waited for, in this order.
    Attaching(Vec<String>),
    Running(InFlight),
    Over,
}

impl Stage {
    /// What was asked for last, for messages.
    fn request(&self) -> &'static str {
        match self {
            Self::Hello => "\"hello\"",
            Self::Facts => "\"facts\"",
            Self::Attaching(_) => "\"attach\"",
            Self::Running(_) => "\"run\"",
            Self::Over => "anything: the session is over",
        }
    }
}

/// A run that this session asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// Its phase.
    pub phase: PhaseName,
    /// What is run.
    pub digest: Digest,
    /// The run.
    pub run_id: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// When it was asked for.
    pub started: Timestamp,
    /// How long it may take.
    pub timeout: Duration,
    /// The retry token that it counts under.
    pub retry_token: String,
    /// The place of its first action in the phase.
    pub from: u32,
}

/// What is sent for a run.
struct Script {
    text: String,
    /// What the script reads from stdin; never on the node's disk.
    secrets: String,
    /// The place of its first action in the phase.
    from: u32,
}

/// What a session wants after an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// To wait for the next frame.
    Wait,
    /// To send these bytes.
    Send(Vec<u8>),
    /// To end.
    End(End),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing is due now: all is done, or a failed phase waits or has halted.
    Done,
    /// It was told not to go on.
    Stopped,
    /// The agent would not go on.
    Refused {
        /// One CamelCase word.
        reason: String,
        /// For people.
        message: String,
    },
    /// A phase makes itself another one each time that it runs.
    NotIdempotent {
        /// Over what it depends on: what makes another one of it may mend it.
        about: Digest,
        /// For people.
        message: String,
    },
    /// The connection was lost.
    Lost(String),
}

/// What a session means to speak to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Meant {
    /// The UID of what backs the node.
    pub uid: String,
    /// Its instance.
    pub instance: String,
    /// For whom the agent shall take us: the UID of its pod, and it refuses the work of another one, with a word for this life of its
    /// container behind it where the containers of the pod share their processes; or, on a machine, which has
    /// none, `@` and the UID of the GroupNode. What other nodes did there, as which it was taken before, is nothing to this one.
    pub told: String,
}

impl Meant {
    fn hello(&self, nonce: &str) -> String {
        format!("hello {nonce} {}\n", self.told)
    }
}

impl Session {
    /// Whether the run in flight only looks.
    pub fn looks(&self) -> bool {
        self.in_flight().is_some_and(|flight| check::is_one(flight.phase.as_str()))
    }

    /// Begins a session. Returns it with the first bytes to send.
    ///
    /// `nonce` must come from the operating system's generator.
    pub fn open(
        group: Arc<Group>,
        identity: Identity,
        incarnation: Meant,
        mut record: Record,
        purpose: Purpose,
        nonce: String,
        known: KnownSecrets,
    ) -> (Self, Vec<u8>) {
        let agent = agent::script();
        let greeting =
            format!("{} {}\n{agent}{}", agent.len(), incarnation.told, incarnation.hello(&nonce)).into_bytes();
        let stage = Stage::Hello;
        let aside = match &purpose {
            Purpose::Lift(run) => Some(Aside::take(run, &mut record)),
            _ => None,
        };
        let session = Self {
            group: known.seen_by(&group),
            identity,
            incarnation,
            nonce,
            purpose,
            record,
            stage,
            pasts: Vec::new(),
            busy: 0,
            caught_up: false,
            read: false,
            gathered: false,
            view: View::Old,
            readings: 0,
            ran: BTreeMap::new(),
            mask: known.mask(),
            known,
            check: Check::default(),
            aside,
        };
        (session, greeting)
    }

    /// Takes over a newer spec and how far the node may go, from the next phase on.
    pub fn direct(&mut self, group: Arc<Group>, retry_token: String, bound: Bound) {
        let same =
            self.group.phases == group.phases && self.group.inputs == group.inputs && self.group.chosen == group.chosen;
        if !same {
            self.ran.clear();
        }
        self.group = self.known.seen_by(&group);
        self.identity.retry_token = retry_token;
        match &mut self.purpose {
            Purpose::Converge(old) | Purpose::Lift(LiftRun { bound: old, .. }) => *old = bound,
            Purpose::Farewell | Purpose::Check => {}
        }
    }

    /// Whether it runs destroy-server, and not what converge asks for.
    pub fn is_farewell(&self) -> bool {
        self.purpose == Purpose::Farewell
    }

    /// What it is for, as far as the plan has to know.
    pub fn kind(&self) -> SessionKind {
        self.purpose.kind()
    }

    /// What an agent is greeted with that stands on the node already.
    pub fn hello(&self) -> Vec<u8> {
        self.incarnation.hello(&self.nonce).into_bytes()
    }

    /// What it means to speak to.
    pub fn incarnation(&self) -> &Meant {
        &self.incarnation
    }

    /// Whether another session may follow soon: not where the node goes, or was only looked at.
    pub fn leaves_warm(&self) -> bool {
        matches!(self.kind(), SessionKind::Converge | SessionKind::Lift)
    }

    /// The phase results of the phases that it is at: the node's, or those of its Lift.
    pub fn phase_results(&self) -> &BTreeMap<PhaseName, PhaseResult> {
        &self.record.phase_results
    }

    /// What leads the agent's replies.
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether it has taken over all that converge has left in the journal. A Lift's session has not: it takes its own runs over.
    pub fn has_caught_up(&self) -> bool {
        self.caught_up && self.kind() != SessionKind::Lift
    }

    /// The run in flight.
    pub fn in_flight(&self) -> Option<&InFlight> {
        match &self.stage {
            Stage::Running(flight) => Some(flight),
            _ => None,
        }
    }

    /// The run in flight, as a status shows it.
    pub fn running(&self) -> Option<Running> {
        self.in_flight().filter(|_| self.purpose != Purpose::Check).map(|flight| Running {
            phase: flight.phase.to_string(),
            run_id: flight.run_id.clone(),
            attempt: flight.attempt,
            started_at: Time(flight.started),
        })
    }

    /// How long the present stage may take in all. The agent ends a run at its deadline by itself; beyond that lies grace.
    pub fn patience(&self) -> Duration {
        const GRACE: Duration = Duration::from_secs(60);
        match &self.stage {
            Stage::Running(flight) => flight.timeout + GRACE,
            // Started by somebody under a timeout that we do not know; a dead node is noticed by its silence.
            Stage::Attaching(_) => LONGEST_TIMEOUT + GRACE,
            _ => GRACE,
        }
    }

    /// The node does not keep to the protocol. A run that may have started is from now on one whose outcome nobody knows.
    pub fn fail(&mut self, message: &str, now: Timestamp) -> End {
        let message = match self.lose(message, now) {
            End::Lost(message) => message,
            _ => message.to_owned(),
        };
        End::Refused { reason: Reason::AgentFailed.into(), message }
    }

    /// The connection is gone. A run that may have started is from now on one whose outcome nobody knows.
    pub fn lose(&mut self, message: &str, now: Timestamp) -> End {
        let message = self.masked(&text::printable(message), Cut::default());
        if let Stage::Running(flight) = std::mem::replace(&mut self.stage, Stage::Over)
            && self.purpose != Purpose::Check
        {
            let phase_result = PhaseResult {
                outcome: Outcome::Unknown,
                retry_token: flight.retry_token.clone(),
                message: clip(&format!("connection lost while the phase ran: {message}"), 1024),
                finished_at: Time(now),
                from: flight.from,
                interruptions: self.interruptions(&flight),
                actions: self.done_before(&flight.phase, flight.digest.as_str(), flight.from),
                ..self.blank(&flight.phase, &flight.digest, flight.attempt, &flight.run_id, flight.started)
            };
            self.warn_converge(&flight.phase, flight.digest.as_str());
            self.record.phase_results.insert(flight.phase, phase_result);
        }
        End::Lost(message)
    }

    /// Takes in one reply. Whatever text of it the session keeps or passes on is masked.
    pub fn hear(&mut self, mut frame: Frame, now: Timestamp) -> Want {
        self.mask(&mut frame);
        match (frame, &mut self.stage) {
            (Frame::Beat, _) => Want::Wait,
            (Frame::Started(id) | Frame::Attached(id), Stage::Running(flight)) if flight.run_id == id => Want::Wait,
            (Frame::Attached(id), Stage::Attaching(open)) if open.first() == Some(&id) => Want::Wait,
            (Frame::Refused { reason, message }, _) => self.refused(&reason, message),
            (Frame::Hello { filesystem_id }, Stage::Hello) => {
                self.meet(filesystem_id);
                Want::Wait
            }
            (Frame::Past(_), Stage::Hello) if self.pasts.len() >= MOST_PASTS => {
                let message = format!("the agent listed more than {MOST_PASTS} runs; its journal keeps 33 at the most");
                Want::End(self.fail(&message, now))
            }
            (Frame::Past(past), Stage::Hello) => {
                self.pasts.push(past);
                Want::Wait
            }
            (Frame::Ready, Stage::Hello) => {
                if self.awaits_bootstrap() {
                    return self.over(End::Stopped);
                }
                let open = self.unsettled();
                self.attach_or(open, now)
            }
            (Frame::Facts(payload), Stage::Facts) => {
                let own = std::mem::take(&mut self.record.facts);
                let built_in = facts::parse_built_in(&payload).into_iter();
                let mut facts: facts::Facts = built_in.map(|(name, value)| (name, self.mask.value(value))).collect();
                facts.extend(own.into_iter().filter(|(name, _)| !facts::is_reserved(name)));
                self.record.facts = facts;
                (self.read, self.view) = (true, View::BuiltIn);
                self.advance(now)
            }
            (Frame::Ended(ended), Stage::Attaching(open)) if open.first() == Some(&ended.run_id) => {
                let rest = open.iter().filter(|id| **id != ended.run_id).cloned().collect();
                self.settle(&ended, now);
                self.attach_or(rest, now)
            }
            (Frame::Absent(id), Stage::Attaching(open)) if open.first() == Some(&id) => {
                let rest = open.iter().filter(|open| **open != id).cloned().collect();
                self.never_started(&id);
                self.attach_or(rest, now)
            }
            // What watches over a run was killed before the script started: nothing has happened, and it is tried again.
            (Frame::Absent(id), Stage::Running(flight)) if flight.run_id == id => {
                self.stage = Stage::Over;
                let message = "the run was killed on the node before its script started".to_owned();
                Want::End(End::Refused { reason: Reason::NeverStarted.into(), message })
            }
            (Frame::Busy(_), Stage::Running(_)) if self.busy >= MOST_BUSY => {
                let message = format!("the agent said {MOST_BUSY} times that another run holds the node");
                Want::End(self.fail(&message, now))
            }
            (Frame::Busy(holder), Stage::Running(_)) => {
                self.busy += 1;
                self.attach_or(vec![holder], now)
            }
            (Frame::Ended(ended), Stage::Running(flight))
                if flight.run_id == ended.run_id && check::is_one(&ended.phase) =>
            {
                match self.kind() {
                    SessionKind::Lift => self.foreseen(&ended, now),
                    _ => self.checked(&ended),
                }
                self.advance(now)
            }
            (Frame::Ended(ended), Stage::Running(flight)) if flight.run_id == ended.run_id => {
                if flight.phase != PhaseName::settings() {
                    self.view = View::Old;
                    *self.ran.entry(flight.phase.clone()).or_default() += 1;
                }
                self.settle(&ended, now);
                self.advance(now)
            }
            (frame, stage) => {
                let message = format!("the agent sent {:?}, which does not answer {}", frame.kind(), stage.request());
                Want::End(self.lose(&message, now))
            }
        }
    }

    fn refused(&mut self, reason: &str, message: String) -> Want {
        self.stage = Stage::Over;
        let reason = match reason {
            "incarnation" => Reason::PodReplaced.as_str(),
            "state" => Reason::NoStateDirectory.as_str(),
            "tools" => Reason::ToolMissing.as_str(),
            "disk" => Reason::DiskFull.as_str(),
            "foreign" => Reason::RunInProgress.as_str(),
            _ => Reason::AgentRefused.as_str(),
        };
        Want::End(End::Refused { reason: reason.into(), message })
    }

    /// What is due next, with the newest spec.
    fn advance(&mut self, now: Timestamp) -> Want {
        loop {
            if let Some(outcome) = self.ends_as() {
                self.conclude(outcome);
                return self.over(End::Done);
            }
            if *self.bound() == Bound::Hold {
                return self.over(End::Stopped);
            }
            match &self.purpose {
                Purpose::Check => return self.look(now),
                Purpose::Lift(run) if now >= run.deadline => return self.over(End::Stopped),
                Purpose::Lift(run) if run.dry_run => return self.rehearse(now),
                _ => {}
            }
            if !self.read && self.record.facts.is_empty() {
                return self.ask_facts();
            }
            let due = match &self.purpose {
                Purpose::Farewell => next::farewell(&self.group, &self.identity, &self.record, now),
                Purpose::Check => Next::Settled,
                Purpose::Converge(bound) | Purpose::Lift(LiftRun { bound, .. }) => {
                    let due = next::next(&self.group, &self.identity, &self.record, now);
                    if due.phase().is_some_and(|phase| !bound.allows(&self.group, &phase)) {
                        return self.over(End::Done);
                    }
                    due
                }
            };
            let ready = |phase: &PhaseName| self.gathered || *phase == PhaseName::bootstrap();
            match due {
                Next::Wait { .. }
                | Next::Held { .. }
                | Next::Manual { .. }
                | Next::Backoff { .. }
                | Next::Halt { .. }
                | Next::Settled => {
                    self.conclude_by(&due);
                    return self.over(End::Done);
                }
                _ if !self.read => return self.ask_facts(),
                Next::Run { rendered, .. } if self.ran.get(&rendered.phase) >= Some(&RUNS_IN_A_SESSION) => {
                    return self.over(End::NotIdempotent {
                        about: self.group.fingerprint(&next::retry_token(&self.group, &self.identity)),
                        message: format!(
                            "{} changes facts that it uses itself each time it runs; let it use others",
                            rendered.phase
                        ),
                    });
                }
                Next::Run { rendered, from, attempt, previous, .. } if ready(&rendered.phase) => {
                    let places = compile::secrets(&rendered);
                    // One that was named since the session began is read by the next one.
                    let Some(secrets) = secret::payload(&places, &self.known.values) else {
                        return self.over(End::Stopped);
                    };
                    let phase = rendered.phase.clone();
                    let rendered = match &self.purpose {
                        Purpose::Lift(run) => lift::marked(run, *rendered),
                        _ => *rendered,
                    };
                    let script = Script { text: compile::phase(&rendered, from as usize), secrets, from };
                    return self.run(phase, rendered.digest, attempt, &previous, &script, now);
                }
                Next::Test { digest, look, attempt, .. } if self.view == View::Whole => {
                    let phase_result = self.examine(&digest, attempt, &look, now);
                    self.record.phase_results.insert(PhaseName::test(), phase_result);
                }
                Next::Unrenderable { phase, digest, attempt, error } if ready(&phase) => {
                    // It stands behind the last run of its phase in the journal, though it never ran itself.
                    let previous = self.record.phase_results.get(&phase).map(|r| r.run_id.clone()).unwrap_or_default();
                    let phase_result = PhaseResult {
                        outcome: Outcome::Failed,
                        message: clip(&error.to_string(), 1024),
                        ..self.blank(&phase, &digest, attempt, &previous, now)
                    };
                    self.record.phase_results.insert(phase, phase_result);
                }
                due => {
                    let attempt = if let Next::Gather { attempt, .. } = due { attempt } else { 1 };
                    if let Some(want) = self.gather(attempt, now) {
                        return want;
                    }
                }
            }
        }
    }

    fn ask_facts(&mut self) -> Want {
        self.stage = Stage::Facts;
        Want::Send(b"facts\n".to_vec())
    }

    /// Settings, once in a session and before every phase but bootstrap. Without facts of the group's own there is nothing
    /// to run for it.
    fn gather(&mut self, attempt: u32, now: Timestamp) -> Option<Want> {
        if self.view == View::Old {
            return Some(self.ask_facts());
        }
        let phase = PhaseName::settings();
        let digest = self.group.phases.settings.digest.clone();
        if self.group.phases.settings.facts.is_empty() {
            self.record.facts.retain(|name, _| facts::is_reserved(name));
            let phase_result = self.blank(&phase, &digest, attempt, "", now);
            let phase_result = self.with_values(phase_result);
            self.settings_are_over();
            self.record.phase_results.insert(phase, phase_result);
            return None;
        }
        let script =
            Script { text: compile::settings(&self.group.phases.settings.facts), secrets: String::new(), from: 0 };
        // Every reading is a run of its own.
        self.readings += 1;
        let salt = format!("{} {}", self.nonce, self.readings);
        Some(self.run(phase, digest, attempt, &salt, &script, now))
    }

    /// A farewell goes on whatever came of settings.
    fn settings_are_over(&mut self) {
        self.gathered |= self.is_farewell();
    }

    fn run(
        &mut self,
        phase: PhaseName,
        digest: Digest,
        attempt: u32,
        previous: &str,
        script: &Script,
        now: Timestamp,
    ) -> Want {
        let filesystem_id = self.record.incarnation.as_ref().map(|i| i.filesystem_id.as_str()).unwrap_or_default();
        let (journalled, mut timeout) = (self.journalled(&phase), self.group.timeout);
        let run_id = match &self.purpose {
            Purpose::Lift(lift) => {
                let left = Duration::try_from(lift.deadline.duration_since(now)).unwrap_or_default();
                timeout = timeout.min(left.max(Duration::from_secs(1)));
                run_id(filesystem_id, &journalled, &digest, attempt, &format!("{} {previous}", lift.uid))
            }
            _ => run_id(filesystem_id, &journalled, &digest, attempt, previous),
        };
        let seconds = timeout.as_secs_f64().ceil() as u64;
        let shown = if digest.as_str().is_empty() { "-" } else { digest.as_str() };
        let Script { text, secrets, from } = script;
        let seal = if secrets.is_empty() { "-".to_owned() } else { self.known.seal() };
        let (length, beside) = (text.len(), secrets.len());
        let request = format!(
            "run {run_id} {seconds} {length} {journalled} {attempt} {shown} {beside} {seal} {from} {}\n{text}{secrets}",
            now.as_second()
        );
        let (from, retry_token) = (*from, next::retry_token(&self.group, &self.identity));
        self.stage =
            Stage::Running(InFlight { phase, digest, run_id, from, attempt, started: now, timeout, retry_token });
        Want::Send(request.into_bytes())
    }

    /// A text of the node or of its connection without the secrets.
    pub fn masked(&self, text: &str, cut: Cut) -> String {
        self.mask.mask(text, cut)
    }

    /// Removes the secrets from what the node says, but for facts, which are masked when they are read. Where a run was given
    /// others than this session knows, nothing of its output is kept: it is in the node's journal.
    fn mask(&self, frame: &mut Frame) {
        if let Frame::Refused { reason, message } = frame {
            (*reason, *message) = (self.masked(reason, Cut::default()), self.masked(message, Cut::default()));
        }
        let Frame::Ended(ended) = frame else { return };
        if ended.seal != "-" && ended.seal != self.known.seal() {
            ended.output =
                "(withheld: it was run with secrets that have changed since; see the journal on the node)".to_owned();
            ended.actions.iter_mut().for_each(|action| action.diff.clear());
            return;
        }
        // No more than the last of it was sent.
        let cut = ended.output_bytes > OUTPUT_LIMIT as i64;
        ended.output = self.mask.mask(&ended.output, Cut { beginning: cut, end: false });
        for action in &mut ended.actions {
            action.diff = self.mask.mask(&action.diff, Cut { beginning: false, end: true });
        }
    }

    fn over(&mut self, end: End) -> Want {
        self.stage = Stage::Over;
        Want::End(end)
    }
}

#[cfg(test)]
mod tests;
