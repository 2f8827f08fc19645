//! Bad input and missing things: said with field and remedy, nothing harmed, healed alone.

use kube::api::{DeleteParams, PostParams};
use pallet_api::group_node::Outcome;
use serde_json::json;

use crate::harness::{Space, busybox, condition, node, phase_result, reason, script, wait};

#[tokio::test]
async fn a_spec_that_cannot_be_read_stalls_and_leaves_running_nodes_alone() {
    let Some(space) = Space::new("invalid").await else { return };
    space.apply(json!({"count": 2, "node": busybox(), "phases": {"configure": script("true")}})).await;
    space.ready().await;
    space.patch(json!({"spec": {"count": 0, "phases": {"configure": script("echo {{ settings.nope }}")}}})).await;
    let group = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    let (_, reason, message) = condition(&group, "Stalled");
    assert_eq!(reason, "InvalidSpec");
    assert!(
        message.contains("spec.phases.configure.actions[0].exec.script: settings.nope is not declared"),
        "{message}"
    );
    assert_eq!(condition(&group, "Ready").0, "False");
    assert_eq!(space.pod_names().await.len(), 2, "nothing is removed on the word of a spec that cannot be read");
    space.patch(json!({"spec": {"count": 1, "phases": {"configure": script("true")}}})).await;
    let group = space.ready().await;
    assert_eq!(condition(&group, "Stalled").0, "");
    assert_eq!(group.status.unwrap().replicas, 1);
}

#[tokio::test]
async fn a_template_that_the_api_server_refuses_stalls_before_anything_is_made() {
    let Some(space) = Space::new("refused").await else { return };
    let mut bad = busybox();
    bad["pod"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never".into();
    space.apply(json!({"count": 2, "node": bad})).await;
    let group = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    let (_, reason, message) = condition(&group, "Stalled");
    assert_eq!(reason, "InvalidTemplate");
    assert!(message.contains("spec.node.pod.template") && message.contains("imagePolicy"), "{message}");
    assert!(space.pod_names().await.is_empty());
    space.apply(json!({"count": 1, "node": busybox()})).await;
    space.ready().await;
}

#[tokio::test]
async fn a_pod_of_somebody_else_is_neither_adopted_nor_touched() {
    let Some(mut space) = Space::bare("foreign").await else { return };
    let theirs = json!({"metadata": {"name": "web-0", "labels": {"pallet.dev/group": "web"}}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never"}]}});
    let theirs = space.pods().create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    let plain = json!({"metadata": {"name": "web-1"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never"}]}});
    space.pods().create(&PostParams::default(), &serde_json::from_value(plain).unwrap()).await.unwrap();
    space.start_operator();
    space.apply(json!({"count": 3, "node": busybox(), "phases": {"configure": script("touch /ran")}})).await;
    for name in ["web-0", "web-1"] {
        space.node_until(name, "the conflict is told", |node| reason(node) == "NameConflict").await;
    }
    space.node_until("web-2", "the others go on", |node| reason(node) == "Converged").await;
    let group = space.until("Stalled", |group| condition(group, "Stalled").1 == "NameConflict").await;
    assert!(condition(&group, "Stalled").2.contains("does not belong to this group"));
    assert!(space.try_exec("web-0", "cat /ran").await.is_err(), "nothing runs on it");
    let now = space.pods().get("web-0").await.unwrap();
    assert_eq!((now.metadata.uid, now.metadata.owner_references), (theirs.metadata.uid, None));
    for name in ["web-0", "web-1"] {
        space.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }
    space.ready().await;
}

#[tokio::test]
async fn an_image_without_a_shell_and_a_node_that_cannot_be_written_are_told_apart() {
    let Some(space) = Space::new("shell").await else { return };
    space
        .apply(json!({"count": 1, "node": node("localhost/noshell:1"), "phases": {"configure": script("true")}}))
        .await;
    let told = space.node_until("web-0", "the reason is told", |node| reason(node) == "NoShell").await;
    assert!(told.status.unwrap().conditions[0].message.contains("use an image that has one"));

    let mut read_only = busybox();
    read_only["pod"]["template"]["spec"]["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    let other = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "ro"},
        "spec": {"count": 1, "node": read_only, "phases": {"configure": script("true")}}});
    space.groups().create(&PostParams::default(), &serde_json::from_value(other).unwrap()).await.unwrap();
    let told = space.node_until("ro-0", "the reason is told", |node| reason(node) == "NoStateDirectory").await;
    assert!(told.status.unwrap().conditions[0].message.contains("no directory for the journal can be written"));

    // Two groups in trouble; a third beside them is not kept waiting.
    let good = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "good"},
        "spec": {"count": 2, "node": busybox(), "phases": {"configure": script("true")}}});
    space.groups().create(&PostParams::default(), &serde_json::from_value(good).unwrap()).await.unwrap();
    wait("the third group is ready", || async {
        let group = space.groups().get("good").await.unwrap();
        if condition(&group, "Ready").0 == "True" { Ok(()) } else { Err(format!("{:?}", group.status)) }
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_cannot_start_says_why() {
    let Some(space) = Space::new("image").await else { return };
    space.apply(json!({"count": 1, "node": node("localhost/none:1"), "phases": {"configure": script("true")}})).await;
    space.node_until("web-0", "the kubelet's reason is told", |node| reason(node) == "ErrImageNeverPull").await;
    space.apply(json!({"count": 1, "node": busybox(), "phases": {"configure": script("true")}})).await;
    // The template is not carried out yet; a new pod is made from it.
    space.delete_pod("web-0").await;
    space.ready().await;
}

/// The journal's disk fills up in the midst of a phase, by the phase itself: what became of the run is kept all the same, the
/// next one is refused with the reason before anything of it runs, and goes on when there is room.
#[tokio::test]
async fn a_full_disk_loses_no_result_and_is_told() {
    let Some(space) = Space::new("disk").await else { return };
    let mut small = busybox();
    let template = &mut small["pod"]["template"]["spec"];
    template["volumes"] = json!([{"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    template["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/var/lib/pallet"}]);
    let fills = "echo configure >>/ran; [ -e /once ] || { touch /once; dd if=/dev/zero of=/var/lib/pallet/fill bs=4096 2>/dev/null; }; true";
    space
        .apply(json!({
            "count": 1, "node": small,
            "phases": {"bootstrap": script("echo bootstrap >>/ran"), "configure": script(fills)}
        }))
        .await;
    let told = space.node_until("web-0", "the reason is told", |node| reason(node) == "DiskFull").await;
    let message = told.status.as_ref().unwrap().conditions[0].message.clone();
    assert!(message.contains("/var/lib/pallet"), "{message}");
    // That its action has succeeded could not be journalled.
    let configure = phase_result(&told, "configure").unwrap();
    assert_eq!((configure.outcome, configure.attempt), (Outcome::Failed, 1));
    assert_eq!(phase_result(&told, "bootstrap").unwrap().outcome, Outcome::Succeeded);
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, "bootstrap\nconfigure\n");
    space.kubectl_exec("web-0", "rm /var/lib/pallet/fill").await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, "bootstrap\nconfigure\nconfigure\n");
    let configure = phase_result(&space.nodes().get("web-0").await.unwrap(), "configure").unwrap();
    assert_eq!((configure.outcome, configure.attempt), (Outcome::Succeeded, 2), "refusals are no attempts");
}
