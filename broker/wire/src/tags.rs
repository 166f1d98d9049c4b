//! Tagged fields: reading a section, keeping what the schema does not name, and writing it back.

use std::fmt;

use crate::reader::{DecodeError, Reader};
use crate::writer::{EncodeError, Writer};

/// The tagged fields of a struct that its schema does not name, as they came.
#[derive(Clone, Copy)]
pub struct UnknownTags<'a> {
    /// The section after its count, known fields included; empty when all fields were known.
    section: &'a [u8],
    /// Bit n: tag n is known. Tags from 64 on never are.
    known: u64,
}

impl<'a> UnknownTags<'a> {
    /// No unknown tagged field.
    pub const NONE: UnknownTags<'static> = UnknownTags { section: &[], known: 0 };

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.section.is_empty()
    }

    /// Tag and content of each, in the order of the frame.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a [u8])> + use<'a> {
        const CHECKED: &str = "the section was checked when it was read";
        let known = self.known;
        let mut reader = Reader::new(self.section);
        let fields = std::iter::from_fn(move || {
            (reader.remaining() > 0).then(|| {
                let tag = reader.uvarint().expect(CHECKED);
                let bytes = reader.uvarint().expect(CHECKED);
                (tag, reader.take(bytes as usize).expect(CHECKED))
            })
        });
        fields.filter(move |&(tag, _)| !is_known(known, tag))
    }
}

fn is_known(known: u64, tag: u32) -> bool {
    tag < 64 && known >> tag & 1 == 1
}

impl Default for UnknownTags<'_> {
    fn default() -> Self {
        UnknownTags::NONE
    }
}

impl PartialEq for UnknownTags<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.is_empty() && other.is_empty() || self.iter().eq(other.iter())
    }
}

impl fmt::Debug for UnknownTags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Reads the content of a known tag and answers true, or false for a tag it does not know.
pub(crate) type ReadTag<'f, 'a> =
    &'f mut dyn FnMut(&mut Reader<'a>, u32) -> Result<bool, DecodeError>;

impl<'a> Reader<'a> {
    /// The tag section of a struct without tagged fields of its own.
    #[inline]
    pub(crate) fn unknown_tags(&mut self) -> Result<UnknownTags<'a>, DecodeError> {
        match (self.flexible(), self.rest()) {
            (false, _) => Ok(UnknownTags::NONE),
            (true, [0, ..]) => self.take(1).map(|_| UnknownTags::NONE),
            (true, _) => self.tags(&mut |_, _| Ok(false)),
        }
    }

    pub(crate) fn tags(&mut self, read: ReadTag<'_, 'a>) -> Result<UnknownTags<'a>, DecodeError> {
        if !self.flexible() {
            return Ok(UnknownTags::NONE);
        }
        let count = self.uvarint()?;
        let section = self.rest();
        let mut tags = UnknownTags { section: &[], known: 0 };
        let mut any_unknown = false;
        for _ in 0..count {
            let tag = self.uvarint()?;
            let bytes = self.uvarint()?;
            let content = self.take(bytes as usize)?;
            let mut content = self.over(content);
            if read(&mut content, tag)? {
                if content.remaining() > 0 {
                    return Err(DecodeError::Tag(content.remaining()));
                }
                tags.known |= 1 << tag;
            } else {
                any_unknown = true;
            }
        }
        if any_unknown {
            tags.section = &section[..section.len() - self.remaining()];
        }
        Ok(tags)
    }
}

/// Writes a tag section, whose count is known only at its end; unknown fields go between the known.
pub(crate) struct TagWriter<'u, 'a> {
    position: usize,
    count: u32,
    unknown: &'u UnknownTags<'a>,
    /// Tags below this one are written.
    next: u32,
}

impl<'u, 'a> TagWriter<'u, 'a> {
    #[inline]
    pub(crate) fn begin(w: &mut Writer, unknown: &'u UnknownTags<'a>) -> Self {
        TagWriter { position: w.bytes().len(), count: 0, unknown, next: 0 }
    }

    /// Writes a known field; the tags of a struct come in rising order.
    pub(crate) fn field(
        &mut self,
        w: &mut Writer,
        tag: u32,
        write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.write_unknown(w, self.next..tag);
        self.next = tag + 1;
        w.uvarint(tag);
        let position = w.bytes().len();
        write(w)?;
        let bytes = w.bytes().len() - position;
        w.insert_uvarint(position, u32::try_from(bytes).map_err(|_| EncodeError::TooLong(bytes))?);
        self.count += 1;
        Ok(())
    }

    #[inline]
    pub(crate) fn end(mut self, w: &mut Writer) -> Result<(), EncodeError> {
        if !w.flexible() {
            return Ok(());
        }
        if !self.unknown.is_empty() {
            self.write_unknown(w, self.next..u32::MAX);
        }
        match self.count {
            0 => w.u8(0),
            count => w.insert_uvarint(self.position, count),
        }
        Ok(())
    }

    fn write_unknown(&mut self, w: &mut Writer, tags: std::ops::Range<u32>) {
        for (tag, content) in self.unknown.iter().filter(|(tag, _)| tags.contains(tag)) {
            w.uvarint(tag);
            w.uvarint(content.len() as u32);
            w.raw(content);
            self.count += 1;
        }
    }
}
