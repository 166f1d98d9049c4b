//! Error codes as the protocol has them.

use std::fmt;

/// A code of an answer; any number may come from a newer peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ErrorCode(pub i16);

include!(concat!(env!("OUT_DIR"), "/error_codes.rs"));

impl ErrorCode {
    /// Its number.
    pub const fn code(self) -> i16 {
        self.0
    }

    /// Its name in Kafka; `UNKNOWN` for a number without one.
    pub fn name(self) -> &'static str {
        self.row().map_or("UNKNOWN", |row| row.1)
    }

    /// Whether a client is to try again.
    pub fn is_retriable(self) -> bool {
        self.row().is_some_and(|row| row.2)
    }

    /// Whether it is an error at all.
    pub fn is_error(self) -> bool {
        self != ErrorCode::NONE
    }

    fn row(self) -> Option<&'static (i16, &'static str, bool)> {
        ROWS.binary_search_by_key(&self.0, |row| row.0).ok().map(|index| &ROWS[index])
    }
}

impl From<i16> for ErrorCode {
    fn from(code: i16) -> Self {
        ErrorCode(code)
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> i16 {
        code.0
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found() {
        for (code, name, retriable) in ROWS {
            let error = ErrorCode::from(*code);
            assert_eq!((error.name(), error.is_retriable()), (*name, *retriable));
        }
        assert_eq!(ErrorCode(9999).name(), "UNKNOWN");
        assert_eq!(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(), 3);
    }
}
