//! `status.unconverged`: the nodes that an operator that starts later must not trust are listed before sessions change them.
//! See ADR 0012.

use std::sync::Arc;

use super::{
    Converger,
    observe::{Beyond, is_at_least},
    report::{Reporter, Written},
    state::State,
};
use crate::{
    api::GroupSpec,
    group::GroupKey,
    plan::{self, Intervals, Plan, Snapshot, Subject},
};

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

impl State {
    /// A group as it was seen or written last.
    pub(super) fn newest(&self, key: &GroupKey, seen: Arc<GroupSpec>) -> Arc<GroupSpec> {
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
        let Self { client, recorder, state, runs, .. } = self;
        let reporter = Reporter { client, recorder, state, runs };
        if reporter.held(snapshot, &Subject::Status).is_some() {
            plan.hold_unlisted();
            return None;
        }
        let wanted = plan::status::group(snapshot, &plan.steps);
        self.state.known().entry(snapshot.head.key.clone()).or_default().pace.write(true);
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
