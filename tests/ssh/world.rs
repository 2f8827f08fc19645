//! What the tests have in common: secrets, a transport, and a talk with the agent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use ipnet::IpNet;
use pallet_core::target::Source;
use pallet_operator::transport::{
    Channel, Closed, OpenError,
    ssh::{Guard, Keyring, Keys, Ssh},
};
use zeroize::Zeroizing;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Handle, Runtime},
    time::{Instant, sleep, timeout},
};

use crate::server::Server;

/// Secrets and ConfigMaps, by `KIND/NAMESPACE/NAME/KEY`.
#[derive(Default)]
pub struct Ring(Mutex<HashMap<String, Vec<u8>>>);

impl Ring {
    pub fn put(&self, at: &str, bytes: impl Into<Vec<u8>>) {
        self.0.lock().unwrap().insert(at.to_owned(), bytes.into());
    }
}

impl Keyring for Ring {
    fn read<'a>(&'a self, namespace: &'a str, source: &'a Source) -> BoxFuture<'a, Result<Keys, String>> {
        let at = format!("{}/{namespace}/{}/", source.kind().to_lowercase(), source.at().name);
        let all = self.0.lock().unwrap();
        let of = |(place, bytes): (&String, &Vec<u8>)| {
            Some((place.strip_prefix(&at)?.to_owned(), Zeroizing::new(bytes.clone())))
        };
        let found: Keys = all.iter().filter_map(of).collect();
        let found = if found.is_empty() { Err(format!("there is no {at}")) } else { Ok(found) };
        async move { found }.boxed()
    }
}

/// A transport with its secrets.
pub struct World {
    pub ring: Arc<Ring>,
    pub ssh: Arc<Ssh>,
}

impl World {
    /// Knows the login's key of these servers (that of the first as `login`, that of the second as `hop`), and may connect
    /// to loopback.
    pub fn new(servers: &[&Server]) -> Self {
        Self::guarded(
            servers,
            Guard::new(Vec::new(), vec!["127.0.0.0/8".parse::<IpNet>().unwrap()]),
            Duration::from_secs(15),
        )
    }

    pub fn guarded(servers: &[&Server], guard: Guard, keepalive: Duration) -> Self {
        let ring = Arc::new(Ring::default());
        for (server, name) in servers.iter().zip(["login", "hop"]) {
            ring.put(&format!("secret/shop/{name}/id"), std::fs::read(server.scratch.path("login")).unwrap());
        }
        Self { ssh: Arc::new(Ssh::with_keepalive(ring.clone(), guard, keepalive)), ring }
    }

    /// Everything that was opened is dropped: no task, no connection, no memory is left of it.
    pub async fn settles(&self) {
        let metrics = Handle::current().metrics();
        let settled = async {
            while metrics.num_alive_tasks() > 0 || self.ssh.remembered() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let settled = timeout(Duration::from_secs(30), settled).await;
        assert!(settled.is_ok(), "{} tasks, {} places are left", metrics.num_alive_tasks(), self.ssh.remembered());
    }
}

/// Where the other side of a test runs, so that its tasks are not taken for those of the transport.
pub struct Elsewhere(Option<Runtime>);

impl Elsewhere {
    pub fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(Some(builder.worker_threads(1).enable_all().build().unwrap()))
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.as_ref().unwrap().spawn(task);
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// Why an attempt failed.
pub fn failed(opened: Result<Channel, OpenError>) -> OpenError {
    match opened {
        Ok(_) => panic!("the connection came about"),
        Err(error) => error,
    }
}

/// Sends the agent and greets it. Returns all that it says, to `ready`.
pub async fn greet(channel: &mut Channel) -> String {
    let agent = pallet_core::session::agent::script();
    let greeting = format!("{} -\n{agent}hello n0nce -\n", agent.len());
    channel.input.write_all(greeting.as_bytes()).await.unwrap();
    channel.input.flush().await.unwrap();
    let said = until(channel, "n0nce ready\n").await;
    assert!(said.contains("n0nce hello "), "{said}");
    said
}

/// Replaces the agent by a script of the test's own, and starts it.
pub async fn run_script(channel: &mut Channel, script: &str) {
    channel.input.write_all(format!("{} -\n{script}", script.len()).as_bytes()).await.unwrap();
    channel.input.flush().await.unwrap();
}

/// Reads until something was said.
pub async fn until(channel: &mut Channel, words: &str) -> String {
    let mut said = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !String::from_utf8_lossy(&said).contains(words) {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout_at(deadline, channel.output.read(&mut buffer)).await;
        match read.unwrap_or_else(|_| panic!("no {words:?}; it said {:?}", String::from_utf8_lossy(&said))).unwrap() {
            0 => {
                let closed = timeout(Duration::from_secs(30), &mut channel.closed).await;
                panic!("it ended before {words:?} ({closed:?}); it said {:?}", String::from_utf8_lossy(&said));
            }
            length => said.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8(said).unwrap()
}

/// How the channel ended, soon.
pub async fn closed(channel: &mut Channel) -> Closed {
    timeout(Duration::from_secs(30), &mut channel.closed).await.expect("it does not end")
}
