//! `syncfs` has no ring operation: a thread of its own runs it, started when first asked for.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::files::RingFile;
use super::waker::RingWaker;
use crate::{Token, Waker};

type Results = Arc<Mutex<Vec<(Token, io::Result<()>)>>>;

/// Runs flushes of whole file systems. Its thread ends when this is dropped.
pub(super) struct SyncAll {
    requests: Sender<(Token, RingFile)>,
    results: Results,
}

impl SyncAll {
    pub(super) fn start(waker: Arc<RingWaker>) -> io::Result<Self> {
        let (requests, taken) = channel();
        let results = Results::default();
        let ours = Arc::clone(&results);
        let thread = thread::Builder::new().name("sync-all".to_owned());
        thread.spawn(move || run(&taken, &ours, &waker))?;
        Ok(Self { requests, results })
    }

    pub(super) fn submit(&self, token: Token, file: RingFile) {
        self.requests.send((token, file)).expect("the thread lives as long as this sender");
    }

    /// Flushes completed since the last call.
    pub(super) fn take_results(&self) -> Vec<(Token, io::Result<()>)> {
        std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn run(requests: &Receiver<(Token, RingFile)>, results: &Results, waker: &RingWaker) {
    while let Ok((token, file)) = requests.recv() {
        // SAFETY: the descriptor is open while `file` lives, and syncfs takes no pointers.
        let synced = unsafe { libc::syncfs(file.buffered().as_raw_fd()) };
        let result = if synced == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        results.lock().unwrap_or_else(PoisonError::into_inner).push((token, result));
        waker.wake();
    }
}
