//! IO: the volume claims of nodes: created, marked, expanded, deleted.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    Applier, Error, by_uid,
    create::{Made, request},
    tolerate_gone, within,
};
use pallet_api as api;
use pallet_core::{
    group::{ClaimShape, Group},
    node,
    observe::Indexed,
    plan::{
        Machine, TemplateVerdict,
        claims::{self, Found, Ownership, Refusal},
    },
};

impl Applier<'_> {
    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), self.namespace())
    }

    /// Asks the API server whether it would take the claims of a node.
    pub(super) async fn check_claims(&self, group: &Group, node: &str) -> Result<TemplateVerdict, Error> {
        let path =
            format!("/api/v1/namespaces/{}/persistentvolumeclaims?dryRun=All&fieldValidation=Strict", self.namespace());
        for claim in group.node.claims() {
            let body = node::pod::build_claim(group, claim, node);
            let body = serde_json::to_vec(&body).map_err(|_| Error::Unplanned("a claim that is no JSON"))?;
            let answer =
                within("dry-run create persistentvolumeclaim", self.client.request::<Value>(request(&path, body)?));
            match answer.await {
                Ok(_) => {}
                // Its name is taken. Whether the node may use it is seen when its own turn comes.
                Err(error) if error.is_conflict() => {}
                // A quota is asked before the name is: what is there already needs no room.
                Err(error) if error.may_exist() && self.claim_exists(&claim.claim_name(node)).await? => {}
                Err(error) => {
                    return match error.verdict() {
                        Some(TemplateVerdict::Refused { reason, message }) => {
                            let message = format!("its claim {:?}: {message}", claim.name);
                            Ok(TemplateVerdict::Refused { reason, message })
                        }
                        _ => Err(error),
                    };
                }
            }
        }
        Ok(TemplateVerdict::Accepted)
    }

    async fn claim_exists(&self, name: &str) -> Result<bool, Error> {
        if self.snapshot.claims.contains_key(name) {
            return Ok(true);
        }
        Ok(within("get persistentvolumeclaim", self.claims().get_opt(name)).await?.is_some())
    }

    /// Creates the claims that the pod of a node mounts and that do not exist.
    pub(super) async fn create_claims(&self, ordinal: u32) -> Result<(), Error> {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return Ok(()) };
        self.post_claims(self.group()?, &node.name, self.snapshot.machine(node)).await.map(|_| ())
    }

    /// Creates the claims of a node that do not exist. Returns whether the node has all that it needs: one that is somebody
    /// else's is left alone.
    pub(super) async fn post_claims(
        &self,
        group: &Group,
        node: &str,
        machine: Option<&Machine>,
    ) -> Result<bool, Error> {
        for entry in claims::missing(self.snapshot, group, node, machine) {
            if !self.post_claim(group, entry, node).await? {
                return Ok(false);
            }
        }
        Ok(self.snapshot.recheck || claims::conflict(self.snapshot, group, node).is_none())
    }

    async fn post_claim(&self, group: &Group, entry: &ClaimShape, node: &str) -> Result<bool, Error> {
        let name = entry.claim_name(node);
        let object = node::pod::build_claim(group, entry, node);
        let words = ("create persistentvolumeclaim", "get persistentvolumeclaim");
        let create = self.create_as_declared::<PersistentVolumeClaim>(&object);
        // A quota of claims says nothing of the template: nodes whose claims are there are made all the same.
        let found = match self.make(words, create, &self.claims(), &name).await? {
            Made::New(created) => {
                self.state.learn(&created);
                self.state.forget_foreign_claim(&group.key, &name);
                return Ok(true);
            }
            Made::Gone => return Ok(false),
            Made::Found(found) => found,
        };
        let metadata = &found.metadata;
        let text = |texts: Option<&std::collections::BTreeMap<String, String>>, key: &str| {
            texts.and_then(|texts| texts.get(key)).cloned()
        };
        let label = found.group().map(|key| key.name);
        let group_uid = text(metadata.annotations.as_ref(), api::GROUP_UID_ANNOTATION);
        let known = Found { name: &name, group: label.as_deref(), group_uid: group_uid.as_deref() };
        match claims::ownership(group, entry, known) {
            Ownership::Ours => self.state.learn(&found),
            Ownership::Unmarked => {
                // By the version that was read: another group may be about to do the same.
                let patch = json!({"metadata": {
                    "resourceVersion": metadata.resource_version,
                    "labels": {(api::GROUP_LABEL): group.key.name, (api::NODE_LABEL): node}
                }});
                let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
                let claims = self.claims();
                let marked = within("patch persistentvolumeclaim", claims.patch(&name, &parameters, &patch)).await?;
                self.state.learn(&marked);
            }
            Ownership::Conflict(message) => {
                self.state.remember_foreign_claim(&group.key, &name, message);
                return Ok(false);
            }
        }
        self.state.forget_foreign_claim(&group.key, &name);
        Ok(true)
    }

    /// Asks for more storage in a claim. A refusal is kept, to be reported.
    pub(super) async fn expand_claim(&self, name: &str, uid: &str, storage: &str) -> Result<(), Error> {
        let key = &self.snapshot.head.key;
        let patch = json!({"metadata": {"uid": uid}, "spec": {"resources": {"requests": {"storage": storage}}}});
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch));
        match within("patch persistentvolumeclaim", self.claims().patch(name, &parameters, &patch)).await {
            Ok(expanded) => {
                self.state.remember_expansion(key, name, None);
                self.state.learn(&expanded);
                Ok(())
            }
            // The watch tells what became of it.
            Err(error) if error.is_gone() || error.is_conflict() => Ok(()),
            Err(error) if error.is_refusal() => {
                let (storage, message) = (storage.to_owned(), error.explanation());
                let refusal = Refusal { storage, message, since: self.clock.now() };
                self.state.remember_expansion(key, name, Some(refusal));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn delete_claim(&self, name: &str, uid: &str, node: &str) -> Result<(), Error> {
        // Data cannot be had back, and a former leader may look at an old cache: what is true is asked.
        if within("get groupnode", self.nodes().get_opt(node)).await?.is_some() {
            return Ok(());
        }
        let deleted = within("delete persistentvolumeclaim", self.claims().delete(name, &by_uid(uid))).await;
        if let Some(answer) = tolerate_gone(deleted)? {
            let going = |claim: &PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_some();
            answer.left().filter(going).inspect(|claim| self.state.learn(claim));
        }
        Ok(())
    }
}
