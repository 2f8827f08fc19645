//! What a reconcile fails with, and what the API server's refusals mean.

use pallet_api::reason::Reason;
use pallet_client::answer;
use pallet_core::plan::{self, TemplateVerdict};

/// What a pass can fail with. It is tried again; nothing is lost by it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("{what} failed")]
    Api {
        /// The call.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{what} had no answer in time")]
    Deadline {
        /// The call.
        what: &'static str,
    },
    /// What is needed will be there in a moment.
    #[error("{0}; it is looked at again")]
    NotYet(&'static str),
    /// What a group needs is not as it must be, for people.
    #[error("{0}")]
    Unfit(String),
    /// Something that the types should rule out.
    #[error("this should not happen: {0}")]
    Unplanned(&'static str),
    /// The operator's code panicked over this object.
    #[error("the reconcile panicked: {0}")]
    Panicked(String),
}

impl Error {
    /// What metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Error::Api { .. } => "api",
            Error::Deadline { .. } => "deadline",
            Error::NotYet(_) => "not-yet",
            Error::Unfit(_) => "unfit",
            Error::Unplanned(_) => "unplanned",
            Error::Panicked(_) => "panic",
        }
    }
    /// The status code of the API server's answer, where there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
    /// The API server has looked at the request and would not have it: nothing was done.
    pub fn is_refusal(&self) -> bool {
        self.code().is_some_and(|code| (400..500).contains(&code) && code != 408)
    }
    /// What a refused pod says of its template.
    pub fn verdict(&self) -> Option<TemplateVerdict> {
        let message = self.explanation();
        let reason = match self.code()? {
            // It says nothing of the template: whether the pod is taken shows when it is made.
            400 if message.contains("does not support dry run") => return Some(TemplateVerdict::Accepted),
            400 | 422 => Reason::InvalidTemplate,
            403 if message.contains(EXCEEDED) => plan::QUOTA,
            403 => Reason::Forbidden,
            _ => return None,
        };
        Some(TemplateVerdict::Refused { reason, message })
    }
    /// The reason and the message of a refusal, for the object that it concerns; nothing where the API server gave no answer, or one
    /// that passes by itself. `failed` is the reason of one that no quota and no policy accounts for.
    pub fn refusal(&self, failed: Reason) -> Option<(Reason, String)> {
        let reason = match self {
            Error::Deadline { .. } => failed,
            _ => match self.code()? {
                404 | 408 | 409 | 410 | 429 => return None,
                403 if self.explanation().contains(EXCEEDED) => plan::QUOTA,
                403 => Reason::Forbidden,
                _ => failed,
            },
        };
        let words = match self {
            Error::Api { what, .. } => format!("{what}: {}", self.explanation()),
            other => other.to_string(),
        };
        Some((reason, words))
    }
    /// Whether the object may be there although its creation was refused: quotas and webhooks are asked before the names are.
    pub fn may_exist(&self) -> bool {
        self.code().is_some_and(|code| matches!(code, 403 | 409 | 500..))
    }
    /// What the API server said, without debug output.
    pub fn explanation(&self) -> String {
        std::error::Error::source(self).map_or_else(|| self.to_string(), answer::words)
    }
    /// The object is there already, or is not as it was.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
    /// The object is not there.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }
}

/// By this a used-up quota is known: the status code is that of any other policy.
const EXCEEDED: &str = "exceeded quota";
