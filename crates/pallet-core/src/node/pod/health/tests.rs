use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use pallet_api as api;

fn pod(spec: Value, status: Value) -> Pod {
    let pod = json!({"metadata": {"annotations": {"pallet.dev/container": "main"}}, "spec": spec, "status": status});
    serde_json::from_value(pod).unwrap()
}

fn container(name: &str, state: Value) -> Value {
    json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn spec(main: Value, init: Value) -> Value {
    json!({"restartPolicy": "Always", "containers": [main, {"name": "helper"}], "initContainers": init})
}

fn told(pod: &Pod) -> (String, String) {
    match state(pod, "main") {
        MachineState::Waiting { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn why_a_container_does_not_run_is_told() {
    let main = json!({"name": "main"});
    let with = |status: Value| pod(spec(main.clone(), json!([])), status);
    let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]});
    assert_eq!(told(&with(unschedulable)), ("Unschedulable".into(), "0/1".into()));
    let state_of = |state: Value| with(json!({"containerStatuses": [container("main", state)]}));
    assert_eq!(told(&state_of(json!({"waiting": {"reason": "ErrImagePull"}}))).0, "ErrImagePull");
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let (reason, message) = told(&state_of(ended));
    assert_eq!(reason, "ContainerTerminated");
    assert_eq!(message, "the container ended with exit code 137 (OOMKilled) and is started again");
    let evicted = with(json!({"phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"}));
    let gone = MachineState::Gone { reason: "Evicted".into(), message: "low on ephemeral-storage".into() };
    assert_eq!(state(&evicted, "main"), gone);
}

#[test]
fn a_crash_loop_has_the_exit_code_of_its_last_end() {
    let mut looping = container("main", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    looping["lastState"] = json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "x\nno such key\n"}});
    let pod = pod(spec(json!({"name": "main"}), json!([])), json!({"containerStatuses": [looping]}));
    let message = "it last ended with exit code 3: no such key; back-off 10s";
    assert_eq!(told(&pod), ("CrashLoopBackOff".into(), message.into()));
}

#[test]
fn init_containers_and_sidecars_are_named_with_reason_and_exit_code() {
    let main = container("main", json!({"waiting": {"reason": "PodInitializing"}}));
    let init = json!([{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]);
    let at = |statuses: Value| {
        let status = json!({"containerStatuses": [main], "initContainerStatuses": statuses});
        told(&pod(spec(json!({"name": "main"}), init.clone()), status))
    };
    let mut failed = container("setup", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    failed["lastState"] = json!({"terminated": {"exitCode": 2, "reason": "Error"}});
    let (reason, message) = at(json!([failed]));
    assert_eq!(reason, "CrashLoopBackOff");
    assert_eq!(message, "init container setup: it last ended with exit code 2; back-off 10s");
    let (reason, message) = at(json!([container("setup", json!({"terminated": {"exitCode": 2}}))]));
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("InitContainerFailed", "init container setup ended with exit code 2")
    );
    let done = container("setup", json!({"terminated": {"exitCode": 0}}));
    let pulled = container("proxy", json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}));
    assert_eq!(at(json!([done, pulled])), ("ErrImagePull".into(), "sidecar proxy: not found".into()));
    let crashed = container("proxy", json!({"terminated": {"exitCode": 1}}));
    assert_eq!(
        at(json!([done, crashed])),
        ("InitContainerFailed".into(), "sidecar proxy ended with exit code 1".into())
    );
    let running = container("setup", json!({"running": {}}));
    assert_eq!(at(json!([running])), ("PodInitializing".into(), "init container setup is still running".into()));
}

#[test]
fn a_container_that_stays_down_is_gone_and_one_that_comes_back_is_not() {
    let end = |code: i32| json!({"containerStatuses": [container("main", json!({"terminated": {"exitCode": code, "finishedAt": "2027-01-01T00:00:00Z"}}))]});
    let gone = |policy: Value, code: i32| {
        let pod = pod(spec(json!({"name": "main", "restartPolicy": policy}), json!([])), end(code));
        assert_eq!(matches!(state(&pod, "main"), MachineState::Gone { .. }), ended(&pod, "main").is_some());
        ended(&pod, "main").is_some()
    };
    assert!(gone(json!("Never"), 0) && gone(json!("Never"), 1) && gone(json!("OnFailure"), 0));
    assert!(!gone(json!("OnFailure"), 1) && !gone(json!("Always"), 0) && !gone(Value::Null, 0));
}

#[test]
fn why_a_pod_is_not_ready_names_the_container_or_the_gate() {
    let why = |spec: Value, status: Value| unready(&pod(spec, status), api::CONVERGED_GATE);
    let plain = || spec(json!({"name": "main"}), json!([{"name": "proxy", "restartPolicy": "Always"}]));
    let conditions =
        |ready: &str| json!([{"type": "Ready", "status": ready, "message": "containers with unready status: [x]"}]);
    assert_eq!(why(plain(), json!({"conditions": conditions("True")})), None);
    let mut helper = container("helper", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}));
    helper["lastState"] = json!({"terminated": {"exitCode": 1}});
    let told = why(plain(), json!({"conditions": conditions("False"), "containerStatuses": [helper]})).unwrap();
    assert!(told.broken);
    assert_eq!(told.message, "container helper: CrashLoopBackOff: it last ended with exit code 1; back-off");
    let proxy = container("proxy", json!({"terminated": {"exitCode": 9}}));
    let told = why(plain(), json!({"conditions": conditions("False"), "initContainerStatuses": [proxy]})).unwrap();
    assert_eq!((told.message.as_str(), told.broken), ("sidecar proxy ended with exit code 9", true));
    let mut main = container("main", json!({"running": {}}));
    main["started"] = true.into();
    let told = why(plain(), json!({"conditions": conditions("False"), "containerStatuses": [main]})).unwrap();
    assert_eq!((told.message.as_str(), told.broken), ("container main: its readiness probe has not succeeded", false));
    let mut gated = plain();
    gated["readinessGates"] =
        json!([{"conditionType": "pallet.dev/converged"}, {"conditionType": "lb.example.com/up"}]);
    let told = why(gated, json!({"conditions": conditions("False")})).unwrap();
    assert_eq!(told.message, "its readiness gate lb.example.com/up was not set by anybody yet");
}

#[test]
fn what_a_deletion_waits_for_is_named() {
    let at = |finalizers: Value, status: Value| {
        let pod = json!({
            "metadata": {"deletionTimestamp": "2027-01-01T00:00:00Z", "finalizers": finalizers},
            "spec": {"nodeName": "worker-3", "containers": []}, "status": status
        });
        going(&serde_json::from_value(pod).unwrap()).unwrap()
    };
    let ended = json!({"containerStatuses": [container("main", json!({"terminated": {"exitCode": 0}}))]});
    let runs = json!({"containerStatuses": [container("main", json!({"running": {}}))]});
    let held = at(json!(["example.com/backup"]), ended);
    assert_eq!(held.held_by, "finalizer example.com/backup of somebody else holds it");
    let lost = at(json!([]), runs);
    assert_eq!(lost.held_by, "the kubelet of machine worker-3 has not confirmed its end");
    let evicted = json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting"}]});
    assert_eq!(at(json!([]), evicted).why.unwrap(), "EvictionByEvictionAPI: Eviction API: evicting");
}

#[test]
fn a_life_of_a_container_is_told_where_process_one_is_not_its_own() {
    let status = json!({"containerStatuses": [{
        "name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0, "containerID": "containerd://abc123"
    }]});
    let of = |spec: Value| life(&pod(spec, status.clone()), "main");
    assert_eq!(of(json!({"containers": []})), None);
    assert_eq!(of(json!({"containers": [], "shareProcessNamespace": true})).as_deref(), Some("abc123"));
    assert_eq!(of(json!({"containers": [], "hostPID": true})).as_deref(), Some("abc123"));
}
