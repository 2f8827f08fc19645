//! The objects of the seven kinds that an operator watches, with resource versions, finalizers and preconditions, and watches that may lag.
//! Every operator has watches of its own.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, runtime::watcher::Event};
use pallet_api::{GroupNode, GroupSpec, Lift, ServerSpec};

/// Why a request was not done.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    NotFound,
    Conflict,
}

/// How many operators there may be at once.
pub const SEATS: usize = 2;

/// The objects of one kind, and what their watches have not delivered yet.
pub struct Store<O> {
    pub objects: BTreeMap<String, O>,
    pub pending: [VecDeque<Event<O>>; SEATS],
    pub writes: u64,
}

impl<O> Default for Store<O> {
    fn default() -> Self {
        // Whoever sits down there begins with a list.
        let list = || VecDeque::from([Event::Init]);
        Self { objects: BTreeMap::new(), pending: [list(), list()], writes: 0 }
    }
}

/// Counts versions and UIDs over all kinds, as etcd does.
#[derive(Default)]
pub struct Counter(u64);

impl Counter {
    pub fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

impl<O> Store<O>
where
    O: Resource<DynamicType = ()> + Clone,
{
    pub fn create(&mut self, counter: &mut Counter, mut object: O, now: Timestamp) -> Result<O, Refusal> {
        let name = object.meta().name.clone().expect("a name");
        if self.objects.contains_key(&name) {
            return Err(Refusal::Conflict);
        }
        let metadata = object.meta_mut();
        metadata.uid = Some(format!("uid-{}", counter.next()));
        metadata.creation_timestamp = Some(Time(now));
        metadata.generation = Some(1);
        self.put(counter, name, object.clone());
        Ok(self.objects[object.meta().name.as_ref().unwrap()].clone())
    }

    fn put(&mut self, counter: &mut Counter, name: String, mut object: O) {
        object.meta_mut().resource_version = Some(counter.next().to_string());
        self.writes += 1;
        self.publish(|| Event::Apply(object.clone()));
        self.objects.insert(name, object);
    }

    /// Changes an object, if it is still the one and still as it is meant.
    pub fn update(
        &mut self,
        counter: &mut Counter,
        name: &str,
        uid: Option<&str>,
        version: Option<&str>,
        change: impl FnOnce(&mut O),
    ) -> Result<O, Refusal> {
        let mut object = self.objects.get(name).cloned().ok_or(Refusal::NotFound)?;
        let metadata = object.meta();
        if uid.is_some() && metadata.uid.as_deref() != uid {
            return Err(Refusal::Conflict);
        }
        if version.is_some() && metadata.resource_version.as_deref() != version {
            return Err(Refusal::Conflict);
        }
        change(&mut object);
        self.put(counter, name.to_owned(), object);
        self.collect(counter, name);
        self.objects.get(name).cloned().ok_or(Refusal::NotFound)
    }

    /// Deletes an object: at once, or, where finalizers or a grace period hold it, by marking it.
    pub fn delete(
        &mut self,
        counter: &mut Counter,
        name: &str,
        uid: &str,
        grace: bool,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let object = self.objects.get(name).ok_or(Refusal::NotFound)?;
        if object.meta().uid.as_deref() != Some(uid) {
            return Err(Refusal::Conflict);
        }
        if object.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut object = object.clone();
        object.meta_mut().deletion_timestamp = Some(Time(now));
        self.put(counter, name.to_owned(), object);
        if !grace {
            self.collect(counter, name);
        }
        Ok(())
    }

    /// What is marked and held by nothing goes.
    fn collect(&mut self, counter: &mut Counter, name: &str) {
        let gone = self.objects.get(name).is_some_and(|object| {
            let metadata = object.meta();
            // A pod is held by its kubelet; it goes by `remove`.
            metadata.deletion_timestamp.is_some()
                && metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
                && O::kind(&()) != "Pod"
        });
        if gone {
            self.remove(counter, name);
        }
    }

    pub fn remove(&mut self, counter: &mut Counter, name: &str) {
        if let Some(mut object) = self.objects.remove(name) {
            object.meta_mut().resource_version = Some(counter.next().to_string());
            self.publish(|| Event::Delete(object.clone()));
        }
    }

    /// Who is about to list has no use for it: the list shows it.
    fn publish(&mut self, event: impl Fn() -> Event<O>) {
        let watching = self.pending.iter_mut().filter(|queue| !matches!(queue.front(), Some(Event::Init)));
        watching.for_each(|queue| queue.push_back(event()));
    }

    /// A watch that was dropped: what it had still to deliver is replaced by a list.
    pub fn relist(&mut self, seat: usize) {
        self.pending[seat].clear();
        self.pending[seat].push_back(Event::Init);
    }

    /// The next event of the watch. It says that it begins anew, and only then asks for the list.
    pub fn next_event(&mut self, seat: usize) -> Option<Event<O>> {
        let event = self.pending[seat].pop_front()?;
        if matches!(event, Event::Init) {
            self.pending[seat] = self.objects.values().cloned().map(Event::InitApply).collect();
            self.pending[seat].push_back(Event::InitDone);
        }
        Some(event)
    }
}

/// The kinds.
#[derive(Default)]
pub struct Cluster {
    pub counter: Counter,
    pub groups: Store<GroupSpec>,
    pub nodes: Store<GroupNode>,
    pub pods: Store<Pod>,
    pub claims: Store<PersistentVolumeClaim>,
    pub lifts: Store<Lift>,
    pub specs: Store<ServerSpec>,
    pub revisions: Store<ControllerRevision>,
}

impl Cluster {
    pub fn writes(&self) -> u64 {
        self.groups.writes
            + self.nodes.writes
            + self.pods.writes
            + self.claims.writes
            + self.lifts.writes
            + self.revisions.writes
    }

    /// Whether an operator has heard of everything.
    pub fn settled(&self, seat: usize) -> bool {
        self.groups.pending[seat].is_empty()
            && self.nodes.pending[seat].is_empty()
            && self.pods.pending[seat].is_empty()
            && self.claims.pending[seat].is_empty()
            && self.lifts.pending[seat].is_empty()
            && self.specs.pending[seat].is_empty()
            && self.revisions.pending[seat].is_empty()
    }

    /// The watches of an operator begin anew.
    pub fn relist(&mut self, seat: usize) {
        self.groups.relist(seat);
        self.nodes.relist(seat);
        self.pods.relist(seat);
        self.claims.relist(seat);
        self.lifts.relist(seat);
        self.specs.relist(seat);
        self.revisions.relist(seat);
    }
}
