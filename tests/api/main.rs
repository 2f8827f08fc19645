//! The API tier: what the definitions promise, asked of a real API server. No operator runs here.

#[path = "../support/mod.rs"]
mod support;

mod accepts;
mod install;
mod life;
mod lifts;
mod refuses;
mod refuses_lifts;
mod request;
mod shows;
mod subresources;
