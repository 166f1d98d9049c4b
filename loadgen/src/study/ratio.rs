//! Medians, ranges, and how sure a ratio is.

use serde::Serialize;

const RESAMPLES: usize = 10_000;
/// Of the interval, in percent.
pub const CONFIDENCE: f64 = 95.0;

/// Some values of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many.
    pub count: usize,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Option<Self> {
        let median = median(values)?;
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { median, min, max, count: values.len() })
    }
}

/// A ratio of pairs measured one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratio {
    /// Median of the ratios of the pairs.
    pub median: f64,
    /// Where the median lies with 95 % confidence, from.
    pub low: f64,
    /// To.
    pub high: f64,
    /// Pairs.
    pub pairs: usize,
}

impl Ratio {
    /// Of pairs (first, second), of which the second are not 0. The interval comes from drawing the
    /// pairs anew, with replacement, 10,000 times with a fixed seed.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let ratios: Vec<f64> =
            pairs.iter().filter(|pair| pair.1 != 0.0).map(|(a, b)| a / b).collect();
        let median_ratio = median(&ratios)?;
        let mut random = fastrand::Rng::with_seed(1);
        let mut drawn = vec![0.0; ratios.len()];
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                drawn.iter_mut().for_each(|slot| *slot = ratios[random.usize(..ratios.len())]);
                median(&drawn).unwrap_or(median_ratio)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let tail = (100.0 - CONFIDENCE) / 200.0;
        let at = |share: f64| medians[((RESAMPLES - 1) as f64 * share).round() as usize];
        let (low, high) = (at(tail), at(1.0 - tail));
        Some(Self { median: median_ratio, low, high, pairs: ratios.len() })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let rows: [(&[f64], f64, f64, f64); 3] = [
            (&[3.0], 3.0, 3.0, 3.0),
            (&[4.0, 1.0], 2.5, 1.0, 4.0),
            (&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
        ];
        for (values, median, min, max) in rows {
            let expected = Spread { median, min, max, count: values.len() };
            assert_eq!(Spread::of(values), Some(expected));
        }
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn pairs_cancel_what_both_have_in_common() {
        // The second minute of the machine was twice as slow for both.
        let pairs: Vec<(f64, f64)> =
            [1.0, 2.0, 1.0, 2.0, 1.0].iter().map(|slow| (3.0 * slow, 6.0 * slow)).collect();
        assert_eq!(Ratio::of(&pairs), Some(Ratio { median: 0.5, low: 0.5, high: 0.5, pairs: 5 }));
        assert_eq!(Ratio::of(&[(1.0, 0.0)]), None);
    }

    #[test]
    fn the_interval_holds_the_true_ratio_about_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(3);
        let trials = 200;
        let mut hits = 0;
        for _ in 0..trials {
            // Ratios around 2 whose logarithms are spread symmetrically.
            let mut pair = || (2.0 * (random.f64() - 0.5).exp() * 5.0, 5.0);
            let pairs: Vec<(f64, f64)> = (0..15).map(|_| pair()).collect();
            let ratio = Ratio::of(&pairs).expect("there are pairs");
            assert!(ratio.low <= ratio.median && ratio.median <= ratio.high);
            hits += usize::from((ratio.low..=ratio.high).contains(&2.0));
        }
        assert!(hits * 100 >= trials * 90, "{hits} of {trials}");
    }
}
