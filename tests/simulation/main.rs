//! The simulation tier: the operator's own reconciles and sessions against a fake API server, fake kubelets and fake nodes, in one
//! thread, by one seeded scheduler that drops, delays, reorders, cuts and kills.
//!
//! Without variables it runs 1,000 fixed seeds, from 0 on, and 1,000 from a base that is new in every run. `SEEDS=N` and `FRESH=N`
//! say how many; `FIRST=N` runs `SEEDS` from there and no others; `MINUTES=N` runs from there, or from a new base, for so long;
//! `THREADS=N` bounds the threads; `ALL=1` goes on after a failure; `SEED=N` replays one seed with its story told. A failing
//! seed prints how to replay it.

mod cluster;
mod golden;
mod hosts;
mod invariants;
mod kubelet;
mod lifts;
mod machine;
mod operator;
mod server;
mod sessions;
mod world;

use std::{
    num::NonZero,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use world::{Story, World};

/// So many seeds show every kind of event; fewer need not.
const ENOUGH: u64 = 1000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, and is {text:?}")))
}

/// A base that no earlier run began at: the milliseconds since 1970. Fewer seeds run in a millisecond than that.
fn fresh_base() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as u64
}

/// The seeds to run, as the environment says.
fn seeds(timed: bool) -> Vec<Range<u64>> {
    let most = if timed { u64::MAX / 2 } else { 1000 };
    let (count, fresh) = (number("SEEDS"), number("FRESH"));
    let from = |first: u64, count: u64| first..first.saturating_add(count);
    match number("FIRST") {
        Some(first) => vec![from(first, count.unwrap_or(most))],
        None if timed => vec![from(fresh_base(), most)],
        None => vec![from(0, count.unwrap_or(1000)), from(fresh_base(), fresh.unwrap_or(1000))],
    }
}

#[test]
fn every_seed_keeps_the_invariants_and_comes_to_rest() {
    if let Some(seed) = number("SEED") {
        World::new(seed, Story::Told).run();
        return;
    }
    let began = Instant::now();
    let end = number("MINUTES").map(|minutes| began + Duration::from_secs(minutes * 60));
    let ranges = seeds(end.is_some());
    for range in &ranges {
        // Printed before anything runs: whatever becomes of this process, the run can be repeated.
        match end {
            Some(_) => println!("simulation: seeds from FIRST={}", range.start),
            None => println!("simulation: FIRST={} SEEDS={}", range.start, range.end - range.start),
        }
    }
    let count = ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add);
    let nth = |nth: u64| {
        let mut left = nth;
        ranges.iter().find_map(|range| {
            let length = range.end - range.start;
            if left < length {
                return Some(range.start + left);
            }
            left -= length;
            None
        })
    };
    let (next, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let goes_on = number("ALL").is_some();
    let threads = number("THREADS").map_or_else(
        || std::thread::available_parallelism().map_or(1, NonZero::get),
        |threads| threads.max(1) as usize,
    );
    let worker = || {
        let mut totals = world::Totals::default();
        loop {
            let stops = !goes_on && failures.load(Ordering::Relaxed) > 0;
            if stops || end.is_some_and(|end| Instant::now() >= end) {
                return totals;
            }
            let Some(seed) = nth(next.fetch_add(1, Ordering::Relaxed) as u64) else { return totals };
            match catch_unwind(AssertUnwindSafe(|| World::new(seed, Story::None).run())) {
                Ok(seen) => {
                    totals += seen;
                    totals.count("seeds");
                }
                Err(_) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    if !goes_on {
                        // The same again, for the end of its story.
                        let _ = catch_unwind(AssertUnwindSafe(|| World::new(seed, Story::Last).run()));
                    }
                    eprintln!(
                        "seed {seed} failed; replay it with: SEED={seed} cargo test --test simulation -- --nocapture"
                    );
                }
            }
        }
    };
    let mut totals = world::Totals::default();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().for_each(|handle| totals += handle.join().expect("a worker goes on after a failure"));
    });
    let (ran, seconds) = (totals.counts.get("seeds").copied().unwrap_or_default(), began.elapsed().as_secs_f64());
    println!("simulation: {ran} seeds of {count} in {seconds:.0} s, {:.0} a second, {totals}", ran as f64 / seconds);
    let failures = failures.into_inner();
    assert_eq!(failures, 0, "seeds failed: how to replay them is said above");
    if ran >= ENOUGH {
        totals.assert_everything_happened();
    }
}
