//! Times that a clock wrote which was ahead, and values of people that are copied into statuses.

use super::*;
use crate::plan::{drift, snapshot::LONGEST_PAUSE};

const YEAR: i64 = 365 * 24 * 3600;

/// Found by review: a clock that was a year ahead while results were written kept a phase waiting for a year.
#[test]
fn a_clock_that_was_ahead_delays_no_retry() {
    let group = group(json!({}));
    let mut record = done(&group, &identity());
    let digest = record.phase_results[&PhaseName::configure()].digest.clone();
    let mut failed = |finished| {
        let phase_result = phase_result("configure", &digest, Outcome::Failed, 1, finished);
        record.phase_results.insert(PhaseName::configure(), phase_result);
        next(&group, &identity(), &record, now())
    };
    for ahead in [6, 3600, YEAR] {
        assert!(matches!(failed(ago(-ahead)), Next::Run { attempt: 2, .. }), "{ahead} s ahead");
    }
    assert!(matches!(failed(Timestamp::MAX), Next::Run { attempt: 2, .. }));
    // Replicas differ by a little, and a session may end while a reconcile is under way: that is no reason for no pause.
    for ahead in [0, 1, 5] {
        let Next::Backoff { until, .. } = failed(ago(-ahead)) else { panic!("{ahead} s ahead") };
        assert!(until.duration_since(now()) <= SignedDuration::from_secs(10 + ahead));
    }
}

#[test]
fn a_clock_that_was_ahead_delays_no_drift_check_and_causes_no_stream_of_them() {
    let group = group(json!({"converge": {"driftCheck": {"interval": "10m"}}}));
    let check = group.drift_check.unwrap();
    let mut node = node(0, done(&group, &identity()));
    node.record.phase_results.values_mut().for_each(|phase_result| phase_result.finished_at = Time(ago(-YEAR)));
    assert_eq!(drift::due(&check, &node, now()), Some(now()));
    node.record.drift =
        Some(pallet_api::group_node::Drift { checked_at: Time(now()), differences: vec![], omitted: 0 });
    assert!(drift::due(&check, &node, now()).unwrap() > now() + SignedDuration::from_secs(500));
    node.record.drift.as_mut().unwrap().checked_at = Time(Timestamp::MAX);
    assert_eq!(drift::due(&check, &node, now()), Some(now()));
    node.record = Record::default();
    assert_eq!(drift::due(&check, &node, now()), None);
}

#[test]
fn a_clock_that_was_ahead_keeps_no_node_out_of_reach() {
    let trouble = |until| Trouble {
        instance: "c-0".into(),
        target: machine(0).target.unwrap(),
        reason: "ConnectionLost".into(),
        message: String::new(),
        since: now(),
        until,
        about: None,
    };
    assert!(trouble(now() + SignedDuration::try_from(LONGEST_PAUSE).unwrap()).lasts(now()));
    assert!(!trouble(ago(-YEAR)).lasts(now()) && !trouble(Timestamp::MAX).lasts(now()));
}

/// Found by review: an annotation of 256 KiB was copied into each result, until the status could not be written any more.
#[test]
fn a_retry_token_is_short_whatever_the_annotations_say() {
    let annotated = |value: &str| {
        let mut object = object(json!({}));
        object.metadata.annotations = Some([(pallet_api::RETRY_ANNOTATION.to_owned(), value.to_owned())].into());
        let group = resolve(&object, &Default::default()).unwrap();
        let token = |node: &str| {
            let node = resolve::bounded(node, resolve::TOKEN_LIMIT);
            super::super::next::retry_token(&group, &Identity { retry_token: node, ..identity() })
        };
        (token(""), token(&"n".repeat(256 << 10)))
    };
    let huge = "x".repeat(256 << 10);
    for value in ["2026-12-01T00:00:00.123456789Z", &huge, &format!("{huge}y"), "esc\u{1b}[2J"] {
        let (group, both) = annotated(value);
        assert!(group.len() <= 64 && both.len() <= 64, "{}", group.len());
        assert!(both.chars().all(|c| c.is_ascii_graphic()));
        assert_ne!(group, both);
    }
    assert_ne!(annotated(&huge), annotated(&format!("{huge}y")));
    assert_eq!(annotated("2026-12-01T00:00:00Z").0, "2026-12-01T00:00:00Z/");
}
