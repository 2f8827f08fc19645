//! `GroupNode`: one node of a group, written by the operator: what backs it, its facts, a phase result for every phase.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lift::NodeOutcome;

/// What a GroupNode is for. Written once by the operator.
#[derive(CustomResource, Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "pallet.dev",
    version = "v1alpha1",
    kind = "GroupNode",
    plural = "groupnodes",
    shortname = "gn",
    category = "pallet",
    namespaced,
    status = "GroupNodeStatus",
    derive = "PartialEq",
    doc = "One node of a group, written by the operator: what backs it, its facts, and the result of every phase.",
    selectable = ".spec.group",
    printcolumn = r#"{"name":"Group","type":"string","jsonPath":".spec.group"}"#,
    printcolumn = r#"{"name":"Converged","type":"string","jsonPath":".status.conditions[?(@.type==\"Converged\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Converged\")].reason"}"#,
    printcolumn = r#"{"name":"Address","type":"string","jsonPath":".status.address"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type==\"Converged\")].message","priority":1}"#,
    validation = Rule::new("self.spec.group == oldSelf.spec.group && self.spec.ordinal == oldSelf.spec.ordinal && has(self.spec.host) == has(oldSelf.spec.host) && (!has(self.spec.host) || self.spec.host == oldSelf.spec.host) && (self.spec.groupUid == oldSelf.spec.groupUid ? has(self.spec.takenOverFrom) == has(oldSelf.spec.takenOverFrom) && (!has(self.spec.takenOverFrom) || self.spec.takenOverFrom == oldSelf.spec.takenOverFrom) : has(self.spec.takenOverFrom) && self.spec.takenOverFrom == oldSelf.spec.groupUid)")
        .message("spec: a GroupNode is written by the operator and never changes; edit the GroupSpec instead")
)]
#[serde(rename_all = "camelCase")]
pub struct GroupNodeFields {
    /// The GroupSpec that this node belongs to.
    #[schemars(length(min = 1, max = 63))]
    pub group: String,
    /// The UID of that GroupSpec: a node belongs to one object, not to a name.
    #[schemars(length(min = 1, max = 64))]
    pub group_uid: String,
    /// The UID of an earlier GroupSpec of the same name that the operator has taken the node over from, as after a restore from
    /// a backup. `groupUid` changes only together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub taken_over_from: Option<String>,
    /// The node's number in the group, from 0.
    #[schemars(range(min = 0, max = 99999))]
    pub ordinal: u32,
    /// The host of the group's inventory that this node is, where its nodes are hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<NodeHost>,
}

/// A host of the group's inventory, as it was when the node was made.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct NodeHost {
    /// What it is called in the inventory.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its IP address or DNS name.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// The port of the SSH server on the host.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// What is known of a node.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupNodeStatus {
    /// What backs the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_ref: Option<MachineRef>,
    /// The hash of the template of the machine on which the node converged last. A lost machine is made from that template
    /// again, until it is the node's turn to be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub template_hash: Option<String>,
    /// The node's address as the cluster sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Which life of the node the phase results speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// What settings found, at its last run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "open_map")]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// The latest attempt at each phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["phase"]))]
    pub phase_results: Vec<PhaseResult>,
    /// What the last look found that changed nothing (`spec.converge.driftCheck`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// What Lifts did on the node: those that are at it, and the last few that have ended, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub lifts: Vec<NodeLift>,
    /// The phase that runs now, as of the last write; the journal on the node knows better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// `Drifted`, where the node is looked at, and `Converged`: every phase has succeeded on this incarnation as it is declared now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What a look at a node found.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// When the drift check ended, in RFC 3339.
    pub checked_at: Time,
    /// What is otherwise than it is declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub differences: Vec<Difference>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_none")]
    pub omitted: u32,
}

/// What one Lift did on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLift {
    /// The UID of the Lift.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The name of the Lift.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What has become of the node in it. Without it the Lift is not done with the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<NodeOutcome>,
    /// The latest attempt at each of its phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["phase"]))]
    pub phase_results: Vec<PhaseResult>,
}

/// Something that is otherwise than it is declared.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The name of the phase, such as `configure`.
    #[schemars(length(max = 128))]
    pub phase: String,
    /// The action or the expectation.
    #[schemars(length(max = 256))]
    pub name: String,
    /// A diff, or what is wrong.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// What backs a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct MachineRef {
    /// Its kind: `Pod`, `VirtualMachine` or `Host`.
    pub kind: String,
    /// The name of the object.
    pub name: String,
    /// Its UID; empty for a host.
    pub uid: String,
}

/// One life of a node: what a restart that loses the file system changes.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Incarnation {
    /// The UID of the pod or of the virtual machine; the name of the host.
    #[schemars(length(max = 253))]
    pub uid: String,
    /// The container's ID, the UID of the virtual machine's instance, or where the host was reached. For a pod another one is
    /// another life; a machine that was only started again has the same filesystem ID.
    #[schemars(length(max = 512))]
    pub instance: String,
    /// What the agent found on the node's file system: made once on it, at random; on machines with the
    /// machine ID and the UID of the GroupNode behind it.
    #[schemars(length(max = 256))]
    pub filesystem_id: String,
}

/// A phase that runs.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The name of the phase, such as `configure`.
    #[schemars(length(max = 128))]
    pub phase: String,
    /// The ID of the run in the journal of the node, for `kubectl pallet logs --run`.
    #[schemars(length(max = 128))]
    pub run_id: String,
    /// Which attempt it is, from 1.
    pub attempt: u32,
    /// When the run started on the node, in RFC 3339.
    pub started_at: Time,
}

/// The durable proof of one attempt at a phase on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseResult {
    /// The name of the phase, such as `configure`.
    #[schemars(length(max = 128))]
    pub phase: String,
    /// What was run: a hash over the rendered phase (for settings: over its source).
    #[schemars(length(max = 128))]
    pub digest: String,
    /// The run's name in the node's journal. Empty where nothing could be started.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub run_id: String,
    /// Which attempt this was at this digest, from 1.
    pub attempt: u32,
    /// How the attempt ended: `Succeeded`, `Failed`, `TimedOut` and others.
    pub outcome: Outcome,
    /// How often in a row this attempt was interrupted because the pod or virtual machine was replaced. Absent where it never was.
    #[serde(default, skip_serializing_if = "is_none")]
    pub interruptions: u32,
    /// The script's exit code; 128 + n where signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When the run started on the node, in RFC 3339.
    pub started_at: Time,
    /// When the run ended on the node, in RFC 3339.
    pub finished_at: Time,
    /// The place of the first action that this run did: behind the manual step that was acknowledged; 0 without one.
    #[serde(default, skip_serializing_if = "is_none")]
    pub from: u32,
    /// What each action did, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub actions: Vec<ActionResult>,
    /// The last 2 KiB of what the scripts printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub output: String,
    /// How many bytes they printed in all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_bytes: i64,
    /// What went wrong, in a line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// The Lift that ran this phase otherwise on the node since.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub overridden_by: String,
    /// The value of the `pallet.dev/retry` annotation that this attempt counts under: of the group and of the node, with a slash
    /// between them. A value of more than 64 bytes is replaced by its SHA-256 in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub retry_token: String,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Outcome {
    /// Every action succeeded.
    Succeeded,
    /// An action failed.
    Failed,
    /// The deadline passed, and the run's processes were ended.
    TimedOut,
    /// The run was lost from sight. It is looked for on the node before anything else is done there.
    Unknown,
    /// It got to a manual step, which nobody has acknowledged yet.
    Waiting,
    /// The pod or virtual machine was evicted, deleted or lost while the phase ran. That is no failed attempt: the phase runs again,
    /// with a backoff where this happens again and again.
    Interrupted,
}

/// What one action did.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct ActionResult {
    /// The action's name, or its kind and place where it has none.
    #[schemars(length(max = 256))]
    pub name: String,
    /// What came of it.
    pub result: Effect,
    /// What changed in a file that everybody may read: the first lines of a diff, 1 KiB at most.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub diff: String,
}

/// What came of one action.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Effect {
    /// It changed the node.
    Changed,
    /// The node was as it should be.
    Unchanged,
    /// It failed; the actions after it did not run.
    Failed,
    /// It was not for this node, or nothing had changed that it waits for.
    Skipped,
    /// It is a step for a person, and not acknowledged yet.
    Waiting,
    /// Of a check: it cannot be told before something else is done.
    Unknown,
}

fn is_none(n: &u32) -> bool {
    *n == 0
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn open_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "What settings found, at its last run.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
