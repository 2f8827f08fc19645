//! Who can do what: people with Kubernetes' own roles, and the operator's account. Asked of the API server, and tried.

use std::fs;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
};
use pallet_api::GroupNode;
use serde_json::{Value, json};

use crate::{
    commands::{Cluster, get, kubectl, scratch, try_run, wait},
    support::rights,
};

const OPERATOR: &str = "system:serviceaccount:pallet-system:pallet-operator";
const NAMESPACED: &str = "system:serviceaccount:pallet-system:namespaced";

/// An application of the rights to a question such as `patch groupnodes/status`.
struct Asked<'a> {
    client: &'a Client,
    user: &'a str,
}

impl Asked<'_> {
    /// Whether the user can do it, in a namespace or in all of them (empty).
    async fn can(&self, what: &str, namespace: &str) -> bool {
        let (verb, resource) = what.split_once(' ').expect("verb and resource");
        let (resource, name) =
            resource.split_once(' ').map_or((resource, None), |(r, name)| (r, Some(name.to_owned())));
        let (resource, subresource) =
            resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s.to_owned())));
        let (resource, group) = resource.split_once('.').unwrap_or(match resource {
            "groupspecs" | "groupnodes" | "serverspecs" | "lifts" => (resource, "pallet.dev"),
            _ => (resource, ""),
        });
        let attributes = ResourceAttributes {
            namespace: Some(namespace.to_owned()),
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            name,
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(self.user.to_owned()),
            groups: Some(vec!["system:authenticated".to_owned()]),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.expect("an answer");
        answer.status.expect("an answer").allowed
    }

    async fn assert(&self, namespace: &str, can: &[&str], cannot: &[&str]) {
        for what in can {
            assert!(self.can(what, namespace).await, "{} cannot {what} in '{namespace}'", self.user);
        }
        for what in cannot {
            assert!(!self.can(what, namespace).await, "{} can {what} in '{namespace}'", self.user);
        }
    }
}

const READ: &[&str] = &[
    "get groupspecs",
    "list groupspecs",
    "watch groupspecs",
    "get groupspecs/status",
    "get groupspecs/scale",
    "get groupnodes",
    "list groupnodes",
    "watch groupnodes",
    "get groupnodes/status",
    "get serverspecs",
    "list serverspecs",
    "watch serverspecs",
    "get lifts",
    "list lifts",
    "watch lifts",
    "get lifts/status",
];
const EDIT: &[&str] = &[
    "create groupspecs",
    "update groupspecs",
    "patch groupspecs",
    "delete groupspecs",
    "deletecollection groupspecs",
    "update groupspecs/scale",
    "patch groupspecs/scale",
    "patch groupnodes",
    "delete groupnodes",
    "create serverspecs",
    "update serverspecs",
    "patch serverspecs",
    "delete serverspecs",
    "deletecollection serverspecs",
];
/// To run commands on the nodes that others have declared: granted apart from EDIT, by pallet-lift.
const LIFT: &[&str] = &["create lifts", "update lifts", "patch lifts", "delete lifts", "deletecollection lifts"];
/// What pallet-lift does not bring along: a Lift does on nodes what commands do there, and nothing else does it follow.
const BEYOND_LIFT: &[&str] = &[
    "create pods",
    "delete pods",
    "create pods/exec",
    "get pods/exec",
    "get pods/log",
    "get secrets",
    "list secrets",
    "get configmaps",
    "deletecollection groupnodes",
];
/// What is nobody's but the operator's.
const OPERATORS: &[&str] = &[
    "create groupnodes",
    "update groupnodes",
    "update groupnodes/status",
    "patch groupnodes/status",
    "update groupspecs/status",
    "patch groupspecs/status",
    "update groupspecs/finalizers",
    "update lifts/status",
    "patch lifts/status",
];

/// What the operator may do where virtual machines are switched on, and not before.
const VIRTUAL_MACHINES: &[&str] = &[
    "create secrets",
    "get virtualmachines.kubevirt.io",
    "list virtualmachines.kubevirt.io",
    "watch virtualmachines.kubevirt.io",
    "create virtualmachines.kubevirt.io",
    "delete virtualmachines.kubevirt.io",
    "update virtualmachines.kubevirt.io/finalizers",
    "list virtualmachineinstances.kubevirt.io",
    "watch virtualmachineinstances.kubevirt.io",
];
/// And what it may not do then, either.
const BEYOND_VIRTUAL_MACHINES: &[&str] = &[
    "patch virtualmachines.kubevirt.io",
    "patch virtualmachineinstances.kubevirt.io",
    "list secrets",
    "delete secrets",
];

fn installed() {
    kubectl(&["apply", "--server-side", "-k", "crds"]);
    kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "-f", "crds"]);
    kubectl(&["apply", "-k", "deploy/rbac/users"]);
    kubectl(&["apply", "-k", "deploy/rbac/cluster"]);
    for namespace in ["pallet-system", "team-a", "team-b"] {
        kubectl(&["create", "namespace", namespace]);
    }
    kubectl(&["apply", "-f", "deploy/operator/service-account.yaml", "-f", "deploy/operator/lease.yaml"]);
    for (user, role) in [("victor", "view"), ("edith", "edit"), ("adam", "admin")] {
        let (role, user_flag) = (format!("--clusterrole={role}"), format!("--user={user}"));
        kubectl(&["create", "rolebinding", user, &role, &user_flag, "-n", "team-a"]);
    }
    kubectl(&["create", "rolebinding", "lena", "--clusterrole=pallet-lift", "--user=lena", "-n", "team-a"]);
    kubectl(&["create", "rolebinding", "eli-edits", "--clusterrole=pallet-edit", "--user=eli", "-n", "team-a"]);
    // Resources and verbs by which it is told that the controller has added our rules to Kubernetes' roles.
    let needed = [
        ("view", json!("lifts"), json!("watch")),
        ("edit", json!("groupspecs/scale"), json!("patch")),
        ("admin", json!("groupnodes"), json!("deletecollection")),
        ("admin", json!("lifts"), json!("create")),
    ];
    for (role, resource, verb) in needed {
        wait("the controller adds our rules to Kubernetes' roles", || {
            let rules = get(&["clusterrole", role])["rules"].clone();
            let has = |rule: &Value, field: &str, value: &Value| {
                rule[field].as_array().is_some_and(|values| values.contains(value))
            };
            let ours = rules.as_array().into_iter().flatten().filter(|rule| rule["apiGroups"] == json!(["pallet.dev"]));
            let found = ours.into_iter().any(|rule| has(rule, "resources", &resource) && has(rule, "verbs", &verb));
            if found { Ok(()) } else { Err(rules.to_string()) }
        });
    }
}

fn remove() {
    kubectl(&["delete", "namespace", "team-a", "team-b", "pallet-system", "--timeout=300s"]);
    for what in ["deploy/rbac/users", "deploy/rbac/cluster", "crds"] {
        kubectl(&["delete", "-k", what, "--timeout=300s"]);
    }
}

#[tokio::test]
async fn each_account_can_do_its_own_and_no_more() {
    let Some(_cluster) = Cluster::clean() else { return };
    installed();
    let client = Client::try_default().await.expect("a client");
    let as_user = |user| Asked { client: &client, user };

    as_user("victor").assert("team-a", READ, &[EDIT, LIFT, OPERATORS, &["get secrets", "create pods"]].concat()).await;
    let refused = [OPERATORS, LIFT, &["deletecollection groupnodes"]].concat();
    as_user("edith").assert("team-a", &[READ, EDIT].concat(), &refused).await;
    as_user("eli").assert("team-a", &[READ, EDIT].concat(), &[&refused[..], BEYOND_LIFT].concat()).await;
    as_user("adam").assert("team-a", &[READ, EDIT, LIFT, &["deletecollection groupnodes"]].concat(), OPERATORS).await;
    // Who lifts, and nothing else, sees what is lifted and what comes of it.
    let read: Vec<&str> = READ.iter().copied().filter(|what| *what != "get groupspecs/scale").collect();
    let refused = [EDIT, OPERATORS, BEYOND_LIFT].concat();
    as_user("lena").assert("team-a", &[&read[..], LIFT].concat(), &refused).await;
    for user in ["victor", "edith", "adam", "lena", "eli"] {
        as_user(user).assert("team-b", &[], &[READ, EDIT, LIFT, OPERATORS].concat()).await;
    }
    as_user("mallory").assert("team-a", &[], &[READ, EDIT, LIFT, OPERATORS].concat()).await;

    // Our rules give nothing that edit did not have: commands in pods are its own already.
    as_user("edith").assert("team-a", &["create pods", "create pods/exec"], &[]).await;
    operator(&client).await;
    namespaced(&client).await;
    tried().await;
    virtual_machines(&client).await;
    remove();
}

/// Everything that is in the rules, nothing that is not.
async fn operator(client: &Client) {
    let operator = Asked { client, user: OPERATOR };
    let can = [
        "get groupspecs",
        "list groupspecs",
        "watch groupspecs",
        "patch groupspecs",
        "patch groupspecs/status",
        "update groupspecs/finalizers",
        "get groupnodes",
        "list groupnodes",
        "watch groupnodes",
        "create groupnodes",
        "patch groupnodes",
        "delete groupnodes",
        "patch groupnodes/status",
        "get pods",
        "list pods",
        "watch pods",
        "create pods",
        "delete pods",
        "patch pods/status",
        "get pods/exec",
        "create pods/exec",
        "get persistentvolumeclaims",
        "list persistentvolumeclaims",
        "watch persistentvolumeclaims",
        "create persistentvolumeclaims",
        "patch persistentvolumeclaims",
        "delete persistentvolumeclaims",
        "list controllerrevisions.apps",
        "watch controllerrevisions.apps",
        "create controllerrevisions.apps",
        "delete controllerrevisions.apps",
        "list serverspecs",
        "watch serverspecs",
        "get lifts",
        "list lifts",
        "watch lifts",
        "patch lifts",
        "delete lifts",
        "patch lifts/status",
        "get secrets",
        "get configmaps",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
    ];
    let granted: usize = rights::operator_rules()
        .iter()
        .map(|rule| rule.verbs.len() * rule.resources.as_ref().map_or(0, Vec::len))
        .sum();
    assert_eq!(
        can.len(),
        granted,
        "the rules have changed: bring this list, and docs/explanation/security.md, up to date"
    );
    let cannot = [
        "create groupspecs",
        "update groupspecs",
        "delete groupspecs",
        "deletecollection groupspecs",
        "update groupspecs/status",
        "update groupnodes",
        "deletecollection groupnodes",
        "update pods",
        "patch pods",
        "deletecollection pods",
        "create pods/attach",
        "get pods/log",
        "create pods/portforward",
        "create pods/eviction",
        "create pods/ephemeralcontainers",
        "update persistentvolumeclaims",
        "patch persistentvolumeclaims/status",
        "deletecollection persistentvolumeclaims",
        "get controllerrevisions.apps",
        "update controllerrevisions.apps",
        "patch controllerrevisions.apps",
        "deletecollection controllerrevisions.apps",
        "list secrets",
        "watch secrets",
        "patch secrets",
        "delete secrets",
        "list configmaps",
        "watch configmaps",
        "patch serverspecs",
        "create lifts",
        "update lifts",
        "deletecollection lifts",
        "get lifts/status",
        "update lifts/status",
        "update lifts/finalizers",
        "get serviceaccounts",
        "create serviceaccounts/token",
        "get nodes",
        "patch nodes",
        "create nodes/proxy",
        "create namespaces",
        "delete namespaces",
        "get services",
        "create deployments.apps",
        "patch deployments.apps",
        "create daemonsets.apps",
        "create jobs.batch",
        "create roles.rbac.authorization.k8s.io",
        "bind clusterroles.rbac.authorization.k8s.io",
        "escalate clusterroles.rbac.authorization.k8s.io",
        "impersonate users",
        "impersonate serviceaccounts",
        "patch customresourcedefinitions.apiextensions.k8s.io",
        "create certificatesigningrequests.certificates.k8s.io",
        "list leases.coordination.k8s.io",
        "delete leases.coordination.k8s.io",
    ];
    let cannot = [&cannot[..], VIRTUAL_MACHINES, BEYOND_VIRTUAL_MACHINES].concat();
    operator.assert("team-a", &can, &cannot).await;
    operator.assert("", &can, &cannot).await;
    let lease = ["get leases.coordination.k8s.io pallet-operator", "update leases.coordination.k8s.io pallet-operator"];
    operator
        .assert(
            "pallet-system",
            &[&lease[..], &["create leases.coordination.k8s.io"]].concat(),
            &[
                "get leases.coordination.k8s.io other",
                "update leases.coordination.k8s.io other",
                "patch leases.coordination.k8s.io pallet-operator",
                "delete leases.coordination.k8s.io pallet-operator",
            ],
        )
        .await;
    let elsewhere = [&lease[..], &["create leases.coordination.k8s.io"]].concat();
    operator.assert("team-a", &[], &elsewhere).await;
    operator.assert("kube-system", &[], &elsewhere).await;
}

/// The rights that are switched on apart: in one namespace, then in all.
async fn virtual_machines(client: &Client) {
    let granted: usize = rights::virtual_machine_rules()
        .iter()
        .map(|rule| rule.verbs.len() * rule.resources.as_ref().map_or(0, Vec::len))
        .sum();
    assert_eq!(
        VIRTUAL_MACHINES.len(),
        granted,
        "the rules have changed: bring this list, and docs/explanation/security.md, up to date"
    );
    let operator = Asked { client, user: OPERATOR };
    kubectl(&["apply", "-n", "team-a", "-k", "deploy/rbac/virtual-machines/namespace"]);
    operator.assert("team-a", VIRTUAL_MACHINES, BEYOND_VIRTUAL_MACHINES).await;
    operator.assert("team-b", &[], VIRTUAL_MACHINES).await;
    kubectl(&["apply", "-k", "deploy/rbac/virtual-machines/cluster"]);
    operator.assert("team-b", VIRTUAL_MACHINES, BEYOND_VIRTUAL_MACHINES).await;
    operator.assert("", VIRTUAL_MACHINES, BEYOND_VIRTUAL_MACHINES).await;
    kubectl(&["delete", "-k", "deploy/rbac/virtual-machines/cluster"]);
}

/// The same by Roles, outside of its namespace.
async fn namespaced(client: &Client) {
    let overlay = scratch("roles");
    let up: String = overlay.strip_prefix(crate::commands::root()).expect("below").iter().map(|_| "../").collect();
    let text = format!(
        "resources: [{up}deploy/rbac/namespace]\nnamespace: team-a\npatches:\n- target: {{kind: RoleBinding}}\n  \
         patch: |-\n    - {{op: replace, path: /subjects/0/name, value: namespaced}}\n"
    );
    fs::write(overlay.join("kustomization.yaml"), text).expect("a kustomization");
    kubectl(&["apply", "-k", overlay.to_str().expect("a path in UTF-8")]);
    let operator = Asked { client, user: NAMESPACED };
    let some = ["list groupspecs", "create groupnodes", "create pods", "create pods/exec", "patch groupspecs/status"];
    operator.assert("team-a", &some, &["list secrets", "create groupspecs"]).await;
    for namespace in ["team-b", "pallet-system", "kube-system", ""] {
        operator.assert(namespace, &[], &some).await;
    }
}

/// Writes a status, which holds the proof of what has run. Not by kubectl: it would ask for the object first.
async fn forge_phase_results(user: &str) -> kube::Result<GroupNode> {
    let mut config = Config::infer().await.expect("KUBECONFIG");
    config.auth_info.impersonate = Some(user.to_owned());
    let nodes: Api<GroupNode> = Api::namespaced(Client::try_from(config).expect("a client"), "team-a");
    let patch = Patch::Merge(json!({"status": {"phaseResults": []}}));
    nodes.patch_status("web-0", &PatchParams::default(), &patch).await
}

/// Requests, not questions.
async fn tried() {
    let group = scratch("roles").join("group.yaml");
    let text = "apiVersion: pallet.dev/v1alpha1\nkind: GroupSpec\nmetadata: {name: web}\nspec: {count: 0, node: {pod: {template: \
                {spec: {containers: [{name: main, image: 'localhost/busybox:1'}]}}}}}\n";
    fs::write(&group, text).expect("a file");
    let group = group.to_str().expect("a path in UTF-8");
    let team = |user: &str, arguments: &[&str]| {
        let user = format!("--as={user}");
        try_run("kubectl", &[arguments, &["-n", "team-a", &user]].concat())
    };
    let assert_forbidden = |answer: Result<String, String>| {
        assert!(
            answer.as_ref().is_err_and(|error| error.contains("is forbidden") || error.contains("(Forbidden)")),
            "{answer:?}"
        );
    };
    for user in ["victor", "mallory", OPERATOR] {
        assert_forbidden(team(user, &["create", "-f", group]));
    }
    team("edith", &["create", "-f", group]).expect("edit may");
    // As the operator would: a GroupNode of it.
    let node = scratch("roles").join("node.yaml");
    let uid = get(&["groupspec", "web", "-n", "team-a"])["metadata"]["uid"].clone();
    let text = format!(
        "apiVersion: pallet.dev/v1alpha1\nkind: GroupNode\nmetadata: {{name: web-0}}\nspec: {{group: web, groupUid: {uid}, ordinal: 0}}\n"
    );
    fs::write(&node, text).expect("a file");
    let node = node.to_str().expect("a path in UTF-8");
    for user in ["edith", "adam"] {
        assert_forbidden(team(user, &["create", "-f", node]));
    }
    team(OPERATOR, &["create", "-f", node]).expect("the operator may");

    team("victor", &["get", "gs,gn"]).expect("view may");
    team("edith", &["scale", "groupspec/web", "--replicas=1"]).expect("edit may");
    team("edith", &["annotate", "groupnode/web-0", "pallet.dev/retry=1"]).expect("edit may");
    let lift = scratch("roles").join("lift.yaml");
    let text = "apiVersion: pallet.dev/v1alpha1\nkind: Lift\nmetadata: {name: look}\nspec: {groups: [web]}\n";
    fs::write(&lift, text).expect("a file");
    let lift = lift.to_str().expect("a path in UTF-8");
    for user in ["victor", "edith", "eli", "mallory", OPERATOR] {
        assert_forbidden(team(user, &["create", "-f", lift]));
    }
    team("adam", &["create", "-f", lift]).expect("admin may");
    team("adam", &["delete", "lift", "look"]).expect("admin may");
    team("lena", &["create", "-f", lift]).expect("who is bound to pallet-lift may");
    team("victor", &["get", "lifts"]).expect("view may");
    assert_forbidden(team("edith", &["patch", "lift", "look", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]));
    team("lena", &["patch", "lift", "look", "--type=merge", "-p", r#"{"spec":{"cancel":true}}"#]).expect("she may");
    assert_forbidden(team("lena", &["scale", "groupspec/web", "--replicas=2"]));
    assert_forbidden(team("lena", &["annotate", "groupnode/web-0", "pallet.dev/ack=1"]));
    team(OPERATOR, &["delete", "lift", "look"]).expect("the operator may, when its time has come");
    assert_forbidden(team("victor", &["annotate", "groupnode/web-0", "pallet.dev/retry=2", "--overwrite"]));
    for user in ["victor", "edith", "adam", "mallory"] {
        let refused = forge_phase_results(user).await.expect_err("nobody but the operator may");
        assert!(matches!(&refused, kube::Error::Api(status) if status.is_forbidden()), "{refused}");
    }
    forge_phase_results(OPERATOR).await.expect("the operator may");
    assert_forbidden(team(OPERATOR, &["get", "secrets"]));
    assert_forbidden(team(OPERATOR, &["delete", "groupspec", "web"]));
    assert_forbidden(team(NAMESPACED, &["get", "groupspecs", "-A"]));
    team("edith", &["delete", "groupnode", "web-0"]).expect("edit may");
    team("edith", &["delete", "groupspec", "web"]).expect("edit may");
}
