set -eu
cd /srv/bench
sha256sum -c --status app.conf.sum
free=$(df -Pk . | awk 'NR == 2 { print $4 }')
[ "$free" -ge 102400 ]
