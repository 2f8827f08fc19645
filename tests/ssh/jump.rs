//! Hosts behind a jump host.

use std::time::Duration;

use futures::future::join_all;
use pallet_core::target::{Endpoint, Trust};
use pallet_operator::transport::ssh::Guard;
use tokio::{
    io::AsyncReadExt,
    time::{sleep, timeout},
};

use crate::{
    server::{Server, Setup},
    world::{World, closed, failed, greet, run_script, until},
};

fn through(server: &Server, hop: &Server) -> Endpoint {
    Endpoint { jump: Some(hop.hop()), ..server.endpoint() }
}

/// A condition of a server's log, soon.
async fn soon(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), holds).await.is_ok(), "{what}");
}

fn farewells(server: &Server) -> usize {
    let log = server.log();
    log.matches("Connection closed by").count()
        + log.matches("Connection reset by").count()
        + log.matches("Received disconnect from").count()
}

#[tokio::test]
async fn a_connection_to_a_jump_host_is_shared_and_closed_with_the_last() {
    let (server, other, hop) =
        (Server::start(&Setup::default()), Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    world.ring.put("secret/shop/other/id", std::fs::read(other.scratch.path("login")).unwrap());
    let mut second = through(&other, &hop);
    second.key.name = "other".into();
    let endpoints = [through(&server, &hop), second, through(&server, &hop)];
    // All at once, so that they meet while the jump host is being connected to.
    let opened = join_all(endpoints.iter().map(|endpoint| world.ssh.open(endpoint))).await;
    let mut channels: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    for channel in &mut channels {
        greet(channel).await;
    }
    assert_eq!((hop.logins(), server.logins(), other.logins()), (1, 2, 1));
    let gone = farewells(&hop);
    let left = farewells(&server) + farewells(&other);
    channels.pop();
    channels.pop();
    soon("both hosts are left", || farewells(&server) + farewells(&other) == left + 2).await;
    assert_eq!(farewells(&hop), gone, "somebody still needs it");
    until_answer(&mut channels[0]).await;
    drop(channels);
    world.settles().await;
    soon("the jump host is left", || farewells(&hop) == gone + 1).await;
    drop(world.ssh.open(&endpoints[0]).await.unwrap());
    assert_eq!(hop.logins(), 2, "a new one");
    world.settles().await;
}

async fn until_answer(channel: &mut pallet_operator::transport::Channel) {
    use tokio::io::AsyncWriteExt;
    channel.input.write_all(b"hello n0nce -\n").await.unwrap();
    until(channel, "ready\n").await;
}

#[tokio::test]
async fn a_jump_host_is_another_one_where_anything_of_it_differs() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    let one = through(&server, &hop);
    let mut other = one.clone();
    other.jump.as_mut().unwrap().trust.push(Trust::Key(server.host_key("ed25519")));
    let _first = world.ssh.open(&one).await.unwrap();
    let _second = world.ssh.open(&other).await.unwrap();
    assert_eq!(hop.logins(), 2);
}

#[tokio::test]
async fn both_hosts_have_to_be_trusted_and_to_let_in() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    let good = through(&server, &hop);
    let named = format!("web-1 (127.0.0.1 port {})", server.port);
    let mut untrusted = good.clone();
    untrusted.jump.as_mut().unwrap().trust = server.endpoint().trust;
    let error = failed(world.ssh.open(&untrusted).await);
    assert_eq!(error.reason, "HostKeyChanged");
    let expected = format!("{named}: the jump host 127.0.0.1 port {}: the host key", hop.port);
    assert!(error.message.starts_with(&expected), "{}", error.message);
    assert_eq!(hop.logins(), 0);
    let error = failed(world.ssh.open(&Endpoint { trust: hop.endpoint().trust, ..good.clone() }).await);
    assert!(
        error.reason == "HostKeyChanged" && error.message.starts_with(&format!("{named}: the host key")),
        "{}",
        error.message
    );
    world.settles().await;
    world.ring.put("secret/shop/hop/id", std::fs::read(server.scratch.path("login")).unwrap());
    let error = failed(world.ssh.open(&good).await);
    assert!(error.reason == "AuthenticationFailed" && error.message.contains("the jump host"), "{}", error.message);
    world.settles().await;
}

/// Ten who wait for the same failing attempt are one login that is refused, not ten.
#[tokio::test]
async fn who_waits_for_a_jump_host_shares_its_failure() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    world.ring.put("secret/shop/hop/id", std::fs::read(server.scratch.path("login")).unwrap());
    let endpoint = through(&server, &hop);
    let opened = join_all((0..2).map(|_| world.ssh.open(&endpoint))).await;
    opened.into_iter().for_each(|opened| assert_eq!(failed(opened).reason, "AuthenticationFailed"));
    world.settles().await;
    soon("one attempt", || hop.log().matches("Connection closed by authenticating user").count() >= 1).await;
    assert_eq!(hop.log().matches("Connection closed by authenticating user").count(), 1, "{}", hop.log());
}

#[tokio::test]
async fn a_jump_host_that_does_not_connect_says_why() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let strict = Server::start(&Setup { config: "AllowTcpForwarding no\n".into(), ..Setup::default() });
    let world = World::new(&[&server, &hop]);
    let error = failed(world.ssh.open(&Endpoint { port: 1, ..through(&server, &hop) }).await);
    assert!(error.reason == "Unreachable" && error.message.contains("nobody answers there"), "{}", error.message);
    let nowhere = Endpoint { address: "no-such-host.invalid".into(), ..through(&server, &hop) };
    let error = failed(world.ssh.open(&nowhere).await);
    assert!(error.reason == "Unreachable" && error.message.contains("the name is not known"), "{}", error.message);
    world.ring.put("secret/shop/hop/id", std::fs::read(strict.scratch.path("login")).unwrap());
    let error = failed(world.ssh.open(&through(&server, &strict)).await);
    assert!(error.reason == "JumpHostFailed" && error.message.contains("AllowTcpForwarding"), "{}", error.message);
    world.settles().await;
}

#[tokio::test]
async fn a_jump_host_that_broke_is_not_used_again() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    let endpoint = through(&server, &hop);
    let mut channel = world.ssh.open(&endpoint).await.unwrap();
    greet(&mut channel).await;
    hop.signal_sessions("KILL");
    let closed = closed(&mut channel).await;
    assert!(!closed.no_shell && closed.message.contains("connection"), "{closed:?}");
    // The broken one is still held.
    let mut second = world.ssh.open(&endpoint).await.unwrap();
    greet(&mut second).await;
    assert_eq!(hop.logins(), 2);
    drop((channel, second));
    world.settles().await;
}

#[tokio::test]
async fn a_literal_address_behind_a_jump_host_is_judged_as_well() {
    let (server, hop) = (Server::start(&Setup::default()), Server::start(&Setup::default()));
    let guard = Guard::new(Vec::new(), vec!["127.0.0.1/32".parse().unwrap()]);
    let world = World::guarded(&[&server, &hop], guard, Duration::from_secs(15));
    for address in ["127.0.0.2", "::1", "169.254.169.254", "0x7f000001"] {
        let error = failed(world.ssh.open(&Endpoint { address: address.into(), ..through(&server, &hop) }).await);
        assert_eq!(error.reason, "AddressNotAllowed", "{address}");
    }
    assert_eq!(hop.logins(), 0);
    world.settles().await;
}

/// The library reads for all channels of a connection or for none.
#[tokio::test]
async fn a_host_that_floods_its_tunnel_does_not_stop_its_neighbour() {
    let (server, other, hop) =
        (Server::start(&Setup::default()), Server::start(&Setup::default()), Server::start(&Setup::default()));
    let world = World::new(&[&server, &hop]);
    world.ring.put("secret/shop/other/id", std::fs::read(other.scratch.path("login")).unwrap());
    let mut quiet = through(&other, &hop);
    quiet.key.name = "other".into();
    let mut loud = world.ssh.open(&through(&server, &hop)).await.unwrap();
    let mut quiet = world.ssh.open(&quiet).await.unwrap();
    assert_eq!(hop.logins(), 1);
    // Nobody reads what it prints.
    run_script(&mut loud, "yes pallet\n").await;
    sleep(Duration::from_millis(500)).await;
    greet(&mut quiet).await;
    until_answer(&mut quiet).await;
    // It was not cut either: a host that honours its window has room.
    let mut some = vec![0; 4 << 20];
    let read = timeout(Duration::from_secs(30), loud.output.read_exact(&mut some)).await;
    assert!(read.is_ok_and(|read| read.is_ok()), "it goes on where it was");
    drop((loud, quiet));
    world.settles().await;
}
