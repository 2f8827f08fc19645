//! The operator as the simulation runs it: its own reconciles of groups and Lifts, with its own caches, applier and status writer.
//! Around it are fakes: the API server behind its client (see [`server`](crate::server)), the sessions, and the clock. A reconcile
//! goes on for a few requests at a time; whatever else happens in the world happens between two of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, request::Parts};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Client,
    client::Body,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use pallet_api::{GroupSpec, Lift};
use pallet_core::{
    group::{Group, GroupKey},
    observe::Indexed,
    plan::{Bound, Effect, Notice, Plan, Record, SessionView, Snapshot, earliest, plan},
    session::memory::{Memory, Seen},
};
use pallet_operator::{
    controller::{
        Converger, State,
        dispatch::Turn,
        reconcile::{Asked, Caches, Looks, Ports},
        references::{Polls, References},
        relist::Relist,
    },
    lease::lead::Lead,
    ports::{Clock, Sessions},
    run::{Limits, Start, evaluations::Meter},
    telemetry::Telemetry,
};
use tokio::sync::{Notify, oneshot};
use tower::{BoxError, Layer};

use crate::{
    server::Served,
    world::{GROUP, Link, NAMESPACE, RIVAL, World},
};

/// How many sessions may be open at once: more than there are nodes.
const SESSIONS: usize = 128;

/// A clock that moves when the world says so.
pub struct FakeClock {
    began: Instant,
    start: Timestamp,
    passed: AtomicI64,
}

impl FakeClock {
    pub fn new(start: Timestamp) -> Self {
        Self { began: Instant::now(), start, passed: AtomicI64::new(0) }
    }

    pub fn set(&self, now: Timestamp) {
        let passed = now.duration_since(self.start).as_micros();
        self.passed.store(i64::try_from(passed).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.start + SignedDuration::from_micros(self.passed.load(Ordering::Relaxed))
    }
    fn instant(&self) -> Instant {
        self.began + std::time::Duration::from_micros(self.passed.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// A request on its way to the API server.
pub struct Call {
    pub parts: Parts,
    pub body: Bytes,
    pub answer: oneshot::Sender<Response<Body>>,
}

/// What an operator has sent and nobody has answered yet.
#[derive(Default)]
struct Wire {
    calls: Mutex<VecDeque<Call>>,
    news: Notify,
}

impl Wire {
    fn client(self: &Arc<Self>, lead: &Lead) -> Client {
        let wire = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let wire = wire.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let (answer, answered) = oneshot::channel();
                wire.calls.lock().unwrap().push_back(Call { parts, body, answer });
                wire.news.notify_one();
                answered.await.map_err(|_| BoxError::from("the connection broke"))
            }
        });
        Client::new(lead.layer(service), "default")
    }

    fn next(&self) -> Option<Call> {
        self.calls.lock().unwrap().pop_front()
    }
}

/// What a reconcile asks of a session.
enum Command {
    Start(Box<Start>),
    Direct { uid: String, group: Arc<Group>, retry_token: String, bound: Bound },
    Hold(String),
    End(String, &'static str),
    Forget(String),
}

/// The sessions as a reconcile sees them. The world carries out what it asks for.
#[derive(Default)]
pub struct FakeSessions(Mutex<Known>);

#[derive(Default)]
pub struct Known {
    pub memories: HashMap<String, Memory>,
    /// What is shown of the sessions that are open.
    pub views: HashMap<String, SessionView>,
    commands: VecDeque<Command>,
    woken: BTreeSet<String>,
}

impl FakeSessions {
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap()
    }
}

impl Sessions for FakeSessions {
    fn seen(&self, node_uid: &str) -> Seen {
        let known = self.known();
        let view = known.views.get(node_uid).cloned();
        known
            .memories
            .get(node_uid)
            .map_or_else(|| Memory::default().seen(view.clone()), |memory| memory.seen(view.clone()))
    }
    fn start(&self, start: Start) {
        self.known().commands.push_back(Command::Start(Box::new(start)));
    }
    fn direct(&self, node_uid: &str, group: &Arc<Group>, retry_token: &str, bound: &Bound) {
        let (uid, retry_token) = (node_uid.to_owned(), retry_token.to_owned());
        let command = Command::Direct { uid, group: group.clone(), retry_token, bound: bound.clone() };
        self.known().commands.push_back(command);
    }
    fn hold(&self, node_uid: &str) {
        self.known().commands.push_back(Command::Hold(node_uid.to_owned()));
    }
    fn end(&self, node_uid: &str, why: &'static str) {
        self.known().commands.push_back(Command::End(node_uid.to_owned(), why));
    }
    fn saved(&self, node_uid: &str, written: &Record) {
        let known = &mut *self.known();
        if let Some(memory) = known.memories.get_mut(node_uid).filter(|_| !known.views.contains_key(node_uid)) {
            memory.saved(written);
        }
    }
    fn forget(&self, node_uid: &str) {
        let known = &mut *self.known();
        known.memories.remove(node_uid);
        known.views.remove(node_uid);
        known.commands.push_back(Command::Forget(node_uid.to_owned()));
    }
    fn look_at(&self, group: &GroupKey) {
        self.known().woken.insert(group.name.clone());
    }
}

/// What an operator does at a time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Work {
    Group(String),
    Lift(String),
    Strays(String),
}

/// An operator: what it has in memory, and what it is doing.
pub struct Operator {
    converger: Arc<Converger>,
    state: Arc<State>,
    groups: Writer<GroupSpec>,
    group_events: Relist<GroupSpec>,
    pub group_store: Store<GroupSpec>,
    lifts: Writer<Lift>,
    lift_events: Relist<Lift>,
    pub lift_store: Store<Lift>,
    asked: Asked,
    wire: Arc<Wire>,
    lead: Lead,
    pub sessions: Arc<FakeSessions>,
    pub links: HashMap<String, Link>,
    pub commands: u64,
    pub writes: u64,
    /// Which watches are its own.
    pub seat: usize,
    pub nonces: u64,
    /// The groups to reconcile: an event, or a session, said so.
    pub woken: BTreeSet<String>,
    /// When groups are to be reconciled, though nothing happens.
    pub wakes: BTreeMap<String, Timestamp>,
    /// The same of Lifts.
    lifts_woken: BTreeSet<String>,
    lift_wakes: BTreeMap<String, Timestamp>,
    /// Reconciles that wait for answers.
    works: BTreeMap<Work, BoxFuture<'static, Turn>>,
    /// Requests without an answer: their callers wait for the deadline.
    pub unanswered: Vec<oneshot::Sender<Response<Body>>>,
    plans: Arc<Mutex<VecDeque<(Snapshot, Plan)>>>,
    /// What the last plan of each group was made from.
    pub snapshots: BTreeMap<String, Snapshot>,
}

fn telemetry() -> Telemetry {
    static TELEMETRY: OnceLock<Telemetry> = OnceLock::new();
    TELEMETRY.get_or_init(Telemetry::default).clone()
}

pub fn key(name: &str) -> GroupKey {
    GroupKey { namespace: NAMESPACE.into(), name: name.into() }
}

impl Operator {
    /// It knows nothing yet. It must be called within a runtime.
    pub fn new(seat: usize, clock: &Arc<FakeClock>) -> Self {
        let (wire, lead, sessions) = (Arc::<Wire>::default(), Lead::always(), Arc::<FakeSessions>::default());
        let client = wire.client(&lead);
        let state = Arc::new(State::new(clock.clone()));
        let (group_store, groups) = reflector::store::<GroupSpec>();
        let (lift_store, lifts) = reflector::store::<Lift>();
        let plans = Arc::<Mutex<VecDeque<(Snapshot, Plan)>>>::default();
        let seen = plans.clone();
        let ports = Ports {
            client: client.clone(),
            clock: clock.clone(),
            sessions: sessions.clone(),
            references: Arc::new(References::new(client, "pallet-system".into(), Polls::default(), clock.clone())),
            observer: Some(Arc::new(move |snapshot: &Snapshot, plan: &Plan| {
                seen.lock().unwrap().push_back((snapshot.clone(), plan.clone()));
            })),
        };
        let caches = Caches {
            state: state.clone(),
            states: [state.clone()].into(),
            groups: group_store.clone(),
            lifts: lift_store.clone(),
        };
        let (converger, asked) = Converger::new(ports, caches, &Limits::new(SESSIONS), telemetry());
        Self {
            converger,
            state,
            groups,
            group_events: Relist::new(group_store.clone()),
            group_store,
            lifts,
            lift_events: Relist::new(lift_store.clone()),
            lift_store,
            asked,
            wire,
            lead,
            sessions,
            links: HashMap::new(),
            commands: 0,
            writes: 0,
            seat,
            nonces: 0,
            woken: BTreeSet::new(),
            wakes: BTreeMap::new(),
            lifts_woken: BTreeSet::new(),
            lift_wakes: BTreeMap::new(),
            works: BTreeMap::new(),
            unanswered: Vec::new(),
            plans,
            snapshots: BTreeMap::new(),
        }
    }

    pub fn group(&self, name: &str) -> Option<Arc<GroupSpec>> {
        self.group_store.get(&ObjectRef::new(name).within(NAMESPACE))
    }

    pub fn works(&self) -> bool {
        !self.works.is_empty()
    }

    /// As the operator's triggers do: what concerns a group has it reconciled, or has its remains looked after.
    fn concern(&mut self, keys: impl IntoIterator<Item = GroupKey>) {
        for key in keys.into_iter().filter(|key| [GROUP, RIVAL].contains(&key.name.as_str())) {
            if self.group(&key.name).is_some() {
                self.woken.insert(key.name);
            } else {
                self.converger.went(&key);
            }
        }
    }

    pub fn take_group(&mut self, event: Event<GroupSpec>) {
        self.groups.apply_watcher_event(&event);
        if let Event::Apply(group) = &event {
            self.state.see_deletion(group);
        }
        let concerned = self.group_events.concerned(&event);
        self.concern(concerned);
    }

    pub fn take_lift(&mut self, event: Event<Lift>) {
        self.lifts.apply_watcher_event(&event);
        self.lifts_woken.extend(self.lift_events.concerned(&event).into_iter().map(|key| key.name));
    }

    pub fn take<O: Indexed>(&mut self, event: Event<O>) {
        let touched = self.state.see(event, &*self.sessions);
        self.concern(touched);
    }

    pub fn take_spec(&mut self, event: Event<pallet_api::ServerSpec>) {
        let touched = self.state.see_specs(event);
        self.concern(touched);
    }
}

impl World {
    pub fn new_operator(&self, seat: usize) -> Operator {
        let _inside = self.runtime.enter();
        Operator::new(seat, &self.clock)
    }

    /// A new operator: it knows nothing but what it lists.
    pub fn start_operator(&mut self) {
        let (writes, seat) = (self.operator.writes, self.operator.seat);
        self.operator = Operator { writes, ..self.new_operator(seat) };
        self.cluster.relist(seat);
    }

    /// The leader freezes, and another one takes over.
    pub fn freeze(&mut self) {
        self.count("leaders frozen");
        self.tell(|| "the operator freezes, and another one takes over".into());
        // It freezes in the middle of something, more often than not.
        self.freezes = true;
        self.pass();
        self.pass_lifts();
        self.freezes = false;
        while let Some(call) = self.operator.wire.next() {
            self.delay(call);
        }
        let seat = 1 - self.operator.seat;
        let next = self.new_operator(seat);
        self.frozen = Some(std::mem::replace(&mut self.operator, next));
        self.cluster.relist(seat);
    }

    /// The frozen one thaws for a moment, and goes on as if it still led; or it notices, and is gone. By its clock its lease is
    /// over: its client and its sessions refuse whatever changes anything.
    pub fn thaw(&mut self) {
        let Some(frozen) = self.frozen.take() else { return };
        if self.calm || self.random.chance(10) {
            self.tell(|| "the operator that was frozen sees that it leads no more".into());
            self.cluster.relist(frozen.seat);
            return;
        }
        frozen.lead.end();
        let leader = std::mem::replace(&mut self.operator, frozen);
        self.count("steps of a former leader");
        self.tell(|| "the operator that was frozen does something".into());
        self.former = true;
        match self.random.below(5) {
            0 => self.deliver(),
            1 => {
                self.operator.woken.insert(GROUP.into());
                self.pass();
            }
            2 => self.pass_lifts(),
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

    /// The reconciles of groups go on, or begin where something asks for them: a wake that is lost must show.
    pub fn pass(&mut self) {
        while let Ok(key) = self.operator.asked.strays.try_recv() {
            let (converger, name) = (self.operator.converger.clone(), key.name.clone());
            let work = async move {
                let again =
                    converger.release_strays_of(&key).await.err().map(|_| std::time::Duration::from_millis(500));
                Turn { again, ..Turn::default() }
            };
            self.operator.works.entry(Work::Strays(name)).or_insert_with(|| work.boxed());
        }
        let now = self.now;
        let operator = &mut self.operator;
        operator.woken.extend(taken_due(&mut operator.wakes, now));
        for name in operator.woken.clone() {
            if operator.group(&name).is_none() {
                operator.woken.remove(&name);
                operator.converger.went(&key(&name));
            } else if !operator.works.contains_key(&Work::Group(name.clone())) {
                operator.woken.remove(&name);
                operator.wakes.remove(&name);
                let turn = operator.converger.clone().turn(key(&name));
                operator.works.insert(Work::Group(name), turn.boxed());
            }
        }
        let mut works: Vec<Work> =
            operator.works.keys().filter(|work| !matches!(work, Work::Lift(_))).cloned().collect();
        if works.len() > 1 {
            let first = self.random.below(works.len());
            works.rotate_left(first);
        }
        for work in works {
            if !self.go_on(work) {
                return;
            }
        }
    }

    /// The same for every Lift.
    pub fn pass_lifts(&mut self) {
        while let Ok(key) = self.operator.asked.lifts.try_recv() {
            self.operator.lifts_woken.insert(key.name);
        }
        let now = self.now;
        let operator = &mut self.operator;
        operator.lifts_woken.extend(taken_due(&mut operator.lift_wakes, now));
        let at_work: Vec<String> = operator
            .works
            .keys()
            .filter_map(|work| if let Work::Lift(name) = work { Some(name.clone()) } else { None })
            .collect();
        for name in at_work.iter().chain(&operator.lifts_woken.clone()) {
            if !self.operator.works.contains_key(&Work::Lift(name.clone())) {
                if !self.operator.lifts_woken.remove(name) {
                    continue;
                }
                self.operator.lift_wakes.remove(name);
                let key = GroupKey { namespace: NAMESPACE.into(), name: name.clone() };
                let turn = self.operator.converger.clone().turn_of_lift(key);
                self.operator.works.insert(Work::Lift(name.clone()), turn.boxed());
            }
            if !self.go_on(Work::Lift(name.clone())) {
                return;
            }
        }
    }

    /// Lets a reconcile go on for some requests: in calm, to its end. Says whether the operator is still the same.
    fn go_on(&mut self, work: Work) -> bool {
        let Some(mut turn) = self.operator.works.remove(&work) else { return true };
        let budget = if self.freezes {
            self.random.below(3)
        } else if self.calm || self.random.chance(60) {
            usize::MAX
        } else {
            self.random.below(6)
        };
        match self.drive(turn.as_mut(), budget) {
            Driven::Killed => return false,
            Driven::Waits => {
                self.count("reconciles interrupted by something else");
                self.operator.works.insert(work, turn);
            }
            Driven::Ended(Turn { again, .. }) => {
                let again = again.map(|again| self.now + SignedDuration::try_from(again).unwrap());
                match work {
                    Work::Group(name) => {
                        let wake = earliest(self.operator.wakes.remove(&name), again);
                        self.operator.wakes.extend(wake.map(|wake| (name, wake)));
                    }
                    Work::Lift(name) => {
                        self.operator.lift_wakes.extend(again.map(|again| (name, again)));
                    }
                    Work::Strays(name) if again.is_some() => self.operator.converger.went(&key(&name)),
                    Work::Strays(_) => {}
                }
            }
        }
        true
    }

    /// Drives something that the operator does until it ends, or has used its budget of requests.
    fn drive<T>(&mut self, mut future: Pin<&mut (dyn Future<Output = T> + Send)>, mut budget: usize) -> Driven<T> {
        let (runtime, wire) = (self.runtime.clone(), self.operator.wire.clone());
        runtime.block_on(async {
            loop {
                let ended = tokio::select! {
                    biased;
                    ended = &mut future => Some(ended),
                    () = wire.news.notified() => None,
                };
                self.carry_out_commands();
                if let Some(ended) = ended {
                    return Driven::Ended(ended);
                }
                while let Some(call) = wire.next() {
                    if budget == 0 {
                        wire.calls.lock().unwrap().push_front(call);
                        wire.news.notify_one();
                        return Driven::Waits;
                    }
                    budget -= 1;
                    if matches!(self.serve(call), Served::Killed) {
                        return Driven::Killed;
                    }
                }
            }
        })
    }

    /// What the operator has planned, and asked its sessions for, since.
    pub fn carry_out_commands(&mut self) {
        loop {
            let next = self.operator.plans.lock().unwrap().pop_front();
            let Some((snapshot, planned)) = next else { break };
            self.see_plan(&snapshot, &planned);
            self.operator.snapshots.insert(snapshot.head.key.name.clone(), snapshot);
        }
        loop {
            let next = self.operator.sessions.known().commands.pop_front();
            let Some(command) = next else { break };
            match command {
                Command::Start(start) => self.open(*start),
                Command::Direct { uid, group, retry_token, bound } => {
                    if let Some(link) = self.operator.links.get_mut(&uid) {
                        (link.group, link.retry_token) = (group.clone(), retry_token.clone());
                        link.session.direct(group, retry_token, bound);
                    }
                }
                Command::Hold(uid) => {
                    if let Some(link) = self.operator.links.get_mut(&uid) {
                        link.session.direct(link.group.clone(), link.retry_token.clone(), Bound::Hold);
                    }
                }
                Command::End(uid, why) => self.cut(&uid, why),
                Command::Forget(uid) => drop(self.operator.links.remove(&uid)),
            }
        }
        let woken = std::mem::take(&mut self.operator.sessions.known().woken);
        self.operator.woken.extend(woken);
    }

    fn see_plan(&mut self, snapshot: &Snapshot, planned: &Plan) {
        if self.plans_twice() {
            self.check_memo(snapshot, planned);
        }
        self.check_plan(snapshot, planned);
        for effect in &planned.effects {
            let of = if snapshot.head.key.name == GROUP { "" } else { " of the rival" };
            self.tell(|| format!("effect{of} {effect:?}"));
            match effect {
                Effect::TakeHost { .. } if snapshot.head.key.name == RIVAL => self.count("hosts taken by the rival"),
                Effect::CloseGate { .. } => self.count("gates closed"),
                Effect::Tell { what: Notice::DestroySkipped { .. }, .. } => self.count("farewells skipped"),
                Effect::CreateMachine { ordinal } if planned.templates.contains_key(ordinal) => {
                    self.count("machines from a former template");
                }
                Effect::ReleaseStray { .. } => unreachable!("there is no former group here"),
                Effect::RestoreNode { .. } => unreachable!("nobody edits GroupNodes here"),
                // Nobody restores a backup here.
                Effect::TakeOverNode { ordinal, .. } => panic!("6: node {ordinal} is another group's"),
                _ => {}
            }
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

    /// What the operator would plan for a group now, seen as a Lift sees it.
    pub fn look(&mut self, name: &str) -> Option<(Snapshot, Plan)> {
        let (object, converger) = (self.operator.group(name)?, self.operator.converger.clone());
        let newest = self.operator.state.newest(&key(name), object);
        let look = async move {
            let (snapshot, planned, _) = converger.see(&newest, &Meter::default(), Looks::Lift).await?;
            Some((snapshot, planned))
        };
        match self.drive(look.boxed().as_mut(), usize::MAX) {
            Driven::Ended(seen) => seen,
            Driven::Waits | Driven::Killed => None,
        }
    }

    /// Whether what is said of a Lift is what the operator would say now.
    pub fn is_said(&mut self, lift: Arc<Lift>) -> bool {
        let converger = self.operator.converger.clone();
        let look = async move {
            let seen = converger.see_lift(&lift, &Meter::default()).await.ok().flatten();
            seen.is_some_and(|(snapshot, _)| pallet_core::lift::plan(&snapshot).status == snapshot.status)
        };
        matches!(self.drive(look.boxed().as_mut(), usize::MAX), Driven::Ended(true))
    }
}

/// Takes out the names whose time has come.
fn taken_due(wakes: &mut BTreeMap<String, Timestamp>, now: Timestamp) -> Vec<String> {
    let due: Vec<String> = wakes.iter().filter(|(_, time)| **time <= now).map(|(name, _)| name.clone()).collect();
    wakes.retain(|name, _| !due.contains(name));
    due
}

/// How far something came.
enum Driven<T> {
    Ended(T),
    /// It waits for answers.
    Waits,
    /// Its operator was killed.
    Killed,
}
