//! What a guard and its parent say to each other, over the control channel: a stream socket.
//!
//! ```text
//! guard ─Here──────────▶ parent     who I am: ticket and secret; nothing else is believed before it
//! guard ─Awaited───────▶ parent     the port that MPI_Comm_spawn waits at, where a parent can answer itself
//! guard ◀─Start───────── parent     start this
//! guard ─Started───────▶ parent     the worker is this process, on this host | it could not be started
//! guard ─Ready─────────▶ parent     the worker has passed MPI_Init
//! guard ◀─Spawned─────── parent     MPI_Comm_spawn has returned
//! guard ─Output────────▶ parent     lines that the worker wrote
//! guard ◀─Taken───────── parent     so much of them has been taken: there is room for as much again
//! guard ◀─Beat─────────▶ parent     I am here, where the two are on different hosts
//! guard ◀─Recall──────── parent     have the worker begin nothing more, until it is told to go on, over MPI
//! guard ─Recalled──────▶ parent     it does not, and what it has begun last
//! guard ◀─Kill────────── parent     end the worker
//! guard ─Leaving───────▶ parent     the worker has said goodbye, and what it wrote is on its way
//! guard ─Ended─────────▶ parent     how the worker ended, and its last words
//! ```
//!
//! The messages are frames as everywhere, one after the other; [`Splitter`] finds where each ends.
//!
//! Output must not stand in the way of life and death. So a guard has never more of it under way than
//! [`WINDOW`]: neither does the socket fill up, nor the parent's memory, however slow whoever takes the lines
//! is; and what is said beside it arrives at once. Only at a worker's end the guard sends what is left in the
//! pipes, [`REST_MAX`] at most, beyond that.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::codec;
use super::frame::{self, PREFIX, WireError};
use crate::ids::TaskId;

/// One spawn, as the parent numbered it: unique in the parent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ticket(pub(crate) u64);

/// What proves that a guard was started by this parent. It never stands in an argument list.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret(pub(crate) [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a guard may say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromGuard {
    Here {
        ticket: Ticket,
        secret: Secret,
    },
    /// Should the worker die before it has answered, the parent is to answer at this port.
    Awaited {
        port: String,
    },
    Started {
        pid: u32,
        host: String,
    },
    /// The worker has initialized MPI: from here on its death is a death, before it was a failed start.
    Ready,
    Ended(Ended),
    /// I am here.
    Beat,
    /// The worker is about to leave in order, and what it has written until then has been sent.
    Leaving,
    /// The worker begins no other task before it is told to go on. This was the last.
    Recalled {
        begun: Option<TaskId>,
    },
    /// It is a frame of its own kind, whose body is the lines; and the last here, so that the others keep their
    /// numbers.
    #[serde(skip)]
    Output(Output),
}

/// Lines that a worker wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stream: StreamName,
    /// The task that ran then.
    pub(crate) task: Option<TaskId>,
    /// What came before them and was dropped, because nobody took it.
    pub(crate) dropped: Dropped,
    /// Whole lines, with their ends; or a piece of one that is longer than [`LINE_MAX`], or the last one, which
    /// may have no end.
    pub(crate) bytes: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum StreamName {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// Longer lines come in pieces; and so many bytes an [`Output`] has at most.
pub(crate) const LINE_MAX: usize = 64 << 10;
/// So much output may be under way, by its [`cost`](Output::cost). Less than what a socket's buffer holds.
pub(crate) const WINDOW: usize = 128 << 10;
/// So much more a guard may send at its worker's end, and a piece: what two pipes hold.
pub(crate) const REST_MAX: usize = 4 << 20;

impl Output {
    /// What it counts for in the [`WINDOW`]: its bytes, and what a socket's buffer needs for each message.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + 1024
    }
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) how: How,
    /// Whether the guard initializes MPI in the worker's place, and then disconnects from the parent.
    pub(crate) stand_in: bool,
    /// The most memory that it had in use at once, or one of the processes that it started and waited for, in
    /// KiB; 0 if that is not known.
    pub(crate) peak_kib: u64,
    /// Its last lines of stderr, oldest first.
    pub(crate) stderr: Vec<String>,
}

impl Ended {
    /// The end of a worker of which nothing but this is known.
    pub(crate) fn of(how: How) -> Self {
        Self { how, stand_in: false, peak_kib: 0, stderr: Vec::new() }
    }
}

/// The manner of an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum How {
    /// It could not be started at all.
    NotStarted {
        reason: String,
    },
    /// It was killed because it had not initialized MPI in time. Guards do not say so; the parent does.
    Overdue,
    /// It was killed because it did not get through `MPI_Init`, in which another worker died. Guards do not say so;
    /// the parent does.
    Jammed,
    /// Its guard ended without a word, and the worker with it.
    GuardGone,
    /// Nothing was heard from its host for so long. The parent says so.
    Silent {
        after: Duration,
    },
    /// It initialized MPI without being a worker of ours, and was ended.
    NoWorker,
    /// It found that it cannot work for this host, and said why on stderr.
    Unfit,
    Exited {
        code: i32,
    },
    Signalled {
        signal: i32,
        core: bool,
    },
}

/// What a guard may be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToGuard {
    /// Start this worker. It travels here and not in the argument list of the guard, which other users can
    /// read and process managers cut.
    Start(Start),
    /// `MPI_Comm_spawn` has returned: whatever becomes of the worker now, nobody need stand in for it.
    Spawned,
    /// End the worker and all its descendants: ask them, and order it after this time.
    Kill { grace: Duration },
    /// Output of this cost has been taken.
    Taken { cost: u64 },
    /// I am here.
    Beat,
    /// Have the worker begin no other task.
    Recall,
}

/// A worker to be started: paths, arguments and variables as the operating system's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) executable: Vec<u8>,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) variables: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
    pub(crate) watch: Watch,
}

/// What its guard has to do for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Whether the parent wants to have what it writes.
    pub(crate) is_output_wanted: bool,
    /// How long the other side may be silent, where that is on another host.
    pub(crate) heartbeat_timeout: Option<Duration>,
    /// Where its doorbell is, on the parent's own host.
    pub(crate) bell: Option<BellPlace>,
}

/// Where a worker's doorbell is: a file that a process of the same host has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BellPlace {
    pub(crate) pid: u32,
    pub(crate) file: i32,
    /// Stands in the file, so that it is not taken for another.
    pub(crate) mark: u32,
    pub(crate) at: u32,
}

const FROM_GUARD: u8 = 129;
const TO_GUARD: u8 = 130;
const OUTPUT: u8 = 131;

/// The most bytes that a message to a guard may have: what `execve` takes.
pub(crate) const TO_GUARD_MAX: usize = 16 << 20;
/// The most bytes that a guard's message may have: some lines of text.
pub(crate) const FROM_GUARD_MAX: usize = 1 << 20;

impl FromGuard {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self::Output(output) = self else { return encode(FROM_GUARD, self) };
        let mut buffer = frame::begin(OUTPUT, 64 + output.bytes.len());
        let head = (output.stream, output.task, output.dropped);
        codec::encode_head(&head, &mut buffer).expect("our own messages encode");
        frame::end_head(&mut buffer, output.bytes.len());
        buffer.extend_from_slice(&output.bytes);
        buffer
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let frame = frame::open(bytes.clone())?;
        if frame.kind != OUTPUT {
            return decode(FROM_GUARD, bytes);
        }
        if frame.body.len() > LINE_MAX {
            return Err(WireError::Body { claimed: LINE_MAX as u64, body: frame.body.len() });
        }
        let (stream, task, dropped) =
            codec::decode_head(&frame.head).map_err(|error| WireError::Head { kind: OUTPUT, error })?;
        Ok(Self::Output(Output { stream, task, dropped, bytes: frame.body }))
    }
}

impl ToGuard {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(TO_GUARD, self)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        decode(TO_GUARD, bytes)
    }
}

fn encode<T: Serialize>(kind: u8, message: &T) -> Vec<u8> {
    let mut buffer = frame::begin(kind, 64);
    codec::encode_head(message, &mut buffer).expect("our own messages encode");
    frame::end_head(&mut buffer, 0);
    buffer
}

fn decode<T: serde::de::DeserializeOwned>(kind: u8, bytes: Bytes) -> Result<T, WireError> {
    let frame = frame::open(bytes)?;
    if frame.kind != kind {
        return Err(WireError::Kind { kind: frame.kind });
    }
    if !frame.body.is_empty() {
        return Err(WireError::Body { claimed: 0, body: frame.body.len() });
    }
    codec::decode_head(&frame.head).map_err(|error| WireError::Head { kind, error })
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    length_max: usize,
}

impl Splitter {
    /// Of frames that have so many bytes at most.
    pub(crate) fn new(length_max: usize) -> Self {
        Self { buffer: BytesMut::new(), length_max }
    }

    /// Takes in what was read.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that were taken in and are no whole frame yet.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a whole frame is there, or what cannot be one.
    pub(crate) fn has_frame(&self) -> bool {
        let Some(prefix) = self.buffer.get(4..PREFIX) else { return false };
        let (mut lengths, have) = (prefix, self.buffer.len() as u64);
        let (head, body) = (u64::from(lengths.get_u32_le()), lengths.get_u64_le());
        let length = (PREFIX as u64).saturating_add(head).saturating_add(body);
        length > self.length_max as u64 || length <= have
    }

    /// The next whole frame, if it is there. After an error nothing of the stream makes sense any more.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        if self.buffer.len() < PREFIX {
            return Ok(None);
        }
        let mut lengths = &self.buffer[4..PREFIX];
        let (head, body) = (u64::from(lengths.get_u32_le()), lengths.get_u64_le());
        let length = (PREFIX as u64).saturating_add(head).saturating_add(body);
        if length > self.length_max as u64 {
            // Not ours as a rule; the prefix tells better what it is.
            return Err(match frame::open(self.buffer.clone().freeze()) {
                Ok(_) | Err(WireError::Length { .. }) => {
                    WireError::Oversize { length: usize::try_from(length).unwrap_or(usize::MAX) }
                }
                Err(other) => other,
            });
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok((self.buffer.len() >= length).then(|| self.buffer.split_to(length).freeze()))
    }
}
