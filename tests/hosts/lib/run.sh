# shellcheck shell=bash
# Namespaces of their own, for hosts without a cluster.

hosts_run() { # COMMAND...
  local child directory rc=0
  need_root
  # A tree that is there will do, also while another command works on images; `build` is for a newer one.
  if ! { directory=$(tree_dir) && [[ -d $directory ]]; }; then hosts_build >/dev/null; fi
  directory=$(mktemp -d "$CACHE/hosts/run.XXXXXX")
  # Whoever is killed, and however: when the last that holds descriptor 7 has ended, the directory goes.
  exec 7> >(
    exec 7>&- 9>&-
    exec setsid bash "$HERE/lib/remove.sh" "$directory" >/dev/null 2>&1
  )
  HOSTS_DIR=$directory setpriv --pdeathsig KILL \
    unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
    env --default-signal=INT,QUIT "$HERE/lib/first.sh" "$@" <&0 9>&- &
  child=$!
  # shellcheck disable=SC2064  # the value as of now
  trap "kill -KILL $child 2>/dev/null" HUP TERM INT QUIT
  # Ctrl-C on a terminal reaches the command by itself.
  if [[ -t 0 ]]; then trap : INT QUIT; fi
  wait "$child" 2>/dev/null || rc=$?
  # wait also returns when a signal came in.
  while kill -0 "$child" 2>/dev/null; do
    rc=0
    wait "$child" 2>/dev/null || rc=$?
  done
  exec 7>&-
  bash "$HERE/lib/remove.sh" "$directory" </dev/null
  return "$rc"
}
