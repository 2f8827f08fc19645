//! Parts of Kubernetes itself go away and come back while phases run and a group grows.
//!
//! Ignored by default: they disturb every other test of the cluster. `make test-outages` runs them, one after the other.

use std::time::{Duration, Instant};

use pallet_api::group_node::Outcome;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{PATIENCE, Space, busybox, phase_result, script, wait};

/// As `cluster kill` and `cluster start` from outside.
async fn component(verb: &str, name: &str) {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/lib/component.sh");
    // What it starts must outlive this program and its terminal.
    let run = Command::new("setsid").args(["--wait", "bash", tool, verb, name]).output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("in time").expect("bash");
    assert!(output.status.success(), "{verb} {name}: {output:?}");
}

fn slow(count: u32) -> Value {
    json!({
        "count": count, "node": busybox(),
        "phases": {
            "bootstrap": script("echo begins >>/ran; sleep 5; echo ends >>/ran"),
            "configure": script("echo configured >>/ran")
        },
        "converge": {"rollout": {"maxParallel": "100%"}}
    })
}

async fn api_answers(space: &Space) {
    wait("the API server answers", || async {
        space.nodes().list(&Default::default()).await.map_err(|e| e.to_string())
    })
    .await;
}

/// Two nodes are in the midst of their bootstrap and two more have just been asked for.
async fn survives(name: &str, signal: &str) {
    let Some(mut space) = Space::new("outage").await else { return };
    let began = Instant::now();
    space.apply(slow(2)).await;
    for node in ["web-0", "web-1"] {
        space.exec_until(node, "grep begins /ran").await;
    }
    let before = [space.pods().get("web-0").await.unwrap(), space.pods().get("web-1").await.unwrap()];
    space.patch(json!({"spec": {"count": 4}})).await;
    component(signal, name).await;
    // Long enough that what tries again meets it more than once.
    tokio::time::sleep(Duration::from_secs(3)).await;
    component("start", name).await;
    api_answers(&space).await;
    let status = space.ready().await.status.unwrap();
    assert_eq!((status.replicas, status.ready_replicas), (4, 4));

    assert!(space.operator_lives(), "the operator went through it");
    let nodes = space.nodes().list(&Default::default()).await.unwrap().items;
    assert_eq!((nodes.len(), space.pod_names().await.len()), (4, 4));
    for node in &nodes {
        let name = node.metadata.name.as_deref().unwrap();
        assert_eq!(space.exec(name, "cat /ran").await, "begins\nends\nconfigured\n", "{name}");
        for phase in ["bootstrap", "configure"] {
            let phase_result = phase_result(node, phase).unwrap();
            assert_eq!((phase_result.outcome, phase_result.attempt), (Outcome::Succeeded, 1), "{name} {phase}");
        }
    }
    for pod in before {
        let name = pod.metadata.name.as_deref().unwrap();
        let now = space.pods().get(name).await.unwrap();
        assert_eq!(now.metadata.uid, pod.metadata.uid);
        let container = |pod: k8s_openapi::api::core::v1::Pod| pod.status?.container_statuses?.pop()?.container_id;
        assert_eq!(container(now), container(pod), "the container went through it");
    }
    println!("{name}, {signal}: {:?}", began.elapsed());
}

#[tokio::test]
#[ignore = "disturbs the whole cluster: make test-outages"]
async fn the_api_server_restarts() {
    survives("kube-apiserver", "stop").await;
}

#[tokio::test]
#[ignore = "disturbs the whole cluster: make test-outages"]
async fn etcd_is_killed() {
    survives("etcd", "kill").await;
}

#[tokio::test]
#[ignore = "disturbs the whole cluster: make test-outages"]
async fn the_kubelet_is_killed() {
    survives("kubelet", "kill").await;
}

#[tokio::test]
#[ignore = "disturbs the whole cluster: make test-outages"]
async fn containerd_is_killed() {
    survives("containerd", "kill").await;
}
