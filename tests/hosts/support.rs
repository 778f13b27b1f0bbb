//! What the scenarios share; and two that prove that the tests' own alarms work.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use offshoot::Handle;
use rustix::process::Pid;
use tempfile::TempDir;

use crate::tasks::{hold, never_end, start_one_that_is_deaf};

/// Looks until something holds; fails if that takes longer than half a minute.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        if Instant::now() > until {
            bail!("waited in vain for {what}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether a process has ended, even if nobody has waited for it yet.
pub(crate) fn is_gone(process: impl std::fmt::Display) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// Where a task that holds and the host tell each other, by files, how far they are.
pub(crate) struct Stage {
    folder: TempDir,
}

impl Stage {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    fn file(&self, name: &str, what: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{what}"))
    }

    /// A task that runs until it is released or cancelled.
    pub(crate) fn hold(&self, name: &str) -> offshoot::Call<hold> {
        hold(self.file(name, "started"), self.file(name, "release"))
    }

    /// A task that runs until its worker is killed.
    pub(crate) fn never_end(&self, name: &str) -> offshoot::Call<never_end> {
        never_end(self.file(name, "started"))
    }

    /// Waits until the task runs.
    pub(crate) fn await_start(&self, name: &str) -> anyhow::Result<()> {
        eventually("a task to start", || self.file(name, "started").exists())
    }

    /// As `never_end`, with a process that has left the worker's group and hears no SIGTERM.
    pub(crate) fn start_one_that_is_deaf(&self, name: &str) -> offshoot::Call<start_one_that_is_deaf> {
        start_one_that_is_deaf(self.file(name, "started"))
    }

    /// That process.
    pub(crate) fn deaf(&self, name: &str) -> anyhow::Result<Pid> {
        self.await_start(name)?;
        let id = std::fs::read_to_string(self.file(name, "pid"))?;
        Pid::from_raw(id.trim().parse()?).context("it has an id")
    }

    /// The worker and the guard of a task that never ends.
    pub(crate) fn processes(&self, name: &str) -> anyhow::Result<[Pid; 2]> {
        self.await_start(name)?;
        let ids = std::fs::read_to_string(self.file(name, "started"))?;
        let mut ids =
            ids.split(' ').map(|id| anyhow::Ok(Pid::from_raw(id.parse()?).context("it has an id")?));
        let mut next = || ids.next().context("it names two processes")?;
        Ok([next()?, next()?])
    }

    pub(crate) fn has_started(&self, name: &str) -> bool {
        self.file(name, "started").exists()
    }

    pub(crate) fn release(&self, name: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.file(name, "release"), "")?)
    }
}

/// Waits for a result for a minute at most, so that a hang is an error with a name.
pub(crate) fn result<R: serde::de::DeserializeOwned>(
    mut handle: Handle<R>,
) -> Result<R, offshoot::TaskError> {
    handle.wait_timeout(Duration::from_secs(30))
}

/// Not a scenario: the tests must notice that it does not end.
pub(crate) fn hangs() -> anyhow::Result<()> {
    loop {
        thread::park();
    }
}

/// Not a scenario: the tests must notice what it leaves.
pub(crate) fn leaves_a_process_behind() -> anyhow::Result<()> {
    Command::new("sleep").arg("60").spawn()?;
    Ok(())
}
