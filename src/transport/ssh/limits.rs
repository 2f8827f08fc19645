//! The permits that namespaces share: handshakes, and connections to one address.
//!
//! The rule for locks, for all of `ssh`: a request waits for every shared permit that it needs from then on, gets all of them
//! at once, and holds no shared permit while it waits. Permits of one namespace alone (`places`, the tunnels of a jump host)
//! are taken before. So nobody keeps others from a permit by waiting for another one, and no order can deadlock.
//!
//! A connection whose host has greeted may stay open while it waits for a handshake, as *parked*: another request that needs
//! its permit revokes it.
//!
//! Guarantees: a namespace that holds fewer permits is served first, and of those that hold as many the one that was served
//! longest ago; the last permits are kept for namespaces that hold few. Memory is used only while somebody holds a permit or
//! waits for one.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// How many permits there are.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Of all namespaces.
    pub all: usize,
    /// Of one namespace.
    pub each: usize,
    /// A namespace gets more than this many only while fewer than `common` are in use.
    pub few: usize,
    /// See `few`.
    pub common: usize,
}

/// What connections lead to. The limits of the two kinds are apart: a jump host serves many sessions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// A host.
    Host(SocketAddr),
    /// A jump host.
    Jump(SocketAddr),
}

impl Address {
    /// Where to connect to.
    pub fn socket(self) -> SocketAddr {
        match self {
            Self::Host(socket) | Self::Jump(socket) => socket,
        }
    }

    /// How many connections to it there may be.
    pub fn limit(self) -> Limit {
        match self {
            // Fewer than an sshd lets in at once before they have logged in (MaxStartups).
            Self::Host(_) => Limit { all: 8, each: 2, few: 1, common: 4 },
            Self::Jump(_) => Limit { all: 32, each: 8, few: 2, common: 16 },
        }
    }
}

/// Grants permits.
pub struct Limits(Mutex<State>);

struct State {
    /// Counts requests and grants.
    clock: u64,
    handshakes: Pool,
    addresses: HashMap<Address, Pool>,
    requests: BTreeMap<u64, Request>,
}

struct Pool {
    limit: Limit,
    used: usize,
    parked: usize,
    namespaces: BTreeMap<String, Share>,
}

/// What a namespace has of a pool.
#[derive(Default)]
struct Share {
    held: usize,
    parked: usize,
    requests: usize,
    /// The clock of its last grant.
    served: u64,
}

struct Request {
    namespace: String,
    handshake: bool,
    address: Option<Address>,
    /// Set while the permit for `address` is held and may be revoked.
    parked: Option<oneshot::Sender<()>>,
    granted: oneshot::Sender<Grant>,
}

/// What was granted.
#[derive(Default)]
pub struct Grant {
    /// To exchange keys and log in.
    pub handshake: Option<HandshakePermit>,
    /// To be connected to an address.
    pub address: Option<AddressPermit>,
}

/// A permit to exchange keys and log in, until it is dropped.
pub struct HandshakePermit {
    limits: Arc<Limits>,
    namespace: String,
    lapsed: bool,
}

/// A permit to be connected to an address, until it is dropped.
pub struct AddressPermit {
    limits: Arc<Limits>,
    namespace: String,
    address: Address,
    parked: bool,
}

impl Pool {
    fn new(limit: Limit) -> Self {
        Self { limit, used: 0, parked: 0, namespaces: BTreeMap::new() }
    }

    fn share(&mut self, namespace: &str) -> &mut Share {
        self.namespaces.entry(namespace.to_owned()).or_default()
    }

    /// Whether a namespace may have one more. What others have parked can be revoked.
    fn admits(&self, namespace: &str) -> bool {
        let (held, parked) = self.namespaces.get(namespace).map_or((0, 0), |share| (share.held, share.parked));
        let most = if held < self.limit.few { self.limit.all } else { self.limit.common };
        held < self.limit.each && self.used - (self.parked - parked) < most
    }

    fn grant(&mut self, namespace: &str, clock: u64) {
        self.used += 1;
        let share = self.share(namespace);
        share.held += 1;
        share.served = clock;
    }

    fn park(&mut self, namespace: &str) {
        self.parked += 1;
        self.share(namespace).parked += 1;
    }

    fn unpark(&mut self, namespace: &str) {
        self.parked -= 1;
        self.share(namespace).parked -= 1;
    }

    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Share)) {
        let share = self.share(namespace);
        change(share);
        if share.held == 0 && share.requests == 0 {
            self.namespaces.remove(namespace);
        }
    }
}

impl State {
    fn pool(&mut self, address: Address) -> &mut Pool {
        self.addresses.entry(address).or_insert_with(|| Pool::new(address.limit()))
    }

    fn release_address(&mut self, namespace: &str, address: Address) {
        let pool = self.pool(address);
        pool.used -= 1;
        pool.change(namespace, |share| share.held -= 1);
        self.forget(address);
    }

    fn forget(&mut self, address: Address) {
        if self.addresses.get(&address).is_some_and(|pool| pool.namespaces.is_empty()) {
            self.addresses.remove(&address);
        }
    }

    /// Counts a request, or counts it no more.
    fn count(&mut self, namespace: &str, handshake: bool, address: Option<Address>, change: fn(&mut usize)) {
        if handshake {
            self.handshakes.change(namespace, |share| change(&mut share.requests));
        }
        if let Some(address) = address {
            self.pool(address).change(namespace, |share| change(&mut share.requests));
            self.forget(address);
        }
    }

    /// The request that is served next, if any can be.
    fn next(&self) -> Option<u64> {
        let admitted = self.requests.iter().filter(|(_, request)| {
            let Request { namespace, handshake, address, parked, .. } = request;
            let needed = address.filter(|_| parked.is_none());
            (!handshake || self.handshakes.admits(namespace))
                && needed.is_none_or(|it| self.addresses.get(&it).is_none_or(|pool| pool.admits(namespace)))
        });
        let rank = |(number, request): &(&u64, &Request)| {
            let pool = match request.address {
                Some(address) if !request.handshake => self.addresses.get(&address),
                _ => Some(&self.handshakes),
            };
            let share = pool.and_then(|pool| pool.namespaces.get(&request.namespace));
            (share.map_or((0, 0), |share| (share.held, share.served)), **number)
        };
        admitted.min_by_key(rank).map(|(number, _)| *number)
    }

    /// Takes back a parked permit for an address where there are too many.
    fn revoke(&mut self, address: Address, but: &str) {
        let Some(pool) = self.addresses.get(&address).filter(|pool| pool.used > pool.limit.all) else { return };
        let parked = self.requests.iter_mut().filter(|(_, request)| {
            request.parked.is_some() && request.address == Some(address) && request.namespace != but
        });
        let held = |namespace: &str| pool.namespaces.get(namespace).map_or(0, |share| share.held);
        let Some((_, victim)) = parked.max_by_key(|(_, request)| held(&request.namespace)) else { return };
        if let Some(revoked) = victim.parked.take() {
            // Whoever does not hear it is gone.
            let _ = revoked.send(());
        }
        let namespace = victim.namespace.clone();
        self.pool(address).unpark(&namespace);
        self.release_address(&namespace, address);
    }
}

impl Limits {
    /// With so many handshakes.
    pub fn new(handshakes: Limit) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            clock: 0,
            handshakes: Pool::new(handshakes),
            addresses: HashMap::new(),
            requests: BTreeMap::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way: the counts are right.
        self.0.lock()
    }

    /// How many addresses, and namespaces for handshakes, somebody has or wants a permit of.
    pub fn len(&self) -> usize {
        let state = self.state();
        state.addresses.len() + state.handshakes.namespaces.len()
    }

    /// Waits for a permit to be connected to an address. The caller holds no shared permit.
    pub async fn address(self: &Arc<Self>, namespace: &str, address: Address) -> Option<AddressPermit> {
        let (granted, grant) = oneshot::channel();
        let namespace = namespace.to_owned();
        self.request(Request { namespace, handshake: false, address: Some(address), parked: None, granted })
            .granted(grant)
            .await
            .address
    }

    /// Asks for a handshake. A permit for an address that is handed over is parked until the handshake is granted; where it
    /// was revoked meanwhile, another one is granted together with the handshake.
    pub fn handshake(self: &Arc<Self>, namespace: &str, held: Option<AddressPermit>) -> Waiting {
        let ((granted, grant), (revoke, revoked)) = (oneshot::channel(), oneshot::channel());
        let address = held.map(|mut permit| {
            permit.parked = true;
            permit.address
        });
        if let Some(address) = address {
            self.state().pool(address).park(namespace);
        }
        let parked = address.map(|_| revoke);
        let namespace = namespace.to_owned();
        let request = self.request(Request { namespace, handshake: true, address, parked, granted });
        Waiting { request, grant, revoked }
    }

    fn request(self: &Arc<Self>, request: Request) -> Pending {
        let number = {
            let mut state = self.state();
            state.clock += 1;
            let number = state.clock;
            state.count(&request.namespace, request.handshake, request.address, |requests| *requests += 1);
            state.requests.insert(number, request);
            number
        };
        self.serve();
        Pending { limits: self.clone(), number }
    }

    /// Grants what can be granted.
    fn serve(self: &Arc<Self>) {
        let mut grants = Vec::new();
        {
            let mut state = self.state();
            while let Some((_, request)) = state.next().and_then(|number| state.requests.remove_entry(&number)) {
                let Request { namespace, handshake, address, parked, granted } = request;
                state.clock += 1;
                let clock = state.clock;
                if handshake {
                    state.handshakes.grant(&namespace, clock);
                }
                match (address, parked) {
                    (None, _) => {}
                    (Some(address), Some(_)) => state.pool(address).unpark(&namespace),
                    (Some(address), None) => {
                        state.pool(address).grant(&namespace, clock);
                        state.revoke(address, &namespace);
                    }
                }
                state.count(&namespace, handshake, address, |requests| *requests -= 1);
                let limits = || self.clone();
                let grant = Grant {
                    handshake: handshake.then(|| HandshakePermit {
                        limits: limits(),
                        namespace: namespace.clone(),
                        lapsed: false,
                    }),
                    address: address.map(|address| AddressPermit {
                        limits: limits(),
                        namespace: namespace.clone(),
                        address,
                        parked: false,
                    }),
                };
                grants.push((granted, grant));
            }
        }
        for (granted, grant) in grants {
            // Where nobody waits any more, the grant is dropped here, which gives it back.
            let _ = granted.send(grant);
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        if !self.parked {
            self.limits.state().release_address(&self.namespace, self.address);
            self.limits.serve();
        }
    }
}

impl HandshakePermit {
    /// Gives back what is shared. It goes on counting for its own namespace.
    pub fn lapse(&mut self) {
        if !std::mem::replace(&mut self.lapsed, true) {
            self.limits.state().handshakes.used -= 1;
            self.limits.serve();
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.lapse();
        self.limits.state().handshakes.change(&self.namespace, |share| share.held -= 1);
        self.limits.serve();
    }
}

/// A request that was made. Dropping it withdraws it.
struct Pending {
    limits: Arc<Limits>,
    number: u64,
}

impl Pending {
    async fn granted(self, grant: oneshot::Receiver<Grant>) -> Grant {
        // The other end is dropped with the request alone, which ends after this.
        grant.await.unwrap_or_default()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut state = self.limits.state();
        let Some(request) = state.requests.remove(&self.number) else { return };
        let Request { namespace, handshake, address, parked, .. } = &request;
        state.count(namespace, *handshake, *address, |requests| *requests -= 1);
        if let (Some(address), Some(_)) = (address, parked) {
            state.pool(*address).unpark(namespace);
            state.release_address(namespace, *address);
        }
        drop(state);
        self.limits.serve();
    }
}

/// Waits for a handshake.
pub struct Waiting {
    request: Pending,
    grant: oneshot::Receiver<Grant>,
    revoked: oneshot::Receiver<()>,
}

impl Waiting {
    /// Whether the permit for the address is revoked before the handshake is granted. The connection has to be closed then.
    pub async fn is_revoked(&mut self) -> bool {
        // A parked request drops its end when it is granted.
        (&mut self.revoked).await.is_ok()
    }

    /// Waits for what was asked for.
    pub async fn granted(self) -> Grant {
        self.request.granted(self.grant).await
    }
}

#[cfg(test)]
mod tests;
