//! What every end-to-end test needs: a namespace, an operator of its own that can be killed, and ways to wait and look.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures::TryFutureExt;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Pod, Secret, ServiceAccount},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use pallet_api::{GroupNode, GroupSpec, group_node::PhaseResult};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

#[path = "../support/mod.rs"]
mod support;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A namespace of its own, with an operator that looks after nothing else.
pub struct Space {
    pub client: Client,
    pub name: String,
    operator: Option<Child>,
    /// What operators connect with, where it is not what the tests use.
    pub kubeconfig: Option<PathBuf>,
    /// What the operator finds in its environment beside that.
    pub environment: Vec<(&'static str, String)>,
    /// Another namespace that the operator serves.
    pub also: Option<String>,
    /// Whether the operator serves all namespaces: only in a cluster that nothing else uses.
    pub all_namespaces: bool,
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some(child) = self.operator.as_mut() {
            let _ = child.start_kill();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "---- the operator of {} said last:\n{}",
                self.name,
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// Where the API server writes down every request.
pub const AUDIT_LOG: &str = "/run/pallet/log/audit.log";

impl Space {
    /// A new namespace without an operator; none where no cluster was asked for.
    pub async fn bare(what: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let client = support::cluster().await?.client;
        let name = format!("e2e-{what}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
        // Before it is there, every pod is refused.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &name);
        let there = || accounts.get("default").map_err(|error| error.to_string());
        wait("the namespace has its service account", there).await;
        let mut space = Self {
            client,
            name,
            operator: None,
            kubeconfig: None,
            environment: Vec::new(),
            also: None,
            all_namespaces: false,
        };
        space.limit_rights().await;
        Some(space)
    }

    /// The operator gets the rights of `deploy/` and no others: whatever it can be seen to do here, these suffice for.
    async fn limit_rights(&mut self) {
        let path = self.scratch("kubeconfig");
        fs::write(&path, support::rights::operator_kubeconfig(&self.client, &self.name).await).unwrap();
        self.kubeconfig = Some(path);
    }

    /// The ClusterRoleBinding by which its operator may use virtual machines.
    pub fn virtual_machine_binding(&self) -> String {
        support::rights::virtual_machine_binding(&self.name)
    }

    /// A new namespace with an operator.
    pub async fn new(what: &str) -> Option<Self> {
        let mut space = Self::bare(what).await?;
        space.start_operator();
        Some(space)
    }

    /// Lets the operator connect to somebody else, such as `http://127.0.0.1:1234`.
    pub fn connect_to(&mut self, server: &str) {
        let path = self.kubeconfig.clone().expect("the operator's kubeconfig");
        let text = fs::read_to_string(&path).expect("the kubeconfig");
        let lines = text.lines().map(|line| match line.split_once("server:") {
            Some((indent, _)) => format!("{indent}server: {server}"),
            None => line.to_owned(),
        });
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }

    /// A directory of the machine that the cluster's node is: tests run beside the kubelet.
    pub fn shared_dir(&self) -> PathBuf {
        PathBuf::from("/run/pallet/shared").join(&self.name)
    }

    /// A file of this test's own.
    pub fn scratch(&self, name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", self.name))
    }

    fn log(&self) -> PathBuf {
        self.scratch("operator.log")
    }

    pub fn start_operator(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(operator_binary());
        if !self.all_namespaces {
            command.args(["--namespace", &self.name]);
            if let Some(also) = &self.also {
                command.args(["--namespace", also]);
            }
        }
        command.args(["--log", "info,pallet_operator=debug"]);
        // Each looks after a namespace of its own, side by side with the others.
        command.args(["--leader-elect=false", "--http-address=127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.operator = Some(command.spawn().expect("the operator"));
    }

    /// Asks the operator to stop, and waits until it has.
    #[cfg(feature = "otel")]
    pub async fn stop_operator(&mut self) {
        let mut operator = self.operator.take().expect("a running operator");
        let pid = operator.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let status = tokio::time::timeout(PATIENCE, operator.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}");
    }

    /// The operator's memory: what is resident now, and the most that ever was, in MiB.
    pub fn memory(&self) -> (u64, u64) {
        let pid = self.operator.as_ref().and_then(Child::id).expect("a running operator");
        let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the operator's status");
        let of = |field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("a field of memory");
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("kilobytes") / 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// The processor time that the operator has taken so far.
    pub fn cpu(&self) -> Duration {
        let pid = self.operator.as_ref().and_then(Child::id).expect("a running operator");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the operator's times");
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // In ticks of 10 ms: user and system time.
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// kill -9.
    pub async fn kill_operator(&mut self) {
        let mut operator = self.operator.take().expect("a running operator");
        operator.start_kill().unwrap();
        operator.wait().await.unwrap();
    }

    /// Whether the operator is the process that it was when it was started last.
    pub fn operator_lives(&mut self) -> bool {
        self.operator.as_mut().is_some_and(|operator| matches!(operator.try_wait(), Ok(None)))
    }

    pub fn groups(&self) -> Api<GroupSpec> {
        Api::namespaced(self.client.clone(), &self.name)
    }
    pub fn nodes(&self) -> Api<GroupNode> {
        Api::namespaced(self.client.clone(), &self.name)
    }
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies a GroupSpec called `web`.
    pub async fn apply(&self, spec: Value) -> GroupSpec {
        self.apply_as("web", spec).await
    }

    /// Applies a GroupSpec of another name.
    pub async fn apply_as(&self, name: &str, spec: Value) -> GroupSpec {
        let object =
            json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": name}, "spec": spec});
        let parameters = PatchParams::apply("e2e").force();
        self.groups().patch(name, &parameters, &Patch::Apply(object)).await.expect("the GroupSpec is accepted")
    }

    /// Makes a Secret, or makes it another one.
    pub async fn secret(&self, name: &str, texts: Value) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": texts});
        let parameters = PatchParams::apply("e2e").force();
        secrets.patch(name, &parameters, &Patch::Apply(object)).await.expect("the Secret");
    }

    /// Makes a ConfigMap, or makes it another one.
    pub async fn config_map(&self, name: &str, texts: Value) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.name);
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": texts});
        let parameters = PatchParams::apply("e2e").force();
        maps.patch(name, &parameters, &Patch::Apply(object)).await.expect("the ConfigMap");
    }

    /// Merges a patch into the GroupSpec.
    pub async fn patch(&self, patch: Value) -> GroupSpec {
        self.groups().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.expect("the patch is accepted")
    }

    /// Merges a patch into a GroupSpec of another name.
    pub async fn apply_as_patch(&self, name: &str, patch: Value) -> GroupSpec {
        let patch = Patch::Merge(patch);
        self.groups().patch(name, &PatchParams::default(), &patch).await.expect("the patch is accepted")
    }

    /// Waits until Ready is True for the present generation.
    pub async fn ready(&self) -> GroupSpec {
        self.ready_as("web").await
    }

    /// The same for another group.
    pub async fn ready_as(&self, name: &str) -> GroupSpec {
        self.until_as(name, "Ready", |group| {
            let status = group.status.clone().unwrap_or_default();
            status.observed_generation == group.metadata.generation && condition(group, "Ready").0 == "True"
        })
        .await
    }

    /// Waits until the GroupSpec is as it should be.
    pub async fn until(&self, what: &str, holds: impl Fn(&GroupSpec) -> bool) -> GroupSpec {
        self.until_as("web", what, holds).await
    }

    /// The same for another group.
    pub async fn until_as(&self, name: &str, what: &str, holds: impl Fn(&GroupSpec) -> bool) -> GroupSpec {
        wait(&format!("{name}: {what}"), || async {
            let group = self.groups().get(name).await.expect("the GroupSpec");
            if holds(&group) { Ok(group) } else { Err(format!("{:#?}", group.status)) }
        })
        .await
    }

    /// Waits until a GroupNode is as it should be.
    pub async fn node_until(&self, name: &str, what: &str, holds: impl Fn(&GroupNode) -> bool) -> GroupNode {
        wait(what, || async {
            match self.nodes().get_opt(name).await.unwrap() {
                Some(node) if holds(&node) => Ok(node),
                other => Err(format!("{:#?}", other.map(|node| node.status))),
            }
        })
        .await
    }

    pub async fn pod_names(&self) -> Vec<String> {
        let list = self.pods().list(&ListParams::default()).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect()
    }

    /// Runs a script in a pod, as a person with kubectl would.
    pub async fn kubectl_exec(&self, pod: &str, script: &str) -> String {
        loop {
            match self.try_exec(pod, script).await {
                Ok(said) => return said,
                // The connection broke, as it may on a busy machine; what tests run here may run twice.
                Err(error) if error.contains("websocket: close 1006") => eprintln!("exec in {pod} again: {error}"),
                Err(error) => panic!("exec in {pod}: {error}"),
            }
        }
    }

    pub async fn try_exec(&self, pod: &str, script: &str) -> Result<String, String> {
        let run = Command::new("kubectl").args(["-n", &self.name, "exec", pod, "--", "sh", "-c", script]).output();
        let output = tokio::time::timeout(PATIENCE, run).await.expect("kubectl in time").expect("kubectl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Runs a script in a pod by a request of the test's own: kubectl takes a tenth of a second of CPU for it.
    pub async fn exec(&self, pod: &str, script: &str) -> String {
        let parameters = AttachParams::default().stderr(false);
        let reading = async {
            let mut process = self.pods().exec(pod, ["sh", "-c", script], &parameters).await.expect("an exec");
            let mut text = String::new();
            process.stdout().expect("stdout").read_to_string(&mut text).await.expect("text");
            text
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("exec in time")
    }

    /// Waits until a script in a pod succeeds.
    pub async fn exec_until(&self, pod: &str, script: &str) -> String {
        wait(script, || self.try_exec(pod, script)).await
    }

    pub async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.expect("the pod is deleted");
    }

    /// The operator's requests so far, as "VERB RESOURCE[/SUBRESOURCE]", but for those that watch.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(AUDIT_LOG).expect("the audit log");
        let events = text
            .lines()
            .filter(|line| line.contains(&self.name))
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("pallet-operator/")))
            .filter(|event| {
                event["objectRef"]["namespace"] == self.name.as_str()
                    && event["verb"] != "watch"
                    && event["verb"] != "list"
            })
            .map(|event| {
                let reference = &event["objectRef"];
                let sub = reference["subresource"].as_str().map(|sub| format!("/{sub}")).unwrap_or_default();
                format!(
                    "{} {}{sub}",
                    event["verb"].as_str().unwrap_or("?"),
                    reference["resource"].as_str().unwrap_or("?")
                )
            })
            .collect()
    }

    /// How many events of this reason there are in the namespace.
    pub async fn events(&self, reason: &str) -> usize {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        let list = events.list(&ListParams::default()).await.expect("the events");
        list.items.iter().filter(|event| event.reason.as_deref() == Some(reason)).count()
    }

    pub fn count(&self, request: &str) -> usize {
        self.requests().iter().filter(|other| *other == request).count()
    }
}

/// The plugin for kubectl, which is built beside the operator.
pub fn plugin_binary() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pallet-operator")).with_file_name("kubectl-pallet");
    assert!(path.exists(), "{} is missing: cargo build -p kubectl-pallet", path.display());
    path
}

/// The operator under test: PALLET_OPERATOR names another build of it, such as an optimised one.
pub fn operator_binary() -> String {
    std::env::var("PALLET_OPERATOR").unwrap_or_else(|_| env!("CARGO_BIN_EXE_pallet-operator").to_owned())
}

/// Waits until a look succeeds; shows the last look where it never does.
pub async fn wait<T, F: Future<Output = Result<T, String>>>(what: &str, look: impl Fn() -> F) -> T {
    let began = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) if began.elapsed() > PATIENCE => panic!("{what}: not within {PATIENCE:?}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Status, reason and message of a group's condition; empty where it is not there.
pub fn condition(group: &GroupSpec, kind: &str) -> (String, String, String) {
    let conditions = group.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == kind)
        .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        .next()
        .unwrap_or_default()
}

/// The reason of a node's condition.
pub fn reason(node: &GroupNode) -> String {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    conditions.map(|condition| condition.reason.clone()).next().unwrap_or_default()
}

pub fn phase_result(node: &GroupNode, phase: &str) -> Option<PhaseResult> {
    node.status.as_ref()?.phase_results.iter().find(|phase_result| phase_result.phase == phase).cloned()
}

/// Nodes that are small pods.
pub fn busybox() -> Value {
    node("localhost/busybox:1")
}

pub fn node(image: &str) -> Value {
    json!({"pod": {"template": {"spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": image, "imagePullPolicy": "Never"}]
    }}}})
}

/// Nodes that are small pods, with a directory that all of them and the test share, so that it can be looked at when they
/// are gone.
pub fn shared(space: &Space) -> Value {
    let mut node = busybox();
    let spec = &mut node["pod"]["template"]["spec"];
    spec["volumes"] =
        json!([{"name": "shared", "hostPath": {"path": space.shared_dir(), "type": "DirectoryOrCreate"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    node
}

/// A phase of one script.
pub fn script(script: &str) -> Value {
    json!({"actions": [{"exec": {"script": script}}]})
}
