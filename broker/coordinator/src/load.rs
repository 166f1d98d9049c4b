//! Replay of `__consumer_offsets`: groups come back as they were last written.

use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::stored::GroupMetadataValue;

use crate::effect::{Effect, Now};
use crate::group::{Group, State};
use crate::groups::Groups;
use crate::member::{Member, Parked};
use crate::offsets::Offsets;
use crate::record::{self, RecordError, Stored};

impl Groups {
    /// Replays one record, in the order of the log. [`Groups::loaded`] must follow.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        match record::read(key, value)? {
            Stored::Offset { group, topic, partition, value: Some(committed) } => {
                let topic: Arc<str> = Arc::from(topic);
                self.replay(group, |group| group.offsets.put(&topic, partition, committed));
            }
            Stored::Offset { group, topic, partition, value: None } => {
                if self.groups.contains_key(group) {
                    self.replay(group, |group| group.offsets.remove(topic, partition));
                }
            }
            Stored::Group { group, value } => self.replay(group, |group| {
                let offsets = std::mem::take(&mut group.offsets);
                *group = match &value {
                    Some(value) => restore(group.id.clone(), offsets, value),
                    None => Group { offsets, ..Group::new(group.id.clone(), None) },
                };
            }),
            Stored::Other => {}
        }
        Ok(())
    }

    /// The replay is over: forgets what was removed, and starts the members' sessions.
    pub fn loaded(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in self.groups.keys().cloned().collect::<Vec<_>>() {
            let group = self.groups.get_mut(&id).expect("its key was just read");
            if !std::mem::take(&mut group.is_loading) {
                continue;
            }
            if group.is_disposable() && !group.is_stored {
                self.remove_group(&id);
                continue;
            }
            let members_max = self.config.members_max;
            effects.extend(self.act(now, &id, |group, step| {
                for id in group.members.keys().cloned().collect::<Vec<_>>() {
                    group.keep_alive(step, &id);
                }
                if group.members.len() > members_max {
                    // The limit was lowered: the round throws out the last to come back.
                    group.prepare_rebalance(step);
                }
            }));
        }
        effects
    }

    fn replay(&mut self, group_id: &str, change: impl FnOnce(&mut Group)) {
        let group = self.group_or_new(group_id, None).expect("replay refuses nothing");
        let before = group.bytes();
        change(group);
        group.is_loading = true;
        let after = group.bytes();
        self.recount(before, after);
    }
}

/// A group as its record has it: stable when it has members, since only then they are written.
fn restore(id: Arc<str>, offsets: Offsets, value: &GroupMetadataValue<'_>) -> Group {
    let own = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let since_ms = (value.current_state_timestamp >= 0).then_some(value.current_state_timestamp);
    let mut group = Group { offsets, is_stored: true, ..Group::new(id, since_ms) };
    group.generation = value.generation;
    group.protocol_type = own(value.protocol_type);
    let protocol: Arc<str> = Arc::from(value.protocol.unwrap_or(""));
    for stored in value.members.iter() {
        let member = Member {
            instance_id: stored.group_instance_id.map(Arc::from),
            client_id: Arc::from(stored.client_id),
            client_host: Arc::from(stored.client_host),
            // Version 0 had only the one timeout.
            rebalance_timeout_ms: match stored.rebalance_timeout {
                -1 => stored.session_timeout,
                timeout_ms => timeout_ms,
            },
            session_timeout_ms: stored.session_timeout,
            protocols: vec![(protocol.clone(), Bytes::copy_from_slice(stored.subscription))],
            assignment: Bytes::copy_from_slice(stored.assignment),
            join: Parked::No,
            sync: Parked::No,
            is_new: false,
            deadline_ms: None,
        };
        // Kafka never writes an id or a name twice; if it is there, the last one counts.
        group.remove_member(stored.member_id);
        let namesake = member.instance_id.as_ref().and_then(|id| group.static_members.get(id));
        if let Some(namesake) = namesake.cloned() {
            group.remove_member(&namesake);
        }
        group.add_member(Arc::from(stored.member_id), value.protocol_type, member);
    }
    if !group.members.is_empty() {
        group.state = State::Stable;
        group.protocol_name = Some(protocol);
        let leader = value.leader.and_then(|leader| group.members.get_key_value(leader));
        if let Some((leader, _)) = leader {
            group.leader = Some(leader.clone());
        }
    }
    group.subscribed = group.read_subscriptions();
    group
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{GroupsConfig, Record};

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).expect("hex is ASCII");
            u8::from_str_radix(pair, 16).expect("hex")
        };
        digits.chunks(2).map(byte).collect()
    }

    fn groups() -> Groups {
        Groups::new(GroupsConfig::default(), Now { monotonic_ms: 0, wall_ms: 0 })
    }

    /// Records that Apache Kafka 4.3.1 wrote, taken from its segment files.
    const KAFKA_RECORDS: [(&str, &str, &str); 5] = [
        (
            "commit with the topic's id",
            "0001 000d67312d31373935323635333538 00026374 00000000",
            "0004 0000000000000005 ffffffff 01 000001a1fe277178
             01 00 10 6582b952f7434529aeb336ae6612eb06",
        ),
        (
            "commit of an unlikely offset",
            "0001 000f7761726d2d31373935323635333538 00026374 00000000",
            "0004 fffffffffffffffb ffffffff 01 000001a1fe276da4
             01 00 10 6582b952f7434529aeb336ae6612eb06",
        ),
        (
            "dynamic member",
            "0002 000d67312d31373935323635333538",
            "0003 0008636f6e73756d6572 00000001 000572616e6765
             0028636c692d63316534303362382d373762332d346436632d613063372d343337376237636430353635
             000001a1fe2770ef 00000001
             0028636c692d63316534303362382d373762332d346436632d613063372d343337376237636430353635
             ffff 0003636c69 000a2f3132372e302e302e31 00002710 00002710 000000016d 0000000141",
        ),
        (
            "static member",
            "0002 000c732d31373935323635333538",
            "0003 0008636f6e73756d6572 00000001 000572616e6765
             002769312d31383639663435622d383833322d346533342d623833632d653630366565336533306461
             000001a1fe27743b 00000001
             002769312d31383639663435622d383833322d346533342d623833632d653630366565336533306461
             00026931 0003636c69 000a2f3132372e302e302e31 00002710 00002710
             000000054f54484552 000000025331",
        ),
        (
            "empty group",
            "0002 000c732d31373935323635333538",
            "0003 0008636f6e73756d6572 00000002 ffff ffff 000001a1fe27745d 00000000",
        ),
    ];

    #[test]
    fn kafkas_records_are_read_and_written_byte_for_byte() {
        for (name, key, value) in KAFKA_RECORDS {
            let expected = Record { key: bytes(key), value: Some(bytes(value)) };
            let mut groups = groups();
            groups.load(&expected.key, expected.value.as_deref()).expect(name);
            let group = groups.groups.values().next().expect(name);
            let written = match group.offsets.topics().next() {
                Some((topic, partitions)) => {
                    let (partition, committed) = partitions.first_key_value().expect(name);
                    record::offset(&group.id, topic, *partition, committed)
                }
                None => record::group(group, |_, member| member.assignment.clone()),
            };
            assert_eq!(written, expected, "{name}");
        }
    }

    #[test]
    fn older_and_foreign_records_are_read() {
        type Row = (&'static str, &'static str, Option<&'static str>, Result<(), ()>);
        let rows: [Row; 8] = [
            (
                "offset value 0",
                "0001 000167 000174 00000000",
                Some("0000 0000000000000007 0000 0000000000000001"),
                Ok(()),
            ),
            (
                "offset key 0, value 1",
                "0000 000167 000174 00000001",
                Some("0001 0000000000000008 00016d 0000000000000001 0000000000000009"),
                Ok(()),
            ),
            (
                "group value 0",
                "0002 000168",
                Some(
                    "0000 000163 00000004 000172 00016d 00000001
                     00016d 0000 0000 00001770 00000000 00000000",
                ),
                Ok(()),
            ),
            ("a KIP-848 record", "0003 000167", Some("0000 00000001"), Ok(())),
            ("a kind of the future", "7fff 00", None, Ok(())),
            ("key cut short", "0001 000167 0001", None, Err(())),
            ("value cut short", "0001 000167 000174 00000000", Some("0003 00000000"), Err(())),
            ("value of a future version", "0001 000167 000174 00000000", Some("0063"), Err(())),
        ];
        let mut groups = groups();
        for (name, key, value, expected) in rows {
            let value = value.map(bytes);
            let loaded = groups.load(&bytes(key), value.as_deref()).map_err(|_| ());
            assert_eq!(loaded, expected, "{name}");
        }
        let offsets = groups.fetch("g").expect("it has offsets");
        let committed = |partition| offsets.get("t", partition).expect("loaded");
        assert_eq!((committed(0).offset, committed(0).leader_epoch), (7, -1));
        assert_eq!((committed(1).offset, committed(1).expires_at_ms), (8, Some(9)));
        let member = &groups.groups["h"].members["m"];
        assert_eq!((member.session_timeout_ms, member.rebalance_timeout_ms), (6_000, 6_000));
        assert_eq!(groups.groups["h"].leader, Some(Arc::from("m")));
    }

    #[test]
    fn damaged_records_are_refused_or_read_but_never_fatal() {
        let mut random = fastrand::Rng::with_seed(1);
        let now = Now { monotonic_ms: 0, wall_ms: 0 };
        for _ in 0..300 {
            let mut groups = groups();
            for _ in 0..30 {
                let (_, key, value) = KAFKA_RECORDS[random.usize(..KAFKA_RECORDS.len())];
                let (mut key, mut value) = (bytes(key), bytes(value));
                for damaged in [&mut key, &mut value] {
                    for _ in 0..random.usize(..3) {
                        let place = random.usize(..damaged.len());
                        damaged[place] = random.u8(..);
                    }
                    damaged.truncate(random.usize(damaged.len() - 2..=damaged.len()));
                }
                // Either outcome is right; what is read must leave the table sound.
                let _ = groups.load(&key, random.bool().then_some(&value));
            }
            groups.loaded(now);
            let later = Now { monotonic_ms: u64::MAX, wall_ms: i64::MAX };
            groups.on_time(later);
            groups.unload(|_| true);
            assert_eq!(groups.bytes(), 0);
        }
    }
}
