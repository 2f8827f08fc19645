# service_ MANAGER NAME STATE ENABLED: an empty state or enabled is left as it is.
service_() {
  manager=$1 unit=$2 state=$3 enabled=$4 result=Unchanged
  case $enabled in
  true) "${manager}_enabled" "$unit" || change_service enable || return 1 ;;
  false) ! "${manager}_enabled" "$unit" || change_service disable || return 1 ;;
  esac
  [ -n "$state" ] || return 0
  if "${manager}_runs" "$unit"; then runs=yes; else runs=no; fi
  case $state:$runs in
  started:yes | stopped:no) return 0 ;;
  stopped:yes) verb=stop ;;
  # What is done each time is no difference that a look could find.
  restarted:yes | reloaded:yes) [ "$mode" = apply ] || return 0; verb=${state%ed} ;;
  *:no) verb=start ;;
  esac
  change_service "$verb"
}

change_service() {
  result=Changed
  [ "$mode" = apply ] || return 0
  case $1 in
  enable | disable) "${manager}_$1" "$unit" </dev/null ;;
  *) "${manager}_do" "$1" "$unit" </dev/null ;;
  esac || { complain "service: $unit could not $1"; return 1; }
}

systemd_do() {
  case $1 in
  reload) systemctl reload-or-restart "$2" ;;
  *) systemctl "$1" "$2" ;;
  esac
}
systemd_runs() { systemctl is-active --quiet "$1"; }
systemd_enabled() { systemctl is-enabled --quiet "$1" 2>/dev/null; }
systemd_enable() { systemctl enable "$1"; }
systemd_disable() { systemctl disable "$1"; }

openrc_do() { rc-service "$2" "$1"; }
openrc_runs() { rc-service "$1" status >/dev/null 2>&1; }
openrc_enabled() { rc-update show default 2>/dev/null | grep -q "^ *$1 |"; }
openrc_enable() { rc-update add "$1" default; }
openrc_disable() { rc-update del "$1" default; }

sysv_do() {
  if has_command service; then service "$2" "$1"; else "/etc/init.d/$2" "$1"; fi
}
sysv_runs() { sysv_do status "$1" >/dev/null 2>&1; }
sysv_enabled() {
  for link in /etc/rc[2345].d/S[0-9][0-9]"$1" /etc/rc.d/rc[2345].d/S[0-9][0-9]"$1"; do
    [ ! -e "$link" ] || return 0
  done
  return 1
}
sysv_enable() {
  if has_command update-rc.d; then
    update-rc.d "$1" defaults && update-rc.d "$1" enable
  else
    chkconfig "$1" on
  fi
}
sysv_disable() {
  if has_command update-rc.d; then update-rc.d "$1" disable; else chkconfig "$1" off; fi
}
