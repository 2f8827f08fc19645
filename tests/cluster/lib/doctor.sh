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

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  say "installing: $*"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >&2
}

may_install() {
  [[ ${1:-} == --install || ${YES:-} == 1 || ${CI:-} == true ]] && return
  [[ -t 0 && -t 2 ]] || return
  local answer
  read -r -p "Install them with apt-get now? [y/N] " answer
  [[ $answer == [yY]* ]]
}

# Prints one line per finding; fails if something that `up` needs is missing.
cluster_doctor() { # [--install]
  local bad=0 packages
  good() { say "  ok       $*"; }
  missing() { say "  MISSING  $*"; bad=1; }
  note() { say "  note     $*"; }

  if [[ $(uname -s) == Linux ]]; then good "Linux $(uname -r)"; else missing "Linux: this runs on nothing else"; fi
  if [[ $EUID -eq 0 ]]; then good "root"; else missing "root: up, down and run need it (sudo -E $0 ...)"; fi

  if go_is_new_enough; then
    good "$(go env GOVERSION)"
  else
    missing "go $GO_WANTED or newer, to build Kubernetes: https://go.dev/dl/" \
      "(if it is there but sudo hides it: sudo env \"PATH=\$PATH\" $0 ...)"
  fi

  mapfile -t packages < <(missing_packages)
  if ((${#packages[@]})); then
    say "  MISSING  Debian packages: ${packages[*]}"
    if ! command -v apt-get >/dev/null; then
      missing "apt-get: install the equivalent of these packages yourself"
    elif [[ $EUID -eq 0 ]] && may_install "${1:-}"; then
      install_packages "${packages[@]}" && good "installed ${packages[*]}" || bad=1
    else
      missing "get them with: $0 doctor --install   (or apt-get install ${packages[*]})"
    fi
  else
    good "Debian packages"
  fi
  command -v debootstrap >/dev/null ||
    note "debootstrap is not there; only 'images/build debian' needs it (apt-get install debootstrap)"

  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then good "cgroup v2"
  elif [[ -d /sys/fs/cgroup/memory ]]; then good "cgroup v1"
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

# Silent when all is well: what `up` calls first.
require_machine() {
  [[ -z $(missing_packages) ]] || cluster_doctor "$@" || exit 1
}
