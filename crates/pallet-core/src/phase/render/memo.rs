//! Pure: what came of filling phases in on the nodes of a group, so that an idle node costs a hash and no rendering.
//!
//! A memo belongs to one parsed group: when its spec or a ServerSpec that it uses changes, the group is parsed anew and the
//! memo goes with the old one. Of a rendering only the digest or the error is kept. What else a rendering sees is in the
//! key: the node's identity and facts, `count`, whether the node is the chosen one, and what stands in other objects. An
//! entry whose key has changed is replaced. A memo changes no result, only what it costs.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Fault, RenderError};
use crate::{
    group::inputs::Inputs,
    phase::{Action, Digest, PhaseName},
};
use pallet_api::conditions::clip;

/// How many keys of one node are kept: what is declared and what of it is approved may differ.
const KEYS: usize = 2;
/// How much of a message is kept.
const LONGEST: usize = 1024;

/// What is remembered of one group. Clones of the group share it; it says nothing of the group, so all are equal.
#[derive(Debug, Default)]
pub struct Memo {
    known: Mutex<Known>,
    rendered: AtomicU64,
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug, Default)]
struct Known {
    /// What stands in other objects, as it was seen last, and its hash. It is held, so that no other may be where it is.
    inputs: Option<(Arc<Inputs>, [u8; 32])>,
    /// By the ordinal of the node, the latest first.
    nodes: HashMap<u32, Vec<Entry>>,
}

/// What a node sees, as a hash over all of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Key([u8; 32]);

#[derive(Debug)]
struct Entry {
    key: Key,
    values: Option<Result<(), RenderError>>,
    phases: Vec<Phase>,
}

/// What came of one phase. Its actions are held, so that no others may be where they are.
#[derive(Debug)]
struct Phase {
    name: PhaseName,
    actions: Arc<Vec<Action>>,
    digest: Result<Digest, RenderError>,
}

impl Memo {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// How many phases were rendered since the group was parsed.
    pub fn rendered(&self) -> u64 {
        self.rendered.load(Ordering::Relaxed)
    }

    /// Forgets the nodes that are gone.
    pub fn keep(&self, is_there: impl Fn(u32) -> bool) {
        self.known().nodes.retain(|ordinal, _| is_there(*ordinal));
    }

    /// The hash over what stands in other objects. It is computed once for each version of them.
    pub fn inputs(&self, inputs: &Arc<Inputs>) -> [u8; 32] {
        if let Some((known, hash)) = &self.known().inputs
            && Arc::ptr_eq(known, inputs)
        {
            return *hash;
        }
        let mut hash = Hash::default();
        // As JSON: for templates 1 and 1.0 are two things, though they are equal.
        hash.bytes(&serde_json::to_vec(&inputs.nodes).unwrap_or_default());
        for (at, text) in &inputs.texts {
            hash.text(&at.to_string());
            hash.text(text);
        }
        hash.text("seals");
        for (at, seal) in &inputs.seals {
            hash.text(&at.to_string());
            hash.text(seal);
        }
        hash.text("login key");
        hash.text(inputs.login_key.as_deref().unwrap_or_default());
        let hash = hash.end().0;
        self.known().inputs = Some((inputs.clone(), hash));
        hash
    }

    /// Whether the values of settings can be filled in on a node. `fill` says so where it is not known.
    ///
    /// # Errors
    /// What `fill` said; the message may be shortened.
    pub fn values(
        &self,
        node: u32,
        key: Key,
        fill: impl FnOnce() -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        if let Some(known) = self.known().entry(node, key).and_then(|entry| entry.values.clone()) {
            return known;
        }
        let values = fill().map_err(shortened);
        self.known().entry_or_new(node, key).values = Some(values.clone());
        values
    }

    /// The digest of a phase on a node. `render` says it where it is not known.
    ///
    /// # Errors
    /// What `render` said; the message may be shortened.
    pub fn phase(
        &self,
        node: u32,
        key: Key,
        phase: &PhaseName,
        actions: &Arc<Vec<Action>>,
        render: impl FnOnce() -> Result<Digest, RenderError>,
    ) -> Result<Digest, RenderError> {
        let same = |known: &&Phase| known.name == *phase && Arc::ptr_eq(&known.actions, actions);
        let find = |entry: &Entry| entry.phases.iter().find(same).map(|known| known.digest.clone());
        if let Some(known) = self.known().entry(node, key).and_then(find) {
            return known;
        }
        self.rendered.fetch_add(1, Ordering::Relaxed);
        let digest = render().map_err(shortened);
        let mut known = self.known();
        let phases = &mut known.entry_or_new(node, key).phases;
        phases.retain(|known| known.name != *phase);
        phases.push(Phase { name: phase.clone(), actions: actions.clone(), digest: digest.clone() });
        digest
    }
}

impl Known {
    fn entry(&self, node: u32, key: Key) -> Option<&Entry> {
        self.nodes.get(&node)?.iter().find(|entry| entry.key == key)
    }

    fn entry_or_new(&mut self, node: u32, key: Key) -> &mut Entry {
        let entries = self.nodes.entry(node).or_default();
        match entries.iter().position(|entry| entry.key == key) {
            Some(place) => &mut entries[place],
            None => {
                entries.insert(0, Entry { key, values: None, phases: Vec::new() });
                entries.truncate(KEYS);
                &mut entries[0]
            }
        }
    }
}

fn shortened(error: RenderError) -> RenderError {
    let fault = match error.fault {
        Fault::Wrong(message) => Fault::Wrong(clip(&message, LONGEST)),
        Fault::Waits(message) => Fault::Waits(clip(&message, LONGEST)),
        Fault::TooMuchWork(message) => Fault::TooMuchWork(clip(&message, LONGEST)),
    };
    RenderError { action: error.action, fault }
}

/// Hashes what a rendering sees. Texts are led by their length and values by their kind, so that no two inputs look alike.
#[derive(Default)]
pub struct Hash(Sha256);

impl Hash {
    /// Takes bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Takes a text in.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Takes a number in.
    pub fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    /// Takes a value in.
    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.update(b"0"),
            Value::Bool(yes) => self.0.update([b'b', u8::from(*yes)]),
            Value::Number(number) => {
                self.0.update(b"n");
                self.text(&number.to_string());
            }
            Value::String(text) => {
                self.0.update(b"s");
                self.text(text);
            }
            Value::Array(items) => {
                self.0.update(b"a");
                self.number(items.len() as u64);
                items.iter().for_each(|item| self.value(item));
            }
            Value::Object(map) => {
                self.0.update(b"o");
                self.values(map.iter());
            }
        }
    }

    /// Takes values in by their names.
    pub fn values<'a>(&mut self, values: impl ExactSizeIterator<Item = (&'a String, &'a Value)>) {
        self.number(values.len() as u64);
        for (name, value) in values {
            self.text(name);
            self.value(value);
        }
    }

    /// What came of it.
    pub fn end(self) -> Key {
        Key(self.0.finalize().into())
    }
}

impl Key {
    /// The hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(value: &Value) -> Key {
        let mut hash = Hash::default();
        hash.value(value);
        hash.end()
    }

    #[test]
    fn whatever_a_template_can_tell_apart_has_another_key() {
        let values = [
            json!(1),
            json!(1.0),
            json!("1"),
            json!(true),
            json!(null),
            json!([]),
            json!({}),
            json!([1]),
            json!(["ab", "c"]),
            json!(["a", "bc"]),
            json!([["a"], "b"]),
            json!([["a", "b"]]),
            json!({"a": 1}),
            json!({"a": {"b": 1}}),
            json!(-1),
            json!(u64::MAX),
            json!(""),
            json!(0),
            json!(0.0),
            json!(-0.0),
        ];
        for (place, one) in values.iter().enumerate() {
            assert!(values[place + 1..].iter().all(|other| key(other) != key(one)), "{one}");
        }
        let inputs = |nodes: Value| {
            Memo::default().inputs(&Arc::new(Inputs {
                nodes: minijinja::Value::from(minijinja::value::Serde(&nodes)),
                ..Inputs::default()
            }))
        };
        assert_ne!(inputs(json!([{"n": 1}])), inputs(json!([{"n": 1.0}])));
        assert_eq!(inputs(json!([{"n": 1}])), inputs(json!([{"n": 1}])));
    }

    #[test]
    fn entries_are_replaced_and_go_with_their_nodes() {
        let (memo, phase, actions) = (Memo::default(), PhaseName::configure(), Arc::default());
        let digest = |n: usize| memo.phase(0, key(&json!(n)), &phase, &actions, || Ok(Digest::stored(&n.to_string())));
        for n in [1, 2, 1, 2] {
            assert_eq!(digest(n).unwrap().as_str(), n.to_string());
        }
        assert_eq!(memo.rendered(), 2);
        (3..100).for_each(|n| drop(digest(n)));
        assert_eq!(memo.known().nodes[&0].len(), KEYS);
        assert!(digest(1).is_ok() && memo.rendered() == 100, "it was replaced");
        memo.keep(|ordinal| ordinal > 0);
        assert!(memo.known().nodes.is_empty());
    }

    #[test]
    fn an_error_is_remembered_and_takes_little_room() {
        let memo = Memo::default();
        let long = || RenderError { action: "a".into(), fault: "x".repeat(1 << 20).into() };
        let actions = Arc::default();
        for _ in 0..3 {
            let error = memo.phase(0, key(&json!(1)), &PhaseName::configure(), &actions, || Err(long())).unwrap_err();
            assert!(error.to_string().len() < 2 * LONGEST);
        }
        assert_eq!(memo.rendered(), 1);
    }
}
