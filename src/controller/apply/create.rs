//! IO: what is created: GroupNodes, what backs them, and their claims, after the API server was asked about the template.

use kube::{Api, Resource, api::PostParams};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Applier, Error, within};
use pallet_api::reason::Reason;
use pallet_api::{self as api, GroupNode, GroupNodeFields, group_node::NodeHost};
use pallet_core::{
    group::{Group, Kind, NodeShape, hosts::place},
    node,
    observe::Indexed,
    plan::{self, Subject, TemplateVerdict},
};

/// The reason of a refusal to create something.
const FAILED: Reason = Reason::FailedCreate;

/// What came of a creation.
pub(super) enum Made<K> {
    /// It is there.
    New(K),
    /// An object of its name was there already.
    Found(K),
    /// One was there, and is gone.
    Gone,
}

impl Applier<'_> {
    /// Asks the API server, once for each template, whether it would take what is made from it.
    pub(super) async fn check_template(&self) -> Result<(), Error> {
        let group = self.group()?;
        let first = group.key.node_name(0);
        let (mut made, path) = match &group.node {
            NodeShape::Pod(shape) => (node::pod::build(group, shape, &first, None), "/api/v1/namespaces/"),
            NodeShape::VirtualMachine(shape) => {
                (node::virtual_machine::build(group, shape, &first, None), "/apis/kubevirt.io/v1/namespaces/")
            }
            NodeShape::Hosts(_) => return Ok(()),
        };
        if let Some(metadata) = made["metadata"].as_object_mut() {
            metadata.remove("name");
            metadata.insert("generateName".into(), format!("{}-", group.key.name).into());
        }
        let body = serde_json::to_vec(&made).map_err(|_| Error::Unplanned("a template that is no JSON"))?;
        let resource = if group.node.kind() == Kind::Pod { "pods" } else { "virtualmachines" };
        // Typed parameters know no fieldValidation on create; Strict is what tells a misspelt field.
        let path = format!("{path}{}/{resource}?dryRun=All&fieldValidation=Strict", self.namespace());
        let verdict = match within("dry-run create", self.client.request::<Value>(request(&path, body)?)).await {
            Ok(_) => match &group.node {
                NodeShape::VirtualMachine(shape) => self.check_secrets(group, shape).await?,
                _ => self.check_claims(group, &first).await?,
            },
            Err(error) => error.verdict().ok_or(error)?,
        };
        self.remember_verdict(group, verdict);
        Ok(())
    }

    /// Keeps what the API server thinks of the present template. What it thinks of a former one says nothing of that.
    pub(super) fn remember_verdict(&self, group: &Group, verdict: TemplateVerdict) {
        let present = self.snapshot.in_force().map(|group| group.node.checked_as());
        if present == Some(group.node.checked_as()) {
            self.state.remember_template(&group.key, group.node.checked_as(), verdict);
        }
    }

    /// Creates an object, or finds the one that has its name.
    ///
    /// Quotas and webhooks are asked before the names are: what was refused by them may be there all the same.
    pub(super) async fn make<K>(
        &self,
        (create, get): (&'static str, &'static str),
        creation: impl Future<Output = kube::Result<K>>,
        api: &Api<K>,
        name: &str,
    ) -> Result<Made<K>, Error>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        match within(create, creation).await {
            Ok(created) => Ok(Made::New(created)),
            Err(error) if error.may_exist() => match within(get, api.get_opt(name)).await {
                Ok(Some(found)) => Ok(Made::Found(found)),
                Ok(None) if error.is_conflict() => Ok(Made::Gone),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Makes a host a node, unless another group has just done so.
    pub(super) async fn take_host(&self, ordinal: u32, host: &NodeHost) -> Result<(), Error> {
        let group = self.group()?;
        let place = place(&host.address, host.port);
        let Some(_reserved) = self.state.reserve_host(self.namespace(), &group.uid, place) else { return Ok(()) };
        self.create_node(ordinal, Some(host), None).await
    }

    /// What passed the dry run may be refused later by a quota of pods that is used up. That is so for all nodes.
    fn see_quota(&self, group: &Group, error: &Error) {
        if let Some(verdict @ TemplateVerdict::Refused { reason: plan::QUOTA, .. }) = error.verdict() {
            self.remember_verdict(group, verdict);
        }
    }

    /// Creates a GroupNode and what backs it, from another template than the present one where one is given.
    pub(super) async fn create_node(
        &self,
        ordinal: u32,
        host: Option<&NodeHost>,
        template: Option<&NodeShape>,
    ) -> Result<(), Error> {
        let group = self.group()?;
        let name = group.key.node_name(ordinal);
        let (of, group_uid, host) = (group.key.name.clone(), group.uid.clone(), host.cloned());
        let fields = GroupNodeFields { group: of, group_uid, taken_over_from: None, ordinal, host };
        let mut object = GroupNode::new(&name, fields);
        object.metadata.namespace = Some(group.key.namespace.clone());
        object.metadata.finalizers = Some(vec![api::FINALIZER.to_owned()]);
        object.metadata.labels = Some([(api::GROUP_LABEL.to_owned(), group.key.name.clone())].into());
        let (nodes, parameters) = (self.nodes(), PostParams::default());
        let create = nodes.create(&parameters, &object);
        let created = self.make(("create groupnode", "get groupnode"), create, &nodes, &name).await;
        // A refusal is clear; a time-out or a fault of the server leaves open whether the object is there.
        let unclear = created.as_ref().is_err_and(|error| !error.is_refusal());
        self.state.remember_uncertain(&group.key, ordinal, unclear);
        match created {
            Ok(Made::New(created)) => {
                self.state.learn(&created);
                // What backs it follows at once: a further pass for it would only cost time.
                let uid = created.metadata.uid.clone().unwrap_or_default();
                let machine = Box::pin(self.post_machine(group, template, &name, &uid));
                let made = self.noted(Subject::Machine(ordinal), FAILED, machine).await;
                // The GroupNode is there; a refusal of what backs it is another matter, and is kept as such.
                if made.as_ref().is_err_and(|error| error.refusal(FAILED).is_some()) { Ok(()) } else { made }
            }
            Ok(Made::Gone) => Ok(()),
            Ok(Made::Found(found)) => {
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

    /// Creates what backs a node, from another template than the present one where one is given.
    pub(super) async fn create_machine(&self, ordinal: u32, template: Option<&NodeShape>) -> Result<(), Error> {
        let Some(node) = self.snapshot.nodes.get(&ordinal) else { return Ok(()) };
        self.post_machine(self.group()?, template, &node.name, &node.uid).await
    }

    async fn post_machine(
        &self,
        group: &Group,
        template: Option<&NodeShape>,
        name: &str,
        node_uid: &str,
    ) -> Result<(), Error> {
        let other = template.map(|shape| Group { node: shape.clone(), ..group.clone() });
        let group = other.as_ref().unwrap_or(group);
        match &group.node {
            NodeShape::Pod(shape) => {
                if !self.post_claims(group, name, None).await? {
                    return Ok(());
                }
                let pod = node::pod::build(group, shape, name, Some(node_uid));
                self.post(group, name, &self.pods(), pod).await
            }
            NodeShape::VirtualMachine(shape) => {
                self.post_secrets(group, shape, name, node_uid).await?;
                let machine = node::virtual_machine::build(group, shape, name, Some(node_uid));
                self.post(group, name, &self.virtual_machines(), machine).await
            }
            NodeShape::Hosts(_) => Ok(()),
        }
    }

    /// Creates an object from the JSON that was declared: fields that the operator's own types lack reach the API server.
    pub(super) async fn create_as_declared<K>(&self, object: &Value) -> kube::Result<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let path = K::url_path(&(), Some(self.namespace()));
        let request = kube::core::Request::new(path).create(&PostParams::default(), body);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        // As `Api::create` names it to whoever traces requests.
        request.extensions_mut().insert("create");
        self.client.request(request).await
    }

    /// Creates what backs a node, or finds out who has its name.
    async fn post<K>(&self, group: &Group, name: &str, api: &Api<K>, made: Value) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Indexed + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let words = match group.node.kind() {
            Kind::VirtualMachine => ("create virtualmachine", "get virtualmachine"),
            Kind::Pod | Kind::Host => ("create pod", "get pod"),
        };
        match self.make(words, self.create_as_declared::<K>(&made), api, name).await {
            Ok(Made::New(created)) => {
                self.state.learn(&created);
                self.state.forget_foreign_machine(&group.key, name);
                Ok(())
            }
            Ok(Made::Gone) => Ok(()),
            Ok(Made::Found(found)) => {
                let owners = found.meta().owner_references.as_deref().unwrap_or_default();
                let is_ours = owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == group.uid);
                // One that has lost its label is not watched: nobody would tell when it goes.
                if is_ours && found.group().as_ref() == Some(&group.key) {
                    self.state.learn(&found);
                } else {
                    self.state.remember_foreign_machine(&group.key, name);
                }
                Ok(())
            }
            Err(error) => {
                self.see_quota(group, &error);
                Err(error)
            }
        }
    }
}

pub(super) fn request(path: &str, body: Vec<u8>) -> Result<http::Request<Vec<u8>>, Error> {
    http::Request::post(path)
        .header("content-type", "application/json")
        .body(body)
        .map_err(|_| Error::Unplanned("a namespace that is no path"))
}
