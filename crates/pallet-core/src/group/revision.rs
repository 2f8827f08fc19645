//! Pure: what was declared of a group when it was valid last, as it is kept in a ControllerRevision.
//!
//! A revision holds what people declared: the spec of the GroupSpec, without count, pause and approval, and the ServerSpecs
//! that it uses. It holds no value of any Secret or ConfigMap that these name.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    NodeShape,
    resolve::{self, ServerSpecs},
};
use crate::phase::Digest;
use pallet_api::{GroupSpec, ServerSpec};

/// The longest revision that is kept, in bytes of JSON: etcd takes no object of more than 1.5 MiB.
pub const LONGEST: usize = 1 << 20;

/// The fields that say nothing of a node: a change of them alone is no other revision.
const BESIDE: [&str; 3] = ["count", "paused", "approval"];

/// A revision as it is known from its object.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// The name of the ControllerRevision.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The UID of the GroupSpec that controls it.
    pub controller: Option<String>,
    /// Newer ones have higher numbers.
    pub number: i64,
    /// Over what it declares, as it was computed when it was made.
    pub digest: Digest,
    /// The hash that machines made from its template have recorded, as it was computed when it was made.
    pub template_hash: String,
    /// What a node is by it; nothing where this version of the operator cannot read it.
    pub shape: Option<Arc<NodeShape>>,
    /// What it declares.
    pub data: Arc<Value>,
}

impl Revision {
    /// Whether a machine whose recorded hash is this was made from its template.
    pub fn explains(&self, recorded: &str) -> bool {
        self.template_hash == recorded || self.shape.as_ref().is_some_and(|shape| shape.is_made_as(recorded))
    }
}

/// What a GroupSpec declares together with the ServerSpecs that it uses.
pub fn declaration(object: &GroupSpec, specs: &ServerSpecs) -> Value {
    let mut spec = serde_json::to_value(&object.spec).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        BESIDE.iter().for_each(|field| drop(fields.remove(*field)));
    }
    let uses = resolve::uses(&object.spec, specs);
    let used = uses.iter().filter_map(|name| Some((name, serde_json::to_value(&specs.get(name)?.spec).ok()?)));
    let used: BTreeMap<&String, Value> = used.collect();
    json!({"spec": spec, "serverSpecs": used})
}

/// Over a declaration and the hash of its template: two revisions with the same digest are the same.
pub fn digest(declaration: &Value, template_hash: &str) -> Digest {
    Digest::of("declaration", &json!([declaration, template_hash]))
}

/// What a node is by a declaration; nothing where it cannot be read.
pub fn shape(declaration: &Value) -> Option<Arc<NodeShape>> {
    let fields = serde_json::from_value(declaration.pointer("/spec/node")?.clone()).ok()?;
    resolve::shape(&fields).map(Arc::new)
}

/// The GroupSpec and ServerSpecs of a declaration, with the metadata, count, pause and approval that `object` has now. Nothing
/// where they cannot be read.
pub fn restore(object: &GroupSpec, declaration: &Value) -> Option<(GroupSpec, ServerSpecs)> {
    let mut spec = declaration.get("spec")?.clone();
    let present = serde_json::to_value(&object.spec).ok()?;
    for field in BESIDE {
        if let Some(value) = present.get(field) {
            spec[field] = value.clone();
        }
    }
    let restored =
        GroupSpec { metadata: object.metadata.clone(), spec: serde_json::from_value(spec).ok()?, status: None };
    let specs = declaration.get("serverSpecs").and_then(Value::as_object).into_iter().flatten();
    let specs = specs.map(|(name, spec)| {
        let mut spec = ServerSpec::new(name, serde_json::from_value(spec.clone()).ok()?);
        spec.metadata.namespace = object.metadata.namespace.clone();
        Some((name.clone(), Arc::new(spec)))
    });
    Some((restored, specs.collect::<Option<ServerSpecs>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: Value) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"name": "web", "namespace": "shop", "uid": "g", "generation": 7}, "spec": spec
        }))
        .unwrap()
    }

    fn specs() -> ServerSpecs {
        let spec = |name: &str, spec: Value| {
            let object = json!({
                "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec",
                "metadata": {"name": name, "namespace": "shop"}, "spec": spec
            });
            (name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()))
        };
        let action = json!({"configure": {"actions": [{"name": "x", "exec": {"script": "echo x"}}]}});
        [
            spec("base", json!({"phases": action})),
            spec("web", json!({"extends": [{"serverSpec": "base"}], "defaultPhases": ["configure"]})),
            spec("unused", json!({})),
        ]
        .into()
    }

    fn declared() -> Value {
        json!({
            "count": 3, "approval": "Manual", "extends": [{"serverSpec": "web"}],
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x", "newer": {"field": 1}}]}}}},
            "phases": {"configure": {"actions": [{"name": "y", "secretFile": {
                "path": "/etc/pw", "secretKeyRef": {"name": "pw", "key": "text"}
            }}]}}
        })
    }

    #[test]
    fn what_is_restored_is_what_was_declared() {
        let (object, specs) = (object(declared()), specs());
        let data = declaration(&object, &specs);
        let names: Vec<&String> = data["serverSpecs"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["base", "web"]);
        let mut edited = object.clone();
        edited.spec.phases = BTreeMap::new();
        edited.metadata.generation = Some(8);
        let (restored, used) = restore(&edited, &data).unwrap();
        assert_eq!((restored.spec, restored.metadata.generation), (object.spec.clone(), Some(8)));
        let group = |object: &GroupSpec, specs: &ServerSpecs| resolve::resolve(object, specs).unwrap();
        assert_eq!(group(&object, &used).phases, group(&object, &specs).phases);
        assert_eq!(shape(&data).as_deref(), Some(&group(&object, &specs).node));
    }

    #[test]
    fn count_pause_and_approval_make_no_other_revision() {
        let mut spec = declared();
        let first = declaration(&object(spec.clone()), &specs());
        (spec["count"], spec["paused"], spec["approval"]) = (json!(9), json!(true), json!("Automatic"));
        assert_eq!(declaration(&object(spec.clone()), &specs()), first);
        spec["phases"]["configure"]["actions"][0]["secretFile"]["path"] = json!("/etc/other");
        assert_ne!(declaration(&object(spec), &specs()), first);
        let mut others = specs();
        others.insert("unused".into(), others["base"].clone());
        assert_eq!(declaration(&object(declared()), &others), first, "what it does not use does not count");
        others.insert("base".into(), others["web"].clone());
        assert_ne!(declaration(&object(declared()), &others), first);
    }

    /// What it names is read when it is used: no value can be in a revision.
    #[test]
    fn a_revision_names_secrets_and_holds_none() {
        let text = declaration(&object(declared()), &specs()).to_string();
        assert!(text.contains(r#""secretKeyRef":{"key":"text","name":"pw"}"#), "{text}");
    }

    #[test]
    fn what_cannot_be_read_restores_nothing() {
        let object = object(declared());
        for data in [json!(null), json!({}), json!({"spec": {}}), json!({"spec": {"node": 1}}), json!([1])] {
            assert!(restore(&object, &data).is_none() && shape(&data).is_none(), "{data}");
        }
    }
}
