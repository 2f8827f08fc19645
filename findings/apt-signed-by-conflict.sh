#!/usr/bin/env bash
# apt 2.6.1 (Debian 12): two sources of one repository and suite with different Signed-By stop every command of apt.
#
# Expected: apt warns, ignores one of them, or asks for signatures by both keys; the other repositories work.
# Seen: every command that reads the sources (the script runs `apt-cache policy`)
# ends with "Conflicting values set for option Signed-By". A tool that adds a source under a keyring of its own, beside
# one that is already there, has disabled apt, and cannot repair that by installing anything.
#
# Output seen:
#   E: Conflicting values set for option Signed-By regarding source file:/.../repo/ stable: /a.gpg != /b.gpg
#   E: The list of sources could not be read.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/{repo,etc/sources.list.d,state/lists/partial,cache/archives/partial}
touch "$dir/a.gpg" "$dir/b.gpg" "$dir/status"
echo "deb [signed-by=$dir/a.gpg] file:$dir/repo stable main" >"$dir/etc/sources.list.d/a.list"
apt() {
  apt-cache -o Dir::Etc="$dir/etc" -o Dir::Etc::SourceList=none -o Dir::State="$dir/state" -o Dir::State::status="$dir/status" \
    -o Dir::Cache="$dir/cache" policy 2>&1
}
apt >/dev/null || {
  echo "CHANGED: one source alone is refused"
  exit 1
}
echo "deb [signed-by=$dir/b.gpg] file:$dir/repo stable main" >"$dir/etc/sources.list.d/b.list"
if said=$(apt); then
  echo "CHANGED: apt reads both: $said"
  exit 1
fi
echo "apt $(dpkg-query --showformat '${Version}' --show apt): ${said//$dir/}"
grep -q 'Conflicting values set for option Signed-By' <<<"$said" || {
  echo "CHANGED: another error"
  exit 1
}
echo "as described: no command of apt works"
