//! What the controller keeps between passes: the caches, and what is known of a group that no cache shows.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use parking_lot::{Mutex, MutexGuard};

use super::{pace::Pace, roles::Roles, specs::Specs};
use crate::ports::{Clock, Sessions, SystemClock};
use pallet_api::reason::Reason;
use pallet_api::{GroupSpec, ServerSpec};
use pallet_core::{
    group::{
        Group, GroupKey, Host,
        inputs::Inputs,
        resolve::{self, Memo, Resolved, ServerSpecs, Source},
    },
    observe::{self, Beyond, Index, Indexed},
    phase::Digest,
    plan::{self, Plan, Refusal, Snapshot, Step, Subject, TemplateVerdict, claims},
};

/// The caches, and what is known beyond them.
pub struct State {
    clock: Arc<dyn Clock>,
    index: Mutex<Index>,
    specs: Mutex<Specs>,
    roles: Mutex<Roles>,
    beyond: Mutex<HashMap<GroupKey, Known>>,
    /// Machines that are being made nodes, by namespace and place.
    reserved: Mutex<HashSet<(String, String)>>,
    kubevirt: Mutex<Presence>,
}

/// Whether KubeVirt can be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Presence {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It is not installed.
    Absent,
    /// It is installed, and the operator lacks this right.
    Forbidden {
        /// Such as `watch`.
        verb: &'static str,
        /// The API group, empty for the core one.
        group: &'static str,
        /// In the plural.
        resource: &'static str,
    },
    /// It is installed, and the operator has the rights for it.
    Present,
}

/// A machine that is being made a node. It is free again, or a node in the caches, when this is dropped.
pub struct Reserved<'a> {
    state: &'a State,
    place: (String, String),
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.state.reserved().remove(&self.place);
    }
}

/// What is known of a group that no cache shows.
#[derive(Default)]
pub(super) struct Known {
    pub(super) beyond: Beyond,
    pub(super) resolved: Memo,
    /// When what stands in `beyond` was learnt: names become free again, and quotas grow.
    learnt: Option<Instant>,
    pub(super) pace: Pace,
    /// How many nodes it had in the last pass.
    pub(super) nodes: usize,
    /// Its inventory, as it was read last.
    pub(super) inventory: Option<Inventory>,
    /// What it read last of Secrets and ConfigMaps.
    pub(super) inputs: Option<Arc<Inputs>>,
    /// The UID of its newest revision, and what that declares, where it was needed.
    pub(super) restored: Option<(String, Resolved)>,
}

/// An inventory that stands in a ConfigMap.
#[derive(Clone)]
pub(super) struct Inventory {
    /// As it is written.
    pub(super) text: Arc<str>,
    /// All hosts that it lists.
    pub(super) hosts: Arc<[Host]>,
}

impl Default for State {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl State {
    /// Nothing is known yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            index: Mutex::default(),
            specs: Mutex::default(),
            roles: Mutex::default(),
            beyond: Mutex::default(),
            reserved: Mutex::default(),
            kubevirt: Mutex::default(),
        }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }

    /// Whether every kind was listed.
    pub(super) fn synced(&self) -> bool {
        let index = self.index();
        index.synced() && index.knows_revisions() && self.all_specs().listed()
    }

    fn all_specs(&self) -> MutexGuard<'_, Specs> {
        self.specs.lock()
    }

    /// Whether KubeVirt can be used.
    pub(super) fn kubevirt(&self) -> Presence {
        *self.kubevirt.lock()
    }

    /// Takes in whether KubeVirt can be used. Says whether that is news.
    pub(super) fn see_kubevirt(&self, presence: Presence) -> bool {
        let mut known = self.kubevirt.lock();
        std::mem::replace(&mut *known, presence) != presence
    }

    /// The ServerSpecs of a namespace.
    pub(super) fn specs(&self, namespace: &str) -> Arc<ServerSpecs> {
        self.all_specs().of(namespace)
    }

    /// What was said of a group when it was parsed from just this.
    pub(super) fn parsed(&self, key: &GroupKey, source: &Source) -> Option<Resolved> {
        self.known().get(key).and_then(|known| known.resolved.known(source))
    }

    /// Keeps what was said of a group that was parsed.
    pub(super) fn keep_parsed(&self, key: &GroupKey, source: Source, parsed: Resolved) {
        self.known().entry(key.clone()).or_default().resolved.keep(source, parsed);
    }

    /// The spec of this group as it could be read last.
    pub(super) fn last_good(&self, key: &GroupKey, object: &GroupSpec) -> Option<Arc<Group>> {
        self.known().get(key).and_then(|known| known.resolved.good(object).cloned())
    }

    /// Takes in what a watch says of objects in the index, and tells which groups to reconcile. Sessions on nodes that are gone are
    /// forgotten.
    pub fn see<O: Indexed>(&self, event: Event<O>, sessions: &dyn Sessions) -> Vec<GroupKey> {
        let touched = self.index().apply(&change(event));
        touched.gone.iter().for_each(|uid| sessions.forget(uid));
        touched.groups.into_iter().collect()
    }

    /// Takes in what a watch says of ServerSpecs, and tells which groups use them.
    pub fn see_specs(&self, event: Event<ServerSpec>) -> Vec<GroupKey> {
        let changed = self.all_specs().apply(event);
        if changed.is_empty() {
            return Vec::new();
        }
        let uses = |key: &GroupKey, known: &Known| {
            known.resolved.uses().any(|name| changed.contains(&(key.namespace.clone(), name.to_owned())))
        };
        self.known().iter().filter(|(key, known)| uses(key, known)).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashMap<GroupKey, Known>> {
        self.beyond.lock()
    }

    pub(super) fn roles(&self) -> MutexGuard<'_, Roles> {
        self.roles.lock()
    }

    /// The groups of a namespace whose templates name nodes of one of these roles.
    pub(super) fn users(&self, namespace: &str, roles: &[String]) -> Vec<GroupKey> {
        if roles.is_empty() {
            return Vec::new();
        }
        let uses = |known: &Known| {
            known.resolved.last().is_some_and(|group| group.phases.roles.iter().any(|role| roles.contains(role)))
        };
        let known = self.known();
        let users = known.iter().filter(|(key, known)| key.namespace == namespace && uses(known));
        users.map(|(key, _)| key.clone()).collect()
    }

    /// Whether every group of a namespace has been parsed since the operator began.
    pub(super) fn looked_at_all(&self, namespace: &str, groups: impl Fn() -> Vec<GroupKey>) -> bool {
        let unseen = || {
            let (groups, known) = (groups(), self.known());
            groups.iter().any(|key| known.get(key).is_none_or(|known| !known.resolved.is_set()))
        };
        self.roles().complete(namespace, unseen)
    }

    /// Takes the answer to a write in, so that the next pass sees what this one did.
    pub fn learn<O: Indexed>(&self, object: &O) {
        self.index().upsert(object);
    }

    fn remember(&self, key: &GroupKey, change: impl FnOnce(&mut Beyond)) {
        let mut known = self.known();
        let known = known.entry(key.clone()).or_default();
        known.learnt.get_or_insert_with(|| self.clock.instant());
        change(&mut known.beyond);
    }

    /// The API server has refused a request. Returns the refusal as it stands now, where it is told with other words than before.
    pub fn remember_refusal(
        &self,
        key: &GroupKey,
        subject: Subject,
        said: (Reason, String),
        (generation, now): (i64, Timestamp),
    ) -> Option<Refusal> {
        let mut known = self.known();
        let refusals = &mut known.entry(key.clone()).or_default().beyond.refusals;
        let before = refusals.remove(&subject);
        let refusal = Refusal::after(before.as_ref(), said, generation, now);
        refusals.insert(subject, refusal.clone());
        before.is_none_or(|before| before.message != refusal.message).then_some(refusal)
    }

    /// The API server has done what was asked for.
    pub fn forget_refusal(&self, key: &GroupKey, subject: &Subject) {
        if let Some(known) = self.known().get_mut(key) {
            known.beyond.refusals.remove(subject);
        }
    }

    /// Forgets refusals of what nobody asks for any more, and losses of nodes that have settled since or are gone.
    pub(super) fn prune_refusals(&self, snapshot: &Snapshot, plan: &Plan) {
        if let Some(known) = self.known().get_mut(&snapshot.head.key) {
            plan::refusals::prune(&mut known.beyond.refusals, plan, &snapshot.nodes);
            let lasting = |step: Option<&Step>| !matches!(step, None | Some(Step::Settled));
            let of = |name: &str| snapshot.nodes.values().find(|node| node.name == name);
            known.beyond.losses.retain(|name, _| of(name).is_some_and(|node| lasting(plan.steps.get(&node.ordinal))));
        }
    }

    /// What backed a node has ended for good, and is being deleted.
    pub fn remember_loss(&self, key: &GroupKey, node: &str) {
        let mut known = self.known();
        let losses = &mut known.entry(key.clone()).or_default().beyond.losses;
        let count = losses.entry(node.to_owned()).or_default();
        *count = count.saturating_add(1);
    }

    /// What the API server thinks of a template.
    pub fn remember_template(&self, key: &GroupKey, hash: &str, verdict: TemplateVerdict) {
        self.remember(key, |beyond| beyond.template = Some((hash.to_owned(), verdict)));
    }

    /// No revision of a declaration could be kept.
    pub(super) fn remember_unkept(&self, key: &GroupKey, declared: &Digest) {
        self.remember(key, |beyond| beyond.unkept = Some(declared.clone()));
    }

    /// Somebody else's pod stands at a name that the group needs.
    pub fn remember_foreign_machine(&self, key: &GroupKey, name: &str) {
        self.remember(key, |beyond| {
            beyond.foreign_machines.insert(name.to_owned());
        });
    }

    /// Somebody else's claim stands at a name that a node needs. Says whose, and what to do.
    pub fn remember_foreign_claim(&self, key: &GroupKey, name: &str, conflict: String) {
        self.remember(key, |beyond| {
            beyond.foreign_claims.insert(name.to_owned(), conflict);
        });
    }

    /// The name of a claim is free, or the group's own again.
    pub fn forget_foreign_claim(&self, key: &GroupKey, name: &str) {
        if let Some(known) = self.known().get_mut(key) {
            known.beyond.foreign_claims.remove(name);
        }
    }

    /// The API server's answer to an expansion: a refusal, or nothing where it was taken.
    pub fn remember_expansion(&self, key: &GroupKey, name: &str, refusal: Option<claims::Refusal>) {
        let mut known = self.known();
        let expansions = &mut known.entry(key.clone()).or_default().beyond.expansions;
        match refusal {
            Some(refusal) => drop(expansions.insert(name.to_owned(), refusal)),
            None => drop(expansions.remove(name)),
        }
    }

    /// The name is free, or the group's own again.
    pub fn forget_foreign_machine(&self, key: &GroupKey, name: &str) {
        if let Some(known) = self.known().get_mut(key) {
            known.beyond.foreign_machines.remove(name);
        }
    }

    /// Another group's GroupNode stands at a name that the group needs.
    pub fn remember_foreign_node(&self, key: &GroupKey, ordinal: u32, whose: String) {
        self.remember(key, |beyond| {
            beyond.foreign_nodes.insert(ordinal, whose);
        });
    }

    /// Has a machine for a group that is about to make it a node; nothing where it is another's. Two groups may want the same
    /// at once, and neither shows in the caches yet.
    pub fn reserve_host(&self, namespace: &str, group_uid: &str, place: String) -> Option<Reserved<'_>> {
        let mut reserved = self.reserved();
        let taken = self.index().is_occupied(namespace, group_uid, &place);
        let place = (namespace.to_owned(), place);
        if taken || !reserved.insert(place.clone()) {
            return None;
        }
        Some(Reserved { state: self, place })
    }

    fn reserved(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.reserved.lock()
    }

    /// Whether a node may have been created, though nobody said so.
    pub fn remember_uncertain(&self, key: &GroupKey, ordinal: u32, uncertain: bool) {
        if uncertain {
            self.remember(key, |beyond| {
                beyond.uncertain.insert(ordinal);
            });
        } else if let Some(known) = self.known().get_mut(key) {
            known.beyond.uncertain.remove(&ordinal);
        }
    }

    /// Takes in how a group is deleted, as soon as it is seen.
    pub fn see_deletion(&self, object: &GroupSpec) {
        if object.metadata.deletion_timestamp.is_some() {
            self.known().entry(resolve::key(object)).or_default().beyond.see_deletion(object);
        }
    }

    /// What was to be looked at anew has been.
    pub(super) fn rechecked(&self, key: &GroupKey) {
        if let Some(known) = self.known().get_mut(key) {
            known.beyond.recheck = false;
        }
    }

    /// Has what may have changed without our being told looked at anew.
    pub(super) fn freshen(&self, key: &GroupKey) {
        if let Some(known) = self.known().get_mut(key)
            && let verdict = known.beyond.template.as_ref().map(|(_, verdict)| verdict)
            && let after = verdict.map_or(plan::LOOK_AGAIN, TemplateVerdict::look_again).unsigned_abs()
            && known.learnt.is_some_and(|learnt| self.clock.instant().saturating_duration_since(learnt) >= after)
        {
            // What was learnt stands till there is a better answer, or the status would go to and fro.
            known.learnt = Some(self.clock.instant());
            known.beyond.recheck = true;
            known.beyond.foreign_nodes.clear();
            known.beyond.uncertain.clear();
            known.beyond.unkept = None;
        }
    }
}

/// An event of the client, as the index takes it in.
fn change<O>(event: Event<O>) -> observe::Event<O> {
    match event {
        Event::Apply(object) => observe::Event::Apply(object),
        Event::Delete(object) => observe::Event::Delete(object),
        Event::Init => observe::Event::Init,
        Event::InitApply(object) => observe::Event::InitApply(object),
        Event::InitDone => observe::Event::InitDone,
    }
}
