//! Pure: what the templates of a group see that stands in other objects.

use std::{collections::BTreeMap, sync::Arc};

use minijinja::value::Serde;
use serde::Serialize;

use crate::{facts::Facts, phase::action::KeyRef};

/// What stands in other objects, as far as the group uses it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// The nodes of each role that is named, by role; a list of [`Peer`]s each.
    pub nodes: minijinja::Value,
    /// What stands in the ConfigMaps that its actions name.
    pub texts: BTreeMap<KeyRef, Arc<str>>,
    /// Keyed hashes over the values of the Secrets.
    pub seals: BTreeMap<KeyRef, String>,
    /// The public key that hosts are logged in with, as OpenSSH writes it, where it could be read.
    pub login_key: Option<Arc<str>>,
    /// The role whose nodes keep changing, where one does: what depends on it is slowed down.
    pub restless: Option<String>,
}

/// A node of a role, as templates of other groups see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its number in the group.
    pub ordinal: u32,
    /// Its address.
    pub address: String,
    /// Its facts, without those that change by themselves.
    pub facts: Facts,
}

impl Inputs {
    /// The nodes of roles as templates see them.
    pub fn nodes(roles: &BTreeMap<String, Vec<&Peer>>) -> minijinja::Value {
        minijinja::Value::from(Serde(roles))
    }
}
