//! `GroupSpec`: how many nodes, what a node is, and the phases that configure it.
//!
//! What a schema or a CEL rule can refuse, the API server refuses here; [`crate::group::resolve`] sees to the rest.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a GroupSpec declares.
#[derive(CustomResource, Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "pallet.dev",
    version = "v1alpha1",
    kind = "GroupSpec",
    plural = "groupspecs",
    shortname = "gs",
    category = "pallet",
    namespaced,
    status = "GroupSpecStatus",
    derive = "PartialEq",
    doc = "A group of nodes: how many there are, what a node is, and the phases that configure it.",
    scale(
        spec_replicas_path = ".spec.count",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name":"Count","type":"integer","jsonPath":".spec.count"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.replicas"}"#,
    printcolumn = r#"{"name":"Converged","type":"integer","jsonPath":".status.convergedReplicas"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].message","priority":1}"#,
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52")
        .message("metadata.name: must be a DNS label of at most 52 characters (lower case letters, digits, '-'), since nodes are named after it; choose another name")
)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpecFields {
    /// How many nodes there should be. The scale subresource changes it (`kubectl scale`, HorizontalPodAutoscaler).
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 10000))]
    pub count: u32,
    /// What a node is.
    pub node: NodeFields,
    /// The phases, by name: bootstrap, settings, configure.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "phases_schema")]
    pub phases: BTreeMap<String, PhaseFields>,
    /// How the group is brought to what is declared.
    #[serde(default)]
    pub converge: ConvergeFields,
    /// Stops all effects but deletion: no node is created or removed, no phase starts. A run in flight ends by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

fn one() -> u32 {
    1
}

/// What a node is: exactly one kind.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(validation = Rule::new("has(self.pod)").message("names no kind of node; set spec.node.pod"))]
pub struct NodeFields {
    /// The nodes are pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFields>,
}

/// Nodes that are pods.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFields {
    /// The container in which phases run; the template's `kubectl.kubernetes.io/default-container` annotation by default,
    /// else its first container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// Whether pods get the readiness gate `pallet.dev/converged`, so that they are not Ready before they have converged
    /// once.
    #[serde(default = "yes")]
    pub readiness_gate: bool,
    /// The pod's labels, annotations and spec, as in a Deployment. It is checked by the API server before it is used.
    #[schemars(schema_with = "template_schema")]
    pub template: Value,
}

fn yes() -> bool {
    true
}

/// One phase. Which fields it may have depends on its name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PhaseFields {
    /// What the phase does on the node, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub actions: Vec<ActionFields>,
    /// Of settings: values for the templates of later phases, as `settings.NAME`. Strings in them are templates over facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "values_schema")]
    pub values: BTreeMap<String, Value>,
    /// Of settings: the group's own facts, as `facts.NAME`, beside the built-in ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub facts: Vec<FactFields>,
}

/// One action: exactly one kind.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("[has(self.exec), has(self.file)].filter(x, x).size() == 1")
        .message("an action has exactly one kind: set exec or file, and make a second action of the other")
)]
pub struct ActionFields {
    /// The action's name in receipts and errors; its kind and place by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$')")
        .message("must consist of letters, digits, '-', '_', '.' and blanks, and begin and end with a letter or digit, such as install-nginx"))]
    pub name: Option<String>,
    /// Runs a shell script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecFields>,
    /// Writes a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileFields>,
}

/// Runs a POSIX shell script. It counts as changed when it ran, unless a guard kept it from running.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecFields {
    /// The script, a template. What is put in is quoted for the shell; `| raw` leaves it as it is.
    #[schemars(length(min = 1, max = 65536))]
    pub script: String,
    /// A path: the script runs only while nothing is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub creates: Option<String>,
    /// A script: the action runs only where this fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub unless: Option<String>,
    /// A script: the action runs only where this succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub only_if: Option<String>,
}

/// Writes a file, in whole and atomically, where its content, mode or owner differ.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct FileFields {
    /// Where, an absolute path; a template. Its directory must be there.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/') || self.startsWith('{{')")
        .message("must be absolute; begin it with a slash"))]
    pub path: String,
    /// What, a template.
    #[schemars(length(max = 65536))]
    pub content: String,
    /// The mode in octal; 0644 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3,4}$')")
        .message("must be three or four octal digits, such as 0644 or 755"))]
    pub mode: Option<String>,
    /// The owner, by name or number; left as it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub owner: Option<String>,
    /// The group, by name or number; left as it is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_][-A-Za-z0-9_.]*$')")
        .message("must be a name or a number, such as www-data or 33, of letters, digits, '-', '_' and '.'"))]
    pub group: Option<String>,
}

/// One fact of the group's own: exactly one source.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[x_kube(
    validation = Rule::new("has(self.exec) != has(self.file)").message("a fact has exactly one source: set exec or file")
)]
pub struct FactFields {
    /// The fact's name, as in `facts.NAME`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z_][a-zA-Z0-9_]*$')")
        .message("must consist of letters, digits and '_', and not begin with a digit, such as javaVersion"))]
    pub name: String,
    /// A script; the fact is what it prints, without white space at the end, 4 KiB at most. It must change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub exec: Option<String>,
    /// A path; the fact is the file's content, without white space at the end, 4 KiB at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub file: Option<String>,
    /// Where the source fails: the fact is null instead of a failure of settings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// How the group is brought to what is declared.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ConvergeFields {
    /// How phases roll over the nodes.
    #[serde(default)]
    pub rollout: RolloutFields,
    /// How long one phase may run on one node. What still runs then is ended.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: String,
    /// What happens after a phase failed.
    #[serde(default)]
    pub retry: RetryFields,
}

impl Default for ConvergeFields {
    fn default() -> Self {
        Self { rollout: RolloutFields::default(), timeout: default_timeout(), retry: RetryFields::default() }
    }
}

fn default_timeout() -> String {
    "30m".into()
}

/// How phases roll over the nodes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutFields {
    /// `Independent`: each node goes through its phases at its own pace.
    #[serde(default)]
    pub order: Order,
    /// How many nodes are worked on at once: a number, or a share of count, rounded up, at least 1.
    #[serde(default = "default_max_parallel")]
    #[schemars(schema_with = "max_parallel_schema")]
    pub max_parallel: Value,
    /// `IsolateNode`: a node whose phase failed stops, the others go on.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Default for RolloutFields {
    fn default() -> Self {
        Self { order: Order::default(), max_parallel: default_max_parallel(), on_failure: OnFailure::default() }
    }
}

fn default_max_parallel() -> Value {
    Value::from("50%")
}

/// How nodes proceed relative to each other.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Order {
    /// Each node goes through its phases at its own pace.
    #[default]
    Independent,
}

/// What a failed node means for the others.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// They go on.
    #[default]
    IsolateNode,
}

/// What happens after a phase failed.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RetryFields {
    /// How many further attempts there are after the first.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub limit: u32,
    /// The pause before the second attempt; it doubles with each further one, up to 5 minutes.
    #[serde(default = "default_backoff")]
    #[schemars(schema_with = "duration_schema")]
    pub backoff: String,
}

impl Default for RetryFields {
    fn default() -> Self {
        Self { limit: default_limit(), backoff: default_backoff() }
    }
}

fn default_limit() -> u32 {
    3
}

fn default_backoff() -> String {
    "10s".into()
}

/// What is known of a group. Its size does not grow with the count.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpecStatus {
    /// The generation that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes there are, those that are being removed left out.
    #[serde(default)]
    pub replicas: u32,
    /// How many of them have every phase done as it is declared now, and a Ready pod.
    #[serde(default)]
    pub ready_replicas: u32,
    /// How many of them have every phase done as it is declared now.
    #[serde(default)]
    pub converged_replicas: u32,
    /// How many of them were made from the pod template as it is declared now.
    #[serde(default)]
    pub updated_replicas: u32,
    /// The label selector of the group's pods, for the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Where the nodes stand, by phase, in the order in which phases run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["phase"]))]
    pub phases: Vec<PhaseCounts>,
    /// The worst phase errors: those with the most attempts first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub phase_errors: Vec<PhaseError>,
    /// How many more phase errors there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub phase_errors_omitted: u32,
    /// `Ready`, and `Reconciling` or `Stalled` while they hold (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Where the nodes stand with one phase.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PhaseCounts {
    /// The phase.
    pub phase: String,
    /// Nodes on which it is done.
    pub succeeded: u32,
    /// Nodes on which it runs.
    pub running: u32,
    /// Nodes on which its last attempt failed.
    pub failed: u32,
    /// Nodes that have it before them.
    pub pending: u32,
}

/// A phase that failed on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseError {
    /// The node.
    pub node: String,
    /// The phase.
    pub phase: String,
    /// The action that failed, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How the attempt ended.
    pub outcome: super::group_node::Outcome,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// The script's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What went wrong, in a line, with the last line that was printed.
    pub message: String,
}

/// The rules on `phases` stand on the map, where they see the names.
fn phases_schema(generator: &mut SchemaGenerator) -> Schema {
    let phase = generator.subschema_for::<PhaseFields>();
    json_schema!({
        "description": "The phases, by name: bootstrap (once on every new node), settings (facts and values; changes nothing), configure (again whenever it changed).",
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": phase,
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, name in ['bootstrap', 'settings', 'configure'])",
                "message": "this version has the phases bootstrap, settings and configure; rename or remove any other"
            },
            {
                "rule": "!('settings' in self) || !has(self['settings'].actions) || self['settings'].actions.size() == 0",
                "message": "settings holds values and facts only, since it changes nothing on the node; move its actions to configure"
            },
            {
                "rule": "self.all(name, name == 'settings' || (!has(self[name].values) && (!has(self[name].facts) || self[name].facts.size() == 0)))",
                "message": "only settings holds values and facts; move them to spec.phases.settings"
            }
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

fn template_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The pod's labels, annotations and spec, as in a Deployment. It is checked by the API server before it is used.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn max_parallel_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "How many nodes are worked on at once: a number, or a share of count such as 25%, rounded up, at least 1.",
        "x-kubernetes-int-or-string": true,
        "default": "50%",
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 1 && self <= 10000 : self.matches('^([1-9][0-9]?|100)%$')",
            "message": "must be a number from 1 to 10000, or a share from 1% to 100%, such as 10 or 25%"
        }]
    })
}

fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "A duration such as 90s, 30m or 1h30m.",
        "type": "string",
        "maxLength": 20,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]{1,6}(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",
            "message": "must be a duration from 1s to 24h, such as 90s, 30m or 1h30m"
        }]
    })
}
