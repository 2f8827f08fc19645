//! Logs: for people, or one JSON object a line.
//!
//! In JSON, the fields of the spans that a line stands in are at the top level beside its own: a line about a phase has
//! `group`, `node`, `phase` and `run`, so `jq 'select(.run == "...")'` finds all that was said of a run.

use std::{fmt, io::IsTerminal};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::ParseError,
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The filter of what is logged. Of warnings of the Kubernetes client nothing is logged unless `text` asks for its target by
/// name: they may hold whole answers of the API server, with the data of Secrets.
///
/// # Errors
/// The text is no filter.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("kube_client::client=error,{text}"))
}

/// Something beside the logs that spans and events go to.
pub type Beside = Box<dyn Layer<Registry> + Send + Sync>;

/// Has what is logged from now on written to stderr, as far as it passes the filter; `beside` sees all of it.
///
/// # Errors
/// Somebody has done so before.
pub fn init(format: Format, filter: EnvFilter, beside: Option<Beside>) -> Result<(), TryInitError> {
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match format {
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        Format::Json => logs.fmt_fields(JsonFields::new()).event_format(FlatJson).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(beside).with(logs).try_init()
}

/// One flat JSON object a line. Use it together with [`JsonFields`].
#[derive(Clone, Copy, Debug, Default)]
pub struct FlatJson;

impl<S> FormatEvent<S, JsonFields> for FlatJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        // From the outermost span inwards, then the line's own: what is closer counts.
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            if let Some(Ok(Value::Object(fields))) = fields.map(|fields| serde_json::from_str(&fields.fields)) {
                line.extend(fields);
            }
            line.insert("span".into(), span.name().into());
        }
        event.record(&mut Fields(&mut line));
        let metadata = event.metadata();
        line.insert("timestamp".into(), Timestamp::now().to_string().into());
        line.insert("level".into(), metadata.level().as_str().into());
        line.insert("target".into(), metadata.target().into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Puts an event's fields into an object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Ended, Metrics};
    use serde_json::json;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines that are logged meanwhile.
    fn lines(filter: &str, log: impl FnOnce()) -> Vec<Value> {
        // Without one that takes everything, a line that another test has met first may be cached as wanted by nobody.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        let captured = Captured::default();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(super::filter(filter).unwrap())
            .with_writer(captured.clone())
            .fmt_fields(JsonFields::new())
            .event_format(FlatJson)
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn a_line_about_a_phase_has_group_node_phase_and_run_at_the_top() {
        let lines = lines("info", || {
            let metrics = Metrics::default();
            let _session = tracing::error_span!("session", group = "shop/web", node = "web-0").entered();
            let run = metrics.run_starts("configure", "configure-1f", Some(2));
            run.span.in_scope(|| tracing::info!("phase starts"));
            let phase_result = json!({
                "phase": "configure", "digest": "d", "runId": "configure-1f", "attempt": 2, "outcome": "Failed",
                "exitCode": 3, "message": "motd failed",
                "startedAt": "2026-11-21T10:00:00Z", "finishedAt": "2026-11-21T10:01:00Z"
            });
            let phase_result = serde_json::from_value(phase_result).unwrap();
            let ended = Ended { phase: "configure", outcome: "failed", phase_result: &phase_result, joined: false };
            metrics.run_ended(Some(run), &ended);
        });
        assert_eq!(lines.len(), 2);
        for (line, message) in lines.iter().zip(["phase starts", "phase ended"]) {
            assert_eq!(line["message"], message);
            assert_eq!(line["group"], "shop/web");
            assert_eq!(line["node"], "web-0");
            assert_eq!(line["phase"], "configure");
            assert_eq!(line["run"], "configure-1f");
            assert_eq!(line["attempt"], 2);
            assert_eq!(line["level"], "INFO");
            assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        }
        assert_eq!((&lines[1]["outcome"], &lines[1]["exit_code"]), (&"failed".into(), &3.into()));
        assert_eq!(lines[1]["error"], "motd failed");
        assert!(lines[1]["seconds"].is_number() && lines[0].get("error").is_none());
    }

    /// A filter that lets only warnings through must not take away what they are about.
    #[test]
    fn a_warning_says_what_it_is_about_under_any_filter() {
        let lines = lines("warn", || {
            let _session = tracing::error_span!("session", group = "shop/web", node = "web-0").entered();
            let run = Metrics::default().run_starts("bootstrap", "bootstrap-2e", None);
            run.span.in_scope(|| tracing::warn!("connection lost"));
        });
        assert_eq!((&lines[0]["node"], &lines[0]["run"]), (&"web-0".into(), &"bootstrap-2e".into()));
    }

    /// Found by review: an answer that the client could not decode was logged whole, with the Secrets in it.
    #[test]
    fn warnings_of_the_client_are_logged_only_when_asked_for() {
        let log = || {
            tracing::warn!(target: "kube_client::client", "hunter2");
            tracing::error!(target: "kube_client::client", "failed");
            tracing::warn!("said");
        };
        for filter in ["info", "warn", "debug", "trace,hyper=off"] {
            let found: Vec<Value> = lines(filter, log).into_iter().map(|line| line["message"].clone()).collect();
            assert_eq!(found, ["failed", "said"], "{filter}");
        }
        assert_eq!(lines("info,kube_client::client=warn", log).len(), 3);
    }

    #[test]
    fn what_is_closer_counts_and_nothing_can_forge_a_line() {
        let lines = lines("info", || {
            let _outer = tracing::info_span!("outer", what = "outer", level = "none").entered();
            tracing::info!(what = "inner\n{\"level\":\"ERROR\"}", flag = true, number = -1, "said");
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["what"], "inner\n{\"level\":\"ERROR\"}");
        assert_eq!(
            (&lines[0]["level"], &lines[0]["flag"], &lines[0]["number"]),
            (&"INFO".into(), &true.into(), &(-1).into())
        );
    }
}
