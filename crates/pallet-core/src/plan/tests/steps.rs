//! The next step of a node: every branch.

use super::*;

#[test]
fn phases_come_in_order_and_each_once() {
    let group = group(json!({}));
    let mut record = Record { facts: done(&group, &identity()).facts, ..Record::default() };
    let due = |record: &Record| next(&group, &identity(), record, now());
    let Next::Run { rendered, attempt: 1, why: Why::Due(_), .. } = due(&record) else { panic!("{:?}", due(&record)) };
    assert_eq!(rendered.phase, PhaseName::bootstrap());
    record
        .phase_results
        .insert(PhaseName::bootstrap(), done(&group, &identity()).phase_results[&PhaseName::bootstrap()].clone());
    assert!(matches!(due(&record), Next::Gather { attempt: 1, .. }));
    record
        .phase_results
        .insert(PhaseName::settings(), done(&group, &identity()).phase_results[&PhaseName::settings()].clone());
    assert!(matches!(due(&record), Next::Run { rendered, .. } if rendered.phase == PhaseName::configure()));
    assert_eq!(due(&done(&group, &identity())), Next::Settled);
}

#[test]
fn bootstrap_is_once_per_incarnation_whatever_its_digest_and_configure_follows_its_digest() {
    let before = group(json!({}));
    let record = done(&before, &identity());
    let mut phases = serde_json::to_value(object(json!({})).spec.phases).unwrap();
    phases["bootstrap"]["actions"][0]["exec"]["script"] = "other".into();
    let after = group(json!({"phases": phases.clone()}));
    assert_eq!(next(&after, &identity(), &record, now()), Next::Settled);
    phases["configure"]["actions"][0]["exec"]["script"] = "other".into();
    let after = group(json!({"phases": phases}));
    let Next::Run { rendered, attempt: 1, previous, why, from: 0 } = next(&after, &identity(), &record, now()) else {
        panic!()
    };
    assert_eq!((rendered.phase, previous.as_str()), (PhaseName::configure(), "configure-run-1"));
    assert_eq!(why, Why::Changed(PhaseName::configure()));
}

#[test]
fn a_changed_fact_reruns_exactly_what_used_it() {
    let group = group(json!({}));
    let mut record = done(&group, &identity());
    record.facts.insert("other".into(), json!(1));
    assert_eq!(next(&group, &identity(), &record, now()), Next::Settled);
    record.facts.insert("own".into(), json!("x"));
    assert!(matches!(next(&group, &identity(), &record, now()), Next::Run { .. }));
}

#[test]
fn a_failed_phase_waits_then_tries_again_then_halts_and_a_token_begins_anew() {
    let group = group(json!({}));
    let mut record = done(&group, &identity());
    let digest = record.phase_results[&PhaseName::configure()].digest.clone();
    let mut failed = |attempt, finished| {
        record
            .phase_results
            .insert(PhaseName::configure(), phase_result("configure", &digest, Outcome::Failed, attempt, finished));
        next(&group, &identity(), &record, now())
    };
    assert!(matches!(failed(1, ago(1)), Next::Backoff { attempt: 2, until, .. } if until > now()));
    assert!(matches!(failed(1, ago(11)), Next::Run { attempt: 2, why: Why::Retry(_, 2), .. }));
    assert!(matches!(failed(2, ago(11)), Next::Backoff { attempt: 3, .. }), "the pause doubles");
    assert!(matches!(failed(3, ago(999)), Next::Halt { .. }));
    let retried = Identity { retry_token: "1".into(), ..identity() };
    assert!(matches!(next(&group, &retried, &record, now()), Next::Run { attempt: 1, .. }));
    // A timeout counts as any failure.
    record
        .phase_results
        .insert(PhaseName::configure(), phase_result("configure", &digest, Outcome::TimedOut, 3, ago(999)));
    assert!(matches!(next(&group, &identity(), &record, now()), Next::Halt { .. }));
    // Another digest has attempts of its own.
    record
        .phase_results
        .insert(PhaseName::configure(), phase_result("configure", "older", Outcome::Failed, 3, ago(999)));
    assert!(matches!(next(&group, &identity(), &record, now()), Next::Run { attempt: 1, .. }));
}

#[test]
fn a_value_that_is_missing_on_one_node_fails_that_phase_without_a_run() {
    let group = group(json!({"phases": {"configure": {"actions": [{"exec": {"script": "{{ facts.os.version }}"}}]}}}));
    let record = done(&group, &identity());
    let Next::Unrenderable { phase, attempt: 1, error, .. } = next(&group, &identity(), &record, now()) else {
        panic!()
    };
    assert_eq!((phase, error.action.as_str()), (PhaseName::configure(), "exec[0]"));
}

#[test]
fn whatever_is_observed_there_is_one_next_step() {
    let group = group(json!({}));
    let converged = node(0, done(&group, &identity()));
    let fresh = node(0, Record::default());
    let running = machine(0);
    let with = |state: MachineState| Machine { state, ..machine(0) };
    assert_eq!(step_of(&group, &converged, Some(&running)), Step::Settled);
    assert_eq!(step_of(&group, &fresh, None), Step::Await(Cause::MachineMissing));
    assert_eq!(
        step_of(&group, &fresh, Some(&Machine { deleting: true, ..machine(0) })),
        Step::Await(Cause::MachineTerminating)
    );
    let waiting = with(MachineState::Waiting { reason: "ErrImagePull".into(), message: "m".into() });
    assert!(
        matches!(step_of(&group, &fresh, Some(&waiting)), Step::Await(Cause::MachineWaiting { reason, .. }) if reason == "ErrImagePull")
    );
    let gone = with(MachineState::Gone { reason: "Evicted".into(), message: "m".into() });
    assert!(matches!(step_of(&group, &fresh, Some(&gone)), Step::Await(Cause::MachineWaiting { .. })));
    assert!(
        matches!(step_of(&group, &fresh, Some(&running)), Step::Run { why: Why::NewNode, phase } if phase == PhaseName::bootstrap())
    );
    let foreign = Situation {
        group: &group,
        node: &fresh,
        machine: None,
        foreign: true,
        session: None,
        trouble: None,
        unread: false,
        now: now(),
    };
    assert_eq!(step(&foreign), Step::Await(Cause::NameConflict));

    let session =
        SessionView { instance: "c-0".into(), since: ago(1), running: None, kind: SessionKind::Converge, lift: None };
    let followed = Situation { foreign: false, machine: Some(&running), session: Some(&session), ..foreign };
    assert_eq!(step(&followed), Step::Follow(None));

    // Another container: everything again, even where all had succeeded.
    let restarted = with(MachineState::Running { id: "c-1".into() });
    assert!(matches!(step_of(&group, &converged, Some(&restarted)), Step::Run { why: Why::NewIncarnation, .. }));

    let mut lost = converged.clone();
    lost.record
        .phase_results
        .insert(PhaseName::configure(), phase_result("configure", "d", Outcome::Unknown, 1, ago(1)));
    assert_eq!(
        step_of(&group, &lost, Some(&running)),
        Step::Run { phase: PhaseName::configure(), why: Why::Probe(PhaseName::configure()) }
    );
}

#[test]
fn a_node_out_of_reach_is_left_alone_for_a_while_and_only_while_it_is_the_same() {
    let group = group(json!({}));
    let (fresh, running) = (node(0, Record::default()), machine(0));
    let trouble = |instance: &str, until| Trouble {
        instance: instance.into(),
        target: machine(0).target.unwrap(),
        reason: "NoShell".into(),
        message: "m".into(),
        since: now(),
        until,
        about: None,
    };
    let look = |trouble: &Trouble| {
        step(&Situation {
            group: &group,
            node: &fresh,
            machine: Some(&running),
            foreign: false,
            session: None,
            trouble: Some(trouble),
            unread: false,
            now: now(),
        })
    };
    let later = now() + SignedDuration::from_secs(5);
    assert!(matches!(look(&trouble("c-0", later)), Step::Await(Cause::Unreachable(_))));
    assert_eq!(look(&trouble("c-0", later)).wake(now()), Some(later));
    assert!(matches!(look(&trouble("c-0", ago(1))), Step::Run { .. }));
    assert!(matches!(look(&trouble("c-9", later)), Step::Run { .. }));
    // An edit of how a host is reached is not kept waiting.
    let elsewhere = Trouble { target: machine(1).target.unwrap(), ..trouble("c-0", later) };
    assert!(matches!(look(&elsewhere), Step::Run { .. }));
}

/// A phase that kills its own container must not go round for ever: attempts count across incarnations.
#[test]
fn a_new_incarnation_keeps_what_had_failed() {
    let group = group(json!({}));
    let mut record = Record { phase_results: BTreeMap::new(), ..done(&group, &identity()) };
    let Next::Run { rendered, .. } = next(&group, &identity(), &record, now()) else { panic!() };
    let failed = |attempt| phase_result("bootstrap", rendered.digest.as_str(), Outcome::Unknown, attempt, ago(1));
    let restarted = Machine { state: MachineState::Running { id: "c-1".into() }, ..machine(0) };
    record.phase_results.insert(PhaseName::bootstrap(), failed(1));
    assert!(matches!(step_of(&group, &node(0, record.clone()), Some(&restarted)), Step::Backoff { .. }));
    record.phase_results.insert(PhaseName::bootstrap(), failed(3));
    assert!(matches!(step_of(&group, &node(0, record.clone()), Some(&restarted)), Step::Halt { .. }));
    let reborn = record.reborn(None, Loss::Restarted);
    assert_eq!(reborn.phase_results[&PhaseName::bootstrap()].outcome, Outcome::Failed);
    assert!(done(&group, &identity()).reborn(None, Loss::Restarted).phase_results.is_empty(), "a success is undone");
}

#[test]
fn a_group_without_phases_asks_nothing_of_its_nodes() {
    let group = group(json!({"phases": {}}));
    assert_eq!(step_of(&group, &node(0, Record::default()), Some(&machine(0))), Step::Settled);
}

/// Found by review: it was run three times a minute for ever.
#[test]
fn a_phase_that_never_settles_rests_until_it_is_edited_and_stalls_its_group() {
    let mut snapshot = settled(1, &[0]);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    node.record.phase_results.get_mut(&PhaseName::configure()).unwrap().digest = "older".into();
    let about = snapshot.group.as_ref().unwrap().fingerprint("");
    let trouble = Trouble {
        instance: "c-0".into(),
        target: machine(0).target.unwrap(),
        reason: "NotIdempotent".into(),
        message: "configure changes facts that it uses".into(),
        since: now(),
        until: now() + SignedDuration::from_secs(3600),
        about: Some(about),
    };
    snapshot.troubles.insert("web-0".into(), trouble);
    let planned = plan(&snapshot);
    assert_eq!((planned.effects.len(), planned.wake), (0, Some(now() + SignedDuration::from_secs(3600))));
    assert_eq!(group_status(&snapshot).conditions[1].reason, "NotIdempotent");
    // An edit of anything else mends nothing; another look of what its templates see may.
    snapshot.group.as_mut().unwrap().generation = 4;
    assert!(plan(&snapshot).effects.is_empty());
    Arc::make_mut(&mut snapshot.group.as_mut().unwrap().inputs).nodes = vec![1].into();
    assert_eq!(plan(&snapshot).effects.iter().filter_map(Effect::starts).count(), 1);
}
