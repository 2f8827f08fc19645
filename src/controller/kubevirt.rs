//! Virtual machines: watched as soon as KubeVirt is there, which may be later than the operator.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
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

/// How often it is looked for while it is not there, and while it is. It is one small request.
const LOOK: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_secs(30);

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

/// Looks for KubeVirt, and has the groups looked at that it matters to when it has come or gone.
#[derive(Clone)]
struct Lookout {
    client: Client,
    state: Arc<State>,
    runs: Arc<Runs>,
    groups: Store<GroupSpec>,
}

impl Lookout {
    /// Resolves when KubeVirt is there, or is not.
    async fn until(self, wanted: Presence, pause: Duration) {
        loop {
            match look(&self.client).await {
                Ok(presence) => {
                    self.see(presence);
                    if presence == wanted {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, source = error.explanation(), "whether KubeVirt is there could not be asked");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn see(&self, presence: Presence) {
        if !self.state.see_kubevirt(presence) {
            return;
        }
        info!(?presence, "KubeVirt was looked for");
        if presence == Presence::Absent {
            // With the definitions went all objects; nobody tells of each.
            self.state.index().forget_virtual_machines();
        }
        let groups = self.groups.state();
        let concerned = groups.iter().filter(|group| group.spec.node.virtual_machine.is_some());
        concerned.for_each(|group| self.runs.look_at(&resolve::key(group)));
    }
}

impl Scope {
    /// The groups to look at since a virtual machine or an instance changed. They are watched while KubeVirt is there: a watch of
    /// what is not served fails for ever, and an operator that cannot watch is not ready.
    pub(super) fn virtual_machines(
        &self,
        state: &Arc<State>,
        runs: &Arc<Runs>,
        groups: Store<GroupSpec>,
    ) -> impl Stream<Item = Vec<GroupKey>> + Send + use<> {
        let (scope, state, runs) = (self.clone(), state.clone(), runs.clone());
        let lookout = Lookout { client: self.client.clone(), state: state.clone(), runs: runs.clone(), groups };
        let comes = stream::unfold(lookout.clone(), |lookout| async move {
            lookout.clone().until(Presence::Present, LOOK).await;
            Some(((), lookout))
        });
        comes.flat_map(move |()| {
            let machines = indexed(&state, &runs, scope.watch::<VirtualMachine>(Some(GROUP_LABEL)));
            let instances = indexed(&state, &runs, scope.watch::<VirtualMachineInstance>(Some(GROUP_LABEL)));
            let goes = lookout.clone().until(Presence::Absent, LOOK_AGAIN);
            stream::select(machines, instances).take_until(Box::pin(goes))
        })
    }
}
