//! The core that decides is pure: no client, no runtime, no clock, no randomness. What it needs of them are arguments.

use std::{fs, path::Path};

/// The modules that decide. They may use the wire types of `kube::core` and `k8s_openapi`, which are plain data.
const PURE: &[&str] = &[
    "api",
    "api.rs",
    "controller/queue.rs",
    "crds.rs",
    "facts.rs",
    "group",
    "group.rs",
    "lease/election.rs",
    "lift",
    "lift.rs",
    "phase",
    "phase.rs",
    "plan",
    "plan.rs",
    "reference.rs",
    "run/frame.rs",
    "run/mask.rs",
    "run/memory.rs",
    "run/session.rs",
    "node",
    "node.rs",
    "text.rs",
    "transport/target.rs",
    "transport/ssh/known_hosts.rs",
    "transport/ssh/loader.rs",
];

const IMPURE: &[&str] = &[
    "kube::Client",
    "kube::Api",
    "kube::runtime",
    "kube::client",
    "tokio::",
    "std::time::Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "Instant::now",
    "getrandom",
    "std::fs",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::process",
];

fn rust_files(path: &Path, found: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            rust_files(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

#[test]
fn pure_modules_import_nothing_impure() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for module in PURE {
        let path = source.join(module);
        assert!(path.exists(), "{module} is gone: mend this list");
        rust_files(&path, &mut files);
    }
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in IMPURE {
                assert!(!line.contains(word), "{}:{}: {word} in a module that decides", file.display(), number + 1);
            }
        }
    }
}

/// `use kube::{Client, ...}` over several lines would slip through the list above.
#[test]
fn the_clients_are_used_in_the_shell_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let shell =
        ["main.rs", "controller", "controller.rs", "lease.rs", "transport", "transport.rs", "run.rs", "bin", "lib.rs"];
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files = Vec::new();
        if !shell.contains(&name.as_str()) {
            rust_files(&path, &mut files);
        }
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let uses = text.split(';').filter(|statement| statement.contains("use kube::"));
            for statement in uses {
                let words: Vec<&str> = statement.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
                assert!(!words.contains(&"Client") && !words.contains(&"Api"), "{}: {statement}", file.display());
            }
        }
    }
}

/// The client's errors hold the debug output of the API server's answer. Each file that handles one turns it into words by
/// `answer::words`; a file that joins this list has to do so, too.
#[test]
fn an_error_of_the_client_is_told_in_the_words_of_the_api_server_and_nowhere_else() {
    // What each does with one: it keeps it as a cause, or passes it on to `answer::words`.
    const HANDLE: &[&str] = &[
        "answer.rs",
        "bin/kubectl-pallet/connect.rs",
        "bin/kubectl-pallet/watches.rs",
        "controller.rs",
        // It makes them, of a body that cannot be written.
        "controller/apply/create.rs",
        "lease.rs",
        "main.rs",
    ];
    // Calls of the client that are not made by `within`, `call` or `Cluster::ask`, which hand errors to the files above.
    const CALL: &[(&str, &str)] = &[("transport/pod_exec.rs", ".exec("), ("controller/report.rs", ".publish(")];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for file in &files {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let text = fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let names_one = text.contains("kube::Error") || text.contains("watcher::Error");
        assert!(!names_one || HANDLE.contains(&name), "{name}: an error of the client is handled here");
        // Walking the causes by hand comes upon one sooner or later.
        let walks = text.contains("error.source()") && !["answer.rs", "phase/render.rs"].contains(&name);
        assert!(!walks, "{name}: causes are told by answer::words");
        let explains = text.contains("answer::words") || text.contains("answer::{");
        assert!(
            explains
                || !HANDLE.contains(&name)
                || ["answer.rs", "controller/apply/create.rs", "bin/kubectl-pallet/watches.rs"].contains(&name),
            "{name}"
        );
    }
    for (name, call) in CALL {
        let text = fs::read_to_string(source.join(name)).unwrap();
        assert!(text.contains(call) && text.contains("answer::words"), "{name}: {call}");
    }
}
