//! Pure: what other groups see of the nodes of this one.

use super::{MachineState, Snapshot, progress};
use crate::{facts, group::inputs::Peer, phase::PhaseName};
use pallet_api::group_node::Outcome;

/// The nodes that other groups may use: those that run, have an address, and whose facts speak of the life that they have
/// now. Where a group has no phases, nothing is known of its nodes but where they are.
pub fn peers(snapshot: &Snapshot) -> Vec<Peer> {
    let without_phases = snapshot.group.as_ref().is_ok_and(|group| group.phases.is_empty());
    let own = snapshot.group.as_ref().ok().map(|group| group.phases.settings.facts.as_slice()).unwrap_or_default();
    // One that is optional and has no value is null, as in the group's own templates.
    let declared = |found: facts::Facts| facts::with_declared(found, own.iter().map(|fact| fact.name.as_str()));
    let peer = |node: &super::Node| {
        let machine = snapshot.machine(node).filter(|machine| !machine.deleting)?;
        let address = machine.address.clone().filter(|_| matches!(machine.state, MachineState::Running { .. }))?;
        // Settings has succeeded in this life, if not the last time: its facts stand.
        let mut phase_results = node.record.phase_results.iter();
        let behind = phase_results.any(|(phase, phase_result)| {
            *phase != PhaseName::bootstrap() && phase_result.outcome == Outcome::Succeeded
        });
        let known = progress::is_current(node, machine) && behind;
        (known || without_phases).then(|| Peer {
            name: node.name.clone(),
            group: snapshot.head.key.name.clone(),
            ordinal: node.ordinal,
            address,
            facts: if known { declared(facts::without_volatile(&node.record.facts)) } else { facts::Facts::new() },
        })
    };
    snapshot.live().filter_map(peer).collect()
}
