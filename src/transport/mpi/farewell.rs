//! The end of an MPI that the host has initialized, and may finalize at any time under a pool.
//!
//! `MPI_Finalize` first deletes the attributes of `MPI_COMM_SELF`, before anything else of MPI is affected (MPI-4.1
//! §11.2.4). One of them is ours: its callback has the pools end, and waits for that on the host's thread. The MPI thread
//! calls MPI for a pool only.
//!
//! On MPICH (5.0.2, `MPII_Finalize`) the callback comes a little late: before, critical sections are switched off, and what
//! another thread has locked by then stays locked, so that `MPI_Finalize` aborts in the end. That takes a pool that is at
//! work: the MPI thread of one at rest sleeps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use mpi::environment;

use super::ffi::{self, MpiError};
use crate::transport::Doorbell;

/// How long pools have to end, their running tasks included.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How much longer `MPI_Finalize` then waits for the MPI thread, which may be in a spawn.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// Whether the host has called `MPI_Finalize`.
static HAS_BEGUN: AtomicBool = AtomicBool::new(false);
/// How many pools use MPI.
static GUESTS: AtomicUsize = AtomicUsize::new(0);
/// Where the MPI thread sleeps.
static DOORBELL: OnceLock<Arc<Doorbell>> = OnceLock::new();

/// Has the host's `MPI_Finalize` wait for the pools.
pub(super) fn expect(doorbell: &Arc<Doorbell>) -> Result<(), MpiError> {
    let _ = DOORBELL.set(Arc::clone(doorbell));
    ffi::call_before_finalize(begin)
}

/// Whether MPI has been finalized in this process, or is about to be.
pub(crate) fn is_finalized() -> bool {
    HAS_BEGUN.load(Ordering::Acquire) || environment::is_finalized()
}

/// A pool that uses MPI: its end is waited for.
pub(crate) struct Guest(());

impl Guest {
    pub(crate) fn new() -> Self {
        GUESTS.fetch_add(1, Ordering::AcqRel);
        Self(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        GUESTS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// On the host's thread, which is in `MPI_Finalize`.
fn begin() {
    HAS_BEGUN.store(true, Ordering::Release);
    if let Some(doorbell) = DOORBELL.get() {
        doorbell.ring();
    }
    let since = Instant::now();
    while GUESTS.load(Ordering::Acquire) > 0 {
        if since.elapsed() > GRACE + PATIENCE {
            return tracing::warn!("the host finalizes MPI while a call on the MPI thread does not return");
        }
        thread::sleep(LOOK_EVERY);
    }
}
