//! Which data folder a new partition goes to (`LogManager.nextLogDirs`).

use millrace_wire::Uuid;

use crate::metadata::image::Image;

/// Gives out folders: the one with the fewest partitions is next, the first of several.
pub struct Spread {
    folders: Vec<Folder>,
    is_counted: bool,
}

struct Folder {
    id: Uuid,
    /// New partitions go there only if nowhere else (`cordoned.log.dirs`).
    is_cordoned: bool,
    partitions: usize,
}

impl Spread {
    /// Over folders with these ids, and whether each is cordoned; their partitions are counted when
    /// the first is asked for.
    pub fn new(folders: impl IntoIterator<Item = (Uuid, bool)>) -> Self {
        let folders = folders.into_iter();
        let folders = folders.map(|(id, is_cordoned)| Folder { id, is_cordoned, partitions: 0 });
        Self { folders: folders.collect(), is_counted: false }
    }

    /// Whether all folders are cordoned.
    pub fn is_closed(&self) -> bool {
        self.folders.iter().all(|folder| folder.is_cordoned)
    }

    /// The folder for one more partition of a node.
    pub fn next(&mut self, image: &Image, node_id: i32) -> Uuid {
        if !self.is_counted && self.folders.len() > 1 {
            for partition in image.topics().flat_map(|topic| &topic.partitions) {
                let id = partition.directory_of(node_id);
                let folder = self.folders.iter_mut().find(|folder| folder.id == id);
                folder.into_iter().for_each(|folder| folder.partitions += 1);
            }
        }
        self.is_counted = true;
        let order = |folder: &&mut Folder| (folder.is_cordoned, folder.partitions);
        let next = self.folders.iter_mut().min_by_key(order).expect("a broker has a data folder");
        next.partitions += 1;
        next.id
    }
}
