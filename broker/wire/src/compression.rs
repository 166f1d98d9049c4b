//! The compressions of record batches and wrapper messages; decompression is bounded by the caller.

use std::io::{self, Read, Write};

use thiserror::Error;
use twox_hash::XxHash32;

/// How the records of a batch are compressed: bits 0 to 2 of its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i8)]
pub enum Compression {
    /// As they are.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Written in the frames of xerial's Java library; read so, or as one raw block (librdkafka).
    Snappy = 2,
    /// Frames with independent blocks.
    Lz4 = 3,
    /// RFC 8878; only in batches of magic 2.
    Zstd = 4,
}

/// Why bytes could not be compressed or decompressed.
#[derive(Debug, Error)]
pub enum CompressionError {
    /// The output would be larger than the caller allows.
    #[error("more than {0} bytes when decompressed")]
    TooLarge(usize),
    /// Not of that compression, or damaged.
    #[error("{compression:?}: {source}")]
    Corrupt {
        /// The compression the attributes name.
        compression: Compression,
        /// What the library says.
        source: io::Error,
    },
    /// Bits that name no compression, or one that the format does not have.
    #[error("no compression has the number {0} here")]
    Unknown(i8),
}

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// The magic, version 1, compatible from version 1.
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Snappy's longest copy makes 64 bytes of 3.
const SNAPPY_RATIO_MAX: usize = 22;

impl Compression {
    /// The compression that bits 0 to 2 of `attributes` name.
    pub fn from_attributes(attributes: i16) -> Result<Self, CompressionError> {
        Ok(match attributes & 7 {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            other => return Err(CompressionError::Unknown(other as i8)),
        })
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Appends `bytes`, compressed at the library's usual level, to `out`.
    pub fn compress(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
        self.compress_at(None, bytes, out)
    }

    /// As [`Compression::compress`], at a level of gzip (1 to 9) or zstd; the others have one.
    pub fn compress_at(
        self,
        level: Option<i32>,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        let result = match self {
            Compression::None => out.write_all(bytes),
            Compression::Gzip => gzip(level, bytes, out),
            Compression::Snappy => snappy(bytes, out),
            Compression::Lz4 => lz4(bytes, out),
            Compression::Zstd => zstd::stream::copy_encode(bytes, out, level.unwrap_or(0)),
        };
        result.map_err(|source| CompressionError::Corrupt { compression: self, source })
    }

    /// Appends what `bytes` hold to `out`, `bytes_max` at most. On an error `out` is as it was.
    pub fn decompress(
        self,
        bytes: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        let start = out.len();
        let result = match self {
            Compression::None => read_bounded(bytes, bytes_max, out),
            Compression::Gzip => {
                read_bounded(flate2::bufread::MultiGzDecoder::new(bytes), bytes_max, out)
            }
            Compression::Snappy => unsnappy(bytes, bytes_max, out),
            Compression::Lz4 => {
                read_bounded(lz4_flex::frame::FrameDecoder::new(bytes), bytes_max, out)
            }
            Compression::Zstd => zstd::stream::read::Decoder::with_buffer(bytes)
                .and_then(|decoder| read_bounded(decoder, bytes_max, out)),
        };
        self.checked(result, start, bytes_max, out)
    }

    fn checked(
        self,
        result: io::Result<()>,
        start: usize,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        let result = match result {
            Ok(()) if out.len() - start > bytes_max => Err(CompressionError::TooLarge(bytes_max)),
            Ok(()) => Ok(()),
            Err(source) => Err(CompressionError::Corrupt { compression: self, source }),
        };
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

/// Reads to the end, or to one byte more than `bytes_max`.
fn read_bounded(reader: impl Read, bytes_max: usize, out: &mut Vec<u8>) -> io::Result<()> {
    reader.take((bytes_max as u64).saturating_add(1)).read_to_end(out).map(|_| ())
}

fn gzip(level: Option<i32>, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let level = level.and_then(|level| u32::try_from(level).ok());
    let level = level.map_or_else(Default::default, flate2::Compression::new);
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    encoder.write_all(bytes)?;
    encoder.finish().map(|_| ())
}

fn snappy(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(XERIAL_BLOCK_BYTES) {
        let start = out.len() + 4;
        out.resize(start + snap::raw::max_compress_len(block.len()), 0);
        let compressed = encoder.compress(block, &mut out[start..])?;
        out.truncate(start + compressed);
        out[start - 4..start].copy_from_slice(&(compressed as u32).to_be_bytes());
    }
    Ok(())
}

fn unsnappy(bytes: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> io::Result<()> {
    if !bytes.starts_with(XERIAL_MAGIC) {
        return unsnappy_block(bytes, bytes_max, out);
    }
    let damaged = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut rest = bytes.get(XERIAL_HEADER.len()..).ok_or_else(damaged)?;
    let end = out.len().saturating_add(bytes_max);
    while !rest.is_empty() && out.len() <= end {
        let (size, after) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let size = u32::from_be_bytes(*size) as usize;
        let (block, after) = after.split_at_checked(size).ok_or_else(damaged)?;
        unsnappy_block(block, end - out.len(), out)?;
        rest = after;
    }
    Ok(())
}

/// One raw block. One of more than `bytes_max` bytes leaves one byte too many in `out`.
fn unsnappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let bytes = snap::raw::decompress_len(block)?;
    if bytes > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let start = out.len();
    out.resize(start + bytes.min(bytes_max.saturating_add(1)), 0);
    if bytes <= bytes_max {
        snap::raw::Decoder::new().decompress(block, &mut out[start..])?;
    }
    Ok(())
}

/// Frames as the Java client writes them: blocks of 64 KiB that do not refer to each other.
fn lz4(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(bytes)?;
    encoder.finish().map(|_| ()).map_err(io::Error::from)
}

/// Compresses for a wrapper message of magic 0, whose lz4 header checksum Kafka once computed over
/// the frame's magic number too; its clients still expect that (KAFKA-3160).
pub fn compress_magic_0(
    compression: Compression,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let start = out.len();
    compression.compress(bytes, out)?;
    if compression == Compression::Lz4 {
        let frame = &mut out[start..];
        let header_bytes = lz4_header_bytes(frame).expect("a frame just written has its header");
        frame[header_bytes] = header_checksum(&frame[..header_bytes]);
    }
    Ok(())
}

/// Decompresses from a wrapper message of magic 0: the lz4 header checksum may be right or wrong.
pub fn decompress_magic_0(
    compression: Compression,
    bytes: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let header_bytes = match compression {
        Compression::Lz4 => lz4_header_bytes(bytes).filter(|count| bytes.len() > *count),
        _ => None,
    };
    let Some(header_bytes) = header_bytes else {
        return compression.decompress(bytes, bytes_max, out);
    };
    let checksum = [header_checksum(&bytes[4..header_bytes])];
    let fixed = bytes[..header_bytes].chain(&checksum[..]).chain(&bytes[header_bytes + 1..]);
    let start = out.len();
    let result = read_bounded(lz4_flex::frame::FrameDecoder::new(fixed), bytes_max, out);
    compression.checked(result, start, bytes_max, out)
}

/// How many bytes precede the checksum in an lz4 frame's header: the magic number, two of flags,
/// and what the flags announce (content size, dictionary id).
fn lz4_header_bytes(frame: &[u8]) -> Option<usize> {
    let flags = *frame.get(4)?;
    let count = 6 + if flags & 8 != 0 { 8 } else { 0 } + if flags & 1 != 0 { 4 } else { 0 };
    (frame.len() > count).then_some(count)
}

fn header_checksum(bytes: &[u8]) -> u8 {
    (XxHash32::oneshot(0, bytes) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    fn check(compression: Compression, bytes: &[u8]) {
        let mut compressed = b"before".to_vec();
        compression.compress(bytes, &mut compressed).expect("memory is no failing writer");
        let mut out = b"kept".to_vec();
        compression.decompress(&compressed[6..], bytes.len(), &mut out).expect("its own output");
        assert_eq!(&out[4..], bytes, "{compression:?}");
        if let Some(limit) = bytes.len().checked_sub(1) {
            let refused = compression.decompress(&compressed[6..], limit, &mut out);
            assert!(matches!(refused, Err(CompressionError::TooLarge(_))), "{compression:?}");
            assert_eq!(out.len(), 4 + bytes.len(), "an error leaves the output as it was");
        }
    }

    #[test]
    fn round_trips_are_bounded() {
        let noise: Vec<u8> =
            (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for compression in ALL {
            check(compression, b"");
            check(compression, b"x");
            check(compression, &[7; 100_000]);
            check(compression, &noise);
            assert_eq!(Compression::from_attributes(compression as i16).ok(), Some(compression));
        }
        assert!(Compression::from_attributes(5).is_err());
    }

    #[test]
    fn snappy_is_read_without_frames() {
        let raw = snap::raw::Encoder::new().compress_vec(&[9; 1000]).expect("memory");
        let mut out = Vec::new();
        Compression::Snappy.decompress(&raw, 1000, &mut out).expect("a raw block");
        assert_eq!(out, [9; 1000]);
    }

    #[test]
    fn snappy_lengths_that_lie_allocate_nothing() {
        let mut out = Vec::new();
        let claims_four_gigabytes = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        let refused =
            Compression::Snappy.decompress(&claims_four_gigabytes, usize::MAX / 2, &mut out);
        assert!(refused.is_err());
        assert_eq!(out.capacity(), 0);
    }

    #[test]
    fn lz4_of_magic_0_has_the_old_checksum_and_is_read_with_either() {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        compress_magic_0(Compression::Lz4, &[3; 5000], &mut old).expect("memory");
        Compression::Lz4.compress(&[3; 5000], &mut new).expect("memory");
        assert_ne!(old, new);
        let mut out = Vec::new();
        assert!(Compression::Lz4.decompress(&old, 5000, &mut out).is_err());
        for frame in [old, new] {
            out.clear();
            decompress_magic_0(Compression::Lz4, &frame, 5000, &mut out).expect("either checksum");
            assert_eq!(out, [3; 5000]);
        }
    }

    #[test]
    fn damaged_bytes_are_errors() {
        for compression in &ALL[1..] {
            let mut compressed = Vec::new();
            compression.compress(&[1; 100], &mut compressed).expect("memory");
            for length in 1..compressed.len() {
                let mut out = Vec::new();
                let cut = compression.decompress(&compressed[..length], 100, &mut out);
                // lz4's end mark carries nothing; a frame cut at a block's end reads as whole.
                assert!(cut.is_err() || out.len() < 100 || *compression == Compression::Lz4);
            }
        }
    }
}
