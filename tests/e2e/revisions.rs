//! What is declared cannot be used, or does not work: nodes that are lost come back as they were declared validly last.

use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, node, reason, script, wait};
use pallet_api::GroupNode;

/// A group of two whose configure writes what `text` is.
fn spec(text: &str) -> Value {
    let mut node = busybox();
    let container = &mut node["pod"]["template"]["spec"]["containers"][0];
    container["command"] = json!(["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]);
    json!({"count": 2, "node": node, "phases": {"configure": script(&format!("echo {text} >/etc/mark"))}})
}

/// Deletes a pod, and waits for another one with this mark.
async fn lose(space: &Space, pod: &str, mark: &str) {
    let uid = space.pods().get(pod).await.expect("the pod").uid();
    space.delete_pod(pod).await;
    wait(&format!("{pod} comes back"), || async {
        match space.pods().get_opt(pod).await.unwrap() {
            Some(found) if found.uid() != uid => match space.try_exec(pod, "cat /etc/mark").await {
                Ok(text) if text == mark => Ok(()),
                other => Err(format!("{other:?}")),
            },
            other => Err(format!("{:?}", other.map(|pod| pod.metadata))),
        }
    })
    .await;
}

fn revisions(space: &Space) -> Api<ControllerRevision> {
    Api::namespaced(space.client.clone(), &space.name)
}

async fn kept(space: &Space) -> Vec<ControllerRevision> {
    let mut list = revisions(space).list(&ListParams::default()).await.expect("the revisions").items;
    list.sort_by_key(|revision| revision.revision);
    list
}

#[tokio::test]
async fn an_undefined_value_stops_no_replacement() {
    let Some(mut space) = Space::new("heal-value").await else { return };
    space.apply(spec("one")).await;
    space.ready().await;
    space.apply(spec("{{ settings.nope }}")).await;
    space.until("Stalled", |group| condition(group, "Stalled").1 == "InvalidSpec").await;
    lose(&space, "web-1", "one\n").await;
    let whole = |group: &pallet_api::GroupSpec| {
        let status = group.status.clone().unwrap_or_default();
        (status.replicas, status.converged_replicas, status.ready_replicas, status.updated_replicas) == (2, 2, 2, 2)
    };
    let group = space.until("true figures", whole).await;
    let (_, _, message) = condition(&group, "Stalled");
    assert!(
        message.contains("settings.nope is not declared") && message.contains("2 of 2 nodes are converged"),
        "{message}"
    );
    // Also by an operator that has never seen the valid one.
    space.kill_operator().await;
    space.start_operator();
    lose(&space, "web-0", "one\n").await;
    space.until("true figures", whole).await;
    // A node as a whole, too. Its successor has its name.
    let former = space.nodes().get("web-1").await.unwrap().metadata.uid;
    space.nodes().delete("web-1", &DeleteParams::default()).await.unwrap();
    wait("another node", || async {
        let nodes = space.nodes().list(&ListParams::default()).await.unwrap().items;
        let is_next = |node: &&GroupNode| reason(node) == "Converged" && node.metadata.uid != former;
        let names: Vec<String> = nodes.iter().filter(is_next).map(ResourceExt::name_any).collect();
        if names == ["web-0", "web-1"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    space.until("true figures", whole).await;
    // Nothing is removed meanwhile, and what is declared next is carried out.
    space.patch(json!({"spec": {"count": 1}})).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(space.pod_names().await.len(), 2);
    space.apply(spec("two")).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /etc/mark").await, "two\n");
    wait("one revision is left", || async {
        let kept = kept(&space).await;
        if kept.len() == 1 { Ok(()) } else { Err(format!("{:?}", kept.iter().map(|r| r.revision).collect::<Vec<_>>())) }
    })
    .await;
}

#[tokio::test]
async fn a_refused_template_stops_no_replacement() {
    let Some(space) = Space::new("heal-template").await else { return };
    space.apply(spec("one")).await;
    space.ready().await;
    let mut bad = spec("one");
    bad["node"]["pod"]["template"]["spec"]["nope"] = "x".into();
    space.apply(bad).await;
    space.until("Stalled", |group| condition(group, "Stalled").1 == "InvalidTemplate").await;
    lose(&space, "web-1", "one\n").await;
    space.nodes().delete("web-0", &DeleteParams::default()).await.unwrap();
    wait("another node", || async {
        let text = space.try_exec("web-0", "cat /etc/mark").await;
        if text.as_deref() == Ok("one\n") { Ok(()) } else { Err(format!("{text:?}")) }
    })
    .await;
    space.apply(spec("one")).await;
    space.ready().await;
}

#[tokio::test]
async fn a_deleted_secret_stops_no_replacement() {
    let Some(mut space) = Space::bare("heal-secret").await else { return };
    space.environment.push(("PALLET_SECRET_POLL", "1s".into()));
    space.secret("pw", json!({"text": "s3cret-never-stored"})).await;
    space.start_operator();
    let mut declared = spec("one");
    declared["phases"]["configure"]["actions"].as_array_mut().unwrap().push(json!({
        "name": "pw", "secretFile": {"path": "/etc/pw", "secretKeyRef": {"name": "pw", "key": "text"}}
    }));
    space.apply(declared).await;
    space.ready().await;
    for revision in kept(&space).await {
        let text = serde_json::to_string(&revision).unwrap();
        assert!(text.contains("\"pw\"") && !text.contains("s3cret-never-stored"), "{text}");
    }
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    secrets.delete("pw", &DeleteParams::default()).await.unwrap();
    space.until("Stalled", |group| condition(group, "Stalled").1 == "InvalidSpec").await;
    let uid = space.pods().get("web-1").await.unwrap().uid();
    space.delete_pod("web-1").await;
    wait("the pod comes back", || async {
        match space.pods().get_opt("web-1").await.unwrap() {
            Some(pod) if pod.uid() != uid => Ok(()),
            other => Err(format!("{:?}", other.map(|pod| pod.metadata))),
        }
    })
    .await;
    space
        .until("true figures", |group| group.status.as_ref().is_some_and(|status| status.converged_replicas == 1))
        .await;
    space.secret("pw", json!({"text": "s3cret-never-stored"})).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-1", "cat /etc/pw").await, "s3cret-never-stored");
}

#[tokio::test]
async fn a_node_that_is_lost_in_a_bad_rollout_comes_back_from_the_template_it_had() {
    let Some(mut space) = Space::new("heal-rollout").await else { return };
    let declared = |image: &str| {
        json!({
            "count": 3, "node": node(image), "phases": {"configure": script("echo done >/etc/mark")},
            "converge": {"rollout": {"maxUnavailable": 1}}
        })
    };
    let image = |pod: &str| {
        let (pods, pod) = (space.pods(), pod.to_owned());
        async move { pods.get_opt(&pod).await.unwrap().and_then(|pod| pod.spec.unwrap().containers[0].image.clone()) }
    };
    space.apply(declared("localhost/busybox:1")).await;
    space.ready().await;
    space.apply(declared("localhost/none:1")).await;
    space.node_until("web-2", "the new template does not work", |node| reason(node) == "ErrImageNeverPull").await;
    lose(&space, "web-0", "done\n").await;
    assert_eq!(image("web-0").await.as_deref(), Some("localhost/busybox:1"));
    // The node as a whole, too; and it stays.
    space.nodes().delete("web-0", &DeleteParams::default()).await.unwrap();
    wait("another node", || async {
        let text = space.try_exec("web-0", "cat /etc/mark").await;
        if text.as_deref() == Ok("done\n") { Ok(()) } else { Err(format!("{text:?}")) }
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(image("web-0").await.as_deref(), Some("localhost/busybox:1"));
    // By an operator that starts anew, too.
    space.kill_operator().await;
    space.start_operator();
    lose(&space, "web-1", "done\n").await;
    let group = space.groups().get("web").await.unwrap();
    assert_eq!(group.status.unwrap().updated_replicas, 1, "two of three serve");
    // A template that works is rolled out to all.
    let mut other = declared("localhost/busybox:1");
    other["node"]["pod"]["template"]["spec"]["containers"][0]["env"] = json!([{"name": "VERSION", "value": "2"}]);
    space.apply(other).await;
    let group = space.ready().await;
    assert_eq!(group.status.unwrap().updated_replicas, 3);
    wait("one revision is left", || async {
        let kept = kept(&space).await;
        if kept.len() == 1 { Ok(()) } else { Err(format!("{:?}", kept.iter().map(|r| r.revision).collect::<Vec<_>>())) }
    })
    .await;
}

/// An earlier version recorded a hash over the words of the template, and kept no revisions.
#[tokio::test]
async fn an_upgrade_of_the_operator_replaces_nothing() {
    let Some(mut space) = Space::new("upgrade").await else { return };
    let mut declared = spec("one");
    let container = &mut declared["node"]["pod"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"limits": {"cpu": "1000m"}, "requests": {"cpu": "10m"}});
    let object: pallet_api::GroupSpec = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"}, "spec": declared
    }))
    .unwrap();
    let group = pallet_core::group::resolve(&object, &Default::default()).unwrap();
    let pallet_core::group::NodeShape::Pod(shape) = &group.node else { panic!("a pod") };
    assert_ne!(shape.hash, shape.hash_as_written);
    space.apply(declared.clone()).await;
    space.ready().await;
    space.kill_operator().await;
    let mut before = Vec::new();
    for name in ["web-0", "web-1"] {
        let patch = json!({"metadata": {"annotations": {"pallet.dev/template-hash": shape.hash_as_written}}});
        let pod = space.pods().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        before.push(pod.uid());
        let patch = json!({"status": {"templateHash": null}});
        space.nodes().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
    for revision in kept(&space).await {
        revisions(&space).delete(&revision.name_any(), &DeleteParams::default()).await.unwrap();
    }
    space.start_operator();
    wait("a revision is kept", || async { if kept(&space).await.is_empty() { Err("none".into()) } else { Ok(()) } })
        .await;
    // And other words later: what was recorded is still known.
    declared["node"]["pod"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1".into();
    declared["phases"]["configure"] = script("echo two >/etc/mark");
    space.apply(declared).await;
    let group = space.ready().await;
    assert_eq!(group.status.unwrap().updated_replicas, 2);
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let uids = [space.pods().get("web-0").await.unwrap().uid(), space.pods().get("web-1").await.unwrap().uid()];
    assert_eq!(uids.to_vec(), before, "no pod was replaced");
}
