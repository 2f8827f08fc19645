package main

import (
	"fmt"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubevirt "kubevirt.io/api/core/v1"
)

// What a launcher's pod tells of the machine in it.
type sight int

const (
	// There is no pod. virt-controller reports that itself.
	nothing sight = iota
	machineStarts
	machineRuns
	machineShutDown
	machineCrashed
)

// Tells from the pod alone, so never that the machine runs.
func observe(pod *core.Pod) sight {
	if pod == nil {
		return nothing
	}
	for _, container := range pod.Status.ContainerStatuses {
		ended := container.State.Terminated
		if container.Name != "compute" || ended == nil {
			continue
		}
		if ended.ExitCode == 0 {
			return machineShutDown
		}
		return machineCrashed
	}
	if pod.Status.Phase == core.PodFailed {
		return machineCrashed
	}
	if pod.Status.PodIP == "" {
		return nothing
	}
	return machineStarts
}

// The status to report. What is not virt-handler's is left as it is, and so are the conditions Paused and the state of a
// migration, which a test may play.
func status(instance *kubevirt.VirtualMachineInstance, pod *core.Pod, seen sight) kubevirt.VirtualMachineInstanceStatus {
	next := *instance.Status.DeepCopy()
	switch seen {
	case machineShutDown:
		enter(&next, kubevirt.Succeeded)
	case machineCrashed:
		enter(&next, kubevirt.Failed)
	case machineRuns:
		enter(&next, kubevirt.Running)
		next.Interfaces = interfaces(instance, pod)
		next.Machine = &kubevirt.Machine{Type: "q35"}
		next.MigrationMethod = kubevirt.BlockMigration
		next.Conditions = append(next.Conditions, migratable(instance), condition(kubevirt.VirtualMachineInstanceIsStorageLiveMigratable))
	}
	return next
}

func enter(status *kubevirt.VirtualMachineInstanceStatus, phase kubevirt.VirtualMachineInstancePhase) {
	status.Phase = phase
	status.PhaseTransitionTimestamps = append(status.PhaseTransitionTimestamps,
		kubevirt.VirtualMachineInstancePhaseTransitionTimestamp{Phase: phase, PhaseTransitionTimestamp: meta.Now()})
}

// The first interface has the pod's addresses, as with the bindings bridge and masquerade. Without an agent in the guest
// nobody knows more.
func interfaces(instance *kubevirt.VirtualMachineInstance, pod *core.Pod) []kubevirt.VirtualMachineInstanceNetworkInterface {
	name := "default"
	if specified := instance.Spec.Domain.Devices.Interfaces; len(specified) > 0 {
		name = specified[0].Name
	}
	var addresses []string
	for _, address := range pod.Status.PodIPs {
		addresses = append(addresses, address.IP)
	}
	return []kubevirt.VirtualMachineInstanceNetworkInterface{{
		Name: name, IP: pod.Status.PodIP, IPs: addresses, MAC: "52:54:00:12:34:56", InfoSource: "domain",
		PodInterfaceName: "eth0", QueueCount: 1, LinkState: "up",
	}}
}

// The two of virt-handler's reasons against a migration that a machine of the tests can have.
func migratable(instance *kubevirt.VirtualMachineInstance) kubevirt.VirtualMachineInstanceCondition {
	result := condition(kubevirt.VirtualMachineInstanceIsMigratable)
	for _, network := range instance.Spec.Domain.Devices.Interfaces {
		if network.Bridge != nil {
			result.Status = core.ConditionFalse
			result.Reason = kubevirt.VirtualMachineInstanceReasonInterfaceNotMigratable
			result.Message = fmt.Sprintf("interface %s is bound to the pod's network by bridge", network.Name)
			return result
		}
	}
	for _, volume := range instance.Spec.Volumes {
		if claim := volume.PersistentVolumeClaim; claim != nil {
			result.Status = core.ConditionFalse
			result.Reason = kubevirt.VirtualMachineInstanceReasonDisksNotMigratable
			result.Message = fmt.Sprintf("claim %s is not shared", claim.ClaimName)
			return result
		}
	}
	return result
}

func condition(kind kubevirt.VirtualMachineInstanceConditionType) kubevirt.VirtualMachineInstanceCondition {
	return kubevirt.VirtualMachineInstanceCondition{Type: kind, Status: core.ConditionTrue}
}
