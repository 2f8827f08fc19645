//! Pure: how nodes are removed: what still runs is ended, destroy-server has its say, what came of that is written, then
//! the pod goes, then the GroupNode, and when that is gone the claims that are not kept.

use std::{collections::BTreeSet, sync::Arc};

use jiff::SignedDuration;

use super::{
    Claim, Effect, Machine, MachineRemoval, NOBODYS_AFTER, Node, Notice, Plan, Purpose, Removal, SessionKind, Snapshot,
    Step, earliest,
    next::Why,
    progress::{self, Farewell},
};
use crate::group::{Cascade, Group, Retention};

/// The group goes, and its nodes with it, or released.
pub(super) fn teardown(snapshot: &Snapshot, plan: &mut Plan) {
    let cascade = snapshot.head.deletion.unwrap_or(Cascade::Nodes);
    let room = snapshot.for_removal().map_or(usize::MAX, |group| room(snapshot, group));
    for node in snapshot.nodes.values().filter(|node| node.deletion.is_none()).take(room) {
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
        if kept || plan.effects.iter().all(|effect| !matches!(effect, Effect::DeleteClaim { .. })) {
            plan.effects.push(Effect::ReleaseGroup);
        }
    }
}

/// When to look again after a write that no event will tell of.
const SOON: SignedDuration = SignedDuration::from_millis(100);

fn retention(snapshot: &Snapshot) -> Option<crate::group::RetentionFields> {
    snapshot.for_removal().map(|group| group.node.retention())
}

fn delete_claims(snapshot: &Snapshot, of: impl Fn(&str) -> bool, plan: &mut Plan) {
    let ours = |claim: &&Arc<Claim>| claim.is_made_for(&snapshot.head.uid);
    let ours = snapshot.claims.values().filter(ours).filter(|claim| !claim.deleting && of(&claim.node));
    plan.effects.extend(ours.map(|claim| Effect::DeleteClaim {
        name: claim.name.clone(),
        uid: claim.uid.clone(),
        node: claim.node.clone(),
    }));
}

/// How many more nodes may be removed now. Where they say goodbye, as many as may have a session at once.
pub(super) fn room(snapshot: &Snapshot, group: &Group) -> usize {
    if group.phases.destroy().is_none() {
        return usize::MAX;
    }
    let leaving = snapshot.nodes.values().filter(|node| node.deletion.is_some()).count();
    (snapshot.session_limit as usize).saturating_sub(leaving)
}

/// The claims of ordinals that the group has given up. While nodes are missing nobody knows which.
pub(super) fn shrunk(snapshot: &Snapshot, group: &Group, plan: &mut Plan) {
    let creates = plan.effects.iter().any(|effect| matches!(effect, Effect::CreateNode { .. }));
    let complete = snapshot.live().count() == group.count as usize && snapshot.uncertain.is_empty() && !creates;
    if group.node.retention().when_scaled == Retention::Delete && complete {
        let names: BTreeSet<&str> = snapshot.nodes.values().map(|node| node.name.as_str()).collect();
        delete_claims(snapshot, |name| !names.contains(name), plan);
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
        let farewell = match (cascade, snapshot.for_removal()) {
            (Cascade::Nodes, Some(group)) => progress::farewell(&snapshot.situation(group, node)),
            // What cannot be read cannot be run, and is not waited for either.
            (Cascade::Nodes, None) if snapshot.head.has_farewell && node.record.incarnation.is_some() => {
                Farewell::Over(Some("the spec cannot be read".to_owned()))
            }
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
    let deadline = snapshot.for_removal().and_then(|group| progress::deadline(group, node));
    plan.wake = earliest(plan.wake, earliest(deadline, step.wake(snapshot.now)));
    if matches!(step, Step::Settled | Step::Halt { .. }) {
        // It is over, and is written in this pass.
        plan.wake = earliest(plan.wake, Some(snapshot.now + SOON));
    }
    match snapshot.sessions.get(&node.name) {
        Some(session) if session.kind != SessionKind::Farewell => {
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
    match (cascade, snapshot.machine(node)) {
        // A host stays: it is only let go.
        (Cascade::Nodes, Some(machine)) if node.host.is_none() && !machine.deleting => {
            let (name, uid) = (machine.name.clone(), machine.uid.clone());
            plan.effects.push(Effect::DeleteMachine { name, uid, why: MachineRemoval::NodeRemoved });
        }
        (Cascade::Nodes, Some(_)) if node.host.is_none() => {}
        _ if node.finalized => {
            if let Some(why) = broken {
                plan.effects.push(Effect::Tell { ordinal: node.ordinal, what: Notice::DestroySkipped { why } });
            }
            plan.effects.push(Effect::ReleaseNode { ordinal: node.ordinal });
        }
        _ => {}
    }
}

/// What was made for the group and whose node is gone.
fn nobodys(snapshot: &Snapshot, plan: &mut Plan) {
    let nodes: BTreeSet<&str> = snapshot.nodes.values().map(|node| node.name.as_str()).collect();
    let made = |machine: &Machine| machine.controller.as_deref() == Some(&snapshot.head.uid) && !machine.deleting;
    let of_nobody = snapshot.machines.iter().filter(|(node, machine)| made(machine) && !nodes.contains(node.as_str()));
    for (_, machine) in of_nobody {
        if machine.created + NOBODYS_AFTER <= snapshot.now {
            let (name, uid) = (machine.name.clone(), machine.uid.clone());
            plan.effects.push(Effect::DeleteMachine { name, uid, why: MachineRemoval::NodeGone });
        } else {
            plan.wake = earliest(plan.wake, Some(machine.created + NOBODYS_AFTER));
        }
    }
}
