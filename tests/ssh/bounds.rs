//! How many connections there are at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use pallet_core::target::Endpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::sleep,
};

use crate::{
    server::{Server, Setup},
    world::{World, failed, greet},
};

/// Hosts that accept, say this and nothing more.
struct Mute {
    ports: Vec<u16>,
    /// How many connections there were: of those that greet, how many have answered.
    met: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Mute {
    async fn start(count: usize, greeting: &'static [u8]) -> Self {
        let (mut ports, mut tasks, met) = (Vec::new(), Vec::new(), Arc::<AtomicUsize>::default());
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            let met = met.clone();
            tasks.push(tokio::spawn(async move {
                let mut kept = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    if !greeting.is_empty() {
                        stream.write_all(greeting).await.unwrap();
                        stream.read_u8().await.unwrap();
                    }
                    met.fetch_add(1, Ordering::Relaxed);
                    kept.push(stream);
                }
            }));
        }
        Self { ports, met, tasks }
    }

    async fn has_met(&self, count: usize) {
        while self.met.load(Ordering::Relaxed) < count {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

#[tokio::test]
async fn a_third_connection_to_a_host_waits_for_one_of_two() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let endpoint = server.endpoint();
    let first = world.ssh.open(&endpoint).await.unwrap();
    let mut second = world.ssh.open(&endpoint).await.unwrap();
    let hasty = Endpoint { connect_timeout: Duration::from_millis(200), ..endpoint.clone() };
    let error = failed(world.ssh.open(&hasty).await);
    assert!(error.reason == "Unreachable" && error.message.contains("waiting for one of the 2 connections"), "{error}");
    assert_eq!(server.logins(), 2);
    let let_go = async {
        sleep(Duration::from_millis(200)).await;
        drop(first);
    };
    let (third, ()) = tokio::join!(world.ssh.open(&endpoint), let_go);
    greet(&mut third.unwrap()).await;
    greet(&mut second).await;
    drop(second);
    world.settles().await;
}

/// Connections that hang while the one that matters is opened.
struct Hanging(FuturesUnordered<BoxFuture<'static, ()>>);

impl Hanging {
    fn open(&self, world: &World, endpoint: Endpoint) {
        let ssh = world.ssh.clone();
        self.0.push(Box::pin(async move { drop(ssh.open(&endpoint).await) }));
    }

    /// What comes of something while they hang.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            Some(()) = self.0.next() => panic!("they are more patient"),
        }
    }
}

fn in_namespaces(server: &Server, namespaces: &[&str]) -> World {
    let world = World::new(&[server]);
    for namespace in namespaces {
        let key = std::fs::read(server.scratch.path("login")).unwrap();
        world.ring.put(&format!("secret/{namespace}/login/id"), key.clone());
        world.ring.put(&format!("secret/{namespace}/hop/id"), key);
    }
    world
}

const SILENT: &[u8] = b"";
const MUTE: &[u8] = b"SSH-2.0-mute\r\n";

/// Hosts that say nothing take no place; those that begin a handshake and hang take it until their deadline, half of all of one
/// namespace at most, and some are kept for namespaces that have few.
#[tokio::test]
async fn no_more_than_sixty_four_handshakes_are_under_way_and_half_of_them_of_a_namespace() {
    let server = Server::start(&Setup::default());
    let world = in_namespaces(&server, &["shop", "farm", "yard", "a", "b", "c", "d"]);
    let (all, one) = (&[("shop", 64)][..], &[("shop", 32)][..]);
    let (two, small) = (&[("shop", 32), ("farm", 32)][..], &[("a", 4), ("b", 4), ("c", 4), ("d", 4)][..]);
    // Who hangs, one after the other; how many of all have begun by then; who comes then.
    for (greeting, rounds, namespace, passes) in [
        (SILENT, vec![(all, 64)], "shop", true),
        (MUTE, vec![(one, 32)], "shop", false),
        (MUTE, vec![(one, 32)], "farm", true),
        (MUTE, vec![(two, 48)], "yard", true),
        (MUTE, vec![(two, 48), (small, 64)], "yard", false),
    ] {
        let all = rounds.iter().flat_map(|(round, _)| round.iter()).map(|(_, count)| count).sum();
        let mute = Mute::start(all, greeting).await;
        let mut ports = mute.ports.iter();
        let mut hanging = Hanging(FuturesUnordered::new());
        for (round, met) in &rounds {
            for (namespace, count) in *round {
                for port in ports.by_ref().take(*count) {
                    let namespace = (*namespace).to_owned();
                    hanging.open(&world, Endpoint { port: *port, namespace, ..server.endpoint() });
                }
            }
            hanging.during(mute.has_met(*met)).await;
        }
        let connect_timeout = Duration::from_secs(if passes { 20 } else { 1 });
        let good = Endpoint { connect_timeout, namespace: namespace.to_owned(), ..server.endpoint() };
        match hanging.during(world.ssh.open(&good)).await {
            Ok(channel) => {
                assert!(passes, "one more of {namespace} began");
                drop(channel);
            }
            Err(error) => {
                assert!(!passes && error.message.contains("waiting for one of the places for handshakes"), "{error}")
            }
        }
        drop(hanging);
        mute.end().await;
        world.settles().await;
    }
}

/// They list the third's host, or its jump host, as well, and have no key of it.
#[tokio::test]
async fn two_namespaces_full_of_hosts_that_fall_silent_do_not_keep_a_third_from_its_host() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = in_namespaces(&server, &["farm", "yard"]);
    for (name, of) in [("login", &server), ("hop", &hop)] {
        world.ring.put(&format!("secret/shop/{name}/id"), std::fs::read(of.scratch.path("login")).unwrap());
    }
    let mute = Mute::start(68, MUTE).await;
    let mut hanging = Hanging(FuturesUnordered::new());
    for (at, port) in mute.ports.iter().enumerate() {
        let namespace = if at < 34 { "farm" } else { "yard" }.to_owned();
        hanging.open(&world, Endpoint { port: *port, namespace, ..server.endpoint() });
    }
    hanging.during(mute.has_met(48)).await;
    for namespace in ["farm", "yard"] {
        for _ in 0..2 {
            let endpoint = Endpoint { namespace: namespace.into(), ..server.endpoint() };
            hanging.open(&world, Endpoint { jump: Some(hop.hop()), ..endpoint.clone() });
            hanging.open(&world, endpoint);
        }
    }
    // They are connected to it, and wait for what they fill themselves.
    hanging.during(sleep(Duration::from_millis(500))).await;
    let good = Endpoint { connect_timeout: Duration::from_secs(15), ..server.endpoint() };
    let through = Endpoint { jump: Some(hop.hop()), ..good.clone() };
    for endpoint in [&good, &through] {
        let opened = hanging.during(world.ssh.open(endpoint)).await;
        let mut channel = opened.unwrap_or_else(|error| panic!("it is kept from its host: {error}"));
        hanging.during(greet(&mut channel)).await;
    }
    drop(hanging);
    mute.end().await;
    world.settles().await;
}

#[tokio::test]
async fn no_more_than_sixty_four_connections_lead_through_a_jump_host() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    let mute = Mute::start(33, b"").await;
    let patient = |&port| Endpoint { port, jump: Some(hop.hop()), ..server.endpoint() };
    let hanging: Vec<_> = mute.ports.iter().take(32).flat_map(|port| [patient(port), patient(port)]).collect();
    let hanging = join_all(hanging.iter().map(|endpoint| world.ssh.open(endpoint)));
    let hasty = Endpoint { connect_timeout: Duration::from_secs(1), ..patient(&mute.ports[32]) };
    let one_more = async {
        mute.has_met(64).await;
        world.ssh.open(&hasty).await
    };
    let opened = tokio::select! {
        opened = one_more => opened,
        _ = hanging => panic!("they are more patient"),
    };
    let error = failed(opened);
    assert!(error.message.contains("waiting for one of the 64 places through the jump host"), "{error}");
    assert_eq!(hop.logins(), 1);
    mute.end().await;
    world.settles().await;
}
