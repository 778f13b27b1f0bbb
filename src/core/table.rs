//! A table of what is known by numbers that are given out in order: tasks, workers, calls of a stream.
//!
//! A hash map scatters neighbours over all of its memory, so that with some thousand entries each look costs a
//! trip to it. Tasks are submitted, sent and answered more or less in order; here neighbours share a page, and
//! where the pages are that were just used is remembered: one for each place of a task's way where it is looked at. A page
//! goes when its last entry does, so one old entry among many new ones keeps one page and no more.

use rustc_hash::FxHashMap;

/// Entries of a page.
const PAGE: u64 = 64;
/// Pages that are found without a look into the map, each in a place that its number says.
const REMEMBERED: u64 = 16;
/// No page has this number: it would begin beyond the last one that there is.
const NO_PAGE: u64 = u64::MAX;

/// A map from numbers to entries.
#[derive(Debug)]
pub(crate) struct Table<T> {
    pages: Vec<Box<Page<T>>>,
    /// Where in `pages` a page is, by its number.
    places: FxHashMap<u64, usize>,
    /// Some of that: numbers of pages, and where they are.
    remembered: [(u64, usize); REMEMBERED as usize],
    length: usize,
    /// The page that was emptied last, for the next one that is needed.
    spare: Option<Box<Page<T>>>,
}

#[derive(Debug)]
struct Page<T> {
    number: u64,
    length: usize,
    slots: [Option<T>; PAGE as usize],
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let (pages, places) = (Vec::new(), FxHashMap::default());
        Self { pages, places, remembered: [(NO_PAGE, 0); REMEMBERED as usize], length: 0, spare: None }
    }
}

impl<T> Table<T> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many entries there is memory for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        (self.pages.len() + usize::from(self.spare.is_some())) * PAGE as usize
    }

    /// Whether this number has an entry.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.get(number).is_some()
    }

    /// The entry of a number.
    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        self.pages[self.find(number / PAGE)?].slots[place(number)].as_ref()
    }

    /// The entry of a number.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let at = self.find_and_remember(number / PAGE)?;
        self.pages[at].slots[place(number)].as_mut()
    }

    /// Enters something, and returns what was there before.
    pub(crate) fn insert(&mut self, number: u64, entry: T) -> Option<T> {
        let at = self.find_and_remember(number / PAGE).unwrap_or_else(|| self.add(number / PAGE));
        let page = &mut self.pages[at];
        let before = page.slots[place(number)].replace(entry);
        if before.is_none() {
            page.length += 1;
            self.length += 1;
        }
        before
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let at = self.find_and_remember(number / PAGE)?;
        let page = &mut self.pages[at];
        let entry = page.slots[place(number)].take()?;
        page.length -= 1;
        self.length -= 1;
        if page.length == 0 {
            self.drop_page(at);
        }
        Some(entry)
    }

    /// All entries with their numbers, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.pages.iter().flat_map(|page| {
            let numbers = page.number * PAGE..;
            numbers.zip(&page.slots).filter_map(|(number, slot)| slot.as_ref().map(|entry| (number, entry)))
        })
    }

    /// Takes all entries out, in no order that means anything.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        let Self { pages, .. } = std::mem::take(self);
        pages.into_iter().flat_map(|page| page.slots.into_iter().flatten())
    }

    /// Where a page is.
    #[inline]
    fn find(&self, page: u64) -> Option<usize> {
        let (number, at) = self.remembered[(page % REMEMBERED) as usize];
        if number == page { Some(at) } else { self.places.get(&page).copied() }
    }

    #[inline]
    fn find_and_remember(&mut self, page: u64) -> Option<usize> {
        let at = self.find(page)?;
        self.remembered[(page % REMEMBERED) as usize] = (page, at);
        Some(at)
    }

    #[cold]
    fn add(&mut self, number: u64) -> usize {
        let mut page = self.spare.take().unwrap_or_else(Page::empty);
        page.number = number;
        let at = self.pages.len();
        self.pages.push(page);
        self.note(number, at);
        at
    }

    /// The page is empty. The last one takes its place.
    #[cold]
    fn drop_page(&mut self, at: usize) {
        let page = self.pages.swap_remove(at);
        self.places.remove(&page.number);
        self.remembered[(page.number % REMEMBERED) as usize] = (NO_PAGE, 0);
        self.spare = Some(page);
        if let Some(moved) = self.pages.get(at) {
            self.note(moved.number, at);
        }
    }

    fn note(&mut self, number: u64, at: usize) {
        self.places.insert(number, at);
        self.remembered[(number % REMEMBERED) as usize] = (number, at);
    }
}

impl<T> Page<T> {
    fn empty() -> Box<Self> {
        Box::new(Self { number: NO_PAGE, length: 0, slots: [const { None }; PAGE as usize] })
    }
}

fn place(number: u64) -> usize {
    (number % PAGE) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_does_what_a_map_does() {
        let (mut table, mut map) = (Table::default(), HashMap::new());
        // A multiplicative generator: its upper bits wander well enough over three hundred numbers.
        let mut state = 1_u64;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (what, number) = (state >> 62, (state >> 32) % 300);
            match what {
                0 => assert_eq!(table.insert(number, step), map.insert(number, step)),
                1 | 2 => assert_eq!(table.remove(number), map.remove(&number)),
                _ => {
                    assert_eq!(table.get(number), map.get(&number));
                    assert_eq!(table.get_mut(number), map.get_mut(&number));
                }
            }
            assert_eq!(table.len(), map.len());
            assert_eq!(table.is_empty(), map.is_empty());
            assert_eq!(table.contains(number), map.contains_key(&number));
        }
        let listed: HashMap<u64, i32> = table.iter().map(|(number, &entry)| (number, entry)).collect();
        assert_eq!(listed, map);
        assert!(!map.is_empty());
        assert_eq!(table.drain().count(), map.len());
        assert!(table.is_empty());
    }

    #[test]
    fn an_old_entry_keeps_one_page() {
        let mut table = Table::default();
        table.insert(0, 0);
        for number in 1..100_000 {
            table.insert(number, number);
            table.remove(number);
        }
        assert_eq!((table.len(), table.pages.len()), (1, 1));
    }
}
