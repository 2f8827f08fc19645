# remote_file_ PATH URL SHA256 MODE OWNER GROUP. What has the checksum is not fetched again.
remote_file_() {
  file=$1 url=$2 wanted=$3 file_mode=$4 owner=$5 group=$6 was=
  if ! has_command sha256sum; then
    complain "remoteFile: the node has no sha256sum; install coreutils in an action before"
    return 1
  fi
  if [ -f "$file" ] && [ "$(sum_of "$file")" = "$wanted" ]; then
    put_file "$file" "$file_mode" "$owner" "$group" cat "$file"
    return
  fi
  settle_file || return 1
  [ "$mode" = apply ] || return 0
  make_room && fetch_file && verify_sum && { show_diff cat "$room/new"; place_file; }
  code=$?
  rm -rf "$room"
  return "$code"
}

# By stdin, since sha256sum marks the names of files that it has to escape.
sum_of() { sha256sum <"$1" | sed 's/[^0-9a-f].*//'; }

verify_sum() {
  sum=$(sum_of "$room/new")
  [ "$sum" != "$wanted" ] || return 0
  complain "remoteFile: what $url gave has the checksum $sum, not $wanted; mend sha256 or the url"
  return 1
}

# fetch_file: into the room. It may take long, but is ended where nothing more has come for so many seconds.
patience=60
fetch_file() {
  case $url in
  file://*%*) complain "remoteFile: a file: url is taken as it stands; write $url without %"; return 1 ;;
  file://*) cat "${url#file://}" >"$room/new"; return ;;
  esac
  if has_command curl; then
    set -- curl -fsSL --proto =http,https --connect-timeout 30 -o "$room/new" "$url"
  elif has_command wget; then
    set -- wget -q -O "$room/new" "$url"
  else
    complain "remoteFile: the node has neither curl nor wget; install one in an action before"
    return 1
  fi
  "$@" &
  fetcher=$!
  (
    idle=0 had=
    begin_ticks
    while [ "$idle" -lt "$patience" ]; do
      tick_
      kill -0 "$fetcher" || exit 0
      has=$(stat -c %s "$room/new")
      if [ "$has" = "$had" ]; then idle=$((idle + 1)); else idle=0 had=$has; fi
    done
    true >"$room/idle"
    kill -s KILL "$fetcher"
  ) </dev/null >/dev/null 2>&1 &
  watcher=$!
  wait "$fetcher" 2>/dev/null
  code=$?
  kill "$watcher" 2>/dev/null
  wait "$watcher" 2>/dev/null
  if [ "$code" = 0 ]; then return 0; fi
  if [ -e "$room/idle" ]; then
    complain "remoteFile: nothing came from $url for $patience s"
  else
    complain "remoteFile: $1 could not fetch $url (code $code)"
  fi
  return 1
}
