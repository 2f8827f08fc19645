//! One small server: `/livez`, `/readyz`, `/metrics`.
//!
//! Guarantees: whoever connects is served, however many others hold connections and send nothing: there are at most
//! [`CONNECTIONS`], and the oldest is closed for a new one. A connection ends [`HEADERS`] after it was last of use, and after
//! [`LIFETIME`] in any case. Requests with a body are refused and the body is not read.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

use super::Telemetry;

/// How many connections there are at once.
const CONNECTIONS: usize = 64;
/// How long a client may take to send the headers of a request, the time before their first byte included.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a connection may last, answers included.
const LIFETIME: Duration = Duration::from_secs(120);
/// The longest request line and headers, in bytes.
const HEAD: usize = 16 << 10;
/// The pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

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
        // Dropped with this future, and all connections with it.
        let mut tasks = JoinSet::new();
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            while tasks.try_join_next().is_some() {}
            open.retain(|connection| !connection.is_finished());
            if open.len() >= CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            open.push_back(tasks.spawn(connection(stream, router.clone())));
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            if hyper::body::Body::is_end_stream(request.body()) {
                return router.oneshot(request.map(Body::new)).await;
            }
            let mut refusal: Response = (StatusCode::PAYLOAD_TOO_LARGE, "no body is read here\n").into_response();
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok(refusal)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEAD);
    // What a client does not wait for, or does badly, is nobody's concern.
    let _ = timeout(LIFETIME, server.serve_connection(TokioIo::new(stream), service)).await;
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
    /// Each sends the beginning of a request, and no more.
    #[tokio::test]
    async fn many_slow_clients_keep_nobody_from_an_answer() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address;
        tokio::spawn(server.serve(Telemetry::default()));
        let mut slow = Vec::new();
        for _ in 0..CONNECTIONS * 3 {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            // One that was closed already takes nothing.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-").await;
            slow.push(stream);
        }
        let answer =
            timeout(HEADERS / 2, get(address, "/livez")).await.expect("it is answered before they are given up");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let mut ended = 0;
        for stream in &mut slow {
            ended += usize::from(timeout(Duration::from_millis(20), stream.read_u8()).await.is_ok());
        }
        assert!(ended > CONNECTIONS * 2 && ended < CONNECTIONS * 3, "{ended} were closed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_no_request_is_given_up() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address;
        tokio::spawn(server.serve(Telemetry::default()));
        for begun in ["", "GET /livez HTTP/1.1\r\nHost: x\r\nX-", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let began = Instant::now();
            let mut rest = Vec::new();
            let _ = timeout(LIFETIME * 2, stream.read_to_end(&mut rest)).await.expect("it is closed");
            assert!(began.elapsed() < HEADERS * 2, "{begun:?}: {:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn a_body_is_refused_unread() {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address;
        tokio::spawn(server.serve(Telemetry::default()));
        for framing in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET /livez HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            timeout(HEADERS / 2, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
        }
    }
}
