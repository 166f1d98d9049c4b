//! One io_uring and what its completions are for.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

/// Entries submitted with one system call at most. More wait in the backlog.
const SUBMISSIONS: u32 = 256;
/// Completions the kernel may post before it has to queue them itself, at a price. Submissions and
/// completions take 80 KiB together, within the smallest memlock limit that a ring can live with.
const COMPLETIONS: u32 = 4096;
/// A ring just closed gives its locked memory back a little later.
const MEMORY_TRIES: u32 = 10;
const MEMORY_PAUSE: Duration = Duration::from_millis(5);
/// Kernel workers that may run flushes, allocations and buffered writes: 4 to 8 flushes overlapping
/// gain throughput, more only add latency.
const FILE_WORKERS_MAX: u32 = 8;
/// Kernel workers for operations without a bound on their time. Nothing of ours needs one.
const OTHER_WORKERS_MAX: u32 = 2;

/// All operations that this crate submits. Multishot and deferred task work have no probe of their
/// own; a kernel that takes our setup flags (6.1) has them.
const OPERATIONS: [u8; 7] = [
    opcode::AcceptMulti::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
];

/// What a completion is for. Packed into the 64 bits that the kernel hands back: the kind above, a
/// generation of 24 bits, an index of 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    Nothing,
    Wake,
    Accept { listener: u32 },
    Readable { socket: u32, generation: u32 },
    Writable { socket: u32, generation: u32 },
    File { index: u32 },
}

/// Generations are counted modulo this.
pub(super) const GENERATIONS: u32 = 1 << 24;

impl Purpose {
    pub(super) fn pack(self) -> u64 {
        let (kind, generation, index) = match self {
            Self::Nothing => (0, 0, 0),
            Self::Wake => (1, 0, 0),
            Self::Accept { listener } => (2, 0, listener),
            Self::Readable { socket, generation } => (3, generation, socket),
            Self::Writable { socket, generation } => (4, generation, socket),
            Self::File { index } => (5, 0, index),
        };
        (kind << 56) | (u64::from(generation % GENERATIONS) << 32) | u64::from(index)
    }

    fn unpack(packed: u64) -> Self {
        let index = packed as u32;
        let generation = (packed >> 32) as u32 % GENERATIONS;
        match packed >> 56 {
            0 => Self::Nothing,
            1 => Self::Wake,
            2 => Self::Accept { listener: index },
            3 => Self::Readable { socket: index, generation },
            4 => Self::Writable { socket: index, generation },
            5 => Self::File { index },
            kind => panic!("no submission of kind {kind} was ever made"),
        }
    }
}

/// One completion.
pub(super) struct Completion {
    pub(super) purpose: Purpose,
    /// The operation's result, or the error number that came instead.
    pub(super) result: io::Result<u32>,
    /// Whether the same submission will complete again.
    pub(super) more: bool,
}

impl From<cqueue::Entry> for Completion {
    fn from(entry: cqueue::Entry) -> Self {
        Self {
            purpose: Purpose::unpack(entry.user_data()),
            result: u32::try_from(entry.result())
                .map_err(|_| io::Error::from_raw_os_error(-entry.result())),
            more: cqueue::more(entry.flags()),
        }
    }
}

/// How long [`Queue::enter`] waits for a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sleep {
    No,
    For(Duration),
    Forever,
}

pub(super) struct Queue {
    ring: IoUring,
    /// Entries that found the ring full, in order.
    backlog: VecDeque<squeue::Entry>,
}

impl Queue {
    pub(super) fn new() -> io::Result<Self> {
        let ring = build()?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let params = ring.params();
        if !(params.is_feature_ext_arg() && params.is_feature_nodrop())
            || OPERATIONS.iter().any(|operation| !probe.is_supported(*operation))
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        ring.submitter().register_iowq_max_workers(&mut [FILE_WORKERS_MAX, OTHER_WORKERS_MAX])?;
        Ok(Self { ring, backlog: VecDeque::new() })
    }

    /// Optional features of the kernel's rings, by the name of their flag.
    pub(super) fn features(&self) -> Vec<&'static str> {
        let params = self.ring.params();
        let features = [
            ("RECVSEND_BUNDLE", params.is_feature_recvsend_bundle()),
            ("MIN_TIMEOUT", params.is_feature_min_timeout()),
            ("NO_IOWAIT", params.is_feature_no_iowait()),
        ];
        features.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
    }

    /// Queues an entry for the next `enter`.
    ///
    /// # Safety
    /// Memory that the entry points to stays valid, and is left alone as the operation demands,
    /// until its last completion was taken.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, purpose: Purpose) {
        let entry = entry.user_data(purpose.pack());
        // SAFETY: the caller vouches for the memory until the completion; an entry in the backlog
        // completes later still.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Submits what is queued, lets the kernel run what it has deferred, and sleeps.
    pub(super) fn enter(&mut self, sleep: Sleep) -> io::Result<()> {
        while !self.backlog.is_empty() {
            self.submit()?;
            let mut submission = self.ring.submission();
            while let Some(entry) = self.backlog.front() {
                // SAFETY: as promised to `push` by whoever queued the entry.
                if unsafe { submission.push(entry) }.is_err() {
                    break;
                }
                self.backlog.pop_front();
            }
        }
        match sleep {
            // A second pass runs what the first one deferred.
            Sleep::No => self.submit().and_then(|()| self.submit()),
            Sleep::Forever => tolerate(self.ring.submit_and_wait(1)),
            Sleep::For(duration) => {
                let timespec = Timespec::from(duration);
                let args = SubmitArgs::new().timespec(&timespec);
                tolerate(self.ring.submitter().submit_with_args(1, &args))
            }
        }
    }

    /// Without a system call when there is nothing to do.
    fn submit(&mut self) -> io::Result<()> {
        let submission = self.ring.submission();
        if submission.is_empty() && !submission.taskrun() && !submission.cq_overflow() {
            return Ok(());
        }
        drop(submission);
        tolerate(self.ring.submit())
    }

    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        self.ring.completion().next().map(Completion::from)
    }
}

fn build() -> io::Result<IoUring> {
    let mut tries = 1;
    loop {
        let built = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(SUBMISSIONS);
        match built {
            Err(e) if e.raw_os_error() == Some(libc::ENOMEM) && tries < MEMORY_TRIES => {
                tries += 1;
                std::thread::sleep(MEMORY_PAUSE);
            }
            built => return built,
        }
    }
}

/// Ends of a wait that are no failures: the time is up, a signal came, or the kernel asks to take
/// completions first.
fn tolerate(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(e) => match e.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_survives_the_kernel() {
        let purposes = [
            Purpose::Nothing,
            Purpose::Wake,
            Purpose::Accept { listener: u32::MAX },
            Purpose::Readable { socket: 7, generation: GENERATIONS - 1 },
            Purpose::Writable { socket: u32::MAX, generation: 0 },
            Purpose::File { index: 9 },
        ];
        for purpose in purposes {
            assert_eq!(Purpose::unpack(purpose.pack()), purpose);
        }
    }
}
