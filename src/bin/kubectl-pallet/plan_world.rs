//! What a plan is made from, asked of the API server.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use pallet_operator::{
    api::{GROUP_LABEL, GroupNode, GroupSpec, ServerSpec},
    controller::observe::{self, Beyond, Index},
    group::{
        inputs::{Inputs, Peer},
        resolve::{self, ServerSpecs},
    },
    plan::{self, Snapshot},
    run::Seen,
};

use crate::{connect::Cluster, exit::Result};

/// What there is in the namespace now.
pub struct World {
    /// The groups.
    groups: Vec<GroupSpec>,
    /// The ServerSpecs, by name.
    pub specs: ServerSpecs,
    /// Nodes, pods and claims.
    pub index: Index,
}

impl World {
    /// Asks for it.
    pub async fn look(cluster: &Cluster) -> Result<Self> {
        let (all, marked) = (ListParams::default(), ListParams::default().labels(GROUP_LABEL));
        let groups = cluster.ask("list groupspecs", cluster.api::<GroupSpec>().list(&all)).await?.items;
        let specs = cluster.ask("list serverspecs", cluster.api::<ServerSpec>().list(&all)).await?;
        let named = |spec: ServerSpec| (spec.metadata.name.clone().unwrap_or_default(), Arc::new(spec));
        let mut index = Index::default();
        for node in cluster.ask("list groupnodes", cluster.api::<GroupNode>().list(&all)).await?.items {
            index.upsert(&node);
        }
        for pod in cluster.ask("list pods", cluster.api::<Pod>().list(&marked)).await?.items {
            index.upsert(&pod);
        }
        for claim in cluster.ask("list claims", cluster.api::<PersistentVolumeClaim>().list(&marked)).await?.items {
            index.upsert(&claim);
        }
        Ok(Self { groups, specs: specs.items.into_iter().map(named).collect(), index })
    }

    /// The group as it is declared now.
    pub fn live(&self, name: &str) -> Option<&GroupSpec> {
        self.groups.iter().find(|group| group.metadata.name.as_deref() == Some(name))
    }

    /// Groups that no document is about, but that extend a ServerSpec that would be another one.
    pub fn concerned(&self, next: &ServerSpecs, wanted: &[GroupSpec]) -> Vec<GroupSpec> {
        let changed =
            |name: &&String| next.get(*name).map(|spec| &spec.spec) != self.specs.get(*name).map(|spec| &spec.spec);
        let named = |group: &&GroupSpec| wanted.iter().any(|other| other.metadata.name == group.metadata.name);
        let groups = self.groups.iter().filter(|group| !named(group));
        groups
            .filter(|group| resolve::uses(&group.spec, next).iter().any(|name| changed(&&name.to_string())))
            .cloned()
            .collect()
    }

    /// All that the plan of a group depends on, as it would be declared.
    pub fn snapshot(&self, object: &GroupSpec, specs: &ServerSpecs) -> Snapshot {
        let beyond = Beyond { session_limit: u32::MAX, ..Beyond::default() };
        let group = resolve::resolve(object, specs);
        observe::snapshot(object, group, &self.index, &beyond, |_: &str| Seen::default(), Timestamp::now())
    }

    /// What templates see of the nodes of roles.
    pub fn peers(&self, roles: &[String]) -> minijinja::Value {
        let mut shown: Vec<(Vec<String>, Vec<Peer>)> = Vec::new();
        for group in &self.groups {
            let has = resolve::roles(&group.spec, &self.specs);
            if has.iter().any(|role| roles.contains(role)) {
                let mut snapshot = self.snapshot(group, &self.specs);
                observe::complete(&mut snapshot);
                shown.push((has, plan::peers(&snapshot)));
            }
        }
        let of_role = |role: &String| {
            let groups = shown.iter().filter(|(has, _)| has.contains(role));
            let mut peers: Vec<&Peer> = groups.flat_map(|(_, peers)| peers).collect();
            peers.sort_by(|a, b| (&a.group, a.ordinal).cmp(&(&b.group, b.ordinal)));
            (role.clone(), peers)
        };
        Inputs::nodes(&roles.iter().map(of_role).collect())
    }
}
