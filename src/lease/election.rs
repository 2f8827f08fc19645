//! Pure: who holds the lease, judged by what was seen of it and when.
//!
//! The times in a Lease are what its holder's clock said, so nothing here relies on them. A holder is taken for gone when
//! its Lease has had the same resource version for as long as it asked for, by the clock of whoever looks; and it takes
//! itself for gone some seconds before anyone else can, counted from the moment at which it *sent* its last renewal. So
//! two never hold the lease at once, however wrong their clocks are, as long as they tick about equally fast.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};

/// A moment, as the time since some other one, by a clock that is never set.
pub type Moment = Duration;

/// How long things take, as in client-go.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A holder that has not renewed for so long may be replaced.
    pub lease: Duration,
    /// A holder that could not renew for so long steps down. Less than `lease`, or two might hold it.
    pub renew: Duration,
    /// The pause between two attempts.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// One candidate's view of a lease.
#[derive(Debug)]
pub struct Elector {
    identity: String,
    timing: Timing,
    seen: Option<Seen>,
    /// When the last renewal that succeeded was sent; none where the lease is not held.
    renewed: Option<Moment>,
}

#[derive(Debug)]
struct Seen {
    lease: Lease,
    /// Since when it has stood like this, as far as was seen.
    since: Moment,
}

/// What is to be done about the lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Ask for this: to create it where it has no resource version, to replace it where it has one.
    Write(Box<Lease>),
    /// Somebody holds it.
    Wait,
    /// It was held and is not any more.
    Lost(Loss),
}

/// Why a lease was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// Somebody else has it.
    #[error("{0} has taken the lease")]
    Taken(String),
    /// It could not be renewed in time.
    #[error("the lease could not be renewed in time")]
    Expired,
}

impl Elector {
    /// A candidate that has seen nothing. `identity` must be nobody else's.
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, seen: None, renewed: None }
    }

    /// Who the candidate is.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Who holds the lease, by what was seen last.
    pub fn holder(&self) -> Option<&str> {
        let spec = self.seen.as_ref()?.lease.spec.as_ref()?;
        spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Whether the candidate holds the lease.
    pub fn holds(&self, now: Moment) -> bool {
        self.renewed.is_some_and(|sent| now < sent + self.timing.renew)
    }

    /// How long a call may take: so long that another can follow, and never beyond where the lease is lost.
    pub fn patience(&self, now: Moment) -> Duration {
        let left = self.renewed.map(|sent| (sent + self.timing.renew).saturating_sub(now));
        left.unwrap_or(self.timing.renew).min(self.timing.renew / 2)
    }

    /// The pause before the next attempt; `jitter` from 0 to 1 keeps candidates from coming all at once. It does not go
    /// beyond where the candidate's own lease is lost, or somebody else's runs out.
    pub fn pause(&self, jitter: f64, now: Moment) -> Duration {
        let pause = self.timing.retry.mul_f64(1.0 + jitter.clamp(0.0, 1.0) / 2.0).min(self.patience(now));
        let other = self.expiry().filter(|expiry| self.renewed.is_none() && *expiry > now);
        other.map_or(pause, |expiry| pause.min(expiry - now))
    }

    /// Takes in what was read; nothing where there is no lease. `now` is when the answer had come.
    pub fn observe(&mut self, lease: Option<Lease>, now: Moment) {
        self.seen = lease.map(|lease| {
            // Not by its content: a clock that is set back could bring an earlier record back.
            let version = &lease.metadata.resource_version;
            let same = self.seen.as_ref().filter(|seen| seen.lease.metadata.resource_version == *version);
            Seen { since: same.map_or(now, |seen| seen.since), lease }
        });
    }

    /// Takes in the answer to a write that succeeded: `sent` is when it was asked for, `now` when the answer had come.
    pub fn written(&mut self, lease: Lease, sent: Moment, now: Moment) {
        self.observe(Some(lease), now);
        self.renewed = Some(sent);
    }

    /// Does not hold the lease any more, and may stand for election again.
    pub fn step_down(&mut self) {
        self.renewed = None;
    }

    /// What is to be done now. `wall` goes into the record for people to read.
    pub fn next(&self, now: Moment, wall: Timestamp) -> Next {
        let other = self.holder().filter(|holder| *holder != self.identity);
        match (self.renewed, other) {
            (Some(_), Some(other)) => Next::Lost(Loss::Taken(other.to_owned())),
            (Some(_), None) if !self.holds(now) => Next::Lost(Loss::Expired),
            (None, Some(_)) if self.expiry().is_some_and(|expiry| now < expiry) => Next::Wait,
            _ => Next::Write(Box::new(self.claim(wall))),
        }
    }

    /// The record that gives the lease back, where it is still the candidate's.
    pub fn released(&self, wall: Timestamp) -> Option<Lease> {
        let mut lease = self.seen.as_ref().map(|seen| seen.lease.clone())?;
        let spec = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))?;
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(wall));
        Some(lease)
    }

    /// When the holder will have been silent for as long as its own record allows.
    fn expiry(&self) -> Option<Moment> {
        let seen = self.seen.as_ref()?;
        let asked = seen.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
        Some(seen.since + asked.map_or(self.timing.lease, Duration::from_secs))
    }

    /// The record that makes the lease the candidate's, or keeps it so.
    fn claim(&self, mut wall: Timestamp) -> Lease {
        let mut lease = self.seen.as_ref().map(|seen| seen.lease.clone()).unwrap_or_default();
        let before = lease.spec.take();
        // A clock that stands still must not make a living holder look dead: what changes nothing has no new version.
        if before.as_ref().and_then(|spec| spec.renew_time.as_ref()).is_some_and(|time| time.0 == wall) {
            wall += Duration::from_micros(1);
        }
        let ours = before.as_ref().is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.as_ref().map(|spec| spec.lease_transitions.unwrap_or(0) + i32::from(!ours));
        let acquired = before.as_ref().filter(|_| ours).and_then(|spec| spec.acquire_time.clone());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or(MicroTime(wall))),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(transitions.unwrap_or(0)),
            ..before.unwrap_or_default()
        });
        lease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// An API server as far as leases go: a replacement must name the version that it replaces.
    #[derive(Default)]
    struct Server {
        lease: Option<Lease>,
        version: u32,
    }

    impl Server {
        fn write(&mut self, mut lease: Lease) -> Option<Lease> {
            let version = |lease: &Lease| lease.metadata.resource_version.clone();
            if version(&lease) != self.lease.as_ref().and_then(version) {
                return None;
            }
            if self.lease.as_ref() == Some(&lease) {
                return Some(lease);
            }
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some(lease.clone());
            Some(lease)
        }
        fn transitions(&self) -> i32 {
            self.lease.as_ref().unwrap().spec.as_ref().unwrap().lease_transitions.unwrap()
        }
    }

    fn elector(name: &str) -> Elector {
        Elector::new(name.into(), Timing::default())
    }

    /// Looks, and does what is due, all at one moment. Says whether it holds the lease then.
    fn turn(elector: &mut Elector, server: &mut Server, now: Moment, clock: i64) -> bool {
        elector.observe(server.lease.clone(), now);
        match elector.next(now, wall(clock)) {
            Next::Write(lease) => {
                if let Some(lease) = server.write(*lease) {
                    elector.written(lease, now, now);
                }
            }
            Next::Wait => {}
            Next::Lost(_) => elector.step_down(),
        }
        elector.holds(now)
    }

    #[test]
    fn the_first_creates_and_renews_it_and_the_second_waits() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
        assert!(turn(&mut a, &mut server, s(0), 1000));
        let acquired = server.lease.clone().unwrap().spec.unwrap().acquire_time;
        for now in 1..60 {
            assert!(turn(&mut a, &mut server, s(now), 1000 + now as i64));
            assert!(!turn(&mut b, &mut server, s(now), 1000));
        }
        let spec = server.lease.clone().unwrap().spec.unwrap();
        assert_eq!((spec.acquire_time, spec.lease_transitions), (acquired, Some(0)));
        assert_eq!(spec.renew_time, Some(MicroTime(wall(1059))));
        assert_eq!(b.holder(), Some("a"));
    }

    #[test]
    fn a_silent_holder_is_replaced_after_its_lease_and_not_before() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
        turn(&mut a, &mut server, s(0), 0);
        // Seen for the first time at 3: what was before that is not known.
        assert!(!turn(&mut b, &mut server, s(3), 0));
        assert!(!turn(&mut b, &mut server, s(17), 0));
        assert!(turn(&mut b, &mut server, s(18), 0));
        assert_eq!(server.transitions(), 1);
    }

    /// Clocks that are years off, to either side, or stand still: nobody reads them.
    #[test]
    fn clocks_that_are_wrong_change_nothing() {
        for skew in [-2_000_000_000, 2_000_000_000] {
            let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
            for now in 0..100 {
                assert!(turn(&mut a, &mut server, s(now), 0));
                assert!(!turn(&mut b, &mut server, s(now), skew));
            }
            let last = (100..200).find(|now| turn(&mut b, &mut server, s(*now), skew));
            assert_eq!(last, Some(99 + 15));
        }
    }

    #[test]
    fn a_holder_that_freezes_finds_that_it_has_lost_though_nobody_took_over() {
        let (mut server, mut a) = (Server::default(), elector("a"));
        turn(&mut a, &mut server, s(0), 0);
        assert!(a.holds(s(9)) && !a.holds(s(10)));
        assert_eq!(a.next(s(10), wall(10)), Next::Lost(Loss::Expired));
        // Nobody else wanted it: it stands again, and gets it at once.
        a.step_down();
        assert!(turn(&mut a, &mut server, s(11), 11));
        assert_eq!(server.transitions(), 0);
    }

    #[test]
    fn a_holder_that_freezes_past_its_lease_and_thaws_sees_who_has_it() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
        turn(&mut a, &mut server, s(0), 0);
        turn(&mut b, &mut server, s(1), 0);
        assert!(turn(&mut b, &mut server, s(16), 0));
        // Its first call after the thaw is refused by the resource version, and it looks.
        let Next::Lost(_) = a.next(s(20), wall(20)) else { panic!("it holds on") };
        a.observe(server.lease.clone(), s(20));
        assert_eq!(a.next(s(20), wall(20)), Next::Lost(Loss::Taken("b".into())));
        a.step_down();
        assert_eq!(a.next(s(21), wall(21)), Next::Wait);
    }

    /// Frozen between the request and its answer: the renewal counts from when it was asked for.
    #[test]
    fn an_answer_that_comes_late_renews_nothing() {
        let (mut server, mut a) = (Server::default(), elector("a"));
        turn(&mut a, &mut server, s(0), 0);
        let Next::Write(lease) = a.next(s(2), wall(2)) else { panic!("it renews") };
        let answer = server.write(*lease).unwrap();
        a.written(answer, s(2), s(30));
        assert_eq!(a.next(s(30), wall(30)), Next::Lost(Loss::Expired));
    }

    #[test]
    fn of_two_that_take_over_at_once_one_is_refused() {
        let (mut server, mut a, mut b, mut c) = (Server::default(), elector("a"), elector("b"), elector("c"));
        turn(&mut a, &mut server, s(0), 0);
        b.observe(server.lease.clone(), s(1));
        c.observe(server.lease.clone(), s(1));
        let (Next::Write(first), Next::Write(second)) = (b.next(s(16), wall(0)), c.next(s(16), wall(0))) else {
            panic!("both try")
        };
        let won = server.write(*first).expect("the first is taken");
        b.written(won, s(16), s(16));
        assert_eq!(server.write(*second), None, "the second names a version that is gone");
        assert!(!turn(&mut c, &mut server, s(16), 0));
        assert!(b.holds(s(16)) && c.holder() == Some("b"));
        assert_eq!(server.transitions(), 1);
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_recognised() {
        let (mut server, mut a) = (Server::default(), elector("a"));
        a.observe(None, s(0));
        let Next::Write(lease) = a.next(s(0), wall(0)) else { panic!("it creates") };
        server.write(*lease).unwrap();
        assert!(!a.holds(s(0)), "nobody told it");
        assert!(turn(&mut a, &mut server, s(2), 2));
        assert_eq!(server.transitions(), 0);
    }

    #[test]
    fn what_is_released_is_free_at_once_and_only_the_holder_can_release_it() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
        turn(&mut a, &mut server, s(0), 0);
        turn(&mut b, &mut server, s(1), 0);
        assert_eq!(b.released(wall(1)), None);
        server.write(a.released(wall(1)).expect("it is a's")).unwrap();
        a.observe(server.lease.clone(), s(2));
        assert_eq!(a.released(wall(2)), None, "it was given back already");
        assert!(turn(&mut b, &mut server, s(2), 2));
        assert_eq!(server.transitions(), 1);
    }

    #[test]
    fn a_lease_that_was_deleted_is_created_again() {
        let (mut server, mut a) = (Server::default(), elector("a"));
        turn(&mut a, &mut server, s(0), 0);
        server.lease = None;
        assert!(turn(&mut a, &mut server, s(2), 2));
        assert_eq!(server.lease.unwrap().spec.unwrap().holder_identity.as_deref(), Some("a"));
    }

    /// Any change is taken for a sign of life: to wait once more is safe, to take over too early is not.
    #[test]
    fn what_somebody_else_writes_on_it_costs_nobody_the_lease() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
        turn(&mut a, &mut server, s(0), 0);
        turn(&mut b, &mut server, s(0), 0);
        let mut annotated = server.lease.clone().unwrap();
        annotated.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        server.write(annotated).unwrap();
        assert!(turn(&mut a, &mut server, s(2), 0));
        assert!(!turn(&mut b, &mut server, s(16), 0));
        assert!(turn(&mut b, &mut server, s(31), 0), "but a dead holder is dead");
        assert!(server.lease.unwrap().metadata.annotations.is_some(), "what others wrote stays");
    }

    #[test]
    fn pauses_differ_by_jitter_and_end_where_a_lease_does() {
        let (mut server, mut a, mut b) = (Server::default(), elector("a"), elector("b"));
        assert_eq!((a.pause(0.0, s(0)), a.pause(1.0, s(0))), (s(2), s(3)));
        turn(&mut a, &mut server, s(0), 0);
        turn(&mut b, &mut server, s(0), 0);
        assert_eq!(a.pause(1.0, s(9)), s(1));
        assert_eq!((b.pause(1.0, s(9)), b.pause(1.0, s(14)), b.pause(1.0, s(15))), (s(3), s(1), s(3)));
        assert_eq!((a.patience(s(4)), a.patience(s(7)), a.patience(s(11))), (s(5), s(3), s(0)));
    }

    /// Any schedule of turns, freezes and lost answers: two never hold the lease at once.
    #[test]
    fn two_never_hold_it_at_once() {
        for seed in 0..500_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut roll = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let mut server = Server::default();
            let mut electors = ["a", "b", "c"].map(elector);
            let mut asleep = [0_u64; 3];
            // What was sent and is not answered yet.
            let mut sent: [Option<(Moment, Option<Lease>)>; 3] = [None, None, None];
            let mut terms = 0;
            for tenth in 0..3000_u64 {
                let now = Duration::from_millis(tenth * 100);
                let one = roll(3) as usize;
                if roll(200) == 0 {
                    asleep[one] = tenth + roll(400);
                }
                if asleep[one] <= tenth {
                    let elector = &mut electors[one];
                    match sent[one].take() {
                        Some((at, Some(lease))) if roll(10) > 0 => elector.written(lease, at, now),
                        Some(_) => elector.observe(server.lease.clone(), now),
                        None => match elector.next(now, wall(roll(1000) as i64)) {
                            Next::Write(lease) => sent[one] = Some((now, server.write(*lease))),
                            Next::Wait => elector.observe(server.lease.clone(), now),
                            Next::Lost(_) => {
                                elector.step_down();
                                terms += 1;
                            }
                        },
                    }
                }
                let holders = electors.iter().filter(|elector| elector.holds(now)).count();
                assert!(holders <= 1, "seed {seed}: {holders} hold it at {now:?}");
            }
            assert!(seed > 0 || terms > 0, "nobody ever lost it: this shows nothing");
        }
    }
}
