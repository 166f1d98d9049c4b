//! Batches as message sets, for clients that fetch with versions 0 to 3. Not on the path of others.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::batch::{self, BatchError};
use millrace_wire::compression::CompressionError;
use millrace_wire::message_set;

use crate::fetch::{Fetch, PartRead};
use crate::limits;
use crate::request::Payload;
use crate::shard::Shard;

/// The records of each part of a fetch in the format of its version: magic 0 for 0 and 1, magic 1
/// for 2 and 3. Up to version 2 the client's limit is hard: a set is cut, and the client that finds
/// no whole message in it says that its limit is too small.
pub(crate) fn convert<I: Io>(
    shard: &mut Shard<I>,
    fetch: &Fetch<I>,
) -> Vec<Result<Vec<u8>, ErrorCode>> {
    let version = fetch.head.version;
    let magic = i8::from(version >= 2);
    let parts = fetch.parts.iter().zip(&fetch.reads);
    parts
        .map(|(part, read)| {
            let Some(read) = read else { return Ok(Vec::new()) };
            let mut set = convert_part(shard, read, magic, part.read.offset)?;
            if version <= 2 {
                set.truncate(part.read.bytes_max);
            }
            Ok(set)
        })
        .collect()
}

fn convert_part<I: Io>(
    shard: &mut Shard<I>,
    read: &PartRead<I>,
    magic: i8,
    from: i64,
) -> Result<Vec<u8>, ErrorCode> {
    let mut bytes = Vec::new();
    for payload in &read.payloads {
        match payload {
            Payload::Memory(slice) => bytes.extend_from_slice(slice),
            Payload::File(range) => {
                let start = bytes.len();
                bytes.resize(start + range.bytes, 0);
                let read = shard.io.read_at(&range.file, range.position, &mut bytes[start..]);
                read.map_err(|_| ErrorCode::KAFKA_STORAGE_ERROR)?;
            }
        }
    }
    let mut set = Vec::new();
    for batch in batch::batches(&bytes) {
        let batch = batch.map_err(|_| ErrorCode::CORRUPT_MESSAGE)?;
        let (scratch, bytes_max) = (&mut shard.scratch, limits::DECOMPRESSED_BYTES);
        let converted = message_set::write_batch(&batch, magic, from, scratch, bytes_max, &mut set);
        match converted {
            Ok(()) => {}
            // What comes before a zstd batch can be read; then the client is told.
            Err(BatchError::Compression(CompressionError::Unknown(_))) if set.is_empty() => {
                return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
            }
            Err(BatchError::Compression(CompressionError::Unknown(_))) => break,
            Err(_) => return Err(ErrorCode::CORRUPT_MESSAGE),
        }
    }
    Ok(set)
}
