//! A world in memory that follows from one seed: [`SimIo`] behaves like Linux on a bad day.
//!
//! Faults allowed, each with its rate in [`Faults`] or its own method of [`SimWorld`]:
//! - writes fail (EIO, any of their blocks on the disk), find no space, stop short, or complete
//!   well and are lost; allocations find no space; reads fail;
//! - flushes fail, and what they should have covered may be gone for good;
//! - completions come late and in any order; bytes, connections and free space are noticed late;
//! - the page cache forgets; direct I/O is refused;
//! - sends take a part of what fits; connections are reset at any moment;
//! - the process is killed ([`SimWorld::kill`]): operations in flight happen or not;
//! - the power goes ([`SimWorld::power_cut`]), between calls or after any one effect on the disk
//!   ([`SimWorld::cut_power_after`]): of the changes that no completed flush covered, each block is
//!   kept, lost or torn, lengths and names are kept as far as some point of their order, and a file
//!   flushed in a folder that was not is gone.
//!
//! Not simulated: bytes that rot after they were durable; blocks that turn into garbage.
//!
//! Time stands still while anybody has something to do. It moves in [`Io::wait`](crate::Io::wait),
//! which never blocks: when no `SimIo` of the world has an event or a deadline that has passed,
//! time jumps to the next completion or deadline of any of them. So whoever steps several shards
//! calls them in turn, all on one thread, until nothing is left to do; a shard that is never
//! stepped again must be dropped, else time waits for it.

mod chance;
mod client;
mod disk;
mod image;
mod network;
mod shard;
#[cfg(test)]
mod tests;
mod world;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

pub use chance::Faults;
pub use client::SimClient;
pub use shard::{SimFile, SimIo, SimStream};

use crate::Instant;
use world::World;

/// What a planned fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Submitted and blocking writes.
    Write,
    /// Submitted and blocking flushes of a file. A `submit_sync_all` counts for every file.
    Sync,
    /// Submitted allocations.
    Allocate,
    /// Blocking reads and fetches of pages.
    Read,
}

/// The world, shared by its handles. Nobody holds the lock across a call of another.
#[derive(Clone, Debug)]
struct SharedWorld(Arc<Mutex<World>>);

impl SharedWorld {
    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("a panic under this lock has failed the test already")
    }
}

/// A simulated machine: its disk, its network, its clock.
#[derive(Clone, Debug)]
pub struct SimWorld {
    world: SharedWorld,
}

impl SimWorld {
    /// An empty disk, no connection, no faults. All that happens follows from the seed and the
    /// order of calls.
    pub fn new(seed: u64) -> Self {
        Self::from_world(World::new(seed))
    }

    fn from_world(world: World) -> Self {
        Self { world: SharedWorld(Arc::new(Mutex::new(world))) }
    }

    /// One more shard's door to this world.
    pub fn make_io(&self) -> SimIo {
        SimIo::new(self.world.clone())
    }

    /// The machine as it starts again after the power went now: its own world, with nothing but the
    /// disk. This one goes on unchanged, so a test may cut the power after every step.
    pub fn power_cut(&self, seed: u64) -> Self {
        Self::from_world(self.world.lock().after_power_cut(seed))
    }

    /// The machine after the broker's process was killed now: its own world, whose kernel still
    /// holds what was written. This one goes on unchanged.
    pub fn kill(&self, seed: u64) -> Self {
        Self::from_world(self.world.lock().after_kill(seed))
    }

    /// Lets `effects` more changes of the disk happen, then fails all disk operations, and
    /// completes none, until the test goes on with [`SimWorld::power_cut`]: so a cut also falls
    /// within calls that do several things, such as `replace_file`.
    pub fn cut_power_after(&self, effects: u64) {
        self.world.lock().effects_left = Some(effects);
    }

    /// Whether the effects allowed by [`SimWorld::cut_power_after`] are used up.
    pub fn is_power_off(&self) -> bool {
        self.world.lock().effects_left == Some(0)
    }

    /// Changes of the disk made so far: the range of useful arguments of
    /// [`SimWorld::cut_power_after`].
    pub fn effects(&self) -> u64 {
        self.world.lock().effects
    }

    /// Sets how often faults happen from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.lock().faults = faults;
    }

    /// Fails the next such operation on a file whose path contains `path_part`, with this error
    /// number. Several may be planned; each hits once.
    pub fn fail_next(&self, operation: Operation, path_part: &str, os_error: i32) {
        self.world.lock().planned.push((operation, path_part.to_owned(), os_error));
    }

    /// Limits the sum of all files' lengths; growth beyond it finds no space. `None` lifts it.
    pub fn set_capacity_bytes(&self, bytes: Option<u64>) {
        self.world.lock().disk.capacity_bytes = bytes;
    }

    /// Whether [`crate::OpenMode::Direct`] fails with `InvalidInput`.
    pub fn refuse_direct_io(&self, refuse: bool) {
        self.world.lock().direct_io_refused = refuse;
    }

    /// Forgets the page cache.
    pub fn drop_caches(&self) {
        self.world.lock().disk.drop_caches();
    }

    /// How many `send_file` calls would have blocked on the disk so far.
    pub fn cold_sends(&self) -> u64 {
        self.world.lock().cold_sends
    }

    /// How many submitted flushes completed so far, well or not.
    pub fn flushes(&self) -> u64 {
        self.world.lock().flushes
    }

    /// Bytes that each direction of a connection holds before the sender must wait.
    pub fn set_socket_buffer_bytes(&self, bytes_max: usize) {
        self.world.lock().network.buffer_bytes_max = bytes_max;
    }

    /// Connects a client to a listener of this world.
    pub fn connect(&self, address: SocketAddr) -> io::Result<SimClient> {
        let id = self.world.lock().connect(address)?;
        Ok(SimClient::new(self.world.clone(), id))
    }

    /// The simulated clock.
    pub fn now(&self) -> Instant {
        Instant::from_ns(self.world.lock().now_ns)
    }

    /// Moves time on, past whatever is due in it.
    pub fn advance_ms(&self, ms: u64) {
        let mut world = self.world.lock();
        let end = Instant::from_ns(world.now_ns).plus_ms(ms);
        world.run_until(end.ns());
    }

    /// Moves the wall clock, and not the monotonic one.
    pub fn shift_wall_clock_ms(&self, ms: i64) {
        self.world.lock().wall_start_ms += ms;
    }

    /// Whether nothing will happen by itself: no event waits, none is on its way, and no `SimIo`
    /// waits for a deadline.
    pub fn is_quiet(&self) -> bool {
        self.world.lock().next_ns().is_none()
    }

    /// The content of a file as a process would read it now.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.world.lock().content(path)
    }
}
