//! How a partition's file operations are named, so that a shard can dispatch their completions.

use millrace_io::Token;

/// What a completed operation of a log was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// One write of a round of writes.
    Write = 1,
    /// Preparing space at the end of the segment that is being written.
    Allocate = 2,
    /// The flush of a finished segment, before its successor is written.
    Seal = 3,
    /// A flush asked for by [`crate::PartitionLog::submit_flush`].
    Flush = 4,
}

/// The kinds that belong to logs; a shard gives completions of other kinds to others.
pub const KINDS: std::ops::RangeInclusive<u8> = 1..=15;

/// Packs an operation of the partition with this index on its shard: kind in the top 8 bits, 24
/// bits that tell apart operations before and after a truncation, the index in the low 32.
pub fn pack(operation: Operation, generation: u32, partition_index: u32) -> Token {
    let generation = u64::from(generation & 0x00ff_ffff);
    Token((operation as u64) << 56 | generation << 32 | u64::from(partition_index))
}

/// The kind in a token, of a log or of somebody else.
pub fn kind(token: Token) -> u8 {
    (token.0 >> 56) as u8
}

/// The index, on its shard, of the partition that a log's token belongs to.
pub fn partition_index(token: Token) -> u32 {
    token.0 as u32
}

/// The operation of a log's token; `None` for a token of somebody else.
pub fn operation(token: Token) -> Option<Operation> {
    match kind(token) {
        1 => Some(Operation::Write),
        2 => Some(Operation::Allocate),
        3 => Some(Operation::Seal),
        4 => Some(Operation::Flush),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_back() {
        for which in [Operation::Write, Operation::Allocate, Operation::Seal, Operation::Flush] {
            let token = pack(which, 0x0112_3456, 0xfedc_ba98);
            assert_eq!(operation(token), Some(which));
            assert!(KINDS.contains(&kind(token)));
            assert_eq!(partition_index(token), 0xfedc_ba98);
        }
        assert_eq!(operation(Token(99 << 56)), None);
    }
}
