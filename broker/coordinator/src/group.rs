//! One group: its members and generation, and the questions that are asked of them.
//!
//! The changes are in `membership` and `rebalance`. State, leader choice, votes and fencing follow
//! Kafka's `ClassicGroup`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::ErrorCode;

use crate::effect::{Answer, JoinAnswer, JoinedMember};
use crate::limits::{GROUP_BYTES, PENDING_MEMBER_BYTES};
use crate::member::Member;
use crate::offsets::Offsets;
use crate::request::{DescribedGroup, DescribedMember};
use crate::subscription::read_topics;

/// The protocol type of consumers, whose subscriptions the broker can read.
const CONSUMER: &str = "consumer";

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No members; offsets may be there.
    Empty,
    /// Members are to rejoin.
    PreparingRebalance,
    /// The generation is fixed; its leader is to send the assignment.
    CompletingRebalance,
    /// Everyone has an assignment.
    Stable,
}

impl State {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// The pause before a group that was empty forms its first generation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitialDelay {
    /// The part of the pause that is running.
    pub(crate) delay_ms: u64,
    /// By how much it may still be extended.
    pub(crate) remaining_ms: u64,
    /// A member came since it was last extended.
    pub(crate) member_added: bool,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Arc<str>,
    pub(crate) state: State,
    /// Wall time of the last change of state; none in records of old versions.
    pub(crate) state_since_ms: Option<i64>,
    pub(crate) generation: i32,
    /// Kept while the group is empty, until a member of another type comes.
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol_name: Option<Arc<str>>,
    pub(crate) leader: Option<Arc<str>>,
    /// Invariant: the leader, every static member and every awaited sync is a key here.
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    pub(crate) static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids handed out with MEMBER_ID_REQUIRED, and when they lapse.
    pub(crate) pending_members: BTreeMap<Arc<str>, u64>,
    /// Members of this generation that have not sent SyncGroup.
    pub(crate) awaited_syncs: BTreeSet<Arc<str>>,
    /// The generation whose assignment is being written.
    pub(crate) assigning: Option<i32>,
    /// How many members offer each protocol.
    pub(crate) offered: BTreeMap<Arc<str>, usize>,
    /// Invariant: the number of members whose `join` waits.
    pub(crate) joining: usize,
    /// Topics of this generation, when all members' metadata could be read.
    pub(crate) subscribed: Option<BTreeSet<Arc<str>>>,
    /// Some from the first join of an empty group until its next generation.
    pub(crate) initial_delay: Option<InitialDelay>,
    pub(crate) join_deadline_ms: Option<u64>,
    pub(crate) sync_deadline_ms: Option<u64>,
    pub(crate) offsets: Offsets,
    /// Batches of this group that are not written yet.
    pub(crate) writes_in_flight: usize,
    /// A record about the group, beside its offsets, may be in the log.
    pub(crate) is_stored: bool,
    /// How often that record was written or removed since the group is in memory.
    pub(crate) metadata_writes: u64,
    /// It is being replayed: no timer runs yet.
    pub(crate) is_loading: bool,
    /// Memory of the members, see [`crate::limits`].
    pub(crate) member_bytes: usize,
    /// When the table of groups will look here again.
    pub(crate) wake_at_ms: Option<u64>,
}

impl Group {
    pub(crate) fn new(id: Arc<str>, now_wall_ms: Option<i64>) -> Self {
        Self {
            id,
            state: State::Empty,
            state_since_ms: now_wall_ms,
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeMap::new(),
            awaited_syncs: BTreeSet::new(),
            assigning: None,
            offered: BTreeMap::new(),
            joining: 0,
            subscribed: None,
            initial_delay: None,
            join_deadline_ms: None,
            sync_deadline_ms: None,
            offsets: Offsets::default(),
            writes_in_flight: 0,
            is_stored: false,
            metadata_writes: 0,
            is_loading: false,
            member_bytes: 0,
            wake_at_ms: None,
        }
    }

    /// What the group is charged in the memory budget.
    pub(crate) fn bytes(&self) -> usize {
        GROUP_BYTES + self.id.len() + self.member_bytes + self.offsets.bytes()
    }

    /// Whether nothing would be lost by forgetting the group.
    pub(crate) fn is_disposable(&self) -> bool {
        self.state == State::Empty
            && self.offsets.is_empty()
            && self.pending_members.is_empty()
            && self.writes_in_flight == 0
    }

    pub(crate) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// The member that must exist.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn member_mut(&mut self, member_id: &str) -> &mut Member {
        self.members.get_mut(member_id).expect("the caller found this member in the group")
    }

    /// Checks that a request's ids name a member: an instance id must be known and mapped to it.
    pub(crate) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(known) if **known != *member_id => return Err(ErrorCode::FENCED_INSTANCE_ID),
                Some(_) => {}
            }
        }
        let known = self.members.contains_key(member_id);
        if known { Ok(()) } else { Err(ErrorCode::UNKNOWN_MEMBER_ID) }
    }

    /// Whether a member may join with these protocols: one of them must be offered by everyone.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[(&str, &[u8])]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let offered_by_all =
            |name: &str| self.offered.get(name).copied().unwrap_or(0) == self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| offered_by_all(name))
    }

    /// Whether there is room for this member under `members_max`. While the group prepares, only
    /// members that rejoined count, so that a limit that was lowered throws out the last to come.
    pub(crate) fn has_room_for(&self, member_id: &str, members_max: usize) -> bool {
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                let waits = self.members.get(member_id).is_some_and(|m| m.join.is_waiting());
                waits || self.joining < members_max
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < members_max
            }
        }
    }

    pub(crate) fn all_joined(&self) -> bool {
        self.joining == self.members.len() && self.pending_members.is_empty()
    }

    /// The slowest member's rebalance timeout.
    pub(crate) fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self.members.values().map(|member| member.rebalance_timeout_ms);
        u64::try_from(timeouts.max().unwrap_or(0)).unwrap_or(0)
    }

    /// The protocol with the most votes among those that everyone offers: each member votes for the
    /// first in its list. Of several the first by name wins; none only when there are no members.
    pub(crate) fn select_protocol(&self) -> Option<Arc<str>> {
        let everyone = self.members.len();
        let offered_by_all = |name: &Arc<str>| self.offered.get(name) == Some(&everyone);
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| offered_by_all(name))
            {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    /// What the members of this generation read, when that is known.
    pub(crate) fn read_subscriptions(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.is_consumer() {
            return None;
        }
        let mut topics = BTreeSet::new();
        if self.members.is_empty() {
            return Some(topics);
        }
        let protocol = self.protocol_name.as_ref()?;
        for member in self.members.values() {
            read_topics(&member.metadata(Some(protocol)), &mut topics)?;
        }
        Some(topics)
    }

    /// Whether the group reads `topic`: a consumer group whose metadata cannot be read may.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer(),
        }
    }

    /// Makes `member` part of the group; the first member brings the protocol type and leads.
    pub(crate) fn add_member(&mut self, id: Arc<str>, protocol_type: &str, member: Member) {
        if self.members.is_empty() {
            self.protocol_type = Some(Arc::from(protocol_type));
        }
        assert_eq!(self.protocol_type.as_deref(), Some(protocol_type), "checked by `supports`");
        self.remove_pending_member(&id);
        if let Some(instance_id) = &member.instance_id {
            let before = self.static_members.insert(instance_id.clone(), id.clone());
            assert!(before.is_none(), "a static member is replaced, not added twice");
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.joining += usize::from(member.join.is_waiting());
        self.member_bytes += member.bytes(id.len());
        self.count_offers(&member.protocols, true);
        let before = self.members.insert(id, member);
        assert!(before.is_none(), "a member id is used once");
    }

    /// Takes the member, if it is one, out of the group, and its id out of the pending ones. When
    /// it led, any other member leads. Its parked requests are in what comes back.
    pub(crate) fn remove_member(&mut self, id: &str) -> Option<Member> {
        self.remove_pending_member(id);
        self.awaited_syncs.remove(id);
        let member = self.members.remove(id)?;
        self.joining -= usize::from(member.join.is_waiting());
        self.member_bytes -= member.bytes(id.len());
        self.count_offers(&member.protocols, false);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Remembers an id that was handed out, until `lapses_at_ms`.
    pub(crate) fn add_pending_member(&mut self, id: Arc<str>, lapses_at_ms: u64) {
        self.member_bytes += PENDING_MEMBER_BYTES + id.len();
        let before = self.pending_members.insert(id, lapses_at_ms);
        assert!(before.is_none(), "a new id is random");
    }

    pub(crate) fn remove_pending_member(&mut self, id: &str) -> bool {
        let known = self.pending_members.remove(id).is_some();
        if known {
            self.member_bytes -= PENDING_MEMBER_BYTES + id.len();
        }
        known
    }

    /// Gives a static member a new id; everything else about it stays.
    pub(crate) fn rename_member(&mut self, old_id: &str, new_id: Arc<str>) {
        let member = self.members.remove(old_id).expect("static members are members");
        self.member_bytes = self.member_bytes - old_id.len() + new_id.len();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.awaited_syncs.remove(old_id) {
            self.awaited_syncs.insert(new_id.clone());
        }
        self.members.insert(new_id, member);
    }

    /// Replaces what a member offers and its timeouts.
    pub(crate) fn update_member(
        &mut self,
        id: &str,
        protocols: Vec<(Arc<str>, Bytes)>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) {
        let member = self.members.get_mut(id).expect("the caller found this member in the group");
        let bytes_before = member.bytes(id.len());
        let before = std::mem::replace(&mut member.protocols, protocols);
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        let after = member.protocols.clone();
        self.member_bytes = self.member_bytes - bytes_before + member.bytes(id.len());
        self.count_offers(&before, false);
        self.count_offers(&after, true);
    }

    pub(crate) fn set_assignment(&mut self, id: &str, assignment: Bytes) {
        let member = self.members.get_mut(id).expect("the caller found this member in the group");
        self.member_bytes = self.member_bytes - member.assignment.len() + assignment.len();
        member.assignment = assignment;
    }

    fn count_offers(&mut self, protocols: &[(Arc<str>, Bytes)], add: bool) {
        for (name, _) in protocols {
            if add {
                *self.offered.entry(name.clone()).or_default() += 1;
                continue;
            }
            let count = self.offered.get_mut(name).expect("counted when it was offered");
            *count -= 1;
            if *count == 0 {
                self.offered.remove(name);
            }
        }
    }

    /// The answer that takes a member into the current generation. Only the leader gets the list.
    pub(crate) fn join_answer(&self, member_id: &Arc<str>) -> Answer {
        let list = |(id, member): (&Arc<str>, &Member)| JoinedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol_name.as_ref()),
        };
        let leads = self.is_leader(member_id);
        Answer::Join(JoinAnswer {
            error: ErrorCode::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.clone().unwrap_or_else(|| Arc::from("")),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: if leads { self.members.iter().map(list).collect() } else { Vec::new() },
        })
    }

    /// The group as DescribeGroups shows it: metadata only of a Stable group, and the assignments
    /// of the last generation that had any.
    pub(crate) fn describe(&self) -> DescribedGroup {
        let stable = self.state == State::Stable;
        let protocol = if stable { self.protocol_name.as_ref() } else { None };
        let show = |(id, member): (&Arc<str>, &Member)| DescribedMember {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol),
            assignment: member.assignment.clone(),
        };
        let or_empty = |name: Option<&Arc<str>>| name.cloned().unwrap_or_else(|| Arc::from(""));
        DescribedGroup {
            state: self.state,
            protocol_type: or_empty(self.protocol_type.as_ref()),
            protocol_name: or_empty(protocol),
            members: self.members.iter().map(show).collect(),
        }
    }

    /// The next moment at which something happens by itself.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        let members = self.members.values().filter_map(|member| member.deadline_ms);
        let pending = self.pending_members.values().copied();
        let timers = self.join_deadline_ms.into_iter().chain(self.sync_deadline_ms);
        members.chain(pending).chain(timers).min()
    }
}
