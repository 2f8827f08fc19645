# service_ MANAGER NAME STATE ENABLED MASKED: an empty state, enabled or masked is left as it is. What was changed is looked at
# again: a service that does not stay in its state is a failure.
service_() {
  manager=$1 unit=$2 state=$3 enabled=$4 masked=$5 result=Unchanged
  if [ "$manager" = systemd ]; then systemd_begins; fi
  if [ "$masked" = false ] && systemd_is_masked; then change_service unmask || return 1; fi
  case $enabled in
  true) "${manager}_enabled" "$unit" || change_service enable || return 1 ;;
  false) ! "${manager}_enabled" "$unit" || change_service disable || return 1 ;;
  esac
  [ -z "$state" ] || service_state || return 1
  if [ "$masked" = true ] && ! systemd_is_masked; then change_service mask || return 1; fi
}

# What a service does is "active", "inactive", or something in between, such as waiting to be started again.
service_state() {
  activity=$("${manager}_activity" "$unit")
  case $state:$activity in
  started:active | stopped:inactive) return 0 ;;
  stopped:*) verb=stop ;;
  # What is done each time is no difference that a look could find.
  restarted:active | reloaded:active)
    [ "$mode" = apply ] || return 0
    verb=${state%ed}
    ;;
  *) verb=start ;;
  esac
  change_service "$verb"
}

change_service() {
  result=Changed
  [ "$mode" = apply ] || return 0
  case $1 in
  enable) "${manager}_enable" "$unit" && "${manager}_enabled" "$unit" ;;
  disable) "${manager}_disable" "$unit" && ! "${manager}_enabled" "$unit" ;;
  mask | unmask) systemctl "$1" "$unit" ;;
  *) "${manager}_do" "$1" "$unit" && settle_service "$1" ;;
  esac </dev/null || {
    complain "service: $unit could not $1"
    return 1
  }
}

# settle_service VERB: waits, so many seconds at most, until the service has been the same for a second.
settling=10
settle_service() {
  if [ "$1" = stop ]; then wanted=inactive; else wanted=active; fi
  looked= looks=0
  while :; do
    look=$("${manager}_activity" "$unit")$("${manager}_process" "$unit")
    case $look in
    "$wanted"*) [ "$look" != "$looked" ] && [ "$1" != stop ] || return 0 ;;
    # It was started, and has done what it is for.
    inactive*) [ "$wanted" = inactive ] || [ "$looks" = 0 ] || ! "${manager}_has_finished" "$unit" || return 0 ;;
    esac
    [ "$looks" -lt "$settling" ] || break
    looked=$look looks=$((looks + 1))
    sleep 1
  done
  complain "service: $unit does not stay $wanted: it is ${look%%[!a-z-]*}; its log says why"
  return 1
}

# A definition that has changed on disk counts once systemd has read it.
systemd_begins() {
  [ "$mode" = apply ] || return 0
  case $(systemctl show -p NeedDaemonReload "$unit" 2>/dev/null) in *yes) systemctl daemon-reload ;; esac
}
systemd_do() {
  case $1 in
  reload) systemctl reload-or-restart "$2" ;;
  *) systemctl "$1" "$2" ;;
  esac
}
systemd_activity() {
  activity=$(systemctl is-active --no-pager "$1" 2>/dev/null)
  case $?:$activity in
  0: | 0:active | 0:reloading | 0:refreshing) echo active ;;
  *: | *:inactive | *:failed | *:unknown) echo inactive ;;
  *) echo "${activity%%[!a-z-]*}" ;;
  esac
}
# It is another one after each restart.
systemd_process() { systemctl show -p MainPID "$1" 2>/dev/null; }
systemd_has_finished() {
  case $(systemctl show -p Type -p Result "$1" 2>/dev/null) in *Type=oneshot*Result=success* | *Result=success*Type=oneshot*) ;; *) return 1 ;; esac
}
# Units that cannot be enabled are as they are to be either way; what else an indirect one enables is what counts.
systemd_enabled() {
  boots=$(systemctl is-enabled --no-pager "$1" 2>/dev/null)
  case $?:$boots in
  *:static | *:generated | *:transient) [ "$enabled" = true ] ;;
  *:indirect)
    others=$(systemctl cat "$1" 2>/dev/null | sed -n 's/^Also=//p')
    for other in $others; do
      case $(systemctl is-enabled --no-pager "$other" 2>/dev/null) in enabled*) return 0 ;; esac
    done
    [ -z "$others" ] && [ "$enabled" = true ]
    ;;
  0:*) return 0 ;;
  *) return 1 ;;
  esac
}
systemd_enable() {
  case $boots in masked*)
    complain "service: $1 is masked; set masked to false"
    return 1
    ;;
  esac
  systemctl enable "$1"
}
systemd_disable() { systemctl disable "$1"; }
systemd_is_masked() { case $(systemctl is-enabled --no-pager "$unit" 2>/dev/null) in masked*) ;; *) return 1 ;; esac }

# What has crashed counts as started with openrc, and is not started again.
openrc_do() {
  case $1:$activity in start:crashed) rc-service "$2" restart ;; *) rc-service "$2" "$1" ;; esac
}
openrc_activity() {
  rc-service "$1" status >/dev/null 2>&1
  case $? in 0) echo active ;; 4) echo stopping ;; 8) echo starting ;; 16) echo waiting ;; 32) echo crashed ;; *) echo inactive ;; esac
}
openrc_process() { :; }
openrc_has_finished() { false; }
# openrc_levels NAME: prints the runlevels that start it.
openrc_levels() {
  rc-update show 2>/dev/null | while read -r service bar levels; do
    [ "$service" = "$1" ] || continue
    for level in $levels; do [ "$level" = shutdown ] || echo "$level"; done
  done
}
openrc_enabled() { [ -n "$(openrc_levels "$1")" ]; }
openrc_enable() { rc-update add "$1" default; }
openrc_disable() { for level in $(openrc_levels "$1"); do rc-update del "$1" "$level" || return 1; done; }

sysv_do() {
  if has_command service; then service "$2" "$1"; else "/etc/init.d/$2" "$1"; fi
}
sysv_activity() { if sysv_do status "$1" >/dev/null 2>&1; then echo active; else echo inactive; fi; }
sysv_process() { :; }
# A script that knows no status tells nothing.
sysv_has_finished() { [ -f "/etc/init.d/$1" ] && ! grep -q status "/etc/init.d/$1"; }
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
