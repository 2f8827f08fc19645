//! What phases may say beyond themselves: nodes of roles, conditions.

use super::*;
use crate::group::inputs::{Inputs, Peer};

fn using(script: &str) -> Group {
    group(json!({"phases": {
        "settings": {"values": {"first": "{{ (nodes.cache | first).address if nodes.cache else 'none' }}"}},
        "configure": {"actions": [{"exec": {"script": script}}]},
        "other": {"actions": [{"exec": {"script": "echo {{ settings.first }}"}}]}
    }, "converge": {"phases": ["configure", "other"]}}))
}

fn with_nodes(group: &mut Group, db: &[&str], cache: &[&str]) {
    let peer = |address: &&str| {
        let facts = [("version".to_owned(), json!(16))].into();
        Peer { name: "p".into(), group: "g".into(), ordinal: 0, address: (*address).into(), facts }
    };
    let (db, cache): (Vec<Peer>, Vec<Peer>) = (db.iter().map(peer).collect(), cache.iter().map(peer).collect());
    let roles = [("db".to_owned(), db.iter().collect()), ("cache".to_owned(), cache.iter().collect())];
    group.inputs = Arc::new(Inputs { nodes: Inputs::nodes(&roles.into()), ..Inputs::default() });
}

fn due(group: &Group, record: &Record) -> Option<String> {
    next(group, &identity(), record, now()).phase().map(|phase| phase.to_string())
}

#[test]
fn a_change_of_nodes_reruns_exactly_the_phases_that_used_them() {
    let mut group = using("echo {% for n in nodes.db %}{{ n.address }}:{{ n.facts.version }} {% endfor %}");
    assert_eq!(group.phases.roles, ["cache", "db"]);
    with_nodes(&mut group, &["10.0.0.1"], &["10.0.0.9"]);
    let record = done(&group, &identity());
    assert_eq!(due(&group, &record), None);
    with_nodes(&mut group, &["10.0.0.1"], &["10.0.0.8"]);
    assert_eq!(due(&group, &record).as_deref(), Some("other"), "by way of a value of settings");
    with_nodes(&mut group, &["10.0.0.1", "10.0.0.2"], &["10.0.0.9"]);
    assert_eq!(due(&group, &record).as_deref(), Some("configure"));
    with_nodes(&mut group, &["10.0.0.1"], &["10.0.0.9"]);
    assert_eq!(due(&group, &record), None);
}

#[test]
fn what_is_required_is_waited_for_and_is_no_failure() {
    let mut group = using("echo {{ (nodes.db | required(2)) | length }}");
    with_nodes(&mut group, &["10.0.0.1"], &[]);
    let record = done(&group, &identity());
    let Next::Wait { phase, message } = next(&group, &identity(), &record, now()) else { panic!() };
    assert_eq!(phase, PhaseName::configure());
    assert!(message.contains("it needs 2 nodes, and there are 1, in: echo"), "{message}");
    let mut waiting = settled(1, &[0]);
    waiting.group = Ok(group.clone());
    waiting.nodes.insert(0, Arc::new(node(0, record.clone())));
    let shown = conditions(&group_status(&waiting));
    assert_eq!(shown[0].0, "Ready");
    assert!(shown.iter().all(|(kind, ..)| kind != "Stalled"), "{shown:?}");
    let message = group_status(&waiting).conditions[0].message.clone();
    assert!(message.contains("WaitingForNodes: configure is due; action exec[0]: it needs 2 nodes"), "{message}");
    with_nodes(&mut group, &["10.0.0.1", "10.0.0.2"], &[]);
    assert_eq!(due(&group, &record).as_deref(), Some("configure"));
}

#[test]
fn a_group_shows_the_nodes_that_run_and_are_known() {
    let mut shown = settled(3, &[0, 1, 2]);
    Arc::make_mut(shown.pods.get_mut("web-1").unwrap()).deleting = true;
    Arc::make_mut(shown.nodes.get_mut(&2).unwrap()).record.incarnation = None;
    let peers = peers(&shown);
    assert_eq!(peers.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["web-0"]);
    assert_eq!(peers[0].facts["hostname"], json!("web-0"));
}

#[test]
fn what_runs_on_one_node_runs_on_the_lowest_that_is_there_or_is_to_be() {
    let chosen = |live: &[u32], count| scale::chosen(&live.iter().copied().collect(), count);
    assert_eq!(chosen(&[0, 1, 2], 3), Some(0));
    assert_eq!(chosen(&[1, 2], 3), Some(0), "the first is being replaced: it keeps its part");
    assert_eq!(chosen(&[1, 2], 2), Some(1), "the first was given up");
    assert_eq!(chosen(&[], 0), None);
}

fn rollout() -> Group {
    let exec = |name: &str| json!({"name": name, "exec": {"script": name}});
    group(json!({"phases": {
        "configure": {"actions": [exec("stop"), {"name": "look", "manual": {"message": "look at {{ node.name }}"}}, exec("go")]},
        "test": {"expect": [{"name": "x", "that": "true"}]},
        "app-rollout": {"prepare": [exec("download")], "actions": [exec("migrate")]}
    }, "converge": {"phases": ["configure", "test"]}}))
}

fn at_the_step(group: &Group) -> Record {
    let mut record = done(group, &identity());
    let configure = record.receipts.get_mut(&PhaseName::configure()).unwrap();
    configure.outcome = Outcome::Waiting;
    let result = |name: &str, result| ActionResult { name: name.into(), result, diff: String::new() };
    use crate::api::group_node::Effect::{Changed, Waiting};
    configure.actions = vec![result("stop", Changed), result("look", Waiting)];
    record
}

#[test]
fn a_manual_step_is_waited_at_until_that_very_run_is_acknowledged() {
    let group = rollout();
    let record = at_the_step(&group);
    let next = |ack: &str| next(&group, &Identity { ack: ack.into(), ..identity() }, &record, now());
    let Next::Manual { action, message, run_id, .. } = next("") else { panic!() };
    assert_eq!((action.as_str(), message.as_str()), ("look", "look at web-0"));
    assert!(matches!(next("configure-run-0"), Next::Manual { .. }), "another run's");
    let Next::Run { from: 2, attempt: 1, previous, .. } = next(&run_id) else { panic!() };
    assert_eq!(previous, run_id);
    // It fails behind the step: it is tried again from there.
    let mut failed = record.clone();
    let configure = failed.receipts.get_mut(&PhaseName::configure()).unwrap();
    (configure.outcome, configure.from, configure.finished_at) = (Outcome::Failed, 2, Time(ago(60)));
    assert!(matches!(super::next(&group, &identity(), &failed, now()), Next::Run { from: 2, attempt: 2, .. }));
    // On another file system everything begins anew.
    let reborn = record.reborn(None);
    assert!(!reborn.receipts.contains_key(&PhaseName::configure()));
}

#[test]
fn a_group_that_waits_for_a_person_is_stalled_and_says_what_to_do() {
    let mut waiting = settled(1, &[0]);
    let group = rollout();
    let record = at_the_step(&group);
    waiting.group = Ok(group);
    waiting.nodes.insert(0, Arc::new(node(0, record)));
    let status = group_status(&waiting);
    let shown = conditions(&status);
    assert!(shown.contains(&("Stalled".into(), "True".into(), "ManualStep".into())), "{shown:?}");
    let message = &status.conditions[0].message;
    assert!(
        message.contains(
            "look at web-0; when that is done: kubectl annotate groupnode web-0 pallet.dev/ack=configure-run-1"
        ),
        "{message}"
    );
    assert!(status.phase_errors.is_empty());
}

#[test]
fn what_is_prepared_for_app_rollout_runs_in_converge_and_the_rest_does_not() {
    let names: Vec<String> = rollout().phases.converged().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["settings", "configure", "app-rollout-prepare", "test"]);
    let object = object(json!({"phases": {
        "app-rollout-prepare": {"actions": [{"exec": {"script": "x"}}]},
        "configure": {"prepare": [{"exec": {"script": "x"}}]},
        "destroy-server": {"actions": [{"manual": {"message": "x"}}]}
    }}));
    let errors: Vec<String> =
        resolve(&object, &Default::default()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 3, "{errors:#?}");
}
