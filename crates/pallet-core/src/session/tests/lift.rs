//! Sessions for Lifts: the same machine with phase results of its own.

use super::*;
use crate::plan::{LiftRun, Loss};
use pallet_api::{group_node::NodeLift, lift::NodeOutcome};

fn declared() -> pallet_api::GroupSpec {
    serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": {
                "bootstrap": {"actions": [{"exec": {"script": "boot"}}]},
                "install": {"actions": [{"exec": {"script": "inst"}}]},
                "configure": {"actions": [{"exec": {"script": "conf {{ facts.hostname }}"}}]}
            },
            "converge": {"process": "apply-install", "retry": {"limit": 0}}
        }
    }))
    .unwrap()
}

fn converged() -> (Arc<Group>, Record) {
    let group = Arc::new(resolve(&declared(), &Default::default()).unwrap());
    let mut first = open_for(&group, Record::default(), Purpose::Converge(Bound::Free));
    let want = greet(&mut first, "w", vec![]);
    assert_eq!(converge(&mut first, want), Want::End(End::Done));
    (group, first.record().into_owned())
}

fn lifted(lift: serde_json::Value) -> Arc<Group> {
    let mut fields = json!({"groups": ["web"]});
    fields.as_object_mut().unwrap().extend(lift.as_object().unwrap().clone());
    let fields = serde_json::from_value(fields).unwrap();
    Arc::new(crate::group::resolve::lifted(&declared(), &Default::default(), &fields).unwrap())
}

fn run() -> LiftRun {
    LiftRun {
        uid: "3d0748f4-29f8-4f18".into(),
        name: "look".into(),
        bound: Bound::Free,
        deadline: now() + jiff::SignedDuration::from_secs(600),
        dry_run: false,
        ends: None,
        after_bootstrap: true,
        overrides: false,
        settled: Vec::new(),
        open: ["u1".to_owned()].into(),
    }
}

/// What a session for a Lift ran on a node where every run ends like this.
fn lift(group: &Arc<Group>, record: Record, run: LiftRun, verdict: Verdict) -> (Vec<String>, Record) {
    let mut session = open_for(group, record, Purpose::Lift(run));
    let mut want = greet(&mut session, "w", vec![]);
    let mut ran = Vec::new();
    while let Want::Send(bytes) = &want {
        if bytes == b"facts\n" {
            want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
            continue;
        }
        ran.push(String::from_utf8_lossy(bytes).split_whitespace().nth(4).unwrap().to_owned());
        want = end(&mut session, verdict);
    }
    (ran, session.record().into_owned())
}

fn own(record: &Record) -> &NodeLift {
    let [lift] = record.lifts.as_slice() else { panic!("{:?}", record.lifts) };
    lift
}

#[test]
fn a_lift_runs_what_converge_has_done_and_leaves_converge_satisfied() {
    let (group, record) = converged();
    let (ran, after) = lift(&lifted(json!({})), record.clone(), run(), Verdict::Exit(0));
    assert_eq!(ran, ["configure.lift.3d0748f429f8"]);
    assert_eq!(own(&after).outcome, Some(NodeOutcome::Succeeded));
    let phases: Vec<&str> = own(&after).phase_results.iter().map(|phase_result| phase_result.phase.as_str()).collect();
    assert_eq!(phases, ["configure", "settings"]);
    let configure = PhaseName::configure();
    assert_eq!(after.phase_results[&configure].digest, record.phase_results[&configure].digest);
    assert_ne!(after.phase_results[&configure].run_id, record.phase_results[&configure].run_id, "it is the Lift's run");
    assert_eq!(next::next(&group, &identity(""), &after, now()), Next::Settled);
    // A second session of the same Lift finds nothing to do.
    assert!(lift(&lifted(json!({})), after, run(), Verdict::Exit(0)).0.is_empty());
}

/// Two Lifts of the same phase, and converge's, are different runs: the journal would take one for another.
#[test]
fn every_lift_has_runs_of_its_own() {
    let (_, record) = converged();
    let id = |run: LiftRun| {
        let mut session = open_for(&lifted(json!({})), record.clone(), Purpose::Lift(run));
        let mut want = greet(&mut session, "w", vec![]);
        while want == Want::Send(b"facts\n".to_vec()) {
            want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
        }
        session.in_flight().unwrap().run_id.clone()
    };
    let ids = [id(run()), id(LiftRun { uid: "ffff".into(), ..run() })];
    assert_ne!(ids[0], ids[1]);
    assert!(ids[0].starts_with("configure.lift.3d0748f429f8-"), "{ids:?}");
}

#[test]
fn a_lift_that_fails_takes_nothing_from_converge() {
    let (group, record) = converged();
    let (_, after) = lift(&lifted(json!({})), record.clone(), run(), Verdict::Exit(3));
    assert_eq!(own(&after).outcome, Some(NodeOutcome::Failed));
    assert_eq!(after.phase_results, record.phase_results);
    assert_eq!(next::next(&group, &identity(""), &after, now()), Next::Settled);
    let (_, late) = lift(&lifted(json!({})), record, run(), Verdict::TimedOut);
    assert_eq!(own(&late).outcome, Some(NodeOutcome::TimedOut));
}

#[test]
fn what_a_lift_runs_otherwise_is_an_override_till_converge_or_a_plain_lift_runs_it() {
    let (_, record) = converged();
    let mut otherwise = declared();
    let script = json!({"actions": [{"exec": {"script": "other"}}]});
    otherwise.spec.phases.insert("configure".into(), serde_json::from_value(script).unwrap());
    let fields = serde_json::from_value(json!({"groups": ["web"]})).unwrap();
    let other = Arc::new(crate::group::resolve::lifted(&otherwise, &Default::default(), &fields).unwrap());
    let with = LiftRun { overrides: true, ..run() };
    let configure = PhaseName::configure();
    for verdict in [Verdict::Exit(0), Verdict::Exit(1)] {
        let (_, after) = lift(&other, record.clone(), with.clone(), verdict);
        assert_eq!(after.phase_results[&configure].overridden_by, "look");
        assert_eq!(after.phase_results[&configure].digest, record.phase_results[&configure].digest);
        let plain = LiftRun { uid: "plain".into(), ..run() };
        let (_, mended) = lift(&lifted(json!({})), after, plain, Verdict::Exit(0));
        assert_eq!(mended.phase_results[&configure].overridden_by, "");
    }
    // The same as converge would run is none, whatever parameters it was given.
    let (_, after) = lift(&lifted(json!({})), record, with, Verdict::Exit(0));
    assert_eq!(after.phase_results[&configure].overridden_by, "");
}

#[test]
fn install_runs_again_when_it_is_asked_for_by_name_and_not_by_its_process() {
    let (_, record) = converged();
    let (ran, _) = lift(&lifted(json!({"phases": ["install"]})), record.clone(), run(), Verdict::Exit(0));
    assert_eq!(ran, ["install.lift.3d0748f429f8"]);
    let by_process = LiftRun { settled: vec![PhaseName::install()], ..run() };
    let group = lifted(json!({"process": "apply-install"}));
    let (ran, after) = lift(&group, record, by_process.clone(), Verdict::Exit(0));
    assert_eq!(ran, ["configure.lift.3d0748f429f8"]);
    assert_eq!(own(&after).outcome, Some(NodeOutcome::Succeeded));
    // Where it was not done, it is.
    let (_, mut fresh) = converged();
    fresh.phase_results.remove(&PhaseName::install());
    let (ran, _) = lift(&group, fresh, by_process, Verdict::Exit(0));
    assert_eq!(ran, ["install.lift.3d0748f429f8", "configure.lift.3d0748f429f8"]);
}

#[test]
fn a_run_that_was_lost_is_found_again_by_its_lift_and_left_alone_by_converge() {
    let (group, record) = converged();
    let lifted = lifted(json!({}));
    let mut first = open_for(&lifted, record, Purpose::Lift(run()));
    let mut want = greet(&mut first, "w", vec![]);
    while want == Want::Send(b"facts\n".to_vec()) {
        want = first.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
    }
    let id = first.in_flight().unwrap().run_id.clone();
    first.lose("cut", now());
    let lost = first.record().into_owned();
    assert_eq!((own(&lost).outcome, own(&lost).phase_results[0].outcome), (None, Outcome::Unknown));
    let past = |active| Past {
        run_id: id.clone(),
        phase: "configure.lift.3d0748f429f8".into(),
        digest: String::new(),
        active,
        started: true,
    };
    let ended = silent(&id, "configure.lift.3d0748f429f8", &own(&lost).phase_results[0].digest);
    // Another operator's converge waits for it to end, and makes nothing of it.
    let mut other = open_for(&group, lost.clone(), Purpose::Converge(Bound::Free));
    assert_eq!(greet(&mut other, "w", vec![past(true)]), Want::Send(format!("attach {id}\n").into_bytes()));
    assert_eq!(other.hear(Frame::Ended(Box::new(ended.clone())), now()), Want::End(End::Done));
    assert_eq!(*other.record(), lost);
    // Over by then, it is nothing to converge at all.
    let mut other = open_for(&group, lost.clone(), Purpose::Converge(Bound::Free));
    assert_eq!(greet(&mut other, "w", vec![past(false)]), Want::End(End::Done));
    // Its Lift asks for it, and has not to run it again.
    let mut again = open_for(&lifted, lost, Purpose::Lift(run()));
    assert_eq!(greet(&mut again, "w", vec![past(false)]), Want::Send(format!("attach {id}\n").into_bytes()));
    assert_eq!(again.hear(Frame::Ended(Box::new(ended)), now()), Want::End(End::Done));
    assert_eq!(own(&again.record()).outcome, Some(NodeOutcome::Succeeded));
}

/// Found by SEED=1796110548656: converge had run the phase since, and its newer result was replaced by the Lift's older one.
#[test]
fn a_result_of_a_lift_that_arrives_late_replaces_no_newer_one() {
    let (_, record) = converged();
    let configure = PhaseName::configure();
    let newest = record.phase_results[&configure].run_id.clone();
    let (lifted_run, lifted_phase) = ("configure.lift.3d0748f429f8-1", "configure.lift.3d0748f429f8");
    let past = |run_id: &str, phase: &str| {
        let (run_id, phase) = (run_id.to_owned(), phase.to_owned());
        Past { run_id, phase, digest: String::new(), active: false, started: true }
    };
    for (pasts, expected) in [
        (vec![past(lifted_run, lifted_phase), past(&newest, "configure")], newest.as_str()),
        (vec![past(&newest, "configure"), past(lifted_run, lifted_phase)], lifted_run),
    ] {
        let mut session = open_for(&lifted(json!({})), record.clone(), Purpose::Lift(run()));
        assert_eq!(greet(&mut session, "w", pasts), Want::Send(format!("attach {lifted_run}\n").into_bytes()));
        session.hear(Frame::Ended(Box::new(silent(lifted_run, lifted_phase, "older"))), now());
        let known = &session.record().phase_results[&configure];
        assert_eq!(known.run_id, expected);
    }
}

/// Found by SEED=1796110569920: nobody heard the end of the run, and the status spoke of the one before as if nothing had run since.
#[test]
fn a_lift_that_is_lost_while_it_runs_a_phase_otherwise_is_named_beside_converges_result() {
    let (_, mut record) = converged();
    let configure = PhaseName::configure();
    for (known, expected) in [("another", "look"), ("", "")] {
        if !known.is_empty() {
            record.phase_results.get_mut(&configure).unwrap().digest = known.into();
        } else {
            record = converged().1;
        }
        let mut session = open_for(&lifted(json!({})), record.clone(), Purpose::Lift(run()));
        let mut want = greet(&mut session, "w", vec![]);
        while want == Want::Send(b"facts\n".to_vec()) {
            want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
        }
        assert_eq!(session.in_flight().unwrap().phase, configure);
        session.lose("cut", now());
        assert_eq!(session.record().phase_results[&configure].overridden_by, expected, "{known}");
    }
}

/// A request of converge that was lost took the phase result of the Lift's run along; the journal then spoke for an older run, and a
/// node that was as the Lift had left it counted as converged.
#[test]
fn what_a_lift_has_run_otherwise_since_is_not_undone_by_an_older_success() {
    let (group, mut record) = converged();
    let known = record.phase_results.remove(&PhaseName::configure()).unwrap();
    let past = |id: &str, phase: &str, digest: &str| {
        let (run_id, phase, digest) = (id.to_owned(), phase.to_owned(), digest.to_owned());
        Past { run_id, phase, digest, active: false, started: true }
    };
    let own = past("configure-1", "configure", &known.digest);
    let lifted = |digest: &str| past("configure.lift.x-1", "configure.lift.x", digest);
    let mut same = open_for(&group, record.clone(), Purpose::Converge(Bound::Free));
    let want = greet(&mut same, "w", vec![own.clone(), lifted(&known.digest)]);
    assert_eq!(want, Want::Send(b"attach configure-1\n".to_vec()));
    let mut otherwise = open_for(&group, record, Purpose::Converge(Bound::Free));
    let want = greet(&mut otherwise, "w", vec![own, lifted("another")]);
    assert_eq!(converge(&mut otherwise, want), Want::End(End::Done));
    let phase_result = phase_result_of(&otherwise, "configure");
    assert_eq!((phase_result.outcome, &phase_result.digest), (Outcome::Succeeded, &known.digest));
    assert_ne!(phase_result.run_id, "configure-1", "it ran again");
}

#[test]
fn a_lift_that_ends_cancels_its_own_runs_and_no_others() {
    let (_, record) = converged();
    let ends = LiftRun { ends: Some(NodeOutcome::Cancelled), ..run() };
    let mine = Past {
        run_id: "configure.lift.3d0748f429f8-1".into(),
        phase: "configure.lift.3d0748f429f8".into(),
        digest: String::new(),
        active: true,
        started: true,
    };
    let other = Past {
        run_id: "configure-1".into(),
        phase: "configure".into(),
        digest: String::new(),
        active: true,
        started: true,
    };
    let mut session = open_for(&lifted(json!({})), record.clone(), Purpose::Lift(ends.clone()));
    let want = greet(&mut session, "w", vec![other.clone(), mine]);
    assert_eq!(want, Want::Send(b"cancel configure.lift.3d0748f429f8-1\n".to_vec()));
    assert_eq!(session.hear(Frame::Absent("configure.lift.3d0748f429f8-1".into()), now()), Want::End(End::Done));
    assert_eq!(own(&session.record()).outcome, Some(NodeOutcome::Cancelled));
    let mut session = open_for(&lifted(json!({})), record, Purpose::Lift(ends));
    assert_eq!(greet(&mut session, "w", vec![other]), Want::End(End::Done));
    assert_eq!(own(&session.record()).outcome, Some(NodeOutcome::Cancelled));
}

/// Found by thinking: a state directory that somebody has cleared makes a new node of it, and bootstrap has to come first.
#[test]
fn on_a_node_that_lost_its_file_system_converge_comes_first() {
    let (group, record) = converged();
    let mut session = open_for(&lifted(json!({})), record, Purpose::Lift(run()));
    assert_eq!(greet(&mut session, "other", vec![]), Want::End(End::Stopped));
    let record = session.record().into_owned();
    assert_eq!(next::next(&group, &identity(""), &record, now()).phase(), Some(PhaseName::bootstrap()));
}

#[test]
fn what_a_lift_had_begun_on_a_lost_file_system_has_failed_and_what_it_had_done_is_undone() {
    let (_, mut record) = converged();
    let phase_result = |phase: &str, outcome| {
        let known = record.phase_results[&PhaseName::configure()].clone();
        PhaseResult { phase: phase.into(), outcome, ..known }
    };
    let phase_results = vec![phase_result("install", Outcome::Succeeded), phase_result("configure", Outcome::Unknown)];
    let lift = |outcome| NodeLift { uid: "u".into(), name: "n".into(), outcome, phase_results: phase_results.clone() };
    record.lifts = vec![lift(None), lift(Some(NodeOutcome::Succeeded))];
    let reborn = record.reborn(None, Loss::Restarted);
    let shown: Vec<(&str, Outcome)> =
        reborn.lifts[0].phase_results.iter().map(|r| (r.phase.as_str(), r.outcome)).collect();
    assert_eq!(shown, [("configure", Outcome::Failed)]);
    assert_eq!(reborn.lifts[1], record.lifts[1], "what is over stays as it was");
}

#[test]
fn no_run_of_a_lift_outlasts_it() {
    let (_, record) = converged();
    let left = |seconds| LiftRun { deadline: now() + jiff::SignedDuration::from_secs(seconds), ..run() };
    let mut session = open_for(&lifted(json!({})), record.clone(), Purpose::Lift(left(90)));
    let mut want = greet(&mut session, "w", vec![]);
    while want == Want::Send(b"facts\n".to_vec()) {
        want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
    }
    assert_eq!(session.in_flight().unwrap().timeout, Duration::from_secs(90));
    let mut session = open_for(&lifted(json!({})), record, Purpose::Lift(left(0)));
    assert_eq!(greet(&mut session, "w", vec![]), Want::End(End::Stopped));
}

#[test]
fn a_dry_run_says_of_every_action_what_it_would_do_and_tells_converge_nothing() {
    let (_, record) = converged();
    let group = lifted(json!({"phases": ["install", "configure"], "dryRun": true}));
    let dry = LiftRun { dry_run: true, ..run() };
    let mut session = open_for(&group, record.clone(), Purpose::Lift(dry));
    let mut want = greet(&mut session, "w", vec![]);
    let mut scripts = Vec::new();
    let results = [Effect::Changed, Effect::Failed];
    let mut results = results.into_iter();
    while let Want::Send(bytes) = &want {
        if bytes == b"facts\n" {
            want = session.hear(Frame::Facts(b"hostname\tweb-0\n".to_vec()), now());
            continue;
        }
        scripts.push(String::from_utf8_lossy(bytes).into_owned());
        let flight = session.in_flight().unwrap().clone();
        let actions =
            vec![ActionResult { name: "exec[0]".into(), result: results.next().unwrap(), diff: String::new() }];
        let verdict = Verdict::Exit(i32::from(actions[0].result == Effect::Failed));
        let (phase, digest) = (flight.phase.to_string(), flight.digest.to_string());
        let ended = Ended { verdict, actions, ..silent(&flight.run_id, &phase, &digest) };
        want = session.hear(Frame::Ended(Box::new(ended)), now());
    }
    assert!(scripts[0].contains("mode=check before= ") && scripts[1].contains("mode=check before=,, "), "{scripts:?}");
    let after = session.record().into_owned();
    let result = |phase: &str| {
        let phase_result = own(&after).phase_results.iter().find(|phase_result| phase_result.phase == phase).unwrap();
        (phase_result.outcome, phase_result.actions[0].result)
    };
    assert_eq!(result("install"), (Outcome::Succeeded, Effect::Unknown), "a script without a guard");
    assert_eq!(result("configure"), (Outcome::Succeeded, Effect::Unknown), "install might have brought it");
    assert_eq!(own(&after).outcome, Some(NodeOutcome::Succeeded));
    assert_eq!(after.phase_results, record.phase_results);
}

#[test]
fn a_record_keeps_the_lifts_that_are_at_work_and_the_last_few_that_are_done() {
    let (_, mut record) = converged();
    let lift_of =
        |n: usize, outcome| NodeLift { uid: format!("u{n}"), name: format!("l{n}"), outcome, phase_results: vec![] };
    record.lifts = (0..6).map(|n| lift_of(n, (n > 1).then_some(NodeOutcome::Succeeded))).collect();
    let (_, after) = lift(&lifted(json!({})), record, run(), Verdict::Exit(0));
    let names: Vec<&str> = after.lifts.iter().map(|lift| lift.name.as_str()).collect();
    assert_eq!(names, ["l1", "l3", "l4", "l5", "look"]);
}
