//! Keeps the connections of a worker open beyond its death.
//!
//! Some MPIs end their process when a connection breaks with which anything is under way, be it that it only just begins:
//! MPICH over libfabric. A connection does not break as long as anybody has it open, however the worker has ended; so the
//! guard has it open, too, and its host finds out by itself, from what the guard says, whom to talk to no more.
//!
//! Not for ever, because what the library has written it takes for sent only when the other process has confirmed it, and
//! cannot cancel; but what is written already when the connection comes to its end is no error. So the guard lets go when its
//! host has had the time to write what it was about to, and in order: what nobody has read is read first, or the end would
//! be a reset.
//!
//! Nobody tells when a connection is made: it happens in the worker's `MPI_Init`. While that lasts the guard looks for some,
//! several times in the time that the two ends need to agree upon one. Where the system does not let a process have the
//! descriptors of its child, nothing is kept.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, recv};
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};

/// Between two looks at a worker that may connect at any moment.
pub(super) const LOOK_EVERY: Duration = Duration::from_micros(250);
/// And at one that has some time to go: it needs a socket to be found at first, long before it connects.
pub(super) const GLANCE_EVERY: Duration = Duration::from_millis(5);

/// What is kept of one worker.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// What has been looked at, by the name that the system has for it.
    known: Vec<PathBuf>,
    kept: Vec<OwnedFd>,
    /// Whether it has ever had a socket of the network.
    is_on_network: bool,
}

/// How long the host may go on writing to a worker that dies while they connect. It hears of nothing in that time.
pub(super) const HELD_WHILE_CONNECTING: Duration = Duration::from_millis(30);
/// What is read at most of a connection that is let go: far more than is ever under way.
const UNREAD_MAX: usize = 4 << 20;

impl Sockets {
    /// Has the connections end, in order.
    pub(super) fn let_go(&mut self) {
        for socket in self.kept.drain(..) {
            let (mut buffer, mut read) = ([0; 16 << 10], 0);
            while read < UNREAD_MAX
                && let Ok((length @ 1.., _)) = recv(&socket, &mut buffer, RecvFlags::DONTWAIT)
            {
                read += length;
            }
        }
    }

    /// Looks for connections that are new. Whether the worker may have some.
    pub(super) fn look(&mut self, worker: Pid, process: BorrowedFd<'_>) -> bool {
        let folder = format!("/proc/{}/fd", worker.as_raw_nonzero());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = fs::read_link(entry.path()) else { continue };
            let is_socket = name.as_os_str().as_encoded_bytes().starts_with(b"socket:");
            if !is_socket || self.known.contains(&name) {
                continue;
            }
            let number: Option<RawFd> = entry.file_name().to_str().and_then(|number| number.parse().ok());
            let copy = number.map(|number| pidfd_getfd(process, number, PidfdGetfdFlags::empty()));
            // Closed since, or nobody else's business.
            let Some(Ok(copy)) = copy else { continue };
            match end(copy.as_fd()) {
                // It may still come to that.
                End::None => self.is_on_network = true,
                End::Other => self.known.push(name),
                End::Peer => {
                    self.is_on_network = true;
                    self.known.push(name);
                    self.kept.push(copy);
                }
            }
        }
        self.is_on_network
    }
}

/// What a socket leads to.
enum End {
    /// Nothing yet.
    None,
    /// Something on the network, or on this machine by its addresses.
    Peer,
    Other,
}

fn end(socket: BorrowedFd<'_>) -> End {
    let is_of_network = rustix::net::getsockname(socket)
        .is_ok_and(|own| [AddressFamily::INET, AddressFamily::INET6].contains(&own.address_family()));
    match rustix::net::getpeername(socket) {
        _ if !is_of_network => End::Other,
        Ok(Some(_)) => End::Peer,
        Ok(None) | Err(_) => End::None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use rustix::process::PidfdFlags;

    use super::*;

    #[test]
    fn a_connection_outlives_the_process_that_made_it() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a network");
        let port = listener.local_addr().expect("it is bound").port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo >&3; read -r");
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a `bash`");
        let (mut stream, _) = listener.accept().expect("it connects");
        assert_eq!(stream.read(&mut [0]).expect("it writes"), 1);
        let pid = Pid::from_child(&child);
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
        let mut sockets = Sockets::default();
        sockets.look(pid, process.as_fd());
        sockets.look(pid, process.as_fd());
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        if sockets.kept.is_empty() {
            return eprintln!("skipped: this system lets nobody have the descriptors of another process");
        }
        assert_eq!(sockets.kept.len(), 1, "one connection is kept once");
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("it is ours");
        assert!(stream.read(&mut [0]).is_err(), "nothing is read, not even an end");
        std::io::Write::write_all(&mut stream, b"nobody reads this").expect("somebody has it open");
        sockets.let_go();
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is ours");
        assert_eq!(stream.read(&mut [0]).expect("it has an end"), 0);
    }
}
