//! Pure: what the API server has refused, when it is asked again, and how that is told.
//!
//! Each request has a backoff of its own, so that one child that is refused keeps no other from being made. An edit of the group
//! ends it: what was refused may be another request now.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Effect, Node, Plan, Snapshot, earliest};
use pallet_api::conditions::clip;
use pallet_api::reason::Reason;

/// The first pause after a refusal; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest text of a refusal at the group, in bytes.
const SHOWN: usize = 500;

/// What a request is about.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// The finalizer of the GroupSpec.
    Group,
    /// The count of the GroupSpec, where it is left out.
    Count,
    /// The status of the GroupSpec.
    Status,
    /// The dry run of the template.
    Template,
    /// The creation of a GroupNode.
    Node(u32),
    /// The creation of what backs a node, with its claims and Secrets.
    Machine(u32),
    /// The creation of claims beside a pod.
    Claims(u32),
    /// The status of a GroupNode.
    NodeStatus(u32),
    /// The deletion or release of an object, by its name.
    Removal(String),
    /// The readiness gate of a pod, by its name.
    Gate(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Group => write!(f, "finalizer"),
            Subject::Count => write!(f, "count"),
            Subject::Status => write!(f, "status"),
            Subject::Template => write!(f, "template"),
            Subject::Node(ordinal) => write!(f, "node {ordinal}"),
            Subject::Machine(ordinal) => write!(f, "node {ordinal}"),
            Subject::Claims(ordinal) => write!(f, "claims of node {ordinal}"),
            Subject::NodeStatus(ordinal) => write!(f, "status of node {ordinal}"),
            Subject::Removal(name) | Subject::Gate(name) => write!(f, "{name}"),
        }
    }
}

/// What the API server has refused, by what it is about.
pub type Refusals = BTreeMap<Subject, Refusal>;

/// A request that the API server refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// One CamelCase word.
    pub reason: Reason,
    /// What was asked for, and what the API server said, in a line.
    pub message: String,
    /// How often in a row.
    pub times: u32,
    /// Not to be asked again before.
    pub until: Timestamp,
    /// The generation of the GroupSpec under which it was refused.
    pub generation: i64,
}

impl Refusal {
    /// One more refusal.
    pub fn after(before: Option<&Self>, (reason, message): (Reason, String), generation: i64, now: Timestamp) -> Self {
        let before = before.filter(|before| before.generation == generation).map_or(0, |before| before.times);
        let pause = (FIRST_PAUSE * (1 << before.min(6))).min(LONGEST_PAUSE);
        let until = now + SignedDuration::try_from(pause).unwrap_or_default();
        Self { reason, message, times: before.saturating_add(1), until, generation }
    }

    /// Whether it keeps the request from being made now.
    pub fn holds(&self, generation: i64, now: Timestamp) -> bool {
        let longest = SignedDuration::try_from(LONGEST_PAUSE).unwrap_or_default();
        // A pause that ends later than any does was begun by a clock that was ahead.
        self.generation == generation && now < self.until && self.until <= now + longest
    }
}

impl Effect {
    /// The node that it creates a machine for, or releases.
    fn ordinal(&self) -> Option<u32> {
        match self {
            Effect::CreateMachine { ordinal } | Effect::ReleaseNode { ordinal } => Some(*ordinal),
            _ => None,
        }
    }

    /// What its request is about. Sessions and events have none.
    pub fn subject(&self, snapshot: &Snapshot) -> Option<Subject> {
        let name = |ordinal: &u32| snapshot.head.key.node_name(*ordinal);
        Some(match self {
            Effect::Finalize | Effect::ReleaseGroup => Subject::Group,
            Effect::DeclareCount { .. } => Subject::Count,
            Effect::CheckTemplate => Subject::Template,
            Effect::CreateNode { ordinal } | Effect::TakeHost { ordinal, .. } => Subject::Node(*ordinal),
            Effect::CreateMachine { ordinal } => Subject::Machine(*ordinal),
            Effect::CreateClaims { ordinal } => Subject::Claims(*ordinal),
            Effect::TakeOverNode { ordinal, .. } => Subject::Node(*ordinal),
            Effect::DeleteNode { ordinal, .. } | Effect::ReleaseNode { ordinal } | Effect::RestoreNode { ordinal } => {
                Subject::Removal(format!("GroupNode {}", name(ordinal)))
            }
            Effect::ReleaseStray { name, .. } => Subject::Removal(format!("GroupNode {name}")),
            Effect::DeleteMachine { name, .. } => Subject::Removal(format!("{} {name}", snapshot.kind().name())),
            Effect::DeleteClaim { name, .. } => Subject::Removal(format!("PersistentVolumeClaim {name}")),
            // What is refused is kept with the claim.
            Effect::ExpandClaim { .. } => return None,
            Effect::OpenGate { name, .. } | Effect::CloseGate { name, .. } => Subject::Gate(format!("Pod {name}")),
            Effect::StartSession { .. } | Effect::Tell { .. } | Effect::EndSession { .. } => return None,
        })
    }
}

/// Takes the effects out of a plan that were refused a moment ago, and has the group looked at when they may be tried again.
pub(super) fn hold_back(snapshot: &Snapshot, plan: &mut Plan) {
    let mut wake = None;
    let (mut wanted, mut still) = (BTreeSet::new(), BTreeSet::new());
    plan.effects.retain(|effect| {
        let Some(subject) = effect.subject(snapshot) else { return true };
        let Some(refusal) = snapshot.refusals.get(&subject) else { return true };
        wanted.insert(subject);
        let held = refusal.holds(snapshot.head.generation, snapshot.now);
        if held {
            wake = earliest(wake, Some(refusal.until));
            still.extend(effect.ordinal());
        }
        !held
    });
    // What goes along with an effect is told when that is done.
    plan.effects.retain(|effect| !matches!(effect, Effect::Tell { ordinal, .. } if still.contains(ordinal)));
    plan.wake = earliest(plan.wake, wake);
    plan.refused = wanted;
}

/// Forgets what was refused and is asked for no more: there is nothing left to tell of it.
pub fn prune(refusals: &mut Refusals, plan: &Plan, nodes: &BTreeMap<u32, std::sync::Arc<Node>>) {
    refusals.retain(|subject, _| match subject {
        Subject::Status => true,
        Subject::NodeStatus(ordinal) => nodes.contains_key(ordinal),
        subject => plan.refused.contains(subject),
    });
}

/// Why what backs a node cannot be made.
pub(super) fn of_machine(snapshot: &Snapshot, ordinal: u32) -> Option<&Refusal> {
    snapshot.refusals.get(&Subject::Machine(ordinal)).or_else(|| snapshot.refusals.get(&Subject::Template))
}

/// What the group's conditions tell of refusals: the reason of one that keeps nodes from being made, and a line with the first and
/// how many more there are. Those that a node of the group tells itself (`told`) are left out of the line.
pub(super) fn shown(snapshot: &Snapshot, told: &str) -> (Option<Reason>, Option<String>) {
    let creates = |subject: &Subject| {
        matches!(subject, Subject::Template | Subject::Node(_) | Subject::Machine(_) | Subject::Claims(_))
    };
    let all = snapshot.refusals.iter().filter(|(subject, _)| **subject != Subject::Status);
    let reason = all.clone().find(|(subject, _)| creates(subject)).map(|(_, refusal)| refusal.reason);
    // As a node tells it: the reason before it.
    let line = |refusal: &Refusal| clip(&format!("{}: {}", refusal.reason, refusal.message), 120);
    let mut untold = all.filter(|(_, refusal)| !told.contains(line(refusal).trim_end_matches("...")));
    let Some((subject, first)) = untold.next() else { return (reason, None) };
    let name = match subject {
        Subject::Node(ordinal)
        | Subject::Machine(ordinal)
        | Subject::Claims(ordinal)
        | Subject::NodeStatus(ordinal) => {
            format!("{}: ", snapshot.head.key.node_name(*ordinal))
        }
        Subject::Removal(name) | Subject::Gate(name) => format!("{name}: "),
        Subject::Group | Subject::Count | Subject::Status | Subject::Template => String::new(),
    };
    let more = untold.count();
    let more = if more == 0 { String::new() } else { format!(" (and {more} more refusals)") };
    (reason, Some(format!("{}{more}", clip(&format!("{name}{}: {}", first.reason, first.message), SHOWN))))
}
