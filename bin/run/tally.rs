//! The count of lines by what became of them, and the sentence at the end.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

/// Ranges of line numbers that the summary names, of each kind.
const NAMED: usize = 12;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: Numbers,
    /// Were running when the run was stopped, and were ended.
    pub(crate) ended: Numbers,
    pub(crate) not_run: Numbers,
    /// Standard input may have more lines than were counted.
    pub(crate) more_unread: bool,
    /// Those that have run a line.
    pub(crate) workers: HashSet<u64>,
}

impl Tally {
    /// Lines that have come to an end, whichever.
    pub(crate) fn settled(&self) -> u64 {
        self.passed + self.failed.count + self.ended.count + self.not_run.count
    }

    pub(crate) fn all_passed(&self) -> bool {
        self.passed == self.settled() && !self.more_unread
    }

    pub(crate) fn summary(&self, took: Duration) -> String {
        let mut parts = vec![format!("{} passed", self.passed)];
        let kinds = [(&self.failed, "failed"), (&self.ended, "ended"), (&self.not_run, "not run")];
        for (numbers, what) in kinds.into_iter().filter(|(numbers, _)| numbers.count > 0) {
            parts.push(format!("{} {what} ({numbers})", numbers.count));
        }
        if self.more_unread {
            parts.push("the rest of standard input not read".to_owned());
        }
        format!(
            "{}: {} in {:.1} s on {}",
            amount(self.settled(), "line"),
            parts.join(", "),
            took.as_secs_f64(),
            amount(self.workers.len() as u64, "worker")
        )
    }
}

fn amount(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Line numbers, kept as ranges.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) count: u64,
    ranges: Vec<(u64, u64)>,
}

impl Numbers {
    pub(crate) fn add(&mut self, number: u64) {
        self.count += 1;
        match self.ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.ranges.push((number, number)),
        }
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.ranges.clone();
        sorted.sort_unstable();
        let mut merged = Self::default();
        for (first, last) in sorted {
            match merged.ranges.last_mut() {
                Some((_, end)) if *end + 1 == first => *end = last,
                _ => merged.ranges.push((first, last)),
            }
        }
        let texts: Vec<String> = merged
            .ranges
            .iter()
            .take(NAMED)
            .map(|&(first, last)| match last - first {
                0 => first.to_string(),
                _ => format!("{first}-{last}"),
            })
            .collect();
        f.write_str(&texts.join(", "))?;
        if merged.ranges.len() > NAMED {
            let named: u64 = merged.ranges.iter().take(NAMED).map(|(first, last)| last - first + 1).sum();
            write!(f, " and {} more", self.count - named)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(list: impl IntoIterator<Item = u64>) -> Numbers {
        let mut numbers = Numbers::default();
        list.into_iter().for_each(|number| numbers.add(number));
        numbers
    }

    #[test]
    fn numbers_are_sorted_into_ranges() {
        assert_eq!(numbers([7, 31]).to_string(), "7, 31");
        assert_eq!(numbers([5, 6, 3, 4, 9]).to_string(), "3-6, 9");
        let odd = numbers((0..100).map(|number| 2 * number + 1));
        assert_eq!(odd.to_string(), "1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23 and 88 more");
    }

    #[test]
    fn the_summary_names_what_there_is() {
        let mut tally = Tally { passed: 98, failed: numbers([7, 31]), ..Tally::default() };
        tally.workers.extend([1, 2, 3, 4]);
        let took = Duration::from_millis(3210);
        assert_eq!(tally.summary(took), "100 lines: 98 passed, 2 failed (7, 31) in 3.2 s on 4 workers");
        let tally = Tally { not_run: numbers([1]), more_unread: true, ..Tally::default() };
        let expected =
            "1 line: 0 passed, 1 not run (1), the rest of standard input not read in 3.2 s on 0 workers";
        assert_eq!(tally.summary(took), expected);
    }
}
