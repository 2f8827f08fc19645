//! Pure: what to do next, as a value. [`plan`] is a total function of a [`Snapshot`]; it reads no clock and no cluster.
//!
//! Every effect carries a typed reason, which feeds events, logs and golden traces alike. Waiting is never an error: a
//! node that has to wait has a [`Step`] that says for what.

pub mod progress;
pub mod scale;
pub mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::group::{Cascade, Group};
pub use progress::Step;
pub use snapshot::{Container, Node, Pod, Record, Reported, SessionView, Snapshot, TemplateVerdict, Trouble};

/// What is to be done, and where every node stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they are to be done.
    pub effects: Vec<Effect>,
    /// Where the nodes stand that are not being removed.
    pub steps: BTreeMap<u32, Step>,
    /// When to look again, though nothing happened.
    pub wake: Option<Timestamp>,
}

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Put the finalizer on the GroupSpec, before anything else.
    Finalize,
    /// Ask the API server what it thinks of the pod template.
    CheckTemplate,
    /// Create a GroupNode.
    CreateNode {
        /// Its number.
        ordinal: u32,
    },
    /// Create a node's pod.
    CreatePod {
        /// The node's number.
        ordinal: u32,
    },
    /// Delete a GroupNode; the rest follows from that.
    DeleteNode {
        /// Its number.
        ordinal: u32,
        /// Its UID.
        uid: String,
        /// Whether what backs it goes too.
        cascade: Cascade,
        /// Why this one.
        why: Removal,
    },
    /// Delete a pod of the group.
    DeletePod {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Why.
        why: PodRemoval,
    },
    /// Let a GroupNode of a former group of this name go.
    ReleaseStray {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Let a GroupNode go: what it stood for has ended or is released.
    ReleaseNode {
        /// Its number.
        ordinal: u32,
    },
    /// Let the GroupSpec go: it has no nodes any more.
    ReleaseGroup,
    /// Open the readiness gate of a pod.
    OpenGate {
        /// The pod.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Open a session on a node and run what is due there.
    StartSession {
        /// The node's number.
        ordinal: u32,
        /// Why.
        why: progress::Why,
    },
    /// End a session. A run in flight goes on till its pod goes, or, on a node that is released, till it ends.
    EndSession {
        /// The node.
        name: String,
        /// Why.
        why: &'static str,
    },
}

impl Effect {
    /// The node on which this effect opens a session.
    pub fn starts(&self) -> Option<u32> {
        match self {
            Effect::StartSession { ordinal, .. } => Some(*ordinal),
            _ => None,
        }
    }
}

/// Why a node is removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    /// The group is being deleted.
    GroupDeleted,
    /// There are more nodes than the count says, and this one goes first because of the rank.
    Surplus(scale::Rank),
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PodRemoval {
    /// Its node is being removed.
    NodeRemoved,
    /// It ended for good; its node gets a new one.
    Lost,
    /// There is no node for it: its creation had been taken for failed.
    NodeGone,
}

/// What may mend without our being told is looked at again after this: a taken name, a refused template.
pub const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// After effects the group is looked at again at the latest after this.
const AFTER_EFFECTS: SignedDuration = SignedDuration::from_secs(1);
/// A pod that ended for good is replaced when it is this old: one that fails at once must not be made as fast as it fails.
const REPLACE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A pod without a node is nobody's when it is this old; before, its node may be on its way.
const NOBODYS_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What to do next.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    if snapshot.head.deletion.is_some() {
        teardown(snapshot, &mut plan);
        look_again_after_effects(snapshot, &mut plan);
        return plan;
    }
    removals(snapshot, &mut plan);
    if let Ok(group) = &snapshot.group {
        converge(snapshot, group, &mut plan);
    }
    if !snapshot.head.finalized {
        // Where the nodes stand is known all the same.
        plan.effects = vec![Effect::Finalize];
    }
    look_again_after_effects(snapshot, &mut plan);
    plan
}

/// What was done shows by events, but an answer may be learnt before its event, which then is no news: look by ourselves.
fn look_again_after_effects(snapshot: &Snapshot, plan: &mut Plan) {
    let ours = |effect: &Effect| matches!(effect, Effect::StartSession { .. } | Effect::EndSession { .. });
    if !plan.effects.iter().all(ours) {
        plan.wake = earliest(plan.wake, Some(snapshot.now + AFTER_EFFECTS));
    }
}

/// The group goes, and its nodes with it, or released.
fn teardown(snapshot: &Snapshot, plan: &mut Plan) {
    let cascade = snapshot.head.deletion.unwrap_or(Cascade::Nodes);
    for node in snapshot.nodes.values().filter(|node| node.deletion.is_none()) {
        let why = Removal::GroupDeleted;
        plan.effects.push(Effect::DeleteNode { ordinal: node.ordinal, uid: node.uid.clone(), cascade, why });
    }
    removals(snapshot, plan);
    if snapshot.nodes.is_empty() && snapshot.head.finalized {
        plan.effects.push(Effect::ReleaseGroup);
    }
}

/// The nodes that are being deleted: their session, then their pod, then their finalizer.
fn removals(snapshot: &Snapshot, plan: &mut Plan) {
    let strays = snapshot.strays.iter().cloned();
    plan.effects.extend(strays.map(|(name, uid)| Effect::ReleaseStray { name, uid }));
    if snapshot.head.deletion != Some(Cascade::Orphan) {
        nobodys(snapshot, plan);
    }
    for node in snapshot.nodes.values() {
        let Some(cascade) = node.deletion else { continue };
        // The collector takes its mark off when it is done; the group's word stands.
        let cascade = if snapshot.head.deletion == Some(Cascade::Orphan) { Cascade::Orphan } else { cascade };
        if snapshot.sessions.contains_key(&node.name) {
            plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "the node is being removed" });
        }
        match (cascade, snapshot.pod(node)) {
            (Cascade::Nodes, Some(pod)) if !pod.deleting => plan.effects.push(Effect::DeletePod {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                why: PodRemoval::NodeRemoved,
            }),
            (Cascade::Nodes, Some(_)) => {}
            _ if node.finalized => plan.effects.push(Effect::ReleaseNode { ordinal: node.ordinal }),
            _ => {}
        }
    }
}

/// Pods of the group whose node is gone.
fn nobodys(snapshot: &Snapshot, plan: &mut Plan) {
    for pod in
        snapshot.pods.values().filter(|pod| pod.controller.as_deref() == Some(&snapshot.head.uid) && !pod.deleting)
    {
        if snapshot.nodes.values().any(|node| node.name == pod.name) {
            continue;
        }
        if pod.created + NOBODYS_AFTER <= snapshot.now {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            plan.effects.push(Effect::DeletePod { name, uid, why: PodRemoval::NodeGone });
        } else {
            plan.wake = earliest(plan.wake, Some(pod.created + NOBODYS_AFTER));
        }
    }
}

fn converge(snapshot: &Snapshot, group: &Group, plan: &mut Plan) {
    let live: Vec<&Node> = snapshot.live().collect();
    for node in &live {
        let pod = snapshot.pod(node);
        let step = progress::step(&progress::Situation {
            group,
            node,
            pod,
            foreign: pod.is_none() && snapshot.pods.contains_key(&node.name),
            session: snapshot.sessions.get(&node.name),
            trouble: snapshot.troubles.get(&node.name),
            now: snapshot.now,
        });
        plan.wake = earliest(plan.wake, step.wake(snapshot.now));
        plan.steps.insert(node.ordinal, step);
    }
    if group.paused {
        return;
    }
    let victims = scale::victims(snapshot, &live, group.count);
    for (node, rank) in &victims {
        plan.effects.push(Effect::DeleteNode {
            ordinal: node.ordinal,
            uid: node.uid.clone(),
            cascade: Cascade::Nodes,
            why: Removal::Surplus(*rank),
        });
        plan.steps.remove(&node.ordinal);
    }
    let staying: Vec<&Node> = live.into_iter().filter(|node| plan.steps.contains_key(&node.ordinal)).collect();
    let missing = scale::missing(snapshot, staying.len(), group.count);
    let podless: Vec<&Node> = staying.iter().copied().filter(|node| needs_pod(snapshot, node)).collect();
    let creates = !missing.is_empty() || !podless.is_empty();
    match &snapshot.template {
        TemplateVerdict::Unchecked if creates || is_new_template(snapshot, group) => {
            plan.effects.push(Effect::CheckTemplate)
        }
        TemplateVerdict::Refused { .. } => {
            plan.wake = earliest(plan.wake, Some(snapshot.now + LOOK_AGAIN));
            if snapshot.recheck {
                plan.effects.push(Effect::CheckTemplate);
            }
        }
        TemplateVerdict::Unchecked => {}
        TemplateVerdict::Accepted => {
            plan.effects.extend(missing.into_iter().map(|ordinal| Effect::CreateNode { ordinal }));
            plan.effects.extend(podless.iter().map(|node| Effect::CreatePod { ordinal: node.ordinal }));
        }
    }
    for node in &staying {
        let Some(pod) = snapshot.pod(node).filter(|pod| !pod.deleting) else { continue };
        if let Container::Gone { .. } = pod.container
            && pod.created + REPLACE_AFTER > snapshot.now
        {
            plan.wake = earliest(plan.wake, Some(pod.created + REPLACE_AFTER));
        } else if let Container::Gone { .. } = pod.container {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            plan.effects.push(Effect::DeletePod { name, uid, why: PodRemoval::Lost });
        }
        if pod.gated && !pod.gate_open && matches!(plan.steps.get(&node.ordinal), Some(Step::Settled)) {
            plan.effects.push(Effect::OpenGate { name: pod.name.clone(), uid: pod.uid.clone() });
        }
    }
    sessions(snapshot, group, &staying, plan);
}

/// Sessions that speak to a container that is gone end; as many as may run at once are begun, lowest ordinal first.
fn sessions(snapshot: &Snapshot, group: &Group, staying: &[&Node], plan: &mut Plan) {
    let mut busy = 0;
    for node in staying {
        let Some(session) = snapshot.sessions.get(&node.name) else { continue };
        busy += 1;
        let instance = snapshot.pod(node).and_then(|pod| match &pod.container {
            Container::Running { id } => Some(id.as_str()),
            _ => None,
        });
        if instance.is_some_and(|id| id != session.instance) {
            plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "its container was replaced" });
        }
    }
    for node in staying {
        if busy >= group.max_parallel.min(snapshot.session_limit) {
            break;
        }
        if let Some(Step::Run { why, .. }) = plan.steps.get(&node.ordinal) {
            plan.effects.push(Effect::StartSession { ordinal: node.ordinal, why: why.clone() });
            busy += 1;
        }
    }
}

/// A name that somebody held may be free by now: what holds it need not be watched by us.
fn needs_pod(snapshot: &Snapshot, node: &Node) -> bool {
    match snapshot.pods.get(&node.name) {
        None => true,
        Some(pod) => pod.uid.is_empty() && snapshot.recheck,
    }
}

/// Whether no pod was made from this template yet: those that were are the proof that it is sound.
fn is_new_template(snapshot: &Snapshot, group: &Group) -> bool {
    group.count > 0
        && !snapshot.live().any(|node| snapshot.pod(node).is_some_and(|pod| pod.template_hash == group.pod.hash))
}

/// The earlier of two times, where there are any.
pub fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
