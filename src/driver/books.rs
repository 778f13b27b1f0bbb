//! The books: what must come to an end even if the driver's thread is caught in an MPI call for ever.
//!
//! They hold the ledger, with all promises, whenever the driver is about to make MPI calls, and the driver
//! holds it otherwise; so whoever gives the thread up finds it here. Two uncontended locks a turn, none of
//! them held across an MPI call, are the price.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Receiver;

use super::ledger::Ledger;
use super::{Command, Submission};
use crate::error::TaskError;
use crate::pool::{Promise, Shared};

/// The books of one pool.
pub(crate) struct Books {
    state: Mutex<State>,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
}

#[expect(clippy::large_enum_variant, reason = "there is one for each pool")]
enum State {
    /// The driver is, or may be, in an MPI call.
    Here(Ledger),
    /// The driver has them.
    Taken,
    /// The driver has them, and is to end everything in them, for this reason, when it brings them back.
    Doomed(String),
    /// Everything in them has ended; the driver is not to go on.
    GivenUp,
}

impl Books {
    pub(super) fn new(commands: Receiver<Command>, shared: Arc<Shared>) -> Self {
        Self { state: Mutex::new(State::Here(Ledger::default())), commands, shared }
    }

    /// The driver takes the ledger, between MPI calls; `None` if it was given up meanwhile.
    pub(super) fn take(&self) -> Option<Ledger> {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Here(ledger) => Some(ledger),
            State::Taken | State::Doomed(_) => unreachable!("one driver takes them, and brings them back"),
            State::GivenUp => {
                *state = State::GivenUp;
                None
            }
        }
    }

    /// The driver brings it back, before MPI calls.
    pub(super) fn bring_back(&self, ledger: Ledger) {
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::GivenUp) {
            // It was given up while the driver had it.
            State::Doomed(reason) => {
                drop(state);
                self.fail(ledger, &reason);
            }
            State::Here(_) | State::Taken | State::GivenUp => *state = State::Here(ledger),
        }
    }

    /// The driver ends: promises that are still here settle themselves.
    pub(super) fn take_for_good(&self) -> Option<Ledger> {
        match std::mem::replace(&mut *self.state(), State::GivenUp) {
            State::Here(ledger) => Some(ledger),
            State::Taken | State::Doomed(_) | State::GivenUp => None,
        }
    }

    /// Settles everything with an error, on any thread: the driver's will not come back, or not in its right
    /// mind.
    pub(crate) fn give_up(&self, reason: &str) {
        // First the gate, so that whoever waits there is told; then everything that was let in.
        self.shared.end(reason);
        let mut state = self.state();
        match std::mem::replace(&mut *state, State::GivenUp) {
            State::Here(ledger) => {
                drop(state);
                self.fail(ledger, reason);
            }
            State::Taken => *state = State::Doomed(reason.to_owned()),
            before @ (State::Doomed(_) | State::GivenUp) => *state = before,
        }
    }

    fn fail(&self, mut ledger: Ledger, reason: &str) {
        self.shared.gate.leave(ledger.settled.len());
        Promise::settle_all(ledger.settled.drain(..));
        ledger.fail(&reason.into());
        self.fail_latecomers(reason);
    }

    /// Settles what was on its way in when the pool was given up, and what still comes.
    pub(crate) fn fail_latecomers(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let fail = |submission: Submission| {
            let origin = submission.promise.origin(None);
            let error = TaskError::PoolFailed { origin, reason: Arc::clone(&reason) };
            submission.promise.settle(Err(error.into()));
        };
        for command in self.commands.try_iter() {
            match command {
                Command::Submit(submission) => fail(submission),
                Command::SubmitAll(submissions) => submissions.into_iter().for_each(fail),
                Command::Cancel(_)
                | Command::CancelAll(_)
                | Command::AddProgram(_)
                | Command::Shutdown(_) => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
