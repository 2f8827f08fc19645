//! `ServerSpec`: a reusable bundle of phases and roles with parameters (a server-spec or a crate in Pallet).

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::phases::{PhaseFields, phases_schema};

/// What the ServerSpec declares. It has no effect until a GroupSpec of its namespace extends it.
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
    doc = "A ServerSpec is a reusable bundle of phases, roles and parameters, which GroupSpecs of its namespace extend.",
    printcolumn = r#"{"name":"Roles","type":"string","jsonPath":".spec.roles"}"#,
    printcolumn = r#"{"name":"Extends","type":"string","jsonPath":".spec.extends[*].serverSpec"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description","priority":1}"#,
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52")
        .message("metadata.name: must be a DNS label of at most 52 characters (lower-case letters, digits, '-'), because its actions are named after it; choose another name")
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpecFields {
    /// Purpose of the ServerSpec, in one line, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// ServerSpecs of the same namespace that this one extends. Their phases run before its own, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub extends: Vec<ExtendFields>,
    /// Roles that every group gets that extends this ServerSpec, such as `web`. Templates of other groups list the nodes as
    /// `nodes.ROLE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "roles_schema")]
    pub roles: Vec<String>,
    /// Parameters by name. Templates of this ServerSpec read them as `params.NAME`; templates of a group that extends it, as
    /// `params.SPEC.NAME`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "parameters_schema")]
    pub parameters: BTreeMap<String, ParameterFields>,
    /// Names of phases that converge runs in groups that extend this ServerSpec and set neither `converge.phases` nor
    /// `converge.process`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    pub default_phases: Vec<String>,
    /// Phases by name, with the same names and rules as in a GroupSpec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "phases_schema")]
    pub phases: BTreeMap<String, PhaseFields>,
}

/// A ServerSpec that a GroupSpec or another ServerSpec extends.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtendFields {
    /// Name of a ServerSpec in the same namespace.
    #[schemars(length(min = 1, max = 52))]
    pub server_spec: String,
    /// Values for parameters of the ServerSpec, by name, such as `port: 8080`. In a ServerSpec, strings are templates over its own
    /// `params`; a string that is a single `{{ }}` keeps the type of its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "with_schema")]
    pub with: BTreeMap<String, Value>,
}

/// A parameter of a ServerSpec.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ParameterFields {
    /// Type of the parameter's values. Null fits every type. Default: string.
    #[serde(default)]
    pub r#type: ParameterType,
    /// Value of the parameter if no `with` sets one. Default: null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value_schema")]
    pub default: Option<Value>,
    /// If true, `with` must set a value, and `default` is not allowed. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Purpose of the parameter, in one line, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
}

/// Type of the values of a parameter.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// A string.
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

/// The schema of the roles of a group or a ServerSpec.
pub(super) fn roles_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Roles of the nodes, in addition to those of the ServerSpecs, such as `db_primary`. Templates of other groups list these nodes as `nodes.ROLE`.",
        "type": "array",
        "maxItems": 16,
        "items": {"type": "string", "minLength": 1, "maxLength": 40},
        "x-kubernetes-list-type": "set",
        "x-kubernetes-validations": [{
            "rule": "self.all(role, role.matches('^[a-zA-Z_][a-zA-Z0-9_]*$'))",
            "message": "a role must consist of letters, digits and '_' and not begin with a digit, such as db_primary, because templates refer to it by name; rename the role"
        }]
    })
}

fn parameters_schema(generator: &mut SchemaGenerator) -> Schema {
    let parameter = generator.subschema_for::<ParameterFields>();
    json_schema!({
        "description": "Parameters by name. Templates of this ServerSpec read them as `params.NAME`; templates of a group that extends it, as `params.SPEC.NAME`.",
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": parameter,
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.size() <= 63 && name.matches('^[a-zA-Z_][a-zA-Z0-9_]*$'))",
            "message": "a parameter name must have at most 63 letters, digits and '_' and not begin with a digit, such as maxClients; rename the parameter"
        }]
    })
}

fn with_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Values for parameters of the ServerSpec, by name, such as `port: 8080`. In a ServerSpec, strings are templates over its own `params`; a string that is a single `{{ }}` keeps the type of its value.",
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn value_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Value of the parameter if no `with` sets one. Default: null.",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
