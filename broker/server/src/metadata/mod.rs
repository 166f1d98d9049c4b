//! What the cluster is made of: topics, partitions, settings, as a log of KRaft records and the
//! immutable picture made from it.
//!
//! `record` is one record and the batches of the log; `image` the picture, changed by records and
//! by nothing else; `changes` the difference of two pictures; `checkpoint` a picture as a file;
//! `controller` decides which records a request leads to; `data_dir` has the folders all of it
//! is in, `places` finds the partitions in them.
//! Records, batches and checkpoints are Kafka's own: `kafka-dump-log --cluster-metadata-decoder`
//! reads them.

pub mod changes;
pub mod checkpoint;
pub mod controller;
pub mod data_dir;
mod image;
pub mod places;
mod record;

pub use changes::{Change, changes};
pub use image::{Broker, Endpoint, Image, ImageError, Partition, Topic, is_internal_topic};
pub use record::{MetadataRecord, QuotaEntity, ResourceType, leader_change_batch};
