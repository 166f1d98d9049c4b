//! The encoded answer of a finished fetch, with the records spliced in.

use millrace_io::Io;
use millrace_wire::messages::FetchResponse;
use millrace_wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use millrace_wire::{ErrorCode, Records};

use crate::fetch::{Fetch, FetchPart, PartRead};
use crate::request::{Reply, finish_reply};

impl<I: Io> Fetch<I> {
    /// The encoded reply. `old` holds the records of each part in an old format, where one is
    /// asked.
    pub(crate) fn into_reply(self, old: Option<&[Result<Vec<u8>, ErrorCode>]>) -> Reply<I> {
        let mut topics: Vec<FetchableTopicResponse<'_>> = Vec::with_capacity(self.topics.len());
        let mut payloads = Vec::new();
        let mut reads = self.parts.iter().zip(self.reads).enumerate().peekable();
        for (index, topic) in self.topics.iter().enumerate() {
            let mut partitions = Vec::new();
            while let Some((place, (part, read))) =
                reads.next_if(|(_, (part, _))| part.topic == index)
            {
                let read = read.expect("a finished round has an answer for every part");
                let mut data = partition_data(self.head.version, part, &read);
                match old.map(|old| &old[place]) {
                    None => payloads.extend(read.payloads),
                    Some(Ok(set)) => data.records = Some(Records::Bytes(set)),
                    Some(Err(error)) => {
                        data.error_code = error.code();
                        data.records = Some(Records::Bytes(&[]));
                    }
                }
                partitions.push(data);
            }
            topics.push(FetchableTopicResponse {
                topic: &topic.name,
                topic_id: topic.id,
                partitions: partitions.into(),
                ..Default::default()
            });
        }
        let body = FetchResponse { responses: topics.into(), ..Default::default() };
        let mut writer = self.head.start_reply();
        millrace_wire::Message::encode(&body, &mut writer, self.head.version)
            .expect("fields that a version lacks are ignorable");
        finish_reply(writer, payloads)
    }
}

fn partition_data<'a, I: Io>(
    version: i16,
    part: &FetchPart,
    read: &PartRead<I>,
) -> PartitionData<'a> {
    let mut data = PartitionData {
        partition_index: part.partition,
        error_code: read.error.code(),
        high_watermark: read.high_watermark,
        last_stable_offset: read.high_watermark,
        log_start_offset: read.log_start,
        aborted_transactions: None,
        // Empty, never null: null breaks kafka-python and librdkafka.
        records: Some(Records::External(read.bytes())),
        ..Default::default()
    };
    if let Some((epoch, end_offset)) = read.diverging {
        data.diverging_epoch = EpochEndOffset { epoch, end_offset, ..Default::default() };
    }
    if version >= 12
        && matches!(read.error, ErrorCode::FENCED_LEADER_EPOCH | ErrorCode::UNKNOWN_LEADER_EPOCH)
    {
        data.current_leader =
            LeaderIdAndEpoch { leader_epoch: read.current_leader_epoch, ..Default::default() };
    }
    data
}
