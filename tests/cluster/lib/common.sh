# shellcheck shell=bash
# Paths and small helpers. The caller sets HERE to the tests/cluster directory.

CACHE=${PALLET_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pallet-operator}
NAME=${CLUSTER_NAME:-demo}
DIR=$CACHE/clusters/$NAME

# Where Go's own instructions put it; sudo often takes it off the path.
command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin

# The names in the order they start. kwok only runs after `cluster kwok up`, and the last two after `vms up`.
COMPONENTS=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy kwok
  virt-controller stand-in-for-virt-handler)

# Messages go to stderr, so that stdout is free for what scripts want to read.
say() { printf '%s\n' "$*" >&2; }
die() {
  say "cluster: $*"
  exit 1
}

now_ms() {
  local t=${EPOCHREALTIME/[.,]/}
  echo "${t%???}"
}
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

need_root() { [[ $EUID -eq 0 ]] || die "this needs root: it makes namespaces and mounts (try sudo -E $0)"; }

is_component() {
  local c
  for c in "${COMPONENTS[@]}"; do [[ $c == "$1" ]] && return; done
  return 1
}
need_component() {
  is_component "${1:-}" || die "which component? One of: ${COMPONENTS[*]}"
}

# The mirror that this machine's own apt uses, unless told otherwise.
debian_mirror() { echo "${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)}"; }

# One command at a time per lock file. Descriptor 9 holds the lock until the
# process ends; whatever is to outlive it has to be started with 9>&-.
lock() { # FILE
  mkdir -p "$(dirname "$1")"
  exec 9>"$1"
  flock -n 9 && return
  say "waiting for another command that holds $1"
  flock -w 900 9 || die "gave up waiting for $1"
}
