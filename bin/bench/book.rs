//! What came of which round, in the order in which the figures came first.

use super::child::Done;
use super::figure::{Better, Figure, Sample};
use super::work::Work;

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Book {
    mpi: String,
    pages: Vec<Page>,
}

/// One figure.
#[derive(Debug)]
struct Page {
    containment: String,
    rounds: Vec<(u32, Sample)>,
}

impl Book {
    /// What a process has done in a round.
    pub(crate) fn note(&mut self, round: u32, work: &Work, done: Done) {
        if !done.mpi.is_empty() {
            self.mpi = done.mpi;
        }
        match done.outcome {
            Ok(samples) => samples.into_iter().for_each(|sample| self.add(round, &done.containment, sample)),
            Err(reason) => {
                let sample =
                    Sample::new(work.name(), "", Better::Lower).ours_or(Err(anyhow::Error::msg(reason)));
                self.add(round, &done.containment, sample);
            }
        }
    }

    fn add(&mut self, round: u32, containment: &str, sample: Sample) {
        let is_it = |page: &&mut Page| {
            page.containment == containment && page.rounds.iter().any(|(_, other)| other.name == sample.name)
        };
        let Some(page) = self.pages.iter_mut().find(is_it) else {
            let page = Page { containment: containment.to_owned(), rounds: vec![(round, sample)] };
            return self.pages.push(page);
        };
        match page.rounds.iter_mut().find(|(other, _)| *other == round) {
            Some((_, first)) => first.join(sample),
            None => page.rounds.push((round, sample)),
        }
    }

    pub(crate) fn figures(self) -> Vec<Figure> {
        let figure = |page: Page| {
            let rounds: Vec<Sample> = page.rounds.into_iter().map(|(_, sample)| sample).collect();
            Figure::of(&self.mpi, &page.containment, &rounds)
        };
        self.pages.into_iter().map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::Side;
    use super::*;

    fn done(containment: &str, outcome: Result<Vec<Sample>, String>) -> Done {
        Done { mpi: "MPI".to_owned(), containment: containment.to_owned(), outcome }
    }

    #[test]
    fn the_sides_of_a_round_come_together() {
        let work = Work::ColdStart { workers: 1, side: Side::Ours };
        let sample = || Sample::new("spawn", "ms", Better::Lower);
        let mut book = Book::default();
        for round in 0..2 {
            book.note(round, &work, done("fast", Ok(vec![sample().raw([2.0])])));
            book.note(round, &work, done("survivable", Ok(vec![sample().raw([5.0])])));
            book.note(round, &work, done("fast", Ok(vec![sample().ours([6.0])])));
        }
        book.note(2, &work, done("fast", Err("it died".to_owned())));
        let figures = book.figures();
        let of: Vec<_> =
            figures.iter().map(|figure| (&*figure.name, &*figure.containment, figure.ratio)).collect();
        assert_eq!(of[..2], [("spawn", "fast", Some(3.0)), ("spawn", "survivable", None)]);
        assert_eq!((figures[0].rounds, figures[0].samples), (2, 2));
        assert_eq!(figures[2].error.as_deref(), Some("it died"));
    }
}
