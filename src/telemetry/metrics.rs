//! Metrics for Prometheus. `docs/reference/metrics.md` lists them, and a test keeps that list true.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};
use tracing::{Span, info};

use pallet_api::group_node::PhaseResult;

/// The metrics of one operator. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<Result, Counter>,
    reconcile_duration: Histogram,
    queue: Gauge,
    groups: Gauge,
    nodes: Gauge,
    sessions: Family<State, Gauge>,
    session_limit: Gauge,
    sessions_ended: Family<End, Counter>,
    lifts_ended: Family<End, Counter>,
    runs: Gauge,
    phase_duration: Family<Phase, Histogram, fn() -> Histogram>,
    leader: Gauge,
    requests: Family<Request, Counter>,
    watch_failures: Family<Kind, Counter>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Result {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct End {
    end: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Phase {
    phase: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Request {
    verb: &'static str,
    resource: &'static str,
    code: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Build {
    version: &'static str,
}

/// The phases that have a label of their own. What people call their other phases must not become labels.
const KNOWN_PHASES: [&str; 8] =
    ["bootstrap", "settings", "init", "install", "configure", "test", "app-rollout", "destroy-server"];

impl Default for Metrics {
    fn default() -> Self {
        // From 50 ms to a day: scripts take what they take.
        let phases: fn() -> Histogram = || {
            Histogram::new([
                0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0,
            ])
        };
        let mut metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(exponential_buckets(0.0005, 4.0, 10)),
            queue: Gauge::default(),
            groups: Gauge::default(),
            nodes: Gauge::default(),
            sessions: Family::default(),
            session_limit: Gauge::default(),
            sessions_ended: Family::default(),
            lifts_ended: Family::default(),
            runs: Gauge::default(),
            phase_duration: Family::new_with_constructor(phases),
            leader: Gauge::default(),
            requests: Family::default(),
            watch_failures: Family::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }
}

impl Metrics {
    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("pallet");
        let r = &mut registry;
        let version = env!("CARGO_PKG_VERSION");
        r.register("build", "The version of the operator; always 1", Info::new(Build { version }));
        r.register(
            "leader",
            "1 while this operator is at work: it leads, or there is no election",
            self.leader.clone(),
        );
        r.register("reconciles", "Passes over a group, by how they ended", self.reconciles.clone());
        let help = "How long passes over a group took";
        r.register_with_unit("reconcile_duration", help, Unit::Seconds, self.reconcile_duration.clone());
        r.register("queued_groups", "Groups that wait to be reconciled", self.queue.clone());
        r.register("groups", "GroupSpecs that are known", self.groups.clone());
        r.register("nodes", "GroupNodes that are known", self.nodes.clone());
        r.register("sessions", "Sessions on nodes, open or waiting for a permit", self.sessions.clone());
        r.register("session_limit", "How many sessions may be open at once", self.session_limit.clone());
        r.register("sessions_ended", "Sessions that are over, by how they ended", self.sessions_ended.clone());
        r.register("lifts_ended", "Lifts that are over, by how they ended", self.lifts_ended.clone());
        r.register("runs_in_flight", "Runs of phases that this operator follows", self.runs.clone());
        let help = "How long phases took on nodes; one counts when its end is heard of";
        r.register_with_unit("phase_duration", help, Unit::Seconds, self.phase_duration.clone());
        let help = "Requests to the API server, without repetitions by the client; code is none where no answer came";
        r.register("api_requests", help, self.requests.clone());
        r.register("watch_failures", "Watches that failed and were opened again", self.watch_failures.clone());
        registry
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    /// A pass ended: `result` is `ok` or an error's label.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&Result { result }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Groups that wait to be reconciled, of one controller.
    pub fn queued_groups(&self) -> Share {
        Share::of(&self.queue)
    }

    /// The GroupSpecs that one controller knows.
    pub fn groups(&self) -> Share {
        Share::of(&self.groups)
    }

    /// The GroupNodes that one controller knows.
    pub fn nodes(&self) -> Share {
        Share::of(&self.nodes)
    }

    /// A session waits for a permit, until what is returned is dropped.
    pub fn session_waits(&self) -> Share {
        Share::one(&self.sessions.get_or_create_owned(&State { state: "waiting" }))
    }

    /// A session is open, until what is returned is dropped.
    pub fn session_opens(&self) -> Share {
        Share::one(&self.sessions.get_or_create_owned(&State { state: "open" }))
    }

    /// So many sessions may be open at once.
    pub fn session_limit(&self, permits: usize) {
        self.session_limit.set(i64::try_from(permits).unwrap_or(i64::MAX));
    }

    /// A session is over.
    pub fn session_ended(&self, end: &'static str) {
        self.sessions_ended.get_or_create(&End { end }).inc();
    }

    /// A Lift is over.
    pub fn lift_ended(&self, end: &'static str) {
        self.lifts_ended.get_or_create(&End { end }).inc();
    }

    /// This operator is at work, until what is returned is dropped.
    pub fn leads(&self) -> Share {
        Share::one(&self.leader)
    }

    /// The API server was asked. The words must come from a bounded list.
    pub fn requested(&self, verb: &'static str, resource: &'static str, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.requests.get_or_create(&Request { verb, resource, code }).inc();
    }

    /// A watch of that kind of object failed.
    pub fn watch_failed(&self, kind: &str) {
        self.watch_failures.get_or_create(&Kind { kind: kind.to_owned() }).inc();
    }

    /// A run is in flight from now on.
    pub fn run_starts(&self, phase: &str, run: &str, attempt: Option<u32>) -> Run {
        let span = run_span(phase, run, attempt);
        Run { span, began: Instant::now(), _share: Share::one(&self.runs) }
    }

    /// A phase ended on its node. `run` is what was begun with it, where it was followed.
    pub fn run_ended(&self, run: Option<Run>, ended: &Ended<'_>) {
        let PhaseResult { run_id, attempt, started_at, finished_at, exit_code, message, .. } = ended.phase_result;
        let took = match &run {
            Some(run) if !ended.joined => run.began.elapsed(),
            _ => Duration::try_from(finished_at.0.duration_since(started_at.0)).unwrap_or_default(),
        };
        let phase = KNOWN_PHASES.into_iter().find(|known| *known == ended.phase).unwrap_or("other");
        let labels = Phase { phase, outcome: ended.outcome };
        self.phase_duration.get_or_create(&labels).observe(took.as_secs_f64());
        let span = run.map_or_else(|| run_span(ended.phase, run_id, Some(*attempt)), |run| run.span.clone());
        span.record("attempt", attempt);
        span.record("outcome", ended.outcome);
        let error = Some(message).filter(|message| !message.is_empty());
        span.in_scope(|| info!(seconds = took.as_secs_f64(), exit_code, error, "phase ended"));
    }
}

fn run_span(phase: &str, run: &str, attempt: Option<u32>) -> Span {
    tracing::error_span!("phase", phase, run, attempt, outcome = tracing::field::Empty)
}

/// A phase that ended.
pub struct Ended<'a> {
    /// Its name.
    pub phase: &'a str,
    /// `succeeded`, `failed` or `timed_out`.
    pub outcome: &'static str,
    /// What the journal says of it.
    pub phase_result: &'a PhaseResult,
    /// Whether it was under way before this session: then it took what its phase result says.
    pub joined: bool,
}

/// A run in flight, as this operator sees it. Dropped without an end, it was lost from sight.
#[derive(Debug)]
pub struct Run {
    /// Lines about the run belong into it.
    pub span: Span,
    began: Instant,
    _share: Share,
}

/// What one owner adds to a gauge; it is taken back when the owner goes.
#[derive(Debug)]
pub struct Share {
    gauge: Gauge,
    value: AtomicI64,
}

impl Share {
    fn of(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), value: AtomicI64::new(0) }
    }

    fn one(gauge: &Gauge) -> Self {
        let share = Self::of(gauge);
        share.set(1);
        share
    }

    /// What this owner adds now.
    pub fn set(&self, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.gauge.inc_by(value - self.value.swap(value, Ordering::Relaxed));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(metrics: &Metrics, series: &str) -> Option<String> {
        let text = metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(str::to_owned)
    }

    fn minute() -> PhaseResult {
        let phase_result = json!({
            "phase": "x", "digest": "d", "runId": "r", "attempt": 1, "outcome": "Succeeded",
            "startedAt": "2026-11-21T10:00:00Z", "finishedAt": "2026-11-21T10:01:00Z"
        });
        serde_json::from_value(phase_result).unwrap()
    }

    fn end(metrics: &Metrics, run: Option<Run>, phase: &str) {
        metrics.run_ended(run, &Ended { phase, outcome: "succeeded", phase_result: &minute(), joined: true });
    }

    #[test]
    fn what_people_call_their_phases_is_no_label() {
        let metrics = Metrics::default();
        end(&metrics, None, "bootstrap");
        end(&metrics, None, "launch-the-customers-thing");
        end(&metrics, None, "other-customers-thing");
        let count = |phase| format!(r#"pallet_phase_duration_seconds_count{{phase="{phase}",outcome="succeeded"}}"#);
        assert_eq!(value(&metrics, &count("bootstrap")).as_deref(), Some("1"));
        assert_eq!(value(&metrics, &count("other")).as_deref(), Some("2"));
        assert!(!metrics.text().contains("customers"));
    }

    #[test]
    fn a_run_that_was_joined_took_what_its_receipt_says() {
        let metrics = Metrics::default();
        let run = metrics.run_starts("configure", "r", None);
        assert_eq!(value(&metrics, "pallet_runs_in_flight").as_deref(), Some("1"));
        end(&metrics, Some(run), "configure");
        let sum = r#"pallet_phase_duration_seconds_sum{phase="configure",outcome="succeeded"}"#;
        assert_eq!(value(&metrics, sum).as_deref(), Some("60.0"));
        assert_eq!(value(&metrics, "pallet_runs_in_flight").as_deref(), Some("0"));
    }

    #[test]
    fn what_an_owner_added_goes_with_it() {
        let metrics = Metrics::default();
        let (one, other) = (metrics.nodes(), metrics.nodes());
        one.set(5);
        other.set(7);
        one.set(4);
        assert_eq!(value(&metrics, "pallet_nodes").as_deref(), Some("11"));
        drop(other);
        assert_eq!(value(&metrics, "pallet_nodes").as_deref(), Some("4"));
        let queue = metrics.queued_groups();
        queue.set(2);
        assert_eq!(value(&metrics, "pallet_queued_groups").as_deref(), Some("2"));
        drop(queue);
        assert_eq!(value(&metrics, "pallet_queued_groups").as_deref(), Some("0"));
    }

    /// Every family with one member, so that its labels show.
    fn touched() -> Metrics {
        let metrics = Metrics::default();
        metrics.reconciled("ok", Duration::from_millis(1));
        drop((metrics.session_waits(), metrics.session_opens()));
        metrics.session_ended("done");
        metrics.lift_ended("complete");
        end(&metrics, None, "bootstrap");
        metrics.requested("get", "pods", Some(200));
        metrics.watch_failed("Pod");
        metrics
    }

    /// The table of `docs/reference/metrics.md`, as the registry has it.
    fn table(text: &str) -> String {
        let mut table = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
        for block in text.split("# HELP ").skip(1) {
            let (name, rest) = block.split_once(' ').unwrap();
            let help = rest.lines().next().unwrap().trim_end_matches('.');
            let kind = block.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap();
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let sample =
                block.lines().skip(1).find(|line| !line.starts_with('#') && line.starts_with("pallet")).unwrap();
            let labels =
                sample.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(labels, _)| labels);
            let labels =
                labels.split(',').filter_map(|label| label.split('=').next()).filter(|l| !l.is_empty() && *l != "le");
            let labels: Vec<String> = labels.map(|label| format!("`{label}`")).collect();
            table += &format!("| `{name}{suffix}` | {kind} | {} | {help} |\n", labels.join(", "));
        }
        table
    }

    #[test]
    fn the_documentation_lists_what_there_is() {
        let documented = include_str!("../../docs/reference/metrics.md");
        let table = table(&touched().text());
        assert!(
            table.lines().count() > 10 && documented.contains(&table),
            "docs/reference/metrics.md must have:\n{table}"
        );
    }

    #[test]
    fn the_phases_with_a_label_are_documented() {
        let documented = include_str!("../../docs/reference/metrics.md");
        for phase in KNOWN_PHASES {
            assert!(documented.contains(&format!("`{phase}`")), "{phase}");
        }
    }
}
