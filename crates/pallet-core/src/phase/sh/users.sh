# Of shadow (useradd and the like) or, where the node has none of it, of busybox (adduser and the like).

# group_ STATE NAME GID SYSTEM
group_() {
  name=$2 gid=$3 there=$(entry_of group "$2")
  if [ "$1" = absent ]; then
    if [ -z "$there" ]; then
      result=Unchanged
      return 0
    fi
    has_either groupdel delgroup || return 1
    [ "$mode" = apply ] || return 0
    if has_command groupdel; then groupdel "$name"; else delgroup "$name"; fi
    return
  fi
  if [ -z "$there" ]; then
    has_either groupadd addgroup || return 1
    [ "$mode" = check ] || make_group "$name" "$gid" "$4"
    return
  fi
  there=${there#*:*:}
  if [ -z "$gid" ] || [ "${there%%:*}" = "$gid" ]; then
    result=Unchanged
    return 0
  fi
  has_command groupmod || {
    cannot_change groupmod "the number of the group $name"
    return 1
  }
  [ "$mode" = check ] || groupmod -g "$gid" "$name"
}

# make_group NAME GID SYSTEM
make_group() {
  if has_command groupadd; then
    groupadd ${2:+-g "$2"} ${3:+-r} "$1"
  else
    addgroup ${2:+-g "$2"} ${3:+-S} "$1"
  fi
}

has_either() {
  has_command "$1" || has_command "$2" || {
    complain "the node has neither $1 nor $2; install shadow (passwd, shadow-utils) in an action before"
    return 1
  }
}

cannot_change() {
  complain "the node has no $1, without which $2 cannot be changed; install shadow (passwd, shadow-utils) in an action before"
}

# user_ STATE NAME UID GROUP GROUPS HOME SHELL COMMENT SYSTEM HAS_KEYS KEYS
user_() {
  name=$2 uid=$3 primary=$4 groups=$5 home=$6 login_shell=$7 comment=$8 system=$9 changed=Unchanged
  there=$(entry_of passwd "$name")
  if [ "$1" = absent ]; then
    if [ -z "$there" ]; then
      result=Unchanged
      return 0
    fi
    has_either userdel deluser || return 1
    [ "$mode" = apply ] || return 0
    if has_command userdel; then userdel "$name"; else deluser "$name"; fi
    return
  fi
  shift 9
  each_group known_group || return 1
  if [ -z "$there" ]; then
    has_either useradd adduser || return 1
    [ "$mode" = apply ] || return 0
    add_user || return 1
    changed=Changed
  else
    change_user || return 1
  fi
  own_home "$1" && { [ -z "$1" ] || put_keys "$2"; } || return 1
  result=$changed
}

# each_group COMMAND...: for each of $groups, and for the primary one where it is named; till one fails.
each_group() {
  rest=$primary,$groups,
  while [ -n "$rest" ]; do
    each=${rest%%,*} rest=${rest#*,}
    [ -z "$each" ] || "$@" "$each" || return 1
  done
}

known_group() {
  entry_of group "$1" >/dev/null || {
    complain "user: the group $1 is not there; make it in an action before"
    return 1
  }
}

# A password of "*" is none, as "!" is, but does not keep an sshd without PAM from taking a key.
add_user() {
  if has_command useradd; then
    if [ -z "$primary" ] && entry_of group "$name" >/dev/null; then primary=$name; fi
    if [ -n "$primary" ]; then own=; else own=-U; fi
    if [ -n "$system" ]; then make=-M; else make=-m; fi
    useradd -p '*' $own $make ${primary:+-g "$primary"} ${uid:+-u "$uid"} ${groups:+-G "$groups"} ${home:+-d "$home"} \
      ${login_shell:+-s "$login_shell"} ${comment:+-c "$comment"} ${system:+-r} "$name"
    return
  fi
  entry_of group "${primary:=$name}" >/dev/null || addgroup ${system:+-S} "$primary" || return 1
  adduser -D -G "$primary" ${uid:+-u "$uid"} ${home:+-h "$home"} ${login_shell:+-s "$login_shell"} \
    ${comment:+-g "$comment"} ${system:+-S -H} "$name" || return 1
  printf '%s:*\n' "$name" | chpasswd -e >/dev/null || return 1
  primary=
  each_group join_group
}

join_group() { addgroup "$name" "$1"; }

# The fields of its line, into $had_*.
had_fields() {
  had_uid=${there#*:*:}
  had_gid=${had_uid#*:}
  had_comment=${had_gid#*:}
  had_home=${had_comment#*:}
  had_shell=${had_home#*:}
  had_uid=${had_uid%%:*} had_gid=${had_gid%%:*} had_comment=${had_comment%%:*} had_home=${had_home%%:*}
}

# What the old home holds stays there.
change_user() {
  had_fields
  gid=
  if [ -n "$primary" ]; then gid=$(number_of group "$primary") || return 1; fi
  set --
  [ -z "$uid" ] || [ "$uid" = "$had_uid" ] || set -- -u "$uid"
  [ -z "$gid" ] || [ "$gid" = "$had_gid" ] || set -- "$@" -g "$gid"
  [ -z "$home" ] || [ "$home" = "$had_home" ] || set -- "$@" -d "$home"
  [ -z "$login_shell" ] || [ "$login_shell" = "$had_shell" ] || set -- "$@" -s "$login_shell"
  [ -z "$comment" ] || [ "$comment" = "$had_comment" ] || set -- "$@" -c "$comment"
  primary= missing=
  each_group look_for
  if [ $# != 0 ] && ! has_command usermod; then
    cannot_change usermod "the user $name ($*)"
    return 1
  fi
  if [ "$#$missing" != 0 ]; then
    changed=Changed
    if [ "$mode" = check ]; then
      :
    elif has_command usermod; then
      usermod "$@" ${missing:+-a -G "${missing#,}"} "$name" || return 1
    else
      groups=$missing
      each_group join_group || return 1
    fi
  fi
  if [ -n "$home" ] && [ -z "$system" ] && [ ! -d "$home" ]; then
    directory_ "$home" 700 "${uid:-"$had_uid"}" "${gid:-"$had_gid"}" && count_change
  fi
}

# look_for GROUP: adds it to $missing where the user is not in it.
look_for() {
  found=$(entry_of group "$1")
  found=${found#*:*:}
  case ",${found#*:}," in *",$name,"*) return 0 ;; esac
  [ "${found%%:*}" = "${gid:-"$had_gid"}" ] || missing=$missing,$1
}

# own_home HAS_KEYS: a home may be there from before, and belong to a number that is nobody's: it becomes the user's, and what is
# in it stays as it is. One that is somebody else's is not taken away, but the user has to get in.
own_home() {
  if [ -n "$system" ] || [ "$changed$mode" = Changedcheck ]; then return 0; fi
  there=$(entry_of passwd "$name")
  had_fields
  [ -d "$had_home" ] && theirs=$(stat -L -c %u:%g:%a "$had_home") && whose=$(stat -L -c %U "$had_home") || return 0
  case $theirs in "$had_uid":*) return 0 ;; esac
  if [ "$whose" = UNKNOWN ]; then
    owner=$had_uid group=$had_gid file_mode= changed=Changed
    [ "$mode" = check ] || { enter_directory "$had_home" && dress_file .; }
    return
  fi
  # sshd takes no keys from a home that is another user's.
  case $1:$theirs in
  *:0:*:*[1357] | :*[1357]) return 0 ;;
  *:0:*:*[1357]? | :*[1357]?)
    theirs=${theirs#*:}
    case " $(id -G "$name") " in *" ${theirs%:*} "*) return 0 ;; esac
    ;;
  esac
  complain "user: $had_home belongs to $whose, and $name cannot use it; set home, or its owner by directory in an action before"
  return 1
}

# put_keys KEYS: what a look cannot see yet would be made.
put_keys() {
  keys=$1 there=$(entry_of passwd "$name")
  had_fields
  home=${home:-"$had_home"}
  if [ "$changed$mode" = Changedcheck ]; then return 0; fi
  if [ ! -d "$home" ]; then
    complain "user: $home is not there to keep authorized_keys in; make it in an action before"
    return 1
  fi
  # The user may have made it one, and root would follow it.
  if [ -L "$home/.ssh" ]; then
    complain "user: $home/.ssh is a link; replace it by a directory"
    return 1
  fi
  directory_ "$home/.ssh" 700 "$had_uid" "$had_gid" && count_change || return 1
  if [ "$changed$mode" = Changedcheck ]; then return 0; fi
  put_file "$home/.ssh/authorized_keys" 600 "$had_uid" "$had_gid" printf %s "$keys" && count_change
}
