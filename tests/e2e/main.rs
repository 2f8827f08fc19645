//! The end-to-end tier: the built operator against a real API server, kubelet and containerd.
//!
//! Every test has a namespace and an operator process of its own, so they run side by side and may kill what is theirs.

mod command_line;
mod conformance;
mod converge;
mod crates;
mod disruptions;
mod edited_labels;
mod examples;
mod faults;
mod flapping;
mod grounds;
mod harness;
mod hosts;
mod identity;
mod language;
mod leadership;
mod lifecycle;
mod lifts;
mod outages;
mod packages;
mod phases;
mod points;
mod poison;
mod proxy;
mod refusals;
mod revisions;
mod rollouts;
mod secrets;
mod sshd;
mod templates;
mod tenants;
#[cfg(feature = "otel")]
mod traces;
mod trouble;
mod virtual_machines;
mod walk;
mod watches;
