#!/usr/bin/env bash
# apt 2.6.1 (Debian 12): DPkg::Lock::Timeout waits for dpkg's locks only; update and download fail at once.
#
# Expected: provisioning tools and guides set `-o DPkg::Lock::Timeout=300` so that apt-get waits while unattended-upgrades or another
# run is at work, and it was guessed to hold for every lock that apt-get takes.
# Seen: the lock of the lists (update) and that of the archives (clean, every download) are tried once. Whoever relies on the option
# still fails with exit code 100 in the first half of another run, while that one fetches, and waits only in its second half, while
# dpkg is at work.
#
# Output seen:
#   update: E: Could not get lock /.../lists/lock. It is held by process 8382 (python3), after 0 s of 4
#   clean: E: Could not get lock /.../archives/lock. It is held by process 8382 (python3), after 0 s of 4
set -euo pipefail
dir=$(mktemp -d)
mkdir -p "$dir"/{archives,lists}/partial
python3 - "$dir" <<'PY' &
import fcntl, sys, time
held = []
for name in ("archives", "lists"):
    held.append(open(f"{sys.argv[1]}/{name}/lock", "w"))
    fcntl.lockf(held[-1], fcntl.LOCK_EX)
open(f"{sys.argv[1]}/ready", "w")
time.sleep(30)
PY
holder=$!
trap 'kill $holder 2>/dev/null; rm -rf "$dir"' EXIT
until [ -e "$dir/ready" ]; do sleep 0.1; done
echo "apt $(dpkg-query --showformat '${Version}' --show apt)"
for command in update clean; do
  began=$SECONDS
  said=$(apt-get -o Dir::Cache::archives="$dir/archives/" -o Dir::State::lists="$dir/lists/" -o Dir::Etc::sourcelist=/dev/null \
    -o Dir::Etc::sourceparts=/dev/null -o DPkg::Lock::Timeout=4 "$command" 2>&1) && {
    echo "CHANGED: $command succeeds beside the lock"
    exit 1
  }
  took=$((SECONDS - began))
  echo "$command: $(grep -m1 'Could not get lock' <<<"${said//$dir/...}"), after $took s of 4"
  [ "$took" -lt 3 ] || {
    echo "CHANGED: $command waits"
    exit 1
  }
done
echo "as described: no lock but dpkg's is waited for"
