//! `errors`: what failed, where, with which words, and what to do.

use clap::Args;
use kube::api::ListParams;
use pallet_api::reason::Reason;
use pallet_api::{
    GROUP_LABEL, GroupNode, GroupSpec, Lift,
    group_node::{Effect, NodeLift, Outcome, PhaseResult},
    lift::NodeOutcome,
};
use serde::Serialize;

use crate::{
    advice,
    connect::Cluster,
    exit::{Exit, Result},
    names::{Kind, Target, targets},
    outcome::{Standing, condition, holds, lift as lift_standing},
    output::{self, Format, Tone, clean, line, tell},
    results,
};

/// Shows what failed: node, phase, action, exit code, the last lines of output, and what to do
///
/// Without a name it is told of all groups of the namespace, and of Lifts that failed. What is printed here is the end of the
/// output, as the operator keeps it with secrets masked; all of it is had by `logs`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What to look at: GROUP, lift/NAME, gn/NODE
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Ends with exit code 1 where there is any error
    #[arg(long)]
    raise: bool,
    /// How many lines of output are shown of each
    #[arg(long, value_name = "N", default_value_t = 10)]
    lines: usize,
    /// How they are printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet errors                    # of all groups and Lifts of the namespace
  kubectl pallet errors web                # of one group
  kubectl pallet errors lift/web-deploy-x7k2p
  kubectl pallet errors gn/web-1 --lines 50
  kubectl pallet errors web --raise        # exit code 1 where there is any
  kubectl pallet errors web -o json | jq -r '.[].node'";

/// One thing that went wrong.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The Lift, where it was in one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lift: String,
    /// The node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The phase.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// The action that failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// How it ended.
    pub reason: String,
    /// Which attempt it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The script's exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The run in the node's journal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run_id: String,
    /// What went wrong.
    pub message: String,
    /// The last lines that were printed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Failure {
    /// For people.
    pub fn render(&self) -> String {
        self.rendered(10, false)
    }

    fn rendered(&self, lines: usize, colours: bool) -> String {
        let place = match (self.node.as_str(), self.lift.as_str()) {
            ("", "") => Target::group(&self.group).to_string(),
            ("", lift) => Target::lift(lift).to_string(),
            (node, _) => node.to_owned(),
        };
        let mut head = vec![place];
        head.extend([&self.phase, &self.action].into_iter().filter(|text| !text.is_empty()).cloned());
        let mut how = vec![self.reason.clone()];
        how.extend(self.attempt.map(|attempt| format!("attempt {attempt}")));
        how.extend(self.exit_code.map(|code| format!("exit code {code}")));
        let head = Tone::Bad.paint(&head.join("  "), colours);
        let mut text = format!("{head}  {}", how.join(", "));
        if !self.lift.is_empty() && !self.node.is_empty() {
            text.push_str(&format!("  (lift/{})", self.lift));
        }
        text.push_str(&format!("\n  {}", clean(&self.message).replace('\n', "\n  ")));
        let printed = clean(&self.output);
        let all: Vec<&str> = printed.lines().collect();
        for printed in &all[all.len().saturating_sub(lines)..] {
            text.push_str(&format!("\n  | {printed}"));
        }
        if !self.run_id.is_empty() {
            text.push_str(&format!("\n  all output: kubectl pallet logs {} --run {}", self.node, self.run_id));
        }
        if !self.remedy.is_empty() {
            text.push_str(&format!("\n  to do: {}", self.remedy));
        }
        text
    }
}

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let wanted = targets(&arguments.names, &[Kind::Group, Kind::Lift, Kind::Node])?;
    let failures = if wanted.is_empty() { all(cluster).await? } else { of(cluster, &wanted).await? };
    match arguments.output {
        Some(format @ (Format::Json | Format::Yaml)) => {
            output::data(&serde_json::to_value(&failures).unwrap_or_default(), format)?;
        }
        Some(Format::Name) => {
            let mut names: Vec<String> = failures
                .iter()
                .map(|failure| match failure.node.as_str() {
                    "" => format!("{}/{}", Kind::Group.full(), failure.group),
                    node => format!("{}/{node}", Kind::Node.full()),
                })
                .collect();
            names.dedup();
            names.iter().try_for_each(line)?;
        }
        _ if failures.is_empty() => tell("no errors"),
        _ => {
            let shown: Vec<String> =
                failures.iter().map(|failure| failure.rendered(arguments.lines, output::colours())).collect();
            line(shown.join("\n\n"))?;
        }
    }
    Ok(if arguments.raise && !failures.is_empty() { Exit::Failed } else { Exit::Success })
}

async fn all(cluster: &Cluster) -> Result<Vec<Failure>> {
    let everything = ListParams::default();
    let groups = cluster.ask("list groupspecs", cluster.api::<GroupSpec>().list(&everything)).await?;
    let nodes = cluster.ask("list groupnodes", cluster.api::<GroupNode>().list(&everything)).await?;
    let mut failures: Vec<Failure> = groups.items.iter().flat_map(|group| of_group(group, &nodes.items)).collect();
    // An operator that knows of no Lifts yet has groups all the same.
    if let Ok(lifts) = cluster.ask("list lifts", cluster.api::<Lift>().list(&everything)).await {
        for lift in lifts.items.iter().filter(|lift| matches!(lift_standing(lift), Standing::Failed { .. })) {
            failures.extend(of_lift(lift, &parts(lift, &nodes.items)));
        }
    }
    Ok(failures)
}

async fn of(cluster: &Cluster, wanted: &[Target]) -> Result<Vec<Failure>> {
    let mut failures = Vec::new();
    for target in wanted {
        let what = format!("get {target}");
        match target.kind {
            Kind::Group => {
                let group = cluster.ask(what, cluster.api::<GroupSpec>().get(&target.name)).await?;
                let mine = ListParams::default().labels(&format!("{GROUP_LABEL}={}", target.name));
                let nodes = cluster.ask("list groupnodes", cluster.api::<GroupNode>().list(&mine)).await?;
                failures.extend(of_group(&group, &nodes.items));
            }
            Kind::Lift => {
                let lift = cluster.ask(what, cluster.api::<Lift>().get(&target.name)).await?;
                let nodes = results::of_nodes(cluster, &lift).await?;
                failures.extend(of_lift(&lift, &nodes));
            }
            Kind::Node => {
                let node = cluster.ask(what, cluster.api::<GroupNode>().get(&target.name)).await?;
                failures.extend(of_node(&node));
                for part in node.status.iter().flat_map(|status| &status.lifts) {
                    failures.extend(of_part(&node, part));
                }
            }
        }
    }
    Ok(failures)
}

/// What waits for a person has not failed.
const WAITS: [Reason; 2] = [Reason::ManualStep, Reason::WaitingForApproval];

/// What is wrong with a group: itself, then its nodes.
fn of_group(group: &GroupSpec, nodes: &[GroupNode]) -> Vec<Failure> {
    let name = group.metadata.name.clone().unwrap_or_default();
    let mut mine: Vec<&GroupNode> = nodes.iter().filter(|node| node.spec.group == name).collect();
    mine.sort_by_key(|node| node.spec.ordinal);
    let failures: Vec<Failure> = mine.iter().flat_map(|node| of_node(node)).collect();
    let conditions = group.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    // What its nodes say is not said twice.
    let said = |reason: &str| {
        let of_nodes = [Reason::PhaseFailed, Reason::TestFailed, Reason::RolloutStopped];
        Reason::is_one_of(reason, &of_nodes) || Reason::is_one_of(reason, &WAITS)
    };
    let own = holds(conditions, "Stalled").filter(|stalled| !said(&stalled.reason) || failures.is_empty());
    let own = own.filter(|stalled| !Reason::is_one_of(&stalled.reason, &WAITS));
    let own = own.map(|stalled| Failure {
        remedy: advice::about(&stalled.reason, &name, "").unwrap_or_default(),
        group: name.clone(),
        reason: stalled.reason.clone(),
        message: stalled.message.clone(),
        ..Failure::default()
    });
    own.into_iter().chain(failures).collect()
}

/// What is wrong with a node: phases that failed, and what keeps it from running them.
fn of_node(node: &GroupNode) -> Vec<Failure> {
    let Some(status) = &node.status else { return Vec::new() };
    let (name, group) = (node.metadata.name.clone().unwrap_or_default(), node.spec.group.clone());
    let converged = condition(&status.conditions, "Converged").filter(|condition| condition.status != "True");
    let reason = converged.map(|condition| condition.reason.as_str()).unwrap_or_default();
    let remedy = match Reason::parse(reason) {
        Some(Reason::Backoff | Reason::Running | Reason::Pending) => "it is tried again by itself".to_owned(),
        _ => advice::about(reason, &group, &name)
            .unwrap_or_else(|| format!("change the phase, or retry it: kubectl pallet retry gn/{name}")),
    };
    let failed = status.phase_results.iter().filter(|phase_result| is_failure(phase_result));
    let mut failures: Vec<Failure> =
        failed.map(|phase_result| failure(node, phase_result, "", remedy.clone())).collect();
    if let Some(condition) = converged.filter(|condition| advice::blocks(&condition.reason)) {
        failures.push(Failure {
            remedy: advice::about(&condition.reason, &group, &name).unwrap_or_default(),
            group,
            node: name,
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            ..Failure::default()
        });
    }
    failures
}

/// What failed in a Lift. Where its nodes say nothing, its status does.
pub fn of_lift(lift: &Lift, nodes: &[(GroupNode, NodeLift)]) -> Vec<Failure> {
    let mut failures: Vec<Failure> = nodes.iter().flat_map(|(node, part)| of_part(node, part)).collect();
    let name = lift.metadata.name.clone().unwrap_or_default();
    let known: Vec<(String, String)> = failures.iter().map(|one| (one.node.clone(), one.phase.clone())).collect();
    let Some(status) = &lift.status else { return failures };
    let unknown =
        status.phase_errors.iter().filter(|error| !known.contains(&(error.node.clone(), error.phase.clone())));
    failures.extend(unknown.map(|error| Failure {
        lift: name.clone(),
        node: error.node.clone(),
        phase: error.phase.clone(),
        action: error.action.clone().unwrap_or_default(),
        reason: format!("{:?}", error.outcome),
        attempt: Some(error.attempt),
        exit_code: error.exit_code,
        message: error.message.clone(),
        ..Failure::default()
    }));
    // Something that no node says: a group that is not there, a phase that nobody declares.
    if let (true, Standing::Failed { reason, message, .. }) = (failures.is_empty(), lift_standing(lift)) {
        failures.push(Failure {
            group: lift.spec.groups.iter().flatten().next().cloned().unwrap_or_default(),
            lift: name,
            reason,
            message,
            ..Failure::default()
        });
    }
    failures
}

fn parts(lift: &Lift, nodes: &[GroupNode]) -> Vec<(GroupNode, NodeLift)> {
    let uid = lift.metadata.uid.as_deref().unwrap_or_default();
    let part = |node: &GroupNode| {
        let found = node.status.iter().flat_map(|status| &status.lifts).find(|part| part.uid == uid).cloned();
        found.map(|part| (node.clone(), part))
    };
    nodes.iter().filter_map(part).collect()
}

fn of_part(node: &GroupNode, part: &NodeLift) -> Vec<Failure> {
    let remedy = match part.outcome {
        Some(NodeOutcome::Cancelled) => String::new(),
        Some(NodeOutcome::TimedOut) => "lift again with a longer --timeout, or mend what takes so long".to_owned(),
        _ => "mend it, and lift again: a Lift runs once".to_owned(),
    };
    let failed = part.phase_results.iter().filter(|phase_result| is_failure(phase_result));
    failed.map(|phase_result| failure(node, phase_result, &part.name, remedy.clone())).collect()
}

fn is_failure(phase_result: &PhaseResult) -> bool {
    matches!(phase_result.outcome, Outcome::Failed | Outcome::TimedOut)
}

fn failure(node: &GroupNode, phase_result: &PhaseResult, lift: &str, remedy: String) -> Failure {
    let failed: Vec<&str> = phase_result
        .actions
        .iter()
        .filter(|action| action.result == Effect::Failed)
        .map(|action| action.name.as_str())
        .collect();
    Failure {
        group: node.spec.group.clone(),
        lift: lift.to_owned(),
        node: node.metadata.name.clone().unwrap_or_default(),
        phase: phase_result.phase.clone(),
        action: failed.join(", "),
        reason: format!("{:?}", phase_result.outcome),
        attempt: Some(phase_result.attempt),
        exit_code: phase_result.exit_code,
        // Of test and settings nothing lies in the journal that people want to read.
        run_id: if phase_result.phase == "test" { String::new() } else { phase_result.run_id.clone() },
        message: if phase_result.message.is_empty() {
            "it did not say why".to_owned()
        } else {
            phase_result.message.clone()
        },
        output: phase_result.output.clone(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(conditions: Value, phase_results: Value) -> GroupNode {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "bad-1"},
            "spec": {"group": "bad", "groupUid": "u", "ordinal": 1}, "status": {"conditions": conditions, "phaseResults": phase_results}
        }))
        .unwrap()
    }

    fn converged(reason: &str, message: &str) -> Value {
        json!([{"type": "Converged", "status": "False", "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    }

    #[test]
    fn an_error_says_all_that_is_needed_to_mend_it() {
        let phase_result = json!([{"phase": "configure", "digest": "d", "runId": "configure-1", "attempt": 2, "outcome": "Failed", "exitCode": 7,
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z", "output": "one\ntwo\nthe gate is shut\n",
            "message": "action gate failed with exit code 7", "actions": [{"name": "gate", "result": "Failed"}]}]);
        let failures = of_node(&node(converged("PhaseFailed", "m"), phase_result));
        let text = failures[0].rendered(2, false);
        assert_eq!(
            text,
            "bad-1  configure  gate  Failed, attempt 2, exit code 7\n  action gate failed with exit code 7\n  | two\n  | the gate is shut\n  \
             all output: kubectl pallet logs bad-1 --run configure-1\n  to do: change the phase, or retry it: kubectl pallet retry bad"
        );
    }

    #[test]
    fn a_node_that_cannot_be_worked_on_is_an_error_though_no_phase_failed() {
        let failures = of_node(&node(converged("ImagePullBackOff", "no such image"), json!([])));
        assert_eq!((failures.len(), failures[0].reason.as_str()), (1, "ImagePullBackOff"));
        assert!(of_node(&node(converged("ContainerCreating", ""), json!([]))).is_empty());
    }

    #[test]
    fn what_nodes_say_their_group_does_not_repeat() {
        let group = |reason: &str| -> GroupSpec {
            serde_json::from_value(json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": "bad"},
                "spec": {"node": {"pod": {"template": {}}}}, "status": {"conditions": [{"type": "Stalled", "status": "True", "reason": reason,
                "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap()
        };
        assert_eq!(of_group(&group("InvalidSpec"), &[]).len(), 1);
        assert!(of_group(&group("ManualStep"), &[]).is_empty());
        let nodes = [node(converged("NoShell", "no sh"), json!([]))];
        assert_eq!(of_group(&group("PhaseFailed"), &nodes).len(), 1);
    }
}
