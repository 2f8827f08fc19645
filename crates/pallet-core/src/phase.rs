//! Pure: phases, actions, and what identifies a run of them.

pub mod action;
pub mod budget;
pub mod compile;
pub mod expect;
pub mod render;
pub mod secret;

use std::fmt;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use action::{Action, ActionKind};
use pallet_api::phases::FactParser;

/// The name of a phase.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PhaseName(String);

impl PhaseName {
    /// A phase by this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
    /// The first phase of a new node.
    pub fn bootstrap() -> Self {
        Self("bootstrap".into())
    }
    /// Facts and values; before every phase but bootstrap.
    pub fn settings() -> Self {
        Self("settings".into())
    }
    /// Brings nodes to a similar starting position.
    pub fn init() -> Self {
        Self("init".into())
    }
    /// Brings software to a node, once in its life.
    pub fn install() -> Self {
        Self("install".into())
    }
    /// The phase that converge always runs.
    pub fn configure() -> Self {
        Self("configure".into())
    }
    /// Compares facts with expectations.
    pub fn test() -> Self {
        Self("test".into())
    }
    /// Before a node is removed.
    pub fn destroy_server() -> Self {
        Self("destroy-server".into())
    }
    /// On demand.
    pub fn app_rollout() -> Self {
        Self("app-rollout".into())
    }
    /// What converge does for app-rollout beforehand.
    pub fn prepare() -> Self {
        Self("app-rollout-prepare".into())
    }
    /// The phase that a Lift declares itself.
    pub fn inline() -> Self {
        Self("inline".into())
    }
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// When converge runs this phase again on a node where it has succeeded.
    pub fn rerun(&self) -> Rerun {
        match self.as_str() {
            "bootstrap" | "install" => Rerun::PerIncarnation,
            _ => Rerun::PerDigest,
        }
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a phase that has succeeded runs again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rerun {
    /// On a new incarnation only, whatever its digest.
    PerIncarnation,
    /// Whenever its digest changed.
    PerDigest,
}

/// One fact of a group's own.
#[derive(Clone, Debug, PartialEq)]
pub struct FactSource {
    /// `facts.NAME`.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// What is made of it.
    pub parse: FactParser,
    /// Whether a failure makes it null.
    pub optional: bool,
}

impl FactSource {
    /// What counts for the digest of settings.
    pub fn model(&self) -> Value {
        let (kind, source) = match &self.source {
            Source::Exec(script) => ("exec", script),
            Source::File(path) => ("file", path),
        };
        match self.parse {
            FactParser::Text => json!([self.name, kind, source, self.optional]),
            parse => json!([self.name, kind, source, self.optional, parse]),
        }
    }
}

/// Where a fact comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// What a script prints.
    Exec(String),
    /// What a file holds.
    File(String),
}

/// A hash over a canonical model, in hex. The empty one stands for nothing.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(String);

/// The version of the canonical model. It is a part of every digest: raise it only when what runs on a node changes in
/// meaning, since every phase then runs again everywhere.
const MODEL: &str = "v1";

impl Digest {
    /// The digest of a model. Keys are sorted and nothing is left to a serializer's taste.
    pub fn of(kind: &str, model: &Value) -> Self {
        let mut text = format!("{MODEL} {kind} ");
        canonical(model, &mut text);
        Self(hex(&Sha256::digest(text.as_bytes())[..16]))
    }
    /// A digest as it was stored.
    pub fn stored(text: &str) -> Self {
        Self(text.to_owned())
    }
    /// In hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// The name of a run in a node's journal.
///
/// It follows from what is durable, so an operator that starts anew asks for the very run that its predecessor started.
/// `previous` is the run of the phase result that this one will replace: going back to an earlier digest is a new run.
pub fn run_id(filesystem_id: &str, phase: &PhaseName, digest: &Digest, attempt: u32, previous: &str) -> String {
    let text = format!("{filesystem_id} {phase} {digest} {attempt} {previous}");
    format!("{phase}-{}", hex(&Sha256::digest(text.as_bytes())[..10]))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_keys_and_tells_kinds_apart() {
        let a = Digest::of("phase", &json!({"a": 1, "b": [true, null, "x"]}));
        let b = Digest::of("phase", &json!({"b": [true, null, "x"], "a": 1}));
        assert_eq!(a, b);
        assert_ne!(a, Digest::of("settings", &json!({"a": 1, "b": [true, null, "x"]})));
        assert_ne!(Digest::of("p", &json!(["ab"])), Digest::of("p", &json!(["a", "b"])));
    }

    /// A changed digest reruns every phase on every node of every user: it must not change by accident.
    #[test]
    fn the_digest_of_a_known_model_stays() {
        assert_eq!(Digest::of("phase", &json!({"actions": []})).as_str(), "f4b43a7d8b72be47a9920a71c1e3493b");
    }

    #[test]
    fn going_back_to_an_earlier_digest_is_a_new_run() {
        let (phase, a, b) = (PhaseName::configure(), Digest::stored("a"), Digest::stored("b"));
        let first = run_id("w", &phase, &a, 1, "");
        let second = run_id("w", &phase, &b, 1, &first);
        assert_ne!(first, run_id("w", &phase, &a, 1, &second));
    }
}
