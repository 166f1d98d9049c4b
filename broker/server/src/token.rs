//! Tokens of file operations: the upper byte says whose completion it is.
//!
//! Kinds 1 to 15 belong to the log crate (see `millrace_log::token`), which puts the partition's
//! index into the lower half.

use millrace_io::Token;

const COLD_PAGES: u64 = 16;
const SYNC_ALL: u64 = 17;
const KIND_SHIFT: u32 = 56;
const VALUE: u64 = (1 << KIND_SHIFT) - 1;

/// Whose completion a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A partition's log.
    Log { partition: u32 },
    /// Pages that a reply waits for.
    ColdPages(u64),
    /// A flush of a whole file system for several partitions: its number.
    SyncAll(usize),
}

/// The token under which pages are brought in for a reply.
pub(crate) fn cold_pages(value: u64) -> Token {
    Token(COLD_PAGES << KIND_SHIFT | value & VALUE)
}

/// The token of a flush of the file system with this number.
pub(crate) fn sync_all(disk: usize) -> Token {
    Token(SYNC_ALL << KIND_SHIFT | disk as u64)
}

/// Whose completion this is.
pub(crate) fn owner(token: Token) -> Owner {
    let value = token.0 & VALUE;
    match token.0 >> KIND_SHIFT {
        COLD_PAGES => Owner::ColdPages(value),
        SYNC_ALL => Owner::SyncAll(value as usize),
        _ => Owner::Log { partition: millrace_log::token::partition_index(token) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_to_its_owner() {
        assert_eq!(owner(cold_pages(7)), Owner::ColdPages(7));
        assert_eq!(owner(sync_all(3)), Owner::SyncAll(3));
    }
}
