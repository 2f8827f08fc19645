//! The controllers against an API server that serves KubeVirt, and lets the operator use it or not.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    controller::{Settings, references, run},
    telemetry::{Telemetry, health::Role},
    transport::{Transport, pod_exec::PodExec},
};

/// What the API server was asked, as method and path, and whether virtual machines are the operator's to use.
#[derive(Default)]
struct Server {
    allows: AtomicBool,
    asked: Mutex<Vec<String>>,
    statuses: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
                    std::future::pending::<()>().await;
                }
                let answer = server.answer(&parts.method, parts.uri.path(), &body);
                Ok::<_, std::convert::Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Value {
        lock(&self.asked).push(format!("{method} {path}"));
        if path.ends_with("/selfsubjectaccessreviews") {
            let mut review: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(review["spec"]["resourceAttributes"]["namespace"], "a");
            review["status"] = json!({"allowed": self.allows.load(Ordering::Relaxed)});
            return review;
        }
        if path == "/apis/kubevirt.io/v1" {
            let kind = |kind: &str, name: &str| json!({"kind": kind, "name": name, "singularName": "", "namespaced": true, "verbs": []});
            let kinds = [("VirtualMachine", "virtualmachines"), ("VirtualMachineInstance", "virtualmachineinstances")];
            let resources: Vec<_> = kinds.iter().map(|(one, many)| kind(one, many)).collect();
            return json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "kubevirt.io/v1", "resources": resources});
        }
        let group = json!({
            "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
            "metadata": {
                "name": "guests", "namespace": "a", "uid": "1", "resourceVersion": "1", "generation": 1,
                "finalizers": [pallet_api::FINALIZER]
            },
            "spec": {"count": 1, "node": {"virtualMachine": {"template": {"spec": {"template": {"spec": {"domain": {}}}}}}}}
        });
        if method == Method::PATCH && path.contains("/groupspecs/guests") {
            lock(&self.statuses).push(String::from_utf8_lossy(body).into_owned());
            return group;
        }
        let items = if path.ends_with("/groupspecs") { vec![group] } else { Vec::new() };
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn asked(&self, of: &str) -> usize {
        lock(&self.asked).iter().filter(|asked| asked.contains(of)).count()
    }
}

/// Without the rights for virtual machines the operator is ready and watches none; a group of them names the right that is
/// missing. When the rights come, they are noticed, and when they go as well.
#[tokio::test(start_paused = true)]
async fn an_operator_without_the_rights_for_virtual_machines_says_so_and_does_the_rest() {
    let server = Arc::new(Server::default());
    let (client, telemetry) = (server.client(), Telemetry::default());
    telemetry.health.become_role(Role::Alone);
    let transport: Arc<dyn Transport> = Arc::new(PodExec::new(client.clone()));
    let settings = Settings {
        namespaces: vec!["a".into()],
        sessions: 4,
        reconciles: 2,
        own_namespace: "a".into(),
        polls: references::Polls::default(),
    };
    let work = tokio::spawn(run(client, transport, settings, telemetry.clone(), std::future::pending()));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(telemetry.health.ready(Instant::now()), Ok("alone, caches synced".into()));
    assert_eq!(server.asked("virtualmachine"), 0, "nothing is listed or watched in vain");
    let reviews = server.asked("/selfsubjectaccessreviews");
    assert!((30..=42).contains(&reviews), "{reviews} questions in ten minutes");
    let said = lock(&server.statuses).concat();
    assert!(said.contains("VirtualMachinesForbidden"), "{said}");
    assert!(said.contains("the operator may not watch virtualmachines.kubevirt.io; grant its rights"), "{said}");

    server.allows.store(true, Ordering::Relaxed);
    lock(&server.asked).clear();
    sleep(Duration::from_secs(20)).await;
    assert!(
        server.asked("/virtualmachines") > 0 && server.asked("/virtualmachineinstances") > 0,
        "the rights are used"
    );
    assert_eq!(telemetry.health.ready(Instant::now()), Ok("alone, caches synced".into()));

    server.allows.store(false, Ordering::Relaxed);
    lock(&server.statuses).clear();
    sleep(Duration::from_secs(60)).await;
    lock(&server.asked).clear();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(server.asked("GET /apis/kubevirt.io/v1/namespaces"), 0, "the watches have ended");
    assert_eq!(telemetry.health.ready(Instant::now()), Ok("alone, caches synced".into()));
    assert!(lock(&server.statuses).concat().contains("VirtualMachinesForbidden"));
    work.abort();
}
