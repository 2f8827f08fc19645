//! What the tiers that need a cluster share: the way in, the definitions installed, a namespace a test, and waiting.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    fmt::Debug,
    io::Write,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::Once,
    time::{Duration, Instant},
};

use futures::FutureExt;
use k8s_openapi::{
    NamespaceResourceScope, api::core::v1::Namespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{PartialObjectMeta, params::PropagationPolicy},
    runtime::wait::{await_condition, conditions::is_crd_established},
};
use pallet_api::{GroupNode, GroupSpec, Lift, ServerSpec, crds};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

pub mod rights;

/// Whose server-side applies the tests make.
pub const MANAGER: &str = "pallet-test";
/// How long anything may take that needs no image, phase or node.
pub const SOON: Duration = Duration::from_secs(20);

/// The way to the test cluster.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
}

/// Whether the tiers that need a cluster were asked for.
///
/// # Panics
/// Where CI did not ask for them: there a skipped tier would pass for a green one.
pub fn asked() -> bool {
    if std::env::var_os("PALLET_TEST_CLUSTER").is_none_or(|value| value.is_empty() || value == "0") {
        const SKIPPED: &str = "SKIPPED: set PALLET_TEST_CLUSTER=1 and KUBECONFIG, or run make test";
        assert!(std::env::var_os("CI").is_none(), "{SKIPPED}; CI must not skip a tier");
        static ONCE: Once = Once::new();
        // Straight to the descriptor: what goes through eprintln! is swallowed when a test passes.
        ONCE.call_once(|| drop(writeln!(std::io::stderr(), "\n{SKIPPED}\nNone of these tests looked at anything.\n")));
        return false;
    }
    true
}

/// The test cluster with the definitions installed, or nothing where none was asked for.
///
/// # Panics
/// As [`asked`].
pub async fn cluster() -> Option<Cluster> {
    if !asked() {
        return None;
    }
    // A client belongs to the runtime of its test.
    let client = Client::try_default().await.expect("KUBECONFIG leads to the test cluster");
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_init(|| install(&client)).await;
    Some(Cluster { client })
}

/// Applies the definitions server-side and waits until they are served.
async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds::all() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&crd))
            .await
            .unwrap_or_else(|error| panic!("{name} could not be applied: {error}"));
        tokio::time::timeout(SOON, await_condition(api.clone(), &name, is_crd_established()))
            .await
            .unwrap_or_else(|_| panic!("{name} was not Established within {SOON:?}"))
            .unwrap_or_else(|error| panic!("{name} could not be watched: {error}"));
    }
    // Established comes a moment before every server thread serves it.
    let groups: Api<GroupSpec> = Api::all(client.clone());
    let nodes: Api<GroupNode> = Api::all(client.clone());
    let specs: Api<ServerSpec> = Api::all(client.clone());
    let lifts: Api<Lift> = Api::all(client.clone());
    let served = async {
        while groups.list(&ListParams::default().limit(1)).await.is_err()
            || nodes.list(&ListParams::default().limit(1)).await.is_err()
            || specs.list(&ListParams::default().limit(1)).await.is_err()
            || lifts.list(&ListParams::default().limit(1)).await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, served).await.expect("the kinds are served once they are Established");
}

impl Cluster {
    /// Runs a test in a namespace of its own, and deletes that at the end, however the test ended.
    pub async fn in_namespace(&self, test: impl AsyncFnOnce(Space)) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta { generate_name: Some("pallet-test-".into()), ..Default::default() },
            ..Namespace::default()
        };
        let created = namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace can be made");
        let space = Space { client: self.client.clone(), namespace: created.name_any() };
        let ended = AssertUnwindSafe(test(space.clone())).catch_unwind().await;
        // Nobody waits for the end: it takes seconds, and the name is never used again.
        let deleted = namespaces.delete(&space.namespace, &DeleteParams::default()).await;
        if ended.is_err() {
            // What a failed test left behind finalizers would hold the namespace for ever.
            space.let_go::<Lift>().await;
            space.let_go::<GroupSpec>().await;
            space.let_go::<GroupNode>().await;
        }
        ended.unwrap_or_else(|panic| resume_unwind(panic));
        deleted.expect("the namespace can be deleted");
    }
}

/// The namespace of one test.
#[derive(Clone)]
pub struct Space {
    pub client: Client,
    pub namespace: String,
}

impl Space {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn groups(&self) -> Api<GroupSpec> {
        self.api()
    }

    pub fn nodes(&self) -> Api<GroupNode> {
        self.api()
    }

    pub fn lifts(&self) -> Api<Lift> {
        self.api()
    }

    async fn let_go<K>(&self)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        for object in api.list_metadata(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
            let _ = api.patch_metadata(&object.name_any(), &PatchParams::default(), &patch).await;
        }
    }
}

/// Waits until the object fulfils the condition, and returns it then; `None` stands for no object of that name.
///
/// # Panics
/// When the deadline has passed; the message shows the object as it is.
pub async fn wait_for<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    deadline: Duration,
    condition: impl Fn(Option<&K>) -> bool,
) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    let end = Instant::now() + deadline;
    let mut trouble = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, await_condition(api.clone(), name, |object: Option<&K>| condition(object)))
            .await
        {
            Ok(Ok(found)) => return found,
            // A watch may break, as when a test restarts the API server; the deadline holds all the same.
            Ok(Err(error)) => {
                trouble = Some(error.to_string());
                tokio::time::sleep(Duration::from_millis(200).min(left)).await;
            }
            Err(_) => {
                let shown = match api.get_opt(name).await {
                    Ok(Some(mut object)) => {
                        // Longer than all the rest.
                        object.meta_mut().managed_fields = None;
                        serde_json::to_string_pretty(&object).unwrap_or_default()
                    }
                    Ok(None) => "is not there".to_owned(),
                    Err(error) => format!("cannot be read: {error}"),
                };
                let trouble = trouble.map(|trouble| format!("\nthe watch broke: {trouble}")).unwrap_or_default();
                panic!("{} {name}: not within {deadline:?}: {what}{trouble}\n{shown}", K::kind(&()));
            }
        }
    }
}

/// Waits until no object of that name is there.
pub async fn wait_gone<K>(api: &Api<K>, name: &str, deadline: Duration)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    wait_for(api, name, "gone", deadline, |object| object.is_none()).await;
}

/// Deletion in the background, as kubectl does it.
pub fn background() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() }
}

/// A GroupSpec that the API server takes: `spec` is merged over the least there can be (RFC 7396).
pub fn group(name: &str, spec: Value) -> Value {
    let mut least = json!({"node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "localhost/busybox:1"}]}}}}});
    merge(&mut least, spec);
    json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": name}, "spec": least})
}

/// A Lift that the API server takes: `spec` is merged over the least there can be, and a null takes out what stands there.
pub fn lift(name: &str, spec: Value) -> Value {
    let mut least = json!({"groups": ["web"]});
    merge(&mut least, spec);
    json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": name}, "spec": least})
}

/// Merges after RFC 7396, but for nulls, which stay.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
