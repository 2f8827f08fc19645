#!/usr/bin/env bash
# The first process of an instance's namespaces: it sets up network, mounts and
# certificates, starts the components, and then only reaps what ends. When it is
# killed, the kernel ends everything else in here.
#
# usage: init.sh DIR, by way of `cluster up`
# shellcheck disable=SC2086,SC2206  # the constants contain no blanks
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DIR=$1
# shellcheck source=components.sh
. "$HERE/lib/components.sh"
# shellcheck source=pki.sh
. "$HERE/lib/pki.sh"

finish() {
  local rc=$?
  [[ $rc -eq 0 ]] || {
    echo failed >"$DIR/state"
    echo "the instance did not come up"
  }
}
trap finish EXIT
trap 'echo "init.sh: line $LINENO failed: $BASH_COMMAND"' ERR
trap 'exit 0' TERM INT

ip link set lo up
# The bridge is there before the first pod, since its address is the node's and
# the API server's. Some kernels have no dummy device for that.
ip link add pods type bridge
ip address add $NODE_IP/16 dev pods
ip link set pods up
# Service addresses need some route, or the kernel refuses before it translates.
ip route add $SERVICES dev pods
echo 1 >/proc/sys/net/ipv4/ip_forward

# A /run of its own holds sockets, network namespaces and runc's state. The rest
# are the paths that kubelet and CNI have built in; two kubelets that shared
# them would delete each other's files.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p $R /run/netns
mount --bind "$DIR" $R
for d in /var/log/pods /var/log/containers /var/lib/kubelet /var/lib/cni; do
  mkdir -p $d $R/private$d
  mount --bind $R/private$d $d
done
ulimit -n "$(ulimit -H -n)"
export PATH=$R/bin:$PATH KUBECONFIG=$R/kubeconfig
cd /

make_pki $R/pki
for user in node kube-controller-manager kube-scheduler kube-proxy kwok; do
  make_kubeconfig $R/pki $user $R/pki/$user.kubeconfig
done
make_kubeconfig $R/pki admin $R/kubeconfig

import_images() {
  local archive
  for archive in "$DIR"/../../images/*.tar; do
    # NAME.tar links to the newest NAME-HASH.tar.
    [[ ! -L $archive ]] || ctr -n k8s.io images import --local "$archive" >>$R/log/images.log 2>&1 ||
      {
        echo "importing $archive failed:"
        tail -n 5 $R/log/images.log
        return 1
      }
  done
  # The name by which the examples know it: nothing can be pulled here.
  ctr -n k8s.io images tag --force localhost/busybox:1 docker.io/library/busybox:1.37 >>$R/log/images.log 2>&1
}
node_is_ready() { [[ $(kubectl get node node-1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>&1) == True ]]; }
default_account_exists() { kubectl -n default get serviceaccount default >/dev/null 2>&1; }

need() { await "$@" || exit 1; }

component_start etcd
component_start containerd
WATCHED=(containerd etcd)
need 30 "etcd" component_serves etcd
component_start kube-apiserver
need 30 "containerd" component_serves containerd
import_images &
images=$!
WATCHED+=(kube-apiserver)
need 90 "the API server" component_serves kube-apiserver
echo "API server ready after $SECONDS s"
for name in kube-controller-manager kube-scheduler kubelet kube-proxy; do
  component_start $name
  WATCHED+=($name)
done
wait $images || exit 1
WATCHED+=(kubelet)
need 90 "the node to become ready" node_is_ready
need 60 "the default service account" default_account_exists
need 30 "kube-proxy" component_serves kube-proxy
echo "node ready after $SECONDS s"
echo ready >"$DIR/state"

trap - ERR
while :; do
  sleep 86400 &
  wait $! || true
done
