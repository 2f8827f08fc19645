//! Where sessions have the secrets from that their phases need.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::BoxFuture;

use super::mask::Mask;
use crate::{
    group::Group,
    phase::{Digest, action::KeyRef, secret::Secrets},
};

/// Reads secrets. They are asked for by every session anew, and kept by none beyond its end.
pub trait Vault: Send + Sync {
    /// The secrets at these places of a namespace, with their seals.
    ///
    /// # Errors
    /// For people: which one cannot be had, and why.
    fn read<'a>(&'a self, namespace: &'a str, places: Vec<KeyRef>) -> BoxFuture<'a, Result<Known, String>>;
}

/// The secrets that a session knows.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Their values.
    pub values: Secrets,
    /// Keyed hashes over them.
    pub seals: BTreeMap<KeyRef, String>,
    /// What removes them, and whatever else must not be seen, from what the node prints; without it, it is made of the values.
    pub mask: Option<Mask>,
}

impl Known {
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

/// A vault for groups without secrets.
pub struct Empty;

impl Vault for Empty {
    fn read<'a>(&'a self, _: &'a str, places: Vec<KeyRef>) -> BoxFuture<'a, Result<Known, String>> {
        let result = match places.first() {
            Some(place) => Err(format!("there is no Secret {place}")),
            None => Ok(Known::default()),
        };
        Box::pin(std::future::ready(result))
    }
}
