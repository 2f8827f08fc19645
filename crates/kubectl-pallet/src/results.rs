//! What came of Lifts, at their end: what nodes printed, what would change, what failed.

use std::collections::BTreeMap;

use kube::api::ListParams;
use pallet_api::{
    GroupNode, Lift,
    group_node::{Effect, NodeLift, PhaseResult},
};

use crate::{
    connect::Cluster,
    errors,
    exit::Result,
    outcome,
    outcome::Standing,
    output::{self, Cell, Format, Table, Tone, clean},
    progress,
};

/// Prints it on stdout: the objects where `-o` asks for them, else what people want to know.
pub async fn print(cluster: &Cluster, lifts: &[Lift], quiet: bool, output: Option<Format>) -> Result<()> {
    if let Some(format) = output.filter(|format| *format != Format::Wide) {
        return output::objects(lifts, true, Some(format), table_of(lifts));
    }
    for lift in lifts {
        let nodes = of_nodes(cluster, lift).await?;
        if lift.spec.dry_run {
            output::print(&would_change(&nodes).render(output::colours()))?;
        } else if lift.spec.phase.is_some() {
            output::print(&printed(&nodes))?;
        }
        let failures = errors::of_lift(lift, &nodes);
        for failure in &failures {
            output::tell(failure.render());
        }
        if !quiet {
            output::tell(summary(lift));
        }
    }
    Ok(())
}

/// The nodes of a Lift, with what it did on each, in the order of their groups and ordinals.
pub async fn of_nodes(cluster: &Cluster, lift: &Lift) -> Result<Vec<(GroupNode, NodeLift)>> {
    let uid = lift.metadata.uid.as_deref().unwrap_or_default();
    let named = |groups: &[String]| format!("{} in ({})", pallet_api::GROUP_LABEL, groups.join(","));
    let selector = lift.spec.groups.as_deref().map(named);
    let parameters = ListParams { label_selector: selector, ..ListParams::default() };
    let found = cluster.ask("list groupnodes", cluster.api::<GroupNode>().list(&parameters)).await?;
    let mine = found.items.into_iter().filter_map(|node| {
        let lifts = node.status.as_ref().map(|status| status.lifts.as_slice()).unwrap_or_default();
        let part = lifts.iter().find(|part| part.uid == uid).cloned();
        part.map(|part| (node, part))
    });
    let mut mine: Vec<(GroupNode, NodeLift)> = mine.collect();
    mine.sort_by(|(a, _), (b, _)| (&a.spec.group, a.spec.ordinal).cmp(&(&b.spec.group, b.spec.ordinal)));
    Ok(mine)
}

/// What nodes printed, led by their names where there are several.
fn printed(nodes: &[(GroupNode, NodeLift)]) -> String {
    let mut text = String::new();
    for (node, part) in nodes {
        // What settings printed nobody has asked for.
        for phase_result in part.phase_results.iter().filter(|phase_result| phase_result.phase != "settings") {
            let name = if nodes.len() > 1 { node.metadata.name.as_deref() } else { None };
            text.push_str(&headed(name, phase_result));
        }
    }
    text
}

/// How much of what was printed a phase result keeps, in bytes.
const KEPT: i64 = 2048;

fn headed(name: Option<&str>, phase_result: &PhaseResult) -> String {
    let mut text = String::new();
    let kept = phase_result.output.len() as i64;
    // Masked output may be shorter than what was printed, so that only its bound tells.
    if phase_result.output_bytes > KEPT && kept > 0 {
        let name = name.unwrap_or("NODE");
        output::tell(format!(
            "note: {name} printed {} bytes, of which the last {kept} are here; all of them: kubectl pallet logs {name} --run {}",
            phase_result.output_bytes, phase_result.run_id
        ));
    }
    for output in clean(&phase_result.output).lines() {
        match name {
            Some(name) => text.push_str(&format!("{name}: {output}\n")),
            None => text.push_str(&format!("{output}\n")),
        }
    }
    text
}

/// What a dry run found, by node, phase and action.
fn would_change(nodes: &[(GroupNode, NodeLift)]) -> Table {
    let mut table = Table::new(&["NODE", "PHASE", "ACTION", "RESULT", "DIFFERENCE"]);
    for (node, part) in nodes {
        for phase_result in &part.phase_results {
            let (name, phase) = (node.metadata.name.clone().unwrap_or_default(), phase_result.phase.clone());
            if phase_result.actions.is_empty() && !phase_result.message.is_empty() {
                let message = phase_result.message.clone();
                table.row(vec![name.into(), phase.into(), "".into(), Cell::toned("failed", Tone::Bad), message.into()]);
                continue;
            }
            for action in &phase_result.actions {
                let (word, tone) = match action.result {
                    Effect::Changed => ("would change", Tone::Wait),
                    Effect::Unchanged => ("unchanged", Tone::Good),
                    Effect::Failed => ("failed", Tone::Bad),
                    Effect::Skipped => ("skipped", Tone::Dim),
                    Effect::Waiting => ("waits for a person", Tone::Wait),
                    Effect::Unknown => ("cannot be told", Tone::Wait),
                };
                let difference = first_difference(&action.diff);
                let cells = [Cell::from(name.clone()), phase.clone().into(), action.name.clone().into()];
                let mut row = cells.to_vec();
                row.extend([Cell::toned(word, tone), difference.into()]);
                table.row(row);
            }
        }
    }
    table
}

/// The first line of a diff that says something, and that there are more.
fn first_difference(diff: &str) -> String {
    let mut lines = diff.lines().filter(|line| {
        let heading = line.starts_with("---") || line.starts_with("+++") || line.starts_with("@@");
        !heading && (line.starts_with('+') || line.starts_with('-'))
    });
    let first = lines.next().unwrap_or_else(|| diff.lines().next().unwrap_or_default());
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more)"),
    }
}

/// What became of a Lift, in a line.
fn summary(lift: &Lift) -> String {
    let name = lift.metadata.name.as_deref().unwrap_or_default();
    let how = match outcome::lift(lift) {
        Standing::Going => "goes on".to_owned(),
        Standing::Done(_) => "succeeded".to_owned(),
        Standing::Failed { reason, .. } => format!("failed ({reason})"),
    };
    let mut parts = vec![format!("lift/{name} {how}")];
    parts.push(progress::counts(lift));
    if let Some(actions) = lift.status.as_ref().and_then(|status| status.actions) {
        let word = if lift.spec.dry_run { "would change" } else { "changed" };
        let figures = [
            (actions.changed, word),
            (actions.unchanged, "unchanged"),
            (actions.skipped, "skipped"),
            (actions.failed, "failed"),
            (actions.unknown, "cannot be told"),
        ];
        let figures: Vec<String> = figures
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if !figures.is_empty() {
            parts.push(format!("actions: {}", figures.join(", ")));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// A table of Lifts, for `-o wide` and lists.
pub fn table_of(lifts: &[Lift]) -> impl FnOnce(bool) -> Table + '_ {
    move |wide| {
        let mut head = vec!["NAME", "NODES", "SUCCEEDED", "FAILED", "STATUS", "AGE"];
        head.extend(wide.then_some("MESSAGE"));
        let mut table = Table::new(&head);
        for lift in lifts {
            let status = lift.status.clone().unwrap_or_default();
            let (word, tone) = standing(lift);
            let mut row = vec![
                lift.metadata.name.clone().unwrap_or_default().into(),
                status.nodes.to_string().into(),
                status.succeeded.to_string().into(),
                status.failed.to_string().into(),
                Cell::toned(word, tone),
                crate::status::age(&lift.metadata).into(),
            ];
            row.extend(wide.then(|| progress::lift_text(lift).into()));
            table.row(row);
        }
        table
    }
}

/// Where a Lift stands, in a word.
pub fn standing(lift: &Lift) -> (String, Tone) {
    match outcome::lift(lift) {
        Standing::Done(_) => ("Complete".to_owned(), Tone::Good),
        Standing::Failed { reason, .. } => (reason, Tone::Bad),
        Standing::Going if lift.spec.cancel => ("Cancelling".to_owned(), Tone::Wait),
        Standing::Going if lift.spec.suspend => ("Suspended".to_owned(), Tone::Wait),
        Standing::Going => {
            let conditions = lift.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            match outcome::holds(conditions, "Stalled") {
                Some(stalled) => (stalled.reason.clone(), Tone::Bad),
                None if lift.status.as_ref().is_some_and(|status| status.start_time.is_some()) => {
                    ("Running".to_owned(), Tone::Plain)
                }
                None => ("Pending".to_owned(), Tone::Dim),
            }
        }
    }
}

/// The nodes of a Lift by what has become of them.
pub fn by_outcome(lift: &Lift) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for nodes in lift.status.iter().flat_map(|status| &status.outcomes) {
        all.entry(format!("{:?}", nodes.outcome)).or_default().push(format!("{} {}", nodes.group, nodes.nodes));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn part(name: &str, phase_results: Value) -> (GroupNode, NodeLift) {
        let node = serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": name},
            "spec": {"group": "web", "groupUid": "u", "ordinal": 0}
        }));
        let part = serde_json::from_value(json!({"uid": "L", "name": "x", "phaseResults": phase_results}));
        (node.unwrap(), part.unwrap())
    }

    fn phase_result(phase: &str, output: &str, actions: Value) -> Value {
        json!({"phase": phase, "digest": "d", "runId": "r", "attempt": 1, "outcome": "Succeeded", "output": output, "actions": actions,
               "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn output_is_led_by_the_node_where_there_are_several() {
        let one = part(
            "web-0",
            json!([phase_result("settings", "x", json!([])), phase_result("exec", "up 3 days\nload 1\n", json!([]))]),
        );
        assert_eq!(printed(std::slice::from_ref(&one)), "up 3 days\nload 1\n");
        let two = part("web-1", json!([phase_result("exec", "up 1 day", json!([]))]));
        assert_eq!(printed(&[one, two]), "web-0: up 3 days\nweb-0: load 1\nweb-1: up 1 day\n");
    }

    #[test]
    fn a_dry_run_tells_of_every_action_what_it_would_do() {
        let actions = json!([
            {"name": "motd", "result": "Changed", "diff": "--- a\n+++ b\n-old\n+new\n"},
            {"name": "dir", "result": "Unchanged"},
            {"name": "reload", "result": "Unknown"}
        ]);
        let table = would_change(&[part("web-0", json!([phase_result("configure", "", actions)]))]).render(false);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "web-0   configure   motd     would change     -old (and 1 more)");
        assert_eq!(lines[2], "web-0   configure   dir      unchanged");
        assert_eq!(lines[3], "web-0   configure   reload   cannot be told");
    }
}
