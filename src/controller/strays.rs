//! GroupNodes that nobody else lets go.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::channel::mpsc;
use kube::Api;
use parking_lot::Mutex;
use tracing::warn;

use super::{
    Error,
    apply::{self, within},
    dispatch::{Turn, Workers, contained},
    pace::Pace,
    reconcile::{Converger, NOT_YET, reference},
};
use pallet_api::GroupSpec;
use pallet_core::group::GroupKey;

/// How many former groups are looked after at once.
pub(super) const WORKERS: usize = 4;

impl Converger {
    /// GroupNodes whose GroupSpec is gone without having waited for its finalizer: those that are being deleted are let
    /// go, or they would hold their namespace for ever. The others are left alone: they are nobody's to delete.
    ///
    /// One that cannot be let go waits for its next try without a worker.
    pub(super) async fn release_strays(self: &Arc<Self>, strays: mpsc::UnboundedReceiver<GroupKey>, workers: Workers) {
        if self.groups.wait_until_ready().await.is_err() {
            return;
        }
        let failed: Arc<Mutex<HashMap<GroupKey, Pace>>> = Arc::default();
        let work = |key: GroupKey| {
            let (converger, failed) = (self.clone(), failed.clone());
            async move {
                let result = contained(converger.release_strays_of(&key)).await;
                let mut failed = failed.lock();
                let Err(error) = result else {
                    failed.remove(&key);
                    return Turn::default();
                };
                let pause = failed.entry(key.clone()).or_default().fail();
                let (source, pause_s) = (error.explanation(), pause.as_secs_f64());
                warn!(group = %key, %error, source, pause = pause_s, "failed to release an orphaned GroupNode");
                Turn { again: Some(pause), rest: NOT_YET }
            }
        };
        workers.run(strays, work).await;
    }

    /// The same for one group that was deleted.
    ///
    /// # Errors
    /// The first error. Every other GroupNode was tried all the same.
    pub async fn release_strays_of(&self, key: &GroupKey) -> Result<(), Error> {
        if self.groups.get(&reference(key)).is_some() {
            return Ok(());
        }
        self.state.known().remove(key);
        let had = self.state.roles().withdraw(key);
        self.state.users(&key.namespace, &had).iter().for_each(|user| self.sessions.look_at(user));
        let deleting: HashSet<String> = {
            let index = self.state.index();
            let nodes = index.nodes(key).into_iter().map(|(_, node)| node);
            nodes.filter(|node| node.deletion.is_some() && node.finalized).map(|node| node.name.clone()).collect()
        };
        // One that cannot be let go keeps no other from it.
        let mut result = Ok(());
        for name in deleting {
            result = result.and(self.release_stray(key, &name).await);
        }
        result
    }

    async fn release_stray(&self, key: &GroupKey, name: &str) -> Result<(), Error> {
        let groups: Api<GroupSpec> = Api::namespaced(self.client.clone(), &key.namespace);
        // The cache may be behind; what ends here cannot be taken back.
        if within("get groupspec", groups.get_opt(&key.name)).await?.is_some() {
            return Ok(());
        }
        apply::release(&Api::namespaced(self.client.clone(), &key.namespace), name, None).await
    }
}
