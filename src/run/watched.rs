//! What a session tells of its phases to those who watch the operator: lines, spans and metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::info;

use crate::telemetry::metrics::{Ended, Metrics, Run};
use pallet_api::group_node::{Outcome, PhaseResult};
use pallet_core::phase::PhaseName;
use pallet_core::session::{Session, lift};

/// The phases of one session, one after the other.
pub(super) struct Watched<'a> {
    metrics: &'a Metrics,
    flight: Option<Flight>,
    told: BTreeMap<PhaseName, Told>,
}

/// A run that is followed.
struct Flight {
    id: String,
    run: Run,
    /// It was under way before this session.
    joined: bool,
}

/// What tells one phase result of a phase from another.
#[derive(PartialEq)]
struct Told {
    run: String,
    attempt: u32,
    outcome: Outcome,
    finished: Timestamp,
}

impl From<&PhaseResult> for Told {
    fn from(phase_result: &PhaseResult) -> Self {
        let PhaseResult { run_id, attempt, outcome, finished_at, .. } = phase_result;
        Self { run: run_id.clone(), attempt: *attempt, outcome: *outcome, finished: finished_at.0 }
    }
}

impl<'a> Watched<'a> {
    /// A session that begins with this record.
    pub(super) fn new(metrics: &'a Metrics, phase_results: &BTreeMap<PhaseName, PhaseResult>) -> Self {
        let told = phase_results.iter().map(|(phase, phase_result)| (phase.clone(), phase_result.into())).collect();
        Self { metrics, flight: None, told }
    }

    /// The session has asked for what it has in flight now.
    pub(super) fn starts(&mut self, session: &Session) {
        // A look is no phase.
        if let Some(flight) = session.in_flight().filter(|_| !session.looks()) {
            let run = self.metrics.run_starts(flight.phase.as_str(), &flight.run_id, Some(flight.attempt));
            run.span.in_scope(|| info!("phase starts"));
            self.flight = Some(Flight { id: flight.run_id.clone(), run, joined: false });
        }
    }

    /// The session has joined this run, which it asked for.
    pub(super) fn joins(&mut self, id: &str) {
        // An earlier session's or an earlier operator's.
        if let Some(flight) = self.flight.as_mut().filter(|flight| flight.id == id) {
            flight.joined = true;
            return;
        }
        let phase = lift::phase_of(id.rsplit_once('-').map_or("", |(phase, _)| phase));
        let run = self.metrics.run_starts(phase, id, None);
        run.span.in_scope(|| info!("reattached to a running phase"));
        self.flight = Some(Flight { id: id.to_owned(), run, joined: true });
    }

    /// The session knows this now. Each new phase result is told, also of what ran nothing on the node.
    pub(super) fn learns(&mut self, phase_results: &BTreeMap<PhaseName, PhaseResult>) {
        for (phase, phase_result) in phase_results {
            let now = Told::from(phase_result);
            let before = self.told.get(phase);
            if before == Some(&now) {
                continue;
            }
            // An attempt that never started is taken back: the phase result is that of the one before.
            let news = before.is_none_or(|before| before.run != now.run || before.attempt <= now.attempt);
            self.told.insert(phase.clone(), now);
            let outcome = match phase_result.outcome {
                Outcome::Succeeded => "succeeded",
                Outcome::Failed => "failed",
                Outcome::TimedOut => "timed_out",
                Outcome::Waiting => "waiting",
                Outcome::Unknown | Outcome::Interrupted => continue,
            };
            if news {
                let flight = self.flight.take_if(|flight| flight.id == phase_result.run_id);
                let joined = flight.as_ref().is_none_or(|flight| flight.joined);
                self.metrics.run_ended(
                    flight.map(|flight| flight.run),
                    &Ended { phase: phase.as_str(), outcome, phase_result, joined },
                );
            }
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(flight) = &self.flight {
            flight.run.span.record("outcome", "lost");
            flight.run.span.in_scope(|| info!("connection lost during phase; will reattach"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn phase_result(run_id: &str, attempt: u32, outcome: Outcome, finished: i64) -> PhaseResult {
        let time = |second| Timestamp::from_second(second).unwrap().to_string();
        let phase_result = json!({
            "phase": "configure", "digest": "d", "runId": run_id, "attempt": attempt, "outcome": outcome,
            "startedAt": time(100), "finishedAt": time(finished)
        });
        serde_json::from_value(phase_result).unwrap()
    }

    fn record(phase_result: PhaseResult) -> BTreeMap<PhaseName, PhaseResult> {
        [(PhaseName::configure(), phase_result)].into()
    }

    fn counted(metrics: &Metrics, outcome: &str) -> usize {
        let series = format!(r#"pallet_phase_duration_seconds_count{{phase="configure",outcome="{outcome}"}} "#);
        metrics.text().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
    }

    #[test]
    fn each_receipt_is_told_once_and_what_was_known_before_never() {
        let metrics = Metrics::default();
        let mut watched = Watched::new(&metrics, &record(phase_result("a", 1, Outcome::Failed, 110)));
        watched.learns(&record(phase_result("a", 1, Outcome::Failed, 110)));
        assert_eq!(counted(&metrics, "failed"), 0);
        for _ in 0..2 {
            watched.learns(&record(phase_result("b", 2, Outcome::Failed, 120)));
        }
        assert_eq!(counted(&metrics, "failed"), 1);
        watched.learns(&record(phase_result("c", 3, Outcome::TimedOut, 130)));
        assert_eq!(counted(&metrics, "timed_out"), 1);
        // Nothing runs for settings without facts or for test: their phase results have no run, but a time.
        watched.learns(&record(phase_result("", 1, Outcome::Succeeded, 140)));
        watched.learns(&record(phase_result("", 1, Outcome::Succeeded, 141)));
        assert_eq!(counted(&metrics, "succeeded"), 2);
    }

    #[test]
    fn a_run_that_was_lost_counts_when_its_end_is_heard_of_and_one_that_never_started_does_not() {
        let metrics = Metrics::default();
        let lost = record(phase_result("a", 2, Outcome::Unknown, 150));
        let mut watched = Watched::new(&metrics, &lost);
        // The node's clock has whole seconds: it may have ended before it was lost.
        watched.learns(&record(phase_result("a", 2, Outcome::Succeeded, 149)));
        assert_eq!(counted(&metrics, "succeeded"), 1);
        let mut watched = Watched::new(&metrics, &lost);
        watched.learns(&record(phase_result("a", 1, Outcome::Failed, 150)));
        watched.learns(&record(phase_result("b", 2, Outcome::Unknown, 160)));
        assert_eq!((counted(&metrics, "succeeded"), counted(&metrics, "failed")), (1, 0));
    }
}
