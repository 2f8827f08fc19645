//! What the index keeps of each kind, and under which group.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::ControllerRevision,
        core::v1::{PersistentVolumeClaim, Pod as KubePod},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{Index, Indexed, KeptNode, Shelf};
use crate::{
    group::{
        Cascade, GroupKey, resolve,
        revision::{self, Revision},
    },
    node::{
        self,
        kubevirt::{VirtualMachine, VirtualMachineInstance},
        virtual_machine,
    },
    phase::{Digest, PhaseName},
    plan::{Claim, Machine, Node, Record, Reported},
};
use pallet_api::{self as api, GroupNode};

impl Indexed for GroupNode {
    type Kept = KeptNode;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn group(&self) -> Option<GroupKey> {
        Some(GroupKey { namespace: self.metadata.namespace.clone()?, name: self.spec.group.clone() })
    }
    fn keep(&self) -> KeptNode {
        KeptNode { group_uid: self.spec.group_uid.clone(), node: Arc::new(observe_node(self)) }
    }
    fn shelf(index: &mut Index) -> &mut Shelf<KeptNode> {
        &mut index.nodes
    }
}

impl Indexed for KubePod {
    type Kept = Arc<Machine>;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn group(&self) -> Option<GroupKey> {
        // A virtual machine's pod has its labels: it is the machine's, and not the group's.
        let launches = |owner: &OwnerReference| owner.kind == "VirtualMachineInstance";
        if self.metadata.owner_references.iter().flatten().any(launches) {
            return None;
        }
        controlled(&self.metadata)
    }
    fn keep(&self) -> Arc<Machine> {
        Arc::new(node::pod::observe(self))
    }
    fn shelf(index: &mut Index) -> &mut Shelf<Arc<Machine>> {
        &mut index.pods
    }
}

impl Indexed for VirtualMachine {
    type Kept = virtual_machine::Declared;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn group(&self) -> Option<GroupKey> {
        controlled(&self.metadata)
    }
    fn keep(&self) -> Self::Kept {
        virtual_machine::declared(self)
    }
    fn shelf(index: &mut Index) -> &mut Shelf<Self::Kept> {
        &mut index.virtual_machines
    }
}

impl Indexed for VirtualMachineInstance {
    type Kept = virtual_machine::Instance;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn group(&self) -> Option<GroupKey> {
        let labelled = labelled(&self.metadata)?;
        // It has the name of its virtual machine, which is that of the node: labels may be edited.
        let owned = self.metadata.owner_references.iter().flatten().find(|owner| owner.kind == "VirtualMachine");
        let name = owned.and_then(|owner| group_of_node(&owner.name)).map(ToOwned::to_owned);
        Some(GroupKey { name: name.unwrap_or(labelled.name), ..labelled })
    }
    fn keep(&self) -> Self::Kept {
        virtual_machine::instance(self)
    }
    fn shelf(index: &mut Index) -> &mut Shelf<Self::Kept> {
        &mut index.instances
    }
}

impl Indexed for PersistentVolumeClaim {
    type Kept = Arc<Claim>;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn group(&self) -> Option<GroupKey> {
        let labelled = labelled(&self.metadata)?;
        // One that the operator has made also names its node: either label may be edited.
        let made = self.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(api::GROUP_UID_ANNOTATION));
        let name = labelled_node(self).filter(|_| made).and_then(group_of_node).map(ToOwned::to_owned);
        Some(GroupKey { name: name.unwrap_or(labelled.name), ..labelled })
    }
    fn keep(&self) -> Arc<Claim> {
        let metadata = &self.metadata;
        let node = labelled_node(self).map(ToOwned::to_owned).or_else(|| {
            // Without its label it still has the node's name in its own.
            let (name, group) = (metadata.name.as_deref()?, labelled(metadata)?.name);
            let (before, ordinal) = name.rsplit_once('-')?;
            let is_of_group = before.ends_with(&format!("-{group}")) && ordinal.parse::<u32>().is_ok();
            is_of_group.then(|| format!("{group}-{ordinal}"))
        });
        Arc::new(Claim {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            group: metadata.annotations.as_ref().and_then(|a| a.get(api::GROUP_UID_ANNOTATION)).cloned(),
            node: node.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            spec: self.spec.as_ref().and_then(|spec| serde_json::to_value(spec).ok()).unwrap_or_default(),
            is_shared: false,
            conflict: None,
        })
    }
    fn shelf(index: &mut Index) -> &mut Shelf<Arc<Claim>> {
        &mut index.claims
    }
}

impl Indexed for ControllerRevision {
    type Kept = Arc<Revision>;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn group(&self) -> Option<GroupKey> {
        controlled(&self.metadata)
    }
    fn keep(&self) -> Arc<Revision> {
        let metadata = &self.metadata;
        let annotation = |name: &str| resolve::annotation(metadata.annotations.as_ref(), name);
        let data = self.data.as_ref().map(|data| data.0.clone()).unwrap_or_default();
        let controller = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        Arc::new(Revision {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            controller: controller.map(|owner| owner.uid.clone()).filter(|_| metadata.deletion_timestamp.is_none()),
            number: self.revision,
            digest: Digest::stored(&annotation(api::DECLARATION_ANNOTATION)),
            template_hash: annotation(api::TEMPLATE_HASH_ANNOTATION),
            shape: revision::shape(&data),
            data: Arc::new(data),
        })
    }
    fn shelf(index: &mut Index) -> &mut Shelf<Arc<Revision>> {
        &mut index.revisions
    }
}

/// The group that controls an object, or else the one that its label names. Labels may be edited; an object without one is
/// not watched, and so belongs to no group here.
fn controlled(metadata: &ObjectMeta) -> Option<GroupKey> {
    let labelled = labelled(metadata)?;
    let is_ours = |owner: &&OwnerReference| {
        let (group, _) = owner.api_version.split_once('/').unwrap_or_default();
        owner.controller == Some(true) && owner.kind == "GroupSpec" && group == api::API_GROUP
    };
    let controller = metadata.owner_references.iter().flatten().find(is_ours);
    Some(GroupKey { name: controller.map_or(labelled.name, |owner| owner.name.clone()), ..labelled })
}

/// The node that a claim's label names, where its own name does so, too.
fn labelled_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    let node = claim.metadata.labels.as_ref()?.get(api::NODE_LABEL)?;
    let before = claim.metadata.name.as_deref()?.strip_suffix(node.as_str())?;
    before.ends_with('-').then_some(node)
}

/// The group whose node has this name.
fn group_of_node(node: &str) -> Option<&str> {
    let (group, ordinal) = node.rsplit_once('-')?;
    ordinal.parse::<u32>().is_ok().then_some(group)
}

/// The group that an object's label names.
fn labelled(metadata: &ObjectMeta) -> Option<GroupKey> {
    let name = metadata.labels.as_ref()?.get(api::GROUP_LABEL)?.clone();
    Some(GroupKey { namespace: metadata.namespace.clone()?, name })
}

fn observe_node(object: &GroupNode) -> Node {
    let metadata = &object.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let cascade = if has(api::ORPHAN_FINALIZER) { Cascade::Orphan } else { Cascade::Nodes };
    let annotations = metadata.annotations.as_ref();
    let status = object.status.clone().unwrap_or_default();
    Node {
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        template_hash: status.template_hash.clone().unwrap_or_default(),
        ordinal: object.spec.ordinal,
        host: object.spec.host.clone(),
        deletion: metadata.deletion_timestamp.as_ref().map(|_| cascade),
        deleted_at: metadata.deletion_timestamp.as_ref().map(|time| time.0),
        finalized: has(api::FINALIZER),
        held_by: finalizers.iter().filter(|finalizer| *finalizer != api::FINALIZER).cloned().collect(),
        labelled: metadata.labels.as_ref().and_then(|labels| labels.get(api::GROUP_LABEL)) == Some(&object.spec.group),
        marked: annotations.is_some_and(|a| a.contains_key(api::DELETE_NODE_ANNOTATION)),
        taken_over_from: object.spec.taken_over_from.clone(),
        retry_token: resolve::bounded(&resolve::annotation(annotations, api::RETRY_ANNOTATION), resolve::TOKEN_LIMIT),
        ack: resolve::annotation(annotations, api::ACK_ANNOTATION),
        created: metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
        record: Record {
            incarnation: status.incarnation,
            facts: status.facts,
            phase_results: status
                .phase_results
                .into_iter()
                .map(|phase_result| (PhaseName::new(&phase_result.phase), phase_result))
                .collect(),
            drift: status.drift,
            lifts: status.lifts,
        },
        version: metadata.resource_version.clone().unwrap_or_default(),
        saved: None,
        reported: Reported {
            machine_ref: status.machine_ref,
            template_hash: status.template_hash,
            address: status.address,
            running: status.running,
            conditions: status.conditions,
        },
    }
}
