//! Pure: phases, actions, facts and expectations.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    Errors,
    scope::{Place, Scope, list},
};
use crate::{
    api::{
        actions::*,
        group_spec::GroupSpecFields,
        phases::{ExpectFields, PhaseFields},
    },
    facts,
    group::{Phases, Settings},
    phase::{
        Action, ActionKind, DEFAULT_MODE, Digest, FactSource, PhaseName, Source,
        expect::{self, Expectation},
        render,
    },
};

/// The processes that every group has (dda-pallet). A phase of theirs that a group does not declare is left out.
const PROCESSES: &[(&str, &[&str])] = &[
    ("apply-install", &["settings", "init", "install", "configure"]),
    ("apply-config", &["settings", "configure"]),
    ("server-test", &["settings", "test"]),
];

impl Errors {
    pub(super) fn phases(&mut self, spec: &GroupSpecFields) -> Phases {
        let mut phases = Phases { reapply: spec.converge.reapply.clone(), ..Phases::default() };
        if let Some(fields) = spec.phases.get("settings") {
            phases.settings = self.settings(fields);
        }
        for (name, fields) in &spec.phases {
            self.misplaced(name, fields);
            match name.as_str() {
                "settings" => {}
                "test" => phases.expectations = Arc::new(self.expectations(&fields.expect, &phases.settings)),
                _ => {
                    let actions = self.actions(name, fields, &phases.settings);
                    if !actions.is_empty() {
                        phases.actions.insert(PhaseName::new(name), Arc::new(actions));
                    }
                }
            }
        }
        phases.sequence = self.sequence(spec);
        // Declared without anything in it, there is nothing to run.
        phases.sequence.retain(|phase| {
            phases.actions.contains_key(phase) || (*phase == PhaseName::test() && !phases.expectations.is_empty())
        });
        phases.idle = idle(spec, &phases);
        phases
    }

    /// What a phase of this name may not hold.
    fn misplaced(&mut self, name: &str, fields: &PhaseFields) {
        let path = format!("spec.phases.{name}");
        if matches!(name, "settings" | "test") && !fields.actions.is_empty() {
            self.add(format!("{path}.actions"), format!("{name} changes nothing on the node; move them to configure"));
        }
        if name != "settings" && !(fields.facts.is_empty() && fields.values.is_empty()) {
            self.add(&path, "only settings holds values and facts; move them to spec.phases.settings");
        }
        if name != "test" && !fields.expect.is_empty() {
            self.add(format!("{path}.expect"), "only test holds expectations; move them to spec.phases.test");
        }
    }

    /// What converge runs after bootstrap and settings: what is listed, with configure first where it is not.
    fn sequence(&mut self, spec: &GroupSpecFields) -> Vec<PhaseName> {
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
            (None, None) => (String::new(), vec!["configure"]),
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
                && !spec.phases.contains_key(*name)
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

    fn actions(&mut self, name: &str, fields: &PhaseFields, settings: &Settings) -> Vec<Action> {
        let place = if name == "bootstrap" { Place::Bootstrap } else { Place::Action };
        let scope = Scope { settings, place };
        let path = |place: usize| format!("spec.phases.{name}.actions[{place}]");
        let actions = fields.actions.iter().enumerate();
        let actions: Vec<Action> =
            actions.filter_map(|(place, action)| self.action(&path(place), place, action, &scope)).collect();
        self.unique_names(name, &actions);
        actions
    }

    fn expectations(&mut self, fields: &[ExpectFields], settings: &Settings) -> Vec<Expectation> {
        let scope = Scope { settings, place: Place::Expectation };
        let mut names = BTreeSet::new();
        for (place, fields) in fields.iter().enumerate() {
            let path = format!("spec.phases.test.expect[{place}]");
            if !names.insert(&fields.name) {
                self.add(format!("{path}.name"), format!("there are two expectations {:?}; rename one", fields.name));
            }
            let path = format!("{path}.that");
            match expect::names(&fields.that) {
                Err(message) => self.add(path, message),
                Ok(names) => {
                    names.iter().filter_map(|name| scope.refuse(name)).for_each(|message| self.add(&path, message))
                }
            }
        }
        let expectation = |fields: &ExpectFields| Expectation {
            name: fields.name.clone(),
            that: fields.that.clone(),
            message: fields.message.clone(),
        };
        fields.iter().map(expectation).collect()
    }

    fn unique_names(&mut self, phase: &str, actions: &[Action]) {
        let mut seen = BTreeSet::new();
        for (place, action) in actions.iter().enumerate() {
            if !seen.insert(&action.name) {
                let path = format!("spec.phases.{phase}.actions[{place}].name");
                self.add(
                    path,
                    format!("another action of this phase is named {:?} too; choose another name", action.name),
                );
            }
        }
    }

    fn settings(&mut self, fields: &PhaseFields) -> Settings {
        const PATH: &str = "spec.phases.settings";
        let mut settings = Settings::default();
        for (place, fact) in fields.facts.iter().enumerate() {
            let path = format!("{PATH}.facts[{place}]");
            if facts::is_reserved(&fact.name) {
                self.add(format!("{path}.name"), format!("{:?} is a built-in fact; choose another name", fact.name));
            }
            if settings.facts.iter().any(|other| other.name == fact.name) {
                self.add(format!("{path}.name"), format!("there are two facts {:?}; rename one", fact.name));
            }
            let source = match (&fact.exec, &fact.file) {
                (Some(script), None) => Source::Exec(script.clone()),
                (None, Some(file)) => Source::File(file.clone()),
                _ => {
                    self.add(path, "a fact has exactly one source: set exec or file");
                    continue;
                }
            };
            settings.facts.push(FactSource { name: fact.name.clone(), source, optional: fact.optional });
        }
        for (name, value) in &fields.values {
            let scope = Scope { settings: &settings, place: Place::Values };
            self.value(&format!("{PATH}.values.{name}"), value, &scope);
        }
        settings.values = fields.values.clone();
        let sources: Value = settings
            .facts
            .iter()
            .map(|fact| match &fact.source {
                Source::Exec(script) => json!([fact.name, "exec", script, fact.optional]),
                Source::File(path) => json!([fact.name, "file", path, fact.optional]),
            })
            .collect();
        settings.digest = Digest::of("settings", &json!({"facts": sources, "values": fields.values}));
        settings
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

    fn action(&mut self, path: &str, place: usize, fields: &ActionFields, scope: &Scope) -> Option<Action> {
        let kinds = [
            fields.exec.as_ref().map(|exec| ("exec", self.exec(path, exec, scope))),
            fields.file.as_ref().map(|file| ("file", self.file(path, file, scope))),
            fields.directory.as_ref().map(|directory| ("directory", self.directory(path, directory, scope))),
            fields.symlink.as_ref().map(|symlink| ("symlink", self.symlink(path, symlink, scope))),
            fields.package.as_ref().map(|package| ("package", self.package(path, package, scope))),
            fields.service.as_ref().map(|service| ("service", self.service(path, service, scope))),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let (Some((word, kind)), None) = (kinds.next(), kinds.next()) else {
            self.add(
                path,
                "an action has exactly one kind: set one of exec, file, directory, symlink, package and service",
            );
            return None;
        };
        let name = fields.name.clone().unwrap_or_else(|| format!("{word}[{place}]"));
        Some(Action { name, kind })
    }

    fn exec(&mut self, path: &str, exec: &ExecFields, scope: &Scope) -> ActionKind {
        let templates = [
            ("script", Some(&exec.script)),
            ("creates", exec.creates.as_ref()),
            ("unless", exec.unless.as_ref()),
            ("onlyIf", exec.only_if.as_ref()),
        ];
        for (field, template) in templates {
            if let Some(template) = template {
                self.template(&format!("{path}.exec.{field}"), template, scope);
            }
        }
        ActionKind::Exec {
            script: exec.script.clone(),
            creates: exec.creates.clone(),
            unless: exec.unless.clone(),
            only_if: exec.only_if.clone(),
        }
    }

    fn file(&mut self, path: &str, file: &FileFields, scope: &Scope) -> ActionKind {
        self.absolute(&format!("{path}.file.path"), &file.path, scope);
        self.template(&format!("{path}.file.content"), &file.content, scope);
        ActionKind::File {
            path: file.path.clone(),
            content: file.content.clone(),
            mode: file.mode.as_deref().map_or_else(|| DEFAULT_MODE.to_owned(), octal),
            owner: file.owner.clone(),
            group: file.group.clone(),
        }
    }

    fn directory(&mut self, path: &str, directory: &DirectoryFields, scope: &Scope) -> ActionKind {
        self.absolute(&format!("{path}.directory.path"), &directory.path, scope);
        ActionKind::Directory {
            path: directory.path.clone(),
            mode: directory.mode.as_deref().map(octal),
            owner: directory.owner.clone(),
            group: directory.group.clone(),
        }
    }

    fn symlink(&mut self, path: &str, symlink: &SymlinkFields, scope: &Scope) -> ActionKind {
        self.absolute(&format!("{path}.symlink.path"), &symlink.path, scope);
        self.template(&format!("{path}.symlink.target"), &symlink.target, scope);
        ActionKind::Symlink { path: symlink.path.clone(), target: symlink.target.clone() }
    }

    fn package(&mut self, path: &str, package: &PackageFields, scope: &Scope) -> ActionKind {
        for (place, name) in package.names.iter().enumerate() {
            self.template(&format!("{path}.package.names[{place}]"), name, scope);
        }
        ActionKind::Package { names: package.names.clone(), state: package.state, manager: String::new() }
    }

    fn service(&mut self, path: &str, service: &ServiceFields, scope: &Scope) -> ActionKind {
        self.template(&format!("{path}.service.name"), &service.name, scope);
        if service.state.is_none() && service.enabled.is_none() {
            self.add(format!("{path}.service"), "asks for nothing: set state, enabled or both");
        }
        let (state, enabled) = (service.state, service.enabled);
        ActionKind::Service { name: service.name.clone(), state, enabled, manager: String::new() }
    }

    fn absolute(&mut self, path: &str, template: &str, scope: &Scope) {
        self.template(path, template, scope);
        if !template.starts_with('/') && !template.starts_with("{{") {
            self.add(path, format!("{template:?} is not absolute; begin it with a slash"));
        }
    }

    /// Refuses names that nothing declares, before any session is opened.
    fn template(&mut self, path: &str, template: &str, scope: &Scope) {
        match render::names(template) {
            Err(message) => self.add(path, format!("the template cannot be read: {message}")),
            Ok(names) => {
                for name in names {
                    if let Some(message) = scope.refuse(&name) {
                        self.add(path, message);
                    }
                }
            }
        }
    }
}

/// What is declared and run by nothing: neither by converge nor by a process, and not of those that have their own moment.
fn idle(spec: &GroupSpecFields, phases: &Phases) -> Vec<PhaseName> {
    let of_a_process = |name: &String| spec.processes.values().flatten().any(|phase| phase == name);
    let own_moment = |name: &str| matches!(name, "bootstrap" | "settings" | "destroy-server" | "app-rollout");
    let names = spec.phases.keys().filter(|name| !own_moment(name) && !of_a_process(name));
    names
        .map(PhaseName::new)
        .filter(|phase| !phases.sequence.contains(phase) && *phase != PhaseName::configure())
        .filter(|phase| phases.actions.contains_key(phase) || *phase == PhaseName::test())
        .collect()
}

/// Octal digits without the zeros in front.
fn octal(mode: &str) -> String {
    let digits = mode.trim_start_matches('0');
    if digits.is_empty() { "0".into() } else { digits.to_owned() }
}
