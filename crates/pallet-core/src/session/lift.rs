//! Pure: a session for a Lift. It is the same session as converge's, with phase results of its own in place of the node's: what a Lift
//! asks for is due however often converge has done it.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{End, Session, View, Want, check, results::PHASE_RESULTS};
use crate::{
    phase::{
        ActionKind, Digest, PhaseName,
        render::{Call, Rendered},
    },
    plan::{
        Bound, LiftRun, Purpose, Record,
        next::{self, Next},
        snapshot::{Loss, outlives},
    },
    session::frame::{Ended, Verdict},
};
use pallet_api::{
    conditions::clip,
    group_node::{Drift, Effect, Incarnation, NodeLift, Outcome, PhaseResult},
    lift::NodeOutcome,
};

/// What stands between a phase's name and its Lift's in a journal. No phase can be called so.
const MARK: &str = ".lift.";
/// How many Lifts that are done with a node its record keeps.
const DONE_KEPT: usize = 3;
/// How many it keeps in all; the schema says so.
const KEPT: usize = 8;

/// What a session for a Lift puts aside of the node's record, while the Lift's phase results stand in place of converge's.
#[derive(Debug)]
pub(super) struct Aside {
    phase_results: BTreeMap<PhaseName, PhaseResult>,
    drift: Option<Drift>,
    /// What has become of the node in the Lift.
    outcome: Option<NodeOutcome>,
}

/// The phase by which the journal of a node, and the name of a run, tell that a Lift ran it.
pub fn phase_of(journalled: &str) -> &str {
    journalled.split_once(MARK).map_or(journalled, |(phase, _)| phase)
}

/// What tells the runs of a Lift from those of others on one node.
fn tag(run: &LiftRun) -> String {
    run.uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect()
}

impl Aside {
    /// Puts the node's phase results aside, and the Lift's in their place.
    pub(super) fn take(run: &LiftRun, record: &mut Record) -> Self {
        let known = record.lifts.iter().find(|lift| lift.uid == run.uid);
        let own = known.iter().flat_map(|lift| &lift.phase_results);
        let mut own: BTreeMap<PhaseName, PhaseResult> =
            own.map(|phase_result| (PhaseName::new(&phase_result.phase), phase_result.clone())).collect();
        let outcome = known.and_then(|lift| lift.outcome);
        for phase in &run.settled {
            if let Some(phase_result) = record.phase_results.get(phase).filter(|r| r.outcome == Outcome::Succeeded) {
                own.entry(phase.clone()).or_insert_with(|| phase_result.clone());
            }
        }
        Self { phase_results: std::mem::replace(&mut record.phase_results, own), drift: record.drift.take(), outcome }
    }

    pub(super) fn reborn(&mut self, loss: Loss) {
        self.phase_results.retain(|_, phase_result| outlives(phase_result, loss));
        self.drift = None;
    }
}

impl Session {
    /// What is known of the node now.
    pub fn record(&self) -> Cow<'_, Record> {
        let (Purpose::Lift(run), Some(aside)) = (&self.purpose, &self.aside) else {
            return Cow::Borrowed(&self.record);
        };
        let mut lifts: Vec<NodeLift> = self.record.lifts.iter().filter(|lift| lift.uid != run.uid).cloned().collect();
        if aside.outcome.is_some() || !self.record.phase_results.is_empty() {
            let (uid, name, outcome) = (run.uid.clone(), run.name.clone(), aside.outcome);
            lifts.push(NodeLift { uid, name, outcome, phase_results: self.record.in_order() });
        }
        Cow::Owned(Record {
            incarnation: self.record.incarnation.clone(),
            facts: self.record.facts.clone(),
            phase_results: aside.phase_results.clone(),
            drift: aside.drift.clone(),
            lifts: kept(lifts, run),
        })
    }

    /// The phase by its name in the node's journal, where this session is the one to make something of it. Settings and looks
    /// are nobody's: they are read again.
    pub(super) fn own(&self, journalled: &str) -> Option<PhaseName> {
        let mine = match (&self.purpose, journalled.split_once(MARK)) {
            (Purpose::Lift(run), Some((phase, lift))) if lift == tag(run) => phase,
            (Purpose::Lift(_), _) | (_, Some(_)) => return None,
            (_, None) => journalled,
        };
        (mine != PhaseName::settings().as_str() && !check::is_one(mine)).then(|| PhaseName::new(mine))
    }

    /// What a phase is called in the node's journal.
    pub(super) fn journalled(&self, phase: &PhaseName) -> PhaseName {
        match &self.purpose {
            Purpose::Lift(run) if *phase != PhaseName::settings() && !check::is_one(phase.as_str()) => {
                PhaseName::new(format!("{phase}{MARK}{}", tag(run)))
            }
            _ => phase.clone(),
        }
    }

    /// Whether converge has to bring the node through bootstrap before this Lift may do anything there.
    pub(super) fn awaits_bootstrap(&self) -> bool {
        let (Purpose::Lift(run), Some(aside)) = (&self.purpose, &self.aside) else { return false };
        let done = aside.phase_results.get(&PhaseName::bootstrap()).is_some_and(|r| r.outcome == Outcome::Succeeded);
        run.after_bootstrap && !done
    }

    /// The node is met in another life than the one that its record speaks of.
    pub(super) fn reborn(&mut self, met: Incarnation) {
        // What Lifts did stands among the phase results of the session that is at it.
        let kind = self.group.node.kind();
        let loss = Loss::between(self.record.incarnation.as_ref(), &met.uid, &met.instance, kind);
        self.record = self.record.reborn(Some(met), loss);
        self.aside.iter_mut().for_each(|aside| aside.reborn(loss));
    }

    /// Whether the Lift ends what it has begun here, and as what.
    pub(super) fn ends_as(&self) -> Option<NodeOutcome> {
        match &self.purpose {
            Purpose::Lift(LiftRun { ends: Some(outcome), .. }) => Some(*outcome),
            _ => None,
        }
    }

    pub(super) fn conclude(&mut self, outcome: NodeOutcome) {
        if let Some(aside) = &mut self.aside {
            aside.outcome = Some(outcome);
        }
    }

    /// What nothing more follows upon is what has become of the node.
    pub(super) fn conclude_by(&mut self, due: &Next) {
        match due {
            Next::Settled => self.conclude(NodeOutcome::Succeeded),
            Next::Halt { phase } => {
                let late = self.record.phase_results.get(phase).is_some_and(|r| r.outcome == Outcome::TimedOut);
                self.conclude(if late { NodeOutcome::TimedOut } else { NodeOutcome::Failed });
            }
            _ => {}
        }
    }

    /// Tells converge of what a Lift has run: the same as it would run itself satisfies it, and another one is an override
    /// that stands until converge runs the phase again.
    pub(super) fn tell_converge(&mut self, phase: &PhaseName, phase_result: &PhaseResult) {
        let place = |id: &str| self.pasts.iter().position(|past| past.run_id == id);
        let (Purpose::Lift(run), Some(aside)) = (&self.purpose, &mut self.aside) else { return };
        let apart = [PhaseName::inline(), PhaseName::settings(), PhaseName::test()].contains(phase);
        if run.dry_run || apart || phase_result.outcome == Outcome::Waiting {
            return;
        }
        let room = aside.phase_results.len() < PHASE_RESULTS;
        let known = aside.phase_results.get_mut(phase);
        // A result that arrives late: converge, or another Lift, has run the phase since.
        let newer = known.as_ref().and_then(|known| place(&known.run_id));
        if newer.zip(place(&phase_result.run_id)).is_some_and(|(newer, own)| own < newer) {
            return;
        }
        let same = known.as_ref().is_some_and(|known| known.digest == phase_result.digest) || !run.overrides;
        match known {
            _ if same && phase_result.outcome == Outcome::Succeeded && (known.is_some() || room) => {
                aside.phase_results.insert(phase.clone(), phase_result.clone());
            }
            Some(known) if !same => known.overridden_by = run.name.clone(),
            _ => {}
        }
    }

    /// The connection is lost while a Lift runs a phase otherwise than converge did. Should nobody hear its end (a Lift that is being
    /// ended waits for that only so long), then converge's result must not stand as if nothing else had run.
    pub(super) fn warn_converge(&mut self, phase: &PhaseName, digest: &str) {
        let (Purpose::Lift(run), Some(aside)) = (&self.purpose, &mut self.aside) else { return };
        let apart = [PhaseName::inline(), PhaseName::settings(), PhaseName::test()].contains(phase);
        if let Some(known) = aside.phase_results.get_mut(phase).filter(|known| known.digest != digest)
            && !run.dry_run
            && !apart
        {
            known.overridden_by.clone_from(&run.name);
        }
    }

    /// A dry run: what to look at next. Nothing is changed on the node.
    pub(super) fn rehearse(&mut self, now: Timestamp) -> Want {
        loop {
            if !self.read {
                return self.ask_facts();
            }
            if self.view != View::Whole {
                if self.readings > 0 {
                    return self.rehearsed();
                }
                match self.gather(1, now) {
                    Some(want) => return want,
                    None if self.view != View::Whole => return self.rehearsed(),
                    None => {}
                }
            }
            let group = self.group.clone();
            let Some(phase) = group.phases.sequence.get(self.check.done) else { return self.rehearsed() };
            self.check.done += 1;
            if *phase == PhaseName::test() {
                let phase_result = self.examine(&Digest::default(), 1, "", now);
                self.record.phase_results.insert(phase.clone(), phase_result);
                continue;
            }
            match next::rendered(&group, &self.identity, &self.record, phase) {
                Ok(rendered) => return self.check(rendered, now),
                Err(error) => {
                    // What is missing may be what a phase before would have brought.
                    let outcome = if self.check.would { Outcome::Succeeded } else { Outcome::Failed };
                    let blank = self.blank(phase, &Digest::default(), 1, "", now);
                    let message = clip(&format!("it cannot be told: {error}"), 1024);
                    self.record.phase_results.insert(phase.clone(), PhaseResult { outcome, message, ..blank });
                }
            }
        }
    }

    fn rehearsed(&mut self) -> Want {
        let failed = self.record.phase_results.values().any(|phase_result| phase_result.outcome != Outcome::Succeeded);
        self.conclude(if failed { NodeOutcome::Failed } else { NodeOutcome::Succeeded });
        self.over(End::Done)
    }

    /// A look at a phase has ended, for a dry run.
    pub(super) fn foreseen(&mut self, ended: &Ended, now: Timestamp) {
        let Some(rendered) = self.check.rendered.take() else { return };
        let mut actions = ended.actions.clone();
        let (before, mut excused) = (self.check.would, false);
        for place in 0..actions.len() {
            let call = rendered.calls.get(place);
            let changed = |place: &usize| actions.get(*place).is_some_and(|action| action.result == Effect::Changed);
            // What listens for changes follows from those that can be told.
            let listens = call.is_some_and(|call| !call.after.is_empty() && !call.after.iter().any(changed));
            let unguarded = call.is_some_and(Call::is_unguarded);
            let action = &mut actions[place];
            match action.result {
                Effect::Failed if before => (action.result, excused) = (Effect::Unknown, true),
                Effect::Changed if unguarded || listens => action.result = Effect::Unknown,
                _ => {}
            }
            self.check.would |= matches!(action.result, Effect::Changed | Effect::Unknown | Effect::Waiting);
        }
        let failed = actions.iter().find(|action| action.result == Effect::Failed).map(|action| action.name.clone());
        // What was not looked at cannot be told.
        for call in rendered.calls.iter().skip(actions.len()) {
            let result = if call.skipped { Effect::Skipped } else { Effect::Unknown };
            let manual = matches!(call.kind, ActionKind::Manual { .. });
            let result = if manual { Effect::Waiting } else { result };
            actions.push(pallet_api::group_node::ActionResult { name: call.name.clone(), result, diff: String::new() });
        }
        let (outcome, message) = match (&ended.verdict, failed) {
            (_, Some(name)) => (Outcome::Failed, format!("action {name} could not be looked at")),
            (Verdict::Exit(code), None) if *code == 0 || excused => (Outcome::Succeeded, String::new()),
            (Verdict::TimedOut, None) => (Outcome::TimedOut, "the look at it took too long".to_owned()),
            _ => (Outcome::Failed, "the look at it did not come to its end".to_owned()),
        };
        let exit_code = match ended.verdict {
            Verdict::Exit(code) if outcome == Outcome::Failed => Some(code),
            _ => None,
        };
        let phase_result = PhaseResult {
            outcome,
            exit_code,
            message,
            actions,
            output: ended.output.clone(),
            output_bytes: ended.output_bytes,
            finished_at: Time(now),
            ..self.blank(&rendered.phase, &rendered.digest, 1, &ended.run_id, now)
        };
        self.record.phase_results.insert(rendered.phase, phase_result);
    }

    /// How far the session may go.
    pub(super) fn bound(&self) -> &Bound {
        match &self.purpose {
            Purpose::Converge(bound) => bound,
            Purpose::Lift(run) => &run.bound,
            Purpose::Farewell | Purpose::Check => &Bound::Free,
        }
    }
}

/// What a script marks its changes by: those of a Lift's own phase are its own.
pub(super) fn marked(run: &LiftRun, mut rendered: Rendered) -> Rendered {
    if rendered.phase == PhaseName::inline() {
        rendered.phase = PhaseName::new(format!("{}{MARK}{}", rendered.phase, tag(run)));
    }
    rendered
}

/// As many Lifts as a record holds: those that have ended without a word here go first, then those that are done, the oldest
/// before the others.
fn kept(mut lifts: Vec<NodeLift>, own: &LiftRun) -> Vec<NodeLift> {
    let other = |lift: &NodeLift| lift.uid != own.uid;
    lifts.retain(|lift| lift.outcome.is_some() || !other(lift) || own.open.contains(&lift.uid));
    let done = |lift: &NodeLift| lift.outcome.is_some() && other(lift);
    while lifts.iter().filter(|lift| done(lift)).count() > DONE_KEPT || lifts.len() > KEPT {
        let oldest = lifts.iter().position(done).unwrap_or(0);
        lifts.remove(oldest);
    }
    lifts
}
