//! A table of what is known by numbers that are given out in order: tasks, calls of a stream.
//!
//! A hash map scatters neighbours over all of its memory, so that with some thousand entries each look costs a
//! trip to it. Tasks are submitted, sent and answered more or less in order; here neighbours share a page, and
//! the page that was just used is near. A page goes when its last entry does, so one old entry among many new ones
//! keeps one page and no more.

use rustc_hash::FxHashMap;

/// Entries of a page.
const PAGE: u64 = 64;

/// A map from numbers to entries.
#[derive(Debug)]
pub(crate) struct Table<T> {
    pages: FxHashMap<u64, Box<Page<T>>>,
    length: usize,
    /// The page that was emptied last, for the next one that is needed.
    spare: Option<Box<Page<T>>>,
}

#[derive(Debug)]
struct Page<T> {
    slots: [Option<T>; PAGE as usize],
    length: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { pages: FxHashMap::default(), length: 0, spare: None }
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
        self.pages.get(&(number / PAGE))?.slots[place(number)].as_ref()
    }

    /// The entry of a number.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.pages.get_mut(&(number / PAGE))?.slots[place(number)].as_mut()
    }

    /// Enters something, and returns what was there before.
    pub(crate) fn insert(&mut self, number: u64, entry: T) -> Option<T> {
        let page =
            self.pages.entry(number / PAGE).or_insert_with(|| self.spare.take().unwrap_or_else(Page::empty));
        let before = page.slots[place(number)].replace(entry);
        if before.is_none() {
            page.length += 1;
            self.length += 1;
        }
        before
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let page = self.pages.get_mut(&(number / PAGE))?;
        let entry = page.slots[place(number)].take()?;
        page.length -= 1;
        self.length -= 1;
        if page.length == 0 {
            self.spare = self.pages.remove(&(number / PAGE));
        }
        Some(entry)
    }

    /// All entries with their numbers, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.pages.iter().flat_map(|(number, page)| {
            let numbers = number * PAGE..;
            numbers.zip(&page.slots).filter_map(|(number, slot)| slot.as_ref().map(|entry| (number, entry)))
        })
    }

    /// Takes all entries out, in no order that means anything.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.length = 0;
        let pages = std::mem::take(&mut self.pages);
        pages.into_values().flat_map(|page| page.slots.into_iter().flatten())
    }
}

impl<T> Page<T> {
    fn empty() -> Box<Self> {
        Box::new(Self { slots: [const { None }; PAGE as usize], length: 0 })
    }
}

fn place(number: u64) -> usize {
    (number % PAGE) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_what_a_map_does(
            steps in proptest::collection::vec((0_u8..4, 0_u64..300), 0..2000),
        ) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for (step, (what, number)) in steps.into_iter().enumerate() {
                match what {
                    0 | 1 => prop_assert_eq!(table.insert(number, step), map.insert(number, step)),
                    2 => prop_assert_eq!(table.remove(number), map.remove(&number)),
                    _ => {
                        prop_assert_eq!(table.get(number), map.get(&number));
                        prop_assert_eq!(table.get_mut(number), map.get_mut(&number));
                    }
                }
                prop_assert_eq!(table.len(), map.len());
                prop_assert_eq!(table.is_empty(), map.is_empty());
                prop_assert_eq!(table.contains(number), map.contains_key(&number));
            }
            let listed: HashMap<u64, usize> = table.iter().map(|(number, &entry)| (number, entry)).collect();
            prop_assert_eq!(&listed, &map);
            prop_assert_eq!(table.drain().count(), map.len());
            prop_assert!(table.is_empty());
        }
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
