//! What is asked of a cluster before and after a load, one request at a time: versions, topic,
//! leaders, offsets, producer ids.

use crate::clock::wall_ms;
use millrace_wire::batch::{BatchBuilder, BatchOptions};
use millrace_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use millrace_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_wire::messages::metadata_request::MetadataRequestTopic;
use millrace_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use millrace_wire::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader,
};
use millrace_wire::{ApiKey, Array, ErrorCode, Message, Reader, Records, Request, Writer, api};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The client id in every request.
pub const CLIENT_ID: &str = "loadgen";
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than any answer to the requests made here.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ClusterError {
    #[error("cannot reach {address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    #[error("{address} ended the connection or did not answer {what}: {source}")]
    NoAnswer { address: String, what: &'static str, source: std::io::Error },
    #[error("the answer to {what} cannot be understood: {problem}")]
    Malformed { what: &'static str, problem: String },
    #[error("{what} failed: {code}")]
    Refused { what: String, code: ErrorCode },
    #[error("the broker does {what} {theirs:?}, loadgen {ours:?}: no version in common")]
    Version { what: ApiKey, theirs: Option<(i16, i16)>, ours: RangeInclusive<i16> },
    #[error("topic {topic}: not all partitions have a leader after {seconds} s")]
    Leaderless { topic: String, seconds: u64 },
    #[error("--topic-config '{0}' is not KEY=VALUE")]
    TopicConfig(String),
}

/// The versions a broker offers.
#[derive(Clone, Debug, Default)]
pub struct Versions(HashMap<i16, (i16, i16)>);

impl Versions {
    /// The highest version of `key` within `ours` that the broker also speaks.
    pub fn pick(&self, key: ApiKey, ours: RangeInclusive<i16>) -> Result<i16, ClusterError> {
        let theirs = self.0.get(&(key as i16)).copied();
        theirs
            .map(|(_, max)| max.min(*ours.end()))
            .filter(|version| {
                theirs.is_some_and(|(min, _)| *version >= min) && ours.contains(version)
            })
            .ok_or(ClusterError::Version { what: key, theirs, ours })
    }
}

/// Where each partition of a topic is written and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaders {
    /// Partition -> address of its leader.
    pub by_partition: BTreeMap<u32, SocketAddr>,
}

/// Writes a whole frame, its size included, into `out`.
pub fn encode_frame<'a, M: Message<'a>>(
    out: &mut Writer,
    message: &M,
    version: i16,
    correlation_id: i32,
) -> Result<(), ClusterError> {
    let malformed = |problem: &dyn std::fmt::Display| ClusterError::Malformed {
        what: M::NAME,
        problem: problem.to_string(),
    };
    let key = ApiKey::try_from(M::API_KEY).map_err(|error| malformed(&error))?;
    out.clear();
    out.i32(0);
    let header = RequestHeader {
        request_api_key: M::API_KEY,
        request_api_version: version,
        correlation_id,
        client_id: Some(CLIENT_ID),
        ..Default::default()
    };
    let header_version = api::request_header_version(key, version);
    header.encode(out, header_version).map_err(|error| malformed(&error))?;
    message.encode(out, version).map_err(|error| malformed(&error))?;
    let size = i32::try_from(out.bytes().len() - 4).map_err(|error| malformed(&error))?;
    out.patch_i32(0, size);
    Ok(())
}

/// Reads an answer without its size: correlation id and message.
pub fn decode_answer<'r, M: Message<'r>>(
    frame: &'r [u8],
    key: ApiKey,
    version: i16,
) -> Result<(i32, M), ClusterError> {
    let malformed = |error: millrace_wire::DecodeError| ClusterError::Malformed {
        what: M::NAME,
        problem: error.to_string(),
    };
    let mut reader = Reader::new(frame);
    let header_version = api::response_header_version(key, version);
    let header = ResponseHeader::decode(&mut reader, header_version).map_err(malformed)?;
    let message = M::decode(&mut reader, version).map_err(malformed)?;
    Ok((header.correlation_id, message))
}

/// A blocking connection to one broker.
#[derive(Debug)]
pub struct Cluster {
    stream: TcpStream,
    address: String,
    versions: Versions,
    writer: Writer,
    answer: Vec<u8>,
    correlation_id: i32,
}

impl Cluster {
    /// Connects and learns the broker's versions.
    pub fn connect(bootstrap: &str) -> Result<Self, ClusterError> {
        let unreachable = |source| ClusterError::Unreachable { address: bootstrap.into(), source };
        let addresses: Vec<SocketAddr> =
            bootstrap.to_socket_addrs().map_err(unreachable)?.collect();
        let none = || std::io::Error::other("the name has no address");
        let mut stream = Err(none());
        for address in &addresses {
            stream = TcpStream::connect_timeout(address, Duration::from_secs(5));
            if stream.is_ok() {
                break;
            }
        }
        let stream = stream.map_err(unreachable)?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(TIMEOUT)))
            .map_err(unreachable)?;
        let mut cluster = Self {
            stream,
            address: bootstrap.to_owned(),
            versions: Versions::default(),
            writer: Writer::new(),
            answer: Vec::new(),
            correlation_id: 0,
        };
        let answer = cluster.call(ApiKey::ApiVersions, &ApiVersionsRequest::default(), 0)?;
        let offered = answer
            .api_keys
            .iter()
            .map(|offer| (offer.api_key, (offer.min_version, offer.max_version)))
            .collect();
        cluster.versions = Versions(offered);
        Ok(cluster)
    }

    /// What the broker offers.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    fn call<'a, R: Request<'a>>(
        &mut self,
        key: ApiKey,
        request: &R,
        version: i16,
    ) -> Result<R::Response<'_>, ClusterError> {
        self.correlation_id += 1;
        encode_frame(&mut self.writer, request, version, self.correlation_id)?;
        let exchanged = self.exchange();
        exchanged.map_err(|source| ClusterError::NoAnswer {
            address: self.address.clone(),
            what: key.name(),
            source,
        })?;
        let (correlation_id, answer) = decode_answer(&self.answer, key, version)?;
        if correlation_id != self.correlation_id {
            let problem = format!("correlation id {correlation_id} was not asked for");
            return Err(ClusterError::Malformed { what: key.name(), problem });
        }
        Ok(answer)
    }

    fn exchange(&mut self) -> std::io::Result<()> {
        self.stream.write_all(self.writer.bytes())?;
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = usize::try_from(i32::from_be_bytes(size))
            .ok()
            .filter(|&size| size <= ANSWER_BYTES_MAX)
            .ok_or_else(|| std::io::Error::other("the size of the answer is out of range"))?;
        self.answer.resize(size, 0);
        self.stream.read_exact(&mut self.answer)
    }

    /// How many brokers the cluster names.
    pub fn broker_count(&mut self) -> Result<usize, ClusterError> {
        let version = self.versions.pick(ApiKey::Metadata, 1..=12)?;
        let request = MetadataRequest { topics: Some(Array::default()), ..Default::default() };
        Ok(self.call(ApiKey::Metadata, &request, version)?.brokers.len())
    }

    /// Writes one record to a partition led by this broker; acknowledged by it when this returns.
    pub fn produce_one(&mut self, topic: &str, partition: u32) -> Result<(), ClusterError> {
        let version = self.versions.pick(ApiKey::Produce, 3..=8)?;
        let mut builder = BatchBuilder::new();
        builder.append(wall_ms(), None, Some(b"loadgen"), &[]);
        let batch = builder.finish(&BatchOptions::default()).map_err(|error| {
            ClusterError::Malformed { what: "a batch of one record", problem: error.to_string() }
        })?;
        let data = PartitionProduceData {
            index: partition as i32,
            records: Some(Records::Bytes(batch)),
            ..Default::default()
        };
        let data = Array::from(vec![data]);
        let topic = TopicProduceData { name: topic, partition_data: data, ..Default::default() };
        let request = ProduceRequest {
            acks: 1,
            timeout_ms: millis(TIMEOUT),
            topic_data: Array::from(vec![topic]),
            ..Default::default()
        };
        let answer = self.call(ApiKey::Produce, &request, version)?;
        let answered = answer.responses.iter().flat_map(|t| t.partition_responses.into_vec());
        let code = answered.map(|partition| partition.error_code).next().unwrap_or(-1);
        refuse(format!("producing to partition {partition}"), code)
    }

    /// The leaders of all partitions; `None` when the topic does not exist or some have none yet.
    pub fn leaders(&mut self, topic: &str) -> Result<Option<Leaders>, ClusterError> {
        let version = self.versions.pick(ApiKey::Metadata, 4..=12)?;
        let asked = MetadataRequestTopic { name: Some(topic), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(Array::from(vec![asked])),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let answer = self.call(ApiKey::Metadata, &request, version)?;
        let what = || format!("Metadata of topic {topic}");
        let Some(found) = answer.topics.first() else { return Ok(None) };
        match ErrorCode(found.error_code) {
            ErrorCode::NONE => {}
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::LEADER_NOT_AVAILABLE => {
                return Ok(None);
            }
            code => return Err(ClusterError::Refused { what: what(), code }),
        }
        let mut brokers = HashMap::new();
        for broker in answer.brokers.iter() {
            let address = resolve(broker.host, broker.port)?;
            brokers.insert(broker.node_id, address);
        }
        let mut leaders = Leaders::default();
        for partition in found.partitions.iter() {
            let Some(&address) = brokers.get(&partition.leader_id) else { return Ok(None) };
            let index = u32::try_from(partition.partition_index).map_err(|error| {
                ClusterError::Malformed { what: "Metadata", problem: error.to_string() }
            })?;
            leaders.by_partition.insert(index, address);
        }
        Ok((!leaders.by_partition.is_empty()).then_some(leaders))
    }

    /// Asks for leaders until all partitions have one, for at most 20 s.
    pub fn wait_for_leaders(&mut self, topic: &str) -> Result<Leaders, ClusterError> {
        let start = Instant::now();
        loop {
            if let Some(leaders) = self.leaders(topic)? {
                return Ok(leaders);
            }
            let seconds = start.elapsed().as_secs();
            if seconds >= 20 {
                return Err(ClusterError::Leaderless { topic: topic.to_owned(), seconds });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Makes the topic.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: u32,
        configs: &[String],
    ) -> Result<(), ClusterError> {
        let version = self.versions.pick(ApiKey::CreateTopics, 2..=6)?;
        let mut pairs = Vec::new();
        for config in configs {
            let (name, value) =
                config.split_once('=').ok_or_else(|| ClusterError::TopicConfig(config.clone()))?;
            pairs.push(CreatableTopicConfig { name, value: Some(value), ..Default::default() });
        }
        let wanted = CreatableTopic {
            name: topic,
            num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            // The broker's default, where it can be asked for: since Kafka 2.4.
            replication_factor: if version >= 4 { -1 } else { 1 },
            configs: Array::from(pairs),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: Array::from(vec![wanted]),
            timeout_ms: millis(TIMEOUT),
            ..Default::default()
        };
        let answer = self.call(ApiKey::CreateTopics, &request, version)?;
        let code = answer.topics.first().map_or(0, |topic| topic.error_code);
        refuse(format!("creating topic {topic}"), code)
    }

    /// Deletes the topic.
    pub fn delete_topic(&mut self, topic: &str) -> Result<(), ClusterError> {
        let version = self.versions.pick(ApiKey::DeleteTopics, 1..=5)?;
        let request = DeleteTopicsRequest {
            topic_names: Array::from(vec![topic]),
            timeout_ms: millis(TIMEOUT),
            ..Default::default()
        };
        let answer = self.call(ApiKey::DeleteTopics, &request, version)?;
        let code = answer.responses.first().map_or(0, |topic| topic.error_code);
        refuse(format!("deleting topic {topic}"), code)
    }

    /// A producer id and its epoch.
    pub fn producer_id(&mut self) -> Result<(i64, i16), ClusterError> {
        let version = self.versions.pick(ApiKey::InitProducerId, 0..=4)?;
        let start = Instant::now();
        loop {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: i32::MAX,
                ..Default::default()
            };
            let answer = self.call(ApiKey::InitProducerId, &request, version)?;
            let code = ErrorCode(answer.error_code);
            let given = (answer.producer_id, answer.producer_epoch);
            if !code.is_retriable() || start.elapsed() > Duration::from_secs(10) {
                refuse("InitProducerId".to_owned(), code.code())?;
                return Ok(given);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The offsets at which partitions led by this broker begin (`timestamp` -2) or end (-1). A
    /// leader that has just been named may not know it yet: it is asked again for some seconds.
    pub fn wait_for_offsets(
        &mut self,
        topic: &str,
        partitions: &[u32],
        timestamp: i64,
    ) -> Result<BTreeMap<u32, i64>, ClusterError> {
        let start = Instant::now();
        loop {
            match self.offsets(topic, partitions, timestamp) {
                Err(ClusterError::Refused { code, .. })
                    if code.is_retriable() && start.elapsed() < Duration::from_secs(10) =>
                {
                    std::thread::sleep(Duration::from_millis(50));
                }
                done => return done,
            }
        }
    }

    fn offsets(
        &mut self,
        topic: &str,
        partitions: &[u32],
        timestamp: i64,
    ) -> Result<BTreeMap<u32, i64>, ClusterError> {
        let version = self.versions.pick(ApiKey::ListOffsets, 1..=7)?;
        let asked: Vec<ListOffsetsPartition<'_>> = partitions
            .iter()
            .map(|&index| ListOffsetsPartition {
                partition_index: index as i32,
                current_leader_epoch: -1,
                timestamp,
                ..Default::default()
            })
            .collect();
        let asked =
            ListOffsetsTopic { name: topic, partitions: Array::from(asked), ..Default::default() };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: Array::from(vec![asked]),
            ..Default::default()
        };
        let answer = self.call(ApiKey::ListOffsets, &request, version)?;
        let mut offsets = BTreeMap::new();
        for found in answer.topics.iter().flat_map(|topic| topic.partitions.into_vec()) {
            refuse(format!("ListOffsets of {topic}-{}", found.partition_index), found.error_code)?;
            offsets.insert(found.partition_index as u32, found.offset);
        }
        Ok(offsets)
    }
}

fn resolve(host: &str, port: i32) -> Result<SocketAddr, ClusterError> {
    let address = format!("{host}:{port}");
    let source = || std::io::Error::other("the name has no address");
    let found = u16::try_from(port)
        .map_err(std::io::Error::other)
        .and_then(|port| (host, port).to_socket_addrs())
        .and_then(|mut all| all.next().ok_or_else(source));
    found.map_err(|source| ClusterError::Unreachable { address, source })
}

fn refuse(what: String, code: i16) -> Result<(), ClusterError> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        code => Err(ClusterError::Refused { what, code }),
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_highest_version_both_speak() {
        let versions = Versions(HashMap::from([(0, (3, 13)), (1, (4, 11)), (3, (13, 14))]));
        let rows = [
            (ApiKey::Produce, 3..=8, Some(8)),
            (ApiKey::Fetch, 4..=12, Some(11)),
            (ApiKey::Metadata, 4..=12, None),
            (ApiKey::Produce, 0..=2, None),
            (ApiKey::CreateTopics, 2..=6, None),
        ];
        for (key, ours, expected) in rows {
            assert_eq!(versions.pick(key, ours).ok(), expected, "{key}");
        }
    }
}
