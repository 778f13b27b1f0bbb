//! What workers have lent: large results that lie in the memory of the worker, and are copied from there.
//!
//! It is done by the thread that turns the driver, a slice each turn, so that all the others are served meanwhile. What a
//! worker says while its results are being fetched waits until they are here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::ids::WorkerId;
use crate::wire::Memory;
use crate::wire::message::{AnswerMessage, Outcome};
use crate::wire::payload::Payload;

/// Bytes that are copied in one turn, of each worker: what takes about a millisecond.
const SLICE: usize = 4 << 20;

/// How long a guard may take to say how its worker has ended, before that it cannot be read is all that is known.
const GUARD_PATIENCE: Duration = Duration::from_secs(1);

/// The workers whose results are being fetched.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    of: FxHashMap<WorkerId, Fetch>,
    /// Results fetched so far.
    fetched: u64,
}

#[derive(Debug)]
struct Fetch {
    answers: Vec<AnswerMessage>,
    /// What has come of the array that is being fetched.
    begun: Option<Memory>,
    /// What the worker has said since.
    behind: VecDeque<Bytes>,
    /// Why it cannot be read, and since when that is known.
    failed: Option<(String, Instant)>,
}

/// What has come of a fetch.
pub(super) enum Fetched {
    /// The answers are whole, and what the worker has said since is to be heard.
    Whole(Vec<AnswerMessage>, VecDeque<Bytes>),
    Failed(String),
}

impl Fetches {
    /// Begins to fetch what is missing from these answers.
    pub(super) fn begin(&mut self, worker: WorkerId, answers: Vec<AnswerMessage>) {
        let fetch = Fetch { answers, begun: None, behind: VecDeque::new(), failed: None };
        self.of.insert(worker, fetch);
    }

    /// Keeps what a worker has said, if it is not its turn yet; otherwise it is given back.
    pub(super) fn keep(&mut self, worker: WorkerId, frame: Bytes) -> Option<Bytes> {
        match self.of.get_mut(&worker) {
            Some(fetch) => {
                fetch.behind.push_back(frame);
                None
            }
            None => Some(frame),
        }
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.of.remove(&worker);
    }

    /// How many results were fetched so far.
    pub(super) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Whether something is being copied.
    pub(super) fn is_busy(&self) -> bool {
        self.of.values().any(|fetch| fetch.failed.is_none())
    }

    /// When to look again for what a guard has not said.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.of.values().filter_map(|fetch| Some(fetch.failed.as_ref()?.1 + GUARD_PATIENCE)).min()
    }

    /// Copies a slice from each worker, and hands over what has come of it.
    pub(super) fn advance(&mut self) -> Vec<(WorkerId, Fetched)> {
        if self.of.is_empty() {
            return Vec::new();
        }
        let over = self.of.iter_mut().filter_map(|(worker, fetch)| fetch.advance().then_some(*worker));
        over.collect::<Vec<_>>().into_iter().filter_map(|worker| Some((worker, self.end(worker)?))).collect()
    }

    fn end(&mut self, worker: WorkerId) -> Option<Fetched> {
        let Fetch { answers, behind, failed, .. } = self.of.remove(&worker)?;
        if let Some((reason, _)) = failed {
            return Some(Fetched::Failed(reason));
        }
        let results = answers.iter().filter_map(AnswerMessage::payload);
        self.fetched += results.filter(|result| result.arrays().next().is_some()).count() as u64;
        Some(Fetched::Whole(answers, behind))
    }
}

impl Fetch {
    /// Copies a slice. Whether it is over.
    fn advance(&mut self) -> bool {
        if let Some((_, since)) = &self.failed {
            return since.elapsed() >= GUARD_PATIENCE;
        }
        match self.missing().map(|(result, begun)| result.fetch(begun, SLICE)) {
            Some(Ok(_)) => self.missing().is_none(),
            Some(Err(error)) => {
                let reason = format!("its memory could not be read: {error}");
                self.failed = Some((reason, Instant::now()));
                false
            }
            None => true,
        }
    }

    /// The first result that is not here yet, and what has come of it.
    fn missing(&mut self) -> Option<(&mut Payload, &mut Option<Memory>)> {
        let result = self.answers.iter_mut().find_map(|answer| match &mut answer.outcome {
            Outcome::Done(result) if result.is_remote() => Some(result),
            Outcome::Done(_) | Outcome::Failed(_) | Outcome::Skipped => None,
        });
        result.map(|result| (result, &mut self.begun))
    }
}
