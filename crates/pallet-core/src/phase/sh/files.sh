# file_ PATH CONTENT MODE OWNER GROUP
file_() { put_file "$1" "$3" "$4" "$5" printf %s "$2"; }

# directory_ PATH MODE OWNER GROUP PARENTS. An empty mode: 755 for a new one, else as it is. PARENTS, unless it is empty: those
# that are made on the way get the owner and the group, too.
directory_() {
  file_mode=$2 before=
  owner=$(number_of passwd "$3") && group=$(number_of group "$4") || return 1
  if [ -d "$1" ]; then
    enter_directory "$1" && before=$(stat -c %a:%u:%g .) || return 1
    ids=${before#*:}
    if [ "$before" = "${file_mode:-${before%%:*}}:${owner:-"${ids%:*}"}:${group:-"${before##*:}"}" ]; then
      result=Unchanged
      return 0
    fi
  elif [ -e "$1" ] || [ -L "$1" ]; then
    complain "directory: $1 is there and is no directory; remove it in an action before"
    return 1
  fi
  result=Changed
  [ "$mode" = apply ] || return 0
  if [ -n "$before" ]; then
    dress_file .
    return
  fi
  wanted_mode=${file_mode:-755} file_mode= top=$1
  while
    above=${top%/*}
    [ -n "$above" ] && [ ! -d "$above" ]
  do top=$above; done
  enter_directory "${top%/*}/" || return 1
  rest=${1#"${top%/*}"}
  while
    rest=${rest#/}
    [ -n "$rest" ]
  do
    each=${rest%%/*}
    [ "$each" != "$rest" ] || file_mode=$wanted_mode
    rest=${rest#"$each"}
    case $each in '' | .) continue ;; esac
    [ -d "./$each" ] || (
      umask 022
      mkdir "./$each"
    ) || return 1
    look_around && step_into "$each" || return 1
    if [ -n "$file_mode" ] || [ -n "${5-}" ]; then dress_file . || return 1; fi
  done
}

# no_directory PATH: no such directory is there, nor what was in it. What is mounted there is somebody else's.
no_directory() {
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then
    result=Unchanged
    return 0
  fi
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
  file=$1
  enter_parent && rm -rf "./$entry"
}

# symlink_ PATH TARGET
symlink_() {
  file=$1
  if [ -L "$1" ]; then
    if [ "$(readlink "$1")" = "$2" ]; then
      result=Unchanged
      return 0
    fi
  elif [ -e "$1" ]; then
    complain "symlink: $1 is there and is no link; remove it in an action before"
    return 1
  fi
  enter_parent || return 1
  [ "$mode" = apply ] || return 0
  make_room && ln -s -- "$2" ./new && move_out
  code=$?
  leave_room
  return "$code"
}

# no_symlink PATH: no such link is there.
no_symlink() {
  if [ -L "$1" ]; then
    file=$1
    [ "$mode" = check ] || { enter_parent && rm -f "./$entry"; }
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
  leave_room
  return "$code"
}

# fill_room COMMAND...: what the command prints becomes the file once all of it is written. A secret that cannot have a room
# beside the file is written nowhere else.
fill_room() {
  if [ -n "$in_place" ] && [ -n "${hidden-}" ]; then
    [ -z "$validate" ] || {
      complain "$file cannot be validated: its directory cannot be written to, or it has hard links"
      return 1
    }
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
  if [ ! -e "$1" ] && [ ! -L "$1" ]; then
    result=Unchanged
    return 0
  fi
  if [ -d "$1" ] && [ ! -L "$1" ]; then
    complain "$1 is a directory; remove it in an action before"
    return 1
  fi
  result=Changed
  enter_parent && hold_file 4 || return 1
  if [ -n "$held" ]; then
    was=$(stat -L -c %a "$held")
    show_diff true
  fi
  [ "$mode" = apply ] || return 0
  rm -f "./$entry"
}

# settle_file: $was becomes what $file has, $file_mode, $owner and $group what it is to have.
settle_file() {
  if [ -d "$file" ]; then
    complain "$file is a directory; remove it in an action before"
    return 1
  fi
  if [ -e "$file" ] && [ ! -f "$file" ]; then
    complain "$file is there and is no file; remove it in an action before"
    return 1
  fi
  enter_parent && hold_file 4 || return 1
  owner=$(number_of passwd "$owner") && group=$(number_of group "$group") || return 1
  if [ -n "$held" ]; then
    was=$(stat -L -c %a:%u:%g "$held") || return 1
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

# file_holds COMMAND...: the file that is held open has what the command prints. Not every node has cmp.
file_holds() { is_printed "$held" "$@"; }
is_printed() {
  printed=$1
  shift
  if has_command cmp; then
    "$@" | cmp -s - "$printed"
  else
    [ "$("$@" | cksum)" = "$(cksum <"$printed")" ]
  fi
}

# enter_directory DIRECTORY: makes it the current directory, part by part. What has been entered cannot be exchanged, so the
# actions check it and then use names relative to it. Root follows no link that another user may have made, unless the
# link leads to a directory of the same user. $ours is set where only root and this user can exchange an entry.
enter_directory() {
  left=$1/ links=0
  me=$(id -u) || return 1
  if [ "$me" != 0 ]; then
    cd -P -- "$1" && look_around
    return
  fi
  cd / && look_around || return 1
  while [ -n "$left" ]; do
    part=${left%%/*} left=${left#*/}
    case $part in '' | .) continue ;; esac
    if [ -n "$ours" ] && [ -L "./$part" ]; then
      links=$((links + 1))
      [ "$links" -le 40 ] && part=$(readlink "./$part") || {
        complain "$1 cannot be entered: its links do not end"
        return 1
      }
      left=$part/$left
      case $part in /*) cd / && look_around || return 1 ;; esac
      continue
    fi
    step_into "$part" || return 1
  done
}

# step_into NAME: enters a directory in the current one.
step_into() {
  from=$here safe=$ours maker=$whose shared_from=$shared
  cd -P "./$1" && look_around || return 1
  [ "$me" = 0 ] && [ -z "$safe" ] && [ "$1" != .. ] && [ "$above" != "$from" ] || return 0
  [ -n "$shared_from" ] || [ "$maker" != "$whose" ] || return 0
  complain "$1 is a link that a user other than root may have made, to a directory that is not that user's: root does not follow it; replace it by a directory"
  return 1
}

# look_around: $here and $above are the identities of the current directory and its parent, $whose is its owner.
look_around() {
  # shellcheck disable=SC2046 # one word for each value
  set -- $(stat -c '%d:%i %u %a' . ..)
  [ "$#" = 6 ] || return 1
  here=$1 whose=$2 above=$4 ours= shared=
  case $3 in *[2367] | *[2367]?) shared=yes ;; *) case $whose in 0 | "$me") ours=yes ;; esac ;; esac
}

# enter_parent: the directory of $file becomes the current one, and $entry is the name of $file in it.
enter_parent() {
  has_directory "$file" && enter_directory "${file%/*}/" && entry=${file##*/}
}

# hold_file NUMBER: opens the entry, as that descriptor. $held names what was opened: its content and its attributes are those of
# one file, whatever takes its place. It is empty where there is no file, or a link that another user may have made.
hold_file() {
  held=
  [ -f "./$entry" ] || return 0
  may_follow || [ ! -L "./$entry" ] || return 0
  { eval "command exec $1<\"./\$entry\""; } 2>/dev/null || {
    # Who may not read a file may be allowed to replace it.
    may_follow || {
      complain "$file has changed meanwhile"
      return 1
    }
    held=$file
    return 0
  }
  held=/proc/self/fd/$1
  may_follow && return
  opened=$(stat -L -c %d:%i "$held")
  # $text is what lineInFile reads: its attributes are kept, and no other file's.
  if [ "$opened" != "$(stat -c %d:%i "./$entry")" ] || [ "$(stat -L -c %d:%i "${text:-"$held"}")" != "$opened" ]; then
    complain "$file has changed meanwhile"
    return 1
  fi
}

may_follow() { [ -n "$ours" ] || [ "$me" != 0 ]; }

# make_room: enters a new directory beside the entry, which belongs to this user and which nobody else can enter, since the
# place may be one that others write to. What a run that was killed has left goes first; there is one run at a time.
# $room is where the new content is, $spot the file as named from here. $in_place is set where the file has to be
# rewritten instead: $room is in the journal then, and the directory of the file stays the current one.
make_room() {
  for beside in .pallet.*; do
    [ ! -d "./$beside" ] || [ -L "./$beside" ] || [ ! -O "./$beside" ] || (enter_room && leave_room)
  done
  { read -r fresh </proc/sys/kernel/random/uuid; } 2>/dev/null || fresh=$$.$(date +%s)
  beside= in_place= room= spot=./$entry
  if has_links; then
    if is_ours; then
      in_place=yes
    else
      complain "$file has hard links, which keep the old content: others may write to its directory"
    fi
  fi
  if [ -z "$in_place" ]; then
    if said=$( (
      umask 077
      LC_ALL=C mkdir "./.pallet.$fresh"
    ) 2>&1); then
      beside=.pallet.$fresh
      if ! enter_room || [ -n "$(ls -A)" ]; then
        beside=
        complain "$file: another user exchanged the directory in which its new content was to be written"
        return 1
      fi
      room=. spot=../$entry
      return
    fi
    # Of a file that is there in a directory that cannot be written to, /etc/hosts of a pod for one.
    if [ ! -f "$spot" ] || [ -L "$spot" ] || [ ! -w "$spot" ] || ! is_ours "$said"; then
      complain "$said"
      return 1
    fi
  fi
  in_place=yes room=$journal/room
  rm -rf "$room"
  (
    umask 077
    mkdir "$room"
  )
}

# enter_room: enters $beside, where it is this user's own and in the current directory.
enter_room() {
  set -- "$(stat -c %d:%i .) $me"
  cd -P "./$beside" && [ "$(stat -c %d:%i ..) $(stat -c %u .)" = "$1" ] && chmod 700 .
}

# leave_room: it has no directories in it.
leave_room() {
  case $in_place:$beside in
  yes:*) rm -rf "$room" ;;
  :?*)
    rm -f ./* ./.[!.]*
    cd -P .. && rmdir "./$beside"
    ;;
  esac 2>/dev/null
}

# move_out: ./new becomes the entry of the directory that has the room. A link or a directory with its name is not
# followed: not every mv has -T.
move_out() {
  [ "$entry" = new ] || mv -f ./new "./$entry" || return 1
  said=$(LC_ALL=C mv -f "./$entry" ../ 2>&1) && return 0
  [ "$entry" = new ] || mv -f "./$entry" ./new
  return 1
}

has_links() { [ -f "$spot" ] && [ ! -L "$spot" ] && [ "$(stat -c %h "$spot")" -gt 1 ]; }

# is_ours SAID: nobody but root and this user can put a link in the place of $file. SAID is why its directory cannot be
# written to.
is_ours() {
  case ${1-} in *"Read-only file system"*)
    ! has_links
    return
    ;;
  esac
  [ -n "$ours" ]
}

# place_file: what is in the room becomes the file.
place_file() {
  validate_file || return 1
  if [ -z "$in_place" ]; then
    if [ -z "$was" ] || keep_attributes; then
      dress_file "$room/new" || return 1
      move_out && return 0
      # A file that is a mount of its own (/etc/hosts in a pod) cannot be replaced, only rewritten.
      case $said in *[Rr]"esource busy"*) [ ! -L "$spot" ] ;; *) false ;; esac || {
        complain "$said"
        return 1
      }
      is_ours || {
        complain "$file can only be rewritten in place, and others may write to its directory: $said"
        return 1
      }
    elif [ -L "$spot" ] || ! is_ours; then
      complain "the ACL or the extended attributes of $file cannot be kept, and others may write to its directory; remove them"
      return 1
    fi
  fi
  rewrite_file cat "$room/new"
}

# validate_file: the action's own check of what is in the room, which has the name of the file there, since some go by it.
validate_file() {
  [ -n "$validate" ] || return 0
  named=$room/$entry
  [ "$entry" = new ] || mv -f "$room/new" "$named" || return 1
  case $room in .) named=${file%/*}/$beside/$entry ;; esac
  quoted="'$(printf %s "$named" | sed "s/'/'\\\\''/g")'" left=$validate script=
  while :; do
    case $left in *%s*) script=$script${left%%%s*}$quoted left=${left#*%s} ;; *) break ;; esac
  done
  (
    forget_secrets
    set --
    cd -- "$began" || exit
    eval "$script$left"
  )
  code=$?
  [ "$entry" = new ] || mv -f "$room/$entry" "$room/new" || return 1
  [ "$code" = 0 ] || {
    complain "validate refuses the new content with code $code; $file is as it was"
    return 1
  }
}

# keep_attributes: what is in the room gets the ACL, the extended attributes and the SELinux type of $file. Where the node has
# neither GNU cp nor the tools for them nobody can tell whether there are any.
keep_attributes() {
  if cp --attributes-only --preserve=all --no-preserve=timestamps "$held" "$room/new" 2>/dev/null &&
    cp --attributes-only --preserve=mode,xattr "$held" "$room/new" 2>/dev/null; then
    return 0
  fi
  if has_command getfacl && has_command setfacl; then
    getfacl -cp "$held" | (cd "$room" && setfacl --set-file=- new) || return 1
  fi
  has_command getfattr || return 0
  attributes=$({ getfattr -d -m - --absolute-names "$held" || getfattr -d "$held"; } 2>/dev/null | sed '1s/.*/# file: new/')
  [ -z "$attributes" ] || printf '%s\n' "$attributes" | (cd "$room" && setfattr --restore=-) 2>/dev/null
}

# rewrite_file COMMAND...: $file itself gets what the command prints. It grows first, since there may be no room for it: then
# it is as it was.
rewrite_file() {
  [ -z "${hidden-}" ] || dress_file "$spot" || return 1
  had=$(($(wc -c <"$spot"))) size=$(($("$@" | wc -c)))
  if [ "$size" -gt "$had" ]; then
    if ! "$@" | tail -c "+$((had + 1))" >>"$spot" || [ "$(($(wc -c <"$spot")))" != "$size" ]; then
      cut_file "$had"
      complain "the new content could not be written; $file is as it was"
      return 1
    fi
  fi
  "$@" | dd of="$spot" conv=notrunc 2>/dev/null
  [ "$size" -ge "$had" ] || cut_file "$size"
  is_printed "$spot" "$@" || {
    complain "$file could not be written in whole; look at it"
    return 1
  }
  dress_file "$spot"
}

cut_file() { dd if=/dev/null of="$spot" bs=1 seek="$1" count=0 2>/dev/null; }

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
  old=$held
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
  case $2 in *[!0-9]*) ;; *)
    printf '%s\n' "$2"
    return 0
    ;;
  esac
  found=$(entry_of "$1" "$2") || {
    complain "$2 is not in the node's $1; add it in an action before"
    return 1
  }
  found=${found#*:*:}
  printf '%s\n' "${found%%:*}"
}

# entry_of passwd|group NAME: prints its line.
entry_of() {
  if has_command getent; then
    getent "$1" "$2"
    return
  fi
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in "$2":*)
      printf '%s\n' "$line"
      return 0
      ;;
    esac
  done <"/etc/$1"
  return 1
}
