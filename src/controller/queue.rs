//! Pure: which object is reconciled next.
//!
//! Guarantees: no object is reconciled twice at once; a request during a reconcile is followed by another reconcile; one
//! object waits once, however often it is asked for; namespaces take turns, and no namespace has more than its share of
//! the workers; an object that has to rest is not reconciled before, whoever asks.

use std::collections::{BTreeSet, HashMap, VecDeque};

use pallet_core::group::GroupKey;

/// What waits, rests or is being reconciled. Times are of any clock.
#[derive(Debug)]
pub(super) struct Queue<T> {
    workers: usize,
    /// How many of them one namespace may have.
    most: usize,
    states: HashMap<GroupKey, State<T>>,
    /// What waits for a worker, by namespace.
    ready: HashMap<String, VecDeque<GroupKey>>,
    /// The namespaces with something ready, the next one first.
    turns: VecDeque<String>,
    /// What waits or rests until then.
    later: BTreeSet<(T, GroupKey)>,
    at_work: HashMap<String, usize>,
    busy: usize,
}

#[derive(Debug)]
enum State<T> {
    /// Nobody asks for it, and it must not be reconciled before.
    Rests(T),
    /// It is due then; it may be asked for sooner, but not before its rest is over.
    Later { at: T, rest: Option<T> },
    /// It waits for a worker.
    Ready,
    /// It is being reconciled.
    Works { asked: bool },
}

impl<T: Copy + Ord> Queue<T> {
    /// `most` of the `workers` are for one namespace.
    pub(super) fn new(workers: usize, most: usize) -> Self {
        let workers = workers.max(1);
        Self {
            workers,
            most: most.clamp(1, workers),
            states: HashMap::new(),
            ready: HashMap::new(),
            turns: VecDeque::new(),
            later: BTreeSet::new(),
            at_work: HashMap::new(),
            busy: 0,
        }
    }

    /// How many wait for a worker.
    pub(super) fn waiting(&self) -> usize {
        self.ready.values().map(VecDeque::len).sum()
    }

    /// When something is due that is not yet.
    pub(super) fn wake(&self) -> Option<T> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Somebody asks for an object, as soon as may be.
    pub(super) fn put(&mut self, key: GroupKey, now: T) {
        match self.states.get_mut(&key) {
            Some(State::Ready) => {}
            Some(State::Works { asked }) => *asked = true,
            Some(State::Rests(until)) => {
                let until = *until;
                self.later.remove(&(until, key.clone()));
                self.wait(key, now, until, Some(until));
            }
            Some(State::Later { at, rest }) => {
                let (at, rest) = (*at, *rest);
                self.later.remove(&(at, key.clone()));
                self.wait(key, now, rest.unwrap_or(now).min(at), rest);
            }
            None => self.wait(key, now, now, None),
        }
    }

    fn wait(&mut self, key: GroupKey, now: T, at: T, rest: Option<T>) {
        if at > now {
            self.later.insert((at, key.clone()));
            self.states.insert(key, State::Later { at, rest });
            return;
        }
        let queue = self.ready.entry(key.namespace.clone()).or_default();
        if queue.is_empty() {
            self.turns.push_back(key.namespace.clone());
        }
        queue.push_back(key.clone());
        self.states.insert(key, State::Ready);
    }

    /// The next one, where a worker is free for it. It is being reconciled from now on.
    pub(super) fn next(&mut self, now: T) -> Option<GroupKey> {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            // Where its rest is over and nobody has asked for it, there is nothing to do.
            if let Some(State::Later { .. }) = self.states.remove(&key) {
                self.wait(key, now, now, None);
            }
        }
        if self.busy >= self.workers {
            return None;
        }
        let has_room = |namespace: &String| self.at_work.get(namespace).copied().unwrap_or_default() < self.most;
        let place = self.turns.iter().position(has_room)?;
        let namespace = self.turns.remove(place)?;
        let queue = self.ready.get_mut(&namespace)?;
        let key = queue.pop_front()?;
        if queue.is_empty() {
            self.ready.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        *self.at_work.entry(namespace).or_default() += 1;
        self.busy += 1;
        self.states.insert(key.clone(), State::Works { asked: false });
        Some(key)
    }

    /// A reconcile has ended. The object is due again at `again`, sooner where somebody has asked meanwhile, and not before
    /// `rest`.
    pub(super) fn done(&mut self, key: GroupKey, now: T, again: Option<T>, rest: Option<T>) {
        let Some(State::Works { asked }) = self.states.remove(&key) else { return };
        self.busy -= 1;
        if let Some(at_work) = self.at_work.get_mut(&key.namespace) {
            *at_work -= 1;
            if *at_work == 0 {
                self.at_work.remove(&key.namespace);
            }
        }
        let rest = rest.filter(|rest| *rest > now);
        let due = if asked { Some(now) } else { again };
        match (due, rest) {
            (Some(due), _) => self.wait(key, now, rest.map_or(due, |rest| rest.max(due)), rest),
            (None, Some(until)) => {
                self.later.insert((until, key.clone()));
                self.states.insert(key, State::Rests(until));
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> GroupKey {
        let (namespace, name) = text.split_once('/').unwrap();
        GroupKey { namespace: namespace.into(), name: name.into() }
    }

    fn put(queue: &mut Queue<u64>, now: u64, keys: &[&str]) {
        keys.iter().for_each(|text| queue.put(key(text), now));
    }

    /// What is begun now.
    fn begun(queue: &mut Queue<u64>, now: u64) -> Vec<String> {
        std::iter::from_fn(|| queue.next(now)).map(|key| key.to_string()).collect()
    }

    fn is_empty(queue: &Queue<u64>) -> bool {
        queue.states.is_empty()
            && queue.ready.is_empty()
            && queue.turns.is_empty()
            && queue.later.is_empty()
            && queue.at_work.is_empty()
            && queue.busy == 0
    }

    #[test]
    fn namespaces_take_turns_and_none_has_all_workers() {
        let mut queue = Queue::new(4, 2);
        let crowd: Vec<String> = (0..100).map(|n| format!("crowd/{n}")).collect();
        put(&mut queue, 0, &crowd.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(begun(&mut queue, 0), ["crowd/0", "crowd/1"], "half of the workers, though nobody else waits");
        put(&mut queue, 0, &["few/a", "few/b", "other/a"]);
        assert_eq!(begun(&mut queue, 0), ["few/a", "other/a"]);
        assert_eq!(queue.waiting(), 99);
        queue.done(key("other/a"), 0, None, None);
        assert_eq!(begun(&mut queue, 0), ["few/b"]);
        queue.done(key("crowd/0"), 0, None, None);
        assert_eq!(begun(&mut queue, 0), ["crowd/2"]);
    }

    #[test]
    fn an_object_waits_once_and_is_never_reconciled_twice_at_once() {
        let mut queue = Queue::new(4, 4);
        put(&mut queue, 0, &["a/x", "a/x", "a/x"]);
        assert_eq!(begun(&mut queue, 0), ["a/x"]);
        // What happens meanwhile may have come too late for it.
        put(&mut queue, 0, &["a/x", "a/x"]);
        assert!(begun(&mut queue, 0).is_empty());
        queue.done(key("a/x"), 0, Some(500), None);
        assert_eq!(begun(&mut queue, 0), ["a/x"]);
        queue.done(key("a/x"), 0, None, None);
        assert!(is_empty(&queue));
    }

    #[test]
    fn the_earlier_of_two_times_counts_and_a_request_does_not_wait_for_either() {
        let mut queue = Queue::new(1, 1);
        put(&mut queue, 0, &["a/x"]);
        begun(&mut queue, 0);
        queue.done(key("a/x"), 0, Some(100), None);
        assert_eq!((queue.wake(), queue.waiting()), (Some(100), 0));
        assert!(begun(&mut queue, 99).is_empty());
        assert_eq!(begun(&mut queue, 100), ["a/x"]);
        queue.done(key("a/x"), 100, Some(200), None);
        put(&mut queue, 110, &["a/x"]);
        assert_eq!(begun(&mut queue, 110), ["a/x"]);
        assert_eq!(queue.wake(), None, "the later time is not kept beside it");
    }

    #[test]
    fn whoever_asks_during_a_rest_waits_for_its_end_and_is_not_forgotten() {
        let mut queue = Queue::new(1, 1);
        put(&mut queue, 0, &["a/x"]);
        begun(&mut queue, 0);
        put(&mut queue, 0, &["a/x"]);
        queue.done(key("a/x"), 10, None, Some(50));
        put(&mut queue, 20, &["a/x"]);
        assert!(begun(&mut queue, 49).is_empty());
        assert_eq!(begun(&mut queue, 50), ["a/x"]);
        // Due later than its rest ends, and asked for between the two.
        queue.done(key("a/x"), 50, Some(1000), Some(60));
        put(&mut queue, 55, &["a/x"]);
        assert_eq!(queue.wake(), Some(60));
        assert_eq!(begun(&mut queue, 70), ["a/x"]);
        // Asked for when nothing but its rest was left.
        queue.done(key("a/x"), 70, None, Some(90));
        put(&mut queue, 80, &["a/x"]);
        assert_eq!(begun(&mut queue, 90), ["a/x"]);
        queue.done(key("a/x"), 90, None, Some(120));
        assert!(begun(&mut queue, 120).is_empty());
        assert!(is_empty(&queue), "a rest that is over leaves nothing behind");
    }

    /// Whatever happens, everything that was asked for is reconciled, and nobody waits for ever.
    #[test]
    fn nobody_starves() {
        let mut queue = Queue::new(3, 1);
        put(&mut queue, 0, &["quiet/x"]);
        let mut rounds = 0;
        loop {
            // Two namespaces ask for more each time.
            put(
                &mut queue,
                rounds,
                &[&format!("loud/{rounds}"), &format!("loud/-{rounds}"), &format!("noisy/{rounds}")],
            );
            let begun: Vec<GroupKey> = std::iter::from_fn(|| queue.next(rounds)).collect();
            if begun.contains(&key("quiet/x")) {
                break;
            }
            begun.into_iter().for_each(|key| queue.done(key, rounds, Some(rounds), None));
            rounds += 1;
            assert!(rounds < 3, "it has waited for {rounds} rounds");
        }
    }
}
