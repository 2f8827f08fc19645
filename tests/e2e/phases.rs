//! Every phase that converge runs, the process that lists them, what is expected of facts, and the farewell of a node.

use std::fs;

use k8s_openapi::api::events::v1::Event;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use pallet_api::group_node::Outcome;
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, phase_result, script, shared, wait};

#[tokio::test]
async fn a_process_runs_its_phases_in_order_and_each_as_often_as_it_should() {
    let Some(space) = Space::new("process").await else { return };
    let spec = |version: u32, reapply: &str| {
        let step = |name: &str| script(&format!("echo {name} {version} >>/ran"));
        json!({
            "node": busybox(),
            "phases": {
                "bootstrap": step("bootstrap"), "init": step("init"), "install": step("install"),
                "configure": {"actions": [{"exec": {"script": "echo configure >>/ran"}}]},
                "test": {"expect": [
                    {"name": "disk", "expression": "facts.disk.freePercent >= 0 && facts.disk.totalBytes / 1024 > 0"},
                    {"name": "name", "expression": "facts.hostname == node.name"}
                ]}
            },
            "processes": {"everything": ["init", "install", "configure", "test"]},
            "converge": {"process": "everything", "reapply": reapply}
        })
    };
    let ran = || async { space.kubectl_exec("web-0", "cat /ran").await };
    space.apply(spec(1, "")).await;
    space.ready().await;
    assert_eq!(ran().await, "bootstrap 1\ninit 1\ninstall 1\nconfigure\n");
    let node = space.nodes().get("web-0").await.unwrap();
    let test = phase_result(&node, "test").expect("a phase result of test");
    assert_eq!((test.outcome, test.actions.len()), (Outcome::Succeeded, 2));
    // Bootstrap and install are for once; init follows its digest.
    space.apply(spec(2, "")).await;
    space.ready().await;
    assert_eq!(ran().await, "bootstrap 1\ninit 1\ninstall 1\nconfigure\ninit 2\n");
    space.apply(spec(2, "again")).await;
    space.ready().await;
    assert_eq!(ran().await, "bootstrap 1\ninit 1\ninstall 1\nconfigure\ninit 2\nconfigure\n");
    let phases = space.groups().get("web").await.unwrap().status.unwrap().phases;
    let names: Vec<&str> = phases.iter().map(|phase| phase.phase.as_str()).collect();
    assert_eq!(names, ["bootstrap", "settings", "init", "install", "configure", "test"]);
}

/// Process 1 of these containers is a sleep, which buries nobody: what a session leaves unwaited would stay for ever.
#[tokio::test]
async fn a_session_leaves_no_zombies() {
    let Some(space) = Space::new("zombies").await else { return };
    space.secret("login", json!({"password": "swordfish"})).await;
    space
        .apply(json!({
            "node": {"pod": {"template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sleep", "3600"]
            }]}}}},
            "phases": {
                "bootstrap": script("echo printed; exec sleep 1"),
                "settings": {"facts": [{"name": "kernel", "exec": "uname -r"}]},
                "configure": {"actions": [
                    {"exec": {"script": "true", "secretEnv": [{"name": "PW", "secretKeyRef": {"name": "login", "key": "password"}}]}},
                    {"exec": {"script": "sleep 1"}, "timeout": "20s"}
                ]}
            }
        }))
        .await;
    space.ready().await;
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    assert_eq!(space.kubectl_exec("web-0", "tr '\\0' ' ' </proc/1/cmdline").await.split(' ').next(), Some("sleep"));
    // That of an exec itself is one until containerd has looked at it; what nobody waits for stays.
    wait("there is none", || async {
        let left = space.kubectl_exec("web-0", zombies).await;
        if left.trim() == "0" { Ok(()) } else { Err(left) }
    })
    .await;
}

#[tokio::test]
async fn a_test_that_fails_says_what_was_found_and_heals() {
    let Some(space) = Space::new("test").await else { return };
    space
        .apply(json!({
            "node": busybox(),
            "phases": {
                "settings": {"facts": [{"name": "version", "file": "/version", "optional": true}]},
                "configure": script("true"),
                "test": {"expect": [{"name": "version", "expression": "facts.version == '17'", "message": "the wrong Java"}]}
            },
            "converge": {"phases": ["test"], "retry": {"limit": 1, "backoff": "1s"}}
        }))
        .await;
    let stalled = space.until("TestFailed", |group| condition(group, "Stalled").1 == "TestFailed").await;
    let message = condition(&stalled, "Stalled").2;
    let said = "version: the wrong Java: expected facts.version == '17', found facts.version = null";
    assert!(message.contains(said), "{message}");
    let errors = stalled.status.unwrap().phase_errors;
    assert_eq!(
        (errors[0].phase.as_str(), errors[0].action.as_deref(), errors[0].attempt),
        ("test", Some("version"), 2)
    );
    // Somebody mends the node and says so.
    space.kubectl_exec("web-0", "echo 17 >/version").await;
    space.patch(json!({"metadata": {"annotations": {"pallet.dev/retry": "mended"}}})).await;
    space.ready().await;
}

/// A node whose farewell can be seen when it is gone.
fn with_farewell(space: &Space, farewell: &str) -> Value {
    json!({
        "count": 2, "node": shared(space),
        "phases": {
            "configure": script("true"),
            "destroy-server": script(farewell)
        },
        "converge": {"destroyTimeout": "20s", "retry": {"limit": 1, "backoff": "1s"}}
    })
}

async fn events(space: &Space, reason: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(space.client.clone(), &space.name);
    let list = events.list(&ListParams::default()).await.unwrap();
    let ours = list.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    ours.map(|event| {
        format!("{} {}", event.regarding.and_then(|r| r.name).unwrap_or_default(), event.note.unwrap_or_default())
    })
    .collect()
}

async fn until_there_are(space: &Space, pods: &[&str]) {
    wait("the pods", || async {
        let names = space.pod_names().await;
        if names == pods { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

#[tokio::test]
async fn destroy_server_runs_before_a_node_goes_whoever_removes_it() {
    let Some(mut space) = Space::new("destroy").await else { return };
    let log = space.shared_dir().join("log");
    space.apply(with_farewell(&space, "echo {{ node.name }} >>/shared/log; sleep 2; echo done >>/shared/log")).await;
    space.ready().await;
    // Scaled down, and the operator dies in the middle of it: it runs once all the same.
    space.patch(json!({"spec": {"count": 1}})).await;
    wait("its beginning", || async { fs::read_to_string(&log).map_err(|error| error.to_string()) }).await;
    space.kill_operator().await;
    space.start_operator();
    until_there_are(&space, &["web-0"]).await;
    assert_eq!(fs::read_to_string(&log).unwrap(), "web-1\ndone\n");
    // The GroupNode deleted by a person: the node is made anew.
    space.nodes().delete("web-0", &DeleteParams::default()).await.unwrap();
    wait("a new node", || async {
        let text = fs::read_to_string(&log).unwrap();
        if text == "web-1\ndone\nweb-0\ndone\n" { Ok(()) } else { Err(text) }
    })
    .await;
    space.ready().await;
    // The group deleted, paused as it is.
    space.patch(json!({"spec": {"paused": true}})).await;
    space.groups().delete("web", &DeleteParams::foreground()).await.unwrap();
    until_there_are(&space, &[]).await;
    assert_eq!(fs::read_to_string(&log).unwrap().lines().filter(|line| *line == "done").count(), 3);
    assert_eq!(events(&space, "DestroySkipped").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_runs_is_cancelled_for_the_farewell() {
    let Some(space) = Space::new("cancelled").await else { return };
    let log = space.shared_dir().join("log");
    let mut spec = with_farewell(&space, "echo bye >>/shared/log");
    spec["count"] = json!(1);
    spec["phases"]["configure"] = script("echo begins >>/shared/log; sleep 600; echo never >>/shared/log");
    space.apply(spec).await;
    wait("its beginning", || async { fs::read_to_string(&log).map_err(|error| error.to_string()) }).await;
    space.patch(json!({"spec": {"count": 0}})).await;
    until_there_are(&space, &[]).await;
    assert_eq!(fs::read_to_string(&log).unwrap(), "begins\nbye\n");
}

#[tokio::test]
async fn a_farewell_that_cannot_be_is_told_and_holds_nothing_for_ever() {
    let Some(space) = Space::new("skipped").await else { return };
    space.apply(with_farewell(&space, "echo no luck; exit 3")).await;
    space.ready().await;
    // It fails, twice, and the node goes.
    space.patch(json!({"spec": {"count": 1}})).await;
    until_there_are(&space, &["web-0"]).await;
    let told = wait("the event", || async {
        let found = events(&space, "DestroySkipped").await;
        if found.is_empty() { Err("none".to_owned()) } else { Ok(found) }
    })
    .await;
    assert!(told[0].starts_with("web-1 ") && told[0].contains("attempt 2 of it: action exec[0] failed"), "{told:?}");
    // A pod that somebody deletes skips it.
    space.delete_pod("web-0").await;
    wait("the event", || async {
        let found = events(&space, "DestroySkipped").await;
        if found.iter().any(|told| told.contains("deleted, evicted or lost by others")) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
    space.ready().await;
    // One that hangs is ended by the deadline.
    space
        .patch(
            json!({"spec": {"phases": {"destroy-server": script("sleep 600")}, "converge": {"destroyTimeout": "3s"}}}),
        )
        .await;
    space.ready().await;
    space.patch(json!({"spec": {"count": 0}})).await;
    until_there_are(&space, &[]).await;
}
