//! Every fault that the simulated world promises, and what it never does.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::path::Path;

use bytes::BytesMut;

use super::*;
use crate::{BLOCK_BYTES, ChunkPool, Event, Io, OpenMode, Token, WritePath};

const FILE: &str = "/data/log";

fn world_with_file(seed: u64) -> (SimWorld, SimIo, SimFile) {
    let world = SimWorld::new(seed);
    let mut io = world.make_io();
    io.create_dir(Path::new("/data")).unwrap();
    let file = io.open(Path::new(FILE), OpenMode::Direct).unwrap();
    io.sync_dir(Path::new("/data")).unwrap();
    (world, io, file)
}

fn submit_blocks(io: &mut SimIo, file: &SimFile, token: u64, fill: u8, first: usize, count: usize) {
    let mut chunk = ChunkPool::new(0).take(count * BLOCK_BYTES);
    chunk.append(&vec![fill; count * BLOCK_BYTES], |_| {});
    io.submit_write(
        Token(token),
        file,
        (first * BLOCK_BYTES) as u64,
        chunk.blocks(0),
        WritePath::Direct,
    );
}

/// Waits for `count` completions.
fn completions(io: &mut SimIo, count: usize) -> Vec<(u64, io::Result<usize>)> {
    let mut done = Vec::new();
    while done.len() < count {
        io.wait(None).unwrap();
        while let Some(event) = io.next_event() {
            if let Event::Completed { token, result } = event {
                done.push((token.0, result));
            }
        }
    }
    done
}

/// What each block of the file holds: its byte when all are equal, else `None`.
fn blocks_of(world: &SimWorld) -> Vec<Option<u8>> {
    let content = world.content(Path::new(FILE)).unwrap();
    let fill = |block: &[u8]| block.iter().all(|byte| *byte == block[0]).then_some(block[0]);
    content.chunks(BLOCK_BYTES).map(fill).collect()
}

#[test]
fn a_completed_flush_survives_every_power_cut() {
    let (world, mut io, file) = world_with_file(1);
    submit_blocks(&mut io, &file, 1, 7, 0, 4);
    completions(&mut io, 1);
    io.submit_sync(Token(2), &file);
    completions(&mut io, 1);
    for seed in 0..200 {
        assert_eq!(blocks_of(&world.power_cut(seed)), [Some(7); 4]);
    }
}

#[test]
fn unflushed_blocks_are_each_kept_lost_or_torn() {
    let (world, mut io, file) = world_with_file(2);
    io.submit_allocate(Token(0), &file, 0, 4 * BLOCK_BYTES as u64);
    completions(&mut io, 1);
    io.sync(&file).unwrap();
    submit_blocks(&mut io, &file, 1, 7, 0, 4);
    completions(&mut io, 1);
    let found: Vec<_> = (0..200).flat_map(|seed| blocks_of(&world.power_cut(seed))).collect();
    for expected in [Some(0), Some(7), None] {
        assert!(found.contains(&expected), "{expected:?} never happened");
    }
    assert!(found.iter().all(|block| [Some(0), Some(7), None].contains(block)));
    world.set_faults(Faults { torn_blocks: false, ..Faults::default() });
    assert!((0..200).all(|seed| !blocks_of(&world.power_cut(seed)).contains(&None)));
}

#[test]
fn a_write_that_completes_after_a_flush_was_submitted_is_not_covered() {
    let (world, mut io, file) = world_with_file(3);
    io.submit_sync(Token(1), &file);
    submit_blocks(&mut io, &file, 2, 7, 0, 1);
    completions(&mut io, 2);
    assert!((0..50).any(|seed| blocks_of(&world.power_cut(seed)).is_empty()));
}

#[test]
fn a_killed_process_loses_no_completed_write() {
    let (world, mut io, file) = world_with_file(4);
    submit_blocks(&mut io, &file, 1, 7, 0, 1);
    completions(&mut io, 1);
    submit_blocks(&mut io, &file, 2, 8, 1, 1);
    let found: Vec<_> = (0..50).map(|seed| blocks_of(&world.kill(seed))).collect();
    assert!(found.contains(&vec![Some(7)]) && found.contains(&vec![Some(7), Some(8)]));
}

#[test]
fn a_failed_flush_may_lose_data_for_good_though_the_next_one_succeeds() {
    let (world, mut io, file) = world_with_file(5);
    submit_blocks(&mut io, &file, 1, 7, 0, 8);
    completions(&mut io, 1);
    world.fail_next(Operation::Sync, "log", libc::EIO);
    io.submit_sync(Token(2), &file);
    let failed = completions(&mut io, 1).remove(0).1.unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    io.submit_sync(Token(3), &file);
    completions(&mut io, 1).remove(0).1.unwrap();
    assert!(blocks_of(&world.power_cut(1)).contains(&Some(0)));
}

#[test]
fn names_are_lost_unless_their_folder_was_flushed() {
    let (world, mut io, _) = world_with_file(6);
    let other = io.open(Path::new("/data/other"), OpenMode::ReadWrite).unwrap();
    io.write_at(&other, 0, b"flushed, but nowhere to be found").unwrap();
    io.sync(&other).unwrap();
    let entries =
        |seed| world.power_cut(seed).make_io().read_dir(Path::new("/data")).unwrap().len();
    assert!((0..50).any(|seed| entries(seed) == 1));
    io.sync_dir(Path::new("/data")).unwrap();
    assert!((0..50).all(|seed| entries(seed) == 2));
}

#[test]
fn a_replaced_file_is_old_or_new_wherever_the_power_goes() {
    let path = Path::new("/data/checkpoint");
    let mut seen = [false; 2];
    for effects in 0..8 {
        for seed in 0..20 {
            let (world, mut io, _) = world_with_file(7);
            io.replace_file(path, b"old").unwrap();
            world.cut_power_after(effects);
            let result = io.replace_file(path, b"new");
            assert_eq!(result.is_err(), effects < 6);
            let content = world.power_cut(seed).content(path).unwrap();
            assert!(result.is_err() || content == b"new");
            seen[usize::from(content == b"new")] = true;
            assert!(content == b"old" || content == b"new");
        }
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn each_fault_ends_in_its_error() {
    let always = 1_000_000;
    let none = Faults::default;
    let rows = [
        (Faults { write_error_ppm: always, ..none() }, "write", Some(libc::EIO)),
        (Faults { write_no_space_ppm: always, ..none() }, "write", Some(libc::ENOSPC)),
        (Faults { write_short_ppm: always, ..none() }, "write", None),
        (Faults { sync_error_ppm: always, ..none() }, "sync", Some(libc::EIO)),
        (Faults { allocate_no_space_ppm: always, ..none() }, "allocate", Some(libc::ENOSPC)),
        (Faults { read_error_ppm: always, ..none() }, "fetch", Some(libc::EIO)),
    ];
    for (faults, operation, os_error) in rows {
        let (world, mut io, file) = world_with_file(8);
        world.set_faults(faults);
        match operation {
            "write" => submit_blocks(&mut io, &file, 1, 7, 0, 4),
            "sync" => io.submit_sync(Token(1), &file),
            "allocate" => io.submit_allocate(Token(1), &file, 0, 1),
            _ => io.submit_fetch_pages(Token(1), &file, 0, 1),
        }
        let error = completions(&mut io, 1).remove(0).1.unwrap_err();
        assert_eq!(error.raw_os_error(), os_error);
        assert!(os_error.is_some() || error.kind() == ErrorKind::WriteZero);
    }
}

#[test]
fn a_full_disk_refuses_growth_and_takes_rewrites() {
    let (world, mut io, file) = world_with_file(9);
    world.set_capacity_bytes(Some(2 * BLOCK_BYTES as u64));
    submit_blocks(&mut io, &file, 1, 7, 0, 2);
    completions(&mut io, 1).remove(0).1.unwrap();
    submit_blocks(&mut io, &file, 2, 8, 2, 1);
    let error = completions(&mut io, 1).remove(0).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    submit_blocks(&mut io, &file, 3, 9, 1, 1);
    completions(&mut io, 1).remove(0).1.unwrap();
    assert_eq!(blocks_of(&world), [Some(7), Some(9)]);
}

#[test]
fn completions_come_in_any_order_and_the_same_seed_repeats_it() {
    let order = |seed| {
        let (_, mut io, file) = world_with_file(seed);
        (0..8).for_each(|n| submit_blocks(&mut io, &file, n, n as u8, n as usize, 1));
        completions(&mut io, 8).into_iter().map(|(token, _)| token).collect::<Vec<_>>()
    };
    assert_ne!(order(10), (0..8).collect::<Vec<_>>());
    assert_eq!(order(10), order(10));
}

#[test]
fn time_jumps_to_the_next_deadline_of_any_shard() {
    let world = SimWorld::new(11);
    let (mut early, mut late) = (world.make_io(), world.make_io());
    let start = world.now();
    early.wait(Some(start.plus_ms(10))).unwrap();
    late.wait(Some(start.plus_ms(500))).unwrap();
    assert_eq!(world.now(), start.plus_ms(10));
    drop(early);
    late.wait(Some(start.plus_ms(500))).unwrap();
    assert_eq!(world.now(), start.plus_ms(500));
    late.wait(None).unwrap();
    assert!(world.is_quiet());
}

#[test]
fn a_reset_ends_both_sides() {
    let world = SimWorld::new(12);
    let mut io = world.make_io();
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = world.connect(address).unwrap();
    client.write_all(b"lost").unwrap();
    io.wait(None).unwrap();
    let Some(Event::Accepted { stream, .. }) = io.next_event() else { panic!("accepted") };
    let socket = io.adopt(stream).unwrap();
    world.set_faults(Faults { reset_ppm: 1_000_000, ..Faults::default() });
    let error = io.recv(socket, &mut BytesMut::new(), 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let error = io.send(socket, &[IoSlice::new(b"x")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_lying_device_completes_writes_that_it_lost() {
    let (world, mut io, file) = world_with_file(13);
    submit_blocks(&mut io, &file, 1, 7, 0, 8);
    completions(&mut io, 1);
    world.set_faults(Faults { write_lost_ppm: 1_000_000, ..Faults::default() });
    submit_blocks(&mut io, &file, 2, 8, 0, 8);
    assert_eq!(completions(&mut io, 1).remove(0).1.unwrap(), 8 * BLOCK_BYTES);
    let blocks = blocks_of(&world);
    assert!(blocks.contains(&Some(7)) && blocks.contains(&Some(8)));
}

#[test]
fn slow_operations_take_up_to_a_second() {
    let (world, mut io, file) = world_with_file(14);
    world.set_faults(Faults { slow_ppm: 1_000_000, ..Faults::default() });
    let start = world.now();
    (0..8).for_each(|n| submit_blocks(&mut io, &file, n, 7, n as usize, 1));
    completions(&mut io, 8);
    assert!((100..1_010).contains(&world.now().ms_since(start)));
}

#[test]
fn short_sends_lose_and_repeat_nothing() {
    let world = SimWorld::new(15);
    let mut io = world.make_io();
    let (_, address) = io.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut client = world.connect(address).unwrap();
    io.wait(None).unwrap();
    let Some(Event::Accepted { stream, .. }) = io.next_event() else { panic!("accepted") };
    let socket = io.adopt(stream).unwrap();
    world.set_faults(Faults { short_send_ppm: 1_000_000, ..Faults::default() });
    let bytes: Vec<u8> = (0..60_000u32).map(|n| (n / 3) as u8).collect();
    let (mut sent, mut calls) = (0, 0);
    while sent < bytes.len() {
        sent += io.send(socket, &[IoSlice::new(&bytes[sent..])]).unwrap();
        calls += 1;
    }
    let mut got = vec![0; bytes.len()];
    client.read_exact(&mut got).unwrap();
    assert!(calls > 1 && got == bytes);
}

#[test]
fn a_forgetful_page_cache_makes_sends_cold() {
    let (world, mut io, file) = world_with_file(16);
    submit_blocks(&mut io, &file, 1, 7, 0, 2);
    completions(&mut io, 1);
    assert!(!io.is_cached(&file, 0, 10), "direct writes bypass the cache");
    io.submit_fetch_pages(Token(2), &file, 0, BLOCK_BYTES);
    completions(&mut io, 1).remove(0).1.unwrap();
    assert!(io.is_cached(&file, 0, BLOCK_BYTES) && !io.is_cached(&file, 0, BLOCK_BYTES + 1));
    world.set_faults(Faults { cache_miss_ppm: 1_000_000, ..Faults::default() });
    assert!(!io.is_cached(&file, 0, BLOCK_BYTES));
    world.refuse_direct_io(true);
    let error = io.open(Path::new(FILE), OpenMode::Direct).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn nothing_completes_after_the_power_went() {
    let (world, mut io, file) = world_with_file(17);
    submit_blocks(&mut io, &file, 1, 7, 0, 1);
    world.cut_power_after(0);
    io.wait(None).unwrap();
    assert!(world.is_power_off() && io.next_event().is_none());
    io.sync(&file).unwrap_err();
    io.write_at(&file, 0, b"x").unwrap_err();
    io.read_at(&file, 0, &mut [0]).unwrap_err();
    let next_life = world.power_cut(1);
    assert!(!next_life.is_power_off());
    let mut io = next_life.make_io();
    let file = io.open(Path::new(FILE), OpenMode::ReadWrite).unwrap();
    io.write_at(&file, 0, b"x").unwrap();
}
