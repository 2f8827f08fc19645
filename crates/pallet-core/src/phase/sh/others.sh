# can_become_: whether the user $run_as can be become at all. It is asked before anything is said that is meant for that user:
# sudo would take what follows a wrong password for further ones.
can_become_() {
  if [ -n "$run_as_password" ]; then {
    eval "printf \"\$$run_as_password\""
    echo
  }; fi | become_ true
}

# as_other_ SCRIPT [NAME VARIABLE]...: runs a script as the user $run_as, with these secrets in its environment. All of it goes
# down stdin, behind a mark: the password comes first, and who asks for none leaves it lying there.
as_other_() {
  body=$1
  shift
  {
    if [ -n "$run_as_password" ]; then
      eval "printf \"\$$run_as_password\""
      echo
    fi
    echo pallet-begins
    while [ "$#" -gt 0 ]; do
      eval "value=\$(printf \"\$$2\"; echo .)"
      printf "export %s='" "$1"
      printf '%s' "${value%.}" | sed "s/'/'\\\\''/g"
      echo "'"
      shift 2
    done
    printf '%s\n' "$body"
  } | become_ 'while read -r line; do [ "$line" != pallet-begins ] || break; done; body=$(cat); exec </dev/null; cd /; eval "$body"'
}

# become_ COMMAND: root needs nobody's leave. Variables by which what runs is found again survive sudo by env only.
become_() {
  if [ "$(id -un)" = "$run_as" ]; then
    sh -c "$1"
  elif [ "$(id -u)" = 0 ] && has_command su; then
    su -s /bin/sh -c "$1" "$run_as"
  elif ! has_command sudo; then
    complain "$action is for $run_as, and this node has no sudo"
    return 1
  elif [ -n "$run_as_password" ]; then
    sudo -k -S -p '' -u "$run_as" -H -- env PALLET_RUN="$PALLET_RUN" PALLET_ACTION="${PALLET_ACTION-}" sh -c "$1"
  else
    sudo -n -u "$run_as" -H -- env PALLET_RUN="$PALLET_RUN" PALLET_ACTION="${PALLET_ACTION-}" sh -c "$1"
  fi
}
