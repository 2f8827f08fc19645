//! Stands between the operator and the API server, and does what networks and servers do on bad days.
//!
//! The operator speaks plain HTTP to it; it forwards with the tests' own credentials. What happens to a request is the
//! decision of the test, which sees each of them before it is forwarded, and each frame of an exec.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};

/// One request of the operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Call {
    /// As in RBAC; `exec` for an exec.
    pub verb: &'static str,
    /// With its subresource: `pods/status`.
    pub resource: String,
    /// Of the object.
    pub name: Option<String>,
    pub dry_run: bool,
}

impl Call {
    fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let has = |what: &str| query.split('&').any(|pair| pair == what);
        let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let rest = match rest {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        let (resource, name) = match rest {
            [resource, name, sub] => (format!("{resource}/{sub}"), Some((*name).to_owned())),
            [resource, name] => ((*resource).to_owned(), Some((*name).to_owned())),
            [resource] => ((*resource).to_owned(), None),
            _ => (request.uri().path().to_owned(), None),
        };
        let verb = match *request.method() {
            _ if resource == "pods/exec" => "exec",
            Method::POST => "create",
            Method::PUT => "replace",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ if has("watch=true") || has("watch=1") => "watch",
            _ if name.is_some() => "get",
            _ => "list",
        };
        Self { verb, resource, name, dry_run: has("dryRun=All") }
    }

    /// Whether it changes anything; events are courtesies and do not count.
    pub fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "replace" | "patch" | "delete") && !self.dry_run && self.resource != "events"
    }

    /// As in `patch pods/status`.
    pub fn kind(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }
}

/// What becomes of a request, or of a frame of an exec.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Fate {
    Pass,
    /// It does not arrive: the connection breaks.
    LoseRequest,
    /// It arrives, and the connection breaks before the answer.
    LoseAnswer,
    /// It does not arrive, and nobody says so.
    SwallowRequest,
    /// It arrives, and the answer never comes.
    SwallowAnswer,
    /// The server has another answer, and has done nothing.
    Answer(u16),
}

/// Which way a frame of an exec goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    ToNode,
    FromNode,
}

type Judge<T> = Box<dyn FnMut(T) -> Fate + Send>;

struct Shared {
    client: Client,
    calls: Mutex<Judge<Call>>,
    frames: Mutex<Judge<Way>>,
    /// By number, so that an answer that comes late finds nothing when the history was forgotten.
    history: Mutex<BTreeMap<u64, (Call, Option<u16>)>>,
    numbers: AtomicU64,
    /// How much was swallowed so far.
    swallowed: watch::Sender<u64>,
    state: watch::Sender<State>,
}

/// What holds for all connections; the numbers say how often it was asked for.
#[derive(Clone, Copy, Default)]
struct State {
    cut: u64,
    held: &'static [&'static str],
    expired: u64,
    torn: u64,
    frozen: u64,
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Proxy {
    pub async fn start() -> Self {
        let mut config = Config::infer().await.expect("KUBECONFIG");
        config.default_retry = false;
        let client = Client::try_from(config).expect("a client");
        let shared = Arc::new(Shared {
            client,
            calls: Mutex::new(Box::new(|_| Fate::Pass)),
            frames: Mutex::new(Box::new(|_| Fate::Pass)),
            history: Mutex::default(),
            numbers: AtomicU64::default(),
            swallowed: watch::Sender::new(0),
            state: watch::Sender::new(State::default()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let shared = serving.clone();
                tokio::spawn(async move {
                    let mut state = shared.state.subscribe();
                    let began = state.borrow().cut;
                    let serving = shared.clone();
                    let service = service_fn(move |request| serving.clone().serve(request));
                    let connection =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = connection.with_upgrades() => {}
                        _ = state.wait_for(|state| state.cut > began) => {}
                    }
                });
            }
        });
        Self { port, shared }
    }

    /// Where it is, for a kubeconfig.
    pub fn server(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on `judge` decides on every request.
    pub fn judge(&self, judge: impl FnMut(Call) -> Fate + Send + 'static) {
        *self.shared.calls.lock().unwrap() = Box::new(judge);
    }

    /// From now on `judge` decides on every frame of every exec. Answers make no sense there.
    pub fn judge_frames(&self, judge: impl FnMut(Way) -> Fate + Send + 'static) {
        *self.shared.frames.lock().unwrap() = Box::new(judge);
    }

    /// Waits until more was swallowed than `before`.
    pub async fn swallowed(&self, before: u64) {
        let _ = self.shared.swallowed.subscribe().wait_for(|count| *count > before).await;
    }

    pub fn swallowed_so_far(&self) -> u64 {
        *self.shared.swallowed.borrow()
    }

    /// Every request so far, with the API server's own answer where it was asked and has answered.
    pub fn history(&self) -> Vec<(Call, Option<u16>)> {
        self.shared.history.lock().unwrap().values().cloned().collect()
    }

    pub fn forget_history(&self) {
        self.shared.history.lock().unwrap().clear();
    }

    /// How many requests of a kind the API server has carried out.
    pub fn done(&self, kind: &str) -> usize {
        let good = |status: &Option<u16>| status.is_some_and(|status| (200..300).contains(&status));
        self.history().iter().filter(|(call, status)| call.kind() == kind && !call.dry_run && good(status)).count()
    }

    /// Ends every connection there is.
    pub fn cut(&self) {
        self.shared.state.send_modify(|state| state.cut += 1);
    }

    /// Holds back what the watches of these resources bring, and lets all others go.
    pub fn hold_watches(&self, resources: &'static [&'static str]) {
        self.shared.state.send_modify(|state| state.held = resources);
    }

    /// Tells every watch that it is too old, as the API server does by an event.
    pub fn expire_watches(&self) {
        self.shared.state.send_modify(|state| state.expired += 1);
    }

    /// Breaks every watch in the middle of an event.
    pub fn tear_watches(&self) {
        self.shared.state.send_modify(|state| state.torn += 1);
    }

    /// Lets no byte through any more on the execs there are, without ending them.
    pub fn freeze_execs(&self) {
        self.shared.state.send_modify(|state| state.frozen += 1);
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let call = Call::of(&request);
        let fate = (self.calls.lock().unwrap())(call.clone());
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.history.lock().unwrap().insert(number, (call.clone(), None));
        match fate {
            Fate::LoseRequest => return Err(lost()),
            Fate::SwallowRequest => return self.swallow().await,
            Fate::Answer(code) => return Ok(answer(code)),
            Fate::Pass | Fate::LoseAnswer | Fate::SwallowAnswer => {}
        }
        let near = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(header::HOST);
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let shared = self.clone();
        // A task of its own: once forwarded it is carried through and noted, though the operator may be dead by then.
        let sending = tokio::spawn(async move {
            let answer = shared.client.send(Request::from_parts(parts, body.into())).await?;
            if let Some(entry) = shared.history.lock().unwrap().get_mut(&number) {
                entry.1 = Some(answer.status().as_u16());
            }
            Ok::<_, kube::Error>(answer)
        });
        let mut answer = sending.await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        match fate {
            Fate::LoseAnswer => return Err(lost()),
            Fate::SwallowAnswer => return self.swallow().await,
            _ => {}
        }
        if let (Some(near), StatusCode::SWITCHING_PROTOCOLS) = (near, answer.status()) {
            let far = hyper::upgrade::on(&mut answer);
            let shared = self.clone();
            tokio::spawn(async move {
                if let Ok((near, far)) = tokio::try_join!(near, far) {
                    shared.relay(near, far).await;
                }
            });
        }
        let (parts, body) = answer.into_parts();
        let body = body.map_err(io::Error::other);
        let body = if call.verb == "watch" && parts.status.is_success() {
            self.watched(call.resource, body.boxed_unsync()).boxed_unsync()
        } else {
            body.boxed_unsync()
        };
        Ok(Response::from_parts(parts, body))
    }

    async fn swallow<T>(&self) -> T {
        self.swallowed.send_modify(|count| *count += 1);
        std::future::pending().await
    }

    /// What a watch brings, with what may happen to it.
    fn watched(
        &self,
        resource: String,
        body: Body,
    ) -> impl hyper::body::Body<Data = Bytes, Error = io::Error> + Send + 'static {
        let state = self.state.subscribe();
        let began = *state.borrow();
        let step = move |(mut body, mut state, ending): (Body, watch::Receiver<State>, Option<Ending>)| {
            let resource = resource.clone();
            async move {
                match ending {
                    Some(Ending::Closed) => return None,
                    Some(Ending::Broken) => return Some((Err(lost()), (body, state, Some(Ending::Closed)))),
                    None => {}
                }
                loop {
                    let now = *state.borrow_and_update();
                    if now.expired > began.expired {
                        return Some((Ok(Frame::data(EXPIRED.into())), (body, state, Some(Ending::Closed))));
                    }
                    if now.torn > began.torn {
                        let half = Bytes::from_static(br#"{"type":"MODIFIED","object":{"kind":"#);
                        return Some((Ok(Frame::data(half)), (body, state, Some(Ending::Broken))));
                    }
                    tokio::select! {
                        frame = body.frame(), if !now.held.contains(&resource.as_str()) => return frame.map(|frame| (frame, (body, state, None))),
                        changed = state.changed() => if changed.is_err() { return None },
                    }
                }
            }
        };
        StreamBody::new(stream::unfold((body, state, None), step).boxed())
    }

    /// Carries the frames of an exec both ways.
    async fn relay(&self, near: Upgraded, far: Upgraded) {
        let mut state = self.state.subscribe();
        let began = *state.borrow();
        let (near_read, near_write) = tokio::io::split(TokioIo::new(near));
        let (far_read, far_write) = tokio::io::split(TokioIo::new(far));
        let over = async {
            let Ok(now) = state.wait_for(|state| state.cut > began.cut || state.frozen > began.frozen).await else {
                return false;
            };
            now.frozen > began.frozen
        };
        let mut there = pin!(self.carry(Way::ToNode, near_read, far_write));
        let mut back = pin!(self.carry(Way::FromNode, far_read, near_write));
        let frozen = tokio::select! {
            _ = &mut there => false,
            _ = &mut back => false,
            frozen = over => frozen,
        };
        if frozen {
            // Both ends stay open, for as long as nobody cuts: they are closed when their carriers are dropped.
            let _ = state.wait_for(|state| state.cut > began.cut).await;
        }
    }

    async fn carry(
        &self,
        way: Way,
        mut from: impl tokio::io::AsyncRead + Unpin,
        mut to: impl tokio::io::AsyncWrite + Unpin,
    ) -> io::Result<()> {
        while let Some(frame) = read_frame(&mut from).await? {
            // Pings and pongs are the connection's own.
            let fate = if frame[0] & 0x0f >= 0x9 { Fate::Pass } else { (self.frames.lock().unwrap())(way) };
            match fate {
                Fate::SwallowRequest => return self.swallow().await,
                Fate::LoseRequest => return Ok(()),
                _ => {}
            }
            to.write_all(&frame).await?;
            to.flush().await?;
            match fate {
                Fate::SwallowAnswer => return self.swallow().await,
                Fate::LoseAnswer => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }
}

enum Ending {
    Closed,
    Broken,
}

const EXPIRED: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""message":"too old resource version: 1 (2)","reason":"Expired","code":410}}"#,
    "\n"
);

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "lost by the proxy")
}

/// An answer as the API server would give it.
fn answer(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{code} by the proxy"), "reason": reason, "code": code
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).expect("a status code");
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if code == 429 {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// Reads one WebSocket frame (RFC 6455, 5.2) as it is, or none at the end.
async fn read_frame(from: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; 2];
    if from.read(&mut frame[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut frame[1..]).await?;
    let extended = match frame[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if frame[1] & 0x80 == 0 { 0 } else { 4 };
    frame.resize(2 + extended + mask, 0);
    from.read_exact(&mut frame[2..]).await?;
    let length = match extended {
        0 => u64::from(frame[1] & 0x7f),
        _ => frame[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let head = frame.len();
    frame.resize(head + usize::try_from(length).map_err(io::Error::other)?, 0);
    from.read_exact(&mut frame[head..]).await?;
    Ok(Some(frame))
}
