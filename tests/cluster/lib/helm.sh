# shellcheck shell=bash
# Helm, built from build/helm when something first asks for it: the cluster itself does without.

# The directory for what the present sources and compiler would build.
helm_dir() {
  local key
  build_flags helm
  key=$(
    {
      go env GOVERSION GOOS GOARCH
      echo "${FLAGS[@]}"
      cat "$HERE/build/helm/go.mod" "$HERE/build/helm/go.sum"
    } | sha256sum
  ) || die "cannot run go: see '$0 doctor'"
  echo "$CACHE/bin/helm-${key:0:16}"
}

# Builds it where it is missing, and prints the directory.
build_helm() {
  local bin new
  go_is_new_enough || die "go $GO_WANTED or newer is needed: see '$0 doctor'"
  bin=$(helm_dir)
  if [[ ! -d $bin ]]; then
    lock "$CACHE/bin/lock"
    if [[ ! -d $bin ]]; then
      rm -rf "$CACHE"/bin/new.*
      new=$(mktemp -d "$CACHE/bin/new.XXXXXX")
      chmod 755 "$new"
      build_module helm "$new" "Helm $(module_version helm helm.sh/helm/v3)"
      mv -T "$new" "$bin"
    fi
    exec 9>&-
  fi
  echo "$bin"
}

# Runs it inside the instance; with no arguments it is only built, and its path printed.
cluster_helm() { # [ARG...]
  local bin
  bin=$(build_helm)
  if (($#)); then inside "$bin/helm" "$@"; else echo "$bin/helm"; fi
}
