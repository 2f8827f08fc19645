//! What a node of a group is: a pod, a virtual machine, or an existing host.

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
    .message("set exactly one of pod, virtualMachine and hosts"))]
#[x_kube(validation = Rule::new("has(self.pod) == has(oldSelf.pod) && has(self.virtualMachine) == has(oldSelf.virtualMachine)")
    .message("the kind of node cannot be changed; restore it, or create another GroupSpec for the new kind"))]
pub struct NodeFields {
    /// Nodes are pods, which the operator creates from a template and reaches by exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFields>,
    /// Nodes are KubeVirt virtual machines, which the operator creates from a template and reaches by SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_machine: Option<VirtualMachineFields>,
    /// Nodes are existing machines of an inventory, which the operator reaches by SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<HostsFields>,
}

/// Nodes that are pods.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFields {
    /// Container in which phases run. Default: the one in the template's annotation `kubectl.kubernetes.io/default-container`, else
    /// the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// If true, pods get the readiness gate `pallet.dev/converged`: a pod is not Ready before all phases have succeeded once.
    /// Default: true.
    #[serde(default = "yes")]
    pub readiness_gate: bool,
    /// Name of a headless Service, which you create with the selector `pallet.dev/group: GROUP`. Each node then has the DNS name
    /// NODE.SERVICE.NAMESPACE.svc, as with a StatefulSet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub service_name: Option<String>,
    /// Template of the pods: labels, annotations and spec, as in a Deployment. `restartPolicy` must be Always. The API server
    /// validates it by a dry run first.
    #[schemars(schema_with = "template_schema")]
    pub template: Value,
    /// Volume claims that every node gets, one per entry, mounted under the entry's name, as with a StatefulSet. The operator
    /// replaces nodes when an entry is added, and expands existing claims for a larger storage request. Other changes apply to new
    /// claims; the condition `ClaimsDiffer` reports claims that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub volume_claim_templates: Vec<ClaimFields>,
    /// Whether the operator deletes or keeps the claims of nodes that it removes. Default: it keeps them.
    #[serde(default)]
    pub persistent_volume_claim_retention_policy: RetentionFields,
}

/// A volume claim that every node gets.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFields {
    /// Name of the volume, and labels and annotations of the claims.
    pub metadata: ClaimMetadata,
    /// Whether nodes may use claims that the operator did not create for this group; see [`ClaimPolicy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_policy: Option<ClaimPolicy>,
    /// Spec of the claims, as in a PersistentVolumeClaim. The API server validates it by a dry run first.
    #[schemars(schema_with = "claim_schema")]
    pub spec: Value,
}

/// What the operator does if a claim NAME-NODE exists that it did not create for this group. `Create` (default): it leaves the
/// claim alone, and the node gets no pod (`NameConflict`). `UseExisting`: it labels and mounts the claim, but never expands or
/// deletes it. It never uses a claim of another group.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ClaimPolicy {
    /// No: an existing claim is a conflict.
    #[default]
    Create,
    /// Yes, unless the claim belongs to another group.
    UseExisting,
}

/// Name, labels and annotations of claims.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
pub struct ClaimMetadata {
    /// Name of the volume in the pod, such as `data`. The claim of a node is named NAME-NODE, such as `data-web-0`.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("must be a DNS label of lower-case letters, digits and '-', such as data"))]
    pub name: String,
    /// Labels that the operator sets on the claims.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,
    /// Annotations that the operator sets on the claims.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    pub annotations: BTreeMap<String, String>,
}

/// When the operator deletes claims.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionFields {
    /// When the group is deleted. `Retain`: the operator keeps the claims. `Delete`: it deletes them after the nodes. Default:
    /// Retain.
    #[serde(default)]
    pub when_deleted: Retention,
    /// When the count is lowered. `Retain`: the operator keeps the claims of removed nodes, and a new node of the ordinal uses them
    /// again. `Delete`: it deletes them. Default: Retain.
    #[serde(default)]
    pub when_scaled: Retention,
}

/// Whether the operator keeps a claim.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Retention {
    /// The operator keeps the claim, and a new node of its ordinal uses it again.
    #[default]
    Retain,
    /// The operator deletes the claim.
    Delete,
}

fn yes() -> bool {
    true
}

/// Nodes that are virtual machines of KubeVirt.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineFields {
    /// Template of the VirtualMachines: labels, annotations and spec, as in a VirtualMachinePool. The operator creates
    /// `dataVolumeTemplates` per node, and adds cloud-init user data: a host key, and a user with a key of the group. The API
    /// server validates it by a dry run first.
    #[schemars(schema_with = "virtual_machine_schema")]
    pub template: Value,
    /// User that the operator creates in the guest and logs in as. Unless it is `root`, the image needs `sudo`, by which the user
    /// becomes root. Default: pallet.
    #[serde(default = "guest_user")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z_][-a-z0-9_]*$')")
        .message("must be the name of a user: lower-case letters, digits, '-' and '_', beginning with a letter or '_', such as pallet"))]
    pub user: String,
    /// Network of the template whose address the operator connects to. Default: the first that has an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub network: Option<String>,
}

/// Nodes that are existing machines. A host belongs to one GroupSpec at a time.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.inventory) != has(self.inventoryFrom)")
    .message("set exactly one of inventory and inventoryFrom"))]
pub struct HostsFields {
    /// Hosts, 512 at most. The first `count` free ones become nodes, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub inventory: Option<Vec<HostFields>>,
    /// Where the operator reads the list of hosts from, instead of `inventory`. The content is YAML in the form of `inventory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_from: Option<InventoryFromFields>,
    /// Selects hosts of the inventory by their labels, as the selector of a Deployment does. Default: all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "host_selector_schema")]
    pub selector: Option<LabelSelector>,
    /// User to log in as, unless a host sets its own. Default: root.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 64))]
    pub user: String,
    /// Private key to log in with, from a Secret of the namespace. If the Secret has a certificate for it under the same name plus
    /// `-cert.pub`, the operator uses it too.
    pub key: SshKeyFields,
    /// Known hosts in the format of OpenSSH's `known_hosts`, for hosts that have no `hostKeys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<KnownHostsFields>,
    /// User that everything on the host runs as, by sudo after the login. Default: the login user.
    #[serde(default, rename = "become", skip_serializing_if = "Option::is_none")]
    pub elevation: Option<ElevationFields>,
    /// Jump host: the operator connects to all hosts of the group through it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump: Option<JumpFields>,
    /// Longest time to connect and log in, such as `15s`, from 1s to 1m. Default: 15s.
    #[serde(default = "connect_timeout")]
    #[schemars(schema_with = "connect_timeout_schema")]
    pub connect_timeout: String,
}

/// Where the operator reads the list of hosts from.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InventoryFromFields {
    /// ConfigMap key, 256 KiB at most; the operator reads it every minute by default.
    pub config_map_key_ref: KeyFields,
}

/// A host of an inventory.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFields {
    /// Name of the host, unique in the list. Templates read it as `node.host`. A node is bound to this name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// IP address or DNS name of the host, without a port. Default: the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub address: Option<String>,
    /// Port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Public host keys, each a line as in `/etc/ssh/ssh_host_ed25519_key.pub`, or `@cert-authority` and the key that signs host
    /// certificates. If a host has any, `knownHosts` does not apply to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 2048)))]
    pub host_keys: Vec<String>,
    /// Labels of the host, for `selector`. Templates read them as `node.labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "host_labels_schema")]
    pub labels: BTreeMap<String, String>,
    /// User to log in as on this host. Default: the `user` of `hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// Parameters of the host, by name, with values of any type. Templates read them as `node.params`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "host_parameters_schema")]
    pub parameters: BTreeMap<String, Value>,
}

/// A private key in a Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SshKeyFields {
    /// Key of a Secret of the namespace, such as one of type `kubernetes.io/ssh-auth`.
    pub secret_key_ref: SecretKeyFields,
}

/// A key of a Secret, `ssh-privatekey` by default.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SecretKeyFields {
    /// Name of a Secret in the namespace of the group.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// Key in the Secret whose value is the private key. Default: ssh-privatekey.
    #[serde(default = "private_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
}

/// Known hosts: set exactly one source.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
    .message("set exactly one of configMapKeyRef and secretKeyRef"))]
pub struct KnownHostsFields {
    /// Key of a ConfigMap of the namespace that has the known hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyFields>,
    /// Key of a Secret of the namespace that has the known hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyFields>,
}

/// The user to become, and the password for sudo.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ElevationFields {
    /// Name of the user to become, such as `postgres`.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 64))]
    pub user: String,
    /// Password for sudo, if sudo asks for one. Default: none, and sudo must not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordFields>,
}

/// A password in a Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PasswordFields {
    /// Key of a Secret with the password. It is not a template, even in a ServerSpec.
    pub secret_key_ref: KeyFields,
}

/// A host through which the operator connects to the hosts of a group.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JumpFields {
    /// IP address or DNS name of the jump host.
    #[schemars(length(min = 1, max = 253))]
    pub address: String,
    /// Port of the SSH server. Default: 22.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// User to log in as on the jump host. Default: the `user` of `hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// Private key to log in with on the jump host. Default: the `key` of `hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<SshKeyFields>,
    /// Public host keys of the jump host, in the form of a host's `hostKeys`. If it has none, `knownHosts` applies.
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
        "description": "Template of the VirtualMachines: labels, annotations and spec, as in a VirtualMachinePool. The operator creates `dataVolumeTemplates` per node, and adds cloud-init user data: a host key, and a user with a key of the group. The API server validates it by a dry run first.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn connect_timeout_schema(_: &mut SchemaGenerator) -> Schema {
    duration_up_to("1m", "15s or 1m")
}

fn host_selector_schema(_: &mut SchemaGenerator) -> Schema {
    label_selector_schema(
        "Selects hosts of the inventory by their labels, as the selector of a Deployment does. Default: all hosts.",
    )
}

fn host_labels_schema(_: &mut SchemaGenerator) -> Schema {
    texts_schema("Labels of the host, for `selector`. Templates read them as `node.labels`.", 253)
}

fn host_parameters_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Parameters of the host, by name, with values of any type. Templates read them as `node.params`.",
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}
    })
}

fn template_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Template of the pods: labels, annotations and spec, as in a Deployment. `restartPolicy` must be Always. The API server validates it by a dry run first.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    texts_schema("Labels that the operator sets on the claims.", 63)
}

fn annotations_schema(_: &mut SchemaGenerator) -> Schema {
    texts_schema("Annotations that the operator sets on the claims.", 4096)
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
        "description": "Spec of the claims, as in a PersistentVolumeClaim. The API server validates it by a dry run first.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
