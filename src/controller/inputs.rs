//! What templates see of other objects: nodes of roles, Secrets, ConfigMaps.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::warn;

use super::{
    reconcile::{Converger, Looks},
    references,
    state::Inventory,
};
use crate::run::evaluations::Meter;
use pallet_api::GroupSpec;
use pallet_core::{
    group::{FieldError, Group, GroupKey, Host, NodeShape, resolve},
    node,
    plan::{self, Snapshot},
};

/// The field that says where an inventory stands.
const SOURCE: &str = "spec.node.hosts.inventoryFrom.configMapKeyRef";
/// A Secret or ConfigMap that could not be asked for is asked for again after this.
const AFTER_FAILED_READ: std::time::Duration = std::time::Duration::from_secs(3);

impl Converger {
    /// Shows the nodes of this group to those that use their role, and this group those of the roles that it uses. Returns when
    /// to look again for them; nothing at all while other groups are yet to be looked at for the first time.
    pub(super) fn see_roles(
        &self,
        object: &GroupSpec,
        snapshot: &mut Snapshot,
        who: Looks,
    ) -> Option<Option<Timestamp>> {
        let (key, now) = (snapshot.head.key.clone(), snapshot.now);
        // Of a spec that cannot be read nobody takes anything over: the others keep what they saw.
        let shows = who == Looks::Group && (snapshot.group.is_ok() || !self.state.roles().shows(&key));
        let touched = if shows {
            let has = resolve::roles(&object.spec, &self.state.specs(&key.namespace));
            let peers = if has.is_empty() { Vec::new() } else { plan::peers(snapshot) };
            self.state.roles().publish(&key, &has, peers, now)
        } else {
            Vec::new()
        };
        self.state.users(&key.namespace, &touched).iter().for_each(|user| self.sessions.look_at(user));
        snapshot.group.as_mut().map_or(Some(None), |group| self.use_roles(group, now))
    }

    /// Reads the inventory of a group whose nodes are hosts, where it stands elsewhere, and shows the hosts that are nodes. One
    /// that cannot be read takes no host away. Returns when to look again.
    pub(super) async fn see_inventory(&self, snapshot: &mut Snapshot, meter: &Meter, who: Looks) -> Option<Timestamp> {
        let key = snapshot.head.key.clone();
        let mut again = None;
        if let Ok(Group { node: NodeShape::Hosts(shape), .. }) = &mut snapshot.group
            && let Some(source) = &shape.source
        {
            let read = self.references.text(&key.namespace, source).await;
            let (inventory, wake) = match read {
                Ok((text, wake)) => (text.map_err(|message| vec![FieldError { path: SOURCE.into(), message }]), wake),
                Err(error) => {
                    let message = format!("it could not be read: {error}: {}; it is tried again", error.explanation());
                    (Err(vec![FieldError { path: SOURCE.into(), message }]), Some(AFTER_FAILED_READ))
                }
            };
            again = wake.and_then(|wake| jiff::SignedDuration::try_from(wake).ok()).map(|wake| snapshot.now + wake);
            let inventory = match inventory {
                Ok(text) => self.inventory(&key, text, meter).await,
                Err(errors) => Err(errors),
            };
            match inventory {
                Ok(hosts) => shape.take_inventory(&hosts),
                // Nodes that are being removed say goodbye all the same.
                Err(errors) => snapshot.last_good = std::mem::replace(&mut snapshot.group, Err(errors)).ok(),
            }
        }
        // What cannot be read now stands as it was.
        if let Some(Group { node: NodeShape::Hosts(shape), .. }) = &mut snapshot.last_good
            && shape.source.is_some()
        {
            match self.state.known().get(&key).and_then(|known| known.inventory.as_ref()) {
                Some(known) => shape.take_inventory(&known.hosts),
                None => shape.is_read = false,
            }
        }
        if let Some(shape) = snapshot.for_removal().and_then(|group| group.node.hosts()) {
            let via = shape.via();
            for state in self.states.iter() {
                let elsewhere = state.index().occupied_elsewhere(&key.namespace, via.as_deref());
                for (place, occupant) in elsewhere {
                    plan::hosts::seat(&mut snapshot.occupied, place, occupant);
                }
            }
            if who == Looks::Group {
                let mut index = self.state.index();
                index.reach_via(snapshot.nodes.values().map(|node| node.uid.clone()), via.as_deref());
                index.reach(plan::hosts::places(snapshot));
            }
        }
        node::host::show(snapshot);
        again
    }

    /// What an inventory lists. One that stands as it stood is not parsed again: passes are many, and it may be long.
    async fn inventory(&self, key: &GroupKey, text: Arc<str>, meter: &Meter) -> Result<Arc<[Host]>, Vec<FieldError>> {
        let known = self.state.known().get(key).and_then(|known| known.inventory.clone());
        if let Some(known) = known.filter(|known| known.text == text) {
            return Ok(known.hosts);
        }
        let parse = || resolve::inventory(&text, SOURCE);
        let hosts: Arc<[Host]> = self.evaluations.run(&key.namespace, meter, parse).await?.into();
        let read = Inventory { text, hosts: hosts.clone() };
        self.state.known().entry(key.clone()).or_default().inventory = Some(read);
        Ok(hosts)
    }

    /// Shows a group the nodes of the roles that it uses. Returns when to look again; nothing at all while other groups are yet
    /// to be looked at for the first time.
    pub(super) fn use_roles(&self, group: &mut Group, now: Timestamp) -> Option<Option<Timestamp>> {
        if group.phases.roles.is_empty() {
            return Some(None);
        }
        let namespace = &group.key.namespace;
        let here = || {
            let all = self.groups.state();
            all.iter().map(|group| resolve::key(group)).filter(|other| other.namespace == *namespace).collect()
        };
        if !self.state.looked_at_all(namespace, here) {
            return None;
        }
        let (inputs, rest) = self.state.roles().see(namespace, &group.phases.roles, now);
        group.inputs = Arc::new(inputs);
        Some(rest)
    }

    /// Reads the Secrets and ConfigMaps that the group names. Where one is missing, the spec cannot be used. Returns when to
    /// look again.
    pub(super) async fn see_references(&self, snapshot: &mut Snapshot) -> Option<Timestamp> {
        let Ok(group) = &mut snapshot.group else { return None };
        let (missing, again) = self.read_references(group, snapshot.now).await;
        if !missing.is_empty() {
            // Nodes that are being removed say goodbye all the same.
            snapshot.last_good = std::mem::replace(&mut snapshot.group, Err(missing)).ok();
        }
        again
    }

    /// Reads the Secrets and ConfigMaps that a group names. Returns what is not there, and when to look again.
    pub(super) async fn read_references(
        &self,
        group: &mut Group,
        now: Timestamp,
    ) -> (Vec<FieldError>, Option<Timestamp>) {
        if group.phases.secrets.is_empty() && group.phases.config_maps.is_empty() {
            return (Vec::new(), None);
        }
        let found = match self.references.find(group, (*group.inputs).clone()).await {
            Ok(found) => found,
            Err(error) => {
                warn!(group = %group.key, %error, source = error.explanation(), "failed to read referenced Secrets or ConfigMaps");
                let missing = vec![references::unreadable(group, &error)];
                references::Found { inputs: (*group.inputs).clone(), missing, again: Some(AFTER_FAILED_READ) }
            }
        };
        group.inputs = Arc::new(found.inputs);
        let again = found.again.and_then(|again| jiff::SignedDuration::try_from(again).ok());
        (found.missing, again.map(|again| now + again))
    }
}
