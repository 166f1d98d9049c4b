//! Direct writes onto prepared space, one after another with so many under way: through a plain
//! ring, and through glommio. All use the same memory again and again; glommio's is registered with
//! its ring, which saves the kernel looking up its pages.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::time::Instant;

use futures_lite::StreamExt;
use futures_lite::stream::iter;
use glommio::io::{DmaFile, OpenOptions};
use glommio::{LocalExecutorBuilder, Placement, spawn_local};
use io_uring::{opcode, types};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::mm::{Advice, madvise};

use crate::{cpu_ns, pin, ring};

/// What is written.
pub struct Work {
    pub bytes: usize,
    pub depth: usize,
    pub count: usize,
    /// A flush follows each write, which is then alone.
    pub is_flushed: bool,
}

pub const WORKS: &[Work] = &[
    Work { bytes: 4 << 10, depth: 1, count: 500, is_flushed: true },
    Work { bytes: 4 << 10, depth: 1, count: 8_000, is_flushed: false },
    Work { bytes: 4 << 10, depth: 32, count: 64_000, is_flushed: false },
    Work { bytes: 64 << 10, depth: 4, count: 8_000, is_flushed: false },
    Work { bytes: 1 << 20, depth: 4, count: 1_000, is_flushed: false },
];

pub const RUNTIMES: &[&str] = &["ring", "ring-huge-pages", "glommio"];

/// Does the work of this number on CPU 0, and prints the nanoseconds it took and those of CPU.
pub fn run(runtime: &str, path: &str, work: usize) -> Result<()> {
    pin(0)?;
    let work = &WORKS[work];
    let file = File::create(path)?;
    fallocate(&file, FallocateFlags::empty(), 0, (work.bytes * work.count) as u64)?;
    file.sync_all()?;
    let (took, cpu) = match runtime {
        "ring" => by_ring(path, work, false)?,
        "ring-huge-pages" => by_ring(path, work, true)?,
        "glommio" => by_glommio(path, work)?,
        _ => panic!("{runtime}: no such runtime"),
    };
    println!("{took} {cpu}");
    std::fs::remove_file(path)
}

/// Memory that direct writes take: the same block each time.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    /// In huge pages, as the broker's chunks, or in ordinary ones.
    fn new(bytes: usize, is_huge: bool) -> Result<Self> {
        let align = if is_huge { 2 << 20 } else { 4096 };
        let bytes = bytes.next_multiple_of(align);
        let mut memory: Vec<u8> = Vec::with_capacity(bytes + align);
        let start = memory.as_ptr().align_offset(align);
        let advice = if is_huge { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
        // SAFETY: the range lies within the vector's memory, and this advice changes no byte.
        unsafe { madvise(memory.as_mut_ptr().add(start).cast(), bytes, advice)? };
        memory.resize(bytes + align, 1);
        Ok(Self(memory, start))
    }

    fn as_ptr(&self) -> *const u8 {
        self.0[self.1..].as_ptr()
    }
}

fn by_ring(path: &str, work: &Work, is_huge: bool) -> Result<(u128, u64)> {
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    let fd = types::Fd(file.as_raw_fd());
    let mut ring = ring::build()?;
    let memory: Result<Vec<Aligned>> =
        (0..work.depth).map(|_| Aligned::new(work.bytes, is_huge)).collect();
    let memory = memory?;
    let (start, cpu) = (Instant::now(), cpu_ns());
    let mut idle: Vec<usize> = (0..work.depth).collect();
    let (mut submitted, mut done) = (0, 0);
    while done < work.count {
        while let (Some(slot), true) = (idle.last().copied(), submitted < work.count) {
            idle.pop();
            let position = (submitted * work.bytes) as u64;
            let write = opcode::Write::new(fd, memory[slot].as_ptr(), work.bytes as u32)
                .offset(position)
                .build()
                .user_data(slot as u64);
            // SAFETY: the memory outlives the ring's last completion, which this loop waits for.
            unsafe { ring.submission().push(&write) }.expect("the depth fits into the ring");
            submitted += 1;
        }
        ring.submit_and_wait(1)?;
        let completions: Vec<_> = ring.completion().collect();
        for completion in completions {
            check(completion.result(), work.bytes)?;
            idle.push(completion.user_data() as usize);
            done += 1;
        }
        if work.is_flushed {
            let flush = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            // SAFETY: a flush points to no memory.
            unsafe { ring.submission().push(&flush) }.expect("nothing else is under way");
            ring.submit_and_wait(1)?;
            let flushed = ring.completion().next().expect("one was waited for");
            check(flushed.result(), 0)?;
        }
    }
    Ok((start.elapsed().as_nanos(), cpu_ns() - cpu))
}

fn check(result: i32, expected: usize) -> Result<()> {
    match usize::try_from(result) {
        Ok(count) if count == expected => Ok(()),
        Ok(count) => Err(Error::other(format!("{count} bytes instead of {expected}"))),
        Err(_) => Err(Error::from_raw_os_error(-result)),
    }
}

fn by_glommio(path: &str, work: &Work) -> Result<(u128, u64)> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
    executor.run(async {
        let file = OpenOptions::new().write(true).dma_open(path).await?;
        let file: Rc<DmaFile> = Rc::new(file);
        let (start, cpu) = (Instant::now(), cpu_ns());
        let lanes: Vec<_> = (0..work.depth)
            .map(|lane| spawn_local(write_lane(Rc::clone(&file), work.into(), lane)))
            .collect();
        let mut lanes = iter(lanes);
        while let Some(lane) = lanes.next().await {
            lane.await?;
        }
        Ok((start.elapsed().as_nanos(), cpu_ns() - cpu))
    })
}

struct Lane {
    bytes: usize,
    depth: usize,
    count: usize,
    is_flushed: bool,
}

impl From<&Work> for Lane {
    fn from(&Work { bytes, depth, count, is_flushed }: &Work) -> Self {
        Self { bytes, depth, count, is_flushed }
    }
}

/// Every so manyth write, each after the one before.
async fn write_lane(file: Rc<DmaFile>, work: Lane, lane: usize) -> Result<()> {
    let mut memory = file.alloc_dma_buffer(work.bytes);
    memory.as_bytes_mut().fill(1);
    let memory = Rc::new(memory);
    for index in (lane..work.count).step_by(work.depth) {
        let position = (index * work.bytes) as u64;
        let count = file.write_rc_at(Rc::clone(&memory), position).await?;
        check(count as i32, work.bytes)?;
        if work.is_flushed {
            file.fdatasync().await?;
        }
    }
    Ok(())
}
