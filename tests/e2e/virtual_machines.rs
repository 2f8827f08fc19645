//! Nodes that are virtual machines: made and known from birth, told apart when they stop, pause and start again, replaced and
//! removed. `make test-vms` runs them: they need KubeVirt, whose node agent is a stand-in there. The first needs a cluster without it:
//! `make test-outages` runs that one.

use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret},
        rbac::v1::ClusterRoleBinding,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use pallet_api::GroupNode;
use pallet_api::group_node::Outcome;
use pallet_core::node::kubevirt::{VirtualMachine, VirtualMachineInstance};
use serde_json::{Value, json};

use crate::{
    grounds::{Ground, guest, told},
    harness::{Space, condition, phase_result, reason, script, wait},
};

fn phases() -> Value {
    json!({
        "bootstrap": script("echo bootstrapped >> /root/bootstrap"),
        "configure": {"actions": [{"file": {"path": "/etc/motd", "content": "{{ node.name }} at {{ node.address }}\n"}}]}
    })
}

fn instances(space: &Space) -> Api<VirtualMachineInstance> {
    Api::namespaced(space.client.clone(), &space.name)
}

fn machines(space: &Space) -> Api<VirtualMachine> {
    Api::namespaced(space.client.clone(), &space.name)
}

fn filesystem_id(node: &GroupNode) -> String {
    node.status.clone().unwrap().incarnation.unwrap().filesystem_id
}

/// Definitions as KubeVirt's, as far as the API server needs them to know the kinds; nobody stands behind them.
async fn define(space: &Space) -> Vec<String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(space.client.clone());
    let mut names = Vec::new();
    for (kind, plural) in [("VirtualMachine", "virtualmachines"), ("VirtualMachineInstance", "virtualmachineinstances")]
    {
        let name = format!("{plural}.kubevirt.io");
        let definition = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "group": "kubevirt.io", "scope": "Namespaced",
                "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true
                }}}]
            }
        }));
        definitions.create(&PostParams::default(), &definition.unwrap()).await.expect("the definition");
        names.push(name);
    }
    names
}

/// Without KubeVirt a group says what is missing, and the others go on; when it is installed, that is noticed, and when it is
/// uninstalled again, though groups and machines are there. The definitions are seen by all operators of the cluster.
#[tokio::test]
#[ignore = "disturbs the whole cluster: make test-outages"]
async fn kubevirt_is_missed_by_name_and_noticed_when_it_comes_and_goes() {
    let Some(space) = Space::new("vm-missing").await else { return };
    if machines(&space).list(&ListParams::default().limit(1)).await.is_ok() {
        eprintln!("SKIPPED: KubeVirt is installed in this cluster");
        return;
    }
    space.apply(json!({"count": 1, "node": guest(), "phases": phases()})).await;
    let group = space.until("it says so", |group| condition(group, "Stalled").1 == "KubeVirtMissing").await;
    assert!(condition(&group, "Stalled").2.contains("install KubeVirt"), "{group:?}");
    space.apply_as("pods", json!({"count": 1, "node": Ground::Pods("localhost/busybox:1").node()})).await;
    space.ready_as("pods").await;
    // KubeVirt without the rights for it: the group names the right that is missing, and nothing is watched in vain.
    let bindings: Api<ClusterRoleBinding> = Api::all(space.client.clone());
    let name = space.virtual_machine_binding();
    let mut binding = bindings.get(&name).await.expect("the binding");
    bindings.delete(&name, &DeleteParams::default()).await.expect("the rights go");
    let defined = define(&space).await;
    let group = space.until("it says so", |group| condition(group, "Stalled").1 == "VirtualMachinesForbidden").await;
    assert!(condition(&group, "Stalled").2.contains("may not watch virtualmachines.kubevirt.io"), "{group:?}");
    let log = std::fs::read_to_string(space.scratch("operator.log")).unwrap_or_default();
    assert!(!log.contains("forbidden: User"), "{log}");
    binding.metadata.resource_version = None;
    bindings.create(&PostParams::default(), &binding).await.expect("the rights come back");
    let made =
        wait("a machine is made", || async { machines(&space).get("web-0").await.map_err(|error| error.to_string()) })
            .await;
    assert_eq!(made.spec.run_strategy.as_deref(), Some("Always"));
    space.node_until("web-0", "it waits for its machine", |node| reason(node) == "Starting").await;
    let definitions: Api<CustomResourceDefinition> = Api::all(space.client.clone());
    for name in defined {
        definitions.delete(&name, &DeleteParams::default()).await.expect("the definition goes");
    }
    space.until("it says so again", |group| condition(group, "Stalled").1 == "KubeVirtMissing").await;
    // Nobody is left to delete its machine, and nothing of it is waited for.
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    wait("the group is gone", || async {
        match space.groups().get_opt("web").await.unwrap() {
            None => Ok(()),
            Some(group) => Err(format!("{:?}", group.status)),
        }
    })
    .await;
}

/// How many times a phase has succeeded, by the operator's log.
fn succeeded(space: &Space, phase: &str) -> usize {
    let log = std::fs::read_to_string(space.scratch("operator.log")).unwrap_or_default();
    let of = |line: &&str| line.contains(&format!("phase=\"{phase}\"")) && line.contains("outcome=\"succeeded\"");
    log.lines().filter(of).count()
}

/// Two machines from nothing: each is known by the host key that it was given, and nobody else's key is. Both say goodbye, the last
/// though its group is deleted in the foreground, which takes what the group alone owns at once.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn machines_are_made_and_known_from_birth_and_go_with_their_group() {
    let Some(space) = Space::new("vm").await else { return };
    let ground = Ground::VirtualMachines;
    let mut phases = phases();
    phases["destroy-server"] = script("test -e /root/bootstrap");
    space.apply(json!({"count": 2, "node": ground.node(), "phases": phases})).await;
    space.ready().await;
    for name in ["web-0", "web-1"] {
        let node = space.nodes().get(name).await.unwrap().status.unwrap();
        let motd = ground.run(&space, name, "cat /etc/motd").await;
        assert_eq!(motd, format!("{name} at {}\n", node.address.unwrap()));
        assert_eq!(node.machine_ref.unwrap().kind, "VirtualMachine");
    }
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    let (first, second) = (told(&space, "web-0").await, told(&space, "web-1").await);
    assert_ne!(first["known_hosts"], second["known_hosts"]);
    assert_eq!(first["ssh-privatekey"], secrets.get("web-ssh").await.unwrap().data.unwrap()["ssh-privatekey"]);
    // One goes with all that was made for it, the other stays.
    space.patch(json!({"spec": {"count": 1}})).await;
    space.until("one is left", |group| group.status.as_ref().is_some_and(|status| status.replicas == 1)).await;
    wait("the machine and its Secret are gone", || async {
        let machines: Vec<_> = machines(&space).list(&ListParams::default()).await.unwrap().items;
        let secrets = secrets.list(&ListParams::default().labels("pallet.dev/node=web-1")).await.unwrap().items;
        if machines.len() == 1 && secrets.is_empty() { Ok(()) } else { Err(format!("{} machines", machines.len())) }
    })
    .await;
    assert_eq!(succeeded(&space, "destroy-server"), 1);
    space.groups().delete("web", &DeleteParams::foreground()).await.unwrap();
    wait("nothing is left", || async {
        let machines = machines(&space).list(&ListParams::default()).await.unwrap().items.len();
        let pods = Api::<Pod>::namespaced(space.client.clone(), &space.name);
        let pods = pods.list(&ListParams::default()).await.unwrap().items.len();
        let secrets = secrets.list(&ListParams::default()).await.unwrap().items.len();
        if machines + pods + secrets == 0 { Ok(()) } else { Err(format!("{machines} {pods} {secrets}")) }
    })
    .await;
    assert_eq!(succeeded(&space, "destroy-server"), 2);
}

/// Stopped and paused are said as what they are; a start with a new disk is a new life, and everything runs again.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn stopped_is_told_and_a_start_with_a_new_disk_is_a_new_life() {
    let Some(space) = Space::new("vm-stop").await else { return };
    let ground = Ground::VirtualMachines;
    space.apply(json!({"count": 1, "node": ground.node(), "phases": phases()})).await;
    space.ready().await;
    let before = space.nodes().get("web-0").await.unwrap();
    let strategy = async |strategy: &str| {
        let patch = Patch::Merge(json!({"spec": {"runStrategy": strategy}}));
        machines(&space).patch("web-0", &PatchParams::default(), &patch).await.expect("the patch")
    };
    strategy("Halted").await;
    space.node_until("web-0", "it is stopped", |node| reason(node) == "Stopped").await;
    strategy("Always").await;
    space.ready().await;
    let after = space.nodes().get("web-0").await.unwrap();
    assert_ne!(filesystem_id(&before), filesystem_id(&after));
    assert_eq!(ground.run(&space, "web-0", "cat /root/bootstrap").await, "bootstrapped\n", "on the new disk");
    assert_eq!(before.metadata.uid, after.metadata.uid, "the node is the same");
}

/// A disk that stays makes a start no new life: nothing runs again, whatever else has changed.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn a_start_with_the_same_disk_is_the_same_life() {
    let Some(space) = Space::new("vm-disk").await else { return };
    let capacity = json!({"storage": "1Gi"});
    let path = format!("/run/pallet/vms/disks/{}", space.name);
    let volume = json!({
        "metadata": {"name": space.name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": capacity, "storageClassName": space.name,
            "hostPath": {"path": path, "type": "DirectoryOrCreate"}
        }
    });
    let volumes: Api<PersistentVolume> = Api::all(space.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let claim = json!({
        "metadata": {"name": "disk"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": capacity}, "storageClassName": space.name}
    });
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(space.client.clone(), &space.name);
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    let mut node = guest();
    let spec = &mut node["virtualMachine"]["template"]["spec"]["template"]["spec"];
    let disk = json!({"name": "disk", "disk": {"bus": "virtio"}});
    spec["domain"]["devices"]["disks"].as_array_mut().unwrap().push(disk);
    spec["volumes"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}));
    space.apply(json!({"count": 1, "node": node, "phases": phases()})).await;
    space.ready().await;
    let before = space.nodes().get("web-0").await.unwrap();
    let first = instances(&space).get("web-0").await.unwrap().metadata.uid;
    instances(&space).delete("web-0", &DeleteParams::default()).await.unwrap();
    wait("another start", || async {
        match instances(&space).get_opt("web-0").await.unwrap() {
            Some(instance) if instance.metadata.uid != first => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let current = |node: &GroupNode| {
        let instance = node.status.as_ref().and_then(|status| status.incarnation.as_ref()).map(|i| i.instance.clone());
        reason(node) == "Converged"
            && instance.is_some()
            && instance != before.status.clone().unwrap().incarnation.map(|i| i.instance)
    };
    let after = space.node_until("web-0", "it is met again", current).await;
    assert_eq!(filesystem_id(&before), filesystem_id(&after));
    let bootstrap = phase_result(&after, "bootstrap").unwrap();
    assert_eq!(
        (bootstrap.outcome, bootstrap.run_id),
        (Outcome::Succeeded, phase_result(&before, "bootstrap").unwrap().run_id)
    );
    assert_eq!(Ground::VirtualMachines.run(&space, "web-0", "cat /root/bootstrap").await, "bootstrapped\n");
}

/// A pause is told, and ends by itself; a migration is none of the group's business. Both are played: what of the API shows them
/// is written as KubeVirt would.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn a_pause_is_told_and_a_migration_changes_nothing() {
    let Some(space) = Space::new("vm-pause").await else { return };
    space.apply(json!({"count": 1, "node": guest(), "phases": phases()})).await;
    space.ready().await;
    let before = space.nodes().get("web-0").await.unwrap();
    let patch = async |patch: Value| {
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        instances(&space).patch("web-0", &PatchParams::default(), &Patch::<()>::Json(patch)).await.expect("the patch")
    };
    let when = "2026-01-01T00:00:00Z";
    let moving = json!({"migrationUid": "m-1", "startTimestamp": when, "sourceNode": "node-1", "targetNode": "node-2"});
    patch(json!([{"op": "add", "path": "/status/migrationState", "value": moving}])).await;
    let paused = json!({"type": "Paused", "status": "True", "reason": "PausedByUser", "message": "m",
        "lastProbeTime": when, "lastTransitionTime": when});
    let instance = patch(json!([{"op": "add", "path": "/status/conditions/-", "value": paused}])).await;
    space.node_until("web-0", "it is paused", |node| reason(node) == "Paused").await;
    let place = instance.status.conditions.iter().position(|condition| condition.kind == "Paused").unwrap();
    patch(json!([
        {"op": "test", "path": format!("/status/conditions/{place}/type"), "value": "Paused"},
        {"op": "remove", "path": format!("/status/conditions/{place}")},
        {"op": "add", "path": "/status/migrationState/completed", "value": true}
    ]))
    .await;
    space.ready().await;
    let after = space.nodes().get("web-0").await.unwrap();
    assert_eq!(before.status.unwrap().incarnation, after.status.unwrap().incarnation, "the very same life");
}

/// The contract with cloud-init itself: it takes the operator's part and the user's own, each as it was written.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn cloud_init_takes_both_parts_of_the_user_data() {
    let Some(space) = Space::new("vm-cloud-init").await else { return };
    let own = "#cloud-config\nwrite_files:\n- path: /etc/own\n  permissions: 0640\n  content: Grüße, 5 €\nusers:\n- default\n- name: bob\n  lock_passwd: true\n";
    let mut node = guest();
    node["virtualMachine"]["template"]["spec"]["template"]["spec"]["volumes"] = json!([
        {"name": "root", "containerDisk": {"image": "localhost/pallet-guest-cloud-init:1"}},
        {"name": "init", "cloudInitNoCloud": {"userData": own}}
    ]);
    let disks = &mut node["virtualMachine"]["template"]["spec"]["template"]["spec"]["domain"]["devices"]["disks"];
    disks.as_array_mut().unwrap().push(json!({"name": "init", "disk": {"bus": "virtio"}}));
    space.apply(json!({"count": 1, "node": node, "phases": phases()})).await;
    space.ready().await;
    let found = "stat -c %a /etc/own; cat /etc/own; echo; id -un bob; id -un pallet";
    assert_eq!(Ground::VirtualMachines.run(&space, "web-0", found).await, "640\nGrüße, 5 €\nbob\npallet\n");
}

/// The example, as it stands, but for the image.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn the_example_of_virtual_machines_becomes_ready() {
    let Some(space) = Space::new("vm-example").await else { return };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/virtual-machines.yaml");
    let text = std::fs::read_to_string(path).expect("the example");
    let image = "registry.example/debian-cloud:12";
    assert!(text.contains(image) && text.contains("# Then: guests is Ready"));
    let object: Value = serde_saphyr::from_str(&text.replace(image, "localhost/pallet-guest:1")).expect("YAML");
    space.apply_as("guests", object["spec"].clone()).await;
    space.ready_as("guests").await;
}

/// A guest that is destroyed in the midst of a phase comes back, and the phase runs again, as another attempt.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn a_guest_that_is_destroyed_in_a_phase_begins_anew() {
    let Some(space) = Space::new("vm-crash").await else { return };
    let ground = Ground::VirtualMachines;
    let mut phases = phases();
    phases["configure"] = script("echo began >> /root/began; while [ ! -e /root/go ]; do sleep 0.2; done");
    space.apply(json!({"count": 1, "node": ground.node(), "phases": phases})).await;
    let runs = |node: &GroupNode| {
        let running = node.status.as_ref().and_then(|status| status.running.as_ref());
        running.is_some_and(|running| running.phase == "configure")
    };
    space.node_until("web-0", "it runs", runs).await;
    let first = instances(&space).get("web-0").await.unwrap().metadata.uid;
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.name);
    let launcher = pods.list(&ListParams::default()).await.unwrap().items.remove(0).metadata.name.unwrap();
    pods.delete(&launcher, &DeleteParams::default().grace_period(0)).await.unwrap();
    wait("another instance", || async {
        let instance = instances(&space).get_opt("web-0").await.unwrap();
        match instance {
            Some(instance) if instance.metadata.uid != first => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    wait("it runs again", || async {
        let began = ground.run(&space, "web-0", "cat /root/began 2>/dev/null || :").await;
        if began == "began\n" { Ok(()) } else { Err(began) }
    })
    .await;
    ground.run(&space, "web-0", "touch /root/go").await;
    space.ready().await;
    let machine = machines(&space).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(machine.len(), 1, "the machine was not replaced for it");
}

/// A changed template replaces machines, and with them their keys.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn a_changed_template_replaces_the_machine_and_its_keys() {
    let Some(space) = Space::new("vm-replace").await else { return };
    let ground = Ground::VirtualMachines;
    space.apply(json!({"count": 1, "node": ground.node(), "phases": phases()})).await;
    space.ready().await;
    let known = async || told(&space, "web-0").await["known_hosts"].0.clone();
    let before = (machines(&space).get("web-0").await.unwrap().metadata.uid, known().await);
    let mut node = ground.node();
    node["virtualMachine"]["template"]["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = json!("288Mi");
    space.apply(json!({"count": 1, "node": node, "phases": phases()})).await;
    space
        .until("it is replaced", |group| group.status.as_ref().is_some_and(|status| status.updated_replicas == 1))
        .await;
    space.ready().await;
    let after = (machines(&space).get("web-0").await.unwrap().metadata.uid, known().await);
    assert!(before.0 != after.0 && before.1 != after.1);
}

/// What a machine could not be told is said before one is taken away for it.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn no_machine_is_replaced_for_one_whose_user_data_is_missing() {
    let Some(space) = Space::new("vm-unsound").await else { return };
    space.apply(json!({"count": 1, "node": guest(), "phases": phases()})).await;
    space.ready().await;
    let before = machines(&space).get("web-0").await.unwrap().metadata.uid;
    let mut node = guest();
    let spec = &mut node["virtualMachine"]["template"]["spec"]["template"]["spec"];
    let volume = json!({"name": "init", "cloudInitNoCloud": {"secretRef": {"name": "absent"}}});
    spec["volumes"].as_array_mut().unwrap().push(volume);
    let disk = json!({"name": "init", "disk": {"bus": "virtio"}});
    spec["domain"]["devices"]["disks"].as_array_mut().unwrap().push(disk);
    space.apply(json!({"count": 1, "node": node, "phases": phases()})).await;
    let group = space.until("it is refused", |group| condition(group, "Stalled").1 == "InvalidTemplate").await;
    assert!(condition(&group, "Stalled").2.contains("Secret absent"), "{group:?}");
    assert_eq!(machines(&space).get("web-0").await.unwrap().metadata.uid, before, "it is still there");
}

/// User data of the user's own goes along; what would contradict the operator's is refused before anything is made.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn user_data_that_contradicts_the_operators_is_refused() {
    let Some(space) = Space::new("vm-data").await else { return };
    let mut node = guest();
    let volumes = json!([
        {"name": "root", "containerDisk": {"image": "localhost/pallet-guest:1"}},
        {"name": "init", "cloudInitNoCloud": {"userData": "#cloud-config\nssh_keys: {}\n"}}
    ]);
    node["virtualMachine"]["template"]["spec"]["template"]["spec"]["volumes"] = volumes;
    space.apply(json!({"count": 1, "node": node})).await;
    let group = space.until("it is refused", |group| condition(group, "Stalled").1 == "InvalidSpec").await;
    let message = condition(&group, "Stalled").2;
    assert!(message.contains("volumes[1].cloudInitNoCloud.userData") && message.contains("ssh_keys"), "{message}");
    assert_eq!(machines(&space).list(&ListParams::default()).await.unwrap().items.len(), 0);
}
