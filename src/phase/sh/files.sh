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

# directory_ PATH MODE OWNER GROUP. An empty mode: 755 for a new one, else as it is.
directory_() {
  mode=$2 owner=$3 group=$4 before=
  if [ -d "$1" ]; then
    before=$(stat -L -c %a:%u:%g "$1")
  elif [ -e "$1" ] || [ -L "$1" ]; then
    complain "directory: $1 is there and is no directory; remove it in an action before"
    return 1
  else
    (umask 022; mkdir -p "$1") || return 1
    [ -n "$mode" ] || mode=755
  fi
  file_own "$1" || return 1
  [ -z "$mode" ] || [ "$(stat -L -c %a "$1")" = "$mode" ] || chmod "$mode" "$1" || return 1
  [ "$before" != "$(stat -L -c %a:%u:%g "$1")" ] || result=Unchanged
}

# symlink_ PATH TARGET
symlink_() {
  if [ -L "$1" ]; then
    if [ "$(readlink "$1")" = "$2" ]; then result=Unchanged; return 0; fi
  elif [ -e "$1" ]; then
    complain "symlink: $1 is there and is no link; remove it in an action before"
    return 1
  fi
  if [ ! -d "${1%/*}/" ]; then complain "symlink: the directory ${1%/*} is not there; make it in an action before"; return 1; fi
  ln -sfn "$2" "$1"
}

file_make() {
  (umask 077; printf '%s' "$2" >"$temporary") && file_own "$temporary" && chmod "$3" "$temporary"
}

# Before the mode is set, since a change of owner takes set-user-ID away.
file_own() {
  [ -z "$owner" ] || [ "$(stat -L -c %u "$1")" = "$owner" ] || chown "$owner" "$1" || return 1
  [ -z "$group" ] || [ "$(stat -L -c %g "$1")" = "$group" ] || chgrp "$group" "$1"
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
