set -eu
host=$(hostname)

changed() {
  cd /srv/bench && sha256sum app.conf >app.conf.sum && echo changed >>changes
}

cat >/srv/bench/app.conf.new <<END
# The settings of $host. They are made anew when the name changes.
[server]
name = $host
listen = 0.0.0.0:8080
health = http://$host:8080/healthz

[limits]
requests-1 = 100  # for each of requests, in class 1
connections-1 = 8019  # for each of connections, in class 1
handlers-1 = 5965  # for each of handlers, in class 1
sessions-1 = 3911  # for each of sessions, in class 1
retries-1 = 1857  # for each of retries, in class 1
uploads-1 = 9776  # for each of uploads, in class 1
downloads-1 = 7722  # for each of downloads, in class 1
queries-1 = 5668  # for each of queries, in class 1
workers-1 = 3614  # for each of workers, in class 1
backlog-1 = 1560  # for each of backlog, in class 1
requests-2 = 9479  # for each of requests, in class 2
connections-2 = 7425  # for each of connections, in class 2
handlers-2 = 5371  # for each of handlers, in class 2
sessions-2 = 3317  # for each of sessions, in class 2
retries-2 = 1263  # for each of retries, in class 2
uploads-2 = 9182  # for each of uploads, in class 2
downloads-2 = 7128  # for each of downloads, in class 2
queries-2 = 5074  # for each of queries, in class 2
workers-2 = 3020  # for each of workers, in class 2
backlog-2 = 966  # for each of backlog, in class 2
requests-3 = 8885  # for each of requests, in class 3
connections-3 = 6831  # for each of connections, in class 3
handlers-3 = 4777  # for each of handlers, in class 3
sessions-3 = 2723  # for each of sessions, in class 3
retries-3 = 669  # for each of retries, in class 3
uploads-3 = 8588  # for each of uploads, in class 3
downloads-3 = 6534  # for each of downloads, in class 3
queries-3 = 4480  # for each of queries, in class 3
workers-3 = 2426  # for each of workers, in class 3
backlog-3 = 372  # for each of backlog, in class 3
requests-4 = 8291  # for each of requests, in class 4
connections-4 = 6237  # for each of connections, in class 4
handlers-4 = 4183  # for each of handlers, in class 4
sessions-4 = 2129  # for each of sessions, in class 4
#..........................................................
END
if cmp -s /srv/bench/app.conf.new /srv/bench/app.conf; then
  rm /srv/bench/app.conf.new
else
  chmod 0644 /srv/bench/app.conf.new
  mv /srv/bench/app.conf.new /srv/bench/app.conf
  changed
fi
