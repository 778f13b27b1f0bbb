//! Spawns under difficulties: programs that are no workers, and surroundings that no MPI likes. Whatever
//! happens, there is a worker, or a typed error in time that says what to do.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mpi::environment::library_version;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use offshoot::{BuildError, Builder, Containment, Diagnosis, Pool, Program, SpawnCause, TaskError};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs::shell;
use crate::support::{Stage, eventually, result};
use crate::tasks::{double, guard, meet, pid};

const SPAWN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn missing_executable() -> anyhow::Result<()> {
    refused(Program::new("/nowhere/worker"), SpawnCause::Executable, &["No such file", "ls -l"])?;
    refused(Program::new("/tmp"), SpawnCause::Executable, &["not a file"])?;
    let nowhere = Program::this_executable().current_dir("/nowhere");
    refused(nowhere, SpawnCause::Executable, &["working directory", "/nowhere", "mkdir"])
}

pub(crate) fn not_executable() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let plain = folder.path().join("plain");
    File::create(&plain)?;
    refused(Program::new(&plain), SpawnCause::Executable, &["not executable", "chmod +x"])
}

pub(crate) fn bin_true() -> anyhow::Result<()> {
    refused(
        Program::new("/bin/true"),
        SpawnCause::Ended,
        &["exited with code 0", "before it initialized MPI"],
    )
}

pub(crate) fn sleep_1000() -> anyhow::Result<()> {
    refused(Program::new("/bin/sleep").arg("1000"), SpawnCause::Overdue, &["spawn_timeout"])
}

pub(crate) fn exit_3_before_mpi_init() -> anyhow::Result<()> {
    refused(
        shell("echo out of luck >&2; exit 3"),
        SpawnCause::Ended,
        &["exited with code 3", "before it initialized MPI", "out of luck"],
    )
}

pub(crate) fn sigsegv_before_mpi_init() -> anyhow::Result<()> {
    refused(shell("kill -SEGV $$"), SpawnCause::Ended, &["SIGSEGV", "before it initialized MPI"])
}

/// A worker that dies so many microseconds after it has begun with `MPI_Init`. In the few moments in which host
/// and worker connect nobody can answer for it, on Open MPI 4.1: then the whole MPI thread is given up.
pub(crate) fn abort_in_mpi_init() -> anyhow::Result<()> {
    let after = env::args().nth(2).context("name a number of microseconds")?;
    let pool =
        Pool::builder().workers(0..=1).spawn_timeout(SPAWN_TIMEOUT).program(stranger(&after)?).build()?;
    let begun = Instant::now();
    let error = result(pool.submit(double(1))?).err().context("a program that dies has answered")?;
    let took = begun.elapsed();
    ensure!(took < SPAWN_TIMEOUT + Duration::from_secs(8), "it took {took:?}");
    println!("{took:?}: {error}");
    match error {
        TaskError::SpawnFailed { cause: SpawnCause::Ended, reason, .. } => {
            ensure!(reason.contains("SIGABRT"), "{reason}");
            let program = pool.add_program(Program::this_executable())?;
            ensure!(result(pool.submit_to(program, double(21))?)? == 42, "a later spawn works");
        }
        // It died after its MPI_Init had returned.
        TaskError::SpawnFailed { cause: SpawnCause::NoWorker, .. } => {}
        TaskError::PoolFailed { reason, .. } => {
            ensure!(reason.contains("MPI_Comm_spawn was given up"), "{reason}");
            ensure!(!is_open_mpi_5(), "the host can answer for it at any time: {reason}");
            ensure!(after.parse::<u32>()? >= 30_000, "it cannot have come so far: {reason}");
        }
        other => bail!(other),
    }
    Ok(())
}

/// Workers that are killed at all moments of their start, one after the other: so many microseconds after they have begun with
/// `MPI_Init`, from so many, to so many, in such steps. Each is an error with its name, the worker beside them answers as
/// before, and the pool can spawn to the end.
pub(crate) fn starts_die_at_any_moment() -> anyhow::Result<()> {
    let number = |at: usize| -> anyhow::Result<usize> {
        Ok(env::args().nth(at).context("name three numbers of microseconds")?.parse()?)
    };
    let (from, to, step) = (number(2)?, number(3)?, number(4)?);
    let pool = Pool::builder().workers(0..=2).build()?;
    let bystander = result(pool.submit(pid())?)?;
    for after in (from..to).step_by(step) {
        let program = pool.add_program(stranger(&format!("killed {after}"))?)?;
        let begun = Instant::now();
        let error =
            result(pool.submit_to(program, double(1))?).err().context("a program that dies has answered")?;
        println!("{after} us: {:?}: {error}", begun.elapsed());
        match error {
            TaskError::SpawnFailed { cause: SpawnCause::Ended | SpawnCause::NoWorker, .. } => {}
            other => bail!(other),
        }
        ensure!(result(pool.submit(pid())?)? == bystander, "the worker beside them was lost");
    }
    let again = pool.add_program(Program::this_executable().env("AGAIN", "1"))?;
    ensure!(result(pool.submit_to(again, double(21))?)? == 42, "a later spawn works");
    ensure!(pool.stats().losses == 0, "{:?}", pool.stats());
    Ok(())
}

pub(crate) fn a_shell_script() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let script = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = folder.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let wrong = script("wrong", "#!/bin/sh\necho no licence >&2\nexit 4\n")?;
    refused(Program::new(wrong), SpawnCause::Ended, &["exited with code 4", "no licence"])?;
    let orphan = script("orphan", "#!/no/such/shell\n")?;
    refused(Program::new(orphan), SpawnCause::Executable, &["/no/such/shell"])?;
    // One that prepares something and then starts a worker is as good as the worker.
    let own = env::current_exe()?;
    let good = script("good", &format!("#!/bin/sh\nsleep 1\nexec '{}' \"$@\"\n", own.display()))?;
    let pool = Pool::builder().workers(0..=1).program(Program::new(good)).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    Ok(())
}

pub(crate) fn an_mpi_program_that_is_no_worker_of_ours() -> anyhow::Result<()> {
    let said = ["no offshoot worker", "offshoot::init()"];
    for habit in ["finalizes", "hangs", "leaves"] {
        refused(stranger(habit)?, SpawnCause::NoWorker, &said).context(habit)?;
    }
    Ok(())
}

pub(crate) fn a_worker_of_another_protocol_version() -> anyhow::Result<()> {
    refused(
        disguised("99/this MPI/1.0")?,
        SpawnCause::Mismatch,
        &["protocol version 99", "build both with the same offshoot"],
    )?;
    // One that is so old, or so new, that it does not look before it speaks.
    refused(stranger("speaks another version")?, SpawnCause::Mismatch, &["protocol version 99"])
}

pub(crate) fn a_worker_of_another_mpi() -> anyhow::Result<()> {
    // Of the protocol version that it has been told.
    refused(
        disguised("${OFFSHOOT_PEER%%/*}/Another MPI/1.0")?,
        SpawnCause::Mismatch,
        &["Another MPI", "one MPI"],
    )?;
    // A worker that was linked with the other binary interface. One of the standard's goes with either.
    let (own, other) = match library_version().map_err(anyhow::Error::msg)? {
        version if version.starts_with("Open MPI") => ("libmpi.so.40", "libmpi.so.12"),
        _ => ("libmpi.so.12", "libmpi.so.40"),
    };
    let mut program = fs::read(worker()?)?;
    let places: Vec<_> = program
        .windows(own.len())
        .enumerate()
        .filter(|(_, w)| *w == own.as_bytes())
        .map(|(at, _)| at)
        .collect();
    if places.is_empty() {
        println!("skipped: this build is linked with the standard's interface");
        return Ok(());
    }
    for at in places {
        program[at..at + other.len()].copy_from_slice(other.as_bytes());
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("worker");
    fs::write(&path, program)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    refused(Program::new(path), SpawnCause::Executable, &["is linked with", other, "with one MPI"])
}

pub(crate) fn workers_max_above_the_slots() -> anyhow::Result<()> {
    let cores = thread::available_parallelism()?.get();
    all_meet(Pool::builder(), u32::try_from(cores)? + 2)
}

/// What every surrounding is tried with: two workers that are there at once, and leave.
pub(crate) fn works() -> anyhow::Result<()> {
    all_meet(Pool::builder(), 2)
}

/// As `works`; where the MPI needs a temporary directory and has none, the pool says so before MPI starts.
pub(crate) fn works_without_temporary_directory() -> anyhow::Result<()> {
    let needed = library_version().map_err(anyhow::Error::msg)?.starts_with("Open MPI");
    match all_meet(Pool::builder(), 2).map_err(|error| error.downcast::<BuildError>()) {
        Ok(()) => {
            ensure!(!needed, "Open MPI works without a temporary directory: then it need not be refused")
        }
        Err(Ok(BuildError::Preflight(finding))) => {
            ensure!(needed, "{finding}");
            ensure!(finding.check == "temporary directory", "{finding}");
            ensure!(finding.remedy.is_some_and(|remedy| remedy.contains("export TMPDIR=/tmp")));
        }
        Err(Ok(error)) => bail!(error),
        Err(Err(error)) => bail!(error),
    }
    Ok(())
}

/// In a job of a launcher: a pool survives a worker's death, or refuses to promise it.
pub(crate) fn survives_in_a_job() -> anyhow::Result<()> {
    match Pool::builder().workers(0..=1).containment(Containment::Survivable).build() {
        Ok(pool) => {
            let worker = result(pool.submit(pid())?)?;
            let worker = i32::try_from(worker).ok().and_then(Pid::from_raw).context("a process has an id")?;
            kill_process(worker, Signal::KILL)?;
            ensure!(result(pool.submit(double(21))?)? == 42, "another worker has taken over");
        }
        Err(BuildError::Containment { reason, .. }) => {
            ensure!(env::var("EXPECTED").is_ok_and(|expected| expected == "maybe"), "{reason}");
            let is_open_mpi_4 = library_version().is_ok_and(|version| version.starts_with("Open MPI v4"));
            ensure!(!is_open_mpi_4 || reason.contains("mpiexec --enable-recovery"), "{reason}");
            let pool = Pool::builder().workers(0..=1).build()?;
            ensure!(pool.stats().containment() == Containment::Fast);
            ensure!(result(pool.submit(double(21))?)? == 42);
        }
        Err(error) => bail!(error),
    }
    println!("as it was promised");
    Ok(())
}

/// One rank of a job of two has a pool, the other one is an MPI program like any.
pub(crate) fn as_rank_1() -> anyhow::Result<()> {
    if rank()? == 1 {
        return works();
    }
    let universe = mpi::initialize().context("MPI was not initialized before")?;
    ensure!(universe.world().size() == 2);
    Ok(())
}

/// One rank of a job of two has a pool, the other one never initializes MPI: that cannot work.
pub(crate) fn as_rank_1_of_a_job_that_never_starts() -> anyhow::Result<()> {
    let said = |folder: &Path| folder.join("said");
    let folder = PathBuf::from(env::args().nth(2).context("name a folder")?);
    if rank()? == 0 {
        return eventually("the other rank to give up", || said(&folder).exists());
    }
    let begun = Instant::now();
    let built = Pool::builder().spawn_timeout(SPAWN_TIMEOUT).build();
    ensure!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    fs::write(said(&folder), format!("{built:?}"))?;
    match built {
        Err(BuildError::Stuck(reason)) => {
            ensure!(reason.contains("rank 1 of 2") && reason.contains("MPI_Init"), "{reason}")
        }
        other => bail!("not stuck, but {other:?}"),
    }
    println!("it was said");
    Ok(())
}

fn rank() -> anyhow::Result<u32> {
    let rank = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].into_iter().find_map(|name| env::var(name).ok());
    Ok(rank.context("this is no job of MPI processes")?.parse()?)
}

/// The launcher is killed when a worker is there: no other can be spawned, and everybody is told.
pub(crate) fn the_launcher_dies() -> anyhow::Result<()> {
    without_launcher(Signal::KILL)
}

/// The launcher stands still: nothing tells why the spawn does not return, so that the time-out has to.
pub(crate) fn the_launcher_hangs() -> anyhow::Result<()> {
    without_launcher(Signal::STOP)
}

/// A guard is what hydra must not see die: it ends everything then, and, but for the decoy, the host. Open MPI and
/// offshoot's own process manager go on.
pub(crate) fn a_guard_is_killed() -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=1).spawn_timeout(3 * SPAWN_TIMEOUT).build()?;
    let guard = result(pool.submit(guard())?)?;
    let guard = i32::try_from(guard).ok().and_then(Pid::from_raw).context("a process has an id")?;
    kill_process(guard, Signal::KILL)?;
    eventually("the loss to be noticed", || pool.stats().losses == 1)?;
    let goes_on = library_version().is_ok_and(|version| version.starts_with("Open MPI")) || is_own_manager();
    match result(pool.submit(double(21))?) {
        Ok(answer) => ensure!(answer == 42),
        Err(error) if goes_on => bail!(error),
        Err(error @ (TaskError::SpawnFailed { .. } | TaskError::PoolFailed { .. })) => println!("{error}"),
        Err(error) => bail!(error),
    }
    Ok(())
}

/// Whether this process starts its workers itself.
fn is_own_manager() -> bool {
    Diagnosis::make().is_some_and(|diagnosis| diagnosis.process_manager == "own")
}

/// Guards are killed again and again, those of workers that are there and of workers that are on their way; others
/// never notice, and workers come as before.
pub(crate) fn guards_are_killed_again_and_again() -> anyhow::Result<()> {
    if library_version().is_ok_and(|version| !version.starts_with("Open MPI")) && !is_own_manager() {
        println!("skipped: this MPI's launcher does not live through it");
        return Ok(());
    }
    let pool = Pool::builder().workers(0..=2).spawn_timeout(3 * SPAWN_TIMEOUT).build()?;
    let bystander = pool.add_program(Program::this_executable().env("BYSTANDER", "1"))?;
    let it = result(pool.submit_to(bystander, pid())?)?;
    for death in 1..=10 {
        let guard = result(pool.submit(guard())?)?;
        let guard = i32::try_from(guard).ok().and_then(Pid::from_raw).context("a process has an id")?;
        kill_process(guard, Signal::KILL)?;
        eventually("the loss to be noticed", || pool.stats().losses == death)?;
        ensure!(result(pool.submit(double(21))?)? == 42);
        ensure!(result(pool.submit_to(bystander, pid())?)? == it, "the bystander is another one");
    }
    ensure!(zombies()? == 0, "somebody was not waited for");
    Ok(())
}

/// Children of this process that have ended and that nobody has waited for.
fn zombies() -> anyhow::Result<usize> {
    let own = format!(") Z {} ", std::process::id());
    let stats = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|folder| fs::read_to_string(folder.path().join("stat")).ok());
    Ok(stats.filter(|stat| stat.contains(&own)).count())
}

/// Where this process starts its workers itself nothing of the MPI's runs, its user's processes are left
/// alone, and what it starts finds nothing in its environment that is not for it.
pub(crate) fn no_launcher_runs() -> anyhow::Result<()> {
    if !is_own_manager() {
        println!("skipped: this MPI spawns through its launcher");
        return Ok(());
    }
    let pool = Pool::builder().workers(0..=2).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    ensure!(launchers()?.is_empty(), "there is a launcher");
    let environment = Command::new("/usr/bin/env").output()?;
    let environment = String::from_utf8(environment.stdout)?;
    ensure!(!environment.lines().any(|line| line.starts_with("PMI_")), "{environment}");
    let child = Command::new("/bin/sh").args(["-c", "exit 7"]).status()?;
    ensure!(child.code() == Some(7), "a child of the user's own ends as it likes: {child}");
    // A plain MPI program of the user's.
    let plain =
        Command::new(env::current_exe()?.with_file_name("scenario_stranger")).arg("alone").status()?;
    ensure!(plain.success(), "a plain MPI program of the user's: {plain}");
    pool.shutdown();
    eventually("all guards to be waited for", || zombies().is_ok_and(|count| count == 0))
}

/// The host's own code spawns through the MPI, and so through the process manager, of the pool.
pub(crate) fn the_host_spawns_too() -> anyhow::Result<()> {
    if !is_own_manager() {
        println!("skipped: this MPI spawns through its launcher");
        return Ok(());
    }
    let pool = Pool::builder().workers(0..=1).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    let mut command = Command::new(env::current_exe()?.with_file_name("scenario_stranger"));
    command.arg("greets");
    for _ in 0..3 {
        let world = SimpleCommunicator::world();
        let two = world.process_at_rank(0).spawn(&command, 2).context("two processes were not spawned")?;
        for rank in 0..2 {
            let (told, _): (i32, _) = two.process_at_rank(rank).receive();
            ensure!(told == rank);
        }
    }
    ensure!(result(pool.submit(double(21))?)? == 42);
    Ok(())
}

/// The host ends by a signal while a worker has something to do.
pub(crate) fn waits_for_its_end() -> anyhow::Result<()> {
    if !is_own_manager() {
        println!("skipped: this MPI's launcher may take its time");
        return Ok(());
    }
    let pool = Pool::builder().workers(0..=2).build()?;
    let stage = Stage::new()?;
    let _held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let signal = env::args().nth(2).context("name a signal")?.parse()?;
    let signal = Signal::from_named_raw(signal).context("that is no signal")?;
    kill_process(rustix::process::getpid(), signal)?;
    thread::sleep(Duration::from_secs(30));
    bail!("it lives")
}

fn without_launcher(signal: Signal) -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=2).spawn_timeout(SPAWN_TIMEOUT).build()?;
    ensure!(result(pool.submit(double(21))?)? == 42);
    let launchers = launchers()?;
    ensure!(!launchers.is_empty(), "this MPI has no launcher?");
    for &launcher in &launchers {
        kill_process(launcher, signal)?;
    }
    if signal == Signal::KILL {
        // One that dies in the very moment of a spawn takes MPICH with it: that is not what is tried here.
        let has_ended = |launcher: &Pid| {
            let stat = fs::read_to_string(format!("/proc/{launcher}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        eventually("the launchers to end", || launchers.iter().all(has_ended))?;
        // The host goes on with MPI, and on Open MPI 5 its worker does, too.
        let answered = (0..1000).map(|x| result(pool.submit(double(x))?).map_err(anyhow::Error::from));
        let answered = answered.take_while(Result::is_ok).count();
        println!("{answered} of 1000 tasks were answered without a launcher");
        ensure!(answered == 1000 || !is_open_mpi_5(), "the worker was lost with the launcher");
    }
    let begun = Instant::now();
    let program = pool.add_program(Program::this_executable().env("ANOTHER", "1"))?;
    let error = result(pool.submit_to(program, double(1))?).err().context("it was spawned all the same")?;
    let took = begun.elapsed();
    ensure!(took < SPAWN_TIMEOUT + Duration::from_secs(8), "it took {took:?}");
    println!("{took:?}: {error}");
    match error {
        TaskError::SpawnFailed { cause: SpawnCause::Launcher | SpawnCause::Mpi, .. } => {}
        TaskError::PoolFailed { reason, .. } => {
            ensure!(reason.contains("MPI_Comm_spawn was given up"), "{reason}");
            ensure!(
                matches!(Pool::builder().build(), Err(BuildError::Stuck(_))),
                "no pool can be built any more"
            );
        }
        other => bail!(other),
    }
    Ok(())
}

fn is_open_mpi_5() -> bool {
    library_version().is_ok_and(|version| version.starts_with("Open MPI v5"))
}

/// The children of this process that MPI has started.
pub(crate) fn launchers() -> anyhow::Result<Vec<Pid>> {
    let own = format!(" {} ", std::process::id());
    let mut found = Vec::new();
    for folder in fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = fs::read_to_string(folder.path().join("stat")) else { continue };
        let name = stat.split(['(', ')']).nth(1).unwrap_or_default();
        let is_child = stat
            .rsplit(')')
            .next()
            .is_some_and(|columns| columns.get(2..).unwrap_or_default().starts_with(&own));
        if is_child && ["orted", "prte", "prted", "mpiexec", "mpiexec.hydra"].contains(&name) {
            let id = stat.split(' ').next().unwrap_or_default().parse()?;
            found.extend(Pid::from_raw(id));
        }
    }
    Ok(found)
}

fn stranger(habit: &str) -> anyhow::Result<Program> {
    Ok(Program::new(env::current_exe()?.with_file_name("scenario_stranger")).arg(habit))
}

fn worker() -> anyhow::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name("scenario_worker"))
}

/// A worker that thinks that its host is somebody else.
fn disguised(peer: &str) -> anyhow::Result<Program> {
    Ok(shell(&format!("OFFSHOOT_PEER=\"{peer}\" exec '{}'", worker()?.display())))
}

/// So many workers at once, each of which says who it is.
fn all_meet(builder: Builder, workers: u32) -> anyhow::Result<()> {
    let pool = builder.workers(0..=workers).build()?;
    let folder = tempfile::tempdir_in("/tmp")?;
    let together = || meet(folder.path().to_owned(), workers as usize);
    let meetings: Vec<_> = (0..workers).map(|_| pool.submit(together())).collect::<Result<_, _>>()?;
    let met: BTreeSet<u64> = meetings.into_iter().map(result).collect::<Result<_, _>>()?;
    ensure!(met.len() == workers as usize, "only workers {met:?} met");
    Ok(())
}

/// A program whose start fails is a typed error in time; its pool and the workers of it stay as they were,
/// and more of them can be spawned.
fn refused(program: Program, cause: SpawnCause, words: &[&str]) -> anyhow::Result<()> {
    let pool = Pool::builder().workers(0..=3).spawn_timeout(SPAWN_TIMEOUT).build()?;
    let bystander = result(pool.submit(pid())?)?;
    let wrong = pool.add_program(program)?;
    let begun = Instant::now();
    let told = result(pool.submit_to(wrong, double(1))?);
    let took = begun.elapsed();
    match told {
        Err(TaskError::SpawnFailed { cause: told, reason, .. }) => {
            ensure!(told == cause, "not {cause:?}, but {told:?}: {reason}");
            for word in words {
                ensure!(reason.contains(word), "no `{word}`: {reason}");
            }
        }
        other => bail!("no failed spawn, but {other:?}"),
    }
    // It is tried a few times; only what is overdue may take its time.
    let limit =
        if cause == SpawnCause::Overdue { 3 * SPAWN_TIMEOUT + Duration::from_secs(5) } else { SPAWN_TIMEOUT };
    ensure!(took < limit + Duration::from_secs(2), "it took {took:?}");

    let stage = Stage::new()?;
    let held = pool.submit(stage.hold("a")).map_err(|error| error.reason)?;
    stage.await_start("a")?;
    let fresh = result(pool.submit(pid())?)?;
    stage.release("a")?;
    result(held)?;
    ensure!(fresh != bystander || pool.stats().workers_ready() == 2, "a later spawn works");
    ensure!(pool.stats().losses == 0, "the worker that was there was lost: {:?}", pool.stats());
    Ok(())
}
