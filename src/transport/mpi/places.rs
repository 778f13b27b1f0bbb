//! Which worker is on which host: hosts fill in the order of their list, a slot that a worker has left is
//! used again, and a host where a start failed is tried last. Pure: the transport tells it what happened.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::ids::WorkerId;
use crate::launch::Site;

/// The hosts of one pool.
pub(crate) struct Places {
    places: Vec<Place>,
    taken: FxHashMap<WorkerId, usize>,
}

struct Place {
    site: Site,
    used: u32,
    /// Whether the last start there failed.
    has_failed: bool,
    trust: Trust,
}

/// Whether a host has to be asked before the next start there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Known,
    /// It was not asked yet.
    Unasked,
    /// A worker there was lost, and nobody on that host said how: perhaps the host is gone.
    Suspected,
}

impl Places {
    pub(crate) fn new(sites: Vec<Site>) -> Self {
        let place = |site: Site| {
            let trust = if site.is_asked && !site.has_answered { Trust::Unasked } else { Trust::Known };
            Place { site, used: 0, has_failed: false, trust }
        };
        Self { places: sites.into_iter().map(place).collect(), taken: FxHashMap::default() }
    }

    /// Chooses a host for a worker. Where all are full, the one with the most room for its size takes one more.
    pub(crate) fn take(&mut self, worker: WorkerId) -> Option<&Site> {
        let fullness = |place: &Place| f64::from(place.used) / f64::from(place.site.host.slots.max(1));
        let has_room = |place: &Place| place.used < place.site.host.slots;
        let places = || self.places.iter().enumerate();
        let in_order = places().find(|(_, place)| has_room(place) && !place.has_failed);
        let beyond = || {
            let least = places().filter(|(_, place)| !place.has_failed);
            least.min_by(|(_, one), (_, other)| fullness(one).total_cmp(&fullness(other)))
        };
        let failed = || places().min_by(|(_, one), (_, other)| fullness(one).total_cmp(&fullness(other)));
        let room_at_failed = || places().find(|(_, place)| has_room(place));
        let (at, _) = in_order.or_else(room_at_failed).or_else(beyond).or_else(failed)?;
        if let Entry::Vacant(entry) = self.taken.entry(worker) {
            entry.insert(at);
            self.places[at].used += 1;
        }
        self.site_of(worker)
    }

    /// Where a worker is.
    pub(crate) fn site_of(&self, worker: WorkerId) -> Option<&Site> {
        self.taken.get(&worker).map(|&at| &self.places[at].site)
    }

    /// Whether it is on this machine.
    pub(crate) fn is_here(&self, worker: WorkerId) -> bool {
        self.site_of(worker).is_some_and(|site| site.route.is_none())
    }

    /// A worker is gone, or did not come: its slot is free again.
    pub(crate) fn release(&mut self, worker: WorkerId) {
        if let Some(at) = self.taken.remove(&worker) {
            self.places[at].used -= 1;
        }
    }

    /// Whether the start of this worker went well.
    pub(crate) fn note_start(&mut self, worker: WorkerId, went_well: bool) {
        if let Some(&at) = self.taken.get(&worker) {
            self.places[at].has_failed = !went_well;
        }
    }

    /// A worker was lost, and nobody on its host said how.
    pub(crate) fn suspect(&mut self, worker: WorkerId) {
        if let Some(place) = self.taken.get(&worker).map(|&at| &mut self.places[at])
            && place.site.is_asked
        {
            place.trust = Trust::Suspected;
        }
    }

    /// The hosts to ask before this worker is started: its own, unless that is known to be there, and with
    /// `all_suspects` every one that may be gone.
    pub(crate) fn to_ask(&self, worker: WorkerId, all_suspects: bool) -> Vec<String> {
        let own = self.taken.get(&worker).copied();
        let asked = self.places.iter().enumerate().filter(|(at, place)| match place.trust {
            Trust::Known => false,
            Trust::Unasked => own == Some(*at),
            Trust::Suspected => all_suspects || own == Some(*at),
        });
        asked.map(|(_, place)| place.site.host.name.clone()).collect()
    }

    /// A host has answered.
    pub(crate) fn trust(&mut self, host: &str) {
        let answered = self.places.iter_mut().filter(|place| place.site.host.name == host);
        answered.for_each(|place| place.trust = Trust::Known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::HostSlots;

    fn places(hosts: &[(&str, u32)]) -> Places {
        let site = |&(name, slots): &(&str, u32)| Site {
            host: HostSlots { name: name.to_owned(), slots, is_own: false },
            info: vec![],
            route: None,
            is_asked: true,
            has_answered: name != "late",
        };
        Places::new(hosts.iter().map(site).collect())
    }

    fn take(places: &mut Places, worker: u32) -> String {
        places.take(WorkerId(worker)).expect("there are hosts").host.name.clone()
    }

    #[test]
    fn hosts_fill_in_the_order_of_the_list() {
        let mut places = places(&[("a", 2), ("b", 1), ("c", 3)]);
        let taken: Vec<_> = (0..6).map(|worker| take(&mut places, worker)).collect();
        assert_eq!(taken, ["a", "a", "b", "c", "c", "c"]);
    }

    #[test]
    fn a_slot_that_was_left_is_used_again() {
        let mut places = places(&[("a", 2), ("b", 2)]);
        (0..4).for_each(|worker| drop(take(&mut places, worker)));
        places.release(WorkerId(1));
        places.release(WorkerId(1));
        places.release(WorkerId(3));
        assert_eq!(take(&mut places, 4), "a");
        assert_eq!(take(&mut places, 5), "b");
    }

    #[test]
    fn a_host_where_a_start_failed_is_tried_last() {
        let mut places = places(&[("a", 2), ("b", 1)]);
        take(&mut places, 0);
        places.note_start(WorkerId(0), false);
        places.release(WorkerId(0));
        assert_eq!(take(&mut places, 1), "b");
        assert_eq!(take(&mut places, 2), "a");
        places.note_start(WorkerId(2), true);
        assert_eq!(take(&mut places, 3), "a");
    }

    #[test]
    fn beyond_all_slots_the_load_is_shared() {
        let mut places = places(&[("a", 1), ("b", 2)]);
        let taken: Vec<_> = (0..6).map(|worker| take(&mut places, worker)).collect();
        assert_eq!(taken, ["a", "b", "b", "a", "b", "b"]);
    }

    #[test]
    fn a_host_is_asked_before_its_first_worker_and_when_it_is_suspected() {
        let mut places = places(&[("a", 1), ("b", 1), ("late", 2)]);
        (0..3).for_each(|worker| drop(take(&mut places, worker)));
        let [on_a, on_b, on_late] = [0, 1, 2].map(WorkerId);
        assert!(places.to_ask(on_a, true).is_empty());
        assert_eq!(places.to_ask(on_late, true), ["late"]);
        places.trust("late");
        assert!(places.to_ask(on_late, true).is_empty());
        places.suspect(on_b);
        assert!(places.to_ask(on_a, false).is_empty());
        assert_eq!(places.to_ask(on_a, true), ["b"], "where a lost host harms all");
        places.release(on_b);
        take(&mut places, 3);
        assert_eq!(places.to_ask(WorkerId(3), false), ["b"]);
        places.trust("b");
        assert!(places.to_ask(WorkerId(3), true).is_empty());
    }
}
