//! Nodes that are pods: how a pod is read, and how one is made from the group's template.

pub mod health;

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};

use super::{adopt, object};
use crate::{
    group::{ClaimShape, Group, Kind, PodShape},
    plan::Machine,
    target::{Container, Target},
};
use pallet_api as api;

/// What the plan needs to know of a pod.
pub fn observe(pod: &Pod) -> Machine {
    let metadata = &pod.metadata;
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|a| a.get(name)).cloned();
    let status = pod.status.as_ref();
    let holds = |kind: &str| {
        let conditions = status.and_then(|s| s.conditions.as_ref());
        conditions.is_some_and(|list| list.iter().any(|c| c.type_ == kind && c.status == "True"))
    };
    let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let container_name = annotation(api::CONTAINER_ANNOTATION).unwrap_or_default();
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    Machine {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        controller: controller.map(|owner| owner.uid.clone()),
        node: metadata
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == "GroupNode")
            .map(|owner| owner.uid.clone()),
        deleting: metadata.deletion_timestamp.is_some(),
        ends: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        marked: annotation(api::DELETE_NODE_ANNOTATION).is_some(),
        kind: Kind::Pod,
        target: Some(Target::Container(Container {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            pod: metadata.name.clone().unwrap_or_default(),
            container: container_name.clone(),
        })),
        attributes: Arc::default(),
        claims: pod.spec.as_ref().map(mounted),
        state: health::state(pod, &container_name),
        life: health::life(pod, &container_name),
        ended: health::ended(pod, &container_name),
        unready: health::unready(pod, api::CONVERGED_GATE),
        going: health::going(pod),
        address: status.and_then(|status| status.pod_ip.clone()),
        ready: holds("Ready"),
        gate_open: holds(api::CONVERGED_GATE),
        gated: gates.is_some_and(|gates| gates.iter().any(|gate| gate.condition_type == api::CONVERGED_GATE)),
        template_hash: annotation(api::TEMPLATE_HASH_ANNOTATION).unwrap_or_default(),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
    }
}

/// The claims that a pod mounts.
fn mounted(spec: &PodSpec) -> BTreeSet<String> {
    let volumes = spec.volumes.iter().flatten();
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

/// The pod of a node, as it is posted. What the operator adds does not count into the template's hash.
pub fn build(group: &Group, shape: &PodShape, name: &str, node_uid: Option<&str>) -> Value {
    let mut pod = (*shape.template).clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    let metadata = adopt(&mut pod, group, name, Some((name, node_uid)));
    let annotations = object(metadata, "annotations");
    annotations[api::TEMPLATE_HASH_ANNOTATION] = shape.hash.as_str().into();
    annotations[api::CONTAINER_ANNOTATION] = shape.container.as_str().into();
    // As with a StatefulSet: a name of its own, and under the Service an address of its own.
    if pod["spec"]["hostname"].is_null() {
        pod["spec"]["hostname"] = name.into();
    }
    if let Some(service) = &shape.service_name {
        pod["spec"]["subdomain"] = service.as_str().into();
    }
    for claim in &shape.claims {
        let source = json!({"claimName": claim.claim_name(name)});
        push(&mut pod["spec"]["volumes"], "name", json!({"name": claim.name, "persistentVolumeClaim": source}));
    }
    if shape.readiness_gate {
        push(&mut pod["spec"]["readinessGates"], "conditionType", json!({"conditionType": api::CONVERGED_GATE}));
    }
    let containers = pod["spec"]["containers"].as_array_mut();
    if let Some(container) = containers.and_then(|list| list.iter_mut().find(|c| c["name"] == shape.container.as_str()))
    {
        let uid = json!({"name": api::POD_UID_ENV, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
        push(&mut container["env"], "name", uid);
    }
    pod
}

/// A claim of a node, as it is posted. It has no owner: what becomes of it is the group's retention policy to say.
pub fn build_claim(group: &Group, claim: &ClaimShape, node: &str) -> Value {
    let mut labels = claim.labels.clone();
    labels.insert(api::GROUP_LABEL.into(), group.key.name.clone());
    labels.insert(api::NODE_LABEL.into(), node.to_owned());
    let mut annotations = claim.annotations.clone();
    annotations.insert(api::GROUP_UID_ANNOTATION.into(), group.uid.clone());
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim.claim_name(node), "namespace": group.key.namespace,
            "labels": labels, "annotations": annotations
        },
        "spec": *claim.spec
    })
}

/// Puts an item into a list in place of any that has the same key.
fn push(list: &mut Value, key: &str, item: Value) {
    let mut items = list.as_array().cloned().unwrap_or_default();
    items.retain(|other| other[key] != item[key]);
    items.push(item);
    *list = items.into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{node::group_of, plan::MachineState};

    fn group(template: Value) -> Group {
        group_of(json!({"pod": {"template": template}}))
    }

    #[test]
    fn the_template_is_kept_and_the_operators_own_is_added() {
        let group = group(json!({
            "metadata": {"labels": {"app": "web", "pallet.dev/group": "other"}},
            "spec": {
                "containers": [{"name": "main", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "PALLET_POD_UID", "value": "forged"}]}],
                "readinessGates": [{"conditionType": "theirs"}]
            }
        }));
        let pod = build(&group, group.node.pod().unwrap(), "web-0", Some("n-uid"));
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"app": "web", "pallet.dev/group": "web", "pallet.dev/node": "web-0"})
        );
        assert_eq!(
            pod["spec"]["readinessGates"],
            json!([{"conditionType": "theirs"}, {"conditionType": "pallet.dev/converged"}])
        );
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        assert_eq!(env.len(), 2);
        assert_eq!(env[1]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.uid");
        let owners = pod["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!((owners[0]["uid"].as_str(), owners[0]["controller"].as_bool()), (Some("g-uid"), Some(true)));
        assert_eq!((owners[1]["uid"].as_str(), owners[1]["controller"].as_bool()), (Some("n-uid"), None));
    }

    #[test]
    fn the_readiness_gate_can_be_left_out() {
        let group = group(json!({"spec": {"containers": [{"name": "main", "image": "x"}]}}));
        let shape = PodShape { readiness_gate: false, ..group.node.pod().unwrap().clone() };
        assert!(build(&group, &shape, "web-0", None)["spec"].get("readinessGates").is_none());
    }

    #[test]
    fn what_is_built_is_observed() {
        let group = group(json!({"spec": {"containers": [{"name": "main", "image": "x"}]}}));
        let mut value = build(&group, group.node.pod().unwrap(), "web-0", Some("n-uid"));
        value["status"] = json!({"podIP": "10.0.0.1", "conditions": [{"type": "pallet.dev/converged", "status": "True"}],
            "containerStatuses": [{"name": "main", "containerID": "c://1", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]});
        let pod = observe(&serde_json::from_value(value).unwrap());
        assert_eq!(pod.controller.as_deref(), Some("g-uid"));
        assert_eq!(pod.state, MachineState::Running { id: "c://1".into() });
        assert!(pod.gated && pod.gate_open && !pod.ready);
        assert_eq!(pod.template_hash, group.node.hash());
    }
}
