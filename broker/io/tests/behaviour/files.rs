//! Rows about files and folders.

use std::io::{self, ErrorKind};

use millrace_io::{BLOCK_BYTES, ChunkBlocks, ChunkPool, Event, Io, OpenMode, Token, WritePath};

use crate::place::*;

/// Direct where the file system takes it.
fn open<P: Place>(place: &P, io: &mut P::Io, name: &str) -> <P::Io as Io>::File {
    let path = place.dir().join(name);
    match io.open(&path, OpenMode::Direct) {
        Err(e) if e.kind() == ErrorKind::InvalidInput => io.open(&path, OpenMode::ReadWrite),
        opened => opened,
    }
    .unwrap()
}

fn blocks(fill: u8, count: usize) -> ChunkBlocks {
    let mut chunk = ChunkPool::new(0).take(count * BLOCK_BYTES);
    chunk.append(&vec![fill; count * BLOCK_BYTES], |_| {});
    chunk.blocks(0)
}

fn completed<I: Io>(io: &mut I, wanted: u64) -> io::Result<usize> {
    until(io, |event| match event {
        Event::Completed { token, result } => {
            assert_eq!(token, Token(wanted));
            Some(result)
        }
        _ => None,
    })
}

fn content<I: Io>(io: &mut I, file: &I::File) -> Vec<u8> {
    let mut content = vec![0; io.file_bytes(file).unwrap() as usize];
    assert_eq!(io.read_at(file, 0, &mut content).unwrap(), content.len());
    content
}

pub(crate) fn written_blocks_are_read_back<P: Place>(place: &P) {
    let mut io = place.io();
    let file = open(place, &mut io, "log");
    io.submit_write(Token(7), &file, BLOCK_BYTES as u64, blocks(b'x', 2), WritePath::Cached);
    assert_eq!(completed(&mut io, 7).unwrap(), 2 * BLOCK_BYTES);
    io.submit_sync(Token(8), &file);
    assert_eq!(completed(&mut io, 8).unwrap(), 0);
    let expected = [vec![0; BLOCK_BYTES], vec![b'x'; 2 * BLOCK_BYTES]].concat();
    assert_eq!(content(&mut io, &file), expected);
}

pub(crate) fn direct_and_cached_writes_of_a_file_follow_each_other<P: Place>(place: &P) {
    let mut io = place.io();
    let file = io.open(&place.dir().join("log"), OpenMode::Direct).unwrap();
    let block = BLOCK_BYTES as u64;
    let writes = [
        (b'a', 0, 2, WritePath::Cached),
        (b'b', block, 2, WritePath::Direct),
        (b'c', block, 1, WritePath::Cached),
        (b'd', 2 * block, 1, WritePath::Direct),
    ];
    for (token, (byte, position, count, path)) in (1..).zip(writes) {
        io.submit_write(Token(token), &file, position, blocks(byte, count), path);
        assert_eq!(completed(&mut io, token).unwrap(), count * BLOCK_BYTES);
    }
    let expected = [b'a', b'c', b'd'].map(|byte| vec![byte; BLOCK_BYTES]).concat();
    assert_eq!(content(&mut io, &file), expected);
}

pub(crate) fn many_writes_each_complete_once<P: Place>(place: &P) {
    // More than fit into the submission queue at once.
    const COUNT: u64 = 1_000;
    let mut io = place.io();
    let file = open(place, &mut io, "log");
    io.submit_allocate(Token(0), &file, 0, COUNT * BLOCK_BYTES as u64);
    completed(&mut io, 0).unwrap();
    for number in 0..COUNT {
        let position = number * BLOCK_BYTES as u64;
        io.submit_write(Token(number), &file, position, blocks(number as u8, 1), WritePath::Cached);
    }
    let mut seen = vec![0; COUNT as usize];
    for _ in 0..COUNT {
        let (token, result) = until(&mut io, |event| match event {
            Event::Completed { token, result } => Some((token, result)),
            _ => None,
        });
        assert_eq!(result.unwrap(), BLOCK_BYTES);
        seen[token.0 as usize] += 1;
    }
    assert!(seen.iter().all(|count| *count == 1));
    let content = content(&mut io, &file);
    for (number, block) in content.chunks(BLOCK_BYTES).enumerate() {
        assert!(block.iter().all(|byte| *byte == number as u8), "block {number}");
    }
}

pub(crate) fn allocated_space_reads_as_zeros<P: Place>(place: &P) {
    let mut io = place.io();
    let file = open(place, &mut io, "log");
    io.write_at(&file, 0, b"kept").unwrap();
    io.submit_allocate(Token(1), &file, 0, 10_000);
    assert_eq!(completed(&mut io, 1).unwrap(), 0);
    let content = content(&mut io, &file);
    assert_eq!((content.len(), &content[..4]), (10_000, &b"kept"[..]));
    assert!(content[4..].iter().all(|byte| *byte == 0));
    io.set_file_bytes(&file, 2).unwrap();
    assert_eq!(io.file_bytes(&file).unwrap(), 2);
}

pub(crate) fn fetched_pages_are_cached<P: Place>(place: &P) {
    const BYTES: usize = 1 << 20;
    let mut io = place.io();
    let file = open(place, &mut io, "log");
    io.submit_write(Token(1), &file, 0, blocks(b'x', BYTES / BLOCK_BYTES), WritePath::Cached);
    completed(&mut io, 1).unwrap();
    io.submit_fetch_pages(Token(2), &file, 5_000, BYTES - 10_000);
    assert_eq!(completed(&mut io, 2).unwrap(), 0);
    assert!(io.is_cached(&file, 5_000, BYTES - 10_000));
    assert!(!io.is_cached(&file, BYTES as u64, 1), "behind the end");
    // Advice is not reported; its completion is nobody's.
    io.submit_read_ahead(&file, 0, BYTES);
    // A range that reaches behind the end of the file is no error.
    io.submit_fetch_pages(Token(3), &file, 0, 2 * BYTES);
    assert_eq!(completed(&mut io, 3).unwrap(), 0);
}

pub(crate) fn all_is_flushed_at_once<P: Place>(place: &P) {
    let mut io = place.io();
    let files = ["a", "b", "c"].map(|name| open(place, &mut io, name));
    for file in &files {
        io.submit_write(Token(1), file, 0, blocks(b'x', 1), WritePath::Cached);
        completed(&mut io, 1).unwrap();
    }
    for token in [2, 3] {
        io.submit_sync_all(Token(token), &files[0]);
        assert_eq!(completed(&mut io, token).unwrap(), 0);
    }
}

pub(crate) fn reads_stop_at_the_end_of_the_file<P: Place>(place: &P) {
    let mut io = place.io();
    let file = open(place, &mut io, "log");
    io.write_at(&file, 0, b"0123456789").unwrap();
    for (position, expected) in [(0, 8), (4, 6), (10, 0), (11, 0)] {
        let mut into = [0; 8];
        assert_eq!(io.read_at(&file, position, &mut into).unwrap(), expected);
    }
}

pub(crate) fn a_missing_file_is_not_made_by_reading<P: Place>(place: &P) {
    let mut io = place.io();
    let path = place.dir().join("missing");
    for _ in 0..2 {
        let error = io.open(&path, OpenMode::Read).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(io.read_file(&path).unwrap_err().kind(), ErrorKind::NotFound);
}

pub(crate) fn a_replaced_file_has_its_new_content<P: Place>(place: &P) {
    let mut io = place.io();
    let path = place.dir().join("checkpoint");
    for content in ["a longer content", "short"] {
        io.replace_file(&path, content.as_bytes()).unwrap();
        assert_eq!(io.read_file(&path).unwrap(), content.as_bytes());
    }
    assert_eq!(io.read_dir(place.dir()).unwrap(), [path]);
}

pub(crate) fn names_are_made_listed_renamed_and_removed<P: Place>(place: &P) {
    let mut io = place.io();
    let folder = place.dir().join("topic-0");
    let renamed = place.dir().join("topic-0.deleted");
    io.create_dir(&folder.join("deep/er")).unwrap();
    io.create_dir(&folder).unwrap();
    for name in ["b", "a"] {
        open(place, &mut io, &format!("topic-0/{name}"));
    }
    io.sync_dir(&folder).unwrap();
    let names = ["a", "b", "deep"];
    assert_eq!(io.read_dir(&folder).unwrap(), names.map(|name| folder.join(name)));
    io.remove_file(&folder.join("a")).unwrap();
    io.rename(&folder, &renamed).unwrap();
    let names = ["b", "deep"];
    assert_eq!(io.read_dir(&renamed).unwrap(), names.map(|name| renamed.join(name)));
    assert_eq!(io.read_dir(&folder).unwrap_err().kind(), ErrorKind::NotFound);
    io.remove_dir(&renamed).unwrap();
    assert!(io.read_dir(place.dir()).unwrap().is_empty());
}

pub(crate) fn a_file_open_elsewhere_can_be_read_there<P: Place>(place: &P) {
    let (mut first, mut second) = (place.io(), place.io());
    let file = open(place, &mut first, "log");
    first.write_at(&file, 0, b"shared").unwrap();
    let theirs = file.clone();
    drop(file);
    let mut into = [0; 6];
    assert_eq!(second.read_at(&theirs, 0, &mut into).unwrap(), 6);
    assert_eq!(&into, b"shared");
}

pub(crate) fn an_io_may_be_dropped_with_operations_on_their_way<P: Place>(place: &P) {
    let mut io = place.io();
    let (_client, socket) = connected(place, &mut io);
    let file = open(place, &mut io, "log");
    for number in 0..64 {
        let position = number * 16 * BLOCK_BYTES as u64;
        io.submit_write(Token(number), &file, position, blocks(b'x', 16), WritePath::Cached);
    }
    io.submit_sync(Token(64), &file);
    io.close(socket);
    drop(io);
    let mut io = place.io();
    assert!(io.file_bytes(&file).unwrap() <= 64 * 16 * BLOCK_BYTES as u64);
}
