# What every phase script begins with. $PALLET_JOURNAL is the run's own directory.
journal=$PALLET_JOURNAL
unset PALLET_JOURNAL

# perform NAME KIND ARGS...: runs one action and notes what came of it. The first failure ends the phase with its code.
perform() {
  name=$1 result=Changed
  shift
  "$@"
  code=$?
  [ "$code" = 0 ] || result=Failed
  printf '%s %s\n' "$result" "$name" >>"$journal/actions"
  [ "$code" = 0 ] || exit "$code"
}

complain() { printf 'pallet: %s\n' "$*" >&2; }

# exec_ SCRIPT CREATES UNLESS ONLY_IF. The script stops at its first failing command.
exec_() {
  script=$1 creates=$2 unless=$3 only_if=$4
  set --
  if [ -n "$creates" ] && [ -e "$creates" ]; then result=Unchanged; return 0; fi
  if [ -n "$unless" ] && (eval "$unless") >/dev/null 2>&1; then result=Unchanged; return 0; fi
  if [ -n "$only_if" ] && ! (eval "$only_if") >/dev/null 2>&1; then result=Unchanged; return 0; fi
  (set -e; eval "$script")
}
