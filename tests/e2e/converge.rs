//! Converge as it is meant to go.

use std::time::Duration;

use pallet_api::group_node::Effect;
use serde_json::json;

use crate::harness::{Space, busybox, condition, phase_result, script, wait};

/// The whole of it: pods are created, bootstrapped once, asked for their facts, configured, and reported; then nothing.
#[tokio::test]
async fn a_group_converges_at_its_promised_cost_and_then_rests() {
    let Some(space) = Space::new("converge").await else { return };
    space
        .apply(json!({
            "count": 3, "node": busybox(),
            "phases": {
                "bootstrap": script("mkdir -p /srv; echo bootstrap >>/ran"),
                "settings": {
                    "facts": [{"name": "answer", "exec": "echo 42"}, {"name": "gone", "file": "/nowhere", "optional": true}],
                    "values": {"greeting": "{{ group.name }} says {{ facts.answer }}", "list": ["a", "{{ node.ordinal }}"]}
                },
                "configure": {"actions": [
                    {"name": "motd", "file": {"path": "/srv/motd", "content": "{{ settings.greeting }} on {{ node.name }}\n", "mode": "0640"}},
                    {"name": "ran", "exec": {"script": "echo configure {{ settings.list }} {{ facts.gone or 'nothing' }} >>/ran; echo done as {{ facts.hostname }}"}}
                ]}
            }
        }))
        .await;
    let group = space.ready().await;
    let status = group.status.clone().unwrap();
    assert_eq!(
        (status.replicas, status.ready_replicas, status.converged_replicas, status.updated_replicas),
        (3, 3, 3, 3)
    );
    assert_eq!(status.selector, "pallet.dev/group=web");
    assert!(status.phases.iter().all(|phase| phase.succeeded == 3), "{:?}", status.phases);
    assert_eq!(space.pod_names().await, ["web-0", "web-1", "web-2"]);
    for name in ["web-0", "web-1", "web-2"] {
        let node = space.nodes().get(name).await.unwrap();
        let facts = &node.status.as_ref().unwrap().facts;
        assert_eq!((&facts["answer"], &facts["hostname"]), (&json!("42"), &json!(name)));
        let configure = phase_result(&node, "configure").unwrap();
        assert_eq!(configure.output, format!("done as {name}\n"));
        assert!(configure.actions.iter().all(|action| action.result == Effect::Changed));
        let ordinal = &name[4..];
        assert_eq!(space.kubectl_exec(name, "cat /ran").await, format!("bootstrap\nconfigure a {ordinal} nothing\n"));
        assert_eq!(
            space.kubectl_exec(name, "cat /srv/motd; stat -c %a /srv/motd").await,
            format!("web says 42 on {name}\n640\n")
        );
    }

    // An exec is in the log when its connection is closed, which is kept for a minute after its session.
    let execs = |spent: &[String]| spent.iter().filter(|request| request.ends_with("pods/exec")).count();
    wait("every connection is closed", || async {
        let spent = space.requests();
        if execs(&spent) >= 3 { Ok(()) } else { Err(format!("{spent:?}")) }
    })
    .await;
    // The last requests may still be on their way into the log.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let spent = space.requests();
    println!("requests of a new group of 3: {spent:?}");
    assert_eq!(space.count("create groupnodes"), 3);
    // One of them is the dry run of the template.
    assert_eq!(space.count("create pods"), 3 + 1);
    assert_eq!(space.count("patch pods/status"), 3);
    assert!(space.count("patch groupnodes/status") <= 2 * 3, "{spent:?}");
    assert_eq!(execs(&spent), 3, "one session a node: {spent:?}");

    // Promised for ten thousand nodes.
    let (resident, _) = space.memory();
    assert!(resident < 150, "the operator holds {resident} MiB for three nodes");
    // At rest: no write, no command, for as long as we look.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(space.requests(), spent, "an idle group costs nothing");
}

#[tokio::test]
async fn a_changed_phase_runs_again_in_place_and_an_unchanged_one_does_not() {
    let Some(space) = Space::new("edit").await else { return };
    let spec = |version: &str| {
        json!({
            "count": 2, "node": busybox(),
            "phases": {"bootstrap": script("echo bootstrap >>/ran"), "configure": script(&format!("echo {version} >>/ran"))}
        })
    };
    space.apply(spec("one")).await;
    space.ready().await;
    space.apply(spec("two")).await;
    space.ready().await;
    // A changed bootstrap is for new nodes.
    let mut third = spec("two");
    third["phases"]["bootstrap"] = script("echo other >>/ran");
    third["count"] = 3.into();
    space.apply(third).await;
    space.ready().await;
    // Back to what it was: it has to run again, since two has overwritten what one did.
    space.apply(spec("one")).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, "bootstrap\none\ntwo\none\n");
}

#[tokio::test]
async fn failures_are_isolated_retried_reported_and_ended_by_an_annotation() {
    let Some(space) = Space::new("retry").await else { return };
    space
        .apply(json!({
            "count": 2, "node": busybox(),
            "phases": {"configure": {"actions": [
                {"name": "first", "exec": {"script": "echo try >>/ran"}},
                {"name": "gate", "exec": {"script": "if [ {{ node.ordinal }} = 1 ] && [ ! -e /open ]; then echo 'the gate is shut' >&2; exit 7; fi"}},
                {"name": "last", "exec": {"script": "echo last >>/ran"}}
            ]}},
            "converge": {"retry": {"limit": 2, "backoff": "1s"}}
        }))
        .await;
    let group = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    let (_, reason, message) = condition(&group, "Stalled");
    assert_eq!(reason, "PhaseFailed");
    assert!(
        message.contains("web-1") && message.contains("the gate is shut") && message.contains("pallet.dev/retry"),
        "{message}"
    );
    assert_eq!(condition(&group, "Reconciling").0, "", "never both");
    let status = group.status.unwrap();
    assert_eq!(status.converged_replicas, 1, "the other node goes on");
    let error = &status.phase_errors[0];
    assert_eq!(
        (error.node.as_str(), error.phase.as_str(), error.action.as_deref()),
        ("web-1", "configure", Some("gate"))
    );
    assert_eq!((error.attempt, error.exit_code), (3, Some(7)));
    assert_eq!(
        space.kubectl_exec("web-1", "cat /ran").await,
        "try\ntry\ntry\n",
        "1 + limit attempts, nothing after the failure"
    );
    let failed = phase_result(&space.nodes().get("web-1").await.unwrap(), "configure").unwrap();
    assert_eq!(failed.actions.iter().map(|a| a.result).collect::<Vec<_>>(), [Effect::Changed, Effect::Failed]);

    space.kubectl_exec("web-1", "touch /open").await;
    let annotation = json!({"metadata": {"annotations": {"pallet.dev/retry": "1"}}});
    space.patch(annotation).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, "try\nlast\n", "what has succeeded does not run again");
    let events = space.requests().iter().filter(|request| *request == "create events").count();
    assert!(events >= 3, "failures are told by events");
}

#[tokio::test]
async fn max_parallel_bounds_the_sessions() {
    let Some(space) = Space::new("parallel").await else { return };
    space
        .apply(json!({
            "count": 4, "node": busybox(),
            "phases": {"configure": script("sleep 1; date +%s >/at")},
            "converge": {"rollout": {"maxParallel": 1}}
        }))
        .await;
    space.ready().await;
    let mut times = Vec::new();
    for pod in space.pod_names().await {
        times.push(space.kubectl_exec(&pod, "cat /at").await.trim().parse::<u64>().unwrap());
    }
    times.sort_unstable();
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "one after the other: {times:?}");
}
