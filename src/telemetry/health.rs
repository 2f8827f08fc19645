//! Whether the operator is alive, and whether it can do its work.
//!
//! *Alive* is a matter of the process alone: its loops come round. An API server that cannot be reached never makes it
//! fail, since a restart would not help and a herd of restarts would hurt. *Ready* says whether the operator can do what
//! its role asks of it now; nothing is routed by it, but a Deployment that is not Available gets somebody's attention.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

/// What cannot reach the API server for so long is not ready.
const OUT_OF_REACH: Duration = Duration::from_secs(60);
/// A watch that failed and was silent for so long since is open: it is tried again every 30 s at the least.
const RECOVERED: Duration = Duration::from_secs(90);

/// The health of one operator. Clones speak of the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    next: AtomicU64,
}

/// What an operator is for at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It is starting.
    #[default]
    Starting,
    /// It waits for the lease.
    Standby,
    /// It holds the lease and is at work.
    Leader,
    /// It is at work without an election.
    Alone,
    /// It is stopping.
    Stopping,
}

#[derive(Debug, Default)]
struct State {
    role: Role,
    lease_seen: Option<Instant>,
    hearts: BTreeMap<u64, Beat>,
    watches: BTreeMap<u64, Watch>,
}

#[derive(Debug)]
struct Beat {
    name: &'static str,
    last: Instant,
    patience: Duration,
}

#[derive(Debug)]
struct Watch {
    name: String,
    listed: bool,
    /// Its first and its last failure in a row.
    failing: Option<(Instant, Instant)>,
}

impl Watch {
    fn out_of_reach(&self, now: Instant) -> bool {
        self.failing.is_some_and(|(first, last)| {
            now.saturating_duration_since(last) < RECOVERED && now.saturating_duration_since(first) >= OUT_OF_REACH
        })
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    fn slot(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The operator has this role from now on.
    pub fn become_role(&self, role: Role) {
        self.state().role = role;
    }

    /// The lease was read or written.
    pub fn lease_seen(&self) {
        self.state().lease_seen = Some(Instant::now());
    }

    /// A loop that beats from now on, and is stuck when it has not for as long as `patience`. It may end: then what is
    /// returned is dropped.
    pub fn heart(&self, name: &'static str, patience: Duration) -> Heart {
        let slot = self.slot();
        self.state().hearts.insert(slot, Beat { name, last: Instant::now(), patience });
        Heart { health: self.clone(), slot }
    }

    /// A watch that the work depends on, until what is returned is dropped.
    pub fn watch(&self, name: String) -> Watched {
        let slot = self.slot();
        self.state().watches.insert(slot, Watch { name, listed: false, failing: None });
        Watched { health: self.clone(), slot }
    }

    /// Whether the process is alive.
    ///
    /// # Errors
    /// Which loop is stuck, and since when.
    pub fn alive(&self, now: Instant) -> Result<String, String> {
        let state = self.state();
        let silent = |beat: &&Beat| now.saturating_duration_since(beat.last) > beat.patience;
        let stuck: Vec<String> = state.hearts.values().filter(silent).map(|beat| describe(beat, now)).collect();
        if stuck.is_empty() { Ok("alive".into()) } else { Err(format!("stuck: {}", stuck.join("; "))) }
    }

    /// Whether the operator can do its work, and what that is.
    ///
    /// # Errors
    /// What it cannot do.
    pub fn ready(&self, now: Instant) -> Result<String, String> {
        let state = self.state();
        match state.role {
            Role::Starting => Err("starting".into()),
            Role::Stopping => Err("stopping".into()),
            Role::Standby => match state.lease_seen.map(|seen| now.saturating_duration_since(seen)) {
                Some(ago) if ago < OUT_OF_REACH => Ok("standby, the lease is watched".into()),
                Some(ago) => Err(format!("standby, the lease could not be read for {} s", ago.as_secs())),
                None => Err("standby, the lease has not been read yet".into()),
            },
            Role::Leader => state.synced("leader", now),
            Role::Alone => state.synced("alone", now),
        }
    }
}

impl State {
    fn synced(&self, role: &str, now: Instant) -> Result<String, String> {
        let names = |wanted: &dyn Fn(&Watch) -> bool| -> Vec<&str> {
            self.watches.values().filter(|watch| wanted(watch)).map(|watch| watch.name.as_str()).collect()
        };
        let broken = names(&|watch| watch.out_of_reach(now));
        if !broken.is_empty() {
            return Err(format!(
                "{role}, cannot be watched for more than {} s: {}",
                OUT_OF_REACH.as_secs(),
                broken.join(", ")
            ));
        }
        let unlisted = names(&|watch| !watch.listed);
        if self.watches.is_empty() || !unlisted.is_empty() {
            return Err(format!("{role}, caches not synced: {}", unlisted.join(", ")));
        }
        Ok(format!("{role}, caches synced"))
    }
}

fn describe(beat: &Beat, now: Instant) -> String {
    format!("{} for {} s", beat.name, now.saturating_duration_since(beat.last).as_secs())
}

/// A loop that shows that it comes round.
#[derive(Debug)]
pub struct Heart {
    health: Health,
    slot: u64,
}

impl Heart {
    /// It has come round.
    pub fn beat(&self) {
        if let Some(beat) = self.health.state().hearts.get_mut(&self.slot) {
            beat.last = Instant::now();
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.health.state().hearts.remove(&self.slot);
    }
}

/// A watch that tells how it fares.
#[derive(Debug)]
pub struct Watched {
    health: Health,
    slot: u64,
}

impl Watched {
    /// Everything that there is has been listed.
    pub fn listed(&self) {
        self.change(|watch| (watch.listed, watch.failing) = (true, None));
    }

    /// Something came.
    pub fn works(&self) {
        self.change(|watch| watch.failing = None);
    }

    /// It failed, and is opened again. What was listed is old, and there all the same.
    pub fn failed(&self) {
        let now = Instant::now();
        self.change(|watch| {
            let row = watch.failing.filter(|(_, last)| now.saturating_duration_since(*last) < RECOVERED);
            watch.failing = Some((row.map_or(now, |(first, _)| first), now));
        });
    }

    fn change(&self, change: impl FnOnce(&mut Watch)) {
        if let Some(watch) = self.health.state().watches.get_mut(&self.slot) {
            change(watch);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.health.state().watches.remove(&self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_loop_that_does_not_come_round_is_told_by_name_until_it_does_or_ends() {
        let health = Health::default();
        let (loop_, other) =
            (health.heart("a loop", Duration::from_secs(10)), health.heart("other", Duration::from_secs(100)));
        assert!(health.alive(later(9)).is_ok());
        assert_eq!(health.alive(later(20)), Err("stuck: a loop for 20 s".into()));
        loop_.beat();
        assert!(health.alive(later(9)).is_ok());
        drop(loop_);
        assert!(health.alive(later(99)).is_ok());
        drop(other);
        assert!(health.alive(later(1000)).is_ok(), "nothing runs, so nothing is stuck");
    }

    #[test]
    fn a_leader_is_ready_once_everything_is_listed() {
        let health = Health::default();
        assert!(health.ready(later(0)).is_err(), "it is starting");
        health.become_role(Role::Leader);
        assert!(health.ready(later(0)).is_err(), "nothing is watched yet");
        let (groups, pods) = (health.watch("GroupSpec".into()), health.watch("Pod".into()));
        groups.listed();
        assert_eq!(health.ready(later(0)), Err("leader, caches not synced: Pod".into()));
        pods.listed();
        assert_eq!(health.ready(later(0)), Ok("leader, caches synced".into()));
        health.become_role(Role::Stopping);
        assert!(health.ready(later(0)).is_err());
    }

    #[test]
    fn a_watch_that_fails_for_long_makes_it_unready_and_one_that_failed_once_does_not() {
        let health = Health::default();
        health.become_role(Role::Alone);
        let pods = health.watch("Pod in shop".into());
        pods.listed();
        pods.failed();
        assert!(health.ready(later(59)).is_ok(), "it may be a restart of the API server");
        assert!(health.ready(later(61)).unwrap_err().ends_with("60 s: Pod in shop"));
        // A watch that came back without any event says nothing, but it does not fail any more either.
        assert!(health.ready(later(91)).is_ok());
        pods.failed();
        pods.works();
        assert!(health.ready(later(61)).is_ok());
        assert!(health.alive(later(61)).is_ok(), "a restart would not help");
    }

    #[test]
    fn a_standby_is_ready_while_it_can_read_the_lease() {
        let health = Health::default();
        health.become_role(Role::Standby);
        assert!(health.ready(later(0)).is_err());
        health.lease_seen();
        assert_eq!(health.ready(later(10)), Ok("standby, the lease is watched".into()));
        assert!(health.ready(later(70)).is_err());
    }
}
