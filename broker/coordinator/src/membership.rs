//! How members come and go: JoinGroup, LeaveGroup, heartbeats, dead connections.
//!
//! The rules are those of Kafka's `GroupMetadataManager` for classic groups. Two cases differ,
//! since there the request would never be answered: a second join or sync of the same member
//! answers the first with REBALANCE_IN_PROGRESS, and a member that is removed answers its parked
//! sync. And a member whose connection dies while it is parked loses its excuse to be silent, so
//! that it is gone after its session timeout instead of five minutes.

use std::sync::Arc;

use millrace_wire::ErrorCode;

use crate::effect::{JoinAnswer, SyncAnswer, WaiterId};
use crate::group::{Group, State};
use crate::limits::NEW_MEMBER_JOIN_TIMEOUT_MS;
use crate::member::{Member, Parked, own_protocols};
use crate::pending::{Pending, ReplacedMember, Step};
use crate::record;
use crate::request::{JoinRequest, LeavingMember, LeftMember, MemberRequest};

/// From this version of JoinGroup on a dynamic member must come back with the id it was given.
const KNOWN_MEMBER_ID_FROM: i16 = 4;
/// From this version on a leader can be told that the old assignment still stands.
const SKIP_ASSIGNMENT_FROM: i16 = 9;
/// What the protocol's strings leave for the client's part of a member id: `-` and a UUID follow.
const MEMBER_ID_PREFIX_MAX: usize = i16::MAX as usize - 37;

impl Group {
    /// JoinGroup; the session timeout is checked already.
    pub(crate) fn join(
        &mut self,
        step: &mut Step<'_>,
        waiter: WaiterId,
        request: &JoinRequest<'_>,
    ) {
        let member_id = request.member_id;
        if !self.has_room_for(member_id, step.config.members_max) {
            self.dismiss_member(step, member_id);
            let answer = JoinAnswer::refused("", ErrorCode::GROUP_MAX_SIZE_REACHED);
            return step.reply(waiter, answer);
        }
        if let Err(error) = self.check_join(step, request) {
            return step.reply(waiter, JoinAnswer::refused(member_id, error));
        }
        if member_id.is_empty() {
            self.join_new(step, waiter, request);
        } else if self.pending_members.contains_key(member_id) {
            self.add_and_rebalance(step, waiter, request, Arc::from(member_id));
        } else {
            self.rejoin(step, waiter, request);
        }
    }

    fn check_join(&self, step: &Step<'_>, request: &JoinRequest<'_>) -> Result<(), ErrorCode> {
        let prefix = request.instance_id.unwrap_or(request.client_id);
        if prefix.len() > MEMBER_ID_PREFIX_MAX {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        if !self.supports(request.protocol_type, request.protocols) {
            return Err(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let pending = self.pending_members.contains_key(request.member_id);
        if pending && request.instance_id.is_some() {
            // Ids are handed out to dynamic members only.
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if !pending && !request.member_id.is_empty() {
            self.check_member(request.member_id, request.instance_id)?;
        }
        let known = self.members.get(request.member_id);
        let bytes_now = known.map_or(0, |member| member.bytes(request.member_id.len()));
        let bytes_then = Member::new(request).bytes(request.member_id.len());
        if bytes_then > bytes_now.saturating_add(step.bytes_left) {
            return Err(ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        Ok(())
    }

    fn join_new(&mut self, step: &mut Step<'_>, waiter: WaiterId, request: &JoinRequest<'_>) {
        let new_id = new_member_id(request);
        if let Some(instance_id) = request.instance_id {
            match self.static_members.get(instance_id).cloned() {
                Some(old_id) => self.replace_static(step, waiter, request, old_id, new_id),
                None => self.add_and_rebalance(step, waiter, request, new_id),
            }
        } else if request.version >= KNOWN_MEMBER_ID_FROM {
            let lapses_at_ms = step.session_end_ms(request.session_timeout_ms);
            self.add_pending_member(new_id.clone(), lapses_at_ms);
            step.reply(waiter, JoinAnswer::refused(&new_id, ErrorCode::MEMBER_ID_REQUIRED));
        } else {
            self.add_and_rebalance(step, waiter, request, new_id);
        }
    }

    fn add_and_rebalance(
        &mut self,
        step: &mut Step<'_>,
        waiter: WaiterId,
        request: &JoinRequest<'_>,
        id: Arc<str>,
    ) {
        if let Some(delay) = &mut self.initial_delay {
            delay.member_added = true;
        }
        let mut member = Member::new(request);
        member.join = Parked::Waiter(waiter);
        member.deadline_ms = Some(step.deadline_ms(NEW_MEMBER_JOIN_TIMEOUT_MS));
        self.add_member(id, request.protocol_type, member);
        self.rebalance_or_complete(step);
    }

    /// A known member joins again: to be in the next generation, or because it missed its answer.
    fn rejoin(&mut self, step: &mut Step<'_>, waiter: WaiterId, request: &JoinRequest<'_>) {
        let (id, member) = self
            .members
            .get_key_value(request.member_id)
            .map(|(id, member)| (id.clone(), member))
            .expect("checked by `check_join`");
        let unchanged = member.matches(request.protocols);
        let answer_again = match self.state {
            State::CompletingRebalance => unchanged,
            // A leader that joins again asks for a rebalance: it saw a change in the topics.
            State::Stable => unchanged && !self.is_leader(&id),
            State::PreparingRebalance | State::Empty => false,
        };
        if answer_again {
            let answer = self.join_answer(&id);
            self.keep_alive(step, &id);
            return step.reply(waiter, answer);
        }
        let protocols = own_protocols(request.protocols);
        let (rebalance_ms, session_ms) = (request.rebalance_timeout_ms, request.session_timeout_ms);
        self.update_member(&id, protocols, rebalance_ms, session_ms);
        self.park_join(step, &id, waiter);
        self.rebalance_or_complete(step);
    }

    /// Parks the member's join in place of an earlier one.
    fn park_join(&mut self, step: &mut Step<'_>, id: &Arc<str>, waiter: WaiterId) {
        let member = self.member_mut(id);
        let waited = member.join.is_waiting();
        let earlier = std::mem::replace(&mut member.join, Parked::Waiter(waiter));
        self.joining += usize::from(!waited);
        if let Parked::Waiter(earlier) = earlier {
            step.reply(earlier, JoinAnswer::refused(id, ErrorCode::REBALANCE_IN_PROGRESS));
        }
    }

    /// A static member returns without its id, most likely after a restart: it gets a new id, the
    /// old one is fenced, and while nothing else changes the assignment is kept.
    fn replace_static(
        &mut self,
        step: &mut Step<'_>,
        waiter: WaiterId,
        request: &JoinRequest<'_>,
        old_id: Arc<str>,
        new_id: Arc<str>,
    ) {
        let old_leader = self.leader.clone();
        let member = self.member_mut(&old_id);
        member.is_new = false;
        let was_joining = member.join.is_waiting();
        let (join, sync) = (member.join.take(), member.sync.take());
        let old_protocols = member.protocols.clone();
        let old_rebalance_timeout_ms = member.rebalance_timeout_ms;
        let old_session_timeout_ms = member.session_timeout_ms;
        if was_joining {
            self.joining -= 1;
        }
        let fenced = ErrorCode::FENCED_INSTANCE_ID;
        if let Some(join) = join {
            step.reply(join, JoinAnswer::refused(&old_id, fenced));
        }
        if let Some(sync) = sync {
            step.reply(sync, SyncAnswer::refused(fenced));
        }
        self.rename_member(&old_id, new_id.clone());
        let protocols = own_protocols(request.protocols);
        let (rebalance_ms, session_ms) = (request.rebalance_timeout_ms, request.session_timeout_ms);
        self.update_member(&new_id, protocols, rebalance_ms, session_ms);
        self.park_join(step, &new_id, waiter);
        self.keep_alive(step, &new_id);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol_name => {
                let record = record::group(self, |_, member| member.assignment.clone());
                let replaced = ReplacedMember {
                    waiter,
                    generation: self.generation,
                    old_id,
                    new_id,
                    old_leader,
                    may_skip_assignment: request.version >= SKIP_ASSIGNMENT_FROM,
                    old_protocols,
                    old_rebalance_timeout_ms,
                    old_session_timeout_ms,
                };
                self.persist_metadata(step, record, Pending::StaticMember(Box::new(replaced)));
            }
            // The leader may be assigning to the old id right now.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(step),
            State::PreparingRebalance | State::Empty => self.complete_join_if_ready(step),
        }
    }

    /// Heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        step: &mut Step<'_>,
        request: &MemberRequest<'_>,
    ) -> Result<(), ErrorCode> {
        self.check_member(request.member_id, request.instance_id)?;
        if request.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        self.keep_alive(step, request.member_id);
        match self.state {
            State::PreparingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
            State::Empty | State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Starts the member's session anew.
    pub(crate) fn keep_alive(&mut self, step: &mut Step<'_>, id: &str) {
        let member = self.member_mut(id);
        member.deadline_ms = Some(step.session_end_ms(member.session_timeout_ms));
    }

    /// LeaveGroup, for every member of the request.
    pub(crate) fn leave(
        &mut self,
        step: &mut Step<'_>,
        leaving: &[LeavingMember<'_>],
    ) -> Vec<LeftMember> {
        let mut any = false;
        let mut left = Vec::with_capacity(leaving.len());
        for member in leaving {
            let result = self.leave_one(step, member);
            any |= result.is_ok();
            left.push(LeftMember {
                member_id: Arc::from(member.member_id),
                instance_id: member.instance_id.map(Arc::from),
                error: result.err().unwrap_or(ErrorCode::NONE),
            });
        }
        if any && self.state != State::Empty {
            self.rebalance_or_complete(step);
        }
        left
    }

    fn leave_one(
        &mut self,
        step: &mut Step<'_>,
        leaving: &LeavingMember<'_>,
    ) -> Result<(), ErrorCode> {
        let id: Arc<str> = if leaving.member_id.is_empty() {
            // An administrator removes a static member by its name.
            let instance_id = leaving.instance_id.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?;
            let id = self.static_members.get(instance_id).cloned();
            id.ok_or(ErrorCode::UNKNOWN_MEMBER_ID)?
        } else {
            if self.remove_pending_member(leaving.member_id) {
                return Ok(());
            }
            self.check_member(leaving.member_id, leaving.instance_id)?;
            Arc::from(leaving.member_id)
        };
        self.dismiss_member(step, &id);
        Ok(())
    }

    /// Removes a member, if it is one; its parked requests are told that it is none any more.
    pub(crate) fn dismiss_member(&mut self, step: &mut Step<'_>, id: &str) {
        let Some(mut member) = self.remove_member(id) else { return };
        let unknown = ErrorCode::UNKNOWN_MEMBER_ID;
        if let Some(join) = member.join.take() {
            step.reply(join, JoinAnswer::refused("", unknown));
        }
        if let Some(sync) = member.sync.take() {
            step.reply(sync, SyncAnswer::refused(unknown));
        }
    }

    /// The connection of a parked request died.
    pub(crate) fn cancel(&mut self, step: &mut Step<'_>, waiter: WaiterId) {
        let parked = Parked::Waiter(waiter);
        let found = self.members.iter_mut().find(|(_, m)| m.join == parked || m.sync == parked);
        let Some((_, member)) = found else { return };
        for wait in [&mut member.join, &mut member.sync] {
            if *wait == parked {
                *wait = Parked::Orphan;
            }
        }
        let end_ms = step.session_end_ms(member.session_timeout_ms);
        member.deadline_ms = Some(member.deadline_ms.map_or(end_ms, |known| known.min(end_ms)));
    }
}

/// `<instance id or client id>-<UUID>`.
fn new_member_id(request: &JoinRequest<'_>) -> Arc<str> {
    let prefix = request.instance_id.unwrap_or(request.client_id);
    // RFC 9562: version 4 in the high half, variant 10 in the low half.
    let (high, low) = ((request.random >> 64) as u64, request.random as u64);
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    let (time_low, time_mid, version) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
    let (variant, node) = (low >> 48, low & 0xffff_ffff_ffff);
    Arc::from(format!(
        "{prefix}-{time_low:08x}-{time_mid:04x}-{version:04x}-{variant:04x}-{node:012x}"
    ))
}
