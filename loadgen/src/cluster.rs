//! What is asked of a cluster before and after a load: versions, topic, leaders, offsets, producer
//! ids.

use crate::args::TargetArgs;
use crate::clock::wall_ms;
use crate::listening;
use crate::run::RunError;
use crate::secure::Access;
use millrace_client::{Client, Options, To, TopicPartition, refuse};
use millrace_wire::batch::{BatchBuilder, BatchOptions};
use millrace_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use millrace_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use millrace_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, InitProducerIdRequest, ProduceRequest,
};
use millrace_wire::{ApiKey, Array, Records};
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use millrace_client::ClientError as ClusterError;

/// The client id in every request.
pub const CLIENT_ID: &str = "loadgen";
/// The broker's own time for what is asked of it, milliseconds.
const TIMEOUT_MS: i32 = 30_000;

/// Where each partition of a topic is written and read: HOST:PORT of its leader.
pub type Leaders = BTreeMap<u32, Arc<str>>;

/// A cluster that is asked one thing at a time.
#[derive(Debug)]
pub struct Cluster {
    client: Client,
    access: Access,
}

impl Cluster {
    /// Connects in plain text.
    pub fn connect(bootstrap: &str) -> Result<Self, ClusterError> {
        Self::reach(bootstrap, Access::default())
    }

    /// Connects as the options say; a process that is not the broker's is refused.
    pub fn of(target: &TargetArgs) -> Result<Self, RunError> {
        let access = Access::of(&target.access).map_err(RunError::Options)?;
        let cluster = Self::reach(&target.bootstrap, access)?;
        if let Some(pid) = target.pid {
            let nodes = cluster.client.nodes().values().map(String::as_str);
            let addresses: Vec<&str> = nodes.chain([cluster.client.bootstrap()]).collect();
            listening::check(pid, &addresses)?;
        }
        Ok(cluster)
    }

    /// Connects, and learns the brokers and their versions.
    pub fn reach(bootstrap: &str, access: Access) -> Result<Self, ClusterError> {
        let (client_id, secure) = (CLIENT_ID.to_owned(), access.secure());
        let is_plain = !access.is_tls();
        let options = Options { client_id, secure, ..Default::default() };
        let client = Client::connect(bootstrap, options).map_err(|error| hint(error, is_plain))?;
        Ok(Self { client, access })
    }

    /// Another connection to the same cluster.
    pub fn again(&self) -> Result<Self, ClusterError> {
        Self::reach(self.client.bootstrap(), self.access.clone())
    }

    /// The client, for what is not here.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// How it is reached.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The highest version of an API within `ours` that the broker also speaks.
    pub fn pick(&mut self, key: ApiKey, ours: RangeInclusive<i16>) -> Result<i16, ClusterError> {
        let versions = self.client.versions(To::Any)?;
        versions.pick(key as i16, &ours).ok_or_else(|| ClusterError::Version {
            address: self.client.bootstrap().to_owned(),
            what: key.name(),
            theirs: versions.0.get(&(key as i16)).cloned(),
            ours,
        })
    }

    /// How many brokers the cluster named when it was connected to.
    pub fn broker_count(&self) -> usize {
        self.client.nodes().len()
    }

    /// Writes one record to a partition led by this broker; acknowledged by it when this returns.
    pub fn produce_one(&mut self, topic: &str, partition: u32) -> Result<(), ClusterError> {
        let mut builder = BatchBuilder::new();
        builder.append(wall_ms(), None, Some(b"loadgen"), &[]);
        let batch = builder.finish(&BatchOptions::default()).expect("one small record");
        let data = PartitionProduceData {
            index: partition as i32,
            records: Some(Records::Bytes(batch)),
            ..Default::default()
        };
        let data = Array::from(vec![data]);
        let topic = TopicProduceData { name: topic, partition_data: data, ..Default::default() };
        let request = ProduceRequest {
            acks: 1,
            timeout_ms: TIMEOUT_MS,
            topic_data: Array::from(vec![topic]),
            ..Default::default()
        };
        let answer = self.client.call(To::Any, &request, 3..=8)?;
        let answered = answer.responses.iter().flat_map(|t| t.partition_responses.into_vec());
        let code = answered.map(|partition| partition.error_code).next().unwrap_or(-1);
        refuse(code, None, || format!("producing to partition {partition}"))
    }

    /// The leaders of all partitions; `None` when there is no such topic.
    pub fn leaders(&mut self, topic: &str) -> Result<Option<Leaders>, ClusterError> {
        match self.client.topic(topic) {
            Ok(_) => self.wait_for_leaders(topic).map(Some),
            Err(ClusterError::UnknownTopic { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The leaders of all partitions of a topic that is there, or about to be.
    pub fn wait_for_leaders(&mut self, topic: &str) -> Result<Leaders, ClusterError> {
        self.client.wait_for_topic(topic)?;
        let found = self.client.topic(topic)?;
        let nodes = self.client.nodes();
        let leaders = found.partitions.iter().filter_map(|partition| {
            let address = nodes.get(&partition.leader)?;
            Some((u32::try_from(partition.index).ok()?, Arc::from(address.as_str())))
        });
        let leaders: Leaders = leaders.collect();
        if leaders.len() < found.partitions.len() || leaders.is_empty() {
            let problem = format!("the leaders of {topic} are not among the brokers");
            return Err(ClusterError::Malformed { what: "Metadata", problem });
        }
        Ok(leaders)
    }

    /// Makes the topic; `configs` are KEY=VALUE.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: u32,
        configs: &[String],
    ) -> Result<(), ClusterError> {
        let pairs = configs.iter().map(|config| {
            let (name, value) = config.split_once('=').unwrap_or((config, ""));
            CreatableTopicConfig { name, value: Some(value), ..Default::default() }
        });
        // The broker's default replication can be asked for since Kafka 2.4.
        let knows_default = self.pick(ApiKey::CreateTopics, 2..=6)? >= 4;
        let wanted = CreatableTopic {
            name: topic,
            num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: if knows_default { -1 } else { 1 },
            configs: pairs.collect(),
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: Array::from(vec![wanted]),
            timeout_ms: TIMEOUT_MS,
            ..Default::default()
        };
        let answer = self.client.call(To::Controller, &request, 2..=6)?;
        let Some(made) = answer.topics.first() else { return Ok(()) };
        refuse(made.error_code, made.error_message, || format!("creating topic {topic}"))
    }

    /// Deletes the topic.
    pub fn delete_topic(&mut self, topic: &str) -> Result<(), ClusterError> {
        let request = DeleteTopicsRequest {
            topic_names: Array::from(vec![topic]),
            timeout_ms: TIMEOUT_MS,
            ..Default::default()
        };
        let answer = self.client.call(To::Controller, &request, 1..=5)?;
        let code = answer.responses.first().map_or(0, |topic| topic.error_code);
        refuse(code, None, || format!("deleting topic {topic}"))
    }

    /// A producer id and its epoch.
    pub fn producer_id(&mut self) -> Result<(i64, i16), ClusterError> {
        self.client.retry(|client| {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: i32::MAX,
                ..Default::default()
            };
            let answer = client.call(To::Any, &request, 0..=4)?;
            refuse(answer.error_code, None, || "a producer id".to_owned())?;
            Ok((answer.producer_id, answer.producer_epoch))
        })
    }

    /// The offsets at which partitions begin (`timestamp` -2) or end (-1).
    pub fn offsets(
        &mut self,
        topic: &str,
        partitions: impl IntoIterator<Item = u32>,
        timestamp: i64,
    ) -> Result<BTreeMap<u32, i64>, ClusterError> {
        let partitions = partitions.into_iter();
        let wanted: Vec<(TopicPartition, i64)> =
            partitions.map(|p| (TopicPartition::new(topic, p as i32), timestamp)).collect();
        let found = self.client.offsets_at(&wanted)?;
        Ok(found.into_iter().map(|(at, (offset, _))| (at.partition as u32, offset)).collect())
    }
}

/// What else a silence may mean: a listener of TLS ends the connection, or waits for more.
fn hint(error: ClusterError, is_plain: bool) -> ClusterError {
    match error {
        ClusterError::NoAnswer { address, what, source } if is_plain => {
            let words =
                format!("{source}. Is it a Kafka broker, and a port without TLS (--tls-ca)?");
            ClusterError::NoAnswer { address, what, source: io::Error::new(source.kind(), words) }
        }
        other => other,
    }
}
