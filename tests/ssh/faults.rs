//! Hosts that hang, die, fall silent or flood.

use std::time::Duration;

use pallet_core::target::Endpoint;
use pallet_operator::transport::{Channel, ssh::Guard};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use crate::{
    server::{Server, Setup, have_root},
    world::{World, closed, failed, greet, run_script, until},
};

/// Far beyond every buffer on the way.
const MUCH: usize = 32 << 20;

#[tokio::test]
async fn a_host_that_never_answers_costs_the_deadline_and_nothing_else() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = Endpoint { port, connect_timeout: Duration::from_millis(300), ..server.endpoint() };
    let quiet = async { std::mem::forget(listener.accept().await.unwrap()) };
    let (opened, ()) = tokio::join!(world.ssh.open(&endpoint), quiet);
    let error = failed(opened);
    assert_eq!(error.reason, "Unreachable");
    assert!(
        error.message.contains("no shell within 0.3 s (connectTimeout), it was waiting for its greeting"),
        "{error}"
    );
    world.settles().await;
    // It answers, and then no more.
    let rude = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-rude\r\n").await.unwrap();
        std::mem::forget(stream);
    };
    let (opened, ()) = tokio::join!(world.ssh.open(&endpoint), rude);
    let error = failed(opened);
    assert!(error.reason == "Unreachable" && error.message.contains("it was exchanging keys"), "{error}");
    world.settles().await;
}

#[tokio::test]
async fn a_host_that_is_none_is_told_from_one_that_hangs() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = Endpoint { port, ..server.endpoint() };
    for (greeting, expected) in [
        (&b""[..], "it closed the connection at once"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "keys were exchanged"),
        (&[b'x'; 4096], "invalid SSH version string"),
    ] {
        let other = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(greeting).await.unwrap();
        };
        let (opened, ()) = tokio::join!(world.ssh.open(&endpoint), other);
        let error = failed(opened);
        assert!(error.reason == "Unreachable" && error.message.contains(expected), "{expected}: {error}");
        world.settles().await;
    }
    // A port that others get to use would not do.
    let nobody = Endpoint { port: 1, ..endpoint.clone() };
    let error = failed(world.ssh.open(&nobody).await);
    assert!(error.reason == "Unreachable" && error.message.contains("Connection refused"), "{error}");
    let endpoint = Endpoint { address: "no-such-host.invalid".into(), ..endpoint };
    let error = failed(world.ssh.open(&endpoint).await);
    assert!(error.reason == "Unreachable" && error.message.contains("no-such-host.invalid is not resolved"), "{error}");
    world.settles().await;
}

/// An attempt that nobody wants any more leaves nothing, at whatever stage it is.
#[tokio::test]
async fn an_attempt_that_is_given_up_leaves_nothing() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let (endpoint, mut came) = (server.endpoint(), 0);
    for microseconds in (0..40_000).step_by(1000) {
        let opened = timeout(Duration::from_micros(microseconds), world.ssh.open(&endpoint)).await;
        came += usize::from(opened.is_ok());
        drop(opened);
        world.settles().await;
    }
    assert!(came < 40, "none was given up");
}

async fn ends(channel: &mut Channel) {
    let mut rest = Vec::new();
    let read = timeout(Duration::from_secs(30), channel.output.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "readers see the end");
    let writing = async { while channel.input.write_all(&[0; 4096]).await.is_ok() {} };
    assert!(timeout(Duration::from_secs(30), writing).await.is_ok(), "writers see a broken pipe");
}

#[tokio::test]
async fn a_host_that_dies_ends_the_channel() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    greet(&mut channel).await;
    server.signal_sessions("KILL");
    let closed = closed(&mut channel).await;
    assert!(!closed.no_shell && closed.message.contains("connection"), "{closed:?}");
    ends(&mut channel).await;
    drop(channel);
    world.settles().await;
}

#[tokio::test]
async fn a_host_that_falls_silent_is_noticed_even_while_a_write_is_stuck() {
    let server = Server::start(&Setup::default());
    let keepalive = Duration::from_millis(500);
    let allowed = Guard::new(Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]);
    let world = World::guarded(&[&server], allowed, keepalive);
    for stuck in [false, true] {
        let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
        greet(&mut channel).await;
        if !stuck {
            // Keepalives are answered for as long as it lives.
            assert!(timeout(keepalive * 6, &mut channel.closed).await.is_err());
        }
        let began = Instant::now();
        server.signal_sessions("STOP");
        if stuck {
            // More than the window, so that some of it is on its way for ever.
            let writing = async { while channel.input.write_all(&[b'\n'; 65536]).await.is_ok() {} };
            assert!(timeout(Duration::from_secs(30), writing).await.is_ok(), "the write is let go");
        }
        let closed = closed(&mut channel).await;
        assert!(closed.message.contains("the host fell silent"), "{closed:?}");
        assert!(began.elapsed() >= keepalive * 3, "{:?}", began.elapsed());
        ends(&mut channel).await;
        drop(channel);
        world.settles().await;
        server.signal_sessions("KILL");
    }
}

/// A channel that is dropped is closed, whatever was going on there.
#[tokio::test]
async fn a_channel_that_is_dropped_leaves_nothing() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let idle = world.ssh.open(&server.endpoint()).await.unwrap();
    drop(idle);
    world.settles().await;
    let mut floods = world.ssh.open(&server.endpoint()).await.unwrap();
    run_script(&mut floods, "yes\n").await;
    sleep(Duration::from_millis(300)).await;
    drop(floods);
    world.settles().await;
    let mut stuck = world.ssh.open(&server.endpoint()).await.unwrap();
    greet(&mut stuck).await;
    server.signal_sessions("STOP");
    let writing = async { while stuck.input.write_all(&[b'\n'; 65536]).await.is_ok() {} };
    assert!(timeout(Duration::from_millis(500), writing).await.is_err());
    drop(stuck);
    world.settles().await;
}

#[tokio::test]
async fn much_goes_through_in_both_directions_at_once() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    run_script(&mut channel, "cat\n").await;
    let sent: Vec<u8> = (0..MUCH as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut received = Vec::with_capacity(MUCH);
    let Channel { mut input, mut output, closed, guard } = channel;
    let writing = async {
        input.write_all(&sent).await.unwrap();
        input.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(writing, output.read_to_end(&mut received)) };
    let ((), read) = timeout(Duration::from_secs(120), both).await.expect("it takes too long");
    assert_eq!(read.unwrap(), MUCH);
    assert!(received == sent, "it comes back as it went");
    assert_eq!(closed.await.message.to_string(), "the shell ended with exit code 0");
    drop((input, output, guard));
    world.settles().await;
}

/// A reader who is slow makes the host wait, and no memory grow.
#[tokio::test]
async fn what_is_not_read_is_not_sent() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    let over = server.scratch.path("over");
    run_script(&mut channel, &format!("head -c {MUCH} /dev/zero; echo >{}\n", over.display())).await;
    sleep(Duration::from_millis(1500)).await;
    assert!(!over.exists(), "all of it was sent to nobody");
    let mut read = 0;
    let mut buffer = vec![0; 65536];
    while let Ok(Ok(length @ 1..)) = timeout(Duration::from_secs(30), channel.output.read(&mut buffer)).await {
        read += length;
    }
    assert_eq!(read, MUCH);
    drop(channel);
    world.settles().await;
}

/// What a shell complains about is kept, to a bound, and what it holds open in the background is not waited for.
#[tokio::test]
async fn the_end_of_a_shell_is_told() {
    let server = Server::start(&Setup::default());
    let world = World::new(&[&server]);
    for (script, expected) in [
        ("echo no room >&2; exit 3\n", "the shell ended with exit code 3: no room"),
        ("sleep 600 & exit 4\n", "the shell ended with exit code 4"),
        ("yes complaint | head -c 1000000 >&2; echo the last; exit 5\n", "the shell ended with exit code 5: "),
    ] {
        let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
        run_script(&mut channel, script).await;
        let closed = closed(&mut channel).await;
        assert!(!closed.no_shell && closed.message.starts_with(expected), "{script}: {closed:?}");
        assert!(closed.message.len() < 5000);
    }
    world.settles().await;
}

#[tokio::test]
async fn a_host_without_a_shell_is_told_from_one_that_broke() {
    if !have_root("a host without sh") {
        return;
    }
    let server = Server::start(&Setup { config: "SetEnv PATH=/nowhere\n".into(), ..Setup::default() });
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    let closed = closed(&mut channel).await;
    assert!(closed.no_shell && closed.message.contains("127") && closed.message.contains("not found"), "{closed:?}");
    drop(channel);
    let server = Server::start(&Setup { config: "MaxSessions 0\n".into(), ..Setup::default() });
    let world = World::new(&[&server]);
    let error = failed(world.ssh.open(&server.endpoint()).await);
    assert!(error.reason == "SessionRefused" && error.message.contains("MaxSessions"), "{error}");
    world.settles().await;
}

/// Behind the user's own path, so that nothing there is hidden.
#[tokio::test]
async fn the_tools_of_administrators_are_on_the_path() {
    let server = Server::start(&Setup { config: "SetEnv PATH=/usr/bin:/bin\n".into(), ..Setup::default() });
    let world = World::new(&[&server]);
    let mut channel = world.ssh.open(&server.endpoint()).await.unwrap();
    run_script(&mut channel, "echo $PATH; ls /proc/$$/fd | wc -l\n").await;
    until(&mut channel, ":/usr/local/sbin:/usr/sbin:/sbin\n").await;
}
