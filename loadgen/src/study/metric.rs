//! Figures of a run by name, and what is demanded of them.

use super::ratio::{Ratio, Spread};
use serde::Serialize;
use serde_json::Value;

/// A figure named by its path in a run's report.json, such as `response_us.p50`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Metric(pub String);

/// Path, words, factor and decimals of the figures people ask for.
const KNOWN: &[(&str, &str, f64, usize)] = &[
    ("broker_cpu_s_per_gb", "broker CPU, s/GB", 1.0, 3),
    ("broker_cpu_us_per_record", "broker CPU, us/record", 1.0, 2),
    ("bytes_per_second", "MB/s", 1e-6, 1),
    ("records_per_second", "thousand records/s", 1e-3, 2),
    ("response_us.p50", "answer p50, ms", 1e-3, 3),
    ("response_us.p99", "answer p99, ms", 1e-3, 3),
    ("response_us.p90", "answer p90, ms", 1e-3, 3),
    ("end_to_end_us.p90", "end to end p90, ms", 1e-3, 3),
    ("records_per_batch", "records in a batch", 1.0, 1),
    ("end_to_end_us.p50", "end to end p50, ms", 1e-3, 3),
    ("end_to_end_us.p99", "end to end p99, ms", 1e-3, 3),
    ("flushes_per_request", "flushes a request", 1.0, 2),
    ("broker.rss_bytes", "broker RSS, MiB", 1.0 / 1_048_576.0, 0),
    ("broker.cpus", "CPUs the broker kept busy", 1.0, 2),
    ("client_cpu_fraction", "client CPU fraction", 1.0, 2),
    ("first_answer_ms", "start to first answer, ms", 1.0, 1),
    ("kill_to_ack_ms", "kill -9 to first ack, ms", 1.0, 1),
    ("to_first_ack_ms", "failure to first ack, ms", 1.0, 1),
    ("lost", "acknowledged and lost", 1.0, 0),
    ("altered", "altered", 1.0, 0),
    ("start_to_ack_ms", "start to first ack, ms", 1.0, 1),
    ("cpu_percent", "idle CPU, % of a core", 1.0, 3),
    ("rss_mib", "RSS, MiB", 1.0, 1),
    ("catch_up.bytes_per_second", "cold readers, MB/s", 1e-6, 1),
    ("group.join_ms", "group joined, ms", 1.0, 0),
    ("group.commit_us.p50", "commit p50, ms", 1e-3, 3),
    ("broker_cpu_us_each", "broker CPU, us each", 1.0, 1),
    ("broker_grew_mib", "broker RSS grew, MiB", 1.0, 1),
];

impl Metric {
    /// The figure in a report, if it has it.
    pub fn of(&self, report: &Value) -> Option<f64> {
        self.0.split('.').try_fold(report, |value, key| value.get(key))?.as_f64()
    }

    /// What it is, with its unit.
    pub fn words(&self) -> &str {
        self.known().map_or(&self.0, |known| known.1)
    }

    /// A value in that unit, as a number.
    pub fn scaled(&self, value: f64) -> f64 {
        value * self.known().map_or(1.0, |known| known.2)
    }

    /// A value in that unit.
    pub fn show(&self, value: f64) -> String {
        let (factor, decimals) = self.known().map_or((1.0, 3), |known| (known.2, known.3));
        format!("{:.decimals$}", value * factor)
    }

    fn known(&self) -> Option<&'static (&'static str, &'static str, f64, usize)> {
        KNOWN.iter().find(|known| known.0 == self.0)
    }

    /// Rates are better when large, everything else when small.
    pub fn is_rate(&self) -> bool {
        self.0.ends_with("_per_second")
    }

    /// Whether it holds even where the client was the limit.
    pub fn is_cost(&self) -> bool {
        self.0.starts_with("broker") || self.0.starts_with("flushes")
    }
}

/// Of what something is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The first broker's figure divided by the other's.
    Ratio,
    /// The first broker's figure.
    Value,
}

/// A demand such as `broker_cpu_s_per_gb ratio <= 0.2`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Of which figure.
    pub metric: Metric,
    /// Of its ratio or its value.
    pub subject: Subject,
    /// At most the limit; at least, if false.
    pub is_at_most: bool,
    /// In report.json's unit.
    pub limit: f64,
}

/// What became of a demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Met, and so is all of the interval or range.
    Reached,
    /// The median meets it, but not all of the interval or range.
    Barely,
    /// The median does not meet it.
    Missed,
    /// Too few valid runs to say.
    Unknown,
}

impl Bound {
    /// Parses METRIC (ratio|value) (<=|>=) NUMBER.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let wrong = || format!("'{text}' is not METRIC (ratio|value) (<=|>=) NUMBER");
        let [metric, subject, relation, limit] = words[..] else { return Err(wrong()) };
        let subject = match subject {
            "ratio" => Subject::Ratio,
            "value" => Subject::Value,
            _ => return Err(wrong()),
        };
        let is_at_most = match relation {
            "<=" => true,
            ">=" => false,
            _ => return Err(wrong()),
        };
        let limit = limit.parse().map_err(|_| wrong())?;
        Ok(Self { metric: Metric(metric.to_owned()), subject, is_at_most, limit })
    }

    /// The demand in words.
    pub fn words(&self) -> String {
        let relation = if self.is_at_most { "at most" } else { "at least" };
        match self.subject {
            Subject::Value => {
                let factor = self.metric.known().map_or(1.0, |known| known.2);
                format!("{relation} {}", number(self.limit * factor))
            }
            Subject::Ratio => format!("ratio {relation} {}", number(self.limit)),
        }
    }

    /// Whether it is met.
    pub fn judge(&self, value: Option<Spread>, ratio: Option<Ratio>) -> Outcome {
        let interval = match self.subject {
            Subject::Value => value.map(|spread| (spread.median, spread.min, spread.max)),
            Subject::Ratio => ratio.map(|ratio| (ratio.median, ratio.low, ratio.high)),
        };
        let Some((median, low, high)) = interval else { return Outcome::Unknown };
        let (is_met, is_met_by_all) = match self.is_at_most {
            true => (median <= self.limit, high <= self.limit),
            false => (median >= self.limit, low >= self.limit),
        };
        match (is_met, is_met_by_all) {
            (_, true) => Outcome::Reached,
            (true, false) => Outcome::Barely,
            (false, _) => Outcome::Missed,
        }
    }
}

/// A ratio with three significant digits.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_found_by_path() {
        let report = json!({ "a_per_second": 5, "response_us": { "p50": 1500.0, "p99": null } });
        let rows = [
            ("a_per_second", Some(5.0)),
            ("response_us.p50", Some(1500.0)),
            ("response_us.p99", None),
            ("response_us", None),
            ("nothing.here", None),
        ];
        for (path, expected) in rows {
            assert_eq!(Metric(path.to_owned()).of(&report), expected, "{path}");
        }
        assert_eq!(Metric("response_us.p50".to_owned()).show(1500.0), "1.500");
    }

    #[test]
    fn demands_are_parsed_and_judged() {
        let ratio = |median, low, high| Some(Ratio { median, low, high, pairs: 5 });
        let spread = |median, min, max| Some(Spread { median, min, max, count: 5 });
        let rows = [
            ("x ratio <= 0.2", spread(9.0, 9.0, 9.0), ratio(0.1, 0.1, 0.2), Outcome::Reached),
            ("x ratio <= 0.2", None, ratio(0.1, 0.1, 0.3), Outcome::Barely),
            ("x ratio <= 0.2", None, ratio(0.3, 0.1, 0.4), Outcome::Missed),
            ("x ratio >= 4", None, ratio(5.0, 4.5, 6.0), Outcome::Reached),
            ("x ratio >= 4", None, ratio(5.0, 3.5, 6.0), Outcome::Barely),
            ("x value <= 100", spread(50.0, 40.0, 90.0), None, Outcome::Reached),
            ("x value <= 100", spread(50.0, 40.0, 190.0), None, Outcome::Barely),
            ("x value >= 100", None, ratio(1.0, 1.0, 1.0), Outcome::Unknown),
        ];
        for (text, value, ratio, expected) in rows {
            let bound = Bound::parse(text).expect(text);
            assert_eq!(bound.judge(value, ratio), expected, "{text}");
        }
        for text in ["", "x", "x ratio < 1", "x part <= 1", "x ratio <= few", "x ratio <= 1 2"] {
            assert!(Bound::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ratios_have_three_digits() {
        for (value, text) in [(0.2, "0.2"), (1.0 / 3.0, "0.333"), (12.34, "12.3"), (1500.0, "1500")]
        {
            assert_eq!(number(value), text);
        }
    }
}
