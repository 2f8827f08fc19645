//! Secrets: canaries are planted, printed in every guise, and looked for wherever the operator writes anything.

use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{AUDIT_LOG, PATIENCE, Space, busybox, condition, phase_result};

/// Prints its secret as it is, in base64 (broken over lines, too), in hexadecimal, URL-encoded, in two pieces with a pause
/// between them, and as the last word of a failure.
const LEAK: &str = r#"
echo "raw $PW"
printf '%s' "$PW" | base64
printf 'user:%s' "$PW" | base64 | sed 's/.\{10\}/&\n/g'
printf '%s' "$PW" | od -An -v -tx1 | tr -d ' \n'; echo
printf '%s' "$PW" | sed 's|/|%2F|g; s|+|%2B|g; s| |%20|g'; echo
head=${PW%?????????}
printf '%s' "$head"; sleep 1; printf '%s\n' "${PW#"$head"}"
cat /pw
case $PW in first*) echo "failed with $PW" >&2; exit 7 ;; esac
"#;

/// What everything that the operator writes or says is searched for.
async fn guises(space: &Space, value: &str) -> Vec<String> {
    let encode = |with: &str| format!("printf '%s' '{value}' | {with} | tr -d '\\n'");
    let mut guises = vec![value.to_owned(), value.replace('/', "%2F").replace('+', "%2B").replace(' ', "%20")];
    for with in ["base64", "od -An -v -tx1 | tr -d ' '"] {
        guises.push(space.exec("web-0", &encode(with)).await);
    }
    // What stands in a base64 whatever stands before it.
    for before in ["user:", "a", "ab"] {
        let text = space.exec("web-0", &format!("printf '%s' '{before}{value}' | base64 | tr -d '\\n'")).await;
        guises.push(text[8..text.len() - 8].to_owned());
    }
    guises.push(value[..value.len() - 9].to_owned());
    guises
}

fn assert_clean(sink: &str, text: &str, guises: &[String]) {
    let squeezed: String = text.split_whitespace().collect();
    for guise in guises {
        let squeezed_guise: String = guise.split_whitespace().collect();
        let found = squeezed
            .find(&squeezed_guise)
            .map(|at| squeezed[at.saturating_sub(80)..].chars().take(160).collect::<String>());
        assert!(found.is_none(), "{sink} holds {guise:?}: ...{found:?}");
        // JSON within JSON and logs may have escaped it.
        let escaped = guise.replace('/', "\\/");
        assert!(!text.contains(guise.as_str()) && !text.contains(&escaped), "{sink} holds {guise:?}");
    }
}

/// What Prometheus would be told. The operator has said where.
async fn metrics(space: &Space) -> String {
    let log = std::fs::read_to_string(space.scratch("operator.log")).unwrap();
    let address =
        log.split("http_address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("a request");
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an answer in time").expect("text");
    text
}

#[tokio::test]
async fn canaries_are_found_nowhere_and_a_change_of_theirs_is_noticed() {
    let Some(mut space) = Space::bare("secrets").await else { return };
    space.environment.push(("PALLET_SECRET_POLL", "1s".into()));
    space.start_operator();
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    let (first, second) = ("first/c4nary+Zx81 qwertzuiop", "second/c4nary+Yw92 asdfghjkl");
    let keep = |value: &str| {
        let object =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"pw": value}});
        let secrets = secrets.clone();
        let parameters = PatchParams::apply("e2e").force();
        async move { secrets.patch("db", &parameters, &Patch::Apply(object)).await.expect("the Secret") }
    };
    let key = json!({"name": "db", "key": "pw"});
    space
        .apply(json!({"node": busybox(), "phases": {"configure": {"actions": [
            {"name": "file", "secretFile": {"path": "/pw", "secretKeyRef": key, "mode": "0644"}},
            {"name": "leak", "exec": {"script": LEAK, "secretEnv": [{"name": "PW", "secretKeyRef": key}]}}
        ]}}, "converge": {"retry": {"limit": 0}, "driftCheck": {"interval": "10s"}}}))
        .await;
    let lacking = space.until("Stalled", |group| condition(group, "Stalled").0 == "True").await;
    let message = condition(&lacking, "Stalled").2;
    assert!(message.contains("configure.actions[0].secretFile.secretKeyRef: there is no Secret \"db\""), "{message}");
    keep(first).await;
    space.until("the failure", |group| condition(group, "Stalled").1 == "PhaseFailed").await;
    let mut searched = guises(&space, first).await;
    let node = space.nodes().get("web-0").await.unwrap();
    let failed = phase_result(&node, "configure").unwrap();
    assert!(failed.output.contains("raw *****") && failed.output.ends_with("failed with *****\n"), "{}", failed.output);
    assert_eq!(space.exec("web-0", "cat /pw").await, first);
    // Another value: the phase runs again, and succeeds.
    keep(second).await;
    space.ready().await;
    assert_eq!(space.exec("web-0", "cat /pw").await, second);
    searched.extend(guises(&space, second).await);
    // A look at the node has the secret, too.
    space.node_until("web-0", "it was looked at", |node| node.status.as_ref().is_some_and(|s| s.drift.is_some())).await;
    let metrics = metrics(&space).await;
    assert!(metrics.contains("pallet_phase_duration_seconds"), "there is something to look at");
    assert_clean("a metric", &metrics, &searched);
    space.kill_operator().await;

    let groups = space.groups().list(&ListParams::default()).await.unwrap();
    let nodes = space.nodes().list(&ListParams::default()).await.unwrap();
    assert_clean("a GroupSpec", &serde_json::to_string(&groups.items).unwrap(), &searched);
    assert_clean("a GroupNode", &serde_json::to_string(&nodes.items).unwrap(), &searched);
    let events: Api<Event> = Api::namespaced(space.client.clone(), &space.name);
    let events = serde_json::to_string(&events.list(&ListParams::default()).await.unwrap().items).unwrap();
    assert!(events.contains("PhaseFailed"), "there is something to look at");
    assert_clean("an event", &events, &searched);
    let log = std::fs::read_to_string(space.scratch("operator.log")).unwrap();
    assert!(log.contains("frame=Ended") && log.contains("*****"), "the log has the masked output at debug level");
    assert_clean("the log", &log, &searched);
    let audit = std::fs::read_to_string(AUDIT_LOG).unwrap();
    let own: String =
        audit.lines().filter(|line| line.contains(&space.name) && line.contains("pallet-operator/")).collect();
    assert!(own.contains("groupnodes"), "there is something to look at");
    assert_clean("the audit log", &own, &searched);
    // The node's disk, but for the file that is meant and the output in the journal, which only root may read.
    let search = |value: &str| {
        format!(
            "find / -xdev -type f -exec grep -lF '{value}' {{}} + | grep -vx /pw | \
             grep -vE '^/var/lib/pallet/runs/[^/]*/out[.]'; stat -c %a /var/lib/pallet"
        )
    };
    for value in [first, second] {
        assert_eq!(space.exec("web-0", &search(value)).await, "700\n");
    }
}
