//! The simulated disk: what processes see now, what the device keeps for certain, and what lies
//! between the two.
//!
//! Every file and folder has a current and a durable state, and the changes made since the durable
//! one, in order. A flush moves changes over; a power cut keeps some of them: each block of 4 KiB
//! by itself, lengths and names as far as some point of their order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::chance::Chance;
use super::image::{BLOCK, Change, FileNode};
use crate::BLOCK_BYTES;

/// Names a file or folder for as long as its world lives.
pub(super) type NodeId = u64;
const ROOT: NodeId = 0;

/// One change of a folder's entries that no flush has covered yet.
#[derive(Clone, Debug)]
enum NameChange {
    Add(OsString, NodeId),
    Remove(OsString),
    Rename(OsString, OsString),
}

type Entries = BTreeMap<OsString, NodeId>;

#[derive(Clone, Debug, Default)]
struct FolderNode {
    current: Entries,
    durable: Entries,
    changes: Vec<(u64, NameChange)>,
}

fn apply_name(entries: &mut Entries, change: &NameChange) {
    match change {
        NameChange::Add(name, node) => {
            entries.insert(name.clone(), *node);
        }
        NameChange::Remove(name) => {
            entries.remove(name);
        }
        NameChange::Rename(from, to) => {
            if let Some(node) = entries.remove(from) {
                entries.insert(to.clone(), node);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Folder(FolderNode),
}

/// Which part of a failed or cut write reaches the disk.
pub(super) enum Kept {
    All,
    First(usize),
    Some,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<NodeId, Node>,
    node_next: NodeId,
    /// Orders all changes: a flush covers those below the value it saw.
    change_next: u64,
    /// Invariant: the lengths of all reachable files stay within it.
    pub(super) capacity_bytes: Option<u64>,
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn not_a_folder() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOTDIR)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl Disk {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Folder(FolderNode::default()))]);
        Self { nodes, node_next: ROOT + 1, change_next: 0, capacity_bytes: None }
    }

    /// Changes made from now on are at or above this number.
    pub(super) fn change_next(&self) -> u64 {
        self.change_next
    }

    // -- names ------------------------------------------------------------------------------

    fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
        path.components().filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_os_string()),
            _ => None,
        })
    }

    fn folder(&mut self, node: NodeId) -> Option<&mut FolderNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Some(folder),
            _ => None,
        }
    }

    fn entries(&self, node: NodeId) -> Option<&Entries> {
        match self.nodes.get(&node) {
            Some(Node::Folder(folder)) => Some(&folder.current),
            _ => None,
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<NodeId> {
        Self::names(path).try_fold(ROOT, |node, name| self.entries(node)?.get(&name).copied())
    }

    fn parent_of(&self, path: &Path) -> io::Result<(NodeId, OsString)> {
        let name = Self::names(path).last().ok_or_else(|| missing(path))?;
        let parent = path.parent().and_then(|parent| self.find(parent));
        match parent {
            Some(node) if self.entries(node).is_some() => Ok((node, name)),
            _ => Err(missing(path)),
        }
    }

    fn change_names(&mut self, folder: NodeId, change: NameChange) {
        let number = self.change_next;
        self.change_next += 1;
        let folder = self.folder(folder).expect("the caller found it to be a folder");
        apply_name(&mut folder.current, &change);
        folder.changes.push((number, change));
    }

    pub(super) fn open(&mut self, path: &Path, create: bool) -> io::Result<NodeId> {
        match self.find(path) {
            Some(node) if matches!(self.nodes[&node], Node::File(_)) => Ok(node),
            Some(_) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            None if create => {
                let (parent, name) = self.parent_of(path)?;
                let node = self.add_node(Node::File(FileNode::default()));
                self.change_names(parent, NameChange::Add(name, node));
                Ok(node)
            }
            None => Err(missing(path)),
        }
    }

    fn add_node(&mut self, node: Node) -> NodeId {
        let id = self.node_next;
        self.node_next += 1;
        self.nodes.insert(id, node);
        id
    }

    /// Makes one folder; its parent exists. Nothing happens when it is there already.
    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        match self.find(path) {
            Some(node) if self.entries(node).is_some() => Ok(()),
            Some(_) => Err(not_a_folder()),
            None => {
                let (parent, name) = self.parent_of(path)?;
                let node = self.add_node(Node::Folder(FolderNode::default()));
                self.change_names(parent, NameChange::Add(name, node));
                Ok(())
            }
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.find(from).ok_or_else(|| missing(from))?;
        let (source, old) = self.parent_of(from)?;
        let (target, new) = self.parent_of(to)?;
        if source == target {
            self.change_names(source, NameChange::Rename(old, new));
        } else {
            self.change_names(target, NameChange::Add(new, node));
            self.change_names(source, NameChange::Remove(old));
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path).ok_or_else(|| missing(path))?;
        if self.entries(node).is_some() {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        }
        let (parent, name) = self.parent_of(path)?;
        self.change_names(parent, NameChange::Remove(name));
        Ok(())
    }

    pub(super) fn remove_empty_dir(&mut self, path: &Path) -> io::Result<()> {
        let node = self.find(path).ok_or_else(|| missing(path))?;
        match self.entries(node) {
            Some(entries) if entries.is_empty() => {}
            Some(_) => return Err(io::Error::from_raw_os_error(libc::ENOTEMPTY)),
            None => return Err(not_a_folder()),
        }
        let (parent, name) = self.parent_of(path)?;
        self.change_names(parent, NameChange::Remove(name));
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let node = self.find(path).ok_or_else(|| missing(path))?;
        let entries = self.entries(node).ok_or_else(not_a_folder)?;
        Ok(entries.keys().map(|name| path.join(name)).collect())
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        self.find(path).is_some_and(|node| self.entries(node).is_some())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let end = self.change_next;
        let node = self.find(path).ok_or_else(|| missing(path))?;
        flush_names(self.folder(node).ok_or_else(not_a_folder)?, end);
        Ok(())
    }

    /// The path of a file, for messages and for faults planned by name.
    pub(super) fn path_of(&self, node: NodeId) -> Option<PathBuf> {
        let mut open = vec![(ROOT, PathBuf::from("/"))];
        while let Some((folder, path)) = open.pop() {
            for (name, &child) in self.entries(folder)? {
                if child == node {
                    return Some(path.join(name));
                }
                if self.entries(child).is_some() {
                    open.push((child, path.join(name)));
                }
            }
        }
        None
    }

    // -- content ----------------------------------------------------------------------------

    fn file(&mut self, node: NodeId) -> &mut FileNode {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => file,
            _ => panic!("a file handle of another world"),
        }
    }

    pub(super) fn file_bytes(&self, node: NodeId) -> u64 {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => file.current.bytes(),
            _ => panic!("a file handle of another world"),
        }
    }

    fn reachable(&self) -> BTreeSet<NodeId> {
        let mut seen = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(node) = open.pop() {
            for &child in self.entries(node).into_iter().flat_map(Entries::values) {
                if seen.insert(child) {
                    open.push(child);
                }
            }
        }
        seen
    }

    fn check_space(&self, growth: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let used: u64 = self
            .reachable()
            .iter()
            .filter(|node| matches!(self.nodes[node], Node::File(_)))
            .map(|&node| self.file_bytes(node))
            .sum();
        if used + growth > capacity { Err(no_space()) } else { Ok(()) }
    }

    fn change(&mut self, node: NodeId, change: Change) {
        let number = self.change_next;
        self.change_next += 1;
        let file = self.file(node);
        file.current.apply(&change);
        file.changes.push((number, change));
    }

    /// Sets the length, up or down.
    pub(super) fn set_file_bytes(&mut self, node: NodeId, bytes: u64) -> io::Result<()> {
        self.check_space(bytes.saturating_sub(self.file_bytes(node)))?;
        self.file(node).cached.retain(|index| index * BLOCK < bytes);
        self.change(node, Change::Bytes(bytes));
        Ok(())
    }

    pub(super) fn allocate(&mut self, node: NodeId, position: u64, bytes: u64) -> io::Result<()> {
        let end = position + bytes;
        if end > self.file_bytes(node) { self.set_file_bytes(node, end) } else { Ok(()) }
    }

    /// Writes the blocks of `bytes` that are `kept`. A direct write drops them from the page cache,
    /// a buffered one puts them there.
    pub(super) fn write(
        &mut self,
        node: NodeId,
        position: u64,
        bytes: &[u8],
        direct: bool,
        kept: &Kept,
        chance: &mut Chance,
    ) -> io::Result<usize> {
        let end = position + bytes.len() as u64;
        if end > self.file_bytes(node) {
            self.check_space(end - self.file_bytes(node))?;
        }
        let mut done = 0;
        let mut count = 0;
        while done < bytes.len() {
            let at = position + done as u64;
            let (index, from) = (at / BLOCK, (at % BLOCK) as usize);
            let part = (BLOCK_BYTES - from).min(bytes.len() - done);
            let keep = match kept {
                Kept::All => true,
                Kept::First(blocks) => count < *blocks,
                Kept::Some => chance.below(2) == 0,
            };
            if keep {
                self.write_block(node, index, from, &bytes[done..done + part], direct);
            }
            done += part;
            count += 1;
        }
        Ok(bytes.len())
    }

    fn write_block(&mut self, node: NodeId, index: u64, from: usize, bytes: &[u8], direct: bool) {
        let end = index * BLOCK + (from + bytes.len()) as u64;
        if end > self.file_bytes(node) {
            self.change(node, Change::Bytes(end));
        }
        let file = self.file(node);
        let mut content: [u8; BLOCK_BYTES] =
            file.current.block(index).map_or([0; BLOCK_BYTES], |block| **block);
        content[from..from + bytes.len()].copy_from_slice(bytes);
        if direct {
            file.cached.remove(&index);
        } else {
            file.cached.insert(index);
        }
        self.change(node, Change::Block { index, content: Arc::new(content) });
    }

    pub(super) fn read(&mut self, node: NodeId, position: u64, into: &mut [u8]) -> usize {
        let file = self.file(node);
        let count = file.current.read(position, into);
        if count > 0 {
            let end = position + count as u64;
            file.cached.extend(position / BLOCK..end.div_ceil(BLOCK));
        }
        count
    }

    pub(super) fn fetch_pages(&mut self, node: NodeId, position: u64, bytes: usize) {
        let file = self.file(node);
        let end = (position + bytes as u64).min(file.current.bytes());
        file.cached.extend(position / BLOCK..end.div_ceil(BLOCK));
    }

    pub(super) fn is_cached(&mut self, node: NodeId, position: u64, bytes: usize) -> bool {
        let last = position + (bytes as u64).max(1) - 1;
        let file = self.file(node);
        last < file.current.bytes()
            && file.cached.contains(&(position / BLOCK))
            && file.cached.contains(&(last / BLOCK))
    }

    pub(super) fn evict(&mut self, node: NodeId, position: u64) {
        self.file(node).cached.remove(&(position / BLOCK));
    }

    pub(super) fn drop_caches(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.cached.clear();
            }
        }
    }

    // -- durability -------------------------------------------------------------------------

    /// Makes the file's changes numbered below `end` durable.
    pub(super) fn flush(&mut self, node: NodeId, end: u64) {
        self.file(node).flush(end);
    }

    /// Makes all changes numbered below `end` durable, of files and folders.
    pub(super) fn flush_all(&mut self, end: u64) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.flush(end),
                Node::Folder(folder) => flush_names(folder, end),
            }
        }
    }

    /// A flush failed: of the changes it should have covered, some become durable, and the others
    /// are forgotten by the page cache, so that no later flush will write them either.
    pub(super) fn fail_flush(&mut self, node: Option<NodeId>, end: u64, chance: &mut Chance) {
        for (&id, other) in &mut self.nodes {
            if node.is_some_and(|node| node != id) {
                continue;
            }
            if let Node::File(file) = other {
                let covered = file.changes.partition_point(|(number, _)| *number < end);
                for (_, change) in file.changes.drain(..covered) {
                    if matches!(change, Change::Bytes(_)) || chance.below(2) == 0 {
                        file.durable.apply(&change);
                    }
                }
            }
        }
    }

    /// The disk as found after the power went now.
    pub(super) fn after_power_cut(&self, chance: &mut Chance, torn_blocks: bool) -> Self {
        let mut disk = self.clone();
        // Whole cuts that keep all or nothing find different bugs than mixed ones.
        let keep_percent = [0, 50, 90, 100][chance.below(4) as usize];
        for node in disk.nodes.values_mut() {
            match node {
                Node::File(file) => file.cut(chance, keep_percent, torn_blocks),
                Node::Folder(folder) => {
                    let kept = chance.below(folder.changes.len() as u64 + 1) as usize;
                    for (_, change) in folder.changes.drain(..).take(kept) {
                        apply_name(&mut folder.durable, &change);
                    }
                    folder.current = folder.durable.clone();
                }
            }
        }
        let reachable = disk.reachable();
        disk.nodes.retain(|node, _| reachable.contains(node));
        disk
    }
}

fn flush_names(folder: &mut FolderNode, end: u64) {
    let covered = folder.changes.partition_point(|(number, _)| *number < end);
    for (_, change) in folder.changes.drain(..covered) {
        apply_name(&mut folder.durable, &change);
    }
}
