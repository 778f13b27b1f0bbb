//! A decaying mean of durations in integer arithmetic, and the price of a task that follows from it.

use std::time::Duration;

use super::time::nanos;
use crate::ids::KindId;

/// No duration counts for more than this (36 years), so that eight of them fit into 64 bits.
const SAMPLE_MAX: u64 = 1 << 60;

/// No task is thought to cost less than this: a clock that reads zero must not fill a window.
const COST_MIN: u64 = 250;

/// An exponentially weighted mean: each new sample counts for one eighth.
///
/// Kept as eight times the mean, so that nothing is lost to rounding: `eighths += sample - eighths / 8`.
/// For a constant sample `s`, `eighths` moves into `8 s ..= 8 s + 7` and stays there, so the mean is
/// `s` exactly; a mean kept as such would stop up to seven units away from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    eighths: u64,
}

impl Mean {
    /// The mean of one sample.
    pub(super) fn of(sample: Duration) -> Mean {
        Mean { eighths: nanos(sample).min(SAMPLE_MAX) * 8 }
    }

    /// Takes in one more sample.
    pub(super) fn learn(&mut self, sample: Duration) {
        self.eighths = self.eighths - self.eighths / 8 + nanos(sample).min(SAMPLE_MAX);
    }

    /// Takes in a sample, which may be the first.
    pub(super) fn learn_in(mean: &mut Option<Mean>, sample: Duration) {
        match mean {
            Some(mean) => mean.learn(sample),
            None => *mean = Some(Mean::of(sample)),
        }
    }

    /// The mean in nanoseconds.
    pub(super) fn nanos(self) -> u64 {
        self.eighths / 8
    }
}

/// What a task of each kind takes. Kinds are numbered from zero, and few.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    means: Vec<Option<Mean>>,
}

impl Kinds {
    /// Takes in how long a task of a kind ran.
    pub(super) fn learn(&mut self, kind: KindId, ran: Duration) {
        let index = kind.0 as usize;
        if index >= self.means.len() {
            self.means.resize(index + 1, None);
        }
        Mean::learn_in(&mut self.means[index], ran);
    }

    /// What a task of a kind is expected to take.
    pub(super) fn cost(&self, kind: KindId) -> Cost {
        Cost::expected(self.means.get(kind.0 as usize).and_then(Option::as_ref))
    }
}

/// What a task is expected to take of its worker's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// So many nanoseconds.
    Known(u64),
    /// Nobody has answered one of its kind yet; it may take for ever.
    Unknown,
}

impl Cost {
    /// The least that any task costs.
    pub(super) const LEAST: Cost = Cost::Known(COST_MIN);

    /// What it adds to a load; an unknown one is accounted for by being alone.
    pub(super) fn known(self) -> u64 {
        match self {
            Cost::Known(cost) => cost,
            Cost::Unknown => 0,
        }
    }

    /// The cost of a task of a kind with this mean.
    pub(super) fn expected(mean: Option<&Mean>) -> Cost {
        match mean {
            Some(mean) => Cost::Known(mean.nanos().max(COST_MIN)),
            None => Cost::Unknown,
        }
    }
}
