//! Tasks and initializers that go wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use mpi::environment::library_version;
use offshoot::{Limit, Pool, SpawnCause, TaskError};
use rustix::process::{Signal, kill_process};

use crate::programs::shell;
use crate::support::{Stage, eventually, is_gone, result};
use crate::tasks::{die, double, enter, fail_with_causes, fill_memory, guard, open_ledger, panic_with, pid};

pub(crate) fn a_worker_dies() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).attempts_max(2).build()?;
    let stage = Stage::new()?;
    let bystander = pool.submit(stage.hold("bystander")).map_err(|error| error.reason)?;
    stage.await_start("bystander")?;
    for way in ["SIGKILL", "SIGSEGV", "SIGBUS", "SIGABRT", "exit(3)", "exit(0)"] {
        let told = if way.starts_with("SIG") {
            way.to_owned()
        } else {
            way.replace("exit(", "code ").replace(')', "")
        };
        match result(pool.submit(die(way.to_owned()))?) {
            Err(TaskError::Lost { attempts: 2, reason, .. }) => {
                ensure!(reason.contains(&told), "{way}: {reason}");
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                ensure!(reason.contains(&format!(" at {host} ")), "{way}: {reason}");
                ensure!(reason.contains("MiB of memory") == (way == "SIGKILL"), "{way}: {reason}");
            }
            other => bail!("{way}: not lost, but {other:?}"),
        }
        ensure!(result(pool.submit(double(21))?)? == 42, "{way}: the pool goes on");
    }
    stage.release("bystander")?;
    result(bystander)?;
    ensure!(pool.stats().losses == 12, "{:?}", pool.stats());
    Ok(())
}

/// Where a limit of its own is reached a worker aborts; where its group has no memory left the system kills it. The
/// second needs a group, which not everybody may make.
pub(crate) fn memory_runs_out() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).attempts_max(2).build()?;
    let stage = Stage::new()?;
    let bystander = pool.submit(stage.hold("bystander")).map_err(|error| error.reason)?;
    stage.await_start("bystander")?;
    let own_limit: (Option<MemoryGroup>, &[&str]) = (None, &["SIGABRT", "memory allocation of"]);
    let of_group = MemoryGroup::new(96 << 20).map(|group| (Some(group), &["SIGKILL", "MiB of memory"][..]));
    if of_group.is_none() {
        println!("skipped: this process may make no group with a limit of memory");
    }
    let mut losses = 0;
    for (group, words) in [own_limit].into_iter().chain(of_group) {
        let folder = group.as_ref().map(|group| group.folder.clone());
        match result(pool.submit(fill_memory(folder))?) {
            Err(TaskError::Lost { attempts: 2, reason, .. }) => {
                ensure!(words.iter().all(|word| reason.contains(word)), "{words:?}: {reason}");
                println!("{reason}");
            }
            other => bail!("{words:?}: not lost, but {other:?}"),
        }
        losses += 2;
        ensure!(result(pool.submit(double(21))?)? == 42, "{words:?}: the pool goes on");
    }
    stage.release("bystander")?;
    result(bystander)?;
    ensure!(pool.stats().losses == losses, "{:?}", pool.stats());
    Ok(())
}

/// A control group whose processes may have so much memory together.
struct MemoryGroup {
    folder: PathBuf,
}

impl MemoryGroup {
    /// If this process may make one.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("offshoot-{}", std::process::id());
        // The first version of control groups, and the second.
        let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        places.into_iter().find_map(|(parent, limit)| {
            let folder = Path::new(parent).join(&name);
            fs::create_dir(&folder).ok()?;
            let group = Self { folder };
            // Not in a folder that is none: a file would be made there.
            let limit = group.folder.join(limit);
            (limit.exists() && fs::write(&limit, bytes.to_string()).is_ok()).then_some(group)
        })
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The last process may be on its way out.
        let _ = eventually("the group to be empty", || fs::remove_dir(&self.folder).is_ok());
    }
}

/// Cancelled, over its time, past its deadline: a task that does not look is ended with its worker, which costs
/// those behind it nothing.
pub(crate) fn a_task_does_not_stop() -> anyhow::Result<()> {
    let grace = Duration::from_millis(200);
    let pool = Pool::builder().workers(1..=1).attempts_max(1).stop_grace(grace).build()?;
    let stage = Stage::new()?;
    let mut workers = vec![result(pool.submit(pid())?)?];
    for (kills, way) in (1..).zip(["cancel", "timeout", "deadline"]) {
        let endless = stage.never_end(way);
        let endless = match way {
            "timeout" => endless.timeout(Duration::from_millis(300)),
            "deadline" => endless.deadline(Instant::now() + Duration::from_millis(300)),
            _ => endless,
        };
        let running = pool.submit(endless).map_err(|error| error.reason)?;
        stage.await_start(way)?;
        let behind = pool.submit(pid())?;
        let begun = Instant::now();
        if way == "cancel" {
            running.cancel();
        }
        match (way, result(running)) {
            ("cancel", Err(TaskError::Cancelled { .. })) => {}
            ("timeout", Err(TaskError::Overdue { limit: Limit::Timeout, .. })) => {}
            ("deadline", Err(TaskError::Overdue { limit: Limit::Deadline, .. })) => {}
            (_, other) => bail!("{way}: {other:?}"),
        }
        ensure!(begun.elapsed() >= grace, "{way}: it had no grace");
        let replacement = result(behind)?;
        ensure!(!workers.contains(&replacement), "{way}: its worker lives");
        workers.push(replacement);
        let stats = pool.stats();
        ensure!(stats.kills == kills && stats.losses == 0, "{way}: {stats:?}");
    }
    Ok(())
}

pub(crate) fn a_task_that_may_run_once_is_lost_once() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).build()?;
    for (call, expected) in [(die("SIGKILL".to_owned()).idempotent(false), 1), (die("SIGKILL".to_owned()), 3)]
    {
        match result(pool.submit(call)?) {
            Err(TaskError::Lost { attempts, .. }) => ensure!(attempts == expected, "tried {attempts} times"),
            other => bail!("not lost, but {other:?}"),
        }
    }
    Ok(())
}

/// What a task does to its own MPI.
pub(crate) fn a_task_calls_mpi_abort() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).attempts_max(2).build()?;
    let stage = Stage::new()?;
    let bystander = pool.submit(stage.hold("bystander")).map_err(|error| error.reason)?;
    stage.await_start("bystander")?;
    match result(pool.submit(die("MPI_Abort".to_owned()))?) {
        Err(TaskError::Lost { attempts: 2, reason, .. }) => println!("{reason}"),
        other => bail!("not lost, but {other:?}"),
    }
    ensure!(result(pool.submit(double(21))?)? == 42, "the pool goes on");
    stage.release("bystander")?;
    result(bystander)?;
    ensure!(pool.stats().losses == 2, "{:?}", pool.stats());
    Ok(())
}

/// What is ended has time to do so by itself, and none of its processes gets away, wherever it went.
pub(crate) fn all_processes_of_a_worker_are_ended() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    let script = format!(
        "cd '{}'\n\
         setsid sh -c 'trap \"\" TERM; echo $$ > deaf; while :; do sleep 1000; done' &\n\
         sh -c 'trap \"sleep 0.3; echo > tidied; exit\" TERM; echo $$ > tidy; while :; do sleep 0.05; done' &\n\
         trap 'echo > asked; exit' TERM\n\
         while :; do sleep 0.05; done",
        folder.path().display()
    );
    let program = shell(&script);
    let builder = Pool::builder().workers(0..=1).spawn_timeout(Duration::from_secs(2)).program(program);
    let pool = builder.kill_grace(Duration::from_millis(1500)).build()?;
    match result(pool.submit(double(1))?) {
        Err(TaskError::SpawnFailed { cause: SpawnCause::Overdue, .. }) => {}
        other => bail!("not overdue, but {other:?}"),
    }
    let pid = |name: &str| anyhow::Ok(fs::read_to_string(file(name))?.trim().to_owned());
    let (deaf, tidy) = (pid("deaf")?, pid("tidy")?);
    eventually("the worker to be asked first", || file("asked").exists())?;
    let begun = Instant::now();
    eventually("all its processes to end", || is_gone(&deaf) && is_gone(&tidy))?;
    ensure!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
    ensure!(file("tidied").exists(), "a process in the worker's group had no time");
    Ok(())
}

/// Daemons of an MPI tell what they have started to end by SIGTERM, before they use force.
pub(crate) fn a_guard_that_is_told_to_end_takes_all_along() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).attempts_max(1).build()?;
    let stage = Stage::new()?;
    let handle = pool.submit(stage.start_one_that_is_deaf("a")).map_err(|error| error.reason)?;
    let deaf = stage.deaf("a")?;
    let [worker, guard] = stage.processes("a")?;
    kill_process(guard, Signal::TERM)?;
    match result(handle) {
        Err(TaskError::Lost { reason, .. }) => ensure!(reason.contains("SIGKILL"), "{reason}"),
        other => bail!("not lost, but {other:?}"),
    }
    for process in [worker, deaf, guard] {
        eventually("all to end", || is_gone(process))?;
    }
    ensure!(result(pool.submit(double(21))?)? == 42, "a later spawn works");
    Ok(())
}

/// From the kill of a worker, or of its guard where the MPI survives that, until its task is known to be lost.
pub(crate) fn deaths_are_known_at_once() -> anyhow::Result<()> {
    let workers = 5;
    let pool = Pool::builder().workers(0..=workers).attempts_max(1).build()?;
    let stage = Stage::new()?;
    let is_open_mpi = library_version().is_ok_and(|version| version.starts_with("Open MPI"));
    let victims: &[&str] = if is_open_mpi { &["worker", "guard"] } else { &["worker"] };
    for (which, victim) in victims.iter().enumerate() {
        let name = |number: u32| format!("{victim} {number}");
        let submit = |number| pool.submit(stage.never_end(&name(number))).map_err(|error| error.reason);
        let handles: Vec<_> = (0..workers).map(submit).collect::<Result<_, _>>()?;
        let started = (0..workers).map(|number| Ok(stage.processes(&name(number))?[which]));
        let processes: Vec<_> = started.collect::<anyhow::Result<_>>()?;
        let mut times = Vec::new();
        for (handle, process) in handles.into_iter().zip(processes) {
            let begun = Instant::now();
            kill_process(process, Signal::KILL)?;
            match result(handle) {
                Err(TaskError::Lost { .. }) => times.push(begun.elapsed()),
                other => bail!("not lost, but {other:?}"),
            }
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        println!("the death of a {victim} is known after {median:?} in the median of {times:?}");
        // A machine that is busy with other tests may need longer than the 50 ms that are promised.
        ensure!(median < Duration::from_millis(500), "{victim}: {times:?}");
    }
    Ok(())
}

/// What a guard costs: memory of its own, and time while nothing happens.
pub(crate) fn guards_are_small_and_sleep() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(1..=1).build()?;
    let guard = result(pool.submit(guard())?)?;
    let read = |file: &str| fs::read_to_string(format!("/proc/{guard}/{file}"));
    let kib = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
    };
    let ticks = || -> anyhow::Result<u64> {
        let stat = read("stat")?;
        let columns: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        Ok(columns[11].parse::<u64>()? + columns[12].parse::<u64>()?)
    };
    let before = ticks()?;
    thread::sleep(Duration::from_secs(1));
    ensure!(ticks()? == before, "an idle guard works");
    // What it has written to, or could not share for another reason. All else is shared with the host and the other
    // guards of this machine: code, and what is as it is in the file.
    let memory = read("smaps_rollup")?;
    let own = kib(&memory, "Private_Dirty:") + kib(&memory, "Swap:");
    println!("a guard has {own} KiB of its own");
    ensure!(own <= 2048, "{memory}");
    Ok(())
}

pub(crate) fn a_task_panics() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let worker = result(pool.submit(pid())?)?;
    match result(pool.submit(panic_with("the bottom fell out".to_owned()))?) {
        Err(TaskError::Panicked { origin, message, location }) => {
            ensure!(message == "the bottom fell out");
            ensure!(origin.name.ends_with("::panic_with") && origin.place.is_some(), "{origin}");
            // File, line and column.
            let location = location.unwrap_or_default();
            ensure!(location.starts_with("tests/hosts/tasks.rs:"), "{location}");
            ensure!(
                location.split(':').filter(|part| part.parse::<u32>().is_ok()).count() == 2,
                "{location}"
            );
        }
        other => bail!("no panic, but {other:?}"),
    }
    ensure!(result(pool.submit(pid())?)? == worker, "the worker goes on");
    ensure!(pool.stats().losses == 0);
    Ok(())
}

pub(crate) fn a_task_fails_with_causes() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).build()?;
    let error = result(pool.submit(fail_with_causes())?);
    match &error {
        Err(TaskError::Failed { origin, causes }) => {
            ensure!(causes == &["no answer today", "the table cannot be read", "the disk is on fire"]);
            ensure!(origin.place.is_some());
        }
        other => bail!("no failure, but {other:?}"),
    }
    ensure!(result(pool.submit(double(21))?)? == 42);
    Ok(())
}

pub(crate) fn an_initializer_fails() -> anyhow::Result<()> {
    initializer_ends_in(fail_with_causes(), &["no answer today", "the disk is on fire"])
}

pub(crate) fn an_initializer_panics() -> anyhow::Result<()> {
    initializer_ends_in(
        panic_with("not today".to_owned()),
        &["panicked", "not today", "tests/hosts/tasks.rs"],
    )
}

fn initializer_ends_in<T: offshoot::Task>(call: offshoot::Call<T>, words: &[&str]) -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).initializer(call).build()?;
    let handles: Vec<_> = (0..5).map(|x| pool.submit(double(x))).collect::<Result<_, _>>()?;
    for handle in handles {
        match result(handle) {
            Err(TaskError::SpawnFailed { reason, .. }) => {
                ensure!(words.iter().all(|word| reason.contains(word)), "{reason}");
            }
            other => bail!("no failed spawn, but {other:?}"),
        }
    }
    // Some tries, not a storm.
    let stats = pool.stats();
    ensure!(stats.spawns <= 6 && stats.spawn_failures == stats.spawns, "{stats:?}");
    Ok(())
}

pub(crate) fn an_initializer_leaves_its_state() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).initializer(open_ledger("accounts".to_owned())).build()?;
    for entries in 1..=3 {
        ensure!(result(pool.submit(enter())?)? == ("accounts".to_owned(), entries));
    }
    Ok(())
}
