//! What a hostile node can make a session keep, and what it can make it say.

use super::*;
use crate::phase::{action::KeyRef, secret::Secret};

const CANARY: &str = "c4n4ry-v4lue-in-the-mine";

fn past(place: usize) -> Past {
    Past {
        run_id: format!("configure-{place}"),
        phase: "configure".into(),
        digest: String::new(),
        active: true,
        started: true,
    }
}

/// Found by review: the operator grew by 64 MiB in 12 seconds.
#[test]
fn a_node_that_lists_runs_for_ever_ends_the_session() {
    let mut session = open("c", Record::default());
    session.hear(Frame::Hello { filesystem_id: "w".into() }, now());
    let listed = (0..1_000_000).find(|place| session.hear(Frame::Past(past(*place)), now()) != Want::Wait);
    assert_eq!(listed, Some(MOST_PASTS));
    let mut session = open("c", Record::default());
    session.hear(Frame::Hello { filesystem_id: "w".into() }, now());
    (0..MOST_PASTS).for_each(|_| assert_eq!(session.hear(Frame::Past(past(1)), now()), Want::Wait));
    session.hear(Frame::Ready, now());
    let Stage::Attaching(open) = &session.stage else { panic!("{:?}", session.stage) };
    assert_eq!(open.len(), 1, "one run that is listed often is waited for once");
}

#[test]
fn a_node_that_is_busy_for_ever_ends_the_session() {
    let mut session = open("c", Record::default());
    let mut want = greet(&mut session, "w", vec![]);
    for _ in 0..MOST_BUSY {
        assert!(matches!(want, Want::Send(_)), "{want:?}");
        session.hear(Frame::Busy("other-1".into()), now());
        want = session.hear(Frame::Absent("other-1".into()), now());
    }
    let end = session.hear(Frame::Busy("other-1".into()), now());
    assert!(matches!(&end, Want::End(End::Refused { reason, .. }) if reason == "AgentFailed"), "{end:?}");
}

/// A reply of another run would have the same request sent again, for ever.
#[test]
fn a_reply_of_a_run_that_was_not_asked_for_ends_the_session() {
    let ended = || Frame::Ended(Box::new(silent("other-1", "configure", "d")));
    for reply in [ended(), Frame::Absent("other-1".into()), Frame::Attached("other-1".into())] {
        let mut session = open("c", Record::default());
        let want = greet(&mut session, "w", vec![past(1)]);
        assert_eq!(want, Want::Send(b"attach configure-1\n".to_vec()));
        assert!(matches!(session.hear(reply.clone(), now()), Want::End(End::Lost(_))), "{reply:?}");
        let mut session = open("c", Record::default());
        greet(&mut session, "w", vec![]);
        assert!(matches!(session.hear(reply.clone(), now()), Want::End(End::Lost(_))), "{reply:?}");
    }
}

#[test]
fn no_number_of_a_node_overflows_anything() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    for _ in 0..2 {
        let flight = session.in_flight().expect("a run").clone();
        let ended = Ended {
            attempt: u32::MAX,
            from: u32::MAX,
            times: Some((i64::MAX, i64::MIN)),
            output_bytes: i64::MAX,
            verdict: Verdict::Exit(i32::MIN),
            ..silent(&flight.run_id, flight.phase.as_str(), flight.digest.as_str())
        };
        session.hear(Frame::Ended(Box::new(ended)), now());
        let mut next = open("c", session.record().into_owned());
        let listed = Past {
            run_id: "bootstrap-2".into(),
            phase: "bootstrap".into(),
            digest: String::new(),
            active: false,
            started: true,
        };
        greet(&mut next, "w", vec![listed]);
        let ended = Ended { attempt: 0, from: u32::MAX, ..silent("bootstrap-2", "bootstrap", flight.digest.as_str()) };
        next.hear(Frame::Ended(Box::new(ended)), now());
        session = next;
        if session.in_flight().is_none() {
            break;
        }
    }
}

#[test]
fn a_receipt_has_no_more_actions_than_its_schema_allows() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    let action = |_| ActionResult { name: "a".into(), result: Effect::Waiting, diff: String::new() };
    let all: Vec<ActionResult> = (0..256).map(action).collect();
    for from in [0, 256] {
        let flight = session.in_flight().expect("a run").clone();
        let ended = Ended {
            from,
            actions: all.clone(),
            ..silent(&flight.run_id, flight.phase.as_str(), flight.digest.as_str())
        };
        session.settle(&ended, now());
        assert_eq!(phase_result_of(&session, "bootstrap").actions.len(), 256);
    }
}

fn with_canary() -> Session {
    let group = spec(json!({"configure": {"actions": [
        {"exec": {"script": "conf", "secretEnv": [{"name": "PW", "secretKeyRef": {"name": "db", "key": "pw"}}]}}
    ]}}));
    let place = KeyRef { name: "db".into(), key: "pw".into() };
    let known = KnownSecrets {
        values: [(place.clone(), Secret::new(CANARY.as_bytes()))].into(),
        seals: [(place, "seal".to_owned())].into(),
        mask: None,
    };
    let purpose = Purpose::Converge(Bound::Free);
    Session::open(group, identity(""), meant("c"), Record::default(), purpose, "nonce".into(), known).0
}

/// Every kind of text that a node can say and that leaves a session, with a secret in it.
#[test]
fn no_text_that_leaves_a_session_has_a_secret_in_it() {
    let base64 = data_encoding::BASE64.encode(CANARY.as_bytes());
    let broken: String = CANARY.chars().map(|c| format!("{c}\u{1b}[0m")).collect();
    for secret in [CANARY, &base64, &broken] {
        type Say = fn(&mut Session, &str) -> Option<Want>;
        fn said(session: &mut Session, make: impl FnOnce(Ended) -> Ended) -> Option<Want> {
            let flight = session.in_flight().expect("a run").clone();
            let ended = silent(&flight.run_id, flight.phase.as_str(), flight.digest.as_str());
            Some(session.hear(Frame::Ended(Box::new(make(ended))), now()))
        }
        fn clean(text: &str) -> String {
            text::printable(text).into_owned()
        }
        let kinds: [(&str, Say); 11] = [
            ("refused", |s, t| Some(s.hear(Frame::Refused { reason: clean(t), message: clean(t) }, now()))),
            ("lost", |s, t| Some(Want::End(s.lose(t, now())))),
            ("failed", |s, t| Some(Want::End(s.fail(t, now())))),
            ("out of place", |s, t| Some(s.hear(Frame::Facts(t.as_bytes().to_vec()), now()))),
            ("output", |s, t| said(s, |e| Ended { output: clean(t), verdict: Verdict::Exit(1), ..e })),
            ("diff", |s, t| {
                let action = ActionResult { name: "a".into(), result: Effect::Failed, diff: clean(t) };
                said(s, |e| Ended { actions: vec![action], verdict: Verdict::Exit(1), ..e })
            }),
            ("manual step", |s, t| {
                let action = ActionResult { name: "a".into(), result: Effect::Waiting, diff: String::new() };
                said(s, |e| Ended { actions: vec![action], output: clean(t), ..e })
            }),
            ("own fact", |s, t| said(s, |e| Ended { facts: format!("java ok {}\n{t}\n", t.len()).into_bytes(), ..e })),
            ("built-in fact", |s, t| {
                s.stage = Stage::Facts;
                Some(s.hear(Frame::Facts(format!("hostname\t{t}\naddresses\t{t}\n").into_bytes()), now()))
            }),
            ("stderr", |s, t| Some(Want::End(End::Lost(s.masked(&clean(t), Cut::default()))))),
            ("noise that was cut", |s, t| {
                let cut = clean(t);
                let half = &cut[cut.len() / 2..];
                Some(Want::End(End::Lost(s.masked(half, Cut { beginning: true, end: true }))))
            }),
        ];
        for (kind, say) in kinds {
            let mut session = with_canary();
            let want = greet(&mut session, "w", vec![]);
            assert!(matches!(want, Want::Send(_)), "{want:?}");
            let want = say(&mut session, secret);
            let shown = match &want {
                Some(Want::End(end)) => format!("{end:?}"),
                _ => String::new(),
            };
            let record = session.record().into_owned();
            let record = format!("{:?} {:?} {:?}", record.phase_results, record.facts, record.drift);
            let all = format!("{shown} {record}");
            for part in [CANARY, &CANARY[CANARY.len() - 9..], &base64[4..base64.len() - 4]] {
                assert!(!all.contains(part), "{kind}: {all}");
            }
            assert!(all.contains("*****") || kind == "out of place", "{kind}: nothing was masked: {all}");
        }
    }
}
