//! A process without free descriptors keeps its listener and does not spin. Alone in its file: the
//! limit is the whole process's.

use std::fs::File;
use std::net::TcpStream;

use millrace_io::ring::RingIo;
use millrace_io::{Event, Io};

#[test]
fn accepting_goes_on_once_descriptors_are_free() {
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: `limit` lives across the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let mut io = RingIo::new().expect("this test needs io_uring");
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut fill: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(fill.len() > 10);
    // One descriptor for the client, none for the broker's end.
    fill.pop();
    let client = TcpStream::connect(address).unwrap();
    let end = io.now().plus_ms(350);
    let mut waits = 0;
    while io.now() < end {
        io.wait(Some(end)).unwrap();
        waits += 1;
        assert!(io.next_event().is_none());
    }
    assert!((3..=12).contains(&waits), "{waits} tries in 350 ms");
    fill.clear();
    loop {
        io.wait(None).unwrap();
        if let Some(Event::Accepted { peer, .. }) = io.next_event() {
            assert_eq!(peer, client.local_addr().unwrap());
            break;
        }
    }
}
