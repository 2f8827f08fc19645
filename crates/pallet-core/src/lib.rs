//! What pallet-operator decides, as functions of values: no client, no runtime, no clock, no randomness. Whatever a decision needs
//! of them is an argument. `Cargo.toml` has no package for a client or a runtime, and `clippy.toml` refuses clocks, files and
//! processes of the standard library.
//!
//! | module | what it does |
//! |---|---|
//! | [`group`] | a GroupSpec, parsed and checked once: parameters, phases, roles, pod templates |
//! | [`phase`] | phases, actions and digests; templates ([`phase::render`]), expressions ([`phase::expect`]), scripts ([`phase::compile`]) |
//! | [`facts`] | the facts of a node |
//! | [`node`] | pods, virtual machines and hosts as machines of a group |
//! | [`target`] | how a node is reached |
//! | [`observe`] | caches, and the snapshot that a plan is made from |
//! | [`plan`] | converge: scale, the next step of each node, the status |
//! | [`lift`] | lift: which nodes, the next step, the status |
//! | [`session`] | the state machine of one connection to a node: frames in, requests out |
//! | [`text`] | text of nodes, made safe to store and to show |

// A panic fails a reconcile: what cannot happen is an error all the same.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout))]

pub mod facts;
pub mod group;
pub mod lift;
pub mod node;
pub mod observe;
pub mod phase;
pub mod plan;
pub mod session;
#[cfg(test)]
mod standings;
pub mod target;
pub mod text;
