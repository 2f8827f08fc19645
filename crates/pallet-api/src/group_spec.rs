//! `GroupSpec`: how many nodes, what a node is, and the phases that configure it.
//!
//! What a schema or a CEL rule can refuse, the API server refuses here; [`pallet_core::group::resolve`] sees to the rest.

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
    validation = Rule::new("!has(self.spec.converge) || !has(self.spec.converge.process) || self.spec.converge.process in ['apply-install', 'apply-config', 'server-test'] || (has(self.spec.processes) && self.spec.converge.process in self.spec.processes)")
        .message("spec.converge.process: there is no process of this name; use apply-install, apply-config, server-test or one that spec.processes declares"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && self.metadata.name.size() <= 52")
        .message("metadata.name: must be a DNS label of at most 52 characters (lower case letters, digits, '-'), since nodes are named after it; choose another name")
)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpecFields {
    /// How many nodes there should be. The scale subresource changes it (`kubectl scale`, HorizontalPodAutoscaler). Where it is
    /// absent, the operator sets it: to 1 for a new group, and otherwise to the last value, so that a manifest without it
    /// leaves to an autoscaler what the autoscaler has set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10000))]
    pub count: Option<u32>,
    /// ServerSpecs of the same namespace, whose phases run before the group's own, in this order, each once, and what they
    /// extend before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub extends: Vec<ExtendFields>,
    /// The roles of the nodes, beside those of the ServerSpecs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "roles_schema")]
    pub roles: Vec<String>,
    /// What a node is.
    pub node: NodeFields,
    /// The phases, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "phases_schema")]
    pub phases: BTreeMap<String, PhaseFields>,
    /// The group's own processes: lists of phases by name, for `converge.process`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "processes_schema")]
    pub processes: BTreeMap<String, Vec<String>>,
    /// How the group is brought to what is declared.
    #[serde(default)]
    pub converge: ConvergeFields,
    /// Stops all effects but deletion: no node is created or removed, no phase starts. A run in flight ends by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Whether what is declared is done by itself, or waits until somebody approves `status.plan`. Deletion never waits.
    #[serde(default)]
    pub approval: Approval,
}

impl GroupSpec {
    /// How many nodes it asks for: where it does not say, as many as it asked for when the operator saw it last, and 1 where
    /// the operator has not seen it.
    pub fn count(&self) -> u32 {
        self.spec.count.or(self.status.as_ref().and_then(|status| status.count)).unwrap_or(1)
    }
}

/// Who says that what is declared may be done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Approval {
    /// Nobody has to.
    #[default]
    Automatic,
    /// A person, who sets the annotation `pallet.dev/approve` to the digest of `status.plan`. Nodes are created, removed and
    /// replaced, and changed phases run, only as that plan says; what restores an approved state needs no further approval.
    Manual,
}

/// What is known of a group. Its size does not grow with the count.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupSpecStatus {
    /// The generation that this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The value of `spec.count` that the operator has seen last. It holds while `spec.count` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
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
    /// The ordinals of the nodes that are not converged, such as `0-2,5`. Of more than 256 intervals the nearest are joined, with
    /// the converged nodes between them. The operator lists a converged node here before it opens a session that may change it,
    /// and until the result is stored in the GroupNode. After a restart the operator reads the journals of the listed nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub unconverged: String,
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
    /// Under `approval: Manual`: what waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
    /// Under `approval: Manual`: what was approved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Approved>,
    /// `Ready`, and `Reconciling` or `Stalled` while they hold (kstatus); `Drifted`, where nodes are looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What would be done. Nodes are given by their ordinals, as in `0-2,5`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PlanStatus {
    /// Over the whole plan: the value of the annotation `pallet.dev/approve` that lets it be carried out.
    pub digest: String,
    /// The generation of the spec that it is made for.
    pub generation: i64,
    /// The nodes to create.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub creates: String,
    /// The nodes to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub removals: Vec<PlannedRemoval>,
    /// The nodes to replace, since the pod template has changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub replaces: String,
    /// The phases to run, in their order, as far as can be told before the facts are read again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub phases: Vec<PlannedPhase>,
}

/// Nodes that would be removed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PlannedRemoval {
    /// The ordinals of the nodes, as intervals such as `0-2,5`.
    pub nodes: String,
    /// Why the plan removes these nodes.
    pub reason: String,
}

/// A phase that would run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PlannedPhase {
    /// The name of the phase, such as `configure`.
    pub phase: String,
    /// The ordinals of the nodes.
    pub nodes: String,
    /// Why the phase runs on these nodes.
    pub reason: String,
}

/// What was approved: whatever brings the group there needs no further approval.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct Approved {
    /// The digest of the plan.
    pub digest: String,
    /// The number of nodes that was approved.
    pub count: u32,
    /// A hash over the pod template.
    pub template: String,
    /// Digests over the phases as they are declared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub sources: BTreeMap<String, String>,
    /// The ordinals of the nodes that may be removed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 65536))]
    pub victims: String,
}

/// Where the nodes stand with one phase.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
pub struct PhaseCounts {
    /// The name of the phase, such as `configure`.
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
    /// The name of the GroupNode.
    pub node: String,
    /// The name of the phase, such as `configure`.
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

fn processes_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The group's own processes: lists of phases by name, for converge.process.",
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
                "message": "the name of a process consists of at most 40 lower case letters, digits and '-', and begins with a letter, such as nightly; rename it"
            },
            {
                "rule": "!self.exists(name, name in ['apply-install', 'apply-config', 'server-test'])",
                "message": "apply-install, apply-config and server-test are predefined; choose another name"
            },
            {
                "rule": "self.all(name, !self[name].exists(phase, phase in ['bootstrap', 'destroy-server', 'app-rollout']))",
                "message": "bootstrap runs on every new node and destroy-server before a node is removed, by themselves, and app-rollout only on demand; take them out of the list"
            }
        ]
    })
}
