# line_in_file_ STATE PATH LINE MATCH AFTER CREATE. Lines are bytes, whatever the locale: a pattern matches the same on
# every node.
line_in_file_() {
  state=$1 target=$2 wanted=$3 match=$4 behind=$5
  # A link is followed, since the file that it leads to is kept but for a line.
  if [ -L "$target" ]; then target=$(readlink -f "$target") || return 1; fi
  if [ ! -e "$target" ]; then
    if [ "$state" = absent ]; then result=Unchanged; return 0; fi
    if [ -z "$6" ]; then
      complain "lineInFile: $2 is not there; make it in an action before, or set create"
      return 1
    fi
    put_file "$target" 644 "" "" printf '%s\n' "$wanted"
    return
  fi
  for pattern in "$match" "$behind"; do
    echo | LC_ALL=C grep -qaE -e "$pattern"
    [ $? -le 1 ] || { complain "lineInFile: $pattern is no extended regular expression"; return 1; }
  done
  if [ "$state" = absent ]; then
    if lines_to_go -q; then put_file "$target" "" "" "" lines_without; else result=Unchanged; fi
    return
  fi
  there=$(LC_ALL=C grep -naxF -e "$wanted" "$target" | last_number) place=
  # A line that its own pattern does not match would take the place of another in each run.
  if [ -n "$match" ] && { [ -z "$there" ] || printf '%s\n' "$wanted" | LC_ALL=C grep -qaE -e "$match"; }; then
    place=$(LC_ALL=C grep -naE -e "$match" "$target" | last_number)
  fi
  if [ -n "$place" ]; then
    keep=$((place - 1)) next=$((place + 1))
  elif [ -n "$there" ]; then
    result=Unchanged
    return 0
  else
    keep=
    [ -z "$behind" ] || keep=$(LC_ALL=C grep -naE -e "$behind" "$target" | last_number)
    keep=${keep:-$(($(wc -l <"$target") + 1))}
    next=$((keep + 1))
  fi
  put_file "$target" "" "" "" lines_with
}

last_number() { sed -n '$s/:.*//p'; }

# The last line may lack its newline.
lines_with() {
  if [ "$keep" -gt 0 ]; then head -n "$keep" "$target"; fi
  if [ "$keep" -gt "$(wc -l <"$target")" ] && [ -n "$(tail -c 1 "$target")" ]; then echo; fi
  printf '%s\n' "$wanted"
  tail -n "+$next" "$target"
}

lines_to_go() {
  if [ -n "$match" ]; then LC_ALL=C grep "$1" -aE -e "$match" "$target"; else LC_ALL=C grep "$1" -axF -e "$wanted" "$target"; fi
}

# 1 says that no line is left.
lines_without() {
  lines_to_go -v
  [ $? -le 1 ]
}
