//! The controllers as a whole, against an API server that has nothing in it.

mod fake;

use http::{Request, Response};
use kube::client::Body;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{reconcile::STUCK, *};
use crate::{
    run::evaluations::{Evaluations, Meter},
    telemetry::health::Role,
    transport::{Transport, pod_exec::PodExec},
};
use fake::{Fake, Nowhere, current_node, group_spec, running_pod, settings};

/// An API server that lists nothing, and whose watches never say anything.
fn empty() -> Client {
    let service = tower::service_fn(|request: Request<Body>| async move {
        if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
            std::future::pending::<()>().await;
        }
        let list = r#"{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"},"items":[]}"#;
        Ok::<_, std::convert::Infallible>(Response::new(Body::from(list.as_bytes().to_vec())))
    });
    Client::new(service, "default")
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test(start_paused = true)]
async fn they_say_when_they_are_synced_and_that_they_come_round_and_leave_nothing_behind() {
    let client = empty();
    // A client has a task of its own.
    let before = alive_tasks();
    for dropped in [false, true] {
        let telemetry = Telemetry::default();
        telemetry.health.become_role(Role::Alone);
        let transport: Arc<dyn Transport> = Arc::new(PodExec::new(client.clone()));
        let settings = Settings {
            namespaces: vec!["a".into(), "b".into()],
            sessions: 4,
            reconciles: 2,
            own_namespace: "a".into(),
            polls: references::Polls::default(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let work = run(client.clone(), transport, settings, telemetry.clone(), async {
            let _ = stopped.await;
        });
        let work = tokio::spawn(work);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(telemetry.health.ready(Instant::now()), Ok("alone, caches synced".into()));
        sleep(Duration::from_secs(600)).await;
        assert!(telemetry.health.alive(Instant::now()).is_ok());
        assert!(telemetry.metrics.text().contains("pallet_session_limit 4"));
        if dropped {
            work.abort();
            assert!(work.await.unwrap_err().is_cancelled());
        } else {
            stop.send(()).unwrap();
            work.await.unwrap();
        }
        assert_eq!(alive_tasks(), before, "dropped: {dropped}");
        assert!(telemetry.health.ready(Instant::now()).is_err(), "nothing is watched any more");
        sleep(Duration::from_secs(600)).await;
        assert!(telemetry.health.alive(Instant::now()).is_ok(), "what has ended is not stuck");
    }
}

/// A pass that never gives the thread back is not polled past: the pulse stops with it.
#[tokio::test(start_paused = true)]
async fn controllers_that_are_not_polled_are_stuck() {
    let telemetry = Telemetry::default();
    let client = empty();
    let transport: Arc<dyn Transport> = Arc::new(PodExec::new(client.clone()));
    let settings = Settings {
        namespaces: Vec::new(),
        sessions: 1,
        reconciles: 1,
        own_namespace: "a".into(),
        polls: references::Polls::default(),
    };
    let mut work = Box::pin(run(client, transport, settings, telemetry.clone(), std::future::pending()));
    assert!(futures::poll!(&mut work).is_pending());
    sleep(STUCK + Duration::from_secs(1)).await;
    let verdict = telemetry.health.alive(Instant::now());
    assert!(verdict.clone().is_err_and(|stuck| stuck.starts_with("stuck: controllers for 61 s")), "{verdict:?}");
    assert!(futures::poll!(&mut work).is_pending());
    assert!(telemetry.health.alive(Instant::now()).is_ok(), "it goes on");
}

/// Two namespaces, each with a group. Planning the one takes its time: it has as many actions as there may be, on many nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_slow_to_plan_delays_no_other() {
    const NODES: u32 = 96;
    let fake = Fake::default();
    for (namespace, count) in [("slow", NODES), ("quick", 0)] {
        fake.put("groupspecs", group_spec(namespace, 1, count, &[]));
    }
    for ordinal in 0..NODES {
        fake.put("pods", running_pod("slow", ordinal));
        fake.put("groupnodes", current_node("slow", ordinal));
    }
    let telemetry = Telemetry::default();
    telemetry.health.become_role(Role::Alone);
    let work =
        tokio::spawn(run(fake.client(), Arc::new(Nowhere), settings(8), telemetry.clone(), std::future::pending()));
    for namespace in ["slow", "quick"] {
        fake.until_written(namespace, 1, Duration::from_secs(30)).await;
    }
    let text = "{{ node.name }} {{ node.ordinal }} {{ group.count }}";
    let exec = serde_json::json!({"script": text, "creates": format!("/{text}"), "unless": text, "onlyIf": text});
    let actions = vec![serde_json::json!({"exec": exec}); 250];
    // Counts alone are written once a second.
    sleep(Duration::from_millis(1100)).await;
    let began = Instant::now();
    fake.put("groupspecs", group_spec("slow", 2, NODES, &actions));
    sleep(Duration::from_millis(300)).await;
    fake.put("groupspecs", group_spec("quick", 2, 0, &[]));
    fake.until_written("quick", 2, Duration::from_secs(20)).await;
    let quick = began.elapsed();
    assert!(!fake.is_written("slow", 2), "the quick one waits for the slow one, or that is not slow: {quick:?}");
    assert!(telemetry.health.alive(Instant::now()).is_ok());
    fake.until_written("slow", 2, Duration::from_secs(120)).await;
    let slow = began.elapsed();
    assert!(quick < slow, "the quick one took {quick:?}, the slow one {slow:?}");
    work.abort();
    let _ = work.await;
}

/// Guards against a few GroupNodes that cannot be released and keep all others from it for ever.
#[tokio::test(start_paused = true)]
async fn nodes_that_cannot_be_released_keep_no_other_from_it() {
    let fake = Fake::default();
    for n in 0..9 {
        let name = if n == 8 { "good".to_owned() } else { format!("stuck{n}") };
        let mut node = current_node("a", 0);
        node["metadata"]["name"] = format!("{name}-0").into();
        node["metadata"]["uid"] = format!("n-{name}").into();
        node["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        node["metadata"]["finalizers"] = serde_json::json!(["pallet.dev/finalizer"]);
        node["spec"]["group"] = name.into();
        fake.put("groupnodes", node);
    }
    let work =
        tokio::spawn(run(fake.client(), Arc::new(Nowhere), settings(8), Telemetry::default(), std::future::pending()));
    let released = async {
        while !fake.has_patched("/namespaces/a/groupnodes/good-0") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), released).await.expect("the good one is released");
    work.abort();
    let _ = work.await;
}

/// Prints what it costs to evaluate apart from the other tasks. `cargo test --lib what_an_evaluation_costs -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn what_an_evaluation_costs() {
    let evaluations = Evaluations::default();
    let task = tokio::spawn(async move {
        let (began, meter) = (std::time::Instant::now(), Meter::default());
        for _ in 0..1000 {
            evaluations.run("a", &meter, || ()).await;
        }
        began.elapsed() / 1000
    });
    println!("an evaluation costs {:?} beside what it does", task.await.unwrap());
}
