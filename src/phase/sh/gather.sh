# gather NAME OPTIONAL KIND SOURCE: one fact. What it prints is bounded by the file size limit of the subshell, and cut to
# what the operator keeps.
gather() {
  case $3 in
  exec) (ulimit -f 64; set -e; script=$4; set --; eval "$script") >"$journal/fact" ;;
  exit)
    # Whatever it ends with is an answer.
    (set -e; script=$4; set --; eval "$script") >/dev/null 2>&1
    case $? in 0) echo true ;; *) echo false ;; esac >"$journal/fact"
    ;;
  file) (ulimit -f 64; cat "$4") >"$journal/fact" ;;
  esac
  code=$?
  if [ "$code" = 0 ]; then
    length=$(($(wc -c <"$journal/fact")))
    [ "$length" -le 4096 ] || length=4096
    {
      printf '%s ok %s\n' "$1" "$length" &&
        { [ "$length" = 0 ] || dd bs="$length" count=1 <"$journal/fact" 2>/dev/null; } &&
        printf '\n'
    } >>"$journal/facts" || exit 1
  elif [ "$2" = optional ]; then
    printf '%s null 0\n\n' "$1" >>"$journal/facts"
  else
    complain "fact $1 failed with code $code; mark it optional where it may"
    exit "$code"
  fi
}
