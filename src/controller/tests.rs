//! The controllers as a whole, against an API server that has nothing in it.

use http::{Request, Response};
use kube::client::Body;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    telemetry::health::Role,
    transport::{Transport, pod_exec::PodExec},
};

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
