//! One small server: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, time::Instant};

use super::Telemetry;

/// The address is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; choose another one with --http-address")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    /// Where it listens; the port was chosen by the system where 0 was asked for.
    pub address: SocketAddr,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// The address is taken, or is none of this machine's.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let wrap = |source| ListenError { address, source };
        let listener = TcpListener::bind(address).await.map_err(wrap)?;
        let address = listener.local_addr().map_err(wrap)?;
        Ok(Self { listener, address })
    }

    /// Answers for ever.
    pub async fn serve(self, telemetry: Telemetry) {
        let router = Router::new()
            .route("/livez", get(live))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(telemetry);
        // It only returns when it is told to end, and nobody tells it.
        let _ = axum::serve(self.listener, router).await;
    }
}

async fn live(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    answer(telemetry.health.alive(Instant::now()))
}

async fn ready(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    answer(telemetry.health.ready(Instant::now()))
}

fn answer(verdict: Result<String, String>) -> (StatusCode, String) {
    match verdict {
        Ok(text) => (StatusCode::OK, text + "\n"),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text + "\n"),
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], telemetry.metrics.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::Role;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_answers_what_is_so() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (address, telemetry) = (server.address, Telemetry::default());
        tokio::spawn(server.serve(telemetry.clone()));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
        let starting = get(address, "/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.ends_with("starting\n"), "{starting}");
        telemetry.health.become_role(Role::Standby);
        telemetry.health.lease_seen();
        let standby = get(address, "/readyz").await;
        assert!(standby.starts_with("HTTP/1.1 200") && standby.ends_with("the lease is watched\n"), "{standby}");
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("openmetrics-text") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_the_flag() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = Server::bind(server.address).await.unwrap_err().to_string();
        assert!(error.contains(&server.address.to_string()) && error.contains("--http-address"), "{error}");
    }
}
