//! The operator's pod, seen from the API and from the process itself.

use std::fs;

use serde_json::Value;

use crate::commands::{get, kubectl, wait};

const SELECTOR: &str = "app.kubernetes.io/name=pallet-operator";

/// The pods that are there to stay, by name.
pub fn pods(namespace: &str) -> Vec<Value> {
    let list = get(&["pods", "-n", namespace, "-l", SELECTOR]);
    let staying = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    list["items"].as_array().into_iter().flatten().filter(staying).cloned().collect()
}

/// Waits for the Deployment's rollout, and until the pods of before are gone.
pub fn wait_rolled_out(namespace: &str, deployment: &str) {
    kubectl(&["-n", namespace, "rollout", "status", deployment, "--timeout=300s"]);
    wait("the former pods are gone", || {
        let wanted = get(&[deployment, "-n", namespace])["spec"]["replicas"].as_u64();
        let there = get(&["pods", "-n", namespace, "-l", SELECTOR])["items"].as_array().map(|pods| pods.len() as u64);
        if wanted == there { Ok(()) } else { Err(format!("{there:?} of {wanted:?}")) }
    });
}

/// Who holds the lease.
pub fn leader(namespace: &str, lease: &str) -> String {
    get(&["lease", lease, "-n", namespace])["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// The process is what the manifest promises: no root, no capabilities, system calls filtered, nothing to write to. Returns
/// its resident memory in KiB.
pub fn assert_confined() -> u64 {
    let process = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<u32>().ok())
        .find(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("pallet-operator")))
        .expect("the operator's process, in the namespaces of the cluster");
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name} in\n{status}")).to_owned()
    };
    assert_eq!(field("Uid"), "65532\t65532\t65532\t65532");
    assert_eq!(field("Gid"), "65532\t65532\t65532\t65532");
    assert_eq!(field("CapEff"), "0000000000000000");
    assert_eq!(field("CapBnd"), "0000000000000000");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2", "the runtime's filter");
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).expect("its mounts");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).expect("its root");
    let options = root.split(' ').nth(3).unwrap_or_default();
    assert!(options.split(',').any(|option| option == "ro"), "the root can be written to: {root}");
    field("VmRSS").trim_end_matches("kB").trim().parse().expect("a number")
}

/// What the API server says of the pod: admitted to a namespace that enforces the restricted profile, ready, not restarted.
pub fn assert_healthy(namespace: &str) {
    let enforced = get(&["namespace", namespace])["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].clone();
    assert_eq!(enforced, "restricted");
    for pod in pods(namespace) {
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!((&status["ready"], &status["restartCount"]), (&true.into(), &0.into()), "{pod:#}");
        assert_eq!(pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    }
}
