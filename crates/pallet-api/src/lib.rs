//! The types of `pallet.dev/v1alpha1`, and the names of its labels, annotations and finalizers.
//!
//! The types are plain data. `pallet-core` parses them once into validated types, and decides what they mean.

pub mod actions;
pub mod conditions;
pub mod converge;
pub mod crds;
pub mod group_node;
pub mod group_spec;
pub mod lift;
pub mod nodes;
pub mod phases;
pub mod reason;
pub mod reference;
pub mod server_spec;

pub use group_node::{GroupNode, GroupNodeFields, GroupNodeStatus};
pub use group_spec::{GroupSpec, GroupSpecFields, GroupSpecStatus};
pub use lift::{Lift, LiftFields, LiftStatus};
pub use server_spec::{ServerSpec, ServerSpecFields};

/// The API group of every kind.
pub const API_GROUP: &str = "pallet.dev";
/// Label on GroupNodes and their machines: the name of the GroupSpec that they belong to. The scale subresource selects by it.
pub const GROUP_LABEL: &str = "pallet.dev/group";
/// Label on machines: the name of their GroupNode.
pub const NODE_LABEL: &str = "pallet.dev/node";
/// Annotation on volume claims: the UID of the GroupSpec that the operator created them for. It deletes them only for that
/// GroupSpec.
pub const GROUP_UID_ANNOTATION: &str = "pallet.dev/group-uid";
/// Annotation on pods and virtual machines: the hash of the template that they were created from.
pub const TEMPLATE_HASH_ANNOTATION: &str = "pallet.dev/template-hash";
/// Annotation on ControllerRevisions: the digest of the declaration that the revision holds.
pub const DECLARATION_ANNOTATION: &str = "pallet.dev/declaration";
/// Annotation on pods: the container in which phases run, fixed when the pod is created.
pub const CONTAINER_ANNOTATION: &str = "pallet.dev/container";
/// Annotation on a GroupNode or its pod: remove this node first when the group shrinks. Its value does not matter.
pub const DELETE_NODE_ANNOTATION: &str = "pallet.dev/delete-node";
/// Annotation on a GroupSpec or a GroupNode: a new value resets the attempts of failed phases.
pub const RETRY_ANNOTATION: &str = "pallet.dev/retry";
/// Annotation on a GroupSpec: the digest of the approved plan.
pub const APPROVE_ANNOTATION: &str = "pallet.dev/approve";
/// Annotation on a GroupNode: the run that waits at a manual step and may continue.
pub const ACK_ANNOTATION: &str = "pallet.dev/ack";
/// Finalizer on GroupSpecs and GroupNodes: the operator removes the nodes before the objects are deleted.
pub const FINALIZER: &str = "pallet.dev/finalizer";
/// Readiness gate that the operator adds to pods, and opens when an incarnation first converges.
pub const CONVERGED_GATE: &str = "pallet.dev/converged";
/// Environment variable from which the agent reads the UID of its pod.
pub const POD_UID_ENV: &str = "PALLET_POD_UID";
/// The finalizer of a deletion that orphans the dependents.
pub const ORPHAN_FINALIZER: &str = "orphan";
