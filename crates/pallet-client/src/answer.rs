//! What the API server answered, in words for people.
//!
//! The client's own texts hold the Rust debug output of the answer. Whatever reaches a status, an event, a log or a terminal of an
//! error of the client goes through [`words`]; `tests/architecture.rs` sees to it that nothing else formats one.

use std::error::Error;

use kube::{core::Status, runtime::watcher};

use pallet_api::conditions::clip;
use pallet_core::text;

/// The longest text, in bytes: what fits into a condition beside the name of the object.
pub const LIMIT: usize = 800;

/// Whether a creation was refused since its namespace is being deleted.
pub fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.map(|cause| cause.reason.as_str()).any(|reason| reason == "NamespaceTerminating")
}

/// An error and its causes in one line of at most [`LIMIT`] bytes, without saying anything twice: of the API server its own message
/// and nothing else, of a connection that did not come about each cause once.
///
/// Guarantees: no debug output, no control characters, never empty.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(status) = status(error) {
            parts.push(message(status));
            break;
        }
        next = error.source();
        let own = own(error, next.is_some());
        let known = |part: &String| part.contains(&own);
        if !own.is_empty() && !parts.iter().any(known) {
            // A text that ends with that of its cause says it already.
            parts.retain(|part| !own.contains(part.as_str()));
            parts.push(own);
        }
    }
    let line = parts.join(": ").split_whitespace().collect::<Vec<_>>().join(" ");
    let line = text::printable(&line);
    if line.is_empty() { "no reason is given".to_owned() } else { clip(&line, LIMIT) }
}

/// The answer of the API server in an error, where it is one.
fn status<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    if let Some(kube::Error::Api(status)) = of_client(error) {
        return Some(status);
    }
    if let Some(watcher::Error::WatchError(status)) = error.downcast_ref::<watcher::Error>() {
        return Some(status);
    }
    error.downcast_ref::<Status>()
}

/// An error of the client. In a box it is an error of another type.
fn of_client<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a kube::Error> {
    error.downcast_ref().or_else(|| error.downcast_ref::<Box<kube::Error>>().map(|error| &**error))
}

/// What an error says itself. Those of the client and its watches repeat their causes, with debug output.
fn own(error: &(dyn Error + 'static), has_cause: bool) -> String {
    let repeats = of_client(error).is_some() || error.is::<watcher::Error>();
    if repeats && has_cause { String::new() } else { error.to_string() }
}

/// What the API server says in an answer.
fn message(status: &Status) -> String {
    match (status.message.trim(), status.reason.as_str()) {
        ("", "") => format!("the API server answered with {}", status.code),
        ("", reason) => format!("the API server answered with {} ({reason})", status.code),
        (message, _) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(message: &str) -> kube::Error {
        let status = Status { code: 500, message: message.into(), reason: "InternalError".into(), ..Status::default() };
        kube::Error::Api(Box::new(status))
    }

    #[derive(Debug, thiserror::Error)]
    #[error("create pod failed")]
    struct Outer(#[source] Box<kube::Error>);

    #[test]
    fn the_api_server_is_quoted_and_nothing_else() {
        let said = "Internal error occurred: failed calling webhook \"x\": connection refused";
        assert!(api(said).to_string().contains("Status {"), "what all this is for");
        assert_eq!(words(&api(said)), said);
        assert_eq!(words(&Outer(Box::new(api(said)))), format!("create pod failed: {said}"));
        assert_eq!(words(&watcher::Error::InitialListFailed(api(said))), said);
        let gone = Status { code: 410, message: "too old".into(), ..Status::default() };
        assert_eq!(words(&watcher::Error::WatchError(Box::new(gone))), "too old");
    }

    #[test]
    fn an_answer_without_words_has_its_code() {
        assert_eq!(words(&api("  ")), "the API server answered with 500 (InternalError)");
        let empty = kube::Error::Api(Box::new(Status { code: 418, ..Status::default() }));
        assert_eq!(words(&empty), "the API server answered with 418");
    }

    #[test]
    fn the_causes_of_a_broken_connection_are_told_once() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "tcp connect error");
        let error = kube::Error::Service(Box::new(refused));
        assert_eq!(words(&error), "tcp connect error");
        let read = kube::Error::ReadEvents(std::io::Error::other("a\nb\u{1b}[31m c"));
        assert_eq!(words(&read), "a b c");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let long = words(&api(&"ä".repeat(LIMIT)));
        assert!(long.len() <= LIMIT && long.ends_with("..."));
    }
}
