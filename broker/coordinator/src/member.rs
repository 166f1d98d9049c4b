//! One member of a group, as the broker knows it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::WaiterId;
use crate::limits::MEMBER_BYTES;
use crate::request::JoinRequest;

/// Whether a request of the member is parked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Parked {
    /// None is.
    #[default]
    No,
    /// This one is.
    Waiter(WaiterId),
    /// One was, and its connection died: the member still counts as waiting, but nobody is told.
    Orphan,
}

impl Parked {
    /// Whether the member waits, heard or not.
    pub(crate) fn is_waiting(self) -> bool {
        self != Self::No
    }

    /// Ends the wait; the waiter to answer, when there still is one.
    pub(crate) fn take(&mut self) -> Option<WaiterId> {
        match std::mem::take(self) {
            Self::Waiter(waiter) => Some(waiter),
            Self::No | Self::Orphan => None,
        }
    }
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// Names and metadata, best first; no name twice.
    pub(crate) protocols: Vec<(Arc<str>, Bytes)>,
    pub(crate) assignment: Bytes,
    pub(crate) join: Parked,
    pub(crate) sync: Parked,
    /// It has not been part of a finished rebalance yet, so it cannot send heartbeats.
    pub(crate) is_new: bool,
    /// When it counts as dead unless heard of; none while a parked request keeps it alive.
    pub(crate) deadline_ms: Option<u64>,
}

impl Member {
    pub(crate) fn new(request: &JoinRequest<'_>) -> Self {
        Self {
            instance_id: request.instance_id.map(Arc::from),
            client_id: Arc::from(request.client_id),
            client_host: Arc::from(request.client_host),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: own_protocols(request.protocols),
            assignment: Bytes::new(),
            join: Parked::No,
            sync: Parked::No,
            is_new: true,
            deadline_ms: None,
        }
    }

    /// Whether the request offers the same protocols with the same metadata, in the same order.
    pub(crate) fn matches(&self, protocols: &[(&str, &[u8])]) -> bool {
        self.protocols.len() == protocols.len()
            && self
                .protocols
                .iter()
                .zip(protocols)
                .all(|((name, metadata), (other, bytes))| **name == **other && metadata == bytes)
    }

    /// The member's metadata for `protocol`; empty when it does not offer it.
    pub(crate) fn metadata(&self, protocol: Option<&Arc<str>>) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| Some(name) == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    /// Whether silence is excused: a known member that is parked needs no heartbeats, while a new
    /// one may be gone for good, and an orphan is known to be cut off.
    pub(crate) fn may_be_silent(&self) -> bool {
        let parked = |wait: Parked| matches!(wait, Parked::Waiter(_));
        !self.is_new && (parked(self.join) || parked(self.sync))
    }

    /// What the member is charged in the memory budget, for an id of `id_bytes`.
    pub(crate) fn bytes(&self, id_bytes: usize) -> usize {
        let protocols: usize =
            self.protocols.iter().map(|(name, data)| name.len() + data.len()).sum();
        let instance = self.instance_id.as_ref().map_or(0, |id| id.len());
        let strings = id_bytes + instance + self.client_id.len() + self.client_host.len();
        MEMBER_BYTES + strings + protocols + self.assignment.len()
    }
}

/// Copies the protocols out of the request; of two with one name the first counts.
pub(crate) fn own_protocols(protocols: &[(&str, &[u8])]) -> Vec<(Arc<str>, Bytes)> {
    let mut seen = HashSet::with_capacity(protocols.len());
    protocols
        .iter()
        .filter(|(name, _)| seen.insert(*name))
        .map(|(name, metadata)| (Arc::from(*name), Bytes::copy_from_slice(metadata)))
        .collect()
}
