//! Hosts whose MPI is in a parent of its own, and what becomes of them when that dies, stands still or cannot start; and which
//! mode a pool gets that leaves it open.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use mpi::{Threading, initialize_with_threading};
use offshoot::{BuildError, Containment, Handle, Isolation, Pool, SpawnCause, TaskError};
use rustix::process::{Pid, Signal, getpid, kill_process};
use serde_bytes::ByteBuf;

use crate::support::{Stage, eventually, is_gone, result};
use crate::tasks::{double, echo, hold_for, sign};

/// The isolated parents of this process that live.
fn parents() -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for folder in fs::read_dir("/proc")?.flatten() {
        let Some(id) = folder.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap_or_default();
        let is_parent = read("cmdline").split('\0').nth(1) == Some("--offshoot-parent");
        let stat = read("stat");
        let mut columns = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let is_alive = !matches!(columns.next(), Some("Z" | "X"));
        let is_own = columns.next() == Some(&getpid().as_raw_nonzero().to_string());
        if is_parent && is_alive && is_own {
            found.extend(Pid::from_raw(id));
        }
    }
    Ok(found)
}

fn parent() -> anyhow::Result<Pid> {
    match parents()?[..] {
        [parent] => Ok(parent),
        ref other => bail!("one parent should be there, not {other:?}"),
    }
}

/// Nothing is lost, nothing is resolved twice, and no task is charged more than one attempt for each death.
pub(crate) fn the_parent_is_killed_in_mid_work() -> anyhow::Result<()> {
    const DEATHS: u64 = 3;
    const TASKS: u32 = 3000;
    let folder = tempfile::tempdir()?;
    let pool = Pool::builder().isolated().workers(2..=2).attempts_max(DEATHS as u32 + 1).build()?;
    ensure!(
        pool.stats().isolation() == Isolation::Isolated && pool.stats().parents == 1,
        "{:?}",
        pool.stats()
    );
    let submit = |number| pool.submit(sign(folder.path().to_owned(), number)).map_err(|error| error.reason);
    let handles: Vec<_> = (0..TASKS).map(submit).collect::<Result<_, _>>()?;
    let mut told = Vec::new();
    for death in 1..=DEATHS {
        eventually("two workers at work", || pool.stats().workers_busy == 2)?;
        thread::sleep(Duration::from_millis(150));
        let before = pool.stats().losses;
        let victim = parent()?;
        let killed = Instant::now();
        kill_process(victim, Signal::KILL)?;
        eventually("the host to be told", || pool.stats().losses > before)?;
        told.push(killed.elapsed());
        println!("death {death}: told after {:?}", killed.elapsed());
        eventually("another parent", || pool.stats().parents == death + 1)?;
        eventually("a worker of it", || pool.stats().workers_ready() > 0)?;
        println!("death {death}: a worker is ready after {:?}", killed.elapsed());
    }
    // The median: on a busy machine one may be late.
    told.sort_unstable();
    ensure!(told[told.len() / 2] < Duration::from_millis(100), "told after {told:?}");
    for (number, handle) in (0..).zip(handles) {
        ensure!(result(handle)? == number, "the answer of another task");
    }
    // Each task has written a line for each time that it ran.
    let mut runs: BTreeMap<u32, u64> = BTreeMap::new();
    for journal in fs::read_dir(folder.path())? {
        for line in fs::read_to_string(journal?.path())?.lines() {
            *runs.entry(line.parse()?).or_default() += 1;
        }
    }
    ensure!(runs.len() == TASKS as usize, "{} tasks ran", runs.len());
    let again: u64 = runs.values().map(|runs| runs - 1).sum();
    // Of each death, what had run and was not answered: the answers of a tenth of a millisecond, and what ran.
    ensure!(again <= DEATHS * 2 * 4, "{again} tasks ran again");
    pool.shutdown();
    eventually("the parent to leave", || parents().is_ok_and(|left| left.is_empty()))
}

/// A parent that cannot be started any more is an error for those who wait, and none for those who come when it can.
pub(crate) fn the_parent_dies_again_and_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("parent");
    let broken = folder.path().join("broken");
    let own = env::current_exe()?;
    let text =
        format!("#!/bin/sh\n[ -e '{}' ] && exit 3\nexec '{}' \"$@\"\n", broken.display(), own.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let pool = Pool::builder().isolated().parent_executable(&script).workers(0..=1).build()?;
    ensure!(result(pool.submit(double(4))?)? == 8);
    fs::write(&broken, "")?;
    kill_process(parent()?, Signal::KILL)?;
    match result(pool.submit(double(5))?) {
        Err(TaskError::SpawnFailed { cause: SpawnCause::Parent, reason, .. }) => {
            ensure!(reason.contains("code 3") && reason.contains("in a row"), "{reason}");
        }
        other => bail!("a task without a parent came to {other:?}"),
    }
    fs::remove_file(&broken)?;
    eventually("the pool to work again", || {
        pool.submit(double(6)).is_ok_and(|handle| result(handle).is_ok_and(|twelve| twelve == 12))
    })
}

pub(crate) fn the_parent_cannot_be_started() -> anyhow::Result<()> {
    for (path, word) in [("/bin/false", "it exited with code 1"), ("/nowhere/parent", "does not start")] {
        match Pool::builder().isolated().parent_executable(path).build() {
            Err(BuildError::Parent(reason)) => ensure!(reason.contains(word), "`{reason}` lacks `{word}`"),
            other => bail!("`{path}` is a parent: {other:?}"),
        }
    }
    // One that lives and says nothing.
    let begun = Instant::now();
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("parent");
    fs::write(&script, "#!/bin/sh\nexec sleep 1000\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let silent = Pool::builder().isolated().spawn_timeout(Duration::from_secs(1)).parent_executable(&script);
    match silent.build() {
        Err(BuildError::Parent(reason)) => ensure!(reason.contains("had not initialized"), "{reason}"),
        other => bail!("a parent that says nothing: {other:?}"),
    }
    ensure!(begun.elapsed() < Duration::from_secs(15), "after {:?}", begun.elapsed());
    eventually("the last of them to be gone", || parents().is_ok_and(|left| left.is_empty()))
}

/// A host that reads nothing for a while fills nobody's memory, and finds everything when it reads again.
pub(crate) fn the_host_stands_still() -> anyhow::Result<()> {
    const BYTES: usize = 4 << 20;
    let pool = Pool::builder().isolated().workers(2..=2).build()?;
    let calls = (0..200).map(|_| echo(ByteBuf::from(vec![7; BYTES])));
    let mut results = pool.map(calls);
    let first = results.next().context("there is a first")??;
    ensure!(first.len() == BYTES);
    let parent = parent()?;
    // Only another process can wake this one.
    let script = format!("sleep 0.2; kill -STOP {0}; sleep 2; kill -CONT {0}", getpid().as_raw_nonzero());
    let mut waker = Command::new("sh").arg("-c").arg(script).spawn()?;
    let mut count = 1;
    for result in &mut results {
        ensure!(result?.len() == BYTES);
        count += 1;
    }
    waker.wait()?;
    ensure!(count == 200, "{count} results");
    let status = fs::read_to_string(format!("/proc/{parent}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak")?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    ensure!(kib < 400 << 10, "the parent has had {kib} KiB");
    Ok(())
}

/// A parent that takes nothing for a while holds up no thread of the host, and goes on where it stopped.
pub(crate) fn the_parent_stands_still() -> anyhow::Result<()> {
    const BYTES: usize = 4 << 20;
    let pool = Pool::builder().isolated().workers(1..=1).build()?;
    ensure!(result(pool.submit(double(1))?)? == 2);
    let parent = parent()?;
    kill_process(parent, Signal::STOP)?;
    let asked = Instant::now();
    let submit = |_| pool.submit(echo(ByteBuf::from(vec![7; BYTES]))).map_err(|error| error.reason);
    let handles: Vec<_> = (0..20).map(submit).collect::<Result<_, _>>()?;
    let one_is_there = handles.iter().any(Handle::is_finished);
    let took = asked.elapsed();
    thread::sleep(Duration::from_secs(1));
    kill_process(parent, Signal::CONT)?;
    ensure!(!one_is_there && took < Duration::from_secs(5), "20 calls took {took:?}");
    for handle in handles {
        ensure!(result(handle)?.len() == BYTES);
    }
    ensure!(pool.stats().parents == 1, "{:?}", pool.stats());
    Ok(())
}

/// What is said to a host on its parent's socket, as a shell does it.
const NONSENSE: [(&str, &str); 4] = [
    ("garbage", "printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&$socket"),
    ("a part of a message", "printf '\\1\\0' >&$socket"),
    ("zeros", "head -c 100000 /dev/zero >&$socket"),
    ("nothing any more", "eval \"exec $socket>&-\""),
];

/// What says nothing that makes sense is no parent, and is ended; and no pool dies of it: another one is started.
pub(crate) fn the_parent_talks_nonsense() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (script, nonsense) = (folder.path().join("parent"), folder.path().join("nonsense"));
    // There is nonsense in that file for one of them. The next one is a parent.
    let text = format!(
        "#!/bin/bash\nIFS=/ read -r _ socket _ <<<\"$OFFSHOOT_PARENT\"\n\
         if said=$(cat '{0}' 2>&1) && rm '{0}'; then eval \"$said\"; exec -a '{1}' sleep 1000; fi\nexec '{1}' \"$@\"\n",
        nonsense.display(),
        env::current_exe()?.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let builder = || Pool::builder().isolated().parent_executable(&script).workers(0..=1);
    for (name, said) in NONSENSE {
        fs::write(&nonsense, said)?;
        match builder().build() {
            Err(BuildError::Parent(reason)) => println!("{name}: {reason}"),
            other => bail!("who says {name} is a parent: {other:?}"),
        }
    }
    let pool = builder().build()?;
    for (name, said) in NONSENSE {
        ensure!(result(pool.submit(double(1))?)? == 2);
        fs::write(&nonsense, said)?;
        let before = pool.stats().parents;
        kill_process(parent()?, Signal::KILL)?;
        ensure!(result(pool.submit(double(21))?)? == 42, "after {name}");
        ensure!(pool.stats().parents == before + 2, "nobody has said {name}: {:?}", pool.stats());
    }
    Ok(())
}

/// Neither what the host starts, nor a worker, nor its guard has an end of the socket between host and parent.
pub(crate) fn nobody_else_has_the_socket() -> anyhow::Result<()> {
    let pool = Pool::builder().isolated().workers(1..=1).build()?;
    let sockets = |process: &str| -> anyhow::Result<Vec<String>> {
        let folder = fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
        let targets = folder.filter_map(|entry| fs::read_link(entry.path()).ok());
        Ok(targets
            .map(|path| path.display().to_string())
            .filter(|name| name.starts_with("socket:"))
            .collect())
    };
    let stage = Stage::new()?;
    let _running = pool.submit(stage.never_end("a")).map_err(|error| error.reason)?;
    let [worker, guard] = stage.processes("a")?;
    let mut child = Command::new("sleep").arg("60").spawn()?;
    let of_child = sockets(&child.id().to_string());
    child.kill()?;
    child.wait()?;
    ensure!(of_child?.is_empty(), "a child of the host has sockets");
    let (own, mut of_parent) = (sockets("self")?, sockets(&parent()?.to_string())?);
    // An MPI may leave sockets of its own to what it starts, as Intel's does. They are streams, that to the host is not.
    let packets = sockets_of_packets()?;
    of_parent.retain(|socket| packets.contains(socket));
    ensure!(!own.is_empty() && !of_parent.is_empty(), "{own:?}, {of_parent:?}");
    for process in [worker, guard] {
        let theirs = sockets(&process.to_string())?;
        let shared = theirs.iter().find(|socket| own.contains(socket) || of_parent.contains(socket));
        ensure!(shared.is_none(), "{process} has {shared:?}");
    }
    Ok(())
}

/// Those of the type `SOCK_SEQPACKET`, as `/proc/PID/fd` names them.
fn sockets_of_packets() -> anyhow::Result<Vec<String>> {
    // Num RefCount Protocol Flags Type St Inode Path
    let table = fs::read_to_string("/proc/net/unix")?;
    let rows = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let packets = rows.filter(|row| row.get(4) == Some(&"0005")).filter_map(|row| row.get(6).copied());
    Ok(packets.map(|inode| format!("socket:[{inode}]")).collect())
}

/// What Ctrl-C would send to the whole group is nothing to the parent.
pub(crate) fn signals_of_a_terminal_pass_the_parent_by() -> anyhow::Result<()> {
    let pool = Pool::builder().isolated().workers(0..=1).build()?;
    let pid = result(pool.submit(crate::tasks::pid())?)?;
    let parent = parent()?;
    ensure!(rustix::process::getpgid(Some(parent))? == parent, "it leads a group of its own");
    ensure!(rustix::process::getsid(Some(parent))? == parent, "it leads a session of its own");
    kill_process(parent, Signal::INT)?;
    ensure!(result(pool.submit(crate::tasks::pid())?)? == pid, "the worker is another one");
    ensure!(pool.stats().parents == 1, "{:?}", pool.stats());
    Ok(())
}

/// Two pools: the death of one's parent is not felt by the other.
pub(crate) fn each_pool_has_its_own_parent() -> anyhow::Result<()> {
    let one = Pool::builder().isolated().workers(1..=1).build()?;
    let of_one = parent()?;
    let other = Pool::builder().isolated().containment(Containment::Fast).workers(1..=1).build()?;
    ensure!(other.stats().containment() == Containment::Fast, "{:?}", other.stats());
    let worker = result(other.submit(crate::tasks::pid())?)?;
    kill_process(of_one, Signal::KILL)?;
    eventually("the end of its parent", || is_gone(of_one))?;
    ensure!(result(other.submit(crate::tasks::pid())?)? == worker);
    ensure!(result(one.submit(double(2))?)? == 4);
    ensure!(other.stats().parents == 1 && one.stats().parents == 2);
    Ok(())
}

/// What a pool gets that leaves it open, in a host that is as the argument says.
pub(crate) fn a_pool_chooses_its_mode() -> anyhow::Result<()> {
    let case = env::args().nth(2).context("name a case")?;
    let initialize = |level| initialize_with_threading(level).context("MPI was initialized before");
    let (expected, word, _universe) = match case.as_str() {
        "plain" => (Isolation::Embedded, "nothing in this process", None),
        "multiple" => {
            (Isolation::Embedded, "nothing in this process", Some(initialize(Threading::Multiple)?))
        }
        "funneled" => {
            (Isolation::Isolated, "below MPI_THREAD_MULTIPLE", Some(initialize(Threading::Funneled)?))
        }
        "finalized" => {
            drop(initialize(Threading::Multiple)?);
            (Isolation::Isolated, "was finalized", None)
        }
        other => bail!("there is no case `{other}`"),
    };
    let pool = Pool::builder().workers(0..=1).build()?;
    let stats = pool.stats();
    ensure!(stats.isolation() == expected && stats.isolation_reason().contains(word), "{stats:?}");
    let count = parents()?.len();
    ensure!(count == usize::from(expected == Isolation::Isolated), "{count} parents");
    ensure!(result(pool.submit(double(21))?)? == 42);
    Ok(())
}

/// Under `mpiexec -n 2`: the ranks receive from anybody, with any tag, and meet in collectives, while rank 0 has a pool.
pub(crate) fn ranks_talk_while_a_pool_works() -> anyhow::Result<()> {
    const TASKS: i64 = 10_000;
    let mode = env::args().nth(2).context("name a mode")?;
    let (universe, _) =
        initialize_with_threading(Threading::Multiple).context("MPI was initialized before")?;
    let world = universe.world();
    ensure!(world.size() == 2, "two ranks are needed");
    let pool = match (world.rank(), mode.parse::<Isolation>()) {
        (0, Ok(mode)) => Some(Pool::builder().isolation(mode).workers(0..=2).build()?),
        (0, Err(error)) => bail!(error),
        _ => None,
    };
    let work = pool.clone().map(|pool| {
        thread::spawn(move || {
            let results = pool.map((0..TASKS).map(double));
            let sum: Result<i64, TaskError> = results.sum();
            Ok::<_, anyhow::Error>(sum? == TASKS * (TASKS - 1))
        })
    });
    let rounds = talk(&world, || work.as_ref().is_none_or(thread::JoinHandle::is_finished))?;
    println!("rank {}: {rounds} rounds", world.rank());
    if let (Some(work), Some(pool)) = (work, pool) {
        ensure!(work.join().map_err(|_| anyhow::anyhow!("it panicked"))??, "the sum is wrong");
        println!("{:?}", pool.stats());
        pool.shutdown();
    }
    ensure!(rounds >= 10, "{rounds} rounds");
    Ok(())
}

/// Rounds of messages and collectives, until rank 0 is done.
fn talk(world: &SimpleCommunicator, is_done: impl Fn() -> bool) -> anyhow::Result<u64> {
    let (rank, other) = (world.rank(), 1 - world.rank());
    for round in 0.. {
        let mark = [i64::from(rank), round];
        world.process_at_rank(other).send_with_tag(&mark, i32::try_from(round % 100)?);
        // From anybody, of any tag: a foreign message would be taken for one of ours.
        let (came, status) = world.any_process().receive_vec::<i64>();
        ensure!(came == [i64::from(other), round], "{came:?} in round {round}");
        ensure!(i64::from(status.tag()) == round % 100 && status.source_rank() == other, "{status:?}");
        let mut done = i32::from(is_done());
        world.process_at_rank(0).broadcast_into(&mut done);
        let mut sum = 0;
        world.all_reduce_into(&round, &mut sum, mpi::collective::SystemOperation::sum());
        ensure!(sum == 2 * round, "{sum} in round {round}");
        if done == 1 && round >= 10 {
            return Ok(u64::try_from(round)?);
        }
    }
    unreachable!("the rounds have no end")
}

/// Under `mpiexec -n 2`: the main thread waits for the other rank in a collective, for so many seconds, while tasks are
/// submitted to a pool of this mode.
pub(crate) fn the_main_thread_waits_in_a_collective() -> anyhow::Result<()> {
    let (mode, seconds) = (env::args().nth(2), env::args().nth(3));
    let mode: Isolation = mode.context("name a mode")?.parse().map_err(anyhow::Error::msg)?;
    let long = Duration::from_secs(seconds.context("name a number of seconds")?.parse()?);
    let (universe, _) =
        initialize_with_threading(Threading::Multiple).context("MPI was initialized before")?;
    let world = universe.world();
    if world.rank() == 1 {
        world.barrier();
        thread::sleep(long);
        world.barrier();
        return Ok(());
    }
    let pool = Pool::builder().isolation(mode).workers(1..=1).build()?;
    let expected = if mode == Isolation::Embedded { mode } else { Isolation::Isolated };
    ensure!(pool.stats().isolation() == expected, "{:?}", pool.stats());
    let is_auto = mode == Isolation::Auto;
    ensure!(!is_auto || pool.stats().isolation_reason().contains("rank of a job"), "{:?}", pool.stats());
    ensure!(result(pool.submit(double(1))?)? == 2);
    // The other rank begins to sleep.
    world.barrier();
    let (begun, submitting) = (Instant::now(), pool.clone());
    let worker = thread::spawn(move || -> anyhow::Result<(i64, Duration)> {
        let (mut count, mut longest) = (0, Duration::ZERO);
        // Until shortly before the other rank comes.
        while begun.elapsed() < long.mul_f64(0.8) {
            let asked = Instant::now();
            ensure!(result(submitting.submit(double(count))?)? == 2 * count, "a wrong answer");
            longest = longest.max(asked.elapsed());
            count += 1;
        }
        Ok((count, longest))
    });
    world.barrier();
    let waited = begun.elapsed();
    let (count, longest) = worker.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
    println!("{count} tasks in {waited:?}, the longest took {longest:?}");
    ensure!(count > 10, "{count} tasks were answered while the main thread waited");
    ensure!(waited > long.mul_f64(0.9), "the main thread has waited for {waited:?} only");
    Ok(())
}

/// The MPI of the parent is another than the host's: it is that of the executable named by the argument.
pub(crate) fn the_parent_has_another_mpi() -> anyhow::Result<()> {
    let executable = env::args().nth(2).context("name an executable of another MPI")?;
    let word = env::args().nth(3).context("name its library")?;
    let (universe, _) = initialize_with_threading(Threading::Single).context("MPI was initialized before")?;
    let program = offshoot::Program::new(&executable);
    let pool =
        Pool::builder().isolated().parent_executable(&executable).program(program).workers(0..=2).build()?;
    let sum: Result<i64, TaskError> = pool.map((0..500).map(double)).sum();
    ensure!(sum? == 500 * 499);
    let maps = fs::read_to_string(Path::new("/proc").join(parent()?.to_string()).join("maps"))?;
    ensure!(maps.contains(&word), "the parent has no `{word}`");
    ensure!(!fs::read_to_string("/proc/self/maps")?.contains(&word), "this process has `{word}`");
    let mut sum = 0;
    universe.world().all_reduce_into(&7, &mut sum, mpi::collective::SystemOperation::sum());
    ensure!(sum == 7);
    Ok(())
}

/// Workers run long when the host is killed; the test looks at what is left.
pub(crate) fn an_isolated_host_is_killed() -> anyhow::Result<()> {
    let pool = Pool::builder().isolated().workers(2..=2).build()?;
    let stage = Stage::new()?;
    let _running = pool.submit(stage.never_end("a")).map_err(|error| error.reason)?;
    let _other = pool.submit(hold_for(60_000))?;
    stage.await_start("a")?;
    eventually("two workers at work", || pool.stats().workers_busy == 2)?;
    println!("the end is near");
    drop(stage);
    kill_process(getpid(), Signal::KILL)?;
    Ok(())
}

/// Says which threads are those of an application, for a test that knows who calls MPI.
pub(crate) fn threads_of_the_application() -> anyhow::Result<()> {
    let mode = env::args().nth(2).context("name a mode")?;
    let mode: Isolation = mode.parse().map_err(anyhow::Error::msg)?;
    let say = || {
        println!("application {} {}", getpid().as_raw_nonzero(), rustix::thread::gettid().as_raw_nonzero())
    };
    say();
    let pool = Pool::builder().isolation(mode).workers(0..=2).build()?;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                say();
                let sum: Result<i64, TaskError> = pool.map((0..500).map(double)).sum();
                assert_eq!(sum.ok(), Some(500 * 499));
                let cancelled = pool.submit(hold_for(5)).expect("it is open");
                cancelled.cancel();
                let _ = result(cancelled);
            });
        }
    });
    pool.shutdown();
    Ok(())
}
