//! [`Groups`]: the table of all groups, and everything a caller can ask of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use millrace_wire::ErrorCode;

use crate::config::GroupsConfig;
use crate::effect::{
    Answer, CommitAnswer, Effect, JoinAnswer, Now, PersistId, SyncAnswer, WaiterId,
};
use crate::group::{Group, State};
use crate::offsets::{Offsets, refused_commit};
use crate::pending::{Pending, PendingWrites, Step};
use crate::request::{
    CommitRequest, DescribedGroup, JoinRequest, LeaveAnswer, LeavingMember, LeftMember,
    ListedGroup, MemberRequest, SyncRequest,
};

/// The groups whose partitions of `__consumer_offsets` this broker leads, or some of them.
///
/// Every request that comes with a [`WaiterId`] is answered by exactly one [`Effect::Reply`], now
/// or later, unless it is cancelled.
#[derive(Debug)]
pub struct Groups {
    pub(crate) config: GroupsConfig,
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    /// When to look at which group. Invariant: the entries are the groups' `wake_at_ms`, and none
    /// is later than the group's next deadline. Heartbeats move deadlines without touching this.
    timers: BTreeSet<(u64, Arc<str>)>,
    pub(crate) pending: PendingWrites,
    /// Requests that are not answered yet, and their groups.
    parked: HashMap<WaiterId, Arc<str>>,
    /// Invariant: the sum of the groups' `bytes()`.
    bytes: usize,
    retention_check_at_ms: u64,
}

impl Groups {
    /// No groups; the first retention check comes one interval from `now`.
    pub fn new(config: GroupsConfig, now: Now) -> Self {
        let interval_ms = config.retention_check_interval_ms.max(1);
        Self {
            config,
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            pending: PendingWrites::default(),
            parked: HashMap::new(),
            bytes: 0,
            retention_check_at_ms: now.monotonic_ms.saturating_add(interval_ms),
        }
    }

    /// Changes the settings; they hold for what comes next.
    pub fn set_config(&mut self, config: GroupsConfig) {
        self.config = config;
    }

    /// Memory taken, as counted by the limits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests that wait for others, for time or for a write.
    pub fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// Runs `act` on a group, then brings the timers and the memory count up to date.
    pub(crate) fn step<R>(
        &mut self,
        now: Now,
        group_id: &str,
        act: impl FnOnce(&mut Group, &mut Step<'_>) -> R,
    ) -> Option<(R, Vec<Effect>)> {
        let group = self.groups.get_mut(group_id)?;
        let bytes_before = group.bytes();
        let mut step = Step {
            now,
            config: &self.config,
            bytes_left: self.config.bytes_max.saturating_sub(self.bytes),
            effects: Vec::new(),
            wake_at_ms: None,
            pending: &mut self.pending,
            parked: &mut self.parked,
        };
        let result = act(group, &mut step);
        let (effects, wake_at_ms) = (step.effects, step.wake_at_ms);
        self.bytes = self.bytes - bytes_before + group.bytes();
        if let Some(at_ms) = wake_at_ms
            && group.wake_at_ms.is_none_or(|known| at_ms < known)
        {
            if let Some(known) = group.wake_at_ms.replace(at_ms) {
                self.timers.remove(&(known, group.id.clone()));
            }
            self.timers.insert((at_ms, group.id.clone()));
        }
        Some((result, effects))
    }

    /// The group, made when it is missing; `None` when there is no memory for it.
    pub(crate) fn group_or_new(
        &mut self,
        group_id: &str,
        now_wall_ms: Option<i64>,
    ) -> Option<&mut Group> {
        if !self.groups.contains_key(group_id) {
            let group = Group::new(Arc::from(group_id), now_wall_ms);
            // Replay refuses nothing: what is stored was accepted once.
            if now_wall_ms.is_some() && self.bytes + group.bytes() > self.config.bytes_max {
                return None;
            }
            self.bytes += group.bytes();
            self.groups.insert(group.id.clone(), group);
        }
        self.groups.get_mut(group_id)
    }

    pub(crate) fn recount(&mut self, bytes_before: usize, bytes_after: usize) {
        self.bytes = self.bytes - bytes_before + bytes_after;
    }

    pub(crate) fn remove_group(&mut self, group_id: &str) {
        let Some(group) = self.groups.remove(group_id) else { return };
        self.bytes -= group.bytes();
        if let Some(at_ms) = group.wake_at_ms {
            self.timers.remove(&(at_ms, group.id));
        }
    }

    pub(crate) fn park(&mut self, waiter: WaiterId, group_id: &Arc<str>) {
        let before = self.parked.insert(waiter, group_id.clone());
        assert!(before.is_none(), "waiter ids are unique among parked requests");
    }

    /// JoinGroup.
    pub fn join(&mut self, now: Now, waiter: WaiterId, request: &JoinRequest<'_>) -> Vec<Effect> {
        let refuse = |member_id: &str, error: ErrorCode| {
            vec![Effect::Reply { waiter, answer: JoinAnswer::refused(member_id, error) }]
        };
        let (min_ms, max_ms) =
            (self.config.session_timeout_min_ms, self.config.session_timeout_max_ms);
        if request.group_id.is_empty() {
            return refuse(request.member_id, ErrorCode::INVALID_GROUP_ID);
        }
        if !(min_ms..=max_ms).contains(&request.session_timeout_ms) {
            return refuse(request.member_id, ErrorCode::INVALID_SESSION_TIMEOUT);
        }
        if !self.groups.contains_key(request.group_id) && !request.member_id.is_empty() {
            return refuse(request.member_id, ErrorCode::UNKNOWN_MEMBER_ID);
        }
        let Some(group) = self.group_or_new(request.group_id, Some(now.wall_ms)) else {
            return refuse("", ErrorCode::GROUP_MAX_SIZE_REACHED);
        };
        let id = group.id.clone();
        self.park(waiter, &id);
        self.act(now, &id, |group, step| group.join(step, waiter, request))
    }

    /// SyncGroup.
    pub fn sync(&mut self, now: Now, waiter: WaiterId, request: &SyncRequest<'_>) -> Vec<Effect> {
        let Some(id) = self.known_id(request.member.group_id) else {
            let error = missing_group(request.member.group_id);
            return vec![Effect::Reply { waiter, answer: SyncAnswer::refused(error) }];
        };
        self.park(waiter, &id);
        self.act(now, &id, |group, step| group.sync(step, waiter, request))
    }

    /// Heartbeat; the answer is the code.
    pub fn heartbeat(&mut self, now: Now, request: &MemberRequest<'_>) -> ErrorCode {
        let stepped =
            self.step(now, request.group_id, |group, step| group.heartbeat(step, request));
        let Some((result, effects)) = stepped else { return missing_group(request.group_id) };
        assert!(effects.is_empty(), "a heartbeat only moves a deadline");
        result.err().unwrap_or(ErrorCode::NONE)
    }

    /// LeaveGroup.
    pub fn leave(
        &mut self,
        now: Now,
        group_id: &str,
        leaving: &[LeavingMember<'_>],
    ) -> (LeaveAnswer, Vec<Effect>) {
        if group_id.is_empty() {
            let answer = LeaveAnswer { error: ErrorCode::INVALID_GROUP_ID, members: Vec::new() };
            return (answer, Vec::new());
        }
        let stepped = self.step(now, group_id, |group, step| group.leave(step, leaving));
        let (members, effects) = stepped.unwrap_or_else(|| {
            let unknown = |member: &LeavingMember<'_>| LeftMember {
                member_id: Arc::from(member.member_id),
                instance_id: member.instance_id.map(Arc::from),
                error: ErrorCode::UNKNOWN_MEMBER_ID,
            };
            (leaving.iter().map(unknown).collect(), Vec::new())
        });
        (LeaveAnswer { error: ErrorCode::NONE, members }, effects)
    }

    /// OffsetCommit. A group that does not exist is made by a commit that claims no generation.
    pub fn commit(
        &mut self,
        now: Now,
        waiter: WaiterId,
        request: &CommitRequest<'_>,
    ) -> Vec<Effect> {
        let group_id = request.member.group_id;
        let refuse =
            |error| vec![Effect::Reply { waiter, answer: refused_commit(&request.topics, error) }];
        let is_new = !self.groups.contains_key(group_id);
        if is_new && request.member.generation >= 0 {
            // Version 9 learnt a better word for it.
            let named = request.version >= 9;
            let (new, old) = (ErrorCode::GROUP_ID_NOT_FOUND, ErrorCode::ILLEGAL_GENERATION);
            return refuse(if named { new } else { old });
        }
        let Some(group) = self.group_or_new(group_id, Some(now.wall_ms)) else {
            return refuse(ErrorCode::INVALID_COMMIT_OFFSET_SIZE);
        };
        let id = group.id.clone();
        self.park(waiter, &id);
        let effects = self.act(now, &id, |group, step| group.commit(step, waiter, request));
        if is_new && self.groups.get(&id).is_some_and(Group::is_disposable) {
            self.remove_group(&id);
        }
        effects
    }

    /// OffsetFetch: the offsets of a group, none of an unknown one, which is no error. Commits show
    /// up once they are written, so nothing is ever unstable without transactions.
    pub fn fetch(&self, group_id: &str) -> Option<&Offsets> {
        self.groups.get(group_id).map(|group| &group.offsets)
    }

    /// DescribeGroups for one group. None: unknown, which is state `Dead`, from version 6 on with
    /// GROUP_ID_NOT_FOUND.
    pub fn describe(&self, group_id: &str) -> Option<DescribedGroup> {
        self.groups.get(group_id).map(Group::describe)
    }

    /// ListGroups. Empty filters take every group; words are compared without case.
    pub fn list(&self, states: &[&str], types: &[&str]) -> Vec<ListedGroup> {
        let takes = |filter: &[&str], word: &str| {
            filter.is_empty() || filter.iter().any(|asked| asked.eq_ignore_ascii_case(word))
        };
        if !takes(types, "classic") {
            return Vec::new();
        }
        let taken = self.groups.values().filter(|group| takes(states, group.state.name()));
        taken
            .map(|group| ListedGroup {
                group_id: group.id.clone(),
                protocol_type: group.protocol_type.clone().unwrap_or_else(|| Arc::from("")),
                state: group.state,
            })
            .collect()
    }

    /// The connection of a parked request died: nobody waits for its answer any more.
    pub fn cancel(&mut self, now: Now, waiter: WaiterId) {
        let Some(id) = self.parked.remove(&waiter) else { return };
        let effects = self.act(now, &id, |group, step| group.cancel(step, waiter));
        assert!(effects.is_empty(), "a lost connection only moves a deadline");
    }

    /// When [`Groups::on_time`] has something to do, on the monotonic clock.
    pub fn next_deadline(&self) -> u64 {
        let first = self.timers.first().map(|(at_ms, _)| *at_ms);
        first.map_or(self.retention_check_at_ms, |at_ms| at_ms.min(self.retention_check_at_ms))
    }

    /// Does what is due: sessions that end, rounds that time out, offsets that expire.
    pub fn on_time(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some((at_ms, id)) = self.timers.first().cloned() {
            if at_ms > now.monotonic_ms {
                break;
            }
            self.timers.pop_first();
            let group = self.groups.get_mut(&id).expect("a group takes its timer with it");
            group.wake_at_ms = None;
            effects.extend(self.act(now, &id, |group, step| {
                group.on_time(step);
                step.wake_at_ms = group.next_deadline_ms();
            }));
        }
        if now.monotonic_ms >= self.retention_check_at_ms {
            let interval_ms = self.config.retention_check_interval_ms.max(1);
            self.retention_check_at_ms = now.monotonic_ms.saturating_add(interval_ms);
            effects.extend(self.expire_offsets(now));
        }
        effects
    }

    /// The batch of an [`Effect::Persist`] is written, or was not. To be called in the order of the
    /// effects for one group.
    pub fn persisted(
        &mut self,
        now: Now,
        id: PersistId,
        result: Result<(), ErrorCode>,
    ) -> Vec<Effect> {
        // Unknown: the group was unloaded since, and its waiters were told.
        let Some((group_id, pending)) = self.pending.take(id) else { return Vec::new() };
        let forgets = matches!(pending, Pending::Remove { forget: Some(_), .. });
        let act = |group: &mut Group, step: &mut Step<'_>| group.on_written(step, pending, result);
        let effects = self.act(now, &group_id, act);
        let forgotten = |group: &Group| !group.is_stored && group.is_disposable();
        if forgets && self.groups.get(&group_id).is_some_and(forgotten) {
            self.remove_group(&group_id);
        }
        effects
    }

    /// The partitions of these groups are led elsewhere now: forgets them, tells everyone who
    /// waits.
    pub fn unload(&mut self, chosen: impl Fn(&str) -> bool) -> Vec<Effect> {
        let error = ErrorCode::NOT_COORDINATOR;
        let mut replies = BTreeMap::new();
        for pending in self.pending.take_of(&chosen) {
            replies.extend(pending.refusal(error));
        }
        for id in self.groups.keys().filter(|id| chosen(id)).cloned().collect::<Vec<_>>() {
            let group = self.groups.get_mut(&id).expect("its key was just read");
            for (member_id, member) in &mut group.members {
                let join = member.join.take();
                replies.extend(join.map(|waiter| (waiter, JoinAnswer::refused(member_id, error))));
                let sync = member.sync.take();
                replies.extend(sync.map(|waiter| (waiter, SyncAnswer::refused(error))));
            }
            self.remove_group(&id);
        }
        replies.retain(|waiter, _| self.parked.remove(waiter).is_some());
        replies.into_iter().map(|(waiter, answer)| Effect::Reply { waiter, answer }).collect()
    }

    /// A step of a group that is known to be there.
    pub(crate) fn act(
        &mut self,
        now: Now,
        id: &Arc<str>,
        act: impl FnOnce(&mut Group, &mut Step<'_>),
    ) -> Vec<Effect> {
        self.step(now, id, act).map(|((), effects)| effects).unwrap_or_default()
    }

    fn known_id(&self, group_id: &str) -> Option<Arc<str>> {
        self.groups.get_key_value(group_id).map(|(id, _)| id.clone())
    }
}

impl Group {
    fn on_written(&mut self, step: &mut Step<'_>, pending: Pending, result: Result<(), ErrorCode>) {
        self.writes_in_flight -= 1;
        let refusal = result.err().and_then(|error| pending.refusal(error));
        match (pending, result) {
            (Pending::Assignment { generation, assignments }, _) => {
                self.on_assignment_written(step, generation, assignments, result);
            }
            (Pending::StaticMember(replaced), _) => {
                self.on_replacement_written(step, *replaced, result);
            }
            (Pending::Commit { waiter, topics, writes }, Ok(())) => {
                for (topic, partition, committed) in writes {
                    self.offsets.put(&topic, partition, committed);
                }
                step.reply(waiter, Answer::Commit(CommitAnswer { topics }));
            }
            (Pending::Remove { reply, removed, forget }, Ok(())) => {
                for (topic, partition) in removed {
                    self.offsets.remove(&topic, partition);
                }
                // Unless it came to life, or a later record of it follows this tombstone in the
                // log.
                if self.state == State::Empty && forget == Some(self.metadata_writes) {
                    self.forget_metadata();
                }
                if let Some((waiter, answer)) = reply {
                    step.reply(waiter, answer);
                }
            }
            (Pending::Nothing | Pending::Commit { .. } | Pending::Remove { .. }, _) => {
                if let Some((waiter, answer)) = refusal {
                    step.reply(waiter, answer);
                }
            }
        }
    }
}

fn missing_group(group_id: &str) -> ErrorCode {
    if group_id.is_empty() { ErrorCode::INVALID_GROUP_ID } else { ErrorCode::UNKNOWN_MEMBER_ID }
}
