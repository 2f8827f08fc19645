//! Pure: nodes that are virtual machines of KubeVirt: how one is read, and how one is made from the group's template.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    adopt, cloud_init,
    kubevirt::{GROUP, StatusCondition, VERSION, VirtualMachine, VirtualMachineInstance},
    object,
};
use crate::{
    api,
    group::{Group, GroupKey, Kind, VirtualMachineShape},
    phase::action::KeyRef,
    plan::{Machine, MachineState},
    transport::target::{Elevation, Endpoint, Source, Target, Trust},
};

/// Annotation on virtual machines: the user that the operator logs in as, as it was when the machine was made.
const USER_ANNOTATION: &str = "pallet.dev/ssh-user";
/// Annotation on virtual machines: the network whose address it connects to, where the group names one.
const NETWORK_ANNOTATION: &str = "pallet.dev/network";
/// The key in a machine's Secret of the private key that the operator logs in with.
pub const LOGIN_KEY: &str = "ssh-privatekey";
/// The key in a machine's Secret of its host key, as a line of `known_hosts`.
pub const KNOWN_HOSTS_KEY: &str = "known_hosts";
/// The port of a guest's sshd.
const PORT: u16 = 22;
/// How long it may take to connect and log in.
const CONNECT: Duration = Duration::from_secs(15);

/// A virtual machine as the index keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    machine: Machine,
    namespace: String,
    user: String,
    network: Option<String>,
    status: String,
    trouble: Option<(String, String)>,
}

/// An instance as the index keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    uid: String,
    deleting: bool,
    phase: String,
    ready: bool,
    paused: bool,
    /// Networks and their addresses.
    addresses: Vec<(String, String)>,
    trouble: Option<(String, String)>,
}

/// The name of the Secret with what a machine is told at its first start.
pub fn secret_name(node: &str) -> String {
    format!("{node}-cloud-init")
}

/// The name of the Secret with the key pair that the operator logs in with on the machines of a group.
pub fn group_secret_name(group: &str) -> String {
    format!("{group}-ssh")
}

/// What is needed of a virtual machine.
pub fn declared(machine: &VirtualMachine) -> Declared {
    let metadata = &machine.metadata;
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|a| a.get(name)).cloned();
    let owner = |found: &dyn Fn(&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference) -> bool| {
        metadata.owner_references.iter().flatten().find(|owner| found(owner)).map(|owner| owner.uid.clone())
    };
    let name = metadata.name.clone().unwrap_or_default();
    Declared {
        machine: Machine {
            uid: metadata.uid.clone().unwrap_or_default(),
            controller: owner(&|owner| owner.controller == Some(true)),
            node: owner(&|owner| owner.kind == "GroupNode"),
            deleting: metadata.deletion_timestamp.is_some(),
            marked: annotation(api::DELETE_NODE_ANNOTATION).is_some(),
            kind: Kind::VirtualMachine,
            target: None,
            attributes: Arc::default(),
            state: MachineState::Waiting { reason: String::new(), message: String::new() },
            address: None,
            ready: false,
            gate_open: false,
            gated: false,
            template_hash: annotation(api::TEMPLATE_HASH_ANNOTATION).unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            name,
        },
        namespace: metadata.namespace.clone().unwrap_or_default(),
        user: annotation(USER_ANNOTATION).unwrap_or_default(),
        network: annotation(NETWORK_ANNOTATION),
        status: machine.status.printable_status.clone(),
        trouble: trouble(&machine.status.conditions, &["Failure"]),
    }
}

/// What is needed of an instance.
pub fn instance(instance: &VirtualMachineInstance) -> Instance {
    let (metadata, status) = (&instance.metadata, &instance.status);
    let holds = |kind: &str| status.conditions.iter().any(|c| c.kind == kind && c.status == "True");
    let addresses = status.interfaces.iter().filter(|interface| !interface.ip_address.is_empty());
    Instance {
        uid: metadata.uid.clone().unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        phase: status.phase.clone(),
        ready: holds("Ready"),
        paused: holds("Paused"),
        addresses: addresses.map(|interface| (interface.name.clone(), interface.ip_address.clone())).collect(),
        trouble: trouble(&status.conditions, &["Failure", "Provisioning", "Synchronized", "PodScheduled"]),
    }
}

/// What a condition says that something is wrong.
fn trouble(conditions: &[StatusCondition], kinds: &[&str]) -> Option<(String, String)> {
    let wrong = |condition: &&StatusCondition| {
        // A failure that holds is one; of the others it is that they do not hold.
        let bad = if condition.kind == "Failure" { "True" } else { "False" };
        kinds.contains(&condition.kind.as_str()) && condition.status == bad && !condition.message.is_empty()
    };
    conditions.iter().find(wrong).map(|condition| (condition.reason.clone(), condition.message.clone()))
}

/// A machine with its instance, where it has one.
///
/// The instance tells one start from another; a migration keeps it. Whether a start came with another disk is seen by the
/// agent, from its witness.
pub fn observe(declared: &Declared, instance: Option<&Instance>) -> Machine {
    let address = instance.and_then(|instance| address(declared, instance));
    let state = state(declared, instance, address.is_some());
    let target = address.as_ref().map(|address| Target::Machine(Arc::new(endpoint(declared, address))));
    let ready = instance.is_some_and(|instance| instance.ready && !instance.deleting);
    Machine { state, target, address, ready, ..declared.machine.clone() }
}

fn address(declared: &Declared, instance: &Instance) -> Option<String> {
    let chosen = |(network, _): &&(String, String)| declared.network.as_ref().is_none_or(|wanted| wanted == network);
    instance.addresses.iter().find(chosen).map(|(_, address)| address.clone())
}

fn state(declared: &Declared, instance: Option<&Instance>, has_address: bool) -> MachineState {
    let waiting =
        |reason: &str, message: &str| MachineState::Waiting { reason: reason.into(), message: message.into() };
    let Some(instance) = instance else {
        return match (declared.status.as_str(), &declared.trouble) {
            (_, Some((reason, message))) => waiting(reason, message),
            ("" | "Starting" | "Provisioning" | "WaitingForVolumeBinding", None) => {
                waiting("Starting", "the virtual machine is being started")
            }
            ("Stopped", None) => waiting("Stopped", "the virtual machine is stopped; start it to have it go on"),
            (status, None) => waiting(status, "the virtual machine does not run"),
        };
    };
    match instance.phase.as_str() {
        _ if instance.deleting => waiting("Stopping", "the virtual machine is being stopped"),
        "Running" if instance.paused => waiting("Paused", "the virtual machine is paused; unpause it to have it go on"),
        "Running" if !has_address => match &declared.network {
            Some(network) => waiting("AddressMissing", &format!("it has no address on its network {network:?} yet")),
            None => waiting("AddressMissing", "none of its interfaces has an address yet"),
        },
        "Running" => MachineState::Running { id: instance.uid.clone() },
        "Failed" | "Succeeded" => waiting("Stopped", "the guest has ended; KubeVirt starts it again as it is told to"),
        _ => match (&instance.trouble, declared.status.as_str()) {
            (Some((reason, message)), _) => waiting(reason, message),
            (None, status) if status.starts_with("Err") || status.ends_with("BackOff") => {
                waiting(status, "KubeVirt cannot start the virtual machine")
            }
            (None, _) => waiting("Starting", "the virtual machine is being started"),
        },
    }
}

fn endpoint(declared: &Declared, address: &str) -> Endpoint {
    let (name, user) = (declared.machine.name.clone(), declared.user.clone());
    let secret = secret_name(&name);
    let place = |key: &str| KeyRef { name: secret.clone(), key: key.into() };
    Endpoint {
        namespace: declared.namespace.clone(),
        address: address.to_owned(),
        port: PORT,
        elevation: (user != "root").then(|| Elevation { user: "root".into(), password: None }),
        user,
        key: place(LOGIN_KEY),
        trust: vec![Trust::KnownHosts(Source::Secret(place(KNOWN_HOSTS_KEY)))],
        jump: None,
        connect_timeout: CONNECT,
        name,
    }
}

/// The virtual machine of a node, as it is posted. What the operator adds does not count into the template's hash. It has the
/// same two owners as a pod.
pub fn build(group: &Group, shape: &VirtualMachineShape, name: &str, node_uid: Option<&str>) -> Value {
    let mut machine = (*shape.template).clone();
    machine["apiVersion"] = format!("{GROUP}/{VERSION}").into();
    machine["kind"] = "VirtualMachine".into();
    let metadata = adopt(&mut machine, group, name, Some((name, node_uid)));
    let annotations = object(metadata, "annotations");
    annotations[api::TEMPLATE_HASH_ANNOTATION] = shape.hash.as_str().into();
    annotations[USER_ANNOTATION] = shape.user.as_str().into();
    if let Some(network) = &shape.network {
        annotations[NETWORK_ANNOTATION] = network.as_str().into();
    }
    if machine["spec"]["runStrategy"].is_null() && machine["spec"]["running"].is_null() {
        machine["spec"]["runStrategy"] = "Always".into();
    }
    // Instances and their pods are found by these, by budgets and services as by the operator.
    let labels = object(object(&mut machine["spec"]["template"], "metadata"), "labels");
    labels[api::GROUP_LABEL] = group.key.name.as_str().into();
    labels[api::NODE_LABEL] = name.into();
    cloud_init::attach(&mut machine, &secret_name(name));
    own_volumes(&mut machine, name);
    machine
}

/// Each machine has data volumes of its own: they are named after it, and so is what refers to them.
fn own_volumes(machine: &mut Value, node: &str) {
    let templates = machine["spec"]["dataVolumeTemplates"].as_array_mut();
    let mut names = Vec::new();
    for template in templates.into_iter().flatten() {
        if let Some(name) = template["metadata"]["name"].as_str().map(str::to_owned) {
            template["metadata"]["name"] = format!("{name}-{node}").into();
            names.push(name);
        }
    }
    let volumes = machine["spec"]["template"]["spec"]["volumes"].as_array_mut();
    for volume in volumes.into_iter().flatten() {
        for (kind, field) in [("dataVolume", "name"), ("persistentVolumeClaim", "claimName")] {
            let Some(source) = volume.get_mut(kind) else { continue };
            if let Some(name) = source[field].as_str().filter(|name| names.iter().any(|other| other == name)) {
                source[field] = format!("{name}-{node}").into();
            }
        }
    }
}

/// The Secret of a machine, as it is posted: what it is told at its first start, and what the operator needs to know it by.
/// With two owners, so that a foreground deletion of the group does not take it before the machine has said goodbye.
pub fn build_secret(group: &Group, name: &str, node_uid: &str, user_data: &str, login: &str, host: &str) -> Value {
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "stringData": {
            (cloud_init::USER_DATA_KEY): user_data, (LOGIN_KEY): login, (KNOWN_HOSTS_KEY): format!("* {}\n", host.trim())
        }
    });
    adopt(&mut secret, group, &secret_name(name), Some((name, Some(node_uid))));
    secret
}

/// The Secret of a group's key pair, as it is posted.
pub fn build_group_secret(group: &Group, private: &str, public: &str) -> Value {
    let GroupKey { name, .. } = &group.key;
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/ssh-auth",
        "stringData": {(LOGIN_KEY): private, "ssh-publickey": format!("{}\n", public.trim())}
    });
    adopt(&mut secret, group, &group_secret_name(name), None);
    secret
}
