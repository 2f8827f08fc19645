//! Pure: wire to domain. All errors at once, each with the path of its field and a remedy.

mod actions;
mod layers;
mod lifted;
mod nodes;
mod phases;
mod scope;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use layers::{ServerSpecs, roles, uses};
pub use lifted::lifted;
pub use nodes::inventory;
pub use phases::MOST_ACTIONS;

use super::{Cascade, DriftCheck, Group, GroupKey, Head, NodeShape, Retry, Rollout, revision};
use crate::{
    phase::{
        ActionKind, Digest,
        action::KeyRef,
        budget::{Budget, REASON},
        hex,
    },
    text,
};
use pallet_api::reason::Reason;
use pallet_api::{
    self as api, GroupSpec,
    conditions::clip,
    converge::{DriftPolicy, OnFailure, RolloutFields},
    group_spec::Approval,
    lift::LiftFields,
    nodes::NodeFields,
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

impl FieldError {
    /// The reason of a condition that reports these errors: `TooMuchWork` where one of them was cut, else `otherwise`.
    pub fn reason(errors: &[FieldError], otherwise: Reason) -> Reason {
        let is_cut =
            |error: &FieldError| error.message.strip_prefix(REASON.as_str()).is_some_and(|rest| rest.starts_with(':'));
        if errors.iter().any(is_cut) { REASON } else { otherwise }
    }
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
        count: object.count(),
        declares_count: object.spec.count.is_some(),
        has_farewell: object.spec.phases.get("destroy-server").is_some_and(|phase| !phase.actions.is_empty()),
        approve: annotation(metadata.annotations.as_ref(), api::APPROVE_ANNOTATION),
    }
}

/// Where a GroupSpec is.
pub fn key(object: &GroupSpec) -> GroupKey {
    GroupKey {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
    }
}

/// Parses a GroupSpec, with the ServerSpecs of its namespace.
///
/// # Errors
/// Everything that is wrong with it, in the order of the fields.
pub fn resolve(object: &GroupSpec, specs: &ServerSpecs) -> Result<Group, Vec<FieldError>> {
    Errors::default().group(object, specs, None)
}

/// What a node is, as it is declared. Nothing where it cannot be read.
pub fn shape(fields: &NodeFields) -> Option<NodeShape> {
    let mut errors = Errors::default();
    errors.node(fields).filter(|_| errors.found.is_empty())
}

impl Errors {
    fn group(
        mut self,
        object: &GroupSpec,
        specs: &ServerSpecs,
        lift: Option<&LiftFields>,
    ) -> Result<Group, Vec<FieldError>> {
        let errors = &mut self;
        let spec = &object.spec;
        let node = errors.node(&spec.node);
        let overrides = lift.and_then(|lift| lift.with.clone()).unwrap_or_default();
        let layers = errors.layers(spec, specs, &overrides);
        let phases = match lift {
            None => errors.phases(spec, &layers),
            Some(lift) => errors.lifted_phases(spec, specs, &layers, lift),
        };
        let count = object.count();
        let rollout = errors.rollout(&spec.converge.rollout, count);
        if rollout.max_surge > 0 && node.as_ref().is_some_and(|node| !node.claims().is_empty()) {
            let message =
                "nodes with claims are replaced in their places, or their data would stay behind; set it to 0";
            errors.add("spec.converge.rollout.maxSurge", message);
        }
        let timeout = errors.duration("spec.converge.timeout", &spec.converge.timeout);
        let destroy_timeout = errors.duration("spec.converge.destroyTimeout", &spec.converge.destroy_timeout);
        let backoff = errors.duration("spec.converge.retry.backoff", &spec.converge.retry.backoff);
        let drift_check = spec.converge.drift_check.as_ref().map(|check| DriftCheck {
            interval: errors.duration("spec.converge.driftCheck.interval", &check.interval),
            reapply: check.policy == DriftPolicy::Reapply,
        });
        match node {
            Some(node) if errors.found.is_empty() => Ok(Group {
                declared: match lift {
                    None => revision::digest(&revision::declaration(object, specs), node.hash()),
                    Some(_) => Digest::default(),
                },
                key: key(object),
                uid: object.metadata.uid.clone().unwrap_or_default(),
                generation: object.metadata.generation.unwrap_or_default(),
                count,
                paused: spec.paused,
                node,
                phases,
                rollout,
                timeout,
                destroy_timeout,
                retry: Retry { limit: spec.converge.retry.limit, backoff },
                retry_token: bounded(
                    &annotation(object.metadata.annotations.as_ref(), api::RETRY_ANNOTATION),
                    TOKEN_LIMIT,
                ),
                chosen: None,
                inputs: Arc::default(),
                drift_check,
                needs_approval: spec.approval == Approval::Manual,
                unapproved: BTreeSet::new(),
                memo: Arc::default(),
            }),
            _ => Err(std::mem::take(&mut errors.found)),
        }
    }
}

/// What parsing says.
pub type Resolved = Result<Arc<Group>, Vec<FieldError>>;

/// A GroupSpec as it was parsed last: nothing is parsed again before it or a ServerSpec that it uses changes.
#[derive(Debug, Default)]
pub struct Memo {
    last: Option<(Source, Resolved)>,
    /// The last that could be read.
    good: Option<Arc<Group>>,
}

/// What a group was parsed from: its UID, generation and retry token, and the versions of the ServerSpecs.
#[derive(Debug, PartialEq)]
pub struct Source {
    group: (Option<String>, Option<i64>, String),
    specs: Vec<(String, Option<SpecVersion>)>,
}

/// UID and generation.
type SpecVersion = (Option<String>, Option<i64>);

impl Source {
    /// What a group would be parsed from now.
    pub fn of(object: &GroupSpec, specs: &ServerSpecs) -> Self {
        let metadata = &object.metadata;
        let token = annotation(metadata.annotations.as_ref(), api::RETRY_ANNOTATION);
        let version = |name: &String| specs.get(name).map(|spec| (spec.metadata.uid.clone(), spec.metadata.generation));
        let specs = uses(&object.spec, specs).into_iter().map(|name| (name.clone(), version(&name))).collect();
        Self { group: (metadata.uid.clone(), metadata.generation, token), specs }
    }

    /// Whether it is an earlier state of the same object.
    fn is_older_than(&self, other: &Self) -> bool {
        self.group.0 == other.group.0 && self.group.1 < other.group.1
    }
}

impl Memo {
    /// The names of the ServerSpecs that the group was parsed with, those that were not there included.
    pub fn uses(&self) -> impl Iterator<Item = &str> {
        self.last.iter().flat_map(|(source, _)| &source.specs).map(|(name, _)| name.as_str())
    }

    /// Whether a group was parsed.
    pub fn is_set(&self) -> bool {
        self.last.is_some()
    }

    /// The group as it was parsed last, where it could be.
    pub fn last(&self) -> Option<&Group> {
        self.last.as_ref().and_then(|(_, resolved)| resolved.as_deref().ok())
    }

    /// The group as it could be read last, for its removal: what it extends is often deleted together with it.
    pub fn good(&self, object: &GroupSpec) -> Option<&Arc<Group>> {
        self.good.as_ref().filter(|group| Some(&group.uid) == object.metadata.uid.as_ref())
    }

    /// The object with a count, where it has none and one is known from before: a status that was still to be written when the
    /// count went missing is older than what was parsed.
    pub fn counted<'a>(known: Option<&Group>, object: &'a GroupSpec) -> Cow<'a, GroupSpec> {
        match known.filter(|_| object.spec.count.is_none()) {
            None => Cow::Borrowed(object),
            Some(known) => {
                let mut object = object.clone();
                object.spec.count = Some(known.count);
                Cow::Owned(object)
            }
        }
    }

    /// What parsing said of just this.
    pub fn known(&self, source: &Source) -> Option<Resolved> {
        self.last.as_ref().filter(|(known, _)| known == source).map(|(_, resolved)| resolved.clone())
    }

    /// Keeps what parsing said, unless a later state of the object was parsed meanwhile.
    pub fn keep(&mut self, source: Source, resolved: Resolved) {
        if self.last.as_ref().is_some_and(|(known, _)| source.is_older_than(known)) {
            return;
        }
        if let Ok(group) = &resolved {
            self.good = Some(group.clone());
        }
        self.last = Some((source, resolved));
    }

    /// What [`resolve`] says.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve(&mut self, object: &GroupSpec, specs: &ServerSpecs) -> Result<Group, Vec<FieldError>> {
        self.parse(object, specs, resolve)
    }

    /// What [`lifted`] says, for one Lift.
    ///
    /// # Errors
    /// As [`lifted`].
    pub fn lifted(
        &mut self,
        object: &GroupSpec,
        specs: &ServerSpecs,
        lift: &LiftFields,
    ) -> Result<Group, Vec<FieldError>> {
        self.parse(object, specs, |object, specs| lifted(object, specs, lift))
    }

    fn parse(
        &mut self,
        object: &GroupSpec,
        specs: &ServerSpecs,
        parse: impl FnOnce(&GroupSpec, &ServerSpecs) -> Result<Group, Vec<FieldError>>,
    ) -> Result<Group, Vec<FieldError>> {
        let object = &*Self::counted(self.good(object).map(Arc::as_ref), object);
        let source = Source::of(object, specs);
        let resolved = self.known(&source).unwrap_or_else(|| {
            let resolved = parse(object, specs).map(Arc::new);
            self.keep(source, resolved.clone());
            resolved
        });
        resolved.map(|group| (*group).clone())
    }
}

/// An annotation's value, empty where it is not there.
pub fn annotation(annotations: Option<&BTreeMap<String, String>>, name: &str) -> String {
    let value = annotations.and_then(|a| a.get(name)).map_or("", String::as_str);
    bounded(value, ANNOTATION_LIMIT)
}

/// The longest value of an annotation that is kept as it is, in bytes. What the values are compared with is shorter.
const ANNOTATION_LIMIT: usize = 256;

/// The longest token that is stored in each phase result, in bytes.
pub const TOKEN_LIMIT: usize = 64;

/// A text of at most `limit` bytes, at least 64, that differs where the text does: the text itself, or its hash where it is longer
/// or holds control characters. An annotation may have 256 KiB, and is copied into statuses.
pub fn bounded(text: &str, limit: usize) -> String {
    if text.len() <= limit && text::printable(text) == text { text.to_owned() } else { hex(&Sha256::digest(text)) }
}

/// Keys of Secrets or ConfigMaps, with the path of the first field that names each.
type References = BTreeMap<KeyRef, String>;

/// Whether an object may have this name: it is put into URLs, where other characters would mean another request.
pub fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(sound) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Whether a Secret or ConfigMap may have this key.
pub fn is_key(key: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    (1..=253).contains(&key.len()) && key.chars().all(sound) && key != "." && key != ".."
}

#[derive(Default)]
struct Errors {
    found: Vec<FieldError>,
    /// What templates and conditions of the spec may still take.
    budget: Budget,
    /// The roles that templates name.
    roles: BTreeSet<String>,
    /// The Secrets and ConfigMaps that actions name, with the path of the first that does.
    secrets: References,
    config_maps: References,
    /// The fields that are templates.
    templates: BTreeSet<String>,
    /// Actions that write a file which their name stands for, and that name.
    files: Vec<(String, ActionKind, String)>,
}

/// Which way half a node goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Round {
    /// To the next node.
    Up,
    /// It does not count.
    Down,
}

/// A number of nodes, or a share of them such as 25%. Nothing where it is neither.
pub fn share(value: &Value, of: u32, round: Round) -> Option<u32> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u32>().ok());
    match (number, percent) {
        (Some(number), _) => Some(number),
        (_, Some(percent @ 0..=100)) => Some(match round {
            Round::Up => (of * percent).div_ceil(100),
            Round::Down => of * percent / 100,
        }),
        _ => None,
    }
}

impl Errors {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.found.push(FieldError { path: path.into(), message: message.into() });
    }

    /// Refuses what no Secret or ConfigMap can be named, or no key of one. `path` is where it is named.
    fn reference(&mut self, path: &str, at: &KeyRef) {
        if !is_object_name(&at.name) {
            let message = format!(
                "{:?} is no name of a Secret or ConfigMap: it must consist of at most 253 lower case letters, digits, '-' \
                 and '.', and begin and end with a letter or digit",
                clip(&at.name, 80)
            );
            self.add(format!("{path}.name"), message);
        }
        if !is_key(&at.key) {
            let message = format!(
                "{:?} is no key of a Secret or ConfigMap: it must consist of 1 to 253 letters, digits, '-', '_' and '.'",
                clip(&at.key, 80)
            );
            self.add(format!("{path}.key"), message);
        }
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

    /// A number of nodes, or a share of them, rounded as told.
    fn share(&mut self, path: &str, value: &Value, of: u32, round: Round) -> u32 {
        share(value, of, round).unwrap_or_else(|| {
            self.add(path, format!("{value} is neither a number nor a share such as 25%"));
            1
        })
    }

    fn rollout(&mut self, fields: &RolloutFields, count: u32) -> Rollout {
        const PATH: &str = "spec.converge.rollout";
        let mut share = |name: &str, value: &Value, round| self.share(&format!("{PATH}.{name}"), value, count, round);
        let max_parallel = share("maxParallel", &fields.max_parallel, Round::Up).max(1);
        let max_surge = share("maxSurge", &fields.max_surge, Round::Up);
        let max_unavailable = share("maxUnavailable", &fields.max_unavailable, Round::Down);
        let max_failures = fields.max_failures.as_ref().map(|value| share("maxFailures", value, Round::Down));
        Rollout {
            order: fields.order,
            max_parallel,
            // Without a surge somebody has to go first.
            max_unavailable: if max_surge == 0 { max_unavailable.max(1) } else { max_unavailable },
            max_surge,
            max_failures: max_failures.or((fields.on_failure == OnFailure::StopAll).then_some(0)),
            replacement: fields.replacement,
        }
    }
}
