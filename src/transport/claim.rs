//! Which task a worker has begun last, in a word of memory that it shares with whoever may stop it from beginning another.
//!
//! A task belongs to the worker from the moment when the word says so. The host cannot know in time what that says, and
//! the worker, whose only thread runs a task, hears nothing; so what decides between the two is one atomic operation on
//! the word, at the worker's side and on its machine: the worker's, that begins a task, or that of its guard (in memory:
//! of the transport), that counts one recall more. Either finds what the other has done. A stopped worker begins
//! nothing until the host has told it, among the tasks that it sends, that it may go on: so both know which tasks were
//! sent before that. It goes on when it has been told so as often as it was stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::TaskId;

/// The upper bits count the recalls, and may well run over; the others say what has begun last.
const RECALL: u64 = 1 << 48;
const BEGUN: u64 = RECALL - 1;
/// Nobody begins anything here, or has been heard to.
const NOBODY: u64 = 0;
/// A worker is here, and has begun nothing yet. Tasks have the numbers after this.
const NOTHING: u64 = 1;

/// The word, in a page that two processes share, or in this one's memory.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    Shared(&'static AtomicU64),
    Own(Arc<AtomicU64>),
}

impl Word {
    /// One of this process's own.
    pub(crate) fn own() -> Self {
        Self::Own(Arc::new(AtomicU64::new(NOBODY)))
    }

    fn get(&self) -> &AtomicU64 {
        match self {
            Self::Shared(word) => word,
            Self::Own(word) => word,
        }
    }

    /// Stops the worker from beginning another task. Returns the last that it has begun, if any; or nothing at all if
    /// no worker looks at this word, which then goes on as ever.
    pub(crate) fn recall(&self) -> Option<Option<TaskId>> {
        let stop = |word: u64| (word & BEGUN != NOBODY).then(|| word.wrapping_add(RECALL));
        let before = self.get().fetch_update(Ordering::AcqRel, Ordering::Acquire, stop).ok()?;
        Some((before & BEGUN).checked_sub(NOTHING + 1).map(TaskId))
    }
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Claim {
    word: Word,
    /// What the word says unless the worker was stopped.
    expected: u64,
}

impl Claim {
    /// Takes possession of a word.
    pub(crate) fn new(word: Word) -> Self {
        word.get().store(NOTHING, Ordering::Release);
        Self { word, expected: NOTHING }
    }

    /// Begins a task. False if it is not this worker's any more, nor is what was sent after it, until it may go on.
    #[must_use]
    pub(crate) fn begin(&mut self, task: TaskId) -> bool {
        // At a million tasks a second, the numbers last for nine years.
        let begun = self.expected & !BEGUN | task.0.wrapping_add(NOTHING + 1) & BEGUN;
        let claimed =
            self.word.get().compare_exchange(self.expected, begun, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_ok() {
            self.expected = begun;
        }
        claimed.is_ok()
    }

    /// The host has taken back what had not begun.
    pub(crate) fn resume(&mut self) {
        self.expected = self.expected.wrapping_add(RECALL);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn a_worker_that_was_stopped_begins_nothing_until_it_may_go_on() {
        let word = Word::own();
        let mut claim = Claim::new(word.clone());
        assert_eq!(word.recall(), Some(None));
        assert!(!claim.begin(TaskId(0)));
        claim.resume();
        assert!(claim.begin(TaskId(0)) && claim.begin(TaskId(7)));
        assert_eq!(word.recall(), Some(Some(TaskId(7))));
        assert_eq!(word.recall(), Some(Some(TaskId(7))));
        claim.resume();
        assert!(!claim.begin(TaskId(8)), "it was stopped twice");
        claim.resume();
        assert!(claim.begin(TaskId(8)));
    }

    #[test]
    fn who_does_not_look_at_the_word_is_not_stopped() {
        assert_eq!(Word::own().recall(), None);
    }

    #[test]
    fn more_recalls_than_are_counted_are_as_good_as_few() {
        let word = Word::own();
        let mut claim = Claim::new(word.clone());
        for round in 0..200_000 {
            assert!(claim.begin(TaskId(round)));
            assert_eq!(word.recall(), Some(Some(TaskId(round))));
            claim.resume();
        }
    }

    /// Of each task exactly one side knows that it is its own.
    #[test]
    fn a_race_has_one_winner() {
        for _ in 0..2_000 {
            let word = Word::own();
            let mut claim = Claim::new(word.clone());
            let barrier = Barrier::new(2);
            let (begun, last) = thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    barrier.wait();
                    (0..20).take_while(|&task| claim.begin(TaskId(task))).count() as u64
                });
                barrier.wait();
                let last = word.recall().expect("a worker is there");
                (worker.join().expect("it does not panic"), last)
            });
            assert_eq!(last.map_or(0, |TaskId(last)| last + 1), begun);
        }
    }
}
