//! The wire types of `pallet.dev/v1alpha1`, one file a kind, and the names that stand on objects.
//!
//! They are plain data. What they mean is decided in `pallet-core`, which parses them once into validated types.

pub mod actions;
pub mod conditions;
pub mod converge;
pub mod crds;
pub mod group_node;
pub mod group_spec;
pub mod lift;
pub mod nodes;
pub mod phases;
pub mod reference;
pub mod server_spec;

pub use group_node::{GroupNode, GroupNodeFields, GroupNodeStatus};
pub use group_spec::{GroupSpec, GroupSpecFields, GroupSpecStatus};
pub use lift::{Lift, LiftFields, LiftStatus};
pub use server_spec::{ServerSpec, ServerSpecFields};

/// The API group of every kind.
pub const API_GROUP: &str = "pallet.dev";
/// Label on what backs nodes and on GroupNodes: the name of the GroupSpec that they belong to. The scale subresource selects by it.
pub const GROUP_LABEL: &str = "pallet.dev/group";
/// Label on what backs a node: the name of its GroupNode.
pub const NODE_LABEL: &str = "pallet.dev/node";
/// Annotation on volume claims: the UID of the GroupSpec that had them made. Only that one ever deletes them.
pub const GROUP_UID_ANNOTATION: &str = "pallet.dev/group-uid";
/// Annotation on pods and virtual machines: the hash of the template that they were made from.
pub const TEMPLATE_HASH_ANNOTATION: &str = "pallet.dev/template-hash";
/// Annotation on ControllerRevisions: a digest over what one declares.
pub const DECLARATION_ANNOTATION: &str = "pallet.dev/declaration";
/// Annotation on pods: the container in which phases run, as it was when the pod was made.
pub const CONTAINER_ANNOTATION: &str = "pallet.dev/container";
/// Annotation on a GroupNode or its pod: prefer it as a victim when the group shrinks. Its value does not matter.
pub const DELETE_NODE_ANNOTATION: &str = "pallet.dev/delete-node";
/// Annotation on a GroupSpec or a GroupNode: a new value gives failed phases their attempts back.
pub const RETRY_ANNOTATION: &str = "pallet.dev/retry";
/// Annotation on a GroupSpec: the digest of the plan that may be carried out.
pub const APPROVE_ANNOTATION: &str = "pallet.dev/approve";
/// Annotation on a GroupNode: the run that waits at a manual step and may go on.
pub const ACK_ANNOTATION: &str = "pallet.dev/ack";
/// Finalizer on both kinds: the operator ends what they stand for before they go.
pub const FINALIZER: &str = "pallet.dev/finalizer";
/// Readiness gate that the operator adds to pods and opens at the first converge of an incarnation.
pub const CONVERGED_GATE: &str = "pallet.dev/converged";
/// Environment variable through which the agent learns which pod it is in.
pub const POD_UID_ENV: &str = "PALLET_POD_UID";
/// The finalizer by which Kubernetes marks a deletion that leaves the dependents alive.
pub const ORPHAN_FINALIZER: &str = "orphan";
