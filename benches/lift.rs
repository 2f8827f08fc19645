//! How long one Lift of one small script takes on one node, from the command line to its output, beside `kubectl exec` of the
//! same script and a Job of it, in one run.
//!
//! The three take turns, so that whatever else the machine does hits them alike. It prints a table and writes
//! `target/bench/lift.json`. The goal is a matter of the median: at most 50 ms more than `kubectl exec`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kube::{Api, api::PostParams};
use pallet_api::GroupSpec;
use serde_json::{Value, json};

/// What runs, whichever way.
const SCRIPT: &str = "uname -s";
const SAYS: &str = "Linux";
/// At most so much longer than `kubectl exec` at the median.
const GOAL: Duration = Duration::from_millis(50);

struct Operator(Child);

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a command, and says how long it took. It must print what the script does.
fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().expect("the command runs");
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(SAYS), "{command:?}: {said}{complained}");
    took
}

fn kubectl(namespace: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.args(["-n", namespace]).args(arguments);
    command
}

fn lift(namespace: &str) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_pallet-operator")).with_file_name("kubectl-pallet"));
    command.args(["-n", namespace, "lift", "web", "--exec", SCRIPT, "-q"]);
    command
}

/// A Job, until its output can be read.
fn job(namespace: &str, name: &str) -> Duration {
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": {
        "restartPolicy": "Never",
        "containers": [{
            "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-c", SCRIPT]
        }]
    }}}});
    let path = format!("{}/{namespace}-{name}.json", env!("CARGO_TARGET_TMPDIR"));
    fs::write(&path, job.to_string()).expect("a file");
    let began = Instant::now();
    for arguments in
        [vec!["create", "-f", &path], vec!["wait", "--for=condition=Complete", "--timeout=60s", &format!("job/{name}")]]
    {
        assert!(kubectl(namespace, &arguments).output().expect("kubectl").status.success(), "{arguments:?}");
    }
    timed(&mut kubectl(namespace, &["logs", &format!("job/{name}")]));
    let took = began.elapsed();
    fs::remove_file(path).expect("the file");
    took
}

struct Times {
    what: &'static str,
    milliseconds: Vec<f64>,
}

impl Times {
    fn new(what: &'static str) -> Self {
        Self { what, milliseconds: Vec::new() }
    }

    fn add(&mut self, took: Duration) {
        self.milliseconds.push(took.as_secs_f64() * 1000.0);
    }

    /// The time that `percent` of the rounds did not exceed.
    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.milliseconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[(sorted.len() - 1) * percent / 100]
    }

    fn json(&self) -> Value {
        json!({"what": self.what, "rounds": self.milliseconds.len(), "p50": self.percentile(50), "p95": self.percentile(95),
            "milliseconds": self.milliseconds})
    }
}

#[tokio::main]
async fn main() {
    // Cargo runs benches with flags of its own; there are none to take.
    let Some(cluster) = support::cluster().await else { return };
    let (rounds, jobs) = (number("ROUNDS", 60), number("JOBS", 5));
    cluster
        .in_namespace(async |space| {
            let namespace = space.namespace.clone();
            let operator = Command::new(env!("CARGO_BIN_EXE_pallet-operator"))
                .args(["--namespace", &namespace, "--leader-elect=false", "--http-address=127.0.0.1:0"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let _operator = Operator(operator.expect("the operator"));
            let group = json!({
                "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "web"},
                "spec": {"count": 1, "node": {"pod": {"template": {"spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never"}]
                }}}}}
            });
            let groups: Api<GroupSpec> = Api::namespaced(cluster.client.clone(), &namespace);
            let group = serde_json::from_value(group).expect("a GroupSpec");
            groups.create(&PostParams::default(), &group).await.expect("the GroupSpec");
            let ready =
                kubectl(&namespace, &["wait", "--for=condition=Ready", "--timeout=120s", "groupspec/web"]).status();
            assert!(ready.expect("kubectl").success(), "the group is Ready");
            // Hot: neither the first connection nor the first Lift counts.
            for _ in 0..3 {
                timed(&mut lift(&namespace));
                timed(&mut kubectl(&namespace, &["exec", "web-0", "--", "sh", "-c", SCRIPT]));
            }
            let mut times = [Times::new("kubectl exec"), Times::new("kubectl pallet lift"), Times::new("a Job")];
            for round in 0..rounds {
                times[0].add(timed(&mut kubectl(&namespace, &["exec", "web-0", "--", "sh", "-c", SCRIPT])));
                times[1].add(timed(&mut lift(&namespace)));
                if round < jobs {
                    times[2].add(job(&namespace, &format!("job-{round}")));
                }
            }
            assert!(report(&times), "the goal is missed");
        })
        .await;
}

/// Prints and writes the figures. Says whether the goal is met.
fn report(times: &[Times]) -> bool {
    println!("{:<22} {:>7} {:>9} {:>9}", "one script, one node", "rounds", "p50 ms", "p95 ms");
    for times in times {
        let (half, most) = (times.percentile(50), times.percentile(95));
        println!("{:<22} {:>7} {half:>9.1} {most:>9.1}", times.what, times.milliseconds.len());
    }
    let more = times[1].percentile(50) - times[0].percentile(50);
    let met = more <= GOAL.as_secs_f64() * 1000.0;
    let word = if met { "met" } else { "MISSED" };
    println!(
        "a Lift takes {more:.1} ms more than kubectl exec at the median; the goal is {} ms: {word}",
        GOAL.as_millis()
    );
    let result = json!({"moreThanExec": more, "goal": GOAL.as_millis() as u64, "met": met,
        "times": times.iter().map(Times::json).collect::<Vec<_>>()});
    fs::create_dir_all("target/bench").expect("target/bench");
    fs::write("target/bench/lift.json", format!("{result:#}\n")).expect("target/bench/lift.json");
    met
}
