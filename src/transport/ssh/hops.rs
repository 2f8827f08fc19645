//! Jump hosts: connections through which others lead.
//!
//! Guarantees: whatever leads through the same jump host at the same time shares one connection to it, which is made once
//! however many ask for it at once, is closed when the last of them has gone, and is not used again once it broke. A host
//! behind it that floods its tunnel loses its own connection and no other: the library reads for all channels of a connection
//! or for none, so what a tunnel does not take in soon is not waited for.

use pallet_api::reason::Reason;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, client::Msg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::{Hop, Stage, client::Connection, error};
use crate::transport::OpenError;

/// How many connections lead through one jump host at once.
const TUNNELS: usize = 64;
/// How much of a tunnel is kept for a target's connection that is slow: more than a host sends before it is asked for more.
const BUFFER: usize = 1 << 20;
/// How long everybody else waits for a tunnel that is full.
const STALL: Duration = Duration::from_secs(2);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What makes two jump hosts the same: who asks, and all that is declared of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Identity {
    /// Secrets of one namespace are no other's.
    pub namespace: String,
    /// The rest.
    pub hop: Hop,
}

/// The jump hosts that somebody is connected through, or is about to be.
#[derive(Default)]
pub struct Hops {
    slots: Mutex<(u64, HashMap<Identity, Slot>)>,
}

type Attempt = BoxFuture<'static, Result<Arc<Open>, OpenError>>;

struct Slot {
    number: u64,
    state: State,
}

enum State {
    Connecting(WeakShared<Attempt>),
    Open(Weak<Open>),
}

/// A connection to a jump host.
pub struct Open {
    connection: Connection,
    places: Arc<Semaphore>,
    // Behind the connection: it is closed before its slot is free.
    _entry: Entry,
}

/// Its slot, until it is dropped.
struct Entry {
    all: Arc<Hops>,
    identity: Identity,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut slots = self.all.slots();
        // Another may have taken its place since.
        if slots.1.get(&self.identity).is_some_and(|slot| slot.number == self.number) {
            slots.1.remove(&self.identity);
        }
    }
}

impl Hops {
    fn slots(&self) -> MutexGuard<'_, (u64, HashMap<Identity, Slot>)> {
        // A panic while the map was held cannot have left it half changed: every change is one step.
        self.slots.lock()
    }

    /// How many jump hosts somebody is connected through, or is about to be.
    pub fn len(&self) -> usize {
        self.slots().1.len()
    }

    /// The connection to a jump host: one that there is, the one that is being made, or a new one by `connect`.
    ///
    /// # Errors
    /// Those of the attempt, the same for all who waited for it.
    pub async fn get(
        self: &Arc<Self>,
        identity: Identity,
        connect: impl FnOnce() -> BoxFuture<'static, Result<Connection, OpenError>>,
    ) -> Result<Arc<Open>, OpenError> {
        // What is dropped while the map is held could not free its slot.
        let broken;
        let attempt = {
            let mut slots = self.slots();
            match slots.1.get(&identity).map(|slot| &slot.state) {
                Some(State::Open(open)) => {
                    let open = open.upgrade();
                    if let Some(open) = open.as_ref().filter(|open| !open.connection.handle.is_closed()) {
                        return Ok(open.clone());
                    }
                    broken = open;
                    self.attempt(&mut slots, identity, connect())
                }
                Some(State::Connecting(attempt)) => {
                    broken = None;
                    match attempt.upgrade() {
                        Some(attempt) => attempt,
                        None => self.attempt(&mut slots, identity, connect()),
                    }
                }
                None => {
                    broken = None;
                    self.attempt(&mut slots, identity, connect())
                }
            }
        };
        drop(broken);
        attempt.await
    }

    fn attempt(
        self: &Arc<Self>,
        slots: &mut (u64, HashMap<Identity, Slot>),
        identity: Identity,
        connecting: BoxFuture<'static, Result<Connection, OpenError>>,
    ) -> Shared<Attempt> {
        slots.0 += 1;
        let number = slots.0;
        let entry = Entry { all: self.clone(), identity: identity.clone(), number };
        let attempt = async move {
            let connection = connecting.await?;
            let open = Arc::new(Open { connection, places: Arc::new(Semaphore::new(TUNNELS)), _entry: entry });
            open._entry.opened(&open);
            Ok(open)
        };
        let attempt = attempt.boxed().shared();
        if let Some(weak) = attempt.downgrade() {
            slots.1.insert(identity, Slot { number, state: State::Connecting(weak) });
        }
        attempt
    }
}

impl Entry {
    fn opened(&self, open: &Arc<Open>) {
        let mut slots = self.all.slots();
        if let Some(slot) = slots.1.get_mut(&self.identity).filter(|slot| slot.number == self.number) {
            slot.state = State::Open(Arc::downgrade(open));
        }
    }
}

/// A stream to `address` through a jump host. Names are resolved there. `until_closed` is held until nothing is left of it there:
/// a jump host may try to connect for minutes after everybody has given up.
///
/// # Errors
/// Where the jump host does not connect.
pub async fn tunnel<H: Send + Sync + 'static>(
    open: &Arc<Open>,
    name: &str,
    through: &str,
    (address, port): (&str, u16),
    until_closed: H,
    stage: &Stage,
) -> Result<DuplexStream, OpenError> {
    stage.enter(format!("waiting for one of the {TUNNELS} places through {through}"));
    // The semaphore is never closed.
    let place = open.places.clone().acquire_owned().await.ok();
    stage.enter(format!("waiting for {through} to connect"));
    let (near, far) = duplex(BUFFER);
    let (opened, opens) = oneshot::channel();
    let ended = open.connection.ended();
    // A task of its own: a channel that is opened for nobody has to be closed.
    let handle = open.connection.handle.clone();
    let dug = dig(handle, address.to_owned(), port, opened, far, place);
    tokio::spawn(async move {
        dug.await;
        drop(until_closed);
    });
    match opens.await {
        Ok(Ok(())) => Ok(near),
        Ok(Err(russh::Error::ChannelOpenFailure(why))) => {
            let (reason, why) = match why {
                ChannelOpenFailure::AdministrativelyProhibited => (
                    Reason::JumpHostFailed,
                    "it does not allow that (AllowTcpForwarding and PermitOpen in its sshd_config)".to_owned(),
                ),
                ChannelOpenFailure::ConnectFailed => {
                    (Reason::Unreachable, "nobody answers there, or the name is not known".to_owned())
                }
                other => (Reason::Unreachable, format!("{other:?}")),
            };
            Err(error(reason, name, &format!("{through} does not connect to {address} port {port}: {why}")))
        }
        Ok(Err(_)) | Err(_) => Err(error(Reason::Unreachable, name, &format!("{through}: {}", ended.why()))),
    }
}

/// Opens a channel and carries its bytes until one side has ended. With the connection it ends as well.
async fn dig(
    handle: Arc<russh::client::Handle<super::client::Client>>,
    address: String,
    port: u16,
    mut opened: oneshot::Sender<Result<(), russh::Error>>,
    far: DuplexStream,
    mut place: Option<OwnedSemaphorePermit>,
) {
    let channel = {
        let mut opens = std::pin::pin!(handle.channel_open_direct_tcpip(address, u32::from(port), "127.0.0.1", 0));
        tokio::select! {
            channel = &mut opens => channel,
            // Nobody waits any more, and others need not wait for it.
            () = opened.closed() => {
                place = None;
                opens.await
            }
        }
    };
    drop(handle);
    match channel {
        Err(failure) => {
            let _ = opened.send(Err(failure));
        }
        Ok(channel) => carry(channel, far, opened).await,
    }
    drop(place);
}

async fn carry(channel: Channel<Msg>, far: DuplexStream, opened: oneshot::Sender<Result<(), russh::Error>>) {
    let (mut reads, writes) = channel.split();
    if opened.send(Ok(())).is_ok() {
        let (mut from, mut to) = tokio::io::split(far);
        let outward = async {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                if writes.data_bytes(buffer[..length].to_vec()).await.is_err() {
                    break;
                }
            }
        };
        let inward = async {
            while let Some(message) = reads.wait().await {
                match message {
                    ChannelMsg::Data { data } => match timeout(STALL, to.write_all(&data)).await {
                        Ok(Ok(())) => {}
                        _ => break,
                    },
                    ChannelMsg::Eof | ChannelMsg::Close => break,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = outward => {}
            () = inward => {}
        }
    }
    // Dropped with what it has not read: the library waits for nobody who is gone.
    drop(reads);
    let _ = timeout(FAREWELL, writes.close()).await;
}
