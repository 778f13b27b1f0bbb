//! What a process is that uses this library: a host, or what a host has started: guard, launcher, parent, worker.

use std::io::{PipeWriter, Write};
use std::os::fd::RawFd;

use super::voice::Voice;
use super::{Place, fail, run};
use crate::guard;
use crate::launch::{self, Role};
use crate::parent;
use crate::process;
use crate::task::Registry;
use crate::transport::bells::Pair;
use crate::transport::claim::{Claim, Word};
use crate::transport::mpi as transport;

/// Whether this process was started by its user. Whatever else it is, it is for the rest of its life.
pub(super) fn is_host(registry: &Registry) -> bool {
    match launch::role() {
        Ok(Role::Host) => true,
        Ok(Role::Guard { address, ticket }) => guard::watch(&address, ticket),
        Ok(Role::Launcher(launch)) => launch.go_on(),
        Ok(Role::Parent { socket, host }) => parent::serve(socket, host),
        Ok(Role::Worker { news, board, bell, unfit }) => serve_as_worker(registry, news, board, bell, unfit),
        Err(reason) => fail(&reason),
    }
}

/// Prepares a host for its MPI.
pub(super) fn prepare_host() {
    launch::prepare();
}

fn serve_as_worker(
    registry: &Registry,
    news: Option<RawFd>,
    board: Option<RawFd>,
    bell: Option<String>,
    unfit: Option<String>,
) -> ! {
    process::outlive_terminal_signals();
    process::keep_freed_memory();
    let mut news = News(news.map(process::inherited_pipe));
    if let Some(reason) = unfit {
        news.tell(guard::NEWS_UNFIT);
        fail(&reason);
    }
    news.tell(guard::NEWS_BEGUN);
    // Without it, all that it writes is nobody's.
    let voice = board.and_then(|board| Voice::inherited(board, registry.iter().count()).ok());
    // Nor is it stopped by anybody.
    let claim = Claim::new(voice.as_ref().map_or_else(Word::own, Voice::word));
    let bells = bell.and_then(|bell| Pair::inherited(bell.parse().ok()?));
    let (link, rank) = transport::initialize_worker(bells).unwrap_or_else(|reason| fail(&reason));
    news.tell(guard::NEWS_INIT);
    process::keep_descriptors_to_ourselves();
    let host = mpi::environment::processor_name().unwrap_or_else(|_| "unknown".to_owned());
    let left = run(link, registry, Place { host: host.into(), rank, claim, voice }).and_then(|link| {
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
