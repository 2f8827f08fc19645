//! `approve`: lets a plan be carried out.

use clap::Args;
use pallet_api::{APPROVE_ANNOTATION, GroupSpec, group_spec::Approval};

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    interrupt,
    names::{Kind, parse},
    output::{line, tell},
    plan_view, retry,
};

/// Approves the plan of a group under approval: Manual
///
/// The plan is shown, and it is asked whether it may be carried out. What is approved is exactly that plan: after an edit there
/// is another one, with another digest.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The group
    #[arg(value_name = "GROUP")]
    group: String,
    /// The digest of the plan; refused where it is not that of the present one
    #[arg(value_name = "DIGEST")]
    digest: Option<String>,
    /// Does not ask
    #[arg(short, long)]
    yes: bool,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet approve gated            # shows the plan, and asks
  kubectl pallet approve gated --yes      # the present plan, whatever it is
  kubectl pallet approve gated 6b1f0c...  # this plan and no other, as for a pipeline
  kubectl pallet approve gated --yes && kubectl pallet wait gated --raise";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let name = parse(&arguments.group, Kind::Group, &[Kind::Group])?.name;
    let group = cluster.ask(format!("get gs/{name}"), cluster.api::<GroupSpec>().get(&name)).await?;
    let plan = group.status.as_ref().and_then(|status| status.plan.clone());
    let Some(plan) = plan else {
        return Err(Error::Missing(match group.spec.approval {
            Approval::Automatic => {
                format!("gs/{name} has approval: Automatic; what is declared is done without asking")
            }
            Approval::Manual => format!(
                "no plan of gs/{name} waits for approval; what is declared has been approved, or was not seen yet"
            ),
        }));
    };
    // A plan of yesterday's spec is none: the operator would not take its digest.
    if group.metadata.generation.is_some_and(|generation| generation != plan.generation) {
        return Err(Error::Missing(format!(
            "the plan of gs/{name} is for generation {}, and the spec has become another one since; try again in a moment",
            plan.generation
        )));
    }
    let digest = present(&name, &plan.digest, arguments.digest.as_deref())?;
    plan_view::of_status(&name, &plan).iter().for_each(tell);
    if arguments.digest.is_none() && !arguments.yes {
        let remedy = format!("name the plan, kubectl pallet approve {name} {digest}, or give --yes");
        if !interrupt::confirm("Approve it?", &remedy).await? {
            tell("nothing was approved");
            return Ok(Exit::Failed);
        }
    }
    let patch = retry::annotation(APPROVE_ANNOTATION, &digest);
    let groups = cluster.api::<GroupSpec>();
    cluster.ask(format!("annotate gs/{name}"), groups.patch(&name, &retry::parameters(), &patch)).await?;
    line(format!("groupspec.pallet.dev/{name} approved"))?;
    Ok(Exit::Success)
}

/// The digest to approve: what is given may be its beginning.
fn present(name: &str, present: &str, given: Option<&str>) -> Result<String> {
    /// Fewer letters would be a guess.
    const LEAST: usize = 8;
    match given {
        Some(given) if given != present && !(given.len() >= LEAST && present.starts_with(given)) => {
            Err(Error::Missing(format!(
                "the plan of gs/{name} is {present}, not {given}; look at it: kubectl pallet plan {name}"
            )))
        }
        _ => Ok(present.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_plan_than_the_present_one_is_refused() {
        let digest = "0123456789abcdef";
        for given in [None, Some(digest), Some("01234567")] {
            assert_eq!(present("g", digest, given).unwrap(), digest);
        }
        for given in ["0123", "1123456789abcdef", "0123456789abcdeff", ""] {
            assert!(present("g", digest, Some(given)).is_err(), "{given}");
        }
    }
}
