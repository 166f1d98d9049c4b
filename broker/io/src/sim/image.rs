//! The content of a simulated file: sparse blocks that copies share, and the changes made to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chance::Chance;
use crate::BLOCK_BYTES;

pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
const SECTOR_BYTES: usize = 512;

pub(super) type Block = Arc<[u8; BLOCK_BYTES]>;

/// The content of a file; blocks never written read as zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    blocks: BTreeMap<u64, Block>,
    bytes: u64,
}

impl Image {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn block(&self, index: u64) -> Option<&Block> {
        self.blocks.get(&index)
    }

    pub(super) fn set_bytes(&mut self, bytes: u64) {
        self.blocks.retain(|index, _| index * BLOCK < bytes);
        let tail = (bytes % BLOCK) as usize;
        if tail > 0
            && let Some(block) = self.blocks.get_mut(&(bytes / BLOCK))
        {
            Arc::make_mut(block)[tail..].fill(0);
        }
        self.bytes = bytes;
    }

    pub(super) fn read(&self, position: u64, into: &mut [u8]) -> usize {
        let count = self.bytes.saturating_sub(position).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < count {
            let at = position + done as u64;
            let from = (at % BLOCK) as usize;
            let part = (BLOCK_BYTES - from).min(count - done);
            match self.blocks.get(&(at / BLOCK)) {
                Some(block) => {
                    into[done..done + part].copy_from_slice(&block[from..from + part]);
                }
                None => into[done..done + part].fill(0),
            }
            done += part;
        }
        count
    }

    /// Takes over some of the block's sectors.
    pub(super) fn tear(&mut self, index: u64, content: &Block, chance: &mut Chance) {
        let block = self.blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
        let block = Arc::make_mut(block);
        for (old, new) in block.chunks_mut(SECTOR_BYTES).zip(content.chunks(SECTOR_BYTES)) {
            if chance.below(2) == 0 {
                old.copy_from_slice(new);
            }
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Block { index, content } => {
                self.blocks.insert(*index, Arc::clone(content));
            }
            Change::Bytes(bytes) => self.set_bytes(*bytes),
        }
    }
}

/// One change of a file that no flush has covered yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The whole content of a block after a write to any part of it.
    Block { index: u64, content: Block },
    /// A new length. Comes before the blocks that lie in what it adds.
    Bytes(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    pub(super) current: Image,
    pub(super) durable: Image,
    /// Changes that no flush has covered, numbered in order.
    pub(super) changes: Vec<(u64, Change)>,
    /// Blocks in the page cache.
    pub(super) cached: BTreeSet<u64>,
}

impl FileNode {
    /// Makes the changes numbered below `end` durable.
    pub(super) fn flush(&mut self, end: u64) {
        let covered = self.changes.partition_point(|(number, _)| *number < end);
        for (_, change) in self.changes.drain(..covered) {
            self.durable.apply(&change);
        }
    }

    /// The power goes: of the changes that no flush has covered, some are kept.
    pub(super) fn cut(&mut self, chance: &mut Chance, keep_percent: u64, torn_blocks: bool) {
        // Lengths are journalled in order: they are kept as far as some point of it.
        let lengths = self.changes.iter().filter(|(_, change)| matches!(change, Change::Bytes(_)));
        let mut lengths_kept = chance.below(lengths.count() as u64 + 1);
        for (_, change) in std::mem::take(&mut self.changes) {
            match &change {
                Change::Bytes(_) if lengths_kept > 0 => {
                    lengths_kept -= 1;
                    self.durable.apply(&change);
                }
                Change::Bytes(_) => {}
                Change::Block { index, content } => {
                    if torn_blocks && chance.below(8) == 0 {
                        self.durable.tear(*index, content, chance);
                    } else if chance.below(100) < keep_percent {
                        self.durable.apply(&change);
                    }
                }
            }
        }
        // Blocks that arrived without the length that covers them are out of sight.
        let bytes = self.durable.bytes();
        self.durable.set_bytes(bytes);
        self.current = self.durable.clone();
        self.cached.clear();
    }
}
