//! The ServerSpecs, by namespace, as a watch shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::runtime::watcher::Event;

use pallet_api::ServerSpec;
use pallet_core::group::resolve::ServerSpecs;

/// All ServerSpecs that are watched.
#[derive(Debug, Default)]
pub struct Specs {
    namespaces: BTreeMap<String, Arc<ServerSpecs>>,
    /// What a relist has shown so far.
    relisted: Option<BTreeMap<String, ServerSpecs>>,
    listed: bool,
}

/// A ServerSpec that has come, changed or gone: namespace and name.
pub type SpecKey = (String, String);

impl Specs {
    /// Whether a list has been complete once: before, what is not here may be there all the same.
    pub fn listed(&self) -> bool {
        self.listed
    }

    /// Those of one namespace.
    pub fn of(&self, namespace: &str) -> Arc<ServerSpecs> {
        self.namespaces.get(namespace).cloned().unwrap_or_default()
    }

    /// Takes an event of the watch in. Says which ServerSpecs may be others now.
    pub fn apply(&mut self, event: Event<ServerSpec>) -> BTreeSet<SpecKey> {
        match event {
            Event::Init => {
                self.relisted = Some(BTreeMap::new());
                BTreeSet::new()
            }
            Event::InitApply(spec) => {
                if let (Some(key), Some(relisted)) = (key(&spec), &mut self.relisted) {
                    relisted.entry(key.0).or_default().insert(key.1, Arc::new(spec));
                }
                BTreeSet::new()
            }
            Event::InitDone => {
                self.listed = true;
                let shown = self.relisted.take().unwrap_or_default();
                let shown = shown.into_iter().map(|(namespace, specs)| (namespace, Arc::new(specs))).collect();
                let before = std::mem::replace(&mut self.namespaces, shown);
                let names = |(namespace, specs): (&String, &Arc<ServerSpecs>)| {
                    specs.keys().map(|name| (namespace.clone(), name.clone())).collect::<Vec<_>>()
                };
                before.iter().chain(&self.namespaces).flat_map(names).collect()
            }
            Event::Apply(spec) => {
                let Some(key) = key(&spec) else { return BTreeSet::new() };
                let specs = self.namespaces.entry(key.0.clone()).or_default();
                Arc::make_mut(specs).insert(key.1.clone(), Arc::new(spec));
                BTreeSet::from([key])
            }
            Event::Delete(spec) => {
                let Some(key) = key(&spec) else { return BTreeSet::new() };
                if let Some(specs) = self.namespaces.get_mut(&key.0) {
                    Arc::make_mut(specs).remove(&key.1);
                    if specs.is_empty() {
                        self.namespaces.remove(&key.0);
                    }
                }
                BTreeSet::from([key])
            }
        }
    }
}

fn key(spec: &ServerSpec) -> Option<SpecKey> {
    Some((spec.metadata.namespace.clone()?, spec.metadata.name.clone()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(namespace: &str, name: &str) -> ServerSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "ServerSpec",
            "metadata": {"namespace": namespace, "name": name}, "spec": {}
        }))
        .unwrap()
    }

    #[test]
    fn what_a_relist_does_not_show_is_gone_and_told() {
        let mut specs = Specs::default();
        assert!(!specs.listed());
        for event in [Event::Init, Event::InitApply(spec("a", "x")), Event::InitApply(spec("b", "x"))] {
            assert!(specs.apply(event).is_empty());
        }
        assert_eq!(specs.apply(Event::InitDone).len(), 2);
        assert_eq!(specs.apply(Event::Apply(spec("a", "y"))), [("a".to_owned(), "y".to_owned())].into());
        assert_eq!(specs.of("a").len(), 2);
        specs.apply(Event::Init);
        specs.apply(Event::InitApply(spec("a", "y")));
        assert_eq!(specs.apply(Event::InitDone).len(), 3);
        assert_eq!((specs.of("a").len(), specs.of("b").len()), (1, 0));
        specs.apply(Event::Delete(spec("a", "y")));
        assert!(specs.of("a").is_empty());
    }
}
