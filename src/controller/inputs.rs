//! What templates see of other objects: nodes of roles, Secrets, ConfigMaps.

use std::sync::Arc;

use jiff::Timestamp;
use tracing::warn;

use super::{Converger, references};
use crate::{
    api::GroupSpec,
    group::{FieldError, Group, resolve},
    plan::{self, Snapshot},
};

/// A Secret or ConfigMap that could not be asked for is asked for again after this.
const AFTER_FAILED_READ: std::time::Duration = std::time::Duration::from_secs(3);

impl Converger {
    /// Shows the nodes of this group to those that use their role, and this group those of the roles that it uses. Returns when
    /// to look again for them; nothing at all while other groups are yet to be looked at for the first time.
    pub(super) fn see_roles(&self, object: &GroupSpec, snapshot: &mut Snapshot) -> Option<Option<Timestamp>> {
        let (key, now) = (snapshot.head.key.clone(), snapshot.now);
        // Of a spec that cannot be read nobody takes anything over: the others keep what they saw.
        let touched = if snapshot.group.is_ok() || !self.state.roles().shows(&key) {
            let has = resolve::roles(&object.spec, &self.state.specs(&key.namespace));
            let peers = if has.is_empty() { Vec::new() } else { plan::peers(snapshot) };
            self.state.roles().publish(&key, &has, peers, now)
        } else {
            Vec::new()
        };
        self.state.users(&key.namespace, &touched).iter().for_each(|user| self.runs.look_at(user));
        snapshot.group.as_mut().map_or(Some(None), |group| self.use_roles(group, now))
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
                warn!(group = %group.key, %error, source = error.explanation(), "what the group names could not be read");
                let missing = vec![references::unreadable(group, &error)];
                references::Found { inputs: (*group.inputs).clone(), missing, again: Some(AFTER_FAILED_READ) }
            }
        };
        group.inputs = Arc::new(found.inputs);
        let again = found.again.and_then(|again| jiff::SignedDuration::try_from(again).ok());
        (found.missing, again.map(|again| now + again))
    }
}
