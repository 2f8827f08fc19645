//! Pure: a group as a Lift sees it: with the Lift's phases, parameters and rollout in place of those that it converges by.

use std::{str::FromStr, sync::Arc};

use super::{
    Errors, FieldError, ServerSpecs,
    layers::Layer,
    phases::PROCESSES,
    scope::{Place, list},
};
use crate::{
    api::{GroupSpec, GroupSpecFields, lift::LiftFields},
    group::{Group, Phases, Retry},
    phase::PhaseName,
};

/// Parses a GroupSpec for a Lift. What comes of it is run once, and decides on no count.
///
/// A phase that the group does not declare is left out of its sequence: other groups of the Lift may have it.
///
/// # Errors
/// Everything that is wrong with either, with the paths of the fields in the object that holds them.
pub fn lifted(object: &GroupSpec, specs: &ServerSpecs, lift: &LiftFields) -> Result<Group, Vec<FieldError>> {
    let mut group = Errors::default().group(object, specs, Some(lift))?;
    // The schema of the Lift has seen to its form.
    let backoff = kube::core::Duration::from_str(&lift.retry.backoff).map(Into::into).unwrap_or_default();
    group.retry = Retry { limit: lift.retry.limit, backoff };
    group.retry_token = String::new();
    group.drift_check = None;
    Ok(group)
}

impl Errors {
    pub(super) fn lifted_phases(&mut self, spec: &GroupSpecFields, layers: &[Layer], lift: &LiftFields) -> Phases {
        let mut phases = self.phases(spec, layers);
        // What its converge lacks or leaves undone is no concern of a Lift.
        phases.idle = Vec::new();
        phases.on_demand = true;
        let own = (phases.secrets.clone(), phases.config_maps.clone());
        if let (Some(inline), Some(layer)) = (&lift.phase, layers.last()) {
            let mut actions = Vec::new();
            let settings = phases.settings.clone();
            self.actions_at("spec.phase.actions", layer, Place::Action, &inline.actions, &settings, &mut actions);
            let (secrets, config_maps) = (std::mem::take(&mut self.secrets), std::mem::take(&mut self.config_maps));
            let foreign = secrets.iter().filter(|(at, _)| !own.0.contains_key(*at));
            let foreign = foreign.chain(config_maps.iter().filter(|(at, _)| !own.1.contains_key(*at)));
            for (_, path) in foreign {
                self.add(
                    path.clone(),
                    "the phase of a Lift may use only what its group uses; name it in the GroupSpec, too",
                );
            }
            phases.actions.insert(PhaseName::inline(), Arc::new(actions));
            phases.roles = self.roles.iter().cloned().collect();
        }
        let names = self.lifted_names(spec, lift);
        let mut sequence: Vec<PhaseName> = Vec::new();
        for name in names {
            if name == PhaseName::app_rollout() {
                sequence.push(PhaseName::prepare());
            }
            sequence.push(name);
        }
        sequence.retain(|phase| {
            phases.actions.contains_key(phase) || (*phase == PhaseName::test() && !phases.expectations.is_empty())
        });
        phases.actions.retain(|phase, _| sequence.contains(phase));
        phases.sequence = sequence;
        phases
    }

    /// The phases that a Lift asks for, settings left out, since it goes first by itself.
    fn lifted_names(&mut self, spec: &GroupSpecFields, lift: &LiftFields) -> Vec<PhaseName> {
        let names: Vec<String> = match (&lift.phases, &lift.process, &lift.phase) {
            (_, _, Some(_)) => return vec![PhaseName::inline()],
            (_, Some(process), _) => {
                let predefined = PROCESSES.iter().find(|(name, _)| name == process);
                let predefined = predefined.map(|(_, phases)| phases.iter().map(|name| (*name).to_owned()).collect());
                match predefined.or_else(|| spec.processes.get(process).cloned()) {
                    Some(names) => names,
                    None => {
                        let known = PROCESSES.iter().map(|(name, _)| *name);
                        let known: Vec<&str> = known.chain(spec.processes.keys().map(String::as_str)).collect();
                        let message = format!("there is no process {process:?}; there are {}", list(&known));
                        self.add("spec.process", message);
                        Vec::new()
                    }
                }
            }
            (Some(phases), ..) => phases.clone(),
            _ => vec![PhaseName::configure().to_string()],
        };
        names.into_iter().map(PhaseName::new).filter(|name| *name != PhaseName::settings()).collect()
    }
}
