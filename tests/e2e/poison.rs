//! Groups that cannot come to rest beside groups that can.

use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    harness::{Space, busybox, condition, node, reason, script},
    proxy::{Call, Fate, Proxy},
};

const EACH: usize = 2;

fn group(node: Value, script: Value) -> Value {
    json!({
        "count": 2, "node": node, "phases": {"configure": script},
        "converge": {"retry": {"limit": 100, "backoff": "1s"}}
    })
}

fn sound() -> Value {
    group(busybox(), script("true"))
}

/// What is wrong with each, but for `mute`, of which the API server takes no status.
fn poison(what: &str) -> Value {
    match what {
        "unreadable" => group(busybox(), script("echo {{ settings.nope }}")),
        "refused" => {
            let mut template = busybox();
            template["pod"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Never".into();
            group(template, script("true"))
        }
        "imageless" => group(node("localhost/none:1"), script("true")),
        "failing" => group(busybox(), script("exit 7")),
        "silent" => group(node("localhost/noshell:1"), script("true")),
        _ => sound(),
    }
}

const POISONS: [&str; 6] = ["unreadable", "refused", "imageless", "failing", "silent", "mute"];

/// How long a sound group of this name takes.
async fn converge_time(space: &Space, name: &str) -> Duration {
    let began = Instant::now();
    space.apply_as(name, sound()).await;
    space.ready_as(name).await;
    began.elapsed()
}

#[tokio::test]
async fn a_poison_group_keeps_no_other_waiting_and_heals_when_it_is_mended() {
    let Some(mut space) = Space::bare("poison").await else { return };
    let proxy = Proxy::start().await;
    let mute = |call: &Call| {
        call.resource == "groupspecs/status" && call.name.as_ref().is_some_and(|name| name.starts_with("mute"))
    };
    proxy.judge(move |call| if mute(&call) { Fate::Answer(500) } else { Fate::Pass });
    space.connect_to(&proxy.server());
    space.start_operator();
    // The first one pays for what is only done once.
    converge_time(&space, "first").await;
    let alone = converge_time(&space, "alone").await;

    let names: Vec<(&str, String)> =
        POISONS.iter().flat_map(|what| (0..EACH).map(move |number| (*what, format!("{what}-{number}")))).collect();
    for (what, name) in &names {
        space.apply_as(name, poison(what)).await;
    }
    for (what, name) in &names {
        let first = format!("{name}-0");
        match *what {
            "unreadable" | "refused" => {
                let group = space.until_as(name, "Stalled", |group| condition(group, "Stalled").0 == "True").await;
                let expected = if *what == "refused" { "InvalidTemplate" } else { "InvalidSpec" };
                assert_eq!(condition(&group, "Stalled").1, expected);
            }
            "imageless" => drop(space.node_until(&first, "told", |node| reason(node) == "ErrImageNeverPull").await),
            "failing" => {
                let failed = |node: &_| crate::harness::phase_result(node, "configure").is_some_and(|r| r.attempt > 1);
                space.node_until(&first, "it fails and fails", failed).await;
            }
            "silent" => drop(space.node_until(&first, "told", |node| reason(node) == "NoShell").await),
            _ => drop(space.node_until(&first, "converged", |node| reason(node) == "Converged").await),
        }
    }

    let mut beside = Duration::ZERO;
    for name in ["beside", "besides"] {
        beside = beside.max(converge_time(&space, name).await);
    }
    println!("a sound group took {alone:?} alone and {beside:?} beside {} that are poison", names.len());
    assert!(beside < alone * 3 + Duration::from_secs(5), "alone {alone:?}, beside {beside:?}");

    proxy.judge(|_| Fate::Pass);
    for (what, name) in &names {
        space.apply_as(name, sound()).await;
        if matches!(*what, "imageless" | "silent") {
            // The template is not carried out yet; a new pod is made from it.
            for ordinal in 0..2 {
                let pod = format!("{name}-{ordinal}");
                space.pods().delete(&pod, &DeleteParams::default()).await.unwrap();
            }
        }
        // Whoever mends is in no mood to wait for the next attempt.
        let now = json!({"metadata": {"annotations": {"pallet.dev/retry": "now"}}});
        space.groups().patch(name, &PatchParams::default(), &Patch::Merge(now)).await.unwrap();
    }
    join_all(names.iter().map(|(_, name)| space.ready_as(name))).await;
}
