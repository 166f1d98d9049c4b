//! The server on epoll, level-triggered: one `recv` and one `send` for each event.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::frame::{Received, replies};

const LISTENER: u64 = u64::MAX;

pub fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut connections: Vec<Option<(TcpStream, Received)>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let token = event.data.u64();
            if token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let data = epoll::EventData::new_u64(connections.len() as u64);
                    epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
                    connections.push(Some((stream, Received::new())));
                }
                continue;
            }
            let place = &mut connections[token as usize];
            let Some((stream, received)) = place else { continue };
            match stream.read(received.room()) {
                Ok(0) => *place = None,
                Ok(count) => {
                    let requests = received.take(count);
                    if requests > 0 {
                        stream.write_all(replies(requests))?;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *place = None,
            }
        }
    }
}
