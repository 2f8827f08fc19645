//! Files with objects: several YAML documents, of kinds of ours and others.

use std::{io::Read, path::Path};

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams, ValidationDirective},
    core::{DynamicObject, GroupVersionKind, TypeMeta},
    discovery::{self, Scope},
};
use serde_json::Value;

use crate::{
    connect::Cluster,
    exit::{Error, Result},
};

/// All documents of a file; `-` is stdin. Lists are taken apart.
pub fn read(file: &str) -> Result<Vec<Value>> {
    let unreadable = |error: std::io::Error| Error::usage(format!("{file} cannot be read: {error}"));
    let text = if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        text
    } else {
        std::fs::read_to_string(Path::new(file)).map_err(unreadable)?
    };
    documents(file, &text)
}

fn documents(file: &str, text: &str) -> Result<Vec<Value>> {
    let found: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| Error::usage(format!("{file} is no YAML: {error}")))?;
    let mut all = Vec::new();
    for value in found.into_iter().filter(|value| !value.is_null()) {
        match (value["kind"].as_str(), value["items"].as_array()) {
            (Some("List"), Some(items)) => all.extend(items.iter().cloned()),
            _ => all.push(value),
        }
    }
    for (place, value) in all.iter().enumerate() {
        let missing = ["apiVersion", "kind", "metadata"].into_iter().find(|field| value[*field].is_null());
        if let Some(field) = missing {
            return Err(Error::usage(format!(
                "{file}: document {} has no {field}; is it a Kubernetes object?",
                place + 1
            )));
        }
    }
    // What others need comes first: a group that is seen before what it extends is Stalled for a moment.
    all.sort_by_key(rank);
    if all.is_empty() { Err(Error::usage(format!("{file} holds no objects"))) } else { Ok(all) }
}

fn rank(value: &Value) -> u8 {
    match (kind(value).as_str(), is_ours(value)) {
        ("Namespace" | "CustomResourceDefinition", _) => 0,
        (_, false) => 1,
        ("ServerSpec", true) => 2,
        ("Lift", true) => 4,
        _ => 3,
    }
}

/// The kind of an object.
pub fn kind(value: &Value) -> String {
    value["kind"].as_str().unwrap_or_default().to_owned()
}

/// Whether it is of pallet.dev.
pub fn is_ours(value: &Value) -> bool {
    value["apiVersion"].as_str().is_some_and(|version| version.starts_with("pallet.dev/"))
}

/// The name of an object for people, such as `GroupSpec web`.
pub fn title(value: &Value) -> String {
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or("without a name");
    format!("{} {name}", kind(value))
}

/// How objects are applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applying {
    /// Nothing is kept: the API server says what would be.
    pub dry_run: bool,
    /// Fields that somebody else applied are taken over.
    pub force: bool,
}

/// Applies an object on the server's side, of whatever kind. Returns it as the server has it then.
pub async fn apply(cluster: &Cluster, value: &Value, how: Applying) -> Result<Value> {
    let what = format!("apply {}", title(value));
    let mut object: DynamicObject =
        serde_json::from_value(value.clone()).map_err(|error| Error::usage(format!("{}: {error}", title(value))))?;
    let api = api(cluster, &mut object).await?;
    let applied = match (&object.metadata.name, &object.metadata.generate_name) {
        (Some(name), _) => {
            let parameters = PatchParams {
                dry_run: how.dry_run,
                force: how.force,
                field_manager: Some(crate::MANAGER.into()),
                field_validation: Some(ValidationDirective::Strict),
            };
            cluster.ask(what, api.patch(name, &parameters, &Patch::Apply(&object))).await?
        }
        (None, Some(_)) => {
            let parameters = PostParams { dry_run: how.dry_run, field_manager: Some(crate::MANAGER.into()) };
            cluster.ask(what, api.create(&parameters, &object)).await?
        }
        (None, None) => {
            return Err(Error::usage(format!("{} has neither metadata.name nor generateName", title(value))));
        }
    };
    Ok(serde_json::to_value(&applied).unwrap_or_default())
}

/// The object as it is now, where it is there.
pub async fn find(cluster: &Cluster, value: &Value) -> Result<Option<Value>> {
    let mut object: DynamicObject =
        serde_json::from_value(value.clone()).map_err(|error| Error::usage(format!("{}: {error}", title(value))))?;
    let api = api(cluster, &mut object).await?;
    let Some(name) = object.metadata.name.clone() else { return Ok(None) };
    let found = cluster.ask(format!("get {}", title(value)), api.get_opt(&name)).await?;
    Ok(found.map(|found| serde_json::to_value(&found).unwrap_or_default()))
}

async fn api(cluster: &Cluster, object: &mut DynamicObject) -> Result<Api<DynamicObject>> {
    let TypeMeta { api_version, kind } = object.types.clone().unwrap_or_default();
    let gvk = GroupVersionKind::try_from(&TypeMeta { api_version: api_version.clone(), kind: kind.clone() })
        .map_err(|error| Error::usage(format!("{api_version} {kind}: {error}")))?;
    let asked = discovery::pinned_kind(&cluster.client, &gvk);
    let unknown = |error: Error| match error.is_not_found()
        || matches!(&error, Error::Refused { code: 0, message, .. } if message.contains("discovery"))
    {
        true => Error::Missing(format!(
            "the server knows no {kind} of {api_version}; install its definition, or mend apiVersion and kind"
        )),
        false => error,
    };
    let (resource, capabilities) = cluster.ask(format!("look up {kind}"), asked).await.map_err(unknown)?;
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(cluster.client.clone(), &resource),
        Scope::Namespaced => {
            let named = object.metadata.namespace.clone().unwrap_or_else(|| cluster.namespace.clone());
            if named != cluster.namespace {
                return Err(Error::usage(format!(
                    "{kind} {} is of namespace {named:?}, and the command is about {:?}; give -n {named}",
                    object.metadata.name.as_deref().unwrap_or_default(),
                    cluster.namespace
                )));
            }
            object.metadata.namespace = Some(named);
            Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_come_in_an_order_in_which_each_finds_what_it_needs() {
        let text = "
apiVersion: pallet.dev/v1alpha1
kind: GroupSpec
metadata: {name: web}
---
# nothing here
---
apiVersion: v1
kind: List
items:
- {apiVersion: pallet.dev/v1alpha1, kind: ServerSpec, metadata: {name: base}}
- {apiVersion: v1, kind: Secret, metadata: {name: s}}
";
        let titles: Vec<String> = documents("f", text).unwrap().iter().map(title).collect();
        assert_eq!(titles, ["Secret s", "ServerSpec base", "GroupSpec web"]);
    }

    #[test]
    fn what_is_no_object_is_named() {
        for (text, why) in
            [("a: [", "f is no YAML"), ("a: 1", "document 1 has no apiVersion"), ("", "f holds no objects")]
        {
            let error = documents("f", text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
