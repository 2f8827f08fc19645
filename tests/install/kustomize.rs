//! `kubectl apply -k`.

use std::{fs, path::Path};

use crate::{
    commands::{CLUSTER_WIDE, Cluster, assert_gone, get, kubectl, root, scratch, try_run},
    group::{apply_example, apply_slow, finish_slow, wait_ready, wait_slow_runs},
    pod::{assert_confined, assert_healthy, leader, pods, wait_rolled_out},
};

/// A kustomization of a user: ours, with the image that the test cluster has.
fn overlay(name: &str, base: &str, tag: &str) -> String {
    let directory = scratch(name);
    let up: String = directory.strip_prefix(root()).expect("below the repository").iter().map(|_| "../").collect();
    let text = format!(
        "resources:\n- {up}{base}\nimages:\n- name: ghcr.io/pallet-operator/pallet-operator\n  \
         newName: localhost/pallet-operator\n  newTag: {tag}\n"
    );
    fs::write(directory.join("kustomization.yaml"), text).expect("a kustomization");
    directory.to_str().expect("a path in UTF-8").to_owned()
}

fn namespace(name: &str) {
    kubectl(&["create", "namespace", name]);
}

#[test]
fn cluster_wide_from_install_to_uninstall() {
    let Some(_cluster) = Cluster::clean() else { return };
    let installed = overlay("cluster-wide", "deploy", "test");
    kubectl(&["apply", "--server-side", "-k", &installed]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crds"]);
    wait_rolled_out("pallet-system", "deployment/pallet-operator");
    assert_healthy("pallet-system");
    let memory = assert_confined();
    println!("the operator at rest: {memory} KiB resident");

    namespace("shop");
    apply_example("shop");
    wait_ready("shop", "web");
    let page = kubectl(&["-n", "shop", "exec", "web-1", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]);
    assert!(page.contains("web-1"), "{page}");

    // An upgrade while bootstrap runs: the new operator takes over what the old one has begun.
    apply_slow("shop");
    wait_slow_runs("shop");
    let before = pods("pallet-system").remove(0)["metadata"]["name"].clone();
    assert!(before.as_str().is_some_and(|name| leader("pallet-system", "pallet-operator").contains(name)));
    kubectl(&["apply", "--server-side", "-k", &overlay("cluster-wide", "deploy", "next")]);
    wait_rolled_out("pallet-system", "deployment/pallet-operator");
    let after = pods("pallet-system").remove(0);
    assert_ne!(after["metadata"]["name"], before);
    assert_eq!(after["spec"]["containers"][0]["image"], "localhost/pallet-operator:next");
    finish_slow("shop");
    assert!(
        after["metadata"]["name"]
            .as_str()
            .is_some_and(|name| leader("pallet-system", "pallet-operator").contains(name))
    );
    assert_healthy("pallet-system");

    // As docs/how-to/operate.md says: groups first, then all that was applied.
    kubectl(&["delete", "groupspecs", "--all", "-A", "--timeout=300s"]);
    assert_gone(&["groupnodes", "-A"]);
    assert_gone(&["pods", "-n", "shop"]);
    kubectl(&["delete", "-k", &installed, "--timeout=300s"]);
    assert_nothing_left();
    kubectl(&["delete", "namespace", "shop", "--timeout=300s"]);
}

/// Nothing of ours, and nothing that hangs.
fn assert_nothing_left() {
    for kinds in [CLUSTER_WIDE, "namespace"] {
        let names = kubectl(&["get", kinds, "-o", "name"]);
        let ours: Vec<_> = names.lines().filter(|name| name.contains("pallet")).collect();
        assert!(ours.is_empty(), "left behind: {ours:?}");
    }
}

#[test]
fn one_namespace_by_roles_only() {
    let Some(_cluster) = Cluster::clean() else { return };
    kubectl(&["apply", "--server-side", "-k", "crds"]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crds"]);
    let installed = overlay("namespaced", "deploy/overlays/namespaced", "test");
    kubectl(&["apply", "-k", &installed]);
    wait_rolled_out("pallet-system", "deployment/pallet-operator");
    let roles = kubectl(&["get", "clusterrole,clusterrolebinding", "-o", "name"]);
    assert!(!roles.contains("pallet"), "{roles}");

    namespace("elsewhere");
    apply_example("elsewhere");
    apply_example("default");
    wait_ready("default", "web");
    let other = get(&["groupspec", "web", "-n", "elsewhere"]);
    assert_eq!(other["status"]["observedGeneration"], -1, "nobody looks after it: {other:#}");
    // The rights for one more namespace, as the overlay's comment says.
    kubectl(&["apply", "-n", "elsewhere", "-k", "deploy/rbac/namespace"]);
    let account = "--as=system:serviceaccount:pallet-system:pallet-operator";
    assert_eq!(kubectl(&["auth", "can-i", "create", "pods", "-n", "elsewhere", account]), "yes\n");
    assert!(try_run("kubectl", &["auth", "can-i", "create", "pods", "-n", "kube-system", account]).is_err());

    // A group that nobody has taken on has no finalizer and goes by itself.
    kubectl(&["delete", "groupspecs", "--all", "-A", "--timeout=300s"]);
    kubectl(&["delete", "-k", &installed, "--timeout=300s"]);
    kubectl(&["delete", "-k", "crds", "--timeout=300s"]);
    assert_nothing_left();
    kubectl(&["delete", "namespace", "elsewhere", "--timeout=300s"]);
}

/// The way out that docs/how-to/operate.md gives where the operator went first.
#[test]
fn groups_of_a_dead_operator_can_be_let_go() {
    let Some(_cluster) = Cluster::clean() else { return };
    let installed = overlay("cluster-wide", "deploy", "test");
    kubectl(&["apply", "--server-side", "-k", &installed]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crds"]);
    wait_rolled_out("pallet-system", "deployment/pallet-operator");
    namespace("shop");
    apply_example("shop");
    wait_ready("shop", "web");
    kubectl(&["delete", "namespace", "pallet-system", "--timeout=300s"]);
    let hangs = try_run("kubectl", &["delete", "groupspec", "web", "-n", "shop", "--timeout=3s"]);
    assert!(hangs.is_err_and(|error| error.contains("timed out")), "the finalizer holds it");

    let script = extract(&root().join("docs/how-to/operate.md"), "let-go");
    let done = try_run("bash", &["-euc", &script]);
    println!("{}", done.unwrap_or_else(|error| panic!("{error}")));
    kubectl(&["-n", "shop", "wait", "--for=delete", "groupspec/web", "--timeout=300s"]);
    assert_gone(&["groupnodes", "-n", "shop"]);
    // Their owners are gone, so the garbage collector takes them.
    kubectl(&["-n", "shop", "wait", "--for=delete", "pod", "--all", "--timeout=300s"]);
    kubectl(&["delete", "-k", "crds", "--timeout=300s"]);
    kubectl(&["delete", "namespace", "shop", "--timeout=300s"]);
}

/// A piece of a document that is marked as a test's: what people copy is what is run.
fn extract(document: &Path, mark: &str) -> String {
    let text = fs::read_to_string(document).expect("the document");
    let rest = text.split_once(&format!("<!-- tested: {mark} -->\n```\n")).expect("the mark").1;
    rest.split_once("```").expect("the end of the piece").0.to_owned()
}
