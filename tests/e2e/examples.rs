//! The examples: each is applied as it stands, in a namespace of its own, and becomes what its head says.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use pallet_api::Lift;
use serde_json::{Value, json};

use crate::{
    harness::{Space, condition, phase_result, wait},
    sshd::Hosts,
};

/// A test for each file, and a list of them.
macro_rules! examples {
    ($($test:ident $file:literal)+) => {
        const FILES: &[&str] = &[$($file),+];
        $(#[tokio::test]
        async fn $test() {
            let Some(space) = applied($file).await else { return };
            becomes_what_it_says(&space, $file).await;
        })+
    };
}

examples! {
    one_action_of_each_kind "actions.yaml"
    an_app_rollout_that_is_prepared "app-rollout.yaml"
    a_watched_group "drift.yaml"
    nodes_of_a_role "roles.yaml"
    a_rollout "rollout.yaml"
    secrets "secrets.yaml"
    server_specs "server-spec.yaml"
    a_stateful_group "stateful.yaml"
    a_web_group "web.yaml"
}

/// Those that wait for a person have tests of their own, which do what their heads tell the person to do; and so have those
/// whose result does not stand in a condition, or that need more than a cluster.
const WAITING: &[&str] = &["approval.yaml", "hosts.yaml", "lift.yaml", "manual.yaml", "virtual-machines.yaml"];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
}

fn text(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn every_example_has_its_test() {
    let names = fs::read_dir(folder()).expect("the examples");
    let there: BTreeSet<String> =
        names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    let tested: BTreeSet<String> = FILES.iter().chain(WAITING).map(ToString::to_string).collect();
    assert_eq!(there, tested);
}

/// On real hosts in place of those that it names: their addresses and keys, and nothing else, are others.
#[tokio::test]
async fn hosts_of_an_inventory() {
    let Some(space) = Space::new("example").await else { return };
    let hosts = Hosts::new(&space, 3).await;
    let login = fs::read_to_string(&hosts.all[0].key).expect("the key");
    space.secret("fleet-login", json!({"ssh-privatekey": login})).await;
    let known: String = hosts
        .all
        .iter()
        .flat_map(|host| host.host_keys.iter().map(move |key| format!("{} {key}\n", host.address)))
        .collect();
    space.config_map("fleet-known-hosts", json!({"known_hosts": known})).await;
    let mut text = text("hosts.yaml");
    for (host, written) in hosts.all.iter().zip(["192.0.2.11", "192.0.2.12", "192.0.2.13"]) {
        assert!(text.contains(written), "hosts.yaml names no {written}");
        text = text.replace(written, &host.address);
    }
    let object: Value = serde_saphyr::from_str(&text).expect("YAML");
    space.apply_as("fleet", object["spec"].clone()).await;
    becomes_what_it_says(&space, "hosts.yaml").await;
    let said = hosts.run(&hosts.all[1].name, "cat /etc/fleet/node").await;
    assert_eq!(said, format!("fleet-1 is db-2 at {}, rack a, weight 5\n", hosts.all[1].address));
}

/// What a file says becomes of its groups and Lifts, in lines such as `# Then: web is Ready` or `# Then: lift look is
/// Complete`: the object, a condition that becomes True, and its reason where it matters.
fn outcomes(file: &str) -> Vec<(String, String, Option<String>)> {
    let outcome = |line: &str| {
        let (name, rest) = line.strip_prefix("# Then: ")?.trim().split_once(" is ")?;
        let (kind, reason) = rest.split_once(", ").map_or((rest, None), |(kind, reason)| (kind, Some(reason)));
        Some((name.to_owned(), kind.to_owned(), reason.map(str::to_owned)))
    };
    let found: Vec<_> = text(file).lines().filter_map(outcome).collect();
    assert!(!found.is_empty(), "{file} does not say what becomes of it");
    found
}

/// Applies an example with an operator beside it: with the images that the cluster has, and volumes for its claims.
async fn applied(file: &str) -> Option<Space> {
    let space = Space::new("example").await?;
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text(file)).expect("YAML");
    for object in objects.iter_mut().filter(|object| object["kind"] == "GroupSpec") {
        let containers = object.pointer_mut("/spec/node/pod/template/spec/containers");
        for container in containers.and_then(Value::as_array_mut).into_iter().flatten() {
            let image = match container["image"].as_str() {
                Some("busybox:1.37") => "localhost/busybox:1",
                Some("debian:12") => "localhost/debian:12",
                other => panic!("{file}: the cluster has no image for {other:?}"),
            };
            container["image"] = json!(image);
            container["imagePullPolicy"] = json!("Never");
        }
        let count = object["spec"]["count"].as_u64().unwrap_or(1);
        let claims = object.pointer_mut("/spec/node/pod/volumeClaimTemplates");
        for claim in claims.and_then(Value::as_array_mut).into_iter().flatten() {
            claim["spec"]["storageClassName"] = json!(space.name);
            volumes(&space, count, &claim["spec"]["resources"]["requests"]["storage"]).await;
        }
    }
    let path = space.scratch(file);
    fs::write(&path, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).expect("a file");
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["-n", &space.name, "apply", "--server-side", "-f"]).arg(&path);
    let output = tokio::task::spawn_blocking(move || kubectl.output()).await.expect("a thread").expect("kubectl");
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    Some(space)
}

/// Volumes of a class of the test's own.
async fn volumes(space: &Space, number: u64, size: &Value) {
    let api: Api<PersistentVolume> = Api::all(space.client.clone());
    for n in 0..number {
        let path = space.shared_dir().join(format!("volume-{n}"));
        let volume = serde_json::from_value(json!({
            "metadata": {"name": format!("{}-{n}", space.name)},
            "spec": {
                "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": space.name,
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": path, "type": "DirectoryOrCreate"}
            }
        }));
        api.create(&PostParams::default(), &volume.expect("a volume")).await.expect("the volume is made");
    }
}

async fn becomes_what_it_says(space: &Space, file: &str) {
    for (name, kind, reason) in outcomes(file) {
        if kind == "Ready" {
            space.ready_as(&name).await;
            continue;
        }
        let what = format!("{kind} {reason:?}");
        if let Some(lift) = name.strip_prefix("lift ") {
            lifted(space, lift, &what, &kind, reason.as_deref()).await;
            continue;
        }
        space
            .until_as(&name, &what, |group| {
                let (status, found, _) = condition(group, &kind);
                status == "True" && reason.as_ref().is_none_or(|reason| *reason == found)
            })
            .await;
    }
}

/// Waits until a condition of a Lift is True; one that has come to another end will not come to this one.
async fn lifted(space: &Space, name: &str, what: &str, kind: &str, reason: Option<&str>) {
    let lifts: Api<Lift> = Api::namespaced(space.client.clone(), &space.name);
    wait(&format!("lift {name}: {what}"), || async {
        let status = lifts.get(name).await.expect("the Lift").status.unwrap_or_default();
        let holds = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind && c.status == "True");
        if holds(kind).is_some_and(|found| reason.is_none_or(|reason| reason == found.reason)) {
            return Ok(());
        }
        assert!(status.completion_time.is_none(), "lift {name} is not {what}: {status:#?}");
        Err(format!("{status:#?}"))
    })
    .await;
}

#[tokio::test]
async fn a_lift_runs_what_it_names_and_a_dry_run_changes_nothing() {
    let Some(space) = applied("lift.yaml").await else { return };
    becomes_what_it_says(&space, "lift.yaml").await;
    let lifts: Api<Lift> = Api::namespaced(space.client.clone(), &space.name);
    let look = lifts.get("site-look").await.expect("the Lift").status.expect("a status");
    assert_eq!((look.nodes, look.succeeded, look.actions.map(|actions| actions.changed)), (2, 2, Some(2)));
    for node in ["site-0", "site-1"] {
        let page = format!("<h1>{node}</h1>\n");
        assert_eq!(space.kubectl_exec(node, "cat /srv/backup/index.html").await, page);
        assert_eq!(space.kubectl_exec(node, "ls /srv/site").await, "index.html\n");
    }
}

#[tokio::test]
async fn a_plan_that_waits_is_carried_out_when_its_digest_is_approved() {
    let Some(space) = applied("approval.yaml").await else { return };
    becomes_what_it_says(&space, "approval.yaml").await;
    assert_eq!(space.pod_names().await, Vec::<String>::new());
    let group = space.groups().get("gated").await.expect("the group");
    let plan = group.status.and_then(|status| status.plan).expect("a plan");
    assert_eq!(plan.creates, "0-1");
    let approval = Patch::Merge(json!({"metadata": {"annotations": {"pallet.dev/approve": plan.digest}}}));
    space.groups().patch("gated", &PatchParams::default(), &approval).await.expect("it may be approved");
    space.ready_as("gated").await;
    assert_eq!(space.kubectl_exec("gated-1", "cat /etc/motd").await, "approved for gated-1\n");
}

#[tokio::test]
async fn a_manual_step_goes_on_when_its_run_is_acknowledged() {
    let Some(space) = applied("manual.yaml").await else { return };
    becomes_what_it_says(&space, "manual.yaml").await;
    assert_eq!(space.kubectl_exec("switch-0", "cat /steps").await, "prepared\n");
    let node = space.nodes().get("switch-0").await.expect("the node");
    let run = phase_result(&node, "configure").expect("a phase result").run_id;
    let ack = Patch::Merge(json!({"metadata": {"annotations": {"pallet.dev/ack": run}}}));
    space.nodes().patch("switch-0", &PatchParams::default(), &ack).await.expect("it may be acknowledged");
    space.ready_as("switch").await;
    assert_eq!(space.kubectl_exec("switch-0", "cat /steps").await, "prepared\nwent on\n");
}
