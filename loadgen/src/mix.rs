//! Readers of a backlog while a load runs: the topic is filled first, then read from its beginning
//! beside the producers and the consumers at the tail.

use crate::args::{Acks, ConsumeArgs, RunArgs, Switch};
use crate::catchup::{self, CatchUp};
use crate::driver::Setup;
use crate::gather::Live;
use crate::run::{self, BrokerProcess, RunError, Surroundings};
use crate::schedule::Spread;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Bytes of a batch of the backlog, about.
const BATCH_BYTES: usize = 64 << 10;
/// The backlog may take this much longer than the load to read.
const PATIENCE: Duration = Duration::from_secs(600);

/// The run that writes the backlog: the load's records, as fast as they go.
fn filling(args: &RunArgs, topic: &str) -> RunArgs {
    let mut fill = args.clone();
    (fill.topic, fill.keep_topic) = (Some(topic.to_owned()), true);
    (fill.mix.backlog_bytes, fill.mix.backlog_cold) = (0, Switch::Off);
    (fill.mix.cold_readers, fill.mix.group, fill.prometheus) = (0, None, None);
    (fill.rate, fill.shape.schedule, fill.linger_ms) = (None, None, 0.0);
    fill.spread = Spread::Uniform;
    (fill.consumers, fill.fetch.verify, fill.acks) = (0, Switch::Off, Acks::Leader);
    let in_batch = (BATCH_BYTES / args.record_bytes).max(1);
    fill.batch_records = u32::try_from(in_batch).unwrap_or(1).max(args.batch_records);
    (fill.idempotent, fill.inflight) = (Switch::Off, 5);
    fill.records = Some(args.mix.backlog_bytes.div_ceil(args.record_bytes) as u64);
    (fill.warmup, fill.duration) = (Duration::ZERO, Duration::from_secs(3600));
    fill
}

/// Writes the backlog into a topic that is there.
pub fn fill(args: &RunArgs, topic: &str, around: Surroundings<'_>) -> Result<(), RunError> {
    let fill = filling(args, topic);
    around.live.show(&format!("writing a backlog of {} bytes", args.mix.backlog_bytes));
    let around = Surroundings { broker: BrokerProcess::None, is_probed: false, ..around };
    let filled = run::run(&fill, around)?.report;
    if filled.partial {
        return Err(RunError::Interrupted);
    }
    if filled.errors > 0 {
        let errors = filled.errors;
        return Err(RunError::Options(format!("{errors} batches of the backlog failed")));
    }
    if args.mix.backlog_cold == Switch::On {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "1")
            .map_err(|error| RunError::Options(format!("--backlog-cold: {error}")))?;
    }
    Ok(())
}

/// Readers at work.
#[derive(Debug)]
pub struct ColdReaders(JoinHandle<Result<CatchUp, RunError>>);

impl ColdReaders {
    /// Begins to read when measuring begins, as far as the topic reaches then.
    pub fn start(args: &RunArgs, topic: &str, setup: &Arc<Setup>) -> Option<Self> {
        if args.mix.cold_readers == 0 {
            return None;
        }
        let mut consume = ConsumeArgs {
            target: args.target.clone(),
            topic: topic.to_owned(),
            consumers: args.mix.cold_readers,
            fanout: 1,
            fetch: args.fetch.clone(),
            bytes_per_second: args.mix.cold_bytes_per_second,
            timeout: args.duration + PATIENCE,
            json: None,
        };
        // What the broker spends is the load's to tell.
        (consume.target.pid, consume.target.count_flushes) = (None, false);
        let setup = Arc::clone(setup);
        Some(Self(thread::spawn(move || {
            setup.clock.sleep_until(setup.timeline.measure_start_ns);
            catchup::consume(&consume, Live::Silent)
        })))
    }

    /// Waits for them.
    pub fn finish(self) -> Result<CatchUp, RunError> {
        self.0.join().expect("a panic of a thread ends the program")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_can_be_written_for_every_load() {
        let mut args = RunArgs::with_defaults();
        (args.rate, args.spread, args.linger_ms) = (Some(100.0), Spread::Poisson, 5.0);
        (args.mix.backlog_bytes, args.mix.backlog_cold) = (1 << 20, Switch::On);
        (args.mix.group, args.mix.cold_readers, args.idempotent) =
            (Some("group".to_owned()), 1, Switch::On);
        assert_eq!(args.check(), Ok(()));
        assert_eq!(filling(&args, "topic").check(), Ok(()));
    }
}
