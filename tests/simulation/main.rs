//! The simulation tier: the real planner, the real sessions and the real index against a fake API server, fake kubelets
//! and fake nodes, in one thread, by one seeded scheduler that drops, delays, reorders, cuts and kills.
//!
//! `SEEDS=N` runs that many, `MINUTES=N` as many as there is time for, `FIRST=N` begins there, and `SEED=N` replays one with
//! its story told. A failing seed prints how to replay it.

mod cluster;
mod golden;
mod hosts;
mod invariants;
mod kubelet;
mod lifts;
mod machine;
mod operator;
mod sessions;
mod world;

use std::{
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
};

use world::World;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_seed_keeps_the_invariants_and_comes_to_rest() {
    if let Some(seed) = number("SEED") {
        World::new(seed, true).run();
        return;
    }
    let began = std::time::Instant::now();
    // A soak goes by the clock, and begins where no other run of it has been.
    let end = number("MINUTES").map(|minutes| began + std::time::Duration::from_secs(minutes * 60));
    let first = number("FIRST").unwrap_or(0);
    let seeds = if end.is_some() { u64::MAX } else { first + number("SEEDS").unwrap_or(10_000) };
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers = |_| {
        || {
            let mut totals = world::Totals::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.min(u64::MAX / 2) || end.is_some_and(|end| std::time::Instant::now() >= end) {
                    return totals;
                }
                match catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run())) {
                    Ok(seen) => {
                        totals += seen;
                        totals.count("seeds");
                    }
                    Err(panic) => {
                        eprintln!(
                            "seed {seed} failed; replay it with: SEED={seed} cargo test --test simulation -- --nocapture"
                        );
                        // Nobody begins another.
                        next.store(u64::MAX / 2, Ordering::Relaxed);
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    };
    let mut totals = world::Totals::default();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(workers).map(|worker| scope.spawn(worker)).collect();
        handles.into_iter().for_each(|handle| totals += handle.join().expect("a seed failed"));
    });
    let (ran, seconds) = (totals.counts["seeds"], began.elapsed().as_secs_f64());
    println!("simulation: {ran} seeds from {first} in {seconds:.0} s, {:.0} a second, {totals}", ran as f64 / seconds);
    totals.assert_everything_happened();
}
