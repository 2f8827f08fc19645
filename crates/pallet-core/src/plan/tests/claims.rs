//! Claims that somebody else has, that change, and that pods do not mount.

use super::{super::claims::*, *};
use pallet_api::nodes::ClaimPolicy;

fn spec(entries: Value) -> Value {
    json!({"count": 1, "node": {"pod": {
        "template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}, "volumeClaimTemplates": entries
    }}})
}

fn entry(name: &str, storage: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": storage}}
    }})
}

/// A settled node whose pod mounts its claim data, which is as declared.
fn mounted(entries: Value) -> Snapshot {
    let mut snapshot = settled_as(spec(entries), &[0]);
    Arc::make_mut(snapshot.machines.get_mut("web-0").unwrap()).claims = Some(BTreeSet::from(["data-web-0".into()]));
    let claim = Claim {
        name: "data-web-0".into(),
        uid: "u".into(),
        group: Some("g".into()),
        node: "web-0".into(),
        spec: json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "pv-1",
            "resources": {"requests": {"storage": "1Gi"}}
        }),
        ..Claim::default()
    };
    snapshot.claims.insert(claim.name.clone(), Arc::new(claim));
    snapshot
}

fn claim(snapshot: &mut Snapshot) -> &mut Claim {
    Arc::make_mut(snapshot.claims.get_mut("data-web-0").unwrap())
}

fn differs(snapshot: &Snapshot) -> (String, String) {
    let status = group_status(snapshot);
    let condition = status.conditions.iter().find(|condition| condition.type_ == CONDITION);
    condition.map(|condition| (condition.reason.clone(), condition.message.clone())).unwrap_or_default()
}

#[test]
fn a_claim_is_used_only_where_it_is_the_groups_or_declared_so() {
    let group = group(spec(json!([entry("data", "1Gi")])));
    let declared = &group.node.claims()[0];
    let willing = crate::group::ClaimShape { policy: ClaimPolicy::UseExisting, ..declared.clone() };
    let whose = |entry: &crate::group::ClaimShape, label: Option<&str>, uid: Option<&str>| {
        ownership(&group, entry, Found { name: "data-web-0", group: label, group_uid: uid })
    };
    assert_eq!(whose(declared, Some("web"), Some("g")), Ownership::Ours);
    // What a former group of this name has left.
    assert_eq!(whose(declared, Some("web"), Some("former")), Ownership::Ours);
    assert_eq!(whose(declared, None, Some("g")), Ownership::Unmarked, "its label was taken off");
    assert_eq!(whose(&willing, None, None), Ownership::Unmarked);
    let conflict = |whose| match whose {
        Ownership::Conflict(message) => message,
        other => panic!("{other:?}"),
    };
    let theirs = conflict(whose(declared, None, None));
    assert!(theirs.contains("volumeClaimTemplates[0].claimPolicy to UseExisting"), "{theirs}");
    // However willing it is: what is another group's is not shared.
    for entry in [declared, &willing] {
        let others = conflict(whose(entry, Some("blue"), Some("b")));
        assert!(others.contains("belongs to group blue"), "{others}");
    }
    conflict(whose(&willing, None, Some("b")));
}

/// Two groups whose claims come to the same name shared one silently, and deleting the first deleted the data of both.
#[test]
fn a_claim_of_somebody_else_holds_the_pod_and_says_whose_it_is() {
    let mut snapshot = mounted(json!([entry("data", "1Gi")]));
    snapshot.machines.clear();
    *claim(&mut snapshot) =
        Claim { name: "data-web-0".into(), conflict: Some("it belongs to group blue".into()), ..Claim::default() };
    assert_eq!(effects(&snapshot), []);
    assert!(plan(&snapshot).wake.is_some(), "nobody tells when it is free");
    let status = group_status(&snapshot);
    let of = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).cloned().unwrap();
    assert_eq!(of("Stalled").reason, "NameConflict");
    assert!(of("Ready").message.contains("web-0: it belongs to group blue"), "{}", of("Ready").message);
    snapshot.recheck = true;
    assert_eq!(effects(&snapshot), [Effect::CreateMachine { ordinal: 0 }]);
    // A pod that mounts it already, from before the operator looked, is left alone; it is told all the same.
    let mut running = mounted(json!([entry("data", "1Gi")]));
    claim(&mut running).conflict = Some("it belongs to group blue".into());
    assert_eq!(effects(&running), []);
    assert_eq!(differs(&running).0, "NameConflict");
}

#[test]
fn a_claim_that_is_added_later_replaces_the_nodes_that_lack_it() {
    let snapshot = mounted(json!([entry("data", "1Gi"), entry("log", "1Gi")]));
    assert!(matches!(effects(&snapshot)[..], [Effect::DeleteNode { why: Removal::Replaced { .. }, .. }]));
    assert_eq!(group_status(&snapshot).updated_replicas, 0);
    // Not before the API server has said that it would take it.
    let unchecked = Snapshot { template: TemplateVerdict::Unchecked, ..snapshot.clone() };
    assert_eq!(effects(&unchecked), [Effect::CheckTemplate]);
    // It is not made for a pod that does not mount it.
    let mut kept = snapshot;
    kept.group.as_mut().unwrap().rollout.replacement = Replacement::Never;
    assert_eq!(effects(&kept), []);
    let message = group_status(&kept).conditions[0].message.clone();
    assert!(message.contains("1 run an older pod template"), "{message}");
    // One that is there and was lost is.
    kept.claims.clear();
    assert_eq!(effects(&kept), [Effect::CreateClaims { ordinal: 0 }]);
}

#[test]
fn a_claim_grows_and_a_refusal_is_told_and_tried_again_later() {
    assert_eq!(
        (effects(&mounted(json!([entry("data", "1Gi")]))), differs(&mounted(json!([entry("data", "1024Mi")])))),
        (vec![], Default::default())
    );
    let mut snapshot = mounted(json!([entry("data", "2Gi")]));
    let expand = Effect::ExpandClaim { name: "data-web-0".into(), uid: "u".into(), storage: "2Gi".into() };
    assert_eq!(effects(&snapshot), std::slice::from_ref(&expand));
    assert_eq!(differs(&snapshot).0, "Expanding");
    let refused =
        |since| super::super::claims::Refusal { storage: "2Gi".into(), message: "no expansion".into(), since };
    snapshot.expansions.insert("data-web-0".into(), refused(ago(10)));
    assert_eq!(effects(&snapshot), []);
    assert!(plan(&snapshot).wake.is_some());
    let (reason, message) = differs(&snapshot);
    assert_eq!(reason, "ExpansionRefused");
    assert!(
        message.contains("volumeClaimTemplates[0].spec.resources.requests.storage") && message.contains("no expansion"),
        "{message}"
    );
    snapshot.expansions.insert("data-web-0".into(), refused(ago(301)));
    assert_eq!(effects(&snapshot), [expand]);
    // One that a user made is not changed.
    let mut theirs = mounted(json!([entry("data", "2Gi")]));
    claim(&mut theirs).group = None;
    assert_eq!((effects(&theirs), differs(&theirs).0), (vec![], "NotExpanded".into()));
}

#[test]
fn what_cannot_be_changed_is_told_with_its_field() {
    let shrunk = mounted(json!([entry("data", "512Mi")]));
    assert_eq!(effects(&shrunk), []);
    let (reason, message) = differs(&shrunk);
    assert_eq!(reason, "CannotShrink");
    assert!(message.contains("claim data-web-0 has 1Gi") && message.contains("declare 1Gi"), "{message}");
    let mut other = entry("data", "1Gi");
    other["spec"]["storageClassName"] = "slow".into();
    let (reason, message) = differs(&mounted(json!([other])));
    assert_eq!(reason, "ImmutableField");
    assert!(message.contains("spec.storageClassName: claim data-web-0 has \"fast\""), "{message}");
    let mut deleted = mounted(json!([entry("data", "1Gi")]));
    claim(&mut deleted).deleting = true;
    let (reason, message) = differs(&deleted);
    assert_eq!(reason, "ClaimTerminating");
    assert!(message.contains("goes with pod web-0"), "{message}");
}

/// A copy of a claim, marks included, is not the operator's to delete.
#[test]
fn a_copy_of_a_claim_is_never_deleted() {
    let made = Claim { name: "data-web-0".into(), group: Some("g".into()), node: "web-0".into(), ..Claim::default() };
    assert!(made.is_made_for("g") && !made.is_made_for("h"));
    assert!(!Claim { is_shared: true, ..made.clone() }.is_made_for("g"), "another group's pod mounts it");
    for name in ["backup", "data-web-0-copy", "web-0", "-web-0"] {
        assert!(!Claim { name: name.into(), ..made.clone() }.is_made_for("g"), "{name}");
    }
}
