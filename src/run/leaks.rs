//! What is said of a session that never came about, with secrets in it.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

use super::{tasks::Tasks, vault::Vault, *};
use crate::transport::OpenError;
use pallet_core::{
    group::resolve,
    target::{Container, Elevation, Endpoint},
};

const CANARY: &str = "c4n4ry-v4lue-in-the-mine";

/// Fails in one of the ways in which a node can have the last word.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Open,
    Noise,
    Stderr,
    NoShell,
    Flood,
    Malformed,
}

impl Transport for Fails {
    fn open<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        let said = format!("\u{1b}[2J\u{202e}it has {CANARY}");
        let fails = *self;
        async move {
            if let Fails::Open = fails {
                return Err(OpenError::new(pallet_api::reason::Reason::Unreachable, said));
            }
            let (near, far) = duplex(1 << 16);
            let (output, input) = split(near);
            let (mut heard, mut says) = split(far);
            tokio::spawn(async move {
                let mut request = Vec::new();
                let mut greeting = [0; 4096];
                while !request.windows(6).any(|part| part == b"hello ") || !request.ends_with(b"\n") {
                    let n = heard.read(&mut greeting).await.unwrap_or_default();
                    request.extend_from_slice(&greeting[..n]);
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let nonce = text.rsplit("hello ").next().and_then(|rest| rest.split(' ').next()).unwrap_or_default();
                let bytes = match fails {
                    Fails::Flood => format!("{said}\n").repeat(60_000),
                    Fails::Malformed => format!("{nonce} gibberish {said}\n"),
                    _ => format!("{said}\n"),
                };
                let _ = says.write_all(bytes.as_bytes()).await;
                let _ = heard.read(&mut greeting).await;
            });
            let message = format!("the shell ended: {}", if let Fails::Noise = fails { "" } else { CANARY });
            let closed = Closed::new(matches!(fails, Fails::NoShell), format!("{message}\u{1b}]0;x\u{7}"));
            let closed = match fails {
                Fails::Flood | Fails::Malformed => std::future::pending().boxed(),
                _ => std::future::ready(closed).boxed(),
            };
            Ok(Channel { input: Box::new(input), output: Box::new(output), closed, guard: Box::new(()) })
        }
        .boxed()
    }
}

struct Canary;

impl Vault for Canary {
    fn read<'a>(&'a self, _: &'a str, places: Vec<KeyRef>) -> BoxFuture<'a, Result<KnownSecrets, String>> {
        let mut known = KnownSecrets::default();
        for place in places {
            known.seals.insert(place.clone(), "seal".into());
            known.values.insert(place, Secret::new(CANARY.as_bytes()));
        }
        std::future::ready(Ok(known)).boxed()
    }
}

/// The secret is one that a phase uses, or the password of the host.
fn start(of_host: bool) -> Start {
    let env = json!([{"name": "PW", "secretKeyRef": {"name": "db", "key": "pw"}}]);
    let script = if of_host { json!({"script": "x"}) } else { json!({"script": "x", "secretEnv": env}) };
    let object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": {"configure": {"actions": [{"exec": script}]}}
        }
    });
    let group = Arc::new(resolve(&serde_json::from_value(object).unwrap(), &Default::default()).unwrap());
    let container = Container { namespace: "shop".into(), pod: "web-0".into(), container: "main".into() };
    let place = KeyRef { name: "sudo".into(), key: "pw".into() };
    let endpoint = Endpoint {
        namespace: "shop".into(),
        name: "web-0".into(),
        address: "192.0.2.1".into(),
        port: 22,
        user: "admin".into(),
        key: KeyRef { name: "ssh".into(), key: "key".into() },
        trust: Vec::new(),
        jump: None,
        elevation: Some(Elevation { user: "root".into(), password: Some(place) }),
        connect_timeout: Duration::from_secs(1),
    };
    Start {
        group,
        node_uid: "n".into(),
        identity: Identity {
            name: "web-0".into(),
            ordinal: 0,
            address: String::new(),
            attributes: Arc::default(),
            retry_token: String::new(),
            ack: String::new(),
        },
        incarnation: Meant { uid: "p".into(), instance: "c".into(), told: "p".into() },
        target: if of_host { Target::Machine(Arc::new(endpoint)) } else { Target::Container(container) },
        record: Record::default(),
        purpose: Purpose::Converge(Bound::Free),
    }
}

/// Found by review: stderr, noise and refusals went into conditions and events as they were, and the password of `become` was
/// masked nowhere.
#[tokio::test]
async fn what_is_said_of_a_session_that_failed_is_clean_and_has_no_secret_in_it() {
    for of_host in [false, true] {
        for fails in [Fails::Open, Fails::Noise, Fails::Stderr, Fails::NoShell, Fails::Flood, Fails::Malformed] {
            let (tasks, over) = (Tasks::default(), Arc::new(tokio::sync::Notify::new()));
            let wakes = over.clone();
            let limits = Limits::new(1);
            let metrics = Metrics::default();
            let runs = Runs::new(Arc::new(fails), Arc::new(Canary), limits, tasks.spawner(), metrics, move |_| {
                wakes.notify_one();
            });
            runs.start(start(of_host), Timestamp::now());
            let trouble = async {
                loop {
                    over.notified().await;
                    if let Some(trouble) = runs.seen("n").trouble {
                        return trouble;
                    }
                }
            };
            let trouble = timeout(Duration::from_secs(20), trouble).await.expect("it ends");
            let message = &trouble.message;
            assert!(!message.contains("c4n4ry") && !message.contains("the-mine"), "{fails:?}: {message}");
            assert!(message.contains("*****") || matches!(fails, Fails::Flood), "{fails:?}: {message}");
            assert!(!message.chars().any(|c| c.is_control() || c == '\u{202e}'), "{fails:?}: {message:?}");
            assert!(message.len() <= MESSAGE_LIMIT, "{fails:?}");
            if let Fails::Flood | Fails::Malformed | Fails::Noise | Fails::Stderr = fails {
                assert_eq!(trouble.reason, "AgentFailed", "{fails:?}: {message}");
            }
            tasks.shutdown().await;
        }
    }
}
