//! Ctrl-C while something is followed: the operation goes on in the cluster, so what it means is asked.

use std::io::{IsTerminal, Write};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::exit::{Error, Result};

/// What the person at the terminal wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    /// To follow no longer.
    Detach,
    /// To end the operation.
    Cancel,
    /// To go on following.
    Wait,
}

/// The signals that end other programs.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// From now on they are ours.
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::usage(format!("signals cannot be heard: {error}")));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one. Says whether there is somebody to ask.
    pub async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            _ = self.terminate.recv() => false,
        }
    }

    /// Asks what to do. A second signal means: follow no longer.
    pub async fn ask(&mut self, can_cancel: bool) -> Choice {
        let question = match can_cancel {
            true => "\n[d]etach and let it go on, [c]ancel it, or keep waiting (Enter)? ",
            false => "\n[d]etach and let it go on, or keep waiting (Enter)? ",
        };
        loop {
            let mut stderr = std::io::stderr();
            let _ = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
            let answer = tokio::select! {
                answer = read_line() => answer,
                _ = self.next() => return Choice::Detach,
            };
            match answer.as_deref().map(understood) {
                None => return Choice::Detach,
                Some(Some(Choice::Cancel)) if !can_cancel => {}
                Some(Some(choice)) => return choice,
                Some(None) => {}
            }
        }
    }
}

fn understood(answer: &str) -> Option<Choice> {
    match answer.trim().to_ascii_lowercase().as_str() {
        "d" | "detach" => Some(Choice::Detach),
        "c" | "cancel" => Some(Choice::Cancel),
        "" | "w" | "wait" | "k" | "keep" => Some(Choice::Wait),
        _ => None,
    }
}

/// A line from the terminal; nothing at its end. The thread that reads may outlive the question: the process ends over it.
async fn read_line() -> Option<String> {
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        let _ = send.send(read.is_ok_and(|bytes| bytes > 0).then_some(line));
    });
    receive.await.ok().flatten()
}

/// Asks for a yes on the terminal. Without a terminal `remedy` says how to answer beforehand.
pub async fn confirm(question: &str, remedy: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::usage(format!("there is no terminal to ask on; {remedy}")));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let answer = read_line().await.unwrap_or_default();
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_a_letter_or_a_word() {
        assert_eq!(understood("d\n"), Some(Choice::Detach));
        assert_eq!(understood(" Cancel \n"), Some(Choice::Cancel));
        assert_eq!(understood("\n"), Some(Choice::Wait));
        assert_eq!(understood("x\n"), None);
    }
}
