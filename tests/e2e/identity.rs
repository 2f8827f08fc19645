//! Names, claims and counts: what a node, its data and its group keep when they are edited, restored or deleted from outside.

use k8s_openapi::api::{
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim},
    events::v1::Event,
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    harness::{Space, busybox, condition, script, shared, wait},
    sshd::Hosts,
};

/// Pods that take their time to end, as those of a database do.
fn slow_to_end(seconds: u32) -> Value {
    let mut node = busybox();
    let spec = &mut node["pod"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(seconds);
    spec["containers"][0]["command"] = json!(["sh", "-c", "trap '' TERM; sleep infinity & wait"]);
    node
}

async fn node_names(space: &Space) -> Vec<String> {
    space.nodes().list(&Default::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect()
}

/// Case 18: it ended with web-0, web-3 and web-4.
#[tokio::test]
async fn a_count_that_flaps_renames_no_node() {
    let Some(space) = Space::new("flaps").await else { return };
    for service in [false, true] {
        let mut node = slow_to_end(8);
        if service {
            node["pod"]["serviceName"] = json!("web");
        }
        space.apply(json!({"count": 3, "node": node, "phases": {"configure": script("true")}})).await;
        space.ready().await;
        space.patch(json!({"spec": {"count": 1}})).await;
        wait("two nodes are going", || async {
            let nodes = space.nodes().list(&Default::default()).await.unwrap().items;
            let going = nodes.iter().filter(|node| node.metadata.deletion_timestamp.is_some()).count();
            if going == 2 { Ok(()) } else { Err(format!("{going}")) }
        })
        .await;
        space.patch(json!({"spec": {"count": 3}})).await;
        space.ready().await;
        assert_eq!(node_names(&space).await, ["web-0", "web-1", "web-2"]);
    }
}

// ---- claims --------------------------------------------------------------------------------------------------------

fn claims(space: &Space) -> Api<PersistentVolumeClaim> {
    Api::namespaced(space.client.clone(), &space.name)
}

/// Volumes for claims of the space's own class, which lets them grow or not.
async fn volumes(space: &Space, number: usize, grows: bool) {
    let class = json!({
        "metadata": {"name": space.name}, "provisioner": "kubernetes.io/no-provisioner", "allowVolumeExpansion": grows
    });
    let classes: Api<StorageClass> = Api::all(space.client.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.expect("a class");
    let api: Api<PersistentVolume> = Api::all(space.client.clone());
    for n in 0..number {
        let path = space.shared_dir().join(format!("volume-{n}"));
        let volume = serde_json::from_value(json!({
            "metadata": {"name": format!("{}-{n}", space.name)},
            "spec": {
                "capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": space.name,
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": path, "type": "DirectoryOrCreate"}
            }
        }));
        api.create(&PostParams::default(), &volume.unwrap()).await.expect("a volume");
    }
}

fn entry(space: &Space, name: &str, storage: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": space.name, "resources": {"requests": {"storage": storage}}
    }})
}

fn with_claims(count: u32, entries: &[Value]) -> Value {
    let mut node = busybox();
    node["pod"]["volumeClaimTemplates"] = json!(entries);
    let mounts = entries.iter().map(|entry| {
        let name = &entry["metadata"]["name"];
        json!({"name": name, "mountPath": format!("/{}", name.as_str().unwrap())})
    });
    node["pod"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts.collect();
    json!({"count": count, "node": node, "phases": {"configure": script("true")}})
}

async fn differs(space: &Space, reason: &str) -> String {
    let group = space.until(reason, |group| condition(group, "ClaimsDiffer").1 == reason).await;
    condition(&group, "ClaimsDiffer").2
}

/// Case 22: the second group used the claim of the first, and deleting the first deleted the data of both.
#[tokio::test]
async fn two_groups_never_share_a_claim() {
    let Some(space) = Space::new("shared-claim").await else { return };
    volumes(&space, 2, false).await;
    let mut first = with_claims(1, &[entry(&space, "data", "1Mi")]);
    first["node"]["pod"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete"});
    space.apply_as("blue-green", first).await;
    space.ready_as("blue-green").await;
    let mut second = entry(&space, "data-blue", "1Mi");
    second["claimPolicy"] = json!("UseExisting");
    space.apply_as("green", with_claims(1, &[second])).await;
    let stalled = space.until_as("green", "it is told", |group| condition(group, "Stalled").1 == "NameConflict").await;
    let message = condition(&stalled, "Stalled").2;
    assert!(message.contains("claim data-blue-green-0 belongs to group blue-green"), "{message}");
    assert_eq!(space.pod_names().await, ["blue-green-0"]);
    // When that is gone, with its claim, the name is free.
    space.groups().delete("blue-green", &DeleteParams::default()).await.unwrap();
    space.ready_as("green").await;
    let claim = claims(&space).get("data-blue-green-0").await.unwrap();
    assert_eq!(claim.labels()["pallet.dev/group"], "green");
}

/// A claim that a user made is used where that is declared, is never deleted, and is made again when it is lost.
#[tokio::test]
async fn a_claim_of_a_user_is_used_where_that_is_declared() {
    let Some(space) = Space::new("users-claim").await else { return };
    volumes(&space, 3, false).await;
    let object = json!({"metadata": {"name": "data-web-0"}, "spec": entry(&space, "data", "1Mi")["spec"]});
    let theirs = serde_json::from_value(object).unwrap();
    let theirs = claims(&space).create(&PostParams::default(), &theirs).await.unwrap();
    let mut data = entry(&space, "data", "1Mi");
    let spec = |data: &Value| {
        let mut spec = with_claims(1, std::slice::from_ref(data));
        spec["node"]["pod"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Delete"});
        spec
    };
    space.apply(spec(&data)).await;
    let stalled = space.until("it is told", |group| condition(group, "Stalled").1 == "NameConflict").await;
    let message = condition(&stalled, "Stalled").2;
    assert!(message.contains("volumeClaimTemplates[0].claimPolicy to UseExisting"), "{message}");
    assert!(space.pod_names().await.is_empty());
    data["claimPolicy"] = json!("UseExisting");
    space.apply(spec(&data)).await;
    space.ready().await;
    let used = claims(&space).get("data-web-0").await.unwrap();
    assert_eq!((used.uid(), used.labels()["pallet.dev/node"].as_str()), (theirs.uid(), "web-0"));
    // The group goes, and the claim stays.
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    wait("the group is gone", || async {
        if space.groups().get_opt("web").await.unwrap().is_none() { Ok(()) } else { Err(String::new()) }
    })
    .await;
    assert_eq!(claims(&space).get("data-web-0").await.unwrap().metadata.deletion_timestamp, None);
    space.apply(spec(&data)).await;
    space.ready().await;
    // It is deleted under its pod: that is told, and when both are gone both are made again.
    claims(&space).delete("data-web-0", &DeleteParams::default()).await.unwrap();
    let message = differs(&space, "ClaimTerminating").await;
    assert!(message.contains("it goes with pod web-0"), "{message}");
    space.delete_pod("web-0").await;
    wait("a new claim", || async {
        let claim = claims(&space).get_opt("data-web-0").await.unwrap();
        match claim {
            Some(claim) if claim.uid() != theirs.uid() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    space.until("nothing differs", |group| condition(group, "ClaimsDiffer").0.is_empty()).await;
    space.ready().await;
}

/// Case 20: claims were made that no pod mounted, and the group was Ready.
#[tokio::test]
async fn a_claim_that_is_added_later_is_mounted() {
    let Some(space) = Space::new("added-claim").await else { return };
    volumes(&space, 2, false).await;
    space.apply(with_claims(2, &[])).await;
    space.ready().await;
    // The template stays as it is: only the claim is new.
    let mut spec = with_claims(2, &[]);
    spec["node"]["pod"]["volumeClaimTemplates"] = json!([entry(&space, "data", "1Mi")]);
    space.apply(spec).await;
    space.ready().await;
    let pods = space.pods().list(&Default::default()).await.unwrap().items;
    assert_eq!(pods.len(), 2);
    for pod in pods {
        let volumes = pod.spec.unwrap().volumes.unwrap_or_default();
        assert!(volumes.iter().any(|volume| volume.persistent_volume_claim.is_some()), "{volumes:?}");
    }
}

#[tokio::test]
async fn a_claim_grows_and_what_cannot_change_is_told() {
    let Some(space) = Space::new("grown-claim").await else { return };
    volumes(&space, 1, false).await;
    space.apply(with_claims(1, &[entry(&space, "data", "1Mi")])).await;
    space.ready().await;
    let requested = || async {
        let claim = claims(&space).get("data-web-0").await.unwrap();
        claim.spec.unwrap().resources.unwrap().requests.unwrap()["storage"].0.clone()
    };
    space.apply(with_claims(1, &[entry(&space, "data", "512Ki")])).await;
    let message = differs(&space, "CannotShrink").await;
    assert!(message.contains("spec.resources.requests.storage: claim data-web-0 has 1Mi"), "{message}");
    space.apply(with_claims(1, &[entry(&space, "data", "2Mi")])).await;
    let message = differs(&space, "ExpansionRefused").await;
    assert!(message.contains("resize"), "in the API server's words: {message}");
    // The StorageClass is edited, and the claim is declared once more.
    let classes: Api<StorageClass> = Api::all(space.client.clone());
    let grows = json!({"allowVolumeExpansion": true});
    classes.patch(&space.name, &PatchParams::default(), &Patch::Merge(grows)).await.unwrap();
    // The admission plugin of the API server has a cache of its own.
    wait("the claim grows", || async {
        space.apply(with_claims(1, &[entry(&space, "data", "3Mi")])).await;
        space.apply(with_claims(1, &[entry(&space, "data", "2Mi")])).await;
        let has = requested().await;
        if has != "1Mi" { Ok(()) } else { Err(has) }
    })
    .await;
    let mut other = entry(&space, "data", &requested().await);
    other["spec"]["storageClassName"] = json!("other");
    space.apply(with_claims(1, &[other])).await;
    let message = differs(&space, "ImmutableField").await;
    assert!(message.contains("spec.storageClassName: claim data-web-0"), "{message}");
    assert_eq!(condition(&space.ready().await, "Ready").1, "Converged");
}

// ---- destroy-server ------------------------------------------------------------------------------------------------

fn with_destroy(space: &Space, seconds: u32, command: &str) -> Value {
    let mut node = shared(space);
    let spec = &mut node["pod"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(seconds);
    spec["containers"][0]["command"] = json!(["sh", "-c", command]);
    json!({"count": 2, "node": node, "phases": {
        "bootstrap": script("echo {{ node.name }} >>/shared/members"),
        "destroy-server": script("echo {{ node.name }} >>/shared/left")
    }})
}

/// Case 10: it was skipped without a word. What is said is said where it can be written.
#[tokio::test]
async fn a_deleted_namespace_says_that_destroy_server_was_skipped() {
    let Some(space) = Space::new("gone-namespace").await else { return };
    space.apply(with_destroy(&space, 1, "trap 'exit 0' TERM; sleep infinity & wait")).await;
    space.ready().await;
    let namespaces: Api<Namespace> = Api::all(space.client.clone());
    namespaces.delete(&space.name, &DeleteParams::default()).await.unwrap();
    wait("the namespace is gone", || async {
        match namespaces.get_opt(&space.name).await.unwrap() {
            None => Ok(()),
            Some(namespace) => Err(format!("{:#?}", namespace.status)),
        }
    })
    .await;
    let events: Api<Event> = Api::namespaced(space.client.clone(), "default");
    let about = ListParams::default().fields(&format!("regarding.kind=Namespace,regarding.name={}", space.name));
    let found = events.list(&about).await.unwrap().items;
    let notes: Vec<String> = found.iter().filter_map(|event| event.note.clone()).collect();
    let said = notes.iter().any(|note| note.contains("of group web") && note.contains("delete the groups first"));
    assert!(said, "{notes:?}");
    assert_eq!(found[0].reason.as_deref(), Some("DestroySkipped"));
}

/// Somebody deletes the group and its pods at once, as the deletion of a namespace did before Kubernetes 1.33.
#[tokio::test]
async fn destroy_server_runs_while_a_pod_that_others_delete_still_runs() {
    let Some(mut space) = Space::new("last-words").await else { return };
    space.apply(with_destroy(&space, 20, "trap '' TERM; sleep infinity & wait")).await;
    space.ready().await;
    space.kill_operator().await;
    for pod in space.pod_names().await {
        space.delete_pod(&pod).await;
    }
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    space.start_operator();
    let left = space.shared_dir().join("left");
    wait("both have left", || async {
        let text = std::fs::read_to_string(&left).unwrap_or_default();
        let mut names: Vec<&str> = text.lines().collect();
        names.sort_unstable();
        if names == ["web-0", "web-1"] { Ok(()) } else { Err(text) }
    })
    .await;
}

// ---- the count -----------------------------------------------------------------------------------------------------

fn small(count: Option<u32>) -> Value {
    let mut spec = json!({"node": busybox(), "phases": {"configure": script("true")}});
    if let Some(count) = count {
        spec["count"] = json!(count);
    }
    spec
}

async fn apply_by(space: &Space, manager: &str, spec: Value) {
    let object =
        json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"}, "spec": spec});
    space.groups().patch("web", &PatchParams::apply(manager), &Patch::Apply(object)).await.expect("no conflict");
}

/// kubectl apply, which compares with what it applied last.
async fn kubectl_apply(space: &Space, spec: Value) {
    let object =
        json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"}, "spec": spec});
    let path = space.scratch("group.json");
    std::fs::write(&path, object.to_string()).unwrap();
    let output = Command::new("kubectl").args(["-n", &space.name, "apply", "-f"]).arg(&path).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn pod_uids(space: &Space) -> Vec<Option<String>> {
    space.pods().list(&Default::default()).await.unwrap().items.into_iter().map(|pod| pod.metadata.uid).collect()
}

/// The count is back in the spec, where the scale subresource finds it.
async fn declared(space: &Space, count: u32) {
    space.until("the count is declared", |group| group.spec.count == Some(count)).await;
    let scale = space.groups().get_scale("web").await.expect("a scale");
    assert_eq!(scale.spec.unwrap().replicas, Some(count as i32));
}

/// Case 06: three nodes became one within seconds.
#[tokio::test]
async fn a_count_that_is_left_out_leaves_the_nodes_there_are() {
    let Some(space) = Space::new("no-count").await else { return };
    apply_by(&space, "git", small(Some(3))).await;
    space.ready().await;
    let before = pod_uids(&space).await;
    apply_by(&space, "git", small(None)).await;
    declared(&space, 3).await;
    space.ready().await;
    assert_eq!(pod_uids(&space).await, before);
    // An autoscaler has it from now on, and Git has no say in it.
    let scale = json!({"spec": {"replicas": 4}});
    space.groups().patch_scale("web", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    space.ready().await;
    apply_by(&space, "git", small(None)).await;
    space.ready().await;
    assert_eq!((pod_uids(&space).await.len(), space.groups().get("web").await.unwrap().spec.count), (4, Some(4)));
}

#[tokio::test]
async fn a_count_that_kubectl_apply_leaves_out_leaves_the_nodes_there_are() {
    let Some(space) = Space::new("no-count-kubectl").await else { return };
    kubectl_apply(&space, small(Some(2))).await;
    space.ready().await;
    let before = pod_uids(&space).await;
    kubectl_apply(&space, small(None)).await;
    declared(&space, 2).await;
    space.ready().await;
    assert_eq!(pod_uids(&space).await, before);
}

/// A new group without a count has one node and a scale, and nobody owns the field: who declares it meets no conflict.
#[tokio::test]
async fn a_new_group_without_a_count_has_one_node() {
    let Some(mut space) = Space::bare("new-count").await else { return };
    apply_by(&space, "git", small(None)).await;
    // What the operator is for: the API server has no scale where the field is absent.
    let error = space.groups().get_scale("web").await.expect_err("no scale");
    assert!(error.to_string().contains("does not exist"), "{error}");
    space.start_operator();
    declared(&space, 1).await;
    space.ready().await;
    wait("nobody owns the count", || async {
        let owners = space.groups().get("web").await.unwrap().metadata.managed_fields.unwrap_or_default();
        let named = owners.iter().filter_map(|owner| owner.manager.clone()).collect::<Vec<_>>();
        if named.iter().all(|name| name != "pallet-operator-count") { Ok(()) } else { Err(format!("{named:?}")) }
    })
    .await;
    apply_by(&space, "git", small(Some(2))).await;
    space.ready().await;
    assert_eq!(pod_uids(&space).await.len(), 2);
}

// ---- restored objects ----------------------------------------------------------------------------------------------

/// What a backup holds of an object: without what the API server gives it.
fn saved<K: serde::Serialize>(object: &K) -> Value {
    let mut object = serde_json::to_value(object).unwrap();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp"] {
        metadata.remove(field);
    }
    metadata.remove("deletionGracePeriodSeconds");
    object
}

async fn restore<K>(api: &Api<K>, objects: &[Value])
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    for object in objects {
        let object: K = serde_json::from_value(object.clone()).unwrap();
        api.create(&PostParams::default(), &object).await.expect("a restored object");
    }
}

/// Deletes everything of a group at once, as losing a namespace does, without the operator.
async fn lose(space: &Space) {
    let off = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for node in node_names(space).await {
        space.nodes().patch(&node, &PatchParams::default(), &off).await.unwrap();
        space.nodes().delete(&node, &DeleteParams::default()).await.unwrap();
    }
    space.groups().patch("web", &PatchParams::default(), &off).await.unwrap();
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    for pod in space.pod_names().await {
        let _ = space.pods().delete(&pod, &DeleteParams::default().grace_period(0)).await;
    }
    wait("all is gone", || async {
        let (nodes, pods) = (node_names(space).await, space.pod_names().await);
        if nodes.is_empty() && pods.is_empty() { Ok(()) } else { Err(format!("{nodes:?} {pods:?}")) }
    })
    .await;
}

/// Case 19: three dead GroupNodes stayed, and web-3 to web-5 were made beside them with new claims.
#[tokio::test]
async fn a_restored_group_has_its_nodes_and_its_claims() {
    let Some(mut space) = Space::new("restored").await else { return };
    volumes(&space, 2, false).await;
    let mut spec = with_claims(2, &[entry(&space, "data", "1Mi")]);
    spec["phases"]["configure"] = script("echo {{ node.name }} >>/data/log");
    space.apply(spec).await;
    let group = saved(&space.ready().await);
    let nodes: Vec<Value> = space.nodes().list(&Default::default()).await.unwrap().items.iter().map(saved).collect();
    let pods = space.pods().list(&Default::default()).await.unwrap().items;
    space.kill_operator().await;
    lose(&space).await;
    // The order of Velero: pods, then the operator's objects by kind. One pod has its owners of old, one has none.
    let restored: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let mut pod = saved(pod);
            pod["status"] = Value::Null;
            pod["spec"]["nodeName"] = Value::Null;
            if pod["metadata"]["name"] == "web-1" {
                pod["metadata"]["ownerReferences"] = Value::Null;
            }
            pod
        })
        .collect();
    restore(&space.pods(), &restored).await;
    space.start_operator();
    restore(&space.nodes(), &nodes).await;
    restore(&space.groups(), &[group]).await;
    let ready = space.ready().await;
    assert_eq!(node_names(&space).await, ["web-0", "web-1"]);
    assert_eq!(condition(&ready, "NodesTakenOver").1, "GroupRecreated");
    let owned = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.owner_references().iter().any(|owner| Some(&owner.uid) == ready.metadata.uid.as_ref())
    };
    wait("pods of the new group", || async {
        let pods = space.pods().list(&Default::default()).await.unwrap().items;
        let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        if names == ["web-0", "web-1"] && pods.iter().all(owned) { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    space.ready().await;
    assert_eq!(claims(&space).list(&Default::default()).await.unwrap().items.len(), 2);
    let log = space.exec_until("web-1", "test $(wc -l </data/log) -ge 2 && cat /data/log").await;
    assert!(log.starts_with("web-1\nweb-1\n"), "the data of old: {log}");
}

/// The GroupSpec alone was lost and is made anew: its pods go on running.
#[tokio::test]
async fn a_group_that_is_made_anew_beside_its_nodes_keeps_their_pods() {
    let Some(mut space) = Space::new("remade").await else { return };
    space.apply(small(Some(2))).await;
    let group = saved(&space.ready().await);
    let before = pod_uids(&space).await;
    space.kill_operator().await;
    let off = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    space.groups().patch("web", &PatchParams::default(), &off).await.unwrap();
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    restore(&space.groups(), &[group]).await;
    space.start_operator();
    let ready = space.until("they are taken over", |group| condition(group, "NodesTakenOver").0 == "True").await;
    assert!(condition(&ready, "NodesTakenOver").2.contains("web-0, web-1"), "{:?}", ready.status);
    space.ready().await;
    assert_eq!(pod_uids(&space).await, before);
    // And they go with the group.
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    wait("all is gone", || async {
        let (nodes, pods) = (node_names(&space).await, space.pod_names().await);
        if nodes.is_empty() && pods.is_empty() { Ok(()) } else { Err(format!("{nodes:?} {pods:?}")) }
    })
    .await;
}

// ---- hosts ---------------------------------------------------------------------------------------------------------

/// Two groups in two namespaces configured one host in turn, and neither said so. The one that was there first has it.
#[tokio::test]
async fn two_namespaces_never_share_a_host() {
    let Some(mut space) = Space::bare("host-first").await else { return };
    let Some(other) = Space::bare("host-second").await else { return };
    space.also = Some(other.name.clone());
    space.start_operator();
    let hosts = Hosts::new(&space, 1).await;
    let key = std::fs::read_to_string(&hosts.all[0].key).unwrap();
    other.secret("login", json!({"ssh-privatekey": key})).await;
    let phases = |who: &str| json!({"configure": script(&format!("echo {who} >>/root/who"))});
    let spec = |who: &str| json!({"count": 1, "node": hosts.node(), "phases": phases(who)});
    space.apply(spec("first")).await;
    space.ready().await;
    other.apply(spec("second")).await;
    let short = other.until("it is told", |group| condition(group, "Stalled").1 == "NotEnoughHosts").await;
    let message = condition(&short, "Stalled").2;
    assert!(message.contains(&format!("a node of a group in namespace {}", space.name)), "{message}");
    assert_eq!(hosts.run(&hosts.all[0].name, "cat /root/who").await, "first\n");
    // When it is let go, the other has it.
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    other.ready().await;
    assert_eq!(hosts.run(&hosts.all[0].name, "cat /root/who").await, "first\nsecond\n");
}
