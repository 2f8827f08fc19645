# remote_file_ PATH URL SHA256 MODE OWNER GROUP [HEADER VARIABLE]...: what has the checksum is not fetched again. The values of
# headers are secrets.
remote_file_() {
  file=$1 url=$2 wanted=$3 file_mode=$4 owner=$5 group=$6 was=
  shift 6
  if ! has_command sha256sum; then
    complain "remoteFile: the node has no sha256sum; install coreutils in an action before"
    return 1
  fi
  settle_file || return 1
  have=
  if [ -n "$held" ] && [ "$(sum_of "$held")" = "$wanted" ]; then
    if [ "$was" = "$file_mode:$owner:$group" ]; then
      result=Unchanged
      return 0
    fi
    have=yes
  fi
  [ "$mode" = apply ] || return 0
  # Its owner may change it until it is in the room.
  make_room && if [ -n "$have" ]; then cat "$held" >"$room/new"; else fetch_file "$@"; fi && verify_sum && {
    show_diff cat "$room/new"
    place_file
  }
  code=$?
  leave_room
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

# fetch_file [HEADER VARIABLE]...: into the room. It may take long, but is ended where nothing more has come for so many
# seconds, the first byte included.
patience=60
fetch_file() {
  case $url in
  file://*%*)
    complain "remoteFile: a file: url is taken as it stands; write $url without %"
    return 1
    ;;
  file://*)
    [ -f "${url#file://}" ] || {
      complain "remoteFile: ${url#file://} is not there, or is no file"
      return 1
    }
    cat "${url#file://}" >"$room/new"
    return
    ;;
  esac
  if [ "$#" != 0 ]; then
    has_command curl || {
      complain "remoteFile: secretHeaders need curl; install it in an action before"
      return 1
    }
    fetch_with_headers "$@"
  elif has_command curl; then
    fetch_by curl -fsSL --proto =http,https --connect-timeout 30 -o "$room/new" "$url"
  elif has_command wget; then
    # Busybox has no -nv, and says why without it.
    if wget --version >/dev/null 2>&1; then quiet=-nv; else quiet=-q; fi
    fetch_by wget "$quiet" -O "$room/new" "$url"
  else
    complain "remoteFile: the node has neither curl nor wget; install one in an action before"
    return 1
  fi
}

# fetch_with_headers HEADER VARIABLE...: the headers come by stdin, so that nobody sees them among the arguments, and go to
# the host of the url only, whatever it redirects to.
fetch_with_headers() {
  hops=0 there=$url schemes=http,https
  case $url in https:*) schemes=https ;; esac
  while [ "$hops" -le 10 ]; do
    if [ "$(authority_of "$there")" = "$(authority_of "$url")" ]; then hide=; else hide=yes; fi
    rm -f "$room/new"
    { [ -n "$hide" ] || header_lines "$@"; } | {
      fetch_by curl -fsS --proto "=$schemes" --connect-timeout 30 -o "$room/new" -w '%{redirect_url}' -K - "$there" >"$room/next"
    } || return 1
    there=$(cat "$room/next")
    [ -n "$there" ] || return 0
    hops=$((hops + 1))
  done
  complain "remoteFile: $url redirects more than 10 times"
  return 1
}
authority_of() {
  rest=${1#*://}
  printf '%s\n' "${1%%:*}://${rest%%[/?#]*}"
}
header_lines() {
  while [ "$#" -gt 0 ]; do
    printf 'header = "%s: ' "$1"
    # A newline at its end is none of it; within it would be another header.
    print_secret "$2" | sed 's/[\\"]/\\&/g' | tr -d '\r\n'
    echo '"'
    shift 2
  done
}

# fetch_by COMMAND...: its stderr is shown where it fails.
fetch_by() {
  exec 3<&0
  "$@" 2>"$room/errors" <&3 3<&- &
  fetcher=$!
  exec 3<&-
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
  cat "$room/errors" >&2
  if [ -e "$room/idle" ]; then
    complain "remoteFile: nothing came from $url for $patience s"
  else
    complain "remoteFile: $1 could not fetch $url (code $code)"
  fi
  return 1
}
