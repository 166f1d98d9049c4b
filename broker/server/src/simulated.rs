//! A broker of one shard on a simulated machine: tests of what failures, time and clients that
//! vanish leave behind in it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use millrace_io::sim::{Operation, SimClient, SimIo, SimWorld};
use millrace_wire::batch::{BatchBuilder, BatchOptions, without_records};
use millrace_wire::messages::create_topics_request::CreatableTopic;
use millrace_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use millrace_wire::messages::join_group_request::JoinGroupRequestProtocol;
use millrace_wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use millrace_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use millrace_wire::messages::{
    CreateTopicsRequest, DescribeGroupsRequest, DescribeGroupsResponse, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, OffsetFetchRequest,
    OffsetFetchResponse, ProduceRequest, ProduceResponse, RequestHeader,
};
use millrace_wire::{ErrorCode, Message, Reader, Records, Request, Writer, api};

use crate::background::Background;
use crate::config::Config;
use crate::groups::OFFSETS_TOPIC;
use crate::limits;
use crate::mailbox::{WakerSlot, mesh};
use crate::metadata::data_dir::DataDir;
use crate::partitions::PartitionId;
use crate::produce::Incoming;
use crate::shard::Shard;
use crate::shared::Shared;
use crate::timers::Timer;

const CHECKPOINT: &str = "/data/recovery-point-offset-checkpoint";
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 9092);
/// A topic of one partition.
pub(crate) const TOPIC: &str = "orders";

/// The machine and the broker on it.
pub(crate) struct Bench {
    world: SimWorld,
    pub(crate) shard: Shard<SimIo>,
    background: Background<SimIo>,
}

impl Bench {
    /// A broker with [`TOPIC`].
    pub(crate) fn start() -> Self {
        let mut bench = Self::start_on(SimWorld::new(1));
        let mut client = bench.connect();
        bench.make_topic(&mut client);
        bench
    }

    fn start_on(world: SimWorld) -> Self {
        // So that clients are never slower than the disk.
        world.set_socket_buffer_bytes(100 << 20);
        let config = Config::of([("offsets.topic.num.partitions", "1")]).expect("a good value");
        let shared = Arc::new(Shared::new(config, &DataDir::simulated(), 1));
        let wakers: Vec<WakerSlot> = (0..2).map(|_| WakerSlot::default()).collect();
        let mut mailboxes = mesh(&wakers, limits::MAILBOX_MESSAGES).into_iter();
        let mut mailbox = || mailboxes.next().expect("one of the shard, one of the background");
        let mut shard = Shard::new(0, world.make_io(), shared, mailbox());
        let listener = ("PLAINTEXT".to_owned(), SocketAddr::from(ADDRESS));
        shard.begin(&[listener]).expect("the disk is sound");
        shard.schedule();
        let background = Background::new(world.make_io(), Arc::default(), mailbox());
        Self { world, shard, background }
    }

    fn make_topic(&mut self, client: &mut SimClient) {
        let topic = CreatableTopic {
            name: TOPIC,
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        };
        let topics = vec![topic].into();
        self.ask(client, 4, &CreateTopicsRequest { topics, timeout_ms: 1, ..Default::default() });
    }

    fn make_offsets_topic(&mut self, client: &mut SimClient) {
        self.ask(client, 1, &FindCoordinatorRequest { key: "group", ..Default::default() });
    }

    fn connect(&self) -> SimClient {
        self.world.connect(SocketAddr::from(ADDRESS)).expect("it listens")
    }

    /// Lets the broker take some turns.
    fn turn(&mut self) {
        for _ in 0..8 {
            self.shard.turn().expect("the simulation waits");
            self.background.turn(false).expect("the simulation waits");
        }
    }

    /// The body of the answer to a request.
    fn ask<'a, M: Request<'a>>(
        &mut self,
        client: &mut SimClient,
        version: i16,
        body: &M,
    ) -> Vec<u8> {
        self.send(client, &[frame(version, body)]);
        self.answer(client)
    }

    /// Sends frames as fast as the broker takes them.
    fn send(&mut self, client: &mut SimClient, frames: &[Vec<u8>]) {
        let bytes = frames.concat();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match client.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.turn(),
                Err(error) => panic!("the broker is gone: {error}"),
            }
        }
    }

    /// The next answer, without its length and header.
    fn answer(&mut self, client: &mut SimClient) -> Vec<u8> {
        let size = self.receive(client, 4);
        let size = i32::from_be_bytes(size.try_into().expect("four bytes"));
        let answer = self.receive(client, usize::try_from(size).expect("a length"));
        answer[4..].to_vec()
    }

    fn receive(&mut self, client: &mut SimClient, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        for _ in 0..10_000 {
            if filled == count {
                return bytes;
            }
            match client.read(&mut bytes[filled..]) {
                Ok(0) => panic!("the broker closed the connection"),
                Ok(more) => filled += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.turn(),
                Err(error) => panic!("the broker is gone: {error}"),
            }
        }
        panic!("no answer in 10,000 turns");
    }

    /// Error and base offset of the next answer to a [`produce`].
    fn produced(&mut self, client: &mut SimClient) -> (i16, i64) {
        let answer = self.answer(client);
        let answer = ProduceResponse::decode(&mut Reader::new(&answer), 3).expect("its answer");
        let topic = answer.responses.iter().next().expect("one topic");
        let part = topic.partition_responses.iter().next().expect("one partition");
        (part.error_code, part.base_offset)
    }

    fn timers(&self, is_meant: fn(&Timer) -> bool) -> usize {
        self.shard.timers.count(is_meant)
    }
}

fn frame<'a, M: Request<'a>>(version: i16, body: &M) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.i32(0);
    let key = api::ApiKey::try_from(M::API_KEY).expect("a request's key");
    let header = RequestHeader {
        request_api_key: M::API_KEY,
        request_api_version: version,
        correlation_id: 7,
        client_id: Some("bench"),
        ..Default::default()
    };
    header.encode(&mut writer, api::request_header_version(key, version)).expect("a header");
    body.encode(&mut writer, version).expect("of this version");
    let mut bytes = writer.into_vec();
    let length = i32::try_from(bytes.len() - 4).expect("not that large");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A batch with a record of this size, of an idempotent producer if it has a sequence.
fn batch(sequence: Option<i32>, bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.append(1_000, Some(b"key"), Some(&vec![7; bytes]), &[]);
    let options = match sequence {
        Some(base_sequence) => BatchOptions {
            producer_id: 5,
            producer_epoch: 0,
            base_sequence,
            ..BatchOptions::default()
        },
        None => BatchOptions::default(),
    };
    builder.finish(&options).expect("plain records need no codec").to_vec()
}

/// A request with such a batch.
fn produce(acks: i16, sequence: Option<i32>, bytes: usize) -> Vec<u8> {
    let batch = batch(sequence, bytes);
    let part = PartitionProduceData {
        index: 0,
        records: Some(Records::Bytes(&batch)),
        ..Default::default()
    };
    let topic =
        TopicProduceData { name: TOPIC, partition_data: vec![part].into(), ..Default::default() };
    let request = ProduceRequest {
        acks,
        timeout_ms: 1,
        topic_data: vec![topic].into(),
        ..Default::default()
    };
    frame(3, &request)
}

/// Waits for a record for as long as the protocol knows to say.
fn long_fetch(fetch_offset: i64) -> Vec<u8> {
    let part = FetchPartition {
        partition: 0,
        fetch_offset,
        partition_max_bytes: 1_000,
        ..Default::default()
    };
    let topic = FetchTopic { topic: TOPIC, partitions: vec![part].into(), ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: i32::MAX,
        min_bytes: 1,
        max_bytes: 1_000,
        topics: vec![topic].into(),
        ..Default::default()
    };
    frame(4, &request)
}

#[test]
fn a_batch_that_comes_again_is_answered_with_the_first() {
    let mut bench = Bench::start();
    let mut client = bench.connect();
    let frames = [Some(0), Some(1), Some(2), Some(0), Some(1)].map(|at| produce(-1, at, 10));
    bench.send(&mut client, &frames);
    let answers: Vec<_> = frames.iter().map(|_| bench.produced(&mut client)).collect();
    assert_eq!(answers, [(0, 0), (0, 1), (0, 2), (0, 0), (0, 1)]);
}

#[test]
fn a_partition_that_stopped_keeps_nobody_waiting() {
    let mut bench = Bench::start();
    let mut client = bench.connect();
    bench.send(&mut client, &[produce(1, Some(0), 10)]);
    assert_eq!(bench.produced(&mut client), (0, 0));
    bench.world.fail_next(Operation::Write, TOPIC, 5);
    let frames: Vec<_> = (1..60).map(|at| produce(1, Some(at), 1_000_000)).collect();
    bench.send(&mut client, &frames);
    let failed = (ErrorCode::KAFKA_STORAGE_ERROR.code(), -1);
    let answers: Vec<_> = frames.iter().map(|_| bench.produced(&mut client)).collect();
    assert_eq!(answers, vec![failed; frames.len()]);
    // The producer tries again, what the partition has a memory of.
    bench.send(&mut client, &frames[..1]);
    assert_eq!(bench.produced(&mut client), failed);
    assert_eq!(bench.shard.unwritten_bytes, 0, "nothing of it will be written");
}

#[test]
fn a_partition_that_found_no_descriptor_is_opened_later() {
    const EMFILE: i32 = 24;
    let mut bench = Bench::start();
    let mut client = bench.connect();
    bench.world.fail_next(Operation::Write, TOPIC, EMFILE);
    let failed = (ErrorCode::KAFKA_STORAGE_ERROR.code(), -1);
    for expected in [failed, (0, 0)] {
        bench.send(&mut client, &[produce(-1, None, 10)]);
        assert_eq!(bench.produced(&mut client), expected);
    }
}

#[test]
fn a_group_named_again_and_again_is_described_once() {
    let mut bench = Bench::start();
    let mut client = bench.connect();
    bench.make_offsets_topic(&mut client);
    let groups = vec!["a", "b", "a"].into();
    let body = DescribeGroupsRequest { groups, ..Default::default() };
    let answer = bench.ask(&mut client, 0, &body);
    let answer = DescribeGroupsResponse::decode(&mut Reader::new(&answer), 0).expect("its answer");
    let errors: Vec<i16> = answer.groups.iter().map(|group| group.error_code).collect();
    assert_eq!(errors, [0, 0, ErrorCode::INVALID_REQUEST.code()]);
    let group = |group_id| OffsetFetchRequestGroup { group_id, ..Default::default() };
    let groups = vec![group("a"), group("a"), group("b")].into();
    let body = OffsetFetchRequest { groups, ..Default::default() };
    let answer = bench.ask(&mut client, 8, &body);
    // Behind the tagged fields of the header.
    let answer =
        OffsetFetchResponse::decode(&mut Reader::new(&answer[1..]), 8).expect("its answer");
    let errors: Vec<i16> = answer.groups.iter().map(|group| group.error_code).collect();
    assert_eq!(errors, [0, ErrorCode::INVALID_REQUEST.code(), 0]);
}

#[test]
fn a_topic_deleted_while_it_is_written_counts_no_more() {
    let mut bench = Bench::start();
    let topic_id = bench.shard.image.topic(TOPIC).expect("made at the start").id;
    let id = PartitionId { topic_id, partition: 0 };
    let batch = batch(None, 1_000);
    bench.shard.append(id, Incoming::Whole(&batch), None, |_| unreachable!("nobody waits"));
    assert!(bench.shard.unwritten_bytes > 0);
    bench.shard.take_over(&Arc::default());
    assert_eq!(bench.shard.unwritten_bytes, 0);
}

#[test]
fn fetches_that_are_over_leave_no_timers() {
    let mut bench = Bench::start();
    let (mut reader, mut writer) = (bench.connect(), bench.connect());
    for offset in 0..20 {
        bench.send(&mut reader, &[long_fetch(offset)]);
        bench.turn();
        assert_eq!(bench.timers(|timer| matches!(timer, Timer::Fetch(_))), 1, "it waits");
        bench.send(&mut writer, &[produce(1, None, 10)]);
        bench.answer(&mut reader);
    }
    assert_eq!(bench.timers(|timer| matches!(timer, Timer::Fetch(_))), 0);
}

#[test]
fn groups_that_come_and_go_leave_one_timer() {
    let mut bench = Bench::start();
    let mut client = bench.connect();
    bench.make_offsets_topic(&mut client);
    for number in 0..20 {
        let mut client = bench.connect();
        let group = format!("group-{number}");
        let protocol = JoinGroupRequestProtocol { name: "range", ..Default::default() };
        let request = JoinGroupRequest {
            group_id: &group,
            // Each is due before all others.
            session_timeout_ms: 40_000 - number * 1_000,
            rebalance_timeout_ms: 40_000 - number * 1_000,
            protocol_type: "consumer",
            protocols: vec![protocol].into(),
            ..Default::default()
        };
        bench.send(&mut client, &[frame(3, &request)]);
        bench.turn();
    }
    assert_eq!(bench.timers(|timer| *timer == Timer::Groups), 1);
    for _ in 0..10 {
        bench.world.advance_ms(5_000);
        bench.turn();
    }
    assert_eq!(bench.timers(|timer| *timer == Timer::Groups), 1);
    assert!(bench.timers(|timer| *timer == Timer::Housekeeping) <= 1);
}

#[test]
fn groups_are_loaded_when_compaction_left_no_record_of_them() {
    let mut bench = Bench::start();
    let mut client = bench.connect();
    bench.make_offsets_topic(&mut client);
    let topic_id = bench.shard.image.topic(OFFSETS_TOPIC).expect("made for the first who asks").id;
    let id = PartitionId { topic_id, partition: 0 };
    let cleaned = without_records(&batch(None, 10));
    bench.shard.append(id, Incoming::Whole(&cleaned), None, |_| unreachable!("nobody waits"));
    bench.turn();
    let mut bench = Bench::start_on(bench.world.kill(2));
    let mut client = bench.connect();
    let beat = HeartbeatRequest { group_id: "group", member_id: "m", ..Default::default() };
    let answer = bench.ask(&mut client, 0, &beat);
    assert_eq!(answer, ErrorCode::UNKNOWN_MEMBER_ID.code().to_be_bytes());
}

#[test]
fn a_client_that_is_gone_is_not_waited_for() {
    let mut bench = Bench::start();
    let mut clients: Vec<SimClient> = (0..4).map(|_| bench.connect()).collect();
    for client in &mut clients {
        bench.send(client, &[long_fetch(0)]);
    }
    bench.turn();
    assert_eq!(bench.timers(|timer| matches!(timer, Timer::Fetch(_))), 4);
    drop(clients);
    bench.turn();
    assert_eq!(bench.timers(|timer| matches!(timer, Timer::Fetch(_))), 0);
    assert!(bench.shard.by_socket.is_empty());
}

#[test]
fn a_topic_made_again_is_not_taken_for_flushed_after_a_crash() {
    let mut bench = Bench::start();
    let mut client = bench.connect();
    bench.send(&mut client, &[produce(-1, None, 10), produce(-1, None, 10)]);
    assert_eq!([bench.produced(&mut client), bench.produced(&mut client)], [(0, 0), (0, 1)]);
    let is_known = |bench: &Bench| {
        bench.world.content(Path::new(CHECKPOINT)).is_ok_and(|text| text.ends_with(b" 0 2\n"))
    };
    while !is_known(&bench) {
        bench.turn();
    }
    let image = Arc::clone(&bench.shard.image);
    let topic_id = image.topic(TOPIC).expect("made at the start").id;
    bench.shard.take_over(&Arc::default());
    bench.shard.take_over(&image);
    bench.shard.open_partition(PartitionId { topic_id, partition: 0 }).expect("a sound disk");
    assert!(!is_known(&bench), "a crash from now on finds nothing of the old one");
}
