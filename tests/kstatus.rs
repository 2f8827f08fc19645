//! What `kubectl wait`, Flux and Helm make of every standing of a GroupSpec and a Lift: by their rules, without them.

mod gitops;

use gitops::{Standing, TABLE, standings};
use serde_json::{Value, json};

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// What kstatus (sigs.k8s.io/cli-utils) makes of an object whose kind it does not know. A condition that says that something
/// is abnormal speaks before the one that says that all is well, and neither where the object has changed since.
fn kstatus(object: &Value) -> Standing {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Standing::Terminating;
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return Standing::InProgress;
    }
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        match (condition["type"].as_str(), condition["status"].as_str()) {
            (Some("Reconciling"), Some("True")) => return Standing::InProgress,
            (Some("Stalled"), Some("True")) => return Standing::Failed,
            _ => {}
        }
    }
    match condition(object, "Ready").and_then(|ready| ready["status"].as_str()) {
        Some("False" | "Unknown") => Standing::InProgress,
        _ => Standing::Current,
    }
}

/// Whether `kubectl wait --for=condition=KIND` comes back: it passes over what was said of an older generation.
fn waited_for(object: &Value, kind: &str) -> bool {
    let Some(condition) = condition(object, kind) else { return false };
    let observed = condition["observedGeneration"].as_i64().or(object["status"]["observedGeneration"].as_i64());
    let stale = observed.zip(object["metadata"]["generation"].as_i64()).is_some_and(|(seen, is)| seen < is);
    condition["status"] == "True" && !stale
}

#[test]
fn every_standing_is_what_the_table_says() {
    let standings = standings();
    let wrong: Vec<String> = TABLE
        .iter()
        .map(|(name, wanted, _)| (name, wanted, kstatus(&standings[*name])))
        .filter(|(_, wanted, found)| *wanted != found)
        .map(|(name, wanted, found)| format!("{name}: {found:?}, not {wanted:?}: {:#}", standings[*name]["status"]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn kubectl_wait_comes_back_when_it_should_and_not_before() {
    let standings = standings();
    for (name, standing, _) in TABLE.iter().filter(|row| row.1 != Standing::Terminating) {
        let object = &standings[*name];
        let is = |kind: &str| waited_for(object, kind);
        match object["kind"].as_str() {
            Some("GroupSpec") => {
                assert_eq!(is("Ready"), *standing == Standing::Current, "{name}: Ready");
                assert_eq!(is("Stalled"), *standing == Standing::Failed, "{name}: Stalled");
            }
            Some("Lift") => {
                assert_eq!(is("Complete"), *standing == Standing::Current, "{name}: Complete");
                assert_eq!(is("Stalled"), *standing == Standing::Failed, "{name}: Stalled");
                // Failed is the end; what waits for a person is Stalled without being that.
                let ended = !object["status"]["completionTime"].is_null();
                assert_eq!(is("Failed"), *standing == Standing::Failed && ended, "{name}: Failed");
            }
            _ => {}
        }
    }
}

/// Whoever waits for one of the two, and reads the conditions then, reads one answer.
#[test]
fn no_standing_says_two_things_at_once() {
    for (name, object) in standings() {
        let holds = |kind: &str| condition(&object, kind).is_some_and(|condition| condition["status"] == "True");
        assert!(!(holds("Reconciling") && holds("Stalled")), "{name}");
        assert!(!(holds("Complete") && holds("Failed")), "{name}");
        assert!(!(holds("Ready") || holds("Complete")) || !(holds("Reconciling") || holds("Stalled")), "{name}");
        let there =
            |kind: &str, status: &str| condition(&object, kind).is_none_or(|condition| condition["status"] == status);
        assert!(there("Reconciling", "True") && there("Stalled", "True"), "{name}: they stand only while they hold");
        if object["status"]["completionTime"].is_string() {
            assert!(holds("Complete") || holds("Failed"), "{name}");
        }
    }
}

/// The rules above, where the table has nothing to show them by.
#[test]
fn a_kind_without_a_status_is_current_and_one_that_nobody_has_seen_is_not() {
    assert_eq!(kstatus(&json!({"metadata": {"generation": 1}})), Standing::Current);
    let unseen = json!({"metadata": {"generation": 1}, "status": {"observedGeneration": -1}});
    assert_eq!(kstatus(&unseen), Standing::InProgress);
    let unknown = json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
    assert_eq!(kstatus(&unknown), Standing::InProgress);
}
