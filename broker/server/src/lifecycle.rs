//! How a shard begins and ends, and how it takes over a new picture of the metadata.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use millrace_coordinator::Now;
use millrace_io::{ChunkPool, Io};
use millrace_wire::{ErrorCode, Uuid};

use crate::cleaning::Cleaning;
use crate::config::ConfigMap;
use crate::controller::ControllerState;
use crate::fetch::Fetches;
use crate::fetch_session::Sessions;
use crate::flush::Flushes;
use crate::groups::GroupState;
use crate::intake::LargeFrames;
use crate::limits;
use crate::mailbox::Mailbox;
use crate::metadata::controller::{Found, Registration};
use crate::metadata::data_dir;
use crate::metadata::places::{PlaceError, Places};
use crate::metadata::{
    Change, Endpoint as RegisteredEndpoint, Image, MetadataRecord, ResourceType, Topic, changes,
    checkpoint, leader_change_batch,
};
use crate::partitions::{PartitionId, Partitions, Then};
use crate::shard::{Message, Shard};
use crate::shared::{Endpoint, Shared};
use crate::start::StartError;
use crate::storage;
use crate::timers::Timers;

/// Name and id of the metadata log, as in KRaft.
pub(crate) const METADATA_TOPIC: &str = "__cluster_metadata";
const METADATA_TOPIC_ID: Uuid = Uuid::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const METADATA_LOG: PartitionId = PartitionId { topic_id: METADATA_TOPIC_ID, partition: 0 };

impl<I: Io> Shard<I> {
    pub(crate) fn new(id: usize, io: I, shared: Arc<Shared>, mailbox: Mailbox<Message<I>>) -> Self {
        let now = io.now();
        let slots = usize::try_from(shared.config.topics.fetch_sessions_max).unwrap_or(0);
        let sessions = Sessions::new(slots, id, mailbox.shards());
        let flushes = Flushes::new(shared.folders.len());
        let large_frames = LargeFrames::new(&shared.config.sockets, mailbox.shards());
        let group_now = Now { monotonic_ms: now.ns() / 1_000_000, wall_ms: io.wall_clock_ms() };
        Self {
            id,
            groups: GroupState::new(&shared.config, group_now),
            io,
            config: Arc::new(shared.config.clone()),
            shared,
            image: Arc::new(Image::default()),
            mailbox,
            partitions: Partitions::new(),
            topic_configs: HashMap::new(),
            chunks: ChunkPool::new(limits::IDLE_CHUNK_BYTES),
            fetches: Fetches::new(),
            sessions,
            flushes,
            controller: (id == 0).then(|| ControllerState::new(METADATA_LOG)),
            timers: Timers::default(),
            now,
            dirty: Vec::new(),
            unwritten_bytes: 0,
            used: Vec::new(),
            housekeeping: None,
            checkpoint: storage::CheckpointState::default(),
            expiring: Vec::new(),
            cleaning: Cleaning::default(),
            moved_fetches: Vec::new(),
            connections: Vec::new(),
            free_connections: Vec::new(),
            next_generation: 0,
            by_socket: HashMap::new(),
            queue: Vec::new(),
            paused: Vec::new(),
            spare_buffers: Vec::new(),
            large_frames,
            scratch: Vec::new(),
            landed: None,
            cold: HashMap::new(),
            next_cold: 0,
            listeners: HashMap::new(),
            early: Vec::new(),
            begun: None,
        }
    }

    /// Makes the shard ready to serve. Shard 0 binds the listeners, reads the metadata log, begins
    /// a new epoch of it and hands the picture to all shards; it returns the addresses bound.
    pub(crate) fn begin(
        &mut self,
        listeners: &[(String, SocketAddr)],
    ) -> Result<Vec<SocketAddr>, StartError> {
        if self.controller.is_none() {
            return Ok(Vec::new());
        }
        let mut addresses = Vec::with_capacity(listeners.len());
        for (index, (_, address)) in listeners.iter().enumerate() {
            let (listener, bound) = self
                .io
                .listen(*address)
                .map_err(|source| StartError::Listen { address: address.to_string(), source })?;
            self.listeners.insert(listener, index);
            addresses.push(bound);
        }
        self.shared.set_endpoints(&addresses);
        self.shared.load_hints(&mut self.io);
        let image = self.read_metadata().map_err(StartError::Metadata)?;
        let found = self.find_partitions(&image)?;
        self.remove_leftovers();
        self.begin_epoch(image, found).map_err(StartError::Metadata)?;
        while self.begun.is_none() {
            self.turn().map_err(StartError::Ring)?;
        }
        if let Some(Err(error)) = self.begun {
            let reason = format!("its log cannot be written: {}", error.name());
            return Err(StartError::Metadata(reason));
        }
        for (listener, stream, peer) in std::mem::take(&mut self.early) {
            self.on_accepted(listener, stream, peer);
        }
        Ok(addresses)
    }

    /// The picture that checkpoints and the metadata log give.
    fn read_metadata(&mut self) -> Result<Image, String> {
        let mut topic_config = self.config.topic(&Default::default());
        topic_config.segment_bytes = self.config.metadata_log.segment_bytes;
        topic_config.segment_ms = self.config.metadata_log.segment_ms;
        let topic = Arc::from(METADATA_TOPIC);
        let folder = self.shared.metadata_folder;
        self.partitions.add(METADATA_LOG, topic, Arc::new(topic_config), 0, folder);
        let index = self
            .open_partition(METADATA_LOG)
            .map_err(|_| "the metadata log cannot be opened; the line above says why".to_owned())?;
        let folder = self.metadata_folder();
        let Self { partitions, io, chunks, controller, .. } = self;
        let mut image = checkpoint::read_newest(io, &folder).map_err(|error| error.to_string())?;
        let partition = partitions.get_mut(index).expect("opened just now");
        let log = partition.log.as_mut().expect("opened just now");
        let mut offset = image.end_offset();
        if offset < log.log_start() {
            let start = log.log_start();
            return Err(format!(
                "its log begins at offset {start}, its newest whole checkpoint ends at {offset}"
            ));
        }
        let mut unsaved_bytes = 0;
        while offset < log.written_end() {
            let bytes = storage::read_blocking(log, io, chunks, offset, limits::LOAD_BYTES)
                .map_err(|error| error.to_string())?;
            image.replay(&bytes).map_err(|error| error.to_string())?;
            unsaved_bytes += bytes.len();
            if image.end_offset() <= offset {
                return Err(format!("the metadata log ends within a batch at offset {offset}"));
            }
            offset = image.end_offset();
        }
        controller.as_mut().expect("the metadata is read on shard 0").unsaved_bytes = unsaved_bytes;
        Ok(image)
    }

    /// The partitions that are not where the metadata have them.
    fn find_partitions(&mut self, image: &Image) -> Result<Found, PlaceError> {
        let Self { shared, io, .. } = self;
        let places = Places {
            folders: &shared.folders,
            metadata: shared.metadata_folder,
            lost: &shared.config.own.lost_dirs,
            node_id: shared.node_id,
        };
        places.finish_moves(io, image)?;
        let found = places.find(io, image)?;
        let index = |id: Uuid| shared.folders.iter().position(|folder| folder.id == id);
        for ((topic_id, number), id) in &found {
            let topic = image.topic_by_id(*topic_id).expect("it was found in this picture");
            let before = topic.partition(*number).map(|old| old.directory_of(shared.node_id));
            if let (Some(from), Some(to)) = (before.and_then(index), index(*id)) {
                shared.carry_hints(&(topic.name.to_string(), *number), from, to);
            }
        }
        if !found.is_empty() {
            storage::save_hints(shared, io);
        }
        Ok(found)
    }

    /// Where the metadata log and its checkpoints are.
    pub(crate) fn metadata_folder(&self) -> PathBuf {
        self.shared.folders[self.shared.metadata_folder].path.join(data_dir::METADATA_LOG)
    }

    /// Takes the lead of the metadata log, registers this broker, and publishes the picture.
    fn begin_epoch(&mut self, mut image: Image, found: Found) -> Result<(), String> {
        let epoch = image.leader_epoch() + 1;
        let index = self.partitions.index(METADATA_LOG).expect("added before");
        self.partitions.get_mut(index).expect("added before").leader_epoch = epoch;
        let wall_ms = self.io.wall_clock_ms();
        let control = leader_change_batch(self.shared.node_id, wall_ms);
        image.lead(epoch);
        let registration = self.registration(found);
        let records = self.with_controller(&image, |controller| controller.begin(&registration));
        let epoch_offset = image.end_offset();
        image.apply(&records).map_err(|error| error.to_string())?;
        let node = self.shared.node_id;
        let broker_epoch = image.brokers().get(&node).map_or(epoch_offset, |own| own.epoch);
        self.shared.broker_epoch.store(broker_epoch, Ordering::Release);
        let image = Arc::new(image);
        let batches =
            MetadataRecord::parts(&records).map(|part| MetadataRecord::batch(part, wall_ms));
        let batches: Vec<Vec<u8>> = [control].into_iter().chain(batches).collect();
        let then = Then::Run(Box::new(move |shard: &mut Self, result| match result {
            Ok(()) => shard.publish(image, |shard| shard.begun = Some(Ok(()))),
            Err(error) => shard.begun = Some(Err(error)),
        }));
        self.append_metadata(METADATA_LOG, &batches, then);
        Ok(())
    }

    fn registration(&mut self, found: Found) -> Registration {
        let incarnation = Uuid::from_bytes(
            (u128::from(self.io.random_u64()) << 64 | u128::from(self.io.random_u64()))
                .to_be_bytes(),
        );
        let endpoints = self
            .shared
            .endpoints()
            .iter()
            .map(|Endpoint { listener, host, port }| RegisteredEndpoint {
                listener: listener.clone(),
                host: host.clone(),
                port: *port,
                security_protocol: 0,
            })
            .collect();
        let directories = self.shared.directories();
        Registration { incarnation, endpoints, directories, found }
    }

    /// Takes over a new picture: partitions of this shard come, change and go with it.
    pub(crate) fn take_over(&mut self, image: &Arc<Image>) {
        let old = std::mem::replace(&mut self.image, Arc::clone(image));
        let changes = changes(&old, image);
        if changes.iter().any(|change| matches!(change, Change::BrokerConfigChanged(_))) {
            self.change_broker_config(&old);
        }
        for change in changes {
            match change {
                Change::TopicRemoved(topic) => self.remove_topic(&topic),
                Change::TopicAdded(topic) => {
                    let config = Arc::new(self.config.topic(&topic.config));
                    self.topic_configs.insert(topic.id, config);
                    self.add_partitions(&topic, 0);
                }
                Change::PartitionsAdded { topic, first } => self.add_partitions(&topic, first),
                Change::PartitionChanged { topic, partition } => {
                    let id = partition_id(&topic, partition);
                    let changed = &topic.partitions[partition];
                    let folder = self.shared.folder_of(changed);
                    if let Some(index) = self.partitions.index(id)
                        && let Some(own) = self.partitions.get_mut(index)
                    {
                        own.leader_epoch = changed.leader_epoch;
                        if own.folder != folder {
                            self.move_over(index, folder);
                        }
                    }
                }
                Change::TopicConfigChanged(topic) => self.change_config(&topic),
                Change::BrokerConfigChanged(_)
                | Change::FeaturesChanged
                | Change::BrokersChanged => {}
            }
        }
    }

    fn add_partitions(&mut self, topic: &Topic, first: usize) {
        let shards = self.mailbox.shards();
        let config = Arc::clone(&self.topic_configs[&topic.id]);
        for number in first..topic.partitions.len() {
            let id = partition_id(topic, number);
            if id.owner(shards) == self.id {
                let partition = &topic.partitions[number];
                let (name, config) = (Arc::clone(&topic.name), Arc::clone(&config));
                let folder = self.shared.folder_of(partition);
                self.partitions.add(id, name, config, partition.leader_epoch, folder);
            }
        }
    }

    /// Takes over the brokers' dynamic settings, which topics may inherit.
    fn change_broker_config(&mut self, old: &Image) {
        let none = ConfigMap::new();
        let node = self.shared.node_id.to_string();
        let of = |name: &str| self.image.configs(ResourceType::Broker, name).unwrap_or(&none);
        match self.shared.config.with_dynamic(of(""), of(&node)) {
            Ok(config) => self.config = Arc::new(config),
            Err(error) => {
                crate::log_line!("dynamic settings are not in force: {error}");
                return;
            }
        }
        self.groups.configure(&self.config);
        for topic in old.topics() {
            self.change_config(topic);
        }
    }

    fn change_config(&mut self, topic: &Topic) {
        let config = Arc::new(self.config.topic(&topic.config));
        self.topic_configs.insert(topic.id, Arc::clone(&config));
        for number in 0..topic.partitions.len() {
            let id = partition_id(topic, number);
            if let Some(index) = self.partitions.index(id)
                && let Some(partition) = self.partitions.get_mut(index)
            {
                partition.config = Arc::clone(&config);
                if let Some(log) = &mut partition.log {
                    log.set_config(storage::log_config(&self.config, id, &topic.name, &config));
                }
            }
        }
    }

    fn remove_topic(&mut self, topic: &Topic) {
        self.topic_configs.remove(&topic.id);
        for number in 0..topic.partitions.len() {
            let Some(mut partition) = self.partitions.remove(partition_id(topic, number)) else {
                continue;
            };
            self.forget_unwritten(partition.unwritten_bytes);
            for then in partition.take_all() {
                self.go_on(then, Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
            }
            for fetch in partition.take_watches() {
                self.notify_fetch(fetch);
            }
            self.delete_folder(partition);
        }
        let now = self.group_now();
        let effects = self.groups.groups.topics_deleted(now, &[&topic.name]);
        self.run_effects(effects);
    }

    /// Ends serving: everything appended is written, flushed, and the files are left as a clean
    /// start wants them.
    pub(crate) fn shut_down(mut self) -> io::Result<()> {
        for listener in std::mem::take(&mut self.listeners).into_keys() {
            self.io.close_listener(listener);
        }
        let ids: Vec<_> = self.connections.iter().flatten().map(|open| open.id).collect();
        ids.into_iter().for_each(|id| self.close(id, ""));
        while self.flush_everything() {
            self.turn()?;
        }
        self.close_logs()
    }
}

fn partition_id(topic: &Topic, number: usize) -> PartitionId {
    let partition = i32::try_from(number).expect("partitions are numbered by the protocol's int32");
    PartitionId { topic_id: topic.id, partition }
}
