//! Pure: what the node's journal holds, and what of it a session has to settle before it begins anything.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use super::{Meant, Session, Stage, Want, check, lift::phase_of};
use crate::{
    phase::{PhaseName, Rerun},
    plan::Purpose,
    session::frame::Past,
};
use pallet_api::group_node::{Incarnation, Outcome};

impl Session {
    /// The filesystem ID tells whether the file system is the one that the record speaks of.
    pub(super) fn meet(&mut self, filesystem_id: String) {
        let met = {
            let Meant { uid, instance, .. } = self.incarnation.clone();
            Incarnation { uid, instance, filesystem_id }
        };
        let same =
            self.record.incarnation.as_ref().is_some_and(|i| i.uid == met.uid && i.filesystem_id == met.filesystem_id);
        if same {
            self.record.incarnation = Some(met);
        } else {
            self.reborn(met);
        }
    }

    /// The runs of the journal that no phase result speaks of yet: the newest of each phase, and whatever is still active.
    pub(super) fn unsettled(&mut self) -> Vec<String> {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (place, past) in self.pasts.iter().enumerate() {
            first.entry(&past.run_id).or_insert(place);
        }
        let mut newest: BTreeMap<PhaseName, &Past> = BTreeMap::new();
        for (place, past) in self.pasts.iter().enumerate() {
            let Some(phase) = self.own(&past.phase).filter(|_| past.started) else { continue };
            let known = self.record.phase_results.get(&phase);
            if known.is_none() && !self.group.phases.knows(&phase) {
                // Nobody asks for it any more; one that is active is waited for all the same.
                continue;
            }
            let told = known.and_then(|phase_result| {
                let at = *first.get(phase_result.run_id.as_str())?;
                Some(if phase_result.outcome == Outcome::Unknown { place < at } else { place <= at })
            });
            if told == Some(true) {
                continue;
            }
            if self.is_undone(&phase, past, &self.pasts[place + 1..]) {
                newest.remove(&phase);
            } else {
                newest.insert(phase, past);
            }
        }
        // Who only ends what is its own does not wait for others.
        let ends = self.ends_as().is_some();
        let active = self.pasts.iter().filter(|past| past.active && (!ends || self.own(&past.phase).is_some()));
        let mut open: Vec<String> = newest.into_values().chain(active).map(|past| past.run_id.clone()).collect();
        let mut named = HashSet::new();
        open.retain(|id| named.insert(id.clone()));
        let lost: Vec<String> = self
            .record
            .phase_results
            .values()
            .filter(|phase_result| phase_result.outcome == Outcome::Unknown && !open.contains(&phase_result.run_id))
            .map(|phase_result| phase_result.run_id.clone())
            .collect();
        for id in lost {
            self.never_started(&id);
        }
        open
    }

    /// Whether a Lift has run a phase otherwise since converge did. What converge ran is not on the node any more: a phase result of it
    /// would say that it is, and the phase runs again instead. What runs once only stays done.
    fn is_undone(&self, phase: &PhaseName, past: &Past, later: &[Past]) -> bool {
        let by_lift = |other: &Past| other.phase != past.phase && phase_of(&other.phase) == phase.as_str();
        !matches!(self.purpose, Purpose::Lift(_))
            && phase.rerun() == Rerun::PerDigest
            && later.iter().any(|other| other.started && by_lift(other) && other.digest != past.digest)
    }

    pub(super) fn attach_or(&mut self, open: Vec<String>, now: Timestamp) -> Want {
        match open.first() {
            Some(id) => {
                // What runs on a node that is being removed is ended, but for the farewell that somebody began.
                let destroy = PhaseName::destroy_server();
                let begun = self.pasts.iter().any(|past| past.run_id == *id && past.phase == destroy.as_str());
                // Nobody needs the end of a look.
                let ends = (self.is_farewell() && !begun) || check::is_look(id) || self.ends_as().is_some();
                let verb = if ends { "cancel" } else { "attach" };
                let request = format!("{verb} {id}\n").into_bytes();
                self.stage = Stage::Attaching(open);
                Want::Send(request)
            }
            None => {
                self.caught_up = true;
                self.advance(now)
            }
        }
    }

    /// The journal knows nothing of a run whose outcome was unknown: it never started, and was no attempt.
    ///
    /// The phase result that is left speaks of the attempt before, and must not keep the name of the run that never started: that run
    /// may be started yet, under the same name, and what it does then would count as known (see `unsettled`). Which run the
    /// attempt before was, the journal says; without a name whatever it holds of the phase is asked for.
    pub(super) fn never_started(&mut self, id: &str) {
        self.record.phase_results.retain(|_, phase_result| {
            let lost = phase_result.run_id == id && phase_result.outcome == Outcome::Unknown;
            if lost && phase_result.attempt == 1 && phase_result.from > 0 {
                // What was acknowledged stays so: it is begun behind the step once more.
                (phase_result.attempt, phase_result.outcome) = (0, Outcome::Failed);
                phase_result.message = "the attempt never started".into();
                phase_result.run_id.clear();
                return true;
            }
            if lost && phase_result.attempt > 1 {
                phase_result.attempt -= 1;
                phase_result.outcome = Outcome::Failed;
                phase_result.message = "the next attempt never started".into();
                phase_result.run_id.clear();
                return true;
            }
            !lost
        });
    }
}
