// Stand-in for virt-handler. Where virt-handler asks libvirt about a guest, this looks at the launcher's pod from outside,
// and reports what it sees in the way that virt-handler does: the node's heartbeat and devices, and of each instance on the
// node the phase, the interfaces and the conditions LiveMigratable and StorageLiveMigratable. It starts, pauses, migrates
// and stops nothing: the launcher's own script boots the guest, and shuts it down when its pod is deleted.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"kubevirt.io/client-go/kubecli"
)

const usage = `stand-in-for-virt-handler: reports virtual machine instances of one node as virt-handler would.
It is for tests only. See its source and tests/vms/README.md for what it does not do.

`

func main() {
	flag.Usage = func() {
		fmt.Fprint(os.Stderr, usage)
		flag.PrintDefaults()
	}
	node := flag.String("node", "node-1", "the node whose instances are reported")
	kubeconfig := flag.String("kubeconfig", "", "how the API server is reached")
	running := flag.String("running", runningMachine,
		"when an instance is Running: '"+runningMachine+"', as soon as its machine runs, as KubeVirt has it; or '"+
			runningSSH+"', once an SSH server greets on port 22")
	flag.Parse()
	if *running != runningMachine && *running != runningSSH {
		log.Fatalf("--running: %q is neither %q nor %q", *running, runningMachine, runningSSH)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatalf("--kubeconfig: %v", err)
	}
	config.Timeout = 30 * time.Second
	config.UserAgent = "stand-in-for-virt-handler"
	client, err := kubecli.GetKubevirtClientFromRESTConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log.Printf("this is a stand-in for virt-handler on %s", *node)
	go beat(ctx, client, *node)
	handler := newHandler(client, *node, *running)
	if err := handler.run(ctx); err != nil {
		log.Fatal(err)
	}
}
