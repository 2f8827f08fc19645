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
