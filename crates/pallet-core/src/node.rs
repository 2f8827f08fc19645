//! What backs a node. One kind of node, one module: how it is observed, and how it is made.

pub mod cloud_init;
pub mod host;
pub mod kubevirt;
pub mod pod;
pub mod virtual_machine;

use serde_json::{Value, json};

use crate::group::Group;
use pallet_api as api;

/// Makes an object the group's, and one node's where it is for one: its name, its labels and its owners. Returns its metadata.
/// The UID of the node is left out where nothing is really made.
///
/// What is for a node has two owners: the group, as its controller, so that drains and budgets treat it as managed; and its GroupNode,
/// so that a foreground deletion of the group does not take it before its time.
fn adopt<'a>(made: &'a mut Value, group: &Group, name: &str, node: Option<(&str, Option<&str>)>) -> &'a mut Value {
    let version = format!("{}/v1alpha1", api::API_GROUP);
    let mut owners = vec![json!({
        "apiVersion": version, "kind": "GroupSpec", "name": group.key.name, "uid": group.uid,
        "controller": true, "blockOwnerDeletion": true
    })];
    let node_owner = |(name, uid)| Some(json!({"apiVersion": version, "kind": "GroupNode", "name": name, "uid": uid?}));
    owners.extend(node.and_then(node_owner));
    let metadata = object(made, "metadata");
    metadata["name"] = name.into();
    metadata["namespace"] = group.key.namespace.as_str().into();
    metadata["ownerReferences"] = owners.into();
    let labels = object(metadata, "labels");
    labels[api::GROUP_LABEL] = group.key.name.as_str().into();
    if let Some((node, _)) = node {
        labels[api::NODE_LABEL] = node.into();
    }
    metadata
}

fn object<'a>(outer: &'a mut Value, name: &str) -> &'a mut Value {
    let inner = &mut outer[name];
    if !inner.is_object() {
        *inner = json!({});
    }
    inner
}

/// A group with this `node`, for tests.
#[cfg(test)]
fn group_of(node: Value) -> Group {
    let object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g-uid"}, "spec": {"node": node}
    });
    crate::group::resolve(&serde_json::from_value(object).unwrap(), &Default::default()).unwrap()
}
