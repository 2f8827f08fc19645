//! The operator is killed before and after each thing that it does, one by one until there is none left; and each write
//! meets each fault of an API server. What comes of it is always the same.
//!
//! Ignored by default: they keep the machine so busy that tests beside them would miss their deadlines. `make test-faults`
//! runs them. `EVERY=2` takes every second point only, from the first or the second on as the clock has it; `make test` does.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, future::join_all};
use kube::{ResourceExt, api::DeleteParams};
use pallet_api::group_node::Outcome;
use serde_json::{Value, json};

use crate::{
    harness::{Space, busybox, phase_result, wait},
    proxy::{Call, Fate, Proxy, Way},
};

/// So many groups are worked on side by side.
const WORKERS: usize = 6;

/// What every round does: a group from nothing to Ready, one node less, and nothing again.
fn group(count: usize) -> Value {
    json!({
        "count": count, "node": busybox(),
        "phases": {
            "bootstrap": {"actions": [{"exec": {"script": "echo bootstrap >>/ran"}}]},
            "settings": {"facts": [{"name": "answer", "exec": "echo 42"}]},
            "configure": {"actions": [{"exec": {"script": "echo configure {{ facts.answer }} >>/ran; cat /ran"}}]}
        }
    })
}

const RAN: &str = "bootstrap\nconfigure 42\n";

/// A namespace with an operator that speaks through a proxy.
struct Worker {
    space: Space,
    proxy: Proxy,
    count: usize,
}

impl Worker {
    async fn new(what: &str, count: usize) -> Option<Self> {
        Self::judged(what, count, |_| Fate::Pass).await
    }

    async fn judged(what: &str, count: usize, judge: impl FnMut(Call) -> Fate + Send + 'static) -> Option<Self> {
        let mut space = Space::bare(what).await?;
        let proxy = Proxy::start().await;
        proxy.judge(judge);
        space.connect_to(&proxy.server());
        space.start_operator();
        Some(Self { space, proxy, count })
    }

    /// Waits until no write has been tried for a while.
    async fn rest(&self) {
        let writes = || self.proxy.history().iter().filter(|(call, _)| call.is_write()).count();
        wait("the operator rests", || async {
            let before = writes();
            tokio::time::sleep(Duration::from_millis(1200)).await;
            let after = writes();
            if before == after { Ok(()) } else { Err(format!("{:?}", &self.proxy.history()[before..])) }
        })
        .await;
    }

    async fn converge(&self) {
        self.space.ready().await;
        self.rest().await;
    }

    /// Every script has run once, every node and pod was made once, and the phase results say so.
    async fn assert_converged(&self) {
        let names: Vec<String> = (0..self.count).map(|ordinal| format!("web-{ordinal}")).collect();
        let nodes = self.space.nodes().list(&Default::default()).await.unwrap().items;
        assert_eq!(nodes.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), names);
        assert_eq!(self.space.pod_names().await, names);
        assert_eq!(self.proxy.done("create groupnodes"), self.count, "no node was made twice");
        assert_eq!(self.proxy.done("create pods"), self.count, "no pod was made twice");
        for node in &nodes {
            let name = node.name_any();
            assert_eq!(self.space.exec(&name, "cat /ran").await, RAN, "{name}");
            assert_eq!(node.status.as_ref().unwrap().facts["answer"], json!("42"));
            for (phase, output) in [("bootstrap", ""), ("configure", RAN)] {
                let phase_result = phase_result(node, phase).unwrap();
                assert_eq!(
                    (phase_result.outcome, phase_result.attempt, phase_result.output.as_str()),
                    (Outcome::Succeeded, 1, output),
                    "{name} {phase}"
                );
            }
        }
        let pods = self.space.pods().list(&Default::default()).await.unwrap().items;
        for pod in pods {
            let gates = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            assert!(gates.iter().any(|gate| gate.type_ == "pallet.dev/converged" && gate.status == "True"));
        }
    }

    /// One node less where there are several, then the group is deleted. May be begun again wherever it broke off.
    async fn remove(&self) {
        let groups = self.space.groups();
        let group = groups.get_opt("web").await.unwrap();
        if group.is_some_and(|group| group.metadata.deletion_timestamp.is_none()) {
            if self.count > 1 {
                self.one_less().await;
            }
            groups.delete("web", &DeleteParams::default()).await.unwrap();
        }
        wait("everything is gone", || async {
            let nodes = self.space.nodes().list(&Default::default()).await.unwrap().items;
            let (group, pods) = (groups.get_opt("web").await.unwrap(), self.space.pod_names().await);
            if group.is_none() && nodes.is_empty() && pods.is_empty() {
                Ok(())
            } else {
                Err(format!("{group:?} {pods:?}"))
            }
        })
        .await;
    }

    async fn one_less(&self) {
        let first = self.space.pods().get("web-0").await.unwrap().metadata.uid;
        self.space.patch(json!({"spec": {"count": self.count - 1}})).await;
        self.space.ready().await;
        let last = format!("web-{}", self.count - 1);
        wait("one pod less", || async {
            let names = self.space.pod_names().await;
            if names.contains(&last) || names.len() != self.count - 1 { Err(format!("{names:?}")) } else { Ok(()) }
        })
        .await;
        assert_eq!(self.space.pods().get("web-0").await.unwrap().metadata.uid, first, "the highest ordinal goes first");
    }

    /// Lets the work go on until it is done (false), or until the operator was struck (true).
    async fn struck(&self, work: impl Future<Output = ()>) -> bool {
        let before = self.proxy.swallowed_so_far();
        tokio::select! {
            () = self.proxy.swallowed(before) => true,
            () = work => {
                // The blow may have fallen with the last thing that was to be done.
                tokio::time::sleep(Duration::from_millis(300)).await;
                self.proxy.swallowed_so_far() > before
            }
        }
    }

    async fn another_operator(&mut self) {
        self.space.kill_operator().await;
        self.proxy.judge(|_| Fate::Pass);
        self.proxy.judge_frames(|_| Fate::Pass);
        self.space.start_operator();
    }

    /// A whole round without a kill.
    async fn up_and_down(&self) {
        self.space.apply(group(self.count)).await;
        self.converge().await;
        self.assert_converged().await;
        self.remove().await;
    }

    /// A whole round, with the operator killed at one point of the way up and at one of the way down. Says which of the two
    /// there were.
    async fn round(&mut self, up: impl FnOnce(&Proxy), down: impl FnOnce(&Proxy)) -> [bool; 2] {
        self.proxy.forget_history();
        up(&self.proxy);
        self.space.apply(group(self.count)).await;
        let rose = self.struck(self.converge()).await;
        if rose {
            self.another_operator().await;
            self.converge().await;
        }
        self.assert_converged().await;
        down(&self.proxy);
        let fell = self.struck(self.remove()).await;
        if fell {
            self.another_operator().await;
            self.remove().await;
        }
        assert_eq!(self.proxy.done("create pods"), self.count, "a removal makes nothing");
        [rose, fell]
    }
}

/// Strikes at one of the things that count, the first being number 1.
fn strike<T>(
    point: usize,
    fate: Fate,
    counts: impl Fn(&T, Fate) -> bool + Send + 'static,
) -> impl FnMut(T) -> Fate + Send {
    let mut seen = 0;
    move |what| {
        let counted = counts(&what, fate);
        seen += usize::from(counted);
        if counted && seen == point { fate } else { Fate::Pass }
    }
}

fn is_effect(call: &Call, _: Fate) -> bool {
    call.is_write() || call.verb == "exec"
}

/// Says in which round it was when one fails.
async fn told<T>(round: &str, work: impl Future<Output = T>) -> T {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        eprintln!("this was the round {round}");
        resume_unwind(panic)
    })
}

/// How the operator is struck: before what it does arrives, and after that but before the answer does.
const BLOWS: [Fate; 2] = [Fate::SwallowRequest, Fate::SwallowAnswer];

/// How many points there are to one that is taken.
fn every() -> usize {
    std::env::var("EVERY").map_or(1, |every| every.parse::<usize>().expect("EVERY is a number").max(1))
}

/// Takes one point after the other, for each of the blows, until a whole round has none so late. Says how many blows fell on
/// the way up and on the way down.
async fn enumerate(what: &str, count: usize, set: impl Fn(&Proxy, usize, Fate) + Copy) -> Option<[usize; 2]> {
    let (next, every) = (AtomicUsize::new(0), every());
    let first = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as usize % every + 1;
    println!("{what}: point {first} and every {every}. after it");
    let beyond = [AtomicUsize::new(usize::MAX), AtomicUsize::new(usize::MAX)];
    let struck = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let workers = (0..WORKERS).map(|_| async {
        let Some(mut worker) = Worker::new(what, count).await else { return false };
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let (point, blow) = (turn / BLOWS.len() * every + first, turn % BLOWS.len());
            if beyond.iter().all(|beyond| point >= beyond.load(Ordering::Relaxed)) {
                return true;
            }
            if point >= beyond[blow].load(Ordering::Relaxed) {
                continue;
            }
            let set = |proxy: &Proxy| set(proxy, point, BLOWS[blow]);
            let round = Box::pin(worker.round(set, set));
            let hits = Box::pin(told(&format!("killed at {point}, {:?}", BLOWS[blow]), round)).await;
            for (count, hit) in struck.iter().zip(hits) {
                count.fetch_add(usize::from(hit), Ordering::Relaxed);
            }
            if hits == [false, false] {
                beyond[blow].fetch_min(point, Ordering::Relaxed);
            }
        }
    });
    let ran = join_all(workers).await;
    ran.into_iter().all(|ran| ran).then(|| struck.map(AtomicUsize::into_inner))
}

#[tokio::test]
#[ignore = "takes the machine for itself: make test-faults"]
async fn the_operator_may_be_killed_before_and_after_every_write_and_exec() {
    let set = |proxy: &Proxy, point, fate| proxy.judge(strike(point, fate, is_effect));
    let began = Instant::now();
    let Some([up, down]) = enumerate("points", 2, set).await else { return };
    println!("killed at writes and execs: {up} times on the way up, {down} on the way down, in {:?}", began.elapsed());
    // A finalizer, two nodes, two pods, a status of each, two gates, two execs; before and after each.
    assert!(up >= 2 * (11 / every()), "{up}");
    // Two deletions of a node and of its pod, two finalizers and the group's.
    assert!(down >= 2 * (7 / every()), "{down}");
}

#[tokio::test]
#[ignore = "takes the machine for itself: make test-faults"]
async fn the_operator_may_be_killed_before_and_after_every_frame_of_a_session() {
    // After a frame from the node is before the next one to it.
    let counts = |way: &Way, fate| *way == Way::ToNode || fate == Fate::SwallowRequest;
    let set = move |proxy: &Proxy, point, fate| proxy.judge_frames(strike(point, fate, counts));
    let began = Instant::now();
    let Some([up, _]) = enumerate("frames", 1, set).await else { return };
    println!("killed at frames: {up} times, in {:?}", began.elapsed());
    // The greeting, the facts and three phases, each asked for and answered; after a phase the facts are asked for again.
    assert!(up >= 12 / every() + 6 / every(), "{up}");
}

/// How many rounds of dice a test makes at the least, in each of its groups.
fn rounds() -> usize {
    std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"))
}

/// What an API server and its network may do to a write.
const FAULTS: [Fate; 6] =
    [Fate::Answer(409), Fate::Answer(429), Fate::Answer(500), Fate::Answer(503), Fate::LoseRequest, Fate::LoseAnswer];

/// Every kind of thing that a round does.
const KINDS: [&str; 10] = [
    "patch groupspecs",
    "patch groupspecs/status",
    "create groupnodes",
    "patch groupnodes",
    "patch groupnodes/status",
    "delete groupnodes",
    "create pods",
    "patch pods/status",
    "delete pods",
    "exec pods/exec",
];

/// How often which kind of write has met which fault.
type Met = BTreeMap<(String, Fate), u32>;

/// Makes two writes of five meet the fault that its kind has met least.
fn dice(seed: u64, met: Arc<Mutex<Met>>) -> impl FnMut(Call) -> Fate + Send {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut often = BTreeMap::<String, u32>::new();
    move |call| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if !is_effect(&call, Fate::Pass) || state % 5 >= 2 {
            return Fate::Pass;
        }
        // Pauses double with every failure in a row: so many of a kind are waited for, and no more.
        let often = often.entry(call.kind()).or_default();
        *often += 1;
        if *often > 4 {
            return Fate::Pass;
        }
        let mut met = met.lock().unwrap();
        let least = FAULTS.iter().min_by_key(|fate| met.get(&(call.kind(), **fate)).unwrap_or(&0));
        let fate = *least.expect("a fault");
        *met.entry((call.kind(), fate)).or_default() += 1;
        fate
    }
}

#[tokio::test]
#[ignore = "takes the machine for itself: make test-faults"]
async fn every_kind_of_write_may_meet_every_fault() {
    let seed = match std::env::var("SEED").unwrap_or_default().as_str() {
        "" => std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 % 1_000_000,
        seed => seed.parse().expect("SEED is a number"),
    };
    println!("dice for the API server's faults: SEED={seed}");
    let met = Arc::new(Mutex::new(Met::new()));
    let missing = || {
        let met = met.lock().unwrap();
        let all = KINDS.iter().flat_map(|kind| FAULTS.iter().map(|fate| ((*kind).to_owned(), *fate)));
        all.filter(|pair| !met.contains_key(pair)).collect::<Vec<_>>()
    };
    let began = Instant::now();
    let done = AtomicUsize::new(0);
    let workers = (0..WORKERS).map(|number| {
        let (met, missing, done) = (&met, &missing, &done);
        async move {
            let Some(mut worker) = Worker::new("dice", 2).await else { return false };
            let mut round = 0;
            while round < rounds() || !missing().is_empty() {
                assert!(round < rounds() + 12, "not met in {round} rounds: {:?}", missing());
                let seed = seed + (number * 1000 + round) as u64;
                let set = |proxy: &Proxy| proxy.judge(dice(seed, met.clone()));
                Box::pin(told(&format!("of dice {seed}"), worker.round(set, set))).await;
                done.fetch_add(1, Ordering::Relaxed);
                round += 1;
            }
            true
        }
    });
    if join_all(workers).await.into_iter().all(|ran| ran) {
        let faults: u32 = met.lock().unwrap().values().sum();
        println!("{faults} faults in {} rounds, in {:?}", done.into_inner(), began.elapsed());
        assert_eq!(missing(), []);
    }
}

/// Does something to the first request of a kind.
fn first(kind: &str, fate: Fate) -> impl FnMut(Call) -> Fate + Send + 'static {
    let kind = kind.to_owned();
    strike(1, fate, move |call: &Call, _| call.kind() == kind && !call.dry_run)
}

/// The answer is neither good nor bad, it just does not come: each call has its deadline, and what was done is found.
#[tokio::test]
#[ignore = "takes the machine for itself: make test-faults"]
async fn every_kind_of_write_may_be_left_without_an_answer() {
    let began = Instant::now();
    let workers = KINDS.iter().map(|kind| async move {
        let Some(worker) = Worker::judged("hang", 2, first(kind, Fate::SwallowAnswer)).await else { return };
        told(kind, worker.up_and_down()).await;
        assert_eq!(worker.proxy.swallowed_so_far(), 1, "{kind}");
    });
    join_all(workers).await;
    println!("writes without an answer: {:?}", began.elapsed());
}

/// A list or a watch that is never answered would leave the operator blind for ever.
#[tokio::test]
#[ignore = "takes the machine for itself: make test-faults"]
async fn a_list_or_watch_may_be_left_without_an_answer() {
    let kinds =
        ["groupspecs", "groupnodes", "pods"].iter().flat_map(|resource| ["list", "watch"].map(|verb| (verb, resource)));
    let workers = kinds.map(|(verb, resource)| async move {
        let kind = format!("{verb} {resource}");
        let Some(worker) = Worker::judged("blind", 1, first(&kind, Fate::SwallowRequest)).await else { return };
        told(&kind, worker.up_and_down()).await;
        assert_eq!(worker.proxy.swallowed_so_far(), 1, "{kind}");
    });
    join_all(workers).await;
}
