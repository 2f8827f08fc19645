//! From creation to deletion: what never changes, and what holds an object back.

use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};

use crate::{
    request::refusal,
    support::{self, SOON, group, wait_for, wait_gone},
};

fn node(name: &str, finalizers: &[&str]) -> Value {
    json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode",
        "metadata": {"name": name, "finalizers": finalizers},
        "spec": {"group": "web", "groupUid": "u", "ordinal": 0},
    })
}

#[tokio::test]
async fn a_nodes_spec_never_changes() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("groupnodes", &node("web-0", &[])).await;
            for change in [json!({"group": "db"}), json!({"groupUid": "v"}), json!({"ordinal": 1})] {
                let patch = Patch::Merge(json!({ "spec": change }));
                let refused = refusal(space.nodes().patch("web-0", &PatchParams::default(), &patch).await);
                assert_eq!(refused.code, 422);
                let says = "a GroupNode is written by the operator and never changes; edit the GroupSpec instead";
                assert!(refused.message.contains(says), "{}", refused.message);
            }
            // But for a node that is taken over from an earlier group of its name, which it then names.
            let over = |from: &str| Patch::Merge(json!({"spec": {"groupUid": "v", "takenOverFrom": from}}));
            refusal(space.nodes().patch("web-0", &PatchParams::default(), &over("w")).await);
            space.nodes().patch("web-0", &PatchParams::default(), &over("u")).await.expect("it is taken over");
            let from = Patch::Merge(json!({"spec": {"takenOverFrom": "w"}}));
            refusal(space.nodes().patch("web-0", &PatchParams::default(), &from).await);
            let mark = Patch::Merge(
                json!({"metadata": {"annotations": {"pallet.dev/delete-node": ""}, "labels": {"a": "b"}}}),
            );
            space.nodes().patch("web-0", &PatchParams::default(), &mark).await.expect("its metadata may change");
            let status = Patch::Merge(json!({"status": {"address": "10.0.0.1"}}));
            space.nodes().patch_status("web-0", &PatchParams::default(), &status).await.expect("and its status");
        })
        .await;
}

/// A group may be mended while a stored one breaks a rule that came later: only what changed is checked anew.
#[tokio::test]
async fn every_field_of_a_group_may_be_edited() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("groupspecs", &group("web", json!({"count": 1}))).await;
            for (generation, change) in (2..).zip([
                json!({"count": 5}),
                json!({"paused": true}),
                json!({"converge": {"rollout": {"maxParallel": 3}}}),
                json!({"phases": {"configure": {"actions": [{"exec": {"script": "true"}}]}}}),
                json!({"node": {"pod": {"readinessGate": false}}}),
                json!({"phases": null}),
            ]) {
                let patch = Patch::Merge(json!({ "spec": change }));
                let edited = space.groups().patch("web", &PatchParams::default(), &patch).await.expect("an edit");
                assert_eq!(edited.metadata.generation, Some(generation));
            }
            let bad =
                Patch::Merge(json!({"spec": {"phases": {"settings": {"actions": [{"exec": {"script": "true"}}]}}}}));
            let refused = refusal(space.groups().patch("web", &PatchParams::default(), &bad).await);
            assert!(refused.message.contains("move its actions to configure"), "{}", refused.message);
        })
        .await;
}

#[tokio::test]
async fn a_finalizer_holds_deletion_until_it_is_taken_off() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            let mut object = group("web", json!({}));
            object["metadata"]["finalizers"] = json!([pallet_api::FINALIZER]);
            space.create("groupspecs", &object).await;
            space.create("groupnodes", &node("web-0", &[pallet_api::FINALIZER])).await;
            let (groups, nodes) = (space.groups(), space.nodes());
            groups.delete("web", &support::background()).await.expect("deletion begins");
            nodes.delete("web-0", &support::background()).await.expect("deletion begins");
            let held = "held by its finalizer";
            wait_for(&groups, "web", held, SOON, |g| g.is_some_and(|g| g.metadata.deletion_timestamp.is_some())).await;
            wait_for(&nodes, "web-0", held, SOON, |n| n.is_some_and(|n| n.metadata.deletion_timestamp.is_some())).await;

            // The operator still writes what it learns meanwhile.
            let status = Patch::Merge(json!({"status": {"address": "10.0.0.1"}}));
            nodes.patch_status("web-0", &PatchParams::default(), &status).await.expect("a status while it is deleted");
            // Nobody can hold it anew.
            let more = Patch::Merge(json!({"metadata": {"finalizers": [pallet_api::FINALIZER, "pallet.dev/late"]}}));
            assert_eq!(refusal(nodes.patch("web-0", &PatchParams::default(), &more).await).code, 422);

            let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            groups.patch("web", &PatchParams::default(), &free).await.expect("released");
            nodes.patch("web-0", &PatchParams::default(), &free).await.expect("released");
            wait_gone(&groups, "web", SOON).await;
            wait_gone(&nodes, "web-0", SOON).await;
        })
        .await;
}

#[tokio::test]
async fn a_delete_with_another_uid_spares_the_object() {
    let Some(cluster) = support::cluster().await else { return };
    cluster
        .in_namespace(async |space| {
            space.create("groupnodes", &node("web-0", &[])).await;
            let of = |uid: &str| {
                let preconditions = Preconditions { uid: Some(uid.into()), resource_version: None };
                DeleteParams { preconditions: Some(preconditions), ..support::background() }
            };
            let stale = "00000000-0000-0000-0000-000000000000";
            assert_eq!(refusal(space.nodes().delete("web-0", &of(stale)).await).code, 409);
            let uid = space.nodes().get("web-0").await.expect("it is still there").uid().expect("a UID");
            space.nodes().delete("web-0", &of(&uid)).await.expect("its own UID");
            wait_gone(&space.nodes(), "web-0", SOON).await;
        })
        .await;
}
