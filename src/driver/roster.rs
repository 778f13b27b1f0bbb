//! The roster: what the host knows of each worker. Its program and machine, the tasks it knows and by
//! which numbers, what is still to be sent to it. The worker's half of each phase is in `worker/run.rs`.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::error::{Place, SpawnCause, SpawnFailure};
use crate::ids::{KindId, ProgramId, TaskId, WorkerId};
use crate::launch::{Initializer, Program};
use crate::process;
use crate::task::Definition;
use crate::wire::frame::Parcel;
use crate::wire::message::{
    AnswerMessage, Failure, FromWorker, Hello, ITEM_OVERHEAD, KnownTask, TaskMessage, ToWorker, Welcome,
    WireKind, encode_tasks,
};
use crate::wire::payload::Payload;

/// A frame of tasks is closed when it has this many bytes. A larger task travels alone.
const FRAME_TARGET: usize = 256 << 10;

/// Bytes of a machine's name that are kept. No system allows more.
const HOST_NAME_MAX: usize = 255;

/// All workers of a pool that have not been forgotten.
#[derive(Default)]
pub(super) struct Roster {
    members: FxHashMap<WorkerId, Member>,
    /// Members with something to be flushed.
    unsent: Vec<WorkerId>,
    leaving: usize,
    /// Tasks sent so far whose arguments were lent.
    lent: u64,
}

struct Member {
    program: ProgramId,
    phase: Phase,
    initializer: Option<Initializer>,
    executable: String,
    host: &'static str,
    known: Vec<KnownTask>,
    /// The worker's number for each of our kinds, once it was looked up.
    kinds: Vec<Option<WireKind>>,
    /// Whether it can read the memory of this process.
    lend: bool,
    unsent: Unsent,
}

/// Where a worker is in the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its hello is expected.
    Greeting,
    /// It was welcomed; `Ready` or `Unfit` is expected.
    Preparing,
    /// It takes tasks.
    Serving,
    /// It was asked to leave; `Bye` is expected.
    Leaving,
    /// It is lost, and the core has been told. Nothing that it says counts.
    Lost,
    /// It is to leave without ever having been ready; the core has been told of its end already.
    Refused,
}

#[derive(Default)]
struct Unsent {
    /// Before all the others.
    resume: bool,
    tasks: Vec<TaskMessage>,
    recanted: Vec<TaskId>,
    retire: bool,
    listed: bool,
}

/// Whose loss a loss is.
pub(super) enum Loss {
    /// That of a worker that was not ready yet: a failed start.
    Start,
    /// Of one that was to leave without having been ready.
    Refused,
    Serving,
    /// Of one that had been given up.
    Nobody,
}

/// What follows from a worker's message.
pub(super) enum Said {
    /// Its hello is accepted: send this.
    Welcome(Parcel),
    Ready,
    /// It cannot be used: send this, so that it leaves.
    Unfit {
        failure: SpawnFailure,
        retire: Parcel,
    },
    Answers(Vec<AnswerMessage>),
    /// It is about to disconnect. `known_gone`: the core does not count it any more.
    Bye {
        known_gone: bool,
    },
    /// The message does not belong here.
    Nonsense(String),
    /// It came from a worker that has been given up.
    Nothing,
}

impl Roster {
    /// A worker is being spawned.
    pub(super) fn expect(&mut self, worker: WorkerId, program: ProgramId, description: &Program) {
        let member = Member {
            program,
            phase: Phase::Greeting,
            initializer: description.start_initializer().cloned(),
            executable: description.path().display().to_string(),
            host: "unknown",
            known: Vec::new(),
            kinds: Vec::new(),
            lend: false,
            unsent: Unsent::default(),
        };
        self.members.insert(worker, member);
    }

    /// Whether a worker is ready, and neither lost nor leaving.
    pub(super) fn is_serving(&self, worker: WorkerId) -> bool {
        self.members.get(&worker).is_some_and(|member| member.phase == Phase::Serving)
    }

    /// A worker is lost. Says what it was until now.
    pub(super) fn lose(&mut self, worker: WorkerId) -> Loss {
        let Some(member) = self.members.get_mut(&worker) else { return Loss::Nobody };
        match member.phase {
            Phase::Greeting | Phase::Preparing => Loss::Start,
            Phase::Serving | Phase::Leaving => {
                member.phase = Phase::Lost;
                Loss::Serving
            }
            Phase::Refused => {
                self.forget(worker);
                Loss::Refused
            }
            Phase::Lost => Loss::Nobody,
        }
    }

    /// How many tasks were sent so far whose arguments were lent.
    pub(super) fn lent(&self) -> u64 {
        self.lent
    }

    /// Whether a worker still has to say goodbye that the core has done with.
    pub(super) fn is_anybody_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// The start of a worker failed. Its program, if it was starting; one that is on its way out by
    /// itself is kept until it has said goodbye.
    pub(super) fn end_start(&mut self, worker: WorkerId) -> Option<ProgramId> {
        let member = self.members.get(&worker)?;
        let program = member.program;
        match member.phase {
            Phase::Greeting | Phase::Preparing => {
                self.members.remove(&worker);
                Some(program)
            }
            Phase::Refused => Some(program),
            Phase::Serving | Phase::Leaving | Phase::Lost => None,
        }
    }

    /// Forgets a worker.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.remove(&worker) {
            self.leaving -= usize::from(member.phase == Phase::Refused);
        }
    }

    /// Takes in what a worker says.
    pub(super) fn hear(&mut self, worker: WorkerId, message: FromWorker) -> Said {
        let Some(member) = self.members.get_mut(&worker) else { return Said::Nothing };
        match (member.phase, message) {
            (Phase::Greeting, FromWorker::Hello(hello)) => {
                let said = member.greet(worker, hello);
                self.leaving += usize::from(member.phase == Phase::Refused);
                said
            }
            (Phase::Preparing, FromWorker::Ready { lend }) => {
                member.lend = lend;
                member.phase = Phase::Serving;
                Said::Ready
            }
            (Phase::Preparing, FromWorker::Unfit(failure)) => {
                let reason = format!("the initializer on {worker} at {} {}", member.host, describe(&failure));
                self.leaving += 1;
                member.refuse(SpawnCause::Initializer, reason)
            }
            (Phase::Serving, FromWorker::Answers(answers)) => Said::Answers(answers),
            (Phase::Lost, _) => Said::Nothing,
            (Phase::Leaving | Phase::Refused, FromWorker::Bye) => {
                let known_gone = member.phase == Phase::Refused;
                self.forget(worker);
                Said::Bye { known_gone }
            }
            (Phase::Refused, FromWorker::Ready { .. } | FromWorker::Unfit(_)) => Said::Nothing,
            (phase, message) => {
                Said::Nonsense(format!("it sent `{}` while it was {phase:?}", message.name()))
            }
        }
    }

    /// Puts a task at the end of a worker's window. Returns where it will run.
    pub(super) fn append(
        &mut self,
        worker: WorkerId,
        task: TaskId,
        attempt: u32,
        kind: KindId,
        definition: &'static Definition,
        arguments: Payload,
    ) -> Option<Place> {
        let member = self.members.get_mut(&worker)?;
        let kind = member.number(kind, definition);
        self.lent += u64::from(member.lend && arguments.is_in_pieces());
        member.unsent.tasks.push(TaskMessage { task, kind, attempt, arguments });
        let place = Place { worker, host: member.host };
        self.list(worker);
        Some(place)
    }

    pub(super) fn recant(&mut self, worker: WorkerId, task: TaskId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.unsent.recanted.push(task);
            self.list(worker);
        }
    }

    /// What the worker was sent and has not begun has gone back, and what has not even been sent with it.
    pub(super) fn resume(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.unsent.tasks.clear();
            member.unsent.resume = true;
            self.list(worker);
        }
    }

    pub(super) fn retire(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.unsent.retire = true;
            member.phase = Phase::Leaving;
            self.list(worker);
        }
    }

    fn list(&mut self, worker: WorkerId) {
        let Some(member) = self.members.get_mut(&worker) else { return };
        if !member.unsent.listed {
            member.unsent.listed = true;
            self.unsent.push(worker);
        }
    }

    /// Hands over all that is to be sent, as frames.
    pub(super) fn flush(&mut self, mut send: impl FnMut(WorkerId, Parcel)) {
        for worker in self.unsent.drain(..) {
            let Some(member) = self.members.get_mut(&worker) else { continue };
            let Unsent { resume, tasks, recanted, retire, listed } = &mut member.unsent;
            if std::mem::take(resume) {
                send(worker, ToWorker::Resume.encode());
            }
            for batch in batches(tasks) {
                send(worker, encode_tasks(batch, member.lend));
            }
            tasks.clear();
            if !recanted.is_empty() {
                send(worker, ToWorker::Recant(std::mem::take(recanted)).encode());
            }
            if std::mem::take(retire) {
                send(worker, ToWorker::Retire.encode());
            }
            *listed = false;
        }
    }

    /// Why a worker does not know a task, and what to do about it.
    pub(super) fn explain_unknown(&self, worker: WorkerId, definition: &'static Definition) -> String {
        match self.members.get(&worker) {
            Some(member) => explain_unknown(&member.known, definition, &member.executable),
            None => "the worker is gone".to_owned(),
        }
    }
}

impl Member {
    fn greet(&mut self, worker: WorkerId, hello: Hello) -> Said {
        tracing::debug!("{worker} is process {} at {}", hello.pid, hello.host);
        self.host = keep(hello.host);
        self.known = hello.known;
        if self.known.is_empty() {
            let reason = format!(
                "its executable `{}` has no tasks: declare them with `tasks!` in a crate that it links \
                 (`use my_crate as _;` if nothing else of it is used), or register them with `init_with`",
                self.executable
            );
            return self.refuse(SpawnCause::Mismatch, reason);
        }
        match self.wire_initializer() {
            Ok(initializer) => {
                self.phase = Phase::Preparing;
                let probe = process::probe();
                let lend = probe.is_some() && hello.probe.is_some_and(|probe| probe.is_readable());
                Said::Welcome(ToWorker::Welcome(Welcome { worker, probe, lend, initializer }).encode())
            }
            Err(reason) => self.refuse(SpawnCause::Mismatch, reason),
        }
    }

    fn wire_initializer(&self) -> Result<Option<(WireKind, Bytes)>, String> {
        let Some(Initializer { definition, arguments }) = &self.initializer else { return Ok(None) };
        let kind = find(&self.known, definition).ok_or_else(|| {
            let hint = explain_unknown(&self.known, definition, &self.executable);
            format!("the initializer `{}` is unknown to the worker: {hint}", definition.name)
        })?;
        Ok(Some((kind, arguments.clone()?)))
    }

    fn refuse(&mut self, cause: SpawnCause, reason: String) -> Said {
        self.phase = Phase::Refused;
        Said::Unfit { failure: SpawnFailure { cause, reason }, retire: ToWorker::Retire.encode() }
    }

    /// This worker's number for a task.
    fn number(&mut self, kind: KindId, definition: &'static Definition) -> WireKind {
        let index = kind.0 as usize;
        if self.kinds.len() <= index {
            self.kinds.resize(index + 1, None);
        }
        *self.kinds[index].get_or_insert_with(|| find(&self.known, definition).unwrap_or(WireKind::UNKNOWN))
    }
}

/// Keeps the name of a machine for as long as this process lives. There are few, and each result carries one from
/// thread to thread: counting its references would cost more than the rest of a short task's way.
fn keep(mut name: String) -> &'static str {
    static NAMES: Mutex<FxHashSet<&'static str>> =
        Mutex::new(FxHashSet::with_hasher(rustc_hash::FxBuildHasher));
    if name.len() > HOST_NAME_MAX {
        let end = (0..=HOST_NAME_MAX).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
        name.truncate(end);
    }
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = names.get(name.as_str()) {
        return kept;
    }
    let kept = String::leak(name);
    names.insert(kept);
    kept
}

/// Cuts tasks into batches that each make a frame of a good size.
fn batches(mut tasks: &[TaskMessage]) -> impl Iterator<Item = &[TaskMessage]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut fits = |message: &TaskMessage| {
            bytes += message.arguments.len() + ITEM_OVERHEAD;
            bytes <= FRAME_TARGET
        };
        let count = tasks.iter().take_while(|message| fits(message)).count().max(1);
        let (batch, rest) = tasks.split_at_checked(count)?;
        tasks = rest;
        Some(batch)
    })
}

/// The number of a task that a worker knows under this name with these types.
fn find(known: &[KnownTask], definition: &Definition) -> Option<WireKind> {
    let same = |task: &KnownTask| task.name == definition.name && task.signature == definition.signature;
    known.iter().position(same).and_then(|index| u32::try_from(index).ok()).map(WireKind)
}

fn explain_unknown(known: &[KnownTask], definition: &Definition, executable: &str) -> String {
    let Definition { name, signature, .. } = definition;
    if let Some(other) = known.iter().find(|task| task.name == *name) {
        let theirs = &other.signature;
        return format!(
            "`{executable}` has it as `{theirs}`, this process as `{signature}`: build both from one source"
        );
    }
    let last = |path: &str| path.rsplit("::").next().unwrap_or(path).to_owned();
    if let Some(other) = known.iter().find(|task| last(&task.name) == last(name)) {
        let theirs = &other.name;
        return format!(
            "`{executable}` has `{theirs}`; where both include one file under different paths, name the group: \
             `tasks! {{ in \"…\"; … }}`"
        );
    }
    let names: Vec<_> = known.iter().take(8).map(|task| task.name.as_str()).collect();
    let more = if known.len() > names.len() { ", …" } else { "" };
    format!("`{executable}` knows {}{more}; is it an old build?", names.join(", "))
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Returned { causes } => format!("failed: {}", causes.join(": ")),
        Failure::Panicked { message, location: Some(location) } => {
            format!("panicked: {message} at {location}")
        }
        Failure::Panicked { message, location: None } => format!("panicked: {message}"),
        Failure::Arguments { reason } => format!("could not begin: its arguments {reason}"),
        Failure::Result { reason } => format!("returned what {reason}"),
        Failure::Unknown => "is unknown to the worker".to_owned(),
    }
}
