//! Pools whose MPI is in this process, on its MPI thread; and what speaks against that.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::unbounded;

use super::Shared;
use super::backend::Wanted;
use crate::containment::Containment;
use crate::driver::mpi_thread::{self, MpiThread};
use crate::driver::{Driver, Turn, Turnable};
use crate::error::BuildError;
use crate::launch::{self, ProcessManager, Site};
use crate::slots::SlotsError;
use crate::transport::mpi::{self, Guest, MpiTransport, Terms};

/// Why this process should not make MPI calls of ours, if so.
pub(super) fn why_isolated() -> Option<&'static str> {
    if mpi_thread::is_of_another_process() {
        return Some("this process was forked from one that has initialized MPI");
    }
    // What one pool has done, the next one may do.
    if mpi::facts().is_some() {
        return mpi::is_finalized().then_some("MPI was finalized in this process");
    }
    if launch::has_two_mpis() {
        return Some("this process has loaded two MPI libraries");
    }
    if let Some(reason) = mpi::why_unfit() {
        return Some(reason);
    }
    let is_of_larger_job = launch::Job::of_this_process().is_some_and(|job| job.size > 1);
    is_of_larger_job.then_some("this process is a rank of a job of several")
}

/// Why a pool of this process has no workers on other hosts.
const ALREADY_OWN: &str = "this process has initialized MPI for a pool on this host alone, with a process manager of \
                           offshoot's own, which starts workers here only: build the pool with other hosts first, or \
                           export OFFSHOOT_PROCESS_MANAGER=hydra";

/// A pool whose MPI is in this process.
pub(super) fn embedded(wanted: Wanted<'_>) -> Result<(Arc<Shared>, Containment), BuildError> {
    let Wanted { config, program, queue_max, slots, containment: asked, kill_grace, heartbeat_timeout, sink } =
        wanted;
    let terms = Terms { spawn_timeout: config.spawn_timeout, kill_grace, heartbeat_timeout, sink };
    let sites: Vec<Site> = launch::sites(slots, config.workers_max)?;
    // What was prepared can be told before MPI starts; whose MPI it is, only then.
    launch::check_containment(asked, None)?;
    let thread = MpiThread::get(config.spawn_timeout, launch::process_manager(slots.has_other_hosts()))?;
    if slots.has_other_hosts() && mpi::facts().is_some_and(|facts| facts.manager == ProcessManager::Own) {
        return Err(SlotsError::OwnHostOnly {
            source_of_slots: slots.source.clone(),
            reason: ALREADY_OWN.to_owned(),
        }
        .into());
    }
    let containment = mpi::facts().map_or(Containment::Fast, |facts| facts.containment);
    launch::check_containment(asked, Some(containment))?;
    let watchdog = Arc::clone(thread.watchdog());
    let (commands, inbox) = unbounded();
    let shared = Arc::new(Shared::new(commands, thread.doorbell(), queue_max));
    shared.set_sink(terms.sink.clone());
    let driven = Arc::clone(&shared);
    thread.admit(move |runtime| {
        let transport = MpiTransport::new(Rc::clone(runtime), terms, sites);
        let driver = Driver::new(config, program, transport, inbox, driven);
        watchdog.admit(&driver.books());
        Box::new(Beside::new(driver)) as Box<dyn Turnable>
    })?;
    Ok((shared, containment))
}

/// A driver beside a host that may finalize its MPI at any time: then the pool ends, and what is left of it after a while
/// is given up.
struct Beside {
    driver: Driver<MpiTransport>,
    /// Dropped after the driver, which calls MPI no more then.
    _guest: Guest,
    /// Until when it has to end, if the host has begun to finalize MPI.
    end_by: Option<Instant>,
}

impl Beside {
    fn new(driver: Driver<MpiTransport>) -> Self {
        Self { driver, _guest: Guest::new(), end_by: None }
    }
}

impl Turnable for Beside {
    fn turn(&mut self) -> Turn {
        if self.end_by.is_none() && mpi::is_finalized() {
            tracing::warn!("{FINALIZED}");
            self.driver.shut_down();
            self.end_by = Some(Instant::now() + mpi::FINALIZE_GRACE);
        }
        if self.end_by.is_some_and(|end_by| Instant::now() > end_by) {
            self.driver.fail(FINALIZED);
            return Turn::Closed;
        }
        match self.driver.turn() {
            Turn::Quiet { polling, until } => {
                Turn::Quiet { polling, until: until.into_iter().chain(self.end_by).min() }
            }
            other => other,
        }
    }

    fn has_news(&mut self) -> bool {
        self.end_by.is_none() && mpi::is_finalized() || self.driver.has_news()
    }

    fn shut_down(&mut self) {
        self.driver.shut_down();
    }

    fn fail(&mut self, reason: &str) {
        self.driver.fail(reason);
    }
}

/// Why a pool has ended whose MPI is gone.
const FINALIZED: &str =
    "the host finalizes MPI while the pool lives; drop a pool before that, or build it with `isolated()`";
