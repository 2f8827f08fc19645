//! The tasks of sessions: none of them outlives the controllers.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::{AbortHandle, JoinSet};

/// Owns tasks, and ends them when it goes. What they had begun on nodes goes on there.
#[derive(Debug, Default)]
pub struct Tasks(Spawner);

/// Starts tasks for their owner. After that is gone it starts none.
#[derive(Clone, Debug)]
pub struct Spawner(Arc<Mutex<Option<JoinSet<()>>>>);

impl Default for Spawner {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }
}

impl Tasks {
    /// What starts tasks.
    pub fn spawner(&self) -> Spawner {
        self.0.clone()
    }

    /// Ends all tasks and waits until they are gone.
    pub async fn shutdown(self) {
        let tasks = self.0.tasks().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // A set that is dropped aborts what is in it. Not under the lock: a task may be starting another.
        let tasks = self.0.tasks().take();
        drop(tasks);
    }
}

impl Spawner {
    fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.0.lock()
    }

    /// Starts a task, unless the owner is gone.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut tasks = self.tasks();
        let tasks = tasks.as_mut()?;
        while tasks.try_join_next().is_some() {}
        Some(tasks.spawn(task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Weak, time::Duration};

    /// A task that holds on to its spawner, as sessions do, and to something whose end can be seen.
    fn hang(tasks: &Tasks) -> Weak<()> {
        let (spawner, kept) = (tasks.spawner(), Arc::new(()));
        let seen = Arc::downgrade(&kept);
        tasks.spawner().spawn(async move {
            std::future::pending::<()>().await;
            drop((spawner, kept));
        });
        seen
    }

    #[tokio::test]
    async fn shutdown_leaves_no_task_behind() {
        let tasks = Tasks::default();
        let (spawner, kept) = (tasks.spawner(), hang(&tasks));
        tasks.shutdown().await;
        assert_eq!(kept.strong_count(), 0);
        assert!(spawner.spawn(async {}).is_none(), "nothing starts any more");
    }

    #[tokio::test]
    async fn an_owner_that_is_dropped_takes_its_tasks_along() {
        let tasks = Tasks::default();
        let kept = hang(&tasks);
        drop(tasks);
        let gone = async {
            while kept.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("its tasks are gone");
    }
}
