//! Pure: a group as it was declared, parsed and checked once. Later steps cannot fail on its shape.

mod canonical;
pub mod hosts;
pub mod inputs;
pub mod quantity;
pub mod resolve;
pub mod revision;
pub mod shape;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::phase::{
    Action, Digest, FactSource, PhaseName,
    action::KeyRef,
    expect::Expectation,
    render::{self, memo::Memo},
};

pub use pallet_api::{
    converge::{Order, Replacement},
    nodes::{Retention, RetentionFields},
};

pub use hosts::{Attributes, Host, HostsShape};
use inputs::Inputs;
pub use resolve::{FieldError, resolve};
pub use shape::{ClaimShape, Kind, NodeShape, PodShape, VirtualMachineShape};

impl Group {
    /// Over all that decides what its phases do on a node, and the token that gives attempts back.
    pub fn fingerprint(&self, retry_token: &str) -> Digest {
        let sources: BTreeMap<String, String> =
            self.phases.sources().into_iter().map(|(phase, digest)| (phase.to_string(), digest.to_string())).collect();
        let Inputs { nodes, texts, seals, .. } = &*self.inputs;
        let texts: Vec<&str> = texts.values().map(|text| &**text).collect();
        let seals: Vec<&String> = seals.values().collect();
        Digest::of("group", &json!([sources, nodes, texts, seals, self.chosen, retry_token]))
    }
}

/// Where a group is: namespace and name.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
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
    /// How many nodes are asked for, approved or not.
    pub count: u32,
    /// Whether the spec says so itself.
    pub declares_count: bool,
    /// Whether something is declared that is to be done before a node goes.
    pub has_farewell: bool,
    /// The digest of the plan that may be carried out; empty where nobody has said so.
    pub approve: String,
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
    pub node: NodeShape,
    /// The phases.
    pub phases: Phases,
    /// How phases roll over the nodes, and how nodes are replaced.
    pub rollout: Rollout,
    /// How long one phase may run on one node.
    pub timeout: Duration,
    /// How long the removal of a node waits for destroy-server.
    pub destroy_timeout: Duration,
    /// What happens after a failure.
    pub retry: Retry,
    /// The value of the GroupSpec's retry annotation; empty where there is none.
    pub retry_token: String,
    /// The ordinal of the node for what runs on one node only.
    pub chosen: Option<u32>,
    /// What its templates see of other objects.
    pub inputs: Arc<Inputs>,
    /// How settled nodes are looked at, where they are.
    pub drift_check: Option<DriftCheck>,
    /// Whether what is declared waits for a person's leave.
    pub needs_approval: bool,
    /// The phases that wait for it.
    pub unapproved: BTreeSet<PhaseName>,
    /// Over all that was declared of it but count, pause and approval: see [`revision`].
    pub declared: Digest,
    /// What came of rendering its phases. It follows from all else, and is shared by what is cloned from one parsed group.
    pub memo: Arc<Memo>,
}

/// How phases roll over the nodes, and how nodes are replaced. Shares are numbers of nodes by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// How nodes proceed relative to each other.
    pub order: Order,
    /// How many nodes may be worked on at once, 1 at least.
    pub max_parallel: u32,
    /// How many nodes may be unavailable while nodes are replaced.
    pub max_unavailable: u32,
    /// How many nodes there may be beyond the count while nodes are replaced.
    pub max_surge: u32,
    /// No phase starts on a healthy node while more than this many are failing.
    pub max_failures: Option<u32>,
    /// Whether nodes are replaced at all.
    pub replacement: Replacement,
}

/// The phases of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phases {
    /// Facts and values.
    pub settings: Settings,
    /// The actions of every other phase.
    pub actions: BTreeMap<PhaseName, Arc<Vec<Action>>>,
    /// What test expects.
    pub expectations: Arc<Vec<Expectation>>,
    /// What converge runs after bootstrap and settings, in this order.
    pub sequence: Vec<PhaseName>,
    /// What is declared and run by nothing: most likely somebody forgot to list it.
    pub idle: Vec<PhaseName>,
    /// They are run once, since a Lift asks for them: what has succeeded is done, whatever is declared by now.
    pub on_demand: bool,
    /// A text that makes configure another one when it changes.
    pub reapply: String,
    /// The parameters of the ServerSpecs, by their name.
    pub params: Value,
    /// The roles whose nodes its templates name.
    pub roles: Vec<String>,
    /// The Secrets that its actions name, with the path of the first that does.
    pub secrets: BTreeMap<KeyRef, String>,
    /// The same for ConfigMaps.
    pub config_maps: BTreeMap<KeyRef, String>,
}

impl Phases {
    /// Whether converge has nothing at all to do on a node, so that no session is ever needed.
    pub fn is_empty(&self) -> bool {
        !self.on_demand
            && self.sequence.is_empty()
            && self.settings.is_empty()
            && !self.actions.contains_key(&PhaseName::bootstrap())
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

    /// Whether a phase of this name is declared, run by converge or not.
    pub fn knows(&self, phase: &PhaseName) -> bool {
        self.actions.contains_key(phase) || [PhaseName::settings(), PhaseName::test()].contains(phase)
    }

    /// The digests of the phases as they are declared, before any node is looked at: by these a plan is approved.
    pub fn sources(&self) -> BTreeMap<PhaseName, Digest> {
        let params = &self.params;
        let actions = |(phase, actions): (&PhaseName, &Arc<Vec<Action>>)| {
            let models: Value =
                actions.iter().map(|action| json!([action.origin.as_deref(), render::model(action)])).collect();
            let token = if *phase == PhaseName::configure() { self.reapply.as_str() } else { "" };
            (phase.clone(), Digest::of("source", &json!([models, params, token])))
        };
        let mut sources: BTreeMap<PhaseName, Digest> = self.actions.iter().map(actions).collect();
        sources.insert(PhaseName::settings(), self.settings.digest.clone());
        let expected: Value =
            self.expectations.iter().map(|e| json!([e.origin.as_deref(), e.name, e.expression])).collect();
        sources.insert(PhaseName::test(), Digest::of("source", &json!([expected, params])));
        let run = self.converged();
        sources.retain(|phase, _| run.contains(phase));
        sources
    }

    /// What is done on a node before it is removed.
    pub fn destroy(&self) -> Option<&Arc<Vec<Action>>> {
        self.actions.get(&PhaseName::destroy_server())
    }
}

/// What the settings phase declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The group's own facts, in order.
    pub facts: Vec<FactSource>,
    /// Values; strings in them are templates.
    pub values: BTreeMap<String, Setting>,
    /// Over both, as declared.
    pub digest: Digest,
}

/// One value of settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The ServerSpec that it comes from; none for the group's own.
    pub origin: Option<Arc<str>>,
    /// The value; strings in it are templates.
    pub value: Value,
}

impl Settings {
    /// Whether neither facts nor values are declared.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.values.is_empty()
    }
}

/// How settled nodes are looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DriftCheck {
    /// How often.
    pub interval: Duration,
    /// Whether a phase that a node differs from runs again there.
    pub reapply: bool,
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
