//! How groups grow, shrink, rest and end.

use k8s_openapi::api::{autoscaling::v1::Scale, core::v1::Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
};
use pallet_api::{GroupNode, GroupSpec};
use serde_json::json;

use crate::harness::{Space, busybox, condition, script, wait};

fn quick(count: u32) -> serde_json::Value {
    json!({"count": count, "node": busybox(), "phases": {"configure": script("true")}})
}

async fn gone(space: &Space) {
    wait("everything is gone", || async {
        let (groups, nodes) =
            (space.groups().get_opt("web").await.unwrap(), space.nodes().list(&Default::default()).await.unwrap());
        let pods = space.pod_names().await;
        if groups.is_none() && nodes.items.is_empty() && pods.is_empty() {
            Ok(())
        } else {
            Err(format!("{groups:?} {pods:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn the_scale_subresource_grows_and_shrinks_in_order() {
    let Some(space) = Space::new("scale").await else { return };
    space.apply(quick(1)).await;
    space.ready().await;
    let scale = json!({"spec": {"replicas": 4}});
    let scaled: Scale = space.groups().patch_scale("web", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    assert_eq!(scaled.status.unwrap().selector.as_deref(), Some("pallet.dev/group=web"));
    space.ready().await;
    assert_eq!(space.pod_names().await, ["web-0", "web-1", "web-2", "web-3"]);

    // The marked one first, then the highest ordinal.
    let mark = json!({"metadata": {"annotations": {"pallet.dev/delete-node": ""}}});
    space.nodes().patch("web-1", &PatchParams::default(), &Patch::Merge(mark)).await.unwrap();
    // GroupNodes and GroupSpecs have watches of their own, without an order between them, and nothing shows that a mark was seen.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    space.patch(json!({"spec": {"count": 2}})).await;
    space.ready().await;
    wait("two pods are left", || async {
        let names = space.pod_names().await;
        if names == ["web-0", "web-2"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    // The lowest free ordinal comes back, and nothing of what was there before is taken for done.
    space.patch(json!({"spec": {"count": 3}})).await;
    space.ready().await;
    assert_eq!(space.pod_names().await, ["web-0", "web-1", "web-2"]);
    space.patch(json!({"spec": {"count": 0}})).await;
    space.ready().await;
    wait("no pod is left", || async { if space.pod_names().await.is_empty() { Ok(()) } else { Err(String::new()) } })
        .await;
}

#[tokio::test]
async fn a_lost_pod_is_replaced_on_the_same_node() {
    let Some(space) = Space::new("lost").await else { return };
    let spec = json!({"count": 2, "node": busybox(), "phases": {"bootstrap": script("echo b >>/ran"), "configure": script("echo c >>/ran")}});
    space.apply(spec).await;
    space.ready().await;
    let before = space.nodes().get("web-1").await.unwrap();
    space.delete_pod("web-1").await;
    let after = space
        .node_until("web-1", "a new pod backs the node", |node| {
            let uid = |node: &GroupNode| node.status.as_ref().and_then(|s| s.incarnation.clone()).map(|i| i.uid);
            uid(node) != uid(&before) && uid(node).is_some()
        })
        .await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-1", "cat /ran").await, "b\nc\n");
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, "b\nc\n", "the other node is left alone");
}

#[tokio::test]
async fn a_paused_group_does_nothing_until_it_is_let_go() {
    let Some(space) = Space::new("paused").await else { return };
    space.apply(quick(1)).await;
    space.ready().await;
    space
        .patch(json!({"spec": {"paused": true, "count": 3, "phases": {"configure": script("echo changed >/changed")}}}))
        .await;
    let group = space.until("Paused", |group| condition(group, "Ready").1 == "Paused").await;
    assert_eq!(group.status.unwrap().replicas, 1);
    assert_eq!(space.pod_names().await.len(), 1);
    assert!(space.try_exec("web-0", "cat /changed").await.is_err());
    space.patch(json!({"spec": {"paused": false}})).await;
    space.ready().await;
    assert_eq!(space.pod_names().await.len(), 3);
    // Pause never holds a deletion up.
    space.patch(json!({"spec": {"paused": true}})).await;
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    gone(&space).await;
}

#[tokio::test]
async fn a_changed_pod_template_is_reported_where_nothing_is_to_be_replaced_for_it() {
    let Some(space) = Space::new("template").await else { return };
    space.apply(quick(2)).await;
    space.ready().await;
    let before = space.pods().get("web-0").await.unwrap().metadata.uid;
    let mut spec = quick(2);
    spec["node"]["pod"]["template"]["metadata"] = json!({"labels": {"version": "2"}});
    spec["converge"] = json!({"rollout": {"replacement": "Never"}});
    space.apply(spec).await;
    let group =
        space.until("no node is up to date", |g| g.status.as_ref().is_some_and(|s| s.updated_replicas == 0)).await;
    assert!(condition(&group, "Ready").2.contains("2 run an older pod template"), "{:?}", condition(&group, "Ready"));
    assert_eq!(space.pods().get("web-0").await.unwrap().metadata.uid, before);
    space.delete_pod("web-0").await;
    space.until("one node is up to date", |g| g.status.as_ref().is_some_and(|s| s.updated_replicas == 1)).await;
}

#[tokio::test]
async fn deletion_in_the_background_and_in_the_foreground_ends_everything() {
    let Some(space) = Space::new("delete").await else { return };
    for policy in [PropagationPolicy::Background, PropagationPolicy::Foreground] {
        space.apply(quick(2)).await;
        space.ready().await;
        let parameters = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        space.groups().delete("web", &parameters).await.unwrap();
        gone(&space).await;
    }
}

async fn assert_released(space: &Space, before: Vec<Option<String>>) {
    wait("the group and its nodes are gone", || async {
        let group = space.groups().get_opt("web").await.unwrap();
        let nodes = space.nodes().list(&Default::default()).await.unwrap();
        if group.is_none() && nodes.items.is_empty() { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    // The garbage collector would have come by now.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let pods = space.pods().list(&Default::default()).await.unwrap().items;
    assert_eq!(pods.iter().map(|pod| pod.metadata.uid.clone()).collect::<Vec<_>>(), before);
    for pod in pods {
        assert!(pod.metadata.deletion_timestamp.is_none());
        assert!(pod.metadata.owner_references.unwrap_or_default().is_empty(), "released");
    }
}

fn orphan() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() }
}

async fn uids(space: &Space) -> Vec<Option<String>> {
    space.pods().list(&Default::default()).await.unwrap().items.into_iter().map(|pod| pod.metadata.uid).collect()
}

#[tokio::test]
async fn orphaning_releases_the_pods() {
    let Some(space) = Space::new("orphan").await else { return };
    space.apply(quick(2)).await;
    space.ready().await;
    let before = uids(&space).await;
    space.groups().delete("web", &orphan()).await.unwrap();
    assert_released(&space, before).await;
}

/// The collector has done its part and taken its mark off when the operator comes: the pods stay all the same.
#[tokio::test]
async fn orphaning_without_an_operator_releases_the_pods_when_it_comes() {
    let Some(mut space) = Space::new("orphaned").await else { return };
    space.apply(quick(2)).await;
    space.ready().await;
    let before = uids(&space).await;
    space.kill_operator().await;
    space.groups().delete("web", &orphan()).await.unwrap();
    space
        .until("the collector is done", |group| group.metadata.finalizers.as_ref().is_some_and(|f| f.len() == 1))
        .await;
    space.start_operator();
    assert_released(&space, before).await;
}

/// Nobody waits for the phase: it would go on for minutes.
#[tokio::test]
async fn a_group_can_be_deleted_while_its_phases_run() {
    let Some(space) = Space::new("midway").await else { return };
    space.apply(endless()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    gone(&space).await;
}

#[tokio::test]
async fn a_namespace_can_be_deleted_while_phases_run() {
    let Some(space) = Space::new("nsmidway").await else { return };
    space.apply(endless()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    delete_namespace(&space).await;
}

fn endless() -> serde_json::Value {
    let script = script("echo begins >>/ran; sleep 1000; echo ends >>/ran");
    let converge = json!({"rollout": {"maxParallel": "100%"}});
    json!({"count": 3, "node": busybox(), "phases": {"bootstrap": script}, "converge": converge})
}

#[tokio::test]
async fn a_namespace_can_be_deleted_with_its_groups() {
    let Some(space) = Space::new("namespace").await else { return };
    space.apply(quick(2)).await;
    space.ready().await;
    delete_namespace(&space).await;
}

async fn delete_namespace(space: &Space) {
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    namespaces.delete(&space.name, &DeleteParams::default()).await.unwrap();
    wait("the namespace is gone", || async {
        match namespaces.get_opt(&space.name).await.unwrap() {
            None => Ok(()),
            Some(namespace) => Err(format!("{:#?}", namespace.status)),
        }
    })
    .await;
}

#[tokio::test]
async fn a_group_that_lost_its_finalizer_does_not_hold_its_nodes_for_ever() {
    let Some(mut space) = Space::new("stray").await else { return };
    space.apply(quick(1)).await;
    space.ready().await;
    space.kill_operator().await;
    // What people do when an operator is gone.
    let groups: Api<GroupSpec> = space.groups();
    groups.delete("web", &DeleteParams::default()).await.unwrap();
    space.patch(json!({"metadata": {"finalizers": null}})).await;
    let nodes: Api<GroupNode> = space.nodes();
    nodes.delete("web-0", &DeleteParams::default()).await.unwrap();
    space.start_operator();
    gone(&space).await;
}
