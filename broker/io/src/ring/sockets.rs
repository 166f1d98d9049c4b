//! Sockets of a ring: the ring accepts and reports readiness, plain non-blocking system calls move
//! the bytes, straight between the kernel and the caller's buffers.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use bytes::BytesMut;
use io_uring::{opcode, squeue, types::Fd};

use super::queue::{Completion, GENERATIONS, Purpose, Queue};
use super::slab::Slab;
use super::{Ready, RingStream};
use crate::{Event, Instant, ListenerId, SocketId, is_shortage};

/// Connections that may wait for their accept.
const BACKLOG: i32 = 4096;
/// A process that was killed with rings keeps its ports for some 5 ms.
const BIND_TRIES: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(5);
/// After an accept that failed for want of descriptors or memory. Connections wait in the backlog.
const ACCEPT_PAUSE_MS: u64 = 100;

const READABLE: u32 = (libc::POLLIN | libc::POLLRDHUP) as u32;
const WRITABLE: u32 = libc::POLLOUT as u32;
/// No more bytes will come after those that have.
const ENDED: u32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;

struct Listener {
    socket: TcpListener,
    /// Accepting was paused; when to go on.
    retry_at: Option<Instant>,
}

struct Socket {
    stream: TcpStream,
    /// Tells the readiness of this connection from that of an earlier one with the same number.
    generation: u32,
    /// The end of the stream or an error is behind the bytes that wait.
    ended: bool,
    writable_wanted: bool,
    /// It is reported as readable only when so many bytes wait.
    low_water: usize,
}

impl Socket {
    /// Sets from how many bytes on it is readable (`SO_RCVLOWAT`, socket(7)); returns how many the
    /// kernel made of it.
    fn set_low_water(&mut self, bytes: usize) -> io::Result<usize> {
        if self.low_water == bytes {
            return Ok(bytes);
        }
        let fd = self.stream.as_raw_fd();
        let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVLOWAT);
        let mut value = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
        let mut size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: `value` is `size` bytes long, and both live across the calls.
        let done = unsafe {
            libc::setsockopt(fd, level, option, (&raw const value).cast(), size) == 0
                && libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut size) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        self.low_water = value as usize;
        Ok(self.low_water)
    }

    /// Bytes that wait to be received.
    fn waiting_bytes(&self) -> io::Result<usize> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and `bytes` lives across the call.
        match unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } {
            0 => Ok(bytes as usize),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

pub(super) struct Sockets {
    listeners: Slab<Listener>,
    sockets: Slab<Socket>,
    generation_next: u32,
    /// Invariant: how many listeners have a `retry_at`.
    paused: usize,
}

fn push(queue: &mut Queue, entry: squeue::Entry, purpose: Purpose) {
    // SAFETY: accepts, polls and their removals point to no memory.
    unsafe { queue.push(entry, purpose) }
}

fn push_accept(queue: &mut Queue, socket: &TcpListener, listener: u32) {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(flags).build();
    push(queue, entry, Purpose::Accept { listener });
}

fn push_poll(queue: &mut Queue, stream: &TcpStream, purpose: Purpose) {
    let fd = Fd(stream.as_raw_fd());
    let poll = match purpose {
        Purpose::Readable { .. } => opcode::PollAdd::new(fd, READABLE).multi(true),
        _ => opcode::PollAdd::new(fd, WRITABLE),
    };
    push(queue, poll.build(), purpose);
}

impl Sockets {
    pub(super) fn new() -> Self {
        let (listeners, sockets) = (Slab::new(), Slab::new());
        Self { listeners, sockets, generation_next: 0, paused: 0 }
    }

    pub(super) fn listen(
        &mut self,
        queue: &mut Queue,
        address: SocketAddr,
    ) -> io::Result<(ListenerId, SocketAddr)> {
        let socket = bind(address)?;
        let address = socket.local_addr()?;
        let index = self.listeners.insert(Listener { socket, retry_at: None });
        let listener = self.listeners.get_mut(index).expect("just inserted");
        push_accept(queue, &listener.socket, index);
        Ok((ListenerId(index), address))
    }

    pub(super) fn close_listener(&mut self, queue: &mut Queue, listener: ListenerId) {
        let closed = self.listeners.remove(listener.0).expect("only open listeners are closed");
        self.paused -= usize::from(closed.retry_at.is_some());
        // The accept in the ring holds the socket until it is cancelled; this frees the port now.
        // SAFETY: the descriptor is open, and shutdown takes no pointers.
        unsafe { libc::shutdown(closed.socket.as_raw_fd(), libc::SHUT_RDWR) };
        let accept = Purpose::Accept { listener: listener.0 }.pack();
        push(queue, opcode::AsyncCancel::new(accept).build(), Purpose::Nothing);
    }

    /// When a paused listener is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        if self.paused == 0 {
            return None;
        }
        self.listeners.iter().filter_map(|(_, listener)| listener.retry_at).min()
    }

    pub(super) fn retry_accepts(&mut self, queue: &mut Queue, now: Instant) {
        for (index, listener) in self.listeners.iter_mut() {
            if listener.retry_at.is_some_and(|at| at <= now) {
                listener.retry_at = None;
                self.paused -= 1;
                push_accept(queue, &listener.socket, index);
            }
        }
    }

    pub(super) fn on_accepted(
        &mut self,
        queue: &mut Queue,
        index: u32,
        done: Completion,
        now: Instant,
    ) -> Option<Event<RingStream>> {
        let accepted = done.result.map(|fd| {
            // SAFETY: the kernel made this descriptor for the accept, and nobody else owns it.
            TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd as i32) })
        });
        // A listener closed meanwhile: so is the connection, by being dropped.
        let listener = self.listeners.get_mut(index)?;
        if !done.more {
            match &accepted {
                // Trying again at once would fail again, for as long as the shortage lasts.
                Err(e) if is_shortage(e) => {
                    listener.retry_at = Some(now.plus_ms(ACCEPT_PAUSE_MS));
                    self.paused += 1;
                }
                _ => push_accept(queue, &listener.socket, index),
            }
        }
        let stream = accepted.ok()?;
        // Fails when the client is gone already.
        let peer = stream.peer_addr().ok()?;
        let listener = ListenerId(index);
        Some(Event::Accepted { listener, stream: RingStream(stream), peer })
    }

    pub(super) fn adopt(&mut self, queue: &mut Queue, stream: RingStream) -> io::Result<SocketId> {
        let stream = stream.0;
        stream.set_nodelay(true)?;
        let generation = self.generation_next;
        self.generation_next = (generation + 1) % GENERATIONS;
        let socket =
            Socket { stream, generation, ended: false, writable_wanted: false, low_water: 1 };
        let index = self.sockets.insert(socket);
        let socket = self.sockets.get_mut(index).expect("just inserted");
        push_poll(queue, &socket.stream, Purpose::Readable { socket: index, generation });
        Ok(SocketId(index))
    }

    fn socket(&mut self, id: SocketId) -> &mut Socket {
        self.sockets.get_mut(id.0).expect("the caller uses only sockets that it has not closed")
    }

    /// Whether an event of this socket and generation is still to be delivered.
    pub(super) fn is_current(&mut self, index: u32, generation: u32) -> bool {
        self.sockets.get_mut(index).is_some_and(|socket| socket.generation == generation)
    }

    pub(super) fn on_readable(
        &mut self,
        queue: &mut Queue,
        index: u32,
        generation: u32,
        done: &Completion,
    ) -> Option<Ready> {
        let socket = self.sockets.get_mut(index).filter(|s| s.generation == generation)?;
        socket.ended |= done.result.as_ref().is_ok_and(|mask| mask & ENDED != 0);
        if !done.more {
            push_poll(queue, &socket.stream, Purpose::Readable { socket: index, generation });
        }
        Some(Ready::Readable { socket: index, generation })
    }

    pub(super) fn on_writable(&mut self, index: u32, generation: u32) -> Option<Ready> {
        let socket = self.sockets.get_mut(index).filter(|s| s.generation == generation)?;
        socket.writable_wanted = false;
        Some(Ready::Writable { socket: index, generation })
    }

    pub(super) fn want_writable(&mut self, queue: &mut Queue, id: SocketId) {
        let socket = self.socket(id);
        if !std::mem::replace(&mut socket.writable_wanted, true) {
            let purpose = Purpose::Writable { socket: id.0, generation: socket.generation };
            push_poll(queue, &socket.stream, purpose);
        }
    }

    pub(super) fn recv(
        &mut self,
        ready: &mut VecDeque<Ready>,
        id: SocketId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize> {
        let socket = self.socket(id);
        socket.set_low_water(1)?;
        buffer.reserve(bytes_max);
        let fd = socket.stream.as_raw_fd();
        let spare = buffer.spare_capacity_mut();
        assert!(spare.len() >= bytes_max, "just reserved");
        // SAFETY: `spare` is at least `bytes_max` bytes that nobody else refers to; recv writes at
        // most that many.
        let received = unsafe { libc::recv(fd, spare.as_mut_ptr().cast(), bytes_max, 0) };
        let Ok(count) = usize::try_from(received) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: recv has initialised `count` bytes behind the buffer's end, within its capacity.
        unsafe { buffer.set_len(buffer.len() + count) };
        if count > 0 && count < bytes_max && socket.ended {
            // The caller stops at a short read: the end of the stream needs its own event.
            ready.push_back(Ready::Readable { socket: id.0, generation: socket.generation });
        }
        Ok(count)
    }

    pub(super) fn recv_whole(
        &mut self,
        id: SocketId,
        into: &mut [IoSliceMut<'_>],
    ) -> io::Result<()> {
        let socket = self.socket(id);
        let bytes: usize = into.iter().map(|slice| slice.len()).sum();
        if socket.waiting_bytes()? < bytes {
            let kind = if socket.ended {
                io::ErrorKind::UnexpectedEof
            } else if socket.set_low_water(bytes)? < bytes {
                io::ErrorKind::OutOfMemory
            } else {
                io::ErrorKind::WouldBlock
            };
            return Err(kind.into());
        }
        socket.set_low_water(1)?;
        let received = (&socket.stream).read_vectored(into)?;
        assert!(received == bytes, "so many bytes were waiting");
        Ok(())
    }

    pub(super) fn send(&mut self, id: SocketId, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut stream = &self.socket(id).stream;
        match slices {
            [slice] => stream.write(slice),
            slices => stream.write_vectored(slices),
        }
    }

    pub(super) fn send_file(
        &mut self,
        id: SocketId,
        file: &std::fs::File,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        let mut position = i64::try_from(position).map_err(io::Error::other)?;
        let to = self.socket(id).stream.as_raw_fd();
        // SAFETY: both descriptors are open; `position` lives across the call.
        let sent = unsafe { libc::sendfile(to, file.as_raw_fd(), &raw mut position, bytes) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    pub(super) fn close(&mut self, queue: &mut Queue, id: SocketId) {
        let closed = self.sockets.remove(id.0).expect("only open sockets are closed");
        // The polls hold the connection until they are cancelled, with the next submission. Not
        // PollRemove: it leaves a poll alone for which an event is on its way (EALREADY).
        let generation = closed.generation;
        let readable = Purpose::Readable { socket: id.0, generation }.pack();
        push(queue, opcode::AsyncCancel::new(readable).build(), Purpose::Nothing);
        if closed.writable_wanted {
            let writable = Purpose::Writable { socket: id.0, generation }.pack();
            push(queue, opcode::AsyncCancel::new(writable).build(), Purpose::Nothing);
        }
    }
}

/// A listening socket; std sets SO_REUSEADDR.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 1;
    let socket = loop {
        match TcpListener::bind(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                std::thread::sleep(BIND_PAUSE);
            }
            bound => break bound?,
        }
    };
    // SAFETY: the descriptor is open, and listen takes no pointers.
    if unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    prefer_cubic(&socket);
    Ok(socket)
}

/// On loopback and in a data centre bbr makes sendfile four times slower than cubic, so where the
/// host's default is bbr the listener, and with it what it accepts, gets cubic. Where that is not
/// allowed or not there, the default stays.
fn prefer_cubic(socket: &TcpListener) {
    let fd = socket.as_raw_fd();
    let mut name = [0u8; 16];
    let mut bytes = name.len() as libc::socklen_t;
    // SAFETY: `name` is `bytes` long and lives across the call, as does `bytes` itself.
    let got = unsafe {
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        libc::getsockopt(fd, level, option, name.as_mut_ptr().cast(), &raw mut bytes)
    };
    if got == 0 && name.starts_with(b"bbr") {
        let cubic = b"cubic";
        // SAFETY: `cubic` is as long as said and lives across the call.
        unsafe {
            let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
            libc::setsockopt(fd, level, option, cubic.as_ptr().cast(), cubic.len() as u32);
        }
    }
}
