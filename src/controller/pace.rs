//! How often the status of one object is written, and when it is reconciled again after a failure.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Two writes of one status lie at least this far apart, unless a condition has changed.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// The pause after the first failure; it doubles with each further one in a row, up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When an object was written last, and how often its reconcile failed in a row.
#[derive(Debug, Default)]
pub(super) struct Pace {
    wrote: Option<Instant>,
    failures: u32,
}

impl Pace {
    /// How long a write is put off, so that counts that move cost a write a second at the most. Nothing where it is done now,
    /// as one that is urgent is.
    pub(super) fn write(&mut self, urgent: bool, now: Instant) -> Option<Duration> {
        let passed = self.wrote.and_then(|wrote| BETWEEN_WRITES.checked_sub(now.saturating_duration_since(wrote)));
        let rest = passed.filter(|rest| !rest.is_zero() && !urgent);
        if rest.is_none() {
            self.wrote = Some(now);
        }
        rest
    }

    /// A pass ended well.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// A pass failed. Returns when the next one follows, later each time.
    pub(super) fn fail(&mut self) -> Duration {
        let pause = (FIRST_PAUSE * (1 << self.failures.min(7))).min(LONGEST_PAUSE);
        self.failures += 1;
        pause
    }
}

/// What of conditions somebody may be waiting for: all but messages and times.
pub(super) fn essence(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
    conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_comes_too_soon_waits_and_one_that_is_urgent_does_not() {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.write(false, now), None);
        assert!(pace.write(false, now).is_some());
        assert_eq!(pace.write(true, now), None);
        assert_eq!(pace.write(false, now + BETWEEN_WRITES), None);
    }

    #[test]
    fn failures_in_a_row_are_followed_by_ever_longer_pauses() {
        let mut pace = Pace::default();
        let pauses: Vec<u64> = (0..9).map(|_| pace.fail().as_millis() as u64).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        pace.succeed();
        assert_eq!(pace.fail(), FIRST_PAUSE);
    }
}
