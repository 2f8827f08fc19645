//! Pure: which names the templates and expressions of one place may use.

use crate::{
    facts::{self, Known},
    group::Settings,
};

/// What the templates of one place may name.
pub(super) struct Scope<'a> {
    pub(super) settings: &'a Settings,
    pub(super) place: Place,
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
    /// In an expectation, which may look at what changes by itself.
    Expectation,
}

impl Scope<'_> {
    /// Why this name may not be used, where it may not.
    pub(super) fn refuse(&self, name: &str) -> Option<String> {
        let (root, rest) = name.split_once('.').unwrap_or((name, ""));
        let first = rest.split('.').next().unwrap_or_default();
        match root {
            "group" => unknown(name, rest, &["name", "namespace", "count"], "group"),
            "node" => unknown(name, rest, &["name", "ordinal", "address"], "node"),
            "facts" => self.refuse_fact(name, rest, first),
            "settings" if self.place == Place::Bootstrap => {
                Some(format!("{name}: bootstrap runs before settings; it may use built-in facts only"))
            }
            "settings" if self.place == Place::Values => {
                Some(format!("{name}: a value of settings cannot use another one"))
            }
            "settings" if rest.is_empty() || self.settings.values.contains_key(first) => None,
            "settings" => {
                let declared: Vec<_> = self.settings.values.keys().map(String::as_str).collect();
                Some(format!("{name} is not declared; spec.phases.settings.values has {}", list(&declared)))
            }
            "range" | "dict" | "debug" if self.place != Place::Expectation => None,
            _ => Some(format!("{name} is not known; templates see group, node, facts and settings")),
        }
    }

    fn refuse_fact(&self, name: &str, rest: &str, first: &str) -> Option<String> {
        match facts::known(rest) {
            _ if rest.is_empty() => Some("facts: name the facts that are used, as in facts.os.family".into()),
            Known::Stable => None,
            Known::Volatile if self.place == Place::Expectation => None,
            Known::Volatile => Some(format!(
                "{name} changes by itself, so the phase would run again for ever; read it in a script, or expect something of it in test"
            )),
            Known::No if self.settings.facts.iter().any(|fact| fact.name == first) => (self.place == Place::Bootstrap)
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

pub(super) fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
