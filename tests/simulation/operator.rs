//! The operator as the simulation runs it: real snapshots, plans, sessions and statuses; only the calls are fakes. They
//! do what `controller::apply` and `controller::report` do, with an answer that may be lost and a crash between any two.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;
use pallet_api::{self as api, GroupNode, GroupNodeFields, GroupSpec, group_node::NodeHost};
use pallet_core::observe::Event;
use pallet_core::{
    group::{
        resolve::{Memo, ServerSpecs},
        revision,
    },
    node,
    observe::{Beyond, Index, complete, snapshot},
    plan::{
        Bound, Effect, LOOK_AGAIN, Notice, Plan, SessionView, Snapshot, TemplateVerdict, earliest, plan, revisions,
        status,
    },
    session::memory::Memory,
};

use crate::{
    cluster::Refusal,
    lifts::Lifts,
    world::{GROUP, Link, NAMESPACE, World},
};

/// All that an operator has in memory.
#[derive(Default)]
pub struct Operator {
    pub group: Option<Arc<GroupSpec>>,
    pub index: Index,
    pub beyond: Beyond,
    resolved: RefCell<Memo>,
    /// The ServerSpecs that it has heard of.
    pub specs: ServerSpecs,
    pub lifts: Lifts,
    pub memories: HashMap<String, Memory>,
    pub links: HashMap<String, Link>,
    pub commands: u64,
    pub writes: u64,
    /// Which watches are its own.
    pub seat: usize,
    pub nonces: u64,
    pub listed: bool,
    /// A list that is under way has shown the group.
    relisted: bool,
    /// The group is to be looked at: an event, or a session, said so.
    pub woken: bool,
    /// The group is to be looked at then, though nothing happens.
    pub wake: Option<Timestamp>,
    /// A call of the present pass had no answer.
    failed: bool,
    /// Since when it is not known whether a node was made.
    uncertain_since: Option<Timestamp>,
}

/// The operator died in the middle of something.
pub struct Crashed;

impl Operator {
    pub fn new(seat: usize) -> Self {
        Self { seat, beyond: Beyond { session_limit: 64, ..Beyond::default() }, ..Self::default() }
    }

    pub fn take_group(&mut self, event: Event<GroupSpec>) {
        self.woken = true;
        match event {
            Event::Apply(group) => self.group = Some(Arc::new(group)),
            Event::InitApply(group) => (self.group, self.relisted) = (Some(Arc::new(group)), true),
            Event::Delete(_) => self.group = None,
            // What a list does not show is gone when it is complete, and not before.
            Event::Init => self.relisted = false,
            Event::InitDone => {
                self.listed = true;
                self.group.take_if(|_| !self.relisted);
            }
        }
    }

    /// The group as it was seen or written last.
    pub fn newest(&self) -> Option<Arc<GroupSpec>> {
        Some(self.beyond.newest(self.group.clone()?))
    }

    pub fn forget(&mut self, uid: &str) {
        self.links.remove(uid);
        self.memories.remove(uid);
    }
}

impl World {
    /// A new operator: it knows nothing but what it lists.
    pub fn start_operator(&mut self) {
        let (writes, seat) = (self.operator.writes, self.operator.seat);
        self.operator = Operator { writes, specs: self.specs.clone(), ..Operator::new(seat) };
        self.cluster.revisions.values().for_each(|revision| drop(self.operator.index.upsert(revision)));
        self.cluster.relist(seat);
    }

    /// The leader freezes, and another one takes over.
    pub fn freeze(&mut self) {
        self.count("leaders frozen");
        self.tell(|| "the operator freezes, and another one takes over".into());
        let seat = 1 - self.operator.seat;
        let mut next = Operator { specs: self.specs.clone(), ..Operator::new(seat) };
        self.cluster.revisions.values().for_each(|revision| drop(next.index.upsert(revision)));
        self.frozen = Some(std::mem::replace(&mut self.operator, next));
        self.cluster.relist(seat);
    }

    /// The frozen one thaws for a moment, and goes on as if it still led; or it notices, and is gone.
    pub fn thaw(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        if self.calm || self.random.chance(10) {
            self.tell(|| "the operator that was frozen sees that it leads no more".into());
            self.cluster.relist(frozen.seat);
            return;
        }
        let leader = std::mem::replace(&mut self.operator, frozen);
        self.count("steps of a former leader");
        self.tell(|| "the operator that was frozen does something".into());
        self.former = true;
        match self.random.below(4) {
            0 => self.deliver(),
            1 => {
                self.operator.woken = true;
                self.pass();
            }
            _ => self.hear(),
        }
        self.former = false;
        let former = std::mem::replace(&mut self.operator, leader);
        // Where it has crashed meanwhile it stands for election like any other.
        self.frozen = Some(former);
    }

    pub fn crash(&mut self, when: &str) {
        self.count("crashes");
        self.tell(|| format!("the operator is killed {when}"));
        self.start_operator();
    }

    pub fn observe(&self) -> Option<Snapshot> {
        let operator = &self.operator;
        let object = operator.newest().filter(|_| operator.listed && operator.index.synced())?;
        let object = &*object;
        let seen = |uid: &str| {
            let session = operator.links.get(uid).map(|link| SessionView {
                instance: link.instance.clone(),
                since: link.since,
                running: link.session.running(),
                kind: link.session.kind(),
                lift: link.lift.clone(),
            });
            let memory = operator.memories.get(uid);
            memory.map_or_else(|| Memory::default().seen(session.clone()), |memory| memory.seen(session.clone()))
        };
        let group = operator.resolved.borrow_mut().resolve(object, &operator.specs);
        let mut snapshot = snapshot(object, group, &operator.index, &operator.beyond, seen, self.now);
        node::host::show(&mut snapshot);
        complete(&mut snapshot);
        Some(snapshot)
    }

    /// One pass: observe, plan, direct, apply, report.
    /// Only where something asks for it: a wake that is lost must show.
    pub fn pass(&mut self) {
        if !self.operator.woken && self.operator.wake.is_none_or(|time| time > self.now) {
            return;
        }
        let Some(mut snapshot) = self.observe() else {
            // As in `controller`: what happens to a group that is gone is told to the Lifts.
            if self.operator.listed && self.operator.group.is_none() {
                (self.operator.woken, self.operator.wake, self.operator.lifts.woken) = (false, None, true);
            }
            return;
        };
        (self.operator.woken, self.operator.wake, self.operator.failed) = (false, None, false);
        if let Some(cascade) = snapshot.head.deletion {
            self.operator.beyond.cascade = Some((snapshot.head.uid.clone(), cascade));
        }
        if self.operator.uncertain_since.is_some_and(|since| since + LOOK_AGAIN <= self.now) {
            self.operator.uncertain_since = None;
            self.operator.beyond.uncertain.clear();
        }
        if let Some(group) = self.operator.newest() {
            self.operator.beyond.see_list(&group);
        }
        let mut planned = plan(&snapshot);
        if self.plans_twice() {
            self.check_memo(&snapshot, &planned);
        }
        if let Ok(group) = &snapshot.group {
            let group = Arc::new(group.clone());
            for node in snapshot.live() {
                let link = self.operator.links.get_mut(&node.uid);
                if let Some(link) = link.filter(|link| link.lift.is_none()) {
                    let bound = planned.bounds.get(&node.ordinal).unwrap_or(&Bound::Hold);
                    link.session.direct(group.clone(), node.retry_token.clone(), bound.clone());
                }
            }
        }
        self.check_plan(&snapshot, &planned);
        self.operator.wake = planned.wake;
        let done = self.list(&snapshot, &mut planned).and_then(|()| self.apply(&snapshot, &planned));
        if done.and_then(|()| self.report(&mut snapshot, &planned)).is_err() {
            // It is another operator by now.
            return;
        }
        self.keep_revisions(&snapshot);
        // They stand on what this pass has seen and written.
        self.operator.lifts.woken = true;
        if self.operator.failed {
            let again = self.now + SignedDuration::from_millis(500);
            self.operator.wake = earliest(self.operator.wake, Some(again));
        }
    }

    /// What was rendered before makes no difference to a plan.
    fn check_memo(&self, snapshot: &Snapshot, planned: &Plan) {
        let mut anew = snapshot.clone();
        for group in anew.group.iter_mut().chain(&mut anew.last_good) {
            group.memo = Arc::default();
        }
        assert_eq!(*planned, plan(&anew), "a plan does not depend on what was planned before");
    }

    pub fn may_crash(&mut self, when: &str) -> Result<(), Crashed> {
        if !self.calm && self.random.chance(1) {
            self.crash(when);
            return Err(Crashed);
        }
        Ok(())
    }

    fn apply(&mut self, snapshot: &Snapshot, planned: &Plan) -> Result<(), Crashed> {
        for effect in &planned.effects {
            self.tell(|| format!("effect {effect:?}"));
            self.effect(snapshot, planned, effect);
            self.may_crash("between two effects")?;
        }
        Ok(())
    }

    /// A write whose answer may be lost, before or after it was done.
    pub fn answered<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Option<Result<T, Refusal>> {
        if !self.calm && self.random.chance(3) {
            self.count("answers lost");
            self.operator.failed = true;
            if self.random.chance(50) {
                let _ = call(self);
            }
            return None;
        }
        Some(call(self))
    }

    /// As the controller does it after each pass.
    fn keep_revisions(&mut self, snapshot: &Snapshot) {
        if self.former {
            return;
        }
        let due = revisions::due(snapshot);
        if let (Some(number), Ok(group)) = (due.keep, &snapshot.group) {
            let Some(object) = &self.operator.group else { return };
            let declaration = revision::declaration(object, &self.operator.specs);
            assert_eq!(revision::digest(&declaration, group.node.hash()), group.declared);
            let name = format!("{GROUP}-revision-{}-{number}", group.uid);
            let revision: ControllerRevision = serde_json::from_value(serde_json::json!({
                "metadata": {
                    "name": name, "namespace": NAMESPACE, "uid": name, "resourceVersion": number.to_string(),
                    "labels": {(api::GROUP_LABEL): GROUP},
                    "annotations": {
                        (api::DECLARATION_ANNOTATION): group.declared.to_string(),
                        (api::TEMPLATE_HASH_ANNOTATION): group.node.hash()
                    },
                    "ownerReferences": [{
                        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "name": GROUP, "uid": group.uid, "controller": true
                    }]
                },
                "revision": number, "data": declaration
            }))
            .unwrap();
            self.operator.index.upsert(&revision);
            self.cluster.revisions.insert(name, revision);
            self.count("revisions kept");
            assert!(self.cluster.revisions.len() <= revisions::MOST + 2, "revisions are bounded");
        }
        for (name, _) in due.drop {
            if let Some(revision) = self.cluster.revisions.remove(&name) {
                self.operator.index.apply(&Event::Delete(revision));
            }
        }
    }

    fn effect(&mut self, snapshot: &Snapshot, planned: &Plan, effect: &Effect) {
        // Whether it still leads it asks its own clock before each of them.
        if self.former {
            return;
        }
        let silent = |effect: &Effect| {
            matches!(
                effect,
                Effect::StartSession { .. } | Effect::EndSession { .. } | Effect::CheckTemplate | Effect::Tell { .. }
            )
        };
        if !silent(effect) {
            self.operator.writes += 1;
        }
        match effect {
            Effect::ReleaseGroup if self.own_nodes().next().is_some() => {
                let left: Vec<GroupNode> = self.own_nodes().cloned().collect();
                self.count("groups held by a node that nobody knew");
                left.iter().for_each(|node| drop(self.operator.index.upsert(node)));
            }
            Effect::Finalize | Effect::ReleaseGroup => {
                let on = *effect == Effect::Finalize;
                let uid = snapshot.head.uid.clone();
                self.answered(|world| {
                    let (groups, counter) = (&mut world.cluster.groups, &mut world.cluster.counter);
                    groups.update(counter, GROUP, Some(&uid), None, |group| {
                        group.metadata.finalizers = on.then(|| vec![api::FINALIZER.to_owned()]);
                    })
                });
            }
            Effect::DeclareCount { count } => {
                let (uid, count) = (snapshot.head.uid.clone(), *count);
                assert!(self.counts.contains(&count), "1: nobody has ever asked for {count}");
                self.answered(|world| {
                    let (groups, counter) = (&mut world.cluster.groups, &mut world.cluster.counter);
                    let there = groups.objects.get(GROUP).is_some_and(|group| group.spec.count.is_none());
                    if !there {
                        return Err(Refusal::Conflict);
                    }
                    groups.update(counter, GROUP, Some(&uid), None, |group| {
                        group.spec.count = Some(count);
                        group.metadata.generation = group.metadata.generation.map(|generation| generation + 1);
                    })
                });
            }
            Effect::CheckTemplate => {
                let hash = snapshot.group.as_ref().unwrap().node.checked_as().to_owned();
                self.operator.beyond.template = Some((hash, TemplateVerdict::Accepted));
            }
            Effect::CreateNode { ordinal } => self.create_node(snapshot, planned, *ordinal, None),
            Effect::TakeHost { ordinal, host } => {
                let place = format!("{}:{}", host.address, host.port);
                if !self.calm && self.random.chance(5) {
                    // Somebody else has just done so, and no watch has told of it yet.
                    self.take_for_another(&host.address);
                }
                if !self.operator.index.is_occupied(NAMESPACE, &snapshot.head.uid, &place) {
                    self.create_node(snapshot, planned, *ordinal, Some(host.clone()));
                }
            }
            Effect::CreateMachine { ordinal } => {
                let node = &snapshot.nodes[ordinal];
                self.create_machine(snapshot, planned, *ordinal, &node.uid.clone());
            }
            Effect::DeleteNode { ordinal, uid, .. } => {
                self.count("nodes removed");
                let name = snapshot.head.key.node_name(*ordinal);
                let now = self.now;
                let answer = self.answered(|world| {
                    let (nodes, counter) = (&mut world.cluster.nodes, &mut world.cluster.counter);
                    nodes.delete(counter, &name, uid, false, now)
                });
                if answer.is_some()
                    && let Some(node) = self.cluster.nodes.objects.get(&name)
                {
                    self.operator.index.upsert(node);
                }
            }
            Effect::DeleteMachine { name, uid, .. } => {
                self.check_ours(snapshot, name, uid);
                let now = self.now;
                let answer = self.answered(|world| {
                    let (pods, counter) = (&mut world.cluster.pods, &mut world.cluster.counter);
                    pods.delete(counter, name, uid, true, now)
                });
                if answer.is_some()
                    && let Some(pod) = self.cluster.pods.objects.get(name)
                {
                    self.operator.index.upsert(pod);
                }
            }
            Effect::ReleaseStray { .. } => unreachable!("there is no former group here"),
            Effect::RestoreNode { .. } => unreachable!("nobody edits GroupNodes here"),
            Effect::ReleaseNode { ordinal } => {
                let node = snapshot.nodes[ordinal].clone();
                self.answered(|world| {
                    let (nodes, counter) = (&mut world.cluster.nodes, &mut world.cluster.counter);
                    nodes.update(counter, &node.name, Some(&node.uid), None, |node| node.metadata.finalizers = None)
                });
            }
            Effect::OpenGate { name, uid } | Effect::CloseGate { name, uid } => {
                let open = matches!(effect, Effect::OpenGate { .. });
                if !open {
                    self.count("gates closed");
                }
                let answer = self.answered(|world| {
                    let (pods, counter) = (&mut world.cluster.pods, &mut world.cluster.counter);
                    pods.update(counter, name, Some(uid), None, |pod| {
                        let status = pod.status.get_or_insert_default();
                        let mut conditions = status.conditions.clone().unwrap_or_default();
                        conditions.retain(|c| c.type_ != api::CONVERGED_GATE);
                        conditions.push(k8s_openapi::api::core::v1::PodCondition {
                            type_: api::CONVERGED_GATE.into(),
                            status: if open { "True" } else { "False" }.into(),
                            ..Default::default()
                        });
                        status.conditions = Some(conditions);
                    })
                });
                if let Some(Ok(pod)) = answer {
                    self.operator.index.upsert(&pod);
                }
            }
            Effect::StartSession { ordinal, purpose, .. } => self.open(snapshot, *ordinal, purpose.clone()),
            Effect::Tell { what: Notice::DestroySkipped { .. }, .. } => self.count("farewells skipped"),
            Effect::CreateClaims { ordinal } => self.create_claims(snapshot, &snapshot.head.key.node_name(*ordinal)),
            // Nobody restores a backup here.
            Effect::TakeOverNode { ordinal, .. } => panic!("6: node {ordinal} is another group's"),
            // No claim is declared larger than it is here.
            Effect::ExpandClaim { name, .. } => panic!("9: claim {name} would be expanded"),
            Effect::DeleteClaim { name, uid, node } => {
                if self.cluster.nodes.objects.contains_key(node) {
                    panic!("7: claim {name} would be deleted under its node");
                }
                self.count("claims deleted");
                let now = self.now;
                self.answered(|world| {
                    let (claims, counter) = (&mut world.cluster.claims, &mut world.cluster.counter);
                    claims.delete(counter, name, uid, false, now)
                });
            }
            Effect::EndSession { name, why } => {
                let uid = snapshot.nodes.values().find(|node| node.name == *name).map(|node| node.uid.clone());
                if let Some(uid) = uid.filter(|uid| self.operator.links.contains_key(uid)) {
                    self.cut(&uid, why);
                }
            }
        }
    }

    /// The GroupNodes of the group.
    fn own_nodes(&self) -> impl Iterator<Item = &GroupNode> {
        self.cluster.nodes.objects.values().filter(|node| node.spec.group == GROUP)
    }

    fn create_node(&mut self, snapshot: &Snapshot, planned: &Plan, ordinal: u32, host: Option<NodeHost>) {
        let group = snapshot.group.as_ref().unwrap();
        let name = group.key.node_name(ordinal);
        let (of, group_uid) = (group.key.name.clone(), group.uid.clone());
        let fields = GroupNodeFields { group: of, group_uid, taken_over_from: None, ordinal, host };
        let mut object = GroupNode::new(&name, fields);
        object.metadata.namespace = Some(NAMESPACE.into());
        object.metadata.finalizers = Some(vec![api::FINALIZER.to_owned()]);
        object.metadata.labels = Some([(api::GROUP_LABEL.to_owned(), group.key.name.clone())].into());
        let now = self.now;
        let answer = self.answered(|world| {
            let created = world.cluster.nodes.create(&mut world.cluster.counter, object, now);
            if created.is_ok() {
                world.check_creation(snapshot);
            }
            created
        });
        match answer {
            None => {
                self.operator.beyond.uncertain.insert(ordinal);
                self.operator.uncertain_since.get_or_insert(self.now);
            }
            Some(Ok(created)) => {
                self.operator.beyond.uncertain.remove(&ordinal);
                self.operator.index.upsert(&created);
                if !self.uses.hosts() {
                    self.create_machine(snapshot, planned, ordinal, &created.metadata.uid.clone().unwrap());
                }
            }
            Some(Err(_)) => {
                self.operator.beyond.uncertain.remove(&ordinal);
                if let Some(found) = self.cluster.nodes.objects.get(&name) {
                    self.operator.index.upsert(found);
                }
            }
        }
    }

    fn create_claims(&mut self, snapshot: &Snapshot, node: &str) {
        let group = snapshot.group.as_ref().unwrap();
        for claim in group.node.claims() {
            if snapshot.claims.contains_key(&claim.claim_name(node)) {
                continue;
            }
            let object = serde_json::from_value(node::pod::build_claim(group, claim, node)).unwrap();
            let now = self.now;
            let answer = self.answered(|world| world.cluster.claims.create(&mut world.cluster.counter, object, now));
            let found = match answer {
                Some(Ok(created)) => Some(created),
                Some(Err(_)) => self.cluster.claims.objects.get(&claim.claim_name(node)).cloned(),
                None => None,
            };
            found.iter().for_each(|claim| drop(self.operator.index.upsert(claim)));
        }
    }

    fn create_machine(&mut self, snapshot: &Snapshot, planned: &Plan, ordinal: u32, node_uid: &str) {
        let name = &snapshot.head.key.node_name(ordinal);
        self.create_claims(snapshot, name);
        if self.operator.failed {
            return;
        }
        let group = snapshot.group.as_ref().unwrap();
        let other = planned.templates.get(&ordinal);
        if other.is_some() {
            self.count("machines from a former template");
        }
        let shape = other.map_or(&group.node, |hash| &*snapshot.templates[hash]);
        let pod = serde_json::from_value(node::pod::build(group, shape.pod().unwrap(), name, Some(node_uid))).unwrap();
        let now = self.now;
        match self.answered(|world| world.cluster.pods.create(&mut world.cluster.counter, pod, now)) {
            Some(Ok(pod)) => {
                self.operator.index.upsert(&pod);
            }
            Some(Err(_)) => {
                if let Some(found) = self.cluster.pods.objects.get(name) {
                    self.operator.index.upsert(found);
                }
            }
            None => {}
        }
    }

    fn report(&mut self, snapshot: &mut Snapshot, planned: &Plan) -> Result<(), Crashed> {
        let starting: Vec<u32> = planned.effects.iter().filter_map(Effect::starts).collect();
        let live: Vec<u32> = snapshot.live().map(|node| node.ordinal).collect();
        let ordinals = live.into_iter().chain(planned.farewells.keys().copied());
        for ordinal in ordinals.filter(|ordinal| !starting.contains(ordinal)) {
            let node = &*snapshot.nodes[&ordinal].clone();
            let step = planned.steps.get(&node.ordinal).or_else(|| planned.farewells.get(&node.ordinal));
            let wanted = match status::node(snapshot, node, step) {
                status::Due::Now(wanted) => wanted,
                status::Due::At(time) => {
                    self.operator.wake = earliest(self.operator.wake, Some(time));
                    continue;
                }
                status::Due::No => continue,
            };
            self.may_crash("before a phase result is written")?;
            let record = node.record.clone();
            self.check_status(&wanted);
            self.operator.writes += 1;
            let answer = self.answered(|world| {
                let (nodes, counter) = (&mut world.cluster.nodes, &mut world.cluster.counter);
                nodes.update(counter, &node.name, Some(&node.uid), Some(&node.version), |node| {
                    node.status = Some(*wanted)
                })
            });
            if let Some(Ok(written)) = answer {
                Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap()).saved = None;
                self.operator.index.upsert(&written);
                let idle = !self.operator.links.contains_key(&node.uid);
                if let Some(memory) = self.operator.memories.get_mut(&node.uid).filter(|_| idle) {
                    memory.saved(&record);
                }
            }
            self.may_crash("after a phase result is written")?;
        }
        self.report_group(snapshot, planned);
        Ok(())
    }

    /// Sessions on nodes that the group's status does not list start when it is written.
    fn list(&mut self, snapshot: &Snapshot, planned: &mut Plan) -> Result<(), Crashed> {
        if planned.unlisted.is_empty() {
            return Ok(());
        }
        self.may_crash("before nodes are listed")?;
        if !self.report_group(snapshot, planned) {
            self.count("sessions held back");
            planned.hold_unlisted();
        }
        self.may_crash("after nodes were listed")
    }

    /// Says whether the status of the group is known to be written.
    fn report_group(&mut self, snapshot: &Snapshot, planned: &Plan) -> bool {
        let wanted = status::group(snapshot, &planned.steps);
        self.check_group_status(&wanted);
        let Some(object) = self.operator.newest() else { return false };
        if object.status.as_ref() == Some(&wanted) {
            return true;
        }
        let version = object.metadata.resource_version.clone();
        let uid = snapshot.head.uid.clone();
        self.operator.writes += 1;
        let answer = self.answered(|world| {
            let (groups, counter) = (&mut world.cluster.groups, &mut world.cluster.counter);
            groups.update(counter, GROUP, Some(&uid), version.as_deref(), |group| group.status = Some(wanted))
        });
        match answer {
            Some(Ok(written)) => {
                self.operator.beyond.written = Some(Arc::new(written));
                self.operator.beyond.doubted = None;
                true
            }
            Some(Err(_)) | None => {
                self.operator.beyond.doubted = object.metadata.resource_version.clone();
                false
            }
        }
    }
}
