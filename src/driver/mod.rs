//! The driver: the only place where the core, which decides, and a transport, which acts, meet.
//!
//! A turn is a handful of named steps: take commands, poll the transport, fire timers, perform what the
//! core asks for, flush what that wrote, settle what has ended. `engine` turns drivers on a thread and
//! puts it to sleep; `ledger` keeps what the core knows only by id (arguments, promises), `roster` what is
//! known of each worker (its host, its tasks, its unsent window). `books` keeps the ledger while MPI calls are
//! made, and `watchdog` finds it there when one of them never returns.

mod books;
mod command;
mod engine;
mod fetch;
mod ledger;
#[cfg(feature = "mpi")]
pub(crate) mod mpi_thread;
mod roster;
#[cfg(feature = "mpi")]
mod watchdog;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Receiver;

pub(crate) use books::Books;
pub(crate) use command::{Command, Submission};
pub(crate) use engine::{Ending, Turnable, run as run_drivers};
use fetch::{Fetched, Fetches};
use ledger::Ledger;
use roster::{Loss, Roster, Said};

use crate::core::{Action, Config, Event, Resolution, Scheduler, ShutdownMode, Terms, Time};
use crate::error::{SpawnCause, SpawnFailure};
use crate::ids::{ProgramId, TaskId, WorkerId};
use crate::launch::Program;
use crate::pool::{Promise, Shared};
use crate::task::Conditions;
use crate::transport::{Attention, Report, Rings, Transport};
use crate::wire;
use crate::wire::frame::Parcel;
use crate::wire::message::{AnswerMessage, FromWorker, Outcome, ToWorker};
use crate::wire::payload::Payload;

/// How a turn left the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Turn {
    /// Something happened: turn again at once.
    Active,
    /// Nothing happened. Turn again when the doorbell rings, or at this time; and, where something is expected
    /// that may not ring, when it may have come.
    Quiet { polling: Option<Attention>, until: Option<Instant> },
    /// The pool has ended.
    Closed,
}

/// Something to be done for one worker that takes MPI calls.
enum Errand {
    Send(WorkerId, Parcel),
    Disconnect(WorkerId),
}

/// The most steps between two looks at the commands, so that no flood of one starves the other.
const COMMANDS_A_TURN: usize = 1024;

/// Why a worker is given up that was spawned and then not heard of.
const LATE: &str =
    "its worker was not ready in time: `spawn_timeout` covers MPI_Init, the hello and the initializer";

/// How long a pool that ends waits for workers that it has refused.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// One pool's driver.
pub(crate) struct Driver<T> {
    core: Scheduler,
    transport: T,
    commands: Receiver<Command>,
    /// Where the ledger lies while MPI calls are made.
    books: Arc<Books>,
    /// The ledger while none are made; empty otherwise.
    ledger: Ledger,
    has_ledger: bool,
    roster: Roster,
    fetches: Fetches,
    programs: Vec<Program>,
    shared: Arc<Shared>,
    started: Instant,
    /// The time of what the core is being told.
    clock: Time,
    reports: Vec<Report>,
    /// What follows from the reports of a turn for single workers, and needs MPI calls.
    errands: Vec<Errand>,
    /// When the core closed, and the wait for workers that it does not count any more began.
    closed: Option<Instant>,
}

impl<T: Transport> Driver<T> {
    /// A driver of a pool whose default program is `program`.
    pub(crate) fn new(
        config: Config,
        program: Program,
        transport: T,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        shared.note_driver();
        let books = Arc::new(Books::new(commands.clone(), Arc::clone(&shared)));
        let mut driver = Self {
            core: Scheduler::new(config, 1),
            transport,
            commands,
            books,
            ledger: Ledger::default(),
            has_ledger: false,
            roster: Roster::default(),
            fetches: Fetches::default(),
            programs: vec![program],
            shared,
            started: Instant::now(),
            clock: Time::ZERO,
            reports: Vec::new(),
            errands: Vec::new(),
            closed: None,
        };
        // The first event starts the workers that the pool is to have from the beginning.
        driver.tell(Event::Tick);
        driver
    }

    /// What a watchdog needs to end this pool if its thread does not come back.
    pub(crate) fn books(&self) -> Arc<Books> {
        Arc::clone(&self.books)
    }

    /// Takes the ledger for what follows, in which no MPI call is made. False if it was given up.
    fn open_books(&mut self) -> bool {
        let ledger = self.books.take();
        self.has_ledger = ledger.is_some();
        self.ledger = ledger.unwrap_or_default();
        self.has_ledger
    }

    fn close_books(&mut self) {
        self.has_ledger = false;
        self.books.bring_back(std::mem::take(&mut self.ledger));
    }

    fn take_commands(&mut self) -> bool {
        let mut any = false;
        for _ in 0..COMMANDS_A_TURN {
            let Ok(command) = self.commands.try_recv() else { break };
            any = true;
            match command {
                Command::Submit(submission) => self.submit(submission),
                Command::SubmitAll(submissions) => submissions.into_iter().for_each(|one| self.submit(one)),
                Command::Cancel(task) => self.tell(Event::Cancel { task }),
                Command::CancelAll(tasks) => {
                    tasks.into_iter().for_each(|task| self.tell(Event::Cancel { task }))
                }
                Command::AddProgram(program) => {
                    self.programs.push(program);
                    self.core.add_program();
                }
                Command::Shutdown(mode) => self.on_shutdown(mode),
            }
        }
        any
    }

    fn on_shutdown(&mut self, mode: ShutdownMode) {
        self.tell(Event::Shutdown { mode });
        if mode == ShutdownMode::Cancel {
            // Nobody waits any more for the workers that were not begun.
            for worker in self.transport.cancel_spawns() {
                self.roster.forget(worker);
                self.tell(Event::SpawnFailed { worker, lasting: false });
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        if self.closed.is_some() {
            return submission.shut_out();
        }
        let (task, program) = (submission.promise.task(), submission.program);
        let Conditions { deadline, timeout, once } =
            submission.conditions.as_deref().copied().unwrap_or_default();
        let terms = Terms { deadline: deadline.map(|at| self.time(at)), timeout, once };
        let kind = self.ledger.enter(submission);
        self.tell(Event::Submit { task, program, kind, terms });
    }

    /// Tells the core what the transport reports.
    fn take_reports(&mut self) {
        let mut reports = std::mem::take(&mut self.reports);
        self.set_clock_for_arrivals();
        for report in reports.drain(..) {
            match report {
                Report::Spawned { worker } => self.tell(Event::Spawned { worker }),
                Report::SpawnFailed { worker, failure } => self.on_spawn_failed(worker, failure),
                Report::Frame { worker, bytes } => self.on_frame(worker, bytes),
                Report::Recalled { worker, begun } => self.tell(Event::Recalled { worker, begun }),
                Report::Lost { worker, reason } => self.on_lost(worker, SpawnCause::Ended, reason),
            }
        }
        self.reports = reports;
    }

    fn on_frame(&mut self, worker: WorkerId, bytes: Bytes) {
        let Some(bytes) = self.fetches.keep(worker, bytes) else { return };
        let message = match FromWorker::decode(bytes) {
            Ok(message) => message,
            Err(error) => return self.on_lost(worker, SpawnCause::Mismatch, error.to_string()),
        };
        match self.roster.hear(worker, message) {
            Said::Welcome(frame) => self.errands.push(Errand::Send(worker, frame)),
            Said::Ready => self.tell(Event::Ready { worker }),
            Said::Unfit { failure, retire } => {
                self.errands.push(Errand::Send(worker, retire));
                self.on_spawn_failed(worker, failure);
            }
            Said::Answers(answers)
                if answers.iter().filter_map(AnswerMessage::payload).any(Payload::is_remote) =>
            {
                self.fetches.begin(worker, answers);
            }
            Said::Answers(answers) => self.on_answers(worker, answers),
            Said::Bye { known_gone } => {
                self.errands.push(Errand::Disconnect(worker));
                if !known_gone {
                    self.tell(Event::Gone { worker });
                }
            }
            Said::Nonsense(reason) => self.on_lost(worker, SpawnCause::Mismatch, reason),
            Said::Nothing => {}
        }
    }

    /// Goes on with what is fetched from the memory of workers. Whether something has come of it, or will.
    fn advance_fetches(&mut self) -> bool {
        let over = self.fetches.advance();
        let any = !over.is_empty();
        for (worker, fetched) in over {
            match fetched {
                Fetched::Whole(answers, behind) => {
                    self.errands.push(Errand::Send(worker, ToWorker::Fetched.encode()));
                    self.on_answers(worker, answers);
                    behind.into_iter().for_each(|frame| self.on_frame(worker, frame));
                }
                Fetched::Failed(reason) => self.on_lost(worker, SpawnCause::Ended, reason),
            }
        }
        any || self.fetches.is_busy()
    }

    fn on_answers(&mut self, worker: WorkerId, answers: Vec<AnswerMessage>) {
        let told = answers.iter().map(|AnswerMessage { task, ran, outcome }| {
            if let Outcome::Failed(failure) = outcome {
                tracing::debug!("{task} on {worker}: {failure:?}");
            }
            (*task, *ran)
        });
        self.core.handle_answers(self.clock, worker, told);
        self.ledger.hear(worker, answers);
    }

    fn on_spawn_failed(&mut self, worker: WorkerId, failure: SpawnFailure) {
        tracing::warn!("{worker} could not be started: {}", failure.reason);
        let lasting = failure.cause.is_lasting();
        if let Some(program) = self.roster.end_start(worker) {
            self.ledger.note_failed_start(program, failure);
        }
        self.tell(Event::SpawnFailed { worker, lasting });
    }

    /// A worker died, or said what makes no sense. Before it was ready, that is a failed start, for `cause`.
    fn on_lost(&mut self, worker: WorkerId, cause: SpawnCause, reason: String) {
        self.fetches.forget(worker);
        match self.roster.lose(worker) {
            Loss::Start => {
                self.transport.abandon(worker);
                self.on_spawn_failed(worker, SpawnFailure::new(cause, reason));
            }
            // The core has done with it already.
            Loss::Refused => self.transport.abandon(worker),
            Loss::Serving => {
                tracing::warn!("{worker} is lost: {reason}");
                self.ledger.note_loss(worker, reason);
                self.tell(Event::Lost { worker });
            }
            Loss::Nobody => {}
        }
    }

    fn fire_timers(&mut self) {
        if self.core.next_deadline().is_some_and(|deadline| deadline <= self.clock) {
            self.tell(Event::Tick);
        }
    }

    /// Tells the core what happened.
    fn tell(&mut self, event: Event) {
        self.core.handle(self.clock, event);
    }

    /// Sets the clock for what has arrived: to now, but not past a deadline that went by unseen, because
    /// this thread was blocked in a spawn or the machine slept. What had arrived by then comes first.
    fn set_clock_for_arrivals(&mut self) {
        let now = self.now();
        let just_before = |deadline: Time| Time::from_nanos(deadline.nanos().saturating_sub(1));
        self.clock = match self.core.next_deadline() {
            Some(deadline) if deadline <= now => self.clock.max(just_before(deadline)),
            Some(_) | None => now,
        };
    }

    fn perform_actions(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.core.poll() {
            any = true;
            match action {
                Action::Spawn { worker, program } => self.spawn(worker, program),
                Action::Send { worker, task, attempt } => self.send(worker, task, attempt),
                Action::Recant { worker, task } => self.roster.recant(worker, task),
                Action::Recall { worker } => self.transport.recall(worker),
                Action::Resume { worker } => self.roster.resume(worker),
                Action::Retire { worker } => self.roster.retire(worker),
                Action::Abandon { worker } => self.abandon(worker),
                Action::Kill { worker } => self.kill(worker),
                Action::Resolve { task, resolution } => self.resolve(task, resolution),
                Action::Close => self.closed = Some(Instant::now()),
            }
        }
        self.ledger.forget_heard();
        any
    }

    fn spawn(&mut self, worker: WorkerId, program: ProgramId) {
        let description = &self.programs[program.0 as usize];
        self.roster.expect(worker, program, description);
        self.transport.spawn(worker, description);
    }

    fn send(&mut self, worker: WorkerId, task: TaskId, attempt: u32) {
        let (kind, definition, arguments) = self.ledger.send(task);
        if let Some(place) = self.roster.append(worker, task, attempt, kind, definition, arguments) {
            self.ledger.place(task, place);
        }
    }

    fn abandon(&mut self, worker: WorkerId) {
        match self.roster.end_start(worker) {
            Some(program) => {
                self.ledger.note_failed_start(program, SpawnFailure::new(SpawnCause::Overdue, LATE));
            }
            // What the core decides by itself: it did not leave in time, or answered what it was not asked.
            None if self.roster.is_serving(worker) => {
                self.ledger.note_loss(worker, "it did not keep to the protocol".to_owned());
                tracing::warn!("{worker} did not keep to the protocol, and is given up");
            }
            None => {}
        }
        self.roster.forget(worker);
        self.fetches.forget(worker);
        self.transport.abandon(worker);
    }

    fn kill(&mut self, worker: WorkerId) {
        tracing::info!("{worker} is killed: the task that it runs was to stop, and has not");
        self.roster.forget(worker);
        self.fetches.forget(worker);
        self.transport.abandon(worker);
    }

    fn resolve(&mut self, task: TaskId, resolution: Resolution) {
        let hint = |worker, definition| self.roster.explain_unknown(worker, definition);
        self.ledger.resolve(task, resolution, hint);
    }

    /// Makes the MPI calls that the turn has come to.
    fn flush(&mut self) {
        let transport = &mut self.transport;
        for errand in self.errands.drain(..) {
            match errand {
                Errand::Send(worker, frame) => transport.send(worker, frame),
                Errand::Disconnect(worker) => transport.disconnect(worker),
            }
        }
        self.roster.flush(|worker, frame| transport.send(worker, frame));
    }

    /// Gives the answers to whoever waits for them. Last, so that who has a result finds its task counted
    /// in the stats, and its place in the queue free.
    fn settle(&mut self) {
        self.shared.gate.leave(self.ledger.settled.len());
        Promise::settle_all(self.ledger.settled.drain(..));
        self.ledger.spent.clear();
    }

    /// Whether the core has closed and the workers that it had done with before are gone too.
    fn is_over(&self) -> bool {
        self.closed.is_some_and(|since| !self.roster.is_anybody_leaving() || since.elapsed() > LEAVE_TIMEOUT)
    }

    /// How closely to look for what is expected and may come without a ring.
    fn polling(&self) -> Option<Attention> {
        if self.transport.is_pending() {
            return Some(Attention::to(self.transport.bytes_under_way()));
        }
        let stats = self.core.stats();
        let expected = stats.tasks_held > 0 || stats.workers_starting > 0 || stats.workers_retiring > 0;
        match self.transport.rings() {
            Rings::Always => None,
            _ if !expected && !self.roster.is_anybody_leaving() => None,
            Rings::Mostly => Some(Attention::Rung),
            Rings::Never => Some(Attention::Remote),
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn time(&self, instant: Instant) -> Time {
        Time::ZERO + instant.saturating_duration_since(self.started)
    }

    fn instant(&self, time: Time) -> Instant {
        // A deadline that lies beyond what the clock can say is as good as none for a day.
        let after = Duration::from_nanos(time.nanos());
        self.started.checked_add(after).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

impl<T: Transport> Turnable for Driver<T> {
    fn turn(&mut self) -> Turn {
        let mut any = self.transport.poll(&mut self.reports);
        if !self.open_books() {
            return Turn::Closed;
        }
        self.take_reports();
        any |= self.advance_fetches();
        self.clock = self.now();
        any |= self.take_commands();
        self.fire_timers();
        any |= self.perform_actions();
        self.close_books();
        self.flush();
        if any || self.closed.is_some() {
            if !self.open_books() {
                return Turn::Closed;
            }
            self.shared.publish(&self.core.stats(), [self.roster.lent(), self.fetches.fetched()]);
            self.settle();
            let is_over = self.is_over();
            if is_over {
                self.shared.end("it was shut down");
                // What was on its way in is told so.
                self.take_commands();
            }
            self.close_books();
            if is_over {
                return Turn::Closed;
            }
        }
        if any {
            return Turn::Active;
        }
        let deadline = self.core.next_deadline().map(|deadline| self.instant(deadline));
        let leave_by = self.closed.map(|since| since + LEAVE_TIMEOUT);
        let look = self.fetches.next_look();
        let until = deadline.into_iter().chain(leave_by).chain(look).chain(wire::tidy()).min();
        Turn::Quiet { polling: self.polling(), until }
    }

    fn has_news(&mut self) -> bool {
        !self.commands.is_empty() || self.transport.has_arrived()
    }

    fn shut_down(&mut self) {
        self.on_shutdown(ShutdownMode::Cancel);
    }

    fn fail(&mut self, reason: &str) {
        // Where it panicked decides who has the ledger.
        if self.has_ledger {
            self.close_books();
        }
        self.books.give_up(reason);
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        // However it came to this (a panic on the way, the end of the process), nobody waits for ever:
        // promises that are dropped settle themselves.
        self.shared.end("its thread ended");
        drop(self.books.take_for_good());
    }
}

#[cfg(test)]
mod tests;
