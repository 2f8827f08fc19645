//! Pure: from which template a machine is made, and which revisions are kept.
//!
//! A lost machine is made from the template on which its node converged last, until it is the node's turn to be replaced. So a
//! template that does not work costs no more nodes than a rollout may have unavailable.

use jiff::SignedDuration;

use super::{Machine, MachineState, Node, QUOTA, Snapshot, TemplateVerdict, scale};
use crate::group::{Group, Replacement};

/// A machine that was made again counts for so long as one that will be available.
pub const RECOVERS_FOR: SignedDuration = SignedDuration::from_mins(5);
/// The most revisions that a group has.
pub const MOST: usize = 10;

/// The template other than the present one that the machine of a node is made from.
pub(super) fn of_node<'a>(snapshot: &'a Snapshot, group: &Group, node: &'a Node) -> Option<&'a str> {
    let own = Some(node.template_hash.as_str());
    let own = own.filter(|own| *own != group.node.hash() && snapshot.templates.contains_key(*own));
    // Where nodes are never replaced, people delete machines to have them made from the present template.
    let on_delete = group.rollout.replacement == Replacement::Never && !waits_for_approval(snapshot, group);
    match own {
        Some(own) if !on_delete || !is_usable(snapshot, group) => Some(own),
        _ if is_usable(snapshot, group) => None,
        _ => last_valid(snapshot, group),
    }
}

/// The template other than the present one that new nodes are made from: the last valid one where the present one cannot be
/// used, and that of the available nodes while the present one is tried on as many nodes as may be unavailable.
pub(super) fn of_new<'a>(snapshot: &'a Snapshot, group: &Group, live: &[&Node]) -> Option<&'a str> {
    if !is_usable(snapshot, group) {
        return last_valid(snapshot, group);
    }
    if group.rollout.replacement == Replacement::Never || !is_stuck(snapshot, group, live) {
        return None;
    }
    let serving = live.iter().filter(|node| scale::is_available(snapshot, group, node));
    let hashes = serving.filter_map(|node| snapshot.machine(node)).map(|machine| machine.template_hash.as_str());
    let mut hashes = hashes.filter(|hash| *hash != group.node.hash());
    hashes.find_map(|hash| snapshot.templates.get_key_value(hash)).map(|(hash, _)| hash.as_str())
}

/// Whether machines are made from the present template: it was not refused, and waits for nobody's approval.
fn is_usable(snapshot: &Snapshot, group: &Group) -> bool {
    let is_refused = match snapshot.template {
        // A used-up quota says nothing against a template.
        TemplateVerdict::Refused { reason, .. } => reason != QUOTA,
        TemplateVerdict::Unchecked | TemplateVerdict::Accepted => false,
    };
    // Without the present declaration it is the last valid one that is asked for.
    snapshot.group.is_err() || !(is_refused || waits_for_approval(snapshot, group))
}

fn waits_for_approval(snapshot: &Snapshot, group: &Group) -> bool {
    let approved = snapshot.status.approved.as_ref();
    snapshot.leave.proposal.is_some() && approved.is_some_and(|approved| !group.node.is_made_as(&approved.template))
}

fn last_valid<'a>(snapshot: &'a Snapshot, group: &Group) -> Option<&'a str> {
    let shape = snapshot.revisions.last().and_then(|revision| revision.shape.as_ref())?;
    let (hash, _) = snapshot.templates.get_key_value(shape.hash())?;
    (hash != group.node.hash()).then_some(hash)
}

/// Whether the present template has not worked on any node yet, and is tried on as many as may be unavailable.
pub(super) fn is_stuck(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> bool {
    let present =
        |node: &&&Node| snapshot.machine(node).is_some_and(|machine| machine.template_hash == group.node.hash());
    let (available, trying): (Vec<&Node>, Vec<&Node>) =
        live.iter().filter(present).partition(|node| scale::is_available(snapshot, group, node));
    let room = group.rollout.max_unavailable.max(1).saturating_add(group.rollout.max_surge);
    available.is_empty() && trying.len() >= room as usize
}

/// Whether a machine that is not available was made again a short while ago, from a template on which its node has converged:
/// it will be available soon.
pub(super) fn is_recovering(snapshot: &Snapshot, node: &Node, machine: &Machine) -> bool {
    machine.template_hash == node.template_hash
        && !matches!(machine.state, MachineState::Gone { .. })
        && machine.created > node.created + SignedDuration::from_secs(1)
        && snapshot.now < machine.created + RECOVERS_FOR
}

/// What is to be done about the revisions of a group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// The number of a new one, of the present declaration.
    pub keep: Option<i64>,
    /// Those to delete, with name and UID: no node is on them.
    pub drop: Vec<(String, String)>,
}

/// What is to be done about the revisions of a group. At rest nothing.
pub fn due(snapshot: &Snapshot) -> Due {
    let Ok(group) = &snapshot.group else { return Due::default() };
    if snapshot.head.deletion.is_some() || !snapshot.head.finalized {
        return Due::default();
    }
    let newest = snapshot.revisions.last();
    if newest.is_none_or(|newest| newest.digest != group.declared) {
        let is_new = snapshot.unkept.as_ref() != Some(&group.declared);
        let keep = is_new && is_valid(snapshot, group) && snapshot.leave.proposal.is_none();
        return Due {
            keep: keep.then(|| newest.map_or(1, |newest| newest.number.saturating_add(1))),
            drop: Vec::new(),
        };
    }
    let mut unexplained: Vec<&String> = snapshot.recorded.iter().collect();
    let mut due = Due::default();
    for (age, revision) in snapshot.revisions.iter().rev().enumerate() {
        let before = unexplained.len();
        unexplained.retain(|recorded| !revision.explains(recorded));
        let is_needed = age == 0 || (unexplained.len() < before && age < MOST);
        if !is_needed {
            due.drop.push((revision.name.clone(), revision.uid.clone()));
        }
    }
    due
}

/// Whether the API server takes what is made from the present template: it said so, or there is a machine.
fn is_valid(snapshot: &Snapshot, group: &Group) -> bool {
    let is_made =
        |node: &Node| snapshot.machine(node).is_some_and(|machine| machine.template_hash == group.node.hash());
    group.node.hosts().is_some() || snapshot.template == TemplateVerdict::Accepted || snapshot.live().any(is_made)
}
