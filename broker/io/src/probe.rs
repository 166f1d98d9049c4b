//! What this machine offers: whether a ring can be made, and where not, which limit or setting is
//! in the way; and whether a file system takes direct writes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use crate::BLOCK_BYTES;

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
