# shellcheck shell=bash
# One instance, seen from outside: up, down, status and getting in.

UP_SECONDS=180
DOWN_SECONDS=30

start_time() { # PID: in clock ticks since boot, which tells a reused pid from ours
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return
  # The second field may contain blanks; the start time is the 20th after it.
  read -r -a stat <<<"${stat##*) }"
  echo "${stat[19]}"
}

# Prints the pid of the instance's first process, having made sure that it is it.
instance_pid() {
  local pid started boot
  read -r pid started boot 2>/dev/null <"$DIR/pid" || return
  [[ $boot == "$(</proc/sys/kernel/random/boot_id)" && $started == "$(start_time "$pid")" ]] && echo "$pid"
}

# Should the state directory be lost, the process still tells by its arguments,
# and by being number 1 of a namespace.
stray_pid() {
  local pid
  for pid in $(pgrep -fx "bash .*/lib/init\.sh $DIR"); do
    [[ $(awk '/^NSpid:/ { print NF, $NF }' "/proc/$pid/status" 2>/dev/null) == "3 1" ]] && echo "$pid"
  done
}

instance_state() { # absent, starting, ready, failed
  if instance_pid >/dev/null; then cat "$DIR/state"; else echo absent; fi
}

need_ready() {
  [[ $(instance_state) == ready ]] || die "instance '$NAME' is not up; start it with: $0 up"
}

# The cgroups of the instance's containers. containerd names them by container;
# its own records say which are ours.
cgroups() {
  local id dir
  for id in "$DIR"/containerd/io.containerd.grpc.v1.cri/{containers,sandboxes}/*; do
    # Version 2 of cgroups has one tree, version 1 one for each controller.
    for dir in /sys/fs/cgroup/{,*/}k8s.io/"${id##*/}"; do
      if [[ -d $dir ]]; then echo "$dir"; fi
    done
  done
}

end_process() { # PID: the kernel then ends the whole namespace
  local i
  kill -KILL "$1" 2>/dev/null || return 0
  for ((i = 0; i < DOWN_SECONDS * 10; i++)); do
    [[ -e /proc/$1 ]] || return 0
    sleep 0.1
  done
  die "process $1 does not end, even though it was killed"
}

# Removes whatever an instance leaves, whether it ended well or was killed.
sweep() {
  local pid mount i left=()
  pid=$(instance_pid) && end_process "$pid"
  for pid in $(stray_pid); do end_process "$pid"; done
  # The mounts were in a namespace that is gone; make sure before rm -r.
  while read -r mount; do umount -l "$mount"; done < <(awk -v d="$DIR/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac)
  # A cgroup is busy for a moment after its last process.
  for ((i = 0; i < 50; i++)); do
    mapfile -t left < <(cgroups)
    ((${#left[@]})) || break
    find "${left[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
  done
  ((${#left[@]} == 0)) || say "left behind, still busy: ${left[*]}"
  # Their common parent, which goes only when nobody else's container is in it.
  rmdir /sys/fs/cgroup/{,*/}k8s.io 2>/dev/null || true
  rm -rf --one-file-system "$DIR"
}

# Prints what init.sh reports until the instance is ready.
follow_up() {
  local line state deadline=$((SECONDS + UP_SECONDS))
  exec 3<"$DIR/log/up.log"
  while :; do
    # The state first: what was reported before it changed is then in the log.
    state=$(instance_state)
    while IFS= read -r line <&3; do say "  $line"; done
    case $state in
      ready) break ;;
      absent | failed) return 1 ;;
    esac
    ((SECONDS < deadline)) || {
      say "not ready after $UP_SECONDS s; logs: $DIR/log"
      return 1
    }
    sleep 0.1
  done
  exec 3<&-
}

launch() { # BIN
  local pid unshare_pid
  sweep
  mkdir -p "$DIR"/{log,pids,private}
  cp -r "$HERE/config" "$DIR/config"
  ln -s "$1" "$DIR/bin"
  echo starting >"$DIR/state"
  : >"$DIR/log/up.log"
  setsid unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    bash "$HERE/lib/init.sh" "$DIR" </dev/null >>"$DIR/log/up.log" 2>&1 9>&- &
  unshare_pid=$!
  until pid=$(pgrep -P "$unshare_pid"); do
    kill -0 "$unshare_pid" 2>/dev/null || {
      cat "$DIR/log/up.log" >&2
      die "unshare failed"
    }
    sleep 0.02
  done
  echo "$pid $(start_time "$pid") $(</proc/sys/kernel/random/boot_id)" >"$DIR/pid"
  date +%s >"$DIR/started"
}

cluster_up() {
  local begin bin
  begin=$(now_ms)
  need_root
  require_machine
  if [[ $(instance_state) == ready ]]; then
    say "instance '$NAME' is already up"
    return
  fi
  bin=$(cluster_build)
  "$HERE/images/build" >/dev/null
  lock "$DIR.lock"
  trap 'say "interrupted"; sweep; exit 130' INT TERM
  case $(instance_state) in
    ready)
      say "instance '$NAME' is already up"
      return
      ;;
    starting) say "instance '$NAME' is already starting" ;;
    *)
      say "starting instance '$NAME'"
      launch "$bin"
      ;;
  esac
  if ! follow_up; then
    # Keep the logs, they are all there is to go by.
    rm -rf "$DIR.failed"
    cp -r "$DIR/log" "$DIR.failed"
    sweep
    die "instance '$NAME' did not come up; its logs are in $DIR.failed"
  fi
  trap - INT TERM
  rm -rf "$DIR.failed"
  say "instance '$NAME' is up after $(seconds_since "$begin"). It has a network of its own; reach it from inside:"
  say "  $0 run -- kubectl get nodes"
  say "  $0 run -- \$SHELL              (KUBECONFIG=$DIR/kubeconfig)"
  say "  $0 down"
}

cluster_down() {
  local begin pid
  begin=$(now_ms)
  need_root
  # Before asking for the lock: an `up` that hangs must not keep `down` waiting.
  pid=$(instance_pid) && end_process "$pid"
  lock "$DIR.lock"
  if [[ -e $DIR || -n $(stray_pid) ]]; then
    sweep
    say "instance '$NAME' is down after $(seconds_since "$begin")"
  else
    say "instance '$NAME' is not up"
  fi
  rm -rf "$DIR.failed"
}

cluster_status() {
  local name state pid memory age
  state=$(instance_state)
  need_root
  if [[ $state != ready ]]; then
    say "instance '$NAME' is ${state/absent/down}"
    return 3
  fi
  age=$(($(date +%s) - $(<"$DIR/started")))
  echo "instance   $NAME, up for $((age / 3600))h$((age / 60 % 60))m$((age % 60))s, first process $(instance_pid)"
  echo "directory  $DIR"
  echo "versions   Kubernetes $(module_version kubernetes k8s.io/kubernetes), containerd $(module_version node github.com/containerd/containerd/v2)," \
    "etcd $(module_version extras go.etcd.io/etcd/server/v3), kwok $(module_version extras sigs.k8s.io/kwok)"
  inside bash "$HERE/lib/component.sh" list "${COMPONENTS[@]}" | while read -r name state pid memory; do
    printf '%-24s %-8s %7s %5s MiB\n' "$name" "$state" "$pid" "$memory"
  done
  inside timeout 10 kubectl get nodes || say "the API server does not answer"
}

# Runs a command inside the instance's namespaces, in the present directory.
# Besides its exit code, the caller's signals have to come through, and nsenter
# does not pass them on: it waits for a child, which is the command.
inside() {
  local pid child rc signal
  pid=$(instance_pid) || die "instance '$NAME' is not up"
  # A background child of a script ignores INT and QUIT, hence env. If this
  # script is killed, setpriv lets nsenter, and then the command, know.
  PATH=$DIR/bin:$PATH KUBECONFIG=$DIR/kubeconfig KUBECACHEDIR=$DIR/kubectl CONTAINERD_NAMESPACE=k8s.io \
    setpriv --pdeathsig KILL nsenter --target "$pid" --net --mount --pid --wdns="$PWD" -- \
    setpriv --pdeathsig TERM env --default-signal=INT,QUIT -- "$@" <&0 9>&- &
  child=$!
  for signal in HUP TERM USR1 USR2 INT QUIT; do
    # shellcheck disable=SC2064  # the values as of now
    trap "forward $signal $child" "$signal"
  done
  # Ctrl-C on a terminal reaches the command by itself.
  if [[ -t 0 ]]; then trap : INT QUIT; fi
  rc=0
  # Bash would report a child that a signal ended.
  wait "$child" 2>/dev/null || rc=$?
  # wait also returns when a signal came in; then the command may still run.
  while kill -0 "$child" 2>/dev/null; do
    rc=0
    wait "$child" 2>/dev/null || rc=$?
  done
  trap - HUP TERM USR1 USR2 INT QUIT
  return "$rc"
}
forward() { pkill "-$1" -P "$2" || kill "-$1" "$2" 2>/dev/null || true; }

component() { # VERB COMPONENT [ARG...]
  need_root
  need_component "${2:-}"
  need_ready
  lock "$DIR.lock"
  inside bash "$HERE/lib/component.sh" "$@"
}

cluster_load() {
  local archive
  need_root
  need_ready
  (($#)) || die "load which archives?"
  for archive in "$@"; do
    inside ctr -n k8s.io images import --local "$archive"
  done
}

cluster_logs() {
  local name=${1:-} log
  [[ $name == @(audit|up|images) ]] || need_component "$name"
  for log in "$DIR/log/$name.log" "$DIR.failed/$name.log"; do
    [[ ! -e $log ]] || exec tail -n 100 "${@:2}" "$log"
  done
  die "no log of $name for instance '$NAME'"
}
