//! Follows operations to their end, by watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{Stream, StreamExt, stream::BoxStream, stream::SelectAll};
use kube::{
    Resource,
    api::{ListParams, Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use pallet_operator::api::{GROUP_LABEL, GroupNode, GroupSpec, Lift};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    interrupt::{Choice, Interrupts},
    names::{Kind, Target},
    outcome::{self, Standing},
    output::tell,
    progress::{FEW, Subject, view},
    show::{Progress, Show},
};

/// How something is followed.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// Shows no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "HOW")]
    pub progress: Progress,
    /// The exit code when the time was over, in place of 3
    #[arg(long, value_name = "N")]
    pub timeout_value: Option<u8>,
}

/// What is waited for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Goal {
    /// The end, good or bad.
    #[default]
    End,
    /// A condition, by its type and status.
    Condition(String, String),
}

impl Goal {
    /// Where the subject stands with regard to it.
    pub fn standing(&self, subject: &Subject) -> Standing {
        let Goal::Condition(kind, wanted) = self else { return subject.standing() };
        let (conditions, generation) = match subject {
            Subject::Group(group, generation) => {
                (group.status.as_ref().map(|status| &status.conditions), Some(*generation))
            }
            Subject::Lift(lift) => (lift.status.as_ref().map(|status| &status.conditions), None),
            Subject::Node(node) => (node.status.as_ref().map(|status| &status.conditions), None),
        };
        let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
        let found = outcome::condition(conditions, kind).filter(|found| {
            let seen = found.observed_generation.zip(generation).is_none_or(|(seen, wanted)| seen >= wanted);
            seen && found.status.eq_ignore_ascii_case(wanted)
        });
        found.map_or(Standing::Going, |found| Standing::Done(found.message.clone()))
    }
}

/// For how long it is waited, for what, and from when on a status is believed.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// No longer than this.
    pub timeout: Option<Duration>,
    /// For what.
    pub goal: Goal,
    /// A spec that was just applied may lack for a moment what was applied with it: not believed before.
    pub believe_failure_after: Duration,
    /// A status may speak of what a group extends as it was a moment ago: not believed before.
    pub believe_success_after: Duration,
}

/// How following ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// Everything is over.
    Over,
    /// The time is.
    TimedOut,
    /// Somebody has enough of it.
    Detached,
}

/// What was followed, as it was seen last.
pub struct Followed {
    /// The operations.
    pub subjects: Vec<Subject>,
    /// Where each stands.
    pub standings: Vec<Standing>,
    /// How it ended.
    pub end: End,
}

impl Followed {
    /// The exit code.
    pub fn exit(&self, flags: &Flags) -> Exit {
        match self.end {
            End::Over => outcome::worst(&self.standings, flags.timeout_value),
            End::TimedOut => Exit::TimedOut(flags.timeout_value),
            End::Detached => Exit::Detached,
        }
    }

    /// Says what a person who stopped following has to know.
    pub fn tell_end(&self, timeout: Option<Duration>) {
        let going = self.subjects.iter().zip(&self.standings).filter(|(_, standing)| !standing.is_over());
        let going: Vec<Target> = going.map(|(subject, _)| subject.target()).collect();
        let names = going.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        match self.end {
            End::Over => return,
            End::TimedOut => {
                let after =
                    timeout.map(|timeout| format!(" after {}", crate::values::wire(timeout))).unwrap_or_default();
                tell(format!("the time was over{after}, and {names} goes on in the cluster"));
            }
            End::Detached => tell(format!("detached; {names} goes on in the cluster")),
        }
        tell(format!("  follow again:  kubectl pallet wait {names} --raise"));
        for lift in going.iter().filter(|target| target.kind == Kind::Lift) {
            tell(format!("  end it:        kubectl pallet cancel {lift}"));
        }
    }
}

enum Seen {
    Group(Box<GroupSpec>),
    Lift(Box<Lift>),
    Node(Box<GroupNode>),
    /// It is not there any more.
    Gone(Target),
    Trouble(watcher::Error),
}

/// Follows until all of it is over, the time is, or somebody has enough of it.
pub async fn follow(cluster: &Cluster, subjects: Vec<Subject>, flags: &Flags, terms: &Terms) -> Result<Followed> {
    let mut state = State { subjects, nodes: BTreeMap::new(), terms, started: Instant::now() };
    let mut interrupts = Interrupts::new()?;
    let mut show = Show::new(flags.progress, flags.quiet);
    let mut events = watches(cluster, &state.subjects, !flags.quiet).await?;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut lost = false;
    let end = loop {
        let standings = state.standings();
        if standings.iter().all(Standing::is_over) {
            break End::Over;
        }
        if terms.timeout.is_some_and(|timeout| state.started.elapsed() >= timeout) {
            break End::TimedOut;
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Seen::Trouble(error)) => {
                    forbidden(cluster, &error)?;
                    if !lost {
                        show.say(&format!("the connection was lost and is tried again: {}", crate::connect::chain(&error)));
                    }
                    lost = true;
                }
                Some(seen) => {
                    lost = false;
                    state.take(seen)?;
                }
                None => return Err(Error::Connection("the watches ended".into())),
            },
            // Throttled lines come out, and the time is looked at.
            _ = tick.tick() => show.update(&state.views()),
            asks = interrupts.next() => {
                if !asks {
                    break End::Detached;
                }
                show.hide();
                match interrupts.ask(state.lifts().next().is_some()).await {
                    Choice::Detach => break End::Detached,
                    Choice::Wait => {}
                    Choice::Cancel => {
                        for name in state.lifts().map(str::to_owned).collect::<Vec<_>>() {
                            cancel(cluster, &name).await?;
                            show.say(&format!("lift/{name} is being cancelled: what runs on the nodes is ended"));
                        }
                    }
                }
            }
        }
    };
    if end == End::Over {
        show.end(&state.views());
    } else {
        show.update(&state.views());
        show.end(&state.views());
    }
    let followed = Followed { standings: state.standings(), subjects: state.subjects, end };
    followed.tell_end(terms.timeout);
    Ok(followed)
}

/// Has a Lift end.
pub async fn cancel(cluster: &Cluster, name: &str) -> Result<Lift> {
    let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
    let lifts = cluster.api::<Lift>();
    let parameters = PatchParams { field_manager: Some(crate::MANAGER.into()), ..PatchParams::default() };
    cluster.ask(format!("cancel lift/{name}"), lifts.patch(name, &parameters, &patch)).await
}

struct State<'a> {
    subjects: Vec<Subject>,
    nodes: BTreeMap<String, GroupNode>,
    terms: &'a Terms,
    started: Instant,
}

impl State<'_> {
    fn standings(&self) -> Vec<Standing> {
        let since = self.started.elapsed();
        let believed = |standing: Standing| match &standing {
            Standing::Done(_) if since < self.terms.believe_success_after => Standing::Going,
            Standing::Failed { reason, .. }
                if since < self.terms.believe_failure_after
                    && ["InvalidSpec", "InvalidTemplate", "Forbidden"].contains(&reason.as_str()) =>
            {
                Standing::Going
            }
            _ => standing,
        };
        self.subjects.iter().map(|subject| believed(self.terms.goal.standing(subject))).collect()
    }

    fn views(&self) -> Vec<crate::progress::View> {
        self.subjects.iter().map(|subject| view(subject, &self.nodes)).collect()
    }

    /// The Lifts that are not over.
    fn lifts(&self) -> impl Iterator<Item = &str> {
        let going = self.subjects.iter().filter(|subject| !subject.standing().is_over());
        going.filter_map(|subject| match subject {
            Subject::Lift(lift) => lift.metadata.name.as_deref(),
            _ => None,
        })
    }

    fn take(&mut self, seen: Seen) -> Result<()> {
        match seen {
            Seen::Node(node) => {
                let named = node.metadata.name.clone().unwrap_or_default();
                for subject in &mut self.subjects {
                    if let Subject::Node(known) = subject
                        && known.metadata.name == node.metadata.name
                    {
                        known.clone_from(&node);
                    }
                }
                self.nodes.insert(named, *node);
            }
            Seen::Group(group) => {
                for subject in &mut self.subjects {
                    if let Subject::Group(known, _) = subject
                        && known.metadata.name == group.metadata.name
                    {
                        known.clone_from(&group);
                    }
                }
            }
            Seen::Lift(lift) => {
                for subject in &mut self.subjects {
                    if let Subject::Lift(known) = subject
                        && known.metadata.name == lift.metadata.name
                    {
                        known.clone_from(&lift);
                    }
                }
            }
            Seen::Gone(target) => {
                if target.kind == Kind::Node {
                    self.nodes.remove(&target.name);
                }
                let mine = self.subjects.iter().find(|subject| subject.target() == target);
                // One that is over may go: that is what a time to live is for.
                if mine.is_some_and(|subject| !self.terms.goal.standing(subject).is_over()) {
                    return Err(Error::Ended(Exit::Failed, format!("{target} was deleted before it was done")));
                }
            }
            Seen::Trouble(_) => {}
        }
        Ok(())
    }
}

type Events = SelectAll<BoxStream<'static, Seen>>;

/// One watch for each kind that is followed.
async fn watches(cluster: &Cluster, subjects: &[Subject], with_nodes: bool) -> Result<Events> {
    let mut events = SelectAll::new();
    let names = |kind: Kind| -> BTreeSet<String> {
        let targets = subjects.iter().map(Subject::target).filter(|target| target.kind == kind);
        targets.map(|target| target.name).collect()
    };
    let (groups, lifts, nodes) = (names(Kind::Group), names(Kind::Lift), names(Kind::Node));
    if !groups.is_empty() {
        events.push(watch(cluster, only(&groups), Kind::Group, groups.clone(), |group| Seen::Group(Box::new(group))));
    }
    if !lifts.is_empty() {
        events.push(watch(cluster, only(&lifts), Kind::Lift, lifts.clone(), |lift| Seen::Lift(Box::new(lift))));
    }
    if !nodes.is_empty() {
        events.push(watch(cluster, only(&nodes), Kind::Node, nodes.clone(), |node| Seen::Node(Box::new(node))));
    }
    if with_nodes && let Some(selector) = nodes_of(cluster, subjects).await? {
        let config = watcher::Config::default().labels(&selector);
        events.push(watch(cluster, config, Kind::Node, BTreeSet::new(), |node| Seen::Node(Box::new(node))));
    }
    Ok(events)
}

fn only(names: &BTreeSet<String>) -> watcher::Config {
    match (names.first(), names.len()) {
        (Some(name), 1) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        _ => watcher::Config::default(),
    }
}

/// A selector of the nodes that have a line each; none where they are many.
async fn nodes_of(cluster: &Cluster, subjects: &[Subject]) -> Result<Option<String>> {
    let mut groups: BTreeSet<String> = BTreeSet::new();
    let mut count = 0;
    let api = cluster.api::<GroupSpec>();
    for subject in subjects {
        match subject {
            Subject::Group(group, _) => {
                count += group.spec.count;
                groups.extend(group.metadata.name.clone());
            }
            Subject::Lift(lift) => {
                let selector = lift.spec.group_selector.as_ref().map(crate::lift::selector_text);
                let parameters = ListParams { label_selector: selector, ..ListParams::default() };
                let named = lift.spec.groups.clone().unwrap_or_default();
                let found = cluster.ask("list groupspecs", api.list(&parameters)).await?;
                let mine = |group: &&GroupSpec| {
                    lift.spec.groups.is_none() || group.metadata.name.as_ref().is_some_and(|name| named.contains(name))
                };
                let mine: Vec<&GroupSpec> = found.items.iter().filter(mine).collect();
                count += match &lift.spec.nodes {
                    Some(nodes) => nodes.len() as u32,
                    None => mine.iter().map(|group| group.spec.count).sum(),
                };
                groups.extend(mine.into_iter().filter_map(|group| group.metadata.name.clone()));
            }
            Subject::Node(_) => {}
        }
    }
    let selected = groups.into_iter().collect::<Vec<_>>().join(",");
    Ok((count <= FEW && !selected.is_empty()).then(|| format!("{GROUP_LABEL} in ({selected})")))
}

/// What a watch sees of objects. Of those that are named it is also told when they are not there.
fn watch<K>(
    cluster: &Cluster,
    config: watcher::Config,
    kind: Kind,
    named: BTreeSet<String>,
    seen: impl Fn(K) -> Seen + Send + 'static,
) -> BoxStream<'static, Seen>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let events = watcher(cluster.api::<K>(), config).default_backoff();
    told(events, kind, named, seen).boxed()
}

fn told<K: Resource>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    kind: Kind,
    named: BTreeSet<String>,
    seen: impl Fn(K) -> Seen,
) -> impl Stream<Item = Seen> {
    let mut listed: BTreeSet<String> = BTreeSet::new();
    events.flat_map(move |event| {
        let target = |name: &str| Target { kind, name: name.to_owned() };
        let told = match event {
            Err(error) => vec![Seen::Trouble(error)],
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(object.meta().name.clone());
                vec![seen(object)]
            }
            Ok(watcher::Event::InitDone) => named.difference(&listed).map(|name| Seen::Gone(target(name))).collect(),
            Ok(watcher::Event::Apply(object)) => vec![seen(object)],
            Ok(watcher::Event::Delete(object)) => {
                vec![Seen::Gone(target(object.meta().name.as_deref().unwrap_or_default()))]
            }
        };
        futures::stream::iter(told)
    })
}

/// An error that does not pass by itself.
fn forbidden(cluster: &Cluster, error: &watcher::Error) -> Result<()> {
    let refused = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        _ => return Ok(()),
    };
    match refused {
        kube::Error::Api(status) if [401, 403, 404].contains(&status.code) => Err(cluster.refusal(&"watch", refused)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": name},
            "spec": {"node": {"pod": {"template": {}}}}
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_a_relist_does_not_show_is_gone() {
        let events = [
            watcher::Event::Init,
            watcher::Event::InitApply(group("web")),
            watcher::Event::InitDone,
            watcher::Event::Init,
            watcher::Event::InitDone,
        ];
        let events = futures::stream::iter(events.into_iter().map(Ok));
        let seen = told(events, Kind::Group, BTreeSet::from(["web".to_owned()]), |group| Seen::Group(Box::new(group)));
        let seen: Vec<Seen> = seen.collect().await;
        assert!(matches!(&seen[..], [Seen::Group(_), Seen::Gone(target)] if target.name == "web"));
    }

    #[test]
    fn a_condition_is_waited_for_at_the_generation_that_is_meant() {
        let mut object = group("web");
        object.status = serde_json::from_value(json!({"observedGeneration": 1, "conditions": [
            {"type": "Drifted", "status": "False", "reason": "InSync", "message": "", "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}))
        .unwrap();
        let goal = Goal::Condition("Drifted".into(), "false".into());
        assert!(goal.standing(&Subject::Group(Box::new(object.clone()), 1)).is_over());
        assert!(!goal.standing(&Subject::Group(Box::new(object), 2)).is_over());
    }
}
