//! Sessions that only look, that carry secrets, and that get to manual steps.

use super::*;
use crate::{
    group::inputs::Inputs,
    phase::{action::KeyRef, secret::Secret},
};

fn declared(phases: serde_json::Value, converge: serde_json::Value) -> Arc<Group> {
    let object = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": phases, "converge": converge
        }
    }));
    Arc::new(resolve(&object.unwrap(), &Default::default()).unwrap())
}

fn session(group: &Arc<Group>, ack: &str, record: Record, purpose: Purpose, known: KnownSecrets) -> Session {
    let identity = Identity { ack: ack.into(), ..identity("") };
    Session::open(group.clone(), identity, meant("c"), record, purpose, "nonce".into(), known).0
}

fn free() -> Purpose {
    Purpose::Converge(Bound::Free)
}

fn ended(session: &Session, from: u32, seal: &str, output: &str, actions: &[(&str, Effect)]) -> Box<Ended> {
    let flight = session.in_flight().expect("a run").clone();
    let action = |(name, result): &(&str, Effect)| ActionResult {
        name: (*name).into(),
        result: *result,
        diff: if *result == Effect::Changed { "-old\n+new\n".into() } else { String::new() },
    };
    Box::new(Ended {
        run_id: flight.run_id,
        phase: flight.phase.to_string(),
        attempt: flight.attempt,
        digest: flight.digest.to_string(),
        verdict: Verdict::Exit(0),
        times: None,
        seal: seal.into(),
        from,
        output_bytes: output.len() as i64,
        output: output.into(),
        actions: actions.iter().map(action).collect(),
        facts: Vec::new(),
    })
}

fn text(want: &Want) -> String {
    match want {
        Want::Send(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    }
}

fn file(name: &str) -> serde_json::Value {
    json!({"name": name, "file": {"path": format!("/etc/{name}"), "content": "x"}})
}

#[test]
fn a_look_changes_nothing_and_says_what_differs() {
    let exec = json!({"name": "always", "exec": {"script": "x"}});
    let handler = json!({"name": "reload", "service": {"name": "s", "state": "reloaded"}, "onChangeOf": ["motd"]});
    let phases = json!({
        "configure": {"actions": [file("motd"), exec, handler]},
        "test": {"expect": [{"name": "named", "expression": "facts.hostname == 'other'"}]}
    });
    let group = declared(phases, json!({"driftCheck": {"interval": "1h"}}));
    let facts = || Frame::Facts(b"hostname\tweb-0\nos.serviceManager\tsysv\n".to_vec());
    let mut first = session(&group, "", Record::default(), free(), KnownSecrets::default());
    first.hear(Frame::Hello { filesystem_id: "w".into() }, now());
    let mut want = first.hear(Frame::Ready, now());
    while let Want::Send(_) = want {
        want = if first.in_flight().is_some() { end(&mut first, Verdict::Exit(0)) } else { first.hear(facts(), now()) };
    }
    let record = first.record().into_owned();
    let mut look = session(&group, "", record.clone(), Purpose::Check, KnownSecrets::default());
    look.hear(Frame::Hello { filesystem_id: "w".into() }, now());
    assert_eq!(look.hear(Frame::Ready, now()), Want::Send(b"facts\n".to_vec()));
    let want = look.hear(facts(), now());
    assert!(text(&want).starts_with("run configure.check-"), "{want:?}");
    assert!(text(&want).contains("mode=check "));
    assert_eq!(look.running(), None, "nothing runs that a status would show");
    let found = [("motd", Effect::Changed), ("always", Effect::Changed), ("reload", Effect::Changed)];
    let frame = ended(&look, 0, "-", "", &found);
    assert_eq!(look.hear(Frame::Ended(frame), now()), Want::End(End::Done));
    let drift = look.record().drift.clone().unwrap();
    let named: Vec<(&str, &str)> = drift.differences.iter().map(|d| (d.phase.as_str(), d.name.as_str())).collect();
    assert_eq!(named, [("configure", "motd"), ("test", "named")]);
    assert_eq!(drift.differences[0].message, "-old\n+new\n");
    let configure = PhaseName::configure();
    assert_eq!(
        look.record().phase_results[&configure],
        record.phase_results[&configure],
        "no phase result of a run that was none"
    );
}

/// Found by reading: settings ran again at once, and again, for as long as it failed.
#[test]
fn a_look_whose_settings_fail_ends() {
    let phases = json!({
        "settings": {"facts": [{"name": "rack", "file": "/etc/rack"}]},
        "configure": {"actions": [file("motd")]}
    });
    let group = declared(phases, json!({"driftCheck": {"interval": "1h"}}));
    let mut first = session(&group, "", Record::default(), free(), KnownSecrets::default());
    let want = greet(&mut first, "w", vec![]);
    assert_eq!(converge(&mut first, want), Want::End(End::Done));
    let mut look = session(&group, "", first.record().into_owned(), Purpose::Check, KnownSecrets::default());
    assert!(text(&greet(&mut look, "w", vec![])).starts_with("run settings-"));
    assert_eq!(end(&mut look, Verdict::Exit(1)), Want::End(End::Done));
    assert_eq!(look.record().phase_results[&PhaseName::settings()].outcome, Outcome::Failed);
    assert_eq!(look.record().drift, None, "nothing was looked at");
}

/// Found by the ServerSpec nginx: a service that somebody had stopped failed the test, and was never started again.
#[test]
fn what_a_test_notices_is_looked_at_in_the_phases_before_it() {
    let phases = json!({
        "configure": {"actions": [file("motd")]},
        "settings": {"facts": [{"name": "motd", "file": "/etc/motd"}]},
        "test": {"expect": [{"name": "motd", "expression": "facts.motd == 'x'"}]}
    });
    let converge = json!({"phases": ["configure", "test"], "driftCheck": {"interval": "1h", "policy": "Reapply"}});
    let group = declared(phases, converge);
    let go = |session: &mut Session, motd: &str| {
        let mut want = greet(session, "w", vec![]);
        loop {
            want = match (&want, session.in_flight()) {
                (Want::End(_), _) => return want,
                (_, None) => session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now()),
                (_, Some(flight)) if flight.phase.as_str() == "configure.check" => return want,
                _ => end_with(session, Verdict::Exit(0), format!("motd ok 1\n{motd}\n").into_bytes()),
            };
        }
    };
    let mut first = session(&group, "", Record::default(), free(), KnownSecrets::default());
    assert_eq!(go(&mut first, "x"), Want::End(End::Done));
    assert_eq!(first.record().phase_results[&PhaseName::test()].outcome, Outcome::Succeeded);
    let mut look = session(&group, "", first.record().into_owned(), Purpose::Check, KnownSecrets::default());
    let want = go(&mut look, "y");
    assert!(text(&want).starts_with("run configure.check-"), "{want:?}");
    let frame = ended(&look, 0, "-", "", &[("motd", Effect::Changed)]);
    let later = now() + jiff::SignedDuration::from_hours(1);
    assert_eq!(look.hear(Frame::Ended(frame), later), Want::End(End::Done));
    let record = look.record();
    assert_eq!(record.drift.as_ref().unwrap().differences[0].name, "motd");
    assert_eq!(record.phase_results[&PhaseName::test()].outcome, Outcome::Failed);
    let due = next::next(&group, &identity(""), &record, later);
    assert_eq!(due.phase(), Some(PhaseName::configure()), "{due:?}");
}

#[test]
fn a_look_that_is_lost_leaves_no_doubt_behind() {
    let group = declared(json!({"configure": {"actions": [file("motd")]}}), json!({"driftCheck": {"interval": "1h"}}));
    let mut first = session(&group, "", Record::default(), free(), KnownSecrets::default());
    let want = greet(&mut first, "w", vec![]);
    assert_eq!(converge(&mut first, want), Want::End(End::Done));
    let mut look = session(&group, "", first.record().into_owned(), Purpose::Check, KnownSecrets::default());
    greet(&mut look, "w", vec![]);
    assert!(look.in_flight().is_some());
    let id = look.in_flight().unwrap().run_id.clone();
    look.lose("cut", now());
    assert!(look.record().phase_results.values().all(|phase_result| phase_result.outcome == Outcome::Succeeded));
    // What is still active is ended, and is nothing to whoever finds it.
    let past = Past { run_id: id, phase: "configure.check".into(), digest: String::new(), active: true, started: true };
    let mut next = session(&group, "", look.record().into_owned(), free(), KnownSecrets::default());
    next.hear(Frame::Hello { filesystem_id: "w".into() }, now());
    next.hear(Frame::Past(past.clone()), now());
    let want = next.hear(Frame::Ready, now());
    assert_eq!(want, Want::Send(format!("cancel {}\n", past.run_id).into_bytes()));
}

fn secret_group() -> Arc<Group> {
    let key = |key: &str| json!({"name": "db", "key": key});
    declared(
        json!({"configure": {"actions": [
            {"name": "login", "exec": {"script": "login", "secretEnv": [{"name": "PW", "secretKeyRef": key("pw")}]}},
            {"secretFile": {"path": "/etc/pw", "secretKeyRef": key("pw")}}
        ]}}),
        json!({}),
    )
}

fn seal(value: &str) -> String {
    Digest::of("seal", &json!(value)).to_string()
}

fn knowing(value: &str) -> KnownSecrets {
    let place = KeyRef { name: "db".into(), key: "pw".into() };
    KnownSecrets {
        values: [(place.clone(), Secret::new(value.as_bytes()))].into(),
        seals: [(place, seal(value))].into(),
        mask: None,
    }
}

#[test]
fn secrets_travel_beside_the_script_and_come_back_masked() {
    let known = knowing("hunter2!");
    let mut session = session(&secret_group(), "", Record::default(), free(), known.clone());
    let want = greet(&mut session, "w", vec![]);
    let request = text(&want);
    let (header, rest) = request.split_once('\n').unwrap();
    let words: Vec<&str> = header.split(' ').collect();
    let (script, payload) = rest.split_at(words[3].parse().unwrap());
    assert!(!script.contains("hunter2") && script.contains("PW secret_0"), "{script}");
    assert_eq!(payload, "secret_0='hunter2\\041'\n");
    assert_eq!((words[7].parse::<usize>().unwrap(), words[8]), (payload.len(), known.seal().as_str()));
    let mut frame =
        Frame::Ended(ended(&session, 0, &known.seal(), "login with hunter2!\n", &[("login", Effect::Changed)]));
    session.mask(&mut frame);
    assert_eq!(session.hear(frame, now()), Want::End(End::Done));
    let phase_result = &session.record().phase_results[&PhaseName::configure()];
    assert_eq!(phase_result.output, "login with *****\n");
    assert!(!format!("{session:?}").contains("hunter2"));
}

#[test]
fn a_changed_secret_runs_the_phase_again_and_what_was_printed_with_the_old_one_is_withheld() {
    let group = secret_group();
    let place = KeyRef { name: "db".into(), key: "pw".into() };
    let seals = |seal: &str| Arc::new(Inputs { seals: [(place.clone(), seal.to_owned())].into(), ..Inputs::default() });
    let seen = |value: &str| Arc::new(Group { inputs: seals(&seal(value)), ..(*group).clone() });
    let mut first = session(&seen("old"), "", Record::default(), free(), knowing("old"));
    let want = greet(&mut first, "w", vec![]);
    assert_eq!(converge(&mut first, want), Want::End(End::Done));
    // The plan saw the old value, the session reads the new one.
    let mut second = session(&seen("old"), "", first.record().into_owned(), free(), knowing("new"));
    greet(&mut second, "w", vec![]);
    assert_eq!(second.in_flight().map(|flight| flight.phase.clone()), Some(PhaseName::configure()));
    let mut frame = Frame::Ended(ended(&second, 0, &knowing("old").seal(), "login with old", &[]));
    second.mask(&mut frame);
    let Frame::Ended(ended) = frame else { panic!() };
    assert!(ended.output.starts_with("(withheld"), "{}", ended.output);
    // One that was named since the session began is for the next session.
    let mut third = session(&seen("old"), "", Record::default(), free(), KnownSecrets::default());
    assert_eq!(greet(&mut third, "w", vec![]), Want::End(End::Stopped));
}

#[test]
fn what_was_acknowledged_goes_on_behind_the_step_with_all_results_together() {
    let group = declared(
        json!({"configure": {"actions": [file("a"), {"name": "look", "manual": {"message": "look"}}, file("b")]}}),
        json!({}),
    );
    let mut first = session(&group, "", Record::default(), free(), KnownSecrets::default());
    greet(&mut first, "w", vec![]);
    let frame = ended(&first, 0, "-", "", &[("a", Effect::Changed), ("look", Effect::Waiting)]);
    assert_eq!(first.hear(Frame::Ended(frame), now()), Want::End(End::Done));
    let waiting = first.record().phase_results[&PhaseName::configure()].clone();
    assert_eq!((waiting.outcome, waiting.message.as_str()), (Outcome::Waiting, "it waits at look"));
    let mut second = session(&group, &waiting.run_id, first.record().into_owned(), free(), KnownSecrets::default());
    let request = text(&greet(&mut second, "w", vec![]));
    assert!(!request.contains("/etc/a") && request.contains("/etc/b"));
    // A cut connection forgets neither the step nor what was done before it.
    let mut lost = second;
    lost.lose("cut", now());
    let unknown = lost.record().phase_results[&PhaseName::configure()].clone();
    assert_eq!((unknown.outcome, unknown.from, unknown.actions.len()), (Outcome::Unknown, 2, 2));
    let past = Past {
        run_id: unknown.run_id.clone(),
        phase: "configure".into(),
        digest: String::new(),
        active: false,
        started: true,
    };
    let mut third = session(&group, "", lost.record().into_owned(), free(), KnownSecrets::default());
    greet(&mut third, "w", vec![past]);
    let done = Ended {
        run_id: unknown.run_id,
        phase: "configure".into(),
        digest: unknown.digest,
        actions: vec![ActionResult { name: "b".into(), result: Effect::Changed, diff: String::new() }],
        ..*ended_of_nothing(2)
    };
    third.hear(Frame::Ended(Box::new(done)), now());
    let phase_result = &third.record().phase_results[&PhaseName::configure()];
    let names: Vec<&str> = phase_result.actions.iter().map(|action| action.name.as_str()).collect();
    assert_eq!((phase_result.outcome, names), (Outcome::Succeeded, vec!["a", "look", "b"]));
}

fn ended_of_nothing(from: u32) -> Box<Ended> {
    Box::new(Ended {
        run_id: String::new(),
        phase: String::new(),
        attempt: 1,
        digest: String::new(),
        verdict: Verdict::Exit(0),
        times: None,
        seal: "-".into(),
        from,
        output_bytes: 0,
        output: String::new(),
        actions: Vec::new(),
        facts: Vec::new(),
    })
}
