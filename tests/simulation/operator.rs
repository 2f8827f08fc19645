//! The operator as the simulation runs it: real snapshots, plans, sessions and statuses; only the calls are fakes. They
//! do what `controller::apply` and `controller::report` do, with an answer that may be lost and a crash between any two.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use kube::runtime::watcher::Event;
use pallet_operator::{
    api::{self, GroupNode, GroupNodeFields, GroupSpec},
    controller::observe::{Beyond, Index, snapshot},
    group, node,
    plan::{Container, Effect, Plan, SessionView, Snapshot, TemplateVerdict, earliest, plan, progress, status},
    run::{
        frame::Frame,
        memory::Memory,
        session::{End, Session, Want},
    },
};

use crate::{
    cluster::Refusal,
    machine::{Request, Run},
    world::{GROUP, Link, NAMESPACE, World},
};

/// All that an operator has in memory.
#[derive(Default)]
pub struct Operator {
    pub group: Option<GroupSpec>,
    pub index: Index,
    pub beyond: Beyond,
    pub memories: HashMap<String, Memory>,
    pub links: HashMap<String, Link>,
    pub commands: u64,
    pub writes: u64,
    nonces: u64,
    listed: bool,
    /// The group is to be looked at: an event, or a session, said so.
    pub woken: bool,
    /// The group is to be looked at then, though nothing happens.
    pub wake: Option<Timestamp>,
    /// A call of the present pass had no answer.
    failed: bool,
}

/// The operator died in the middle of something.
pub struct Crashed;

impl Operator {
    pub fn take_group(&mut self, event: Event<GroupSpec>) {
        self.woken = true;
        match event {
            Event::Apply(group) | Event::InitApply(group) => self.group = Some(group),
            Event::Delete(_) => self.group = None,
            Event::Init => self.group = None,
            Event::InitDone => self.listed = true,
        }
    }

    pub fn forget(&mut self, uid: &str) {
        self.links.remove(uid);
        self.memories.remove(uid);
    }
}

impl World {
    /// A new operator: it knows nothing but what it lists.
    pub fn start_operator(&mut self) {
        let writes = self.operator.writes;
        let beyond = Beyond { session_limit: 64, ..Beyond::default() };
        self.operator = Operator { writes, beyond, ..Operator::default() };
        self.cluster.groups.relist();
        self.cluster.nodes.relist();
        self.cluster.pods.relist();
    }

    pub fn crash(&mut self, when: &str) {
        self.count("crashes");
        self.tell(|| format!("the operator is killed {when}"));
        self.start_operator();
    }

    pub fn observe(&self) -> Option<Snapshot> {
        let operator = &self.operator;
        let object = operator.group.as_ref().filter(|_| operator.listed && operator.index.synced())?;
        let seen = |uid: &str| {
            let session = operator.links.get(uid).map(|link| SessionView {
                instance: link.instance.clone(),
                since: link.since,
                running: link.session.running(),
            });
            let memory = operator.memories.get(uid);
            memory.map_or_else(|| Memory::default().seen(session.clone()), |memory| memory.seen(session.clone()))
        };
        Some(snapshot(object, group::resolve(object), &operator.index, &operator.beyond, seen, self.now))
    }

    /// One pass: observe, plan, direct, apply, report.
    /// Only where something asks for it: a wake that is lost must show.
    pub fn pass(&mut self) {
        if !self.operator.woken && self.operator.wake.is_none_or(|time| time > self.now) {
            return;
        }
        let Some(snapshot) = self.observe() else { return };
        (self.operator.woken, self.operator.wake, self.operator.failed) = (false, None, false);
        self.operator.beyond.cascade = snapshot.head.deletion;
        let planned = plan(&snapshot);
        if let Ok(group) = &snapshot.group {
            let group = Arc::new(group.clone());
            for node in snapshot.live() {
                if let Some(link) = self.operator.links.get_mut(&node.uid) {
                    link.session.direct(group.clone(), node.retry_token.clone(), !group.paused);
                }
            }
        }
        self.check_plan(&snapshot, &planned);
        self.operator.wake = planned.wake;
        if self.apply(&snapshot, &planned).is_err() || self.report(&snapshot, &planned).is_err() {
            // It is another operator by now.
            return;
        }
        if self.operator.failed {
            let again = self.now + SignedDuration::from_millis(500);
            self.operator.wake = earliest(self.operator.wake, Some(again));
        }
    }

    fn may_crash(&mut self, when: &str) -> Result<(), Crashed> {
        if !self.calm && self.random.chance(1) {
            self.crash(when);
            return Err(Crashed);
        }
        Ok(())
    }

    fn apply(&mut self, snapshot: &Snapshot, planned: &Plan) -> Result<(), Crashed> {
        for effect in &planned.effects {
            self.tell(|| format!("effect {effect:?}"));
            self.effect(snapshot, effect);
            self.may_crash("between two effects")?;
        }
        Ok(())
    }

    /// A write whose answer may be lost, before or after it was done.
    fn answered<T>(&mut self, call: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Option<Result<T, Refusal>> {
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

    fn effect(&mut self, snapshot: &Snapshot, effect: &Effect) {
        if !matches!(effect, Effect::StartSession { .. } | Effect::EndSession { .. } | Effect::CheckTemplate) {
            self.operator.writes += 1;
        }
        match effect {
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
            Effect::CheckTemplate => {
                let hash = snapshot.group.as_ref().unwrap().pod.hash.clone();
                self.operator.beyond.template = Some((hash, TemplateVerdict::Accepted));
            }
            Effect::CreateNode { ordinal } => self.create_node(snapshot, *ordinal),
            Effect::CreatePod { ordinal } => {
                let node = &snapshot.nodes[ordinal];
                self.create_pod(snapshot, &node.name.clone(), &node.uid.clone());
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
            Effect::DeletePod { name, uid, .. } => {
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
            Effect::ReleaseNode { ordinal } => {
                let node = snapshot.nodes[ordinal].clone();
                self.answered(|world| {
                    let (nodes, counter) = (&mut world.cluster.nodes, &mut world.cluster.counter);
                    nodes.update(counter, &node.name, Some(&node.uid), None, |node| node.metadata.finalizers = None)
                });
            }
            Effect::OpenGate { name, uid } => {
                let answer = self.answered(|world| {
                    let (pods, counter) = (&mut world.cluster.pods, &mut world.cluster.counter);
                    pods.update(counter, name, Some(uid), None, |pod| {
                        let status = pod.status.get_or_insert_default();
                        let mut conditions = status.conditions.clone().unwrap_or_default();
                        conditions.retain(|c| c.type_ != api::CONVERGED_GATE);
                        conditions.push(k8s_openapi::api::core::v1::PodCondition {
                            type_: api::CONVERGED_GATE.into(),
                            status: "True".into(),
                            ..Default::default()
                        });
                        status.conditions = Some(conditions);
                    })
                });
                if let Some(Ok(pod)) = answer {
                    self.operator.index.upsert(&pod);
                }
            }
            Effect::StartSession { ordinal, .. } => self.open(snapshot, *ordinal),
            Effect::EndSession { name, why } => {
                let uid = snapshot.nodes.values().find(|node| node.name == *name).map(|node| node.uid.clone());
                if let Some(uid) = uid.filter(|uid| self.operator.links.contains_key(uid)) {
                    self.cut(&uid, why);
                }
            }
        }
    }

    fn create_node(&mut self, snapshot: &Snapshot, ordinal: u32) {
        let group = snapshot.group.as_ref().unwrap();
        let name = group.key.node_name(ordinal);
        let fields = GroupNodeFields { group: group.key.name.clone(), group_uid: group.uid.clone(), ordinal };
        let mut object = GroupNode::new(&name, fields);
        object.metadata.namespace = Some(NAMESPACE.into());
        object.metadata.finalizers = Some(vec![api::FINALIZER.to_owned()]);
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
            }
            Some(Ok(created)) => {
                self.operator.beyond.uncertain.remove(&ordinal);
                self.operator.index.upsert(&created);
                self.create_pod(snapshot, &name, &created.metadata.uid.clone().unwrap());
            }
            Some(Err(_)) => {
                self.operator.beyond.uncertain.remove(&ordinal);
                if let Some(found) = self.cluster.nodes.objects.get(&name) {
                    self.operator.index.upsert(found);
                }
            }
        }
    }

    fn create_pod(&mut self, snapshot: &Snapshot, name: &str, node_uid: &str) {
        let group = snapshot.group.as_ref().unwrap();
        let pod = serde_json::from_value(node::pod::build(group, name, Some(node_uid))).unwrap();
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

    fn report(&mut self, snapshot: &Snapshot, planned: &Plan) -> Result<(), Crashed> {
        let starting: Vec<u32> = planned.effects.iter().filter_map(Effect::starts).collect();
        for node in snapshot.live().filter(|node| !starting.contains(&node.ordinal)) {
            let step = planned.steps.get(&node.ordinal);
            let wanted = match status::node(snapshot, node, step) {
                status::Due::Now(wanted) => wanted,
                status::Due::At(time) => {
                    self.operator.wake = earliest(self.operator.wake, Some(time));
                    continue;
                }
                status::Due::No => continue,
            };
            self.may_crash("before a receipt is written")?;
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
                self.operator.index.upsert(&written);
                let idle = !self.operator.links.contains_key(&node.uid);
                if let Some(memory) = self.operator.memories.get_mut(&node.uid).filter(|_| idle) {
                    memory.saved(&record);
                }
            }
            self.may_crash("after a receipt is written")?;
        }
        let wanted = status::group(snapshot, &planned.steps);
        self.check_group_status(&wanted);
        let object = self.operator.group.as_ref();
        if object.is_some_and(|object| object.status.as_ref() != Some(&wanted)) {
            let version = object.and_then(|object| object.metadata.resource_version.clone());
            let uid = snapshot.head.uid.clone();
            self.operator.writes += 1;
            self.answered(|world| {
                let (groups, counter) = (&mut world.cluster.groups, &mut world.cluster.counter);
                groups.update(counter, GROUP, Some(&uid), version.as_deref(), |group| group.status = Some(wanted))
            });
        }
        Ok(())
    }

    // ---- sessions --------------------------------------------------------------------------------------------------

    fn open(&mut self, snapshot: &Snapshot, ordinal: u32) {
        let node = &snapshot.nodes[&ordinal];
        let Some(pod) = snapshot.pod(node) else { return };
        let Container::Running { id } = &pod.container else { return };
        if self.operator.links.contains_key(&node.uid) {
            return;
        }
        self.operator.commands += 1;
        self.operator.nonces += 1;
        let group = Arc::new(snapshot.group.clone().unwrap());
        let (session, greeting) = Session::open(
            group,
            progress::identity(node, pod),
            (pod.uid.clone(), id.clone()),
            node.record.clone(),
            format!("nonce-{}-{}", self.now, self.operator.nonces),
        );
        // The connection goes by the pod's name: to whatever container there is by now.
        let instance = self.machines.get(&node.name).map(|machine| machine.instance.clone());
        let link = Link {
            session,
            node: node.name.clone(),
            instance: instance.clone().unwrap_or_default(),
            since: self.now,
            inbox: VecDeque::new(),
            awaiting: None,
        };
        self.operator.links.insert(node.uid.clone(), link);
        if instance.is_some() {
            self.send(&node.uid.clone(), &greeting);
        } else {
            self.cut(&node.uid.clone(), "there is no container");
        }
    }

    pub fn cut(&mut self, uid: &str, why: &str) {
        let Some(mut link) = self.operator.links.remove(uid) else { return };
        self.tell(|| format!("the session on {} is lost: {why}", link.node));
        let end = link.session.lose(why, self.now);
        self.close(uid, &link, end);
    }

    fn close(&mut self, uid: &str, link: &Link, end: End) {
        let now = self.now;
        self.operator.woken = true;
        let memory = self.operator.memories.entry(uid.to_owned()).or_default();
        memory.learn(link.session.record());
        memory.finish(&link.instance, end, now);
    }

    pub fn hear_one(&mut self, uid: &str) {
        let link = self.operator.links.get_mut(uid).unwrap();
        let Some(frame) = link.inbox.pop_front() else { return };
        let before = link.session.running();
        let want = link.session.hear(frame.clone(), self.now);
        let node = link.node.clone();
        self.tell(|| format!("{node}: {frame:?}"));
        match want {
            Want::Wait => {}
            Want::Send(bytes) => self.send(uid, &bytes),
            Want::End(end) => {
                let link = self.operator.links.remove(uid).unwrap();
                self.tell(|| format!("the session on {node} ends: {end:?}"));
                self.close(uid, &link, end);
                return;
            }
        }
        if let Some(link) = self.operator.links.get(uid) {
            let (record, running) = (link.session.record().clone(), link.session.running());
            let news = self.operator.memories.entry(uid.to_owned()).or_default().learn(&record);
            self.operator.woken |= news || running != before;
        }
    }

    /// Bytes on their way to a machine. They may be lost, and the answer may.
    fn send(&mut self, uid: &str, bytes: &[u8]) {
        let request = Request::parse(bytes);
        if !self.calm && self.random.chance(2) {
            self.count("requests lost");
            self.cut(uid, "the request was lost");
            return;
        }
        let link = &self.operator.links[uid];
        let name = link.node.clone();
        let frames = match request {
            Request::Hello { uid } => self.machines[&name].greet(&uid),
            Request::Facts => vec![Frame::Facts(format!("hostname\t{name}\nos.family\tlinux\n").into_bytes())],
            Request::Attach { id } => self.attach(uid, &name, &id),
            Request::Run { id, seconds, phase, attempt, digest, script } => {
                let machine = &self.machines[&name];
                if machine.journal.iter().any(|run| run.id == id) {
                    self.attach(uid, &name, &id)
                } else if let Some(active) = machine.active() {
                    vec![Frame::Busy(active.id.clone())]
                } else {
                    let (duration, verdict) = self.fate(seconds);
                    let run = Run {
                        id: id.clone(),
                        phase,
                        attempt,
                        digest,
                        began: self.now,
                        ends: self.now + duration,
                        verdict: None,
                    };
                    self.check_start(&name, &run, &script);
                    let machine = self.machines.get_mut(&name).unwrap();
                    machine.journal.push(run.clone());
                    let witness = machine.witness.clone();
                    self.history.insert((witness, id.clone()), Run { verdict: Some(verdict), ..run });
                    self.operator.links.get_mut(uid).unwrap().awaiting = Some(id.clone());
                    vec![Frame::Started(id)]
                }
            }
        };
        if let Some(link) = self.operator.links.get_mut(uid) {
            link.inbox.extend(frames);
        }
    }

    fn attach(&mut self, uid: &str, name: &str, id: &str) -> Vec<Frame> {
        self.count("runs reattached");
        let machine = &self.machines[name];
        if !machine.journal.iter().any(|run| run.id == id) {
            return vec![Frame::Absent(id.to_owned())];
        }
        match machine.ended(id) {
            Some(frame) => vec![frame],
            None => {
                self.operator.links.get_mut(uid).unwrap().awaiting = Some(id.to_owned());
                vec![Frame::Attached(id.to_owned())]
            }
        }
    }
}
