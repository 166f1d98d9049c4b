//! ElectLeaders (key 43), versions 0 to 2 (KIP-183, KIP-460): the only replica leads every
//! partition, so no election is ever needed. Null asks for all, of which only changes are told:
//! none.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use millrace_wire::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn handle<I: Io>(shard: &Shard<I>, request: &Request) -> Outcome<I> {
    let body: ElectLeadersRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let not_needed = if body.election_type == PREFERRED {
        "Leader election not needed for topic partition."
    } else {
        "Leader election not needed: the partition has a leader."
    };
    let type_known = matches!(body.election_type, PREFERRED | UNCLEAN);
    let topics = body.topic_partitions.iter().flat_map(|topics| topics.iter());
    let results = topics.map(|topic| {
        let known = shard.image.topic(topic.topic);
        let partitions = topic.partitions.iter().map(|partition_id| {
            let exists = known.and_then(|known| known.partition(partition_id)).is_some();
            let (error, message) = if !type_known {
                (ErrorCode::INVALID_REQUEST, "No such type of election.")
            } else if exists {
                (ErrorCode::ELECTION_NOT_NEEDED, not_needed)
            } else {
                (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, "No such topic or partition.")
            };
            let (error_code, error_message) = (error.code(), Some(message));
            PartitionResult { partition_id, error_code, error_message, ..Default::default() }
        });
        let partition_result = partitions.collect();
        ReplicaElectionResult { topic: topic.topic, partition_result, ..Default::default() }
    });
    let replica_election_results = results.collect();
    let error_code = if type_known { 0 } else { ErrorCode::INVALID_REQUEST.code() };
    let body = ElectLeadersResponse { error_code, replica_election_results, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}
