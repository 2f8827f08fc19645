//! kubectl and helm as a person uses them, and waiting for what they show.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster without any of ours on it, for one test at a time: what is installed here is cluster-wide.
pub struct Cluster {
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// None where no cluster was asked for. Takes away what a failed test has left.
    pub fn clean() -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        if !crate::support::asked() {
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        sweep();
        Some(Self { _turn: turn })
    }
}

/// The namespaces that tests make.
const NAMESPACES: &[&str] = &["pallet-system", "shop", "elsewhere", "team-a", "team-b"];

/// The cluster-wide kinds of what is installed, but for namespaces.
pub const CLUSTER_WIDE: &str =
    "crd,clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";

/// Removes everything of the operator's, by force. Most of it is not there: errors are none.
fn sweep() {
    for kind in ["lifts", "groupspecs", "groupnodes"] {
        let all =
            ["get", kind, "-A", "-o", "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}"];
        for line in try_run("kubectl", &all).unwrap_or_default().lines() {
            let (namespace, name) = line.split_once(' ').expect("namespace and name");
            let _ = try_run("kubectl", &["-n", namespace, "delete", kind, name, "--wait=false"]);
            let patch = r#"{"metadata":{"finalizers":null}}"#;
            let _ = try_run("kubectl", &["-n", namespace, "patch", kind, name, "--type=merge", "-p", patch]);
        }
    }
    let _ = try_run("kubectl", &["delete", "role,rolebinding", "-n", "default", "pallet-operator"]);
    for name in try_run("kubectl", &["get", CLUSTER_WIDE, "-o", "name"]).unwrap_or_default().lines() {
        if name.contains("pallet") {
            let _ = try_run("kubectl", &["delete", name]);
        }
    }
    kubectl(&[&["delete", "namespace", "--ignore-not-found", "--timeout=300s"], NAMESPACES].concat());
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory for one test's files, inside of the repository's: kustomize takes relative paths only.
pub fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("install-{name}"));
    std::fs::create_dir_all(&path).expect("a scratch directory");
    path
}

/// Runs a command in the repository and returns what it prints; the error is what it says.
pub fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output: Output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(format!("{program} {}: {errors}{text}", arguments.join(" "))) }
}

pub fn kubectl(arguments: &[&str]) -> String {
    try_run("kubectl", arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// kubectl with `-o json`.
pub fn get(arguments: &[&str]) -> Value {
    let text = kubectl(&[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// Where `cluster helm` has built it.
pub fn helm_program() -> String {
    std::env::var("PALLET_HELM").expect("PALLET_HELM: the path that `tests/cluster/cluster helm` prints")
}

pub fn try_helm(arguments: &[&str]) -> Result<String, String> {
    try_run(&helm_program(), arguments)
}

pub fn helm(arguments: &[&str]) -> String {
    try_helm(arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until a look succeeds; shows the last look where it never does.
pub fn wait<T>(what: &str, look: impl Fn() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if began.elapsed() > PATIENCE => panic!("{what}: not within {PATIENCE:?}; last seen: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Nothing of this kind, or of this name, is there.
pub fn assert_gone(arguments: &[&str]) {
    let found = try_run("kubectl", &[&["get", "--ignore-not-found", "-o", "name"], arguments].concat());
    assert!(found.as_ref().is_ok_and(|names| names.trim().is_empty()), "left behind: {found:?}");
}
