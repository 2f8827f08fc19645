# gather NAME OPTIONAL KIND SOURCE: one fact. What it prints is bounded, and cut to what the operator keeps; files that it
# writes are its own affair.
gather() {
  case $3 in
  exit)
    # Whatever it ends with is an answer.
    (
      set -e
      script=$4
      set --
      eval "$script"
    ) >/dev/null 2>&1
    case $? in 0) echo true ;; *) echo false ;; esac >"$journal/fact"
    # shellcheck disable=SC2320 # whether the answer could be written
    code=$?
    ;;
  *)
    rm -f "$journal/code"
    {
      print_fact "$3" "$4"
      echo "$?" >"$journal/code"
    } | head -c 32769 >"$journal/fact"
    # Not by ||, which would take the effect of set -e from the script.
    [ $? = 0 ] || rm -f "$journal/code"
    { read -r code <"$journal/code"; } 2>/dev/null || code=1
    rm -f "$journal/code"
    if [ "$(($(wc -c <"$journal/fact")))" -gt 32768 ]; then
      complain "fact $1 is longer than 32 KiB; let it print less"
      code=1
    fi
    ;;
  esac
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

# print_fact KIND SOURCE
print_fact() {
  if [ "$1" = file ]; then cat "$2"; else (
    set -e
    script=$2
    set --
    eval "$script"
  ); fi
}
