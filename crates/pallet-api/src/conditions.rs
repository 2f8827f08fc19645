//! Conditions by the Kubernetes API conventions: a transition time changes only with the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// A condition without its transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition's type, such as `Ready`.
    pub kind: &'static str,
    /// Whether the condition is True.
    pub status: bool,
    /// The cause, one CamelCase word that programs may match.
    pub reason: String,
    /// The cause, for people.
    pub message: String,
}

/// The longest message of a condition, in bytes. The schema of conditions allows 32 KiB, but people read a line.
pub const MESSAGE_LIMIT: usize = 1024;

/// Turns verdicts into conditions. Each keeps its transition time from `before` unless its status has changed.
pub fn stamp(
    verdicts: Vec<Verdict>,
    before: &[Condition],
    generation: Option<i64>,
    now: jiff::Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|verdict| {
            let status = if verdict.status { "True" } else { "False" };
            let old = before.iter().find(|c| c.type_ == verdict.kind && c.status == status);
            Condition {
                type_: verdict.kind.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason,
                message: clip(&verdict.message, MESSAGE_LIMIT),
                observed_generation: generation,
                last_transition_time: old.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

/// The longest prefix of `text` that has at most `limit` bytes, with a mark at its end if something was cut.
pub fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    const MARK: &str = "...";
    let mut end = limit - MARK.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: bool, message: &str) -> Verdict {
        Verdict { kind: "Ready", status, reason: "R".into(), message: message.into() }
    }

    #[test]
    fn a_transition_time_moves_only_with_the_status() {
        let (t1, t2) = (jiff::Timestamp::from_second(1).unwrap(), jiff::Timestamp::from_second(2).unwrap());
        let first = stamp(vec![verdict(false, "a")], &[], Some(1), t1);
        let second = stamp(vec![verdict(false, "b")], &first, Some(2), t2);
        assert_eq!(second[0].last_transition_time.0, t1);
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("b", Some(2)));
        let third = stamp(vec![verdict(true, "b")], &second, Some(2), t2);
        assert_eq!(third[0].last_transition_time.0, t2);
    }

    #[test]
    fn clipping_respects_characters() {
        assert_eq!(clip("short", 10), "short");
        assert_eq!(clip("ääääää", 8), "ää...");
    }
}
