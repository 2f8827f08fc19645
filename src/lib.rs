//! The operator: it keeps groups of nodes as their [`GroupSpec`](pallet_api::GroupSpec) declares them. The decisions are in
//! [`pallet_core`]; this package has the calls, the connections and the process.
//!
//! ```text
//! watch -> observe (pure: caches -> Snapshot) -> plan (pure: Snapshot -> Plan{effects, steps, wake})
//!    ^                                               |
//! phase results <- run <- transport <- apply (IO: Plan -> calls) -> report (IO, of a status that a pure function returns)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`controller`] | a reconcile and its wiring: observe, apply, report (**where results are written**) |
//! | [`lease`] | leader election |
//! | [`ports`] | what a reconcile needs of the world: the clock and the sessions |
//! | [`run`] | the sessions in flight: opened, followed and ended |
//! | [`transport`] | exec and SSH |
//! | [`telemetry`] | logs, metrics, health, traces |
//! | [`probe`] | the probe of `helm test` |

// A panic fails a reconcile: what cannot happen is an error all the same.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout))]

pub mod controller;
pub mod lease;
pub mod ports;
pub mod probe;
pub mod run;
pub mod telemetry;
pub mod transport;
