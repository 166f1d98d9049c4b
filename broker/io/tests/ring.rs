//! What only a real ring can show: sleeping, socket options, the file system's refusals.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use millrace_io::ring::RingIo;
use millrace_io::{Event, Io, OpenMode};

fn ring() -> RingIo {
    RingIo::new().expect("these tests need io_uring")
}

/// CPU time of this thread in nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` lives across the call.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(got, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[test]
fn a_sleeping_ring_is_woken_by_another_thread() {
    let mut io = ring();
    let waker = io.waker();
    let (asked, answers) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || answers.iter().for_each(|()| waker.wake()));
    for _ in 0..1_000 {
        asked.send(()).unwrap();
        let mut woken = false;
        while !woken {
            io.wait(None).unwrap();
            while let Some(event) = io.next_event() {
                woken |= matches!(event, Event::Woken);
            }
        }
    }
    drop(asked);
    thread.join().unwrap();
}

#[test]
fn an_idle_ring_uses_no_cpu() {
    let mut io = ring();
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let _clients: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut sockets = Vec::new();
    while sockets.len() < 20 {
        io.wait(None).unwrap();
        while let Some(event) = io.next_event() {
            let Event::Accepted { stream, .. } = event else { continue };
            sockets.push(io.adopt(stream).unwrap());
        }
    }
    let end = io.now().plus_ms(300);
    let (start_ns, mut waits) = (cpu_ns(), 0);
    while io.now() < end {
        io.wait(Some(end)).unwrap();
        waits += 1;
    }
    assert!(waits <= 4, "{waits} wake-ups while nothing happened");
    assert!(cpu_ns() - start_ns < 3_000_000, "{} ns of CPU in 300 ms", cpu_ns() - start_ns);
}

#[test]
fn a_connection_closed_while_bytes_arrive_is_gone() {
    let mut io = ring();
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let socket = loop {
            io.wait(None).unwrap();
            if let Some(Event::Accepted { stream, .. }) = io.next_event() {
                break io.adopt(stream).unwrap();
            }
        };
        // Its poll is armed; then the kernel has an event for it that nobody has looked at.
        let soon = io.now().plus_ms(1);
        io.wait(Some(soon)).unwrap();
        client.write_all(b"x").unwrap();
        io.close(socket);
        let soon = io.now().plus_ms(20);
        while io.now() < soon {
            io.wait(Some(soon)).unwrap();
            while io.next_event().is_some() {}
        }
        match client.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn connections_do_not_use_bbr() {
    let mut io = ring();
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    let stream = loop {
        io.wait(None).unwrap();
        if let Some(Event::Accepted { stream, .. }) = io.next_event() {
            break stream;
        }
    };
    let (mut name, mut bytes) = ([0u8; 16], 16);
    // SAFETY: `name` is `bytes` long, and both live across the call.
    let got = unsafe {
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
        let fd = stream.as_raw_fd();
        libc::getsockopt(fd, level, option, name.as_mut_ptr().cast(), &raw mut bytes)
    };
    assert_eq!(got, 0);
    assert!(!name.starts_with(b"bbr"));
}

#[test]
fn tmpfs_refuses_direct_writes() {
    let folder = Path::new("/dev/shm");
    if !folder.is_dir() {
        return;
    }
    let folder = tempfile::tempdir_in(folder).unwrap();
    let mut io = ring();
    let error = io.open(&folder.path().join("log"), OpenMode::Direct).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    io.open(&folder.path().join("log"), OpenMode::ReadWrite).unwrap();
}

#[test]
fn the_probe_finds_what_the_ring_uses() {
    let facts = millrace_io::probe::ring().unwrap();
    assert!(facts.to_string().starts_with("io_uring of Linux "));
    let file = tempfile::NamedTempFile::new().unwrap();
    let direct = millrace_io::probe::direct_io(file.as_file()).unwrap();
    let opened = ring().open(file.path(), OpenMode::Direct);
    assert_eq!(direct.is_usable(), opened.is_ok());
}
