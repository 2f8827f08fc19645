//! Converge, step by step: observe (IO), plan (pure), apply (IO), report (IO, of what a pure function says).

pub mod apply;
mod dispatch;
mod inputs;
mod kubevirt;
mod lift;
mod lists;
mod pace;
mod parse;
mod queue;
pub mod references;
mod relist;
pub mod report;
mod revisions;
mod roles;
mod specs;
pub mod state;
mod strays;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, channel::mpsc, stream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{PersistentVolumeClaim, Pod as KubePod},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt,
        events::{Recorder, Reporter as EventSource},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tracing::{Instrument, warn};

use crate::{
    run::{
        Limits, Runs,
        evaluations::{Evaluations, Meter},
        tasks::{Spawner, Tasks},
    },
    telemetry::{Telemetry, metrics::Share},
    transport::Transport,
};
use apply::Applier;
use dispatch::{Turn, Workers, contained};
use lift::Lifts;
use pace::essence;
use pallet_api::{self as api, GroupNode, GroupSpec, Lift, ServerSpec};
use pallet_client::answer;
use pallet_core::{
    group::{GroupKey, Kind, resolve},
    node,
    observe::{self, Indexed},
    plan::{self, Bound, Heal, Plan, SessionKind, Snapshot, TemplateVerdict, earliest},
};
use parse::Parsed;
use references::{Polls, References};
use relist::Relist;
use report::{Reporter, Written};
use state::Presence;
pub use state::State;

/// What a pass can fail with. It is tried again; nothing is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("{what} failed")]
    Api {
        /// The call.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{what} had no answer in time")]
    Deadline {
        /// The call.
        what: &'static str,
    },
    /// What is needed will be there in a moment.
    #[error("{0}; it is looked at again")]
    NotYet(&'static str),
    /// What a group needs is not as it must be, for people.
    #[error("{0}")]
    Unfit(String),
    /// Something that the types should rule out.
    #[error("this should not happen: {0}")]
    Unplanned(&'static str),
    /// The operator's code panicked over this object.
    #[error("the reconcile panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// What metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Error::Api { .. } => "api",
            Error::Deadline { .. } => "deadline",
            Error::NotYet(_) => "not-yet",
            Error::Unfit(_) => "unfit",
            Error::Unplanned(_) => "unplanned",
            Error::Panicked(_) => "panic",
        }
    }
    /// The status code of the API server's answer, where there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
    /// The API server has looked at the request and would not have it: nothing was done.
    pub fn is_refusal(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && code != 408)
    }
    /// What a refused pod says of its template.
    pub fn verdict(&self) -> Option<TemplateVerdict> {
        let message = self.explanation();
        let reason = match self.code()? {
            // It says nothing of the template: whether the pod is taken shows when it is made.
            400 if message.contains("does not support dry run") => return Some(TemplateVerdict::Accepted),
            400 | 422 => "InvalidTemplate",
            403 if message.contains(EXCEEDED) => plan::QUOTA,
            403 => "Forbidden",
            _ => return None,
        };
        Some(TemplateVerdict::Refused { reason, message })
    }
    /// The reason and the message of a refusal, for the object that it concerns; nothing where the API server gave no answer, or one
    /// that passes by itself. `failed` is the reason of one that no quota and no policy accounts for.
    pub fn refusal(&self, failed: &'static str) -> Option<(&'static str, String)> {
        let reason = match self {
            Error::Deadline { .. } => failed,
            _ => match self.code()? {
                404 | 408 | 409 | 410 | 429 => return None,
                403 if self.explanation().contains(EXCEEDED) => plan::QUOTA,
                403 => "Forbidden",
                _ => failed,
            },
        };
        let words = match self {
            Error::Api { what, .. } => format!("{what}: {}", self.explanation()),
            other => other.to_string(),
        };
        Some((reason, words))
    }
    /// Whether the object may be there although its creation was refused: quotas and webhooks are asked before the names are.
    pub fn may_exist(&self) -> bool {
        self.code().is_some_and(|code| matches!(code, 403 | 409 | 500..))
    }
    /// What the API server said, without debug output.
    pub fn explanation(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), answer::words)
    }
    /// The object is there already, or is not as it was.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
    /// The object is not there.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }
}

/// By this a used-up quota is known: the status code is that of any other policy.
const EXCEEDED: &str = "exceeded quota";

/// How the operator is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespaces that are looked after; all of them where this is empty.
    pub namespaces: Vec<String>,
    /// How many sessions may be open at once.
    pub sessions: usize,
    /// How many groups may be reconciled at once.
    pub reconciles: u16,
    /// The operator's own namespace, where the key of the seals is kept.
    pub own_namespace: String,
    /// How often Secrets and ConfigMaps are read again.
    pub polls: Polls,
}

/// Two passes of a large group lie at least this far apart, so that a burst of events costs one.
const BETWEEN_PASSES: Duration = Duration::from_millis(50);
/// Whoever looks for a slow group finds it by its evaluations that took longer.
const SLOW: Duration = Duration::from_secs(1);

/// How far apart two passes lie at least over so many nodes: a pass over a few costs next to nothing, and somebody may be
/// waiting for what it tells.
fn between_passes(nodes: usize) -> Duration {
    Duration::from_millis(5 + u64::try_from(nodes / 5).unwrap_or(u64::MAX)).min(BETWEEN_PASSES)
}
/// How often the controllers show that they come round, and after how long without it they are stuck.
const PULSE: Duration = Duration::from_secs(5);
const STUCK: Duration = Duration::from_secs(60);
/// What is yet to be listed or looked at for the first time is waited for this long at a time.
const NOT_YET: Duration = Duration::from_millis(200);
/// How long sessions may take to be gone: they only have to notice.
const SESSIONS_END: Duration = Duration::from_secs(2);

/// Who looks at a group. Its own reconcile alone shows others what it has seen: a Lift that looks at the same time may have
/// seen less, and there is nobody who would put it right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looks {
    Group,
    Lift,
}

/// What every pass needs.
struct Converger {
    /// How many sessions one group may have open at once: half of them all, so that one that hangs leaves room.
    session_limit: u32,
    client: Client,
    recorder: Recorder,
    state: Arc<State>,
    /// What is kept for all namespaces that are looked after.
    states: Arc<[Arc<State>]>,
    runs: Arc<Runs>,
    evaluations: Evaluations,
    telemetry: Telemetry,
    groups: Store<GroupSpec>,
    references: Arc<References>,
    lifts: Lifts,
    /// The groups that are gone.
    strays: mpsc::UnboundedSender<GroupKey>,
}

/// Looks after GroupSpecs until `stop` resolves. Runs on nodes go on without it and are found again. It leaves no task
/// behind, whether it is told to stop or dropped.
///
/// `client` may retry by itself. `transport` opens the sessions.
pub async fn run(
    client: Client,
    transport: Arc<dyn Transport>,
    settings: Settings,
    telemetry: Telemetry,
    stop: impl Future<Output = ()>,
) {
    let sessions = settings.sessions.max(1);
    telemetry.metrics.session_limit(sessions);
    let (limits, tasks) = (Limits::new(sessions), Tasks::default());
    // Each namespace has caches of its own: a list of one says nothing about the others.
    let scopes: Vec<Option<String>> = if settings.namespaces.is_empty() {
        vec![None]
    } else {
        settings.namespaces.iter().cloned().collect::<BTreeSet<_>>().into_iter().map(Some).collect()
    };
    let references = Arc::new(References::new(client.clone(), settings.own_namespace.clone(), settings.polls));
    let states: Arc<[Arc<State>]> = scopes.iter().map(|_| Arc::default()).collect();
    let scopes = scopes.into_iter().zip(states.to_vec()).map(|(scope, state)| {
        let (client, telemetry, references) = (client.clone(), telemetry.clone(), references.clone());
        let (namespace, reconciles, states) = (scope, settings.reconciles, states.clone());
        let scope = Scope { client, namespace, reconciles, telemetry, references, state, states };
        scope.run(transport.clone(), limits.clone(), tasks.spawner())
    });
    {
        let scopes = futures::future::join_all(scopes);
        tokio::select! {
            _ = scopes => {}
            () = stop => {}
        }
    }
    if tokio::time::timeout(SESSIONS_END, tasks.shutdown()).await.is_err() {
        warn!("sessions and reconciles did not end before the deadline; aborting them");
    }
}

/// One namespace, or all of them.
#[derive(Clone)]
struct Scope {
    client: Client,
    namespace: Option<String>,
    reconciles: u16,
    telemetry: Telemetry,
    references: Arc<References>,
    state: Arc<State>,
    states: Arc<[Arc<State>]>,
}

impl Scope {
    async fn run(self, transport: Arc<dyn Transport>, limits: Limits, tasks: Spawner) {
        let (wake, woken) = mpsc::unbounded::<GroupKey>();
        let (stray, strays) = mpsc::unbounded::<GroupKey>();
        let metrics = self.telemetry.metrics.clone();
        let (vault, own) = (self.references.clone(), tasks.clone());
        let runs = Runs::new(transport, vault, limits.clone(), own, metrics, move |key| {
            let _ = wake.unbounded_send(key.clone());
        });
        let state = self.state.clone();
        let (groups, writer) = reflector::store::<GroupSpec>();
        let (lifts, lift_writer) = reflector::store::<Lift>();
        let (wake_lift, woken_lifts) = mpsc::unbounded::<GroupKey>();
        let source = EventSource { controller: "pallet-operator".into(), instance: std::env::var("POD_NAME").ok() };
        let converger = Arc::new(Converger {
            session_limit: u32::try_from(limits.sessions.most_of_one()).unwrap_or(u32::MAX),
            recorder: Recorder::new(self.client.clone(), source),
            client: self.client.clone(),
            state: state.clone(),
            states: self.states.clone(),
            runs: runs.clone(),
            evaluations: limits.evaluations,
            telemetry: self.telemetry.clone(),
            groups: groups.clone(),
            references: self.references.clone(),
            lifts: Lifts::new(lifts.clone(), wake_lift),
            strays: stray.clone(),
        });
        let mut relist = Relist::new(groups.clone());
        let watched = state.clone();
        let own = reflector::reflector(writer, self.watch::<GroupSpec>(None)).map(move |event| match event {
            Ok(event) => {
                if let watcher::Event::Apply(object) = &event {
                    watched.see_deletion(object);
                }
                relist.concerned(&event)
            }
            Err(error) => broken::<GroupSpec>(&error),
        });
        let nodes = indexed(&state, &runs, self.watch::<GroupNode>(None));
        let pods = indexed(&state, &runs, self.watch::<KubePod>(Some(api::GROUP_LABEL)));
        let claims = indexed(&state, &runs, self.watch::<PersistentVolumeClaim>(Some(api::GROUP_LABEL)));
        let revisions = indexed(&state, &runs, self.watch::<ControllerRevision>(Some(api::GROUP_LABEL)));
        let specified = state.clone();
        let specs = self.watch::<ServerSpec>(None).map(move |event| match event {
            Ok(event) => specified.see_specs(event),
            Err(error) => broken::<ServerSpec>(&error),
        });
        let virtual_machines = self.virtual_machines(&state, &runs, groups.clone());
        let woken = woken.map(|key| vec![key]);
        let triggers = stream::select_all([
            own.boxed(),
            nodes.boxed(),
            pods.boxed(),
            claims.boxed(),
            revisions.boxed(),
            virtual_machines.boxed(),
            specs.boxed(),
            woken.boxed(),
        ]);

        let (known_groups, waking) = (groups.clone(), converger.clone());
        let asked = triggers.flat_map(stream::iter).filter(move |key| {
            let here = known_groups.get(&reference(key)).is_some();
            if !here {
                waking.wake_lifts(key);
                let _ = stray.unbounded_send(key.clone());
            }
            std::future::ready(here)
        });
        let workers = |workers: usize| Workers::fair(workers, self.namespace.is_some(), tasks.clone());
        let waiting = Some(self.telemetry.metrics.queued_groups());
        let reconciles = Workers { waiting, ..workers(self.reconciles.into()) };
        let reconciles = reconciles.run(asked, |key| converger.clone().turn(key));
        let watched = reflector::reflector(lift_writer, self.watch::<Lift>(None));
        let lifts = lift::reconciles(&converger, lifts, watched, woken_lifts, workers(lift::WORKERS));
        let strays = converger.release_strays(strays, workers(strays::WORKERS));
        tokio::join!(reconciles, lifts, strays, converger.pulse(groups));
    }

    /// A watch of this scope. One that fails pauses by itself and slows no other down.
    fn watch<O>(&self, label: Option<&str>) -> impl Stream<Item = watcher::Result<watcher::Event<O>>> + Send + use<O>
    where
        O: Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
        O::DynamicType: Default,
    {
        let api: Api<O> = match &self.namespace {
            None => Api::all(self.client.clone()),
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
        };
        let config = label.map_or_else(watcher::Config::default, |label| watcher::Config::default().labels(label));
        let (kind, metrics) = (O::kind(&O::DynamicType::default()).into_owned(), self.telemetry.metrics.clone());
        let place = self.namespace.as_ref().map(|namespace| format!(" in {namespace}")).unwrap_or_default();
        let health = self.telemetry.health.watch(format!("{kind}{place}"));
        watcher::watcher(api, config).default_backoff().inspect(move |event| match event {
            Ok(watcher::Event::InitDone) => health.listed(),
            // A list that begins has brought nothing yet.
            Ok(watcher::Event::Init) => {}
            Ok(_) => health.works(),
            Err(_) => {
                health.failed();
                metrics.watch_failed(&kind);
            }
        })
    }
}

/// A watch failed: it is opened again, and nothing is to be looked at for that.
fn broken<O>(error: &watcher::Error) -> Vec<GroupKey> {
    let kind = std::any::type_name::<O>().rsplit("::").next().unwrap_or_default();
    warn!(error = answer::words(error), kind, "watch failed, restarting");
    Vec::new()
}

/// An event of the client, as the index takes it in.
fn change<O>(event: watcher::Event<O>) -> observe::Event<O> {
    match event {
        watcher::Event::Apply(object) => observe::Event::Apply(object),
        watcher::Event::Delete(object) => observe::Event::Delete(object),
        watcher::Event::Init => observe::Event::Init,
        watcher::Event::InitApply(object) => observe::Event::InitApply(object),
        watcher::Event::InitDone => observe::Event::InitDone,
    }
}

/// Keeps the index up to date, and tells which groups to look at.
fn indexed<O: Indexed + 'static, S: Stream<Item = watcher::Result<watcher::Event<O>>>>(
    state: &Arc<State>,
    runs: &Arc<Runs>,
    events: S,
) -> impl Stream<Item = Vec<GroupKey>> + use<O, S> {
    let (state, runs) = (state.clone(), runs.clone());
    events.map(move |event| match event {
        Err(error) => broken::<O>(&error),
        Ok(event) => {
            let touched = state.index().apply(&change(event));
            touched.gone.iter().for_each(|uid| runs.forget(uid));
            touched.groups.into_iter().collect()
        }
    })
}

impl Converger {
    /// One turn of a group that was asked for: a reconcile, and when the next one may and must be.
    async fn turn(self: Arc<Self>, key: GroupKey) -> Turn {
        let Some(object) = self.groups.get(&reference(&key)) else { return Turn::default() };
        let object = self.state.newest(&key, object);
        let (began, meter) = (Instant::now(), Meter::default());
        let result = contained(Box::pin(self.reconcile(&object, &meter))).await;
        let again = result.unwrap_or_else(|error| Some(self.again(&object, &error)));
        let nodes = self.state.known().get(&key).map_or(0, |known| known.nodes);
        if self.groups.get(&reference(&key)).is_none() {
            // It went meanwhile: what this turn has kept of it goes, too.
            let _ = self.strays.unbounded_send(key.clone());
        }
        let rest = dispatch::rest(meter.spent());
        if meter.spent() >= SLOW {
            let (seconds, rest) = (meter.spent().as_secs_f64(), rest.as_secs_f64());
            warn!(group = %key, seconds, rest, "evaluating the group takes long; delaying its next reconcile");
        }
        Turn { again, rest: rest.max(between_passes(nodes).saturating_sub(began.elapsed())) }
    }

    /// One pass over one group. Returns when the next one is due, though nothing happens.
    async fn reconcile(&self, object: &GroupSpec, meter: &Meter) -> Result<Option<Duration>, Error> {
        let key = resolve::key(object);
        if !self.state.synced() {
            // What is not listed yet must not be taken for missing.
            return Ok(Some(BETWEEN_PASSES));
        }
        let began = Instant::now();
        let span = tracing::error_span!("reconcile", group = %key, outcome = tracing::field::Empty);
        let result = async {
            let Some((mut snapshot, mut plan, rest)) = self.see(object, meter, Looks::Group).await else {
                return Ok(Some(NOT_YET));
            };
            self.state.rechecked(&key);
            self.direct(&snapshot, &plan);
            let listed = self.list(object, &snapshot, &mut plan).await; // IO, where sessions start that nobody would look for
            let applied = self.apply(&snapshot, &plan).await; // IO
            let reported = self.report(object, listed, &mut snapshot, &plan).await; // IO, also where applying failed
            self.keep_revisions(object, &snapshot).await?; // IO, after an edit
            applied?;
            self.wake_lifts(&key); // they stand on what this pass has seen and written
            let wake = earliest(earliest(plan.wake, reported?), rest);
            self.forget_failures(&key);
            Ok(wake.map(|time| until(snapshot.now, time)))
        }
        .instrument(span.clone())
        .await;
        let outcome = result.as_ref().map_or_else(Error::label, |_| "ok");
        span.record("outcome", outcome);
        self.telemetry.metrics.reconciled(outcome, began.elapsed());
        result
    }

    /// Caches -> Snapshot -> Plan, and when to look again; nothing while other groups are yet to be looked at for the first
    /// time, or virtual machines to be listed.
    async fn see(&self, object: &GroupSpec, meter: &Meter, who: Looks) -> Option<(Snapshot, Plan, Option<Timestamp>)> {
        let parsed = self.parse(object, meter).await;
        let mut snapshot = self.observe(object, parsed);
        self.see_kubevirt(&mut snapshot)?;
        let rest = self.see_inventory(&mut snapshot, meter, who).await; // IO, where it stands elsewhere
        let rest = earliest(rest, self.see_roles(object, &mut snapshot, who)?);
        let rest = earliest(rest, self.see_references(&mut snapshot).await); // IO, where it names any
        let rest = earliest(rest, self.see_revisions(object, &mut snapshot, meter).await?); // IO, as above
        node::host::show(&mut snapshot);
        let namespace = snapshot.head.key.namespace.clone();
        let plan = self.evaluations.run(&namespace, meter, || {
            observe::complete(&mut snapshot);
            plan::plan(&snapshot) // pure
        });
        let plan = plan.await;
        if who == Looks::Group {
            self.state.prune_refusals(&snapshot, &plan);
            plan::refusals::prune(&mut snapshot.refusals, &plan, &snapshot.nodes);
        }
        Some((snapshot, plan, rest))
    }

    /// Whether virtual machines can be made, where nodes are such; nothing as long as that is not known.
    fn see_kubevirt(&self, snapshot: &mut Snapshot) -> Option<()> {
        if snapshot.kind() != Kind::VirtualMachine {
            return Some(());
        }
        match self.state.kubevirt() {
            Presence::Unknown => None,
            Presence::Present => self.state.index().knows_virtual_machines().then_some(()),
            Presence::Absent => {
                let (reason, message) = ("KubeVirtMissing", kubevirt::MISSING.to_owned());
                snapshot.template = TemplateVerdict::Refused { reason, message };
                Some(())
            }
            Presence::Forbidden { verb, group, resource } => {
                let dot = if group.is_empty() { "" } else { "." };
                let message = kubevirt::forbidden(&format!("{verb} {resource}{dot}{group}"));
                snapshot.template = TemplateVerdict::Refused { reason: "VirtualMachinesForbidden", message };
                Some(())
            }
        }
    }

    /// Shows that the controllers come round: it is polled where reconciles are begun, and takes the locks that they take.
    async fn pulse(&self, groups: Store<GroupSpec>) {
        let heart = self.telemetry.health.heart("controllers", STUCK);
        let (known_groups, known_nodes): (Share, Share) =
            (self.telemetry.metrics.groups(), self.telemetry.metrics.nodes());
        loop {
            drop(self.state.known());
            known_nodes.set(self.state.index().count_nodes());
            known_groups.set(groups.len());
            heart.beat();
            tokio::time::sleep(PULSE).await;
        }
    }

    fn observe(&self, object: &GroupSpec, (group, last_good): Parsed) -> Snapshot {
        let key = resolve::key(object);
        self.state.freshen(&key);
        let (index, mut known) = (self.state.index(), self.state.known());
        let state::Known { beyond, nodes, .. } = known.entry(key).or_default();
        beyond.session_limit = self.session_limit;
        beyond.see_list(object);
        let seen = |uid: &str| self.runs.seen(uid);
        let mut snapshot = observe::snapshot(object, group, &index, beyond, seen, Timestamp::now());
        snapshot.last_good = last_good;
        *nodes = snapshot.nodes.len();
        beyond.forget_shown(&snapshot);
        if let Some(cascade) = snapshot.head.deletion {
            beyond.cascade = Some((snapshot.head.uid.clone(), cascade));
        }
        snapshot
    }

    /// Tells the sessions in flight the newest spec and how far they may go. They take it over before their next phase.
    fn direct(&self, snapshot: &Snapshot, plan: &Plan) {
        let directed = |session: &plan::SessionView| session.kind != SessionKind::Lift;
        let at_work: Vec<_> =
            snapshot.live().filter(|node| snapshot.sessions.get(&node.name).is_some_and(directed)).collect();
        let in_force = snapshot.in_force().filter(|_| snapshot.group.is_ok() || snapshot.heal == Heal::Fully);
        match in_force {
            Some(group) if !at_work.is_empty() => {
                let group = Arc::new(group.clone());
                for node in at_work {
                    let bound = plan.bounds.get(&node.ordinal).unwrap_or(&Bound::Hold);
                    self.runs.direct(&node.uid, &group, &node.retry_token, bound);
                }
            }
            Some(_) => {}
            // Not all is known that the phases of the last valid declaration would see.
            None => at_work.iter().for_each(|node| self.runs.hold(&node.uid)),
        }
    }

    async fn apply(&self, snapshot: &Snapshot, plan: &Plan) -> Result<(), Error> {
        let Self { client, recorder, runs, state, .. } = self;
        Applier { client, recorder, runs, state, snapshot }.apply(plan).await
    }

    /// Reports what the plan was made from. What it has changed shows in the next pass, for which the plan has set a wake. The
    /// status of the group may have been `written` in this pass already.
    async fn report(
        &self,
        object: &GroupSpec,
        written: Option<Arc<GroupSpec>>,
        snapshot: &mut Snapshot,
        plan: &Plan,
    ) -> Result<Option<Timestamp>, Error> {
        let Self { client, recorder, state, runs, .. } = self;
        let reporter = Reporter { client, recorder, state, runs };
        let nodes = reporter.nodes(snapshot, plan).await;
        let wanted = plan::status::group(snapshot, &plan.steps);
        if written.is_some() {
            reporter.tell_changes(object, &wanted).await;
        }
        let current = written.as_deref().unwrap_or(object);
        if current.status.as_ref() == Some(&wanted) {
            return nodes;
        }
        if let Some(until) = reporter.held(snapshot, &plan::Subject::Status) {
            return nodes.map(|wake| earliest(wake, Some(until)));
        }
        if let Some(rest) = self.write_later(&snapshot.head.key, &wanted.conditions, &snapshot.status.conditions) {
            let later = snapshot.now + jiff::SignedDuration::try_from(rest).unwrap_or_default();
            return nodes.map(|wake| earliest(wake, Some(later)));
        }
        // The group's status tells of what went wrong with its nodes: it is written though one of theirs was not.
        let again = match reporter.refusable(snapshot, current, &wanted).await? {
            Written::Yes(_) => {
                reporter.tell_changes(object, &wanted).await;
                None
            }
            Written::Conflict => Some(snapshot.now + report::AFTER_CONFLICT),
            Written::Gone => None,
        };
        nodes.map(|wake| earliest(wake, again))
    }

    /// How long a write of a group's status is put off.
    fn write_later(&self, key: &GroupKey, wanted: &[Condition], shown: &[Condition]) -> Option<Duration> {
        self.state.known().entry(key.clone()).or_default().pace.write(essence(wanted) != essence(shown))
    }

    fn forget_failures(&self, key: &GroupKey) {
        if let Some(known) = self.state.known().get_mut(key) {
            known.pace.succeed();
        }
    }

    /// When a group is reconciled again after a failure: later each time, by group, so that a poison object slows no other
    /// down.
    fn again(&self, object: &GroupSpec, error: &Error) -> Duration {
        let key = resolve::key(object);
        let pause = self.state.known().entry(key.clone()).or_default().pace.fail();
        warn!(group = %key, %error, source = error.explanation(), pause = pause.as_secs_f64(), "reconcile failed, requeuing");
        pause
    }
}

/// Where a group is in its store.
fn reference(key: &GroupKey) -> ObjectRef<GroupSpec> {
    ObjectRef::new(&key.name).within(&key.namespace)
}

fn until(now: Timestamp, time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now)).unwrap_or_default().max(Duration::from_millis(10))
}
