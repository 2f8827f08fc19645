//! How a session's bytes get to a node. The agent and its protocol are the same over every transport.

pub mod pod_exec;
pub mod ssh;
pub mod undelayed;

use futures::{FutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};

use pallet_api::reason::Reason;
use pallet_core::{target::Target, text::Message};

/// An open connection to a shell on a node.
pub struct Channel {
    /// What the shell reads.
    pub input: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it prints.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Resolves when the other side ended or the connection broke; which of the two cannot be told.
    pub closed: BoxFuture<'static, Closed>,
    /// Keeps the connection; dropping it ends it on this side. Nothing on the node is ended by that.
    pub guard: Box<dyn Send>,
}

/// What is known about the end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Whether the shell could not be started at all.
    pub no_shell: bool,
    /// For people. It may hold what the node printed on stderr, and is clean by construction.
    pub message: Message,
}

impl Closed {
    /// The end of a connection. Control characters are removed from the message.
    pub fn new(no_shell: bool, message: impl AsRef<str>) -> Self {
        Self { no_shell, message: message.into() }
    }
}

/// A connection that did not come about: nothing was started on the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OpenError {
    /// One CamelCase word.
    pub reason: Reason,
    /// For people. It may hold what the other side said, and is clean by construction.
    pub message: Message,
}

impl OpenError {
    /// A connection that did not come about. Control characters are removed from the message.
    pub fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The ways to all kinds of nodes.
pub struct Ways {
    /// To pods.
    pub exec: pod_exec::PodExec,
    /// To machines.
    pub ssh: ssh::Ssh,
}

impl Transport for Ways {
    fn open<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        match target {
            Target::Container(_) => self.exec.open(target),
            Target::Machine(endpoint) => self.ssh.open(endpoint).boxed(),
        }
    }
}

/// Opens connections.
pub trait Transport: Send + Sync + 'static {
    /// Starts a shell that executes [`pallet_core::session::agent::LOADER`].
    ///
    /// # Errors
    /// Where nothing was started: trying again is safe.
    fn open<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>>;
}
