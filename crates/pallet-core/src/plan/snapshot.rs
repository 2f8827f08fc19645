//! Pure: what a plan is made from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::{Intervals, approval::Leave, claims, hosts::Occupant, next, progress::Situation, refusals::Refusals};
use crate::{
    facts::Facts,
    group::{Attributes, Cascade, FieldError, Group, Head, Kind, NodeShape, revision::Revision},
    phase::{Digest, PhaseName},
    target::Target,
};
use pallet_api::reason::Reason;
use pallet_api::{
    GroupNodeStatus, GroupSpecStatus,
    conditions::{MESSAGE_LIMIT, clip},
    group_node::{Drift, Incarnation, MachineRef, NodeHost, NodeLift, Outcome, PhaseResult, Running},
};

/// All that the plan depends on, of one group, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time.
    pub now: Timestamp,
    /// The GroupSpec, whatever its spec says.
    pub head: Head,
    /// Its spec, or what is wrong with it.
    pub group: Result<Group, Vec<FieldError>>,
    /// What the API server thinks of the pod template.
    pub template: TemplateVerdict,
    /// The group's status as it stands.
    pub status: GroupSpecStatus,
    /// A write of that status had no answer: it may say something else by now.
    pub list_in_doubt: bool,
    /// The machines of the namespace that are nodes of other groups, by their place.
    pub occupied: BTreeMap<String, Occupant>,
    /// The GroupNodes that belong to the group by UID, by ordinal.
    pub nodes: BTreeMap<u32, Arc<Node>>,
    /// GroupNodes at names of the group's nodes that belong to an earlier GroupSpec of its name and are not being deleted, by
    /// ordinal, with their UIDs.
    pub former: BTreeMap<u32, String>,
    /// Ordinals whose GroupNode name is taken by an object of somebody else, with its description.
    pub foreign_nodes: BTreeMap<u32, String>,
    /// Ordinals whose creation may or may not have happened: nobody knows till the cache shows it or it is tried again.
    pub uncertain: BTreeSet<u32>,
    /// Ordinals of nodes that a former operator may have changed without storing the result, and whose journal this operator has
    /// not read yet.
    pub unread: BTreeSet<u32>,
    /// GroupNodes of a former group of this name that are being deleted and that nobody else will let go, with their UIDs.
    pub strays: Vec<(String, String)>,
    /// What is remembered of refusals and taken names is old enough to be tried again.
    pub recheck: bool,
    /// What the API server has refused, until it has done it or nobody asks for it any more.
    pub refusals: Refusals,
    /// How often in a row what backed a node has ended for good, by the node's name.
    pub losses: BTreeMap<String, u32>,
    /// How many sessions one group may have open at once, whatever it asks for: the others want theirs.
    pub session_limit: u32,
    /// What backs nodes, by the nodes' names: what is the group's, and whatever else stands at a name that one of its nodes needs.
    pub machines: BTreeMap<String, Arc<Machine>>,
    /// The volume claims that are marked as the group's, by name, and those of others at names that its nodes need.
    pub claims: BTreeMap<String, Arc<Claim>>,
    /// Expansions of claims that were refused, by claim.
    pub expansions: BTreeMap<String, claims::Refusal>,
    /// Sessions in flight, by node.
    pub sessions: BTreeMap<String, SessionView>,
    /// Nodes that could not be reached, by name.
    pub troubles: BTreeMap<String, Trouble>,
    /// Where the group stands with its approval.
    pub leave: Leave,
    /// The declaration as it was valid last, where the present one cannot be used: for removals, and for lost nodes.
    pub last_good: Option<Group>,
    /// How far nodes are kept by `last_good`.
    pub heal: Heal,
    /// The revisions that are kept, oldest first. The newest is the last that was valid.
    pub revisions: Vec<Arc<Revision>>,
    /// The hashes that machines and nodes have recorded, as they were recorded.
    pub recorded: BTreeSet<String>,
    /// The templates of the revisions that are needed, by the hash that they have now.
    pub templates: BTreeMap<String, Arc<NodeShape>>,
    /// The declaration of which no revision could be kept.
    pub unkept: Option<Digest>,
}

/// How far nodes are kept by the declaration that was valid last, while the present one cannot be used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Heal {
    /// Not at all.
    #[default]
    No,
    /// Lost machines are made again. No phase runs: not all that its templates see is known.
    Machines,
    /// Lost nodes are made again, and phases run.
    Fully,
}

impl Snapshot {
    /// The nodes that the group's status is known to list as not converged.
    pub fn listed(&self) -> Intervals {
        if self.list_in_doubt { Intervals::default() } else { Intervals::of(&self.status.unconverged) }
    }

    /// The nodes that are not being removed, by ordinal.
    pub fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref).filter(|node| node.deletion.is_none())
    }

    /// The spec by which nodes are removed: the last that could be used.
    pub fn for_removal(&self) -> Option<&Group> {
        self.group.as_ref().ok().or(self.last_good.as_ref())
    }

    /// The declaration that nodes are kept by: the present one, or else the last that was valid.
    pub fn in_force(&self) -> Option<&Group> {
        self.group.as_ref().ok().or(self.last_good.as_ref().filter(|_| self.heal != Heal::No))
    }

    /// What backs the nodes.
    pub fn kind(&self) -> Kind {
        self.for_removal().map(|group| group.node.kind()).unwrap_or_default()
    }

    /// The session at work on a node. One that only looks is none.
    pub fn working(&self, node: &Node) -> Option<&SessionView> {
        self.sessions.get(&node.name).filter(|session| session.kind != SessionKind::Check)
    }

    /// The session by which the group is brought to what is declared. What a Lift does beside that is no step on the way.
    fn converging(&self, node: &Node) -> Option<&SessionView> {
        self.working(node).filter(|session| session.kind != SessionKind::Lift)
    }

    /// A node of the group, and all that stands around it.
    pub fn situation<'a>(&'a self, group: &'a Group, node: &'a Node) -> Situation<'a> {
        let machine = self.machine(node);
        Situation {
            group,
            node,
            machine,
            foreign: machine.is_none() && self.machines.contains_key(&node.name),
            session: self.converging(node),
            trouble: self.troubles.get(&node.name),
            unread: self.unread.contains(&node.ordinal),
            now: self.now,
        }
    }

    /// What backs a node: what has its name, where the group controls it. When the group is deleted in the foreground, or was
    /// made anew, the collector takes the group off its owners; its node still is one then.
    pub fn machine(&self, node: &Node) -> Option<&Machine> {
        let ours = |machine: &&Machine| match &machine.controller {
            Some(controller) => *controller == self.head.uid,
            None => self.head.deletion.is_some() && machine.node.as_ref() == Some(&node.uid),
        };
        let kept = |machine: &&Machine| {
            let former = node.taken_over_from.as_ref();
            former.is_some()
                && machine.node.as_ref() == Some(&node.uid)
                && machine.controller.as_ref().is_none_or(|controller| Some(controller) == former)
        };
        let ours = |machine: &&Machine| ours(machine) || kept(machine);
        self.machines.get(&node.name).map(Arc::as_ref).filter(ours)
    }
}

/// What the API server thinks of the pod template, asked by a dry run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TemplateVerdict {
    /// It was not asked.
    Unchecked,
    /// It would take it.
    Accepted,
    /// It refuses it.
    Refused {
        /// One CamelCase word.
        reason: Reason,
        /// As the API server says it.
        message: String,
    },
}

impl TemplateVerdict {
    /// After what time a refusal may be another one.
    pub fn look_again(&self) -> SignedDuration {
        match self {
            TemplateVerdict::Refused { reason: Reason::Forbidden | super::QUOTA, .. } => super::ASK_AGAIN,
            _ => super::LOOK_AGAIN,
        }
    }
}

/// A GroupNode.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, and its pod's.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The template of the machine on which it converged last; empty where it never did.
    pub template_hash: String,
    /// Its number.
    pub ordinal: u32,
    /// The host that it is, where nodes are hosts.
    pub host: Option<NodeHost>,
    /// Whether and how it is being deleted.
    pub deletion: Option<Cascade>,
    /// Since when it is being deleted.
    pub deleted_at: Option<Timestamp>,
    /// Whether the operator's finalizer is on it.
    pub finalized: bool,
    /// Whether it has the label of its group, by which people find it.
    pub labelled: bool,
    /// The finalizers of others on it.
    pub held_by: Vec<String>,
    /// Whether it is marked as a preferred victim.
    pub marked: bool,
    /// The UID of the earlier GroupSpec that it was taken over from.
    pub taken_over_from: Option<String>,
    /// The value of its retry annotation.
    pub retry_token: String,
    /// The value of its ack annotation: the run that may go on.
    pub ack: String,
    /// When it was created.
    pub created: Timestamp,
    /// What is known of it for good.
    pub record: Record,
    /// The resource version that all this was read from.
    pub version: String,
    /// What its status says instead, where the record is newer.
    pub saved: Option<Record>,
    /// What its status says besides.
    pub reported: Reported,
}

/// What is durable of a node: facts and phase results, never a cursor. Where a session is at work, this is its view.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Which life of the node this speaks of.
    pub incarnation: Option<Incarnation>,
    /// What settings found.
    pub facts: Facts,
    /// The latest attempt at each phase.
    pub phase_results: BTreeMap<PhaseName, PhaseResult>,
    /// What the last look found that changed nothing.
    pub drift: Option<Drift>,
    /// What Lifts did there, oldest first.
    pub lifts: Vec<NodeLift>,
}

impl Record {
    /// The phase results in the order in which their phases ran.
    pub fn in_order(&self) -> Vec<PhaseResult> {
        let mut phase_results: Vec<PhaseResult> = self.phase_results.values().cloned().collect();
        phase_results.sort_by(|a, b| (a.started_at.0, &a.phase).cmp(&(b.started_at.0, &b.phase)));
        phase_results
    }

    /// The record of a node that lost its file system: what had succeeded is undone; what had failed counts on, so that
    /// a phase that kills its own container does not go round for ever.
    pub fn reborn(&self, incarnation: Option<Incarnation>, loss: Loss) -> Self {
        let mut phase_results = self.phase_results.clone();
        phase_results.retain(|_, phase_result| outlives(phase_result, loss));
        let mut lifts = self.lifts.clone();
        for lift in lifts.iter_mut().filter(|lift| lift.outcome.is_none()) {
            lift.phase_results.retain_mut(|phase_result| outlives(phase_result, loss));
        }
        Self { incarnation, facts: self.facts.clone(), phase_results, drift: None, lifts }
    }

    /// Whether the last attempt at a phase was interrupted, which is no failure.
    pub fn is_interrupted(&self, phase: &PhaseName) -> bool {
        self.phase_results.get(phase).is_some_and(|phase_result| phase_result.outcome == Outcome::Interrupted)
    }
}

/// How a node lost its file system.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Its container or host was restarted or made anew in place. A phase can do that to itself.
    Restarted,
    /// Its pod, virtual machine or instance was replaced by another one: an eviction, a drain, a deletion, a lost machine.
    Replaced,
}

impl Loss {
    /// How the incarnation that a record speaks of was lost, where another one was found.
    pub fn between(known: Option<&Incarnation>, uid: &str, instance: &str, kind: Kind) -> Self {
        let replaced = known.is_some_and(|known| match kind {
            Kind::Pod => known.uid != uid,
            // The instance of a virtual machine is to it what a pod is to a node: it is evicted and lost like one.
            Kind::VirtualMachine => known.uid != uid || known.instance != instance,
            Kind::Host => false,
        });
        if replaced { Self::Replaced } else { Self::Restarted }
    }
}

/// What becomes of a phase result when the file system is lost: whether it still counts, and as what. A run that was cut off by a
/// replacement is no failed attempt.
pub(crate) fn outlives(phase_result: &mut PhaseResult, loss: Loss) -> bool {
    phase_result.from = 0;
    match (phase_result.outcome, loss) {
        (Outcome::Unknown, Loss::Restarted) => {
            phase_result.outcome = Outcome::Failed;
            phase_result.message = "the node was restarted or replaced while the phase ran".into();
        }
        (Outcome::Unknown, Loss::Replaced) => {
            phase_result.outcome = Outcome::Interrupted;
            phase_result.interruptions = phase_result.interruptions.saturating_add(1);
            phase_result.message = format!("the node was replaced while the phase ran ({})", phase_result.message);
            phase_result.message = clip(&phase_result.message, MESSAGE_LIMIT);
        }
        _ => {}
    }
    !matches!(phase_result.outcome, Outcome::Succeeded | Outcome::Waiting)
}

/// The parts of a GroupNode's status that follow from other things.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// What backs it.
    pub machine_ref: Option<MachineRef>,
    /// The hash of the template on which it converged last.
    pub template_hash: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// The phase that runs.
    pub running: Option<Running>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// What backs a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its UID; of a host, which has none, its name in the inventory.
    pub uid: String,
    /// The UID of its controller.
    pub controller: Option<String>,
    /// The UID of the GroupNode that owns it too.
    pub node: Option<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When its grace period ends, while it is being deleted.
    pub ends: Option<Timestamp>,
    /// Whether it is marked as a preferred victim.
    pub marked: bool,
    /// What it is.
    pub kind: Kind,
    /// Where phases run; nothing as long as that is not known.
    pub target: Option<Target>,
    /// What templates see of a host.
    pub attributes: Arc<Attributes>,
    /// The names of the volume claims that it mounts, where it is known.
    pub claims: Option<BTreeSet<String>>,
    /// Where it stands.
    pub state: MachineState,
    /// Its address.
    pub address: Option<String>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether the readiness gate was opened.
    pub gate_open: bool,
    /// Whether it has the readiness gate.
    pub gated: bool,
    /// The hash of the template that it was made from.
    pub template_hash: String,
    /// When it was created.
    pub created: Timestamp,
    /// What tells the agent this life of its container from others, where the first process of its PID namespace does not: a word.
    pub life: Option<String>,
    /// Since when it has ended for good, where that is known.
    pub ended: Option<Timestamp>,
    /// Why it is not Ready though it runs, in a line.
    pub unready: Option<Unready>,
    /// What its deletion waits for, where it is being deleted.
    pub going: Option<Going>,
}

/// Why a machine that runs is not Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// For people: the container, its reason and exit code, or the condition.
    pub message: String,
    /// Whether a container has failed, so that it does not pass by itself.
    pub broken: bool,
}

/// A machine that is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Going {
    /// When its grace period ends.
    pub due: Timestamp,
    /// Who deletes it and why, where the pod says so.
    pub why: Option<String>,
    /// What holds it, for people: the finalizers, or the cluster node that has not confirmed its end.
    pub held_by: String,
}

/// A volume claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub name: String,
    /// Its UID; empty where it is somebody else's and only its name is known.
    pub uid: String,
    /// The UID of the group that had it made.
    pub group: Option<String>,
    /// The node that it is for; empty where it does not say.
    pub node: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether a pod of another group mounts it, as it could in earlier versions. Looked at only where claims may be deleted.
    pub is_shared: bool,
    /// Its spec, as it is in the API; null where it is somebody else's.
    pub spec: Value,
    /// Where it is somebody else's: whose, and what to do.
    pub conflict: Option<String>,
}

/// Where a machine stands: the container of the phases, the instance of a virtual machine, a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineState {
    /// Not yet, or between two starts.
    Waiting {
        /// As the kubelet, the scheduler or KubeVirt calls it.
        reason: String,
        /// For people.
        message: String,
    },
    /// It runs.
    Running {
        /// The container's ID, the UID of the instance, or where the host is reached.
        id: String,
    },
    /// The pod, or the container of the phases, ended for good (evicted, node lost): nothing starts it again.
    Gone {
        /// As the kubelet calls it.
        reason: String,
        /// For people.
        message: String,
    },
}

impl Machine {
    /// What it runs as, where it runs: the container's ID, the UID of the instance, or where the host is reached.
    pub fn instance(&self) -> Option<&str> {
        match &self.state {
            MachineState::Running { id } => Some(id),
            MachineState::Waiting { .. } | MachineState::Gone { .. } => None,
        }
    }
}

impl MachineState {
    /// Whether it does not run yet, or not just now.
    pub fn is_waiting(&self) -> bool {
        matches!(self, MachineState::Waiting { .. })
    }
}

/// A session in flight, as the plan sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// The container that it was opened on.
    pub instance: String,
    /// When it was opened.
    pub since: Timestamp,
    /// The phase that runs.
    pub running: Option<Running>,
    /// What it is for.
    pub kind: SessionKind,
    /// The UID of the Lift that it is for.
    pub lift: Option<String>,
}

/// What a session is for, as far as the plan has to know.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SessionKind {
    /// It brings the node through its phases.
    #[default]
    Converge,
    /// It runs destroy-server.
    Farewell,
    /// It only looks: the node is as it was.
    Check,
    /// It runs what a Lift asks for.
    Lift,
}

/// The longest pause before a node that could not be reached is tried again: so long an outage goes on for it at the most
/// when it is over for all others.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The pause before a phase that never settles is run again under the same spec: facts may have come to rest.
pub const UNSETTLED_PAUSE: Duration = Duration::from_secs(3600);

/// A node that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The instance of the machine that it concerns.
    pub instance: String,
    /// How that was to be reached.
    pub target: Target,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when it could not be reached.
    pub since: Timestamp,
    /// Not to be tried again before.
    pub until: Timestamp,
    /// Over what it depends on, where something else than time may mend it.
    pub about: Option<Digest>,
}

impl Trouble {
    /// Whether it still keeps a machine from being tried. Another instance, or another way there, is another matter.
    pub fn holds(&self, machine: &Machine, now: Timestamp) -> bool {
        let same = matches!(&machine.state, MachineState::Running { id } if *id == self.instance);
        same && machine.target.as_ref() == Some(&self.target) && self.lasts(now)
    }

    /// Whether the pause is not over yet. One that ends later than any pause does was begun by a clock that was ahead.
    pub fn lasts(&self, now: Timestamp) -> bool {
        let longest = if self.about.is_some() { UNSETTLED_PAUSE } else { LONGEST_PAUSE };
        now < self.until && !next::is_ahead(self.until, next::after(now, longest))
    }
}

impl Node {
    /// What its status says of it: what everybody can see.
    pub fn written(&self) -> &Record {
        self.saved.as_ref().unwrap_or(&self.record)
    }

    /// The node's status as it stands.
    pub fn status(&self) -> GroupNodeStatus {
        let record = self.written();
        GroupNodeStatus {
            machine_ref: self.reported.machine_ref.clone(),
            template_hash: self.reported.template_hash.clone(),
            address: self.reported.address.clone(),
            incarnation: record.incarnation.clone(),
            facts: record.facts.clone(),
            phase_results: record.in_order(),
            drift: record.drift.clone(),
            lifts: record.lifts.clone(),
            running: self.reported.running.clone(),
            conditions: self.reported.conditions.clone(),
        }
    }
}
