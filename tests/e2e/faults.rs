//! What goes wrong while a phase runs, and what must come of it.

use std::time::Duration;

use pallet_api::{GroupNode, GroupSpec, group_node::Outcome};
use serde_json::json;

use crate::{
    harness::{Space, busybox, condition, phase_result, script, wait},
    proxy::{Fate, Proxy},
};

/// A bootstrap that leaves marks and takes its time.
fn slow() -> serde_json::Value {
    json!({
        "count": 1, "node": busybox(),
        "phases": {
            "bootstrap": script("echo begins >>/ran; sleep 4; echo ends >>/ran"),
            "configure": script("echo configured >>/ran")
        }
    })
}

const WHOLE: &str = "begins\nends\nconfigured\n";

#[tokio::test]
async fn the_operator_may_be_killed_while_bootstrap_runs() {
    let Some(mut space) = Space::new("killed").await else { return };
    space.apply(slow()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    space.kill_operator().await;
    space.start_operator();
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE);
}

/// The run ends while nobody is there to hear of it, and the spec is edited meanwhile: the journal knows.
#[tokio::test]
async fn a_run_that_ended_unheard_is_not_repeated() {
    let Some(mut space) = Space::new("unheard").await else { return };
    space.apply(slow()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    space.kill_operator().await;
    space.exec_until("web-0", "grep ends /ran").await;
    space.patch(json!({"spec": {"phases": {"bootstrap": script("echo another bootstrap >>/ran")}}})).await;
    space.start_operator();
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE);
}

/// The operator is killed at every moment there is between an edit and its phase result: each edit runs once.
#[tokio::test]
async fn the_operator_may_be_killed_while_a_receipt_is_written() {
    let Some(mut space) = Space::new("result").await else { return };
    let spec = |round: u32| json!({"count": 1, "node": busybox(), "phases": {"configure": script(&format!("echo {round} >>/ran"))}});
    space.apply(spec(0)).await;
    space.ready().await;
    let rounds = 16;
    for round in 1..=rounds {
        space.apply(spec(round)).await;
        // From before the session to after the write, in small steps.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 20)).await;
        space.kill_operator().await;
        space.start_operator();
        space.ready().await;
    }
    let expected: String = (0..=rounds).map(|round| format!("{round}\n")).collect();
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, expected);
}

/// The operator is killed after a session, before it writes the result, and the edit is reverted: what the session has changed is
/// put right before the group is Ready. An operator that starts at rest opens no session.
#[tokio::test]
async fn a_node_whose_result_was_never_written_is_not_called_converged() {
    let Some(mut space) = Space::bare("unwritten").await else { return };
    let proxy = Proxy::start().await;
    space.connect_to(&proxy.server());
    space.start_operator();
    let spec = |word: &str| {
        let configure = script(&format!("echo {word} >/configured; echo {word} >>/ran"));
        json!({"count": 2, "node": busybox(), "phases": {"configure": configure}})
    };
    let listed = |group: &GroupSpec| group.status.as_ref().map(|status| status.unconverged.clone()).unwrap_or_default();
    space.apply(spec("one")).await;
    space
        .until("every result is written", |group| condition(group, "Ready").0 == "True" && listed(group).is_empty())
        .await;

    let before = proxy.swallowed_so_far();
    proxy.judge(|call| if call.kind() == "patch groupnodes/status" { Fate::SwallowRequest } else { Fate::Pass });
    space.apply(spec("two")).await;
    space.exec_until("web-0", "grep two /configured").await;
    proxy.swallowed(before).await;
    space.kill_operator().await;
    let group = space.groups().get("web").await.unwrap();
    assert_eq!((listed(&group).as_str(), condition(&group, "Ready").0.as_str()), ("0-1", "False"));
    proxy.judge(|_| Fate::Pass);
    space.apply(spec("one")).await;
    space.start_operator();
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /configured /ran").await, "one\none\ntwo\none\n");
    assert_eq!(space.kubectl_exec("web-1", "cat /configured").await, "one\n");

    space
        .until("every result is written", |group| condition(group, "Ready").0 == "True" && listed(group).is_empty())
        .await;
    space.kill_operator().await;
    proxy.forget_history();
    space.start_operator();
    wait("the operator has listed the nodes", || async {
        if proxy.done("list groupnodes") > 0 { Ok(()) } else { Err(format!("{:?}", proxy.history())) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(proxy.done("exec pods/exec"), 0, "nobody is asked at rest");
    assert!(!proxy.history().iter().any(|(call, _)| call.is_write()), "{:?}", proxy.history());
}

#[tokio::test]
async fn a_connection_that_is_cut_loses_nothing() {
    let Some(mut space) = Space::bare("cut").await else { return };
    let proxy = Proxy::start().await;
    space.connect_to(&proxy.server());
    space.start_operator();
    space.apply(slow()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    proxy.cut();
    tokio::time::sleep(Duration::from_millis(700)).await;
    proxy.cut();
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE);
    let bootstrap = phase_result(&space.nodes().get("web-0").await.unwrap(), "bootstrap").unwrap();
    assert_eq!((bootstrap.outcome, bootstrap.attempt), (Outcome::Succeeded, 1));
}

#[tokio::test]
async fn a_container_that_restarts_is_a_new_incarnation() {
    let Some(space) = Space::new("restart").await else { return };
    space.apply(slow()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    let _ = space.try_exec("web-0", "kill -TERM 1").await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE, "everything again, on the new file system");
    let before = space.nodes().get("web-0").await.unwrap().status.unwrap().incarnation.unwrap();

    // And once more at rest.
    let _ = space.try_exec("web-0", "kill -TERM 1").await;
    space
        .node_until("web-0", "the node is converged in another incarnation", |node| {
            let status = node.status.as_ref().unwrap();
            status.incarnation.as_ref().is_some_and(|i| i.filesystem_id != before.filesystem_id && i.uid == before.uid)
                && status.conditions.iter().any(|c| c.status == "True")
        })
        .await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE);
}

#[tokio::test]
async fn a_pod_that_is_deleted_mid_phase_is_replaced() {
    let Some(space) = Space::new("gone").await else { return };
    space.apply(slow()).await;
    space.exec_until("web-0", "grep begins /ran").await;
    let uid = space.pods().get("web-0").await.unwrap().metadata.uid;
    space.delete_pod("web-0").await;
    space
        .node_until("web-0", "another pod", |node| {
            let machine_ref = node.status.as_ref().and_then(|status| status.machine_ref.as_ref());
            machine_ref.is_some_and(|machine_ref| Some(&machine_ref.uid) != uid.as_ref())
        })
        .await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE);
}

#[tokio::test]
async fn an_edit_mid_phase_waits_for_the_end_of_the_run() {
    let Some(space) = Space::new("midedit").await else { return };
    let spec = |name: &str| json!({"count": 1, "node": busybox(), "phases": {"configure": script(&format!("echo {name} begins >>/ran; sleep 3; echo {name} ends >>/ran"))}});
    space.apply(spec("one")).await;
    space.exec_until("web-0", "grep 'one begins' /ran").await;
    space.apply(spec("two")).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, "one begins\none ends\ntwo begins\ntwo ends\n");
}

/// It hangs, ignores TERM, and leaves children in and out of its process group: at the deadline all of them are ended.
#[tokio::test]
async fn a_script_that_hangs_and_forks_is_ended_with_all_that_it_started() {
    let Some(space) = Space::new("hang").await else { return };
    let hang = "trap '' TERM; (trap '' TERM; sleep 1000 & wait) & setsid sh -c 'trap \"\" TERM; sleep 1000 & wait' & sleep 1000 & wait";
    space
        .apply(json!({
            "count": 1, "node": busybox(), "phases": {"configure": script(hang)},
            "converge": {"timeout": "2s", "retry": {"limit": 0}}
        }))
        .await;
    let node = space
        .node_until("web-0", "timed out", |node| {
            phase_result(node, "configure").is_some_and(|r| r.outcome == Outcome::TimedOut)
        })
        .await;
    assert!(phase_result(&node, "configure").unwrap().message.contains("deadline"));
    wait("no process is left", || async {
        let left = space.kubectl_exec("web-0", "ps | grep 'sleep 1000' | grep -v grep | wc -l").await;
        if left.trim() == "0" { Ok(()) } else { Err(space.kubectl_exec("web-0", "ps").await) }
    })
    .await;
}

#[tokio::test]
async fn output_without_end_or_newline_is_bounded() {
    let Some(space) = Space::new("flood").await else { return };
    let flood = "dd if=/dev/urandom bs=65536 count=16 of=/tmp/x 2>/dev/null; i=0; while [ $i -lt 210 ]; do tr -d '\\n' </tmp/x; i=$((i+1)); done; printf 'the last words'";
    space.apply(json!({"count": 1, "node": busybox(), "phases": {"configure": script(flood)}})).await;
    space.ready().await;
    let node: GroupNode = space.nodes().get("web-0").await.unwrap();
    let configure = phase_result(&node, "configure").unwrap();
    assert!(configure.output_bytes > 200 << 20, "{}", configure.output_bytes);
    assert!(configure.output.ends_with("the last words") && configure.output.chars().count() <= 2048);
    let kept = space.kubectl_exec("web-0", "du -sk /var/lib/pallet | cut -f1").await;
    assert!(kept.trim().parse::<u32>().unwrap() < 8 << 10, "the journal holds {kept} KiB");
}
