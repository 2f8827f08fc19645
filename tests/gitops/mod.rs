//! What those who wait make of every standing of every kind: the table that `tests/kstatus.rs` and `tests/argocd.rs` go by.
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;

use serde_json::Value;

use self::{Health::*, Standing::*};

/// What kstatus calls a standing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Everybody waits: Flux and Helm 4 up to their timeout, `kubectl wait` for whatever condition.
    InProgress,
    /// What was asked for is so. Flux and Helm 4 go on; `kubectl wait --for=condition=Ready` of a group and
    /// `--for=condition=Complete` of a Lift come back.
    Current,
    /// Nothing goes on without a person. Flux ends its health check at once, as Helm 4 gives up; `kubectl wait` comes back for
    /// `Stalled`, and of a Lift that has ended for `Failed`. One that waits for `Ready` or `Complete` alone waits on.
    Failed,
    /// It is being deleted.
    Terminating,
}

/// What Argo CD calls it. A sync wave, and a hook, is over when it is Healthy, and has failed when it is Degraded; it waits
/// for what is Progressing or Suspended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    Progressing,
    Healthy,
    Degraded,
    /// Somebody has asked for that it does not go on.
    Suspended,
}

/// Every standing by its name in `standings.json`, which is what the operator's pure functions make.
pub const TABLE: &[(&str, Standing, Health)] = &[
    // A GroupSpec. `kubectl apply && kubectl wait --for=condition=Ready` never takes an earlier generation for the present one.
    ("new", InProgress, Progressing),
    ("its nodes are to be made", InProgress, Progressing),
    ("scaling up", InProgress, Progressing),
    ("scaling down", InProgress, Progressing),
    ("an image cannot be pulled", InProgress, Progressing),
    ("a phase is due", InProgress, Progressing),
    ("a phase runs", InProgress, Progressing),
    ("a phase is tried again later", InProgress, Progressing),
    ("one node has failed, another goes on", InProgress, Progressing),
    ("replacing", InProgress, Progressing),
    ("a pod is not Ready", InProgress, Progressing),
    ("a plan waits while nodes go on", InProgress, Progressing),
    ("converged", Current, Healthy),
    ("converged on an older template", Current, Healthy),
    ("converged and drifted", Current, Healthy),
    ("converged and without nodes", Current, Healthy),
    ("edited since it was converged", InProgress, Progressing),
    ("edited since it was stalled", InProgress, Progressing),
    // Paused: whoever waits for Ready waits until it goes on, but where all was done before.
    ("paused on its way", InProgress, Suspended),
    ("paused and converged", Current, Suspended),
    ("paused with a pod that is not Ready", InProgress, Suspended),
    // Stalled, by reason.
    ("PhaseFailed", Failed, Degraded),
    ("TestFailed", Failed, Degraded),
    ("ManualStep", Failed, Degraded),
    ("WaitingForApproval", Failed, Degraded),
    ("RolloutStopped", Failed, Degraded),
    ("NameConflict", Failed, Degraded),
    ("NotIdempotent", Failed, Degraded),
    ("InvalidSpec", Failed, Degraded),
    ("InvalidTemplate", Failed, Degraded),
    ("Forbidden", Failed, Degraded),
    ("QuotaExceeded", Failed, Degraded),
    ("deleted", Terminating, Progressing),
    ("deleted while it was stalled", Terminating, Progressing),
    // A Lift before its start. What a person has to mend is Failed at once, though the Lift goes on when it is mended.
    ("lift: new", InProgress, Progressing),
    ("lift: NodesMissing", InProgress, Progressing),
    ("lift: suspended before its start", InProgress, Suspended),
    ("lift: GroupMissing", Failed, Degraded),
    ("lift: GroupDeleting", Failed, Degraded),
    ("lift: InvalidGroup", Failed, Degraded),
    ("lift: InvalidLift", Failed, Degraded),
    ("lift: UnknownPhase", Failed, Degraded),
    ("lift: NodeMissing", Failed, Degraded),
    ("lift: cancelled before its start", Failed, Degraded),
    ("lift: timed out before its start", Failed, Degraded),
    // On its way. That one node has failed is not the end: the others go on, and `--for=condition=Failed` waits for them.
    ("lift: running", InProgress, Progressing),
    ("lift: running, some done", InProgress, Progressing),
    ("lift: running, one has failed", InProgress, Progressing),
    ("lift: waits for bootstrap", InProgress, Progressing),
    ("lift: waits for another", InProgress, Progressing),
    ("lift: tried again later", InProgress, Progressing),
    ("lift: one node waits for a person, another goes on", InProgress, Progressing),
    ("lift: ManualStep", Failed, Degraded),
    ("lift: WaitingForApproval", Failed, Degraded),
    ("lift: suspended", InProgress, Suspended),
    ("lift: to be suspended, and nobody has seen it", InProgress, Progressing),
    ("lift: ending, since it was cancelled", InProgress, Progressing),
    ("lift: ending, since its time is over", InProgress, Progressing),
    ("lift: ending while it is suspended", InProgress, Progressing),
    ("lift: deleted while it runs", Terminating, Progressing),
    // At its end. What it came to stands, whatever is edited, once the operator has seen the edit.
    ("lift: complete", Current, Healthy),
    ("lift: complete, a dry run", Current, Healthy),
    ("lift: complete without nodes", Current, Healthy),
    ("lift: complete, one node is gone", Current, Healthy),
    ("lift: complete, edited since", InProgress, Progressing),
    ("lift: complete, suspended afterwards", Current, Healthy),
    ("lift: complete, deleted", Terminating, Progressing),
    ("lift: NodesFailed", Failed, Degraded),
    ("lift: Stopped", Failed, Degraded),
    ("lift: NodesRemoved", Failed, Degraded),
    ("lift: Cancelled", Failed, Degraded),
    ("lift: TimedOut", Failed, Degraded),
    // GroupNodes, which nobody applies and nobody waits for by kstatus: it knows none of their conditions.
    ("node: new", Current, Progressing),
    ("node: its pod is to be made", Current, Progressing),
    ("node: a phase is due", Current, Progressing),
    ("node: a phase runs", Current, Progressing),
    ("node: a phase is tried again later", Current, Progressing),
    ("node: converged", Current, Healthy),
    ("node: PhaseFailed", Current, Degraded),
    ("node: TestFailed", Current, Degraded),
    ("node: ManualStep", Current, Degraded),
    ("node: WaitingForApproval", Current, Degraded),
    ("node: NameConflict", Current, Degraded),
    ("node: NotIdempotent", Current, Degraded),
    ("node: removed", Terminating, Progressing),
];

/// The objects, by name.
pub fn standings() -> BTreeMap<String, Value> {
    let standings: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("standings.json")).expect("standings.json is JSON");
    let (made, judged): (Vec<&str>, Vec<&str>) =
        (standings.keys().map(String::as_str).collect(), TABLE.iter().map(|row| row.0).collect());
    let unjudged: Vec<_> = made.iter().filter(|name| !judged.contains(name)).collect();
    let unmade: Vec<_> = judged.iter().filter(|name| !made.contains(name)).collect();
    assert!(unjudged.is_empty() && unmade.is_empty(), "not in the table: {unjudged:?}; made by nobody: {unmade:?}");
    standings
}
