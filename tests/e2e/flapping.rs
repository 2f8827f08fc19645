//! Counts that go up and down faster than nodes come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream, stream::LocalBoxStream};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use pallet_api::GroupSpec;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::harness::{Space, busybox, script, wait};

/// How long a decision that was right when it was made may take to show.
const LATENCY: Duration = Duration::from_secs(4);

/// What a test sees of a group by its own watches.
#[derive(Default)]
struct Census {
    /// The counts that were in force, and since when.
    counts: Vec<(Instant, usize)>,
    /// The UIDs of what is there and not going, by kind.
    live: BTreeMap<&'static str, BTreeSet<String>>,
    born: BTreeMap<&'static str, usize>,
    overshoots: Vec<String>,
}

impl Census {
    /// The highest count that a decision of just now may have been made by.
    fn allowed(&self) -> usize {
        let after = |at: usize| self.counts.get(at + 1).map_or(Duration::ZERO, |(next, _)| next.elapsed());
        let lately = self.counts.iter().enumerate().filter(|(at, _)| after(*at) < LATENCY);
        lately.map(|(_, (_, count))| *count).max().unwrap_or(0)
    }

    fn see<K: Resource<DynamicType = ()> + Clone>(&mut self, kind: &'static str, event: &WatchEvent<K>) {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = event else {
            return;
        };
        let live = self.live.entry(kind).or_default();
        let uid = object.uid().unwrap_or_default();
        if matches!(event, WatchEvent::Deleted(_)) || object.meta().deletion_timestamp.is_some() {
            live.remove(&uid);
        } else if live.insert(uid) {
            let now = live.len();
            *self.born.entry(kind).or_default() += 1;
            let allowed = self.allowed();
            if now > allowed {
                self.overshoots.push(format!("{now} {kind} where {allowed} were allowed"));
            }
        }
    }
}

/// What an event does to the census.
type Sight = Box<dyn FnOnce(&mut Census)>;

/// A watch from now on.
async fn follow<K>(api: Api<K>, see: fn(&mut Census, WatchEvent<K>)) -> LocalBoxStream<'static, Sight>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + 'static,
{
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let events = api.watch(&WatchParams::default(), &version).await.unwrap();
    let sight = move |event: kube::Result<WatchEvent<K>>| -> Sight {
        let event = event.expect("a watch event");
        Box::new(move |census: &mut Census| see(census, event))
    };
    events.map(sight).boxed_local()
}

/// Follows the group until the future is done.
async fn census(space: &Space, until: impl Future<Output = ()>) -> Census {
    let count = |census: &mut Census, event: WatchEvent<GroupSpec>| {
        if let WatchEvent::Added(group) | WatchEvent::Modified(group) = event {
            let count = group.count() as usize;
            if census.counts.last().is_none_or(|(_, last)| *last != count) {
                census.counts.push((Instant::now(), count));
            }
        }
    };
    let groups = follow(space.groups(), count).await;
    let nodes = follow(space.nodes(), |census, event| census.see("GroupNodes", &event)).await;
    let pods = follow(space.pods(), |census, event| census.see("pods", &event)).await;
    let mut events = stream::select_all([groups, nodes, pods]);
    let mut census = Census::default();
    let mut until = std::pin::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return census,
            event = events.next() => event.expect("the watch goes on")(&mut census),
        }
    }
}

#[tokio::test]
async fn a_count_that_flaps_ends_exactly_and_never_overshoots() {
    let Some(space) = Space::new("flap").await else { return };
    let spec = |count: usize| json!({"count": count, "node": busybox(), "phases": {"bootstrap": script("echo b >>/ran"), "configure": script("echo c >>/ran")}});
    let flapping = async {
        space.apply(spec(0)).await;
        // Fast and high, from within a pass to after the pods run.
        for (step, count) in [5, 0, 3, 0, 5, 1, 4, 0, 5, 2].into_iter().enumerate() {
            space.patch(json!({"spec": {"count": count}})).await;
            tokio::time::sleep(Duration::from_millis(60 * (step as u64 + 1))).await;
        }
        // Then low, for longer than any decision of before can take.
        for count in [0, 2, 1, 2, 0, 1, 0, 2] {
            space.patch(json!({"spec": {"count": count}})).await;
            tokio::time::sleep(Duration::from_millis(900)).await;
        }
        space.ready().await;
        wait("two nodes and two pods are left", || async {
            let nodes = space.nodes().list(&ListParams::default()).await.unwrap().items;
            let (nodes, pods) = (nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), space.pod_names().await);
            // Which two depends on how far each was when it might have gone.
            if nodes.len() == 2 && nodes == pods { Ok(()) } else { Err(format!("{nodes:?} {pods:?}")) }
        })
        .await;
    };
    let census = census(&space, flapping).await;
    println!("born while the count flapped: {:?}", census.born);
    assert_eq!(census.overshoots, Vec::<String>::new());
    assert!(census.born["pods"] > 5, "it did flap: {:?}", census.born);
    for name in space.pod_names().await {
        assert_eq!(space.exec(&name, "cat /ran").await, "b\nc\n");
        let (node, pod) = (space.nodes().get(&name).await.unwrap(), space.pods().get(&name).await.unwrap());
        let owners = pod.metadata.owner_references.unwrap();
        assert!(owners.iter().any(|owner| Some(&owner.uid) == node.metadata.uid.as_ref()), "no orphan");
    }
}
