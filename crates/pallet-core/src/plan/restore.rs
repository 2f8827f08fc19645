//! Pure: GroupNodes of an earlier GroupSpec of the same name, as a backup brings them back, or a GroupSpec that was made anew
//! beside them. They are taken over under their names. A pod that is owned by the very GroupNode stays; another one at the
//! node's name that was made for it is replaced.

use super::{Effect, Machine, MachineRemoval, Node, Plan, Snapshot};
use crate::group::Kind;
use pallet_api::conditions::Verdict;
use pallet_api::reason::Reason;

/// The condition of a group that has taken nodes over.
pub const CONDITION: &str = "NodesTakenOver";
/// How many nodes a message names.
const NAMED: usize = 3;

/// Takes over what an earlier group of the name has left. The GroupSpec of that UID is gone: two cannot have one name.
pub(super) fn take_over(snapshot: &Snapshot, plan: &mut Plan) {
    let former = snapshot.former.iter();
    plan.effects.extend(former.map(|(ordinal, uid)| Effect::TakeOverNode { ordinal: *ordinal, uid: uid.clone() }));
}

/// Whether what stands at the name of a node that was taken over was made for it by an earlier group, and is not the node's
/// own. A virtual machine is left alone: its disks go with it.
pub(super) fn is_left_behind(snapshot: &Snapshot, node: &Node, machine: &Machine) -> bool {
    let Some(former) = &node.taken_over_from else { return false };
    let released = machine.controller.as_ref().is_none_or(|controller| controller == former);
    // One that an operator made says from what.
    let made = !machine.template_hash.is_empty() && machine.kind == Kind::Pod;
    made && released && !machine.deleting && snapshot.machine(node).is_none()
}

/// Replaces pods that a backup has brought back without their owners.
pub(super) fn replace(snapshot: &Snapshot, nodes: &[&Node], plan: &mut Plan) {
    for node in nodes {
        let Some(machine) = snapshot.machines.get(&node.name) else { continue };
        if is_left_behind(snapshot, node, machine) {
            let (name, uid) = (machine.name.clone(), machine.uid.clone());
            plan.effects.push(Effect::DeleteMachine { name, uid, why: MachineRemoval::LeftBehind });
        }
    }
}

/// The condition of a group that has taken nodes over, as long as it has any of them.
pub fn of_group(live: &[&Node]) -> Option<Verdict> {
    let taken: Vec<&&Node> = live.iter().filter(|node| node.taken_over_from.is_some()).collect();
    let former = taken.first()?.taken_over_from.clone().unwrap_or_default();
    let names: Vec<&str> = taken.iter().take(NAMED).map(|node| node.name.as_str()).collect();
    let more = taken.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let message = format!(
        "{}{more}: taken over from an earlier GroupSpec of this name (UID {former}), as after a restore from a backup; what \
         backs them is kept where it is still theirs, and made anew otherwise",
        names.join(", ")
    );
    Some(Verdict { kind: CONDITION, status: true, reason: Reason::GroupRecreated.into(), message })
}
