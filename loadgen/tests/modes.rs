//! Every mode does what its options say: seen from the broker's side where that is possible.

mod fake;
mod harness;

use fake::{Fake, Fault};
use harness::{Broker, Folder, args, args_for, run};
use loadgen::args::{Cli, Command, Partitioner, RunArgs};
use loadgen::churn::{self, ChurnFound};
use loadgen::cluster::Cluster;
use loadgen::gather::Live;
use loadgen::keys::KeySpread;
use loadgen::schedule::Spread;
use millrace_client::Member;
use millrace_client::membership::committed_offsets;
use millrace_client::partitioner::partition_of;
use millrace_wire::batch;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// So many records as fast as they go, all in the measured time.
fn all_of(records: u64, mut args: RunArgs) -> RunArgs {
    (args.records, args.rate) = (Some(records), None);
    (args.warmup, args.duration) = (Duration::ZERO, Duration::from_secs(60));
    args
}

#[test]
fn members_of_a_group_share_the_partitions_and_commit_what_they_read() {
    let (broker, name) = (Broker::start(), "readers");
    let mut args = args_for(&broker.address());
    (args.partitions, args.consumers, args.duration) = (8, 3, Duration::from_secs(1));
    (args.topic, args.keep_topic) = (Some("shared".to_owned()), true);
    (args.mix.group, args.mix.commit_every) = (Some(name.to_owned()), Duration::from_millis(50));
    let report = run(&args).report;
    let group = report.group.expect("there is one");
    assert_eq!((group.members, group.rebalances), (3, 0), "{group:?}");
    assert!(group.commits >= 3 && group.join_ms > 0.0, "{group:?}");
    assert_eq!(report.records_verified, report.records_sent, "{:?}", report.integrity);
    assert!(report.end_to_end_us.count > 0 && report.records_sent > 0);
    // What the coordinator has is what was read.
    let mut cluster = Cluster::connect(&broker.address()).expect("it answers");
    let committed = committed_offsets(cluster.client(), name).expect("it has some");
    assert_eq!(committed.values().sum::<i64>().unsigned_abs(), report.records_sent);
    assert_eq!(committed.len(), 8);
    // The next run of the group goes on there.
    let again = run(&args).report;
    assert_eq!(again.records_verified, again.records_sent, "{:?}", again.integrity);
    assert_eq!((again.integrity.foreign, again.integrity.duplicated), (0, 0));
}

#[test]
fn a_group_that_rebalances_under_load_still_sees_every_record() {
    let (broker, name, topic) = (Broker::start(), "shaken", "shaken".to_owned());
    let mut args = args_for(&broker.address());
    (args.partitions, args.consumers, args.duration) = (6, 2, Duration::from_secs(12));
    (args.topic, args.mix.group) = (Some(topic.clone()), Some(name.to_owned()));
    args.mix.commit_every = Duration::from_millis(100);
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&args).report);
        let mut cluster = Cluster::connect(&broker.address()).expect("it answers");
        // Once the group has committed its members are at work.
        let has_begun = |cluster: &mut Cluster| {
            committed_offsets(cluster.client(), name).is_ok_and(|offsets| !offsets.is_empty())
        };
        while !has_begun(&mut cluster) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // A stranger takes a share, reads nothing of it, commits nothing, and leaves.
        let mut stranger = Member::new(name, &[topic]);
        stranger.join(cluster.client()).expect("the others let it in");
        assert_eq!(stranger.assigned().len(), 2);
        stranger.leave(cluster.client()).expect("it may");
        running.join().expect("no panic")
    });
    let group = report.group.expect("there is one");
    assert!(group.rebalances >= 2, "one came, one left: {group:?}");
    assert!(report.end_to_end_us.max > Some(0.0) && report.records_sent > 1_000);
    assert_eq!(report.records_verified, report.records_sent, "{:?}", report.integrity);
    assert_eq!(report.integrity.duplicated, 0, "{:?}", report.integrity);
}

#[test]
fn a_backlog_is_read_beside_the_load() {
    let broker = Broker::start();
    let mut args = args_for(&broker.address());
    (args.mix.backlog_bytes, args.mix.cold_readers) = (500_000, 2);
    args.duration = Duration::from_millis(500);
    let report = run(&args).report;
    let read = report.catch_up.expect("there are readers");
    assert!(read.valid && read.records >= 5_000, "{read:?}");
    assert_eq!((read.records_verified + read.integrity.foreign, read.errors), (read.records, 0));
    // The tail is verified as ever: the backlog is not part of the run.
    assert_eq!(report.records_verified, report.records_sent, "{:?}", report.integrity);
    assert!(report.records_sent < 5_000, "{}", report.records_sent);
    // Two readers keep to the rate they are given together, a batch at a time.
    (args.mix.backlog_bytes, args.mix.cold_bytes_per_second) = (2_000_000, 1_000_000);
    args.fetch.fetch_max_bytes = 1;
    let slow = run(&args).report.catch_up.expect("there are readers");
    assert!(slow.valid && slow.records >= 20_000, "{slow:?}");
    assert!(slow.bytes_per_second < 1_300_000.0, "{slow:?}");
}

fn churn(address: &str, of: &str) -> ChurnFound {
    let words = ["loadgen", "churn", "--bootstrap", address, "--of", of, "--rate", "100"];
    let pid = std::process::id().to_string();
    let more = ["--duration", "300ms", "--threads", "4", "--pid", &pid];
    use clap::Parser;
    let command = Cli::try_parse_from(words.into_iter().chain(more)).expect("it parses").command;
    let Command::Churn(args) = command else { panic!("it is churn") };
    churn::churn(&args, Live::Silent).expect("the broker answers")
}

#[test]
fn what_is_churned_is_made_and_ended_as_often_as_it_is_due() {
    let broker = Broker::start();
    for of in ["connections", "topics", "groups"] {
        let found = churn(&broker.address(), of);
        assert!(found.valid, "{of}: {:?} {:?}", found.invalid_reasons, found.error_examples);
        assert_eq!((found.done, found.errors, found.of), (30, 0, of));
        let (response, service) = (found.response_us.max, found.service_us.max);
        assert!(response >= service && service.is_some_and(|us| us > 0.0), "{of}");
        assert!(found.broker_cpu_us_each.is_some_and(|us| us > 0.0), "{of}");
    }
    let mut cluster = Cluster::connect(&broker.address()).expect("it answers");
    let left = cluster.client().topics().expect("it answers");
    assert!(left.iter().all(|topic| topic.is_internal), "{left:?}");
    drop(broker);
    // A fake that does not speak of groups: every one fails, and it is told.
    let fake = Fake::start(Fault::None);
    let found = churn(&fake.address(), "groups");
    assert_eq!((found.done, found.errors, found.valid), (0, 30, false));
    let words = churn::words(&found);
    assert!(words.contains("Not valid: 30 failed") && words.contains("FindCoordinator"), "{words}");
}

#[test]
fn a_schedule_is_replayed_from_its_file() {
    let (fake, folder) = (Fake::start(Fault::None), Folder::new());
    let path = folder.0.join("times");
    // Three at once, a pause, then one every 2 ms.
    let times = (0..100).map(|n| if n < 3 { 0.0 } else { 0.2 + 0.002 * f64::from(n) });
    let text: String = times.map(|at| format!("{at}\n")).collect();
    std::fs::write(&path, format!("# seconds\n{text}")).expect("a folder of our own");
    let mut args = args(&fake);
    (args.rate, args.shape.schedule) = (None, Some(path.clone()));
    (args.warmup, args.duration) = (Duration::ZERO, Duration::from_secs(60));
    let report = run(&args).report;
    assert_eq!((report.records_sent, report.records_verified), (500, 500));
    assert_eq!((report.response_us.count, fake.counts().requests), (100, 100));
    // The last one was due after 0.398 s, and nothing is waited for after it.
    assert!(report.measured_seconds > 0.39 && report.measured_seconds < 30.0, "it ends early");
    std::fs::write(&path, "0\n1\nsoon\n").expect("a folder of our own");
    let around = loadgen::run::Surroundings {
        broker: loadgen::run::BrokerProcess::None,
        live: Live::Silent,
        folder: &folder.0,
        command: "",
        is_probed: false,
    };
    let error = loadgen::run::run(&args, around).expect_err("no time").to_string();
    assert!(error.contains("line 3: 'soon' is not seconds"), "{error}");
}

#[test]
fn bursts_come_whole() {
    let fake = Fake::start(Fault::None);
    let mut args = args(&fake);
    (args.spread, args.shape.burst, args.connections) = (Spread::Bursts, 20, 1);
    (args.warmup, args.duration) = (Duration::ZERO, Duration::from_millis(500));
    args.inflight = 100;
    // 200 batches a second in bursts of 20: at 0, 100, ... 400 ms.
    assert_eq!(run(&args).report.records_sent, 5 * 20 * 5);
}

/// Records by key, each checked to be in the partition where Kafka's client would put it.
fn keys_of(fake: &Fake, partitions: usize) -> BTreeMap<Vec<u8>, u64> {
    let mut keys = BTreeMap::new();
    for (partition, bytes) in fake.batches() {
        let parsed = batch::validate(&bytes).expect("it was taken");
        let mut scratch = Vec::new();
        for record in parsed.records(&mut scratch, 1 << 20).expect("sound") {
            let key = record.expect("sound").key.expect("every record has one").to_vec();
            assert_eq!(partition_of(&key, partitions) as usize, partition);
            *keys.entry(key).or_default() += 1;
        }
    }
    keys
}

#[test]
fn keys_are_spread_as_asked_and_live_where_kafka_would_put_them() {
    let rows = [
        // Keys; how they are spread; by which partitioner; how many partitions are written to.
        (100, KeySpread::Uniform, Partitioner::Next, 3),
        (100, KeySpread::RoundRobin, Partitioner::Next, 3),
        (100, KeySpread::Zipf, Partitioner::Keys, 3),
        (1, KeySpread::Uniform, Partitioner::Keys, 1),
    ];
    for (count, spread, partitioner, written) in rows {
        let fake = Fake::start(Fault::None);
        let mut args = all_of(6_000, args(&fake));
        (args.keys, args.shape.key_spread) = (count, spread);
        args.shape.partitioner = partitioner;
        let report = run(&args).report;
        assert_eq!(report.records_verified, 6_000, "{:?}", report.integrity);
        let keys = keys_of(&fake, 3);
        assert_eq!(keys.len(), count as usize, "{spread:?} {partitioner:?}");
        let partitions: std::collections::BTreeSet<usize> =
            fake.batches().into_iter().map(|(partition, _)| partition).collect();
        assert_eq!(partitions.len(), written, "{spread:?} {partitioner:?}");
        let (most, fewest) = (keys.values().max(), keys.values().min());
        let (most, fewest) = (*most.expect("keys"), *fewest.expect("keys"));
        match spread {
            // Two connections, each in its own turn.
            KeySpread::RoundRobin => assert!(most <= 2 * fewest, "{most} {fewest}"),
            // 1 / (1 + 1/2 + ... + 1/100) of all are the first key's: 1,157 of 6,000.
            KeySpread::Zipf => assert!((900..1_400).contains(&most), "{most}"),
            KeySpread::Uniform => assert!(count == 1 || most < 200, "{most}"),
        }
    }
}

#[test]
fn values_have_the_sizes_asked_for_and_records_a_header() {
    let fake = Fake::start(Fault::None);
    let mut args = all_of(1_000, args(&fake));
    (args.record_bytes, args.shape.record_bytes_max) = (50, Some(250));
    (args.shape.header_bytes, args.batch_records) = (33, 50);
    let report = run(&args).report;
    assert_eq!(report.records_verified, 1_000, "{:?}", report.integrity);
    let (mut total, mut sizes) = (0, Vec::new());
    for (_, bytes) in fake.batches() {
        let mut scratch = Vec::new();
        let parsed = batch::validate(&bytes).expect("it was taken");
        for record in parsed.records(&mut scratch, 1 << 20).expect("sound") {
            let record = record.expect("sound");
            let value = record.value.expect("every record has one").len();
            total += value as u64;
            sizes.push(value);
            let headers: Vec<_> = record.headers.iter().collect();
            assert_eq!(headers, [(&b"h"[..], Some(&[0; 33][..]))]);
        }
    }
    assert!(sizes.iter().all(|size| (50..=250).contains(size)));
    assert!(sizes.iter().max() >= Some(&200) && sizes.iter().min() <= Some(&100));
    assert_eq!((report.bytes_per_second * report.measured_seconds).round() as u64, total);
}

#[test]
fn prometheus_can_ask_while_a_load_runs() {
    let fake = Fake::start(Fault::None);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    let mut args = args(&fake);
    (args.prometheus, args.duration) = (Some(address.to_string()), Duration::from_secs(3));
    args.target.pid = Some(std::process::id());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(&args));
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        let value = |page: &str, name: &str| -> Option<f64> {
            page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let mut seen = 0.0;
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            let Ok(page) = ask() else { continue };
            let sent = value(&page, "loadgen_records_sent_total").unwrap_or(0.0);
            assert!(sent >= seen, "a counter never falls: {sent} {seen}");
            let has_memory = value(&page, "loadgen_broker_resident_bytes").is_some();
            seen = if has_memory { sent } else { seen };
        }
        let report = running.join().expect("no panic").report;
        assert!(seen > 0.0 && seen <= report.records_sent as f64, "{seen}");
    });
    assert!(TcpStream::connect(address).is_err(), "it ends with the run");
}
