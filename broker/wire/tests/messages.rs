//! Messages by hand: defaults, versions, tagged fields, splices, and bytes that are no message.

use millrace_wire::codec::Wire;
use millrace_wire::messages::{
    ApiVersionsRequest, FetchResponse, ProduceRequest, RequestHeader, fetch_response,
    produce_request,
};
use millrace_wire::{DecodeError, EncodeError, Message, Reader, Records, Splice, Uuid, Writer};

fn encode<'a, M: Message<'a>>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("a message that fits its version");
    writer.into_vec()
}

fn produce(records: &[u8]) -> ProduceRequest<'_> {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition = PartitionProduceData {
        index: 3,
        records: Some(Records::Bytes(records)),
        ..Default::default()
    };
    let topic = TopicProduceData {
        name: "orders",
        partition_data: vec![partition].into(),
        ..Default::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic].into(),
        ..Default::default()
    }
}

#[test]
fn a_decoded_message_equals_the_one_encoded() {
    for version in 3..=12 {
        let bytes = encode(&produce(b"batch"), version);
        let mut reader = Reader::new(&bytes);
        let decoded = ProduceRequest::decode(&mut reader, version).expect("what was just encoded");
        assert_eq!(reader.remaining(), 0);
        assert_eq!(decoded, produce(b"batch"));
        let topic = decoded.topic_data.first().expect("one topic");
        assert_eq!(topic.partition_data.first().expect("one partition").index, 3);
    }
}

#[test]
fn a_field_the_version_lacks_is_refused_unless_ignorable() {
    let message = ProduceRequest { transactional_id: Some("t"), ..produce(b"") };
    let field = "ProduceRequest.TransactionalId";
    let refused = message.encode(&mut Writer::new(), 2);
    assert_eq!(refused, Err(EncodeError::Absent { field, version: 2 }));
    let refused = message.encode(&mut Writer::new(), 14);
    assert_eq!(refused, Err(EncodeError::Version { message: "ProduceRequest", version: 14 }));
    // A topic's name is ignorable in version 13, which has ids.
    encode(&produce(b""), 13);
}

#[test]
fn unknown_tags_are_kept_and_written_between_the_known() {
    // ApiVersionsRequest 3 with tags 2 and 70.
    let bytes = [2, b'a', 2, b'1', 2, 2, 1, 9, 70, 0];
    let decoded = ApiVersionsRequest::decode(&mut Reader::new(&bytes), 3).expect("valid");
    assert_eq!(decoded.unknown_tags.iter().collect::<Vec<_>>(), [(2, &[9][..]), (70, &[])]);
    assert_eq!(encode(&decoded, 3), bytes);
}

#[test]
fn external_records_leave_a_splice() {
    let partition = fetch_response::PartitionData {
        records: Some(Records::External(1000)),
        ..Default::default()
    };
    let topic = fetch_response::FetchableTopicResponse {
        topic_id: Uuid::from_halves(1, 2),
        partitions: vec![partition; 2].into(),
        ..Default::default()
    };
    let response = FetchResponse { responses: vec![topic].into(), ..Default::default() };
    let mut writer = Writer::new();
    response.encode(&mut writer, 13).expect("it fits version 13");
    let tail = writer.bytes().len() - 3;
    let between = tail - writer.splices()[0].position;
    assert_eq!(writer.splices()[1], Splice { position: tail, bytes: 1000 });
    assert_eq!(writer.bytes_with_splices(), writer.bytes().len() + 2000);

    let mut whole = writer.bytes()[..tail - between].to_vec();
    whole.extend([7; 1000]);
    whole.extend(&writer.bytes()[tail - between..tail]);
    whole.extend([7; 1000]);
    whole.extend(&writer.bytes()[tail..]);
    let decoded = FetchResponse::decode(&mut Reader::new(&whole), 13).expect("spliced");
    for partition in &decoded.responses.first().expect("one topic").partitions {
        assert_eq!(partition.records, Some(Records::Bytes(&[7; 1000])));
    }
}

#[test]
fn a_client_id_is_a_classic_string_in_every_header() {
    let header = RequestHeader { client_id: Some("c"), correlation_id: 7, ..Default::default() };
    assert_eq!(encode(&header, 1), [0, 0, 0, 0, 0, 0, 0, 7, 0, 1, b'c']);
    assert_eq!(encode(&header, 2), [0, 0, 0, 0, 0, 0, 0, 7, 0, 1, b'c', 0]);
}

#[test]
fn counts_beyond_the_frame_are_refused_at_once() {
    let check = |bytes: &[u8], version, expected| {
        let decoded = ProduceRequest::decode(&mut Reader::new(bytes), version);
        assert_eq!(decoded, Err(expected), "{bytes:x?}");
    };
    let least = <produce_request::TopicProduceData<'_> as Wire<'_>>::BYTES_MIN;
    let two_billion = i32::MAX as usize;
    let needed = two_billion * least;
    check(
        &[0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        0,
        DecodeError::Truncated { needed, left: 0 },
    );
    check(&[0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe], 0, DecodeError::Length(-2));
    check(&[0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], 0, DecodeError::Null);
    check(&[0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x1f], 9, DecodeError::Varint);
    check(&[], 0, DecodeError::Truncated { needed: 2, left: 0 });
}
