//! Pure: what to do next, as a value. [`plan`] is a total function of a [`Snapshot`]; it reads no clock and no cluster.
//!
//! Every effect carries a typed reason, which feeds events, logs and golden traces alike. Waiting is never an error: a
//! node that has to wait has a [`Step`] that says for what.

pub mod approval;
pub mod claims;
pub mod drift;
pub mod hosts;
pub mod intervals;
pub mod next;
mod peers;
pub mod progress;
pub mod refusals;
mod removal;
pub mod restore;
pub mod revisions;
pub mod rollout;
pub mod scale;
pub mod snapshot;
pub mod status;
pub mod stuck;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    group::{Cascade, Group, Kind},
    phase::PhaseName,
};
pub use intervals::Intervals;
use pallet_api::reason::Reason;
use pallet_api::{group_node::NodeHost, lift::NodeOutcome};
pub use peers::peers;
pub use progress::Step;
pub use refusals::{Refusal, Subject};
pub use rollout::Bound;
pub use snapshot::{
    Claim, Going, Heal, Loss, Machine, MachineState, Node, Record, Reported, SessionKind, SessionView, Snapshot,
    TemplateVerdict, Trouble, Unready,
};

/// What is to be done, and where every node stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they are to be done.
    pub effects: Vec<Effect>,
    /// Where the nodes stand that are not being removed.
    pub steps: BTreeMap<u32, Step>,
    /// How far each of them may go.
    pub bounds: BTreeMap<u32, Bound>,
    /// Where the nodes stand that are being removed and have something to do before.
    pub farewells: BTreeMap<u32, Step>,
    /// The hashes of the templates that machines and nodes are made from, by ordinal, where it is not the present one.
    pub templates: BTreeMap<u32, String>,
    /// The nodes on which a session may start only after `status.unconverged` of the group has listed them: an operator that
    /// starts later would trust their status otherwise.
    pub unlisted: BTreeSet<u32>,
    /// When to look again, though nothing happened.
    pub wake: Option<Timestamp>,
    /// What was refused and is asked for still, now or later.
    pub refused: BTreeSet<Subject>,
}

impl Plan {
    /// Takes back the sessions that may not start, since the status of the group could not be written.
    pub fn hold_unlisted(&mut self) {
        let unlisted = std::mem::take(&mut self.unlisted);
        self.effects.retain(|effect| effect.starts().is_none_or(|ordinal| !unlisted.contains(&ordinal)));
    }
}

/// One thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Put the finalizer on the GroupSpec, before anything else.
    Finalize,
    /// Write the count into the GroupSpec, which has none: the scale subresource does not work without.
    DeclareCount {
        /// The count.
        count: u32,
    },
    /// Ask the API server what it thinks of the pod template.
    CheckTemplate,
    /// Create a GroupNode.
    CreateNode {
        /// Its number.
        ordinal: u32,
    },
    /// Create a GroupNode for a host that is free.
    TakeHost {
        /// Its number.
        ordinal: u32,
        /// The host.
        host: NodeHost,
    },
    /// Make a GroupNode of an earlier group of this name the group's.
    TakeOverNode {
        /// Its number.
        ordinal: u32,
        /// Its UID.
        uid: String,
    },
    /// Create what backs a node.
    CreateMachine {
        /// The node's number.
        ordinal: u32,
    },
    /// Create the volume claims that a node lacks.
    CreateClaims {
        /// The node's number.
        ordinal: u32,
    },
    /// Ask for more storage in a volume claim.
    ExpandClaim {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// How much, as a quantity.
        storage: String,
    },
    /// Delete a volume claim whose node is gone.
    DeleteClaim {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// The node that it was for. Where there is one of that name again, the claim stays.
        node: String,
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
    /// Delete what backs a node, or backed one.
    DeleteMachine {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Why.
        why: MachineRemoval,
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
    /// Give a GroupNode back what somebody took off: the operator's finalizer, the label of its group.
    RestoreNode {
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
    /// Close the readiness gate of a pod whose container was restarted, until its phases have succeeded in the new one.
    CloseGate {
        /// The pod.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Open a session on a node and run what is due there.
    StartSession {
        /// The node's number.
        ordinal: u32,
        /// What for.
        purpose: Purpose,
        /// Why.
        why: next::Why,
    },
    /// Tell of something that cannot be done any more, by an event.
    Tell {
        /// The node's number.
        ordinal: u32,
        /// What.
        what: Notice,
    },
    /// End a session. A run in flight goes on till its pod goes, or, on a node that is released, till it ends.
    EndSession {
        /// The node.
        name: String,
        /// Why.
        why: &'static str,
    },
}

impl Purpose {
    /// What the plan has to know of a session for this.
    pub fn kind(&self) -> SessionKind {
        match self {
            Purpose::Converge(_) => SessionKind::Converge,
            Purpose::Farewell => SessionKind::Farewell,
            Purpose::Check => SessionKind::Check,
            Purpose::Lift(_) => SessionKind::Lift,
        }
    }
}

impl Purpose {
    /// The UID of the Lift that it is for.
    pub fn lift(&self) -> Option<&str> {
        match self {
            Purpose::Lift(run) => Some(&run.uid),
            _ => None,
        }
    }
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

/// What a session is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// To bring the node through its phases, as far as it may go.
    Converge(Bound),
    /// To run destroy-server. What still runs there is ended first.
    Farewell,
    /// To look whether the node is still as it is declared. Nothing is changed there.
    Check,
    /// To run what a Lift asks for.
    Lift(LiftRun),
}

/// What a session has to know of the Lift that it is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LiftRun {
    /// The UID of the Lift.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// How far the node may go.
    pub bound: Bound,
    /// When the time of the Lift is over.
    pub deadline: Timestamp,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
    /// What it has begun on the node is to be ended, and nothing more to be done; the node counts as this then.
    pub ends: Option<NodeOutcome>,
    /// Whether bootstrap must have succeeded on the node before.
    pub after_bootstrap: bool,
    /// Whether it gives values for parameters, so that what it runs may be other than what converge would.
    pub overrides: bool,
    /// The phases that are done where converge has done them.
    pub settled: Vec<PhaseName>,
    /// The UIDs of the Lifts of the namespace that have not ended: what is known of their work on the node is kept.
    pub open: BTreeSet<String>,
}

/// Something that people should be told of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// A node went without its destroy-server.
    DestroySkipped {
        /// Why.
        why: String,
    },
}

/// Why a node is removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removal {
    /// The group is being deleted.
    GroupDeleted,
    /// There are more nodes than the count says, and this one goes first because of the rank.
    Surplus(scale::Rank),
    /// The pod template has changed, and this node is the next to be replaced.
    Replaced {
        /// Whether it was available till now.
        healthy: bool,
    },
    /// Its host is in the inventory no more.
    HostWithdrawn,
    /// Its host was another node's before it, and nothing has been done there.
    HostInUse,
}

/// Why what backs a node is deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MachineRemoval {
    /// Its node is being removed.
    NodeRemoved,
    /// It ended for good; its node gets a new one.
    Lost,
    /// There is no node for it: its creation had been taken for failed.
    NodeGone,
    /// It was made for the node of an earlier group of this name, and is nobody's now.
    LeftBehind,
}

/// What may mend without our being told is looked at again after this: a taken name, a refused template.
pub const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(30);
/// The same where the API server forbade it: a namespace that was just made has no service account yet, and quotas grow.
pub const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(3);

/// After effects the group is looked at again at the latest after this.
const AFTER_EFFECTS: SignedDuration = SignedDuration::from_secs(1);
/// A pod that ended for good is replaced when it is this old: one that fails at once must not be made as fast as it fails.
const REPLACE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// The same after many in a row.
const LONGEST_REPLACE_AFTER: SignedDuration = SignedDuration::from_secs(300);
/// A pod without a node is nobody's when it is this old; before, its node may be on its way.
const NOBODYS_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// What to do next.
pub fn plan(snapshot: &Snapshot) -> Plan {
    if let Some(group) = snapshot.for_removal() {
        group.memo.keep(|ordinal| snapshot.nodes.contains_key(&ordinal));
    }
    let mut plan = Plan::default();
    if snapshot.head.deletion.is_some() {
        removal::teardown(snapshot, &mut plan);
        stuck::wake(snapshot, &mut plan);
        refusals::hold_back(snapshot, &mut plan);
        look_again_after_effects(snapshot, &mut plan);
        return plan;
    }
    removal::removals(snapshot, &mut plan);
    gates(snapshot, &mut plan);
    let edited = snapshot.live().filter(|node| !node.finalized || !node.labelled);
    plan.effects.extend(edited.map(|node| Effect::RestoreNode { ordinal: node.ordinal }));
    match &snapshot.group {
        Ok(group) => converge(snapshot, group, &mut plan),
        Err(_) => heal(snapshot, &mut plan),
    }
    if !snapshot.head.finalized {
        // Where the nodes stand is known all the same.
        plan.effects = vec![Effect::Finalize];
    }
    if snapshot.head.finalized {
        restore::take_over(snapshot, &mut plan);
    }
    if !snapshot.head.declares_count && snapshot.group.is_ok() {
        plan.effects.push(Effect::DeclareCount { count: snapshot.head.count });
    }
    stuck::wake(snapshot, &mut plan);
    refusals::hold_back(snapshot, &mut plan);
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

/// Takes pods out of their Services whose container was restarted. What the phases had made is gone, whatever the spec says by now
/// and whether or not the group is paused.
fn gates(snapshot: &Snapshot, plan: &mut Plan) {
    if snapshot.for_removal().is_none_or(|group| group.phases.is_empty()) {
        return;
    }
    for node in snapshot.live() {
        if let Some(machine) = snapshot.machine(node)
            && closes_gate(node, machine)
        {
            plan.effects.push(Effect::CloseGate { name: machine.name.clone(), uid: machine.uid.clone() });
        }
    }
}

/// Whether the readiness gate of a pod is open though nothing has succeeded in its present container.
fn closes_gate(node: &Node, machine: &Machine) -> bool {
    let ended = matches!(machine.state, MachineState::Gone { .. });
    machine.gated && machine.gate_open && !machine.deleting && !ended && progress::is_restarted(node, machine)
}

/// What is declared now cannot be used. Nodes are kept as they were declared validly last: lost ones come back, and no node is
/// removed or replaced.
fn heal(snapshot: &Snapshot, plan: &mut Plan) {
    let Some(group) = snapshot.in_force() else { return };
    let live: Vec<&Node> = snapshot.live().collect();
    if snapshot.heal == Heal::Fully {
        look(snapshot, group, &live, plan);
    } else {
        // Whether phases are done is not known; where the machine is another one, they are not.
        let is_met = |node: &Node| snapshot.machine(node).is_some_and(|machine| progress::is_current(node, machine));
        let unmet = live.iter().filter(|node| !is_met(node));
        plan.steps = unmet.map(|node| (node.ordinal, progress::step(&snapshot.situation(group, node)))).collect();
    }
    if group.paused {
        return;
    }
    if group.node.hosts().is_none() {
        let mut missing = scale::missing(snapshot, group, live.len(), group.count);
        if !snapshot.former.is_empty() {
            // They are counted when they have been taken over.
            missing.clear();
        }
        missing.retain(|ordinal| claim_going(snapshot, group, &group.key.node_name(*ordinal)).is_none());
        create(snapshot, group, &live, missing, plan);
    }
    if snapshot.heal == Heal::Fully {
        live.iter().for_each(|node| keep(snapshot, group, node, plan));
        sessions(snapshot, group, &live, plan);
    }
    if !snapshot.uncertain.is_empty() {
        plan.wake = earliest(plan.wake, Some(snapshot.now + LOOK_AGAIN));
    }
}

/// Where nodes stand, and how far each may go.
fn look(snapshot: &Snapshot, group: &Group, live: &[&Node], plan: &mut Plan) -> rollout::Judgement {
    let mut steps = BTreeMap::new();
    for node in live {
        let step =
            waits_for_claim(snapshot, group, node).unwrap_or_else(|| progress::step(&snapshot.situation(group, node)));
        let step = match (step, refusals::of_machine(snapshot, node.ordinal)) {
            (Step::Await(progress::Cause::MachineMissing), Some(refusal)) => {
                let (reason, message) = (refusal.reason, refusal.message.clone());
                Step::Await(progress::Cause::Refused { reason, message })
            }
            (step, _) => step,
        };
        steps.insert(node.ordinal, step);
    }
    let judgement = rollout::judge(snapshot, group, is_sound(snapshot, group), live, &steps);
    plan.bounds = judgement.bounds.clone();
    for (ordinal, step) in steps {
        let bound = plan.bounds.get(&ordinal).unwrap_or(&Bound::Free);
        let step = rollout::held_back(group, step, bound);
        plan.wake = earliest(plan.wake, step.wake(snapshot.now));
        plan.steps.insert(ordinal, step);
    }
    plan.wake = earliest(plan.wake, rollout::patience_ends(snapshot, group, live));
    plan.wake = earliest(plan.wake, status::wake(snapshot, &plan.steps));
    judgement
}

fn converge(snapshot: &Snapshot, group: &Group, plan: &mut Plan) {
    let live: Vec<&Node> = snapshot.live().collect();
    let judgement = look(snapshot, group, &live, plan);
    plan.wake = earliest(plan.wake, snapshot.leave.wake(snapshot.now));
    // What was approved is written before anything is done on it, or a crash between the two would lose the leave.
    if group.paused || snapshot.leave.just_given {
        return;
    }
    let target = scale::target(snapshot, group, &live);
    let surplus =
        scale::victims(snapshot, &live, target).into_iter().map(|(node, rank)| (node, Removal::Surplus(rank)));
    let mut victims: Vec<(&Node, Removal)> = surplus.filter(|(node, why)| snapshot.leave.allows(node, why)).collect();
    let going: BTreeSet<u32> = victims.iter().map(|(node, _)| node.ordinal).collect();
    let staying: Vec<&Node> = live.into_iter().filter(|node| !going.contains(&node.ordinal)).collect();
    // One that is to be replaced now is there until its deletion was heard of.
    let mut missing = scale::missing(snapshot, group, staying.len(), target);
    plan.wake = earliest(plan.wake, scale::wait_ends(snapshot, group));
    if !snapshot.former.is_empty() {
        // They are counted when they have been taken over.
        missing.clear();
    }
    missing.retain(|ordinal| claim_going(snapshot, group, &group.key.node_name(*ordinal)).is_none());
    if is_sound(snapshot, group) && !judgement.stopped {
        let replaced = scale::replaced(snapshot, group, &staying).into_iter();
        plan.wake = earliest(plan.wake, scale::recovery_ends(snapshot, group, &staying));
        victims.extend(replaced.map(|(node, healthy)| (node, Removal::Replaced { healthy })));
    }
    victims.extend(hosts::without(snapshot, group, &staying));
    // No more than can say goodbye at once: the deadline of the others would pass while they wait.
    victims.truncate(removal::room(snapshot, group));
    for (node, why) in &victims {
        let (ordinal, uid) = (node.ordinal, node.uid.clone());
        plan.effects.push(Effect::DeleteNode { ordinal, uid, cascade: Cascade::Nodes, why: *why });
        plan.steps.remove(&ordinal);
    }
    let staying: Vec<&Node> = staying.into_iter().filter(|node| plan.steps.contains_key(&node.ordinal)).collect();
    match group.node.hosts() {
        Some(shape) => {
            let free = hosts::free(snapshot, shape).into_iter().map(|host| host.bound());
            plan.effects
                .extend(missing.into_iter().zip(free).map(|(ordinal, host)| Effect::TakeHost { ordinal, host }));
            // Whose host becomes free elsewhere is not told to us.
            let short = hosts::shortage(snapshot, group).is_some();
            plan.wake = earliest(plan.wake, short.then(|| snapshot.now + ASK_AGAIN));
        }
        None => create(snapshot, group, &staying, missing, plan),
    }
    for node in &staying {
        keep(snapshot, group, node, plan);
    }
    claims::expand(snapshot, group, &staying, plan);
    restore::replace(snapshot, &staying, plan);
    sessions(snapshot, group, &staying, plan);
    if !snapshot.uncertain.is_empty() {
        plan.wake = earliest(plan.wake, Some(snapshot.now + LOOK_AGAIN));
    }
    removal::shrunk(snapshot, group, plan);
}

/// What a node without a pod waits for, where it is a claim: one that is still going, or that is somebody else's.
fn waits_for_claim(snapshot: &Snapshot, group: &Group, node: &Node) -> Option<Step> {
    if snapshot.machine(node).is_some() {
        return None;
    }
    let going = claim_going(snapshot, group, &node.name).map(|claim| progress::Cause::ClaimTerminating { claim });
    let taken = || claims::conflict(snapshot, group, &node.name);
    let taken = || taken().map(|(claim, message)| progress::Cause::ClaimConflict { claim, message });
    going.or_else(taken).map(Step::Await)
}

fn claim_going(snapshot: &Snapshot, group: &Group, node: &str) -> Option<String> {
    let mut names = group.node.claims().iter().map(|claim| claim.claim_name(node));
    names.find(|name| snapshot.claims.get(name).is_some_and(|claim| claim.deleting))
}

/// What is missing: nodes, what backs them, claims. All of it waits for the API server's word on the template.
fn create(snapshot: &Snapshot, group: &Group, staying: &[&Node], missing: Vec<u32>, plan: &mut Plan) {
    let can_be_made = |node: &&Node| match waits_for_claim(snapshot, group, node) {
        Some(Step::Await(progress::Cause::ClaimConflict { .. })) => snapshot.recheck && needs_machine(snapshot, node),
        Some(_) => false,
        None => needs_machine(snapshot, node),
    };
    let without: Vec<&Node> = staying.iter().copied().filter(can_be_made).collect();
    // What was made from another template before waits for nothing.
    let (otherwise, without): (Vec<&Node>, Vec<&Node>) =
        without.into_iter().partition(|node| revisions::of_node(snapshot, group, node).is_some());
    for node in otherwise {
        plan.templates.extend(revisions::of_node(snapshot, group, node).map(|hash| (node.ordinal, hash.to_owned())));
        remake(group, node, plan);
    }
    let mut missing = missing;
    if let Some(hash) = revisions::of_new(snapshot, group, staying).filter(|_| !missing.is_empty()) {
        plan.templates.extend(missing.iter().map(|ordinal| (*ordinal, hash.to_owned())));
        plan.effects.extend(missing.drain(..).map(|ordinal| Effect::CreateNode { ordinal }));
    }
    let creates = !missing.is_empty() || !without.is_empty();
    // The last valid template was accepted before.
    let verdict = if snapshot.group.is_ok() { &snapshot.template } else { &TemplateVerdict::Accepted };
    match verdict {
        TemplateVerdict::Unchecked if creates || is_new_template(snapshot, group) => {
            plan.effects.push(Effect::CheckTemplate)
        }
        TemplateVerdict::Refused { .. } if !is_wanted(snapshot, group, staying) => {}
        TemplateVerdict::Refused { .. } => {
            plan.wake = earliest(plan.wake, Some(snapshot.now + snapshot.template.look_again()));
            if snapshot.recheck {
                plan.effects.push(Effect::CheckTemplate);
            }
        }
        TemplateVerdict::Unchecked => {}
        TemplateVerdict::Accepted => {
            plan.effects.extend(missing.into_iter().map(|ordinal| Effect::CreateNode { ordinal }));
            without.into_iter().for_each(|node| remake(group, node, plan));
        }
    }
}

fn remake(group: &Group, node: &Node, plan: &mut Plan) {
    if group.phases.destroy().is_some() && node.record.incarnation.is_some() {
        let why = format!("its {} was deleted, evicted or lost by others", group.node.kind().noun());
        plan.effects.push(Effect::Tell { ordinal: node.ordinal, what: Notice::DestroySkipped { why } });
    }
    plan.effects.push(Effect::CreateMachine { ordinal: node.ordinal });
}

/// Whether it matters what the API server thinks of the template: whether any pod is to be made.
pub(crate) fn is_wanted(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> bool {
    let lacks = |node: &&Node| snapshot.machine(node).is_none();
    live.len() < group.count as usize
        || live.iter().any(lacks)
        || is_new_template(snapshot, group)
        || !scale::outdated(snapshot, group, live).is_empty()
}

/// How long a machine is left that has ended for good, after so many in a row.
fn replace_after(losses: u32) -> SignedDuration {
    (REPLACE_AFTER * (1 << losses.min(5))).min(LONGEST_REPLACE_AFTER)
}

/// What a node needs that has a pod: another one where it ended for good, its claims, its gate.
fn keep(snapshot: &Snapshot, group: &Group, node: &Node, plan: &mut Plan) {
    let Some(machine) = snapshot.machine(node).filter(|machine| !machine.deleting) else { return };
    let since = machine.ended.map_or(machine.created, |ended| ended.max(machine.created));
    let due = since + replace_after(snapshot.losses.get(&node.name).copied().unwrap_or_default());
    if let MachineState::Gone { .. } = machine.state
        && due > snapshot.now
    {
        plan.wake = earliest(plan.wake, Some(due));
    } else if let MachineState::Gone { .. } = machine.state {
        let (name, uid) = (machine.name.clone(), machine.uid.clone());
        plan.effects.push(Effect::DeleteMachine { name, uid, why: MachineRemoval::Lost });
    }
    if claims::missing(snapshot, group, &node.name, Some(machine)).next().is_some() {
        plan.effects.push(Effect::CreateClaims { ordinal: node.ordinal });
    }
    if machine.gated && !machine.gate_open && matches!(plan.steps.get(&node.ordinal), Some(Step::Settled)) {
        plan.effects.push(Effect::OpenGate { name: machine.name.clone(), uid: machine.uid.clone() });
    }
}

/// Sessions that speak to a container that is gone end; as many as may run at once are begun, lowest ordinal first.
fn sessions(snapshot: &Snapshot, group: &Group, staying: &[&Node], plan: &mut Plan) {
    let (mut busy, mut looking) = (0, 0);
    for node in staying {
        let Some(session) = snapshot.sessions.get(&node.name) else { continue };
        // A look gives way to work.
        busy += u32::from(matches!(session.kind, SessionKind::Converge | SessionKind::Farewell));
        looking += u32::from(session.kind == SessionKind::Check);
        let machine = snapshot.machine(node);
        let instance = machine.and_then(Machine::instance);
        // What runs in it is lost with it; an attempt that fails while everything around it is being stopped is no failure.
        if machine.is_some_and(|machine| machine.deleting && machine.kind == Kind::Pod) {
            plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "its pod is being deleted" });
        } else if instance.is_some_and(|id| id != session.instance) {
            plan.effects.push(Effect::EndSession {
                name: node.name.clone(),
                why: "what it was opened on was replaced, or moved",
            });
        } else if instance.is_none() && node.host.is_some() {
            // A pod that is between two starts takes its session along; a host does not.
            plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "its host is not its own any more" });
        }
    }
    for node in staying {
        let looks = snapshot.sessions.get(&node.name).is_some_and(|session| session.kind == SessionKind::Check);
        // A test that has failed in this very look may be due again before its end.
        if looks
            && matches!(plan.steps.get(&node.ordinal), Some(Step::Run { phase, .. }) if *phase != PhaseName::test())
        {
            plan.effects.push(Effect::EndSession { name: node.name.clone(), why: "there is something to do" });
        }
    }
    // A Lift at work on a node is done with it before anything else begins there.
    let lifted =
        |node: &&&Node| snapshot.sessions.get(&node.name).is_some_and(|session| session.kind == SessionKind::Lift);
    // The gate closes first: once a session has met the new container, the record would say nothing of a restart any more.
    let open = |node: &&&Node| snapshot.machine(node).is_some_and(|machine| closes_gate(node, machine));
    let listed = snapshot.listed();
    for node in staying.iter().filter(|node| !lifted(node) && !open(node)) {
        if busy >= group.rollout.max_parallel.min(snapshot.session_limit) {
            break;
        }
        if let Some(Step::Run { why, .. }) = plan.steps.get(&node.ordinal) {
            let bound = plan.bounds.get(&node.ordinal).cloned().unwrap_or(Bound::Free);
            let (ordinal, purpose, why) = (node.ordinal, Purpose::Converge(bound), why.clone());
            plan.effects.push(Effect::StartSession { ordinal, purpose, why });
            // Of a life that no status can speak of yet nobody thinks that it is converged.
            let known = snapshot.machine(node).is_some_and(|machine| progress::is_current(node, machine));
            if known && !listed.contain(ordinal) {
                plan.unlisted.insert(ordinal);
            }
            busy += 1;
        }
    }
    let room = group.rollout.max_parallel.min(snapshot.session_limit).saturating_sub(busy + looking);
    looks(snapshot, group, staying, room as usize, plan);
}

/// Settled nodes that it is time to look at.
fn looks(snapshot: &Snapshot, group: &Group, staying: &[&Node], room: usize, plan: &mut Plan) {
    let Some(check) = &group.drift_check else { return };
    let mut due: Vec<(Timestamp, u32)> = Vec::new();
    for node in staying {
        let idle = !snapshot.sessions.contains_key(&node.name);
        if !idle || plan.steps.get(&node.ordinal) != Some(&Step::Settled) {
            continue;
        }
        let trouble = snapshot.troubles.get(&node.name).filter(|trouble| trouble.lasts(snapshot.now));
        let trouble = trouble.map(|trouble| trouble.until);
        let Some(time) = drift::due(check, node, snapshot.now).max(trouble) else { continue };
        if time <= snapshot.now {
            due.push((time, node.ordinal));
        } else {
            plan.wake = earliest(plan.wake, Some(time));
        }
    }
    due.sort_unstable();
    let looks = due.into_iter().take(room);
    plan.effects.extend(looks.map(|(_, ordinal)| Effect::StartSession {
        ordinal,
        purpose: Purpose::Check,
        why: next::Why::Look,
    }));
}

/// A name that somebody held may be free by now: what holds it need not be watched by us.
fn needs_machine(snapshot: &Snapshot, node: &Node) -> bool {
    match snapshot.machines.get(&node.name) {
        None => true,
        Some(machine) => machine.uid.is_empty() && snapshot.recheck,
    }
}

/// Whether pods can be made from the template. One too many for a quota says nothing against it: a node that is replaced
/// goes before its successor comes.
fn is_sound(snapshot: &Snapshot, group: &Group) -> bool {
    match snapshot.template {
        TemplateVerdict::Accepted | TemplateVerdict::Refused { reason: QUOTA, .. } => true,
        TemplateVerdict::Unchecked => !is_new_template(snapshot, group),
        TemplateVerdict::Refused { .. } => false,
    }
}

/// Why a pod is refused that is one too many.
pub const QUOTA: Reason = Reason::QuotaExceeded;

/// Whether no pod was made from this template yet: those that were are the proof that it is sound.
fn is_new_template(snapshot: &Snapshot, group: &Group) -> bool {
    group.count > 0
        && !snapshot
            .live()
            .any(|node| snapshot.machine(node).is_some_and(|machine| !scale::is_outdated(group, machine)))
}

/// The earlier of two times, where there are any.
pub fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
