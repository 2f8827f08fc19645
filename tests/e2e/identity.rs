//! Names, claims and counts: what a node, its data and its group keep when they are edited, restored or deleted from outside.

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, script, wait};

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
