# file_ PATH CONTENT MODE OWNER GROUP
file_() { put_file "$1" "$3" "$4" "$5" printf %s "$2"; }

# directory_ PATH MODE OWNER GROUP PARENTS. An empty mode: 755 for a new one, else as it is. PARENTS, unless it is empty: those
# that are made on the way get the owner and the group, too.
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
  if [ -n "$before" ]; then dress_file "$1"; return; fi
  each=$1 top=$1 file_mode=${file_mode:-755}
  while above=${top%/*}; [ -n "$above" ] && [ ! -d "$above" ]; do top=$above; done
  (umask 022; mkdir -p -- "$1") && dress_file "$1" || return 1
  [ -n "${5-}" ] || return 0
  # From within: whom the one above belongs to can put a link in its place.
  file_mode=
  while [ "$each" != "$top" ]; do
    each=${each%/*}
    dress_file "$each" || return 1
  done
}

# no_directory PATH: no such directory is there, nor what was in it. What is mounted there is somebody else's.
no_directory() {
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then result=Unchanged; return 0; fi
  if [ ! -d "$1" ] || [ -L "$1" ]; then
    complain "directory: $1 is no directory; remove it with file or symlink and state: absent"
    return 1
  fi
  gone=$(cd -P -- "$1" && pwd -P) || return 1
  while read -r id parent device root point rest; do
    # Blanks are written as \040 there.
    case $point in *\\*) point=$(printf %b "$(printf '%s\n' "$point" | sed 's/\\/\\0/g')") ;; esac
    case $point/ in "$gone"/*)
      complain "directory: $point is mounted in $1; unmount it in an action before"
      return 1
      ;;
    esac
  done </proc/self/mountinfo
  [ "$mode" = apply ] || return 0
  rm -rf -- "$1"
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
  # Not every ln makes the new link before it removes the old one.
  file=$1
  make_room && ln -s -- "$2" "$room/new" && { mv -fT "$room/new" "$1" 2>/dev/null || ln -sfn -- "$2" "$1"; }
  code=$?
  rm -rf "$room"
  return "$code"
}

# no_symlink PATH: no such link is there.
no_symlink() {
  if [ -L "$1" ]; then
    [ "$mode" = check ] || rm -f -- "$1"
  elif [ -e "$1" ]; then
    complain "symlink: $1 is there and is no link; remove it in an action before"
    return 1
  else
    result=Unchanged
  fi
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
  make_room && fill_room "$@"
  code=$?
  rm -rf "$room"
  return "$code"
}

# fill_room COMMAND...: what the command prints becomes the file once all of it is written. A secret that cannot have a room
# beside the file is written nowhere else.
fill_room() {
  if [ -n "$in_place" ] && [ -n "${hidden-}" ]; then
    [ -z "$validate" ] || { complain "$file cannot be validated: its directory cannot be written to, or it has hard links"; return 1; }
    rewrite_file "$@"
    return
  fi
  if ! "$@" >"$room/new" || ! is_printed "$room/new" "$@"; then
    complain "the new content could not be written; $file is as it was"
    return 1
  fi
  place_file
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
file_holds() { is_printed "$file" "$@"; }
is_printed() {
  printed=$1
  shift
  if has_command cmp; then
    "$@" | cmp -s - "$printed"
  else
    [ "$("$@" | cksum)" = "$(cksum <"$printed")" ]
  fi
}

# make_room: a directory beside $file whose name cannot be foreseen and that nobody else can reach into, since the place
# may be one that others write to. What a run that was killed has left goes first; there is one run at a time.
# $in_place is set where the file has to be rewritten instead: the room is in the journal then.
make_room() {
  for room in "${file%/*}"/.pallet.*; do
    [ ! -d "$room" ] || [ -L "$room" ] || [ ! -O "$room" ] || rm -rf "$room"
  done
  { read -r fresh </proc/sys/kernel/random/uuid; } 2>/dev/null || fresh=$$.$(date +%s)
  room=${file%/*}/.pallet.$fresh in_place=
  if has_links; then
    if is_ours; then
      in_place=yes
    else
      complain "$file has hard links, which keep the old content: others may write to its directory"
    fi
  fi
  if [ -z "$in_place" ]; then
    said=$( (umask 077; LC_ALL=C mkdir "$room") 2>&1) && return 0
    # Of a file that is there in a directory that cannot be written to, /etc/hosts of a pod for one.
    if [ ! -f "$file" ] || [ -L "$file" ] || [ ! -w "$file" ] || ! is_ours "$said"; then complain "$said"; return 1; fi
  fi
  in_place=yes room=$journal/room
  rm -rf "$room"
  (umask 077; mkdir "$room")
}

has_links() { [ -f "$file" ] && [ ! -L "$file" ] && [ "$(stat -c %h "$file")" -gt 1 ]; }

# is_ours SAID: nobody but root and this user can put a link in the place of $file. SAID is why its directory cannot be
# written to.
is_ours() {
  case ${1-} in *"Read-only file system"*) ! has_links; return ;; esac
  case $(stat -L -c %u:%a "${file%/*}/") in
  *[2367] | *[2367]?) return 1 ;;
  0:* | "$(id -u)":*) ;;
  *) return 1 ;;
  esac
}

# place_file: what is in the room becomes the file.
place_file() {
  validate_file || return 1
  if [ -z "$in_place" ]; then
    if [ -z "$was" ] || keep_attributes; then
      dress_file "$room/new" || return 1
      said=$(LC_ALL=C mv -f "$room/new" "$file" 2>&1) && return 0
      # A file that is a mount of its own (/etc/hosts in a pod) cannot be replaced, only rewritten.
      case $said in *[Rr]"esource busy"*) [ ! -L "$file" ] ;; *) false ;; esac || { complain "$said"; return 1; }
    elif [ -L "$file" ] || ! is_ours; then
      complain "the ACL or the extended attributes of $file cannot be kept, and others may write to its directory; remove them"
      return 1
    fi
  fi
  rewrite_file cat "$room/new"
}

# validate_file: the action's own check of what is in the room, which has the name of the file there, since some go by it.
validate_file() {
  [ -n "$validate" ] || return 0
  named=$room/${file##*/}
  [ "$named" = "$room/new" ] || mv -f "$room/new" "$named" || return 1
  quoted="'$(printf %s "$named" | sed "s/'/'\\\\''/g")'" left=$validate script=
  while :; do
    case $left in *%s*) script=$script${left%%%s*}$quoted left=${left#*%s} ;; *) break ;; esac
  done
  (forget_secrets; set --; eval "$script$left")
  code=$?
  [ "$named" = "$room/new" ] || mv -f "$named" "$room/new" || return 1
  [ "$code" = 0 ] || { complain "validate refuses the new content with code $code; $file is as it was"; return 1; }
}

# keep_attributes: what is in the room gets the ACL, the extended attributes and the SELinux type of $file. Where the node has
# neither GNU cp nor the tools for them nobody can tell whether there are any.
keep_attributes() {
  if cp --attributes-only --preserve=all --no-preserve=timestamps "$file" "$room/new" 2>/dev/null &&
    cp --attributes-only --preserve=mode,xattr "$file" "$room/new" 2>/dev/null; then
    return 0
  fi
  if has_command getfacl && has_command setfacl; then
    getfacl -cp "$file" | (cd "$room" && setfacl --set-file=- new) || return 1
  fi
  has_command getfattr || return 0
  attributes=$({ getfattr -d -m - --absolute-names "$file" || getfattr -d "$file"; } 2>/dev/null | sed '1s/.*/# file: new/')
  [ -z "$attributes" ] || printf '%s\n' "$attributes" | (cd "$room" && setfattr --restore=-) 2>/dev/null
}

# rewrite_file COMMAND...: $file itself gets what the command prints. It grows first, since there may be no room for it: then
# it is as it was.
rewrite_file() {
  [ -z "${hidden-}" ] || dress_file "$file" || return 1
  had=$(($(wc -c <"$file"))) size=$(($("$@" | wc -c)))
  if [ "$size" -gt "$had" ]; then
    if ! "$@" | tail -c "+$((had + 1))" >>"$file" || [ "$(($(wc -c <"$file")))" != "$size" ]; then
      cut_file "$had"
      complain "the new content could not be written; $file is as it was"
      return 1
    fi
  fi
  "$@" | dd of="$file" conv=notrunc 2>/dev/null
  [ "$size" -ge "$had" ] || cut_file "$size"
  file_holds "$@" || { complain "$file could not be written in whole; look at it"; return 1; }
  dress_file "$file"
}

cut_file() { dd if=/dev/null of="$file" bs=1 seek="$1" count=0 2>/dev/null; }

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
