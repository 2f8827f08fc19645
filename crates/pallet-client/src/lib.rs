//! What the operator and the plugin for kubectl share of the client.

pub mod answer;
