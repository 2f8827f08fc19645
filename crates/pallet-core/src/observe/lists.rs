//! `status.unconverged` of a group, as a former operator has left it, and the newest version of the group that is known.

use std::sync::Arc;

use pallet_api::GroupSpec;

use super::{Beyond, is_at_least};
use crate::plan::Intervals;

impl Beyond {
    /// Takes in which nodes a former operator has listed, from the first version of the group that is read.
    pub fn see_list(&mut self, object: &GroupSpec) {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        if self.listed.as_ref().is_none_or(|(known, _)| *known != uid) {
            self.listed = Some((uid, self.listed(object)));
        }
    }

    /// A group as it was seen or written last.
    pub fn newest(&self, seen: Arc<GroupSpec>) -> Arc<GroupSpec> {
        let version = |object: &GroupSpec| object.metadata.resource_version.clone().unwrap_or_default();
        let newer = |written: &&Arc<GroupSpec>| {
            written.metadata.uid == seen.metadata.uid && is_at_least(&version(written), &version(&seen))
        };
        self.written.as_ref().filter(newer).cloned().unwrap_or(seen)
    }

    pub(super) fn listed(&self, object: &GroupSpec) -> Intervals {
        let known = self.listed.as_ref().filter(|(uid, _)| object.metadata.uid.as_ref() == Some(uid));
        known.map_or_else(
            || Intervals::of(object.status.as_ref().map_or("", |status| &status.unconverged)),
            |(_, listed)| listed.clone(),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(uid: &str, version: &str, unconverged: &str) -> GroupSpec {
        let object = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"namespace": "a", "name": "web", "uid": uid, "resourceVersion": version},
            "spec": {"node": {"pod": {"template": {}}}}, "status": {"unconverged": unconverged}
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_a_former_operator_has_listed_is_read_once() {
        let mut beyond = Beyond::default();
        assert!(beyond.listed(&group("u", "1", "3")).contain(3), "before anything was seen, what stands there");
        beyond.see_list(&group("u", "1", "3"));
        beyond.see_list(&group("u", "2", "5"));
        let listed = beyond.listed(&group("u", "2", "5"));
        assert_eq!((listed.contain(3), listed.contain(5)), (true, false), "its own list is no news to it");
        beyond.see_list(&group("another", "9", "7"));
        let listed = beyond.listed(&group("another", "9", "7"));
        assert_eq!((listed.contain(3), listed.contain(7)), (false, true));
    }
}
