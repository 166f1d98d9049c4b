//! Rows that differ in one number, as a curve: what a study of an axis is read for. Drawn from the
//! study's report.json, so that pictures can be made anew without measuring.

use super::metric::{Metric, number};
use crate::report::chart::{Chart, Scale, Series};
use serde_json::Value;

/// Lines whose values lie further apart are drawn on powers of ten.
const WIDE: f64 = 20.0;

/// The charts of all axes with at least three values: the row they come from, and one chart for
/// each figure.
pub fn curves(report: &Value) -> Vec<(String, Vec<Chart>)> {
    let mut done: Vec<(&str, &str)> = Vec::new();
    let mut all = Vec::new();
    for row in list(&report["rows"]) {
        let (base, axes) = parts(row);
        for (axis, _) in axes.iter().filter(|(_, value)| value.parse::<f64>().is_ok()) {
            if done.contains(&(base, axis)) {
                continue;
            }
            done.push((base, axis));
            let metrics = list(&row["figures"]).filter_map(|figure| figure["metric"].as_str());
            let curves = metrics.filter_map(|metric| curve(report, base, axis, metric));
            let charts: Vec<Chart> = curves.collect();
            if !charts.is_empty() {
                all.push((format!("{base} by {axis}"), charts));
            }
        }
    }
    all
}

/// Each curve as a picture of its own, for pages about the study: name of the file, SVG.
pub fn pictures(report: &Value) -> Vec<(String, String)> {
    let numbered = curves(report).into_iter().flat_map(|(name, charts)| {
        let name = name.replace(' ', "-");
        (1..).zip(charts).map(move |(number, chart)| (format!("{name}-{number}.svg"), chart))
    });
    numbered.map(|(name, chart)| (name, chart.standalone())).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A row's name before its axes, and the axes with their values.
fn parts(row: &Value) -> (&str, Vec<(&str, &str)>) {
    let mut words = row["name"].as_str().unwrap_or_default().split(',');
    let base = words.next().unwrap_or_default();
    (base, words.filter_map(|word| word.split_once('=')).collect())
}

/// One figure over one axis: a line for each broker and combination of the other axes; a colour for
/// each broker, dashes for each combination.
fn curve(report: &Value, base: &str, axis: &str, metric: &str) -> Option<Chart> {
    let brokers: Vec<&str> = list(&report["brokers"]).filter_map(|b| b["name"].as_str()).collect();
    let metric = Metric(metric.to_owned());
    let (mut series, mut combinations): (Vec<Series>, Vec<String>) = (Vec::new(), Vec::new());
    for row in list(&report["rows"]) {
        let (row_base, axes) = parts(row);
        let value = axes.iter().find(|(name, _)| *name == axis).and_then(|(_, v)| v.parse().ok());
        let Some(x) = value.filter(|_| row_base == base) else { continue };
        let others = axes.iter().filter(|(name, _)| *name != axis);
        let others: Vec<String> = others.map(|(name, value)| format!("{name}={value}")).collect();
        let others = others.join(" ");
        let known = combinations.iter().position(|known| *known == others);
        let dashes = known.unwrap_or_else(|| {
            combinations.push(others.clone());
            combinations.len() - 1
        });
        for (place, broker) in brokers.iter().enumerate() {
            let Some(y) = median(row, &metric, place) else { continue };
            let is_alone = brokers.len() == 1 && !others.is_empty();
            let broker = if is_alone { "" } else { broker };
            let name = format!("{broker} {others}").trim().to_owned();
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push((x, y)),
                None => {
                    let style = (brokers.len() > 1).then_some((place, dashes));
                    series.push(Series { name, points: vec![(x, y)], style });
                }
            }
        }
    }
    series.iter_mut().for_each(|series| series.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    series.retain(|series| series.points.len() >= 3);
    let scale = |of: fn(&(f64, f64)) -> f64| {
        let values = || series.iter().flat_map(|series| &series.points).map(of);
        let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        if low > 0.0 && high / low >= WIDE { Scale::Log } else { Scale::Linear }
    };
    let (x_scale, y_scale) = (scale(|point| point.0), scale(|point| point.1));
    (!series.is_empty()).then(|| Chart {
        title: metric.words().to_owned(),
        x_label: words(axis).to_owned(),
        x_scale,
        y_scale,
        y_words: brief,
        x_words: brief,
        series,
    })
}

fn brief(value: f64) -> String {
    match value {
        1_000_000.0.. => format!("{} M", number(value / 1e6)),
        1_000.0.. => format!("{} k", number(value / 1e3)),
        _ => number(value),
    }
}

/// An option as the label of an axis.
fn words(axis: &str) -> &str {
    match axis {
        "batch-records" => "records in a batch",
        "linger-ms" => "linger, ms",
        "fanout" => "readers of each partition",
        "compressible" => "share that compresses, %",
        "record-bytes" => "bytes of a record",
        other => other,
    }
}

fn median(row: &Value, metric: &Metric, broker: usize) -> Option<f64> {
    let figure = list(&row["figures"]).find(|figure| figure["metric"] == metric.0.as_str())?;
    Some(metric.scaled(figure["brokers"][broker]["spread"]["median"].as_f64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::file;
    use crate::study::found::Found;
    use serde_json::json;

    #[test]
    fn numbers_of_an_axis_become_a_curve_for_each_combination_of_the_others() {
        let text = "title = \"t\"\nrepeats = 1\n\
            [[broker]]\nname = \"A\"\naddress = \"127.0.0.1:1\"\n\
            [[row]]\nname = \"r\"\nrun = \"\"\nshow = [\"bytes_per_second\", \"retries\"]\n\
            axes = { acks = [\"1\", \"all\"], batch-records = [100, 1, 10] }\n\
            [[row]]\nname = \"r,flush=each\"\nrun = \"\"\nshow = [\"bytes_per_second\"]\n\
            axes = { batch-records = [1, 10, 100] }\n\
            [[row]]\nname = \"alone\"\nrun = \"\"\nshow = [\"bytes_per_second\"]\n";
        let study = file::parse("s.toml", text).expect("a study");
        let mut found = Found::of(&study, "");
        for row in &study.rows {
            let of = |name: &str| row.name.split(',').find_map(|axis| axis.strip_prefix(name));
            let batch = of("batch-records=").map_or(0.0, |n| n.parse().expect("a number"));
            let factor = if of("acks=") == Some("1") { 2e6 } else { 1e6 };
            let report = json!({ "valid": true, "bytes_per_second": factor * batch });
            found.add(&row.name, 0, 0, &report);
        }
        found.sum_up(&study);
        let report = serde_json::to_value(&found).expect("JSON");
        let all = curves(&report);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["r by batch-records"], "acks are words, two values are no curve");
        let [chart] = &all[0].1[..] else { panic!("one figure has values") };
        let lines: Vec<(&str, &[(f64, f64)])> =
            chart.series.iter().map(|s| (s.name.as_str(), &s.points[..])).collect();
        let expected: [(&str, &[(f64, f64)]); 3] = [
            ("acks=1", &[(1.0, 2.0), (10.0, 20.0), (100.0, 200.0)]),
            ("acks=all", &[(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]),
            ("flush=each", &[(1.0, 1.0), (10.0, 10.0), (100.0, 100.0)]),
        ];
        assert_eq!(lines, expected);
        assert_eq!((chart.title.as_str(), chart.x_scale), ("MB/s", Scale::Log));
        let [(name, svg)] = &pictures(&report)[..] else { panic!("one picture") };
        assert_eq!(name, "r-by-batch-records-1.svg");
        assert!(svg.starts_with("<svg xmlns="));
    }
}
