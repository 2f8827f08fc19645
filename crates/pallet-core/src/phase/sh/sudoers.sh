# sudoer_ STATE NAME CONTENT RULE. sudo reads no file whose name has a dot, and no name of a user has a plus or an equals sign.
sudoer_() {
  state=$1 content=$3
  case $2 in %*) name=group-${2#%} ;; *) name=$2 ;; esac
  while :; do
    case $name in *.*) name=${name%%.*}+${name#*.} ;; *) break ;; esac
  done
  name=$name${4:+=$4}
  if [ "$state" = absent ]; then
    no_file "/etc/sudoers.d/pallet-$name"
    return
  fi
  if [ ! -d /etc/sudoers.d ]; then
    complain "sudoer: the node has no /etc/sudoers.d; install sudo in an action before"
    return 1
  fi
  # A file that is wrong would keep everybody from sudo.
  if has_command visudo; then
    printf %s "$content" >"$journal/sudoers" && visudo -c -f "$journal/sudoers" >/dev/null
    code=$?
    rm -f "$journal/sudoers"
    [ "$code" = 0 ] || {
      complain "sudoer: visudo refuses it: $content"
      return 1
    }
  fi
  put_file "/etc/sudoers.d/pallet-$name" 440 0 0 printf %s "$content"
}
