//! Pure: wire to domain. All errors at once, each with the path of its field and a remedy.

use std::{collections::BTreeSet, str::FromStr, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{Cascade, Group, GroupKey, Head, Phases, PodShape, Retry, Settings};
use crate::{
    api::{self, GroupSpec, group_spec::*},
    facts::{self, Known},
    phase::{Action, ActionKind, DEFAULT_MODE, Digest, FactSource, PhaseName, Source, render},
};

/// Something in a spec that only the operator can see is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field, as in `spec.phases.configure.actions[0].exec.script`.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What is known of a GroupSpec whatever its spec says.
pub fn head(object: &GroupSpec) -> Head {
    let metadata = &object.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    let cascade = if finalizers.iter().any(|f| f == api::ORPHAN_FINALIZER) { Cascade::Orphan } else { Cascade::Nodes };
    Head {
        key: key(object),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        deletion: metadata.deletion_timestamp.as_ref().map(|_| cascade),
        finalized: finalizers.iter().any(|f| f == api::FINALIZER),
    }
}

/// Where a GroupSpec is.
pub fn key(object: &GroupSpec) -> GroupKey {
    GroupKey {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

/// Parses a GroupSpec.
///
/// # Errors
/// Everything that is wrong with it, in the order of the fields.
pub fn resolve(object: &GroupSpec) -> Result<Group, Vec<FieldError>> {
    let spec = &object.spec;
    let mut errors = Errors::default();
    let pod = errors.pod(spec.node.pod.as_ref());
    let phases = errors.phases(spec);
    let max_parallel =
        errors.share("spec.converge.rollout.maxParallel", &spec.converge.rollout.max_parallel, spec.count);
    let timeout = errors.duration("spec.converge.timeout", &spec.converge.timeout);
    let backoff = errors.duration("spec.converge.retry.backoff", &spec.converge.retry.backoff);
    match pod {
        Some(pod) if errors.0.is_empty() => Ok(Group {
            key: key(object),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            count: spec.count,
            paused: spec.paused,
            pod,
            phases,
            max_parallel,
            timeout,
            retry: Retry { limit: spec.converge.retry.limit, backoff },
            retry_token: annotation(object.metadata.annotations.as_ref(), api::RETRY_ANNOTATION),
        }),
        _ => Err(errors.0),
    }
}

/// An annotation's value, empty where it is not there.
pub fn annotation(annotations: Option<&std::collections::BTreeMap<String, String>>, name: &str) -> String {
    annotations.and_then(|a| a.get(name)).cloned().unwrap_or_default()
}

#[derive(Default)]
struct Errors(Vec<FieldError>);

impl Errors {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError { path: path.into(), message: message.into() });
    }

    fn duration(&mut self, path: &str, text: &str) -> Duration {
        match kube::core::Duration::from_str(text) {
            Ok(duration) => duration.into(),
            Err(error) => {
                self.add(path, format!("{text:?} is not a duration ({error}); write one such as 90s or 30m"));
                Duration::ZERO
            }
        }
    }

    fn share(&mut self, path: &str, value: &Value, of: u32) -> u32 {
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u32>().ok());
        match (number, percent) {
            (Some(number), _) if number >= 1 => number,
            (_, Some(percent @ 1..=100)) => (of * percent).div_ceil(100).max(1),
            _ => {
                self.add(path, format!("{value} is neither a number from 1 nor a share such as 25%"));
                1
            }
        }
    }

    fn pod(&mut self, fields: Option<&PodFields>) -> Option<PodShape> {
        const PATH: &str = "spec.node.pod.template";
        let Some(fields) = fields else {
            self.add("spec.node", "names no kind of node; set spec.node.pod");
            return None;
        };
        let template = &fields.template;
        let names: Vec<&str> = template["spec"]["containers"]
            .as_array()
            .map(|list| list.iter().filter_map(|c| c["name"].as_str()).collect())
            .unwrap_or_default();
        let Some(first) = names.first() else {
            self.add(format!("{PATH}.spec.containers"), "holds no container with a name; add one");
            return None;
        };
        let policy = &template["spec"]["restartPolicy"];
        if !policy.is_null() && policy != "Always" {
            self.add(format!("{PATH}.spec.restartPolicy"), "must be Always or left out: a node is meant to stay");
        }
        let annotated = template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
        let container = fields.container.as_deref().or(annotated).unwrap_or(first);
        if !names.contains(&container) {
            let path = if fields.container.is_some() { "spec.node.pod.container" } else { PATH };
            self.add(path, format!("there is no container {container:?}; the template has {}", names.join(", ")));
        }
        Some(PodShape {
            template: Arc::new(template.clone()),
            hash: Digest::of("template", &json!([template, container])).as_str().chars().take(10).collect(),
            container: container.to_owned(),
            readiness_gate: fields.readiness_gate,
        })
    }

    fn phases(&mut self, spec: &GroupSpecFields) -> Phases {
        let mut phases = Phases::default();
        if let Some(fields) = spec.phases.get("settings") {
            phases.settings = self.settings(fields);
        }
        for (name, fields) in &spec.phases {
            if name == "settings" {
                if !fields.actions.is_empty() {
                    self.add(
                        "spec.phases.settings.actions",
                        "settings changes nothing on the node; move them to configure",
                    );
                }
                continue;
            }
            let phase = PhaseName::new(name);
            if !matches!(name.as_str(), "bootstrap" | "configure") {
                self.add(
                    format!("spec.phases.{name}"),
                    "is not known to this version; it has bootstrap, settings and configure",
                );
            }
            if !fields.facts.is_empty() || !fields.values.is_empty() {
                self.add(
                    format!("spec.phases.{name}"),
                    "only settings holds values and facts; move them to spec.phases.settings",
                );
            }
            let scope = Scope { settings: &phases.settings, bootstrap: phase == PhaseName::bootstrap(), values: false };
            let actions = fields
                .actions
                .iter()
                .enumerate()
                .filter_map(|(place, action)| {
                    self.action(&format!("spec.phases.{name}.actions[{place}]"), place, action, &scope)
                })
                .collect::<Vec<_>>();
            self.unique_names(name, &actions);
            if !actions.is_empty() {
                phases.actions.insert(phase, Arc::new(actions));
            }
        }
        phases.sequence = [PhaseName::configure()].into_iter().filter(|p| phases.actions.contains_key(p)).collect();
        phases
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
            let scope = Scope { settings: &settings, bootstrap: false, values: true };
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
        let (kind, word) = match (&fields.exec, &fields.file) {
            (Some(exec), None) => {
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
                let kind = ActionKind::Exec {
                    script: exec.script.clone(),
                    creates: exec.creates.clone(),
                    unless: exec.unless.clone(),
                    only_if: exec.only_if.clone(),
                };
                (kind, "exec")
            }
            (None, Some(file)) => {
                self.template(&format!("{path}.file.path"), &file.path, scope);
                self.template(&format!("{path}.file.content"), &file.content, scope);
                if !file.path.starts_with('/') && !file.path.starts_with("{{") {
                    self.add(
                        format!("{path}.file.path"),
                        format!("{:?} is not absolute; begin it with a slash", file.path),
                    );
                }
                let mode = file.mode.as_deref().map(|mode| mode.trim_start_matches('0')).unwrap_or(DEFAULT_MODE);
                let kind = ActionKind::File {
                    path: file.path.clone(),
                    content: file.content.clone(),
                    mode: if mode.is_empty() { "0".into() } else { mode.to_owned() },
                    owner: file.owner.clone(),
                    group: file.group.clone(),
                };
                (kind, "file")
            }
            _ => {
                self.add(path, "an action has exactly one kind: set exec or file");
                return None;
            }
        };
        let name = fields.name.clone().unwrap_or_else(|| format!("{word}[{place}]"));
        Some(Action { name, kind })
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

/// What the templates of one place may name.
struct Scope<'a> {
    settings: &'a Settings,
    bootstrap: bool,
    values: bool,
}

impl Scope<'_> {
    /// Why this name may not be used, where it may not.
    fn refuse(&self, name: &str) -> Option<String> {
        let (root, rest) = name.split_once('.').unwrap_or((name, ""));
        let first = rest.split('.').next().unwrap_or_default();
        match root {
            "group" => unknown(name, rest, &["name", "namespace", "count"], "group"),
            "node" => unknown(name, rest, &["name", "ordinal", "address"], "node"),
            "facts" => self.refuse_fact(name, rest, first),
            "settings" if self.bootstrap => {
                Some(format!("{name}: bootstrap runs before settings; it may use built-in facts only"))
            }
            "settings" if self.values => Some(format!("{name}: a value of settings cannot use another one")),
            "settings" if rest.is_empty() || self.settings.values.contains_key(first) => None,
            "settings" => {
                let declared: Vec<_> = self.settings.values.keys().map(String::as_str).collect();
                Some(format!("{name} is not declared; spec.phases.settings.values has {}", list(&declared)))
            }
            "range" | "dict" | "namespace" | "debug" => None,
            _ => Some(format!("{name} is not known; templates see group, node, facts and settings")),
        }
    }

    fn refuse_fact(&self, name: &str, rest: &str, first: &str) -> Option<String> {
        match facts::known(rest) {
            _ if rest.is_empty() => Some("facts: name the facts that are used, as in facts.os.family".into()),
            Known::Stable => None,
            Known::Volatile => Some(format!(
                "{name} changes by itself, so the phase would run again for ever; read it in a script instead"
            )),
            Known::No if self.settings.facts.iter().any(|fact| fact.name == first) => self
                .bootstrap
                .then(|| format!("{name}: bootstrap runs before settings; it may use built-in facts only")),
            Known::No => {
                let own: Vec<_> = self.settings.facts.iter().map(|fact| fact.name.as_str()).collect();
                Some(format!(
                    "{name} is neither a built-in fact nor declared; spec.phases.settings.facts has {}",
                    list(&own)
                ))
            }
        }
    }
}

fn unknown(name: &str, rest: &str, fields: &[&str], root: &str) -> Option<String> {
    (!rest.is_empty() && !fields.contains(&rest)).then(|| format!("{name} is not known; {root} has {}", list(fields)))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(spec: Value) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"name": "web", "namespace": "shop", "uid": "u", "generation": 1}, "spec": spec
        }))
        .unwrap()
    }

    fn pod() -> Value {
        json!({"pod": {"template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}}}})
    }

    fn errors(spec: Value) -> Vec<String> {
        resolve(&group(spec)).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_small_group_gets_every_default() {
        let group = resolve(&group(json!({"node": pod()}))).unwrap();
        assert_eq!((group.count, group.max_parallel), (1, 1));
        assert_eq!(group.timeout, Duration::from_secs(1800));
        assert_eq!(group.pod.container, "a");
        assert!(group.phases.is_empty());
    }

    #[test]
    fn the_container_is_named_by_the_field_then_the_annotation_then_the_order() {
        let mut node = pod();
        node["pod"]["template"]["metadata"] = json!({"annotations": {"kubectl.kubernetes.io/default-container": "b"}});
        assert_eq!(resolve(&group(json!({"node": node}))).unwrap().pod.container, "b");
        node["pod"]["container"] = json!("a");
        assert_eq!(resolve(&group(json!({"node": node}))).unwrap().pod.container, "a");
        node["pod"]["container"] = json!("c");
        assert_eq!(
            errors(json!({"node": node})),
            ["spec.node.pod.container: there is no container \"c\"; the template has a, b"]
        );
    }

    #[test]
    fn a_share_is_rounded_up() {
        for (value, count, expected) in
            [(json!("50%"), 3, 2), (json!("1%"), 3, 1), (json!(7), 3, 7), (json!("25%"), 0, 1)]
        {
            let spec = json!({"count": count, "node": pod(), "converge": {"rollout": {"maxParallel": value}}});
            assert_eq!(resolve(&group(spec)).unwrap().max_parallel, expected);
        }
    }

    #[test]
    fn all_errors_come_at_once_with_their_paths() {
        let mut node = pod();
        node["pod"]["template"]["spec"]["restartPolicy"] = json!("Never");
        let found = errors(json!({
            "node": node,
            "phases": {
                "bootstrap": {"actions": [{"exec": {"script": "echo {{ settings.motd }} {{ facts.java }}"}}]},
                "settings": {
                    "values": {"motd": "{{ settings.other }}"},
                    "facts": [{"name": "java", "exec": "java -version"}, {"name": "hostname", "exec": "hostname"}]
                },
                "configure": {"actions": [
                    {"exec": {"script": "{{ settings.mtd }} {{ facts.jva }} {{ facts.disk.freePercent }} {{ nope }}"}},
                    {"file": {"path": "etc/motd", "content": "{{ group.size }}{{ unfinished"}},
                    {"name": "x", "exec": {"script": "a"}}, {"name": "x", "exec": {"script": "b"}},
                    {}
                ]}
            },
            "converge": {"timeout": "soon"}
        }));
        let expected = [
            "spec.node.pod.template.spec.restartPolicy: must be Always",
            "spec.phases.settings.facts[1].name: \"hostname\" is a built-in fact",
            "spec.phases.settings.values.motd: settings.other: a value of settings cannot use another one",
            "spec.phases.bootstrap.actions[0].exec.script: facts.java: bootstrap runs before settings",
            "spec.phases.bootstrap.actions[0].exec.script: settings.motd: bootstrap runs before settings",
            "spec.phases.configure.actions[0].exec.script: facts.disk.freePercent changes by itself",
            "spec.phases.configure.actions[0].exec.script: facts.jva is neither a built-in fact nor declared; spec.phases.settings.facts has java, hostname",
            "spec.phases.configure.actions[0].exec.script: nope is not known",
            "spec.phases.configure.actions[0].exec.script: settings.mtd is not declared; spec.phases.settings.values has motd",
            "spec.phases.configure.actions[1].file.content: the template cannot be read",
            "spec.phases.configure.actions[1].file.path: \"etc/motd\" is not absolute",
            "spec.phases.configure.actions[4]: an action has exactly one kind",
            "spec.phases.configure.actions[3].name: another action of this phase is named \"x\" too",
            "spec.converge.timeout: \"soon\" is not a duration",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\nshould begin with\n{expected}");
        }
    }

    #[test]
    fn the_template_hash_follows_the_template_alone() {
        let hash = |spec| resolve(&group(spec)).unwrap().pod.hash;
        let mut gated = pod();
        gated["pod"]["readinessGate"] = json!(false);
        assert_eq!(hash(json!({"node": pod()})), hash(json!({"node": gated, "count": 3})));
        let mut other = pod();
        other["pod"]["template"]["spec"]["containers"][0]["image"] = json!("y");
        assert_ne!(hash(json!({"node": pod()})), hash(json!({"node": other})));
    }
}
