//! Watches that are late, too old, torn, or refused; and a connection on which nothing comes any more.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use pallet_api::group_node::Outcome;
use serde_json::{Value, json};

use crate::{
    harness::{Space, busybox, phase_result, script, wait},
    proxy::{Fate, Proxy},
};

async fn space(what: &str) -> Option<(Space, Proxy)> {
    let mut space = Space::bare(what).await?;
    let proxy = Proxy::start().await;
    space.connect_to(&proxy.server());
    space.start_operator();
    Some((space, proxy))
}

fn quick(count: u32) -> Value {
    json!({"count": count, "node": busybox(), "phases": {"configure": script("echo configured >>/ran")}})
}

async fn assert_exactly(space: &Space, count: usize) {
    let names: Vec<String> = (0..count).map(|ordinal| format!("web-{ordinal}")).collect();
    wait("as many nodes and pods as the count says", || async {
        let nodes = space.nodes().list(&Default::default()).await.unwrap().items;
        let (nodes, pods) = (nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), space.pod_names().await);
        if nodes == names && pods == names { Ok(()) } else { Err(format!("{nodes:?} {pods:?}")) }
    })
    .await;
    for name in names {
        assert_eq!(space.exec(&name, "cat /ran").await, "configured\n");
    }
}

/// What the operator does shows late: it has only the answers to its own writes to go by.
#[tokio::test]
async fn watches_that_are_late_make_nothing_twice() {
    let Some((space, proxy)) = space("late").await else { return };
    space.apply(quick(1)).await;
    space.ready().await;
    let behind: &[&str] = &["groupnodes", "pods"];
    proxy.hold_watches(behind);
    space.patch(json!({"spec": {"count": 5}})).await;
    let made = |count: usize| {
        let proxy = &proxy;
        move || async move {
            let found = (proxy.done("create groupnodes"), proxy.done("create pods"));
            if found == (count, count) { Ok(()) } else { Err(format!("{found:?}")) }
        }
    };
    wait("five nodes are made", made(5)).await;
    // Time enough for many passes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    space.patch(json!({"spec": {"count": 2}})).await;
    wait("three are removed", || async {
        let removed = proxy.done("delete groupnodes");
        if removed == 3 { Ok(()) } else { Err(removed.to_string()) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((proxy.done("create pods"), proxy.done("delete groupnodes")), (5, 3));
    proxy.hold_watches(&[]);
    space.ready().await;
    assert_exactly(&space, 2).await;
    // And late in what is wanted: the operator goes on with the old count until it hears of the new one.
    proxy.hold_watches(&["groupspecs"]);
    space.patch(json!({"spec": {"count": 0}})).await;
    space.patch(json!({"spec": {"count": 3}})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    proxy.hold_watches(&[]);
    space.ready().await;
    assert_exactly(&space, 3).await;
    // Where a reconcile fell between the two events, two nodes went and came back. Nothing was made twice in either case.
    let (created, removed) = (proxy.done("create pods"), proxy.done("delete groupnodes"));
    assert!(matches!((created, removed), (6, 3) | (8, 5)), "{created} created, {removed} removed");
}

#[tokio::test]
async fn watches_that_are_torn_too_old_or_refused_lose_and_double_nothing() {
    let Some((space, proxy)) = space("torn").await else { return };
    space.apply(quick(1)).await;
    let mut made = 1;
    let mut before = 1;
    for (round, count) in [4, 1, 3, 0, 2].into_iter().enumerate() {
        space.patch(json!({"spec": {"count": count}})).await;
        for blow in 0..4 {
            match (round + blow) % 3 {
                0 => proxy.expire_watches(),
                1 => proxy.tear_watches(),
                // Every new watch is too old from the start; those that are there go on.
                _ => proxy.judge(|call| if call.verb == "watch" { Fate::Answer(410) } else { Fate::Pass }),
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        proxy.judge(|_| Fate::Pass);
        space.ready().await;
        assert_exactly(&space, count).await;
        made += count.saturating_sub(before);
        before = count;
        assert_eq!((proxy.done("create groupnodes"), proxy.done("create pods")), (made, made), "round {round}");
    }
}

/// The connection stays open and nothing comes, not even a sign of life: it is given up, and the run found again.
#[tokio::test]
async fn a_node_that_falls_silent_is_asked_anew() {
    let Some((space, proxy)) = space("silent").await else { return };
    space
        .apply(json!({
            "count": 1, "node": busybox(),
            "phases": {
                "bootstrap": script("echo begins >>/ran; sleep 4; echo ends >>/ran"),
                "configure": script("echo configured >>/ran")
            }
        }))
        .await;
    space.exec_until("web-0", "grep begins /ran").await;
    proxy.freeze_execs();
    let began = Instant::now();
    space.ready().await;
    let waited = began.elapsed();
    assert!(Duration::from_secs(30) < waited && waited < Duration::from_secs(75), "{waited:?}");
    assert_eq!(space.exec("web-0", "cat /ran").await, "begins\nends\nconfigured\n");
    let bootstrap = phase_result(&space.nodes().get("web-0").await.unwrap(), "bootstrap").unwrap();
    assert_eq!((bootstrap.outcome, bootstrap.attempt), (Outcome::Succeeded, 1));
    assert_eq!(proxy.done("create pods"), 1);
}
