//! Which phases run, in which order, and when they run again.

use super::*;

/// All phases that there are, as they would be declared.
fn phases() -> Value {
    let script = |text: &str| json!({"actions": [{"exec": {"script": text}}]});
    json!({
        "bootstrap": script("boot"), "settings": {"values": {"v": "x"}}, "init": script("init"),
        "install": script("install"), "configure": script("conf {{ settings.v }}"), "migrate": script("migrate"),
        "test": {"expect": [{"name": "host", "expression": "facts.hostname == 'web-0'"}]},
        "destroy-server": script("bye"), "app-rollout": script("roll")
    })
}

fn sequence(converge: Value) -> Vec<String> {
    let group = group(json!({"phases": phases(), "processes": {"nightly": ["migrate", "test"]}, "converge": converge}));
    group.phases.converged().iter().map(ToString::to_string).collect()
}

#[test]
fn settings_always_and_configure_first_where_it_is_not_listed() {
    assert_eq!(sequence(json!({})), ["bootstrap", "settings", "configure"]);
    assert_eq!(sequence(json!({"phases": ["test"]})), ["bootstrap", "settings", "configure", "test"]);
    assert_eq!(
        sequence(json!({"phases": ["init", "settings", "configure"]})),
        ["bootstrap", "settings", "init", "configure"]
    );
    assert_eq!(sequence(json!({"phases": []})), ["bootstrap", "settings", "configure"]);
}

#[test]
fn a_process_stands_for_its_phases() {
    let install = ["bootstrap", "settings", "init", "install", "configure"];
    assert_eq!(sequence(json!({"process": "apply-install"})), install);
    assert_eq!(sequence(json!({"process": "apply-config"})), ["bootstrap", "settings", "configure"]);
    assert_eq!(sequence(json!({"process": "server-test"})), ["bootstrap", "settings", "configure", "test"]);
    assert_eq!(sequence(json!({"process": "nightly"})), ["bootstrap", "settings", "configure", "migrate", "test"]);
}

#[test]
fn a_predefined_process_leaves_out_what_is_not_declared_and_a_list_may_not_name_it() {
    let few = json!({"configure": {"actions": [{"exec": {"script": "c"}}]}});
    let group = group(json!({"phases": few, "converge": {"process": "apply-install"}}));
    assert_eq!(group.phases.converged().iter().map(PhaseName::as_str).collect::<Vec<_>>(), ["settings", "configure"]);
    let errors = |converge: Value| {
        resolve(&object(json!({"phases": few, "converge": converge})), &Default::default()).unwrap_err()
    };
    let line = |converge: Value| errors(converge)[0].to_string();
    assert!(
        line(json!({"phases": ["instal"]})).starts_with("spec.converge.phases[0]: nobody defines a phase \"instal\"")
    );
    assert!(line(json!({"phases": ["bootstrap"]})).contains("its own moment"));
    assert!(line(json!({"process": "apply"})).contains("there are apply-install, apply-config, server-test"));
}

#[test]
fn what_is_declared_and_run_by_nothing_is_said() {
    let snapshot = settled_as(json!({"phases": phases(), "converge": {"process": "apply-install"}}), &[0]);
    let message = status::group(&snapshot, &plan(&snapshot).steps).conditions[0].message.clone();
    assert!(
        message.ends_with("run by nothing: migrate, test (list it in spec.converge.phases or in a process)"),
        "{message}"
    );
}

/// What is due on a settled node of `before` when the group is declared as `after`.
fn due(before: Value, after: Value) -> Option<String> {
    let group_before = group(before);
    let record = done(&group_before, &identity());
    next(&group(after), &identity(), &record, now()).phase().map(|phase| phase.to_string())
}

#[test]
fn install_takes_effect_once_and_configure_whenever_it_changed() {
    let spec = |script: &str, phase: &str, reapply: &str| {
        let mut phases = phases();
        phases[phase]["actions"][0]["exec"]["script"] = script.into();
        json!({"phases": phases, "converge": {"process": "apply-install", "reapply": reapply}})
    };
    assert_eq!(due(spec("a", "install", ""), spec("a", "install", "")), None);
    assert_eq!(due(spec("a", "install", ""), spec("b", "install", "")), None);
    assert_eq!(due(spec("a", "bootstrap", ""), spec("b", "bootstrap", "")), None);
    assert_eq!(due(spec("a", "init", ""), spec("b", "init", "")), Some("init".into()));
    assert_eq!(due(spec("a", "configure", ""), spec("b", "configure", "")), Some("configure".into()));
    assert_eq!(due(spec("a", "configure", ""), spec("a", "configure", "now")), Some("configure".into()));
    assert_eq!(due(spec("a", "configure", "now"), spec("a", "configure", "now")), None);
}

pub(super) fn tested() -> Value {
    json!({"phases": phases(), "converge": {"phases": ["test"]}})
}

#[test]
fn test_is_due_again_when_anything_ran_or_the_facts_were_read_again() {
    let group = group(tested());
    let mut record = done(&group, &identity());
    let due = |record: &Record| next(&group, &identity(), record, now()).phase();
    assert_eq!(due(&record), None);
    record.phase_results.get_mut(&PhaseName::configure()).unwrap().run_id = "configure-again".into();
    assert_eq!(due(&record), Some(PhaseName::test()));
    let mut record = done(&group, &identity());
    record.phase_results.get_mut(&PhaseName::settings()).unwrap().finished_at = Time(ago(5));
    assert_eq!(due(&record), Some(PhaseName::test()));
}

#[test]
fn a_test_that_fails_is_tried_again_and_then_said_to_have_failed() {
    let mut spec = tested();
    spec["converge"]["retry"] = json!({"limit": 1, "backoff": "10s"});
    let mut snapshot = settled_as(spec, &[0]);
    let phase_result = |snapshot: &mut Snapshot, attempt: u32| {
        let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
        let failed = node.record.phase_results.get_mut(&PhaseName::test()).unwrap();
        (failed.outcome, failed.attempt, failed.finished_at) = (Outcome::Failed, attempt, Time(now()));
        failed.message = "host: expected facts.hostname == 'web-0', found facts.hostname = \"x\"".into();
        // The facts are read again for every attempt.
        node.record.phase_results.get_mut(&PhaseName::settings()).unwrap().finished_at = Time(now());
    };
    phase_result(&mut snapshot, 1);
    assert!(matches!(plan(&snapshot).steps[&0], Step::Backoff { .. }), "{:?}", plan(&snapshot).steps);
    phase_result(&mut snapshot, 2);
    let status = status::group(&snapshot, &plan(&snapshot).steps);
    assert_eq!(status.conditions[1].reason, "TestFailed");
    assert!(status.conditions[1].message.contains("found facts.hostname"), "{}", status.conditions[1].message);
    // What was configured anew is looked at anew.
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    node.record.phase_results.get_mut(&PhaseName::configure()).unwrap().run_id = "configure-again".into();
    assert!(matches!(plan(&snapshot).steps[&0], Step::Run { .. }));
}

#[test]
fn expectations_may_use_what_changes_by_itself_and_nothing_undeclared() {
    let with = |that: &str| {
        let mut phases = phases();
        phases["test"]["expect"][0]["expression"] = that.into();
        resolve(&object(json!({"phases": phases})), &Default::default()).err().map(|errors| errors[0].to_string())
    };
    assert_eq!(with("facts.disk.freePercent > 10 && settings.v == 'x'"), None);
    let path = "spec.phases.test.expect[0].expression: ";
    assert!(
        with("facts.disc.freePercent > 10").unwrap().starts_with(&format!("{path}facts.disc.freePercent is neither"))
    );
    assert!(with("settings.w == 1").unwrap().contains("settings.w is not declared"));
    assert!(with("facts.x >").unwrap().contains("no CEL expression"));
}
