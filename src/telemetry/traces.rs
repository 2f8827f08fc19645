//! Traces by OTLP over HTTP (protobuf), configured by the standard `OTEL_*` variables.
//!
//! They are sent where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says, and not at all where
//! neither is set. The spans are those of the logs: `reconcile`, `session` and `phase`.

use std::{fmt, pin::Pin, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

/// How long the last spans may take to be sent when the operator stops.
const FLUSH: Duration = Duration::from_secs(3);
/// A collector's answer says nothing that would be longer.
const ANSWER_LIMIT: usize = 64 << 10;

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates of this machine cannot be read.
    #[error("the system's certificates cannot be read")]
    Certificates(#[source] std::io::Error),
    /// The variables say something that cannot be done.
    #[error("the OTEL_ variables cannot be used")]
    Configuration(#[source] ExporterBuildError),
}

/// Traces that are being sent.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

/// Sends traces where the environment says so. Must be called inside of the runtime that requests are to run on.
///
/// # Errors
/// What the environment says cannot be done.
pub fn start() -> Result<Option<Traces>, Error> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let none = std::env::var("OTEL_TRACES_EXPORTER").is_ok_and(|value| value == "none");
    let somewhere = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    if disabled || none || !somewhere {
        return Ok(None);
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime::new().map_err(Error::Certificates)?)
        // The only one that is built in, whatever OTEL_EXPORTER_OTLP_PROTOCOL says.
        .with_protocol(Protocol::HttpBinary)
        .build()
        .map_err(Error::Configuration)?;
    let mut resource = Resource::builder();
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("pallet-operator");
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    Ok(Some(Traces(provider)))
}

impl Traces {
    /// What takes spans in: the operator's own, from `info` on, whatever is logged.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let own = Targets::new().with_target("pallet_operator", LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("pallet-operator")).with_filter(own).boxed()
    }

    /// Sends what has not been sent yet, and ends. Takes 3 s at the most.
    pub async fn end(self) {
        let ending = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH));
        if !matches!(tokio::time::timeout(FLUSH, ending).await, Ok(Ok(Ok(())))) {
            tracing::warn!("failed to export the last traces");
        }
    }
}

/// Makes requests on the operator's runtime: the SDK asks for them from a thread of its own, which has none.
struct OnRuntime {
    runtime: Handle,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

impl OnRuntime {
    fn new() -> std::io::Result<Self> {
        let connector = HttpsConnectorBuilder::new().with_native_roots()?.https_or_http().enable_http1().build();
        let milliseconds = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
        let timeout = milliseconds("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or(milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT"));
        Ok(Self {
            runtime: Handle::current(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout: timeout.map_or(opentelemetry_otlp::OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis),
        })
    }
}

impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRuntime").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl HttpClient for OnRuntime {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let call = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_LIMIT).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let call = self.runtime.spawn(async move { tokio::time::timeout(timeout, call).await? });
        Box::pin(async move { call.await? })
    }
}
