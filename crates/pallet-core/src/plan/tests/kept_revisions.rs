//! Revisions: from which template machines are made, and what is kept while the present declaration cannot be used.

use super::*;
use crate::group::{
    FieldError,
    revision::{self, Revision},
};
use pallet_api::reason::Reason;

const OLD: &str = "y";

/// A group of three whose template names another image than what its nodes were made from.
fn rolling(image: &str) -> Snapshot {
    let mut extra = json!({"count": 3, "converge": {"rollout": {"maxUnavailable": 1}}});
    extra["node"] = json!({"pod": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    let mut snapshot = settled_as(extra, &[0, 1, 2]);
    let old = kept(1, OLD);
    for machine in snapshot.machines.values_mut() {
        Arc::make_mut(machine).template_hash = old.template_hash.clone();
    }
    for node in snapshot.nodes.values_mut() {
        Arc::make_mut(node).template_hash = old.template_hash.clone();
    }
    snapshot.recorded = [old.template_hash.clone()].into();
    snapshot.templates = [(old.template_hash.clone(), old.shape.clone().unwrap())].into();
    snapshot.revisions = vec![old];
    snapshot
}

fn kept(number: i64, image: &str) -> Arc<Revision> {
    let node = json!({"pod": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}});
    let data = json!({"spec": {"node": node}, "serverSpecs": {}});
    let shape = revision::shape(&data).unwrap();
    Arc::new(Revision {
        name: format!("web-{number}"),
        uid: format!("r-{number}"),
        controller: Some("g".into()),
        number,
        digest: revision::digest(&data, shape.hash()),
        template_hash: shape.hash().to_owned(),
        shape: Some(shape),
        data: Arc::new(data),
    })
}

fn present(snapshot: &Snapshot) -> String {
    snapshot.group.as_ref().unwrap().node.hash().to_owned()
}

/// The rollout has stopped at its first node, which does not start.
fn stuck() -> Snapshot {
    let mut snapshot = rolling("broken");
    let hash = present(&snapshot);
    let machine = Arc::make_mut(snapshot.machines.get_mut("web-2").unwrap());
    machine.template_hash = hash;
    machine.state = MachineState::Waiting { reason: "ErrImagePull".into(), message: String::new() };
    (machine.ready, machine.gate_open) = (false, false);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&2).unwrap());
    (node.template_hash, node.record) = (String::new(), Record::default());
    snapshot
}

fn created(plan: &Plan) -> Vec<Effect> {
    let creates = |effect: &&Effect| {
        matches!(effect, Effect::CreateMachine { .. } | Effect::CreateNode { .. } | Effect::DeleteNode { .. })
    };
    plan.effects.iter().filter(creates).cloned().collect()
}

#[test]
fn a_lost_machine_is_made_from_the_template_that_its_node_converged_on() {
    let mut snapshot = stuck();
    let old = kept(1, OLD).template_hash.clone();
    snapshot.machines.remove("web-0");
    let planned = plan(&snapshot);
    assert_eq!(created(&planned), [Effect::CreateMachine { ordinal: 0 }]);
    assert_eq!(planned.templates, [(0, old.clone())].into());
    // It comes back: nothing replaces it meanwhile, nor once it is there.
    let mut back = Machine { created: ago(5), ready: false, gate_open: false, template_hash: old, ..machine(0) };
    back.state = MachineState::Waiting { reason: "ContainerCreating".into(), message: String::new() };
    snapshot.machines.insert("web-0".into(), Arc::new(back.clone()));
    assert_eq!(created(&plan(&snapshot)), []);
    (back.state, back.ready, back.gate_open) = (machine(0).state, true, true);
    snapshot.machines.insert("web-0".into(), Arc::new(back));
    assert_eq!(created(&plan(&snapshot)), []);
}

#[test]
fn a_new_node_is_made_from_the_template_that_works_while_a_rollout_is_stuck() {
    let mut snapshot = stuck();
    let old = kept(1, OLD).template_hash.clone();
    snapshot.machines.remove("web-0");
    snapshot.nodes.remove(&0);
    let planned = plan(&snapshot);
    assert_eq!(created(&planned), [Effect::CreateNode { ordinal: 0 }]);
    assert_eq!(planned.templates, [(0, old.clone())].into());
    // It is not replaced before it has converged once, either.
    let young = Machine { created: ago(2), ready: false, gate_open: false, template_hash: old, ..machine(0) };
    snapshot.machines.insert("web-0".into(), Arc::new(young));
    snapshot.nodes.insert(0, Arc::new(node(0, Record::default())));
    assert_eq!(created(&plan(&snapshot)), []);
    // Where the present template has worked, it is made from that.
    let mut snapshot = rolling("works");
    let hash = present(&snapshot);
    Arc::make_mut(snapshot.machines.get_mut("web-2").unwrap()).template_hash = hash;
    snapshot.machines.remove("web-0");
    snapshot.nodes.remove(&0);
    let planned = plan(&snapshot);
    assert_eq!((created(&planned), planned.templates), (vec![Effect::CreateNode { ordinal: 0 }], BTreeMap::new()));
}

/// What does no good goes first and without limit, as soon as another template may be better.
#[test]
fn nodes_of_a_template_that_never_worked_give_way_to_the_next_one() {
    let mut snapshot = stuck();
    let broken = kept(2, "broken");
    let fixed = resolve(
        &object(json!({
            "count": 3, "converge": {"rollout": {"maxUnavailable": 1}},
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "fixed"}]}}}}
        })),
        &Default::default(),
    );
    snapshot.group = fixed;
    snapshot.templates.insert(broken.template_hash.clone(), broken.shape.clone().unwrap());
    let (ordinal, uid) = (2, "n-2".to_owned());
    let why = Removal::Replaced { healthy: false };
    let cascade = crate::group::Cascade::Nodes;
    assert_eq!(created(&plan(&snapshot)), [Effect::DeleteNode { ordinal, uid, cascade, why }]);
}

#[test]
fn a_refused_template_stops_the_rollout_and_no_replacement() {
    let mut snapshot = rolling("refused");
    let old = kept(1, OLD).template_hash.clone();
    snapshot.template = TemplateVerdict::Refused { reason: Reason::InvalidTemplate, message: "no".into() };
    assert_eq!(created(&plan(&snapshot)), []);
    snapshot.machines.remove("web-1");
    snapshot.machines.remove("web-0");
    snapshot.nodes.remove(&0);
    let planned = plan(&snapshot);
    assert_eq!(created(&planned), [Effect::CreateMachine { ordinal: 1 }, Effect::CreateNode { ordinal: 0 }]);
    assert_eq!(planned.templates, [(0, old.clone()), (1, old)].into());
    // A used-up quota says nothing against it: what is new waits for it.
    snapshot.template = TemplateVerdict::Refused { reason: QUOTA, message: "no".into() };
    let planned = plan(&snapshot);
    assert_eq!(created(&planned), [Effect::CreateMachine { ordinal: 1 }]);
}

/// People delete pods to have them made from the present template then.
#[test]
fn where_nodes_are_never_replaced_a_lost_machine_is_made_from_the_present_template() {
    let mut snapshot = rolling("works");
    snapshot.group.as_mut().unwrap().rollout.replacement = crate::group::Replacement::Never;
    snapshot.machines.remove("web-0");
    let planned = plan(&snapshot);
    assert_eq!((created(&planned), planned.templates), (vec![Effect::CreateMachine { ordinal: 0 }], BTreeMap::new()));
}

fn invalid(heal: Heal) -> Snapshot {
    let mut snapshot = settled(2, &[0, 1, 2]);
    let error = FieldError { path: "spec.phases".into(), message: "is wrong".into() };
    snapshot.last_good = std::mem::replace(&mut snapshot.group, Err(vec![error])).ok();
    snapshot.heal = heal;
    snapshot
}

#[test]
fn an_invalid_declaration_removes_nothing_and_replaces_what_is_lost() {
    let mut snapshot = invalid(Heal::Fully);
    assert_eq!(plan(&snapshot).effects, []);
    snapshot.last_good.as_mut().unwrap().count = 3;
    snapshot.machines.remove("web-1");
    snapshot.machines.remove("web-2");
    snapshot.nodes.remove(&2);
    let planned = plan(&snapshot);
    assert_eq!(created(&planned), [Effect::CreateNode { ordinal: 2 }, Effect::CreateMachine { ordinal: 1 }]);
    let status = group_status(&snapshot);
    assert_eq!(
        (status.replicas, status.converged_replicas, status.ready_replicas, status.updated_replicas),
        (2, 1, 1, 1)
    );
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
    assert_eq!(stalled.reason, "InvalidSpec");
    let kept = "until then nodes are kept as last declared validly: 1 of 3 nodes are converged";
    assert!(stalled.message.contains("spec.phases: is wrong") && stalled.message.contains(kept), "{}", stalled.message);
    // A pod that has come back runs its phases.
    let young = Machine { uid: "p-9".into(), state: MachineState::Running { id: "c-9".into() }, ..machine(1) };
    snapshot.machines.insert("web-1".into(), Arc::new(young));
    assert!(plan(&snapshot).effects.iter().any(|effect| matches!(effect, Effect::StartSession { ordinal: 1, .. })));
    snapshot.last_good.as_mut().unwrap().paused = true;
    assert_eq!(plan(&snapshot).effects, []);
}

/// After a restart nobody knows the fingerprint of a Secret that is not there: phases that are done must not run again.
#[test]
fn without_all_that_templates_see_machines_come_back_and_no_phase_runs() {
    let mut snapshot = invalid(Heal::Machines);
    snapshot.nodes.remove(&2);
    snapshot.machines.remove("web-2");
    for node in snapshot.nodes.values_mut() {
        let verdict = json!([{"type": "Converged", "status": "True", "reason": "Converged", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        Arc::make_mut(node).reported.conditions = serde_json::from_value(verdict).unwrap();
    }
    let young = Machine { uid: "p-9".into(), state: MachineState::Running { id: "c-9".into() }, ..machine(1) };
    snapshot.machines.insert("web-1".into(), Arc::new(young));
    let planned = plan(&snapshot);
    assert_eq!((planned.effects, planned.steps.keys().copied().collect::<Vec<_>>()), (vec![], vec![1]));
    assert_eq!(group_status(&snapshot).converged_replicas, 1);
    snapshot.machines.remove("web-0");
    assert_eq!(created(&plan(&snapshot)), [Effect::CreateMachine { ordinal: 0 }]);
    assert_eq!(group_status(&snapshot).converged_replicas, 0);
    snapshot.heal = Heal::No;
    assert_eq!(plan(&snapshot).effects, []);
}

#[test]
fn a_revision_is_kept_once_for_each_valid_declaration() {
    let due = revisions::due;
    let mut snapshot = rolling("new");
    assert_eq!(due(&snapshot).keep, Some(2));
    snapshot.template = TemplateVerdict::Unchecked;
    assert_eq!(due(&snapshot), revisions::Due::default(), "nobody knows yet whether it is valid");
    snapshot.template = TemplateVerdict::Accepted;
    snapshot.unkept = Some(snapshot.group.as_ref().unwrap().declared.clone());
    assert_eq!(due(&snapshot), revisions::Due::default(), "it was refused a moment ago");
    let digest = snapshot.unkept.take().unwrap();
    let newest = Revision { digest, template_hash: present(&snapshot), ..(*kept(9, "new")).clone() };
    // Nodes are on the oldest and on none of the others.
    snapshot.revisions = vec![kept(1, OLD), kept(2, "z"), Arc::new(newest)];
    assert_eq!(due(&snapshot), revisions::Due { keep: None, drop: vec![("web-2".into(), "r-2".into())] });
    snapshot.revisions.remove(1);
    assert_eq!(due(&snapshot), revisions::Due::default(), "nothing at rest");
    snapshot.recorded = [present(&snapshot)].into();
    assert_eq!(due(&snapshot).drop, [("web-1".into(), "r-1".into())]);
    snapshot.head.deletion = Some(crate::group::Cascade::Nodes);
    assert_eq!(due(&snapshot), revisions::Due::default(), "the collector takes them");
}

#[test]
fn revisions_are_bounded() {
    let mut snapshot = rolling("new");
    let many: Vec<Arc<Revision>> = (0..30).map(|n| kept(n, &format!("image-{n}"))).collect();
    snapshot.recorded = many.iter().map(|revision| revision.template_hash.clone()).collect();
    let digest = snapshot.group.as_ref().unwrap().declared.clone();
    let newest = Arc::new(Revision { digest, ..(*kept(99, "new")).clone() });
    snapshot.revisions = many.into_iter().chain([newest]).collect();
    assert_eq!(snapshot.revisions.len() - revisions::due(&snapshot).drop.len(), revisions::MOST);
}

/// Guards against phases that run without approval, since an edit after them cannot be used.
#[test]
fn what_is_not_approved_is_held_back_from_the_last_valid_declaration_too() {
    let mut snapshot = settled_as(json!({"count": 5, "approval": "Manual"}), &[0, 1]);
    let error = FieldError { path: "spec.phases".into(), message: "is wrong".into() };
    snapshot.last_good = std::mem::replace(&mut snapshot.group, Err(vec![error])).ok();
    snapshot.heal = Heal::Fully;
    approval::gate(&mut snapshot);
    let held = snapshot.last_good.as_ref().unwrap();
    assert_eq!((held.count, held.unapproved.is_empty()), (2, false));
    assert_eq!(created(&plan(&snapshot)), []);
}
