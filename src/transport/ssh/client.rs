//! A connection to an SSH server, to the point where it has let us in.
//!
//! Guarantees: nothing but the key exchange takes place before the host is trusted; everything that the other side asks for
//! by itself is refused (no forwarding of agents, ports or X11); a connection that is dropped, at whatever stage, is cut and
//! leaves no task behind.

use pallet_api::reason::Reason;
use parking_lot::Mutex;
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use russh::{
    Channel, Preferred, SshId,
    client::{self, AuthResult, ChannelOpenHandle, Config, DisconnectReason, Handle, Msg, Session},
    compression,
    keys::{Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    task::AbortHandle,
    time::timeout,
};

use super::{
    HANDSHAKE, Stage, error,
    known_hosts::{Host, Trusted, line},
    limits::HandshakePermit,
    line::{Line, Scissors},
};
use crate::transport::OpenError;

/// How much a host may send on a channel before it is told that there is room for more.
pub const WINDOW: u32 = 512 << 10;
/// Packets of a channel that are kept for a reader who is slow. More than these, of 32 KiB at the most, and the network waits.
const PACKETS: usize = 16;
/// How many keepalives may go unanswered.
const MISSED: usize = 3;

/// What is needed to log in somewhere. Its key lives as long as the attempt does.
pub struct Login {
    /// For whom.
    pub namespace: String,
    /// How people call it.
    pub name: String,
    /// Whom the key has to be for.
    pub host: Host,
    /// What is trusted.
    pub trusted: Trusted,
    /// Who logs in.
    pub user: String,
    /// With which key.
    pub key: Arc<PrivateKey>,
    /// Where the key is, for people.
    pub key_place: String,
    /// A certificate for that key, if there is one.
    pub certificate: Option<Certificate>,
}

/// A connection that somebody is logged in on. Dropping it cuts it.
pub struct Connection {
    /// Opens channels.
    pub handle: Arc<Handle<Client>>,
    ended: Ended,
    watch: AbortHandle,
    /// What was taken for it and is given back with it.
    _holds: Box<dyn Send + Sync>,
}

impl Connection {
    /// What is known of its end.
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.watch.abort();
        self.ended.scissors.cut();
    }
}

/// What is known of the end of a connection.
#[derive(Clone)]
pub struct Ended {
    farewell: Arc<Mutex<Option<String>>>,
    scissors: Arc<Scissors>,
}

impl Ended {
    /// For people.
    pub fn why(&self) -> String {
        let farewell = self.farewell.lock().clone();
        farewell.or_else(|| self.scissors.end()).unwrap_or_else(|| "the connection broke".to_owned())
    }
}

/// What the library asks us while a connection lasts.
pub struct Client {
    trusted: Trusted,
    farewell: Arc<Mutex<Option<String>>>,
}

/// How a connection fails within the library's calls.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// By our decision.
    #[error("{}", .0.message)]
    Refused(super::known_hosts::Refusal),
    /// Otherwise.
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

/// The library accepts whatever a server wants to open, unless it is told otherwise: a reply that is dropped is a refusal.
macro_rules! refuse_what_the_server_opens {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(async fn $method(
            &mut self, _: Channel<Msg>, $($argument: $type,)* reply: ChannelOpenHandle, _: &mut Session,
        ) -> Result<(), Failure> {
            drop(reply);
            Ok(())
        })*
    };
}

impl client::Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, offered: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let verdict = match offered {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.trusted.judge_key(key.key_data()),
            PublicKeyOrCertificate::Certificate(certificate) => {
                // A clock before 1970 is no time at which a certificate is valid.
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                self.trusted.judge_certificate(certificate, now)
            }
        };
        verdict.map(|()| true).map_err(Failure::Refused)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        let farewell = match &reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                Some(format!("the host ended the connection: {}", said.message))
            }
            DisconnectReason::Error(Failure::Ssh(russh::Error::KeepaliveTimeout)) => {
                Some(format!("the host fell silent: it left {MISSED} keepalives unanswered"))
            }
            // The line knows better how it ended.
            DisconnectReason::Error(Failure::Ssh(russh::Error::Disconnect | russh::Error::IO(_))) => None,
            DisconnectReason::Error(error) => Some(format!("the connection broke: {error}")),
        };
        *self.farewell.lock() = farewell;
        match reason {
            DisconnectReason::ReceivedDisconnect(_) => Ok(()),
            DisconnectReason::Error(error) => Err(error),
        }
    }

    refuse_what_the_server_opens! {
        server_channel_open_forwarded_tcpip(_a: &str, _b: u32, _c: &str, _d: u32);
        server_channel_open_forwarded_streamlocal(_a: &str);
        server_channel_open_agent_forward();
        server_channel_open_unknown();
        server_channel_open_session();
        server_channel_open_direct_tcpip(_a: &str, _b: u32, _c: &str, _d: u32);
        server_channel_open_direct_streamlocal(_a: &str);
        server_channel_open_x11(_a: &str, _b: u32);
    }
}

fn config(login: &Login, keepalive: Duration) -> Config {
    let (keys, certificates) = login.trusted.kinds();
    Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-pallet_", env!("CARGO_PKG_VERSION")))),
        window_size: WINDOW,
        channel_buffer_size: PACKETS,
        preferred: Preferred {
            key: Cow::Owned(keys),
            host_key_certificates: Cow::Owned(certificates),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        inactivity_timeout: None,
        keepalive_interval: Some(keepalive),
        keepalive_max: MISSED,
        nodelay: true,
        ..Config::default()
    }
}

/// Waits until a host has said something, and returns that. Nothing was sent by then.
///
/// # Errors
/// Where the host closes the stream.
pub async fn greeting(
    stream: &mut (impl AsyncRead + Unpin),
    login: &Login,
    stage: &Stage,
) -> Result<Vec<u8>, OpenError> {
    stage.enter("waiting for its greeting");
    let mut heard = vec![0; 64];
    let length =
        stream.read(&mut heard).await.map_err(|error| unreachable(login, &format!("the connection broke: {error}")))?;
    if length == 0 {
        return Err(unreachable(login, "it closed the connection at once; it may have too many already (MaxStartups)"));
    }
    heard.truncate(length);
    Ok(heard)
}

/// Logs in over a stream of which `heard` was read. The permit is held until that is done, what all namespaces share of it for
/// [`HANDSHAKE`] at most. `holds` lives as long as the connection does.
///
/// # Errors
/// Where the host is not trusted, refuses the login, or does not speak SSH. The stream is cut then.
pub async fn log_in<S>(
    stream: S,
    heard: Vec<u8>,
    login: &Login,
    mut permit: Option<HandshakePermit>,
    keepalive: Duration,
    stage: &Stage,
    holds: Box<dyn Send + Sync>,
) -> Result<Connection, OpenError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    stage.enter("exchanging keys");
    let (line, scissors) = Line::new(stream, heard);
    let farewell = Arc::default();
    let ended = Ended { farewell: Arc::clone(&farewell), scissors: Arc::new(scissors) };
    // What is left of a handshake that is given up ends with its line.
    let given_up = CutUnlessKept(Some(ended.clone()));
    let client = Client { trusted: login.trusted.clone(), farewell };
    let config = Arc::new(config(login, keepalive));
    let shake = async {
        let connected = client::connect_stream(config, line, client).await;
        let mut handle = connected.map_err(|failure| failed(login, failure, &ended))?;
        stage.enter("logging in");
        authenticate(&mut handle, login, &ended).await?;
        Ok(handle)
    };
    let handle = sharing(&mut permit, Box::pin(shake)).await?;
    drop(permit);
    given_up.keep();
    // A backup for the keepalives, which are not sent while a write is stuck.
    let silent = ended.scissors.when_silent(keepalive * (MISSED as u32 + 1) + Duration::from_secs(1));
    let watch = tokio::spawn(silent).abort_handle();
    Ok(Connection { handle: Arc::new(handle), ended, watch, _holds: holds })
}

/// Does something under a permit, of which what all namespaces share is given back when it takes long.
pub async fn sharing<T>(permit: &mut Option<HandshakePermit>, mut work: impl Future<Output = T> + Unpin) -> T {
    match timeout(HANDSHAKE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            if let Some(permit) = permit {
                permit.lapse();
            }
            work.await
        }
    }
}

struct CutUnlessKept(Option<Ended>);

impl CutUnlessKept {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutUnlessKept {
    fn drop(&mut self) {
        if let Some(ended) = &self.0 {
            ended.scissors.cut();
        }
    }
}

async fn authenticate(handle: &mut Handle<Client>, login: &Login, ended: &Ended) -> Result<(), OpenError> {
    let broken = |error: russh::Error| unreachable(login, &format!("{} while logging in ({error})", ended.why()));
    if let Some(certificate) = &login.certificate {
        let answer = handle.authenticate_openssh_cert(&login.user, login.key.clone(), certificate.clone()).await;
        if answer.map_err(broken)?.success() {
            return Ok(());
        }
    }
    let key = PrivateKeyWithHashAlg::new(login.key.clone(), None);
    match handle.authenticate_publickey(&login.user, key).await.map_err(broken)? {
        AuthResult::Success => Ok(()),
        // The library gives a connection that ended as a refusal.
        AuthResult::Failure { .. } if handle.is_closed() => {
            Err(unreachable(login, &format!("{} while logging in", ended.why())))
        }
        AuthResult::Failure { remaining_methods, partial_success } => {
            let methods: Vec<String> = remaining_methods.iter().map(String::from).collect();
            Err(not_let_in(login, &methods, partial_success))
        }
    }
}

fn not_let_in(login: &Login, methods: &[String], partial: bool) -> OpenError {
    let Login { user, key, key_place, certificate, .. } = login;
    let with = format!("{} {} ({key_place})", key.algorithm(), key.fingerprint(HashAlg::Sha256));
    let besides = certificate.as_ref().map_or_else(String::new, |it| format!(" and its certificate {:?}", it.key_id()));
    let accepts = if methods.is_empty() { "nothing".to_owned() } else { methods.join(", ") };
    let message = if partial {
        format!("it takes the key {with} of {user} for one half of a login only and wants besides: {accepts}")
    } else {
        let public = line(key.public_key().key_data());
        format!(
            "it does not let {user} in with the key {with}{besides}; it would accept: {accepts}. The public key belongs in \
             ~{user}/.ssh/authorized_keys there: {public}"
        )
    };
    error(Reason::AuthenticationFailed, &login.name, &message)
}

fn failed(login: &Login, failure: Failure, ended: &Ended) -> OpenError {
    match failure {
        Failure::Refused(refusal) => error(refusal.reason, &login.name, &refusal.message),
        Failure::Ssh(russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, ours, theirs }) => {
            let (ours, theirs) = (ours.join(", "), theirs.join(", "));
            let message = format!(
                "it has host keys of these kinds only: {theirs}. Those that can be checked are {ours}: give it one \
                 (`ssh-keygen -A` on the host)"
            );
            error(Reason::HostKeyUnknown, &login.name, &message)
        }
        Failure::Ssh(russh::Error::Disconnect | russh::Error::IO(_)) => {
            unreachable(login, &format!("{} while keys were exchanged", ended.why()))
        }
        Failure::Ssh(error) => unreachable(login, &format!("the key exchange failed: {error}")),
    }
}

fn unreachable(login: &Login, message: &str) -> OpenError {
    error(Reason::Unreachable, &login.name, message)
}
