//! `lift`: phases applied once to the nodes that are there.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::api::PostParams;
use pallet_api::{
    FINALIZER, GroupSpec, Lift, LiftFields,
    actions::{ActionFields, ExecFields},
    converge::{OnFailure, Order},
    lift::{InlinePhaseFields, LiftRetryFields, LiftRolloutFields},
};
use serde_json::Value;

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    follow::{self, Terms, follow},
    manifest, names, outcome,
    output::{Format, line, tell},
    progress::Subject,
    results, selector, values,
};

pub use crate::selector::text as selector_text;

/// Runs phases once on the nodes of groups, and waits for the end
///
/// A Lift object is made, and followed to its end. It never changes how many nodes there are. Settings goes first, so that
/// facts are fresh. Nodes are worked on all at once, unless --max-parallel says otherwise.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The groups
    #[arg(value_name = "GROUP", required_unless_present_any = ["selector", "file"], conflicts_with_all = ["selector", "file"])]
    pub groups: Vec<String>,
    /// The groups with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "file")]
    pub selector: Option<String>,
    /// Lifts from a file; - is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["phases", "process", "exec", "with", "nodes", "role"])]
    pub file: Option<String>,
    /// Returns as soon as the Lift is made
    #[arg(long = "async")]
    pub asynchronous: bool,
    #[command(flatten)]
    pub follow: follow::Flags,
    /// How the Lift is printed at its end
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
    #[command(flatten)]
    pub what: What,
    #[command(flatten)]
    pub how: How,
}

/// What runs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What runs, and where")]
pub struct What {
    /// A phase; may be given several times. configure by default
    #[arg(long = "phase", value_name = "PHASE", conflicts_with_all = ["process", "exec"])]
    pub phases: Vec<String>,
    /// A process: apply-install, apply-config, server-test, or one that the groups declare
    #[arg(long, value_name = "PROCESS", conflicts_with = "exec")]
    pub process: Option<String>,
    /// A shell script, in place of a phase; what it prints is shown at the end. It is a template, as in spec.phases
    #[arg(long, value_name = "SCRIPT")]
    pub exec: Option<String>,
    /// A parameter of the ServerSpecs for this operation, read as YAML; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::with)]
    pub with: Vec<(String, Value)>,
    /// Only these nodes
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub nodes: Vec<String>,
    /// Only groups with this role
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Changes nothing, and tells of every action whether it would change the node
    #[arg(long)]
    pub dry_run: bool,
}

/// How it rolls over the nodes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "How it goes over the nodes")]
pub struct How {
    /// How nodes proceed: each at its own pace, or all through one phase before any begins the next
    #[arg(long, value_enum, ignore_case = true, value_name = "ORDER")]
    pub order: Option<OrderFlag>,
    /// How many nodes are worked on at once: a number, or a share such as 25%
    #[arg(long, value_name = "N", value_parser = values::share)]
    pub max_parallel: Option<Value>,
    /// What a failed node means for the others
    #[arg(long, value_enum, ignore_case = true, value_name = "WHAT")]
    pub on_failure: Option<OnFailureFlag>,
    /// When more nodes than this have failed, no phase starts anywhere
    #[arg(long, value_name = "N", value_parser = values::share)]
    pub max_failures: Option<Value>,
    /// Further attempts at a phase that failed
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// How long it may take in all: then what runs is ended on the nodes. 1h by default
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// How long the Lift is kept after its end; 0 for ever
    #[arg(long, value_name = "DURATION", value_parser = values::duration, default_value = "24h")]
    pub ttl: Duration,
    /// Its name; one that begins with that of the group by default
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// How nodes proceed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OrderFlag {
    /// All through one phase before any begins the next.
    #[value(name = "Barrier")]
    Barrier,
    /// Each at its own pace.
    #[value(name = "Independent")]
    Independent,
}

/// What a failed node means for the others.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OnFailureFlag {
    /// No further phase starts anywhere.
    #[value(name = "StopAll")]
    StopAll,
    /// They go on.
    #[value(name = "IsolateNode")]
    IsolateNode,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet lift web                                  # configure again on every node of web
  kubectl pallet lift web --phase migrate --nodes web-0    # one phase on one node
  kubectl pallet lift web db --process apply-install       # a list of phases, on two groups
  kubectl pallet lift -l tier=front --exec 'uptime'        # a script on all groups with a label
  kubectl pallet lift web --phase deploy --with version=1.4.2 --order Barrier --max-parallel 25%
  kubectl pallet lift web --dry-run                        # what would change, by node and action
  kubectl pallet lift web --phase backup --async           # prints lift.pallet.dev/NAME created
  kubectl pallet lift web --timeout 10m --timeout-value 0  # what is not done by then is let go";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let lifts = match &arguments.file {
        Some(file) => from_file(file)?,
        None => vec![build(arguments)?],
    };
    let mut made = Vec::new();
    for lift in &lifts {
        if let Some(groups) = &lift.spec.groups {
            look(cluster, groups).await?;
        }
        made.push(create(cluster, lift).await?);
    }
    if arguments.asynchronous {
        return created(&made, arguments.output);
    }
    finish(cluster, made, &arguments.follow, &Terms::default(), arguments.output).await
}

/// A mistyped group would leave a Lift behind that can only fail.
async fn look(cluster: &Cluster, groups: &[String]) -> Result<()> {
    for group in groups {
        cluster.ask(format!("get gs/{group}"), cluster.api::<GroupSpec>().get(group)).await?;
    }
    Ok(())
}

/// Says that they were made.
fn created(made: &[Lift], output: Option<Format>) -> Result<Exit> {
    match output {
        None | Some(Format::Wide) => {
            for lift in made {
                line(format!("lift.pallet.dev/{} created", lift.metadata.name.as_deref().unwrap_or_default()))?;
            }
        }
        format => crate::output::objects(made, true, format, results::table_of(made))?,
    }
    Ok(Exit::Success)
}

/// Follows Lifts to their end and tells what came of them.
pub async fn finish(
    cluster: &Cluster,
    made: Vec<Lift>,
    flags: &follow::Flags,
    terms: &Terms,
    output: Option<Format>,
) -> Result<Exit> {
    let subjects = made.into_iter().map(|lift| Subject::Lift(Box::new(lift))).collect();
    let followed = follow(cluster, subjects, flags, terms).await?;
    let lifts: Vec<Lift> = followed
        .subjects
        .iter()
        .filter_map(|subject| match subject {
            Subject::Lift(lift) => Some((**lift).clone()),
            _ => None,
        })
        .collect();
    // What nobody waits for any more must not begin when its group is mended some day.
    let stuck = lifts.iter().filter(|lift| outcome::lift(lift).is_over() && !outcome::has_ended(lift));
    for name in stuck.filter_map(|lift| lift.metadata.name.as_deref()) {
        follow::cancel(cluster, name).await?;
        tell(format!("lift/{name} could not start, and was cancelled"));
    }
    if followed.end == follow::End::Over || output.is_some() {
        results::print(cluster, &lifts, flags.quiet, output).await?;
    }
    Ok(followed.exit(flags))
}

/// Makes it.
pub async fn create(cluster: &Cluster, lift: &Lift) -> Result<Lift> {
    cluster.ask("create lift", cluster.api::<Lift>().create(&parameters(), lift)).await
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(crate::MANAGER.into()), ..PostParams::default() }
}

fn from_file(file: &str) -> Result<Vec<Lift>> {
    let mut lifts = Vec::new();
    for value in manifest::read(file)? {
        if value["kind"] != "Lift" {
            return Err(Error::usage(format!(
                "{file} has a {} beside Lifts; apply it by: kubectl pallet converge -f {file}",
                value["kind"].as_str().unwrap_or("document without a kind")
            )));
        }
        let lift: Lift = serde_json::from_value(value).map_err(|error| Error::usage(format!("{file}: {error}")))?;
        lifts.push(finalized(lift));
    }
    if lifts.is_empty() { Err(Error::usage(format!("{file} holds no Lift"))) } else { Ok(lifts) }
}

/// With what the operator would have to write otherwise.
pub fn finalized(mut lift: Lift) -> Lift {
    let finalizers = lift.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let labels = lift.metadata.labels.get_or_insert_default();
    labels.entry("app.kubernetes.io/managed-by".to_owned()).or_insert_with(|| crate::MANAGER.to_owned());
    lift
}

/// The Lift that the command line asks for.
pub fn build(arguments: &Arguments) -> Result<Lift> {
    let groups = names::groups(&arguments.groups)?;
    let Arguments { what, how, .. } = arguments;
    let spec = LiftFields {
        groups: (!groups.is_empty()).then_some(groups),
        group_selector: arguments.selector.as_deref().map(selector::parse).transpose().map_err(Error::usage)?,
        nodes: (!what.nodes.is_empty()).then(|| nodes(&what.nodes)).transpose()?,
        role: what.role.clone(),
        phases: (!what.phases.is_empty()).then(|| what.phases.clone()),
        process: what.process.clone(),
        phase: what.exec.as_deref().map(script),
        with: (!what.with.is_empty()).then(|| values::withs(&what.with)).transpose().map_err(Error::usage)?,
        timeout: how.timeout.map_or_else(|| "1h".to_owned(), values::wire),
        rollout: rollout(how),
        retry: LiftRetryFields { limit: how.retries.unwrap_or_default(), ..LiftRetryFields::default() },
        dry_run: what.dry_run,
        ttl_seconds_after_finished: (!how.ttl.is_zero()).then_some(how.ttl.as_secs().min(31_536_000) as u32),
        ..LiftFields::default()
    };
    let generated = generated(&spec);
    let mut lift = Lift::new(how.name.as_deref().unwrap_or_default(), spec);
    if how.name.is_none() {
        lift.metadata.name = None;
        lift.metadata.generate_name = Some(generated);
    }
    Ok(finalized(lift))
}

fn nodes(texts: &[String]) -> Result<Vec<String>> {
    let node = |text: &String| names::parse(text, names::Kind::Node, &[names::Kind::Node]).map(|target| target.name);
    texts.iter().map(node).collect()
}

/// What runs stands in the name, for who looks at a list.
fn generated(spec: &LiftFields) -> String {
    let group = match spec.groups.as_deref() {
        Some([group]) => group.as_str(),
        _ => "lift",
    };
    let what = match (&spec.phases, &spec.process, &spec.phase) {
        (Some(phases), ..) => phases.first().map_or("configure", String::as_str),
        (_, Some(process), _) => process,
        (.., Some(_)) => "exec",
        _ => "configure",
    };
    format!("{group}-{what}-")
}

/// A phase that runs one script.
pub fn script(text: &str) -> InlinePhaseFields {
    let exec = ExecFields { script: text.to_owned(), ..ExecFields::default() };
    InlinePhaseFields { actions: vec![ActionFields { exec: Some(exec), ..ActionFields::default() }] }
}

fn rollout(how: &How) -> LiftRolloutFields {
    let given = LiftRolloutFields::default();
    LiftRolloutFields {
        order: how.order.map_or(given.order, |order| match order {
            OrderFlag::Barrier => Order::Barrier,
            OrderFlag::Independent => Order::Independent,
        }),
        max_parallel: how.max_parallel.clone().unwrap_or(given.max_parallel),
        on_failure: how.on_failure.map_or(given.on_failure, |what| match what {
            OnFailureFlag::StopAll => OnFailure::StopAll,
            OnFailureFlag::IsolateNode => OnFailure::IsolateNode,
        }),
        max_failures: how.max_failures.clone(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn lift(line: &[&str]) -> Value {
        let cli = Cli::try_parse_from([&["lift"], line].concat()).unwrap();
        serde_json::to_value(build(&cli.arguments).unwrap()).unwrap()
    }

    #[test]
    fn a_lift_says_what_the_command_line_says() {
        let made = lift(&[
            "gs/web",
            "--phase",
            "deploy",
            "--with",
            "port=80",
            "--order",
            "barrier",
            "--max-parallel",
            "25%",
            "--retries",
            "2",
            "--timeout",
            "10m",
        ]);
        let (metadata, spec) = (&made["metadata"], &made["spec"]);
        assert_eq!(metadata["generateName"], "web-deploy-");
        assert_eq!(metadata["finalizers"], json!(["pallet.dev/finalizer"]));
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "kubectl-pallet");
        assert_eq!(spec["groups"], json!(["web"]));
        assert_eq!((&spec["phases"], &spec["with"]["port"]), (&json!(["deploy"]), &json!(80)));
        assert_eq!((&spec["rollout"]["order"], &spec["rollout"]["maxParallel"]), (&json!("Barrier"), &json!("25%")));
        assert_eq!((&spec["retry"]["limit"], &spec["timeout"]), (&json!(2), &json!("10m")));
        assert_eq!(spec["ttlSecondsAfterFinished"], 86400);
    }

    #[test]
    fn a_script_is_a_phase_of_its_own() {
        let made = lift(&["-l", "tier=front", "--exec", "uptime", "--name", "up", "--ttl", "0"]);
        assert_eq!(made["spec"]["phase"]["actions"][0]["exec"]["script"], "uptime");
        assert_eq!(made["spec"]["groupSelector"]["matchLabels"]["tier"], "front");
        assert_eq!(made["metadata"]["name"], "up");
        assert!(made["spec"]["ttlSecondsAfterFinished"].is_null() && made["spec"]["groups"].is_null());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            &["web", "--phase", "a", "--exec", "b"][..],
            &["web", "-l", "a=b"],
            &["web", "-f", "x.yaml"],
            &[],
            &["web", "--with", "a"],
            &["web", "--max-parallel", "x"],
        ] {
            assert!(Cli::try_parse_from([&["lift"], line].concat()).is_err(), "{line:?}");
        }
    }
}
