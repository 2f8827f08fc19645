//! Templates: compared by their meaning, and handed to the API server as they were declared.

use std::{collections::BTreeSet, time::Duration};

use kube::{
    ResourceExt,
    api::{DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::harness::{Space, busybox, condition, script};

async fn uids(space: &Space) -> BTreeSet<Option<String>> {
    space.pods().list(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::uid).collect()
}

fn with_resources(cpu: Value) -> Value {
    let mut node = busybox();
    node["pod"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": cpu, "memory": "64Mi"}});
    node
}

#[tokio::test]
async fn the_same_template_in_other_words_replaces_nothing() {
    let Some(mut space) = Space::new("words").await else { return };
    let spec =
        |node: &Value| json!({"count": 2, "node": node, "phases": {"configure": script("date +%s >/etc/stamp")}});
    space.apply(spec(&with_resources("1000m".into()))).await;
    space.ready().await;
    let before = uids(&space).await;
    let mut other = with_resources("1".into());
    space.apply(spec(&other)).await;
    space.ready().await;
    let template = &mut other["pod"]["template"];
    template["metadata"] = json!({"creationTimestamp": null, "labels": {}});
    let pod = &mut template["spec"];
    pod["restartPolicy"] = "Always".into();
    pod["dnsPolicy"] = "ClusterFirst".into();
    pod["securityContext"] = json!({});
    pod["containers"][0]["terminationMessagePath"] = "/dev/termination-log".into();
    pod["containers"][0]["resources"]["limits"]["memory"] = "65536Ki".into();
    space.apply(spec(&other)).await;
    space.ready().await;
    space.kill_operator().await;
    space.start_operator();
    tokio::time::sleep(Duration::from_secs(3)).await;
    space.ready().await;
    assert_eq!(uids(&space).await, before, "no pod was replaced");
    space.apply(spec(&with_resources("2".into()))).await;
    space.ready().await;
    assert!(uids(&space).await.is_disjoint(&before), "what is another template replaces all");
}

/// The API server's own list of fields decides, and not the one that the operator was built with.
#[tokio::test]
async fn fields_newer_than_the_operator_reach_the_pod() {
    let Some(space) = Space::new("fresh").await else { return };
    let mut node = busybox();
    let spec = &mut node["pod"]["template"]["spec"];
    spec["hostnameOverride"] = "db.example.com".into();
    spec["initContainers"] = json!([{
        "name": "writes", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo \"COLOUR='blue'\" >/env/values"],
        "volumeMounts": [{"name": "env", "mountPath": "/env"}]
    }]);
    spec["volumes"] = json!([{"name": "env", "emptyDir": {}}]);
    let container = &mut spec["containers"][0];
    container["command"] = json!(["sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"]);
    container["restartPolicy"] = "Never".into();
    container["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    container["env"] = json!([
        {"name": "COLOUR", "valueFrom": {"fileKeyRef": {"volumeName": "env", "path": "values", "key": "COLOUR"}}}
    ]);
    space.apply(json!({"count": 1, "node": node, "phases": {"configure": script("hostname >/etc/mark; echo $COLOUR >>/etc/mark")}})).await;
    let group = space.until("Ready or refused", |group| {
        condition(group, "Ready").0 == "True" || condition(group, "Stalled").0 == "True"
    });
    let group = group.await;
    if condition(&group, "Stalled").2.contains("unknown field") {
        eprintln!("this API server does not know these fields yet: {}", condition(&group, "Stalled").2);
        return;
    }
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /etc/mark").await, "db.example.com\nblue\n");
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods = kube::Api::<DynamicObject>::namespaced_with(space.client.clone(), &space.name, &kind);
    let pod = pods.get("web-0").await.unwrap().data;
    assert_eq!(pod["spec"]["hostnameOverride"], "db.example.com");
    assert_eq!(pod["spec"]["containers"][0]["restartPolicyRules"][0]["action"], "Restart");
}
