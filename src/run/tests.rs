//! Sessions as tasks: what bounds them, and what is left of them.

use super::*;
use crate::transport::OpenError;
use futures::future::BoxFuture;
use pallet_core::{group::resolve, target::Container};
use serde_json::json;
use tasks::Tasks;

/// Connections that never come about.
struct Hanging;

impl Transport for Hanging {
    fn open<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        Box::pin(std::future::pending())
    }
}

fn start(node: &str) -> Start {
    let object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {"node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}}}
    });
    let group = Arc::new(resolve(&serde_json::from_value(object).unwrap(), &Default::default()).unwrap());
    let (name, address, retry_token) = (node.to_owned(), String::new(), String::new());
    let container = Container { namespace: "shop".into(), pod: node.into(), container: "main".into() };
    let (target, attributes) = (Target::Container(container), Arc::default());
    let identity = Identity { name, ordinal: 0, address, attributes, retry_token, ack: String::new() };
    let incarnation = Meant { uid: "p".into(), instance: "c".into(), told: "p".into() };
    let (record, purpose) = (Record::default(), Purpose::Farewell);
    Start { group, node_uid: node.into(), identity, incarnation, target, record, purpose }
}

/// Connections of one namespace that never come about; those of all others are refused at once.
struct Dark(Mutex<Vec<String>>);

impl Transport for Dark {
    fn open<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        let Target::Container(container) = target else { panic!("there are pods only") };
        self.0.lock().push(container.namespace.clone());
        if container.namespace == "dark" {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Err(OpenError::new(pallet_api::reason::Reason::SessionRefused, ""))))
    }
}

/// Guards against a tenant that takes all sessions by hosts that do not answer: no key for any is needed.
#[tokio::test]
async fn a_namespace_whose_hosts_are_silent_keeps_no_other_from_connecting() {
    let (tasks, metrics, transport) = (Tasks::default(), Metrics::default(), Arc::new(Dark(Mutex::default())));
    let limits = Limits::new(128);
    let runs = Runs::new(transport.clone(), Arc::new(vault::Empty), limits.clone(), tasks.spawner(), metrics, |_| {});
    let start_in = |namespace: &str, node: String| {
        let mut start = start(&node);
        let mut group = (*start.group).clone();
        group.key.namespace = namespace.to_owned();
        let container = Container { namespace: namespace.into(), pod: node, container: "main".into() };
        (start.group, start.target) = (Arc::new(group), Target::Container(container));
        runs.start(start, Timestamp::UNIX_EPOCH);
    };
    (0..300).for_each(|n| start_in("dark", format!("dark-{n}")));
    (0..20).for_each(|n| start_in("shop", format!("shop-{n}")));
    let opened = |namespace: &str| transport.0.lock().iter().filter(|other| *other == namespace).count();
    let all = async {
        while opened("shop") < 20 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("the others connect");
    assert_eq!(opened("dark"), 32, "a quarter of all sessions");
    assert!(limits.sessions.free() >= 96);
    tasks.shutdown().await;
}

/// One session hangs while it connects, one waits for a permit: both hold on to what holds them.
#[tokio::test]
async fn no_session_outlives_the_controllers() {
    let (tasks, metrics) = (Tasks::default(), Metrics::default());
    let limits = Limits::new(1);
    let runs =
        Runs::new(Arc::new(Hanging), Arc::new(vault::Empty), limits.clone(), tasks.spawner(), metrics.clone(), |_| {});
    runs.start(start("web-0"), Timestamp::UNIX_EPOCH);
    runs.start(start("web-1"), Timestamp::UNIX_EPOCH);
    let (open, waiting) = (r#"pallet_sessions{state="open"} 1"#, r#"pallet_sessions{state="waiting"} 1"#);
    let both = async {
        while !(metrics.text().contains(open) && metrics.text().contains(waiting)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), both).await.expect("one is open and one waits");
    tasks.shutdown().await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    assert_eq!((limits.sessions.free(), limits.connecting.free()), (1, 1));
    let text = metrics.text();
    assert!(!text.contains(open) && !text.contains(waiting), "{text}");
    // A pass that is on its way starts nothing any more.
    runs.start(start("web-2"), Timestamp::UNIX_EPOCH);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    let seen = Arc::downgrade(&runs);
    drop(runs);
    assert_eq!(seen.strong_count(), 0, "something holds the sessions for ever");
}
