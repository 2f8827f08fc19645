//! The ServerSpecs of `deploy/server-specs` on nodes of Debian, offline: each is converged as its users would, does what it is
//! for, changes nothing the second time, and notices when somebody breaks it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use pallet_api::{
    GroupNode, ServerSpec,
    group_node::{Effect, Outcome},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Space, busybox, node, phase_result, wait};

/// Where nodes find the packages.
const PACKAGES: &str = "/packages";

/// What `tests/cluster/packages/build` has made. The cluster's kubeconfig lies in CACHE/clusters/NAME.
fn packages() -> PathBuf {
    let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").expect("the test cluster's KUBECONFIG"));
    let link = kubeconfig.ancestors().nth(3).expect("the cache").join("packages");
    fs::canonicalize(&link).unwrap_or_else(|error| panic!("{link:?}: {error}; run tests/cluster/packages/build"))
}

/// A group whose nodes are Debian with the packages as their only source, which extends one ServerSpec.
fn group(name: &str, with: Value) -> Value {
    let mut debian = node("localhost/debian:12");
    let pod = &mut debian["pod"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "packages", "hostPath": {"path": packages(), "type": "Directory"}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "packages", "mountPath": PACKAGES, "readOnly": true}]);
    let key = fs::read_to_string(packages().join("archive.asc")).expect("the key of the packages");
    json!({
        "node": debian,
        "extends": [{"serverSpec": name, "with": with}],
        "phases": {"bootstrap": {"actions": [
            {"file": {"path": "/etc/apt/sources.list", "content": ""}},
            {"packageSource": {"name": "packages", "apt": {
                "uri": format!("file:{PACKAGES}"), "suite": "bookworm", "components": ["main"], "key": key
            }}}
        ]}},
        "converge": {"retry": {"limit": 5, "backoff": "1s"}, "driftCheck": {"interval": "10s"}}
    })
}

impl Space {
    /// Applies a ServerSpec as it stands in `deploy/server-specs`.
    async fn apply_crate(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/server-specs/{name}.yaml"));
        let text = fs::read_to_string(&path).expect("the ServerSpec");
        let object: Value = serde_saphyr::from_str(&text).expect("YAML");
        let specs: Api<ServerSpec> = Api::namespaced(self.client.clone(), &self.name);
        let parameters = PatchParams::apply("e2e").force();
        specs.patch(name, &parameters, &Patch::Apply(object)).await.expect("the ServerSpec is accepted");
    }

    /// Converges a group that extends one ServerSpec, then once more, and makes sure that the second time changes nothing.
    async fn converge(&self, name: &str, with: Value) {
        self.apply_crate(name).await;
        self.apply(group(name, with)).await;
        self.installed().await;
        self.ready().await;
        self.expect_no_changes().await;
    }

    /// Packages may take most of the time that there is for one thing.
    async fn installed(&self) {
        let installed = |node: &GroupNode| {
            phase_result(node, "install").is_some_and(|phase_result| phase_result.outcome == Outcome::Succeeded)
        };
        self.node_until("web-0", "the packages are installed", installed).await;
    }

    async fn expect_no_changes(&self) {
        let before = self.configured().await.run_id;
        self.patch(json!({"spec": {"converge": {"reapply": before.clone()}}})).await;
        self.ready().await;
        let again = self.configured().await;
        assert_ne!(again.run_id, before, "configure ran again");
        let changed: Vec<_> = again
            .actions
            .iter()
            .filter(|action| !matches!(action.result, Effect::Unchanged | Effect::Skipped))
            .collect();
        assert!(changed.is_empty() && !again.actions.is_empty(), "the second time changed {changed:#?}");
    }

    async fn configured(&self) -> pallet_api::group_node::PhaseResult {
        let node = self.nodes().get("web-0").await.expect("the GroupNode");
        let phase_result = phase_result(&node, "configure").expect("a phase result of configure");
        assert_eq!(phase_result.outcome, Outcome::Succeeded);
        phase_result
    }

    /// Runs a script that breaks something, waits until a look at the node has found it, and lets configure put it right.
    async fn break_and_mend(&self, script: &str, found: &str) {
        self.kubectl_exec("web-0", script).await;
        self.node_until("web-0", &format!("{found} is noticed"), |node| is_noticed(node, found)).await;
        let before = self.configured().await.run_id;
        self.patch(json!({"spec": {"converge": {"reapply": format!("{before} mend")}}})).await;
        self.ready().await;
        self.node_until("web-0", "all is well again", |node| !is_noticed(node, found)).await;
    }

    async fn apply_secret(&self, name: &str, key: &str, value: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        let secret = json!({"metadata": {"name": name}, "stringData": {key: value}});
        let secret = serde_json::from_value(secret).expect("a Secret");
        secrets.create(&PostParams::default(), &secret).await.expect("the Secret is accepted");
    }

    /// What the node answers by HTTP: tests reach pods as other pods do.
    async fn get(&self, port: u16) -> Result<String, String> {
        let pod = self.pods().get("web-0").await.expect("the pod");
        let address = pod.status.and_then(|status| status.pod_ip).expect("its address");
        let answer = async {
            let mut stream = TcpStream::connect((address.as_str(), port)).await?;
            stream.write_all(b"GET / HTTP/1.0\r\nHost: test\r\n\r\n").await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            Ok::<_, std::io::Error>(text)
        };
        answer.await.map_err(|error| error.to_string())
    }
}

/// Whether the last look at the node found that an action or an expectation is otherwise than declared.
fn is_noticed(node: &GroupNode, what: &str) -> bool {
    let Some(status) = &node.status else { return false };
    let drifted = status.conditions.iter().any(|condition| condition.type_ == "Drifted" && condition.status == "True");
    let differences = status.drift.iter().flat_map(|drift| &drift.differences);
    let tested = phase_result(node, "test").into_iter().flat_map(|phase_result| phase_result.actions);
    (drifted && differences.into_iter().any(|difference| difference.name == what))
        || tested.into_iter().any(|action| action.name == what && action.result == Effect::Failed)
}

#[tokio::test]
async fn base_sets_sources_time_zone_and_locale() {
    let Some(space) = Space::new("crate-base").await else { return };
    let with = json!({
        "mirror": format!("file:{PACKAGES}"), "updates": false, "timezone": "Europe/Vienna", "locale": "de_AT.UTF-8",
        "minFreePercent": 0
    });
    // The mirror is signed by a key that apt trusts, as Debian's would be.
    let key = fs::read_to_string(packages().join("archive.asc")).expect("the key of the packages");
    let mut spec = group("base", with);
    spec["phases"]["bootstrap"]["actions"] =
        json!([{"file": {"path": "/etc/apt/trusted.gpg.d/packages.asc", "content": key}}]);
    space.apply_crate("base").await;
    space.apply(spec).await;
    space.installed().await;
    space.ready().await;
    space.expect_no_changes().await;
    let seen = space.kubectl_exec("web-0", "date -d @0 +%Z; . /etc/default/locale; export LANG; locale charmap; locale 2>&1 | head -n 1; curl --version | cut -c1-4 | head -n 1").await;
    assert_eq!(seen, "CET\nUTF-8\nLANG=de_AT.UTF-8\ncurl\n");
    let sources =
        space.kubectl_exec("web-0", "grep -rhE '^(deb|URIs)' /etc/apt/sources.list /etc/apt/sources.list.d").await;
    assert_eq!(sources, "URIs: file:/packages\n");
    space.break_and_mend("ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime", "base/time zone").await;
}

#[tokio::test]
async fn admin_user_logs_in_by_key_and_may_do_everything() {
    let Some(space) = Space::new("crate-admin").await else { return };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKq1n5BU0XJk9cB3yuMVNXBqPNsJVHcWNCkVWJRXRPTJ anna@example.com";
    space.converge("admin-user", json!({"user": "anna", "fullName": "Anna A.", "key": key})).await;
    let seen = space
        .kubectl_exec(
            "web-0",
            "runuser -u anna -- sudo -n id -un; runuser -u anna -- id -Gn; stat -c '%U %a' ~anna/.ssh/authorized_keys",
        )
        .await;
    assert_eq!(seen, "root\nanna adm\nanna 600\n");
    assert_eq!(space.kubectl_exec("web-0", "cat ~anna/.ssh/authorized_keys").await, format!("{key}\n"));
    space.break_and_mend("rm /etc/sudoers.d/pallet-anna", "admin-user/admin").await;
    assert_eq!(space.kubectl_exec("web-0", "runuser -u anna -- sudo -n id -un").await, "root\n");
}

#[tokio::test]
async fn hardening_is_in_effect_for_sshd_logins_and_upgrades() {
    let Some(space) = Space::new("crate-hardening").await else { return };
    space.converge("hardening", json!({"sshPort": 2222, "allowUsers": ["anna", "bert"]})).await;
    let seen = space
        .kubectl_exec(
            "web-0",
            "sshd -t && sshd -T | grep -E '^(port|permitrootlogin|passwordauth|x11forwarding|allowusers)'",
        )
        .await;
    assert_eq!(
        seen,
        "port 2222\npermitrootlogin no\npasswordauthentication no\nx11forwarding no\nallowusers anna\nallowusers bert\n"
    );
    // What listens is sshd with these settings: it greets, and offers keys only.
    let offered = space
        .kubectl_exec(
            "web-0",
            "ssh -p 2222 -o BatchMode=yes -o StrictHostKeyChecking=no nobody@127.0.0.1 2>&1 | tail -n 1",
        )
        .await;
    assert!(offered.trim().ends_with("Permission denied (publickey)."), "{offered}");
    let seen = space.kubectl_exec("web-0", "grep -E '^(UMASK|PASS_MAX_DAYS)' /etc/login.defs; cat /etc/sysctl.d/60-hardening.conf; unattended-upgrade --dry-run >/dev/null && echo upgrades").await;
    assert!(seen.starts_with("UMASK\t\t027\nPASS_MAX_DAYS\t365\n") || seen.contains("\nUMASK\t\t027\n"), "{seen}");
    assert!(seen.contains("\nkernel.kptr_restrict = 2\n") && seen.ends_with("upgrades\n"), "{seen}");
    let weaken =
        "sed -i 's/^PasswordAuthentication .*/PasswordAuthentication yes/' /etc/ssh/sshd_config.d/10-hardening.conf";
    space.break_and_mend(weaken, "hardening/sshd settings").await;
    // Settings that sshd refuses never reach the one that runs.
    let mut spec = group("hardening", json!({"sshPort": 2222, "rootLogin": "sometimes"}));
    spec["converge"]["retry"]["limit"] = json!(0);
    space.apply(spec).await;
    let failed = |node: &GroupNode| {
        phase_result(node, "configure").is_some_and(|phase_result| phase_result.outcome == Outcome::Failed)
    };
    let node = space.node_until("web-0", "configure fails", failed).await;
    let last = phase_result(&node, "configure")
        .and_then(|phase_result| phase_result.actions.last().cloned())
        .expect("an action");
    assert_eq!((last.name.as_str(), last.result), ("hardening/right sshd settings", Effect::Failed));
    space.kubectl_exec("web-0", "kill -0 $(cat /run/sshd.pid)").await;
}

#[tokio::test]
async fn time_sync_asks_the_servers_that_are_declared() {
    let Some(space) = Space::new("crate-time").await else { return };
    space.converge("time-sync", json!({"servers": ["192.0.2.1", "ntp.example.com"], "allow": ["10.0.0.0/8"]})).await;
    let seen = space
        .kubectl_exec(
            "web-0",
            "chronyc -c -N sources -a | cut -d, -f3; chronyc accheck 10.1.2.3; chronyc accheck 192.0.2.7",
        )
        .await;
    assert_eq!(seen, "192.0.2.1\nntp.example.com\n208 Access allowed\n209 Access denied\n");
    space.break_and_mend("chronyc shutdown", "time-sync/runs").await;
    space.break_and_mend("rm /etc/chrony/sources.d/servers.sources", "time-sync/servers").await;
    assert_eq!(space.kubectl_exec("web-0", "chronyc -c -N sources -a | wc -l").await, "2\n");
}

#[tokio::test]
async fn nginx_serves_the_site_and_keeps_serving_while_it_changes() {
    let Some(space) = Space::new("crate-nginx").await else { return };
    space.converge("nginx", json!({"port": 8080, "page": "<h1>Hello</h1>\n", "workers": 3})).await;
    let page = space.get(8080).await.expect("the page");
    assert!(page.starts_with("HTTP/1.1 200") && page.ends_with("<h1>Hello</h1>\n"), "{page}");
    space.get(80).await.expect_err("Debian's own site is gone");
    let master = space.kubectl_exec("web-0", "cat /run/nginx.pid").await;
    // A change is a reload: the process stays.
    space.apply(group("nginx", json!({"port": 8081, "page": "<h1>Moved</h1>\n", "workers": 3}))).await;
    space.ready().await;
    let moved = wait("the page at its new port", || space.get(8081)).await;
    assert!(moved.ends_with("<h1>Moved</h1>\n"), "{moved}");
    assert_eq!(space.kubectl_exec("web-0", "cat /run/nginx.pid").await, master);
    space.break_and_mend("service nginx stop", "nginx/port").await;
    space.break_and_mend("echo nonsense >>/etc/nginx/sites-available/site", "nginx/configuration").await;
    // Where that is wanted it is put right by itself, though it is the test that notices first.
    space.patch(json!({"spec": {"converge": {"driftCheck": {"policy": "Reapply"}}}})).await;
    space.ready().await;
    space.kubectl_exec("web-0", "service nginx stop").await;
    wait("the page is there again", || space.get(8081)).await;
    space.ready().await;
    // A site that nginx refuses never reaches the one that runs.
    let mut spec = group("nginx", json!({"port": 8082, "proxyTo": "nonsense", "page": "<h1>Moved</h1>\n"}));
    spec["converge"]["retry"]["limit"] = json!(0);
    space.apply(spec).await;
    let failed = |node: &GroupNode| {
        phase_result(node, "configure").is_some_and(|phase_result| phase_result.outcome == Outcome::Failed)
    };
    space.node_until("web-0", "configure fails", failed).await;
    assert!(space.get(8081).await.expect("the old site").ends_with("<h1>Moved</h1>\n"));
}

#[tokio::test]
async fn postgresql_lets_the_role_in_from_where_it_may_come() {
    let Some(space) = Space::new("crate-postgresql").await else { return };
    let password = "pa'ss \"w\\ord$1";
    space.apply_secret("shop-db", "password", password).await;
    // Nodes of this role may log in.
    space.apply_as("client", json!({"roles": ["postgresql_client"], "node": busybox()})).await;
    space.ready_as("client").await;
    let with = json!({
        "database": "shop", "role": "shop-owner", "secret": "shop-db", "port": 5433, "listen": ["*"],
        "clients": ["198.51.100.0/24"], "settings": {"shared_buffers": "32MB", "log_statement": "all"}
    });
    space.converge("postgresql", with).await;
    let login = |options: &str| {
        format!(
            "printf '%s\\n' '*:*:*:*:pa'\\''ss \"w\\\\ord$1' >~/.pgpass; chmod 600 ~/.pgpass; psql -XqAt -w {options} -U shop-owner -d shop -c 'SHOW shared_buffers; SHOW data_checksums; CREATE TEMP TABLE t (); SELECT current_user' 2>&1"
        )
    };
    assert_eq!(space.kubectl_exec("web-0", &login("-h 127.0.0.1 -p 5433")).await, "32MB\non\nshop-owner\n");
    let address = space.kubectl_exec("web-0", "hostname -i").await;
    let refused =
        space.kubectl_exec("web-0", &format!("{} || true", login(&format!("-h {} -p 5433", address.trim())))).await;
    assert!(refused.contains("no pg_hba.conf entry"), "{refused}");
    let client = space.pods().get("client-0").await.unwrap().status.unwrap().pod_ip.unwrap();
    let rules = space.kubectl_exec("web-0", "runuser -u postgres -- psql -XqAt -c \"SELECT address FROM pg_hba_file_rules WHERE 'shop' = ANY (database)\"").await;
    assert_eq!(rules, format!("198.51.100.0\n{client}\n"));
    // The password is in no log of the server, though it writes down every statement.
    let found = space.kubectl_exec("web-0", "grep -rFc 'ord$1' /var/log/postgresql | grep -v ':0$' || true").await;
    assert_eq!(found, "");
    space
        .break_and_mend(
            "runuser -u postgres -- psql -Xqc \"ALTER ROLE \\\"shop-owner\\\" PASSWORD 'other'\"",
            "postgresql/role",
        )
        .await;
    assert_eq!(space.kubectl_exec("web-0", &login("-h 127.0.0.1 -p 5433")).await, "32MB\non\nshop-owner\n");
    space.break_and_mend("service postgresql stop", "postgresql/runs").await;
}

#[tokio::test]
async fn java_app_runs_as_its_own_user_and_follows_what_is_declared() {
    let Some(space) = Space::new("crate-java").await else { return };
    let jar = fs::read(packages().join("app.jar")).expect("the application");
    let sum: String = Sha256::digest(&jar).iter().map(|byte| format!("{byte:02x}")).collect();
    let with = |greeting: &str, secret: Option<&str>| {
        json!({
            "url": format!("file://{PACKAGES}/app.jar"), "sha256": sum, "port": 8090, "heapMegabytes": 64,
            "jvmOptions": ["-Dapp.mode=quiet please", "-XX:TieredStopAtLevel=1"], "arguments": ["first", "and second"],
            "environment": {"GREETING": greeting}, "secret": secret
        })
    };
    space.converge("java-app", with("hello $HOME", None)).await;
    let says = space.get(8090).await.expect("an answer");
    let body = says.split_once("\r\n\r\n").expect("a body").1;
    assert_eq!(
        body,
        "arguments=first,and second\ngreeting=hello $HOME\nsecret=none\nproperty=quiet please\nuser=java-app\nheap=64\n"
    );
    // A changed environment and a secret are a restart.
    space.apply_secret("java-token", "environment", "TOKEN='0123456789'\n").await;
    space.apply(group("java-app", with("good bye", Some("java-token")))).await;
    space.ready().await;
    let says = space.get(8090).await.expect("an answer");
    assert!(says.contains("greeting=good bye\n") && says.contains("secret=10 characters\n"), "{says}");
    assert_eq!(space.kubectl_exec("web-0", "stat -c '%U:%G %a' /etc/java-app/secret").await, "root:java-app 640\n");
    space.expect_no_changes().await;
    space.break_and_mend("service java-app stop", "java-app/runs").await;
    space.break_and_mend("echo broken >/opt/java-app/app.jar", "java-app/jar").await;
    space.get(8090).await.expect("an answer");
}
