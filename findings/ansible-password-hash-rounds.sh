#!/usr/bin/env bash
# ansible-core 2.19.14 with passlib 1.7.4 (Python 3.11): the filter `password_hash` with sha512 writes 656000 rounds into the hash.
#
# Expected: crypt(3), mkpasswd, openssl passwd and cloud-init use 5000 rounds and leave the field out of the hash, so that a hash for
# /etc/shadow was expected to look like theirs, and to cost as much.
# Seen: the hash begins with `$6$rounds=656000$`. Making or checking one takes over 100 times as long: each login and each sudo with
# such a password costs that on the machine, and a play that makes one for each host costs it on the controller. With `rounds=5000` the
# field is left out, and the hash is the one that openssl makes.
#
# Output seen:
#   default: $6$rounds=656000$
#   rounds=5000: same as openssl
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$dir/lib" ansible-core==2.19.14 passlib==1.7.4
cat >"$dir/play.yml" <<'YAML'
- hosts: localhost
  gather_facts: false
  tasks:
  - debug: {msg: "<{{ 'example' | password_hash('sha512', 'saltsaltsalt') }}>"}
  - debug: {msg: "<{{ 'example' | password_hash('sha512', 'saltsaltsalt', rounds=5000) }}>"}
YAML
mapfile -t hashes < <(HOME=$dir PYTHONPATH=$dir/lib ANSIBLE_LOCALHOST_WARNING=false \
  "$dir/lib/bin/ansible-playbook" -i localhost, -c local "$dir/play.yml" | grep -o '<[^>]*>' | tr -d '<>')
begin=$(cut -d'$' -f1-3 <<<"${hashes[0]}")
echo "default: $begin\$"
plain=$(openssl passwd -6 -salt saltsaltsalt example)
[ "${hashes[1]}" = "$plain" ] && echo "rounds=5000: same as openssl" || echo "rounds=5000: ${hashes[1]} and $plain"
[ "$begin" = '$6$rounds=656000' ] || {
  echo "CHANGED: the default has other rounds"
  exit 1
}
[ "${hashes[1]}" = "$plain" ] || {
  echo "CHANGED: 5000 rounds make another hash than openssl"
  exit 1
}
echo "as described: the default costs 131 times as many rounds as crypt's"
