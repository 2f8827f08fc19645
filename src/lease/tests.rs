//! Leader election against an API server that knows one Lease, on paused time.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::{sync::oneshot::Sender, task::JoinHandle, time::Instant};

use super::*;

/// What the API server does with requests.
#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Serves,
    Fails,
    Hangs,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<(Mode, Option<Value>, u64)>>);

impl Server {
    fn become_mode(&self, mode: Mode) {
        self.0.lock().unwrap().0 = mode;
    }

    fn spec(&self, field: &str) -> Value {
        self.0.lock().unwrap().1.as_ref().map_or(Value::Null, |lease| lease["spec"][field].clone())
    }

    fn answer(&self, method: &Method, body: Option<Value>) -> (u16, Value) {
        let (_, lease, version) = &mut *self.0.lock().unwrap();
        let before = lease.clone();
        let mut write = |mut body: Value| {
            *version += 1;
            body["metadata"]["resourceVersion"] = version.to_string().into();
            *lease = Some(body.clone());
            (200, body)
        };
        let refusal = |code: u16| (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": "x"}));
        match (method, body, before) {
            (&Method::GET, _, Some(lease)) => (200, lease),
            (&Method::POST, Some(body), None) => write(body),
            (&Method::PUT, Some(body), Some(lease))
                if body["metadata"]["resourceVersion"] == lease["metadata"]["resourceVersion"] =>
            {
                write(body)
            }
            (_, _, None) => refusal(404),
            _ => refusal(409),
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let mode = server.0.lock().unwrap().0;
                match mode {
                    Mode::Serves => {}
                    Mode::Fails => return Err("no route"),
                    Mode::Hangs => std::future::pending().await,
                }
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let (code, answer) = server.answer(&head.method, serde_json::from_slice(&body).ok());
                Ok(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
            }
        });
        Client::new(service, "default")
    }
}

/// One operator whose work is to be counted.
struct Operator {
    telemetry: Telemetry,
    working: Arc<AtomicUsize>,
    stop: Option<Sender<()>>,
    ended: JoinHandle<Result<(), Error>>,
}

/// How the work takes being told to end.
#[derive(Clone, Copy)]
enum Work {
    Ends,
    GoesOn,
    Panics,
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Operator {
    fn start(server: &Server, who: &str, work: Work) -> Self {
        let (telemetry, working) = (Telemetry::default(), Arc::new(AtomicUsize::new(0)));
        let (stop, stopped) = oneshot::channel::<()>();
        let counter = working.clone();
        let election =
            Election::new(server.client(), "default".into(), "pallet-operator".into(), who, telemetry.clone());
        let ended = tokio::spawn(election.lead(
            move |ending| {
                counter.fetch_add(1, Ordering::SeqCst);
                let counted = Counted(counter.clone());
                async move {
                    let _counted = counted;
                    match work {
                        Work::Ends => drop(ending.await),
                        Work::GoesOn => std::future::pending().await,
                        Work::Panics => panic!("a bug"),
                    }
                }
            },
            async {
                let _ = stopped.await;
            },
        ));
        Self { telemetry, working, stop: Some(stop), ended }
    }

    fn works(&self) -> bool {
        self.working.load(Ordering::SeqCst) == 1
    }

    /// How long it takes until it works, or does not any more.
    async fn until(&self, works: bool) -> Duration {
        let began = Instant::now();
        while self.works() != works {
            assert!(began.elapsed() < Duration::from_secs(120), "it never came to that");
            sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    async fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.stop.take().unwrap().send(()).unwrap();
        self.ended.await.unwrap().unwrap();
        assert_eq!(self.working.load(Ordering::SeqCst), 0, "it works on");
        began.elapsed()
    }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_follows_a_retry_after_it_was_asked_to_stop() {
    let server = Server::default();
    let a = Operator::start(&server, "a", Work::Ends);
    a.until(true).await;
    let b = Operator::start(&server, "b", Work::Ends);
    sleep(s(60)).await;
    assert!(a.works() && !b.works());
    assert!(a.telemetry.metrics.text().contains("pallet_leader 1\n"));
    assert!(b.telemetry.metrics.text().contains("pallet_leader 0\n"));
    assert_eq!(b.telemetry.health.ready(Instant::now()), Ok("standby, the lease is watched".into()));
    assert!(a.stop().await < s(1));
    assert!(b.until(true).await < s(4));
    assert_eq!(server.spec("leaseTransitions"), 1);
    b.stop().await;
    assert_eq!(server.spec("holderIdentity"), Value::Null, "it was given back");
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_when_its_lease_is_over() {
    let server = Server::default();
    let a = Operator::start(&server, "a", Work::Ends);
    a.until(true).await;
    let b = Operator::start(&server, "b", Work::Ends);
    sleep(s(30)).await;
    a.ended.abort();
    let took = b.until(true).await;
    // It was last seen to renew up to 3 s before it died, and up to 3 s after it had renewed.
    assert!(took >= s(15 - 3) && took < s(15 + 3 + 1), "{took:?}");
    assert_eq!(server.spec("leaseTransitions"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_working_before_anybody_else_may_begin_and_stands_again() {
    for (mode, work) in [(Mode::Fails, Work::Ends), (Mode::Hangs, Work::Ends), (Mode::Hangs, Work::GoesOn)] {
        let server = Server::default();
        let a = Operator::start(&server, "a", work);
        a.until(true).await;
        sleep(s(30)).await;
        server.become_mode(mode);
        let took = a.until(false).await;
        assert!(took > s(6) && took < s(14), "{took:?}");
        // An outage is no reason to be restarted.
        sleep(s(300)).await;
        assert!(a.telemetry.health.alive(Instant::now()).is_ok() && !a.works());
        server.become_mode(Mode::Serves);
        assert!(a.until(true).await < s(10));
        assert_eq!(server.spec("leaseTransitions"), 0, "nobody else had it");
        a.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_an_error_and_gives_the_lease_back() {
    let server = Server::default();
    let a = Operator::start(&server, "a", Work::Panics);
    assert!(matches!(a.ended.await.unwrap(), Err(Error::Panicked(_))));
    assert_eq!(server.spec("holderIdentity"), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn stopping_takes_seconds_at_the_most_whatever_hangs() {
    let server = Server::default();
    let a = Operator::start(&server, "a", Work::GoesOn);
    a.until(true).await;
    server.become_mode(Mode::Hangs);
    assert!(a.stop().await < s(3 + 3 + 1));
    let b = Operator::start(&server, "b", Work::Ends);
    sleep(s(1)).await;
    assert!(b.stop().await < s(3 + 1), "also where it never led");
}
