//! The spawn thread, where MPI lets one thread spawn while another sends and receives: `MPI_Comm_spawn` takes a tenth of
//! a second, in which the workers that run are served.
//!
//! All spawns of a process go through it, one after the other. A call that does not return costs the spawns only: it is
//! given up, those behind it fail until it does return, the workers that are there go on, and the process ends without
//! `MPI_Finalize` if it is still in there.

use std::cell::RefCell;
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::ffi::{self, Comm, Info, MpiError, Transferred};
use crate::ids::WorkerId;
use crate::launch;
use crate::transport::control::Control;
use crate::transport::pulse::Stopwatch;
use crate::transport::{Call, Doorbell};
use crate::wire::control::Ticket;

/// What one `MPI_Comm_spawn` is to start: the guard of one worker.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) command: CString,
    pub(super) arguments: Vec<CString>,
    pub(super) info: Vec<(CString, CString)>,
}

impl Wanted {
    /// Makes the call.
    pub(super) fn spawn_from(&self, comm: &Comm) -> Result<Comm, MpiError> {
        let mut info = Info::new()?;
        for (key, value) in &self.info {
            info.set(key, value)?;
        }
        comm.spawn(&self.command, &self.arguments, &info)
    }

    /// As this process orders it from itself.
    pub(super) fn as_order(&self) -> launch::Wanted<'_> {
        launch::Wanted {
            executable: self.command.as_bytes(),
            arguments: self.arguments.iter().map(|argument| argument.as_bytes()).collect(),
            info: self.info.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes())).collect(),
        }
    }
}

/// What became of a spawn.
pub(super) struct Outcome {
    pub(super) worker: WorkerId,
    pub(super) spawned: Result<Transferred, String>,
}

struct Order {
    worker: WorkerId,
    ticket: Ticket,
    wanted: Wanted,
    /// How long the call may take.
    limit: Duration,
    outcomes: Sender<Outcome>,
}

/// The spawn thread, as the MPI thread sees it.
pub(super) struct Spawner {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
    state: Arc<State>,
    stopwatch: RefCell<Stopwatch>,
}

#[derive(Default)]
struct State {
    at: Mutex<At>,
    /// Whether a worker has come for whom nobody was left.
    has_losses: AtomicBool,
}

/// A call that takes longer than this may be one that does not return.
const SLOW: Duration = Duration::from_secs(2);

/// Whether the MPI's daemons answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// They have not for a while.
    Doubtful,
    /// They will not.
    Lost,
}

/// Where the thread is.
#[derive(Clone, Default)]
enum At {
    #[default]
    Rest,
    /// In the call with this number, since then, which may take so long.
    Call(Ticket, Instant, Duration),
    /// In a call that has been given up, for this reason.
    Caught(String),
    /// Nothing is to be begun any more.
    End,
}

impl Spawner {
    /// Starts the thread, which spawns from `comm`.
    pub(super) fn start(comm: Comm, control: Control, doorbell: Arc<Doorbell>) -> io::Result<Self> {
        let (orders, inbox) = unbounded();
        let state = Arc::new(State::default());
        let (comm, shared) = (comm.hand_over(), Arc::clone(&state));
        let body = move || serve(comm, &inbox, &shared, &control, &doorbell);
        let thread = thread::Builder::new().name("offshoot spawn".to_owned()).spawn(body)?;
        Ok(Self { orders, thread, state, stopwatch: RefCell::default() })
    }

    /// Has a spawn made. Its outcome comes, with a ring of the doorbell, unless the thread is given up.
    pub(super) fn order(
        &self,
        worker: WorkerId,
        ticket: Ticket,
        wanted: Wanted,
        limit: Duration,
        outcomes: Sender<Outcome>,
    ) {
        // It is there as long as this is.
        let _ = self.orders.send(Order { worker, ticket, wanted, limit, outcomes });
    }

    /// Looks whether the call that is being made still can return. `is_hopeless` may say why not.
    pub(super) fn look(&self, is_hopeless: impl FnOnce() -> Option<String>) -> Option<String> {
        let (ticket, limit) = match &*self.state.at() {
            At::Call(ticket, _, limit) => (*ticket, *limit),
            At::Caught(verdict) => return Some(verdict.clone()),
            At::Rest | At::End => return None,
        };
        let silence = self.stopwatch.borrow_mut().look(ticket.0)?;
        let cause = if silence >= limit {
            format!("it had not returned after {:.1} s", silence.as_secs_f64())
        } else {
            format!("{}, and it cannot return any more", is_hopeless()?)
        };
        let verdict = format!(
            "{} was given up: {cause}. This process can spawn no more, unless it returns all the same: start it again, \
             and see what `offshoot doctor` says",
            Call::Spawn.name()
        );
        let mut at = self.state.at();
        // It may have returned just now.
        matches!(*at, At::Call(current, ..) if current == ticket).then(|| {
            tracing::error!("{verdict}");
            *at = At::Caught(verdict.clone());
            verdict
        })
    }

    /// Whether the daemons through which it spawns can be relied upon, as far as can be told from the call that is
    /// being made.
    pub(super) fn health(&self) -> Health {
        match &*self.state.at() {
            At::Caught(_) => Health::Lost,
            At::Call(_, since, _) if since.elapsed() > SLOW => Health::Doubtful,
            At::Call(..) | At::Rest | At::End => Health::Good,
        }
    }

    /// Ends the thread. False if it is, and stays, in a call; true if it had nothing to do any more.
    pub(super) fn end(self) -> bool {
        let Self { orders, thread, state, .. } = self;
        {
            let mut at = state.at();
            if let At::Call(..) | At::Caught(_) = *at {
                return false;
            }
            *at = At::End;
        }
        drop(orders);
        thread.join().is_ok()
    }

    /// Whether a worker has come for whom nobody was left, and who was not disconnected.
    pub(super) fn has_losses(&self) -> bool {
        self.state.has_losses.load(Ordering::Relaxed)
    }
}

impl State {
    fn at(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to something else, unless this is the end.
    fn go(&self, to: At) -> bool {
        let mut at = self.at();
        let goes_on = !matches!(*at, At::End);
        if goes_on {
            *at = to;
        }
        goes_on
    }
}

fn serve(comm: Transferred, inbox: &Receiver<Order>, state: &State, control: &Control, doorbell: &Doorbell) {
    ffi::claim_spawn_thread();
    let comm = comm.take();
    for Order { worker, ticket, wanted, limit, outcomes } in inbox {
        if !state.go(At::Call(ticket, Instant::now(), limit)) {
            break;
        }
        let spawned = wanted.spawn_from(&comm).map(Comm::hand_over).map_err(|error| error.to_string());
        control.note_spawned(ticket, spawned.is_ok());
        state.go(At::Rest);
        let has_come = spawned.is_ok();
        if outcomes.send(Outcome { worker, spawned }).is_err() {
            // Its pool has ended meanwhile.
            control.kill(ticket);
            state.has_losses.fetch_or(has_come, Ordering::Relaxed);
        }
        doorbell.ring();
    }
    // Otherwise MPI may have been finalized by whoever had initialized it.
    if let At::End = *state.at()
        && let Err(error) = comm.free()
    {
        tracing::debug!("a communicator could not be freed: {error}");
    }
}
