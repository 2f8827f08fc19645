//! Being somebody else by `sudo`: real users, real passwords and a real sudoers, in a mount namespace.

use std::time::Duration;

use pallet_core::{
    phase::{
        ActionKind, Digest, PhaseName,
        action::{KeyRef, RunAs, Sealed, SecretEnv},
        compile,
        render::{Call, Rendered},
        secret::{Secret, Secrets, payload},
    },
    target::{Elevation, Endpoint},
};
use tokio::io::AsyncWriteExt;

use crate::{
    server::{Scratch, Server, Setup, have_root},
    world::{World, closed, failed, greet, run_script, until},
};

/// The password of the users, `correct horse`, as the shadow file has it.
const HASH: &str =
    "$6$palletpallet$Ar0hcg6EXh4MttfQ3a69tO7vnjCw8qU98QaQojxgKOqQnedfvG6ku32KCSp8qG1vlH6duc0c8jJW.by09jeS90";

/// A host with the users `admin` (sudo with a password), `free` (without) and `other` (not in sudoers), each with this
/// login shell.
fn host(sudoers: &str, shell: &str) -> Server {
    let scratch = Scratch::new();
    let directory = scratch.0.display().to_string();
    let mut before = format!("chmod 755 {directory}; chmod 777 {directory}/home\n");
    for (id, user) in [(6001, "admin"), (6002, "free"), (6003, "other")] {
        before += &format!(
            "echo '{user}:x:{id}:{id}::{directory}/home:{shell}' >>{directory}/etc/passwd\n\
             echo '{user}:{HASH}:19000:0:99999:7:::' >>{directory}/etc/shadow\n\
             echo '{user}:x:{id}:' >>{directory}/etc/group\n"
        );
    }
    let sudoers = format!("root ALL=(ALL) ALL\nadmin ALL=(ALL) ALL\nfree ALL=(ALL) NOPASSWD: ALL\n{sudoers}\n");
    std::fs::write(scratch.path("sudoers"), sudoers).unwrap();
    before += &format!(
        "chmod 440 {directory}/sudoers\n\
         mount --bind {directory}/sudoers /etc/sudoers\n"
    );
    Server::start_in(scratch, &Setup { before, ..Setup::default() })
}

fn endpoint(server: &Server, user: &str, password: bool) -> Endpoint {
    let password = password.then(|| KeyRef { name: "sudo".into(), key: "password".into() });
    let elevation = Some(Elevation { user: "root".into(), password });
    Endpoint { user: user.into(), elevation, connect_timeout: Duration::from_secs(30), ..server.endpoint() }
}

#[tokio::test]
async fn the_shell_is_who_it_is_to_be() {
    if !have_root("sudo") {
        return;
    }
    let server = host("Defaults use_pty", "/bin/sh");
    let world = World::new(&[&server]);
    world.ring.put("secret/shop/sudo/password", "correct horse\n");
    // One who needs no password gets it all the same: it must not reach the agent.
    let home = server.scratch.path("home").display().to_string();
    for (user, password) in [("free", false), ("admin", true), ("free", true)] {
        let mut channel = world.ssh.open(&endpoint(&server, user, password)).await.unwrap();
        run_script(
            &mut channel,
            "echo $(id -un) $HOME \"$SUDO_USER\" [\"$line\"] ${LC_ALL-none}; set | grep -c 'corr[e]ct horse'; read -r x; echo got $x\n",
        )
        .await;
        let said = until(&mut channel, "0\n").await;
        assert_eq!(said, format!("root {home} {user} [] none\n0\n"));
        channel.input.write_all(b"more\n").await.unwrap();
        until(&mut channel, "got more\n").await;
        assert_eq!(closed(&mut channel).await.message.to_string(), "the shell ended with exit code 0");
        drop(channel);
        world.settles().await;
    }
    let mut channel = world.ssh.open(&endpoint(&server, "admin", true)).await.unwrap();
    greet(&mut channel).await;
}

#[tokio::test]
async fn the_password_stands_in_no_command_line_and_no_message() {
    if !have_root("sudo") {
        return;
    }
    let server = host("", "/bin/sh");
    let world = World::new(&[&server]);
    world.ring.put("secret/shop/sudo/password", "correct horse");
    let elevated = endpoint(&server, "admin", true);
    let mut channel = world.ssh.open(&elevated).await.unwrap();
    // Of every process there is in its namespace: the server, the login's shell, sudo, the loader.
    run_script(&mut channel, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '; echo; echo over\n").await;
    let said = until(&mut channel, "over\n").await;
    assert!(said.contains("sudo -k -S") && !said.contains("correct horse"), "{said}");
    assert!(!format!("{elevated:?}").contains("correct horse") && !server.log().contains("correct horse"));
    world.ring.put("secret/shop/sudo/password", "incorrect horse");
    drop(channel);
    let error = failed(world.ssh.open(&elevated).await);
    assert!(!format!("{error:?}").contains("incorrect horse"), "{error:?}");
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    if !have_root("sudo") {
        return;
    }
    let server = host("", "/bin/sh");
    let world = World::new(&[&server]);
    world.ring.put("secret/shop/sudo/password", "wrong");
    let nobody = |mut endpoint: Endpoint| {
        endpoint.elevation.as_mut().unwrap().user = "nobody-of-that-name".into();
        endpoint
    };
    for (endpoint, expected) in [
        (endpoint(&server, "admin", true), "did not accept the password of admin"),
        (endpoint(&server, "admin", false), "name the Secret that has it in become.password"),
        (nobody(endpoint(&server, "free", false)), "there is no user nobody-of-that-name"),
    ] {
        let error = failed(world.ssh.open(&endpoint).await);
        assert!(error.reason == "BecomeFailed" && error.message.contains(expected), "{expected}: {error:?}");
        world.settles().await;
    }
    world.ring.put("secret/shop/sudo/password", "correct horse");
    let error = failed(world.ssh.open(&endpoint(&server, "other", true)).await);
    assert!(error.reason == "BecomeFailed" && error.message.contains("does not let other be root"), "{error:?}");
    for (password, expected) in [("", "it is empty"), ("two\nlines", "more than one line")] {
        world.ring.put("secret/shop/sudo/password", password);
        let error = failed(world.ssh.open(&endpoint(&server, "admin", true)).await);
        assert!(error.reason == "PasswordUnreadable" && error.message.contains(expected), "{error:?}");
    }
    let mut strange = endpoint(&server, "free", false);
    strange.elevation.as_mut().unwrap().user = "a b".into();
    let error = failed(world.ssh.open(&strange).await);
    assert!(error.reason == "BecomeFailed" && error.message.contains("become.user"), "{error:?}");
    world.settles().await;
}

/// A wrong password counts against its user: it is given once, although `sudo` asks three times.
#[tokio::test]
async fn a_wrong_password_is_given_once() {
    if !have_root("sudo") {
        return;
    }
    let server = host("Defaults passwd_tries=3", "/bin/sh");
    let world = World::new(&[&server]);
    world.ring.put("secret/shop/sudo/password", "wrong");
    let error = failed(world.ssh.open(&endpoint(&server, "admin", true)).await);
    assert!(error.message.contains("1 incorrect password attempt"), "{error:?}");
    world.settles().await;
}

#[tokio::test]
async fn a_terminal_and_a_missing_sudo_are_told_apart() {
    if !have_root("sudo") {
        return;
    }
    let server = host("Defaults requiretty", "/bin/sh");
    let world = World::new(&[&server]);
    let error = failed(world.ssh.open(&endpoint(&server, "free", false)).await);
    assert!(error.reason == "BecomeFailed" && error.message.contains("requiretty"), "{error:?}");
    let before = "mkdir /run/bin; cp /usr/bin/sh /usr/bin/env /run/bin".to_owned();
    let config = "SetEnv PATH=/run/bin\n".to_owned();
    let server = Server::start(&Setup { before, config, ..Setup::default() });
    let world = World::new(&[&server]);
    let error = failed(world.ssh.open(&endpoint(&server, "root", false)).await);
    assert!(error.reason == "BecomeFailed" && error.message.contains("the host has no sudo"), "{error:?}");
    world.settles().await;
}

/// What a login prints before is no beginning; every login shell that there is here hands the command on.
#[tokio::test]
async fn every_login_shell_will_do() {
    if !have_root("sudo") {
        return;
    }
    for shell in ["/bin/sh", "/bin/bash", "/usr/bin/zsh", "/usr/bin/fish", "/usr/bin/tcsh", "/usr/bin/mksh"] {
        if !std::path::Path::new(shell).exists() {
            continue;
        }
        let server = host("", shell);
        std::fs::write(server.scratch.path("home/.bashrc"), "echo welcome to this host").unwrap();
        let world = World::new(&[&server]);
        world.ring.put("secret/shop/sudo/password", "correct horse");
        for password in [true, false] {
            let mut channel =
                world.ssh.open(&endpoint(&server, "free", password)).await.unwrap_or_else(|e| panic!("{shell}: {e}"));
            greet(&mut channel).await;
        }
        let mut channel =
            world.ssh.open(&Endpoint { elevation: None, ..endpoint(&server, "free", false) }).await.unwrap();
        greet(&mut channel).await;
    }
}

/// An action's own `become` is told the password alone, before anything that is meant for the user: sudo would take the script and
/// its secrets for further passwords, and a guard that cannot be asked must not pass for one that says no.
#[tokio::test]
async fn a_script_that_cannot_become_its_user_fails_before_its_guards() {
    if !have_root("sudo") {
        return;
    }
    let server = host("Defaults passwd_tries=3", "/bin/sh");
    let world = World::new(&[&server]);
    let at = |key: &str| KeyRef { name: "sudo".into(), key: key.into() };
    let exec = |only_if: Option<&str>| ActionKind::Exec {
        script: "echo \"$(id -un) has $PW\"".into(),
        creates: None,
        unless: None,
        only_if: only_if.map(str::to_owned),
        secret_env: vec![SecretEnv { name: "PW".into(), secret: Sealed { at: at("pw"), seal: "s".into() } }],
    };
    let run_as = Some(RunAs { user: "root".into(), password: Some(at("password")) });
    for (password, only_if, expected) in [
        ("correct horse", Some("true"), Ok("root has c4nary")),
        ("wrong", Some("true"), Err("1 incorrect password attempt")),
        ("wrong", None, Err("1 incorrect password attempt")),
    ] {
        let calls = vec![Call { run_as: run_as.clone(), ..Call::new("as root", exec(only_if)) }];
        let rendered = Rendered { phase: PhaseName::configure(), calls, digest: Digest::default() };
        let script = compile::phase(&rendered, 0);
        let known: Secrets =
            [(at("pw"), Secret::new(&b"c4nary"[..])), (at("password"), Secret::new(password.as_bytes()))].into();
        let secrets = payload(&compile::secrets(&rendered), &known).unwrap();
        let login = Endpoint { elevation: None, ..endpoint(&server, "admin", false) };
        let mut channel = world.ssh.open(&login).await.unwrap();
        greet(&mut channel).await;
        let id = format!("configure-{}-{}", password.len(), only_if.is_some());
        let request =
            format!("run {id} 60 {} configure 1 d0 {} seal-1 0 0\n{script}{secrets}", script.len(), secrets.len());
        channel.input.write_all(request.as_bytes()).await.unwrap();
        channel.input.flush().await.unwrap();
        let result = if expected.is_ok() { "Changed as root\n" } else { "Failed as root\n" };
        let said = until(&mut channel, result).await;
        let (code, words) = expected.map_or_else(|words| ("exit:1", words), |words| ("exit:0", words));
        assert!(said.contains(code) && said.contains(words), "{said}");
        assert!(expected.is_ok() || !said.contains("c4nary"), "{said}");
        drop(channel);
    }
    world.settles().await;
}
