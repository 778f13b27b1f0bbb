//! MPI in this process: who initialized it, who may finalize it, and the communicator to spawn from.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mpi::Threading;
use mpi::environment;
use mpi::traits::*;

use super::birth::Ports;
use super::farewell::{self, is_finalized};
use super::ffi::{self, Comm, MpiError};
use super::nagle;
use super::pmix;
use super::spawner::{Health, Spawner};
use crate::containment::Containment;
use crate::error::BuildError;
use crate::launch::{self, Answer, Decoy, Launchers, Manager, ProcessManager};
use crate::process;
use crate::transport::bells::{Bells, Pair};
use crate::transport::control::{Aid, Control};
use crate::transport::{Call, Doorbell, Pulse};

/// How long `MPI_Finalize` may take.
const FINALIZE_LIMIT: Duration = Duration::from_secs(30);

/// What MPI said when it was initialized.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) thread_level: &'static str,
    /// What the transport is known to survive.
    pub(crate) containment: Containment,
    /// Who starts what is spawned.
    pub(crate) manager: ProcessManager,
    /// `MPI_UNIVERSE_SIZE`, where it is set, once something was spawned.
    pub(crate) universe_size: Option<i32>,
}

static THREAD_LEVEL: OnceLock<&str> = OnceLock::new();
static CONTAINMENT: OnceLock<Containment> = OnceLock::new();
static MANAGER: OnceLock<ProcessManager> = OnceLock::new();
static UNIVERSE_SIZE: OnceLock<Option<i32>> = OnceLock::new();

/// What MPI said, if it was initialized by or for a pool.
pub(crate) fn facts() -> Option<Facts> {
    let thread_level = THREAD_LEVEL.get()?;
    let containment = CONTAINMENT.get().copied().unwrap_or(Containment::Fast);
    let manager = MANAGER.get().copied().unwrap_or(ProcessManager::Launcher);
    Some(Facts { thread_level, containment, manager, universe_size: UNIVERSE_SIZE.get().copied().flatten() })
}

/// Why an MPI that the host has initialized, or finalized, cannot be used beside it, if so.
pub(crate) fn why_unfit() -> Option<&'static str> {
    if is_finalized() {
        return Some("MPI was finalized in this process");
    }
    if process::forks() > 0 && environment::is_initialized() {
        return Some("MPI was initialized in this process, or in the one that it was forked from");
    }
    let is_low = environment::is_initialized() && environment::threading_support() < Threading::Multiple;
    is_low.then_some("this process has initialized MPI below MPI_THREAD_MULTIPLE")
}

/// How a worker comes to be spawned.
pub(super) struct Way {
    /// Where it is ordered and met, if this process is its own process manager: then `MPI_Comm_spawn` is not called at all, and the
    /// MPI thread meets the worker when that is about to connect.
    pub(super) ports: Option<Ports>,
    /// The thread on which it is called, if not the MPI thread, which then does nothing else.
    pub(super) spawner: Option<Spawner>,
}

/// MPI, as the thread that owns it sees it.
pub(crate) struct Runtime {
    /// Our duplicate of `COMM_SELF`.
    spawner: Comm,
    way: Way,
    doorbell: Arc<Doorbell>,
    /// Whether we initialized MPI, and so have to finalize it.
    ours: bool,
    /// Where the guards of what is spawned report.
    control: Control,
    pulse: Arc<Pulse>,
    /// Whether a worker was given up without a disconnect.
    has_losses: Cell<bool>,
    has_spawned: Cell<bool>,
    launchers: RefCell<Launchers>,
    manager: ProcessManager,
    /// The doorbells of this process's workers, if they could be made.
    bells: Option<Arc<Bells>>,
}

impl Runtime {
    /// Makes the calling thread the MPI thread. Initializes MPI, unless the host has done so.
    pub(crate) fn start(
        doorbell: Arc<Doorbell>,
        bells: Option<Arc<Bells>>,
        pulse: Arc<Pulse>,
        manager: ProcessManager,
    ) -> Result<Self, BuildError> {
        ffi::claim_thread();
        if environment::is_finalized() {
            return Err(BuildError::Finalized);
        }
        // First what can fail and be tried again: MPI has one life.
        let secret = process::secret().ok_or(BuildError::NotInitialized)?;
        let aid = Aid { release: answer_for_the_dead, ask: launch::needs_burial().then_some(ask_daemon) };
        let control = Control::start(secret, Arc::clone(&doorbell), aid)
            .map_err(|error| BuildError::System(error.to_string()))?;
        let own = (manager == ProcessManager::Own && !environment::is_initialized()).then(launch::serve);
        let own = own.transpose().map_err(|error| BuildError::System(error.to_string()))?;
        let ours = initialize(Threading::Multiple);
        let office = own.and_then(Manager::settle);
        let manager = if office.is_some() { ProcessManager::Own } else { ProcessManager::Launcher };
        let _ = MANAGER.set(manager);
        let provided = environment::threading_support();
        // An MPI of our own is used by this thread alone; one that the host uses too must allow both.
        if !ours && provided < Threading::Multiple {
            return Err(BuildError::ThreadLevel {
                provided: level(provided).to_owned(),
                required: level(Threading::Multiple).to_owned(),
            });
        }
        if ours {
            ffi::return_errors().map_err(|error| BuildError::Mpi(error.to_string()))?;
            RETURNS_ERRORS.store(true, Ordering::Relaxed);
        } else {
            farewell::expect(&doorbell).map_err(|error| BuildError::Mpi(error.to_string()))?;
        }
        // Of an MPI that the host has initialized, neither when nor how is known, nor what it does about errors.
        let prepared = launch::prepared().filter(|_| ours).map(|prepared| prepared.transport.containment);
        let containment = prepared.unwrap_or(Containment::Fast);
        let _ = CONTAINMENT.set(containment);
        let _ = THREAD_LEVEL.set(level(provided));
        let duplicate = || Comm::duplicate_self().map_err(|error| BuildError::Mpi(error.to_string()));
        let spawner = duplicate()?;
        let ports = office.and_then(|office| Ports::learn(office, &spawner, containment));
        let spawner_thread = if launch::spawns_aside() && ports.is_none() && provided >= Threading::Multiple {
            let thread = Spawner::start(duplicate()?, control.clone(), Arc::clone(&doorbell));
            Some(thread.map_err(|error| BuildError::System(error.to_string()))?)
        } else {
            None
        };
        let way = Way { ports, spawner: spawner_thread };
        Ok(Self {
            spawner,
            way,
            doorbell,
            ours,
            control,
            pulse,
            has_losses: Cell::new(false),
            has_spawned: Cell::new(false),
            launchers: RefCell::default(),
            manager,
            bells,
        })
    }

    /// Whether MPI still is what it was at the start: a host may finalize its own at any time.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        if is_finalized() { Err(BuildError::Finalized) } else { Ok(()) }
    }

    pub(crate) fn spawner(&self) -> &Comm {
        &self.spawner
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// Whether the MPI's daemons answer, as far as is known.
    pub(super) fn health(&self) -> Health {
        self.way.spawner.as_ref().map_or(Health::Good, Spawner::health)
    }

    /// Wakes the MPI thread.
    pub(super) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// The doorbells of workers on this machine.
    pub(crate) fn bells(&self) -> Option<&Arc<Bells>> {
        self.bells.as_ref()
    }

    /// Says of each MPI call that waits for others which one it is, and how long it may take.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// What is to lie there while MPI starts its launcher: in the first spawn, if at all.
    pub(crate) fn decoy(&self) -> Option<Decoy<'static>> {
        if self.has_spawned.replace(true) || self.manager == ProcessManager::Own {
            return None;
        }
        let laid = launch::prepared()?.decoy.as_ref()?.lay();
        laid.inspect_err(|error| tracing::warn!("no decoy could be laid for the launcher: {error}")).ok()
    }

    /// A spawn has succeeded, and whatever MPI needs for that is there.
    pub(crate) fn note_spawn(&self) {
        if self.manager == ProcessManager::Launcher {
            self.launchers.borrow_mut().look();
        }
        // Not before: MPICH starts its launcher to learn it, and there is a decoy during a spawn only.
        UNIVERSE_SIZE.get_or_init(|| ffi::universe_size().ok().flatten());
    }

    /// The program through which it spawns, if it has one already.
    pub(crate) fn launchers(&self) -> &RefCell<Launchers> {
        &self.launchers
    }

    /// A worker was given up without a disconnect.
    pub(crate) fn note_loss(&self) {
        self.has_losses.set(true);
    }

    /// Finalizes MPI if it is ours, and if this MPI comes to an end of that: it is collective over all that is
    /// still connected.
    pub(crate) fn finish(self) {
        if is_finalized() {
            return;
        }
        self.control.ask_no_more();
        // MPICH crashes in MPI_Finalize if its launcher is gone; others wait for it, or for the lost.
        let is_alone = self.launchers.borrow().loss().is_some();
        let mut has_losses = self.has_losses.get();
        let mut is_caught = false;
        if let Some(spawner) = self.way.spawner {
            has_losses |= spawner.has_losses();
            is_caught = !spawner.end();
        }
        if is_caught && !self.ours {
            return;
        }
        if self.ours && (is_caught || is_alone || has_losses && !launch::finalizes_after_loss()) {
            return launch::end_daemons();
        }
        let freed = self.spawner.free();
        let finalized =
            if self.ours { self.pulse.during(Call::Finalize, FINALIZE_LIMIT, finalize) } else { Ok(()) };
        if let Err(error) = freed.and(finalized) {
            tracing::warn!("MPI did not end well: {error}");
        } else if self.ours && has_losses {
            launch::end_useless_launcher();
        }
    }
}

/// Makes a spawn fail that waits for an answer of a worker that is dead, whichever it is. Called beside the MPI
/// thread, which is in that spawn.
fn answer_for_the_dead(port: &str) {
    let Some(answers) = launch::answers_of_nobody(port) else { return };
    for (name, answer) in answers {
        let name = CString::new(name).map_err(|error| error.to_string());
        let published = name.and_then(|name| match answer {
            Answer::Text(text) => ffi::publish(&name, text).map_err(|error| error.to_string()),
            Answer::Bytes(bytes) => pmix::publish_bytes(&name, bytes),
        });
        if let Err(error) = published {
            // The worker may have given this one itself before it died, and died over the next.
            tracing::debug!("an answer for a dead worker could not be given: {error}");
        }
    }
}

/// Whether MPI returns errors, rather than to end the process: that of a host is as the host wants it.
static RETURNS_ERRORS: AtomicBool = AtomicBool::new(false);

/// Asks the daemon through which this process spawns for something, and waits for the answer. Called beside the MPI
/// thread.
fn ask_daemon() {
    if RETURNS_ERRORS.load(Ordering::Relaxed) {
        // It knows no such name, which is all that it can say.
        let _ = ffi::unpublish(c"offshoot", c"nobody");
    }
}

/// Initializes MPI in a worker, on the calling thread, and returns the link to its host, and its rank.
pub(crate) fn initialize_worker(bells: Option<Pair>) -> Result<(super::MpiLink, i32), String> {
    ffi::claim_thread();
    initialize(Threading::Multiple);
    ffi::return_errors().map_err(|error| error.to_string())?;
    let parent = Comm::parent().map_err(|error| error.to_string())?;
    let parent = parent.ok_or("MPI knows no parent of this process: was it started by MPI_Comm_spawn?")?;
    match parent.remote_size() {
        Ok(1) => {}
        Ok(size) => return Err(format!("the parent should be one process, and is {size}")),
        Err(error) => return Err(error.to_string()),
    }
    let rank = parent.rank().map_err(|error| error.to_string())?;
    Ok((super::MpiLink::new(parent, launch::flow(), bells), rank))
}

/// Initializes MPI in a guard, in the place of a worker that did not come to it, so that the parent's
/// `MPI_Comm_spawn` returns; and disconnects at once. The parent has been told, and does as well.
pub(crate) fn stand_in() {
    ffi::claim_thread();
    initialize(Threading::Multiple);
    let _ = ffi::return_errors();
    if let Ok(Some(parent)) = Comm::parent() {
        let _ = parent.disconnect();
    }
}

/// Finalizes MPI in a guard that has stood in.
pub(crate) fn finish_standing_in() {
    let _ = finalize();
}

/// Finalizes MPI in a worker that is disconnected from its host.
pub(crate) fn finalize_worker() -> Result<(), String> {
    finalize().map_err(|error| error.to_string())
}

/// Finalizes MPI, without the pauses between what it says to its daemon. Not before: what else depends on the order in which the
/// daemon hears of things stays as its makers know it.
fn finalize() -> Result<(), MpiError> {
    if launch::hurries_daemon() {
        nagle::send_at_once_to_daemon();
    }
    ffi::finalize()
}

/// Initializes MPI unless that was done before; returns whether it was done here.
fn initialize(level: Threading) -> bool {
    match environment::initialize_with_threading(level) {
        Some((universe, _provided)) => {
            // Dropping it would disconnect the parent and finalize, even while unwinding.
            let is_alone = universe.world().size() == 1;
            std::mem::forget(universe);
            if launch::launcher_ends_process() && !pmix::outlive_launcher() {
                tracing::warn!("the end of the MPI's launcher will end this process");
            }
            if is_alone {
                launch::unlink_segments();
                if launch::has_own_folders() {
                    ffi::port_name().iter().for_each(|port| launch::remove_own_folders(port));
                }
            }
            true
        }
        None => false,
    }
}

fn level(threading: Threading) -> &'static str {
    match threading {
        Threading::Single => "MPI_THREAD_SINGLE",
        Threading::Funneled => "MPI_THREAD_FUNNELED",
        Threading::Serialized => "MPI_THREAD_SERIALIZED",
        Threading::Multiple => "MPI_THREAD_MULTIPLE",
    }
}
