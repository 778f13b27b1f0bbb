//! Sends what this process says to its MPI's daemon at once.
//!
//! PMIx says several small things in a row, to a daemon that answers the last one only. The system holds each back until
//! the one before it has been confirmed (Nagle's algorithm), and the daemon's side confirms only after 40 ms, in the
//! hope of an answer to confirm it with. So `MPI_Finalize` took 40 ms longer than it has work to do, in each process
//! (Open MPI 4.1.4 with PMIx 4.2.2).

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpStream};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// How the variables begin in which PMIx says where its server is: `NAME;tcp4://127.0.0.1:PORT`.
const SERVER_VARIABLES: &str = "PMIX_SERVER_URI";

/// Finds the connection to the daemon, in a process that is about to finalize MPI. Where the system does not let a process
/// look at its own descriptors, all is as before.
pub(super) fn send_at_once_to_daemon() {
    let servers: Vec<SocketAddr> = env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(SERVER_VARIABLES)))
        .filter_map(|(_, uri)| address(uri.to_str()?))
        .collect();
    if servers.is_empty() {
        return;
    }
    let Ok(this_process) = pidfd_open(getpid(), PidfdFlags::empty()) else { return };
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|name| name.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        let number = entry.file_name().to_str().and_then(|number| number.parse().ok());
        let Some(number) = number.filter(|_| is_socket) else { continue };
        let Ok(copy) = pidfd_getfd(&this_process, number, PidfdGetfdFlags::empty()) else { continue };
        let copy = TcpStream::from(copy);
        if copy.peer_addr().is_ok_and(|peer| servers.contains(&peer)) {
            let _ = copy.set_nodelay(true);
        }
    }
}

fn address(uri: &str) -> Option<SocketAddr> {
    let (_, address) = uri.split_once(";tcp")?;
    address.split_once("://")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_in_what_names_it() {
        assert_eq!(address("123456.0;tcp4://127.0.0.1:42733"), Some(([127, 0, 0, 1], 42733).into()));
        assert_eq!(address("prterun-vm-7@0;tcp6://[::1]:80"), "[::1]:80".parse().ok());
        for other in ["", "somewhere.else", "a;usock:/tmp/x", "a;tcp4://127.0.0.1:x"] {
            assert_eq!(address(other), None, "{other}");
        }
    }
}
