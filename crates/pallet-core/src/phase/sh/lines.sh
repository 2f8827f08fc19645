# line_in_file_ STATE PATH LINE MATCH AFTER CREATE BEFORE FIRST. Lines are bytes, whatever the locale: a pattern matches the
# same on every node. A line ends before its CR, which is kept; one that is added gets it where the first line has it.
line_in_file_() {
  state=$1 target=$2 wanted=$3 match=$4 behind=$5 ahead=${7-} first=${8-} cr=$(printf '\r') eol= text=
  # A link is followed, since the file that it leads to is kept but for a line.
  if [ -L "$target" ]; then
    file=$target
    enter_parent || return 1
    link_owner=$whose
    [ -z "$shared" ] || link_owner=nobody
    ! may_follow || link_owner=
    target=$(readlink -f "./$entry") || return 1
    file=$target
    if [ -n "$link_owner" ] && ! { enter_parent && [ "$whose" = "$link_owner" ]; }; then
      complain "lineInFile: $2 is a link that a user other than root may have made, to a directory that is not that user's: name $target"
      return 1
    fi
  fi
  if [ ! -e "$target" ]; then
    if [ "$state" = absent ]; then
      result=Unchanged
      return 0
    fi
    if [ -z "$6" ]; then
      complain "lineInFile: $2 is not there; make it in an action before, or set create"
      return 1
    fi
    put_file "$target" 644 "" "" printf '%s\n' "$wanted"
    return
  fi
  file=$target
  enter_parent && hold_file 5 || return 1
  # What is no file is refused there.
  if [ -z "$held" ]; then
    settle_file && complain "lineInFile: $target has changed meanwhile"
    return 1
  fi
  text=$held
  for pattern in "$match" "$behind" "$ahead"; do
    echo | LC_ALL=C grep -qaE -e "$pattern"
    [ $? -le 1 ] || {
      complain "lineInFile: $pattern is no extended regular expression"
      return 1
    }
  done
  if head -n 1 "$text" | LC_ALL=C grep -qa "$cr\$"; then eol=$cr; fi
  if [ "$state" = absent ]; then
    if lines_to_go -q; then put_file "$target" "" "" "" lines_without; else result=Unchanged; fi
    return
  fi
  wanted=${wanted%"$cr"}
  there=$(LC_ALL=C grep -naxF -e "$wanted" -e "$wanted$cr" "$text" | pick_number) place=
  # A line that its own pattern does not match would take the place of another in each run.
  if [ -n "$match" ] && { [ -z "$there" ] || printf '%s\n' "$wanted" | LC_ALL=C grep -qaE -e "$match"; }; then
    # A setting that holds goes before one that is commented out.
    place=$(matches_of "$match" | LC_ALL=C grep -avE '^[0-9]+:[[:space:]]*(#|;|//)' | pick_number)
    place=${place:-${there:-$(matches_of "$match" | pick_number)}}
  fi
  if [ -n "$place" ]; then
    keep=$((place - 1)) next=$((place + 1))
  elif [ -n "$there" ]; then
    result=Unchanged
    return 0
  else
    keep=
    [ -z "$behind" ] || keep=$(matches_of "$behind" | pick_number)
    if [ -n "$ahead" ]; then
      keep=$(matches_of "$ahead" | sed -n '1s/:.*//p')
      keep=${keep:+$((keep - 1))}
    fi
    keep=${keep:-$(($(wc -l <"$text") + 1))}
    next=$((keep + 1))
  fi
  put_file "$target" "" "" "" lines_with
}

# matches_of PATTERN: the lines that match, led by their numbers.
matches_of() {
  if [ -n "$eol" ]; then
    LC_ALL=C sed "s/$cr\$//" "$text" | LC_ALL=C grep -naE -e "$1"
  else
    LC_ALL=C grep -naE -e "$1" "$text"
  fi
}

# pick_number: the number of the last line, or of the first where that is meant.
pick_number() { if [ -n "$first" ]; then sed -n '1s/:.*//p'; else sed -n '$s/:.*//p'; fi; }

# The last line may lack its newline. Each step has to succeed, or half of a file would take its place.
lines_with() {
  { [ "$keep" -le 0 ] || head -n "$keep" "$text"; } &&
    if [ "$keep" -gt "$(wc -l <"$text")" ] && [ -n "$(tail -c 1 "$text")" ]; then printf '%s\n' "$eol"; fi &&
    printf '%s\n' "$wanted$eol" &&
    tail -n "+$next" "$text"
}

lines_to_go() {
  if [ -z "$match" ]; then
    LC_ALL=C grep "$1" -axF -e "$wanted" -e "$wanted$cr" "$text"
  elif [ -n "$eol" ]; then
    LC_ALL=C sed "s/$cr\$//" "$text" | LC_ALL=C grep "$1" -aE -e "$match"
  else
    LC_ALL=C grep "$1" -aE -e "$match" "$text"
  fi
}

# 1 says that no line is left. What stays keeps the line ends that it has.
lines_without() {
  if [ -n "$match" ] && [ -n "$eol" ]; then
    LC_ALL=C sed "$(matches_of "$match" | sed 's/:.*/d/')" "$text"
    return
  fi
  lines_to_go -v
  [ $? -le 1 ]
}
