//! The vectors: bytes that Kafka's own classes wrote, with their values.

use std::path::{Path, PathBuf};
use std::{env, fs};

use millrace_wire::compression::Compression;
use serde_json::Value;

/// All vectors in one file: a JSON object a line, each with the `name` of its message.
const PACKED: &[u8] = include_bytes!("../../testdata/vectors.jsonl.zst");
const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// The vectors of all messages and records, and those of batches under the name `records`; read
/// from the folder that describes the protocol where there is one, else from the packed copy.
pub(crate) fn vectors() -> Vec<(String, Value)> {
    match folder() {
        Some(folder) => from_folder(&folder),
        None => packed(),
    }
}

pub(crate) fn packed() -> Vec<(String, Value)> {
    let mut text = Vec::new();
    Compression::Zstd
        .decompress(PACKED, UNPACKED_BYTES_MAX, &mut text)
        .expect("it was packed here");
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let vector: Value = serde_json::from_slice(line).expect("a JSON object a line");
            (vector["of"].as_str().expect("its message").to_owned(), vector)
        })
        .collect()
}

/// `vectors/` of the protocol data: under `MILLRACE_SHARED`, else beside the workspace.
pub(crate) fn folder() -> Option<PathBuf> {
    let shared = env::var_os("MILLRACE_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    Some(shared.join("protocol/vectors")).filter(|folder| folder.is_dir())
}

pub(crate) fn from_folder(folder: &Path) -> Vec<(String, Value)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .expect("it is a folder")
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    paths.sort();
    let mut vectors = Vec::new();
    for path in paths {
        let of = path.file_stem().and_then(|stem| stem.to_str()).expect("an ASCII name").to_owned();
        let file = fs::read(&path).expect("it can be read");
        let list: Vec<Value> = serde_json::from_slice(&file).expect("a list of vectors");
        for mut vector in list {
            vector["of"] = Value::from(of.as_str());
            vectors.push((of.clone(), vector));
        }
    }
    vectors
}

pub(crate) fn unhex(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hex digits").as_bytes();
    let digit = |digit: u8| (digit as char).to_digit(16).expect("a hex digit") as u8;
    hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
