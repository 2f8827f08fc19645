//! Pure but for the clock that is handed in: which nodes have which role, as other groups see them.
//!
//! A change is shown when it has rested for a moment, so that a group that comes up costs its dependents one pass and not one
//! for each node. Facts that keep changing while nodes stay the same rest longer each time: two groups that use each other's
//! facts settle or are slowed down, and are reported.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use pallet_core::{
    group::{
        GroupKey,
        inputs::{Inputs, Peer},
    },
    plan::earliest,
};

/// A change rests this long before it is shown, and no change waits longer than the second, however many follow it.
const REST: SignedDuration = SignedDuration::from_secs(2);
const LONGEST_REST: SignedDuration = SignedDuration::from_secs(10);
/// Facts that keep changing rest this long at the most.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(300);
/// A group whose facts have rested this long begins anew.
const AT_PEACE: SignedDuration = SignedDuration::from_secs(900);
/// From so many changes in a row on it is said that they do not end.
const RESTLESS: u32 = 5;

/// What the groups show of their nodes.
#[derive(Debug, Default)]
pub struct Roles {
    groups: HashMap<GroupKey, Shown>,
    /// The namespaces of which every group has been looked at once since the operator began.
    complete: HashSet<String>,
}

#[derive(Debug, Default)]
struct Shown {
    roles: Vec<String>,
    /// What others see.
    peers: Arc<Vec<Peer>>,
    /// What they will see, and since when it is so, and since when anything is otherwise.
    pending: Option<(Arc<Vec<Peer>>, Timestamp, Timestamp)>,
    /// How often facts alone have changed in a row, and when the last such change was shown.
    changes: u32,
    changed: Option<Timestamp>,
}

impl Shown {
    /// When what is pending may be shown.
    fn due(&self) -> Option<Timestamp> {
        let (peers, since, first) = self.pending.as_ref()?;
        let rest = (*since + REST).min(*first + LONGEST_REST);
        let pause = REST.saturating_mul(1 << self.changes.min(10)).min(LONGEST_PAUSE);
        // Who comes or goes is never kept back for that.
        let pause =
            self.changed.filter(|_| self.changes > 0 && who(peers) == who(&self.peers)).map(|changed| changed + pause);
        Some(pause.map_or(rest, |pause| pause.max(rest)))
    }

    fn settle(&mut self, now: Timestamp) {
        if self.changed.is_some_and(|changed| changed + AT_PEACE < now) {
            self.changes = 0;
        }
        if self.due().is_none_or(|due| now < due) {
            return;
        }
        let Some((peers, ..)) = self.pending.take() else { return };
        if who(&peers) == who(&self.peers) {
            (self.changes, self.changed) = (self.changes + 1, Some(now));
        }
        self.peers = peers;
    }
}

/// The nodes, whatever is known of them.
fn who(peers: &[Peer]) -> Vec<(&str, &str)> {
    peers.iter().map(|peer| (peer.name.as_str(), peer.address.as_str())).collect()
}

impl Roles {
    /// Takes in what a group shows. Returns the roles whose nodes are others now, or will be.
    pub fn publish(&mut self, key: &GroupKey, roles: &[String], peers: Vec<Peer>, now: Timestamp) -> Vec<String> {
        if roles.is_empty() {
            return self.withdraw(key);
        }
        let known = self.groups.contains_key(key);
        let shown = self.groups.entry(key.clone()).or_default();
        shown.settle(now);
        let mut touched = Vec::new();
        if shown.roles != roles {
            touched.extend(std::mem::replace(&mut shown.roles, roles.to_vec()));
            touched.extend_from_slice(roles);
        }
        if !known {
            // Nobody has seen anything of it yet.
            shown.peers = Arc::new(peers);
        } else if *shown.peers == peers {
            shown.pending = None;
        } else if shown.pending.as_ref().is_none_or(|(pending, ..)| **pending != peers) {
            let first = shown.pending.as_ref().map_or(now, |(_, _, first)| *first);
            shown.pending = Some((Arc::new(peers), now, first));
            touched.extend_from_slice(roles);
        }
        touched.sort();
        touched.dedup();
        touched
    }

    /// Whether anything of a group is shown.
    pub fn shows(&self, key: &GroupKey) -> bool {
        self.groups.contains_key(key)
    }

    /// A group is gone. Returns the roles that it had.
    pub fn withdraw(&mut self, key: &GroupKey) -> Vec<String> {
        self.groups.remove(key).map(|shown| shown.roles).unwrap_or_default()
    }

    /// Whether every group of a namespace has been looked at: before, a node that is not shown may be there all the same.
    /// `groups` are those that there are.
    pub fn complete(&mut self, namespace: &str, mut unseen: impl FnMut() -> bool) -> bool {
        if !self.complete.contains(namespace) && !unseen() {
            self.complete.insert(namespace.to_owned());
        }
        self.complete.contains(namespace)
    }

    /// What a group sees of the roles that it uses, and when to look again.
    pub fn see(&mut self, namespace: &str, used: &[String], now: Timestamp) -> (Inputs, Option<Timestamp>) {
        let mut wake = None;
        let mut restless = None;
        for (_, shown) in self.groups.iter_mut().filter(|(key, _)| key.namespace == namespace) {
            let Some(role) = shown.roles.iter().find(|role| used.contains(role)) else { continue };
            let role = role.clone();
            shown.settle(now);
            wake = earliest(wake, shown.due());
            if shown.changes >= RESTLESS {
                restless = Some(role);
            }
        }
        let of_role = |role: &String| {
            let groups =
                self.groups.iter().filter(|(key, shown)| key.namespace == namespace && shown.roles.contains(role));
            let mut peers: Vec<&Peer> = groups.flat_map(|(_, shown)| shown.peers.iter()).collect();
            peers.sort_by(|a, b| (&a.group, a.ordinal).cmp(&(&b.group, b.ordinal)));
            (role.clone(), peers)
        };
        let roles: BTreeMap<String, Vec<&Peer>> = used.iter().map(of_role).collect();
        (Inputs { nodes: Inputs::nodes(&roles), restless, ..Inputs::default() }, wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn key(name: &str) -> GroupKey {
        GroupKey { namespace: "shop".into(), name: name.into() }
    }

    fn peer(ordinal: u32, version: u32) -> Peer {
        let facts = [("version".to_owned(), json!(version))].into();
        Peer { name: format!("db-{ordinal}"), group: "db".into(), ordinal, address: format!("10.0.0.{ordinal}"), facts }
    }

    fn db() -> Vec<String> {
        vec!["db".to_owned()]
    }

    fn seen(roles: &mut Roles, second: i64) -> (String, Option<i64>) {
        let (inputs, wake) = roles.see("shop", &db(), at(second));
        (serde_json::to_string(&inputs.nodes).unwrap(), wake.map(|wake| wake.as_second()))
    }

    #[test]
    fn a_change_is_shown_when_it_has_rested_and_a_group_that_is_met_at_once() {
        let mut roles = Roles::default();
        assert_eq!(roles.publish(&key("db"), &db(), vec![peer(0, 1)], at(0)), db());
        assert!(seen(&mut roles, 0).0.contains("10.0.0.0"));
        for second in 1..9 {
            let peers = (0..=second as u32).map(|ordinal| peer(ordinal, 1)).collect();
            assert_eq!(roles.publish(&key("db"), &db(), peers, at(second)), db());
            let (nodes, wake) = seen(&mut roles, second);
            assert!(!nodes.contains("10.0.0.1"), "{second}");
            assert_eq!(wake, Some((second + 2).min(11)));
        }
        let (nodes, wake) = seen(&mut roles, 10);
        assert!(nodes.contains("10.0.0.8") && wake.is_none());
        assert_eq!(roles.withdraw(&key("db")), db());
        assert_eq!(seen(&mut roles, 11).0, r#"{"db":[]}"#);
    }

    #[test]
    fn facts_that_never_rest_are_shown_ever_more_rarely_and_reported() {
        let mut roles = Roles::default();
        roles.publish(&key("db"), &db(), vec![peer(0, 0)], at(0));
        let (mut now, mut shown) = (0, Vec::new());
        for version in 1..20 {
            roles.publish(&key("db"), &db(), vec![peer(0, version)], at(now));
            let due = roles.groups[&key("db")].due().unwrap().as_second();
            shown.push(due - now);
            now = due;
            seen(&mut roles, now);
        }
        assert_eq!(shown[..5], [2, 4, 8, 16, 32]);
        assert_eq!(shown[18], 300);
        assert_eq!(roles.see("shop", &db(), at(now)).0.restless, Some("db".to_owned()));
        // A long peace makes up for it.
        roles.publish(&key("db"), &db(), vec![peer(0, 99)], at(now + 1000));
        assert_eq!(roles.groups[&key("db")].due(), Some(at(now + 1002)));
    }

    #[test]
    fn nothing_is_seen_of_another_namespace() {
        let mut roles = Roles::default();
        let elsewhere = GroupKey { namespace: "other".into(), name: "db".into() };
        roles.publish(&elsewhere, &db(), vec![peer(0, 1)], at(0));
        assert_eq!(seen(&mut roles, 0).0, r#"{"db":[]}"#);
    }
}
