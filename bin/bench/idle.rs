//! What processes cost that have nothing to do: CPU, context switches, memory, of each kind of process.
//!
//! Raw MPI's idle worker waits in `MPI_Recv`, as one does in C; its host sleeps outside of MPI.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::child::TOKEN;
use super::figure::{Better, Sample};
use super::work::Side;
use super::{raw, tasks};
use crate::processes::{self, Process};

/// After the last work, until everything has come to rest.
const SETTLE: Duration = Duration::from_secs(1);
/// First argument of a guard.
const GUARD_FLAG: &[u8] = b"--offshoot-guard";

pub(crate) fn measure(workers: u32, side: Side, time: Duration) -> anyhow::Result<Vec<Sample>> {
    let costs = match side {
        Side::Ours => {
            let pool = tasks::pool(workers)?;
            for _ in 0..1_000 {
                tasks::round_trip(&pool)?;
            }
            let costs = watch(time)?;
            pool.shutdown();
            costs
        }
        Side::Raw => {
            raw::initialize();
            let peers = raw::Workers::spawn(workers);
            for _ in 0..1_000 {
                peers.ping(0);
            }
            peers.block();
            let costs = watch(time)?;
            peers.unblock();
            peers.leave();
            raw::finalize();
            costs
        }
    };
    Ok(samples(&costs, workers, side))
}

/// What a process of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Host,
    Worker,
    Guard,
    /// What the MPI has started for itself.
    Daemon,
}

/// What a process has used up, or what some use in a while.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    cpu: Duration,
    switches: u64,
    memory_kib: u64,
}

/// What each kind of process costs, all of a kind together, and in what time.
struct Costs {
    by_role: BTreeMap<Role, Cost>,
    time: Duration,
}

/// Looks, waits, and looks again. This process is looked at last before, and first after, because looking is work.
fn watch(time: Duration) -> anyhow::Result<Costs> {
    thread::sleep(SETTLE);
    let token = std::env::var(TOKEN).context("nobody has marked this process")?;
    let others = others(&token);
    let mut before: Vec<Cost> = others.iter().map(|(_, process)| cost_of(process.id)).collect();
    let own = i32::try_from(std::process::id()).context("a process number is positive")?;
    let mut own_before = cost_of(own);
    let begun = Instant::now();
    thread::sleep(time);
    let mut by_role = BTreeMap::from([(Role::Host, difference(&mut own_before, cost_of(own)))]);
    let time = begun.elapsed();
    for ((role, process), before) in others.iter().zip(&mut before) {
        let cost = difference(before, cost_of(process.id));
        let sum: &mut Cost = by_role.entry(*role).or_default();
        sum.cpu += cost.cpu;
        sum.switches += cost.switches;
        sum.memory_kib += cost.memory_kib;
    }
    Ok(Costs { by_role, time })
}

fn difference(before: &mut Cost, after: Cost) -> Cost {
    Cost {
        cpu: after.cpu.saturating_sub(before.cpu),
        switches: after.switches.saturating_sub(before.switches),
        memory_kib: after.memory_kib,
    }
}

/// All processes that this one has started, and those have, with what they are.
fn others(token: &str) -> Vec<(Role, Process)> {
    let own = std::process::id();
    let all = processes::with(TOKEN, token);
    let all: Vec<(Process, Vec<u8>)> = all
        .into_iter()
        .filter(|process| process.id.unsigned_abs() != own)
        .map(|process| (process, first_argument(process.id)))
        .collect();
    let is_guard = |id| all.iter().any(|(process, argument)| process.id == id && argument == GUARD_FLAG);
    let role = |(process, argument): &(Process, Vec<u8>)| match &argument[..] {
        GUARD_FLAG => (Role::Guard, *process),
        argument if argument == raw::FLAG.as_bytes() => (Role::Worker, *process),
        _ if is_guard(process.parent) => (Role::Worker, *process),
        _ => (Role::Daemon, *process),
    };
    all.iter().map(role).collect()
}

fn first_argument(id: i32) -> Vec<u8> {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1).unwrap_or_default().to_vec()
}

/// What a process has used up so far, all of its threads; nothing if it is gone.
fn cost_of(id: i32) -> Cost {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let mut cost = Cost::default();
    for thread in threads {
        let read = |file| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let nanos = read("schedstat").split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        cost.cpu += Duration::from_nanos(nanos.unwrap_or(0));
        let status = read("status");
        let switches = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        cost.switches += switches.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    // The part of shared memory that is this process's: it is divided among those that share it.
    let memory = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("Pss:"));
    cost.memory_kib = memory.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    cost
}

/// What is told of a cost: its name, its unit, and the number.
type Kind<'a> = (&'a str, &'a str, &'a dyn Fn(Cost) -> f64);

/// Of each worker with its guard, of each guard alone, of the host, and of all daemons together.
fn samples(costs: &Costs, workers: u32, side: Side) -> Vec<Sample> {
    let of = |role| costs.by_role.get(&role).copied();
    let each = |role| of(role).map(|cost| share(cost, workers));
    let with_guard = each(Role::Worker).map(|worker| sum(worker, each(Role::Guard).unwrap_or_default()));
    let rows = [
        ("host", of(Role::Host)),
        ("worker", with_guard),
        ("guard", each(Role::Guard)),
        ("daemons", of(Role::Daemon).or(Some(Cost::default()))),
    ];
    let seconds = costs.time.as_secs_f64();
    let figures: [Kind<'_>; 3] = [
        ("cpu", "% of a core", &|cost: Cost| cost.cpu.as_secs_f64() * 100.0 / seconds),
        ("switches", "1/s", &|cost: Cost| cost.switches as f64 / seconds),
        ("memory", "MiB", &|cost: Cost| cost.memory_kib as f64 / 1024.0),
    ];
    let sample = |(what, unit, value): Kind<'_>, (who, cost): (&str, Option<Cost>)| {
        let sample = Sample::new(format!("idle-{what}-{who}"), unit, Better::Lower);
        match side {
            Side::Ours => sample.ours(cost.map(value)),
            Side::Raw => sample.raw(cost.map(value)),
        }
    };
    figures.iter().flat_map(|figure| rows.map(|row| sample(*figure, row))).collect()
}

fn share(cost: Cost, workers: u32) -> Cost {
    Cost {
        cpu: cost.cpu / workers,
        switches: cost.switches / u64::from(workers),
        memory_kib: cost.memory_kib / u64::from(workers),
    }
}

fn sum(one: Cost, other: Cost) -> Cost {
    Cost {
        cpu: one.cpu + other.cpu,
        switches: one.switches + other.switches,
        memory_kib: one.memory_kib + other.memory_kib,
    }
}
