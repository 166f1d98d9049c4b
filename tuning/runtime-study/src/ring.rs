//! The server on a plain ring, as the broker's: a poll that stays armed for each connection, then
//! `recv` and `send` without blocking.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, cqueue, opcode, types::Fd};

use crate::frame::{Received, replies};

const LISTENER: u64 = u64::MAX;

/// A ring set up as the broker's.
pub fn build() -> Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(4096)
        .build(256)
}

/// Arms a poll that stays armed.
pub fn poll(ring: &mut IoUring, fd: RawFd, token: u64) {
    let poll = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).multi(true);
    // SAFETY: a poll points to no memory.
    let pushed = unsafe { ring.submission().push(&poll.build().user_data(token)) };
    pushed.expect("fewer connections are accepted at once than the ring has entries");
}

pub fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut ring = build()?;
    poll(&mut ring, listener.as_raw_fd(), LISTENER);
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
                    poll(&mut ring, stream.as_raw_fd(), connections.len() as u64);
                    connections.push(Some((stream, Received::new())));
                }
                continue;
            }
            let place = &mut connections[token as usize];
            let Some((stream, received)) = place else { continue };
            let mut requests = 0;
            let is_open = loop {
                let room = received.room();
                let offered = room.len();
                match stream.read(room) {
                    Ok(0) => break false,
                    Ok(count) => {
                        requests += received.take(count);
                        // More would come with another event.
                        if count < offered {
                            break true;
                        }
                    }
                    Err(error) => break error.kind() == ErrorKind::WouldBlock,
                }
            };
            if requests > 0 {
                stream.write_all(replies(requests))?;
            }
            if !is_open {
                *place = None;
            }
        }
    }
}
