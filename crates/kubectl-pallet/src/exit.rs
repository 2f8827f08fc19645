//! How the plugin ends: exit codes, and errors that name the thing and the remedy.

use std::fmt;

/// The exit codes. They are documented in `--help` and in docs/reference/cli.md, and scripts rely on them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// Everything was done.
    Success,
    /// The operation failed: a phase failed, it was cancelled, a group is Stalled.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The time was over; another code where `--timeout-value` says so.
    TimedOut(Option<u8>),
    /// The cluster said no or cannot be asked.
    Refused,
    /// Somebody stopped following; the operation goes on.
    Detached,
}

impl Exit {
    /// What the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::TimedOut(instead) => instead.unwrap_or(3),
            Exit::Refused => 4,
            Exit::Detached => 130,
        }
    }
}

/// For `--help`.
pub const CODES: &str = "\
Exit codes:
  0    success
  1    the operation failed: a phase failed, it was cancelled, or a group is Stalled
  2    the command line makes no sense, or a file cannot be read
  3    the time was over (another code with --timeout-value)
  4    the cluster said no or cannot be asked: not found, forbidden, invalid, unreachable
  130  you stopped following; the operation goes on";

/// Why a command ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no cluster to ask.
    #[error("{0}")]
    Connection(String),
    /// The API server said no.
    #[error("{what}: {message}")]
    Refused {
        /// The call.
        what: String,
        /// What it said, and what to do.
        message: String,
        /// The status code of its answer.
        code: u16,
    },
    /// The answer is of no use: what was asked for is not there.
    #[error("{0}")]
    Missing(String),
    /// The operation ended otherwise than it should.
    #[error("{1}")]
    Ended(Exit, String),
    /// Nobody reads what is printed any more.
    #[error("the output was closed")]
    Closed,
}

impl Error {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage(_) => Exit::Usage,
            Error::Connection(_) | Error::Refused { .. } | Error::Missing(_) => Exit::Refused,
            Error::Ended(exit, _) => *exit,
            Error::Closed => Exit::Success,
        }
    }

    /// A mistake on the command line.
    pub fn usage(message: impl fmt::Display) -> Self {
        Error::Usage(message.to_string())
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::Refused { code: 404, .. })
    }
}

/// What a command comes to.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_that_the_help_tells() {
        let all = [Exit::Success, Exit::Failed, Exit::Usage, Exit::TimedOut(None), Exit::Refused, Exit::Detached];
        for exit in all {
            let line = format!("\n  {:<5}", exit.code());
            assert!(CODES.contains(&line), "{exit:?}");
        }
        assert_eq!(Exit::TimedOut(Some(0)).code(), 0);
    }
}
