pub mod api;
pub mod crds;
pub mod facts;
pub mod group;
pub mod phase;
pub mod plan;
pub mod run;
