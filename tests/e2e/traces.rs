//! With the feature `otel`: what an operator at work sends to a collector.

#[path = "../support/collector.rs"]
mod collector;

use collector::{Collector, Span};
use serde_json::json;

use crate::harness::{Space, busybox, script};

#[tokio::test]
async fn a_collector_receives_passes_sessions_and_phases() {
    let Some(mut space) = Space::bare("traces").await else { return };
    let collector = Collector::start().await;
    space.environment.push(("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address)));
    space.start_operator();
    space.apply(json!({"count": 1, "node": busybox(), "phases": {"configure": script("true")}})).await;
    space.ready().await;
    space.stop_operator().await;
    let spans = collector.spans();
    let named = |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let (passes, sessions, phases) = (named("reconcile"), named("session"), named("phase"));
    assert!(!passes.is_empty() && sessions.len() == 1 && phases.len() == 1, "{spans:#?}");
    let group = format!("{}/web", space.name);
    assert!(passes.iter().all(|pass| pass.attributes["group"] == group && pass.attributes.contains_key("outcome")));
    assert_eq!(phases[0].parent, sessions[0].id);
    let attributes = |span: &Span, keys: &[&str]| -> Vec<String> {
        keys.iter().map(|key| span.attributes.get(*key).cloned().unwrap_or_default()).collect()
    };
    assert_eq!(attributes(sessions[0], &["group", "node", "outcome"]), [&group, "web-0", "done"]);
    assert_eq!(attributes(phases[0], &["phase", "attempt", "outcome"]), ["configure", "1", "succeeded"]);
    assert!(phases[0].attributes["run"].starts_with("configure-"));
}
