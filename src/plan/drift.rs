//! Pure: when a settled node is looked at without changing it, and what is made of what was found.

use jiff::{SignedDuration, Timestamp};

use super::{Node, Record, next};
use crate::{
    api::{
        conditions::{Verdict, clip},
        group_node::{Difference, Outcome},
    },
    group::{DriftCheck, Group},
    phase::PhaseName,
};

/// How many nodes a group's condition names.
const NAMED: usize = 3;

/// When a node is to be looked at next: the interval after it was last, or after anything ran on it, sooner by up to a tenth
/// of it by the node's name, so that not all are looked at together.
pub fn due(check: &DriftCheck, node: &Node) -> Option<Timestamp> {
    let receipts = node.record.receipts.values().map(|receipt| receipt.finished_at.0);
    let last = receipts.chain(node.record.drift.as_ref().map(|drift| drift.checked_at.0)).max()?;
    let early = check.interval / 10 * u32::from(next::jitter(&node.name, 0)) / 255;
    Some(last + SignedDuration::try_from(check.interval - early).unwrap_or(SignedDuration::MAX))
}

/// What was found otherwise than it is declared and has not been put right since.
pub fn differences(record: &Record) -> impl Iterator<Item = &Difference> {
    let checked = record.drift.as_ref().map(|drift| drift.checked_at.0);
    let stands = move |difference: &&Difference| {
        let receipt = record.receipts.get(&PhaseName::new(&difference.phase));
        let put_right = |receipt: &crate::api::group_node::Receipt| {
            receipt.outcome == Outcome::Succeeded && checked.is_some_and(|checked| receipt.started_at.0 >= checked)
        };
        !receipt.is_some_and(put_right)
    };
    record.drift.iter().flat_map(|drift| &drift.differences).filter(stands)
}

/// Whether a phase is to run again since the node differs from what it would leave behind.
pub fn calls_for(group: &Group, record: &Record, phase: &PhaseName) -> bool {
    let reapply = group.drift_check.is_some_and(|check| check.reapply);
    // A look that did not come to its end has found nothing that could be put right.
    reapply && differences(record).any(|found| found.phase == phase.as_str() && !found.name.is_empty())
}

/// The condition of a node, where it has been looked at.
pub fn of_node(group: &Group, record: &Record) -> Option<Verdict> {
    group.drift_check?;
    let drift = record.drift.as_ref()?;
    let lines: Vec<String> = differences(record).map(line).collect();
    let status = !lines.is_empty();
    let (reason, message) = if status {
        let more = if drift.omitted > 0 { format!("; and {} more", drift.omitted) } else { String::new() };
        ("Different", format!("{}{more}", lines.join("; ")))
    } else {
        ("InSync", "the node is as it is declared".to_owned())
    };
    Some(Verdict { kind: "Drifted", status, reason: reason.into(), message })
}

/// The condition of a group.
pub fn of_group(group: &Group, live: &[&Node]) -> Option<Verdict> {
    group.drift_check?;
    let looked_at = live.iter().filter(|node| node.record.drift.is_some()).count();
    let drifted: Vec<(&&Node, String)> =
        live.iter().filter_map(|node| Some((node, line(differences(&node.record).next()?)))).collect();
    let verdict = |status, reason: &str, message: String| {
        Some(Verdict { kind: "Drifted", status, reason: reason.into(), message })
    };
    if drifted.is_empty() {
        return verdict(false, "InSync", format!("{looked_at} of {} nodes were looked at", live.len()));
    }
    let named: Vec<String> =
        drifted.iter().take(NAMED).map(|(node, line)| format!("{}: {}", node.name, clip(line, 200))).collect();
    let more = drifted.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more nodes") } else { String::new() };
    verdict(true, "Different", format!("{} of {} nodes differ; {}{more}", drifted.len(), live.len(), named.join("; ")))
}

fn line(difference: &Difference) -> String {
    let first = difference.message.lines().next().unwrap_or_default();
    format!("{} {}: {}", difference.phase, difference.name, clip(first, 160))
}
