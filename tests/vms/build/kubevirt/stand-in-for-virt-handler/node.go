package main

import (
	"context"
	"fmt"
	"log"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirt "kubevirt.io/api/core/v1"
	"kubevirt.io/client-go/kubecli"
)

// virt-controller takes a node for lost when its heartbeat is five minutes old.
const heartbeat = 30 * time.Second

// Reports until the end that the node may have guests, and how many.
func beat(ctx context.Context, client kubecli.KubevirtClient, node string) {
	for {
		wait := heartbeat
		if err := report(ctx, client, node); err != nil {
			log.Printf("node %s: %v", node, err)
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func report(ctx context.Context, client kubecli.KubevirtClient, node string) error {
	now := time.Now().UTC().Format(time.RFC3339)
	labels := fmt.Sprintf(`{"metadata":{"labels":{%q:"true",%q:"true"},"annotations":{%q:%q}}}`,
		kubevirt.NodeSchedulable, kubevirt.SupportedMachineTypeLabel+"q35", kubevirt.VirtHandlerHeartbeat, now)
	nodes := client.CoreV1().Nodes()
	if _, err := nodes.Patch(ctx, node, types.MergePatchType, []byte(labels), meta.PatchOptions{}); err != nil {
		return err
	}
	// No device plugin stands behind these: nothing here opens /dev/net/tun or /dev/vhost-net.
	devices := `{"devices.kubevirt.io/tun":"1k","devices.kubevirt.io/vhost-net":"1k"}`
	status := fmt.Sprintf(`{"status":{"capacity":%s,"allocatable":%s}}`, devices, devices)
	_, err := nodes.Patch(ctx, node, types.MergePatchType, []byte(status), meta.PatchOptions{}, "status")
	return err
}
