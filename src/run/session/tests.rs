use super::*;
use crate::group::resolve;
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
    Arc::new(resolve(&object.unwrap()).unwrap())
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn identity(retry_token: &str) -> Identity {
    Identity { name: "web-0".into(), ordinal: 0, address: String::new(), retry_token: retry_token.into() }
}

fn open(instance: &str, record: Record) -> Session {
    Session::open(
        group(),
        identity(""),
        ("p".into(), instance.into()),
        record,
        Purpose::Converge(Bound::Free),
        "nonce".into(),
    )
    .0
}

/// Says hello and the facts; gives what the session wants then.
fn greet(session: &mut Session, witness: &str, pasts: Vec<Past>) -> Want {
    session.hear(Frame::Hello { witness: witness.into() }, now());
    for past in pasts {
        session.hear(Frame::Past(past), now());
    }
    let want = session.hear(Frame::Ready, now());
    if want == Want::Send(b"facts\n".to_vec()) {
        return session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
    }
    want
}

fn end(session: &mut Session, verdict: Verdict) -> Want {
    let flight = session.in_flight().expect("a run").clone();
    let ended = Ended {
        run_id: flight.run_id,
        phase: flight.phase.to_string(),
        attempt: flight.attempt,
        digest: flight.digest.to_string(),
        verdict,
        times: None,
        output_bytes: 0,
        output: String::new(),
        actions: Vec::new(),
        facts: Vec::new(),
    };
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
    assert_eq!(first.record().receipts.len(), 3);
    // Another name for the same file system: the receipts stand.
    let mut second = open("c-2", first.record().clone());
    assert_eq!(greet(&mut second, "w", vec![]), Want::End(End::Done));
    assert_eq!(second.record().incarnation.as_ref().unwrap().instance, "c-2");
    // Another file system: everything again.
    let mut third = open("c-2", first.record().clone());
    let want = greet(&mut third, "other", vec![]);
    assert!(matches!(&want, Want::Send(bytes) if bytes.starts_with(b"run bootstrap-")), "{want:?}");
}

#[test]
fn pause_takes_effect_after_the_run() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    session.direct(group(), String::new(), Bound::Hold);
    assert_eq!(end(&mut session, Verdict::Exit(0)), Want::End(End::Stopped));
    assert_eq!(session.record().receipts.len(), 1, "what has run is kept");
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
    assert!(session.record().receipts.is_empty());
}

#[test]
fn a_lost_run_is_unknown_until_the_journal_is_asked() {
    let mut session = open("c", Record::default());
    greet(&mut session, "w", vec![]);
    let flight = session.in_flight().unwrap().clone();
    session.lose("cut", now());
    let bootstrap = PhaseName::bootstrap();
    assert_eq!(session.record().receipts[&bootstrap].outcome, Outcome::Unknown);
    let past = |active| Past { run_id: flight.run_id.clone(), phase: "bootstrap".into(), active, started: true };
    // The journal knows it: it is joined, not started again.
    let mut known = open("c", session.record().clone());
    let joined = greet(&mut known, "w", vec![past(true)]);
    assert_eq!(joined, Want::Send(format!("attach {}\n", flight.run_id).into_bytes()));
    // The journal does not: it never was, and starts now.
    let mut unknown = open("c", session.record().clone());
    let want = greet(&mut unknown, "w", vec![]);
    assert!(matches!(&want, Want::Send(bytes) if bytes.starts_with(b"run bootstrap-")), "{want:?}");
    assert_eq!(unknown.in_flight().unwrap().attempt, 1);
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
