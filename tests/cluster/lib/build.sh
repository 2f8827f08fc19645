# shellcheck shell=bash
# Builds Kubernetes, containerd, etcd and kwok from the pinned Go modules in
# build/. Several modules, because their dependencies contradict each other.

module_version() { # DIR MODULE
  awk -v m="$2" '$1 == m && $2 ~ /^v/ { print $2; exit }' "$HERE/build/$1/go.mod"
}

build_flags() { # DIR: sets FLAGS. Anything that changes here changes the cache key.
  local version minor
  FLAGS=(-trimpath -ldflags '-s -w')
  case $1 in
    kubernetes)
      # Unstamped, the API server calls itself v0.0.0 and clients refuse it.
      version=$(module_version kubernetes k8s.io/kubernetes)
      minor=${version#v1.} minor=${minor%%.*}
      local p=k8s.io/component-base/version
      FLAGS=(-trimpath -ldflags "-s -w -X $p.gitVersion=$version -X $p.gitMajor=1 -X $p.gitMinor=$minor")
      ;;
    node) FLAGS+=(-tags no_btrfs,no_zfs,no_devmapper) ;;
    helm)
      # Unstamped, it takes every cluster for v1.20 where it renders without one.
      minor=$(module_version helm k8s.io/client-go)
      minor=${minor#v0.} minor=${minor%%.*}
      local v=helm.sh/helm/v3/pkg/chartutil
      FLAGS=(-trimpath -ldflags "-s -w -X $v.k8sVersionMajor=1 -X $v.k8sVersionMinor=$minor
        -X helm.sh/helm/v3/internal/version.version=$(module_version helm helm.sh/helm/v3)")
      ;;
  esac
}

# The directory for what the present sources, flags and compiler would build.
bin_dir() {
  local d key
  key=$(
    {
      go env GOVERSION GOOS GOARCH
      for d in kubernetes node extras; do
        build_flags "$d"
        echo "${FLAGS[@]}"
        cat "$HERE/build/$d/go.mod" "$HERE/build/$d/go.sum"
      done
      echo layout 1
    } | sha256sum
  ) || die "cannot run go: see '$0 doctor'"
  echo "$CACHE/bin/${key:0:16}"
}

build_module() { # DIR OUT WHAT
  local begin next=60 pid
  begin=$(now_ms)
  say "building $3"
  build_flags "$1"
  (cd "$HERE/build/$1" && CGO_ENABLED=0 exec go build "${FLAGS[@]}" -o "$2/" tool) >&2 9>&- &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    (($(now_ms) - begin > next * 1000)) || continue
    say "  still building, $((next / 60)) min"
    next=$((next + 60))
  done
  wait "$pid" || die "building $3 failed, see above"
  say "  took $(seconds_since "$begin")"
}

# Builds what is missing and prints the directory.
cluster_build() {
  local bin new plugin
  go_is_new_enough || die "go $GO_WANTED or newer is needed: see '$0 doctor'"
  bin=$(bin_dir)
  if [[ ! -d $bin ]]; then
    lock "$CACHE/bin/lock"
    if [[ ! -d $bin ]]; then
      say "building the cluster's binaries, once: 6 to 9 minutes on two cores"
      # A build that was cut short leaves its directory; Go's own cache has kept its work.
      rm -rf "$CACHE"/bin/new.*
      new=$(mktemp -d "$CACHE/bin/new.XXXXXX")
      chmod 755 "$new"
      build_module kubernetes "$new" "Kubernetes $(module_version kubernetes k8s.io/kubernetes) (the long one)"
      build_module node "$new" "containerd $(module_version node github.com/containerd/containerd/v2) and CNI plugins"
      build_module extras "$new" "etcd $(module_version extras go.etcd.io/etcd/server/v3) and kwok $(module_version extras sigs.k8s.io/kwok)"
      mv "$new/server" "$new/etcd"
      mkdir "$new/cni"
      for plugin in bridge host-local loopback portmap; do mv "$new/$plugin" "$new/cni/"; done
      mv -T "$new" "$bin"
      say "built into $bin"
    fi
    exec 9>&-
  fi
  echo "$bin"
}
