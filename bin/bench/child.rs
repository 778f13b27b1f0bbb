//! Processes that measure: how they are started, how long they may take, and that nothing stays of them.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use serde::{Deserialize, Serialize};

use super::figure::Sample;
use super::work::Work;
use crate::processes;

/// In the environment of such a process, and of all that it starts: which it is.
pub(crate) const TOKEN: &str = "OFFSHOOT_BENCH";
/// What [`offshoot::Containment`] is chosen by.
pub(crate) const CONTAINMENT: &str = "OFFSHOOT_CONTAINMENT";

/// How long a daemon of the MPI may take to notice the end.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// What such a process says in the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// What the MPI library says of itself.
    pub(crate) mpi: String,
    /// What was had, which need not be what was asked for.
    pub(crate) containment: String,
    pub(crate) outcome: Result<Vec<Sample>, String>,
}

/// Has a process do this, with this containment, in this time at most.
///
/// # Errors
/// If it could not be started. One that fails has done what it could: that is an outcome.
pub(crate) fn run(work: &Work, containment: &str, limit: Duration) -> anyhow::Result<Done> {
    // In memory, by this process's name for it: nothing to clean up, however this ends.
    let mut told = File::from(memfd_create("done", MemfdFlags::CLOEXEC)?);
    let file = format!("/proc/{}/fd/{}", std::process::id(), told.as_raw_fd());
    let token = format!("{}-{:?}", std::process::id(), Instant::now());
    let mut command = Command::new(std::env::current_exe().context("/proc is not there")?);
    let child = command
        // What `init` has set here is not what another containment needs.
        .env_clear()
        .envs(offshoot::user_environment())
        .env(TOKEN, &token)
        .env(CONTAINMENT, containment)
        .args(["bench", "--measure", &serde_json::to_string(work)?, &file])
        .stdin(Stdio::null())
        // What an MPI says there is nothing for whoever reads the figures.
        .stdout(std::io::stderr().as_fd().try_clone_to_owned()?)
        // Some launchers kill the group when they are upset.
        .process_group(0)
        .spawn()
        .context("no process can be started to measure in")?;
    let ended = await_end(child, limit)?;
    leave_nothing(&token);
    let mut text = Vec::new();
    told.rewind()?;
    told.read_to_end(&mut text)?;
    let told = serde_json::from_slice::<Done>(&text).ok();
    Ok(match (told, ended) {
        (Some(done), Some(status)) if status.success() => done,
        (told, ended) => {
            let how = ended.map_or(format!("was not done within {limit:?}"), describe);
            // It may have measured everything, and died of the end.
            let mpi = told.as_ref().map(|done| done.mpi.clone()).unwrap_or_default();
            let reason = match told {
                Some(Done { outcome: Err(reason), .. }) => format!("{reason}; and the process {how}"),
                Some(_) | None => format!("the process that measured {how}"),
            };
            Done { mpi, containment: containment.to_owned(), outcome: Err(reason) }
        }
    })
}

/// How it ended; `None` if it did not in time, and was killed.
fn await_end(mut child: Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let id = Pid::from_child(&child);
    let watch = pidfd_open(id, PidfdFlags::empty()).context("the process that measures cannot be watched")?;
    let limit = limit.try_into().context("nobody waits so long")?;
    let ended = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&limit))?;
    if ended == 0 {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok((ended > 0).then_some(status))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "said nothing".to_owned(),
        (Some(code), _) => format!("exited with code {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
    }
}

/// Waits until everything with this mark is gone, so that nothing of it is in the next figure; ends what stays.
fn leave_nothing(token: &str) {
    let until = Instant::now() + LEAVE_LIMIT;
    loop {
        let left = processes::with(TOKEN, token);
        if left.is_empty() {
            return;
        }
        if Instant::now() > until {
            left.iter().for_each(|process| processes::kill(process.id, libc::SIGKILL));
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// This process ends when the one that has started it does, in whatever way.
pub(crate) fn end_with_parent() {
    if let Some(parent) = getppid() {
        end_with_process(parent, Duration::ZERO);
    }
}

/// This process ends when that one does, in whatever way. Not at once: both may be about to end well, and a launcher
/// that sees one go before that kills the others.
pub(crate) fn end_soon_after(process: i32) {
    if let Some(process) = Pid::from_raw(process) {
        end_with_process(process, LEAVE_LIMIT / 2);
    }
}

fn end_with_process(process: Pid, grace: Duration) {
    let watch = pidfd_open(process, PidfdFlags::empty());
    thread::spawn(move || {
        if let Ok(watch) = watch {
            // It costs no time as long as nothing happens.
            while poll(&mut [PollFd::new(&watch, PollFlags::IN)], None).is_err() {}
        }
        thread::sleep(grace);
        std::process::exit(1);
    });
}
