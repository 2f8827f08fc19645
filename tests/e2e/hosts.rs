//! Nodes that are hosts: taken from an inventory, converged over SSH, lost and found again, and let go.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use pallet_api::group_node::Outcome;
use serde_json::{Value, json};

use crate::{
    harness::{Space, condition, phase_result, reason, script, wait},
    sshd::Hosts,
};

fn marked() -> Value {
    json!({
        "bootstrap": script("echo bootstrapped >> /root/bootstrap"),
        "configure": {"actions": [{"file": {"path": "/etc/motd", "content": "{{ node.name }} is {{ node.host }} at {{ node.address }}\n"}}]},
        "destroy-server": script("echo gone >> /root/farewell")
    })
}

/// Twenty at once: each is bootstrapped and configured once, as what its templates say, and none twice.
#[tokio::test]
async fn twenty_hosts_converge_and_are_let_go_again() {
    let Some(space) = Space::new("hosts").await else { return };
    let hosts = Hosts::new(&space, 20).await;
    space.apply(json!({"count": 20, "node": hosts.node(), "phases": marked()})).await;
    let group = space.ready().await;
    assert_eq!(group.status.as_ref().unwrap().ready_replicas, 20);
    for (ordinal, host) in hosts.all.iter().enumerate() {
        // They are taken in the order of the list.
        let motd = hosts.run(&host.name, "cat /etc/motd").await;
        assert_eq!(motd, format!("web-{ordinal} is {} at {}\n", host.name, host.address));
        assert_eq!(hosts.run(&host.name, "cat /root/bootstrap").await, "bootstrapped\n");
    }
    let node = space.nodes().get("web-3").await.unwrap();
    let machine_ref = node.status.unwrap().machine_ref.unwrap();
    assert_eq!((machine_ref.kind.as_str(), machine_ref.name.as_str()), ("Host", hosts.all[3].name.as_str()));
    // Seventeen go: each says goodbye, and stays as it is.
    space.patch(json!({"spec": {"count": 3}})).await;
    space.until("three are left", |group| group.status.as_ref().is_some_and(|status| status.replicas == 3)).await;
    let last = &hosts.all[19].name;
    wait("the last has said goodbye", || async {
        let said = hosts.run(last, "cat /root/farewell 2>/dev/null || :").await;
        if said == "gone\n" { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(hosts.run(last, "cat /etc/motd").await.lines().count(), 1, "nothing else was undone");
    space.groups().delete("web", &Default::default()).await.unwrap();
    wait("the group is gone", || async {
        match space.groups().get_opt("web").await.unwrap() {
            None => Ok(()),
            Some(group) => Err(format!("{:?}", group.status)),
        }
    })
    .await;
    assert_eq!(hosts.run(&hosts.all[0].name, "cat /root/farewell").await, "gone\n");
}

/// Fewer hosts than nodes is said, and what belongs to another group is not taken; when it is let go, it is.
#[tokio::test]
async fn a_host_belongs_to_one_group_at_a_time() {
    let Some(space) = Space::new("hosts-conflict").await else { return };
    let hosts = Hosts::new(&space, 2).await;
    let spec = |count: u32| json!({"count": count, "node": hosts.node(), "phases": marked()});
    space.apply(spec(1)).await;
    space.ready().await;
    space.apply_as("other", spec(2)).await;
    let other = space.until_as("other", "it has one", |group| condition(group, "Stalled").1 == "NotEnoughHosts").await;
    let (_, _, message) = condition(&other, "Stalled");
    let first = &hosts.all[0].name;
    assert!(message.contains("1 of 2 nodes have a host"), "{message}");
    assert!(message.contains(&format!("{first} is node web-0 of group web")), "{message}");
    space.groups().delete("web", &Default::default()).await.unwrap();
    space.ready_as("other").await;
    let motd = hosts.run(first, "cat /etc/motd").await;
    assert!(motd.starts_with(&format!("other-1 is {first}")), "{motd}");
    let bootstraps = hosts.run(first, "cat /root/bootstrap").await;
    assert_eq!(bootstraps, "bootstrapped\nbootstrapped\n", "what was done for one group is nothing to another");
}

/// An address that is edited to that of another group's host leads nobody there: it is said, and nothing is done.
#[tokio::test]
async fn an_edited_address_leads_no_group_to_anothers_host() {
    let Some(space) = Space::new("hosts-led").await else { return };
    let hosts = Hosts::new(&space, 2).await;
    let of = |name: &str, host: &Value| {
        let mut listed = host.clone();
        listed["name"] = json!(name);
        json!({"count": 1, "node": Hosts::listing(&json!([listed])), "phases": marked()})
    };
    let (theirs, own) = (hosts.all[0].listed(), hosts.all[1].listed());
    space.apply_as("db", of("db-1", &theirs)).await;
    space.ready_as("db").await;
    space.apply(of("web-1", &own)).await;
    space.ready().await;
    space.apply(of("web-1", &theirs)).await;
    let node = space.node_until("web-0", "it is told", |node| reason(node) == "HostInUse").await;
    let message = node.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("is node db-0 of group db"), "{message}");
    let motd = hosts.run(&hosts.all[0].name, "cat /etc/motd /root/bootstrap").await;
    assert_eq!(motd, format!("db-0 is db-1 at {}\nbootstrapped\n", hosts.all[0].address));
    let db = space.nodes().get("db-0").await.unwrap();
    assert_eq!(reason(&db), "Converged");
    // It is mended, and the node is what it was.
    space.apply(of("web-1", &own)).await;
    space.ready().await;
    assert_eq!(hosts.run(&hosts.all[1].name, "cat /root/bootstrap").await, "bootstrapped\n");
}

/// An inventory in a ConfigMap: a host that is added is taken, one that is taken off is let go.
#[tokio::test]
async fn an_inventory_may_stand_in_a_config_map() {
    let Some(mut space) = Space::bare("hosts-inventory").await else { return };
    space.environment.push(("PALLET_CONFIG_MAP_POLL", "1s".into()));
    space.start_operator();
    let hosts = Hosts::new(&space, 2).await;
    let (mut one, mut two) = (hosts.all[0].listed(), hosts.all[1].listed());
    one["labels"] = json!({"rack": "a"});
    one["parameters"] = json!({"port": 8080});
    two["labels"] = json!({"rack": "a"});
    two["parameters"] = json!({"port": 8081});
    let elsewhere = json!({"name": "elsewhere", "address": "10.99.255.1", "labels": {"rack": "b"}});
    let list = |hosts: &[&Value]| json!({"hosts.yaml": serde_json::to_string(&hosts).unwrap()});
    space.config_map("fleet", list(&[&elsewhere, &one])).await;
    space
        .apply(json!({
            "count": 2,
            "node": {"hosts": {
                "key": {"secretKeyRef": {"name": "login"}}, "selector": {"matchLabels": {"rack": "a"}},
                "inventoryFrom": {"configMapKeyRef": {"name": "fleet", "key": "hosts.yaml"}}
            }},
            "phases": {"configure": {"actions": [{"file": {"path": "/etc/port", "content": "{{ node.params.port }} in {{ node.labels.rack }}"}}]}}
        }))
        .await;
    let group = space.until("one is missing", |group| condition(group, "Stalled").1 == "NotEnoughHosts").await;
    assert_eq!(group.status.unwrap().converged_replicas, 1);
    space.config_map("fleet", list(&[&elsewhere, &one, &two])).await;
    space.ready().await;
    assert_eq!(hosts.run(&hosts.all[1].name, "cat /etc/port").await, "8081 in a");
    // What cannot be read takes no host away.
    space.config_map("fleet", json!({"hosts.yaml": "- name: [db1"})).await;
    let group = space.until("it says so", |group| condition(group, "Stalled").1 == "InvalidSpec").await;
    assert!(condition(&group, "Stalled").2.contains("spec.node.hosts.inventoryFrom"), "{group:?}");
    assert_eq!(space.nodes().list(&Default::default()).await.unwrap().items.len(), 2);
    space.config_map("fleet", list(&[&elsewhere, &two])).await;
    let group = space.until("the first is let go", |group| condition(group, "Stalled").1 == "NotEnoughHosts").await;
    assert_eq!(group.status.unwrap().replicas, 1);
    let left = space.nodes().list(&Default::default()).await.unwrap().items;
    assert_eq!(left[0].spec.host.as_ref().unwrap().name, hosts.all[1].name);
}

/// What a person has to mend is said on the node, and heals by itself.
#[tokio::test]
async fn unknown_and_changed_host_keys_are_refused_before_anything_is_sent() {
    let Some(space) = Space::new("hosts-keys").await else { return };
    let hosts = Hosts::new(&space, 1).await;
    let mut stranger = hosts.all[0].listed();
    let pinned = stranger["hostKeys"].take();
    stranger.as_object_mut().unwrap().remove("hostKeys");
    let spec = |host: &Value| json!({"count": 1, "node": Hosts::listing(&json!([host])), "phases": marked()});
    space.apply(spec(&stranger)).await;
    let node = space.node_until("web-0", "it is refused", |node| reason(node) == "HostKeyUnknown").await;
    let message = node.status.unwrap().conditions[0].message.clone();
    let key = pinned[0].as_str().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert!(message.contains(&key) && message.contains("SHA256:"), "it says what to pin: {message}");
    let log = hosts.run(&hosts.all[0].name, "cat /var/log/sshd.log 2>/dev/null || :").await;
    assert!(!log.contains("Accepted"), "{log}");
    stranger["hostKeys"] = pinned;
    space.apply(spec(&stranger)).await;
    space.ready().await;
    hosts.tool(&["rekey", &hosts.all[0].name]).await;
    // Whoever is logged in stays so: a connection that is kept is still to the host that it was opened to.
    hosts.tool(&["kill-sshd", &hosts.all[0].name]).await;
    hosts.tool(&["start-sshd", &hosts.all[0].name]).await;
    space.apply(json!({"count": 1, "node": Hosts::listing(&json!([stranger])), "phases": {"configure": script("echo other")}})).await;
    let node = space.node_until("web-0", "it is refused", |node| reason(node) == "HostKeyChanged").await;
    assert_eq!(phase_result(&node, "bootstrap").unwrap().outcome, Outcome::Succeeded, "nothing is lost by it");
}

/// A run outlives the connection, and the node's journal tells of it: nothing runs twice.
#[tokio::test]
async fn a_run_outlives_a_cut_and_a_dead_sshd() {
    let Some(space) = Space::new("hosts-cut").await else { return };
    let hosts = Hosts::new(&space, 2).await;
    let (cut, killed) = (&hosts.all[0].name, &hosts.all[1].name);
    let slow = "echo began >> /root/began; while [ ! -e /root/go ]; do sleep 0.2; done; echo ended >> /root/ended";
    let all = json!({"rollout": {"maxParallel": 2}});
    space
        .apply(json!({"count": 2, "node": hosts.node(), "converge": all, "phases": {"configure": script(slow)}}))
        .await;
    for host in [cut, killed] {
        wait("it began", || async {
            let began = hosts.run(host, "cat /root/began 2>/dev/null || :").await;
            if began.is_empty() { Err(began) } else { Ok(()) }
        })
        .await;
    }
    hosts.tool(&["cut", cut]).await;
    hosts.tool(&["kill-sshd", killed]).await;
    space.node_until("web-1", "it is lost from sight", |node| reason(node) != "Running").await;
    for host in [cut, killed] {
        hosts.run(host, "touch /root/go").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    hosts.tool(&["mend", cut]).await;
    hosts.tool(&["start-sshd", killed]).await;
    space.ready().await;
    for host in [cut, killed] {
        assert_eq!(hosts.run(host, "cat /root/began /root/ended").await, "began\nended\n");
    }
}

/// A host that is rebooted is the same; one that was made anew is not.
#[tokio::test]
async fn a_reboot_keeps_the_incarnation_and_a_new_image_does_not() {
    let Some(space) = Space::new("hosts-reboot").await else { return };
    let hosts = Hosts::new(&space, 1).await;
    let host = &hosts.all[0].name;
    let phases = |mark: &str| {
        let mut phases = marked();
        phases["configure"] =
            script(&format!("[ -e /root/stay ] || while :; do sleep 1; done; echo {mark} >> /root/configured"));
        phases
    };
    space.apply(json!({"count": 1, "node": hosts.node(), "phases": phases("one")})).await;
    space
        .node_until("web-0", "it runs", |node| {
            node.status
                .as_ref()
                .and_then(|status| status.running.as_ref())
                .is_some_and(|running| running.phase == "configure")
        })
        .await;
    // In the midst of a phase: what ran is gone, and that is known. It counts as an attempt.
    hosts.tool(&["reboot", host]).await;
    hosts.run(host, "touch /root/stay").await;
    space.ready().await;
    let before = space.nodes().get("web-0").await.unwrap();
    assert_eq!(phase_result(&before, "configure").unwrap().attempt, 2);
    assert_eq!(hosts.run(host, "cat /root/bootstrap").await, "bootstrapped\n", "it is the same machine");
    hosts.tool(&["reimage", host, "--keep-key"]).await;
    hosts.run(host, "touch /root/stay").await;
    space.apply(json!({"count": 1, "node": hosts.node(), "phases": phases("two")})).await;
    space.ready().await;
    let after = space.nodes().get("web-0").await.unwrap();
    let filesystem_id = |node: &pallet_api::GroupNode| node.status.clone().unwrap().incarnation.unwrap().filesystem_id;
    assert_ne!(filesystem_id(&before), filesystem_id(&after));
    assert_eq!(hosts.run(host, "cat /root/bootstrap /root/configured").await, "bootstrapped\ntwo\n");
}

/// A host that says nothing, and one whose disk is full: both are told, neither holds the others up, and both come back.
#[tokio::test]
async fn a_host_that_hangs_or_is_full_holds_nobody_up() {
    let Some(space) = Space::new("hosts-ill").await else { return };
    let hosts = Hosts::with(&space, 3, &["--small"]).await;
    let (hung, full, well) = (&hosts.all[0].name, &hosts.all[1].name, &hosts.all[2].name);
    hosts.tool(&["hang", hung]).await;
    hosts.tool(&["fill", full]).await;
    let mut node = hosts.node();
    node["hosts"]["connectTimeout"] = json!("3s");
    space.apply(json!({"count": 3, "node": node, "phases": {"configure": script("echo done > /root/done")}})).await;
    space.node_until("web-2", "it is well", |node| reason(node) == "Converged").await;
    assert_eq!(hosts.run(well, "cat /root/done").await, "done\n");
    let node = space.node_until("web-0", "it does not answer", |node| reason(node) == "Unreachable").await;
    let message = node.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("no shell within 3 s"), "{message}");
    space
        .node_until("web-1", "its disk is full", |node| {
            ["DiskFull", "NoStateDirectory"].contains(&reason(node).as_str())
        })
        .await;
    hosts.tool(&["resume", hung]).await;
    hosts.tool(&["free", full]).await;
    space.ready().await;
}

/// Users that are not root become it, with and without a password; who may not is told so.
#[tokio::test]
async fn who_logs_in_becomes_root() {
    let Some(space) = Space::new("hosts-become").await else { return };
    let hosts = Hosts::new(&space, 2).await;
    space.secret("sudo", json!({"password": "open sesame"})).await;
    let mut node = hosts.node();
    node["hosts"]["user"] = json!("admin");
    node["hosts"]["become"] = json!({"password": {"secretKeyRef": {"name": "sudo", "key": "password"}}});
    node["hosts"]["inventory"][1]["user"] = json!("keeper");
    let phases = json!({"configure": script("id -un; test \"$(id -un)\" = root; touch /root/was-here")});
    space.apply(json!({"count": 2, "node": node, "phases": phases})).await;
    space.ready().await;
    for (ordinal, host) in hosts.all.iter().enumerate() {
        hosts.run(&host.name, "test -e /root/was-here").await;
        let node = space.nodes().get(&format!("web-{ordinal}")).await.unwrap();
        assert_eq!(phase_result(&node, "configure").unwrap().output, "root\n");
    }
    node["hosts"]["inventory"][1]["user"] = json!("guest");
    space.apply(json!({"count": 2, "node": node, "phases": {"configure": script("echo again")}})).await;
    let refused = space.node_until("web-1", "it is refused", |node| reason(node) == "BecomeFailed").await;
    let message = refused.status.unwrap().conditions[0].message.clone();
    assert!(message.contains("guest") && !message.contains("open sesame"), "{message}");
    let log = std::fs::read_to_string(space.scratch("operator.log")).unwrap();
    assert!(!log.contains("open sesame") && !log.contains("PRIVATE KEY"));
}

/// A script may run as somebody else than its session: by su where that is root, by sudo with a password where it is not.
#[tokio::test]
async fn a_script_becomes_who_it_says() {
    let Some(space) = Space::new("hosts-as").await else { return };
    let hosts = Hosts::new(&space, 2).await;
    space.secret("sudo", json!({"password": "open sesame"})).await;
    let mut node = hosts.node();
    node["hosts"]["inventory"][1]["user"] = json!("keeper");
    let root = json!({"user": "root", "password": {"secretKeyRef": {"name": "sudo", "key": "password"}}});
    let who = |user: &str| json!({"exec": {"script": "id -un"}, "become": {"user": user}});
    let phases = json!({"configure": {"become": root, "actions": [{"exec": {"script": "id -un"}}, who("keeper")]}});
    space.apply(json!({"count": 2, "node": node, "phases": phases})).await;
    space.ready().await;
    for name in ["web-0", "web-1"] {
        let node = space.nodes().get(name).await.unwrap();
        assert_eq!(phase_result(&node, "configure").unwrap().output, "root\nkeeper\n", "{name}");
    }
}

/// Hosts that only a jump host leads to.
#[tokio::test]
async fn a_jump_host_leads_to_the_others() {
    let Some(space) = Space::new("hosts-jump").await else { return };
    let hosts = Hosts::new(&space, 3).await;
    let (jump, behind) = hosts.all.split_first().unwrap();
    for host in behind {
        hosts.tool(&["hide", &host.name]).await;
    }
    let listed: Vec<Value> = behind.iter().map(crate::sshd::Host::listed).collect();
    let mut node = Hosts::listing(&json!(listed));
    node["hosts"]["jump"] = json!({"address": jump.address, "port": jump.port, "hostKeys": jump.listed()["hostKeys"]});
    space.apply(json!({"count": 2, "node": node, "phases": marked()})).await;
    space.ready().await;
    assert_eq!(hosts.run(&behind[1].name, "cat /root/bootstrap").await, "bootstrapped\n");
}

/// The operator's own surroundings are no hosts of anybody's.
#[tokio::test]
async fn loopback_and_the_api_server_are_no_hosts() {
    let Some(space) = Space::new("hosts-guard").await else { return };
    space.secret("login", json!({"ssh-privatekey": "irrelevant"})).await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4n2Tf3b0FpvJGd1wS8M5RkOJkqPfn5y8fCkqg0o8mX";
    let inventory = json!([
        {"name": "loopback", "address": "127.0.0.1", "hostKeys": [key]},
        {"name": "metadata", "address": "169.254.169.254", "hostKeys": [key]}
    ]);
    space.apply(json!({"count": 2, "node": Hosts::listing(&inventory), "phases": marked()})).await;
    for node in ["web-0", "web-1"] {
        let node = space
            .node_until(node, "it is refused", |node| {
                reason(node) == "AddressNotAllowed" || reason(node) == "InvalidPrivateKey"
            })
            .await;
        let message = node.status.unwrap().conditions[0].message.clone();
        assert!(message.contains("--allow-host-range"), "{message}");
    }
    let parameters = PatchParams::default();
    let patch = Patch::Merge(json!({"spec": {"node": {"hosts": null, "pod": {"template": {}}}}}));
    let refused = space.groups().patch("web", &parameters, &patch).await.unwrap_err().to_string();
    assert!(refused.contains("the kind of node cannot be changed"), "{refused}");
}
