//! The end of a process that has isolated pools left: they end as if each had been dropped, so that what their workers wrote
//! last is there. Embedded ones are the business of the MPI thread, which has an MPI to finalize.

use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Shared;
use crate::core::ShutdownMode;
use crate::process;

/// How long the workers of all these pools have to leave.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// The isolated pools of this process.
static POOLS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Has the end of the process wait for that of this pool.
pub(super) fn note(pool: &Arc<Shared>) {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| process::at_exit(finish));
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|pool| pool.strong_count() > 0);
    pools.push(Arc::downgrade(pool));
}

/// Runs at the end of the process, on the thread that ends it.
fn finish() {
    // A child that was forked has copies of pools, and a thread that drives one cannot wait for itself.
    let is_to_end = |pool: &Arc<Shared>| !pool.is_of_another_process() && !pool.is_driver();
    let pools: Vec<_> = POOLS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .filter_map(Weak::upgrade)
        .filter(is_to_end)
        .collect();
    pools.iter().for_each(|pool| pool.close("its process ends", ShutdownMode::Cancel));
    let until = Instant::now() + EXIT_GRACE;
    for pool in pools {
        if pool.wait_for_end(Some(until.saturating_duration_since(Instant::now()))) {
            pool.wait_for_the_rest();
        }
    }
}
