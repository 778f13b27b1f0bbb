//! What the host has sent (the window of tasks, those that were recanted, the wish to retire), and what goes
//! back to it.
//!
//! It is looked into between tasks, and by a running task that asks whether it is still wanted. Such a task
//! takes long, so answers that are kept leave at that moment too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::answers::Answers;
use crate::ids::TaskId;
use crate::transport::claim::Claim;
use crate::transport::{Link, LinkError};
use crate::wire::WireError;
use crate::wire::message::{AnswerMessage, TaskMessage, ToWorker};

/// How often the mailbox is looked into between short tasks, at most. A look costs as much as the
/// shortest tasks do.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// The worker's side of the conversation, shared by the loop and the running task.
pub(super) struct Mailbox<L> {
    pub(super) link: L,
    pub(super) answers: Answers,
    /// Which tasks of the window are this worker's own, and not the host's again.
    claim: Claim,
    window: VecDeque<TaskMessage>,
    recanted: FxHashSet<TaskId>,
    retire: bool,
    /// What the clock said last. To ask it costs as much as a short task's whole way through here, so it is asked
    /// once for each task, and after what takes time.
    now: Instant,
    looked: Instant,
    /// What went wrong while a running task looked; told to the loop when it asks next.
    failed: Option<LinkError>,
}

/// What a worker does next.
pub(super) enum Next {
    Run(TaskMessage),
    /// A task that was recanted before it began.
    Skip(TaskId),
    /// The window is empty, or has been recalled.
    Nothing,
    Retire,
}

impl<L: Link> Mailbox<L> {
    pub(super) fn new(link: L, answers: Answers, claim: Claim) -> Self {
        Self {
            link,
            answers,
            claim,
            window: VecDeque::new(),
            recanted: FxHashSet::default(),
            retire: false,
            now: Instant::now(),
            looked: Instant::now(),
            failed: None,
        }
    }

    /// The first task of the window, after a look for news if the last one was a while ago.
    pub(super) fn next(&mut self) -> Result<Next, LinkError> {
        if self.window.is_empty() || self.now.saturating_duration_since(self.looked) >= LOOK_EVERY {
            self.look()?;
        }
        if self.window.is_empty() {
            // What is left was recanted when its answer was on its way.
            self.recanted.clear();
        }
        let is_stopped = self.window.front().is_some_and(|first| !self.claim.begin(first.task));
        if is_stopped {
            return Ok(Next::Nothing);
        }
        Ok(match self.window.pop_front() {
            Some(message) if self.recanted.remove(&message.task) => Next::Skip(message.task),
            Some(message) => Next::Run(message),
            None if self.retire => Next::Retire,
            None => Next::Nothing,
        })
    }

    /// Waits for news: the window is empty, or has been recalled.
    pub(super) fn wait(&mut self) -> Result<(), LinkError> {
        let frame = self.link.receive()?;
        self.ask_the_clock();
        self.accept(frame)
    }

    /// What the clock said last.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// What the clock says.
    pub(super) fn ask_the_clock(&mut self) -> Instant {
        self.now = Instant::now();
        self.now
    }

    /// Whether the task that runs has been recanted. An unreachable host wants nothing any more.
    pub(super) fn is_recanted(&mut self, task: TaskId) -> bool {
        if let Err(error) = self.look().and_then(|()| self.answers.send(&mut self.link)) {
            self.failed = Some(error);
        }
        self.failed.is_some() || self.recanted.contains(&task)
    }

    /// Keeps an answer, or sends it with all that are kept.
    pub(super) fn answer(&mut self, answer: AnswerMessage) -> Result<(), LinkError> {
        if self.answers.add(answer, self.now, &mut self.link)? {
            self.ask_the_clock();
        }
        Ok(())
    }

    /// Sends the answers that are kept.
    pub(super) fn send_answers(&mut self) -> Result<(), LinkError> {
        if self.answers.send(&mut self.link)? {
            self.ask_the_clock();
        }
        Ok(())
    }

    /// Waits until the host has fetched all that it was lent: what this process has ends with it.
    pub(super) fn await_fetched(&mut self) -> Result<(), LinkError> {
        while !self.answers.is_fetched() {
            self.wait()?;
        }
        Ok(())
    }

    /// Forgets what was noted of a task that has ended.
    pub(super) fn forget(&mut self, task: TaskId) {
        if !self.recanted.is_empty() {
            self.recanted.remove(&task);
        }
    }

    fn look(&mut self) -> Result<(), LinkError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.looked = self.ask_the_clock();
        while let Some(frame) = self.link.try_receive()? {
            self.accept(frame)?;
        }
        Ok(())
    }

    fn accept(&mut self, frame: Bytes) -> Result<(), LinkError> {
        match ToWorker::decode(frame)? {
            ToWorker::Tasks(tasks) => self.window.extend(tasks),
            ToWorker::Recant(tasks) => self.recanted.extend(tasks),
            ToWorker::Resume => {
                self.window.clear();
                self.claim.resume();
            }
            ToWorker::Fetched => self.answers.note_fetched(),
            ToWorker::Retire => self.retire = true,
            ToWorker::Welcome(_) => return Err(WireError::Unexpected { name: "Welcome" }.into()),
        }
        Ok(())
    }
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self(error.to_string())
    }
}
