//! `loadgen find-max`: the highest rate at which a bound on latency holds.
//!
//! Open loops at fixed rates: doubled while the bound holds, then halved between what held and what
//! did not, then the best one again, twice: a rate that holds once by luck is lowered, and one that
//! fails is tried once more.

use crate::args::{Acks, FindMaxArgs, RunArgs};
use crate::clock;
use crate::gather::Live;
use crate::histogram::Percentiles;
use crate::interrupt;
use crate::machine::Facts;
use crate::report::chart::{Chart, Scale, Series, escape};
use crate::report::{Outcome, html, text, write_json};
use crate::run::{self, RunError, Surroundings};
use serde::Serialize;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

/// The first rate, records a second, unless --rate says otherwise.
const START: f64 = 1_000.0;
/// A rate counts as held when this share of it was acknowledged in time: the backlog is flat.
const ACKNOWLEDGED_MIN: f64 = 0.99;
const CONFIRMATIONS: u32 = 2;
const STEPS_MAX: usize = 60;
/// Closer than this no two measurements are, percent.
const RESOLUTION_MIN: f64 = 0.1;

/// A bound such as `p99=10ms`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slo {
    /// The quantile in percent: 50, 90, 99, 99.9 or 99.99.
    pub percentile: f64,
    /// Its largest value.
    pub limit_us: f64,
}

impl Slo {
    /// Parses `p99=10ms`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a bound such as p99=10ms, p99.9=2s, p50=500us");
        let (name, limit) = text.split_once('=').ok_or_else(wrong)?;
        let percentile = name.strip_prefix('p').and_then(|n| n.parse().ok()).ok_or_else(wrong)?;
        if ![50.0, 90.0, 99.0, 99.9, 99.99].contains(&percentile) {
            return Err(format!("'{text}': p50, p90, p99, p99.9 or p99.99"));
        }
        let limit_us = match limit.strip_suffix("us") {
            Some(number) => number.parse().map_err(|_| wrong())?,
            None => crate::args::parse_duration(limit)?.as_secs_f64() * 1e6,
        };
        if !(limit_us > 0.0 && f64::is_finite(limit_us)) {
            return Err(wrong());
        }
        Ok(Self { percentile, limit_us })
    }

    fn of(&self, times: &Percentiles) -> Option<f64> {
        match self.percentile {
            50.0 => times.p50,
            90.0 => times.p90,
            99.0 => times.p99,
            99.9 => times.p99_9,
            _ => times.p99_99,
        }
    }

    fn words(&self) -> String {
        format!("p{} of at most {}", self.percentile, text::time(Some(self.limit_us)))
    }
}

/// Which rate next: doubling, then halving on a logarithmic axis.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    held: Option<f64>,
    failed: Option<f64>,
    start: f64,
    /// Ends when what failed is at most this many times what held.
    resolution: f64,
}

impl Search {
    /// Begins at a rate.
    pub fn new(start: f64, resolution: f64) -> Self {
        Self { held: None, failed: None, start, resolution }
    }

    /// The rate to try; `None` when the highest that held is known, or not even one record a second
    /// did.
    pub fn next(&self) -> Option<f64> {
        match (self.held, self.failed) {
            (None, None) => Some(self.start),
            (Some(held), None) => Some(held * 2.0),
            (None, Some(failed)) => (failed > 1.0).then(|| (failed / 4.0).max(1.0)),
            (Some(held), Some(failed)) => {
                (failed / held > self.resolution).then(|| (held * failed).sqrt())
            }
        }
    }

    /// Takes the outcome of a try. What holds above what failed earlier is not believed, and what
    /// fails below what held lowers that.
    pub fn on(&mut self, rate: f64, has_held: bool) {
        if has_held {
            self.held = Some(self.held.map_or(rate, |held| held.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate)));
            self.held = self.held.filter(|held| *held < rate);
        }
    }

    /// The highest that held.
    pub fn held(&self) -> Option<f64> {
        self.held
    }
}

/// One try.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Records a second asked for.
    pub rate: f64,
    /// Acknowledged.
    pub records_per_second: f64,
    /// From the intended times.
    pub response_us: Percentiles,
    /// The bounded percentile; `None` with too few requests.
    pub seen_us: Option<f64>,
    /// CPU of the broker, if known.
    pub broker_cpu_us_per_record: Option<f64>,
    /// The bound held, and so did the rate.
    pub has_held: bool,
    /// Why not, or why the figures are not to be trusted.
    pub reasons: Vec<String>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct FindMaxFound {
    /// The rate held again each time, and the client was not the limit.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// The bound.
    pub slo: Slo,
    /// The highest rate at which it held.
    pub max_records_per_second: Option<f64>,
    /// Every try, in order.
    pub steps: Vec<Step>,
    /// Options of the runs.
    pub configuration: serde_json::Value,
    /// To repeat it.
    pub command: String,
    /// When it was begun, UTC.
    pub started: String,
    /// The host.
    pub machine: Facts,
}

/// What makes no search, in words.
fn check(args: &FindMaxArgs) -> Result<(), RunError> {
    let rows = [
        (args.run.acks == Acks::None, "find-max needs answers: --acks 1 or all"),
        (args.run.shape.schedule.is_some(), "find-max chooses the rates: no --schedule"),
        (args.run.records.is_some(), "find-max needs whole tries: --duration, not --records"),
        (
            !(RESOLUTION_MIN..=100.0).contains(&args.resolution),
            "--resolution must lie between 0.1 and 100 percent",
        ),
    ];
    match rows.into_iter().find(|row| row.0) {
        Some((_, words)) => Err(RunError::Options(words.to_owned())),
        None => Ok(()),
    }
}

/// Searches; the report of the highest rate goes into `at-max` in the folder.
pub fn find_max(args: &FindMaxArgs, around: Surroundings<'_>) -> Result<FindMaxFound, RunError> {
    check(args)?;
    let started = clock::utc_words(clock::wall_ms());
    let mut search = Search::new(args.run.rate.unwrap_or(START), 1.0 + args.resolution / 100.0);
    let mut steps: Vec<Step> = Vec::new();
    let mut best = None;
    let mut confirmed = 0;
    let mut is_client_bound = false;
    while steps.len() < STEPS_MAX && !interrupt::is_requested() {
        // A rate to try, or the best one once more.
        let (rate, is_confirming) = match (search.next(), search.held()) {
            (Some(rate), _) => (rate, false),
            (None, Some(held)) if confirmed < CONFIRMATIONS => (held, true),
            _ => break,
        };
        let (mut step, mut outcome) = attempt(args, rate, around)?;
        if !step.has_held && step.seen_us.is_some() && !interrupt::is_requested() {
            // Once may be the host's bad luck, which would keep all higher rates from being tried.
            around.live.end();
            around.live.show(&words_of(&step));
            steps.push(step);
            (step, outcome) = attempt(args, rate, around)?;
        }
        around.live.end();
        around.live.show(&words_of(&step));
        is_client_bound |= step.reasons.iter().any(|reason| reason.contains("client"));
        search.on(rate, step.has_held);
        match (step.has_held, is_confirming) {
            (true, true) => confirmed += 1,
            (false, _) => confirmed = 0,
            _ => {}
        }
        if step.has_held && search.held() == Some(rate) {
            best = Some(outcome);
        }
        let is_blind = step.seen_us.is_none();
        steps.push(step);
        // Lower rates have fewer still.
        if is_blind {
            break;
        }
    }
    around.live.end();
    let mut invalid_reasons = faults(args.slo, &steps, search.held(), confirmed);
    if is_client_bound {
        invalid_reasons.push("the client may have been the limit: the broker can do more".into());
    }
    let found = FindMaxFound {
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        slo: args.slo,
        max_records_per_second: search.held(),
        steps,
        configuration: serde_json::to_value(&args.run).unwrap_or_default(),
        command: around.command.to_owned(),
        started,
        machine: Facts::read(),
    };
    write(&found, best.as_ref(), around.folder)
        .map_err(|source| RunError::Write { path: around.folder.display().to_string(), source })?;
    Ok(found)
}

/// Why what was found is not to be trusted.
fn faults(slo: Slo, steps: &[Step], held: Option<f64>, confirmed: u32) -> Vec<String> {
    let blind = steps.iter().find(|step| step.seen_us.is_none());
    let fault = if interrupt::is_requested() {
        "partial: ended by a signal".to_owned()
    } else if let Some(step) = blind {
        format!(
            "{} requests are too few for p{}: a longer --duration or a higher --rate is needed",
            step.response_us.count, slo.percentile
        )
    } else if held.is_none() {
        "the bound held at no rate".to_owned()
    } else if confirmed < CONFIRMATIONS {
        "the highest rate was not confirmed".to_owned()
    } else {
        return Vec::new();
    };
    vec![fault]
}

fn attempt(
    args: &FindMaxArgs,
    rate: f64,
    around: Surroundings<'_>,
) -> Result<(Step, Outcome), RunError> {
    let mut run: RunArgs = args.run.clone();
    run.rate = Some(rate);
    let outcome = run::run(&run, Surroundings { live: Live::Silent, ..around })?;
    let report = &outcome.report;
    let mut reasons = report.invalid_reasons.clone();
    let seen_us = args.slo.of(&report.response_us);
    match seen_us {
        Some(us) if us > args.slo.limit_us => {
            reasons.push(format!("p{} was {}", args.slo.percentile, text::time(Some(us))));
        }
        _ => {}
    }
    let is_kept_up = report.records_per_second >= ACKNOWLEDGED_MIN * rate;
    if !is_kept_up {
        reasons.push(format!("{:.0} of {rate:.0} records/s", report.records_per_second));
    }
    let is_sound =
        !report.unread && report.errors == 0 && report.integrity.complaints(false).is_empty();
    let is_within = seen_us.is_some_and(|us| us <= args.slo.limit_us);
    let step = Step {
        rate,
        records_per_second: report.records_per_second,
        response_us: report.response_us,
        seen_us,
        broker_cpu_us_per_record: report.broker_cpu_us_per_record,
        has_held: is_within && is_kept_up && is_sound,
        reasons,
    };
    Ok((step, outcome))
}

fn words_of(step: &Step) -> String {
    let verdict = if step.has_held { "held" } else { "did not hold" };
    let p = &step.response_us;
    let (p50, p99) = (text::time(p.p50), text::time(p.p99));
    format!("{:>9} records/s  p50 {p50}  p99 {p99}  {verdict}", text::short(step.rate))
}

/// The result in a sentence.
pub fn verdict(found: &FindMaxFound) -> String {
    let mut text = match found.max_records_per_second {
        Some(rate) => format!("{} records/s with a {}.", text::short(rate), found.slo.words()),
        None => format!("At no rate was there a {}.", found.slo.words()),
    };
    if !found.valid {
        let _ = write!(text, " Not valid: {}.", found.invalid_reasons.join("; "));
    }
    text
}

fn write(found: &FindMaxFound, best: Option<&Outcome>, folder: &Path) -> io::Result<()> {
    write_json(&folder.join("report.json"), found)?;
    if let Some(best) = best {
        best.write(&folder.join("at-max"))?;
    }
    let mut sorted: Vec<&Step> = found.steps.iter().collect();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let rows: Vec<[String; 6]> = sorted.iter().map(|step| cells(step)).collect();
    let names = ["asked, records/s", "acknowledged", "p50", "p99", "held", "why not, or doubts"];
    let mut summary = format!("{}\n\n| {} |\n|", verdict(found), names.join(" | "));
    let _ = writeln!(summary, "{}", "---|".repeat(names.len()));
    for row in &rows {
        let _ = writeln!(summary, "| {} |", row.join(" | "));
    }
    fs::write(folder.join("summary.md"), summary)?;
    fs::write(folder.join("throughput.svg"), chart(&sorted).standalone())?;
    fs::write(folder.join("report.html"), page(found, &sorted, (&names, &rows)))
}

fn cells(step: &Step) -> [String; 6] {
    [
        text::short(step.rate),
        text::short(step.records_per_second),
        text::time(step.response_us.p50),
        text::time(step.response_us.p99),
        if step.has_held { "yes" } else { "no" }.to_owned(),
        step.reasons.join("; "),
    ]
}

fn page(
    found: &FindMaxFound,
    sorted: &[&Step],
    (names, rows): (&[&str], &[[String; 6]]),
) -> String {
    let class = if found.valid { "verdict" } else { "verdict bad" };
    let mut body = format!("<p class=\"{class}\">{}</p>\n", escape(&verdict(found)));
    body.push_str(&html::chart_grid([chart(sorted)]));
    body.push_str("<div class=wide><table><tr>");
    names.iter().for_each(|name| {
        let _ = write!(body, "<th>{name}</th>");
    });
    for row in rows {
        let cells = row.iter().map(|cell| format!("<td>{}</td>", escape(cell)));
        let _ = write!(body, "</tr><tr>{}", cells.collect::<String>());
    }
    body.push_str("</tr></table></div>\n");
    let _ = write!(body, "<h2>To repeat it</h2><pre>{}</pre>", escape(&found.command));
    html::page("loadgen find-max", &body)
}

fn chart(sorted: &[&Step]) -> Chart {
    type Value = fn(&Percentiles) -> Option<f64>;
    let lines: [(&str, Value); 3] = [("p50", |p| p.p50), ("p99", |p| p.p99), ("max", |p| p.max)];
    let series = lines.map(|(name, value)| {
        let point = |step: &&Step| Some((step.records_per_second, value(&step.response_us)?));
        Series::new(name, sorted.iter().filter_map(point).collect())
    });
    Chart {
        title: "Response time against throughput".to_owned(),
        x_label: "acknowledged records a second".to_owned(),
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        y_words: |us| text::time(Some(us)),
        x_words: text::short,
        series: series.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_a_percentile_and_a_time() {
        let rows =
            [("p99=10ms", 99.0, 10_000.0), ("p99.9=2s", 99.9, 2e6), ("p50=500us", 50.0, 500.0)];
        for (text, percentile, limit_us) in rows {
            assert_eq!(Slo::parse(text), Ok(Slo { percentile, limit_us }), "{text}");
        }
        let wrong = ["", "p99", "99=1ms", "p98=1ms", "p99=fast", "p99=10", "p99=0ms", "p99=-1us"];
        for text in wrong.into_iter().chain(["p99=nanus", "p99=infus"]) {
            assert!(Slo::parse(text).is_err(), "{text}");
        }
    }

    /// The highest rate found for a broker that holds up to `capacity`.
    fn found(capacity: f64, start: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(start, 1.05);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.on(rate, rate <= capacity);
            tries += 1;
            assert!(tries < 60, "it ends");
        }
        (search.held(), tries)
    }

    #[test]
    fn the_highest_rate_is_found_within_the_resolution() {
        for capacity in [1.0, 7.0, 900.0, 1_000.0, 123_456.0, 3e6] {
            for start in [1.0, 1_000.0, 1e7] {
                let (held, tries) = found(capacity, start);
                let held = held.expect("it holds at one a second");
                assert!(held <= capacity && held * 1.05 >= capacity * 0.999, "{capacity}: {held}");
                assert!(tries < 40, "{capacity} from {start}: {tries} tries");
            }
        }
        assert_eq!(found(0.5, 1_000.0).0, None);
    }

    #[test]
    fn a_rate_that_held_by_luck_is_given_up() {
        let mut search = Search::new(100.0, 1.05);
        search.on(100.0, true);
        search.on(200.0, true);
        search.on(400.0, false);
        search.on(200.0, false);
        assert_eq!((search.held(), search.next()), (None, Some(50.0)));
    }
}
