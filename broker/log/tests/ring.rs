//! The same log on the real ring and a real file system: reopened, and without allocations.

use std::path::Path;

use millrace_io::{ChunkPool, Event, Io, RingIo};
use millrace_log::{
    AppendAs, LogConfig, OpenHints, PartitionLog, ReadPlan, ReadRequest, Uuid, WriteMode,
};
use millrace_wire::batch::{BatchBuilder, BatchOptions, batches};

struct Driver {
    io: RingIo,
    pool: ChunkPool,
    log: PartitionLog<RingIo>,
}

impl Driver {
    fn create(dir: &Path, config: LogConfig) -> Self {
        let mut io = RingIo::new().expect("these tests need io_uring");
        let id = Uuid::from_halves(3, 4);
        let log = PartitionLog::create(&mut io, dir, id, config).expect("an empty folder");
        Self { io, pool: ChunkPool::new(16 << 20), log }
    }

    fn append(&mut self, batch: &[u8]) {
        let door = AppendAs::Leader { epoch: 0, log_append_time: None };
        self.log.append(&mut self.io, &mut self.pool, batch, door).expect("taken");
    }

    fn until(&mut self, done: impl Fn(&PartitionLog<RingIo>) -> bool) {
        self.log.submit_writes(&mut self.io);
        while !done(&self.log) {
            self.io.wait(None).expect("the ring waits");
            while let Some(event) = self.io.next_event() {
                if let Event::Completed { token, result } = event {
                    let Self { io, pool, log } = self;
                    let progress = log.on_completed(io, pool, token, result);
                    assert!(!progress.is_poisoned, "{:?}", log.poison());
                }
            }
        }
    }

    fn flush(&mut self) {
        self.until(|log| log.written_end() == log.appended_end());
        self.log.submit_flush(&mut self.io).expect("the file opens");
        self.until(|log| log.durable_end() == log.appended_end());
    }

    fn read_all(&mut self) -> Vec<u8> {
        let (mut all, mut offset) = (Vec::new(), self.log.log_start());
        loop {
            let request = ReadRequest {
                offset,
                bytes_max: 100_000,
                at_least_one: true,
                upper_bound: i64::MAX,
                may_block: true,
            };
            let plan = self.log.read(&mut self.io, &mut self.pool, request).expect("readable");
            let ReadPlan::Data(data) = plan else { return all };
            let start = all.len();
            if let Some(range) = &data.file {
                all.resize(start + range.bytes, 0);
                let into = &mut all[start..];
                let count = self.io.read_at(&range.file, range.position, into).expect("readable");
                assert_eq!(count, range.bytes);
            }
            data.memory.iter().for_each(|slice| all.extend_from_slice(slice));
            let last = batches(&all[start..]).last().expect("one batch").expect("whole");
            offset = last.header().last_offset() + 1;
        }
    }
}

fn batch(record_bytes: usize, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let value = vec![b'x'; record_bytes];
    (0..count).for_each(|at| builder.append(at as i64, None, Some(&value), &[]));
    builder.finish(&BatchOptions::default()).expect("plain").to_vec()
}

#[test]
fn what_is_written_is_found_again() {
    for write_mode in [WriteMode::Auto, WriteMode::Buffered] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("orders-0");
        let config = LogConfig { segment_bytes: 1 << 20, write_mode, ..LogConfig::default() };
        let mut driver = Driver::create(&dir, config.clone());
        for size in (0..300).map(|at| 10 + at * 37) {
            driver.append(&batch(size, 3));
            driver.log.submit_writes(&mut driver.io);
        }
        driver.flush();
        assert!(driver.log.segment_count() > 1);
        let written = driver.read_all();
        assert_eq!(batches(&written).count(), 300);
        for batch in batches(&written) {
            batch.expect("whole").verify_crc().expect("intact");
        }
        drop(driver.log);
        for clean in [false, true] {
            let hints = OpenHints { clean, ..OpenHints::default() };
            let opened = PartitionLog::open(&mut driver.io, &dir, config.clone(), hints);
            let (log, recovered) = opened.expect("it opens");
            assert!(!recovered.is_loss(), "{recovered:?}");
            driver.log = log;
            assert_eq!(driver.log.appended_end(), 900);
            assert!(driver.read_all() == written);
            driver.flush();
            let Driver { io, pool, log } = &mut driver;
            log.close(io, pool).expect("all is durable");
        }
    }
}

#[test]
fn an_append_allocates_nothing_once_it_is_warm() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut driver = Driver::create(&folder.path().join("orders-0"), LogConfig::default());
    let bytes = batch(1000, 4);
    let turn = |driver: &mut Driver| {
        let before = allocation_counter::measure(|| {
            for _ in 0..8 {
                driver.append(&bytes);
            }
        });
        driver.until(|log| log.written_end() == log.appended_end());
        before.count_total
    };
    (0..600).for_each(|_| {
        turn(&mut driver);
    });
    let allocations: u64 = (0..400).map(|_| turn(&mut driver)).sum();
    // 3,200 appends, 13 MB: the list of index entries doubles once or twice meanwhile.
    assert!(allocations <= 4, "{allocations} allocations in 3200 appends");
}
