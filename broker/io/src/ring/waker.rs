//! Waking a sleeping ring from other threads, with one system call per sleep at most.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Waker;

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const CALLED: u8 = 2;

/// State: `AWAKE` while the owner works, `ASLEEP` while it may sleep in the kernel, `CALLED` from
/// the first `wake` until the owner has seen it. Only a caller that finds `ASLEEP` writes to the
/// event descriptor, which the ring polls.
#[derive(Debug)]
pub(super) struct RingWaker {
    state: AtomicU8,
    event: File,
}

impl RingWaker {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made by eventfd, and nobody else owns it.
        let event = unsafe { File::from_raw_fd(fd) };
        Ok(Self { state: AtomicU8::new(AWAKE), event })
    }

    /// The descriptor to poll, edge-triggered: it is never read, each write is an edge.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// The owner is about to sleep. `false`: it was called already and must not.
    pub(super) fn fall_asleep(&self) -> bool {
        let asleep = (AWAKE, ASLEEP);
        self.state.compare_exchange(asleep.0, asleep.1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The owner works again. Returns whether it was called since the last time.
    pub(super) fn rise(&self) -> bool {
        self.state.swap(AWAKE, Ordering::SeqCst) == CALLED
    }
}

impl Waker for RingWaker {
    fn wake(&self) {
        if self.state.swap(CALLED, Ordering::SeqCst) == ASLEEP {
            let written = (&self.event).write(&1u64.to_ne_bytes());
            // A full counter cannot be: it takes 2^64 writes.
            assert!(written.is_ok(), "an event descriptor takes 8 bytes");
        }
    }
}
