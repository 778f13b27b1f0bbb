//! The watchdog of the MPI thread: when an MPI call never returns, it gives up the thread as a whole.
//!
//! Everything that waits for it is ended with an error that says which call it was: pools close, handles
//! and streams resolve, workers are killed by their guards. This process makes no MPI call any more; at its
//! end the daemons of the MPI are killed, because `MPI_Finalize` cannot be called.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use super::Books;
use crate::error::BuildError;
use crate::launch;
use crate::transport::control::Killer;
use crate::transport::{Call, Pulse};

/// How often it is looked, when all is over, whether somebody has still handed in a task.
const LATECOMERS_EVERY: Duration = Duration::from_millis(100);

/// The watchdog, as those see it whom it watches over.
#[derive(Default)]
pub(crate) struct Watchdog {
    pulse: Arc<Pulse>,
    pools: Mutex<Vec<Weak<Books>>>,
    killer: OnceLock<Killer>,
    verdict: OnceLock<String>,
}

impl Watchdog {
    /// Starts to watch over a thread, which is asleep until it says otherwise.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self::default());
        let watching = Arc::clone(&watchdog);
        thread::Builder::new().name("offshoot watch".to_owned()).spawn(move || watching.watch())?;
        Ok(watchdog)
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The workers that are to be killed when the thread is given up.
    pub(crate) fn know_killer(&self, killer: Killer) {
        let _ = self.killer.set(killer);
    }

    /// Watches over the books of one more pool.
    pub(crate) fn admit(&self, books: &Arc<Books>) {
        let mut pools = self.pools();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(books));
        drop(pools);
        if let Some(reason) = self.verdict.get() {
            books.give_up(reason);
        }
    }

    /// Why the thread was given up, if it was.
    pub(crate) fn verdict(&self) -> Result<(), BuildError> {
        self.verdict.get().map_or(Ok(()), |reason| Err(BuildError::Stuck(reason.clone())))
    }

    fn watch(&self) {
        let mut launchers = launch::Launchers::default();
        let (call, silence, cause) = self.pulse.watch(|call| match call {
            Call::Spawn => {
                launchers.look();
                launchers.loss()
            }
            Call::Other | Call::Disconnect | Call::Finalize => None,
        });
        let cause = cause.map_or_else(
            || format!("it had not returned after {silence:?}, and nothing can bring it back"),
            |cause| format!("{cause}, and it cannot return any more"),
        );
        let reason = format!(
            "{} was given up: {cause}. This process makes no MPI call any more and has no workers; start it again, \
             and see what `offshoot doctor` says",
            call.name()
        );
        tracing::error!("{reason}");
        let _ = self.verdict.set(reason.clone());
        if let Some(killer) = self.killer.get() {
            killer.kill_all();
        }
        let pools: Vec<_> = self.pools().drain(..).filter_map(|pool| pool.upgrade()).collect();
        pools.iter().for_each(|books| books.give_up(&reason));
        // Whoever had passed the gate by then may hand something in long after.
        while !pools.is_empty() {
            thread::sleep(LATECOMERS_EVERY);
            pools.iter().for_each(|books| books.fail_latecomers(&reason));
        }
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Weak<Books>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
