# The part of pallet-operator that stands on a node: POSIX sh (busybox ash, dash, bash) and POSIX tools, nothing else.
#
# Requests come on stdin, one line each, payloads counted in bytes. Replies go to stdout, each line led by a nonce that
# the operator chose and that no script ever sees, so no output can pass for a reply; payloads behind them are counted in
# bytes or in lines. A run is journalled under the state directory and carried through, once, by a supervisor that outlives
# the connection.
#
# Comment lines and indentation are stripped before this text is sent. Files are emptied by true, not by the colon: a
# redirection that fails under a special built-in ends the whole shell. A process costs a small machine as much as a
# thousand lines of this: none is started for what the shell can do itself.

set +xv
mask=$(umask)
umask 077
nonce=-
me=$$
due= arch= my_born= meant=-
tab='	'
newline='
'
boot=-
{ read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
boot=${boot%%-*}

reply() { printf '%s %s\n' "$nonce" "$*"; }
refuse() { reply "refused $*"; }

# born PID: sets $born to the process's start time in clock ticks since the boot, and which boot that was, and $pid to its
# PID, where "self" was asked for; fails where it is gone or a zombie.
born() {
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  pid=${stat%% *}
  set -- ${stat##*) }
  [ "$1" != Z ] || return 1
  born=${20}.$boot
}

# alive PID BORN: whether it is still that process. What an agent before wrote down names no boot.
alive() { born "$1" && { [ "$born" = "$2" ] || [ "${born%%.*}" = "$2" ]; }; }

# uptime: sets $up to the hundredths of a second since the boot, 0 where they cannot be told.
uptime() {
  up=
  { read -r up rest </proc/uptime; } 2>/dev/null
  # With a zero in front it would be octal.
  case $up in 0*) up=0 ;; *.[0-9][0-9]) up=${up%.*}${up#*.} ;; *) up=0 ;; esac
}

# Sets $passed to the seconds since the time was $before.
passed() {
  uptime
  passed=0
  [ "$before" = 0 ] || [ "$up" -lt "$before" ] || passed=$(((up - before) / 100))
}

nap() { sleep 0.2 2>/dev/null || sleep 1; }

# copy BYTES COUNT FILE: appends to FILE what comes by at most COUNT reads of at most BYTES, and sets $records to how many
# there were, full ones and others, such as 1+0. dd never reads past what it is asked for.
copy() {
  records=$(LC_ALL=C dd bs="$1" count="$2" 2>&1 >>"$3") || return 1
  records=${records%%" records in"*}
  records=${records##*"$newline"}
  case $records in [0-9]*+[0-9]*) ;; *) return 1 ;; esac
}

# take BYTES FILE: moves exactly BYTES from stdin to FILE.
take() {
  left=$1
  true >"$2" || return 1
  while [ "$left" -gt 0 ]; do
    had=$left block=$left
    [ "$block" -le 65536 ] || block=65536
    copy "$block" 1 "$2" || return 1
    case $records in 1+0) left=$((left - block)) ;; *) left=$(($1 - $(wc -c <"$2"))) ;; esac
    [ "$left" -lt "$had" ] || return 1
  done
}

# The state directory: the one that already holds a journal, else the first that can be made. A journal that cannot be
# written is no reason to begin another: the node would pass for a new one. Whoever names a directory wants that one, whatever lies
# about elsewhere, and answers for what is above it.
find_state() {
  user=0
  while read -r key real effective rest; do
    [ "$key" != Uid: ] || {
      user=$effective
      break
    }
  done </proc/self/status 2>/dev/null
  named=${PALLET_STATE_DIR:-/var/lib/pallet} S=$named home=
  [ -z "${PALLET_STATE_DIR-}" ] || [ -L "$S/filesystem-id" ] || ! usable || return 0
  # Other users of a machine cannot take a name in this user's home. Machines may share it: each has a directory of its own.
  case $user:$meant in
  0:*) ;;
  *:- | *:@*)
    home=${XDG_STATE_HOME-}
    case $home in /*) ;; *) home=${HOME-}/.local/state ;; esac
    machine_id
    [ -n "$machine" ] || { read -r machine </proc/sys/kernel/hostname; } 2>/dev/null
    case $home in /*) home=$home/pallet/$machine ;; *) home= ;; esac
    ;;
  esac
  for S in "$named" "$home" "/var/tmp/pallet-$user" "/var/tmp/pallet-$user".* "/tmp/pallet-$user" "/tmp/pallet-$user".*; do
    [ -L "$S/filesystem-id" ] && ours && {
      writable
      return
    }
  done
  S=$named
  usable && return
  S=$home
  [ -n "$S" ] && mkdir -p "${S%/*}" 2>/dev/null && usable && return
  for tmp in /var/tmp /tmp; do
    S=$tmp/pallet-$user
    usable && return
    # Somebody else has that name; one that nobody can guess nobody can take.
    [ -L "$S" ] || { [ -e "$S" ] && ! [ -O "$S" ]; } || continue
    random
    S=$S.$random
    usable && return
  done
  return 1
}

usable() {
  if [ "$S" = "$named" ]; then
    [ -e "$S" ] || mkdir -p "$S" 2>/dev/null
  else
    [ -e "$S" ] || mkdir -m 700 "$S" 2>/dev/null
  fi
  ours && chmod 700 "$S" 2>/dev/null && { [ -d "$S/runs" ] || mkdir "$S/runs" 2>/dev/null || [ -d "$S/runs" ]; } && writable
}

# Whether $S is this user's own. A path that somebody else may exchange says nothing of what is there the next moment: one
# call tells what stands there and whose it is, and on a machine nobody else can write to any directory above, or where they can
# it is sticky, and they cannot move what is ours. In a pod the directories above are the author's choice.
ours() {
  case $S in
  "$named") case $S in /tmp/* | /var/tmp/*) ;; *)
    [ -O "$S" ]
    return
    ;;
  esac ;;
  esac
  base=$(cd -P "${S%/*}/" 2>/dev/null && pwd -P) || return 1
  S=${base%/}/${S##*/}
  dir=$S
  set -- "$S"
  while [ -n "$dir" ]; do
    dir=${dir%/*}
    set -- "${dir:-/}" "$@"
  done
  LC_ALL=C ls -ldn "$@" 2>/dev/null | {
    modes= owner=
    while read -r mode links uid rest; do
      [ -z "$modes" ] || safe || exit 1
      modes=$mode owner=$uid
      [ "$#" = 0 ] && exit 1
      shift
    done
    [ "$#" = 0 ] && [ "$owner" = "$user" ] || exit 1
    case $modes in d????-??-*) ;; d*) in_pod ;; *) exit 1 ;; esac
  }
}

in_pod() { case $meant in - | @*) return 1 ;; esac }

# Whether nobody but root and this user can exchange what is in a directory.
safe() {
  ! in_pod || return 0
  case $owner in 0 | "$user") ;; *) return 1 ;; esac
  case $modes in
  d????????[tT]* | d????-??-*) ;;
  *) return 1 ;;
  esac
}

writable() { { true >"$S/writable"; } 2>/dev/null; }

random() { { read -r random </proc/sys/kernel/random/uuid; } 2>/dev/null || random=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n'); }

# Sets $machine to its ID. Before its first boot is over, a machine has none yet.
machine_id() {
  machine=
  { read -r machine </etc/machine-id || read -r machine </var/lib/dbus/machine-id; } 2>/dev/null
  case $machine in *[!0-9a-f]*) machine= ;; esac
}

# The filesystem ID: random, made once on a file system, so that a lost one shows. It is the text of a symbolic link, which is
# there whole or not at all. In a pod it is joined with the start of process 1, since a state directory on a volume
# survives a container whose own file system does not, or with the word that the operator has for this life of the container,
# where process 1 is not the container's own (shared process namespaces, hostPID); on a machine with its ID, for the same reason, and with the node that
# it is: whatever another one did there was done for that.
find_fs_id() {
  fs_id=
  if [ ! -L "$S/filesystem-id" ]; then
    random
    fs_id=$random
    ln -s "$fs_id" "$S/filesystem-id" 2>/dev/null || fs_id=
  fi
  # Somebody may have been faster.
  [ -n "$fs_id" ] || fs_id=$(readlink "$S/filesystem-id")
  [ -n "$fs_id" ] || return 1
  case $1 in
  - | @*)
    machine_id
    fs_id=$fs_id${machine:+.$machine}
    [ "$1" = - ] || fs_id=$fs_id.${1#@}
    ;;
  *)
    if [ -n "$2" ]; then
      fs_id=$fs_id.$2
    else
      born 1 && fs_id=$fs_id.${born%%.*}
    fi
    ;;
  esac
}

# settle_in: what another node had marked as changed on this machine wakes no action of this one. Under the lock, since the
# other's run may still be at work before.
settle_in() {
  case $meant in @*) ;; *) return 0 ;; esac
  settled=
  { read -r settled <"$S/node"; } 2>/dev/null
  [ "$settled" != "$meant" ] || return 0
  [ ! -e "$S/marks" ] || rm -rf "$S/marks"
  { echo "$meant" >"$S/node"; } 2>/dev/null
}

# What a killed agent was at, its script before all.
tidy() {
  for file in "$S"/inbox.* "$S"/tail.* "$S"/pipe.* "$S"/facts.*; do
    [ ! -e "$file" ] || born "${file##*.}" || rm -f "$file"
  done
}

# What the present agent was at.
leave() {
  set --
  for file in "$S/inbox.$me" "$S/tail.$me" "$S/pipe.$me"; do
    [ ! -e "$file" ] || set -- "$@" "$file"
  done
  [ "$#" = 0 ] || rm -f "$@"
}

# The state of a run is one line of fixed width, overwritten in place: a full disk cannot keep a result from being kept.
#   running PID BORN | ended STATUS STARTED FINISHED
put_state() { printf '%-79s\n' "$*" 1<>"$d/state"; }
read_state() {
  for try in 1 2; do
    word= s1= s2= s3=
    { read -r word s1 s2 s3 <"$S/runs/$1/state"; } 2>/dev/null
    # A shell reads byte by byte: the first half may have been of the line before.
    case $word in running | ended | '') break ;; esac
  done
  case $word in running | ended) ;; *) word=none ;; esac
}
get_state() {
  read_state "$1"
  [ "$word" = running ] || return 0
  ! alive "$s1" "$s2" || return 0
  # A supervisor that is gone may have written its result since.
  read_state "$1"
  [ "$word" != running ] || word=running-dead
}

# One run at a time on a node. The lock is the newest of numbered symbolic links, each made atomically and never changed:
# a run and its supervisor. It falls when the run has ended or the supervisor is gone. Nobody takes another's link away to
# get it, since between a look and a removal the link may have become a living one's: the next number is taken instead.
newest() {
  top=0
  for link in "$S"/lock.*; do
    case ${link##*.} in '*') ;; *) [ "${link##*.}" -le "$top" ] || top=${link##*.} ;; esac
  done
}

# Sets $top, and $holder to the run that has the lock; fails where none has. $freed is a lock that is known to have fallen.
held() {
  newest
  holder=
  [ "$top" != "$freed" ] || return 1
  # shellcheck disable=SC2046 # the words of the link
  set -- $(readlink "$S/lock.$top" 2>/dev/null)
  holder=${1-}
  [ -n "$holder" ] || return 1
  get_state "$holder"
  if [ "$word" = none ]; then
    # Before it has written anything, its link alone speaks for it.
    ! alive "$2" "$3" || return 0
    get_state "$holder"
  fi
  [ "$word" != running ] || return 0
  [ "$word" = ended ] || bury "$holder"
  return 1
}

# lock ID PID BORN: fails where $holder has it, or where there is no room for a link ($holder is empty then).
lock() {
  misses=0
  while ! held; do
    mine=$((top + 1))
    if ! ln -s "$1 $2 $3" "$S/lock.$mine" 2>/dev/null; then
      # Somebody was faster, and may even be gone again; with no room for a link it fails every time.
      [ -L "$S/lock.$mine" ] || misses=$((misses + 1))
      [ "$misses" -lt 10 ] && continue
      holder=
      return 1
    fi
    newest
    if [ "$top" != "$mine" ]; then
      # Others had gone on meanwhile, and this number had been free for the second time.
      rm -f "$S/lock.$mine"
      continue
    fi
    [ $((mine % 8)) = 0 ] || return 0
    for link in "$S"/lock.*; do
      [ "${link##*.}" -ge "$mine" ] || rm -f "$link"
    done
    return 0
  done
  return 1
}

# foreign ID: whether a run is another life's: that of a node which was this machine before, or takes itself for it. It is
# nobody's here to join, to end or to tell of.
foreign() {
  run_fs_id=
  { read -r run_fs_id rest <"$S/runs/$1/meta"; } 2>/dev/null
  [ -n "$run_fs_id" ] && [ "$run_fs_id" != "$fs_id" ]
}
refuse_foreign() { refuse "foreign run $1 of another node, or of an earlier life, is still at work on this machine"; }

# A run whose supervisor was killed is over, but its processes may not be: nothing else may run beside them.
bury() {
  sweep "$1"
  rm -f "$S/runs/$1/script"
}

# drain: takes in all that a script prints, for ever if need be, and keeps the last 1 to 4 MiB.
drain() {
  rotated=0
  while copy 4096 256 "$d/out.1"; do
    # Fewer than it asked for are the last ones.
    [ $(($records)) = 256 ] || return 0
    has=$(wc -c <"$d/out.1") || break
    [ "$has" -gt 1048576 ] || continue
    rotated=$((rotated + has))
    mv "$d/out.1" "$d/out.0" && true >"$d/out.1" && echo "$rotated" >"$d/rotated"
  done
  cat >/dev/null
}

# clock SECONDS: what ticks beside a run. It asks the agent for a sign of life every ten seconds; it tells the supervisor
# when the time is over, and to wait no longer when the script has been gone for a second and its output has not ended. It
# goes on saying so, since a signal that comes just before a wait does not end it.
clock() {
  (
    slept=$! ticks=0 gone=0 lost=0 script_born=
    # The sleep is waited for, since process 1 of a container may be one that buries nobody; what has not come to its exec yet
    # may lose any signal but KILL.
    trap 'trap - EXIT; [ "$!" = "$slept" ] || { kill -s KILL "$!"; wait "$!"; }; exit 0' TERM
    # Where no process can be started any more, the shell ends: then the time is over.
    trap 'kill -s ALRM "$self"; signal_group KILL' EXIT
    while [ "$lost" -lt 2 ]; do
      sleep 1 &
      wait "$!"
      slept=$! ticks=$((ticks + 1))
      # A tick takes longer than a second, on a busy machine much longer.
      passed
      [ "$passed" -ge "$ticks" ] || passed=$ticks
      # One look may fail where memory is short.
      if alive "$self" "$self_born"; then lost=0; else
        lost=$((lost + 1))
        continue
      fi
      if born "$script" && [ "${script_born:=$born}" = "$born" ]; then gone=0; else gone=$((gone + 1)); fi
      [ "$passed" -lt "$1" ] && [ "$gone" -lt 2 ] || kill -s ALRM "$self"
      [ $((ticks % 10)) != 0 ] || ! alive "$me" "$my_born" || kill -s USR2 "$me"
    done
    trap - EXIT
  ) </dev/null >/dev/null 2>&1 &
}

# supervise ID TIMEOUT PHASE ATTEMPT DIGEST SEAL FROM NOW: takes the lock, runs the script in the inbox in a process group
# of its own, ends it at its deadline, writes its result. Exits with 4 where it has said why not, with 75 where the run is
# somebody else's, with 3 where something holds on to the pipe of its output. The times that it writes are the operator's
# NOW and what has passed since: the clock of a node may be wrong, and may be set while the script runs.
supervise() {
  trap '' HUP INT PIPE
  asked=
  trap 'asked=${asked:-timeout}' ALRM
  trap 'asked=${asked:-cancelled}' USR1
  born self || exit 75
  self=$pid self_born=$born
  if ! lock "$1" "$self" "$self_born"; then
    [ "$holder" != "$1" ] || exit 75
    if [ -z "$holder" ]; then
      refuse "disk no lock could be made in $S"
    elif foreign "$holder"; then
      refuse_foreign "$holder"
    else
      reply "busy $holder"
    fi
    exit 4
  fi
  get_state "$1"
  [ "$word" = none ] || exit 75
  d=$S/runs/$1
  in_log "$1" && known=yes || known=
  [ "$logged" -le 32 ] || prune
  settle_in && prepare "$@" || {
    rm -rf "$d"
    refuse "disk the journal $d could not be written"
    exit 4
  }
  reply "started $1"
  exec >/dev/null
  began=$8
  uptime
  before=$up
  # By exec, since a shell that redirects for a while only keeps what it has closed.
  (
    exec <&5 4>&- 5<&- 6>&- 7<&-
    drain
  ) &
  reader=$!
  (
    exec >&4 2>&1 4>&- 5<&-
    [ -z "$secrets" ] || exec <&7 6>&- 7<&-
    trap - HUP INT PIPE
    umask "$mask"
    export PALLET_RUN="$1" PALLET_JOURNAL="$d"
    if command -v setsid >/dev/null 2>&1; then exec setsid sh "$d/script"; else exec sh "$d/script"; fi
  ) &
  script=$!
  exec 4>&- 5<&-
  feeder=
  if [ -n "$secrets" ]; then
    (
      exec 7<&-
      printf '%s' "$secrets" >&6
    ) &
    feeder=$!
    exec 6>&- 7<&-
    secrets=
  fi
  clock "$2"
  clock=$!
  wait "$script"
  code=$?
  if [ -n "$asked" ] && born "$script"; then
    verdict=$asked
    end_script "$1"
  else
    verdict=exit:$code
    # A signal may have broken the wait off just when the script ended: then the code is the signal's, and the script's
    # comes by another wait, if at all. Where neither can be its own, the signal's word stands.
    if [ -n "$asked" ] && [ "$code" -gt 128 ]; then
      wait "$script"
      code=$?
      if [ "$code" -lt 127 ]; then verdict=exit:$code; else verdict=$asked; fi
    fi
  fi
  # A daemon may hold the pipe open: what it prints is drained on, but nobody waits for it.
  exits=3
  wait "$reader" && exits=0
  trap '' ALRM USR1
  kill "$clock" 2>/dev/null
  wait "$clock"
  [ -z "$feeder" ] || born "$feeder" || wait "$feeder"
  true >"$d/script"
  passed
  put_state "ended $verdict $began $((began + passed))"
  exit "$exits"
}

# Leaves the output pipe on 4 and 5, and that of the secrets on 6 and 7, opened by way of 3 so that neither end waits for
# the other. That of the output serves one run after the other, as long as nothing holds on to it. The state comes last:
# from then on the script may have run.
prepare() {
  [ ! -e "$d" ] || rm -rf "$d"
  mkdir "$d" && echo "$fs_id $3 $4 $5 $6 $7" >"$d/meta" || return 1
  [ -p "$S/pipe.$me" ] || mkfifo "$S/pipe.$me" || return 1
  exec 3<>"$S/pipe.$me" 4>"$S/pipe.$me" 5<"$S/pipe.$me" 3>&-
  if [ -n "$secrets" ]; then
    mkfifo "$d/pipe" || return 1
    exec 3<>"$d/pipe" 6>"$d/pipe" 7<"$d/pipe" 3>&-
    rm -f "$d/pipe"
  fi
  mv "$S/inbox.$me" "$d/script" || return 1
  [ -n "$known" ] || echo "$1" >>"$S/log" || return 1
  put_state "running $self $self_born"
}

# Whether the log names this run. Sets $logged to the number of lines before it.
in_log() {
  logged=0
  [ -f "$S/log" ] || return 1
  while read -r line; do
    [ "$line" != "$1" ] || return 0
    logged=$((logged + 1))
  done <"$S/log"
  return 1
}

# TERM, five seconds of grace, KILL. Daemons may have left the group, and without setsid there is none: the sweep goes by
# the environment.
end_script() {
  signal_group TERM
  naps=0
  while [ "$naps" -lt 25 ] && born "$script"; do
    nap
    naps=$((naps + 1))
  done
  signal_group KILL
  sweep "$1"
  wait "$script"
}

# The one form that all shells take for a group: busybox knows no "--", and dash wants one after "-s".
signal_group() { kill "-$1" "-$script" 2>/dev/null || kill -s "$1" "$script" 2>/dev/null; }

sweep() {
  for pass in 1 2 3 4 5; do
    # What cannot be read is not ours; grep fails for it, whatever else it found. With -F, that of busybox ends at a NUL.
    found=$(grep -ls "PALLET_RUN=$1" /proc/[0-9]*/environ)
    [ -n "$found" ] || return 0
    for environ in $found; do
      # A number that was found a while ago may be another process's by now.
      grep -qs "PALLET_RUN=$1" "$environ" || continue
      process=${environ#/proc/}
      kill -s KILL "${process%/environ}" 2>/dev/null
    done
  done
}

# hold BYTES: takes that many of stdin into $secrets, which never stands on a disk. They are plain ASCII.
hold() {
  secrets= left=$1
  while [ "$left" -gt 0 ]; do
    part=$(
      dd bs="$left" count=1 2>/dev/null
      echo .
    )
    part=${part%.}
    [ -n "$part" ] || return 1
    secrets=$secrets$part left=$((left - ${#part}))
  done
  part=
}

# run ID TIMEOUT BYTES PHASE ATTEMPT DIGEST BYTES SEAL FROM NOW, then the script and its secrets: starts it, or joins the run
# of that id.
run() {
  take "$3" "$S/inbox.$me" || {
    rm -f "$S/inbox.$me"
    refuse "disk the script could not be written to $S"
    exit 1
  }
  hold "$7" || exit 1
  newest
  next=$((top + 1)) code=
  while get_state "$1" && [ "$word" = none ]; do
    (
      exec </dev/null 2>/dev/null
      supervise "$1" "$2" "$4" "$5" "$6" "$8" "$9" "${10}"
    ) &
    wait_for "$!"
    [ "$code" = 75 ] || break
    nap
  done
  # Where one lock only has been made since, it was for this run, and fell with it.
  newest
  [ "$code" != 0 ] || [ "$top" != "$next" ] || freed=$top
  [ "$code" = 0 ] || rm -f "$S/inbox.$me" "$S/pipe.$me"
  secrets=
  [ "$code" = 4 ] || attach "$1"
}

# wait_for PID: sets $code to what it exits with. Meanwhile the agent gives signs of life, when the clock of the run asks it
# to, so that a dead connection can be told from a long run.
wait_for() {
  while :; do
    wait "$1"
    ended=$?
    # Where a signal comes just after it has ended, it is not known any more.
    [ "$ended" = 127 ] || code=$ended
    [ -n "$due" ] || return 0
    due=
    reply beat
  done
}

# attach ID [SIGNAL]: joins a run that somebody started and reports its end; "absent" where the script never ran. The
# signal, if any, goes to its supervisor.
attach() {
  polls=0
  while get_state "$1"; do
    if foreign "$1"; then
      refuse_foreign "$1"
      return
    fi
    case $word in
    running) [ -z "${2-}" ] || kill -s "$2" "$s1" 2>/dev/null ;;
    none)
      if ! held || [ "$holder" != "$1" ]; then
        reply "absent $1"
        return
      fi
      ;;
    *)
      report "$1"
      return
      ;;
    esac
    [ "$polls" != 0 ] || reply "attached $1"
    polls=$((polls + 1))
    [ $((polls % 50)) != 0 ] || reply beat
    nap
  done
}

# measure FILE: sets $length to how much of it is reported. No honest one comes near the limit.
measure() {
  length=0
  [ ! -s "$1" ] || length=$(($(wc -c <"$1")))
  [ "$length" -le 393216 ] || length=393216
}

# send LENGTH FILE: that much of it, should it have grown meanwhile.
send() { [ "$1" = 0 ] || dd bs="$1" count=1 <"$2" 2>/dev/null; }

# read_lines FILE: sets $text to the lines of a file, and $lines to their number. No more than is reported, and in two
# steps: what is appended to is copied each time.
read_lines() {
  text= part= lines=0
  [ -s "$1" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    [ "${#line}" -le 16384 ] || break
    part=$part$line$newline lines=$((lines + 1))
    [ "${#part}" -gt 4096 ] || continue
    text=$text$part part=
    [ "${#text}" -le 327680 ] || break
  done <"$1"
  text=$text$part
}

# report ID, whose state was just got.
report() {
  d=$S/runs/$1
  # A supervisor that died without a word: its run ended, nobody knows how.
  [ "$word" = ended ] || {
    bury "$1"
    s1=died s2=0 s3=0
  }
  rotated=0 output=0 sum=-
  [ ! -s "$d/rotated" ] || read -r rotated <"$d/rotated"
  total=${rotated:=0}
  [ ! -s "$d/out.1" ] || total=$((rotated + $(wc -c <"$d/out.1")))
  if [ "$total" != 0 ]; then
    # A copy, since a daemon may still be printing; on a full disk there is none.
    { cat "$d/out.0" "$d/out.1" | tail -c 2048 >"$S/tail.$me"; } 2>/dev/null && measure "$S/tail.$me" && output=$length
  fi
  # Not every node has sha256sum; without it the length alone speaks for the output.
  [ "$output" = 0 ] || sum=$(sha256sum <"$S/tail.$me" 2>/dev/null) || sum=-
  measure "$d/facts"
  read_lines "$d/actions"
  seal= from=
  read -r run_fs_id phase attempt digest seal from <"$d/meta"
  reply "ended $1 $phase $attempt $digest $s1 $s2 $s3 $total ${sum%% *} ${seal:--} ${from:-0} $output $length $lines"
  send "$output" "$S/tail.$me"
  send "$length" "$d/facts"
  printf '%s' "$text"
  text=
}

# The newest 24 runs stay, and beside them the last few readings of facts and looks, of which there are many; their script
# is gone already when they ended.
prune() {
  {
    grep -v -e '^settings-' -e '[.]check-' "$S/log" | tail -n 24
    grep -e '^settings-' -e '[.]check-' "$S/log" | tail -n 6
  } >"$S/log.kept"
  grep -xF -f "$S/log.kept" "$S/log" >"$S/log.new" && mv "$S/log.new" "$S/log" || return 0
  rm -f "$S/log.kept"
  for old in "$S/runs"/*; do
    grep -qxF "${old##*/}" "$S/log" || rm -rf "$old"
  done
  for old in "$S/marks"/*.lift.*; do
    grep -qF "${old##*/}-" "$S/log" || rm -rf "$old"
  done
}

# list: the runs of this incarnation, oldest first.
list() {
  [ -f "$S/log" ] || return 0
  while read -r id; do
    run_fs_id=
    { read -r run_fs_id phase attempt digest seal from <"$S/runs/$id/meta"; } 2>/dev/null
    [ "$run_fs_id" = "$fs_id" ] || continue
    get_state "$id"
    reply "run $id $phase $attempt $digest $word"
  done <"$S/log"
}

fact() { text=$text$1$tab$2$newline lines=$((lines + 1)); }

# facts: sets $text to them, a line each, and $lines to their number.
facts() {
  text= lines=0
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
  [ -n "$arch" ] || arch=$(uname -m) processors=$(nproc 2>/dev/null || grep -c ^processor /proc/cpuinfo)
  fact os.arch "$arch"
  { read -r kernel </proc/sys/kernel/osrelease; } 2>/dev/null || kernel=$(uname -r)
  fact os.kernel "$kernel"
  fact os.packageManager "$manager"
  services=none
  if [ -d /run/systemd/system ]; then
    services=systemd
  elif command -v rc-service >/dev/null 2>&1; then
    services=openrc
  elif [ -d /etc/init.d ]; then
    services=sysv
  fi
  fact os.serviceManager "$services"
  fact cpu.count "$processors"
  while read -r key value rest; do
    case $key in
    MemTotal:) fact memory.totalBytes "$((value * 1024))" ;;
    MemAvailable:)
      fact memory.availableBytes "$((value * 1024))"
      break
      ;;
    esac
  done </proc/meminfo
  disk=$(df -Pk / 2>/dev/null)
  # Where / is no mount of its own, that of busybox prints the heading only.
  case $disk in *"$newline"*) set -- ${disk#*"$newline"} ;; *) set -- ;; esac
  blocks=${2:-0} free=${4:-0}
  case $blocks$free in *[!0-9]*) blocks=0 free=0 ;; esac
  fact disk.totalBytes "$((blocks * 1024))"
  fact disk.freeBytes "$((free * 1024))"
  fact disk.freePercent "$((blocks > 0 ? free * 100 / blocks : 0))"
  read -r load rest </proc/loadavg && fact load.one "$load"
  uptime
  fact uptimeSeconds "${up%??}"
  { read -r name </proc/sys/kernel/hostname; } 2>/dev/null && fact hostname "$name"
  addresses
  fact addresses "$addresses"
}

# Sets $addresses, IPv4, from the kernel's own table of local addresses: no ip, ifconfig or awk is needed.
addresses() {
  addresses= seen=' '
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
  addresses=${seen# }
}

# hello NONCE UID [LIFE]: UID is the pod that the operator means, or behind a "@" the node that this machine is ("-": neither).
hello() {
  nonce=$1
  case $2 in - | @* | "${PALLET_POD_UID-}") pod=yes ;; *) pod= ;; esac
  if [ -z "$pod" ]; then
    refuse "incarnation this is pod ${PALLET_POD_UID:-without PALLET_POD_UID}, not $2"
    exit 1
  fi
  for tool in dd wc mkdir mkfifo chmod ln mv rm cat tail grep readlink sleep; do
    command -v "$tool" >/dev/null 2>&1 || {
      refuse "tools the node has no $tool"
      exit 1
    }
  done
  meant=$2
  find_state || {
    refuse "state no directory for the journal can be written that is this user's own and that no other user can exchange, among $named $home /var/tmp/pallet-$user /tmp/pallet-$user"
    exit 1
  }
  find_fs_id "$2" "${3-}" || {
    refuse "state the filesystem ID in $S cannot be read"
    exit 1
  }
  born "$me"
  # One that had our number may have left something.
  [ -n "$my_born" ] || leave
  my_born=$born freed=0
  trap 'due=yes' USR2
  tidy
  reply "hello $fs_id $S"
  list
  reply ready
}

while read -r verb a1 a2 a3 a4 a5 a6 a7 a8 a9 a10; do
  case $verb in
  hello) hello "$a1" "$a2" "$a3" ;;
  facts)
    facts
    reply "facts $lines"
    printf '%s' "$text"
    ;;
  run) run "$a1" "$a2" "$a3" "$a4" "$a5" "$a6" "${a7:-0}" "${a8:--}" "${a9:-0}" "${a10:-0}" ;;
  attach) attach "$a1" ;;
  cancel) attach "$a1" USR1 ;;
  bye) break ;;
  *) refuse "protocol unknown request $verb" ;;
  esac
done
leave
