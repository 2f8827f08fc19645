# shellcheck shell=bash
# The bridge that the hosts hang on, and their links. Its addresses clash neither with pods nor with services.

BRIDGE=hosts
GATEWAY=10.99.0.1
BRIDGE_MAC=02:63:00:00:00:00
# A bridge takes 1023 links.
MOST_HOSTS=1000

# Held by descriptor 8, on the network namespace itself: callers with different directories share its bridge.
network_lock() {
  exec 8</proc/self/ns/net
  flock -w 60 8 || die "gave up waiting for another command that changes the network"
}
network_unlock() { exec 8<&-; }

address_of() { echo "10.99.$((1 + $1 / 200)).$((1 + $1 % 200))"; }                    # NUMBER
mac_of() { printf '02:63:00:00:%02x:%02x\n' $(((1 + $1) >> 8)) $(((1 + $1) & 255)); } # NUMBER
link_of() { echo "host-$1"; }                                                         # NUMBER

# Under the lock: sets NUMBERS to as many free ones as there are names.
free_numbers() { # HOW_MANY
  local link number used=()
  while read -r _ link _; do
    link=${link%%@*}
    used[${link#host-}]=1
  done < <(ip -o link show master $BRIDGE 2>/dev/null)
  NUMBERS=()
  for ((number = 0; number < MOST_HOSTS && ${#NUMBERS[@]} < $1; number++)); do
    [[ -n ${used[number]:-} ]] || NUMBERS+=("$number")
  done
  ((${#NUMBERS[@]} == $1)) || die "one bridge takes $MOST_HOSTS hosts, and no more than ${#NUMBERS[@]} are left"
}

bridge_commands() {
  cat <<EOT
link add $BRIDGE address $BRIDGE_MAC type bridge mcast_snooping 0
link set $BRIDGE addrgenmode none
address add $GATEWAY/16 dev $BRIDGE
link set $BRIDGE up
EOT
}

# Neighbours are told each other's link addresses: packets to a host that was cut then vanish. With nobody to answer who
# has the address, the kernel would tell the sender after three seconds that there is no such host.
link_commands() { # NUMBER NAMESPACE
  local link mac
  link=$(link_of "$1") mac=$(mac_of "$1")
  cat <<EOT
link add $link type veth peer name eth0 address $mac netns $2
link set $link addrgenmode none master $BRIDGE up
neighbour replace $(address_of "$1") lladdr $mac dev $BRIDGE nud permanent
EOT
}

# What is done inside of the host's network.
inner_commands() { # NUMBER
  cat <<EOT
link set lo up
link set eth0 addrgenmode none up
address add $(address_of "$1")/16 dev eth0
neighbour replace $GATEWAY lladdr $BRIDGE_MAC dev eth0 nud permanent
route add default via $GATEWAY
EOT
}

# Gives each of the hosts a number, and with it a link and an address.
attach() { # NAME...
  local i name
  network_lock
  ip link show $BRIDGE >/dev/null 2>&1 || bridge_commands | ip -batch -
  free_numbers $#
  i=0
  for name in "$@"; do
    link_commands "${NUMBERS[i]}" "$HOSTS_DIR/$name/net"
    i=$((i + 1))
  done | ip -batch -
  i=0
  for name in "$@"; do
    echo "${NUMBERS[i]}" >"$HOSTS_DIR/$name/number"
    i=$((i + 1))
  done
  network_unlock
}

configure_network() { # NAME
  inner_commands "$(number_of "$1")" | nsenter --net="$HOSTS_DIR/$1/net" ip -batch -
}

# What the kernel still had to say on the host's behalf goes with the old one.
lose_network() { # NAME
  local number
  number=$(number_of "$1")
  network_lock
  ip link delete "$(link_of "$number")"
  umount --lazy "$HOSTS_DIR/$1/net"
  new_network "$1"
  link_commands "$number" "$HOSTS_DIR/$1/net" | ip -batch -
  network_unlock
  configure_network "$1"
}

# The bridge goes with the last link.
detach() { # NAME...
  local name number
  network_lock
  for name in "$@"; do
    read -r number 2>/dev/null <"$HOSTS_DIR/$name/number" || continue
    echo "link delete $(link_of "$number")"
    echo "neighbour delete $(address_of "$number") dev $BRIDGE"
    [[ ! -e $HOSTS_DIR/$name/hidden ]] || echo "route delete unreachable $(address_of "$number")"
  done | ip -force -batch - 2>/dev/null || true
  [[ -n $(ip -o link show master $BRIDGE 2>/dev/null) ]] || ip link delete $BRIDGE 2>/dev/null || true
  network_unlock
}

number_of() { cat "$HOSTS_DIR/$1/number"; } # NAME
cut_host() { ip link set "$(link_of "$(number_of "$1")")" down; }
mend_host() { ip link set "$(link_of "$(number_of "$1")")" up; }
is_cut() { [[ $(ip -o link show "$(link_of "$(number_of "$1")")") != *,UP* ]]; }

# Other hosts still reach it, over the bridge: a machine that is behind a jump host.
hide_host() {
  ip route replace unreachable "$(address_of "$(number_of "$1")")"
  : >"$HOSTS_DIR/$1/hidden"
}
show_host() {
  ip route delete unreachable "$(address_of "$(number_of "$1")")" 2>/dev/null || true
  rm -f "$HOSTS_DIR/$1/hidden"
}
