//! The operator: arguments, logs, and the loop that ends gracefully.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::{ArgAction, Parser, ValueEnum};
use ipnet::IpNet;
use kube::{Client, Config, client::ClientBuilder};
use pallet_client::answer;
use pallet_operator::{
    controller::{
        self, Settings,
        references::{Polls, References},
    },
    lease::{
        Election,
        lead::{Fenced, Lead},
    },
    ports::SystemClock,
    probe,
    telemetry::{Telemetry, health::Role, http, logs, requests::Counted},
    transport::{
        Ways,
        pod_exec::PodExec,
        ssh::{Guard, Ssh},
        undelayed,
    },
};
use tokio::signal::unix::{SignalKind, signal};
use tower::timeout::TimeoutLayer;
use tracing::{info, warn};

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
    /// How many sessions on nodes may be open at once, over all groups. One namespace gets half of them at the most, less where
    /// others want theirs.
    #[arg(long, value_name = "N", default_value_t = 128, env = "PALLET_SESSIONS")]
    sessions: usize,
    /// How many groups may be reconciled at once. One namespace gets half of them at the most, unless the operator looks after
    /// that one alone.
    #[arg(long, value_name = "N", default_value_t = 8, env = "PALLET_RECONCILES")]
    reconciles: u16,
    /// Whether operators stand for election by a Lease, so that of several only one is at work.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, env = "PALLET_LEADER_ELECT")]
    leader_elect: bool,
    /// The namespace of the Lease and of the key by which changes of Secrets are noticed; that of the pod's service account, or of the kubeconfig's context, without it.
    #[arg(long, value_name = "NAMESPACE", env = "PALLET_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// The name of the Lease. Operators that look after different namespaces need different ones.
    #[arg(long, value_name = "NAME", default_value = "pallet-operator", env = "PALLET_LEASE_NAME")]
    lease_name: String,
    /// How often Secrets that phases name are read again, to notice that they have changed.
    #[arg(long, value_name = "DURATION", default_value = "5m", env = "PALLET_SECRET_POLL")]
    secret_poll: kube::core::Duration,
    /// The same for ConfigMaps.
    #[arg(long, value_name = "DURATION", default_value = "1m", env = "PALLET_CONFIG_MAP_POLL")]
    config_map_poll: kube::core::Duration,
    /// A range of addresses in which hosts may be, though it is refused by itself: loopback, link-local, or the API server's. May be
    /// given several times.
    #[arg(long = "allow-host-range", value_name = "CIDR", env = "PALLET_ALLOW_HOST_RANGES", value_delimiter = ',')]
    allowed_host_ranges: Vec<IpNet>,
    /// A range of addresses in which no host may be, such as that of the control plane's machines: of the API server's addresses the
    /// operator knows only those that it uses itself. May be given several times, and counts more than --allow-host-range.
    #[arg(long = "refuse-host-range", value_name = "CIDR", env = "PALLET_REFUSE_HOST_RANGES", value_delimiter = ',')]
    refused_host_ranges: Vec<IpNet>,
    /// Where /livez, /readyz and /metrics are served. Port 0 has the system choose one.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", env = "PALLET_HTTP_ADDRESS")]
    http_address: SocketAddr,
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

impl From<LogFormat> for logs::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// How long the process waits at its end for an evaluation that is under way: it cannot be interrupted, and nothing waits
/// for what it says.
const LAST_EVALUATION: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(start());
    runtime.shutdown_timeout(LAST_EVALUATION);
    result
}

async fn start() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(address) = &arguments.probe {
        return Ok(probe::probe(address, Duration::from_secs(30))?);
    }
    let filter = logs::filter(&arguments.log).context("--log is no filter; write one such as info")?;
    #[cfg(feature = "otel")]
    let traces = pallet_operator::telemetry::traces::start()?;
    #[cfg(feature = "otel")]
    let beside = traces.as_ref().map(|traces| traces.layer());
    #[cfg(not(feature = "otel"))]
    let beside = None;
    logs::init(arguments.log_format.into(), filter, beside)?;
    let result = operate(arguments).await;
    #[cfg(feature = "otel")]
    if let Some(traces) = traces {
        traces.end().await;
    }
    result
}

async fn operate(arguments: Arguments) -> anyhow::Result<()> {
    let stop = stopped()?;
    let telemetry = Telemetry::default();
    let server = http::Server::bind(arguments.http_address).await?;
    let http_address = server.address;
    tokio::spawn(server.serve(telemetry.clone()));

    let config = Config::infer().await.context("no cluster: set KUBECONFIG, or run in a pod with a service account")?;
    let namespace = arguments.lease_namespace.unwrap_or_else(|| config.default_namespace.clone());
    let lead = if arguments.leader_elect { Lead::not_yet() } else { Lead::always() };
    let client = connect(config.clone(), true, &lead, &telemetry)?;
    // A repeated handshake would start a second shell on the node, and a lease that comes late is none.
    let exec = undelayed::client(&named(config.clone())).map_err(|error| unusable(&error))?;
    let exec = exec.with_layer(&TimeoutLayer::new(ANSWER)).with_layer(&Counted(telemetry.metrics.clone())).build();
    let server = config.cluster_url.clone();
    let once = connect(config, false, &Lead::always(), &telemetry)?;
    let version = tokio::time::timeout(Duration::from_secs(30), client.apiserver_version()).await;
    let version = version
        .context("the API server did not answer within 30 s")?
        .map_err(|error| anyhow::anyhow!("the API server cannot be reached: {}", answer::words(&error)))?;
    info!(
        server = version.git_version,
        version = env!("CARGO_PKG_VERSION"),
        namespaces = ?arguments.namespaces,
        %http_address,
        "started"
    );
    let polls = Polls { secrets: arguments.secret_poll.into(), config_maps: arguments.config_map_poll.into() };
    let settings = Settings {
        namespaces: arguments.namespaces,
        sessions: arguments.sessions,
        reconciles: arguments.reconciles,
        own_namespace: namespace.clone(),
        polls,
    };
    let keyring = Arc::new(References::new(client.clone(), namespace.clone(), polls, Arc::new(SystemClock)));
    let guard = Guard::new(api_servers(&server).await, arguments.allowed_host_ranges);
    let guard = guard.refusing(arguments.refused_host_ranges);
    let ways = Ways { exec: PodExec::new(exec), ssh: Ssh::new(keyring, guard) };
    let transport = Arc::new(Fenced::new(ways, lead.clone()));
    if arguments.leader_elect {
        let election = Election::new(once, namespace, arguments.lease_name, &pod_name(), lead, telemetry.clone());
        let work = move |ending| {
            let (client, transport, settings) = (client.clone(), transport.clone(), settings.clone());
            let ended = async {
                let _ = ending.await;
            };
            controller::run(client, transport, settings, telemetry.clone(), ended)
        };
        election.lead(work, stop).await?;
    } else {
        warn!("leader election is off: no other operator may run for these namespaces");
        telemetry.health.become_role(Role::Alone);
        let _leads = telemetry.metrics.leads();
        controller::run(client, transport, settings, telemetry.clone(), stop).await;
    }
    info!("stopped; runs on nodes continue, and the next operator reattaches to them");
    Ok(())
}

/// An answer that has not begun after this does not come. A list or a watch has no other deadline: one that is never answered
/// would leave the operator blind.
const ANSWER: Duration = Duration::from_secs(30);

/// The addresses of the API server: where the operator asks it, and where pods do.
async fn api_servers(server: &::http::Uri) -> Vec<IpAddr> {
    let asked = server.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    let hosts = asked.into_iter().chain(std::env::var("KUBERNETES_SERVICE_HOST").ok());
    let mut found = Vec::new();
    for host in hosts {
        match tokio::time::timeout(ANSWER, tokio::net::lookup_host((host.as_str(), 0))).await {
            Ok(Ok(addresses)) => found.extend(addresses.map(|address| address.ip())),
            // It was asked there a moment ago: a proxy may have resolved it.
            _ => warn!(host, "failed to resolve the API server's name; hosts at its address are not refused"),
        }
    }
    found
}

/// The name of this pod, or of this machine.
fn pod_name() -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("POD_NAME").ok().or_else(host).unwrap_or_default();
    if name.trim().is_empty() { "pallet-operator".into() } else { name.trim().into() }
}

/// As who it asks.
fn named(mut config: Config) -> Config {
    let agent = concat!("pallet-operator/", env!("CARGO_PKG_VERSION"));
    config.headers.push((::http::header::USER_AGENT, ::http::HeaderValue::from_static(agent)));
    config
}

fn unusable(error: &kube::Error) -> anyhow::Error {
    anyhow::anyhow!("the cluster's configuration cannot be used: {}", answer::words(error))
}

fn connect(mut config: Config, retry: bool, lead: &Lead, telemetry: &Telemetry) -> anyhow::Result<Client> {
    config.default_retry = retry;
    let client = ClientBuilder::try_from(named(config)).map_err(|error| unusable(&error))?;
    let (deadline, counted) = (TimeoutLayer::new(ANSWER), Counted(telemetry.metrics.clone()));
    Ok(client.with_layer(&deadline).with_layer(&counted).with_layer(lead).build())
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
