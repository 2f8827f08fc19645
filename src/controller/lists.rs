//! `status.unconverged`: the nodes that an operator that starts later must not trust are listed before sessions change them.
//! See ADR 0012.

use std::sync::Arc;

use super::{Converger, report::Written, state::State};
use pallet_api::GroupSpec;
use pallet_core::{
    group::GroupKey,
    plan::{self, Plan, Snapshot, Subject},
};

impl State {
    /// A group as it was seen or written last.
    pub fn newest(&self, key: &GroupKey, seen: Arc<GroupSpec>) -> Arc<GroupSpec> {
        match self.known().get_mut(key) {
            Some(known) => {
                let newest = known.beyond.newest(seen.clone());
                if newest.metadata.resource_version == seen.metadata.resource_version {
                    known.beyond.written = None;
                }
                newest
            }
            None => seen,
        }
    }

    /// Takes in the group as it was written.
    pub(super) fn learn_group(&self, key: &GroupKey, written: Arc<GroupSpec>) {
        let mut known = self.known();
        let beyond = &mut known.entry(key.clone()).or_default().beyond;
        (beyond.written, beyond.doubted) = (Some(written), None);
    }

    /// A write of the status of a group had no answer, or met another version, which may be that of a write without an answer.
    /// What it says is not known before a newer version of it is.
    pub(super) fn doubt(&self, key: &GroupKey, object: &GroupSpec) {
        self.known().entry(key.clone()).or_default().beyond.doubted = object.metadata.resource_version.clone();
    }
}

impl Converger {
    /// Writes the status of the group before sessions start on nodes that it does not list yet: an operator that starts later
    /// would not know that they may differ from their status. Returns the group as it was written, or holds these sessions back.
    pub(super) async fn list(
        &self,
        object: &GroupSpec,
        snapshot: &Snapshot,
        plan: &mut Plan,
    ) -> Option<Arc<GroupSpec>> {
        if plan.unlisted.is_empty() {
            return None;
        }
        let reporter = self.reporter();
        if reporter.held(snapshot, &Subject::Status).is_some() {
            plan.hold_unlisted();
            return None;
        }
        let wanted = plan::status::group(snapshot, &plan.steps);
        self.state.known().entry(snapshot.head.key.clone()).or_default().pace.write(true, self.clock.instant());
        match reporter.refusable(snapshot, object, &wanted).await {
            Ok(Written::Yes(written)) => Some(written),
            // Why it cannot be written comes out at the end of this pass, where it is tried again.
            Ok(Written::Conflict | Written::Gone) | Err(_) => {
                plan.hold_unlisted();
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(uid: &str, version: &str, unconverged: &str) -> Arc<GroupSpec> {
        let object = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"namespace": "a", "name": "web", "uid": uid, "resourceVersion": version},
            "spec": {"node": {"pod": {"template": {}}}}, "status": {"unconverged": unconverged}
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_answer_to_a_write_stands_until_a_watch_is_as_far() {
        let (state, key) = (State::default(), GroupKey { namespace: "a".into(), name: "web".into() });
        let version = |object: Arc<GroupSpec>| object.metadata.resource_version.clone().unwrap();
        state.learn_group(&key, group("u", "10", ""));
        assert_eq!(version(state.newest(&key, group("u", "9", ""))), "10");
        assert_eq!(version(state.newest(&key, group("another", "9", ""))), "9");
        state.learn_group(&key, group("u", "10", ""));
        assert_eq!(version(state.newest(&key, group("u", "11", ""))), "11");
        assert_eq!(version(state.newest(&key, group("u", "9", ""))), "9", "what the watch has overtaken is forgotten");
        state.learn_group(&key, group("u", "x", ""));
        assert_eq!(
            version(state.newest(&key, group("u", "y", ""))),
            "y",
            "where versions are no numbers the watch counts"
        );
    }
}
