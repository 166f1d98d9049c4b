//! Messages to bytes, into a buffer that is used again.

use thiserror::Error;

use crate::codec::Wire;
use crate::tags::{TagWriter, UnknownTags};

/// Why a value has no form in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A field that the version lacks and that must not be dropped silently.
    #[error("{field} is set, and does not exist in version {version}")]
    Absent {
        /// Struct and field, as in the schema.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// Null in a version that requires a value.
    #[error("{field} is null, and must not be in version {version}")]
    Null {
        /// Struct and field, as in the schema.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// Longer than its length prefix can say.
    #[error("{0} bytes or elements do not fit in the length before them")]
    TooLong(usize),
    /// A version the schema does not have.
    #[error("{message} has no version {version}")]
    Version {
        /// The message's name.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// A place in the written bytes where the sender inserts bytes that are elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Index into [`Writer::bytes`], before which the foreign bytes go.
    pub position: usize,
    /// How many they are.
    pub bytes: usize,
}

/// Appends values to a growing buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    splices: Vec<Splice>,
    version: i16,
    flexible: bool,
}

macro_rules! integer {
    ($name:ident) => {
        #[doc = concat!("Appends a big-endian `", stringify!($name), "`.")]
        #[inline]
        pub fn $name(&mut self, value: $name) {
            self.buffer.extend_from_slice(&value.to_be_bytes());
        }
    };
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A writer that appends to `buffer`.
    pub fn over(buffer: Vec<u8>) -> Self {
        Writer { buffer, ..Self::default() }
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.splices.clear();
    }

    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// What was written, as the buffer itself.
    pub fn into_vec(self) -> Vec<u8> {
        self.buffer
    }

    /// Where the sender inserts records that were not written here, by rising position.
    pub fn splices(&self) -> &[Splice] {
        &self.splices
    }

    /// The bytes written here and those the sender inserts.
    pub fn bytes_with_splices(&self) -> usize {
        self.buffer.len() + self.splices.iter().map(|splice| splice.bytes).sum::<usize>()
    }

    /// The version of the message being written.
    #[inline]
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Whether that version has compact lengths and tagged fields.
    #[inline]
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    /// Sets the version for values that are written one by one instead of as a message.
    pub fn set_version(&mut self, version: i16, flexible: bool) {
        (self.version, self.flexible) = (version, flexible);
    }

    integer!(i8);
    integer!(u8);
    integer!(i16);
    integer!(u16);
    integer!(i32);
    integer!(u32);
    integer!(i64);
    integer!(f64);

    /// Appends bytes as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Appends an unsigned variable-length integer.
    #[inline]
    pub fn uvarint(&mut self, value: u32) {
        self.uvarlong(u64::from(value));
    }

    #[inline]
    fn uvarlong(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }

    /// Appends a zigzag variable-length integer of 32 bits.
    #[inline]
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// Appends a zigzag variable-length integer of 64 bits.
    #[inline]
    pub fn varlong(&mut self, value: i64) {
        self.uvarlong(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Replaces the four bytes at `position` by `value`: a size that is known only at the end.
    ///
    /// # Panics
    /// If fewer than four bytes were written from there.
    pub fn patch_i32(&mut self, position: usize, value: i32) {
        self.buffer[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Appends the count of an array whose elements follow one by one.
    pub fn array_length(&mut self, count: usize) -> Result<(), EncodeError> {
        self.length(Some(count), false)
    }

    /// A length of a string (`short`) or a count of anything else; none: null.
    #[inline]
    pub(crate) fn length(&mut self, length: Option<usize>, short: bool) -> Result<(), EncodeError> {
        let length_max = if short { i16::MAX as usize } else { i32::MAX as usize };
        let count = length.unwrap_or(0);
        if count > length_max {
            return Err(EncodeError::TooLong(count));
        }
        match (self.flexible, length, short) {
            (true, None, _) => self.u8(0),
            (true, Some(length), _) => self.uvarint(length as u32 + 1),
            (false, None, true) => self.i16(-1),
            (false, None, false) => self.i32(-1),
            (false, Some(length), true) => self.i16(length as i16),
            (false, Some(length), false) => self.i32(length as i32),
        }
        Ok(())
    }

    pub(crate) fn splice(&mut self, bytes: usize) {
        self.splices.push(Splice { position: self.buffer.len(), bytes });
    }

    pub(crate) fn absent(&self, field: &'static str) -> EncodeError {
        EncodeError::Absent { field, version: self.version }
    }

    /// A value in a version where it must not be null.
    pub(crate) fn required<'a, T: Wire<'a>>(
        &mut self,
        value: &Option<T>,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => value.write(self),
            None => Err(EncodeError::Null { field, version: self.version }),
        }
    }

    /// A value in its form of inflexible versions, whatever the version.
    pub(crate) fn write_classic<'a, T: Wire<'a>>(&mut self, value: &T) -> Result<(), EncodeError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let result = value.write(self);
        self.flexible = flexible;
        result
    }

    /// A struct in a tagged field that may be null: its marker is 0 or 1, unsigned.
    pub(crate) fn tagged_nullable<'a, T: Wire<'a>>(
        &mut self,
        value: &Option<T>,
    ) -> Result<(), EncodeError> {
        self.uvarint(u32::from(value.is_some()));
        value.as_ref().map_or(Ok(()), |value| value.write(self))
    }

    pub(crate) fn begin_tags<'u, 'a>(&mut self, unknown: &'u UnknownTags<'a>) -> TagWriter<'u, 'a> {
        TagWriter::begin(self, unknown)
    }

    /// The tag section of a struct without tagged fields of its own.
    #[inline]
    pub(crate) fn unknown_tags(&mut self, unknown: &UnknownTags<'_>) -> Result<(), EncodeError> {
        match self.flexible {
            true if unknown.is_empty() => self.u8(0),
            true => return TagWriter::begin(self, unknown).end(self),
            false => {}
        }
        Ok(())
    }

    /// Inserts `value` as a varint at `position`, before what was written since.
    pub(crate) fn insert_uvarint(&mut self, position: usize, value: u32) {
        let end = self.buffer.len();
        self.uvarint(value);
        let width = self.buffer.len() - end;
        self.buffer[position..].rotate_right(width);
    }
}
