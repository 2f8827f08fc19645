//! How the operator brings a group to the declared state: the phases, their rollout over the nodes, and failures.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the operator brings the nodes to the declared state.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.phases) && has(self.process))")
        .message("phases and process exclude each other; remove one of them")
)]
pub struct ConvergeFields {
    /// Phases that converge runs, in this order. Bootstrap (on new nodes) and settings always run first; configure always runs, and
    /// first if it is not listed. Default: the `defaultPhases` of the ServerSpecs, else configure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(name, !(name in ['bootstrap', 'destroy-server', 'app-rollout']))")
        .message("phases must not list bootstrap, destroy-server or app-rollout, which the operator runs on new nodes, before removal and on demand; remove them from the list"))]
    pub phases: Option<Vec<String>>,
    /// Process whose phases converge runs, instead of `phases`: apply-install (settings, init, install, configure), apply-config
    /// (settings, configure), server-test (settings, test), or one of `spec.processes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub process: Option<String>,
    /// How phases roll out over the nodes, and how the operator replaces nodes.
    #[serde(default)]
    pub rollout: RolloutFields,
    /// Longest time that one phase may run on one node, such as `90s`, `30m` or `1h30m`, from 1s to 24h. The node then ends the
    /// run, and the attempt fails. Default: 30m.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: String,
    /// Longest time that the removal of a node waits for destroy-server, counted from the deletion of the GroupNode, from 1s to
    /// 24h. Then the operator removes the node anyway. Default: 5m.
    #[serde(default = "default_destroy_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub destroy_timeout: String,
    /// How often and when the operator retries a failed phase.
    #[serde(default)]
    pub retry: RetryFields,
    /// Any text, such as a date: if it changes, configure runs again on every node, as `kubectl rollout restart` does for pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub reapply: String,
    /// Drift checks of converged nodes at an interval. They change nothing that phases manage. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_check: Option<DriftCheckFields>,
}

/// Drift checks: the operator reads the facts again, evaluates test, and checks every action of the phases that run when their
/// content changes. The condition `Drifted` has the result.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DriftCheckFields {
    /// Time between two drift checks of a node, such as `30m` or `24h`, from 10s to 720h. The operator shortens it by up to a
    /// tenth, differently for each node.
    #[schemars(schema_with = "drift_interval_schema")]
    pub interval: String,
    /// What the operator does if a node differs. `Report`: it sets the condition `Drifted`. `Reapply`: it also runs the phase again
    /// on that node, within `maxParallel`. Default: Report.
    #[serde(default)]
    pub policy: DriftPolicy,
}

/// What the operator does if a node differs from the declared state.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DriftPolicy {
    /// The operator reports the difference.
    #[default]
    Report,
    /// The operator reports the difference and runs the phase again on the node, as after an edit and within the limits of the
    /// rollout.
    Reapply,
}

impl Default for ConvergeFields {
    fn default() -> Self {
        Self {
            phases: None,
            process: None,
            rollout: RolloutFields::default(),
            timeout: default_timeout(),
            destroy_timeout: default_destroy_timeout(),
            retry: RetryFields::default(),
            reapply: String::new(),
            drift_check: None,
        }
    }
}

fn default_timeout() -> String {
    "30m".into()
}

fn default_destroy_timeout() -> String {
    "5m".into()
}

/// How phases roll out over the nodes, and how the operator replaces nodes.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!((self.maxUnavailable == 0 || self.maxUnavailable == '0%') && (self.maxSurge == 0 || self.maxSurge == '0%'))")
        .message("maxUnavailable and maxSurge are both 0, which would prevent every replacement; set one of them to 1 or more")
)]
pub struct RolloutFields {
    /// `Independent`: each node runs its phases without waiting for others. `Barrier`: all nodes finish a phase before any starts
    /// the next; a node that joins later, is lost or has failed holds nobody up. Default: Independent.
    #[serde(default)]
    pub order: Order,
    /// How many nodes the operator runs phases on at once: a number, or a percentage of count such as `25%`, rounded up; at least
    /// 1. Default: 50%.
    #[serde(default = "default_max_parallel")]
    #[schemars(schema_with = "max_parallel_schema")]
    pub max_parallel: Value,
    /// How many nodes may be unavailable during a replacement: a number, or a percentage of count, rounded down; at least 1 if
    /// `maxSurge` is 0. A node is available if its pod is Ready and it has converged once. Default: 25%.
    #[serde(default = "default_max_unavailable")]
    #[schemars(schema_with = "max_unavailable_schema")]
    pub max_unavailable: Value,
    /// How many nodes beyond count the operator may create during a replacement: a number, or a percentage of count, rounded up.
    /// They get further ordinals. Must be 0 with `volumeClaimTemplates`. Default: 0.
    #[serde(default = "default_max_surge")]
    #[schemars(schema_with = "max_surge_schema")]
    pub max_surge: Value,
    /// `WhenChanged`: the operator replaces nodes that were created from another template. `Never`: it keeps them, and the
    /// conditions report them. Default: WhenChanged.
    #[serde(default)]
    pub replacement: Replacement,
    /// `IsolateNode`: after a failed phase the node stops and the others continue. `StopAll`: no phase starts on other nodes while
    /// more nodes than `maxFailures` (default 0) are failing. Default: IsolateNode.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Number of failing nodes, or percentage of count rounded down, above which no phase starts on other nodes. Default: no limit
    /// with `IsolateNode`, 0 with `StopAll`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "max_failures_schema")]
    pub max_failures: Option<Value>,
}

impl Default for RolloutFields {
    fn default() -> Self {
        Self {
            order: Order::default(),
            max_parallel: default_max_parallel(),
            max_unavailable: default_max_unavailable(),
            max_surge: default_max_surge(),
            replacement: Replacement::default(),
            on_failure: OnFailure::default(),
            max_failures: None,
        }
    }
}

fn default_max_parallel() -> Value {
    Value::from("50%")
}

fn default_max_unavailable() -> Value {
    Value::from("25%")
}

fn default_max_surge() -> Value {
    Value::from(0)
}

/// Whether nodes wait for each other between phases.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Order {
    /// Each node runs its phases without waiting for others.
    #[default]
    Independent,
    /// All nodes finish a phase before any starts the next.
    Barrier,
}

/// Whether a failed node stops the others.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// The other nodes continue.
    #[default]
    IsolateNode,
    /// The other nodes stop.
    StopAll,
}

/// What the operator does with a node that was created from another template.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Replacement {
    /// The operator replaces the node.
    #[default]
    WhenChanged,
    /// The operator keeps the node.
    Never,
}

/// How often and when the operator retries a failed phase.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct RetryFields {
    /// Number of attempts after the first, from 0 to 100. Default: 3.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 0, max = 100))]
    pub limit: u32,
    /// Pause before the second attempt, such as `10s`; it doubles with each further attempt, up to 5 minutes. Default: 10s.
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

/// The schema of a number or a percentage.
pub(super) fn share_schema(description: &str, default: Option<Value>, least: u32) -> Schema {
    let percent = if least == 0 { "^([0-9]|[1-9][0-9]|100)%$" } else { "^([1-9][0-9]?|100)%$" };
    let mut schema = json_schema!({
        "description": description,
        "x-kubernetes-int-or-string": true,
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": format!("type(self) == int ? self >= {least} && self <= 10000 : self.matches('{percent}')"),
            "message": format!("must be a number from {least} to 10000, or a share from {least}% to 100%, such as 10 or 25%")
        }]
    });
    if let Some(default) = default {
        schema.insert("default".into(), default);
    }
    schema
}

fn max_parallel_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes the operator runs phases on at once: a number, or a percentage of count such as `25%`, rounded up; at least 1. Default: 50%.",
        Some(default_max_parallel()),
        1,
    )
}

fn max_unavailable_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes may be unavailable during a replacement: a number, or a percentage of count, rounded down; at least 1 if `maxSurge` is 0. A node is available if its pod is Ready and it has converged once. Default: 25%.",
        Some(default_max_unavailable()),
        0,
    )
}

fn max_surge_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes beyond count the operator may create during a replacement: a number, or a percentage of count, rounded up. They get further ordinals. Must be 0 with `volumeClaimTemplates`. Default: 0.",
        Some(default_max_surge()),
        0,
    )
}

fn max_failures_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "Number of failing nodes, or percentage of count rounded down, above which no phase starts on other nodes. Default: no limit with `IsolateNode`, 0 with `StopAll`.",
        None,
        0,
    )
}

fn drift_interval_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Time between two drift checks of a node, such as `30m` or `24h`, from 10s to 720h. The operator shortens it by up to a tenth, differently for each node.",
        "type": "string",
        "maxLength": 20,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]{1,6}(h|m|s))+$') && duration(self) >= duration('10s') && duration(self) <= duration('720h')",
            "message": "must be a duration from 10s to 720h, such as 30m or 24h"
        }]
    })
}

pub(super) fn duration_schema(_: &mut SchemaGenerator) -> Schema {
    duration_up_to("24h", "90s, 30m or 1h30m")
}

/// The schema of a duration from 1s to `longest`; `such_as` are the examples in its message.
pub(super) fn duration_up_to(longest: &str, such_as: &str) -> Schema {
    let rule = format!(
        "self.matches('^([0-9]{{1,6}}(h|m|s|ms))+$') && duration(self) >= duration('1s') && duration(self) <= duration('{longest}')"
    );
    json_schema!({
        "description": format!("A duration such as {such_as}."),
        "type": "string",
        "maxLength": 20,
        "x-kubernetes-validations": [{
            "rule": rule,
            "message": format!("must be a duration from 1s to {longest}, such as {such_as}")
        }]
    })
}
