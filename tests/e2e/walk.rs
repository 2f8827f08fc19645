//! What every kind of node promises alike: phases in their order and once, phase results, retries, timeouts that end what runs, a
//! run that outlives its operator, a Lift, and a farewell. The same on pods, hosts and virtual machines.

use std::time::Duration;

use kube::api::PostParams;
use pallet_api::{GroupNode, Lift, group_node::Outcome};
use serde_json::{Value, json};

use crate::{
    grounds::Ground,
    harness::{Space, condition, phase_result, script, wait},
};

/// Where the scripts write down what ran, in order.
const TRACE: &str = "/root/trace";

fn traced(what: &str) -> String {
    format!("echo {what} >> {TRACE}")
}

fn phases(configure: &str) -> Value {
    json!({
        "bootstrap": script(&traced("bootstrap")),
        "settings": {
            "values": {"greeting": "{{ node.name }} runs {{ facts.os.family }}"},
            "facts": [{"name": "kernel", "exec": "uname -r"}]
        },
        "install": script(&traced("install")),
        "configure": {"actions": [
            {"exec": {"script": configure}},
            {"file": {"path": "/root/greeting", "content": "{{ settings.greeting }} on {{ facts.kernel }}\n"}}
        ]},
        "test": {"expect": [{"name": "memory", "expression": "facts.memory.totalBytes > 0", "message": "no memory"}]}
    })
}

fn spec(ground: &Ground, phases: &Value, converge: &Value) -> Value {
    let mut converge = converge.clone();
    converge["phases"] = json!(["install", "configure", "test"]);
    json!({"node": ground.node(), "phases": phases, "converge": converge})
}

fn attempt(node: &GroupNode, phase: &str) -> Option<(u32, Outcome)> {
    phase_result(node, phase).map(|phase_result| (phase_result.attempt, phase_result.outcome))
}

async fn walk(space: &mut Space, ground: &Ground) {
    let trace = async |space: &Space| ground.run(space, "web-0", &format!("cat {TRACE}")).await;
    // Everything once, in order.
    space.apply(spec(ground, &phases(&traced("configure")), &json!({}))).await;
    space.ready().await;
    assert_eq!(trace(space).await, "bootstrap\ninstall\nconfigure\n");
    let greeting = ground.run(space, "web-0", "cat /root/greeting").await;
    assert!(greeting.starts_with("web-0 runs ") && greeting.contains(" on "), "{greeting}");
    let node = space.nodes().get("web-0").await.unwrap();
    for phase in ["bootstrap", "settings", "install", "configure", "test"] {
        assert_eq!(attempt(&node, phase), Some((1, Outcome::Succeeded)), "{phase}");
    }
    // An edit runs what changed, and nothing else; output and exit code come back.
    let flaky = format!("{}; [ -e /root/mended ] || {{ echo out of luck; exit 7; }}", traced("edited"));
    let retries = json!({"retry": {"limit": 1, "backoff": "1s"}});
    space.apply(spec(ground, &phases(&flaky), &retries)).await;
    let group = space.until("it has failed for good", |group| condition(group, "Stalled").1 == "PhaseFailed").await;
    assert!(condition(&group, "Stalled").2.contains("out of luck"), "{group:?}");
    let node = space.nodes().get("web-0").await.unwrap();
    let failed = phase_result(&node, "configure").unwrap();
    assert_eq!((failed.attempt, failed.outcome, failed.exit_code), (2, Outcome::Failed, Some(7)));
    ground.run(space, "web-0", "touch /root/mended").await;
    space.patch(json!({"metadata": {"annotations": {"pallet.dev/retry": "again"}}})).await;
    space.ready().await;
    assert_eq!(trace(space).await, "bootstrap\ninstall\nconfigure\nedited\nedited\nedited\n");
    // A timeout ends what runs, with all that it started.
    let endless = "sleep 7654 & sleep 7654";
    let hurry = json!({"timeout": "3s", "retry": {"limit": 0}});
    space.apply(spec(ground, &phases(endless), &hurry)).await;
    let late = |node: &GroupNode| attempt(node, "configure").is_some_and(|(_, outcome)| outcome == Outcome::TimedOut);
    space.node_until("web-0", "it is ended", late).await;
    let left = "for c in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$c 2>/dev/null | grep -x 'sleep 7654 ' || :; done";
    assert_eq!(ground.run(space, "web-0", left).await, "", "nothing of it is left");
    // A run goes on without its operator, and is found again.
    let slow = format!("{}; while [ ! -e /root/go ]; do sleep 0.2; done", traced("slow"));
    space.apply(spec(ground, &phases(&slow), &json!({}))).await;
    let runs = |node: &GroupNode| {
        let running = node.status.as_ref().and_then(|status| status.running.as_ref());
        running.is_some_and(|running| running.phase == "configure")
    };
    space.node_until("web-0", "it runs", runs).await;
    space.kill_operator().await;
    ground.run(space, "web-0", "touch /root/go").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    space.start_operator();
    space.ready().await;
    assert_eq!(trace(space).await.matches("slow").count(), 1);
    // A Lift runs it once more.
    let lift: Lift = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": "again"},
        "spec": {"groups": ["web"], "phases": ["configure"]}
    }))
    .unwrap();
    let lifts: kube::Api<Lift> = kube::Api::namespaced(space.client.clone(), &space.name);
    lifts.create(&PostParams::default(), &lift).await.unwrap();
    wait("the Lift is complete", || async {
        let status = lifts.get("again").await.unwrap().status.unwrap_or_default();
        let complete = status.conditions.iter().any(|c| c.type_ == "Complete" && c.status == "True");
        if complete { Ok(()) } else { Err(format!("{status:#?}")) }
    })
    .await;
    assert_eq!(trace(space).await.matches("slow").count(), 2);
    // Nothing is due: nothing is asked of the node, and nothing is written.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = (trace(space).await, space.count("patch groupnodes/status"));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((trace(space).await, space.count("patch groupnodes/status")), before);
}

#[tokio::test]
async fn on_a_pod() {
    let Some(mut space) = Space::new("walk-pod").await else { return };
    walk(&mut space, &Ground::Pods("localhost/busybox:1")).await;
}

#[tokio::test]
async fn on_a_host() {
    let Some(mut space) = Space::new("walk-host").await else { return };
    let ground = Ground::hosts(&space, 1).await;
    walk(&mut space, &ground).await;
}

/// By `make test-vms`.
#[tokio::test]
#[ignore = "needs KubeVirt"]
async fn on_a_virtual_machine() {
    let Some(mut space) = Space::new("walk-vm").await else { return };
    walk(&mut space, &Ground::VirtualMachines).await;
}
