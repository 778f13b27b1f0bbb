//! A process manager of our own inside the host, for the MPICH family on one machine.
//!
//! A process that was started plainly and spawns makes MPICH start `mpiexec -pmi_args …`, hydra, which starts what is
//! spawned, watches it, and kills whole process groups when anything goes wrong. But what the library talks to over
//! `PMI_FD` may be anybody: here it is a thread of the host (`server`), which speaks the same language (`protocol`) and
//! keeps the books (`jobs`). So `MPI_Comm_spawn` asks us, guards are this process's own children, nothing else
//! runs, and nobody but the pool hears of the death of a worker or of a guard. Over several hosts, in jobs of `mpiexec`, and where
//! the host has initialized MPI itself, it is hydra as before.
//!
//! A spawn of MPICH's is three steps: a port is opened, the process manager starts a process that finds the name of that
//! port, and both meet there. The library makes all of them in one call, which returns when the last is done, or never, if
//! the process dies in it. So the host has its workers started without it (`orders`), at ports that it names itself
//! (`ports`), and goes on until one of them has come so far that it asks for the name.
//!
//! The library looks for `PMI_FD` in the environment of the process, in `MPI_Init` only. It is there during that call:
//! programs that the host starts at other times would take it for theirs.

mod jobs;
mod orders;
mod ports;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

use std::env;
use std::fmt;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::family::{Family, OwnManager};
use super::preflight::Job;
use crate::finding::Finding;
use crate::process::PassingVariables;
pub(crate) use jobs::{AWAITED, IS_AWAITED, NOT_AWAITED};
pub(crate) use orders::{Office, Wanted};
pub(crate) use ports::PortNames;
pub(crate) use protocol::ASKS_FOR_PORT;
use server::Server;

/// Chooses the process manager: `own`, or `hydra`.
const CHOICE_VARIABLE: &str = "OFFSHOOT_PROCESS_MANAGER";

pub(super) const FD_VARIABLE: &str = "PMI_FD";
const RANK_VARIABLE: &str = "PMI_RANK";
const SIZE_VARIABLE: &str = "PMI_SIZE";
const SPAWNED_VARIABLE: &str = "PMI_SPAWNED";
/// By these an MPI, or a launcher, tells a process that it has a process manager already.
const OTHERS: &[&str] =
    &[FD_VARIABLE, RANK_VARIABLE, SIZE_VARIABLE, SPAWNED_VARIABLE, "PMI_PORT", "PMI_ID", "PMIX_NAMESPACE"];
/// Which language MPICH speaks.
const LANGUAGE_VARIABLE: &str = "MPIR_CVAR_PMI_VERSION";

/// Who starts what `MPI_Comm_spawn` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessManager {
    /// A thread of this process.
    Own,
    /// The MPI's own launcher.
    Launcher,
}

impl fmt::Display for ProcessManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Launcher => "launcher",
        })
    }
}

const CHECK: &str = "process manager";

/// What was chosen when the process was prepared.
#[derive(Debug)]
pub(crate) struct Choice {
    /// For pools on this machine alone.
    pub(crate) manager: ProcessManager,
    /// Whether the other one may still be needed, because nobody has said otherwise.
    pub(super) is_open: bool,
    /// What [`super::findings`] says about it.
    pub(super) finding: Option<Finding>,
}

/// Chooses, before MPI is initialized.
pub(super) fn choose(family: Option<&Family>, version: &str) -> Choice {
    let wish = env::var(CHOICE_VARIABLE).ok().filter(|wish| !wish.is_empty());
    let fits = family.map_or(OwnManager::Unfit, |family| (family.own_manager)(version));
    let launcher =
        |finding: Option<Finding>| Choice { manager: ProcessManager::Launcher, is_open: true, finding };
    let because = |why: String| launcher(Some(Finding::ok(CHECK, format!("hydra: {why}"))));
    let is_asked = match wish.as_deref() {
        None => false,
        Some("own") => true,
        Some("hydra") if fits == OwnManager::Unfit => return launcher(None),
        Some("hydra") => return because(format!("as {CHOICE_VARIABLE} says")),
        Some(other) => {
            let found = format!("{CHOICE_VARIABLE} is `{other}`, which is none");
            let remedy = format!("export {CHOICE_VARIABLE}=own, or hydra");
            return launcher(Some(Finding::failure(CHECK, found, remedy)));
        }
    };
    let unless = |why: String| {
        if is_asked {
            let found = format!("{CHOICE_VARIABLE} asks for offshoot's own, and {why}");
            launcher(Some(Finding::warning(CHECK, found, format!("unset {CHOICE_VARIABLE}, or see to that"))))
        } else {
            because(why)
        }
    };
    match fits {
        OwnManager::Unfit if is_asked => return unless("that is for MPICH only".to_owned()),
        OwnManager::Unfit => return launcher(None),
        OwnManager::Untried if !is_asked => {
            return because("offshoot's own is untried with this version".to_owned());
        }
        OwnManager::Untried | OwnManager::Tried => {}
    }
    if Job::of_this_process().is_some() {
        return unless("this process was started as a part of a job".to_owned());
    }
    if let Some(name) = OTHERS.iter().find(|name| env::var_os(name).is_some()) {
        return unless(format!("{name} says that this process has a process manager already"));
    }
    if env::var(LANGUAGE_VARIABLE).is_ok_and(|language| !["1", "auto"].contains(&&*language)) {
        return unless(format!("{LANGUAGE_VARIABLE} asks for another language than PMI-1"));
    }
    if mpi::environment::is_initialized() {
        return unless("MPI was initialized before `offshoot::init()` was called".to_owned());
    }
    let found = "offshoot's own: a thread of this process starts its workers, and no `mpiexec` runs";
    Choice { manager: ProcessManager::Own, is_open: !is_asked, finding: Some(Finding::ok(CHECK, found)) }
}

/// Has a place kept in the environment for what the library will look for there.
pub(super) fn prepare() {
    PassingVariables::reserve(&[(FD_VARIABLE, 0), (RANK_VARIABLE, 0), (SIZE_VARIABLE, 1)]);
}

/// The process manager of this process, which serves until that ends.
pub(crate) struct Manager {
    variables: PassingVariables,
    is_heard: Arc<AtomicBool>,
    office: Office,
}

/// Starts a process manager for this process. MPI has not been initialized yet.
pub(crate) fn serve() -> std::io::Result<Manager> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let is_heard = Arc::new(AtomicBool::new(false));
    let (office, inbox) = orders::open()?;
    let server = Server::new(ours, inbox, Arc::clone(&is_heard));
    thread::Builder::new().name("offshoot PMI".to_owned()).spawn(move || server.run())?;
    // It is the library's for as long as the process lives.
    let variables = PassingVariables::show(FD_VARIABLE, theirs.into_raw_fd())?;
    Ok(Manager { variables, is_heard, office })
}

impl Manager {
    /// MPI has been initialized, and has seen what it had to see. Where to order workers, if it speaks with this manager.
    pub(crate) fn settle(self) -> Option<Office> {
        drop(self.variables);
        self.is_heard.load(Ordering::Relaxed).then_some(self.office)
    }
}
