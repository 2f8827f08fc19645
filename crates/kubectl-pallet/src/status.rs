//! `status`: where groups and Lifts stand.

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::ListParams;
use pallet_api::{
    GroupSpec, Lift,
    group_spec::{GroupSpecStatus, PhaseError},
};
use serde_json::Value;

use crate::{
    advice,
    connect::Cluster,
    exit::{Exit, Result},
    names::{Kind, targets},
    outcome::{condition, holds},
    output::{self, Cell, Format, Table, Tone, line, tell},
    progress, results, values,
};

/// Shows where groups and Lifts stand
///
/// Without a name, a table of all in the namespace; with names, the details of each.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// GROUP or lift/NAME
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet status                     # all groups and Lifts of the namespace
  kubectl pallet status -o wide             # with their messages
  kubectl pallet status web                 # phases, errors and what to do, of one group
  kubectl pallet status lift/web-deploy-x7k2p
  kubectl pallet status web -o yaml";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let wanted = targets(&arguments.names, &[Kind::Group, Kind::Lift])?;
    if wanted.is_empty() {
        return everything(cluster, arguments.output).await;
    }
    let (mut groups, mut lifts) = (Vec::new(), Vec::new());
    for target in &wanted {
        let what = format!("get {target}");
        match target.kind {
            Kind::Lift => lifts.push(cluster.ask(what, cluster.api::<Lift>().get(&target.name)).await?),
            _ => groups.push(cluster.ask(what, cluster.api::<GroupSpec>().get(&target.name)).await?),
        }
    }
    match arguments.output {
        None => {
            let details = groups.iter().map(group_details).chain(lifts.iter().map(lift_details));
            line(details.collect::<Vec<_>>().join("\n\n"))?;
        }
        Some(format) => show(&groups, &lifts, wanted.len() == 1, format)?,
    }
    Ok(Exit::Success)
}

async fn everything(cluster: &Cluster, format: Option<Format>) -> Result<Exit> {
    let all = ListParams::default();
    let groups = cluster.ask("list groupspecs", cluster.api::<GroupSpec>().list(&all)).await?.items;
    let lifts = match cluster.ask("list lifts", cluster.api::<Lift>().list(&all)).await {
        Ok(lifts) => lifts.items,
        // The definition of Lift may be younger than what is installed.
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    if groups.is_empty() && lifts.is_empty() && matches!(format, None | Some(Format::Wide)) {
        tell(format!("no GroupSpecs or Lifts in namespace {:?}", cluster.namespace));
        return Ok(Exit::Success);
    }
    match format {
        None | Some(Format::Wide) => {
            let wide = format.is_some();
            if !groups.is_empty() {
                output::print(&table_of(&groups)(wide).render(output::colours()))?;
            }
            if !lifts.is_empty() {
                let gap = if groups.is_empty() { "" } else { "\n" };
                output::print(&format!("{gap}{}", results::table_of(&lifts)(wide).render(output::colours())))?;
            }
        }
        Some(format) => show(&groups, &lifts, false, format)?,
    }
    Ok(Exit::Success)
}

fn show(groups: &[GroupSpec], lifts: &[Lift], single: bool, format: Format) -> Result<()> {
    match format {
        Format::Wide | Format::Name => {
            if !groups.is_empty() {
                output::objects(groups, single, Some(format), table_of(groups))?;
            }
            if !lifts.is_empty() {
                output::objects(lifts, single, Some(format), results::table_of(lifts))?;
            }
            Ok(())
        }
        _ => {
            let mut all: Vec<Value> =
                groups.iter().map(output::object).chain(lifts.iter().map(output::object)).collect();
            match (all.len(), single) {
                (1, true) => output::data(&all.remove(0), format),
                _ => output::data(&output::list(all), format),
            }
        }
    }
}

/// A table of groups.
pub fn table_of(groups: &[GroupSpec]) -> impl FnOnce(bool) -> Table + '_ {
    move |wide| {
        let mut head = vec!["NAME", "COUNT", "NODES", "CONVERGED", "READY", "STATUS", "AGE"];
        head.extend(wide.then_some("MESSAGE"));
        let mut table = Table::new(&head);
        for group in groups {
            let status = group.status.clone().unwrap_or_default();
            let (word, tone) = standing(group);
            let mut row: Vec<Cell> = vec![
                group.metadata.name.clone().unwrap_or_default().into(),
                group.count().to_string().into(),
                status.replicas.to_string().into(),
                status.converged_replicas.to_string().into(),
                status.ready_replicas.to_string().into(),
                Cell::toned(word, tone),
                age(&group.metadata).into(),
            ];
            row.extend(wide.then(|| message(&status).into()));
            table.row(row);
        }
        table
    }
}

fn message(status: &GroupSpecStatus) -> String {
    condition(&status.conditions, "Ready").map(|ready| ready.message.clone()).unwrap_or_default()
}

/// Where a group stands, in a word.
fn standing(group: &GroupSpec) -> (String, Tone) {
    let status = group.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= group.metadata.generation && group.metadata.generation.is_some();
    let Some(ready) = condition(&status.conditions, "Ready").filter(|_| seen) else {
        return ("NotObserved".to_owned(), Tone::Dim);
    };
    let tone = match () {
        () if ready.status == "True" => Tone::Good,
        () if holds(&status.conditions, "Stalled").is_some() => Tone::Bad,
        () => Tone::Wait,
    };
    (ready.reason.clone(), tone)
}

/// How old an object is.
pub fn age(metadata: &ObjectMeta) -> String {
    metadata.creation_timestamp.as_ref().map_or_else(|| "<unknown>".to_owned(), since)
}

/// How long ago something was.
pub fn since(time: &Time) -> String {
    values::age(Timestamp::now().as_second() - time.0.as_second())
}

/// A phase error in a line. Its message may begin with phase and attempt.
fn error_text(error: &PhaseError) -> String {
    let message = output::clean(&error.message);
    if message.starts_with(&error.phase) {
        return message;
    }
    format!("{} attempt {}: {message}", error.phase, error.attempt)
}

fn group_details(group: &GroupSpec) -> String {
    let (name, status) = (group.metadata.name.clone().unwrap_or_default(), group.status.clone().unwrap_or_default());
    let colours = output::colours();
    let (word, tone) = standing(group);
    let mut lines = vec![
        format!("gs/{name}  {}  {}", tone.paint(&word, colours), message(&status)),
        format!(
            "  nodes: {} of {}; converged: {}, ready: {}, of the present template: {}",
            status.replicas,
            group.count(),
            status.converged_replicas,
            status.ready_replicas,
            status.updated_replicas
        ),
    ];
    if group.spec.paused {
        lines.push("  paused: nothing is done before spec.paused is false".to_owned());
    }
    for drifted in holds(&status.conditions, "Drifted").into_iter() {
        lines.push(format!("  drifted: {}: {}", drifted.reason, drifted.message));
    }
    if !status.phases.is_empty() {
        let mut table = Table::new(&["PHASE", "SUCCEEDED", "RUNNING", "FAILED", "PENDING"]);
        for phase in &status.phases {
            let failed = Cell::toned(phase.failed.to_string(), if phase.failed > 0 { Tone::Bad } else { Tone::Plain });
            let figure = |n: u32| Cell::from(n.to_string());
            table.row(vec![
                phase.phase.clone().into(),
                figure(phase.succeeded),
                figure(phase.running),
                failed,
                figure(phase.pending),
            ]);
        }
        lines.extend(table.render(colours).lines().map(|line| format!("  {line}")));
    }
    for error in &status.phase_errors {
        lines.push(format!("  {}  {}", error.node, error_text(error)));
    }
    if status.phase_errors_omitted > 0 {
        lines.push(format!("  and {} more: kubectl pallet errors {name}", status.phase_errors_omitted));
    }
    if let Some(plan) = &status.plan {
        lines.push("  waits for approval:".to_owned());
        lines.extend(crate::plan_view::of_status(&name, plan).iter().map(|line| format!("    {line}")));
    }
    if holds(&status.conditions, "Stalled").is_some()
        && let Some(remedy) = advice::about(&word, &name, "")
    {
        lines.push(format!("  to do: {remedy}"));
    }
    lines.join("\n")
}

fn lift_details(lift: &Lift) -> String {
    let name = lift.metadata.name.clone().unwrap_or_default();
    let (word, tone) = results::standing(lift);
    let status = lift.status.clone().unwrap_or_default();
    let mut lines =
        vec![format!("lift/{name}  {}  {}", tone.paint(&word, output::colours()), progress::lift_text(lift))];
    let groups = match (&lift.spec.groups, &lift.spec.group_selector) {
        (Some(groups), _) => groups.join(", "),
        (None, Some(selector)) => format!("those with {}", crate::selector::text(selector)),
        (None, None) => String::new(),
    };
    let what = match (&lift.spec.phases, &lift.spec.process, &lift.spec.phase) {
        (Some(phases), ..) => phases.join(", "),
        (_, Some(process), _) => format!("process {process}"),
        (.., Some(phase)) => format!("a phase of its own, {} actions", phase.actions.len()),
        _ => "configure".to_owned(),
    };
    lines.push(format!("  groups: {groups}; runs: {what}{}", if lift.spec.dry_run { " (dry run)" } else { "" }));
    let time =
        |time: &Option<Time>| time.as_ref().map_or_else(|| "not yet".to_owned(), |time| format!("{} ago", since(time)));
    lines.push(format!("  started: {}; ended: {}", time(&status.start_time), time(&status.completion_time)));
    for (outcome, nodes) in results::by_outcome(lift) {
        lines.push(format!("  {outcome}: {}", nodes.join("; ")));
    }
    for error in &status.phase_errors {
        lines.push(format!("  {}  {}", error.node, error_text(error)));
    }
    if status.phase_errors_omitted > 0 {
        lines.push(format!("  and {} more: kubectl pallet errors lift/{name}", status.phase_errors_omitted));
    }
    lines.join("\n")
}
