//! What API threads and the driver of a pool share: the way in, the gate, the numbers, the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendError, Sender};

use super::Gate;
use super::stats::Stats;
use crate::core;
use crate::driver::Command;
use crate::ids::TaskId;
use crate::process;
use crate::transport::Doorbell;
use crate::transport::output::Sink;

/// Shared by a pool, its handles and streams, and its driver.
pub(crate) struct Shared {
    commands: Sender<Command>,
    doorbell: Arc<Doorbell>,
    pub(crate) gate: Gate,
    next_task: AtomicU64,
    stats: Mutex<Stats>,
    driver: Mutex<Option<ThreadId>>,
    ended: Mutex<bool>,
    changed: Condvar,
    /// Goes with `has_parent`.
    left: Condvar,
    /// Where what the workers write goes, if anywhere.
    sink: OnceLock<Arc<Sink>>,
    /// Isolated parents started so far.
    parents: Arc<AtomicU64>,
    /// Whether one is there, or may be.
    has_parent: Mutex<bool>,
    /// What `process::forks` said when the pool was built.
    forks: u32,
}

/// How long the end of a pool waits for its isolated parent, which finalizes MPI.
const PARENT_PATIENCE: Duration = Duration::from_secs(3);
/// How long the end of a pool waits for what its workers wrote last.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);

impl Shared {
    pub(crate) fn new(commands: Sender<Command>, doorbell: Arc<Doorbell>, queue_max: usize) -> Self {
        Self {
            commands,
            doorbell,
            gate: Gate::new(queue_max),
            next_task: AtomicU64::new(1),
            stats: Mutex::default(),
            driver: Mutex::new(None),
            ended: Mutex::new(false),
            changed: Condvar::new(),
            left: Condvar::new(),
            sink: OnceLock::new(),
            parents: Arc::default(),
            has_parent: Mutex::new(false),
            forks: process::forks(),
        }
    }

    /// The workers write there. Said once, before anything is driven.
    pub(crate) fn set_sink(&self, sink: Option<Arc<Sink>>) {
        if let Some(sink) = sink {
            let _ = self.sink.set(sink);
        }
    }

    /// How many isolated parents there have been; also for whoever counts them.
    pub(crate) fn parents(&self) -> u64 {
        self.parents.load(Ordering::Relaxed)
    }

    pub(crate) fn count_of_parents(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.parents)
    }

    /// There is an isolated parent from now on, or none any more.
    pub(crate) fn note_parent(&self, is_there: bool) {
        *self.has_parent.lock().unwrap_or_else(PoisonError::into_inner) = is_there;
        self.left.notify_all();
    }

    /// Waits, after the driver's end, for what the workers wrote last, and for the end of the isolated parent, if there is one:
    /// MPI and its daemons go with it.
    pub(crate) fn wait_for_the_rest(&self) {
        if let Some(sink) = self.sink.get() {
            sink.wait_until_written(OUTPUT_PATIENCE);
        }
        let has_parent = self.has_parent.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.left.wait_timeout_while(has_parent, PARENT_PATIENCE, |is_there| *is_there));
    }

    /// Whether this process is a child of the one that the pool belongs to, with a copy of its memory. There is no driver in it,
    /// and a lock may be held by a thread that is not there either.
    pub(crate) fn is_of_another_process(&self) -> bool {
        self.forks != process::forks()
    }

    /// A number for a new task.
    pub(crate) fn number_task(&self) -> TaskId {
        TaskId(self.next_task.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes no more tasks, for this reason, and has the driver end.
    pub(crate) fn close(&self, reason: &str, mode: core::ShutdownMode) {
        self.gate.close(reason);
        self.send(Command::Shutdown(mode));
    }

    /// Asks the driver for something. One that has ended is asked in vain: what is submitted ends at once.
    pub(crate) fn send(&self, command: Command) {
        if self.is_of_another_process() {
            return command.shut_out();
        }
        match self.commands.send(command) {
            Ok(()) => self.doorbell.ring(),
            Err(SendError(command)) => command.shut_out(),
        }
    }

    /// The calling thread drives this pool.
    pub(crate) fn note_driver(&self) {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
    }

    /// Whether the calling thread drives this pool.
    pub(crate) fn is_driver(&self) -> bool {
        *self.driver.lock().unwrap_or_else(PoisonError::into_inner) == Some(thread::current().id())
    }

    /// `lent`: how many tasks had large arrays among their arguments, or in their results, that were not sent.
    pub(crate) fn publish(&self, stats: &core::Stats, lent: [u64; 2]) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = Stats::of(stats, lent);
    }

    pub(crate) fn stats(&self) -> Stats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver has ended.
    pub(crate) fn end(&self, reason: &str) {
        self.gate.close(reason);
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for the driver's end, for ever or for a time. Whether it has ended.
    pub(crate) fn wait_for_end(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            let left = until
                .map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            ended = self.changed.wait_timeout(ended, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *ended
    }
}
