//! The parts of KubeVirt's API that the operator reads (`kubevirt.io/v1`). There is no crate for it that is kept.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{NamespaceResourceScope, Resource, TypeMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The API group.
pub const GROUP: &str = "kubevirt.io";
/// Its version.
pub const VERSION: &str = "v1";

/// A virtual machine: what is declared, and what KubeVirt's controller says of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachine {
    /// Which kind it is, and of what version.
    #[serde(flatten)]
    pub types: Option<TypeMeta>,
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is declared, as far as it is read.
    #[serde(default)]
    pub spec: Declared,
    /// What is known.
    #[serde(default, skip_serializing)]
    pub status: VirtualMachineStatus,
}

/// What is declared of a virtual machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    /// Whether and when it is started: `Always`, `Halted`, `Manual`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_strategy: Option<String>,
    /// The same in an older form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
    /// All else, which goes to the API server as it was written.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What is known of a virtual machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineStatus {
    /// Where it stands, in a word: `Running`, `Stopped`, `Provisioning`, `ErrorUnschedulable`, ...
    #[serde(default)]
    pub printable_status: String,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<StatusCondition>,
}

/// One run of a virtual machine, from a start to a stop. It outlives migrations.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstance {
    /// Which kind it is, and of what version.
    #[serde(flatten)]
    pub types: Option<TypeMeta>,
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is known.
    #[serde(default)]
    pub status: InstanceStatus,
}

/// What is known of an instance.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// `Pending`, `Scheduling`, `Scheduled`, `Running`, `Succeeded` or `Failed`.
    #[serde(default)]
    pub phase: String,
    /// Its interfaces, as they are seen in the guest.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Conditions.
    #[serde(default)]
    pub conditions: Vec<StatusCondition>,
}

/// An interface of an instance.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// The network of the template.
    #[serde(default)]
    pub name: String,
    /// Its first address.
    #[serde(default, rename = "ipAddress")]
    pub ip_address: String,
    /// All of them.
    #[serde(default, rename = "ipAddresses")]
    pub ip_addresses: Vec<String>,
}

/// A condition, as far as it is read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct StatusCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// One word.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

macro_rules! resource {
    ($kind:ident, $plural:literal) => {
        impl Resource for $kind {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;
            fn kind((): &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }
            fn group((): &()) -> Cow<'_, str> {
                GROUP.into()
            }
            fn version((): &()) -> Cow<'_, str> {
                VERSION.into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(VirtualMachine, "virtualmachines");
resource!(VirtualMachineInstance, "virtualmachineinstances");
