//! IO: carries a plan out. Every call has a deadline; what fails is tried again from a new snapshot, never from here.

mod claims;
mod create;
mod key_pair;
mod secrets;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ObjectReference, Pod as KubePod};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, PropagationPolicy},
    runtime::events::{EventType, Recorder},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::{
    Error, State,
    report::{Published, publish, tell},
};
use crate::{
    ports::{Clock, Sessions},
    run::Start,
};
use pallet_api::reason::Reason;
use pallet_api::{self as api, GroupNode, GroupSpec};
use pallet_core::{
    group::{Cascade, Group, Kind, NodeShape},
    node::kubevirt::VirtualMachine,
    observe::Indexed,
    plan::{Effect, MachineRemoval, Notice, Plan, Purpose, Snapshot, Subject, progress},
};

/// No call to the API server waits longer.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// How many calls of one group are under way at once.
pub const CONCURRENCY: usize = 32;
/// Creations begin with so many at once and double with each round that went well, as in a ReplicaSet: a quota that is
/// used up costs a few refusals, not thousands.
const FIRST_ROUND: usize = 8;

/// The field manager that writes `spec.count`, until it gives the field up.
const COUNT_MANAGER: &str = "pallet-operator-count";

/// Waits for a call, but not for ever.
pub async fn within<T>(what: &'static str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(Error::Api { what, source: Box::new(source) }),
        Err(_) => Err(Error::Deadline { what }),
    }
}

/// Where effects happen.
pub struct Applier<'a> {
    /// For everything but exec.
    pub client: &'a Client,
    /// For events.
    pub recorder: &'a Recorder,
    /// The sessions.
    pub sessions: &'a dyn Sessions,
    /// The time of refusals.
    pub clock: &'a dyn Clock,
    /// The caches, and what is known beyond them.
    pub state: &'a State,
    /// What the plan was made from.
    pub snapshot: &'a Snapshot,
}

impl Applier<'_> {
    /// Carries out what the plan says. The effects of one plan do not depend on each other and are done side by side, but
    /// for creations, which go last and in rounds.
    ///
    /// # Errors
    /// The first error; the other effects of its round were tried all the same.
    pub async fn apply(&self, plan: &Plan) -> Result<(), Error> {
        let creates = |effect: &&Effect| {
            matches!(effect, Effect::CreateNode { .. } | Effect::TakeHost { .. } | Effect::CreateMachine { .. })
        };
        let (creations, others): (Vec<&Effect>, Vec<&Effect>) = plan.effects.iter().partition(creates);
        // That a machine was lost is told when another one could be made: before, it may only have been hidden by an edit.
        let remade = |ordinal: &u32| creations.contains(&&Effect::CreateMachine { ordinal: *ordinal });
        let (lost, others): (Vec<&Effect>, Vec<&Effect>) =
            others.into_iter().partition(|effect| matches!(effect, Effect::Tell { ordinal, .. } if remade(ordinal)));
        // One that is refused keeps no other from being done.
        let others = self.round(plan, &others).await;
        let (mut rest, mut size) = (creations.as_slice(), FIRST_ROUND);
        let mut created = Ok(());
        while !rest.is_empty() && created.is_ok() {
            let (round, later) = rest.split_at(size.min(rest.len()));
            created = self.round(plan, round).await;
            (rest, size) = (later, size * 2);
        }
        for effect in lost {
            let Effect::Tell { ordinal, what } = effect else { continue };
            if self.is_remade(*ordinal) {
                self.tell(*ordinal, what).await;
            }
        }
        created.and(others)
    }

    /// Whether the caches show what backs a node, which they did not when the plan was made.
    fn is_remade(&self, ordinal: u32) -> bool {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return false };
        let key = &self.snapshot.head.key;
        let index = self.state.index();
        let machines = if self.snapshot.kind() == Kind::Pod { index.pods(key) } else { index.virtual_machines(key) };
        machines.get(&node.name).is_some_and(|machine| machine.node.as_ref() == Some(&node.uid))
    }

    async fn round(&self, plan: &Plan, effects: &[&Effect]) -> Result<(), Error> {
        let calls: Vec<_> = effects.iter().map(|effect| self.one(plan, effect)).collect();
        let results: Vec<_> = stream::iter(calls).buffer_unordered(CONCURRENCY).collect().await;
        results.into_iter().collect()
    }

    async fn one(&self, plan: &Plan, effect: &Effect) -> Result<(), Error> {
        match effect {
            Effect::StartSession { .. } => debug!(?effect),
            _ => info!(?effect),
        }
        let carried_out = Box::pin(self.carry_out(plan, effect));
        let Some(subject) = effect.subject(self.snapshot) else { return carried_out.await };
        let failed = match effect {
            Effect::DeleteNode { .. } | Effect::DeleteMachine { .. } | Effect::DeleteClaim { .. } => {
                Reason::FailedDelete
            }
            Effect::Finalize
            | Effect::ReleaseGroup
            | Effect::DeclareCount { .. }
            | Effect::TakeOverNode { .. }
            | Effect::ReleaseNode { .. }
            | Effect::RestoreNode { .. }
            | Effect::ReleaseStray { .. }
            | Effect::OpenGate { .. }
            | Effect::CloseGate { .. } => Reason::FailedUpdate,
            _ => Reason::FailedCreate,
        };
        self.noted(subject, failed, carried_out).await
    }

    /// Keeps what the API server refuses, until it has done it: the status tells of it, and it is not asked again at once.
    async fn noted<T>(
        &self,
        subject: Subject,
        failed: Reason,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (result, head) = (call.await, &self.snapshot.head);
        match &result {
            Ok(_) => self.state.forget_refusal(&head.key, &subject),
            Err(error) => {
                if let Some(said) = error.refusal(failed) {
                    self.state.remember_refusal(&head.key, subject, said, (head.generation, self.clock.now()));
                }
            }
        }
        result
    }

    async fn carry_out(&self, plan: &Plan, effect: &Effect) -> Result<(), Error> {
        match effect {
            Effect::Finalize => self.finalize_group(true).await,
            Effect::DeclareCount { count } => self.declare_count(*count).await,
            Effect::ReleaseGroup => self.release_group().await,
            Effect::CheckTemplate => self.check_template().await,
            Effect::CreateNode { ordinal } => self.create_node(*ordinal, None, self.template(plan, *ordinal)?).await,
            Effect::TakeHost { ordinal, host } => self.take_host(*ordinal, host).await,
            Effect::TakeOverNode { ordinal, uid } => self.take_over_node(*ordinal, uid).await,
            Effect::CreateMachine { ordinal } => self.create_machine(*ordinal, self.template(plan, *ordinal)?).await,
            Effect::CreateClaims { ordinal } => self.create_claims(*ordinal).await,
            Effect::ExpandClaim { name, uid, storage } => self.expand_claim(name, uid, storage).await,
            Effect::DeleteClaim { name, uid, node } => self.delete_claim(name, uid, node).await,
            Effect::DeleteNode { ordinal, uid, cascade, .. } => self.delete_node(*ordinal, uid, *cascade).await,
            Effect::DeleteMachine { name, uid, why } => {
                self.delete_machine(name, uid).await?;
                if *why == MachineRemoval::Lost {
                    self.state.remember_loss(&self.snapshot.head.key, name);
                }
                Ok(())
            }
            Effect::ReleaseNode { ordinal } => self.release_node(*ordinal).await,
            Effect::RestoreNode { ordinal } => self.restore_node(*ordinal).await,
            Effect::ReleaseStray { name, uid } => release(&self.nodes(), name, Some(uid)).await,
            Effect::OpenGate { name, uid } => self.set_gate(name, uid, true).await,
            Effect::CloseGate { name, uid } => self.set_gate(name, uid, false).await,
            Effect::StartSession { ordinal, purpose, .. } => {
                self.start(*ordinal, purpose.clone());
                Ok(())
            }
            Effect::Tell { ordinal, what } => {
                self.tell(*ordinal, what).await;
                Ok(())
            }
            Effect::EndSession { name, why } => {
                if let Some(node) = self.snapshot.nodes.values().find(|node| node.name == *name) {
                    self.sessions.end(&node.uid, why);
                }
                Ok(())
            }
        }
    }

    /// The template that a node is made from, where it is not the present one.
    fn template(&self, plan: &Plan, ordinal: u32) -> Result<Option<&NodeShape>, Error> {
        let Some(hash) = plan.templates.get(&ordinal) else { return Ok(None) };
        let shape = self.snapshot.templates.get(hash).map(Arc::as_ref);
        shape.map(Some).ok_or(Error::Unplanned("a node that is made from a template that is not kept"))
    }

    fn namespace(&self) -> &str {
        &self.snapshot.head.key.namespace
    }

    fn nodes(&self) -> Api<GroupNode> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    fn pods(&self) -> Api<KubePod> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    fn virtual_machines(&self) -> Api<VirtualMachine> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    fn group(&self) -> Result<&Group, Error> {
        self.snapshot.in_force().ok_or(Error::Unplanned("an effect without a readable spec"))
    }

    /// Lets the group go, unless there is a node of its that no cache shows: one that was made though nobody said so.
    async fn release_group(&self) -> Result<(), Error> {
        let head = &self.snapshot.head;
        // By the field, and not by the label, which anybody may edit.
        let mine = ListParams::default().fields(&format!("spec.group={}", head.key.name));
        let found = within("list groupnodes", self.nodes().list(&mine)).await?;
        let left: Vec<&GroupNode> = found.items.iter().filter(|node| node.spec.group_uid == head.uid).collect();
        if left.is_empty() {
            return self.finalize_group(false).await;
        }
        left.into_iter().for_each(|node| self.state.learn(node));
        Ok(())
    }

    /// Puts the finalizer on the GroupSpec or takes it off, keeping whatever others stand there.
    async fn finalize_group(&self, on: bool) -> Result<(), Error> {
        let head = &self.snapshot.head;
        let groups: Api<GroupSpec> = Api::namespaced(self.client.clone(), self.namespace());
        let current = within("get groupspec", groups.get_opt(&head.key.name)).await?;
        let Some(current) = current.filter(|current| current.metadata.uid.as_deref() == Some(&head.uid)) else {
            return Ok(());
        };
        let patch = finalizers_patch(&current.metadata, on);
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = within("patch groupspec", groups.patch(&head.key.name, &parameters, &patch)).await;
        tolerate_gone(patched).map(|_| ())
    }

    /// Makes a GroupNode of an earlier group of this name the group's.
    async fn take_over_node(&self, ordinal: u32, uid: &str) -> Result<(), Error> {
        let (head, name) = (&self.snapshot.head, self.snapshot.head.key.node_name(ordinal));
        let groups: Api<GroupSpec> = Api::namespaced(self.client.clone(), self.namespace());
        // The cache may be behind, and the node belong to a group that is newer.
        let current = within("get groupspec", groups.get_opt(&head.key.name)).await?;
        if current.is_none_or(|current| current.metadata.uid.as_deref() != Some(&head.uid)) {
            return Ok(());
        }
        let Some(node) = within("get groupnode", self.nodes().get_opt(&name)).await? else { return Ok(()) };
        if node.metadata.uid.as_deref() != Some(uid) || node.spec.group_uid == head.uid {
            return Ok(());
        }
        let mut patch = finalizers_patch(&node.metadata, true);
        patch["metadata"]["labels"] = json!({(api::GROUP_LABEL): head.key.name});
        patch["spec"] = json!({"groupUid": head.uid, "takenOverFrom": node.spec.group_uid});
        let parameters = PatchParams::default();
        let patched = within("patch groupnode", self.nodes().patch(&name, &parameters, &Patch::Merge(patch))).await;
        if let Some(node) = tolerate_gone(patched)? {
            self.state.learn(&node);
        }
        Ok(())
    }

    /// Writes the count into the GroupSpec, unless somebody has done so. Nobody owns the field afterwards, as with a default
    /// of the API server: whoever declares it by server-side apply meets no conflict.
    async fn declare_count(&self, count: u32) -> Result<(), Error> {
        let head = &self.snapshot.head;
        let groups: Api<GroupSpec> = Api::namespaced(self.client.clone(), self.namespace());
        let current = within("get groupspec", groups.get_opt(&head.key.name)).await?;
        let meant = |group: &GroupSpec| group.metadata.uid.as_deref() == Some(&head.uid) && group.spec.count.is_none();
        let Some(current) = current.filter(meant) else { return Ok(()) };
        let parameters = PatchParams { field_manager: Some(COUNT_MANAGER.into()), ..PatchParams::default() };
        let patch = json!({
            "metadata": {"resourceVersion": current.metadata.resource_version}, "spec": {"count": count}
        });
        let patched = within("patch groupspec", groups.patch(&head.key.name, &parameters, &Patch::Merge(patch))).await;
        let Some(patched) = tolerate_gone(patched)? else { return Ok(()) };
        let owners = patched.metadata.managed_fields.unwrap_or_default();
        let others: Vec<_> =
            owners.into_iter().filter(|owner| owner.manager.as_deref() != Some(COUNT_MANAGER)).collect();
        let patch =
            json!({"metadata": {"resourceVersion": patched.metadata.resource_version, "managedFields": others}});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = within("patch groupspec", groups.patch(&head.key.name, &parameters, &patch)).await;
        tolerate_gone(patched).map(|_| ())
    }

    async fn delete_node(&self, ordinal: u32, uid: &str, cascade: Cascade) -> Result<(), Error> {
        let name = self.snapshot.head.key.node_name(ordinal);
        let propagation_policy = Some(match cascade {
            Cascade::Nodes => PropagationPolicy::Background,
            Cascade::Orphan => PropagationPolicy::Orphan,
        });
        let parameters = DeleteParams { propagation_policy, ..by_uid(uid) };
        let deleted = within("delete groupnode", self.nodes().delete(&name, &parameters)).await;
        if let Some(answer) = tolerate_gone(deleted)? {
            answer.left().inspect(|node| self.state.learn(node));
        }
        Ok(())
    }

    async fn delete_machine(&self, name: &str, uid: &str) -> Result<(), Error> {
        match self.snapshot.machines.get(name).map(|machine| machine.kind) {
            Some(Kind::Pod) => self.delete(&self.pods(), name, uid).await,
            Some(Kind::VirtualMachine) => self.delete(&self.virtual_machines(), name, uid).await,
            Some(Kind::Host) | None => Ok(()),
        }
    }

    async fn delete<K>(&self, api: &Api<K>, name: &str, uid: &str) -> Result<(), Error>
    where
        K: Resource + Indexed + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let deleted = within("delete what backs a node", api.delete(name, &by_uid(uid))).await;
        if let Some(answer) = tolerate_gone(deleted)? {
            // A pod that never ran is gone at once; only what is going is still there to be known.
            answer
                .left()
                .filter(|gone| gone.meta().deletion_timestamp.is_some())
                .inspect(|gone| self.state.learn(gone));
        }
        Ok(())
    }

    async fn release_node(&self, ordinal: u32) -> Result<(), Error> {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return Ok(()) };
        release(&self.nodes(), &node.name, Some(&node.uid)).await
    }

    async fn restore_node(&self, ordinal: u32) -> Result<(), Error> {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return Ok(()) };
        let Some(current) = within("get groupnode", self.nodes().get_opt(&node.name)).await? else { return Ok(()) };
        if current.metadata.uid.as_deref() != Some(&node.uid) || current.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut patch = finalizers_patch(&current.metadata, true);
        patch["metadata"]["labels"][api::GROUP_LABEL] = current.spec.group.as_str().into();
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = within("patch groupnode", self.nodes().patch(&node.name, &parameters, &patch)).await;
        if let Some(node) = tolerate_gone(patched)? {
            self.state.learn(&node);
        }
        Ok(())
    }

    async fn set_gate(&self, name: &str, uid: &str, open: bool) -> Result<(), Error> {
        let (status, reason, message) = match open {
            true => ("True", Reason::Converged.as_str(), "every phase has succeeded once in this container"),
            false => ("False", "ContainerRestarted", "the container was restarted; its phases run again"),
        };
        let patch = json!({
            "metadata": {"uid": uid},
            "status": {"conditions": [{
                "type": api::CONVERGED_GATE, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": self.snapshot.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
            }]}
        });
        let (pods, parameters, patch) = (self.pods(), PatchParams::default(), Patch::Strategic(patch));
        let patched = within("patch pod status", pods.patch_status(name, &parameters, &patch)).await;
        if let Some(pod) = tolerate_gone(patched)? {
            self.state.learn(&pod);
        }
        Ok(())
    }

    async fn tell(&self, ordinal: u32, what: &Notice) {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return };
        let about = ObjectReference {
            api_version: Some(format!("{}/v1alpha1", api::API_GROUP)),
            kind: Some("GroupNode".into()),
            name: Some(node.name.clone()),
            namespace: Some(self.namespace().to_owned()),
            uid: Some(node.uid.clone()),
            ..ObjectReference::default()
        };
        let Notice::DestroySkipped { why } = what;
        const REASON: &str = Reason::DestroySkipped.as_str();
        warn!(node = node.name, group = %self.snapshot.head.key, why, "destroy-server has not run to its end");
        let note = format!("destroy-server has not run to its end on this node: {why}");
        let published = publish(self.recorder, &about, EventType::Warning, REASON, "Remove", note).await;
        if published != Published::NamespaceTerminating {
            return;
        }
        // Nothing can be created in a namespace that is being deleted. An event about the namespace itself is in `default`.
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Namespace".into()),
            name: Some(self.namespace().to_owned()),
            ..ObjectReference::default()
        };
        let group = &self.snapshot.head.key.name;
        let note = format!(
            "destroy-server has not run to its end on node {} of group {group}: {why}; the namespace is being deleted: to have \
             it run, delete the groups first",
            node.name
        );
        // One event for each group, counted by its nodes.
        let action = format!("Remove-{group}");
        tell(self.recorder, &about, EventType::Warning, REASON, &action, note).await;
    }

    fn start(&self, ordinal: u32, purpose: Purpose) {
        let group = match purpose {
            Purpose::Farewell => self.snapshot.for_removal(),
            _ => self.snapshot.in_force(),
        };
        let Some(group) = group else { return };
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return };
        let identity = progress::identity(node, self.snapshot.machine(node));
        if let Some(start) = Start::on(self.snapshot, node, group, identity, purpose) {
            self.sessions.start(start);
        }
    }
}

/// Takes our finalizer off a GroupNode, if it still is the one that is meant.
///
/// # Errors
/// Where the API server could not be asked or would not have it.
pub async fn release(nodes: &Api<GroupNode>, name: &str, uid: Option<&str>) -> Result<(), Error> {
    let Some(current) = within("get groupnode", nodes.get_opt(name)).await? else { return Ok(()) };
    if uid.is_some() && current.metadata.uid.as_deref() != uid {
        return Ok(());
    }
    let patch = finalizers_patch(&current.metadata, false);
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
    tolerate_gone(within("patch groupnode", nodes.patch(name, &parameters, &patch)).await).map(|_| ())
}

pub(super) fn by_uid(uid: &str) -> DeleteParams {
    DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() })
}

/// Sets or takes off our finalizer, by the version that was read: somebody else's finalizer must not be lost.
pub(super) fn finalizers_patch(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    on: bool,
) -> Value {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != api::FINALIZER);
    if on {
        finalizers.push(api::FINALIZER.to_owned());
    }
    json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": finalizers}})
}

/// What was to be removed or changed is gone, or is another object by now: there is nothing left to do.
pub(super) fn tolerate_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_gone() || error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}
