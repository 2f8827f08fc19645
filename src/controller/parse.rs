//! Parsing: off the shared locks and off the threads that everything else runs on.

use std::sync::Arc;

use super::Converger;
use crate::run::evaluations::Meter;
use pallet_api::GroupSpec;
use pallet_core::group::{
    FieldError, Group,
    resolve::{self, Memo, Source, resolve},
};

/// A group as its spec says; and as it said when it could be read last, where it cannot be now.
pub(super) type Parsed = (Result<Group, Vec<FieldError>>, Option<Group>);

impl Converger {
    /// The group as its spec says. What was parsed before is not parsed again.
    pub(super) async fn parse(&self, object: &GroupSpec, meter: &Meter) -> Parsed {
        let key = resolve::key(object);
        let specs = self.state.specs(&key.namespace);
        let known = self.state.last_good(&key, object);
        let object = &*Memo::counted(known.as_deref(), object);
        let source = Source::of(object, &specs);
        let parsed = match self.state.parsed(&key, &source) {
            Some(parsed) => parsed,
            None => {
                let parse = || resolve(object, &specs).map(Arc::new);
                let parsed = self.evaluations.run(&key.namespace, meter, parse).await;
                self.state.keep_parsed(&key, source, parsed.clone());
                // A ServerSpec that changed meanwhile did not find this group among those that use it.
                let now = self.state.specs(&key.namespace);
                if !Arc::ptr_eq(&now, &specs) && Source::of(object, &now) != Source::of(object, &specs) {
                    self.sessions.look_at(&key);
                }
                parsed
            }
        };
        match parsed {
            Ok(group) => (Ok((*group).clone()), None),
            Err(errors) => (Err(errors), self.state.last_good(&key, object).map(|group| (*group).clone())),
        }
    }
}
