//! A broker in memory that lies on demand: it loses, doubles, alters or swaps batches, answers with
//! errors, waits, or stands still. Threads and blocking sockets; one topic name fits all.

use millrace_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use millrace_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use millrace_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use millrace_wire::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use millrace_wire::messages::{
    ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, FetchRequest, FetchResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    api_versions_response::ApiVersion, create_topics_response::CreatableTopicResult,
    delete_topics_response::DeletableTopicResult,
};
use millrace_wire::{ApiKey, Array, Message, Reader, Records, Writer, api, batch};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What the broker does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Acknowledges the n-th batch and does not keep it.
    Lose(u64),
    /// Keeps the n-th batch twice.
    Double(u64),
    /// Changes a bit of the last value of the n-th batch, and corrects the CRC.
    Alter(u64),
    /// The same, and leaves the CRC.
    AlterBehindCrc(u64),
    /// Keeps the n-th batch after the next one of its partition.
    Swap(u64),
    /// Refuses the n-th batch with a code.
    Refuse(u64, i16),
    /// Ends the connection instead of answering the n-th batch, which it does not keep.
    HangUp(u64),
    /// Answers each produce request so much later than it came.
    Delay(Duration),
    /// Answers produce requests so much later than they came, in turns.
    Delays(&'static [Duration]),
    /// Offers Produce from version 9 on only.
    Newer,
    /// Stands still from a time after the first produce request on, for a time.
    Freeze(Duration, Duration),
}

/// What the broker saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) largest_batch: u64,
}

#[derive(Debug, Default)]
struct Log {
    end: i64,
    batches: Vec<(i64, Vec<u8>)>,
    next_sequence: HashMap<i64, i32>,
    /// Kept back by `Fault::Swap`.
    held: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    logs: Vec<Log>,
    counts: Counts,
    first_produce: Option<Instant>,
    producer_ids: i64,
    /// How long each request of `Fault::Delays` was really kept back.
    delayed: Vec<Duration>,
}

/// The broker; threads end with their connections.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    address: SocketAddr,
    /// What it calls itself in Metadata.
    advertised: SocketAddr,
    fault: Fault,
    shared: Arc<(Mutex<State>, Condvar)>,
    turns: Arc<AtomicUsize>,
}

const VERSIONS: [(ApiKey, i16, i16); 8] = [
    (ApiKey::Produce, 3, 8),
    (ApiKey::Fetch, 4, 11),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 4, 12),
    (ApiKey::CreateTopics, 2, 6),
    (ApiKey::DeleteTopics, 1, 5),
    (ApiKey::ApiVersions, 0, 0),
    (ApiKey::InitProducerId, 0, 4),
];

impl Fake {
    #[allow(dead_code)]
    pub(crate) fn start(fault: Fault) -> Self {
        Self::advertised_as(None, fault)
    }

    pub(crate) fn advertised_as(advertised: Option<SocketAddr>, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let advertised = advertised.unwrap_or(address);
        let fake =
            Self { address, advertised, fault, shared: Arc::default(), turns: Arc::default() };
        let accepting = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = accepting.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        fake
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    #[allow(dead_code)]
    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Every batch it keeps, with its partition.
    #[allow(dead_code)]
    pub(crate) fn batches(&self) -> Vec<(usize, Vec<u8>)> {
        let state = self.state();
        let logs = state.logs.iter().enumerate();
        logs.flat_map(|(at, log)| log.batches.iter().map(move |(_, b)| (at, b.clone()))).collect()
    }

    /// How long requests were kept back, sorted.
    #[allow(dead_code)]
    pub(crate) fn delayed(&self) -> Vec<Duration> {
        let mut delayed = self.state().delayed.clone();
        delayed.sort_unstable();
        delayed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().expect("no thread panics with it")
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).expect("a socket");
        let mut input = vec![0; 256 << 10];
        let (mut start, mut end) = (0, 0);
        let mut writer = Writer::new();
        loop {
            while let Some(frame) = whole_frame(&input[start..end]) {
                start += 4 + frame.len();
                if self.handle(frame, &mut writer).is_none() {
                    return;
                }
            }
            if stream.write_all(writer.bytes()).is_err() {
                return;
            }
            writer.clear();
            if start == end {
                (start, end) = (0, 0);
            } else if end == input.len() {
                input.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                if end == input.len() {
                    input.resize(end * 2, 0);
                }
            }
            match stream.read(&mut input[end..]) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => end += bytes,
            }
        }
    }

    /// Appends the answer; `None` ends the connection.
    fn handle(&self, frame: &[u8], w: &mut Writer) -> Option<()> {
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let key = ApiKey::try_from(i16::from_be_bytes([frame[0], frame[1]])).ok()?;
        let mut r = Reader::new(frame);
        let header = api::request_header_version(key, version);
        let header = RequestHeader::decode(&mut r, header).ok()?;
        let place = w.bytes().len();
        w.i32(0);
        let answer = ResponseHeader { correlation_id: header.correlation_id, ..Default::default() };
        answer.encode(w, api::response_header_version(key, version)).ok()?;
        match key {
            ApiKey::ApiVersions => self.versions().encode(w, version).ok()?,
            ApiKey::Metadata => self.metadata(decode(&mut r, version)?, w, version)?,
            ApiKey::CreateTopics => self.create(decode(&mut r, version)?, w, version)?,
            ApiKey::DeleteTopics => delete(decode(&mut r, version)?, w, version)?,
            ApiKey::ListOffsets => self.offsets(decode(&mut r, version)?, w, version)?,
            ApiKey::Produce => {
                let request: ProduceRequest<'_> = decode(&mut r, version)?;
                let has_answer = request.acks != 0;
                let answer = self.produce(request)?;
                if !has_answer {
                    // Takes back the header.
                    let kept = w.bytes()[..place].to_vec();
                    w.clear();
                    w.raw(&kept);
                    return Some(());
                }
                answer.encode(w, version).ok()?;
            }
            ApiKey::InitProducerId => {
                let request: InitProducerIdRequest<'_> = decode(&mut r, version)?;
                assert_eq!(request.transactional_id, None, "an empty one is refused by Kafka");
                let mut state = self.state();
                state.producer_ids += 1;
                let producer_id = state.producer_ids;
                let answer = InitProducerIdResponse { producer_id, ..Default::default() };
                answer.encode(w, version).ok()?;
            }
            ApiKey::Fetch => self.fetch(decode(&mut r, version)?, w, version)?,
            _ => return None,
        }
        let size = w.bytes().len() - place - 4;
        w.patch_i32(place, size as i32);
        Some(())
    }

    fn versions(&self) -> ApiVersionsResponse<'static> {
        let offered = VERSIONS.iter().map(|&(key, min_version, max_version)| {
            let newer = if self.fault == Fault::Newer && key == ApiKey::Produce { 6 } else { 0 };
            ApiVersion {
                api_key: key as i16,
                min_version: min_version + newer,
                max_version: max_version + newer,
                ..Default::default()
            }
        });
        ApiVersionsResponse { api_keys: offered.collect(), ..Default::default() }
    }

    fn metadata(&self, request: MetadataRequest<'_>, w: &mut Writer, version: i16) -> Option<()> {
        let count = self.state().logs.len() as i32;
        let topics = request.topics.unwrap_or_default();
        let partitions = (0..count)
            .map(|partition_index| MetadataResponsePartition {
                partition_index,
                leader_id: 1,
                ..Default::default()
            })
            .collect::<Vec<_>>();
        let host = self.advertised.ip().to_string();
        let answer = MetadataResponse {
            brokers: Array::from(vec![MetadataResponseBroker {
                node_id: 1,
                host: &host,
                port: i32::from(self.advertised.port()),
                ..Default::default()
            }]),
            topics: topics
                .iter()
                .map(|topic| MetadataResponseTopic {
                    error_code: if count == 0 { 3 } else { 0 },
                    name: topic.name,
                    partitions: Array::from(&partitions[..]),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        answer.encode(w, version).ok()
    }

    fn create(&self, request: CreateTopicsRequest<'_>, w: &mut Writer, version: i16) -> Option<()> {
        let topic = request.topics.first()?;
        let count = usize::try_from(topic.num_partitions).ok()?;
        self.state().logs.resize_with(count, Log::default);
        let made = CreatableTopicResult { name: topic.name, ..Default::default() };
        let answer = CreateTopicsResponse { topics: Array::from(vec![made]), ..Default::default() };
        answer.encode(w, version).ok()
    }

    fn offsets(&self, request: ListOffsetsRequest<'_>, w: &mut Writer, version: i16) -> Option<()> {
        let state = self.state();
        let topic = request.topics.first()?;
        let partitions = topic
            .partitions
            .iter()
            .map(|asked| ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                offset: match asked.timestamp {
                    -2 => 0,
                    _ => state.logs[asked.partition_index as usize].end,
                },
                ..Default::default()
            })
            .collect::<Vec<_>>();
        let topic = ListOffsetsTopicResponse {
            name: topic.name,
            partitions: Array::from(partitions),
            ..Default::default()
        };
        let answer = ListOffsetsResponse { topics: Array::from(vec![topic]), ..Default::default() };
        answer.encode(w, version).ok()
    }

    fn produce<'a>(&self, request: ProduceRequest<'a>) -> Option<ProduceResponse<'a>> {
        match self.fault {
            Fault::Delay(delay) => std::thread::sleep(delay),
            Fault::Delays(delays) => {
                let came = Instant::now();
                let turn = self.turns.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(delays[turn % delays.len()]);
                self.state().delayed.push(came.elapsed());
            }
            Fault::Freeze(after, length) => {
                let first = *self.state().first_produce.get_or_insert_with(Instant::now);
                if first.elapsed() >= after {
                    std::thread::sleep((after + length).saturating_sub(first.elapsed()));
                }
            }
            _ => {}
        }
        let mut state = self.state();
        state.counts.requests += 1;
        let mut topics = Vec::new();
        for topic in request.topic_data.iter() {
            let mut partitions = Vec::new();
            for data in topic.partition_data.iter() {
                let Some(Records::Bytes(bytes)) = data.records else { return None };
                let error_code = self.append(&mut state, data.index as usize, bytes)?;
                partitions.push(PartitionProduceResponse {
                    index: data.index,
                    error_code,
                    ..Default::default()
                });
            }
            topics.push(TopicProduceResponse {
                name: topic.name,
                partition_responses: Array::from(partitions),
                ..Default::default()
            });
        }
        self.shared.1.notify_all();
        Some(ProduceResponse { responses: Array::from(topics), ..Default::default() })
    }

    /// Returns the error code; `None` ends the connection.
    fn append(&self, state: &mut State, partition: usize, bytes: &[u8]) -> Option<i16> {
        let parsed = batch::validate(bytes).expect("loadgen sends sound batches");
        let records = parsed.header().record_count as u64;
        let place = state.counts.batches;
        state.counts.batches += 1;
        state.counts.records += records;
        state.counts.largest_batch = state.counts.largest_batch.max(records);
        let log = &mut state.logs[partition];
        let header = parsed.header();
        if header.producer_id > 0 {
            let next = log.next_sequence.entry(header.producer_id).or_default();
            assert_eq!(header.base_sequence, *next, "sequences follow one another");
            *next += header.record_count;
        }
        let mut kept = bytes.to_vec();
        match self.fault {
            Fault::Lose(n) if n == place => return Some(0),
            Fault::Refuse(n, code) if n == place => return Some(code),
            Fault::HangUp(n) if n == place => return None,
            Fault::Double(n) if n == place => log.push(kept.clone()),
            Fault::Alter(n) | Fault::AlterBehindCrc(n) if n == place => {
                let last = kept.len() - 5;
                kept[last] ^= 1;
                if matches!(self.fault, Fault::Alter(_)) {
                    batch::patch_crc(&mut kept);
                }
            }
            Fault::Swap(n) if n == place => {
                log.held = Some(kept);
                return Some(0);
            }
            _ => {}
        }
        log.push(kept);
        if let Some(held) = log.held.take() {
            log.push(held);
        }
        Some(0)
    }

    fn fetch(&self, request: FetchRequest<'_>, w: &mut Writer, version: i16) -> Option<()> {
        let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms as u64);
        let topic = request.topics.first()?;
        let mut state = self.state();
        loop {
            let found: Vec<(i32, i64, Vec<u8>)> = topic
                .partitions
                .iter()
                .map(|asked| {
                    let log = &state.logs[asked.partition as usize];
                    let bytes = log.read(asked.fetch_offset, asked.partition_max_bytes as usize);
                    (asked.partition, log.end, bytes)
                })
                .collect();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || found.iter().any(|(_, _, bytes)| !bytes.is_empty()) {
                drop(state);
                let partitions = found
                    .iter()
                    .map(|(partition_index, end, bytes)| PartitionData {
                        partition_index: *partition_index,
                        high_watermark: *end,
                        records: Some(Records::Bytes(bytes)),
                        ..Default::default()
                    })
                    .collect::<Vec<_>>();
                let topic = FetchableTopicResponse {
                    topic: topic.topic,
                    partitions: Array::from(partitions),
                    ..Default::default()
                };
                let answer =
                    FetchResponse { responses: Array::from(vec![topic]), ..Default::default() };
                return answer.encode(w, version).ok();
            }
            let waited = self.shared.1.wait_timeout(state, left);
            state = waited.expect("no thread panics with it").0;
        }
    }
}

impl Log {
    fn push(&mut self, mut bytes: Vec<u8>) {
        let header = batch::BatchHeader::parse(&bytes).expect("it was validated");
        batch::patch_base_offset(&mut bytes, self.end);
        self.batches.push((self.end, bytes));
        self.end += i64::from(header.record_count);
    }

    fn read(&self, offset: i64, bytes_max: usize) -> Vec<u8> {
        let after = self.batches.partition_point(|(base, _)| *base <= offset);
        let mut found = Vec::new();
        if offset < self.end {
            for (_, bytes) in &self.batches[after.saturating_sub(1)..] {
                if !found.is_empty() && found.len() + bytes.len() > bytes_max {
                    break;
                }
                found.extend_from_slice(bytes);
            }
        }
        found
    }
}

fn whole_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(..i32::from_be_bytes(*size) as usize)
}

fn decode<'a, M: Message<'a>>(r: &mut Reader<'a>, version: i16) -> Option<M> {
    M::decode(r, version).ok()
}

fn delete(request: DeleteTopicsRequest<'_>, w: &mut Writer, version: i16) -> Option<()> {
    let gone = DeletableTopicResult { name: request.topic_names.first(), ..Default::default() };
    let answer = DeleteTopicsResponse { responses: Array::from(vec![gone]), ..Default::default() };
    answer.encode(w, version).ok()
}
