# package_ MANAGER STATE NAME...: changed is what the manager's own list says before and after.
package_() {
  manager=$1 state=$2
  case $manager in yum) manager=dnf tool=yum ;; *) tool=$manager ;; esac
  shift 2
  wanted=
  for package in "$@"; do
    if "${manager}_has" "$package"; then has=yes; else has=no; fi
    case $state:$has in present:no | latest:* | absent:yes) wanted="$wanted $package" ;; esac
  done
  if [ -z "$wanted" ]; then result=Unchanged; return 0; fi
  if [ "$mode" = check ]; then would_packages $wanted; return; fi
  before=$("${manager}_list") || return 1
  # Names hold no blanks and no patterns: they were checked before they were put here.
  "${manager}_$state" $wanted </dev/null || return 1
  [ "$before" != "$("${manager}_list")" ] || result=Unchanged
}

# Whether there are newer ones is known as far as the node's lists go: fetching them would change the node.
would_packages() {
  [ "$state" = latest ] || return 0
  for package in "$@"; do "${manager}_has" "$package" || return 0; done
  newer=$("${manager}_newer" "$@") || { complain "package: the node's lists do not say whether there are newer ones"; return 1; }
  [ -n "$newer" ] || result=Unchanged
}

apt_() {
  DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}
apt_list() { dpkg-query -W -f '${Package}:${Architecture} ${Version} ${db:Status-Status}\n'; }
apt_has() {
  installed=$(dpkg-query -W -f '${db:Status-Status} ${Version}\n' "${1%%=*}" 2>/dev/null) || return 1
  case $1 in
  *=*) [ "$installed" = "installed ${1#*=}" ] ;;
  *) case $installed in installed\ *) ;; *) return 1 ;; esac ;;
  esac
}
# A node that has never fetched its lists knows no package; one that has old lists may ask for files that are gone.
apt_present() {
  for list in /var/lib/apt/lists/*_Packages*; do
    [ -e "$list" ] || apt_ update || return 1
    break
  done
  apt_ install --allow-downgrades "$@" || { apt_ update && apt_ install --allow-downgrades "$@"; }
}
apt_latest() { apt_ update && apt_ install --allow-downgrades "$@"; }
apt_absent() { apt_ remove "$@"; }
# Without its caches, which even a simulation would write.
apt_newer() {
  plan=$(apt_ -s -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= install --allow-downgrades "$@" </dev/null) || return 1
  printf '%s\n' "$plan" | sed -n '/^Inst /p'
}

apk_list() { apk info -v 2>/dev/null | sort; }
apk_has() { apk info -e "$1" >/dev/null 2>&1; }
apk_present() { apk add "$@" || apk -U add "$@"; }
apk_latest() { apk -U add -u "$@"; }
apk_absent() { apk del "$@"; }
apk_newer() {
  plan=$(apk add -s -u "$@" </dev/null) || return 1
  printf '%s\n' "$plan" | sed -n '/^([0-9]/p'
}

dnf_list() { rpm -qa | sort; }
dnf_has() { rpm -q --whatprovides "$1" >/dev/null 2>&1 || rpm -q "$1" >/dev/null 2>&1; }
dnf_present() { "$tool" -y install "$@"; }
dnf_latest() { "$tool" -y install "$@" && { "$tool" -y upgrade "$@" || "$tool" -y update "$@"; }; }
dnf_absent() { "$tool" -y remove "$@"; }
# 100 says that there are some. From its cache, and with its log elsewhere.
dnf_newer() {
  plan=$("$tool" -q -C --setopt=logdir="$journal" check-update "$@" </dev/null)
  case $? in 0) ;; 100) printf '%s\n' "$plan" ;; *) return 1 ;; esac
}
