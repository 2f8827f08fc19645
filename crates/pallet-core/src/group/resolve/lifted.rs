//! Pure: a group as a Lift sees it: with the Lift's phases, parameters and rollout in place of those that it converges by.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use super::{
    Errors, FieldError, References, ServerSpecs,
    layers::Layer,
    phases::PROCESSES,
    scope::{Place, list},
};
use crate::{
    group::{Group, Phases, Retry},
    phase::{PhaseName, action::KeyRef},
};
use pallet_api::{GroupSpec, GroupSpecFields, lift::LiftFields};

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

/// The keys of Secrets and ConfigMaps that a group uses without any Lift. Whoever may create Lifts may not choose others:
/// the operator reads them with rights of its own.
struct Allowed {
    secrets: References,
    config_maps: References,
}

impl Allowed {
    /// A spec with errors allows what could be resolved of it.
    fn of(spec: &GroupSpecFields, specs: &ServerSpecs) -> Self {
        let mut errors = Errors::default();
        let layers = errors.layers(spec, specs, &BTreeMap::new());
        let Phases { secrets, config_maps, .. } = errors.phases(spec, &layers);
        Self { secrets, config_maps }
    }

    /// The kind, key and path of each reference that is not allowed.
    fn foreign(&self, secrets: &References, config_maps: &References) -> Vec<(&'static str, KeyRef, String)> {
        let beyond = |kind, used: &References, allowed: &References| {
            let foreign = used.iter().filter(|(at, _)| !allowed.contains_key(*at));
            foreign.map(|(at, path)| (kind, at.clone(), path.clone())).collect::<Vec<_>>()
        };
        let mut found = beyond("Secret", secrets, &self.secrets);
        found.extend(beyond("ConfigMap", config_maps, &self.config_maps));
        found
    }
}

impl Errors {
    pub(super) fn lifted_phases(
        &mut self,
        spec: &GroupSpecFields,
        specs: &ServerSpecs,
        layers: &[Layer],
        lift: &LiftFields,
    ) -> Phases {
        let allowed = Allowed::of(spec, specs);
        let mut phases = self.phases(spec, layers);
        // What its converge lacks or leaves undone is no concern of a Lift.
        phases.idle = Vec::new();
        phases.on_demand = true;
        for (kind, at, path) in allowed.foreign(&phases.secrets, &phases.config_maps) {
            let message = format!(
                "with the values of the Lift's spec.with it names the {kind} {at}, which the group does not use by \
                 itself; take the value out of spec.with, or name the {kind} in the GroupSpec, too"
            );
            self.add(path, message);
        }
        if let (Some(inline), Some(layer)) = (&lift.phase, layers.last()) {
            let mut actions = Vec::new();
            let settings = phases.settings.clone();
            self.actions_at("spec.phase.actions", layer, Place::Action, &inline.actions, &settings, &mut actions);
            let (secrets, config_maps) = (std::mem::take(&mut self.secrets), std::mem::take(&mut self.config_maps));
            for (kind, at, path) in allowed.foreign(&secrets, &config_maps) {
                let message = format!(
                    "the phase of a Lift may use only what its group uses, and that is not the {kind} {at}; name it \
                     in the GroupSpec, too"
                );
                self.add(path, message);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 1}, "spec": value
        }))
        .unwrap()
    }

    fn web() -> GroupSpec {
        let secret = json!({"secretFile": {"path": "/etc/key", "secretKeyRef": {"name": "known", "key": "k"}}});
        spec(json!({
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "extends": [{"serverSpec": "nginx", "with": {"port": 80}}, {"serverSpec": "app"}],
            "processes": {"nightly": ["backup", "settings", "configure"]},
            "phases": {
                "configure": {"actions": [{"exec": {"script": "conf {{ params.nginx.port }}"}}, secret]},
                "backup": {"actions": [{"exec": {"script": "backup"}}]},
                "app-rollout": {"prepare": [{"exec": {"script": "get"}}], "actions": [{"exec": {"script": "go"}}]},
                "test": {"expect": [{"name": "t", "expression": "true"}]}
            }
        }))
    }

    fn specs() -> ServerSpecs {
        let server = |name: &str, value: Value| {
            let object = json!({
                "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec",
                "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1}, "spec": value
            });
            (name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()))
        };
        let port = json!({"port": {"type": "integer", "default": 1}});
        let app = json!({"port": {"type": "integer", "default": 2}, "version": {"default": "1"}});
        [server("nginx", json!({"parameters": port})), server("app", json!({"parameters": app}))].into()
    }

    fn lift(value: Value) -> Result<Group, Vec<String>> {
        let mut fields = json!({"groups": ["web"]});
        fields.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        let lifted = lifted(&web(), &specs(), &serde_json::from_value(fields).unwrap());
        lifted.map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn sequence(value: Value) -> Vec<String> {
        lift(value).unwrap().phases.sequence.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_runs_is_configure_the_phases_the_process_or_the_phase_of_the_lift() {
        assert_eq!(sequence(json!({})), ["configure"]);
        assert_eq!(sequence(json!({"phases": ["test", "settings", "backup", "nowhere"]})), ["test", "backup"]);
        assert_eq!(sequence(json!({"process": "apply-install"})), ["configure"]);
        assert_eq!(sequence(json!({"process": "nightly"})), ["backup", "configure"]);
        assert_eq!(sequence(json!({"phase": {"actions": [{"exec": {"script": "x"}}]}})), ["inline"]);
        // What is prepared for it is there before it goes.
        assert_eq!(sequence(json!({"phases": ["app-rollout"]})), ["app-rollout-prepare", "app-rollout"]);
        let refused = lift(json!({"process": "weekly"})).unwrap_err();
        assert_eq!(
            refused,
            [
                "spec.process: there is no process \"weekly\"; there are apply-install, apply-config, server-test, nightly"
            ]
        );
    }

    #[test]
    fn parameters_are_overridden_by_their_declared_name() {
        let params = |value: Value| lift(json!({"with": value})).unwrap().phases.params;
        assert_eq!(params(json!({"version": "2"}))["app"]["version"], "2");
        let both = params(json!({"nginx.port": 8080}));
        assert_eq!((&both["nginx"]["port"], &both["app"]["port"]), (&json!(8080), &json!(2)));
        let refused = |value: Value| lift(json!({"with": value})).unwrap_err().join("\n");
        assert_eq!(
            refused(json!({"port": 1})),
            "spec.with.port: several ServerSpecs have it; say which is meant: nginx.port, app.port"
        );
        assert_eq!(
            refused(json!({"prot": 1})),
            "spec.with.prot: there is no such parameter; there are app.port, app.version, nginx.port"
        );
        assert_eq!(refused(json!({"nginx.port": "x"})), "spec.with.nginx.port: \"x\" is not of type integer");
    }

    #[test]
    fn the_phase_of_a_lift_is_checked_like_any_other_and_uses_no_secret_of_its_own() {
        let refused = |action: Value| lift(json!({"phase": {"actions": [action]}})).unwrap_err().join("\n");
        assert!(
            refused(json!({"exec": {"script": "{{ params.nope }}"}}))
                .starts_with("spec.phase.actions[0].exec.script: ")
        );
        let file = |name: &str| json!({"secretFile": {"path": "/x", "secretKeyRef": {"name": name, "key": "k"}}});
        assert!(refused(file("other")).starts_with("spec.phase.actions[0]."), "{}", refused(file("other")));
        assert!(lift(json!({"phase": {"actions": [file("known")]}})).is_ok());
        assert!(lift(json!({"phase": {"actions": [{"exec": {"script": "{{ params.app.version }}"}}]}})).is_ok());
    }

    /// Where an action names a Secret or ConfigMap, as name and key, and the path of the field.
    fn places(name: &str, key: &str) -> Vec<(&'static str, &'static str, Value)> {
        let at = json!({"name": name, "key": key});
        vec![
            (
                "Secret",
                "exec.secretEnv[0].secretKeyRef",
                json!({"exec": {"script": "x", "secretEnv": [{"name": "PW", "secretKeyRef": at}]}}),
            ),
            ("Secret", "secretFile.secretKeyRef", json!({"secretFile": {"path": "/x", "secretKeyRef": at}})),
            (
                "ConfigMap",
                "file.contentFrom.configMapKeyRef",
                json!({"file": {"path": "/x", "contentFrom": {"configMapKeyRef": at}}}),
            ),
            (
                "ConfigMap",
                "file.contentFrom.configMapKeyRef",
                json!({"file": {"path": "/x", "contentFrom": {"template": true, "configMapKeyRef": at}}}),
            ),
        ]
    }

    fn with_action(action: &Value, parameters: &Value) -> ServerSpecs {
        let server = |name: &str, spec: Value| {
            let object = json!({
                "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec",
                "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1}, "spec": spec
            });
            (name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()))
        };
        let phases = json!({"configure": {"actions": [action]}, "backup": {"actions": [action]}});
        let base = json!({"parameters": parameters, "phases": phases});
        // A value that one ServerSpec hands on to another is a way to the name, too.
        let by = json!({"secret": "{{ params.secret }}", "key": "{{ params.key }}"});
        let app = json!({"parameters": parameters, "extends": [{"serverSpec": "base", "with": by}]});
        [server("base", base), server("app", app)].into()
    }

    /// Found by review: by the value of a parameter, a Lift had the operator read any Secret of the namespace to it.
    #[test]
    fn no_value_of_a_lift_leads_to_a_secret_that_the_group_does_not_use() {
        let inline = |action: &Value| json!({"phase": {"actions": [action]}});
        let parameters = json!({"secret": {"default": "app"}, "key": {"default": "k"}});
        let group = spec(json!({
            "node": web().spec.node, "extends": [{"serverSpec": "app"}], "processes": {"p": ["backup"]},
        }));
        let (name, key) = ("{{ params.secret }}", "{{ params.key }}");
        let conditional = places(name, key).into_iter().map(|(kind, path, mut action)| {
            action["when"] = json!("params.secret != null");
            (kind, path, action)
        });
        for (kind, path, action) in places(name, key).into_iter().chain(conditional) {
            let specs = with_action(&action, &parameters);
            let run = |fields: Value| {
                let mut lift = json!({"groups": ["web"]});
                lift.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
                let found = super::lifted(&group, &specs, &serde_json::from_value(lift).unwrap());
                found.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            };
            run(json!({})).unwrap();
            for with in
                [json!({"app.secret": "payroll"}), json!({"app.key": "other"}), json!({"base.secret": "payroll"})]
            {
                for phases in [json!({}), json!({"phases": ["backup"]}), json!({"process": "p"})] {
                    let mut fields = phases.clone();
                    fields["with"] = with.clone();
                    let refused = run(fields).unwrap_err();
                    assert!(refused.contains(&format!("actions[0].{path}: with the values")), "{path}: {refused}");
                    assert!(refused.contains("spec.with") && refused.contains(kind), "{refused}");
                }
                let reads = &places("payroll", "k").into_iter().find(|(_, other, _)| *other == path).unwrap().2;
                let mut fields = inline(reads);
                fields["with"] = with.clone();
                let refused = run(fields).unwrap_err();
                assert!(refused.contains(&format!("spec.phase.actions[0].{path}: ")), "{path}: {refused}");
            }
            // What it uses by itself may be used by its own name or by a value that comes to it.
            run(json!({"with": {"app.secret": "app"}})).unwrap();
            run(inline(&places("app", "k").into_iter().find(|(_, other, _)| *other == path).unwrap().2)).unwrap();
        }
    }

    /// A parameter without a value is no Secret that the group uses, and the password of another user is one like others.
    #[test]
    fn what_a_group_uses_is_told_without_the_lift() {
        let action = json!({
            "when": "params.secret != null",
            "secretFile": {"path": "/x", "secretKeyRef": {"name": "{{ params.secret }}", "key": "k"}}
        });
        let specs = with_action(&action, &json!({"secret": {}, "key": {}}));
        let group = spec(json!({"node": web().spec.node, "extends": [{"serverSpec": "app"}]}));
        let lift = serde_json::from_value(json!({"groups": ["web"], "with": {"app.secret": "payroll"}})).unwrap();
        let refused = super::lifted(&group, &specs, &lift).unwrap_err();
        assert!(refused[0].path.ends_with("secretFile.secretKeyRef"), "{refused:?}");
        let script = json!({
            "exec": {"script": "x"},
            "become": {"user": "app", "password": {"secretKeyRef": {"name": "payroll", "key": "k"}}}
        });
        let refused = super::lifted(
            &web(),
            &super::tests::specs(),
            &serde_json::from_value(json!({"groups": ["web"], "phase": {"actions": [script]}})).unwrap(),
        );
        let refused = refused.unwrap_err();
        assert!(refused.iter().any(|error| error.path == "spec.phase.actions[0].become.password.secretKeyRef"));
    }

    /// What converge is not satisfied by would be run again by it.
    #[test]
    fn a_phase_that_is_lifted_as_it_is_declared_is_the_phase_that_converge_runs() {
        let group = super::super::resolve(&web(), &specs()).unwrap();
        let lifted = lift(json!({})).unwrap();
        assert_eq!(group.phases.actions[&PhaseName::configure()], lifted.phases.actions[&PhaseName::configure()]);
        assert_eq!(group.phases.params, lifted.phases.params);
        assert_eq!(group.phases.settings, lifted.phases.settings);
        assert_eq!((lifted.retry.limit, lifted.drift_check), (0, None));
    }
}
