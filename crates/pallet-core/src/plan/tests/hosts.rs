//! Nodes that are hosts: which are taken, who has lost its own, and what is said where there are too few.

use super::super::hosts::{Claim, Occupant, Right, Standing, told_place};
use super::*;
use crate::{
    group::{Attributes, inputs::Inputs},
    node::host::show,
};
use pallet_api::group_node::NodeHost;

fn host(number: u32) -> NodeHost {
    NodeHost { name: format!("h{number}"), address: format!("10.9.0.{number}"), port: 22 }
}

/// A group of `count` nodes with hosts h1 to h`listed`, of which nodes have those of these numbers, settled.
fn fleet(count: u32, listed: u32, nodes: &[u32]) -> Snapshot {
    fleet_with(count, listed, nodes, json!({}))
}

/// The same, with this besides in its spec.
fn fleet_with(count: u32, listed: u32, nodes: &[u32], besides: Value) -> Snapshot {
    let inventory: Vec<Value> = (1..=listed)
        .map(|number| json!({"name": format!("h{number}"), "address": format!("10.9.0.{number}")}))
        .collect();
    let key = json!({"secretKeyRef": {"name": "login"}});
    let mut spec = json!({"count": count, "node": {"hosts": {"key": key, "inventory": inventory}}});
    spec.as_object_mut().unwrap().extend(besides.as_object().unwrap().clone());
    let mut snapshot = snapshot(spec, Vec::new(), Vec::new());
    let group = snapshot.group.clone().unwrap();
    for (ordinal, number) in nodes.iter().enumerate() {
        let mut node = Node { host: Some(host(*number)), ..node(ordinal as u32, Record::default()) };
        let hosts = group.node.hosts().unwrap();
        let found = hosts.inventory.iter().find(|other| other.name() == host(*number).name);
        let machine = found.map(|found| crate::node::host::machine(&snapshot.head, hosts, found, &node, Standing::Own));
        node.record = done(&group, &progress::identity(&node, machine.as_ref()));
        let (uid, instance) = (format!("h{number}"), format!("10.9.0.{number}:22"));
        node.record.incarnation = Some(Incarnation { uid, instance, filesystem_id: "w".into() });
        snapshot.nodes.insert(node.ordinal, Arc::new(node));
    }
    show(&mut snapshot);
    snapshot
}

fn taken(snapshot: &Snapshot) -> Vec<(u32, String)> {
    let taken = |effect: Effect| match effect {
        Effect::TakeHost { ordinal, host } => Some((ordinal, host.name)),
        _ => None,
    };
    plan(snapshot).effects.into_iter().filter_map(taken).collect()
}

fn verdict(snapshot: &Snapshot) -> (String, String) {
    let status = group_status(snapshot);
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    (condition.reason.clone(), condition.message.clone())
}

#[test]
fn the_first_that_are_free_are_taken_in_order() {
    assert_eq!(taken(&fleet(2, 3, &[])), [(0, "h1".into()), (1, "h2".into())]);
    assert_eq!(taken(&fleet(3, 3, &[2])), [(1, "h1".into()), (2, "h3".into())]);
    let mut snapshot = fleet(2, 3, &[]);
    snapshot.occupied.insert("10.9.0.1:22".into(), db(Claim::Took, 0));
    assert_eq!(taken(&snapshot), [(0, "h2".into()), (1, "h3".into())]);
    // One whose node is being removed is that node's still.
    let mut leaving = fleet(1, 2, &[1]);
    let node = Arc::make_mut(leaving.nodes.get_mut(&0).unwrap());
    (node.deletion, node.deleted_at) = (Some(Cascade::Nodes), Some(now()));
    assert_eq!(taken(&leaving), [(1, "h2".into())]);
}

#[test]
fn nothing_is_ever_deleted_for_a_settled_fleet() {
    let snapshot = fleet(2, 3, &[1, 2]);
    let plan = plan(&snapshot);
    assert_eq!(plan.effects, []);
    assert!(plan.steps.values().all(|step| *step == Step::Settled), "{:?}", plan.steps);
    assert_eq!(verdict(&snapshot).0, "Converged");
}

#[test]
fn too_few_hosts_are_said_and_looked_for_again() {
    let mut snapshot = fleet(3, 2, &[1]);
    snapshot.occupied.insert("10.9.0.2:22".into(), db(Claim::Took, 0));
    assert_eq!(taken(&snapshot), []);
    let (reason, message) = verdict(&snapshot);
    assert_eq!(reason, "NotEnoughHosts");
    for part in ["1 of 3 nodes have a host", "2 are in the inventory", "h2 is node db-0 of group db", "spec.count to 1"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(plan(&snapshot).wake.is_some(), "nobody tells when one becomes free");
    // While there is something to do it is said beside that.
    let mut busy = fleet(3, 1, &[1]);
    Arc::make_mut(busy.nodes.get_mut(&0).unwrap()).record = Record::default();
    let (reason, message) = verdict(&busy);
    assert!(reason == "Scaling" && message.contains("1 of 3 nodes have a host"), "{reason}: {message}");
}

#[test]
fn a_node_whose_host_was_taken_off_the_list_is_let_go_and_another_is_taken() {
    let mut snapshot = fleet(2, 3, &[1, 9]);
    let effects = plan(&snapshot).effects;
    assert!(
        matches!(effects[..], [Effect::DeleteNode { ordinal: 1, why: Removal::HostWithdrawn, .. }]),
        "one after the other, or there would be one node too many: {effects:?}"
    );
    let node = Arc::make_mut(snapshot.nodes.get_mut(&1).unwrap());
    (node.deletion, node.deleted_at) = (Some(Cascade::Nodes), Some(now()));
    let effects = plan(&snapshot).effects;
    assert!(effects.contains(&Effect::ReleaseNode { ordinal: 1 }), "{effects:?}");
    assert!(effects.iter().all(|effect| !matches!(effect, Effect::DeleteMachine { .. })), "{effects:?}");
}

#[test]
fn a_host_that_cannot_be_reached_goes_first() {
    let mut snapshot = fleet(1, 2, &[1, 2]);
    assert!(matches!(plan(&snapshot).effects[..], [Effect::DeleteNode { ordinal: 1, .. }]));
    let trouble = Trouble {
        instance: "10.9.0.1:22".into(),
        target: machine(0).target.unwrap(),
        reason: "Unreachable".into(),
        message: "m".into(),
        since: ago(9),
        until: now(),
        about: None,
    };
    snapshot.troubles.insert("web-0".into(), trouble);
    assert!(matches!(plan(&snapshot).effects[..], [Effect::DeleteNode { ordinal: 0, .. }]));
}

#[test]
fn a_host_that_is_let_go_stays() {
    let mut snapshot = fleet(0, 1, &[1]);
    snapshot.head.deletion = Some(Cascade::Nodes);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    (node.deletion, node.deleted_at) = (Some(Cascade::Nodes), Some(now()));
    let effects = plan(&snapshot).effects;
    assert_eq!(effects, [Effect::ReleaseNode { ordinal: 0 }]);
}

/// A node of another group, made so many seconds ago.
fn db(claim: Claim, age: i64) -> Occupant {
    let right = Right { claim, since: ago(age), node: "db-uid".into() };
    Occupant { right, who: "node db-0 of group db".into() }
}

fn removed(snapshot: &Snapshot) -> Vec<(u32, Removal)> {
    let removed = |effect: &Effect| match effect {
        Effect::DeleteNode { ordinal, why, .. } => Some((*ordinal, *why)),
        _ => None,
    };
    plan(snapshot).effects.iter().filter_map(removed).collect()
}

/// What a creation without a clear answer, or a former leader's, can bring about: two nodes that have the same machine. Nothing
/// must be done there twice, and nobody has to mend it.
#[test]
fn of_two_nodes_that_took_one_machine_the_later_gives_way() {
    let mut snapshot = fleet(2, 3, &[1, 2]);
    Arc::make_mut(snapshot.nodes.get_mut(&1).unwrap()).record = Record::default();
    for (other, goes) in [
        (db(Claim::Took, 301), true),
        (db(Claim::Took, 299), false),
        (db(Claim::Led, 301), false),
        (db(Claim::Works, 1), true),
    ] {
        snapshot.occupied = [("10.9.0.2:22".to_owned(), other)].into();
        show(&mut snapshot);
        let gone = if goes { vec![(1, Removal::HostInUse)] } else { Vec::new() };
        assert_eq!(removed(&snapshot), gone);
        assert_eq!(plan(&snapshot).effects.iter().any(|effect| effect.starts() == Some(1)), !goes);
    }
    let mut own = fleet(2, 3, &[1, 1]);
    Arc::make_mut(own.nodes.get_mut(&1).unwrap()).record = Record::default();
    show(&mut own);
    assert_eq!(removed(&own), [(1, Removal::HostInUse)], "its name decides where both are as old");
}

/// An edit of an address may lead a node to a machine that is another's. It keeps what it has done, and waits.
#[test]
fn a_node_that_is_led_to_anothers_machine_does_nothing_there() {
    let mut snapshot = fleet(1, 2, &[1]);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    node.host = Some(NodeHost { address: "10.9.0.9".into(), ..host(1) });
    node.record.phase_results.clear();
    node.record.incarnation.as_mut().unwrap().instance = "10.9.0.9:22".into();
    snapshot.occupied.insert("10.9.0.1:22".into(), db(Claim::Took, 0));
    show(&mut snapshot);
    let waits = plan(&snapshot);
    assert_eq!(waits.effects, []);
    let Some(Step::Await(progress::Cause::MachineWaiting { reason, message })) = waits.steps.get(&0) else {
        panic!("{:?}", waits.steps)
    };
    assert!(reason == "HostInUse" && message.contains("10.9.0.1:22 is node db-0 of group db"), "{message}");
    let at_work = SessionView {
        instance: "10.9.0.9:22".into(),
        since: ago(1),
        running: None,
        kind: SessionKind::Converge,
        lift: None,
    };
    snapshot.sessions.insert("web-0".into(), at_work);
    assert!(matches!(plan(&snapshot).effects[..], [Effect::EndSession { .. }]));
    snapshot.sessions.clear();
    // Whoever was there all the time goes on, though it came later.
    snapshot.occupied.insert("10.9.0.1:22".into(), db(Claim::Led, 400));
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).host = Some(host(1));
    show(&mut snapshot);
    assert_eq!(plan(&snapshot).effects.iter().filter_map(Effect::starts).collect::<Vec<_>>(), [0]);
}

/// After a restart the inventory may not be readable, and with it how a host is reached: destroy-server is waited for, and not skipped
/// for what may be a moment's trouble.
#[test]
fn an_inventory_that_was_never_read_lets_nobody_go_without_a_farewell() {
    let phases = json!({"phases": {"destroy-server": {"actions": [{"exec": {"script": "bye"}}]}}});
    let mut snapshot = fleet_with(1, 1, &[1], phases);
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    (node.deletion, node.deleted_at) = (Some(Cascade::Nodes), Some(now()));
    let mut group = snapshot.group.clone().unwrap();
    let crate::group::NodeShape::Hosts(hosts) = &mut group.node else { panic!("{:?}", group.node) };
    (hosts.inventory, hosts.is_read) = (Vec::new(), false);
    (snapshot.group, snapshot.last_good) = (Err(Vec::new()), Some(group));
    show(&mut snapshot);
    let waits = plan(&snapshot);
    assert_eq!(waits.effects, []);
    let Some(Step::Await(progress::Cause::MachineWaiting { reason, .. })) = waits.farewells.get(&0) else {
        panic!("{:?}", waits.farewells)
    };
    assert_eq!(reason, "InventoryUnavailable");
    // Not for ever.
    let node = Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap());
    node.deleted_at = Some(ago(3600));
    assert!(plan(&snapshot).effects.contains(&Effect::ReleaseNode { ordinal: 0 }));
}

/// Who has been led to a machine and works there is not driven out by another who is led there, though that one be older: both can
/// see who works there.
#[test]
fn who_works_on_a_machine_stays_there() {
    let mut snapshot = fleet(1, 2, &[1]);
    Arc::make_mut(snapshot.nodes.get_mut(&0).unwrap()).host = Some(NodeHost { address: "10.9.0.9".into(), ..host(1) });
    snapshot.occupied.insert("10.9.0.1:22".into(), db(Claim::Led, 400));
    show(&mut snapshot);
    assert_eq!(plan(&snapshot).steps.get(&0), Some(&Step::Settled));
    snapshot.occupied.insert("10.9.0.1:22".into(), db(Claim::Works, 400));
    show(&mut snapshot);
    assert!(matches!(plan(&snapshot).steps.get(&0), Some(Step::Await(progress::Cause::MachineWaiting { .. }))));
}

#[test]
fn where_a_node_is_follows_from_its_status() {
    let mut node = Node { host: Some(host(1)), ..node(0, Record::default()) };
    assert_eq!(told_place(&node).as_deref(), Some("10.9.0.1:22"), "where it was taken, before anything was written");
    node.reported.conditions = snapshot(json!({}), Vec::new(), Vec::new()).status.conditions.clone();
    node.reported.conditions.push(k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: "Converged".into(),
        status: "False".into(),
        reason: "HostMissing".into(),
        message: String::new(),
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()),
        observed_generation: None,
    });
    assert_eq!(told_place(&node), None, "it has none any more, and does not come back to the one that it had first");
    node.reported.address = Some("10.9.0.7".into());
    assert_eq!(told_place(&node).as_deref(), Some("10.9.0.7:22"));
    let at = |instance: &str| Incarnation { uid: "h1".into(), instance: instance.into(), filesystem_id: "w".into() };
    node.record.incarnation = Some(at("10.9.0.7:2222"));
    assert_eq!(told_place(&node).as_deref(), Some("10.9.0.7:2222"), "its port is known from where it has been at work");
    node.record.incarnation = Some(at("10.9.0.77:2222"));
    assert_eq!(told_place(&node).as_deref(), Some("10.9.0.7:22"));
}

/// Found on a host that nobody could log in to any more, though its group was Ready.
#[test]
fn the_operators_own_key_is_not_taken_away() {
    let keyed = |node: Value, user: &str, keys: Value, known: Option<&str>| {
        let actions = json!([{"user": {"name": user, "authorizedKeys": keys}}]);
        let mut group = group(json!({"node": node, "phases": {"configure": {"actions": actions}}}));
        group.inputs = Arc::new(Inputs { login_key: known.map(Into::into), ..Inputs::default() });
        let identity =
            Identity { attributes: Arc::new(Attributes { host: "h1".into(), ..Attributes::default() }), ..identity() };
        let mut record = done(&group, &identity);
        record.phase_results.remove(&PhaseName::configure());
        match next(&group, &identity, &record, now()) {
            Next::Unrenderable { error, .. } => Some(error.to_string()),
            _ => None,
        }
    };
    let hosts = |user: Option<&str>| {
        let inventory = json!([{"name": "h1", "address": "10.9.0.1", "user": user}]);
        json!({"hosts": {"user": "fleet", "key": {"secretKeyRef": {"name": "login"}}, "inventory": inventory}})
    };
    let (own, other) = ("ssh-ed25519 AAAAOwn", json!(["ssh-ed25519 AAAAJane jane"]));
    let refused = keyed(hosts(None), "fleet", other.clone(), Some(own)).unwrap();
    assert!(refused.starts_with("action user[0]: authorizedKeys does not hold the key") && refused.ends_with(own));
    assert!(keyed(hosts(Some("admin")), "admin", other.clone(), Some(own)).is_some(), "a host has a user of its own");
    assert_eq!(keyed(hosts(Some("admin")), "fleet", other.clone(), Some(own)), None);
    assert_eq!(keyed(hosts(None), "fleet", json!([own, "ssh-ed25519 AAAAJane"]), Some(own)), None);
    assert_eq!(keyed(hosts(None), "fleet", other.clone(), None), None);
    let pod = json!({"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}});
    assert_eq!(keyed(pod, "fleet", other, Some(own)), None);
}
