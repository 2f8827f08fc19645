//! Pure: the volume claims of a group: whose a claim is, what its pods mount, and what differs from what is declared.
//!
//! A claim is *made for the group* where its annotation has the group's UID. It is *the group's to use* where its label has
//! the group's name: made for it, left by a former group of the same name, or a user's that the group was told to use.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::Value;

use super::{Claim, Effect, Machine, Node, Plan, Snapshot, earliest};
use crate::group::{ClaimShape, Group, quantity};
use pallet_api::reason::Reason;
use pallet_api::{conditions::Verdict, nodes::ClaimPolicy};

/// The condition of a group whose claims are not as declared.
pub const CONDITION: &str = "ClaimsDiffer";
/// An expansion that was refused is tried again after this: a StorageClass may have been edited.
pub const EXPAND_AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// How many differences a message names.
const NAMED: usize = 3;
/// The field that claims are declared in.
const PATH: &str = "spec.node.pod.volumeClaimTemplates";

/// Whose a claim is that stands at a name that a node needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ownership {
    /// The group's to use.
    Ours,
    /// Nobody has marked it, and the group may use it: it is to be marked as the group's first.
    Unmarked,
    /// Somebody else's. Says whose, and what to do.
    Conflict(String),
}

/// What is known of a claim that was found at a name that a node needs.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The claim's name.
    pub name: &'a str,
    /// The value of its label `pallet.dev/group`.
    pub group: Option<&'a str>,
    /// The value of its annotation `pallet.dev/group-uid`.
    pub group_uid: Option<&'a str>,
}

/// Whose a claim is that was found at the name of an entry's claim.
pub fn ownership(group: &Group, entry: &ClaimShape, found: Found) -> Ownership {
    let Found { name, group: label, group_uid } = found;
    let at = group.node.claims().iter().position(|other| other.name == entry.name).unwrap_or_default();
    match label {
        Some(label) if label == group.key.name => Ownership::Ours,
        Some(other) => Ownership::Conflict(format!(
            "claim {name} belongs to group {other}; rename {PATH}[{at}].metadata.name or this group, or, if {other} no \
             longer exists, remove the label pallet.dev/group from the claim"
        )),
        // Somebody took the label off.
        None if group_uid == Some(&group.uid) => Ownership::Unmarked,
        None if entry.policy == ClaimPolicy::UseExisting && group_uid.is_none() => Ownership::Unmarked,
        None => Ownership::Conflict(format!(
            "claim {name} exists and was not created for this group; set {PATH}[{at}].claimPolicy to UseExisting to use \
             it, rename the entry, or delete the claim"
        )),
    }
}

/// Whether a pod does not mount a claim that is declared now: it was made before the entry was added.
pub fn lacks_volume(group: &Group, machine: &Machine) -> bool {
    group.node.claims().iter().any(|entry| !mounts(machine, &entry.claim_name(&machine.name)))
}

/// Whether a pod mounts a claim. What does not say what it mounts is taken to mount all.
pub fn mounts(machine: &Machine, claim: &str) -> bool {
    machine.claims.as_ref().is_none_or(|claims| claims.contains(claim))
}

/// The claims of a node that are to be created or, where another had its name, to be tried again.
pub fn missing<'a>(
    snapshot: &'a Snapshot,
    group: &'a Group,
    node: &'a str,
    machine: Option<&'a Machine>,
) -> impl Iterator<Item = &'a ClaimShape> {
    let wanted = move |entry: &&ClaimShape| {
        let name = entry.claim_name(node);
        let mounted = machine.is_none_or(|machine| mounts(machine, &name));
        mounted && snapshot.claims.get(&name).is_none_or(|claim| claim.conflict.is_some() && snapshot.recheck)
    };
    group.node.claims().iter().filter(wanted)
}

/// Why a node can have no pod now: a claim that it needs is somebody else's. The claim, and what to do.
pub fn conflict(snapshot: &Snapshot, group: &Group, node: &str) -> Option<(String, String)> {
    let claims = group.node.claims().iter().filter_map(|entry| snapshot.claims.get(&entry.claim_name(node)));
    claims.filter_map(|claim| Some((claim.name.clone(), claim.conflict.clone()?))).next()
}

/// How a claim differs from what is declared.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Difference {
    /// It is smaller, and is to be expanded to this.
    Smaller(String),
    /// Something that is told and not changed: one CamelCase word, and a text.
    Told(Reason, String),
}

fn storage(spec: &Value) -> Option<&str> {
    spec["resources"]["requests"]["storage"].as_str()
}

/// Whether a declared value is there, whatever stands beside it. The order of lists does not count.
fn covers(there: &Value, declared: &Value) -> bool {
    match (there, declared) {
        (Value::Object(there), Value::Object(declared)) => {
            declared.iter().all(|(key, value)| there.get(key).is_some_and(|there| covers(there, value)))
        }
        (Value::Array(there), Value::Array(declared)) => {
            there.len() == declared.len() && declared.iter().all(|value| there.iter().any(|there| covers(there, value)))
        }
        (there, declared) => there == declared,
    }
}

fn differences(snapshot: &Snapshot, group: &Group, node: &Node) -> Vec<(String, Difference)> {
    let machine = snapshot.machine(node).filter(|machine| !machine.deleting);
    let mut found = Vec::new();
    for (at, entry) in group.node.claims().iter().enumerate() {
        let Some(claim) = snapshot.claims.get(&entry.claim_name(&node.name)) else { continue };
        let name = &claim.name;
        let mut told = |reason, text: String| found.push((name.clone(), Difference::Told(reason, text)));
        if claim.conflict.is_none() && claim.spec.is_null() {
            continue;
        }
        if let Some(conflict) = &claim.conflict {
            // Without a pod it is what the node waits for.
            if machine.is_some() {
                told(Reason::NameConflict, conflict.clone());
            }
            continue;
        }
        if claim.deleting {
            if machine.is_some_and(|machine| mounts(machine, name)) {
                let text = format!(
                    "claim {name} is being deleted: it goes with pod {}, and its data with it, and a new one is made; copy the data first",
                    node.name
                );
                told(Reason::ClaimTerminating, text);
            }
            continue;
        }
        if let (Some(declared), Some(there)) = (storage(&entry.spec), storage(&claim.spec))
            && let (Some(wanted), Some(has)) = (quantity::parse(declared), quantity::parse(there))
            && wanted != has
        {
            let path = format!("{PATH}[{at}].spec.resources.requests.storage");
            match snapshot.expansions.get(name).filter(|refused| refused.storage == declared) {
                _ if wanted < has => {
                    told(
                        Reason::CannotShrink,
                        format!("{path}: claim {name} has {there} and cannot shrink to {declared}; declare {there}"),
                    );
                }
                _ if claim.is_users() => {
                    told(
                        Reason::NotExpanded,
                        format!(
                            "{path}: claim {name} has {there}, and the operator does not change a claim that it did not create; expand it to {declared}, or declare {there}"
                        ),
                    );
                }
                Some(refused) => {
                    told(
                        Reason::ExpansionRefused,
                        format!(
                            "{path}: claim {name} has {there} and was not expanded to {declared}: {}",
                            refused.message
                        ),
                    );
                }
                None => found.push((name.clone(), Difference::Smaller(declared.to_owned()))),
            }
        }
        let fields = entry.spec.as_object().into_iter().flatten().filter(|(field, _)| *field != "resources");
        for (field, declared) in fields.filter(|(field, declared)| !covers(&claim.spec[field.as_str()], declared)) {
            let there = &claim.spec[field.as_str()];
            found.push((name.clone(), Difference::Told(Reason::ImmutableField, format!(
                "{PATH}[{at}].spec.{field}: claim {name} has {there} and cannot be changed to {declared}; declare {there}, or \
                 move the data, delete the claim and then the node's pod"
            ))));
        }
    }
    found
}

/// Expands what is smaller than declared.
pub fn expand(snapshot: &Snapshot, group: &Group, nodes: &[&Node], plan: &mut Plan) {
    for node in nodes {
        for (name, difference) in differences(snapshot, group, node) {
            let Some(claim) = snapshot.claims.get(&name) else { continue };
            let refused = matches!(&difference, Difference::Told(Reason::ExpansionRefused, _));
            if refused {
                plan.wake = earliest(plan.wake, Some(snapshot.now + EXPAND_AGAIN));
            }
            let storage = match difference {
                Difference::Smaller(storage) => storage,
                Difference::Told(..) => match snapshot.expansions.get(&name) {
                    Some(before) if refused && snapshot.now >= before.since + EXPAND_AGAIN => before.storage.clone(),
                    _ => continue,
                },
            };
            plan.effects.push(Effect::ExpandClaim { name, uid: claim.uid.clone(), storage });
        }
    }
}

/// An expansion that the API server refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// What was asked for.
    pub storage: String,
    /// In the API server's words.
    pub message: String,
    /// When.
    pub since: jiff::Timestamp,
}

/// The condition of a group whose claims are not as declared.
pub fn of_group(snapshot: &Snapshot, group: &Group, live: &[&Node]) -> Option<Verdict> {
    let mut told: BTreeMap<(&str, String), ()> = BTreeMap::new();
    let mut expanding = Vec::new();
    for node in live {
        for (name, difference) in differences(snapshot, group, node) {
            match difference {
                Difference::Told(reason, text) => drop(told.insert((reason.as_str(), text), ())),
                Difference::Smaller(storage) => expanding.push(format!("claim {name} is to be expanded to {storage}")),
            }
        }
    }
    let first = told.keys().next().map(|(reason, _)| *reason);
    let reason = first.or((!expanding.is_empty()).then_some(Reason::Expanding.as_str()))?;
    let texts: Vec<String> = told.into_keys().map(|(_, text)| text).chain(expanding).collect();
    let more = texts.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = format!("{}{more}", texts[..texts.len().min(NAMED)].join("; "));
    Some(Verdict { kind: CONDITION, status: true, reason: reason.to_owned(), message })
}

impl Claim {
    /// Whether a user made it, and the group was told to use it.
    pub fn is_users(&self) -> bool {
        self.group.is_none()
    }

    /// Whether it may be deleted by a group: that had it made, for a node that its name ends with. A copy of a claim, marks
    /// included, has another name, and what another group's pods mount is not one's own alone.
    pub fn is_made_for(&self, group_uid: &str) -> bool {
        self.group.as_deref() == Some(group_uid)
            && !self.is_shared
            && !self.node.is_empty()
            && self.name.strip_suffix(&self.node).is_some_and(|entry| entry.len() > 1 && entry.ends_with('-'))
    }
}
