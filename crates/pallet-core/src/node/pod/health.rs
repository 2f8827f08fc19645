//! Pure: whether a pod runs, and what keeps it from running, being Ready or going, in words that name the container and the cause.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};

use crate::plan::{Going, MachineState, Unready};
use pallet_api::conditions::clip;
use pallet_api::reason::Reason;

/// The longest message of one container, in bytes.
const MOST: usize = 400;
/// The longest word for a life of a container. IDs have 64 characters.
const LIFE: usize = 64;

/// Where the container of the phases stands.
pub(super) fn state(pod: &Pod, name: &str) -> MachineState {
    let Some(status) = &pod.status else { return waiting(Reason::PodPending.as_str(), "the pod has no status yet") };
    // With restartPolicy Always only an eviction or a lost machine ends a pod.
    if let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref() {
        let reason = status.reason.clone().unwrap_or_else(|| format!("Pod{phase}"));
        let said = status.message.as_deref().filter(|message| !message.is_empty());
        let message = said.map(|message| clip(message, MOST)).or_else(|| disruption(status));
        return MachineState::Gone { reason, message: message.unwrap_or_else(|| format!("the pod has {phase}")) };
    }
    let found = status.container_statuses.iter().flatten().find(|container| container.name == name);
    let Some(found) = found else {
        let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        return match scheduled {
            Some(condition) => waiting(
                condition.reason.as_deref().unwrap_or("Unschedulable"),
                condition.message.as_deref().unwrap_or("the pod has no machine yet"),
            ),
            None => waiting(Reason::PodPending.as_str(), "the pod's containers are not there yet"),
        };
    };
    match &found.state {
        Some(ContainerState { running: Some(_), .. }) => {
            MachineState::Running { id: found.container_id.clone().unwrap_or_default() }
        }
        Some(ContainerState { waiting: Some(state), .. }) => {
            let reason = state.reason.as_deref().unwrap_or(Reason::ContainerWaiting.as_str());
            // The container itself waits for those before it, which have more to say.
            match reason {
                "PodInitializing" => initializing(pod, status).unwrap_or_else(|| waiting(reason, "")),
                _ => waiting(reason, &with_last_end(found, state.message.as_deref().unwrap_or_default())),
            }
        }
        Some(ContainerState { terminated: Some(end), .. }) => {
            let ended = format!("the container {}", ending(end));
            match is_restarted(pod, name, end) {
                true => waiting(Reason::ContainerTerminated.as_str(), &format!("{ended} and is started again")),
                false => MachineState::Gone {
                    reason: Reason::ContainerEnded.into(),
                    message: format!("{ended}, and its restartPolicy keeps it down"),
                },
            }
        }
        _ => waiting("ContainerCreating", "the container is being made"),
    }
}

/// Since when the container of the phases has ended for good.
pub(super) fn ended(pod: &Pod, name: &str) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let found = status.container_statuses.iter().flatten().find(|container| container.name == name)?;
    let end = found.state.as_ref()?.terminated.as_ref()?;
    (!is_restarted(pod, name, end)).then(|| end.finished_at.as_ref().map(|time| time.0))?
}

fn waiting(reason: &str, message: &str) -> MachineState {
    let message = if message.is_empty() { "the container does not run" } else { message };
    MachineState::Waiting { reason: reason.to_owned(), message: clip(message, MOST) }
}

/// Whether the kubelet starts a container again by its own policy or its pod's. Rules that name exit codes are not looked at: where
/// one of them restarts the container, that happens long before the pod is replaced.
fn is_restarted(pod: &Pod, name: &str, end: &ContainerStateTerminated) -> bool {
    let spec = pod.spec.as_ref();
    let container: Option<&Container> =
        spec.and_then(|spec| spec.containers.iter().find(|container| container.name == name));
    let own = container.and_then(|container| container.restart_policy.as_deref());
    match own.or_else(|| spec.and_then(|spec| spec.restart_policy.as_deref())) {
        Some("Never") => false,
        Some("OnFailure") => end.exit_code != 0,
        _ => true,
    }
}

/// What an init container or a sidecar is at that the containers wait for.
fn initializing(pod: &Pod, status: &PodStatus) -> Option<MachineState> {
    let sidecar = |name: &str| {
        let declared = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        declared.clone().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    for container in status.init_container_statuses.iter().flatten() {
        let sidecar = sidecar(&container.name);
        let what = format!("{} {}", if sidecar { "sidecar" } else { "init container" }, container.name);
        match container.state.as_ref()? {
            ContainerState { waiting: Some(state), .. } => {
                let reason = state.reason.as_deref().unwrap_or("PodInitializing");
                let said = with_last_end(container, state.message.as_deref().unwrap_or("does not run yet"));
                return Some(waiting(reason, &format!("{what}: {said}")));
            }
            ContainerState { terminated: Some(end), .. } if end.exit_code != 0 || sidecar => {
                return Some(waiting(Reason::InitContainerFailed.as_str(), &format!("{what} {}", ending(end))));
            }
            ContainerState { running: Some(_), .. } if sidecar && container.started == Some(true) => {}
            ContainerState { running: Some(_), .. } => {
                let doing = if sidecar { "has not started yet: its startup probe" } else { "is still running" };
                return Some(waiting("PodInitializing", &format!("{what} {doing}")));
            }
            _ => {}
        }
    }
    None
}

/// What the kubelet says of a container that waits, with how it ended last.
fn with_last_end(container: &ContainerStatus, said: &str) -> String {
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    match (last, said) {
        (None, said) => said.to_owned(),
        (Some(end), "") => format!("it last {}", ending(end)),
        (Some(end), said) => format!("it last {}; {said}", ending(end)),
    }
}

/// How a container ended: exit code or signal, reason, and its own last words.
fn ending(end: &ContainerStateTerminated) -> String {
    let mut text = format!("ended with exit code {}", end.exit_code);
    match end.reason.as_deref() {
        None | Some("" | "Error" | "Completed") => {}
        Some(reason) => text += &format!(" ({reason})"),
    }
    if let Some(message) = end.message.as_deref().map(str::trim).filter(|message| !message.is_empty()) {
        text += &format!(": {}", clip(message.lines().last().unwrap_or_default(), 160));
    }
    text
}

/// Why a pod is not Ready, where it is not.
pub(super) fn unready(pod: &Pod, gate: &str) -> Option<Unready> {
    let status = pod.status.as_ref()?;
    let condition = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let ready = condition("Ready");
    if ready.is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let said = |message: String, broken| Some(Unready { message: clip(&message, MOST), broken });
    let sidecars = status.init_container_statuses.iter().flatten().filter(|c| {
        let declared = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        declared.clone().any(|d| d.name == c.name && d.restart_policy.as_deref() == Some("Always"))
    });
    let all: Vec<(&ContainerStatus, &str)> = (status.container_statuses.iter().flatten().map(|c| (c, "container")))
        .chain(sidecars.map(|c| (c, "sidecar")))
        .filter(|(container, _)| !container.ready)
        .collect();
    for (container, what) in &all {
        let name = &container.name;
        match container.state.as_ref() {
            Some(ContainerState { waiting: Some(state), .. }) => {
                let reason = state.reason.as_deref().unwrap_or("waits");
                let last = with_last_end(container, state.message.as_deref().unwrap_or_default());
                let last = if last.is_empty() { last } else { format!(": {last}") };
                return said(format!("{what} {name}: {reason}{last}"), true);
            }
            Some(ContainerState { terminated: Some(end), .. }) => {
                return said(format!("{what} {name} {}", ending(end)), true);
            }
            _ => {}
        }
    }
    if let Some((container, what)) = all.first() {
        let probe = if container.started == Some(false) { "startup" } else { "readiness" };
        return said(format!("{what} {}: its {probe} probe has not succeeded", container.name), false);
    }
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed = gates.map(|gate| gate.condition_type.as_str()).filter(|kind| *kind != gate);
    for kind in closed {
        match condition(kind) {
            Some(open) if open.status == "True" => {}
            Some(shut) => {
                let why = shut.message.as_deref().or(shut.reason.as_deref()).unwrap_or("no reason is given");
                return said(format!("its readiness gate {kind} is not True: {why}"), false);
            }
            None => return said(format!("its readiness gate {kind} was not set by anybody yet"), false),
        }
    }
    let why = ready.and_then(|ready| ready.message.as_deref().or(ready.reason.as_deref()))?;
    said(why.to_owned(), false)
}

/// Who deletes a pod, where somebody has said so: an eviction, a drain, the scheduler, the kubelet, a lost machine.
fn disruption(status: &PodStatus) -> Option<String> {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget" && c.status == "True")?;
    let (reason, message) = (found.reason.as_deref().unwrap_or("Disrupted"), found.message.as_deref().unwrap_or(""));
    Some(clip(&format!("{reason}: {message}"), MOST))
}

/// What the deletion of a pod waits for.
pub(super) fn going(pod: &Pod) -> Option<Going> {
    // The API server adds the grace period to the time of the request.
    let due = pod.metadata.deletion_timestamp.as_ref()?.0;
    let finalizers: Vec<&str> = pod.metadata.finalizers.iter().flatten().map(String::as_str).collect();
    let status = pod.status.as_ref();
    let runs = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let runs = runs.clone().any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()));
    let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let held_by = match (finalizers.is_empty(), runs, on) {
        (false, false, _) => held_by_finalizers(&finalizers),
        (_, _, Some(on)) => format!("the kubelet of machine {on} has not confirmed its end"),
        (false, true, None) => held_by_finalizers(&finalizers),
        (true, _, None) => "the API server has not removed it".to_owned(),
    };
    Some(Going { due, why: status.and_then(disruption), held_by })
}

/// The finalizers that hold an object, for people.
pub fn held_by_finalizers(finalizers: &[&str]) -> String {
    let shown = finalizers.iter().take(4).copied().collect::<Vec<_>>().join(", ");
    clip(
        &format!(
            "{} {shown} of somebody else holds it",
            if finalizers.len() == 1 { "finalizer" } else { "finalizers" }
        ),
        MOST,
    )
}

/// What tells this life of a container from others where the first process of its PID namespace is not its own.
pub(super) fn life(pod: &Pod, name: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let shared = spec.share_process_namespace == Some(true) || spec.host_pid == Some(true);
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let id = statuses.iter().find(|container| container.name == name)?.container_id.as_deref()?;
    let id = id.rsplit('/').next().unwrap_or(id);
    let word: String = id.chars().filter(char::is_ascii_alphanumeric).take(LIFE).collect();
    (shared && !word.is_empty()).then_some(word)
}

#[cfg(test)]
mod tests;
