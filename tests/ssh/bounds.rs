//! How many connections there are at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use pallet_operator::transport::target::Endpoint;
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

/// Hosts that say nothing take no place; those that begin a handshake and hang take it until their deadline, and no more of one
/// namespace than leave some to the others.
#[tokio::test]
async fn no_more_than_sixty_four_handshakes_are_under_way_and_half_of_them_of_a_namespace() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    for namespace in ["farm", "yard"] {
        let key = std::fs::read(server.scratch.path("login")).unwrap();
        world.ring.put(&format!("secret/{namespace}/login/id"), key);
    }
    let (silent, mute) = (&b""[..], &b"SSH-2.0-mute\r\n"[..]);
    for (greeting, of, namespace, passes) in [
        (silent, &["shop"; 64][..], "shop", true),
        (mute, &["shop"; 32], "shop", false),
        (mute, &["shop"; 32], "farm", true),
        (mute, &[["shop"; 32], ["farm"; 32]].concat(), "yard", false),
    ] {
        let mute = Mute::start(of.len(), greeting).await;
        let patient = |(&port, namespace): (&u16, &&str)| Endpoint {
            port,
            namespace: (*namespace).to_owned(),
            ..server.endpoint()
        };
        let connect_timeout = Duration::from_secs(if passes { 20 } else { 1 });
        let good = Endpoint { connect_timeout, namespace: namespace.to_owned(), ..server.endpoint() };
        let bad: Vec<_> = mute.ports.iter().zip(of).map(patient).collect();
        let hanging = join_all(bad.iter().map(|endpoint| world.ssh.open(endpoint)));
        let healthy = async {
            mute.has_met(of.len()).await;
            world.ssh.open(&good).await
        };
        // What hangs is given up when the one that matters is over.
        let opened = tokio::select! {
            opened = healthy => opened,
            _ = hanging => panic!("they are more patient"),
        };
        match opened {
            Ok(channel) => {
                assert!(passes, "one more of {namespace} began");
                drop(channel);
            }
            Err(error) => {
                assert!(!passes && error.message.contains("waiting for one of the places for handshakes"), "{error}")
            }
        }
        mute.end().await;
        world.settles().await;
    }
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
