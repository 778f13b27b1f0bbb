//! What a process was started as, and how it knows.
//!
//! `MPI_Comm_spawn` starts a guard: this executable, with an argument list that says where its parent is.
//! The guard asks there what to start, and starts the worker with a variable that says so. So nothing of
//! the user's travels in an argument list, and nothing of ours is among the worker's arguments.

use std::env;
use std::ffi::OsString;
use std::os::fd::RawFd;

use super::decoy::Launch;
use super::family::Family;
use super::isolated;
use super::prepare::prepared;
use super::roles::{ROLE_PARENT, ROLE_VARIABLE, ROLE_WORKER};
use super::transport;
use crate::process;
use crate::wire::control::Ticket;
use crate::wire::frame::PROTOCOL_VERSION;

/// Of an argument list, what is looked at. A guard's is shorter.
const ARGUMENTS_MAX: usize = 32;
/// First argument of a process that was spawned by us.
const GUARD_FLAG: &str = "--offshoot-guard";
/// The descriptor through which a worker tells its guard how far it has come.
pub(crate) const NEWS_VARIABLE: &str = "OFFSHOOT_NEWS";
/// The descriptor of the page on which a worker says which task runs.
pub(crate) const BOARD_VARIABLE: &str = "OFFSHOOT_BOARD";
/// Where a worker's doorbell is, and that of its host.
pub(crate) const BELL_VARIABLE: &str = "OFFSHOOT_BELL";
/// What the worker's host is, as [`peer`] says it.
pub(crate) const PEER_VARIABLE: &str = "OFFSHOOT_PEER";

/// What a process was started as.
pub(crate) enum Role {
    /// By its user.
    Host,
    /// By `MPI_Comm_spawn`: it is to start a worker and watch over it.
    Guard { address: String, ticket: Ticket },
    /// By MPI, as the launcher that it spawns through.
    Launcher(Launch),
    /// By a host: it is to hold the MPI in its place.
    Parent { socket: RawFd, host: u32 },
    /// By a guard: it is to serve.
    Worker {
        news: Option<RawFd>,
        board: Option<RawFd>,
        /// Where its doorbell is, as its guard says it.
        bell: Option<String>,
        /// Why it cannot serve this host, if so.
        unfit: Option<String>,
    },
}

/// The arguments to spawn a guard with. After the first four, settings of the MPI's transport.
pub(crate) fn guard_arguments(address: &str, ticket: Ticket) -> Vec<String> {
    let who = [GUARD_FLAG.to_owned(), PROTOCOL_VERSION.to_string(), address.to_owned(), ticket.0.to_string()];
    let settings = prepared().map(|prepared| &prepared.transport.settings[..]).unwrap_or_default();
    who.into_iter().chain(settings.iter().cloned()).collect()
}

/// Whether these are the arguments of a guard.
pub(super) fn is_guard(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|first| first == GUARD_FLAG)
}

/// What this process was started as. What says so is taken out of the environment: the programs that a
/// task starts are not workers.
///
/// # Errors
/// If it was started as something of another version.
pub(crate) fn role() -> Result<Role, String> {
    if env::var_os(ROLE_VARIABLE).is_some_and(|role| role == ROLE_WORKER) {
        let descriptor = |name| env::var(name).ok().and_then(|fd| fd.parse().ok());
        let (news, board) = (descriptor(NEWS_VARIABLE), descriptor(BOARD_VARIABLE));
        let bell = env::var(BELL_VARIABLE).ok();
        process::remove_variable(ROLE_VARIABLE);
        let peer = env::var(PEER_VARIABLE).unwrap_or_default();
        [NEWS_VARIABLE, BOARD_VARIABLE, BELL_VARIABLE, PEER_VARIABLE]
            .into_iter()
            .for_each(process::remove_variable);
        transport::take_flow()?;
        return Ok(Role::Worker { news, board, bell, unfit: check_peer(&peer).err() });
    }
    if env::var_os(ROLE_VARIABLE).is_some_and(|role| role == ROLE_PARENT) {
        process::remove_variable(ROLE_VARIABLE);
        let (socket, host) = isolated::take_parent()?;
        return Ok(Role::Parent { socket, host });
    }
    if let Some(launch) = Launch::of_this_process() {
        return Ok(Role::Launcher(launch));
    }
    let arguments: Vec<_> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .take(ARGUMENTS_MAX)
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [GUARD_FLAG, version, address, ticket, ..] => {
            let ticket =
                ticket.parse().map(Ticket).map_err(|_| "the guard's ticket is not a number".to_owned())?;
            if version == PROTOCOL_VERSION.to_string() {
                transport::agree(&arguments[4..]);
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

/// What this process is, for others to compare with themselves before they meet in MPI, where they might
/// wait for each other in vain: protocol version, MPI, version of that.
pub(crate) fn peer() -> String {
    let version = mpi::environment::library_version().unwrap_or_default();
    let family = Family::of(&version).map_or("another MPI", |family| family.name);
    format!("{PROTOCOL_VERSION}/{family}/{}", number(&version))
}

/// Refuses a host that this worker cannot work for.
fn check_peer(theirs: &str) -> Result<(), String> {
    compare_peers(theirs, &peer())
}

fn compare_peers(theirs: &str, own: &str) -> Result<(), String> {
    let parts = |peer: &str| {
        let mut parts = peer.splitn(3, '/').map(str::to_owned);
        [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default)
    };
    let [their_protocol, their_mpi, their_number] = parts(theirs);
    let [own_protocol, own_mpi, own_number] = parts(own);
    if their_protocol != own_protocol {
        return Err(format!(
            "its host speaks protocol version {their_protocol}, this worker version {own_protocol}: build both \
             with the same offshoot"
        ));
    }
    let series = |number: &str| number.split('.').take(2).collect::<Vec<_>>().join(".");
    if their_mpi != own_mpi || series(&their_number) != series(&own_number) {
        return Err(format!(
            "its host uses {their_mpi} ({their_number}), this worker {own_mpi} ({own_number}): run both with one \
             MPI; which library a program loads, `ldd` tells"
        ));
    }
    Ok(())
}

/// The version number in what a library says of itself.
fn number(version: &str) -> String {
    let words = version.split_whitespace().map(|word| word.trim_start_matches('v').trim_end_matches(','));
    words
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .next()
        .unwrap_or_default()
}

/// What must hold of what a process is told about itself, in arguments and in the environment (`fuzzing.rs`).
#[cfg(any(test, fuzzing))]
pub(crate) fn record_property(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(compare_peers(&text, &text), Ok(()), "a process works for its like");
    let _ = compare_peers(&text, "2/Open MPI 4/4.1.4");
    transport::settings_property(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_each_mpi_is_found() {
        for (version, expected) in [
            ("Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4", "4.1.4"),
            ("MPICH Version:      5.0.2\nMPICH Release date: …", "5.0.2"),
            ("Intel(R) MPI Library 2021.17 for Linux* OS", "2021.17"),
            ("something else", ""),
        ] {
            assert_eq!(number(version), expected);
        }
    }

    #[test]
    fn a_worker_serves_a_host_of_its_own_kind_only() {
        let own = "1/Open MPI 4/4.1.4";
        for (theirs, word) in [
            ("2/Open MPI 4/4.1.4", "protocol version 2"),
            ("1/Open MPI 5/5.0.11", "Open MPI 5 (5.0.11)"),
            ("1/Open MPI 4/4.0.3", "Open MPI 4 (4.0.3)"),
            ("1/MPICH/5.0.2", "MPICH"),
            ("", "protocol version"),
        ] {
            let refused = compare_peers(theirs, own).expect_err("they differ");
            assert!(refused.contains(word), "{refused}");
        }
        assert_eq!(compare_peers("1/Open MPI 4/4.1.8", own), Ok(()), "a patch is no difference");
    }
}
