//! Workers that are killed at random moments while payloads travel in both directions.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use offshoot::{BuildError, Containment, Diagnosis, Finding, Handle, Pool, Status, TaskError};
use rustix::process::{Pid, Signal, kill_process};
use serde_bytes::ByteBuf;

use crate::load::{checksum, mix, pattern};
use crate::support::{eventually, result};
use crate::tasks::{double, echo, enroll};

/// Workers that are killed, one after the other.
const DEATHS: u64 = 10;
/// Payload bytes under way at once, and tasks, at most.
const BYTES_UNDER_WAY: usize = 256 << 20;
const TASKS_UNDER_WAY: usize = 256;
/// No answer may take longer, spawns of new workers included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments: bytes of a payload; how many deaths, and a seed, if not the usual ones.
pub(crate) fn workers_die_in_mid_transfer() -> anyhow::Result<()> {
    let number = |nth: usize| env::args().nth(nth).map(|text| text.parse::<u64>()).transpose();
    let size = usize::try_from(number(2)?.context("how many bytes?")?)?;
    let deaths = number(3)?.unwrap_or(DEATHS);
    let seed = number(4)?.unwrap_or(1);
    println!("{size} bytes, seed {seed}");

    let folder = tempfile::tempdir()?;
    let pool = Pool::builder()
        .workers(2..=2)
        .attempts_max(100)
        .initializer(enroll(folder.path().to_owned()))
        .build()?;
    // A test that chooses the fast transport by name wants to see what it does.
    if pool.stats().containment() == Containment::Fast && env::var_os("OFFSHOOT_CONTAINMENT").is_none() {
        println!("skipped: with this MPI it is not promised that the host lives");
        return Ok(());
    }
    let payloads: Vec<ByteBuf> = (0..4).map(|index| ByteBuf::from(pattern(seed + index, size))).collect();
    let sums: Vec<u64> = payloads.iter().map(|payload| checksum(payload)).collect();
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let (submitted, lost) = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let killed = kill_workers(folder.path(), deaths, seed, &answered);
            is_over.store(true, Ordering::Relaxed);
            killed
        });
        let echoed = keep_echoing(&pool, &payloads, &sums, &answered, &is_over);
        // Whatever becomes of the tasks, the killer ends.
        killer.join().expect("the killer does not panic").and(echoed)
    })?;
    let took = begun.elapsed();
    // One that dies before its host has heard that it is ready is no loss, but a start that failed.
    let ends = || pool.stats().losses + pool.stats().spawn_failures;
    eventually("the last death to be noticed", || ends() >= deaths)?;
    // An MPI that loses its peer may abort a worker too.
    let others = ends() - deaths;
    println!("{deaths} deaths, {others} others, {submitted} tasks, {lost} of them lost, in {took:?}");

    // The pool goes on, and replaces every worker.
    for x in 0..100 {
        ensure!(result(pool.submit(double(x))?)? == 2 * x);
    }
    eventually("two workers to be ready", || pool.stats().workers_ready() == 2)?;
    let stats = pool.stats();
    ensure!(stats.spawns >= deaths + 2, "{stats:?}");
    pool.shutdown();
    Ok(())
}

/// As the test has set the variable, and no otherwise.
pub(crate) fn containment_is_what_was_chosen() -> anyhow::Result<()> {
    let (chosen, other) = match env::var("OFFSHOOT_CONTAINMENT").as_deref() {
        Ok("fast") => (Containment::Fast, Containment::Survivable),
        Ok("survivable") | Err(_) if can_survive() => (Containment::Survivable, Containment::Fast),
        Ok("survivable") | Err(_) => (Containment::Fast, Containment::Survivable),
        Ok(wrong) => {
            match Pool::builder().build() {
                Err(BuildError::Preflight(finding)) => ensure!(finding.found.contains(wrong), "{finding}"),
                other => bail!("{wrong} is no containment, and a pool was built: {other:?}"),
            }
            return Ok(());
        }
    };
    match Pool::builder().containment(other).build() {
        Err(error @ BuildError::Containment { asked, has, .. }) => {
            ensure!(asked == other && has == chosen, "{error}");
            let says_how = error.to_string().contains("OFFSHOOT_CONTAINMENT");
            ensure!(says_how || !can_survive(), "{error}");
        }
        built => bail!("{other} was asked for in a process with {chosen}, and not refused: {built:?}"),
    }
    for builder in [Pool::builder(), Pool::builder().containment(chosen)] {
        let pool = builder.workers(0..=1).build()?;
        ensure!(pool.stats().containment() == chosen, "{:?}", pool.stats());
        ensure!(result(pool.submit(double(21))?)? == 42);
    }
    Ok(())
}

/// Whether something is known that survives, with this MPI.
fn can_survive() -> bool {
    let is_about = |finding: &Finding| finding.check == "containment" && finding.status == Status::Warning;
    Diagnosis::make().is_some_and(|diagnosis| !diagnosis.findings.iter().any(is_about))
}

/// Echoes payloads until it is over; each is answered once, as it should be. Returns how many there were, and how many of
/// them were lost.
fn keep_echoing(
    pool: &Pool,
    payloads: &[ByteBuf],
    sums: &[u64],
    answered: &AtomicU64,
    is_over: &AtomicBool,
) -> anyhow::Result<(usize, u64)> {
    let under_way = (BYTES_UNDER_WAY / payloads[0].len()).clamp(4, TASKS_UNDER_WAY);
    let mut handles: VecDeque<(usize, Handle<ByteBuf>)> = VecDeque::new();
    let (mut submitted, mut lost) = (0, 0);
    loop {
        while handles.len() < under_way && !is_over.load(Ordering::Relaxed) {
            let which = submitted % payloads.len();
            handles.push_back((which, pool.submit(echo(payloads[which].clone()))?));
            submitted += 1;
        }
        let Some((which, mut handle)) = handles.pop_front() else { return Ok((submitted, lost)) };
        match handle.wait_timeout(PATIENCE) {
            Ok(echoed) => ensure!(checksum(&echoed) == sums[which], "an echo came back changed"),
            Err(TaskError::Lost { .. }) => lost += 1,
            Err(error) => bail!(error),
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Kills workers, each at a random moment after some answers have come since the last death.
fn kill_workers(folder: &Path, deaths: u64, seed: u64, answered: &AtomicU64) -> anyhow::Result<()> {
    for death in 0..deaths {
        let dice = mix(seed << 32 | death);
        let enough = answered.load(Ordering::Relaxed) + 1 + dice % 4;
        eventually("some answers", || answered.load(Ordering::Relaxed) >= enough)?;
        let mut workers = Vec::new();
        eventually("two workers", || {
            workers = enrolled(folder);
            workers.len() == 2
        })?;
        thread::sleep(Duration::from_micros(mix(dice) % 100_000));
        let victim = workers[(dice >> 32) as usize % workers.len()];
        // It may have ended by itself at this very moment.
        let _ = kill_process(victim, Signal::KILL);
        fs::remove_file(folder.join(victim.as_raw_nonzero().to_string()))?;
    }
    Ok(())
}

/// The workers' processes that live, by the files that they left, in an order that does not change.
fn enrolled(folder: &Path) -> Vec<Pid> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut pids: Vec<i32> =
        files.filter_map(|file| file.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    // One that has ended is its guard's child until that has taken notice.
    let lives = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    pids.retain(lives);
    pids.sort_unstable();
    pids.into_iter().filter_map(Pid::from_raw).collect()
}
