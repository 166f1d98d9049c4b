//! The newest offset of each key, in memory of a bounded size.
//!
//! Keys are known by 128 bits of a keyed hash (SipHash, new keys for each map), so nobody can send
//! two keys that are taken for one; by chance that happens to one of 10^20 pairs. As Kafka's
//! `SkimpyOffsetMap` an entry is 24 bytes.

use std::hash::{BuildHasher, RandomState};

/// Bytes of an entry.
const SLOT_BYTES: usize = size_of::<Slot>();

/// The hash, and the offset plus one; 0 is free.
type Slot = [u64; 3];

/// Invariant: at least one slot is free, so every search ends.
pub(crate) struct KeyMap {
    slots: Vec<Slot>,
    used: usize,
    used_max: usize,
    hashers: [RandomState; 2],
}

impl KeyMap {
    /// A map of at most `bytes_max` of memory, filled up to `load_max` (0 to 1) of it, and no
    /// larger than `keys_max` keys need.
    pub(crate) fn new(bytes_max: usize, load_max: f64, keys_max: u64) -> Self {
        let load_max = load_max.clamp(0.1, 0.95);
        let needed = (keys_max as f64 / load_max) as usize + 2;
        let slots = (bytes_max / SLOT_BYTES).clamp(2, needed);
        let used_max = ((slots as f64 * load_max) as usize).clamp(1, slots - 1);
        let hashers = [RandomState::new(), RandomState::new()];
        Self { slots: vec![[0; 3]; slots], used: 0, used_max, hashers }
    }

    /// Notes a key's newest offset. Returns false when there is no room for a new key.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let (hash, slot) = self.find(key);
        if self.slots[slot][2] == 0 {
            if self.used == self.used_max {
                return false;
            }
            self.used += 1;
        }
        self.slots[slot] = [hash[0], hash[1], offset.unsigned_abs() + 1];
        true
    }

    /// The newest offset of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let (_, slot) = self.find(key);
        self.slots[slot][2].checked_sub(1).map(u64::cast_signed)
    }

    /// The hash, and the slot that holds the key or is free for it.
    fn find(&self, key: &[u8]) -> ([u64; 2], usize) {
        let hash = [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)];
        let mut slot = (hash[0] % self.slots.len() as u64) as usize;
        while self.slots[slot][2] != 0 && self.slots[slot][..2] != hash {
            slot = (slot + 1) % self.slots.len();
        }
        (hash, slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_each_key_is_kept_while_there_is_room() {
        let mut map = KeyMap::new(100 * SLOT_BYTES, 0.9, u64::MAX >> 12);
        for offset in 0..180 {
            let key = [(offset % 90) as u8];
            assert!(map.put(&key, offset));
        }
        assert!(!map.put(b"one more", 180), "90 of 100 are used");
        assert!(map.put(&[7], 181), "a known key needs no room");
        assert_eq!(map.get(&[7]), Some(181));
        assert_eq!(map.get(&[89]), Some(179));
        assert_eq!(map.get(b"one more"), None);
    }

    #[test]
    fn memory_follows_the_bound_and_the_need() {
        let cases = [
            // bytes, keys, slots
            (24_000, 1 << 40, 1000),
            (24_000, 9, 12),
            (0, 9, 2),
        ];
        for (bytes_max, keys_max, slots) in cases {
            assert_eq!(KeyMap::new(bytes_max, 0.9, keys_max).slots.len(), slots);
        }
    }
}
