//! `converge`: declares, and waits until it is so.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::Args;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use pallet_api::{FINALIZER, GroupSpec, Lift, LiftFields};
use serde_json::{Value, json};

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    follow::{self, End, Terms, follow},
    lift,
    manifest::{self, Applying},
    names,
    outcome::Standing,
    output::{Format, line, tell},
    progress::Subject,
    retry, values, wait,
};

/// Adjusts what is declared, and waits until every node is so
///
/// With -f, the file is applied on the server's side, as `kubectl apply --server-side` does, whatever kinds of objects it
/// holds; --count changes how many nodes there are. Then it waits until every group is Ready at what is declared now. A group
/// that is Stalled has failed: nothing goes on there without a person. With --phase or --exec that is lifted at the end, on
/// the groups that are Ready then.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The groups
    #[arg(value_name = "GROUP", required_unless_present = "file", conflicts_with = "file")]
    groups: Vec<String>,
    /// A file with GroupSpecs, ServerSpecs, Secrets or whatever else; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// How many nodes there should be
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// Runs configure again on every node, though nothing has changed
    #[arg(long)]
    reapply: bool,
    /// Takes fields over that somebody else has applied
    #[arg(long, requires = "file")]
    force_conflicts: bool,
    /// A phase that is lifted at the end; may be given several times
    #[arg(long = "phase", value_name = "PHASE", conflicts_with = "exec")]
    phases: Vec<String>,
    /// A script that is lifted at the end
    #[arg(long, value_name = "SCRIPT")]
    exec: Option<String>,
    /// Waits no longer than this, for all of it; exit code 3 then
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Returns as soon as it is declared
    #[arg(long = "async", conflicts_with_all = ["phases", "exec"])]
    asynchronous: bool,
    #[command(flatten)]
    follow: follow::Flags,
    /// How the groups are printed at the end
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet converge -f web.yaml                    # apply it, and wait until it is so
  kubectl pallet converge web                            # wait until it is as it is declared
  kubectl pallet converge web --count 5 --timeout 10m
  kubectl pallet converge web --reapply                  # configure again everywhere
  kubectl pallet converge -f web.yaml --phase deploy     # and then deploy
  kubectl pallet converge web --exec 'systemctl is-active nginx'
  kustomize build . | kubectl pallet converge -f - -q";

/// A ServerSpec that was just applied is seen by the operator within this, and so is what else a file holds, but for changed
/// Secrets and ConfigMaps.
const SEEN: Duration = Duration::from_secs(3);
/// What is missing is looked for again every 10 seconds: a group may be Stalled that long over a Secret that has just come.
const MENDED: Duration = Duration::from_secs(15);

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let began = Instant::now();
    let mut terms = Terms { timeout: arguments.timeout, ..Terms::default() };
    let (mut groups, lifts) = match &arguments.file {
        Some(file) => apply(cluster, arguments, file, &mut terms).await?,
        None => (scale(cluster, arguments).await?, Vec::new()),
    };
    if arguments.reapply {
        for group in &mut groups {
            *group = reapply(cluster, group).await?;
        }
    }
    if groups.is_empty() && lifts.is_empty() {
        return Ok(Exit::Success);
    }
    if arguments.asynchronous {
        return Ok(Exit::Success);
    }
    for group in groups.iter().filter(|group| group.spec.paused) {
        tell(format!("gs/{} is paused: nothing is done before spec.paused is false", name(group)));
    }
    let names: Vec<String> = groups.iter().map(name).collect();
    let subjects: Vec<Subject> = groups
        .into_iter()
        .map(wait::subject_of)
        .chain(lifts.into_iter().map(|lift| Subject::Lift(Box::new(lift))))
        .collect();
    let followed = follow(cluster, subjects, &arguments.follow, &terms).await?;
    if let Some(format) = arguments.output.filter(|_| !arguments.lifts() || followed.end != End::Over) {
        wait::show(&followed.subjects, format)?;
    }
    let exit = followed.exit(&arguments.follow);
    if followed.end == End::Over {
        // On a terminal a line has only as much of a message as fits.
        let shown = !arguments.follow.quiet && !std::io::stderr().is_terminal();
        let failed =
            followed.subjects.iter().zip(&followed.standings).filter_map(|(subject, standing)| match standing {
                Standing::Failed { reason, message, .. } => {
                    Some(wait::failure(&subject.target(), reason, message, shown))
                }
                _ => None,
            });
        failed.for_each(|error| tell(format!("error: {error}")));
    }
    if exit != Exit::Success || !arguments.lifts() {
        if exit == Exit::Success && arguments.output.is_none() {
            names.iter().try_for_each(|name| line(format!("groupspec.pallet.dev/{name} converged")))?;
        }
        return Ok(exit);
    }
    let left = arguments.timeout.map(|timeout| timeout.saturating_sub(began.elapsed()).max(Duration::from_secs(1)));
    let made = lift::create(cluster, &lifted(arguments, names, left)).await?;
    lift::finish(cluster, vec![made], &arguments.follow, &Terms::default(), arguments.output).await
}

impl Arguments {
    /// Whether something is lifted at the end.
    fn lifts(&self) -> bool {
        self.exec.is_some() || !self.phases.is_empty()
    }
}

/// What is lifted at the end.
fn lifted(arguments: &Arguments, groups: Vec<String>, left: Option<Duration>) -> Lift {
    let spec = LiftFields {
        phases: (!arguments.phases.is_empty()).then(|| arguments.phases.clone()),
        phase: arguments.exec.as_deref().map(lift::script),
        timeout: values::wire(Duration::from_secs(left.map_or(3600, |left| left.as_secs().max(1)))),
        ttl_seconds_after_finished: Some(86400),
        groups: Some(groups),
        ..LiftFields::default()
    };
    let mut made = Lift::new("", spec);
    made.metadata.name = None;
    made.metadata.generate_name = Some("converge-".into());
    lift::finalized(made)
}

fn name(group: &GroupSpec) -> String {
    group.metadata.name.clone().unwrap_or_default()
}

/// Applies a file. Returns its groups and Lifts.
async fn apply(
    cluster: &Cluster,
    arguments: &Arguments,
    file: &str,
    terms: &mut Terms,
) -> Result<(Vec<GroupSpec>, Vec<Lift>)> {
    let (mut groups, mut lifts) = (Vec::new(), Vec::new());
    terms.believe_failure_after = SEEN;
    for mut value in manifest::read(file)? {
        let (kind, ours) = (manifest::kind(&value), manifest::is_ours(&value));
        if let (Some(count), true, "GroupSpec") = (arguments.count, ours, kind.as_str()) {
            value["spec"]["count"] = count.into();
        }
        if ours && kind == "Lift" {
            finalize(&mut value);
        }
        let before = manifest::find(cluster, &value).await?;
        let applied =
            manifest::apply(cluster, &value, Applying { dry_run: false, force: arguments.force_conflicts }).await?;
        let changed = changed(before.as_ref(), &applied);
        if changed.is_some() && kind != "GroupSpec" && kind != "Lift" {
            terms.believe_success_after = SEEN;
            if kind != "ServerSpec" {
                terms.believe_failure_after = MENDED;
            }
        }
        report(arguments, &applied, changed.unwrap_or("unchanged"))?;
        let unreadable = |error: serde_json::Error| Error::Missing(format!("{}: {error}", manifest::title(&applied)));
        match (ours, kind.as_str()) {
            (true, "GroupSpec") => groups.push(serde_json::from_value(applied.clone()).map_err(unreadable)?),
            (true, "Lift") => lifts.push(serde_json::from_value(applied.clone()).map_err(unreadable)?),
            _ => {}
        }
    }
    if groups.is_empty() && (arguments.count.is_some() || arguments.reapply || arguments.lifts()) {
        return Err(Error::usage(format!(
            "{file} holds no GroupSpec that --count, --reapply, --phase or --exec could be for"
        )));
    }
    Ok((groups, lifts))
}

fn finalize(value: &mut Value) {
    let finalizers = &mut value["metadata"]["finalizers"];
    if finalizers.is_null() {
        *finalizers = json!([FINALIZER]);
    }
}

/// What an apply did, in kubectl's words.
fn changed(before: Option<&Value>, after: &Value) -> Option<&'static str> {
    match before {
        None => Some("created"),
        Some(before) if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => None,
        Some(_) => Some("configured"),
    }
}

/// On stdout where that is the result, beside it otherwise.
fn report(arguments: &Arguments, applied: &Value, how: &str) -> Result<()> {
    let version = applied["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    let kind = manifest::kind(applied).to_lowercase();
    let text = format!("{kind}{group}/{} {how}", applied["metadata"]["name"].as_str().unwrap_or_default());
    match (arguments.asynchronous, arguments.follow.quiet) {
        (true, _) => line(text)?,
        (false, false) => tell(text),
        (false, true) => {}
    }
    Ok(())
}

/// The groups that are named, scaled where that is asked.
async fn scale(cluster: &Cluster, arguments: &Arguments) -> Result<Vec<GroupSpec>> {
    let (api, mut groups) = (cluster.api::<GroupSpec>(), Vec::new());
    for name in names::groups(&arguments.groups)? {
        let what = format!("get gs/{name}");
        let mut group = cluster.ask(&what, api.get(&name)).await?;
        if let Some(count) = arguments.count.filter(|count| *count != group.count()) {
            let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
            let parameters = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
            cluster.ask(format!("scale gs/{name}"), api.patch_scale(&name, &parameters, &patch)).await?;
            group = cluster.ask(&what, api.get(&name)).await?;
            let text = format!("groupspec.pallet.dev/{name} scaled to {count}");
            match (arguments.asynchronous, arguments.follow.quiet) {
                (true, _) => line(text)?,
                (false, false) => tell(text),
                (false, true) => {}
            }
        }
        groups.push(group);
    }
    Ok(groups)
}

/// Has configure run again everywhere.
async fn reapply(cluster: &Cluster, group: &GroupSpec) -> Result<GroupSpec> {
    let name = name(group);
    let patch = Patch::Merge(json!({"spec": {"converge": {"reapply": Timestamp::now().to_string()}}}));
    cluster
        .ask(format!("reapply gs/{name}"), cluster.api::<GroupSpec>().patch(&name, &retry::parameters(), &patch))
        .await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &[&str]) -> Result<Arguments, clap::Error> {
        Cli::try_parse_from([&["converge"], line].concat()).map(|cli| cli.arguments)
    }

    #[test]
    fn what_is_lifted_at_the_end_has_the_time_that_is_left() {
        let arguments = parse(&["web", "--exec", "uptime"]).unwrap();
        let lift = lifted(&arguments, vec!["web".into()], Some(Duration::from_millis(90_500)));
        assert_eq!(lift.spec.timeout, "90s");
        assert_eq!(lift.spec.groups, Some(vec!["web".to_owned()]));
        assert!(lift.spec.phase.is_some() && lift.spec.phases.is_none());
    }

    #[test]
    fn an_apply_is_told_in_the_words_of_kubectl() {
        let version = |version: &str| json!({"metadata": {"resourceVersion": version}});
        assert_eq!(changed(None, &version("2")), Some("created"));
        assert_eq!(changed(Some(&version("1")), &version("2")), Some("configured"));
        assert_eq!(changed(Some(&version("2")), &version("2")), None);
    }

    #[test]
    fn either_groups_or_a_file_are_named() {
        assert!(parse(&[]).is_err() && parse(&["web", "-f", "x"]).is_err());
        assert!(parse(&["web", "--async", "--exec", "x"]).is_err());
        assert!(parse(&["-f", "-", "--count", "3"]).is_ok());
    }
}
