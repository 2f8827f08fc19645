//! A server that does what OpenSSH's does not: it refuses commands, and asks for what nobody gives it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use pallet_core::{
    phase::action::KeyRef,
    target::{Endpoint, Hop, Trust},
};
use pallet_operator::transport::ssh::Guard;
use russh::{
    Channel, ChannelId,
    keys::{Algorithm, PrivateKey, key::safe_rng, ssh_key::LineEnding},
    server::{self, Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session, VerifiedPublicKey},
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};

use crate::world::{Elsewhere, World, closed};

/// Lets everybody in. The handle of each connection goes to whoever has the other end.
struct Hostile {
    executes: bool,
    handles: mpsc::UnboundedSender<Handle>,
}

impl Handler for Hostile {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        if self.executes {
            session.channel_success(id)?
        } else {
            session.channel_failure(id)?
        }
        let _ = self.handles.send(session.handle());
        Ok(())
    }
}

/// Starts one. Returns how to get there, and the handles of its connections.
fn hostile(world: &World, elsewhere: &Elsewhere, executes: bool) -> (Endpoint, mpsc::UnboundedReceiver<Handle>) {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let trust = vec![Trust::Key(key.public_key().to_openssh().unwrap())];
    world.ring.put("secret/shop/login/id", key.to_openssh(LineEnding::LF).unwrap().as_bytes());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint {
        namespace: "shop".into(),
        name: "web-1".into(),
        address: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        user: "root".into(),
        key: KeyRef { name: "login".into(), key: "id".into() },
        trust,
        jump: None,
        elevation: None,
        connect_timeout: Duration::from_secs(30),
    };
    let (handles, received) = mpsc::unbounded_channel();
    // Room for more than any network takes.
    let config = Arc::new(Config { keys: vec![key], window_size: 1 << 30, ..Config::default() });
    elsewhere.spawn(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let handler = Hostile { executes, handles: handles.clone() };
            tokio::spawn(server::run_stream(config.clone(), stream, handler).await.unwrap());
        }
    });
    (endpoint, received)
}

#[tokio::test]
async fn a_host_that_refuses_commands_has_no_shell() {
    let (world, elsewhere) = (World::new(&[]), Elsewhere::new());
    let (endpoint, _handles) = hostile(&world, &elsewhere, false);
    let mut channel = world.ssh.open(&endpoint).await.unwrap();
    let closed = closed(&mut channel).await;
    assert!(closed.no_shell && *closed.message == *"the host refuses to execute commands", "{closed:?}");
    drop(channel);
    world.settles().await;
}

#[tokio::test]
async fn whatever_a_host_asks_for_is_refused() {
    let (world, elsewhere) = (World::new(&[]), Elsewhere::new());
    let (endpoint, mut handles) = hostile(&world, &elsewhere, true);
    let channel = world.ssh.open(&endpoint).await.unwrap();
    let host = handles.recv().await.unwrap();
    let refusals = async {
        [
            host.channel_open_agent().await.err(),
            host.channel_open_x11("10.0.0.1", 1).await.err(),
            host.channel_open_session().await.err(),
            host.channel_open_direct_tcpip("127.0.0.1", 6443, "10.0.0.1", 1).await.err(),
            host.channel_open_direct_streamlocal("/run/containerd.sock").await.err(),
            host.channel_open_forwarded_tcpip("127.0.0.1", 6443, "10.0.0.1", 1).await.err(),
            host.channel_open_forwarded_streamlocal("/run/containerd.sock").await.err(),
        ]
    };
    let refusals = timeout(Duration::from_secs(30), refusals).await.expect("each has its answer");
    for (at, refusal) in refusals.iter().enumerate() {
        assert!(matches!(refusal, Some(russh::Error::ChannelOpenFailure(_))), "{at}: {refusal:?}");
    }
    drop(channel);
    world.settles().await;
}

/// A jump host that never says what became of its attempts to connect, but to this port.
struct Stubborn {
    answers: u16,
    replies: Arc<Mutex<Vec<ChannelOpenHandle>>>,
}

impl Handler for Stubborn {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if port != u32::from(self.answers) {
            self.replies.lock().unwrap().push(reply);
            return Ok(());
        }
        reply.accept().await;
        let mut target = TcpStream::connect(("127.0.0.1", self.answers)).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut target).await });
        Ok(())
    }
}

/// A jump host may try for minutes to reach a host that drops what it is sent. Those who have given up must not keep the others
/// from going through.
#[tokio::test]
async fn hosts_that_a_jump_host_never_reaches_take_no_places_from_others() {
    let (world, elsewhere) = (World::new(&[]), Elsewhere::new());
    let (server, _handles) = hostile(&world, &elsewhere, true);
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = Hop {
        address: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        user: "root".into(),
        key: server.key.clone(),
        trust: vec![Trust::Key(key.public_key().to_openssh().unwrap())],
    };
    let config = Arc::new(Config { keys: vec![key], ..Config::default() });
    let (replies, answers) = (Arc::<Mutex<Vec<_>>>::default(), server.port);
    let held = replies.clone();
    elsewhere.spawn(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let handler = Stubborn { answers, replies: held.clone() };
            tokio::spawn(server::run_stream(config.clone(), stream, handler).await.unwrap());
        }
    });
    let through = Endpoint { jump: Some(Box::new(hop)), ..server };
    // One is connected all the time, so that all go through the same connection.
    let first = world.ssh.open(&through).await.unwrap();
    let dead = (0..100).map(|last| {
        let endpoint = Endpoint {
            address: format!("10.9.9.{last}"),
            port: 22,
            connect_timeout: Duration::from_secs(2),
            ..through.clone()
        };
        let ssh = world.ssh.clone();
        async move { ssh.open(&endpoint).await.map(|_| ()) }
    });
    let failures = futures::future::join_all(dead).await;
    assert!(failures.iter().all(Result::is_err));
    assert!(replies.lock().unwrap().len() >= 64, "{}", replies.lock().unwrap().len());
    drop(world.ssh.open(&through).await.expect("there is a place"));
    drop(first);
    world.settles().await;
}

/// The way to a server, which may be closed for a while: what is sent stays in the buffers of the network then.
fn way_to(elsewhere: &Elsewhere, to: u16) -> (u16, watch::Sender<bool>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, is_open) = watch::channel(true);
    elsewhere.spawn(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let mut kept = Vec::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let mut closes = is_open.clone();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = closes.wait_for(|open| !open) => {}
            }
            kept.push((near, far));
        }
    });
    (port, open)
}

/// No keepalive is sent while a write is stuck, and nothing else looks up.
#[tokio::test]
async fn a_network_that_takes_nothing_in_is_noticed() {
    let (keepalive, elsewhere) = (Duration::from_millis(300), Elsewhere::new());
    let allowed = Guard::new(Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]);
    let world = World::guarded(&[], allowed, keepalive);
    let (server, _handles) = hostile(&world, &elsewhere, true);
    let (port, way) = way_to(&elsewhere, server.port);
    let endpoint = Endpoint { port, ..server };
    for waits in [true, false] {
        way.send_replace(true);
        let mut channel = world.ssh.open(&endpoint).await.unwrap();
        way.send_replace(false);
        let writing = async { while channel.input.write_all(&[0; 65536]).await.is_ok() {} };
        if waits {
            assert!(timeout(Duration::from_secs(30), writing).await.is_ok(), "the write is let go");
            let closed = closed(&mut channel).await;
            assert!(closed.message.contains("the host fell silent"), "{closed:?}");
        } else {
            assert!(timeout(keepalive * 2, writing).await.is_err());
        }
        drop(channel);
        world.settles().await;
    }
}
