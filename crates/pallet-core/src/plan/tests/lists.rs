//! `status.unconverged`: the group lists a node before a session may change it, and the next operator reads its journal.

use super::rollouts::{halt, rewind};
use super::*;

/// What starts, and what of it waits for the list.
fn starts(snapshot: &Snapshot) -> (Vec<u32>, Vec<u32>) {
    let planned = plan(snapshot);
    (planned.effects.iter().filter_map(Effect::starts).collect(), planned.unlisted.into_iter().collect())
}

fn parallel(most: u32) -> Value {
    json!({"count": 4, "converge": {"rollout": {"maxParallel": most}}})
}

#[test]
fn a_converged_node_is_listed_before_a_session_starts_there() {
    let mut snapshot = settled_as(parallel(2), &[0, 1, 2, 3]);
    assert_eq!(group_status(&snapshot).unconverged, "", "at rest");
    for ordinal in [0, 1, 3] {
        rewind(&mut snapshot, ordinal, &["configure"]);
    }
    assert_eq!(starts(&snapshot), (vec![0, 1], vec![0, 1]));
    let status = group_status(&snapshot);
    assert_eq!(status.unconverged, "0-1,3", "one write lists those whose turn comes later, too");
    snapshot.status = status;
    assert_eq!(starts(&snapshot), (vec![0, 1], vec![]));

    let mut held = settled_as(parallel(2), &[0, 1, 2, 3]);
    rewind(&mut held, 0, &["configure"]);
    let mut planned = plan(&held);
    planned.hold_unlisted();
    assert_eq!(planned.effects, vec![], "no list, no session");
}

/// A node whose status says nothing of its present life is met by a session in any case: a new group costs no write for that.
#[test]
fn a_new_node_needs_no_list() {
    let new = snapshot(json!({}), vec![node(0, Record::default())], vec![machine(0)]);
    assert_eq!(starts(&new), (vec![0], vec![]));
    let mut restarted = settled(1, &[0]);
    let machine = Arc::make_mut(restarted.machines.get_mut("web-0").unwrap());
    machine.state = MachineState::Running { id: "c-9".into() };
    machine.gate_open = false;
    assert_eq!(starts(&restarted), (vec![0], vec![]));
    // Its first session is over. That may be written by now, though no answer came.
    let mut unwritten = settled(1, &[0]);
    rewind(&mut unwritten, 0, &["configure"]);
    Arc::make_mut(unwritten.nodes.get_mut(&0).unwrap()).saved = Some(Record::default());
    assert_eq!(starts(&unwritten), (vec![0], vec![0]));
}

#[test]
fn a_list_whose_write_had_no_answer_lists_nobody() {
    let mut snapshot = settled(1, &[0]);
    rewind(&mut snapshot, 0, &["configure"]);
    snapshot.status.unconverged = "0".into();
    assert_eq!(starts(&snapshot), (vec![0], vec![]));
    snapshot.list_in_doubt = true;
    assert_eq!(starts(&snapshot), (vec![0], vec![0]));
}

#[test]
fn a_node_stays_listed_until_its_result_is_written() {
    let mut snapshot = settled(2, &[0, 1]);
    snapshot.status.unconverged = "0-1".into();
    let node = Arc::make_mut(snapshot.nodes.get_mut(&1).unwrap());
    node.saved = Some(Record { drift: None, ..node.record.clone() });
    assert_eq!(group_status(&snapshot).unconverged, "1");
    // What a drift check has found is no such result: looks cost no write of the group.
    snapshot.status.unconverged.clear();
    assert_eq!(group_status(&snapshot).unconverged, "");

    let mut followed = settled(2, &[0, 1]);
    let view =
        SessionView { instance: "c-1".into(), since: ago(1), running: None, kind: SessionKind::Converge, lift: None };
    followed.sessions.insert("web-1".into(), view.clone());
    assert_eq!(group_status(&followed).unconverged, "1", "a session is open");
    followed.sessions.insert("web-1".into(), SessionView { kind: SessionKind::Check, ..view });
    assert_eq!(group_status(&followed).unconverged, "", "a check changes nothing");

    let mut unreadable = settled(2, &[0, 1]);
    unreadable.status.unconverged = "1".into();
    unreadable.group = Err(vec![]);
    assert_eq!(group_status(&unreadable).unconverged, "1", "under a spec that cannot be read nothing is known anew");
}

#[test]
fn the_journal_of_a_listed_node_is_read_once() {
    let mut snapshot = settled(3, &[0, 1, 2]);
    snapshot.status.unconverged = "1".into();
    snapshot.unread = [1].into();
    let planned = plan(&snapshot);
    assert!(matches!(&planned.effects[..], [Effect::StartSession { ordinal: 1, why: Why::Unread, .. }]), "{planned:?}");
    assert!(planned.unlisted.is_empty());
    let status = status::group(&snapshot, &planned.steps);
    assert_eq!(
        (status.unconverged.as_str(), status.converged_replicas),
        ("1", 2),
        "till then it is not called converged"
    );
    snapshot.unread.clear();
    assert!(plan(&snapshot).effects.is_empty());
    assert_eq!(group_status(&snapshot).unconverged, "");

    // Where a phase is due a session starts anyway.
    let mut due = settled(1, &[0]);
    due.unread = [0].into();
    rewind(&mut due, 0, &["configure"]);
    assert!(matches!(&plan(&due).steps[&0], Step::Run { why: Why::Changed(_), .. }));
    // Where its pod is lost there is nothing to read.
    let mut lost = settled(1, &[0]);
    lost.unread = [0].into();
    lost.machines.clear();
    assert!(matches!(&plan(&lost).steps[&0], Step::Await(_)));
}

/// Reading a journal changes nothing: neither a barrier nor a rollout that has stopped is in its way, and it is in nobody's.
#[test]
fn a_rollout_neither_waits_for_a_journal_nor_holds_it_back() {
    let script = |text: &str| json!({"actions": [{"exec": {"script": text}}]});
    let rolled = |rollout: Value| {
        json!({
            "count": 3, "phases": {"bootstrap": script("boot"), "init": script("init"), "configure": script("conf")},
            "converge": {"phases": ["init", "configure"], "retry": {"limit": 0}, "rollout": rollout}
        })
    };
    let mut barrier = settled_as(rolled(json!({"order": "Barrier", "maxParallel": 9})), &[0, 1, 2]);
    rewind(&mut barrier, 0, &["init", "configure"]);
    rewind(&mut barrier, 1, &["configure"]);
    let before = plan(&barrier).bounds;
    barrier.unread = [2].into();
    let planned = plan(&barrier);
    assert_eq!(planned.effects.iter().filter_map(Effect::starts).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(planned.bounds, before);

    let mut stopped = settled_as(rolled(json!({"onFailure": "StopAll", "maxParallel": 9})), &[0, 1, 2]);
    halt(&mut stopped, 0, "configure");
    stopped.unread = [2].into();
    assert_eq!(starts(&stopped).0, [2]);

    let mut paused = settled_as(json!({"count": 1, "paused": true}), &[0]);
    paused.unread = [0].into();
    assert_eq!(starts(&paused).0, [] as [u32; 0]);
}
