//! Records from the leaders of partitions, each from where the last one ended.

use crate::{Client, ClientError, Result, To, TopicPartition, refuse};
use millrace_wire::batch::{Record, batches};
use millrace_wire::messages::FetchRequest;
use millrace_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use millrace_wire::{ErrorCode, Records};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const PARTITION_BYTES_MAX: i32 = 1 << 20;
const ANSWER_BYTES_MAX: i32 = 50 << 20;
const BATCH_BYTES_MAX: usize = 256 << 20;

/// One record and where it lies.
#[derive(Debug)]
pub struct Fetched<'a> {
    /// Its partition.
    pub at: &'a TopicPartition,
    /// Its content.
    pub record: Record<'a>,
    /// Whether its timestamp is the broker's.
    pub is_append_time: bool,
}

/// Reads partitions.
#[derive(Debug)]
pub struct Fetcher {
    /// The offset that is read next.
    pub positions: BTreeMap<TopicPartition, i64>,
    /// Where to go on when that offset is not there: -1 the end, -2 the start, or nowhere.
    pub reset: Option<i64>,
    /// How long a broker may wait for records.
    pub wait: Duration,
    failing_since: Option<Instant>,
}

impl Fetcher {
    /// Reads on from these positions.
    pub fn new(positions: BTreeMap<TopicPartition, i64>, reset: Option<i64>) -> Self {
        Self { positions, reset, wait: Duration::from_millis(500), failing_since: None }
    }

    /// Asks each leader once and hands over what came, until `take` breaks. Errors that may pass
    /// are waited out for as long as the client has patience.
    pub fn poll<E: From<ClientError>>(
        &mut self,
        client: &mut Client,
        take: &mut dyn FnMut(Fetched<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        match self.ask_leaders(client, take) {
            Ok(Some(error)) => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > client.options().patience {
                    return Err(error.into());
                }
                Ok(client.pause()?)
            }
            Ok(None) => {
                self.failing_since = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The error that may pass, if there was one.
    fn ask_leaders<E: From<ClientError>>(
        &mut self,
        client: &mut Client,
        take: &mut dyn FnMut(Fetched<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<Option<ClientError>, E> {
        let passing = |error: ClientError| match error.is_retriable() {
            true => Ok(Some(error)),
            false => Err(error.into()),
        };
        let leaders = match client.by_leader(self.positions.clone()) {
            Ok(leaders) => leaders,
            Err(error) => return passing(error),
        };
        let wait = self.wait / leaders.len().max(1) as u32;
        for (node, topics) in leaders {
            let request = FetchRequest {
                replica_id: -1,
                max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
                min_bytes: 1,
                max_bytes: ANSWER_BYTES_MAX,
                session_epoch: -1,
                topics: topics.iter().map(|(topic, positions)| wanted(topic, positions)).collect(),
                ..Default::default()
            };
            let answer = match client.call(To::Node(node), &request, 4..=12) {
                Ok(answer) => answer,
                Err(error) => return passing(error),
            };
            let mut lost = None;
            for topic in &answer.responses {
                for part in &topic.partitions {
                    let at = TopicPartition::new(topic.topic, part.partition_index);
                    if ErrorCode(part.error_code) == ErrorCode::OFFSET_OUT_OF_RANGE {
                        lost = Some(at);
                        continue;
                    }
                    if let Err(error) = refuse(part.error_code, None, || format!("reading {at}")) {
                        return passing(error);
                    }
                    if self.hand_over(&at, part.records, take)?.is_break() {
                        return Ok(None);
                    }
                }
            }
            if let Some(at) = lost
                && let Err(error) = self.reset(client, at)
            {
                return passing(error);
            }
        }
        Ok(None)
    }

    fn hand_over<E: From<ClientError>>(
        &mut self,
        at: &TopicPartition,
        records: Option<Records<'_>>,
        take: &mut dyn FnMut(Fetched<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let position = self.positions.get_mut(at).expect("only positions are asked for");
        let malformed = |error: millrace_wire::batch::BatchError| ClientError::Malformed {
            what: "Fetch",
            problem: format!("{at}: {error}"),
        };
        let mut scratch = Vec::new();
        let mut bytes = records.map_or(&[][..], |records| records.bytes());
        // The last batch may be cut short.
        while let Some(batch) = batches(bytes).next().and_then(Result::ok) {
            bytes = &bytes[batch.bytes().len()..];
            let header = batch.header();
            if header.is_control() {
                *position = header.last_offset() + 1;
                continue;
            }
            batch.verify_crc().map_err(malformed)?;
            let is_append_time = header.is_log_append_time();
            for record in batch.records(&mut scratch, BATCH_BYTES_MAX).map_err(malformed)? {
                let record = record.map_err(malformed)?;
                if record.offset < *position {
                    continue;
                }
                let next = record.offset + 1;
                let flow = take(Fetched { at, record, is_append_time })?;
                *position = next;
                if flow.is_break() {
                    return Ok(flow);
                }
            }
            // Compaction may have taken the last records.
            *position = header.last_offset() + 1;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn reset(&mut self, client: &mut Client, at: TopicPartition) -> Result<()> {
        let position = self.positions[&at];
        let Some(to) = self.reset else {
            return refuse(ErrorCode::OFFSET_OUT_OF_RANGE.code(), None, || {
                format!("offset {position} of {at}")
            });
        };
        let found = client.offsets_at(&[(at.clone(), to)])?;
        let (offset, _) = found.get(&at).copied().unwrap_or((0, -1));
        self.positions.insert(at, offset);
        Ok(())
    }
}

fn wanted<'a>(topic: &'a str, positions: &[(i32, i64)]) -> FetchTopic<'a> {
    let partitions = positions.iter().map(|&(partition, fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: PARTITION_BYTES_MAX,
        ..Default::default()
    });
    FetchTopic { topic, partitions: partitions.collect(), ..Default::default() }
}
