//! Names, claims and counts: what a node, its data and its group keep when they are edited, restored or deleted from outside.

use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::{Space, busybox, script, wait};

/// Pods that take their time to end, as those of a database do.
fn slow_to_end(seconds: u32) -> Value {
    let mut node = busybox();
    let spec = &mut node["pod"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(seconds);
    spec["containers"][0]["command"] = json!(["sh", "-c", "trap '' TERM; sleep infinity & wait"]);
    node
}

async fn node_names(space: &Space) -> Vec<String> {
    space.nodes().list(&Default::default()).await.unwrap().items.iter().map(ResourceExt::name_any).collect()
}

/// Case 18: it ended with web-0, web-3 and web-4.
#[tokio::test]
async fn a_count_that_flaps_renames_no_node() {
    let Some(space) = Space::new("flaps").await else { return };
    for service in [false, true] {
        let mut node = slow_to_end(8);
        if service {
            node["pod"]["serviceName"] = json!("web");
        }
        space.apply(json!({"count": 3, "node": node, "phases": {"configure": script("true")}})).await;
        space.ready().await;
        space.patch(json!({"spec": {"count": 1}})).await;
        wait("two nodes are going", || async {
            let nodes = space.nodes().list(&Default::default()).await.unwrap().items;
            let going = nodes.iter().filter(|node| node.metadata.deletion_timestamp.is_some()).count();
            if going == 2 { Ok(()) } else { Err(format!("{going}")) }
        })
        .await;
        space.patch(json!({"spec": {"count": 3}})).await;
        space.ready().await;
        assert_eq!(node_names(&space).await, ["web-0", "web-1", "web-2"]);
    }
}
