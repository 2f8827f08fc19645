# shellcheck shell=bash disable=SC2206  # the constants contain no blanks
# How each component is started, and how to see that it serves. Used inside the
# namespaces only, where the instance's directory is mounted at /run/pallet.

R=/run/pallet
NODE_IP=10.89.0.1
SERVICE_IP=10.96.0.1
SERVICES=10.96.0.0/16

component_command() { # NAME: sets COMMAND
  case $1 in
    etcd)
      # The data does not outlive the instance, so never wait for the disk.
      COMMAND=(etcd --data-dir $R/etcd --unsafe-no-fsync
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
        --listen-peer-urls http://127.0.0.1:2380)
      ;;
    kube-apiserver)
      COMMAND=(kube-apiserver --etcd-servers=http://127.0.0.1:2379
        --secure-port=6443 --advertise-address=$NODE_IP --service-cluster-ip-range=$SERVICES
        --tls-cert-file=$R/pki/server.crt --tls-private-key-file=$R/pki/server.key --client-ca-file=$R/pki/ca.crt
        --service-account-issuer=https://kubernetes.default.svc
        --service-account-key-file=$R/pki/sa.pub --service-account-signing-key-file=$R/pki/sa.key
        --authorization-mode=Node,RBAC
        --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement --allow-privileged=true
        --kubelet-client-certificate=$R/pki/kubelet-client.crt --kubelet-client-key=$R/pki/kubelet-client.key
        --kubelet-preferred-address-types=InternalIP
        --audit-policy-file=$R/config/audit.yaml --audit-log-path=$R/log/audit.log
        --audit-log-maxsize=200 --audit-log-maxbackup=2)
      ;;
    kube-controller-manager)
      # At the default rate of 20 requests per second its start takes five seconds more.
      COMMAND=(kube-controller-manager --kubeconfig=$R/pki/kube-controller-manager.kubeconfig --leader-elect=false
        --root-ca-file=$R/pki/ca.crt --service-account-private-key-file=$R/pki/sa.key
        --use-service-account-credentials --kube-api-qps=200 --kube-api-burst=400)
      ;;
    kube-scheduler)
      COMMAND=(kube-scheduler --kubeconfig=$R/pki/kube-scheduler.kubeconfig --leader-elect=false)
      ;;
    containerd) COMMAND=(containerd --config $R/config/containerd.toml) ;;
    kubelet)
      COMMAND=(kubelet --config=$R/config/kubelet.yaml --kubeconfig=$R/pki/node.kubeconfig --root-dir=$R/kubelet
        --hostname-override=node-1 --node-ip=$NODE_IP)
      ;;
    kube-proxy) COMMAND=(kube-proxy --config=$R/config/kube-proxy.yaml) ;;
    kwok)
      COMMAND=(env PATH="$HERE/kwok:$PATH" kwok --config=$R/config/kwok.yaml --kubeconfig=$R/pki/kwok.kubeconfig)
      ;;
    # These two are of tests/vms, which puts them there.
    virt-controller)
      # It ends when it cannot renew its lease; with the defaults, ten seconds without an API server would do.
      COMMAND=($R/vms/bin/virt-controller --kubeconfig=$R/kubeconfig --listen=127.0.0.1 --port=8182
        --launcher-image=localhost/pallet-launcher:1 --leader-elect-lease-duration=1h --leader-elect-renew-deadline=50m
        --prom-cert-file=$R/vms/certificates/tls.crt --prom-key-file=$R/vms/certificates/tls.key)
      ;;
    stand-in-for-virt-handler)
      COMMAND=($R/vms/bin/stand-in-for-virt-handler --node=node-1 --kubeconfig=$R/kubeconfig)
      ;;
  esac
}

listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

component_serves() { # NAME
  case $1 in
    etcd) listens 127.0.0.1 2379 ;;
    kube-apiserver) listens 127.0.0.1 6443 && kubectl get --raw=/readyz >/dev/null 2>&1 ;;
    kube-controller-manager) listens 127.0.0.1 10257 ;;
    kube-scheduler) listens 127.0.0.1 10259 ;;
    containerd) [[ -S /run/containerd/containerd.sock ]] && ctr version >/dev/null 2>&1 ;;
    kubelet) listens 127.0.0.1 10248 ;;
    kube-proxy) listens 127.0.0.1 10256 ;;
    kwok) listens $NODE_IP 10247 ;;
    virt-controller) listens 127.0.0.1 8182 ;;
    # The node has what machines ask for once this has reported it.
    stand-in-for-virt-handler) [[ $(kubectl get node node-1 -o 'jsonpath={.status.allocatable.devices\.kubevirt\.io/tun}' 2>&1) == 1k ]] ;;
  esac
}

# The pid inside the namespace, if the component runs.
component_pid() { # NAME
  local pid
  pid=$(cat "$R/pids/$1" 2>/dev/null) && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "${1:0:15}" ]] && echo "$pid"
}

component_start() { # NAME [ARG...]
  component_command "$1"
  "${COMMAND[@]}" "${@:2}" >>"$R/log/$1.log" 2>&1 </dev/null 9>&- &
  echo $! >"$R/pids/$1"
}

last_lines() { # NAME
  echo "the last lines of the log of $1:"
  tail -n 15 "$R/log/$1.log" | cut -c1-400 | sed 's/^/  | /'
}

# Waits until the probe succeeds. Fails at the deadline, or as soon as one of
# the components in WATCHED is gone.
WATCHED=()
await() { # SECONDS WHAT PROBE...
  local name deadline=$((SECONDS + $1))
  until "${@:3}"; do
    for name in "${WATCHED[@]}"; do
      # Between fork and exec a component does not bear its name yet.
      component_pid "$name" >/dev/null || sleep 0.2
      component_pid "$name" >/dev/null || {
        echo "$name has ended"
        last_lines "$name"
        return 1
      }
    done
    if ((SECONDS >= deadline)); then
      echo "waited $1 s in vain for $2"
      if ((${#WATCHED[@]})); then last_lines "${WATCHED[-1]}"; fi
      return 1
    fi
    sleep 0.1
  done
}
