//! The chart.

use serde_json::json;

use crate::{
    commands::{CLUSTER_WIDE, Cluster, assert_gone, get, helm, kubectl, try_helm, try_run, wait},
    group::{apply_example, apply_slow, finish_slow, wait_ready, wait_slow_runs},
    pod::{assert_confined, assert_healthy, pods, wait_rolled_out},
};

const CHART: &str = "charts/pallet-operator";
const RELEASE: &[&str] = &["--namespace", "pallet-system"];
const IMAGE: &[&str] = &["--set", "image.repository=localhost/pallet-operator", "--set", "image.tag=test"];

/// A namespace that enforces the restricted profile, so that every pod of the chart has to fit it, the test's too.
fn restricted(name: &str) {
    kubectl(&["create", "namespace", name]);
    kubectl(&["label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"]);
}

fn install(more: &[&str]) -> String {
    let fixed = ["install", "pallet-operator", CHART, "--wait", "--timeout", "300s"];
    helm(&[&fixed, RELEASE, IMAGE, more].concat())
}

fn uninstall() {
    helm(&[&["uninstall", "pallet-operator", "--wait", "--timeout", "300s"], RELEASE].concat());
    // Helm waits for the Deployment, not for its pods.
    let pods = ["-l", "app.kubernetes.io/name=pallet-operator", "--timeout=300s"];
    kubectl(&[&["-n", "pallet-system", "wait", "--for=delete", "pod"], &pods[..]].concat());
}

#[test]
fn cluster_wide_from_install_to_uninstall() {
    let Some(_cluster) = Cluster::clean() else { return };
    restricted("pallet-system");
    // The policy hinders nothing that the operator does.
    let notes = install(&["--set", "podDisruptionBudget.enabled=true,admissionPolicy.enabled=true"]);
    assert!(notes.contains("helm test pallet-operator --namespace pallet-system"), "{notes}");
    assert_healthy("pallet-system");
    assert_confined();
    let tested = helm(&[&["test", "pallet-operator", "--timeout", "300s"], RELEASE].concat());
    assert!(tested.contains("Phase:          Succeeded"), "{tested}");

    kubectl(&["create", "namespace", "shop"]);
    apply_example("shop");
    wait_ready("shop", "web");
    // By way of the service, as Prometheus would. What is counted is shown every few seconds.
    wait("the metrics show the group", || {
        let path = "/api/v1/namespaces/pallet-system/services/pallet-operator:http/proxy/metrics";
        let metrics = kubectl(&["get", "--raw", path]);
        let shown = ["\npallet_leader 1\n", "\npallet_nodes 3\n"].iter().all(|line| metrics.contains(line));
        if shown { Ok(()) } else { Err(metrics) }
    });

    // Two replicas, another image and another level of logging, while bootstrap runs.
    apply_slow("shop");
    wait_slow_runs("shop");
    let changed =
        ["--set", "image.tag=next", "--set", "replicas=2", "--set", "log.filter=info\\,pallet_operator=debug"];
    let fixed = ["upgrade", "pallet-operator", CHART, "--reuse-values", "--wait", "--timeout", "300s"];
    helm(&[&fixed, RELEASE, &changed].concat());
    wait_rolled_out("pallet-system", "deployment/pallet-operator");
    let images: Vec<_> =
        pods("pallet-system").iter().map(|pod| pod["spec"]["containers"][0]["image"].clone()).collect();
    assert_eq!(images, vec![json!("localhost/pallet-operator:next"); 2]);
    finish_slow("shop");
    assert_healthy("pallet-system");

    // Groups first; the definitions stay, and with them the chart can be installed again.
    kubectl(&["delete", "groupspecs", "--all", "-A", "--timeout=300s"]);
    uninstall();
    let names = kubectl(&["get", CLUSTER_WIDE, "-o", "name"]);
    let left: Vec<_> =
        names.lines().filter(|name| name.contains("pallet") && !name.contains("customresourcedefinition")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    assert_gone(&[
        "all,serviceaccount,role,rolebinding,pdb,networkpolicy",
        "-n",
        "pallet-system",
        "-l",
        "app.kubernetes.io/name=pallet-operator",
    ]);
    assert_eq!(kubectl(&["get", "crd", "-o", "name"]).matches("pallet.dev").count(), pallet_api::crds::all().len());
    install(&[]);
    apply_example("shop");
    wait_ready("shop", "web");
    kubectl(&["delete", "groupspecs", "--all", "-A", "--timeout=300s"]);
    uninstall();
    kubectl(&["delete", "-f", "crds", "--timeout=300s"]);
    kubectl(&["delete", "namespace", "pallet-system", "shop", "--timeout=300s"]);
}

#[test]
fn the_definitions_are_upgraded_with_the_chart() {
    let Some(_cluster) = Cluster::clean() else { return };
    restricted("pallet-system");
    install(&["--set", "replicas=0"]);
    // As an older version would have left it: a column less.
    let older = r#"[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]"#;
    kubectl(&["patch", "crd", "groupspecs.pallet.dev", "--type=json", "-p", older]);
    helm(&[&["upgrade", "pallet-operator", CHART, "--reuse-values", "--wait"], RELEASE].concat());
    let columns = get(&["crd", "groupspecs.pallet.dev"])["spec"]["versions"][0]["additionalPrinterColumns"].clone();
    assert!(columns.as_array().is_some_and(|columns| columns.len() > 3), "{columns}");
    // Another release would take them over, which Helm refuses, and says why; without them it installs.
    let other = ["install", "second", CHART, "--namespace", "default", "--set", "replicas=0"];
    let refused = try_helm(&other).expect_err("it is not its own");
    assert!(refused.contains("cannot be imported into the current release"), "{refused}");
    helm(&[&other[..], &["--set", "crds.install=false,rbac.userRoles=false"]].concat());
    helm(&["uninstall", "second", "--namespace", "default"]);
    uninstall();
    kubectl(&["delete", "-f", "crds", "--timeout=300s"]);
    kubectl(&["delete", "namespace", "pallet-system", "--timeout=300s"]);
}

#[test]
fn some_namespaces_by_roles_only() {
    let Some(_cluster) = Cluster::clean() else { return };
    restricted("pallet-system");
    for namespace in ["team-a", "team-b", "elsewhere"] {
        kubectl(&["create", "namespace", namespace]);
    }
    install(&["--set", "watchNamespaces={team-a,team-b}", "--set", "rbac.userRoles=false"]);
    let roles = kubectl(&["get", "clusterrole,clusterrolebinding", "-o", "name"]);
    assert!(!roles.contains("pallet"), "{roles}");
    apply_example("elsewhere");
    for namespace in ["team-a", "team-b"] {
        apply_example(namespace);
        wait_ready(namespace, "web");
    }
    assert_eq!(get(&["groupspec", "web", "-n", "elsewhere"])["status"]["observedGeneration"], -1);
    let account = "--as=system:serviceaccount:pallet-system:pallet-operator";
    for (namespace, allowed) in [("team-a", true), ("team-b", true), ("elsewhere", false), ("pallet-system", false)] {
        for what in [["create", "pods"], ["get", "groupspecs"], ["create", "pods/exec"]] {
            let answer = try_run("kubectl", &[&["auth", "can-i", "-n", namespace, account], &what[..]].concat());
            assert_eq!(answer.is_ok(), allowed, "{what:?} in {namespace}");
        }
    }
    kubectl(&["delete", "groupspecs", "--all", "-A", "--timeout=300s"]);
    uninstall();
    assert_gone(&["pods", "-n", "team-a"]);
    assert_gone(&["pods", "-n", "team-b"]);
    kubectl(&["delete", "-f", "crds", "--timeout=300s"]);
    kubectl(&["delete", "namespace", "pallet-system", "team-a", "team-b", "elsewhere", "--timeout=300s"]);
}
