# file_ PATH CONTENT MODE OWNER GROUP
file_() { put_file "$1" "$3" "$4" "$5" printf %s "$2"; }

# directory_ PATH MODE OWNER GROUP. An empty mode: 755 for a new one, else as it is.
directory_() {
  file_mode=$2 before=
  owner=$(number_of passwd "$3") && group=$(number_of group "$4") || return 1
  if [ -d "$1" ]; then
    before=$(stat -L -c %a:%u:%g "$1") || return 1
    if [ "$before" = "${file_mode:-${before%%:*}}:${owner:-"$(stat -L -c %u "$1")"}:${group:-"${before##*:}"}" ]; then
      result=Unchanged
      return 0
    fi
  elif [ -e "$1" ] || [ -L "$1" ]; then
    complain "directory: $1 is there and is no directory; remove it in an action before"
    return 1
  fi
  result=Changed
  [ "$mode" = apply ] || return 0
  if [ -z "$before" ]; then
    (umask 022; mkdir -p -- "$1") || return 1
    file_mode=${file_mode:-755}
  fi
  dress_file "$1"
}

# symlink_ PATH TARGET
symlink_() {
  if [ -L "$1" ]; then
    if [ "$(readlink "$1")" = "$2" ]; then result=Unchanged; return 0; fi
  elif [ -e "$1" ]; then
    complain "symlink: $1 is there and is no link; remove it in an action before"
    return 1
  fi
  has_directory "$1" || return 1
  [ "$mode" = apply ] || return 0
  ln -sfn -- "$2" "$1"
}

# put_file PATH MODE OWNER GROUP COMMAND...: the file holds what the command prints, each time that it is asked. An empty
# mode, owner or group: as it is; 644 for a new file. It is replaced in one step, and never written to through a link.
put_file() {
  file=$1 file_mode=$2 owner=$3 group=$4 result=Changed was=
  shift 4
  settle_file || return 1
  if [ -n "$was" ] && [ "$was" = "$file_mode:$owner:$group" ] && file_holds "$@"; then
    result=Unchanged
    return 0
  fi
  show_diff "$@"
  [ "$mode" = apply ] || return 0
  make_room && "$@" >"$room/new" && place_file
  code=$?
  rm -rf "$room"
  return "$code"
}

# no_file PATH: no such file is there.
no_file() {
  file=$1 file_mode=644 was=
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then result=Unchanged; return 0; fi
  if [ -d "$1" ] && [ ! -L "$1" ]; then complain "$1 is a directory; remove it in an action before"; return 1; fi
  result=Changed
  if [ -f "$1" ]; then
    was=$(stat -L -c %a "$1")
    show_diff true
  fi
  [ "$mode" = apply ] || return 0
  rm -f -- "$1"
}

# settle_file: $was becomes what $file has, $file_mode, $owner and $group what it is to have.
settle_file() {
  if [ -d "$file" ]; then complain "$file is a directory; remove it in an action before"; return 1; fi
  if [ -e "$file" ] && [ ! -f "$file" ]; then
    complain "$file is there and is no file; remove it in an action before"
    return 1
  fi
  has_directory "$file" || return 1
  owner=$(number_of passwd "$owner") && group=$(number_of group "$group") || return 1
  if [ -f "$file" ]; then
    was=$(stat -L -c %a:%u:%g "$file") || return 1
    group=${group:-${was##*:}} ids=${was#*:}
    owner=${owner:-${ids%:*}}
    file_mode=${file_mode:-${was%%:*}}
  fi
  file_mode=${file_mode:-644}
}

# count_change: what a step of several did counts for the whole, which is in $changed.
count_change() { [ "$result" = Unchanged ] || changed=Changed; }

has_directory() {
  [ ! -d "${1%/*}/" ] || return 0
  complain "the directory ${1%/*} is not there; make it in an action before"
  return 1
}

# file_holds COMMAND...: $file holds what the command prints. Not every node has cmp.
file_holds() {
  if has_command cmp; then
    "$@" | cmp -s - "$file"
  else
    [ "$("$@" | cksum)" = "$(cksum <"$file")" ]
  fi
}

# make_room: a directory beside $file whose name cannot be foreseen and that nobody else can reach into, since the place
# may be one that others write to. What a run that was killed has left goes first; there is one run at a time.
make_room() {
  for room in "${file%/*}"/.pallet.*; do
    [ ! -d "$room" ] || [ -L "$room" ] || [ ! -O "$room" ] || rm -rf "$room"
  done
  { read -r fresh </proc/sys/kernel/random/uuid; } 2>/dev/null || fresh=$$.$(date +%s)
  room=${file%/*}/.pallet.$fresh
  (umask 077; mkdir "$room")
}

# place_file: what is in the room becomes the file.
place_file() {
  dress_file "$room/new" || return 1
  mv -f "$room/new" "$file" 2>/dev/null && return 0
  # A file that is a mount of its own (/etc/hosts in a pod) cannot be replaced, only rewritten.
  [ ! -L "$file" ] && cat "$room/new" >"$file" && dress_file "$file"
}

# The mode comes last, since a change of owner takes set-user-ID away. With zeros before it, or GNU's chmod leaves a
# directory its set-group-ID.
dress_file() {
  [ -z "$owner" ] || [ "$(stat -L -c %u "$1")" = "$owner" ] || chown "$owner" "$1" || return 1
  [ -z "$group" ] || [ "$(stat -L -c %g "$1")" = "$group" ] || chgrp "$group" "$1" || return 1
  [ -z "$file_mode" ] || [ "$(stat -L -c %a "$1")" = "$file_mode" ] || chmod "00$file_mode" "$1"
}

# show_diff COMMAND...: what would become of $file, where everybody may read it before and after.
show_diff() {
  [ -z "${hidden-}" ] && has_command diff || return 0
  case ${was%%:*} in '' | *[4567]) ;; *) return 0 ;; esac
  case $file_mode in *[4567]) ;; *) return 0 ;; esac
  is_public "${file%/*}/" || return 0
  old=$file
  [ -n "$was" ] || old=/dev/null
  [ "$(($(wc -c <"$old")))" -le 262144 ] && [ "$(($("$@" | wc -c)))" -le 262144 ] || return 0
  "$@" | diff -u -L "a$file" -L "b$file" "$old" - >"$journal/diff.all" 2>/dev/null
  # Anything else is a word about binary files.
  { read -r line <"$journal/diff.all"; } 2>/dev/null
  case $line in "--- "*)
    cat "$journal/diff.all" >>"$journal/diff"
    head -n 40 "$journal/diff" >"$journal/diff.all"
    dd bs=1024 count=1 <"$journal/diff.all" >"$journal/diff" 2>/dev/null
    ;;
  esac
  rm -f "$journal/diff.all"
}

# is_public DIRECTORY: everybody may enter it.
is_public() {
  above=$(cd -P -- "$1" 2>/dev/null && pwd -P) || return 1
  while :; do
    case $(stat -c %a "$above/.") in *[1357]) ;; *) return 1 ;; esac
    [ -n "$above" ] || return 0
    above=${above%/*}
  done
}

# number_of passwd|group NAME: prints its number. A number and nothing stand for themselves.
number_of() {
  case $2 in *[!0-9]*) ;; *) printf '%s\n' "$2"; return 0 ;; esac
  found=$(entry_of "$1" "$2") || { complain "$2 is not in the node's $1; add it in an action before"; return 1; }
  found=${found#*:*:}
  printf '%s\n' "${found%%:*}"
}

# entry_of passwd|group NAME: prints its line.
entry_of() {
  if has_command getent; then getent "$1" "$2"; return; fi
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in "$2":*) printf '%s\n' "$line"; return 0 ;; esac
  done <"/etc/$1"
  return 1
}
