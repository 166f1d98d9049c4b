//! The wire forms of numbers, strings, bytes and records.

use crate::codec::Wire;
use crate::reader::{DecodeError, Reader};
use crate::uuid::Uuid;
use crate::writer::{EncodeError, Writer};

macro_rules! number {
    ($($name:ident)*) => { $(
        impl Wire<'_> for $name {
            const BYTES_MIN: usize = size_of::<$name>();
            const BYTES_FIXED: Option<usize> = Some(size_of::<$name>());

            #[inline]
            fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                r.$name()
            }

            #[inline]
            fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
                w.$name(*self);
                Ok(())
            }
        }
    )* };
}

number!(i8 i16 u16 i32 u32 i64 f64);

impl Wire<'_> for bool {
    const BYTES_MIN: usize = 1;
    const BYTES_FIXED: Option<usize> = Some(1);

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(r.i8()? != 0)
    }

    #[inline]
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.i8(i8::from(*self));
        Ok(())
    }
}

impl Wire<'_> for Uuid {
    const BYTES_MIN: usize = 16;
    const BYTES_FIXED: Option<usize> = Some(16);

    #[inline]
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Uuid::from_halves(r.u64()?, r.u64()?))
    }

    #[inline]
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        w.raw(&self.to_bytes());
        Ok(())
    }
}

impl<'a> Wire<'a> for &'a str {
    const BYTES_MIN: usize = 1;

    #[inline]
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::read_nullable(r)?.ok_or(DecodeError::Null)
    }

    #[inline]
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), w)
    }

    #[inline]
    fn read_nullable(r: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        let Some(bytes) = r.length(true)? else { return Ok(None) };
        std::str::from_utf8(r.take(bytes)?).map(Some).map_err(|_| DecodeError::Utf8)
    }

    #[inline]
    fn write_nullable(value: Option<&Self>, w: &mut Writer) -> Result<(), EncodeError> {
        w.length(value.map(|value| value.len()), true)?;
        w.raw(value.map_or(&[], |value| value.as_bytes()));
        Ok(())
    }
}

impl<'a> Wire<'a> for &'a [u8] {
    const BYTES_MIN: usize = 1;

    #[inline]
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::read_nullable(r)?.ok_or(DecodeError::Null)
    }

    #[inline]
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), w)
    }

    #[inline]
    fn read_nullable(r: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        let Some(bytes) = r.length(false)? else { return Ok(None) };
        r.take(bytes).map(Some)
    }

    #[inline]
    fn write_nullable(value: Option<&Self>, w: &mut Writer) -> Result<(), EncodeError> {
        w.length(value.map(|value| value.len()), false)?;
        w.raw(value.map_or(&[], |value| value));
        Ok(())
    }
}

/// Record batches as they lie in a request, a response or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records<'a> {
    /// The bytes themselves. Decoding makes only these.
    Bytes(&'a [u8]),
    /// So many bytes that the sender inserts: only their length is written, and a
    /// [`Splice`](crate::Splice) says where they belong.
    External(usize),
}

impl<'a> Records<'a> {
    /// How many bytes they are, here or elsewhere.
    pub fn len(&self) -> usize {
        match self {
            Records::Bytes(bytes) => bytes.len(),
            Records::External(bytes) => *bytes,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, when they are here; nothing of what is elsewhere.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Records::Bytes(bytes) => bytes,
            Records::External(_) => &[],
        }
    }
}

impl Default for Records<'_> {
    fn default() -> Self {
        Records::Bytes(&[])
    }
}

impl<'a> Wire<'a> for Records<'a> {
    const BYTES_MIN: usize = 1;

    #[inline]
    fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        <&[u8]>::read(r).map(Records::Bytes)
    }

    #[inline]
    fn write(&self, w: &mut Writer) -> Result<(), EncodeError> {
        Self::write_nullable(Some(self), w)
    }

    #[inline]
    fn read_nullable(r: &mut Reader<'a>) -> Result<Option<Self>, DecodeError> {
        Ok(<&[u8]>::read_nullable(r)?.map(Records::Bytes))
    }

    #[inline]
    fn write_nullable(value: Option<&Self>, w: &mut Writer) -> Result<(), EncodeError> {
        w.length(value.map(Records::len), false)?;
        match value {
            Some(Records::Bytes(bytes)) => w.raw(bytes),
            Some(Records::External(bytes)) => w.splice(*bytes),
            None => {}
        }
        Ok(())
    }
}
