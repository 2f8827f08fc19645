//! Labels of a node's objects that somebody edits: the objects are found again or reported, without a restart of the operator.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    harness::{Space, busybox, condition, reason, script, wait},
    rollouts::volumes,
};

/// How many requests the operator may make in the time that a test looks at it, at rest.
const AT_REST: usize = 6;

async fn label(space: &Space, pod: &str, value: Value) {
    let patch = json!({"metadata": {"labels": {"pallet.dev/group": value}}});
    space.pods().patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.expect("the label");
}

async fn settled(what: &str) -> Option<Space> {
    let space = Space::new(what).await?;
    let phases = json!({"configure": script("echo done >/etc/mark"), "destroy-server": script("true")});
    space.apply(json!({"count": 2, "node": busybox(), "phases": phases})).await;
    space.ready().await;
    Some(space)
}

#[tokio::test]
async fn a_pod_with_the_label_of_another_group_is_replaced_when_it_is_deleted() {
    let Some(space) = settled("relabelled").await else { return };
    let uid = space.pods().get("web-1").await.unwrap().uid();
    label(&space, "web-1", "debug".into()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    space.delete_pod("web-1").await;
    wait("a new pod", || async {
        match space.pods().get_opt("web-1").await.unwrap() {
            Some(pod) if pod.uid() != uid => Ok(()),
            other => Err(format!("{:?}", other.map(|pod| pod.metadata))),
        }
    })
    .await;
    space.ready().await;
    // And a relabelled one is removed with its group.
    label(&space, "web-0", "debug".into()).await;
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    wait("the group is gone", || async {
        match space.groups().get_opt("web").await.unwrap() {
            None => Ok(()),
            Some(group) => Err(format!("{:?}", group.status)),
        }
    })
    .await;
    wait("the pods are gone", || async {
        let names = space.pod_names().await;
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_pod_without_its_label_is_a_conflict_until_it_is_put_back() {
    let Some(space) = settled("unlabelled").await else { return };
    let uid = space.pods().get("web-1").await.unwrap().uid();
    label(&space, "web-1", Value::Null).await;
    space.node_until("web-1", "the conflict is reported", |node| reason(node) == "NameConflict").await;
    let group = space.until("not Ready", |group| condition(group, "Ready").0 == "False").await;
    assert!(condition(&group, "Ready").2.contains("web-1"), "{:?}", condition(&group, "Ready"));
    let before = space.requests().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = space.requests();
    assert!(after.len() - before <= AT_REST, "{:?}", &after[before..]);
    label(&space, "web-1", "web".into()).await;
    space.ready().await;
    assert_eq!(space.pods().get("web-1").await.unwrap().uid(), uid, "the same pod");
    assert_eq!(space.kubectl_exec("web-1", "cat /etc/mark").await, "done\n");
    assert_eq!(space.events("DestroySkipped").await, 0, "the pod lives");
    // One that is deleted afterwards is replaced at once.
    space.delete_pod("web-1").await;
    wait("a new pod", || async {
        match space.pods().get_opt("web-1").await.unwrap() {
            Some(pod) if pod.uid() != uid => Ok(()),
            other => Err(format!("{:?}", other.map(|pod| pod.metadata))),
        }
    })
    .await;
    space.ready().await;
    assert_eq!(space.events("DestroySkipped").await, 1);
}

#[tokio::test]
async fn a_pod_that_goes_without_its_label_is_replaced() {
    let Some(space) = settled("unlabelled-lost").await else { return };
    label(&space, "web-1", Value::Null).await;
    space.node_until("web-1", "the conflict is reported", |node| reason(node) == "NameConflict").await;
    space.delete_pod("web-1").await;
    // Nobody tells of it: it is asked for again.
    space.ready().await;
}

#[tokio::test]
async fn a_groupnode_gets_its_label_and_finalizer_back() {
    let Some(space) = settled("edited-node").await else { return };
    let patch = json!({"metadata": {"labels": {"pallet.dev/group": "debug"}, "finalizers": null}});
    space.nodes().patch("web-1", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    space
        .node_until("web-1", "it is as it was", |node| {
            node.labels().get("pallet.dev/group").is_some_and(|group| group == "web") && node.finalizers().len() == 1
        })
        .await;
    space.ready().await;
    assert_eq!(space.pod_names().await, ["web-0", "web-1"]);
}

#[tokio::test]
async fn a_relabelled_claim_is_still_the_nodes() {
    let Some(space) = Space::new("edited-claim").await else { return };
    volumes(&space, 2).await;
    let mut node = busybox();
    node["pod"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    node["pod"]["volumeClaimTemplates"] = json!([{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": space.name, "resources": {"requests": {"storage": "1Mi"}}}
    }]);
    node["pod"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": "Delete"});
    space
        .apply(json!({"count": 2, "node": node, "phases": {"configure": script("echo {{ node.name }} >>/data/log")}}))
        .await;
    space.ready().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(space.client.clone(), &space.name);
    let edit = |claim: &'static str, labels: Value| {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        let claims = claims.clone();
        async move { claims.patch(claim, &PatchParams::default(), &patch).await.expect("the labels") }
    };
    edit("data-web-0", json!({"pallet.dev/group": null})).await;
    edit("data-web-1", json!({"pallet.dev/group": "debug"})).await;
    let before = space.requests().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = space.requests();
    assert!(after.len() - before <= AT_REST, "{:?}", &after[before..]);
    space.delete_pod("web-0").await;
    space.delete_pod("web-1").await;
    wait("both come back on their claims", || async {
        match (space.try_exec("web-0", "cat /data/log").await, space.try_exec("web-1", "cat /data/log").await) {
            (Ok(first), Ok(second)) if first == "web-0\nweb-0\n" && second == "web-1\nweb-1\n" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    space.ready().await;
    // The operator's own claim goes with its ordinal, whatever its label says.
    space.patch(json!({"spec": {"count": 1}})).await;
    wait("the claim of web-1 goes", || async {
        let list = claims.list(&ListParams::default()).await.unwrap();
        let names: Vec<String> = list.items.iter().map(ResourceExt::name_any).collect();
        if names == ["data-web-0"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}
