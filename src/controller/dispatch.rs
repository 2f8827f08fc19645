//! Reconciles as tasks of their own, begun in the order of a [`Queue`]: one that is slow or panics costs a worker, and
//! neither the watches nor the others.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt, Stream, StreamExt, channel::mpsc};
use tokio::time::{Instant, sleep_until};

use super::{Error, queue::Queue};
use crate::{run::tasks::Spawner, telemetry::metrics::Share};
use pallet_core::group::GroupKey;

/// What a worker says at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// When the object is due again, though nobody asks for it.
    pub again: Option<Duration>,
    /// For how long it is not reconciled, whoever asks.
    pub rest: Duration,
}

/// A reconcile that took so much evaluation costs no rest.
const FREE: Duration = Duration::from_millis(10);
/// An object rests this many times as long as its evaluation took: it has a fifth of one processor at the most.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(600);

/// How long an object rests after a reconcile whose evaluations took so long.
pub(super) fn rest(evaluated: Duration) -> Duration {
    if evaluated < FREE { Duration::ZERO } else { evaluated.saturating_mul(REST).min(LONGEST_REST) }
}

/// Where reconciles run.
pub(super) struct Workers {
    /// How many there are.
    pub(super) workers: usize,
    /// How many of them one namespace may have.
    pub(super) most: usize,
    /// The owner of their tasks.
    pub(super) tasks: Spawner,
    /// Shows how many objects wait for one.
    pub(super) waiting: Option<Share>,
}

impl Workers {
    /// Workers of which one namespace has half at the most, where there is more than one namespace.
    pub(super) fn fair(workers: usize, one_namespace: bool, tasks: Spawner) -> Self {
        let most = if one_namespace { workers } else { workers / 2 };
        Self { workers, most, tasks, waiting: None }
    }

    /// Has every object reconciled that is asked for. It never ends. What panics in `work` should be [`contained`]; otherwise
    /// the object is tried again after a second.
    pub(super) async fn run<F>(self, asked: impl Stream<Item = GroupKey>, work: impl Fn(GroupKey) -> F)
    where
        F: Future<Output = Turn> + Send + 'static,
    {
        let mut queue = Queue::new(self.workers, self.most);
        let (ended, mut ends) = mpsc::unbounded::<(GroupKey, Turn)>();
        let mut asked = std::pin::pin!(asked.fuse());
        loop {
            let now = Instant::now();
            while let Some(key) = queue.next(now) {
                let end = End { key: key.clone(), turn: LOST, ended: ended.clone() };
                let reconcile = work(key);
                self.tasks.spawn(async move {
                    // All of it, or its end would be told at once.
                    let mut end = end;
                    end.turn = reconcile.await;
                });
            }
            if let Some(waiting) = &self.waiting {
                waiting.set(queue.waiting());
            }
            let wake = queue.wake();
            let due = async {
                match wake {
                    Some(wake) => sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some((key, turn)) = ends.next() => {
                    let now = Instant::now();
                    let rest = (!turn.rest.is_zero()).then(|| now + turn.rest);
                    queue.done(key, now, turn.again.map(|again| now + again), rest);
                }
                Some(key) = asked.next() => queue.put(key, Instant::now()),
                () = due => {}
            }
        }
    }
}

/// What becomes of an object whose worker is gone without a word.
const LOST: Turn = Turn { again: Some(Duration::from_secs(1)), rest: Duration::ZERO };

/// Tells of the end of a worker, however it ended.
struct End {
    key: GroupKey,
    turn: Turn,
    ended: mpsc::UnboundedSender<(GroupKey, Turn)>,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.ended.unbounded_send((self.key.clone(), self.turn));
    }
}

/// A reconcile whose panic is an error like any other: the object is tried again, later each time.
pub(super) async fn contained<T>(reconcile: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    // What it held is either its own or behind a lock that takes a panic into account.
    match AssertUnwindSafe(reconcile).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Error::Panicked(message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tasks::Tasks;
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };
    use tokio::time::timeout;

    fn key(namespace: &str, name: &str) -> GroupKey {
        GroupKey { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn an_object_has_a_fifth_of_a_processor_at_the_most() {
        assert_eq!(rest(Duration::from_millis(3)), Duration::ZERO);
        assert_eq!(rest(Duration::from_millis(500)), Duration::from_secs(2));
        assert_eq!(rest(Duration::from_secs(86400)), LONGEST_REST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reconcile_that_hangs_or_is_lost_holds_nobody_else_up() {
        let (tasks, seen) = (Tasks::default(), Arc::new(Mutex::new(HashMap::<String, u32>::new())));
        let (ask, asked) = mpsc::unbounded();
        let workers = Workers::fair(4, false, tasks.spawner());
        let counted = seen.clone();
        let work = move |key: GroupKey| {
            *counted.lock().unwrap().entry(key.name.clone()).or_default() += 1;
            async move {
                match key.name.as_str() {
                    "hangs" => std::future::pending().await,
                    "panics" => panic!("a reconcile that is not contained"),
                    _ => Turn { again: None, rest: Duration::from_secs(3) },
                }
            }
        };
        for name in ["hangs", "panics", "good"] {
            ask.unbounded_send(key(if name == "good" { "b" } else { "a" }, name)).unwrap();
        }
        let asks = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            // During its rest: it is put off, and not lost.
            (0..5).for_each(|_| ask.unbounded_send(key("b", "good")).unwrap());
            tokio::time::sleep(Duration::from_secs(5)).await;
        };
        let both = async {
            tokio::select! { () = workers.run(asked, work) => {}, () = asks => {} }
        };
        timeout(Duration::from_secs(60), both).await.unwrap();
        let seen = seen.lock().unwrap().clone();
        assert_eq!((seen["hangs"], seen["good"]), (1, 2));
        assert!((5..=8).contains(&seen["panics"]), "each second: {seen:?}");
        tasks.shutdown().await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_message() {
        let error = contained::<()>(async { panic!("index {} is too large", 7) }).await.unwrap_err();
        assert_eq!((error.label(), error.to_string().contains("index 7 is too large")), ("panic", true));
    }
}
