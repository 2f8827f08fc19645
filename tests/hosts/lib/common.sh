# shellcheck shell=bash
# Paths and small functions. The caller sets HERE to the tests/hosts directory.

# shellcheck source=../../cluster/lib/common.sh
. "$HERE/../cluster/lib/common.sh"

die() {
  say "hosts: $*"
  exit 1
}

# The cluster tool mounts its instance there, and removes all of it when the instance ends.
IN_CLUSTER=/run/pallet/state
if [[ -z ${HOSTS_DIR:-} && -e $IN_CLUSTER ]]; then HOSTS_DIR=/run/pallet/hosts; fi

# Its first process ends everything in a pid namespace. In the machine's own one nothing would end the hosts, and the
# machine would have one more bridge. The number is the same on every Linux.
need_namespaces() {
  need_root
  [[ $(readlink /proc/self/ns/pid) != 'pid:[4026531836]' ]] ||
    die "this makes no hosts on the machine itself: put 'hosts run --' or 'cluster run --' in front"
  [[ -n ${HOSTS_DIR:-} ]] || die "where? Give --dir DIR or HOSTS_DIR"
  [[ $HOSTS_DIR == /* ]] || HOSTS_DIR=$PWD/$HOSTS_DIR
  # The options of an overlay end at one of these.
  [[ $HOSTS_DIR != *[,:\\\"[:space:]]* ]] || die "--dir '$HOSTS_DIR': no blanks, commas, colons, quotes or backslashes in it, please"
}

need_name() { # NAME
  [[ ${1:-} =~ ^[a-z][a-z0-9-]{0,39}$ ]] || die "'${1:-}' cannot be the name of a host: 'hosts status' lists them"
}
need_host() { # NAME
  need_name "${1:-}"
  [[ -e $HOSTS_DIR/$1/host ]] || die "no host '$1' in $HOSTS_DIR; there are: $(names | xargs)"
}

names() {
  local file
  for file in "$HOSTS_DIR"/*/host; do
    [[ ! -e $file ]] || basename "$(dirname "$file")"
  done | sort -V
}

# Waits until the probe succeeds, at most so many seconds.
await() { # SECONDS PROBE...
  local deadline=$((SECONDS + $1))
  until "${@:2}"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.02
  done
}

start_time() { # PID: in clock ticks since boot, which tells a reused pid from ours
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return
  # The second field may contain blanks; the start time is the 20th after it.
  read -r -a stat <<<"${stat##*) }"
  echo "${stat[19]}"
}
