//! What goes back to the host: answers, gathered into frames.
//!
//! One message per answer would cost more than a short task does; an answer that waits while a long
//! task runs would be worse. So answers leave when the window is empty, when they have been kept for
//! a moment, when they are many bytes, and before any task that is not known to be short.

use std::time::{Duration, Instant};

use crate::transport::{Link, LinkError};
use crate::wire::message::{AnswerMessage, Outcome, WireKind, encode_answers};

/// An answer is kept back for so long at most, and a task that takes less than this is short.
const KEEP: Duration = Duration::from_micros(100);
/// Answers of more bytes than this leave at once.
const KEEP_BYTES: usize = 256 << 10;

/// Answers that have not left yet.
pub(super) struct Answers {
    kept: Vec<AnswerMessage>,
    kept_bytes: usize,
    since: Instant,
    /// How long each kind of task took when it last ran here.
    last_runs: Vec<Option<Duration>>,
}

impl Answers {
    pub(super) fn new(kinds: usize) -> Self {
        Self { kept: Vec::new(), kept_bytes: 0, since: Instant::now(), last_runs: vec![None; kinds] }
    }

    /// Keeps an answer, now, or sends it with all that are kept. Whether something was sent.
    pub(super) fn add(
        &mut self,
        answer: AnswerMessage,
        now: Instant,
        link: &mut impl Link,
    ) -> Result<bool, LinkError> {
        let bytes = match &answer.outcome {
            Outcome::Done(bytes) => bytes.len(),
            Outcome::Failed(_) | Outcome::Skipped => 0,
        };
        // A large answer travels alone: any two together might not fit into a frame.
        let is_large = self.kept_bytes + bytes > KEEP_BYTES;
        let before = is_large && self.send(link)?;
        if self.kept.is_empty() {
            self.since = now;
        }
        self.kept_bytes += bytes;
        self.kept.push(answer);
        let is_due = self.kept_bytes > KEEP_BYTES || now.saturating_duration_since(self.since) > KEEP;
        let after = is_due && self.send(link)?;
        Ok(before || after)
    }

    /// Sends what is kept. Whether there was something.
    pub(super) fn send(&mut self, link: &mut impl Link) -> Result<bool, LinkError> {
        if self.kept.is_empty() {
            return Ok(false);
        }
        self.kept_bytes = 0;
        let frame = encode_answers(&self.kept);
        self.kept.clear();
        link.send(frame)?;
        Ok(true)
    }

    /// Whether a task of this kind may run while answers are kept.
    pub(super) fn may_wait_for(&self, kind: WireKind) -> bool {
        matches!(self.last_runs.get(kind.0 as usize), Some(Some(ran)) if *ran < KEEP)
    }

    /// Notes how long a task of this kind took.
    pub(super) fn note(&mut self, kind: WireKind, ran: Duration) {
        if let Some(last) = self.last_runs.get_mut(kind.0 as usize) {
            *last = Some(ran);
        }
    }
}
