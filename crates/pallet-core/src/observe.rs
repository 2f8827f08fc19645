//! The caches, and snapshots of them. A synchronous index by group, fed by watches and by the answers to our own writes.
//!
//! Guarantees: an object never goes back to an older version; an object that was seen to go does not come back by a late
//! answer. Only what the plan needs is kept of an object.

mod kinds;
mod lists;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    group::{Cascade, FieldError, Group, GroupKey, Kind, NodeShape, Retention, resolve, revision::Revision},
    node::virtual_machine,
    phase::Digest,
    plan::{
        Claim, Heal, Intervals, Machine, MachineState, Node, Snapshot, TemplateVerdict, Trouble,
        approval::{self, Leave},
        claims,
        hosts::{self, Occupant},
        refusals::Refusals,
        scale,
    },
    session::memory::Seen,
};
use pallet_api::reason::Reason;
use pallet_api::{self as api, GroupSpec};

/// An event of a watch. A list begins with [`Event::Init`] and ends with [`Event::InitDone`].
#[derive(Clone, Debug)]
pub enum Event<O> {
    /// The object was created or changed.
    Apply(O),
    /// The object was deleted.
    Delete(O),
    /// A list begins.
    Init,
    /// The list has the object.
    InitApply(O),
    /// The list is complete: what it did not have is gone.
    InitDone,
}

/// What of an object the index keeps, and under which group.
pub trait Indexed: Sized {
    /// What is kept.
    type Kept;
    /// The object's metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// The group that it says it belongs to.
    fn group(&self) -> Option<GroupKey>;
    /// What the plan needs of it.
    fn keep(&self) -> Self::Kept;
    /// Where it is kept.
    fn shelf(index: &mut Index) -> &mut Shelf<Self::Kept>;
}

/// A GroupNode as the index keeps it.
#[derive(Debug)]
pub struct KeptNode {
    /// The group that it belongs to by UID.
    pub group_uid: String,
    /// The node.
    pub node: Arc<Node>,
}

impl Beyond {
    /// Forgets what was learnt of names at which the caches show what is there.
    pub fn forget_shown(&mut self, snapshot: &Snapshot) {
        self.foreign_machines.retain(|name| snapshot.machines.get(name).is_none_or(|machine| machine.uid.is_empty()));
        self.foreign_claims.retain(|name, _| snapshot.claims.get(name).is_none_or(|claim| claim.uid.is_empty()));
    }

    /// Takes in how a group is deleted, from the first version of it that shows the deletion. A pass may come later, when
    /// the collector is done and has taken its mark off.
    pub fn see_deletion(&mut self, object: &GroupSpec) {
        let head = resolve::head(object);
        let known = self.cascade.as_ref().is_some_and(|(uid, _)| *uid == head.uid);
        if let (false, Some(cascade)) = (known, head.deletion) {
            self.cascade = Some((head.uid, cascade));
        }
    }
}

/// The objects of one kind.
#[derive(Debug)]
pub struct Shelf<T> {
    groups: HashMap<GroupKey, BTreeMap<String, Slot<T>>>,
    /// The group under which each object is kept, by its UID: an edit may move it.
    keys: HashMap<String, GroupKey>,
    /// What a relist has shown so far: uids. Whatever it does not show is gone.
    relisted: Option<HashSet<String>>,
    /// Whether a list has been complete once.
    listed: bool,
    /// UIDs and versions of objects that went lately, oldest first: a late answer must not bring them back. An object that
    /// lost its label seems to go, and comes back under a newer version.
    gone: (HashMap<String, String>, VecDeque<String>),
}

#[derive(Debug)]
struct Slot<T> {
    uid: String,
    version: String,
    kept: T,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { groups: HashMap::new(), keys: HashMap::new(), relisted: None, listed: false, gone: Default::default() }
    }
}

/// How many departures are remembered. An answer is late by seconds at the most.
const GONE_LIMIT: usize = 8192;

impl<T> Shelf<T> {
    fn bury(&mut self, uid: String, version: String) {
        let (versions, order) = &mut self.gone;
        if versions.insert(uid.clone(), version).is_none() {
            order.push_back(uid);
        }
        if order.len() > GONE_LIMIT
            && let Some(oldest) = order.pop_front()
        {
            versions.remove(&oldest);
        }
    }

    /// Takes an object out. Says under which group it was.
    fn take(&mut self, uid: &str, name: &str) -> Option<GroupKey> {
        let key = self.keys.remove(uid)?;
        if let Some(slots) = self.groups.get_mut(&key) {
            if slots.get(name).is_some_and(|slot| slot.uid == uid) {
                slots.remove(name);
            }
            if slots.is_empty() {
                self.groups.remove(&key);
            }
        }
        Some(key)
    }

    /// The version under which an object is known.
    fn version(&self, uid: &str, name: &str) -> Option<&str> {
        let slot = self.groups.get(self.keys.get(uid)?)?.get(name)?;
        (slot.uid == uid).then_some(slot.version.as_str())
    }
}

/// All that is watched, by group.
#[derive(Debug, Default)]
pub struct Index {
    nodes: Shelf<KeptNode>,
    pods: Shelf<Arc<Machine>>,
    virtual_machines: Shelf<virtual_machine::Declared>,
    instances: Shelf<virtual_machine::Instance>,
    claims: Shelf<Arc<Claim>>,
    revisions: Shelf<Arc<Revision>>,
    /// Where the machines of nodes are that are hosts, by the UIDs of the nodes; nothing where an inventory has none for one.
    reached: HashMap<String, Option<String>>,
    /// Through which jump host they are reached, likewise.
    via: HashMap<String, Option<String>>,
}

/// What an event did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The groups to look at.
    pub groups: BTreeSet<GroupKey>,
    /// The UIDs of the objects that are gone.
    pub gone: Vec<String>,
}

impl Index {
    /// Whether every kind was listed: before, what is not here may be there all the same.
    pub fn synced(&self) -> bool {
        self.nodes.listed && self.pods.listed && self.claims.listed
    }

    /// How many GroupNodes there are.
    pub fn count_nodes(&self) -> usize {
        self.nodes.groups.values().map(BTreeMap::len).sum()
    }

    /// Takes an event of a watch in.
    pub fn apply<O: Indexed>(&mut self, event: &Event<O>) -> Touched {
        let mut touched = Touched::default();
        match event {
            Event::Init => O::shelf(self).relisted = Some(HashSet::new()),
            Event::InitApply(object) | Event::Apply(object) => {
                let shelf = O::shelf(self);
                if let (Event::InitApply(_), Some(seen), Some(uid)) =
                    (event, &mut shelf.relisted, &object.metadata().uid)
                {
                    seen.insert(uid.clone());
                }
                touched.groups.extend(self.place(object));
            }
            Event::Delete(object) => touched = self.remove(object),
            Event::InitDone => {
                let shelf = O::shelf(self);
                shelf.listed = true;
                let seen = shelf.relisted.take().unwrap_or_default();
                let keys = &mut shelf.keys;
                for (key, slots) in &mut shelf.groups {
                    slots.retain(|_, slot| {
                        let stays = seen.contains(&slot.uid);
                        if !stays {
                            keys.remove(&slot.uid);
                            touched.groups.insert(key.clone());
                            touched.gone.push(slot.uid.clone());
                        }
                        stays
                    });
                }
                shelf.groups.retain(|_, slots| !slots.is_empty());
            }
        }
        for uid in &touched.gone {
            self.reached.remove(uid);
            self.via.remove(uid);
        }
        touched
    }

    /// Takes an object in, from a watch or as the answer to a write. Returns the group where this changed anything.
    pub fn upsert<O: Indexed>(&mut self, object: &O) -> Option<GroupKey> {
        self.place(object).into_iter().next()
    }

    /// The group where an object is now, and the one where it was, where an edit has moved it.
    fn place<O: Indexed>(&mut self, object: &O) -> Vec<GroupKey> {
        let metadata = object.metadata();
        let (Some(key), Some(name), Some(uid)) = (object.group(), metadata.name.clone(), metadata.uid.clone()) else {
            return Vec::new();
        };
        let version = metadata.resource_version.clone().unwrap_or_default();
        let shelf = O::shelf(self);
        if shelf.gone.0.get(&uid).is_some_and(|gone| !is_newer(&version, gone)) {
            return Vec::new();
        }
        // While a list is on its way, what we have just made may be younger than it.
        if let Some(seen) = &mut shelf.relisted {
            seen.insert(uid.clone());
        }
        let known = shelf.groups.get(&key).and_then(|slots| slots.get(&name)).map(|slot| slot.version.as_str());
        if known.or_else(|| shelf.version(&uid, &name)).is_some_and(|known| is_at_least(known, &version)) {
            return Vec::new();
        }
        shelf.gone.0.remove(&uid);
        let mut keys = vec![key.clone()];
        if shelf.keys.get(&uid).is_some_and(|former| *former != key) {
            keys.extend(shelf.take(&uid, &name));
        }
        let slot = Slot { uid: uid.clone(), version, kept: object.keep() };
        if let Some(former) = shelf.groups.entry(key.clone()).or_default().insert(name, slot)
            && former.uid != uid
        {
            shelf.keys.remove(&former.uid);
        }
        shelf.keys.insert(uid, key);
        keys
    }

    fn remove<O: Indexed>(&mut self, object: &O) -> Touched {
        let metadata = object.metadata();
        let (Some(key), Some(name), Some(uid)) = (object.group(), &metadata.name, &metadata.uid) else {
            return Touched::default();
        };
        let shelf = O::shelf(self);
        shelf.bury(uid.clone(), metadata.resource_version.clone().unwrap_or_default());
        let former = shelf.take(uid, name);
        Touched { groups: former.into_iter().chain([key]).collect(), gone: vec![uid.clone()] }
    }

    /// The GroupNodes that name this group, and the UID of the group that each belongs to.
    pub fn nodes(&self, key: &GroupKey) -> Vec<(String, Arc<Node>)> {
        let slots = self.nodes.groups.get(key).into_iter().flat_map(BTreeMap::values);
        slots.map(|slot| (slot.kept.group_uid.clone(), slot.kept.node.clone())).collect()
    }

    /// The pods that say they belong to this group.
    pub fn pods(&self, key: &GroupKey) -> BTreeMap<String, Arc<Machine>> {
        let slots = self.pods.groups.get(key).into_iter().flatten();
        slots.map(|(name, slot)| (name.clone(), slot.kept.clone())).collect()
    }

    /// There are none any more, and nobody would tell: what defines them is gone.
    pub fn forget_virtual_machines(&mut self) {
        (self.virtual_machines, self.instances) = Default::default();
    }

    /// Whether virtual machines and their instances were listed.
    pub fn knows_virtual_machines(&self) -> bool {
        self.virtual_machines.listed && self.instances.listed
    }

    /// The virtual machines that say they belong to this group, with their instances.
    pub fn virtual_machines(&self, key: &GroupKey) -> BTreeMap<String, Arc<Machine>> {
        let slots = self.virtual_machines.groups.get(key).into_iter().flatten();
        let instances = self.instances.groups.get(key);
        let observe = |(name, slot): (&String, &Slot<virtual_machine::Declared>)| {
            let instance = instances.and_then(|instances| instances.get(name)).map(|slot| &slot.kept);
            (name.clone(), Arc::new(virtual_machine::observe(&slot.kept, instance)))
        };
        slots.map(observe).collect()
    }

    /// The machines of a namespace that are nodes of groups other than the one with this UID, by their place. Where two have the
    /// same, it is the one with the better right.
    pub fn occupied(&self, namespace: &str, uid: &str) -> BTreeMap<String, Occupant> {
        let mut occupied = BTreeMap::new();
        let all = self.occupants(namespace, uid);
        all.for_each(|(place, occupant)| hosts::seat(&mut occupied, place, occupant));
        occupied
    }

    /// Takes in where the machines of nodes are by the inventory of their group, before their status says so.
    pub fn reach(&mut self, places: impl IntoIterator<Item = (String, Option<String>)>) {
        self.reached.extend(places);
    }

    /// Takes in through which jump host the nodes of a group are reached.
    pub fn reach_via(&mut self, nodes: impl IntoIterator<Item = String>, via: Option<&str>) {
        self.via.extend(nodes.into_iter().map(|uid| (uid, via.map(str::to_owned))));
    }

    /// The machines on which nodes of other namespaces have been at work, by their place, where they are reached through this
    /// jump host or it is not known through which. Naming an address takes no machine from another namespace: only a node that
    /// the operator has logged in on does. A message names the namespace and nothing of what is in it.
    pub fn occupied_elsewhere(&self, namespace: &str, via: Option<&str>) -> Vec<(String, Occupant)> {
        let groups = self.nodes.groups.iter().filter(|(key, _)| key.namespace != namespace);
        let nodes = groups.flat_map(|(key, slots)| slots.values().map(move |slot| (key, &slot.kept)));
        let worked = nodes.filter(|(_, kept)| {
            let node = &kept.node;
            let via_same = self.via.get(&node.uid).is_none_or(|other| other.as_deref() == via);
            node.host.is_some() && node.written().incarnation.is_some() && via_same
        });
        let occupant = |(key, kept): (&GroupKey, &KeptNode)| {
            let there = match self.reached.get(&kept.node.uid) {
                Some(there) => there.clone(),
                None => hosts::told_place(&kept.node),
            }?;
            let mut occupant = Occupant::new(&kept.node, &there, &key.name);
            occupant.who = format!("a node of a group in namespace {}", key.namespace);
            (occupant.right.claim == hosts::Claim::Works).then_some((there, occupant))
        };
        worked.filter_map(occupant).collect()
    }

    /// Whether a machine is a node of another group than the one with this UID.
    pub fn is_occupied(&self, namespace: &str, uid: &str, place: &str) -> bool {
        self.occupants(namespace, uid).any(|(other, _)| other == place)
    }

    fn occupants(&self, namespace: &str, uid: &str) -> impl Iterator<Item = (String, Occupant)> {
        let groups = self.nodes.groups.iter().filter(move |(key, _)| key.namespace == namespace);
        let others = groups.flat_map(|(key, slots)| slots.values().map(move |slot| (key, &slot.kept)));
        others.filter(move |(_, kept)| kept.group_uid != uid).filter_map(|(key, kept)| {
            let there = match self.reached.get(&kept.node.uid) {
                Some(there) => there.clone(),
                None => hosts::told_place(&kept.node),
            }?;
            let occupant = Occupant::new(&kept.node, &there, &key.name);
            Some((there, occupant))
        })
    }

    /// Whether revisions were listed.
    pub fn knows_revisions(&self) -> bool {
        self.revisions.listed
    }

    /// The revisions of the group with this UID, oldest first.
    pub fn revisions(&self, key: &GroupKey, uid: &str) -> Vec<Arc<Revision>> {
        let slots = self.revisions.groups.get(key).into_iter().flat_map(BTreeMap::values);
        let ours = |slot: &&Slot<Arc<Revision>>| slot.kept.controller.as_deref() == Some(uid);
        let mut revisions: Vec<Arc<Revision>> = slots.filter(ours).map(|slot| slot.kept.clone()).collect();
        revisions.sort_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        revisions
    }

    /// The claims that say they belong to this group.
    pub fn claims(&self, key: &GroupKey) -> BTreeMap<String, Arc<Claim>> {
        let slots = self.claims.groups.get(key).into_iter().flatten();
        slots.map(|(name, slot)| (name.clone(), slot.kept.clone())).collect()
    }

    /// The claims that pods of other groups of the namespace mount.
    pub fn mounted_by_others(&self, key: &GroupKey) -> BTreeSet<String> {
        let others = self.pods.groups.iter().filter(|(other, _)| other.namespace == key.namespace && *other != key);
        let pods = others.flat_map(|(_, slots)| slots.values());
        pods.flat_map(|slot| slot.kept.claims.iter().flatten().cloned()).collect()
    }

    /// Every group that any object names.
    pub fn groups(&self) -> BTreeSet<GroupKey> {
        let machines = self.pods.groups.keys().chain(self.virtual_machines.groups.keys());
        self.nodes.groups.keys().chain(machines).cloned().collect()
    }
}

/// Whether one resource version is as new as another. They are numbers on every API server there is, and may be compared
/// since Kubernetes 1.35; where they are not, the later word counts.
pub(super) fn is_at_least(version: &str, other: &str) -> bool {
    matches!((version.parse::<u64>(), other.parse::<u64>()), (Ok(version), Ok(other)) if version >= other)
}

/// Whether one resource version is known to be newer than another.
fn is_newer(version: &str, other: &str) -> bool {
    matches!((version.parse::<u64>(), other.parse::<u64>()), (Ok(version), Ok(other)) if version > other)
}

/// What the controller knows of a group beyond the caches.
#[derive(Debug, Default)]
pub struct Beyond {
    /// What the API server thinks of a template, by its hash.
    pub template: Option<(String, TemplateVerdict)>,
    /// Names at which a create met an object of somebody else, with its description.
    pub foreign_machines: BTreeSet<String>,
    /// The same for volume claims, with whose each is and what to do.
    pub foreign_claims: BTreeMap<String, String>,
    /// Expansions of claims that were refused.
    pub expansions: BTreeMap<String, claims::Refusal>,
    /// The same for GroupNodes.
    pub foreign_nodes: BTreeMap<u32, String>,
    /// Ordinals whose creation had no clear answer.
    pub uncertain: BTreeSet<u32>,
    /// What became of the nodes when the group's deletion was first seen. The collector takes its mark off when it is done.
    /// With the UID of that group: another one of its name may follow.
    pub cascade: Option<(String, Cascade)>,
    /// What the API server has refused.
    pub refusals: Refusals,
    /// How often in a row what backed a node has ended for good, by the node's name.
    pub losses: BTreeMap<String, u32>,
    /// What stands above is old enough to be tried again.
    pub recheck: bool,
    /// How many sessions one group may have open at once.
    pub session_limit: u32,
    /// The declaration of which no revision could be kept.
    pub unkept: Option<Digest>,
    /// The nodes that `status.unconverged` listed when this operator first read it, with the UID of that group: those that a
    /// former operator may have changed without storing the result.
    pub listed: Option<(String, Intervals)>,
    /// The group as the API server has answered with it, as long as no watch has shown that.
    pub written: Option<Arc<GroupSpec>>,
    /// The resource version of the group of which a write of the status had no answer.
    pub doubted: Option<String>,
}

/// Puts together all that the plan of a group depends on.
pub fn snapshot(
    object: &GroupSpec,
    group: Result<Group, Vec<FieldError>>,
    index: &Index,
    beyond: &Beyond,
    seen: impl Fn(&str) -> Seen,
    now: Timestamp,
) -> Snapshot {
    let mut head = resolve::head(object);
    if let Ok(group) = &group {
        // What was parsed may be newer than what the status says.
        head.count = group.count;
    }
    let hosts = group.as_ref().is_ok_and(|group| group.node.kind() == Kind::Host);
    let template = match (&beyond.template, &group) {
        // There is nothing to be made from one.
        (_, Ok(group)) if group.node.kind() == Kind::Host => TemplateVerdict::Accepted,
        (Some((hash, verdict)), Ok(group)) if *hash == group.node.checked_as() => verdict.clone(),
        _ => TemplateVerdict::Unchecked,
    };
    let mut snapshot = Snapshot {
        now,
        template,
        status: object.status.clone().unwrap_or_default(),
        list_in_doubt: beyond.doubted.is_some() && beyond.doubted == object.metadata.resource_version,
        nodes: BTreeMap::new(),
        former: BTreeMap::new(),
        foreign_nodes: beyond.foreign_nodes.clone(),
        uncertain: beyond.uncertain.clone(),
        unread: BTreeSet::new(),
        strays: Vec::new(),
        recheck: beyond.recheck,
        refusals: beyond.refusals.clone(),
        losses: beyond.losses.clone(),
        session_limit: beyond.session_limit,
        machines: match group.as_ref().map(|group| group.node.kind()) {
            Ok(Kind::Pod) => index.pods(&head.key),
            Ok(Kind::VirtualMachine) => index.virtual_machines(&head.key),
            // Hosts are shown when their inventory is known.
            Ok(Kind::Host) => BTreeMap::new(),
            Err(_) => index.pods(&head.key).into_iter().chain(index.virtual_machines(&head.key)).collect(),
        },
        occupied: BTreeMap::new(),
        claims: index.claims(&head.key),
        expansions: beyond.expansions.clone(),
        sessions: BTreeMap::new(),
        troubles: BTreeMap::new(),
        leave: Leave::default(),
        last_good: None,
        heal: Heal::No,
        revisions: index.revisions(&head.key, &head.uid),
        recorded: BTreeSet::new(),
        templates: BTreeMap::new(),
        unkept: beyond.unkept.clone(),
        group,
        head,
    };
    for name in &beyond.foreign_machines {
        snapshot.machines.entry(name.clone()).or_insert_with(|| Arc::new(stranger(name)));
    }
    if !snapshot.claims.is_empty() && may_delete_claims(&snapshot) {
        for name in index.mounted_by_others(&snapshot.head.key) {
            if let Some(claim) = snapshot.claims.get_mut(&name) {
                Arc::make_mut(claim).is_shared = true;
            }
        }
    }
    for (name, conflict) in &beyond.foreign_claims {
        let claim = Claim { name: name.clone(), conflict: Some(conflict.clone()), ..Claim::default() };
        snapshot.claims.entry(name.clone()).or_insert_with(|| Arc::new(claim));
    }
    let listed = beyond.listed(object);
    for (group_uid, mut node) in index.nodes(&snapshot.head.key) {
        if group_uid != snapshot.head.uid {
            if node.deletion.is_some() && node.finalized {
                snapshot.strays.push((node.name.clone(), node.uid.clone()));
            } else if node.deletion.is_none() && node.name == snapshot.head.key.node_name(node.ordinal) {
                snapshot.former.insert(node.ordinal, node.uid.clone());
            }
            snapshot.foreign_nodes.insert(node.ordinal, format!("GroupNode {} of another group", node.name));
            continue;
        }
        let Seen { session, unsaved, trouble, read } = seen(&node.uid);
        if !read && listed.contain(node.ordinal) {
            snapshot.unread.insert(node.ordinal);
        }
        if let Some(record) = unsaved.filter(|record| *record != node.record) {
            let node = Arc::make_mut(&mut node);
            node.saved = Some(std::mem::replace(&mut node.record, record));
        }
        snapshot.sessions.extend(session.map(|session| (node.name.clone(), session)));
        snapshot.troubles.extend(trouble.map(|trouble: Trouble| (node.name.clone(), trouble)));
        snapshot.nodes.insert(node.ordinal, node);
    }
    if hosts || snapshot.nodes.values().any(|node| node.host.is_some()) {
        snapshot.occupied = index.occupied(&snapshot.head.key.namespace, &snapshot.head.uid);
    }
    // What is there is certain.
    let there: BTreeSet<u32> = snapshot.nodes.keys().copied().collect();
    snapshot.uncertain.retain(|ordinal| !there.contains(ordinal));
    recognise(&mut snapshot);
    if snapshot.head.deletion.is_some() {
        let seen = beyond.cascade.as_ref().filter(|(uid, _)| *uid == snapshot.head.uid).map(|(_, cascade)| *cascade);
        snapshot.head.deletion = seen.or_else(|| Some(cascade(object, &snapshot)));
    }
    snapshot
}

/// Whether claims may be deleted in this reconcile.
fn may_delete_claims(snapshot: &Snapshot) -> bool {
    let retention = snapshot.group.as_ref().map(|group| group.node.retention()).unwrap_or_default();
    snapshot.head.deletion.is_some() || retention.when_scaled == Retention::Delete
}

/// Names templates by the hash that they have now, whatever hash was recorded: those of the same meaning have the same. The
/// templates other than the one in force are kept beside.
pub fn recognise(snapshot: &mut Snapshot) {
    let mut recorded: BTreeSet<String> = std::mem::take(&mut snapshot.recorded);
    let machines = snapshot.machines.values().map(|machine| &machine.template_hash);
    for hash in machines.chain(snapshot.nodes.values().map(|node| &node.template_hash)) {
        if !hash.is_empty() && !recorded.contains(hash) {
            recorded.insert(hash.clone());
        }
    }
    let (mut names, mut templates): (BTreeMap<&str, String>, BTreeMap<String, Arc<NodeShape>>) = Default::default();
    let in_force = snapshot.for_removal().map(|group| &group.node);
    for recorded in &recorded {
        if let Some(shape) = in_force.filter(|shape| shape.is_made_as(recorded)) {
            names.insert(recorded, shape.hash().to_owned());
            continue;
        }
        let known = snapshot.revisions.iter().rev().filter(|revision| revision.explains(recorded));
        if let Some(shape) = known.filter_map(|revision| revision.shape.as_ref()).next() {
            names.insert(recorded, shape.hash().to_owned());
            templates.insert(shape.hash().to_owned(), shape.clone());
        }
    }
    if let Some(shape) = snapshot.revisions.last().and_then(|revision| revision.shape.as_ref()) {
        templates.insert(shape.hash().to_owned(), shape.clone());
    }
    snapshot.templates = templates;
    for machine in snapshot.machines.values_mut() {
        if let Some(name) = names.get(machine.template_hash.as_str()).filter(|name| **name != machine.template_hash) {
            Arc::make_mut(machine).template_hash = name.clone();
        }
    }
    for node in snapshot.nodes.values_mut() {
        if let Some(name) = names.get(node.template_hash.as_str()).filter(|name| **name != node.template_hash) {
            Arc::make_mut(node).template_hash = name.clone();
        }
    }
    snapshot.recorded = recorded;
}

/// Completes a snapshot when all that the templates see is known: what has no leave is taken back, and the node is chosen for
/// what runs on one node only.
pub fn complete(snapshot: &mut Snapshot) {
    choose(snapshot);
    approval::gate(snapshot);
    choose(snapshot);
}

fn choose(snapshot: &mut Snapshot) {
    let all: BTreeSet<u32> = snapshot.nodes.keys().copied().collect();
    let live: BTreeSet<u32> = snapshot.live().map(|node| node.ordinal).collect();
    if let Some(group) = snapshot.group.as_mut().ok().or(snapshot.last_good.as_mut()) {
        // Where all go, the first of them.
        group.chosen = scale::chosen(&live, group.count).or(all.first().copied());
    }
}

/// What becomes of the nodes of a group that is being deleted.
///
/// While the collector is at work its finalizer tells. Afterwards a pod that has lost its group and kept its node may have
/// been orphaned or be the remainder of a foreground deletion: then it is let go, since what is deleted cannot be had back.
fn cascade(object: &GroupSpec, snapshot: &Snapshot) -> Cascade {
    let finalizers = object.metadata.finalizers.as_deref().unwrap_or_default();
    if finalizers.iter().any(|finalizer| finalizer == api::ORPHAN_FINALIZER) {
        return Cascade::Orphan;
    }
    if finalizers.iter().any(|finalizer| finalizer == "foregroundDeletion") {
        return Cascade::Nodes;
    }
    let let_go = |node: &Node| {
        snapshot
            .machines
            .get(&node.name)
            .is_some_and(|pod| pod.controller.is_none() && pod.node.as_ref() == Some(&node.uid))
    };
    if snapshot.live().any(let_go) { Cascade::Orphan } else { Cascade::Nodes }
}

/// Something of which only its name is known, and that it is not the group's.
fn stranger(name: &str) -> Machine {
    Machine {
        name: name.to_owned(),
        uid: String::new(),
        controller: None,
        node: None,
        deleting: false,
        ends: None,
        marked: false,
        kind: Kind::default(),
        target: None,
        attributes: Arc::default(),
        claims: None,
        state: MachineState::Waiting { reason: Reason::NameConflict.into(), message: String::new() },
        address: None,
        ready: false,
        gate_open: false,
        gated: false,
        template_hash: String::new(),
        created: Timestamp::default(),
        life: None,
        ended: None,
        unready: None,
        going: None,
    }
}

#[cfg(test)]
mod tests;
