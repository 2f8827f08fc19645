#!/usr/bin/env bash
# Acts on single components, inside the namespaces.
#
# usage: component.sh start COMPONENT [ARG...] | kill COMPONENT [SIGNAL] |
#        stop COMPONENT | list COMPONENT..., by way of `cluster`
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=components.sh
. "$HERE/lib/components.sh"

gone() { [[ ! -e /proc/$1 ]]; }

case $1 in
  start)
    if component_pid "$2" >/dev/null; then
      echo "$2 already runs"
    else
      component_start "${@:2}"
      WATCHED=("$2")
      await 60 "$2" component_serves "$2"
      echo "$2 serves after $SECONDS s"
    fi
    ;;
  kill | stop)
    signal=${3:-KILL}
    [[ $1 == kill ]] || signal=TERM
    if pid=$(component_pid "$2"); then
      # STOP, CONT and the like do not end it: send them and leave it at that.
      if [[ ! $signal =~ ^(SIG)?(KILL|TERM|INT|9|15|2)$ ]]; then
        kill -s "$signal" "$pid"
        exit
      fi
      rm -f "$R/pids/$2"
      kill -s "$signal" "$pid"
      # The API server and etcd would take long leave of their clients.
      if ! await 3 "$2 to end" gone "$pid" >/dev/null; then
        kill -s KILL "$pid"
        await 10 "$2 to end" gone "$pid"
      fi
      echo "$2 stopped"
    else
      rm -f "$R/pids/$2"
      echo "$2 does not run"
    fi
    ;;
  list)
    for name in "${@:2}"; do
      if pid=$(component_pid "$name"); then
        echo "$name running $pid $(($(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status") / 1024))"
      elif [[ -e $R/pids/$name ]]; then
        echo "$name died - -"
      else
        echo "$name stopped - -"
      fi
    done
    ;;
esac
