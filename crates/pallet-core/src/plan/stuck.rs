//! Pure: what is being deleted and does not go, and what holds it.

use jiff::{SignedDuration, Timestamp};

use super::{Machine, Node, Plan, Snapshot, earliest};
use crate::group::Cascade;
use pallet_api::conditions::clip;

/// How long after its grace period a pod may take to go before that is told. A kubelet that is busy takes some seconds.
const LATE: SignedDuration = SignedDuration::from_secs(30);
/// How many finalizers a message names.
const NAMED: usize = 4;
/// The longest message, in bytes.
const SHOWN: usize = 400;

/// Why a machine that is being deleted is still there; nothing while it is in time.
pub fn machine(machine: &Machine, now: Timestamp) -> Option<String> {
    let going = machine.going.as_ref().filter(|_| machine.deleting)?;
    (going.due + LATE <= now).then(|| {
        let due = going.due.strftime("%Y-%m-%dT%H:%M:%SZ");
        clip(&format!("it was to end by {due}: {}", going.held_by), SHOWN)
    })
}

/// Why a GroupNode that is being deleted is still there, though the operator has released it.
fn node(node: &Node) -> Option<String> {
    let released = node.deletion == Some(Cascade::Nodes) && !node.finalized;
    (released && !node.held_by.is_empty()).then(|| {
        let names = node.held_by.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        clip(&format!("GroupNode {} is still there: the finalizers of others hold it ({names})", node.name), SHOWN)
    })
}

/// The first node of the group, whether it stays or goes, that waits for something that does not go.
pub fn first(snapshot: &Snapshot) -> Option<String> {
    snapshot.nodes.values().find_map(|found| {
        let machine = snapshot.machine(found).and_then(|m| Some((m.kind.noun(), machine(m, snapshot.now)?)));
        let machine = machine.map(|(noun, why)| format!("{}: its {noun} does not go: {why}", found.name));
        machine.or_else(|| node(found))
    })
}

/// Has the group looked at when what goes is late, though nothing happens.
pub(super) fn wake(snapshot: &Snapshot, plan: &mut Plan) {
    for found in snapshot.nodes.values() {
        let going =
            snapshot.machine(found).filter(|machine| machine.deleting).and_then(|machine| machine.going.as_ref());
        let late = going.map(|going| going.due + LATE).filter(|late| *late > snapshot.now);
        plan.wake = earliest(plan.wake, late);
    }
}
