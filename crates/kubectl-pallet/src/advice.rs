//! Pure: what to do about a reason, in a line. The full list is in docs/status.md.

/// What to do. `group` and `node` are names to put into commands.
pub fn about(reason: &str, group: &str, node: &str) -> Option<String> {
    let text = match reason {
        "PhaseFailed" => format!("change the phase, or give its attempts back: kubectl pallet retry {group}"),
        "TestFailed" => format!("mend the node or the expectation, then: kubectl pallet retry {group}"),
        "ManualStep" if node.is_empty() => {
            format!("see who waits: kubectl pallet nodes {group}; then: kubectl pallet ack NODE")
        }
        "ManualStep" => format!("do it, then: kubectl pallet ack {node}"),
        "WaitingForApproval" => format!("look at the plan and approve it: kubectl pallet approve {group}"),
        "RolloutStopped" => "mend the nodes that failed: the others wait for that".to_owned(),
        "NameTaken" => "something of somebody else has the name of a node: delete or rename it".to_owned(),
        "TooMuchWork" => format!("simplify the condition or template that the message names: kubectl edit gs {group}"),
        "InvalidSpec" => format!("edit the spec, or make what is missing: kubectl edit gs {group}"),
        "InvalidTemplate" => format!("edit the template under spec.node: kubectl edit gs {group}"),
        "Forbidden" => {
            "mend what refuses the pod: an admission policy, a service account, the operator's rights".to_owned()
        }
        "QuotaExceeded" => "raise the quota of the namespace, or lower the count".to_owned(),
        "Unschedulable" => format!("no machine fits the pod: kubectl describe pod {node}"),
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            format!("mend the image of the pod template, or its pull secret: kubectl describe pod {node}")
        }
        "CrashLoopBackOff" => format!("the container ends by itself: kubectl logs {node} --previous"),
        "NoShell" => "the image has no sh: use one that has".to_owned(),
        "ToolMissing" => "the image lacks a command that the agent needs: add it".to_owned(),
        "NoStateDirectory" => "mount an emptyDir at /var/lib/pallet, or set PALLET_STATE_DIR".to_owned(),
        "DiskFull" => "make room on the node".to_owned(),
        "SecretsTooLarge" => "name keys that hold the secret part alone, or bring large texts by a ConfigMap".to_owned(),
        "SecretUnreadable" => "make the Secret that the message names, or let the operator read it".to_owned(),
        "Unreachable" => {
            "of a pod: look at the operator's right to pods/exec, the kubelet, and admission; of a machine: at its sshd and what lies between".to_owned()
        }
        "NameConflict" => "the message says whose the claim is: rename one, or set claimPolicy of the entry".to_owned(),
        "NotEnoughHosts" => format!("add hosts to the inventory, or lower the count: kubectl edit gs {group}"),
        "HostKeyUnknown" => "compare the key that the message shows with the host's, and add it to hostKeys".to_owned(),
        "HostKeyChanged" => "find out why the host has another key before you replace the pinned one".to_owned(),
        "AuthenticationFailed" => "let the key in on the host, or name another one or another user".to_owned(),
        "ElevationRefused" => "give the user sudo on the host, or a password under become".to_owned(),
        "AddressRefused" => "the administrator allows such addresses with --allow-host-range".to_owned(),
        "HostTaken" => format!("correct the address in the inventory, or delete the node: kubectl delete gn {node}"),
        "MachineBusy" => "wait for the run that is still at work there, or end it on the machine".to_owned(),
        "KubeVirtMissing" => "install KubeVirt: it is noticed".to_owned(),
        "VirtualMachinesForbidden" => "the administrator grants the operator deploy/rbac/virtual-machines".to_owned(),
        "Stopped" => format!("start the virtual machine: virtctl start {node}"),
        "Paused" => format!("let the virtual machine go on: virtctl unpause vm {node}"),
        "AgentFailed" => "the shell ended at once: look for a profile that exits, or a lack of rights".to_owned(),
        "NeverSettles" => "let the phase use other facts than those that it changes".to_owned(),
        "PodsNotReady" => format!("look at the readiness probes: kubectl get pods -l pallet.dev/group={group}"),
        _ => return None,
    };
    Some(text)
}

/// Reasons of a node that stay until somebody does something, though nothing has failed in a phase.
pub fn is_trouble(reason: &str) -> bool {
    const TROUBLES: &[&str] = &[
        "NameTaken",
        "NameConflict",
        "HostTaken",
        "NoShell",
        "ToolMissing",
        "NoStateDirectory",
        "DiskFull",
        "SecretUnreadable",
        "SecretsTooLarge",
        "Unreachable",
        "HostKeyUnknown",
        "HostKeyChanged",
        "HostKeyRevoked",
        "HostCertificateInvalid",
        "AuthenticationFailed",
        "ElevationRefused",
        "AddressRefused",
        "KeyUnreadable",
        "TrustUnreadable",
        "PasswordUnreadable",
        "Stopped",
        "Paused",
        "AgentFailed",
        "AgentRefused",
        "NeverSettles",
        "Unschedulable",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    TROUBLES.contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trouble_has_advice_or_speaks_for_itself() {
        assert_eq!(about("ManualStep", "web", "web-0").unwrap(), "do it, then: kubectl pallet ack web-0");
        assert!(about("Converging", "web", "").is_none() && !is_trouble("Converging"));
        for reason in ["NoShell", "ImagePullBackOff", "NameTaken", "Unreachable", "NeverSettles"] {
            assert!(is_trouble(reason) && about(reason, "g", "n").is_some(), "{reason}");
        }
    }
}
