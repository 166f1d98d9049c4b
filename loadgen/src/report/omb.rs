//! omb.json: a run with the names of the OpenMessaging Benchmark's results, for tools that read
//! those.
//!
//! Its publish latency begins with the sending, not when the record was due: that is our service
//! time. Its end-to-end latency is compared with ours, which begins when the record was due. Times
//! in milliseconds; a percentile with fewer than 10 samples beyond it is null.

use super::{Outcome, Row};
use crate::histogram::Latencies;
use serde_json::{Map, Value, json};

const QUANTILES: [(&str, f64); 6] = [
    ("50pct", 0.5),
    ("75pct", 0.75),
    ("95pct", 0.95),
    ("99pct", 0.99),
    ("999pct", 0.999),
    ("9999pct", 0.9999),
];

/// The whole file.
pub fn result(outcome: &Outcome) -> Value {
    let report = &outcome.report;
    let configuration = &report.configuration;
    let of_rows = |value: &dyn Fn(&Row) -> Option<f64>| -> Vec<Option<f64>> {
        report.intervals.iter().map(value).collect()
    };
    let ms = |us: Option<f64>| us.map(|us| us / 1e3);
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    put("workload", json!(report.command));
    put("driver", json!(format!("loadgen {}", report.version)));
    put("messageSize", configuration["record_bytes"].clone());
    put("topics", json!(1));
    put("partitions", configuration["partitions"].clone());
    put("producersPerTopic", configuration["connections"].clone());
    put("consumersPerTopic", configuration["consumers"].clone());
    put("beginTime", json!(report.started));
    put("publishRate", json!(of_rows(&|row| Some(row.records_per_second))));
    put("consumeRate", json!(of_rows(&|row| Some(row.consumed_per_second))));
    put("endToEndLatency50pct", json!(of_rows(&|row| ms(row.end_to_end_us.p50))));
    put("endToEndLatency99pct", json!(of_rows(&|row| ms(row.end_to_end_us.p99))));
    put("endToEndLatencyMax", json!(of_rows(&|row| ms(row.end_to_end_us.max))));
    aggregate(&mut put, "aggregatedPublishLatency", &outcome.service);
    aggregate(&mut put, "aggregatedEndToEndLatency", &outcome.end_to_end);
    Value::Object(map)
}

fn aggregate(put: &mut impl FnMut(&str, Value), prefix: &str, latencies: &Latencies) {
    let ms = |us: Option<f64>| us.map(|us| us / 1e3);
    let mean = (latencies.count() > 0).then(|| latencies.mean_us());
    put(&format!("{prefix}Avg"), json!(ms(mean)));
    for (name, quantile) in QUANTILES {
        put(&format!("{prefix}{name}"), json!(ms(latencies.quantile_us(quantile))));
    }
    put(&format!("{prefix}Max"), json!(ms(latencies.max_us())));
    let curve = latencies.curve().into_iter();
    let curve = curve.map(|(quantile, us)| (format!("{:.4}", quantile * 100.0), json!(us / 1e3)));
    put(&format!("{prefix}Quantiles"), Value::Object(curve.collect()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::History;
    use crate::report::Report;

    #[test]
    fn times_are_milliseconds_and_publish_latency_begins_with_the_sending() {
        let of = |us: u64| {
            let mut latencies = Latencies::default();
            (0..100).for_each(|_| latencies.record(us * 1000));
            latencies
        };
        let row = Row { records_per_second: 7.0, ..Default::default() };
        let report = Report { intervals: vec![row], ..Default::default() };
        let (response, service) = (of(9_000), of(2_000));
        let outcome = Outcome {
            report,
            response,
            service,
            end_to_end: Latencies::default(),
            history: History::default(),
        };
        let result = result(&outcome);
        let p50 = result["aggregatedPublishLatency50pct"].as_f64().expect("100 samples");
        assert!((p50 - 2.0).abs() < 0.01, "{p50}");
        assert_eq!(result["aggregatedPublishLatency9999pct"], Value::Null);
        assert_eq!(result["aggregatedEndToEndLatencyAvg"], Value::Null);
        assert_eq!(result["publishRate"], json!([7.0]));
    }
}
