#!/usr/bin/env bash
# The first process of the namespaces of `hosts run`: it runs the command, and reaps what ends meanwhile. When it ends,
# the kernel ends everything else in here.
#
# usage: first.sh COMMAND...
set -euo pipefail
ip link set lo up
ulimit -n "$(ulimit -H -n)"
rc=0
# Descriptor 7 tells outside that this has ended; it is nobody else's.
"$@" 7>&- || rc=$?
exit "$rc"
