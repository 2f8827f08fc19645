//! How long it takes to bring a fleet of sshd hosts through four phases, beside Ansible, pyinfra and parallel-ssh on the same
//! hosts, in one run: from nothing done to everything done, looked up on every host afterwards.
//!
//! The operator's time is from the creation of the GroupSpec to its Ready: the nodes are created, and every phase result is written,
//! within it. It prints a table and writes `target/bench/ssh.json`; it fails where a goal is missed.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::PostParams,
    runtime::wait::{Condition, await_condition},
};
use pallet_api::GroupSpec;
use serde::Deserialize;
use serde_json::{Value, json};

/// How long any run may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// What the operator is held to: the first of these tools that took part, and at least how many times its speed.
const GOALS: [(&[&str], f64); 3] = [
    (&["ansible-forks-50", "ansible-raw-forks-50"], 8.0),
    (&["pyinfra", "pyinfra-scripts"], 3.0),
    (&["parallel-ssh"], 1.0 / 1.2),
];

/// A host, as `hosts up` describes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    name: String,
    address: String,
    host_keys: Vec<String>,
    key: PathBuf,
}

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Operator {
    fn start(namespace: &str) -> Self {
        let operator = Command::new(env!("CARGO_BIN_EXE_pallet-operator"))
            .args([
                "--namespace",
                namespace,
                "--leader-elect=false",
                "--http-address=127.0.0.1:0",
                "--sessions=256",
                "--log=info",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create("target/bench/operator.log").expect("target/bench"))
            .spawn();
        Self(operator.expect("the operator"))
    }

    /// Its processor seconds so far.
    fn spent(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("its statistics");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / 100.0
    }
}

fn others(hosts: usize, arguments: &[&str]) -> String {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/ssh/others"));
    command.args(["--hosts", &hosts.to_string()]).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().expect("others");
    assert!(output.status.success(), "others {arguments:?} failed");
    String::from_utf8(output.stdout).expect("text")
}

fn fleet(count: usize) -> Vec<Host> {
    let kept = PathBuf::from(std::env::var("HOSTS_DIR").expect("HOSTS_DIR")).join("bench.json");
    let text = fs::read_to_string(kept).expect("the hosts that `others` made");
    text.lines().take(count).map(|line| serde_json::from_str(line).expect("a host")).collect()
}

/// The same four scripts that the others run.
fn group(hosts: &[Host]) -> GroupSpec {
    let script = |phase: &str| {
        let path = format!("{}/benches/ssh/phases/{phase}.sh", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("the script of a phase")
    };
    // What stands in it is no template.
    let exec =
        |phase: &str| json!({"actions": [{"exec": {"script": format!("{{% raw %}}{}{{% endraw %}}", script(phase))}}]});
    let inventory: Vec<Value> = hosts
        .iter()
        .map(|host| json!({"name": host.name, "address": host.address, "hostKeys": host.host_keys}))
        .collect();
    let object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "fleet"},
        "spec": {
            "count": hosts.len(),
            "node": {"hosts": {"key": {"secretKeyRef": {"name": "login"}}, "inventory": inventory, "connectTimeout": "60s"}},
            "phases": {
                "bootstrap": exec("bootstrap"),
                "settings": {"facts": [{"name": "system", "exec": script("settings"), "parse": "lines"}]},
                "configure": exec("configure"),
                "verify": exec("test")
            },
            "converge": {"phases": ["configure", "verify"], "rollout": {"maxParallel": "100%"}}
        }
    });
    serde_json::from_value(object).expect("a GroupSpec")
}

fn ready() -> impl Condition<GroupSpec> {
    |group: Option<&GroupSpec>| {
        let conditions = group.and_then(|group| group.status.as_ref()).map(|status| status.conditions.as_slice());
        conditions.is_some_and(|conditions| conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    }
}

/// One run of the operator: seconds on the clock, and its processor seconds.
async fn converge(cluster: &support::Cluster, namespace: &str, hosts: &[Host]) -> (f64, f64) {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let key = fs::read_to_string(&hosts[0].key).expect("the key");
    let secret = json!({"metadata": {"name": "login"}, "stringData": {"ssh-privatekey": key}});
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret).expect("a Secret"))
        .await
        .expect("the Secret");
    let operator = Operator::start(namespace);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, began) = (operator.spent(), Instant::now());
    let groups: Api<GroupSpec> = Api::namespaced(cluster.client.clone(), namespace);
    groups.create(&PostParams::default(), &group(hosts)).await.expect("the GroupSpec");
    let waiting = tokio::time::timeout(PATIENCE, await_condition(groups.clone(), "fleet", ready()));
    waiting.await.expect("Ready in time").expect("a watch");
    let took = (began.elapsed().as_secs_f64(), operator.spent() - before);
    groups.delete("fleet", &Default::default()).await.expect("the deletion");
    let gone = await_condition(groups, "fleet", |group: Option<&GroupSpec>| group.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("it goes in time").expect("a watch");
    took
}

#[tokio::main]
async fn main() {
    let Some(cluster) = support::cluster().await else { return };
    // The operator's log goes there, too.
    fs::create_dir_all("target/bench").expect("target/bench");
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (count, rounds) = (number("HOSTS", 100), number("ROUNDS", 1));
    let tools = std::env::var("TOOLS").unwrap_or_default();
    let mut rows: Vec<Value> = Vec::new();
    for _ in 0..rounds {
        others(count, &["--reset"]);
        let hosts = fleet(count);
        cluster
            .in_namespace(async |space| {
                let (seconds, client) = converge(&cluster, &space.namespace, &hosts).await;
                others(count, &["--verify"]);
                rows.push(json!({"tool": "pallet-operator", "hosts": count, "run": "cold", "seconds": seconds,
                    "cpu_seconds_client": client}));
            })
            .await;
        let chosen: Vec<String> = tools.split_whitespace().map(|tool| format!("--only={tool}")).collect();
        let said = others(count, &chosen.iter().map(String::as_str).collect::<Vec<_>>());
        rows.extend(said.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row")));
    }
    assert!(report(&rows), "a goal is missed");
}

/// The median of a tool's cold runs, in seconds.
fn cold(rows: &[Value], tool: &str) -> Option<f64> {
    let mine = rows.iter().filter(|row| row["tool"] == tool && row["run"] == "cold");
    let mut seconds: Vec<f64> = mine.filter_map(|row| row["seconds"].as_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len().checked_sub(1)? / 2).copied()
}

/// Prints and writes the figures. Says whether the goals are met.
fn report(rows: &[Value]) -> bool {
    println!("{:<22} {:>7} {:>9} {:>12}", "four phases", "run", "seconds", "client CPU s");
    for row in rows {
        let (tool, run) = (row["tool"].as_str().unwrap_or_default(), row["run"].as_str().unwrap_or_default());
        let number = |name: &str| row[name].as_f64().unwrap_or_default();
        println!("{tool:<22} {run:>7} {:>9.2} {:>12.2}", number("seconds"), number("cpu_seconds_client"));
    }
    let mine = cold(rows, "pallet-operator").expect("a run");
    let mut all = true;
    let mut goals = Vec::new();
    for (tools, goal) in GOALS {
        let Some((tool, theirs)) = tools.iter().find_map(|tool| Some((*tool, cold(rows, tool)?))) else { continue };
        let (times, met) = (theirs / mine, theirs / mine >= goal);
        all &= met;
        println!("{times:.2} times the speed of {tool}; the goal is {goal:.2}: {}", if met { "met" } else { "MISSED" });
        goals.push(json!({"tool": tool, "times": times, "goal": goal, "met": met}));
    }
    let result = json!({"goals": goals, "runs": rows});
    fs::write("target/bench/ssh.json", format!("{result:#}\n")).expect("target/bench/ssh.json");
    all
}
