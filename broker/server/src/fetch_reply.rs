//! The encoded answer of a finished fetch, with the records spliced in.

use millrace_io::Io;
use millrace_wire::messages::FetchResponse;
use millrace_wire::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use millrace_wire::{Array, ErrorCode, Records};

use crate::fetch::{Fetch, FetchPart, FetchTopic, PartRead};
use crate::request::{Reply, finish_reply};

impl<I: Io> Fetch<I> {
    /// The encoded reply. `session` is its session's id, or that id and why the session cannot go
    /// on; `old` holds the records of each part in an old format, where one is asked.
    pub(crate) fn into_reply(
        self,
        session: Result<i32, (i32, ErrorCode)>,
        old: Option<&[Result<Vec<u8>, ErrorCode>]>,
    ) -> Reply<I> {
        let (session_id, error) = match session {
            Ok(id) => (id, ErrorCode::NONE),
            Err((id, error)) => (id, error),
        };
        let reads = if error == ErrorCode::NONE { self.reads } else { Vec::new() };
        let mut topics: Vec<(&FetchTopic, Vec<PartitionData<'_>>)> = Vec::new();
        let mut payloads = Vec::new();
        for (place, (part, read)) in self.parts.iter().zip(reads).enumerate() {
            let Some(read) = read else { continue };
            let mut data = partition_data(self.is_committed, part, &read);
            match old.map(|old| &old[place]) {
                None => payloads.extend(read.payloads),
                Some(Ok(set)) => data.records = Some(Records::Bytes(set)),
                Some(Err(error)) => {
                    data.error_code = error.code();
                    data.records = Some(Records::Bytes(&[]));
                }
            }
            match topics.last_mut() {
                Some((topic, partitions)) if **topic == *part.topic => partitions.push(data),
                _ => topics.push((&part.topic, vec![data])),
            }
        }
        let topics = topics.into_iter().map(|(topic, partitions)| FetchableTopicResponse {
            topic: &topic.name,
            topic_id: topic.id,
            partitions: partitions.into(),
            ..Default::default()
        });
        let body = FetchResponse {
            session_id,
            error_code: error.code(),
            responses: topics.collect(),
            ..Default::default()
        };
        let mut writer = self.head.start_reply();
        millrace_wire::Message::encode(&body, &mut writer, self.head.version)
            .expect("fields that a version lacks are ignorable");
        finish_reply(writer, payloads)
    }
}

fn partition_data<'a, I: Io>(
    is_committed: bool,
    part: &FetchPart,
    read: &PartRead<I>,
) -> PartitionData<'a> {
    let is_unknown =
        matches!(read.error, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID);
    let mut data = PartitionData {
        partition_index: part.read.id.partition,
        error_code: read.error.code(),
        high_watermark: read.high_watermark,
        last_stable_offset: read.high_watermark,
        log_start_offset: read.log_start,
        // None is aborted: there are no transactions. Null says that nobody asked.
        aborted_transactions: (is_committed || is_unknown).then(Array::default),
        // Empty, never null: null breaks kafka-python and librdkafka.
        records: Some(Records::External(read.bytes())),
        ..Default::default()
    };
    if let Some((epoch, end_offset)) = read.diverging {
        data.diverging_epoch = EpochEndOffset { epoch, end_offset, ..Default::default() };
    }
    data
}
