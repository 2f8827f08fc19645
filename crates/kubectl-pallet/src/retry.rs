//! `retry`: gives phases that failed their attempts back.

use clap::Args;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use pallet_api::{GroupNode, GroupSpec, RETRY_ANNOTATION};
use serde_json::json;

use crate::{
    connect::Cluster,
    exit::{Exit, Result},
    names::{Kind, targets},
    output::line,
};

/// Gives phases that failed their attempts back
///
/// The annotation pallet.dev/retry gets a new value. Phases that succeeded are not run again; for that there is
/// `converge --reapply`, or `lift`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// GROUP for all its nodes, gn/NODE for one
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet retry web        # on all nodes of the group
  kubectl pallet retry gn/web-1   # on one node
  kubectl pallet retry web && kubectl pallet wait web --raise";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    for target in targets(&arguments.names, &[Kind::Group, Kind::Node])? {
        let patch = annotation(RETRY_ANNOTATION, &Timestamp::now().to_string());
        let (what, name, parameters) = (format!("annotate {target}"), &target.name, parameters());
        match target.kind {
            Kind::Node => drop(cluster.ask(what, cluster.api::<GroupNode>().patch(name, &parameters, &patch)).await?),
            _ => drop(cluster.ask(what, cluster.api::<GroupSpec>().patch(name, &parameters, &patch)).await?),
        }
        line(format!("{}/{name} annotated: failed phases have their attempts back", target.kind.full()))?;
    }
    Ok(Exit::Success)
}

/// A patch that sets an annotation.
pub fn annotation(name: &str, value: &str) -> Patch<serde_json::Value> {
    Patch::Merge(json!({"metadata": {"annotations": {name: value}}}))
}

/// Who patches. It is another manager than that of applies, which would take away what it does not name again.
pub fn parameters() -> PatchParams {
    PatchParams { field_manager: Some("kubectl-pallet-edit".into()), ..PatchParams::default() }
}
