//! Permits that namespaces share fairly: of sessions, of connections that are being opened, of evaluations.
//!
//! A namespace gets another permit only while it holds fewer than are free. So one namespace alone holds at most half of
//! all permits, two that want all they can get hold a third each, three a quarter each: however many namespaces hold as
//! much as they may, the next one finds a free permit. Namespaces that wait take turns; within a namespace the order is
//! that of the requests.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Who holds permits and who waits for one. Pure: waiters are values of any type.
#[derive(Debug)]
struct Shares<W> {
    free: usize,
    held: HashMap<String, usize>,
    waiting: HashMap<String, VecDeque<(u64, W)>>,
    /// The namespaces in which somebody waits, the next one first.
    turns: VecDeque<String>,
    tickets: u64,
}

impl<W> Shares<W> {
    fn new(total: usize) -> Self {
        Self { free: total, held: HashMap::new(), waiting: HashMap::new(), turns: VecDeque::new(), tickets: 0 }
    }

    /// A namespace wants one more. Returns the ticket by which the request can be cancelled.
    fn request(&mut self, namespace: &str, waiter: W) -> u64 {
        self.tickets += 1;
        if !self.waiting.contains_key(namespace) {
            self.turns.push_back(namespace.to_owned());
        }
        self.waiting.entry(namespace.to_owned()).or_default().push_back((self.tickets, waiter));
        self.tickets
    }

    /// Gives a permit to the next waiter that may have one. To be called until there is none.
    fn grant(&mut self) -> Option<(String, W)> {
        let may = |namespace: &String| self.held.get(namespace).copied().unwrap_or_default() < self.free;
        let place = self.turns.iter().position(may)?;
        let namespace = self.turns.remove(place)?;
        let (_, waiter) = self.waiting.get_mut(&namespace)?.pop_front()?;
        if self.waiting.get(&namespace).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        self.free -= 1;
        *self.held.entry(namespace.clone()).or_default() += 1;
        Some((namespace, waiter))
    }

    fn release(&mut self, namespace: &str) {
        self.free += 1;
        if let Some(held) = self.held.get_mut(namespace) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(namespace);
            }
        }
    }

    /// A request is not wanted any more. Returns its waiter, where it still waits.
    fn cancel(&mut self, namespace: &str, ticket: u64) -> Option<W> {
        let queue = self.waiting.get_mut(namespace)?;
        let place = queue.iter().position(|(other, _)| *other == ticket)?;
        let waiter = queue.remove(place).map(|(_, waiter)| waiter);
        if queue.is_empty() {
            self.waiting.remove(namespace);
            self.turns.retain(|other| other != namespace);
        }
        waiter
    }
}

/// A number of permits. Clones hand out the same ones.
#[derive(Clone, Debug)]
pub struct Permits {
    total: usize,
    shares: Arc<Mutex<Shares<oneshot::Sender<Permit>>>>,
}

/// The right to one of them, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    permits: Permits,
    namespace: String,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.shares().release(&self.namespace);
        self.permits.hand_out();
    }
}

/// A request that is under way.
struct Waiting<'a> {
    permits: &'a Permits,
    namespace: &'a str,
    ticket: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let cancelled = self.permits.shares().cancel(self.namespace, self.ticket);
        drop(cancelled);
    }
}

impl Permits {
    /// So many of them, at least one.
    pub fn new(total: usize) -> Self {
        let total = total.max(1);
        Self { total, shares: Arc::new(Mutex::new(Shares::new(total))) }
    }

    /// How many there are in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many one namespace gets at most, which it does while no other holds any.
    pub fn most_of_one(&self) -> usize {
        self.total.div_ceil(2)
    }

    /// How many nobody holds.
    pub fn free(&self) -> usize {
        self.shares().free
    }

    fn shares(&self) -> MutexGuard<'_, Shares<oneshot::Sender<Permit>>> {
        self.shares.lock()
    }

    /// Waits for a permit. Whoever stops waiting leaves the queue.
    pub async fn acquire(&self, namespace: &str) -> Permit {
        loop {
            let (sender, receiver) = oneshot::channel();
            let ticket = self.shares().request(namespace, sender);
            let _waiting = Waiting { permits: self, namespace, ticket };
            self.hand_out();
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    /// Not under the lock: a permit for somebody who has just stopped waiting comes back at once.
    fn hand_out(&self) {
        loop {
            let granted = self.shares().grant();
            let Some((namespace, waiter)) = granted else { return };
            let _ = waiter.send(Permit { permits: self.clone(), namespace });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, future::join_all};

    /// How many of so many requests each namespace gets at once.
    fn granted(shares: &mut Shares<usize>) -> HashMap<String, usize> {
        let mut count = HashMap::new();
        while let Some((namespace, _)) = shares.grant() {
            *count.entry(namespace).or_default() += 1;
        }
        count
    }

    fn request(shares: &mut Shares<usize>, namespace: &str, times: usize) {
        (0..times).for_each(|n| {
            shares.request(namespace, n);
        });
    }

    #[test]
    fn a_namespace_never_gets_more_than_it_leaves_to_the_others() {
        let mut shares = Shares::new(128);
        for (namespace, gets) in [("a", 64), ("b", 32), ("c", 16), ("d", 8), ("e", 4), ("f", 2), ("g", 1)] {
            request(&mut shares, namespace, 1000);
            assert_eq!(granted(&mut shares), HashMap::from([(namespace.to_owned(), gets)]));
        }
        // What comes back goes round, and those that hold little get as much as any.
        for _ in 0..63 {
            shares.release("a");
        }
        let got = granted(&mut shares);
        assert!(got["g"] >= got["b"] && shares.free > 0, "{got:?}");
        assert_eq!(Permits::new(128).most_of_one(), 64);
        assert_eq!((Permits::new(0).total(), Permits::new(1).most_of_one()), (1, 1));
    }

    #[test]
    fn three_namespaces_that_want_all_get_a_quarter_each() {
        let mut shares = Shares::new(128);
        ["a", "b", "c"].into_iter().for_each(|namespace| request(&mut shares, namespace, 1000));
        let got = granted(&mut shares);
        assert_eq!((got["a"], got["b"], got["c"], shares.free), (32, 32, 32, 32));
    }

    #[test]
    fn namespaces_take_turns_and_requests_of_one_keep_their_order() {
        let mut shares = Shares::new(100);
        request(&mut shares, "crowd", 5);
        request(&mut shares, "few", 2);
        let mut order = Vec::new();
        while let Some((namespace, n)) = shares.grant() {
            order.push(format!("{namespace}{n}"));
        }
        assert_eq!(order, ["crowd0", "few0", "crowd1", "few1", "crowd2", "crowd3", "crowd4"]);
    }

    #[test]
    fn whoever_stops_waiting_is_passed_over_and_leaves_nothing_behind() {
        let mut shares = Shares::new(1);
        request(&mut shares, "a", 1);
        assert_eq!(granted(&mut shares).len(), 1);
        let ticket = shares.request("b", 7);
        assert_eq!((shares.cancel("b", ticket), shares.cancel("b", ticket)), (Some(7), None));
        shares.release("a");
        assert!(shares.grant().is_none());
        assert!(shares.held.is_empty() && shares.waiting.is_empty() && shares.turns.is_empty());
    }

    #[tokio::test]
    async fn a_permit_that_nobody_waits_for_any_more_goes_to_the_next() {
        let permits = Permits::new(2);
        let held = permits.acquire("a").await;
        let mut second = Box::pin(permits.acquire("a"));
        assert!((&mut second).now_or_never().is_none(), "the other one is for another namespace");
        let other = permits.acquire("b").await;
        // The permit is granted to one that is dropped before it sees it.
        drop(other);
        drop(held);
        drop(second);
        assert_eq!(permits.free(), 2);
        let all = join_all(["a", "b", "a", "b"].map(|namespace| async { drop(permits.acquire(namespace).await) }));
        all.await;
        assert_eq!(permits.free(), 2);
    }
}
