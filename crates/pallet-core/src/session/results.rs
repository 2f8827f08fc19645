//! Pure: what a session makes of what has ended: phase results.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{InFlight, Session, View};
use crate::{
    facts,
    group::resolve::MOST_ACTIONS,
    phase::{Digest, PhaseName, expect::Finding},
    plan::next,
    session::{
        frame::{Ended, Verdict},
        mask::Cut,
    },
};
use pallet_api::{
    conditions::clip,
    group_node::{ActionResult, Effect, Outcome, PhaseResult},
};

/// How many phase results a status holds; the schema says so. There are fewer phases.
pub(super) const PHASE_RESULTS: usize = 24;

impl Session {
    /// Compares the facts with what is expected of them. Nothing runs for that.
    pub(super) fn examine(&self, digest: &Digest, attempt: u32, look: &str, now: Timestamp) -> PhaseResult {
        let findings = next::examine(&self.group, &self.identity, &self.record);
        let failures: Vec<String> =
            findings.iter().filter_map(|f| Some(format!("{}: {}", f.name, f.failure.as_ref()?))).collect();
        let result = |finding: &Finding| ActionResult {
            name: finding.name.clone(),
            result: if finding.failure.is_some() { Effect::Failed } else { Effect::Unchanged },
            diff: String::new(),
        };
        PhaseResult {
            outcome: if failures.is_empty() { Outcome::Succeeded } else { Outcome::Failed },
            actions: findings.iter().map(result).collect(),
            message: clip(&failures.join("; "), 1024),
            ..self.blank(&PhaseName::test(), digest, attempt, look, now)
        }
    }

    /// Settings has succeeded when its values can be filled in, too.
    pub(super) fn with_values(&mut self, phase_result: PhaseResult) -> PhaseResult {
        match next::values(&self.group, &self.identity, &self.record) {
            Err(error) if !error.waits() => {
                PhaseResult { outcome: Outcome::Failed, message: clip(&error.to_string(), 1024), ..phase_result }
            }
            _ => {
                (self.gathered, self.view) = (true, View::Whole);
                phase_result
            }
        }
    }

    /// A successful phase result with nothing to show.
    pub(super) fn blank(
        &self,
        phase: &PhaseName,
        digest: &Digest,
        attempt: u32,
        run_id: &str,
        started: Timestamp,
    ) -> PhaseResult {
        PhaseResult {
            phase: phase.to_string(),
            digest: digest.to_string(),
            run_id: run_id.to_owned(),
            attempt,
            outcome: Outcome::Succeeded,
            interruptions: 0,
            exit_code: None,
            started_at: Time(started),
            finished_at: Time(started),
            actions: Vec::new(),
            from: 0,
            output: String::new(),
            output_bytes: 0,
            message: String::new(),
            overridden_by: String::new(),
            retry_token: next::retry_token(&self.group, &self.identity),
        }
    }

    /// Makes a phase result of what the journal says. Its times are those of the operator that started the run, as far as it is known
    /// here, and never the future.
    pub(super) fn settle(&mut self, ended: &Ended, now: Timestamp) {
        let asked = self.in_flight().filter(|flight| flight.run_id == ended.run_id).cloned();
        // Somebody else's look at the node, or its settings, whose facts may be old by now.
        let Some(phase) = asked.as_ref().map(|flight| flight.phase.clone()).or_else(|| self.own(&ended.phase)) else {
            return;
        };
        let is_settings = phase == PhaseName::settings();
        let clamp = |seconds: i64| Timestamp::from_second(seconds).map_or(now, |time| time.min(now));
        let (started, finished) = ended.times.map_or((now, now), |(began, end)| (clamp(began), clamp(end)));
        // A run counts under the token that it was started under; an annotation that came later is for the next.
        // One that somebody else started for a further attempt did so under the token of the attempt before.
        let same = |phase_result: &&PhaseResult| {
            let next =
                phase_result.attempt.checked_add(1) == Some(ended.attempt) && phase_result.digest == ended.digest;
            phase_result.run_id == ended.run_id || next
        };
        let known = self.record.phase_results.get(&phase).filter(same);
        let retry_token = asked.as_ref().map(|flight| flight.retry_token.clone());
        let retry_token = retry_token.or_else(|| known.map(|phase_result| phase_result.retry_token.clone()));
        let started = asked.map_or(started, |flight| flight.started);
        let digest = if ended.digest == "-" { "" } else { &ended.digest };
        let failed =
            ended.actions.iter().find(|action| action.result == Effect::Failed).map(|action| action.name.as_str());
        let at = failed.map(|name| format!("action {name} ")).unwrap_or_default();
        let (outcome, exit_code, message) = match ended.verdict {
            Verdict::Exit(0) => match ended.actions.last().filter(|action| action.result == Effect::Waiting) {
                Some(step) => {
                    // What is to be done is the last that was printed.
                    let said = ended.output.lines().rev().find(|line| !line.trim().is_empty());
                    let said = said.map(|line| format!(": {}", clip(line.trim(), 512))).unwrap_or_default();
                    (Outcome::Waiting, None, format!("it waits at {}{said}", step.name))
                }
                None => (Outcome::Succeeded, None, String::new()),
            },
            Verdict::Exit(code) => (Outcome::Failed, Some(code), format!("{at}failed with exit code {code}")),
            Verdict::TimedOut => (Outcome::TimedOut, None, "the deadline passed; its processes were ended".into()),
            Verdict::Cancelled => (Outcome::Failed, None, "it was cancelled; its processes were ended".into()),
            Verdict::Died => {
                (Outcome::Failed, None, "it was killed on the node together with what watched over it".into())
            }
        };
        let mut phase_result = PhaseResult {
            outcome,
            exit_code,
            finished_at: Time(finished.max(started)),
            from: ended.from,
            actions: self
                .done_before(&phase, digest, ended.from)
                .into_iter()
                .chain(ended.actions.clone())
                .take(MOST_ACTIONS)
                .collect(),
            output: ended.output.clone(),
            output_bytes: ended.output_bytes,
            message: clip(&message, 1024),
            ..self.blank(&phase, &Digest::stored(digest), ended.attempt, &ended.run_id, started)
        };
        // Of one that no phase result speaks of nobody knows: it takes nothing from the attempts that an annotation has given.
        phase_result.retry_token = retry_token.unwrap_or_default();
        if is_settings && outcome == Outcome::Succeeded {
            phase_result = match facts::parse_own(&ended.facts, &self.group.phases.settings.facts, |text| {
                self.mask.mask(text, Cut::default())
            }) {
                Ok(own) => {
                    self.record.facts.retain(|name, _| facts::is_reserved(name));
                    self.record.facts.extend(own.into_iter().map(|(name, value)| (name, self.mask.value(value))));
                    self.with_values(phase_result)
                }
                Err(message) => PhaseResult { outcome: Outcome::Failed, message: clip(&message, 1024), ..phase_result },
            };
        }
        if is_settings {
            self.settings_are_over();
        }
        self.tell_converge(&phase, &phase_result);
        self.record.phase_results.insert(phase, phase_result);
        self.forget_the_undeclared();
    }

    /// How often in a row the attempt in flight was interrupted before.
    pub(super) fn interruptions(&self, flight: &InFlight) -> u32 {
        let known = self.record.phase_results.get(&flight.phase).filter(|phase_result| {
            phase_result.outcome == Outcome::Interrupted
                && phase_result.digest == flight.digest.as_str()
                && phase_result.retry_token == flight.retry_token
        });
        known.map_or(0, |phase_result| phase_result.interruptions)
    }

    /// What runs of a phase did that waited at manual steps before this one.
    pub(super) fn done_before(&self, phase: &PhaseName, digest: &str, from: u32) -> Vec<ActionResult> {
        let known = self.record.phase_results.get(phase).filter(|phase_result| phase_result.digest == digest);
        let mut done: Vec<ActionResult> = known
            .map(|phase_result| phase_result.actions.iter().take(from as usize).cloned().collect())
            .unwrap_or_default();
        for step in done.iter_mut().filter(|action| action.result == Effect::Waiting) {
            step.result = Effect::Changed;
        }
        done
    }

    /// PhaseResults of phases that are declared no more go when there are more than a status holds, the oldest first.
    pub(super) fn forget_the_undeclared(&mut self) {
        while self.record.phase_results.len() > PHASE_RESULTS {
            let undeclared = self.record.phase_results.iter().filter(|(phase, _)| !self.group.phases.knows(phase));
            let oldest =
                undeclared.min_by_key(|(_, phase_result)| phase_result.finished_at.0).map(|(phase, _)| phase.clone());
            let Some(oldest) = oldest else { return };
            self.record.phase_results.remove(&oldest);
        }
    }
}
