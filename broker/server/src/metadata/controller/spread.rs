//! Which data folder a new partition goes to (`LogManager.nextLogDirs`).

use millrace_wire::Uuid;

use crate::metadata::image::Image;

/// Gives out folders: the one with the fewest partitions is next, the first of several.
pub struct Spread {
    /// Ids and how many partitions each has.
    folders: Vec<(Uuid, usize)>,
    is_counted: bool,
}

impl Spread {
    /// Over folders with these ids; their partitions are counted when the first is asked for.
    pub fn new(directories: impl IntoIterator<Item = Uuid>) -> Self {
        let folders = directories.into_iter().map(|id| (id, 0)).collect();
        Self { folders, is_counted: false }
    }

    /// The folder for one more partition of a node.
    pub fn next(&mut self, image: &Image, node_id: i32) -> Uuid {
        if !self.is_counted && self.folders.len() > 1 {
            for partition in image.topics().flat_map(|topic| &topic.partitions) {
                let directory = partition.directory_of(node_id);
                let folder = self.folders.iter_mut().find(|(id, _)| *id == directory);
                folder.into_iter().for_each(|(_, count)| *count += 1);
            }
        }
        self.is_counted = true;
        let fewest = self.folders.iter_mut().min_by_key(|(_, count)| *count);
        let (id, count) = fewest.expect("a broker has a data folder");
        *count += 1;
        *id
    }
}
