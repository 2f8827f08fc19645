//! What the API server refuses, and what keeps pods from running, being Ready or going: told in its own words, where users look.

use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, script, wait};

/// A webhook that cannot be reached, for one namespace. It goes with this.
struct OutOfOrder {
    api: Api<ValidatingWebhookConfiguration>,
    name: String,
}

impl OutOfOrder {
    async fn new(space: &Space, group: &str, resource: &str, operations: &[&str]) -> Self {
        let (name, label) = (format!("{}-{resource}", space.name).replace('/', "-"), space.name.clone());
        let namespaces: Api<Namespace> = Api::all(space.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": {"test": label}}}));
        namespaces.patch(&space.name, &PatchParams::default(), &patch).await.expect("the label");
        let webhook = serde_json::from_value(json!({
            "metadata": {"name": name},
            "webhooks": [{
                "name": "x.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Fail", "timeoutSeconds": 2, "clientConfig": {"url": "https://127.0.0.1:9/"},
                "namespaceSelector": {"matchLabels": {"test": label}},
                "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": operations,
                    "resources": [resource], "scope": "Namespaced"}]
            }]
        }));
        let api: Api<ValidatingWebhookConfiguration> = Api::all(space.client.clone());
        api.create(&PostParams::default(), &webhook.unwrap()).await.expect("the webhook");
        let made = Self { api, name };
        // The API server takes a moment to heed it.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        made
    }

    async fn mend(self) {
        self.api.delete(&self.name, &DeleteParams::default()).await.expect("the webhook goes");
    }
}

fn words(message: &str) {
    assert!(message.contains("failed calling webhook \"x.example.com\""), "{message}");
    assert_eq!(message.matches("failed calling webhook").count(), 1, "{message}");
    for debug in ["ApiError", "Status {", "Some("] {
        assert!(!message.contains(debug), "{message}");
    }
}

/// Case 05: `Scaling`, with the cause in the operator's log only.
#[tokio::test]
async fn a_webhook_that_is_out_of_order_is_told_in_the_api_servers_words_and_without_a_hot_loop() {
    let Some(space) = Space::new("webhook").await else { return };
    let hook = OutOfOrder::new(&space, "", "pods", &["CREATE"]).await;
    space.apply(json!({"count": 1, "node": busybox()})).await;
    let group = space.until("the refusal", |group| condition(group, "Ready").1 == "FailedCreate").await;
    words(&condition(&group, "Ready").2);
    words(&condition(&group, "Reconciling").2);
    let asked = || async {
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        space.count("create pods")
    };
    let (first, second) = (asked().await, asked().await);
    assert!(second - first <= 3, "{first} requests, and {second} after 8 s more");
    hook.mend().await;
    // An edit ends the pause.
    space.patch(json!({"spec": {"converge": {"timeout": "29m"}}})).await;
    space.ready().await;
    // A pod that is lost meanwhile: it is told at its node, too.
    let hook = OutOfOrder::new(&space, "", "pods", &["CREATE"]).await;
    space.delete_pod("web-0").await;
    let node = space
        .node_until("web-0", "the refusal at the node", |node| crate::harness::reason(node) == "FailedCreate")
        .await;
    words(&node.status.unwrap().conditions[0].message);
    hook.mend().await;
    space.ready().await;
}

#[tokio::test]
async fn refusals_of_groupnodes_claims_statuses_and_deletions_are_told_as_well() {
    let Some(space) = Space::new("hooks").await else { return };
    let hook = OutOfOrder::new(&space, "pallet.dev", "groupnodes", &["CREATE", "DELETE"]).await;
    space.apply(json!({"count": 1, "node": busybox(), "phases": {"configure": script("true")}})).await;
    let refused = |what: &'static str| move |group: &pallet_api::GroupSpec| condition(group, "Ready").2.contains(what);
    let group = space.until("GroupNodes", refused("web-0: FailedCreate: create groupnode: ")).await;
    words(&condition(&group, "Ready").2);
    hook.mend().await;
    space.ready().await;

    let hook = OutOfOrder::new(&space, "pallet.dev", "groupnodes", &["CREATE", "DELETE"]).await;
    space.patch(json!({"spec": {"count": 0}})).await;
    let group = space.until("deletions", refused("GroupNode web-0: FailedDelete: ")).await;
    words(&condition(&group, "Ready").2);
    hook.mend().await;
    space.ready().await;

    let hook = OutOfOrder::new(&space, "pallet.dev", "groupspecs/status", &["UPDATE"]).await;
    space.patch(json!({"spec": {"count": 1}})).await;
    let api: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(space.client.clone(), &space.name);
    let notes = || async {
        let list = api.list(&ListParams::default()).await.unwrap();
        let of = list.items.into_iter().filter(|event| event.reason.as_deref() == Some("FailedUpdate"));
        of.map(|event| event.note.unwrap_or_default()).collect::<Vec<_>>()
    };
    let told = wait("an event", || async { notes().await.pop().ok_or_else(String::new) }).await;
    words(&told);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert_eq!(notes().await.len(), 1, "once");
    hook.mend().await;
    space.ready().await;
}

/// Case 02: one node gone for good, for a claim that was there: the quota is asked before the name is.
#[tokio::test]
async fn a_quota_that_is_used_exactly_stops_no_rollout() {
    let Some(space) = Space::new("quota").await else { return };
    let volumes: Api<PersistentVolume> = Api::all(space.client.clone());
    for n in 0..2 {
        let path = space.shared_dir().join(format!("volume-{n}"));
        let volume = serde_json::from_value(json!({
            "metadata": {"name": format!("{}-{n}", space.name)},
            "spec": {"capacity": {"storage": "64Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": space.name,
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
        }));
        volumes.create(&PostParams::default(), &volume.unwrap()).await.expect("a volume");
    }
    let quotas: Api<ResourceQuota> = Api::namespaced(space.client.clone(), &space.name);
    let quota = json!({"metadata": {"name": "tight"}, "spec": {"hard": {"requests.storage": "128Mi", "persistentvolumeclaims": "2"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.expect("the quota");
    wait("the quota is heeded", || async {
        let quota = quotas.get("tight").await.unwrap();
        if quota.status.is_some_and(|status| status.used.is_some()) { Ok(()) } else { Err("no status".into()) }
    })
    .await;
    let spec = |version: &str, count: u32| {
        let mut node = busybox();
        node["pod"]["template"]["metadata"] = json!({"labels": {"version": version}});
        node["pod"]["template"]["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "data", "mountPath": "/data"}]);
        node["pod"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": space.name, "resources": {"requests": {"storage": "64Mi"}}
        }}]);
        json!({"count": count, "node": node, "phases": {"configure": script("echo {{ node.name }} >>/data/log")}})
    };
    space.apply(spec("1", 2)).await;
    space.ready().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(space.client.clone(), &space.name);
    let uids = || async {
        let list = claims.list(&ListParams::default()).await.unwrap();
        list.items.into_iter().map(|claim| claim.metadata.uid).collect::<Vec<_>>()
    };
    let before = uids().await;
    space.apply(spec("2", 2)).await;
    space.ready().await;
    assert_eq!(uids().await, before);
    let pods = space.pods().list(&ListParams::default().labels("version=2")).await.unwrap();
    assert_eq!(pods.items.len(), 2);
    // One more is one too many, and that is told; it needs no room when it is there already.
    space.apply(spec("2", 3)).await;
    let group = space.until("the quota is told", |group| condition(group, "Ready").1 == "QuotaExceeded").await;
    let message = condition(&group, "Ready").2;
    assert!(message.contains("exceeded quota: tight") && !message.contains("Status {"), "{message}");
}

/// What a message of the group says while a pod does not come, is not Ready, or does not go.
#[tokio::test]
async fn messages_name_the_node_and_the_cause() {
    let Some(space) = Space::new("causes").await else { return };
    let helper = |name: &str, script: &str| {
        json!({
            "name": name, "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", script]
        })
    };
    let says = |name: &'static str, node: Value, phases: Value, wanted: Vec<&'static str>| {
        let space = &space;
        async move {
            space.apply_as(name, json!({"count": 1, "node": node, "phases": phases})).await;
            let all = |group: &pallet_api::GroupSpec| {
                let message = condition(group, "Ready").2;
                wanted.iter().all(|words| message.contains(words))
            };
            space.until_as(name, &format!("{wanted:?}"), all).await
        }
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut node = busybox();
        change(&mut node["pod"]["template"]["spec"]);
        node
    };
    let init = with(&|spec| spec["initContainers"] = json!([helper("setup", "exit 3")]));
    let sidecar = with(&|spec| spec["containers"].as_array_mut().unwrap().push(helper("helper", "exit 4")));
    let nowhere = with(&|spec| spec["nodeSelector"] = json!({"example.com/none": "such"}));
    let configure = || json!({"configure": script("true")});
    tokio::join!(
        says("init", init, configure(), vec!["init-0: ", "init container setup", "exit code 3"]),
        says("sidecar", sidecar, configure(), vec!["sidecar-0: container helper", "exit code 4"]),
        says("nowhere", nowhere, configure(), vec!["nowhere-0: Unschedulable: ", "affinity/selector"]),
    );
    let node = space.nodes().get("sidecar-0").await.unwrap();
    let told = node.status.unwrap().conditions[0].message.clone();
    assert!(told.contains("exit code 4"), "{told}");

    // A replacement that finds no place is named at the group.
    space.apply(json!({"count": 2, "node": busybox(), "phases": configure()})).await;
    space.ready().await;
    let nowhere = with(&|spec| spec["nodeSelector"] = json!({"example.com/none": "such"}));
    space.apply(json!({"count": 2, "node": nowhere, "phases": configure()})).await;
    let group = space.until("the replacement", |group| condition(group, "Ready").2.contains(": Unschedulable: ")).await;
    let told = condition(&group, "Ready").2;
    assert!(told.contains("web-1: Unschedulable: ") || told.contains("web-0: Unschedulable: "), "{told}");

    // A finalizer of somebody else holds a pod.
    let pods: Api<Pod> = space.pods();
    let held = "init-0";
    let finalizers = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    pods.patch(held, &PatchParams::default(), &finalizers(json!(["example.com/keep"]))).await.expect("the finalizer");
    pods.delete(held, &DeleteParams::default().grace_period(0)).await.expect("the deletion");
    let group =
        space.until_as("init", "what holds it", |group| condition(group, "Ready").2.contains("example.com/keep")).await;
    let told = condition(&group, "Ready").2;
    assert!(told.contains("init-0: PodTerminating") && told.contains("it was to end by"), "{told}");
    pods.patch(held, &PatchParams::default(), &finalizers(Value::Null)).await.expect("it is let go");
}
