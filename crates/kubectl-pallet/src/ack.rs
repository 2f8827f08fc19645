//! `ack`: says that a manual step is done.

use clap::Args;
use pallet_api::{
    ACK_ANNOTATION, GroupNode,
    group_node::{Effect, Outcome, PhaseResult},
};

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    interrupt,
    names::{Kind, parse},
    output::{clean, line, tell},
    retry,
};

/// Says that a manual step is done, so that its phase goes on behind it
///
/// The step that waits is shown, and it is asked whether it is done. The annotation pallet.dev/ack of the GroupNode gets the
/// id of the run that waits: it speaks of this step of this node, and of no other.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The node, such as web-0
    #[arg(value_name = "NODE")]
    node: String,
    /// The run that waits, where several do
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Does not ask
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet ack switch-0            # shows the step, and asks
  kubectl pallet ack switch-0 --yes
  kubectl pallet nodes switch -o wide    # who waits, and for what";

/// A step that waits.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Step {
    phase: String,
    action: String,
    run_id: String,
    message: String,
    lift: Option<String>,
}

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let name = parse(&arguments.node, Kind::Node, &[Kind::Node])?.name;
    let node = cluster.ask(format!("get gn/{name}"), cluster.api::<GroupNode>().get(&name)).await?;
    let acknowledged =
        node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ACK_ANNOTATION)).cloned();
    let step = choose(&name, waiting(&node), arguments.run.as_deref(), acknowledged.as_deref())?;
    let within = step.lift.as_ref().map(|lift| format!(" (lift/{lift})")).unwrap_or_default();
    tell(format!("{name}  {}  {}{within}\n  {}", step.phase, step.action, clean(&step.message)));
    let remedy = format!("answer beforehand: kubectl pallet ack {name} --yes");
    if !arguments.yes && !interrupt::confirm("Is it done?", &remedy).await? {
        tell("nothing was acknowledged");
        return Ok(Exit::Failed);
    }
    let patch = retry::annotation(ACK_ANNOTATION, &step.run_id);
    let patched = cluster.api::<GroupNode>();
    cluster.ask(format!("annotate gn/{name}"), patched.patch(&name, &retry::parameters(), &patch)).await?;
    line(format!("groupnode.pallet.dev/{name} acknowledged"))?;
    Ok(Exit::Success)
}

/// The steps that wait on a node, in converge and in Lifts.
fn waiting(node: &GroupNode) -> Vec<Step> {
    let Some(status) = &node.status else { return Vec::new() };
    let step = |phase_result: &PhaseResult, lift: Option<&String>| {
        let action = phase_result.actions.iter().rev().find(|action| action.result == Effect::Waiting);
        Step {
            phase: phase_result.phase.clone(),
            action: action.map(|action| action.name.clone()).unwrap_or_default(),
            run_id: phase_result.run_id.clone(),
            message: own_words(&phase_result.message).to_owned(),
            lift: lift.cloned(),
        }
    };
    let waits = |phase_result: &&PhaseResult| phase_result.outcome == Outcome::Waiting;
    let own = status.phase_results.iter().filter(waits).map(|phase_result| step(phase_result, None));
    let lifted = status.lifts.iter().filter(|part| part.outcome.is_none());
    let lifted = lifted.flat_map(|part| {
        part.phase_results.iter().filter(waits).map(|phase_result| step(phase_result, Some(&part.name)))
    });
    own.chain(lifted).collect()
}

/// Of "it waits at STEP: WORDS" the words.
fn own_words(message: &str) -> &str {
    message.split_once(" waits at ").and_then(|(_, rest)| rest.split_once(": ")).map_or(message, |(_, words)| words)
}

fn choose(name: &str, steps: Vec<Step>, run: Option<&str>, acknowledged: Option<&str>) -> Result<Step> {
    let none = || Error::Missing(format!("{name} waits at no manual step; who does: kubectl pallet nodes -o wide"));
    if let Some(run) = run {
        let known = steps.iter().map(|step| step.run_id.clone()).collect::<Vec<_>>().join(", ");
        let found = steps.into_iter().find(|step| step.run_id == run);
        return found
            .ok_or_else(|| Error::Missing(format!("{name} does not wait in run {run:?}; it waits in {known:?}")));
    }
    let (before, open): (Vec<Step>, Vec<Step>) =
        steps.into_iter().partition(|step| Some(step.run_id.as_str()) == acknowledged);
    match (&open[..], before.is_empty()) {
        ([step], _) => Ok(step.clone()),
        ([], true) => Err(none()),
        ([], false) => {
            Err(Error::Missing(format!("the step of {name} is acknowledged already; the operator goes on with it")))
        }
        (several, _) => {
            let runs: Vec<String> =
                several.iter().map(|step| format!("  --run {}  ({})", step.run_id, step.phase)).collect();
            Err(Error::usage(format!("{name} waits at several steps; name one of them:\n{}", runs.join("\n"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn phase_result(phase: &str, outcome: &str) -> Value {
        json!({"phase": phase, "digest": "d", "runId": format!("{phase}-1"), "attempt": 1, "outcome": outcome, "message": "move it",
               "actions": [{"name": "cable", "result": "Waiting"}], "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:00Z"})
    }

    fn steps(phase_results: Value, lifts: Value) -> Vec<Step> {
        let node = json!({"apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode", "metadata": {"name": "web-0"},
            "spec": {"group": "web", "groupUid": "u", "ordinal": 0}, "status": {"phaseResults": phase_results, "lifts": lifts}});
        waiting(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn the_words_of_a_step_are_its_own() {
        assert_eq!(own_words("it waits at cable: move it: carefully"), "move it: carefully");
        assert_eq!(own_words("it waits at cable"), "it waits at cable");
    }

    #[test]
    fn the_step_that_waits_is_found_in_converge_and_in_lifts() {
        let own = steps(json!([phase_result("configure", "Waiting"), phase_result("x", "Succeeded")]), json!([]));
        assert_eq!(choose("web-0", own.clone(), None, None).unwrap().run_id, "configure-1");
        assert!(choose("web-0", own.clone(), None, Some("configure-1")).unwrap_err().to_string().contains("already"));
        let lifts = json!([{"uid": "L", "name": "x", "phaseResults": [phase_result("deploy", "Waiting")]},
                           {"uid": "M", "name": "y", "outcome": "Cancelled", "phaseResults": [phase_result("old", "Waiting")]}]);
        let both = steps(json!([phase_result("configure", "Waiting")]), lifts);
        assert_eq!(both.len(), 2);
        assert!(choose("web-0", both.clone(), None, None).unwrap_err().to_string().contains("--run deploy-1"));
        // The one that was acknowledged is not meant again.
        assert_eq!(choose("web-0", both.clone(), None, Some("configure-1")).unwrap().lift.as_deref(), Some("x"));
        assert_eq!(choose("web-0", both, Some("deploy-1"), None).unwrap().action, "cable");
        assert!(choose("web-0", Vec::new(), None, None).is_err());
    }
}
