//! Messages: what host and worker say to each other. Each travels as one frame.
//!
//! ```text
//! worker ─Hello──────────────▶ host     who I am, which tasks I know
//! worker ◀─Welcome──────────── host     your id, and the initializer to run
//! worker ─Ready | Unfit──────▶ host     the initializer succeeded | failed
//! worker ◀─Tasks, Recant…───── host     append to your window | these are no longer wanted
//! worker ◀─Resume──────────── host     what was sent before and has not begun is not yours any more
//! worker ◀─Fetched──────────── host     what you lent with the first answers that lent anything is not needed any more
//! worker ─Answers────────────▶ host     in window order, many at once
//! worker ◀─Retire───────────── host     leave
//! worker ─Bye────────────────▶ host     now both disconnect
//! ```
//!
//! Where one side can read the other's memory, the other *lends* large arrays: it tells where they lie, and does not send
//! them. Each shows with its first message how that is tried out ([`Probe`]), and is told whether it worked. Arguments are there
//! until their task has its answer, results until they were fetched.
//!
//! Task names are interned at the hello: the worker numbers the tasks that it knows, and every later
//! message names a task by that number.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use super::array::Remote;
use super::frame::{self, FRAME_MAX, Frame, PREFIX, Parcel, WireError};
use super::payload::{Part, Payload, Piece};
use super::{codec, columns};
use crate::ids::{TaskId, WorkerId};
use crate::process::Probe;

/// The number that a worker gave to a task that it knows: its index in [`Hello::known`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireKind(pub(crate) u32);

impl WireKind {
    /// A task that the worker does not know. It is sent all the same, and answered in its turn with
    /// [`Failure::Unknown`]: the window stays in order, without a special case.
    pub(crate) const UNKNOWN: Self = Self(u32::MAX);
}

/// A task that a worker can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTask {
    pub(crate) name: String,
    pub(crate) signature: String,
}

/// First message of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) codec: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) probe: Option<Probe>,
    pub(crate) known: Vec<KnownTask>,
}

/// First message to a worker. `initializer`, if any, is run before the worker is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) worker: WorkerId,
    pub(crate) probe: Option<Probe>,
    /// Whether the worker may lend.
    pub(crate) lend: bool,
    pub(crate) initializer: Option<(WireKind, Bytes)>,
}

/// One task on its way to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskMessage {
    pub(crate) task: TaskId,
    pub(crate) kind: WireKind,
    pub(crate) attempt: u32,
    pub(crate) arguments: Payload,
}

/// The answer to one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswerMessage {
    pub(crate) task: TaskId,
    /// How long the task ran.
    pub(crate) ran: Duration,
    pub(crate) outcome: Outcome,
}

/// How a task went, as its worker saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It returned; these are the bytes of its result.
    Done(Payload),
    /// It did not return a result.
    Failed(Failure),
    /// It was recanted before it began.
    Skipped,
}

/// Why a task has no result although its worker is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// It returned an error: the error and its causes, outermost first.
    Returned { causes: Vec<String> },
    /// It panicked; `location` is `file:line:column` where it is known.
    Panicked { message: String, location: Option<String> },
    /// Its arguments could not be decoded.
    Arguments { reason: String },
    /// Its result could not be encoded.
    Result { reason: String },
    /// The worker has no task of this number.
    Unknown,
}

/// What a worker may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToWorker {
    Welcome(Welcome),
    Tasks(Vec<TaskMessage>),
    Recant(Vec<TaskId>),
    Resume,
    Fetched,
    Retire,
}

/// What a worker may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromWorker {
    Hello(Hello),
    /// `lend`: whether the host may lend.
    Ready {
        lend: bool,
    },
    Unfit(Failure),
    Answers(Vec<AnswerMessage>),
    Bye,
}

// Kinds of messages, the fourth byte of a frame. Numbers are never reused.
const WELCOME: u8 = 1;
const TASKS: u8 = 2;
const RECANT: u8 = 3;
const RETIRE: u8 = 4;
const RESUME: u8 = 5;
const TASKS_LENT: u8 = 6;
const FETCHED: u8 = 7;
const HELLO: u8 = 65;
const READY: u8 = 66;
const UNFIT: u8 = 67;
const ANSWERS: u8 = 68;
const BYE: u8 = 69;
const ANSWERS_LENT: u8 = 70;

// Heads: the encoded part of each message; payload lengths stand in them, payloads in the body.

#[derive(Serialize, Deserialize)]
struct WelcomeHead {
    worker: WorkerId,
    probe: Option<Probe>,
    lend: bool,
    initializer: Option<(WireKind, u64)>,
}

/// An array that is missing from the body of a message that lends, and at which of its bytes it belongs.
#[derive(Serialize, Deserialize)]
struct Lent {
    at: u64,
    array: Remote,
}

/// The most bytes that [`TaskMessage`] or an answer without its payload adds to a frame, for callers
/// that fill frames up to a limit.
pub(crate) const ITEM_OVERHEAD: usize = 40;

/// The most bytes that arguments or a result may have: a frame, less what stands around a single one.
pub(crate) const PAYLOAD_MAX: usize = FRAME_MAX - 1024 - ITEM_OVERHEAD;

impl ToWorker {
    /// The frame of this message.
    pub(crate) fn encode(&self) -> Parcel {
        match self {
            Self::Welcome(Welcome { worker, probe, lend, initializer }) => {
                let arguments = initializer.as_ref().map(|(_, arguments)| Part::Bytes(arguments));
                let head = WelcomeHead {
                    worker: *worker,
                    probe: *probe,
                    lend: *lend,
                    initializer: initializer
                        .as_ref()
                        .map(|(kind, arguments)| (*kind, arguments.len() as u64)),
                };
                build(WELCOME, &head, arguments)
            }
            Self::Tasks(tasks) => encode_tasks(tasks, false),
            Self::Recant(tasks) => build(RECANT, tasks, None),
            Self::Resume => build(RESUME, &(), None),
            Self::Fetched => build(FETCHED, &(), None),
            Self::Retire => build(RETIRE, &(), None),
        }
    }

    /// The message in a frame.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let frame = frame::open(bytes)?;
        let mut body = Body::of(&frame);
        let message = match frame.kind {
            WELCOME => {
                let WelcomeHead { worker, probe, lend, initializer } = head(&frame)?;
                let initializer = match initializer {
                    Some((kind, length)) => Some((kind, body.take_bytes(length)?)),
                    None => None,
                };
                Self::Welcome(Welcome { worker, probe, lend, initializer })
            }
            TASKS | TASKS_LENT => {
                let columns = body.columns(&frame, TASKS_LENT)?;
                Self::Tasks(columns::to_tasks(&columns, |length| body.take(length))?)
            }
            RECANT => Self::Recant(head(&frame)?),
            RESUME => {
                let () = head(&frame)?;
                Self::Resume
            }
            FETCHED => {
                let () = head(&frame)?;
                Self::Fetched
            }
            RETIRE => {
                let () = head(&frame)?;
                Self::Retire
            }
            kind => return Err(WireError::Kind { kind }),
        };
        body.finish()?;
        Ok(message)
    }

    /// The name of the message, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "Welcome",
            Self::Tasks(_) => "Tasks",
            Self::Recant(_) => "Recant",
            Self::Resume => "Resume",
            Self::Fetched => "Fetched",
            Self::Retire => "Retire",
        }
    }
}

impl FromWorker {
    /// The frame of this message.
    pub(crate) fn encode(&self) -> Parcel {
        match self {
            Self::Hello(hello) => build(HELLO, hello, None),
            Self::Ready { lend } => build(READY, lend, None),
            Self::Unfit(failure) => build(UNFIT, failure, None),
            Self::Answers(answers) => encode_answers(answers, false),
            Self::Bye => build(BYE, &(), None),
        }
    }

    /// The message in a frame. A hello with another codec is refused here, before anything else is
    /// read with the wrong one.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let frame = frame::open(bytes)?;
        let mut body = Body::of(&frame);
        let message = match frame.kind {
            HELLO => {
                let hello: Hello = head(&frame)?;
                if hello.codec != codec::CODEC_ID {
                    return Err(WireError::Codec { theirs: hello.codec });
                }
                Self::Hello(hello)
            }
            READY => Self::Ready { lend: head(&frame)? },
            UNFIT => Self::Unfit(head(&frame)?),
            ANSWERS | ANSWERS_LENT => {
                let columns = body.columns(&frame, ANSWERS_LENT)?;
                Self::Answers(columns::to_answers(&columns, |length| body.take(length))?)
            }
            BYE => {
                let () = head(&frame)?;
                Self::Bye
            }
            kind => return Err(WireError::Kind { kind }),
        };
        body.finish()?;
        Ok(message)
    }

    /// The name of the message, for errors.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Ready { .. } => "Ready",
            Self::Unfit(_) => "Unfit",
            Self::Answers(_) => "Answers",
            Self::Bye => "Bye",
        }
    }
}

/// The frame of a [`ToWorker::Tasks`], whose arrays are sent or lent.
pub(crate) fn encode_tasks(tasks: &[TaskMessage], lend: bool) -> Parcel {
    let payloads = tasks.iter().map(|message| &message.arguments);
    build_many([TASKS, TASKS_LENT], columns::of_tasks(tasks), payloads, lend)
}

/// The frame of a [`FromWorker::Answers`], whose arrays are sent or lent.
pub(crate) fn encode_answers(answers: &[AnswerMessage], lend: bool) -> Parcel {
    let payloads = answers.iter().filter_map(AnswerMessage::payload);
    build_many([ANSWERS, ANSWERS_LENT], columns::of_answers(answers), payloads, lend)
}

/// Builds a frame of the first of these kinds, or of the second if something is lent. What was lent to this process is
/// passed on as it is.
fn build_many<'a>(
    [sent, lent]: [u8; 2],
    heads: Vec<u8>,
    payloads: impl Iterator<Item = &'a Payload> + Clone,
    lend: bool,
) -> Parcel {
    let (heads, parts) = (ByteBuf::from(heads), payloads.flat_map(Payload::parts));
    let (mut arrays, mut at) = (Vec::new(), 0);
    for part in parts.clone() {
        arrays.extend(part.lent(lend).map(|array| Lent { at, array }));
        at = at.saturating_add(part.len() as u64);
    }
    if arrays.is_empty() {
        return build(sent, &heads, parts);
    }
    build(lent, &(arrays, heads), parts.filter(|part| part.lent(lend).is_none()))
}

impl AnswerMessage {
    /// The bytes of its result, if it has one.
    pub(crate) fn payload(&self) -> Option<&Payload> {
        match &self.outcome {
            Outcome::Done(payload) => Some(payload),
            Outcome::Failed(_) | Outcome::Skipped => None,
        }
    }
}

/// Builds a frame from a head and the payloads of its body.
fn build<'a, H, P>(kind: u8, head: &H, payloads: P) -> Parcel
where
    H: Serialize,
    P: IntoIterator<Item = Part<'a>>,
    P::IntoIter: Clone,
{
    let payloads = payloads.into_iter();
    let body: usize = payloads.clone().map(Part::len).sum();
    let room = Parcel::room_for(payloads.clone());
    let mut buffer = frame::begin(kind, 64 + room);
    codec::encode_head(head, &mut buffer).expect("our own message heads encode");
    frame::end_head(&mut buffer, body);
    debug_assert!(buffer.len() >= PREFIX);
    Parcel::new(buffer, payloads)
}

fn head<T: DeserializeOwned>(frame: &Frame) -> Result<T, WireError> {
    codec::decode_head(&frame.head).map_err(|error| WireError::Head { kind: frame.kind, error })
}

/// Deals out the payloads of a frame, and insists that all of the body is dealt.
struct Body {
    rest: Bytes,
    length: usize,
    claimed: u64,
    /// Arrays that are missing from it, in its order.
    lent: VecDeque<Lent>,
}

impl Body {
    fn of(frame: &Frame) -> Self {
        Self { rest: frame.body.clone(), length: frame.body.len(), claimed: 0, lent: VecDeque::new() }
    }

    /// The heads of many messages. In a frame of this kind arrays are missing, and the head tells which.
    fn columns(&mut self, frame: &Frame, lent: u8) -> Result<ByteBuf, WireError> {
        if frame.kind != lent {
            return head(frame);
        }
        let columns;
        (self.lent, columns) = head(frame)?;
        Ok(columns)
    }

    /// The next payload, which has so many bytes.
    fn take(&mut self, length: u64) -> Result<Payload, WireError> {
        if self.lent.is_empty() {
            return self.take_bytes(length).map(Payload::from);
        }
        let end = self.claimed.saturating_add(length);
        let mut pieces = Vec::new();
        while self.lent.front().is_some_and(|lent| lent.at < end) {
            let Some(Lent { at, array }) = self.lent.pop_front() else { break };
            let before = at.checked_sub(self.claimed);
            let after = end.checked_sub(at).filter(|after| array.length() as u64 <= *after);
            let (Some(before), Some(_)) = (before, after) else {
                return Err(WireError::Lent { at, length: array.length() });
            };
            pieces.push(Piece::Bytes(self.take_bytes(before)?));
            pieces.push(Piece::Remote(array));
            self.claimed += array.length() as u64;
        }
        let rest = self.take_bytes(end - self.claimed)?;
        pieces.extend((!rest.is_empty()).then_some(Piece::Bytes(rest)));
        Ok(Payload::of(pieces))
    }

    fn take_bytes(&mut self, length: u64) -> Result<Bytes, WireError> {
        self.claimed = self.claimed.saturating_add(length);
        if length > self.rest.len() as u64 {
            return Err(WireError::Body { claimed: self.claimed, body: self.length });
        }
        Ok(self.rest.split_to(length as usize))
    }

    fn finish(self) -> Result<(), WireError> {
        match self.lent.front() {
            Some(Lent { at, array }) => Err(WireError::Lent { at: *at, length: array.length() }),
            None if self.rest.is_empty() => Ok(()),
            None => Err(WireError::Body { claimed: self.claimed, body: self.length }),
        }
    }
}
