//! Latency histograms: nanoseconds in, microseconds out, and no percentile that the samples do not
//! carry.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;
use std::io::{self, Write};

/// Smallest time told apart and largest time kept; longer ones count as the largest.
const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;
/// A percentile is refused with fewer samples beyond it.
const SAMPLES_BEYOND_MIN: f64 = 10.0;

/// Times of one kind.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Histogram<u64>,
}

/// The percentiles a report names, in microseconds; `None` where too few samples lie beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<f64>,
    /// 1 in 10 is above.
    pub p90: Option<f64>,
    /// 1 in 100 is above.
    pub p99: Option<f64>,
    /// 1 in 1,000 is above.
    pub p99_9: Option<f64>,
    /// 1 in 10,000 is above.
    pub p99_99: Option<f64>,
    /// The largest sample.
    pub max: Option<f64>,
    /// Number of samples.
    pub count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        let mut counts = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)
            .expect("bounds are in order and digits at most 5");
        counts.auto(false);
        Self { counts }
    }
}

impl Latencies {
    /// Adds one time.
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Adds the same time `count` times.
    pub fn record_n(&mut self, ns: u64, count: u64) {
        self.counts.saturating_record_n(ns, count);
    }

    /// Adds all samples of another histogram.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts).expect("histograms have the same bounds");
    }

    /// Forgets all samples.
    pub fn clear(&mut self) {
        self.counts.reset();
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        self.counts.len()
    }

    /// The time that `quantile` of the samples do not exceed, in microseconds; `None` with fewer
    /// than 10 beyond it.
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        // The product of a count and 0.01 is not exactly a hundredth; a millionth of a sample is
        // forgiven.
        let beyond = self.counts.len() as f64 * (1.0 - quantile) + 1e-6;
        (beyond >= SAMPLES_BEYOND_MIN).then(|| self.counts.value_at_quantile(quantile) as f64 / 1e3)
    }

    /// The largest sample in microseconds, to the histogram's resolution.
    pub fn max_us(&self) -> Option<f64> {
        (!self.counts.is_empty()).then(|| self.counts.max() as f64 / 1e3)
    }

    /// Samples above a time.
    pub fn count_above_us(&self, us: f64) -> u64 {
        self.counts.len() - self.counts.count_between(0, (us * 1e3) as u64)
    }

    /// The mean in microseconds.
    pub fn mean_us(&self) -> f64 {
        self.counts.mean() / 1e3
    }

    /// The percentiles of a report.
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.quantile_us(0.5),
            p90: self.quantile_us(0.9),
            p99: self.quantile_us(0.99),
            p99_9: self.quantile_us(0.999),
            p99_99: self.quantile_us(0.9999),
            max: self.max_us(),
            count: self.count(),
        }
    }

    /// Points (quantile, microseconds) for a curve on an axis of nines, as far as samples carry it.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        // Ten points for each halving of the distance to 1, as far as 2^-24.
        (0..240)
            .map(|step| 1.0 - 0.5_f64.powf(f64::from(step) / 10.0))
            .map_while(|quantile| self.quantile_us(quantile).map(|us| (quantile, us)))
            .collect()
    }

    /// The head of an interval log that begins at a wall-clock time, as HdrHistogram's readers want
    /// it: times are seconds from there, the largest value is told in milliseconds.
    pub fn write_hlog_head(began_ms: i64, out: &mut impl Write) -> io::Result<()> {
        let began_s = began_ms as f64 / 1e3;
        let utc = crate::clock::utc_words(began_ms);
        writeln!(out, "#[Histogram log format version 1.3]")?;
        writeln!(out, "#[StartTime: {began_s:.3} (seconds since epoch), {utc}]")?;
        writeln!(out, "#[BaseTime: {began_s:.3} (seconds since epoch)]")?;
        writeln!(
            out,
            "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\""
        )
    }

    /// One line of it: the samples of an interval, in nanoseconds.
    pub fn write_hlog(&self, start_s: f64, seconds: f64, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        let written = V2DeflateSerializer::new().serialize(&self.counts, &mut bytes);
        written.map_err(io::Error::other)?;
        let max_ms = self.counts.max() as f64 / 1e6;
        writeln!(out, "{start_s:.3},{seconds:.3},{max_ms:.3},{}", STANDARD.encode(bytes))
    }

    /// Writes the percentile distribution as the HdrHistogram plotters read it, in microseconds.
    pub fn write_hgrm(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        let mut total = 0;
        for step in self.counts.iter_quantiles(5) {
            total += step.count_since_last_iteration();
            let value = step.value_iterated_to() as f64 / 1e3;
            let quantile = step.quantile_iterated_to();
            if quantile < 1.0 {
                let nines = 1.0 / (1.0 - quantile);
                writeln!(out, "{value:>12.3} {quantile:>2.12} {total:>10} {nines:>14.2}")?;
            } else {
                writeln!(out, "{value:>12.3} {quantile:>2.12} {total:>10}")?;
            }
        }
        let (mean, deviation) = (self.mean_us(), self.counts.stdev() / 1e3);
        let (max, count) = (self.counts.max() as f64 / 1e3, self.counts.len());
        writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
        writeln!(out, "#[Max     = {max:>12.3}, Total count    = {count:>12}]")?;
        // All buckets but the first have half as many values of their own.
        let buckets = usize::from(self.counts.buckets());
        let sub_buckets = 2 * self.counts.distinct_values() / (buckets + 1);
        writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_us: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        times_us.into_iter().for_each(|us| latencies.record(us * 1_000));
        latencies
    }

    #[test]
    fn a_percentile_needs_ten_samples_beyond_it() {
        let rows = [
            (19, [false, false, false, false, false]),
            (20, [true, false, false, false, false]),
            (100, [true, true, false, false, false]),
            (999, [true, true, false, false, false]),
            (1_000, [true, true, true, false, false]),
            (10_000, [true, true, true, true, false]),
            (100_000, [true, true, true, true, true]),
        ];
        for (count, expected) in rows {
            let p = of(1..=count).percentiles();
            let given = [p.p50, p.p90, p.p99, p.p99_9, p.p99_99].map(|value| value.is_some());
            assert_eq!(given, expected, "{count} samples");
            assert_eq!(p.count, count);
        }
    }

    #[test]
    fn agrees_with_a_sorted_list_within_three_digits() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut times: Vec<u64> =
            (0..200_000).map(|_| (10.0 / (1.0 - random.f64()).powf(0.7)) as u64 + 1).collect();
        let latencies = of(times.iter().copied());
        times.sort_unstable();
        for quantile in [0.5, 0.9, 0.99, 0.999, 0.9999] {
            let rank = (times.len() as f64 * quantile).ceil() as usize - 1;
            let expected = times[rank] as f64;
            let given = latencies.quantile_us(quantile).expect("enough samples");
            // One part in a thousand, and the half microsecond that is the unit of the lowest
            // bucket.
            assert!(
                (given - expected).abs() <= expected / 1000.0 + 0.6,
                "{quantile}: {given} {expected}"
            );
        }
    }

    /// What HdrHistogram 2.2.2 for Java prints of the same samples, line by line.
    #[test]
    fn the_distribution_is_that_of_hdrhistogram_for_java() {
        let mut latencies = Latencies::default();
        let mut x = 42_u64;
        for _ in 0..100_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            latencies.record(1_000 + (((x >> 33) % 1_000_000) << ((x >> 20) & 7)));
        }
        let mut text = Vec::new();
        latencies.write_hgrm(&mut text).expect("a vector takes it");
        let text = String::from_utf8(text).expect("text");
        let java = include_str!("../tests/vectors/hdrhistogram-2.2.2.hgrm");
        let fields = |text: &str| -> Vec<Vec<String>> {
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
        };
        let (ours, theirs) = (fields(&text), fields(java));
        assert!(theirs.len() > 60, "{} lines", theirs.len());
        assert_eq!(ours.len(), theirs.len());
        for (our, their) in ours.iter().zip(&theirs).filter(|(our, their)| our != their) {
            // Where a percentile falls on a whole number of samples, the two round apart: one of
            // them takes the next value, not a thousandth above.
            let number = |text: &String| text.parse::<f64>().expect("a number");
            assert_eq!((&our[1], &our[3]), (&their[1], &their[3]));
            assert_eq!(number(&their[1]) * 100_000.0, number(&their[2]), "{our:?} {their:?}");
            let ratio = number(&our[0]) / number(&their[0]);
            assert!((1.0..1.001).contains(&ratio), "{our:?} {their:?}");
        }
    }

    #[test]
    fn merging_is_the_same_as_recording_in_one() {
        let mut merged = of(1..500);
        merged.add(&of(500..=1_000));
        assert_eq!(merged.percentiles(), of(1..=1_000).percentiles());
        merged.clear();
        assert_eq!(merged.percentiles(), Percentiles::default());
    }

    #[test]
    fn hgrm_ends_with_all_samples() {
        let mut text = Vec::new();
        of(1..=1_000).write_hgrm(&mut text).expect("a vector takes it");
        let text = String::from_utf8(text).expect("it is text");
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace().map(|field| field.parse().expect("a number")).collect()
            })
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2]));
        assert_eq!(rows.last().map(|row| (row[1], row[2])), Some((1.0, 1_000.0)));
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }

    #[test]
    fn a_time_beyond_the_range_counts_as_the_largest() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        assert_eq!(latencies.count(), 1);
        assert!(latencies.max_us().expect("one sample") >= 3.6e9);
    }
}
