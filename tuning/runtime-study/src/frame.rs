//! A request is its length in four bytes and that many bytes; its reply is 64 bytes.

/// Bytes of a reply.
pub const REPLY_BYTES: usize = 64;
/// Replies that are sent together at most.
const REPLIES_MAX: usize = 512;
/// Room for requests of one connection: several of the largest.
pub const ROOM_BYTES: usize = 128 << 10;

static REPLIES: [u8; REPLY_BYTES * REPLIES_MAX] = [7; REPLY_BYTES * REPLIES_MAX];

/// The replies to so many requests.
pub fn replies(count: usize) -> &'static [u8] {
    &REPLIES[..count * REPLY_BYTES]
}

/// A request of so many bytes, the length before them.
pub fn request(bytes: usize) -> Vec<u8> {
    let mut frame = (bytes as u32).to_be_bytes().to_vec();
    frame.resize(4 + bytes, 1);
    frame
}

/// Whole requests at the beginning of `bytes`: how many, and how long they are together.
pub fn cut(bytes: &[u8]) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    while let Some(head) = bytes.get(end..end + 4) {
        let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
        if bytes.len() < end + 4 + length {
            break;
        }
        end += 4 + length;
        count += 1;
    }
    (count, end)
}

/// What a connection has received and not yet answered.
pub struct Received {
    buffer: Box<[u8]>,
    filled: usize,
}

impl Received {
    pub fn new() -> Self {
        Self { buffer: vec![0; ROOM_BYTES].into(), filled: 0 }
    }

    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes have come: how many requests are to be answered.
    pub fn take(&mut self, count: usize) -> usize {
        self.filled += count;
        let (requests, end) = cut(&self.buffer[..self.filled]);
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        requests
    }

    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }
}
