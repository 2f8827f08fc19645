# shellcheck shell=bash
# Fake nodes: pods that are placed there become ready at once and cost nothing.

fake_node() { # NUMBER
  cat <<-YAML
	---
	apiVersion: v1
	kind: Node
	metadata:
	  name: kwok-$1
	  annotations: {kwok.x-k8s.io/node: fake}
	  labels: {type: kwok, kubernetes.io/hostname: kwok-$1, kubernetes.io/os: linux}
	spec:
	  taints: [{key: kwok.x-k8s.io/node, value: fake, effect: NoSchedule}]
	status:
	  capacity: {cpu: 10k, memory: 100Ti, pods: 100k}
	  allocatable: {cpu: 10k, memory: 100Ti, pods: 100k}
	YAML
}

cluster_kwok() { # [up [NODES] | down]
  local i nodes=${2:-1} namespace
  case ${1:-up} in
    up)
      [[ $nodes =~ ^[1-9][0-9]{0,2}$ ]] || die "kwok up: how many nodes? 1 to 999"
      component start kwok
      for ((i = 1; i <= nodes; i++)); do fake_node "$i"; done | inside kubectl apply -f - >&2
      inside kubectl wait --for=condition=Ready node -l type=kwok --timeout=60s >&2
      ;;
    down)
      need_root
      need_ready
      # kwok has to run for this: it is what lets go of its pods.
      for i in $(inside kubectl get nodes -l type=kwok -o name); do
        for namespace in $(inside kubectl get pods -A --field-selector "spec.nodeName=${i#node/}" \
          -o 'jsonpath={range .items[*]}{.metadata.namespace}{"\n"}{end}' | sort -u); do
          inside kubectl delete --raw "/api/v1/namespaces/$namespace/pods?fieldSelector=spec.nodeName%3D${i#node/}" >/dev/null
        done
        inside kubectl delete "$i" --wait=false >&2
      done
      component stop kwok
      # What kwok/sh keeps for each fake pod.
      rm -rf "$DIR/kwok"
      ;;
    *) die "kwok up [NODES], or kwok down" ;;
  esac
}
