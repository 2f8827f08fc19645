//! Revisions: the declaration that was valid last, and the templates that nodes are on.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::ObjectReference},
    apimachinery::pkg::{apis::meta::v1::OwnerReference, runtime::RawExtension},
};
use kube::{
    Api, Resource,
    api::{ObjectMeta, PostParams},
    runtime::events::EventType,
};
use tracing::{info, warn};

use super::{
    Converger, Error,
    apply::{by_uid, tolerate_gone, within},
    report::tell,
};
use crate::run::evaluations::Meter;
use pallet_api::reason::Reason;
use pallet_api::{self as api, GroupSpec};
use pallet_core::{
    group::{
        Group, GroupKey, NodeShape,
        resolve::{self, Resolved},
        revision::{self, Revision},
    },
    observe,
    plan::{self, Heal, Snapshot},
};

impl Converger {
    /// Where what is declared now cannot be used, shows the declaration that was valid last, with all that its templates see.
    /// Returns when to look again; nothing at all while other groups are yet to be looked at for the first time.
    pub(super) async fn see_revisions(
        &self,
        object: &GroupSpec,
        snapshot: &mut Snapshot,
        meter: &Meter,
    ) -> Option<Option<Timestamp>> {
        if snapshot.head.deletion.is_some() {
            return Some(None);
        }
        if let Ok(group) = &snapshot.group {
            self.remember_inputs(group);
            return Some(None);
        }
        if let Some(newest) = snapshot.revisions.last().cloned()
            && let Ok(good) = self.restored(object, &newest, meter).await
        {
            snapshot.last_good = Some((*good).clone());
        }
        let Some(mut good) = snapshot.last_good.take() else { return Some(None) };
        (good.count, good.paused) = (snapshot.head.count, object.spec.paused);
        let mut heal = Heal::Fully;
        if let NodeShape::Hosts(shape) = &mut good.node
            && shape.source.is_some()
        {
            let known = self.state.known().get(&good.key).and_then(|known| known.inventory.clone());
            match known {
                Some(known) => shape.take_inventory(&known.hosts),
                None => (shape.is_read, heal) = (false, Heal::No),
            }
        }
        let again = self.use_roles(&mut good, snapshot.now)?;
        let (missing, later) = self.read_references(&mut good, snapshot.now).await;
        if !missing.is_empty() && !self.recall_inputs(&mut good) && heal == Heal::Fully {
            heal = Heal::Machines;
        }
        snapshot.heal = heal;
        snapshot.last_good = Some(good);
        observe::recognise(snapshot);
        Some(plan::earliest(again, later))
    }

    /// The group as a revision declares it. It is parsed once.
    async fn restored(&self, object: &GroupSpec, revision: &Revision, meter: &Meter) -> Resolved {
        let key = resolve::key(object);
        let known = self.state.known().get(&key).and_then(|known| known.restored.clone());
        if let Some((_, resolved)) = known.filter(|(uid, _)| *uid == revision.uid) {
            return resolved;
        }
        let parse = || match revision::restore(object, &revision.data) {
            Some((object, specs)) => resolve::resolve(&object, &specs).map(Arc::new),
            None => Err(Vec::new()),
        };
        let resolved = self.evaluations.run(&key.namespace, meter, parse).await;
        self.state.known().entry(key).or_default().restored = Some((revision.uid.clone(), resolved.clone()));
        resolved
    }

    /// Keeps what a group has read of Secrets and ConfigMaps: fingerprints and texts, and no values of Secrets.
    fn remember_inputs(&self, group: &Group) {
        if group.phases.secrets.is_empty() && group.phases.config_maps.is_empty() {
            return;
        }
        self.state.known().entry(group.key.clone()).or_default().inputs = Some(group.inputs.clone());
    }

    /// Fills in what was read before of what is not there any more. Says whether all is known.
    fn recall_inputs(&self, group: &mut Group) -> bool {
        let known = self.state.known().get(&group.key).and_then(|known| known.inputs.clone());
        let mut inputs = (*group.inputs).clone();
        if let Some(known) = known {
            for at in group
                .phases
                .config_maps
                .keys()
                .filter(|at| !inputs.texts.contains_key(*at))
                .cloned()
                .collect::<Vec<_>>()
            {
                let text = known.texts.get(&at).cloned();
                inputs.texts.extend(text.map(|text| (at, text)));
            }
            for at in
                group.phases.secrets.keys().filter(|at| !inputs.seals.contains_key(*at)).cloned().collect::<Vec<_>>()
            {
                let seal = known.seals.get(&at).cloned();
                inputs.seals.extend(seal.map(|seal| (at, seal)));
            }
        }
        let is_complete = group.phases.config_maps.keys().all(|at| inputs.texts.contains_key(at))
            && group.phases.secrets.keys().all(|at| inputs.seals.contains_key(at));
        group.inputs = Arc::new(inputs);
        is_complete
    }

    /// Keeps a revision of what is declared now, where it is valid and none is kept yet, and deletes those that no node is on.
    pub(super) async fn keep_revisions(&self, object: &GroupSpec, snapshot: &Snapshot) -> Result<(), Error> {
        let due = plan::revisions::due(snapshot);
        if let (Some(number), Ok(group)) = (due.keep, &snapshot.group) {
            self.keep_revision(object, group, number).await?;
        }
        let revisions: Api<ControllerRevision> = Api::namespaced(self.client.clone(), &snapshot.head.key.namespace);
        for (name, uid) in due.drop {
            info!(group = %snapshot.head.key, revision = name, "deleting a revision that no node uses");
            tolerate_gone(within("delete controllerrevision", revisions.delete(&name, &by_uid(&uid))).await)?;
        }
        Ok(())
    }

    async fn keep_revision(&self, object: &GroupSpec, group: &Group, number: i64) -> Result<(), Error> {
        let GroupKey { namespace, name } = &group.key;
        let declaration = revision::declaration(object, &self.state.specs(namespace));
        if revision::digest(&declaration, group.node.hash()) != group.declared {
            // A ServerSpec has changed meanwhile: the next reconcile sees it.
            return Ok(());
        }
        let size = declaration.to_string().len();
        let refusal = if size > revision::LONGEST {
            format!("it has {size} bytes with its ServerSpecs, and at most {} are kept", revision::LONGEST)
        } else {
            let revision = ControllerRevision {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{name}-")),
                    namespace: Some(namespace.clone()),
                    labels: Some([(api::GROUP_LABEL.to_owned(), name.clone())].into()),
                    annotations: Some(
                        [
                            (api::DECLARATION_ANNOTATION.to_owned(), group.declared.to_string()),
                            (api::TEMPLATE_HASH_ANNOTATION.to_owned(), group.node.hash().to_owned()),
                        ]
                        .into(),
                    ),
                    owner_references: Some(vec![OwnerReference {
                        api_version: format!("{}/v1alpha1", api::API_GROUP),
                        kind: "GroupSpec".into(),
                        name: name.clone(),
                        uid: group.uid.clone(),
                        controller: Some(true),
                        block_owner_deletion: None,
                    }]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(declaration)),
                revision: number,
            };
            let revisions: Api<ControllerRevision> = Api::namespaced(self.client.clone(), namespace);
            match within("create controllerrevision", revisions.create(&PostParams::default(), &revision)).await {
                Ok(created) => {
                    self.state.learn(&created);
                    return Ok(());
                }
                Err(error) if error.is_refusal() => error.explanation(),
                Err(error) => return Err(error),
            }
        };
        warn!(group = %group.key, reason = refusal, "failed to store a revision of the declaration");
        self.state.remember_unkept(&group.key, &group.declared);
        let about: ObjectReference = object.object_ref(&());
        let note = format!(
            "no revision of what is declared could be kept, so that nodes that are lost after a later edit may not come back \
             as they were: {refusal}"
        );
        tell(&self.recorder, &about, EventType::Warning, Reason::RevisionNotKept.as_str(), "Keep", note).await;
        Ok(())
    }
}
