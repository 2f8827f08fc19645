//! Lifts in the simulation: the real plan against the fakes, as `controller::lift` does it.

use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use pallet_api::{self as api, Lift, LiftStatus, lift::NodeOutcome};
use pallet_core::observe::Event;
use pallet_core::{
    group::resolve::Memo,
    lift::{
        self, Effect, GroupView, LiftSnapshot, begin,
        queue::{self, has_ended, head},
    },
    plan::{Bound, LiftRun, Purpose, earliest, intervals, plan},
};
use serde_json::{Value, json};

use crate::{
    operator::Crashed,
    world::{GROUP, NAMESPACE, World},
};

/// What an operator knows of the Lifts.
#[derive(Default)]
pub struct Lifts {
    pub objects: BTreeMap<String, Lift>,
    resolved: RefCell<BTreeMap<String, Memo>>,
    pub listed: bool,
    /// They are to be looked at.
    pub woken: bool,
    /// The same, then.
    pub wake: Option<Timestamp>,
}

/// How many there may be that have not ended.
const OPEN: usize = 3;

impl Lifts {
    pub fn take(&mut self, event: Event<Lift>) {
        self.woken = true;
        match event {
            Event::Apply(lift) | Event::InitApply(lift) => {
                self.objects.insert(lift.metadata.name.clone().unwrap(), lift);
            }
            Event::Delete(lift) => {
                self.objects.remove(&lift.metadata.name.unwrap());
            }
            Event::Init => self.objects.clear(),
            Event::InitDone => self.listed = true,
        }
    }
}

/// The tag that the runs of a Lift carry in a journal.
fn tag(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect()
}

impl World {
    /// One pass over every Lift that has not ended, where something asks for it.
    pub fn pass_lifts(&mut self) {
        let due = self.operator.lifts.wake.is_some_and(|time| time <= self.now);
        if !self.operator.lifts.woken && !due {
            return;
        }
        (self.operator.lifts.woken, self.operator.lifts.wake) = (false, None);
        for name in self.operator.lifts.objects.keys().cloned().collect::<Vec<_>>() {
            if self.pass_lift(&name).is_err() {
                // It is another operator by now.
                return;
            }
        }
    }

    fn lift_snapshot(&self, name: &str) -> Option<LiftSnapshot> {
        let operator = &self.operator;
        // What is not listed yet must not be taken for gone.
        let listed = operator.lifts.listed && operator.listed && operator.index.synced();
        let object = operator.lifts.objects.get(name).filter(|_| listed)?;
        let (head, status) = (head(object), object.status.clone().unwrap_or_default());
        let timeout: Duration = object.spec.timeout.parse::<kube::core::Duration>().unwrap().into();
        let open = operator.lifts.objects.values().filter(|lift| !has_ended(lift));
        let open = open.filter_map(|lift| lift.metadata.uid.clone()).collect();
        let mut snapshot = LiftSnapshot {
            now: self.now,
            head,
            spec: object.spec.clone(),
            timeout,
            status,
            groups: BTreeMap::new(),
            open,
        };
        // One that has ended looks at no group any more.
        if snapshot.status.completion_time.is_some() {
            return Some(snapshot);
        }
        if let (Some(group), Some(seen)) = (&operator.group, self.observe()) {
            let lifted = {
                let mut memos = operator.lifts.resolved.borrow_mut();
                memos.entry(name.to_owned()).or_default().lifted(group, &operator.specs, &object.spec)
            };
            let lifted = lifted.map(|lifted| begin::fitted(lifted, &seen, &object.spec));
            let taken = queue::taken(&snapshot.head, &seen, operator.lifts.objects.values());
            let view = GroupView { plan: plan(&seen), snapshot: seen, lifted, roles: Vec::new(), taken };
            snapshot.groups.insert(GROUP.into(), view);
        } else if operator.group.is_some() {
            return None;
        }
        Some(snapshot)
    }

    fn pass_lift(&mut self, name: &str) -> Result<(), Crashed> {
        let Some(mut snapshot) = self.lift_snapshot(name) else {
            // As in `controller::lift`: what is not listed yet is asked for again, since no event of the Lift's will tell.
            self.look_at_lifts_again();
            return Ok(());
        };
        let mut version = self.operator.lifts.objects[name].metadata.resource_version.clone();
        let mut planned = lift::plan(&snapshot);
        if self.plans_twice() {
            assert_eq!(planned, lift::plan(&snapshot), "a plan is a function of its snapshot");
        }
        if self.former {
            // Whether it still leads it asks its own clock before each write.
            return Ok(());
        }
        if planned.effects == [Effect::Finalize] {
            let uid = snapshot.head.uid.clone();
            let answer = self.answered(|world| {
                let (lifts, counter) = (&mut world.cluster.lifts, &mut world.cluster.counter);
                lifts.update(counter, name, Some(&uid), version.as_deref(), |lift| {
                    lift.metadata.finalizers = Some(vec![api::FINALIZER.to_owned()]);
                })
            });
            self.may_crash("after a finalizer is written")?;
            let Some(Ok(written)) = answer else {
                self.look_at_lifts_again();
                return Ok(());
            };
            (version, snapshot.head.finalized) = (written.metadata.resource_version, true);
            planned = lift::plan(&snapshot);
        }
        self.check_lift(&snapshot, &planned.status);
        for (view, node) in
            snapshot.groups.values().flat_map(|view| view.snapshot.nodes.values().map(move |n| (view, n)))
        {
            let Some(link) = self.operator.links.get_mut(&node.uid) else { continue };
            let mine = link.lift.as_ref() == Some(&snapshot.head.uid);
            if let (true, Ok(lifted)) = (mine, &view.lifted) {
                let bound = planned.bounds.get(&(GROUP.to_owned(), node.ordinal)).unwrap_or(&Bound::Hold);
                link.session.direct(Arc::new(lifted.clone()), String::new(), bound.clone());
            }
        }
        self.operator.lifts.wake = earliest(self.operator.lifts.wake, planned.wake);
        if self.operator.lifts.objects[name].status.as_ref() != Some(&planned.status) {
            self.operator.writes += 1;
            let (uid, status) = (snapshot.head.uid.clone(), planned.status.clone());
            let answer = self.answered(|world| {
                let (lifts, counter) = (&mut world.cluster.lifts, &mut world.cluster.counter);
                lifts.update(counter, name, Some(&uid), version.as_deref(), |lift| lift.status = Some(status))
            });
            self.may_crash("after the status of a Lift is written")?;
            let Some(Ok(_)) = answer else {
                self.look_at_lifts_again();
                return Ok(());
            };
        }
        for effect in &planned.effects {
            self.tell(|| format!("{name}: {effect:?}"));
            self.lift_effect(&snapshot, effect);
            self.may_crash("between two effects of a Lift")?;
        }
        Ok(())
    }

    fn look_at_lifts_again(&mut self) {
        let again = self.now + jiff::SignedDuration::from_millis(500);
        self.operator.lifts.wake = earliest(self.operator.lifts.wake, Some(again));
    }

    fn lift_effect(&mut self, snapshot: &LiftSnapshot, effect: &Effect) {
        let (name, uid) = (snapshot.head.key.name.clone(), snapshot.head.uid.clone());
        match effect {
            Effect::Finalize => {}
            Effect::Release => {
                self.operator.writes += 1;
                self.answered(|world| {
                    let (lifts, counter) = (&mut world.cluster.lifts, &mut world.cluster.counter);
                    lifts.update(counter, &name, Some(&uid), None, |lift| lift.metadata.finalizers = None)
                });
                self.look_at_lifts_again();
            }
            Effect::Delete => {
                self.operator.writes += 1;
                self.count("Lifts gone by their time");
                let now = self.now;
                self.answered(|world| {
                    let (lifts, counter) = (&mut world.cluster.lifts, &mut world.cluster.counter);
                    lifts.delete(counter, &name, &uid, false, now)
                });
                self.look_at_lifts_again();
            }
            Effect::Start { target: (_, ordinal), run } => self.start_lift(snapshot, *ordinal, run),
            Effect::End { target: (_, ordinal), why } => {
                let node = snapshot.groups[GROUP].snapshot.nodes.get(ordinal);
                if let Some(uid) = node.map(|node| node.uid.clone()) {
                    self.cut(&uid, why);
                }
            }
        }
    }

    fn start_lift(&mut self, snapshot: &LiftSnapshot, ordinal: u32, run: &LiftRun) {
        let view = &snapshot.groups[GROUP];
        let node = &view.snapshot.nodes[&ordinal];
        let Some(pod) = view.snapshot.machine(node) else { return };
        let identity = lift::identity(node, Some(pod));
        let lifted = Arc::new(view.lifted.clone().unwrap());
        self.open_with(&view.snapshot, ordinal, lifted, identity, Purpose::Lift(run.clone()));
    }

    // ---- people --------------------------------------------------------------------------------------------------

    /// Somebody makes a Lift, ends one, or has one rest for a while.
    pub fn person_lifts(&mut self) {
        let open: Vec<String> = self
            .cluster
            .lifts
            .objects
            .iter()
            .filter(|(_, lift)| !has_ended(lift))
            .map(|(name, _)| name.clone())
            .collect();
        if !self.calm && open.len() < OPEN && self.random.chance(60) {
            return self.make_lift();
        }
        let at = self.random.below(open.len());
        let Some(name) = open.get(at).cloned() else { return };
        let uid = self.cluster.lifts.objects[&name].metadata.uid.clone().unwrap();
        let die = if self.calm { 0 } else { self.random.below(10) };
        let change: fn(&mut Lift) = match die {
            0..4 => |lift| lift.spec.suspend = false,
            4..7 => |lift| lift.spec.suspend = true,
            7..9 => {
                self.count("Lifts cancelled");
                |lift| lift.spec.cancel = true
            }
            _ => {
                self.count("Lifts deleted");
                let _ = self.cluster.lifts.delete(&mut self.cluster.counter, &name, &uid, false, self.now);
                return;
            }
        };
        let before = self.cluster.lifts.objects[&name].spec.clone();
        let mut after = self.cluster.lifts.objects[&name].clone();
        change(&mut after);
        if after.spec == before {
            return;
        }
        self.tell(|| {
            format!("somebody changes Lift {name}: cancel {}, suspend {}", after.spec.cancel, after.spec.suspend)
        });
        let _ = self.cluster.lifts.update(&mut self.cluster.counter, &name, None, None, |lift| {
            change(lift);
            *lift.metadata.generation.get_or_insert(0) += 1;
        });
    }

    fn make_lift(&mut self) {
        self.lift_number += 1;
        let name = format!("lift-{}", self.lift_number);
        let script = |text: &str| json!({"actions": [{"exec": {"script": text}}]});
        let what = match self.random.below(6) {
            0 => json!({}),
            1 => json!({"phase": script("inline")}),
            2 => json!({"process": "apply-install"}),
            3 => json!({"phases": ["init", "configure", "test"]}),
            4 => json!({"phases": ["install", "configure"], "dryRun": true}),
            _ => json!({"phases": ["install"]}),
        };
        let rollout = match self.random.below(4) {
            0 => json!({"order": "Barrier"}),
            1 => json!({"maxParallel": 1, "onFailure": "StopAll"}),
            2 => json!({"maxParallel": "50%"}),
            _ => json!({}),
        };
        let mut spec = json!({
            "groups": [GROUP], "rollout": rollout, "timeout": if self.random.chance(30) { "10s" } else { "10m" },
            "retry": {"limit": self.random.below(3), "backoff": "2s"}
        });
        merge(&mut spec, what);
        if self.uses.inheritance() && self.random.chance(40) {
            merge(&mut spec, json!({"with": {"who": format!("lift {}", self.lift_number % 3)}}));
        }
        if self.random.chance(30) {
            merge(&mut spec, json!({"ttlSecondsAfterFinished": 30}));
        }
        self.count("Lifts");
        self.tell(|| format!("somebody makes Lift {name}: {spec}"));
        let finalizers = if self.random.chance(50) { json!([api::FINALIZER]) } else { json!([]) };
        let object = serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift",
            "metadata": {"name": name, "namespace": NAMESPACE, "finalizers": finalizers}, "spec": spec
        }));
        let now = self.now;
        let _ = self.cluster.lifts.create(&mut self.cluster.counter, object.unwrap(), now);
    }

    /// Where somebody has had a Lift rest, somebody has it go on.
    pub fn resume_lifts(&mut self) {
        for name in self.cluster.lifts.objects.keys().cloned().collect::<Vec<_>>() {
            let _ = self.cluster.lifts.update(&mut self.cluster.counter, &name, None, None, |lift| {
                if lift.spec.suspend {
                    lift.spec.suspend = false;
                    *lift.metadata.generation.get_or_insert(0) += 1;
                }
            });
        }
    }

    // ---- invariants ----------------------------------------------------------------------------------------------

    /// What a run of a Lift may follow on: nothing begins on a node that the Lift's status does not say may have begun there, or
    /// after the Lift has ended; nothing that has succeeded is begun again.
    pub fn check_lift_start(&mut self, name: &str, (machine, life): (&str, &str), phase: &str, tagged: &str) {
        self.count("runs of Lifts");
        let machine = &self.machines[machine];
        let latest = |phase: &str| machine.lived(life).rev().find(|other| other.phase == phase);
        assert!(
            latest("bootstrap").is_some_and(crate::machine::Run::succeeded),
            "5: a Lift before bootstrap on {name}"
        );
        assert!(latest("destroy-server").is_none(), "5: a Lift after destroy-server on {name}");
        let full = format!("{phase}.lift.{tagged}");
        let again = machine.lived(life).any(|run| run.phase == full && run.succeeded());
        assert!(!again, "3: {full} starts again on {name} after a success");
        let Some(lift) =
            self.cluster.lifts.objects.values().find(|lift| tag(lift.metadata.uid.as_ref().unwrap()) == tagged)
        else {
            // One that was deleted is gone only when what it had begun was ended.
            assert!(self.frozen.is_some(), "a run of a Lift that is gone starts on {name}");
            return;
        };
        let status = lift.status.as_ref().expect("a status before the first run");
        let ordinal = name.rsplit_once('-').unwrap().1.parse::<u32>().unwrap();
        let running = status
            .outcomes
            .iter()
            .any(|nodes| nodes.outcome == NodeOutcome::Running && intervals::parse(&nodes.nodes).contains(&ordinal));
        // A former leader's session may not have heard of the end yet.
        assert!(
            running || self.frozen.is_some(),
            "{full} starts on {name}, which is not Running: {:?}",
            status.outcomes
        );
    }

    /// The counts add up, the nodes stay the same, and what is done stays done.
    fn check_lift(&mut self, snapshot: &LiftSnapshot, status: &LiftStatus) {
        let nodes = |status: &LiftStatus| -> BTreeMap<u32, NodeOutcome> {
            let of = |nodes: &api::lift::NodesByOutcome| {
                let outcome = nodes.outcome;
                intervals::parse(&nodes.nodes).into_iter().map(move |ordinal| (ordinal, outcome))
            };
            status.outcomes.iter().flat_map(of).collect()
        };
        let (before, after) = (nodes(&snapshot.status), nodes(status));
        assert_eq!(status.nodes as usize, after.len());
        if snapshot.status.start_time.is_some() {
            assert!(before.keys().eq(after.keys()), "the nodes of a Lift are fixed");
        }
        for (ordinal, outcome) in before {
            assert!(!lift::is_done(outcome) || after[&ordinal] == outcome, "{ordinal} was {outcome:?}");
        }
        let holds = |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        let which = ["Complete", "Failed", "Reconciling", "Stalled"].map(holds);
        let sound = [
            [true, false, false, false],
            [false, true, false, true],
            [false, false, true, false],
            [false, false, false, true],
        ];
        assert!(status.conditions.is_empty() || sound.contains(&which), "{:?}", status.conditions);
        assert_eq!(status.completion_time.is_some(), which[0] || which[1]);
        for (kind, what) in [(0, "Lifts complete"), (1, "Lifts failed")] {
            if which[kind] && snapshot.status.completion_time.is_none() {
                self.totals.count(what);
            }
        }
    }

    pub fn lifts_have_ended(&self) -> bool {
        let over = |lift: &Lift| {
            has_ended(lift)
                && lift.metadata.finalizers.iter().flatten().next().is_none()
                && lift.spec.ttl_seconds_after_finished.is_none()
        };
        self.cluster.lifts.objects.values().all(over)
    }

    pub fn lifts_are_at_rest(&self) -> bool {
        // What is said of one that has ended follows its generation.
        let said = |name: &String| {
            self.lift_snapshot(name).is_some_and(|snapshot| lift::plan(&snapshot).status == snapshot.status)
        };
        let operator = &self.operator.lifts;
        self.lifts_have_ended()
            && operator.objects.len() == self.cluster.lifts.objects.len()
            && operator.objects.keys().all(said)
    }
}

fn merge(into: &mut Value, other: Value) {
    if let (Value::Object(into), Value::Object(other)) = (into, other) {
        into.extend(other);
    }
}

/// Seeds that did not come to rest: the simulation looked at a Lift before its operator had listed the groups, and never again.
/// `controller::lift` asks again. Whatever is listed last, a Lift for a group that is gone ends by its time.
#[test]
fn a_lift_whose_group_is_gone_ends_whatever_is_listed_first() {
    for last in [0, 1, 2, 3] {
        let mut world = World::quiet(json!({}), 1);
        world.settle();
        let uid = world.cluster.groups.objects[GROUP].metadata.uid.clone().unwrap();
        let now = world.now;
        world.cluster.groups.delete(&mut world.cluster.counter, GROUP, &uid, false, now).unwrap();
        world.settle();
        let lift: Lift = serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": "late", "namespace": NAMESPACE},
            "spec": {"groups": [GROUP], "timeout": "10s"}
        }))
        .unwrap();
        let now = world.now;
        world.cluster.lifts.create(&mut world.cluster.counter, lift, now).unwrap();
        world.start_operator();
        // All but one kind is listed when the Lift is looked at.
        for kind in (0..6).filter(|kind| *kind != last) {
            while world.deliver_one(kind) {}
        }
        world.pass();
        world.pass_lifts();
        for _ in 0..100 {
            for kind in 0..6 {
                while world.deliver_one(kind) {}
            }
            world.let_pass(jiff::SignedDuration::from_secs(1));
            world.pass();
            world.pass_lifts();
        }
        assert!(world.lifts_have_ended(), "kind {last} is listed last");
    }
}
