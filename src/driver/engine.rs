//! The engine: a thread that turns drivers, and sleeps when there is nothing to turn.
//!
//! MPI has one thread for all pools of a process (`mpi_thread`); a pool of in-memory workers has one
//! of its own.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use super::Turn;
use crate::task::panic_message;
use crate::transport::{Attention, Doorbell, Patience, Pulse};

/// What an engine sees of a driver.
pub(crate) trait Turnable {
    /// Does what there is to do, without waiting.
    fn turn(&mut self) -> Turn;
    /// Whether an API thread has asked for something, or a worker has said something.
    fn has_news(&mut self) -> bool;
    /// Ends the pool: what waits is cancelled, what runs is asked to stop.
    fn shut_down(&mut self);
    /// Settles everything with an error. The driver is not turned any more.
    fn fail(&mut self, reason: &str);
}

/// Builds a driver on the engine's thread, with what that thread owns; none if that cannot be used.
pub(crate) type Build<R> = Box<dyn FnOnce(&R) -> Option<Box<dyn Turnable>> + Send>;

/// What is asked of a running engine.
pub(crate) enum Request<R> {
    /// Turn one more driver.
    Admit(Build<R>),
    /// End all pools, within this time.
    Finish { grace: Duration },
}

/// How an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Every pool has ended, and every worker has left.
    Clean,
    /// The time was over first, or a driver failed: workers may still be connected.
    Unclean,
}

/// Turns `drivers`, and those admitted later, with a beat of the pulse each time. Returns when it is told to finish, or, if nobody can
/// ask for anything (`requests` is disconnected), when the last driver has ended.
pub(crate) fn run<R>(
    doorbell: &Doorbell,
    pulse: &Pulse,
    requests: &Receiver<Request<R>>,
    resource: &R,
    drivers: Vec<Box<dyn Turnable>>,
) -> Ending {
    let sleep = |until, engine: &mut Engine<'_, R>| {
        pulse.sleeps();
        doorbell.sleep(until, || engine.is_anything_new());
        pulse.wakes();
    };
    pulse.wakes();
    let mut engine = Engine { requests, drivers, ending: Ending::Clean, finish_by: None, is_open: true };
    let mut patience = Patience::new();
    loop {
        pulse.beat();
        engine.take_requests(resource);
        let rest = engine.turn_all();
        if let Some(ending) = engine.is_over() {
            pulse.sleeps();
            return ending;
        }
        match rest {
            Rest::None => patience.reset(),
            Rest::Polling { attention, until } => {
                if let Some(nap) = patience.pause(attention) {
                    let until = until.into_iter().chain([Instant::now() + nap]).min();
                    sleep(until, &mut engine);
                }
            }
            Rest::Asleep { until } => {
                let until = until.into_iter().chain(engine.finish_by).min();
                sleep(until, &mut engine);
                patience.reset();
            }
        }
    }
}

/// How an engine may rest after it has turned all its drivers.
enum Rest {
    None,
    Polling { attention: Attention, until: Option<Instant> },
    Asleep { until: Option<Instant> },
}

struct Engine<'a, R> {
    requests: &'a Receiver<Request<R>>,
    drivers: Vec<Box<dyn Turnable>>,
    ending: Ending,
    finish_by: Option<Instant>,
    /// Whether anybody can still ask for something.
    is_open: bool,
}

impl<R> Engine<'_, R> {
    fn take_requests(&mut self, resource: &R) {
        loop {
            match self.requests.try_recv() {
                Ok(Request::Admit(build)) => match guarded(|| build(resource)) {
                    Ok(driver) => self.drivers.extend(driver),
                    Err(reason) => tracing::error!("a pool could not be built: {reason}"),
                },
                Ok(Request::Finish { grace }) => self.finish_by = Some(Instant::now() + grace),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.is_open = false;
                    break;
                }
            }
        }
        if self.finish_by.is_some() {
            self.drivers.iter_mut().for_each(|driver| driver.shut_down());
        }
    }

    fn is_over(&self) -> Option<Ending> {
        if self.drivers.is_empty() && (self.finish_by.is_some() || !self.is_open) {
            return Some(self.ending);
        }
        self.finish_by.is_some_and(|finish_by| Instant::now() > finish_by).then_some(Ending::Unclean)
    }

    fn turn_all(&mut self) -> Rest {
        let (mut active, mut closest, mut earliest) = (false, None::<Attention>, None::<Instant>);
        self.drivers.retain_mut(|driver| {
            let is_to_stay = match guarded(|| driver.turn()) {
                Ok(Turn::Active) => true,
                Ok(Turn::Quiet { polling, until }) => {
                    closest = closest.into_iter().chain(polling).min();
                    earliest = earliest.into_iter().chain(until).min();
                    return true;
                }
                Ok(Turn::Closed) => false,
                Err(reason) => {
                    tracing::error!("a pool failed: {reason}");
                    // A second panic leaves the rest to the promises' own drop.
                    let _ = guarded(|| driver.fail(&reason));
                    self.ending = Ending::Unclean;
                    false
                }
            };
            active = true;
            is_to_stay
        });
        match closest {
            _ if active => Rest::None,
            Some(attention) => Rest::Polling { attention, until: earliest },
            None => Rest::Asleep { until: earliest },
        }
    }

    fn is_anything_new(&mut self) -> bool {
        !self.requests.is_empty() || self.drivers.iter_mut().any(|driver| driver.has_news())
    }
}

/// A panic in a driver is a bug of ours: its pool fails, the others go on.
fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(act))
        .map_err(|payload| format!("its thread panicked: {}", panic_message(payload.as_ref())))
}
