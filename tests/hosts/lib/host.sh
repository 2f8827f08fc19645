# shellcheck shell=bash
# One host: its root, its start and its end.
#
# Its directory holds
#
#   host       size of its disk (or -), kinds of host keys, the lease it belongs to
#   number     which is its link and its address
#   net        its network namespace, which outlives a reboot
#   disk/      upper part of its root, on the real disk or on one of its own that is small
#   process    pid and start time of its first process
#   sshd.log   what its sshd says

# shellcheck disable=SC2034  # the default of `up`
KEY_KINDS=ed25519,ecdsa,rsa
SERVES_WITHIN=30
ENDS_WITHIN=10

# Prints the pid of the host's first process, having made sure that it is it.
host_pid() { # NAME
  local pid started
  read -r pid started 2>/dev/null <"$HOSTS_DIR/$1/process" && [[ $started == "$(start_time "$pid")" ]] && echo "$pid"
}
is_up() { host_pid "$1" >/dev/null; }
is_down() { ! is_up "$1"; }

need_up() { # NAME
  need_host "$1"
  is_up "$1" || die "host '$1' is down; start it with: hosts reboot $1"
}

# As root in there. When this is killed, the command is told to end.
inside_host() { # NAME COMMAND...
  local pid
  pid=$(host_pid "$1") || die "host '$1' is down"
  exec nsenter --target "$pid" --mount --uts --ipc --net --pid --root --wd -- \
    setpriv --pdeathsig TERM --bounding-set=-sys_module,-sys_time,-sys_rawio,-sys_boot -- \
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM="${TERM:-dumb}" "${@:2}"
}

client_key() { # DIRECTORY
  mkdir -p "$1"
  [[ -e $1/key ]] || ssh-keygen -q -t ed25519 -N '' -C tests -f "$1/key"
}

# A running host's root is the one that it sees: what lies below an overlay must not change while it is mounted.
root_of() { # NAME
  local pid
  if pid=$(host_pid "$1"); then echo "/proc/$pid/root"; else echo "$HOSTS_DIR/$1/disk/upper"; fi
}

new_host_keys() { # NAME
  local kind size ssh kinds
  read -r _ kinds _ <"$HOSTS_DIR/$1/host"
  ssh=$(root_of "$1")/etc/ssh
  rm -f "$ssh"/ssh_host_* "$ssh/sshd_config.d/host-keys.conf"
  for kind in ${kinds//,/ }; do
    size=()
    # 3072, the default, takes five times as long.
    [[ $kind != rsa ]] || size=(-b 2048)
    ssh-keygen -q -t "$kind" "${size[@]}" -N '' -C "root@$1" -f "$ssh/ssh_host_${kind}_key"
    echo "HostKey /etc/ssh/ssh_host_${kind}_key" >>"$ssh/sshd_config.d/host-keys.conf"
  done
}

# A disk with nothing on it but what makes this host differ from others.
new_root() { # NAME
  local size uuid disk=$HOSTS_DIR/$1/disk etc=$HOSTS_DIR/$1/disk/upper/etc
  read -r size _ <"$HOSTS_DIR/$1/host"
  mkdir -p "$disk" "$HOSTS_DIR/$1/root"
  if [[ $size != - ]] && ! mountpoint -q "$disk"; then mount -t tmpfs -o "size=$size,mode=755" tmpfs "$disk"; fi
  mkdir -p "$disk/work" "$etc/ssh/sshd_config.d"
  uuid=$(</proc/sys/kernel/random/uuid)
  echo "${uuid//-/}" >"$etc/machine-id"
  echo "$1" >"$etc/hostname"
  cp "$HOSTS_DIR/key.pub" "$etc/ssh/authorized_keys"
  : >>"$HOSTS_DIR/$1/sshd.log"
}

make_host() { # NAME
  new_root "$1"
  new_host_keys "$1"
  new_network "$1"
}

new_network() { # NAME
  : >"$HOSTS_DIR/$1/net"
  unshare --net="$HOSTS_DIR/$1/net" true
}

configure_host() { # NAME
  configure_network "$1"
  name_itself "$1"
}

# sudo wants to look its own host up.
name_itself() { # NAME
  printf '127.0.0.1 localhost\n%s %s\n' "$(address_of "$(number_of "$1")")" "$1" >"$HOSTS_DIR/$1/disk/upper/etc/hosts"
}

sshd_serves() { # NAME
  local pid
  pid=$(host_pid "$1") && [[ -s /proc/$pid/root/run/sshd.pid ]]
}
sshd_serves_or_ended() { # NAME UNSHARE_PID
  sshd_serves "$1" || [[ ! -e /proc/$2 ]]
}

boot_host() { # NAME
  local unshare_pid
  rm -f "$HOSTS_DIR/$1/process"
  setsid nsenter --net="$HOSTS_DIR/$1/net" unshare --mount --pid --uts --ipc --fork --kill-child --propagation private \
    "$HERE/lib/boot.sh" "$HOSTS_DIR/$1" "$TREE" </dev/null >"$HOSTS_DIR/$1/boot.log" 2>&1 8<&- 9>&- &
  unshare_pid=$!
  await $SERVES_WITHIN sshd_serves_or_ended "$1" $unshare_pid || true
  sshd_serves "$1" || {
    say "host '$1' does not serve:"
    cat "$HOSTS_DIR/$1/boot.log" "$HOSTS_DIR/$1/sshd.log" >&2
    return 1
  }
}

# Ends everything in it; the kernel does not come back before all is gone.
end_hosts() { # NAME...
  local name pid
  for name in "$@"; do
    if pid=$(host_pid "$name"); then kill -KILL "$pid" 2>/dev/null || true; fi
  done
  for name in "$@"; do
    await $ENDS_WITHIN is_down "$name" || die "host '$name' does not end, even though its first process was killed"
    rm -f "$HOSTS_DIR/$name/process"
  done
}

remove_hosts() { # NAME...
  local name mounts=()
  end_hosts "$@"
  detach "$@"
  for name in "$@"; do
    mounts+=("$HOSTS_DIR/$name/net")
    if mountpoint -q "$HOSTS_DIR/$name/disk"; then mounts+=("$HOSTS_DIR/$name/disk"); fi
  done
  umount --lazy --quiet "${mounts[@]}" 2>/dev/null || true
  for name in "$@"; do rm -rf --one-file-system "${HOSTS_DIR:?}/$name"; done
}

public_keys() { # NAME: one a line
  cut -d' ' -f1,2 "$HOSTS_DIR/$1"/disk/upper/etc/ssh/ssh_host_*_key.pub
}

describe() { # NAME: a line of JSON
  local key keys='' id
  while read -r key; do keys+="${keys:+, }\"$key\""; done < <(public_keys "$1")
  id=$(<"$HOSTS_DIR/$1/disk/upper/etc/machine-id")
  printf '{"name": "%s", "address": "%s", "port": 22, "hostKeys": [%s], "machineId": "%s", "key": "%s", "log": "%s"}\n' \
    "$1" "$(address_of "$(number_of "$1")")" "$keys" "$id" "$HOSTS_DIR/key" "$HOSTS_DIR/$1/sshd.log"
}
