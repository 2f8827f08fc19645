//! `wait`: waits for the end of what is under way.

use std::time::Duration;

use clap::Args;
use kube::api::ListParams;
use pallet_api::{GroupNode, GroupSpec, Lift};
use serde_json::Value;

use crate::{
    connect::Cluster,
    errors,
    exit::{Error, Exit, Result},
    follow::{self, End, Goal, Terms, follow},
    names::{Kind, Target, targets},
    outcome::Standing,
    output::{self, Format, tell},
    progress::Subject,
    results, values,
};

/// Waits for the end of operations, or for a condition
///
/// A group is at its end when it is Ready, or Stalled; a Lift when it is Complete, or Failed; a node when it has converged, or
/// cannot without a person. How it ended makes no difference, unless --raise is given: then a bad end is exit code 1.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// GROUP, lift/NAME, gn/NODE; all groups and all Lifts that go on, without any
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// What is waited for: a condition such as Ready, condition=Drifted=False, Complete; the end by default
    #[arg(long = "for", value_name = "CONDITION", value_parser = goal)]
    goal: Option<Goal>,
    /// No longer than this; exit code 3 then
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Ends with exit code 1 where an operation failed, and shows its errors
    #[arg(long)]
    raise: bool,
    #[command(flatten)]
    follow: follow::Flags,
    /// How the objects are printed at the end
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet wait web --timeout 10m              # until it is Ready or Stalled
  kubectl pallet wait lift/web-deploy-x7k2p --raise  # exit code 1 if it failed
  kubectl pallet wait web db --for Ready             # Stalled is waited through
  kubectl pallet wait web --for condition=Drifted=False
  kubectl pallet wait --raise                        # all groups and Lifts of the namespace";

fn goal(text: &str) -> Result<Goal, String> {
    let condition = text.strip_prefix("condition=").unwrap_or(text);
    let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
    let known = ["true", "false", "unknown"].contains(&status.to_ascii_lowercase().as_str());
    if kind.is_empty() || !known || !kind.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(format!("{text:?} is no condition; write one such as Ready, or condition=Drifted=False"));
    }
    // As kubectl, it does not matter how the first letter is written.
    let mut letters = kind.chars();
    let kind =
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default();
    Ok(Goal::Condition(kind, status.to_owned()))
}

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let wanted = targets(&arguments.names, &[Kind::Group, Kind::Lift, Kind::Node])?;
    let subjects = match wanted.is_empty() {
        true => everything(cluster).await?,
        false => find(cluster, &wanted).await?,
    };
    if subjects.is_empty() {
        tell(format!("nothing to wait for in namespace {:?}", cluster.namespace));
        return Ok(Exit::Success);
    }
    let goal = arguments.goal.clone().unwrap_or_default();
    let terms = Terms { timeout: arguments.timeout, goal, ..Terms::default() };
    let followed = follow(cluster, subjects, &arguments.follow, &terms).await?;
    if let Some(format) = arguments.output {
        show(&followed.subjects, format)?;
    }
    let exit = followed.exit(&arguments.follow);
    if followed.end != End::Over {
        return Ok(exit);
    }
    for (subject, standing) in followed.subjects.iter().zip(&followed.standings) {
        if let Standing::Failed { reason, message, .. } = standing {
            if !arguments.follow.quiet || arguments.raise {
                tell(format!("{} failed: {reason}: {}", subject.target(), output::clean(message)));
            }
            if arguments.raise
                && let Subject::Lift(lift) = subject
            {
                let nodes = results::of_nodes(cluster, lift).await?;
                errors::of_lift(lift, &nodes).iter().for_each(|failure| tell(failure.render()));
            }
        }
    }
    // Without it how things ended is not ours to judge.
    Ok(if arguments.raise { exit } else { Exit::Success })
}

async fn everything(cluster: &Cluster) -> Result<Vec<Subject>> {
    let all = ListParams::default();
    let groups = cluster.ask("list groupspecs", cluster.api::<GroupSpec>().list(&all)).await?;
    let lifts = match cluster.ask("list lifts", cluster.api::<Lift>().list(&all)).await {
        Ok(lifts) => lifts.items,
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error),
    };
    let groups = groups.items.into_iter().map(subject_of);
    let lifts = lifts.into_iter().map(|lift| Subject::Lift(Box::new(lift))).filter(|lift| !lift.standing().is_over());
    Ok(groups.chain(lifts).collect())
}

/// A group, at the generation that it has.
pub fn subject_of(group: GroupSpec) -> Subject {
    let generation = group.metadata.generation.unwrap_or_default();
    Subject::Group(Box::new(group), generation)
}

async fn find(cluster: &Cluster, wanted: &[Target]) -> Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for target in wanted {
        let (what, name) = (format!("get {target}"), &target.name);
        subjects.push(match target.kind {
            Kind::Group => subject_of(cluster.ask(what, cluster.api::<GroupSpec>().get(name)).await?),
            Kind::Lift => Subject::Lift(Box::new(cluster.ask(what, cluster.api::<Lift>().get(name)).await?)),
            Kind::Node => Subject::Node(Box::new(cluster.ask(what, cluster.api::<GroupNode>().get(name)).await?)),
        });
    }
    Ok(subjects)
}

/// Prints what was followed, as it was seen last.
pub fn show(subjects: &[Subject], format: Format) -> Result<()> {
    let value = |subject: &Subject| match subject {
        Subject::Group(group, _) => output::object(&**group),
        Subject::Lift(lift) => output::object(&**lift),
        Subject::Node(node) => output::object(&**node),
    };
    match format {
        Format::Name => subjects.iter().try_for_each(|subject| {
            let target = subject.target();
            output::line(format!("{}/{}", target.kind.full(), target.name))
        }),
        Format::Wide => subjects.iter().try_for_each(|subject| {
            let view = crate::progress::view(subject, &Default::default());
            output::line(format!("{}  {}", view.head.key, view.head.text))
        }),
        _ => {
            let mut values: Vec<Value> = subjects.iter().map(value).collect();
            match values.len() {
                1 => output::data(&values.remove(0), format),
                _ => output::data(&output::list(values), format),
            }
        }
    }
}

/// The error of something that failed, in a line where its message was just shown.
pub fn failure(target: &Target, reason: &str, message: &str, shown: bool) -> Error {
    let advice = crate::advice::about(reason, &target.name, "").map(|advice| format!("\n  to do: {advice}"));
    let message = if shown { String::new() } else { format!(": {}", output::clean(message)) };
    let what = if target.kind == Kind::Lift { "failed" } else { "is Stalled" };
    let see = format!("\n  look at it: kubectl pallet errors {target}");
    let advice = advice.unwrap_or_default();
    Error::Ended(Exit::Failed, format!("{target} {what}, {reason}{message}{see}{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_as_kubectl_has_it_or_shorter() {
        let condition = |kind: &str, status: &str| Goal::Condition(kind.into(), status.into());
        assert_eq!(goal("Ready").unwrap(), condition("Ready", "True"));
        assert_eq!(goal("condition=ready").unwrap(), condition("Ready", "True"));
        assert_eq!(goal("condition=Drifted=False").unwrap(), condition("Drifted", "False"));
        assert!(goal("jsonpath={.a}").is_err() && goal("").is_err());
    }
}
