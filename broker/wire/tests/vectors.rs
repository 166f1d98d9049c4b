//! Every vector decodes, has its value, and encodes to the same bytes; every part of it is refused.

use std::fs;

use millrace_wire::json::ToJson;
use millrace_wire::{Message, Reader, Writer, for_each_message, for_each_stored};
use serde_json::Value;

mod support;

fn check<'a, M: Message<'a> + ToJson>(vector: &Value, bytes: &'a [u8]) -> Result<(), String> {
    let version = vector["version"].as_i64().expect("a version") as i16;
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version).map_err(|error| error.to_string())?;
    if reader.remaining() > 0 {
        return Err(format!("{} bytes left", reader.remaining()));
    }
    let value = message.to_json(version);
    if value != vector["value"] {
        return Err(format!("decoded as {value}"));
    }
    let mut writer = Writer::new();
    message.encode(&mut writer, version).map_err(|error| error.to_string())?;
    if writer.bytes() != bytes {
        return Err(format!("encoded as {:02x?}", writer.bytes()));
    }
    match (0..bytes.len()).find(|end| M::decode(&mut Reader::new(&bytes[..*end]), version).is_ok())
    {
        Some(end) => Err(format!("its first {end} bytes decode too")),
        None => Ok(()),
    }
}

fn check_named(of: &str, vector: &Value, bytes: &[u8]) -> Result<(), String> {
    macro_rules! arm {
        ($message:path, $name:ident) => {
            if of == stringify!($name) {
                return check::<$message>(vector, bytes);
            }
        };
    }
    for_each_message!(arm);
    for_each_stored!(arm);
    Err("no such message".to_owned())
}

#[test]
fn every_vector_decodes_to_its_value_and_encodes_to_its_bytes() {
    let mut failures = Vec::new();
    let mut count = 0;
    for (of, vector) in support::vectors() {
        if of == "records" {
            continue;
        }
        count += 1;
        let bytes = support::unhex(&vector["hex"]);
        if let Err(failure) = check_named(&of, &vector, &bytes) {
            failures.push(format!("{of}: {failure}\n  {vector}"));
        }
    }
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
    assert!(count >= 2851, "{count} vectors");
}

#[test]
fn the_packed_vectors_are_those_of_the_folder() {
    let Some(folder) = support::folder() else { return };
    let lines: Vec<String> =
        support::from_folder(&folder).iter().map(|(_, vector)| format!("{vector}\n")).collect();
    if std::env::var_os("MILLRACE_BLESS").is_some() {
        let packed = zstd::encode_all(lines.concat().as_bytes(), 19).expect("memory");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/vectors.jsonl.zst");
        fs::write(path, packed).expect("the source tree is writable");
    }
    let packed = support::packed();
    assert!(packed == support::from_folder(&folder), "run with MILLRACE_BLESS=1 to pack anew");
}
