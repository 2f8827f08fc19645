//! The watches by which operations are followed.

use std::{collections::BTreeSet, fmt::Debug};

use futures::{
    Stream, StreamExt,
    stream::{BoxStream, SelectAll},
};
use kube::{
    Resource,
    api::ListParams,
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use pallet_api::{GROUP_LABEL, GroupNode, GroupSpec, Lift};
use serde::de::DeserializeOwned;

use crate::{
    connect::Cluster,
    exit::Result,
    names::{Kind, Target},
    progress::{FEW, Subject},
};

/// What a watch sees.
pub enum Seen {
    /// A group is so.
    Group(Box<GroupSpec>),
    /// A Lift is so.
    Lift(Box<Lift>),
    /// A node is so.
    Node(Box<GroupNode>),
    /// It is not there any more.
    Gone(Target),
    /// The connection was lost.
    Trouble(watcher::Error),
}

/// What all watches see.
pub type Events = SelectAll<BoxStream<'static, Seen>>;

/// One watch for each kind that is followed.
pub async fn watches(cluster: &Cluster, subjects: &[Subject], with_nodes: bool) -> Result<Events> {
    let mut events = SelectAll::new();
    let names = |kind: Kind| -> BTreeSet<String> {
        let targets = subjects.iter().map(Subject::target).filter(|target| target.kind == kind);
        targets.map(|target| target.name).collect()
    };
    let (groups, lifts, nodes) = (names(Kind::Group), names(Kind::Lift), names(Kind::Node));
    if !groups.is_empty() {
        events.push(watch(cluster, only(&groups), Kind::Group, groups.clone(), |group| Seen::Group(Box::new(group))));
    }
    if !lifts.is_empty() {
        events.push(watch(cluster, only(&lifts), Kind::Lift, lifts.clone(), |lift| Seen::Lift(Box::new(lift))));
    }
    if !nodes.is_empty() {
        events.push(watch(cluster, only(&nodes), Kind::Node, nodes.clone(), |node| Seen::Node(Box::new(node))));
    }
    if with_nodes && let Some(selector) = nodes_of(cluster, subjects).await? {
        let config = watcher::Config::default().labels(&selector);
        events.push(watch(cluster, config, Kind::Node, BTreeSet::new(), |node| Seen::Node(Box::new(node))));
    }
    Ok(events)
}

fn only(names: &BTreeSet<String>) -> watcher::Config {
    match (names.first(), names.len()) {
        (Some(name), 1) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        _ => watcher::Config::default(),
    }
}

/// A selector of the nodes that have a line each; none where they are many.
async fn nodes_of(cluster: &Cluster, subjects: &[Subject]) -> Result<Option<String>> {
    let mut groups: BTreeSet<String> = BTreeSet::new();
    let mut count = 0;
    let api = cluster.api::<GroupSpec>();
    for subject in subjects {
        match subject {
            Subject::Group(group, _) => {
                count += group.count();
                groups.extend(group.metadata.name.clone());
            }
            Subject::Lift(lift) => {
                let selector = lift.spec.group_selector.as_ref().map(crate::lift::selector_text);
                let parameters = ListParams { label_selector: selector, ..ListParams::default() };
                let named = lift.spec.groups.clone().unwrap_or_default();
                let found = cluster.ask("list groupspecs", api.list(&parameters)).await?;
                let mine = |group: &&GroupSpec| {
                    lift.spec.groups.is_none() || group.metadata.name.as_ref().is_some_and(|name| named.contains(name))
                };
                let mine: Vec<&GroupSpec> = found.items.iter().filter(mine).collect();
                count += match &lift.spec.nodes {
                    Some(nodes) => nodes.len() as u32,
                    None => mine.iter().map(|group| group.count()).sum(),
                };
                groups.extend(mine.into_iter().filter_map(|group| group.metadata.name.clone()));
            }
            Subject::Node(_) => {}
        }
    }
    let selected = groups.into_iter().collect::<Vec<_>>().join(",");
    Ok((count <= FEW && !selected.is_empty()).then(|| format!("{GROUP_LABEL} in ({selected})")))
}

/// What a watch sees of objects. Of those that are named it is also told when they are not there.
fn watch<K>(
    cluster: &Cluster,
    config: watcher::Config,
    kind: Kind,
    named: BTreeSet<String>,
    seen: impl Fn(K) -> Seen + Send + 'static,
) -> BoxStream<'static, Seen>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let events = watcher(cluster.api::<K>(), config).default_backoff();
    told(events, kind, named, seen).boxed()
}

fn told<K: Resource>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    kind: Kind,
    named: BTreeSet<String>,
    seen: impl Fn(K) -> Seen,
) -> impl Stream<Item = Seen> {
    let mut listed: BTreeSet<String> = BTreeSet::new();
    events.flat_map(move |event| {
        let target = |name: &str| Target { kind, name: name.to_owned() };
        let told = match event {
            Err(error) => vec![Seen::Trouble(error)],
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.extend(object.meta().name.clone());
                vec![seen(object)]
            }
            Ok(watcher::Event::InitDone) => named.difference(&listed).map(|name| Seen::Gone(target(name))).collect(),
            Ok(watcher::Event::Apply(object)) => vec![seen(object)],
            Ok(watcher::Event::Delete(object)) => {
                vec![Seen::Gone(target(object.meta().name.as_deref().unwrap_or_default()))]
            }
        };
        futures::stream::iter(told)
    })
}

/// An error that does not pass by itself.
pub fn forbidden(cluster: &Cluster, error: &watcher::Error) -> Result<()> {
    let refused = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        _ => return Ok(()),
    };
    match refused {
        kube::Error::Api(status) if [401, 403, 404].contains(&status.code) => Err(cluster.refusal(&"watch", refused)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(name: &str) -> GroupSpec {
        serde_json::from_value(json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec", "metadata": {"name": name},
            "spec": {"node": {"pod": {"template": {}}}}
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_a_relist_does_not_show_is_gone() {
        let events = [
            watcher::Event::Init,
            watcher::Event::InitApply(group("web")),
            watcher::Event::InitDone,
            watcher::Event::Init,
            watcher::Event::InitDone,
        ];
        let events = futures::stream::iter(events.into_iter().map(Ok));
        let seen = told(events, Kind::Group, BTreeSet::from(["web".to_owned()]), |group| Seen::Group(Box::new(group)));
        let seen: Vec<Seen> = seen.collect().await;
        assert!(matches!(&seen[..], [Seen::Group(_), Seen::Gone(target)] if target.name == "web"));
    }
}
