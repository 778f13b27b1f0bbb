//! Messages: what host and worker say to each other. Each travels as one frame.
//!
//! ```text
//! worker ─Hello──────────────▶ host     who I am, which tasks I know
//! worker ◀─Welcome──────────── host     your id, and the initializer to run
//! worker ─Ready | Unfit──────▶ host     the initializer succeeded | failed
//! worker ◀─Tasks, Recant…───── host     append to your window | these are no longer wanted
//! worker ◀─Resume──────────── host     what was sent before and has not begun is not yours any more
//! worker ─Answers────────────▶ host     in window order, many at once
//! worker ◀─Retire───────────── host     leave
//! worker ─Bye────────────────▶ host     now both disconnect
//! ```
//!
//! Task names are interned at the hello: the worker numbers the tasks that it knows, and every later
//! message names a task by that number.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

use super::codec;
use super::frame::{self, FRAME_MAX, Frame, PREFIX, Parcel, WireError};
use super::payload::Payload;
use crate::ids::{TaskId, WorkerId};

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
    pub(crate) known: Vec<KnownTask>,
}

/// First message to a worker. `initializer`, if any, is run before the worker is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) worker: WorkerId,
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
    Retire,
}

/// What a worker may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FromWorker {
    Hello(Hello),
    Ready,
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
const HELLO: u8 = 65;
const READY: u8 = 66;
const UNFIT: u8 = 67;
const ANSWERS: u8 = 68;
const BYE: u8 = 69;

// Heads: the encoded part of each message; payload lengths stand in them, payloads in the body.

#[derive(Serialize, Deserialize)]
struct WelcomeHead {
    worker: WorkerId,
    initializer: Option<(WireKind, u64)>,
}

#[derive(Serialize, Deserialize)]
struct TaskHead {
    task: TaskId,
    kind: WireKind,
    attempt: u32,
    length: u64,
}

#[derive(Serialize, Deserialize)]
struct AnswerHead {
    task: TaskId,
    ran_nanos: u64,
    outcome: OutcomeHead,
}

#[derive(Serialize, Deserialize)]
enum OutcomeHead {
    Done { length: u64 },
    Failed(Failure),
    Skipped,
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
            Self::Welcome(Welcome { worker, initializer }) => {
                let arguments = initializer.as_ref().map(|(_, arguments)| arguments);
                let head = WelcomeHead {
                    worker: *worker,
                    initializer: initializer
                        .as_ref()
                        .map(|(kind, arguments)| (*kind, arguments.len() as u64)),
                };
                build(WELCOME, &head, arguments)
            }
            Self::Tasks(tasks) => encode_tasks(tasks),
            Self::Recant(tasks) => build(RECANT, tasks, None),
            Self::Resume => build(RESUME, &(), None),
            Self::Retire => build(RETIRE, &(), None),
        }
    }

    /// The message in a frame.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let frame = frame::open(bytes)?;
        let mut body = Body::of(&frame);
        let message = match frame.kind {
            WELCOME => {
                let head: WelcomeHead = head(&frame)?;
                let initializer = match head.initializer {
                    Some((kind, length)) => Some((kind, body.take(length)?)),
                    None => None,
                };
                Self::Welcome(Welcome { worker: head.worker, initializer })
            }
            TASKS => {
                let heads: Vec<TaskHead> = head(&frame)?;
                let task = |head: TaskHead| {
                    let arguments = body.take(head.length)?.into();
                    Ok(TaskMessage { task: head.task, kind: head.kind, attempt: head.attempt, arguments })
                };
                Self::Tasks(heads.into_iter().map(task).collect::<Result<_, _>>()?)
            }
            RECANT => Self::Recant(head(&frame)?),
            RESUME => {
                let () = head(&frame)?;
                Self::Resume
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
            Self::Retire => "Retire",
        }
    }
}

impl FromWorker {
    /// The frame of this message.
    pub(crate) fn encode(&self) -> Parcel {
        match self {
            Self::Hello(hello) => build(HELLO, hello, None),
            Self::Ready => build(READY, &(), None),
            Self::Unfit(failure) => build(UNFIT, failure, None),
            Self::Answers(answers) => encode_answers(answers),
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
            READY => {
                let () = head(&frame)?;
                Self::Ready
            }
            UNFIT => Self::Unfit(head(&frame)?),
            ANSWERS => {
                let heads: Vec<AnswerHead> = head(&frame)?;
                let answer = |head: AnswerHead| {
                    let outcome = match head.outcome {
                        OutcomeHead::Done { length } => Outcome::Done(body.take(length)?.into()),
                        OutcomeHead::Failed(failure) => Outcome::Failed(failure),
                        OutcomeHead::Skipped => Outcome::Skipped,
                    };
                    Ok(AnswerMessage { task: head.task, ran: Duration::from_nanos(head.ran_nanos), outcome })
                };
                Self::Answers(heads.into_iter().map(answer).collect::<Result<_, _>>()?)
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
            Self::Ready => "Ready",
            Self::Unfit(_) => "Unfit",
            Self::Answers(_) => "Answers",
            Self::Bye => "Bye",
        }
    }
}

/// The frame of a [`ToWorker::Tasks`].
pub(crate) fn encode_tasks(tasks: &[TaskMessage]) -> Parcel {
    build(TASKS, &Heads(tasks, task_head), tasks.iter().flat_map(|message| message.arguments.pieces()))
}

/// The frame of a [`FromWorker::Answers`].
pub(crate) fn encode_answers(answers: &[AnswerMessage]) -> Parcel {
    build(
        ANSWERS,
        &Heads(answers, answer_head),
        answers.iter().filter_map(answer_payload).flat_map(Payload::pieces),
    )
}

/// The heads of many messages, made one by one as they are encoded.
struct Heads<'a, M, H>(&'a [M], fn(&M) -> H);

impl<M, H: Serialize> Serialize for Heads<'_, M, H> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

fn task_head(message: &TaskMessage) -> TaskHead {
    let TaskMessage { task, kind, attempt, arguments } = message;
    TaskHead { task: *task, kind: *kind, attempt: *attempt, length: arguments.len() as u64 }
}

fn answer_head(answer: &AnswerMessage) -> AnswerHead {
    let outcome = match &answer.outcome {
        Outcome::Done(bytes) => OutcomeHead::Done { length: bytes.len() as u64 },
        Outcome::Failed(failure) => OutcomeHead::Failed(failure.clone()),
        Outcome::Skipped => OutcomeHead::Skipped,
    };
    let ran_nanos = u64::try_from(answer.ran.as_nanos()).unwrap_or(u64::MAX);
    AnswerHead { task: answer.task, ran_nanos, outcome }
}

fn answer_payload(answer: &AnswerMessage) -> Option<&Payload> {
    match &answer.outcome {
        Outcome::Done(bytes) => Some(bytes),
        Outcome::Failed(_) | Outcome::Skipped => None,
    }
}

/// Builds a frame from a head and the payloads of its body.
fn build<'a, H, P>(kind: u8, head: &H, payloads: P) -> Parcel
where
    H: Serialize,
    P: IntoIterator<Item = &'a Bytes>,
    P::IntoIter: Clone,
{
    let payloads = payloads.into_iter();
    let body: usize = payloads.clone().map(Bytes::len).sum();
    let room = Parcel::room_for(payloads.clone());
    let mut buffer = frame::begin(kind, 64 + room + ITEM_OVERHEAD * payloads.clone().count());
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
}

impl Body {
    fn of(frame: &Frame) -> Self {
        Self { rest: frame.body.clone(), length: frame.body.len(), claimed: 0 }
    }

    fn take(&mut self, length: u64) -> Result<Bytes, WireError> {
        self.claimed = self.claimed.saturating_add(length);
        if length > self.rest.len() as u64 {
            return Err(WireError::Body { claimed: self.claimed, body: self.length });
        }
        Ok(self.rest.split_to(length as usize))
    }

    fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Body { claimed: self.claimed, body: self.length })
        }
    }
}
