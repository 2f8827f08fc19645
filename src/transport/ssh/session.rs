//! A shell on a host that somebody is logged in on, and what carries its bytes.
//!
//! One task carries a session: it keeps what is printed on stderr for messages, hands over what is printed on stdout as fast
//! as it is read, and takes in what is written as fast as the host does. When the session is over it drops its ends of both,
//! so that nobody waits for ever: readers see the end, writers a broken pipe.

use pallet_api::reason::Reason;
use std::time::Duration;

use futures::FutureExt;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use zeroize::Zeroizing;

use super::{
    Stage,
    client::{Connection, Ended},
    error, loader, sudo,
};
use crate::transport::{Channel, Closed, OpenError};

/// Per stream, in bytes.
const BUFFER: usize = 64 << 10;
/// How much of what the shell complains about is kept for messages, in bytes.
const COMPLAINTS: usize = 4 << 10;
/// How long a channel may stay open after its shell has ended: something in the background may hold on to it.
const LINGER: Duration = Duration::from_secs(2);

/// How the shell gets to be another user.
pub struct Elevated<'a> {
    /// Who it is to be.
    pub user: &'a str,
    /// Who is logged in.
    pub login: &'a str,
    /// What `sudo` is told.
    pub password: Option<Zeroizing<Vec<u8>>>,
}

/// Has a command executed on a connection, which lives as long as the channel's guard.
///
/// # Errors
/// Where the host opens no session, or `sudo` does not let the command begin.
pub async fn start(
    connection: Connection,
    name: &str,
    command: &str,
    elevated: Option<Elevated<'_>>,
    stage: &Stage,
) -> Result<Channel, OpenError> {
    let ended = connection.ended();
    let broken = |_| error(Reason::Unreachable, name, &ended.why());
    stage.enter("opening a session");
    let channel = connection.handle.channel_open_session().await.map_err(|failure| match failure {
        russh::Error::ChannelOpenFailure(why) => {
            let message = format!("it opens no session ({why:?}); its sshd may forbid them (MaxSessions)");
            error(Reason::SessionRefused, name, &message)
        }
        failure => broken(failure),
    })?;
    let (mut reads, writes) = channel.split();
    stage.enter("starting the shell");
    writes.exec(true, command).await.map_err(broken)?;
    let mut ending = Ending::default();
    match accepted(&mut reads, &mut ending).await {
        Some(true) => {}
        Some(false) => return Ok(refused(connection, ending.closed(&ended))),
        None => return Err(error(Reason::Unreachable, name, &ended.why())),
    }
    let mut printed = Vec::new();
    if let Some(elevated) = elevated {
        stage.enter_as(Reason::BecomeFailed, "waiting for sudo, which may want something besides a password");
        printed = elevate(&mut reads, &writes, &mut ending, elevated, name, &ended).await?;
    }
    Ok(carried(connection, reads, writes, ending, printed))
}

/// Whether the host executes the command; nothing where it has gone before it said.
async fn accepted(reads: &mut ChannelReadHalf, ending: &mut Ending) -> Option<bool> {
    loop {
        match reads.wait().await? {
            ChannelMsg::Success => return Some(true),
            ChannelMsg::Failure => {
                ending.refused = true;
                return Some(false);
            }
            ChannelMsg::Close => return None,
            message => ending.note(&message),
        }
    }
}

/// Waits until `sudo` has let the command begin. Returns what that has printed since.
async fn elevate(
    reads: &mut ChannelReadHalf,
    writes: &ChannelWriteHalf<Msg>,
    ending: &mut Ending,
    elevated: Elevated<'_>,
    name: &str,
    ended: &Ended,
) -> Result<Vec<u8>, OpenError> {
    let Elevated { user, login, password } = elevated;
    if let Some(password) = &password {
        let line = [password.as_slice(), b"\n"].concat();
        writes.data_bytes(line).await.map_err(|_| error(Reason::Unreachable, name, &ended.why()))?;
    }
    let mut printed: Vec<u8> = Vec::new();
    let (mut given_up, mut until) = (false, None);
    while let Some(message) = next(reads, until).await {
        ending.note(&message);
        match message {
            ChannelMsg::Data { data } => {
                printed.extend_from_slice(&data);
                if let Some(at) = find(&printed, loader::BEGUN.as_bytes()) {
                    let sent = writes.data_bytes(loader::INPUT.as_bytes()).await;
                    sent.map_err(|_| error(Reason::Unreachable, name, &ended.why()))?;
                    return Ok(printed.split_off(at + loader::BEGUN.len()));
                }
                // What a login prints before is of no use, and may be long.
                printed.drain(..printed.len().saturating_sub(loader::BEGUN.len()));
            }
            // It would read on for another password, and each wrong one counts.
            ChannelMsg::ExtendedData { .. } if !given_up && sudo::rejected(&ending.complaints()) => {
                given_up = true;
                let _ = writes.eof().await;
            }
            ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. } => until = Some(Instant::now() + LINGER),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    let mut complaints = ending.complaints();
    if let Some(password) = password.as_ref().and_then(|password| std::str::from_utf8(password).ok()) {
        // Something else than sudo may have read it, and may say what it makes of it.
        complaints = complaints.replace(password, "[password]");
    }
    if ending.code.is_none() && complaints.is_empty() {
        return Err(error(Reason::Unreachable, name, &ended.why()));
    }
    let why = sudo::refusal(user, login, password.is_some(), &complaints, ending.code);
    Err(error(Reason::BecomeFailed, name, &why))
}

/// The next message of a channel; none when it is over, or at the time that is given.
async fn next(reads: &mut ChannelReadHalf, until: Option<Instant>) -> Option<ChannelMsg> {
    match until {
        None => reads.wait().await,
        Some(until) => timeout_at(until, reads.wait()).await.ok().flatten(),
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Ends a session and its connection when it is dropped.
struct Session {
    carrier: Option<AbortHandle>,
    _connection: Connection,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(carrier) = &self.carrier {
            carrier.abort();
        }
    }
}

fn refused(connection: Connection, closed: Closed) -> Channel {
    Channel {
        input: Box::new(duplex(1).0),
        output: Box::new(tokio::io::empty()),
        closed: std::future::ready(closed).boxed(),
        guard: Box::new(Session { carrier: None, _connection: connection }),
    }
}

fn carried(
    connection: Connection,
    reads: ChannelReadHalf,
    writes: ChannelWriteHalf<Msg>,
    ending: Ending,
    printed: Vec<u8>,
) -> Channel {
    let ended = connection.ended();
    let (input, stdin) = duplex(BUFFER);
    let (stdout, output) = duplex(BUFFER);
    let (over, closed) = oneshot::channel();
    let carrier = tokio::spawn(async move {
        let closed = carry(reads, writes, stdin, stdout, ending, printed, ended).await;
        let _ = over.send(closed);
    });
    let dropped = Closed::new(false, "the connection was closed on this side");
    Channel {
        input: Box::new(input),
        output: Box::new(output),
        closed: async move { closed.await.unwrap_or(dropped) }.boxed(),
        guard: Box::new(Session { carrier: Some(carrier.abort_handle()), _connection: connection }),
    }
}

async fn carry(
    mut reads: ChannelReadHalf,
    writes: ChannelWriteHalf<Msg>,
    stdin: DuplexStream,
    stdout: DuplexStream,
    mut ending: Ending,
    printed: Vec<u8>,
    ended: Ended,
) -> Closed {
    let mut outward = Box::pin(take_in(stdin, writes).fuse());
    let mut inward = Box::pin(hand_over(&mut reads, stdout, &mut ending, printed));
    loop {
        tokio::select! {
            () = &mut inward => break,
            // Whoever writes no more may still read.
            () = &mut outward, if !futures::future::FusedFuture::is_terminated(&*outward) => {}
        }
    }
    drop((inward, outward));
    ending.closed(&ended)
}

/// Sends what is written, and its end. A write to a connection that has ended may never return.
async fn take_in(mut stdin: DuplexStream, writes: ChannelWriteHalf<Msg>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = stdin.read(&mut buffer).await {
        if writes.data_bytes(buffer[..length].to_vec()).await.is_err() {
            return;
        }
    }
    let _ = writes.eof().await;
}

/// Until the session is over. What nobody wants to read is taken in all the same.
async fn hand_over(reads: &mut ChannelReadHalf, stdout: DuplexStream, ending: &mut Ending, printed: Vec<u8>) {
    let mut stdout = Some(stdout);
    if let Some(open) = &mut stdout {
        ending.printed |= !printed.is_empty();
        let _ = open.write_all(&printed).await;
    }
    let mut until = None;
    while let Some(message) = next(reads, until).await {
        ending.note(&message);
        match message {
            ChannelMsg::Data { data } => {
                if let Some(open) = &mut stdout
                    && open.write_all(&data).await.is_err()
                {
                    stdout = None;
                }
            }
            ChannelMsg::Eof => stdout = None,
            ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. } => until = Some(Instant::now() + LINGER),
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// What a session has left behind.
#[derive(Default)]
struct Ending {
    complaints: Vec<u8>,
    printed: bool,
    refused: bool,
    closed: bool,
    code: Option<u32>,
    signal: Option<String>,
}

impl Ending {
    fn note(&mut self, message: &ChannelMsg) {
        match message {
            ChannelMsg::Data { data } => self.printed |= !data.is_empty(),
            ChannelMsg::ExtendedData { data, .. } => {
                self.complaints.extend_from_slice(data);
                // What a shell says last is why it ended.
                self.complaints.drain(..self.complaints.len().saturating_sub(COMPLAINTS));
            }
            ChannelMsg::ExitStatus { exit_status } => self.code = Some(*exit_status),
            ChannelMsg::Close => self.closed = true,
            ChannelMsg::ExitSignal { signal_name, .. } => self.signal = Some(format!("{signal_name:?}")),
            _ => {}
        }
    }

    fn complaints(&self) -> String {
        // A part of a line may be a part of a secret, which no mask would find.
        let cut = self.complaints.len() >= COMPLAINTS;
        let begin = self.complaints.iter().position(|byte| *byte == b'\n').filter(|_| cut).unwrap_or_default();
        String::from_utf8_lossy(&self.complaints[begin..]).trim().to_owned()
    }

    fn closed(&self, ended: &Ended) -> Closed {
        let complaints = self.complaints();
        let said = if complaints.is_empty() { String::new() } else { format!(": {complaints}") };
        let how = match (&self.signal, self.code) {
            _ if self.refused => "the host refuses to execute commands".to_owned(),
            (Some(signal), _) => format!("the shell was ended by the signal {signal}"),
            (None, Some(code)) => format!("the shell ended with exit code {code}"),
            (None, None) if self.closed => "the host closed the session".to_owned(),
            (None, None) => ended.why(),
        };
        Closed::new(self.refused || (self.code == Some(127) && !self.printed), format!("{how}{said}"))
    }
}
