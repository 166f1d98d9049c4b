//! report.html: one file, nothing fetched, no script.

use super::chart::{Chart, Scale, Series, escape};
use super::text::{self, time};
use super::{Outcome, Report, Row};
use crate::machine::Facts;
use std::fmt::Write;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:66rem;margin:1.5rem auto;padding:0 1rem;\
color:#1b1b1b;background:#fff}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
.verdict{padding:.8rem 1rem;border-left:.4rem solid #009e73;background:#f1f8f5}\
.verdict.bad{border-color:#d55e00;background:#fdf3ec}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.15rem .7rem .15rem 0;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child,.text td,tr.work th{text-align:left}\
.wide .study td:first-child,.wide .study td:nth-last-child(2){white-space:normal;min-width:6.5rem}\
small{color:#555}\
.text td{overflow-wrap:anywhere}.text td:first-child{white-space:nowrap;overflow-wrap:normal;vertical-align:top}.work th{padding-top:.7rem;border-bottom:2px solid #999}\
.missed td:last-child{color:#d55e00;font-weight:600}.wide{overflow-x:auto}.wide td{white-space:nowrap}\
svg{width:100%;height:auto;font:12px system-ui,sans-serif}\
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr));\
gap:1rem;margin:1rem 0}\
.grid{stroke:#ddd}.line{fill:none;stroke-width:2}.title{font-weight:600}\
.ytick{text-anchor:end;fill:#555}.xtick{text-anchor:middle;fill:#555}\
.hover circle{fill:transparent}.hover circle:hover{fill:#0006}\
code,pre{font-size:13px}pre{white-space:pre-wrap;background:#f6f6f6;padding:.6rem}\
@media(max-width:40rem){body{margin:.8rem auto}svg{font-size:14px}.study{font-size:.9rem}\
.text td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:7rem}}\
@media print{body{margin:0;max-width:none}svg{break-inside:avoid}}";

/// The page of one run.
pub fn run_page(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let mut body = verdict(report);
    body.push_str(&percentile_table(report));
    let charts = std::iter::once(percentile_curve(outcome)).chain(over_time(report));
    body.push_str(&chart_grid(charts));
    body.push_str("<h2>Figures</h2>\n");
    body.push_str(&table(&text::figures(report)));
    body.push_str(&background(report));
    page("loadgen report", &body)
}

/// The charts that pages about a run want, by the name of their file.
pub fn pictures(outcome: &Outcome) -> Vec<(&'static str, Chart)> {
    let first = over_time(&outcome.report).into_iter().next();
    let over_time = first.map(|chart| ("over-time.svg", chart));
    [("latency.svg", percentile_curve(outcome))].into_iter().chain(over_time).collect()
}

/// Charts side by side where there is room.
pub fn chart_grid(charts: impl IntoIterator<Item = Chart>) -> String {
    let charts: String = charts.into_iter().map(|chart| chart.svg()).collect();
    format!("<div class=charts>\n{charts}</div>\n")
}

/// A whole document around `body`.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <link rel=icon href=\"data:,\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

/// The verdict in a box.
pub fn verdict(report: &Report) -> String {
    let class = if report.valid { "verdict" } else { "verdict bad" };
    let mut html = format!("<p class=\"{class}\">{}</p>\n", escape(&text::verdict(report)));
    let _ = writeln!(html, "<p>Load: {}.</p>", escape(&report.load));
    for note in &report.notes {
        let _ = writeln!(html, "<p>Note: {}.</p>", escape(note));
    }
    html
}

/// Rows of names and values.
pub fn table<N: AsRef<str>>(rows: &[(N, String)]) -> String {
    let mut html = String::from("<table>");
    for (name, value) in rows {
        let (name, value) = (escape(name.as_ref()), escape(value));
        let _ = write!(html, "<tr><td>{name}</td><td>{value}</td></tr>");
    }
    html.push_str("</table>\n");
    html
}

fn percentile_table(report: &Report) -> String {
    let mut html = String::from(
        "<h2>Latency</h2><p>From the time a record was due, not from when it was sent; service \
         time, from sending, is there to compare.</p>\n<div class=wide><table><tr><th></th>\
         <th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th>\
         <th>samples</th></tr>",
    );
    for (name, cells) in text::percentile_rows(report) {
        let cells = cells.map(|cell| format!("<td>{cell}</td>")).concat();
        let _ = write!(html, "<tr><td>{name}</td>{cells}</tr>");
    }
    html.push_str(
        "</table></div>\n<p>A percentile with fewer than 10 samples beyond it is not given.</p>\n",
    );
    html
}

fn percentile_curve(outcome: &Outcome) -> Chart {
    let series = outcome
        .histograms()
        .map(|(name, latencies)| Series::new(name.replace('_', " "), latencies.curve()));
    Chart {
        title: "Latency by percentile".to_owned(),
        x_label: "percentile".to_owned(),
        x_scale: Scale::Nines,
        y_scale: Scale::Log,
        y_words: |us| time(Some(us)),
        x_words: percentile_words,
        series: series.to_vec(),
    }
}

fn percentile_words(quantile: f64) -> String {
    let percent = quantile * 100.0;
    let text = format!("{percent:.4}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn over_time(report: &Report) -> Vec<Chart> {
    let rows = &report.intervals;
    let line = |name: &str, value: &dyn Fn(&Row) -> Option<f64>| {
        Series::new(name, rows.iter().filter_map(|row| Some((row.at_s, value(row)?))).collect())
    };
    let chart = |title: &str, y_scale, y_words: fn(f64) -> String, series| Chart {
        title: title.to_owned(),
        x_label: "time since measuring began".to_owned(),
        x_scale: Scale::Linear,
        y_scale,
        y_words,
        x_words: |seconds| format!("{seconds:.1} s"),
        series,
    };
    let mut charts = Vec::new();
    if report.response_us.count > 0 {
        let series = vec![
            line("p50", &|row| row.response_us.p50),
            line("p99", &|row| row.response_us.p99),
            line("max", &|row| row.response_us.max),
        ];
        charts.push(chart("Response time", Scale::Log, |us| time(Some(us)), series));
    }
    if report.end_to_end_us.count > 0 {
        let series = vec![
            line("p50", &|row| row.end_to_end_us.p50),
            line("p99", &|row| row.end_to_end_us.p99),
            line("max", &|row| row.end_to_end_us.max),
        ];
        charts.push(chart("End-to-end time", Scale::Log, |us| time(Some(us)), series));
    }
    let series = vec![
        line("produced", &|row| Some(row.records_per_second)),
        line("consumed", &|row| Some(row.consumed_per_second)),
    ];
    charts.push(chart("Records a second", Scale::Linear, text::short, series));
    if report.broker.is_some() {
        let series = vec![line("CPUs", &|row| row.broker_cpus)];
        charts.push(chart("Broker CPUs busy", Scale::Linear, |cpus| format!("{cpus:.2}"), series));
        let series = vec![line("RSS", &|row| row.broker_rss_bytes.map(|bytes| bytes as f64))];
        let words: fn(f64) -> String = |bytes| format!("{:.0} MiB", bytes / 1048576.0);
        charts.push(chart("Broker memory", Scale::Linear, words, series));
    }
    charts
}

/// The same with values that are sentences.
pub fn text_table<N: AsRef<str>>(rows: &[(N, String)]) -> String {
    table(rows).replacen("<table>", "<table class=text>", 1)
}

/// The host.
pub fn facts(machine: &Facts) -> String {
    let mut facts = serde_json::to_value(machine).unwrap_or_default();
    // The whole of it is in report.json.
    facts["disk"] = machine.disk.as_ref().map(millrace_doctor::calibrate::summary).into();
    table(&flat(facts))
}

fn flat(value: serde_json::Value) -> Vec<(String, String)> {
    let map = value.as_object().cloned().unwrap_or_default();
    map.into_iter().map(|(name, value)| (name, words(&value))).collect()
}

/// Configuration, host, and how to repeat it.
pub fn background(report: &Report) -> String {
    let mut html = String::from("<h2>Configuration</h2>\n");
    html.push_str(&table(&flat(report.configuration.clone())));
    html.push_str("<h2>Host</h2>\n");
    html.push_str(&facts(&report.machine));
    html.push_str("<h2>Noise of the host</h2>\n<p>Before, then after the load.</p>\n");
    for noise in [report.noise_before, report.noise_after] {
        html.push_str(&table(&flat(serde_json::to_value(noise).unwrap_or_default())));
    }
    let _ = writeln!(
        html,
        "<h2>To repeat it</h2><pre>{}</pre><p>loadgen {}, started {}</p>",
        escape(&report.command),
        report.version,
        report.started
    );
    html
}

fn words(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
