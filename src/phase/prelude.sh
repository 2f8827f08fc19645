# What every phase script begins with. $PALLET_JOURNAL is the run's own directory.
journal=$PALLET_JOURNAL
unset PALLET_JOURNAL

# perform NAME KIND ARGS...: runs one action and notes what came of it. The first failure ends the phase with its code.
perform() {
  name=$1 result=Changed
  shift
  "$@"
  code=$?
  [ "$code" = 0 ] || result=Failed
  printf '%s %s\n' "$result" "$name" >>"$journal/actions"
  [ "$code" = 0 ] || exit "$code"
}

complain() { printf 'pallet: %s\n' "$*" >&2; }

# exec_ SCRIPT CREATES UNLESS ONLY_IF. The script stops at its first failing command.
exec_() {
  script=$1 creates=$2 unless=$3 only_if=$4
  set --
  if [ -n "$creates" ] && [ -e "$creates" ]; then result=Unchanged; return 0; fi
  if [ -n "$unless" ] && (eval "$unless") >/dev/null 2>&1; then result=Unchanged; return 0; fi
  if [ -n "$only_if" ] && ! (eval "$only_if") >/dev/null 2>&1; then result=Unchanged; return 0; fi
  (set -e; eval "$script")
}

# file_ PATH CONTENT MODE OWNER GROUP
file_() {
  if [ -d "$1" ]; then complain "file: $1 is a directory"; return 1; fi
  if [ ! -d "${1%/*}/" ]; then complain "file: the directory ${1%/*} is not there; make it in an action before"; return 1; fi
  temporary=$1.pallet.$$ owner=$4 group=$5
  if [ -e "$1" ]; then
    [ -n "$owner" ] || owner=$(stat -L -c %u "$1")
    [ -n "$group" ] || group=$(stat -L -c %g "$1")
  fi
  file_make "$@" && file_place "$@" && return 0
  code=$?
  rm -f "$temporary"
  return "$code"
}

file_make() {
  (umask 077; printf '%s' "$2" >"$temporary") && file_own "$temporary" && chmod "$3" "$temporary"
}

# Before the mode is set, since a change of owner takes set-user-ID away.
file_own() {
  [ -z "$owner" ] || [ "$(stat -c %u "$1")" = "$owner" ] || chown "$owner" "$1" || return 1
  [ -z "$group" ] || [ "$(stat -c %g "$1")" = "$group" ] || chgrp "$group" "$1"
}

file_place() {
  if [ -f "$1" ] && cmp -s "$temporary" "$1" && [ "$(stat -c %a:%u:%g "$temporary")" = "$(stat -L -c %a:%u:%g "$1")" ]; then
    result=Unchanged
    rm -f "$temporary"
    return 0
  fi
  mv -f "$temporary" "$1" 2>/dev/null && return 0
  # A file that is a mount of its own (/etc/hosts in a pod) cannot be replaced, only rewritten.
  cat "$temporary" >"$1" && file_own "$1" && chmod "$3" "$1" && rm -f "$temporary"
}

# gather NAME OPTIONAL KIND SOURCE: one fact. What it prints is bounded by the file size limit of the subshell, and cut to
# what the operator keeps.
gather() {
  case $3 in
  exec) (ulimit -f 64; set -e; script=$4; set --; eval "$script") >"$journal/fact" ;;
  file) (ulimit -f 64; cat "$4") >"$journal/fact" ;;
  esac
  code=$?
  if [ "$code" = 0 ]; then
    length=$(($(wc -c <"$journal/fact")))
    [ "$length" -le 4096 ] || length=4096
    {
      printf '%s ok %s\n' "$1" "$length" &&
        { [ "$length" = 0 ] || dd bs="$length" count=1 <"$journal/fact" 2>/dev/null; } &&
        printf '\n'
    } >>"$journal/facts" || exit 1
  elif [ "$2" = optional ]; then
    printf '%s null 0\n\n' "$1" >>"$journal/facts"
  else
    complain "fact $1 failed with code $code; mark it optional where it may"
    exit "$code"
  fi
}
