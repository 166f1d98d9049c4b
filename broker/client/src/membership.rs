//! A member of a classic consumer group: join, sync, heartbeat, commit, leave; and the assignment
//! that a leader makes.

use crate::{Client, ClientError, Result, To, TopicPartition, refuse};
use millrace_wire::messages::join_group_request::JoinGroupRequestProtocol;
use millrace_wire::messages::leave_group_request::MemberIdentity;
use millrace_wire::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use millrace_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use millrace_wire::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest,
    SyncGroupRequest,
};
use millrace_wire::{Array, DecodeError, ErrorCode, Reader, Wire, Writer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SESSION: Duration = Duration::from_secs(45);
const REBALANCE: Duration = Duration::from_secs(60);
/// Other members may take as long as their own rebalance timeouts; Java's is five minutes.
const JOIN_WITHIN: Duration = Duration::from_secs(330);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);
/// The strategies we can carry out as leader, in the order we like them.
const STRATEGIES: [&str; 2] = ["range", "roundrobin"];

/// A member and its part of the work.
#[derive(Debug)]
pub struct Member {
    group: String,
    topics: Vec<String>,
    id: String,
    generation: i32,
    assigned: Vec<TopicPartition>,
    /// What the assignment we made as leader was made from.
    counts: BTreeMap<String, usize>,
    heard_at: Instant,
    counted_at: Instant,
    /// How often the coordinator hears of us: as late we learn of a rebalance.
    pub heartbeat_every: Duration,
}

impl Member {
    /// One that wants its share of `topics`, and has yet to join.
    pub fn new(group: &str, topics: &[String]) -> Self {
        Self {
            group: group.to_owned(),
            topics: topics.to_vec(),
            id: String::new(),
            generation: -1,
            assigned: Vec::new(),
            counts: BTreeMap::new(),
            heard_at: Instant::now(),
            counted_at: Instant::now(),
            heartbeat_every: HEARTBEAT_EVERY,
        }
    }

    /// The generation that was joined last; -1 before.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The partitions that are ours in this generation.
    pub fn assigned(&self) -> &[TopicPartition] {
        &self.assigned
    }

    /// Sends a heartbeat if one is due. Whether a rebalance has begun: then commit and join again.
    pub fn must_rejoin(&mut self, client: &mut Client) -> Result<bool> {
        if self.heard_at.elapsed() < self.heartbeat_every {
            return Ok(false);
        }
        self.heard_at = Instant::now();
        let request = HeartbeatRequest {
            group_id: &self.group,
            generation_id: self.generation,
            member_id: &self.id,
            ..Default::default()
        };
        let code = match client.call(To::Coordinator(&self.group), &request, 0..=4) {
            Ok(answer) => ErrorCode(answer.error_code),
            Err(error) if error.is_retriable() => return client.pause().map(|()| false),
            Err(error) => return Err(error),
        };
        match code {
            ErrorCode::NONE => self.have_partitions_been_added(client),
            code if self.is_rebalance(code) => Ok(true),
            code if code.is_retriable() => client.pause().map(|()| false),
            code => refuse(code.code(), None, || "heartbeat".to_owned()).map(|()| false),
        }
    }

    /// Joins the next generation and waits for a share, with the same id if it is still known.
    pub fn join(&mut self, client: &mut Client) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.attempt(client) {
                Ok(()) => {
                    self.heard_at = Instant::now();
                    return Ok(());
                }
                Err(error) => match error.code() {
                    Some(ErrorCode::MEMBER_ID_REQUIRED) => {}
                    Some(code) if self.is_rebalance(code) => {}
                    _ if error.is_retriable() && start.elapsed() < client.options().patience => {
                        client.pause()?;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// The committed offsets of our partitions, where there are any.
    pub fn committed(&self, client: &mut Client) -> Result<BTreeMap<TopicPartition, i64>> {
        let mut all = committed_offsets(client, &self.group)?;
        all.retain(|at, _| self.assigned.contains(at));
        Ok(all)
    }

    /// Commits as this member. Whether the group took it; it does not while it rebalances.
    pub fn commit(
        &mut self,
        client: &mut Client,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<bool> {
        if offsets.is_empty() {
            return Ok(true);
        }
        match commit_offsets(client, &self.group, Some((&self.id, self.generation)), offsets) {
            Ok(()) => Ok(true),
            Err(error) => match error.code() {
                Some(code) if self.is_rebalance(code) => {
                    // The next heartbeat finds out at once.
                    self.heard_at -= self.heartbeat_every;
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    /// Tells the group that we go, so that it need not wait for us.
    pub fn leave(self, client: &mut Client) -> Result<()> {
        let group_id = self.group.as_str();
        let members = vec![MemberIdentity { member_id: &self.id, ..Default::default() }].into();
        let request = LeaveGroupRequest { group_id, members, ..Default::default() };
        match client.call(To::Coordinator(group_id), &request, 3..=5) {
            // Where it cannot be said, the session ends by itself.
            Err(ClientError::Version { .. }) => Ok(()),
            answer => refuse(answer?.error_code, None, || format!("leaving group {group_id}")),
        }
    }

    /// Whether the code says that there is, or has to be, another generation.
    fn is_rebalance(&mut self, code: ErrorCode) -> bool {
        if code == ErrorCode::UNKNOWN_MEMBER_ID {
            self.id.clear();
        }
        matches!(
            code,
            ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::REBALANCE_IN_PROGRESS
        )
    }

    /// As leader: whether a topic has partitions that no member reads yet. Looked at seldom.
    fn have_partitions_been_added(&mut self, client: &mut Client) -> Result<bool> {
        if self.counts.is_empty() || self.counted_at.elapsed() < 10 * HEARTBEAT_EVERY {
            return Ok(false);
        }
        self.counted_at = Instant::now();
        let topics = client.topics()?;
        let found = |name: &String| topics.iter().find(|topic| topic.name == *name);
        Ok(self.counts.iter().any(|(name, before)| {
            found(name).is_some_and(|topic| topic.partitions.len() != *before)
        }))
    }

    fn attempt(&mut self, client: &mut Client) -> Result<()> {
        let mut subscription = Writer::new();
        subscription.i16(0);
        let names: Array<'_, &str> = self.topics.iter().map(String::as_str).collect();
        let written =
            names.write(&mut subscription).and_then(|()| None::<&[u8]>.write(&mut subscription));
        written.expect("version 0 has all of it");
        let protocols = STRATEGIES.map(|name| JoinGroupRequestProtocol {
            name,
            metadata: subscription.bytes(),
            ..Default::default()
        });
        let request = JoinGroupRequest {
            group_id: &self.group,
            session_timeout_ms: SESSION.as_millis() as i32,
            rebalance_timeout_ms: REBALANCE.as_millis() as i32,
            member_id: &self.id,
            protocol_type: "consumer",
            protocols: Array::from(&protocols[..]),
            ..Default::default()
        };
        let to = To::Coordinator(&self.group);
        let answer = client.call_within(to, &request, 0..=9, JOIN_WITHIN)?;
        let code = answer.error_code;
        let id = answer.member_id.to_owned();
        let joined =
            refuse(code, None, || format!("joining group {}", self.group)).and_then(|()| {
                let mut members = BTreeMap::new();
                for member in &answer.members {
                    members.insert(member.member_id.to_owned(), topics_of(member.metadata)?);
                }
                let is_leader = answer.leader == answer.member_id;
                let strategy = answer.protocol_name.unwrap_or_default().to_owned();
                Ok((answer.generation_id, strategy, is_leader.then_some(members)))
            });
        if !id.is_empty() {
            self.id = id;
        }
        let (generation, strategy, members) = joined?;
        self.generation = generation;
        let shares = match members {
            Some(members) => self.share_out(client, &strategy, &members)?,
            None => {
                self.counts.clear();
                BTreeMap::new()
            }
        };
        self.sync(client, &shares)
    }

    fn share_out(
        &mut self,
        client: &mut Client,
        strategy: &str,
        members: &BTreeMap<String, Vec<String>>,
    ) -> Result<BTreeMap<String, Vec<TopicPartition>>> {
        let mut counts = BTreeMap::new();
        for topic in client.topics()? {
            if members.values().any(|topics| topics.contains(&topic.name)) {
                counts.insert(topic.name, topic.partitions.len());
            }
        }
        let shares = match strategy {
            "roundrobin" => round_robin(members, &counts),
            _ => range(members, &counts),
        };
        (self.counts, self.counted_at) = (counts, Instant::now());
        Ok(shares)
    }

    fn sync(
        &mut self,
        client: &mut Client,
        shares: &BTreeMap<String, Vec<TopicPartition>>,
    ) -> Result<()> {
        let shares: Vec<(&str, Vec<u8>)> =
            shares.iter().map(|(id, share)| (id.as_str(), write_share(share))).collect();
        let assignments = shares.iter().map(|(member_id, assignment)| SyncGroupRequestAssignment {
            member_id,
            assignment,
            ..Default::default()
        });
        let request = SyncGroupRequest {
            group_id: &self.group,
            generation_id: self.generation,
            member_id: &self.id,
            assignments: assignments.collect(),
            ..Default::default()
        };
        let answer =
            client.call_within(To::Coordinator(&self.group), &request, 0..=4, JOIN_WITHIN)?;
        refuse(answer.error_code, None, || format!("joining group {}", self.group))?;
        self.assigned =
            read_share(answer.assignment).map_err(|error| malformed("SyncGroup", error))?;
        Ok(())
    }
}

/// Every offset a group has committed.
pub fn committed_offsets(
    client: &mut Client,
    group: &str,
) -> Result<BTreeMap<TopicPartition, i64>> {
    client.retry(|client| {
        let request = OffsetFetchRequest { group_id: group, topics: None, ..Default::default() };
        let answer = client.call(To::Coordinator(group), &request, 2..=7)?;
        let what = || format!("offsets of group {group}");
        refuse(answer.error_code, None, what)?;
        let mut offsets = BTreeMap::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                refuse(partition.error_code, None, what)?;
                if partition.committed_offset >= 0 {
                    let at = TopicPartition::new(topic.name, partition.partition_index);
                    offsets.insert(at, partition.committed_offset);
                }
            }
        }
        Ok(offsets)
    })
}

/// Commits offsets, as a member (id and generation) or for a group that has none.
pub fn commit_offsets(
    client: &mut Client,
    group: &str,
    member: Option<(&str, i32)>,
    offsets: &BTreeMap<TopicPartition, i64>,
) -> Result<()> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition<'_>>> = BTreeMap::new();
    for (at, offset) in offsets {
        topics.entry(&at.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: at.partition,
            committed_offset: *offset,
            committed_leader_epoch: -1,
            committed_metadata: Some(""),
            ..Default::default()
        });
    }
    let topics: Vec<_> = topics
        .into_iter()
        .map(|(name, partitions)| OffsetCommitRequestTopic {
            name,
            partitions: partitions.into(),
            ..Default::default()
        })
        .collect();
    let (member_id, generation) = member.unwrap_or(("", -1));
    client.retry(|client| {
        let request = OffsetCommitRequest {
            group_id: group,
            generation_id_or_member_epoch: generation,
            member_id,
            retention_time_ms: -1,
            topics: Array::from(&topics[..]),
            ..Default::default()
        };
        let answer = client.call(To::Coordinator(group), &request, 2..=9)?;
        for topic in &answer.topics {
            for part in &topic.partitions {
                let what = || format!("committing {}-{}", topic.name, part.partition_index);
                refuse(part.error_code, None, what)?;
            }
        }
        Ok(())
    })
}

/// Each topic in runs of neighbours, the first members getting one more (Kafka: `RangeAssignor`).
fn range(
    members: &BTreeMap<String, Vec<String>>,
    counts: &BTreeMap<String, usize>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    let mut shares: BTreeMap<_, Vec<_>> = members.keys().map(|id| (id.clone(), vec![])).collect();
    for (topic, &count) in counts {
        let readers: Vec<&String> =
            members.iter().filter(|(_, topics)| topics.contains(topic)).map(|(id, _)| id).collect();
        let mut next = 0;
        for (index, id) in readers.iter().enumerate() {
            let end = next + count / readers.len() + usize::from(index < count % readers.len());
            let run = (next..end).map(|partition| TopicPartition::new(topic, partition as i32));
            shares.get_mut(*id).expect("every member has a share").extend(run);
            next = end;
        }
    }
    shares
}

/// All partitions in turn (Kafka: `RoundRobinAssignor`).
fn round_robin(
    members: &BTreeMap<String, Vec<String>>,
    counts: &BTreeMap<String, usize>,
) -> BTreeMap<String, Vec<TopicPartition>> {
    let mut shares: BTreeMap<_, Vec<_>> = members.keys().map(|id| (id.clone(), vec![])).collect();
    let mut turn = members.iter().cycle();
    for (topic, &count) in counts {
        for partition in 0..count as i32 {
            let reader = turn.find(|(_, topics)| topics.contains(topic));
            let (id, _) = reader.expect("topics are counted because a member reads them");
            let share = shares.get_mut(id).expect("every member has a share");
            share.push(TopicPartition::new(topic, partition));
        }
    }
    shares
}

fn topics_of(subscription: &[u8]) -> Result<Vec<String>> {
    let read = |mut reader: Reader<'_>| -> Result<Vec<String>, DecodeError> {
        reader.i16()?;
        Ok(reader.read::<Array<'_, &str>>()?.iter().map(str::to_owned).collect())
    };
    read(Reader::new(subscription)).map_err(|error| malformed("JoinGroup", error))
}

/// Kafka's `ConsumerProtocolAssignment` in version 0.
fn write_share(share: &[TopicPartition]) -> Vec<u8> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in share {
        topics.entry(&at.topic).or_default().push(at.partition);
    }
    let mut writer = Writer::new();
    let write = || {
        writer.i16(0);
        writer.i32(topics.len() as i32);
        for (topic, partitions) in topics {
            topic.write(&mut writer)?;
            Array::from(partitions).write(&mut writer)?;
        }
        None::<&[u8]>.write(&mut writer)
    };
    write().expect("version 0 has all of it");
    writer.into_vec()
}

/// What is in a member's assignment; nothing in empty bytes.
pub fn read_share(assignment: &[u8]) -> Result<Vec<TopicPartition>, DecodeError> {
    let mut share = Vec::new();
    if assignment.is_empty() {
        return Ok(share);
    }
    let mut reader = Reader::new(assignment);
    reader.i16()?;
    for _ in 0..reader.i32()? {
        let topic: &str = reader.read()?;
        let partitions: Array<'_, i32> = reader.read()?;
        share.extend(partitions.iter().map(|partition| TopicPartition::new(topic, partition)));
    }
    Ok(share)
}

fn malformed(what: &'static str, error: DecodeError) -> ClientError {
    ClientError::Malformed { what, problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a [(&'a str, &'a [&'a str])], &'a [(&'a str, usize)], &'a str, &'a str);

    fn shown(shares: &BTreeMap<String, Vec<TopicPartition>>) -> String {
        let share = |share: &[TopicPartition]| {
            share.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let lines: Vec<String> =
            shares.iter().map(|(id, all)| format!("{id}: {}", share(all))).collect();
        lines.join(", ")
    }

    /// Rows from the documentation of Kafka's two assignors, and unequal subscriptions.
    #[test]
    fn a_leader_shares_out_as_kafkas_does() {
        let both: &[&str] = &["t0", "t1"];
        let rows: [Row<'_>; 3] = [
            (
                &[("c0", both), ("c1", both)],
                &[("t0", 3), ("t1", 3)],
                "c0: t0-0 t0-1 t1-0 t1-1, c1: t0-2 t1-2",
                "c0: t0-0 t0-2 t1-1, c1: t0-1 t1-0 t1-2",
            ),
            (
                &[("c0", &["t0"]), ("c1", both)],
                &[("t0", 1), ("t1", 2)],
                "c0: t0-0, c1: t1-0 t1-1",
                "c0: t0-0, c1: t1-0 t1-1",
            ),
            (&[("c0", both), ("c1", both)], &[("t0", 1)], "c0: t0-0, c1: ", "c0: t0-0, c1: "),
        ];
        for (members, counts, ranged, robin) in rows {
            let members = members.iter().map(|(id, topics)| {
                ((*id).to_owned(), topics.iter().map(|&topic| topic.to_owned()).collect())
            });
            let members = members.collect();
            let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            assert_eq!(shown(&range(&members, &counts)), ranged);
            assert_eq!(shown(&round_robin(&members, &counts)), robin);
        }
    }

    #[test]
    fn an_assignment_is_read_as_written() {
        let share = [("a", 0), ("a", 4), ("b", 1)].map(|(topic, n)| TopicPartition::new(topic, n));
        assert_eq!(read_share(&write_share(&share)).ok(), Some(share.to_vec()));
        assert_eq!(read_share(&[]).ok(), Some(vec![]));
        assert!(read_share(b"\0\0\0\0\0\x05").is_err(), "five topics in no bytes");
    }
}
