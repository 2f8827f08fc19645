//! Pure: phases, actions, facts and expectations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    Errors,
    layers::Layer,
    scope::{Place, Scope, list},
};
use crate::{
    facts,
    group::{Phases, Setting, Settings},
    phase::{
        Action, Digest, FactSource, PhaseName, Source,
        expect::{self, Expectation},
        render,
    },
};
use pallet_api::{
    actions::ActionFields,
    group_spec::GroupSpecFields,
    phases::{FactFields, FactParser, PhaseFields},
};

/// The most actions that a phase may have, with all that is inherited. PhaseResults keep so many results.
pub const MOST_ACTIONS: usize = 256;

/// The processes that every group has (dda-pallet). A phase of theirs that a group does not declare is left out.
pub(super) const PROCESSES: &[(&str, &[&str])] = &[
    ("apply-install", &["settings", "init", "install", "configure"]),
    ("apply-config", &["settings", "configure"]),
    ("server-test", &["settings", "test"]),
];

/// The most phases with actions that a group may have, with all that is inherited: its status has a place for each.
const MOST_PHASES: usize = 20;
/// The most facts of its own, and expectations, that a group may have, with all that is inherited.
const MOST_FACTS: usize = 128;

impl Errors {
    pub(super) fn phases(&mut self, spec: &GroupSpecFields, layers: &[Layer]) -> Phases {
        let mut phases = Phases { reapply: spec.converge.reapply.clone(), ..Phases::default() };
        phases.params = layers.last().map(|layer| layer.params.clone()).unwrap_or_default();
        self.settings(layers, &mut phases);
        let settings = &phases.settings;
        let mut actions: BTreeMap<PhaseName, Vec<Action>> = BTreeMap::new();
        let mut expectations = Vec::new();
        for layer in layers {
            for (name, fields) in layer.phases {
                self.misplaced(layer, name, fields);
                match name.as_str() {
                    "settings" => {}
                    "test" => self.expectations(layer, fields, settings, &mut expectations),
                    _ => {
                        let own = actions.entry(PhaseName::new(name)).or_default();
                        self.actions(
                            layer,
                            &format!("{name}.actions"),
                            &fields.with_user(&fields.actions),
                            settings,
                            own,
                        );
                        if *name == PhaseName::app_rollout().as_str() {
                            let prepared = actions.entry(PhaseName::prepare()).or_default();
                            let fields = fields.with_user(&fields.prepare);
                            self.actions(layer, "app-rollout.prepare", &fields, settings, prepared);
                        }
                    }
                }
            }
        }
        for (phase, actions) in &actions {
            if actions.len() > MOST_ACTIONS {
                let message =
                    format!("with what it inherits it has {} actions; {MOST_ACTIONS} are the most", actions.len());
                self.add(format!("spec.phases.{phase}.actions"), message);
            }
        }
        if actions.len() > MOST_PHASES {
            let message = format!("with what it inherits it has {} phases; {MOST_PHASES} are the most", actions.len());
            self.add("spec.phases", message);
        }
        // Declared without anything in it, there is nothing to run.
        actions.retain(|_, actions| !actions.is_empty());
        phases.actions = actions.into_iter().map(|(phase, actions)| (phase, Arc::new(actions))).collect();
        if expectations.len() > MOST_FACTS {
            let message =
                format!("with what it inherits it has {} expectations; {MOST_FACTS} are the most", expectations.len());
            self.add("spec.phases.test.expect", message);
        }
        phases.expectations = Arc::new(expectations);
        phases.sequence = self.sequence(spec, layers);
        phases.sequence.retain(|phase| {
            phases.actions.contains_key(phase) || (*phase == PhaseName::test() && !phases.expectations.is_empty())
        });
        // What is prepared may be tested.
        let prepare = PhaseName::prepare();
        if phases.actions.contains_key(&prepare) {
            let place = phases.sequence.iter().position(|phase| *phase == PhaseName::test());
            phases.sequence.insert(place.unwrap_or(phases.sequence.len()), prepare);
        }
        phases.idle = idle(spec, layers, &phases);
        phases.roles = self.roles.iter().cloned().collect();
        phases.secrets = std::mem::take(&mut self.secrets);
        phases.config_maps = std::mem::take(&mut self.config_maps);
        phases
    }

    /// What a phase of this name may not hold.
    fn misplaced(&mut self, layer: &Layer, name: &str, fields: &PhaseFields) {
        let path = format!("{}.phases.{name}", layer.path);
        if matches!(name, "settings" | "test") && !fields.actions.is_empty() {
            self.add(format!("{path}.actions"), format!("{name} changes nothing on the node; move them to configure"));
        }
        if name != "settings" && !(fields.facts.is_empty() && fields.values.is_empty()) {
            self.add(&path, "only settings holds values and facts; move them to spec.phases.settings");
        }
        if name != "app-rollout" && !fields.prepare.is_empty() {
            self.add(
                format!("{path}.prepare"),
                "only app-rollout is prepared by converge; move its actions to configure",
            );
        }
        if name == PhaseName::prepare().as_str() {
            self.add(&path, "this name stands for the prepare of app-rollout; choose another one");
        }
        if matches!(name, "settings" | "test") && fields.elevation.is_some() {
            self.add(format!("{path}.become"), format!("{name} has no actions that it could be for; take it out"));
        }
        if name != "test" && !fields.expect.is_empty() {
            self.add(format!("{path}.expect"), "only test holds expectations; move them to spec.phases.test");
        }
    }

    /// The phases that the ServerSpecs would have converge run. One that nobody declares says where it belongs should
    /// somebody do.
    fn default_phases<'a>(&mut self, layers: &[Layer<'a>]) -> Vec<&'a str> {
        let mut phases = Vec::new();
        for layer in layers {
            for (place, name) in layer.default_phases.iter().enumerate() {
                let path = format!("{}.defaultPhases[{place}]", layer.path);
                if matches!(name.as_str(), "bootstrap" | "destroy-server" | "app-rollout") {
                    self.add(path, format!("{name} is not for a list: it has its own moment; take it out"));
                } else {
                    phases.push(name.as_str());
                }
            }
        }
        phases
    }

    /// What converge runs after bootstrap and settings: what is listed, with configure first where it is not.
    fn sequence(&mut self, spec: &GroupSpecFields, layers: &[Layer]) -> Vec<PhaseName> {
        let converge = &spec.converge;
        let mut must_be_declared = true;
        let (path, listed): (String, Vec<&str>) = match (&converge.phases, &converge.process) {
            (Some(_), Some(_)) => {
                self.add("spec.converge", "phases and process both say what runs; remove one of them");
                return Vec::new();
            }
            (Some(phases), None) => ("spec.converge.phases".into(), phases.iter().map(String::as_str).collect()),
            (None, Some(process)) => {
                if let Some((_, phases)) = PROCESSES.iter().find(|(name, _)| name == process) {
                    must_be_declared = false;
                    (String::new(), phases.to_vec())
                } else if let Some(phases) = spec.processes.get(process) {
                    (format!("spec.processes.{process}"), phases.iter().map(String::as_str).collect())
                } else {
                    let known: Vec<&str> = PROCESSES.iter().map(|(name, _)| *name).collect();
                    let own: Vec<&str> = spec.processes.keys().map(String::as_str).collect();
                    let message =
                        format!("there is no process {process:?}; there are {}", list(&[known, own].concat()));
                    self.add("spec.converge.process", message);
                    return Vec::new();
                }
            }
            (None, None) => {
                must_be_declared = false;
                let inherited = self.default_phases(layers);
                (String::new(), if inherited.is_empty() { vec!["configure"] } else { inherited })
            }
        };
        for (place, name) in listed.iter().enumerate() {
            if matches!(*name, "bootstrap" | "destroy-server" | "app-rollout") {
                self.add(
                    format!("{path}[{place}]"),
                    format!("{name} is not for a list: it has its own moment; take it out"),
                );
            } else if must_be_declared
                && !path.is_empty()
                && !matches!(*name, "settings" | "configure")
                && !layers.iter().any(|layer| layer.phases.contains_key(*name))
            {
                let message =
                    format!("nobody defines a phase {name:?}; declare spec.phases.{name}, or take it out of the list");
                self.add(format!("{path}[{place}]"), message);
            }
        }
        let first = (!listed.contains(&"configure")).then_some("configure");
        let names = first.into_iter().chain(listed).filter(|name| *name != "settings");
        let mut seen = BTreeSet::new();
        names.filter(|name| seen.insert(*name)).map(PhaseName::new).collect()
    }

    /// The actions of one list, such as `configure.actions`, behind those that are there already.
    fn actions(
        &mut self,
        layer: &Layer,
        list: &str,
        fields: &[ActionFields],
        settings: &Settings,
        all: &mut Vec<Action>,
    ) {
        let place = if list == "bootstrap.actions" { Place::Bootstrap } else { Place::Action };
        self.actions_at(&format!("{}.phases.{list}", layer.path), layer, place, fields, settings, all);
    }

    /// The same by the path of the list.
    pub(super) fn actions_at(
        &mut self,
        path: &str,
        layer: &Layer,
        place: Place,
        fields: &[ActionFields],
        settings: &Settings,
        all: &mut Vec<Action>,
    ) {
        let scope = Scope { settings, place, params: &layer.params, of_group: layer.origin.is_none() };
        for (place, fields) in fields.iter().enumerate() {
            let path = format!("{path}[{place}]");
            let Some(action) = self.action(&path, place, fields, layer, &scope, all) else { continue };
            if all.iter().any(|other| other.name == action.name) {
                let message =
                    format!("another action of this phase is named {:?} too; choose another name", action.name);
                self.add(format!("{path}.name"), message);
            }
            self.one_file_each(&path, &action, &scope, all);
            all.push(action);
        }
    }

    fn expectations(&mut self, layer: &Layer, fields: &PhaseFields, settings: &Settings, all: &mut Vec<Expectation>) {
        let scope =
            Scope { settings, place: Place::Expectation, params: &layer.params, of_group: layer.origin.is_none() };
        for (place, fields) in fields.expect.iter().enumerate() {
            let path = format!("{}.phases.test.expect[{place}]", layer.path);
            let name = layer.qualified(&fields.name);
            if all.iter().any(|other| other.name == name) {
                self.add(format!("{path}.name"), format!("there are two expectations {name:?}; rename one"));
            }
            self.expression(&format!("{path}.expression"), &fields.expression, &scope);
            all.push(Expectation {
                name,
                origin: layer.origin.clone(),
                expression: fields.expression.clone(),
                message: fields.message.clone(),
            });
        }
    }

    /// Refuses an expression that cannot be read, or that names what nothing declares.
    pub(super) fn expression(&mut self, path: &str, expression: &str, scope: &Scope) {
        match expect::names(expression) {
            Err(message) => self.add(path, message),
            Ok(names) => {
                let unknown: Vec<String> = names.iter().filter_map(|name| scope.refuse(name)).collect();
                if unknown.is_empty()
                    && let Err(message) = expect::check(expression, &|name| scope.type_of(name))
                {
                    self.add(path, message);
                }
                unknown.into_iter().for_each(|message| self.add(path, message));
            }
        }
    }

    /// Facts and values of all layers. A value of a later layer takes the place of an earlier one's.
    fn settings(&mut self, layers: &[Layer], phases: &mut Phases) {
        let settings = &mut phases.settings;
        for layer in layers {
            let facts = layer.phases.get("settings").map(|fields| fields.facts.as_slice()).unwrap_or_default();
            for (place, fact) in facts.iter().enumerate() {
                self.fact(&format!("{}.phases.settings.facts[{place}]", layer.path), fact, &mut settings.facts);
            }
        }
        if settings.facts.len() > MOST_FACTS {
            let message =
                format!("with what it inherits it has {} facts; {MOST_FACTS} are the most", settings.facts.len());
            self.add("spec.phases.settings.facts", message);
        }
        let mut values = BTreeMap::new();
        for layer in layers {
            let Some(fields) = layer.phases.get("settings") else { continue };
            for (name, value) in &fields.values {
                let scope =
                    Scope { settings, place: Place::Values, params: &layer.params, of_group: layer.origin.is_none() };
                self.value(&format!("{}.phases.settings.values.{name}", layer.path), value, &scope);
                values.insert(name.clone(), Setting { origin: layer.origin.clone(), value: value.clone() });
            }
        }
        settings.values = values;
        let sources: Value = settings.facts.iter().map(FactSource::model).collect();
        let values: BTreeMap<&String, &Value> =
            settings.values.iter().map(|(name, setting)| (name, &setting.value)).collect();
        let mut model = json!({"facts": sources, "values": values});
        if let (Value::Object(fields), true) = (&mut model, layers.len() > 1) {
            fields.insert("params".into(), phases.params.clone());
        }
        settings.digest = Digest::of("settings", &model);
    }

    fn fact(&mut self, path: &str, fields: &FactFields, all: &mut Vec<FactSource>) {
        if facts::is_reserved(&fields.name) {
            self.add(format!("{path}.name"), format!("{:?} is a built-in fact; choose another name", fields.name));
        }
        let source = match (&fields.exec, &fields.file) {
            (Some(script), None) => Source::Exec(script.clone()),
            (None, Some(file)) => Source::File(file.clone()),
            _ => return self.add(path, "a fact has exactly one source: set exec or file"),
        };
        if fields.parse == FactParser::ExitCode && fields.exec.is_none() {
            self.add(format!("{path}.parse"), "only exec has an exit code; set exec, or another parse");
        }
        let fact = FactSource { name: fields.name.clone(), source, parse: fields.parse, optional: fields.optional };
        match all.iter().find(|other| other.name == fact.name) {
            // Two ServerSpecs may ask for the same thing.
            Some(other) if *other == fact => {}
            Some(_) => self.add(format!("{path}.name"), format!("there are two facts {:?}; rename one", fact.name)),
            None => all.push(fact),
        }
    }

    fn value(&mut self, path: &str, value: &Value, scope: &Scope) {
        match value {
            Value::String(template) => self.template(path, template, scope),
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.value(&format!("{path}[{place}]"), item, scope);
                }
            }
            Value::Object(map) => {
                for (name, item) in map {
                    self.value(&format!("{path}.{name}"), item, scope);
                }
            }
            _ => {}
        }
    }

    /// Refuses names that nothing declares, before any session is opened.
    pub(super) fn template(&mut self, path: &str, template: &str, scope: &Scope) {
        self.templates.insert(path.to_owned());
        match render::names_within(template, &self.budget) {
            Err(cut @ render::Fault::TooMuchWork(_)) => self.add(path, cut.to_string()),
            Err(fault) => self.add(path, format!("the template cannot be read: {fault}")),
            Ok(names) => {
                for name in names {
                    let role = name.strip_prefix("nodes.").and_then(|rest| rest.split('.').next());
                    self.roles.extend(role.map(str::to_owned));
                    if let Some(message) = scope.refuse(&name) {
                        self.add(path, message);
                    }
                }
            }
        }
    }
}

/// What is declared and run by nothing: neither by converge nor by a process, and not of those that have their own moment.
fn idle(spec: &GroupSpecFields, layers: &[Layer], phases: &Phases) -> Vec<PhaseName> {
    let of_a_process = |name: &String| spec.processes.values().flatten().any(|phase| phase == name);
    let own_moment = |name: &str| matches!(name, "bootstrap" | "settings" | "destroy-server" | "app-rollout");
    let declared: BTreeSet<&String> = layers.iter().flat_map(|layer| layer.phases.keys()).collect();
    let names = declared.into_iter().filter(|name| !own_moment(name) && !of_a_process(name));
    names
        .map(PhaseName::new)
        .filter(|phase| !phases.sequence.contains(phase) && *phase != PhaseName::configure())
        .filter(|phase| phases.actions.contains_key(phase) || *phase == PhaseName::test())
        .collect()
}
