//! Pure: which names the templates and expressions of one place may use.

use serde_json::Value;

use crate::{
    facts::{self, Known},
    group::Settings,
    phase::expect::types::{self, Type},
};
use pallet_api::phases::FactParser;

/// What the templates of one place may name.
pub(super) struct Scope<'a> {
    pub(super) settings: &'a Settings,
    pub(super) place: Place,
    /// What stands under `params`.
    pub(super) params: &'a Value,
    /// Whether it is the group's own, and sees the parameters by ServerSpec.
    pub(super) of_group: bool,
}

/// Where a name is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// In bootstrap, before settings.
    Bootstrap,
    /// In a value of settings.
    Values,
    /// In an action of any other phase.
    Action,
    /// In an expectation or a condition, which may look at what changes by itself.
    Expectation,
    /// In a condition of bootstrap.
    BootstrapCondition,
}

impl<'a> Scope<'a> {
    /// The same place, for the condition of an action.
    pub(super) fn for_conditions(&self) -> Scope<'a> {
        let place = match self.place {
            Place::Bootstrap => Place::BootstrapCondition,
            _ => Place::Expectation,
        };
        Scope { place, ..*self }
    }

    fn in_bootstrap(&self) -> bool {
        matches!(self.place, Place::Bootstrap | Place::BootstrapCondition)
    }

    fn is_condition(&self) -> bool {
        matches!(self.place, Place::Expectation | Place::BootstrapCondition)
    }

    /// Why this name may not be used, where it may not.
    pub(super) fn refuse(&self, name: &str) -> Option<String> {
        let (root, rest) = name.split_once('.').unwrap_or((name, ""));
        let first = rest.split('.').next().unwrap_or_default();
        match root {
            "group" => unknown(name, rest, &["name", "namespace", "count"], "group"),
            "node" if ["labels", "params"].contains(&first) => None,
            "node" => unknown(name, rest, &["name", "ordinal", "address", "host", "labels", "params"], "node"),
            "facts" => self.refuse_fact(name, rest, first),
            "settings" if self.in_bootstrap() => {
                Some(format!("{name}: bootstrap runs before settings; it may use built-in facts only"))
            }
            "settings" if self.place == Place::Values => {
                Some(format!("{name}: a value of settings cannot use another one"))
            }
            "settings" if rest.is_empty() || self.settings.values.contains_key(first) => None,
            "settings" => {
                let declared: Vec<_> = self.settings.values.keys().map(String::as_str).collect();
                let hint = yaml_hint(first, &declared);
                Some(format!("{name} is not declared; spec.phases.settings.values has {}{hint}", list(&declared)))
            }
            "params" => self.refuse_param(name, rest),
            "nodes" if self.in_bootstrap() => {
                Some(format!("{name}: bootstrap runs before settings; it may use built-in facts only"))
            }
            "nodes" if self.is_condition() => {
                Some(format!("{name}: conditions and expectations see this node only; use a template"))
            }
            "nodes" => rest.is_empty().then(|| "nodes: name the role whose nodes are meant, as in nodes.db".to_owned()),
            "range" | "dict" | "debug" if !self.is_condition() => None,
            _ => Some(format!("{name} is not known; templates see group, node, facts, settings, params and nodes")),
        }
    }

    /// What an expression may take a path for, before anything runs.
    pub(super) fn type_of(&self, path: &str) -> Type {
        let (root, rest) = path.split_once('.').unwrap_or((path, ""));
        match (root, rest) {
            ("facts" | "settings" | "params" | "node" | "group", "") => Type::Map,
            ("node", "name" | "address" | "host") | ("group", "name" | "namespace") => Type::String,
            ("node", "ordinal") | ("group", "count") => Type::Number,
            ("node", "labels" | "params") => Type::Map,
            ("facts", fact) => facts::type_of(fact).unwrap_or_else(|| self.type_of_fact(fact)),
            ("settings", name) => self.settings.values.get(name).map_or(Type::Any, |setting| of_json(&setting.value)),
            ("params", names) => {
                let value = names.split('.').try_fold(self.params, |at, name| at.get(name));
                value.map_or(Type::Any, of_json)
            }
            _ => Type::Any,
        }
    }

    fn type_of_fact(&self, name: &str) -> Type {
        match self.settings.facts.iter().find(|fact| fact.name == name).map(|fact| fact.parse) {
            Some(FactParser::Text) => Type::String,
            Some(FactParser::Lines) => Type::List,
            Some(FactParser::Integer) => Type::Number,
            Some(FactParser::ExitCode) => Type::Bool,
            Some(FactParser::Json) | None => Type::Any,
        }
    }

    fn refuse_param(&self, name: &str, rest: &str) -> Option<String> {
        let depth = if self.of_group { 2 } else { 1 };
        let mut at = self.params;
        for part in rest.split('.').filter(|part| !part.is_empty()).take(depth) {
            match at.get(part) {
                Some(found) => at = found,
                None => {
                    let known: Vec<&str> =
                        at.as_object().into_iter().flat_map(|map| map.keys()).map(String::as_str).collect();
                    return Some(format!("{name} is not declared; there are {}", list(&known)));
                }
            }
        }
        None
    }

    fn refuse_fact(&self, name: &str, rest: &str, first: &str) -> Option<String> {
        match facts::known(rest) {
            _ if rest.is_empty() => Some("facts: name the facts that are used, as in facts.os.family".into()),
            Known::Stable => None,
            Known::Volatile if self.is_condition() => None,
            Known::Volatile => Some(format!(
                "{name} changes by itself, so the phase would run again for ever; read it in a script, or expect something of it in test"
            )),
            Known::No if self.settings.facts.iter().any(|fact| fact.name == first) => self
                .in_bootstrap()
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

/// The type of a declared value. A text with a template comes to what that comes to.
fn of_json(value: &Value) -> Type {
    match value {
        Value::String(text) if text.contains("{{") || text.contains("{%") => Type::Any,
        value => types::of_json(value),
    }
}

fn unknown(name: &str, rest: &str, fields: &[&str], root: &str) -> Option<String> {
    (!rest.is_empty() && !fields.contains(&rest)).then(|| format!("{name} is not known; {root} has {}", list(fields)))
}

/// That YAML 1.1 made another name of the one that is meant, where it did.
fn yaml_hint(name: &str, declared: &[&str]) -> String {
    let read = match name.to_lowercase().as_str() {
        "y" | "yes" | "on" => "true",
        "n" | "no" | "off" => "false",
        _ => return String::new(),
    };
    match declared.contains(&read) {
        true => {
            format!("; kubectl reads the name {name} as {read}, as YAML 1.1 does: write it in quotes, \"{name}\": …")
        }
        false => String::new(),
    }
}

pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_yaml_read_as_true_or_false_is_told() {
        let setting = || crate::group::Setting { origin: None, value: json!(1) };
        let values = [("false".to_owned(), setting()), ("port".to_owned(), setting())];
        let settings = Settings { values: values.into(), ..Settings::default() };
        let scope = Scope { settings: &settings, place: Place::Action, params: &json!({}), of_group: true };
        let message = scope.refuse("settings.off").unwrap();
        assert!(message.contains("reads the name off as false") && message.contains("\"off\""), "{message}");
        assert!(!scope.refuse("settings.on").unwrap().contains("YAML"));
        assert!(!scope.refuse("settings.prot").unwrap().contains("YAML"));
        assert_eq!(scope.refuse("settings.port"), None);
    }
}
