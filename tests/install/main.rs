//! The installation tier: the image, kustomize and the chart on a cluster of their own, one test after the other
//! (`make test-install`). What a person would type is what is run: kubectl and helm.

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod commands;
mod group;
mod helm;
mod kustomize;
mod pod;
mod rendered;
mod roles;
