# cron_ STATE NAME SCHEDULE USER COMMAND: a file of its own or, for the crond of busybox, which reads none, two lines of the
# user's crontab.
cron_() {
  state=$1 name=$2 schedule=$3 user=$4 job=$5
  if [ "$state" = present ] && ! entry_of passwd "$user" >/dev/null; then
    complain "cron: the user $user is not there; make it in an action before"
    return 1
  fi
  if [ -d /etc/cron.d ]; then
    if [ "$state" = absent ]; then no_file "/etc/cron.d/$name"; else put_file "/etc/cron.d/$name" 644 0 0 cron_line; fi
    return
  fi
  for directory in /etc/crontabs /var/spool/cron/crontabs; do
    [ ! -d "$directory" ] || break
  done
  crontab=$directory/$user
  if [ ! -d "$directory" ]; then
    [ "$state" = present ] || {
      result=Unchanged
      return 0
    }
    complain "cron: the node has neither /etc/cron.d nor a directory of crontabs; install cron in an action before"
    return 1
  fi
  marker="# pallet: $name" begins=
  if [ -e "$crontab" ]; then begins=$(grep -nxF -e "$marker" "$crontab" | sed -n '1s/:.*//p'); fi
  if [ "$state" = absent ] && [ -z "$begins" ]; then
    result=Unchanged
    return 0
  fi
  put_file "$crontab" 600 0 0 cron_table
}

# To cron a percent sign that has no backslash is a newline. To the crond of busybox it is nothing.
cron_line() { printf '%s %s %s\n' "$schedule" "$user" "$(printf '%s\n' "$job" | sed 's/%/\\%/g')"; }

# Each step has to succeed, or half of a table would take its place.
cron_table() {
  if [ -n "$begins" ]; then
    [ "$begins" = 1 ] || head -n "$((begins - 1))" "$crontab"
  elif [ -s "$crontab" ]; then
    cat "$crontab" && { [ -z "$(tail -c 1 "$crontab")" ] || echo; }
  fi &&
    if [ "$state" = present ]; then printf '%s\n%s %s\n' "$marker" "$schedule" "$job"; fi &&
    { [ -z "$begins" ] || tail -n "+$((begins + 2))" "$crontab"; }
}
