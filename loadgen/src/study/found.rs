//! What a study has found so far, summed up.

use super::metric::{Bound, Metric, Outcome};
use super::ratio::{Ratio, Spread};
use super::{Row, Study, Work};
use crate::brokers::{BrokerSpec, output_of};
use crate::clock;
use crate::machine::Facts;
use crate::report::text::grouped;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Fewer valid pairs than this allow no verdict, where a row has as many repeats.
const PAIRS_MIN: u32 = 3;

/// One measurement.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    is_valid: bool,
    /// What a record cost holds, though the client may have been the limit.
    is_cost_valid: bool,
    reasons: Vec<String>,
    report: Value,
}

impl Measured {
    /// From the report of a run.
    pub fn of(report: &Value) -> Self {
        let is_true = |key: &str| report[key].as_bool().unwrap_or(false);
        let reasons = report["invalid_reasons"].as_array().into_iter().flatten();
        Self {
            is_valid: is_true("valid"),
            is_cost_valid: is_true("cost_valid"),
            reasons: reasons.filter_map(|reason| reason.as_str().map(str::to_owned)).collect(),
            report: report.clone(),
        }
    }

    /// Whether any of its figures counts.
    pub fn is_usable(&self) -> bool {
        self.is_valid || self.is_cost_valid
    }
}

/// report.json of a study.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// Of the study.
    pub title: String,
    /// What a reader should know.
    pub about: String,
    /// Something is still to be measured.
    pub partial: bool,
    /// Every row has enough valid measurements.
    pub valid: bool,
    /// Every demand is met by the median.
    pub demands_met: bool,
    /// To repeat it.
    pub command: String,
    /// Of loadgen.
    pub version: String,
    /// When this report was begun, UTC.
    pub started: String,
    /// What was changed on the host, and the like.
    pub notes: Vec<String>,
    /// The host.
    pub machine: Facts,
    /// The brokers; the first is compared with each of the others.
    pub brokers: Vec<BrokerFound>,
    /// The works.
    pub rows: Vec<RowFound>,
    #[serde(skip)]
    measured: BTreeMap<(String, usize, u32), Measured>,
}

/// A broker of a study.
#[derive(Clone, Debug, Serialize)]
pub struct BrokerFound {
    /// As the file describes it.
    #[serde(flatten)]
    pub spec: BrokerSpec,
    /// What its version command printed.
    pub version_found: Option<String>,
    /// Warm-up, seconds.
    pub warm_up_s: f64,
}

/// A row of a study.
#[derive(Clone, Debug, Serialize)]
pub struct RowFound {
    /// In paths.
    pub name: String,
    /// In tables.
    pub title: String,
    /// What a reader should know.
    pub about: String,
    /// What was done.
    pub work: String,
    /// Measurements asked for on each broker.
    pub repeats: u32,
    /// Figures, the main one first.
    pub figures: Vec<Figure>,
    /// Demands and what became of them.
    pub demands: Vec<Demand>,
    /// Why measurements, or some of their figures, do not count.
    pub doubts: Vec<String>,
    /// All repeats are measured, and enough of them valid.
    pub is_complete: bool,
}

impl RowFound {
    /// Whether anything of it counts.
    pub fn is_measured(&self) -> bool {
        self.figures.iter().flat_map(|figure| &figure.brokers).any(|b| b.spread.is_some())
    }
}

/// One figure of a row.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its path.
    pub metric: Metric,
    /// By broker.
    pub brokers: Vec<FigureOfBroker>,
    /// The first broker's divided by that of each other broker.
    pub ratios: Vec<Option<Ratio>>,
    /// The first broker's median divided by the best single value of each other broker.
    pub against_best: Vec<Option<f64>>,
}

/// A figure on one broker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FigureOfBroker {
    /// Of the measurements that count, in order.
    pub values: Vec<f64>,
    /// Summed up.
    pub spread: Option<Spread>,
    /// The client was the limit in some: a rate may be higher, a time shorter.
    pub is_client_bound: bool,
}

/// A demand and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Demand {
    /// What is demanded.
    #[serde(flatten)]
    pub bound: Bound,
    /// What became of it.
    pub outcome: Outcome,
}

impl Found {
    /// Nothing yet.
    pub fn of(study: &Study, command: &str) -> Self {
        let brokers = study.brokers.iter().map(|spec| BrokerFound {
            version_found: spec
                .version
                .as_deref()
                .and_then(|command| output_of(command, &spec.variables)),
            warm_up_s: spec.warm_up.as_secs_f64(),
            spec: spec.clone(),
        });
        Self {
            title: study.title.clone(),
            about: study.about.clone(),
            command: command.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: clock::utc_words(clock::wall_ms()),
            machine: Facts::read(),
            brokers: brokers.collect(),
            ..Self::default()
        }
    }

    /// Adds a measurement.
    pub fn add(&mut self, row: &str, broker: usize, repeat: u32, report: &Value) {
        self.measured.insert((row.to_owned(), broker, repeat), Measured::of(report));
    }

    /// Whether a measurement is there.
    pub fn has(&self, row: &str, broker: usize, repeat: u32) -> bool {
        self.measured.contains_key(&(row.to_owned(), broker, repeat))
    }

    fn get(&self, row: &Row, broker: usize, repeat: u32) -> Option<&Measured> {
        self.measured.get(&(row.name.clone(), broker, repeat))
    }

    /// Makes the rows anew from what is there.
    pub fn sum_up(&mut self, study: &Study) {
        let rows: Vec<RowFound> = study.rows.iter().map(|row| self.row(study, row)).collect();
        let needed = |row: &Row| {
            let fresh = row.work.needs_start();
            let able =
                study.brokers.iter().enumerate().filter(move |(_, b)| !fresh || b.start.is_some());
            let repeats = study.repeats_of(row);
            able.flat_map(move |(broker, _)| (0..repeats).map(move |repeat| (broker, repeat)))
        };
        self.partial = study
            .rows
            .iter()
            .any(|row| needed(row).any(|(broker, repeat)| !self.has(&row.name, broker, repeat)));
        self.valid = !self.partial && rows.iter().all(|row| row.is_complete);
        let demands = || rows.iter().flat_map(|row| &row.demands);
        self.demands_met =
            demands().all(|d| matches!(d.outcome, Outcome::Reached | Outcome::Barely));
        self.rows = rows;
    }

    fn row(&self, study: &Study, row: &Row) -> RowFound {
        let figures: Vec<Figure> =
            row.metrics.iter().map(|metric| self.figure(study, row, metric)).collect();
        let repeats = study.repeats_of(row);
        let enough = PAIRS_MIN.min(repeats) as usize;
        let main = &figures[0];
        let is_complete = main.brokers.iter().enumerate().all(|(broker, found)| {
            let is_able = !row.work.needs_start() || study.brokers[broker].start.is_some();
            !is_able || found.values.len() >= enough
        });
        let demands = row.bounds.iter().map(|bound| {
            let figure = figures.iter().find(|figure| figure.metric == bound.metric);
            let figure = figure.expect("the metrics of bounds are shown");
            Demand { bound: bound.clone(), outcome: judge(bound, figure, enough) }
        });
        let mut doubts = Vec::new();
        for (broker, spec) in study.brokers.iter().enumerate() {
            let measured = (0..repeats).filter_map(|repeat| self.get(row, broker, repeat));
            let reasons = measured.flat_map(|measured| &measured.reasons);
            doubts.extend(reasons.map(|reason| format!("{}: {reason}", spec.name)));
        }
        RowFound {
            name: row.name.clone(),
            title: row.title.clone(),
            about: row.about.clone(),
            work: words(&row.work),
            demands: demands.collect(),
            is_complete,
            doubts: grouped(&doubts),
            repeats,
            figures,
        }
    }

    fn figure(&self, study: &Study, row: &Row, metric: &Metric) -> Figure {
        let repeats = study.repeats_of(row);
        // By broker and repeat.
        let values: Vec<Vec<Option<f64>>> = (0..study.brokers.len())
            .map(|broker| {
                let value = |repeat| {
                    let measured = self.get(row, broker, repeat)?;
                    measured.is_usable().then(|| metric.of(&measured.report))?
                };
                (0..repeats).map(value).collect()
            })
            .collect();
        let brokers: Vec<FigureOfBroker> = values
            .iter()
            .enumerate()
            .map(|(broker, values)| {
                let values: Vec<f64> = values.iter().flatten().copied().collect();
                let mut measured = (0..repeats).filter_map(|repeat| self.get(row, broker, repeat));
                let is_bound = measured.any(|m| m.is_cost_valid && !m.is_valid);
                FigureOfBroker {
                    spread: Spread::of(&values),
                    values,
                    is_client_bound: is_bound && !metric.is_cost(),
                }
            })
            .collect();
        let others = values.iter().skip(1);
        let ratios = others.map(|other| {
            let pairs = values[0].iter().zip(other).filter_map(|(a, b)| (*a).zip(*b));
            Ratio::of(&pairs.collect::<Vec<_>>())
        });
        let against_best = brokers.iter().skip(1).map(|other| {
            let (own, other) = brokers[0].spread.zip(other.spread)?;
            let best = if metric.is_rate() { other.max } else { other.min };
            (best != 0.0).then(|| own.median / best)
        });
        let (ratios, against_best) = (ratios.collect(), against_best.collect());
        Figure { metric: metric.clone(), brokers, ratios, against_best }
    }
}

fn judge(bound: &Bound, figure: &Figure, enough: usize) -> Outcome {
    use super::metric::Subject;
    let first = &figure.brokers[0];
    match bound.subject {
        Subject::Value if first.values.len() < enough => Outcome::Unknown,
        Subject::Value => bound.judge(first.spread, None),
        Subject::Ratio => {
            let judged = figure.ratios.iter().zip(&figure.brokers[1..]).map(|(ratio, other)| {
                // The other's rate may be higher, its time shorter: the ratio flatters the first.
                let is_sound = !other.is_client_bound;
                let ratio = ratio.filter(|ratio| is_sound && ratio.pairs >= enough);
                bound.judge(None, ratio)
            });
            // Against the hardest of the others.
            judged.max_by_key(|outcome| *outcome as u8).unwrap_or(Outcome::Unknown)
        }
    }
}

fn words(work: &Work) -> String {
    let json = |value: serde_json::Result<Value>| value.unwrap_or_default().to_string();
    match work {
        Work::Run(args) => format!("run {}", json(serde_json::to_value(args))),
        Work::Consume(fill, args) => {
            let (fill, args) = (serde_json::to_value(fill), serde_json::to_value(args));
            format!("consume {} filled by {}", json(args), json(fill))
        }
        Work::Control(_, control) => format!("another program: {}", control.command),
        Work::Start => "start with an empty folder".to_owned(),
        Work::Recover(args) => {
            let (bytes, partitions) = (args.fill_bytes, args.partitions);
            format!("{bytes} bytes in {partitions} partitions, kill -9, start")
        }
        Work::Idle(args) => format!("idle with {} partitions", args.partitions),
        Work::Churn(args) => format!("churn {}", json(serde_json::to_value(args))),
        Work::Crash(args) => format!("{} rounds of crash", args.rounds),
    }
}
