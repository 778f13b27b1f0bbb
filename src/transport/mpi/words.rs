//! What is said of a worker that ended, from what its guard tells.

use crate::error::{SpawnCause, SpawnFailure};
use crate::process;
use crate::transport::control::Whereabouts;
use crate::wire::control::{Ended, How};

/// A start that failed, as the guard tells it.
pub(super) fn failure(ended: &Ended, at: Option<&Whereabouts>) -> SpawnFailure {
    let cause = match ended.how {
        How::NotStarted { .. } => SpawnCause::NotStarted,
        How::Overdue => SpawnCause::Overdue,
        How::NoWorker => SpawnCause::NoWorker,
        How::Unfit => SpawnCause::Mismatch,
        How::Jammed | How::GuardGone | How::Silent { .. } | How::Exited { .. } | How::Signalled { .. } => {
            SpawnCause::Ended
        }
    };
    SpawnFailure::new(cause, describe(ended, at))
}

/// How a worker ended, and the last that it said.
pub(super) fn describe(ended: &Ended, at: Option<&Whereabouts>) -> String {
    let place = at.map_or_else(String::new, |at| format!(" at {}", at.host));
    let process = at.map_or_else(|| "its process".to_owned(), |at| format!("its process {}{place}", at.pid));
    let how = match &ended.how {
        How::NotStarted { reason } => reason.clone(),
        How::Overdue => {
            return format!(
                "it had not initialized MPI within the `spawn_timeout`, and was ended{}",
                last_words(ended)
            );
        }
        How::Jammed => {
            return format!(
                "it did not get through MPI_Init, while which another worker had died, and was ended{}",
                last_words(ended)
            );
        }
        How::GuardGone => format!("its guard{place} ended without a word"),
        How::Silent { after } => {
            format!("nothing was heard{place} for {after:?}, the `heartbeat_timeout`: the host or the way to it is gone")
        }
        How::NoWorker => {
            "it initialized MPI, but is no offshoot worker: `offshoot::init()` or `offshoot::worker::serve()` must \
             be the first line of its `main`"
                .to_owned()
        }
        How::Unfit => return format!("it cannot work for this host{}", last_words(ended)),
        How::Exited { code } => format!("{process} exited with code {code}"),
        How::Signalled { signal, core } => {
            let core = if *core { ", core dumped" } else { "" };
            let (signal, memory) = (process::signal_name(*signal), memory(ended));
            format!("{process} was killed by {signal}{core}{memory}")
        }
    };
    let before = if ended.stand_in { " before it initialized MPI" } else { "" };
    format!("{how}{before}{}", last_words(ended))
}

/// How much memory it had, where that may be why it was killed.
fn memory(ended: &Ended) -> String {
    match (&ended.how, ended.peak_kib) {
        (How::Signalled { signal, .. }, peak @ 1..) if process::may_be_for_memory(*signal) => {
            format!(
                " when it had used {} MiB of memory at most (the system does that where memory runs out)",
                peak.div_ceil(1024)
            )
        }
        _ => String::new(),
    }
}

fn last_words(ended: &Ended) -> String {
    match &ended.stderr[..] {
        [] => String::new(),
        lines => format!("; its last words:\n    {}", lines.join("\n    ")),
    }
}
