//! `Lift`: runs phases once on the nodes that its groups have. It never changes a count.
//!
//! Its spec is immutable, as that of a Job, except for `cancel`, `suspend` and `ttlSecondsAfterFinished`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    actions::ActionFields,
    converge::{OnFailure, Order, duration_schema, share_schema},
    group_spec::PhaseError,
};

/// What the Lift runs, and on which nodes. Immutable except for `cancel`, `suspend` and `ttlSecondsAfterFinished`.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "pallet.dev",
    version = "v1alpha1",
    kind = "Lift",
    plural = "lifts",
    category = "pallet",
    namespaced,
    status = "LiftStatus",
    derive = "PartialEq",
    doc = "A Lift runs phases once on the nodes that its groups have. It never changes a count.",
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes"}"#,
    printcolumn = r#"{"name":"Succeeded","type":"integer","jsonPath":".status.succeeded"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.failed"}"#,
    printcolumn = r#"{"name":"Complete","type":"string","jsonPath":".status.conditions[?(@.type==\"Complete\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Complete\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Complete\")].message","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.groups) != has(self.groupSelector)")
        .message("names no groups, or names them twice; set either groups or groupSelector"),
    validation = Rule::new("[has(self.phases), has(self.process), has(self.phase)].filter(x, x).size() <= 1")
        .message("phases, process and phase all say what runs; set one of them, or none for configure"),
    validation = Rule::new("(has(self.groups) ? has(oldSelf.groups) && self.groups == oldSelf.groups : !has(oldSelf.groups)) && (has(self.groupSelector) ? has(oldSelf.groupSelector) && self.groupSelector == oldSelf.groupSelector : !has(oldSelf.groupSelector)) && (has(self.nodes) ? has(oldSelf.nodes) && self.nodes == oldSelf.nodes : !has(oldSelf.nodes)) && (has(self.role) ? has(oldSelf.role) && self.role == oldSelf.role : !has(oldSelf.role))")
        .message("groups, groupSelector, nodes and role of a Lift never change; make another Lift"),
    // CEL compares sets in any order, but the order of phases matters. The rule does not detect that one field of `with` has
    // replaced another: CEL compares fields without a schema, but does not notice that one is missing.
    validation = Rule::new("(has(self.phases) ? has(oldSelf.phases) && self.phases.map(p, p) == oldSelf.phases.map(p, p) : !has(oldSelf.phases)) && (has(self.process) ? has(oldSelf.process) && self.process == oldSelf.process : !has(oldSelf.process)) && (has(self.phase) ? has(oldSelf.phase) && self.phase == oldSelf.phase : !has(oldSelf.phase)) && (has(self.with) ? has(oldSelf.with) && self.with == oldSelf.with : !has(oldSelf.with))")
        .message("phases, process, phase and with of a Lift never change; make another Lift"),
    validation = Rule::new("self.timeout == oldSelf.timeout && self.rollout == oldSelf.rollout && self.retry == oldSelf.retry && (has(self.dryRun) && self.dryRun) == (has(oldSelf.dryRun) && oldSelf.dryRun)")
        .message("timeout, rollout, retry and dryRun of a Lift never change; make another Lift"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)")
        .message("a Lift that was cancelled stays so; make another Lift")
)]
pub struct LiftFields {
    /// Names of the GroupSpecs of the same namespace on whose nodes the Lift runs. Set either `groups` or `groupSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 52)), extend("x-kubernetes-list-type" = "set"))]
    pub groups: Option<Vec<String>>,
    /// Selects GroupSpecs of the same namespace by their labels; an empty selector selects all. Set either `groups` or
    /// `groupSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    pub group_selector: Option<LabelSelector>,
    /// Names of nodes of these groups, such as `web-1`. The Lift runs on these nodes only. Default: all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Option<Vec<String>>,
    /// Role, such as `web`. The Lift runs only on groups whose nodes have this role. Default: all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub role: Option<String>,
    /// Names of the phases that run on each node, in this order; settings always runs first. Default: configure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    pub phases: Option<Vec<String>>,
    /// Process whose phases run, instead of `phases`: apply-install, apply-config, server-test, or one that the groups declare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub process: Option<String>,
    /// Phase that the Lift declares itself, instead of `phases`. Its templates see what those of the group see. It may use only
    /// Secrets and ConfigMaps that the group uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InlinePhaseFields>,
    /// Values for parameters of the ServerSpecs that the groups extend, for this Lift only: by PARAMETER, or by SPEC.PARAMETER if
    /// several ServerSpecs have that parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "with_schema")]
    pub with: Option<BTreeMap<String, Value>>,
    /// Longest time for the whole Lift, such as `10m` or `1h30m`, from 1s to 24h. Then the nodes end what still runs. Time in
    /// suspension does not count. Default: 1h.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: String,
    /// How the phases roll out over the nodes.
    #[serde(default)]
    pub rollout: LiftRolloutFields,
    /// How often and when the operator retries a failed phase.
    #[serde(default)]
    pub retry: LiftRetryFields,
    /// If true, the Lift changes nothing and reports for every action whether it would change the node. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// If true, the operator cancels the Lift: no further phase starts, and the nodes end what runs. It cannot be set back to
    /// false. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// If true, no further phase starts; a running phase runs to its end. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Seconds after the end of the Lift at which the operator deletes it. Do not set it for a Lift in Git: GitOps tools would
    /// create it again, and it would run again. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// A phase that a Lift declares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct InlinePhaseFields {
    /// Actions that the phase runs on the node, in order.
    #[schemars(length(min = 1, max = 64))]
    pub actions: Vec<ActionFields>,
}

/// How phases roll out over the nodes of a Lift.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiftRolloutFields {
    /// `Independent`: each node runs the phases without waiting for others. `Barrier`: all nodes finish a phase before any starts
    /// the next; a failed node holds nobody up. Default: Independent.
    #[serde(default)]
    pub order: Order,
    /// How many nodes the Lift runs on at once: a number, or a percentage of its nodes such as `25%`, rounded up; at least 1.
    /// Default: 100%.
    #[serde(default = "default_max_parallel")]
    #[schemars(schema_with = "max_parallel_schema")]
    pub max_parallel: Value,
    /// `IsolateNode`: after a failed phase the node stops and the others continue. `StopAll`: no further phase starts once more
    /// nodes than `maxFailures` (default 0) have failed. Default: IsolateNode.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Number of failed nodes, or percentage of the Lift's nodes rounded down, above which no further phase starts. Default: no
    /// limit with `IsolateNode`, 0 with `StopAll`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "max_failures_schema")]
    pub max_failures: Option<Value>,
}

impl Default for LiftRolloutFields {
    fn default() -> Self {
        Self {
            order: Order::default(),
            max_parallel: default_max_parallel(),
            on_failure: OnFailure::default(),
            max_failures: None,
        }
    }
}

/// How often and when the operator retries a failed phase of a Lift.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LiftRetryFields {
    /// Number of attempts after the first, from 0 to 100. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub limit: u32,
    /// Pause before the second attempt, such as `10s`; it doubles with each further attempt, up to 5 minutes. Default: 10s.
    #[serde(default = "default_backoff")]
    #[schemars(schema_with = "duration_schema")]
    pub backoff: String,
}

impl Default for LiftRetryFields {
    fn default() -> Self {
        Self { limit: 0, backoff: default_backoff() }
    }
}

fn default_timeout() -> String {
    "1h".into()
}

fn default_backoff() -> String {
    "10s".into()
}

fn default_max_parallel() -> Value {
    Value::from("100%")
}

/// Observed state of the Lift, written by the operator.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiftStatus {
    /// Generation of the spec that this status describes; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the Lift started, in RFC 3339. Its nodes are fixed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the Lift ended, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// When the current suspension began, in RFC 3339. Absent if the Lift is not suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_since: Option<Time>,
    /// Seconds of earlier suspensions, which do not count for the timeout.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspended_seconds: u32,
    /// When the operator began to end the Lift, after a cancellation or the timeout, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending_since: Option<Time>,
    /// Number of nodes of the Lift.
    #[serde(default)]
    pub nodes: u32,
    /// Number of nodes on which everything succeeded.
    #[serde(default)]
    pub succeeded: u32,
    /// Number of nodes on which a phase failed, timed out or was cancelled.
    #[serde(default)]
    pub failed: u32,
    /// Number of nodes on which the Lift runs or waits at a manual step.
    #[serde(default)]
    pub running: u32,
    /// Number of nodes on which nothing has started.
    #[serde(default)]
    pub pending: u32,
    /// Nodes by group and outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub outcomes: Vec<NodesByOutcome>,
    /// What the actions did, or would do in a dry run, summed over all finished nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<ActionCounts>,
    /// The first ten phases that failed, by node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub phase_errors: Vec<PhaseError>,
    /// Number of failed phases that `phaseErrors` does not list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub phase_errors_omitted: u32,
    /// Conditions: `Complete` and `Failed` always; `Reconciling` or `Stalled` while True (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Nodes of one group that have the same outcome.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct NodesByOutcome {
    /// Name of the GroupSpec of these nodes.
    pub group: String,
    /// Outcome of these nodes, such as `Succeeded`. `Skipped`: not run or not finished because other nodes failed. `Removed`: removed
    /// before they finished.
    pub outcome: NodeOutcome,
    /// Ordinals of the nodes, as intervals such as `0-2,5`.
    #[schemars(length(max = 65536))]
    pub nodes: String,
}

/// Outcome of the node in the Lift: `Succeeded`, `Failed`, `TimedOut`, `Cancelled`, `Skipped` (because others failed) or `Removed`;
/// absent until it has finished.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum NodeOutcome {
    /// Nothing has started on the node.
    Pending,
    /// Something has started on the node, and it has not finished.
    Running,
    /// Everything succeeded.
    Succeeded,
    /// A phase failed, and no attempts are left.
    Failed,
    /// The timeout of the Lift passed before the node finished.
    TimedOut,
    /// The Lift was cancelled before the node finished.
    Cancelled,
    /// The node did not run or did not finish, because other nodes failed.
    Skipped,
    /// The node was removed before it finished.
    Removed,
}

/// Number of actions by their result.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct ActionCounts {
    /// Number of actions that changed the node, or would in a dry run.
    pub changed: u32,
    /// Number of actions that found the node as declared.
    pub unchanged: u32,
    /// Number of actions skipped by `when`, `onOneNode` or `onChangeOf`.
    pub skipped: u32,
    /// Number of actions that failed.
    pub failed: u32,
    /// In a dry run, number of actions whose result depends on a step that was not run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn selector_schema(_: &mut SchemaGenerator) -> Schema {
    label_selector_schema(
        "Selects GroupSpecs of the same namespace by their labels; an empty selector selects all. Set either `groups` or `groupSelector`.",
    )
}

/// The schema of a label selector, with bounds.
pub(crate) fn label_selector_schema(description: &str) -> Schema {
    let text = |longest: u32, description: &str| match description {
        "" => json_schema!({"type": "string", "maxLength": longest}),
        _ => json_schema!({"type": "string", "maxLength": longest, "description": description}),
    };
    json_schema!({
        "description": description,
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that the object must have, each with this value, such as `tier: web`.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": text(63, "")
            },
            "matchExpressions": {
                "description": "Further requirements, which the object must meet too, as in the selector of a Deployment.",
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": text(317, "Key of the label that the requirement is about."),
                        "operator": {"description": "How the label is compared: with `values` (In, NotIn), or by its existence (Exists, DoesNotExist).", "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {"description": "Values for In and NotIn. Must be empty for the other operators.", "type": "array", "maxItems": 64, "items": text(63, "")}
                    },
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
                        "message": "In and NotIn need values, Exists and DoesNotExist have none"
                    }]
                }
            }
        }
    })
}

fn with_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Values for parameters of the ServerSpecs that the groups extend, for this Lift only: by PARAMETER, or by SPEC.PARAMETER if several ServerSpecs have that parameter.",
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn max_parallel_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes the Lift runs on at once: a number, or a percentage of its nodes such as `25%`, rounded up; at least 1. Default: 100%.",
        Some(default_max_parallel()),
        1,
    )
}

fn max_failures_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "Number of failed nodes, or percentage of the Lift's nodes rounded down, above which no further phase starts. Default: no limit with `IsolateNode`, 0 with `StopAll`.",
        None,
        0,
    )
}
