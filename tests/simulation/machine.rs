//! A node as its agent shows it: a journal that holds every run, and at most one that is active.
//!
//! It answers as `agent.sh` does. What the two have in common is shown by the agent tier, which runs the real one.

use jiff::Timestamp;
use pallet_api::group_node::{ActionResult, Effect};
use pallet_core::session::{
    frame::{Ended, Frame, Past, Verdict},
    lift::phase_of,
};

/// A run in the journal.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: String,
    /// Which life of the machine it belongs to.
    pub life: String,
    pub phase: String,
    pub attempt: u32,
    pub digest: String,
    pub began: Timestamp,
    pub ends: Timestamp,
    pub verdict: Option<Verdict>,
    /// What settings finds, where it finds anything.
    pub own: &'static str,
    /// The place of its first action.
    pub from: u32,
    /// What its actions do.
    pub actions: Vec<ActionResult>,
    /// The version of the ConfigMap's text that it writes.
    pub text: Option<u64>,
    /// Whether it is a Lift's that gives values for parameters.
    pub overrides: bool,
}

impl Run {
    pub fn succeeded(&self) -> bool {
        self.verdict == Some(Verdict::Exit(0)) && !self.waits()
    }

    /// Whether it got to a manual step.
    pub fn waits(&self) -> bool {
        self.actions.last().is_some_and(|action| action.result == Effect::Waiting)
    }

    /// Whether it only looked.
    pub fn is_look(&self) -> bool {
        self.phase.ends_with(".check")
    }

    /// The version of the ConfigMap's text in a script.
    pub fn text_of(script: &str) -> Option<u64> {
        script.split_once("text-")?.1.split('.').next()?.parse().ok()
    }

    /// What the actions of a script will do: all that are there, up to a manual step.
    pub fn actions_of(script: &str, differs: bool) -> Vec<ActionResult> {
        let mut actions = Vec::new();
        let performed =
            script.lines().filter_map(|line| line.strip_prefix("perform ")).filter(|line| !line.starts_with('('));
        let looks = script.starts_with("mode=check");
        for line in performed {
            let name = line.split(' ').next().unwrap_or_default().trim_matches('\'').to_owned();
            let waits = line.contains(" -- manual_ ") && !looks;
            let result = match (waits, looks && !differs) {
                (true, _) => Effect::Waiting,
                (_, true) => Effect::Unchanged,
                _ => Effect::Changed,
            };
            actions.push(ActionResult { name, result, diff: String::new() });
            if waits {
                break;
            }
        }
        actions
    }
}

/// One container of a pod, with the file system that goes with it; or a host.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Of the pod; a host has none.
    pub uid: Option<String>,
    /// Which start it is: another one cuts all connections.
    pub instance: String,
    pub filesystem_id: String,
    pub journal: Vec<Run>,
    /// What settings finds.
    pub own: &'static str,
    /// Somebody has changed what configure had made.
    pub meddled: bool,
}

/// What a session asks, read from the bytes that it sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Hello { uid: String },
    Facts,
    Run { id: String, seconds: i64, phase: String, attempt: u32, digest: String, from: u32, script: String },
    Attach { id: String },
    Cancel { id: String },
}

impl Request {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        if let Some(hello) = text.lines().rfind(|line| line.starts_with("hello ")) {
            return Request::Hello { uid: hello.split(' ').nth(2).expect("an incarnation").to_owned() };
        }
        let (line, script) = text.split_once('\n').expect("a line");
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["facts"] => Request::Facts,
            ["attach", id] => Request::Attach { id: (*id).to_owned() },
            ["cancel", id] => Request::Cancel { id: (*id).to_owned() },
            ["run", id, seconds, length, phase, attempt, digest, "0", "-", from, _] => {
                assert_eq!(length.parse::<usize>().unwrap(), script.len(), "the payload is counted wrong");
                Request::Run {
                    id: (*id).to_owned(),
                    seconds: seconds.parse().unwrap(),
                    phase: (*phase).to_owned(),
                    attempt: attempt.parse().unwrap(),
                    digest: (*digest).to_owned(),
                    from: from.parse().unwrap(),
                    script: script.to_owned(),
                }
            }
            other => panic!("no agent knows {other:?}"),
        }
    }
}

impl Machine {
    /// What its file system is known by to who says that it is meant: on a host the node counts, too.
    pub fn life(&self, told: &str) -> String {
        if self.uid.is_some() { self.filesystem_id.clone() } else { format!("{}.{told}", self.filesystem_id) }
    }

    /// The runs of a life, oldest first.
    pub fn lived(&self, life: &str) -> impl DoubleEndedIterator<Item = &Run> {
        self.journal.iter().filter(move |run| run.life == life)
    }

    /// The run that decides whether a phase is done in a life: the last one of converge, or a later one of a Lift that succeeded
    /// with what converge would run, and otherwise than converge did.
    pub fn latest(&self, life: &str, phase: &str) -> Option<&Run> {
        self.lived(life).fold(None, |latest: Option<&Run>, run| {
            if run.phase == phase {
                return Some(run);
            }
            let same = latest.is_some_and(|latest| latest.digest == run.digest);
            let known = same && latest.is_some_and(Run::succeeded);
            let lifted = phase_of(&run.phase) == phase && run.succeeded() && (same || !run.overrides);
            if lifted && !known { Some(run) } else { latest }
        })
    }

    pub fn active(&self) -> Option<&Run> {
        self.journal.iter().find(|run| run.verdict.is_none())
    }

    pub fn greet(&self, told: &str) -> Vec<Frame> {
        if let Some(uid) = self.uid.as_ref().filter(|uid| *uid != told) {
            return vec![Frame::Refused { reason: "incarnation".into(), message: format!("this is {uid}") }];
        }
        let life = self.life(told);
        let past = |run: &Run| {
            Frame::Past(Past {
                run_id: run.id.clone(),
                phase: run.phase.clone(),
                digest: run.digest.clone(),
                active: run.verdict.is_none(),
                started: true,
            })
        };
        let kept = self.lived(&life).count().saturating_sub(24);
        let mut frames = vec![Frame::Hello { filesystem_id: life.clone() }];
        frames.extend(self.lived(&life).skip(kept).map(past));
        frames.push(Frame::Ready);
        frames
    }

    /// The answer to a run's end, as far as it has ended.
    pub fn ended(&self, id: &str) -> Option<Frame> {
        let run = self.journal.iter().find(|run| run.id == id)?;
        let verdict = run.verdict?;
        Some(Frame::Ended(Box::new(Ended {
            run_id: run.id.clone(),
            phase: run.phase.clone(),
            attempt: run.attempt,
            digest: run.digest.clone(),
            verdict,
            times: (verdict != Verdict::Died).then(|| (run.began.as_second(), run.ends.as_second())),
            seal: "-".into(),
            from: run.from,
            output_bytes: 3,
            output: "out".into(),
            actions: run.actions.clone(),
            facts: if run.phase == "settings" { format!("own ok 1\n{}\n", run.own).into_bytes() } else { Vec::new() },
        })))
    }
}

/// Seeds that broke an invariant which is not promised: converge may go back to what it ran before a Lift ran the phase otherwise,
/// and may go on past a manual step that a Lift went through with what converge would run.
#[test]
fn a_success_of_a_lift_decides_whether_a_phase_is_done() {
    let now = Timestamp::UNIX_EPOCH;
    let run = |phase: &str, digest: &str, verdict: i32, overrides: bool| Run {
        id: format!("{phase}-{digest}"),
        life: "w".into(),
        phase: phase.into(),
        attempt: 1,
        digest: digest.into(),
        began: now,
        ends: now,
        verdict: Some(Verdict::Exit(verdict)),
        own: "x",
        from: 0,
        actions: Vec::new(),
        text: None,
        overrides,
    };
    let latest = |runs: &[Run]| {
        let (uid, instance, filesystem_id) = (None, String::new(), String::new());
        let machine = Machine { uid, instance, filesystem_id, journal: runs.to_vec(), own: "x", meddled: false };
        machine.latest("w", "configure").map(|run| run.id.clone())
    };
    let own = run("configure", "a", 0, false);
    let lift = |digest: &str, verdict: i32, overrides: bool| run("configure.lift.1", digest, verdict, overrides);
    assert_eq!(latest(&[lift("b", 0, false), own.clone()]).unwrap(), own.id, "converge has run since");
    assert_eq!(latest(&[own.clone(), lift("b", 0, false)]).unwrap(), "configure.lift.1-b");
    assert_eq!(latest(&[own.clone(), lift("a", 0, false)]).unwrap(), own.id, "the same, and known");
    assert_eq!(latest(&[own.clone(), lift("b", 1, false)]).unwrap(), own.id, "a failure of a Lift is the Lift's");
    assert_eq!(latest(&[own.clone(), lift("b", 0, true)]).unwrap(), own.id, "an override is no run of converge's");
    let failed = run("configure", "a", 1, false);
    assert_eq!(latest(&[failed, lift("a", 0, true)]).unwrap(), "configure.lift.1-a", "the same as is declared");
}
