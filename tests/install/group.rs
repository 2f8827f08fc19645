//! Groups as users write them.

use std::io::Write;

use serde_json::{Value, json};

use crate::commands::{get, kubectl, scratch, try_run, wait};

/// Applies examples/web.yaml, on the image that the test cluster has.
pub fn apply_example(namespace: &str) {
    let text = std::fs::read_to_string(crate::commands::root().join("examples/web.yaml")).expect("the example");
    assert!(text.contains("image: busybox:1.37"), "the example has another image by now: mend this test");
    apply(namespace, "web", &text.replace("image: busybox:1.37", "image: localhost/busybox:1"));
}

/// Two nodes whose bootstrap notes that it ran, and waits to be let go.
pub fn apply_slow(namespace: &str) {
    let script = "echo began >>/ran\nwhile [ ! -e /go ]; do sleep 0.2; done\necho ended >>/ran";
    let spec = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "slow"},
        "spec": {
            "count": 2,
            "node": {"pod": {"template": {"spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": "localhost/busybox:1"}]
            }}}},
            "phases": {"bootstrap": {"actions": [{"exec": {"script": script}}]}},
            "converge": {"rollout": {"maxParallel": "100%"}, "timeout": "5m"}
        }
    });
    apply(namespace, "slow", &spec.to_string());
}

fn apply(namespace: &str, name: &str, text: &str) {
    let path = scratch("groups").join(format!("{namespace}-{name}.yaml"));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
    kubectl(&["apply", "-n", namespace, "-f", path.to_str().expect("a path in UTF-8")]);
}

pub fn wait_ready(namespace: &str, name: &str) {
    let group = format!("groupspec/{name}");
    let waited = try_run("kubectl", &["-n", namespace, "wait", "--for=condition=Ready", &group, "--timeout=300s"]);
    if let Err(error) = waited {
        let shown = try_run("kubectl", &["-n", namespace, "get", "gs,gn,pods", "-o", "wide"]);
        let log = try_run(
            "kubectl",
            &["-n", "pallet-system", "logs", "-l", "app.kubernetes.io/name=pallet-operator", "--tail=30"],
        );
        panic!("{error}\n{}\n{}", shown.unwrap_or_else(|e| e), log.unwrap_or_else(|e| e));
    }
}

/// Waits until bootstrap has begun on both nodes of `slow`.
pub fn wait_slow_runs(namespace: &str) {
    for node in ["slow-0", "slow-1"] {
        wait("bootstrap has begun", || try_run("kubectl", &["-n", namespace, "exec", node, "--", "cat", "/ran"]));
    }
}

/// Lets bootstrap end, and makes sure that it ran once on each node, whatever happened meanwhile.
pub fn finish_slow(namespace: &str) {
    for node in ["slow-0", "slow-1"] {
        let ran = kubectl(&["-n", namespace, "exec", node, "--", "cat", "/ran"]);
        assert_eq!(ran, "began\n", "{node} has not been let go");
        kubectl(&["-n", namespace, "exec", node, "--", "touch", "/go"]);
    }
    wait_ready(namespace, "slow");
    for node in ["slow-0", "slow-1"] {
        assert_eq!(kubectl(&["-n", namespace, "exec", node, "--", "cat", "/ran"]), "began\nended\n", "{node}");
        let phase_results = get(&["groupnode", node, "-n", namespace])["status"]["phaseResults"].clone();
        let bootstrap =
            phase_results.as_array().into_iter().flatten().find(|phase_result| phase_result["phase"] == "bootstrap");
        let bootstrap = bootstrap.unwrap_or(&Value::Null);
        assert_eq!((&bootstrap["outcome"], &bootstrap["attempt"]), (&json!("Succeeded"), &json!(1)), "{phase_results}");
    }
}
