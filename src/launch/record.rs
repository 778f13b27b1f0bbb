//! What a process was started as, and how it knows.
//!
//! `MPI_Comm_spawn` starts a guard: this executable, with an argument list that says where its parent is.
//! The guard asks there what to start, and starts the worker with a variable that says so. So nothing of
//! the user's travels in an argument list, and nothing of ours is among the worker's arguments.

use std::env;
use std::os::fd::RawFd;

use crate::process;
use crate::wire::control::Ticket;
use crate::wire::frame::PROTOCOL_VERSION;

/// First argument of a process that was spawned by us.
const GUARD_FLAG: &str = "--offshoot-guard";
/// Set in the environment of a worker, and taken out again before anything of the user's runs.
pub(crate) const ROLE_VARIABLE: &str = "OFFSHOOT_ROLE";
pub(crate) const ROLE_WORKER: &str = "worker";
/// The descriptor through which a worker tells its guard how far it has come.
pub(crate) const NEWS_VARIABLE: &str = "OFFSHOOT_NEWS";

/// What a process was started as.
pub(crate) enum Role {
    /// By its user.
    Host,
    /// By `MPI_Comm_spawn`: it is to start a worker and watch over it.
    Guard { address: String, ticket: Ticket },
    /// By a guard: it is to serve.
    Worker { news: Option<RawFd> },
}

/// The arguments to spawn a guard with.
pub(crate) fn guard_arguments(address: &str, ticket: Ticket) -> [String; 4] {
    [GUARD_FLAG.to_owned(), PROTOCOL_VERSION.to_string(), address.to_owned(), ticket.0.to_string()]
}

/// What this process was started as. What says so is taken out of the environment: the programs that a
/// task starts are not workers.
///
/// # Errors
/// If it was started as something of another version.
pub(crate) fn role() -> Result<Role, String> {
    if env::var_os(ROLE_VARIABLE).is_some_and(|role| role == ROLE_WORKER) {
        let news = env::var(NEWS_VARIABLE).ok().and_then(|fd| fd.parse().ok());
        process::remove_variable(ROLE_VARIABLE);
        process::remove_variable(NEWS_VARIABLE);
        return Ok(Role::Worker { news });
    }
    let arguments: Vec<_> =
        env::args_os().skip(1).take(4).map(|argument| argument.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [GUARD_FLAG, version, address, ticket] => {
            let ticket =
                ticket.parse().map(Ticket).map_err(|_| "the guard's ticket is not a number".to_owned())?;
            if version == PROTOCOL_VERSION.to_string() {
                Ok(Role::Guard { address: address.to_owned(), ticket })
            } else {
                Err(format!(
                    "a parent of protocol version {version} started a guard of version {PROTOCOL_VERSION}"
                ))
            }
        }
        _ => Ok(Role::Host),
    }
}
