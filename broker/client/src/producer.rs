//! Records into batches and to the leaders: each once, where the broker gives producer ids.

use crate::{Client, ClientError, Result, To, TopicPartition, refuse};
use millrace_wire::batch::{BatchBuilder, BatchOptions};
use millrace_wire::compression::Compression;
use millrace_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use millrace_wire::messages::{InitProducerIdRequest, ProduceRequest};
use millrace_wire::{ErrorCode, Records};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// A record on its way out.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// Sends batches, one at a time to each partition.
#[derive(Debug)]
pub struct Producer {
    acks: i16,
    compression: Compression,
    /// Producer id and epoch: the broker drops what it already has.
    identity: Option<(i64, i16)>,
    sequences: HashMap<TopicPartition, i32>,
    builder: BatchBuilder,
}

/// Records of one partition that were not all acknowledged.
struct Pending {
    records: Vec<Outgoing>,
    done: usize,
    /// How many to send at once.
    piece: usize,
    first_offset: i64,
}

/// What a broker said about a batch.
struct Verdict {
    at: TopicPartition,
    code: ErrorCode,
    message: Option<String>,
    offset: i64,
}

impl Producer {
    /// A producer; with `acks` -1 (all) it has an id, where the broker gives one.
    pub fn new(client: &mut Client, acks: i16, compression: Compression) -> Result<Self> {
        let identity = if acks == -1 { ask_identity(client)? } else { None };
        let (sequences, builder) = (HashMap::new(), BatchBuilder::new());
        Ok(Self { acks, compression, identity, sequences, builder })
    }

    /// Sends everything and waits for what `acks` promises. The offset of the first record of each
    /// partition, -1 where it is not known.
    pub fn send(
        &mut self,
        client: &mut Client,
        batches: BTreeMap<TopicPartition, Vec<Outgoing>>,
    ) -> Result<BTreeMap<TopicPartition, i64>> {
        let mut pending: BTreeMap<TopicPartition, Pending> = BTreeMap::new();
        for (at, records) in batches {
            let piece = records.len();
            pending.insert(at, Pending { records, done: 0, piece, first_offset: -1 });
        }
        let mut finished = BTreeMap::new();
        let mut start = Instant::now();
        while !pending.is_empty() {
            let verdicts = match self.attempt(client, &pending) {
                Err(error)
                    if error.is_retriable() && start.elapsed() < client.options().patience =>
                {
                    client.pause()?;
                    continue;
                }
                outcome => outcome?,
            };
            for verdict in verdicts {
                let is_late = start.elapsed() > client.options().patience;
                let part = pending.get_mut(&verdict.at).expect("only these were sent");
                if self.judge(client, part, &verdict, is_late)? {
                    start = Instant::now();
                }
                if part.done == part.records.len() {
                    let part = pending.remove(&verdict.at).expect("it was just there");
                    finished.insert(verdict.at, part.first_offset);
                }
            }
        }
        Ok(finished)
    }

    /// Takes note of a verdict; whether there was progress.
    fn judge(
        &mut self,
        client: &mut Client,
        part: &mut Pending,
        verdict: &Verdict,
        is_late: bool,
    ) -> Result<bool> {
        let piece = part.piece.min(part.records.len() - part.done);
        match verdict.code {
            ErrorCode::NONE | ErrorCode::DUPLICATE_SEQUENCE_NUMBER => {
                if part.done == 0 {
                    part.first_offset = verdict.offset;
                }
                part.done += piece;
                let next = self.sequences.entry(verdict.at.clone()).or_default();
                *next = next.wrapping_add(piece as i32) & i32::MAX;
                Ok(true)
            }
            ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE if piece > 1 => {
                part.piece = piece / 2;
                Ok(true)
            }
            code if code.is_retriable() && !is_late => client.pause().map(|()| false),
            code => {
                refuse(code.code(), verdict.message.as_deref(), || format!("to {}", verdict.at))
                    .map(|()| false)
            }
        }
    }

    /// One batch for each partition, one request for each leader.
    fn attempt(
        &mut self,
        client: &mut Client,
        pending: &BTreeMap<TopicPartition, Pending>,
    ) -> Result<Vec<Verdict>> {
        let mut batches = Vec::new();
        for (at, part) in pending {
            batches.push((at.clone(), self.batch(at, part)?));
        }
        let mut verdicts = Vec::new();
        for (node, topics) in client.by_leader(batches)? {
            let topic_data = topics.iter().map(|(name, batches)| TopicProduceData {
                name,
                partition_data: batches
                    .iter()
                    .map(|(index, bytes)| PartitionProduceData {
                        index: *index,
                        records: Some(Records::Bytes(bytes)),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            });
            let timeout_ms =
                i32::try_from(client.options().timeout.as_millis()).unwrap_or(i32::MAX);
            let topic_data = topic_data.collect();
            let request =
                ProduceRequest { acks: self.acks, timeout_ms, topic_data, ..Default::default() };
            if self.acks == 0 {
                client.send(To::Node(node), &request, 3..=12)?;
                let all = topics.iter().flat_map(|(topic, batches)| {
                    batches.iter().map(|(index, _)| TopicPartition::new(topic, *index))
                });
                verdicts.extend(all.map(|at| Verdict {
                    at,
                    code: ErrorCode::NONE,
                    message: None,
                    offset: -1,
                }));
                continue;
            }
            let answer = client.call(To::Node(node), &request, 3..=12)?;
            for topic in &answer.responses {
                for partition in &topic.partition_responses {
                    verdicts.push(Verdict {
                        at: TopicPartition::new(topic.name, partition.index),
                        code: ErrorCode(partition.error_code),
                        message: partition.error_message.map(str::to_owned),
                        offset: partition.base_offset,
                    });
                }
            }
        }
        Ok(verdicts)
    }

    fn batch(&mut self, at: &TopicPartition, part: &Pending) -> Result<Vec<u8>> {
        let rest = &part.records[part.done..];
        for record in &rest[..part.piece.min(rest.len())] {
            let headers: Vec<(&str, Option<&[u8]>)> =
                record.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            self.builder.append(record.timestamp, key, value, &headers);
        }
        let mut options = BatchOptions { compression: self.compression, ..Default::default() };
        if let Some((id, epoch)) = self.identity {
            (options.producer_id, options.producer_epoch) = (id, epoch);
            options.base_sequence = self.sequences.get(at).copied().unwrap_or(0);
        }
        let batch = self.builder.finish(&options).map_err(|error| ClientError::Malformed {
            what: "the batch to send",
            problem: error.to_string(),
        });
        batch.map(<[u8]>::to_vec)
    }
}

/// An id for a producer; none where the broker has none or does not give it to us.
fn ask_identity(client: &mut Client) -> Result<Option<(i64, i16)>> {
    let asked = client.retry(|client| {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            ..Default::default()
        };
        let answer = client.call(To::Any, &request, 0..=4)?;
        refuse(answer.error_code, None, || "a producer id".to_owned())?;
        Ok((answer.producer_id, answer.producer_epoch))
    });
    match asked {
        Ok(identity) => Ok(Some(identity)),
        Err(ClientError::Version { .. }) => Ok(None),
        Err(error) if error.code() == Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED) => Ok(None),
        Err(error) => Err(error),
    }
}
