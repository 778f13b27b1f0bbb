//! The worker's side: from the first line of `main` to the end of the process.
//!
//! `mailbox` holds what the host sent and keeps looking for more, `answers` what goes back, `run` is
//! the loop between them; `voice` lets the guard know which task writes what. It is the same loop over MPI and in memory. Tasks run on the thread that
//! called [`serve`], which is also the one that talks to the host: no hand-over stands between a task
//! and its message.

mod answers;
mod mailbox;
mod run;
mod voice;

use std::io::{PipeWriter, Write};
use std::os::fd::RawFd;

use crate::guard;
use crate::launch::{self, Role};
use crate::parent;
use crate::process;
use crate::task::Registry;
use crate::transport::bells::Pair;
use crate::transport::mpi as transport;

pub(crate) use run::{Place, run};
use voice::Voice;

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
    match launch::role() {
        Ok(Role::Host) => launch::prepare(),
        Ok(Role::Guard { address, ticket }) => guard::watch(&address, ticket),
        Ok(Role::Launcher(launch)) => launch.go_on(),
        Ok(Role::Parent { socket, host }) => parent::serve(socket, host),
        Ok(Role::Worker { news, board, bell, unfit }) => serve_as_worker(&registry, news, board, bell, unfit),
        Err(reason) => fail(&reason),
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
    match launch::role() {
        Ok(Role::Worker { news, board, bell, unfit }) => serve_as_worker(&registry, news, board, bell, unfit),
        Ok(Role::Guard { address, ticket }) => guard::watch(&address, ticket),
        Ok(Role::Launcher(launch)) => launch.go_on(),
        Ok(Role::Parent { socket, host }) => parent::serve(socket, host),
        Ok(Role::Host) => {
            eprintln!(
                "this is an offshoot worker: it is started by a pool, not by hand.\n\
                 It knows {} task(s):",
                registry.iter().count()
            );
            registry.iter().for_each(|task| eprintln!("  {task:?}"));
            std::process::exit(2)
        }
        Err(reason) => fail(&reason),
    }
}

fn serve_as_worker(
    registry: &Registry,
    news: Option<RawFd>,
    board: Option<RawFd>,
    bell: Option<String>,
    unfit: Option<String>,
) -> ! {
    process::outlive_terminal_signals();
    let mut news = News(news.map(process::inherited_pipe));
    if let Some(reason) = unfit {
        news.tell(guard::NEWS_UNFIT);
        fail(&reason);
    }
    news.tell(guard::NEWS_BEGUN);
    // Without it, all that it writes is nobody's.
    let voice = board.and_then(|board| Voice::inherited(board, registry.iter().count()).ok());
    let bells = bell.and_then(|bell| Pair::inherited(bell.parse().ok()?));
    let (link, rank) = transport::initialize_worker(bells).unwrap_or_else(|reason| fail(&reason));
    news.tell(guard::NEWS_INIT);
    process::keep_descriptors_to_ourselves();
    let host = mpi::environment::processor_name().unwrap_or_else(|_| "unknown".to_owned());
    let left = run(link, registry, Place { host: host.into(), rank, voice }).and_then(|link| {
        news.tell(guard::NEWS_BYE);
        link.leave()
    });
    match left {
        Ok(()) => {
            news.tell(guard::NEWS_FINALIZE);
            std::process::exit(0)
        }
        Err(error) => fail(&error.to_string()),
    }
}

/// How a worker tells its guard how far it has come.
struct News(Option<PipeWriter>);

impl News {
    fn tell(&mut self, news: u8) {
        if let Some(pipe) = &mut self.0 {
            // A guard that is gone takes this process with it.
            let _ = pipe.write_all(&[news]);
        }
    }
}

fn fail(reason: &str) -> ! {
    eprintln!("offshoot worker {}: {reason}", std::process::id());
    std::process::exit(1)
}
