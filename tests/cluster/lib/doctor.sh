# shellcheck shell=bash
# What the tool needs from the machine, and how to get it.

GO_WANTED=1.26
# command:Debian package
NEEDS=(runc:runc busybox:busybox-static nft:nftables socat:socat conntrack:conntrack ip:iproute2
  openssl:openssl pgrep:procps unshare:util-linux flock:util-linux mount:mount python3:python3 dash:dash)

missing_packages() {
  local need
  for need in "${NEEDS[@]}"; do
    command -v "${need%%:*}" >/dev/null || echo "${need#*:}"
  done | sort -u
}

go_is_new_enough() {
  local version
  version=$(go env GOVERSION 2>/dev/null) || return
  [[ $(printf '%s\n' "$GO_WANTED" "${version#go}" | sort -V | head -n1) == "$GO_WANTED" ]]
}

is_root() { [[ $EUID -eq 0 ]]; }

# The one command that gets packages.
command_for() { # PACKAGE...
  local sudo=
  is_root || sudo='sudo '
  echo "${sudo}apt-get install -y --no-install-recommends $*"
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  say "  installing Debian packages: $*"
  { apt-get update -qq && apt-get install -y -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"; } >&2
}

# Whether packages may be installed: yes, but with YES=0 a person is asked first.
may_install() {
  [[ ${YES:-} == 0 ]] || return 0
  [[ -t 0 && -t 2 ]] || return 1
  local answer
  read -r -p "  Install them with apt-get now? [y/N] " answer
  [[ $answer == [yY]* ]]
}

# Installs packages and says so; without root, apt-get or leave it says which command does, and fails.
provide_packages() { # PACKAGE...
  if ! command -v apt-get >/dev/null; then
    say "  MISSING  apt-get: install the equivalent of these Debian packages yourself: $*"
  elif ! is_root || ! may_install; then
    say "  MISSING  Debian packages: $(command_for "$@")"
  elif install_packages "$@"; then
    say "  ok       installed $*"
    return 0
  else
    say "  MISSING  Debian packages, which could not be installed: $(command_for "$@")"
  fi
  return 1
}

# Looks for the packages of NEEDS, and installs them where it is told to. Fails if some are missing at the end.
doctor_packages() { # [--install]
  local packages
  mapfile -t packages < <(missing_packages)
  if ((${#packages[@]} == 0)); then
    say "  ok       Debian packages"
  elif [[ ${1:-} == --install ]]; then
    provide_packages "${packages[@]}"
  else
    say "  MISSING  Debian packages: $(command_for "${packages[@]}")"
    return 1
  fi
}

# Prints one line per finding; fails if something that `up` needs is missing.
cluster_doctor() { # [--install]
  local bad=0
  good() { say "  ok       $*"; }
  missing() {
    say "  MISSING  $*"
    bad=1
  }
  note() { say "  note     $*"; }

  if [[ $(uname -s) == Linux ]]; then good "Linux $(uname -r)"; else missing "Linux: this runs on nothing else"; fi
  if is_root; then good "root"; else missing "root: up, down and run need it (sudo -E $0 ...)"; fi

  if go_is_new_enough; then
    good "$(go env GOVERSION)"
  else
    missing "go $GO_WANTED or newer, to build Kubernetes: https://go.dev/dl/" \
      "(if it is there but sudo hides it: sudo env \"PATH=\$PATH\" $0 ...)"
  fi

  doctor_packages "${1:-}" || bad=1
  command -v debootstrap >/dev/null ||
    note "debootstrap is not there; 'images/build debian' installs it"

  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    good "cgroup v2"
  elif [[ -d /sys/fs/cgroup/memory ]]; then
    good "cgroup v1"
  else missing "cgroups: nothing is mounted at /sys/fs/cgroup"; fi

  mkdir -p "$CACHE"
  if [[ $(stat -f -c %T "$CACHE") == overlayfs ]]; then
    missing "$CACHE is on overlayfs, which cannot hold images: point PALLET_CACHE at a volume"
  fi
  local free
  free=$(($(stat -f -c '%a * %S' "$CACHE") / 1024 / 1024 / 1024))
  if ((free < 8)); then note "$free GB free at $CACHE; a first build takes about 7 (Go's cache included)"; fi
  ((bad == 0))
}

# Silent when all is well: what `up` calls first. Installs what is missing.
require_machine() {
  [[ -z $(missing_packages) ]] || cluster_doctor --install || exit 1
}
