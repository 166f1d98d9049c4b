//! A proxy between loadgen and a broker that keeps every byte, and counts what the bytes say.
//!
//! Produce requests are taken apart by the field widths that Kafka documents, without the codec
//! that loadgen itself uses: an error made twice would cancel out.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// Of whole produce requests, their sizes included.
    pub(crate) request_bytes: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) fewest: u64,
    pub(crate) most: u64,
    /// Records in the answers to fetches.
    pub(crate) fetched: u64,
}

/// The bytes of one connection, by direction.
type Taps = Arc<Mutex<Vec<[Arc<Mutex<Vec<u8>>>; 2]>>>;

/// Listens; forwards once it knows where to.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    upstream: Arc<OnceLock<String>>,
    taps: Taps,
}

impl Proxy {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (upstream, taps) = (Arc::<OnceLock<String>>::default(), Taps::default());
        let proxy = Self { address, upstream: Arc::clone(&upstream), taps: Arc::clone(&taps) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let broker = TcpStream::connect(upstream.get().expect("set before the first use"));
                let broker = broker.expect("the broker listens");
                let tap: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
                forward(&client, &broker, &tap[0]);
                forward(&broker, &client, &tap[1]);
                taps.lock().expect("no panic with it").push(tap);
            }
        });
        proxy
    }

    pub(crate) fn forward_to(&self, upstream: String) {
        self.upstream.set(upstream).expect("it is set once");
    }

    /// Counts everything that went through so far.
    pub(crate) fn seen(&self) -> Seen {
        let mut seen = Seen { fewest: u64::MAX, ..Default::default() };
        for [out, back] in self.taps.lock().expect("no panic with it").iter() {
            let fetches = count_out(&out.lock().expect("no panic with it"), &mut seen);
            count_back(&back.lock().expect("no panic with it"), &fetches, &mut seen);
        }
        seen
    }
}

fn forward(from: &TcpStream, to: &TcpStream, tap: &Arc<Mutex<Vec<u8>>>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor is free");
    let (mut from, mut to, tap) = (clone(from), clone(to), Arc::clone(tap));
    to.set_nodelay(true).expect("a socket");
    thread::spawn(move || {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            tap.lock().expect("no panic with it").extend_from_slice(&bytes[..count]);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // Both ends hear of an end.
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}

/// Bytes taken from the front.
struct Walk<'a>(&'a [u8]);

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().expect("2 bytes"))
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().expect("4 bytes"))
    }

    fn text(&mut self) {
        let count = self.i16().max(0) as usize;
        self.take(count);
    }

    /// The next whole frame, without its size.
    fn frame(&mut self) -> Option<Walk<'a>> {
        let size = i32::from_be_bytes(*self.0.first_chunk()?) as usize;
        (self.0.len() >= size + 4).then(|| Walk(&self.take(size + 4)[4..]))
    }
}

/// Counts the produce requests of a connection; its fetches: correlation id and version.
fn count_out(bytes: &[u8], seen: &mut Seen) -> Vec<(i32, i16)> {
    let (mut walk, mut fetches) = (Walk(bytes), Vec::new());
    while let Some(mut frame) = walk.frame() {
        let frame_bytes = frame.0.len() as u64 + 4;
        let (key, version, correlation_id) = (frame.i16(), frame.i16(), frame.i32());
        match key {
            0 => {
                assert!((3..=8).contains(&version), "the layout below");
                seen.requests += 1;
                seen.request_bytes += frame_bytes;
                count_produce(&mut frame, seen);
            }
            1 => fetches.push((correlation_id, version)),
            _ => {}
        }
    }
    fetches
}

fn count_produce(frame: &mut Walk<'_>, seen: &mut Seen) {
    // Client id, transactional id; acks and timeout.
    frame.text();
    frame.text();
    frame.take(2 + 4);
    for _ in 0..frame.i32() {
        frame.text();
        for _ in 0..frame.i32() {
            frame.i32();
            let batch_bytes = frame.i32() as usize;
            let batch = frame.take(batch_bytes);
            // The record count is the last field of a batch's head.
            let records = u64::from(u32::from_be_bytes(batch[57..61].try_into().expect("4")));
            seen.batches += 1;
            seen.records += records;
            (seen.fewest, seen.most) = (seen.fewest.min(records), seen.most.max(records));
        }
    }
    assert!(frame.0.is_empty(), "{} bytes are left over", frame.0.len());
}

/// Counts the records in the answers to fetches of versions 7 to 11.
fn count_back(bytes: &[u8], fetches: &[(i32, i16)], seen: &mut Seen) {
    let mut walk = Walk(bytes);
    while let Some(mut frame) = walk.frame() {
        let correlation_id = frame.i32();
        let Some((_, version)) = fetches.iter().find(|fetch| fetch.0 == correlation_id) else {
            continue;
        };
        assert!((7..=11).contains(version), "the layout below, not that of version {version}");
        // Throttle time, error, session.
        frame.take(4 + 2 + 4);
        for _ in 0..frame.i32() {
            frame.text();
            for _ in 0..frame.i32() {
                // Partition, error, high watermark, last stable offset, log start offset.
                frame.take(4 + 2 + 8 + 8 + 8);
                let aborted = frame.i32().max(0) as usize;
                // Producer and first offset of each; the preferred replica came with version 11.
                frame.take(16 * aborted + if *version >= 11 { 4 } else { 0 });
                let records_bytes = frame.i32().max(0) as usize;
                let mut records = Walk(frame.take(records_bytes));
                while !records.0.is_empty() {
                    let length = u32::from_be_bytes(records.0[8..12].try_into().expect("4"));
                    let batch = records.take(12 + length as usize);
                    let count = u32::from_be_bytes(batch[57..61].try_into().expect("4"));
                    seen.fetched += u64::from(count);
                }
            }
        }
    }
}
