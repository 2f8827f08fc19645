//! Counts the requests to the API server, by what they ask for and not by the objects that they name.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use tower::{Layer, Service};

use super::metrics::Metrics;

/// The resources that have a label of their own.
const RESOURCES: [&str; 11] = [
    "events",
    "groupnodes",
    "groupnodes/status",
    "groupspecs",
    "groupspecs/finalizers",
    "groupspecs/status",
    "leases",
    "persistentvolumeclaims",
    "pods",
    "pods/exec",
    "pods/status",
];

/// Counts what goes through a client.
#[derive(Clone, Debug)]
pub struct Counted(pub Metrics);

impl<S> Layer<S> for Counted {
    type Service = Counting<S>;
    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, metrics: self.0.clone() }
    }
}

/// A client that is counted.
#[derive(Clone, Debug)]
pub struct Counting<S> {
    inner: S,
    metrics: Metrics,
}

/// One request, counted when it is dropped: with its answer's code, or none where nobody waited for one.
struct Asked {
    metrics: Metrics,
    verb: &'static str,
    resource: &'static str,
    code: Option<u16>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.metrics.requested(self.verb, self.resource, self.code);
    }
}

impl<S, B, C> Service<Request<B>> for Counting<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, resource) = labels(request.method(), request.uri());
        let asked = Asked { metrics: self.metrics.clone(), verb, resource, code: None };
        let call = self.inner.call(request);
        Box::pin(async move {
            // The whole of it moves in here: else the block would get a copy of the code, and count none.
            let mut asked = asked;
            let answer = call.await;
            asked.code = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            answer
        })
    }
}

/// Verb and resource as the API server's audit log has them.
fn labels(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    // /api/VERSION/... or /apis/GROUP/VERSION/...
    let skipped = match parts.next() {
        Some("api") => parts.next(),
        Some("apis") => parts.nth(1),
        _ => None,
    };
    let mut parts: Vec<&str> = if skipped.is_some() { parts.collect() } else { Vec::new() };
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts.drain(..2);
    }
    let (resource, name, sub) = (parts.first().copied().unwrap_or_default(), parts.get(1), parts.get(2));
    let known = RESOURCES.into_iter().find(|known| match (known.split_once('/'), sub) {
        (Some((of, below)), Some(sub)) => of == resource && below == *sub,
        (None, None) => *known == resource,
        _ => false,
    });
    let watching = || uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let verb = match *method {
        Method::GET if sub == Some(&"exec") => "connect",
        Method::GET if name.is_some() || known.is_none() => "get",
        Method::GET if watching() => "watch",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (verb, known.unwrap_or("other"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_verb_and_resource_and_never_by_name() {
        for (method, path, verb, resource) in [
            ("GET", "/api/v1/pods?&labelSelector=x&watch=true&resourceVersion=1", "watch", "pods"),
            ("GET", "/api/v1/namespaces/shop/pods?limit=500", "list", "pods"),
            ("GET", "/api/v1/namespaces/shop/pods/web-0", "get", "pods"),
            ("GET", "/api/v1/namespaces/shop/pods/web-0/exec?command=sh", "connect", "pods/exec"),
            ("POST", "/apis/pallet.dev/v1alpha1/namespaces/shop/groupnodes", "create", "groupnodes"),
            (
                "PATCH",
                "/apis/pallet.dev/v1alpha1/namespaces/shop/groupnodes/web-0/status?",
                "patch",
                "groupnodes/status",
            ),
            ("GET", "/apis/pallet.dev/v1alpha1/groupspecs?watch=true", "watch", "groupspecs"),
            ("DELETE", "/apis/pallet.dev/v1alpha1/namespaces/shop/groupnodes/web-0", "delete", "groupnodes"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/default/leases/pallet-operator", "update", "leases"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/shop/events", "create", "events"),
            ("GET", "/version", "get", "other"),
            ("GET", "/api/v1/namespaces/shop", "get", "other"),
            ("GET", "/api/v1/namespaces/pods", "get", "other"),
            ("GET", "/apis/example.org/v1/namespaces/shop/secrets/token", "get", "other"),
            ("GET", "/api/v1/namespaces/shop/pods/web-0/log", "get", "other"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(labels(&method, &path.parse().unwrap()), (verb, resource), "{method} {path}");
        }
    }

    #[tokio::test]
    async fn each_request_is_counted_once_with_its_answer() {
        let metrics = Metrics::default();
        let inner = tower::service_fn(|request: Request<()>| async move {
            match request.uri().query() {
                Some("hang") => std::future::pending().await,
                Some("fail") => Err("no route"),
                _ => Ok(Response::builder().status(409).body(()).unwrap()),
            }
        });
        let mut counted = Counted(metrics.clone()).layer(inner);
        let request = |query: &str| Request::post(format!("/api/v1/namespaces/shop/pods{query}")).body(()).unwrap();
        counted.call(request("")).await.unwrap();
        counted.call(request("?fail")).await.unwrap_err();
        drop(counted.call(request("?hang")));
        let text = metrics.text();
        assert!(text.contains(r#"pallet_api_requests_total{verb="create",resource="pods",code="409"} 1"#), "{text}");
        assert!(text.contains(r#"pallet_api_requests_total{verb="create",resource="pods",code="none"} 2"#), "{text}");
    }
}
