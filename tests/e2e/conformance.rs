//! What every kind of action promises, on real nodes, Debian's and busybox's: the first run changes, a look agrees, whatever
//! somebody breaks a look tells by its name and nothing else, the next run mends it, and the one after changes nothing.

use std::collections::BTreeSet;

use pallet_api::{GroupNode, group_node::Effect};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    grounds::Ground,
    harness::{Space, phase_result},
    packages::SOURCE,
};

/// An action by its name, and what undoes it on a node.
struct Case {
    name: &'static str,
    action: Value,
    breaks: &'static str,
}

fn case(name: &'static str, action: Value, breaks: &'static str) -> Case {
    Case { name, action, breaks }
}

/// The kinds that every node has the tools for.
fn everywhere() -> Vec<Case> {
    let sum: String = Sha256::digest(b"remote\n").iter().map(|byte| format!("{byte:02x}")).collect();
    let key = json!({"name": "own", "key": "secret"});
    vec![
        case("directory", json!({"directory": {"path": "/c", "mode": "0755"}}), "chmod 700 /c"),
        case("sudoers.d", json!({"directory": {"path": "/etc/sudoers.d", "mode": "0750"}}), "chmod 755 /etc/sudoers.d"),
        case("file", json!({"file": {"path": "/c/file", "content": "declared\n"}}), "echo other >/c/file"),
        case("symlink", json!({"symlink": {"path": "/c/link", "target": "file"}}), "ln -sfn /elsewhere /c/link"),
        case(
            "line",
            json!({"lineInFile": {"path": "/c/lines", "line": "declared", "create": true}}),
            "echo other >/c/lines",
        ),
        case(
            "remote",
            json!({"remoteFile": {"path": "/c/remote", "url": "file:///srv/remote", "sha256": sum}}),
            "echo other >/c/remote",
        ),
        case("group", json!({"group": {"name": "team", "gid": 4242}}), "groupdel team 2>/dev/null || delgroup team"),
        case(
            "user",
            json!({"user": {"name": "keeper", "comment": "Keeper", "authorizedKeys": ["ssh-ed25519 AAAAC3Nz keeper"]}}),
            "echo other >~keeper/.ssh/authorized_keys",
        ),
        case("sudoer", json!({"sudoer": {"name": "keeper", "noPassword": true}}), "rm /etc/sudoers.d/*keeper*"),
        case(
            "cron",
            json!({"cron": {"name": "nightly", "schedule": "@daily", "command": "echo nightly"}}),
            "rm -f $(grep -rl nightly /etc/cron.d /etc/crontabs /var/spool/cron 2>/dev/null)",
        ),
        case("secret", json!({"secretFile": {"path": "/c/secret", "secretKeyRef": key}}), "echo other >/c/secret"),
        case("exec", json!({"exec": {"script": "touch /c/made", "creates": "/c/made"}}), "rm /c/made"),
    ]
}

fn on_debian() -> Vec<Case> {
    let apt = json!({"uri": "file:/repo", "suite": "./", "trusted": true});
    vec![
        case("source", json!({"packageSource": {"name": "own", "apt": apt}}), "rm /etc/apt/sources.list.d/own.sources"),
        case("package", json!({"package": {"names": ["pallet-hello"]}}), "true"),
        case(
            "service",
            json!({"service": {"name": "pallet-hello", "state": "started", "enabled": true}}),
            "service pallet-hello stop",
        ),
    ]
}

async fn keeps_its_promises(what: &str, space: &Space, ground: &Ground, bootstrap: &str, cases: Vec<Case>) {
    space.secret("own", json!({"secret": "canary"})).await;
    let actions: Vec<Value> = cases
        .iter()
        .map(|case| {
            let mut action = case.action.clone();
            action["name"] = case.name.into();
            action
        })
        .collect();
    let spec = |policy: &str, reapply: &str| {
        json!({"node": ground.node(), "phases": {
            "bootstrap": {"actions": [{"exec": {"script": format!("mkdir -p /srv; echo remote >/srv/remote\n{bootstrap}")}}]},
            "configure": {"actions": actions}
        }, "converge": {"reapply": reapply, "driftCheck": {"interval": "10s", "policy": policy}, "retry": {"limit": 0}}})
    };
    let names: BTreeSet<String> = cases.iter().map(|case| case.name.to_owned()).collect();
    let effects = async || {
        let node = space.nodes().get("web-0").await.unwrap();
        phase_result(&node, "configure")
            .unwrap()
            .actions
            .into_iter()
            .map(|action| (action.name, action.result))
            .collect::<Vec<_>>()
    };
    let of = |node: &GroupNode| {
        let drift = node.status.as_ref().and_then(|status| status.drift.clone());
        drift.map(|drift| drift.differences.into_iter().map(|d| d.name).collect::<BTreeSet<_>>())
    };
    space.apply(spec("Report", "")).await;
    space.ready().await;
    let first = effects().await;
    assert!(first.iter().all(|(_, result)| *result == Effect::Changed), "{what}: the first run changes: {first:?}");
    space.node_until("web-0", "a look that agrees", |node| of(node).is_some_and(|found| found.is_empty())).await;
    // What was broken is told by its name, and nothing else.
    let breaks: Vec<&str> = cases.iter().map(|case| case.breaks).collect();
    ground.run(space, "web-0", &format!("set -e\n{}", breaks.join("\n"))).await;
    let broken: BTreeSet<String> =
        cases.iter().filter(|case| case.breaks != "true").map(|case| case.name.to_owned()).collect();
    let told = |node: &GroupNode| of(node).is_some_and(|found| found == broken);
    space.node_until("web-0", &format!("a look that tells {broken:?}"), told).await;
    assert_eq!(ground.run(space, "web-0", "cat /c/file").await, "other\n", "it was only looked at");
    // It is put right, and what was not broken is left alone.
    space.apply(spec("Reapply", "")).await;
    space.node_until("web-0", "everything is mended", |node| of(node).is_some_and(|found| found.is_empty())).await;
    space.ready().await;
    let mended = effects().await;
    let changed: BTreeSet<String> =
        mended.iter().filter(|(_, result)| *result == Effect::Changed).map(|(name, _)| name.clone()).collect();
    assert_eq!(changed, broken, "{what}: {mended:?}");
    // Once more, without a reason: nothing changes.
    space.apply(spec("Report", "again")).await;
    space.ready().await;
    let last = effects().await;
    assert!(last.iter().all(|(_, result)| *result == Effect::Unchanged), "{what}: the last run changes: {last:?}");
    assert_eq!(last.len(), names.len());
}

#[tokio::test]
async fn on_a_debian_pod() {
    let Some(space) = Space::new("conform-debian").await else { return };
    let bootstrap = SOURCE.replace(
        "echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list",
        "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*",
    );
    let cases = everywhere().into_iter().chain(on_debian()).collect();
    keeps_its_promises("debian", &space, &Ground::Pods("localhost/debian:12"), &bootstrap, cases).await;
}

#[tokio::test]
async fn on_a_busybox_pod() {
    let Some(space) = Space::new("conform-busybox").await else { return };
    // Debian's busybox has no adduser.
    let cases = everywhere().into_iter().filter(|case| !["user", "group"].contains(&case.name)).collect();
    let ground = Ground::Pods("localhost/busybox:1");
    keeps_its_promises("busybox", &space, &ground, "mkdir -p /var/spool/cron/crontabs", cases).await;
}

#[tokio::test]
async fn on_a_host() {
    let Some(space) = Space::new("conform-host").await else { return };
    let ground = Ground::hosts(&space, 1).await;
    keeps_its_promises("host", &space, &ground, "mkdir -p /etc/sudoers.d /etc/cron.d", everywhere()).await;
}

/// By `make test-vms`.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn on_a_virtual_machine() {
    let Some(space) = Space::new("conform-vm").await else { return };
    let ground = Ground::VirtualMachines;
    keeps_its_promises("virtual machine", &space, &ground, "mkdir -p /etc/sudoers.d /etc/cron.d", everywhere()).await;
}
