//! Machines that are reached by SSH, directly or through a jump host.
//!
//! Guarantees: nothing is sent to an address that the [`Guard`] refuses, nor to a host whose key is not trusted, beyond the
//! key exchange that shows its key; secrets are read anew for each connection and held no longer than logging in takes;
//! every wait has a deadline; what is bounded is said at the constants below; a channel whose guard is dropped leaves
//! neither a connection nor a task behind.
//!
//! Caveats: with a jump host names are resolved there, so the guard can judge literal addresses only. RSA keys are not
//! supported, neither of hosts nor for logging in: the implementation that there is in Rust leaks private keys by its timing
//! (RUSTSEC-2023-0071), and ed25519 and ecdsa are everywhere.

mod certificate;
mod client;
mod guard;
mod hops;
mod keys;
mod known_hosts;
mod limits;
mod line;
mod loader;
mod places;
mod session;
mod sudo;

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use zeroize::Zeroizing;

pub use keys::public_half;

use super::{Channel, OpenError};
use client::{Connection, Login};
pub use guard::Guard;
use hops::{Hops, Identity};
use known_hosts::{Host, Trusted};
use limits::{Address, Grant, Limit, Limits};
use pallet_api::reason::Reason;
use pallet_core::target::{Elevation, Endpoint, Hop, Source, Trust};
use pallet_core::{phase::action::KeyRef, session::agent::LOADER};
use places::Places;
use session::Elevated;

/// How many connections lead to one host through one jump host at once. Those that lead to it directly: see [`Address::limit`].
const EACH: usize = 2;
/// Handshakes are what costs processor time, and hosts that stop in the midst of one must not keep everybody else's waiting. Most of
/// one is waiting for a network, so that few would make a fleet that is far away slow.
const HANDSHAKES: Limit = Limit { all: 64, each: 32, few: 4, common: 48 };
/// How long a handshake counts for all namespaces. It may take longer, and counts for its own then.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Known hosts of as many bytes are read off the workers that serve everybody.
const QUICK: usize = 16 << 10;
/// How often the other side is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

const WAITING: &str = "waiting for one of the places for handshakes";

fn no_shell(limit: Duration) -> String {
    format!("no shell within {} s (connectTimeout)", limit.as_secs_f32())
}

/// What an object holds, by its keys.
pub type Keys = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Reads what endpoints name.
pub trait Keyring: Send + Sync + 'static {
    /// All that the object holds which a source names.
    ///
    /// # Errors
    /// Why it cannot be had, for people.
    fn read<'a>(&'a self, namespace: &'a str, source: &'a Source) -> BoxFuture<'a, Result<Keys, String>>;
}

/// Takes what a source names out of what its object holds.
fn take(keys: &mut Keys, source: &Source) -> Result<Zeroizing<Vec<u8>>, String> {
    let at = source.at();
    keys.remove(&at.key).ok_or_else(|| format!("the {} {:?} has no key {:?}", source.kind(), at.name, at.key))
}

/// Opens shells over SSH.
pub struct Ssh(Arc<Inner>);

struct Inner {
    keyring: Arc<dyn Keyring>,
    guard: Guard,
    /// Of one namespace.
    places: Arc<Places<(Box<Identity>, Host)>>,
    /// Of all namespaces.
    limits: Arc<Limits>,
    hops: Arc<Hops>,
    keepalive: Duration,
}

/// What an attempt is at, for whoever asks why it took too long.
pub(crate) struct Stage(Mutex<(Reason, Cow<'static, str>)>);

impl Stage {
    fn new() -> Self {
        Self(Mutex::new((Reason::Unreachable, "getting ready".into())))
    }

    fn enter(&self, what: impl Into<Cow<'static, str>>) {
        self.enter_as(Reason::Unreachable, what);
    }

    fn enter_as(&self, reason: Reason, what: impl Into<Cow<'static, str>>) {
        *self.0.lock() = (reason, what.into());
    }

    /// Why an attempt ends: what was not there in time.
    fn late(&self, name: &str, missed: &str) -> OpenError {
        let (reason, what) = self.0.lock().clone();
        error(reason, name, &format!("{missed}, it was {what}"))
    }
}

fn error(reason: Reason, name: &str, message: &str) -> OpenError {
    OpenError::new(reason, format!("{name}: {message}"))
}

impl Ssh {
    /// Reads secrets by way of the keyring, and connects to what the guard lets pass.
    pub fn new(keyring: Arc<dyn Keyring>, guard: Guard) -> Self {
        Self::with_keepalive(keyring, guard, KEEPALIVE)
    }

    /// The same, with another pause between two questions whether the other side is still there. It counts as gone when it
    /// has left three of them unanswered.
    pub fn with_keepalive(keyring: Arc<dyn Keyring>, guard: Guard, keepalive: Duration) -> Self {
        let places = Places::new(EACH);
        let limits = Limits::new(HANDSHAKES);
        Self(Arc::new(Inner { keyring, guard, places, limits, hops: Arc::default(), keepalive }))
    }

    /// Starts a shell that executes [`LOADER`] on a machine.
    ///
    /// # Errors
    /// Where nothing was started: trying again is safe.
    pub async fn open(&self, endpoint: &Endpoint) -> Result<Channel, OpenError> {
        let stage = Stage::new();
        let limit = endpoint.connect_timeout;
        match timeout(limit, Box::pin(self.0.open(endpoint, &stage))).await {
            Ok(opened) => opened,
            Err(_) => Err(stage.late(&named(endpoint), &no_shell(limit))),
        }
    }

    /// How many addresses and jump hosts are remembered, because somebody is connected to them or is about to be.
    pub fn remembered(&self) -> usize {
        self.0.places.len() + self.0.limits.len() + self.0.hops.len()
    }
}

/// How messages call a machine.
fn named(endpoint: &Endpoint) -> String {
    let Endpoint { name, address, port, .. } = endpoint;
    let port = if *port == 22 { String::new() } else { format!(" port {port}") };
    if name == address { format!("{name}{port}") } else { format!("{name} ({address}{port})") }
}

impl Inner {
    async fn open(self: &Arc<Self>, endpoint: &Endpoint, stage: &Stage) -> Result<Channel, OpenError> {
        let name = named(endpoint);
        let itself = Hop {
            address: endpoint.address.clone(),
            port: endpoint.port,
            user: endpoint.user.clone(),
            key: endpoint.key.clone(),
            trust: endpoint.trust.clone(),
        };
        // What may not be connected to is refused whatever else is wrong.
        self.guard.check_written(&endpoint.address).map_err(|why| error(Reason::AddressNotAllowed, &name, &why))?;
        let login = self.login(&endpoint.namespace, name.clone(), &itself, stage).await?;
        let elevated = self.elevated(endpoint, &name, stage).await?;
        let sudo = elevated.as_ref().map(|it| loader::Sudo { user: it.user, password: it.password.is_some() });
        let command = loader::command(sudo, LOADER);
        let command = command.map_err(|why| error(Reason::BecomeFailed, &name, &format!("become.user: {why}")))?;
        let connection = match &endpoint.jump {
            None => self.connect(&itself, &login, stage, endpoint.connect_timeout, Address::Host).await?,
            Some(hop) => self.connect_through(hop, endpoint, &login, stage).await?,
        };
        drop(login);
        session::start(connection, &name, &command, elevated, stage).await
    }

    /// All that is needed to log in.
    async fn login(&self, namespace: &str, name: String, to: &Hop, stage: &Stage) -> Result<Login, OpenError> {
        let host = Host::new(&to.address, to.port);
        let trusted = self.trusted(namespace, &name, &host, &to.trust, stage).await?;
        let source = Source::Secret(to.key.clone());
        stage.enter(format!("reading the private key, {source}"));
        let unreadable = |why: String| {
            error(Reason::InvalidPrivateKey, &name, &format!("the private key ({source}) cannot be used: {why}"))
        };
        let mut held = self.keyring.read(namespace, &source).await.map_err(unreadable)?;
        let key = keys::private_key(&take(&mut held, &source).map_err(unreadable)?).map_err(unreadable)?;
        let beside = Source::Secret(KeyRef { name: to.key.name.clone(), key: format!("{}-cert.pub", to.key.key) });
        // Most keys have none.
        let certificate = held.remove(&beside.at().key).map(|bytes| keys::certificate(&bytes, &key)).transpose();
        let certificate = certificate.map_err(|why| {
            error(Reason::InvalidPrivateKey, &name, &format!("the certificate ({beside}) cannot be used: {why}"))
        })?;
        drop(held);
        let (user, key_place) = (to.user.clone(), source.to_string());
        let namespace = namespace.to_owned();
        Ok(Login { namespace, name, host, trusted, user, key: Arc::new(key), key_place, certificate })
    }

    async fn trusted(
        &self,
        namespace: &str,
        name: &str,
        host: &Host,
        trust: &[Trust],
        stage: &Stage,
    ) -> Result<Trusted, OpenError> {
        let mut trusted = Trusted::of(host.clone());
        for (at, trust) in trust.iter().enumerate() {
            let unreadable =
                |what: &str, why: &str| error(Reason::InvalidKnownHosts, name, &format!("trust[{at}]{what}: {why}"));
            match trust {
                Trust::Key(line) => trusted.add_key(line).map_err(|why| unreadable("", &why))?,
                Trust::KnownHosts(source) => {
                    stage.enter(format!("reading the known hosts, {source}"));
                    let held = self.keyring.read(namespace, source).await;
                    let bytes = held.and_then(|mut held| take(&mut held, source));
                    let added = match bytes {
                        Ok(bytes) if (QUICK..=known_hosts::LONGEST).contains(&bytes.len()) => {
                            let reading = move || {
                                let added = trusted.add_known_hosts(&bytes);
                                (trusted, added)
                            };
                            let read = tokio::task::spawn_blocking(reading).await;
                            let (read, added) = read.map_err(|why| unreadable("", &why.to_string()))?;
                            trusted = read;
                            added
                        }
                        Ok(bytes) => trusted.add_known_hosts(&bytes),
                        Err(why) => Err(why),
                    };
                    added.map_err(|why| unreadable(&format!(" ({source})"), &why))?;
                }
            }
        }
        Ok(trusted)
    }

    async fn elevated<'a>(
        &self,
        endpoint: &'a Endpoint,
        name: &str,
        stage: &Stage,
    ) -> Result<Option<Elevated<'a>>, OpenError> {
        let Some(Elevation { user, password }) = &endpoint.elevation else { return Ok(None) };
        let password = match password {
            None => None,
            Some(place) => {
                let source = Source::Secret(place.clone());
                stage.enter(format!("reading the password, {source}"));
                let unreadable = |why: String| {
                    error(
                        Reason::PasswordUnreadable,
                        name,
                        &format!("become.password ({source}) cannot be used: {why}"),
                    )
                };
                let held = self.keyring.read(&endpoint.namespace, &source).await;
                let bytes = held.and_then(|mut held| take(&mut held, &source)).map_err(unreadable)?;
                Some(Zeroizing::new(keys::password(&bytes).map_err(unreadable)?.to_vec()))
            }
        };
        Ok(Some(Elevated { user, login: &endpoint.user, password }))
    }

    /// Logs in directly, on the first of the addresses that answers.
    async fn connect(
        &self,
        to: &Hop,
        login: &Login,
        stage: &Stage,
        limit: Duration,
        kind: fn(SocketAddr) -> Address,
    ) -> Result<Connection, OpenError> {
        let deadline = Instant::now() + limit;
        let addresses = self.addresses(to, &login.name, stage).await?;
        let mut tried = Vec::new();
        for (at, &address) in addresses.iter().enumerate() {
            // One that does not answer leaves time for those that follow.
            let share = |now| deadline.saturating_duration_since(now) / (addresses.len() - at) as u32;
            match self.connect_to(kind(address), login, stage, share).await? {
                Ok(connection) => return Ok(connection),
                Err(failure) => tried.push(format!("{address}: {failure}")),
            }
        }
        Err(error(Reason::Unreachable, &login.name, &format!("it cannot be connected to ({})", tried.join("; "))))
    }

    /// Logs in on an address; the inner error says why there is no connection to it.
    async fn connect_to(
        &self,
        address: Address,
        login: &Login,
        stage: &Stage,
        share: impl Fn(Instant) -> Duration,
    ) -> Result<Result<Connection, String>, OpenError> {
        let (namespace, socket) = (&login.namespace, address.socket());
        stage.enter(format!("waiting for one of the {} connections to {socket}", address.limit().each));
        let mut held = Grant { handshake: None, address: self.limits.address(namespace, address).await };
        loop {
            stage.enter(format!("connecting to {socket}"));
            let greeted = async {
                let mut stream = match timeout(share(Instant::now()), TcpStream::connect(socket)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(failure)) => return Ok(Err(failure.to_string())),
                    Err(_) => return Ok(Err("no answer".to_owned())),
                };
                // A request is one small write: it waits for nothing.
                let _ = stream.set_nodelay(true);
                let heard = client::greeting(&mut stream, login, stage).await?;
                Ok(Ok((stream, heard)))
            };
            let (stream, heard) = match client::sharing(&mut held.handshake, Box::pin(greeted)).await? {
                Ok(greeted) => greeted,
                Err(failure) => return Ok(Err(failure)),
            };
            // Not before the host has greeted, so that hosts which never answer keep none of their namespace waiting.
            if held.handshake.is_none() {
                stage.enter(WAITING);
                let mut waiting = self.limits.handshake(namespace, held.address.take());
                if waiting.is_revoked().await {
                    drop(stream);
                    held = waiting.granted().await;
                    continue;
                }
                held = waiting.granted().await;
            }
            let Grant { handshake, address } = held;
            return client::log_in(stream, heard, login, handshake, self.keepalive, stage, Box::new(address))
                .await
                .map(Ok);
        }
    }

    /// The addresses that may be connected to. A name is resolved once, and what was checked is what is connected to.
    async fn addresses(&self, to: &Hop, name: &str, stage: &Stage) -> Result<Vec<SocketAddr>, OpenError> {
        let refused = |why: String| error(Reason::AddressNotAllowed, name, &why);
        if let Some(literal) = self.guard.check_written(&to.address).map_err(refused)? {
            return Ok(vec![SocketAddr::new(literal, to.port)]);
        }
        stage.enter("resolving its name");
        let found = lookup_host((to.address.as_str(), to.port)).await;
        let found = found.map_err(|why| {
            error(Reason::Unreachable, name, &format!("its name {} is not resolved: {why}", to.address))
        })?;
        let (mut passed, mut why) = (Vec::new(), None);
        for address in found {
            match self.guard.check(address.ip()) {
                Ok(()) if !passed.contains(&address) => passed.push(address),
                Ok(()) => {}
                Err(message) => why = Some(message),
            }
        }
        match (passed.is_empty(), why) {
            (false, _) => Ok(passed),
            (true, Some(why)) => Err(refused(format!("{} resolves to an address that is refused: {why}", to.address))),
            (true, None) => Err(error(Reason::Unreachable, name, &format!("its name {} has no address", to.address))),
        }
    }

    /// Logs in through a jump host.
    async fn connect_through(
        self: &Arc<Self>,
        hop: &Hop,
        endpoint: &Endpoint,
        login: &Login,
        stage: &Stage,
    ) -> Result<Connection, OpenError> {
        let name = &login.name;
        let identity = Identity { namespace: endpoint.namespace.clone(), hop: hop.clone() };
        let through = format!("the jump host {}", hop.address);
        stage.enter(format!("waiting for one of the {EACH} connections to it"));
        let place = Arc::new(self.places.take((Box::new(identity.clone()), login.host.clone())).await);
        stage.enter(format!("connecting to {through}"));
        let limit = endpoint.connect_timeout;
        let open =
            self.hops.get(identity, || self.clone().jump(endpoint.namespace.clone(), hop.clone(), limit).boxed());
        let open = open.await.map_err(|failure| error(failure.reason, name, &failure.message))?;
        let address = endpoint.address.trim_matches(['[', ']']);
        let until_closed = place.clone();
        let mut stream = hops::tunnel(&open, name, &through, (address, endpoint.port), until_closed, stage).await?;
        let heard = client::greeting(&mut stream, login, stage).await?;
        stage.enter(WAITING);
        let permit = self.limits.handshake(&login.namespace, None).granted().await.handshake;
        let holds = Box::new((place, open));
        client::log_in(stream, heard, login, permit, self.keepalive, stage, holds).await
    }

    /// Logs in on a jump host, for all who are going to share it.
    async fn jump(self: Arc<Self>, namespace: String, hop: Hop, limit: Duration) -> Result<Connection, OpenError> {
        let name = format!("the jump host {} port {}", hop.address, hop.port);
        let stage = Stage::new();
        let attempt = async {
            let login = self.login(&namespace, name.clone(), &hop, &stage).await?;
            self.connect(&hop, &login, &stage, limit, Address::Jump).await
        };
        match timeout(limit, Box::pin(attempt)).await {
            Ok(connected) => connected,
            Err(_) => Err(stage.late(&name, &no_shell(limit))),
        }
    }
}
