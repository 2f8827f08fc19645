//! GroupNodes that nobody else lets go.

use std::{collections::HashSet, time::Duration};

use futures::{StreamExt, channel::mpsc};
use kube::{
    Api,
    runtime::reflector::{ObjectRef, Store},
};
use tracing::warn;

use super::{
    Converger, Error,
    apply::{self, within},
};
use crate::{api::GroupSpec, group::GroupKey};

impl Converger {
    /// GroupNodes whose GroupSpec is gone without having waited for its finalizer: those that are being deleted are let
    /// go, or they would hold their namespace for ever. The others are left alone: they are nobody's to delete.
    pub(super) async fn release_strays(&self, groups: Store<GroupSpec>, strays: mpsc::UnboundedReceiver<GroupKey>) {
        if groups.wait_until_ready().await.is_err() {
            return;
        }
        strays
            .for_each_concurrent(4, |key| {
                let here = groups.get(&ObjectRef::new(&key.name).within(&key.namespace)).is_some();
                async move {
                    if here {
                        return;
                    }
                    self.state.known().remove(&key);
                    let had = self.state.roles().withdraw(&key);
                    self.state.users(&key.namespace, &had).iter().for_each(|user| self.runs.look_at(user));
                    let deleting: HashSet<String> = {
                        let index = self.state.index();
                        let nodes = index.nodes(&key).into_iter().map(|(_, node)| node);
                        nodes
                            .filter(|node| node.deletion.is_some() && node.finalized)
                            .map(|node| node.name.clone())
                            .collect()
                    };
                    for name in deleting {
                        let mut pause = Duration::from_secs(1);
                        while let Err(error) = self.release_stray(&key, &name).await {
                            warn!(group = %key, node = name, %error, "a GroupNode without a group could not be let go");
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(Duration::from_secs(60));
                        }
                    }
                }
            })
            .await;
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
