//! A seeded simulator: hundreds of thousands of small worlds in virtual time, each checked at every step.
//!
//! `OFFSHOOT_WORLDS=n` sets how many worlds all tests together run; `OFFSHOOT_SEED=n` runs that one only
//! and prints every event and action. A world that fails prints the command that replays it.

mod oracle;
mod plan;
mod rng;
mod shadow;
mod together;
mod world;

use std::env;

use world::World;

/// Worlds of a plain `cargo test`, all ranges together.
const WORLDS: u64 = 400_000;

/// Ranges that run beside each other.
const RANGES: u64 = 4;

/// Prints how to replay a world if it panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "world {seed} failed; replay: OFFSHOOT_SEED={seed} cargo test --lib core::sim -- --nocapture"
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

fn run(seed: u64, is_traced: bool) {
    let _replay = Replay(seed);
    World::new(seed, is_traced).run();
}

fn run_range(range: u64) {
    if let Some(seed) = number("OFFSHOOT_SEED") {
        if seed % RANGES == range {
            run(seed, true);
        }
        return;
    }
    let worlds = number("OFFSHOOT_WORLDS").unwrap_or(WORLDS);
    for seed in (range..worlds).step_by(RANGES as usize) {
        run(seed, false);
    }
}

#[test]
fn every_law_holds_in_worlds_0_mod_4() {
    run_range(0);
}

#[test]
fn every_law_holds_in_worlds_1_mod_4() {
    run_range(1);
}

#[test]
fn every_law_holds_in_worlds_2_mod_4() {
    run_range(2);
}

#[test]
fn every_law_holds_in_worlds_3_mod_4() {
    run_range(3);
}
