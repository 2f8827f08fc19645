# The part of pallet-operator that stands on a node: POSIX sh (busybox ash, dash, bash) and POSIX tools, nothing else.
#
# Requests come on stdin, one line each, payloads counted in bytes. Replies go to stdout, each line led by a nonce that
# the operator chose and that no script ever sees, so no output can pass for a reply. A run is claimed once, journalled
# under the state directory, and carried through by a supervisor that outlives the connection.
# Comment lines and indentation are stripped before this text is sent.

umask 077
nonce=-
me=$$

reply() { printf '%s %s\n' "$nonce" "$*"; }
refuse() { reply "refused $*"; }

# born PID: sets $born to the process's start time in clock ticks; fails where it is gone or a zombie.
born() {
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  set -- ${stat##*) }
  [ "$1" != Z ] || return 1
  born=${20}
}

alive() { born "$1" && [ "$born" = "$2" ]; }

# after SECONDS SIGNAL PID: signals later, in the background ($! is the timer). Ended by TERM, it leaves nothing behind.
after() {
  (
    timer=
    trap '[ -z "$timer" ] || kill "$timer" 2>/dev/null; exit 0' TERM
    sleep "$1" &
    timer=$!
    wait "$timer" && kill -s "$2" "$3" 2>/dev/null
  ) </dev/null >/dev/null 2>&1 &
}

# take BYTES FILE: moves exactly BYTES from stdin to FILE. dd with count=1 never reads past what it is asked for.
take() {
  left=$1
  : >"$2" || return 1
  while [ "$left" -gt 0 ]; do
    had=$left block=$left
    [ "$block" -le 65536 ] || block=65536
    dd bs="$block" count=1 2>/dev/null >>"$2" || return 1
    left=$(($1 - $(wc -c <"$2")))
    [ "$left" -lt "$had" ] || return 1
  done
}

# The state directory: the one that already holds a journal, else the first that can be written and is ours.
find_state() {
  user=$(id -u 2>/dev/null) || user=0
  set -- "${PALLET_STATE_DIR:-/var/lib/pallet}" "/var/tmp/pallet-$user" "/tmp/pallet-$user"
  for S in "$@"; do
    [ -f "$S/witness" ] && writable && return 0
  done
  for S in "$@"; do
    mkdir -p "$S/runs" 2>/dev/null && chmod 700 "$S" 2>/dev/null && writable && return 0
  done
  return 1
}

writable() { [ -O "$S" ] && { : >"$S/writable"; } 2>/dev/null; }

# The witness: random, made once on a file system, so that a lost one shows. In a pod it is joined with the start of
# process 1, since a state directory on a volume survives a container whose own file system does not.
find_witness() {
  if [ ! -s "$S/witness" ]; then
    { read -r fresh </proc/sys/kernel/random/uuid; } 2>/dev/null || fresh=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    (set -C; printf '%s\n' "$fresh" >"$S/witness") 2>/dev/null
  fi
  read -r witness <"$S/witness" || return 1
  [ "$1" = - ] || { born 1 && witness=$witness.$born; }
}

# The state of a run is one line of fixed width, overwritten in place: a full disk cannot keep a result from being kept.
#   claimed PID BORN | running PID BORN | ended STATUS STARTED FINISHED
put_state() { printf '%-79s\n' "$*" 1<>"$d/state"; }
get_state() {
  word= s1= s2= s3=
  { read -r word s1 s2 s3 <"$S/runs/$1/state"; } 2>/dev/null
  case $word in
  ended) ;;
  claimed | running) alive "$s1" "$s2" || word=$word-dead ;;
  *) word=none ;;
  esac
}

# One run at a time on a node. The lock is a symbolic link, made atomically, that names the run; it falls with its owner.
lock() {
  tries=0
  until ln -s "$1" "$S/lock" 2>/dev/null; do
    holder=$(readlink "$S/lock" 2>/dev/null)
    [ "$holder" != "$1" ] || return 0
    tries=$((tries + 1))
    [ "$tries" -lt 10 ] || return 1
    [ -n "$holder" ] || continue
    get_state "$holder"
    case $word in claimed | running) return 1 ;; esac
    mv "$S/lock" "$S/lock.$me" 2>/dev/null || continue
    [ "$(readlink "$S/lock.$me")" = "$holder" ] || ln -s "$(readlink "$S/lock.$me")" "$S/lock" 2>/dev/null
    rm -f "$S/lock.$me"
  done
}

unlock() { [ "$(readlink "$S/lock" 2>/dev/null)" != "$1" ] || rm -f "$S/lock"; }

# drain: takes in all that a script prints, for ever if need be, and keeps the last 1 to 4 MiB.
drain() {
  rotated=0
  : >"$d/out.1"
  while :; do
    had=$(wc -c <"$d/out.1")
    dd bs=4096 count=256 2>/dev/null >>"$d/out.1" || break
    has=$(wc -c <"$d/out.1")
    [ "$has" -gt "$had" ] || return 0
    [ "$has" -gt 1048576 ] || continue
    rotated=$((rotated + has))
    mv "$d/out.1" "$d/out.0" && : >"$d/out.1" && echo "$rotated" >"$d/rotated"
  done
  cat >/dev/null
}

# supervise: runs the claimed script in a process group of its own, ends it at its deadline, writes its result.
supervise() {
  trap '' HUP INT PIPE
  read -r self rest </proc/self/stat
  born "$self" || exit 1
  began=$(date +%s) verdict=
  rm -f "$d/pipe"
  mkfifo "$d/pipe" || exit 1
  put_state "running $self $born" || exit 1
  trap 'verdict=timeout' ALRM
  trap 'verdict=cancelled' USR1
  drain <"$d/pipe" &
  reader=$!
  if command -v setsid >/dev/null 2>&1; then
    PALLET_RUN=$1 PALLET_JOURNAL=$d setsid sh "$d/script" </dev/null >"$d/pipe" 2>&1 &
  else
    PALLET_RUN=$1 PALLET_JOURNAL=$d sh "$d/script" </dev/null >"$d/pipe" 2>&1 &
  fi
  script=$!
  after "$2" ALRM "$self"
  deadline=$!
  wait "$script"
  code=$?
  if [ -n "$verdict" ] && born "$script"; then
    signal_group TERM
    after 5 ALRM "$self"
    grace=$!
    wait "$script"
    kill "$grace" 2>/dev/null
    signal_group KILL
    sweep "$1"
    wait "$script" 2>/dev/null
  else
    verdict=exit:$code
  fi
  kill "$deadline" 2>/dev/null
  # A daemon may hold the pipe open: what it prints is drained on, but nobody waits for it.
  after 1 ALRM "$self"
  late=$!
  wait "$reader"
  kill "$late" 2>/dev/null
  rm -f "$d/pipe" "$d/script"
  put_state "ended $verdict $began $(date +%s)"
  unlock "$1"
}

# Without setsid a script has no group of its own; the sweep, which goes by the environment, finds its processes.
signal_group() { kill -s "$1" -- "-$script" 2>/dev/null || kill -s "$1" "$script" 2>/dev/null; }

sweep() {
  for pass in 1 2 3; do
    found=$(grep -lsF "PALLET_RUN=$1" /proc/[0-9]*/environ 2>/dev/null) || return 0
    for process in $found; do
      process=${process#/proc/}
      kill -s KILL "${process%/environ}" 2>/dev/null
    done
  done
}

# run ID TIMEOUT BYTES PHASE ATTEMPT DIGEST, then the script: starts it, or joins the run of that id.
run() {
  take "$3" "$S/inbox.$me" || { refuse "disk the script could not be written to $S"; exit 1; }
  d=$S/runs/$1
  get_state "$1"
  case $word in none | claimed-dead) ;; *) rm -f "$S/inbox.$me"; attach "$1"; return ;; esac
  lock "$1" || { rm -f "$S/inbox.$me"; reply "busy $holder"; return; }
  # Whoever held the lock before may have started the same run.
  get_state "$1"
  case $word in none | claimed-dead) ;; *) rm -f "$S/inbox.$me"; attach "$1"; return ;; esac
  prune
  if [ "$word" = none ]; then
    mkdir "$d" || { unlock "$1"; refuse "disk the journal $d could not be made"; return; }
  fi
  born "$me"
  : >"$d/state" && put_state "claimed $me $born" &&
    echo "$witness $4 $5 $6" >"$d/meta" && mv "$S/inbox.$me" "$d/script" && echo "$1" >>"$S/log" ||
    { rm -rf "$d" "$S/inbox.$me"; unlock "$1"; refuse "disk the journal $d could not be written"; return; }
  supervise "$1" "$2" </dev/null >/dev/null 2>&1 &
  supervisor=$!
  reply "started $1"
  beat &
  beating=$!
  wait "$supervisor"
  kill "$beating" 2>/dev/null
  wait "$beating" 2>/dev/null
  report "$1"
}

# A sign of life, so that a dead connection can be told from a long run. Stopped before any longer reply is written.
beat() {
  timer=
  trap '[ -z "$timer" ] || kill "$timer" 2>/dev/null; exit 0' TERM
  while :; do
    sleep 10 </dev/null >/dev/null 2>&1 &
    timer=$!
    wait "$timer"
    reply beat
  done
}

# attach ID: joins a run that somebody started and reports its end; "absent" where the script never ran.
attach() {
  polls=0
  while get_state "$1"; do
    case $word in
    claimed | running) ;;
    none | claimed-dead) reply "absent $1"; return ;;
    *) report "$1"; return ;;
    esac
    [ "$polls" != 0 ] || reply "attached $1"
    polls=$((polls + 1))
    [ $((polls % 50)) != 0 ] || reply beat
    sleep 0.2 2>/dev/null || sleep 1
  done
}

size() { if [ -f "$1" ]; then wc -c <"$1"; else echo 0; fi; }

report() {
  get_state "$1"
  d=$S/runs/$1
  # A supervisor that died without a word: its run ended, nobody knows how.
  [ "$word" = ended ] || s1=died s2=0 s3=0
  rotated=0
  [ ! -f "$d/rotated" ] || read -r rotated <"$d/rotated"
  total=$((rotated + $(size "$d/out.1")))
  cat "$d/out.0" "$d/out.1" 2>/dev/null | tail -c 2048 >"$S/tail.$me"
  [ -f "$d/actions" ] || : >"$d/actions"
  [ -f "$d/facts" ] || : >"$d/facts"
  # Not every node has sha256sum; without it the length alone speaks for the output.
  sum=$(sha256sum <"$S/tail.$me" 2>/dev/null) || sum=-
  read -r run_witness phase attempt digest <"$d/meta"
  reply "ended $1 $phase $attempt $digest $s1 $s2 $s3 $total ${sum%% *}" $(size "$S/tail.$me") $(size "$d/actions") $(size "$d/facts")
  cat "$S/tail.$me" "$d/actions" "$d/facts"
  rm -f "$S/tail.$me"
}

# The newest 24 runs stay; their script is gone already when they ended.
prune() {
  [ -f "$S/log" ] || return 0
  [ "$(wc -l <"$S/log")" -gt 32 ] || return 0
  tail -n 24 "$S/log" >"$S/log.new" && mv "$S/log.new" "$S/log" || return 0
  for old in "$S/runs"/*; do
    grep -qx "${old##*/}" "$S/log" || rm -rf "$old"
  done
}

# list: the runs of this incarnation, oldest first.
list() {
  [ -f "$S/log" ] || return 0
  while read -r id; do
    run_witness=
    { read -r run_witness phase attempt digest <"$S/runs/$id/meta"; } 2>/dev/null
    [ "$run_witness" = "$witness" ] || continue
    get_state "$id"
    reply "run $id $phase $attempt $digest $word"
  done <"$S/log"
}

cancel() {
  get_state "$1"
  [ "$word" = running ] && kill -s USR1 "$s1"
  reply "cancelled $1 $word"
}

fact() { printf '%s\t%s\n' "$1" "$2"; }

facts() {
  ID= ID_LIKE= VERSION_ID=
  if [ -r /etc/os-release ]; then
    while IFS='=' read -r key value; do
      value=${value%\"} value=${value#\"}
      case $key in ID | ID_LIKE | VERSION_ID) eval "$key=\$value" ;; esac
    done </etc/os-release
  fi
  case " $ID $ID_LIKE " in
  *" debian "* | *" ubuntu "*) family=debian ;;
  *" rhel "* | *" fedora "* | *" centos "*) family=rhel ;;
  *" alpine "*) family=alpine ;;
  *" suse "* | *" opensuse "*) family=suse ;;
  *" arch "*) family=arch ;;
  *) family=linux ;;
  esac
  manager=none
  for tool in apt-get:apt apk:apk dnf:dnf yum:yum zypper:zypper pacman:pacman; do
    command -v "${tool%:*}" >/dev/null 2>&1 && manager=${tool#*:} && break
  done
  fact os.family "$family"
  fact os.name "${ID:-linux}"
  fact os.version "$VERSION_ID"
  fact os.arch "$(uname -m)"
  fact os.kernel "$(uname -r)"
  fact os.packageManager "$manager"
  fact cpu.count "$(nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)"
  while read -r key value rest; do
    case $key in
    MemTotal:) fact memory.totalBytes "$((value * 1024))" ;;
    MemAvailable:) fact memory.availableBytes "$((value * 1024))" ;;
    esac
  done </proc/meminfo
  df -Pk / 2>/dev/null | {
    read -r heading
    read -r device blocks used free percent mount
    fact disk.totalBytes "$((blocks * 1024))"
    fact disk.freeBytes "$((free * 1024))"
    fact disk.freePercent "$((blocks > 0 ? free * 100 / blocks : 0))"
  }
  read -r load rest </proc/loadavg && fact load.one "$load"
  read -r up rest </proc/uptime && fact uptimeSeconds "${up%%.*}"
  { read -r name </proc/sys/kernel/hostname; } 2>/dev/null && fact hostname "$name"
  fact addresses "$(addresses)"
}

# IPv4 from the kernel's own table of local addresses: no ip, ifconfig or awk is needed.
addresses() {
  seen=' '
  [ -r /proc/net/fib_trie ] || return 0
  while read -r a b c; do
    case $a in
    '|--') address=$b ;;
    /32)
      [ "$b $c" = 'host LOCAL' ] || continue
      case "$address$seen" in 127.* | "$address"*" $address "*) continue ;; esac
      seen="$seen$address "
      ;;
    esac
  done </proc/net/fib_trie
  printf '%s' "${seen# }"
}

# hello NONCE UID WITNESS: UID is the pod that the operator means, WITNESS the one it knows ("-": none yet).
hello() {
  nonce=$1
  if [ "$2" != - ] && [ "$2" != "${PALLET_POD_UID-}" ]; then
    refuse "incarnation this is pod ${PALLET_POD_UID:-without PALLET_POD_UID}, not $2"
    exit 1
  fi
  for tool in dd wc mkdir mkfifo ln mv rm cat tail grep date readlink sleep; do
    command -v "$tool" >/dev/null 2>&1 || { refuse "tools the node has no $tool"; exit 1; }
  done
  find_state || { refuse "state no writable directory for the journal among ${PALLET_STATE_DIR:-/var/lib/pallet} /var/tmp /tmp"; exit 1; }
  find_witness "$2" || { refuse "state the witness in $S cannot be read"; exit 1; }
  reply "hello $witness $S"
  list
  reply ready
}

while read -r verb a1 a2 a3 a4 a5 a6; do
  case $verb in
  hello) hello "$a1" "$a2" ;;
  facts)
    facts >"$S/facts.$me" 2>/dev/null
    reply "facts $(size "$S/facts.$me")"
    cat "$S/facts.$me"
    rm -f "$S/facts.$me"
    ;;
  run) run "$a1" "$a2" "$a3" "$a4" "$a5" "$a6" ;;
  attach) attach "$a1" ;;
  cancel) cancel "$a1" ;;
  bye) exit 0 ;;
  *) refuse "protocol unknown request $verb" ;;
  esac
done
