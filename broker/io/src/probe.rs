//! What this machine offers: whether a ring can be made, and where not, which limit or setting is
//! in the way; and whether the data folder takes direct writes. Each answer prints as one sentence.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use thiserror::Error;

use crate::BLOCK_BYTES;

/// Why no ring can be made here. The epoll twin of the broker needs none of this.
#[derive(Debug, Error)]
pub enum RingProblem {
    /// The system call does not exist.
    #[error("this kernel ({kernel}) was built without io_uring")]
    NotInKernel {
        /// Release of the running kernel.
        kernel: String,
    },
    /// A flag, feature or operation that we need is newer than the kernel.
    #[error("io_uring of this kernel ({kernel}) is too old: Linux 6.1 or newer is needed")]
    KernelTooOld {
        /// Release of the running kernel.
        kernel: String,
    },
    /// `kernel.io_uring_disabled` is 1 (for processes outside its group) or 2.
    #[error(
        "io_uring is disabled on this host: set sysctl kernel.io_uring_disabled to 0 (now {value})"
    )]
    Disabled {
        /// The setting's value.
        value: u32,
    },
    /// A seccomp filter denies it.
    #[error(
        "io_uring is forbidden to this process, most likely by the container's seccomp profile: \
         allow io_uring_setup, io_uring_enter and io_uring_register in it"
    )]
    Forbidden,
    /// The rings' memory counts against the limit on locked memory.
    #[error(
        "the limit on locked memory (memlock, now {limit_kib} KiB) is too small for io_uring: \
         raise it to 8 MiB (`ulimit -l 8192`, LimitMEMLOCK=8M, or --ulimit memlock=8388608)"
    )]
    MemoryLimit {
        /// The limit of this process in KiB.
        limit_kib: u64,
    },
    /// The process has no descriptor left for a ring.
    #[error(
        "no file descriptor is left for a ring: raise the limit on open files (nofile, `ulimit -n`)"
    )]
    DescriptorLimit,
    /// Anything else.
    #[error("no io_uring can be made: {0}")]
    Other(#[source] io::Error),
}

/// What the rings of this kernel can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RingFacts {
    /// Release of the running kernel.
    pub kernel: String,
    /// Optional features found, by the name of their flag.
    pub features: Vec<&'static str>,
}

impl fmt::Display for RingFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring of Linux {} ({})", self.kernel, self.features.join(", "))
    }
}

/// Makes a ring like those of the shards, and gives it back.
pub fn ring() -> Result<RingFacts, RingProblem> {
    let features = crate::ring::features()?;
    Ok(RingFacts { kernel: kernel_release(), features })
}

impl From<io::Error> for RingProblem {
    /// The problem behind the error of a ring's setup on this host.
    fn from(error: io::Error) -> Self {
        explain(error, kernel_release(), io_uring_disabled(), memlock_kib())
    }
}

/// The problem behind the error of a setup: several causes share one error number.
fn explain(error: io::Error, kernel: String, disabled: u32, memlock_kib: u64) -> RingProblem {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => RingProblem::NotInKernel { kernel },
        Some(libc::EPERM | libc::EACCES) if disabled > 0 => {
            RingProblem::Disabled { value: disabled }
        }
        Some(libc::EPERM | libc::EACCES) => RingProblem::Forbidden,
        Some(libc::ENOMEM) => RingProblem::MemoryLimit { limit_kib: memlock_kib },
        Some(libc::EMFILE | libc::ENFILE) => RingProblem::DescriptorLimit,
        Some(libc::EINVAL) => RingProblem::KernelTooOld { kernel },
        _ if error.kind() == io::ErrorKind::Unsupported => RingProblem::KernelTooOld { kernel },
        _ => RingProblem::Other(error),
    }
}

fn first_line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel_release() -> String {
    first_line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned())
}

/// 0 also where the setting does not exist (before Linux 6.6).
fn io_uring_disabled() -> u32 {
    let value = first_line("/proc/sys/kernel/io_uring_disabled");
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn memlock_kib() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives across the call.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur / 1024
}

/// What a file says about direct I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectIo {
    /// Alignment of memory in bytes; 0 where direct I/O is refused or only pretended.
    pub memory_align_bytes: u32,
    /// Alignment of positions and lengths in bytes; 0 likewise.
    pub position_align_bytes: u32,
}

impl DirectIo {
    /// Whether direct writes of whole blocks of ours are accepted.
    pub fn is_usable(self) -> bool {
        let fits = |align: u32| align > 0 && BLOCK_BYTES.is_multiple_of(align as usize);
        fits(self.memory_align_bytes) && fits(self.position_align_bytes)
    }
}

impl fmt::Display for DirectIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_align_bytes: memory, position_align_bytes: position } = self;
        match (memory, self.is_usable()) {
            (_, true) => write!(
                f,
                "direct writes, memory aligned to {memory} bytes and positions to {position}"
            ),
            (0, false) => write!(f, "buffered writes: the file system refuses direct I/O"),
            (_, false) => write!(
                f,
                "buffered writes: direct I/O asks for blocks of {position} bytes, more than \
                 {BLOCK_BYTES}"
            ),
        }
    }
}

/// What a file in this folder says about direct I/O. Makes a file there, and removes it.
pub fn data_dir(path: &Path) -> io::Result<DirectIo> {
    let probe = path.join(format!(".direct-io-probe-{}", std::process::id()));
    let file = File::create(&probe)?;
    let facts = direct_io(&file);
    std::fs::remove_file(&probe)?;
    facts
}

/// Asks the file's file system (`statx` with `STATX_DIOALIGN`, Linux 6.1). tmpfs is answered with
/// zeros: it takes O_DIRECT and copies all the same.
pub fn direct_io(file: &File) -> io::Result<DirectIo> {
    let fd = file.as_raw_fd();
    // SAFETY: all bit patterns are valid for these plain C structs.
    let (mut facts, mut system) =
        unsafe { (std::mem::zeroed::<libc::statx>(), std::mem::zeroed::<libc::statfs>()) };
    // SAFETY: `system` lives across the call.
    if unsafe { libc::fstatfs(fd, &raw mut system) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
    // SAFETY: the path is a C string, empty so that the descriptor is meant; `facts` lives across
    // the call.
    if unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut facts) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let refused = DirectIo { memory_align_bytes: 0, position_align_bytes: 0 };
    if system.f_type == libc::TMPFS_MAGIC {
        return Ok(refused);
    }
    if facts.stx_mask & libc::STATX_DIOALIGN == 0 {
        // Neither yes nor no: the open with O_DIRECT decides, and whole blocks suit every device.
        let unknown = BLOCK_BYTES as u32;
        return Ok(DirectIo { memory_align_bytes: unknown, position_align_bytes: unknown });
    }
    Ok(DirectIo {
        memory_align_bytes: facts.stx_dio_mem_align,
        position_align_bytes: facts.stx_dio_offset_align,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_names_the_setting_to_change() {
        let rows = [
            (libc::ENOSYS, 0, "built without io_uring"),
            (libc::EINVAL, 0, "6.1 or newer"),
            (libc::EPERM, 2, "kernel.io_uring_disabled to 0 (now 2)"),
            (libc::EPERM, 0, "seccomp"),
            (libc::ENOMEM, 0, "memlock, now 64 KiB"),
            (libc::EMFILE, 0, "nofile"),
            (libc::EIO, 0, "no io_uring can be made"),
        ];
        for (number, disabled, part) in rows {
            let error = io::Error::from_raw_os_error(number);
            let sentence = explain(error, "5.4.0".to_owned(), disabled, 64).to_string();
            assert!(sentence.contains(part), "{sentence}");
        }
    }

    #[test]
    fn direct_io_needs_alignments_that_divide_our_blocks() {
        let rows = [
            ((0, 0), "buffered writes: the file system"),
            ((512, 512), "direct writes"),
            ((4, 4096), "direct writes"),
            ((4096, 65536), "buffered writes: direct I/O asks for blocks of 65536"),
        ];
        for ((memory_align_bytes, position_align_bytes), part) in rows {
            let facts = DirectIo { memory_align_bytes, position_align_bytes };
            assert!(facts.to_string().contains(part), "{facts}");
            assert_eq!(facts.is_usable(), part == "direct writes");
        }
    }

    #[test]
    fn the_data_folder_is_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        data_dir(folder.path()).expect("a folder of ours");
        assert_eq!(std::fs::read_dir(folder.path()).expect("still there").count(), 0);
        let missing = data_dir(&folder.path().join("missing")).expect_err("no such folder");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
