//! Pure: what a node of a group is, as it was declared.

use pallet_api::reason::Reason;
use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{HostsShape, RetentionFields};
use pallet_api::nodes::ClaimPolicy;

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeShape {
    /// A pod.
    Pod(PodShape),
    /// A virtual machine of KubeVirt.
    VirtualMachine(VirtualMachineShape),
    /// A machine that exists.
    Hosts(Box<HostsShape>),
}

impl NodeShape {
    /// A hash over what a node is made from; empty where nodes are not made.
    pub fn hash(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.hash,
            Self::VirtualMachine(machine) => &machine.hash,
            Self::Hosts(_) => "",
        }
    }

    /// Whether something whose recorded hash is this was made from a template of the same meaning.
    pub fn is_made_as(&self, recorded: &str) -> bool {
        match self {
            Self::Pod(pod) => recorded == pod.hash || recorded == pod.hash_as_written,
            Self::VirtualMachine(machine) => recorded == machine.hash || recorded == machine.hash_as_written,
            Self::Hosts(_) => recorded.is_empty(),
        }
    }

    /// A hash over all that the API server is asked about before anything is made.
    pub fn checked_as(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.checked_as,
            Self::VirtualMachine(machine) => &machine.hash_as_written,
            Self::Hosts(_) => "",
        }
    }

    /// Whether others know the nodes by their names: the names are in DNS.
    pub fn is_named(&self) -> bool {
        self.pod().is_some_and(|pod| pod.service_name.is_some())
    }

    /// What every node gets a claim of.
    pub fn claims(&self) -> &[ClaimShape] {
        match self {
            Self::Pod(pod) => &pod.claims,
            Self::VirtualMachine(_) | Self::Hosts(_) => &[],
        }
    }

    /// What becomes of the claims of nodes that are removed.
    pub fn retention(&self) -> RetentionFields {
        match self {
            Self::Pod(pod) => pod.retention,
            Self::VirtualMachine(_) | Self::Hosts(_) => RetentionFields::default(),
        }
    }

    /// The pod, where nodes are such.
    pub fn pod(&self) -> Option<&PodShape> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::VirtualMachine(_) | Self::Hosts(_) => None,
        }
    }

    /// The hosts, where nodes are such.
    pub fn hosts(&self) -> Option<&HostsShape> {
        match self {
            Self::Hosts(hosts) => Some(hosts.as_ref()),
            Self::Pod(_) | Self::VirtualMachine(_) => None,
        }
    }

    /// What backs a node.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::VirtualMachine(_) => Kind::VirtualMachine,
            Self::Hosts(_) => Kind::Host,
        }
    }
}

/// What backs a node.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// A pod.
    #[default]
    Pod,
    /// A virtual machine of KubeVirt.
    VirtualMachine,
    /// A machine that exists.
    Host,
}

impl Kind {
    /// As an API calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::VirtualMachine => "VirtualMachine",
            Self::Host => "Host",
        }
    }

    /// As people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::VirtualMachine => "virtual machine",
            Self::Host => "host",
        }
    }

    /// Why a node waits whose machine does not exist.
    pub fn missing(self) -> Reason {
        match self {
            Self::Pod => Reason::PodMissing,
            Self::VirtualMachine => Reason::VirtualMachineMissing,
            Self::Host => Reason::HostMissing,
        }
    }

    /// Why a Lift waits for a node without a running machine.
    pub fn absent(self) -> Reason {
        match self {
            Self::Pod => Reason::NoPod,
            Self::VirtualMachine => Reason::NoVirtualMachine,
            Self::Host => Reason::NoHost,
        }
    }

    /// Why a node waits whose machine is being deleted. Hosts are not.
    pub fn terminating(self) -> Reason {
        match self {
            Self::Pod | Self::Host => Reason::PodTerminating,
            Self::VirtualMachine => Reason::VirtualMachineTerminating,
        }
    }

    /// Why a group waits whose phases have succeeded. Hosts have no readiness of their own.
    pub fn not_ready(self) -> Reason {
        match self {
            Self::Pod => Reason::PodsNotReady,
            Self::VirtualMachine => Reason::VirtualMachinesNotReady,
            Self::Host => Reason::Converging,
        }
    }

    /// The field that says what a node is made from.
    pub fn path(self) -> &'static str {
        match self {
            Self::Pod => "spec.node.pod.template",
            Self::VirtualMachine => "spec.node.virtualMachine.template",
            Self::Host => "spec.node.hosts",
        }
    }
}

/// The template of a virtual machine that was parsed: an object with a spec that has a template.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualMachineShape {
    /// The template as it was written.
    pub template: Arc<Value>,
    /// A hash over the meaning of the template, and the user: what the operator adds besides does not count.
    pub hash: String,
    /// The same over the words of the template: earlier versions of the operator recorded it.
    pub hash_as_written: String,
    /// The user that the operator logs in as.
    pub user: String,
    /// The network whose address the operator connects to; the first that has one, without it.
    pub network: Option<String>,
}

/// A pod template that was parsed: an object with a spec that has containers.
#[derive(Clone, Debug, PartialEq)]
pub struct PodShape {
    /// The template as it was written.
    pub template: Arc<Value>,
    /// A hash over the meaning of the template, and the container: what the operator injects does not count.
    pub hash: String,
    /// The same over the words of the template: earlier versions of the operator recorded it.
    pub hash_as_written: String,
    /// A hash over all that the API server is asked about: the template, the container and the claims.
    pub checked_as: String,
    /// The container in which phases run.
    pub container: String,
    /// Whether pods get the readiness gate.
    pub readiness_gate: bool,
    /// The headless Service that gives nodes their DNS names.
    pub service_name: Option<String>,
    /// What every node gets a claim of.
    pub claims: Vec<ClaimShape>,
    /// What becomes of the claims of nodes that are removed.
    pub retention: RetentionFields,
}

/// A claim that every node gets one of.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimShape {
    /// The name of the volume in the pod.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether a claim may be used that was not created for the group.
    pub policy: ClaimPolicy,
    /// The claim's spec, as it was written.
    pub spec: Arc<Value>,
}

impl ClaimShape {
    /// The name of a node's claim, as a StatefulSet would call it.
    pub fn claim_name(&self, node: &str) -> String {
        format!("{}-{node}", self.name)
    }
}
