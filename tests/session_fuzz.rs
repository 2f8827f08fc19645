//! A hostile node: whatever it sends at whatever stage of a session, the operator's memory and time stay bounded.
//!
//! `SEED=4711 cargo test --test session_fuzz -- --nocapture` runs one seed and prints what became of it; `SEEDS=100000` runs so
//! many.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use pallet_core::session::secrets::KnownSecrets;
use pallet_core::{
    group::{Group, resolve},
    phase::{action::KeyRef, secret::Secret},
    plan::{Bound, Purpose, Record, next::Identity},
    session::{End, Meant, Session, Want, frame::Decoder},
};
use serde_json::json;

/// The most that a session may take, in bytes, with all that is buffered for it.
const MEMORY: usize = 8 << 20;
/// The most processor time for each MiB that a node sends, in a build that is not optimised, and for the session itself.
const TIME: Duration = Duration::from_secs(2);
/// A seed ends here, if the session has not ended the node before.
const MOST: usize = 12 << 20;

const NONCE: &str = "0123456789abcdef0123456789abcdef";

/// xorshift64*: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.roll() >> 11) % limit
    }

    fn length(&mut self) -> usize {
        let most = [1, 16, 300, 5000, 70_000, 500_000][self.below(6) as usize];
        self.below(most) as usize + 1
    }
}

/// What the node floods the operator with, once it has had enough of answering.
const FLOODS: u64 = 22;

/// A node that answers honestly for a while, and then does not stop.
struct Hostile {
    dice: Dice,
    /// How many requests it answers as an agent would.
    honest: u64,
    flood: u64,
    request: String,
}

impl Hostile {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        dice.roll();
        let (honest, flood) = (dice.below(8), seed % FLOODS);
        Self { dice, honest, flood, request: "hello".into() }
    }

    fn asked(&mut self, request: &[u8]) {
        let end = request.iter().position(|byte| *byte == b'\n').unwrap_or(request.len());
        self.request = String::from_utf8_lossy(&request[..end]).into_owned();
    }

    /// The honest answer to what was asked.
    fn answer(&self, status: &str, facts: &str, actions: &str) -> String {
        let words: Vec<&str> = self.request.split(' ').collect();
        let word = |place: usize| words.get(place).copied().unwrap_or("-");
        match word(0) {
            "hello" => format!(
                "{NONCE} hello w-1 /var/lib/pallet\n{NONCE} run configure-0 configure 1 d ended\n{NONCE} ready\n"
            ),
            "facts" => format!("{NONCE} facts 1\nhostname\tweb-0\n"),
            "run" => format!(
                "{NONCE} started {id}\n{NONCE} ended {id} {phase} {attempt} {digest} {status} 1 2 0 - {seal} 0 0 {facts_length} {lines}\n{facts}{actions}",
                id = word(1),
                phase = word(4),
                attempt = word(5),
                digest = word(6),
                seal = word(8),
                facts_length = facts.len(),
                lines = actions.lines().count(),
            ),
            _ => format!("{NONCE} absent {}\n", word(1)),
        }
    }

    fn id(&self) -> String {
        self.request.split(' ').nth(1).unwrap_or("x").to_owned()
    }

    fn garbage(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.dice.roll() as u8).collect()
    }

    /// The next bytes.
    fn speak(&mut self) -> Vec<u8> {
        if self.honest > 0 {
            self.honest -= 1;
            let java = self.dice.below(3);
            return self.answer("exit:0", &format!("java ok 1\n{java}\n"), "Changed a\n").into_bytes();
        }
        let (length, id) = (self.dice.length(), self.id());
        let number = [0, 1, 255, u64::from(u32::MAX), u64::MAX, self.dice.roll()][self.dice.below(6) as usize];
        let line = |text: &str| format!("{NONCE} {text}\n");
        match self.flood {
            0 => line(&format!("run configure-{number} configure 1 d running")).into_bytes(),
            1 => line(&format!("run {} p 1 d none", "x".repeat(length.min(4000)))).into_bytes(),
            2 => vec![b'\n'; length],
            3 => vec![b'x'; length],
            4 => b"noise \x1b[2J\n".repeat(length / 8 + 1),
            5 => self.garbage(length),
            6 => line("beat").into_bytes(),
            7 => line(&format!("attached {id}")).into_bytes(),
            8 => line("busy other-1").into_bytes(),
            9 => {
                // It holds the node, and then it does not, for ever.
                if self.request.starts_with("attach") { line(&format!("absent {id}")) } else { line("busy other-1") }
                    .into_bytes()
            }
            10 => [line(&format!("facts {}", length / 11 + 1)), "hostname\tx\n".repeat(length / 11 + 1)]
                .concat()
                .into_bytes(),
            11 => [line(&format!("facts {number}")), "x".repeat(length)].concat().into_bytes(),
            12 => {
                let fact = format!("java ok {length}\n{}\n", "[".repeat(length));
                self.answer("exit:0", &fact, "").into_bytes()
            }
            13 => {
                let fact = format!("java ok {number}\n{}", "x".repeat(length));
                self.answer("exit:0", &fact, "").into_bytes()
            }
            14 => {
                let action = format!("Changed {}\n\t{}\n", "\u{202e}x".repeat(50), "y".repeat(100));
                self.answer("exit:1", "", &action.repeat(length.min(3000))).into_bytes()
            }
            15 => {
                let output = vec![0xff; length];
                let phase = self.request.split(' ').nth(4).unwrap_or("p").to_owned();
                let head =
                    format!("ended {id} {phase} {number} d exit:1 {number} 1 {number} - - {number} {length} 0 0");
                [line(&head).into_bytes(), output].concat()
            }
            16 => line(&format!("ended {id} phase-{number} 1 d exit:0 1 2 3 - - 0 {number} {number} {number}"))
                .into_bytes(),
            17 => line(&format!("refused state {}", "z\u{1b}".repeat(length.min(2000)))).into_bytes(),
            18 => line("hello w").into_bytes(),
            19 => line("ready").into_bytes(),
            20 => {
                let verb =
                    ["hello", "run", "facts", "ended", "absent", "started", "gibberish"][self.dice.below(7) as usize];
                line(&format!("{verb} {}", String::from_utf8_lossy(&self.garbage(length.min(4000))))).into_bytes()
            }
            // As an agent would, for ever, and never twice the same.
            _ => {
                let java = self.dice.roll();
                let status = ["exit:0", "exit:1", "timeout", "died"][self.dice.below(4) as usize];
                self.answer(status, &format!("java ok 4\n{:04}\n", java % 10_000), "Changed a\n").into_bytes()
            }
        }
    }
}

fn group() -> Arc<Group> {
    let object = json!({
        "apiVersion": "pallet.dev/v1alpha1", "kind": "GroupSpec",
        "metadata": {"name": "web", "namespace": "shop", "uid": "g"},
        "spec": {
            "node": {"pod": {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}},
            "phases": {
                "bootstrap": {"actions": [{"exec": {"script": "boot"}}]},
                "settings": {"facts": [{"name": "java", "exec": "java", "optional": true}]},
                "configure": {"actions": [{"name": "a", "exec": {"script": "conf {{ facts.java or 'none' }}",
                    "secretEnv": [{"name": "PW", "secretKeyRef": {"name": "db", "key": "pw"}}]}}]},
                "test": {"expect": [{"name": "java", "expression": "facts.java == '17'"}]}
            },
            "converge": {"phases": ["test"]}
        }
    });
    Arc::new(resolve(&serde_json::from_value(object).unwrap(), &Default::default()).unwrap())
}

fn known() -> KnownSecrets {
    let place = KeyRef { name: "db".into(), key: "pw".into() };
    let key: String = (0..40).map(|line| format!("line {line} of a key {}\n", "k".repeat(40))).collect();
    KnownSecrets {
        values: [(place.clone(), Secret::new(key.as_bytes()))].into(),
        seals: [(place, "s".into())].into(),
        mask: None,
    }
}

/// One session with the node of a seed. Returns how many bytes it took in, and how it ended, if it did.
fn session(seed: u64) -> (usize, Option<End>) {
    let mut node = Hostile::new(seed);
    let identity = Identity {
        name: "web-0".into(),
        ordinal: 0,
        address: String::new(),
        attributes: Arc::default(),
        retry_token: String::new(),
        ack: String::new(),
    };
    let meant = Meant { uid: "p".into(), instance: "c".into(), told: "p".into() };
    let purpose = if seed.is_multiple_of(5) { Purpose::Check } else { Purpose::Converge(Bound::Free) };
    let (mut session, _) = Session::open(group(), identity, meant, Record::default(), purpose, NONCE.into(), known());
    let (mut decoder, mut now, mut taken) = (Decoder::new(NONCE), Timestamp::UNIX_EPOCH, 0);
    let step = [1, 7, 1000, 16 << 10][node.dice.below(4) as usize];
    while taken < MOST {
        let bytes = node.speak();
        // A node that cuts its bytes small gets fewer in: what counts is the time for each.
        let most = if step == 1 { 1 << 20 } else { MOST };
        if taken > most {
            break;
        }
        taken += bytes.len();
        for part in bytes.chunks(step) {
            let frames = match decoder.push(part) {
                Ok(frames) => frames,
                Err(error) => return (taken, Some(session.fail(&error.to_string(), now))),
            };
            for frame in frames {
                now += jiff::SignedDuration::from_secs(1);
                match session.hear(frame, now) {
                    Want::Wait => {}
                    Want::Send(request) => {
                        decoder.next_stage();
                        node.asked(&request);
                    }
                    Want::End(end) => return (taken, Some(end)),
                }
            }
        }
        // What reconcile sees of it.
        let record = session.record();
        let (facts, phase_results) = (serde_json::to_string(&record.facts).unwrap(), &record.phase_results);
        assert!(facts.len() < 200 << 10, "seed {seed}: {} bytes of facts", facts.len());
        assert!(phase_results.len() <= 24, "seed {seed}: {} phase results", phase_results.len());
        for phase_result in phase_results.values() {
            let length = serde_json::to_string(phase_result).unwrap().len();
            assert!(length < 200 << 10, "seed {seed}: a phase result of {length} bytes");
            assert!(phase_result.message.len() <= 1024 && phase_result.output.len() <= 8192, "seed {seed}");
        }
    }
    (taken, None)
}

/// Peak and present memory of this process.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() << 10
    };
    (field("VmHWM:"), field("VmRSS:"))
}

/// The processor time of this process so far, which does not count what else the machine has to do.
fn worked() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_the_name = stat.rsplit(')').next().unwrap();
    let ticks = after_the_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Runs by itself in a process of its own, whose memory is counted: see the test below.
#[test]
#[ignore = "run by the test below"]
fn flooded() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => 1..=count.unwrap_or(6 * FLOODS),
    };
    // What the first one allocates for all.
    session(FLOODS);
    for seed in seeds {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (before, start) = (memory().1, worked());
        let (taken, end) = session(seed);
        let (took, more) = (worked() - start, memory().0.saturating_sub(before));
        println!("seed {seed}: {taken} bytes, {took:?}, {} KiB, {end:?}", more >> 10);
        assert!(more < MEMORY, "seed {seed} (flood {}) took {more} bytes of memory", seed % FLOODS);
        let allowed = TIME + TIME * u32::try_from(taken >> 20).unwrap();
        assert!(took < allowed, "seed {seed} (flood {}) took {took:?} for {taken} bytes", seed % FLOODS);
        if let Some(End::Refused { message, .. } | End::Lost(message)) = &end {
            assert!(
                message.len() < 8 << 10 && !message.chars().any(|c| c.is_control() && c != '\n' && c != '\t'),
                "{message:?}"
            );
        }
    }
}

/// Found by review: a node that listed runs for ever ended the operator of everybody's groups.
#[test]
fn no_node_takes_more_than_its_share() {
    // A process of its own: what others take at the same time does not count, and what a bound fails to stop ends by itself.
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 2000000; exec \"$0\" --ignored --exact flooded --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    if std::env::var_os("SEED").is_some() {
        println!("{said}");
    }
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}
