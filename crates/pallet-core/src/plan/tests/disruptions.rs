//! Pods that are evicted, deleted or lost, and containers that are restarted.

use super::{
    super::progress::{is_restarted, lost_as},
    *,
};

const SECOND: i64 = 1;

/// A node whose configure was cut off so often, on a pod that is another one now.
fn cut(limit: u32, attempt: u32, interruptions: u32) -> Snapshot {
    let extra = json!({"converge": {"retry": {"limit": limit, "backoff": "10s"}}});
    let mut snapshot = settled_as(extra, &[0]);
    let group = snapshot.group.clone().unwrap();
    let digest = {
        let mut record = done(&group, &identity());
        record.phase_results.remove(&PhaseName::configure());
        let Next::Run { rendered, .. } = next(&group, &identity(), &record, now()) else { panic!() };
        rendered.digest
    };
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    let mut phase_result = phase_result("configure", digest.as_str(), Outcome::Unknown, attempt, ago(SECOND));
    phase_result.interruptions = interruptions;
    phase_result.message = "connection lost".into();
    node.record.phase_results.insert(PhaseName::configure(), phase_result);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).uid = "p-other".into();
    snapshot
}

/// The record as a session on the new pod has it, when everything before configure was done there.
fn caught_up(snapshot: &Snapshot) -> Record {
    let node = &snapshot.nodes[&0];
    let machine = snapshot.machine(node).unwrap();
    let group = snapshot.group.as_ref().unwrap();
    let mut record = node.record.reborn(node.record.incarnation.clone(), lost_as(group, node, machine));
    let all = done(group, &identity());
    for phase in [PhaseName::bootstrap(), PhaseName::settings()] {
        record.phase_results.insert(phase.clone(), all.phase_results[&phase].clone());
    }
    record
}

/// Case 04: an eviction with retry.limit 0 was PhaseFailed.
#[test]
fn a_run_that_an_eviction_cut_off_is_no_failed_attempt() {
    let snapshot = cut(0, 1, 0);
    assert!(matches!(plan(&snapshot).steps[&0], Step::Run { why: Why::NewIncarnation, .. }));
    assert!(group_status(&snapshot).phase_errors.is_empty(), "nor is it an error as long as nobody knows of it");
    let record = caught_up(&snapshot);
    let phase_result = &record.phase_results[&PhaseName::configure()];
    assert_eq!((phase_result.outcome, phase_result.interruptions, phase_result.attempt), (Outcome::Interrupted, 1, 1));
    let due = next(snapshot.group.as_ref().unwrap(), &identity(), &record, now());
    assert!(matches!(&due, Next::Run { attempt: 1, why: Why::Interrupted(_), .. }), "{due:?}");
    // It is told as what it is, and not among the errors.
    let mut shown = snapshot.clone();
    Arc::make_mut(shown.nodes.get_mut(&0).unwrap()).record = record;
    assert!(group_status(&shown).phase_errors.is_empty());
}

#[test]
fn what_is_interrupted_each_time_is_tried_later_each_time_and_told() {
    let due = |interruptions: u32| {
        let snapshot = cut(0, 1, interruptions - 1);
        next(snapshot.group.as_ref().unwrap(), &identity(), &caught_up(&snapshot), now())
    };
    assert!(matches!(due(1), Next::Run { .. }), "at once");
    let until = |interruptions: u32| match due(interruptions) {
        Next::Backoff { until, attempt: 1, .. } => until.duration_since(ago(SECOND)).as_secs(),
        other => panic!("{other:?}"),
    };
    let pauses = [until(2), until(3), until(4), until(40)];
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]) && pauses[0] >= 8 && pauses[3] <= 300, "{pauses:?}");

    let mut snapshot = cut(0, 1, 4);
    let record = caught_up(&snapshot);
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap());
    machine.uid = "p-0".into();
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).record = record;
    let steps = plan(&snapshot).steps;
    let status::Due::Now(shown) = status::node(&snapshot, &snapshot.nodes[&0], steps.get(&0)) else { panic!() };
    let told = &shown.conditions[0];
    assert_eq!(told.reason, "Interrupted");
    assert!(told.message.contains("interrupted 5 times in a row") && told.message.contains("it runs again at"));
    let group = group_status(&snapshot);
    assert!(group.conditions[0].message.contains("web-0: Interrupted: "), "{:?}", group.conditions[0]);
    assert_eq!(group.phases.iter().map(|counts| counts.failed).sum::<u32>(), 0);
}

#[test]
fn an_interrupted_node_does_not_stop_a_rollout() {
    let mut snapshot = cut(0, 1, 4);
    snapshot.group.as_mut().unwrap().rollout.max_failures = Some(0);
    let record = caught_up(&snapshot);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).uid = "p-0".into();
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).record = record;
    let planned = plan(&snapshot);
    assert!(matches!(planned.steps[&0], Step::Backoff { .. }), "{:?}", planned.steps);
    assert_eq!(planned.bounds[&0], Bound::Free);
}

#[test]
fn a_container_that_restarts_in_its_pod_uses_an_attempt_up() {
    let mut snapshot = cut(0, 1, 0);
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap());
    (machine.uid, machine.state) = ("p-0".into(), MachineState::Running { id: "c-1".into() });
    let record = caught_up(&snapshot);
    assert_eq!(record.phase_results[&PhaseName::configure()].outcome, Outcome::Failed);
    assert!(matches!(next(snapshot.group.as_ref().unwrap(), &identity(), &record, now()), Next::Halt { .. }));
}

#[test]
fn what_counts_as_a_replacement_depends_on_what_backs_the_node() {
    let known = Incarnation { uid: "u".into(), instance: "i".into(), filesystem_id: "w".into() };
    let of = |uid, instance, kind| Loss::between(Some(&known), uid, instance, kind);
    assert_eq!(of("u", "other", Kind::Pod), Loss::Restarted);
    assert_eq!(of("other", "other", Kind::Pod), Loss::Replaced);
    assert_eq!(of("u", "other", Kind::VirtualMachine), Loss::Replaced);
    assert_eq!(of("u", "i", Kind::VirtualMachine), Loss::Restarted);
    assert_eq!(of("u", "other", Kind::Host), Loss::Restarted);
    assert_eq!(Loss::between(None, "u", "i", Kind::Pod), Loss::Restarted);
}

/// What fails while everything around it is being stopped is no failed attempt: it is not listened to any more.
#[test]
fn a_session_in_a_pod_that_is_being_deleted_ends() {
    let mut snapshot = settled(1, &[0]);
    let session =
        SessionView { instance: "c-0".into(), since: now(), running: None, kind: SessionKind::Converge, lift: None };
    snapshot.sessions.insert("web-0".into(), session);
    assert!(effects(&snapshot).is_empty());
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).deleting = true;
    assert!(matches!(effects(&snapshot)[..], [Effect::EndSession { .. }]), "{:?}", effects(&snapshot));
}

/// Case 14: the pod stayed in its Service for 20 seconds with nothing listening.
#[test]
fn the_gate_closes_before_a_session_is_opened_in_a_restarted_container() {
    let mut snapshot = settled(1, &[0]);
    let state = |snapshot: &mut Snapshot, state: MachineState| {
        Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).state = state;
    };
    assert!(effects(&snapshot).is_empty());
    let closes = [Effect::CloseGate { name: "web-0".into(), uid: "p-0".into() }];
    // As soon as it has ended, and in the next container in any case.
    state(&mut snapshot, MachineState::Waiting { reason: "ContainerTerminated".into(), message: String::new() });
    assert_eq!(effects(&snapshot), closes);
    state(&mut snapshot, MachineState::Running { id: "c-1".into() });
    assert_eq!(effects(&snapshot), closes);
    // Whatever else keeps the group from acting.
    let mut paused = snapshot.clone();
    paused.group.as_mut().unwrap().paused = true;
    assert_eq!(effects(&paused), closes);
    let mut unreadable = snapshot.clone();
    unreadable.last_good = std::mem::replace(&mut unreadable.group, Err(vec![])).ok();
    assert_eq!(effects(&unreadable), closes);
    let mut machine_of = snapshot.clone();
    Arc::make_mut(machine_of.machines.get_mut("web-0").unwrap()).gate_open = false;
    assert!(matches!(effects(&machine_of)[..], [Effect::StartSession { .. }]));
    // Another pod has a gate of its own.
    let machine = Machine { uid: "p-1".into(), state: MachineState::Running { id: "c-1".into() }, ..machine(0) };
    assert!(!is_restarted(&snapshot.nodes[&0], &machine));
}

#[test]
fn a_pod_without_phases_keeps_its_gate() {
    let mut snapshot = settled_as(json!({"phases": {}}), &[0]);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).state = MachineState::Running { id: "c-1".into() };
    assert!(!effects(&snapshot).iter().any(|effect| matches!(effect, Effect::CloseGate { .. })));
}

/// Case 15: a container that stays down.
#[test]
fn a_pod_that_ends_each_time_is_replaced_later_each_time() {
    let mut snapshot = settled(1, &[0]);
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap());
    machine.state = MachineState::Gone { reason: "ContainerEnded".into(), message: "exit code 1".into() };
    machine.ended = Some(ago(9));
    let planned = plan(&snapshot);
    assert!(planned.effects.is_empty(), "a rule may start it again");
    assert_eq!(planned.wake, Some(now() + SignedDuration::from_secs(1)));
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).ended = Some(ago(10));
    assert!(matches!(effects(&snapshot)[..], [Effect::DeleteMachine { why: MachineRemoval::Lost, .. }]));
    snapshot.losses.insert("web-0".into(), 2);
    let planned = plan(&snapshot);
    assert!(planned.effects.is_empty());
    assert_eq!(planned.wake, Some(now() + SignedDuration::from_secs(30)));
    let told = &group_status(&snapshot).conditions[0].message;
    assert!(told.contains("web-0: ContainerEnded: exit code 1"), "{told}");
}
