//! Packages and services on a real Debian, offline: the package is built on the node, by the node's own tools.

use pallet_api::group_node::Effect;
use serde_json::json;

use crate::harness::{Space, node, phase_result};

/// Makes a package with a service of its own, and a source of packages that has it.
pub const SOURCE: &str = r#"
mkdir -p /repo/hello/DEBIAN /repo/hello/etc/init.d
cat >/repo/hello/DEBIAN/control <<END
Package: pallet-hello
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.com>
Description: a service that sleeps
END
cat >/repo/hello/etc/init.d/pallet-hello <<'END'
#!/bin/sh
### BEGIN INIT INFO
# Provides:          pallet-hello
# Required-Start:
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
### END INIT INFO
pid=/run/pallet-hello.pid
running() { kill -0 "$(cat $pid 2>/dev/null)" 2>/dev/null; }
case $1 in
start) running || { sleep 100000 </dev/null >/dev/null 2>&1 & echo $! >$pid; } ;;
stop) kill "$(cat $pid)"; rm -f $pid ;;
restart) "$0" stop; "$0" start ;;
reload) echo reloaded >>/run/pallet-hello.log ;;
status) running ;;
esac
END
chmod 755 /repo/hello/etc/init.d/pallet-hello
dpkg-deb --build /repo/hello /repo/pallet-hello.deb
cd /repo
{
  dpkg-deb -f pallet-hello.deb
  echo "Filename: ./pallet-hello.deb"
  echo "Size: $(wc -c <pallet-hello.deb)"
  echo "SHA256: $(sha256sum pallet-hello.deb | cut -d' ' -f1)"
} >Packages
echo 'deb [trusted=yes] file:/repo ./' >/etc/apt/sources.list
"#;

#[tokio::test]
async fn a_package_is_installed_and_its_service_runs() {
    let Some(space) = Space::new("packages").await else { return };
    let spec = |reapply: &str, state: &str| {
        json!({
            "node": node("localhost/debian:12"),
            "phases": {
                "bootstrap": {"actions": [{"exec": {"script": SOURCE}}]},
                "configure": {"actions": [
                    {"name": "package", "package": {"names": ["pallet-hello"]}},
                    {"name": "directory", "directory": {"path": "/etc/hello.d", "mode": "0750"}},
                    {"name": "link", "symlink": {"path": "/etc/hello", "target": "hello.d"}},
                    {"name": "service", "service": {"name": "pallet-hello", "state": state, "enabled": true}}
                ]},
                "test": {"expect": [{"name": "manager", "expression": "facts.os.packageManager == 'apt' && facts.os.serviceManager == 'sysv'"}]}
            },
            "converge": {"phases": ["configure", "test"], "reapply": reapply, "retry": {"limit": 0}}
        })
    };
    let effects = || async {
        let node = space.nodes().get("web-0").await.unwrap();
        let phase_result = phase_result(&node, "configure").expect("a phase result");
        phase_result.actions.iter().map(|action| action.result).collect::<Vec<_>>()
    };
    space.apply(spec("", "started")).await;
    space.ready().await;
    assert_eq!(effects().await, [Effect::Changed; 4]);
    let seen = space
        .kubectl_exec(
            "web-0",
            "dpkg -s pallet-hello | grep Status; service pallet-hello status && echo runs; ls /etc/rc2.d | grep hello",
        )
        .await;
    assert!(seen.starts_with("Status: install ok installed\nruns\nS"), "{seen}");
    space.apply(spec("again", "started")).await;
    space.ready().await;
    assert_eq!(effects().await, [Effect::Unchanged; 4]);
    space.apply(spec("again", "reloaded")).await;
    space.ready().await;
    assert_eq!(space.kubectl_exec("web-0", "cat /run/pallet-hello.log").await, "reloaded\n");
}
