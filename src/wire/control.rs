//! What a guard and its parent say to each other, over the control channel: a stream socket.
//!
//! ```text
//! guard ─Here──────────▶ parent     who I am: ticket and secret; nothing else is believed before it
//! guard ─Awaited───────▶ parent     the name that MPI_Comm_spawn waits for, where a parent can say it itself
//! guard ◀─Start───────── parent     start this
//! guard ─Started───────▶ parent     the worker is this process | it could not be started
//! guard ─Ready─────────▶ parent     the worker has passed MPI_Init
//! guard ◀─Spawned─────── parent     MPI_Comm_spawn has returned
//! guard ◀─Kill────────── parent     end the worker
//! guard ─Ended─────────▶ parent     how the worker ended, and its last words
//! ```
//!
//! The messages are frames as everywhere, one after the other; [`Splitter`] finds where each ends.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::codec;
use super::frame::{self, PREFIX, WireError};

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
    /// Should the worker die before it has answered, the parent is to publish something under this name.
    Awaited {
        name: String,
    },
    Started {
        pid: u32,
    },
    /// The worker has initialized MPI: from here on its death is a death, before it was a failed start.
    Ready,
    Ended(Ended),
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) how: How,
    /// Whether the guard initializes MPI in the worker's place, and then disconnects from the parent.
    pub(crate) stand_in: bool,
    /// Its last lines of stderr, oldest first.
    pub(crate) stderr: Vec<String>,
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
    /// Its guard ended without a word, and the worker with it.
    GuardGone,
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
    /// End the worker and all its descendants.
    Kill,
}

/// A worker to be started: paths, arguments and variables as the operating system's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) executable: Vec<u8>,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) variables: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
}

const FROM_GUARD: u8 = 129;
const TO_GUARD: u8 = 130;

/// The most bytes that a control message may have: some lines of text, or what `execve` takes.
pub(crate) const CONTROL_MAX: usize = 16 << 20;

impl FromGuard {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(FROM_GUARD, self)
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        decode(FROM_GUARD, bytes)
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
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: BytesMut,
}

impl Splitter {
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
        length > CONTROL_MAX as u64 || length <= have
    }

    /// The next whole frame, if it is there. After an error nothing of the stream makes sense any more.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        if self.buffer.len() < PREFIX {
            return Ok(None);
        }
        let mut lengths = &self.buffer[4..PREFIX];
        let (head, body) = (u64::from(lengths.get_u32_le()), lengths.get_u64_le());
        let length = (PREFIX as u64).saturating_add(head).saturating_add(body);
        if length > CONTROL_MAX as u64 {
            // Not ours as a rule; the prefix tells better what it is.
            frame::open(self.buffer.clone().freeze()).map_err(|error| match error {
                WireError::Length { .. } => {
                    WireError::Oversize { length: usize::try_from(length).unwrap_or(usize::MAX) }
                }
                other => other,
            })?;
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok((self.buffer.len() >= length).then(|| self.buffer.split_to(length).freeze()))
    }
}
