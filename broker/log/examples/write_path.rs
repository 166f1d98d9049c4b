//! Writes one partition as fast as it goes and says what a gigabyte cost: the figures of
//! `docs/decisions/write-path.md`, and a program for perf and callgrind.
//!
//! `write_path FOLDER direct|buffered BATCH_BYTES TOTAL_MIB BATCHES_PER_TURN FLUSH_EVERY_TURNS`

#![allow(clippy::print_stdout, reason = "a program that reports")]

use std::path::PathBuf;
use std::time::Instant;

use millrace_io::{ChunkPool, Event, Io, RingIo};
use millrace_log::{AppendAs, LogConfig, PartitionLog, Uuid, WriteMode, token};
use millrace_wire::batch::{BatchBuilder, BatchOptions};
use rustix::time::{ClockId, clock_gettime};

fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Waits for events and counts completed writes and flushes.
fn collect(
    io: &mut RingIo,
    pool: &mut ChunkPool,
    log: &mut PartitionLog<RingIo>,
    counts: &mut [u64; 16],
) {
    io.wait(None).expect("the ring waits");
    while let Some(event) = io.next_event() {
        if let Event::Completed { token: name, result } = event {
            counts[usize::from(token::kind(name))] += 1;
            let progress = log.on_completed(io, pool, name, result);
            assert!(!progress.is_poisoned, "{:?}", log.poison());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| -> usize {
        arguments.get(at).map_or(default, |text| text.parse().expect("a number"))
    };
    let dir = PathBuf::from(arguments.first().expect("a folder")).join("bench-0");
    let mode = arguments.get(1).map_or("direct", String::as_str);
    let (batch_bytes, total_mib) = (number(2, 65_536), number(3, 1024));
    let (per_turn, flush_every) = (number(4, 4), number(5, 0));
    let write_mode = if mode == "buffered" { WriteMode::Buffered } else { WriteMode::Auto };
    let config = LogConfig { write_mode, retention_bytes: 0, ..LogConfig::default() };
    let mut io = RingIo::new().expect("io_uring");
    let mut pool = ChunkPool::new(8 << 20);
    let id = Uuid::from_halves(1, 2);
    let mut log = PartitionLog::create(&mut io, &dir, id, config).expect("a new folder");

    let mut builder = BatchBuilder::new();
    let value = vec![b'x'; 1024.min(batch_bytes)];
    while builder.record_count() == 0 || builder.bytes() + value.len() < batch_bytes {
        builder.append(0, None, Some(&value), &[]);
    }
    let batch = builder.finish(&BatchOptions::default()).expect("plain").to_vec();
    let turns = total_mib * (1 << 20) / (batch.len() * per_turn);
    let door = AppendAs::Leader { epoch: 0, log_append_time: None };
    let mut counts = [0; 16];
    let (start, cpu) = (Instant::now(), cpu_seconds());
    for turn in 0..turns {
        for _ in 0..per_turn {
            log.append(&mut io, &mut pool, &batch, door).expect("taken");
        }
        log.submit_writes(&mut io);
        // One turn is written while the next is appended, as between a broker and its clients.
        while log.unwritten_bytes() > (batch.len() * per_turn) as u64 {
            collect(&mut io, &mut pool, &mut log, &mut counts);
        }
        if flush_every > 0 && turn % flush_every == 0 {
            while log.written_end() < log.appended_end() {
                collect(&mut io, &mut pool, &mut log, &mut counts);
            }
            log.submit_flush(&mut io).expect("the file opens");
            while log.is_dirty() {
                collect(&mut io, &mut pool, &mut log, &mut counts);
            }
        }
        for path in log.enforce_retention(&mut io, &mut pool, 0).expect("readable").paths {
            let _ = io.remove_file(&path);
        }
    }
    while log.written_end() < log.appended_end() {
        collect(&mut io, &mut pool, &mut log, &mut counts);
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let bytes = (turns * per_turn * batch.len()) as f64;
    println!(
        "{mode} batch {} per turn {per_turn} flush every {flush_every}: {:.0} MB/s, {:.3} s of CPU \
         per GB, {} writes of {:.0} KiB, {} allocations, {} flushes",
        batch.len(),
        bytes / seconds / 1e6,
        cpu / bytes * 1e9,
        counts[1],
        bytes / 1024.0 / counts[1] as f64,
        counts[2],
        counts[3] + counts[4],
    );
    drop(log);
    io.remove_dir(&dir).expect("ours");
}
