//! The header of a record batch as the log reads it.

/// Bytes before the records of a batch.
pub(crate) const HEADER_BYTES: usize = 61;
/// Bytes before and in the length field; the length counts what follows.
pub(crate) const LENGTH_END: usize = 12;

/// What the log needs to know of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base_offset: i64,
    /// Whole batch, header included.
    pub(crate) bytes: usize,
    pub(crate) leader_epoch: i32,
    pub(crate) magic: i8,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
}

impl Header {
    /// Reads a header; `None` when there are too few bytes or the length field is impossible.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let i32_at = |at: usize| i32::from_be_bytes(*bytes[at..].first_chunk().expect("in header"));
        let i64_at = |at: usize| i64::from_be_bytes(*bytes[at..].first_chunk().expect("in header"));
        let i16_at = |at: usize| i16::from_be_bytes(*bytes[at..].first_chunk().expect("in header"));
        let length = usize::try_from(i32_at(8)).ok()?;
        let header = Self {
            base_offset: i64_at(0),
            bytes: length + LENGTH_END,
            leader_epoch: i32_at(12),
            magic: bytes[16] as i8,
            attributes: i16_at(21),
            last_offset_delta: i32_at(23),
            max_timestamp: i64_at(35),
            producer_id: i64_at(43),
            producer_epoch: i16_at(51),
            base_sequence: i32_at(53),
        };
        let sane = header.bytes >= HEADER_BYTES
            && header.magic == 2
            && header.last_offset_delta >= 0
            && header.base_offset >= 0
            && header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1).is_some();
        sane.then_some(header)
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & (1 << 4) != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & (1 << 5) != 0
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }
}

impl Header {
    /// Puts the base offset and the leader epoch into the start of a batch; the CRC covers neither.
    pub(crate) fn stamp(&self, batch: &mut [u8]) {
        batch[..8].copy_from_slice(&self.base_offset.to_be_bytes());
        batch[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
    }
}

/// Marks a whole batch as stamped by the log at `ms`, and computes its CRC anew.
pub(crate) fn stamp_log_append_time(batch: &mut [u8], ms: i64) {
    batch[22] |= 1 << 3;
    batch[35..43].copy_from_slice(&ms.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// CRC-32C.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Whether the CRC of a whole batch is right.
pub(crate) fn is_intact(batch: &[u8]) -> bool {
    batch[17..21] == crc32c(&batch[21..]).to_be_bytes()
}
