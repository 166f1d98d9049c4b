//! Bytes owed to one client, in order: memory goes out in vectored sends, file ranges by
//! `sendfile`.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};
use millrace_io::{ChunkSlice, Io, SocketId};
use millrace_log::{FileRange, READ_AHEAD_BYTES};

use crate::limits;
use crate::request::{Payload, Reply};

/// An idle connection keeps no more memory for replies than this.
const KEPT_TAIL_BYTES: usize = 4096;

enum Item<I: Io> {
    Bytes(Bytes),
    Slice(ChunkSlice, usize),
    /// Of a range that turned out to be cold, the kernel was asked to read up to `asked`.
    File {
        range: FileRange<I::File>,
        asked: Option<u64>,
    },
}

/// What a call of [`SendQueue::send`] came to.
pub(crate) enum Progress<I: Io> {
    /// All is sent.
    Empty,
    /// The socket takes no more: wait until it is writable.
    Blocked,
    /// The connection had its share of this turn.
    Share,
    /// The next bytes are not in the page cache: bring them in first.
    Cold(FileRange<I::File>),
}

/// Invariant: `bytes` is what is left of `items` and `tail`.
pub(crate) struct SendQueue<I: Io> {
    items: VecDeque<Item<I>>,
    /// Replies without payloads are gathered here, behind all items.
    tail: Vec<u8>,
    /// How much of `tail` is sent. Invariant: 0 while there are items.
    tail_sent: usize,
    bytes: usize,
}

impl<I: Io> SendQueue<I> {
    pub(crate) fn new() -> Self {
        Self { items: VecDeque::new(), tail: Vec::new(), tail_sent: 0, bytes: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a reply.
    pub(crate) fn push(&mut self, reply: Reply<I>) {
        let head = reply.bytes;
        self.bytes += head.len();
        let mut taken = 0;
        for (position, payload) in reply.payloads {
            self.tail.extend_from_slice(&head[taken..position]);
            taken = position;
            self.seal_tail();
            self.bytes += payload.len();
            self.items.push_back(match payload {
                Payload::Memory(slice) => Item::Slice(slice, 0),
                Payload::File(range) => Item::File { range, asked: None },
            });
        }
        if self.tail.is_empty() && taken == 0 {
            self.tail = head;
        } else {
            self.tail.extend_from_slice(&head[taken..]);
        }
    }

    /// Turns the tail into an item, so that a payload can follow it.
    fn seal_tail(&mut self) {
        let mut tail = Bytes::from(std::mem::take(&mut self.tail));
        tail.advance(std::mem::take(&mut self.tail_sent));
        if !tail.is_empty() {
            self.items.push_back(Item::Bytes(tail));
        }
    }

    /// Sends as much as the socket and the share of a turn allow.
    pub(crate) fn send(&mut self, io: &mut I, socket: SocketId) -> io::Result<Progress<I>> {
        let mut share = limits::SEND_BYTES_PER_TURN;
        loop {
            if self.bytes == 0 {
                return Ok(Progress::Empty);
            }
            if share == 0 {
                return Ok(Progress::Share);
            }
            let sent = match self.items.front_mut() {
                Some(Item::File { range, asked }) => {
                    let bytes = range.bytes.min(limits::SEND_FILE_BYTES);
                    let is_cold = !io.is_cached(&range.file, range.position, bytes);
                    if is_cold || asked.is_some() {
                        // Not too far: what others read or write waits behind it.
                        let until = range.position + READ_AHEAD_BYTES as u64;
                        let end = range.position + range.bytes as u64;
                        *asked = Some(range.read_ahead(io, asked.unwrap_or(0), until, end));
                    }
                    if is_cold {
                        return Ok(Progress::Cold(FileRange { bytes, ..range.clone() }));
                    }
                    io.send_file(socket, &range.file, range.position, bytes)
                }
                _ => self.send_memory(io, socket),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.consume(sent);
                    share = share.saturating_sub(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send_memory(&self, io: &mut I, socket: SocketId) -> io::Result<usize> {
        const SLICES: usize = 16;
        if self.items.is_empty() {
            return io.send(socket, &[IoSlice::new(&self.tail[self.tail_sent..])]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for item in self.items.iter().take(SLICES) {
            slices[count] = match item {
                Item::Bytes(bytes) => IoSlice::new(bytes),
                Item::Slice(slice, sent) => IoSlice::new(&slice[*sent..]),
                Item::File { .. } => break,
            };
            count += 1;
        }
        if count == self.items.len() && count < SLICES && !self.tail.is_empty() {
            slices[count] = IoSlice::new(&self.tail[self.tail_sent..]);
            count += 1;
        }
        io.send(socket, &slices[..count])
    }

    fn consume(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while sent > 0 {
            let Some(item) = self.items.front_mut() else {
                self.tail_sent += sent;
                if self.tail_sent == self.tail.len() {
                    self.tail.clear();
                    self.tail_sent = 0;
                    self.tail.shrink_to(KEPT_TAIL_BYTES);
                }
                return;
            };
            let left = match item {
                Item::Bytes(bytes) => {
                    let step = sent.min(bytes.len());
                    bytes.advance(step);
                    sent -= step;
                    bytes.len()
                }
                Item::Slice(slice, done) => {
                    let step = sent.min(slice.len() - *done);
                    *done += step;
                    sent -= step;
                    slice.len() - *done
                }
                Item::File { range, .. } => {
                    let step = sent.min(range.bytes);
                    range.position += step as u64;
                    range.bytes -= step;
                    sent -= step;
                    range.bytes
                }
            };
            if left == 0 {
                self.items.pop_front();
            }
        }
    }
}
