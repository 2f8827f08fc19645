//! What the status says, and when it is written.

use super::*;

#[test]
fn the_status_says_how_far_the_group_is() {
    let triple = |kind: &str, status: &str, reason: &str| (kind.to_owned(), status.to_owned(), reason.to_owned());
    let status = group_status(&settled(2, &[0, 1]));
    assert_eq!(conditions(&status), [triple("Ready", "True", "Converged")]);
    assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (2, 2, 2));
    assert_eq!(status.observed_generation, Some(3));

    let status = group_status(&settled(3, &[0, 1]));
    assert_eq!(conditions(&status), [triple("Ready", "False", "Scaling"), triple("Reconciling", "True", "Scaling")]);

    let mut unready = settled(1, &[0]);
    Arc::make_mut(unready.machines.get_mut("web-0").unwrap()).ready = false;
    assert_eq!(conditions(&group_status(&unready))[0], triple("Ready", "False", "PodsNotReady"));

    let mut old = settled(1, &[0]);
    Arc::make_mut(old.machines.get_mut("web-0").unwrap()).template_hash = "older".into();
    let status = group_status(&old);
    assert_eq!(status.updated_replicas, 0);
    assert_eq!(conditions(&status)[0], triple("Ready", "False", "Replacing"));
    old.group.as_mut().unwrap().rollout.replacement = Replacement::Never;
    let status = group_status(&old);
    assert_eq!(conditions(&status)[0], triple("Ready", "True", "Converged"));
    assert!(status.conditions[0].message.contains("older pod template"));

    let mut deleted = settled(1, &[0]);
    deleted.head.deletion = Some(Cascade::Nodes);
    assert_eq!(conditions(&group_status(&deleted))[1], triple("Reconciling", "True", "Deleting"));
}

#[test]
fn a_group_stalls_only_when_nothing_goes_on_without_a_person() {
    let halt = |ordinal: u32, attempt: u32| {
        let group = group(json!({}));
        let mut record = done(&group, &identity());
        let (uid, instance) = (format!("p-{ordinal}"), format!("c-{ordinal}"));
        record.incarnation = Some(Incarnation { uid, instance, filesystem_id: "w".into() });
        let digest = record.phase_results[&PhaseName::configure()].digest.clone();
        let mut failed = phase_result("configure", &digest, Outcome::Failed, attempt, ago(5));
        failed.actions = vec![ActionResult {
            name: "gate".into(),
            result: pallet_api::group_node::Effect::Failed,
            diff: String::new(),
        }];
        record.phase_results.insert(PhaseName::configure(), failed);
        node(ordinal, record)
    };
    let both_halted = snapshot(json!({"count": 2}), vec![halt(0, 3), halt(1, 3)], vec![machine(0), machine(1)]);
    let status = group_status(&both_halted);
    assert_eq!(conditions(&status)[1].0, "Stalled");
    assert!(status.conditions[0].message.contains("no luck") && status.conditions[0].message.contains("1 more"));
    assert_eq!(status.phase_errors[0].action.as_deref(), Some("gate"));
    let counts = status.phases.iter().find(|phase| phase.phase == "configure").unwrap();
    assert_eq!((counts.failed, counts.succeeded), (2, 0));
    let one_waits = snapshot(json!({"count": 2}), vec![halt(0, 3), halt(1, 1)], vec![machine(0), machine(1)]);
    assert_eq!(conditions(&group_status(&one_waits))[1].0, "Reconciling");
}

#[test]
fn what_was_learned_is_written_under_a_spec_that_cannot_be_read_too() {
    let mut snapshot = settled(1, &[0]);
    snapshot.group = resolve(
        &object(json!({"phases": {"configure": {"actions": [{"exec": {"script": "{{ nope }}"}}]}}})),
        &Default::default(),
    );
    let mut learned = node(0, done(&group(json!({})), &identity()));
    assert_eq!(status::node(&snapshot, &learned, None), status::Due::No);
    learned.saved = Some(Record::default());
    let status::Due::Now(written) = status::node(&snapshot, &learned, None) else { panic!() };
    assert_eq!(written.phase_results.len(), 3);
}

#[test]
fn a_paused_group_does_not_wait_for_gates_that_it_keeps_shut() {
    let mut paused = settled(1, &[0]);
    if let Ok(group) = &mut paused.group {
        group.paused = true;
    }
    assert_eq!(conditions(&group_status(&paused))[0].1, "True");
    Arc::make_mut(paused.machines.get_mut("web-0").unwrap()).ready = false;
    assert_eq!(conditions(&group_status(&paused))[0].2, "Paused");
}

#[test]
fn an_error_of_a_phase_that_is_gone_is_gone() {
    let mut record = done(&group(json!({})), &identity());
    record.phase_results.insert(PhaseName::new("gone"), phase_result("gone", "d", Outcome::Failed, 3, ago(5)));
    let status = group_status(&snapshot(json!({}), vec![node(0, record)], vec![machine(0)]));
    assert!(status.phase_errors.is_empty(), "{:?}", status.phase_errors);
}

#[test]
fn what_keeps_a_group_from_going_on_is_said() {
    let waiting = MachineState::Waiting { reason: "ErrImagePull".into(), message: "no such image".into() };
    let stuck = snapshot(json!({}), vec![node(0, Record::default())], vec![Machine { state: waiting, ..machine(0) }]);
    let message = group_status(&stuck).conditions[0].message.clone();
    assert!(message.contains("web-0: ErrImagePull: no such image"), "{message}");
}

#[test]
fn the_worst_errors_are_shown_and_the_rest_counted() {
    let nodes: Vec<Node> = (0..9)
        .map(|ordinal| {
            let mut record = Record::default();
            let failed = phase_result("configure", "d", Outcome::Failed, 1 + ordinal % 3, ago(5));
            record.phase_results.insert(PhaseName::configure(), failed);
            node(ordinal, record)
        })
        .collect();
    let status = group_status(&snapshot(json!({"count": 9}), nodes, vec![]));
    let shown: Vec<_> = status.phase_errors.iter().map(|error| (error.attempt, error.node.as_str())).collect();
    assert_eq!(shown, [(3, "web-2"), (3, "web-5"), (3, "web-8"), (2, "web-1"), (2, "web-4")]);
    assert_eq!(status.phase_errors_omitted, 4);
}

#[test]
fn a_new_node_that_starts_as_nodes_do_is_not_written_about() {
    let mut young = node(0, Record::default());
    young.created = ago(3);
    let waiting = Machine {
        state: MachineState::Waiting { reason: "ContainerCreating".into(), message: "m".into() },
        ..machine(0)
    };
    let snapshot = snapshot(json!({}), vec![young.clone()], vec![waiting]);
    let steps = plan(&snapshot).steps;
    assert_eq!(status::node(&snapshot, &young, steps.get(&0)), status::Due::At(ago(3) + SignedDuration::from_secs(10)));
    // Told once that it waits, it is not told again that its turn has not come.
    let mut told = young.clone();
    let verdict =
        Verdict { kind: "Converged", status: false, reason: "ContainerCreating".into(), message: String::new() };
    told.reported.conditions = stamp(vec![verdict], &[], None, ago(30));
    let turn = Step::Run { phase: PhaseName::bootstrap(), why: Why::NewNode };
    let later = ago(30) + SignedDuration::from_secs(300);
    assert_eq!(status::node(&snapshot, &told, Some(&turn)), status::Due::At(later));
    let mut old = young;
    old.created = ago(11);
    assert!(matches!(status::node(&snapshot, &old, steps.get(&0)), status::Due::Now(_)));
}

#[test]
fn a_run_is_shown_when_it_lasts_and_once() {
    let young = node(0, Record::default());
    let mut snapshot = snapshot(json!({}), vec![young.clone()], vec![machine(0)]);
    let running = |started: Timestamp| Running {
        phase: "bootstrap".into(),
        run_id: "r".into(),
        attempt: 1,
        started_at: Time(started),
    };
    let shown = |snapshot: &mut Snapshot, node: &Node, started: Timestamp| {
        let session = SessionView {
            instance: "c-0".into(),
            since: started,
            running: Some(running(started)),
            kind: SessionKind::Converge,
            lift: None,
        };
        snapshot.sessions.insert("web-0".into(), session);
        status::node(snapshot, node, Some(&Step::Follow(Some(PhaseName::bootstrap()))))
    };
    assert_eq!(
        shown(&mut snapshot, &young, ago(3)),
        status::Due::No,
        "whom the group does not list an operator might take for converged"
    );
    let mut look = |node: &Node, started: Timestamp| {
        snapshot.status.unconverged = "0".into();
        shown(&mut snapshot, node, started)
    };
    assert_eq!(look(&young, ago(1)), status::Due::At(ago(1) + SignedDuration::from_secs(2)));
    let status::Due::Now(told) = look(&young, ago(3)) else { panic!() };
    assert_eq!(told.conditions[0].reason, "Running");
    // A node that was shown waiting for its turn has had its first write.
    let mut waited = young.clone();
    let verdict = Verdict { kind: "Converged", status: false, reason: "Pending".into(), message: String::new() };
    waited.reported.conditions = stamp(vec![verdict], &[], None, ago(40));
    assert_eq!(look(&waited, ago(3)), status::Due::At(ago(3) + SignedDuration::from_secs(30)));
    let mut told = young;
    told.reported.running = Some(running(ago(3)));
    assert_eq!(look(&told, ago(3)), status::Due::No);
}
