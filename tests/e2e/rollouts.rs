//! How phases roll over the nodes, how nodes are replaced, and what they keep.

use std::{collections::BTreeSet, fs};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, script, shared, wait};

/// Each phase says on a file that all nodes share when it begins and ends, and takes longer on higher ordinals.
fn telling(phase: &str, version: u32) -> Value {
    script(&format!(
        "echo begin {phase} {version} {{{{ node.name }}}} >>/shared/log; sleep $(({{{{ node.ordinal }}}} / 2)).3; echo end {phase} {version} >>/shared/log"
    ))
}

#[tokio::test]
async fn at_a_barrier_no_node_begins_what_another_has_not_come_to() {
    let Some(space) = Space::new("barrier").await else { return };
    let spec = |version: u32| {
        json!({
            "count": 4, "node": shared(&space),
            "phases": {
                "bootstrap": telling("bootstrap", 1), "init": telling("init", version), "configure": telling("configure", version)
            },
            "converge": {"phases": ["init", "configure"], "rollout": {"order": "Barrier", "maxParallel": 3}}
        })
    };
    let log = || fs::read_to_string(space.shared_dir().join("log")).unwrap();
    // Every line of one phase comes before every line of the next.
    let in_order = |text: &str| {
        let mut seen: Vec<&str> = Vec::new();
        for line in text.lines() {
            let phase = line.split(' ').nth(1).unwrap();
            if seen.last() != Some(&phase) {
                assert!(!seen.contains(&phase), "{phase} comes again:\n{text}");
                seen.push(phase);
            }
        }
        assert_eq!(text.lines().count(), seen.len() * 8, "{text}");
        seen.join(" ")
    };
    space.apply(spec(1)).await;
    space.ready().await;
    assert_eq!(in_order(&log()), "bootstrap init configure");
    fs::write(space.shared_dir().join("log"), "").unwrap();
    space.apply(spec(2)).await;
    space.ready().await;
    assert_eq!(in_order(&log()), "init configure");
    // Who joins later catches up alone.
    space.patch(json!({"spec": {"count": 5}})).await;
    space.ready().await;
}

#[tokio::test]
async fn a_failure_stops_all_until_it_is_mended() {
    let Some(space) = Space::new("stopall").await else { return };
    let spec = |text: &str| {
        json!({
            "count": 3, "node": shared(&space),
            "phases": {"configure": script(text)},
            "converge": {
                "retry": {"limit": 1, "backoff": "1s"},
                "rollout": {"onFailure": "StopAll", "maxParallel": 1}
            }
        })
    };
    space.apply(spec("echo {{ node.name }} >>/shared/log; false")).await;
    let stalled = space.until("RolloutStopped", |group| condition(group, "Stalled").1 == "RolloutStopped").await;
    let message = condition(&stalled, "Stalled").2;
    assert!(message.contains("attempt 2") && message.ends_with("(2 nodes wait for that)"), "{message}");
    let log = fs::read_to_string(space.shared_dir().join("log")).unwrap();
    let nodes: BTreeSet<&str> = log.lines().collect();
    assert_eq!((nodes.len(), log.lines().count()), (1, 2), "one node used its attempts up, no other began: {log}");
    space.apply(spec("true")).await;
    space.ready().await;
}

#[tokio::test]
async fn a_changed_template_replaces_nodes_in_their_places_and_within_what_may_be_unavailable() {
    let Some(space) = Space::new("replace").await else { return };
    let spec = |value: &str| {
        let mut node = busybox();
        node["pod"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": value}]);
        json!({"count": 4, "node": node, "phases": {"configure": script("sleep 0.5")}})
    };
    space.apply(spec("1")).await;
    space.ready().await;
    let uids = || async {
        let list = space.pods().list(&ListParams::default()).await.unwrap();
        list.items.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>()
    };
    let before = uids().await;
    space.apply(spec("2")).await;
    let mut fewest = 4;
    loop {
        let group = space.groups().get("web").await.unwrap();
        let pods = space.pods().list(&ListParams::default()).await.unwrap();
        let ready = |pod: &&k8s_openapi::api::core::v1::Pod| {
            let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            pod.metadata.deletion_timestamp.is_none()
                && conditions.clone().any(|c| c.type_ == "Ready" && c.status == "True")
        };
        fewest = fewest.min(pods.items.iter().filter(ready).count());
        let status = group.status.clone().unwrap_or_default();
        if status.updated_replicas == 4
            && condition(&group, "Ready").0 == "True"
            && status.observed_generation == group.metadata.generation
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(fewest, 3, "one at a time");
    assert_eq!(space.pod_names().await, ["web-0", "web-1", "web-2", "web-3"]);
    assert!(before.is_disjoint(&uids().await), "every pod is a new one");
    assert_eq!(space.kubectl_exec("web-2", "echo $VERSION; hostname").await, "2\nweb-2\n");
}

#[tokio::test]
async fn a_surge_makes_the_new_ones_first() {
    let Some(space) = Space::new("surge").await else { return };
    let spec = |value: &str| {
        let mut node = busybox();
        node["pod"]["template"]["metadata"] = json!({"annotations": {"version": value}});
        json!({
            "count": 2, "node": node, "phases": {"configure": script("true")},
            "converge": {"rollout": {"maxSurge": 1, "maxUnavailable": 0}}
        })
    };
    space.apply(spec("1")).await;
    space.ready().await;
    space.apply(spec("2")).await;
    space.ready().await;
    let status = space.groups().get("web").await.unwrap().status.unwrap();
    assert_eq!((status.replicas, status.updated_replicas), (2, 2));
    wait("two pods", || async {
        let names = space.pod_names().await;
        if names.len() == 2 { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

/// Volumes that claims of a test's own class are bound to.
pub async fn volumes(space: &Space, number: usize) {
    let api: Api<PersistentVolume> = Api::all(space.client.clone());
    for n in 0..number {
        let name = format!("{}-{n}", space.name);
        let path = space.shared_dir().join(format!("volume-{n}"));
        let volume = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": space.name,
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": path, "type": "DirectoryOrCreate"}
            }
        }));
        api.create(&PostParams::default(), &volume.unwrap()).await.expect("a volume");
    }
}

#[tokio::test]
async fn a_node_keeps_its_claim_and_its_name() {
    let Some(space) = Space::new("claims").await else { return };
    volumes(&space, 2).await;
    let spec = |value: &str, retention: &str| {
        let mut node = busybox();
        let container = &mut node["pod"]["template"]["spec"]["containers"][0];
        container["env"] = json!([{"name": "VERSION", "value": value}]);
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        node["pod"]["serviceName"] = json!("nodes");
        node["pod"]["volumeClaimTemplates"] = json!([{
            "metadata": {"name": "data", "labels": {"kind": "test"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": space.name, "resources": {"requests": {"storage": "1Mi"}}}
        }]);
        node["pod"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": retention});
        json!({"count": 2, "node": node, "phases": {"configure": script("echo {{ node.name }} >>/data/log")}})
    };
    space.apply(spec("1", "Retain")).await;
    space.ready().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(space.client.clone(), &space.name);
    let names = || async {
        let list = claims.list(&ListParams::default().labels("pallet.dev/group=web,kind=test")).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["data-web-0", "data-web-1"]);
    let host = space.kubectl_exec("web-1", "grep web-1 /etc/hosts").await;
    assert!(host.contains(&format!("web-1.nodes.{}.svc", space.name)), "{host}");
    // Replaced, and shrunk and grown again: the data is there.
    space.apply(spec("2", "Retain")).await;
    space.ready().await;
    space.patch(json!({"spec": {"count": 1}})).await;
    space.ready().await;
    assert_eq!(names().await, ["data-web-0", "data-web-1"]);
    space.patch(json!({"spec": {"count": 2}})).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-1", "cat /data/log").await, "web-1\nweb-1\nweb-1\n");
    // Where the policy says so, they go with the nodes.
    space.apply(spec("2", "Delete")).await;
    space.patch(json!({"spec": {"count": 1}})).await;
    wait("the claim of web-1 goes", || async {
        let names = names().await;
        if names == ["data-web-0"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}
