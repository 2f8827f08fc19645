//! The exec subresource of pods, over a WebSocket.
//!
//! Caveats that this module keeps from the rest: readers may never see an end after a cut, so the status future decides;
//! stderr must be drained or the stream stalls; dropping the client ends nothing on the node.

use std::time::Duration;

use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    Api, Client,
    api::{AttachParams, AttachedProcess},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use pallet_api::reason::Reason;
use pallet_core::target::{Container, Target};

use super::{Channel, Closed, OpenError, Transport};
use pallet_client::answer;
use pallet_core::session::agent::LOADER;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// Per stream. The default of 1 KiB would cost a wake-up for every kilobyte.
const BUFFER: usize = 64 << 10;
/// How much of what the shell complains about is kept for messages, in bytes.
const COMPLAINTS: usize = 4 << 10;

/// Opens shells by exec.
pub struct PodExec {
    client: Client,
}

impl PodExec {
    /// `client` must not retry by itself: a repeated handshake would start a second shell.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn connect(&self, target: &Container) -> Result<Channel, OpenError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &target.namespace);
        let parameters = AttachParams {
            container: Some(target.container.clone()),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
            max_stdin_buf_size: Some(BUFFER),
            max_stdout_buf_size: Some(BUFFER),
            max_stderr_buf_size: Some(BUFFER),
        };
        let mut process = match timeout(CONNECT, pods.exec(&target.pod, ["sh", "-c", LOADER], &parameters)).await {
            Err(_) => return Err(refused(format!("no answer within {} s", CONNECT.as_secs()))),
            Ok(Err(error)) => return Err(refused(answer::words(&error))),
            Ok(Ok(process)) => process,
        };
        let streams = (process.stdin(), process.stdout(), process.stderr(), process.take_status());
        let (Some(input), Some(output), Some(complaints), Some(status)) = streams else {
            return Err(refused("the connection has not all of its streams".to_owned()));
        };
        let complaints = tokio::spawn(drain(complaints));
        let closed = async move {
            let status = status.await;
            // The status ends the streams; a connection that was cut may leave them open for ever.
            let complaints = timeout(Duration::from_secs(1), complaints).await;
            closed(status, complaints.ok().and_then(Result::ok).unwrap_or_default())
        };
        Ok(Channel {
            input: Box::new(input),
            output: Box::new(output),
            closed: closed.boxed(),
            guard: Box::new(Aborting(process)),
        })
    }
}

impl Transport for PodExec {
    fn open<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Channel, OpenError>> {
        match target {
            Target::Container(container) => self.connect(container).boxed(),
            Target::Machine(_) => future::ready(Err(refused("it is no pod".to_owned()))).boxed(),
        }
    }
}

/// Dropping an attached process alone would leave its task and its connection alive.
struct Aborting(AttachedProcess);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn refused(message: String) -> OpenError {
    OpenError::new(Reason::Unreachable, message)
}

async fn drain(mut stream: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer, mut cut) = (Vec::new(), vec![0; 4096], false);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        let room = COMPLAINTS.saturating_sub(kept.len());
        cut |= n > room;
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    if cut {
        // A part of a line may be a part of a secret, which no mask would find.
        kept.truncate(kept.iter().rposition(|byte| *byte == b'\n').unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

fn closed(status: Option<Status>, complaints: String) -> Closed {
    let said = if complaints.is_empty() { String::new() } else { format!(": {complaints}") };
    let Some(status) = status else {
        return Closed::new(false, format!("the connection broke{said}"));
    };
    let message = status.message.unwrap_or_default();
    // The container runtime has no code for this, only words; they differ between runc and crun.
    let no_shell =
        ["executable file not found", "no such file or directory"].iter().any(|words| message.contains(words));
    let message = if message.is_empty() { format!("the shell ended{said}") } else { format!("{message}{said}") };
    Closed::new(no_shell, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_shell_is_told_from_a_broken_connection() {
        let status = Status {
            message: Some(
                r#"exec failed: unable to start container process: exec: "sh": executable file not found in $PATH"#
                    .into(),
            ),
            ..Status::default()
        };
        assert!(closed(Some(status), String::new()).no_shell);
        assert_eq!(closed(None, "x".into()), Closed::new(false, "the connection broke: x"));
    }
}
