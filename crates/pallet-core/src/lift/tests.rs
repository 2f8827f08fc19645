//! What a Lift does next, from its start to its end.

pub(crate) mod standings;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::plan::{
    SessionKind, Trouble,
    next::{self, Identity},
    tests::{ago, machine, now, object, phase_result, settled_as},
};
use pallet_api::group_node::{Outcome, PhaseResult};

const UID: &str = "l-1";
const NONE: [u32; 0] = [];

/// A Lift of a group `web` with as many settled nodes, as it stands before its first pass.
struct Stage {
    snapshot: LiftSnapshot,
    group: Value,
}

impl Stage {
    fn new(spec: Value, nodes: u32) -> Self {
        Self::with_group(spec, json!({"count": nodes}), nodes)
    }

    fn with_group(spec: Value, group: Value, nodes: u32) -> Self {
        let mut declared = json!({"groups": ["web"]});
        if let (Value::Object(declared), Value::Object(spec)) = (&mut declared, spec) {
            declared.extend(spec);
        }
        let spec: LiftFields = serde_json::from_value(declared).unwrap();
        let key = GroupKey { namespace: "shop".into(), name: "look".into() };
        let head = Head { key, uid: UID.into(), generation: 1, created: ago(1), deleting: false, finalized: true };
        let timeout = Duration::from_secs(3600);
        let status = LiftStatus { observed_generation: Some(-1), ..LiftStatus::default() };
        let snapshot =
            LiftSnapshot { now: now(), head, spec, timeout, status, groups: BTreeMap::new(), open: BTreeSet::new() };
        let mut stage = Self { snapshot, group: group.clone() };
        let ordinals: Vec<u32> = (0..nodes).collect();
        stage.add("web", settled_as(group, &ordinals));
        stage
    }

    fn add(&mut self, name: &str, seen: Snapshot) {
        let lifted = resolve::lifted(&object(self.group.clone()), &Default::default(), &self.snapshot.spec);
        let plan = plan::plan(&seen);
        let view = GroupView { snapshot: seen, plan, lifted, roles: vec!["web".into()], taken: BTreeMap::new() };
        self.snapshot.groups.insert(name.into(), view);
    }

    fn web(&mut self) -> &mut GroupView {
        self.snapshot.groups.get_mut("web").unwrap()
    }

    /// A change to what is seen of the group, and the plan of its converge that follows from it.
    fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let view = self.web();
        change(&mut view.snapshot);
        view.plan = plan::plan(&view.snapshot);
    }

    /// One pass: its status is written, and what it begins is begun. Returns the ordinals on which it begins something.
    fn pass(&mut self) -> Vec<u32> {
        let plan = plan(&self.snapshot);
        self.snapshot.status = plan.status;
        let mut started = Vec::new();
        for effect in plan.effects {
            match effect {
                Effect::Start { target: (_, ordinal), run } => {
                    assert!(run.deadline >= now());
                    self.session(ordinal);
                    started.push(ordinal);
                }
                Effect::End { target: (_, ordinal), .. } => {
                    self.web().snapshot.sessions.remove(&format!("web-{ordinal}"));
                }
                Effect::Finalize | Effect::Release | Effect::Delete => {}
            }
        }
        started
    }

    fn session(&mut self, ordinal: u32) {
        let (kind, lift, since) = (SessionKind::Lift, Some(UID.to_owned()), self.snapshot.now);
        let view = SessionView { instance: format!("c-{ordinal}"), since, running: None, kind, lift };
        self.web().snapshot.sessions.insert(format!("web-{ordinal}"), view);
    }

    /// The session on a node is over, and what it found is written.
    fn write(&mut self, ordinal: u32, outcome: Option<NodeOutcome>, phase_results: Vec<PhaseResult>) {
        let view = self.web();
        view.snapshot.sessions.remove(&format!("web-{ordinal}"));
        let node = Arc::make_mut(view.snapshot.nodes.get_mut(&ordinal).unwrap());
        node.record.lifts.retain(|lift| lift.uid != UID);
        node.record.lifts.push(NodeLift { uid: UID.into(), name: "look".into(), outcome, phase_results });
    }

    fn finish(&mut self, ordinal: u32, outcome: NodeOutcome) {
        let as_phase_result = if outcome == NodeOutcome::Succeeded { Outcome::Succeeded } else { Outcome::Failed };
        self.write(ordinal, Some(outcome), vec![phase_result("configure", "d", as_phase_result, 1, now())]);
    }

    fn later(&mut self, seconds: i64) {
        self.snapshot.now += SignedDuration::from_secs(seconds);
        let now = self.snapshot.now;
        self.change(|seen| seen.now = now);
    }

    fn outcomes(&self) -> String {
        let shown = |nodes: &NodesByOutcome| format!("{} {:?} {}", nodes.group, nodes.outcome, nodes.nodes);
        self.snapshot.status.outcomes.iter().map(shown).collect::<Vec<_>>().join("; ")
    }

    /// The reason of Complete, led by those conditions that are true.
    fn conditions(&self) -> String {
        let conditions = &self.snapshot.status.conditions;
        let holds: Vec<&str> = conditions.iter().filter(|c| c.status == "True").map(|c| c.type_.as_str()).collect();
        let complete = conditions.iter().find(|c| c.type_ == "Complete").expect("it says how it stands");
        format!("{}: {}", holds.join(" "), complete.reason)
    }

    fn message(&self) -> &str {
        self.snapshot.status.conditions.first().map(|c| c.message.as_str()).unwrap_or_default()
    }
}

#[test]
fn a_lift_goes_to_all_nodes_at_once_and_is_complete_when_all_have_succeeded() {
    let mut stage = Stage::new(json!({}), 3);
    assert_eq!(stage.pass(), [0, 1, 2]);
    assert_eq!((stage.outcomes().as_str(), stage.conditions().as_str()), ("web Running 0-2", "Reconciling: Running"));
    stage.finish(0, NodeOutcome::Succeeded);
    assert_eq!(stage.pass(), NONE);
    assert_eq!(stage.outcomes(), "web Running 1-2; web Succeeded 0");
    stage.finish(1, NodeOutcome::Succeeded);
    stage.finish(2, NodeOutcome::Succeeded);
    stage.pass();
    assert_eq!((stage.outcomes().as_str(), stage.conditions().as_str()), ("web Succeeded 0-2", "Complete: Succeeded"));
    let status = stage.snapshot.status.clone();
    assert_eq!((status.nodes, status.succeeded, status.failed, status.running), (3, 3, 0, 0));
    assert!(status.completion_time.is_some());
    // What has ended stays as it is, whatever becomes of its nodes.
    stage.change(|seen| seen.nodes.clear());
    stage.pass();
    assert_eq!(stage.snapshot.status, status);
}

/// `kubectl wait --for=condition=Complete` passes over a condition of an older generation.
#[test]
fn what_a_lift_came_to_holds_for_a_spec_that_was_edited_since() {
    let mut stage = Stage::new(json!({}), 0);
    stage.pass();
    stage.snapshot.head.generation = 2;
    stage.pass();
    let status = &stage.snapshot.status;
    assert_eq!(status.observed_generation, Some(2));
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
    assert_eq!(stage.conditions(), "Complete: NoNodes");
}

/// A crash between the start of a session and the write of its status would leave a run that nobody ends.
#[test]
fn nothing_is_begun_that_the_status_does_not_say_may_have_been() {
    for spec in [json!({}), json!({"rollout": {"maxParallel": 1}}), json!({"rollout": {"order": "Barrier"}})] {
        let mut stage = Stage::new(spec, 4);
        for _ in 0..4 {
            let plan = plan(&stage.snapshot);
            let running: BTreeSet<u32> = plan
                .status
                .outcomes
                .iter()
                .filter(|n| n.outcome == NodeOutcome::Running)
                .flat_map(|n| intervals::parse(&n.nodes))
                .collect();
            let started: Vec<u32> = stage.pass();
            assert!(started.iter().all(|ordinal| running.contains(ordinal)));
            started.iter().for_each(|ordinal| stage.finish(*ordinal, NodeOutcome::Succeeded));
        }
    }
    let mut unfinalized = Stage::new(json!({}), 2);
    unfinalized.snapshot.head.finalized = false;
    let before = unfinalized.snapshot.status.clone();
    let plan = plan(&unfinalized.snapshot);
    assert_eq!((plan.effects, plan.status), (vec![Effect::Finalize], before));
}

#[test]
fn no_more_nodes_than_may_are_begun_and_one_that_waits_for_a_person_keeps_its_place() {
    let mut stage = Stage::new(json!({"rollout": {"maxParallel": "50%"}}), 4);
    assert_eq!(stage.pass(), [0, 1]);
    stage.finish(1, NodeOutcome::Succeeded);
    assert_eq!(stage.pass(), [2]);
    let mut manual = Stage::with_group(
        json!({"phases": ["app-rollout"], "rollout": {"maxParallel": 1}}),
        json!({"count": 2, "phases": {"app-rollout": {"actions": [
            {"name": "look", "manual": {"message": "look at it"}}, {"exec": {"script": "go"}}
        ]}}}),
        2,
    );
    assert_eq!(manual.pass(), [0]);
    let lifted = manual.web().lifted.clone().unwrap();
    let node = manual.web().snapshot.nodes[&0].clone();
    let settings = lifted.phases.settings.digest.to_string();
    let identity = identity(&node, Some(&machine(node.ordinal)));
    let rendered = next::rendered(&lifted, &identity, &node.record, &PhaseName::app_rollout()).unwrap();
    let mut waiting = phase_result("app-rollout", rendered.digest.as_str(), Outcome::Waiting, 1, now());
    waiting.actions = serde_json::from_value(json!([{"name": "look", "result": "Waiting"}])).unwrap();
    let phase_results = vec![phase_result("settings", &settings, Outcome::Succeeded, 1, now()), waiting];
    manual.write(0, None, phase_results);
    assert_eq!(manual.pass(), NONE);
    assert_eq!(manual.conditions(), "Stalled: ManualStep");
    assert!(manual.message().contains("pallet.dev/ack=app-rollout-run-1"), "{}", manual.message());
    manual.change(|seen| Arc::make_mut(seen.nodes.get_mut(&0).unwrap()).ack = "app-rollout-run-1".into());
    assert_eq!(manual.pass(), [0]);
    assert_eq!(manual.conditions(), "Reconciling: Running");
}

#[test]
fn the_nodes_are_fixed_when_it_starts() {
    let mut stage = Stage::new(json!({}), 3);
    stage.pass();
    stage.finish(0, NodeOutcome::Succeeded);
    // One is removed, one is made anew under its name, and one more joins.
    stage.change(|seen| {
        seen.nodes.remove(&1);
        let mut again = (*seen.nodes[&2]).clone();
        again.created = now() + SignedDuration::from_secs(5);
        let mut more = again.clone();
        (more.ordinal, more.name) = (3, "web-3".into());
        seen.nodes.insert(2, Arc::new(again));
        seen.nodes.insert(3, Arc::new(more));
        seen.sessions.clear();
    });
    assert_eq!(stage.pass(), NONE);
    assert_eq!(stage.outcomes(), "web Succeeded 0; web Removed 1-2");
    assert_eq!(stage.conditions(), "Complete: Succeeded");
    assert_eq!(stage.message(), "1 of 3 nodes succeeded; 2 were removed before they were done");
    let mut all = Stage::new(json!({}), 1);
    all.pass();
    all.snapshot.groups.clear();
    all.pass();
    assert_eq!(all.conditions(), "Failed Stalled: NodesRemoved");
}

/// The clock of the API server, which says when a node was made, may be ahead of ours.
#[test]
fn a_node_that_seems_younger_than_the_start_is_none_of_those_made_since() {
    let mut stage = Stage::new(json!({}), 2);
    let ahead = now() + SignedDuration::from_secs(7);
    stage.change(|seen| Arc::make_mut(seen.nodes.get_mut(&1).unwrap()).created = ahead);
    assert_eq!(stage.pass(), [0, 1]);
    assert_eq!(stage.snapshot.status.start_time.as_ref().unwrap().0, ahead);
}

#[test]
fn names_and_roles_narrow_it() {
    let mut stage = Stage::new(json!({"nodes": ["web-1", "web-2"]}), 4);
    assert_eq!(stage.pass(), [1, 2]);
    let mut stage = Stage::new(json!({"nodes": ["web-9"]}), 2);
    assert_eq!(stage.pass(), NONE);
    assert_eq!(stage.conditions(), "Stalled: NodeMissing");
    let mut stage = Stage::new(json!({"role": "db"}), 2);
    stage.pass();
    assert_eq!(stage.conditions(), "Complete: NoNodes");
    let mut stage = Stage::new(json!({"role": "web"}), 2);
    assert_eq!(stage.pass(), [0, 1]);
}

#[test]
fn what_keeps_it_from_starting_is_said_and_mends_by_itself() {
    let mut missing = Stage::new(json!({}), 2);
    let view = missing.snapshot.groups.remove("web").unwrap();
    missing.pass();
    assert_eq!(missing.conditions(), "Stalled: GroupMissing");
    missing.snapshot.groups.insert("web".into(), view);
    assert_eq!(missing.pass(), [0, 1]);

    let mut deleting = Stage::new(json!({}), 1);
    deleting.change(|seen| seen.head.deletion = Some(crate::group::Cascade::Nodes));
    deleting.pass();
    assert_eq!(deleting.conditions(), "Stalled: GroupDeleting");

    let mut invalid = Stage::new(json!({}), 1);
    invalid.change(|seen| seen.group = Err(vec![FieldError { path: "spec.x".into(), message: "no".into() }]));
    invalid.pass();
    assert_eq!(invalid.conditions(), "Stalled: InvalidGroup");

    let mut unknown = Stage::new(json!({"phases": ["settings", "deploy"]}), 1);
    unknown.pass();
    assert_eq!(unknown.conditions(), "Stalled: UnknownPhase");
    assert!(
        unknown
            .message()
            .ends_with("nobody defines a phase \"deploy\"; the groups have bootstrap, configure, settings")
    );

    // Two of three are on their way.
    let mut growing = Stage::with_group(json!({}), json!({"count": 3}), 1);
    growing.pass();
    assert_eq!(growing.conditions(), "Reconciling: NodesMissing");
    let mut paused = Stage::with_group(json!({}), json!({"count": 3, "paused": true}), 1);
    assert_eq!(paused.pass(), [0], "a paused group makes no nodes, and is lifted as it is");
}

#[test]
fn a_lift_that_cannot_start_ends_when_its_time_is_over() {
    let mut stage = Stage::new(json!({}), 1);
    stage.snapshot.groups.clear();
    stage.pass();
    stage.snapshot.now = stage.snapshot.head.created + SignedDuration::from_secs(3600);
    stage.pass();
    assert_eq!(stage.conditions(), "Failed Stalled: TimedOut");
    assert!(stage.message().contains("there is no GroupSpec \"web\""), "{}", stage.message());
    let mut cancelled = Stage::new(json!({"cancel": true}), 1);
    assert_eq!(cancelled.pass(), NONE);
    assert_eq!(cancelled.conditions(), "Failed Stalled: Cancelled");
}

#[test]
fn it_waits_for_bootstrap_and_for_what_converge_has_to_do_and_not_for_what_it_leaves() {
    let mut stage = Stage::new(json!({}), 4);
    stage.change(|seen| {
        let node = |seen: &mut Snapshot, ordinal: u32, change: &dyn Fn(&mut Record)| {
            change(&mut Arc::make_mut(seen.nodes.get_mut(&ordinal).unwrap()).record);
        };
        // Not bootstrapped; bootstrap has failed for good; configure is due; configure has failed for good.
        node(seen, 0, &|record| record.phase_results.clear());
        node(seen, 1, &|record| {
            let first = next_digest(record, "bootstrap");
            record
                .phase_results
                .insert(PhaseName::bootstrap(), phase_result("bootstrap", &first, Outcome::Failed, 3, ago(9)));
        });
        node(seen, 2, &|record| {
            record.phase_results.remove(&PhaseName::configure());
        });
        node(seen, 3, &|record| {
            let digest = record.phase_results[&PhaseName::configure()].digest.clone();
            record
                .phase_results
                .insert(PhaseName::configure(), phase_result("configure", &digest, Outcome::Failed, 3, ago(9)));
        });
    });
    assert_eq!(stage.pass(), [3]);
    assert_eq!(stage.outcomes(), "web Pending 0,2; web Running 3; web Failed 1");
    assert!(stage.message().contains("web-0: NotBootstrapped"), "{}", stage.message());
    stage.change(|seen| seen.group.as_mut().unwrap().paused = true);
    assert_eq!(stage.pass(), [2], "a paused group's converge does nothing, so nobody waits for it");
}

/// The digest of a phase on the node that a record is of.
fn next_digest(record: &Record, phase: &str) -> String {
    let group = resolve::resolve(&object(json!({"count": 4})), &Default::default()).unwrap();
    let identity = Identity {
        name: "web-1".into(),
        ordinal: 1,
        address: "10.0.0.1".into(),
        attributes: Arc::default(),
        retry_token: String::new(),
        ack: String::new(),
    };
    let bare = Record { incarnation: record.incarnation.clone(), facts: record.facts.clone(), ..Record::default() };
    match next::next(&group, &identity, &bare, now()) {
        Next::Run { rendered, .. } if rendered.phase.as_str() == phase => rendered.digest.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lifts_of_one_node_go_one_after_the_other() {
    let mut stage = Stage::new(json!({}), 2);
    stage.web().taken.insert(0, "first".into());
    assert_eq!(stage.pass(), [1]);
    assert!(stage.message().contains("Lift first was there first") || stage.outcomes().starts_with("web Pending 0"));
    stage.web().taken.clear();
    assert_eq!(stage.pass(), [0]);
}

#[test]
fn a_failure_stops_the_others_only_where_it_is_told_to() {
    let mut isolated = Stage::new(json!({"rollout": {"maxParallel": 1}}), 3);
    isolated.pass();
    isolated.finish(0, NodeOutcome::Failed);
    assert_eq!(isolated.pass(), [1]);
    isolated.finish(1, NodeOutcome::Succeeded);
    isolated.pass();
    isolated.finish(2, NodeOutcome::Succeeded);
    isolated.pass();
    assert_eq!(isolated.conditions(), "Failed Stalled: NodesFailed");
    assert_eq!(isolated.message(), "1 of 3 nodes failed; web-0: configure attempt 1: failed with exit code 7: no luck");

    let mut all = Stage::new(json!({"rollout": {"maxParallel": 2, "onFailure": "StopAll"}}), 4);
    all.pass();
    all.finish(0, NodeOutcome::Failed);
    assert_eq!(all.pass(), NONE);
    assert_eq!(all.outcomes(), "web Running 1; web Failed 0; web Skipped 2-3");
    assert_eq!(plan(&all.snapshot).bounds[&("web".into(), 1)], Bound::Hold);
    // Its session ends between two phases, and what it had before it is left.
    all.write(1, None, vec![phase_result("settings", "d", Outcome::Succeeded, 1, now())]);
    all.pass();
    assert_eq!(all.outcomes(), "web Failed 0; web Skipped 1-3");
    assert_eq!(all.conditions(), "Failed Stalled: Stopped");

    let mut some = Stage::new(json!({"rollout": {"maxParallel": 1, "maxFailures": 1}}), 4);
    some.pass();
    some.finish(0, NodeOutcome::Failed);
    assert_eq!(some.pass(), [1]);
    some.finish(1, NodeOutcome::TimedOut);
    assert_eq!(some.pass(), NONE);
    assert_eq!(some.outcomes(), "web Failed 0; web TimedOut 1; web Skipped 2-3");
}

#[test]
fn at_a_barrier_all_go_through_one_phase_before_any_begins_the_next() {
    let group = json!({"count": 2, "phases": {
        "install": {"actions": [{"exec": {"script": "i"}}]}, "configure": {"actions": [{"exec": {"script": "c"}}]}
    }});
    let spec = json!({"phases": ["install", "configure"], "rollout": {"order": "Barrier"}});
    let mut stage = Stage::with_group(spec, group, 2);
    stage.pass();
    let bound = |stage: &Stage| plan(&stage.snapshot).bounds[&("web".to_owned(), 0)].clone();
    assert_eq!(bound(&stage), Bound::Through(PhaseName::settings()));
    let done = |stage: &mut Stage, ordinal: u32, phases: &[&str]| {
        let lifted = stage.web().lifted.clone().unwrap();
        let node = stage.web().snapshot.nodes[&ordinal].clone();
        let digest = |phase: &str| match phase {
            "settings" => lifted.phases.settings.digest.to_string(),
            _ => next::rendered(
                &lifted,
                &identity(&node, Some(&machine(node.ordinal))),
                &node.record,
                &PhaseName::new(phase),
            )
            .unwrap()
            .digest
            .to_string(),
        };
        let phase_results =
            phases.iter().map(|phase| phase_result(phase, &digest(phase), Outcome::Succeeded, 1, now()));
        let phase_results = phase_results.collect();
        stage.write(ordinal, None, phase_results);
    };
    done(&mut stage, 0, &["settings"]);
    assert_eq!(stage.pass(), NONE, "the other one has settings before it");
    done(&mut stage, 1, &["settings"]);
    assert_eq!(bound(&stage), Bound::Through(PhaseName::install()));
    assert_eq!(stage.pass(), [0, 1]);
    done(&mut stage, 0, &["settings", "install"]);
    assert_eq!(stage.pass(), NONE);
    stage.finish(1, NodeOutcome::Failed);
    assert_eq!(stage.pass(), [0], "one that has failed is not waited for");
}

#[test]
fn a_lift_that_is_cancelled_ends_what_it_has_begun_and_leaves_the_rest() {
    let mut stage = Stage::new(json!({"rollout": {"maxParallel": 2}}), 3);
    stage.pass();
    stage.snapshot.spec.cancel = true;
    stage.later(1);
    let ends = plan(&stage.snapshot).effects;
    assert!(ends.iter().all(|effect| matches!(effect, Effect::End { .. })) && ends.len() == 2, "{ends:?}");
    stage.pass();
    assert_eq!(
        (stage.outcomes().as_str(), stage.conditions().as_str()),
        ("web Running 0-1; web Cancelled 2", "Reconciling: Ending")
    );
    let starts = plan(&stage.snapshot).effects;
    let ending =
        |effect: &Effect| matches!(effect, Effect::Start { run, .. } if run.ends == Some(NodeOutcome::Cancelled));
    assert!(starts.iter().all(ending) && starts.len() == 2, "{starts:?}");
    assert_eq!(stage.pass(), [0, 1]);
    assert_eq!(plan(&stage.snapshot).effects, [], "the sessions that end it are let be");
    stage.finish(0, NodeOutcome::Cancelled);
    // The other one's container went, and what ran there with it.
    stage.change(|seen| {
        seen.sessions.clear();
        seen.machines.remove("web-1");
    });
    stage.pass();
    assert_eq!(
        (stage.outcomes().as_str(), stage.conditions().as_str()),
        ("web Cancelled 0-2", "Failed Stalled: Cancelled")
    );
}

#[test]
fn a_node_that_cannot_be_reached_holds_the_end_of_a_lift_for_a_minute() {
    let mut stage = Stage::new(json!({}), 1);
    stage.pass();
    stage.change(|seen| {
        seen.sessions.clear();
        let until = now() + SignedDuration::from_secs(600);
        let (reason, message) = ("ConnectionLost".into(), "no route".into());
        let target = machine(0).target.unwrap();
        let trouble = Trouble { instance: "c-0".into(), target, reason, message, since: now(), until, about: None };
        seen.troubles.insert("web-0".into(), trouble);
    });
    stage.later(3600);
    stage.pass();
    assert_eq!(stage.conditions(), "Reconciling: Ending");
    stage.later(61);
    stage.pass();
    assert_eq!(
        (stage.outcomes().as_str(), stage.conditions().as_str()),
        ("web TimedOut 0", "Failed Stalled: TimedOut")
    );
}

#[test]
fn while_it_is_suspended_nothing_begins_and_no_time_passes() {
    let mut stage = Stage::new(json!({"rollout": {"maxParallel": 1}}), 2);
    stage.pass();
    stage.snapshot.spec.suspend = true;
    stage.finish(0, NodeOutcome::Succeeded);
    assert_eq!(stage.pass(), NONE);
    assert_eq!(stage.conditions(), "Reconciling: Suspended");
    stage.later(10_000);
    assert_eq!(stage.pass(), NONE);
    assert_eq!(stage.conditions(), "Reconciling: Suspended");
    stage.snapshot.spec.suspend = false;
    assert_eq!(stage.pass(), [1]);
    assert_eq!(stage.snapshot.status.suspended_seconds, 10_000);
    stage.later(3599);
    assert_eq!(stage.conditions(), "Reconciling: Running");
    stage.later(2);
    stage.pass();
    assert_eq!(stage.conditions(), "Reconciling: Ending");
    let mut from_birth = Stage::new(json!({"suspend": true}), 1);
    assert_eq!(from_birth.pass(), NONE);
    assert_eq!(from_birth.conditions(), "Reconciling: Suspended");
}

#[test]
fn one_that_is_deleted_ends_what_it_has_begun_before_it_goes() {
    let mut stage = Stage::new(json!({}), 1);
    stage.pass();
    stage.snapshot.head.deleting = true;
    stage.later(1);
    stage.pass();
    stage.pass();
    assert!(!plan(&stage.snapshot).effects.contains(&Effect::Release));
    stage.finish(0, NodeOutcome::Cancelled);
    assert_eq!(plan(&stage.snapshot).effects, [Effect::Release]);
    let mut unstarted = Stage::new(json!({}), 1);
    unstarted.snapshot.head.deleting = true;
    assert_eq!(plan(&unstarted.snapshot).effects, [Effect::Release]);
}

#[test]
fn it_is_deleted_when_it_has_been_over_long_enough() {
    let mut stage = Stage::new(json!({"ttlSecondsAfterFinished": 60}), 0);
    stage.pass();
    stage.snapshot.head.finalized = false;
    let plan_now = plan(&stage.snapshot);
    assert_eq!((plan_now.effects, plan_now.wake), (vec![], Some(now() + SignedDuration::from_secs(60))));
    stage.later(60);
    assert_eq!(plan(&stage.snapshot).effects, [Effect::Delete]);
}

/// What its last session found is not written yet: a second one would do it all again.
#[test]
fn what_is_known_and_not_written_yet_is_waited_for() {
    let mut stage = Stage::new(json!({}), 1);
    stage.pass();
    stage.finish(0, NodeOutcome::Succeeded);
    stage.change(|seen| {
        let node = Arc::make_mut(seen.nodes.get_mut(&0).unwrap());
        node.saved = Some(Record { lifts: Vec::new(), ..node.record.clone() });
    });
    assert_eq!(stage.pass(), NONE);
    assert_eq!(stage.outcomes(), "web Running 0");
}

/// What a node did for a Lift whose record was dropped would be done again.
#[test]
fn a_node_is_for_no_more_lifts_at_once_than_its_status_holds() {
    let mut stage = Stage::new(json!({}), 1);
    let unfinished =
        |n: usize| NodeLift { uid: format!("u{n}"), name: format!("l{n}"), outcome: None, phase_results: vec![] };
    stage.change(|seen| {
        Arc::make_mut(seen.nodes.get_mut(&0).unwrap()).record.lifts = (0..7).map(unfinished).collect();
    });
    stage.snapshot.open = (0..7).map(|n| format!("u{n}")).collect();
    assert_eq!(stage.pass(), NONE);
    assert!(stage.message().contains("as many Lifts are unfinished"), "{}", stage.message());
    // One of them is over, without a word on this node.
    stage.snapshot.open.remove("u3");
    assert_eq!(stage.pass(), [0]);
}

#[test]
fn its_own_attempts_count_and_no_others() {
    let mut stage = Stage::new(json!({"retry": {"limit": 1, "backoff": "10s"}}), 1);
    stage.pass();
    let lifted = stage.web().lifted.clone().unwrap();
    assert_eq!((lifted.retry.limit, lifted.retry.backoff), (1, Duration::from_secs(10)));
    let node = stage.web().snapshot.nodes[&0].clone();
    let rendered =
        next::rendered(&lifted, &identity(&node, Some(&machine(node.ordinal))), &node.record, &PhaseName::configure())
            .unwrap();
    let settings = phase_result("settings", lifted.phases.settings.digest.as_str(), Outcome::Succeeded, 1, now());
    let failed = phase_result("configure", rendered.digest.as_str(), Outcome::Failed, 1, now());
    stage.write(0, None, vec![settings, failed]);
    assert_eq!(stage.pass(), NONE);
    assert!(stage.message().contains("Backoff: configure failed; attempt 2 follows"), "{}", stage.message());
    stage.later(11);
    assert_eq!(stage.pass(), [0]);
}
