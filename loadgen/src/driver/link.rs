//! One non-blocking connection, plain or TLS: whole frames in, vectored writes out.

use crate::secure::{Access, Opened};
use rustls::{ClientConnection, StreamOwned};
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A frame larger than this is taken as a broken peer.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// Bytes read in one turn, so that one connection cannot keep the thread to itself.
const TURN_BYTES_MAX: usize = 1 << 20;
/// The same of TLS, whose reads are small.
const TLS_READS_MAX: usize = 64;
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How bytes travel.
#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    /// Written to while frames of the input are borrowed.
    Tls(RefCell<Box<StreamOwned<ClientConnection, TcpStream>>>),
}

/// A connected socket and its input.
#[derive(Debug)]
pub struct Link {
    socket: TcpStream,
    wire: Wire,
    /// Invariant: `start <= end <= input.len()`; unread input lies between them.
    input: Vec<u8>,
    start: usize,
    end: usize,
}

impl Link {
    /// Connects to HOST:PORT, waiting at most 5 s.
    pub fn connect(
        address: &str,
        access: &Access,
        congestion: &str,
        input_bytes: usize,
    ) -> io::Result<Self> {
        let mut failure = io::Error::other("the name has no address");
        let mut connected = None;
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
                Ok(socket) => {
                    connected = Some(socket);
                    break;
                }
                Err(error) => failure = error,
            }
        }
        let socket = connected.ok_or(failure)?;
        socket.set_nodelay(true)?;
        // A kernel without that algorithm, or one that forbids it, keeps its own: the report says
        // which algorithm the host has.
        let _ = rustix::net::sockopt::set_tcp_congestion(&socket, congestion);
        socket.set_read_timeout(Some(CONNECT_WITHIN))?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let wire = match access.open(socket.try_clone()?, host)? {
            Opened::Plain(socket) => Wire::Plain(socket),
            Opened::Tls(stream) => Wire::Tls(RefCell::new(stream)),
        };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, wire, input: vec![0; input_bytes], start: 0, end: 0 })
    }

    /// For epoll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what has arrived, once. `Ok(false)`: the peer has ended the connection.
    pub fn receive(&mut self) -> io::Result<bool> {
        self.make_room();
        let end_max = self.input.len().min(self.end + TURN_BYTES_MAX);
        let room = &mut self.input[self.end..end_max];
        let read = match &mut self.wire {
            Wire::Plain(socket) => socket.read(room),
            Wire::Tls(_) => return self.receive_tls(),
        };
        match read {
            Ok(0) => Ok(false),
            Ok(bytes) => {
                self.end += bytes;
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
    }

    /// Takes what has arrived, and all that it decrypts to: epoll knows of the socket only.
    fn receive_tls(&mut self) -> io::Result<bool> {
        let mut is_open = true;
        for _ in 0..TLS_READS_MAX {
            let Wire::Tls(stream) = &mut self.wire else { unreachable!("called for TLS only") };
            let stream = stream.get_mut();
            match stream.conn.read_tls(&mut stream.sock) {
                Ok(0) => is_open = false,
                Ok(_) => {}
                Err(error) if is_transient(&error) => break,
                Err(error) => return Err(error),
            }
            stream.conn.process_new_packets().map_err(io::Error::other)?;
            loop {
                self.make_room();
                let Wire::Tls(stream) = &mut self.wire else { unreachable!("it was just TLS") };
                let room = &mut self.input[self.end..];
                match stream.get_mut().conn.reader().read(room) {
                    Ok(0) => return Ok(false),
                    Ok(bytes) => self.end += bytes,
                    Err(error) if is_transient(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            if !is_open {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the next whole frame; its place, without the size, for [`Link::frame`].
    pub fn next_frame(&mut self) -> io::Result<Option<Range<usize>>> {
        let unread = &self.input[self.start..self.end];
        let Some((size, rest)) = unread.split_first_chunk::<4>() else { return Ok(None) };
        let size = usize::try_from(i32::from_be_bytes(*size))
            .ok()
            .filter(|&size| size <= FRAME_BYTES_MAX)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "frame size out of range"))?;
        if rest.len() < size {
            // Grow once to the whole frame, not by doubling on the way.
            if self.input.len() < size + 4 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
                self.input.resize(size + 4, 0);
            }
            return Ok(None);
        }
        let frame = self.start + 4..self.start + 4 + size;
        self.start = frame.end;
        Ok(Some(frame))
    }

    /// The bytes of a frame taken since the last `receive`.
    pub fn frame(&self, place: Range<usize>) -> &[u8] {
        &self.input[place]
    }

    /// Writes once. `Ok(0)`: the socket takes nothing now.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match &self.wire {
            Wire::Plain(socket) => (&mut &*socket).write_vectored(slices),
            Wire::Tls(_) if !self.push()? => Ok(0),
            Wire::Tls(stream) => {
                let written = stream.borrow_mut().conn.writer().write_vectored(slices);
                self.push()?;
                written
            }
        };
        match written {
            Err(error) if is_transient(&error) => Ok(0),
            written => written,
        }
    }

    /// Hands over what was encrypted and not yet taken; whether nothing of it is left.
    pub fn push(&self) -> io::Result<bool> {
        let Wire::Tls(stream) = &self.wire else { return Ok(true) };
        let stream = &mut **stream.borrow_mut();
        while stream.conn.wants_write() {
            match stream.conn.write_tls(&mut stream.sock) {
                Ok(_) => {}
                Err(error) if is_transient(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn connect(address: &std::net::SocketAddr) -> Link {
        let link = Link::connect(&address.to_string(), &Access::default(), "cubic", 16);
        link.expect("it listens")
    }

    #[test]
    fn frames_come_whole_however_the_bytes_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let frames: Vec<Vec<u8>> =
            [0, 1, 5, 16, 100, 3].iter().map(|&n| vec![n; n.into()]).collect();
        let sent: Vec<u8> = frames
            .iter()
            .flat_map(|frame| [&(frame.len() as i32).to_be_bytes()[..], frame].concat())
            .collect();
        for piece in [1, 3, 7, 1000] {
            let mut link = connect(&address);
            let (mut peer, _) = listener.accept().expect("it has connected");
            let mut seen = Vec::new();
            for bytes in sent.chunks(piece) {
                peer.write_all(bytes).expect("the link is open");
                let expected_end = seen.len();
                assert!(expected_end <= frames.len());
                drain(&mut link, &mut seen);
            }
            drop(peer);
            while link.receive().expect("no error") {
                take(&mut link, &mut seen);
            }
            assert_eq!(seen, frames, "pieces of {piece}");
        }
    }

    fn drain(link: &mut Link, seen: &mut Vec<Vec<u8>>) {
        assert!(link.receive().expect("no error"));
        take(link, seen);
    }

    fn take(link: &mut Link, seen: &mut Vec<Vec<u8>>) {
        while let Some(place) = link.next_frame().expect("sizes are sound") {
            seen.push(link.frame(place).to_vec());
        }
    }

    #[test]
    fn a_senseless_size_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut link = connect(&listener.local_addr().expect("bound"));
        let (mut peer, _) = listener.accept().expect("it has connected");
        peer.write_all(&[0xff; 8]).expect("the link is open");
        drop(peer);
        while link.receive().expect("no error") {}
        assert!(link.next_frame().is_err());
    }
}
