//! The packages and what they may depend on: what decides has no client and no runtime, and the plugin no server.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// The packages that one is linked with, by `cargo tree`.
fn linked(package: &str) -> BTreeSet<String> {
    let arguments = ["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p} {f}"];
    let root = env!("CARGO_MANIFEST_DIR");
    let run = Command::new(env!("CARGO")).args(arguments).args(["--package", package]).current_dir(root).output();
    let run = run.expect("cargo runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = String::from_utf8(run.stdout).expect("cargo prints text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn assert_without(package: &str, refused: &[&str]) {
    let linked = linked(package);
    assert!(linked.contains("serde_json"), "{package}: {linked:?}");
    for name in refused {
        assert!(!linked.contains(*name), "{package} is linked with {name}");
    }
}

/// Clocks, files and processes of the standard library are refused by `crates/pallet-core/clippy.toml`, in `make lint`.
#[test]
fn what_decides_has_no_client_and_no_runtime() {
    const REFUSED: &[&str] = &["kube-client", "kube-runtime", "tokio", "hyper", "russh", "rustls", "axum", "getrandom"];
    assert_without("pallet-api", REFUSED);
    assert_without("pallet-core", REFUSED);
}

#[test]
fn the_plugin_has_no_ssh_client_and_no_server_of_metrics() {
    assert_without("kubectl-pallet", &["russh", "prometheus-client", "pallet-operator"]);
}

fn rust_files(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            rust_files(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The client's errors hold the debug output of the API server's answer. Each file that handles one turns it into words by
/// `answer::words`; a file that joins this list has to do so, too.
#[test]
fn an_error_of_the_client_is_told_in_the_words_of_the_api_server_and_nowhere_else() {
    const ANSWER: &str = "crates/pallet-client/src/answer.rs";
    // What each does with one: it keeps it as a cause, or passes it on to `answer::words`.
    const HANDLE: &[&str] = &[
        ANSWER,
        "crates/kubectl-pallet/src/connect.rs",
        "crates/kubectl-pallet/src/watches.rs",
        "src/controller.rs",
        "src/controller/error.rs",
        // It makes them, of a body that cannot be written.
        "src/controller/apply/create.rs",
        "src/lease.rs",
        "src/main.rs",
    ];
    // Calls of the client that are not made by `within`, `call` or `Cluster::ask`, which hand errors to the files above.
    const CALL: &[(&str, &str)] = &[("src/transport/pod_exec.rs", ".exec("), ("src/controller/report.rs", ".publish(")];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("crates"), &mut files);
    for file in &files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let names_one = text.contains("kube::Error") || text.contains("watcher::Error");
        assert!(!names_one || HANDLE.contains(&name), "{name}: an error of the client is handled here");
        // Walking the causes by hand comes upon one sooner or later.
        let walks =
            text.contains("error.source()") && ![ANSWER, "crates/pallet-core/src/phase/render.rs"].contains(&name);
        assert!(!walks, "{name}: causes are told by answer::words");
        let explains = text.contains("answer::words") || text.contains("answer::{");
        assert!(
            explains
                || !HANDLE.contains(&name)
                || [ANSWER, "src/controller/apply/create.rs", "crates/kubectl-pallet/src/watches.rs"].contains(&name),
            "{name}"
        );
    }
    for (name, call) in CALL {
        let text = fs::read_to_string(root.join(name)).unwrap();
        assert!(text.contains(call) && text.contains("answer::words"), "{name}: {call}");
    }
}

/// A reason stands in one table, with its meaning: a literal of one would be another place. Names that are a word of Kubernetes as well,
/// such as the phase of a pod, are left out.
#[test]
fn no_reason_is_a_literal() {
    use pallet_api::reason::Reason::{
        self, Converged, Drifted, Paused, Pending, Running, Stopped, Succeeded, Suspended,
    };
    const SHARED: &[Reason] = &[Converged, Drifted, Paused, Pending, Running, Stopped, Succeeded, Suspended];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("crates"), &mut files);
    let is_test = |name: &str| name.contains("/tests") || name.ends_with("leaks.rs");
    let mut seen = 0;
    for file in &files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap();
        if is_test(name) || name == "crates/pallet-api/src/reason.rs" || name == "crates/kubectl-pallet/src/advice.rs" {
            continue;
        }
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        seen += text.matches("Reason::").count();
        for reason in Reason::ALL.iter().filter(|reason| !SHARED.contains(reason)) {
            assert!(!text.contains(&format!("\"{reason}\"")), "{name}: use Reason::{reason}");
        }
    }
    assert!(seen > 100, "reasons are used {seen} times");
}
