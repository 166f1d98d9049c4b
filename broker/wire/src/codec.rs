//! The traits between bytes and values.

use std::ops::RangeInclusive;

pub use crate::array::Array;
pub use crate::reader::{DecodeError, Reader};
pub use crate::tags::UnknownTags;
pub use crate::uuid::Uuid;
pub use crate::values::Records;
pub use crate::writer::{EncodeError, Writer};

/// A value with a form on the wire. The version in use is that of the reader or writer.
pub trait Wire<'a>: Clone {
    /// The least number of bytes it takes in any version.
    const BYTES_MIN: usize;

    /// The number of bytes it always takes, and that are all valid; else none.
    const BYTES_FIXED: Option<usize> = None;

    /// Reads one value.
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Writes the value.
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError>;

    /// Reads a value that may be null. Structs have a byte before them (-1 null, 1 present).
    fn read_nullable(r: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        if r.i8()? < 0 { Ok(None) } else { Self::read(r).map(Some) }
    }

    /// Writes a value that may be null.
    fn write_nullable(value: Option<&Self>, w: &mut Writer) -> Result<(), EncodeError> {
        w.i8(if value.is_some() { 1 } else { -1 });
        value.map_or(Ok(()), |value| value.write(w))
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Option<T> {
    const BYTES_MIN: usize = 1;

    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        T::read_nullable(r)
    }

    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        T::write_nullable(self.as_ref(), w)
    }
}

/// A whole message: a request, a response, a header, or the value of a stored record.
pub trait Message<'a>: Wire<'a> + Default {
    /// The name in the schema.
    const NAME: &'static str;
    /// The number of the API or of the stored record; -1 for the few without one.
    const API_KEY: i16;
    /// The versions of the schema.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version with compact lengths and tagged fields; `i16::MAX` when there is none.
    const FLEXIBLE_FROM: i16;

    /// Reads the message from the front of what `r` has left; bytes after it stay there.
    fn decode(r: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::Version { message: Self::NAME, version });
        }
        r.set_version(version, version >= Self::FLEXIBLE_FROM);
        Self::read(r)
    }

    /// Appends the message to `w`.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::Version { message: Self::NAME, version });
        }
        w.set_version(version, version >= Self::FLEXIBLE_FROM);
        self.write(w)
    }
}

/// A request, which knows its response.
pub trait Request<'a>: Message<'a> {
    /// What answers it.
    type Response<'r>: Message<'r>;
}
