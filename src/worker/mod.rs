//! The worker's side: from the first line of `main` to the end of the process.
//!
//! `mailbox` holds what the host sent and keeps looking for more, `answers` what goes back, `run` is
//! the loop between them; `roles` decides what a process is; `voice` lets the guard know which task writes what. It is the same loop over MPI and in memory. Tasks run on the thread that
//! called [`serve`], which is also the one that talks to the host: no hand-over stands between a task
//! and its message.

mod answers;
mod mailbox;
#[cfg(feature = "mpi")]
mod roles;
#[cfg(not(feature = "mpi"))]
#[path = "roles_of_client.rs"]
mod roles;
mod run;
mod voice;

use crate::task::Registry;

pub(crate) use run::{Place, run};

/// Makes this process what it was started as. The first line of `main` of a host.
///
/// In a process that its user started it returns, after it has prepared the environment that the MPI
/// library needs. In one that a pool has spawned it runs tasks, those of every
/// [`tasks!`](crate::tasks) block linked into the executable, until it is told to leave; it does not
/// return then.
///
/// # Panics
/// If the process has more than one thread already.
pub fn init() {
    init_with(Registry::linked());
}

/// As [`init`], with an explicit list of tasks.
///
/// # Panics
/// If the process has more than one thread already.
pub fn init_with(registry: Registry) {
    if roles::is_host(&registry) {
        roles::prepare_host();
    }
}

/// The whole `main` of an executable that is only a worker.
///
/// It runs the tasks of every [`tasks!`](crate::tasks) block linked into the executable until its host
/// tells it to leave. Started by hand it says what it is, and exits with code 2.
pub fn serve() -> ! {
    serve_with(Registry::linked())
}

/// As [`serve`], with an explicit list of tasks.
pub fn serve_with(registry: Registry) -> ! {
    if roles::is_host(&registry) {
        eprintln!(
            "this is an offshoot worker: it is started by a pool, not by hand.\n\
             It knows {} task(s):",
            registry.iter().count()
        );
        registry.iter().for_each(|task| eprintln!("  {task:?}"));
    }
    std::process::exit(2)
}

fn fail(reason: &str) -> ! {
    eprintln!("offshoot worker {}: {reason}", std::process::id());
    std::process::exit(1)
}
