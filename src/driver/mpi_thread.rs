//! The MPI thread: the one thread of this process that makes MPI calls, for all its pools.
//!
//! It starts with the first pool, initializes MPI unless the host has, and stays until the process
//! ends, because MPI cannot be initialized twice. The end of the process waits for it: what MPI is
//! ours must be finalized, or its launcher takes the exit for a crash.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded, unbounded};

use super::Ending;
use super::engine::{self, Request, Turnable};
use super::watchdog::Watchdog;
use crate::error::BuildError;
use crate::launch::{self, ProcessManager};
use crate::process;
use crate::transport::bells::Bells;
use crate::transport::mpi::Runtime;
use crate::transport::{self, Doorbell};

/// How long the end of the process waits for pools that nobody has shut down.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// How long it then waits for what their workers wrote.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);
/// `MPI_Init` has this long at least, however impatient a pool is with its workers: what it says is for ever.
const INIT_LIMIT_MIN: Duration = Duration::from_secs(10);
/// How often whoever waits for the MPI thread looks whether it has been given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The handle to the MPI thread.
#[derive(Clone)]
pub(crate) struct MpiThread {
    requests: Sender<Request<Rc<Runtime>>>,
    doorbell: Arc<Doorbell>,
    watchdog: Arc<Watchdog>,
}

/// The MPI thread, or why there is none. MPI has one life per process, so either is for ever.
static MPI_THREAD: Mutex<Option<Result<MpiThread, BuildError>>> = Mutex::new(None);

impl MpiThread {
    /// The MPI thread, started if it is not there yet, which `MPI_Init` may take so long for, with this process
    /// manager.
    pub(crate) fn get(init_timeout: Duration, manager: ProcessManager) -> Result<Self, BuildError> {
        // Asked first: the lock may be held by a thread that did not come along.
        if is_of_another_process() {
            return Err(BuildError::Forked);
        }
        let mut started = MPI_THREAD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = &*started {
            let thread = result.clone()?;
            return thread.watchdog.verdict().map(|()| thread);
        }
        let result = start(init_timeout.max(INIT_LIMIT_MIN), manager);
        // A thread that could not be started now may be another time; what MPI says is for ever.
        if !matches!(
            result,
            Err(BuildError::System(_) | BuildError::Preflight(_) | BuildError::NotInitialized)
        ) {
            *started = Some(result.clone());
        }
        result
    }

    /// Has the MPI thread build and turn one more driver, unless MPI has ended meanwhile: the host may
    /// have finalized what it had initialized.
    pub(crate) fn admit(
        &self,
        build: impl FnOnce(&Rc<Runtime>) -> Box<dyn Turnable> + Send + 'static,
    ) -> Result<(), BuildError> {
        let (report, admitted) = bounded(1);
        let build = move |runtime: &Rc<Runtime>| {
            let usable = runtime.check();
            let driver = usable.is_ok().then(|| build(runtime));
            let _ = report.send(usable);
            driver
        };
        let _ = self.requests.send(Request::Admit(Box::new(build)));
        self.doorbell.ring();
        loop {
            match admitted.recv_timeout(LOOK_EVERY) {
                Ok(usable) => return usable,
                // If the thread has ended, so have MPI and, presently, the process.
                Err(RecvTimeoutError::Disconnected) => return Err(BuildError::Finalized),
                Err(RecvTimeoutError::Timeout) => self.watchdog.verdict()?,
            }
        }
    }

    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    pub(crate) fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }
}

fn start(init_timeout: Duration, manager: ProcessManager) -> Result<MpiThread, BuildError> {
    let prepared = launch::prepared().ok_or(BuildError::NotInitialized)?;
    launch::check_machine(prepared, manager).map_err(BuildError::Preflight)?;
    // Without them everything works, but both sides have to look for what the other has sent.
    let bells = Bells::create().inspect_err(|error| tracing::warn!("no doorbells: {error}")).ok();
    let doorbell = Arc::new(bells.as_ref().map_or_else(Doorbell::default, |bells| bells.of_host()));
    let (requests, inbox) = unbounded();
    let (report, started) = bounded(1);
    let bell = Arc::clone(&doorbell);
    let watchdog = Watchdog::start().map_err(|error| BuildError::System(error.to_string()))?;
    let watched = Arc::clone(&watchdog);
    let body = move || {
        process::block_terminal_signals();
        let pulse = watched.pulse();
        let runtime = match Runtime::start(Arc::clone(&bell), bells, Arc::clone(pulse), manager) {
            Ok(runtime) => Rc::new(runtime),
            Err(error) => return drop(report.send(Err(error))),
        };
        watched.know_killer(runtime.control().killer());
        let _ = report.send(Ok(()));
        let ending = engine::run(&bell, pulse, &inbox, &runtime, Vec::new());
        if watched.verdict().is_ok() {
            end(ending, runtime);
        }
    };
    thread::Builder::new()
        .name("offshoot MPI".to_owned())
        .spawn(body)
        .map_err(|error| BuildError::System(error.to_string()))?;
    started.recv_timeout(init_timeout).unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Disconnected => {
                BuildError::Mpi("the MPI thread panicked while it started".to_owned())
            }
            RecvTimeoutError::Timeout => BuildError::Stuck(init_overdue(init_timeout)),
        })
    })?;
    // After MPI_Init, so that it runs before what MPI and its libraries have registered.
    STARTED_IN.store(std::process::id(), Ordering::Relaxed);
    process::at_exit(finish);
    Ok(MpiThread { requests, doorbell, watchdog })
}

fn init_overdue(limit: Duration) -> String {
    let others = launch::Job::of_this_process().filter(|job| job.size > 1).map(|job| {
        let launch::Job { rank, size } = job;
        format!(": this process is rank {rank} of {size} of a job, and all of them must call it")
    });
    format!(
        "MPI_Init had not returned after {limit:?}{}; `offshoot doctor` looks for reasons, `spawn_timeout` sets how \
         long it may take",
        others.unwrap_or_default()
    )
}

/// Ends MPI, and tells whoever ends the process. Even where workers are still connected: without
/// `MPI_Finalize` MPICH's launcher takes the exit for a crash and kills the host's process group. Should
/// it hang, as it may then, the end of the process does not wait for it for ever.
fn end(ending: Ending, runtime: Rc<Runtime>) {
    if ending == Ending::Unclean {
        tracing::warn!("the process ends while workers are still connected");
    }
    if let Some(runtime) = Rc::into_inner(runtime) {
        runtime.finish();
    }
    *ENDED.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    ENDED.1.notify_all();
}

/// The process that has the MPI thread.
static STARTED_IN: AtomicU32 = AtomicU32::new(0);

/// Whether this process is a child that was forked from the one that has the MPI thread.
pub(crate) fn is_of_another_process() -> bool {
    ![0, std::process::id()].contains(&STARTED_IN.load(Ordering::Relaxed))
}

static ENDED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Runs at the end of the process, on the thread that ends it. Thread-locals are gone by then.
fn finish() {
    // Its end is no business of ours.
    if is_of_another_process() {
        return;
    }
    let Some(Ok(thread)) = &*MPI_THREAD.lock().unwrap_or_else(PoisonError::into_inner) else { return };
    // One that was given up does not come back. Its MPI cannot be finalized, which hydra would punish.
    if thread.watchdog.verdict().is_err() {
        return launch::end_daemons();
    }
    if thread.requests.send(Request::Finish { grace: EXIT_GRACE }).is_err() {
        return;
    }
    thread.doorbell.ring();
    let ended = ENDED.0.lock().unwrap_or_else(PoisonError::into_inner);
    // A little longer than the grace: MPI_Finalize itself takes a while.
    let (ended, _) = ENDED
        .1
        .wait_timeout_while(ended, 2 * EXIT_GRACE, |ended| !*ended)
        .unwrap_or_else(PoisonError::into_inner);
    if *ended {
        // The last words of workers that have left with their pools.
        transport::output::wait_until_written(OUTPUT_PATIENCE);
    } else {
        launch::end_daemons();
    }
}
