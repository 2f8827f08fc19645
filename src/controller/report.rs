//! IO: writes what the pure [`status`](pallet_core::plan::status) says, where it changed, and tells of transitions by events.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder},
};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    Error, State,
    apply::{CONCURRENCY, within},
};
use crate::ports::{Clock, Sessions};
use pallet_api::reason::Reason;
use pallet_api::{
    GroupNode, GroupNodeStatus, GroupSpec, GroupSpecStatus,
    conditions::clip,
    group_node::{Outcome, PhaseResult},
};
use pallet_client::answer;
use pallet_core::{
    group::resolve,
    plan::{Effect, Node, Plan, Refusal, Snapshot, Subject, claims, earliest, restore, status},
};

/// A write met an object that was not as it had been seen, so it shall be looked at again. The watch tells of it, as a rule;
/// a conflict of the API server's own brings no event.
pub const AFTER_CONFLICT: SignedDuration = SignedDuration::from_secs(1);

/// What became of the write of a group's status.
#[derive(Debug)]
pub enum Written {
    /// It is written. This is the group that the API server answered with.
    Yes(Arc<GroupSpec>),
    /// Somebody has changed the group meanwhile.
    Conflict,
    /// The group is gone.
    Gone,
}

/// Where reports go.
pub struct Reporter<'a> {
    /// For writes.
    pub client: &'a Client,
    /// For events.
    pub recorder: &'a Recorder,
    /// The caches.
    pub state: &'a State,
    /// The sessions, whose records are saved here.
    pub sessions: &'a dyn Sessions,
    /// The time of refusals.
    pub clock: &'a dyn Clock,
}

impl Reporter<'_> {
    /// Writes the status of every node of which it is due, and takes over in the snapshot which of them are written. Returns when
    /// to look again.
    ///
    /// # Errors
    /// The first error; every other status was tried all the same.
    pub async fn nodes(&self, snapshot: &mut Snapshot, plan: &Plan) -> Result<Option<Timestamp>, Error> {
        let (wake, results) = self.write_nodes(snapshot, plan).await;
        let mut again = Ok(wake);
        for (ordinal, result) in results {
            match result {
                Ok(true) => {
                    let node = snapshot.nodes.get_mut(&ordinal).filter(|node| node.saved.is_some());
                    node.into_iter().for_each(|node| Arc::make_mut(node).saved = None);
                }
                Ok(false) => {
                    let later = Some(snapshot.now + AFTER_CONFLICT);
                    again = again.map(|wake| earliest(wake, later));
                }
                Err(error) => again = again.and(Err(error)),
            }
        }
        again
    }

    async fn write_nodes(
        &self,
        snapshot: &Snapshot,
        plan: &Plan,
    ) -> (Option<Timestamp>, Vec<(u32, Result<bool, Error>)>) {
        let mut wake = None;
        let mut writes = Vec::new();
        let starting: BTreeSet<u32> = plan.effects.iter().filter_map(Effect::starts).collect();
        let leaving = plan.farewells.keys().filter_map(|ordinal| snapshot.nodes.get(ordinal)).map(|node| &**node);
        // A session that has just begun will have more to say.
        for node in snapshot.live().chain(leaving).filter(|node| !starting.contains(&node.ordinal)) {
            let step = plan.steps.get(&node.ordinal).or_else(|| plan.farewells.get(&node.ordinal));
            match status::node(snapshot, node, step) {
                status::Due::No => {}
                status::Due::At(time) => wake = earliest(wake, Some(time)),
                status::Due::Now(wanted) => match self.held(snapshot, &Subject::NodeStatus(node.ordinal)) {
                    Some(until) => wake = earliest(wake, Some(until)),
                    None => writes.push(async move { (node.ordinal, self.node(snapshot, node, *wanted).await) }),
                },
            }
        }
        (wake, stream::iter(writes).buffer_unordered(CONCURRENCY).collect().await)
    }

    /// Until when a write is not tried, since it was refused.
    pub fn held(&self, snapshot: &Snapshot, subject: &Subject) -> Option<Timestamp> {
        let refusal = snapshot.refusals.get(subject)?;
        refusal.holds(snapshot.head.generation, snapshot.now).then_some(refusal.until)
    }

    /// Says whether it is written; false where somebody has changed it meanwhile.
    async fn node(&self, snapshot: &Snapshot, node: &Node, wanted: GroupNodeStatus) -> Result<bool, Error> {
        let key = &snapshot.head.key;
        let nodes: Api<GroupNode> = Api::namespaced(self.client.clone(), &key.namespace);
        let status = merge_diff(&to_json(&node.status()), &to_json(&wanted));
        let patch = json!({"metadata": {"uid": node.uid, "resourceVersion": node.version}, "status": status});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let subject = Subject::NodeStatus(node.ordinal);
        match within("patch groupnode status", nodes.patch_status(&node.name, &parameters, &patch)).await {
            Ok(written) => {
                self.state.forget_refusal(key, &subject);
                self.state.learn(&written);
                self.sessions.saved(&node.uid, &node.record);
                self.tell_failures(&written, node).await;
                self.tell_drift(&written, node).await;
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            // The watch will tell.
            Err(error) if error.is_gone() => Ok(true),
            Err(error) => {
                if let Some(said) = error.refusal(Reason::FailedUpdate) {
                    self.state.remember_refusal(key, subject, said, (snapshot.head.generation, self.clock.now()));
                }
                Err(error)
            }
        }
    }

    /// One event where a look has found that a node differs from what is declared.
    async fn tell_drift(&self, written: &GroupNode, node: &Node) {
        fn drifted(conditions: &[Condition]) -> Option<&Condition> {
            conditions.iter().find(|condition| condition.type_ == "Drifted" && condition.status == "True")
        }
        let now = written.status.as_ref().and_then(|status| drifted(&status.conditions));
        if let (Some(now), None) = (now, drifted(&node.reported.conditions)) {
            let about = written.object_ref(&());
            tell(self.recorder, &about, EventType::Warning, Reason::Drifted.as_str(), "Look", now.message.clone())
                .await;
        }
    }

    /// One event for an attempt that failed, when its phase result is written first.
    async fn tell_failures(&self, written: &GroupNode, node: &Node) {
        let Some(saved) = &node.saved else { return };
        let known = |phase_result: &PhaseResult| {
            saved.phase_results.values().any(|old| {
                let same = old.run_id == phase_result.run_id && old.outcome == phase_result.outcome;
                same && old.attempt == phase_result.attempt && old.interruptions == phase_result.interruptions
            })
        };
        for phase_result in node
            .record
            .phase_results
            .values()
            .filter(|phase_result| phase_result.outcome != Outcome::Succeeded && !known(phase_result))
        {
            let note = format!("{} attempt {}: {}", phase_result.phase, phase_result.attempt, phase_result.message);
            let (kind, reason) = match phase_result.outcome {
                Outcome::Unknown => (EventType::Warning, Reason::PhaseLost.as_str()),
                Outcome::Waiting => (EventType::Normal, Reason::ManualStep.as_str()),
                Outcome::Interrupted => (EventType::Normal, Reason::PhaseInterrupted.as_str()),
                _ => (EventType::Warning, Reason::PhaseFailed.as_str()),
            };
            let action = format!("{}-{}-{}", phase_result.phase, phase_result.attempt, phase_result.run_id);
            tell(self.recorder, &written.object_ref(&()), kind, reason, &action, note).await;
        }
    }

    /// As [`Reporter::group`]. A refusal is told by an event, once: the status cannot tell of it.
    ///
    /// # Errors
    /// Where it could not be written.
    pub async fn refusable(
        &self,
        snapshot: &Snapshot,
        object: &GroupSpec,
        wanted: &GroupSpecStatus,
    ) -> Result<Written, Error> {
        let (result, head) = (self.group(object, wanted).await, &snapshot.head);
        match &result {
            Ok(_) => self.state.forget_refusal(&head.key, &Subject::Status),
            Err(error) => {
                let at = (head.generation, self.clock.now());
                let said = error.refusal(Reason::FailedUpdate);
                let news = said.and_then(|said| self.state.remember_refusal(&head.key, Subject::Status, said, at));
                if let Some(Refusal { reason, message, .. }) = news {
                    tell(
                        self.recorder,
                        &object.object_ref(&()),
                        EventType::Warning,
                        reason.as_str(),
                        "Report",
                        message,
                    )
                    .await;
                }
            }
        }
        result
    }

    /// Writes the status of the group where it changed. The event of it is up to the caller.
    ///
    /// # Errors
    /// Where it could not be written.
    pub async fn group(&self, object: &GroupSpec, wanted: &GroupSpecStatus) -> Result<Written, Error> {
        let metadata = &object.metadata;
        let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) else { return Ok(Written::Gone) };
        let groups: Api<GroupSpec> = Api::namespaced(self.client.clone(), namespace);
        let status = merge_diff(&to_json(&object.status), &to_json(wanted));
        let patch =
            json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version}, "status": status});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        match within("patch groupspec status", groups.patch_status(name, &parameters, &patch)).await {
            Ok(written) => {
                let written = Arc::new(written);
                self.state.learn_group(&resolve::key(object), written.clone());
                Ok(Written::Yes(written))
            }
            Err(error) if error.is_conflict() => {
                self.state.doubt(&resolve::key(object), object);
                Ok(Written::Conflict)
            }
            Err(error) if error.is_gone() => Ok(Written::Gone),
            Err(error) => {
                if !error.is_refusal() {
                    self.state.doubt(&resolve::key(object), object);
                }
                Err(error)
            }
        }
    }

    /// An event for each condition of the group that changed, once it is written.
    pub async fn tell_changes(&self, object: &GroupSpec, wanted: &GroupSpecStatus) {
        self.tell_transition(object, wanted).await;
        for condition in [claims::CONDITION, restore::CONDITION] {
            self.tell_warning(object, wanted, condition).await;
        }
    }

    /// One event where a condition that reports something unusual appeared, or has another reason.
    async fn tell_warning(&self, object: &GroupSpec, wanted: &GroupSpecStatus, kind: &str) {
        let find = |conditions: &[Condition]| conditions.iter().find(|condition| condition.type_ == kind).cloned();
        let before = object.status.as_ref().and_then(|status| find(&status.conditions));
        let Some(now) = find(&wanted.conditions) else { return };
        if before.is_none_or(|before| before.reason != now.reason) {
            let action = format!("{kind}-{}", wanted.observed_generation.unwrap_or_default());
            tell(self.recorder, &object.object_ref(&()), EventType::Warning, &now.reason, &action, now.message).await;
        }
    }

    /// One event where the reason of Ready changed.
    async fn tell_transition(&self, object: &GroupSpec, wanted: &GroupSpecStatus) {
        fn ready(conditions: &[Condition]) -> Option<&Condition> {
            conditions.iter().find(|condition| condition.type_ == "Ready")
        }
        let before = object.status.as_ref().and_then(|status| ready(&status.conditions));
        let Some(now) = ready(&wanted.conditions) else { return };
        if before.is_some_and(|before| before.reason == now.reason && before.status == now.status) {
            return;
        }
        let stalled = wanted.conditions.iter().any(|condition| condition.type_ == "Stalled");
        let kind = if stalled { EventType::Warning } else { EventType::Normal };
        // Events with the same action are counted as one, with the note of the first.
        let action = format!("Reconcile-{}", wanted.observed_generation.unwrap_or_default());
        info!(reason = now.reason, message = now.message, "condition changed");
        tell(self.recorder, &object.object_ref(&()), kind, &now.reason, &action, now.message.clone()).await;
    }
}

/// Writes an event. It is a courtesy: that it could not be written stops nothing.
pub async fn tell(
    recorder: &Recorder,
    about: &ObjectReference,
    kind: EventType,
    reason: &str,
    action: &str,
    note: String,
) {
    if publish(recorder, about, kind, reason, action, note).await == Published::NamespaceTerminating {
        warn!(reason, "failed to write an event: its namespace is being deleted");
    }
}

/// What came of writing an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// It is there.
    Written,
    /// Nothing can be created in its namespace, which is being deleted.
    NamespaceTerminating,
    /// It could not be written, for another reason, which was logged.
    Failed,
}

/// Writes an event.
pub async fn publish(
    recorder: &Recorder,
    about: &ObjectReference,
    kind: EventType,
    reason: &str,
    action: &str,
    note: String,
) -> Published {
    let event = Event {
        type_: kind,
        reason: clip(reason, 128),
        note: Some(clip(&note, 1000)),
        action: clip(action, 128),
        secondary: None,
    };
    match tokio::time::timeout(super::apply::DEADLINE, recorder.publish(&event, about)).await {
        Ok(Ok(())) => Published::Written,
        Ok(Err(error)) if answer::is_terminating(&error) => Published::NamespaceTerminating,
        Ok(Err(error)) => {
            warn!(error = answer::words(&error), reason, "failed to write an event");
            Published::Failed
        }
        Err(_) => {
            warn!(reason, "failed to write an event before the deadline");
            Published::Failed
        }
    }
}

pub(super) fn to_json(status: &impl serde::Serialize) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

/// The JSON merge patch (RFC 7396) that makes `to` of `from`: what is gone is null, what is the same is left out.
pub(super) fn merge_diff(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = to.iter().filter_map(|(key, value)| match from.get(key) {
        Some(old) if old == value => None,
        Some(old) => Some((key.clone(), merge_diff(old, value))),
        None => Some((key.clone(), value.clone())),
    });
    gone.chain(changed).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use kube::{client::Body, runtime::events::Reporter as EventSource};

    use super::*;
    use crate::{
        ports::SystemClock,
        run::{Limits, Runs, tasks::Tasks, vault::Empty},
        telemetry::metrics::Metrics,
        transport::{Channel, OpenError, Transport},
    };
    use pallet_core::target::Target;

    /// A client to whom every request is answered alike.
    fn answered(code: u16) -> Client {
        let service = tower::service_fn(move |_: http::Request<Body>| async move {
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": code});
            http::Response::builder().status(code).body(Body::from(status.to_string().into_bytes()))
        });
        Client::new(service, "default")
    }

    /// Guards against a group that waits for an event which no conflict of the API server's own brings.
    #[tokio::test]
    async fn a_conflict_is_no_written_status() {
        let group: GroupSpec = serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"namespace": "a", "name": "web", "uid": "u", "resourceVersion": "1"},
            "spec": {"node": {"pod": {"template": {}}}}
        }))
        .unwrap();
        for (code, expected) in [(409, "Conflict"), (404, "Gone"), (500, "an error")] {
            let client = answered(code);
            let recorder = Recorder::new(client.clone(), EventSource::from("test"));
            let tasks = Tasks::default();
            let metrics = Metrics::default();
            let runs = Runs::new(Arc::new(Nowhere), Arc::new(Empty), Limits::new(1), tasks.spawner(), metrics, |_| {});
            let state = State::default();
            let reporter =
                Reporter { client: &client, recorder: &recorder, state: &state, sessions: &runs, clock: &SystemClock };
            let became = match reporter.group(&group, &GroupSpecStatus::default()).await {
                Ok(written) => format!("{written:?}"),
                Err(_) => "an error".to_owned(),
            };
            assert_eq!(became, expected, "{code}");
        }
    }

    struct Nowhere;

    impl Transport for Nowhere {
        fn open<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
            unreachable!("no session is opened here")
        }
    }

    #[test]
    fn a_merge_patch_names_what_is_gone_and_leaves_out_what_is_the_same() {
        let from = json!({"facts": {"a": 1, "os": {"x": 1, "y": 2}}, "same": [1], "list": [1, 2]});
        let to = json!({"facts": {"b": 2, "os": {"y": 2}}, "same": [1], "list": [2]});
        let patch = merge_diff(&from, &to);
        assert_eq!(patch, json!({"facts": {"a": null, "b": 2, "os": {"x": null}}, "list": [2]}));
    }
}
