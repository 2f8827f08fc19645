//! The operator's account in tests: the very rules of `deploy/`, and a kubeconfig that has no others.

use std::path::Path;

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::MANAGER;

/// The objects of a kind that a file under `deploy/` holds.
pub fn deployed<K: DeserializeOwned + Resource<DynamicType = ()>>(file: &str) -> Vec<K> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let of_kind = documents.into_iter().filter(|document| document["kind"] == K::kind(&()).as_ref());
    of_kind.map(|document| serde_json::from_value(document).expect("an object of its kind")).collect()
}

/// What the operator may do to groups and their nodes.
pub fn operator_rules() -> Vec<PolicyRule> {
    deployed::<ClusterRole>("rbac/operator/role.yaml").remove(0).rules.expect("rules")
}

/// What it may do besides where nodes are virtual machines.
pub fn virtual_machine_rules() -> Vec<PolicyRule> {
    deployed::<ClusterRole>("rbac/virtual-machines/role/role.yaml").remove(0).rules.expect("rules")
}

/// An account in a namespace of its own, so that it outlives the test's, with the operator's rights in all namespaces, those for
/// virtual machines among them, and a lease in the test's: what `deploy/` makes, under names that are free. Returns a kubeconfig.
pub async fn operator_kubeconfig(client: &Client, namespace: &str) -> String {
    let home = format!("{namespace}-operator");
    let metadata = json!({"name": home});
    create(&Api::<Namespace>::all(client.clone()), json!({"metadata": metadata})).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &home);
    create(&accounts, json!({"metadata": {"name": "pallet-operator"}})).await;
    let lease = deployed::<Role>("operator/lease.yaml").remove(0);
    create(&Api::<Role>::namespaced(client.clone(), namespace), json!({"metadata": metadata, "rules": lease.rules}))
        .await;
    let binding = |name: &str, kind: &str, role: &str| {
        json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "pallet-operator", "namespace": home}]
        })
    };
    create(&Api::<RoleBinding>::namespaced(client.clone(), namespace), binding(&home, "Role", &home)).await;
    let (roles, bindings) = (Api::<ClusterRole>::all(client.clone()), Api::<ClusterRoleBinding>::all(client.clone()));
    for (role, bound, rules) in [
        ("pallet-test-operator", home.clone(), operator_rules()),
        ("pallet-test-operator-virtual-machines", virtual_machine_binding(namespace), virtual_machine_rules()),
    ] {
        let object = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": role},
            "rules": rules
        });
        roles.patch(role, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await.expect("a role");
        create(&bindings, binding(&bound, "ClusterRole", role)).await;
    }
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(86_400), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let token = accounts.create_token_request("pallet-operator", &PostParams::default(), &request).await;
    let token = token.expect("a token").status.expect("a token").token;
    with_token(namespace, &token)
}

/// The binding by which the operator of a namespace's tests may use virtual machines.
pub fn virtual_machine_binding(namespace: &str) -> String {
    format!("{namespace}-operator-virtual-machines")
}

/// The kubeconfig of the tests with another user.
fn with_token(namespace: &str, token: &str) -> String {
    let original = std::fs::read_to_string(std::env::var("KUBECONFIG").expect("KUBECONFIG")).expect("the kubeconfig");
    let mut config: Value = serde_saphyr::from_str(&original).expect("the kubeconfig is YAML");
    config["users"][0]["user"] = json!({"token": token});
    config["contexts"][0]["context"]["namespace"] = json!(namespace);
    serde_saphyr::to_string(&config).expect("YAML")
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize,
{
    let object = serde_json::from_value(object).expect("an object of its kind");
    api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{}: {error}", K::kind(&())));
}
