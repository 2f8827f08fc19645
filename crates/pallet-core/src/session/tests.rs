mod bounds;
mod language;
mod lift;

use super::*;
use crate::{
    group::resolve,
    session::frame::{Ended, Verdict},
};
use pallet_api::group_node::{ActionResult, Effect};
use serde_json::json;

fn group() -> Arc<Group> {
    let object = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": {
                "bootstrap": {"actions": [{"exec": {"script": "boot"}}]},
                "configure": {"actions": [{"exec": {"script": "conf"}}]}
            },
            "converge": {"retry": {"limit": 0}}
        }
    }));
    Arc::new(resolve(&object.unwrap(), &Default::default()).unwrap())
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn identity(retry_token: &str) -> Identity {
    Identity {
        name: "web-0".into(),
        ordinal: 0,
        address: String::new(),
        attributes: Arc::default(),
        retry_token: retry_token.into(),
        ack: String::new(),
    }
}

fn meant(instance: &str) -> Meant {
    Meant { uid: "p".into(), instance: instance.into(), told: "p".into() }
}

fn open(instance: &str, record: Record) -> Session {
    Session::open(
        group(),
        identity(""),
        meant(instance),
        record,
        Purpose::Converge(Bound::Free),
        "nonce".into(),
        KnownSecrets::default(),
    )
    .0
}

/// Says hello and the facts; gives what the session wants then.
fn greet(session: &mut Session, filesystem_id: &str, pasts: Vec<Past>) -> Want {
    session.hear(Frame::Hello { filesystem_id: filesystem_id.into() }, now());
    for past in pasts {
        session.hear(Frame::Past(past), now());
    }
    let want = session.hear(Frame::Ready, now());
    if want == Want::Send(b"facts\n".to_vec()) {
        return session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
    }
    want
}

/// A first attempt that succeeded without a word.
fn silent(run_id: &str, phase: &str, digest: &str) -> Ended {
    Ended {
        run_id: run_id.into(),
        phase: phase.into(),
        attempt: 1,
        digest: digest.into(),
        verdict: Verdict::Exit(0),
        times: None,
        seal: "-".into(),
        from: 0,
        output_bytes: 0,
        output: String::new(),
        actions: Vec::new(),
        facts: Vec::new(),
    }
}

fn end(session: &mut Session, verdict: Verdict) -> Want {
    end_with(session, verdict, Vec::new())
}

fn end_with(session: &mut Session, verdict: Verdict, facts: Vec<u8>) -> Want {
    let flight = session.in_flight().expect("a run").clone();
    let (phase, digest) = (flight.phase.to_string(), flight.digest.to_string());
    let ended = Ended { attempt: flight.attempt, verdict, facts, ..silent(&flight.run_id, &phase, &digest) };
    session.hear(Frame::Ended(Box::new(ended)), now())
}

/// Takes a session through everything that is due.
fn converge(session: &mut Session, mut want: Want) -> Want {
    loop {
        match want {
            Want::Send(bytes) if bytes == b"facts\n" => {
                want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
            }
            Want::Send(_) => want = end(session, Verdict::Exit(0)),
            other => return other,
        }
    }
}

#[test]
fn everything_runs_once_and_a_second_session_finds_nothing_due() {
    let mut first = open("c-1", Record::default());
    let want = greet(&mut first, "w", vec![]);
    assert_eq!(converge(&mut first, want), Want::End(End::Done));
    assert_eq!(first.record().phase_results.len(), 3);
    // Another name for the same file system: the phase results stand.
    let mut second = open("c-2", first.record().into_owned());
    assert_eq!(greet(&mut second, "w", vec![]), Want::End(End::Done));
    assert_eq!(second.record().incarnation.as_ref().unwrap().instance, "c-2");
    // Another file system: everything again.
    let mut third = open("c-2", first.record().into_owned());
    let want = greet(&mut third, "other", vec![]);
    assert!(matches!(&want, Want::Send(bytes) if bytes.starts_with(b"run bootstrap-")), "{want:?}");
}

/// Found by the simulation: the annotation was swallowed by an attempt that a former operator had begun before it.
#[test]
fn an_attempt_that_somebody_else_began_counts_under_the_token_of_the_one_before() {
    let mut first = open("c", Record::default());
    greet(&mut first, "w", vec![]);
    assert_eq!(end(&mut first, Verdict::Exit(1)), Want::End(End::Done));
    let bootstrap = first.record().phase_results[&PhaseName::bootstrap()].clone();
    let id = "bootstrap-second".to_owned();
    let past =
        Past { run_id: id.clone(), phase: "bootstrap".into(), digest: String::new(), active: false, started: true };
    let mut second = open("c", first.record().into_owned());
    second.direct(group(), "again".into(), Bound::Free);
    greet(&mut second, "w", vec![past]);
    let ended = Ended { attempt: 2, verdict: Verdict::Exit(1), ..silent(&id, "bootstrap", &bootstrap.digest) };
    let want = second.hear(Frame::Ended(Box::new(ended)), now());
    assert!(matches!(want, Want::Send(_)), "attempts were given back: {want:?}");
}

#[test]
fn pause_takes_effect_after_the_run() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    session.direct(group(), String::new(), Bound::Hold);
    assert_eq!(end(&mut session, Verdict::Exit(0)), Want::End(End::Stopped));
    assert_eq!(session.record().phase_results.len(), 1, "what has run is kept");
}

/// Found by review: the annotation was swallowed by the attempt that was under way.
#[test]
fn an_annotation_during_a_run_is_for_the_next_attempt() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    session.direct(group(), "again".into(), Bound::Free);
    let want = end(&mut session, Verdict::Exit(1));
    assert!(matches!(&want, Want::Send(_)), "attempts were given back: {want:?}");
    assert_eq!(session.in_flight().unwrap().attempt, 1);
    assert_eq!(end(&mut session, Verdict::Exit(1)), Want::End(End::Done), "and then they are used up");
}

#[test]
fn a_run_that_never_started_is_no_attempt() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    let id = session.in_flight().unwrap().run_id.clone();
    let want = session.hear(Frame::Absent(id), now());
    assert!(matches!(want, Want::End(End::Refused { .. })), "{want:?}");
    assert!(session.record().phase_results.is_empty());
}

/// Case 04: an eviction, a drain or a deletion from outside is no failed attempt, however often it happens.
#[test]
fn a_run_that_was_cut_off_with_its_pod_is_interrupted_and_counts_as_no_attempt() {
    let other = |record: Record, uid: &str| {
        let incarnation = Meant { uid: uid.into(), instance: uid.into(), told: uid.into() };
        let (session, _) = Session::open(
            group(),
            identity(""),
            incarnation,
            record,
            Purpose::Converge(Bound::Free),
            "nonce".into(),
            KnownSecrets::default(),
        );
        session
    };
    let bootstrap = PhaseName::bootstrap();
    let mut record = Record::default();
    for times in 1..4 {
        let mut session = other(record, &format!("p{times}"));
        greet(&mut session, &format!("w{times}"), vec![]);
        if times == 3 {
            // The second interruption in a row: it waits for a while.
            assert!(session.in_flight().is_none());
            let phase_result = &session.record().phase_results[&bootstrap];
            assert_eq!(
                (phase_result.outcome, phase_result.interruptions, phase_result.attempt),
                (Outcome::Interrupted, 2, 1)
            );
            return;
        }
        assert_eq!(session.in_flight().map(|flight| flight.attempt), Some(1));
        session.lose("its pod is being deleted", now());
        record = session.record().into_owned();
    }
}

#[test]
fn a_lost_run_is_unknown_until_the_journal_is_asked() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    let flight = session.in_flight().unwrap().clone();
    session.lose("cut", now());
    let bootstrap = PhaseName::bootstrap();
    assert_eq!(session.record().phase_results[&bootstrap].outcome, Outcome::Unknown);
    let past = |active| Past {
        run_id: flight.run_id.clone(),
        phase: "bootstrap".into(),
        digest: String::new(),
        active,
        started: true,
    };
    // The journal knows it: it is joined, not started again.
    let mut known = open("c", session.record().into_owned());
    let joined = greet(&mut known, "w", vec![past(true)]);
    assert_eq!(joined, Want::Send(format!("attach {}\n", flight.run_id).into_bytes()));
    // The journal does not: it never was, and starts now.
    let mut unknown = open("c", session.record().into_owned());
    let want = greet(&mut unknown, "w", vec![]);
    assert!(matches!(&want, Want::Send(bytes) if bytes.starts_with(b"run bootstrap-")), "{want:?}");
    assert_eq!(unknown.in_flight().unwrap().attempt, 1);
}

/// Found by the simulation: a success that only the journal held was not asked for, and bootstrap ran again after an edit.
/// The status was written while the phase result of the first attempt had the name of the second, which had not started yet.
#[test]
fn a_run_that_starts_after_it_was_given_up_is_asked_for() {
    let group = spec(json!({"bootstrap": {"actions": [{"exec": {"script": "boot"}}]}}));
    let open = |record: Record| open_for(&group, record, Purpose::Converge(Bound::Free));
    let past = |id: &str| Past {
        run_id: id.into(),
        phase: "bootstrap".into(),
        digest: String::new(),
        active: false,
        started: true,
    };
    let later = now() + jiff::SignedDuration::from_hours(2);
    let mut first = open(Record::default());
    greet(&mut first, "w", vec![]);
    let one = first.in_flight().unwrap().run_id.clone();
    assert_eq!(end(&mut first, Verdict::Exit(1)), Want::End(End::Done));
    // The second attempt is asked for, and the request is lost.
    let mut second = open(first.record().into_owned());
    for frame in [Frame::Hello { filesystem_id: "w".into() }, Frame::Past(past(&one)), Frame::Ready] {
        second.hear(frame, later);
    }
    second.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), later);
    let two = second.in_flight().unwrap().run_id.clone();
    second.lose("cut", later);
    assert_eq!(phase_result_of(&second, "bootstrap").run_id, two);
    // The journal does not know it. This is what is written, while the first attempt is asked for.
    let mut third = open(second.record().into_owned());
    assert_eq!(greet(&mut third, "w", vec![past(&one)]), Want::Send(format!("attach {one}\n").into_bytes()));
    let written = third.record().into_owned();
    assert_eq!(written.phase_results[&PhaseName::bootstrap()].attempt, 1);
    // The second attempt runs under the same name after all, and another operator reads what was written before.
    let want = greet(&mut open(written), "w", vec![past(&one), past(&two)]);
    assert_eq!(want, Want::Send(format!("attach {two}\n").into_bytes()));
}

#[test]
fn a_shorter_timeout_is_not_for_the_run_under_way() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    let patience = session.patience();
    let mut shorter = (*group()).clone();
    shorter.timeout = Duration::from_secs(1);
    session.direct(Arc::new(shorter), String::new(), Bound::Free);
    assert_eq!(session.patience(), patience);
}

#[test]
fn a_reply_out_of_place_ends_the_session() {
    let mut session = open("c", Record::default());
    assert!(matches!(session.hear(Frame::Ready, now()), Want::Send(_)));
    assert!(matches!(session.hear(Frame::Ready, now()), Want::End(End::Lost(_))));
}

// ---- test, bounds and farewells ------------------------------------------------------------------------------------

fn spec(extra: serde_json::Value) -> Arc<Group> {
    let mut object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": {
                "settings": {"facts": [{"name": "java", "exec": "java", "optional": true}]},
                "configure": {"actions": [{"exec": {"script": "conf"}}]},
                "test": {"expect": [{"name": "java", "expression": "facts.java == '17'"}]},
                "destroy-server": {"actions": [{"exec": {"script": "bye"}}]}
            },
            "converge": {"phases": ["test"], "retry": {"limit": 1, "backoff": "1h"}}
        }
    });
    if let Some(converge) = extra.as_object() {
        object["spec"]["phases"].as_object_mut().unwrap().extend(converge.clone());
    }
    Arc::new(resolve(&serde_json::from_value(object).unwrap(), &Default::default()).unwrap())
}

fn open_for(group: &Arc<Group>, record: Record, purpose: Purpose) -> Session {
    Session::open(group.clone(), identity(""), meant("c"), record, purpose, "nonce".into(), KnownSecrets::default()).0
}

/// Plays the node: every run succeeds, and settings finds what `java` says at that time. Returns what ran.
fn play(session: &mut Session, mut want: Want, mut java: impl FnMut() -> &'static str) -> (Vec<String>, Want) {
    let mut ran = Vec::new();
    loop {
        match want {
            Want::Send(bytes) if bytes == b"facts\n" => {
                want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
            }
            Want::Send(_) => {
                let flight = session.in_flight().expect("a run").clone();
                ran.push(flight.phase.to_string());
                let found = java();
                let facts = format!("java ok {}\n{found}\n", found.len()).into_bytes();
                want = end_with(session, Verdict::Exit(0), facts);
            }
            other => return (ran, other),
        }
    }
}

fn phase_result_of(session: &Session, phase: &str) -> PhaseResult {
    session.record().phase_results[&PhaseName::new(phase)].clone()
}

#[test]
fn test_looks_at_facts_that_were_read_after_the_last_change() {
    let group = spec(json!(null));
    let mut session = open_for(&group, Record::default(), Purpose::Converge(Bound::Free));
    let want = greet(&mut session, "w", vec![]);
    let mut readings = ["", "17"].into_iter();
    let mut last = "";
    let (ran, end) = play(&mut session, want, || {
        last = readings.next().unwrap_or(last);
        last
    });
    // Settings, configure, which installs it, and settings again before test.
    assert_eq!((ran, end), (vec!["settings".into(), "configure".into(), "settings".into()], Want::End(End::Done)));
    let phase_result = phase_result_of(&session, "test");
    assert_eq!((phase_result.outcome, phase_result.actions[0].result), (Outcome::Succeeded, Effect::Unchanged));
    // A second session finds nothing due: what was looked at stands.
    let mut second = open_for(&group, session.record().into_owned(), Purpose::Converge(Bound::Free));
    assert_eq!(greet(&mut second, "w", vec![]), Want::End(End::Done));
}

#[test]
fn a_test_that_fails_tells_what_it_found_and_waits_for_its_next_attempt() {
    let group = spec(json!(null));
    let mut session = open_for(&group, Record::default(), Purpose::Converge(Bound::Free));
    let want = greet(&mut session, "w", vec![]);
    let (_, end) = play(&mut session, want, || "11");
    assert_eq!(end, Want::End(End::Done));
    let phase_result = phase_result_of(&session, "test");
    assert_eq!(
        (phase_result.outcome, phase_result.attempt, phase_result.actions[0].result),
        (Outcome::Failed, 1, Effect::Failed)
    );
    assert_eq!(phase_result.message, "java: expected facts.java == '17', found facts.java = \"11\"");
}

#[test]
fn a_phase_that_never_settles_is_stopped_and_said() {
    let configure = json!({"configure": {"actions": [{"exec": {"script": "conf {{ facts.java }}"}}]}});
    let mut session = open_for(&spec(configure), Record::default(), Purpose::Converge(Bound::Free));
    let want = greet(&mut session, "w", vec![]);
    let mut values = ["1", "2", "3", "4", "5", "6", "7", "8", "9"].into_iter().cycle();
    let (ran, end) = play(&mut session, want, || values.next().unwrap());
    assert_eq!(ran.iter().filter(|phase| *phase == "configure").count(), 3);
    assert!(matches!(end, Want::End(End::NotIdempotent { .. })));
}

#[test]
fn a_session_goes_no_further_than_the_barrier() {
    let group = spec(json!({"bootstrap": {"actions": [{"exec": {"script": "boot"}}]}}));
    let through = |phase: &str| Purpose::Converge(Bound::Through(PhaseName::new(phase)));
    let mut session = open_for(&group, Record::default(), through("bootstrap"));
    let want = greet(&mut session, "w", vec![]);
    assert_eq!(play(&mut session, want, || "17"), (vec!["bootstrap".into()], Want::End(End::Done)));
    let mut session = open_for(&group, session.record().into_owned(), through("configure"));
    let want = greet(&mut session, "w", vec![]);
    assert_eq!(play(&mut session, want, || "17").0, ["settings", "configure"]);
}

#[test]
fn a_farewell_ends_what_runs_and_says_goodbye() {
    let group = spec(json!(null));
    let mut session = open_for(&group, Record::default(), Purpose::Farewell);
    let past = Past {
        run_id: "configure-1".into(),
        phase: "configure".into(),
        digest: String::new(),
        active: true,
        started: true,
    };
    assert_eq!(greet(&mut session, "w", vec![past]), Want::Send(b"cancel configure-1\n".to_vec()));
    let ended = Ended {
        run_id: "configure-1".into(),
        phase: "configure".into(),
        attempt: 1,
        digest: "d".into(),
        verdict: Verdict::Cancelled,
        times: None,
        seal: "-".into(),
        from: 0,
        output_bytes: 0,
        output: String::new(),
        actions: Vec::new(),
        facts: Vec::new(),
    };
    let want = session.hear(Frame::Ended(Box::new(ended)), now());
    let (ran, end) = play(&mut session, want, || "17");
    assert_eq!((ran, end), (vec!["settings".into(), "destroy-server".into()], Want::End(End::Done)));
    assert_eq!(phase_result_of(&session, "destroy-server").outcome, Outcome::Succeeded);
}

/// Found end to end: an operator that was killed in a farewell had it cancelled by its successor, and run again.
#[test]
fn a_farewell_that_somebody_began_is_joined() {
    let mut session = open_for(&spec(json!(null)), Record::default(), Purpose::Farewell);
    let past = Past {
        run_id: "d-1".into(),
        phase: "destroy-server".into(),
        digest: String::new(),
        active: true,
        started: true,
    };
    assert_eq!(greet(&mut session, "w", vec![past]), Want::Send(b"attach d-1\n".to_vec()));
}

#[test]
fn a_farewell_goes_on_though_settings_fails() {
    let group = spec(json!(null));
    let mut session = open_for(&group, Record::default(), Purpose::Farewell);
    greet(&mut session, "w", vec![]);
    assert_eq!(session.in_flight().unwrap().phase, PhaseName::settings());
    let want = end(&mut session, Verdict::Exit(1));
    assert_eq!(play(&mut session, want, || "").0, ["destroy-server"]);
}
