# package_ MANAGER STATE [recommends=true|false] [release=NAME] [purge] -- NAME...: changed is what the manager's own list says
# before and after. What is still otherwise than asked for afterwards is a failure.
package_() {
  manager=$1 tool=$1 state=$2 recommends= release= purge= automatic=
  [ "$manager" != yum ] || manager=dnf
  shift 2
  while [ "$1" != -- ]; do
    case $1 in
    recommends=*) recommends=${1#*=} ;;
    release=*) release=${1#*=} ;;
    purge) purge=yes ;;
    esac
    shift
  done
  shift
  # The arguments become what has to be done.
  for package in "$@"; do
    shift
    real=$package
    if "${manager}_has" "$package"; then has=yes; else has=no; fi
    case $state:$has in
    present:no | latest:* | absent:yes) set -- "$@" "$real" ;;
    present:yes) [ "$manager" != apt ] || ! apt_is_automatic "$real" || automatic="$automatic ${real%%[=/]*}" ;;
    esac
  done
  if [ "$#$automatic" = 0 ]; then
    result=Unchanged
    return 0
  fi
  if [ "$mode" = check ]; then
    [ "$#" = 0 ] || would_packages "$@"
    return
  fi
  if [ -n "$automatic" ]; then
    # Names hold no blanks; patterns are in versions only.
    apt-mark -o DPkg::Lock::Timeout=300 manual $automatic </dev/null || return 1
    [ "$#" != 0 ] || return 0
  fi
  before=$("${manager}_list") || return 1
  "${manager}_$state" "$@" || return 1
  [ "$before" != "$("${manager}_list")" ] || [ -n "$automatic" ] || result=Unchanged
  for package in "$@"; do
    if "${manager}_has" "$package"; then has=yes; else has=no; fi
    case $manager:$state:$has in
    # dnf takes more than names, such as urls, of which rpm knows nothing.
    *:absent:yes) complain "package: $package is still installed; see above" ;;
    apt:[pl]*:no | apk:[pl]*:no) complain "package: $package is still not installed; see above" ;;
    *) continue ;;
    esac
    return 1
  done
}

# Whether there are newer ones is known as far as the node's lists go: fetching them would change the node.
would_packages() {
  [ "$state" = latest ] || return 0
  for package in "$@"; do "${manager}_has" "$package" || return 0; done
  newer=$("${manager}_newer" "$@") || {
    complain "package: the node's lists do not say whether there are newer ones"
    return 1
  }
  [ -n "$newer" ] || result=Unchanged
}

# apt_ OPTION...: apt-get. Its own timeout covers dpkg's lock, but not those of the lists and of the archives, which are
# waited for here, so many seconds at most. What apt says on stderr comes when it ends, and stays in $journal/apt.
lock_patience=300
apt_() {
  waited=0
  while :; do
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
      -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" </dev/null 2>"$journal/apt"
    code=$?
    # It names the file in every language, and the cause by number where it is not that somebody holds it.
    if [ "$code" = 0 ] || [ "$waited" -ge "$lock_patience" ] ||
      ! grep '^E: .*/\(lists\|archives\)/lock' "$journal/apt" | grep -v ' ([0-9]*: ' | grep -q .; then
      cat "$journal/apt" >&2
      return "$code"
    fi
    [ "$waited" != 0 ] || complain "package: another process holds a lock of apt; waiting up to $lock_patience s"
    waited=$((waited + 1))
    sleep 1
  done
}
apt_list() { dpkg-query -W -f '${Package}:${Architecture} ${Version} ${db:Status-Status}\n'; }

# apt_split NAME: sets $name, which may end with :ARCHITECTURE, and $version, a pattern.
apt_split() {
  # shellcheck disable=SC2125 # a pattern for case
  name=${1%%[=/]*} version=*
  name=${name%:native} name=${name%:any}
  case $1 in *=*) version=${1#*=} ;; esac
}

# apt_has NAME: a name without architecture is of the node's own, but none of them is to be there where it is to be absent. What
# only installed packages provide is there, too; then $real becomes one of them.
apt_has() {
  apt_split "$1"
  case $state:$1 in absent:*) ;; *[=/:]) return 1 ;; esac
  native=$(dpkg --print-architecture 2>/dev/null)
  dpkg-query -W -f '${db:Status-Status} ${Version} ${Architecture}\n' "$name" 2>/dev/null | {
    while read -r status there architecture; do
      case $state:$status:$purge in
      *:not-installed:* | absent:config-files:) continue ;;
      absent:*) architecture= ;;
      *:installed:*) ;;
      *) continue ;;
      esac
      case $name:$architecture in *:*:* | *: | *:all | *:"${native:-"$architecture"}") ;; *) continue ;; esac
      # shellcheck disable=SC2254 # a pattern
      case $there in $version) exit 0 ;; esac
    done
    exit 1
  } || {
    [ "$state" != absent ] && apt_is_provided "$1"
    return
  }
  # Which version a release has, apt knows.
  case $1 in */*) [ "$state" = absent ] || { plan=$(apt_newer "$1" 2>/dev/null) && [ -z "$plan" ]; } ;; esac
}

apt_is_provided() {
  case $1 in *[=/:]*) return 1 ;; esac
  provider=$(dpkg-query -W -f '${db:Status-Status} ${Package} ${Provides}\n' 2>/dev/null | grep -F " $1" |
    while read -r status provider provides; do
      case "$status $provides," in "installed $1,"* | "installed $1 ("* | installed\ *", $1,"* | installed\ *", $1 ("*)
        echo "$provider"
        break
        ;;
      esac
    done)
  [ -n "$provider" ] || return 1
  # A package of that very name is meant where there is one.
  ! LC_ALL=C apt-cache -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= policy "$1" 2>/dev/null |
    grep -q '^  Candidate: [^(]' || return 1
  real=$provider
}

apt_is_automatic() {
  apt_split "$1"
  architecture=$native
  case $name in *:*) architecture=${name#*:} name=${name%:*} ;; esac
  grep -A 2 -xF "Package: $name" /var/lib/apt/extended_states 2>/dev/null |
    grep -A 1 -xF "Architecture: $architecture" | grep -q '^Auto-Installed: 1'
}

# apt_are_names NAME...: apt-get takes a name that it does not know for a pattern, or for a name and what is to be done with
# it. Only with these characters.
apt_are_names() {
  for package in "$@"; do
    apt_split "$package"
    case $package in
    *- | *[=/]*+ | *[=/:]) ;;
    *)
      case $name in *[!a-zA-Z0-9:-]*) ;; *) continue ;; esac
      ! apt-cache -o APT::Cache::AllNames=true pkgnames "${name%:*}" 2>/dev/null | grep -qxF -e "${name%:*}" || continue
      ;;
    esac
    unknown=$package
    return 1
  done
}
apt_install() {
  apt_are_names "$@" || {
    complain "package: apt knows no package $unknown"
    return 1
  }
  apt_repairing ${release:+-o "APT::Default-Release=$release"} ${recommends:+-o "APT::Install-Recommends=$recommends"} \
    install --allow-downgrades "$@"
}
# A node that has never fetched its lists knows no package; one that has old lists may ask for files that are gone.
apt_present() {
  for list in /var/lib/apt/lists/*_Packages*; do
    [ -e "$list" ] || apt_ update || return 1
    break
  done
  apt_install "$@" || { apt_ update && apt_install "$@"; }
}
# Before 2.3, apt-get takes lists that could not be fetched for a warning whatever it is asked for.
apt_latest() {
  apt_ update -o APT::Update::Error-Mode=any && ! grep -q '^W: \(Failed to fetch\|Some index files failed\)' "$journal/apt" ||
    {
      complain "package: apt-get update failed, so the newest version is not known"
      return 1
    }
  apt_install "$@"
}
# Of another architecture they are removed by their full names.
apt_absent() {
  left=config-files
  [ -z "$purge" ] || left=-
  for package in "$@"; do
    shift
    apt_split "$package"
    others=$(dpkg-query -W -f '${db:Status-Status} ${Package}:${Architecture}\n' "$name" 2>/dev/null |
      sed -n "/^not-installed /d;/^$left /d;s/^[a-z-]* \([^ ]*:.*\)/\1/p")
    case $others in
    '' | *:"$native" | *:"$native"[!a-z0-9-]* | *:all) set -- "$@" "$name" ;;
    *) for other in $others; do set -- "$@" "$other"; done ;;
    esac
  done
  apt_repairing remove ${purge:+--purge} "$@"
}
# Without its caches, which even a simulation would write.
apt_newer() {
  plan=$(apt_ -s -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    ${release:+-o "APT::Default-Release=$release"} install --allow-downgrades "$@") || return 1
  printf '%s\n' "$plan" | sed -n '/^Inst /p'
}

# apt_repairing OPTION...: apt-get, once more where what a killed one left could be finished.
apt_repairing() { apt_ "$@" || { apt_repair && apt_ "$@"; }; }
apt_repair() {
  for update in /var/lib/dpkg/updates/[0-9]*; do
    [ -e "$update" ] || break
    complain "package: dpkg was interrupted; running dpkg --configure -a"
    DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a </dev/null
    return
  done
  # Dependencies that were not unpacked yet.
  ! apt_ check >/dev/null 2>&1 && apt_ -f --no-remove install
}

apk_list() { apk info -v 2>/dev/null | sort; }
# What is to be absent is the package itself, not what provides it.
apk_has() {
  apk info -e "$1" >/dev/null 2>&1 || return 1
  [ "$state" != absent ] || apk info -v 2>/dev/null | grep -q "^${1%%[=~@]*}-[0-9]"
}
apk_present() { apk add "$@" </dev/null || apk -U add "$@" </dev/null; }
apk_latest() { apk update </dev/null && apk add -u "$@" </dev/null; }
apk_absent() { apk del ${purge:+--purge} "$@" </dev/null; }
apk_newer() {
  plan=$(apk add -s -u "$@" </dev/null) || return 1
  printf '%s\n' "$plan" | sed -n '/^([0-9]/p'
}

dnf_list() { rpm -qa | sort; }
# What is to be absent is the package itself, not what provides it.
dnf_has() {
  case $state:$1 in
  *\**) [ -n "$(rpm -qa "$1")" ] ;;
  absent:*) rpm -q "$1" >/dev/null 2>&1 ;;
  *) rpm -q --whatprovides "$1" >/dev/null 2>&1 || rpm -q "$1" >/dev/null 2>&1 ;;
  esac
}
dnf_() { "$tool" -y "$@" ${recommends:+--setopt=install_weak_deps="$recommends"} </dev/null; }
dnf_present() { dnf_ install "$@"; }
dnf_latest() { dnf_ install "$@" && { dnf_ upgrade "$@" || dnf_ update "$@"; }; }
dnf_absent() { dnf_ remove "$@"; }
# 100 says that there are some. From its cache, and with its log elsewhere.
dnf_newer() {
  plan=$("$tool" -q -C --setopt=logdir="$journal" check-update "$@" </dev/null)
  case $? in 0) ;; 100) printf '%s\n' "$plan" ;; *) return 1 ;; esac
}
