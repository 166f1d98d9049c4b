//! OffsetForLeaderEpoch (key 23), versions 0 to 4 (KIP-101, KIP-320): where the records of a leader
//! epoch end, so that a consumer sees whether what it read is still there.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use millrace_wire::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::fetch::check_epoch;
use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// One partition asked for. `place` is its place in the request.
struct Asked {
    place: usize,
    id: PartitionId,
    current_epoch: i32,
    epoch: i32,
}

/// Epoch and end; -1 and -1 when the log knows nothing of the epoch.
type Found = Result<(i32, i64), ErrorCode>;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: OffsetForLeaderEpochRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut asked = Vec::new();
    let mut found: Vec<Found> = Vec::new();
    for topic in body.topics.iter() {
        let known = shard.image.topic(topic.topic);
        for part in topic.partitions.iter() {
            let place = found.len();
            found.push(Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
            if let Some(known) = known
                && known.partition(part.partition).is_some()
            {
                asked.push(Asked {
                    place,
                    id: PartitionId { topic_id: known.id, partition: part.partition },
                    current_epoch: part.current_leader_epoch,
                    epoch: part.leader_epoch,
                });
            }
        }
    }
    let request = request.detach();
    shard.gather(
        asked,
        |asked| asked.id,
        |shard, asked| (asked.place, look_up(shard, &asked)),
        move |shard, answers| {
            for (place, answer) in answers {
                found[place] = answer;
            }
            let reply = request.head.reply(&response(&request, &found));
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

fn look_up<I: Io>(shard: &mut Shard<I>, asked: &Asked) -> Found {
    let index = shard.open_partition(asked.id)?;
    let partition = shard.partitions.get_mut(index).expect("opened just now");
    if let Some(error) = check_epoch(asked.current_epoch, partition.leader_epoch) {
        return Err(error);
    }
    let log = partition.log.as_ref().expect("opened just now");
    let (epoch, end) = match log.end_offset_for_epoch(asked.epoch) {
        // Nothing was written in the present epoch yet: it is known all the same.
        None if asked.epoch == partition.leader_epoch => (asked.epoch, log.high_watermark()),
        None => (-1, -1),
        Some((epoch, end)) => (epoch, end.min(log.high_watermark())),
    };
    Ok((epoch, end))
}

fn response<'a>(request: &'a Request, found: &[Found]) -> OffsetForLeaderEpochResponse<'a> {
    let body: OffsetForLeaderEpochRequest<'a> = request.decode().expect("decoded before");
    let mut found = found.iter();
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut found).map(|(part, found)| {
            let (leader_epoch, end_offset) = found.unwrap_or((-1, -1));
            EpochEndOffset {
                error_code: found.err().map_or(0, ErrorCode::code),
                partition: part.partition,
                leader_epoch,
                end_offset,
                ..Default::default()
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult { topic: topic.topic, partitions, ..Default::default() }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..Default::default() }
}
