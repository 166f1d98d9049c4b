//! A partition on the simulated disk, driven by hand; and batches made by hand.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};

use millrace_io::sim::{SimIo, SimWorld};
use millrace_io::{ChunkPool, Event, Instant, Io};
use millrace_log::{
    AppendAs, AppendError, Appended, LogConfig, LogProgress, OpenHints, PartitionLog, ReadData,
    ReadPlan, ReadRequest, Recovered, Uuid,
};

pub const DIR: &str = "/data/orders-0";

/// A batch of format 2 with `count` records and `body_bytes` bytes in their place, each `fill`.
pub struct BatchSpec {
    pub count: i32,
    pub body_bytes: usize,
    pub fill: u8,
    pub timestamp: i64,
    /// Producer id, epoch and first sequence number.
    pub producer: (i64, i16, i32),
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { count: 1, body_bytes: 40, fill: 7, timestamp: 1000, producer: (-1, -1, -1) }
    }
}

impl BatchSpec {
    pub fn bytes(&self) -> Vec<u8> {
        self.at(0, 0)
    }

    /// As it lies in the log.
    pub fn at(&self, base_offset: i64, epoch: i32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(61 + self.body_bytes);
        bytes.extend_from_slice(&base_offset.to_be_bytes());
        bytes.extend_from_slice(&(49 + self.body_bytes as i32).to_be_bytes());
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes.push(2);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&0_i16.to_be_bytes());
        bytes.extend_from_slice(&(self.count - 1).to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.producer.0.to_be_bytes());
        bytes.extend_from_slice(&self.producer.1.to_be_bytes());
        bytes.extend_from_slice(&self.producer.2.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.resize(61 + self.body_bytes, self.fill);
        let crc = millrace_wire::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// Small segments, so that few batches roll many.
pub fn small_config() -> LogConfig {
    LogConfig { segment_bytes: 32 << 10, index_interval_bytes: 512, ..LogConfig::default() }
}

/// One partition and all that it needs.
pub struct Bench {
    pub world: SimWorld,
    pub io: SimIo,
    pub pool: ChunkPool,
    pub log: PartitionLog<SimIo>,
}

impl Bench {
    pub fn create(seed: u64, config: LogConfig) -> Self {
        let world = SimWorld::new(seed);
        let mut io = world.make_io();
        let log = PartitionLog::create(&mut io, Path::new(DIR), Uuid::from_halves(1, 2), config)
            .expect("an empty disk takes a folder");
        Self { world, io, pool: ChunkPool::new(1 << 20), log }
    }

    pub fn open(world: SimWorld, config: LogConfig, hints: OpenHints) -> (Self, Recovered) {
        let mut io = world.make_io();
        let (log, recovered) = PartitionLog::open(&mut io, Path::new(DIR), config, hints)
            .expect("what was left by a crash opens");
        (Self { world, io, pool: ChunkPool::new(1 << 20), log }, recovered)
    }

    /// The machine after the process ended or the power went, opened again.
    pub fn reopen(&self, power_cut: bool, seed: u64, hints: OpenHints) -> (Self, Recovered) {
        let world = if power_cut { self.world.power_cut(seed) } else { self.world.kill(seed) };
        Self::open(world, self.log.config().clone(), hints)
    }

    pub fn try_append(&mut self, batch: &[u8], epoch: i32) -> Result<Appended, AppendError> {
        let door = AppendAs::Leader { epoch, log_append_time: None };
        self.log.append(&mut self.io, &mut self.pool, batch, door)
    }

    /// As [`Bench::try_append`], by memory reserved in the log, into which all but the first
    /// `start` bytes are laid.
    pub fn try_land(
        &mut self,
        batch: &[u8],
        start: usize,
        epoch: i32,
    ) -> Result<Appended, AppendError> {
        let Self { log, io, pool, .. } = self;
        let pieces = log.reserve(io, pool, &batch[..start], epoch)?;
        let mut at = 0;
        for piece in pieces {
            let (end, from) = (at + piece.len(), start.clamp(at, at + piece.len()));
            piece[from - at..].copy_from_slice(&batch[from..end]);
            at = end;
        }
        assert_eq!(at, batch.len());
        log.append_reserved(io, pool, &batch[..start], epoch)
    }

    pub fn append(&mut self, spec: &BatchSpec) -> Appended {
        self.try_append(&spec.bytes(), 0).expect("the log takes it")
    }

    /// Brings completions to the log until nothing is in flight.
    pub fn settle(&mut self) -> LogProgress {
        let mut all = LogProgress::default();
        self.log.submit_writes(&mut self.io);
        let mut silent = 0;
        while silent < 3 {
            let before = self.io.now();
            self.io.wait(Some(before.plus_ms(20))).expect("the simulation waits");
            let mut seen = false;
            while let Some(event) = self.io.next_event() {
                let Event::Completed { token, result } = event else { continue };
                seen = true;
                let progress = self.log.on_completed(&mut self.io, &mut self.pool, token, result);
                all.is_written |= progress.is_written;
                all.is_durable |= progress.is_durable;
                all.is_poisoned |= progress.is_poisoned;
                all.refused_from = progress.refused_from.or(all.refused_from);
            }
            silent = if seen { 0 } else { silent + 1 };
        }
        all
    }

    pub fn flush(&mut self) -> LogProgress {
        self.settle();
        self.log.submit_flush(&mut self.io).expect("the file opens");
        self.settle()
    }

    pub fn now(&self) -> Instant {
        self.io.now()
    }

    pub fn try_read(&mut self, offset: i64, bytes_max: usize, upper_bound: i64) -> Got {
        let request =
            ReadRequest { offset, bytes_max, at_least_one: true, upper_bound, may_block: true };
        let plan = self.log.read(&mut self.io, &mut self.pool, request).expect("readable");
        match plan {
            ReadPlan::Nothing => Got::Nothing,
            ReadPlan::OutOfRange => Got::OutOfRange,
            ReadPlan::Cold(_) => panic!("this read may block"),
            ReadPlan::Data(data) => Got::Bytes(self.gather(&data)),
        }
    }

    /// The bytes that a plan stands for.
    pub fn gather(&mut self, data: &ReadData<<SimIo as Io>::File>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(range) = &data.file {
            bytes.resize(range.bytes, 0);
            let count = self.io.read_at(&range.file, range.position, &mut bytes);
            assert_eq!(count.expect("readable"), range.bytes, "the range is in the file");
        }
        data.memory.iter().for_each(|slice| bytes.extend_from_slice(slice));
        assert_eq!(bytes.len(), data.bytes);
        bytes
    }

    /// All bytes from `offset` on, read in steps of `bytes_max`.
    pub fn read_all(&mut self, mut offset: i64, bytes_max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Got::Bytes(bytes) = self.try_read(offset, bytes_max, i64::MAX) {
            offset = batches(&bytes).last().expect("at least one").1 + 1;
            all.extend_from_slice(&bytes);
        }
        all
    }
}

#[derive(PartialEq, Eq)]
pub enum Got {
    Nothing,
    OutOfRange,
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for Got {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::OutOfRange => f.write_str("OutOfRange"),
            Self::Bytes(bytes) => write!(f, "{} bytes {:?}", bytes.len(), batches(bytes)),
        }
    }
}

/// First and last offset of each batch; panics when the bytes are not whole batches.
pub fn batches(mut bytes: &[u8]) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let base = i64::from_be_bytes(bytes[..8].try_into().expect("8 bytes"));
        let length = i32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes")) as usize;
        let delta = i32::from_be_bytes(bytes[23..27].try_into().expect("4 bytes"));
        found.push((base, base + i64::from(delta)));
        bytes = &bytes[12 + length..];
    }
    found
}

pub fn segment_path(base: i64) -> PathBuf {
    Path::new(DIR).join(format!("{base:020}.log"))
}
