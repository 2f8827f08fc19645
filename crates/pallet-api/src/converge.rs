//! How a group is brought to what is declared: which phases, how they roll over the nodes, and what a failure means.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the group is brought to what is declared.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.phases) && has(self.process))")
        .message("phases and process both say what runs; remove one of them")
)]
pub struct ConvergeFields {
    /// The phases that run, in this order; configure alone by default. Bootstrap (on new nodes) and settings always go
    /// first. Configure always runs: it goes first where it is not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 40)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(name, !(name in ['bootstrap', 'destroy-server', 'app-rollout']))")
        .message("bootstrap runs on every new node and destroy-server before a node is removed, by themselves, and app-rollout only on demand; take them out of the list"))]
    pub phases: Option<Vec<String>>,
    /// The process whose phases run, in place of `phases`: apply-install (settings, init, install, configure), apply-config
    /// (settings, configure), server-test (settings, test), or one of `spec.processes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub process: Option<String>,
    /// How phases roll over the nodes.
    #[serde(default)]
    pub rollout: RolloutFields,
    /// How long one phase may run on one node. What still runs then is ended.
    #[serde(default = "default_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub timeout: String,
    /// How long the removal of a node waits for destroy-server in all, counted from the deletion. Then the node goes all the
    /// same.
    #[serde(default = "default_destroy_timeout")]
    #[schemars(schema_with = "duration_schema")]
    pub destroy_timeout: String,
    /// What happens after a phase failed.
    #[serde(default)]
    pub retry: RetryFields,
    /// Any text: when it changes, configure runs again on every node, as after an edit (`rollout restart`'s twin).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub reapply: String,
    /// Looks at settled nodes at intervals, without changing anything; not done by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_check: Option<DriftCheckFields>,
}

/// How settled nodes are looked at: the facts are read again, test is looked at, and every action of the phases that converge
/// runs whenever they change is checked. What is found stands in the condition Drifted.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DriftCheckFields {
    /// How often each node is looked at.
    #[schemars(schema_with = "drift_interval_schema")]
    pub interval: String,
    /// What is done about it.
    #[serde(default)]
    pub policy: DriftPolicy,
}

/// What is done about a node that differs from what is declared.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DriftPolicy {
    /// It is said.
    #[default]
    Report,
    /// It is said, and the phase runs again there, as after an edit: as the rollout allows.
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

/// How phases roll over the nodes, and how nodes are replaced.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!((self.maxUnavailable == 0 || self.maxUnavailable == '0%') && (self.maxSurge == 0 || self.maxSurge == '0%'))")
        .message("maxUnavailable and maxSurge are both 0, so that no node could ever be replaced; set one of them to 1 or more")
)]
pub struct RolloutFields {
    /// `Independent`: each node goes through its phases at its own pace. `Barrier`: all nodes go through one phase before
    /// any begins the next. A node that joins later catches up alone; one that is lost or has failed is not waited for.
    #[serde(default)]
    pub order: Order,
    /// How many nodes are worked on at once: a number, or a share of count, rounded up, at least 1.
    #[serde(default = "default_max_parallel")]
    #[schemars(schema_with = "max_parallel_schema")]
    pub max_parallel: Value,
    /// How many nodes may be unavailable while nodes are replaced: a number, or a share of count, rounded down, at least 1
    /// where there is no surge. A node is available when its pod is Ready and it has converged once.
    #[serde(default = "default_max_unavailable")]
    #[schemars(schema_with = "max_unavailable_schema")]
    pub max_unavailable: Value,
    /// How many nodes there may be beyond count while nodes are replaced: a number, or a share of count, rounded up. The
    /// further nodes get further ordinals.
    #[serde(default = "default_max_surge")]
    #[schemars(schema_with = "max_surge_schema")]
    pub max_surge: Value,
    /// `WhenChanged`: nodes whose pod was made from another template are replaced. `Never`: they stay, and the conditions
    /// say so.
    #[serde(default)]
    pub replacement: Replacement,
    /// `IsolateNode`: a node whose phase failed stops, the others go on. `StopAll`: no phase starts on any other node while
    /// more nodes than maxFailures (0 by default) are failing.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// While more nodes than this are failing, no phase starts on any other node: a number, or a share of count, rounded
    /// down. Without it IsolateNode knows no limit, and StopAll stops at the first.
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

/// How nodes proceed relative to each other.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Order {
    /// Each node goes through its phases at its own pace.
    #[default]
    Independent,
    /// All nodes go through one phase before any begins the next.
    Barrier,
}

/// What a failed node means for the others.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum OnFailure {
    /// They go on.
    #[default]
    IsolateNode,
    /// They stop.
    StopAll,
}

/// What becomes of a node whose pod was made from another template.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Replacement {
    /// It is replaced.
    #[default]
    WhenChanged,
    /// It stays.
    Never,
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

/// A number, or a share of count.
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
        "How many nodes are worked on at once: a number, or a share of count such as 25%, rounded up, at least 1.",
        Some(default_max_parallel()),
        1,
    )
}

fn max_unavailable_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes may be unavailable while nodes are replaced: a number, or a share of count, rounded down, at least 1 where there is no surge. A node is available when its pod is Ready and it has converged once.",
        Some(default_max_unavailable()),
        0,
    )
}

fn max_surge_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "How many nodes there may be beyond count while nodes are replaced: a number, or a share of count, rounded up. The further nodes get further ordinals.",
        Some(default_max_surge()),
        0,
    )
}

fn max_failures_schema(_: &mut SchemaGenerator) -> Schema {
    share_schema(
        "While more nodes than this are failing, no phase starts on any other node: a number, or a share of count, rounded down. Without it IsolateNode knows no limit, and StopAll stops at the first.",
        None,
        0,
    )
}

fn drift_interval_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "How often each node is looked at.",
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

/// A duration of at most so much, such as these.
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
