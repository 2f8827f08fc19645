//! The secrets of a session, with what removes them from the output of the node.

use std::{collections::BTreeMap, sync::Arc};

use super::mask::Mask;
use crate::{
    group::Group,
    phase::{Digest, action::KeyRef, secret::Secrets},
};

/// The secrets that a session knows.
#[derive(Clone, Debug, Default)]
pub struct KnownSecrets {
    /// Their values.
    pub values: Secrets,
    /// Keyed hashes over them.
    pub seals: BTreeMap<KeyRef, String>,
    /// What removes them, and whatever else must not be seen, from what the node prints; without it, it is made of the values.
    pub mask: Option<Mask>,
}

impl KnownSecrets {
    /// Over all of them: a run that was given others has another one.
    pub fn seal(&self) -> String {
        let seals: BTreeMap<String, &String> =
            self.seals.iter().map(|(place, seal)| (place.to_string(), seal)).collect();
        Digest::of("secrets", &serde_json::json!(seals)).to_string()
    }

    /// What removes them from what the node prints. Where they are too many for that, it shows nothing.
    pub fn mask(&self) -> Mask {
        let new = || Mask::new(self.values.values()).unwrap_or_else(|_| Mask::everything());
        self.mask.clone().unwrap_or_else(new)
    }

    /// The group as a session sees it: with the seals of what it knows, which may be newer than what the group was read with.
    pub fn seen_by(&self, group: &Arc<Group>) -> Arc<Group> {
        let others =
            |place: &&KeyRef| self.seals.get(*place).is_some_and(|seal| group.inputs.seals.get(*place) != Some(seal));
        let newer: Vec<&KeyRef> = group.phases.secrets.keys().filter(others).collect();
        if newer.is_empty() {
            return group.clone();
        }
        let mut inputs = (*group.inputs).clone();
        for place in newer {
            inputs.seals.extend(self.seals.get(place).map(|seal| (place.clone(), seal.clone())));
        }
        let inputs = Arc::new(inputs);
        Arc::new(Group { inputs, ..(**group).clone() })
    }
}
