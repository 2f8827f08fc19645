//! Which hosts are trusted.

use std::fs;

use pallet_core::{
    phase::action::KeyRef,
    target::{Endpoint, Source, Trust},
};
use pallet_operator::transport::ssh::Guard;

use crate::{
    server::{Scratch, Server, Setup, keygen, said},
    world::{World, closed, failed, greet},
};
use tokio::io::AsyncWriteExt;

/// Nobody logged in, and not even the user's name was sent.
fn nothing_was_sent(server: &Server) {
    let log = server.log();
    assert!(
        !log.contains("authenticating user") && !log.contains("Accepted") && !log.contains("Invalid user"),
        "{log}"
    );
}

async fn reason(world: &World, endpoint: &Endpoint) -> (&'static str, String) {
    let error = failed(world.ssh.open(endpoint).await);
    world.settles().await;
    (error.reason.as_str(), error.message.to_string())
}

fn known_hosts(world: &World, text: &str) -> Vec<Trust> {
    world.ring.put("configmap/shop/hosts/known_hosts", text);
    vec![Trust::KnownHosts(Source::ConfigMap(KeyRef { name: "hosts".into(), key: "known_hosts".into() }))]
}

#[tokio::test]
async fn a_pinned_host_answers_with_the_agents_greeting() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    greet(&mut channel).await;
    channel.input.write_all(b"bye\n").await.unwrap();
    let closed = closed(&mut channel).await;
    assert!(!closed.no_shell && *closed.message == *"the shell ended with exit code 0", "{closed:?}");
    drop(channel);
    world.settles().await;
}

#[tokio::test]
async fn a_host_that_nothing_is_known_of_is_shown_and_not_logged_in_to() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let endpoint = Endpoint { trust: Vec::new(), ..server.endpoint() };
    let (reason, message) = reason(&world, &endpoint).await;
    assert_eq!(reason, "HostKeyUnknown");
    let public = server.scratch.path("host-ed25519.pub");
    let listed = said("ssh-keygen", &["-lf", public.to_str().unwrap()]);
    let fingerprint = listed.split(' ').nth(1).unwrap();
    assert!(message.starts_with(&format!("web-1 (127.0.0.1 port {}): ", server.port)), "{message}");
    assert!(message.contains(fingerprint) && message.contains(&server.host_key("ed25519")), "{message}");
    nothing_was_sent(&server);
}

#[tokio::test]
async fn a_host_whose_key_changed_is_refused() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let other = server.scratch.key("other", "ed25519");
    let (reason, message) = reason(&world, &Endpoint { trust: vec![Trust::Key(other)], ..server.endpoint() }).await;
    assert_eq!(reason, "HostKeyChanged");
    assert!(message.matches("SHA256:").count() == 2 && message.contains(&server.host_key("ed25519")), "{message}");
    nothing_was_sent(&server);
}

#[tokio::test]
async fn known_hosts_are_looked_up_as_openssh_does() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let (key, port) = (server.host_key("ed25519"), server.port);
    let hashed = server.scratch.path("known_hosts");
    fs::write(&hashed, format!("[127.0.0.1]:{port} {key}\n")).unwrap();
    keygen(&["-H", "-f", hashed.to_str().unwrap()]);
    let hashed = fs::read_to_string(hashed).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    for (text, expected) in [
        (format!("[127.0.0.1]:{port} {key}\n"), ""),
        (hashed.clone(), ""),
        (format!("rubbish\n# comment\n127.0.0.* {key}\n"), ""),
        (format!("[127.0.0.1]:{} {key}\nrubbish\n", port ^ 1), "HostKeyUnknown"),
        (format!("{hashed}@revoked * {key}\n"), "HostKeyRevoked"),
        (format!("*,!127.0.0.1,![127.0.0.1]:{port} {key}\n"), "HostKeyUnknown"),
    ] {
        let endpoint = Endpoint { trust: known_hosts(&world, &text), ..server.endpoint() };
        let opened = world.ssh.open(&endpoint).await;
        assert_eq!(opened.as_ref().err().map_or("", |error| error.reason.as_str()), expected, "{text}");
        if let Err(error) = opened
            && text.contains("rubbish")
        {
            assert!(error.message.contains("1 line of the known hosts"), "{}", error.message);
        }
    }
    world.settles().await;
}

#[tokio::test]
async fn trust_that_cannot_be_read_is_named() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let pinned = Trust::Key(server.host_key("ed25519"));
    let endpoint =
        Endpoint { trust: vec![pinned.clone(), Trust::Key("ssh-ed25519 nonsense".into())], ..server.endpoint() };
    let (why, message) = reason(&world, &endpoint).await;
    assert!(why == "InvalidKnownHosts" && message.contains("trust[1]: it is no OpenSSH public key"), "{message}");
    let mut endpoint = Endpoint { trust: known_hosts(&world, ""), ..server.endpoint() };
    let missing = KeyRef { name: "hosts".into(), key: "else".into() };
    endpoint.trust = vec![Trust::KnownHosts(Source::ConfigMap(missing))];
    let (why, message) = reason(&world, &endpoint).await;
    assert!(why == "InvalidKnownHosts" && message.contains("key else of the ConfigMap hosts"), "{message}");
}

#[tokio::test]
async fn a_host_with_ecdsa_only_is_trusted_by_that_key() {
    let server = Server::start(&Setup { host_keys: vec!["ecdsa"], ..Setup::default() });
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    greet(&mut channel).await;
    let other = server.scratch.key("other", "ed25519");
    let (why, message) = reason_beside(&world, &Endpoint { trust: vec![Trust::Key(other)], ..server.endpoint() }).await;
    assert!(why == "HostKeyChanged" && message.contains("ecdsa-sha2-nistp256 SHA256:"), "{message}");
}

/// Where another connection is still open.
async fn reason_beside(world: &World, endpoint: &Endpoint) -> (&'static str, String) {
    let error = failed(world.ssh.open(endpoint).await);
    (error.reason.as_str(), error.message.to_string())
}

#[tokio::test]
async fn of_several_host_keys_the_pinned_one_is_asked_for() {
    let server = Server::start(&Setup { host_keys: vec!["ecdsa", "rsa", "ed25519"], ..Setup::default() });
    let world = World::new(&[&server]);
    for kind in ["ed25519", "ecdsa"] {
        let endpoint = Endpoint { trust: vec![Trust::Key(server.host_key(kind))], ..server.endpoint() };
        assert!(world.ssh.open(&endpoint).await.is_ok(), "{kind}");
    }
    world.settles().await;
}

#[tokio::test]
async fn a_host_with_rsa_only_is_told_to_get_another_key() {
    let server = Server::start(&Setup { host_keys: vec!["rsa"], ..Setup::default() });
    let world = World::new(&[&server]);
    let (why, message) =
        reason(&world, &Endpoint { trust: vec![Trust::Key(server.host_key("rsa"))], ..server.endpoint() }).await;
    assert!(
        why == "HostKeyUnknown" && message.contains("rsa-sha2-512") && message.contains("ssh-keygen -A"),
        "{message}"
    );
    nothing_was_sent(&server);
}

/// A server whose host key an authority has signed.
fn certified(arguments: &[&str]) -> Server {
    let scratch = Scratch::new();
    scratch.key("authority", "ed25519");
    scratch.key("host-ed25519", "ed25519");
    scratch.certify("authority", "host-ed25519", arguments);
    let config = format!("HostCertificate {}\n", scratch.path("host-ed25519-cert.pub").display());
    Server::start_in(scratch, &Setup { config, ..Setup::default() })
}

#[tokio::test]
async fn a_host_certificate_is_accepted_where_its_authority_is_trusted() {
    let server = certified(&["-h", "-n", "web,127.0.0.1", "-V", "-1h:+1h"]);
    let world = World::new(&[&server]);
    let authority = server.scratch.key("authority", "ed25519");
    for trust in [
        vec![Trust::Key(format!("@cert-authority {authority}"))],
        known_hosts(&world, &format!("@cert-authority 127.0.0.* {authority}\n")),
    ] {
        let mut channel = world.ssh.open(&Endpoint { trust, ..server.endpoint() }).await.unwrap();
        greet(&mut channel).await;
    }
    // An authority of other hosts is none of this one, whose plain key is shown then.
    let trust = known_hosts(&world, &format!("@cert-authority *.example.com {authority}\n"));
    let (why, _) = reason(&world, &Endpoint { trust, ..server.endpoint() }).await;
    assert_eq!(why, "HostKeyUnknown");
}

#[tokio::test]
async fn a_host_certificate_that_is_not_good_is_refused_with_the_reason() {
    for (arguments, expected) in [
        (&["-h", "-n", "127.0.0.1", "-V", "-2h:-1h"][..], "it was valid until "),
        (&["-h", "-n", "127.0.0.1", "-V", "+1h:+2h"], "it is not valid before "),
        (&["-h", "-n", "web,db", "-V", "-1h:+1h"], "it is for web, db, not for 127.0.0.1"),
        (&["-h", "-V", "-1h:+1h"], "it is for no host at all"),
    ] {
        let server = certified(arguments);
        let world = World::new(&[&server]);
        let authority = server.scratch.key("authority", "ed25519");
        let trust = vec![Trust::Key(format!("@cert-authority {authority}"))];
        let (why, message) = reason(&world, &Endpoint { trust, ..server.endpoint() }).await;
        assert!(why == "HostCertificateInvalid" && message.contains(expected), "{expected}: {why} {message}");
        nothing_was_sent(&server);
    }
}

#[tokio::test]
async fn a_host_certificate_of_another_authority_is_refused() {
    let server = certified(&["-h", "-n", "127.0.0.1"]);
    let world = World::new(&[&server]);
    let (other, own) = (server.scratch.key("other", "ed25519"), server.scratch.key("authority", "ed25519"));
    let trust = vec![Trust::Key(format!("@cert-authority {other}"))];
    let (why, message) = reason(&world, &Endpoint { trust, ..server.endpoint() }).await;
    assert!(why == "HostCertificateInvalid" && message.contains("it is signed by ssh-ed25519 SHA256:"), "{message}");
    let trust = vec![Trust::Key(format!("@cert-authority {own}")), Trust::Key(format!("@revoked {own}"))];
    let (why, _) = reason(&world, &Endpoint { trust, ..server.endpoint() }).await;
    assert_eq!(why, "HostKeyRevoked");
    nothing_was_sent(&server);
}

#[tokio::test]
async fn loopback_is_refused_unless_the_administrator_allows_it() {
    let server = Server::start(&Setup::default());
    let world = World::guarded(&[&server], Guard::default(), std::time::Duration::from_secs(15));
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "localhost", "127.1"] {
        let (why, message) = reason(&world, &Endpoint { address: address.into(), ..server.endpoint() }).await;
        assert!(why == "AddressNotAllowed", "{message}");
        assert!(address == "127.1" || message.contains("--allow-host-range="), "{message}");
    }
    assert_eq!(server.log().matches("Connection from").count(), 0);
}
