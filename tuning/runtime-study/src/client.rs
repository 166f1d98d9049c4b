//! The load: a closed loop from one thread on epoll, so many requests under way on each connection.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::sockopt::set_tcp_congestion;

use crate::frame::{REPLY_BYTES, request};

/// What is asked of the server.
#[derive(Clone, Copy)]
pub struct Load {
    pub payload_bytes: usize,
    pub connections: usize,
    pub depth: usize,
}

struct Connection {
    stream: TcpStream,
    /// Bytes sent of all requests so far.
    sent: usize,
    /// Bytes that may be sent.
    allowed: usize,
    /// Bytes of replies that do not make a whole one yet.
    part: usize,
}

pub struct Client {
    load: Load,
    /// So many requests that a part of them from any place within the first is long enough.
    requests: Vec<u8>,
    poll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    /// Replies received.
    pub replies: u64,
}

impl Client {
    pub fn connect(port: u16, load: Load) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        for index in 0..load.connections {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            let _ = set_tcp_congestion(&stream, "cubic");
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&poll, &stream, epoll::EventData::new_u64(index as u64), flags)?;
            let allowed = load.depth * request(load.payload_bytes).len();
            connections.push(Connection { stream, sent: 0, allowed, part: 0 });
        }
        let requests = request(load.payload_bytes).repeat(load.depth + 1);
        Ok(Self { load, requests, poll, connections, replies: 0 })
    }

    /// Goes on for so long.
    pub fn run(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut events = Vec::with_capacity(256);
        let mut scratch = vec![0; 64 << 10];
        let patience = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        while Instant::now() < end {
            events.clear();
            epoll::wait(&self.poll, spare_capacity(&mut events), Some(&patience))?;
            for event in &events {
                self.step(event.data.u64() as usize, &mut scratch)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, index: usize, scratch: &mut [u8]) -> Result<()> {
        let frame = 4 + self.load.payload_bytes;
        let connection = &mut self.connections[index];
        loop {
            match connection.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let whole = (connection.part + count) / REPLY_BYTES;
                    connection.part = (connection.part + count) % REPLY_BYTES;
                    connection.allowed += whole * frame;
                    self.replies += whole as u64;
                    if count < scratch.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while connection.sent < connection.allowed {
            let start = connection.sent % frame;
            let count = (connection.allowed - connection.sent).min(self.requests.len() - start);
            match connection.stream.write(&self.requests[start..start + count]) {
                Ok(count) => connection.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
