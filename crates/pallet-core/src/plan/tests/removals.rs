//! What happens before a node goes: destroy-server, and the claims that are not kept.

use super::*;

fn with_destroy() -> Value {
    json!({
        "count": 1,
        "phases": {
            "configure": {"actions": [{"exec": {"script": "conf"}}]},
            "destroy-server": {"actions": [{"exec": {"script": "bye {{ node.name }}"}}]}
        },
        "converge": {"destroyTimeout": "60s", "retry": {"limit": 1, "backoff": "10s"}}
    })
}

/// A settled node that is being removed for so many seconds.
fn leaving(seconds: i64) -> Snapshot {
    let mut snapshot = settled_as(with_destroy(), &[0]);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    (node.deletion, node.deleted_at) = (Some(Cascade::Nodes), Some(ago(seconds)));
    snapshot.group.as_mut().unwrap().count = 0;
    snapshot
}

fn session(farewell: bool) -> SessionView {
    let kind = if farewell { SessionKind::Farewell } else { SessionKind::Converge };
    SessionView { instance: "c-0".into(), since: ago(1), running: None, kind, lift: None }
}

fn said(snapshot: &mut Snapshot, outcome: Outcome, attempt: u32, finished: Timestamp) {
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    let group = snapshot.group.clone().unwrap();
    node.record.phase_results.remove(&PhaseName::destroy_server());
    let identity = progress::identity(node, Some(snapshot.machines["web-0"].as_ref()));
    let Next::Run { rendered, .. } = next::farewell(&group, &identity, &node.record, now()) else { panic!() };
    let phase_result = phase_result("destroy-server", rendered.digest.as_str(), outcome, attempt, finished);
    node.record.phase_results.insert(PhaseName::destroy_server(), phase_result);
}

fn kinds(snapshot: &Snapshot) -> Vec<&'static str> {
    let kind = |effect: &Effect| match effect {
        Effect::StartSession { purpose: Purpose::Farewell, .. } => "farewell",
        Effect::StartSession { .. } => "session",
        Effect::EndSession { .. } => "end",
        Effect::DeleteMachine { .. } => "pod",
        Effect::ReleaseNode { .. } => "release",
        Effect::Tell { .. } => "tell",
        Effect::DeleteClaim { .. } => "claim",
        Effect::ReleaseGroup => "group",
        _ => "other",
    };
    plan(snapshot).effects.iter().map(kind).collect()
}

#[test]
fn destroy_server_runs_before_the_pod_goes() {
    let mut snapshot = leaving(1);
    assert_eq!(kinds(&snapshot), ["farewell"]);
    assert!(plan(&snapshot).wake.is_some(), "the deadline wakes");
    snapshot.sessions.insert("web-0".into(), session(false));
    assert_eq!(kinds(&snapshot), ["end"], "what converge runs is ended first");
    snapshot.sessions.insert("web-0".into(), session(true));
    assert_eq!(kinds(&snapshot), Vec::<&str>::new());
    snapshot.sessions.clear();
    said(&mut snapshot, Outcome::Succeeded, 1, now());
    assert_eq!(kinds(&snapshot), ["pod"]);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).deleting = true;
    assert_eq!(kinds(&snapshot), Vec::<&str>::new());
    snapshot.machines.clear();
    assert_eq!(kinds(&snapshot), ["release"], "and nothing is told");
}

#[test]
fn pause_does_not_hold_a_farewell() {
    let mut snapshot = leaving(1);
    snapshot.group.as_mut().unwrap().paused = true;
    assert_eq!(kinds(&snapshot), ["farewell"]);
}

/// Found end to end: the collector takes the group off the owners of its pods first, and the pod passed for a stranger's.
#[test]
fn a_group_that_goes_in_the_foreground_says_goodbye_too() {
    let mut snapshot = leaving(1);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).controller = None;
    snapshot.head.deletion = Some(Cascade::Nodes);
    assert_eq!(kinds(&snapshot), ["farewell"]);
}

#[test]
fn one_that_fails_is_tried_again_and_then_the_node_goes_and_it_is_told() {
    let mut snapshot = leaving(20);
    said(&mut snapshot, Outcome::Failed, 1, ago(1));
    assert_eq!(kinds(&snapshot), Vec::<&str>::new(), "it waits for its second attempt");
    said(&mut snapshot, Outcome::Failed, 1, ago(15));
    assert_eq!(kinds(&snapshot), ["farewell"]);
    said(&mut snapshot, Outcome::Failed, 2, now());
    assert_eq!(kinds(&snapshot), ["pod"]);
    snapshot.machines.clear();
    assert_eq!(kinds(&snapshot), ["tell", "release"]);
}

/// What came of it is written before the pod goes, or a new leader would tell that it was skipped.
#[test]
fn the_result_is_written_before_the_pod_goes() {
    let mut snapshot = leaving(1);
    said(&mut snapshot, Outcome::Succeeded, 1, now());
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    node.saved = Some(Record::default());
    let planned = plan(&snapshot);
    assert_eq!((planned.effects.len(), &planned.farewells[&0]), (0, &Step::Settled));
    assert!(planned.wake.is_some());
    let node = &snapshot.nodes[&0];
    assert!(matches!(status::node(&snapshot, node, planned.farewells.get(&0)), status::Due::Now(_)));
}

#[test]
fn one_that_was_lost_from_sight_is_looked_for_whatever_attempts_are_left() {
    let mut snapshot = leaving(1);
    snapshot.group.as_mut().unwrap().retry.limit = 0;
    said(&mut snapshot, Outcome::Unknown, 1, now());
    assert_eq!(kinds(&snapshot), ["farewell"]);
}

#[test]
fn a_spec_that_cannot_be_read_says_no_goodbye_and_that_is_told() {
    let mut snapshot = leaving(1);
    snapshot.group = Err(vec![]);
    assert_eq!(kinds(&snapshot), ["pod"]);
    snapshot.machines.clear();
    assert_eq!(kinds(&snapshot), ["tell", "release"]);
}

/// Their deadlines would pass while they wait for a session.
#[test]
fn no_more_nodes_are_removed_than_can_say_goodbye() {
    let mut many = settled_as(with_destroy(), &[0, 1, 2]);
    many.session_limit = 2;
    many.group.as_mut().unwrap().count = 0;
    assert_eq!(kinds(&many), ["other", "other"]);
    many.head.deletion = Some(Cascade::Nodes);
    assert_eq!(kinds(&many), ["other", "other"]);
}

#[test]
fn the_deadline_ends_whatever_is_not_over() {
    let mut snapshot = leaving(61);
    snapshot.sessions.insert("web-0".into(), session(true));
    assert_eq!(kinds(&snapshot), ["end", "pod"]);
    let mut waiting = leaving(10);
    let state = MachineState::Waiting { reason: "CrashLoopBackOff".into(), message: "m".into() };
    Arc::make_mut(waiting.machines.get_mut("web-0").unwrap()).state = state;
    assert_eq!(kinds(&waiting), Vec::<&str>::new());
    assert_eq!(plan(&waiting).wake, Some(ago(10) + SignedDuration::from_secs(60)));
}

#[test]
fn what_went_by_itself_or_was_never_worked_on_has_no_farewell() {
    let mut snapshot = leaving(1);
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap());
    machine.deleting = true;
    let ended = MachineState::Waiting { reason: "ContainerTerminated".into(), message: "m".into() };
    machine.state = ended;
    assert_eq!(kinds(&snapshot), Vec::<&str>::new());
    snapshot.machines.clear();
    assert_eq!(kinds(&snapshot), ["tell", "release"], "a pod that others deleted skips it");
    let mut fresh = leaving(1);
    Arc::make_mut(fresh.nodes.get_mut(&0).unwrap()).record = Record::default();
    assert_eq!(kinds(&fresh), ["pod"]);
    let mut orphaned = leaving(1);
    Arc::make_mut(orphaned.nodes.get_mut(&0).unwrap()).deletion = Some(Cascade::Orphan);
    assert_eq!(kinds(&orphaned), ["release"]);
}

/// Where a namespace is deleted, its pods go together with the GroupNodes, and run until their grace period is over.
#[test]
fn a_pod_that_others_delete_runs_destroy_server_while_it_can() {
    let mut snapshot = leaving(1);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).deleting = true;
    assert_eq!(kinds(&snapshot), ["farewell"]);
    snapshot.sessions.insert("web-0".into(), session(true));
    assert_eq!(kinds(&snapshot), Vec::<&str>::new());
    // Its container ended in the middle of it.
    let ended = MachineState::Waiting { reason: "ContainerTerminated".into(), message: "m".into() };
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).state = ended;
    assert_eq!(kinds(&snapshot), ["end"]);
    snapshot.sessions.clear();
    snapshot.machines.clear();
    assert_eq!(kinds(&snapshot), ["tell", "release"]);
    // One that the operator deletes at the deadline is not begun again.
    let mut late = leaving(61);
    Arc::make_mut(late.machines.get_mut("web-0").unwrap()).deleting = true;
    assert_eq!(kinds(&late), Vec::<&str>::new());
}

#[test]
fn a_pod_that_was_lost_without_its_farewell_is_told_of() {
    let mut snapshot = settled_as(with_destroy(), &[0]);
    snapshot.machines.clear();
    assert_eq!(kinds(&snapshot), ["tell", "other"]);
}

// ---- claims --------------------------------------------------------------------------------------------------------

fn with_claims(policy: Value, ordinals: &[u32]) -> Snapshot {
    let machine = json!({
        "template": {"spec": {"containers": [{"name": "main", "image": "x"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
        "persistentVolumeClaimRetentionPolicy": policy
    });
    let mut snapshot = settled_as(json!({"count": ordinals.len(), "node": {"pod": machine}}), ordinals);
    for ordinal in 0..3 {
        let (name, node) = (format!("data-web-{ordinal}"), format!("web-{ordinal}"));
        let claim = Claim {
            name: name.clone(),
            uid: format!("u-{ordinal}"),
            group: Some("g".into()),
            node,
            ..Claim::default()
        };
        snapshot.claims.insert(name, Arc::new(claim));
    }
    snapshot
}

#[test]
fn claims_of_ordinals_that_were_given_up_go_where_the_policy_says_so() {
    assert_eq!(kinds(&with_claims(json!({}), &[0, 1])), Vec::<&str>::new());
    let scaled = json!({"whenScaled": "Delete"});
    assert_eq!(kinds(&with_claims(scaled.clone(), &[0, 1])), ["claim"]);
    assert_eq!(kinds(&with_claims(scaled.clone(), &[0, 1, 2])), Vec::<&str>::new());
    // While a node is missing nobody knows whether it will want its claim back.
    let mut incomplete = with_claims(scaled.clone(), &[0, 1]);
    incomplete.group.as_mut().unwrap().count = 3;
    assert_eq!(kinds(&incomplete), ["other"]);
    // What somebody else made is used and never deleted.
    let mut theirs = with_claims(scaled, &[0, 1]);
    Arc::make_mut(theirs.claims.get_mut("data-web-2").unwrap()).group = None;
    assert_eq!(kinds(&theirs), Vec::<&str>::new());
    // Nor what a former group of this name has left, nor what does not say whose it is.
    Arc::make_mut(theirs.claims.get_mut("data-web-2").unwrap()).group = Some("former".into());
    assert_eq!(kinds(&theirs), Vec::<&str>::new());
    let claim = Arc::make_mut(theirs.claims.get_mut("data-web-2").unwrap());
    (claim.group, claim.node) = (Some("g".into()), String::new());
    assert_eq!(kinds(&theirs), Vec::<&str>::new());
}

#[test]
fn claims_go_with_the_group_where_the_policy_says_so_and_before_it() {
    let deleted = |policy: Value| {
        let mut snapshot = with_claims(policy, &[0]);
        (snapshot.head.deletion, snapshot.nodes, snapshot.machines) =
            (Some(Cascade::Nodes), BTreeMap::new(), BTreeMap::new());
        snapshot
    };
    assert_eq!(kinds(&deleted(json!({}))), ["group"]);
    let mut going = deleted(json!({"whenDeleted": "Delete"}));
    assert_eq!(kinds(&going), ["claim", "claim", "claim"]);
    going.claims.values_mut().for_each(|claim| Arc::make_mut(claim).deleting = true);
    assert_eq!(kinds(&going), ["group"]);
    let mut orphaned = deleted(json!({"whenDeleted": "Delete"}));
    orphaned.head.deletion = Some(Cascade::Orphan);
    assert_eq!(kinds(&orphaned), ["group"]);
}

#[test]
fn a_lost_claim_is_made_again_and_one_that_is_going_holds_the_pod() {
    let mut snapshot = with_claims(json!({}), &[0]);
    snapshot.claims.clear();
    assert_eq!(plan(&snapshot).effects, [Effect::CreateClaims { ordinal: 0 }]);
    let mut snapshot = with_claims(json!({}), &[0]);
    snapshot.machines.clear();
    Arc::make_mut(snapshot.claims.get_mut("data-web-0").unwrap()).deleting = true;
    assert_eq!(plan(&snapshot).effects, []);
    assert!(matches!(plan(&snapshot).steps[&0], Step::Await(Cause::ClaimTerminating { .. })));
}

/// An ordinal beyond the count whose claim is there is made again, and no other begins anew for it.
#[test]
fn a_replaced_node_finds_its_claim_wherever_it_stood() {
    let creates = |snapshot: &Snapshot| -> Vec<u32> {
        let created = |effect: &Effect| match effect {
            Effect::CreateNode { ordinal } => Some(*ordinal),
            _ => None,
        };
        plan(snapshot).effects.iter().filter_map(created).collect()
    };
    let mut snapshot = with_claims(json!({"whenScaled": "Delete"}), &[1, 2]);
    snapshot.claims.remove("data-web-0");
    snapshot.group.as_mut().unwrap().count = 2;
    Arc::make_mut(snapshot.nodes.get_mut(&2).unwrap()).deletion = Some(Cascade::Nodes);
    assert!(creates(&snapshot).is_empty(), "web-2 is waited for");
    snapshot.nodes.remove(&2);
    snapshot.machines.remove("web-2");
    assert_eq!(creates(&snapshot), [2]);
    Arc::make_mut(snapshot.claims.get_mut("data-web-2").unwrap()).deleting = true;
    assert_eq!(creates(&snapshot), [0], "a claim that goes holds nobody");
}

/// Guards against a node that is removed without its destroy-server, since somebody has taken the finalizer off.
#[test]
fn a_node_gets_back_what_an_edit_took_off() {
    let mut snapshot = settled(3, &[0, 1, 2]);
    for (ordinal, finalized, labelled) in [(0, false, true), (1, true, false)] {
        let node = Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap());
        (node.finalized, node.labelled) = (finalized, labelled);
    }
    let restored: Vec<Effect> = (0..2).map(|ordinal| Effect::RestoreNode { ordinal }).collect();
    assert_eq!(plan(&snapshot).effects, restored);
    for node in snapshot.nodes.values_mut() {
        Arc::make_mut(node).deletion = Some(crate::group::Cascade::Nodes);
    }
    assert!(
        !plan(&snapshot).effects.iter().any(|effect| matches!(effect, Effect::RestoreNode { .. })),
        "they are going"
    );
}
