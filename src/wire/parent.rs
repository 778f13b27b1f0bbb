//! What a host and its isolated parent say to each other, over a socket of packets that only the two have.
//!
//! ```text
//! host ─Bells─────────▶ parent     with it, the memory with all doorbells
//! host ─Begin─────────▶ parent     what is wanted
//! host ◀─Here────────── parent     MPI is there, and what it is
//! host ◀─Refused─────── parent     or why it cannot be used
//! host ─Spawn─────────▶ parent     start this worker
//! host ◀─Spawned─────── parent     its process exists | SpawnFailed: it could not be started
//! host ◀─Frame─────────▶ parent    a frame to or from a worker
//! host ◀─Output──────── parent     lines that a worker wrote; Leaving, Silent: how far it has come
//! host ─Taken─────────▶ parent     they have been taken
//! host ◀─Lost────────── parent     the connection to a worker broke
//! host ─Recall────────▶ parent     have a worker begin nothing more
//! host ◀─Recalled────── parent     it does not, and what it has begun last
//! host ─Disconnect────▶ parent     close it, as the worker does | Abandon: forget a worker
//! host ─CancelSpawns──▶ parent     give up what was not begun
//! host ◀─Stuck───────── parent     an MPI call never returns: this parent ends
//! host ─Leave─────────▶ parent     the pool has ended: finalize, and end
//! ```
//!
//! Each message is a frame as everywhere. A packet is one message or several, whole ones always. A message that is too
//! long for that lies in a file in memory, which goes with a packet of its own: [`bulk`] says how long it is.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec;
use super::control::{Dropped, LINE_MAX, Output, Start, StreamName};
use super::frame::{self, WireError};
use crate::containment::Containment;
use crate::error::{BuildError, SpawnCause};
use crate::finding::Finding;
use crate::ids::{TaskId, WorkerId};
use crate::slots::{Slots, SlotsError, Source};

/// The most bytes that a packet may have.
pub(crate) const PACKET_MAX: usize = 128 << 10;
/// Longer messages travel in a file in memory, which costs some ten system calls, and no copy at the other side.
pub(crate) const INLINE_MAX: usize = 64 << 10;

/// What a parent may be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToParent {
    Bells,
    Begin(Wishes),
    Spawn {
        worker: WorkerId,
        start: Start,
    },
    Disconnect {
        worker: WorkerId,
    },
    Abandon {
        worker: WorkerId,
    },
    CancelSpawns,
    Recall {
        worker: WorkerId,
    },
    /// A piece of output has been written.
    Taken {
        piece: u64,
    },
    Leave,
    #[serde(skip)]
    Frame {
        worker: WorkerId,
        bytes: Bytes,
    },
}

/// What a pool wants of its parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wishes {
    pub(crate) spawn_timeout: Duration,
    pub(crate) kill_grace: Duration,
    pub(crate) heartbeat_timeout: Duration,
    pub(crate) is_output_wanted: bool,
    pub(crate) workers_max: u32,
    pub(crate) slots: Slots,
}

/// What a parent may say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromParent {
    Here(ParentFacts),
    Refused(Refusal),
    Spawned {
        worker: WorkerId,
    },
    SpawnFailed {
        worker: WorkerId,
        cause: SpawnCause,
        reason: String,
    },
    Lost {
        worker: WorkerId,
        reason: String,
    },
    Recalled {
        worker: WorkerId,
        begun: Option<TaskId>,
    },
    /// What the worker wrote until it left has been sent.
    Leaving {
        worker: WorkerId,
    },
    /// It writes no more.
    Silent {
        worker: WorkerId,
    },
    Stuck {
        reason: String,
    },
    #[serde(skip)]
    Frame {
        worker: WorkerId,
        bytes: Bytes,
    },
    #[serde(skip)]
    Output {
        worker: WorkerId,
        /// Its number, by which it is taken.
        piece: u64,
        host: String,
        output: Output,
    },
}

/// What the MPI of a parent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ParentFacts {
    pub(crate) pid: u32,
    /// The first line of what the library says of itself.
    pub(crate) version: String,
    pub(crate) thread_level: String,
    pub(crate) containment: Containment,
    pub(crate) manager: String,
}

/// Why a parent cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Preflight { check: String, found: String, remedy: Option<String> },
    OwnHostOnly { source: Source, reason: String },
    Mpi(String),
    Stuck(String),
    System(String),
}

impl From<BuildError> for Refusal {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Preflight(Finding { check, found, remedy, .. }) => {
                Self::Preflight { check: check.to_owned(), found, remedy }
            }
            BuildError::Slots(SlotsError::OwnHostOnly { source_of_slots: source, reason }) => {
                Self::OwnHostOnly { source, reason }
            }
            BuildError::Mpi(reason) => Self::Mpi(reason),
            BuildError::Stuck(reason) => Self::Stuck(reason),
            BuildError::System(reason) => Self::System(reason),
            other => Self::Mpi(other.to_string()),
        }
    }
}

impl From<Refusal> for BuildError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Preflight { check, found, remedy } => {
                let found = format!("{check}: {found}");
                let finding = Finding::failure("isolated parent", found, "");
                Self::Preflight(Finding { remedy, ..finding })
            }
            Refusal::OwnHostOnly { source, reason } => {
                Self::Slots(SlotsError::OwnHostOnly { source_of_slots: source, reason })
            }
            Refusal::Mpi(reason) => Self::Mpi(reason),
            Refusal::Stuck(reason) => Self::Stuck(reason),
            Refusal::System(reason) => Self::System(reason),
        }
    }
}

const TO_PARENT: u8 = 161;
const FROM_PARENT: u8 = 162;
const FRAME: u8 = 163;
const BULK: u8 = 164;
const OUTPUT: u8 = 165;

/// A message as it travels: a beginning, and a body that lies elsewhere in memory.
pub(crate) type Halves = (Vec<u8>, Bytes);

impl ToParent {
    pub(crate) fn encode(self) -> Halves {
        match self {
            Self::Frame { worker, bytes } => with_body(FRAME, &worker, bytes),
            Self::Bells
            | Self::Begin(_)
            | Self::Spawn { .. }
            | Self::Disconnect { .. }
            | Self::Abandon { .. }
            | Self::CancelSpawns
            | Self::Recall { .. }
            | Self::Taken { .. }
            | Self::Leave => with_body(TO_PARENT, &self, Bytes::new()),
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let frame = frame::open(bytes)?;
        match frame.kind {
            FRAME => Ok(Self::Frame { worker: head(FRAME, &frame.head)?, bytes: frame.body }),
            TO_PARENT => bodiless(TO_PARENT, &frame),
            kind => Err(WireError::Kind { kind }),
        }
    }
}

impl FromParent {
    pub(crate) fn encode(self) -> Halves {
        match self {
            Self::Frame { worker, bytes } => with_body(FRAME, &worker, bytes),
            Self::Output { worker, piece, host, output } => {
                let head = (worker, piece, host, output.stream, output.task, output.dropped);
                with_body(OUTPUT, &head, output.bytes)
            }
            Self::Here(_)
            | Self::Refused(_)
            | Self::Spawned { .. }
            | Self::SpawnFailed { .. }
            | Self::Lost { .. }
            | Self::Recalled { .. }
            | Self::Leaving { .. }
            | Self::Silent { .. }
            | Self::Stuck { .. } => with_body(FROM_PARENT, &self, Bytes::new()),
        }
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let frame = frame::open(bytes)?;
        match frame.kind {
            FRAME => Ok(Self::Frame { worker: head(FRAME, &frame.head)?, bytes: frame.body }),
            OUTPUT if frame.body.len() > LINE_MAX => {
                Err(WireError::Body { claimed: LINE_MAX as u64, body: frame.body.len() })
            }
            OUTPUT => {
                type Head = (WorkerId, u64, String, StreamName, Option<TaskId>, Dropped);
                let (worker, piece, host, stream, task, dropped): Head = head(OUTPUT, &frame.head)?;
                let output = Output { stream, task, dropped, bytes: frame.body };
                Ok(Self::Output { worker, piece, host, output })
            }
            FROM_PARENT => bodiless(FROM_PARENT, &frame),
            kind => Err(WireError::Kind { kind }),
        }
    }
}

fn with_body<T: Serialize>(kind: u8, head: &T, body: Bytes) -> Halves {
    let mut buffer = frame::begin(kind, 64);
    codec::encode_head(head, &mut buffer).expect("our own messages encode");
    frame::end_head(&mut buffer, body.len());
    (buffer, body)
}

fn head<T: serde::de::DeserializeOwned>(kind: u8, head: &[u8]) -> Result<T, WireError> {
    codec::decode_head(head).map_err(|error| WireError::Head { kind, error })
}

fn bodiless<T: serde::de::DeserializeOwned>(kind: u8, frame: &frame::Frame) -> Result<T, WireError> {
    if !frame.body.is_empty() {
        return Err(WireError::Body { claimed: 0, body: frame.body.len() });
    }
    head(kind, &frame.head)
}

/// The beginning of a message that hands on a frame of this length.
pub(crate) fn frame_head(worker: WorkerId, length: usize) -> Vec<u8> {
    let mut buffer = frame::begin(FRAME, 8);
    codec::encode_head(&worker, &mut buffer).expect("our own messages encode");
    frame::end_head(&mut buffer, length);
    buffer
}

/// Says how long the message is that lies in the file that comes with this.
pub(crate) fn bulk(length: u64) -> Vec<u8> {
    with_body(BULK, &length, Bytes::new()).0
}

/// A part of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Message(Bytes),
    /// A message of this length, in the file that came with the packet.
    InFile {
        length: u64,
    },
}

/// Takes the next message off a packet. A part of one is an error: messages are never cut.
pub(crate) fn next_in(packet: &mut Bytes) -> Result<Option<Part>, WireError> {
    if packet.is_empty() {
        return Ok(None);
    }
    let whole = packet.len();
    let message = match frame::length(packet) {
        Some(length) if length <= whole => packet.split_to(length),
        // It says best itself what is wrong with it.
        _ => {
            return Err(frame::open(packet.split_off(0)).err().unwrap_or(WireError::Short { length: whole }));
        }
    };
    let frame = frame::open(message.clone())?;
    Ok(Some(match frame.kind {
        BULK => Part::InFile { length: bodiless(BULK, &frame)? },
        _ => Part::Message(message),
    }))
}
