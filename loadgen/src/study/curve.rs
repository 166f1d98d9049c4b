//! Rows that differ in one number, as a curve: what a study of an axis is read for.

use super::found::{Found, RowFound};
use super::metric::{Metric, number};
use crate::report::chart::{Chart, Scale, Series};
use crate::report::text::short;

/// The charts of all axes with at least three values: the row they come from, and one chart for
/// each figure.
pub fn curves(found: &Found) -> Vec<(String, Vec<Chart>)> {
    let mut done: Vec<(String, String)> = Vec::new();
    let mut all = Vec::new();
    for row in found.rows.iter().filter(|row| row.is_measured()) {
        let (base, axes) = parts(&row.name);
        for (axis, _) in axes.iter().filter(|(_, value)| value.parse::<f64>().is_ok()) {
            let key = (base.to_owned(), (*axis).to_owned());
            if done.contains(&key) {
                continue;
            }
            done.push(key);
            let charts: Vec<Chart> = row
                .figures
                .iter()
                .filter_map(|figure| curve(found, base, axis, &figure.metric))
                .collect();
            if !charts.is_empty() {
                all.push((format!("{base} by {axis}"), charts));
            }
        }
    }
    all
}

/// A row's name before its axes, and the axes with their values.
fn parts(name: &str) -> (&str, Vec<(&str, &str)>) {
    let mut words = name.split(',');
    let base = words.next().unwrap_or_default();
    (base, words.filter_map(|word| word.split_once('=')).collect())
}

/// One figure over one axis: a line for each broker and combination of the other axes.
fn curve(found: &Found, base: &str, axis: &str, metric: &Metric) -> Option<Chart> {
    let mut series: Vec<Series> = Vec::new();
    for row in found.rows.iter().filter(|row| parts(&row.name).0 == base) {
        let (_, axes) = parts(&row.name);
        let Some(x) = axes
            .iter()
            .find_map(|(name, value)| (*name == axis).then(|| value.parse::<f64>().ok()).flatten())
        else {
            continue;
        };
        let others: Vec<String> = axes
            .iter()
            .filter(|(name, _)| *name != axis)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        for (place, broker) in found.brokers.iter().enumerate() {
            let Some(y) = median(row, metric, place) else { continue };
            let is_alone = found.brokers.len() == 1 && !others.is_empty();
            let broker = if is_alone { "" } else { broker.spec.name.as_str() };
            let name = format!("{broker} {}", others.join(" ")).trim().to_owned();
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push((x, y)),
                None => series.push(Series { name, points: vec![(x, y)] }),
            }
        }
    }
    series.iter_mut().for_each(|series| series.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    series.retain(|series| series.points.len() >= 3);
    let xs = || series.iter().flat_map(|series| &series.points).map(|point| point.0);
    let (low, high) = (xs().fold(f64::MAX, f64::min), xs().fold(0.0, f64::max));
    let is_wide = low > 0.0 && high / low >= 20.0;
    (!series.is_empty()).then(|| Chart {
        title: metric.words().to_owned(),
        x_label: axis.to_owned(),
        x_scale: if is_wide { Scale::Log } else { Scale::Linear },
        y_scale: Scale::Linear,
        y_words: |y| if y < 1_000.0 { number(y) } else { short(y) },
        x_words: |x| if x < 1_000.0 { number(x) } else { short(x) },
        series,
    })
}

fn median(row: &RowFound, metric: &Metric, broker: usize) -> Option<f64> {
    let figure = row.figures.iter().find(|figure| figure.metric == *metric)?;
    Some(metric.scaled(figure.brokers.get(broker)?.spread?.median))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::file;
    use serde_json::json;

    #[test]
    fn numbers_of_an_axis_become_a_curve_for_each_combination_of_the_others() {
        let text = "title = \"t\"\nrepeats = 1\n\
            [[broker]]\nname = \"A\"\naddress = \"127.0.0.1:1\"\n\
            [[row]]\nname = \"r\"\nrun = \"\"\nshow = [\"bytes_per_second\", \"none\"]\n\
            axes = { acks = [\"1\", \"all\"], batch-records = [100, 1, 10] }\n\
            [[row]]\nname = \"alone\"\nrun = \"\"\nshow = [\"bytes_per_second\"]\n";
        let study = file::parse("s.toml", text).expect("a study");
        let mut found = Found::of(&study, "");
        for row in &study.rows {
            let of = |name: &str| parts(&row.name).1.into_iter().find(|axis| axis.0 == name);
            let batch = of("batch-records").map_or(0.0, |axis| axis.1.parse().expect("a number"));
            let factor = if of("acks").is_some_and(|axis| axis.1 == "all") { 1e6 } else { 2e6 };
            let report = json!({ "valid": true, "bytes_per_second": factor * batch });
            found.add(&row.name, 0, 0, &report);
        }
        found.sum_up(&study);
        let all = curves(&found);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["r by batch-records"], "acks are words, two values are no curve");
        let [chart] = &all[0].1[..] else { panic!("one figure has values") };
        let lines: Vec<(&str, &[(f64, f64)])> =
            chart.series.iter().map(|s| (s.name.as_str(), &s.points[..])).collect();
        let expected: [(&str, &[(f64, f64)]); 2] = [
            ("acks=1", &[(1.0, 2.0), (10.0, 20.0), (100.0, 200.0)]),
            ("acks=all", &[(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]),
        ];
        assert_eq!(lines, expected);
        assert_eq!((chart.title.as_str(), chart.x_scale), ("MB/s", Scale::Log));
        assert!(chart.standalone().starts_with("<svg xmlns="));
    }
}
