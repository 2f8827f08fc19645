# shellcheck shell=bash
# Builds virt-controller, KubeVirt's definitions and the stand-in for virt-handler from the pinned module in build/kubevirt.

# As the cluster's functions want it: relative to its own modules.
KUBEVIRT=../../vms/build/kubevirt

# The directory for what the present sources, flags and compiler would build.
kubevirt_dir() {
  local key
  build_flags "$KUBEVIRT"
  key=$(
    {
      go env GOVERSION GOOS GOARCH
      echo "${FLAGS[@]}"
      cat "$VMS"/build/kubevirt/{go.mod,go.sum} "$VMS"/build/kubevirt/*/*.go
    } | sha256sum
  ) || die "cannot run go: see '$0 doctor'"
  echo "$CACHE/vms/bin-${key:0:16}"
}

# Builds what is missing and prints the directory.
build_kubevirt() {
  local bin new
  go_is_new_enough || die "go $GO_WANTED or newer is needed: see '$0 doctor'"
  bin=$(kubevirt_dir)
  if [[ ! -d $bin ]]; then
    lock "$CACHE/vms/bin.lock"
    if [[ ! -d $bin ]]; then
      rm -rf "$CACHE"/vms/bin.new.*
      new=$(mktemp -d "$CACHE/vms/bin.new.XXXXXX")
      chmod 755 "$new"
      build_module "$KUBEVIRT" "$new" "KubeVirt $(module_version "$KUBEVIRT" kubevirt.io/kubevirt): virt-controller and definitions (once, 4 to 6 minutes)"
      "$new/definitions" >"$new/definitions.yaml" || die "the definitions could not be printed"
      rm "$new/definitions"
      mv -T "$new" "$bin"
    fi
    exec 9>&-
  fi
  echo "$bin"
}
