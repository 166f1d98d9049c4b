//! Any bytes as batches and message sets: no panic, and no more memory than was allowed.
//! Input: the first byte says whether checksums are made right, so that what lies behind is tried.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace_wire::batch::{self, Batch, BatchBuilder, HEADER_BYTES};
use millrace_wire::{compression::Compression, message_set};

const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let [mode, body @ ..] = input else { return };
    match mode % 3 {
        0 => batches(body.to_vec(), mode & 4 != 0),
        1 => messages(body),
        _ => decompress(body, mode / 3),
    }
});

fn batches(mut body: Vec<u8>, repair: bool) {
    if repair && body.len() >= HEADER_BYTES {
        batch::patch_crc(&mut body);
    }
    let _ = batch::validate(&body);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    for found in batch::batches(&body) {
        let Ok(found) = found else { break };
        read(&found, &mut scratch);
        for magic in [0, 1] {
            out.clear();
            let _ = message_set::write_batch(&found, magic, &mut scratch, BYTES_MAX, &mut out);
        }
    }
}

fn read(found: &Batch<'_>, scratch: &mut Vec<u8>) {
    let _ = found.validate_records(scratch, BYTES_MAX);
    let Ok(records) = found.records(scratch, BYTES_MAX) else { return };
    for record in records.flatten() {
        record.headers.iter().for_each(drop);
    }
    assert!(scratch.len() <= BYTES_MAX);
}

fn messages(body: &[u8]) {
    let (mut scratch, mut builder) = (Vec::new(), BatchBuilder::new());
    let _ = message_set::append_to_builder(body, &mut builder, &mut scratch, BYTES_MAX);
    for message in message_set::messages(body) {
        let Ok(message) = message else { break };
        let Ok(records) = message.records(&mut scratch, BYTES_MAX) else { continue };
        records.for_each(drop);
    }
    assert!(scratch.len() <= BYTES_MAX);
}

fn decompress(body: &[u8], which: u8) {
    let all = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    let mut out = Vec::new();
    let _ = all[usize::from(which) % 4].decompress(body, BYTES_MAX, &mut out);
    assert!(out.len() <= BYTES_MAX);
}
