//! Pure: nodes that are hosts. Nobody watches a host: it is taken to run as long as it is in the inventory and no other node's,
//! and whether it can be reached is seen by whoever goes there.

use pallet_api::reason::Reason;
use std::sync::Arc;

use crate::{
    group::{GroupKey, Head, Host, HostsShape, Kind},
    plan::{
        Machine, MachineState, Node, Snapshot,
        hosts::{self, Standing},
    },
    target::Target,
};

/// Shows a group the hosts that are its nodes.
pub fn show(snapshot: &mut Snapshot) {
    let Some(shape) = snapshot.for_removal().and_then(|group| group.node.hosts()) else { return };
    let machines = hosts::standings(snapshot, shape).into_iter().map(|(node, host, standing)| {
        let machine = machine(&snapshot.head, shape, &host, node, standing);
        (node.name.clone(), Arc::new(machine))
    });
    snapshot.machines = machines.collect();
}

/// The host of a node.
pub fn machine(head: &Head, hosts: &HostsShape, host: &Host, node: &Node, standing: Standing) -> Machine {
    let GroupKey { namespace, .. } = &head.key;
    let ready = standing == Standing::Own;
    let waiting = |reason: Reason, message: String| MachineState::Waiting { reason: reason.into(), message };
    let state = match standing {
        Standing::Own => MachineState::Running { id: host.place() },
        Standing::Taken { by } => {
            let remedy = "a machine is one node at a time: correct the address, or delete one of the nodes";
            waiting(hosts::TAKEN, format!("{} is {by}; {remedy}", host.place()))
        }
        Standing::Unread => waiting(
            Reason::InventoryUnavailable,
            "its inventory has not been read since the operator started".to_owned(),
        ),
    };
    Machine {
        name: host.name().to_owned(),
        uid: host.name().to_owned(),
        controller: Some(head.uid.clone()),
        node: Some(node.uid.clone()),
        deleting: false,
        ends: None,
        marked: false,
        kind: Kind::Host,
        target: Some(Target::Machine(Arc::new(hosts.endpoint(namespace, host)))),
        attributes: host.attributes.clone(),
        claims: None,
        state,
        address: Some(host.address.clone()),
        ready,
        gate_open: false,
        gated: false,
        template_hash: String::new(),
        created: node.created,
        life: None,
        ended: None,
        unready: None,
        going: None,
    }
}
