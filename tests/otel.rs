//! Traces, with the feature `otel`: a collector on loopback receives what a process that is configured by the standard
//! variables says of its sessions and phases. `make test-otel`.

#[path = "support/collector.rs"]
mod collector;

use collector::{Collector, Span};
use pallet_operator::telemetry::{
    logs,
    metrics::{Ended, Metrics},
    traces,
};
use serde_json::json;
use tracing_subscriber::EnvFilter;

/// What the process that is looked at does. By itself this shows nothing: the tests below start it, with variables.
#[tokio::test]
async fn speaks() {
    if std::env::var_os("PALLET_TEST_SPEAKS").is_none() {
        return;
    }
    let traces = traces::start().expect("the variables can be used");
    let layer = traces.as_ref().map(|traces| traces.layer());
    // What is logged does not decide on what is traced.
    logs::init(logs::Format::Json, EnvFilter::new("off"), layer).unwrap();
    {
        let _session =
            tracing::error_span!(target: "pallet_operator::run", "session", group = "shop/web", node = "web-0")
                .entered();
        let metrics = Metrics::default();
        let run = metrics.run_starts("configure", "configure-1f", Some(2));
        let phase_result = json!({
            "phase": "configure", "digest": "d", "runId": "configure-1f", "attempt": 2, "outcome": "TimedOut",
            "startedAt": "2026-11-21T10:00:00Z", "finishedAt": "2026-11-21T10:01:00Z"
        });
        let phase_result = serde_json::from_value(phase_result).unwrap();
        let ended = Ended { phase: "configure", outcome: "timed_out", phase_result: &phase_result, joined: false };
        metrics.run_ended(Some(run), &ended);
        tracing::error_span!(target: "kube_client", "somebody else's").in_scope(|| {});
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
}

async fn run(variables: &[(&str, String)]) {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "speaks", "--nocapture"]).env("PALLET_TEST_SPEAKS", "1");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

#[tokio::test]
async fn a_collector_receives_sessions_and_their_phases() {
    let collector = Collector::start().await;
    run(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address)),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret".into()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test".into()),
    ])
    .await;
    let spans = collector.spans();
    let (session, phase) = (one(&spans, "session"), one(&spans, "phase"));
    assert_eq!((session.attributes["group"].as_str(), session.attributes["node"].as_str()), ("shop/web", "web-0"));
    assert_eq!(phase.parent, session.id);
    for (key, value) in [("phase", "configure"), ("run", "configure-1f"), ("attempt", "2"), ("outcome", "timed_out")] {
        assert_eq!(phase.attributes.get(key).map(String::as_str), Some(value), "{phase:?}");
    }
    assert_eq!(spans.len(), 2, "nobody else's: {spans:#?}");
    assert_eq!(collector.resource()["service.name"], "pallet-operator");
    assert_eq!(collector.resource()["deployment.environment"], "test");
    assert_eq!(collector.header("x-token"), [Some("secret".into())]);
}

#[tokio::test]
async fn nothing_is_sent_where_nobody_asked_for_it() {
    let collector = Collector::start().await;
    run(&[]).await;
    let endpoint = format!("http://{}/v1/traces", collector.address);
    let endpoint = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint);
    run(&[endpoint.clone(), ("OTEL_SDK_DISABLED", "true".into())]).await;
    run(&[endpoint.clone(), ("OTEL_TRACES_EXPORTER", "none".into())]).await;
    assert_eq!(collector.spans(), []);
    run(&[endpoint, ("OTEL_SERVICE_NAME", "mine".into())]).await;
    assert_eq!(collector.resource()["service.name"], "mine");
}

/// Nobody waits for a collector that is not there.
#[tokio::test]
async fn a_collector_that_is_out_of_reach_holds_nothing_up() {
    let began = std::time::Instant::now();
    run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9".into())]).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    run(&[("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", silent.local_addr().unwrap()))]).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
