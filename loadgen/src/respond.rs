//! `loadgen respond`: a broker that acknowledges everything, at once or after a known time, and
//! keeps nothing. What a load generator does against it is what the load generator can do.
//!
//! One thread a connection. Produce requests are walked through field by field and their records
//! thrown away in the kernel, so that receiving costs less than sending. Every topic exists.

use crate::args::RespondArgs;
use millrace_wire::messages::api_versions_response::ApiVersion;
use millrace_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use millrace_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use millrace_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use millrace_wire::messages::{
    ApiVersionsResponse, FetchRequest, FetchResponse, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader,
};
use millrace_wire::{ApiKey, Array, ErrorCode, Message, Reader, Records, Writer, api};
use rustix::net::{RecvFlags, recv};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

/// What it speaks. Produce as far as its layout stays the same.
const VERSIONS: [(ApiKey, i16, i16); 6] = [
    (ApiKey::Produce, 3, 8),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 4, 12),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::InitProducerId, 0, 4),
];
const NODE: i32 = 1;
const INPUT_BYTES: usize = 256 << 10;
/// Shorter remainders are copied with what follows them: a system call of their own costs more.
const SKIP_BYTES_MIN: usize = 32 << 10;
const FRAME_BYTES_MAX: usize = 1 << 30;

/// What every connection is told.
#[derive(Clone, Copy, Debug)]
struct Facts {
    address: SocketAddr,
    partitions: i32,
    delay: Duration,
}

/// Listens, tells `announce` the address, and serves until the program ends.
pub fn respond(args: &RespondArgs, announce: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let listener = TcpListener::bind(&args.listen)?;
    let address = listener.local_addr()?;
    announce(address);
    let partitions = i32::try_from(args.partitions).unwrap_or(i32::MAX);
    let facts = Facts { address, partitions, delay: args.delay };
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A peer that goes away, or speaks something else, ends its connection only.
            let _ = stream.set_nodelay(true).and_then(|()| serve(stream, facts));
        });
    }
    Ok(())
}

fn serve(stream: TcpStream, facts: Facts) -> io::Result<()> {
    let mut peer = Peer {
        stream,
        input: vec![0; INPUT_BYTES],
        start: 0,
        end: 0,
        answer: Vec::new(),
        out: Vec::new(),
        delay: facts.delay,
    };
    loop {
        let bytes = usize::try_from(peer.i32()?).ok().filter(|&bytes| bytes <= FRAME_BYTES_MAX);
        let bytes = bytes.and_then(|bytes| bytes.checked_sub(4)).ok_or(ErrorKind::InvalidData)?;
        let (key, version) = (peer.i16()?, peer.i16()?);
        peer.answer.clear();
        if key == ApiKey::Produce as i16 && (3..=8).contains(&version) {
            if peer.produce(version)? {
                continue;
            }
        } else {
            if key == ApiKey::Fetch as i16 {
                // Nothing ever comes: who fetches waits.
                thread::sleep(Duration::from_millis(100));
            }
            let head = [key.to_be_bytes(), version.to_be_bytes()].concat();
            let frame = [&head, peer.take(bytes)?].concat();
            let answer = answer(&frame, key, version, facts).ok_or(ErrorKind::InvalidData)?;
            peer.answer.extend_from_slice(&answer);
        }
        let bytes = i32::try_from(peer.answer.len()).map_err(|_| ErrorKind::InvalidData)?;
        peer.out.extend_from_slice(&bytes.to_be_bytes());
        peer.out.extend_from_slice(&peer.answer);
    }
}

/// A connection, read field by field; answers collect until there is nothing left to read.
struct Peer {
    stream: TcpStream,
    /// Invariant: `start <= end <= input.len()`; unread input lies between them.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The answer at hand, without its size.
    answer: Vec<u8>,
    /// Whole answers that have not left.
    out: Vec<u8>,
    delay: Duration,
}

impl Peer {
    /// The next bytes.
    fn take(&mut self, bytes: usize) -> io::Result<&[u8]> {
        if self.end - self.start < bytes {
            self.fill(bytes)?;
        }
        self.start += bytes;
        Ok(&self.input[self.start - bytes..self.start])
    }

    #[cold]
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.input.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.input.len() < bytes {
            self.input.resize(bytes, 0);
        }
        self.flush()?;
        while self.end < bytes {
            match self.stream.read(&mut self.input[self.end..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                more => self.end += more,
            }
        }
        Ok(())
    }

    /// Passes over bytes; most of those that have not been received yet are never copied.
    fn skip(&mut self, bytes: usize) -> io::Result<()> {
        let here = bytes.min(self.end - self.start);
        self.start += here;
        let mut left = bytes - here;
        if left >= SKIP_BYTES_MIN {
            self.flush()?;
        }
        while left >= SKIP_BYTES_MIN {
            // The kernel drops the bytes instead of writing them there.
            let room = left.min(INPUT_BYTES);
            let (_, more) = recv(&self.stream, &mut self.input[..room], RecvFlags::TRUNC)?;
            if more == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= more;
        }
        self.take(left).map(|_| ())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            thread::sleep(self.delay);
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    fn i16(&mut self) -> io::Result<i16> {
        self.take(2).map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn i32(&mut self) -> io::Result<i32> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes(*bytes.first_chunk().expect("4 were asked for")))
    }

    /// Passes over a string, null or not.
    fn skip_text(&mut self) -> io::Result<()> {
        let bytes = usize::try_from(self.i16()?).unwrap_or(0);
        self.take(bytes).map(|_| ())
    }

    /// The next bytes, also put into the answer.
    fn echo(&mut self, bytes: usize) -> io::Result<()> {
        self.take(bytes)?;
        self.answer.extend_from_slice(&self.input[self.start - bytes..self.start]);
        Ok(())
    }

    /// Walks through a produce request of version 3 to 8, and makes its answer. Returns whether
    /// none is wanted.
    fn produce(&mut self, version: i16) -> io::Result<bool> {
        // Correlation id; client id, transactional id.
        self.echo(4)?;
        self.skip_text()?;
        self.skip_text()?;
        let acks = self.i16()?;
        self.take(4)?;
        for _ in 0..self.echo_i32()? {
            let name_bytes = self.i16()?;
            self.answer.extend_from_slice(&name_bytes.to_be_bytes());
            self.echo(usize::try_from(name_bytes).map_err(|_| ErrorKind::InvalidData)?)?;
            for _ in 0..self.echo_i32()? {
                self.echo(4)?;
                let records = usize::try_from(self.i32()?).unwrap_or(0);
                self.skip(records)?;
                // No error, offset 0, no append time, log start offset 0, no faulty records.
                self.answer.extend_from_slice(&[0; 10]);
                self.answer.extend_from_slice(&[0xff; 8]);
                self.answer.extend_from_slice(if version >= 5 { &[0; 8] } else { &[] });
                let faults: &[u8] = if version >= 8 { &[0, 0, 0, 0, 0xff, 0xff] } else { &[] };
                self.answer.extend_from_slice(faults);
            }
        }
        // Not throttled.
        self.answer.extend_from_slice(&[0; 4]);
        Ok(acks == 0)
    }

    fn echo_i32(&mut self) -> io::Result<i32> {
        let value = self.i32()?;
        self.answer.extend_from_slice(&value.to_be_bytes());
        Ok(value)
    }
}

/// The answer to anything but Produce, by the codec; `None` for what we do not speak.
fn answer(frame: &[u8], key: i16, version: i16, facts: Facts) -> Option<Vec<u8>> {
    let key = ApiKey::try_from(key).ok()?;
    let mut reader = Reader::new(frame);
    let r = &mut reader;
    let header = RequestHeader::decode(r, api::request_header_version(key, version)).ok()?;
    let mut w = Writer::new();
    let head = ResponseHeader { correlation_id: header.correlation_id, ..Default::default() };
    head.encode(&mut w, api::response_header_version(key, version)).ok()?;
    match key {
        ApiKey::ApiVersions => versions(version, &mut w),
        ApiKey::Metadata => {
            let asked = MetadataRequest::decode(r, version).ok()?.topics;
            let names = asked.into_iter().flat_map(Array::into_vec).map(|topic| topic.name);
            metadata(names.collect(), facts, &mut w, version)
        }
        ApiKey::ListOffsets => {
            offsets(ListOffsetsRequest::decode(r, version).ok()?, version, &mut w)
        }
        ApiKey::Fetch => nothing(FetchRequest::decode(r, version).ok()?, version, &mut w),
        ApiKey::InitProducerId => {
            static NEXT: AtomicI64 = AtomicI64::new(1);
            let producer_id = NEXT.fetch_add(1, Ordering::Relaxed);
            InitProducerIdResponse { producer_id, ..Default::default() }
                .encode(&mut w, version)
                .ok()
        }
        _ => None,
    }?;
    Some(w.into_vec())
}

fn versions(version: i16, w: &mut Writer) -> Option<()> {
    let offered = VERSIONS.map(|(key, min_version, max_version)| ApiVersion {
        api_key: key as i16,
        min_version,
        max_version,
        ..Default::default()
    });
    // Who asks in a version that we do not know is told in the first one which we do.
    let is_known = version <= 3;
    let code = if is_known { ErrorCode::NONE } else { ErrorCode::UNSUPPORTED_VERSION };
    let api_keys = Array::from(offered.to_vec());
    let answer = ApiVersionsResponse { error_code: code.code(), api_keys, ..Default::default() };
    answer.encode(w, if is_known { version } else { 0 }).ok()
}

fn metadata(names: Vec<Option<&str>>, facts: Facts, w: &mut Writer, version: i16) -> Option<()> {
    let host = facts.address.ip().to_string();
    let port = i32::from(facts.address.port());
    let broker = MetadataResponseBroker { node_id: NODE, host: &host, port, ..Default::default() };
    let partitions: Vec<_> = (0..facts.partitions)
        .map(|partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: NODE,
            replica_nodes: vec![NODE].into(),
            isr_nodes: vec![NODE].into(),
            ..Default::default()
        })
        .collect();
    let topics = names.into_iter().map(|name| MetadataResponseTopic {
        name,
        partitions: Array::from(&partitions[..]),
        ..Default::default()
    });
    let answer = MetadataResponse {
        brokers: vec![broker].into(),
        cluster_id: Some("responder"),
        controller_id: NODE,
        topics: topics.collect(),
        ..Default::default()
    };
    answer.encode(w, version).ok()
}

fn offsets(request: ListOffsetsRequest<'_>, version: i16, w: &mut Writer) -> Option<()> {
    let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|asked| ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                offset: 0,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    ListOffsetsResponse { topics: topics.collect(), ..Default::default() }.encode(w, version).ok()
}

fn nothing(request: FetchRequest<'_>, version: i16, w: &mut Writer) -> Option<()> {
    let topics = request.topics.iter().map(|topic| FetchableTopicResponse {
        topic: topic.topic,
        partitions: topic
            .partitions
            .iter()
            .map(|asked| PartitionData {
                partition_index: asked.partition,
                records: Some(Records::Bytes(&[])),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    });
    FetchResponse { responses: topics.collect(), ..Default::default() }.encode(w, version).ok()
}
