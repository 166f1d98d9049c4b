//! Rows about listeners and connections.

use std::io::{ErrorKind, IoSlice, IoSliceMut, Write};

use bytes::BytesMut;
use millrace_io::{Event, Io, OpenMode};

use crate::place::*;

fn recv<I: Io>(io: &mut I, socket: millrace_io::SocketId, bytes_max: usize) -> String {
    let mut buffer = BytesMut::new();
    match io.recv(socket, &mut buffer, bytes_max) {
        Ok(0) => "the end".to_owned(),
        Ok(count) => {
            assert_eq!(count, buffer.len());
            String::from_utf8(buffer.to_vec()).unwrap()
        }
        Err(e) => e.kind().to_string(),
    }
}

fn would_block() -> String {
    ErrorKind::WouldBlock.to_string()
}

pub(crate) fn a_new_connection_is_accepted_with_its_address<P: Place>(place: &P) {
    let mut io = place.io();
    let (listener, address) = listen(&mut io);
    assert_ne!(address.port(), 0);
    let _client = place.connect(address).unwrap();
    let (from, peer) = until(&mut io, |event| match event {
        Event::Accepted { listener, peer, .. } => Some((listener, peer)),
        _ => None,
    });
    assert_eq!(from, listener);
    assert!(peer.ip().is_loopback() && peer.port() != 0);
}

pub(crate) fn bytes_that_came_before_adoption_are_reported<P: Place>(place: &P) {
    let mut io = place.io();
    let (_, address) = listen(&mut io);
    let mut client = place.connect(address).unwrap();
    client.write_all(b"early").unwrap();
    let (stream, _) = accept(&mut io);
    let socket = io.adopt(stream).unwrap();
    until_readable(&mut io, socket);
    assert_eq!(recv(&mut io, socket, 100), "early");
}

pub(crate) fn each_arrival_is_reported<P: Place>(place: &P) {
    let mut io = place.io();
    let (mut client, socket) = connected(place, &mut io);
    assert_eq!(recv(&mut io, socket, 100), would_block());
    for text in ["first", "second", "third"] {
        client.write_all(text.as_bytes()).unwrap();
        until_readable(&mut io, socket);
        assert_eq!(recv(&mut io, socket, 3), text[..3]);
        assert_eq!(recv(&mut io, socket, 100), text[3..]);
        assert_eq!(recv(&mut io, socket, 100), would_block());
        assert_eq!(events_within(&mut io, 20), [""; 0]);
    }
}

pub(crate) fn a_short_read_before_the_end_is_followed_by_an_event<P: Place>(place: &P) {
    let mut io = place.io();
    let (mut client, socket) = connected(place, &mut io);
    client.write_all(b"last words").unwrap();
    place.shut_down_write(&client);
    // Both have arrived before the first receive.
    assert!(!events_within(&mut io, 20).is_empty());
    assert_eq!(recv(&mut io, socket, 100), "last words");
    until_readable(&mut io, socket);
    assert_eq!(recv(&mut io, socket, 100), "the end");
}

pub(crate) fn bytes_are_received_whole_or_not_at_all<P: Place>(place: &P) {
    let mut io = place.io();
    let (mut client, socket) = connected(place, &mut io);
    let (mut first, mut second) = ([0; 3], [0; 5]);
    let mut whole = |io: &mut P::Io| {
        let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        let received = io.recv_whole(socket, &mut into).map_err(|error| error.kind());
        received.map(|()| [&first[..], &second].concat())
    };
    client.write_all(b"half").unwrap();
    until_readable(&mut io, socket);
    assert_eq!(whole(&mut io), Err(ErrorKind::WouldBlock));
    client.write_all(b" and half").unwrap();
    until_readable(&mut io, socket);
    assert_eq!(whole(&mut io), Ok(b"half and".to_vec()));
    assert_eq!(recv(&mut io, socket, 100), " half");
    client.write_all(b"the rest").unwrap();
    until_readable(&mut io, socket);
    assert_eq!(whole(&mut io), Ok(b"the rest".to_vec()));
    // A few bytes are an event again, although more were asked for before.
    client.write_all(b"?").unwrap();
    until_readable(&mut io, socket);
    assert_eq!(whole(&mut io), Err(ErrorKind::WouldBlock));
    assert_eq!(recv(&mut io, socket, 100), "?");
    client.write_all(b"!").unwrap();
    until_readable(&mut io, socket);
    place.shut_down_write(&client);
    assert!(!events_within(&mut io, 20).is_empty());
    assert_eq!(whole(&mut io), Err(ErrorKind::UnexpectedEof));
}

pub(crate) fn the_end_alone_is_reported<P: Place>(place: &P) {
    let mut io = place.io();
    let (client, socket) = connected(place, &mut io);
    drop(client);
    until_readable(&mut io, socket);
    assert_eq!(recv(&mut io, socket, 100), "the end");
}

pub(crate) fn a_full_connection_says_so_and_becomes_writable<P: Place>(place: &P) {
    let mut io = place.io();
    let (mut client, socket) = connected(place, &mut io);
    let piece: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let mut sent = Vec::new();
    loop {
        match io.send(socket, &[IoSlice::new(&piece)]) {
            Ok(count) => sent.extend_from_slice(&piece[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    io.want_writable(socket);
    assert_eq!(events_within(&mut io, 20), [""; 0]);
    assert_eq!(read_exact(&mut io, &mut client, sent.len()), Some(sent));
    until(&mut io, |event| matches!(event, Event::Writable(id) if id == socket).then_some(()));
    assert_eq!(io.send(socket, &[IoSlice::new(b"again")]).unwrap(), 5);
    assert_eq!(read_exact(&mut io, &mut client, 5), Some(b"again".to_vec()));
}

pub(crate) fn slices_are_sent_in_order<P: Place>(place: &P) {
    let mut io = place.io();
    let (mut client, socket) = connected(place, &mut io);
    let slices = [IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
    assert_eq!(io.send(socket, &slices).unwrap(), 7);
    assert_eq!(read_exact(&mut io, &mut client, 7), Some(b"one two".to_vec()));
}

pub(crate) fn a_file_range_is_sent_from_the_middle<P: Place>(place: &P) {
    let mut io = place.io();
    let (mut client, socket) = connected(place, &mut io);
    let file = io.open(&place.dir().join("segment"), OpenMode::ReadWrite).unwrap();
    let content: Vec<u8> = (0..20_000u32).map(|n| (n / 7) as u8).collect();
    io.write_at(&file, 0, &content).unwrap();
    assert!(io.is_cached(&file, 5_000, 10_000));
    assert_eq!(io.send_file(socket, &file, 5_000, 10_000).unwrap(), 10_000);
    let got = read_exact(&mut io, &mut client, 10_000);
    assert_eq!(got.as_deref(), Some(&content[5_000..15_000]));
    assert_eq!(io.send_file(socket, &file, 20_000, 10).unwrap(), 0);
}

pub(crate) fn a_closed_socket_ends_the_client_and_raises_no_event<P: Place>(place: &P) {
    let mut io = place.io();
    let (_, address) = listen(&mut io);
    let mut clients = [place.connect(address).unwrap(), place.connect(address).unwrap()];
    let streams = [accept(&mut io).0, accept(&mut io).0];
    let sockets = streams.map(|stream| io.adopt(stream).unwrap());
    for client in &mut clients {
        client.write_all(b"unread").unwrap();
    }
    // The first event found makes us close both: the other's must not appear any more.
    until(&mut io, |event| matches!(event, Event::Readable(_)).then_some(()));
    for socket in sockets {
        io.want_writable(socket);
        recv(&mut io, socket, 100);
        io.close(socket);
    }
    assert_eq!(events_within(&mut io, 20), [""; 0]);
    for mut client in clients {
        assert_eq!(read_exact(&mut io, &mut client, 1), None);
    }
}

pub(crate) fn a_connection_nobody_adopts_is_closed<P: Place>(place: &P) {
    let mut io = place.io();
    let (_, address) = listen(&mut io);
    let mut client = place.connect(address).unwrap();
    drop(accept(&mut io));
    assert_eq!(read_exact(&mut io, &mut client, 1), None);
}

pub(crate) fn a_connection_may_go_to_another_shard<P: Place>(place: &P) {
    let (mut first, mut second) = (place.io(), place.io());
    let (_, address) = listen(&mut first);
    let mut client = place.connect(address).unwrap();
    let (stream, _) = accept(&mut first);
    let socket = second.adopt(stream).unwrap();
    client.write_all(b"hello").unwrap();
    until_readable(&mut second, socket);
    assert_eq!(recv(&mut second, socket, 100), "hello");
}

pub(crate) fn many_connections_are_served_side_by_side<P: Place>(place: &P) {
    const COUNT: usize = 300;
    let mut io = place.io();
    let (_, address) = listen(&mut io);
    let mut clients: Vec<P::Client> = (0..COUNT).map(|_| place.connect(address).unwrap()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{number:>8}").as_bytes()).unwrap();
    }
    let mut echoed = 0;
    while echoed < COUNT {
        let mut streams = Vec::new();
        let socket = until(&mut io, |event| match event {
            Event::Accepted { stream, .. } => {
                streams.push(stream);
                Some(None)
            }
            Event::Readable(socket) => Some(Some(socket)),
            _ => None,
        });
        for stream in streams {
            io.adopt(stream).unwrap();
        }
        if let Some(socket) = socket {
            let text = recv(&mut io, socket, 8);
            if text == would_block() {
                // Readiness may be reported more often than needed.
                continue;
            }
            assert_eq!(io.send(socket, &[IoSlice::new(text.as_bytes())]).unwrap(), 8);
            echoed += 1;
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let echo = read_exact(&mut io, client, 8).unwrap();
        assert_eq!(echo, format!("{number:>8}").as_bytes());
    }
}

pub(crate) fn a_client_that_left_is_an_error_to_send_to<P: Place>(place: &P) {
    let mut io = place.io();
    let (client, socket) = connected(place, &mut io);
    io.send(socket, &[IoSlice::new(b"never read")]).unwrap();
    drop(client);
    until_readable(&mut io, socket);
    let kind = loop {
        match io.send(socket, &[IoSlice::new(b"more")]) {
            Ok(_) => io.wait(Some(io.now().plus_ms(1))).unwrap(),
            Err(e) => break e.kind(),
        }
    };
    assert!([ErrorKind::BrokenPipe, ErrorKind::ConnectionReset].contains(&kind), "{kind}");
}

pub(crate) fn a_closed_listener_refuses<P: Place>(place: &P) {
    let mut io = place.io();
    let (listener, address) = listen(&mut io);
    io.close_listener(listener);
    let error = place.connect(address).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(events_within(&mut io, 5), [""; 0]);
    assert_eq!(io.listen(address).unwrap().1, address);
}

pub(crate) fn a_port_in_use_is_refused<P: Place>(place: &P) {
    let mut io = place.io();
    let (_, address) = listen(&mut io);
    assert_eq!(io.listen(address).unwrap_err().kind(), ErrorKind::AddrInUse);
}
