//! GroupNodes of an earlier group of the same name.

use super::{super::restore::*, *};

/// A group of three whose nodes were all an earlier group's.
fn taken_over() -> Snapshot {
    let mut snapshot = settled(3, &[0, 1, 2]);
    for node in snapshot.nodes.values_mut() {
        Arc::make_mut(node).taken_over_from = Some("former".into());
    }
    snapshot
}

/// Reported: after a restore there were three dead GroupNodes, and three new ones beside them without the old claims.
#[test]
fn nodes_of_an_earlier_group_are_taken_over_and_none_is_made_beside_them() {
    let mut snapshot = settled(3, &[]);
    snapshot.former = [(0, "n-0".to_owned()), (1, "n-1".to_owned())].into();
    snapshot.foreign_nodes = [(0, "an earlier one's".to_owned()), (1, "an earlier one's".to_owned())].into();
    let taken = |ordinal: u32| Effect::TakeOverNode { ordinal, uid: format!("n-{ordinal}") };
    assert_eq!(effects(&snapshot), [taken(0), taken(1)]);
    snapshot.head.finalized = false;
    assert_eq!(effects(&snapshot), [Effect::Finalize]);
    // A group that is being deleted takes nothing over.
    snapshot.head.deletion = Some(Cascade::Nodes);
    assert!(!effects(&snapshot).iter().any(|effect| matches!(effect, Effect::TakeOverNode { .. })));
}

#[test]
fn a_pod_of_the_same_node_stays_though_its_group_was_made_anew() {
    let mut snapshot = taken_over();
    for (name, controller) in [("web-0", None), ("web-1", Some("former"))] {
        Arc::make_mut(snapshot.machines.get_mut(name).unwrap()).controller = controller.map(str::to_owned);
    }
    assert_eq!(effects(&snapshot), []);
    let status = group_status(&snapshot);
    let of = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).unwrap().clone();
    assert_eq!(of("Ready").status, "True");
    let message = of(CONDITION).message;
    assert!(message.contains("web-0, web-1, web-2: taken over") && message.contains("former"), "{message}");
    assert!(group_status(&settled(1, &[0])).conditions.iter().all(|c| c.type_ != CONDITION));
}

#[test]
fn a_pod_that_a_backup_brought_back_is_replaced_and_anybody_elses_is_not() {
    let mut snapshot = taken_over();
    let change = |snapshot: &mut Snapshot, change: &dyn Fn(&mut Machine)| {
        change(Arc::make_mut(snapshot.machines.get_mut("web-1").unwrap()));
    };
    change(&mut snapshot, &|machine| (machine.controller, machine.node) = (None, None));
    let why = MachineRemoval::LeftBehind;
    assert_eq!(effects(&snapshot), [Effect::DeleteMachine { name: "web-1".into(), uid: "p-1".into(), why }]);
    let kept = |made: &dyn Fn(&mut Machine)| {
        let mut snapshot = snapshot.clone();
        change(&mut snapshot, made);
        assert_eq!(effects(&snapshot), []);
        assert_eq!(plan(&snapshot).steps[&1], Step::Await(Cause::NameConflict));
    };
    kept(&|machine| machine.controller = Some("somebody".into()));
    kept(&|machine| machine.template_hash = String::new());
    // The disks of a virtual machine go with it.
    kept(&|machine| machine.kind = Kind::VirtualMachine);
    // A node that was not taken over has nothing to do with it: its group was orphaned, and the pod is to stay.
    Arc::make_mut(snapshot.nodes.get_mut(&1).unwrap()).taken_over_from = None;
    assert_eq!(effects(&snapshot), []);
}
