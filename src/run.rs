//! Sessions in flight: opened, followed and ended apart from reconcile, which never waits for a script.
//!
//! [`session`] decides (pure), [`frame`] understands the agent (pure), `agent.sh` stands on the node; this module carries
//! bytes between them, with a deadline on every wait.

pub mod evaluations;
pub mod permits;
pub mod tasks;
pub mod vault;
pub mod warm;
mod watched;

#[cfg(test)]
mod leaks;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tracing::{Instrument, debug, warn};

use crate::{
    telemetry::metrics::Metrics,
    transport::{Channel, Closed, Transport},
};
use evaluations::{Evaluations, Meter};
use pallet_api::reason::Reason;
use pallet_api::{
    conditions::{MESSAGE_LIMIT, clip},
    group_node::Running,
};
pub use pallet_core::session::memory::Seen;
use pallet_core::session::{
    End, Meant, Session, Want,
    frame::{Decoder, Frame},
    mask::{Cut, Mask, Masks},
    memory::Memory,
};
use pallet_core::{
    group::{Group, GroupKey},
    phase::{
        action::{self, KeyRef},
        hex,
        secret::Secret,
    },
    plan::{Bound, MachineState, Node, Purpose, Record, SessionView, Snapshot, next::Identity},
    target::Target,
};
use permits::Permits;
use tasks::Spawner;
use vault::{KnownSecrets, Vault};
use warm::{Place, Warm};
use watched::Watched;

/// How long a node may be silent. The agent gives a sign of life every 10 seconds.
const SILENCE: Duration = Duration::from_secs(35);
/// How long the node may take to take bytes in.
const SEND: Duration = Duration::from_secs(30);

/// All sessions of this operator, by the UID of their GroupNode.
pub struct Runs {
    transport: Arc<dyn Transport>,
    vault: Arc<dyn Vault>,
    limits: Limits,
    tasks: Spawner,
    metrics: Metrics,
    entries: Mutex<HashMap<String, Entry>>,
    warm: Warm,
    masks: Masks,
    wake: Box<dyn Fn(&GroupKey) + Send + Sync>,
}

/// What all namespaces share. Clones share the same.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sessions that are open, from before they connect to their end.
    pub sessions: Permits,
    /// Sessions that connect. Hosts that do not answer take these, and not all of the others.
    pub connecting: Permits,
    /// Evaluations.
    pub evaluations: Evaluations,
}

impl Limits {
    /// At most so many sessions at once. Half as many may connect at once, so one namespace alone connects to a quarter.
    pub fn new(sessions: usize) -> Self {
        let (sessions, connecting) = (Permits::new(sessions), Permits::new(sessions.div_ceil(2)));
        Self { sessions, connecting, evaluations: Evaluations::default() }
    }
}

/// What is remembered of a node beyond the cache.
#[derive(Default)]
struct Entry {
    /// The session in flight.
    live: Option<Live>,
    memory: Memory,
}

/// Has the group looked at when a session is over, however it ended: by a panic too.
struct Awake<'a> {
    runs: &'a Runs,
    key: &'a GroupKey,
}

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        (self.runs.wake)(self.key);
    }
}

impl Entry {
    /// The session in flight. One whose task is gone without a word (a panic) is none: the journal knows what it did.
    fn at_work(&self) -> Option<&Live> {
        self.live.as_ref().filter(|live| !live.task.is_finished())
    }
}

struct Live {
    view: SessionView,
    directive: watch::Sender<Directive>,
    task: AbortHandle,
}

/// What the controller wants of a session, at any time.
#[derive(Clone)]
struct Directive {
    group: Arc<Group>,
    retry_token: String,
    bound: Bound,
    end: Option<&'static str>,
}

/// A node on which a session is to be opened.
#[derive(Debug)]
pub struct Start {
    /// Its group.
    pub group: Arc<Group>,
    /// The UID of its GroupNode.
    pub node_uid: String,
    /// Who it is.
    pub identity: Identity,
    /// What is meant to be there.
    pub incarnation: Meant,
    /// Where it is.
    pub target: Target,
    /// What is known of it.
    pub record: Record,
    /// What the session is for.
    pub purpose: Purpose,
}

impl Start {
    /// What a session on a node begins with; nothing where what backs it does not run, or nobody knows where.
    pub fn on(snapshot: &Snapshot, node: &Node, group: &Group, identity: Identity, purpose: Purpose) -> Option<Self> {
        let machine = snapshot.machine(node)?;
        let MachineState::Running { id } = &machine.state else { return None };
        let target = machine.target.clone()?;
        let (uid, instance) = (machine.uid.clone(), id.clone());
        let told = match (target.is_container(), &machine.life) {
            (true, Some(life)) => format!("{uid} {life}"),
            (true, None) => uid.clone(),
            (false, _) => format!("@{}", node.uid),
        };
        Some(Self {
            group: Arc::new(group.clone()),
            node_uid: node.uid.clone(),
            identity,
            incarnation: Meant { uid, instance, told },
            target,
            record: node.record.clone(),
            purpose,
        })
    }
}

impl Runs {
    /// As many sessions are open at once as the `limits` allow, each a task of `tasks`; `wake` is called when the group of
    /// a session should be looked at again.
    pub fn new(
        transport: Arc<dyn Transport>,
        vault: Arc<dyn Vault>,
        limits: Limits,
        tasks: Spawner,
        metrics: Metrics,
        wake: impl Fn(&GroupKey) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (entries, warm, masks) = (Mutex::default(), Warm::default(), Masks::default());
        Arc::new(Self { transport, vault, limits, tasks, metrics, entries, warm, masks, wake: Box::new(wake) })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // A panic while the map was held cannot have left it half changed: every change is one assignment.
        self.entries.lock()
    }

    /// What is known of a node beyond the cache.
    pub fn seen(&self, node_uid: &str) -> Seen {
        let entries = self.entries();
        let Some(entry) = entries.get(node_uid) else { return Seen::default() };
        entry.memory.seen(entry.at_work().map(|live| live.view.clone()))
    }

    /// The record was written to the GroupNode's status, and the cache shows it.
    pub fn saved(&self, node_uid: &str, written: &Record) {
        if let Some(entry) = self.entries().get_mut(node_uid).filter(|entry| entry.at_work().is_none()) {
            entry.memory.saved(written);
        }
    }

    /// Has a group looked at, as the end of a session has.
    pub fn look_at(&self, key: &GroupKey) {
        (self.wake)(key);
    }

    /// Tells the session of a node the newest spec, and how far the node may go.
    pub fn direct(&self, node_uid: &str, group: &Arc<Group>, retry_token: &str, bound: &Bound) {
        if let Some(live) = self.entries().get(node_uid).and_then(Entry::at_work) {
            live.directive.send_if_modified(|directive| {
                let changed =
                    directive.group != *group || directive.bound != *bound || directive.retry_token != retry_token;
                if changed {
                    (directive.group, directive.bound) = (group.clone(), bound.clone());
                    retry_token.clone_into(&mut directive.retry_token);
                }
                changed
            });
        }
    }

    /// Lets no further phase start in the session of a node.
    pub fn hold(&self, node_uid: &str) {
        if let Some(live) = self.entries().get(node_uid).and_then(Entry::at_work) {
            live.directive
                .send_if_modified(|directive| std::mem::replace(&mut directive.bound, Bound::Hold) != Bound::Hold);
        }
    }

    /// Ends the session of a node; what it knows is kept.
    pub fn end(&self, node_uid: &str, why: &'static str) {
        if let Some(live) = self.entries().get(node_uid).and_then(Entry::at_work) {
            live.directive.send_modify(|directive| directive.end = Some(why));
        }
    }

    /// Forgets a node that is gone.
    pub fn forget(&self, node_uid: &str) {
        if let Some(live) = self.entries().remove(node_uid).and_then(|entry| entry.live) {
            live.task.abort();
        }
    }

    /// Opens a session, unless one is in flight on the node.
    pub fn start(self: &Arc<Self>, start: Start, now: Timestamp) {
        let mut entries = self.entries();
        let entry = entries.entry(start.node_uid.clone()).or_default();
        if entry.at_work().is_some() {
            return;
        }
        let (directive, directives) = watch::channel(Directive {
            group: start.group.clone(),
            retry_token: start.identity.retry_token.clone(),
            bound: match &start.purpose {
                Purpose::Converge(bound) => bound.clone(),
                Purpose::Lift(run) => run.bound.clone(),
                Purpose::Farewell | Purpose::Check => Bound::Free,
            },
            end: None,
        });
        let (kind, lift) = (start.purpose.kind(), start.purpose.lift().map(str::to_owned));
        let view = SessionView { instance: start.incarnation.instance.clone(), since: now, running: None, kind, lift };
        let (group, node) = (&start.group.key, &start.identity.name);
        let span = tracing::error_span!(parent: None, "session", %group, %node, outcome = tracing::field::Empty);
        // The task ends its own entry; it cannot get there before this lock is free.
        let task = self.tasks.spawn(self.clone().work(start, directives).instrument(span));
        entry.live = task.map(|task| Live { view, directive, task });
    }

    async fn work(self: Arc<Self>, start: Start, directives: watch::Receiver<Directive>) {
        let key = start.group.key.clone();
        let (node_uid, instance) = (start.node_uid.clone(), start.incarnation.instance.clone());
        let _awake = Awake { runs: &self, key: &key };
        let mut waiting = directives.clone();
        // One that is opened on a node that is held only looks for what was lost from sight there.
        let held = waiting.borrow().bound == Bound::Hold;
        let waits = self.metrics.session_waits();
        let (connecting, _open) = tokio::select! {
            permits = self.permits(&key.namespace) => permits,
            // Whoever is not wanted any more does not wait for a place.
            _ = waiting.wait_for(|directive| directive.end.is_some() || (directive.bound == Bound::Hold && !held)) => {
                if let Some(entry) = self.entries().get_mut(&node_uid) {
                    entry.live = None;
                }
                return;
            }
        };
        drop(waits);
        let _shown = self.metrics.session_opens();
        let places = match &start.purpose {
            // Whatever else is gone by now keeps nobody from saying goodbye.
            Purpose::Farewell => {
                start.group.phases.destroy().map(|actions| action::secrets(actions)).unwrap_or_default()
            }
            _ => start.group.phases.secrets.keys().cloned().collect(),
        };
        let (known, unknown) = match self.secrets(&key.namespace, places, &start.target).await {
            Ok(known) => (known, None),
            Err(end) => (KnownSecrets::default(), Some(end)),
        };
        let (mut session, greeting) =
            Session::open(start.group, start.identity, start.incarnation, start.record, start.purpose, nonce(), known);
        let target = start.target;
        let place =
            Place { node: node_uid.clone(), incarnation: session.incarnation().clone(), target: target.clone() };
        let opened = match unknown {
            Some(end) => Err(end),
            None => self.connect(&place, &session, &greeting).await,
        };
        drop(connecting);
        let end = match opened {
            Err(end) => end,
            Ok((mut channel, said)) => {
                let show = |session: &Session| self.show(&node_uid, &key, session);
                let watched = Watched::new(&self.metrics, session.phase_results());
                let listener = Listener { evaluations: &self.limits.evaluations, namespace: &key.namespace, watched };
                let spoken = converse(&mut session, &mut channel, said, directives, show, listener).await;
                match spoken {
                    // The agent waits for a request; another may follow soon.
                    Spoken::ToTheEnd(End::Done) if session.leaves_warm() => {
                        self.warm.keep(place, channel, &self.tasks);
                        End::Done
                    }
                    Spoken::ToTheEnd(end) => {
                        warm::part(channel, &self.tasks);
                        end
                    }
                    Spoken::BrokenOff(end) => end,
                }
            }
        };
        self.finish(&node_uid, &instance, &target, session, end);
    }

    /// The secrets of a session, with the mask that removes them, and the password of its target, from what the node says.
    async fn secrets(&self, namespace: &str, places: Vec<KeyRef>, target: &Target) -> Result<KnownSecrets, End> {
        let refused = |reason: &str, message: String| End::Refused { reason: reason.into(), message };
        let read = self.vault.read(namespace, places).await;
        let mut known = read.map_err(|message| refused(Reason::SecretUnreadable.as_str(), message))?;
        let password = match target {
            Target::Machine(endpoint) => endpoint.elevation.as_ref().and_then(|elevation| elevation.password.clone()),
            Target::Container(_) => None,
        };
        let password = match (password, target) {
            (Some(place), Target::Machine(endpoint)) => {
                let unreadable = |why| {
                    let message = format!("{}: become.password ({place}) cannot be used: {why}", endpoint.name);
                    refused(Reason::PasswordUnreadable.as_str(), message)
                };
                self.vault.read(&endpoint.namespace, vec![place.clone()]).await.map_err(unreadable)?
            }
            _ => KnownSecrets::default(),
        };
        // Sessions with the same values share a mask: what tells the values from others is a name for it.
        let sealed = [&known, &password].iter().all(|known| known.seals.keys().eq(known.values.keys()));
        let name = sealed.then(|| format!("{} {}", known.seal(), password.seal()));
        known.mask = Some(match name.as_ref().and_then(|name| self.masks.get(name)) {
            Some(mask) => mask,
            None => {
                let secrets: Vec<Secret> = known.values.values().chain(password.values.values()).cloned().collect();
                let mask =
                    mask_of(secrets).await.map_err(|message| refused(Reason::SecretsTooLarge.as_str(), message))?;
                name.into_iter().for_each(|name| self.masks.put(name, &mask));
                mask
            }
        });
        Ok(known)
    }

    /// The right to connect, and to a session. Who waits for a session waits as one that connects: a namespace whose hosts do
    /// not answer waits for itself.
    async fn permits(&self, namespace: &str) -> (permits::Permit, permits::Permit) {
        let connecting = self.limits.connecting.acquire(namespace).await;
        (connecting, self.limits.sessions.acquire(namespace).await)
    }

    /// A connection on which the agent was greeted, with what it has said already: one that was kept, or a new one.
    async fn connect(&self, place: &Place, session: &Session, greeting: &[u8]) -> Result<(Channel, Vec<u8>), End> {
        if let Some(kept) = self.warm.take(place, &session.hello()).await {
            return Ok(kept);
        }
        let opened = self.transport.open(&place.target).await;
        let mut channel = opened.map_err(|error| {
            let message = session.masked(&error.message, Cut::default());
            End::Refused { reason: error.reason.into(), message }
        })?;
        if let Err(message) = send(&mut channel, greeting).await {
            let closed = timeout(Duration::from_secs(2), channel.closed).await;
            let closed = closed.unwrap_or_else(|_| Closed::new(false, message));
            return Err(ended_early(closed, &Decoder::new(session.nonce()), session));
        }
        Ok((channel, Vec::new()))
    }

    /// Makes the present state of a session visible to reconcile.
    fn show(&self, node_uid: &str, key: &GroupKey, session: &Session) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(node_uid) else { return };
        let Some(live) = entry.live.as_mut() else { return };
        let running: Option<Running> = session.running();
        if entry.memory.learn(&session.record()) || live.view.running != running {
            live.view.running = running;
            drop(entries);
            (self.wake)(key);
        }
    }

    fn finish(&self, node_uid: &str, instance: &str, target: &Target, session: Session, end: End) {
        match &end {
            End::Done | End::Stopped => debug!(?end, "the session is over"),
            End::Lost(message) => warn!(message, "connection lost"),
            End::Refused { reason, message } => warn!(reason, message, "session refused"),
            End::NotIdempotent { message, .. } => warn!(message, "phase keeps changing its own inputs"),
        }
        let label = match &end {
            End::Done => "done",
            End::Stopped => "stopped",
            End::Lost(_) => "lost",
            End::Refused { .. } | End::NotIdempotent { .. } => "refused",
        };
        self.metrics.session_ended(label);
        tracing::Span::current().record("outcome", label);
        if let Some(entry) = self.entries().get_mut(node_uid) {
            entry.live = None;
            entry.memory.learn(&session.record());
            if session.has_caught_up() {
                entry.memory.has_read();
            }
            entry.memory.finish(instance, target, end, Timestamp::now());
        }
    }
}

/// How a conversation with an agent ended.
enum Spoken {
    /// By the session's word: the agent waits for another request.
    ToTheEnd(End),
    /// Otherwise. Nothing can be said there any more.
    BrokenOff(End),
}

/// Who takes in what the node says.
struct Listener<'a> {
    evaluations: &'a Evaluations,
    namespace: &'a str,
    watched: Watched<'a>,
}

impl Listener<'_> {
    /// Hands a frame to the session. What may render templates or mask output does so apart from all other tasks.
    async fn hear(&mut self, session: &mut Session, frame: Frame) -> Want {
        let watched = &mut self.watched;
        let evaluates = frame.may_go_on();
        debug!(frame = %frame.summary());
        let hear = || {
            let attached = if let Frame::Attached(id) = &frame { Some(id.clone()) } else { None };
            let want = session.hear(frame, Timestamp::now());
            if let Some(id) = attached.filter(|_| want == Want::Wait) {
                watched.joins(&id);
            }
            watched.learns(session.phase_results());
            want
        };
        if evaluates { self.evaluations.run(self.namespace, &Meter::default(), hear).await } else { hear() }
    }
}

/// Carries a session's bytes until it ends. The agent was greeted, and has said this already.
async fn converse(
    session: &mut Session,
    channel: &mut Channel,
    mut said: Vec<u8>,
    mut directives: watch::Receiver<Directive>,
    show: impl Fn(&Session),
    mut listener: Listener<'_>,
) -> Spoken {
    use Spoken::{BrokenOff, ToTheEnd};
    let mut decoder = Decoder::new(session.nonce());
    let mut buffer = vec![0; 16 << 10];
    let mut greeted = false;
    let mut heard = Instant::now();
    let mut stage_began = Instant::now();
    loop {
        let patience = (heard + SILENCE).min(stage_began + session.patience());
        let bytes = tokio::select! {
            biased;
            () = std::future::ready(()), if !said.is_empty() => {
                buffer[..said.len()].copy_from_slice(&said);
                &buffer[..std::mem::take(&mut said).len()]
            }
            read = read_all(&mut channel.output, &mut buffer) => match read {
                n @ 1.. => &buffer[..n],
                0 => {
                    let closed = timeout(Duration::from_secs(5), &mut channel.closed).await;
                    let closed = closed.unwrap_or_else(|_| Closed::new(false, "its output ended"));
                    return BrokenOff(if greeted { session.lose(&closed.message, Timestamp::now()) } else { ended_early(closed, &decoder, session) });
                }
            },
            changed = directives.changed() => {
                let directive = directives.borrow_and_update().clone();
                if let (Some(why), _) | (None, Err(why)) = (directive.end, changed.map_err(|_| "the operator stops")) {
                    return BrokenOff(session.lose(why, Timestamp::now()));
                }
                session.direct(directive.group, directive.retry_token, directive.bound);
                continue;
            }
            closed = &mut channel.closed => {
                // The last frames may still lie in the pipe.
                let mut rest = Vec::new();
                let _ = timeout(Duration::from_secs(1), read_rest(&mut channel.output, &mut rest)).await;
                for frame in decoder.push(&rest).unwrap_or_default() {
                    match listener.hear(session, frame).await {
                        Want::End(end) => return BrokenOff(end),
                        // It can no longer be asked, so it has not been started.
                        Want::Send(_) => return BrokenOff(End::Lost(session.masked(&closed.message, Cut::default()))),
                        Want::Wait => {}
                    }
                }
                return BrokenOff(if greeted { session.lose(&closed.message, Timestamp::now()) } else { ended_early(closed, &decoder, session) });
            }
            () = tokio::time::sleep_until(patience) => {
                let message = if heard.elapsed() >= SILENCE { "the node fell silent" } else { "the node took too long" };
                return BrokenOff(session.lose(message, Timestamp::now()));
            }
        };
        heard = Instant::now();
        let frames = match decoder.push(bytes) {
            Ok(frames) => frames,
            Err(error) => return BrokenOff(session.fail(&error.to_string(), Timestamp::now())),
        };
        // Bytes that complete nothing change nothing.
        let news = !frames.is_empty();
        for frame in frames {
            greeted = true;
            match listener.hear(session, frame).await {
                Want::Wait => {}
                Want::Send(request) => {
                    stage_began = Instant::now();
                    decoder.next_stage();
                    listener.watched.starts(session);
                    if let Err(message) = send(channel, &request).await {
                        return BrokenOff(session.lose(&message, Timestamp::now()));
                    }
                }
                Want::End(end) => return ToTheEnd(end),
            }
        }
        if news {
            show(session);
        }
    }
}

/// The mask for these secrets. Making a large one takes a while and memory: apart from what others wait for, one at a time.
async fn mask_of(secrets: Vec<Secret>) -> Result<Mask, String> {
    static TURN: Semaphore = Semaphore::const_new(1);
    if secrets.is_empty() {
        return Ok(Mask::default());
    }
    let _turn = TURN.acquire().await;
    let made = tokio::task::spawn_blocking(move || Mask::new(&secrets)).await;
    made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Reads what there is, as much as fits: a node that sends byte by byte is not answered byte by byte. None is the end.
async fn read_all(output: &mut (dyn AsyncRead + Send + Unpin), buffer: &mut [u8]) -> usize {
    let Ok(mut length) = output.read(buffer).await else { return 0 };
    while let Some(Ok(more @ 1..)) = buffer.get_mut(length..).and_then(|rest| output.read(rest).now_or_never()) {
        length += more;
    }
    length
}

async fn send(channel: &mut Channel, bytes: &[u8]) -> Result<(), String> {
    let sending = async {
        channel.input.write_all(bytes).await?;
        channel.input.flush().await
    };
    match timeout(SEND, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the node took no bytes in for {} s", SEND.as_secs())),
    }
}

/// Reads to the end, at most 1 MiB. What was read until it is broken off is there.
async fn read_rest(output: &mut (dyn AsyncRead + Send + Unpin), rest: &mut Vec<u8>) {
    let _ = output.take(1 << 20).read_to_end(rest).await;
}

/// The shell ended before the agent said a word: nothing was started.
fn ended_early(closed: Closed, decoder: &Decoder, session: &Session) -> End {
    let noise = session.masked(&decoder.noise(), Cut { beginning: decoder.noise_is_cut(), end: true });
    let message = session.masked(&closed.message, Cut::default());
    let said = if noise.is_empty() { String::new() } else { format!("; it printed: {}", clip(&noise, 200)) };
    if closed.no_shell {
        let message = format!(
            "no sh was started, which phases need: use an image that has one; on a machine, look at the login shell and ForceCommand ({})",
            clip(&message, MESSAGE_LIMIT / 2)
        );
        return End::Refused { reason: Reason::NoShell.into(), message };
    }
    End::Refused {
        reason: Reason::AgentFailed.into(),
        message: format!("{}{said}", clip(&message, MESSAGE_LIMIT - 300)),
    }
}

/// From the operating system's generator: no script can guess it.
fn nonce() -> String {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => hex(&bytes),
        // Without randomness no reply could be trusted. Linux has none only before it has booted.
        Err(error) => unreachable!("the operating system gives no randomness: {error}"),
    }
}

#[cfg(test)]
mod tests;
