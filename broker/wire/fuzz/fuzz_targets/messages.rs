//! Any bytes as any message: no panic, and what was decoded encodes to what decodes to the same.
//! Input: two bytes choose the message, one the version, the rest is the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_wire::{Message, Reader, Writer, for_each_message, for_each_stored};

fn version_of<'a, M: Message<'a>>(version: u8) -> i16 {
    let versions = M::VERSIONS.count() as i16;
    M::VERSIONS.start() + i16::from(version) % versions
}

/// What the body encodes to once decoded. It need not be the body: a peer may write defaults and
/// long varints.
fn encoded<'a, M: Message<'a>>(version: i16, body: &'a [u8]) -> Option<Vec<u8>> {
    let message = M::decode(&mut Reader::new(body), version).ok()?;
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("what a version brought, it can carry");
    Some(writer.into_vec())
}

type Check = fn(u8, &[u8]);

/// A function of its own, since the lifetime of a message is that of the bytes it came from.
macro_rules! row {
    ($message:path, $name:ident) => {{
        fn row(version: u8, body: &[u8]) {
            let version = version_of::<$message>(version);
            let Some(first) = encoded::<$message>(version, body) else { return };
            let second = encoded::<$message>(version, &first);
            assert_eq!(second.as_ref(), Some(&first));
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
