//! What a record's value carries, so that a consumer can tell lost, doubled, moved and altered
//! records apart.
//!
//! A value starts with 32 bytes, little endian, then comes the body:
//!
//! | position | bytes | field |
//! |---|---|---|
//! | 0 | 4 | run: tells records of this run from others in the topic |
//! | 4 | 4 | producer: the connection that sent it |
//! | 8 | 4 | partition it was sent to |
//! | 12 | 8 | sequence within (producer, partition), from 0 |
//! | 20 | 8 | intended send time, nanoseconds of the run's clock |
//! | 28 | 4 | CRC-32C of the 28 bytes before, followed by the CRC-32C of the body |
//!
//! The body's CRC is known when a batch is built, so a send costs one CRC over 32 bytes, whatever
//! the record's size.

use crc_fast::crc32_iscsi as crc32c;

/// Bytes before the body: the smallest possible value.
pub const HEADER_BYTES: usize = 32;
const CHECKSUM: usize = 28;

/// The identity of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The run that made it.
    pub run: u32,
    /// The producing connection.
    pub producer: u32,
    /// The partition it was sent to.
    pub partition: u32,
    /// Its place in (producer, partition).
    pub sequence: u64,
    /// When it was due, in clock nanoseconds.
    pub intended_ns: u64,
}

/// Why a value is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Shorter than the header.
    #[error("value is shorter than {HEADER_BYTES} bytes")]
    Short,
    /// Header or body differ from what was sent.
    #[error("checksum does not match")]
    Altered,
}

/// Writes the header of a value whose body has `body_crc`; `value` is the whole value or at least
/// its first 32 bytes.
pub fn write(value: &mut [u8], stamp: &Stamp, body_crc: u32) {
    // Made aside and stored at once: the value is far away in memory.
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(&stamp.run.to_le_bytes());
    header[4..8].copy_from_slice(&stamp.producer.to_le_bytes());
    header[8..12].copy_from_slice(&stamp.partition.to_le_bytes());
    header[12..20].copy_from_slice(&stamp.sequence.to_le_bytes());
    header[20..28].copy_from_slice(&stamp.intended_ns.to_le_bytes());
    header[CHECKSUM..].copy_from_slice(&body_crc.to_le_bytes());
    let checksum = crc32c(&header);
    header[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    *value.first_chunk_mut().expect("every value is made with room for the header") = header;
}

/// Reads a value and checks every byte of it.
pub fn read(value: &[u8]) -> Result<Stamp, Damage> {
    let (header, body) = value.split_first_chunk::<HEADER_BYTES>().ok_or(Damage::Short)?;
    let mut checked = *header;
    checked[CHECKSUM..].copy_from_slice(&body_crc(body).to_le_bytes());
    if crc32c(&checked).to_le_bytes() != header[CHECKSUM..] {
        return Err(Damage::Altered);
    }
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
    let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
    Ok(Stamp {
        run: word(0),
        producer: word(4),
        partition: word(8),
        sequence: long(12),
        intended_ns: long(20),
    })
}

/// The CRC of a body, as `write` wants it.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32c(body)
}

/// Fills a body from a seed: the first `constant_percent` of it zeros, which compress, the rest
/// noise, which does not.
pub fn fill_body(body: &mut [u8], random: &mut fastrand::Rng, constant_percent: u8) {
    let constant_bytes = body.len() * usize::from(constant_percent.min(100)) / 100;
    let (constant, noise) = body.split_at_mut(constant_bytes);
    constant.fill(0);
    random.fill(noise);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0xdead_beef,
        producer: 3,
        partition: 7,
        sequence: 1 << 40,
        intended_ns: 123_456_789_012,
    };

    fn value(bytes: usize) -> Vec<u8> {
        let mut value = vec![0; bytes];
        fill_body(&mut value[HEADER_BYTES..], &mut fastrand::Rng::with_seed(1), 50);
        let crc = body_crc(&value[HEADER_BYTES..]);
        write(&mut value, &STAMP, crc);
        value
    }

    #[test]
    fn reads_back_what_was_written_at_any_size() {
        for bytes in [32, 33, 100, 1024, 100_000] {
            assert_eq!(read(&value(bytes)), Ok(STAMP), "{bytes}");
        }
    }

    #[test]
    fn every_single_changed_bit_is_seen() {
        let good = value(100);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bad), Err(Damage::Altered), "bit {bit}");
        }
    }

    #[test]
    fn a_value_cut_short_is_damage() {
        let good = value(100);
        assert_eq!(read(&good[..99]), Err(Damage::Altered));
        assert_eq!(read(&good[..31]), Err(Damage::Short));
        assert_eq!(read(&[]), Err(Damage::Short));
    }
}
