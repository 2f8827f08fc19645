//! What a phase may hold, by its name: actions, settings' facts and values, test's expectations.

use std::{borrow::Cow, collections::BTreeMap};

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{actions::ActionFields, nodes::ElevationFields};

/// One phase. Which fields it may have depends on its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PhaseFields {
    /// What the phase does on the node, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub actions: Vec<ActionFields>,
    /// As whom the `exec` actions of the phase run that do not say so themselves.
    #[serde(default, rename = "become", skip_serializing_if = "Option::is_none")]
    pub elevation: Option<ElevationFields>,
    /// Of app-rollout: what converge does for it beforehand, such as downloads. The actions themselves wait for a demand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub prepare: Vec<ActionFields>,
    /// Of settings: values for the templates of later phases, as `settings.NAME`. Strings in them are templates over facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "values_schema")]
    pub values: BTreeMap<String, Value>,
    /// Of settings: the group's own facts, as `facts.NAME`, beside the built-in ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub facts: Vec<FactFields>,
    /// Of test: what is expected of the facts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub expect: Vec<ExpectFields>,
}

impl PhaseFields {
    /// A list of its actions, each script with the user that the phase names for those that name none.
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

/// One fact of the group's own: exactly one source.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.exec) != has(self.file)").message("a fact has exactly one source: set exec or file"),
    validation = Rule::new("!has(self.parse) || self.parse != 'exitCode' || has(self.exec)").message("only exec has an exit code; set exec, or another parse")
)]
pub struct FactFields {
    /// The fact's name, as in `facts.NAME`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z_][a-zA-Z0-9_]*$')")
        .message("must consist of letters, digits and '_', and not begin with a digit, such as javaVersion"))]
    pub name: String,
    /// A script; the fact is what it prints, without white space at the end, 4 KiB at most, and 64 KiB of all of them. It must
    /// change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub exec: Option<String>,
    /// A path; the fact is the file's content, without white space at the end, 4 KiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub file: Option<String>,
    /// What is made of it.
    #[serde(default)]
    pub parse: FactParser,
    /// Where the source fails, or is not what `parse` says: the fact is null instead of a failure of settings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// What is made of what a fact's source gives.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FactParser {
    /// The text.
    #[default]
    Text,
    /// What it says as JSON. Nulls in objects are left out.
    Json,
    /// A list of its lines, without those that are empty.
    Lines,
    /// A whole number.
    Integer,
    /// Whether the script ended with exit code 0; what it prints does not count.
    ExitCode,
}

/// Something that is expected of a node's facts.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct ExpectFields {
    /// The expectation's name in phase results and errors.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$')")
        .message("must consist of letters, digits, '-', '_', '.' and blanks, and begin and end with a letter or digit, such as disk-space"))]
    pub name: String,
    /// A CEL expression over `facts`, `settings`, `node` and `group` that is true where all is well, such as
    /// `facts.disk.freePercent > 10`. Facts that change by themselves may be used.
    #[schemars(length(min = 1, max = 1024))]
    pub expression: String,
    /// What it means when it is false, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub message: String,
}

/// The rules on `phases` stand on the map, where they see the names.
pub(super) fn phases_schema(generator: &mut SchemaGenerator) -> Schema {
    let phase = generator.subschema_for::<PhaseFields>();
    let rule = |rule: &str, message: &str| serde_json::json!({"rule": rule, "message": message});
    json_schema!({
        "description": "The phases, by name: bootstrap (once on every new node), settings (facts and values; changes nothing), init, install (once in the life of a node), configure (again whenever it changed), test (expectations over facts), destroy-server (before a node is removed), app-rollout (on demand), and any other name, which runs when converge.phases lists it.",
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": phase,
        "x-kubernetes-validations": [
            rule("self.all(name, name.size() <= 40 && name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
                "the name of a phase consists of at most 40 lower case letters, digits and '-', and begins with a letter, such as migrate-db; rename it"),
            rule("!('settings' in self) || !has(self['settings'].actions) || self['settings'].actions.size() == 0",
                "settings holds values and facts only, since it changes nothing on the node; move its actions to configure"),
            rule("!('test' in self) || !has(self['test'].actions) || self['test'].actions.size() == 0",
                "test holds expectations only, since it changes nothing on the node; move its actions to configure, or declare what it finds out as a fact of settings"),
            rule("self.all(name, name == 'settings' || (!has(self[name].values) && (!has(self[name].facts) || self[name].facts.size() == 0)))",
                "only settings holds values and facts; move them to spec.phases.settings"),
            rule("self.all(name, name == 'app-rollout' || !has(self[name].prepare) || self[name].prepare.size() == 0)",
                "only app-rollout is prepared by converge; move prepare to spec.phases.app-rollout, or its actions to configure"),
            rule("!('app-rollout-prepare' in self)",
                "app-rollout-prepare stands for the prepare of app-rollout; choose another name"),
            rule("self.all(name, name == 'test' || !has(self[name].expect) || self[name].expect.size() == 0)",
                "only test holds expectations; move them to spec.phases.test")
        ]
    })
}

fn values_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Of settings: values for the templates of later phases, as settings.NAME. Strings in them are templates over facts.",
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}
