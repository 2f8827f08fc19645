//! The operator's own session against a real agent: phases in order, an idle session, and a connection that breaks.

use std::{fs, sync::Arc};

use jiff::Timestamp;
use pallet_api::{
    GroupSpec,
    group_node::{Effect, Outcome},
};
use pallet_core::{
    group::{Group, resolve},
    phase::PhaseName,
    plan::{Bound, Purpose, Record, next::Identity},
    session::{End, Meant, Session, Want},
};
use serde_json::json;

use crate::node::{Agent, Node, Shell, UID, wait_until};

under_every_shell! {
    a_session_converges_and_the_next_has_nothing_to_do
    a_lost_session_is_taken_up_by_the_next
}

fn group(node: &Node, gate: bool) -> Arc<Group> {
    let marker = node.file("marker").display().to_string();
    let wait =
        if gate { format!("until [ -e {} ]; do sleep 0.05; done", node.file("go").display()) } else { "true".into() };
    let object: GroupSpec = serde_json::from_value(json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g", "generation": 1},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": {
                "bootstrap": {"actions": [{"exec": {"script": format!("echo bootstrap >>{marker}; {wait}")}}]},
                "settings": {
                    "facts": [{"name": "version", "exec": "echo 1.2"}],
                    "values": {"motd": "{{ facts.version }} on {{ facts.os.arch }}"}
                },
                "configure": {"actions": [
                    {"name": "motd", "file": {
                        "path": node.file("motd"), "content": "{{ settings.motd }} as {{ node.name }}\n"
                    }},
                    {"exec": {"script": format!("echo configure >>{marker}")}}
                ]}
            }
        }
    }))
    .unwrap();
    Arc::new(resolve(&object, &Default::default()).unwrap())
}

fn open(node: &Node, group: &Arc<Group>, record: Record) -> (Session, Agent) {
    let identity = Identity {
        name: "web-0".into(),
        ordinal: 0,
        address: "10.0.0.7".into(),
        attributes: Arc::default(),
        retry_token: String::new(),
        ack: String::new(),
    };
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let nonce = format!("{:032x}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let meant = Meant { uid: UID.to_owned(), instance: "container".to_owned(), told: UID.to_owned() };
    let (session, greeting) = Session::open(
        group.clone(),
        identity,
        meant,
        record,
        Purpose::Converge(Bound::Free),
        nonce.clone(),
        pallet_core::session::secrets::KnownSecrets::default(),
    );
    let mut agent = Agent::start_with(node, nonce);
    agent.say(greeting);
    (session, agent)
}

/// Carries frames and requests until the session ends, or `until` says so.
fn converse(session: &mut Session, agent: &mut Agent, until: impl Fn(&Session) -> bool) -> Option<End> {
    while !until(session) {
        let Some(frame) = agent.hear() else { panic!("it ended; it said {}", agent.said()) };
        match session.hear(frame, Timestamp::now()) {
            Want::Wait => {}
            Want::Send(bytes) => agent.say(bytes),
            Want::End(end) => return Some(end),
        }
    }
    None
}

fn a_session_converges_and_the_next_has_nothing_to_do(shell: Shell) {
    let node = Node::new(shell);
    let group = group(&node, false);
    let (mut session, mut agent) = open(&node, &group, Record::default());
    let end = converse(&mut session, &mut agent, |_| false);
    assert_eq!(end, Some(End::Done), "{:#?}", session.record());
    agent.bye();
    let record = session.record().into_owned();
    assert_eq!(node.read("marker"), "bootstrap\nconfigure\n");
    assert_eq!(node.read("motd"), format!("1.2 on {} as web-0\n", std::env::consts::ARCH));
    let outcomes: Vec<_> =
        record.phase_results.values().map(|phase_result| (phase_result.phase.as_str(), phase_result.outcome)).collect();
    assert_eq!(outcomes.len(), 3);
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Outcome::Succeeded), "{outcomes:?}");
    let configured = &record.phase_results[&PhaseName::configure()];
    assert_eq!((configured.actions[0].name.as_str(), &configured.actions[0].result), ("motd", &Effect::Changed));

    let (mut session, mut agent) = open(&node, &group, record.clone());
    assert_eq!(converse(&mut session, &mut agent, |_| false), Some(End::Done));
    agent.bye();
    assert_eq!(node.read("marker"), "bootstrap\nconfigure\n");
    assert_eq!(session.record().phase_results, record.phase_results);
    node.wait_until_quiet();
}

fn a_lost_session_is_taken_up_by_the_next(shell: Shell) {
    let node = Node::new(shell);
    let group = group(&node, true);
    let (mut session, mut agent) = open(&node, &group, Record::default());
    converse(&mut session, &mut agent, |session| session.in_flight().is_some());
    wait_until(|| "bootstrap does not begin".into(), || !node.read("marker").is_empty());
    agent.kill();
    assert_eq!(session.lose("cut", Timestamp::now()), End::Lost("cut".into()));
    let record = session.record().into_owned();
    let bootstrap = PhaseName::bootstrap();
    assert_eq!(record.phase_results[&bootstrap].outcome, Outcome::Unknown);

    // The next one waits for the very run, and goes on behind it. An operator that has lost its record does, too.
    let (mut session, mut agent) = open(&node, &group, record.clone());
    let (mut forgetful, mut other) = open(&node, &group, Record::default());
    for (session, agent) in [(&mut session, &mut agent), (&mut forgetful, &mut other)] {
        let attached = |agent: &Agent| agent.said().contains(" attached bootstrap-");
        while !attached(agent) {
            if let Want::Send(bytes) = session.hear(agent.hear().unwrap(), Timestamp::now()) {
                agent.say(bytes);
            }
        }
    }
    fs::write(node.file("go"), "").unwrap();
    assert_eq!(converse(&mut session, &mut agent, |_| false), Some(End::Done), "{}", agent.said());
    assert_eq!(converse(&mut forgetful, &mut other, |_| false), Some(End::Done), "{}", other.said());
    for session in [session, forgetful] {
        let phase_result = &session.record().phase_results[&bootstrap];
        assert_eq!(
            (&phase_result.outcome, &phase_result.run_id),
            (&Outcome::Succeeded, &record.phase_results[&bootstrap].run_id)
        );
        assert_eq!(session.record().phase_results[&PhaseName::configure()].outcome, Outcome::Succeeded);
    }
    assert_eq!(node.read("marker"), "bootstrap\nconfigure\n");
    agent.bye();
    other.bye();
    node.wait_until_quiet();
}
