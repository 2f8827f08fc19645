//! Pure: a session that looks whether a node is still as it is declared. It changes nothing there: it reads the facts, looks at
//! what test expects, and runs the checks of the phases' actions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{End, Script, Session, View, Want};
use crate::{
    phase::{PhaseName, Rerun, compile, render::Rendered, secret},
    plan::next::{self, Next},
    session::frame::{Ended, Verdict},
};
use pallet_api::{
    conditions::clip,
    group_node::{Difference, Drift, Effect},
};

/// How many differences of a node are kept, and how much of each is shown.
const KEPT: usize = 16;
const SHOWN: usize = 1024;

/// What a session that looks has found so far.
#[derive(Debug, Default)]
pub(super) struct Check {
    /// Whether the facts were compared with what test expects.
    tested: bool,
    /// How many phases of the sequence were looked at.
    pub(super) done: usize,
    /// At most [`KEPT`].
    differences: Vec<Difference>,
    /// How many more there are.
    omitted: u32,
    /// The phase that is being looked at.
    pub(super) rendered: Option<Rendered>,
    /// Whether what was looked at before would change something.
    pub(super) would: bool,
}

/// The name of a check in a node's journal. No phase can be called so.
pub(super) fn name(phase: &PhaseName) -> PhaseName {
    PhaseName::new(format!("{phase}.check"))
}

/// Whether a run is a check.
pub(super) fn is_one(phase: &str) -> bool {
    phase.ends_with(".check")
}

/// The same by the name of a run.
pub(super) fn is_look(run_id: &str) -> bool {
    run_id.rsplit_once('-').is_some_and(|(phase, _)| is_one(phase))
}

impl Session {
    /// What to look at next. Where something is due by itself, converge takes over.
    pub(super) fn look(&mut self, now: Timestamp) -> Want {
        loop {
            if !self.read {
                return self.ask_facts();
            }
            if self.view != View::Whole {
                // Something else may be due first, such as everything on a new file system.
                if !matches!(self.due(now), Next::Settled | Next::Test { .. }) {
                    return self.over(End::Done);
                }
                // Settings has failed: its further attempts are converge's, with pauses between them.
                if self.readings > 0 {
                    return self.over(End::Done);
                }
                match self.gather(1, now) {
                    Some(want) => return want,
                    None if self.view != View::Whole => return self.over(End::Done),
                    None => {}
                }
            }
            match self.due(now) {
                Next::Settled => {}
                Next::Test { digest, look, attempt, .. } if !self.check.tested => {
                    self.check.tested = true;
                    let phase_result = self.examine(&digest, attempt, &look, now);
                    self.record.phase_results.insert(PhaseName::test(), phase_result);
                    continue;
                }
                // What a test has noticed may be what a phase before it would put right.
                due if self.check.tested && due.phase() == Some(PhaseName::test()) => {}
                _ => return self.over(End::Done),
            }
            let group = self.group.clone();
            let Some(phase) = group.phases.sequence.get(self.check.done) else { return self.looked(now) };
            self.check.done += 1;
            if phase.rerun() != Rerun::PerDigest || !group.phases.actions.contains_key(phase) {
                continue;
            }
            match next::rendered(&group, &self.identity, &self.record, phase) {
                Ok(rendered) => return self.check(rendered, now),
                Err(error) => self.differs(phase, "", error.to_string()),
            }
        }
    }

    fn due(&self, now: Timestamp) -> Next {
        next::next(&self.group, &self.identity, &self.record, now)
    }

    pub(super) fn check(&mut self, rendered: Rendered, now: Timestamp) -> Want {
        let Some(secrets) = secret::payload(&compile::secrets(&rendered), &self.known.values) else {
            return self.over(End::Stopped);
        };
        let script = Script { text: compile::check(&rendered, self.check.would), secrets, from: 0 };
        let (phase, digest) = (name(&rendered.phase), rendered.digest.clone());
        self.check.rendered = Some(rendered);
        // Every look is a run of its own.
        let salt = format!("{} check", self.nonce);
        self.run(phase, digest, 1, &salt, &script, now)
    }

    /// A check has ended.
    pub(super) fn checked(&mut self, ended: &Ended) {
        let Some(rendered) = self.check.rendered.take() else { return };
        for (action, call) in ended.actions.iter().zip(&rendered.calls) {
            match action.result {
                // What a script without a guard would change cannot be told; what listens for changes follows from others.
                Effect::Changed if call.is_unguarded() || !call.after.is_empty() => {}
                Effect::Changed => {
                    let diff = if action.diff.is_empty() { "differs from what is declared" } else { &action.diff };
                    self.differs(&rendered.phase, &action.name, diff.to_owned());
                }
                Effect::Failed => {
                    let last = ended.output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
                    self.differs(&rendered.phase, &action.name, format!("it could not be looked at: {last}"));
                }
                _ => {}
            }
        }
        let failed = ended.actions.iter().any(|action| action.result == Effect::Failed);
        let whole = ended.verdict == Verdict::Exit(0) && ended.actions.len() >= rendered.calls.len();
        if !whole && !failed {
            self.differs(&rendered.phase, "", "the look at it did not come to its end".to_owned());
        }
    }

    fn differs(&mut self, phase: &PhaseName, name: &str, message: String) {
        if self.check.differences.len() >= KEPT {
            self.check.omitted += 1;
            return;
        }
        let message = clip(&message, SHOWN);
        self.check.differences.push(Difference { phase: phase.to_string(), name: name.to_owned(), message });
    }

    /// All was looked at.
    fn looked(&mut self, now: Timestamp) -> Want {
        // What converge tests is a phase like any other; what it does not is looked at here.
        if !self.group.phases.sequence.contains(&PhaseName::test()) {
            for finding in next::examine(&self.group, &self.identity, &self.record) {
                if let Some(failure) = finding.failure {
                    self.differs(&PhaseName::test(), &finding.name, failure);
                }
            }
        }
        let (differences, omitted) = (std::mem::take(&mut self.check.differences), self.check.omitted);
        self.record.drift = Some(Drift { checked_at: Time(now), differences, omitted });
        self.over(End::Done)
    }
}
