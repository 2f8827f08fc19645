//! The operator: arguments, logs, and the loop that ends gracefully.

use std::{io::IsTerminal, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use kube::{Client, Config};
use pallet_operator::{
    controller::{self, Settings},
    probe,
    transport::pod_exec::PodExec,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

/// Keeps groups of nodes at their count and brings them through their phases.
///
/// The operator watches GroupSpecs (pallet.dev/v1alpha1), creates the nodes that are missing, runs bootstrap, settings and
/// configure on them, and writes the results into the status. It connects as kubectl does: with KUBECONFIG, or with the
/// service account of its pod.
///
/// It may be stopped or killed at any time: what runs on a node goes on there, and is found again.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// A namespace to look after. May be given several times; all namespaces without it.
    #[arg(long = "namespace", value_name = "NAMESPACE", env = "PALLET_NAMESPACES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// How many sessions on nodes may be open at once, over all groups. One group gets half of them at the most.
    #[arg(long, value_name = "N", default_value_t = 128, env = "PALLET_SESSIONS")]
    sessions: usize,
    /// How many groups may be reconciled at once.
    #[arg(long, value_name = "N", default_value_t = 8, env = "PALLET_RECONCILES")]
    reconciles: u16,
    /// How logs are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "PALLET_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged, as in `info` or `info,pallet_operator=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "RUST_LOG")]
    log: String,
    /// Asks this address, such as http://10.96.0.7:8080/readyz, for up to 30 seconds until it answers with 200, and ends.
    #[arg(long, value_name = "URL")]
    probe: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(address) = &arguments.probe {
        return Ok(probe::probe(address, Duration::from_secs(30))?);
    }
    let filter = EnvFilter::try_new(&arguments.log).context("--log is no filter; write one such as info")?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    let config = Config::infer().await.context("no cluster: set KUBECONFIG, or run in a pod with a service account")?;
    let client = connect(config.clone(), true)?;
    // A repeated handshake would start a second shell on the node.
    let exec = connect(config, false)?;
    let version = tokio::time::timeout(Duration::from_secs(30), client.apiserver_version()).await;
    let version =
        version.context("the API server did not answer within 30 s")?.context("the API server cannot be reached")?;
    info!(server = version.git_version, version = env!("CARGO_PKG_VERSION"), namespaces = ?arguments.namespaces, "started");
    let settings =
        Settings { namespaces: arguments.namespaces, sessions: arguments.sessions, reconciles: arguments.reconciles };
    controller::run(client, Arc::new(PodExec::new(exec)), settings, stopped()?).await;
    info!("stopped; what runs on nodes goes on and will be found again");
    Ok(())
}

fn connect(mut config: Config, retry: bool) -> anyhow::Result<Client> {
    config.default_retry = retry;
    let agent = concat!("pallet-operator/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    Client::try_from(config).context("the cluster's configuration cannot be used")
}

/// Resolves at the first signal that asks the operator to end.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
