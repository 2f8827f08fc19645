#!/usr/bin/env bash
# ansible-core 2.19.14: the test `version` orders Debian and RPM pre-releases after their release.
#
# Expected: `'1.0~rc1' is version('1.0', '<')` is true, as for dpkg, apt and rpm, where a tilde sorts before the end of the
# version; package facts of Ansible have such versions.
# Seen: it is false, without an error. The default is a "loose" comparison of numbers and texts, which knows no tilde and no
# epoch: '1:0.9' is older than '2.0' for it, too, whereas dpkg puts any epoch 1 after epoch 0. No type of `version_type` has
# the rules of dpkg or rpm.
#
# Output seen:
#   dpkg: 1.0~rc1 lt 1.0: true       ansible: False
#   dpkg: 1:0.9 gt 2.0: true         ansible: False
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$dir/lib" ansible-core==2.19.14
cat >"$dir/play.yml" <<'YAML'
- hosts: localhost
  gather_facts: false
  tasks:
  - debug: {msg: "<{{ '1.0~rc1' is version('1.0', '<') }} {{ '1:0.9' is version('2.0', '>') }}>"}
YAML
said=$(HOME=$dir PYTHONPATH=$dir/lib "$dir/lib/bin/ansible-playbook" -i localhost, -c local "$dir/play.yml" | grep -o '<[^>]*>')
dpkg --compare-versions '1.0~rc1' lt 1.0 || {
  echo "CHANGED: dpkg orders 1.0~rc1 after 1.0"
  exit 1
}
dpkg --compare-versions '1:0.9' gt 2.0 || {
  echo "CHANGED: dpkg orders 1:0.9 before 2.0"
  exit 1
}
echo "dpkg: both true; ansible: $said"
[ "$said" = "<False False>" ] || {
  echo "CHANGED: the test says $said"
  exit 1
}
echo "as described: the test does not know the rules of dpkg"
