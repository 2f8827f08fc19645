//! What the chart and kustomize make, without installing it: the same rules, definitions and pod; and what the chart refuses.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::{
    commands::{kubectl, root, try_helm},
    support::asked,
};

const CHART: &str = "charts/pallet-operator";

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), Value>;

fn objects(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).expect("YAML");
    let named = documents.into_iter().filter(|document| !document.is_null()).map(|document| {
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ((name(&document["kind"]), name(&document["metadata"]["name"])), document)
    });
    named.collect()
}

/// As it would be installed by the name that the docs use.
fn try_chart(set: &[&str]) -> Result<Objects, String> {
    let mut arguments = vec!["template", "pallet-operator", CHART, "--namespace", "pallet-system"];
    set.iter().for_each(|value| arguments.extend(["--set", value]));
    try_helm(&arguments).map(|text| objects(&text))
}

fn chart(set: &[&str]) -> Objects {
    try_chart(set).unwrap_or_else(|error| panic!("{error}"))
}

fn of_kind<'a>(objects: &'a Objects, kind: &str) -> BTreeMap<&'a str, &'a Value> {
    let found = objects.iter().filter(|((other, _), _)| other == kind);
    found.map(|((_, name), object)| (name.as_str(), object)).collect()
}

#[test]
fn the_chart_and_kustomize_grant_the_same() {
    if !asked() {
        return;
    }
    let (switched_on, mut with_machines) =
        (chart(&["virtualMachines.enabled=true"]), objects(&kubectl(&["kustomize", "deploy"])));
    with_machines.extend(objects(&kubectl(&["kustomize", "deploy/rbac/virtual-machines/cluster"])));
    assert!(of_kind(&switched_on, "ClusterRole").contains_key("pallet-operator-virtual-machines"));
    same_rights(&switched_on, &with_machines);
    let (chart, deploy) = (chart(&[]), objects(&kubectl(&["kustomize", "deploy"])));
    assert!(!of_kind(&chart, "ClusterRole").contains_key("pallet-operator-virtual-machines"));
    same_rights(&chart, &deploy);
    for name in ["pallet-view", "pallet-edit", "pallet-admin"] {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{}", &name["pallet-".len()..]);
        for objects in [&chart, &deploy] {
            let labels = &of_kind(objects, "ClusterRole")[name]["metadata"]["labels"];
            assert_eq!(labels[&label], "true", "{name}");
        }
    }
    // Who may edit groups may not run commands on their nodes by that alone.
    for objects in [&chart, &deploy] {
        let labels = &of_kind(objects, "ClusterRole")["pallet-lift"]["metadata"]["labels"];
        let added: Vec<&String> = labels.as_object().into_iter().flat_map(|labels| labels.keys()).collect();
        assert!(added.contains(&&"rbac.authorization.k8s.io/aggregate-to-admin".to_owned()), "{added:?}");
        assert_eq!(added.iter().filter(|label| label.contains("aggregate-to")).count(), 1, "{added:?}");
    }
}

fn same_rights(chart: &Objects, deploy: &Objects) {
    for kind in ["ClusterRole", "Role"] {
        let rules = |objects| -> BTreeMap<&str, Value> {
            of_kind(objects, kind).into_iter().map(|(name, role)| (name, role["rules"].clone())).collect()
        };
        assert_eq!(rules(chart), rules(deploy), "{kind}");
        assert!(!rules(chart).is_empty());
    }
    for kind in ["ClusterRoleBinding", "RoleBinding"] {
        let bound = |objects| -> BTreeMap<&str, Value> {
            let bindings = of_kind(objects, kind).into_iter();
            bindings.map(|(name, b)| (name, json!([b["roleRef"], b["subjects"]]))).collect()
        };
        assert_eq!(bound(chart), bound(deploy), "{kind}");
    }
}

#[test]
fn the_chart_and_kustomize_run_the_same_pod() {
    if !asked() {
        return;
    }
    let (chart, deploy) = (chart(&[]), objects(&kubectl(&["kustomize", "deploy"])));
    let pod = |objects: &Objects| {
        let mut deployment = of_kind(objects, "Deployment")["pallet-operator"].clone();
        let spec = deployment["spec"].as_object_mut().expect("a spec");
        // The chart's selector has the release's name, and it spells every flag out. The pull policy is the default.
        spec.remove("selector");
        spec["template"].as_object_mut().expect("a template").remove("metadata");
        spec["template"]["spec"]["topologySpreadConstraints"][0].as_object_mut().expect("one").remove("labelSelector");
        let container = spec["template"]["spec"]["containers"][0].as_object_mut().expect("a container");
        container.remove("args");
        container.remove("imagePullPolicy");
        deployment["spec"].clone()
    };
    assert_eq!(pod(&chart), pod(&deploy));
}

#[test]
fn the_chart_has_the_definitions_and_keeps_them() {
    if !asked() {
        return;
    }
    // Typed, since kustomize writes 1.0 as 1.
    let definitions = |objects: Objects| -> BTreeMap<String, CustomResourceDefinition> {
        let of_kind = objects.into_iter().filter(|((kind, _), _)| kind == "CustomResourceDefinition");
        of_kind.map(|((_, name), crd)| (name, serde_json::from_value(crd).expect("a definition"))).collect()
    };
    let kustomized = definitions(objects(&kubectl(&["kustomize", "crds"])));
    let mut ours = definitions(chart(&[]));
    assert!(!ours.is_empty());
    for (name, crd) in &mut ours {
        let annotations = crd.metadata.annotations.take().unwrap_or_default();
        assert_eq!(annotations.get("helm.sh/resource-policy").map(String::as_str), Some("keep"), "{name}");
        assert!(kustomized.get(name) == Some(crd), "{name} is another one");
    }
    assert_eq!(ours.len(), kustomized.len());
    assert!(of_kind(&chart(&["crds.install=false"]), "CustomResourceDefinition").is_empty());
}

#[test]
fn namespaces_get_roles_and_nothing_cluster_wide() {
    if !asked() {
        return;
    }
    let text = try_helm(&[
        "template",
        "pallet-operator",
        CHART,
        "-n",
        "ops",
        "--set",
        "watchNamespaces={a,b},rbac.userRoles=false,crds.install=false",
    ]);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text.unwrap()).expect("YAML");
    let kinds: BTreeSet<&str> = documents.iter().filter_map(|document| document["kind"].as_str()).collect();
    assert!(kinds.iter().all(|kind| !kind.starts_with("Cluster") && !kind.starts_with("CustomResource")), "{kinds:?}");
    let rules =
        &of_kind(&objects(&kubectl(&["kustomize", "deploy"])), "ClusterRole")["pallet-operator"]["rules"].clone();
    for namespace in ["a", "b"] {
        let find = |kind: &str| {
            let mut found = documents.iter().filter(|d| d["kind"] == kind && d["metadata"]["namespace"] == namespace);
            let found = found.next();
            found.unwrap_or_else(|| panic!("no {kind} in {namespace}"))
        };
        assert_eq!(&find("Role")["rules"], rules);
        assert_eq!(find("RoleBinding")["subjects"][0]["namespace"], "ops");
    }
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment").expect("a Deployment");
    let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(arguments.contains("--namespace=a") && arguments.contains("--namespace=b"), "{arguments}");
}

#[test]
fn what_is_optional_is_there_when_asked_for() {
    if !asked() {
        return;
    }
    let least: BTreeSet<String> = chart(&[]).into_keys().map(|(kind, _)| kind).collect();
    for (set, kind) in [
        ("podDisruptionBudget.enabled=true", "PodDisruptionBudget"),
        ("admissionPolicy.enabled=true", "ValidatingAdmissionPolicy"),
        ("admissionPolicy.enabled=true", "ValidatingAdmissionPolicyBinding"),
        ("serviceMonitor.enabled=true", "ServiceMonitor"),
        ("prometheusRule.enabled=true", "PrometheusRule"),
    ] {
        assert!(!least.contains(kind), "{kind} is there without being asked for");
        assert_eq!(of_kind(&chart(&[set]), kind).len(), 1, "{set}");
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    let deployed = chart(&[&format!("image.digest={digest}")]);
    let image =
        &of_kind(&deployed, "Deployment")["pallet-operator"]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &format!("ghcr.io/pallet-operator/pallet-operator@{digest}"));
}

/// By default nothing that the operator connects to is cut off, and nothing but its port can be reached.
#[test]
fn the_network_policy_closes_what_nobody_needs() {
    if !asked() {
        return;
    }
    let policy = |objects: &Objects| of_kind(objects, "NetworkPolicy")["pallet-operator"]["spec"].clone();
    let in_only = json!({"policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "TCP", "port": 8080}]}]});
    for objects in [chart(&[]), objects(&kubectl(&["kustomize", "deploy/operator"]))] {
        let mut spec = policy(&objects);
        let selector = spec.as_object_mut().and_then(|spec| spec.remove("podSelector")).expect("a selector");
        assert_eq!(spec, in_only);
        let labels = selector["matchLabels"].as_object().expect("labels").clone();
        let pod = &of_kind(&objects, "Deployment")["pallet-operator"]["spec"]["template"]["metadata"]["labels"];
        assert!(!labels.is_empty() && labels.iter().all(|(name, value)| pod[name] == *value), "{labels:?} of {pod}");
    }
    assert!(of_kind(&chart(&["networkPolicy.enabled=false"]), "NetworkPolicy").is_empty());
    let both = policy(&chart(&["networkPolicy.egress.enabled=true", "networkPolicy.egress.hosts.cidrs={10.1.0.0/16}"]));
    assert_eq!(both["policyTypes"], json!(["Ingress", "Egress"]));
    let to: Vec<_> = both["egress"].as_array().into_iter().flatten().map(|rule| rule["ports"].clone()).collect();
    let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
    assert_eq!(to, [json!([tcp(443), tcp(6443)]), json!([tcp(22)]), json!([{"protocol": "UDP", "port": 53}, tcp(53)])]);
}

/// The chart's policy is of the release's own account, and otherwise the one of `deploy`.
#[test]
fn the_admission_policy_is_of_the_account_that_is_installed() {
    if !asked() {
        return;
    }
    let deployed = objects(&kubectl(&["kustomize", "deploy/admission"]));
    let name = "pallet-operator.pallet-system";
    let ours = chart(&["admissionPolicy.enabled=true"]);
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        assert_eq!(of_kind(&ours, kind)[name]["spec"], of_kind(&deployed, kind)[name]["spec"], "{kind}");
    }
    let other = chart(&["admissionPolicy.enabled=true", "serviceAccount.name=robot"]);
    let condition = &of_kind(&other, "ValidatingAdmissionPolicy")[name]["spec"]["matchConditions"][0]["expression"];
    assert_eq!(condition, r#"request.userInfo.username == "system:serviceaccount:pallet-system:robot""#);
}

#[test]
fn values_that_mean_nothing_are_refused() {
    if !asked() {
        return;
    }
    for (set, complaint) in [
        ("watchNamespace=a", "additional properties 'watchNamespace' not allowed"),
        ("watchNamespaces={A_b}", "/watchNamespaces/0"),
        ("image.digest=latest", "/image/digest"),
        ("replicas=-1", "/replicas"),
        ("log.format=xml", "/log/format"),
        ("networkPolicy.egress.apiServer.cidrs=10.0.0.1", "/networkPolicy/egress/apiServer/cidrs"),
        ("replicas=2,leaderElection.enabled=false", "replicas: more than one needs leaderElection.enabled"),
        ("serviceMonitor.enabled=true,service.enabled=false", "serviceMonitor.enabled needs service.enabled"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
    ] {
        let error = try_chart(&[set]).expect_err(set);
        assert!(error.contains(complaint), "{set}: {error}");
    }
}

#[test]
fn alerts_are_about_metrics_that_there_are_and_the_docs_name_them() {
    if !asked() {
        return;
    }
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("a file");
    let (metrics, operate) = (read("docs/reference/metrics.md"), read("docs/how-to/operate.md"));
    let rule = chart(&["prometheusRule.enabled=true"]);
    let groups = &of_kind(&rule, "PrometheusRule")["pallet-operator"]["spec"]["groups"];
    let alerts = groups[0]["rules"].as_array().expect("rules");
    assert!(!alerts.is_empty());
    for alert in alerts {
        let (name, expression) = (alert["alert"].as_str().expect("a name"), alert["expr"].as_str().expect("a query"));
        assert!(operate.contains(&format!("`{name}`")), "docs/how-to/operate.md does not say what to do about {name}");
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: Vec<&str> = words.filter(|word| word.starts_with("pallet_")).collect();
        assert!(!used.is_empty(), "{expression}");
        for metric in used {
            let metric = metric.trim_end_matches("_count").trim_end_matches("_bucket").trim_end_matches("_sum");
            assert!(metrics.contains(&format!("| `{metric}` |")), "{name}: there is no {metric}");
        }
    }
}

#[test]
fn one_version_everywhere() {
    if !asked() {
        return;
    }
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("a file");
    let version = env!("CARGO_PKG_VERSION");
    let about: Value = serde_saphyr::from_str(&read("charts/pallet-operator/Chart.yaml")).expect("YAML");
    assert_eq!((&about["version"], &about["appVersion"]), (&json!(version), &json!(version)));
    let image = format!("ghcr.io/pallet-operator/pallet-operator:{version}");
    assert!(read("deploy/operator/deployment.yaml").contains(&image), "deploy/operator has another version");
}
