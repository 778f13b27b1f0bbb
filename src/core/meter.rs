//! Counts elementary steps in tests, so that a test can bound the work per event without a clock.
//!
//! Every operation on a line or a queue and every turn of a loop is one step. Outside tests it is nothing.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One step was taken.
#[inline]
pub(super) fn step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

/// The steps of this thread so far.
#[cfg(test)]
pub(super) fn steps() -> u64 {
    STEPS.get()
}
