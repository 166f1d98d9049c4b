//! The rounds of a group: prepare (everyone rejoins), complete (the leader assigns), stable.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::ErrorCode;

use crate::effect::{Answer, JoinAnswer, Record, SyncAnswer, WaiterId};
use crate::group::{Group, InitialDelay, State};
use crate::member::Parked;
use crate::pending::{Pending, ReplacedMember, Step, write_error};
use crate::record;
use crate::request::SyncRequest;

/// A deadline of a group that has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Join,
    Sync,
    PendingMember(Arc<str>),
    Member(Arc<str>),
}

impl Group {
    /// Writes a batch of this group.
    pub(crate) fn persist(&mut self, step: &mut Step<'_>, records: Vec<Record>, then: Pending) {
        self.writes_in_flight += 1;
        step.persist(&self.id, records, then);
    }

    /// Writes the group's record.
    pub(crate) fn persist_metadata(&mut self, step: &mut Step<'_>, record: Record, then: Pending) {
        self.metadata_writes += 1;
        self.is_stored = true;
        self.persist(step, vec![record], then);
    }

    fn enter(&mut self, step: &Step<'_>, state: State) {
        self.state = state;
        self.state_since_ms = Some(step.now.wall_ms);
    }

    /// Something changed about the members: starts a round, or ends the joining of the running one.
    pub(crate) fn rebalance_or_complete(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::PreparingRebalance => self.complete_join_if_ready(step),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(step);
            }
        }
    }

    /// Ends the joining when nobody is missing; the first generation waits out its delay instead.
    pub(crate) fn complete_join_if_ready(&mut self, step: &mut Step<'_>) {
        let preparing = self.state == State::PreparingRebalance;
        if preparing && self.initial_delay.is_none() && self.all_joined() {
            self.complete_join(step);
        }
    }

    /// Starts a round. Members learn it from their heartbeats.
    pub(crate) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        if self.state == State::CompletingRebalance {
            self.fail_syncs(step, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.awaited_syncs.clear();
        self.sync_deadline_ms = None;
        let first = self.state == State::Empty;
        self.enter(step, State::PreparingRebalance);
        let timeout_ms = self.rebalance_timeout_ms();
        if first {
            let delay_ms = step.config.initial_rebalance_delay_ms;
            let remaining_ms = timeout_ms.saturating_sub(delay_ms);
            self.initial_delay = Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
            self.join_deadline_ms = Some(step.deadline_ms(delay_ms));
        } else if self.all_joined() {
            self.complete_join(step);
        } else {
            self.join_deadline_ms = Some(step.deadline_ms(timeout_ms));
        }
    }

    /// The time to join is over, or nobody is missing: fixes the next generation. Dynamic members
    /// that did not join are removed; static ones stay until their session ends.
    fn complete_join(&mut self, step: &mut Step<'_>) {
        self.join_deadline_ms = None;
        self.initial_delay = None;
        let late =
            self.members.iter().filter(|(_, m)| !m.join.is_waiting() && m.instance_id.is_none());
        for id in late.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.dismiss_member(step, &id);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only static members are left, none of which joined: wait for one, or for their ends.
            let timeout_ms = self.rebalance_timeout_ms();
            self.join_deadline_ms = Some(step.deadline_ms(timeout_ms));
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.protocol_name = self.select_protocol();
        self.subscribed = self.read_subscriptions();
        self.awaited_syncs.clear();
        if self.members.is_empty() {
            self.enter(step, State::Empty);
            let record = record::group(self, |_, _| Bytes::new());
            return self.persist_metadata(step, record, Pending::Nothing);
        }
        self.enter(step, State::CompletingRebalance);
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            if let Some(waiter) = self.end_join(&id) {
                let answer = self.join_answer(&id);
                step.reply(waiter, answer);
            }
            self.member_mut(&id).is_new = false;
            self.keep_alive(step, &id);
            self.awaited_syncs.insert(id);
        }
        let timeout_ms = self.rebalance_timeout_ms();
        self.sync_deadline_ms = Some(step.deadline_ms(timeout_ms));
    }

    /// Ends a member's wait for the generation; the waiter to answer, if there is one.
    fn end_join(&mut self, id: &Arc<str>) -> Option<WaiterId> {
        let member = self.member_mut(id);
        let waited = member.join.is_waiting();
        let waiter = member.join.take();
        self.joining -= usize::from(waited);
        waiter
    }

    /// Keeps the leader if it joined, else takes a member that did; false when nobody joined.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &Arc<str>| self.members.get(id).is_some_and(|m| m.join.is_waiting());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.iter().find(|(_, member)| member.join.is_waiting());
        let next = next.map(|(id, _)| id.clone());
        let found = next.is_some();
        if found {
            self.leader = next;
        }
        found
    }

    /// Answers every parked sync with `error` and forgets the assignments.
    fn fail_syncs(&mut self, step: &mut Step<'_>, error: ErrorCode) {
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.set_assignment(&id, Bytes::new());
            self.end_sync(step, &id, |_| SyncAnswer::refused(error));
        }
    }

    /// Ends a member's wait for its assignment, heard or not, and starts its session anew: while it
    /// was parked, its silence was excused and its timer may have run out.
    fn end_sync(&mut self, step: &mut Step<'_>, id: &Arc<str>, answer: impl Fn(&Self) -> Answer) {
        let member = self.member_mut(id);
        if !member.sync.is_waiting() {
            return;
        }
        if let Some(waiter) = member.sync.take() {
            let answer = answer(self);
            step.reply(waiter, answer);
        }
        self.keep_alive(step, id);
    }

    fn assignment_answer(&self, id: &Arc<str>) -> Answer {
        Answer::Sync(SyncAnswer {
            error: ErrorCode::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment: self.members.get(id).map(|m| m.assignment.clone()).unwrap_or_default(),
        })
    }

    /// SyncGroup: followers are parked until the leader's assignment is written.
    pub(crate) fn sync(
        &mut self,
        step: &mut Step<'_>,
        waiter: WaiterId,
        request: &SyncRequest<'_>,
    ) {
        if let Err(error) = self.check_sync(request) {
            return step.reply(waiter, SyncAnswer::refused(error));
        }
        let id: Arc<str> = Arc::from(request.member.member_id);
        self.awaited_syncs.remove(&id);
        if self.awaited_syncs.is_empty() {
            self.sync_deadline_ms = None;
        }
        if self.state == State::Stable {
            let answer = self.assignment_answer(&id);
            self.keep_alive(step, &id);
            return step.reply(waiter, answer);
        }
        let earlier = self.member_mut(&id).sync.take();
        self.member_mut(&id).sync = Parked::Waiter(waiter);
        if let Some(earlier) = earlier {
            step.reply(earlier, SyncAnswer::refused(ErrorCode::REBALANCE_IN_PROGRESS));
        }
        // What a leader sends again while its first word is being written would come too late.
        if self.is_leader(&id) && self.assigning != Some(self.generation) {
            self.persist_assignment(step, request.assignments);
        }
    }

    fn check_sync(&self, request: &SyncRequest<'_>) -> Result<(), ErrorCode> {
        self.check_member(request.member.member_id, request.member.instance_id)?;
        if request.member.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        let differs = |asked: Option<&str>, known: &Option<Arc<str>>| {
            asked.zip(known.as_deref()).is_some_and(|(asked, known)| asked != known)
        };
        if differs(request.protocol_type, &self.protocol_type)
            || differs(request.protocol_name, &self.protocol_name)
        {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        match self.state {
            State::Empty => Err(ErrorCode::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Writes the leader's assignment; members it does not mention get an empty one.
    fn persist_assignment(&mut self, step: &mut Step<'_>, assignments: &[(&str, &[u8])]) {
        let bytes: usize = assignments.iter().map(|(_, bytes)| bytes.len()).sum();
        if bytes > step.bytes_left {
            self.fail_syncs(step, ErrorCode::GROUP_MAX_SIZE_REACHED);
            return;
        }
        let members = assignments.iter().filter_map(|(id, bytes)| {
            let (id, _) = self.members.get_key_value(*id)?;
            Some((id.clone(), Bytes::copy_from_slice(bytes)))
        });
        let assignments: BTreeMap<Arc<str>, Bytes> = members.collect();
        let record = record::group(self, |id, _| assignments.get(id).cloned().unwrap_or_default());
        let generation = self.generation;
        self.assigning = Some(generation);
        self.persist_metadata(step, record, Pending::Assignment { generation, assignments });
    }

    /// The leader's assignment is written, or writing it failed.
    pub(crate) fn on_assignment_written(
        &mut self,
        step: &mut Step<'_>,
        generation: i32,
        mut assignments: BTreeMap<Arc<str>, Bytes>,
        result: Result<(), ErrorCode>,
    ) {
        if self.assigning == Some(generation) {
            self.assigning = None;
        }
        // Another round may have begun meanwhile; then this assignment is of the past.
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(error) = result {
            self.fail_syncs(step, write_error(error));
            return self.prepare_rebalance(step);
        }
        self.enter(step, State::Stable);
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            self.set_assignment(&id, assignments.remove(&id).unwrap_or_default());
            self.end_sync(step, &id, |group| group.assignment_answer(&id));
        }
    }

    /// A static member's new id is written, or writing it failed.
    pub(crate) fn on_replacement_written(
        &mut self,
        step: &mut Step<'_>,
        replaced: ReplacedMember,
        result: Result<(), ErrorCode>,
    ) {
        let unchanged = self.state == State::Stable && self.generation == replaced.generation;
        if !unchanged || !self.members.contains_key(&replaced.new_id) {
            // A round that began meanwhile answers the join, or the member is gone and was told.
            return;
        }
        let new_id = &replaced.new_id;
        self.end_join(new_id);
        if let Err(error) = result {
            let (rebalance_ms, session_ms) =
                (replaced.old_rebalance_timeout_ms, replaced.old_session_timeout_ms);
            self.update_member(new_id, replaced.old_protocols, rebalance_ms, session_ms);
            self.rename_member(new_id, replaced.old_id.clone());
            self.keep_alive(step, &replaced.old_id);
            return step.reply(replaced.waiter, JoinAnswer::refused("", write_error(error)));
        }
        let Answer::Join(mut answer) = self.join_answer(new_id) else {
            unreachable!("`join_answer` makes a join answer");
        };
        if replaced.may_skip_assignment {
            answer.skip_assignment = self.is_leader(new_id);
        } else {
            // It cannot skip the assignment, so it must not think that it leads.
            answer.members = Vec::new();
            answer.leader = replaced.old_leader.unwrap_or_else(|| Arc::from(""));
        }
        self.keep_alive(step, new_id);
        step.reply(replaced.waiter, Answer::Join(answer));
    }

    /// Does what is due, in the order of the deadlines.
    pub(crate) fn on_time(&mut self, step: &mut Step<'_>) {
        for (at_ms, timer) in self.due(step.now.monotonic_ms) {
            // An earlier one of this turn may have moved or removed it.
            if self.deadline_of(&timer) != Some(at_ms) {
                continue;
            }
            match timer {
                Timer::Join => self.on_join_deadline(step),
                Timer::Sync => self.on_sync_deadline(step),
                Timer::PendingMember(id) => {
                    self.remove_pending_member(&id);
                    self.complete_join_if_last(step);
                }
                Timer::Member(id) => self.on_silence(step, &id),
            }
        }
    }

    fn due(&self, now_ms: u64) -> Vec<(u64, Timer)> {
        let mut due = Vec::new();
        let mut add = |at_ms: Option<u64>, timer: Timer| {
            due.extend(at_ms.filter(|at_ms| *at_ms <= now_ms).map(|at_ms| (at_ms, timer)));
        };
        add(self.join_deadline_ms, Timer::Join);
        add(self.sync_deadline_ms, Timer::Sync);
        for (id, at_ms) in &self.pending_members {
            add(Some(*at_ms), Timer::PendingMember(id.clone()));
        }
        for (id, member) in &self.members {
            add(member.deadline_ms, Timer::Member(id.clone()));
        }
        due.sort();
        due
    }

    fn deadline_of(&self, timer: &Timer) -> Option<u64> {
        match timer {
            Timer::Join => self.join_deadline_ms,
            Timer::Sync => self.sync_deadline_ms,
            Timer::PendingMember(id) => self.pending_members.get(id).copied(),
            Timer::Member(id) => self.members.get(id).and_then(|member| member.deadline_ms),
        }
    }

    /// Members had their time to join. The delay of a first generation is extended while members
    /// keep coming, up to the rebalance timeout.
    fn on_join_deadline(&mut self, step: &mut Step<'_>) {
        match self.initial_delay {
            Some(delay) if delay.member_added && delay.remaining_ms > 0 => {
                let delay_ms = step.config.initial_rebalance_delay_ms.min(delay.remaining_ms);
                let remaining_ms = delay.remaining_ms.saturating_sub(delay.delay_ms);
                self.initial_delay =
                    Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
                self.join_deadline_ms = Some(step.deadline_ms(delay_ms));
            }
            Some(_) | None => self.complete_join(step),
        }
    }

    /// Members that did not send SyncGroup within the rebalance timeout are removed.
    fn on_sync_deadline(&mut self, step: &mut Step<'_>) {
        self.sync_deadline_ms = None;
        let missing = std::mem::take(&mut self.awaited_syncs);
        if missing.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        for id in &missing {
            self.dismiss_member(step, id);
        }
        self.prepare_rebalance(step);
    }

    /// A member's session ended.
    fn on_silence(&mut self, step: &mut Step<'_>, id: &Arc<str>) {
        let member = self.member_mut(id);
        if member.may_be_silent() {
            // Its timer starts anew when its parked request is answered.
            member.deadline_ms = None;
            return;
        }
        self.dismiss_member(step, id);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance | State::Empty => self.complete_join_if_last(step),
        }
    }

    /// Someone who was missing is gone: ends the joining if nobody else is missing, even within the
    /// delay of a first generation.
    fn complete_join_if_last(&mut self, step: &mut Step<'_>) {
        if self.state == State::PreparingRebalance && self.all_joined() {
            self.complete_join(step);
        }
    }
}
