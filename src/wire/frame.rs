//! Frames: the unit that travels, in one MPI message or several (`flow.rs`), made of a prefix, a head and a body.
//!
//! ```text
//! offset  size  what
//!      0     2  magic, 0x0FF5 little endian
//!      2     1  protocol version: this byte and the magic never move, so that any two versions
//!               can at least tell each other apart
//!      3     1  kind of message
//!      4     4  length of the head in bytes
//!      8     8  length of the body in bytes
//!     16     …  head: one message structure, encoded by the codec
//!      …     …  body: the raw payloads of the message, end to end; the head holds their lengths
//! ```
//!
//! A frame knows nothing of what messages mean (`message.rs`) nor of how it travels (`transport`).

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;

use super::codec::CodecError;
use super::payload::Part;

/// The version of everything in `wire`. Any change to a frame or a message raises it.
pub(crate) const PROTOCOL_VERSION: u8 = 6;
/// The most bytes that one frame may have: what no machine has. How it travels is not its business.
pub(crate) const FRAME_MAX: usize = 1 << 46;
/// Length of the prefix.
pub(crate) const PREFIX: usize = 16;

const MAGIC: u16 = 0x0FF5;

/// Why bytes from the other side are not a message. Any of these makes the sender *lost*.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    #[error("a frame of {length} bytes is too short to be one")]
    Short { length: usize },
    #[error("the message does not start with offshoot's mark: is the other side an offshoot worker?")]
    Magic,
    #[error(
        "the other side speaks protocol version {theirs}, this one {PROTOCOL_VERSION}: build both with the same offshoot"
    )]
    Version { theirs: u8 },
    #[error("the other side encodes with `{theirs}`, this one with `{}`", super::codec::CODEC_ID)]
    Codec { theirs: String },
    #[error("a frame claims a head of {head} and a body of {body} bytes, but {length} bytes came")]
    Length { head: usize, body: u64, length: usize },
    #[error("a frame of {length} bytes is longer than one may be here")]
    Oversize { length: usize },
    #[error("message kind {kind} is not one of this protocol")]
    Kind { kind: u8 },
    #[error("payload lengths of a message add up to {claimed} bytes, its body has {body}")]
    Body { claimed: u64, body: usize },
    #[error("an array of {length} bytes that is lent at byte {at} is not a part of one message")]
    Lent { at: u64, length: usize },
    #[error("the columns of a message are not whole")]
    Columns,
    #[error("a message of kind {kind} {error}")]
    Head { kind: u8, error: CodecError },
    #[error("the {came} bytes that came of a frame of {length} bytes are more than it has")]
    Portion { came: usize, length: usize },
    #[error("bytes were confirmed that were not sent")]
    Credit,
    #[error("message `{name}` does not belong here")]
    Unexpected { name: &'static str },
}

/// A received frame, its prefix checked, its parts still raw.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

/// Checks the prefix of a received frame and takes it apart, without a copy.
pub(crate) fn open(bytes: Bytes) -> Result<Frame, WireError> {
    let length = bytes.len();
    let prefix: &[u8; PREFIX] = bytes.first_chunk().ok_or(WireError::Short { length })?;
    if u16::from_le_bytes([prefix[0], prefix[1]]) != MAGIC {
        return Err(WireError::Magic);
    }
    if prefix[2] != PROTOCOL_VERSION {
        return Err(WireError::Version { theirs: prefix[2] });
    }
    let kind = prefix[3];
    let (head, body) = lengths(prefix);
    if body > FRAME_MAX as u64 || PREFIX + head + body as usize != length {
        return Err(WireError::Length { head, body, length });
    }
    Ok(Frame { kind, head: bytes.slice(PREFIX..PREFIX + head), body: bytes.slice(PREFIX + head..) })
}

/// The length of the frame that begins so, as far as that can be told, and if a frame may have it.
pub(crate) fn length(beginning: &[u8]) -> Option<usize> {
    let prefix: &[u8; PREFIX] = beginning.first_chunk()?;
    if u16::from_le_bytes([prefix[0], prefix[1]]) != MAGIC || prefix[2] != PROTOCOL_VERSION {
        return None;
    }
    let (head, body) = lengths(prefix);
    let length = (PREFIX as u64).checked_add(head as u64)?.checked_add(body)?;
    usize::try_from(length).ok().filter(|&length| length <= FRAME_MAX)
}

fn lengths(prefix: &[u8; PREFIX]) -> (usize, u64) {
    let head = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
    let body = u64::from_le_bytes([
        prefix[8], prefix[9], prefix[10], prefix[11], prefix[12], prefix[13], prefix[14], prefix[15],
    ]);
    (head, body)
}

/// A frame on its way out, in the pieces in which its bytes lie in memory: large payloads are never copied for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parcel {
    pieces: VecDeque<Bytes>,
    /// Whether something was taken from the first piece.
    is_begun: bool,
}

/// Payloads of so many bytes are pieces of their own; to copy smaller ones costs less than another message does.
pub(super) const APART: usize = 256 << 10;

impl From<Vec<u8>> for Parcel {
    fn from(frame: Vec<u8>) -> Self {
        Self { pieces: VecDeque::from([frame.into()]), is_begun: false }
    }
}

impl From<Bytes> for Parcel {
    fn from(frame: Bytes) -> Self {
        Self { pieces: VecDeque::from([frame]), is_begun: false }
    }
}

impl Parcel {
    /// How many bytes are left in it.
    pub(crate) fn length(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// The pieces that are left.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(Bytes::as_ref)
    }

    /// A frame that begins so, and whose payloads follow.
    pub(crate) fn new<'a>(beginning: Vec<u8>, payloads: impl Iterator<Item = Part<'a>>) -> Self {
        let (mut pieces, mut piece) = (VecDeque::new(), beginning);
        for payload in payloads {
            if payload.len() < APART {
                piece.extend_from_slice(payload.as_slice());
            } else {
                pieces.extend((!piece.is_empty()).then(|| Bytes::from(std::mem::take(&mut piece))));
                pieces.push_back(payload.to_bytes());
            }
        }
        pieces.extend((!piece.is_empty()).then(|| piece.into()));
        Self { pieces, is_begun: false }
    }

    /// How many bytes of these payloads its own memory has to have room for.
    pub(crate) fn room_for<'a>(payloads: impl Iterator<Item = Part<'a>>) -> usize {
        payloads.map(Part::len).filter(|length| *length < APART).sum()
    }

    /// The length of the next piece, at most `length_max`; none when nothing is left.
    pub(crate) fn next_length(&self, length_max: usize) -> Option<usize> {
        self.pieces.front().map(|piece| piece.len().min(length_max))
    }

    /// Takes the next piece, or so many bytes of it, without a copy. Also whether it shares its memory with others.
    pub(crate) fn take(&mut self, length_max: usize) -> Option<(Bytes, bool)> {
        let piece = self.pieces.front_mut()?;
        let is_cut = piece.len() > length_max;
        let is_shared = is_cut || self.is_begun;
        self.is_begun = is_cut;
        let taken = if is_cut { Some(piece.split_to(length_max)) } else { self.pieces.pop_front() };
        taken.map(|taken| (taken, is_shared))
    }

    /// Whether everything was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// All of it in one piece.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.pop_front().expect("it has one");
        }
        self.pieces.iter().flatten().copied().collect()
    }
}

/// Starts a frame in an empty buffer: the prefix, its lengths still open, and room for what follows.
pub(crate) fn begin(kind: u8, room: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(PREFIX + room);
    buffer.extend_from_slice(&MAGIC.to_le_bytes());
    buffer.extend_from_slice(&[PROTOCOL_VERSION, kind]);
    buffer.extend_from_slice(&[0; 12]);
    buffer
}

/// Ends the head: what the buffer has gained since [`begin`] is the head, what follows is the body.
pub(crate) fn end_head(buffer: &mut [u8], body: usize) {
    let head = u32::try_from(buffer.len() - PREFIX).expect("a head is made of bounded parts");
    buffer[4..8].copy_from_slice(&head.to_le_bytes());
    buffer[8..16].copy_from_slice(&(body as u64).to_le_bytes());
}
