//! Pure: nodes that are virtual machines of KubeVirt: how one is read, and how one is made from the group's template.

use pallet_api::reason::Reason;
use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{
    adopt, cloud_init,
    kubevirt::{GROUP, Interface, StatusCondition, VERSION, VirtualMachine, VirtualMachineInstance},
    object,
    pod::health::held_by_finalizers,
};
use crate::{
    group::{Group, GroupKey, Kind, VirtualMachineShape},
    phase::{Digest, action::KeyRef},
    plan::{Going, Machine, MachineState},
    target::{Elevation, Endpoint, Source, Target, Trust},
};
use pallet_api as api;

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
    /// Whether it starts by itself, and starts again.
    lasting: bool,
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

/// The name of the Secret with what a machine is told at its first start: another one for each node, though it have the name of
/// a former one, and for each template, since what is told stands in that.
pub fn secret_name(node: &str, node_uid: &str, template_hash: &str) -> String {
    let digest = Digest::of("cloud-init", &json!([node_uid, template_hash]));
    format!("{node}-cloud-init-{}", digest.as_str().chars().take(10).collect::<String>())
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
            ends: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            marked: annotation(api::DELETE_NODE_ANNOTATION).is_some(),
            kind: Kind::VirtualMachine,
            target: None,
            attributes: Arc::default(),
            claims: None,
            state: MachineState::Waiting { reason: String::new(), message: String::new() },
            address: None,
            ready: false,
            gate_open: false,
            gated: false,
            template_hash: annotation(api::TEMPLATE_HASH_ANNOTATION).unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            life: None,
            ended: None,
            unready: None,
            going: going(metadata),
            name,
        },
        namespace: metadata.namespace.clone().unwrap_or_default(),
        user: annotation(USER_ANNOTATION).unwrap_or_default(),
        network: annotation(NETWORK_ANNOTATION),
        // The older field, `running`, stands for Always where it is true.
        lasting: match machine.spec.run_strategy.as_deref() {
            // One by RerunOnFailure that is stopped has most likely ended well, and stays so.
            Some(strategy) => strategy == "Always",
            None => machine.spec.running == Some(true),
        },
        status: machine.status.printable_status.clone(),
        trouble: trouble(&machine.status.conditions, &["Failure"]),
    }
}

/// What the deletion of a virtual machine waits for. KubeVirt has a finalizer on it until its instance is gone.
fn going(metadata: &ObjectMeta) -> Option<Going> {
    let due = metadata.deletion_timestamp.as_ref()?.0;
    let finalizers: Vec<&str> = metadata.finalizers.iter().flatten().map(String::as_str).collect();
    Some(Going { due, why: None, held_by: held_by_finalizers(&finalizers) })
}

/// What is needed of an instance.
pub fn instance(instance: &VirtualMachineInstance) -> Instance {
    let (metadata, status) = (&instance.metadata, &instance.status);
    let holds = |kind: &str| status.conditions.iter().any(|c| c.kind == kind && c.status == "True");
    // One without a name is known to the guest only: a bridge of its own, whose address leads nowhere from here.
    let networks = status.interfaces.iter().filter(|interface| !interface.name.is_empty());
    Instance {
        uid: metadata.uid.clone().unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        phase: status.phase.clone(),
        ready: holds("Ready"),
        paused: holds("Paused"),
        addresses: networks.filter_map(|interface| Some((interface.name.clone(), usable(interface)?))).collect(),
        trouble: trouble(&status.conditions, &["Failure", "Provisioning", "Synchronized", "PodScheduled"]),
    }
}

/// The first address of an interface that can be connected to from elsewhere. It is the guest that reports them: what is no
/// address is none.
fn usable(interface: &Interface) -> Option<String> {
    let reported = std::iter::once(&interface.ip_address).chain(&interface.ip_addresses);
    let local = |address: &IpAddr| match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    let mut addresses = reported.filter_map(|text| text.parse::<IpAddr>().ok());
    addresses.find(|address| !local(address)).map(|address| address.to_string())
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
/// agent, from its filesystem ID.
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
            // Between two starts KubeVirt calls it so, too.
            ("Stopped", None) if declared.lasting => waiting("Starting", "the virtual machine is being started"),
            ("Stopped", None) => {
                waiting(Reason::Stopped.as_str(), "the virtual machine is stopped; start it to have it go on")
            }
            (status, None) => waiting(status, "the virtual machine does not run"),
        };
    };
    match instance.phase.as_str() {
        _ if instance.deleting => waiting("Stopping", "the virtual machine is being stopped"),
        "Running" if instance.paused => {
            waiting(Reason::Paused.as_str(), "the virtual machine is paused; unpause it to have it go on")
        }
        "Running" if !has_address => match &declared.network {
            Some(network) => {
                waiting(Reason::AddressMissing.as_str(), &format!("it has no address on its network {network:?} yet"))
            }
            None => waiting(Reason::AddressMissing.as_str(), "none of its interfaces has an address yet"),
        },
        "Running" => MachineState::Running { id: instance.uid.clone() },
        "Failed" | "Succeeded" => {
            waiting(Reason::Stopped.as_str(), "the guest has ended; KubeVirt starts it again as it is told to")
        }
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
    let Machine { name, node, template_hash, .. } = declared.machine.clone();
    let user = declared.user.clone();
    let secret = secret_name(&name, &node.unwrap_or_default(), &template_hash);
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
    cloud_init::attach(&mut machine, &secret_name(name, node_uid.unwrap_or_default(), &shape.hash));
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

/// What a machine is told at its first start, and what the operator needs to know it by.
pub struct Told<'a> {
    /// The user data.
    pub user_data: &'a str,
    /// The private key to log in with.
    pub login: &'a str,
    /// The machine's public host key.
    pub host: &'a str,
}

/// The Secret of a machine, as it is posted: what it is told at its first start, and what the operator needs to know it by.
/// Its node alone owns it: it goes with the node, and not before, though the group be deleted in the foreground.
pub fn build_secret(group: &Group, (node, node_uid): (&str, &str), name: &str, told: &Told) -> Value {
    let Told { user_data, login, host } = told;
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "stringData": {
            (cloud_init::USER_DATA_KEY): user_data, (LOGIN_KEY): login, (KNOWN_HOSTS_KEY): format!("* {}\n", host.trim())
        }
    });
    let metadata = adopt(&mut secret, group, name, Some((node, Some(node_uid))));
    if let Some(owners) = metadata["ownerReferences"].as_array_mut() {
        owners.retain(|owner| owner["kind"] == "GroupNode");
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::group_of;

    fn group(template: Value) -> Group {
        group_of(json!({"virtualMachine": {"template": template}}))
    }

    fn shape(group: &Group) -> &VirtualMachineShape {
        match &group.node {
            crate::group::NodeShape::VirtualMachine(shape) => shape,
            other => panic!("{other:?}"),
        }
    }

    fn template() -> Value {
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "dataVolumeTemplates": [{"metadata": {"name": "root"}, "spec": {}}],
                "template": {"spec": {
                    "domain": {"devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}]}},
                    "volumes": [{"name": "root", "dataVolume": {"name": "root"}}, {"name": "other", "dataVolume": {"name": "golden"}}]
                }}
            }
        })
    }

    fn machine(strategy: &str, printable: &str) -> Declared {
        let group = group(template());
        let mut object = build(&group, shape(&group), "web-0", Some("n-uid"));
        object["metadata"]["uid"] = "vm-uid".into();
        object["spec"]["runStrategy"] = strategy.into();
        object["status"] = json!({"printableStatus": printable, "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": null}]});
        declared(&serde_json::from_value(object).unwrap())
    }

    fn started(status: Value) -> Instance {
        let object = json!({"metadata": {"name": "web-0", "uid": "vmi-1"}, "status": status});
        instance(&serde_json::from_value(object).unwrap())
    }

    fn running(extra: Value) -> Instance {
        let mut conditions = vec![json!({"type": "Ready", "status": "True"})];
        conditions.extend(extra.as_array().cloned().unwrap_or_default());
        started(json!({
            "phase": "Running", "conditions": conditions,
            "interfaces": [{"name": "storage", "podInterfaceName": "eth1"}, {"name": "default", "ipAddress": "10.1.0.7"}]
        }))
    }

    fn reason(machine: &Machine) -> &str {
        match &machine.state {
            MachineState::Waiting { reason, .. } => reason,
            MachineState::Running { .. } => "Running",
            MachineState::Gone { .. } => "Gone",
        }
    }

    #[test]
    fn the_template_is_kept_and_the_operators_own_is_added() {
        let group = group(template());
        let built = build(&group, shape(&group), "web-1", Some("n-uid"));
        assert_eq!(
            built["metadata"]["labels"],
            json!({"app": "web", "pallet.dev/group": "web", "pallet.dev/node": "web-1"})
        );
        assert_eq!(
            built["spec"]["template"]["metadata"]["labels"]["pallet.dev/group"], "web",
            "its pod is found by it"
        );
        assert_eq!(built["spec"]["runStrategy"], "Always");
        let owners = built["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!((owners[0]["uid"].as_str(), owners[1]["uid"].as_str()), (Some("g-uid"), Some("n-uid")));
        // Each has a volume of its own; what is shared stays shared.
        assert_eq!(built["spec"]["dataVolumeTemplates"][0]["metadata"]["name"], "root-web-1");
        let volumes = &built["spec"]["template"]["spec"]["volumes"];
        assert_eq!(volumes[0]["dataVolume"]["name"], "root-web-1");
        assert_eq!(volumes[1]["dataVolume"]["name"], "golden");
        assert_eq!(
            volumes[2]["cloudInitNoCloud"]["secretRef"]["name"],
            secret_name("web-1", "n-uid", &shape(&group).hash)
        );
        // What goes to the API server is all of it.
        let sent: VirtualMachine = serde_json::from_value(built.clone()).unwrap();
        let sent = serde_json::to_value(&sent).unwrap();
        assert_eq!((&sent["spec"], &sent["kind"]), (&built["spec"], &built["kind"]));
        assert_eq!(sent["apiVersion"], "kubevirt.io/v1");
    }

    #[test]
    fn a_machine_runs_when_its_instance_does_and_has_an_address() {
        let seen = observe(&machine("Always", "Running"), Some(&running(json!([]))));
        assert_eq!(seen.state, MachineState::Running { id: "vmi-1".into() });
        assert_eq!((seen.uid.as_str(), seen.address.as_deref(), seen.ready), ("vm-uid", Some("10.1.0.7"), true));
        let Some(Target::Machine(endpoint)) = seen.target else { panic!("{:?}", seen.target) };
        assert_eq!((endpoint.user.as_str(), endpoint.port), ("pallet", 22));
        assert_eq!(endpoint.elevation.as_ref().map(|e| e.user.as_str()), Some("root"));
        let group = group(template());
        let secret = secret_name("web-0", "n-uid", &shape(&group).hash);
        assert_eq!(endpoint.key.to_string(), format!("{secret}/ssh-privatekey"), "the one that it was made with");
        assert!(!endpoint.trust.is_empty(), "it is known from birth");
    }

    /// What stands in it was made for one node and from one template: a successor of the same name, or a machine that is made
    /// anew from another template, must not be told the same.
    #[test]
    fn each_node_and_each_template_has_a_secret_of_its_own() {
        let names =
            [("n-1", "t-1"), ("n-2", "t-1"), ("n-1", "t-2")].map(|(node, hash)| secret_name("web-0", node, hash));
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2], "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("web-0-cloud-init-")));
    }

    #[test]
    fn only_addresses_that_lead_to_the_guest_are_taken() {
        let of = |interfaces: Value| started(json!({"phase": "Running", "interfaces": interfaces})).addresses;
        let guests_own = json!([{"ipAddress": "172.17.0.1", "interfaceName": "docker0"}]);
        assert_eq!(of(guests_own), []);
        let local_first =
            json!([{"name": "default", "ipAddress": "fe80::1", "ipAddresses": ["fe80::1", "2001:db8::7"]}]);
        assert_eq!(of(local_first), [("default".to_owned(), "2001:db8::7".to_owned())]);
        assert_eq!(
            of(json!([{"name": "default", "ipAddress": "db.example.com"}])),
            [],
            "what is resolved is not reported"
        );
        assert_eq!(of(json!([{"name": "default", "ipAddress": "127.0.0.1"}])), []);
    }

    #[test]
    fn stopped_paused_and_being_started_are_told_apart() {
        let of = |strategy: &str, printable: &str, instance: Option<Instance>| {
            reason(&observe(&machine(strategy, printable), instance.as_ref())).to_owned()
        };
        assert_eq!(of("Halted", "Stopped", None), "Stopped");
        assert_eq!(of("Always", "Stopped", None), "Starting", "between two starts it is called so, too");
        assert_eq!(of("RerunOnFailure", "Stopped", None), "Stopped", "it has ended well");
        assert_eq!(of("Always", "", None), "Starting");
        assert_eq!(of("Always", "ErrorPvcNotFound", None), "ErrorPvcNotFound");
        assert_eq!(of("Always", "CrashLoopBackOff", None), "CrashLoopBackOff");
        let paused = running(json!([{"type": "Paused", "status": "True", "reason": "PausedByUser"}]));
        assert_eq!(of("Always", "Paused", Some(paused)), "Paused");
        let nowhere = started(json!({"phase": "Running", "interfaces": [{"name": "default"}]}));
        assert_eq!(of("Always", "Running", Some(nowhere)), "AddressMissing");
        let stuck =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]);
        let stuck = started(json!({"phase": "Scheduling", "conditions": stuck}));
        assert_eq!(of("Always", "ErrorUnschedulable", Some(stuck)), "Unschedulable");
        assert_eq!(of("Always", "Starting", Some(started(json!({"phase": "Scheduled"})))), "Starting");
        assert_eq!(of("Always", "Stopped", Some(started(json!({"phase": "Failed"})))), "Stopped");
    }

    #[test]
    fn a_migration_keeps_the_instance_and_a_start_makes_another() {
        let before = observe(&machine("Always", "Running"), Some(&running(json!([]))));
        let mut moved = running(json!([]));
        moved.addresses[0].1 = "10.1.0.9".into();
        let during = observe(&machine("Always", "Migrating"), Some(&moved));
        assert_eq!(during.state, before.state);
        assert_ne!(during.target, before.target, "it is reached where it is now");
        let mut again = running(json!([]));
        again.uid = "vmi-2".into();
        assert_ne!(observe(&machine("Always", "Running"), Some(&again)).state, before.state);
    }
}
