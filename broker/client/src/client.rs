//! A cluster: whom to ask, what its topics are, and asking again.

use crate::connection::{Connection, Secure, Versions};
use crate::{ClientError, Result, refuse};
use millrace_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_wire::messages::metadata_request::MetadataRequestTopic;
use millrace_wire::messages::{FindCoordinatorRequest, ListOffsetsRequest, MetadataRequest};
use millrace_wire::{Array, ErrorCode, Request, Uuid};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// For how long a topic that was just made may be missing.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// The client id in every request.
    pub client_id: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long to ask again after errors that may pass.
    pub patience: Duration,
    /// Raised by the caller, it ends every wait with [`ClientError::Stopped`].
    pub stop: Arc<AtomicBool>,
    /// What is done to new connections; nothing for plain text.
    pub secure: Option<Arc<dyn Secure>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_id: "millrace".into(),
            timeout: Duration::from_secs(30),
            patience: Duration::from_secs(30),
            stop: Arc::default(),
            secure: None,
        }
    }
}

impl Options {
    /// Whether the flag is up.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A partition by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition of that number.
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A topic as metadata tell of it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; zero where the broker does not say.
    pub id: Uuid,
    /// Whether it is the broker's own.
    pub is_internal: bool,
    /// By number, from 0.
    pub partitions: Vec<Partition>,
}

/// A partition as metadata tell of it.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// The node that leads it; -1 for none.
    pub leader: i32,
    /// The nodes that hold it.
    pub replicas: Vec<i32>,
    /// Those of them in sync.
    pub isr: Vec<i32>,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug)]
pub enum To<'a> {
    /// Any broker.
    Any,
    /// The controller, as far as clients see one.
    Controller,
    /// This node.
    Node(i32),
    /// The coordinator of this group.
    Coordinator(&'a str),
}

/// A client of one cluster.
#[derive(Debug)]
pub struct Client {
    options: Options,
    /// Where it was reached first.
    bootstrap: String,
    connections: HashMap<String, Connection>,
    /// Node -> host and port.
    nodes: BTreeMap<i32, String>,
    cluster_id: Option<String>,
    controller: i32,
    coordinators: HashMap<String, i32>,
    topics: HashMap<String, Topic>,
    /// Counts the tries to reach some broker.
    turn: usize,
}

impl Client {
    /// Connects to the first of `bootstrap` (`host:port,host:port`) that can be reached.
    pub fn connect(bootstrap: &str, options: Options) -> Result<Self> {
        let mut opened = Err(ClientError::Stopped);
        for server in bootstrap.split(',').map(str::trim).filter(|server| !server.is_empty()) {
            let has_port =
                server.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
            let server = if has_port { server.to_owned() } else { format!("{server}:9092") };
            opened = Connection::open(&server, &options).map(|connection| (server, connection));
            if opened.is_ok() {
                break;
            }
        }
        let (bootstrap, connection) = opened?;
        let mut client = Self {
            options,
            bootstrap: bootstrap.clone(),
            connections: HashMap::from([(bootstrap, connection)]),
            nodes: BTreeMap::new(),
            cluster_id: None,
            controller: -1,
            coordinators: HashMap::new(),
            topics: HashMap::new(),
            turn: 0,
        };
        client.ask_metadata(Some(&[]), false)?;
        Ok(client)
    }

    /// The options, to raise or change them.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Where the cluster was reached first.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The nodes and where they are reached.
    pub fn nodes(&self) -> &BTreeMap<i32, String> {
        &self.nodes
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// The node that is named as controller, -1 for none.
    pub fn controller(&self) -> i32 {
        self.controller
    }

    /// What a broker offers.
    pub fn versions(&mut self, to: To<'_>) -> Result<Versions> {
        Ok(self.connection(to)?.0.versions().clone())
    }

    /// One request, one answer; error codes in it are the caller's.
    pub fn call<'q, Q: Request<'q>>(
        &mut self,
        to: To<'_>,
        request: &Q,
        ours: RangeInclusive<i16>,
    ) -> Result<Q::Response<'_>> {
        let timeout = self.options.timeout;
        self.call_within(to, request, ours, timeout)
    }

    /// The same, for requests whose answer may wait longer.
    pub fn call_within<'q, Q: Request<'q>>(
        &mut self,
        to: To<'_>,
        request: &Q,
        ours: RangeInclusive<i16>,
        timeout: Duration,
    ) -> Result<Q::Response<'_>> {
        let (connection, options) = self.connection(to)?;
        connection.call(request, ours, options, timeout)
    }

    /// One request that has no answer.
    pub fn send<'q, Q: Request<'q>>(
        &mut self,
        to: To<'_>,
        request: &Q,
        ours: RangeInclusive<i16>,
    ) -> Result<()> {
        let (connection, options) = self.connection(to)?;
        connection.send(request, ours, options).map(|_| ())
    }

    /// Attempts again while the error is one that may pass, until patience ends. What was
    /// remembered of leaders and coordinators is forgotten in between.
    pub fn retry<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        loop {
            match attempt(self) {
                Err(error) if error.is_retriable() => {
                    let patience = match error.code() {
                        Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => APPEARS_WITHIN,
                        _ => self.options.patience,
                    };
                    if start.elapsed() > patience.min(self.options.patience) {
                        return Err(error);
                    }
                    self.pause()?;
                }
                done => return done,
            }
        }
    }

    /// Waits a moment before another attempt, and forgets who leads and coordinates.
    pub fn pause(&mut self) -> Result<()> {
        self.coordinators.clear();
        self.topics.clear();
        if self.options.is_stopped() {
            return Err(ClientError::Stopped);
        }
        sleep(AGAIN_AFTER);
        Ok(())
    }

    /// All topics, by name.
    pub fn topics(&mut self) -> Result<Vec<Topic>> {
        let mut topics = self.retry(|client| client.ask_metadata(None, false))?;
        topics.retain(|(_, code)| !code.is_error());
        let mut topics: Vec<Topic> = topics.into_iter().map(|(topic, _)| topic).collect();
        topics.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(topics)
    }

    /// One topic with a leader for each partition.
    pub fn topic(&mut self, name: &str) -> Result<Topic> {
        self.find_topic(name, false)
    }

    /// One topic, which the broker may make if it is missing.
    pub fn topic_or_create(&mut self, name: &str) -> Result<Topic> {
        self.find_topic(name, true)
    }

    /// Waits until a topic that was just made is known: Kafka answers before its brokers know it.
    pub fn wait_for_topic(&mut self, name: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.topic(name) {
                Err(ClientError::UnknownTopic { .. }) if start.elapsed() < APPEARS_WITHIN => {
                    self.pause()?;
                }
                found => return found.map(|_| ()),
            }
        }
    }

    fn find_topic(&mut self, name: &str, create: bool) -> Result<Topic> {
        if let Some(topic) = self.topics.get(name) {
            return Ok(topic.clone());
        }
        let found = self.retry(|client| {
            let found = client.ask_metadata(Some(&[name]), create)?;
            let Some((topic, mut code)) = found.into_iter().next() else {
                return Err(ClientError::Malformed {
                    what: "Metadata",
                    problem: "the topic asked for is not in it".into(),
                });
            };
            if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && !create {
                let known = client.topics()?.into_iter().map(|topic| topic.name).collect();
                return Err(ClientError::UnknownTopic { topic: name.to_owned(), known });
            }
            if !code.is_error() && topic.partitions.iter().any(|partition| partition.leader < 0) {
                code = ErrorCode::LEADER_NOT_AVAILABLE;
            }
            refuse(code.code(), None, || format!("topic {name}"))?;
            Ok(topic)
        });
        let topic = found?;
        self.topics.insert(name.to_owned(), topic.clone());
        Ok(topic)
    }

    /// The node that leads a partition.
    pub fn leader(&mut self, of: &TopicPartition) -> Result<i32> {
        let topic = self.topic(&of.topic)?;
        let found = topic.partitions.iter().find(|partition| partition.index == of.partition);
        found.map(|partition| partition.leader).ok_or_else(|| ClientError::UnknownPartition {
            topic: of.topic.clone(),
            partition: of.partition,
            count: topic.partitions.len(),
        })
    }

    /// Items by the node that leads their partition, and by topic.
    pub fn by_leader<T>(
        &mut self,
        items: impl IntoIterator<Item = (TopicPartition, T)>,
    ) -> Result<BTreeMap<i32, ByTopic<T>>> {
        let mut nodes: BTreeMap<i32, ByTopic<T>> = BTreeMap::new();
        for (at, item) in items {
            let node = self.leader(&at)?;
            nodes.entry(node).or_default().entry(at.topic).or_default().push((at.partition, item));
        }
        Ok(nodes)
    }

    /// Offset and timestamp of the first record at or after a time; -1 for the end, -2 for the
    /// start, -3 for the largest timestamp, as in the protocol. An offset of -1 is "none".
    pub fn offsets_at(
        &mut self,
        wanted: &[(TopicPartition, i64)],
    ) -> Result<BTreeMap<TopicPartition, (i64, i64)>> {
        self.retry(|client| {
            let mut found = BTreeMap::new();
            for (node, topics) in client.by_leader(wanted.iter().cloned())? {
                let request = ListOffsetsRequest {
                    replica_id: -1,
                    topics: topics.iter().map(|(name, times)| times_of(name, times)).collect(),
                    ..Default::default()
                };
                let lowest = wanted.iter().map(|(_, time)| *time).min().unwrap_or(0);
                // Version 7 knows -3; 8 and 9 know -4 and -5.
                let versions = match lowest {
                    ..=-5 => 9..=9,
                    -4 => 8..=9,
                    -3 => 7..=9,
                    _ => 1..=9,
                };
                let answer = client.call(To::Node(node), &request, versions)?;
                for topic in &answer.topics {
                    for partition in &topic.partitions {
                        let at = TopicPartition::new(topic.name, partition.partition_index);
                        refuse(partition.error_code, None, || format!("offsets of {at}"))?;
                        found.insert(at, (partition.offset, partition.timestamp));
                    }
                }
            }
            Ok(found)
        })
    }

    fn connection(&mut self, to: To<'_>) -> Result<(&mut Connection, &Options)> {
        let node = match to {
            To::Any => None,
            To::Controller => Some(self.controller).filter(|node| *node >= 0),
            To::Node(node) => Some(node),
            To::Coordinator(group) => Some(self.coordinator(group)?),
        };
        let address = match node {
            None => self.usable(),
            Some(node) => self.nodes.get(&node).cloned().ok_or_else(|| {
                let code = ErrorCode::LEADER_NOT_AVAILABLE;
                ClientError::Refused { what: format!("node {node}"), code, message: None }
            })?,
        };
        if self.connections.get(&address).is_none_or(Connection::is_broken) {
            self.connections.remove(&address);
            let opened = Connection::open(&address, &self.options);
            let opened = opened.map_err(|error| match error {
                ClientError::Unreachable { address, source, .. } if address != self.bootstrap => {
                    let named_by = Some(self.bootstrap.clone());
                    ClientError::Unreachable { address, named_by, source }
                }
                error => error,
            })?;
            self.connections.insert(address.clone(), opened);
        }
        let connection = self.connections.get_mut(&address).expect("it was just put there");
        Ok((connection, &self.options))
    }

    /// An address with an open connection, or else one that may be reached, another each time.
    fn usable(&mut self) -> String {
        let open = self.connections.iter().find(|(_, connection)| !connection.is_broken());
        if let Some((address, _)) = open {
            return address.clone();
        }
        self.turn += 1;
        let known = [&self.bootstrap].into_iter().chain(self.nodes.values());
        known.cycle().nth(self.turn).expect("it goes round for ever").clone()
    }

    fn coordinator(&mut self, group: &str) -> Result<i32> {
        if let Some(node) = self.coordinators.get(group) {
            return Ok(*node);
        }
        let node = self.retry(|client| {
            let request = FindCoordinatorRequest { key: group, ..Default::default() };
            let answer = client.call(To::Any, &request, 0..=3)?;
            let what = || format!("the coordinator of group {group}");
            refuse(answer.error_code, answer.error_message, what)?;
            let (node, address) = (answer.node_id, format!("{}:{}", answer.host, answer.port));
            client.nodes.insert(node, address);
            Ok(node)
        })?;
        self.coordinators.insert(group.to_owned(), node);
        Ok(node)
    }

    /// Asks for these topics, or for all, and remembers the nodes.
    fn ask_metadata(
        &mut self,
        names: Option<&[&str]>,
        create: bool,
    ) -> Result<Vec<(Topic, ErrorCode)>> {
        let named = |name| MetadataRequestTopic { name: Some(name), ..Default::default() };
        let request = MetadataRequest {
            topics: names.map(|names| names.iter().copied().map(named).collect::<Array<'_, _>>()),
            allow_auto_topic_creation: create,
            ..Default::default()
        };
        let answer = self.call(To::Any, &request, 4..=12)?;
        let nodes = answer.brokers.iter().map(|b| (b.node_id, format!("{}:{}", b.host, b.port)));
        let (nodes, controller) = (nodes.collect(), answer.controller_id);
        let cluster_id = answer.cluster_id.map(str::to_owned);
        let mut topics = Vec::new();
        for topic in &answer.topics {
            let mut partitions: Vec<Partition> = Vec::new();
            for partition in &topic.partitions {
                partitions.push(Partition {
                    index: partition.partition_index,
                    leader: partition.leader_id,
                    replicas: partition.replica_nodes.into_vec(),
                    isr: partition.isr_nodes.into_vec(),
                });
            }
            partitions.sort_by_key(|partition| partition.index);
            let name = topic.name.unwrap_or_default().to_owned();
            let (id, is_internal) = (topic.topic_id, topic.is_internal);
            topics.push((Topic { name, id, is_internal, partitions }, ErrorCode(topic.error_code)));
        }
        (self.nodes, self.controller, self.cluster_id) = (nodes, controller, cluster_id);
        Ok(topics)
    }
}

/// Topic -> number of the partition, and something about it.
pub type ByTopic<T> = BTreeMap<String, Vec<(i32, T)>>;

fn times_of<'a>(name: &'a str, times: &[(i32, i64)]) -> ListOffsetsTopic<'a> {
    let partitions = times.iter().map(|&(partition_index, timestamp)| ListOffsetsPartition {
        partition_index,
        current_leader_epoch: -1,
        timestamp,
        ..Default::default()
    });
    ListOffsetsTopic { name, partitions: partitions.collect(), ..Default::default() }
}
