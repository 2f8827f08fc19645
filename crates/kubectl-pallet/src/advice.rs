//! What to do about a reason, in one line: the operator's own reasons from their table, and those that Kubernetes gives to pods.

use pallet_api::reason::Reason;

/// The hint. `group` and `node` are names for the commands in it.
pub fn about(reason: &str, group: &str, node: &str) -> Option<String> {
    let hint = match Reason::parse(reason) {
        Some(Reason::ManualStep) if node.is_empty() => {
            "see who waits: kubectl pallet nodes {group}; then: kubectl pallet ack NODE"
        }
        Some(Reason::Paused) if node.is_empty() => {
            "resume it: kubectl patch gs {group} --type merge -p '{\"spec\": {\"paused\": false}}'"
        }
        Some(Reason::Stopped) if node.is_empty() => return None,
        Some(reason) => reason.hint()?,
        None => of_kubernetes(reason)?,
    };
    Some(hint.replace("{group}", group).replace("{node}", node))
}

/// Reasons of the kubelet, the scheduler and KubeVirt.
fn of_kubernetes(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "Unschedulable" => "no machine fits the pod: kubectl describe pod {node}",
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            "fix the image of the pod template, or its pull secret: kubectl describe pod {node}"
        }
        "CrashLoopBackOff" => "the container ends by itself: kubectl logs {node} --previous",
        _ => return None,
    })
}

/// Whether a node cannot run its phases before a person does something. Phases that ran and failed are another matter.
pub fn blocks(reason: &str) -> bool {
    const OF_KUBERNETES: &[&str] = &[
        "Unschedulable",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    match Reason::parse(reason) {
        None => OF_KUBERNETES.contains(&reason),
        Some(
            Reason::PhaseFailed
            | Reason::TestFailed
            | Reason::TooMuchWork
            | Reason::ManualStep
            | Reason::WaitingForApproval
            | Reason::RolloutStopped,
        ) => false,
        Some(reason) => reason.needs_a_person(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_person_has_advice_or_speaks_for_itself() {
        assert_eq!(about("ManualStep", "web", "web-0").unwrap(), "do it, then: kubectl pallet ack web-0");
        assert!(about("Converging", "web", "").is_none() && !blocks("Converging") && !blocks("PhaseFailed"));
        for reason in ["NoShell", "ImagePullBackOff", "NameConflict", "Unreachable", "NotIdempotent"] {
            assert!(blocks(reason) && about(reason, "g", "n").is_some(), "{reason}");
        }
    }
}
