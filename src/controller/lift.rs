//! Lift, step by step: see its groups (as converge does), plan (pure), write the status (IO), begin what it says (IO).

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, channel::mpsc};
use jiff::Timestamp;
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::SelectorExt,
    runtime::{
        events::EventType,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use parking_lot::{Mutex, MutexGuard};
use serde_json::json;
use tracing::{Instrument, debug, info, warn};

use super::{
    Error,
    apply::{finalizers_patch, tolerate_gone, within},
    broken,
    dispatch::{self, Turn, Workers, contained},
    pace::{Pace, essence},
    reconcile::{BETWEEN_PASSES, Converger, Looks, between_passes, until},
    relist::Relist,
    report::{self, tell},
};
use crate::run::{Start, evaluations::Meter};
use pallet_api::{GroupSpec, Lift, LiftStatus};
use pallet_core::{
    group::{
        FieldError, Group, GroupKey,
        resolve::{self, Memo, ServerSpecs, Source},
    },
    lift::{
        self, Effect, GroupView, LiftPlan, LiftSnapshot, Target, begin,
        queue::{self, head, key},
    },
    plan::{self, Bound, LiftRun, Purpose, earliest},
};

/// How many Lifts may be reconciled at once.
pub(super) const WORKERS: usize = 8;

/// The Lifts, and what is kept of them between passes.
pub(super) struct Lifts {
    store: Store<Lift>,
    wake: mpsc::UnboundedSender<GroupKey>,
    known: Mutex<HashMap<GroupKey, Known>>,
}

/// What is kept of a Lift between passes.
#[derive(Default)]
struct Known {
    /// Its groups as they were parsed for it, by name.
    resolved: HashMap<String, Memo>,
    pace: Pace,
}

impl Lifts {
    pub(super) fn new(store: Store<Lift>, wake: mpsc::UnboundedSender<GroupKey>) -> Self {
        Self { store, wake, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<GroupKey, Known>> {
        self.known.lock()
    }

    /// Those of a namespace that have not ended.
    fn open(&self, namespace: &str) -> Vec<Arc<Lift>> {
        let mut lifts = self.store.state();
        lifts.retain(|lift| !queue::has_ended(lift) && lift.metadata.namespace.as_deref() == Some(namespace));
        lifts
    }
}

/// Looks after the Lifts of a scope.
pub(super) async fn reconciles(
    converger: &Arc<Converger>,
    store: Store<Lift>,
    events: impl Stream<Item = watcher::Result<watcher::Event<Lift>>> + Send,
    woken: mpsc::UnboundedReceiver<GroupKey>,
    workers: Workers,
) {
    let mut relist = Relist::new(store);
    let own = events.map(move |event| match event {
        Ok(event) => relist.concerned(&event),
        Err(error) => broken::<Lift>(&error),
    });
    let asked = futures::stream::select(own.boxed(), woken.map(|key| vec![key]).boxed());
    workers.run(asked.flat_map(futures::stream::iter), |key| converger.clone().turn_of_lift(key)).await;
}

impl Converger {
    /// Has the Lifts looked at that a group matters to.
    pub(super) fn wake_lifts(&self, group: &GroupKey) {
        for object in self.lifts.open(&group.namespace) {
            let status = object.status.clone().unwrap_or_default();
            let names = lift::names(&object.spec, &status);
            // One that selects its groups by labels may be waiting for this very one.
            let selects = status.start_time.is_none() && object.spec.group_selector.is_some();
            if selects || names.contains(&group.name) {
                let _ = self.lifts.wake.unbounded_send(key(&object));
            }
        }
    }

    /// One turn of a Lift that was asked for: a reconcile, and when the next one may and must be.
    pub async fn turn_of_lift(self: Arc<Self>, key: GroupKey) -> Turn {
        let find = || self.lifts.store.get(&ObjectRef::<Lift>::new(&key.name).within(&key.namespace));
        let Some(object) = find() else {
            self.lifts.known().remove(&key);
            return Turn::default();
        };
        let (began, meter) = (Instant::now(), Meter::default());
        let result = contained(Box::pin(self.lift(&object, &meter))).await;
        let again = result.unwrap_or_else(|error| Some(self.lift_again(&object, &error)));
        if find().is_none() {
            // It went meanwhile, and its memory with it.
            self.lifts.known().remove(&key);
        }
        let nodes = object.status.as_ref().map_or(0, |status| status.nodes);
        let rest = dispatch::rest(meter.spent());
        Turn { again, rest: rest.max(between_passes(nodes as usize).saturating_sub(began.elapsed())) }
    }

    /// One pass over one Lift. Returns when the next one is due, though nothing happens.
    async fn lift(&self, object: &Lift, meter: &Meter) -> Result<Option<Duration>, Error> {
        let key = key(object);
        // A group that is not listed yet must not be taken for gone, and its nodes with it.
        let listed = self.groups.wait_until_ready().now_or_never().is_some();
        if !self.state.synced() || !listed {
            return Ok(Some(BETWEEN_PASSES));
        }
        let span = tracing::error_span!("lift", lift = %key);
        let pass = async {
            let Some((mut snapshot, rest)) = self.see_lift(object, meter).await? else {
                return Ok(Some(BETWEEN_PASSES));
            };
            let mut version = object.metadata.resource_version.clone();
            let decide = |snapshot: &LiftSnapshot| lift::plan(snapshot); // pure
            let mut plan = self.evaluations.run(&key.namespace, meter, || decide(&snapshot)).await;
            if plan.effects == [Effect::Finalize] {
                match self.finalize_lift(object, true).await? {
                    Some(patched) => version = patched.metadata.resource_version,
                    None => return Ok(Some(BETWEEN_PASSES)),
                }
                snapshot.head.finalized = true;
                plan = self.evaluations.run(&key.namespace, meter, || decide(&snapshot)).await;
            }
            self.direct_lift(&snapshot, &plan);
            let mut wake = earliest(plan.wake, rest);
            match self.report_lift(object, &snapshot, &plan, version).await? {
                Written::Yes => {
                    self.carry_out(object, &snapshot, &plan).await?;
                    self.tell_lift(object, &snapshot, &plan).await;
                }
                // What the status does not say must not be begun.
                Written::Conflict => wake = earliest(wake, Some(snapshot.now + report::AFTER_CONFLICT)),
                Written::Later(time) => wake = earliest(wake, Some(time)),
            }
            if let Some(known) = self.lifts.known().get_mut(&key) {
                known.pace.succeed();
            }
            Ok(wake.map(|time| until(snapshot.now, time)))
        };
        pass.instrument(span).await
    }

    /// When a Lift is reconciled again after a failure: later each time.
    fn lift_again(&self, object: &Lift, error: &Error) -> Duration {
        let key = key(object);
        let pause = self.lifts.known().entry(key.clone()).or_default().pace.fail();
        warn!(lift = %key, %error, source = error.explanation(), pause = pause.as_secs_f64(), "reconcile failed, requeuing");
        pause
    }

    /// Caches -> LiftSnapshot, and when to look again; nothing while groups are yet to be looked at for the first time.
    ///
    /// # Errors
    /// Where its timeout is none.
    pub async fn see_lift(
        &self,
        object: &Lift,
        meter: &Meter,
    ) -> Result<Option<(LiftSnapshot, Option<Timestamp>)>, Error> {
        let (head, spec) = (head(object), object.spec.clone());
        let status = object.status.clone().unwrap_or_default();
        let timeout = kube::core::Duration::from_str(&spec.timeout).map(Into::into);
        let timeout = timeout.map_err(|_| Error::Unplanned("a timeout that the schema lets through"))?;
        let open = self.lifts.open(&head.key.namespace);
        let open = open.iter().filter_map(|lift| lift.metadata.uid.clone()).collect();
        let mut snapshot =
            LiftSnapshot { now: self.clock.now(), head, spec, timeout, status, groups: BTreeMap::new(), open };
        let mut rest = None;
        if snapshot.status.completion_time.is_some() {
            return Ok(Some((snapshot, rest)));
        }
        for group in self.groups_of(&snapshot) {
            let Some((seen, plan, wake)) = self.see(&group, meter, Looks::Lift).await else { return Ok(None) };
            rest = earliest(rest, wake);
            let specs = self.state.specs(&snapshot.head.key.namespace);
            let name = seen.head.key.name.clone();
            let lifted = self.parse_lifted(&snapshot, &group, &specs, meter).await;
            let (lifted, wake) = match lifted {
                Ok(lifted) => match self.complete_lifted(lifted, &seen, &snapshot).await {
                    Some(completed) => completed,
                    None => return Ok(None),
                },
                Err(errors) => (Err(errors), None),
            };
            rest = earliest(rest, wake);
            let others = self.lifts.open(&snapshot.head.key.namespace);
            let taken = queue::taken(&snapshot.head, &seen, others.iter().map(Arc::as_ref));
            let roles = resolve::roles(&group.spec, &specs);
            snapshot.groups.insert(name, GroupView { snapshot: seen, plan, lifted, roles, taken });
        }
        snapshot.now = self.clock.now();
        Ok(Some((snapshot, rest)))
    }

    /// A group as a Lift sees it. What was parsed for the Lift before is not parsed again.
    async fn parse_lifted(
        &self,
        snapshot: &LiftSnapshot,
        group: &GroupSpec,
        specs: &ServerSpecs,
        meter: &Meter,
    ) -> Result<Group, Vec<FieldError>> {
        let (key, name) = (&snapshot.head.key, resolve::key(group).name);
        let source = Source::of(group, specs);
        let known = self.lifts.known().get(key).and_then(|known| known.resolved.get(&name)?.known(&source));
        let parsed = match known {
            Some(parsed) => parsed,
            None => {
                let parse = || resolve::lifted(group, specs, &snapshot.spec).map(Arc::new);
                let parsed = self.evaluations.run(&key.namespace, meter, parse).await;
                let mut known = self.lifts.known();
                known.entry(key.clone()).or_default().resolved.entry(name).or_default().keep(source, parsed.clone());
                parsed
            }
        };
        parsed.map(|group| (*group).clone())
    }

    /// The groups that are there of those that a Lift is for.
    fn groups_of(&self, snapshot: &LiftSnapshot) -> Vec<Arc<GroupSpec>> {
        let namespace = &snapshot.head.key.namespace;
        let selector = snapshot.spec.group_selector.clone().filter(|_| snapshot.status.start_time.is_none());
        if let Some(selector) = selector {
            // The schema has seen to its form.
            let Ok(selector) = kube::core::Selector::try_from(selector) else { return Vec::new() };
            let none = BTreeMap::new();
            let mut groups = self.groups.state();
            groups.retain(|group| {
                group.metadata.namespace.as_ref() == Some(namespace)
                    && selector.matches(group.metadata.labels.as_ref().unwrap_or(&none))
            });
            return groups;
        }
        let names = lift::names(&snapshot.spec, &snapshot.status);
        let find = |name: &String| self.groups.get(&ObjectRef::<GroupSpec>::new(name).within(namespace));
        names.iter().filter_map(find).collect()
    }

    /// Shows a group as a Lift sees it what its templates need.
    async fn complete_lifted(
        &self,
        mut lifted: Group,
        seen: &plan::Snapshot,
        snapshot: &LiftSnapshot,
    ) -> Option<(Result<Group, Vec<FieldError>>, Option<Timestamp>)> {
        let rest = self.use_roles(&mut lifted, snapshot.now)?;
        let (missing, wake) = self.read_references(&mut lifted, snapshot.now).await;
        let rest = earliest(rest, wake);
        if !missing.is_empty() {
            return Some((Err(missing), rest));
        }
        Some((Ok(begin::fitted(lifted, seen, &snapshot.spec)), rest))
    }

    /// Tells the sessions at work for a Lift the newest spec and how far they may go.
    fn direct_lift(&self, snapshot: &LiftSnapshot, plan: &LiftPlan) {
        for (name, view) in &snapshot.groups {
            let lifted = view.lifted.as_ref().ok().map(|lifted| Arc::new(lifted.clone()));
            let at_work = view.snapshot.nodes.values().filter(|node| {
                let session = view.snapshot.sessions.get(&node.name);
                session.is_some_and(|session| session.lift.as_ref() == Some(&snapshot.head.uid))
            });
            for node in at_work {
                let bound = plan.bounds.get(&(name.clone(), node.ordinal)).unwrap_or(&Bound::Hold);
                match &lifted {
                    Some(lifted) => self.sessions.direct(&node.uid, lifted, "", bound),
                    None => self.sessions.hold(&node.uid),
                }
            }
        }
    }

    async fn report_lift(
        &self,
        object: &Lift,
        snapshot: &LiftSnapshot,
        plan: &LiftPlan,
        version: Option<String>,
    ) -> Result<Written, Error> {
        if object.status.as_ref() == Some(&plan.status) {
            return Ok(Written::Yes);
        }
        if let Some(rest) = self.lift_written_later(snapshot, plan) {
            return Ok(Written::Later(snapshot.now + jiff::SignedDuration::try_from(rest).unwrap_or_default()));
        }
        let key = &snapshot.head.key;
        let lifts: Api<Lift> = Api::namespaced(self.client.clone(), &key.namespace);
        let status = report::merge_diff(&report::to_json(&object.status), &report::to_json(&plan.status));
        let patch = json!({"metadata": {"uid": snapshot.head.uid, "resourceVersion": version}, "status": status});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        match within("patch lift status", lifts.patch_status(&key.name, &parameters, &patch)).await {
            Ok(_) => Ok(Written::Yes),
            Err(error) if error.is_conflict() => Ok(Written::Conflict),
            Err(error) if error.is_gone() => Ok(Written::Conflict),
            Err(error) => Err(error),
        }
    }

    /// How long a write is put off that only moves counts.
    fn lift_written_later(&self, snapshot: &LiftSnapshot, plan: &LiftPlan) -> Option<Duration> {
        let begins = plan.effects.iter().any(|effect| matches!(effect, Effect::Start { .. }));
        let urgent = begins || essence(&plan.status.conditions) != essence(&snapshot.status.conditions);
        self.lifts.known().entry(snapshot.head.key.clone()).or_default().pace.write(urgent, self.clock.instant())
    }

    /// One event where the reason of Complete changed.
    async fn tell_lift(&self, object: &Lift, snapshot: &LiftSnapshot, plan: &LiftPlan) {
        let complete = |status: &LiftStatus| status.conditions.iter().find(|c| c.type_ == "Complete").cloned();
        let Some(now) = complete(&plan.status) else { return };
        if complete(&snapshot.status).is_some_and(|before| before.reason == now.reason) {
            return;
        }
        if plan.status.completion_time.is_some() {
            let complete = plan.status.conditions.iter().any(|c| c.type_ == "Complete" && c.status == "True");
            self.telemetry.metrics.lift_ended(if complete { "complete" } else { "failed" });
        }
        let failed = plan
            .status
            .conditions
            .iter()
            .any(|c| matches!(c.type_.as_str(), "Failed" | "Stalled") && c.status == "True");
        let kind = if failed { EventType::Warning } else { EventType::Normal };
        info!(reason = now.reason, message = now.message, "condition changed");
        let action = format!("Lift-{}", now.reason);
        tell(&self.recorder, &object.object_ref(&()), kind, &now.reason, &action, now.message).await;
    }

    async fn carry_out(&self, object: &Lift, snapshot: &LiftSnapshot, plan: &LiftPlan) -> Result<(), Error> {
        for effect in &plan.effects {
            debug!(?effect);
            match effect {
                // It was done before the status was written.
                Effect::Finalize => {}
                Effect::Release => {
                    self.finalize_lift(object, false).await?;
                }
                Effect::Delete => self.delete_lift(snapshot).await?,
                Effect::Start { target, run } => self.start_lift(snapshot, target, run),
                Effect::End { target: (group, ordinal), why } => {
                    let view = snapshot.groups.get(group);
                    if let Some(node) = view.and_then(|view| view.snapshot.nodes.get(ordinal)) {
                        self.sessions.end(&node.uid, why);
                    }
                }
            }
        }
        Ok(())
    }

    /// Puts the finalizer on a Lift or takes it off, keeping whatever others stand there.
    async fn finalize_lift(&self, object: &Lift, on: bool) -> Result<Option<Lift>, Error> {
        let key = key(object);
        let lifts: Api<Lift> = Api::namespaced(self.client.clone(), &key.namespace);
        let current = match on {
            true => Some(object.clone()),
            // Its status was just written.
            false => within("get lift", lifts.get_opt(&key.name)).await?,
        };
        let Some(current) = current.filter(|current| current.metadata.uid == object.metadata.uid) else {
            return Ok(None);
        };
        let patch = Patch::Merge(finalizers_patch(&current.metadata, on));
        tolerate_gone(within("patch lift", lifts.patch(&key.name, &PatchParams::default(), &patch)).await)
    }

    async fn delete_lift(&self, snapshot: &LiftSnapshot) -> Result<(), Error> {
        let key = &snapshot.head.key;
        let lifts: Api<Lift> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = Some(snapshot.head.uid.clone());
        let parameters = DeleteParams::default().preconditions(Preconditions { uid, ..Preconditions::default() });
        tolerate_gone(within("delete lift", lifts.delete(&key.name, &parameters)).await).map(|_| ())
    }

    fn start_lift(&self, snapshot: &LiftSnapshot, (group, ordinal): &Target, run: &LiftRun) {
        let Some(view) = snapshot.groups.get(group) else { return };
        let (Ok(lifted), Some(node)) = (&view.lifted, view.snapshot.nodes.get(ordinal)) else { return };
        let identity = lift::identity(node, view.snapshot.machine(node));
        let start = Start::on(&view.snapshot, node, lifted, identity, Purpose::Lift(run.clone()));
        if let Some(start) = start {
            self.sessions.start(start);
        }
    }
}

/// Whether a status is written.
enum Written {
    Yes,
    /// Somebody has changed the Lift meanwhile.
    Conflict,
    /// Not before this time: only counts have moved.
    Later(Timestamp),
}
