//! Follows operations to their end, by watches.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use pallet_api::reason::Reason;
use pallet_api::{GroupNode, Lift};
use serde_json::json;

use crate::{
    connect::Cluster,
    exit::{Error, Exit, Result},
    interrupt::{Choice, Interrupts},
    names::{Kind, Target},
    outcome::{self, Standing},
    output::tell,
    progress::{Subject, view},
    show::{Progress, Show},
    watches::{Seen, forbidden, watches},
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
                        show.say(&format!("connection lost, retrying: {}", pallet_client::answer::words(&error)));
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
    // Who has enough of it does not want it left on the terminal.
    if end == End::Detached {
        show.hide();
    } else {
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

/// A bad end is believed when it has lasted this long.
const SETTLES: Duration = Duration::from_secs(1);

/// What may be fixed by what was applied together with it.
const FIXABLE: &[Reason] = &[
    Reason::InvalidSpec,
    Reason::InvalidTemplate,
    Reason::Forbidden,
    Reason::InvalidLift,
    Reason::TooMuchWork,
    Reason::UnknownPhase,
    Reason::GroupMissing,
    Reason::NodeMissing,
];

struct State<'a> {
    subjects: Vec<Subject>,
    nodes: BTreeMap<String, GroupNode>,
    terms: &'a Terms,
    started: Instant,
}

impl State<'_> {
    fn standings(&self) -> Vec<Standing> {
        let since = self.started.elapsed();
        let believed = |standing: Standing, ended: bool| match &standing {
            // What was annotated a moment ago, as by retry or approve, may not show yet.
            Standing::Failed { .. } if !ended && since < SETTLES => Standing::Going,
            Standing::Done(_) if since < self.terms.believe_success_after => Standing::Going,
            Standing::Failed { reason, .. }
                if since < self.terms.believe_failure_after && Reason::is_one_of(reason, FIXABLE) =>
            {
                Standing::Going
            }
            _ => standing,
        };
        let ended = |subject: &Subject| matches!(subject, Subject::Lift(lift) if outcome::has_ended(lift));
        self.subjects.iter().map(|subject| believed(self.terms.goal.standing(subject), ended(subject))).collect()
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

#[cfg(test)]
mod tests {
    use pallet_api::GroupSpec;

    use super::*;

    fn group(name: &str) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": name},
            "spec": {"node": {"pod": {"template": {}}}}
        }))
        .unwrap()
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
