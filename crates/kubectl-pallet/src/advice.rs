//! A hint for each reason, in one line. The full list is in docs/reference/status.md.

/// The hint. `group` and `node` are names for the commands in it.
pub fn about(reason: &str, group: &str, node: &str) -> Option<String> {
    let text = match reason {
        "PhaseFailed" => format!("change the phase, or retry it: kubectl pallet retry {group}"),
        "TestFailed" => format!("fix the node or the expectation, then: kubectl pallet retry {group}"),
        "ManualStep" if node.is_empty() => {
            format!("see who waits: kubectl pallet nodes {group}; then: kubectl pallet ack NODE")
        }
        "ManualStep" => format!("do it, then: kubectl pallet ack {node}"),
        "WaitingForApproval" => format!("review the plan and approve it: kubectl pallet approve {group}"),
        "RolloutStopped" => "fix the failed nodes: the other nodes wait for them".to_owned(),
        "NameConflict" => "the message names the object that is not owned by the group: delete or rename it; for a claim, rename the entry or set its claimPolicy".to_owned(),
        "TooMuchWork" => format!("simplify the condition or template that the message names: kubectl edit gs {group}"),
        "InvalidSpec" => format!("edit the spec, or create the missing object: kubectl edit gs {group}"),
        "InvalidTemplate" => format!("edit the template under spec.node: kubectl edit gs {group}"),
        "Forbidden" => {
            "fix what refuses the pod: an admission policy, a service account, the operator's rights".to_owned()
        }
        "QuotaExceeded" => "raise the quota of the namespace, or lower the count".to_owned(),
        "Unschedulable" => format!("no machine fits the pod: kubectl describe pod {node}"),
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            format!("fix the image of the pod template, or its pull secret: kubectl describe pod {node}")
        }
        "CrashLoopBackOff" => format!("the container ends by itself: kubectl logs {node} --previous"),
        "NoShell" => "use an image that has a POSIX sh".to_owned(),
        "ToolMissing" => "add the command that the message names to the image".to_owned(),
        "NoStateDirectory" => "mount an emptyDir at /var/lib/pallet, or set PALLET_STATE_DIR".to_owned(),
        "DiskFull" => "free disk space on the node".to_owned(),
        "SecretsTooLarge" => "select keys that hold only the secret, or use a ConfigMap for large texts".to_owned(),
        "SecretUnreadable" => "create the Secret that the message names, or grant the operator get on it".to_owned(),
        "Unreachable" => {
            "for a pod: check the right to pods/exec, the kubelet and admission policies; for a machine: its sshd and the network".to_owned()
        }
        "NotEnoughHosts" => format!("add hosts to the inventory, or lower the count: kubectl edit gs {group}"),
        "HostKeyUnknown" => "compare the key in the message with the host's key, and add it to hostKeys".to_owned(),
        "HostKeyChanged" => "find out why the host has another key before you replace the pinned key".to_owned(),
        "AuthenticationFailed" => "add the public key to the host's authorized_keys, or set another key or user".to_owned(),
        "BecomeFailed" => "give the user sudo rights on the host, or set a password under become".to_owned(),
        "AddressNotAllowed" => "the administrator allows such addresses with --allow-host-range".to_owned(),
        "HostInUse" => format!("correct the address in the inventory, or delete the node: kubectl delete gn {node}"),
        "RunInProgress" => "wait for the run that is in progress there, or stop it on the machine".to_owned(),
        "KubeVirtMissing" => "install KubeVirt; the operator detects it".to_owned(),
        "VirtualMachinesForbidden" => "the administrator grants the operator deploy/rbac/virtual-machines".to_owned(),
        "Stopped" => format!("start the virtual machine: virtctl start {node}"),
        "Paused" => format!("resume the virtual machine: virtctl unpause vm {node}"),
        "AgentFailed" => "the shell exited at once: check for a profile that exits, or missing rights".to_owned(),
        "NotIdempotent" => "use other facts in the phase than those that it changes".to_owned(),
        "PodsNotReady" => format!("check the readiness probes: kubectl get pods -l pallet.dev/group={group}"),
        _ => return None,
    };
    Some(text)
}

/// Whether the state of a node needs a person, though no phase has failed.
pub fn needs_a_person(reason: &str) -> bool {
    const STUCK: &[&str] = &[
        "NameConflict",
        "HostInUse",
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
        "BecomeFailed",
        "AddressNotAllowed",
        "InvalidPrivateKey",
        "InvalidKnownHosts",
        "PasswordUnreadable",
        "Stopped",
        "Paused",
        "AgentFailed",
        "AgentRefused",
        "NotIdempotent",
        "Unschedulable",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
    ];
    STUCK.contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_person_has_advice_or_speaks_for_itself() {
        assert_eq!(about("ManualStep", "web", "web-0").unwrap(), "do it, then: kubectl pallet ack web-0");
        assert!(about("Converging", "web", "").is_none() && !needs_a_person("Converging"));
        for reason in ["NoShell", "ImagePullBackOff", "NameConflict", "Unreachable", "NotIdempotent"] {
            assert!(needs_a_person(reason) && about(reason, "g", "n").is_some(), "{reason}");
        }
    }
}
