//! The topics inside a consumer's subscription metadata.
//!
//! The broker forwards these bytes unread, whatever they are. It only peeks at the topics, to know
//! which offsets are in use: `version i16, topics []string, …`, the prefix that all versions share
//! (Kafka: `ConsumerProtocolSubscription`, read as version 0 whatever the version says).

use std::collections::BTreeSet;
use std::sync::Arc;

/// Adds the topics of `metadata` to `topics`; `None` when the bytes are not such a subscription.
pub(crate) fn read_topics(metadata: &[u8], topics: &mut BTreeSet<Arc<str>>) -> Option<()> {
    let (version, mut rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let count = take_i32(&mut rest)?;
    // Each name takes two bytes at least: a count beyond the bytes left fails before any work.
    if count < 0 || count as usize > rest.len() / 2 {
        return None;
    }
    for _ in 0..count {
        let (bytes, tail) = rest.split_first_chunk::<2>()?;
        let bytes = usize::try_from(i16::from_be_bytes(*bytes)).ok()?;
        let (name, tail) = tail.split_at_checked(bytes)?;
        topics.insert(Arc::from(std::str::from_utf8(name).ok()?));
        rest = tail;
    }
    // User data: its length must fit, its bytes are not looked at. Null is -1.
    let bytes = take_i32(&mut rest)?;
    (bytes < 0 || bytes as usize <= rest.len()).then_some(())
}

fn take_i32(rest: &mut &[u8]) -> Option<i32> {
    let (bytes, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(i32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::read_topics;

    #[test]
    fn reads_topics_and_refuses_everything_else() {
        type Row = (&'static str, &'static [u8], Option<&'static [&'static str]>);
        let rows: [Row; 11] = [
            ("v0, one topic", b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff", Some(&["t"])),
            ("v3 with more fields", b"\0\x03\0\0\0\x01\0\x01t\0\0\0\x01u\0\0\0\0", Some(&["t"])),
            ("no topics", b"\0\0\0\0\0\0\0\0\0\0", Some(&[])),
            ("empty bytes", b"", None),
            ("not a subscription", b"hello world", None),
            ("negative version", b"\xff\xff\0\0\0\0\0\0\0\0", None),
            ("count of a gigabyte", b"\0\0\x7f\xff\xff\xff\0\x01t", None),
            ("name beyond the end", b"\0\0\0\0\0\x01\0\x09t", None),
            ("name is not UTF-8", b"\0\0\0\0\0\x01\0\x01\xff\0\0\0\0", None),
            ("user data missing", b"\0\0\0\0\0\x01\0\x01t", None),
            ("user data beyond the end", b"\0\0\0\0\0\x01\0\x01t\0\0\0\x09", None),
        ];
        for (name, bytes, expected) in rows {
            let mut topics = BTreeSet::new();
            let read = read_topics(bytes, &mut topics).map(|()| topics);
            let read = read.as_ref().map(|topics| topics.iter().map(|t| &**t).collect::<Vec<_>>());
            assert_eq!(read.as_deref(), expected, "{name}");
        }
    }
}
