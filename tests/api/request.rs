//! Requests as kubectl makes them, where the typed client has no words for it.

use http::{Method, Request, Response};
use kube::{Client, client::Body, core::Status};
use serde_json::{Value, json};

use crate::support::Space;

/// An answer with what the typed client throws away.
pub struct Answer {
    pub code: u16,
    pub warnings: Vec<String>,
    pub body: Value,
}

impl Answer {
    /// What the API server says, where it refused.
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

pub async fn send(client: &Client, method: Method, path: &str, accept: &str, body: Option<&Value>) -> Answer {
    let content = if method == Method::PATCH { "application/apply-patch+yaml" } else { "application/json" };
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content)
        .header("accept", accept)
        .body(Body::from(bytes))
        .expect("a request");
    let response: Response<Body> = client.send(request).await.expect("the API server answers");
    let (head, body) = response.into_parts();
    let warnings = head.headers.get_all("warning").iter().map(|w| w.to_str().unwrap_or_default().to_owned()).collect();
    let bytes = body.collect_bytes().await.expect("the answer can be read");
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({"message": String::from_utf8_lossy(&bytes)}));
    Answer { code: head.status.as_u16(), warnings, body }
}

impl Space {
    /// Where a kind is: `groupspecs` or `groupnodes`.
    pub fn path(&self, plural: &str) -> String {
        format!("/apis/pallet.dev/v1alpha1/namespaces/{}/{plural}", self.namespace)
    }

    /// Creates as `kubectl create --dry-run=server` does: nothing is kept, and unknown fields are refused.
    pub async fn try_create(&self, plural: &str, object: &Value) -> Answer {
        let path = format!("{}?dryRun=All&fieldValidation=Strict", self.path(plural));
        send(&self.client, Method::POST, &path, "application/json", Some(object)).await
    }

    /// Creates in earnest and returns what was kept.
    pub async fn create(&self, plural: &str, object: &Value) -> Value {
        let path = format!("{}?fieldValidation=Strict", self.path(plural));
        let answer = send(&self.client, Method::POST, &path, "application/json", Some(object)).await;
        assert_eq!(answer.code, 201, "{}", answer.message());
        answer.body
    }

    /// `kubectl apply --server-side`.
    pub async fn apply(&self, plural: &str, manager: &str, force: bool, object: &Value) -> Answer {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let path = format!("{}/{name}?fieldManager={manager}&force={force}&fieldValidation=Strict", self.path(plural));
        send(&self.client, Method::PATCH, &path, "application/json", Some(object)).await
    }

    /// The object as a client sees it that knows nothing of the types.
    pub async fn get(&self, plural: &str, name: &str) -> Value {
        let path = format!("{}/{name}", self.path(plural));
        let answer = send(&self.client, Method::GET, &path, "application/json", None).await;
        assert_eq!(answer.code, 200, "{}", answer.message());
        answer.body
    }
}

/// The message of a refusal by the typed client.
pub fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> Box<Status> {
    match result {
        Err(kube::Error::Api(status)) => status,
        other => panic!("not refused: {other:?}"),
    }
}
