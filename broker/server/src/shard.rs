//! The loop of one core: completions, mailboxes, requests, writes, flushes, replies, in turns.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use millrace_io::{ChunkPool, Event, Instant, Io, ListenerId, SocketId};
use millrace_wire::{ErrorCode, Uuid};

use crate::background::Work;
use crate::cleaning::Cleaning;
use crate::config::{Config, TopicConfig};
use crate::connection::{Connection, ConnectionId};
use crate::controller::ControllerState;
use crate::fetch::{FetchId, Fetches, PartRead, ReadTask};
use crate::fetch_session::Sessions;
use crate::flush::Flushes;
use crate::groups::GroupState;
use crate::intake::LargeFrames;
use crate::mailbox::Mailbox;
use crate::metadata::Image;
use crate::partitions::{AppendAnswer, PartitionId, Partitions};
use crate::produce::AppendTask;
use crate::request::{Reply, Request, RequestId};
use crate::shared::Shared;
use crate::storage::CheckpointState;
use crate::timers::{Timer, TimerKey, Timers};

/// A piece of work for another shard.
pub(crate) type Task<I> = Box<dyn FnOnce(&mut Shard<I>) + Send>;

/// What crosses from one shard to another.
pub(crate) enum Message<I: Io> {
    /// A new connection to serve.
    Connection { stream: I::Stream, peer: SocketAddr, listener: usize },
    /// Serve this request for the shard that received it.
    Forward(Request),
    /// The reply to a forwarded request.
    Reply(RequestId, Reply<I>),
    /// Close the connection of a forwarded request.
    Close(RequestId, String),
    /// Append records of a produce request.
    Append(AppendTask),
    /// The outcome of such an append: place in the reply, answer.
    Appended(RequestId, usize, AppendAnswer),
    /// Read partitions for a fetch.
    Read(ReadTask),
    /// What was read.
    ReadDone(FetchId, Vec<(usize, PartRead<I>)>),
    /// Tell the fetch when a partition moves beyond an offset.
    Watch(FetchId, Vec<(PartitionId, i64)>),
    /// The fetch waits no more.
    Unwatch(FetchId, Vec<PartitionId>),
    /// A partition that the fetch watches has moved.
    Moved(FetchId),
    /// To the background thread only: from the shard with this number.
    Work(usize, Work<I>),
    /// Anything that is not worth a kind of its own: administration, never produce or fetch.
    Run(Task<I>),
}

/// Who waits for pages to come into the page cache.
pub(crate) enum Cold {
    /// A connection whose next bytes they are.
    Send(ConnectionId),
    /// A fetch that needs them to find where batches end.
    Read(ReadTask),
}

/// One core's share of the broker. Everything in it is owned by its thread.
pub(crate) struct Shard<I: Io> {
    pub(crate) id: usize,
    pub(crate) io: I,
    pub(crate) shared: Arc<Shared>,
    pub(crate) image: Arc<Image>,
    /// With the dynamic settings of the image.
    pub(crate) config: Arc<Config>,
    pub(crate) mailbox: Mailbox<Message<I>>,
    pub(crate) partitions: Partitions<I>,
    /// Settings of every topic of the image.
    pub(crate) topic_configs: HashMap<Uuid, Arc<TopicConfig>>,
    pub(crate) chunks: ChunkPool,
    pub(crate) fetches: Fetches<I>,
    pub(crate) sessions: Sessions,
    pub(crate) flushes: Flushes,
    pub(crate) groups: GroupState<I>,
    /// On shard 0 only.
    pub(crate) controller: Option<ControllerState<I>>,
    pub(crate) timers: Timers,
    /// The time at which this turn began.
    pub(crate) now: Instant,
    /// Partitions with appends that no write was submitted for.
    pub(crate) dirty: Vec<u32>,
    /// Bytes appended and not yet written.
    pub(crate) unwritten_bytes: u64,
    /// Partitions used since housekeeping found them at rest.
    pub(crate) used: Vec<u32>,
    /// Fetches of this shard whose partitions moved in this turn.
    pub(crate) moved_fetches: Vec<FetchId>,
    pub(crate) connections: Vec<Option<Connection<I>>>,
    pub(crate) free_connections: Vec<u32>,
    pub(crate) next_generation: u32,
    pub(crate) by_socket: HashMap<SocketId, u32>,
    /// Connections to look at in this turn: bytes to receive, frames to start, replies to send.
    pub(crate) queue: Vec<ConnectionId>,
    /// Connections that wait until fewer bytes are unwritten.
    pub(crate) paused: Vec<ConnectionId>,
    pub(crate) large_frames: LargeFrames,
    pub(crate) spare_buffers: Vec<BytesMut>,
    /// Room for records that are decompressed to be checked.
    pub(crate) scratch: Vec<u8>,
    /// The start of a batch that has landed, for the request that is being started.
    pub(crate) landed: Option<Bytes>,
    /// Pages under way into the page cache, by the number in their token.
    pub(crate) cold: HashMap<u64, Cold>,
    pub(crate) next_cold: u64,
    /// When partitions are looked after next.
    pub(crate) housekeeping: Option<TimerKey>,
    /// Recovery points that are not on disk yet.
    pub(crate) checkpoint: CheckpointState,
    /// Partitions that this round of retention has still to look at.
    pub(crate) expiring: Vec<PartitionId>,
    pub(crate) cleaning: Cleaning,
    /// On shard 0: clients that came before the metadata was read.
    pub(crate) early: Vec<(ListenerId, I::Stream, SocketAddr)>,
    /// On shard 0: every shard has the metadata, clients may be served; or why that cannot be.
    pub(crate) begun: Option<Result<(), ErrorCode>>,
    /// On shard 0: listener of the I/O layer -> index of the configured listener.
    pub(crate) listeners: HashMap<ListenerId, usize>,
}

impl<I: Io> Shard<I> {
    /// Runs until told to stop, then brings everything to disk.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.schedule();
        while !self.shared.stop.load(Ordering::Acquire) {
            self.turn()?;
        }
        self.shut_down()
    }

    /// Sets the timers of what comes again and again.
    pub(crate) fn schedule(&mut self) {
        self.schedule_retention();
        self.schedule_cleaning();
        self.schedule_metadata_checkpoint();
        self.close_idle();
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.io.wait(self.next_deadline())?;
        self.now = self.io.now();
        while let Some(event) = self.io.next_event() {
            self.on_event(event);
        }
        while let Some(message) = self.mailbox.next() {
            self.on_message(message);
        }
        self.serve_connections();
        while let Some(timer) = self.timers.pop_due(self.now) {
            self.on_timer(timer);
        }
        self.write_group_records();
        self.submit_writes();
        self.start_due_flushes();
        while let Some(fetch) = self.moved_fetches.pop() {
            self.on_moved(fetch);
        }
        self.send_replies();
        if self.mailbox.deliver() {
            // A peer's queue is full: look again soon, it is busy emptying it.
            self.timers.add(self.now.plus_ms(1), Timer::Retry);
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.queue.is_empty() && self.moved_fetches.is_empty() && self.dirty.is_empty() {
            self.timers.next_at()
        } else {
            Some(self.now)
        }
    }

    fn on_event(&mut self, event: Event<I::Stream>) {
        match event {
            Event::Accepted { listener, stream, peer } => self.on_accepted(listener, stream, peer),
            Event::Readable(socket) => {
                if let Some(connection) = self.connection_of(socket) {
                    connection.may_receive = true;
                    let (id, waits) = (connection.id, connection.serial);
                    self.look_at(id);
                    if waits {
                        self.receive_ahead(id);
                    }
                }
            }
            Event::Writable(socket) => {
                if let Some(connection) = self.connection_of(socket) {
                    connection.send_blocked = false;
                    let id = connection.id;
                    self.look_at(id);
                }
            }
            Event::Completed { token, result } => self.on_completed(token, result),
            Event::Woken => {}
        }
    }

    fn on_message(&mut self, message: Message<I>) {
        match message {
            Message::Connection { stream, peer, listener } => self.adopt(stream, peer, listener),
            Message::Forward(request) => self.serve_forwarded(request),
            Message::Reply(id, reply) => self.complete(id, reply),
            Message::Close(id, reason) => self.close(id.connection, &reason),
            Message::Append(task) => self.append_forwarded(task),
            Message::Appended(id, position, answer) => self.appended(id, position, answer),
            Message::Read(task) => self.serve_read(task),
            Message::ReadDone(fetch, reads) => self.on_read(fetch, reads),
            Message::Watch(fetch, parts) => self.watch_parts(fetch, &parts),
            Message::Unwatch(fetch, parts) => self.unwatch_parts(fetch, &parts),
            Message::Moved(fetch) => self.moved_fetches.push(fetch),
            Message::Run(task) => task(self),
            Message::Work(..) => unreachable!("it goes to the background thread"),
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Fetch(fetch) => self.on_fetch_deadline(fetch),
            Timer::Groups => self.on_groups_due(),
            Timer::Housekeeping => self.keep_house(),
            Timer::Retention => self.delete_expired(),
            Timer::Move(id) => self.continue_move(id),
            Timer::Cleaning => self.look_for_dirt(),
            Timer::MetadataCheckpoint => {
                self.save_metadata(true);
                self.schedule_metadata_checkpoint();
            }
            Timer::Idle => self.close_idle(),
            Timer::Retry => {}
        }
    }

    /// Runs `task` on a shard: at once when it is this one.
    pub(crate) fn run_on(&mut self, shard: usize, task: impl FnOnce(&mut Self) + Send + 'static) {
        if shard == self.id {
            task(self);
        } else {
            self.mailbox.post(shard, Message::Run(Box::new(task)));
        }
    }

    /// Distributes items over the shards that own them; the answer names only shards that get any.
    pub(crate) fn by_owner<T>(
        &self,
        items: Vec<T>,
        partition: impl Fn(&T) -> PartitionId,
    ) -> Vec<(usize, Vec<T>)> {
        let shards = self.mailbox.shards();
        let mut owners: Vec<Vec<T>> = (0..shards).map(|_| Vec::new()).collect();
        for item in items {
            owners[partition(&item).owner(shards)].push(item);
        }
        owners.into_iter().enumerate().filter(|(_, items)| !items.is_empty()).collect()
    }
}
