//! Who is let in, and with what.

use std::fs;

use pallet_core::{
    phase::action::KeyRef,
    target::{Endpoint, Trust},
};

use crate::{
    server::{Scratch, Server, Setup, keygen},
    world::{World, failed, greet},
};

#[tokio::test]
async fn a_key_that_the_host_does_not_know_is_named() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let stranger = server.scratch.key("stranger", "ed25519");
    world.ring.put("secret/shop/login/id", fs::read(server.scratch.path("stranger")).unwrap());
    let error = failed(world.ssh.open(&server.endpoint()).await);
    assert_eq!(error.reason, "AuthenticationFailed");
    let user = server.endpoint().user;
    for part in
        [&stranger, "publickey", "SHA256:", "key id of the Secret login", &format!("~{user}/.ssh/authorized_keys")]
    {
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    world.settles().await;
}

#[tokio::test]
async fn a_host_that_wants_more_than_a_key_is_told_so() {
    let config = "AuthenticationMethods publickey,password\nPasswordAuthentication yes\n".to_owned();
    let server = Server::start(&Setup { config, ..Setup::default() });
    let world = World::new(&[&server]);
    let error = failed(world.ssh.open(&server.endpoint()).await);
    assert!(
        error.reason == "AuthenticationFailed" && error.message.contains("wants besides: password"),
        "{}",
        error.message
    );
    world.settles().await;
}

#[tokio::test]
async fn keys_are_read_as_openssh_and_openssl_write_them() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let scratch = &server.scratch;
    let mut authorized = String::new();
    for (name, kind, format) in [("pkcs8", "ecdsa", "PKCS8"), ("sec1", "ecdsa", "PEM"), ("openssh", "ecdsa", "RFC4716")]
    {
        let path = scratch.path(name);
        keygen(&["-t", kind, "-b", "384", "-m", format, "-N", "", "-f", path.to_str().unwrap()]);
        authorized += &fs::read_to_string(path.with_extension("pub")).unwrap();
    }
    fs::write(scratch.path("authorized_keys"), authorized).unwrap();
    for (name, header) in
        [("pkcs8", "BEGIN PRIVATE KEY"), ("sec1", "BEGIN EC PRIVATE KEY"), ("openssh", "BEGIN OPENSSH")]
    {
        let key = fs::read_to_string(scratch.path(name)).unwrap();
        assert!(key.contains(header), "{name}");
        world.ring.put("secret/shop/login/id", key);
        assert!(world.ssh.open(&server.endpoint()).await.is_ok(), "{name}");
    }
    world.settles().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_refused_before_anything_is_sent() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let scratch = &server.scratch;
    for (name, kind, passphrase, format, expected) in [
        ("encrypted", "ed25519", "geheim", "RFC4716", "without a passphrase"),
        ("encrypted8", "ecdsa", "geheim", "PKCS8", "without a passphrase"),
        ("encrypted1", "ecdsa", "geheim", "PEM", "without a passphrase"),
        ("rsa", "rsa", "", "RFC4716", "RUSTSEC-2023-0071"),
        ("rsa1", "rsa", "", "PEM", "RUSTSEC-2023-0071"),
        ("rsa8", "rsa", "", "PKCS8", "not supported (ed25519 and ecdsa are)"),
    ] {
        keygen(&["-t", kind, "-m", format, "-N", passphrase, "-f", scratch.path(name).to_str().unwrap()]);
        world.ring.put("secret/shop/login/id", fs::read(scratch.path(name)).unwrap());
        let error = failed(world.ssh.open(&server.endpoint()).await);
        assert!(error.reason == "InvalidPrivateKey" && error.message.contains(expected), "{name}: {}", error.message);
    }
    let endpoint = Endpoint { key: KeyRef { name: "login".into(), key: "else".into() }, ..server.endpoint() };
    let error = failed(world.ssh.open(&endpoint).await);
    assert!(
        error.reason == "InvalidPrivateKey" && error.message.contains("key else of the Secret login"),
        "{}",
        error.message
    );
    assert_eq!(server.log().matches("Connection from").count(), 0);
    world.settles().await;
}

#[tokio::test]
async fn a_certificate_beside_the_key_lets_in() {
    let scratch = Scratch::new();
    scratch.key("authority", "ed25519");
    scratch.key("certified", "ed25519");
    let user = crate::server::said("id", &["-un"]);
    scratch.certify("authority", "certified", &["-n", &user, "-V", "-1h:+1h"]);
    let config = format!("TrustedUserCAKeys {}\n", scratch.path("authority.pub").display());
    let server = Server::start_in(scratch, &Setup { config, ..Setup::default() });
    let world = World::new(&[&server]);
    world.ring.put("secret/shop/login/id", fs::read(server.scratch.path("certified")).unwrap());
    assert_eq!(
        failed(world.ssh.open(&server.endpoint()).await).reason,
        "AuthenticationFailed",
        "without its certificate"
    );
    let certificate = fs::read(server.scratch.path("certified-cert.pub")).unwrap();
    world.ring.put("secret/shop/login/id-cert.pub", certificate);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    greet(&mut channel).await;
    assert!(server.log().contains("ID certified (serial 0) CA"), "{}", server.log());
    drop(channel);
    // One that is for another key is not tried.
    world.ring.put("secret/shop/login/id", fs::read(server.scratch.path("login")).unwrap());
    let error = failed(world.ssh.open(&server.endpoint()).await);
    assert!(
        error.reason == "InvalidPrivateKey" && error.message.contains("key id-cert.pub of the Secret login"),
        "{}",
        error.message
    );
    world.settles().await;
}

/// A certificate that the host refuses does not keep the key from being tried.
#[tokio::test]
async fn a_certificate_that_is_refused_leaves_the_key() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    server.scratch.key("authority", "ed25519");
    server.scratch.certify("authority", "login", &["-n", "somebody"]);
    world.ring.put("secret/shop/login/id-cert.pub", fs::read(server.scratch.path("login-cert.pub")).unwrap());
    assert!(world.ssh.open(&server.endpoint()).await.is_ok());
    world.settles().await;
}

#[tokio::test]
async fn a_user_whom_the_host_does_not_know_is_refused() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let endpoint = Endpoint { user: "nobody-of-that-name".into(), ..server.endpoint() };
    let error = failed(world.ssh.open(&endpoint).await);
    assert!(
        error.reason == "AuthenticationFailed" && error.message.contains("nobody-of-that-name"),
        "{}",
        error.message
    );
    world.settles().await;
}

/// What stands in messages, for a person or a machine to find: never a part of a private key.
#[tokio::test]
async fn no_secret_is_shown() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let key = fs::read_to_string(server.scratch.path("login")).unwrap();
    let canaries: Vec<&str> = key.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).collect();
    server.scratch.key("stranger", "ed25519");
    let endpoint = server.endpoint();
    let wrong = Endpoint { trust: vec![Trust::Key(server.scratch.key("stranger", "ed25519"))], ..endpoint.clone() };
    fs::write(server.scratch.path("authorized_keys"), "").unwrap();
    for endpoint in [endpoint, wrong] {
        let shown = format!("{:?} {endpoint:?}", failed(world.ssh.open(&endpoint).await));
        for canary in &canaries {
            assert!(!shown.contains(canary), "{shown}");
        }
    }
    assert!(!canaries.is_empty());
    world.settles().await;
}
