# shellcheck shell=bash
# The commands, as people and tests call them.

# How many hosts are worked on at once: most of it is starting small programs.
AT_ONCE=8

each() { # FUNCTION NAME...: fails if it failed for one
  local name running=0 failed=0
  for name in "${@:2}"; do
    if ((running >= AT_ONCE)); then
      wait -n || failed=1
      running=$((running - 1))
    fi
    ("$1" "$name") &
    running=$((running + 1))
  done
  while ((running > 0)); do
    wait -n || failed=1
    running=$((running - 1))
  done
  return "$failed"
}

use_tree() {
  TREE=$(tree_dir) || TREE=/nonexistent
  [[ -d $TREE ]] || die "the tree of the hosts is not there; build it outside of the namespaces: $0 build"
}

# Directories are how names are reserved: whoever makes one has it.
reserve() { # HOW_MANY PREFIX HOST_FILE: sets NEW
  local i=0
  NEW=()
  while ((${#NEW[@]} < $1)); do
    i=$((i + 1))
    if ! mkdir "$HOSTS_DIR/$2-$i" 2>/dev/null; then
      [[ -d $HOSTS_DIR/$2-$i ]] || die "cannot make $HOSTS_DIR/$2-$i"
      continue
    fi
    echo "$3" >"$HOSTS_DIR/$2-$i/host"
    NEW+=("$2-$i")
  done
}

hosts_up() { # [N] [--prefix web] [--small [SIZE]] [--host-keys KIND,...] [--while PID]
  local n=1 prefix=web size=- kinds=$KEY_KINDS lease=- name
  while (($#)); do
    case $1 in
      --prefix)
        prefix=${2:-}
        shift
        ;;
      --small)
        size=64m
        if [[ ${2:-} =~ ^[0-9]+[km]$ ]]; then
          size=$2
          shift
        fi
        ;;
      --host-keys)
        kinds=${2:-}
        shift
        ;;
      --while)
        lease=${2:-}
        shift
        ;;
      *)
        [[ $1 =~ ^[1-9][0-9]{0,3}$ ]] || die "up: what is '$1'? See: $0 --help"
        n=$1
        ;;
    esac
    shift
  done
  need_namespaces
  need_name "$prefix"
  [[ ,$kinds =~ ^(,(ed25519|ecdsa|rsa))+$ ]] || die "--host-keys '$kinds': of $KEY_KINDS, with commas"
  [[ $lease == - || $lease =~ ^[0-9]+$ && -e /proc/$lease ]] || die "--while '$lease': there is no such process here"
  use_tree
  client_key_once
  reserve "$n" "$prefix" "$size $kinds $lease"
  trap 'say "hosts: no host was started"; remove_hosts "${NEW[@]}"' EXIT
  each make_host "${NEW[@]}"
  attach "${NEW[@]}"
  each configure_host "${NEW[@]}"
  each boot_host "${NEW[@]}"
  trap - EXIT
  # With `||` in front, a subshell would wait for it, and keep the caller's pipes.
  if [[ $lease != - ]]; then setsid "$0" --dir "$HOSTS_DIR" watch "$lease" </dev/null >/dev/null 2>&1 8<&- 9>&- & fi
  for name in "${NEW[@]}"; do describe "$name"; done
}

client_key_once() {
  mkdir -p "$HOSTS_DIR"
  exec 9<"$HOSTS_DIR"
  flock -w 60 9 || die "gave up waiting for another command that works in $HOSTS_DIR"
  client_key "$HOSTS_DIR"
  exec 9<&-
}

# Ends the hosts that were lent to a process, when the process has ended.
hosts_watch() { # PID
  local started lent
  need_namespaces
  started=$(start_time "$1") || started=gone
  while :; do
    lent=$(lent_to "$1")
    [[ -n $lent ]] || return 0
    [[ $(start_time "$1") == "$started" ]] || break
    sleep 0.3
  done
  # shellcheck disable=SC2086  # names
  hosts_down $lent
}
lent_to() { # PID
  local name lease
  for name in $(names); do
    read -r _ _ lease 2>/dev/null <"$HOSTS_DIR/$name/host" && [[ $lease == "$1" ]] && echo "$name"
  done
  return 0
}

hosts_down() { # [NAME...]
  local name all
  need_namespaces
  for name in "$@"; do need_host "$name"; done
  (($#)) || mapfile -t all < <(names)
  (($#)) || set -- "${all[@]}"
  (($# == 0)) || remove_hosts "$@"
  # With the last host goes what was made for all.
  [[ -z $(names) ]] || return 0
  rm -f "$HOSTS_DIR"/{key,key.pub}
  rmdir "$HOSTS_DIR" 2>/dev/null || true
}

hosts_reboot() { # NAME [--hard]
  need_namespaces
  need_host "${1:-}"
  use_tree
  # A machine that loses its power says no farewell.
  [[ ${2:-} != --hard ]] || lose_network "$1"
  end_hosts "$1"
  boot_host "$1"
}

hosts_reimage() { # NAME [--keep-key]
  local disk=$HOSTS_DIR/${1:-}/disk
  need_namespaces
  need_host "${1:-}"
  use_tree
  end_hosts "$1"
  [[ ${2:-} != --keep-key ]] || cp -a "$disk/upper/etc/ssh" "$HOSTS_DIR/$1/kept"
  rm -rf --one-file-system "${disk:?}"/*
  new_root "$1"
  name_itself "$1"
  if [[ ${2:-} == --keep-key ]]; then
    rm -rf "$disk/upper/etc/ssh"
    mv "$HOSTS_DIR/$1/kept" "$disk/upper/etc/ssh"
  else
    new_host_keys "$1"
  fi
  boot_host "$1"
  describe "$1"
}

# Signals processes of sshd: all, those of sessions too, or the one that listens.
signal_sshd() { # NAME SIGNAL [--listener]
  # shellcheck disable=SC2016  # for the shell in there
  if [[ ${3:-} == --listener ]]; then
    (inside_host "$1" sh -c 'kill -s "$1" "$(cat /run/sshd.pid)"' sh "$2")
  else
    (inside_host "$1" pkill --signal "$2" -x sshd)
  fi
}

hosts_signal_listener() { # SIGNAL NAME
  need_namespaces
  need_up "${2:-}"
  signal_sshd "$2" "$1" --listener
}

hosts_kill_sshd() { # NAME [--listener]
  need_namespaces
  need_up "${1:-}"
  signal_sshd "$1" KILL "${@:2}" 2>/dev/null || true
  (inside_host "$1" rm -f /run/sshd.pid)
}

hosts_start_sshd() { # NAME
  need_namespaces
  need_up "${1:-}"
  (inside_host "$1" /usr/sbin/sshd -E /var/log/sshd.log)
  await "$SERVES_WITHIN" sshd_serves "$1" || die "sshd does not start on '$1'; see $HOSTS_DIR/$1/sshd.log"
}

hosts_rekey() { # NAME
  need_namespaces
  need_up "${1:-}"
  hosts_kill_sshd "$1" --listener
  new_host_keys "$1"
  hosts_start_sshd "$1"
  describe "$1"
}

hosts_fill() { # NAME
  local size disk=$HOSTS_DIR/${1:-}/disk
  need_namespaces
  need_host "${1:-}"
  read -r size _ <"$HOSTS_DIR/$1/host"
  [[ $size != - ]] || die "the disk of '$1' is that of this machine: only a host of 'up --small' can be filled"
  # Beside the host's files, where it cannot remove it.
  dd if=/dev/zero of="$disk/ballast" bs=64k 2>/dev/null || true
}
hosts_free() { # NAME
  need_namespaces
  need_host "${1:-}"
  rm -f "$HOSTS_DIR/$1/disk/ballast"
}

hosts_exec() { # NAME -- COMMAND...
  local name=${1:-}
  need_namespaces
  need_up "$name"
  shift
  [[ ${1:-} != -- ]] || shift
  (($#)) || die "run what? For example: $0 exec $name -- id"
  inside_host "$name" "$@"
}

link_command() { # FUNCTION NAME
  need_namespaces
  need_host "${2:-}"
  "$1" "$2"
}

# The lines that a client pins: address and key.
hosts_known() { # [NAME...]
  local name key all
  need_namespaces
  (($#)) || mapfile -t all < <(names)
  for name in "$@" "${all[@]}"; do
    need_host "$name"
    while read -r key; do echo "$(address_of "$(number_of "$name")") $key"; done < <(public_keys "$name")
  done
}

state_of() { # NAME
  local pid listener stat
  if ! pid=$(host_pid "$1"); then
    echo down
  elif read -r listener 2>/dev/null <"/proc/$pid/root/run/sshd.pid" && read -r stat 2>/dev/null <"/proc/$pid/root/proc/$listener/stat"; then
    # Stopped by a signal, it stands at T.
    if [[ ${stat##*) } == T* ]]; then echo hung; else echo up; fi
  else
    echo no-sshd
  fi
}

hosts_status() {
  local name link disk all
  need_namespaces
  mapfile -t all < <(names)
  ((${#all[@]})) || {
    say "no hosts in $HOSTS_DIR"
    return 3
  }
  printf '%-20s %-14s %-8s %-6s %s\n' NAME ADDRESS STATE LINK DISK
  for name in "${all[@]}"; do
    link='up'
    if is_cut "$name"; then link='cut'; elif [[ -e $HOSTS_DIR/$name/hidden ]]; then link='hidden'; fi
    read -r disk _ <"$HOSTS_DIR/$name/host"
    disk=${disk/#-/machine}
    [[ ! -e $HOSTS_DIR/$name/disk/ballast ]] || disk+=,full
    printf '%-20s %-14s %-8s %-6s %s\n' "$name" "$(address_of "$(number_of "$name")")" "$(state_of "$name")" "$link" "$disk"
  done
}
