//! The data folders: whose they are, that nobody else uses them, and how the last broker ended.
//! Which of them a partition is in is for `places`.
//!
//! Each has `meta.properties` (Kafka's file: version, cluster.id, node.id, directory.id), `.lock`
//! held while the broker runs, and after a clean stop `.kafka_cleanshutdown` with the broker epoch.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use millrace_wire::Uuid;

use crate::config::{Config, absolute, properties};

const META: &str = "meta.properties";
const LOCK: &str = ".lock";
const CLEAN: &str = ".kafka_cleanshutdown";

/// Folder of the metadata log.
pub(crate) const METADATA_LOG: &str = "__cluster_metadata-0";

/// Why a data folder cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum DataDirError {
    #[error("data folder {path} is in use by another broker; stop that one, or choose another \
             folder with log.dirs", path = path.display())]
    InUse { path: PathBuf },
    #[error("data folder {path} is full: free some space, or choose another folder with \
             log.dirs", path = path.display())]
    Full { path: PathBuf },
    #[error("data folder {path} cannot be written: {error}; choose another folder with \
             log.dirs", path = path.display())]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("data folder {path} belongs to cluster {found}, not to {expected}; choose another \
             folder with log.dirs", path = path.display())]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error("data folder {path} belongs to node {found}, not to node {expected}; set \
             node.id={found}, or choose another folder with log.dirs", path = path.display())]
    OtherNode { path: PathBuf, found: String, expected: i32 },
    #[error("{path} is damaged: {what}", path = path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("log.dirs names {path} twice", path = path.display())]
    Repeated { path: PathBuf },
    #[error("log.dirs names {inner}, which lies in {outer}; choose folders beside each other",
            inner = inner.display(), outer = outer.display())]
    Nested { inner: PathBuf, outer: PathBuf },
    #[error("data folder {path} has partitions, such as {name}, and no folder of log.dirs has the \
             metadata log ({METADATA_LOG}) that knows them; add the folder that has it to \
             log.dirs", path = path.display())]
    NoMetadata { path: PathBuf, name: String },
    #[error("data folders {first} and {second} both have a metadata log ({METADATA_LOG}); move \
             one of the two away", first = first.display(), second = second.display())]
    TwoMetadata { first: PathBuf, second: PathBuf },
}

/// One data folder in use.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names say it
pub struct Folder {
    /// Absolute.
    pub path: PathBuf,
    pub id: Uuid,
    /// The last broker here stopped cleanly, and nothing was written since.
    pub was_clean: bool,
    /// The first of the folders that are on the same file system.
    pub disk: usize,
}

/// All data folders of the broker, locked.
#[derive(Debug)]
pub struct DataDir {
    /// Id of the cluster, the same in all folders.
    pub cluster_id: String,
    /// In the order of `log.dirs`.
    pub folders: Vec<Folder>,
    /// Which of them has the metadata log, or is to have it.
    pub metadata: usize,
    /// Held until the folders are closed.
    _locks: Vec<File>,
}

/// What `meta.properties` says.
struct Meta {
    cluster_id: String,
    node_id: String,
    directory_id: Uuid,
}

impl DataDir {
    /// Makes, locks and checks the folders of `log.dirs`; new ones join the cluster of the others.
    ///
    /// # Errors
    /// A folder is in use, full, unwritable, damaged, named twice, or belongs to somebody else; the
    /// metadata log is in none although there are partitions, or in two.
    pub fn open(config: &Config) -> Result<Self, DataDirError> {
        let paths = make_folders(&config.log_dirs)?;
        let mut locks = Vec::new();
        let mut metas = Vec::new();
        for path in &paths {
            locks.push(lock(path)?);
            metas.push(read_meta(path)?);
        }
        let of_first = metas.iter().find_map(|meta| Some(&meta.as_ref()?.cluster_id));
        let given = config.own.cluster_id.as_ref();
        let cluster_id = match given.or(of_first) {
            Some(id) => id.clone(),
            None => random_id().map_err(|error| unusable(&paths[0], error))?.to_string(),
        };
        for (path, meta) in paths.iter().zip(&metas) {
            let (Some(meta), path) = (meta, path.clone()) else { continue };
            if meta.cluster_id != cluster_id {
                let (found, expected) = (meta.cluster_id.clone(), cluster_id);
                return Err(DataDirError::OtherCluster { path, found, expected });
            }
            if meta.node_id != config.node_id.to_string() {
                let (found, expected) = (meta.node_id.clone(), config.node_id);
                return Err(DataDirError::OtherNode { path, found, expected });
            }
        }
        let metadata = metadata_folder(&paths)?;
        let mut folders = Vec::new();
        let mut devices = Vec::new();
        for (path, meta) in paths.into_iter().zip(metas) {
            let attempt = || {
                let id = match meta {
                    Some(meta) => meta.directory_id,
                    None => write_meta(&path, &cluster_id, config.node_id)?,
                };
                Ok((id, take_clean_mark(&path)?, fs::metadata(&path)?.dev()))
            };
            let (id, was_clean, device) = attempt().map_err(|error| unusable(&path, error))?;
            devices.push(device);
            let disk = devices.iter().position(|known| *known == device).expect("added just now");
            folders.push(Folder { path, id, was_clean, disk });
        }
        Ok(Self { cluster_id, folders, metadata, _locks: locks })
    }

    /// Says in every folder that all of it is on disk: the last thing a clean stop does.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn mark_clean(&self, broker_epoch: i64) -> io::Result<()> {
        let text = format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}");
        self.folders.iter().try_for_each(|folder| replace(&folder.path, CLEAN, text.as_bytes()))
    }
}

/// A new id. As Kafka's, its text does not begin with a dash, which would look like an option.
///
/// # Errors
/// The system's source of chance cannot be read.
pub fn random_id() -> io::Result<Uuid> {
    let mut source = File::open("/dev/urandom")?;
    loop {
        let mut bytes = [0; 16];
        source.read_exact(&mut bytes)?;
        let id = Uuid::from_bytes(bytes);
        if !id.to_string().starts_with('-') && !id.is_zero() {
            return Ok(id);
        }
    }
}

fn unusable(path: &Path, error: io::Error) -> DataDirError {
    let path = path.to_path_buf();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DataDirError::Full { path },
        _ => DataDirError::Unwritable { path, error },
    }
}

/// Makes the folders where they are missing; their absolute paths.
fn make_folders(named: &[PathBuf]) -> Result<Vec<PathBuf>, DataDirError> {
    let mut paths = Vec::new();
    let mut real: Vec<PathBuf> = Vec::new();
    for name in named {
        let attempt = || {
            fs::create_dir_all(name)?;
            Ok((absolute(name), name.canonicalize()?))
        };
        let (path, own) = attempt().map_err(|error| unusable(name, error))?;
        for other in &real {
            if own == *other {
                return Err(DataDirError::Repeated { path });
            }
            let (inner, outer) = if own.starts_with(other) { (&own, other) } else { (other, &own) };
            if inner.starts_with(outer) {
                let (inner, outer) = (inner.clone(), outer.clone());
                return Err(DataDirError::Nested { inner, outer });
            }
        }
        paths.push(path);
        real.push(own);
    }
    Ok(paths)
}

/// The folder with the metadata log, wherever it stands in `log.dirs`; the first for a new broker.
fn metadata_folder(paths: &[PathBuf]) -> Result<usize, DataDirError> {
    let mut having = (0..paths.len()).filter(|index| paths[*index].join(METADATA_LOG).is_dir());
    if let Some(first) = having.next() {
        return having.next().map_or(Ok(first), |second| {
            let (first, second) = (paths[first].clone(), paths[second].clone());
            Err(DataDirError::TwoMetadata { first, second })
        });
    }
    for path in paths {
        for entry in fs::read_dir(path).map_err(|error| unusable(path, error))? {
            let entry = entry.map_err(|error| unusable(path, error))?;
            if entry.path().join("partition.metadata").exists() {
                let name = entry.file_name().to_string_lossy().into_owned();
                return Err(DataDirError::NoMetadata { path: path.clone(), name });
            }
        }
    }
    Ok(0)
}

/// Takes the folder's lock, and shows that a block can be written there.
fn lock(path: &Path) -> Result<File, DataDirError> {
    let file = File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
    let file = file.map_err(|error| unusable(path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: path.into() }),
        Err(TryLockError::Error(error)) => return Err(unusable(path, error)),
    }
    let probe = path.join(".probe");
    let outcome = File::create(&probe)
        .and_then(|mut file| file.write_all(&[1; 4096]).and_then(|()| file.sync_data()));
    // A probe that stays is overwritten at the next start.
    let _ = fs::remove_file(&probe);
    outcome.map_err(|error| unusable(path, error))?;
    Ok(file)
}

fn read_meta(folder: &Path) -> Result<Option<Meta>, DataDirError> {
    let path = folder.join(META);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::Damaged { path, what: error.to_string() }),
    };
    let damaged = |what: String| DataDirError::Damaged { path: path.clone(), what };
    let entries = properties::parse(&text).map_err(|bad| damaged(bad.to_string()))?;
    let value = |key: &str| {
        let found = entries.iter().find(|entry| entry.key == key);
        found.map(|entry| entry.value.trim().to_owned())
    };
    let needed = |key: &str| value(key).ok_or_else(|| damaged(format!("{key} is missing")));
    let version = needed("version")?;
    if version != "1" {
        let what =
            format!("it has version {version}, which ZooKeeper's brokers wrote; 1 is needed");
        return Err(damaged(what));
    }
    let (cluster_id, node_id) = (needed("cluster.id")?, needed("node.id")?);
    let directory_id =
        needed("directory.id")?.parse().map_err(|_| damaged("directory.id is no id".into()))?;
    Ok(Some(Meta { cluster_id, node_id, directory_id }))
}

fn write_meta(folder: &Path, cluster_id: &str, node_id: i32) -> io::Result<Uuid> {
    let directory_id = random_id()?;
    let text = format!(
        "#\nversion=1\ncluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={directory_id}\n"
    );
    replace(folder, META, text.as_bytes())?;
    Ok(directory_id)
}

/// Removes the mark of a clean stop, so that it is there only if nothing was written since.
fn take_clean_mark(folder: &Path) -> io::Result<bool> {
    match fs::remove_file(folder.join(CLEAN)) {
        Ok(()) => File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file whole or not at all.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl DataDir {
        /// One folder of a simulated machine, where nobody else can take it.
        pub(crate) fn simulated() -> Self {
            let id = Uuid::from_halves(1, 1);
            let folder = Folder { path: "/data".into(), id, was_clean: false, disk: 0 };
            let cluster_id = Uuid::from_halves(2, 2).to_string();
            Self { cluster_id, folders: vec![folder], metadata: 0, _locks: Vec::new() }
        }
    }

    struct Temporary(PathBuf);

    impl Temporary {
        fn new() -> Self {
            let name = format!("millrace-{}", random_id().expect("there is chance"));
            Self(std::env::temp_dir().join(name))
        }

        fn config(&self, more: &[(&str, &str)]) -> Config {
            let path = self.0.to_str().expect("a plain path");
            Config::of([("log.dirs", path)].into_iter().chain(more.iter().copied()))
                .expect("legal values")
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn keeps_its_ids_and_knows_a_clean_stop() {
        let folder = Temporary::new();
        let config = folder.config(&[]);
        let first = DataDir::open(&config).expect("an empty folder");
        let (cluster, id) = (first.cluster_id.clone(), first.folders[0].id);
        assert!(!first.folders[0].was_clean);
        drop(first);
        let second = DataDir::open(&config).expect("the lock was released");
        assert_eq!((&second.cluster_id, second.folders[0].id), (&cluster, id));
        assert!(!second.folders[0].was_clean, "killed before");
        second.mark_clean(12).expect("writable");
        let mark = fs::read_to_string(folder.0.join(CLEAN)).expect("just written");
        assert_eq!(mark, "{\"version\":0,\"brokerEpoch\":12}");
        drop(second);
        assert!(DataDir::open(&config).expect("as before").folders[0].was_clean);
        assert!(!DataDir::open(&config).expect("as before").folders[0].was_clean, "taken once");
    }

    #[test]
    fn a_folder_of_kafka_is_read() {
        let folder = Temporary::new();
        fs::create_dir_all(&folder.0).expect("writable");
        let text = "#\n#Sat Nov 21 12:22:47 UTC 2026\nnode.id=1\n\
                    directory.id=NMYK5E-S_vjkvaHVLx3jXg\nversion=1\n\
                    cluster.id=AAAAAAAAQACAAAAAAAAAAA\n";
        fs::write(folder.0.join(META), text).expect("writable");
        let opened = DataDir::open(&folder.config(&[])).expect("Kafka's own file");
        assert_eq!(opened.cluster_id, "AAAAAAAAQACAAAAAAAAAAA");
        assert_eq!(opened.folders[0].id.to_string(), "NMYK5E-S_vjkvaHVLx3jXg");
    }

    #[test]
    fn refuses_a_folder_that_is_not_its_own() {
        let folder = Temporary::new();
        let config = folder.config(&[("millrace.cluster.id", "one")]);
        let open = DataDir::open(&config).expect("an empty folder");
        let refused = |config: &Config| DataDir::open(config).map(|_| ()).unwrap_err().to_string();
        assert!(refused(&config).contains("is in use by another broker"), "{}", refused(&config));
        drop(open);
        for (more, part) in [
            (("millrace.cluster.id", "two"), "belongs to cluster one, not to two"),
            (("node.id", "5"), "belongs to node 1, not to node 5; set node.id=1"),
        ] {
            let error = refused(&folder.config(&[more]));
            assert!(error.contains(part) && !error.contains('\n'), "{error}");
        }
        for (text, part) in [
            ("version=0\nbroker.id=1\n", "version 0, which ZooKeeper's brokers wrote"),
            ("version=1\ncluster.id=one\n", "node.id is missing"),
            ("version=1\ncluster.id=one\nnode.id=1\ndirectory.id=x\n", "directory.id is no id"),
        ] {
            fs::write(folder.0.join(META), text).expect("writable");
            let error = refused(&config);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn folders_are_apart_and_one_has_the_metadata() {
        let folder = Temporary::new();
        let open = |names: &[&str]| {
            let paths = names.iter().map(|name| folder.0.join(name).display().to_string());
            let dirs = paths.collect::<Vec<_>>().join(",");
            let config = Config::of([("log.dirs", dirs.as_str())]).expect("legal values");
            DataDir::open(&config)
        };
        let refused = |names: &[&str]| open(names).map(|_| ()).unwrap_err().to_string();
        let made = open(&["a", "./b/"]).expect("two new folders");
        assert_eq!(made.folders[1].path, folder.0.join("b"));
        assert_ne!(made.folders[0].id, made.folders[1].id);
        assert_eq!((made.metadata, made.folders[1].disk), (0, 0));
        drop(made);
        for (names, parts) in [
            (&["a", "b", "b/../a"][..], &["log.dirs names", "b/../a twice"][..]),
            (&["a", "a/in"][..], &["a/in, which lies in", "/a;"][..]),
            (&["c/in", "b", "c"][..], &["c/in, which lies in", "/c;"][..]),
        ] {
            let error = refused(names);
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let made = |path: &str| fs::create_dir_all(folder.0.join(path)).expect("writable");
        made("b/t-0");
        assert_eq!(open(&["a", "b"]).expect("nothing says it is a partition").metadata, 0);
        fs::write(folder.0.join("b/t-0/partition.metadata"), "").expect("writable");
        let error = refused(&["a", "b"]);
        assert!(error.contains("such as t-0, and no folder") && error.contains("/b "), "{error}");
        made(&format!("b/{METADATA_LOG}"));
        assert_eq!(open(&["a", "b"]).expect("the log is found").metadata, 1);
        made(&format!("a/{METADATA_LOG}"));
        let error = refused(&["a", "b"]);
        assert!(error.contains("both have a metadata log"), "{error}");
    }

    #[test]
    fn refuses_a_folder_that_cannot_be_written() {
        let folder = Temporary::new();
        fs::write(&folder.0, "a file").expect("writable");
        let error = DataDir::open(&folder.config(&[])).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("cannot be written"), "{error}");
        fs::remove_file(&folder.0).expect("just made");
    }
}
