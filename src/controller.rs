//! Converge, step by step: observe (IO), plan (pure), apply (IO), report (IO, of what a pure function says).

pub mod apply;
pub mod dispatch;
pub mod error;
mod inputs;
mod kubevirt;
mod lift;
mod lists;
mod pace;
mod parse;
mod queue;
pub mod reconcile;
pub mod references;
pub mod relist;
pub mod report;
mod revisions;
mod roles;
mod specs;
pub mod state;
mod strays;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, channel::mpsc, stream};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{PersistentVolumeClaim, Pod as KubePod},
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, reflector, watcher},
};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::{
    ports::{Sessions, SystemClock},
    run::{
        Limits, Runs,
        tasks::{Spawner, Tasks},
    },
    telemetry::Telemetry,
    transport::Transport,
};
use dispatch::Workers;
pub use error::Error;
use pallet_api::{self as api, GroupNode, GroupSpec, Lift, ServerSpec};
use pallet_client::answer;
use pallet_core::{group::GroupKey, observe::Indexed};
pub use reconcile::Converger;
use reconcile::{Caches, Ports, reference};
use references::{Polls, References};
use relist::Relist;
pub use state::State;

/// How long sessions may take to be gone: they only have to notice.
const SESSIONS_END: Duration = Duration::from_secs(2);

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
    let references = Arc::new(References::new(
        client.clone(),
        settings.own_namespace.clone(),
        settings.polls,
        Arc::new(SystemClock),
    ));
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
        let metrics = self.telemetry.metrics.clone();
        let (vault, own) = (self.references.clone(), tasks.clone());
        let runs = Runs::new(transport, vault, limits.clone(), own, metrics, move |key| {
            let _ = wake.unbounded_send(key.clone());
        });
        let sessions: Arc<dyn Sessions> = Arc::new(runs);
        let state = self.state.clone();
        let (groups, writer) = reflector::store::<GroupSpec>();
        let (lifts, lift_writer) = reflector::store::<Lift>();
        let ports = Ports {
            client: self.client.clone(),
            clock: Arc::new(SystemClock),
            sessions: sessions.clone(),
            references: self.references.clone(),
            observer: None,
        };
        let (own_state, states) = (state.clone(), self.states.clone());
        let caches = Caches { state: own_state, states, groups: groups.clone(), lifts: lifts.clone() };
        let (converger, asked_for) = Converger::new(ports, caches, &limits, self.telemetry.clone());
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
        let nodes = indexed(&state, &sessions, self.watch::<GroupNode>(None));
        let pods = indexed(&state, &sessions, self.watch::<KubePod>(Some(api::GROUP_LABEL)));
        let claims = indexed(&state, &sessions, self.watch::<PersistentVolumeClaim>(Some(api::GROUP_LABEL)));
        let revisions = indexed(&state, &sessions, self.watch::<ControllerRevision>(Some(api::GROUP_LABEL)));
        let specified = state.clone();
        let specs = self.watch::<ServerSpec>(None).map(move |event| match event {
            Ok(event) => specified.see_specs(event),
            Err(error) => broken::<ServerSpec>(&error),
        });
        let virtual_machines = self.virtual_machines(&state, &sessions, groups.clone());
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
                waking.went(key);
            }
            std::future::ready(here)
        });
        let workers = |workers: usize| Workers::fair(workers, self.namespace.is_some(), tasks.clone());
        let waiting = Some(self.telemetry.metrics.queued_groups());
        let reconciles = Workers { waiting, ..workers(self.reconciles.into()) };
        let reconciles = reconciles.run(asked, |key| converger.clone().turn(key));
        let watched = reflector::reflector(lift_writer, self.watch::<Lift>(None));
        let lifts = lift::reconciles(&converger, lifts, watched, asked_for.lifts, workers(lift::WORKERS));
        let strays = converger.release_strays(asked_for.strays, workers(strays::WORKERS));
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

/// Keeps the index up to date, and tells which groups to look at.
fn indexed<O: Indexed + 'static, S: Stream<Item = watcher::Result<watcher::Event<O>>>>(
    state: &Arc<State>,
    sessions: &Arc<dyn Sessions>,
    events: S,
) -> impl Stream<Item = Vec<GroupKey>> + use<O, S> {
    let (state, sessions) = (state.clone(), sessions.clone());
    events.map(move |event| match event {
        Err(error) => broken::<O>(&error),
        Ok(event) => state.see(event, &*sessions),
    })
}
