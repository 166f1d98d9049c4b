//! Several data folders: partitions are spread over them, move between them, are found again
//! wherever they are, and a start that would lose some is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{
    Bytes, Connection, Outcome, batch, create, fetch_from, i16_at, i32_at, i64_at, produce_to,
};
use crate::storage::{RESTARTS, SmallDisk, delete_topic, exchange, soon};

const TWO: &str = "log.dirs={folder}/data,{folder}/more";
const PARTITIONS: i32 = 6;

/// The broker's two folders.
fn folders(broker: &Broker) -> [PathBuf; 2] {
    let first = broker.data_folder();
    [first.clone(), first.with_file_name("more")]
}

/// Folders of partitions of a topic, sorted.
fn partitions_in(folder: &Path, topic: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a data folder");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.starts_with(topic)).collect();
    found.sort();
    found
}

/// DescribeLogDirs v1: by folder its error, and the bytes by topic and partition.
type Described = BTreeMap<String, (i16, BTreeMap<(String, i32), i64>)>;

fn describe(connection: &mut Connection, filter: Option<(&str, i32)>) -> Described {
    let request = Bytes::request(35, 1);
    let request = match filter {
        None => request.i32(-1),
        Some((topic, partition)) => request.i32(1).string(topic).i32(1).i32(partition),
    };
    let Outcome::Answer(answer) = connection.exchange(&request.0) else { panic!("closed") };
    let mut at = 8;
    let mut skip = |bytes: usize| {
        at += bytes;
        at - bytes
    };
    let text = |at: usize| {
        let length = usize::try_from(i16_at(&answer, at)).expect("a name");
        String::from_utf8_lossy(&answer[at + 2..at + 2 + length]).into_owned()
    };
    let mut described = Described::new();
    for _ in 0..i32_at(&answer, skip(4)) {
        let error = i16_at(&answer, skip(2));
        let folder = text(skip(0));
        skip(2 + folder.len());
        let mut sizes = BTreeMap::new();
        for _ in 0..i32_at(&answer, skip(4)) {
            let topic = text(skip(0));
            skip(2 + topic.len());
            for _ in 0..i32_at(&answer, skip(4)) {
                let (partition, bytes) = (i32_at(&answer, skip(4)), i64_at(&answer, skip(8)));
                assert_eq!(i64_at(&answer, skip(8)), 0, "nothing lags");
                assert_eq!(answer[skip(1)], 0, "nothing is on its way");
                sizes.insert((topic.clone(), partition), bytes);
            }
        }
        described.insert(folder, (error, sizes));
    }
    assert_eq!(skip(0), answer.len(), "all of the answer was read");
    described
}

/// A topic with one record in each partition.
fn fill(broker: &Broker) -> String {
    let topic = Names::fresh().topic("spread");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create(&mut client, &topic, PARTITIONS, &[]), 0);
    for partition in 0..PARTITIONS {
        assert_eq!(produce_to(&mut client, &topic, partition, &value(partition)), (0, 0));
    }
    topic
}

fn value(partition: i32) -> Vec<u8> {
    batch(format!("of partition {partition}").as_bytes())
}

/// The value's text is in what a fetch from the start of the partition gives.
fn has_its_record(broker: &Broker, topic: &str, partition: i32) -> bool {
    let (error, records) =
        fetch_from(&mut Connection::open(broker.bootstrap()), topic, partition, 0);
    assert_eq!(error, 0, "{topic}-{partition}");
    let text = format!("of partition {partition}");
    records.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn partitions_are_spread_over_the_folders_and_found_again() {
    let mut broker = Broker::start(&[TWO]);
    if !broker.is_own() {
        return;
    }
    let topic = fill(&broker);
    let [data, more] = folders(&broker);
    let name = |number: i32| format!("{topic}-{number}");
    assert_eq!(partitions_in(&data, &topic), [name(0), name(2), name(4)]);
    assert_eq!(partitions_in(&more, &topic), [name(1), name(3), name(5)]);
    let check = |broker: &Broker, what: &str| {
        let missing = (0..PARTITIONS).find(|number| !has_its_record(broker, &topic, *number));
        assert_eq!(missing, None, "after {what}");
    };
    broker.restart_after_kill();
    check(&broker, "a kill");
    broker.restart_cleanly();
    check(&broker, "a clean stop");
    for folder in [&data, &more] {
        let text = fs::read_to_string(folder.join("recovery-point-offset-checkpoint"));
        let text = text.expect("each folder has its own");
        let known = |number: i32| text.contains(&format!("{topic} {number} 1"));
        let expected = (0..PARTITIONS).map(|number| (number % 2 == 0) == (folder == &data));
        assert_eq!((0..PARTITIONS).map(known).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
    // By hand, while the broker is down; and the folders in another order.
    broker.restart_cleanly_after(|data| {
        fs::rename(data.join(name(0)), more.join(name(0))).expect("the same file system");
    });
    check(&broker, "a move by hand");
    broker.set("log.dirs={folder}/more,{folder}/data");
    broker.restart_cleanly();
    check(&broker, "a change of the order");
    let mut client = Connection::open(broker.bootstrap());
    let described = describe(&mut client, None);
    for (folder, numbers) in [(&data, &[2, 4][..]), (&more, &[0, 1, 3, 5][..])] {
        let (error, sizes) = &described[folder.to_str().expect("a plain path")];
        let expected = numbers.iter().map(|number| {
            ((topic.clone(), *number), i64::try_from(value(*number).len()).expect("small"))
        });
        assert_eq!((*error, sizes.clone()), (0, expected.collect()));
    }
    let one = describe(&mut client, Some((&topic, 3)));
    let counts: Vec<usize> = one.values().map(|(_, sizes)| sizes.len()).collect();
    assert_eq!(counts, [0, 1], "both folders, and only what was asked for");
}

#[test]
fn a_start_that_would_lose_partitions_is_refused() {
    let mut broker = Broker::start(&[TWO]);
    if !broker.is_own() {
        return;
    }
    let topic = fill(&broker);
    let [data, more] = folders(&broker);
    let check = |text: String, words: &[&str]| {
        for word in words {
            assert!(text.contains(word), "no `{word}` in {text}");
        }
    };
    let path = |path: &Path| path.display().to_string();

    let (name, metadata) = (format!("{topic}-1"), "__cluster_metadata-0");
    let copy = data.join(&name);
    fs::create_dir(&copy).expect("writable");
    for file in fs::read_dir(more.join(&name)).expect("it is there") {
        let file = file.expect("readable");
        fs::copy(file.path(), copy.join(file.file_name())).expect("writable");
    }
    let words = [&name, "in two data folders", &path(&data), &path(&more)];
    check(broker.refusal_after_kill(), &words);
    fs::remove_dir_all(&copy).expect("just made");

    broker.set("log.dirs={folder}/data");
    let meta = fs::read_to_string(more.join("meta.properties")).expect("it is there");
    let id = meta.lines().find_map(|line| line.strip_prefix("directory.id=")).expect("a line");
    let names = format!("3 partitions ({topic}-1, {topic}-3, {topic}-5)");
    let advice = format!("millrace.lost.log.dirs={id}");
    check(broker.refusal_after_kill(), &[&names, &advice, "log.dirs"]);
    // An empty folder in its place, as when a disk is not mounted, is not it.
    broker.set("log.dirs={folder}/data,{folder}/empty");
    check(broker.refusal_after_kill(), &[&names, &advice]);
    // The other way round: no topic of any name would be known.
    broker.set("log.dirs={folder}/more");
    check(broker.refusal_after_kill(), &[&path(&more), metadata]);

    broker.set("log.dirs={folder}/data,{folder}/empty");
    broker.set(&advice);
    broker.restart_after_kill();
    let present: Vec<bool> =
        (0..PARTITIONS).map(|number| has_its_record(&broker, &topic, number)).collect();
    assert_eq!(present, [true, false, true, false, true, false]);
    let empty = data.with_file_name("empty");
    assert_eq!(partitions_in(&empty, &topic).len(), 3, "the folder with the fewest");
    assert_eq!(broker.log().matches("begins anew, empty").count(), 3);
}

/// AlterReplicaLogDirs v1: the error code.
fn move_to(connection: &mut Connection, topic: &str, partition: i32, folder: &Path) -> i16 {
    let path = folder.display().to_string();
    let request = Bytes::request(34, 1).i32(1).string(&path).i32(1).string(topic).i32(1);
    let Outcome::Answer(answer) = connection.exchange(&request.i32(partition).0) else {
        panic!("closed")
    };
    i16_at(&answer, answer.len() - 2)
}

#[test]
fn a_partition_moves_to_another_folder_while_it_is_served() {
    let mut broker = Broker::start(&[TWO]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("moving");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create(&mut client, &topic, 2, &[("segment.bytes", "1048576")]), 0);
    let record = batch(&[b'x'; 60_000]);
    let mut count = 0;
    // What clients do with NOT_LEADER_OR_FOLLOWER: again.
    let mut append = |client: &mut Connection| {
        while produce_to(client, &topic, 0, &record) != (0, count) {}
        count += 1;
    };
    (0..60).for_each(|_| append(&mut client));
    let [data, more] = folders(&broker);
    let name = format!("{topic}-0");
    for (folder, partition, error) in
        [(&data, 0, 0), (&data.join("no"), 0, 57), (&data, 7, 3), (&more, 1, 0)]
    {
        assert_eq!(move_to(&mut client, &topic, partition, folder), error, "{folder:?}");
    }
    for (from, to) in [(&data, &more), (&more, &data), (&data, &more)] {
        assert_eq!(move_to(&mut client, &topic, 0, to), 0);
        while !to.join(&name).exists() {
            append(&mut client);
            assert!(broker.is_running());
        }
        (0..20).for_each(|_| append(&mut client));
        assert_eq!(partitions_in(to, &name), [name.as_str()]);
        assert!(!from.join(&name).exists());
    }
    // A topic that goes while it moves leaves nothing behind.
    let gone = Names::fresh().topic("gone");
    assert_eq!(create(&mut client, &gone, 1, &[("segment.bytes", "1048576")]), 0);
    for offset in 0..60 {
        assert_eq!(produce_to(&mut client, &gone, 0, &record), (0, offset));
    }
    let to = [&data, &more].into_iter().find(|folder| partitions_in(folder, &gone).is_empty());
    assert_eq!(move_to(&mut client, &gone, 0, to.expect("it is in one of two")), 0);
    assert_eq!(delete_topic(&mut client, &gone), 0);
    soon("nothing is left", || {
        [&data, &more].iter().all(|folder| partitions_in(folder, &gone).is_empty())
    });
    let total = count;
    for (what, restart) in RESTARTS {
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        let (mut offset, mut bytes) = (0, 0);
        while offset < total {
            let (error, records) = fetch_from(&mut client, &topic, 0, offset);
            assert_eq!(error, 0, "{what}");
            bytes += records.len();
            offset += i64::try_from(records.len() / record.len()).expect("small");
        }
        assert_eq!(bytes, record.len() * usize::try_from(total).expect("small"), "{what}");
        assert_eq!(partitions_in(&more, &name), [name.as_str()], "{what}");
        assert_eq!(partitions_in(&data, &name), [""; 0], "{what}");
    }
}

/// Commits that meet the moment of a move are told NOT_COORDINATOR, and tried again.
#[test]
fn group_offsets_move_while_they_are_committed() {
    let mut broker = Broker::start(&[TWO, "offsets.topic.num.partitions=1"]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("committed");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create(&mut client, &topic, 1, &[]), 0);
    let coordinator = Bytes::request(10, 0).string("group");
    while exchange(&mut client, coordinator.clone(), 4) != 0 {}
    let mut next = 0;
    let mut commit = |client: &mut Connection| {
        let request = Bytes::request(8, 2).string("group").i32(-1).string("").i64(-1);
        let request = request.i32(1).string(&topic).i32(1).i32(0).i64(next).string("note");
        match exchange(client, request, 4 + 4 + 2 + topic.len() + 4 + 4) {
            0 => next += 1,
            error => assert_eq!(error, 16, "offset {next}"),
        }
    };
    (0..50).for_each(|_| commit(&mut client));
    let folders = folders(&broker);
    let name = "__consumer_offsets-0";
    for _ in 0..4 {
        let to = folders.iter().find(|folder| !folder.join(name).exists()).expect("in one of two");
        assert_eq!(move_to(&mut client, "__consumer_offsets", 0, to), 0);
        while !to.join(name).exists() {
            commit(&mut client);
        }
        (0..50).for_each(|_| commit(&mut client));
    }
    for (what, restart) in RESTARTS {
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        while exchange(&mut client, coordinator.clone(), 4) != 0 {}
        let request = Bytes::request(9, 1).string("group").i32(1).string(&topic).i32(1).i32(0);
        let Outcome::Answer(answer) = client.exchange(&request.0) else { panic!("closed") };
        let committed = i64_at(&answer, 4 + 4 + 2 + topic.len() + 4 + 4);
        assert_eq!(committed, next - 1, "after {what}");
    }
}

/// Killed at any moment of a move, the broker has every acknowledged record, in one folder.
#[test]
fn a_move_survives_a_kill_at_any_moment() {
    let mut broker = Broker::start(&[TWO]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("killed");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create(&mut client, &topic, 1, &[("segment.bytes", "1048576")]), 0);
    let record = batch(&[b'x'; 60_000]);
    let count = 120;
    for offset in 0..count {
        assert_eq!(produce_to(&mut client, &topic, 0, &record), (0, offset));
    }
    let folders = folders(&broker);
    let name = format!("{topic}-0");
    let mut moved = 0;
    for round in 0..12 {
        let mut client = Connection::open(broker.bootstrap());
        let at = folders.iter().position(|folder| folder.join(&name).exists());
        let at = at.expect("it is in one of the two");
        assert_eq!(move_to(&mut client, &topic, 0, &folders[1 - at]), 0);
        thread::sleep(Duration::from_millis(round * 25));
        broker.restart_after_kill();
        let present = folders.clone().map(|folder| usize::from(folder.join(&name).exists()));
        assert_eq!(present.iter().sum::<usize>(), 1, "round {round}");
        moved += present[1 - at];
        let mut client = Connection::open(broker.bootstrap());
        let mut offset = 0;
        while offset < count {
            let (error, records) = fetch_from(&mut client, &topic, 0, offset);
            assert_eq!(error, 0, "round {round}");
            offset += i64::try_from(records.len() / record.len()).expect("small");
        }
        let copies = folders.iter().flat_map(|folder| partitions_in(folder, &name));
        let copies: Vec<_> = copies.filter(|name| name.ends_with("-future")).collect();
        assert_eq!(copies, [""; 0], "round {round}");
    }
    println!("{moved} of 12 moves were over when the broker was killed");
}

/// Produce v3 of a batch to each of the partitions at once, acks=all; the error codes.
fn produce_to_all(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    records: &[u8],
) -> Vec<i16> {
    let length = |length: usize| i32::try_from(length).expect("test requests are small");
    let request = Bytes::request(0, 3).i16(-1).i16(-1).i32(10_000).i32(1).string(topic);
    let request =
        partitions.iter().fold(request.i32(length(partitions.len())), |request, number| {
            request.i32(*number).i32(length(records.len())).raw(records)
        });
    let Outcome::Answer(answer) = connection.exchange(&request.0) else { panic!("closed") };
    let at = 4 + 4 + 2 + topic.len() + 4;
    let mut errors: Vec<(i32, i16)> = (0..partitions.len())
        .map(|index| (i32_at(&answer, at + 22 * index), i16_at(&answer, at + 22 * index + 4)))
        .collect();
    errors.sort_unstable();
    errors.into_iter().map(|(_, error)| error).collect()
}

/// Two file systems: each is flushed by itself, and a full one stops nobody on the other.
#[test]
fn each_disk_is_flushed_and_may_be_full_for_itself() {
    let Some(disk) = SmallDisk::new() else { return };
    let dirs = format!("log.dirs={{folder}}/data,{}", disk.0.join("more").display());
    let mut broker = Broker::start(&[&dirs, "millrace.shards=1"]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("disks");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create(&mut client, &topic, 16, &[]), 0);
    let (large, small) = (batch(&[b'x'; 30_000]), batch(b"small"));
    let all: Vec<i32> = (0..16).collect();
    let (first, second): (Vec<i32>, Vec<i32>) = all.iter().partition(|number| **number % 2 == 0);
    for _ in 0..5 {
        assert_eq!(produce_to_all(&mut client, &topic, &all, &small), [0; 16]);
    }
    disk.fill();
    let refused = (0..50).find_map(|_| {
        let errors = produce_to_all(&mut client, &topic, &second, &large);
        errors.iter().any(|error| *error != 0).then_some(errors)
    });
    let refused = refused.expect("4 MiB are full");
    assert!(refused.iter().all(|error| [0, 56].contains(error)), "{refused:?}");
    assert_eq!(produce_to_all(&mut client, &topic, &first, &large), [0; 8]);
    let more = disk.0.join("more");
    assert_eq!(move_to(&mut client, &topic, 0, &more), 0, "it begins");
    soon("there is no room for it", || broker.log().contains("-0: stays where it is, "));
    assert_eq!(produce_to_all(&mut client, &topic, &first, &large), [0; 8]);
    soon("the copy goes", || partitions_in(&more, &topic).len() == 8);
    disk.free();
    for (what, restart) in RESTARTS {
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        assert_eq!(produce_to_all(&mut client, &topic, &all, &small), [0; 16], "after {what}");
        let lengths = all.iter().map(|number| fetch_from(&mut client, &topic, *number, 0).1.len());
        let least = lengths.min().expect("sixteen");
        assert!(least >= 6 * small.len(), "{least} bytes after {what}");
    }
}
