//! The report as text: the verdict, a summary in Markdown, intervals as CSV.

use super::{Report, Row};
use crate::args::{Codec, RunArgs, Switch};
use crate::histogram::Percentiles;
use clap::ValueEnum;
use std::fmt::Write;

/// A number of microseconds in a unit that suits it.
pub fn time(us: Option<f64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us) if us < 1_000.0 => format!("{us:.0} us"),
        Some(us) if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        Some(us) if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        Some(us) => format!("{:.2} s", us / 1e6),
    }
}

/// A number with a suffix of thousands.
pub fn short(number: f64) -> String {
    match number {
        ..1e3 => format!("{number:.0}"),
        ..1e4 => format!("{:.2} k", number / 1e3),
        ..1e6 => format!("{:.1} k", number / 1e3),
        ..1e9 => format!("{:.2} M", number / 1e6),
        _ => format!("{:.2} G", number / 1e9),
    }
}

/// A number with decimals, or a dash.
pub fn decimal(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.decimals$}"))
}

/// What a run is asked to do, in one sentence.
pub fn load(args: &RunArgs) -> String {
    let many = |count: u32, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let bytes = match args.shape.record_bytes_max.filter(|most| *most > args.record_bytes) {
        Some(most) => format!("{} to {most}", args.record_bytes),
        None => args.record_bytes.to_string(),
    };
    let mut text = format!("acks={}, ", args.acks.word());
    let at_most = if args.linger_ms > 0.0 { "at most " } else { "" };
    let _ = write!(text, "batches of {at_most}{}", many(args.batch_records, "record"));
    let _ = write!(text, " of {bytes} bytes, {} a request", args.batches_per_request);
    if args.linger_ms > 0.0 {
        let _ = write!(text, ", linger {} ms", args.linger_ms);
    }
    if let Some(codec) = args.codec.to_possible_value().filter(|_| args.codec != Codec::None) {
        let _ = write!(text, ", {}", codec.get_name());
    }
    if args.keys > 0 {
        let _ = write!(text, ", {}", many(args.keys, "key"));
    }
    if args.idempotent == Switch::On {
        text.push_str(", idempotent");
    }
    let _ = match (args.rate, &args.shape.schedule) {
        (Some(rate), _) => write!(text, "; open loop, {} records/s", short(rate)),
        (None, Some(_)) => write!(text, "; open loop, by a schedule"),
        (None, None) => write!(text, "; closed loop"),
    };
    let _ = write!(text, ", {}", many(args.connections, "connection"));
    let _ = write!(text, ", at most {} in flight", many(args.inflight, "request"));
    let _ = match &args.mix.group {
        Some(_) => write!(text, "; {} in a group", many(args.consumers, "consumer")),
        None => write!(
            text,
            "; {} of each partition",
            many(args.consumers.min(1) * args.fanout, "reader")
        ),
    };
    let (warmup, duration) = (args.warmup.as_secs_f64(), args.duration.as_secs_f64());
    let _ = write!(text, "; {duration} s measured after {warmup} s");
    text
}

/// The run in one sentence.
pub fn verdict(report: &Report) -> String {
    let mut text = match report.valid {
        true if report.overloaded => "Valid, but overloaded: ".to_owned(),
        true => "Valid: ".to_owned(),
        false => format!("Not valid ({}): ", report.invalid_reasons.join("; ")),
    };
    let (records, bytes) = (report.records_per_second, report.bytes_per_second);
    let _ = write!(text, "{} records/s, {}B/s", short(records), short(bytes));
    if report.response_us.count > 0 {
        let Percentiles { p50, p99, .. } = report.response_us;
        let _ = write!(text, ", answered in {} (median) and {} (p99)", time(p50), time(p99));
    }
    if report.end_to_end_us.count > 0 {
        let Percentiles { p50, p99, .. } = report.end_to_end_us;
        let _ = write!(text, ", seen by a consumer after {} and {}", time(p50), time(p99));
    }
    if let Some(us) = report.broker_cpu_us_per_record {
        let _ = write!(text, ", {us:.3} us of broker CPU a record");
    }
    let _ = write!(text, "; {} records verified, ", report.records_verified);
    let complaints = report.integrity.complaints(false);
    let _ = match complaints.is_empty() {
        true => write!(text, "none lost, doubled, altered or out of order."),
        false => write!(text, "{}.", complaints.join(", ")),
    };
    text
}

/// Sentences that differ in their numbers only, as one each: the first, and how many there are.
pub fn grouped(sentences: &[String]) -> Vec<String> {
    let mut groups: Vec<(String, &String, usize)> = Vec::new();
    for sentence in sentences {
        let kind: String = sentence.chars().filter(|c| !c.is_ascii_digit()).collect();
        match groups.iter_mut().find(|group| group.0 == kind) {
            Some(group) => group.2 += 1,
            None => groups.push((kind, sentence, 1)),
        }
    }
    let words = groups.into_iter().map(|(_, first, count)| match count {
        1 => first.clone(),
        _ => format!("{first} (and {} like it)", count - 1),
    });
    words.collect()
}

/// Rows of a table of percentiles: name and seven cells.
pub fn percentile_rows(report: &Report) -> Vec<(&'static str, [String; 7])> {
    [
        ("response", &report.response_us),
        ("service", &report.service_us),
        ("end to end", &report.end_to_end_us),
        ("schedule lag", &report.schedule_lag_percentiles_us),
    ]
    .into_iter()
    .filter(|(_, percentiles)| percentiles.count > 0)
    .map(|(name, p)| {
        let times = [p.p50, p.p90, p.p99, p.p99_9, p.p99_99, p.max].map(time);
        let [p50, p90, p99, p99_9, p99_99, max] = times;
        (name, [p50, p90, p99, p99_9, p99_99, max, p.count.to_string()])
    })
    .collect()
}

/// The figures that are not times: name and value.
pub fn figures(report: &Report) -> Vec<(&'static str, String)> {
    let mut figures = vec![
        ("records/s", format!("{:.0}", report.records_per_second)),
        ("MB/s", format!("{:.1}", report.bytes_per_second / 1e6)),
        ("records per batch", decimal(report.records_per_batch, 2)),
        ("batches per request", decimal(report.batches_per_request, 2)),
        ("records verified", report.records_verified.to_string()),
        ("errors", report.errors.to_string()),
        ("broker CPU us/record", decimal(report.broker_cpu_us_per_record, 3)),
        ("broker CPU s/GB", decimal(report.broker_cpu_s_per_gb, 3)),
    ];
    if let Some(broker) = &report.broker {
        figures.push(("broker CPUs busy", format!("{:.2}", broker.cpus)));
        figures.push(("broker RSS MiB", format!("{:.0}", broker.rss_bytes as f64 / 1048576.0)));
        figures.push((
            "broker context switches/s",
            format!("{:.0}", broker.context_switches_per_second),
        ));
        figures.push(("broker wrote MB", format!("{:.1}", broker.write_bytes as f64 / 1e6)));
    }
    if let Some(group) = &report.group {
        figures.push(("group: join, ms", format!("{:.0}", group.join_ms)));
        figures.push(("group: rebalances", group.rebalances.to_string()));
        figures.push(("group: commit p50", time(group.commit_us.p50)));
    }
    if let Some(read) = &report.catch_up {
        figures.push(("cold readers MB/s", format!("{:.1}", read.bytes_per_second / 1e6)));
        figures.push(("cold readers took, s", format!("{:.1}", read.seconds)));
    }
    figures.push(("kernel threads' CPUs busy", format!("{:.2}", report.kernel_cpus_busy)));
    figures.push(("client CPU fraction", format!("{:.2}", report.client_cpu_fraction)));
    figures
}

/// summary.md: fit for a pull request.
pub fn summary(report: &Report) -> String {
    let mut text = format!("{}\n\nLoad: {}.\n\n", verdict(report), report.load);
    text.push_str("| | p50 | p90 | p99 | p99.9 | p99.99 | max | samples |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for (name, cells) in percentile_rows(report) {
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text.push_str("\n| figure | value |\n|---|---|\n");
    for (name, value) in figures(report) {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    for note in &report.notes {
        let _ = writeln!(text, "\n{note}");
    }
    let _ = writeln!(text, "\n`{}`, loadgen {}", report.command, report.version);
    text
}

/// The terminal's summary.
pub fn terminal(report: &Report) -> String {
    let mut text = String::new();
    let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max", "samples"];
    let cells = |text: &mut String, name: &str, cells: &[String]| {
        let _ = write!(text, "{name:<14}");
        for cell in cells {
            let _ = write!(text, "{cell:>12}");
        }
        text.push('\n');
    };
    cells(&mut text, "", &names.map(str::to_owned));
    for (name, row) in percentile_rows(report) {
        cells(&mut text, name, &row);
    }
    text.push('\n');
    for (name, value) in figures(report) {
        let _ = writeln!(text, "{name:<28}{value:>14}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "\nNote: {note}.");
    }
    let _ = writeln!(text, "\nLoad: {}.\n{}", report.load, verdict(report));
    text
}

/// intervals.csv.
pub fn intervals(rows: &[Row]) -> String {
    let mut text = String::from(
        "at_s,records_per_second,bytes_per_second,consumed_per_second,errors,response_p50_us,\
         response_p99_us,response_max_us,end_to_end_p50_us,end_to_end_p99_us,end_to_end_max_us,\
         broker_cpus,broker_rss_bytes\n",
    );
    let cell = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.1}"));
    for row in rows {
        let (response, end_to_end) = (&row.response_us, &row.end_to_end_us);
        let _ = writeln!(
            text,
            "{:.3},{:.0},{:.0},{:.0},{},{},{},{},{},{},{},{},{}",
            row.at_s,
            row.records_per_second,
            row.bytes_per_second,
            row.consumed_per_second,
            row.errors,
            cell(response.p50),
            cell(response.p99),
            cell(response.max),
            cell(end_to_end.p50),
            cell(end_to_end.p99),
            cell(end_to_end.max),
            decimal(row.broker_cpus, 3).trim_start_matches('-'),
            row.broker_rss_bytes.map_or_else(String::new, |bytes| bytes.to_string()),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_that_differ_in_numbers_are_told_once() {
        let told = ["a: 1.5 CPUs", "b", "a: 17.25 CPUs", "a: 3. CPUs", "c 1"].map(str::to_owned);
        assert_eq!(grouped(&told), ["a: 1.5 CPUs (and 2 like it)", "b", "c 1"]);
    }
}
