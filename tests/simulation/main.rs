//! The simulation tier: the real planner, the real sessions and the real index against a fake API server, fake kubelets
//! and fake nodes, in one thread, by one seeded scheduler that drops, delays, reorders, cuts and kills.
//!
//! `SEEDS=N` runs that many, `SEED=N` replays one with its story told. A failing seed prints how to replay it.

mod cluster;
mod invariants;
mod machine;
mod operator;
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
    let seeds = number("SEEDS").unwrap_or(10_000);
    let began = std::time::Instant::now();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers = |_| {
        || {
            let mut totals = world::Totals::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return totals;
                }
                match catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run())) {
                    Ok(seen) => totals += seen,
                    Err(panic) => {
                        eprintln!(
                            "seed {seed} failed; replay it with: SEED={seed} cargo test --test simulation -- --nocapture"
                        );
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
    let speed = seeds as f64 / began.elapsed().as_secs_f64();
    println!("simulation: {seeds} seeds, {speed:.0} a second, {totals}");
    totals.assert_everything_happened();
}
