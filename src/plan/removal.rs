//! Pure: how nodes are removed: what still runs is ended, destroy-server has its say, then the pod goes, then the claims
//! that are not kept, then the GroupNode.

use super::{
    Effect, NOBODYS_AFTER, Node, Notice, Plan, PodRemoval, Purpose, Removal, Snapshot, Step, earliest,
    next::Why,
    progress::{self, Farewell},
};
use crate::group::{Cascade, Group, Retention};

/// The group goes, and its nodes with it, or released.
pub(super) fn teardown(snapshot: &Snapshot, plan: &mut Plan) {
    let cascade = snapshot.head.deletion.unwrap_or(Cascade::Nodes);
    for node in snapshot.nodes.values().filter(|node| node.deletion.is_none()) {
        let why = Removal::GroupDeleted;
        plan.effects.push(Effect::DeleteNode { ordinal: node.ordinal, uid: node.uid.clone(), cascade, why });
    }
    removals(snapshot, plan);
    if snapshot.nodes.is_empty() && snapshot.head.finalized {
        let kept =
            cascade == Cascade::Orphan || retention(snapshot).is_none_or(|r| r.when_deleted == Retention::Retain);
        if !kept {
            delete_claims(snapshot, |_| true, plan);
        }
        if kept || snapshot.claims.values().all(|claim| claim.deleting || claim.uid.is_empty()) {
            plan.effects.push(Effect::ReleaseGroup);
        }
    }
}

fn retention(snapshot: &Snapshot) -> Option<crate::group::RetentionFields> {
    snapshot.group.as_ref().ok().map(|group| group.pod.retention)
}

fn delete_claims(snapshot: &Snapshot, of: impl Fn(&str) -> bool, plan: &mut Plan) {
    let ours = snapshot.claims.values().filter(|claim| !claim.deleting && !claim.uid.is_empty() && of(&claim.node));
    plan.effects.extend(ours.map(|claim| Effect::DeleteClaim { name: claim.name.clone(), uid: claim.uid.clone() }));
}

/// The claims of ordinals that the group has given up. While nodes are missing nobody knows which.
pub(super) fn shrunk(snapshot: &Snapshot, group: &Group, plan: &mut Plan) {
    let complete = snapshot.live().count() == group.count as usize && snapshot.uncertain.is_empty();
    if group.pod.retention.when_scaled == Retention::Delete && complete {
        delete_claims(snapshot, |name| snapshot.nodes.values().all(|node| node.name != name), plan);
    }
}

/// The nodes that are being deleted: their session, then their farewell, then their pod, then their finalizer.
pub(super) fn removals(snapshot: &Snapshot, plan: &mut Plan) {
    let strays = snapshot.strays.iter().cloned();
    plan.effects.extend(strays.map(|(name, uid)| Effect::ReleaseStray { name, uid }));
    if snapshot.head.deletion != Some(Cascade::Orphan) {
        nobodys(snapshot, plan);
    }
    let mut busy = snapshot.sessions.len() as u32;
    for node in snapshot.nodes.values() {
        let Some(cascade) = node.deletion else { continue };
        // The collector takes its mark off when it is done; the group's word stands.
        let cascade = if snapshot.head.deletion == Some(Cascade::Orphan) { Cascade::Orphan } else { cascade };
        let farewell = match (cascade, &snapshot.group) {
            (Cascade::Nodes, Ok(group)) => progress::farewell(&snapshot.situation(group, node)),
            _ => Farewell::Over(None),
        };
        match farewell {
            Farewell::Due(step) => {
                wait_for(snapshot, node, &step, &mut busy, plan);
                plan.farewells.insert(node.ordinal, step);
            }
            Farewell::Over(broken) => let_go(snapshot, node, cascade, broken, plan),
        }
    }
}

/// Sees to it that a farewell goes on.
fn wait_for(snapshot: &Snapshot, node: &Node, step: &Step, busy: &mut u32, plan: &mut Plan) {
    let deadline = snapshot.group.as_ref().ok().and_then(|group| progress::deadline(group, node));
    plan.wake = earliest(plan.wake, earliest(deadline, step.wake(snapshot.now)));
    match snapshot.sessions.get(&node.name) {
        Some(session) if !session.farewell => {
            // It is opened anew for the farewell, and what runs is cancelled then.
            plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "the node is being removed" });
        }
        None if matches!(step, Step::Run { .. }) && *busy < snapshot.session_limit => {
            let (ordinal, purpose, why) = (node.ordinal, Purpose::Farewell, Why::Farewell);
            plan.effects.push(Effect::StartSession { ordinal, purpose, why });
            *busy += 1;
        }
        _ => {}
    }
}

fn let_go(snapshot: &Snapshot, node: &Node, cascade: Cascade, broken: Option<String>, plan: &mut Plan) {
    if snapshot.sessions.contains_key(&node.name) {
        plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "the node is being removed" });
    }
    match (cascade, snapshot.pod(node)) {
        (Cascade::Nodes, Some(pod)) if !pod.deleting => {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            plan.effects.push(Effect::DeletePod { name, uid, why: PodRemoval::NodeRemoved });
        }
        (Cascade::Nodes, Some(_)) => {}
        _ if node.finalized => {
            if let Some(why) = broken {
                plan.effects.push(Effect::Tell { ordinal: node.ordinal, what: Notice::DestroySkipped { why } });
            }
            plan.effects.push(Effect::ReleaseNode { ordinal: node.ordinal });
        }
        _ => {}
    }
}

/// Pods of the group whose node is gone.
fn nobodys(snapshot: &Snapshot, plan: &mut Plan) {
    for pod in
        snapshot.pods.values().filter(|pod| pod.controller.as_deref() == Some(&snapshot.head.uid) && !pod.deleting)
    {
        if snapshot.nodes.values().any(|node| node.name == pod.name) {
            continue;
        }
        if pod.created + NOBODYS_AFTER <= snapshot.now {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            plan.effects.push(Effect::DeletePod { name, uid, why: PodRemoval::NodeGone });
        } else {
            plan.wake = earliest(plan.wake, Some(pod.created + NOBODYS_AFTER));
        }
    }
}
