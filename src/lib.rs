//! Pallet's *converge* on Kubernetes: a [`GroupSpec`](api::GroupSpec) declares how many nodes there are and the phases
//! that configure them; the operator keeps it so.
//!
//! A functional core decides, an imperative shell carries out:
//!
//! ```text
//! watch -> observe (IO: caches -> Snapshot) -> plan (pure: Snapshot -> Plan{effects, steps, wake})
//!    ^                                               |
//! receipts <- run <- transport <- apply (IO: Plan -> calls) -> report (IO, of a status that a pure function says)
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`answer`] | what the API server answered, in words for people |
//! | [`api`] | wire types, one file a kind; conditions; names on objects |
//! | [`crds`] | the custom resource definitions, generated from them |
//! | [`reference`](mod@reference) | pure: the same for people, `docs/reference.md` |
//! | [`group`] | pure: a group as it was declared, parsed and checked once |
//! | [`phase`] | pure: phases, actions, digests; templates ([`phase::render`]), scripts ([`phase::compile`]) |
//! | [`facts`] | pure: what is known of a node before anything is run there |
//! | [`plan`] | pure: **where converge is decided**: scale, the next step of a node, the status |
//! | [`lift`] | pure: **where lift is decided**: which nodes, the next thing to do, the status |
//! | [`controller`] | the steps of a pass and their wiring: observe, apply, report (**where results are written**) |
//! | [`lease`] | leader election: of several operators, one is at work |
//! | [`node`] | what backs a node: how a pod is read, and how it is made |
//! | [`run`] | sessions in flight, and the agent that stands on a node |
//! | [`telemetry`] | logs, metrics, health, traces: what the operator says of itself |
//! | [`text`] | pure: text of nodes, made safe to store and to show |
//! | [`transport`] | how a session's bytes get there |
//! | [`probe`] | what `helm test` runs |

// A panic fails a reconcile: what cannot happen is an error all the same.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout))]

pub mod controller;
pub mod lease;
pub mod probe;
pub mod run;
pub mod telemetry;
pub mod transport;
