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
        group.remove_member(stored.member_id);
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
