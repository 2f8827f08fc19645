//! Real hosts for tests: sshd in namespaces of its own, made by `tests/hosts/hosts`. They end with the test.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{PATIENCE, Space};

/// Hosts of one test.
pub struct Hosts {
    directory: PathBuf,
    pub all: Vec<Host>,
}

/// A host as it was made.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    pub name: String,
    pub address: String,
    pub port: u16,
    pub host_keys: Vec<String>,
    /// Where the private key is that it lets in.
    pub key: PathBuf,
}

impl Host {
    /// As an inventory lists it.
    pub fn listed(&self) -> Value {
        let ed25519: Vec<&String> = self.host_keys.iter().filter(|key| key.starts_with("ssh-ed25519")).collect();
        json!({"name": self.name, "address": self.address, "port": self.port, "hostKeys": ed25519})
    }
}

impl Hosts {
    /// So many hosts, and a Secret `login` in the test's namespace with the key that they let in.
    pub async fn new(space: &Space, count: usize) -> Self {
        Self::with(space, count, &[]).await
    }

    /// The same, made otherwise.
    pub async fn with(space: &Space, count: usize, options: &[&str]) -> Self {
        let directory = space.shared_dir().with_extension("hosts");
        let mut hosts = Self { directory, all: Vec::new() };
        // No two tests have hosts of the same name or address.
        let (pid, number) = (std::process::id().to_string(), count.to_string());
        let mut arguments = vec!["up", number.as_str(), "--prefix", "host", "--while", pid.as_str()];
        arguments.extend(options);
        let made = hosts.tool(&arguments).await;
        hosts.all = made.lines().map(|line| serde_json::from_str(line).expect("a host")).collect();
        assert_eq!(hosts.all.len(), count, "{made}");
        let key = std::fs::read_to_string(&hosts.all[0].key).expect("the key");
        space.secret("login", json!({"ssh-privatekey": key})).await;
        hosts
    }

    /// Runs the tool on these hosts.
    pub async fn tool(&self, arguments: &[&str]) -> String {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/hosts");
        let mut command = Command::new(tool);
        command.arg("--dir").arg(&self.directory).args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("hosts in time").expect("hosts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "hosts {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Runs a script on a host, past the operator.
    pub async fn run(&self, host: &str, script: &str) -> String {
        self.tool(&["exec", host, "--", "sh", "-c", script]).await
    }

    /// A group's `node`, with these hosts in its inventory.
    pub fn node(&self) -> Value {
        let inventory: Vec<Value> = self.all.iter().map(Host::listed).collect();
        Self::listing(&json!(inventory))
    }

    /// The same, with another inventory.
    pub fn listing(inventory: &Value) -> Value {
        json!({"hosts": {"key": {"secretKeyRef": {"name": "login"}}, "inventory": inventory}})
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosts/hosts");
        let _ = std::process::Command::new(tool).arg("--dir").arg(&self.directory).arg("down").output();
    }
}
