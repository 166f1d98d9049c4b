//! Studies: several works on several brokers, interleaved and repeated, compared.
//!
//! `file` reads a study, `changed` applies the command line, `engine` runs it, `found` sums it up,
//! `page` shows it.

mod changed;
pub mod control;
pub mod curve;
pub mod engine;
pub mod file;
pub mod found;
pub mod metric;
pub mod page;
pub mod ratio;

use crate::args::{ChurnArgs, ConsumeArgs, CrashArgs, IdleArgs, RecoverArgs, RunArgs};
use crate::brokers::BrokerSpec;
use crate::catchup::CatchUp;
use crate::churn::ChurnFound;
use crate::crash::CrashFound;
use crate::group::GroupFound;
use crate::lifecycle::{IdleFound, RecoverFound, StartFound};
use crate::report::Report;
use control::{Control, ControlFound};
use metric::{Bound, Metric};
use std::time::Duration;

/// What is measured on which brokers.
#[derive(Clone, Debug)]
pub struct Study {
    /// Of the report.
    pub title: String,
    /// What a reader should know.
    pub about: String,
    /// Measurements of each row on each broker.
    pub repeats: u32,
    /// How often a measurement that is not valid is made again.
    pub retries: u32,
    /// CPUs of the client.
    pub client_cpus: Vec<usize>,
    /// Congestion control that the host has while the study runs.
    pub host_tcp_congestion: Option<String>,
    /// Pause before each measurement.
    pub settle: Duration,
    /// The first one is compared with each of the others.
    pub brokers: Vec<BrokerSpec>,
    /// The works, in order.
    pub rows: Vec<Row>,
    /// Rows to measure now; empty: all.
    pub only: Vec<String>,
    /// The file, and what the command line changes in it.
    pub text: String,
}

/// One work.
#[derive(Clone, Debug)]
pub struct Row {
    /// In paths and on the command line.
    pub name: String,
    /// In tables.
    pub title: String,
    /// What a reader should know.
    pub about: String,
    /// What is done.
    pub work: Work,
    /// Topics get the broker's `durable` configuration.
    pub is_durable: bool,
    /// What is demanded.
    pub bounds: Vec<Bound>,
    /// What is shown; the first figure is the row's main one.
    pub metrics: Vec<Metric>,
    /// Instead of the study's.
    pub repeats: Option<u32>,
}

/// What is done in a row.
#[derive(Clone, Debug)]
pub enum Work {
    /// `loadgen run`.
    Run(Box<RunArgs>),
    /// A topic is filled once, read once unmeasured, then read by `loadgen consume`.
    Consume(Box<RunArgs>, Box<ConsumeArgs>),
    /// Another program, on a topic that is made, or filled first if the program reads.
    Control(Box<RunArgs>, Control),
    /// A fresh broker until its first answer.
    Start,
    /// A fresh broker filled, killed and started again.
    Recover(RecoverArgs),
    /// A fresh broker left alone.
    Idle(Box<IdleArgs>),
    /// `loadgen churn`.
    Churn(Box<ChurnArgs>),
    /// `loadgen crash` on a fresh broker.
    Crash(CrashArgs),
}

impl Work {
    /// Whether it wants brokers of its own, started for each measurement.
    pub fn wants_fresh_broker(&self) -> bool {
        self.needs_start() || matches!(self, Self::Idle(_))
    }

    /// Whether that broker must be one that we can start.
    pub fn needs_start(&self) -> bool {
        matches!(self, Self::Start | Self::Recover(_) | Self::Crash(_))
    }

    /// Whether its reports can hold a figure.
    pub fn has(&self, metric: &Metric) -> bool {
        let sample = match self {
            Self::Run(_) => serde_json::to_value(Report {
                group: Some(GroupFound::default()),
                catch_up: Some(CatchUp::default()),
                ..Default::default()
            }),
            Self::Consume(..) => serde_json::to_value(CatchUp::default()),
            Self::Control(..) => serde_json::to_value(ControlFound::default()),
            Self::Start => serde_json::to_value(StartFound::default()),
            Self::Recover(_) => serde_json::to_value(RecoverFound::default()),
            Self::Idle(_) => serde_json::to_value(IdleFound::default()),
            Self::Churn(_) => serde_json::to_value(ChurnFound::default()),
            Self::Crash(_) => serde_json::to_value(CrashFound::default()),
        };
        let sample = sample.unwrap_or_default();
        let mut keys = metric.0.split('.');
        // Below what may be absent, anything may be.
        keys.try_fold(&sample, |at, key| if at.is_null() { Some(at) } else { at.get(key) })
            .is_some()
    }
}
