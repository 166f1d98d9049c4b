//! What is stored in topics, logs and snapshots: a module per schema of `schemas/records`, and
//! what stands before a message where it is stored.

#![allow(clippy::all, reason = "generated")]

use crate::codec::Message;
use crate::reader::{DecodeError, Reader};
use crate::writer::{EncodeError, Writer};

include!(concat!(env!("OUT_DIR"), "/records.rs"));

/// Appends a metadata record: frame version 1, key and version as varints, and the message.
pub fn encode_metadata<'a, M: Message<'a>>(
    message: &M,
    version: i16,
    w: &mut Writer,
) -> Result<(), EncodeError> {
    w.uvarint(1);
    w.uvarint(M::API_KEY as u32);
    w.uvarint(version as u32);
    message.encode(w, version)
}

/// Key and version of the metadata record that follows in `r`.
pub fn decode_metadata_prefix(r: &mut Reader<'_>) -> Result<(i16, i16), DecodeError> {
    let mut number = || {
        let number = r.uvarint()?;
        i16::try_from(number).map_err(|_| DecodeError::Length(i64::from(number)))
    };
    match number()? {
        1 => Ok((number()?, number()?)),
        version => Err(DecodeError::Version { message: "metadata frame", version }),
    }
}

/// Appends what a coordinator stores: the version (of a value) or the key number (of a key) as an
/// int16, and the message.
pub fn encode_prefixed<'a, M: Message<'a>>(
    message: &M,
    prefix: i16,
    version: i16,
    w: &mut Writer,
) -> Result<(), EncodeError> {
    w.i16(prefix);
    message.encode(w, version)
}
