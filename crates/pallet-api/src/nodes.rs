//! What a node of a group is: a pod, a virtual machine, or a host that exists.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    actions::{KEY, KeyFields, NAME},
    converge::duration_up_to,
    lift::label_selector_schema,
};

/// What a node is: exactly one kind.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.pod), has(self.virtualMachine), has(self.hosts)].filter(there, there).size() == 1")
    .message("names no kind of node, or more than one; set exactly one of pod, virtualMachine and hosts"))]
#[x_kube(validation = Rule::new("has(self.pod) == has(oldSelf.pod) && has(self.virtualMachine) == has(oldSelf.virtualMachine)")
    .message("the kind of node cannot be changed: the nodes that are there are of the other; make another GroupSpec"))]
pub struct NodeFields {
    /// The nodes are pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFields>,
    /// The nodes are virtual machines of KubeVirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<VirtualMachineFields>,
    /// The nodes are machines that exist and are reached by SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<HostsFields>,
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
    /// The name of a headless Service that you make, as with a StatefulSet: each node then has a DNS name of its own,
    /// NODE.SERVICE.NAMESPACE.svc. Its selector is `pallet.dev/group: NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub service_name: Option<String>,
    /// The pod's labels, annotations and spec, as in a Deployment. It is checked by the API server before it is used.
    #[schemars(schema_with = "template_schema")]
    pub template: Value,
    /// One claim for each node and entry, mounted by the entry's name, as with a StatefulSet. Nodes are replaced, as for
    /// another template, when an entry is added. A larger storage request expands the claims that exist; every other change
    /// is for new claims, and the condition ClaimsDiffer reports claims that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub volume_claim_templates: Vec<ClaimFields>,
    /// What becomes of the claims of nodes that are removed.
    #[serde(default)]
    pub persistent_volume_claim_retention_policy: RetentionFields,
}

/// A claim that every node gets one of.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFields {
    /// The name of the volume; labels and annotations of the claims.
    pub metadata: ClaimMetadata,
    /// What to do where a PersistentVolumeClaim of a node's name, NAME-NODE, exists that was not created for this group:
    /// Create, the default, does not touch it, and the node gets no pod and reports NameConflict. UseExisting mounts it; the
    /// operator marks it with the labels pallet.dev/group and pallet.dev/node, and never expands or deletes it. A claim of
    /// another group is never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_policy: Option<ClaimPolicy>,
    /// The spec of the claims, as in a PersistentVolumeClaim. It is checked by the API server before it is used.
    #[schemars(schema_with = "claim_schema")]
    pub spec: Value,
}

/// Whether nodes may use claims that were not created for their group.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ClaimPolicy {
    /// No: a claim that exists is a conflict.
    #[default]
    Create,
    /// Yes, unless it belongs to another group.
    UseExisting,
}

/// What a claim is called and marked with.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct ClaimMetadata {
    /// The name of the volume in the pod. The claim is called NAME-NODE.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be a DNS label of lower case letters, digits and '-', such as data"))]
    pub name: String,
    /// Labels of the claims.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claims.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: BTreeMap<String, String>,
}

/// What becomes of claims.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionFields {
    /// When the group is deleted.
    #[serde(default)]
    pub when_deleted: Retention,
    /// When the group has shrunk, and no node has the ordinal of the claim any more.
    #[serde(default)]
    pub when_scaled: Retention,
}

/// Whether a claim stays.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Retention {
    /// It stays, and a node of its ordinal finds it again.
    #[default]
    Retain,
    /// It is deleted.
    Delete,
}

fn yes() -> bool {
    true
}

/// Nodes that are virtual machines of KubeVirt.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineFields {
    /// The VirtualMachine's labels, annotations and spec, as in a VirtualMachinePool. `dataVolumeTemplates` are made once for
    /// each node. It is checked by the API server before it is used. User data for cloud-init in it is merged with what the
    /// operator adds: a host key, and a user with a key of the group.
    #[schemars(schema_with = "virtual_machine_schema")]
    pub template: Value,
    /// The user that the operator makes in the guest and logs in as. Unless it is `root` it needs `sudo` in the image, and
    /// becomes root by it.
    #[serde(default = "guest_user")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][-a-z0-9_]*$')")
        .message("must be the name of a user: lower case letters, digits, '-' and '_', such as pallet"))]
    pub user: String,
    /// The network of the template whose address the operator connects to; the first that has one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub network: Option<String>,
}

/// Nodes that are machines that exist. Each belongs to one GroupSpec of the namespace at a time.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.inventory) != has(self.inventoryFrom)")
    .message("names no hosts, or two lists of them; set either inventory or inventoryFrom"))]
pub struct HostsFields {
    /// The hosts. The first `count` that are free become nodes, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub inventory: Option<Vec<HostFields>>,
    /// Where a list of hosts stands, as YAML, in the same form as in `inventory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_from: Option<InventoryFromFields>,
    /// Selects hosts of the inventory by their labels, as in a Deployment's selector. Without it all hosts may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "host_selector_schema")]
    pub selector: Option<LabelSelector>,
    /// As whom to log in, where a host names no other.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 64))]
    pub user: String,
    /// The private key to log in with: a key of a Secret of the namespace. A certificate for it stands beside it, under the
    /// same name with `-cert.pub` behind it.
    pub key: SshKeyFields,
    /// Known hosts, as in OpenSSH's `known_hosts`, for hosts that name no key of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<KnownHostsFields>,
    /// How to become another user after the login: everything on the host is done as that user. Without it, as the one who
    /// logged in.
    #[serde(default, rename = "become", skip_serializing_if = "Option::is_none")]
    pub elevation: Option<ElevationFields>,
    /// A host that connections go through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<JumpFields>,
    /// How long it may take to connect and log in, 1 minute at most.
    #[serde(default = "connect_timeout")]
    #[schemars(schema_with = "connect_timeout_schema")]
    pub connect_timeout: String,
}

/// Where a list of hosts stands.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryFromFields {
    /// A key of a ConfigMap. A change of it is noticed within a minute or two.
    pub config_map_key_ref: KeyFields,
}

/// A host.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFields {
    /// What it is called in this list, and in templates as `node.host`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its address: an IP address or a DNS name; its name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub address: Option<String>,
    /// The port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Its public host keys, each as in `/etc/ssh/ssh_host_ed25519_key.pub`; or, behind `@cert-authority`, the key that signs
    /// host certificates. Where it names any, the known hosts do not count for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 2048)))]
    pub host_keys: Vec<String>,
    /// Labels, for `selector` and for templates as `node.labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "host_labels_schema")]
    pub labels: BTreeMap<String, String>,
    /// As whom to log in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// Its own parameters, for templates as `node.params`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "host_parameters_schema")]
    pub parameters: BTreeMap<String, Value>,
}

/// A private key in a Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SshKeyFields {
    /// A key of a Secret, as of type `kubernetes.io/ssh-auth`.
    pub secret_key_ref: SecretKeyFields,
}

/// A key of a Secret, `ssh-privatekey` by default.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SecretKeyFields {
    /// The name of the Secret in the namespace of the group.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// The key of the Secret whose value is used.
    #[serde(default = "private_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
}

/// Known hosts: exactly one place.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
    .message("names no place, or two; set either configMapKeyRef or secretKeyRef"))]
pub struct KnownHostsFields {
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyFields>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyFields>,
}

/// How to become another user, by sudo.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ElevationFields {
    /// The user that commands run as on the node, by su or sudo.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 64))]
    pub user: String,
    /// The password that sudo asks for, where it asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordFields>,
}

/// A password in a Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordFields {
    /// A key of a Secret.
    pub secret_key_ref: KeyFields,
}

/// A host that connections go through.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JumpFields {
    /// Its address: an IP address or a DNS name.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// The port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// As whom to log in there; as on the hosts by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// The private key to log in there with; that of the hosts by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SshKeyFields>,
    /// Its public host keys, as those of a host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 2048)))]
    pub host_keys: Vec<String>,
}

fn root() -> String {
    "root".into()
}

fn guest_user() -> String {
    "pallet".into()
}

fn connect_timeout() -> String {
    "15s".into()
}

fn ssh_port() -> u16 {
    22
}

fn private_key() -> String {
    "ssh-privatekey".into()
}

fn virtual_machine_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The VirtualMachine's labels, annotations and spec, as in a VirtualMachinePool. `dataVolumeTemplates` are made once for each node. It is checked by the API server before it is used. User data for cloud-init in it is merged with what the operator adds: a host key, and a user with a key of the group.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn connect_timeout_schema(_: &mut SchemaGenerator) -> Schema {
    duration_up_to("1m", "15s or 1m")
}

fn host_selector_schema(_: &mut SchemaGenerator) -> Schema {
    label_selector_schema(
        "Selects hosts of the inventory by their labels, as in a Deployment's selector. Without it all hosts may be used.",
    )
}

fn host_labels_schema(_: &mut SchemaGenerator) -> Schema {
    texts_schema("Labels.", 253)
}

fn host_parameters_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Its own parameters, for templates as `node.params`.",
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}
    })
}

fn template_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The pod's labels, annotations and spec, as in a Deployment. It is checked by the API server before it is used.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    texts_schema("Labels of the claims.", 63)
}

fn annotations_schema(_: &mut SchemaGenerator) -> Schema {
    texts_schema("Annotations of the claims.", 4096)
}

fn texts_schema(description: &str, longest: u32) -> Schema {
    json_schema!({
        "description": description,
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": longest}
    })
}

fn claim_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The spec of the claims, as in a PersistentVolumeClaim. It is checked by the API server before it is used.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
