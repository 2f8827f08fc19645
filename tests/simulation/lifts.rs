//! Lifts in the simulation: who makes them, and what must hold of them.

use std::collections::BTreeMap;

use pallet_api::{self as api, Lift, LiftStatus, lift::NodeOutcome};
use pallet_core::{
    lift::{self, queue::has_ended},
    plan::intervals,
};
use serde_json::{Value, json};

use crate::world::{GROUP, KINDS, NAMESPACE, World};

/// How many there may be that have not ended.
const OPEN: usize = 3;

/// The tag that the runs of a Lift carry in a journal.
fn tag(uid: &str) -> String {
    uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect()
}

impl World {
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
    pub fn check_lift(&mut self, before: &LiftStatus, status: &LiftStatus) {
        let nodes = |status: &LiftStatus| -> BTreeMap<u32, NodeOutcome> {
            let of = |nodes: &api::lift::NodesByOutcome| {
                let outcome = nodes.outcome;
                intervals::parse(&nodes.nodes).into_iter().map(move |ordinal| (ordinal, outcome))
            };
            status.outcomes.iter().flat_map(of).collect()
        };
        let (known, after) = (nodes(before), nodes(status));
        assert_eq!(status.nodes as usize, after.len());
        if before.start_time.is_some() {
            assert!(known.keys().eq(after.keys()), "the nodes of a Lift are fixed");
        }
        for (ordinal, outcome) in known {
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
            if which[kind] && before.completion_time.is_none() {
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

    pub fn lifts_are_at_rest(&mut self) -> bool {
        // What is said of one that has ended follows its generation.
        let known = self.operator.lift_store.state();
        self.lifts_have_ended()
            && known.len() == self.cluster.lifts.objects.len()
            && known.into_iter().all(|lift| self.is_said(lift))
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
    for last in [0, 1, 2, 3, 5, 6] {
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
        for kind in (0..KINDS).filter(|kind| *kind != last) {
            while world.deliver_one(kind) {}
        }
        world.pass();
        world.pass_lifts();
        for _ in 0..100 {
            for kind in 0..KINDS {
                while world.deliver_one(kind) {}
            }
            world.let_pass(jiff::SignedDuration::from_secs(1));
            world.pass();
            world.pass_lifts();
        }
        assert!(world.lifts_have_ended(), "kind {last} is listed last");
    }
}
