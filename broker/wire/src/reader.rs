//! A cursor over a frame. Every length is compared with the bytes that are left before it is used.

use thiserror::Error;

use crate::codec::Wire;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The frame ends within a value.
    #[error("{needed} bytes needed, {left} left")]
    Truncated {
        /// How many bytes the value takes, at least.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// A length or count that no value has.
    #[error("a length of {0}")]
    Length(i64),
    /// Null where the version does not allow it.
    #[error("null in a field that is never null")]
    Null,
    /// A string that is not UTF-8.
    #[error("a string that is not UTF-8")]
    Utf8,
    /// A variable-length integer of more bytes than its type holds.
    #[error("a variable-length integer without end")]
    Varint,
    /// A tagged field whose content is shorter than its length says.
    #[error("{0} bytes too many in a tagged field")]
    Tag(usize),
    /// A version the schema does not have.
    #[error("{message} has no version {version}")]
    Version {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// Reads values from the front of borrowed bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    version: i16,
    flexible: bool,
}

macro_rules! integer {
    ($name:ident) => {
        #[doc = concat!("A big-endian `", stringify!($name), "`.")]
        #[inline]
        pub fn $name(&mut self) -> Result<$name, DecodeError> {
            self.array().map($name::from_be_bytes)
        }
    };
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, in version 0 until a message is decoded.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, version: 0, flexible: false }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The version of the message being read.
    #[inline]
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Whether that version has compact lengths and tagged fields.
    #[inline]
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    pub(crate) fn set_version(&mut self, version: i16, flexible: bool) {
        (self.version, self.flexible) = (version, flexible);
    }

    /// A reader of other bytes in the same version.
    pub(crate) fn over(&self, bytes: &'a [u8]) -> Self {
        Reader { bytes, ..*self }
    }

    /// A value of the type the caller wants.
    #[inline]
    pub fn read<T: Wire<'a>>(&mut self) -> Result<T, DecodeError> {
        T::read(self)
    }

    /// A value in its form of inflexible versions, whatever the version.
    pub(crate) fn read_classic<T: Wire<'a>>(&mut self) -> Result<T, DecodeError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let value = T::read(self);
        self.flexible = flexible;
        value
    }

    /// A struct in a tagged field that may be null: its marker is 0 or 1, unsigned.
    pub(crate) fn tagged_nullable<T: Wire<'a>>(&mut self) -> Result<Option<T>, DecodeError> {
        if self.uvarint()? == 0 { Ok(None) } else { T::read(self).map(Some) }
    }

    /// The next `count` bytes.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(DecodeError::Truncated { needed: count, left: self.bytes.len() });
        };
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { needed: N, left: self.bytes.len() });
        };
        self.bytes = rest;
        Ok(*taken)
    }

    integer!(i8);
    integer!(u8);
    integer!(i16);
    integer!(u16);
    integer!(i32);
    integer!(u32);
    integer!(i64);
    integer!(u64);
    integer!(f64);

    /// An unsigned variable-length integer of at most 32 bits, low seven bits first.
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        match self.uvarint_short() {
            Some(value) => Ok(value),
            None => u32::try_from(self.uvarint_long(5)?).map_err(|_| DecodeError::Varint),
        }
    }

    /// A zigzag variable-length integer of 32 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let raw = self.uvarint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// A zigzag variable-length integer of 64 bits.
    #[inline]
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let raw = match self.uvarint_short() {
            Some(value) => u64::from(value),
            None => self.uvarint_long(10)?,
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// The common case: one or two bytes.
    #[inline]
    fn uvarint_short(&mut self) -> Option<u32> {
        let (value, rest) = match self.bytes {
            [low @ 0..=0x7f, rest @ ..] => (u32::from(*low), rest),
            [low, high @ 0..=0x7f, rest @ ..] => {
                (u32::from(low & 0x7f) | u32::from(*high) << 7, rest)
            }
            _ => return None,
        };
        self.bytes = rest;
        Some(value)
    }

    fn uvarint_long(&mut self, bytes_max: usize) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes.iter().take(bytes_max).enumerate() {
            let bits = u64::from(byte & 0x7f);
            value |= bits << (7 * index);
            if value >> (7 * index) != bits {
                return Err(DecodeError::Varint);
            }
            if byte < 0x80 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
        }
        match self.bytes.len() < bytes_max {
            true => {
                Err(DecodeError::Truncated { needed: self.bytes.len() + 1, left: self.bytes.len() })
            }
            false => Err(DecodeError::Varint),
        }
    }

    /// The length of a string (`short`: at most 32,767) or the count of anything else; none: null.
    #[inline]
    pub(crate) fn length(&mut self, short: bool) -> Result<Option<usize>, DecodeError> {
        let length = match (self.flexible, short) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        let length_max = if short { i64::from(i16::MAX) } else { i64::from(i32::MAX) };
        match length {
            -1 => Ok(None),
            length if (0..=length_max).contains(&length) => Ok(Some(length as usize)),
            length => Err(DecodeError::Length(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_length_integers() {
        let check =
            |bytes: &[u8], unsigned: Result<u32, DecodeError>, long: Result<i64, DecodeError>| {
                assert_eq!(Reader::new(bytes).uvarint(), unsigned, "{bytes:x?}");
                assert_eq!(Reader::new(bytes).varlong(), long, "{bytes:x?}");
            };
        check(&[0], Ok(0), Ok(0));
        check(&[0x7f], Ok(127), Ok(-64));
        check(&[0x80, 1], Ok(128), Ok(64));
        check(&[0xff, 0xff, 0xff, 0xff, 0x0f], Ok(u32::MAX), Ok(i64::from(i32::MIN)));
        check(&[0xff, 0xff, 0xff, 0xff, 0x10], Err(DecodeError::Varint), Ok(-2_281_701_376));
        let mut longest = [0xff; 10];
        longest[9] = 1;
        check(&longest, Err(DecodeError::Varint), Ok(i64::MIN));
        longest[9] = 2;
        check(&longest, Err(DecodeError::Varint), Err(DecodeError::Varint));
        let truncated = DecodeError::Truncated { needed: 2, left: 1 };
        check(&[0x80], Err(truncated), Err(truncated));
        check(&[0x80; 11], Err(DecodeError::Varint), Err(DecodeError::Varint));
    }
}
