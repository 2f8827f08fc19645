//! `GroupNode`: one node of a group, written by the operator: its machine, its facts, and the result of every phase.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lift::NodeOutcome;

/// Identity of the node. The operator writes it once, and it is immutable.
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
    doc = "A GroupNode is one node of a group, written by the operator: its machine, its facts, and the result of every phase.",
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
    /// Name of the GroupSpec that the node belongs to.
    #[schemars(length(min = 1, max = 63))]
    pub group: String,
    /// UID of the GroupSpec that the node belongs to. A new GroupSpec of the same name has another UID.
    #[schemars(length(min = 1, max = 64))]
    pub group_uid: String,
    /// UID of an earlier GroupSpec of the same name from which the operator took over the node, such as after a restore from a
    /// backup. `groupUid` changes only together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub taken_over_from: Option<String>,
    /// Number of the node in its group, from 0.
    #[schemars(range(min = 0, max = 99999))]
    pub ordinal: u32,
    /// Host of the inventory that this node is. Absent if the node is a pod or a virtual machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<NodeHost>,
}

/// A host of the group's inventory, as it was when the node was created.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct NodeHost {
    /// Name of the host in the inventory.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// IP address or DNS name of the host.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// Port of the SSH server on the host.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// Observed state of the node, written by the operator.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupNodeStatus {
    /// Machine of the node: its pod, virtual machine or host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_ref: Option<MachineRef>,
    /// Hash of the template of the machine on which the node last converged. The operator creates a lost machine from that template
    /// until it replaces the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub template_hash: Option<String>,
    /// Address of the node: the IP address of its pod or virtual machine, or the address of its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Instance of the node (pod, disk) that the phase results are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// Facts of the node as of the last run of settings, by name, such as `os.family`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "open_map")]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// Result of the latest attempt at each phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["phase"]))]
    pub phase_results: Vec<PhaseResult>,
    /// Result of the last drift check (`spec.converge.driftCheck` of the group).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// Results of Lifts on the node: those that have not finished, and the last three that have, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub lifts: Vec<NodeLift>,
    /// Phase that is running, as of the last write. The journal on the node may be newer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Conditions: `Converged`, True if every phase has succeeded on this incarnation as declared now; `Drifted` if there are drift
    /// checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Result of a drift check of a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// When the drift check ended, in RFC 3339.
    pub checked_at: Time,
    /// Differences between the node and the declared state, 16 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub differences: Vec<Difference>,
    /// Number of differences that `differences` does not list.
    #[serde(default, skip_serializing_if = "is_none")]
    pub omitted: u32,
}

/// Results of one Lift on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLift {
    /// UID of the Lift. Lifts with the same name have different UIDs.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Name of the Lift in the namespace.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Outcome of the node in the Lift, such as `Succeeded`. Absent until the Lift has finished on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<NodeOutcome>,
    /// Result of the latest attempt at each phase of the Lift.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["phase"]))]
    pub phase_results: Vec<PhaseResult>,
}

/// A difference between a node and the declared state.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Name of the phase, such as `configure`.
    #[schemars(length(max = 128))]
    pub phase: String,
    /// Name of the action or expectation that differs.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Diff of a file, or a description of the difference; 1 KiB at most.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The machine of a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct MachineRef {
    /// Kind of the machine: `Pod`, `VirtualMachine` or `Host`.
    pub kind: String,
    /// Name of the pod, virtual machine or host.
    pub name: String,
    /// UID of the pod or virtual machine; empty for a host.
    pub uid: String,
}

/// The instance of a node (pod, disk). It changes when the node loses its file system.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Incarnation {
    /// UID of the pod or virtual machine, or the name of the host.
    #[schemars(length(max = 253))]
    pub uid: String,
    /// ID of the container, UID of the VirtualMachineInstance, or address and port of the host. A pod with another value is another
    /// incarnation; a machine that restarts with its disk keeps its `filesystemId`.
    #[schemars(length(max = 512))]
    pub instance: String,
    /// ID of the node's file system: random, created once by the agent on it. On hosts and virtual machines the machine ID and the
    /// UID of the GroupNode follow it.
    #[schemars(length(max = 256))]
    pub filesystem_id: String,
}

/// A phase that is running.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Name of the phase, such as `configure`.
    #[schemars(length(max = 128))]
    pub phase: String,
    /// ID of the run in the journal of the node, for `kubectl pallet logs --run`.
    #[schemars(length(max = 128))]
    pub run_id: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When the run started on the node, in RFC 3339.
    pub started_at: Time,
}

/// The stored result of one attempt at a phase on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseResult {
    /// Name of the phase, such as `configure`.
    #[schemars(length(max = 128))]
    pub phase: String,
    /// Hash of the rendered phase that ran; for settings, of its source. A phase with another digest is due again.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// ID of the run in the journal of the node, for `kubectl pallet logs --run`. Empty if nothing ran on the node.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub run_id: String,
    /// Number of the attempt at this digest, from 1.
    pub attempt: u32,
    /// How the attempt ended: `Succeeded`, `Failed`, `TimedOut`, `Waiting` (for a person), `Unknown` (connection lost) or
    /// `Interrupted` (the machine was replaced).
    pub outcome: Outcome,
    /// How often in a row this attempt was interrupted because the pod or virtual machine was replaced. Absent if never.
    #[serde(default, skip_serializing_if = "is_none")]
    pub interruptions: u32,
    /// Exit code of the first action that failed; 128 + n if signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When the run started on the node, in RFC 3339.
    pub started_at: Time,
    /// When the run ended on the node, in RFC 3339.
    pub finished_at: Time,
    /// Index of the first action of this run: the one after the acknowledged manual step. 0 if there was none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub from: u32,
    /// Result of each action, in order. Actions after a failed one are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub actions: Vec<ActionResult>,
    /// Last 2 KiB of the output of the scripts, with secrets masked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub output: String,
    /// Size of the whole output of the scripts, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_bytes: i64,
    /// Error in one line. Absent if the attempt succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Name of the Lift that has since run this phase with other content on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub overridden_by: String,
    /// Values of the annotation `pallet.dev/retry` of the group and of the node, with a slash between them, under which this
    /// attempt counts. A value over 64 bytes is replaced by its SHA-256 in hexadecimal.
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
    /// The timeout passed, and the node ended the processes of the run.
    TimedOut,
    /// The connection was lost. The operator asks the node's journal for the result before it does anything else there.
    Unknown,
    /// The run reached a manual step that nobody has acknowledged yet.
    Waiting,
    /// The pod or virtual machine was evicted, deleted or lost while the phase ran. The attempt does not count: the phase runs
    /// again, with a backoff if this happens repeatedly.
    Interrupted,
}

/// Result of one action.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct ActionResult {
    /// Name of the action, or its kind and index if it has none, such as `exec[0]`.
    #[schemars(length(max = 256))]
    pub name: String,
    /// `Changed`, `Unchanged`, `Failed`, `Skipped`, `Waiting` (for a person) or `Unknown` (in a dry run or drift check).
    pub result: Effect,
    /// First lines of a diff of the changed file, 1 KiB at most. Only for files that every user of the node may read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub diff: String,
}

/// Result of one action.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Effect {
    /// The action changed the node.
    Changed,
    /// The node was as declared.
    Unchanged,
    /// The action failed. The actions after it did not run.
    Failed,
    /// The action was not for this node, or no action that it depends on has changed anything.
    Skipped,
    /// The action is a manual step that nobody has acknowledged yet.
    Waiting,
    /// In a dry run or drift check: the result depends on a step that was not run.
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
        "description": "Facts of the node as of the last run of settings, by name, such as `os.family`.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
