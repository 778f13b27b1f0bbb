//! The engine: a thread that turns drivers, and sleeps when there is nothing to turn.
//!
//! MPI has one thread for all pools of a process (`mpi_thread`); a pool of in-memory workers has one
//! of its own.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::Turn;
use crate::transport::{Doorbell, Patience};

/// What an engine sees of a driver.
pub(crate) trait Turnable {
    /// Does what there is to do, without waiting.
    fn turn(&mut self) -> Turn;
    /// Whether an API thread has asked for something.
    fn has_commands(&self) -> bool;
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

/// Turns `drivers`, and those admitted later. Returns when it is told to finish, or, if nobody can
/// ask for anything (`requests` is disconnected), when the last driver has ended.
pub(crate) fn run<R>(
    doorbell: &Doorbell,
    requests: &Receiver<Request<R>>,
    resource: &R,
    mut drivers: Vec<Box<dyn Turnable>>,
) -> Ending {
    let mut patience = Patience::new();
    let mut ending = Ending::Clean;
    let mut finish_by = None;
    loop {
        let mut open = true;
        loop {
            match requests.try_recv() {
                Ok(Request::Admit(build)) => drivers.extend(build(resource)),
                Ok(Request::Finish { grace }) => {
                    finish_by = Some(Instant::now() + grace);
                    drivers.iter_mut().for_each(|driver| driver.shut_down());
                }
                Err(crossbeam_channel::TryRecvError::Empty) => break,
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        let rest = turn_all(&mut drivers, &mut ending);
        if drivers.is_empty() && (finish_by.is_some() || !open) {
            return ending;
        }
        if finish_by.is_some_and(|finish_by| Instant::now() > finish_by) {
            return Ending::Unclean;
        }
        match rest {
            Rest::None => patience.reset(),
            Rest::Polling { until } => {
                if let Some(sleep) = patience.pause() {
                    let until = until.into_iter().chain([Instant::now() + sleep]).min();
                    doorbell.sleep(until, || is_asked(&drivers, requests));
                }
            }
            Rest::Asleep { until } => {
                doorbell.sleep(until.into_iter().chain(finish_by).min(), || is_asked(&drivers, requests));
                patience.reset();
            }
        }
    }
}

/// How an engine may rest after it has turned all its drivers.
enum Rest {
    None,
    Polling { until: Option<Instant> },
    Asleep { until: Option<Instant> },
}

fn turn_all(drivers: &mut Vec<Box<dyn Turnable>>, ending: &mut Ending) -> Rest {
    let (mut active, mut any_polling, mut earliest) = (false, false, None::<Instant>);
    drivers.retain_mut(|driver| match turn_guarded(driver.as_mut()) {
        Ok(Turn::Active) => {
            active = true;
            true
        }
        Ok(Turn::Quiet { polling, until }) => {
            any_polling |= polling;
            earliest = earliest.into_iter().chain(until).min();
            true
        }
        Ok(Turn::Closed) => {
            active = true;
            false
        }
        Err(reason) => {
            tracing::error!("a pool failed: {reason}");
            driver.fail(&reason);
            *ending = Ending::Unclean;
            active = true;
            false
        }
    });
    match (active, any_polling) {
        (true, _) => Rest::None,
        (false, true) => Rest::Polling { until: earliest },
        (false, false) => Rest::Asleep { until: earliest },
    }
}

/// A panic in a driver is a bug of ours: its pool fails, the others go on.
fn turn_guarded(driver: &mut dyn Turnable) -> Result<Turn, String> {
    panic::catch_unwind(AssertUnwindSafe(|| driver.turn())).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        format!("its thread panicked: {}", text.unwrap_or_else(|| "without a message".to_owned()))
    })
}

fn is_asked<R>(drivers: &[Box<dyn Turnable>], requests: &Receiver<Request<R>>) -> bool {
    !requests.is_empty() || drivers.iter().any(|driver| driver.has_commands())
}
