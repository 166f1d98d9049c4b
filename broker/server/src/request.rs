//! One request on its way through the broker, and the reply made for it.

use std::net::SocketAddr;

use bytes::Bytes;
use millrace_io::{ChunkSlice, Io};
use millrace_log::FileRange;
use millrace_wire::api::{self, ApiKey};
use millrace_wire::messages::RequestHeader;
use millrace_wire::{DecodeError, Message, Reader, Writer};

use crate::connection::ConnectionId;

/// Names a request for as long as its reply is owed: which shard holds the connection, which
/// connection, and the place in its order of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RequestId {
    pub(crate) shard: usize,
    pub(crate) connection: ConnectionId,
    pub(crate) sequence: u64,
}

/// What is needed to encode a reply, after the request's bytes are gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead {
    pub(crate) id: RequestId,
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// Index of the listener the client came in on: its advertised address is the one to answer.
    pub(crate) listener: usize,
    /// The client's address.
    pub(crate) peer: SocketAddr,
}

/// A request with its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    /// The whole frame without its length.
    pub(crate) frame: Bytes,
    body_start: usize,
}

/// Why a frame cannot be served: the connection is closed, as Apache Kafka does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("unknown API key {0}")]
    UnknownKey(i16),
    #[error("{} version {version} is not supported", .key.name())]
    UnsupportedVersion { key: ApiKey, version: i16 },
    #[error("malformed request: {0}")]
    Body(#[from] DecodeError),
    #[error("a frame of {0} bytes is too short for a request header")]
    TooShort(usize),
}

impl Request {
    /// Reads the header of a frame.
    pub(crate) fn parse(
        frame: Bytes,
        id: RequestId,
        listener: usize,
        peer: SocketAddr,
    ) -> Result<Self, Malformed> {
        let [k0, k1, v0, v1, ..] = frame[..] else {
            return Err(Malformed::TooShort(frame.len()));
        };
        let raw_key = i16::from_be_bytes([k0, k1]);
        let version = i16::from_be_bytes([v0, v1]);
        let key = ApiKey::try_from(raw_key).map_err(|_| Malformed::UnknownKey(raw_key))?;
        // ApiVersions of any version is answered (KIP-511): its header is read as far as it goes.
        let supported = crate::handlers::versions(key).contains(&version);
        if !supported && key != ApiKey::ApiVersions {
            return Err(Malformed::UnsupportedVersion { key, version });
        }
        let header_version = if supported { api::request_header_version(key, version) } else { 1 };
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader, header_version)?;
        let body_start = frame.len() - reader.remaining();
        let correlation_id = header.correlation_id;
        let head = RequestHead { id, key, version, correlation_id, listener, peer };
        Ok(Self { head, body_start, frame })
    }

    /// The bytes after the header.
    pub(crate) fn body(&self) -> &[u8] {
        &self.frame[self.body_start..]
    }

    /// Decodes the body, which must be of the type that belongs to the request's key.
    pub(crate) fn decode<'a, M: Message<'a>>(&'a self) -> Result<M, Malformed> {
        let mut reader = Reader::new(self.body());
        Ok(M::decode(&mut reader, self.head.version)?)
    }

    /// The client's name for itself, empty when it gave none or it is not text.
    pub(crate) fn client_id(&self) -> &str {
        // Offset 8 in every header version from 1 on: a classic nullable string.
        let Some([l0, l1]) = self.frame.get(8..10) else { return "" };
        let length = i16::from_be_bytes([*l0, *l1]);
        let Ok(length) = usize::try_from(length) else { return "" };
        self.frame.get(10..10 + length).and_then(|id| std::str::from_utf8(id).ok()).unwrap_or("")
    }

    /// The same request with its bytes copied, so that waiting does not hold a receive buffer.
    pub(crate) fn detach(&self) -> Self {
        Self { frame: Bytes::copy_from_slice(&self.frame), ..self.clone() }
    }

    /// The part of the frame that `part`, a slice of it, covers, sharing the bytes.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        self.frame.slice_ref(part)
    }
}

/// Bytes of a reply that are not copied into it.
pub(crate) enum Payload<I: Io> {
    Memory(ChunkSlice),
    File(FileRange<I::File>),
}

impl<I: Io> Payload<I> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(slice) => slice.len(),
            Self::File(range) => range.bytes,
        }
    }
}

/// A framed reply: its own bytes, and payloads spliced in at rising positions of them.
pub(crate) struct Reply<I: Io> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) payloads: Vec<(usize, Payload<I>)>,
}

/// What a handler decided.
pub(crate) enum Outcome<I: Io> {
    /// Answer now.
    Reply(Reply<I>),
    /// No byte is owed (acks=0).
    NoReply,
    /// The answer comes later, through `Shard::reply`.
    Wait,
    /// Another shard serves this request.
    Forward(usize),
    /// The protocol has no place for this error: close the connection.
    Close(String),
}

impl<I: Io> From<Malformed> for Outcome<I> {
    fn from(malformed: Malformed) -> Self {
        Self::Close(malformed.to_string())
    }
}

impl RequestHead {
    /// A writer that holds the frame's length (still 0) and the response header.
    pub(crate) fn start_reply(&self) -> Writer {
        let mut writer = Writer::new();
        writer.i32(0);
        writer.i32(self.correlation_id);
        if api::response_header_version(self.key, self.version) >= 1 {
            writer.u8(0);
        }
        writer
    }

    /// The framed reply with this body.
    pub(crate) fn reply<'a, I: Io, M: Message<'a>>(&self, body: &M) -> Reply<I> {
        let mut writer = self.start_reply();
        body.encode(&mut writer, self.version)
            .expect("handlers set only fields that the version has or may drop");
        finish_reply(writer, Vec::new())
    }
}

/// Sets the length of a reply begun with [`RequestHead::start_reply`] and places its payloads,
/// which belong to the writer's splices in order.
pub(crate) fn finish_reply<I: Io>(writer: Writer, payloads: Vec<Payload<I>>) -> Reply<I> {
    let splices = writer.splices();
    debug_assert_eq!(splices.iter().map(|s| s.bytes).sum::<usize>(), total(&payloads));
    let mut placed = Vec::with_capacity(payloads.len());
    let mut payloads = payloads.into_iter();
    for splice in splices {
        let mut missing = splice.bytes;
        while missing > 0 {
            let payload = payloads.next().expect("as many payload bytes as splices announce");
            missing -= payload.len();
            placed.push((splice.position, payload));
        }
    }
    let mut bytes = writer.into_vec();
    let length = bytes.len() - 4 + placed.iter().map(|(_, p)| p.len()).sum::<usize>();
    let length = i32::try_from(length).expect("replies are bounded far below 2 GiB");
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Reply { bytes, payloads: placed }
}

fn total<I: Io>(payloads: &[Payload<I>]) -> usize {
    payloads.iter().map(Payload::len).sum()
}
