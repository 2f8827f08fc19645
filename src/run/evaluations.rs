//! Where the operator computes what users have written: parsing, planning, templates, expressions.
//!
//! Such a computation is bounded, but it may take long, and it cannot be interrupted. So it never runs on a thread that
//! others wait for: only so many run at once, namespaces share them fairly, and while one runs, another thread goes on
//! with the tasks of its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio::runtime::{Handle, RuntimeFlavor};

use super::permits::Permits;

/// Runs evaluations, a few at once. Clones share them.
#[derive(Clone, Debug)]
pub struct Evaluations {
    permits: Permits,
}

impl Default for Evaluations {
    /// As many at once as there are processors, at least two: one namespace alone then takes half of them.
    fn default() -> Self {
        Self { permits: Permits::new(std::thread::available_parallelism().map_or(2, usize::from).max(2)) }
    }
}

/// How long the evaluations of one reconcile took in all.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// So far.
    pub fn spent(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, took: Duration) {
        self.0.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Evaluations {
    /// Runs `work` for a namespace as soon as that has its turn. It must be called by a task of its own: whatever is
    /// joined with it in the same task waits.
    ///
    /// A task that was aborted meanwhile ends with this call.
    pub async fn run<T: Send>(&self, namespace: &str, meter: &Meter, work: impl FnOnce() -> T + Send) -> T {
        let permit = self.permits.acquire(namespace).await;
        let began = Instant::now();
        let done = apart(work);
        meter.add(began.elapsed());
        drop(permit);
        tokio::task::yield_now().await;
        done
    }
}

/// Has the runtime hand the other tasks of this thread over to another one meanwhile. A runtime of one thread, as tests
/// have it, has none to hand them to.
fn apart<T>(work: impl FnOnce() -> T) -> T {
    let threads = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
    if threads { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;
    use tokio::{task::JoinSet, time::timeout};

    /// Guards against evaluations on the threads that everything else runs on: there are two of these here.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn slow_evaluations_hold_up_neither_other_tasks_nor_other_namespaces() {
        let evaluations = Evaluations { permits: Permits::new(2) };
        let mut slow = JoinSet::new();
        for _ in 0..8 {
            let evaluations = evaluations.clone();
            slow.spawn(async move {
                let meter = Meter::default();
                evaluations.run("greedy", &meter, || sleep(Duration::from_millis(500))).await;
                assert!(meter.spent() >= Duration::from_millis(500));
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (began, others) = (Instant::now(), evaluations.clone());
        let other = tokio::spawn(async move { others.run("modest", &Meter::default(), || 7).await });
        assert_eq!(timeout(Duration::from_secs(5), other).await.expect("it has its turn").unwrap(), 7);
        assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
        slow.abort_all();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_panic_gives_the_permit_back_and_ends_its_own_task_only() {
        let evaluations = Evaluations { permits: Permits::new(2) };
        for _ in 0..4 {
            let evaluations = evaluations.clone();
            let task = tokio::spawn(async move { evaluations.run("a", &Meter::default(), || panic!("no")).await });
            assert!(task.await.unwrap_err().is_panic());
        }
        assert_eq!(evaluations.permits.free(), 2);
    }
}
