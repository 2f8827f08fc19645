//! Several operators and one Lease: one is at work, another follows it, and each says truly how it fares.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use pallet_api::group_node::Outcome;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
};

use crate::harness::{PATIENCE, Space, busybox, phase_result, script, wait};

/// One operator of several.
struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    /// Starts one that stands for the lease of the namespace, and waits until it serves.
    async fn start(space: &Space, name: &str) -> Self {
        let log = space.scratch(&format!("{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pallet-operator"));
        command.args(["--namespace", &space.name, "--lease-namespace", &space.name]);
        command.args(["--http-address=127.0.0.1:0", "--log-format=json"]).env("POD_NAME", name);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).kill_on_drop(true);
        if let Some(kubeconfig) = &space.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        let operator = Self { child: command.spawn().expect("the operator"), log };
        wait("it serves", || async { operator.address().ok_or_else(|| operator.said()) }).await;
        operator
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn lines(&self) -> Vec<Value> {
        self.said().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn address(&self) -> Option<String> {
        let started = self.lines().into_iter().find(|line| line["message"] == "started")?;
        started["http_address"].as_str().map(str::to_owned)
    }

    /// The code and the body of an answer.
    async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address().unwrap()).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), exchange).await;
        let answer = answer.map_err(|_| "no answer")?.map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        Ok((head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or("no code")?, body.to_owned()))
    }

    async fn until(&self, path: &str, code: u16, text: &str) -> String {
        wait(&format!("{path} says {code} {text}"), || async {
            match self.get(path).await {
                Ok((seen, body)) if seen == code && body.contains(text) => Ok(body),
                other => Err(format!("{other:?}; it said: {}", self.said())),
            }
        })
        .await
    }

    /// One figure of its metrics; 0 where it is not there.
    async fn figure(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("kill").success());
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop; says how long it took.
    async fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.signal("TERM");
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}: {}", self.said());
        began.elapsed()
    }

    async fn leads(&self) {
        self.until("/readyz", 200, "leader, caches synced").await;
        assert_eq!(self.figure("pallet_leader").await, 1.0);
    }

    async fn stands_by(&self) {
        self.until("/readyz", 200, "standby, the lease is watched").await;
        assert_eq!(self.figure("pallet_leader").await, 0.0);
    }

    /// It has never looked at a group or opened a session.
    async fn did_nothing(&self) {
        for series in ["pallet_groups", r#"pallet_reconciles_total{result="ok"}"#, r#"pallet_sessions{state="open"}"#] {
            assert_eq!(self.figure(series).await, 0.0, "{series}: {}", self.said());
        }
    }

    async fn bootstraps(&self) -> f64 {
        self.figure(r#"pallet_phase_duration_seconds_count{phase="bootstrap",outcome="succeeded"}"#).await
    }
}

/// The way to the API server. While it is not open, no connection lasts and none comes about.
struct Gate {
    port: u16,
    open: watch::Sender<bool>,
}

impl Gate {
    async fn start() -> Self {
        let server = kube::Config::infer().await.unwrap().cluster_url.authority().unwrap().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, (open, opened)) = (listener.local_addr().unwrap().port(), watch::channel(true));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (server, mut opened) = (server.clone(), opened.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        _ = opened.wait_for(|open| !open) => {}
                        _ = async {
                            let mut far = TcpStream::connect(server).await?;
                            tokio::io::copy_bidirectional(&mut near, &mut far).await
                        } => {}
                    }
                });
            }
        });
        Self { port, open }
    }
}

/// A bootstrap that takes its time.
fn slow(seconds: u32) -> Value {
    json!({
        "count": 1, "node": busybox(),
        "phases": {
            "bootstrap": script(&format!("echo begins >>/ran; sleep {seconds}; echo ends >>/ran")),
            "configure": script("echo configured >>/ran")
        }
    })
}

const WHOLE: &str = "begins\nends\nconfigured\n";

async fn lease(space: &Space) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(space.client.clone(), &space.name);
    leases.get("pallet-operator").await.expect("the lease").spec.expect("its spec")
}

async fn holder(space: &Space) -> String {
    let holder = lease(space).await.holder_identity.unwrap_or_default();
    holder.split('_').next().unwrap_or_default().to_owned()
}

/// Each phase has run once, and the status says so.
async fn ran_once(space: &Space) {
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, WHOLE);
    let node = space.nodes().get("web-0").await.unwrap();
    for phase in ["bootstrap", "configure"] {
        let phase_result = phase_result(&node, phase).expect(phase);
        assert_eq!((phase_result.outcome, phase_result.attempt), (Outcome::Succeeded, 1), "{phase}");
    }
}

#[tokio::test]
async fn a_second_operator_waits_and_finishes_what_a_killed_one_began() {
    let Some(space) = Space::bare("leader").await else { return };
    let first = Operator::start(&space, "first").await;
    first.leads().await;
    let second = Operator::start(&space, "second").await;
    second.stands_by().await;
    first.until("/livez", 200, "alive").await;
    second.until("/livez", 200, "alive").await;

    space.apply(slow(30)).await;
    space.exec_until("web-0", "grep begins /ran").await;
    assert_eq!(first.figure("pallet_runs_in_flight").await, 1.0);
    assert_eq!(first.figure(r#"pallet_sessions{state="open"}"#).await, 1.0);
    second.did_nothing().await;
    assert_eq!(holder(&space).await, "first");

    first.kill().await;
    let killed = Instant::now();
    second.leads().await;
    let took = killed.elapsed();
    // The lease, a pause between two attempts, and what a busy machine takes.
    assert!(took < Duration::from_secs(15 + 3 + 5), "{took:?}");
    println!("a killed leader was followed after {:.1} s", took.as_secs_f64());
    assert_eq!((holder(&space).await.as_str(), lease(&space).await.lease_transitions), ("second", Some(1)));
    ran_once(&space).await;
    assert_eq!(second.bootstraps().await, 1.0, "it has heard the end of the run that the first began");
    assert_eq!(second.figure("pallet_runs_in_flight").await, 0.0);

    // What it logs about a phase says which, and what it serves names nothing that people named.
    let ended = second.lines().into_iter().find(|line| line["message"] == "phase ended").expect("a line");
    assert_eq!(ended["group"], format!("{}/web", space.name));
    assert_eq!((&ended["node"], &ended["phase"]), (&json!("web-0"), &json!("bootstrap")), "{ended}");
    assert!(ended["run"].as_str().is_some_and(|run| run.starts_with("bootstrap-")), "{ended}");
    let metrics = second.until("/metrics", 200, "pallet_groups 1").await;
    assert!(!metrics.contains(&space.name) && !metrics.contains("web"), "{metrics}");
    assert!(metrics.contains(r#"pallet_api_requests_total{verb="update",resource="leases",code="200"}"#), "{metrics}");

    // One that is asked to stop gives the lease back, and the next need not wait for it to run out.
    let third = Operator::start(&space, "third").await;
    third.stands_by().await;
    let took = second.stop().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    let began = Instant::now();
    third.leads().await;
    assert!(began.elapsed() < Duration::from_secs(3 + 5), "{:?}", began.elapsed());
    println!("a leader that was stopped was followed after {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(lease(&space).await.lease_transitions, Some(2));
}

/// The leader is frozen past its lease, another takes over, and then it is thawed.
async fn freeze(what: &str, seconds: u32, until: &str) {
    let Some(space) = Space::bare(what).await else { return };
    let first = Operator::start(&space, "first").await;
    first.leads().await;
    let second = Operator::start(&space, "second").await;
    second.stands_by().await;
    space.apply(slow(seconds)).await;
    space.exec_until("web-0", "grep begins /ran").await;

    first.signal("STOP");
    second.leads().await;
    space.exec_until("web-0", until).await;
    first.signal("CONT");
    first.stands_by().await;
    assert_eq!(holder(&space).await, "second");
    // What it was at ends within seconds.
    for figure in ["pallet_groups", "pallet_runs_in_flight", r#"pallet_sessions{state="open"}"#] {
        wait(figure, || async {
            let figure = first.figure(figure).await;
            if figure == 0.0 { Ok(()) } else { Err(figure.to_string()) }
        })
        .await;
    }
    ran_once(&space).await;
    // Of a run that ended while it was frozen it may still have heard.
    assert!(first.bootstraps().await <= 1.0);
    assert_eq!(second.bootstraps().await, 1.0);

    // From now on the second alone acts on what changes.
    let before = first.figure(r#"pallet_reconciles_total{result="ok"}"#).await;
    space.patch(json!({"spec": {"phases": {"configure": script("echo again >>/ran")}}})).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /ran").await, format!("{WHOLE}again\n"));
    assert_eq!(first.figure(r#"pallet_reconciles_total{result="ok"}"#).await, before);
    assert_eq!(lease(&space).await.lease_transitions, Some(1));
}

#[tokio::test]
async fn a_leader_that_thaws_while_its_phase_still_runs_steps_down() {
    freeze("frozen", 40, "grep begins /ran").await;
}

#[tokio::test]
async fn a_leader_that_thaws_when_all_is_done_steps_down_and_spoils_nothing() {
    freeze("thawed", 4, "grep configured /ran").await;
}

#[tokio::test]
async fn a_leader_that_is_stopped_while_a_phase_runs_leaves_it_to_the_next() {
    let Some(space) = Space::bare("stopped").await else { return };
    let first = Operator::start(&space, "first").await;
    first.leads().await;
    space.apply(slow(10)).await;
    space.exec_until("web-0", "grep begins /ran").await;
    let took = first.stop().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    println!("a leader with a session open stopped in {:.1} s", took.as_secs_f64());
    assert_eq!(lease(&space).await.holder_identity, None, "the lease is given back");
    let began = Instant::now();
    let second = Operator::start(&space, "second").await;
    second.leads().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    ran_once(&space).await;
    assert_eq!(second.bootstraps().await, 1.0);
}

#[tokio::test]
async fn without_an_api_server_it_steps_down_and_is_alive_and_not_ready() {
    let Some(mut space) = Space::bare("outage").await else { return };
    let gate = Gate::start().await;
    space.connect_to(&format!("https://127.0.0.1:{}", gate.port));
    let operator = Operator::start(&space, "only").await;
    operator.leads().await;
    gate.open.send_replace(false);
    operator.until("/metrics", 200, "pallet_leader 0\n").await;
    operator.until("/readyz", 200, "standby").await;
    operator.until("/readyz", 503, "standby, the lease could not be read for").await;
    operator.until("/livez", 200, "alive").await;
    gate.open.send_replace(true);
    operator.leads().await;
    space.apply(slow(0)).await;
    ran_once(&space).await;
}
