//! Virtual machines: watched as soon as KubeVirt is there and the operator may use it, which may be later than the operator.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams, runtime::reflector::Store};
use tracing::{info, warn};

use super::{
    Error, Scope,
    apply::within,
    indexed,
    state::{Presence, State},
};
use crate::ports::Sessions;
use pallet_api::{GROUP_LABEL, GroupSpec};
use pallet_core::{
    group::{GroupKey, resolve},
    node::kubevirt::{GROUP, VERSION, VirtualMachine, VirtualMachineInstance},
};

/// How often it is looked for while it cannot be used, and while it can: one small request, and one for each of [`RIGHTS`]
/// where it is installed.
const LOOK: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What is said of a group whose nodes are virtual machines where there can be none.
pub(super) const MISSING: &str =
    "the API server knows no VirtualMachine of kubevirt.io/v1; install KubeVirt, and it is noticed";

/// The rights without which no group of virtual machines can work, as (verb, API group, resource). They are granted apart
/// from the others, in `deploy/rbac/virtual-machines`, so those that are asked for here stand for all of them.
const RIGHTS: [(&str, &str, &str); 3] = [
    ("watch", GROUP, "virtualmachines"),
    ("watch", GROUP, "virtualmachineinstances"),
    // For keys and user data.
    ("create", "", "secrets"),
];

/// The message of a group whose nodes are virtual machines where the operator lacks a right for them.
pub(super) fn forbidden(right: &str) -> String {
    format!(
        "the operator may not {right}; grant its rights for virtual machines: virtualMachines.enabled of the chart, or \
         deploy/rbac/virtual-machines"
    )
}

/// Whether the API server serves KubeVirt, and whether the operator may use it in its namespace (None: in all of them).
async fn look(client: &Client, namespace: Option<&str>) -> Result<Presence, Error> {
    let version = format!("{GROUP}/{VERSION}");
    match within("discover kubevirt", client.list_api_group_resources(&version)).await {
        Ok(resources) => {
            let kinds: Vec<&str> = resources.resources.iter().map(|resource| resource.kind.as_str()).collect();
            if !kinds.contains(&"VirtualMachine") || !kinds.contains(&"VirtualMachineInstance") {
                return Ok(Presence::Absent);
            }
        }
        Err(error) if error.is_gone() => return Ok(Presence::Absent),
        Err(error) => return Err(error),
    }
    for (verb, group, resource) in RIGHTS {
        if !allowed(client, namespace, (verb, group, resource)).await? {
            return Ok(Presence::Forbidden { verb, group, resource });
        }
    }
    Ok(Presence::Present)
}

/// Asks the API server whether the operator has a right. Every account may ask this about itself.
async fn allowed(
    client: &Client,
    namespace: Option<&str>,
    (verb, group, resource): (&str, &str, &str),
) -> Result<bool, Error> {
    let attributes = ResourceAttributes {
        namespace: namespace.map(ToOwned::to_owned),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = within("review own access", reviews.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Looks for KubeVirt, and has the groups looked at that it matters to when it has come or gone.
#[derive(Clone)]
struct Lookout {
    client: Client,
    namespace: Option<String>,
    state: Arc<State>,
    sessions: Arc<dyn Sessions>,
    groups: Store<GroupSpec>,
}

impl Lookout {
    /// Resolves when virtual machines can be watched, or cannot.
    async fn until(self, usable: bool, pause: Duration) {
        loop {
            match look(&self.client, self.namespace.as_deref()).await {
                Ok(presence) => {
                    self.see(presence);
                    if usable == (presence == Presence::Present) {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, source = error.explanation(), "KubeVirt discovery failed");
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn see(&self, presence: Presence) {
        if !self.state.see_kubevirt(presence) {
            return;
        }
        info!(?presence, "KubeVirt availability changed");
        if presence != Presence::Present {
            // With the definitions went all objects, and without rights nobody tells of them.
            self.state.index().forget_virtual_machines();
        }
        let groups = self.groups.state();
        let concerned = groups.iter().filter(|group| group.spec.node.virtual_machine.is_some());
        concerned.for_each(|group| self.sessions.look_at(&resolve::key(group)));
    }
}

impl Scope {
    /// The groups to look at since a virtual machine or an instance changed. They are watched while KubeVirt is there and the
    /// operator may: a watch of anything else fails for ever, and an operator that cannot watch is not ready.
    pub(super) fn virtual_machines(
        &self,
        state: &Arc<State>,
        sessions: &Arc<dyn Sessions>,
        groups: Store<GroupSpec>,
    ) -> impl Stream<Item = Vec<GroupKey>> + Send + use<> {
        let (scope, state, sessions) = (self.clone(), state.clone(), sessions.clone());
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        let lookout = Lookout { client, namespace, state: state.clone(), sessions: sessions.clone(), groups };
        let comes = stream::unfold(lookout.clone(), |lookout| async move {
            lookout.clone().until(true, LOOK).await;
            Some(((), lookout))
        });
        comes.flat_map(move |()| {
            let machines = indexed(&state, &sessions, scope.watch::<VirtualMachine>(Some(GROUP_LABEL)));
            let instances = indexed(&state, &sessions, scope.watch::<VirtualMachineInstance>(Some(GROUP_LABEL)));
            let goes = lookout.clone().until(false, LOOK_AGAIN);
            stream::select(machines, instances).take_until(Box::pin(goes))
        })
    }
}

#[cfg(test)]
mod tests;
