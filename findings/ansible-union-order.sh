#!/usr/bin/env bash
# ansible-core 2.19.14 (Python 3.11): the filter `union` returns its elements in an order that changes from run to run.
#
# Expected: a list filter keeps the order of its arguments, as `unique` does, or sorts. Documentation and examples show
# results in the order of the arguments.
# Seen: for hashable elements the filter builds Python sets. The order of a set of strings depends on the hash seed of the
# process, which is new in every run. A template with `union` (also `intersect`, `difference`, `symmetric_difference`)
# renders another file in the next run, reports "changed", and notifies its handlers, though nothing changed.
#
# Output seen with PYTHONHASHSEED=1 and 2 (the elements of ['c','a','b','d'] | union(['x','y','z'])):
#   x d a b y c z
#   c b z d x y a
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$dir/lib" ansible-core==2.19.14
cat >"$dir/play.yml" <<'YAML'
- hosts: localhost
  gather_facts: false
  tasks:
  - debug: {msg: "<{{ ['c', 'a', 'b', 'd'] | union(['x', 'y', 'z']) | join(' ') }}>"}
YAML
run() {
  HOME=$dir PYTHONHASHSEED=$1 PYTHONPATH=$dir/lib ANSIBLE_LOCALHOST_WARNING=false \
    "$dir/lib/bin/ansible-playbook" -i localhost, -c local "$dir/play.yml" | grep -o '<[^>]*>'
}
first=$(run 1) second=$(run 2)
echo "PYTHONHASHSEED=1: $first"
echo "PYTHONHASHSEED=2: $second"
[ "$(tr -d '<>' <<<"$first" | tr ' ' '\n' | sort | tr -d '\n')" = abcdxyz ] || {
  echo "CHANGED: other elements"
  exit 1
}
[ "$first" != "$second" ] || {
  echo "CHANGED: the order no longer depends on the hash seed"
  exit 1
}
echo "as described: the order depends on the hash seed"
