//! What there is to measure, cut into pieces that a process of its own can do, and how much of each.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Arguments;

/// What the user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// One no-op task at a time, in a pool that is busy.
    Roundtrip,
    /// The same after a second in which nothing happens.
    RoundtripAfterIdle,
    /// Many no-op tasks, through `map` and through `submit`.
    Throughput,
    /// Echoes of large arguments.
    Bandwidth,
    /// A pool with a parent of its own beside one whose MPI is in the process.
    Isolation,
    /// From nothing to the first result; what a running worker notices while others are spawned.
    Spawn,
    /// CPU, context switches and memory of a pool that has nothing to do.
    Idle,
    /// The core alone, without MPI.
    Scheduler,
    /// `offshoot run` beside `xargs` and GNU parallel.
    Run,
}

/// One process's work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Work {
    RoundTrips { workers: u32, millis: u64 },
    AfterIdle { workers: u32, times: u32 },
    Throughput { workers: u32, tasks: u64 },
    Echoes { bytes: u64, millis: u64 },
    Isolation { millis: u64, tasks: u64, bytes: u64 },
    ColdStart { workers: u32, side: Side },
    Gap { side: Side },
    Idle { workers: u32, side: Side, millis: u64 },
    Scheduler { workers: u32, tasks: u64 },
    Lines { workers: u32, lines: u32 },
}

/// Whose turn it is, where the two cannot share a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Side {
    Ours,
    Raw,
}

const BOTH: [Side; 2] = [Side::Raw, Side::Ours];

/// Each figure is measured so often, in turn with the others.
pub(crate) const ROUNDS: u32 = 3;

/// How much there is to do with less than a second for each figure: enough to see that it works.
const WHOLE: f64 = 1.0;

/// Tasks that the scheduler alone takes a while for.
const MANY: u64 = 10_000_000;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Name {
    /// The work of one round.
    pub(crate) fn works(self, arguments: &Arguments) -> Vec<Work> {
        let is_whole = arguments.seconds >= WHOLE;
        let workers = |default: &[u32]| arguments.workers.map_or(default.to_vec(), |workers| vec![workers]);
        let one = arguments.workers.unwrap_or(1);
        let of_round = |part: f64| (arguments.seconds * 1000.0 * part / f64::from(ROUNDS)).ceil() as u64;
        match self {
            Self::Roundtrip => vec![Work::RoundTrips { workers: one, millis: of_round(0.5) }],
            Self::RoundtripAfterIdle => {
                vec![Work::AfterIdle { workers: one, times: if is_whole { 3 } else { 1 } }]
            }
            Self::Throughput => {
                let tasks = if is_whole { [100_000, 1_000_000] } else { [1_000, 10_000] };
                let work = |workers| tasks.map(|tasks| Work::Throughput { workers, tasks });
                workers(&[1, 2]).into_iter().flat_map(work).collect()
            }
            Self::Bandwidth => {
                let sizes = [64 * KIB, MIB, 64 * MIB, GIB, 3 * GIB];
                let sizes = &sizes[..if is_whole { sizes.len() } else { 2 }];
                let work = |&bytes| Work::Echoes { bytes, millis: of_round(0.2) };
                sizes.iter().map(work).collect()
            }
            Self::Isolation => {
                let (tasks, bytes) = if is_whole { (1_000_000, 64 * MIB) } else { (10_000, MIB) };
                vec![Work::Isolation { millis: of_round(0.2), tasks, bytes }]
            }
            Self::Spawn => {
                let counts = workers(if is_whole { &[1, 4, 16] } else { &[1, 2] });
                let cold = |workers| BOTH.map(|side| Work::ColdStart { workers, side });
                let gaps = BOTH.map(|side| Work::Gap { side });
                counts.into_iter().flat_map(cold).chain(gaps).collect()
            }
            Self::Idle => {
                let (workers, millis) = (arguments.workers.unwrap_or(2), of_round(10.0 / 3.0));
                BOTH.map(|side| Work::Idle { workers, side, millis }).to_vec()
            }
            Self::Scheduler => {
                let tasks: &[u64] = if is_whole { &[1_000, 100_000, 1_000_000] } else { &[1_000, 10_000] };
                let counts = workers(&[1, 100, 10_000]);
                let work = |workers| tasks.iter().map(move |&tasks| Work::Scheduler { workers, tasks });
                let most = is_whole.then_some(Work::Scheduler { workers: counts[0], tasks: MANY });
                counts.into_iter().flat_map(work).chain(most).collect()
            }
            Self::Run => {
                let workers = arguments.workers.unwrap_or(2);
                [1, if is_whole { 1_000 } else { 100 }].map(|lines| Work::Lines { workers, lines }).to_vec()
            }
        }
    }

    /// Whether it depends on how a worker's death is contained.
    pub(crate) fn depends_on_containment(self) -> bool {
        match self {
            Self::Roundtrip
            | Self::RoundtripAfterIdle
            | Self::Throughput
            | Self::Bandwidth
            | Self::Isolation
            | Self::Spawn
            | Self::Idle
            | Self::Run => true,
            Self::Scheduler => false,
        }
    }
}

impl Work {
    /// In how many rounds. What takes long is measured in the first one only.
    pub(crate) fn rounds(&self) -> u32 {
        match *self {
            Self::Scheduler { tasks, .. } if tasks >= MANY => 1,
            Self::Echoes { bytes, .. } if bytes > GIB => 1,
            Self::RoundTrips { .. }
            | Self::AfterIdle { .. }
            | Self::Throughput { .. }
            | Self::Echoes { .. }
            | Self::Isolation { .. }
            | Self::ColdStart { .. }
            | Self::Gap { .. }
            | Self::Idle { .. }
            | Self::Scheduler { .. }
            | Self::Lines { .. } => ROUNDS,
        }
    }

    /// What the figures are called that it gives, if it gives none.
    pub(crate) fn name(&self) -> String {
        match *self {
            Self::RoundTrips { .. } => "roundtrip".to_owned(),
            Self::AfterIdle { .. } => "roundtrip-after-idle".to_owned(),
            Self::Throughput { workers, tasks } => format!("throughput-{workers}w-{tasks}"),
            Self::Echoes { bytes, .. } => format!("bandwidth-{}", size(bytes)),
            Self::Isolation { .. } => "isolated".to_owned(),
            Self::ColdStart { workers, .. } => format!("spawn-{workers}w"),
            Self::Gap { .. } => "spawn-gap".to_owned(),
            Self::Idle { .. } => "idle".to_owned(),
            Self::Scheduler { workers, tasks } => format!("scheduler-{workers}w-{tasks}"),
            Self::Lines { lines, .. } => format!("run-{lines}"),
        }
    }
}

/// As people write it.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= GIB => format!("{}gib", bytes / GIB),
        _ if bytes >= MIB => format!("{}mib", bytes / MIB),
        _ => format!("{}kib", bytes / KIB),
    }
}
