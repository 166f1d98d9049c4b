//! Starting and stopping: the data folder, a thread for each shard and the background thread, the
//! metadata log, the listeners.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;

use millrace_doctor::Subject;
use millrace_io::RingIo;

use crate::background::Background;
use crate::config::{Config, WriteMode};
use crate::limits;
use crate::mailbox::{Mailbox, WakerSlot, mesh};
use crate::metadata::data_dir::{DataDir, DataDirError};
use crate::metadata::places::PlaceError;
use crate::shard::{Message, Shard};
use crate::shared::{Endpoint, Shared};
use crate::storage;

/// Why the broker did not start. Each says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A listener's address names no interface of this machine, or is in use.
    #[error("cannot listen on {address}: {source}; choose another address with `listeners`")]
    Listen {
        /// The address as configured.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// io_uring cannot be used.
    #[error("{0}")]
    Ring(io::Error),
    /// Partitions are in two data folders, or in none.
    #[error(transparent)]
    Places(#[from] PlaceError),
    /// The metadata log is damaged or cannot be written.
    #[error("cannot read the cluster's metadata: {0}")]
    Metadata(String),
}

/// A broker that serves until it is stopped or dropped.
pub struct RunningBroker {
    shared: Arc<Shared>,
    wakers: Vec<WakerSlot>,
    /// The shards, then the background thread; wakers likewise.
    threads: Vec<JoinHandle<io::Result<()>>>,
    /// Set once the shards have ended.
    stop_background: Arc<AtomicBool>,
    addresses: Vec<SocketAddr>,
    data_dir: Option<DataDir>,
    cpus: Vec<usize>,
}

/// Starts a broker and returns once it serves clients.
pub fn start(config: Config) -> Result<RunningBroker, StartError> {
    let data_dir = DataDir::open(&config)?;
    let listeners = resolve(&config)?;
    let cpus = shard_cpus(&config);
    let shared = Arc::new(Shared::new(config, &data_dir, cpus.len()));
    let count = cpus.len() + 1;
    let wakers: Vec<WakerSlot> = (0..count).map(|_| WakerSlot::default()).collect();
    let mailboxes = mesh(&wakers, limits::MAILBOX_MESSAGES);
    let wakeable = Arc::new(Barrier::new(count));
    let stop_background = Arc::new(AtomicBool::new(false));
    let (started, starts) = sync_channel(count);
    let mut threads = Vec::with_capacity(count);
    for (id, mailbox) in mailboxes.into_iter().enumerate() {
        let seed = Seed {
            mailbox,
            waker: Arc::clone(&wakers[id]),
            wakeable: Arc::clone(&wakeable),
            started: started.clone(),
        };
        let name = cpus.get(id).map_or("background".to_owned(), |_| format!("shard-{id}"));
        let thread = std::thread::Builder::new().name(name);
        let thread = match cpus.get(id) {
            Some(&cpu) => {
                let shared = Arc::clone(&shared);
                let listeners = if id == 0 { listeners.clone() } else { Vec::new() };
                thread.spawn(move || seed.run_shard(id, cpu, shared, &listeners))
            }
            None => {
                let stop = Arc::clone(&stop_background);
                thread.spawn(move || seed.run_background(stop))
            }
        };
        let thread = thread.map_err(StartError::Ring)?;
        threads.push(thread);
    }
    drop(started);
    let mut broker = RunningBroker {
        shared,
        wakers,
        threads,
        stop_background,
        addresses: Vec::new(),
        data_dir: Some(data_dir),
        cpus,
    };
    for _ in 0..broker.threads.len() {
        match starts.recv() {
            Ok(Ok(addresses)) => broker.addresses.extend(addresses),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(StartError::Metadata("a thread ended".into())),
        }
    }
    Ok(broker)
}

/// The names and addresses to bind. No host means every address, of IPv6 too where there is any.
fn resolve(config: &Config) -> Result<Vec<(String, SocketAddr)>, StartError> {
    let bound = config.listeners.bound.iter().map(|listener| {
        let host = match listener.host.as_str() {
            "" if TcpListener::bind("[::]:0").is_ok() => "::",
            "" => "0.0.0.0",
            host => host,
        };
        let unknown = |source| StartError::Listen { address: listener.to_string(), source };
        let mut found = (host, listener.port).to_socket_addrs().map_err(unknown)?;
        let none = || unknown(io::ErrorKind::AddrNotAvailable.into());
        Ok((listener.name.clone(), found.next().ok_or_else(none)?))
    });
    bound.collect()
}

/// The CPU of each shard: those of `millrace.cpus`, else all the process may use; as many shards as
/// CPUs unless `millrace.shards` says otherwise.
fn shard_cpus(config: &Config) -> Vec<usize> {
    let mut cpus = config.cpus.clone();
    if cpus.is_empty() {
        let found = core_affinity::get_core_ids().unwrap_or_default();
        cpus.extend(found.iter().map(|core| core.id));
    }
    if cpus.is_empty() {
        cpus.push(0);
    }
    let shards = if config.own.shards == 0 { cpus.len() } else { config.own.shards };
    (0..shards).map(|shard| cpus[shard % cpus.len()]).collect()
}

/// What `millrace doctor` is to look at.
pub fn subject(config: &Config) -> Subject {
    Subject {
        folders: config.log_dirs.clone(),
        shards: shard_cpus(config).len(),
        wants_direct: config.own.write_mode.default_choice() != WriteMode::Buffered,
    }
}

/// What a thread begins with.
struct Seed {
    mailbox: Mailbox<Message<RingIo>>,
    waker: WakerSlot,
    /// Passed once every thread can be woken: a message sent before would be slept upon.
    wakeable: Arc<Barrier>,
    started: SyncSender<Started>,
}

type Started = Result<Vec<SocketAddr>, StartError>;

impl Seed {
    fn run_shard(
        self,
        id: usize,
        cpu: usize,
        shared: Arc<Shared>,
        listeners: &[(String, SocketAddr)],
    ) -> io::Result<()> {
        // Pinning is a wish: in a container without the permission the shard runs anywhere.
        core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
        let Some(io) = self.ring() else { return Ok(()) };
        let mut shard = Shard::new(id, io, shared, self.mailbox);
        let outcome = shard.begin(listeners);
        let failed = outcome.is_err();
        // The receiver waits for one message a thread; when it is gone the start has failed.
        let _ = self.started.send(outcome);
        if failed { Ok(()) } else { shard.run() }
    }

    fn run_background(self, stop: Arc<AtomicBool>) -> io::Result<()> {
        // As pinning, a wish.
        millrace_io::lower_priority();
        let Some(io) = self.ring() else { return Ok(()) };
        let _ = self.started.send(Ok(Vec::new()));
        Background::new(io, stop, self.mailbox).run()
    }

    /// The thread's ring, by which it can be woken; without one the start fails.
    fn ring(&self) -> Option<RingIo> {
        let io = RingIo::new();
        if let Ok(io) = &io {
            let _ = self.waker.set(millrace_io::Io::waker(io));
        }
        self.wakeable.wait();
        io.map_err(|error| self.started.send(Err(StartError::Ring(error)))).ok()
    }
}

impl RunningBroker {
    /// Addresses that the broker listens on, in the order of `listeners`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// CPUs of the shards.
    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// The first of the folders with its data.
    pub fn data_dir(&self) -> &Path {
        &self.shared.folders[0].path
    }

    /// Addresses that clients are told, in the order of `listeners`.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.shared.endpoints()
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// Whether records are written past the page cache, in all data folders.
    pub fn writes_direct(&self) -> bool {
        let Shared { config, folders, .. } = &*self.shared;
        folders.iter().all(|folder| storage::writes_direct(config, &folder.path))
    }

    /// Ends serving, brings everything to disk and marks the stop as clean.
    pub fn stop(mut self) -> io::Result<()> {
        self.halt()
    }

    fn halt(&mut self) -> io::Result<()> {
        let Some(data_dir) = self.data_dir.take() else { return Ok(()) };
        self.shared.stop.store(true, Ordering::Release);
        for waker in self.wakers.iter().filter_map(|waker| waker.get()) {
            waker.wake();
        }
        let mut outcome = Ok(());
        let last = self.threads.len() - 1;
        for (index, thread) in self.threads.drain(..).enumerate() {
            if index == last {
                self.stop_background.store(true, Ordering::Release);
                self.wakers[last].get().iter().for_each(|waker| waker.wake());
            }
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed")));
            outcome = outcome.and(ended);
        }
        if outcome.is_ok() {
            data_dir.mark_clean(self.shared.broker_epoch.load(Ordering::Acquire))?;
        }
        outcome
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            crate::log_line!("the stop was not clean: {error}");
        }
    }
}
