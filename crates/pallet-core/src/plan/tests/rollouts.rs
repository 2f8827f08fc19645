//! How nodes proceed relative to each other, and how they are replaced.

use super::*;
use pallet_api::reason::Reason;

fn barrier() -> Value {
    let script = |text: &str| json!({"actions": [{"exec": {"script": text}}]});
    json!({
        "count": 3,
        "phases": {"bootstrap": script("boot"), "init": script("init"), "configure": script("conf")},
        "converge": {"phases": ["init", "configure"], "retry": {"limit": 0}, "rollout": {"order": "Barrier", "maxParallel": 9}}
    })
}

/// A settled node on which everything from a phase on is still to be done.
pub(super) fn rewind(snapshot: &mut Snapshot, ordinal: u32, phases: &[&str]) {
    let node = Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap());
    for phase in phases {
        node.record.phase_results.get_mut(&PhaseName::new(*phase)).unwrap().digest = "older".into();
    }
}

fn forget(snapshot: &mut Snapshot, ordinal: u32, phases: &[&str]) {
    let node = Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap());
    node.record.phase_results.retain(|phase, _| !phases.contains(&phase.as_str()));
    Arc::make_mut(snapshot.machines.get_mut(&format!("web-{ordinal}")).unwrap()).gate_open = false;
}

pub(super) fn halt(snapshot: &mut Snapshot, ordinal: u32, phase: &str) {
    let group = snapshot.group.clone().unwrap();
    let node = Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap());
    let failed = node.record.phase_results.get_mut(&PhaseName::new(phase)).unwrap();
    (failed.outcome, failed.attempt) = (Outcome::Failed, group.retry.limit + 1);
    failed.message = "failed with exit code 7".into();
}

/// What starts, by ordinal and phase.
fn starts(snapshot: &Snapshot) -> Vec<(u32, String)> {
    let planned = plan(snapshot);
    let phase = |ordinal: u32| match &planned.steps[&ordinal] {
        Step::Run { phase, .. } => phase.to_string(),
        other => panic!("{other:?}"),
    };
    planned.effects.iter().filter_map(Effect::starts).map(|ordinal| (ordinal, phase(ordinal))).collect()
}

fn at(pairs: &[(u32, &str)]) -> Vec<(u32, String)> {
    pairs.iter().map(|(ordinal, phase)| (*ordinal, (*phase).to_owned())).collect()
}

#[test]
fn no_node_begins_a_phase_that_another_has_not_come_to() {
    let mut snapshot = settled_as(barrier(), &[0, 1, 2]);
    for ordinal in 0..3 {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    rewind(&mut snapshot, 1, &["init"]);
    assert_eq!(starts(&snapshot), at(&[(1, "init")]));
    let planned = plan(&snapshot);
    assert!(
        matches!(&planned.steps[&0], Step::Await(Cause::Barrier { due, at }) if due.as_str() == "configure" && at.as_str() == "init")
    );
    assert_eq!(planned.bounds[&1], Bound::Through(PhaseName::init()), "its session ends at the barrier");
}

#[test]
fn in_a_new_group_all_wait_for_all_and_a_pod_that_never_comes_is_waited_for_until_the_timeout() {
    let mut snapshot = settled_as(barrier(), &[0, 1, 2]);
    forget(&mut snapshot, 0, &["settings", "init", "configure"]);
    forget(&mut snapshot, 1, &["bootstrap", "settings", "init", "configure"]);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&2).unwrap());
    node.record = Record::default();
    snapshot.machines.remove("web-2");
    assert_eq!(starts(&snapshot), at(&[(1, "bootstrap")]));
    assert!(plan(&snapshot).wake.is_some(), "when patience ends it is looked at again");
    Arc::make_mut(snapshot.nodes.get_mut(&2).unwrap()).created = ago(3600);
    forget(&mut snapshot, 1, &[]);
    assert_eq!(starts(&snapshot), at(&[(1, "bootstrap")]));
    let node = Arc::make_mut(snapshot.nodes.get_mut(&1).unwrap());
    node.record
        .phase_results
        .insert(PhaseName::bootstrap(), phase_result("bootstrap", "any", Outcome::Succeeded, 1, ago(9)));
    assert_eq!(starts(&snapshot), at(&[(0, "settings"), (1, "settings")]));
}

#[test]
fn who_joins_later_catches_up_alone_and_holds_nobody() {
    let mut snapshot = settled_as(barrier(), &[0, 1, 2]);
    for ordinal in [0, 1] {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    forget(&mut snapshot, 2, &["bootstrap", "settings", "init", "configure"]);
    assert_eq!(starts(&snapshot), at(&[(0, "configure"), (1, "configure"), (2, "bootstrap")]));
    assert_eq!(plan(&snapshot).bounds[&2], Bound::Free);
}

#[test]
fn who_has_failed_or_is_lost_holds_nobody() {
    let mut snapshot = settled_as(barrier(), &[0, 1, 2]);
    for ordinal in 0..3 {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    halt(&mut snapshot, 1, "init");
    Arc::make_mut(snapshot.machines.get_mut("web-2").unwrap()).deleting = true;
    assert_eq!(starts(&snapshot), at(&[(0, "configure")]));
}

/// Settings is read before every phase: a node that just does that has not gone back to settings.
#[test]
fn a_session_that_reads_the_facts_draws_nobody_back() {
    let mut snapshot = settled_as(barrier(), &[0, 1, 2]);
    for ordinal in 0..3 {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    let running = Running { phase: "settings".into(), run_id: "r".into(), attempt: 1, started_at: Time(now()) };
    let session = SessionView {
        instance: "c-0".into(),
        since: now(),
        running: Some(running),
        kind: SessionKind::Converge,
        lift: None,
    };
    snapshot.sessions.insert("web-0".into(), session);
    assert_eq!(plan(&snapshot).bounds[&1], Bound::Through(PhaseName::configure()));
}

pub(super) fn stopping(rollout: Value) -> Snapshot {
    let spec = json!({"count": 4, "converge": {"retry": {"limit": 0}, "rollout": rollout}});
    let mut snapshot = settled_as(spec, &[0, 1, 2, 3]);
    halt(&mut snapshot, 0, "configure");
    for ordinal in [1, 2, 3] {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    snapshot
}

#[test]
fn a_failure_isolates_its_node_or_stops_all() {
    let isolated = stopping(json!({"maxParallel": 9}));
    assert_eq!(starts(&isolated).len(), 3);
    let stopped = stopping(json!({"maxParallel": 9, "onFailure": "StopAll"}));
    assert_eq!(starts(&stopped), []);
    assert!(plan(&stopped).bounds.iter().all(|(ordinal, bound)| (*bound == Bound::Hold) == (*ordinal != 0)));
    let status = status::group(&stopped, &plan(&stopped).steps);
    assert_eq!(status.conditions[1].reason, "RolloutStopped");
    assert!(status.conditions[1].message.contains("web-0: configure attempt 1"), "{}", status.conditions[1].message);
    assert!(status.conditions[1].message.ends_with("(3 nodes wait for that)"), "{}", status.conditions[1].message);
}

#[test]
fn max_failures_stops_either() {
    assert_eq!(starts(&stopping(json!({"maxParallel": 9, "maxFailures": 1}))).len(), 3);
    assert_eq!(starts(&stopping(json!({"maxParallel": 9, "onFailure": "StopAll", "maxFailures": 1}))).len(), 3);
    assert_eq!(starts(&stopping(json!({"maxParallel": 9, "maxFailures": 0}))), []);
    // A quarter of four is one; three quarters of a node are none.
    assert_eq!(starts(&stopping(json!({"maxParallel": 9, "maxFailures": "25%"}))).len(), 3);
    assert_eq!(starts(&stopping(json!({"maxParallel": 9, "maxFailures": "20%"}))), []);
}

#[test]
fn a_stopped_rollout_lets_those_that_fail_use_their_attempts_and_goes_on_when_they_are_mended() {
    let mut stopped = stopping(json!({"maxParallel": 9, "onFailure": "StopAll"}));
    stopped.group.as_mut().unwrap().retry.limit = 1;
    let group = stopped.group.clone().unwrap();
    let node = Arc::make_mut(stopped.nodes.get_mut(&0).unwrap());
    node.record.phase_results.get_mut(&PhaseName::configure()).unwrap().attempt = 1;
    assert_eq!(group.retry.limit, 1);
    assert_eq!(starts(&stopped), at(&[(0, "configure")]));
    let node = Arc::make_mut(stopped.nodes.get_mut(&0).unwrap());
    node.record.phase_results.get_mut(&PhaseName::configure()).unwrap().outcome = Outcome::Succeeded;
    assert_eq!(starts(&stopped).len(), 3);
}

// ---- replacement ---------------------------------------------------------------------------------------------------

fn outdated(rollout: Value, ordinals: &[u32], old: &[u32]) -> Snapshot {
    let spec = json!({"count": ordinals.len(), "converge": {"rollout": rollout}});
    let mut snapshot = settled_as(spec, ordinals);
    for ordinal in old {
        Arc::make_mut(snapshot.machines.get_mut(&format!("web-{ordinal}")).unwrap()).template_hash = "older".into();
    }
    snapshot
}

fn replaced(snapshot: &Snapshot) -> Vec<u32> {
    let why = |effect: &Effect| match effect {
        Effect::DeleteNode { ordinal, why: Removal::Replaced { .. }, .. } => Some(*ordinal),
        _ => None,
    };
    plan(snapshot).effects.iter().filter_map(why).collect()
}

#[test]
fn as_many_are_replaced_as_may_be_unavailable_the_highest_first() {
    let all = [0, 1, 2, 3];
    assert_eq!(replaced(&outdated(json!({}), &all, &all)), [3]);
    assert_eq!(replaced(&outdated(json!({"maxUnavailable": "50%"}), &all, &all)), [3, 2]);
    assert_eq!(replaced(&outdated(json!({"maxUnavailable": "10%"}), &all, &all)), [3], "one at least");
    assert!(replaced(&outdated(json!({"replacement": "Never"}), &all, &all)).is_empty());
    assert_eq!(replaced(&outdated(json!({}), &all, &[1])), [1]);
    let mut marked = outdated(json!({}), &all, &all);
    Arc::make_mut(marked.nodes.get_mut(&1).unwrap()).marked = true;
    assert_eq!(replaced(&marked), [1]);
}

#[test]
fn what_is_unavailable_already_goes_first_and_counts() {
    let mut snapshot = outdated(json!({}), &[0, 1, 2, 3], &[0, 1, 2, 3]);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).ready = false;
    assert_eq!(replaced(&snapshot), [0]);
    // A new one that does not come up stops the rollout.
    let mut snapshot = outdated(json!({}), &[0, 1, 2, 3], &[0, 1, 2]);
    Arc::make_mut(snapshot.machines.get_mut("web-3").unwrap()).ready = false;
    assert!(replaced(&snapshot).is_empty());
    // So does one that is on its way out.
    let mut snapshot = outdated(json!({}), &[0, 1, 2, 3], &[0, 1, 2, 3]);
    Arc::make_mut(snapshot.nodes.get_mut(&3).unwrap()).deletion = Some(Cascade::Nodes);
    assert!(replaced(&snapshot).is_empty());
}

#[test]
fn nothing_is_replaced_for_a_template_that_no_pod_can_be_made_from_nor_while_the_rollout_is_stopped() {
    let mut refused = outdated(json!({}), &[0, 1], &[0, 1]);
    refused.template = TemplateVerdict::Refused { reason: Reason::InvalidTemplate, message: "no".into() };
    assert!(replaced(&refused).is_empty());
    refused.template = TemplateVerdict::Unchecked;
    assert!(replaced(&refused).is_empty());
    // A pod that was made from it speaks for it, as after a restart of the operator.
    let mut proven = outdated(json!({}), &[0, 1], &[0]);
    proven.template = TemplateVerdict::Unchecked;
    assert_eq!(replaced(&proven), [0]);
    let mut stopped = outdated(json!({"onFailure": "StopAll"}), &[0, 1], &[0]);
    halt(&mut stopped, 1, "configure");
    assert!(replaced(&stopped).is_empty());
    // Whose last attempt failed on a pod that is to be replaced stops nothing: the new template may be what mends it.
    let mut mended = outdated(json!({"onFailure": "StopAll"}), &[0, 1], &[0, 1]);
    halt(&mut mended, 1, "configure");
    assert_eq!(replaced(&mended), [1]);
    // A node that goes makes room in a quota that is used up.
    let mut full = outdated(json!({}), &[0, 1], &[0, 1]);
    full.template = TemplateVerdict::Refused { reason: QUOTA, message: "exceeded quota".into() };
    assert_eq!(replaced(&full), [1]);
}

/// Found by review: all of them counted as unavailable, and went at once.
#[test]
fn without_a_readiness_gate_an_edit_of_all_is_no_reason_to_remove_all() {
    let mut snapshot = outdated(json!({}), &[0, 1, 2, 3], &[0, 1, 2, 3]);
    for machine in snapshot.machines.values_mut() {
        let machine = Arc::make_mut(machine);
        (machine.gated, machine.gate_open) = (false, false);
    }
    for ordinal in 0..4 {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    assert_eq!(replaced(&snapshot), [3]);
}

#[test]
fn a_rollout_that_has_stopped_still_looks_for_what_was_lost_from_sight() {
    let mut stopped = stopping(json!({"maxParallel": 9, "onFailure": "StopAll"}));
    let node = Arc::make_mut(stopped.nodes.get_mut(&1).unwrap());
    node.record.phase_results.get_mut(&PhaseName::configure()).unwrap().outcome = Outcome::Unknown;
    assert_eq!(starts(&stopped), at(&[(1, "configure")]));
}

#[test]
fn a_refusal_that_concerns_nobody_is_no_reason_to_stall() {
    let mut full = settled(2, &[0, 1]);
    full.template = TemplateVerdict::Refused { reason: Reason::Forbidden, message: "no".into() };
    full.recheck = true;
    let planned = plan(&full);
    assert_eq!((planned.effects, planned.wake), (vec![], None));
    assert_eq!(status::group(&full, &planned.steps).conditions[0].reason, "Converged");
}

#[test]
fn a_replaced_node_keeps_its_place_and_a_surge_takes_a_further_one() {
    let creates = |snapshot: &Snapshot| -> Vec<u32> {
        let created = |effect: &Effect| match effect {
            Effect::CreateNode { ordinal } => Some(*ordinal),
            _ => None,
        };
        plan(snapshot).effects.iter().filter_map(created).collect()
    };
    let mut leaving = outdated(json!({}), &[0, 1, 2], &[1]);
    Arc::make_mut(leaving.nodes.get_mut(&1).unwrap()).deletion = Some(Cascade::Nodes);
    assert!(creates(&leaving).is_empty(), "web-1 is waited for");
    leaving.machines.remove("web-1");
    assert!(creates(&leaving).is_empty(), "it will be gone in a moment");
    leaving.nodes.remove(&1);
    assert_eq!(creates(&leaving), [1]);
    let surge = outdated(json!({"maxSurge": 1, "maxUnavailable": 0}), &[0, 1, 2], &[0, 1, 2]);
    assert_eq!((creates(&surge), replaced(&surge)), (vec![3], vec![]));
    let mut grown = outdated(json!({"maxSurge": 1, "maxUnavailable": 0}), &[0, 1, 2, 3], &[0, 1, 2]);
    grown.group.as_mut().unwrap().count = 3;
    assert_eq!((creates(&grown), replaced(&grown)), (vec![], vec![2]));
}

// ---- ordinals ------------------------------------------------------------------------------------------------------

fn created(snapshot: &Snapshot) -> Vec<u32> {
    let created = |effect: &Effect| match effect {
        Effect::CreateNode { ordinal } => Some(*ordinal),
        _ => None,
    };
    plan(snapshot).effects.iter().filter_map(created).collect()
}

/// Nodes 1 and 2 of three are on their way out, and their pods end `ends`.
fn flapping(extra: Value, ends: Timestamp) -> Snapshot {
    let mut snapshot = settled_as(extra, &[0, 1, 2]);
    for ordinal in [1, 2] {
        Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap()).deletion = Some(Cascade::Nodes);
        let machine = Arc::make_mut(snapshot.machines.get_mut(&format!("web-{ordinal}")).unwrap());
        (machine.deleting, machine.ends) = (true, Some(ends));
    }
    snapshot
}

/// Reported of a count that went from 3 to 1 and back: web-3 and web-4 took the place of web-1 and web-2.
#[test]
fn a_count_that_flaps_renames_no_node() {
    let mut snapshot = flapping(json!({"count": 3}), now() + SignedDuration::from_secs(20));
    assert!(created(&snapshot).is_empty(), "both are waited for");
    assert!(plan(&snapshot).wake.is_some());
    // What is more than the two may come at once.
    snapshot.group.as_mut().unwrap().count = 4;
    assert_eq!(created(&snapshot), [3]);
    snapshot.group.as_mut().unwrap().count = 3;
    for ordinal in [2, 1] {
        snapshot.nodes.remove(&ordinal);
        snapshot.machines.remove(&format!("web-{ordinal}"));
        assert_eq!(created(&snapshot), [ordinal]);
        snapshot.nodes.insert(ordinal, Arc::new(node(ordinal, Record::default())));
    }
}

#[test]
fn a_pod_that_does_not_go_is_waited_for_only_where_its_name_matters() {
    let ended = ago(61);
    let snapshot = flapping(json!({"count": 3}), ended);
    assert_eq!(created(&snapshot), [3, 4], "the group must not stay short for ever");
    let pod = json!({"serviceName": "web", "template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}});
    let named = flapping(json!({"count": 3, "node": {"pod": pod}}), ended);
    assert!(created(&named).is_empty(), "two pods must not answer to one name");
    // A surge is there so that nobody waits.
    let mut surge = flapping(json!({"count": 3, "converge": {"rollout": {"maxSurge": 1}}}), now());
    for ordinal in [1, 2] {
        Arc::make_mut(surge.machines.get_mut(&format!("web-{ordinal}")).unwrap()).template_hash = "older".into();
    }
    assert_eq!(created(&surge), [3, 4]);
}
