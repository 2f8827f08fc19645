//! `nodes`: the nodes of groups.

use clap::Args;
use kube::api::ListParams;
use pallet_api::{GROUP_LABEL, GroupNode, GroupSpec};

use crate::{
    connect::Cluster,
    exit::{Exit, Result},
    names,
    outcome::condition,
    output::{self, Cell, Format, Table, Tone, tell},
    progress, status,
};

/// Shows the nodes of a group, or of all groups
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The groups; all of the namespace by default
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet nodes               # all nodes of the namespace
  kubectl pallet nodes web -o wide   # with their messages
  kubectl pallet nodes web -o name";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let groups = names::groups(&arguments.groups)?;
    let nodes = of_groups(cluster, &groups).await?;
    if nodes.is_empty() && matches!(arguments.output, None | Some(Format::Wide)) {
        tell(format!("no nodes in namespace {:?}", cluster.namespace));
        return Ok(Exit::Success);
    }
    output::objects(&nodes, false, arguments.output, |wide| table(&nodes, wide))?;
    Ok(Exit::Success)
}

/// The nodes of these groups, or of all, by group and ordinal. A group that is not there is an error.
pub async fn of_groups(cluster: &Cluster, groups: &[String]) -> Result<Vec<GroupNode>> {
    for group in groups {
        cluster.ask(format!("get gs/{group}"), cluster.api::<GroupSpec>().get(group)).await?;
    }
    let mut parameters = ListParams::default();
    if !groups.is_empty() {
        parameters = parameters.labels(&format!("{GROUP_LABEL} in ({})", groups.join(",")));
    }
    let mut nodes = cluster.ask("list groupnodes", cluster.api::<GroupNode>().list(&parameters)).await?.items;
    nodes.sort_by(|a, b| (&a.spec.group, a.spec.ordinal).cmp(&(&b.spec.group, b.spec.ordinal)));
    Ok(nodes)
}

fn table(nodes: &[GroupNode], wide: bool) -> Table {
    let mut head = vec!["NAME", "GROUP", "CONVERGED", "STATUS", "ADDRESS", "LAST", "AGE"];
    head.extend(wide.then_some("MESSAGE"));
    let mut table = Table::new(&head);
    for node in nodes {
        let status = node.status.clone().unwrap_or_default();
        let converged = condition(&status.conditions, "Converged");
        let line = progress::converging(node);
        let last = status.phase_results.iter().max_by_key(|phase_result| phase_result.finished_at.0);
        let tone = if node.metadata.deletion_timestamp.is_some() { Tone::Dim } else { line.tone };
        let mut row: Vec<Cell> = vec![
            node.metadata.name.clone().unwrap_or_default().into(),
            node.spec.group.clone().into(),
            converged.map_or("Unknown", |condition| condition.status.as_str()).into(),
            Cell::toned(converged.map_or("", |condition| condition.reason.as_str()), tone),
            status.address.clone().unwrap_or_default().into(),
            last.map(|phase_result| format!("{} {} ago", phase_result.phase, status::since(&phase_result.finished_at)))
                .unwrap_or_default()
                .into(),
            status::age(&node.metadata).into(),
        ];
        row.extend(wide.then(|| converged.map(|condition| condition.message.clone()).unwrap_or_default().into()));
        table.row(row);
    }
    table
}
