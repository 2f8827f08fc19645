//! `ServerSpec`: a reusable bundle of phases and roles with parameters (Pallet's server-spec and crate).

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::phases::{PhaseFields, phases_schema};

/// What a ServerSpec declares. It does nothing by itself: GroupSpecs of its namespace extend it.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "pallet.dev",
    version = "v1alpha1",
    kind = "ServerSpec",
    plural = "serverspecs",
    shortname = "svs",
    category = "pallet",
    namespaced,
    derive = "PartialEq",
    doc = "A reusable bundle of phases and roles with parameters, which GroupSpecs of its namespace extend.",
    printcolumn = r#"{"name":"Roles","type":"string","jsonPath":".spec.roles"}"#,
    printcolumn = r#"{"name":"Extends","type":"string","jsonPath":".spec.extends[*].serverSpec"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description","priority":1}"#,
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52")
        .message("metadata.name: must be a DNS label of at most 52 characters (lower case letters, digits, '-'), since its actions are named after it; choose another name")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpecFields {
    /// What it is for, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// ServerSpecs whose phases run before its own, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub extends: Vec<ExtendFields>,
    /// The roles that a group has that extends it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "roles_schema")]
    pub roles: Vec<String>,
    /// Its parameters, by name: its templates see them as `params.NAME`, those of a group that extends it as
    /// `params.SPEC.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, ParameterFields>,
    /// The phases that converge runs in groups that extend it and list none themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    pub default_phases: Vec<String>,
    /// The phases, by name, as in a GroupSpec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "phases_schema")]
    pub phases: BTreeMap<String, PhaseFields>,
}

/// One ServerSpec that is extended.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtendFields {
    /// Its name, in the same namespace.
    #[schemars(length(min = 1, max = 52))]
    pub server_spec: String,
    /// Values for its parameters. In a ServerSpec, strings are templates over its own `params`; one that is a single `{{ }}`
    /// keeps the type of its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "with_schema")]
    pub with: BTreeMap<String, Value>,
}

/// One parameter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ParameterFields {
    /// The type of its values.
    #[serde(default)]
    pub r#type: ParameterType,
    /// Its value where nobody gives one; null by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value_schema")]
    pub default: Option<Value>,
    /// Whether somebody who extends the ServerSpec has to give a value. It has no default then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// What it is for, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
}

/// What the values of a parameter are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// A text.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// An object.
    Object,
}

/// The roles of a group or a ServerSpec.
pub(super) fn roles_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The roles of the nodes, by which templates of other groups find them: nodes.ROLE.",
        "type": "array",
        "maxItems": 16,
        "items": {"type": "string", "minLength": 1, "maxLength": 40},
        "x-kubernetes-list-type": "set",
        "x-kubernetes-validations": [{
            "rule": "self.all(role, role.matches('^[a-zA-Z_][a-zA-Z0-9_]*$'))",
            "message": "a role consists of letters, digits and '_', and does not begin with a digit, so that templates can name it, such as db_primary; rename it"
        }]
    })
}

fn parameters_schema(generator: &mut SchemaGenerator) -> Schema {
    let parameter = generator.subschema_for::<ParameterFields>();
    json_schema!({
        "description": "Its parameters, by name: its templates see them as params.NAME, those of a group that extends it as params.SPEC.NAME.",
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": parameter,
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.size() <= 63 && name.matches('^[a-zA-Z_][a-zA-Z0-9_]*$'))",
            "message": "the name of a parameter consists of letters, digits and '_', and does not begin with a digit, such as maxClients; rename it"
        }]
    })
}

fn with_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Values for its parameters. In a ServerSpec, strings are templates over its own params; one that is a single {{ }} keeps the type of its value.",
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn value_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Its value where nobody gives one; null by default.",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
