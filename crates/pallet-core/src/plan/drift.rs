//! Pure: when a settled node is looked at without changing it, and what is made of what was found.

use jiff::Timestamp;

use super::{Node, Record, next};
use crate::{
    group::{DriftCheck, Group},
    phase::PhaseName,
};
use pallet_api::reason::Reason;
use pallet_api::{
    conditions::{Verdict, clip},
    group_node::{Difference, Outcome, PhaseResult},
};

/// How many nodes a group's condition names.
const NAMED: usize = 3;

/// When a node is to be looked at next: the interval after it was last, or after anything ran on it, sooner by up to a tenth
/// of it by the node's name, so that not all are looked at together.
///
/// Times of a clock that was ahead do not count; without any other it is due now.
pub fn due(check: &DriftCheck, node: &Node, now: Timestamp) -> Option<Timestamp> {
    let phase_results = node.record.phase_results.values().map(|phase_result| phase_result.finished_at.0);
    let times: Vec<_> = phase_results.chain(node.record.drift.as_ref().map(|drift| drift.checked_at.0)).collect();
    let Some(last) = times.iter().copied().filter(|time| !next::is_ahead(*time, now)).max() else {
        return (!times.is_empty()).then_some(now);
    };
    let early = check.interval / 10 * u32::from(next::jitter(&node.name, 0)) / 255;
    Some(next::after(last, check.interval.saturating_sub(early)))
}

/// What was found otherwise than it is declared and has not been put right since.
pub fn differences(record: &Record) -> impl Iterator<Item = &Difference> {
    let checked = record.drift.as_ref().map(|drift| drift.checked_at.0);
    let stands = move |difference: &&Difference| {
        let phase_result = record.phase_results.get(&PhaseName::new(&difference.phase));
        // What a Lift ran otherwise is meant to differ.
        let put_right = |phase_result: &PhaseResult| {
            !phase_result.overridden_by.is_empty()
                || (phase_result.outcome == Outcome::Succeeded
                    && checked.is_some_and(|at| phase_result.started_at.0 >= at))
        };
        !phase_result.is_some_and(put_right)
    };
    record.drift.iter().flat_map(|drift| &drift.differences).filter(stands)
}

/// Whether a phase is to run again since the node differs from what it would leave behind.
pub fn calls_for(group: &Group, record: &Record, phase: &PhaseName) -> bool {
    let reapply = group.drift_check.is_some_and(|check| check.reapply);
    // A look that did not come to its end has found nothing that could be put right.
    reapply && differences(record).any(|found| found.phase == phase.as_str() && !found.name.is_empty())
}

/// The phases that a Lift ran otherwise than they are declared, and that converge has not run since. They are not put right by
/// themselves.
fn overrides<'a>(group: &'a Group, record: &'a Record) -> impl Iterator<Item = &'a PhaseResult> {
    let phase_results = record.phase_results.values();
    phase_results
        .filter(|phase_result| !phase_result.overridden_by.is_empty() && group.phases.declares(&phase_result.phase))
}

fn override_line(phase_result: &PhaseResult) -> String {
    format!("{} was run otherwise by Lift {}", phase_result.phase, phase_result.overridden_by)
}

/// What puts an override right.
const PUT_RIGHT: &str =
    "it stays so until the phase is changed, lifted without other parameters, or spec.converge.reapply is changed";

/// The condition of a node, where it has been looked at, or a Lift has run something otherwise there.
pub fn of_node(group: &Group, record: &Record) -> Option<Verdict> {
    let overridden: Vec<String> = overrides(group, record).map(override_line).collect();
    if !overridden.is_empty() {
        let message = format!("{}; {PUT_RIGHT}", overridden.join("; "));
        return Some(Verdict { kind: "Drifted", status: true, reason: Reason::LiftOverride.into(), message });
    }
    group.drift_check?;
    let drift = record.drift.as_ref()?;
    let lines: Vec<String> = differences(record).map(line).collect();
    let status = !lines.is_empty();
    let (reason, message) = if status {
        let more = if drift.omitted > 0 { format!("; and {} more", drift.omitted) } else { String::new() };
        (Reason::DriftDetected.as_str(), format!("{}{more}", lines.join("; ")))
    } else {
        (Reason::InSync.as_str(), "the node is as it is declared".to_owned())
    };
    Some(Verdict { kind: "Drifted", status, reason: reason.into(), message })
}

/// The condition of a group.
pub fn of_group(group: &Group, live: &[&Node]) -> Option<Verdict> {
    let overridden: Vec<(&str, &PhaseResult)> =
        live.iter().filter_map(|node| Some((node.name.as_str(), overrides(group, &node.record).next()?))).collect();
    if let [(name, first), ..] = overridden.as_slice() {
        let (count, line) = (overridden.len(), override_line(first));
        let message = format!("{count} of {} nodes; {name}: {line}; {PUT_RIGHT}", live.len());
        return Some(Verdict { kind: "Drifted", status: true, reason: Reason::LiftOverride.into(), message });
    }
    group.drift_check?;
    let looked_at = live.iter().filter(|node| node.record.drift.is_some()).count();
    let drifted: Vec<(&&Node, String)> =
        live.iter().filter_map(|node| Some((node, line(differences(&node.record).next()?)))).collect();
    let verdict = |status, reason: &str, message: String| {
        Some(Verdict { kind: "Drifted", status, reason: reason.into(), message })
    };
    if drifted.is_empty() {
        return verdict(false, Reason::InSync.as_str(), format!("{looked_at} of {} nodes were looked at", live.len()));
    }
    let named: Vec<String> =
        drifted.iter().take(NAMED).map(|(node, line)| format!("{}: {}", node.name, clip(line, 200))).collect();
    let more = drifted.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more nodes") } else { String::new() };
    verdict(
        true,
        Reason::DriftDetected.as_str(),
        format!("{} of {} nodes differ; {}{more}", drifted.len(), live.len(), named.join("; ")),
    )
}

fn line(difference: &Difference) -> String {
    let first = difference.message.lines().next().unwrap_or_default();
    format!("{} {}: {}", difference.phase, difference.name, clip(first, 160))
}
