//! Leader election: of several operators, the one that holds a Lease (coordination.k8s.io/v1) is at work.
//!
//! [`election`] decides (pure); this module makes the calls, with a deadline on each, and runs the work while the lease is
//! held. When it is lost, the work is dropped and the operator stands for election again. What runs on nodes goes on, and
//! the next leader finds it.
//!
//! # Caveats
//! A lease does not fence. What a leader sends is checked against its own clock at the last moment ([`lead`]); what a
//! frozen one had handed over before still goes out. Runs on a node exclude each other by the node's own lock, and writes
//! carry UIDs and resource versions.

pub mod election;
pub mod lead;

#[cfg(test)]
mod tests;

use std::{pin::pin, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::telemetry::{Telemetry, health::Role};
use election::{Elector, Loss, Moment, Next, Timing};
use lead::Lead;
use pallet_core::phase::hex;

/// How long the work may take to end by itself before it is dropped. What the lease leaves between the leader's own
/// deadline and the others' is 5 s.
const WORK_ENDS: Duration = Duration::from_secs(3);
/// How long giving the lease back may take.
const RELEASE: Duration = Duration::from_secs(3);
/// A loop that has not come round for so long hangs: a pause and two calls take less.
const LOOP_HANGS: Duration = Duration::from_secs(40);

/// What leader election can fail with. A lease that is lost or out of reach is no failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The work panicked.
    #[error("the controllers ended by a panic")]
    Panicked(#[source] tokio::task::JoinError),
    /// The work ended though nobody had asked for it.
    #[error("the controllers ended by themselves")]
    Ended,
}

/// The lease that operators stand for.
pub struct Election {
    /// For leases; it must not retry by itself.
    client: Client,
    namespace: String,
    name: String,
    identity: String,
    telemetry: Telemetry,
    began: Instant,
    lead: Lead,
}

/// Why a term ended.
enum End {
    Asked,
    Lost,
    Failed(Error),
}

/// Resolves when the work is to end.
pub type Ending = oneshot::Receiver<()>;

impl Election {
    /// An election for the Lease of that name, in which `who` stands. `client` must not retry by itself: an answer that
    /// comes late is worth nothing.
    ///
    /// `lead` says from then on whether this operator leads.
    pub fn new(client: Client, namespace: String, name: String, who: &str, lead: Lead, telemetry: Telemetry) -> Self {
        Self { client, namespace, name, identity: identity(who), telemetry, began: Instant::now(), lead }
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    /// Has `work` done whenever the lease is held, until `stop` resolves; then gives the lease back. Work is first told to
    /// end, and dropped where it does not. It never goes on for longer than the lease is held and 3 s.
    ///
    /// # Errors
    /// The work panicked, or ended by itself. The lease is given back then, too.
    pub async fn lead<W>(self, work: impl Fn(Ending) -> W, stop: impl Future<Output = ()>) -> Result<(), Error>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let mut elector = Elector::new(self.identity.clone(), Timing::default());
        let mut stop = pin!(stop);
        info!(lease = self.name, namespace = self.namespace, identity = self.identity, "acquiring leader lease");
        let end = loop {
            self.telemetry.health.become_role(Role::Standby);
            tokio::select! {
                biased;
                () = &mut stop => break Ok(()),
                () = self.acquire(&mut elector) => {}
            }
            match self.term(&mut elector, &work, &mut stop).await {
                End::Asked => break Ok(()),
                End::Failed(error) => break Err(error),
                End::Lost => elector.step_down(),
            }
        };
        self.telemetry.health.become_role(Role::Stopping);
        self.lead.end();
        self.release(&mut elector).await;
        end
    }

    /// One term: the work, until the lease is lost or `stop` resolves.
    async fn term<W>(
        &self,
        elector: &mut Elector,
        work: impl Fn(Ending) -> W,
        stop: &mut (impl Future<Output = ()> + Unpin),
    ) -> End
    where
        W: Future<Output = ()> + Send + 'static,
    {
        info!(identity = self.identity, "acquired leader lease");
        self.telemetry.health.become_role(Role::Leader);
        let leads = self.telemetry.metrics.leads();
        // In a task of its own: long work must not keep the lease from being renewed.
        let mut working = JoinSet::new();
        let (end, ending) = oneshot::channel();
        working.spawn(work(ending));
        let why = tokio::select! {
            biased;
            () = stop => End::Asked,
            loss = self.keep(elector) => {
                warn!(%loss, "lost leader lease; runs on nodes continue, and the next leader reattaches to them");
                End::Lost
            }
            ended = working.join_next() => End::Failed(match ended {
                Some(Err(panic)) => Error::Panicked(panic),
                Some(Ok(())) | None => Error::Ended,
            }),
        };
        drop(leads);
        if !matches!(why, End::Asked) {
            self.lead.end();
        }
        let _ = end.send(());
        if timeout(WORK_ENDS, working.join_next()).await.is_err() {
            warn!("controllers did not stop before the deadline; aborting them");
        }
        why
    }

    /// Waits until the lease is held.
    async fn acquire(&self, elector: &mut Elector) {
        let heart = self.telemetry.health.heart("leader election", LOOP_HANGS);
        let mut holder = None;
        loop {
            heart.beat();
            if let Err(error) = self.look(elector).await {
                warn!(%error, source = source(&error), "failed to read the lease, retrying");
            }
            if elector.holder() != holder.as_deref() {
                holder = elector.holder().map(str::to_owned);
                info!(holder, "lease is held by another operator");
            }
            if let Next::Write(lease) = elector.next(self.now(), Timestamp::now())
                && let Err(error) = self.write(elector, &lease).await
            {
                debug!(%error, source = source(&error), "the lease was not taken");
            }
            if elector.holds(self.now()) {
                return;
            }
            elector.step_down();
            sleep(elector.pause(jitter(), self.now())).await;
        }
    }

    /// Keeps the lease for as long as that succeeds.
    async fn keep(&self, elector: &mut Elector) -> Loss {
        let heart = self.telemetry.health.heart("leader election", LOOP_HANGS);
        loop {
            sleep(elector.pause(jitter(), self.now())).await;
            heart.beat();
            match elector.next(self.now(), Timestamp::now()) {
                Next::Lost(loss) => return loss,
                Next::Wait => return Loss::Taken(elector.holder().unwrap_or_default().to_owned()),
                Next::Write(lease) => {
                    if let Err(error) = self.write(elector, &lease).await {
                        warn!(%error, source = source(&error), "failed to renew the lease, retrying");
                        // Somebody may have it, or a write of ours went through though its answer was lost.
                        if let Err(error) = self.look(elector).await {
                            warn!(%error, source = source(&error), "failed to read the lease, retrying");
                        }
                    }
                }
            }
            // A holder that learns that it has lost does not wait for its next turn.
            if let Next::Lost(loss) = elector.next(self.now(), Timestamp::now()) {
                return loss;
            }
        }
    }

    async fn look(&self, elector: &mut Elector) -> Result<(), CallError> {
        let lease = call("get lease", elector.patience(self.now()), self.leases().get_opt(&self.name)).await?;
        elector.observe(lease, self.now());
        self.telemetry.health.lease_seen();
        Ok(())
    }

    async fn write(&self, elector: &mut Elector, lease: &Lease) -> Result<(), CallError> {
        let (leases, sent) = (self.leases(), self.now());
        let patience = elector.patience(sent);
        let lease = if lease.metadata.resource_version.is_some() {
            call("replace lease", patience, leases.replace(&self.name, &PostParams::default(), lease)).await?
        } else {
            let mut lease = lease.clone();
            lease.metadata.name = Some(self.name.clone());
            lease.metadata.uid = None;
            call("create lease", patience, leases.create(&PostParams::default(), &lease)).await?
        };
        elector.written(lease, sent, self.now());
        self.lead.extend(self.began + sent, elector.holds_for());
        self.telemetry.health.lease_seen();
        Ok(())
    }

    /// Gives the lease back, where it is held. Whoever cannot be told finds out by its silence.
    async fn release(&self, elector: &mut Elector) {
        elector.step_down();
        let releasing = async {
            // Read anew: a write may have been cut off. A second time, in case somebody annotated it meanwhile.
            for _ in 0..2 {
                self.look(elector).await?;
                let Some(lease) = elector.released(Timestamp::now()) else { return Ok(false) };
                let replaced = self.leases().replace(&self.name, &PostParams::default(), &lease).await;
                if replaced.is_ok() {
                    return Ok(true);
                }
            }
            Ok::<_, CallError>(false)
        };
        match timeout(RELEASE, releasing).await {
            Ok(Ok(true)) => info!("released leader lease"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => warn!(%error, source = source(&error), "failed to release the lease"),
            Err(_) => warn!("failed to release the lease before the deadline"),
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Why a call for the lease failed.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{0} failed")]
    Api(&'static str, #[source] Box<kube::Error>),
    #[error("{0} had no answer in time")]
    Deadline(&'static str),
}

async fn call<T>(
    what: &'static str,
    patience: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match timeout(patience, call).await {
        Ok(answer) => answer.map_err(|source| CallError::Api(what, Box::new(source))),
        Err(_) => Err(CallError::Deadline(what)),
    }
}

fn source(error: &CallError) -> String {
    std::error::Error::source(error).map_or_else(String::new, pallet_client::answer::words)
}

/// A name that nobody else has, not even another process in the same pod: a restarted container must not take its
/// predecessor's lease for its own.
fn identity(who: &str) -> String {
    format!("{who}_{}", hex(&random::<4>()))
}

/// From 0 to 1.
fn jitter() -> f64 {
    f64::from(u16::from_le_bytes(random())) / f64::from(u16::MAX)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness there is no nonce either, and no session: `run` says so.
    let _ = getrandom::fill(&mut bytes);
    bytes
}
