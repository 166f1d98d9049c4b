//! Starting and stopping: the data folder, one thread a shard, the metadata log, the listeners.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;

use millrace_doctor::Subject;
use millrace_io::RingIo;

use crate::config::{Config, WriteMode};
use crate::limits;
use crate::mailbox::{Mailbox, WakerSlot, mesh};
use crate::metadata::data_dir::{DataDir, DataDirError};
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
    /// The metadata log is damaged or cannot be written.
    #[error("cannot read the cluster's metadata: {0}")]
    Metadata(String),
}

/// A broker that serves until it is stopped or dropped.
pub struct RunningBroker {
    shared: Arc<Shared>,
    wakers: Vec<WakerSlot>,
    threads: Vec<JoinHandle<io::Result<()>>>,
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
    let wakers: Vec<WakerSlot> = cpus.iter().map(|_| WakerSlot::default()).collect();
    let mailboxes = mesh(&wakers, limits::MAILBOX_MESSAGES);
    let wakeable = Arc::new(Barrier::new(cpus.len()));
    let (started, starts) = sync_channel(cpus.len());
    let mut threads = Vec::with_capacity(cpus.len());
    for (id, mailbox) in mailboxes.into_iter().enumerate() {
        let seed = Seed {
            id,
            cpu: cpus[id],
            mailbox,
            shared: Arc::clone(&shared),
            waker: Arc::clone(&wakers[id]),
            wakeable: Arc::clone(&wakeable),
            listeners: if id == 0 { listeners.clone() } else { Vec::new() },
        };
        let started = started.clone();
        let thread = std::thread::Builder::new()
            .name(format!("shard-{id}"))
            .spawn(move || seed.run(&started))
            .map_err(StartError::Ring)?;
        threads.push(thread);
    }
    drop(started);
    let mut broker = RunningBroker {
        shared,
        wakers,
        threads,
        addresses: Vec::new(),
        data_dir: Some(data_dir),
        cpus,
    };
    for _ in 0..broker.threads.len() {
        match starts.recv() {
            Ok(Ok(addresses)) => broker.addresses.extend(addresses),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(StartError::Metadata("a shard ended".into())),
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

/// What a shard's thread begins with.
struct Seed {
    id: usize,
    cpu: usize,
    mailbox: Mailbox<Message<RingIo>>,
    shared: Arc<Shared>,
    waker: WakerSlot,
    /// Passed once every shard can be woken: a message sent before would be slept upon.
    wakeable: Arc<Barrier>,
    listeners: Vec<(String, SocketAddr)>,
}

type Started = Result<Vec<SocketAddr>, StartError>;

impl Seed {
    fn run(self, started: &SyncSender<Started>) -> io::Result<()> {
        // Pinning is a wish: in a container without the permission the shard runs anywhere.
        core_affinity::set_for_current(core_affinity::CoreId { id: self.cpu });
        let io = RingIo::new();
        if let Ok(io) = &io {
            let _ = self.waker.set(millrace_io::Io::waker(io));
        }
        self.wakeable.wait();
        let io = match io {
            Ok(io) => io,
            Err(error) => {
                let _ = started.send(Err(StartError::Ring(error)));
                return Ok(());
            }
        };
        let mut shard = Shard::new(self.id, io, self.shared, self.mailbox);
        let outcome = shard.begin(&self.listeners);
        let failed = outcome.is_err();
        // The receiver waits for one message a shard; when it is gone the start has failed.
        let _ = started.send(outcome);
        if failed { Ok(()) } else { shard.run() }
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

    /// The folder with all its data.
    pub fn data_dir(&self) -> &Path {
        &self.shared.data_dir
    }

    /// Addresses that clients are told, in the order of `listeners`.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.shared.endpoints()
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.shared.cluster_id
    }

    /// Whether records are written past the page cache.
    pub fn writes_direct(&self) -> bool {
        storage::writes_direct(&self.shared.config, &self.shared.data_dir)
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
        for thread in self.threads.drain(..) {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a shard failed")));
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
