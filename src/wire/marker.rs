//! The mark that a worker leaves in its own output where a task has ended, for its guard, which takes it out.
//!
//! Nothing but a mark in the stream itself says which bytes came before the end of a task and which after: two
//! pipes have no common order, and no clock tells when a byte was written. Each worker has a mark of its own,
//! made up by its guard.

use memchr::memmem;

use crate::ids::TaskId;

/// Bytes of a mark, before the number of the task.
const NAME: usize = 16;
/// Bytes of a mark as a whole: few enough for a pipe to take in one piece.
pub(crate) const MARK: usize = NAME + 8;

/// How one worker's marks begin. The first byte is zero, which text does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker([u8; NAME]);

impl Marker {
    pub(crate) fn new(random: [u64; 2]) -> Self {
        let mut name = [0; NAME];
        name[..8].copy_from_slice(&random[0].to_le_bytes());
        name[8..].copy_from_slice(&random[1].to_le_bytes());
        name[0] = 0;
        Self(name)
    }

    /// "This task has ended."
    pub(crate) fn mark(&self, task: TaskId) -> [u8; MARK] {
        let mut mark = [0; MARK];
        mark[..NAME].copy_from_slice(&self.0);
        mark[NAME..].copy_from_slice(&task.0.to_le_bytes());
        mark
    }

    /// The first mark: where it is, and whose end it says.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<(usize, TaskId)> {
        let mut from = 0;
        while let Some(at) = memmem::find(&bytes[from..], &self.0).map(|at| from + at) {
            match bytes.get(at + NAME..at + MARK).and_then(|task| task.try_into().ok()) {
                Some(task) => return Some((at, TaskId(u64::from_le_bytes(task)))),
                None => from = at + 1,
            }
        }
        None
    }

    /// How many of the last bytes may be the beginning of a mark.
    pub(crate) fn begun(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(MARK - 1);
        let candidates = memchr::memchr_iter(0, &bytes[from..]);
        let mut rests = candidates.map(|at| &bytes[from + at..]);
        let is_beginning = |rest: &&[u8]| {
            let compared = rest.len().min(NAME);
            rest[..compared] == self.0[..compared]
        };
        rests.find(is_beginning).map_or(0, <[u8]>::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_however_the_stream_is_cut() {
        let marker = Marker::new([77, 88]);
        let mut stream = b"one\n\0two\n".to_vec();
        stream.extend(marker.mark(TaskId(7)));
        stream.extend(b"three");
        assert_eq!(marker.find(&stream), Some((9, TaskId(7))));
        for cut in 0..stream.len() {
            let (head, tail) = stream.split_at(cut);
            let kept = marker.begun(head);
            if marker.find(head).is_none() && cut > 9 {
                assert_eq!(kept, cut - 9, "the mark has begun");
            } else if cut <= 9 {
                assert!(kept <= 1, "one zero byte may be a beginning");
            }
            let rest = [&head[head.len() - kept..], tail].concat();
            assert_eq!(marker.find(&rest).is_some(), marker.find(head).is_none());
        }
        assert_eq!(marker.begun(b""), 0);
        assert_eq!(Marker::new([1, 2]).find(&stream), None);
    }
}
