//! The reasons of conditions: the one table that the operator, the command line, the documentation and the health check for Argo CD
//! share. What Kubernetes and KubeVirt give as a reason of their own (`ImagePullBackOff`, `Unschedulable`) is passed through as text.

use std::fmt;

/// Whose condition a reason belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum On {
    /// `Ready` of a GroupSpec.
    Group,
    /// `Converged` of a GroupNode.
    Node,
    /// `Complete` of a Lift.
    Lift,
    /// What a node waits for, in the message of a Lift.
    LiftNode,
    /// `ClaimsDiffer` of a GroupSpec.
    Claims,
    /// `Drifted` of a GroupSpec and a GroupNode.
    Drift,
    /// `NodesTakenOver` of a GroupSpec.
    Restored,
    /// An event that reports no condition.
    Event,
}

/// What a reason means on one kind of object. The texts are Markdown; links are relative to `docs/reference`.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// The reason.
    pub reason: Reason,
    /// The kind.
    pub on: On,
    /// The conditions that are True beside it: `Reconciling`, `Stalled`, `Complete`, `Failed`, or none. Of an event: its object and type.
    pub beside: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do about it. Empty where it passes by itself.
    pub fix: &'static str,
}

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        /// Why a condition is as it is. The names are part of the API: scripts compare them.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[allow(missing_docs, reason = "[`MEANINGS`] describes each")]
        pub enum Reason {
            $($name),*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Reason] = &[$(Reason::$name),*];

            /// As it stands in a condition.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name)),*
                }
            }
        }
    };
}

reasons![
    Converged,
    Scaling,
    FailedCreate,
    Replacing,
    Converging,
    PodsNotReady,
    PhaseFailed,
    TooMuchWork,
    TestFailed,
    ManualStep,
    WaitingForApproval,
    RolloutStopped,
    NameConflict,
    NotEnoughHosts,
    KubeVirtMissing,
    VirtualMachinesForbidden,
    VirtualMachinesNotReady,
    InvalidSpec,
    InvalidTemplate,
    Forbidden,
    QuotaExceeded,
    Paused,
    Deleting,
    Running,
    Pending,
    Backoff,
    Interrupted,
    WaitingForBarrier,
    WaitingForNodes,
    Removing,
    ClaimTerminating,
    PodMissing,
    VirtualMachineMissing,
    PodTerminating,
    VirtualMachineTerminating,
    NoShell,
    SecretsTooLarge,
    SecretUnreadable,
    ToolMissing,
    NoStateDirectory,
    DiskFull,
    PodReplaced,
    AgentFailed,
    AgentRefused,
    Unreachable,
    HostKeyUnknown,
    HostKeyChanged,
    HostKeyRevoked,
    HostCertificateInvalid,
    AuthenticationFailed,
    BecomeFailed,
    AddressNotAllowed,
    InvalidPrivateKey,
    InvalidKnownHosts,
    PasswordUnreadable,
    JumpHostFailed,
    SessionRefused,
    RunInProgress,
    NeverStarted,
    ConnectionLost,
    NotLeading,
    NotIdempotent,
    HostInUse,
    HostMissing,
    InventoryUnavailable,
    PodPending,
    InitContainerFailed,
    ContainerWaiting,
    ContainerTerminated,
    ContainerEnded,
    PodFailed,
    PodSucceeded,
    AddressMissing,
    NodesMissing,
    Suspended,
    Ending,
    GroupMissing,
    GroupDeleting,
    InvalidGroup,
    InvalidLift,
    UnknownPhase,
    NodeMissing,
    Succeeded,
    NoNodes,
    NodesFailed,
    Stopped,
    NodesRemoved,
    Cancelled,
    TimedOut,
    Queued,
    NotBootstrapped,
    NoPod,
    NoVirtualMachine,
    NoHost,
    Expanding,
    ExpansionRefused,
    NotExpanded,
    CannotShrink,
    ImmutableField,
    DriftDetected,
    LiftOverride,
    InSync,
    GroupRecreated,
    PhaseInterrupted,
    PhaseLost,
    Drifted,
    DestroySkipped,
    FailedUpdate,
    FailedDelete,
    RevisionNotKept,
];

impl Reason {
    /// The reason of this name, where it is one of the operator's own.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }

    /// Whether a condition's reason is one of these.
    pub fn is_one_of(text: &str, reasons: &[Self]) -> bool {
        Self::parse(text).is_some_and(|reason| reasons.contains(&reason))
    }

    /// What it means on a kind of object.
    pub fn on(self, on: On) -> Option<&'static Meaning> {
        MEANINGS.iter().find(|meaning| meaning.reason == self && meaning.on == on)
    }

    /// Whether nothing goes on before a person does something.
    pub const fn needs_a_person(self) -> bool {
        matches!(
            self,
            Reason::PhaseFailed
                | Reason::TestFailed
                | Reason::TooMuchWork
                | Reason::ManualStep
                | Reason::WaitingForApproval
                | Reason::RolloutStopped
                | Reason::NameConflict
                | Reason::HostInUse
                | Reason::NoShell
                | Reason::ToolMissing
                | Reason::NoStateDirectory
                | Reason::DiskFull
                | Reason::SecretUnreadable
                | Reason::SecretsTooLarge
                | Reason::Unreachable
                | Reason::HostKeyUnknown
                | Reason::HostKeyChanged
                | Reason::HostKeyRevoked
                | Reason::HostCertificateInvalid
                | Reason::AuthenticationFailed
                | Reason::BecomeFailed
                | Reason::AddressNotAllowed
                | Reason::InvalidPrivateKey
                | Reason::InvalidKnownHosts
                | Reason::PasswordUnreadable
                | Reason::Stopped
                | Reason::Paused
                | Reason::AgentFailed
                | Reason::AgentRefused
                | Reason::NotIdempotent
        )
    }

    /// What to do, in one line for a terminal. `{group}` and `{node}` stand for their names.
    pub const fn hint(self) -> Option<&'static str> {
        Some(match self {
            Reason::PodsNotReady => "check the readiness probes: kubectl get pods -l pallet.dev/group={group}",
            Reason::PhaseFailed => "change the phase, or retry it: kubectl pallet retry {group}",
            Reason::TooMuchWork => "simplify the condition or template that the message names: kubectl edit gs {group}",
            Reason::TestFailed => "fix the node or the expectation, then: kubectl pallet retry {group}",
            Reason::ManualStep => "do it, then: kubectl pallet ack {node}",
            Reason::WaitingForApproval => "review the plan and approve it: kubectl pallet approve {group}",
            Reason::RolloutStopped => "fix the failed nodes: the other nodes wait for them",
            Reason::NameConflict => {
                "the message names the object that is not owned by the group: delete or rename it; for a claim, rename the entry or set its claimPolicy"
            }
            Reason::NotEnoughHosts => "add hosts to the inventory, or lower the count: kubectl edit gs {group}",
            Reason::KubeVirtMissing => "install KubeVirt; the operator detects it",
            Reason::VirtualMachinesForbidden => "the administrator grants the operator deploy/rbac/virtual-machines",
            Reason::InvalidSpec => "edit the spec, or create the missing object: kubectl edit gs {group}",
            Reason::InvalidTemplate => "edit the template under spec.node: kubectl edit gs {group}",
            Reason::Forbidden => {
                "fix what refuses the pod: an admission policy, a service account, the operator's rights"
            }
            Reason::QuotaExceeded => "raise the quota of the namespace, or lower the count",
            Reason::Paused => "resume the virtual machine: virtctl unpause vm {node}",
            Reason::NoShell => "use an image that has a POSIX sh",
            Reason::SecretsTooLarge => "select keys that hold only the secret, or use a ConfigMap for large texts",
            Reason::SecretUnreadable => "create the Secret that the message names, or grant the operator get on it",
            Reason::ToolMissing => "add the command that the message names to the image",
            Reason::NoStateDirectory => "mount an emptyDir at /var/lib/pallet, or set PALLET_STATE_DIR",
            Reason::DiskFull => "free disk space on the node",
            Reason::AgentFailed => "the shell exited at once: check for a profile that exits, or missing rights",
            Reason::Unreachable => {
                "for a pod: check the right to pods/exec, the kubelet and admission policies; for a machine: its sshd and the network"
            }
            Reason::HostKeyUnknown => "compare the key in the message with the host's key, and add it to hostKeys",
            Reason::HostKeyChanged => "find out why the host has another key before you replace the pinned key",
            Reason::AuthenticationFailed => {
                "add the public key to the host's authorized_keys, or set another key or user"
            }
            Reason::BecomeFailed => "give the user sudo rights on the host, or set a password under become",
            Reason::AddressNotAllowed => "the administrator allows such addresses with --allow-host-range",
            Reason::RunInProgress => "wait for the run that is in progress there, or stop it on the machine",
            Reason::NotIdempotent => "use other facts in the phase than those that it changes",
            Reason::HostInUse => "correct the address in the inventory, or delete the node: kubectl delete gn {node}",
            Reason::Stopped => "start the virtual machine: virtctl start {node}",
            _ => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

impl PartialEq<str> for Reason {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Reason {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<Reason> for String {
    fn eq(&self, other: &Reason) -> bool {
        self == other.as_str()
    }
}

const fn on(on: On, reason: Reason, beside: &'static str, meaning: &'static str, fix: &'static str) -> Meaning {
    Meaning { reason, on, beside, meaning, fix }
}

/// What each reason means, by kind, as `docs/reference/reasons.md` lists it.
#[rustfmt::skip]
pub const MEANINGS: &[Meaning] = &[
    on(
        On::Group, Reason::Converged, "",
        "all `count` nodes have converged, their pods are Ready and, unless `replacement` is `Never`, were created from the current template. Surplus nodes may still be terminating. Under `Never` the message counts the older pods. It also names declared phases that nothing runs",
        "under `Never`: delete older pods one by one to have them recreated",
    ),
    on(
        On::Group, Reason::Scaling, "Reconciling",
        "nodes are missing or are being removed",
        "if it lasts: the message names the first node with a problem, how many more there are, and the cause",
    ),
    on(
        On::Group, Reason::FailedCreate, "Reconciling",
        "the API server rejects the creation of a GroupNode, pod, virtual machine, volume claim or Secret, or the dry run of the template; for example an admission webhook denies it or cannot be reached. The message quotes the API server. Other nodes go on",
        "fix what rejects it. The operator retries after 1, 2, 4, ... up to 60 seconds, and at once after an edit of the GroupSpec",
    ),
    on(
        On::Group, Reason::Replacing, "Reconciling",
        "the number of nodes is right, but some were created from an older pod template, or their pod does not exist yet. While a node is absent the reason is `Scaling`",
        "if it lasts: a new node does not become available (`kubectl get gn,pods`), or the rollout is stopped",
    ),
    on(
        On::Group, Reason::Converging, "Reconciling",
        "the number of nodes is right; phases run, wait, or will be retried",
        "if it lasts: `kubectl get gn` shows which node waits for what",
    ),
    on(
        On::Group, Reason::PodsNotReady, "Reconciling",
        "every phase has succeeded, but pods are not Ready. The message names the first node and the cause: the container with its reason and exit code, the probe, or another readiness gate",
        "fix the container, or its readiness probe",
    ),
    on(
        On::Group, Reason::PhaseFailed, "Stalled",
        "nothing can proceed, and at least one node has no attempts left. The message quotes the first such node; `phaseErrors` has more",
        "change the phase, or set a new value of the annotation `pallet.dev/retry` to grant new attempts",
    ),
    on(
        On::Group, Reason::TooMuchWork, "Stalled",
        "templates or conditions of the spec, or of a phase on a node, exceed the operator's limits. The message names the field or action",
        "simplify them, reduce their input, or do the work in the script",
    ),
    on(
        On::Group, Reason::TestFailed, "Stalled",
        "as `PhaseFailed`, for the phase `test`. The message has the expectation and the actual value",
        "fix the node or the expectation, then set a new `pallet.dev/retry`",
    ),
    on(
        On::Group, Reason::ManualStep, "Stalled",
        "nothing can proceed, and a phase waits for a person on at least one node. The message has the step and the command to acknowledge it",
        "do the step, then acknowledge it: [manual steps](../how-to/manual-steps.md)",
    ),
    on(
        On::Group, Reason::WaitingForApproval, "Stalled",
        "nothing proceeds until `status.plan` is approved; the message has the command. While what was approved before is still being applied, the group is `Reconciling`, and the message says that a plan waits",
        "review and [approve](../how-to/approval.md) the plan",
    ),
    on(
        On::Group, Reason::RolloutStopped, "Stalled",
        "nothing can proceed: more nodes have failed than `onFailure` and `maxFailures` allow, and the other nodes wait. The message names the first failed node and counts those that wait",
        "as for `PhaseFailed`",
    ),
    on(
        On::Group, Reason::NameConflict, "Stalled",
        "nothing can proceed: a pod at a node's name, or a volume claim that a node needs, is not owned by the group. The message names it and its owner",
        "delete or rename the pod; for a claim see [claims that exist](../explanation/pods.md#claims-that-exist)",
    ),
    on(
        On::Group, Reason::NotEnoughHosts, "Stalled",
        "nothing can proceed: the inventory has fewer free [hosts](../how-to/hosts.md) than nodes are declared. The message says who uses the other hosts",
        "add hosts, or lower `count`. The operator checks again every 3 seconds",
    ),
    on(
        On::Group, Reason::KubeVirtMissing, "Stalled",
        "the nodes are [virtual machines](../how-to/virtual-machines.md), and KubeVirt is not installed",
        "install KubeVirt. The operator detects it within 15 seconds",
    ),
    on(
        On::Group, Reason::VirtualMachinesForbidden, "Stalled",
        "the nodes are [virtual machines](../how-to/virtual-machines.md), and the operator lacks the permission that the message names",
        "grant the [rights for virtual machines](../explanation/security.md#rights-for-virtual-machines). The operator detects it within 15 seconds",
    ),
    on(
        On::Group, Reason::VirtualMachinesNotReady, "Reconciling",
        "as `PodsNotReady`, for virtual machines",
        "fix the guest, or its readiness probe",
    ),
    on(
        On::Group, Reason::InvalidSpec, "Stalled",
        "the spec has an error that the API server cannot check, such as an undefined template name, or a ServerSpec, Secret or ConfigMap that does not exist. The message lists all errors with their paths, and how many nodes are converged. No node is removed or replaced; lost nodes are recreated from the [last valid declaration](../explanation/concepts.md#revisions)",
        "edit the spec, or create the missing object. Missing Secrets and ConfigMaps are looked up again every 10 seconds",
    ),
    on(
        On::Group, Reason::InvalidTemplate, "Stalled",
        "the API server rejects the pod or a volume claim as invalid (400, 422: an unknown field, a bad value). No node is replaced; lost and missing nodes are created from the [last valid template](../explanation/concepts.md#revisions)",
        "edit the template. The operator checks again every 30 seconds",
    ),
    on(
        On::Group, Reason::Forbidden, "Stalled",
        "the API server denies the pod (403: an admission policy, a missing service account, a missing permission of the operator). No pod is created from this template",
        "fix what denies it. The operator checks again every 3 seconds",
    ),
    on(
        On::Group, Reason::QuotaExceeded, "Stalled",
        "the quota of the namespace is used up. No node is created. Nodes are still replaced, because one that terminates frees quota. While other work proceeds the group is `Reconciling`",
        "raise the quota, or lower `count`",
    ),
    on(
        On::Group, Reason::Paused, "",
        "the group has not converged, and `spec.paused` is true",
        "set `spec.paused` to false",
    ),
    on(
        On::Group, Reason::Deleting, "Reconciling",
        "the group is being deleted; the message counts the remaining nodes. From 30 seconds after the end of a pod's grace period it also says what blocks the first one: a finalizer, or the machine whose kubelet does not answer",
        "if it lasts: remove the finalizer, or remove the lost machine from the cluster",
    ),
    on(
        On::Node, Reason::Running, "",
        "a session is open; the message names the phase and attempt. Or the session waits for a free place under `--sessions`",
        "",
    ),
    on(
        On::Node, Reason::Pending, "",
        "work is due and waits for its turn under `maxParallel`. The message says what: new node, changed phase, due attempt, lost run, or a journal to read after an operator restart",
        "",
    ),
    on(
        On::Node, Reason::Backoff, "",
        "the last attempt failed; the message has its error and the time of the next attempt",
        "wait, or edit the phase",
    ),
    on(
        On::Node, Reason::Interrupted, "",
        "the pod was evicted, deleted or lost while the phase ran, at least twice in a row. This uses no attempt; the message has the time of the next run. After one interruption the phase runs again at once",
        "if it lasts: find what ends the pod. An eviction for memory or ephemeral storage may be caused by the phase itself",
    ),
    on(
        On::Node, Reason::PhaseFailed, "",
        "no attempts are left",
        "change the phase, or set a new `pallet.dev/retry` on the GroupSpec or GroupNode",
    ),
    on(
        On::Node, Reason::TooMuchWork, "",
        "templates or conditions of a phase exceed the operator's limits, and no attempts are left. The message names the action",
        "simplify them; the edit starts new attempts",
    ),
    on(
        On::Node, Reason::TestFailed, "",
        "`test` has no attempts left; the message has the actual values",
        "fix the node or the expectation, then set a new `pallet.dev/retry`",
    ),
    on(
        On::Node, Reason::WaitingForBarrier, "",
        "under `order: Barrier`: other nodes have not finished an earlier phase, which the message names",
        "look at the other nodes",
    ),
    on(
        On::Node, Reason::RolloutStopped, "",
        "work is due, but too many other nodes have failed",
        "fix the failed nodes",
    ),
    on(
        On::Node, Reason::ManualStep, "",
        "a phase waits for a person; the message has the step and the command",
        "do the step, then annotate the GroupNode with `pallet.dev/ack`",
    ),
    on(
        On::Node, Reason::WaitingForApproval, "",
        "work is due that was not approved",
        "approve `status.plan` of the GroupSpec",
    ),
    on(
        On::Node, Reason::WaitingForNodes, "",
        "a template requires more nodes of a role than exist (`required(n)`). This uses no attempt",
        "wait, or scale the group that has the role",
    ),
    on(
        On::Node, Reason::Removing, "",
        "destroy-server runs or will be retried; the message has what it waits for, or its error",
        "none: it ends at `destroyTimeout`",
    ),
    on(
        On::Node, Reason::NameConflict, "",
        "a pod of this name, or a volume claim that the node needs, is not owned by the group. The message says whose it is",
        "delete or rename the pod; for a claim see [claims that exist](../explanation/pods.md#claims-that-exist)",
    ),
    on(
        On::Node, Reason::FailedCreate, "",
        "the API server rejects the creation of the pod, or of a claim or Secret that it needs; the message quotes it",
        "fix what rejects it. The operator retries after at most 60 seconds",
    ),
    on(
        On::Node, Reason::Forbidden, "",
        "the API server denies the pod, or a claim or Secret that it needs; the message quotes it",
        "fix what denies it. The operator retries after at most 60 seconds",
    ),
    on(
        On::Node, Reason::QuotaExceeded, "",
        "the quota of the namespace has no room for the pod or its claim",
        "raise the quota, or lower `count`",
    ),
    on(
        On::Node, Reason::ClaimTerminating, "",
        "a volume claim of the node is being deleted; the pod is created afterwards",
        "if it lasts: find what uses the claim or holds its finalizer",
    ),
    on(
        On::Node, Reason::PodMissing, "",
        "the pod will be created",
        "if it lasts: look for `InvalidTemplate` or `Forbidden` on the group",
    ),
    on(
        On::Node, Reason::PodTerminating, "",
        "the pod is terminating and will be replaced. The message says who evicted it, where its condition `DisruptionTarget` says so, and from 30 seconds after its grace period what blocks it: a finalizer, or a kubelet that does not answer",
        "if it lasts: remove the finalizer, or remove the lost machine from the cluster",
    ),
    on(
        On::Node, Reason::VirtualMachineMissing, "",
        "the virtual machine will be created",
        "if it lasts: look for `InvalidTemplate` or `Forbidden` on the group",
    ),
    on(
        On::Node, Reason::VirtualMachineTerminating, "",
        "the virtual machine is being deleted and will be replaced",
        "if it lasts: `kubectl describe vm`",
    ),
    on(
        On::Node, Reason::NoShell, "",
        "the image has no `sh`",
        "use an image with a POSIX shell",
    ),
    on(
        On::Node, Reason::SecretsTooLarge, "",
        "the Secrets that the group names exceed the [512 KiB](../how-to/secrets.md#size-limit) that can be masked in output",
        "select keys that hold only the secret; use a ConfigMap for large texts such as CA bundles",
    ),
    on(
        On::Node, Reason::SecretUnreadable, "",
        "the operator cannot read a Secret that the group names; the message says which",
        "create it, or check the operator's permissions",
    ),
    on(
        On::Node, Reason::ToolMissing, "",
        "the image lacks a command that the agent needs; the message names it",
        "add it to the image",
    ),
    on(
        On::Node, Reason::NoStateDirectory, "",
        "no directory for the journal is writable (such as with a read-only root), or other users could replace it; the message lists the candidates",
        "mount an `emptyDir` at `/var/lib/pallet`, or set `PALLET_STATE_DIR`",
    ),
    on(
        On::Node, Reason::DiskFull, "",
        "the journal could not be written",
        "free disk space on the node",
    ),
    on(
        On::Node, Reason::PodReplaced, "",
        "the pod of this name was replaced a moment ago",
        "",
    ),
    on(
        On::Node, Reason::AgentFailed, "",
        "the shell exited before the agent answered (the message has its output), or the node sent data that no agent sends",
        "check for a broken shell, a profile that exits, or missing permissions",
    ),
    on(
        On::Node, Reason::AgentRefused, "",
        "the agent rejected the operator's request",
        "report it as a bug",
    ),
    on(
        On::Node, Reason::Unreachable, "",
        "the session could not be opened: the API server, kubelet or sshd refused it, or there was no answer in 15 seconds",
        "for pods: check RBAC (`pods/exec`), the kubelet, admission policies. For hosts and virtual machines: check sshd and the network",
    ),
    on(
        On::Node, Reason::HostKeyUnknown, "",
        "the machine's host key is not in `hostKeys`. Nothing was sent to it",
        "compare the key in the message with the machine's, then add it: [keys](../how-to/keys.md)",
    ),
    on(
        On::Node, Reason::HostKeyChanged, "",
        "the machine shows another host key than the pinned one. Nothing was sent to it",
        "find out why before you replace the pinned key: [keys](../how-to/keys.md)",
    ),
    on(
        On::Node, Reason::HostKeyRevoked, "",
        "the machine shows a host key that `hostKeys` marks as revoked. Nothing was sent to it",
        "give the machine a new key: [keys](../how-to/keys.md)",
    ),
    on(
        On::Node, Reason::HostCertificateInvalid, "",
        "the machine's host certificate is not valid for it: expired, for another name, or of another kind. Nothing was sent to it",
        "renew the certificate: [keys](../how-to/keys.md)",
    ),
    on(
        On::Node, Reason::AuthenticationFailed, "",
        "the machine rejects the user or key",
        "add the public key to `authorized_keys` there, or set another key or user",
    ),
    on(
        On::Node, Reason::BecomeFailed, "",
        "sudo denies the user; the message quotes it",
        "grant it in sudoers, or set a password under `become`",
    ),
    on(
        On::Node, Reason::AddressNotAllowed, "",
        "the address is in a range that the operator refuses, such as loopback, link-local or the API server's: [hosts](../how-to/hosts.md)",
        "the administrator allows it with `--allow-host-range`",
    ),
    on(
        On::Node, Reason::InvalidPrivateKey, "",
        "the Secret of the login key does not exist, or holds no usable private key",
        "fix the Secret that the message names",
    ),
    on(
        On::Node, Reason::InvalidKnownHosts, "",
        "the ConfigMap or Secret of `hostKeys` does not exist, or a line of it is invalid",
        "fix the object that the message names",
    ),
    on(
        On::Node, Reason::PasswordUnreadable, "",
        "the Secret of the `become` password does not exist, or lacks the key",
        "fix the Secret that the message names",
    ),
    on(
        On::Node, Reason::JumpHostFailed, "",
        "the jump host does not forward the connection",
        "check `AllowTcpForwarding` and `PermitOpen` on the jump host",
    ),
    on(
        On::Node, Reason::SessionRefused, "",
        "sshd starts no shell",
        "check `ForceCommand` and the login shell of the user there",
    ),
    on(
        On::Node, Reason::RunInProgress, "",
        "a run of another node, or of an earlier incarnation, is in progress on the machine",
        "wait for it, or stop it there: [hosts](../how-to/hosts.md#troubleshooting)",
    ),
    on(
        On::Node, Reason::NeverStarted, "",
        "the run was killed on the node before its script started",
        "if it lasts: find what kills processes there, such as a memory limit",
    ),
    on(
        On::Node, Reason::ConnectionLost, "",
        "the connection broke or was silent too long. The run goes on and is found again",
        "",
    ),
    on(
        On::Node, Reason::NotLeading, "",
        "the operator that would have opened the session is not the leader any more; the leader opens one",
        "",
    ),
    on(
        On::Node, Reason::NotIdempotent, "",
        "a phase ran three times in one session, because each run changed facts that it uses",
        "use other facts in the phase, or change them only once",
    ),
    on(
        On::Node, Reason::HostInUse, "",
        "another group uses the machine, or a node of this group that took it first; the message says which",
        "correct the address in the inventory, or delete the node",
    ),
    on(
        On::Node, Reason::HostMissing, "",
        "the inventory does not list the node's host any more",
        "add the host again, or wait until the node is removed",
    ),
    on(
        On::Node, Reason::InventoryUnavailable, "",
        "the ConfigMap of the inventory has not been read since the operator started",
        "if it lasts: check the ConfigMap and the operator's permission to read it",
    ),
    on(
        On::Node, Reason::PodPending, "",
        "the pod has no container status yet",
        "if it lasts: `kubectl describe pod`",
    ),
    on(
        On::Node, Reason::InitContainerFailed, "",
        "an init container failed; the message names it and its exit code",
        "fix the init container",
    ),
    on(
        On::Node, Reason::ContainerWaiting, "",
        "the container waits, and the kubelet gives no reason",
        "if it lasts: `kubectl describe pod`",
    ),
    on(
        On::Node, Reason::ContainerTerminated, "",
        "the container ended and will be restarted; the message has the exit code and reason, such as `OOMKilled`",
        "if it lasts: `kubectl logs --previous`",
    ),
    on(
        On::Node, Reason::ContainerEnded, "",
        "the container of the phases ended, and its `restartPolicy` keeps it stopped: the pod will be [replaced](../explanation/pods.md#lost-restarted-replaced)",
        "",
    ),
    on(
        On::Node, Reason::PodFailed, "",
        "the pod failed for good and will be replaced",
        "",
    ),
    on(
        On::Node, Reason::PodSucceeded, "",
        "the pod ended and will be replaced",
        "use a container that does not end",
    ),
    on(
        On::Node, Reason::AddressMissing, "",
        "the virtual machine has no IP address yet",
        "if it lasts: check the guest's network and agent",
    ),
    on(
        On::Node, Reason::Stopped, "",
        "the virtual machine is stopped (KubeVirt's word)",
        "start it: `virtctl start`",
    ),
    on(
        On::Node, Reason::Paused, "",
        "the virtual machine is paused (KubeVirt's word)",
        "resume it: `virtctl unpause vm`",
    ),
    on(
        On::Lift, Reason::NodesMissing, "Reconciling",
        "nodes of a group are being created",
        "",
    ),
    on(
        On::Lift, Reason::Running, "Reconciling",
        "phases run. The message counts the finished nodes, and says what one of the others waits for",
        "",
    ),
    on(
        On::Lift, Reason::Suspended, "Reconciling",
        "`spec.suspend` is true",
        "set it to false",
    ),
    on(
        On::Lift, Reason::Ending, "Reconciling",
        "the Lift was cancelled or deleted, or its timeout has passed: runs on nodes are being stopped",
        "",
    ),
    on(
        On::Lift, Reason::GroupMissing, "Stalled",
        "a group does not exist",
        "create the group, or cancel the Lift",
    ),
    on(
        On::Lift, Reason::GroupDeleting, "Stalled",
        "a group is being deleted",
        "cancel the Lift",
    ),
    on(
        On::Lift, Reason::InvalidGroup, "Stalled",
        "the spec of a group is invalid",
        "fix the group, or cancel the Lift",
    ),
    on(
        On::Lift, Reason::InvalidLift, "Stalled",
        "`with`, `process` or the inline phase cannot be used with one of the groups. The message lists all errors",
        "fix the group, or create another Lift",
    ),
    on(
        On::Lift, Reason::TooMuchWork, "Stalled",
        "a template or condition exceeds the operator's limits with the values of `with`",
        "create another Lift",
    ),
    on(
        On::Lift, Reason::UnknownPhase, "Stalled",
        "none of the groups has the phase; the message lists their phases",
        "create another Lift",
    ),
    on(
        On::Lift, Reason::NodeMissing, "Stalled",
        "none of the groups has the node; the message lists their nodes",
        "create another Lift",
    ),
    on(
        On::Lift, Reason::ManualStep, "Stalled",
        "a phase waits for a person; the message has the command",
        "do the step, then acknowledge it",
    ),
    on(
        On::Lift, Reason::WaitingForApproval, "Stalled",
        "a phase of the group was not approved; the message has the command",
        "approve the plan of the group",
    ),
    on(
        On::Lift, Reason::Succeeded, "Complete",
        "the phases succeeded on all nodes. The message counts nodes that were removed meanwhile",
        "",
    ),
    on(
        On::Lift, Reason::NoNodes, "Complete",
        "there was no node to run on",
        "",
    ),
    on(
        On::Lift, Reason::NodesFailed, "Failed, Stalled",
        "the phases failed on at least one node; the message has the first and its error",
        "fix it, then create another Lift",
    ),
    on(
        On::Lift, Reason::Stopped, "Failed, Stalled",
        "more nodes failed than `maxFailures` allows; the others were skipped",
        "fix them, then create another Lift",
    ),
    on(
        On::Lift, Reason::NodesRemoved, "Failed, Stalled",
        "all nodes were removed before they finished",
        "",
    ),
    on(
        On::Lift, Reason::Cancelled, "Failed, Stalled",
        "it was cancelled. The message has what failed before",
        "",
    ),
    on(
        On::Lift, Reason::TimedOut, "Failed, Stalled",
        "its `timeout` passed. The message has what failed before",
        "raise `timeout`, or fix what took so long",
    ),
    on(
        On::LiftNode, Reason::Queued, "",
        "waits for its turn: `maxParallel`, another Lift, or the limit of sessions of the group",
        "",
    ),
    on(
        On::LiftNode, Reason::NotBootstrapped, "",
        "bootstrap has not succeeded on the node",
        "",
    ),
    on(
        On::LiftNode, Reason::NoPod, "",
        "the node has no running pod",
        "",
    ),
    on(
        On::LiftNode, Reason::NoVirtualMachine, "",
        "the node has no running virtual machine",
        "",
    ),
    on(
        On::LiftNode, Reason::NoHost, "",
        "the node's host is not in the inventory",
        "",
    ),
    on(
        On::Claims, Reason::Expanding, "",
        "claims are being expanded",
        "",
    ),
    on(
        On::Claims, Reason::ExpansionRefused, "",
        "the API server rejects the expansion of a claim; the message quotes it",
        "use a StorageClass that allows expansion, or restore the former size",
    ),
    on(
        On::Claims, Reason::NotExpanded, "",
        "a claim is smaller than declared, and the operator may not expand it",
        "see [claims that change](../explanation/pods.md#claims-that-change)",
    ),
    on(
        On::Claims, Reason::CannotShrink, "",
        "a claim is larger than declared; Kubernetes cannot shrink it",
        "restore the former size, or replace the node and its claim",
    ),
    on(
        On::Claims, Reason::ImmutableField, "",
        "a field of a claim differs that Kubernetes cannot change",
        "replace the node and its claim, or restore the field",
    ),
    on(
        On::Claims, Reason::ClaimTerminating, "",
        "a claim is being deleted",
        "",
    ),
    on(
        On::Claims, Reason::NameConflict, "",
        "a claim of the name is not owned by the group",
        "see [claims that exist](../explanation/pods.md#claims-that-exist)",
    ),
    on(
        On::Drift, Reason::DriftDetected, "",
        "the last drift check found differences; the message has the first",
        "see [drift](../how-to/drift.md#results)",
    ),
    on(
        On::Drift, Reason::LiftOverride, "",
        "a [Lift](../how-to/lifts.md#beside-converge) has run a phase with other parameters",
        "run the phase again: a Lift without `with`, or an edit of the phase",
    ),
    on(
        On::Drift, Reason::InSync, "",
        "the last drift check found no difference",
        "",
    ),
    on(
        On::Restored, Reason::GroupRecreated, "",
        "the group has nodes of an earlier GroupSpec of its name",
        "see [restore from a backup](../how-to/operate.md#restore-from-a-backup)",
    ),
    on(
        On::Event, Reason::PhaseFailed, "GroupNode, Warning",
        "an attempt at a phase failed or timed out, and its result was written",
        "",
    ),
    on(
        On::Event, Reason::PhaseInterrupted, "GroupNode, Normal",
        "the pod was replaced while a phase ran; the phase runs again on the new one",
        "",
    ),
    on(
        On::Event, Reason::PhaseLost, "GroupNode, Warning",
        "the connection was lost while a phase ran; the outcome is unknown so far",
        "",
    ),
    on(
        On::Event, Reason::Drifted, "GroupNode, Warning",
        "a drift check found the first difference on a node",
        "",
    ),
    on(
        On::Event, Reason::DestroySkipped, "GroupNode, Warning; Namespace (in `default`) while the namespace is being deleted",
        "destroy-server has not succeeded, and the node's pod no longer exists. The note says why: the last attempt, the deadline, or who deleted the pod",
        "",
    ),
    on(
        On::Event, Reason::FailedUpdate, "GroupSpec, Warning",
        "the API server rejects an update by the operator; the note quotes it",
        "",
    ),
    on(
        On::Event, Reason::FailedDelete, "GroupSpec, in the message of `Ready`",
        "the API server rejects a deletion by the operator",
        "",
    ),
    on(
        On::Event, Reason::RevisionNotKept, "GroupSpec, Warning",
        "the declaration could not be stored as a ControllerRevision; a node that is lost after a later edit may not come back as it was",
        "",
    ),
];

/// The page `docs/reference/reasons.md`.
pub fn page() -> String {
    let mut text = String::from(
        "<!-- Generated by `make crds` from crates/pallet-api/src/reason.rs. Do not edit. -->\n\n# Reasons\n\n\
         What the reasons of conditions mean, and what to do. [Status](status.md) has the conditions themselves.\n",
    );
    let sections = [
        (
            On::Group,
            "`Ready` of a GroupSpec",
            "beside it",
            "`Ready` is True with `Converged` and False with every other reason.",
        ),
        (
            On::Node,
            "`Converged` of a GroupNode",
            "",
            "`Converged` is True with `Converged`: every phase has succeeded on this incarnation as declared. It is False with:",
        ),
        (
            On::Lift,
            "`Complete` of a Lift",
            "True",
            "`Complete` or `Failed` is True once the Lift has ended; `Reconciling` or `Stalled` before.",
        ),
        (
            On::LiftNode,
            "What a node waits for in a Lift",
            "",
            "The message of a Lift names these, and the reasons of a GroupNode.",
        ),
        (
            On::Claims,
            "`ClaimsDiffer` of a GroupSpec",
            "",
            "True while volume claims are not as declared, and absent otherwise. It does not affect `Ready`.",
        ),
        (On::Drift, "`Drifted`", "", "True with the first two reasons. It does not affect `Ready`."),
        (On::Restored, "`NodesTakenOver` of a GroupSpec", "", "It does not affect `Ready`."),
        (
            On::Event,
            "Events",
            "on",
            "Events also report each change of the reason of `Ready`, `Complete`, `ClaimsDiffer` and `NodesTakenOver`.",
        ),
    ];
    for (on, title, column, introduction) in sections {
        text.push_str(&format!("\n## {title}\n\n{introduction}\n\n"));
        let third = if column.is_empty() { String::new() } else { format!(" {column} |") };
        let line = if column.is_empty() { "" } else { "---|" };
        text.push_str(&format!("| reason |{third} meaning | what to do |\n|---|{line}---|---|\n"));
        for meaning in MEANINGS.iter().filter(|meaning| meaning.on == on) {
            let third = match (column.is_empty(), meaning.beside) {
                (true, _) => String::new(),
                (false, beside) if on == On::Event || beside.is_empty() => format!(" {beside} |"),
                (false, beside) => {
                    format!(" {} |", beside.split(", ").map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "))
                }
            };
            text.push_str(&format!("| `{}` |{third} {} | {} |\n", meaning.reason, meaning.meaning, meaning.fix));
        }
    }
    text
}

/// The reasons of a GroupNode with which nothing goes on before a person does something, as the health check for Argo CD lists them.
pub fn needing_a_person() -> impl Iterator<Item = Reason> {
    Reason::ALL.iter().copied().filter(|reason| reason.needs_a_person() && reason.on(On::Node).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_and_each_kind_has_it_once() {
        for reason in Reason::ALL {
            assert!(MEANINGS.iter().any(|meaning| meaning.reason == *reason), "{reason} means nothing");
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        for (at, meaning) in MEANINGS.iter().enumerate() {
            let again = MEANINGS[at + 1..].iter().any(|other| (other.reason, other.on) == (meaning.reason, meaning.on));
            assert!(!again, "{} has two meanings on one kind", meaning.reason);
            assert!(!meaning.meaning.is_empty(), "{}", meaning.reason);
        }
    }

    #[test]
    fn whoever_needs_a_person_says_what_to_do() {
        for reason in needing_a_person() {
            assert!(reason.on(On::Node).is_some_and(|meaning| !meaning.fix.is_empty()), "{reason}");
        }
        let stalled = MEANINGS.iter().filter(|meaning| meaning.on == On::Group && meaning.beside == "Stalled");
        for meaning in stalled {
            assert!(!meaning.fix.is_empty() && meaning.reason.hint().is_some(), "{}", meaning.reason);
        }
    }
}
