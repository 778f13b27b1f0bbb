//! A figure: what was measured of ours and of raw MPI, and what follows from it.

use serde::{Deserialize, Serialize};

/// What is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// What was measured of one figure in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    pub(crate) ours: Vec<f64>,
    pub(crate) raw: Vec<f64>,
    /// Why there is nothing of ours.
    pub(crate) error: Option<String>,
}

impl Sample {
    pub(crate) fn new(name: impl Into<String>, unit: &str, better: Better) -> Self {
        let (ours, raw) = (Vec::new(), Vec::new());
        Self { name: name.into(), unit: unit.to_owned(), better, ours, raw, error: None }
    }

    pub(crate) fn ours(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        self.ours.extend(values);
        self
    }

    pub(crate) fn raw(mut self, values: impl IntoIterator<Item = f64>) -> Self {
        self.raw.extend(values);
        self
    }

    /// Adds what another process has measured of it in the same round.
    pub(crate) fn join(&mut self, other: Self) {
        self.ours.extend(other.ours);
        self.raw.extend(other.raw);
        self.error = self.error.take().or(other.error);
    }

    /// What was measured, or why it could not be.
    pub(crate) fn ours_or(self, values: anyhow::Result<Vec<f64>>) -> Self {
        match values {
            Ok(values) => self.ours(values),
            Err(error) => Self { error: Some(format!("{error:#}")), ..self },
        }
    }
}

/// A figure, as it is printed. Its keys do not change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// What the MPI library says of itself.
    pub(crate) mpi: String,
    pub(crate) containment: String,
    pub(crate) unit: String,
    pub(crate) better: Better,
    /// The median of all samples.
    pub(crate) ours: Option<f64>,
    /// As good as this, or better, are 99 of 100 samples.
    pub(crate) ours_p99: Option<f64>,
    /// The range of the middle half of the samples, as a part of the median.
    pub(crate) ours_spread: Option<f64>,
    pub(crate) raw: Option<f64>,
    pub(crate) raw_p99: Option<f64>,
    pub(crate) raw_spread: Option<f64>,
    /// Ours to raw: the median of the rounds, and the least and the most of them.
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_min: Option<f64>,
    pub(crate) ratio_max: Option<f64>,
    pub(crate) samples: usize,
    pub(crate) raw_samples: usize,
    pub(crate) rounds: usize,
    /// Why there is nothing of ours, in the last round of which that is so.
    pub(crate) error: Option<String>,
}

impl Figure {
    /// What the rounds come to. They have the same name.
    pub(crate) fn of(mpi: &str, containment: &str, rounds: &[Sample]) -> Self {
        let first = rounds.first().expect("a figure has a round");
        let all = |side: fn(&Sample) -> &Vec<f64>| -> Vec<f64> {
            sorted(rounds.iter().flat_map(side).copied(), first.better)
        };
        let (ours, raw) = (all(|sample| &sample.ours), all(|sample| &sample.raw));
        let (ratio, ratio_min, ratio_max) = ratios(rounds);
        Self {
            name: first.name.clone(),
            mpi: mpi.to_owned(),
            containment: containment.to_owned(),
            unit: first.unit.clone(),
            better: first.better,
            ours: quantile(&ours, 0.5),
            ours_p99: quantile(&ours, 0.99),
            ours_spread: spread(&ours),
            raw: quantile(&raw, 0.5),
            raw_p99: quantile(&raw, 0.99),
            raw_spread: spread(&raw),
            ratio,
            ratio_min,
            ratio_max,
            samples: ours.len(),
            raw_samples: raw.len(),
            rounds: rounds.len(),
            error: rounds.iter().rev().find_map(|sample| sample.error.clone()),
        }
    }
}

/// Of each round the ratio of the medians: what disturbs a round disturbs both.
fn ratios(rounds: &[Sample]) -> (Option<f64>, Option<f64>, Option<f64>) {
    let ratio = |sample: &Sample| {
        let median = |values: &[f64]| quantile(&sorted(values.iter().copied(), sample.better), 0.5);
        finite(median(&sample.ours)? / median(&sample.raw)?)
    };
    let ratios = sorted(rounds.iter().filter_map(ratio), Better::Lower);
    (quantile(&ratios, 0.5), ratios.first().copied(), ratios.last().copied())
}

fn finite(ratio: f64) -> Option<f64> {
    ratio.is_finite().then_some(ratio)
}

/// The best first.
fn sorted(values: impl Iterator<Item = f64>, better: Better) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    if better == Better::Higher {
        values.reverse();
    }
    values
}

fn quantile(sorted: &[f64], quantile: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    Some(sorted[(quantile * last as f64).round() as usize])
}

fn spread(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (quantile(sorted, 0.25)?, quantile(sorted, 0.75)?);
    finite((high - low).abs() / quantile(sorted, 0.5)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(better: Better, ours: &[f64], raw: &[f64]) -> Sample {
        Sample::new("x", "us", better).ours(ours.iter().copied()).raw(raw.iter().copied())
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds() {
        // In the second round everything took ten times as long.
        let rounds = [
            round(Better::Lower, &[2.0, 2.0, 9.0], &[1.0]),
            round(Better::Lower, &[30.0], &[10.0]),
            round(Better::Lower, &[4.0], &[1.0]),
        ];
        let figure = Figure::of("mpi", "fast", &rounds);
        assert_eq!((figure.ratio, figure.ratio_min, figure.ratio_max), (Some(3.0), Some(2.0), Some(4.0)));
        assert_eq!(
            (figure.ours, figure.raw, figure.samples, figure.raw_samples),
            (Some(4.0), Some(1.0), 5, 3)
        );
    }

    #[test]
    fn the_tail_is_what_is_bad() {
        let values: Vec<f64> = (1..=101).map(f64::from).collect();
        let p99 = |better| Figure::of("", "", &[round(better, &values, &[])]).ours_p99;
        assert_eq!((p99(Better::Lower), p99(Better::Higher)), (Some(100.0), Some(2.0)));
        let spread = Figure::of("", "", &[round(Better::Lower, &values, &[])]).ours_spread;
        assert_eq!(spread, Some(50.0 / 51.0));
    }

    #[test]
    fn what_was_not_measured_is_not_there() {
        let failed =
            Sample::new("x", "us", Better::Lower).raw([1.0]).ours_or(Err(anyhow::anyhow!("too large")));
        let figure = Figure::of("", "", &[failed]);
        assert_eq!((figure.ours, figure.ratio, figure.raw), (None, None, Some(1.0)));
        assert_eq!(figure.error.as_deref(), Some("too large"));
        assert_eq!(Figure::of("", "", &[round(Better::Lower, &[1.0], &[0.0])]).ratio, None);
    }
}
