//! What a plan is made from, asked of the API server.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use pallet_api::{GROUP_LABEL, GroupNode, GroupSpec, ServerSpec, actions::KeyFields};
use pallet_core::{
    group::{
        FieldError, Group, NodeShape,
        inputs::{Inputs, Peer},
        resolve::{self, ServerSpecs},
    },
    node::{
        host,
        kubevirt::{VirtualMachine, VirtualMachineInstance},
    },
    observe::{self, Beyond, Index},
    phase::action::KeyRef,
    plan::{self, Snapshot},
    session::memory::Seen,
};

use serde_json::Value;

use crate::{connect::Cluster, exit::Result};

/// What there is in the namespace now.
pub struct World {
    /// The groups.
    groups: Vec<GroupSpec>,
    /// The ServerSpecs, by name.
    pub specs: ServerSpecs,
    /// Nodes, what backs them, and claims.
    pub index: Index,
    /// Inventories that stand in ConfigMaps.
    inventories: BTreeMap<KeyRef, String>,
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
        // Where KubeVirt is not installed there are none, and it may not be this user's to see them.
        let machines = cluster.ask("list virtual machines", cluster.api::<VirtualMachine>().list(&marked)).await;
        machines.into_iter().flat_map(|list| list.items).for_each(|machine| drop(index.upsert(&machine)));
        let instances = cluster.api::<VirtualMachineInstance>();
        let instances = cluster.ask("list virtual machine instances", instances.list(&marked)).await;
        instances.into_iter().flat_map(|list| list.items).for_each(|instance| drop(index.upsert(&instance)));
        let specs = specs.items.into_iter().map(named).collect();
        let mut world = Self { groups, specs, index, inventories: BTreeMap::new() };
        for group in world.groups.clone() {
            world.read_inventory(cluster, &group, &BTreeMap::new()).await?;
        }
        Ok(world)
    }

    /// Reads the inventory of a group's hosts, where it stands in a ConfigMap: one of those given, or one that is there.
    pub async fn read_inventory(
        &mut self,
        cluster: &Cluster,
        group: &GroupSpec,
        given: &BTreeMap<String, Value>,
    ) -> Result<()> {
        let from = group.spec.node.hosts.as_ref().and_then(|hosts| hosts.inventory_from.as_ref());
        let Some(KeyFields { name, key }) = from.map(|from| &from.config_map_key_ref) else { return Ok(()) };
        let at = KeyRef { name: name.clone(), key: key.clone() };
        let text = match given.get(name) {
            Some(data) => data[key].as_str().map(str::to_owned),
            None if self.inventories.contains_key(&at) => return Ok(()),
            None => {
                let found =
                    cluster.ask(format!("get configmap/{name}"), cluster.api::<ConfigMap>().get_opt(name)).await?;
                found.and_then(|map| map.data?.remove(key))
            }
        };
        self.inventories.extend(text.map(|text| (at, text)));
        Ok(())
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
        let group = resolve::resolve(object, specs).and_then(|group| self.with_inventory(group));
        let seen = |_: &str| Seen::default();
        let mut snapshot = observe::snapshot(object, group, &self.index, &beyond, seen, Timestamp::now());
        host::show(&mut snapshot);
        snapshot
    }

    fn with_inventory(&self, mut group: Group) -> std::result::Result<Group, Vec<FieldError>> {
        if let NodeShape::Hosts(shape) = &mut group.node
            && let Some(source) = &shape.source
        {
            let path = "spec.node.hosts.inventoryFrom.configMapKeyRef".to_owned();
            let text = self.inventories.get(source);
            let text = text.ok_or_else(|| {
                vec![FieldError { path: path.clone(), message: format!("there is no ConfigMap {source}") }]
            })?;
            shape.take_inventory(&resolve::inventory(text, &path)?);
        }
        Ok(group)
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
