//! Virtual machines: watched as soon as KubeVirt is there, which may be later than the operator.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, stream};
use kube::{Client, runtime::reflector::Store};
use tracing::{info, warn};

use super::{
    Error, Scope,
    apply::within,
    indexed,
    state::{Presence, State},
};
use crate::{
    api::{GROUP_LABEL, GroupSpec},
    group::{GroupKey, resolve},
    node::kubevirt::{GROUP, VERSION, VirtualMachine, VirtualMachineInstance},
    run::Runs,
};

/// How often it is looked for while it is not there. It is one small request.
const LOOK: Duration = Duration::from_secs(15);

/// What is said of a group whose nodes are virtual machines where there can be none.
pub(super) const MISSING: &str =
    "the API server knows no VirtualMachine of kubevirt.io/v1; install KubeVirt, and it is noticed";

/// Whether the API server serves it.
async fn look(client: &Client) -> Result<Presence, Error> {
    let version = format!("{GROUP}/{VERSION}");
    match within("discover kubevirt", client.list_api_group_resources(&version)).await {
        Ok(resources) => {
            let kinds: Vec<&str> = resources.resources.iter().map(|resource| resource.kind.as_str()).collect();
            let both = kinds.contains(&"VirtualMachine") && kinds.contains(&"VirtualMachineInstance");
            Ok(if both { Presence::Present } else { Presence::Absent })
        }
        Err(error) if error.is_gone() => Ok(Presence::Absent),
        Err(error) => Err(error),
    }
}

/// Resolves when KubeVirt is there. Whatever is news has the groups looked at that wait for it.
async fn found(client: Client, state: Arc<State>, runs: Arc<Runs>, groups: Store<GroupSpec>) {
    loop {
        match look(&client).await {
            Ok(presence) => {
                if state.see_kubevirt(presence) {
                    info!(?presence, "KubeVirt was looked for");
                    let waiting = groups.state();
                    let waiting = waiting.iter().filter(|group| group.spec.node.virtual_machine.is_some());
                    waiting.for_each(|group| runs.look_at(&resolve::key(group)));
                }
                if presence == Presence::Present {
                    return;
                }
            }
            Err(error) => warn!(%error, source = error.explanation(), "whether KubeVirt is there could not be asked"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Scope {
    /// The groups to look at since a virtual machine or an instance changed, from the moment on that there may be any.
    pub(super) fn virtual_machines(
        &self,
        state: &Arc<State>,
        runs: &Arc<Runs>,
        groups: Store<GroupSpec>,
    ) -> impl Stream<Item = Vec<GroupKey>> + Send + use<> {
        let (scope, state, runs) = (self.clone(), state.clone(), runs.clone());
        let found = found(self.client.clone(), state.clone(), runs.clone(), groups);
        found.into_stream().flat_map(move |()| {
            let machines = indexed(&state, &runs, scope.watch::<VirtualMachine>(Some(GROUP_LABEL)));
            let instances = indexed(&state, &runs, scope.watch::<VirtualMachineInstance>(Some(GROUP_LABEL)));
            stream::select(machines, instances)
        })
    }
}
