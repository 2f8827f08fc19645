//! What nodes stand on: pods, hosts, virtual machines. One suite runs on each of them, unchanged.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::Api;
use pallet_core::node::kubevirt::VirtualMachine;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    harness::{self, PATIENCE, Space, wait},
    sshd::Hosts,
};

/// What the nodes of a test stand on.
pub enum Ground {
    /// Pods of this image.
    Pods(&'static str),
    /// Hosts with sshd.
    Hosts(Hosts),
    /// Guests of KubeVirt.
    VirtualMachines,
}

impl Ground {
    /// So many hosts.
    pub async fn hosts(space: &Space, count: usize) -> Self {
        Self::Hosts(Hosts::new(space, count).await)
    }

    /// A group's `node`.
    pub fn node(&self) -> Value {
        match self {
            Self::Pods(image) => harness::node(image),
            Self::Hosts(hosts) => hosts.node(),
            Self::VirtualMachines => guest(),
        }
    }

    /// Runs a script as root on a node of group `web`, past the operator.
    pub async fn run(&self, space: &Space, node: &str, script: &str) -> String {
        match self {
            Self::Pods(_) => space.kubectl_exec(node, script).await,
            Self::Hosts(hosts) => {
                let node = space.nodes().get(node).await.expect("the node");
                hosts.run(&node.spec.host.expect("a host").name, script).await
            }
            Self::VirtualMachines => in_guest(space, node, script).await,
        }
    }
}

/// A virtual machine with a new disk at each start.
pub fn guest() -> Value {
    let disks = json!([{"name": "root", "disk": {"bus": "virtio"}}]);
    let volumes = json!([{"name": "root", "containerDisk": {"image": "localhost/pallet-guest:1"}}]);
    json!({"virtualMachine": {"template": {"spec": {"template": {"spec": {
        "terminationGracePeriodSeconds": 5,
        "domain": {"devices": {"disks": disks}, "memory": {"guest": "256Mi"}},
        "volumes": volumes
    }}}}}})
}

/// What a guest was told at its first start: the Secret that its machine names.
pub async fn told(space: &Space, node: &str) -> BTreeMap<String, ByteString> {
    let machines: Api<VirtualMachine> = Api::namespaced(space.client.clone(), &space.name);
    let machine = serde_json::to_value(machines.get(node).await.expect("its machine")).unwrap();
    let volumes = machine["spec"]["template"]["spec"]["volumes"].as_array().expect("volumes");
    let name = volumes.iter().find_map(|volume| volume["cloudInitNoCloud"]["secretRef"]["name"].as_str());
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.name);
    secrets.get(name.expect("its name")).await.expect("its Secret").data.expect("data")
}

/// Logs in on a guest with what its Secret holds, as a person could.
async fn in_guest(space: &Space, node: &str, script: &str) -> String {
    let secret = told(space, node).await;
    let (key, known) = (space.scratch(&format!("{node}.key")), space.scratch(&format!("{node}.known")));
    std::fs::write(&key, &secret["ssh-privatekey"].0).unwrap();
    std::fs::write(&known, &secret["known_hosts"].0).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    wait("a login in the guest", || async {
        let address = space.nodes().get(node).await.ok().and_then(|node| node.status?.address);
        let address = address.ok_or("it has no address")?;
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "StrictHostKeyChecking=yes",
        ]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known.display())).arg("-i").arg(&key);
        command.arg(format!("pallet@{address}")).arg("sudo -n sh").kill_on_drop(true);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("ssh, of the package openssh-client");
        let mut input = child.stdin.take().expect("its input");
        tokio::io::AsyncWriteExt::write_all(&mut input, script.as_bytes()).await.map_err(|error| error.to_string())?;
        drop(input);
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("ssh in time").unwrap();
        match output.status.code() {
            // ssh itself failed, and not the script.
            Some(255) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            code => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(code, Some(0), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
                Ok(said)
            }
        }
    })
    .await
}
