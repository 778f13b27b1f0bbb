//! The socket between a host and its isolated parent, as either end has it: packets of messages, never cut, and files
//! that go with them.
//!
//! Neither end ever waits in it: what the socket does not take stays in a queue, several messages of which make the next
//! packet. So two sides that both write do not wait for each other, and whoever fills the queue looks at its length. Large
//! messages lie in files in memory (`process/sealed.rs`), written once here and read there where they lie.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use thiserror::Error;

use crate::process::{self, Sealed};
use crate::wire::WireError;
use crate::wire::frame::Parcel;
use crate::wire::parent::{self as wire, Halves, INLINE_MAX, PACKET_MAX, Part};

/// So many pieces of memory make a packet at most. The system takes 1024.
const PIECES_MAX: usize = 256;
/// What a socket may hold, where the system allows it.
const SOCKET_BUFFER: usize = 2 << 20;

/// One end.
pub(crate) struct Channel {
    socket: OwnedFd,
    outgoing: VecDeque<Outgoing>,
    /// Bytes in there, those in files included.
    waiting: usize,
    /// What came in the last packet and was not handed out yet, with the file that came with it.
    packet: Bytes,
    file: Option<OwnedFd>,
    /// Where packets arrive.
    memory: Box<[u8]>,
}

struct Outgoing {
    head: Vec<u8>,
    body: Parcel,
    file: Option<OwnedFd>,
    /// What it counts for.
    cost: usize,
}

/// A message that has come, and the file that came with it.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) message: Bytes,
    pub(crate) file: Option<OwnedFd>,
}

/// Nothing more comes and goes over a channel.
#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    #[error("the other side has closed it")]
    Closed,
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("a packet is longer than one may be, or has more than one file with it")]
    Packet,
    #[error("a message should lie in a file, and none came with it")]
    NoFile,
}

impl From<Errno> for ChannelError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Self::Closed,
            error => Self::System(error.into()),
        }
    }
}

impl Channel {
    /// A pair of ends: nobody but who is given one of them can ever have a part in it.
    pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let (type_, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        Ok(socketpair(AddressFamily::UNIX, type_, flags, None)?)
    }

    pub(crate) fn new(socket: OwnedFd) -> Self {
        // Where the system allows less, packets wait here.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
        Self {
            socket,
            outgoing: VecDeque::new(),
            waiting: 0,
            packet: Bytes::new(),
            file: None,
            memory: vec![0; PACKET_MAX].into(),
        }
    }

    /// Takes a message to be sent, and perhaps a file to go with it.
    ///
    /// # Errors
    /// If a long one finds no memory to lie in.
    pub(crate) fn push(&mut self, (head, body): Halves, file: Option<OwnedFd>) -> io::Result<()> {
        self.push_parcel(head, body.into(), file)
    }

    /// As `push`, with a body in pieces.
    pub(crate) fn push_parcel(
        &mut self,
        head: Vec<u8>,
        body: Parcel,
        file: Option<OwnedFd>,
    ) -> io::Result<()> {
        let length = head.len() + body.length();
        let outgoing = if length <= INLINE_MAX {
            Outgoing { head, body, file, cost: length }
        } else {
            assert!(file.is_none(), "what has a file with it is short");
            let file = process::seal([&head[..]].into_iter().chain(body.pieces()))?;
            Outgoing {
                head: wire::bulk(length as u64),
                body: Parcel::default(),
                file: Some(file),
                cost: length,
            }
        };
        self.waiting += outgoing.cost;
        self.outgoing.push_back(outgoing);
        Ok(())
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sends what the socket takes. Whether that was anything.
    pub(crate) fn flush(&mut self) -> Result<bool, ChannelError> {
        let mut any = false;
        while !self.outgoing.is_empty() {
            let count = self.next_packet();
            if !self.send(count)? {
                break;
            }
            any = true;
            self.waiting -= self.outgoing.drain(..count).map(|sent| sent.cost).sum::<usize>();
        }
        Ok(any)
    }

    /// How many messages make the next packet: one that has a file with it goes alone.
    fn next_packet(&self) -> usize {
        let (mut length, mut pieces, mut count) = (0, 0, 0);
        for outgoing in &self.outgoing {
            length += outgoing.head.len() + outgoing.body.length();
            pieces += 1 + outgoing.body.pieces().count();
            let is_full = length > PACKET_MAX || pieces > PIECES_MAX || outgoing.file.is_some();
            if is_full && count > 0 {
                break;
            }
            count += 1;
            if outgoing.file.is_some() {
                break;
            }
        }
        count
    }

    /// Sends so many messages as one packet. False if the socket does not take it now.
    fn send(&self, count: usize) -> Result<bool, ChannelError> {
        let messages = self.outgoing.iter().take(count);
        let pieces: Vec<IoSlice<'_>> = messages
            .flat_map(|message| std::iter::once(&message.head[..]).chain(message.body.pieces()))
            .map(IoSlice::new)
            .collect();
        let file: Vec<BorrowedFd<'_>> = self
            .outgoing
            .front()
            .and_then(|first| first.file.as_ref())
            .map(AsFd::as_fd)
            .into_iter()
            .collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !file.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&file)) {
            return Err(ChannelError::Packet);
        }
        loop {
            match sendmsg(&self.socket, &pieces, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_whole) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next message, if one has come.
    pub(crate) fn receive(&mut self) -> Result<Option<Arrived>, ChannelError> {
        loop {
            match wire::next_in(&mut self.packet)? {
                Some(Part::Message(message)) => return Ok(Some(Arrived { message, file: self.file.take() })),
                Some(Part::InFile { length }) => {
                    let file = self.file.take().ok_or(ChannelError::NoFile)?;
                    let length = usize::try_from(length).map_err(|_| ChannelError::Packet)?;
                    let message = Bytes::from_owner(Sealed::open(file, length)?);
                    return Ok(Some(Arrived { message, file: None }));
                }
                None => {
                    if !self.read_packet()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn read_packet(&mut self) -> Result<bool, ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut reset = false;
        let received = loop {
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut self.memory)], &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                // It is said once, before what had been sent until then.
                Err(Errno::CONNRESET) if !reset => reset = true,
                Err(error) => return Err(error.into()),
            }
        };
        let files: Vec<OwnedFd> = control
            .drain()
            .flat_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .collect();
        let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        if is_cut || files.len() > 1 {
            return Err(ChannelError::Packet);
        }
        // There are no empty packets.
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        self.packet = Bytes::copy_from_slice(&self.memory[..received.bytes]);
        self.file = files.into_iter().next();
        Ok(true)
    }

    /// Whether `receive` has something to say.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.packet.is_empty() || is_ready(&self.socket, PollFlags::IN)
    }

    /// Sends what waits, and waits for the other side to take it, for so long at most.
    pub(crate) fn flush_within(&mut self, patience: Timespec) -> Result<(), ChannelError> {
        self.flush()?;
        if !self.outgoing.is_empty() {
            let mut watched = [PollFd::new(&self.socket, PollFlags::OUT)];
            let _ = poll(&mut watched, Some(&patience));
            self.flush()?;
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_ready(socket: &OwnedFd, what: PollFlags) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(socket, what)], Some(&now)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests;
