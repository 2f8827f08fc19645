//! `Lift`: one operation, phases applied once to the nodes that a group has. It never changes a count.
//!
//! Immutable like a Job's, but for what ends, stops or outlives it: `cancel`, `suspend`, `ttlSecondsAfterFinished`.

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

/// What a Lift does, and to which nodes.
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
    doc = "One operation: phases applied once to the nodes that its groups have. It never changes a count.",
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
    // Sets are equal to CEL in any order, but that of phases means something. What it cannot see is that one field of `with`
    // has taken the place of another: fields that no schema names are compared, but not missed.
    validation = Rule::new("(has(self.phases) ? has(oldSelf.phases) && self.phases.map(p, p) == oldSelf.phases.map(p, p) : !has(oldSelf.phases)) && (has(self.process) ? has(oldSelf.process) && self.process == oldSelf.process : !has(oldSelf.process)) && (has(self.phase) ? has(oldSelf.phase) && self.phase == oldSelf.phase : !has(oldSelf.phase)) && (has(self.with) ? has(oldSelf.with) && self.with == oldSelf.with : !has(oldSelf.with))")
        .message("phases, process, phase and with of a Lift never change; make another Lift"),
    validation = Rule::new("self.timeout == oldSelf.timeout && self.rollout == oldSelf.rollout && self.retry == oldSelf.retry && (has(self.dryRun) && self.dryRun) == (has(oldSelf.dryRun) && oldSelf.dryRun)")
        .message("timeout, rollout, retry and dryRun of a Lift never change; make another Lift"),
    validation = Rule::new("!(has(oldSelf.cancel) && oldSelf.cancel) || (has(self.cancel) && self.cancel)")
        .message("a Lift that was cancelled stays so; make another Lift")
)]
pub struct LiftFields {
    /// The GroupSpecs of the same namespace whose nodes it is for, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 52)), extend("x-kubernetes-list-type" = "set"))]
    pub groups: Option<Vec<String>>,
    /// The GroupSpecs of the same namespace whose nodes it is for, by their labels; all of them where it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    pub group_selector: Option<LabelSelector>,
    /// Of the nodes of these groups only those with one of these names, such as web-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Option<Vec<String>>,
    /// Of these groups only those whose nodes have this role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub role: Option<String>,
    /// The phases that run, in this order, on each node; configure by default. Settings always goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    pub phases: Option<Vec<String>>,
    /// The process whose phases run, in place of `phases`: apply-install, apply-config, server-test, or one that the groups
    /// declare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub process: Option<String>,
    /// A phase that is declared here, in place of `phases`. Its templates see what those of the group see. It may use Secrets
    /// and ConfigMaps that the group uses, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<InlinePhaseFields>,
    /// Values for parameters of the ServerSpecs that the groups extend, for this operation only: by PARAMETER, or by
    /// SPEC.PARAMETER where several ServerSpecs have one of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "with_schema")]
    pub with: Option<BTreeMap<String, Value>>,
    /// How long the operation may take in all. What still runs then is ended on the nodes. While it is suspended no time
    /// passes.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: String,
    /// How the phases roll over the nodes.
    #[serde(default)]
    pub rollout: LiftRolloutFields,
    /// What happens after a phase failed on a node.
    #[serde(default)]
    pub retry: LiftRetryFields,
    /// Changes nothing: of every action it is told whether it would change the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Ends the operation: no further phase starts, and what runs is ended on the nodes. It cannot be taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// No further phase starts while this is true. What runs goes on to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// The Lift is deleted so many seconds after it has ended; never by default. Leave it out where the Lift stands in Git, or
    /// it would be made, and run, again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// A phase of a Lift's own.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct InlinePhaseFields {
    /// What it does on the node, in order.
    #[schemars(length(min = 1, max = 64))]
    pub actions: Vec<ActionFields>,
}

/// How phases roll over the nodes of a Lift.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiftRolloutFields {
    /// `Independent`: each node goes through the phases at its own pace. `Barrier`: all nodes go through one phase before any
    /// begins the next; one that has failed is not waited for.
    #[serde(default)]
    pub order: Order,
    /// How many nodes are worked on at once: a number, or a share of the nodes, rounded up, at least 1.
    #[serde(default = "default_max_parallel")]
    #[schemars(schema_with = "max_parallel_schema")]
    pub max_parallel: Value,
    /// `IsolateNode`: a node whose phase failed stops, the others go on. `StopAll`: no further phase starts anywhere when more
    /// nodes than maxFailures (0 by default) have failed.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// When more nodes than this have failed, no further phase starts anywhere: a number, or a share of the nodes, rounded
    /// down. Without it IsolateNode knows no limit, and StopAll stops at the first.
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

/// What happens after a phase of a Lift failed on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LiftRetryFields {
    /// How many further attempts there are after the first; none by default.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub limit: u32,
    /// The pause before the second attempt; it doubles with each further one, up to 5 minutes.
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

/// What has become of an operation.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiftStatus {
    /// The generation that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When it started. Its nodes are fixed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the Lift ended, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Since when it is suspended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended_since: Option<Time>,
    /// How long it was suspended before, in seconds. It does not count for the timeout.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspended_seconds: u32,
    /// Since when it is being ended, since it was cancelled or its time was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending_since: Option<Time>,
    /// How many nodes it is for.
    #[serde(default)]
    pub nodes: u32,
    /// On how many of them everything was done.
    #[serde(default)]
    pub succeeded: u32,
    /// On how many of them a phase failed, timed out or was cancelled.
    #[serde(default)]
    pub failed: u32,
    /// On how many of them it is at work, or waits at a manual step.
    #[serde(default)]
    pub running: u32,
    /// How many of them have all of it before them.
    #[serde(default)]
    pub pending: u32,
    /// The nodes by what has become of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub outcomes: Vec<NodesByOutcome>,
    /// What the actions did, or would do in a dry run, over all nodes that are done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<ActionCounts>,
    /// The phases that failed, by node, the first ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub phase_errors: Vec<PhaseError>,
    /// How many more phase errors there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub phase_errors_omitted: u32,
    /// `Complete` and `Failed`, and `Reconciling` or `Stalled` while they hold (kstatus).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Nodes of one group of which the same has become.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct NodesByOutcome {
    /// The name of the GroupSpec.
    pub group: String,
    /// What has become of them.
    pub outcome: NodeOutcome,
    /// Their ordinals, as in `0-2,5`.
    #[schemars(length(max = 65536))]
    pub nodes: String,
}

/// What has become of a node in a Lift.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum NodeOutcome {
    /// Nothing was begun on it.
    Pending,
    /// Something was begun on it, and it is not done.
    Running,
    /// Everything was done.
    Succeeded,
    /// A phase failed, and there are no attempts left.
    Failed,
    /// The time was over before it was done.
    TimedOut,
    /// The Lift was cancelled before it was done.
    Cancelled,
    /// Nothing was begun on it, since others had failed.
    Skipped,
    /// It was removed before it was done.
    Removed,
}

/// What actions did, counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct ActionCounts {
    /// They changed the node, or would.
    pub changed: u32,
    /// The node was as it should be.
    pub unchanged: u32,
    /// They were not for the node, or nothing had changed that they wait for.
    pub skipped: u32,
    /// The number of actions that failed.
    pub failed: u32,
    /// It cannot be told before a step that was not taken, in a dry run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn selector_schema(_: &mut SchemaGenerator) -> Schema {
    label_selector_schema(
        "The GroupSpecs of the same namespace whose nodes it is for, by their labels; all of them where it is empty.",
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
                "description": "Labels that an object must have, each with this value.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": text(63, "")
            },
            "matchExpressions": {
                "description": "Further requirements, as in a Deployment's selector.",
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": text(317, "The key of the label that is compared."),
                        "operator": {"description": "How the label is compared with the values.", "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {"description": "The values for In and NotIn; empty for the other operators.", "type": "array", "maxItems": 64, "items": text(63, "")}
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
        "description": "Values for parameters of the ServerSpecs that the groups extend, for this operation only: by PARAMETER, or by SPEC.PARAMETER where several ServerSpecs have one of that name.",
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn max_parallel_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes are worked on at once: a number, or a share of the nodes such as 25%, rounded up, at least 1.",
        Some(default_max_parallel()),
        1,
    )
}

fn max_failures_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "When more nodes than this have failed, no further phase starts anywhere: a number, or a share of the nodes, rounded down. Without it IsolateNode knows no limit, and StopAll stops at the first.",
        None,
        0,
    )
}
