//! Streams: many calls in, their results out, some way ahead of who takes them.
//!
//! [`Map`] puts the results in order, [`Unordered`] gives them as they come; `feed` brings the calls
//! into the pool for both.

mod feed;

use std::collections::VecDeque;
use std::fmt;

use self::feed::Feed;
use super::Pool;
use super::reply::Arrival;
use crate::error::TaskError;
use crate::ids::ProgramId;
use crate::task::{Call, Task};

/// Results of [`Pool::map`], in the order of the calls.
///
/// Dropping it cancels the calls that are under way and have not begun.
pub struct Map<T: Task, I> {
    feed: Feed<T, I>,
    /// What has come and was not looked at yet.
    arrived: VecDeque<Arrival>,
    /// Results that have come before those in front of them.
    places: VecDeque<Option<Arrival>>,
    /// Which call the first of the places is for.
    first: usize,
}

/// Results of [`Map::unordered`], in the order in which the tasks end.
///
/// Dropping it cancels the calls that are under way and have not begun.
pub struct Unordered<T: Task, I> {
    feed: Feed<T, I>,
    arrived: VecDeque<Arrival>,
}

/// Results of [`Unordered::indexed`]: each with the number of its call.
pub struct Indexed<T: Task, I> {
    results: Unordered<T, I>,
}

impl<T: Task, I: Iterator<Item = Call<T>>> Map<T, I> {
    pub(super) fn new(pool: Pool, program: ProgramId, calls: I) -> Self {
        let feed = Feed::new(pool, program, calls);
        Self { feed, arrived: VecDeque::new(), places: VecDeque::new(), first: 0 }
    }

    /// The same results in the order in which the tasks end.
    pub fn unordered(self) -> Unordered<T, I> {
        let arrived = self.places.into_iter().flatten().chain(self.arrived).collect();
        Unordered { feed: self.feed, arrived }
    }

    /// Limits how many calls are taken before the first result is; 1 means one after the other.
    ///
    /// Results that wait for an earlier one count: behind a slow task the stream stops at this limit.
    #[must_use]
    pub fn ahead(mut self, calls: usize) -> Self {
        self.feed.limit(calls);
        self
    }

    fn put(&mut self, arrival: Arrival) {
        let place = arrival.index - self.first;
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(arrival);
    }

    fn take_first(&mut self) -> Option<Arrival> {
        let arrival = self.places.front_mut()?.take()?;
        self.places.pop_front();
        self.first += 1;
        Some(arrival)
    }
}

impl<T: Task, I: Iterator<Item = Call<T>>> Iterator for Map<T, I> {
    type Item = Result<T::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(arrival) = self.take_first() {
                return Some(self.feed.give(arrival));
            }
            while let Some(arrival) = self.arrived.pop_front() {
                if arrival.index == self.first {
                    // Most come in order, and need no place.
                    self.places.pop_front();
                    self.first += 1;
                    return Some(self.feed.give(arrival));
                }
                self.put(arrival);
            }
            self.arrived = self.feed.arrivals()?;
        }
    }
}

impl<T: Task, I: Iterator<Item = Call<T>>> Unordered<T, I> {
    /// Limits how many calls are under way at once; 1 means one after the other.
    #[must_use]
    pub fn ahead(mut self, calls: usize) -> Self {
        self.feed.limit(calls);
        self
    }

    /// The same results, each with the number of its call, counted from 0 as the stream's source gave them.
    ///
    /// ```no_run
    /// # offshoot::tasks! { fn square(x: f64) -> f64 { Ok(x * x) } }
    /// # fn main() -> anyhow::Result<()> {
    /// # let pool = offshoot::Pool::builder().build()?;
    /// let sides = [3.0, 4.0, 5.0];
    /// for (index, area) in pool.map(sides.map(square)).unordered().indexed() {
    ///     println!("{}: {}", sides[index], area?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn indexed(self) -> Indexed<T, I> {
        Indexed { results: self }
    }

    fn next_arrival(&mut self) -> Option<Arrival> {
        while self.arrived.is_empty() {
            self.arrived = self.feed.arrivals()?;
        }
        self.arrived.pop_front()
    }
}

impl<T: Task, I: Iterator<Item = Call<T>>> Iterator for Unordered<T, I> {
    type Item = Result<T::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let arrival = self.next_arrival()?;
        Some(self.feed.give(arrival))
    }
}

impl<T: Task, I: Iterator<Item = Call<T>>> Iterator for Indexed<T, I> {
    type Item = (usize, Result<T::Output, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        let arrival = self.results.next_arrival()?;
        Some((arrival.index, self.results.feed.give(arrival)))
    }
}

impl<T: Task, I> fmt::Debug for Map<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.feed.describe(f, "Map")
    }
}

impl<T: Task, I> fmt::Debug for Unordered<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.feed.describe(f, "Unordered")
    }
}

impl<T: Task, I> fmt::Debug for Indexed<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.results.feed.describe(f, "Indexed")
    }
}

#[cfg(test)]
mod tests;
