//! A line of workers in the order in which they joined, with the time when each did.
//!
//! Joining, leaving from anywhere and looking at either end are O(1), so a line serves as a timer queue
//! (all of one line wait equally long, so the first is due first, and none is ever stale), as the list of
//! idle workers and as a round robin.

use super::table::Table;
use super::{Time, meter};
use crate::ids::WorkerId;

/// A doubly linked list whose links live in a table.
#[derive(Debug, Default)]
pub(super) struct Line {
    places: Table<Place>,
    ends: Option<(WorkerId, WorkerId)>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    joined: Time,
    ahead: Option<WorkerId>,
    behind: Option<WorkerId>,
}

impl Line {
    /// Adds a worker at the end; it must not be there yet.
    pub(super) fn join(&mut self, worker: WorkerId, now: Time) {
        meter::step();
        let ahead = self.ends.map(|(_, last)| last);
        let earlier = self.places.insert(worker.number(), Place { joined: now, ahead, behind: None });
        assert!(earlier.is_none(), "{worker} is in this line already");
        if let Some(ahead) = ahead {
            self.place(ahead).behind = Some(worker);
        }
        let first = self.ends.map_or(worker, |(first, _)| first);
        self.ends = Some((first, worker));
    }

    /// Removes a worker from wherever it stands; says whether it was there.
    pub(super) fn leave(&mut self, worker: WorkerId) -> bool {
        meter::step();
        let Some(Place { ahead, behind, .. }) = self.places.remove(worker.number()) else {
            return false;
        };
        if let Some(ahead) = ahead {
            self.place(ahead).behind = behind;
        }
        if let Some(behind) = behind {
            self.place(behind).ahead = ahead;
        }
        self.ends = self.ends.and_then(|(first, last)| {
            let first = if first == worker { behind } else { Some(first) };
            let last = if last == worker { ahead } else { Some(last) };
            first.zip(last)
        });
        true
    }

    /// Sends a worker to the end of the line.
    pub(super) fn rejoin(&mut self, worker: WorkerId, now: Time) {
        if self.last() == Some(worker) {
            meter::step();
            self.place(worker).joined = now;
            return;
        }
        self.leave(worker);
        self.join(worker, now);
    }

    /// Who has been here longest, and since when.
    pub(super) fn first(&self) -> Option<(WorkerId, Time)> {
        self.ends.map(|(first, _)| (first, self.seen(first).joined))
    }

    /// Who came last.
    pub(super) fn last(&self) -> Option<WorkerId> {
        self.ends.map(|(_, last)| last)
    }

    /// Whether a worker is here.
    pub(super) fn contains(&self, worker: WorkerId) -> bool {
        self.places.contains(worker.number())
    }

    /// How many there are; never more than `workers_max`.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.places.len()).expect("worker ids have 32 bits")
    }

    /// Whether nobody is here.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn seen(&self, worker: WorkerId) -> &Place {
        self.places.get(worker.number()).expect("who stands at an end is in the line")
    }

    fn place(&mut self, worker: WorkerId) -> &mut Place {
        self.places.get_mut(worker.number()).expect("neighbours of a place are in the line")
    }

    #[cfg(test)]
    pub(super) fn assert_consistent(&self) {
        let mut seen = 0;
        let mut ahead = None;
        let mut at = self.ends.map(|(first, _)| first);
        while let Some(worker) = at {
            let place = *self.seen(worker);
            assert_eq!(place.ahead, ahead, "links of a line disagree");
            assert!(
                ahead.is_none_or(|ahead| self.seen(ahead).joined <= place.joined),
                "a line is out of order"
            );
            seen += 1;
            ahead = at;
            at = place.behind;
        }
        assert_eq!(ahead, self.last());
        assert_eq!(seen, self.places.len(), "a line has lost somebody");
    }
}
