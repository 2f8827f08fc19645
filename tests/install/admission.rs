//! The policy that keeps the operator's account to its own objects: what it lets through, and what it refuses in which words.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::commands::{Cluster, get, kubectl, root, try_run, wait};

const ACCOUNT: &str = "system:serviceaccount:pallet-system:pallet-operator";
const OPERATOR: &str = "--as=system:serviceaccount:pallet-system:pallet-operator";

/// Creates an object as the operator would, with the rights that it has where virtual machines are switched on.
fn create(namespace: &str, object: &Value) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .args(["create", "-n", namespace, OPERATOR, "-f", "-"])
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl");
    child.stdin.take().expect("stdin").write_all(object.to_string().as_bytes()).expect("kubectl reads it");
    let output = child.wait_with_output().expect("kubectl ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[track_caller]
fn assert_refused(answer: Result<String, String>, words: &str) {
    let policy = "ValidatingAdmissionPolicy 'pallet-operator.pallet-system'";
    assert!(answer.as_ref().is_err_and(|error| error.contains(policy) && error.contains(words)), "{words}: {answer:?}");
}

fn owner(kind: &str, name: &str, uid: &Value) -> Value {
    json!([{"apiVersion": "pallet.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": kind == "GroupSpec"}])
}

fn secret(name: &str, kind: &str, owners: &Value) -> Value {
    let value = "eA==";
    let data = if kind == "kubernetes.io/ssh-auth" { json!({"ssh-privatekey": value}) } else { json!({"x": value}) };
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind, "data": data,
        "metadata": {"name": name, "ownerReferences": owners, "annotations": {"kubernetes.io/service-account.name": "default"}}
    })
}

fn pod(name: &str, owners: &Value, group: &str, account: &str) -> Value {
    let labels = if group.is_empty() { json!({}) } else { json!({"pallet.dev/group": group}) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "ownerReferences": owners, "labels": labels},
        "spec": {
            "serviceAccountName": account, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "localhost/busybox:1"}]
        }
    })
}

const NOT_ITS_POD: &str =
    "the operator may touch only pods, virtual machines and ControllerRevisions that a GroupSpec controls";
const NOT_ITS_SECRET: &str = "the operator may create only its own Secrets";
const NOT_ITS_NAMESPACE: &str = "in the namespaces of Kubernetes itself";

#[tokio::test]
async fn the_operator_touches_its_own_objects_only() {
    let Some(_cluster) = Cluster::clean() else { return };
    kubectl(&["apply", "--server-side", "-k", "crds"]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crds"]);
    for what in ["deploy/rbac/cluster", "deploy/rbac/virtual-machines/cluster", "deploy/admission"] {
        kubectl(&["apply", "--server-side", "-k", what]);
    }
    for namespace in ["pallet-system", "team-a"] {
        kubectl(&["create", "namespace", namespace]);
    }
    kubectl(&["apply", "-f", "deploy/operator/lease.yaml"]);
    kubectl(&["create", "serviceaccount", "app", "-n", "team-a"]);
    wait("the namespace has its account", || try_run("kubectl", &["get", "serviceaccount", "default", "-n", "team-a"]));
    let group = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web", "namespace": "team-a"},
        "spec": {"count": 0, "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/busybox:1"}]}}}}}
    });
    let path = crate::commands::scratch("admission").join("group.yaml");
    std::fs::write(&path, group.to_string()).expect("a file");
    kubectl(&["create", "-f", path.to_str().expect("a path in UTF-8")]);
    let uid = get(&["groupspec", "web", "-n", "team-a"])["metadata"]["uid"].clone();
    let of_group = owner("GroupSpec", "web", &uid);
    // A policy holds a moment after it was made.
    let stranger = pod("stranger", &json!([]), "", "default");
    wait("the policy holds", || match create("team-a", &stranger) {
        Err(error) if error.contains(NOT_ITS_POD) => Ok(()),
        other => {
            let _ = try_run("kubectl", &["delete", "pod", "stranger", "-n", "team-a", "--now"]);
            Err(format!("{other:?}"))
        }
    });

    secrets(&of_group);
    pods(&of_group);
    what_is_there().await;
    service_accounts(&of_group);

    for what in ["deploy/admission", "deploy/rbac/virtual-machines/cluster", "deploy/rbac/cluster"] {
        kubectl(&["delete", "-k", what]);
    }
    kubectl(&["delete", "groupspec", "web", "-n", "team-a"]);
    kubectl(&["delete", "namespace", "team-a", "pallet-system", "--timeout=300s"]);
    kubectl(&["delete", "-k", "crds", "--timeout=300s"]);
}

fn secrets(of_group: &Value) {
    // The way to every account of the namespace, whatever it is called and whoever seems to own it.
    for (name, owners) in [("token", &json!([])), ("web-ssh", of_group), ("pallet-operator-seal", &json!([]))] {
        for namespace in ["team-a", "pallet-system"] {
            assert_refused(
                create(namespace, &secret(name, "kubernetes.io/service-account-token", owners)),
                NOT_ITS_SECRET,
            );
        }
    }
    assert_refused(create("team-a", &secret("other-ssh", "kubernetes.io/ssh-auth", of_group)), NOT_ITS_SECRET);
    assert_refused(create("team-a", &secret("web-ssh", "Opaque", of_group)), NOT_ITS_SECRET);
    assert_refused(create("team-a", &secret("pallet-operator-seal", "Opaque", &json!([]))), NOT_ITS_SECRET);
    assert_refused(create("kube-system", &secret("web-ssh", "kubernetes.io/ssh-auth", of_group)), NOT_ITS_NAMESPACE);
    create("team-a", &secret("web-ssh", "kubernetes.io/ssh-auth", of_group)).expect("the key pair of a group");
    create("pallet-system", &secret("pallet-operator-seal", "Opaque", &json!([]))).expect("the key of the seals");
    let node = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-0"},
        "spec": {"group": "web", "groupUid": of_group[0]["uid"], "ordinal": 0}
    });
    create("team-a", &node).expect("a GroupNode");
    let uid = get(&["groupnode", "web-0", "-n", "team-a"])["metadata"]["uid"].clone();
    let of_node = owner("GroupNode", "web-0", &uid);
    create("team-a", &secret("web-0-cloud-init-0123456789", "Opaque", &of_node)).expect("what a machine is told");
    assert_refused(create("team-a", &secret("web-1-cloud-init-0123456789", "Opaque", &of_node)), NOT_ITS_SECRET);
}

fn pods(of_group: &Value) {
    let nobody = json!([]);
    for (owners, label) in [(&nobody, ""), (&nobody, "web"), (of_group, ""), (of_group, "other")] {
        assert_refused(create("team-a", &pod("stranger", owners, label, "default")), NOT_ITS_POD);
    }
    let mut not_controlled = of_group.clone();
    not_controlled[0]["controller"] = false.into();
    assert_refused(create("team-a", &pod("stranger", &not_controlled, "web", "default")), NOT_ITS_POD);
    assert_refused(create("kube-system", &pod("web-0", of_group, "web", "default")), NOT_ITS_NAMESPACE);
    create("team-a", &pod("web-0", of_group, "web", "default")).expect("a pod of the group");
    let revision = |owners: &Value| {
        json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {},
            "metadata": {"name": "web-abcde", "ownerReferences": owners, "labels": {"pallet.dev/group": "web"}}
        })
    };
    assert_refused(create("team-a", &revision(&nobody)), NOT_ITS_POD);
    create("team-a", &revision(of_group)).expect("a revision of the group");
}

/// What others have made: not deleted, not reported otherwise; and nothing is executed in Kubernetes' own namespaces.
async fn what_is_there() {
    kubectl(&["run", "alien", "-n", "team-a", "--image=localhost/busybox:1", "--labels=pallet.dev/group=web"]);
    let operator = |arguments: &[&str]| try_run("kubectl", &[arguments, &["-n", "team-a", OPERATOR]].concat());
    assert_refused(operator(&["delete", "pod", "alien", "--wait=false"]), NOT_ITS_POD);
    assert_refused(report("alien").await, NOT_ITS_POD);
    report("web-0").await.expect("the readiness gate of its own");
    kubectl(&["label", "pod", "web-0", "-n", "team-a", "pallet.dev/group=debug", "--overwrite"]);
    operator(&["delete", "pod", "web-0", "--wait=false"]).expect("its own pod, whatever an edit made of its label");
    let exec = |namespace: &str| {
        let path = format!("/api/v1/namespaces/{namespace}/pods/alien/exec?command=true&stdout=true");
        try_run("kubectl", &["get", "--raw", &path, OPERATOR])
    };
    assert_refused(exec("kube-system"), NOT_ITS_NAMESPACE);
    let elsewhere = exec("team-a").expect_err("no connection is upgraded");
    assert!(!elsewhere.contains("ValidatingAdmissionPolicy"), "{elsewhere}");
    let claim = |labels: Value| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data-web-0", "labels": labels},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
        })
    };
    assert_refused(create("team-a", &claim(json!({}))), "only claims that have the label pallet.dev/group");
    create("team-a", &claim(json!({"pallet.dev/group": "web"}))).expect("a claim of the group");
    // What a user made is taken into use by its labels, and nothing else is done to it; none changes hands.
    kubectl(&["create", "-n", "team-a", "-f", &file(&named("theirs", claim(json!({}))))]);
    let label = |name: &str, label: &str| operator(&["label", "--overwrite", "pvc", name, label]);
    assert_refused(label("theirs", "x=y"), "only claims of groups");
    label("theirs", "pallet.dev/group=web").expect("a claim that is taken into use");
    assert_refused(label("data-web-0", "pallet.dev/group=other"), "may give none to another group");
    label("data-web-0", "x=y").expect("its own claim");
    // Nobody else is held to any of it.
    kubectl(&["delete", "pod", "alien", "-n", "team-a", "--now"]);
    kubectl(&["create", "secret", "generic", "mine", "-n", "team-a"]);
}

fn named(name: &str, mut object: Value) -> Value {
    object["metadata"]["name"] = name.into();
    object
}

fn file(object: &Value) -> String {
    let path = crate::commands::scratch("admission").join("object.yaml");
    std::fs::write(&path, object.to_string()).expect("a file");
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Writes the status of a pod as the operator does. Not by kubectl, which would get it first.
async fn report(pod: &str) -> Result<String, String> {
    let mut config = Config::infer().await.expect("KUBECONFIG");
    config.auth_info.impersonate = Some(ACCOUNT.to_owned());
    let pods: Api<Pod> = Api::namespaced(Client::try_from(config).expect("a client"), "team-a");
    let patch = Patch::Merge(json!({"status": {"message": "x"}}));
    let patched = pods.patch_status(pod, &PatchParams::default(), &patch).await;
    patched.map(|_| String::new()).map_err(|error| error.to_string())
}

/// An administrator says which accounts groups of a namespace may use.
fn service_accounts(of_group: &Value) {
    kubectl(&["annotate", "namespace", "team-a", "pallet.dev/service-accounts=default, app"]);
    create("team-a", &pod("web-1", of_group, "web", "app")).expect("an account that is listed");
    kubectl(&["annotate", "namespace", "team-a", "pallet.dev/service-accounts=default", "--overwrite"]);
    let refused = "groups of this namespace may not use the ServiceAccount app";
    wait("the annotation is seen", || match create("team-a", &pod("web-2", of_group, "web", "app")) {
        Err(error) if error.contains(refused) => Ok(()),
        other => {
            let _ = try_run("kubectl", &["delete", "pod", "web-2", "-n", "team-a", "--now"]);
            Err(format!("{other:?}"))
        }
    });
    create("team-a", &pod("web-3", of_group, "web", "default")).expect("an account that is listed");
}

/// Who has pallet-lift and nothing else runs what groups declare, where the policy for that is installed.
#[test]
fn who_may_lift_brings_scripts_only_with_a_right_of_its_own() {
    let Some(_cluster) = Cluster::clean() else { return };
    kubectl(&["apply", "--server-side", "-k", "crds"]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crds"]);
    kubectl(&["apply", "-k", "deploy/rbac/users"]);
    kubectl(&["apply", "--server-side", "-k", "deploy/admission/lifts"]);
    kubectl(&["create", "namespace", "team-a"]);
    let bind = |binding: &str, role: &str, user: &str| {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
        kubectl(&["create", "rolebinding", binding, &role, &user, "-n", "team-a"]);
    };
    bind("lena", "pallet-lift", "lena");
    bind("sara", "pallet-lift", "sara");
    bind("sara-scripts", "pallet-lift-scripts", "sara");
    let lift = |name: &str, more: Value| {
        let mut spec = json!({"groups": ["web"]});
        if let Some((spec, more)) = spec.as_object_mut().zip(more.as_object()) {
            spec.extend(more.clone());
        }
        json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": name}, "spec": spec})
    };
    let script = json!({"phase": {"actions": [{"exec": {"script": "id"}}]}});
    let create = |user: &str, object: &Value| {
        let path = crate::commands::scratch("admission").join("lift.yaml");
        std::fs::write(&path, object.to_string()).expect("a file");
        let user = format!("--as={user}");
        try_run("kubectl", &["create", "-n", "team-a", &user, "-f", path.to_str().expect("a path in UTF-8")])
    };
    let words = "lena may not bring a phase of its own (spec.phase): that takes the right to create lifts/phase";
    wait("the policy holds", || match create("lena", &lift("early", script.clone())) {
        Err(error) if error.contains(words) => Ok(()),
        other => {
            let _ = try_run("kubectl", &["delete", "lift", "early", "-n", "team-a"]);
            Err(format!("{other:?}"))
        }
    });
    let refused = create("lena", &lift("params", json!({"with": {"web": {"x": 1}}}))).expect_err("she may not");
    assert!(refused.contains("lena may not change parameters (spec.with)"), "{refused}");
    create("lena", &lift("declared", json!({"phases": ["configure"]}))).expect("what the group declares");
    create("sara", &lift("script", script)).expect("she has the right");
    create("sara", &lift("params", json!({"with": {"web": {"x": 1}}}))).expect("she has the right");
    kubectl(&["delete", "lifts", "--all", "-n", "team-a"]);
    for what in ["deploy/admission/lifts", "deploy/rbac/users", "crds"] {
        kubectl(&["delete", "-k", what, "--timeout=300s"]);
    }
    kubectl(&["delete", "namespace", "team-a", "--timeout=300s"]);
}
