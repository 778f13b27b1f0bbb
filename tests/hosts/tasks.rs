//! What the workers of the scenarios can do.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use mpi::traits::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_bytes::ByteBuf;

use crate::support::eventually;

/// What the initializer `open_ledger` leaves on its worker.
#[derive(Default)]
struct Ledger {
    title: String,
    entries: u32,
}

offshoot::tasks! {
    pub(crate) fn double(x: i64) -> i64 {
        Ok(2 * x)
    }

    pub(crate) fn echo(bytes: ByteBuf) -> ByteBuf {
        Ok(bytes)
    }

    /// Writes its number into the worker's journal in this folder, works for a moment, and returns it.
    pub(crate) fn sign(folder: PathBuf, number: u32) -> u32 {
        let journal = folder.join(process::id().to_string());
        let mut journal = fs::File::options().create(true).append(true).open(journal)?;
        writeln!(journal, "{number}")?;
        thread::sleep(Duration::from_millis(2));
        Ok(number)
    }

    /// Leaves a mark of its own in this folder, and goes on when there is a gate, if it is to wait for one. It does not
    /// ask whether it is still wanted.
    pub(crate) fn pass(folder: PathBuf, number: u32, gate: Option<PathBuf>) -> u32 {
        let mut mark = fs::File::options().create(true).append(true).open(folder.join(number.to_string()))?;
        mark.write_all(b".")?;
        if let Some(gate) = gate {
            eventually("the gate", || gate.exists())?;
        }
        Ok(number)
    }

    /// Takes so many milliseconds.
    pub(crate) fn hold_for(millis: u64) {
        thread::sleep(Duration::from_millis(millis));
        Ok(())
    }

    /// The worker's process.
    pub(crate) fn pid() -> u32 {
        Ok(process::id())
    }

    /// An initializer: leaves a file in a folder that is called as the worker's process is.
    pub(crate) fn enroll(folder: PathBuf) {
        fs::write(folder.join(process::id().to_string()), "")?;
        Ok(())
    }

    /// The worker's guard.
    pub(crate) fn guard() -> u32 {
        Ok(std::os::unix::process::parent_id())
    }

    /// Announces itself by a file, and runs until there is another file or the task is cancelled.
    pub(crate) fn hold(context: &mut Context, started: PathBuf, release: PathBuf) -> String {
        fs::write(&started, "")?;
        let mut cancelled = false;
        eventually("its release", || {
            cancelled = context.cancelled();
            cancelled || release.exists()
        })?;
        Ok(if cancelled { "cancelled" } else { "released" }.to_owned())
    }

    /// Announces itself by a file that names its worker and its guard, and then neither ends nor asks whether it is
    /// still wanted.
    pub(crate) fn never_end(started: PathBuf) {
        let draft = started.with_extension("draft");
        fs::write(&draft, format!("{} {}", process::id(), std::os::unix::process::parent_id()))?;
        fs::rename(&draft, &started)?;
        eventually("nothing", || false)
    }

    /// Uses more memory than it may: than this group of processes, which it enters, or than a limit that it sets itself.
    pub(crate) fn fill_memory(group: Option<PathBuf>) {
        match group {
            Some(group) => fs::write(group.join("cgroup.procs"), process::id().to_string())?,
            None => {
                let status = fs::read_to_string("/proc/self/status")?;
                let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).context("no size")?;
                let kib: u64 = size.trim().trim_end_matches(" kB").parse()?;
                let current = (kib << 10) + (64 << 20);
                let limit = Rlimit { current: Some(current), maximum: getrlimit(Resource::As).maximum };
                setrlimit(Resource::As, limit)?;
            }
        }
        let mut filled = Vec::new();
        while filled.len() < 4096 {
            filled.push(vec![1_u8; 1 << 20]);
        }
        ensure!(filled.is_empty(), "there was no limit");
        Ok(())
    }

    /// Waits in a folder until so many workers are there at once, and returns who this one is.
    pub(crate) fn meet(context: &mut Context, folder: PathBuf, workers: usize) -> u64 {
        let worker = context.worker().number();
        fs::write(folder.join(worker.to_string()), "")?;
        eventually("the other workers", || fs::read_dir(&folder).is_ok_and(|files| files.count() >= workers))?;
        Ok(worker)
    }

    /// As `meet`, but returns the host. The first worker on `victim` ends itself before.
    pub(crate) fn meet_at(context: &mut Context, folder: PathBuf, workers: usize, victim: Option<String>) -> String {
        if victim.is_some_and(|victim| victim == context.host()) && fs::create_dir(folder.with_extension("dead")).is_ok()
        {
            process::Command::new("/bin/sh").args(["-c", &format!("kill -9 {}", process::id())]).status()?;
        }
        fs::write(folder.join(context.worker().number().to_string()), "")?;
        eventually("the other workers", || fs::read_dir(&folder).is_ok_and(|files| files.count() >= workers))?;
        Ok(context.host().to_owned())
    }

    /// Ends its worker, in one of the ways in which processes end.
    pub(crate) fn die(way: String) {
        match way.as_str() {
            "exit(0)" => std::process::exit(0),
            "exit(3)" => std::process::exit(3),
            "SIGABRT" => std::process::abort(),
            "MPI_Abort" => mpi::topology::SimpleCommunicator::world().abort(3),
            signal => {
                // From outside, and until it works: the handlers of Rust and of some MPIs let a fault that
                // did not really happen pass once.
                let (name, pid) = (signal.trim_start_matches("SIG"), std::process::id());
                let kill = format!("while kill -{name} {pid}; do sleep 0.05; done");
                std::process::Command::new("/bin/sh").args(["-c", &kill]).status()?;
                loop {
                    std::thread::park();
                }
            }
        }
    }

    /// Writes this to the two streams.
    pub(crate) fn print_lines(out: String, err: String) {
        let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
        stdout.write_all(out.as_bytes())?;
        stderr.write_all(err.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Writes so many bytes to standard output, in lines.
    pub(crate) fn print_bytes(bytes: usize) {
        let line = [vec![b'x'; 127], vec![b'\n']].concat().repeat(64);
        let mut stdout = std::io::stdout().lock();
        let mut left = bytes;
        while left > 0 {
            let now = left.min(line.len());
            stdout.write_all(&line[..now])?;
            left -= now;
        }
        Ok(stdout.flush()?)
    }

    /// Writes so many lines, all of which say who writes them.
    pub(crate) fn print_who(context: &mut Context, lines: u32) {
        let task = context.task().context("this is a task")?.number();
        let worker = context.worker().number();
        for line in 0..lines {
            if line % 2 == 0 {
                println!("task {task} worker {worker} stdout");
            } else {
                eprintln!("task {task} worker {worker} stderr");
            }
        }
        Ok(())
    }

    /// Leaves a process behind that writes to the worker's streams without end, outside of its process group, and
    /// ends the worker.
    pub(crate) fn leave_a_writer_and_die() {
        process::Command::new("setsid").args(["sh", "-c", "yes & yes >&2 & sleep 1000"]).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        process::exit(3)
    }

    /// Starts a process that has left the worker's group and hears no SIGTERM, writes its number into a file beside
    /// `started`, and never ends.
    pub(crate) fn start_one_that_is_deaf(started: PathBuf) {
        let script = "trap '' TERM HUP; echo $$ > \"$1\".draft; mv \"$1\".draft \"$1\"; while :; do sleep 1000; done";
        let pid = started.with_extension("pid");
        process::Command::new("setsid").args(["sh", "-c", script, "sh"]).arg(&pid).spawn()?;
        eventually("it to start", || pid.exists())?;
        fs::write(&started, format!("{} {}", process::id(), std::os::unix::process::parent_id()))?;
        eventually("nothing", || false)
    }

    pub(crate) fn panic_with(message: String) {
        ensure!(message != "never", "so that the compiler thinks that this may return");
        panic!("{message}");
    }

    pub(crate) fn fail_with_causes() {
        Err(anyhow!("the disk is on fire")).context("the table cannot be read").context("no answer today")
    }

    /// An initializer.
    pub(crate) fn open_ledger(context: &mut Context, title: String) {
        ensure!(context.task().is_none(), "an initializer is no task");
        context.state::<Ledger>().title = title;
        Ok(())
    }

    /// Adds an entry to the worker's ledger, and returns its title and how many there are.
    pub(crate) fn enter(context: &mut Context) -> (String, u32) {
        let ledger = context.state::<Ledger>();
        ledger.entries += 1;
        Ok((ledger.title.clone(), ledger.entries))
    }
}
