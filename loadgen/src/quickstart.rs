//! `loadgen quickstart`: the matrix of acks and batch sizes in half a minute.
//!
//! Each cell is loaded twice: as fast as it goes (closed loop, read back afterwards), for what the
//! broker can do and what a record then costs; and at a rate it can stand (open loop, consumer at
//! the tail), for latency.

use crate::args::{Acks, QuickstartArgs, RunArgs};
use crate::gather::Live;
use crate::interrupt;
use crate::machine::Noise;
use crate::report::chart::escape;
use crate::report::chart::{Chart, Scale, Series};
use crate::report::text::{self, decimal, short, time};
use crate::report::{Report, html, write_json};
use crate::run::{self, BrokerProcess, RunError, Surroundings};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

const ACKS: [Acks; 3] = [Acks::None, Acks::Leader, Acks::All];
const BATCHES: [u32; 4] = [1, 10, 100, 1000];
/// 1,000 of them stay below Kafka's default limit of a batch, 1 MiB.
const RECORD_BYTES: usize = 512;
/// The open loop's rate: this many records a second, but enough batches for percentiles.
const RATE: f64 = 10_000.0;
const BATCHES_PER_SECOND_MIN: f64 = 200.0;
const CAPACITY_TIME: Duration = Duration::from_millis(300);

/// One cell of the matrix.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// Acknowledgement level.
    pub acks: &'static str,
    /// Records in each batch.
    pub batch_records: u32,
    /// As fast as it goes.
    pub capacity: Report,
    /// At a fixed rate.
    pub latency: Report,
}

/// report.json of a quickstart: the keys of a run, for the cell acks=all with 100 records a batch,
/// with counts and verdict of all cells; and the cells.
#[derive(Debug, Serialize)]
pub struct Matrix {
    /// The cell shown first.
    #[serde(flatten)]
    pub headline: Report,
    /// All cells.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// Whether every record of every cell was read back as it was sent.
    pub fn is_verified(&self) -> bool {
        self.headline.errors == 0
            && self.cells.iter().flat_map(|cell| [&cell.capacity, &cell.latency]).all(|report| {
                report.integrity.complaints(false).is_empty()
                    && report.records_verified == report.records_sent
            })
    }
}

/// Runs the matrix against the broker at `bootstrap`; `show` gets lines for the terminal.
pub fn run(
    args: &QuickstartArgs,
    bootstrap: &str,
    broker: BrokerProcess,
    around: (Live, &Path, &str),
    show: &mut dyn FnMut(&str),
) -> Result<Matrix, RunError> {
    let (live, folder, command) = around;
    let noise_before = Noise::probe(folder);
    let surroundings = Surroundings { broker, live, folder, command, is_probed: false };
    show(&heading());
    let mut cells = Vec::new();
    for acks in ACKS {
        for batch_records in BATCHES {
            if interrupt::is_requested() {
                break;
            }
            let load = load(args, bootstrap, acks, batch_records);
            let capacity = run::run(&capacity(&load), surroundings)?;
            let latency = run::run(&load, surroundings)?;
            let prefix = format!("acks-{}-batch-{batch_records}-", acks.word());
            let written = latency.write_histograms(folder, &prefix);
            written.map_err(|source| write_error(folder, source))?;
            let cell = Cell {
                acks: acks.word(),
                batch_records,
                capacity: capacity.report,
                latency: latency.report,
            };
            show(&row(&cell));
            cells.push(cell);
        }
    }
    if cells.is_empty() {
        return Err(RunError::Interrupted);
    }
    let mut matrix = Matrix { headline: headline(&cells), cells };
    (matrix.headline.noise_before, matrix.headline.noise_after) =
        (noise_before, Noise::probe(folder));
    write(&matrix, folder).map_err(|source| write_error(folder, source))?;
    Ok(matrix)
}

fn write_error(folder: &Path, source: io::Error) -> RunError {
    RunError::Write { path: folder.display().to_string(), source }
}

fn load(args: &QuickstartArgs, bootstrap: &str, acks: Acks, batch_records: u32) -> RunArgs {
    let mut load = RunArgs::with_defaults();
    load.target.bootstrap = bootstrap.to_owned();
    load.target.cpus.clone_from(&args.cpus);
    (load.acks, load.batch_records) = (acks, batch_records);
    load.record_bytes = RECORD_BYTES;
    load.partitions = 4;
    load.connections = 2;
    load.rate = Some(RATE.max(BATCHES_PER_SECOND_MIN * f64::from(batch_records)));
    load.inflight = 100;
    load.warmup = Duration::from_millis(200);
    load.duration = args.duration;
    load
}

fn capacity(load: &RunArgs) -> RunArgs {
    let mut capacity = load.clone();
    capacity.rate = None;
    capacity.inflight = if load.batch_records >= 100 { 5 } else { 50 };
    capacity.consumers = 0;
    (capacity.warmup, capacity.duration) = (Duration::from_millis(100), CAPACITY_TIME);
    capacity
}

/// The cell of acks=all and 100 records, with counts and reasons of all.
fn headline(cells: &[Cell]) -> Report {
    let chosen = cells.iter().find(|cell| cell.acks == "all" && cell.batch_records == 100);
    let chosen = chosen.or(cells.last()).expect("at least one cell was measured");
    let mut report = chosen.latency.clone();
    let all = || cells.iter().flat_map(|cell| [&cell.capacity, &cell.latency]);
    report.errors = all().map(|report| report.errors).sum();
    report.records_verified = all().map(|report| report.records_verified).sum();
    report.records_sent = all().map(|report| report.records_sent).sum();
    report.invalid_reasons.clear();
    for cell in cells {
        let name = format!("acks={} batch={}", cell.acks, cell.batch_records);
        let of_latency = cell.latency.invalid_reasons.iter();
        report.invalid_reasons.extend(of_latency.map(|reason| format!("{name}: {reason}")));
        // That the client reaches its limit is no fault where the limit is looked for.
        let damage = cell.capacity.integrity.complaints(false);
        report.invalid_reasons.extend(damage.iter().map(|what| format!("{name}: {what}")));
        if cell.capacity.errors > 0 {
            report.invalid_reasons.push(format!("{name}: {} errors", cell.capacity.errors));
        }
    }
    if cells.len() < ACKS.len() * BATCHES.len() {
        report.partial = true;
        report
            .invalid_reasons
            .insert(0, format!("partial: ended by a signal after {} cells", cells.len()));
    }
    report.valid = report.invalid_reasons.is_empty();
    report.notes = vec![format!(
        "the figures at the top are those of acks=all, 100 records of {RECORD_BYTES} bytes a \
         batch, at a fixed rate; records verified and errors are of all cells"
    )];
    report
}

fn columns() -> [&'static str; 10] {
    [
        "acks",
        "batch",
        "records/s",
        "MB/s",
        "CPU us/rec",
        "rate",
        "answer p50",
        "answer p90",
        "seen p50",
        "seen p90",
    ]
}

fn cells_of(cell: &Cell) -> [String; 10] {
    let (full, paced) = (&cell.capacity, &cell.latency);
    [
        cell.acks.to_owned(),
        cell.batch_records.to_string(),
        short(full.records_per_second),
        format!("{:.1}", full.bytes_per_second / 1e6),
        decimal(full.broker_cpu_us_per_record, 3),
        short(paced.records_per_second),
        time(paced.response_us.p50),
        time(paced.response_us.p90),
        time(paced.end_to_end_us.p50),
        time(paced.end_to_end_us.p90),
    ]
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let widths = [5, 6, 11, 9, 11, 9, 12, 12, 11, 11];
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(line, "{:>width$}", cell.as_ref());
    }
    line
}

fn heading() -> String {
    format!(
        "{RECORD_BYTES}-byte records. Left: as fast as it goes. Right: at a fixed rate, from the \
         time a record was due.\n{}",
        line(&columns())
    )
}

fn row(cell: &Cell) -> String {
    line(&cells_of(cell))
}

fn write(matrix: &Matrix, folder: &Path) -> io::Result<()> {
    write_json(&folder.join("report.json"), matrix)?;
    fs::write(folder.join("report.html"), page(matrix))?;
    let mut summary = format!("{}\n\n| {} |\n", verdict(matrix), columns().join(" | "));
    let _ = writeln!(summary, "|{}", "---|".repeat(columns().len()));
    for cell in &matrix.cells {
        let _ = writeln!(summary, "| {} |", cells_of(cell).join(" | "));
    }
    fs::write(folder.join("summary.md"), summary)
}

/// The matrix in one sentence.
pub fn verdict(matrix: &Matrix) -> String {
    let best = matrix.cells.iter().map(|cell| cell.capacity.bytes_per_second).fold(0.0, f64::max);
    let records =
        matrix.cells.iter().map(|cell| cell.capacity.records_per_second).fold(0.0, f64::max);
    let head = &matrix.headline;
    let verified = match matrix.is_verified() {
        true => "every one read back as it was sent",
        false => "NOT all as they were sent",
    };
    let validity = match head.invalid_reasons.len() {
        0 => String::new(),
        count => {
            format!(" {count} reasons to doubt figures, the first: {}.", head.invalid_reasons[0])
        }
    };
    format!(
        "Up to {} records/s and {:.0} MB/s; with acks=all, 100 records a batch, {} records/s, \
         answered in {} (median); {} of {} records verified, {verified}.{validity}",
        short(records),
        best / 1e6,
        short(head.records_per_second),
        time(head.response_us.p50),
        head.records_verified,
        head.records_sent,
    )
}

fn page(matrix: &Matrix) -> String {
    let class = if matrix.headline.valid { "verdict" } else { "verdict bad" };
    let verdict = escape(&verdict(matrix));
    let mut body = format!("<p class=\"{class}\">{verdict}</p>\n<div class=wide><table><tr>");
    for name in columns() {
        let _ = write!(body, "<th>{name}</th>");
    }
    for cell in &matrix.cells {
        let cells = cells_of(cell).map(|cell| format!("<td>{cell}</td>")).concat();
        let _ = write!(body, "</tr><tr>{cells}");
    }
    body.push_str(
        "</tr></table></div>\n<p>records/s, MB/s, CPU: closed loop, as fast as it goes. The \
         others: open loop at a fixed rate; times count from when a record was due. \"Seen\" is by \
         a consumer. acks=0 has no answers.</p>\n",
    );
    type Value = fn(&Cell) -> Option<f64>;
    type Words = fn(f64) -> String;
    let charts: [(&str, Words, Value); 3] = [
        ("Records a second", short, |cell| Some(cell.capacity.records_per_second)),
        (
            "Broker CPU a record, microseconds",
            |us| format!("{us:.3}"),
            |cell| cell.capacity.broker_cpu_us_per_record,
        ),
        (
            "Median end-to-end time at the fixed rate",
            |us| time(Some(us)),
            |cell| cell.latency.end_to_end_us.p50,
        ),
    ];
    let charts = charts.map(|(title, y_words, value)| chart(matrix, title, y_words, value));
    body.push_str(&html::chart_grid(charts));
    for reason in text::grouped(&matrix.headline.invalid_reasons) {
        let _ = writeln!(body, "<p>Doubt: {}.</p>", escape(&reason));
    }
    body.push_str(&html::background(&matrix.headline));
    html::page("loadgen quickstart: acks x batching", &body)
}

fn chart(
    matrix: &Matrix,
    title: &str,
    y_words: fn(f64) -> String,
    value: fn(&Cell) -> Option<f64>,
) -> Chart {
    let series = ACKS
        .iter()
        .map(|acks| {
            let cells = matrix.cells.iter().filter(|cell| cell.acks == acks.word());
            let point = |cell: &Cell| Some((f64::from(cell.batch_records), value(cell)?));
            Series::new(format!("acks={}", acks.word()), cells.filter_map(point).collect())
        })
        .collect();
    Chart {
        title: title.to_owned(),
        x_label: "records in a batch".to_owned(),
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        y_words,
        x_words: |count| text::short(count),
        series,
    }
}
