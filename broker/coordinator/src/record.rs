//! The records of `__consumer_offsets`, in Kafka's own form: committed offsets and group metadata.

use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::codec::{Array, Message, Reader, Writer};
use millrace_wire::stored::group_metadata_value::MemberMetadata;
use millrace_wire::stored::{
    self, GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, OffsetCommitKey,
    OffsetCommitValue,
};
use millrace_wire::{DecodeError, Uuid};
use thiserror::Error;

use crate::effect::Record;
use crate::group::Group;
use crate::member::Member;
use crate::offsets::CommittedOffset;

/// What Kafka 4.3 writes by default: 1 for a commit that brought its own retention, which later
/// versions cannot express; 4 for one with a topic id; 3 for all others.
const OFFSET_VALUE: i16 = 3;
const OFFSET_VALUE_WITH_TOPIC_ID: i16 = 4;
const OFFSET_VALUE_WITH_RETENTION: i16 = 1;
/// What Kafka 4.3 writes by default: the first version with instance ids.
const GROUP_VALUE: i16 = 3;

/// A record of `__consumer_offsets` that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The key is cut short.
    #[error("group record key: {0}")]
    Key(DecodeError),
    /// The value is cut short, or of a version that this broker does not know.
    #[error("group record value: {0}")]
    Value(DecodeError),
}

/// A stored record, read.
#[derive(Debug)]
pub(crate) enum Stored<'a> {
    /// A committed offset, or its removal.
    Offset { group: &'a str, topic: &'a str, partition: i32, value: Option<CommittedOffset> },
    /// A group's metadata, or its removal.
    Group { group: &'a str, value: Option<GroupMetadataValue<'a>> },
    /// A kind that this broker does not keep, such as those of KIP-848 groups.
    Other,
}

/// Reads a record; kinds that are not known are skipped, as Kafka does after a downgrade.
pub(crate) fn read<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> Result<Stored<'a>, RecordError> {
    let mut reader = Reader::new(key);
    let kind = reader.i16().map_err(RecordError::Key)?;
    match kind {
        GroupMetadataKey::API_KEY => {
            let key = GroupMetadataKey::decode(&mut reader, 0).map_err(RecordError::Key)?;
            let value = value.map(read_value::<GroupMetadataValue<'_>>).transpose()?;
            Ok(Stored::Group { group: key.group, value })
        }
        // Both numbers mean the same key; 0 is from before Kafka 0.8.2.
        OffsetCommitKey::API_KEY | LegacyOffsetCommitKey::API_KEY => {
            let key = OffsetCommitKey::decode(&mut reader, 0).map_err(RecordError::Key)?;
            let value = value.map(read_value::<OffsetCommitValue<'_>>).transpose()?;
            let value = value.map(|value| CommittedOffset {
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: Box::from(value.metadata),
                committed_at_ms: value.commit_timestamp,
                expires_at_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
                topic_id: value.topic_id,
            });
            Ok(Stored::Offset {
                group: key.group,
                topic: key.topic,
                partition: key.partition,
                value,
            })
        }
        _ => Ok(Stored::Other),
    }
}

fn read_value<'a, M: Message<'a>>(value: &'a [u8]) -> Result<M, RecordError> {
    let mut reader = Reader::new(value);
    let version = reader.i16().map_err(RecordError::Value)?;
    M::decode(&mut reader, version).map_err(RecordError::Value)
}

/// The record of a committed offset.
pub(crate) fn offset(
    group: &str,
    topic: &str,
    partition: i32,
    committed: &CommittedOffset,
) -> Record {
    let version = if committed.expires_at_ms.is_some() {
        OFFSET_VALUE_WITH_RETENTION
    } else if committed.topic_id != Uuid::ZERO {
        OFFSET_VALUE_WITH_TOPIC_ID
    } else {
        OFFSET_VALUE
    };
    let value = OffsetCommitValue {
        offset: committed.offset,
        leader_epoch: committed.leader_epoch,
        metadata: &committed.metadata,
        commit_timestamp: committed.committed_at_ms,
        expire_timestamp: committed.expires_at_ms.unwrap_or(-1),
        topic_id: committed.topic_id,
        ..OffsetCommitValue::default()
    };
    Record {
        key: offset_key(group, topic, partition),
        value: Some(prefixed(&value, version, version)),
    }
}

/// The removal of a committed offset.
pub(crate) fn offset_tombstone(group: &str, topic: &str, partition: i32) -> Record {
    Record { key: offset_key(group, topic, partition), value: None }
}

fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    let key = OffsetCommitKey { group, topic, partition };
    prefixed(&key, OffsetCommitKey::API_KEY, 0)
}

/// The record of a group as it is, with assignments from `assignment`.
pub(crate) fn group(group: &Group, assignment: impl Fn(&Arc<str>, &Member) -> Bytes) -> Record {
    let protocol = group.protocol_name.as_ref();
    let opaque: Vec<(Bytes, Bytes)> = group
        .members
        .iter()
        .map(|(id, member)| (member.metadata(protocol), assignment(id, member)))
        .collect();
    let members: Vec<MemberMetadata<'_>> = group
        .members
        .iter()
        .zip(&opaque)
        .map(|((id, member), (metadata, assignment))| MemberMetadata {
            member_id: id,
            group_instance_id: member.instance_id.as_deref(),
            client_id: &member.client_id,
            client_host: &member.client_host,
            rebalance_timeout: member.rebalance_timeout_ms,
            session_timeout: member.session_timeout_ms,
            subscription: metadata,
            assignment,
            ..MemberMetadata::default()
        })
        .collect();
    let value = GroupMetadataValue {
        protocol_type: group.protocol_type.as_deref().unwrap_or(""),
        generation: group.generation,
        protocol: group.protocol_name.as_deref(),
        leader: group.leader.as_deref(),
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        members: Array::from(members),
        ..GroupMetadataValue::default()
    };
    let value = prefixed(&value, GROUP_VALUE, GROUP_VALUE);
    Record { key: group_key(&group.id), value: Some(value) }
}

/// The removal of a group.
pub(crate) fn group_tombstone(group: &str) -> Record {
    Record { key: group_key(group), value: None }
}

fn group_key(group: &str) -> Vec<u8> {
    let key = GroupMetadataKey { group };
    prefixed(&key, GroupMetadataKey::API_KEY, 0)
}

fn prefixed<'a, M: Message<'a>>(message: &M, prefix: i16, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    stored::encode_prefixed(message, prefix, version, &mut writer)
        .expect("ids and topics came through strings of the protocol, which have the same limits");
    writer.into_vec()
}
