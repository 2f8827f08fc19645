//! The smoke benchmark: hundreds of nodes on kwok come up through all phases, and what each of them cost is counted.
//!
//! `make bench-smoke SMOKE_NODES=250`. The pods are fakes; the API server, the sessions and the agent are real: every
//! fake pod has a process of its own beside kwok that runs the scripts.

#[path = "e2e/harness.rs"]
#[allow(dead_code)]
mod harness;

use std::time::{Duration, Instant};

use harness::{Space, condition, script};
use serde_json::json;

#[tokio::test]
async fn hundreds_of_nodes_converge_at_the_promised_cost() {
    let count: usize = std::env::var("SMOKE_NODES").ok().and_then(|n| n.parse().ok()).unwrap_or(250);
    let Some(space) = Space::new("smoke").await else { return };
    // The watches are there, or nothing would come of the group.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (idle, _) = space.memory();
    let began = Instant::now();
    space
        .apply(json!({
            "count": count,
            "node": {"pod": {"template": {"spec": {
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                "containers": [{"name": "main", "image": "fake"}]
            }}}},
            "phases": {
                "bootstrap": script("echo bootstrap"),
                "settings": {"values": {"greeting": "{{ facts.os.arch }}"}},
                "configure": script("echo {{ settings.greeting }} {{ node.name }}")
            },
            "converge": {"rollout": {"maxParallel": "100%"}}
        }))
        .await;
    let deadline = began + Duration::from_secs(600);
    loop {
        let group = space.groups().get("web").await.unwrap();
        let status = group.status.clone().unwrap_or_default();
        if condition(&group, "Ready").0 == "True" {
            break;
        }
        assert!(Instant::now() < deadline, "not Ready in time: {status:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let took = began.elapsed();
    // The last requests may still be on their way into the log.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let requests = space.requests();
    let each = |request: &str| requests.iter().filter(|other| *other == request).count();
    // Of those whose connection is kept for a moment, 32 at the most, the log does not tell yet.
    let execs = requests.iter().filter(|request| request.ends_with("pods/exec")).count();
    let per_node = |n: usize| n as f64 / count as f64;
    println!(
        "{count} nodes converged in {:.1} s: {:.1} a second",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64()
    );
    let (now, most) = space.memory();
    println!("the operator's memory: {idle} MiB before, {now} MiB with {count} nodes, {most} MiB at the most");
    println!("requests a node:");
    let table = [
        ("create groupnodes", each("create groupnodes"), 1.0),
        ("create pods", each("create pods"), 1.0),
        ("sessions (pods/exec)", execs, 1.0),
        ("patch groupnodes/status", each("patch groupnodes/status"), 2.0),
        ("patch pods/status", each("patch pods/status"), 1.0),
        ("patch groupspecs/status", each("patch groupspecs/status"), 0.5),
        ("everything", requests.len(), 6.2),
    ];
    for (what, n, most) in table {
        println!("  {what:<24} {:>6.3}   at most {most}", per_node(n));
        // A fiftieth is for what a group costs once: the dry run, its finalizer, its events.
        assert!(per_node(n) <= most + 0.02, "{what}: {n} for {count} nodes");
    }
}
