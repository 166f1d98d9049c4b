//! Any bytes as any message: no panic, and what was decoded encodes to what decodes to the same.
//! Input: two bytes choose the message, one the version, the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_wire::{Message, Reader, Writer, for_each_message, for_each_stored};

fn check<'a, M: Message<'a>>(version: u8, body: &'a [u8]) {
    let versions = M::VERSIONS.count() as i16;
    let version = M::VERSIONS.start() + i16::from(version) % versions;
    let Ok(message) = M::decode(&mut Reader::new(body), version) else { return };
    let mut first = Writer::new();
    message.encode(&mut first, version).expect("what a version brought, it can carry");
    // Not compared with the body: a peer may write defaults and long varints.
    encode_again::<M>(version, &first);
}

fn encode_again<'a, M: Message<'a>>(version: i16, first: &'a Writer) {
    let mut reader = Reader::new(first.bytes());
    let message = M::decode(&mut reader, version).expect("what was encoded decodes");
    assert_eq!(reader.remaining(), 0);
    let mut second = Writer::new();
    message.encode(&mut second, version).expect("as before");
    assert_eq!(first.bytes(), second.bytes());
}

type Check = fn(u8, &[u8]);

/// The lifetime of a message is that of the body, which a list of functions cannot name.
macro_rules! row {
    ($message:path, $name:ident) => {{
        fn row(version: u8, body: &[u8]) {
            check::<$message>(version, body);
        }
        row as Check
    }};
}

fuzz_target!(|input: &[u8]| {
    let [high, low, version, body @ ..] = input else { return };
    let chosen = usize::from(*high) << 8 | usize::from(*low);
    let mut rows: Vec<Check> = Vec::with_capacity(300);
    macro_rules! push {
        ($message:path, $name:ident) => {
            rows.push(row!($message, $name));
        };
    }
    for_each_message!(push);
    for_each_stored!(push);
    rows[chosen % rows.len()](*version, body);
});
