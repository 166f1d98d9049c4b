//! Headers of batches that lie in the log: which ones may be believed.

use millrace_wire::batch::Batch;
pub(crate) use millrace_wire::batch::{BatchHeader, HEADER_BYTES};

/// Reads a header; `None` when it cannot be one: too short, of another format, or with offsets that
/// do not exist.
pub(crate) fn parse(bytes: &[u8]) -> Option<BatchHeader> {
    let header = BatchHeader::parse(bytes).ok()?;
    let (base, delta) = (header.base_offset, header.last_offset_delta);
    let exists = base >= 0 && delta >= 0 && base.checked_add(i64::from(delta) + 1).is_some();
    exists.then_some(header)
}

/// The offset after the batch.
pub(crate) fn next_offset(header: &BatchHeader) -> i64 {
    header.last_offset() + 1
}

/// Whether the CRC of a whole batch is right.
pub(crate) fn is_intact(bytes: &[u8]) -> bool {
    Batch::parse(bytes).is_ok_and(|(batch, _)| batch.verify_crc().is_ok())
}
