//! What every client writes and reads back; the twin of python/expected.py, which explains it.

pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
pub const PER_CODEC: usize = 10;
pub const COUNT: usize = 50;
pub const STEP_MS: i64 = 1000;

/// A record, its headers as pairs.
#[derive(Debug, PartialEq)]
pub struct Record {
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

pub fn record(offset: usize, base_ms: i64) -> Record {
    let (codec, i) = (CODECS[offset / PER_CODEC], offset % PER_CODEC);
    let key = match i {
        0 | 8 => None,
        1 => Some(Vec::new()),
        _ => Some(format!("key-{codec}-{i}").into_bytes()),
    };
    let value = match i {
        4 | 9 => None,
        3 => Some(Vec::new()),
        _ => {
            let head = format!("{codec}-{i}-é中文-").into_bytes();
            Some([head, vec![0, 0xff], vec![b'x'; i * 100]].concat())
        }
    };
    let pair = |key: &str, value: &[u8]| (key.to_owned(), value.to_vec());
    let headers = match i % 3 {
        0 => vec![],
        1 => vec![pair("a", b"1"), pair("a", b"2"), pair("空", b"")],
        _ => vec![pair("h", &[0, 0xff])],
    };
    Record { timestamp: base_ms + offset as i64 * STEP_MS, key, value, headers }
}
