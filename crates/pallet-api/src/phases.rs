//! What a phase may have, by its name: actions, the facts and values of settings, the expectations of test.

use std::{borrow::Cow, collections::BTreeMap};

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{actions::ActionFields, nodes::ElevationFields};

/// A phase. Its name decides which of these fields it may have.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PhaseFields {
    /// Actions that the phase runs on the node, in order; the first that fails ends the phase. `settings` and `test` have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub actions: Vec<ActionFields>,
    /// User that runs the `exec` actions of this phase that have no `become` of their own. By default they run as the user of the
    /// session.
    #[serde(default, rename = "become", skip_serializing_if = "Option::is_none")]
    pub elevation: Option<ElevationFields>,
    /// Only for app-rollout: actions that converge runs in advance, such as downloads. A Lift runs them again before `actions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub prepare: Vec<ActionFields>,
    /// Only for settings: values for templates of later phases, which read them as `settings.NAME`. Strings are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "values_schema")]
    pub values: BTreeMap<String, Value>,
    /// Only for settings: facts of the group, beside the built-in ones. Templates and expressions read them as `facts.NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub facts: Vec<FactFields>,
    /// Only for test: expectations about facts. The phase fails if one of them is not true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub expect: Vec<ExpectFields>,
}

impl PhaseFields {
    /// A list of actions of this phase, in which each script without `become` has that of the phase.
    pub fn with_user<'a>(&self, actions: &'a [ActionFields]) -> Cow<'a, [ActionFields]> {
        let Some(elevation) = &self.elevation else { return Cow::Borrowed(actions) };
        let of_phase = |action: &ActionFields| {
            let lacks = action.exec.is_some() && action.elevation.is_none();
            let elevation = if lacks { Some(elevation.clone()) } else { action.elevation.clone() };
            ActionFields { elevation, ..action.clone() }
        };
        Cow::Owned(actions.iter().map(of_phase).collect())
    }
}

/// A fact that the group declares. It has exactly one source.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.exec) != has(self.file)").message("set exactly one of exec and file, the source of the fact"),
    validation = Rule::new("!has(self.parse) || self.parse != 'exitCode' || has(self.exec)").message("parse: exitCode needs exec; set exec, or another value of parse")
)]
pub struct FactFields {
    /// Name of the fact, such as `javaVersion`; templates and expressions read it as `facts.NAME`. The name of a built-in fact is
    /// refused.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z_][a-zA-Z0-9_]*$')")
        .message("must consist of letters, digits and '_', and not begin with a digit, such as javaVersion"))]
    pub name: String,
    /// Shell script whose output, without white space at the end, is the fact. It must change nothing. A fact is cut at 4 KiB;
    /// settings fails if all of them exceed 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub exec: Option<String>,
    /// Path of a file on the node whose content, without white space at the end, is the fact. A fact is cut at 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub file: Option<String>,
    /// How the operator parses the source. `text`: as is. `json`: as JSON, without nulls in objects. `lines`: a list of lines that
    /// are not empty. `integer`: a whole number. `exitCode`: whether the script of `exec` succeeds.
    #[serde(default)]
    pub parse: FactParser,
    /// If true, the fact is null when the source fails or cannot be parsed. Otherwise settings fails. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// How the operator parses the source of a fact.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FactParser {
    /// The text as it is.
    #[default]
    Text,
    /// A JSON value, without nulls in objects.
    Json,
    /// A list of the lines that are not empty.
    Lines,
    /// A whole number.
    Integer,
    /// Whether the script ends with exit code 0. Its output is ignored.
    ExitCode,
}

/// An expectation about the facts of a node.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct ExpectFields {
    /// Name of the expectation in phase results and errors, such as `disk-space`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$')")
        .message("must consist of letters, digits, '-', '_', '.' and spaces, and begin and end with a letter or digit, such as disk-space"))]
    pub name: String,
    /// CEL expression over `facts`, `settings`, `params`, `node` and `group` that must be true, such as `facts.disk.freePercent >
    /// 10`. It may use volatile facts.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
    /// Text for people that the error shows if the expression is false, such as `disk nearly full`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
}

/// The rules on `phases` are on the map, where they see the names of the phases.
pub(super) fn phases_schema(generator: &mut SchemaGenerator) -> Schema {
    let phase = generator.subschema_for::<PhaseFields>();
    let rule = |rule: &str, message: &str| serde_json::json!({"rule": rule, "message": message});
    json_schema!({
        "description": "Phases by name: bootstrap (once on every new node), settings (facts and values; changes nothing), init, install (once per incarnation), configure (again when its content changes), test (expectations over facts), destroy-server (before the operator removes a node), app-rollout (on demand, by a Lift). Any other name runs if `converge.phases` lists it.",
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": phase,
        "x-kubernetes-validations": [
            rule("self.all(name, name.size() <= 40 && name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
                "a phase name must have at most 40 lower-case letters, digits and '-', and begin with a letter, such as migrate-db; rename the phase"),
            rule("!('settings' in self) || !has(self['settings'].actions) || self['settings'].actions.size() == 0",
                "settings must not have actions, because it changes nothing on the node; move its actions to configure"),
            rule("!('test' in self) || !has(self['test'].actions) || self['test'].actions.size() == 0",
                "test must not have actions, because it changes nothing on the node; move its actions to configure, or replace them by facts of settings"),
            rule("self.all(name, name == 'settings' || (!has(self[name].values) && (!has(self[name].facts) || self[name].facts.size() == 0)))",
                "only settings may have values and facts; move them to spec.phases.settings"),
            rule("self.all(name, name == 'app-rollout' || !has(self[name].prepare) || self[name].prepare.size() == 0)",
                "only app-rollout may have prepare; move prepare to spec.phases.app-rollout, or its actions to configure"),
            rule("!('app-rollout-prepare' in self)",
                "the phase name app-rollout-prepare is reserved for prepare of app-rollout; rename the phase"),
            rule("self.all(name, name == 'test' || !has(self[name].expect) || self[name].expect.size() == 0)",
                "only test may have expect; move it to spec.phases.test")
        ]
    })
}

fn values_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Only for settings: values for templates of later phases, which read them as `settings.NAME`. Strings are templates.",
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}
