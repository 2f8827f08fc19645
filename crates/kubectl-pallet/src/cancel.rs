//! `cancel`: ends a Lift.

use std::time::Duration;

use clap::Args;
use pallet_api::Lift;

use crate::{
    connect::Cluster,
    exit::{Exit, Result},
    follow::{self, End, Terms, follow},
    names::{Kind, parse},
    output::{line, tell},
    progress::Subject,
    values,
};

/// Ends Lifts: no further phase starts, and what runs on the nodes is ended
///
/// It waits until they have ended. What was done on nodes before stays done. A Lift that was cancelled cannot be resumed.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The Lifts: NAME or lift/NAME
    #[arg(value_name = "LIFT", required = true)]
    lifts: Vec<String>,
    /// Returns at once
    #[arg(long = "async")]
    asynchronous: bool,
    /// Waits no longer than this; exit code 3 then
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    follow: follow::Flags,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet cancel web-deploy-x7k2p
  kubectl pallet cancel lift/web-deploy-x7k2p --async";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let mut lifts = Vec::new();
    for text in &arguments.lifts {
        let target = parse(text, Kind::Lift, &[Kind::Lift])?;
        let lift = cluster.ask(format!("get {target}"), cluster.api::<Lift>().get(&target.name)).await?;
        if Subject::Lift(Box::new(lift.clone())).standing().is_over() {
            tell(format!("{target} has ended before; nothing to cancel"));
            continue;
        }
        lifts.push(follow::cancel(cluster, &target.name).await?);
        if arguments.asynchronous {
            line(format!("lift.pallet.dev/{} is being cancelled", target.name))?;
        }
    }
    if arguments.asynchronous || lifts.is_empty() {
        return Ok(Exit::Success);
    }
    let names: Vec<String> = lifts.iter().filter_map(|lift| lift.metadata.name.clone()).collect();
    let subjects = lifts.into_iter().map(|lift| Subject::Lift(Box::new(lift))).collect();
    let terms = Terms { timeout: arguments.timeout, ..Terms::default() };
    let followed = follow(cluster, subjects, &arguments.follow, &terms).await?;
    if followed.end != End::Over {
        return Ok(followed.exit(&arguments.follow));
    }
    // That it failed is what was asked for.
    names.iter().try_for_each(|name| line(format!("lift.pallet.dev/{name} has ended")))?;
    Ok(Exit::Success)
}
