//! Pure: a group as it was declared, parsed and checked once. Later steps cannot fail on its shape.

pub mod resolve;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde_json::Value;

use crate::phase::{Action, Digest, FactSource, PhaseName};

pub use resolve::{FieldError, resolve};

/// Where a group is: namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GroupKey {
    /// The namespace.
    pub namespace: String,
    /// The name of the GroupSpec.
    pub name: String,
}

impl GroupKey {
    /// The name of the group's node with this ordinal. The GroupNode and what backs it share it.
    pub fn node_name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the operator knows of a GroupSpec whatever its spec says: enough to end it.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Namespace and name.
    pub key: GroupKey,
    /// Its UID: nodes belong to it, not to the name.
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
    /// Whether and how it is being deleted.
    pub deletion: Option<Cascade>,
    /// Whether the operator's finalizer is on it.
    pub finalized: bool,
}

/// What becomes of the nodes when their group is deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cascade {
    /// They go too.
    Nodes,
    /// They stay and are nobody's (`kubectl delete --cascade=orphan`).
    Orphan,
}

/// A group as it was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Namespace and name.
    pub key: GroupKey,
    /// The GroupSpec's UID.
    pub uid: String,
    /// The generation that this was parsed from.
    pub generation: i64,
    /// How many nodes there should be.
    pub count: u32,
    /// Whether all effects but deletion rest.
    pub paused: bool,
    /// What a node is.
    pub pod: PodShape,
    /// The phases.
    pub phases: Phases,
    /// How many nodes may be worked on at once, 1 at least.
    pub max_parallel: u32,
    /// How long one phase may run on one node.
    pub timeout: Duration,
    /// What happens after a failure.
    pub retry: Retry,
    /// The value of the GroupSpec's retry annotation; empty where there is none.
    pub retry_token: String,
}

/// A pod template that was parsed: an object with a spec that has containers.
#[derive(Clone, Debug, PartialEq)]
pub struct PodShape {
    /// The template as it was written.
    pub template: Arc<Value>,
    /// A hash over the template and the container: what the operator injects does not count.
    pub hash: String,
    /// The container in which phases run.
    pub container: String,
    /// Whether pods get the readiness gate.
    pub readiness_gate: bool,
}

/// The phases of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases {
    /// Facts and values.
    pub settings: Settings,
    /// The actions of every other phase.
    pub actions: BTreeMap<PhaseName, Arc<Vec<Action>>>,
    /// What converge runs after bootstrap and settings, in this order.
    pub sequence: Vec<PhaseName>,
}

impl Phases {
    /// Whether nothing at all is declared, so that no session is ever needed.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.settings.is_empty()
    }

    /// Whether a phase of this name is declared and run by converge.
    pub fn declares(&self, name: &str) -> bool {
        self.converged().iter().any(|phase| phase.as_str() == name)
    }

    /// Every phase that converge runs, in order, bootstrap and settings included.
    pub fn converged(&self) -> Vec<PhaseName> {
        let bootstrap = self.actions.contains_key(&PhaseName::bootstrap()).then(PhaseName::bootstrap);
        let settings = (!self.is_empty()).then(PhaseName::settings);
        bootstrap.into_iter().chain(settings).chain(self.sequence.iter().cloned()).collect()
    }
}

/// What the settings phase declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The group's own facts, in order.
    pub facts: Vec<FactSource>,
    /// Values; strings in them are templates.
    pub values: BTreeMap<String, Value>,
    /// Over both, as declared.
    pub digest: Digest,
}

impl Settings {
    /// Whether neither facts nor values are declared.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.values.is_empty()
    }
}

/// What happens after a phase failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first.
    pub limit: u32,
    /// The pause before the second attempt.
    pub backoff: Duration,
}

/// The longest pause between two attempts.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

impl Retry {
    /// The pause after failed attempt number `attempt` (from 1): doubling, at most [`LONGEST_BACKOFF`], and shortened by
    /// up to a fifth by `jitter` in 0..=255, so that nodes that failed together do not come back together.
    pub fn pause(&self, attempt: u32, jitter: u8) -> Duration {
        let doubled = self.backoff.saturating_mul(1u32 << attempt.saturating_sub(1).min(16)).min(LONGEST_BACKOFF);
        doubled - doubled / 5 * u32::from(jitter) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_five_minutes_and_jitter_only_shortens_it() {
        let retry = Retry { limit: 9, backoff: Duration::from_secs(10) };
        assert_eq!(retry.pause(1, 0), Duration::from_secs(10));
        assert_eq!(retry.pause(2, 0), Duration::from_secs(20));
        assert_eq!(retry.pause(40, 0), LONGEST_BACKOFF);
        assert_eq!(retry.pause(1, 255), Duration::from_secs(8));
    }
}
