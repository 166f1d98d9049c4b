//! The two worlds that the rows run in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use millrace_io::ring::RingIo;
use millrace_io::sim::{SimClient, SimIo, SimWorld};
use millrace_io::{Event, Io, ListenerId, SocketId};

/// Long enough for any machine; a row that waits this long has failed.
const PATIENCE_MS: u64 = 10_000;

/// A world with a folder for files, and clients whose calls never block.
pub(crate) trait Place {
    type Io: Io;
    type Client: Read + Write;
    fn new() -> Self;
    fn io(&self) -> Self::Io;
    fn dir(&self) -> &Path;
    fn connect(&self, address: SocketAddr) -> std::io::Result<Self::Client>;
    fn shut_down_write(&self, client: &Self::Client);
}

pub(crate) struct Simulated(SimWorld, PathBuf);

impl Place for Simulated {
    type Io = SimIo;
    type Client = SimClient;

    fn new() -> Self {
        let dir = PathBuf::from("/data");
        let world = SimWorld::new(42);
        world.make_io().create_dir(&dir).unwrap();
        Self(world, dir)
    }

    fn io(&self) -> SimIo {
        self.0.make_io()
    }

    fn dir(&self) -> &Path {
        &self.1
    }

    fn connect(&self, address: SocketAddr) -> std::io::Result<SimClient> {
        self.0.connect(address)
    }

    fn shut_down_write(&self, client: &SimClient) {
        client.shut_down_write();
    }
}

pub(crate) struct Linux(tempfile::TempDir);

impl Place for Linux {
    type Io = RingIo;
    type Client = TcpStream;

    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn io(&self) -> RingIo {
        RingIo::new().expect("these tests need io_uring")
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    fn shut_down_write(&self, client: &TcpStream) {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// Waits for the first event that `wanted` takes; others are dropped.
pub(crate) fn until<I: Io, R>(
    io: &mut I,
    mut wanted: impl FnMut(Event<I::Stream>) -> Option<R>,
) -> R {
    let end = io.now().plus_ms(PATIENCE_MS);
    while io.now() < end {
        io.wait(Some(end)).unwrap();
        while let Some(event) = io.next_event() {
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }
    panic!("the event never came");
}

/// All events that come within `ms` milliseconds, as text.
pub(crate) fn events_within<I: Io>(io: &mut I, ms: u64) -> Vec<String> {
    let end = io.now().plus_ms(ms);
    let mut events = Vec::new();
    while io.now() < end {
        io.wait(Some(end)).unwrap();
        while let Some(event) = io.next_event() {
            events.push(match event {
                Event::Accepted { .. } => "Accepted".to_owned(),
                Event::Readable(socket) => format!("Readable {}", socket.0),
                Event::Writable(socket) => format!("Writable {}", socket.0),
                Event::Completed { token, .. } => format!("Completed {}", token.0),
                Event::Woken => "Woken".to_owned(),
            });
        }
    }
    events
}

pub(crate) fn listen<I: Io>(io: &mut I) -> (ListenerId, SocketAddr) {
    io.listen("127.0.0.1:0".parse().unwrap()).unwrap()
}

pub(crate) fn accept<I: Io>(io: &mut I) -> (I::Stream, SocketAddr) {
    until(io, |event| match event {
        Event::Accepted { stream, peer, .. } => Some((stream, peer)),
        _ => None,
    })
}

/// A client and the broker's end of its connection.
pub(crate) fn connected<P: Place>(place: &P, io: &mut P::Io) -> (P::Client, SocketId) {
    let (_, address) = listen(io);
    let client = place.connect(address).unwrap();
    let (stream, _) = accept(io);
    let socket = io.adopt(stream).unwrap();
    (client, socket)
}

pub(crate) fn until_readable<I: Io>(io: &mut I, socket: SocketId) {
    until(io, |event| matches!(event, Event::Readable(id) if id == socket).then_some(()));
}

/// Reads `count` bytes, letting the `Io` turn while there are none. `None` at an early end.
pub(crate) fn read_exact<I: Io>(
    io: &mut I,
    client: &mut impl Read,
    count: usize,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut done = 0;
    let end = io.now().plus_ms(PATIENCE_MS);
    while done < count {
        assert!(io.now() < end, "only {done} of {count} bytes came");
        match client.read(&mut bytes[done..]) {
            Ok(0) => return None,
            Ok(read) => done += read,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                io.wait(Some(io.now().plus_ms(1))).unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
    Some(bytes)
}
