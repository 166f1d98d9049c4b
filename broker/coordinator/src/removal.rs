//! How groups and offsets go: deleted by an administrator, with their topic, or expired.
//!
//! Everything goes by tombstones: what is removed is gone from memory once they are written, so
//! that memory and log agree at every moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_wire::ErrorCode;

use crate::effect::{
    Answer, CommitAnswer, CommittedTopic, DeleteOffsetsAnswer, Effect, Now, WaiterId,
};
use crate::group::{Group, State};
use crate::groups::Groups;
use crate::offsets::refused_commit;
use crate::pending::{Pending, Step};
use crate::record;
use crate::request::CommitTopic;

impl Groups {
    /// DeleteGroups for one group: it and its offsets go, if it has no members.
    pub fn delete(&mut self, now: Now, waiter: WaiterId, group_id: &str) -> Vec<Effect> {
        let refuse = |error| vec![Effect::Reply { waiter, answer: Answer::Delete(error) }];
        let Some(group) = self.groups.get(group_id) else {
            return refuse(ErrorCode::GROUP_ID_NOT_FOUND);
        };
        if group.state != State::Empty {
            return refuse(ErrorCode::NON_EMPTY_GROUP);
        }
        let id = group.id.clone();
        // Commits that are being written come before these tombstones in the log.
        let mut removed: BTreeSet<(Arc<str>, i32)> = group.offsets.keys().collect();
        removed.extend(self.pending.commits_of(&id));
        self.park(waiter, &id);
        let reply = Some((waiter, Answer::Delete(ErrorCode::NONE)));
        self.act(now, &id, |group, step| {
            group.persist_removal(step, reply, removed.into_iter().collect(), true);
        })
    }

    /// OffsetDelete: only of topics that the group does not read.
    pub fn delete_offsets(
        &mut self,
        now: Now,
        waiter: WaiterId,
        group_id: &str,
        topics: &[CommitTopic<'_>],
    ) -> Vec<Effect> {
        let reply = |error, topics| {
            let answer = Answer::DeleteOffsets(DeleteOffsetsAnswer { error, topics });
            vec![Effect::Reply { waiter, answer }]
        };
        let Some(group) = self.groups.get(group_id) else {
            return reply(ErrorCode::GROUP_ID_NOT_FOUND, Vec::new());
        };
        if group.state != State::Empty && !group.is_consumer() {
            return reply(ErrorCode::NON_EMPTY_GROUP, Vec::new());
        }
        let Answer::Commit(CommitAnswer { topics: mut answered }) =
            refused_commit(topics, ErrorCode::NONE)
        else {
            unreachable!("`refused_commit` makes a commit answer");
        };
        let mut removed = Vec::new();
        for CommittedTopic { name, partitions, .. } in &mut answered {
            for (partition, error) in partitions {
                if *error == ErrorCode::NONE && group.is_subscribed_to(name) {
                    *error = ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC;
                } else if *error == ErrorCode::NONE && group.offsets.get(name, *partition).is_some()
                {
                    removed.push((name.clone(), *partition));
                }
            }
        }
        if removed.is_empty() {
            return reply(ErrorCode::NONE, answered);
        }
        let id = group.id.clone();
        self.park(waiter, &id);
        let answer = DeleteOffsetsAnswer { error: ErrorCode::NONE, topics: answered };
        let reply = Some((waiter, Answer::DeleteOffsets(answer)));
        self.act(now, &id, |group, step| group.persist_removal(step, reply, removed, false))
    }

    /// Topics are gone: so are the offsets committed for them.
    pub fn topics_deleted(&mut self, now: Now, topics: &[&str]) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in self.groups.keys().cloned().collect::<Vec<_>>() {
            let group = self.groups.get(&id).expect("its key was just read");
            let mut removed: BTreeSet<(Arc<str>, i32)> = group.offsets.keys().collect();
            removed.extend(self.pending.commits_of(&id));
            removed.retain(|(topic, _)| topics.contains(&&**topic));
            if !removed.is_empty() {
                effects.extend(self.act(now, &id, |group, step| {
                    group.persist_removal(step, None, removed.into_iter().collect(), false);
                }));
            }
        }
        effects
    }

    /// Writes the tombstones of what has outlived its retention.
    pub(crate) fn expire_offsets(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in self.groups.keys().cloned().collect::<Vec<_>>() {
            let group = self.groups.get(&id).expect("its key was just read");
            if group.writes_in_flight > 0 {
                // A commit on its way to the log would come before the tombstone: next time.
                continue;
            }
            let removed = group.expired(now.wall_ms, self.config.offsets_retention_ms);
            let all = group.offsets.keys().count() == removed.len();
            let forget = all && group.state == State::Empty && group.pending_members.is_empty();
            if forget && removed.is_empty() && !group.is_stored {
                self.remove_group(&id);
            } else if forget || !removed.is_empty() {
                effects.extend(self.act(now, &id, |group, step| {
                    group.persist_removal(step, None, removed, forget);
                }));
            }
        }
        effects
    }
}

impl Group {
    /// Writes tombstones for the offsets, and with `forget` for the group.
    fn persist_removal(
        &mut self,
        step: &mut Step<'_>,
        reply: Option<(WaiterId, Answer)>,
        removed: Vec<(Arc<str>, i32)>,
        forget: bool,
    ) {
        let offset = |(topic, partition): &(Arc<str>, i32)| {
            record::offset_tombstone(&self.id, topic, *partition)
        };
        let mut records: Vec<_> = removed.iter().map(offset).collect();
        records.extend(forget.then(|| record::group_tombstone(&self.id)));
        self.metadata_writes += u64::from(forget);
        let forget = forget.then_some(self.metadata_writes);
        self.persist(step, records, Pending::Remove { reply, removed, forget });
    }

    /// The group's tombstone is written: what is left of it, if anything, is a bare id.
    pub(crate) fn forget_metadata(&mut self) {
        self.generation = 0;
        self.protocol_type = None;
        self.protocol_name = None;
        self.subscribed = None;
        self.is_stored = false;
    }
}
