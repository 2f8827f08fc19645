//! `GroupSpec`: how many nodes there are, what a node is, and the phases that configure them.
//!
//! The API server refuses what a schema or a CEL rule can refuse; [`pallet_core::group::resolve`] refuses the rest.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{
    converge::ConvergeFields,
    nodes::NodeFields,
    phases::{PhaseFields, phases_schema},
    server_spec::{ExtendFields, roles_schema},
};

/// Desired state of the group: how many nodes it has, what a node is, and the phases that configure the nodes.
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
    doc = "A GroupSpec declares a group of nodes: how many there are, what a node is, and the phases that configure them.",
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
    validation = Rule::new("!has(self.spec.converge) || !has(self.spec.converge.process) || self.spec.converge.process in ['apply-install', 'apply-config', 'server-test'] || (has(self.spec.processes) && self.spec.converge.process in self.spec.processes)")
        .message("spec.converge.process: no process has this name; use apply-install, apply-config, server-test or a process that spec.processes declares"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52")
        .message("metadata.name: must be a DNS label of at most 52 characters (lower-case letters, digits, '-'), because nodes are named after it; choose another name")
)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpecFields {
    /// Number of nodes, also set by `kubectl scale` and autoscalers. If it is absent, the operator sets it: to 1 for a new group,
    /// else to its last value, so that a manifest without it does not undo an autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub count: Option<u32>,
    /// ServerSpecs of the same namespace that the group extends. Their phases run before the group's own, in this order; each runs
    /// once, after the ServerSpecs that it extends itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub extends: Vec<ExtendFields>,
    /// Roles of the nodes, in addition to those of the ServerSpecs, such as `db_primary`. Templates of other groups list these
    /// nodes as `nodes.ROLE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "roles_schema")]
    pub roles: Vec<String>,
    /// What a node is: set exactly one of `pod`, `virtualMachine` and `hosts`. The kind is immutable.
    pub node: NodeFields,
    /// Phases by name: bootstrap (once on every new node), settings (facts and values; changes nothing), init, install (once per
    /// incarnation), configure (again when its content changes), test (expectations over facts), destroy-server (before the
    /// operator removes a node), app-rollout (on demand, by a Lift). Any other name runs if `converge.phases` lists it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "phases_schema")]
    pub phases: BTreeMap<String, PhaseFields>,
    /// Processes that the group declares: lists of phase names by process name, such as `nightly: [settings, backup]`.
    /// `converge.process` and Lifts refer to them by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "processes_schema")]
    pub processes: BTreeMap<String, Vec<String>>,
    /// How the operator brings the nodes to the declared state: which phases run, the rollout, timeouts, retries and drift checks.
    #[serde(default)]
    pub converge: ConvergeFields,
    /// If true, the operator creates, removes and replaces no node and starts no phase. Deletions continue, and a running phase
    /// runs to its end. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// `Automatic`: the operator applies changes by itself. `Manual`: it waits until a person sets the annotation
    /// `pallet.dev/approve` to `status.plan.digest`; deletions do not wait. Default: Automatic.
    #[serde(default)]
    pub approval: Approval,
}

impl GroupSpec {
    /// The number of nodes that the group asks for. If the spec has none, it is the last count that the operator has seen, or 1 if
    /// there is none.
    pub fn count(&self) -> u32 {
        self.spec.count.or(self.status.as_ref().and_then(|status| status.count)).unwrap_or(1)
    }
}

/// Whether changes to the group need the approval of a person.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Approval {
    /// Changes need no approval.
    #[default]
    Automatic,
    /// A person approves changes by the annotation `pallet.dev/approve`, set to the digest of `status.plan`. The operator creates,
    /// removes and replaces nodes, and runs changed phases, only as that plan lists. Restoring an approved state needs no further
    /// approval.
    Manual,
}

/// Observed state of the group, written by the operator. Its size does not grow with the count.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpecStatus {
    /// Generation of the spec that this status describes; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Last value of `spec.count` that the operator has seen. It applies while `spec.count` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Number of nodes, without those that the operator is removing.
    #[serde(default)]
    pub replicas: u32,
    /// Number of converged nodes whose pod or virtual machine is Ready. A converged host counts as ready.
    #[serde(default)]
    pub ready_replicas: u32,
    /// Number of nodes on which every phase has succeeded as it is declared now.
    #[serde(default)]
    pub converged_replicas: u32,
    /// Number of nodes that were created from the current template.
    #[serde(default)]
    pub updated_replicas: u32,
    /// Label selector of the group's pods, such as `pallet.dev/group=web`, for the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Ordinals of the nodes that are not converged, such as `0-2,5`; beyond 256 intervals the nearest are joined. The operator
    /// lists a node here before a session may change it, until the GroupNode has the result, so that a restarted operator knows
    /// which journals to read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub unconverged: String,
    /// Number of nodes in each state, by phase, in the order in which phases run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["phase"]))]
    pub phases: Vec<PhaseCounts>,
    /// Up to five failed phases, those with the most attempts first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub phase_errors: Vec<PhaseError>,
    /// Number of failed phases that `phaseErrors` does not list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub phase_errors_omitted: u32,
    /// With `approval: Manual`, the changes that wait for approval. Absent if none wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// With `approval: Manual`, what was approved last. The operator restores this state without asking again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// Conditions: `Ready` always; `Reconciling` or `Stalled` while True (kstatus); `Drifted` if there are drift checks;
    /// `ClaimsDiffer` and `NodesTakenOver` while True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The changes that wait for approval. Nodes are given by their ordinals, as in `0-2,5`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PlanStatus {
    /// Digest of the whole plan. To approve the plan, set the annotation `pallet.dev/approve` to this value.
    pub digest: String,
    /// Generation of the spec that the plan was made for.
    pub generation: i64,
    /// Ordinals of the nodes to create, such as `0-2,5`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub creates: String,
    /// Nodes to remove, grouped by reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub removals: Vec<PlannedRemoval>,
    /// Ordinals of the nodes to replace because the template has changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replaces: String,
    /// Phases to run, in order, as far as the stored facts show. A session reads the facts again and may find more or fewer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub phases: Vec<PlannedPhase>,
}

/// Nodes that the operator would remove.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PlannedRemoval {
    /// Ordinals of the nodes, as intervals such as `0-2,5`.
    pub nodes: String,
    /// Why the plan removes these nodes.
    pub reason: String,
}

/// A phase that the operator would run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PlannedPhase {
    /// Name of the phase, such as `configure`.
    pub phase: String,
    /// Ordinals of the nodes, as intervals such as `0-2,5`.
    pub nodes: String,
    /// Why the phase runs on these nodes, such as `changed`.
    pub reason: String,
}

/// The approved state. The operator restores it without further approval.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Approved {
    /// Digest of the plan that was approved.
    pub digest: String,
    /// Number of nodes that was approved.
    pub count: u32,
    /// Hash of the template that was approved.
    pub template: String,
    /// Digests of the approved phases as declared, by phase name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub sources: BTreeMap<String, String>,
    /// Ordinals of the nodes whose removal was approved, such as `3-4`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 65536))]
    pub victims: String,
}

/// Number of nodes in each state of one phase.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PhaseCounts {
    /// Name of the phase, such as `configure`.
    pub phase: String,
    /// Number of nodes on which the phase has succeeded.
    pub succeeded: u32,
    /// Number of nodes on which the phase is running.
    pub running: u32,
    /// Number of nodes on which the last attempt failed.
    pub failed: u32,
    /// Number of nodes on which the phase has yet to run.
    pub pending: u32,
}

/// A phase that failed on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseError {
    /// Name of the GroupNode, such as `web-0`.
    pub node: String,
    /// Name of the phase, such as `configure`.
    pub phase: String,
    /// Name of the action that failed. Absent if none did, such as after a timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// How the attempt ended: `Failed`, `TimedOut` or `Unknown`.
    pub outcome: super::group_node::Outcome,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Exit code of the action that failed; 128 + n if signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Error in one line, with the last line of output.
    pub message: String,
}

fn processes_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Processes that the group declares: lists of phase names by process name, such as `nightly: [settings, backup]`. `converge.process` and Lifts refer to them by name.",
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "type": "array",
            "maxItems": 16,
            "items": {"type": "string", "minLength": 1, "maxLength": 40},
            "x-kubernetes-list-type": "set"
        },
        "x-kubernetes-validations": [
            {
                "rule": "self.all(name, name.size() <= 40 && name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$'))",
                "message": "a process name must have at most 40 lower-case letters, digits and '-', and begin with a letter, such as nightly; rename the process"
            },
            {
                "rule": "!self.exists(name, name in ['apply-install', 'apply-config', 'server-test'])",
                "message": "apply-install, apply-config and server-test are predefined; rename the process"
            },
            {
                "rule": "self.all(name, !self[name].exists(phase, phase in ['bootstrap', 'destroy-server', 'app-rollout']))",
                "message": "a process must not list bootstrap, destroy-server or app-rollout, which the operator runs on new nodes, before removal and on demand; remove them from the list"
            }
        ]
    })
}
