# package_source_ MANAGER STATE NAME CONTENT KEY. For apk the content is its line.
package_source_() {
  case $1 in
  apk)
    line_in_file_ "$2" /etc/apk/repositories "$4" "" "" create
    return
    ;;
  apt) source_file=/etc/apt/sources.list.d/$3.sources key_file=/etc/apt/keyrings/$3.asc ;;
  *) source_file=/etc/yum.repos.d/$3.repo key_file=/etc/pki/rpm-gpg/$3.asc ;;
  esac
  manager=$1 content=$4 key=$5 changed=Unchanged
  if [ "$2" = absent ]; then
    no_file "$source_file" && count_change && no_file "$key_file" && count_change || return 1
  else
    source_directory "${source_file%/*}" && { [ -z "$key" ] || source_directory "${key_file%/*}"; } || return 1
    add_source || return 1
  fi
  result=$changed
}

source_directory() { [ -d "$1" ] || { directory_ "$1" 755 "" "" && count_change; }; }

# The key comes first, since the source is tried with it. In a look a directory may be missing that would have been made.
add_source() {
  rm -f "$journal/key" "$journal/source"
  if [ -f "$source_file" ]; then cp -p "$source_file" "$journal/source" || return 1; fi
  if [ -f "$key_file" ]; then cp -p "$key_file" "$journal/key" || return 1; fi
  if [ -z "$key" ]; then
    no_file "$key_file" && count_change || return 1
  elif [ -d "${key_file%/*}" ]; then
    put_file "$key_file" 644 0 0 printf %s "$key" && count_change || return 1
  fi
  [ -d "${source_file%/*}" ] || return 0
  if [ "$manager" = apt ] && [ "$mode" = apply ]; then
    file=$source_file
    if [ "$changed" = Changed ] || [ ! -f "$file" ] || ! is_printed "$file" printf %s "$content"; then
      try_source || {
        take_back
        return 1
      }
    fi
  fi
  # Its diff says more than that of its key.
  if [ -s "$journal/diff" ]; then mv "$journal/diff" "$journal/diff.key"; fi
  put_file "$source_file" 644 0 0 printf %s "$content" && count_change || return 1
  if [ "$manager:$mode:$changed" = apt:apply:Changed ] && ! apt_ indextargets >/dev/null; then
    complain "packageSource: apt cannot read its sources together with $source_file, which was taken back; fix what is said above"
    if [ -f "$journal/source" ]; then cp -p "$journal/source" "$source_file"; else rm -f "$source_file"; fi
    take_back
    return 1
  fi
  if [ ! -s "$journal/diff" ] && [ -s "$journal/diff.key" ]; then mv "$journal/diff.key" "$journal/diff"; fi
  rm -f "$journal/key" "$journal/source" "$journal/diff.key"
}

# The lists of this source alone are fetched, before it is one: a source that is no good would break all that apt does.
try_source() {
  trial=$journal/${source_file##*/}
  printf %s "$content" >"$trial" &&
    apt_ update -o Dir::Etc::sourcelist="$trial" -o Dir::Etc::sourceparts=/dev/null \
      -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any
  code=$?
  rm -f "$trial"
  [ "$code" != 0 ] || return 0
  complain "packageSource: apt-get update failed for it, and it was not added; mend what is said above"
  return 1
}

take_back() {
  if [ -f "$journal/key" ]; then cp -p "$journal/key" "$key_file"; else rm -f "$key_file"; fi
  rm -f "$journal/key" "$journal/source" "$journal/diff" "$journal/diff.key"
}
