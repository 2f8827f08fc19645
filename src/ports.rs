//! What the controller needs of the world, besides three seams that exist already: [`kube::Client`] is the API server (any `tower`
//! service can stand behind it), [`Vault`](crate::run::vault::Vault) reads the Secrets of a session, and
//! [`Transport`](crate::transport::Transport) opens its connection. The simulation gives each of them an implementation of its own
//! and runs the same reconciles.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::run::{Runs, Seen, Start};
use pallet_core::{
    group::{Group, GroupKey},
    plan::{Bound, Plan, Record, Snapshot},
};

/// The time. Everything in a reconcile that compares or records times asks this.
pub trait Clock: Send + Sync {
    /// The time of day, as it is written into a status. It may jump.
    fn now(&self) -> Timestamp;
    /// For what is measured from one moment to another. It never goes back.
    fn instant(&self) -> Instant;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The sessions on nodes, by the UID of their GroupNode. No call waits for a node.
pub trait Sessions: Send + Sync {
    /// What is known of a node beyond the caches.
    fn seen(&self, node_uid: &str) -> Seen;
    /// Opens a session, unless one is open on the node.
    fn start(&self, start: Start);
    /// Gives the session of a node the newest spec, and how far the node may go.
    fn direct(&self, node_uid: &str, group: &Arc<Group>, retry_token: &str, bound: &Bound);
    /// Lets no further phase start in the session of a node.
    fn hold(&self, node_uid: &str);
    /// Ends the session of a node. What it knows is kept.
    fn end(&self, node_uid: &str, why: &'static str);
    /// The record was written to the status of the GroupNode, and the caches show it.
    fn saved(&self, node_uid: &str, written: &Record);
    /// Forgets a node that was deleted.
    fn forget(&self, node_uid: &str);
    /// Queues a reconcile of a group.
    fn look_at(&self, group: &GroupKey);
}

impl Sessions for Arc<Runs> {
    fn seen(&self, node_uid: &str) -> Seen {
        Runs::seen(self, node_uid)
    }
    fn start(&self, start: Start) {
        Runs::start(self, start, Timestamp::now());
    }
    fn direct(&self, node_uid: &str, group: &Arc<Group>, retry_token: &str, bound: &Bound) {
        Runs::direct(self, node_uid, group, retry_token, bound);
    }
    fn hold(&self, node_uid: &str) {
        Runs::hold(self, node_uid);
    }
    fn end(&self, node_uid: &str, why: &'static str) {
        Runs::end(self, node_uid, why);
    }
    fn saved(&self, node_uid: &str, written: &Record) {
        Runs::saved(self, node_uid, written);
    }
    fn forget(&self, node_uid: &str) {
        Runs::forget(self, node_uid);
    }
    fn look_at(&self, group: &GroupKey) {
        Runs::look_at(self, group);
    }
}

/// Sees each plan of a group before it is carried out. The simulation checks its invariants here.
pub type PlanObserver = Arc<dyn Fn(&Snapshot, &Plan) + Send + Sync>;
