//! The socket of the control channel: a Unix socket on the parent's own host, TCP from any other; and the
//! address that stands in a guard's arguments, which leads to either.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixStream};
use std::str::FromStr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

/// How long a connection to another host may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How long what is written may wait for room.
const WRITE_PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// A silent host is asked for a sign of life this often, and given up after so many questions, as long as the two
/// have not agreed on a heartbeat.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(5);
const KEEPALIVE_COUNT: u32 = 5;
/// How long what was sent may remain unacknowledged, in milliseconds.
const ACKNOWLEDGE_TIMEOUT: u32 = 30_000;

/// Where guards find their parent: `NAME`, or `NAME@HOST@IP:PORT` for one that may be on another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The Unix socket in the abstract name space of the parent's host.
    pub(crate) name: String,
    /// The parent's host, and where it listens on the network.
    pub(crate) network: Option<(String, SocketAddr)>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.network.as_ref().map_or(Ok(()), |(host, address)| write!(f, "@{host}@{address}"))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, '@').map(str::to_owned);
        let name = parts.next().unwrap_or_default();
        let network = match (parts.next(), parts.next()) {
            (None, _) => None,
            (Some(host), Some(address)) => {
                let address = address.parse().map_err(|_| format!("`{address}` is no address"))?;
                Some((host, address))
            }
            (Some(_), None) => return Err(format!("`{text}` is no address")),
        };
        Ok(Self { name, network })
    }
}

impl Address {
    /// Whether the parent is on the host that calls itself `own`.
    pub(crate) fn is_on(&self, own: &str) -> bool {
        self.network.as_ref().is_none_or(|(host, _)| host == own)
    }
}

/// A connection between a guard and its parent.
#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects to a parent: through its host's own socket if this is its host, or else through the network.
    pub(crate) fn connect(address: &Address, own: &str) -> io::Result<Self> {
        let here = address.is_on(own).then(|| {
            let stream = unix::SocketAddr::from_abstract_name(&address.name)
                .and_then(|name| UnixStream::connect_addr(&name))?;
            // Somebody else may have taken the name.
            if is_of_this_user(&stream) {
                Ok(Self::Unix(stream))
            } else {
                Err(ErrorKind::PermissionDenied.into())
            }
        });
        match (here, &address.network) {
            (Some(Ok(stream)), _) => Ok(stream),
            (_, Some((_, address))) => {
                TcpStream::connect_timeout(address, CONNECT_PATIENCE).and_then(Self::over_network)
            }
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(ErrorKind::NotFound.into()),
        }
    }

    /// A connection that notices within half a minute when the other host is gone.
    pub(crate) fn over_network(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_PERIOD)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_PERIOD)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
        sockopt::set_tcp_user_timeout(&stream, ACKNOWLEDGE_TIMEOUT)?;
        Ok(Self::Tcp(stream))
    }

    /// Whether the other side is on another host.
    pub(crate) fn is_over_network(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// How long the other side may leave what it was sent unacknowledged, where it is on another host.
    pub(crate) fn set_patience(&self, timeout: Option<Duration>) {
        if let (Self::Tcp(stream), Some(timeout)) = (self, timeout) {
            let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
            // Where that fails the longer time holds that was set before.
            let _ = sockopt::set_tcp_user_timeout(stream, millis);
        }
    }

    /// The process at the other side, where it is on this host.
    pub(crate) fn peer(&self) -> Option<rustix::process::Pid> {
        match self {
            Self::Unix(stream) => sockopt::socket_peercred(stream).ok().map(|peer| peer.pid),
            Self::Tcp(_) => None,
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true),
            Self::Tcp(stream) => stream.set_nonblocking(true),
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    /// Whether the other side belongs to the user of this process; nobody knows that of a network.
    pub(crate) fn may_be_of_this_user(&self) -> bool {
        match self {
            Self::Unix(stream) => is_of_this_user(stream),
            Self::Tcp(_) => true,
        }
    }

    /// Writes all, and waits a while for room where there is none.
    pub(crate) fn write_patiently(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Unix(stream) => stream.write(bytes),
                Self::Tcp(stream) => stream.write(bytes),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let fd = self.as_fd();
                    if poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&WRITE_PATIENCE))? == 0
                    {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_of_this_user(stream: &UnixStream) -> bool {
    sockopt::socket_peercred(stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(bytes),
            Self::Tcp(stream) => stream.read(bytes),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

/// What must hold of an address, whatever stands in an argument list (`fuzzing.rs`).
#[cfg(any(test, fuzzing))]
pub(crate) fn address_property(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(address) = text.parse::<Address>() else { return };
    assert_eq!(address.to_string().parse::<Address>().as_ref(), Ok(&address));
    let _ = (address.is_on("here"), super::control::Control::secret_place(&address.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in
            ["offshoot-1-4-00ff", "offshoot-1-4-00ff@n1@10.0.0.1:4000", "offshoot-1-none-0@n1@[::1]:4000"]
        {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        for wrong in ["offshoot@n1", "offshoot@n1@10.0.0.1", "offshoot@n1@n1:4000"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_parent_without_a_network_is_on_this_host() {
        let address = |text: &str| text.parse::<Address>().expect(text);
        assert!(address("offshoot-1-4-0").is_on("n2"));
        assert!(address("offshoot-1-4-0@n1@10.0.0.1:4000").is_on("n1"));
        assert!(!address("offshoot-1-4-0@n1@10.0.0.1:4000").is_on("n2"));
    }
}
