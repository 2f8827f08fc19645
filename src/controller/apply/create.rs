//! IO: what is created: GroupNodes, their claims and their pods, after the API server was asked about the template.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as KubePod};
use kube::{Api, api::PostParams};
use serde_json::Value;

use super::{Applier, Error, within};
use crate::{
    api::{self, GroupNode, GroupNodeFields},
    group::Group,
    node,
    plan::TemplateVerdict,
};

impl Applier<'_> {
    /// Asks the API server, once for each template, whether it would take the pod.
    pub(super) async fn check_template(&self) -> Result<(), Error> {
        let group = self.group()?;
        let first = group.key.node_name(0);
        let mut pod = node::pod::build(group, &first, None);
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.remove("name");
            metadata.insert("generateName".into(), format!("{}-", group.key.name).into());
        }
        let body = serde_json::to_vec(&pod).map_err(|_| Error::Unplanned("a template that is no JSON"))?;
        // Typed parameters know no fieldValidation on create; Strict is what tells a misspelt field.
        let path = format!("/api/v1/namespaces/{}/pods?dryRun=All&fieldValidation=Strict", self.namespace());
        let request = post(&path, body)?;
        let verdict = match within("dry-run create pod", self.client.request::<Value>(request)).await {
            Ok(_) => self.check_claims(group, &first).await?,
            Err(error) => error.verdict().ok_or(error)?,
        };
        self.state.remember_template(&group.key, &group.pod.checked_as, verdict);
        Ok(())
    }

    async fn check_claims(&self, group: &Group, node: &str) -> Result<TemplateVerdict, Error> {
        let path =
            format!("/api/v1/namespaces/{}/persistentvolumeclaims?dryRun=All&fieldValidation=Strict", self.namespace());
        for claim in &group.pod.claims {
            let body = node::pod::build_claim(group, claim, node);
            let body = serde_json::to_vec(&body).map_err(|_| Error::Unplanned("a claim that is no JSON"))?;
            let answer =
                within("dry-run create persistentvolumeclaim", self.client.request::<Value>(post(&path, body)?));
            match answer.await {
                Ok(_) => {}
                // Its name is taken, by a node's or by somebody's: either is used as it is.
                Err(error) if error.is_conflict() => {}
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

    /// Creates the claims of a node that are not known to be there. One that somebody made before is used as it is.
    pub(super) async fn create_claims(&self, ordinal: u32) -> Result<(), Error> {
        let group = self.group()?;
        self.post_claims(group, &group.key.node_name(ordinal)).await
    }

    async fn post_claims(&self, group: &Group, node: &str) -> Result<(), Error> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), self.namespace());
        for claim in &group.pod.claims {
            let name = claim.claim_name(node);
            if self.snapshot.claims.contains_key(&name) {
                continue;
            }
            let object = serde_json::from_value(node::pod::build_claim(group, claim, node))
                .map_err(|_| Error::Unplanned("a claim that the API server took and that is none"))?;
            match within("create persistentvolumeclaim", claims.create(&PostParams::default(), &object)).await {
                Ok(created) => self.state.learn(&created),
                Err(error) if error.is_conflict() => {
                    let Some(found) = within("get persistentvolumeclaim", claims.get_opt(&name)).await? else {
                        continue;
                    };
                    let label = found.metadata.labels.as_ref().and_then(|labels| labels.get(api::GROUP_LABEL));
                    if label == Some(&group.key.name) {
                        self.state.learn(&found);
                    } else {
                        self.state.remember_foreign_claim(&group.key, &name);
                    }
                }
                Err(error) => {
                    if let Some(verdict) = error.verdict() {
                        self.state.remember_template(&group.key, &group.pod.checked_as, verdict);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn create_node(&self, ordinal: u32) -> Result<(), Error> {
        let group = self.group()?;
        let name = group.key.node_name(ordinal);
        let fields = GroupNodeFields { group: group.key.name.clone(), group_uid: group.uid.clone(), ordinal };
        let mut object = GroupNode::new(&name, fields);
        object.metadata.namespace = Some(group.key.namespace.clone());
        object.metadata.finalizers = Some(vec![api::FINALIZER.to_owned()]);
        object.metadata.labels = Some([(api::GROUP_LABEL.to_owned(), group.key.name.clone())].into());
        let created = within("create groupnode", self.nodes().create(&PostParams::default(), &object)).await;
        // A refusal is clear; a time-out or a fault of the server leaves open whether the object is there.
        let unclear = created.as_ref().is_err_and(|error| !error.is_refusal());
        self.state.remember_uncertain(&group.key, ordinal, unclear);
        match created {
            Ok(created) => {
                self.state.learn(&created);
                // The pod follows at once: a further pass for it would only cost time.
                let uid = created.metadata.uid.clone().unwrap_or_default();
                self.post_pod(group, &name, &uid).await
            }
            Err(error) if error.is_conflict() => {
                let Some(found) = within("get groupnode", self.nodes().get_opt(&name)).await? else { return Ok(()) };
                if found.spec.group_uid == group.uid {
                    self.state.learn(&found);
                } else {
                    let whose = format!("GroupNode {name} of group {}", found.spec.group);
                    self.state.remember_foreign_node(&group.key, ordinal, whose);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create_pod(&self, ordinal: u32) -> Result<(), Error> {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return Ok(()) };
        self.post_pod(self.group()?, &node.name, &node.uid).await
    }

    async fn post_pod(&self, group: &Group, name: &str, node_uid: &str) -> Result<(), Error> {
        self.post_claims(group, name).await?;
        let pod: KubePod = serde_json::from_value(node::pod::build(group, name, Some(node_uid)))
            .map_err(|_| Error::Unplanned("a template that the API server took and that is no pod"))?;
        match within("create pod", self.pods().create(&PostParams::default(), &pod)).await {
            Ok(created) => {
                self.state.learn(&created);
                self.state.forget_foreign_pod(&group.key, name);
                Ok(())
            }
            Err(error) if error.is_conflict() => {
                let Some(found) = within("get pod", self.pods().get_opt(name)).await? else { return Ok(()) };
                let owners = found.metadata.owner_references.as_deref().unwrap_or_default();
                if owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == group.uid) {
                    self.state.learn(&found);
                } else {
                    self.state.remember_foreign_pod(&group.key, name);
                }
                Ok(())
            }
            Err(error) => {
                // What passed the dry run may be refused all the same later: a quota that is used up.
                if let Some(verdict) = error.verdict() {
                    self.state.remember_template(&group.key, &group.pod.checked_as, verdict);
                }
                Err(error)
            }
        }
    }
}

fn post(path: &str, body: Vec<u8>) -> Result<http::Request<Vec<u8>>, Error> {
    http::Request::post(path)
        .header("content-type", "application/json")
        .body(body)
        .map_err(|_| Error::Unplanned("a namespace that is no path"))
}
