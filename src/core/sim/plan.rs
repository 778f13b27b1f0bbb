//! What kind of world a seed makes: its configuration, its users' habits and its share of bad luck.

use std::time::Duration;

use super::super::{Config, ShutdownMode, Terms, Time};
use super::rng::Rng;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// No simulated task runs for longer than this.
const TASK_MAX: u64 = 20 * S;

/// Everything about a world that is decided before it begins.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) programs: u32,
    /// What a task of each kind takes, in nanoseconds, give or take.
    pub(super) kinds: Vec<u64>,
    pub(super) submits: Vec<Submit>,
    /// When the pool is told to end, in order; if never, it is once nothing moves any more.
    pub(super) shutdowns: Vec<(u64, ShutdownMode)>,
    /// Whether the driver now and then handles several events before it looks at the actions.
    pub(super) is_sloppy: bool,
    pub(super) luck: Luck,
}

/// One task that a user submits, and may regret.
#[derive(Clone, Copy)]
pub(super) struct Submit {
    pub(super) at: u64,
    pub(super) program: u32,
    pub(super) kind: u32,
    pub(super) length: u64,
    /// Every worker that runs it dies.
    pub(super) is_poison: bool,
    pub(super) cancel_at: Option<u64>,
    pub(super) terms: Terms,
}

/// How often, in a thousand, things go wrong.
#[derive(Default)]
pub(super) struct Luck {
    pub(super) start_fails: u64,
    pub(super) start_hangs: u64,
    pub(super) start_dies: u64,
    pub(super) idle_dies: u64,
    pub(super) task_kills: u64,
    pub(super) reply_broken: u64,
    pub(super) retire_stuck: u64,
    /// An event of a worker that is closed already arrives all the same.
    pub(super) late: u64,
    /// A program none of whose workers ever starts, if there is one of that number.
    pub(super) broken_program: u64,
    /// Nanoseconds that a start takes, give or take.
    pub(super) start: u64,
}

impl Plan {
    pub(super) fn of(rng: &mut Rng) -> Plan {
        let programs = rng.pick(&[1, 1, 2, 3]);
        let kinds: Vec<u64> = (0..=rng.below(3))
            .map(|_| rng.pick(&[50, 300, 10 * US, 400 * US, 5 * MS, 300 * MS, 4 * S]))
            .collect();
        let luck = luck(rng);
        let submits = submits(rng, programs, &kinds, &luck);
        Plan {
            config: config(rng),
            programs,
            kinds,
            submits,
            shutdowns: shutdowns(rng),
            is_sloppy: rng.permille(200),
            luck,
        }
    }
}

fn config(rng: &mut Rng) -> Config {
    let nanos = |rng: &mut Rng, from: &[u64]| Duration::from_nanos(rng.pick(from));
    Config {
        workers_min: rng.pick(&[0, 0, 1, 2, 9]),
        workers_max: rng.pick(&[1, 2, 3, 5, 8]),
        idle_timeout: nanos(rng, &[5 * MS, S, 10 * S]),
        spawn_timeout: nanos(rng, &[300 * MS, 2 * S, 30 * S]),
        retire_timeout: nanos(rng, &[50 * MS, 5 * S]),
        task_timeout: rng.permille(100).then_some(Duration::from_nanos(100 * MS)),
        stop_grace: nanos(rng, &[0, 5 * MS, 500 * MS, 60 * S]),
        attempts_max: rng.pick(&[1, 2, 3]),
        spawn_failures_max: rng.pick(&[1, 2, 3]),
        spawn_backoff: nanos(rng, &[MS, 10 * MS, 100 * MS]),
        spawn_backoff_max: nanos(rng, &[150 * MS, 5 * S]),
        spawn_guess: nanos(rng, &[MS, 100 * MS]),
        growth_patience: nanos(rng, &[0, 10 * MS]),
        window_budget: nanos(rng, &[0, 2 * US, MS, 20 * MS]),
        window_max: rng.pick(&[1, 2, 4, 4096]),
        tenure: nanos(rng, &[0, 100 * MS, S]),
    }
}

fn luck(rng: &mut Rng) -> Luck {
    let start = rng.pick(&[MS, 30 * MS, 200 * MS]);
    if rng.permille(350) {
        return Luck { start, broken_program: u64::MAX, late: 300, ..Luck::default() };
    }
    Luck {
        start,
        start_fails: rng.pick(&[0, 50, 500]),
        start_hangs: rng.pick(&[0, 50, 200]),
        start_dies: rng.pick(&[0, 50, 200]),
        idle_dies: rng.pick(&[0, 50, 300]),
        task_kills: rng.pick(&[0, 20, 200]),
        reply_broken: rng.pick(&[0, 20, 100]),
        retire_stuck: rng.pick(&[0, 100, 500]),
        late: rng.pick(&[0, 500, 1000]),
        broken_program: rng.below(20),
    }
}

fn submits(rng: &mut Rng, programs: u32, kinds: &[u64], luck: &Luck) -> Vec<Submit> {
    let mut submits = Vec::new();
    let mut at = 0;
    let cancels = rng.pick(&[0, 0, 100, 500]);
    let limits = rng.pick(&[0, 0, 200, 500]);
    let poison = if luck.task_kills > 0 { rng.pick(&[0, 50, 300]) } else { 0 };
    for _ in 0..=rng.below(4) {
        at += 1 + rng.below_one_of(&[1, MS, 500 * MS, 30 * S]);
        let program = rng.below(u64::from(programs)) as u32;
        for _ in 0..=rng.below_one_of(&[1, 4, 10, 30]) {
            at += rng.below_one_of(&[1, 100 * US]);
            let kind = rng.below(kinds.len() as u64) as u32;
            let terms = Terms {
                deadline: rng
                    .permille(limits)
                    .then(|| Time::from_nanos(at + rng.below_one_of(&[1, MS, S, 30 * S]))),
                timeout: rng
                    .permille(limits)
                    .then(|| Duration::from_nanos(rng.below_one_of(&[1, 100 * US, 10 * MS, S]))),
                once: rng.permille(limits / 2),
            };
            submits.push(Submit {
                at,
                program: if rng.permille(150) { rng.below(u64::from(programs)) as u32 } else { program },
                kind,
                length: length(rng, kinds[kind as usize]),
                is_poison: rng.permille(poison),
                cancel_at: rng.permille(cancels).then(|| at + rng.below_one_of(&[1, MS, S])),
                terms,
            });
        }
    }
    submits
}

/// Mostly near what is usual for the kind, now and then far from it.
fn length(rng: &mut Rng, usual: u64) -> u64 {
    let factor = if rng.permille(20) { 1000 } else { 1 };
    (usual / 2 + rng.below(usual)).saturating_mul(factor).min(TASK_MAX)
}

fn shutdowns(rng: &mut Rng) -> Vec<(u64, ShutdownMode)> {
    let at = rng.below_one_of(&[MS, 300 * MS, 20 * S]);
    let later = at + rng.below_one_of(&[1, 300 * MS]);
    match rng.below(8) {
        0 => vec![(at, ShutdownMode::Drain)],
        1 => vec![(at, ShutdownMode::Cancel)],
        2 => vec![(at, ShutdownMode::Drain), (later, ShutdownMode::Cancel)],
        3 => vec![(at, ShutdownMode::Cancel), (later, ShutdownMode::Drain)],
        _ => vec![],
    }
}
