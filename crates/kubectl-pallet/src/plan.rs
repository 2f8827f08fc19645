//! `plan`: what would happen, before anything does. The operator's own functions decide.

use std::{collections::BTreeMap, sync::Arc};

use clap::Args;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Resource, api::PostParams, core::NamespaceResourceScope};
use pallet_api::{
    GroupSpec, ServerSpec,
    group_node::Outcome,
    group_spec::{Approval, Approved, PlanStatus},
};
use pallet_core::{
    group::{
        Group, NodeShape,
        inputs::Inputs,
        resolve::{self, ServerSpecs},
    },
    node::{self, kubevirt::VirtualMachine},
    observe,
    phase::{PhaseName, action},
    plan::{self, Snapshot, Step, approval::Proposal, progress::Cause},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    manifest::{self, Applying},
    names,
    output::{self, Format, line},
    plan_view::Planned,
    plan_world::World,
};

/// Shows what would happen, before anything is applied
///
/// The file is applied by a dry run of the API server, which says what it would refuse and fills in defaults. Then the same
/// functions that the operator has decide: which nodes are created, removed and replaced, and which phases run where, and why.
/// With a GROUP instead of a file: what is still to be done of what is declared.
///
/// Not known beforehand: facts are those of the last session, and a session reads them anew first; what Secrets hold is not
/// read; nodes that are made have no facts yet. So phases may turn out to run on more nodes, or on fewer. What an action would
/// change on a node is told by `lift --dry-run`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The groups
    #[arg(value_name = "GROUP", required_unless_present = "file", conflicts_with = "file")]
    groups: Vec<String>,
    /// A file with GroupSpecs, ServerSpecs or whatever else; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// How many nodes there should be, in place of what is declared
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// Takes fields over that somebody else has applied
    #[arg(long, requires = "file")]
    force_conflicts: bool,
    /// How it is printed
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  kubectl pallet plan -f web.yaml         # of a file that is not applied yet
  kubectl pallet plan web                 # what is still to be done; under approval: Manual also what waits
  kubectl pallet plan web --count 2       # which nodes would go
  kubectl pallet plan -f web.yaml -o json | jq .plan.removals";

/// Runs it.
pub async fn run(cluster: &Cluster, arguments: &Arguments) -> Result<Exit> {
    let mut world = World::look(cluster).await?;
    let mut next = world.specs.clone();
    let mut wanted: Vec<GroupSpec> = Vec::new();
    let mut texts: BTreeMap<String, Value> = BTreeMap::new();
    match &arguments.file {
        None => {
            for name in names::groups(&arguments.groups)? {
                let found = cluster.ask(format!("get gs/{name}"), cluster.api::<GroupSpec>().get(&name)).await?;
                wanted.push(found);
            }
        }
        Some(file) => {
            for value in manifest::read(file)? {
                let how = Applying { dry_run: true, force: arguments.force_conflicts };
                let object = manifest::apply(cluster, &value, how).await?;
                let unreadable =
                    |error: serde_json::Error| Error::Missing(format!("{}: {error}", manifest::title(&object)));
                match (manifest::is_ours(&object), manifest::kind(&object).as_str()) {
                    (true, "GroupSpec") => wanted.push(serde_json::from_value(object.clone()).map_err(unreadable)?),
                    (true, "ServerSpec") => {
                        let spec: ServerSpec = serde_json::from_value(object.clone()).map_err(unreadable)?;
                        next.insert(spec.metadata.name.clone().unwrap_or_default(), Arc::new(spec));
                    }
                    (false, "ConfigMap") => {
                        texts.insert(
                            object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                            object["data"].clone(),
                        );
                    }
                    _ => {}
                }
            }
            // Those that a changed ServerSpec concerns are told of, too.
            wanted.extend(world.concerned(&next, &wanted));
        }
    }
    let mut all = Vec::new();
    for mut object in wanted {
        object.spec.count = arguments.count.or(object.spec.count);
        world.read_inventory(cluster, &object, &texts).await?;
        all.push(planned(cluster, &world, &next, &texts, &object).await?);
    }
    print(&all, arguments.output)?;
    Ok(if all.iter().any(|planned| !planned.errors.is_empty()) { Exit::Failed } else { Exit::Success })
}

fn print(all: &[Planned], format: Option<Format>) -> Result<()> {
    match format {
        Some(Format::Name) => {
            all.iter().try_for_each(|planned| line(format!("groupspec.pallet.dev/{}", planned.group)))
        }
        Some(format @ (Format::Json | Format::Yaml)) => {
            let value = match all {
                [one] => one.data(),
                all => all.iter().map(Planned::data).collect(),
            };
            output::data(&value, format)
        }
        _ if all.is_empty() => line("no group is concerned"),
        _ => line(all.iter().map(|planned| planned.render(output::colours())).collect::<Vec<_>>().join("\n\n")),
    }
}

async fn planned(
    cluster: &Cluster,
    world: &World,
    specs: &ServerSpecs,
    texts: &BTreeMap<String, Value>,
    object: &GroupSpec,
) -> Result<Planned> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let live = world.live(&name);
    let waiting = live.and_then(|live| live.status.as_ref()).and_then(|status| status.plan.clone());
    let mut planned = Planned { group: name, exists: live.is_some(), waiting, ..Planned::default() };
    let mut snapshot = world.snapshot(object, specs);
    let group = match &mut snapshot.group {
        Ok(group) => group,
        Err(errors) => {
            planned.errors = errors.iter().map(ToString::to_string).collect();
            return Ok(planned);
        }
    };
    let inputs = inputs(cluster, world, texts, group, &mut planned).await?;
    group.inputs = Arc::new(inputs);
    let next = group.clone();
    let before = live.and_then(|live| resolve::resolve(live, &world.specs).ok());
    if before.as_ref().is_none_or(|before| before.node.checked_as() != next.node.checked_as()) {
        check_template(cluster, &next, &mut planned).await;
    }
    planned.notes.extend(standing(&mut snapshot.clone()));
    let generation = next.generation;
    if !planned.errors.is_empty() {
        return Ok(planned);
    }
    if let Some(proposal) = propose(snapshot, before.as_ref()) {
        let proposal = without_secrets(proposal, &next, before.as_ref(), world, object, &mut planned.notes);
        let shown = proposal.shown(generation);
        // Its digest would let nothing be done: what is to be approved stands in the status.
        let shown = PlanStatus { digest: String::new(), ..shown };
        notes(&next, &proposal, &mut planned.notes);
        let nothing = shown.creates.is_empty()
            && shown.removals.is_empty()
            && shown.replaces.is_empty()
            && shown.phases.is_empty();
        planned.plan = (!nothing).then_some(shown);
    }
    if object.spec.paused {
        planned.notes.push("the group is paused: nothing is done before spec.paused is false".into());
    }
    if object.spec.approval == Approval::Manual && planned.plan.is_some() && planned.waiting.is_none() {
        planned.notes.push("approval is Manual: it waits until its plan is approved".into());
    }
    Ok(planned)
}

/// What would be done, by the function that makes plans to approve: as if all that differs from `before` waited for leave.
fn propose(mut snapshot: Snapshot, before: Option<&Group>) -> Option<Proposal> {
    if let Ok(group) = &mut snapshot.group {
        group.needs_approval = true;
    }
    snapshot.head.approve = String::new();
    let sources = |group: &Group| {
        group.phases.sources().into_iter().map(|(phase, digest)| (phase.to_string(), digest.to_string())).collect()
    };
    // A template of no hash: there is always something to ask for, even where nothing is declared otherwise.
    snapshot.status.approved = before.map(|before| Approved {
        count: before.count,
        template: "as before".into(),
        sources: sources(before),
        ..Approved::default()
    });
    observe::complete(&mut snapshot);
    snapshot.leave.proposal
}

/// Values of Secrets are not read: where a phase is declared as before, they are taken to be as before, too.
fn without_secrets(
    mut proposal: Proposal,
    next: &Group,
    before: Option<&Group>,
    world: &World,
    object: &GroupSpec,
    notes: &mut Vec<String>,
) -> Proposal {
    let (sources, known) = (next.phases.sources(), before.map(|before| before.phases.sources()).unwrap_or_default());
    let nodes = world.index.nodes(&resolve::key(object));
    let done = |ordinal: &u32, phase: &PhaseName| {
        let mine = nodes.iter().find(|(_, node)| node.ordinal == *ordinal);
        let phase_result = mine.and_then(|(_, node)| node.record.phase_results.get(phase));
        phase_result.is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded)
    };
    let fresh: Vec<u32> = proposal.creates.union(&proposal.replaces).copied().collect();
    for (phase, ordinals, _) in &mut proposal.phases {
        let secret = next.phases.actions.get(phase).is_some_and(|actions| !action::secrets(actions).is_empty());
        if secret && sources.get(phase) == known.get(phase) {
            ordinals.retain(|ordinal| fresh.contains(ordinal) || !done(ordinal, phase));
            notes.push(format!("{phase} uses Secrets, which are not read here: where one has changed, it runs again"));
        }
    }
    proposal.phases.retain(|(phase, ordinals, _)| !ordinals.is_empty() || sources.get(phase) != known.get(phase));
    proposal
}

/// What the operator sees of other objects, as far as it may be seen from here.
async fn inputs(
    cluster: &Cluster,
    world: &World,
    given: &BTreeMap<String, Value>,
    group: &Group,
    planned: &mut Planned,
) -> Result<Inputs> {
    let mut inputs = Inputs { nodes: world.peers(&group.phases.roles), ..Inputs::default() };
    let maps = cluster.api::<ConfigMap>();
    for (at, path) in &group.phases.config_maps {
        let data = match given.get(&at.name) {
            Some(data) => data.clone(),
            None => {
                let found = cluster.ask(format!("get configmap/{}", at.name), maps.get_opt(&at.name)).await?;
                found.map(|map| serde_json::to_value(map.data).unwrap_or_default()).unwrap_or_default()
            }
        };
        match data[&at.key].as_str() {
            Some(text) => drop(inputs.texts.insert(at.clone(), text.into())),
            None => planned.errors.push(format!("{path}: ConfigMap {at} is not there")),
        }
    }
    inputs.seals.extend(group.phases.secrets.keys().map(|at| (at.clone(), "not read".to_owned())));
    Ok(inputs)
}

/// Asks the API server about what would be made, as the operator would before it makes the first.
async fn check_template(cluster: &Cluster, group: &Group, planned: &mut Planned) {
    let name = format!("{}-plan", group.key.name);
    let tried = match &group.node {
        NodeShape::Pod(shape) => try_out::<Pod>(cluster, node::pod::build(group, shape, &name, None)).await,
        NodeShape::VirtualMachine(shape) => {
            try_out::<VirtualMachine>(cluster, node::virtual_machine::build(group, shape, &name, None)).await
        }
        NodeShape::Hosts(_) => return,
    };
    let (path, noun) = (group.node.kind().path(), group.node.kind().noun());
    match tried {
        Ok(()) => {}
        Err(Error::Refused { code: 400 | 422, message, .. }) => planned.errors.push(format!("{path}: {message}")),
        Err(error) => planned.notes.push(format!("the {noun} template could not be tried: {error}")),
    }
}

async fn try_out<K>(cluster: &Cluster, mut made: Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned
        + Serialize,
{
    // The group may not be there yet, and an owner must.
    if let Some(metadata) = made["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
    }
    let made: K = serde_json::from_value(made).map_err(|error| Error::Refused {
        code: 422,
        what: "try the template".into(),
        message: error.to_string(),
    })?;
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    cluster.ask("try the template", cluster.api::<K>().create(&parameters, &made)).await.map(|_| ())
}

/// What keeps nodes from going on, as they stand now.
fn standing(snapshot: &mut Snapshot) -> Vec<String> {
    if let Ok(group) = &mut snapshot.group {
        group.needs_approval = false;
        group.paused = false;
    }
    observe::complete(snapshot);
    let steps = plan::plan(snapshot).steps;
    let (key, noun) = (snapshot.head.key.clone(), snapshot.kind().noun());
    let note = |(ordinal, step): (u32, Step)| {
        let name = key.node_name(ordinal);
        Some(match step {
            Step::Halt { phase } => format!("{name} has no attempts at {phase} left: kubectl pallet retry gn/{name}"),
            Step::Await(Cause::Manual { due, message, .. }) => format!("{name} waits in {due} for a person: {message}"),
            Step::Await(Cause::NameConflict) => format!("{name}: a {noun} of somebody else has its name"),
            Step::Await(Cause::MachineWaiting { reason, .. }) => format!("{name} waits for its {noun}: {reason}"),
            Step::Await(Cause::Nodes { due, message }) => format!("{name} waits in {due}: {message}"),
            Step::Await(Cause::Stopped { due }) => format!("{name} may not begin {due}: too many nodes have failed"),
            _ => return None,
        })
    };
    let all: Vec<String> = steps.into_iter().filter_map(note).collect();
    /// More say no more.
    const MOST: usize = 5;
    let left = all.len().saturating_sub(MOST);
    let mut shown: Vec<String> = all.into_iter().take(MOST).collect();
    shown.extend((left > 0).then(|| format!("and {left} more nodes that wait: kubectl pallet nodes {}", key.name)));
    shown
}

fn nodes(count: u32) -> String {
    format!("{count} node{}", if count == 1 { "" } else { "s" })
}

/// How it would go about it.
fn notes(group: &Group, proposal: &Proposal, notes: &mut Vec<String>) {
    let rollout = &group.rollout;
    if proposal.phases.iter().any(|(_, nodes, _)| nodes.len() > rollout.max_parallel as usize) {
        notes.push(format!("phases run on at most {} at once (maxParallel)", nodes(rollout.max_parallel)));
    }
    if !proposal.replaces.is_empty() {
        notes.push(format!("at most {} unavailable at a time (maxUnavailable)", nodes(rollout.max_unavailable)));
    }
    let leave = !proposal.removals.is_empty() || !proposal.replaces.is_empty();
    if leave && group.phases.destroy().is_some() {
        notes.push("destroy-server runs on each node before it goes".into());
    }
    if !group.phases.roles.is_empty() {
        let roles = group.phases.roles.join(", ");
        notes.push(format!(
            "templates use the nodes of roles ({roles}) as they are now: what uses them runs again when these change"
        ));
    }
    if !group.phases.idle.is_empty() {
        let idle: Vec<String> = group.phases.idle.iter().map(ToString::to_string).collect();
        notes.push(format!("declared, but run by nothing: {}", idle.join(", ")));
    }
}
