package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	kubevirt "kubevirt.io/api/core/v1"
	"kubevirt.io/client-go/kubecli"
)

const (
	runningMachine = "machine"
	runningSSH     = "ssh"

	workers      = 4
	probeEvery   = 250 * time.Millisecond
	probeTimeout = time.Second
)

type handler struct {
	client    kubecli.KubevirtClient
	node      string
	running   string
	instances cache.SharedIndexInformer
	pods      cache.SharedIndexInformer
	queue     workqueue.TypedRateLimitingInterface[string]
	events    record.EventRecorder
}

func newHandler(client kubecli.KubevirtClient, node, running string) *handler {
	instances := cache.NewListWatchFromClient(client.RestClient(), "virtualmachineinstances", meta.NamespaceAll, fields.Everything())
	pods := cache.NewFilteredListWatchFromClient(client.CoreV1().RESTClient(), "pods", meta.NamespaceAll, func(options *meta.ListOptions) {
		options.LabelSelector = labels.Set{kubevirt.AppLabel: "virt-launcher"}.String()
	})
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typed.EventSinkImpl{Interface: client.CoreV1().Events("")})
	h := &handler{
		client:    client,
		node:      node,
		running:   running,
		instances: cache.NewSharedIndexInformer(instances, &kubevirt.VirtualMachineInstance{}, 0, cache.Indexers{}),
		pods:      cache.NewSharedIndexInformer(pods, &core.Pod{}, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 5*time.Second)),
		events: broadcaster.NewRecorder(scheme.Scheme, core.EventSource{Component: "virt-handler", Host: node}),
	}
	h.instances.AddEventHandler(h.each(func(object meta.Object) string { return object.GetNamespace() + "/" + object.GetName() }))
	h.pods.AddEventHandler(h.each(func(object meta.Object) string {
		return object.GetNamespace() + "/" + object.GetAnnotations()[kubevirt.DomainAnnotation]
	}))
	return h
}

func (h *handler) each(key func(meta.Object) string) cache.ResourceEventHandler {
	add := func(object interface{}) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if object, ok := object.(meta.Object); ok {
			h.queue.Add(key(object))
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, object interface{}) { add(object) }, DeleteFunc: add}
}

func (h *handler) run(ctx context.Context) error {
	go h.instances.Run(ctx.Done())
	go h.pods.Run(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), h.instances.HasSynced, h.pods.HasSynced) {
		return errors.New("ended before the instances and pods were listed")
	}
	for range workers {
		go h.work(ctx)
	}
	<-ctx.Done()
	h.queue.ShutDown()
	return nil
}

func (h *handler) work(ctx context.Context) {
	for {
		key, ended := h.queue.Get()
		if ended {
			return
		}
		again, err := h.sync(ctx, key)
		h.queue.Done(key)
		switch {
		case err != nil:
			// The cache is behind: what comes next in it queues the instance again.
			if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
				log.Printf("%s: %v", key, err)
			}
			h.queue.AddRateLimited(key)
		case again > 0:
			h.queue.Forget(key)
			h.queue.AddAfter(key, again)
		default:
			h.queue.Forget(key)
		}
	}
}

// Writes what is to be said of an instance, and says when to look again.
func (h *handler) sync(ctx context.Context, key string) (time.Duration, error) {
	object, exists, err := h.instances.GetStore().GetByKey(key)
	if err != nil || !exists {
		return 0, err
	}
	instance := object.(*kubevirt.VirtualMachineInstance)
	if instance.Status.NodeName != h.node || instance.IsFinal() {
		return 0, nil
	}
	pod := h.launcher(instance)
	seen := observe(pod)
	if seen == machineStarts && instance.Status.Phase == kubevirt.Scheduled && h.runs(ctx, pod.Status.PodIP) {
		seen = machineRuns
	}
	next := instance.DeepCopy()
	next.Status = status(instance, pod, seen)
	if !equality.Semantic.DeepEqual(instance.Status, next.Status) {
		if err := h.write(ctx, instance, next); err != nil {
			return 0, err
		}
	}
	if seen == machineStarts && next.Status.Phase == kubevirt.Scheduled {
		return probeEvery, nil
	}
	return 0, nil
}

func (h *handler) write(ctx context.Context, instance, next *kubevirt.VirtualMachineInstance) error {
	// There is no status subresource.
	if _, err := h.client.VirtualMachineInstance(next.Namespace).Update(ctx, next, meta.UpdateOptions{}); err != nil {
		return err
	}
	if instance.Status.Phase == next.Status.Phase {
		return nil
	}
	log.Printf("%s/%s: %s, was %s", next.Namespace, next.Name, next.Status.Phase, instance.Status.Phase)
	switch next.Status.Phase {
	case kubevirt.Running:
		h.events.Event(next, core.EventTypeNormal, kubevirt.Started.String(), "the machine runs")
	case kubevirt.Succeeded:
		h.events.Event(next, core.EventTypeNormal, kubevirt.Stopped.String(), "the machine was shut down")
	case kubevirt.Failed:
		h.events.Event(next, core.EventTypeWarning, kubevirt.Stopped.String(), "the machine crashed")
	}
	return nil
}

// The newest launcher of an instance on this node, if there is one.
func (h *handler) launcher(instance *kubevirt.VirtualMachineInstance) *core.Pod {
	var newest *core.Pod
	objects, _ := h.pods.GetIndexer().ByIndex(cache.NamespaceIndex, instance.Namespace)
	for _, object := range objects {
		pod := object.(*core.Pod)
		if !meta.IsControlledBy(pod, instance) || pod.Spec.NodeName != h.node {
			continue
		}
		if newest == nil || newest.CreationTimestamp.Before(&pod.CreationTimestamp) {
			newest = pod
		}
	}
	return newest
}

// Whether the machine runs. QEMU listens for the guest from its own start on, so a connection tells that there is a machine;
// that there is a guest in it, only a greeting tells.
func (h *handler) runs(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: probeTimeout}
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "22"))
	if err != nil {
		return false
	}
	defer connection.Close()
	if h.running == runningMachine {
		return true
	}
	if err := connection.SetDeadline(time.Now().Add(probeTimeout)); err != nil {
		return false
	}
	greeting, _ := bufio.NewReader(connection).ReadString('\n')
	return strings.HasPrefix(greeting, "SSH-")
}

func init() {
	if err := kubevirt.AddToScheme(scheme.Scheme); err != nil {
		panic(fmt.Sprintf("the scheme of KubeVirt: %v", err))
	}
}
