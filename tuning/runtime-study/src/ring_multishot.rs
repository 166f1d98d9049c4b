//! The server on a plain ring that receives by completion: a receive that stays armed for each
//! connection, into buffers that the kernel picks from a ring of them.

use std::alloc::{Layout, alloc_zeroed};
use std::io::{Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode};

use crate::frame::{Received, cut, replies};
use crate::ring;

const LISTENER: u64 = u64::MAX;
const GROUP: u16 = 0;
const BUFFERS: u16 = 32;
const BUFFER_BYTES: usize = 64 << 10;

/// Buffers shared with the kernel. They live as long as the process.
struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> Result<Self> {
        let page = |bytes| Layout::from_size_align(bytes, 4096).expect("a power of two");
        let entries_bytes = usize::from(BUFFERS) * size_of::<BufRingEntry>();
        // SAFETY: neither layout is of size 0.
        let (entries, bytes) = unsafe {
            let bytes = alloc_zeroed(page(usize::from(BUFFERS) * BUFFER_BYTES));
            (alloc_zeroed(page(entries_bytes)).cast::<BufRingEntry>(), bytes)
        };
        assert!(!entries.is_null() && !bytes.is_null(), "memory for the buffers");
        // SAFETY: the entries are page-aligned, as many as said, and never freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)?;
        }
        let mut buffers = Self { entries, bytes, tail: 0 };
        for buffer in 0..BUFFERS {
            buffers.give(buffer);
        }
        Ok(buffers)
    }

    /// The first bytes of a buffer that a completion named.
    fn bytes(&self, buffer: u16, count: usize) -> &[u8] {
        assert!(buffer < BUFFERS && count <= BUFFER_BYTES, "what the kernel was given");
        // SAFETY: within the allocation, asserted above; the kernel does not write to a buffer
        // between its completion and `give`.
        unsafe {
            std::slice::from_raw_parts(self.bytes.add(usize::from(buffer) * BUFFER_BYTES), count)
        }
    }

    /// Lets the kernel fill the buffer again.
    fn give(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `place` is below the number of entries; the kernel reads an entry only after the
        // tail has moved beyond it. The first entry holds the tail in a field that the setters
        // leave alone.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(self.bytes.add(usize::from(buffer) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned field of the first entry, which the kernel only reads.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

fn receive(ring: &mut IoUring, fd: RawFd, token: u64) {
    let receive = opcode::RecvMulti::new(Fd(fd), GROUP).build().user_data(token);
    // SAFETY: the receive uses only the registered buffers, which are never freed.
    let pushed = unsafe { ring.submission().push(&receive) };
    pushed.expect("fewer connections are armed at once than the ring has entries");
}

pub fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut ring = ring::build()?;
    let mut buffers = Buffers::register(&ring)?;
    ring::poll(&mut ring, listener.as_raw_fd(), LISTENER);
    let mut connections: Vec<Option<(TcpStream, Received)>> = Vec::new();
    let mut completions: Vec<cqueue::Entry> = Vec::new();
    loop {
        ring.submit_and_wait(1)?;
        completions.extend(ring.completion());
        for completion in completions.drain(..) {
            let token = completion.user_data();
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    receive(&mut ring, stream.as_raw_fd(), connections.len() as u64);
                    connections.push(Some((stream, Received::new())));
                }
                continue;
            }
            let place = &mut connections[token as usize];
            let Some((stream, received)) = place else { continue };
            let result = completion.result();
            if let (1.., Some(buffer)) = (result, cqueue::buffer_select(completion.flags())) {
                let requests = take(received, buffers.bytes(buffer, result as usize));
                buffers.give(buffer);
                if requests > 0 {
                    stream.write_all(replies(requests))?;
                }
            }
            if result <= 0 && result != -libc::ENOBUFS {
                *place = None;
            } else if !cqueue::more(completion.flags()) {
                receive(&mut ring, stream.as_raw_fd(), token);
            }
        }
    }
}

/// Requests that are whole now. Only what is left of one is copied.
fn take(received: &mut Received, mut bytes: &[u8]) -> usize {
    let mut requests = 0;
    while !received.is_empty() && !bytes.is_empty() {
        let room = received.room();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        requests += received.take(count);
        bytes = &bytes[count..];
    }
    let (whole, end) = cut(bytes);
    let rest = &bytes[end..];
    received.room()[..rest.len()].copy_from_slice(rest);
    requests + whole + received.take(rest.len())
}
