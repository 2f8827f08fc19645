//! Pure: what is shown of an operation while it goes on: a line for each node, or figures where there are many.

use std::collections::BTreeMap;

use pallet_api::{
    GroupNode, GroupSpec, Lift,
    group_node::{Outcome, PhaseResult},
    lift::NodeOutcome,
};

use crate::{
    names::Target,
    outcome::{self, Standing, condition, holds},
    output::{Tone, clean},
};

/// Up to so many nodes have a line each.
pub const FEW: u32 = 20;

/// What is followed.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A group on its way to a generation.
    Group(Box<GroupSpec>, i64),
    /// A Lift.
    Lift(Box<Lift>),
    /// A node.
    Node(Box<GroupNode>),
}

impl Subject {
    /// Its name.
    pub fn target(&self) -> Target {
        match self {
            Subject::Group(group, _) => Target::group(group.metadata.name.clone().unwrap_or_default()),
            Subject::Lift(lift) => Target::lift(lift.metadata.name.clone().unwrap_or_default()),
            Subject::Node(node) => Target::node(node.metadata.name.clone().unwrap_or_default()),
        }
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        match self {
            Subject::Group(group, generation) => outcome::group(group, *generation),
            Subject::Lift(lift) => outcome::lift(lift),
            Subject::Node(node) => outcome::node(node),
        }
    }
}

/// A line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// What it is about, such as `web-0`.
    pub key: String,
    /// What it says.
    pub text: String,
    /// How it is.
    pub tone: Tone,
    /// Whether anything may still come.
    pub over: bool,
}

/// What is shown of one operation.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct View {
    /// The operation itself.
    pub head: Line,
    /// Nodes that are done, one way or the other.
    pub done: u64,
    /// All nodes.
    pub total: u64,
    /// Its nodes, where they are few.
    pub nodes: Vec<Line>,
}

/// What is to be shown.
pub fn view(subject: &Subject, nodes: &BTreeMap<String, GroupNode>) -> View {
    let head = |text: String| {
        let standing = subject.standing();
        let tone = match &standing {
            Standing::Going => Tone::Plain,
            Standing::Done(_) => Tone::Good,
            Standing::Failed { .. } => Tone::Bad,
        };
        Line { key: subject.target().to_string(), text: clean(&text), tone, over: standing.is_over() }
    };
    match subject {
        Subject::Group(group, generation) => {
            let status = group.status.clone().unwrap_or_default();
            let seen = status.observed_generation.is_some_and(|seen| seen >= *generation);
            let text = match condition(&status.conditions, "Ready").filter(|_| seen) {
                Some(ready) => format!("{}: {}", ready.reason, ready.message),
                None => "waits for the operator to see it".to_owned(),
            };
            let name = group.metadata.name.as_deref().unwrap_or_default();
            let mine = nodes.values().filter(|node| node.spec.group == name);
            // What nodes say is about what was declared before, until the operator has seen the group.
            let before = |line: Line| match line.tone {
                Tone::Good if !seen => Line { text: "converged before".into(), tone: Tone::Dim, over: false, ..line },
                _ => line,
            };
            View {
                head: head(text),
                done: if seen { status.converged_replicas.into() } else { 0 },
                total: group.count().into(),
                nodes: few(mine.map(|node| before(converging(node))), group.count()),
            }
        }
        Subject::Lift(lift) => {
            let status = lift.status.clone().unwrap_or_default();
            let uid = lift.metadata.uid.as_deref().unwrap_or_default();
            let outcomes = by_node(lift);
            let lines = outcomes.iter().map(|(name, outcome)| lifted(name, *outcome, nodes.get(name), uid));
            let done = status.nodes.saturating_sub(status.running + status.pending);
            View {
                head: head(lift_text(lift)),
                done: done.into(),
                total: status.nodes.into(),
                nodes: few(lines, status.nodes),
            }
        }
        Subject::Node(node) => View {
            head: head(converging(node).text),
            done: u64::from(subject.standing().is_over()),
            total: 1,
            nodes: Vec::new(),
        },
    }
}

fn few(lines: impl Iterator<Item = Line>, nodes: u32) -> Vec<Line> {
    if nodes > FEW { Vec::new() } else { lines.take(2 * FEW as usize).collect() }
}

/// What is said of a Lift.
pub fn lift_text(lift: &Lift) -> String {
    let Some(status) = &lift.status else { return "waits for the operator to see it".to_owned() };
    let conditions = &status.conditions;
    let word = holds(conditions, "Failed")
        .or(holds(conditions, "Complete"))
        .or(holds(conditions, "Stalled"))
        .or(condition(conditions, "Complete"));
    let counts = counts(lift);
    match word {
        Some(word) if word.message.is_empty() => format!("{}: {counts}", word.reason),
        // Where it says the figures itself, they are not said twice.
        Some(word) if counts.is_empty() || word.message.contains(&status.nodes.to_string()) => {
            format!("{}: {}", word.reason, word.message)
        }
        Some(word) => format!("{}: {}; {counts}", word.reason, word.message),
        None if status.observed_generation.is_none_or(|seen| seen < 0) => "waits for the operator to see it".to_owned(),
        None => counts,
    }
}

/// The nodes of a Lift in figures.
pub fn counts(lift: &Lift) -> String {
    let Some(status) = lift.status.as_ref().filter(|status| status.nodes > 0) else { return String::new() };
    let mut parts = vec![format!("{} of {} nodes succeeded", status.succeeded, status.nodes)];
    for (count, word) in [(status.failed, "failed"), (status.running, "running"), (status.pending, "pending")] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    parts.join(", ")
}

/// The nodes of a Lift with what has become of them, as its status has it. No more than have a line.
pub fn by_node(lift: &Lift) -> BTreeMap<String, NodeOutcome> {
    let outcomes = lift.status.as_ref().map(|status| status.outcomes.as_slice()).unwrap_or_default();
    let named = outcomes.iter().flat_map(|nodes| {
        let ordinals = crate::values::ordinals(&nodes.nodes, 2 * FEW as usize);
        ordinals.into_iter().map(move |ordinal| (format!("{}-{ordinal}", nodes.group), nodes.outcome))
    });
    named.collect()
}

/// A node on its way to what is declared.
pub fn converging(node: &GroupNode) -> Line {
    let key = node.metadata.name.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let converged = condition(&status.conditions, "Converged");
    let (text, tone, over) = match (converged, &status.running) {
        (Some(condition), _) if condition.status == "True" => ("converged".to_owned(), Tone::Good, true),
        (_, Some(running)) => (format!("{} runs, attempt {}", running.phase, running.attempt), Tone::Plain, false),
        (Some(condition), None) => {
            let tone = match outcome::node(node) {
                Standing::Failed { .. } => Tone::Bad,
                _ => Tone::Wait,
            };
            (format!("{}: {}", condition.reason, condition.message), tone, tone == Tone::Bad)
        }
        (None, None) => ("waits for its pod".to_owned(), Tone::Dim, false),
    };
    Line { key, text: clean(&text), tone, over }
}

/// A node in a Lift.
fn lifted(name: &str, outcome: NodeOutcome, node: Option<&GroupNode>, uid: &str) -> Line {
    let status = node.and_then(|node| node.status.as_ref());
    let lift = status.and_then(|status| status.lifts.iter().find(|lift| lift.uid == uid));
    let outcome = lift.and_then(|lift| lift.outcome).unwrap_or(outcome);
    let last = lift.and_then(|lift| lift.phase_results.iter().max_by_key(|phase_result| phase_result.finished_at.0));
    let running = status.and_then(|status| status.running.as_ref()).filter(|_| outcome == NodeOutcome::Running);
    let (mut text, tone) = match outcome {
        NodeOutcome::Pending => ("pending".to_owned(), Tone::Dim),
        NodeOutcome::Running => ("running".to_owned(), Tone::Plain),
        NodeOutcome::Succeeded => ("succeeded".to_owned(), Tone::Good),
        NodeOutcome::Failed => ("failed".to_owned(), Tone::Bad),
        NodeOutcome::TimedOut => ("the time was over".to_owned(), Tone::Bad),
        NodeOutcome::Cancelled => ("cancelled".to_owned(), Tone::Bad),
        NodeOutcome::Skipped => ("skipped, since others had failed".to_owned(), Tone::Wait),
        NodeOutcome::Removed => ("gone before it was done".to_owned(), Tone::Wait),
    };
    if let Some(running) = running {
        text = format!("{} runs, attempt {}", running.phase, running.attempt);
    } else if let Some(last) = last {
        let waits = outcome == NodeOutcome::Running && last.outcome == Outcome::Waiting;
        let looked_for = outcome == NodeOutcome::Running && last.outcome == Outcome::Unknown;
        text = if looked_for {
            format!("{} runs, and is looked for again", last.phase)
        } else if waits {
            format!("{} waits for a person: kubectl pallet ack {name}", last.phase)
        } else {
            format!("{text}; {}", told(last))
        };
    }
    let over = !matches!(outcome, NodeOutcome::Pending | NodeOutcome::Running);
    Line { key: name.to_owned(), text: clean(&text), tone, over }
}

/// A phase result in a few words.
pub fn told(phase_result: &PhaseResult) -> String {
    let phase = &phase_result.phase;
    match phase_result.outcome {
        Outcome::Succeeded => format!("{phase} succeeded"),
        Outcome::Failed | Outcome::TimedOut if !phase_result.message.is_empty() => {
            format!("{phase} attempt {}: {}", phase_result.attempt, phase_result.message)
        }
        Outcome::Failed => format!("{phase} attempt {} failed", phase_result.attempt),
        Outcome::TimedOut => format!("{phase} attempt {} timed out", phase_result.attempt),
        Outcome::Interrupted => format!("{phase} was interrupted when the node was replaced, and runs again"),
        Outcome::Unknown => format!("{phase} was lost from sight"),
        Outcome::Waiting => format!("{phase} waits for a person"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, status: Value) -> GroupNode {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": name},
            "spec": {"group": "web", "groupUid": "u", "ordinal": 0}, "status": status
        }))
        .unwrap()
    }

    fn converged(status: &str, reason: &str, message: &str) -> Value {
        json!({"conditions": [{"type": "Converged", "status": status, "reason": reason, "message": message,
               "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    }

    fn lift(status: Value) -> Lift {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "Lift", "metadata": {"name": "x", "uid": "L"},
            "spec": {"groups": ["web"]}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn a_node_says_what_it_is_at() {
        let line = converging(&node("web-0", converged("True", "Converged", "m")));
        assert_eq!((line.text.as_str(), line.tone, line.over), ("converged", Tone::Good, true));
        let line = converging(&node("web-0", converged("False", "ImagePullBackOff", "no such image")));
        assert_eq!((line.text.as_str(), line.tone, line.over), ("ImagePullBackOff: no such image", Tone::Wait, false));
        let line = converging(&node("web-0", converged("False", "PhaseFailed", "exit code 7")));
        assert_eq!((line.tone, line.over), (Tone::Bad, true));
        let running =
            json!({"running": {"phase": "configure", "runId": "r", "attempt": 2, "startedAt": "2026-01-01T00:00:00Z"}});
        assert_eq!(converging(&node("web-0", running)).text, "configure runs, attempt 2");
    }

    #[test]
    fn a_lift_has_a_line_for_each_node_where_they_are_few_and_none_where_they_are_many() {
        let phase_result = json!({"phase": "configure", "digest": "d", "runId": "r", "attempt": 1, "outcome": "Failed",
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z", "message": "exit code 7"});
        let failed = node(
            "web-1",
            json!({"lifts": [{"uid": "L", "name": "x", "outcome": "Failed", "phaseResults": [phase_result]}]}),
        );
        let nodes = BTreeMap::from([("web-1".to_owned(), failed)]);
        let outcomes = json!([{"group": "web", "outcome": "Succeeded", "nodes": "0"}, {"group": "web", "outcome": "Running", "nodes": "1-2"}]);
        let small =
            lift(json!({"observedGeneration": 1, "nodes": 3, "succeeded": 1, "running": 2, "outcomes": outcomes}));
        let seen = view(&Subject::Lift(Box::new(small)), &nodes);
        let texts: Vec<&str> = seen.nodes.iter().map(|line| line.text.as_str()).collect();
        // The node itself knows better than the count, which is written less often.
        assert_eq!(texts, ["succeeded", "failed; configure attempt 1: exit code 7", "running"]);
        assert_eq!((seen.done, seen.total, seen.head.text.as_str()), (1, 3, "1 of 3 nodes succeeded, 2 running"));
        let large = lift(json!({"observedGeneration": 1, "nodes": 300, "pending": 300}));
        let seen = view(&Subject::Lift(Box::new(large)), &nodes);
        assert_eq!((seen.nodes.len(), seen.total), (0, 300));
    }

    #[test]
    fn a_waiting_node_says_how_it_goes_on() {
        let phase_result = json!({"phase": "cable", "digest": "d", "runId": "r", "attempt": 1, "outcome": "Waiting",
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z"});
        let waits = node("web-0", json!({"lifts": [{"uid": "L", "name": "x", "phaseResults": [phase_result]}]}));
        let line = lifted("web-0", NodeOutcome::Running, Some(&waits), "L");
        assert_eq!(line.text, "cable waits for a person: kubectl pallet ack web-0");
    }
}
