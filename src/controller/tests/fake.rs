//! An API server in a few lines: it keeps objects, tells watches of them, and remembers what was written.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedSender, unbounded},
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    controller::{Settings, references::Polls},
    transport::{Channel, OpenError, Transport},
};
use pallet_api as api;
use pallet_core::target::Target;

type Answer = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    version: u64,
    /// By plural.
    objects: HashMap<String, Vec<Value>>,
    watches: HashMap<String, Vec<UnboundedSender<Bytes>>>,
    /// Method, path and body of what was written.
    written: Vec<(Method, String, Value)>,
}

fn is(object: &Value, other: &Value) -> bool {
    ["namespace", "name"].iter().all(|field| object["metadata"][*field] == other["metadata"][*field])
}

impl Fake {
    /// Keeps an object, in place of what it was, and tells of it.
    pub(super) fn put(&self, plural: &str, mut object: Value) {
        let mut kept = self.0.lock().unwrap();
        kept.version += 1;
        object["metadata"]["resourceVersion"] = kept.version.to_string().into();
        let objects = kept.objects.entry(plural.to_owned()).or_default();
        objects.retain(|other| !is(other, &object));
        objects.push(object.clone());
        let line = Bytes::from(format!("{}\n", json!({"type": "MODIFIED", "object": object})));
        let watches = kept.watches.entry(plural.to_owned()).or_default();
        watches.retain(|watch| watch.unbounded_send(line.clone()).is_ok());
    }

    /// Whether the status of the group of a namespace was written for a generation.
    pub(super) fn is_written(&self, namespace: &str, generation: i64) -> bool {
        let path = format!("/namespaces/{namespace}/groupspecs/web/status");
        let matches = |body: &Value| body["status"]["observedGeneration"] == generation;
        self.0.lock().unwrap().written.iter().any(|(_, written, body)| written.ends_with(&path) && matches(body))
    }

    pub(super) async fn until_written(&self, namespace: &str, generation: i64, patience: Duration) {
        let began = Instant::now();
        while !self.is_written(namespace, generation) {
            assert!(began.elapsed() < patience, "{namespace} is not written for generation {generation}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn has_patched(&self, path: &str) -> bool {
        let kept = self.0.lock().unwrap();
        kept.written.iter().any(|(method, written, _)| method == Method::PATCH && written.ends_with(path))
    }

    pub(super) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest: Vec<&str> = match words.iter().position(|word| *word == "namespaces") {
            Some(at) => words[at + 1..].to_vec(),
            None => vec!["", words[words.len() - 1]],
        };
        let (namespace, plural, name) = (rest[0], rest.get(1).copied().unwrap_or_default(), rest.get(2).copied());
        let mut kept = self.0.lock().unwrap();
        if parts.method == Method::GET && name.is_none() {
            if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
                let (watch, lines) = unbounded();
                kept.watches.entry(plural.to_owned()).or_default().push(watch);
                return Response::new(StreamBody::new(lines.map(|line| Ok(Frame::data(line))).boxed()));
            }
            if path.contains("kubevirt") {
                return failure(404);
            }
            let items = kept.objects.get(plural).cloned().unwrap_or_default();
            let metadata = json!({"resourceVersion": kept.version.to_string()});
            return whole(200, &json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}));
        }
        let wanted = json!({"metadata": {"namespace": namespace, "name": name}});
        let mut objects = kept.objects.get(plural).into_iter().flatten();
        let found = objects.find(|object| is(object, &wanted)).cloned();
        if parts.method != Method::GET {
            kept.written.push((parts.method.clone(), path.clone(), body.clone()));
        }
        match (parts.method, found) {
            (Method::POST, _) => whole(201, &body),
            (Method::PATCH, _) if name.is_some_and(|name| name.starts_with("stuck")) => failure(500),
            (_, Some(found)) => whole(200, &found),
            (_, None) => failure(404),
        }
    }
}

fn whole(code: u16, value: &Value) -> Answer {
    let body = stream::iter([Ok(Frame::data(Bytes::from(value.to_string())))]).boxed();
    Response::builder().status(code).body(StreamBody::new(body)).unwrap()
}

fn failure(code: u16) -> Answer {
    let reason = if code == 404 { "NotFound" } else { "InternalError" };
    whole(code, &json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code}))
}

/// No node can be reached.
pub(super) struct Nowhere;

impl Transport for Nowhere {
    fn open<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        Box::pin(std::future::pending())
    }
}

pub(super) fn settings(reconciles: u16) -> Settings {
    let polls = Polls::default();
    Settings { namespaces: Vec::new(), sessions: 4, reconciles, own_namespace: "a".into(), polls }
}

/// A group that runs nothing, since it is paused: what is due on its nodes is planned all the same.
pub(super) fn group_spec(namespace: &str, generation: i64, count: u32, actions: &[Value]) -> Value {
    let phases = if actions.is_empty() { json!({}) } else { json!({"bootstrap": {"actions": actions}}) };
    json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {
            "namespace": namespace, "name": "web", "uid": format!("g-{namespace}"), "generation": generation,
            "finalizers": ["pallet.dev/finalizer"]
        },
        "spec": {
            "count": count, "paused": true, "phases": phases,
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}}
        }
    })
}

/// A pod of that group, made from the template that the group declares.
pub(super) fn running_pod(namespace: &str, ordinal: u32) -> Value {
    let declared = serde_json::from_value(group_spec(namespace, 1, 1, &[])).unwrap();
    let group = pallet_core::group::resolve::resolve(&declared, &Default::default()).unwrap();
    let (name, uid, node) = (format!("web-{ordinal}"), format!("p-{ordinal}"), format!("n-{ordinal}"));
    let owner = |kind: &str, name: &str, uid: String, controller: bool| json!({"apiVersion": "pallet.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": controller});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "uid": uid, "labels": {"pallet.dev/group": "web"},
            "annotations": {api::TEMPLATE_HASH_ANNOTATION: group.node.hash(), "pallet.dev/container": "main"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [
                owner("GroupSpec", "web", format!("g-{namespace}"), true),
                owner("GroupNode", &name, node, false)
            ]
        },
        "spec": {"containers": [{"name": "main", "image": "x"}]},
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "containerStatuses": [{
                "name": "main", "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
                "containerID": "containerd://c", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
            }]
        }
    })
}

/// A GroupNode whose status speaks of the container that runs, and of no phase.
pub(super) fn current_node(namespace: &str, ordinal: u32) -> Value {
    json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupNode",
        "metadata": {
            "namespace": namespace, "name": format!("web-{ordinal}"), "uid": format!("n-{ordinal}"),
            "finalizers": ["pallet.dev/finalizer"], "creationTimestamp": "2026-01-01T00:00:00Z"
        },
        "spec": {"group": "web", "groupUid": format!("g-{namespace}"), "ordinal": ordinal},
        "status": {
            "facts": {}, "phaseResults": [],
            "incarnation": {"uid": format!("p-{ordinal}"), "instance": "containerd://c", "filesystemId": "w"}
        }
    })
}
