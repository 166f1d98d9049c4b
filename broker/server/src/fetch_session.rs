//! Fetch sessions (KIP-227): what a client has said once it need not say again, and partitions
//! without news are left out of its answers. Pure: handed the time and random numbers.
//!
//! A session lives on the shard that its id names, and survives its connection. Source of the
//! rules: Kafka's `FetchSession`, whose privileged sessions (of followers) do not exist here.

use std::collections::HashMap;
use std::sync::Arc;

use millrace_io::Instant;
use millrace_wire::ErrorCode;
use slab::Slab;

use crate::fetch::{FetchPart, FetchTopic};
use crate::limits;

/// A session that old, or unused for so long, may have to make room (KIP-227).
const EVICTABLE_AFTER_MS: u64 = 120_000;

/// The longest name that a topic can have. What is longer is in no session: it would only take
/// memory.
const NAME_BYTES_MAX: usize = 249;

/// Names a partition within a session.
pub(crate) type PartKey = (Arc<FetchTopic>, i32);

/// What a fetch means for sessions once its answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// There is none, and none is wanted.
    None,
    /// One is made of the answer if there is room.
    Wanted { by_topic_id: bool },
    /// The answer belongs to it and leaves out what is not new; `epoch` is that of the request
    /// after this one.
    Continued { id: i32, epoch: i32 },
}

/// What one partition of an answer says, as far as sessions care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) has_records: bool,
    /// An error, or an epoch that left ours: told every time.
    pub(crate) is_urgent: bool,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
}

/// How a request names its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) id: i32,
    pub(crate) epoch: i32,
    pub(crate) by_topic_id: bool,
}

/// The sessions of one shard.
pub(crate) struct Sessions {
    kept: HashMap<i32, Kept>,
    shard: usize,
    shards: usize,
    slots: usize,
}

struct Kept {
    /// Of the next request.
    epoch: i32,
    by_topic_id: bool,
    entries: Slab<Entry>,
    places: HashMap<PartKey, usize>,
    /// Keys of `entries` in the order in which partitions are read.
    order: Vec<usize>,
    created: Instant,
    used: Instant,
}

struct Entry {
    part: FetchPart,
    /// As the client was told; -1 when it must be told again.
    high_watermark: i64,
    log_start: i64,
}

/// The shard that keeps a session.
pub(crate) fn owner(id: i32, shards: usize) -> usize {
    id.unsigned_abs() as usize % shards
}

impl Asked {
    /// The request lists all it wants, and ends the session it names.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.epoch, -1 | 0)
    }
}

impl Sessions {
    /// A shard's share of the broker's `slots`.
    pub(crate) fn new(slots: usize, shard: usize, shards: usize) -> Self {
        let slots = slots / shards + usize::from(shard < slots % shards);
        Self { kept: HashMap::new(), shard, shards, slots }
    }

    /// Ends a session.
    pub(crate) fn close(&mut self, id: i32) {
        self.kept.remove(&id);
    }

    /// Takes in a request: which partitions to read, and what becomes of its session.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        asked: Asked,
        wanted: Vec<FetchPart>,
        forgotten: &[PartKey],
    ) -> Result<(Session, Vec<FetchPart>), ErrorCode> {
        let Asked { id, epoch, by_topic_id } = asked;
        if asked.is_full() {
            self.close(id);
            let session = if epoch == 0 { Session::Wanted { by_topic_id } } else { Session::None };
            return Ok((session, wanted));
        }
        let session = self.kept.get_mut(&id).ok_or(ErrorCode::FETCH_SESSION_ID_NOT_FOUND)?;
        if session.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        if session.by_topic_id != by_topic_id {
            return Err(ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR);
        }
        if !wanted.iter().all(can_be_kept) {
            self.close(id);
            return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        }
        let before = session.order.len();
        wanted.iter().for_each(|part| session.want(part.clone(), None));
        session.forget(forgotten);
        if session.order.is_empty() {
            self.close(id);
            return Ok((Session::None, wanted));
        }
        session.epoch = epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        let next = Session::Continued { id, epoch: session.epoch };
        let parts = session.order.iter().map(|place| session.entries[*place].part.clone());
        let parts: Vec<FetchPart> = parts.collect();
        if parts.len() > before && self.parts() > limits::SESSION_PARTITIONS {
            self.close(id);
            return Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND);
        }
        Ok((next, parts))
    }

    /// Makes a session of an answered full request; its id, or 0 if there is no room.
    pub(crate) fn open<'a>(
        &mut self,
        now: Instant,
        mut random: impl FnMut() -> u64,
        by_topic_id: bool,
        answered: impl ExactSizeIterator<Item = (&'a FetchPart, News)> + Clone,
    ) -> i32 {
        if !answered.clone().all(|(part, _)| can_be_kept(part))
            || self.parts() + answered.len() > limits::SESSION_PARTITIONS
            || (self.kept.len() >= self.slots && !self.evict(now, answered.len()))
        {
            return 0;
        }
        let mut session = Kept {
            epoch: 1,
            by_topic_id,
            entries: Slab::with_capacity(answered.len()),
            places: HashMap::with_capacity(answered.len()),
            order: Vec::with_capacity(answered.len()),
            created: now,
            used: now,
        };
        answered.for_each(|(part, news)| session.want(part.clone(), Some(news)));
        loop {
            let number = (random() % (i32::MAX as u64)) as usize;
            let id = i32::try_from(number / self.shards * self.shards + self.shard).unwrap_or(0);
            if id > 0 && !self.kept.contains_key(&id) {
                self.kept.insert(id, session);
                return id;
            }
        }
    }

    /// Notes what an answer tells, partition by partition in the order that [`Sessions::begin`]
    /// gave; returns which of them belong into it. Partitions with records come last next time, so
    /// that each gets its turn when an answer cannot hold all.
    pub(crate) fn settle(
        &mut self,
        id: i32,
        epoch: i32,
        found: &[News],
    ) -> Result<Vec<bool>, ErrorCode> {
        // A session that had to make room meanwhile: its last answer tells everything.
        let Some(session) = self.kept.get_mut(&id) else { return Ok(vec![true; found.len()]) };
        if session.epoch != epoch {
            return Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH);
        }
        let order = std::mem::take(&mut session.order);
        let told = order.iter().zip(found).map(|(place, news)| session.entries[*place].tell(*news));
        let told = told.collect();
        let rows = || order.iter().zip(found);
        let with = |has: bool| rows().filter(move |(_, news)| news.has_records == has);
        session.order = with(false).chain(with(true)).map(|(place, _)| *place).collect();
        Ok(told)
    }

    /// Partitions of all sessions.
    fn parts(&self) -> usize {
        self.kept.values().map(|session| session.order.len()).sum()
    }

    /// Makes room for a session of so many partitions: by one long unused, else by the smallest of
    /// the old ones if it is smaller.
    fn evict(&mut self, now: Instant, parts: usize) -> bool {
        let unused = self.kept.iter().min_by_key(|(_, session)| session.used);
        let unused = unused.filter(|(_, session)| now.ms_since(session.used) > EVICTABLE_AFTER_MS);
        let old = |session: &Kept| session.used.ms_since(session.created) > EVICTABLE_AFTER_MS;
        let smallest = || {
            let old = self.kept.iter().filter(|(_, session)| old(session));
            let smallest = old.min_by_key(|(_, session)| session.order.len());
            smallest.filter(|(_, session)| session.order.len() < parts)
        };
        let Some(id) = unused.or_else(smallest).map(|(id, _)| *id) else { return false };
        self.close(id);
        true
    }
}

fn can_be_kept(part: &FetchPart) -> bool {
    part.topic.name.len() <= NAME_BYTES_MAX
}

impl Kept {
    /// Adds a partition, or changes what is wanted of it.
    fn want(&mut self, part: FetchPart, told: Option<News>) {
        let key = (Arc::clone(&part.topic), part.read.id.partition);
        if let Some(place) = self.places.get(&key) {
            self.entries[*place].part = part;
            return;
        }
        let (high_watermark, log_start) =
            told.map_or((-1, -1), |news| (news.high_watermark, news.log_start));
        let place = self.entries.insert(Entry { part, high_watermark, log_start });
        self.places.insert(key, place);
        self.order.push(place);
    }

    fn forget(&mut self, forgotten: &[PartKey]) {
        let gone = forgotten.iter().filter_map(|key| self.places.remove(key));
        let gone: Vec<Entry> = gone.map(|place| self.entries.remove(place)).collect();
        if !gone.is_empty() {
            self.order.retain(|place| self.entries.contains(*place));
        }
    }
}

impl Entry {
    /// Whether the client must be told, and notes that it was.
    fn tell(&mut self, news: News) -> bool {
        let same = (self.high_watermark, self.log_start) == (news.high_watermark, news.log_start);
        // An error makes the partition news again once it is over.
        self.high_watermark = if news.is_urgent { -1 } else { news.high_watermark };
        self.log_start = news.log_start;
        news.has_records || news.is_urgent || !same
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::Uuid;

    use super::*;
    use crate::fetch::PartToRead;
    use crate::partitions::PartitionId;

    const QUIET: News =
        News { has_records: false, is_urgent: false, high_watermark: 5, log_start: 0 };
    const RECORDS: News = News { has_records: true, ..QUIET };
    const FAILED: News =
        News { is_urgent: true, high_watermark: -1, log_start: -1, has_records: false };

    fn part(topic: &str, partition: i32, offset: i64) -> FetchPart {
        let topic = Arc::new(FetchTopic { name: topic.into(), id: Uuid::ZERO });
        let id = PartitionId { topic_id: Uuid::ZERO, partition };
        let read = PartToRead {
            id,
            offset,
            bytes_max: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        };
        FetchPart { topic, read, error: None }
    }

    fn key(topic: &str, partition: i32) -> PartKey {
        (part(topic, partition, 0).topic, partition)
    }

    fn at(ms: u64) -> Instant {
        Instant::default().plus_ms(ms)
    }

    fn asked(id: i32, epoch: i32) -> Asked {
        Asked { id, epoch, by_topic_id: false }
    }

    /// Opens a session of so many partitions of the topic `t`, from offset 0, on a quiet log.
    fn open(sessions: &mut Sessions, now: Instant, count: i32) -> i32 {
        let parts: Vec<FetchPart> = (0..count).map(|number| part("t", number, 0)).collect();
        let mut random = sessions.kept.len() as u64 * 2;
        let random = || {
            random += 2;
            random
        };
        sessions.open(now, random, false, parts.iter().map(|part| (part, QUIET)))
    }

    fn numbers(parts: &[FetchPart]) -> Vec<i32> {
        parts.iter().map(|part| part.read.id.partition).collect()
    }

    #[test]
    fn names_that_no_topic_has_are_in_no_session() {
        let mut sessions = Sessions::new(10, 0, 1);
        let id = open(&mut sessions, at(0), 1);
        let long = part(&"n".repeat(250), 0, 0);
        let answered = [part("t", 0, 0), long.clone()];
        let answered = answered.iter().map(|part| (part, QUIET));
        assert_eq!(sessions.open(at(1), || 2, false, answered), 0);
        let refused = sessions.begin(at(1), asked(id, 1), vec![long], &[]);
        assert_eq!(refused, Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
    }

    #[test]
    fn what_was_said_once_need_not_be_said_again() {
        let mut sessions = Sessions::new(10, 0, 1);
        let id = open(&mut sessions, at(0), 3);
        let (next, parts) =
            sessions.begin(at(1), asked(id, 1), vec![part("t", 1, 7)], &[]).expect("epoch 1");
        assert_eq!(next, Session::Continued { id, epoch: 2 });
        assert_eq!(parts, [part("t", 0, 0), part("t", 1, 7), part("t", 2, 0)]);
        let new = vec![part("u", 0, 0)];
        let (_, parts) =
            sessions.begin(at(1), asked(id, 2), new, &[key("t", 1), key("v", 1)]).expect("epoch 2");
        assert_eq!(parts, [part("t", 0, 0), part("t", 2, 0), part("u", 0, 0)]);
        let all = [key("t", 0), key("t", 2), key("u", 0)];
        let (ended, parts) = sessions.begin(at(1), asked(id, 3), Vec::new(), &all).expect("3");
        assert_eq!((ended, parts), (Session::None, Vec::new()));
        let gone = sessions.begin(at(1), asked(id, 4), Vec::new(), &[]);
        assert_eq!(gone, Err(ErrorCode::FETCH_SESSION_ID_NOT_FOUND));
    }

    #[test]
    fn refuses_as_kafka_does() {
        let by_id = |asked| Asked { by_topic_id: true, ..asked };
        let rows = [
            (asked(0, 1), ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            (asked(1, 1), ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
            (asked(2, 2), ErrorCode::INVALID_FETCH_SESSION_EPOCH),
            (asked(2, -7), ErrorCode::INVALID_FETCH_SESSION_EPOCH),
            (by_id(asked(2, 1)), ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR),
        ];
        for (asked, error) in rows {
            let mut sessions = Sessions::new(10, 0, 1);
            assert_eq!(open(&mut sessions, at(0), 1), 2);
            assert_eq!(sessions.begin(at(1), asked, Vec::new(), &[]), Err(error), "{asked:?}");
        }
    }

    #[test]
    fn a_full_request_ends_the_session_it_names() {
        for (epoch, then) in [(0, Session::Wanted { by_topic_id: false }), (-1, Session::None)] {
            let mut sessions = Sessions::new(10, 0, 1);
            let id = open(&mut sessions, at(0), 1);
            let wanted = vec![part("t", 0, 3)];
            let begun = sessions.begin(at(1), asked(id, epoch), wanted.clone(), &[]);
            assert_eq!(begun, Ok((then, wanted)));
            assert!(sessions.kept.is_empty());
        }
    }

    #[test]
    fn a_partition_is_left_out_until_there_is_news() {
        let rows = [
            (QUIET, false),
            (RECORDS, true),
            (QUIET, false),
            (News { high_watermark: 6, ..QUIET }, true),
            (News { high_watermark: 6, ..QUIET }, false),
            (News { high_watermark: 6, log_start: 1, ..QUIET }, true),
            (FAILED, true),
            (FAILED, true),
            (QUIET, true),
            (QUIET, false),
        ];
        let mut sessions = Sessions::new(10, 0, 1);
        let id = open(&mut sessions, at(0), 1);
        for (epoch, (news, told)) in (1..).zip(rows) {
            sessions.begin(at(1), asked(id, epoch), Vec::new(), &[]).expect("the next epoch");
            assert_eq!(sessions.settle(id, epoch + 1, &[news]), Ok(vec![told]), "epoch {epoch}");
        }
        let late = sessions.settle(id, 3, &[RECORDS]);
        assert_eq!(late, Err(ErrorCode::INVALID_FETCH_SESSION_EPOCH));
        sessions.close(id);
        assert_eq!(sessions.settle(id, 3, &[QUIET]), Ok(vec![true]), "closed meanwhile");
    }

    #[test]
    fn partitions_that_brought_records_come_last_next_time() {
        let mut sessions = Sessions::new(10, 0, 1);
        let id = open(&mut sessions, at(0), 4);
        let rows = [
            ([RECORDS, QUIET, RECORDS, QUIET], [1, 3, 0, 2]),
            ([QUIET, RECORDS, QUIET, QUIET], [1, 0, 2, 3]),
        ];
        for (epoch, (news, order)) in (1..).zip(rows) {
            sessions.begin(at(1), asked(id, epoch), Vec::new(), &[]).expect("the next epoch");
            sessions.settle(id, epoch + 1, &news).expect("nobody came between");
            let kept = &sessions.kept[&id];
            let parts: Vec<_> =
                kept.order.iter().map(|at| kept.entries[*at].part.clone()).collect();
            assert_eq!(numbers(&parts), order);
        }
    }

    #[test]
    fn old_or_small_sessions_make_room() {
        // (created, used, partitions) of the two kept, the newcomer's partitions, who goes
        const MINUTE: u64 = 60_000;
        type Row = ([(u64, u64, i32); 2], i32, Option<usize>);
        let rows: [Row; 6] = [
            ([(0, 0, 9), (0, 9 * MINUTE, 1)], 1, Some(0)),
            ([(0, 9 * MINUTE, 3), (0, 9 * MINUTE, 2)], 4, Some(1)),
            ([(0, 9 * MINUTE, 3), (0, 9 * MINUTE, 2)], 3, Some(1)),
            ([(0, 9 * MINUTE, 3), (0, 9 * MINUTE, 2)], 2, None),
            ([(8 * MINUTE, 9 * MINUTE, 1), (0, 9 * MINUTE, 2)], 3, Some(1)),
            ([(8 * MINUTE, 9 * MINUTE, 1), (8 * MINUTE, 9 * MINUTE, 1)], 9, None),
        ];
        for (kept, newcomer, gone) in rows {
            let mut sessions = Sessions::new(2, 0, 1);
            let ids = kept.map(|(created, used, count)| {
                let id = open(&mut sessions, at(created), count);
                sessions.begin(at(used), asked(id, 1), Vec::new(), &[]).expect("epoch 1");
                id
            });
            let id = open(&mut sessions, at(10 * MINUTE), newcomer);
            assert_eq!(id != 0, gone.is_some(), "{kept:?}");
            let missing = ids.iter().position(|id| !sessions.kept.contains_key(id));
            assert_eq!(missing, gone, "{kept:?}");
        }
    }

    #[test]
    fn ids_name_the_shard_and_slots_are_shared_out() {
        for shard in 0..3 {
            let mut sessions = Sessions::new(7, shard, 3);
            assert_eq!(sessions.slots, [3, 2, 2][shard]);
            for _ in 0..2 {
                assert_eq!(owner(open(&mut sessions, at(0), 1), 3), shard);
            }
        }
        assert_eq!(open(&mut Sessions::new(0, 0, 1), at(0), 1), 0, "no slots, no sessions");
    }

    #[test]
    fn the_epoch_after_the_largest_is_1() {
        let mut sessions = Sessions::new(1, 0, 1);
        let id = open(&mut sessions, at(0), 1);
        sessions.kept.get_mut(&id).expect("just opened").epoch = i32::MAX;
        let (next, _) = sessions.begin(at(1), asked(id, i32::MAX), Vec::new(), &[]).expect("max");
        assert_eq!(next, Session::Continued { id, epoch: 1 });
    }
}
