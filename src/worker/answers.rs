//! What goes back to the host: answers, gathered into frames.
//!
//! One message per answer would cost more than a short task does; an answer that waits while a long
//! task runs would be worse. So answers leave when the window is empty, when they have been kept for
//! a moment, when they are many bytes, and before any task that is not known to be short.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::transport::{Link, LinkError};
use crate::wire::Array;
use crate::wire::message::{AnswerMessage, WireKind, encode_answers};
use crate::wire::payload::Payload;

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
    /// Whether the host can read the memory of this process.
    lend: bool,
    /// Arrays of answers that have left, which the host has not fetched yet; together those of one frame.
    lent: VecDeque<Vec<Arc<Array>>>,
}

impl Answers {
    pub(super) fn new(kinds: usize, lend: bool) -> Self {
        Self {
            kept: Vec::new(),
            kept_bytes: 0,
            since: Instant::now(),
            last_runs: vec![None; kinds],
            lend,
            lent: VecDeque::new(),
        }
    }

    /// Keeps an answer, now, or sends it with all that are kept. Whether something was sent.
    pub(super) fn add(
        &mut self,
        answer: AnswerMessage,
        now: Instant,
        link: &mut impl Link,
    ) -> Result<bool, LinkError> {
        let bytes = answer.payload().map_or(0, Payload::len);
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
        let frame = encode_answers(&self.kept, self.lend);
        if self.lend {
            let arrays: Vec<_> = self
                .kept
                .iter()
                .filter_map(AnswerMessage::payload)
                .flat_map(Payload::arrays)
                .cloned()
                .collect();
            self.lent.extend((!arrays.is_empty()).then_some(arrays));
        }
        self.kept.clear();
        link.send(frame)?;
        Ok(true)
    }

    /// The host has fetched what was lent first.
    pub(super) fn note_fetched(&mut self) {
        self.lent.pop_front();
    }

    /// Whether the host has fetched everything.
    pub(super) fn is_fetched(&self) -> bool {
        self.lent.is_empty()
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
