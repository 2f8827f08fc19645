//! What happens to pods from outside: evictions, deletions, containers that are restarted or stay down.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams};
use pallet_api::group_node::Outcome;
use serde_json::{Value, json};

use crate::harness::{Space, condition, phase_result, reason, script, wait};

/// A pod whose main process ends at once when it is told to.
fn pod(container: Value) -> Value {
    let mut main = json!({
        "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
    });
    main.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    json!({"pod": {"container": "main", "template": {"spec": {
        "terminationGracePeriodSeconds": 1, "containers": [main]
    }}}})
}

fn holds(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}

async fn uid(space: &Space, name: &str) -> Option<String> {
    space.pods().get_opt(name).await.unwrap().and_then(|pod| pod.metadata.uid)
}

async fn events(space: &Space, reason: &str) -> Vec<String> {
    let api: kube::Api<k8s_openapi::api::events::v1::Event> = kube::Api::namespaced(space.client.clone(), &space.name);
    let list = api.list(&ListParams::default()).await.unwrap();
    let of = list.items.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
    of.map(|event| event.note.unwrap_or_default()).collect()
}

/// Case 04: Stalled with PhaseFailed, though the phase itself had never failed.
#[tokio::test]
async fn an_eviction_and_a_deletion_are_no_failed_attempts() {
    let Some(space) = Space::new("evict").await else { return };
    space
        .apply(json!({
            "count": 1, "node": pod(json!({})), "converge": {"retry": {"limit": 0}},
            "phases": {"configure": script("touch /tmp/began; sleep 12; echo done >/etc/mark")}
        }))
        .await;
    let running = || space.exec_until("web-0", "test -f /tmp/began");
    running().await;
    let first = uid(&space, "web-0").await;
    space.pods().evict("web-0", &EvictParams::default()).await.expect("the eviction");
    wait("another pod", || async {
        let now = uid(&space, "web-0").await;
        if now.is_some() && now != first { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    running().await;
    space
        .node_until("web-0", "the interruption is told", |node| {
            phase_result(node, "configure").is_some_and(|phase_result| phase_result.outcome == Outcome::Interrupted)
        })
        .await;
    space.delete_pod("web-0").await;
    let told = space
        .node_until("web-0", "the interruption is told", |node| {
            phase_result(node, "configure").is_some_and(|phase_result| phase_result.outcome == Outcome::Interrupted)
        })
        .await;
    assert_eq!(phase_result(&told, "configure").unwrap().attempt, 1);
    let group = space
        .until("Ready, and never Stalled", |group| {
            assert_eq!(condition(group, "Stalled").0, "", "{:?}", group.status);
            assert!(group.status.as_ref().is_none_or(|status| status.phase_errors.is_empty()));
            condition(group, "Ready").0 == "True"
        })
        .await;
    assert_eq!(condition(&group, "Ready").1, "Converged");
    let node = space.nodes().get("web-0").await.unwrap();
    let done = phase_result(&node, "configure").unwrap();
    assert_eq!((done.outcome, done.attempt, done.interruptions), (Outcome::Succeeded, 1, 0));
    assert!(!events(&space, "PhaseInterrupted").await.is_empty());
    assert_eq!(events(&space, "PhaseFailed").await, Vec::<String>::new());
    assert_eq!(space.kubectl_exec("web-0", "cat /etc/mark").await, "done\n");
}

/// Case 11: Ready on an empty file system, since the journal and process 1 had outlived the container.
#[tokio::test]
async fn a_restart_in_a_shared_process_namespace_is_another_life() {
    let Some(space) = Space::new("share").await else { return };
    for (name, shares) in [("share", "shareProcessNamespace"), ("host", "hostPID")] {
        let mut node = pod(json!({
            "command": ["sh", "-c", "echo $$$$ >/tmp/pid; trap 'exit 0' TERM; sleep infinity & wait"],
            "volumeMounts": [{"name": "journal", "mountPath": "/var/lib/pallet"}]
        }));
        let spec = &mut node["pod"]["template"]["spec"];
        spec[shares] = true.into();
        spec["volumes"] = json!([{"name": "journal", "emptyDir": {}}]);
        space
            .apply_as(name, json!({"count": 1, "node": node, "phases": {"configure": script("echo made >/etc/made")}}))
            .await;
    }
    for name in ["share", "host"] {
        space.ready_as(name).await;
        let node = format!("{name}-0");
        let before = space.nodes().get(&node).await.unwrap();
        let filesystem_id = |node: &pallet_api::GroupNode| {
            node.status.as_ref().and_then(|status| status.incarnation.clone()).unwrap().filesystem_id
        };
        let _ = space.try_exec(&node, "test -f /etc/made && kill $(cat /tmp/pid)").await;
        let after = space
            .node_until(&node, "another life", |node| {
                reason(node) == "Converged" && filesystem_id(node) != filesystem_id(&before)
            })
            .await;
        assert_ne!(
            phase_result(&before, "configure").unwrap().run_id,
            phase_result(&after, "configure").unwrap().run_id
        );
        assert_eq!(space.exec_until(&node, "cat /etc/made").await, "made\n");
        space.ready_as(name).await;
        // The same life is met again by the same name: nothing runs for an edit of something else.
        space.apply_as_patch(name, json!({"metadata": {"annotations": {"touched": "yes"}}})).await;
        let still = space.nodes().get(&node).await.unwrap();
        assert_eq!(filesystem_id(&still), filesystem_id(&after));
    }
}

/// Case 14: in the Service for 20 seconds with nothing listening.
#[tokio::test]
async fn a_restarted_container_is_not_ready_before_its_phases_have_succeeded() {
    let Some(space) = Space::new("gate").await else { return };
    let configure = script("sleep 8; mkdir -p /srv; echo hello >/srv/index.html");
    space.apply(json!({"count": 1, "node": pod(json!({})), "phases": {"configure": configure}})).await;
    // The same with a probe on a file that the phase makes: there is no moment without it.
    let probe = json!({"readinessProbe": {"exec": {"command": ["test", "-f", "/srv/index.html"]}, "periodSeconds": 1}});
    let configure = script("sleep 8; mkdir -p /srv; echo hello >/srv/index.html");
    space.apply_as("probed", json!({"count": 1, "node": pod(probe), "phases": {"configure": configure}})).await;
    for name in ["web", "probed"] {
        space.ready_as(name).await;
    }
    let restarts = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
        statuses.iter().map(|status| status.restart_count).sum::<i32>()
    };
    for name in ["web-0", "probed-0"] {
        // The command may end with the container.
        let _ = space.try_exec(name, "kill -TERM 1").await;
    }
    let watch = |name: &'static str, window: Duration| {
        let space = &space;
        async move {
            let mut pod = wait("the container is restarted", || async {
                let pod = space.pods().get(name).await.unwrap();
                if restarts(&pod) == 1 { Ok(pod) } else { Err(format!("{:?}", pod.status)) }
            })
            .await;
            let (seen, mut open) = (Instant::now(), Duration::ZERO);
            while !holds(&pod, "pallet.dev/converged") || space.try_exec(name, "test -f /srv/index.html").await.is_err()
            {
                if holds(&pod, "Ready") {
                    open = seen.elapsed();
                }
                assert!(open <= window, "{name} is Ready for {open:?} in an empty container");
                assert!(seen.elapsed() < Duration::from_secs(120), "{:?}", pod.status);
                tokio::time::sleep(Duration::from_millis(50)).await;
                pod = space.pods().get(name).await.unwrap();
            }
            assert!(seen.elapsed() > Duration::from_secs(5), "{name}: the gate opened before configure was done");
            eprintln!("{name}: Ready for {open:?} after its restart was seen");
        }
    };
    tokio::join!(watch("web-0", Duration::from_secs(3)), watch("probed-0", Duration::from_millis(500)));
    for name in ["web", "probed"] {
        space.ready_as(name).await;
    }
}

/// Case 15: "is started again", for ever.
#[tokio::test]
async fn a_pod_whose_main_container_stays_down_is_replaced() {
    let Some(space) = Space::new("down").await else { return };
    let mut node = pod(json!({"restartPolicy": "Never"}));
    let helper = json!({
        "name": "helper", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]
    });
    node["pod"]["template"]["spec"]["containers"].as_array_mut().unwrap().push(helper);
    space.apply(json!({"count": 1, "node": node, "phases": {"configure": script("echo done >/etc/mark")}})).await;
    space.ready().await;
    let first = uid(&space, "web-0").await;
    let _ = space.try_exec("web-0", "kill -TERM 1").await;
    let group = space.until("the end is told", |group| condition(group, "Ready").2.contains("ContainerEnded")).await;
    let told = condition(&group, "Ready").2;
    assert!(told.contains("web-0: ContainerEnded: the container ended with exit code 0"), "{told}");
    wait("another pod", || async {
        let now = uid(&space, "web-0").await;
        if now.is_some() && now != first { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /etc/mark").await, "done\n");
}
