//! Arrays that are a view of the frame, or lie in memory.

use std::fmt;
use std::slice;

use crate::codec::Wire;
use crate::reader::{DecodeError, Reader};
use crate::writer::{EncodeError, Writer};

/// A sequence of `T`.
///
/// Decoding makes a view: the elements were checked once and are read again whenever they are
/// iterated, so that nothing is allocated. To encode, an array is made from a `Vec` or a slice.
pub struct Array<'a, T> {
    elements: Elements<'a, T>,
}

#[derive(Clone)]
enum Elements<'a, T> {
    /// Invariant: reading `count` elements from `reader` succeeds and leaves nothing.
    View {
        reader: Reader<'a>,
        count: u32,
    },
    Owned(Vec<T>),
    Slice(&'a [T]),
}

const CHECKED: &str = "the elements were checked when the array was read";

impl<'a, T> Array<'a, T> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::View { count, .. } => *count as usize,
            Elements::Owned(elements) => elements.len(),
            Elements::Slice(elements) => elements.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Wire<'a>> Array<'a, T> {
    /// The elements by value, read from the frame one by one or cloned from memory.
    #[inline]
    pub fn iter(&self) -> Iter<'_, 'a, T> {
        match &self.elements {
            Elements::View { reader, count } => Iter::View { reader: reader.clone(), left: *count },
            Elements::Owned(elements) => Iter::Memory(elements.iter()),
            Elements::Slice(elements) => Iter::Memory(elements.iter()),
        }
    }

    /// The first element.
    pub fn first(&self) -> Option<T> {
        self.iter().next()
    }

    /// The elements in memory.
    pub fn into_vec(self) -> Vec<T> {
        match self.elements {
            Elements::Owned(elements) => elements,
            _ => self.iter().collect(),
        }
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Array<'a, T> {
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
        let Some(count) = r.length(false)? else { return Ok(None) };
        let needed = count.saturating_mul(T::BYTES_MIN.max(1));
        if needed > r.remaining() {
            return Err(DecodeError::Truncated { needed, left: r.remaining() });
        }
        let start = r.clone();
        match T::BYTES_FIXED {
            Some(bytes) => {
                r.take(count * bytes)?;
            }
            None => {
                for _ in 0..count {
                    T::read(r)?;
                }
            }
        }
        let view = &start.rest()[..start.remaining() - r.remaining()];
        let elements = Elements::View { reader: start.over(view), count: count as u32 };
        Ok(Some(Array { elements }))
    }

    #[inline]
    fn write_nullable(value: Option<&Self>, w: &mut Writer) -> Result<(), EncodeError> {
        w.length(value.map(Array::len), false)?;
        match value.map(|value| &value.elements) {
            None => Ok(()),
            Some(Elements::Owned(elements)) => elements.iter().try_for_each(|e| e.write(w)),
            Some(Elements::Slice(elements)) => elements.iter().try_for_each(|e| e.write(w)),
            Some(Elements::View { reader, count }) => {
                let mut reader = reader.clone();
                (0..*count).try_for_each(|_| T::read(&mut reader).expect(CHECKED).write(w))
            }
        }
    }
}

/// Elements of an [`Array`].
#[derive(Clone, Debug)]
pub enum Iter<'b, 'a, T> {
    /// Those still to be read from the frame.
    View {
        /// Stands before the next element.
        reader: Reader<'a>,
        /// How many are left.
        left: u32,
    },
    /// Those in memory.
    Memory(slice::Iter<'b, T>),
}

impl<'a, T: Wire<'a>> Iterator for Iter<'_, 'a, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        match self {
            Iter::Memory(elements) => elements.next().cloned(),
            Iter::View { left: 0, .. } => None,
            Iter::View { reader, left } => {
                *left -= 1;
                Some(T::read(reader).expect(CHECKED))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match self {
            Iter::Memory(elements) => elements.len(),
            Iter::View { left, .. } => *left as usize,
        };
        (left, Some(left))
    }
}

impl<'a, T: Wire<'a>> ExactSizeIterator for Iter<'_, 'a, T> {}

impl<'b, 'a, T: Wire<'a>> IntoIterator for &'b Array<'a, T> {
    type Item = T;
    type IntoIter = Iter<'b, 'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T> Default for Array<'_, T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T: Clone> Clone for Array<'_, T> {
    fn clone(&self) -> Self {
        Array { elements: self.elements.clone() }
    }
}

impl<T> From<Vec<T>> for Array<'_, T> {
    fn from(elements: Vec<T>) -> Self {
        Array { elements: Elements::Owned(elements) }
    }
}

impl<'a, T> From<&'a [T]> for Array<'a, T> {
    fn from(elements: &'a [T]) -> Self {
        Array { elements: Elements::Slice(elements) }
    }
}

impl<T> FromIterator<T> for Array<'_, T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Vec::from_iter(elements).into()
    }
}

impl<'a, T: Wire<'a> + PartialEq> PartialEq for Array<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Wire<'a> + fmt::Debug> fmt::Debug for Array<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
