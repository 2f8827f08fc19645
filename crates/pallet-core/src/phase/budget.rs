//! Pure: how much work conditions, expectations and templates may take. The operator evaluates those of all tenants.
//!
//! Work is counted in units of about 10 ns: a byte that is copied or compared is one, a step or an item is [`STEP`].

use pallet_api::reason::Reason;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The reason of what was cut, as conditions have it. Messages of what was cut begin with it.
pub const REASON: Reason = Reason::TooMuchWork;

/// What one step of an evaluation costs, or one item of a list or map beside its text.
pub(super) const STEP: u64 = 32;

/// The work that one scope may take in all: resolving a group, or rendering one phase for one node.
///
/// Clones share what is left.
///
/// # Guarantees
/// What is taken never exceeds what the budget was made with. Every evaluation besides has a limit of its own.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicU64>);

impl Budget {
    /// The units of one scope: about a second of CPU time, and more than all texts of the longest phase cost.
    pub const SCOPE: u64 = 128 << 20;

    /// A budget of [`Budget::SCOPE`] units.
    pub fn new() -> Self {
        Self::of(Self::SCOPE)
    }

    /// A budget of so many units.
    pub fn of(units: u64) -> Self {
        Self(Arc::new(AtomicU64::new(units)))
    }

    /// How many units are left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes units for work that has a limit of its own.
    ///
    /// # Errors
    /// Fewer are left; then none are left.
    pub fn take(&self, units: u64) -> Result<(), TooMuch> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(units)));
        match taken {
            Ok(before) if before >= units => Ok(()),
            _ => Err(TooMuch::InAll),
        }
    }

    /// The meter of one evaluation, which may take `limit` units.
    pub(super) fn meter(&self, limit: u64) -> Meter {
        let limit = limit.min(self.left());
        Meter { budget: self.clone(), state: Arc::new(State { limit, used: AtomicU64::new(0) }) }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

/// Why an evaluation was cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TooMuch {
    /// It took more than one evaluation may.
    Alone,
    /// Everything in its scope together took more than that may.
    InAll,
}

#[derive(Debug)]
struct State {
    limit: u64,
    /// More than `limit` once something could not be paid.
    used: AtomicU64,
}

/// Counts the work of one evaluation. Clones count the same one.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    budget: Budget,
    state: Arc<State>,
}

impl Meter {
    /// Whether the units could be paid. Once they could not, nothing can.
    pub(super) fn pay(&self, units: u64) -> bool {
        let used = self.state.used.load(Ordering::Relaxed).saturating_add(units);
        self.state.used.store(used, Ordering::Relaxed);
        used <= self.state.limit
    }

    /// Whether something could not be paid.
    pub(super) fn is_exhausted(&self) -> bool {
        self.state.used.load(Ordering::Relaxed) > self.state.limit
    }

    /// Units used so far.
    pub(super) fn used(&self) -> u64 {
        self.state.used.load(Ordering::Relaxed).min(self.state.limit)
    }

    /// Ends the evaluation: takes its work from the budget of the scope.
    ///
    /// # Errors
    /// Something could not be paid.
    pub(super) fn finish(self) -> Result<(), TooMuch> {
        let whole = self.state.limit >= self.budget.left();
        let exhausted = self.is_exhausted();
        self.budget.take(self.used())?;
        match (exhausted, whole) {
            (false, _) => Ok(()),
            (true, true) => Err(TooMuch::InAll),
            (true, false) => Err(TooMuch::Alone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_evaluation_has_a_limit_and_all_of_a_scope_have_one() {
        let budget = Budget::of(100);
        let meter = budget.meter(60);
        assert!(meter.pay(60) && !meter.pay(1) && !meter.pay(0));
        assert_eq!(meter.finish(), Err(TooMuch::Alone));
        assert_eq!(budget.left(), 40);
        let meter = budget.meter(60);
        assert!(meter.pay(40) && !meter.is_exhausted());
        assert_eq!(meter.finish(), Ok(()));
        let meter = budget.meter(60);
        assert!(!meter.pay(1));
        assert_eq!(meter.finish(), Err(TooMuch::InAll));
        assert_eq!(budget.clone().take(1), Err(TooMuch::InAll));
    }
}
