//! The pulse of a thread that may be caught in a call that never returns: the thread beats, a watchdog
//! counts. Here is what both share; what follows when a pulse stops is the watchdog's business.
//!
//! MPI calls that should not block can, and those that block can do so for ever: the peer that they wait
//! for has died in a way that the library does not notice. Nothing brings them back, so the watchdog
//! gives up the thread. It counts in steps of its own and not by the clock: a process that was stopped, or
//! a machine that slept, has missed many seconds but only one step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks of the watchdog at a thread that is awake.
const STEP: Duration = Duration::from_millis(250);
/// And at one that sleeps. It does not wake its watchdog, which would cost time just when somebody is waiting for it.
const REST: Duration = Duration::from_secs(1);
/// For so long the thread may go without a beat if it has said nothing of a call that takes its time.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// And that of an isolated parent, which takes a second or two to replace.
const TURN_LIMIT_OF_PARENT: Duration = Duration::from_secs(10);

/// A call of MPI that waits for others, as long as they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Any of those that should return at once.
    Other,
    Spawn,
    Disconnect,
    Finalize,
}

impl Call {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Other => "an MPI call that should return at once",
            Self::Spawn => "MPI_Comm_spawn",
            Self::Disconnect => "MPI_Comm_disconnect",
            Self::Finalize => "MPI_Finalize",
        }
    }
}

/// What the thread and its watchdog share.
#[derive(Debug)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    asleep: AtomicBool,
    call: Mutex<(Call, Duration)>,
    turn_limit: Duration,
}

impl Default for Pulse {
    fn default() -> Self {
        Self::with_turn_limit(TURN_LIMIT)
    }
}

impl Pulse {
    /// That of the main thread of an isolated parent.
    pub(crate) fn of_parent() -> Self {
        Self::with_turn_limit(TURN_LIMIT_OF_PARENT)
    }

    fn with_turn_limit(turn_limit: Duration) -> Self {
        Self {
            beats: AtomicU64::new(0),
            // It has to be woken up first.
            asleep: AtomicBool::new(true),
            call: Mutex::new((Call::Other, turn_limit)),
            turn_limit,
        }
    }

    /// The thread lives.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a call that may take up to `limit`.
    pub(crate) fn during<T>(&self, call: Call, limit: Duration, make: impl FnOnce() -> T) -> T {
        self.set(call, limit);
        let result = make();
        self.set(Call::Other, self.turn_limit);
        result
    }

    fn set(&self, call: Call, limit: Duration) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = (call, limit);
        self.beat();
    }

    /// The thread is about to sleep of its own will.
    pub(crate) fn sleeps(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// The thread is awake again.
    pub(crate) fn wakes(&self) {
        self.beat();
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Watches until the pulse has stopped, and says in which call, and for how long. `is_hopeless` is asked
    /// now and then about a call that has not returned yet, and may say why it never will.
    pub(crate) fn watch(
        &self,
        mut is_hopeless: impl FnMut(Call) -> Option<String>,
    ) -> (Call, Duration, Option<String>) {
        let mut seen = self.beats.load(Ordering::Relaxed);
        let mut silence = Duration::ZERO;
        loop {
            std::thread::sleep(if self.asleep.load(Ordering::SeqCst) { REST } else { STEP });
            let beats = self.beats.load(Ordering::Relaxed);
            if beats != seen || self.asleep.load(Ordering::SeqCst) {
                (seen, silence) = (beats, Duration::ZERO);
                continue;
            }
            silence += STEP;
            let (call, limit) = *self.call.lock().unwrap_or_else(PoisonError::into_inner);
            if silence >= limit {
                return (call, silence, None);
            }
            if let Some(reason) = is_hopeless(call) {
                return (call, silence, Some(reason));
            }
        }
    }
}

/// Tells how long something has been going on, for those who look now and then. However late a look comes, it counts for
/// two steps at most.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    what: Option<u64>,
    silence: Duration,
    looked: Instant,
}

impl Default for Stopwatch {
    fn default() -> Self {
        Self { what: None, silence: Duration::ZERO, looked: Instant::now() }
    }
}

impl Stopwatch {
    /// Counts the time since the last look, unless that was done just now: for how long `what` has been going on.
    pub(crate) fn look(&mut self, what: u64) -> Option<Duration> {
        if self.what != Some(what) {
            *self = Self { what: Some(what), ..Self::default() };
        }
        let passed = self.looked.elapsed();
        if passed < STEP {
            return None;
        }
        self.looked = Instant::now();
        self.silence += passed.min(2 * STEP);
        Some(self.silence)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// A watchdog over a pulse, and what it reports in the end.
    fn watched(
        pulse: &Arc<Pulse>,
        hopeless: Option<&'static str>,
    ) -> thread::JoinHandle<(Call, Duration, Option<String>)> {
        let pulse = Arc::clone(pulse);
        thread::spawn(move || pulse.watch(|call| hopeless.filter(|_| call == Call::Spawn).map(str::to_owned)))
    }

    #[test]
    fn a_call_that_is_over_its_limit_is_reported() {
        let pulse = Arc::new(Pulse::default());
        let watchdog = watched(&pulse, None);
        pulse.wakes();
        let stuck =
            pulse.during(Call::Spawn, Duration::from_millis(600), || watchdog.join().expect("it watches"));
        assert_eq!((stuck.0, stuck.2), (Call::Spawn, None));
        assert!(stuck.1 >= Duration::from_millis(600));
    }

    #[test]
    fn a_call_that_is_hopeless_is_reported_at_once() {
        let pulse = Arc::new(Pulse::default());
        let watchdog = watched(&pulse, Some("nobody is there"));
        pulse.wakes();
        let stuck =
            pulse.during(Call::Spawn, Duration::from_secs(3600), || watchdog.join().expect("it watches"));
        assert_eq!((stuck.0, stuck.2.as_deref()), (Call::Spawn, Some("nobody is there")));
    }

    #[test]
    fn a_stopwatch_counts_looks_and_begins_anew() {
        let mut stopwatch = Stopwatch::default();
        assert_eq!(stopwatch.look(1), None, "it has just begun");
        thread::sleep(3 * STEP);
        assert_eq!(stopwatch.look(1), Some(2 * STEP), "however late");
        assert_eq!(stopwatch.look(1), None);
        thread::sleep(STEP);
        assert!(stopwatch.look(1).is_some_and(|silence| silence >= 3 * STEP));
        assert_eq!(stopwatch.look(2), None);
        thread::sleep(STEP);
        assert!(stopwatch.look(2).is_some_and(|silence| (STEP..=2 * STEP).contains(&silence)));
    }

    #[test]
    fn a_thread_that_beats_or_sleeps_is_left_alone() {
        let pulse = Arc::new(Pulse::default());
        let watchdog = watched(&pulse, None);
        pulse.wakes();
        pulse.during(Call::Other, 2 * STEP, || {
            for _ in 0..12 {
                thread::sleep(STEP / 3);
                pulse.beat();
            }
        });
        pulse.sleeps();
        thread::sleep(4 * STEP);
        assert!(!watchdog.is_finished());
        pulse.wakes();
        let stuck = pulse.during(Call::Disconnect, Duration::ZERO, || watchdog.join().expect("it watches"));
        assert_eq!(stuck.0, Call::Disconnect);
    }

    #[test]
    fn a_turn_that_never_ends_is_noticed_in_time() {
        let pulse = Arc::new(Pulse::with_turn_limit(Duration::from_millis(600)));
        pulse.wakes();
        pulse.during(Call::Spawn, Duration::from_secs(3600), || ());
        let watchdog = watched(&pulse, None);
        let (call, silence, why) = watchdog.join().expect("it watches");
        assert_eq!((call, why), (Call::Other, None));
        assert!(silence >= Duration::from_millis(600), "{silence:?}");
    }
}
