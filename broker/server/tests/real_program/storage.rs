//! What is in the data folder, and what becomes of it when the broker is started again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{
    Bytes, Connection, Outcome, batch, create_topic, fetch, i16_at, i32_at, i64_at, produce,
    produce_when_ready, with_length,
};

/// The broker's end and start again, as a name and what does it.
pub(crate) type Restart = (&'static str, fn(&mut Broker));
pub(crate) const RESTARTS: [Restart; 2] =
    [("a kill", Broker::restart_after_kill), ("a clean stop", Broker::restart_cleanly)];

/// For what the broker's background thread does a moment after the answer.
pub(crate) fn soon(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within 20 s");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A request about one topic; its error code, at this place of the answer.
pub(crate) fn exchange(connection: &mut Connection, request: Bytes, at: usize) -> i16 {
    let Outcome::Answer(answer) = connection.exchange(&request.0) else {
        panic!("the broker closed the connection");
    };
    i16_at(&answer, at)
}

pub(crate) fn delete_topic(connection: &mut Connection, topic: &str) -> i16 {
    let request = Bytes::request(20, 1).i32(1).string(topic).i32(10_000);
    exchange(connection, request, 4 + 4 + 4 + 2 + topic.len())
}

fn delete_records(connection: &mut Connection, topic: &str, before: i64) -> i16 {
    let request = Bytes::request(21, 0).i32(1).string(topic).i32(1).i32(0).i64(before).i32(10_000);
    exchange(connection, request, 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 8)
}

#[test]
fn a_topic_made_again_keeps_its_records_over_restarts() {
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("again");
    let record = batch(b"value");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create_topic(&mut client, &topic), 0);
    for offset in 0..5 {
        assert_eq!(produce_when_ready(&mut client, &topic, &record), (0, offset));
    }
    assert_eq!(delete_records(&mut client, &topic, 3), 0);
    assert_eq!(delete_topic(&mut client, &topic), 0);
    assert_eq!(create_topic(&mut client, &topic), 0);
    for offset in 0..2 {
        assert_eq!(produce(&mut client, &topic, &record), (0, offset));
    }
    for (what, restart) in RESTARTS {
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        let (error, records) = fetch(&mut client, &topic, 0);
        assert_eq!((error, records.len()), (0, 2 * record.len()), "after {what}");
    }
}

#[test]
fn the_metadata_is_saved_in_checkpoints_and_read_from_them() {
    let mut broker = Broker::start(&["metadata.log.max.record.bytes.between.snapshots=2000"]);
    if !broker.is_own() {
        return;
    }
    let names = Names::fresh();
    let topics: Vec<String> = (0..60).map(|number| names.topic(&number.to_string())).collect();
    let mut client = Connection::open(broker.bootstrap());
    for topic in &topics {
        assert_eq!(create_topic(&mut client, topic), 0);
    }
    assert_eq!(delete_topic(&mut client, &topics[0]), 0);
    for (what, restart) in RESTARTS {
        let folder = broker.data_folder();
        let checkpoints = || {
            let files = fs::read_dir(folder.join("__cluster_metadata-0")).expect("it is there");
            let names = files.map(|file| file.expect("readable").file_name());
            names.filter(|name| name.to_string_lossy().ends_with(".checkpoint")).count()
        };
        // What lies below the log's start can only come from a checkpoint.
        let starts = || fs::read_to_string(folder.join("log-start-offset-checkpoint"));
        let has_start = || starts().is_ok_and(|starts| starts.contains("__cluster_metadata 0 "));
        soon("the newest checkpoint and one to fall back on", || checkpoints() == 2 && has_start());
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        let errors = topics.iter().map(|topic| produce(&mut client, topic, &batch(b"v")).0);
        let expected: Vec<i16> =
            topics.iter().map(|topic| 3 * i16::from(*topic == topics[0])).collect();
        assert_eq!(errors.collect::<Vec<_>>(), expected, "after {what}");
    }
}

/// Commits of one turn are one batch of the offsets topic.
#[test]
fn commits_that_come_together_share_a_batch() {
    let broker = Broker::start(&["offsets.topic.num.partitions=1", "millrace.shards=1"]);
    if !broker.is_own() {
        return;
    }
    let names = Names::fresh();
    let topic = names.topic("committed");
    let mut clients: Vec<Connection> =
        (0..50).map(|_| Connection::open(broker.bootstrap())).collect();
    assert_eq!(create_topic(&mut clients[0], &topic), 0);
    let find = Bytes::request(10, 0).string("group");
    while exchange(&mut clients[0], find.clone(), 4) != 0 {}
    broker.while_paused(|| {
        for (number, client) in clients.iter_mut().enumerate() {
            let group = names.topic(&number.to_string());
            let request = Bytes::request(8, 2).string(&group).i32(-1).string("").i64(-1);
            let request = request.i32(1).string(&topic).i32(1).i32(0).i64(7).string("note");
            client.write(&with_length(&request.0));
        }
    });
    for client in &mut clients {
        let Outcome::Answer(answer) = client.outcome() else { panic!("not answered") };
        assert_eq!(i16_at(&answer, 4 + 4 + 2 + topic.len() + 4 + 4), 0);
    }
    let segment = broker.data_folder().join("__consumer_offsets-0/00000000000000000000.log");
    let bytes = fs::read(segment).expect("it is there");
    let (mut at, mut batches, mut records) = (0, 0, 0);
    while bytes.get(at + 16) == Some(&2) {
        batches += 1;
        records += i32_at(&bytes, at + 57);
        at += 12 + usize::try_from(i32_at(&bytes, at + 8)).expect("a length");
    }
    assert!(records >= 50 && batches <= 3, "{records} records in {batches} batches");
}

#[test]
fn the_offsets_topic_is_compacted() {
    const COMMITS: i64 = 600;
    let mut broker = Broker::start(&[
        "offsets.topic.num.partitions=1",
        "offsets.topic.segment.bytes=20000",
        "log.cleaner.backoff.ms=100",
    ]);
    if !broker.is_own() {
        return;
    }
    let names = Names::fresh();
    let (topic, group) = (names.topic("committed"), names.topic("group"));
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create_topic(&mut client, &topic), 0);
    while exchange(&mut client, Bytes::request(10, 0).string("group"), 4) != 0 {}
    for offset in 0..COMMITS {
        let request = Bytes::request(8, 2).string(&group).i32(-1).string("").i64(-1);
        let request = request.i32(1).string(&topic).i32(1).i32(0).i64(offset).string("note");
        assert_eq!(exchange(&mut client, request, 4 + 4 + 2 + topic.len() + 4 + 4), 0);
    }
    let folder = broker.data_folder().join("__consumer_offsets-0");
    // Some 120 kB were written. The newest file has space prepared.
    let finished_bytes = || {
        let entries = fs::read_dir(&folder).expect("it is there");
        let paths = entries.map(|entry| entry.expect("readable").path());
        let mut logs: Vec<_> =
            paths.filter(|path| path.extension() == Some("log".as_ref())).collect();
        logs.sort();
        logs.pop();
        logs.iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum::<u64>()
    };
    let checkpoint = broker.data_folder().join("cleaner-offset-checkpoint");
    let cleaned = || fs::read_to_string(&checkpoint).unwrap_or_default();
    soon("old commits go", || {
        finished_bytes() < 30_000 && cleaned().contains("__consumer_offsets 0 ")
    });
    for (what, restart) in RESTARTS {
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        let request = Bytes::request(9, 1).string(&group).i32(1).string(&topic).i32(1).i32(0);
        while exchange(&mut client, Bytes::request(10, 0).string("group"), 4) != 0 {}
        let Outcome::Answer(answer) = client.exchange(&request.0) else { panic!("no answer") };
        let committed = i64_at(&answer, 4 + 4 + 2 + topic.len() + 4 + 4);
        assert_eq!(committed, COMMITS - 1, "after {what}");
    }
}

/// A file system of its own of 4 MiB. `None` where this process may not mount one.
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    pub(crate) fn new() -> Option<Self> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Names::fresh().topic("disk"));
        fs::create_dir_all(&path).expect("the target folder is writable");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&path).stderr(Stdio::null());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        if !is_mounted {
            eprintln!("skipped: mounting a small file system is not permitted");
            let _ = fs::remove_dir(&path);
        }
        is_mounted.then_some(Self(path))
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).expect("an entry needs no block");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_refuses_what_is_new_and_serves_what_is_there() {
    const STORAGE_ERROR: i16 = 56;
    let Some(disk) = SmallDisk::new() else { return };
    let data = format!("log.dirs={}", disk.0.join("data").display());
    let mut broker = Broker::start(&[&data]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("full");
    let record = batch(&[b'x'; 100_000]);
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create_topic(&mut client, &topic), 0);
    let mut stored = 0;
    let refused = loop {
        match produce(&mut client, &topic, &record) {
            (0, offset) if offset == stored && stored < 40 => stored += 1,
            other => break other.0,
        }
    };
    assert_eq!(refused, STORAGE_ERROR, "after {stored} batches");
    assert!(stored > 5, "{stored} batches");
    disk.fill();
    // The metadata log has some space ahead; then changes are refused, too.
    let names = Names::fresh();
    let create = |client: &mut Connection, number: i32| {
        create_topic(client, &names.topic(&number.to_string()))
    };
    let made = (0..2_000).find(|number| create(&mut client, *number) != 0);
    let made = made.expect("4 MiB hold fewer topics");
    assert_eq!(create(&mut client, made), STORAGE_ERROR, "still refused");
    assert!(broker.is_running());
    let (error, records) = fetch(&mut client, &topic, 0);
    assert!(error == 0 && records.len() >= record.len(), "what is there is served");
    // A start on a full disk is refused with one line.
    let text = broker.refusal_after_kill();
    assert!(text.contains("is full: free some space"), "{text}");
    // With room again, all that was acknowledged is there, and new records are taken.
    disk.free();
    broker.restart_after_kill();
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(produce(&mut client, &topic, &record), (0, stored));
    assert_eq!(create(&mut client, made), 0, "the refused topic is not there");
    if made > 0 {
        assert_eq!(create(&mut client, 0), 36, "the topics made are there");
    }
}
