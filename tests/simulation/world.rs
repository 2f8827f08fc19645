//! The world: everything there is, and the scheduler that decides what happens next.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt, ops,
    rc::Rc,
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use pallet_api::{self as api, GroupNode, GroupSpec, ServerSpec, group_node::Outcome};
use pallet_core::{
    group::Group,
    session::{
        Session,
        frame::{Frame, Verdict},
    },
    target::Target,
};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    hosts::Inventory,
    machine::{Machine, Run},
    operator::{FakeClock, Operator},
};

pub const NAMESPACE: &str = "shop";
pub const GROUP: &str = "web";
/// A second group, which wants the same hosts.
pub const RIVAL: &str = "rival";
/// How many kinds of objects are watched.
pub const KINDS: usize = 7;

/// A connection from the operator to a machine.
pub struct Link {
    pub session: Session,
    /// What it was given last.
    pub group: Arc<Group>,
    pub retry_token: String,
    pub node: String,
    /// The machine that it leads to, by the name of its pod or by its address.
    pub machine: String,
    /// Which start of that machine, and which life.
    pub start: String,
    pub life: String,
    /// Whom the node is taken for: what is there, and what the plan meant.
    pub instance: String,
    pub meant: String,
    pub target: Target,
    pub since: Timestamp,
    /// The UID of the Lift that it is for.
    pub lift: Option<String>,
    /// Whether that gives values for parameters.
    pub overrides: bool,
    /// What the agent has said and the operator has not heard yet.
    pub inbox: VecDeque<Frame>,
    /// The run whose end the agent waits for.
    pub awaiting: Option<String>,
}

/// SplitMix64: small, and the same everywhere for ever.
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// What happened, counted, so that a simulation in which nothing happens is noticed.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub counts: BTreeMap<&'static str, u64>,
}

impl ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        f.write_str(&parts.join(", "))
    }
}

impl Totals {
    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Every kind of event must have come up, or the simulation shows less than it says.
    pub fn assert_everything_happened(&self) {
        for what in [
            "runs",
            "runs failed",
            "runs timed out",
            "runs reattached",
            "connections cut",
            "requests lost",
            "crashes",
            "restarts",
            "evictions",
            "gates closed",
            "runs interrupted",
            "pods deleted",
            "edits",
            "scalings",
            "pauses",
            "answers lost",
            "relists",
            "groups deleted",
            "template changes",
            "nodes removed",
            "nodes replaced",
            "farewells",
            "farewells skipped",
            "runs cancelled",
            "claims deleted",
            "barriers",
            "rollouts stopped",
            "tests failed",
            "leaders frozen",
            "steps of a former leader",
            "edits of a ServerSpec",
            "edits of a ConfigMap",
            "plans approved",
            "manual steps acknowledged",
            "runs behind a manual step",
            "looks",
            "Lifts",
            "Lifts complete",
            "Lifts failed",
            "Lifts cancelled",
            "Lifts deleted",
            "Lifts gone by their time",
            "runs of Lifts",
            "phases reapplied",
            "hosts rebooted",
            "hosts made anew",
            "hosts taken by others",
            "hosts let go",
            "hosts given way",
            "hosts waited for",
            "inventories edited",
            "runs of others in the way",
            "hosts taken by the rival",
            "requests that arrive late",
            "revisions kept",
            "reconciles interrupted by something else",
        ] {
            assert!(self.counts.get(what).copied().unwrap_or_default() > 0, "nothing of this happened: {what}");
        }
    }
}

pub struct World {
    pub random: Random,
    pub now: Timestamp,
    pub cluster: Cluster,
    pub machines: HashMap<String, Machine>,
    pub operator: Operator,
    /// A former leader that does not know it yet.
    pub frozen: Option<Operator>,
    /// It acts just now.
    pub former: bool,
    /// The leader freezes: it gets no further than to send what it does next.
    pub freezes: bool,
    /// Requests of former leaders that have not arrived yet.
    pub late: Vec<(http::request::Parts, bytes::Bytes)>,
    /// One of them is carried out just now.
    pub is_late: bool,
    /// Every run there ever was, by filesystem ID and id.
    pub history: HashMap<(String, String), Run>,
    pub totals: Totals,
    pub calm: bool,
    story: Story,
    last: VecDeque<String>,
    seed: u64,
    pub instances: u64,
    version: u64,
    /// Every count that somebody has declared.
    pub counts: BTreeSet<u32>,
    /// How the group rolls out: decided once, by the dice.
    converge: Value,
    retention: &'static str,
    gentle: bool,
    /// What else the group makes use of.
    pub uses: Uses,
    /// How many plans were made.
    pub plans: u64,
    /// How many Lifts were made.
    pub lift_number: u64,
    /// The hosts that there are, where nodes are hosts.
    pub inventory: Inventory,
    /// The version of the text in the ConfigMap, where that is there.
    pub text: Option<u64>,
    pub clock: Arc<FakeClock>,
    /// It runs what the operator does, in this thread and by a clock of its own that stands while anything is to do.
    pub runtime: Rc<tokio::runtime::Runtime>,
    /// All that was told since, where somebody asks.
    trace: Option<Vec<String>>,
}

/// What a group makes use of, by its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    /// It extends a ServerSpec.
    inheritance: bool,
    /// Init stops at a manual step.
    manual: bool,
    /// What is declared waits for approval.
    approval: bool,
    /// Settled nodes are looked at, and what differs is put right.
    looks: bool,
    /// Somebody makes Lifts.
    lifts: bool,
    /// Its nodes are hosts.
    hosts: bool,
    /// Configure writes a text of a ConfigMap.
    texts: bool,
}

impl Uses {
    pub fn inheritance(&self) -> bool {
        self.inheritance
    }

    pub fn hosts(&self) -> bool {
        self.hosts
    }

    pub fn texts(&self) -> bool {
        self.texts
    }

    fn of(seed: u64) -> Self {
        let bit = |place: u64| (seed >> place) & 3 == 3;
        Self {
            inheritance: seed % 3 == 1,
            manual: bit(1),
            approval: bit(3),
            looks: bit(5),
            lifts: seed % 5 < 2,
            hosts: seed % 4 == 2,
            texts: bit(7),
        }
    }
}

/// What is told of what happens. A story costs as much as what it tells of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Story {
    /// Nothing.
    None,
    /// The last lines, where it ends in a failure.
    Last,
    /// Everything, at once.
    Told,
}

/// How many lines of its story a failing seed prints.
const STORY: usize = 60;

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && self.story == Story::Last {
            eprintln!(
                "seed {}, the last of its story:\n  {}",
                self.seed,
                Vec::from(std::mem::take(&mut self.last)).join("\n  ")
            );
        }
    }
}

impl World {
    pub fn new(seed: u64, story: Story) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let clock = Arc::new(FakeClock::new(Timestamp::from_second(1_800_000_000).unwrap()));
        let operator = {
            let _inside = runtime.enter();
            Operator::new(0, &clock)
        };
        let mut world = Self {
            random: Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            cluster: Cluster::default(),
            machines: HashMap::new(),
            operator,
            frozen: None,
            former: false,
            freezes: false,
            late: Vec::new(),
            is_late: false,
            history: HashMap::new(),
            totals: Totals::default(),
            calm: false,
            story,
            last: VecDeque::new(),
            seed,
            instances: 0,
            version: 1,
            counts: BTreeSet::new(),
            converge: Value::Null,
            retention: "Retain",
            gentle: seed.is_multiple_of(2),
            uses: Uses::of(seed),
            plans: 0,
            lift_number: 0,
            inventory: Inventory::default(),
            text: Some(1),
            clock,
            runtime: Rc::new(runtime),
            trace: None,
        };
        if world.uses.hosts {
            world.set_up_hosts();
        }
        world.publish_spec(1);
        let count = world.random.below(4);
        // A group that never had one has one node.
        world.counts = BTreeSet::from([count as u32, 1]);
        world.converge = converge(&mut world.random);
        world.retention = if world.random.chance(50) { "Retain" } else { "Delete" };
        let group: GroupSpec = serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"name": GROUP, "namespace": NAMESPACE}, "spec": world.spec(count, 1, 1)
        }))
        .unwrap();
        let now = world.now;
        world.cluster.groups.create(&mut world.cluster.counter, group, now).unwrap();
        if world.uses.hosts {
            world.make_rival();
        }
        world.start_operator();
        world
    }

    /// A world in which nothing goes wrong, with a group that is not there yet for the operator.
    pub fn quiet(converge: Value, count: usize) -> Self {
        let mut world = Self::new(0, Story::None);
        (world.calm, world.converge, world.retention) = (true, converge, "Delete");
        world.uses = Uses::default();
        let spec = world.spec(count, 1, 1);
        world.change(|group| group.spec = serde_json::from_value(spec).unwrap());
        world
    }

    /// Lets everybody do what they have to, in a fixed order, until there is nothing left to do. Returns the effects and
    /// the runs.
    pub fn settle(&mut self) -> String {
        self.trace = Some(Vec::new());
        self.come_to_rest();
        self.traced()
    }

    /// The same till the first session is over, and its result is lost with the operator.
    pub fn lose_a_result(&mut self) -> String {
        self.trace = Some(Vec::new());
        while self.operator.links.is_empty() {
            self.deliver_all();
            self.pass();
        }
        while !self.operator.links.is_empty() {
            for uid in self.links() {
                while self.hear_from(&uid) {}
            }
            self.let_pass(SignedDuration::from_millis(500));
        }
        self.crash("before a phase result is written");
        self.traced()
    }

    fn deliver_all(&mut self) {
        for kind in 0..KINDS {
            while self.deliver_one(kind) {}
        }
    }

    fn come_to_rest(&mut self) {
        let mut rounds = 0;
        loop {
            self.deliver_all();
            self.check();
            if rounds > 0 && self.is_at_rest() {
                break;
            }
            rounds += 1;
            assert!(rounds < 500, "the group does not come to rest: {}", self.describe());
            self.pass();
            for name in self.cluster.pods.objects.keys().cloned().collect::<Vec<_>>() {
                self.kubelet(&name);
            }
            for uid in self.links() {
                while self.hear_from(&uid) {}
            }
            self.let_pass(SignedDuration::from_millis(500));
        }
    }

    /// What was done since the trace began.
    fn traced(&mut self) -> String {
        let said = |line: &String| line.starts_with("effect ") || line.ends_with(" starts");
        let mut text = String::new();
        for line in self.trace.take().into_iter().flatten().filter(said) {
            // Every object has a new one.
            let parts: Vec<&str> = line.split("\"uid-").collect();
            let rest = parts[1..].iter().map(|part| part.split_once('"').map_or("", |(_, rest)| rest));
            text += &format!("{}{}\n", parts[0], rest.map(|rest| format!("..{rest}")).collect::<String>());
        }
        text
    }

    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.story == Story::None && self.trace.is_none() {
            return;
        }
        let line = line();
        if let Some(trace) = &mut self.trace {
            trace.push(line.clone());
        }
        let line = format!("{} {line}", self.now.strftime("%H:%M:%S%.3f"));
        if self.story == Story::Told {
            eprintln!("{line}");
        }
        self.last.push_back(line);
        if self.last.len() > STORY {
            self.last.pop_front();
        }
    }

    pub fn count(&mut self, what: &'static str) {
        self.totals.count(what);
    }

    /// Trouble for a while, then calm: whatever happened, the group must come to what is declared, and rest there.
    pub fn run(mut self) -> Totals {
        for _ in 0..200 + self.random.below(800) {
            self.step();
            self.check();
        }
        self.make_calm();
        self.step_to_rest();
        if self.uses.texts {
            // Nobody tells of a ConfigMap that has changed: it is read again by then.
            self.let_pass(SignedDuration::from_secs(120));
            self.pass();
            self.step_to_rest();
        }
        self.check_rest();
        std::mem::take(&mut self.totals)
    }

    fn step_to_rest(&mut self) {
        let mut rounds = 0;
        while !self.is_at_rest() {
            rounds += 1;
            assert!(rounds < 3000, "the group does not come to rest: {}", self.describe());
            self.step();
            self.check();
        }
    }

    fn step(&mut self) {
        self.person();
        if !self.late.is_empty() && self.random.chance(5) {
            let at = self.random.below(self.late.len());
            let (parts, body) = self.late.swap_remove(at);
            self.arrive(&parts, &body);
        }
        let die = self.random.below(if self.calm { 600 } else { 700 });
        // Where trouble comes one at a time, more is gone through than where it never ends.
        if die >= 600 && self.gentle && self.random.chance(80) {
            return self.hear();
        }
        match die {
            0..150 => self.deliver(),
            150..180 if self.uses.lifts => self.pass_lifts(),
            150..290 => self.pass(),
            290..380 => self.some_kubelet(),
            380..530 => self.hear(),
            530..600 => self.pass_time(),
            600..612 if self.uses.lifts => self.person_lifts(),
            600..630 => self.edit(),
            630..635 => self.meddle(),
            635..655 if self.uses.hosts => self.fault_on_host(),
            655..660 if self.uses.hosts => self.scale_rival(),
            635..650 => self.fault_on_node(),
            650..670 => self.fault_on_connection(),
            670..675 => self.crash("out of the blue"),
            675..680 => self.relist(),
            680..683 if self.frozen.is_none() && !self.calm => self.freeze(),
            683..700 => self.thaw(),
            _ => self.hear(),
        }
    }

    // ---- time and the cluster ------------------------------------------------------------------------------------

    fn pass_time(&mut self) {
        let millis = 50 + self.random.below(if self.calm { 20_000 } else { 4_000 });
        self.let_pass(SignedDuration::from_millis(millis as i64));
    }

    pub fn let_pass(&mut self, time: SignedDuration) {
        self.now += time;
        let now = self.now;
        self.clock.set(now);
        for machine in self.machines.values_mut() {
            for run in machine.journal.iter_mut().filter(|run| run.verdict.is_none() && run.ends <= now) {
                let planned = self.history.get(&(run.life.clone(), run.id.clone())).and_then(|r| r.verdict);
                run.verdict = planned;
            }
        }
    }

    /// The watch of one kind delivers what it has, or a part of it.
    pub fn deliver(&mut self) {
        let (kind, most) = (self.random.below(KINDS), 1 + self.random.below(12));
        for _ in 0..most {
            if !self.deliver_one(kind) {
                return;
            }
        }
    }

    pub fn deliver_one(&mut self, kind: usize) -> bool {
        let seat = self.operator.seat;
        let (cluster, operator) = (&mut self.cluster, &mut self.operator);
        let delivered = match kind {
            0 => cluster.groups.next_event(seat).map(|event| operator.take_group(event)),
            1 => cluster.nodes.next_event(seat).map(|event| operator.take(event)),
            2 => cluster.pods.next_event(seat).map(|event| operator.take(event)),
            3 => cluster.claims.next_event(seat).map(|event| operator.take(event)),
            4 => cluster.lifts.next_event(seat).map(|event| operator.take_lift(event)),
            5 => cluster.specs.next_event(seat).map(|event| operator.take_spec(event)),
            _ => cluster.revisions.next_event(seat).map(|event| operator.take(event)),
        };
        self.carry_out_commands();
        delivered.is_some()
    }

    fn relist(&mut self) {
        self.count("relists");
        let seat = self.operator.seat;
        match self.random.below(7) {
            6 => self.cluster.specs.relist(seat),
            5 => self.cluster.revisions.relist(seat),
            4 => self.cluster.lifts.relist(seat),
            0 => self.cluster.groups.relist(seat),
            1 => self.cluster.nodes.relist(seat),
            2 => self.cluster.pods.relist(seat),
            _ => self.cluster.claims.relist(seat),
        }
    }

    // ---- connections ---------------------------------------------------------------------------------------------

    fn links(&self) -> Vec<String> {
        let mut uids: Vec<String> = self.operator.links.keys().cloned().collect();
        uids.sort();
        uids
    }

    fn some_link(&mut self) -> Option<String> {
        let uids = self.links();
        let at = self.random.below(uids.len());
        uids.get(at).cloned()
    }

    fn fault_on_connection(&mut self) {
        if let Some(uid) = self.some_link() {
            self.count("connections cut");
            self.cut(&uid, "the wire was cut");
        }
    }

    /// A session hears one frame, or notices that its machine is gone.
    pub fn hear(&mut self) {
        if let Some(uid) = self.some_link() {
            self.hear_from(&uid);
        }
    }

    /// Says whether there was anything to hear.
    fn hear_from(&mut self, uid: &str) -> bool {
        let Some(link) = self.operator.links.get(uid) else { return false };
        let machine = self.machines.get(&link.machine).filter(|machine| machine.instance == link.start);
        let Some(machine) = machine else {
            self.cut(uid, "what it led to is gone");
            return false;
        };
        if link.inbox.is_empty()
            && let Some(frame) = link.awaiting.as_ref().and_then(|id| machine.ended(id))
        {
            let link = self.operator.links.get_mut(uid).unwrap();
            link.awaiting = None;
            link.inbox.push_back(frame);
        }
        if self.operator.links[uid].inbox.is_empty() {
            return false;
        }
        self.hear_one(uid);
        true
    }

    // ---- people --------------------------------------------------------------------------------------------------

    fn edit(&mut self) {
        let Some(group) = self.cluster.groups.objects.get(GROUP) else { return };
        let (before, paused) = (group.count(), group.spec.paused);
        if paused {
            // Nobody leaves a group paused for long.
            self.change(|group| group.spec.paused = false);
            return;
        }
        let uid = group.metadata.uid.clone().unwrap();
        match self.random.below(12) {
            0..4 => {
                self.count("scalings");
                let count = self.random.below(5) as u32;
                // An autoscaler is to have it from now on.
                if count == before {
                    self.count("counts left out");
                    self.tell(|| "the count is left out".into());
                    self.change(|group| group.spec.count = None);
                    return;
                }
                self.tell(|| format!("scaled to {count}"));
                self.counts.insert(count);
                self.change(|group| group.spec.count = Some(count));
            }
            5..8 if self.uses.hosts => self.edit_inventory(),
            4..8 => {
                self.count("edits");
                self.version += 1 + self.random.below(2) as u64 * 2;
                // Sometimes back to what it was before.
                let version = if self.random.chance(25) { 1 } else { self.version };
                let bootstrap = if self.random.chance(30) { self.version } else { 1 };
                self.tell(|| format!("configure becomes version {version}, bootstrap version {bootstrap}"));
                let phases = self.spec(before as usize, version, bootstrap)["phases"].clone();
                self.change(|group| group.spec.phases = serde_json::from_value(phases).unwrap());
            }
            8 => {
                self.count("pauses");
                self.tell(|| "paused".into());
                self.change(|group| group.spec.paused = true);
            }
            10 if self.uses.inheritance => {
                self.count("edits of a ServerSpec");
                self.version += 1;
                let version = self.version;
                self.tell(|| format!("the ServerSpec becomes version {version}"));
                self.publish_spec(version);
            }
            11 if self.uses.texts => {
                self.count("edits of a ConfigMap");
                self.version += 1;
                self.text = if self.text.is_some() && self.random.chance(20) { None } else { Some(self.version) };
                let text = self.text;
                self.tell(|| format!("the ConfigMap has the text {text:?}"));
            }
            9 if self.uses.hosts => self.edit_inventory(),
            9 => {
                self.count("template changes");
                self.version += 1;
                let image = format!("image:{}", self.version);
                self.change(|group| {
                    let pod = group.spec.node.pod.as_mut().unwrap();
                    pod.template["spec"]["containers"][0]["image"] = image.into();
                });
            }
            _ if self.random.chance(5) => {
                self.count("groups deleted");
                self.tell(|| "the group is deleted".into());
                let _ = self.cluster.groups.delete(&mut self.cluster.counter, GROUP, &uid, false, self.now);
            }
            _ => {}
        }
    }

    /// The ServerSpec that the group may extend.
    fn publish_spec(&mut self, version: u64) {
        let script = format!("base {version} {{{{ params.who }}}}");
        let spec = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec",
            "metadata": {"name": "base", "namespace": NAMESPACE},
            "spec": {"parameters": {"who": {"default": "x"}}, "phases": {"configure": {"actions": [{"exec": {"script": script}}]}}}
        });
        let spec: ServerSpec = serde_json::from_value(spec).unwrap();
        let (specs, counter, now) = (&mut self.cluster.specs, &mut self.cluster.counter, self.now);
        match specs.objects.contains_key("base") {
            true => drop(specs.update(counter, "base", None, None, |object| {
                (object.spec, object.metadata.generation) = (spec.spec, Some(version as i64));
            })),
            false => drop(specs.create(counter, spec, now)),
        }
    }

    /// Somebody approves plans and acknowledges manual steps, sooner or later.
    fn person(&mut self) {
        if !self.random.chance(if self.calm { 20 } else { 4 }) {
            return;
        }
        let Some(group) = self.cluster.groups.objects.get(GROUP) else { return };
        // Whoever asks again before the last request was seen keeps the status from ever being written.
        let seen = group.status.as_ref().is_some_and(|status| status.observed_generation == group.metadata.generation);
        let stalled = group.status.iter().flat_map(|status| &status.conditions).any(|c| c.reason == "NotIdempotent");
        let stalled = stalled && seen;
        if stalled && self.calm {
            let token = self.now.to_string();
            self.tell(|| "what never settled is given another chance".into());
            return self.change(|group| {
                group.metadata.annotations.get_or_insert_default().insert(api::RETRY_ANNOTATION.into(), token);
            });
        }
        let asked = group.status.as_ref().and_then(|status| status.plan.clone());
        let given = group.metadata.annotations.as_ref().and_then(|a| a.get(api::APPROVE_ANNOTATION)).cloned();
        if let Some(plan) = asked.filter(|plan| given.as_ref() != Some(&plan.digest)) {
            self.count("plans approved");
            self.tell(|| format!("plan {} is approved", plan.digest));
            let _ = self.cluster.groups.update(&mut self.cluster.counter, GROUP, None, None, |group| {
                group.metadata.annotations.get_or_insert_default().insert(api::APPROVE_ANNOTATION.into(), plan.digest);
            });
        }
        let waiting = |node: &GroupNode| {
            let own = node.status.iter().flat_map(|status| &status.phase_results);
            let lifts = node.status.iter().flat_map(|status| &status.lifts);
            let phase_results =
                own.chain(lifts.filter(|lift| lift.outcome.is_none()).flat_map(|lift| &lift.phase_results));
            let run = phase_results
                .filter(|phase_result| phase_result.outcome == Outcome::Waiting)
                .map(|r| r.run_id.clone())
                .next()?;
            let given = node.metadata.annotations.as_ref().and_then(|a| a.get(api::ACK_ANNOTATION));
            (given != Some(&run)).then_some(run)
        };
        let nodes = self.cluster.nodes.objects.iter();
        let Some((name, run)) = nodes.filter_map(|(name, node)| Some((name.clone(), waiting(node)?))).next() else {
            return;
        };
        self.count("manual steps acknowledged");
        self.tell(|| format!("{run} is acknowledged on {name}"));
        let _ = self.cluster.nodes.update(&mut self.cluster.counter, &name, None, None, |node| {
            node.metadata.annotations.get_or_insert_default().insert(api::ACK_ANNOTATION.into(), run);
        });
    }

    /// Somebody changes what configure had made on a machine.
    fn meddle(&mut self) {
        let mut names: Vec<String> = self.machines.keys().cloned().collect();
        names.sort();
        let at = self.random.below(names.len());
        if let Some(machine) = names.get(at).and_then(|name| self.machines.get_mut(name)) {
            machine.meddled = true;
        }
    }

    pub fn change(&mut self, change: impl FnOnce(&mut GroupSpec)) {
        let _ = self.cluster.groups.update(&mut self.cluster.counter, GROUP, None, None, |group| {
            change(group);
            *group.metadata.generation.get_or_insert(0) += 1;
        });
    }

    /// No more faults; scripts succeed; somebody gives failed phases their attempts back.
    fn make_calm(&mut self) {
        self.tell(|| "from here on all is calm".into());
        for (parts, body) in std::mem::take(&mut self.late) {
            self.arrive(&parts, &body);
        }
        self.calm = true;
        self.frozen = None;
        if self.uses.hosts {
            self.let_hosts_be();
        }
        self.text.get_or_insert(self.version);
        self.resume_lifts();
        let token = self.now.to_string();
        self.change(|group| {
            group.spec.paused = false;
            group.spec.converge.drift_check = None;
            group.metadata.annotations.get_or_insert_default().insert(api::RETRY_ANNOTATION.into(), token);
        });
    }

    /// How a script will end: decided when it starts, by the dice.
    pub fn fate(&mut self, seconds: i64) -> (SignedDuration, Verdict) {
        // On hosts some take so long that the host is another node before they end.
        let longest = if self.uses.hosts && self.random.chance(20) { 15_000 } else { 3_000 };
        let duration = SignedDuration::from_millis(20 + self.random.below(longest) as i64);
        if self.calm {
            return (duration, Verdict::Exit(0));
        }
        match self.random.below(100) {
            0..14 => (duration, Verdict::Exit(3)),
            14..18 => (SignedDuration::from_secs(seconds), Verdict::TimedOut),
            18..21 => (duration, Verdict::Died),
            _ => (duration, Verdict::Exit(0)),
        }
    }

    /// The spec of the group: every phase there is; settings has a fact of its own that configure and test use.
    fn spec(&self, count: usize, version: u64, bootstrap: u64) -> Value {
        let script = |text: String| json!({"actions": [{"exec": {"script": text}}]});
        // Nodes with claims are replaced in their places.
        let surges = !self.converge["rollout"]["maxSurge"].is_null();
        let claims = if surges { json!([]) } else { json!([{"metadata": {"name": "data"}, "spec": {}}]) };
        let extends = if self.uses.inheritance { json!([{"serverSpec": "base"}]) } else { json!([]) };
        let init = |text: String| {
            let exec = |name: &str| json!({"name": name, "exec": {"script": format!("{text} {name}")}});
            json!({"actions": [exec("before"), {"name": "look", "manual": {"message": "look"}}, exec("behind")]})
        };
        let init = if self.uses.manual {
            init(format!("init {}", version / 3))
        } else {
            script(format!("init {}", version / 3))
        };
        let node = match self.uses.hosts {
            true => self.inventory.node(),
            false => json!({"pod": {
                "template": {"spec": {"containers": [{"name": "main", "image": "image:1"}]}},
                "volumeClaimTemplates": claims,
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": self.retention, "whenDeleted": self.retention}
            }}),
        };
        let mut configure = script(format!("configure {version} {{{{ settings.own }}}}"));
        if self.uses.texts {
            let from = json!({"configMapKeyRef": {"name": "site", "key": "a"}});
            let file = json!({"name": "site", "file": {"path": "/site", "contentFrom": from}});
            configure["actions"].as_array_mut().unwrap().push(file);
        }
        let mut converge = self.converge.clone();
        if self.uses.looks && !self.calm {
            converge["driftCheck"] = json!({"interval": "20s", "policy": "Reapply"});
        }
        json!({
            "count": count,
            "extends": extends,
            "approval": if self.uses.approval { "Manual" } else { "Automatic" },
            "node": node,
            "phases": {
                "bootstrap": script(format!("bootstrap {bootstrap} {{{{ facts.hostname }}}}")),
                "settings": {
                    "facts": [{"name": "own", "exec": "own"}],
                    "values": {"own": "{{ facts.own }}"}
                },
                "init": init,
                "install": script(format!("install {version}")),
                "configure": configure,
                "test": {"expect": [{"name": "own", "expression": "facts.own == 'x'"}]},
                "destroy-server": script("destroy {{ settings.own }}".to_owned())
            },
            "converge": converge
        })
    }
}

/// How a group rolls out, by the dice.
fn converge(random: &mut Random) -> Value {
    let rollout = match random.below(6) {
        0 => json!({"maxParallel": 2, "onFailure": "StopAll"}),
        1 => json!({"maxParallel": 2, "order": "Barrier"}),
        2 => json!({"maxParallel": 5, "order": "Barrier", "maxFailures": 1, "maxSurge": 1, "maxUnavailable": 0}),
        3 => json!({"maxParallel": 2, "replacement": "Never"}),
        4 => json!({"maxParallel": 3, "maxSurge": "50%", "maxUnavailable": "50%"}),
        _ => json!({"maxParallel": 2}),
    };
    let phases = match random.below(3) {
        0 => json!(["configure"]),
        1 => json!(["init", "install", "configure"]),
        _ => json!(["init", "install", "configure", "test"]),
    };
    json!({
        "phases": phases, "timeout": "20s", "destroyTimeout": "30s", "retry": {"limit": 2, "backoff": "2s"},
        "rollout": rollout
    })
}
