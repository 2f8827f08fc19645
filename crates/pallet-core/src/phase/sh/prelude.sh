# What every phase script begins with. $PALLET_JOURNAL is the run's own directory. $mode is apply, or check: then nothing
# is changed, and Changed means that apply would change something.
# $phase is the phase, and $before is set where something before it would have changed the node.
journal=$PALLET_JOURNAL marks=${PALLET_JOURNAL%/*/*}/marks/$phase would=${before:-,} only=${PALLET_ONLY-} number=0 secrets= began=$PWD text=
unset PALLET_JOURNAL PALLET_ONLY

# perform NAME OPTION... -- FUNCTION ARGUMENT...: runs one action and notes what came of it. The first failure ends the
# phase with its code. Options: limit=SECONDS, retries=NUMBER, pause=SECONDS, mark=NAME (it is listened to under this
# name), after=NAME,... (it runs only where one of these has changed something since the phase last succeeded), skip,
# once=NAME (it is not done again where it has ended its run, see below), run_as=USER and run_as_password=VARIABLE (of exec),
# validate=SCRIPT (of what writes a file; %s is the new one).
# There are no local variables in POSIX sh: $mode, $phase, $action and $result are for nobody else to set.
perform() {
  number=$((number + 1))
  [ -z "$only" ] || [ "$only" = "$number" ] || return 0
  action=$1 result=Changed limit= retries=0 pause=0 mark= after= once= skip= attempt=0 code=0 run_as= run_as_password= validate=
  shift
  while [ "$1" != -- ]; do
    case $1 in
    limit=*) limit=${1#*=} ;;
    retries=*) retries=${1#*=} ;;
    pause=*) pause=${1#*=} ;;
    mark=*) mark=${1#*=} ;;
    after=*) after=${1#*=} ;;
    once=*) once=${1#*=} ;;
    skip) skip=yes ;;
    run_as=*) run_as=${1#*=} ;;
    run_as_password=*) run_as_password=${1#*=} ;;
    validate=*) validate=${1#*=} ;;
    esac
    shift
  done
  shift
  if [ -n "$only" ]; then
    "$@"
    code=$?
    printf '%s\n' "$result" >"$journal/result"
    exit "$code"
  fi
  if [ -n "$skip" ] || { [ -n "$after" ] && ! was_woken; }; then
    note_result Skipped
    return
  fi
  if [ -n "$once" ] && has_ended_its_run; then
    complain "$action ended run $run and counts as done"
    note_result Changed
    return
  fi
  before_change || {
    complain "$marks cannot be written"
    exit 1
  }
  while :; do
    result=Changed
    [ ! -e "$journal/diff" ] || rm -f "$journal/diff"
    if [ -z "$limit" ]; then "$@"; else within_limit; fi
    code=$?
    # The actions on files enter directories and hold files open.
    cd -- "$began" 2>/dev/null || cd /
    exec 4<&- 5<&-
    text=
    [ "$code" != 0 ] && [ "$attempt" -lt "$retries" ] && [ "$mode" = apply ] || break
    attempt=$((attempt + 1))
    complain "$action failed with code $code; attempt $((attempt + 1)) of $((retries + 1)) follows in $pause s"
    sleep "$pause"
  done
  [ -z "$once" ] || [ "$mode" = check ] || end_once "$1"
  if [ "$code" != 0 ]; then
    # What is missing may be what an action before would have made.
    if [ "$mode" = check ] && [ "$would" != , ]; then
      note_result Unknown
      return
    fi
    note_result Failed
    exit "$code"
  fi
  after_change "$1"
  note_result "$result"
}

note_result() {
  printf '%s %s\n' "$1" "$action" >>"$journal/actions"
  if [ -s "$journal/diff" ]; then sed 's/^/	/' "$journal/diff" >>"$journal/actions"; fi
  [ ! -e "$journal/diff" ] || rm -f "$journal/diff"
}

# A change is marked before it is made, or a run that is killed would lose it. The marks stand till the phase succeeds, by
# name, since the actions may have moved until then.
before_change() {
  marked=yes
  [ "$mode" = apply ] || return 0
  [ -z "$once" ] || note_once begun || return
  [ -n "$mark" ] || return 0
  [ -e "$marks/$mark" ] || marked=
  mkdir -p "$marks" && true >"$marks/$mark"
}
after_change() {
  # A script says so each time that it runs.
  case $mode:$1:$result in *:Unchanged | apply:exec_:*) ;; *) would=$would$mark, ;; esac
  if [ "$mode" = apply ] && [ -n "$mark" ] && [ -z "$marked" ] && [ "$result" = Unchanged ]; then
    rm -f "$marks/$mark"
  fi
}
was_woken() {
  rest=$after,
  while [ -n "$rest" ]; do
    case $would in *",${rest%%,*},"*) return 0 ;; esac
    [ -n "${1-}" ] || [ ! -e "$marks/${rest%%,*}" ] || return 0
    rest=${rest#*,}
  done
  return 1
}

# What listens for a change may restart the machine, or end its own run otherwise: then nobody notes that it was done, and it
# would be done again in each run. So it is noted before that it begins. It counts as done where the run, of the same phase as
# declared, was ended by nobody else, and nothing has changed anew in this one.
note_once() { mkdir -p "$marks" && echo "$1 ${journal##*/}" >"$marks/$once,"; }
# It did not fail where the end of its session reached it as HUP or TERM, or where its script's own shell was killed, which then
# got to none of its ends.
end_once() {
  case $code in
  0) note_once 'done' ;;
  129 | 143) ;;
  *)
    if [ "$1$run_as" != exec_ ] || [ "$code" -le 128 ] || [ -e "$journal/exited" ]; then rm -f "$marks/$once,"; fi
    ;;
  esac
}
has_ended_its_run() {
  [ "$mode" = apply ] && ! was_woken anew || return 1
  {
    read -r how run <"$marks/$once," && read -r word verdict rest <"${journal%/*}/$run/state" &&
      read -r witness name try former rest <"${journal%/*}/$run/meta" && read -r witness name try digest rest <"$journal/meta"
  } 2>/dev/null || return 1
  case $how:$word:$verdict in *:running:* | begun:ended:exit:*) [ "$former" = "$digest" ] ;; *) return 1 ;; esac
}
succeed() {
  if [ "$mode" = apply ] && [ -e "$marks" ]; then rm -rf "$marks"; fi
  exit 0
}

# within_limit: the present action in a process of its own, which is ended with all that it started when $limit is over. It is
# this script once more, which does this one action only: what is merely forked has no environment to be found by.
within_limit() {
  rm -f "$journal/result" "$journal/late"
  printf '%s' "$secrets" |
    PALLET_ACTION=${PALLET_RUN}_${number}_${attempt}_ PALLET_ONLY=$number PALLET_JOURNAL=$journal sh "$journal/script" &
  child=$!
  (
    begin_ticks
    while [ "$limit" -gt 0 ]; do
      tick_
      limit=$((limit - 1))
      kill -0 "$child" 2>/dev/null || exit 0
    done
    true >"$journal/late"
    end_tree "$child"
  ) </dev/null >/dev/null 2>&1 &
  watch=$!
  wait "$child" 2>/dev/null
  code=$?
  # It may be in the midst of it: the child is the first to go.
  [ -e "$journal/late" ] || kill "$watch" 2>/dev/null
  wait "$watch" 2>/dev/null
  if [ -e "$journal/late" ]; then
    rm -f "$journal/late"
    end_tree "$child"
    complain "$action took longer than $limit s; its processes were ended"
    return 124
  fi
  { read -r result <"$journal/result"; } 2>/dev/null
  rm -f "$journal/result"
  return "$code"
}

# begin_ticks, tick_: seconds, in a subshell that is ended by TERM. The sleep is ended and waited for, since process 1 of a container
# may be one that buries nobody; what has not come to its exec yet may lose any signal but KILL.
begin_ticks() {
  slept=$!
  trap '[ "$!" = "$slept" ] || { kill -s KILL "$!"; wait "$!"; }; exit 0' TERM
}
tick_() {
  sleep 1 &
  wait "$!"
  slept=$!
}

# end_tree PID: ends a process, its children and theirs, and what has left them but carries the name of the action.
end_tree() {
  tree=" $1 " grown=
  while [ "$grown" != "$tree" ]; do
    grown=$tree
    for stat in /proc/[0-9]*/stat; do
      { read -r line <"$stat"; } 2>/dev/null || continue
      process=${line%% *} line=${line##*) }
      line=${line#* }
      case "$tree" in *" $process "*) ;; *" ${line%% *} "*) tree="$tree$process " ;; esac
    done
  done
  for process in $tree; do kill -s KILL "$process" 2>/dev/null; done
  # More than once, since one that is being ended may have forked meanwhile.
  for pass in 1 2 3 4 5; do
    strays=$(grep -ls "PALLET_ACTION=${PALLET_RUN}_${number}_${attempt}_" /proc/[0-9]*/environ)
    [ -n "$strays" ] || return 0
    for environ in $strays; do
      # A number that was found a while ago may be another process's by now.
      grep -qs "PALLET_ACTION=${PALLET_RUN}_${number}_${attempt}_" "$environ" || continue
      process=${environ#/proc/}
      kill -s KILL "${process%/environ}" 2>/dev/null
    done
  done
}

# manual_ MESSAGE: the run ends here. The marks stand: what listens for a change comes behind it.
manual_() {
  if [ "$mode" = check ]; then
    result=Waiting
    return 0
  fi
  printf '%s\n' "$1"
  note_result Waiting
  exit 0
}

has_command() { command -v "$1" >/dev/null 2>&1; }
complain() { printf 'pallet: %s\n' "$*" >&2; }

# take_secrets: they come on stdin as assignments of variables, each a format for printf. No variable is exported before an
# action asks for it.
take_secrets() {
  secrets=$(cat) && eval "$secrets" || exit 1
  exec </dev/null
}

# forget_secrets: the script of an action sees none but those that it asked for.
forget_secrets() { secrets=; }

# lend_secrets NAME VARIABLE...: puts secrets into the environment of the present subshell.
lend_secrets() {
  while [ "$#" -gt 0 ]; do
    eval "value=\$(printf \"\$$2\"; echo .)"
    eval "export $1=\"\${value%.}\""
    shift 2
  done
  value=
}

# with_env_ COUNT [NAME VALUE]... FUNCTION ARGUMENT...: the function with so many variables in its environment.
with_env_() {
  count=$1 restore=
  shift
  while [ "$count" -gt 0 ]; do
    # As it was: unset, of the shell alone, or exported.
    eval "was=\${$1+set} value=\${$1-}"
    if [ -z "$was" ]; then
      restore="$restore; unset $1"
    else
      restore="$restore; $1='$(printf '%s' "$value" | sed "s/'/'\\\\''/g")'"
    fi
    export "$1=$2"
    shift 2
    count=$((count - 1))
  done
  "$@"
  count=$?
  eval "${restore#; }"
  return "$count"
}

# exec_ SCRIPT CREATES UNLESS ONLY_IF [NAME VARIABLE]...: the script stops at its first failing command. What it would change
# cannot be told before: where nothing keeps it from running, it would.
exec_() {
  script=$1 creates=$2 unless=$3 only_if=$4
  shift 4
  if [ -n "$run_as" ]; then
    can_become_ || return
    if [ -n "$creates" ] && as_other_ "[ -e '$(printf %s "$creates" | sed "s/'/'\\\\''/g")' ]" >/dev/null 2>&1; then
      result=Unchanged
      return 0
    fi
    if [ -n "$unless" ] && as_other_ "$unless" "$@" >/dev/null 2>&1; then
      result=Unchanged
      return 0
    fi
    if [ -n "$only_if" ] && ! as_other_ "$only_if" "$@" >/dev/null 2>&1; then
      result=Unchanged
      return 0
    fi
    [ "$mode" = apply ] || return 0
    as_other_ "set -e
$script" "$@"
    return
  fi
  if [ -n "$creates" ] && [ -e "$creates" ]; then
    result=Unchanged
    return 0
  fi
  if [ -n "$unless" ] && (
    lend_secrets "$@"
    forget_secrets
    set --
    eval "$unless"
  ) >/dev/null 2>&1; then
    result=Unchanged
    return 0
  fi
  if [ -n "$only_if" ] && ! (
    lend_secrets "$@"
    forget_secrets
    set --
    eval "$only_if"
  ) >/dev/null 2>&1; then
    result=Unchanged
    return 0
  fi
  [ "$mode" = apply ] || return 0
  rm -f "$journal/exited"
  (
    # shellcheck disable=SC2064 # the name of now
    [ -z "$once" ] || trap "true >'$journal/exited'" EXIT
    lend_secrets "$@"
    forget_secrets
    set --
    set -e
    eval "$script"
  )
}
