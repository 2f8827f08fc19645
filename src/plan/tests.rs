//! Every branch of the next step, the order of victims, and what the status makes of it.

mod removals;
mod rollouts;
mod sequences;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    next::{Identity, Next, Why, next},
    progress::{Cause, Situation, step},
    scale::{Rank, missing, victims},
    *,
};
use crate::{
    api::{
        GroupSpecStatus,
        conditions::{Verdict, stamp},
        group_node::{ActionResult, Incarnation, Outcome, Receipt, Running},
    },
    facts::Facts,
    group::{Replacement, resolve},
    phase::PhaseName,
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn object(extra: Value) -> crate::api::GroupSpec {
    let mut spec = json!({
        "count": 1,
        "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
        "phases": {
            "bootstrap": {"actions": [{"exec": {"script": "boot {{ facts.hostname }}"}}]},
            "settings": {"facts": [{"name": "own", "exec": "own", "optional": true}], "values": {"v": "{{ facts.own or 'none' }}"}},
            "configure": {"actions": [{"exec": {"script": "conf {{ settings.v }}"}}]}
        },
        "converge": {"retry": {"limit": 2, "backoff": "10s"}, "rollout": {"maxParallel": 2}}
    });
    if let (Value::Object(spec), Value::Object(extra)) = (&mut spec, extra) {
        spec.extend(extra);
    }
    serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g", "generation": 3, "finalizers": ["pallet.dev/finalizer"]},
        "spec": spec
    }))
    .unwrap()
}

fn group(extra: Value) -> Group {
    resolve(&object(extra)).unwrap()
}

fn receipt(phase: &str, digest: &str, outcome: Outcome, attempt: u32, finished: Timestamp) -> Receipt {
    Receipt {
        phase: phase.into(),
        digest: digest.into(),
        run_id: format!("{phase}-run-{attempt}"),
        attempt,
        outcome,
        exit_code: (outcome == Outcome::Failed).then_some(7),
        started_at: Time(finished),
        finished_at: Time(finished),
        actions: vec![],
        output: if outcome == Outcome::Failed { "no luck\n".into() } else { String::new() },
        output_bytes: 0,
        message: if outcome == Outcome::Failed { "failed with exit code 7".into() } else { String::new() },
        retry_token: String::new(),
    }
}

/// The record of a node on which everything is done.
fn done(group: &Group, identity: &Identity) -> Record {
    let mut record = Record {
        incarnation: Some(Incarnation { uid: "p-0".into(), instance: "c-0".into(), witness: "w".into() }),
        facts: Facts::from([("hostname".into(), json!("web-0"))]),
        receipts: BTreeMap::new(),
    };
    let settings = group.phases.settings.digest.to_string();
    record.receipts.insert(PhaseName::bootstrap(), receipt("bootstrap", "any", Outcome::Succeeded, 1, ago(100)));
    record.receipts.insert(PhaseName::settings(), receipt("settings", &settings, Outcome::Succeeded, 1, ago(90)));
    loop {
        let (phase, receipt) = match next(group, identity, &record, now()) {
            Next::Run { rendered, .. } => {
                let (phase, digest) = (rendered.phase.clone(), rendered.digest.to_string());
                (phase.clone(), receipt(phase.as_str(), &digest, Outcome::Succeeded, 1, ago(80)))
            }
            Next::Test { digest, look, .. } => {
                let receipt = receipt("test", digest.as_str(), Outcome::Succeeded, 1, ago(80));
                (PhaseName::test(), Receipt { run_id: look, ..receipt })
            }
            _ => return record,
        };
        record.receipts.insert(phase, receipt);
    }
}

fn identity() -> Identity {
    Identity { name: "web-0".into(), ordinal: 0, address: "10.0.0.1".into(), retry_token: String::new() }
}

fn node(ordinal: u32, record: Record) -> Node {
    Node {
        name: format!("web-{ordinal}"),
        uid: format!("n-{ordinal}"),
        ordinal,
        deletion: None,
        deleted_at: None,
        finalized: true,
        marked: false,
        retry_token: String::new(),
        created: ago(300),
        record,
        version: "1".into(),
        saved: None,
        reported: Reported::default(),
    }
}

fn pod(ordinal: u32) -> Pod {
    Pod {
        name: format!("web-{ordinal}"),
        uid: format!("p-{ordinal}"),
        controller: Some("g".into()),
        node: Some(format!("n-{ordinal}")),
        deleting: false,
        marked: false,
        container_name: "main".into(),
        container: Container::Running { id: format!("c-{ordinal}") },
        address: Some("10.0.0.1".into()),
        ready: true,
        gate_open: true,
        gated: true,
        template_hash: group(json!({})).pod.hash,
        created: ago(300),
    }
}

fn snapshot(extra: Value, nodes: Vec<Node>, pods: Vec<Pod>) -> Snapshot {
    let object = object(extra);
    Snapshot {
        now: now(),
        head: resolve::head(&object),
        group: resolve(&object),
        template: TemplateVerdict::Accepted,
        status: GroupSpecStatus::default(),
        nodes: nodes.into_iter().map(|node| (node.ordinal, Arc::new(node))).collect(),
        foreign_nodes: BTreeMap::new(),
        uncertain: BTreeSet::new(),
        strays: Vec::new(),
        recheck: false,
        session_limit: 64,
        pods: pods.into_iter().map(|pod| (pod.name.clone(), Arc::new(pod))).collect(),
        claims: BTreeMap::new(),
        sessions: BTreeMap::new(),
        troubles: BTreeMap::new(),
    }
}

/// A settled group of as many nodes as there are ordinals.
fn settled(count: u32, ordinals: &[u32]) -> Snapshot {
    settled_as(json!({"count": count}), ordinals)
}

/// The same, of a group that is declared otherwise.
fn settled_as(extra: Value, ordinals: &[u32]) -> Snapshot {
    let group = group(extra.clone());
    let nodes = ordinals.iter().map(|ordinal| {
        let mut node = node(*ordinal, Record::default());
        let pod = pod(*ordinal);
        node.record = done(&group, &progress::identity(&node, &pod));
        let (uid, instance) = (pod.uid.clone(), format!("c-{ordinal}"));
        node.record.incarnation = Some(Incarnation { uid, instance, witness: "w".into() });
        node
    });
    snapshot(extra, nodes.collect(), ordinals.iter().map(|ordinal| pod(*ordinal)).collect())
}

fn step_of(group: &Group, node: &Node, pod: Option<&Pod>) -> Step {
    step(&Situation { group, node, pod, foreign: false, session: None, trouble: None, now: now() })
}

// ---- next: what is due by phases and receipts ----------------------------------------------------------------------

#[test]
fn phases_come_in_order_and_each_once() {
    let group = group(json!({}));
    let mut record = Record { facts: done(&group, &identity()).facts, ..Record::default() };
    let due = |record: &Record| next(&group, &identity(), record, now());
    let Next::Run { rendered, attempt: 1, why: Why::Due(_), .. } = due(&record) else { panic!("{:?}", due(&record)) };
    assert_eq!(rendered.phase, PhaseName::bootstrap());
    record.receipts.insert(PhaseName::bootstrap(), done(&group, &identity()).receipts[&PhaseName::bootstrap()].clone());
    assert!(matches!(due(&record), Next::Gather { attempt: 1, .. }));
    record.receipts.insert(PhaseName::settings(), done(&group, &identity()).receipts[&PhaseName::settings()].clone());
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
    let Next::Run { rendered, attempt: 1, previous, why } = next(&after, &identity(), &record, now()) else { panic!() };
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
    let digest = record.receipts[&PhaseName::configure()].digest.clone();
    let mut failed = |attempt, finished| {
        record
            .receipts
            .insert(PhaseName::configure(), receipt("configure", &digest, Outcome::Failed, attempt, finished));
        next(&group, &identity(), &record, now())
    };
    assert!(matches!(failed(1, ago(1)), Next::Backoff { attempt: 2, until, .. } if until > now()));
    assert!(matches!(failed(1, ago(11)), Next::Run { attempt: 2, why: Why::Retry(_, 2), .. }));
    assert!(matches!(failed(2, ago(11)), Next::Backoff { attempt: 3, .. }), "the pause doubles");
    assert!(matches!(failed(3, ago(999)), Next::Halt { .. }));
    let retried = Identity { retry_token: "1".into(), ..identity() };
    assert!(matches!(next(&group, &retried, &record, now()), Next::Run { attempt: 1, .. }));
    // A timeout counts as any failure.
    record.receipts.insert(PhaseName::configure(), receipt("configure", &digest, Outcome::TimedOut, 3, ago(999)));
    assert!(matches!(next(&group, &identity(), &record, now()), Next::Halt { .. }));
    // Another digest has attempts of its own.
    record.receipts.insert(PhaseName::configure(), receipt("configure", "older", Outcome::Failed, 3, ago(999)));
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

// ---- step: every branch --------------------------------------------------------------------------------------------

#[test]
fn whatever_is_observed_there_is_one_next_step() {
    let group = group(json!({}));
    let converged = node(0, done(&group, &identity()));
    let fresh = node(0, Record::default());
    let running = pod(0);
    let with = |container: Container| Pod { container, ..pod(0) };
    assert_eq!(step_of(&group, &converged, Some(&running)), Step::Settled);
    assert_eq!(step_of(&group, &fresh, None), Step::Await(Cause::PodMissing));
    assert_eq!(step_of(&group, &fresh, Some(&Pod { deleting: true, ..pod(0) })), Step::Await(Cause::PodTerminating));
    let waiting = with(Container::Waiting { reason: "ErrImagePull".into(), message: "m".into() });
    assert!(
        matches!(step_of(&group, &fresh, Some(&waiting)), Step::Await(Cause::ContainerWaiting { reason, .. }) if reason == "ErrImagePull")
    );
    let gone = with(Container::Gone { reason: "Evicted".into() });
    assert!(matches!(step_of(&group, &fresh, Some(&gone)), Step::Await(Cause::ContainerWaiting { .. })));
    assert!(
        matches!(step_of(&group, &fresh, Some(&running)), Step::Run { why: Why::NewNode, phase } if phase == PhaseName::bootstrap())
    );
    let foreign =
        Situation { group: &group, node: &fresh, pod: None, foreign: true, session: None, trouble: None, now: now() };
    assert_eq!(step(&foreign), Step::Await(Cause::NameTaken));

    let session = SessionView { instance: "c-0".into(), since: ago(1), running: None, farewell: false };
    let followed = Situation { foreign: false, pod: Some(&running), session: Some(&session), ..foreign };
    assert_eq!(step(&followed), Step::Follow(None));

    // Another container: everything again, even where all had succeeded.
    let restarted = with(Container::Running { id: "c-1".into() });
    assert!(matches!(step_of(&group, &converged, Some(&restarted)), Step::Run { why: Why::NewIncarnation, .. }));

    let mut lost = converged.clone();
    lost.record.receipts.insert(PhaseName::configure(), receipt("configure", "d", Outcome::Unknown, 1, ago(1)));
    assert_eq!(
        step_of(&group, &lost, Some(&running)),
        Step::Run { phase: PhaseName::configure(), why: Why::Probe(PhaseName::configure()) }
    );
}

#[test]
fn a_node_out_of_reach_is_left_alone_for_a_while_and_only_while_it_is_the_same() {
    let group = group(json!({}));
    let (fresh, running) = (node(0, Record::default()), pod(0));
    let trouble = |instance: &str, until| Trouble {
        instance: instance.into(),
        reason: "NoShell".into(),
        message: "m".into(),
        since: now(),
        until,
    };
    let look = |trouble: &Trouble| {
        step(&Situation {
            group: &group,
            node: &fresh,
            pod: Some(&running),
            foreign: false,
            session: None,
            trouble: Some(trouble),
            now: now(),
        })
    };
    let later = now() + SignedDuration::from_secs(5);
    assert!(matches!(look(&trouble("c-0", later)), Step::Await(Cause::Unreachable(_))));
    assert_eq!(look(&trouble("c-0", later)).wake(now()), Some(later));
    assert!(matches!(look(&trouble("c-0", ago(1))), Step::Run { .. }));
    assert!(matches!(look(&trouble("c-9", later)), Step::Run { .. }));
}

/// A phase that kills its own container must not go round for ever: attempts count across incarnations.
#[test]
fn a_new_incarnation_keeps_what_had_failed() {
    let group = group(json!({}));
    let mut record = Record { receipts: BTreeMap::new(), ..done(&group, &identity()) };
    let Next::Run { rendered, .. } = next(&group, &identity(), &record, now()) else { panic!() };
    let failed = |attempt| receipt("bootstrap", rendered.digest.as_str(), Outcome::Unknown, attempt, ago(1));
    let restarted = Pod { container: Container::Running { id: "c-1".into() }, ..pod(0) };
    record.receipts.insert(PhaseName::bootstrap(), failed(1));
    assert!(matches!(step_of(&group, &node(0, record.clone()), Some(&restarted)), Step::Backoff { .. }));
    record.receipts.insert(PhaseName::bootstrap(), failed(3));
    assert!(matches!(step_of(&group, &node(0, record.clone()), Some(&restarted)), Step::Halt { .. }));
    let reborn = record.reborn(None);
    assert_eq!(reborn.receipts[&PhaseName::bootstrap()].outcome, Outcome::Failed);
    assert!(done(&group, &identity()).reborn(None).receipts.is_empty(), "a success is undone");
}

#[test]
fn a_group_without_phases_asks_nothing_of_its_nodes() {
    let group = group(json!({"phases": {}}));
    assert_eq!(step_of(&group, &node(0, Record::default()), Some(&pod(0))), Step::Settled);
}

// ---- scale ---------------------------------------------------------------------------------------------------------

#[test]
fn victims_go_by_rank_and_then_by_ordinal() {
    let mut snapshot = settled(0, &[0, 1, 2, 3, 4]);
    let change = |snapshot: &mut Snapshot, ordinal: u32, change: &dyn Fn(&mut Node)| {
        change(Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap()));
    };
    change(&mut snapshot, 1, &|node| node.record.receipts.clear());
    change(&mut snapshot, 0, &|node| node.marked = true);
    snapshot.pods.remove("web-2");
    let live: Vec<&Node> = snapshot.live().collect();
    let order = |count| {
        victims(&snapshot, &live, count).into_iter().map(|(node, rank)| (node.ordinal, rank)).collect::<Vec<_>>()
    };
    assert_eq!(
        order(0),
        [
            (0, Rank::Marked),
            (2, Rank::Unhealthy),
            (1, Rank::NeverBootstrapped),
            (4, Rank::HighestOrdinal),
            (3, Rank::HighestOrdinal)
        ]
    );
    assert_eq!(order(4), [(0, Rank::Marked)]);
    assert_eq!(order(5), []);
    assert_eq!(order(9), []);
}

#[test]
fn missing_nodes_take_the_lowest_free_ordinals() {
    let mut snapshot = settled(5, &[0, 2]);
    assert_eq!(missing(&snapshot, &group(json!({})), 2, 5), [1, 3, 4]);
    snapshot.foreign_nodes.insert(1, "somebody's".into());
    assert_eq!(missing(&snapshot, &group(json!({})), 2, 5), [3, 4, 5]);
    // What may be there already comes first, or there could be one too many.
    snapshot.uncertain.insert(7);
    assert_eq!(missing(&snapshot, &group(json!({})), 2, 4), [7, 3]);
    assert!(missing(&snapshot, &group(json!({})), 2, 1).is_empty());
}

// ---- the plan ------------------------------------------------------------------------------------------------------

fn effects(snapshot: &Snapshot) -> Vec<Effect> {
    plan(snapshot).effects
}

#[test]
fn a_settled_group_has_no_effects_and_no_reason_to_wake() {
    let planned = plan(&settled(2, &[0, 1]));
    assert_eq!((planned.effects, planned.wake), (vec![], None));
}

#[test]
fn first_the_finalizer_then_the_template_then_the_nodes() {
    let mut snapshot = snapshot(json!({"count": 2}), vec![], vec![]);
    snapshot.head.finalized = false;
    snapshot.template = TemplateVerdict::Unchecked;
    assert_eq!(effects(&snapshot), [Effect::Finalize]);
    snapshot.head.finalized = true;
    assert_eq!(effects(&snapshot), [Effect::CheckTemplate]);
    snapshot.template = TemplateVerdict::Refused { reason: "InvalidTemplate", message: "no".into() };
    assert_eq!(effects(&snapshot), []);
    assert!(plan(&snapshot).wake.is_some(), "it is looked at again");
    snapshot.template = TemplateVerdict::Accepted;
    assert_eq!(effects(&snapshot), [Effect::CreateNode { ordinal: 0 }, Effect::CreateNode { ordinal: 1 }]);
}

/// Found end to end: a group applied right after its namespace waited half a minute for a service account.
#[test]
fn what_is_forbidden_may_be_allowed_in_a_moment() {
    let mut snapshot = snapshot(json!({"count": 1}), vec![], vec![]);
    let mut wake = |reason| {
        snapshot.template = TemplateVerdict::Refused { reason, message: "no".into() };
        plan(&snapshot).wake.unwrap().duration_since(now()).as_secs()
    };
    assert_eq!((wake("Forbidden"), wake("InvalidTemplate")), (3, 30));
}

#[test]
fn max_parallel_counts_those_at_work() {
    let nodes = (0..4).map(|ordinal| node(ordinal, Record::default())).collect();
    let mut snapshot = snapshot(json!({"count": 4}), nodes, (0..4).map(pod).collect());
    let starts = |snapshot: &Snapshot| effects(snapshot).iter().filter_map(Effect::starts).collect::<Vec<_>>();
    assert_eq!(starts(&snapshot), [0, 1]);
    let session = SessionView { instance: "c-3".into(), since: now(), running: None, farewell: false };
    snapshot.sessions.insert("web-3".into(), session);
    assert_eq!(starts(&snapshot), [0]);
}

#[test]
fn a_spec_that_cannot_be_read_removes_nothing_and_starts_nothing() {
    let phases = json!({"configure": {"actions": [{"exec": {"script": "{{ nope }}"}}]}});
    let mut snapshot = settled(2, &[0, 1]);
    let bad = object(json!({"count": 0, "phases": phases}));
    snapshot.group = resolve(&bad);
    assert!(effects(&snapshot).is_empty());
    let status = status::group(&snapshot, &plan(&snapshot).steps);
    let of =
        |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).map(|c| (c.status.clone(), c.reason.clone()));
    assert_eq!(of("Stalled"), Some(("True".into(), "InvalidSpec".into())));
    assert_eq!((of("Ready").unwrap().0.as_str(), of("Reconciling")), ("False", None));
}

#[test]
fn pause_stops_everything_but_deletion() {
    let mut snapshot = snapshot(json!({"count": 3, "paused": true}), vec![node(0, Record::default())], vec![pod(0)]);
    assert!(effects(&snapshot).is_empty());
    snapshot.head.deletion = Some(Cascade::Nodes);
    assert!(matches!(effects(&snapshot)[..], [Effect::DeleteNode { why: Removal::GroupDeleted, .. }]));
}

#[test]
fn a_node_goes_after_its_session_and_its_pod_and_an_orphan_without() {
    let mut snapshot = settled(1, &[0]);
    let removing = |snapshot: &mut Snapshot, cascade| {
        Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).deletion = Some(cascade);
    };
    removing(&mut snapshot, Cascade::Nodes);
    snapshot.head.deletion = Some(Cascade::Nodes);
    let session = SessionView { instance: "c-0".into(), since: now(), running: None, farewell: false };
    snapshot.sessions.insert("web-0".into(), session);
    assert!(matches!(
        effects(&snapshot)[..],
        [Effect::EndSession { .. }, Effect::DeletePod { why: PodRemoval::NodeRemoved, .. }]
    ));
    snapshot.sessions.clear();
    Arc::make_mut(snapshot.pods.get_mut("web-0").unwrap()).deleting = true;
    assert!(effects(&snapshot).is_empty(), "its pod is waited for");
    snapshot.pods.clear();
    assert_eq!(effects(&snapshot), [Effect::ReleaseNode { ordinal: 0 }]);
    snapshot.nodes.clear();
    assert_eq!(effects(&snapshot), [Effect::ReleaseGroup]);

    let mut orphan = settled(1, &[0]);
    removing(&mut orphan, Cascade::Orphan);
    assert!(!effects(&orphan).iter().any(|effect| matches!(effect, Effect::DeletePod { .. })));
}

#[test]
fn a_pod_that_ended_for_good_is_replaced_and_a_foreign_one_never_touched() {
    let mut snapshot = settled(1, &[0]);
    Arc::make_mut(snapshot.pods.get_mut("web-0").unwrap()).container = Container::Gone { reason: "Evicted".into() };
    assert!(matches!(effects(&snapshot)[..], [Effect::DeletePod { why: PodRemoval::Lost, .. }]));
    Arc::make_mut(snapshot.pods.get_mut("web-0").unwrap()).controller = Some("somebody".into());
    assert!(effects(&snapshot).is_empty(), "{:?}", effects(&snapshot));
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).deletion = Some(Cascade::Nodes);
    assert!(!effects(&snapshot).iter().any(|effect| matches!(effect, Effect::DeletePod { .. })));
}

#[test]
fn a_pod_that_fails_at_once_is_not_made_as_fast_as_it_fails() {
    let mut snapshot = settled(1, &[0]);
    let pod = Arc::make_mut(snapshot.pods.get_mut("web-0").unwrap());
    (pod.container, pod.created) = (Container::Gone { reason: "OutOfcpu".into() }, ago(3));
    let planned = plan(&snapshot);
    assert_eq!((planned.effects, planned.wake), (vec![], Some(ago(3) + SignedDuration::from_secs(10))));
}

#[test]
fn a_pod_without_a_node_goes_when_its_node_cannot_be_on_its_way() {
    let mut snapshot = settled(1, &[0]);
    snapshot.pods.insert("web-7".into(), Arc::new(Pod { created: ago(61), ..pod(7) }));
    assert!(
        matches!(&effects(&snapshot)[..], [Effect::DeletePod { name, why: PodRemoval::NodeGone, .. }] if name == "web-7")
    );
    snapshot.pods.insert("web-7".into(), Arc::new(Pod { created: ago(9), ..pod(7) }));
    let planned = plan(&snapshot);
    assert!(planned.effects.is_empty() && planned.wake.is_some());
}

#[test]
fn what_was_refused_is_tried_again_without_forgetting_that_it_was() {
    let mut refused = snapshot(json!({}), vec![], vec![]);
    refused.template = TemplateVerdict::Refused { reason: "Forbidden", message: "quota".into() };
    refused.recheck = true;
    assert_eq!(effects(&refused), [Effect::CheckTemplate]);
    assert_eq!(conditions(&group_status(&refused))[1], ("Stalled".into(), "True".into(), "Forbidden".into()));
    let stranger = Pod { uid: String::new(), controller: None, ..pod(0) };
    let mut taken = snapshot(json!({}), vec![node(0, Record::default())], vec![stranger]);
    assert_eq!(effects(&taken), []);
    taken.recheck = true;
    assert_eq!(effects(&taken), [Effect::CreatePod { ordinal: 0 }]);
    assert_eq!(plan(&taken).steps[&0], Step::Await(Cause::NameTaken));
}

#[test]
fn the_groups_word_on_its_orphans_stands_when_the_collector_is_done() {
    let mut snapshot = settled(1, &[0]);
    snapshot.head.deletion = Some(Cascade::Orphan);
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).deletion = Some(Cascade::Nodes);
    assert_eq!(effects(&snapshot), [Effect::ReleaseNode { ordinal: 0 }]);
}

#[test]
fn whatever_was_done_is_looked_at_again() {
    let missing = snapshot(json!({"count": 1}), vec![], vec![]);
    assert_eq!(plan(&missing).wake, Some(now() + SignedDuration::from_secs(1)));
}

#[test]
fn a_group_that_lost_its_finalizer_is_no_less_converged() {
    let mut snapshot = settled(2, &[0, 1]);
    snapshot.head.finalized = false;
    let planned = plan(&snapshot);
    assert_eq!((planned.effects, planned.steps.len()), (vec![Effect::Finalize], 2));
}

#[test]
fn a_session_on_a_container_that_was_replaced_ends() {
    let mut snapshot = settled(1, &[0]);
    let session = SessionView { instance: "c-old".into(), since: now(), running: None, farewell: false };
    snapshot.sessions.insert("web-0".into(), session);
    assert!(matches!(effects(&snapshot)[..], [Effect::EndSession { .. }]));
}

#[test]
fn the_gate_opens_when_everything_is_done_and_not_before() {
    let mut snapshot = settled(1, &[0]);
    Arc::make_mut(snapshot.pods.get_mut("web-0").unwrap()).gate_open = false;
    assert_eq!(effects(&snapshot), [Effect::OpenGate { name: "web-0".into(), uid: "p-0".into() }]);
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).record.receipts.remove(&PhaseName::configure());
    assert!(!effects(&snapshot).iter().any(|effect| matches!(effect, Effect::OpenGate { .. })));
}

// ---- the status ----------------------------------------------------------------------------------------------------

fn group_status(snapshot: &Snapshot) -> GroupSpecStatus {
    status::group(snapshot, &plan(snapshot).steps)
}

fn conditions(status: &GroupSpecStatus) -> Vec<(String, String, String)> {
    status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
}

#[test]
fn the_status_says_how_far_the_group_is() {
    let triple = |kind: &str, status: &str, reason: &str| (kind.to_owned(), status.to_owned(), reason.to_owned());
    let status = group_status(&settled(2, &[0, 1]));
    assert_eq!(conditions(&status), [triple("Ready", "True", "Converged")]);
    assert_eq!((status.replicas, status.ready_replicas, status.updated_replicas), (2, 2, 2));
    assert_eq!(status.observed_generation, Some(3));

    let status = group_status(&settled(3, &[0, 1]));
    assert_eq!(conditions(&status), [triple("Ready", "False", "Scaling"), triple("Reconciling", "True", "Scaling")]);

    let mut unready = settled(1, &[0]);
    Arc::make_mut(unready.pods.get_mut("web-0").unwrap()).ready = false;
    assert_eq!(conditions(&group_status(&unready))[0], triple("Ready", "False", "PodsNotReady"));

    let mut old = settled(1, &[0]);
    Arc::make_mut(old.pods.get_mut("web-0").unwrap()).template_hash = "older".into();
    let status = group_status(&old);
    assert_eq!(status.updated_replicas, 0);
    assert_eq!(conditions(&status)[0], triple("Ready", "False", "Replacing"));
    old.group.as_mut().unwrap().rollout.replacement = Replacement::Never;
    let status = group_status(&old);
    assert_eq!(conditions(&status)[0], triple("Ready", "True", "Converged"));
    assert!(status.conditions[0].message.contains("older pod template"));

    let mut deleted = settled(1, &[0]);
    deleted.head.deletion = Some(Cascade::Nodes);
    assert_eq!(conditions(&group_status(&deleted))[1], triple("Reconciling", "True", "Deleting"));
}

#[test]
fn a_group_stalls_only_when_nothing_goes_on_without_a_person() {
    let halt = |ordinal: u32, attempt: u32| {
        let group = group(json!({}));
        let mut record = done(&group, &identity());
        let (uid, instance) = (format!("p-{ordinal}"), format!("c-{ordinal}"));
        record.incarnation = Some(Incarnation { uid, instance, witness: "w".into() });
        let digest = record.receipts[&PhaseName::configure()].digest.clone();
        let mut failed = receipt("configure", &digest, Outcome::Failed, attempt, ago(5));
        failed.actions = vec![ActionResult { name: "gate".into(), result: crate::api::group_node::Effect::Failed }];
        record.receipts.insert(PhaseName::configure(), failed);
        node(ordinal, record)
    };
    let both_halted = snapshot(json!({"count": 2}), vec![halt(0, 3), halt(1, 3)], vec![pod(0), pod(1)]);
    let status = group_status(&both_halted);
    assert_eq!(conditions(&status)[1].0, "Stalled");
    assert!(status.conditions[0].message.contains("no luck") && status.conditions[0].message.contains("1 more"));
    assert_eq!(status.phase_errors[0].action.as_deref(), Some("gate"));
    let counts = status.phases.iter().find(|phase| phase.phase == "configure").unwrap();
    assert_eq!((counts.failed, counts.succeeded), (2, 0));
    let one_waits = snapshot(json!({"count": 2}), vec![halt(0, 3), halt(1, 1)], vec![pod(0), pod(1)]);
    assert_eq!(conditions(&group_status(&one_waits))[1].0, "Reconciling");
}

#[test]
fn what_was_learned_is_written_under_a_spec_that_cannot_be_read_too() {
    let mut snapshot = settled(1, &[0]);
    snapshot.group =
        resolve(&object(json!({"phases": {"configure": {"actions": [{"exec": {"script": "{{ nope }}"}}]}}})));
    let mut learned = node(0, done(&group(json!({})), &identity()));
    assert_eq!(status::node(&snapshot, &learned, None), status::Due::No);
    learned.saved = Some(Record::default());
    let status::Due::Now(written) = status::node(&snapshot, &learned, None) else { panic!() };
    assert_eq!(written.receipts.len(), 3);
}

#[test]
fn a_paused_group_does_not_wait_for_gates_that_it_keeps_shut() {
    let mut paused = settled(1, &[0]);
    if let Ok(group) = &mut paused.group {
        group.paused = true;
    }
    assert_eq!(conditions(&group_status(&paused))[0].1, "True");
    Arc::make_mut(paused.pods.get_mut("web-0").unwrap()).ready = false;
    assert_eq!(conditions(&group_status(&paused))[0].2, "Paused");
}

#[test]
fn an_error_of_a_phase_that_is_gone_is_gone() {
    let mut record = done(&group(json!({})), &identity());
    record.receipts.insert(PhaseName::new("gone"), receipt("gone", "d", Outcome::Failed, 3, ago(5)));
    let status = group_status(&snapshot(json!({}), vec![node(0, record)], vec![pod(0)]));
    assert!(status.phase_errors.is_empty(), "{:?}", status.phase_errors);
}

#[test]
fn what_keeps_a_group_from_going_on_is_said() {
    let waiting = Container::Waiting { reason: "ErrImagePull".into(), message: "no such image".into() };
    let stuck = snapshot(json!({}), vec![node(0, Record::default())], vec![Pod { container: waiting, ..pod(0) }]);
    let message = group_status(&stuck).conditions[0].message.clone();
    assert!(message.contains("web-0: ErrImagePull: no such image"), "{message}");
}

#[test]
fn the_worst_errors_are_shown_and_the_rest_counted() {
    let nodes: Vec<Node> = (0..9)
        .map(|ordinal| {
            let mut record = Record::default();
            let failed = receipt("configure", "d", Outcome::Failed, 1 + ordinal % 3, ago(5));
            record.receipts.insert(PhaseName::configure(), failed);
            node(ordinal, record)
        })
        .collect();
    let status = group_status(&snapshot(json!({"count": 9}), nodes, vec![]));
    let shown: Vec<_> = status.phase_errors.iter().map(|error| (error.attempt, error.node.as_str())).collect();
    assert_eq!(shown, [(3, "web-2"), (3, "web-5"), (3, "web-8"), (2, "web-1"), (2, "web-4")]);
    assert_eq!(status.phase_errors_omitted, 4);
}

#[test]
fn a_new_node_that_starts_as_nodes_do_is_not_written_about() {
    let mut young = node(0, Record::default());
    young.created = ago(3);
    let waiting =
        Pod { container: Container::Waiting { reason: "ContainerCreating".into(), message: "m".into() }, ..pod(0) };
    let snapshot = snapshot(json!({}), vec![young.clone()], vec![waiting]);
    let steps = plan(&snapshot).steps;
    assert_eq!(status::node(&snapshot, &young, steps.get(&0)), status::Due::At(ago(3) + SignedDuration::from_secs(10)));
    // Told once that it waits, it is not told again that its turn has not come.
    let mut told = young.clone();
    let verdict =
        Verdict { kind: "Converged", status: false, reason: "ContainerCreating".into(), message: String::new() };
    told.reported.conditions = stamp(vec![verdict], &[], None, ago(30));
    let turn = Step::Run { phase: PhaseName::bootstrap(), why: Why::NewNode };
    let later = ago(30) + SignedDuration::from_secs(300);
    assert_eq!(status::node(&snapshot, &told, Some(&turn)), status::Due::At(later));
    let mut old = young;
    old.created = ago(11);
    assert!(matches!(status::node(&snapshot, &old, steps.get(&0)), status::Due::Now(_)));
}

#[test]
fn a_run_is_shown_when_it_lasts_and_once() {
    let young = node(0, Record::default());
    let mut snapshot = snapshot(json!({}), vec![young.clone()], vec![pod(0)]);
    let running = |started: Timestamp| Running {
        phase: "bootstrap".into(),
        run_id: "r".into(),
        attempt: 1,
        started_at: Time(started),
    };
    let mut look = |node: &Node, started: Timestamp| {
        let session =
            SessionView { instance: "c-0".into(), since: started, running: Some(running(started)), farewell: false };
        snapshot.sessions.insert("web-0".into(), session);
        status::node(&snapshot, node, Some(&Step::Follow(Some(PhaseName::bootstrap()))))
    };
    assert_eq!(look(&young, ago(1)), status::Due::At(ago(1) + SignedDuration::from_secs(2)));
    let status::Due::Now(shown) = look(&young, ago(3)) else { panic!() };
    assert_eq!(shown.conditions[0].reason, "Running");
    // A node that was shown waiting for its turn has had its first write.
    let mut waited = young.clone();
    let verdict = Verdict { kind: "Converged", status: false, reason: "Pending".into(), message: String::new() };
    waited.reported.conditions = stamp(vec![verdict], &[], None, ago(40));
    assert_eq!(look(&waited, ago(3)), status::Due::At(ago(3) + SignedDuration::from_secs(30)));
    let mut told = young;
    told.reported.running = Some(running(ago(3)));
    assert_eq!(look(&told, ago(3)), status::Due::No);
}
