//! Every standing of a group and of its nodes, as an object that people and programs see: for [`pallet_operator::standings`].

use super::{
    language::{at_the_step, gated, rollout},
    rollouts::{halt, rewind, stopping},
    sequences::tested,
    *,
};
use pallet_api::group_node::{Difference, Drift};
use pallet_api::reason::Reason;

fn shown(snapshot: &Snapshot) -> Value {
    let group = snapshot.group.as_ref();
    let mut object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "generation": snapshot.head.generation},
        "spec": {"count": group.map_or(1, |group| group.count), "paused": group.is_ok_and(|group| group.paused)},
        "status": group_status(snapshot),
    });
    if snapshot.head.deletion.is_some() {
        object["metadata"]["deletionTimestamp"] = json!(now().to_string());
    }
    object
}

fn change(mut snapshot: Snapshot, change: impl FnOnce(&mut Snapshot)) -> Value {
    change(&mut snapshot);
    shown(&snapshot)
}

fn of_node(snapshot: &mut Snapshot, ordinal: u32, change: impl FnOnce(&mut Node)) {
    change(Arc::make_mut(snapshot.nodes.get_mut(&ordinal).unwrap()));
}

fn of_machine(snapshot: &mut Snapshot, name: &str, change: impl FnOnce(&mut Machine)) {
    change(Arc::make_mut(snapshot.machines.get_mut(name).unwrap()));
}

/// Configure failed on a node just now, for the first time.
fn failed_once(snapshot: &mut Snapshot, ordinal: u32) {
    of_node(snapshot, ordinal, |node| {
        let phase_result = node.record.phase_results.get_mut(&PhaseName::configure()).unwrap();
        (phase_result.outcome, phase_result.finished_at) = (Outcome::Failed, Time(now()));
        phase_result.message = "failed with exit code 7".into();
    });
}

fn test_failed() -> Snapshot {
    let mut spec = tested();
    spec["converge"]["retry"] = json!({"limit": 0});
    let mut snapshot = settled_as(spec, &[0]);
    of_node(&mut snapshot, 0, |node| {
        let test = node.record.phase_results.get_mut(&PhaseName::test()).unwrap();
        (test.outcome, test.finished_at) = (Outcome::Failed, Time(now()));
        test.message = "disk: nearly full".into();
        node.record.phase_results.get_mut(&PhaseName::settings()).unwrap().finished_at = Time(now());
    });
    snapshot
}

fn at_manual_step() -> Snapshot {
    let mut snapshot = settled(1, &[0]);
    let group = rollout();
    let record = at_the_step(&group);
    snapshot.group = Ok(group);
    snapshot.nodes.insert(0, Arc::new(node(0, record)));
    snapshot
}

fn waiting_for_approval() -> Snapshot {
    let before = group_status(&gated(json!({"count": 2}), &[0, 1], &GroupSpecStatus::default(), ""));
    gated(json!({"count": 3}), &[0, 1], &before, "")
}

fn never_settling() -> Snapshot {
    let mut snapshot = settled(1, &[0]);
    of_node(&mut snapshot, 0, |node| {
        node.record.phase_results.get_mut(&PhaseName::configure()).unwrap().digest = "older".into();
    });
    let about = Some(snapshot.group.as_ref().unwrap().fingerprint(""));
    let until = now() + SignedDuration::from_secs(3600);
    let (reason, message) = ("NotIdempotent".into(), "configure changes facts that it uses".into());
    let target = machine(0).target.unwrap();
    let trouble = Trouble { instance: "c-0".into(), target, reason, message, since: now(), until, about };
    snapshot.troubles.insert("web-0".into(), trouble);
    snapshot
}

fn refused(reason: Reason) -> Value {
    let message = "the API server says so".into();
    change(settled(3, &[0, 1]), |seen| seen.template = TemplateVerdict::Refused { reason, message })
}

fn running(seen: &mut Snapshot) {
    rewind(seen, 0, &["configure"]);
    let running = Running { phase: "configure".into(), run_id: "r".into(), attempt: 1, started_at: Time(ago(60)) };
    let kind = SessionKind::Converge;
    let session = SessionView { instance: "c-0".into(), since: ago(60), running: Some(running), kind, lift: None };
    seen.sessions.insert("web-0".into(), session);
}

/// The standings of a group, each with what it is called in the table.
pub(crate) fn groups() -> Vec<(&'static str, Value)> {
    let paused = |seen: &mut Snapshot| seen.group.as_mut().unwrap().paused = true;
    let unready = |seen: &mut Snapshot| of_machine(seen, "web-0", |machine| machine.ready = false);
    let mut new = shown(&settled(1, &[]));
    new["metadata"]["generation"] = json!(1);
    new["status"] = json!({"observedGeneration": -1, "replicas": 0});
    let mut edited = shown(&settled(2, &[0, 1]));
    edited["metadata"]["generation"] = json!(4);
    let mut mended = change(settled(1, &[0]), |seen| halt(seen, 0, "configure"));
    mended["metadata"]["generation"] = json!(4);
    vec![
        ("new", new),
        ("its nodes are to be made", shown(&settled(2, &[]))),
        ("scaling up", shown(&settled(3, &[0, 1]))),
        ("scaling down", shown(&settled(1, &[0, 1]))),
        ("an image cannot be pulled", {
            change(settled(1, &[0]), |seen| {
                let (reason, message) = ("ErrImagePull".into(), "no such image".into());
                of_machine(seen, "web-0", |machine| machine.state = MachineState::Waiting { reason, message });
            })
        }),
        ("a phase is due", change(settled(2, &[0, 1]), |seen| rewind(seen, 0, &["configure"]))),
        ("a phase runs", change(settled(2, &[0, 1]), running)),
        ("a phase is tried again later", change(settled(1, &[0]), |seen| failed_once(seen, 0))),
        ("one node has failed, another goes on", {
            change(settled(2, &[0, 1]), |seen| {
                halt(seen, 0, "configure");
                rewind(seen, 1, &["configure"]);
            })
        }),
        ("replacing", {
            change(settled(1, &[0]), |seen| of_machine(seen, "web-0", |machine| machine.template_hash = "older".into()))
        }),
        ("a pod is not Ready", change(settled(1, &[0]), unready)),
        ("a plan waits while nodes go on", change(waiting_for_approval(), |seen| rewind(seen, 0, &["configure"]))),
        ("converged", shown(&settled(2, &[0, 1]))),
        ("converged on an older template", {
            change(settled(1, &[0]), |seen| {
                of_machine(seen, "web-0", |machine| machine.template_hash = "older".into());
                seen.group.as_mut().unwrap().rollout.replacement = Replacement::Never;
            })
        }),
        ("converged and drifted", {
            let spec = json!({"converge": {"driftCheck": {"interval": "10m"}}});
            change(settled_as(spec, &[0]), |seen| {
                let found = Difference { phase: "configure".into(), name: "motd".into(), message: "-a\n+b\n".into() };
                let drift = Drift { checked_at: Time(ago(5)), differences: vec![found], omitted: 0 };
                of_node(seen, 0, |node| node.record.drift = Some(drift));
            })
        }),
        ("converged and without nodes", shown(&settled(0, &[]))),
        ("edited since it was converged", edited),
        ("edited since it was stalled", mended),
        ("paused on its way", {
            change(settled(2, &[0, 1]), |seen| {
                rewind(seen, 0, &["configure"]);
                paused(seen);
            })
        }),
        ("paused and converged", change(settled(1, &[0]), paused)),
        ("paused with a pod that is not Ready", {
            change(settled(1, &[0]), |seen| {
                unready(seen);
                paused(seen);
            })
        }),
        ("PhaseFailed", change(settled(1, &[0]), |seen| halt(seen, 0, "configure"))),
        ("TestFailed", shown(&test_failed())),
        ("ManualStep", shown(&at_manual_step())),
        ("WaitingForApproval", shown(&waiting_for_approval())),
        ("RolloutStopped", shown(&stopping(json!({"onFailure": "StopAll"})))),
        ("NameConflict", {
            change(settled(1, &[0]), |seen| {
                of_machine(seen, "web-0", |machine| (machine.controller, machine.node) = (Some("other".into()), None));
            })
        }),
        ("NotIdempotent", shown(&never_settling())),
        ("InvalidSpec", {
            change(settled(1, &[0]), |seen| {
                let spec = json!({"phases": {"configure": {"actions": [{"exec": {"script": "{{ nope }}"}}]}}});
                seen.group = resolve(&object(spec), &Default::default());
            })
        }),
        ("InvalidTemplate", refused(Reason::InvalidTemplate)),
        ("Forbidden", refused(Reason::Forbidden)),
        ("QuotaExceeded", refused(Reason::QuotaExceeded)),
        ("deleted", change(settled(1, &[0]), |seen| seen.head.deletion = Some(Cascade::Nodes))),
        ("deleted while it was stalled", {
            change(settled(1, &[0]), |seen| {
                halt(seen, 0, "configure");
                seen.head.deletion = Some(Cascade::Nodes);
            })
        }),
    ]
}

/// A node of the group, as its status is when it is due.
fn node_shown(mut snapshot: Snapshot, change: impl FnOnce(&mut Snapshot)) -> Value {
    change(&mut snapshot);
    let steps = plan(&snapshot).steps;
    let node = snapshot.nodes[&0].clone();
    let status::Due::Now(status) = status::node(&snapshot, &node, steps.get(&0)) else {
        panic!("it is not due: {steps:?}")
    };
    json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode",
        "metadata": {"name": "web-0", "namespace": "shop", "generation": 1},
        "spec": {"group": "web", "groupUid": "g", "ordinal": 0}, "status": status,
    })
}

/// The standings of a node.
pub(crate) fn nodes() -> Vec<(&'static str, Value)> {
    let mut new = node_shown(settled(1, &[0]), |_| ());
    new.as_object_mut().unwrap().remove("status");
    let mut removed = node_shown(settled(1, &[0]), |_| ());
    removed["metadata"]["deletionTimestamp"] = json!(now().to_string());
    let taken = |seen: &mut Snapshot| {
        of_machine(seen, "web-0", |machine| (machine.controller, machine.node) = (Some("other".into()), None));
    };
    vec![
        ("node: new", new),
        ("node: its pod is to be made", node_shown(settled(1, &[0]), |seen| seen.machines.clear())),
        ("node: a phase is due", node_shown(settled(1, &[0]), |seen| rewind(seen, 0, &["configure"]))),
        ("node: a phase runs", {
            node_shown(settled(1, &[0]), |seen| {
                running(seen);
                seen.status.unconverged = "0".into();
            })
        }),
        ("node: a phase is tried again later", node_shown(settled(1, &[0]), |seen| failed_once(seen, 0))),
        ("node: converged", node_shown(settled(1, &[0]), |_| ())),
        ("node: PhaseFailed", node_shown(settled(1, &[0]), |seen| halt(seen, 0, "configure"))),
        ("node: TestFailed", node_shown(test_failed(), |_| ())),
        ("node: ManualStep", node_shown(at_manual_step(), |_| ())),
        ("node: WaitingForApproval", {
            let held = gated(json!({}), &[0], &GroupSpecStatus::default(), "");
            let before = group_status(&held);
            let phases = json!({"configure": {"actions": [{"exec": {"script": "other"}}]}});
            node_shown(gated(json!({"phases": phases}), &[0], &before, ""), |_| ())
        }),
        ("node: NameConflict", node_shown(settled(1, &[0]), taken)),
        ("node: NotIdempotent", node_shown(never_settling(), |_| ())),
        ("node: removed", removed),
    ]
}
