//! What a session tells of its runs to those who watch the operator: lines, spans and metrics.

use tracing::info;

use super::{
    frame::{Frame, Verdict},
    session::Session,
};
use crate::telemetry::metrics::{Ended, Metrics, Run};

/// The runs of one session, one after the other.
pub(super) struct Watched<'a> {
    metrics: &'a Metrics,
    flight: Option<Flight>,
}

struct Flight {
    id: String,
    run: Run,
    /// It was under way before this session.
    joined: bool,
}

impl<'a> Watched<'a> {
    pub(super) fn new(metrics: &'a Metrics) -> Self {
        Self { metrics, flight: None }
    }

    /// The session has asked for what it has in flight now.
    pub(super) fn starts(&mut self, session: &Session) {
        if let Some(flight) = session.in_flight() {
            let run = self.metrics.run_starts(flight.phase.as_str(), &flight.run_id, Some(flight.attempt));
            run.span.in_scope(|| info!("phase starts"));
            self.flight = Some(Flight { id: flight.run_id.clone(), run, joined: false });
        }
    }

    /// The node has said this.
    pub(super) fn hears(&mut self, frame: &Frame) {
        match frame {
            // An earlier session's or an earlier operator's.
            Frame::Attached(id) => match self.flight.as_mut().filter(|flight| flight.id == *id) {
                Some(flight) => flight.joined = true,
                None => {
                    let phase = id.rsplit_once('-').map_or("", |(phase, _)| phase);
                    let run = self.metrics.run_starts(phase, id, None);
                    run.span.in_scope(|| info!("phase goes on"));
                    self.flight = Some(Flight { id: id.clone(), run, joined: true });
                }
            },
            Frame::Ended(ended) => {
                let flight = self.flight.take_if(|flight| flight.id == ended.run_id);
                let joined = flight.as_ref().is_none_or(|flight| flight.joined);
                let outcome = match ended.verdict {
                    Verdict::Exit(0) => "succeeded",
                    Verdict::TimedOut => "timed_out",
                    Verdict::Exit(_) | Verdict::Cancelled | Verdict::Died => "failed",
                };
                let (phase, run, attempt, times) = (&ended.phase, &ended.run_id, ended.attempt, ended.times);
                let ended = Ended { phase, run, attempt, outcome, times, joined };
                self.metrics.run_ended(flight.map(|flight| flight.run), &ended);
            }
            _ => {}
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(flight) = &self.flight {
            flight.run.span.record("outcome", "lost");
            flight.run.span.in_scope(|| info!("phase lost from sight; it goes on and is found again"));
        }
    }
}
