//! Which objects an event of a reflector's watch concerns.

use std::{collections::BTreeSet, hash::Hash};

use kube::{
    Resource,
    runtime::{
        reflector::{Lookup, Store},
        watcher::Event,
    },
};

use pallet_core::group::GroupKey;

/// Names the objects that each event of a watch concerns. An object that was deleted while the watch was down has no event of its
/// own: it is only missing from the next list.
pub struct Relist<O>
where
    O: Lookup + Clone + 'static,
    O::DynamicType: Eq + Hash + Clone,
{
    store: Store<O>,
    /// What the store held when a list began.
    before: BTreeSet<GroupKey>,
}

impl<O> Relist<O>
where
    O: Resource<DynamicType = ()> + Clone + 'static,
{
    /// `store` is written by the reflector that the events come from.
    pub fn new(store: Store<O>) -> Self {
        Self { store, before: BTreeSet::new() }
    }

    /// The objects that came, changed or are gone. Events of a list concern nothing until it is complete.
    pub fn concerned(&mut self, event: &Event<O>) -> Vec<GroupKey> {
        match event {
            Event::Apply(object) | Event::Delete(object) => vec![key(object)],
            Event::Init => {
                // A list that was broken off and begun again leaves the store as it was.
                self.before = self.held();
                Vec::new()
            }
            Event::InitApply(_) => Vec::new(),
            Event::InitDone => {
                let mut keys = std::mem::take(&mut self.before);
                keys.extend(self.held());
                keys.into_iter().collect()
            }
        }
    }

    fn held(&self) -> BTreeSet<GroupKey> {
        self.store.state().iter().map(|object| key(&**object)).collect()
    }
}

fn key<O: Resource>(object: &O) -> GroupKey {
    let metadata = object.meta();
    GroupKey {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;
    use pallet_api::GroupSpec;

    fn group(name: &str) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {"namespace": "a", "name": name}, "spec": {"node": {"pod": {"template": {}}}}
        }))
        .unwrap()
    }

    /// Guards against Lifts that wait for a group that is gone, and GroupNodes that nobody releases.
    #[test]
    fn a_group_that_a_relist_does_not_show_is_named_once() {
        let (store, mut writer) = reflector::store::<GroupSpec>();
        let mut relist = Relist::new(store);
        let mut names = |event: Event<GroupSpec>| -> Vec<String> {
            writer.apply_watcher_event(&event);
            relist.concerned(&event).into_iter().map(|key| key.name).collect()
        };
        assert!(names(Event::Init).is_empty() && names(Event::InitApply(group("x"))).is_empty());
        assert!(names(Event::InitApply(group("y"))).is_empty());
        assert_eq!(names(Event::InitDone), ["x", "y"]);
        assert_eq!(names(Event::Apply(group("z"))), ["z"]);
        // The watch was down, and its first list was broken off.
        names(Event::Init);
        names(Event::InitApply(group("y")));
        names(Event::Init);
        names(Event::InitApply(group("z")));
        assert_eq!(names(Event::InitDone), ["x", "y", "z"]);
        names(Event::Init);
        names(Event::InitApply(group("z")));
        assert_eq!(names(Event::InitDone), ["z"]);
    }
}
