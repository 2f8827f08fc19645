//! What the API server refuses, what does not go, and what of it is told.

use super::{
    super::{
        refusals::{Refusal, Subject, prune},
        snapshot::{Going, Unready},
    },
    *,
};
use pallet_api::reason::Reason;

const SAID: &str = "create pod: Internal error occurred: failed calling webhook \"x\": connection refused";

fn refused(times: u32) -> Refusal {
    let mut refusal = None;
    for _ in 0..times {
        refusal = Some(Refusal::after(refusal.as_ref(), (Reason::FailedCreate, SAID.into()), generation(), now()));
    }
    refusal.unwrap()
}

fn generation() -> i64 {
    snapshot(json!({}), vec![], vec![]).head.generation
}

/// A group of two of which one pod cannot be made.
fn without_pod() -> Snapshot {
    let mut snapshot = settled(2, &[0, 1]);
    snapshot.machines.remove("web-1");
    snapshot.refusals.insert(Subject::Machine(1), refused(1));
    snapshot
}

#[test]
fn a_refusal_has_a_backoff_of_its_own_and_an_edit_ends_it() {
    let pauses: Vec<i64> = (1..9).map(|times| refused(times).until.duration_since(now()).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    let mut snapshot = without_pod();
    let planned = plan(&snapshot);
    assert_eq!((planned.effects, planned.wake), (vec![], Some(now() + SignedDuration::from_secs(1))));
    snapshot.now = now() + SignedDuration::from_secs(1);
    assert_eq!(effects(&snapshot), [Effect::CreateMachine { ordinal: 1 }]);
    // The other children go on.
    let mut other = without_pod();
    other.machines.remove("web-0");
    assert_eq!(effects(&other), [Effect::CreateMachine { ordinal: 0 }]);
    let mut edited = without_pod();
    edited.head.generation += 1;
    assert_eq!(effects(&edited), [Effect::CreateMachine { ordinal: 1 }]);
    assert_eq!(Refusal::after(Some(&refused(6)), (Reason::FailedCreate, SAID.into()), 99, now()).times, 1);
    let mut ahead = without_pod();
    ahead.refusals.get_mut(&Subject::Machine(1)).unwrap().until = now() + SignedDuration::from_hours(1);
    assert_eq!(effects(&ahead).len(), 1, "a clock was ahead");
}

#[test]
fn a_refusal_is_told_on_the_node_and_once_at_the_group_in_the_api_servers_words() {
    let snapshot = without_pod();
    let planned = plan(&snapshot);
    let cause = Cause::Refused { reason: Reason::FailedCreate, message: SAID.into() };
    assert_eq!(planned.steps[&1], Step::Await(cause));
    let status = group_status(&snapshot);
    let shown = conditions(&status);
    assert_eq!(shown[0], ("Ready".into(), "False".into(), "FailedCreate".into()));
    assert_eq!(shown[1], ("Reconciling".into(), "True".into(), "FailedCreate".into()));
    let message = &status.conditions[0].message;
    assert_eq!(message.matches("failed calling webhook").count(), 1, "{message}");
    assert!(message.contains("web-1: FailedCreate: create pod: Internal error"), "{message}");
}

#[test]
fn every_kind_of_request_is_held_back_and_told() {
    let mut snapshot = settled(2, &[0]);
    snapshot.refusals.insert(Subject::Node(1), Refusal { message: "create groupnode: denied".into(), ..refused(1) });
    assert!(effects(&snapshot).is_empty());
    let told = group_status(&snapshot).conditions[0].clone();
    assert_eq!(told.reason, "FailedCreate");
    assert!(told.message.contains("web-1: FailedCreate: create groupnode: denied"), "{}", told.message);

    let mut template = super::snapshot(json!({}), vec![], vec![]);
    template.template = TemplateVerdict::Unchecked;
    assert_eq!(effects(&template), [Effect::CheckTemplate]);
    template.refusals.insert(Subject::Template, refused(1));
    assert!(effects(&template).is_empty());
    assert!(group_status(&template).conditions[0].message.contains("failed calling webhook"));

    let mut surplus = settled(0, &[0]);
    let subject = effects(&surplus)[0].subject(&surplus).unwrap();
    surplus.refusals.insert(subject, Refusal { reason: Reason::FailedDelete, message: "no".into(), ..refused(1) });
    assert!(effects(&surplus).is_empty());
    let told = group_status(&surplus).conditions[0].clone();
    assert!(told.message.contains("GroupNode web-0: FailedDelete: no"), "{}", told.message);

    let mut gone = settled(1, &[0]);
    Arc::make_mut(gone.nodes.get_mut(&0).unwrap()).deletion = Some(Cascade::Nodes);
    gone.machines.clear();
    gone.refusals.insert(Subject::Removal("GroupNode web-0".into()), refused(1));
    assert!(!effects(&gone).contains(&Effect::ReleaseNode { ordinal: 0 }));
}

/// A quota of claims: it went to and fro between `QuotaExceeded` and `Scaling` every three seconds.
#[test]
fn a_quota_or_a_policy_stalls_a_group_in_which_nothing_else_moves() {
    let mut snapshot = without_pod();
    let full = Refusal { reason: QUOTA, message: "create persistentvolumeclaim: exceeded quota".into(), ..refused(1) };
    snapshot.refusals.insert(Subject::Machine(1), full);
    let stalled = ("Stalled".to_owned(), "True".to_owned(), "QuotaExceeded".to_owned());
    assert_eq!(conditions(&group_status(&snapshot))[1], stalled);
    // Also while it is tried again.
    snapshot.now = now() + SignedDuration::from_secs(1);
    assert_eq!(conditions(&group_status(&snapshot))[1], stalled);
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).record.phase_results.clear();
    assert_eq!(conditions(&group_status(&snapshot))[1].0, "Reconciling");
}

#[test]
fn what_nobody_asks_for_any_more_is_told_no_more() {
    let mut snapshot = without_pod();
    let planned = plan(&snapshot);
    prune(&mut snapshot.refusals, &planned, &snapshot.nodes);
    assert_eq!(snapshot.refusals.len(), 1, "it is held back, and still asked for");
    snapshot.machines.insert("web-1".into(), Arc::new(machine(1)));
    let planned = plan(&snapshot);
    prune(&mut snapshot.refusals, &planned, &snapshot.nodes);
    assert!(snapshot.refusals.is_empty());
}

#[test]
fn more_than_one_refusal_is_counted() {
    let mut snapshot = settled(4, &[0]);
    for ordinal in 1..4 {
        snapshot.refusals.insert(Subject::Node(ordinal), refused(1));
    }
    let message = &group_status(&snapshot).conditions[0].message;
    assert!(message.ends_with("(and 2 more refusals)"), "{message}");
}

#[test]
fn a_pod_that_does_not_go_is_told_with_what_holds_it() {
    let mut snapshot = settled(1, &[0]);
    let going = |due| Going { due, why: Some("DeletionByTaintManager: lost".into()), held_by: "machine m1".into() };
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap());
    (machine.deleting, machine.going) = (true, Some(going(ago(29))));
    let planned = plan(&snapshot);
    assert_eq!(planned.wake, Some(now() + SignedDuration::from_secs(1)));
    let status = |snapshot: &Snapshot| {
        let steps = plan(snapshot).steps;
        let status::Due::Now(shown) = status::node(snapshot, &snapshot.nodes[&0], steps.get(&0)) else { panic!() };
        (shown.conditions[0].message.clone(), group_status(snapshot).conditions[0].message.clone())
    };
    let (node, group) = status(&snapshot);
    assert!(node.ends_with("its pod is going (DeletionByTaintManager: lost)"), "{node}");
    assert!(!group.contains("machine m1"), "{group}");
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).going = Some(going(ago(30)));
    let (node, group) = status(&snapshot);
    assert!(node.contains("it was to end by") && node.contains("machine m1"), "{node}");
    assert!(group.contains("web-0: PodTerminating") && group.contains("machine m1"), "{group}");
    // Also where its node is being removed, and when the group is.
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).deletion = Some(Cascade::Nodes);
    let told = group_status(&snapshot).conditions[0].message.clone();
    assert!(told.contains("web-0: its pod does not go") && told.contains("machine m1"), "{told}");
    snapshot.head.deletion = Some(Cascade::Nodes);
    let told = group_status(&snapshot).conditions[0].message.clone();
    assert!(told.contains("still to be removed; web-0: its pod does not go"), "{told}");
}

#[test]
fn a_groupnode_that_others_hold_is_named_with_their_finalizers() {
    let mut snapshot = settled(1, &[0]);
    snapshot.machines.clear();
    snapshot.head.deletion = Some(Cascade::Nodes);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    (node.deletion, node.finalized) = (Some(Cascade::Nodes), false);
    node.held_by = vec!["example.com/keep".into()];
    let told = group_status(&snapshot).conditions[0].message.clone();
    assert!(told.contains("GroupNode web-0 is still there") && told.contains("example.com/keep"), "{told}");
}

#[test]
fn a_pod_that_is_not_ready_is_named_with_the_cause() {
    let mut snapshot = settled(2, &[0, 1]);
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-1").unwrap());
    machine.ready = false;
    machine.unready = Some(Unready { message: "container helper ended with exit code 3".into(), broken: true });
    let status = group_status(&snapshot);
    assert_eq!(status.conditions[0].reason, "PodsNotReady");
    let told = &status.conditions[0].message;
    assert!(told.contains("1 of 2 converged nodes") && told.contains("web-1: container helper ended"), "{told}");
    let steps = plan(&snapshot).steps;
    let status::Due::Now(shown) = status::node(&snapshot, &snapshot.nodes[&1], steps.get(&1)) else { panic!() };
    assert!(shown.conditions[0].message.contains("its pod is not Ready: container helper ended with exit code 3"));
}

/// The group's message never named a node whose pod had begun to wait after its last event.
#[test]
fn a_waiting_pod_is_told_of_at_the_group_though_nothing_happens() {
    let waiting = MachineState::Waiting { reason: "Unschedulable".into(), message: "0/3 nodes are available".into() };
    let young = Machine { state: waiting, created: ago(4), ..machine(0) };
    let mut snapshot = snapshot(json!({}), vec![node(0, Record::default())], vec![young]);
    let planned = plan(&snapshot);
    assert_eq!(planned.wake, Some(now() + SignedDuration::from_secs(6)));
    assert!(!group_status(&snapshot).conditions[0].message.contains("0/3"));
    snapshot.now = planned.wake.unwrap();
    let told = group_status(&snapshot).conditions[0].message.clone();
    assert!(told.contains("web-0: Unschedulable: 0/3 nodes are available"), "{told}");
}
