//! Nodes that are virtual machines: made and known from birth, told apart when they stop, pause and start again, replaced and
//! removed. All but the first run by `make test-vms`: they need KubeVirt, whose node agent is a stand-in there.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use pallet_operator::{
    api::GroupNode,
    node::kubevirt::{VirtualMachine, VirtualMachineInstance},
};
use serde_json::{Value, json};

use crate::{
    grounds::{Ground, guest},
    harness::{Space, condition, reason, script, wait},
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

fn witness(node: &GroupNode) -> String {
    node.status.clone().unwrap().incarnation.unwrap().witness
}

/// Without KubeVirt a group says what is missing, and the others go on; this one runs in every cluster of tests without it.
#[tokio::test]
async fn without_kubevirt_a_group_says_what_is_missing() {
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
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    wait("it goes", || async {
        match space.groups().get_opt("web").await.unwrap() {
            None => Ok(()),
            Some(group) => Err(format!("{:?}", group.status)),
        }
    })
    .await;
}

/// Two machines from nothing: each is known by the host key that it was given, and nobody else's key is.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn machines_are_made_and_known_from_birth_and_go_with_their_group() {
    let Some(space) = Space::new("vm").await else { return };
    let ground = Ground::VirtualMachines;
    space.apply(json!({"count": 2, "node": ground.node(), "phases": phases()})).await;
    space.ready().await;
    for name in ["web-0", "web-1"] {
        let node = space.nodes().get(name).await.unwrap().status.unwrap();
        let motd = ground.run(&space, name, "cat /etc/motd").await;
        assert_eq!(motd, format!("{name} at {}\n", node.address.unwrap()));
        assert_eq!(node.backing.unwrap().kind, "VirtualMachine");
    }
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    let of = async |name: &str, key: &str| secrets.get(name).await.unwrap().data.unwrap()[key].0.clone();
    assert_ne!(of("web-0-cloud-init", "known_hosts").await, of("web-1-cloud-init", "known_hosts").await);
    assert_eq!(of("web-0-cloud-init", "ssh-privatekey").await, of("web-ssh", "ssh-privatekey").await);
    // One goes with all that was made for it, the other stays.
    space.patch(json!({"spec": {"count": 1}})).await;
    space.until("one is left", |group| group.status.as_ref().is_some_and(|status| status.replicas == 1)).await;
    wait("the machine and its Secret are gone", || async {
        let machines: Vec<_> = machines(&space).list(&ListParams::default()).await.unwrap().items;
        let secret = secrets.get_opt("web-1-cloud-init").await.unwrap();
        if machines.len() == 1 && secret.is_none() { Ok(()) } else { Err(format!("{} machines", machines.len())) }
    })
    .await;
    space.groups().delete("web", &DeleteParams::default()).await.unwrap();
    wait("nothing is left", || async {
        let machines = machines(&space).list(&ListParams::default()).await.unwrap().items.len();
        let pods = Api::<Pod>::namespaced(space.client.clone(), &space.name);
        let pods = pods.list(&ListParams::default()).await.unwrap().items.len();
        let secrets = secrets.list(&ListParams::default()).await.unwrap().items.len();
        if machines + pods + secrets == 0 { Ok(()) } else { Err(format!("{machines} {pods} {secrets}")) }
    })
    .await;
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
    assert_ne!(witness(&before), witness(&after));
    assert_eq!(ground.run(&space, "web-0", "cat /root/bootstrap").await, "bootstrapped\n", "on the new disk");
    assert_eq!(before.metadata.uid, after.metadata.uid, "the node is the same");
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
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    let known = async || secrets.get("web-0-cloud-init").await.unwrap().data.unwrap()["known_hosts"].0.clone();
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
