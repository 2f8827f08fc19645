//! One reconcile of a group: observe (IO), plan (pure), apply (IO), report (IO, of what a pure function says).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::channel::mpsc;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Client,
    runtime::{
        events::{Recorder, Reporter as EventSource},
        reflector::{ObjectRef, Store},
    },
};
use tracing::{Instrument, warn};

use super::{
    Error, State,
    apply::Applier,
    dispatch::{self, Turn, contained},
    kubevirt,
    lift::Lifts,
    pace::essence,
    parse::Parsed,
    references::References,
    report::{self, Reporter, Written},
    state::{self, Presence},
};
use crate::{
    ports::{Clock, PlanObserver, Sessions},
    run::{
        Limits,
        evaluations::{Evaluations, Meter},
    },
    telemetry::{Telemetry, metrics::Share},
};
use pallet_api::reason::Reason;
use pallet_api::{GroupSpec, Lift};
use pallet_core::{
    group::{GroupKey, Kind, resolve},
    node, observe,
    plan::{self, Bound, Heal, Plan, SessionKind, Snapshot, TemplateVerdict, earliest},
};

/// Two passes of a large group lie at least this far apart, so that a burst of events costs one.
pub(super) const BETWEEN_PASSES: Duration = Duration::from_millis(50);
/// Whoever looks for a slow group finds it by its evaluations that took longer.
const SLOW: Duration = Duration::from_secs(1);

/// How far apart two passes lie at least over so many nodes: a pass over a few costs next to nothing, and somebody may be
/// waiting for what it tells.
pub(super) fn between_passes(nodes: usize) -> Duration {
    Duration::from_millis(5 + u64::try_from(nodes / 5).unwrap_or(u64::MAX)).min(BETWEEN_PASSES)
}
/// How often the controllers show that they come round, and after how long without it they are stuck.
const PULSE: Duration = Duration::from_secs(5);
pub(super) const STUCK: Duration = Duration::from_secs(60);
/// What is yet to be listed or looked at for the first time is waited for this long at a time.
pub(super) const NOT_YET: Duration = Duration::from_millis(200);

/// What a group is looked at by: its own reconcile alone shows others what it has seen. A Lift that looks at the same time may have
/// seen less, and nobody would put it right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Looks {
    /// Its own reconcile.
    Group,
    /// The reconcile of a Lift.
    Lift,
}

/// What a [`Converger`] reaches the world by.
#[derive(Clone)]
pub struct Ports {
    /// The API server. It may retry by itself.
    pub client: Client,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The sessions on nodes.
    pub sessions: Arc<dyn Sessions>,
    /// What is read of Secrets and ConfigMaps.
    pub references: Arc<References>,
    /// Sees each plan before it is carried out.
    pub observer: Option<PlanObserver>,
}

/// The caches, which somebody keeps up to date.
#[derive(Clone)]
pub struct Caches {
    /// What is kept of the namespaces that are looked after here.
    pub state: Arc<State>,
    /// The same for all namespaces that are looked after, this one among them.
    pub states: Arc<[Arc<State>]>,
    /// The GroupSpecs.
    pub groups: Store<GroupSpec>,
    /// The Lifts.
    pub lifts: Store<Lift>,
}

/// What a [`Converger`] asks for beyond its own turns.
pub struct Asked {
    /// Reconciles of Lifts.
    pub lifts: mpsc::UnboundedReceiver<GroupKey>,
    /// Groups that were deleted while a reconcile ran.
    pub strays: mpsc::UnboundedReceiver<GroupKey>,
}

/// Reconciles groups and Lifts.
pub struct Converger {
    /// How many sessions one group may have open at once: half of them all, so that one that hangs leaves room.
    session_limit: u32,
    pub(super) client: Client,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) recorder: Recorder,
    pub(super) state: Arc<State>,
    pub(super) states: Arc<[Arc<State>]>,
    pub(super) sessions: Arc<dyn Sessions>,
    observer: Option<PlanObserver>,
    pub(super) evaluations: Evaluations,
    pub(super) telemetry: Telemetry,
    pub(super) groups: Store<GroupSpec>,
    pub(super) references: Arc<References>,
    pub(super) lifts: Lifts,
    pub(super) strays: mpsc::UnboundedSender<GroupKey>,
}

impl Converger {
    /// `limits` are shared with the sessions.
    pub fn new(ports: Ports, caches: Caches, limits: &Limits, telemetry: Telemetry) -> (Arc<Self>, Asked) {
        let (wake_lift, lifts) = mpsc::unbounded();
        let (stray, strays) = mpsc::unbounded();
        let source = EventSource { controller: "pallet-operator".into(), instance: std::env::var("POD_NAME").ok() };
        let converger = Self {
            session_limit: u32::try_from(limits.sessions.most_of_one()).unwrap_or(u32::MAX),
            recorder: Recorder::new(ports.client.clone(), source),
            client: ports.client,
            clock: ports.clock,
            state: caches.state,
            states: caches.states,
            sessions: ports.sessions,
            observer: ports.observer,
            evaluations: limits.evaluations.clone(),
            telemetry,
            groups: caches.groups,
            references: ports.references,
            lifts: Lifts::new(caches.lifts, wake_lift),
            strays: stray,
        };
        (Arc::new(converger), Asked { lifts, strays })
    }

    pub(super) fn reporter(&self) -> Reporter<'_> {
        let Self { client, recorder, state, sessions, clock, .. } = self;
        Reporter { client, recorder, state, sessions: &**sessions, clock: &**clock }
    }

    /// An event concerns a group that the caches do not have (any more).
    pub fn went(&self, key: &GroupKey) {
        self.wake_lifts(key);
        let _ = self.strays.unbounded_send(key.clone());
    }

    /// One turn of a group that was asked for: a reconcile, and when the next one may and must be.
    pub async fn turn(self: Arc<Self>, key: GroupKey) -> Turn {
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
    pub async fn see(
        &self,
        object: &GroupSpec,
        meter: &Meter,
        who: Looks,
    ) -> Option<(Snapshot, Plan, Option<Timestamp>)> {
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
            if let Some(observer) = &self.observer {
                observer(&snapshot, &plan);
            }
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
                let (reason, message) = (Reason::KubeVirtMissing, kubevirt::MISSING.to_owned());
                snapshot.template = TemplateVerdict::Refused { reason, message };
                Some(())
            }
            Presence::Forbidden { verb, group, resource } => {
                let dot = if group.is_empty() { "" } else { "." };
                let message = kubevirt::forbidden(&format!("{verb} {resource}{dot}{group}"));
                snapshot.template = TemplateVerdict::Refused { reason: Reason::VirtualMachinesForbidden, message };
                Some(())
            }
        }
    }

    /// Shows that the controllers come round: it is polled where reconciles are begun, and takes the locks that they take.
    pub(super) async fn pulse(&self, groups: Store<GroupSpec>) {
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
        let seen = |uid: &str| self.sessions.seen(uid);
        let mut snapshot = observe::snapshot(object, group, &index, beyond, seen, self.clock.now());
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
                    self.sessions.direct(&node.uid, &group, &node.retry_token, bound);
                }
            }
            Some(_) => {}
            // Not all is known that the phases of the last valid declaration would see.
            None => at_work.iter().for_each(|node| self.sessions.hold(&node.uid)),
        }
    }

    async fn apply(&self, snapshot: &Snapshot, plan: &Plan) -> Result<(), Error> {
        let Self { client, recorder, sessions, clock, state, .. } = self;
        Applier { client, recorder, sessions: &**sessions, clock: &**clock, state, snapshot }.apply(plan).await
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
        let reporter = self.reporter();
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
        self.state
            .known()
            .entry(key.clone())
            .or_default()
            .pace
            .write(essence(wanted) != essence(shown), self.clock.instant())
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
pub(super) fn reference(key: &GroupKey) -> ObjectRef<GroupSpec> {
    ObjectRef::new(&key.name).within(&key.namespace)
}

pub(super) fn until(now: Timestamp, time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now)).unwrap_or_default().max(Duration::from_millis(10))
}
