//! The gate: how many unfinished tasks a pool holds at most, and who waits to hand in more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts unfinished tasks. API threads enter, the driver leaves for them.
///
/// The fast path is one atomic operation; the lock is for those that wait, and for the end.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: usize,
    inside: AtomicUsize,
    waiting: AtomicUsize,
    open: AtomicBool,
    closed: Mutex<Option<Arc<str>>>,
    changed: Condvar,
}

/// Waiters look again after this long, whatever happens.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            inside: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            open: AtomicBool::new(true),
            closed: Mutex::new(None),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many tasks are inside now.
    #[cfg(test)]
    pub(crate) fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Lets up to `wanted` tasks in, as many as there is room for.
    pub(crate) fn try_enter(&self, wanted: usize) -> usize {
        let mut inside = self.inside.load(Ordering::Relaxed);
        loop {
            let granted = wanted.min(self.limit.saturating_sub(inside));
            if granted == 0 {
                return 0;
            }
            match self.inside.compare_exchange_weak(
                inside,
                inside + granted,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return granted,
                Err(current) => inside = current,
            }
        }
    }

    /// Lets one task in, after a wait if need be; not if the pool is or becomes closed.
    pub(crate) fn enter(&self) -> Result<(), Arc<str>> {
        if self.try_enter(1) == 1 {
            return Ok(());
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut closed = self.lock();
        let entered = loop {
            if let Some(reason) = &*closed {
                break Err(Arc::clone(reason));
            }
            if self.try_enter(1) == 1 {
                break Ok(());
            }
            closed = self.changed.wait_timeout(closed, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(closed);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        entered
    }

    /// So many tasks have ended.
    pub(crate) fn leave(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.inside.fetch_sub(count, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Under the lock, so that nobody is between its look and its wait.
            let _closed = self.lock();
            self.changed.notify_all();
        }
    }

    /// Lets nobody in any more. The first reason stays.
    pub(crate) fn close(&self, reason: &str) {
        self.lock().get_or_insert_with(|| reason.into());
        self.open.store(false, Ordering::Release);
        self.changed.notify_all();
    }

    /// Why nobody is let in any more.
    pub(crate) fn closed(&self) -> Option<Arc<str>> {
        if self.open.load(Ordering::Acquire) { None } else { self.lock().clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
