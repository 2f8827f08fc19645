use super::*;
use crate::group::resolve::resolve;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as KubePod};
use pallet_api::{self as api, GroupNode};
use serde_json::json;

fn pod(name: &str, uid: &str, version: u64) -> KubePod {
    serde_json::from_value(json!({"metadata": {
        "name": name, "namespace": "n", "uid": uid, "resourceVersion": version.to_string(),
        "labels": {"pallet.dev/group": "web"}
    }}))
    .unwrap()
}

fn key() -> GroupKey {
    GroupKey { namespace: "n".into(), name: "web".into() }
}

fn uids(index: &Index) -> Vec<String> {
    index.pods(&key()).values().map(|pod| pod.uid.clone()).collect()
}

#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let mut index = Index::default();
    assert!(index.upsert(&pod("a", "u1", 5)).is_some());
    assert!(index.upsert(&pod("a", "u1", 4)).is_none());
    assert!(index.upsert(&pod("a", "u2", 9)).is_some());
    assert_eq!(uids(&index), ["u2"]);
}

#[test]
fn a_late_answer_does_not_bring_a_deleted_object_back() {
    let mut index = Index::default();
    index.apply(&Event::Delete(pod("a", "u1", 6)));
    assert!(index.upsert(&pod("a", "u1", 5)).is_none());
    assert!(uids(&index).is_empty());
}

#[test]
fn the_delete_of_an_old_object_leaves_its_successor_alone() {
    let mut index = Index::default();
    index.upsert(&pod("a", "u2", 9));
    index.apply(&Event::Delete(pod("a", "u1", 8)));
    assert_eq!(uids(&index), ["u2"]);
}

#[test]
fn what_a_relist_does_not_show_is_gone_and_its_group_is_looked_at() {
    let mut index = Index::default();
    index.upsert(&pod("a", "u1", 5));
    index.upsert(&pod("b", "u2", 6));
    index.apply::<KubePod>(&Event::Init);
    index.apply(&Event::InitApply(pod("b", "u2", 6)));
    let touched = index.apply::<KubePod>(&Event::InitDone);
    assert_eq!((uids(&index), touched.gone), (vec!["u2".to_owned()], vec!["u1".to_owned()]));
    assert!(touched.groups.contains(&key()));
}

/// Found by the simulation: a list that was taken before a creation made its node look missing, and one too many came.
#[test]
fn what_we_made_while_a_list_was_on_its_way_stays() {
    let mut index = Index::default();
    index.apply::<KubePod>(&Event::Init);
    index.upsert(&pod("a", "u1", 9));
    assert!(index.apply::<KubePod>(&Event::InitDone).gone.is_empty());
    assert_eq!(uids(&index), ["u1"]);
}

/// Found end to end: the collector was done before the first pass, and pods of a group that was deleted in the
/// foreground were let go as if it had been orphaned.
#[test]
fn how_a_group_is_deleted_is_seen_before_the_collector_is_done() {
    let object = |finalizers: &[&str]| -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {
                "name": "web", "namespace": "n", "uid": "g", "finalizers": finalizers,
                "deletionTimestamp": "2026-11-21T10:00:00Z"
            },
            "spec": {"node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}}}
        }))
        .unwrap()
    };
    // What is left then: a pod without its group, with its node.
    let mut index = Index::default();
    let mut orphaned = pod("web-0", "p", 9);
    orphaned.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "name": "web-0", "uid": "u"
        }))
        .unwrap(),
    ]);
    index.upsert(&orphaned);
    let node: GroupNode = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode",
        "metadata": {"name": "web-0", "namespace": "n", "uid": "u", "resourceVersion": "8"},
        "spec": {"group": "web", "groupUid": "g", "ordinal": 0}
    }))
    .unwrap();
    index.upsert(&node);
    let done = object(&[api::FINALIZER]);
    let cascade = |beyond: &Beyond| {
        snapshot(
            &done,
            resolve::resolve(&done, &Default::default()),
            &index,
            beyond,
            |_| Seen::default(),
            Timestamp::UNIX_EPOCH,
        )
        .head
        .deletion
    };
    assert_eq!(cascade(&Beyond::default()), Some(Cascade::Orphan), "a guess");
    let mut beyond = Beyond::default();
    beyond.see_deletion(&object(&["foregroundDeletion", api::FINALIZER]));
    beyond.see_deletion(&done);
    assert_eq!(cascade(&beyond), Some(Cascade::Nodes));
    let mut orphaning = Beyond::default();
    orphaning.see_deletion(&object(&[api::ORPHAN_FINALIZER, api::FINALIZER]));
    assert_eq!(cascade(&orphaning), Some(Cascade::Orphan));
    // Not what became of another group of this name.
    beyond.cascade = Some(("former".into(), Cascade::Nodes));
    assert_eq!(cascade(&beyond), Some(Cascade::Orphan));
}

#[test]
fn what_is_remembered_of_the_departed_is_bounded() {
    let mut index = Index::default();
    for n in 0..GONE_LIMIT + 10 {
        index.apply(&Event::Delete(pod("a", &n.to_string(), 1)));
    }
    assert_eq!(index.pods.gone.0.len(), GONE_LIMIT);
    assert!(index.groups().is_empty());
}

/// An edited address is known to the other groups before a status tells it, and forgotten with its node.
#[test]
fn where_an_inventory_leads_is_known_to_other_groups_at_once() {
    let node: GroupNode = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "n", "resourceVersion": "1"},
        "spec": {"group": "web", "groupUid": "g", "ordinal": 0, "host": {"name": "h", "address": "10.9.0.1", "port": 22}}
    }))
    .unwrap();
    let mut index = Index::default();
    index.upsert(&node);
    let places = |index: &Index| index.occupied("shop", "other").into_keys().collect::<Vec<_>>();
    assert_eq!(places(&index), ["10.9.0.1:22"]);
    index.reach([("n".to_owned(), Some("10.9.0.2:2222".to_owned()))]);
    assert_eq!(places(&index), ["10.9.0.2:2222"]);
    assert!(index.is_occupied("shop", "other", "10.9.0.2:2222") && !index.is_occupied("shop", "g", "10.9.0.2:2222"));
    index.reach([("n".to_owned(), None)]);
    assert_eq!(places(&index), Vec::<String>::new(), "its host is in the inventory no more");
    index.apply(&Event::Delete(node));
    assert!(index.reached.is_empty());
}

/// Two groups in two namespaces configured one machine in turn, and neither said so. Naming an address blocks nobody.
#[test]
fn a_machine_is_held_against_other_namespaces_by_who_has_been_at_work_there() {
    let node = |status: serde_json::Value| -> GroupNode {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode",
            "metadata": {"name": "web-0", "namespace": "shop", "uid": "n", "resourceVersion": "1"},
            "spec": {"group": "web", "groupUid": "g", "ordinal": 0, "host": {"name": "h", "address": "10.9.0.1", "port": 22}},
            "status": status
        }))
        .unwrap()
    };
    let worked = json!({"incarnation": {"uid": "h", "instance": "10.9.0.1:22", "filesystemId": "w"}});
    let mut index = Index::default();
    index.upsert(&node(json!({})));
    assert_eq!(index.occupied_elsewhere("other", None), []);
    let mut index = Index::default();
    index.upsert(&node(worked));
    let found = index.occupied_elsewhere("other", None);
    assert_eq!((found.len(), found[0].0.as_str()), (1, "10.9.0.1:22"));
    assert_eq!(found[0].1.who, "a node of a group in namespace shop", "its name is not for other namespaces");
    assert_eq!(index.occupied_elsewhere("shop", None), [], "those of the namespace itself are told apart");
    // The same private address behind another jump host is another machine.
    index.reach_via(["n".to_owned()], Some("bastion:22"));
    assert_eq!(index.occupied_elsewhere("other", None), []);
    assert_eq!(index.occupied_elsewhere("other", Some("bastion:22")).len(), 1);
}

fn controlled_pod(label: &str, version: u64) -> KubePod {
    serde_json::from_value(json!({"metadata": {
        "name": "web-0", "namespace": "n", "uid": "u1", "resourceVersion": version.to_string(),
        "labels": {"pallet.dev/group": label},
        "ownerReferences": [{"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "name": "web", "uid": "g", "controller": true}]
    }}))
    .unwrap()
}

/// Guards against a pod that is shown as a node's for ever, since the event of its deletion names another group.
#[test]
fn a_pod_whose_label_names_another_group_is_still_its_controllers() {
    let mut index = Index::default();
    assert_eq!(index.upsert(&controlled_pod("web", 5)), Some(key()));
    let touched = index.apply(&Event::Apply(controlled_pod("debug", 6)));
    assert_eq!((uids(&index), touched.groups), (vec!["u1".to_owned()], [key()].into()));
    let touched = index.apply(&Event::Delete(controlled_pod("debug", 7)));
    assert_eq!((uids(&index), touched.groups), (Vec::<String>::new(), [key()].into()));
}

#[test]
fn an_object_that_an_edit_moves_to_another_group_leaves_the_former_one() {
    let mut index = Index::default();
    let other = GroupKey { namespace: "n".into(), name: "debug".into() };
    index.upsert(&pod("a", "u1", 5));
    let mut moved = pod("a", "u1", 6);
    moved.metadata.labels = Some([("pallet.dev/group".to_owned(), "debug".to_owned())].into());
    let touched = index.apply(&Event::Apply(moved.clone()));
    assert_eq!(touched.groups, [key(), other.clone()].into());
    assert!(uids(&index).is_empty() && index.pods(&other).contains_key("a"));
    // What was on its way meanwhile is older.
    assert!(index.upsert(&pod("a", "u1", 5)).is_none());
    assert!(uids(&index).is_empty());
    index.apply(&Event::Delete(moved));
    assert!(index.pods(&other).is_empty() && index.groups().is_empty());
}

/// A watch by label says of an object that loses its label that it was deleted.
#[test]
fn an_object_whose_label_is_put_back_is_found_again() {
    let mut index = Index::default();
    index.upsert(&pod("a", "u1", 5));
    index.apply(&Event::Delete(pod("a", "u1", 6)));
    assert!(index.upsert(&pod("a", "u1", 6)).is_none(), "a late answer");
    let touched = index.apply(&Event::Apply(pod("a", "u1", 7)));
    assert_eq!((uids(&index), touched.groups), (vec!["u1".to_owned()], [key()].into()));
}

#[test]
fn a_claim_is_found_by_either_of_its_labels() {
    let claim = |group: &str, node: Option<&str>, made: bool| -> PersistentVolumeClaim {
        let mut labels = json!({"pallet.dev/group": group});
        if let Some(node) = node {
            labels["pallet.dev/node"] = node.into();
        }
        let annotations = if made { json!({"pallet.dev/group-uid": "g"}) } else { json!({}) };
        let metadata =
            json!({"name": "data-web-0", "namespace": "n", "uid": "c", "labels": labels, "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    };
    let name = |claim: PersistentVolumeClaim| claim.group().unwrap().name;
    assert_eq!(name(claim("web", Some("web-0"), true)), "web");
    assert_eq!(name(claim("debug", Some("web-0"), true)), "web");
    assert_eq!(name(claim("debug", Some("web-0"), false)), "debug", "somebody else's is where its label says");
    assert_eq!(claim("web", None, true).keep().node, "web-0");
    let edited = claim("web", Some("other-0"), true);
    assert_eq!((edited.keep().node.as_str(), edited.group().unwrap().name.as_str()), ("web-0", "web"));
    assert_eq!(claim("other", None, true).keep().node, "");
}

/// Guards against nodes that are replaced by an upgrade of the operator, which recorded another hash before.
#[test]
fn machines_made_from_the_same_template_in_other_words_count_as_present() {
    let object = |cpu: &str, policy: serde_json::Value| -> GroupSpec {
        let container = json!({"name": "main", "image": "x", "resources": {"limits": {"cpu": cpu}}});
        let spec = json!({"containers": [container], "restartPolicy": policy});
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"name": "web", "namespace": "n", "uid": "g", "generation": 1},
            "spec": {"node": {"pod": {"template": {"spec": spec}}}}
        }))
        .unwrap()
    };
    let shape = |object: &GroupSpec| resolve(object, &Default::default()).unwrap().node;
    let (declared, other_words) = (object("1000m", json!("Always")), object("1", json!(null)));
    let NodeShape::Pod(written) = shape(&declared) else { panic!("a pod") };
    assert_ne!(written.hash_as_written, written.hash);
    assert_eq!(shape(&other_words).hash(), written.hash);
    assert_ne!(shape(&object("2", json!(null))).hash(), written.hash);
    let mut index = Index::default();
    let mut made = controlled_pod("web", 5);
    made.metadata.annotations =
        Some([(api::TEMPLATE_HASH_ANNOTATION.to_owned(), written.hash_as_written.clone())].into());
    index.upsert(&made);
    let group = resolve(&declared, &Default::default());
    let snapshot = snapshot(&declared, group, &index, &Beyond::default(), |_| Seen::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(snapshot.machines["web-0"].template_hash, written.hash);
}
