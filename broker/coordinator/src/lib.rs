//! Consumer groups and committed offsets as pure state machines: no disk, no socket, no clock.
//!
//! [`Groups`] is the entry. A request goes in with the time and a [`WaiterId`]; out come
//! [`Effect`]s: replies, and records that the caller must write to `__consumer_offsets` before it
//! calls [`Groups::persisted`]. The same inputs always give the same effects.
//!
//! - `groups`: the table of groups, its timers and its memory budget; what the caller calls
//! - `group`, `member`: one group's facts, and the questions asked of them
//! - `rebalance`, `membership`: how a group changes: joining, syncing, leaving, timing out
//! - `offsets`: committed offsets, who may commit, what expires
//! - `removal`: how groups and offsets go
//! - `pending`: what waits for a record to be written, and what happens when it is
//! - `record`: the stored form, Kafka's own; `load` replays it
//! - `request`, `effect`, `config`, `limits`: the words spoken with the caller

mod config;
mod effect;
mod group;
mod groups;
mod limits;
mod load;
mod member;
mod membership;
mod offsets;
mod pending;
mod place;
mod rebalance;
mod record;
mod removal;
mod request;
mod subscription;

pub use config::GroupsConfig;
pub use effect::{
    Answer, CommitAnswer, CommittedTopic, DeleteOffsetsAnswer, Effect, JoinAnswer, JoinedMember,
    Now, PersistId, Record, SyncAnswer, WaiterId,
};
pub use group::State;
pub use groups::Groups;
pub use offsets::{CommittedOffset, Offsets};
pub use place::partition_for;
pub use record::RecordError;
pub use request::{
    CommitPartition, CommitRequest, CommitTopic, DescribedGroup, DescribedMember, JoinRequest,
    LeaveAnswer, LeavingMember, LeftMember, ListedGroup, MemberRequest, SyncRequest,
};
