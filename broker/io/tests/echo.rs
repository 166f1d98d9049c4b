//! An echo server on a ring under blocking clients that send pieces of any size and leave at any
//! moment: readiness that gets lost once ends in a client that waits for ever.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use millrace_io::{Event, Io, RingIo, SocketId};

const CLIENTS: usize = 12;
const ROUNDS: usize = 25;
const PIECE_BYTES_MAX: u64 = 600_000;
const RECV_BYTES: usize = 16 * 1024;
/// A connection whose client does not read holds this much, and then is not received from.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

/// Numbers from a seed (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}

fn client(address: SocketAddr, mut chance: u64) -> usize {
    let mut echoed = 0;
    let mut connection: Option<TcpStream> = None;
    for _ in 0..ROUNDS {
        let stream = connection.get_or_insert_with(|| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        });
        let bytes =
            1 + next(&mut chance) % if chance.is_multiple_of(3) { PIECE_BYTES_MAX } else { 200 };
        let piece: Vec<u8> = (0..bytes).map(|n| (n ^ (n >> 8) ^ chance) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&piece).unwrap());
            let mut echo = vec![0; piece.len()];
            stream.read_exact(&mut echo).expect("every byte comes back");
            assert!(echo == piece, "bytes changed on their way");
        });
        echoed += piece.len();
        match next(&mut chance) % 8 {
            0 => connection = None,
            1 => {
                // Leaves with bytes on their way in both directions.
                stream.write_all(&[0; 5_000]).unwrap();
                connection = None;
            }
            _ => {}
        }
    }
    echoed
}

/// What is still to be sent back.
#[derive(Default)]
struct Connection {
    unsent: BytesMut,
}

/// Receives until a short read and sends as far as it goes. `false`: the connection is over.
fn serve(io: &mut RingIo, socket: SocketId, connection: &mut Connection) -> bool {
    let mut drained = false;
    loop {
        while !connection.unsent.is_empty() {
            match io.send(socket, &[IoSlice::new(&connection.unsent)]) {
                Ok(count) => connection.unsent.advance(count),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    io.want_writable(socket);
                    break;
                }
                Err(_) => return false,
            }
        }
        if drained || connection.unsent.len() >= UNSENT_BYTES_MAX {
            return true;
        }
        match io.recv(socket, &mut connection.unsent, RECV_BYTES) {
            Ok(0) => return false,
            Ok(count) => drained = count < RECV_BYTES,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}

#[test]
fn every_byte_comes_back() {
    let mut io = RingIo::new().expect("this test needs io_uring");
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let left = Arc::new(AtomicUsize::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS as u64)
        .map(|seed| {
            let (left, waker) = (Arc::clone(&left), io.waker());
            std::thread::spawn(move || {
                let echoed = client(address, seed);
                left.fetch_sub(1, Ordering::SeqCst);
                waker.wake();
                echoed
            })
        })
        .collect();
    let mut connections: BTreeMap<SocketId, Connection> = BTreeMap::new();
    while left.load(Ordering::SeqCst) > 0 && clients.iter().any(|client| !client.is_finished()) {
        io.wait(Some(io.now().plus_ms(1_000))).unwrap();
        while let Some(event) = io.next_event() {
            let socket = match event {
                Event::Accepted { stream, .. } => {
                    let socket = io.adopt(stream).unwrap();
                    assert!(connections.insert(socket, Connection::default()).is_none());
                    continue;
                }
                Event::Readable(socket) => socket,
                Event::Writable(socket) => socket,
                Event::Completed { .. } | Event::Woken => continue,
            };
            let connection = connections.get_mut(&socket).expect("no event after a close");
            if !serve(&mut io, socket, connection) {
                connections.remove(&socket);
                io.close(socket);
            }
        }
    }
    let echoed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(echoed > CLIENTS * ROUNDS);
}
