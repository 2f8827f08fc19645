# shellcheck shell=bash
# The tree that is the lower part of every host's root: Debian with sshd, made once and kept in the cache.

PACKAGES=(iproute2 openssh-server procps python3 sudo tini)
PASSWORD='open sesame'

prepare_tree() { # ROOT, inside it
  local node major minor user
  # A few devices are all there is: everything else in /dev is mounted.
  find /dev -mindepth 1 -delete
  for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    IFS=: read -r node major minor <<<"$node"
    mknod -m 666 "/dev/$node" c "$major" "$minor"
  done
  mkdir /dev/pts /dev/shm
  ln -s pts/ptmx /dev/ptmx
  ln -s /proc/self/fd /dev/fd
  for node in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${node%:*}" "/dev/${node#*:}"; done
  export DEBIAN_FRONTEND=noninteractive
  # Installing sshd starts it, which is not meant to happen here.
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  echo "deb $1 bookworm main" >/etc/apt/sources.list
  apt-get -q update
  apt-get -q -y --no-install-recommends install "${PACKAGES[@]}"
  printf '#!/bin/sh\nexit 0\n' >/usr/sbin/policy-rc.d
  rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*.log /etc/ssh/ssh_host_* /etc/hostname /etc/resolv.conf /etc/machine-id

  for user in admin keeper guest; do
    useradd --create-home --shell /bin/bash "$user"
    # No password, yet not locked: sshd without PAM lets no locked user in.
    usermod --password '*' "$user"
  done
  # A POSIX shell, which is dash here, for one of them.
  usermod --shell /bin/sh keeper
  echo "keeper:$PASSWORD" | chpasswd
  echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin
  echo 'keeper ALL=(ALL:ALL) ALL' >/etc/sudoers.d/keeper
  chmod 440 /etc/sudoers.d/*

  : >/var/log/sshd.log
  cat >/etc/ssh/sshd_config <<'CONFIG'
Include /etc/ssh/sshd_config.d/*.conf
AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 100
MaxSessions 100
LogLevel VERBOSE
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
CONFIG
}

# The functions and settings above are the key, and the image they extend.
tree_dir() {
  local image key
  image=$(readlink "$CACHE/images/debian.tar") || return
  key=$({
    echo "$image ${PACKAGES[*]} $PASSWORD"
    declare -f prepare_tree extract_image
  } | sha256sum | cut -c1-12)
  echo "$CACHE/hosts/tree-$key"
}

extract_image() { # ARCHIVE DIRECTORY
  python3 - "$1" <<'PYTHON' | tar --numeric-owner -C "$2" -x
import json, shutil, sys, tarfile
with tarfile.open(sys.argv[1]) as image:
    def blob(ref):
        return image.extractfile("blobs/sha256/" + ref["digest"].partition(":")[2])
    manifest = json.load(blob(json.load(image.extractfile("index.json"))["manifests"][0]))
    shutil.copyfileobj(blob(manifest["layers"][0]), sys.stdout.buffer)
PYTHON
}

build_tree() { # ARCHIVE OUT
  local mirror
  mirror=$(debian_mirror)
  mkdir "$WORK/root"
  chmod 755 "$WORK/root"
  extract_image "$1" "$WORK/root"
  cp /etc/resolv.conf "$WORK/root/etc/resolv.conf"
  # In namespaces of its own, so that nothing that it mounts or starts is left.
  {
    declare -p PACKAGES PASSWORD
    declare -f prepare_tree
    echo "set -euo pipefail; mount -t proc proc /proc; prepare_tree $mirror; umount /proc"
  } >"$WORK/prepare"
  unshare --mount --pid --fork --kill-child --propagation private chroot "$WORK/root" bash -c "$(<"$WORK/prepare")" </dev/null
  mv -T "$WORK/root" "$2"
}

# Builds what is missing and prints the directory.
hosts_build() {
  local begin image tree rc
  need_root
  image=$("$HERE/../cluster/images/build" debian)
  tree=$(tree_dir)
  mkdir -p "$CACHE/hosts"
  lock "$CACHE/hosts/lock"
  if [[ ! -d $tree ]]; then
    begin=$(now_ms)
    say "building the tree of the hosts, once"
    WORK=$(mktemp -d "$CACHE/hosts/new.XXXXXX")
    trap 'rm -rf --one-file-system "$WORK"' EXIT
    # Beside '||' or in an 'if', -e would not hold in there.
    set +e
    (
      set -e
      build_tree "$image" "$tree"
    ) >"$WORK/log" 2>&1
    rc=$?
    set -e
    ((rc == 0)) || {
      tail -n 20 "$WORK/log" >&2
      die "the tree could not be built"
    }
    rm -rf --one-file-system "$WORK"
    trap - EXIT
    say "  took $(seconds_since "$begin")"
  fi
  exec 9>&-
  echo "$tree"
}
