//! Pure: where an operation stands, by the status of its object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pallet_api::reason::Reason;
use pallet_api::{GroupNode, GroupSpec, Lift};

use crate::exit::Exit;

/// Where an operation stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It goes on.
    Going,
    /// Everything was done.
    Done(String),
    /// It ended otherwise.
    Failed {
        /// One CamelCase word.
        reason: String,
        /// For people.
        message: String,
        /// Its own time was over.
        late: bool,
    },
}

impl Standing {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        *self != Standing::Going
    }

    /// The exit code, where it is over. `instead` is for one whose time was over.
    pub fn exit(&self, instead: Option<u8>) -> Exit {
        match self {
            Standing::Going | Standing::Done(_) => Exit::Success,
            Standing::Failed { late: true, .. } => Exit::TimedOut(instead),
            Standing::Failed { .. } => Exit::Failed,
        }
    }
}

/// The worst of several: what failed goes before what was late.
pub fn worst(standings: &[Standing], instead: Option<u8>) -> Exit {
    let exits: Vec<Exit> = standings.iter().map(|standing| standing.exit(instead)).collect();
    let failed = exits.iter().find(|exit| **exit == Exit::Failed);
    failed.or(exits.iter().find(|exit| **exit != Exit::Success)).copied().unwrap_or(Exit::Success)
}

/// The condition of this type.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The condition of this type, where it is True.
pub fn holds<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    condition(conditions, kind).filter(|condition| condition.status == "True")
}

/// Where a group stands that is to come to `generation`.
///
/// It is done when it is Ready, and has failed when it is Stalled: nothing goes on then without a person.
pub fn group(object: &GroupSpec, generation: i64) -> Standing {
    let Some(status) = &object.status else { return Standing::Going };
    if status.observed_generation.is_none_or(|seen| seen < generation) || object.metadata.deletion_timestamp.is_some() {
        return Standing::Going;
    }
    let seen = |condition: &&Condition| condition.observed_generation.is_none_or(|seen| seen >= generation);
    if let Some(ready) = holds(&status.conditions, "Ready").filter(seen) {
        return Standing::Done(ready.message.clone());
    }
    match holds(&status.conditions, "Stalled").filter(seen) {
        Some(stalled) => failed(stalled, false),
        None => Standing::Going,
    }
}

/// Whether a Lift has ended, and not only been given up on.
pub fn has_ended(object: &Lift) -> bool {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    ["Failed", "Complete"].iter().any(|kind| holds(conditions, kind).is_some())
}

/// Where a Lift stands. One that could not start has failed for who waits, though it would start if its groups were mended.
pub fn lift(object: &Lift) -> Standing {
    let Some(status) = &object.status else { return Standing::Going };
    if let Some(condition) = holds(&status.conditions, "Failed") {
        return failed(condition, condition.reason == Reason::TimedOut);
    }
    // It never changes: one that could not start waits for somebody who mends its groups.
    if let Some(stalled) = holds(&status.conditions, "Stalled").filter(|_| status.start_time.is_none()) {
        return failed(stalled, false);
    }
    if let Some(complete) = holds(&status.conditions, "Complete") {
        return Standing::Done(complete.message.clone());
    }
    Standing::Going
}

fn failed(condition: &Condition, late: bool) -> Standing {
    Standing::Failed { reason: condition.reason.clone(), message: condition.message.clone(), late }
}

/// Where a node stands: whether every phase has succeeded as it is declared now.
pub fn node(object: &GroupNode) -> Standing {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    match condition(conditions, "Converged") {
        Some(condition) if condition.status == "True" => Standing::Done(condition.message.clone()),
        Some(condition)
            if Reason::is_one_of(
                &condition.reason,
                &[
                    Reason::PhaseFailed,
                    Reason::TooMuchWork,
                    Reason::TestFailed,
                    Reason::ManualStep,
                    Reason::WaitingForApproval,
                    Reason::NameConflict,
                ],
            ) =>
        {
            failed(condition, false)
        }
        _ => Standing::Going,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn conditions(list: &[(&str, &str, &str)], generation: i64) -> Value {
        let condition = |(kind, status, reason): &(&str, &str, &str)| {
            json!({"type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": generation,
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        list.iter().map(condition).collect()
    }

    fn group_with(generation: i64, list: &[(&str, &str, &str)]) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"},
            "spec": {"node": {"pod": {"template": {}}}},
            "status": {"observedGeneration": generation, "conditions": conditions(list, generation)}
        }))
        .unwrap()
    }

    fn lift_with(list: &[(&str, &str, &str)]) -> Lift {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": "x"},
            "spec": {"groups": ["web"]}, "status": {"conditions": conditions(list, 1)}
        }))
        .unwrap()
    }

    #[test]
    fn a_group_is_judged_by_the_generation_that_is_waited_for() {
        let ready = group_with(2, &[("Ready", "True", "Converged")]);
        assert_eq!(group(&ready, 3), Standing::Going);
        assert!(matches!(group(&ready, 2), Standing::Done(_)));
        let going = group_with(3, &[("Ready", "False", "Converging"), ("Reconciling", "True", "Converging")]);
        assert_eq!(group(&going, 3), Standing::Going);
        let stalled = group_with(3, &[("Ready", "False", "PhaseFailed"), ("Stalled", "True", "PhaseFailed")]);
        assert_eq!(group(&stalled, 3).exit(None), Exit::Failed);
        assert_eq!(group(&stalled, 4), Standing::Going);
    }

    #[test]
    fn a_lift_whose_time_was_over_is_told_from_one_that_failed() {
        assert_eq!(lift(&lift_with(&[("Reconciling", "True", "Running")])), Standing::Going);
        assert!(matches!(lift(&lift_with(&[("Complete", "True", "Succeeded")])), Standing::Done(_)));
        let stuck = lift_with(&[("Complete", "False", "InvalidLift"), ("Stalled", "True", "InvalidLift")]);
        assert_eq!((lift(&stuck).exit(None), has_ended(&stuck)), (Exit::Failed, false));
        let failed = lift(&lift_with(&[("Complete", "False", "x"), ("Failed", "True", "NodesFailed")]));
        assert_eq!(failed.exit(Some(7)), Exit::Failed);
        let late = lift(&lift_with(&[("Failed", "True", "TimedOut")]));
        assert_eq!((late.exit(None).code(), late.exit(Some(7)).code()), (3, 7));
        let cancelled = lift(&lift_with(&[("Failed", "True", "Cancelled")]));
        assert_eq!(cancelled.exit(None), Exit::Failed);
    }

    #[test]
    fn failure_goes_before_lateness() {
        let done = Standing::Done(String::new());
        let failed = |late| Standing::Failed { reason: "R".into(), message: "m".into(), late };
        assert_eq!(worst(&[done.clone(), done.clone()], None), Exit::Success);
        assert_eq!(worst(&[done.clone(), failed(true)], None), Exit::TimedOut(None));
        assert_eq!(worst(&[failed(true), failed(false), done], None), Exit::Failed);
    }
}
