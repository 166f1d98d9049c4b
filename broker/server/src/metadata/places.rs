//! Which data folder each partition is in, and what the start of the broker makes of it.
//!
//! The metadata say it (`directories`, KIP-858), and `controller::spread` chose it. What people
//! have moved by hand meanwhile is taken where it is found. A partition that is in two folders, or
//! in one that is not there, stops the start: guessing would lose records.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use millrace_io::Io;
use millrace_log::{LogError, PartitionLog};
use millrace_wire::Uuid;

use super::controller::{Found, Spread};
use super::data_dir::Folder;
use super::image::{Image, Partition, Topic};

/// Ids up to this one stand for no folder, such as "unassigned" (Kafka: `DirectoryId`).
const RESERVED_ID_MAX: Uuid = Uuid::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100]);

/// Ends the name of a folder that is to be deleted.
pub(crate) const DELETED: &str = "-delete";
/// Ends the name of a folder that a partition is copied to, to be moved.
pub(crate) const MOVING: &str = "-future";

/// Bytes of a file's name, for all file systems in use.
const NAME_BYTES_MAX: usize = 255;

/// Missing partitions that an error names.
const NAMES_SHOWN: usize = 5;

/// Why the partitions cannot be served as they lie. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum PlaceError {
    #[error("partition {name} is in two data folders, {first} and {second}; keep one of the two \
             and move the other out of the folders of log.dirs",
            first = first.display(), second = second.display())]
    Twice { name: String, first: PathBuf, second: PathBuf },
    #[error(
        "{count} partitions ({names}) are in the data folder with directory.id={directory}, \
             which is none of log.dirs; add it to log.dirs again (is its disk mounted?), or, if it \
             is lost for good, begin its partitions anew, empty, with \
             millrace.lost.log.dirs={directory}"
    )]
    Missing { count: usize, names: String, directory: Uuid },
    #[error("data folder {path} cannot be used: {error}", path = path.display())]
    Unusable { path: PathBuf, error: io::Error },
}

/// The name of a partition's folder that is not in use: as Kafka's, but with the topic's id.
pub(crate) fn marked(topic: &str, partition: i32, topic_id: Uuid, mark: &str) -> String {
    let end = format!("-{partition}.{topic_id}{mark}");
    // Names of topics are ASCII.
    format!("{}{end}", &topic[..topic.len().min(NAME_BYTES_MAX - end.len())])
}

/// Partition and topic id in such a name.
fn read_marked(name: &str, mark: &str) -> Option<(i32, Uuid)> {
    let (head, id) = name.strip_suffix(mark)?.rsplit_once('.')?;
    Some((head.rsplit_once('-')?.1.parse().ok()?, id.parse().ok()?))
}

impl Partition {
    /// Id of the data folder in which a node has its replica; zero is none.
    pub fn directory_of(&self, node_id: i32) -> Uuid {
        let replicas = self.replicas.iter().zip(&*self.directories);
        replicas.into_iter().find(|(id, _)| **id == node_id).map_or(Uuid::ZERO, |(_, dir)| *dir)
    }

    /// The directories once the node's replica is in another.
    pub fn directories_with(&self, node_id: i32, directory: Uuid) -> Vec<Uuid> {
        let known = |(index, id): (usize, &i32)| match self.directories.get(index) {
            _ if *id == node_id => directory,
            known => known.copied().unwrap_or(Uuid::ZERO),
        };
        self.replicas.iter().enumerate().map(known).collect()
    }
}

/// The broker's data folders and what it is told about them.
pub struct Places<'a> {
    /// In the order of `log.dirs`.
    pub folders: &'a [Folder],
    /// Which of them has the metadata log.
    pub metadata: usize,
    /// `millrace.lost.log.dirs`.
    pub lost: &'a [String],
    /// This node.
    pub node_id: i32,
}

impl Places<'_> {
    /// Ends the moves between folders that the metadata have, and removes the copies of those that
    /// they have not. Blocks.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn finish_moves<I: Io>(&self, io: &mut I, image: &Image) -> Result<(), PlaceError> {
        for folder in self.folders {
            let failed = |error| PlaceError::Unusable { path: folder.path.clone(), error };
            for copy in io.read_dir(&folder.path).map_err(failed)? {
                let name = copy.file_name().unwrap_or_default().to_string_lossy();
                if !name.ends_with(MOVING) {
                    continue;
                }
                let moved = read_marked(&name, MOVING).and_then(|(number, topic_id)| {
                    let topic = image.topic_by_id(topic_id)?;
                    let directory = topic.partition(number)?.directory_of(self.node_id);
                    (directory == folder.id).then_some((topic, number))
                });
                match moved {
                    None => io.remove_dir(&copy),
                    Some((topic, number)) => self.finish_move(io, folder, &copy, topic, number),
                }
                .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The old files go before the copy takes their name: it is the copy that tells of the move.
    fn finish_move<I: Io>(
        &self,
        io: &mut I,
        to: &Folder,
        copy: &Path,
        topic: &Topic,
        number: i32,
    ) -> io::Result<()> {
        let name = format!("{}-{number}", topic.name);
        for from in self.folders {
            let old = PartitionLog::read_topic_id(io, &from.path.join(&name));
            // Whatever else is there stays, and `find` tells of it.
            if from.id != to.id && old.is_ok_and(|id| id == topic.id) {
                let gone = marked(&topic.name, number, topic.id, DELETED);
                io.rename(&from.path.join(&name), &from.path.join(gone))?;
                io.sync_dir(&from.path)?;
            }
        }
        io.rename(copy, &to.path.join(&name))?;
        io.sync_dir(&to.path)
    }

    /// The partitions that are in another folder than `image` says, and where. Blocks.
    ///
    /// # Errors
    /// A partition is in two folders, or its folder is gone and not given up.
    pub fn find<I: Io>(&self, io: &mut I, image: &Image) -> Result<Found, PlaceError> {
        let mut found = Found::new();
        let mut missing: BTreeMap<Uuid, Vec<String>> = BTreeMap::new();
        let mut spread = Spread::new(self.folders.iter().map(|folder| (folder.id, false)));
        let mut names = None;
        for topic in image.topics() {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let directory = partition.directory_of(self.node_id);
                if self.folders.len() == 1 && self.folders[0].id == directory {
                    continue;
                }
                let names = match &names {
                    Some(names) => names,
                    None => names.insert(self.names(io)?),
                };
                let name = format!("{}-{number}", topic.name);
                let expected = self.expected(image, directory);
                let is_named = |index: &usize| names[*index].contains(OsStr::new(&name));
                let mut holders: Vec<usize> = (0..self.folders.len()).filter(is_named).collect();
                if holders.len() > 1 || expected.is_none_or(|index| holders != [index]) {
                    // Folders of this name that another topic left do not count.
                    holders.retain(|index| self.is_of(io, *index, &name, topic.id));
                }
                let index = match (&holders[..], expected) {
                    ([only], _) => *only,
                    ([], Some(index)) => index,
                    ([], None) if self.is_given_up(directory) => {
                        if directory > RESERVED_ID_MAX {
                            crate::log_line!("{name} begins anew, empty: its folder is lost");
                        }
                        found.insert((topic.id, number), spread.next(image, self.node_id));
                        continue;
                    }
                    ([], None) => {
                        missing.entry(directory).or_default().push(name);
                        continue;
                    }
                    ([first, second, ..], _) => {
                        let [first, second] =
                            [first, second].map(|index| self.folders[*index].path.clone());
                        return Err(PlaceError::Twice { name, first, second });
                    }
                };
                if self.folders[index].id != directory {
                    found.insert((topic.id, number), self.folders[index].id);
                }
            }
        }
        missing.into_iter().next().map_or(Ok(found), |(directory, mut names)| {
            let count = names.len();
            if count > NAMES_SHOWN {
                names.truncate(NAMES_SHOWN);
                names.push("...".into());
            }
            Err(PlaceError::Missing { count, names: names.join(", "), directory })
        })
    }

    /// Where a partition of this folder id should be. The folder with the metadata may have a new
    /// id, when somebody removed its `meta.properties`.
    fn expected(&self, image: &Image, directory: Uuid) -> Option<usize> {
        let known = self.folders.iter().position(|folder| folder.id == directory);
        let before = image.brokers().get(&self.node_id).map_or(&[][..], |own| &own.directories);
        let is_renamed =
            before.first() == Some(&directory) && !before.contains(&self.folders[self.metadata].id);
        known.or(is_renamed.then_some(self.metadata))
    }

    fn is_given_up(&self, directory: Uuid) -> bool {
        directory <= RESERVED_ID_MAX || self.lost.contains(&directory.to_string())
    }

    fn names<I: Io>(&self, io: &mut I) -> Result<Vec<BTreeSet<OsString>>, PlaceError> {
        let of = |Folder { path, .. }: &Folder| match io.read_dir(path) {
            Ok(entries) => Ok(entries.iter().filter_map(|p| Some(p.file_name()?.into())).collect()),
            Err(error) => Err(PlaceError::Unusable { path: path.clone(), error }),
        };
        self.folders.iter().map(of).collect()
    }

    fn is_of<I: Io>(&self, io: &mut I, index: usize, name: &str, topic_id: Uuid) -> bool {
        match PartitionLog::read_topic_id(io, &self.folders[index].path.join(name)) {
            Ok(found) => found == topic_id,
            // Its making was interrupted: nothing is in it.
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => false,
            // Whatever it is, nothing is to be made beside it.
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_io::sim::{SimIo, SimWorld};
    use millrace_log::LogConfig;
    use millrace_wire::stored::{PartitionRecord, RegisterBrokerRecord, TopicRecord};

    use super::super::MetadataRecord;
    use super::*;

    const TOPIC: Uuid = Uuid::from_bytes([9; 16]);
    const OTHER: Uuid = Uuid::from_bytes([8; 16]);
    const LOST: Uuid = Uuid::from_bytes([3; 16]);
    const RENAMED: Uuid = Uuid::from_bytes([4; 16]);

    fn id(index: u64) -> Uuid {
        Uuid::from_halves(7, index)
    }

    fn folder(index: u64) -> Folder {
        Folder { path: format!("/{index}").into(), id: id(index), was_clean: false, disk: 0 }
    }

    /// A topic `t` of one partition; the broker had these folders.
    fn image(directory: Uuid, before: [Uuid; 2]) -> Image {
        let registration = RegisterBrokerRecord {
            broker_id: 1,
            log_dirs: before.to_vec().into(),
            ..Default::default()
        };
        let topic = TopicRecord { name: "t", topic_id: TOPIC, ..Default::default() };
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id: TOPIC,
            replicas: vec![1].into(),
            isr: vec![1].into(),
            leader: 1,
            directories: vec![directory].into(),
            ..Default::default()
        };
        let mut image = Image::default();
        let records = [
            MetadataRecord::of(&registration, 3),
            MetadataRecord::of(&topic, 0),
            MetadataRecord::of(&partition, 1),
        ];
        image.apply(&records).expect("they fit together");
        image
    }

    /// Where `t-0` is taken to be: `None` is where the metadata say.
    fn found(present: &[(u64, Uuid)], directory: Uuid, lost: &str) -> Result<Option<Uuid>, String> {
        found_in(present, &image(directory, [RENAMED, id(1)]), lost)
    }

    fn found_in(
        present: &[(u64, Uuid)],
        image: &Image,
        lost: &str,
    ) -> Result<Option<Uuid>, String> {
        let mut io: SimIo = SimWorld::new(1).make_io();
        let folders = [folder(0), folder(1)];
        for Folder { path, .. } in &folders {
            io.create_dir(path).expect("an empty disk");
        }
        for (index, topic_id) in present {
            let dir = folders[*index as usize].path.join("t-0");
            PartitionLog::create(&mut io, &dir, *topic_id, LogConfig::default())
                .expect("no faults");
        }
        let lost = [lost.to_owned()];
        let places = Places { folders: &folders, metadata: 0, lost: &lost, node_id: 1 };
        let found = places.find(&mut io, image).map_err(|error| error.to_string())?;
        Ok(found.get(&(TOPIC, 0)).copied())
    }

    #[test]
    fn a_partition_is_taken_where_it_is() {
        let (zero, unassigned) = (id(0), Uuid::ZERO);
        for (present, directory, expected) in [
            (&[][..], zero, None),
            (&[(0, TOPIC)][..], zero, None),
            (&[(1, TOPIC)][..], zero, Some(id(1))),
            // What another topic of the name left is not it.
            (&[(1, OTHER)][..], zero, None),
            (&[(0, OTHER), (1, TOPIC)][..], zero, Some(id(1))),
            (&[(0, TOPIC), (1, OTHER)][..], zero, None),
            (&[(1, TOPIC)][..], LOST, Some(id(1))),
            (&[][..], unassigned, Some(zero)),
            (&[(1, TOPIC)][..], unassigned, Some(id(1))),
            // The folder of the metadata got another id.
            (&[][..], RENAMED, Some(zero)),
        ] {
            assert_eq!(found(present, directory, ""), Ok(expected), "{present:?} {directory}");
        }
    }

    #[test]
    fn what_is_twice_or_gone_is_named() {
        let twice = found(&[(0, TOPIC), (1, TOPIC)], id(0), "").expect_err("which is it?");
        assert!(twice.starts_with("partition t-0 is in two data folders, /0 and /1;"), "{twice}");
        for present in [&[][..], &[(0, OTHER)][..]] {
            let gone = found(present, LOST, "").expect_err("its records are elsewhere");
            let text =
                format!("1 partitions (t-0) are in the data folder with directory.id={LOST}");
            assert!(gone.starts_with(&text), "{gone}");
            assert!(gone.ends_with(&format!("millrace.lost.log.dirs={LOST}")), "{gone}");
            assert_eq!(found(present, LOST, &LOST.to_string()), Ok(Some(id(0))));
        }
        // It was the first of two, and the folder of the metadata is the other.
        let gone = found_in(&[], &image(LOST, [LOST, id(0)]), "").expect_err("as before");
        assert!(gone.starts_with("1 partitions (t-0)"), "{gone}");
    }
    /// A crash at any moment of a move leaves the partition once, where the metadata have it.
    #[test]
    fn a_move_that_was_interrupted_ends_at_the_start() {
        let copy = marked("t", 0, TOPIC, MOVING);
        assert_eq!(read_marked(&copy, MOVING), Some((0, TOPIC)));
        let gone = marked("t", 0, TOPIC, DELETED);
        for (first, second, directory, expected) in [
            // Copied, not moved.
            (Some("t-0"), Some(&copy), id(0), [&["t-0"][..], &[]]),
            // Moved; then the old one is renamed; then the copy.
            (Some("t-0"), Some(&copy), id(1), [&[gone.as_str()][..], &["t-0"]]),
            (Some(gone.as_str()), Some(&copy), id(1), [&[gone.as_str()][..], &["t-0"]]),
            (Some(gone.as_str()), Some(&"t-0".to_owned()), id(1), [&[gone.as_str()][..], &["t-0"]]),
            // The topic is gone, or another of its name is there.
            (None, Some(&marked("t", 0, OTHER, MOVING)), id(1), [&[][..], &[]]),
            (None, Some(&marked("u", 7, TOPIC, MOVING)), id(1), [&[][..], &[]]),
        ] {
            let mut io: SimIo = SimWorld::new(1).make_io();
            let folders = [folder(0), folder(1)];
            for (Folder { path, .. }, name) in folders.iter().zip([first, second.map(|n| &**n)]) {
                io.create_dir(path).expect("an empty disk");
                let made = name.map(|name| {
                    let dir = path.join(name);
                    PartitionLog::create(&mut io, &dir, TOPIC, LogConfig::default()).map(|_| ())
                });
                made.unwrap_or(Ok(())).expect("no faults");
            }
            let places = Places { folders: &folders, metadata: 0, lost: &[], node_id: 1 };
            let image = image(directory, [id(0), id(1)]);
            places.finish_moves(&mut io, &image).expect("no faults");
            let names = places.names(&mut io).expect("no faults");
            let found: Vec<Vec<_>> =
                names.iter().map(|names| names.iter().map(OsString::as_os_str).collect()).collect();
            assert_eq!(
                found,
                expected.map(|names| names.iter().map(OsStr::new).collect::<Vec<_>>())
            );
            assert_eq!(places.find(&mut io, &image).expect("it is once").len(), 0);
        }
    }
}
