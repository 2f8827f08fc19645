//! Pure: whose turn it is on a node that several Lifts want.

use std::collections::BTreeMap;

use super::{Head, is_done, written};
use crate::{
    group::GroupKey,
    plan::{Snapshot, intervals},
};
use pallet_api::{
    self as api, Lift,
    group_node::{NodeLift, Outcome},
};

/// What is known of a Lift whatever its spec says.
pub fn head(object: &Lift) -> Head {
    let metadata = &object.metadata;
    Head {
        key: key(object),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        deleting: metadata.deletion_timestamp.is_some(),
        finalized: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == api::FINALIZER),
    }
}

/// Where a Lift is.
pub fn key(object: &Lift) -> GroupKey {
    let metadata = &object.metadata;
    GroupKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// Whether a Lift has ended.
pub fn has_ended(object: &Lift) -> bool {
    object.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

/// The nodes of a group on which another of these Lifts comes first, with its name: the one that was created first, of those
/// of one second the first by name. One that is suspended, or waits for a person there, holds nobody up.
pub fn taken<'a>(own: &Head, group: &Snapshot, others: impl IntoIterator<Item = &'a Lift>) -> BTreeMap<u32, String> {
    let mut taken = BTreeMap::new();
    for other in others.into_iter().filter(|other| !has_ended(other) && !other.spec.suspend) {
        let head = head(other);
        if (head.created, &head.key.name) >= (own.created, &own.key.name) {
            continue;
        }
        let of_group = other.status.iter().flat_map(|status| &status.outcomes);
        let open = of_group.filter(|nodes| nodes.group == group.head.key.name && !is_done(nodes.outcome));
        for ordinal in open.flat_map(|nodes| intervals::parse(&nodes.nodes)) {
            let known = group.nodes.get(&ordinal).and_then(|node| written(&node.record, &head.uid));
            let waits = |lift: &NodeLift| {
                lift.outcome.is_some()
                    || lift.phase_results.iter().any(|phase_result| phase_result.outcome == Outcome::Waiting)
            };
            if !known.is_some_and(waits) {
                taken.insert(ordinal, head.key.name.clone());
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::settled_as;
    use serde_json::{Value, json};

    fn lift(name: &str, created: &str, suspend: bool, outcomes: Value) -> Lift {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "creationTimestamp": created},
            "spec": {"groups": ["web"], "suspend": suspend}, "status": {"outcomes": outcomes}
        }))
        .unwrap()
    }

    #[test]
    fn who_was_made_first_comes_first_on_the_nodes_that_it_is_not_done_with() {
        let seen = settled_as(json!({"count": 3}), &[0, 1, 2]);
        let (early, same) = ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z");
        let of = |outcome: &str, nodes: &str| json!({"group": "web", "outcome": outcome, "nodes": nodes});
        let own = head(&lift("m", same, false, json!([])));
        let taken_by = |others: &[Lift]| taken(&own, &seen, others.iter()).into_iter().collect::<Vec<_>>();
        let first = lift("z", early, false, json!([of("Running", "1"), of("Succeeded", "0"), of("Pending", "2")]));
        assert_eq!(taken_by(&[first]), [(1, "z".to_owned()), (2, "z".to_owned())]);
        let by_name = lift("a", same, false, json!([of("Pending", "0")]));
        let later = lift("n", same, false, json!([of("Running", "1")]));
        let resting = lift("b", early, true, json!([of("Pending", "2")]));
        let elsewhere = lift("c", early, false, json!([{"group": "db", "outcome": "Running", "nodes": "1"}]));
        assert_eq!(taken_by(&[by_name, later, resting, elsewhere]), [(0, "a".to_owned())]);
    }
}
