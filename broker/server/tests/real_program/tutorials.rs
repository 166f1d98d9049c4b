//! What the tutorials make their readers do with files, folders and settings, and see on the wire;
//! docs/tutorials.md names the test of each of their rows.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{self, Broker};
use crate::programs::Names;
use crate::raw::{
    Bytes, Connection, Outcome, batch, create_topic, create_topic_with, fetch, i16_at, i32_at,
    i64_at, produce, produce_when_ready, with_length,
};
use crate::start_up::Folder;

const READY_WITHIN: Duration = Duration::from_secs(20);

/// `millrace serve FILE` in the foreground until it is dropped.
struct Served(Child);

impl Served {
    /// Starts from a file in which `{port}` and `{data}` stand for what the test may use.
    fn start(folder: &Folder, text: &str, port: u16) -> Self {
        let data = folder.0.join("data").display().to_string();
        let text = text.replace("{port}", &port.to_string()).replace("{data}", &data);
        let file = folder.file("server.properties", &text);
        let mut command = Command::new(process::program());
        command
            .arg("serve")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("cargo built the program");
        let end = Instant::now() + READY_WITHIN;
        while !process::answers_api_versions(&format!("127.0.0.1:{port}")) {
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none() && Instant::now() < end, "{ended:?} with\n{text}");
            thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Node, host and port of the first broker in an answer to Metadata v0.
fn told_by(bootstrap: &str) -> (i32, String, i32) {
    let mut client = Connection::open(bootstrap);
    let Outcome::Answer(answer) = client.exchange(&Bytes::request(3, 0).i32(0).0) else {
        panic!("the broker closed the connection");
    };
    let length = usize::try_from(i16_at(&answer, 12)).expect("a host");
    let host = String::from_utf8_lossy(&answer[14..14 + length]).into_owned();
    (i32_at(&answer, 8), host, i32_at(&answer, 14 + length))
}

/// Every broker key of the reference in tutorial 001, its values in the notation that is legal.
const REFERENCE: &str = "broker.id=3\nport={port}\nhost.name=127.0.0.1\n\
    log.dirs={data}\nmessage.max.bytes=1000000\nnum.network.threads=3\nnum.io.threads=8\n\
    background.threads=4\nqueued.max.requests=500\nsocket.send.buffer.bytes=102400\n\
    socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\nnum.partitions=1\n\
    log.segment.bytes=1073741824\nlog.roll.hours=168\nlog.cleanup.policy=delete\n\
    log.retention.minutes=10080\nlog.cleanup.interval.mins=1\nlog.retention.bytes=-1\n\
    log.retention.check.interval.ms=300000\nlog.cleaner.enable=false\nlog.cleaner.threads=1\n\
    log.cleaner.dedupe.buffer.size=524288000\nlog.cleaner.io.buffer.size=524288\n\
    log.cleaner.io.buffer.load.factor=0.9\nlog.cleaner.backoff.ms=15000\n\
    log.cleaner.min.cleanable.ratio=0.5\nlog.cleaner.delete.retention.ms=86400000\n\
    log.index.size.max.bytes=10485760\nlog.index.interval.bytes=4096\n\
    log.flush.scheduler.interval.ms=3000\nlog.delete.delay.ms=60000\n\
    log.flush.offset.checkpoint.interval.ms=60000\nauto.create.topics.enable=true\n\
    default.replication.factor=1\ndelete.topic.enable=true\ncontroller.socket.timeout.ms=30000\n\
    controller.message.queue.size=10\nreplica.lag.time.max.ms=10000\n\
    replica.lag.max.messages=4000\nreplica.socket.timeout.ms=30000\n\
    replica.socket.receive.buffer.bytes=65536\nreplica.fetch.max.bytes=1048576\n\
    replica.fetch.wait.max.ms=500\nreplica.fetch.min.bytes=1\nnum.replica.fetchers=1\n\
    replica.high.watermark.checkpoint.interval.ms=5000\ncontrolled.shutdown.enable=false\n\
    controlled.shutdown.max.retries=3\ncontrolled.shutdown.retry.backoff.ms=5000\n\
    auto.leader.rebalance.enable=false\nleader.imbalance.per.broker.percentage=10\n\
    leader.imbalance.check.interval.seconds=300\noffset.metadata.max.bytes=4096\n\
    zookeeper.connect=localhost:2181\nzookeeper.session.timeout.ms=6000\n\
    zookeeper.connection.timeout.ms=6000\nzookeeper.sync.time.ms=2000\n";

#[test]
fn the_files_of_the_tutorials_start_the_broker() {
    let lower_case = "# first\n! second\nlisteners = plaintext://127.0.0.1:{port}\n\
        log.dirs : {data}\nzookeeper.connect=localhost:2185\nnum.partitions=\\\n  1\n";
    let id_0 = "broker.id=0\nlisteners=PLAINTEXT://:{port}\n\
        advertised.listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={data}\n";
    let by_name = "listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={data}\n\
        advertised.listeners=PLAINTEXT://broker1:1234\n";
    let nothing = "port={port}\nlog.dir={data}\n";
    // file, node, address told; port 0 stands for the port listened on
    type Row<'a> = (&'a str, i32, Option<(&'a str, i32)>);
    let rows: [Row<'_>; 5] = [
        (lower_case, 1, Some(("127.0.0.1", 0))),
        (id_0, 0, Some(("127.0.0.1", 0))),
        (by_name, 1, Some(("broker1", 1234))),
        (nothing, 1, None),
        (REFERENCE, 3, Some(("127.0.0.1", 0))),
    ];
    for (text, node, address) in rows {
        let (folder, port) = (Folder::new(), process::free_port());
        let _served = Served::start(&folder, text, port);
        let (found, host, found_port) = told_by(&format!("127.0.0.1:{port}"));
        assert_eq!(found, node, "{text}");
        if let Some((name, told)) = address {
            let told = if told == 0 { i32::from(port) } else { told };
            assert_eq!((host.as_str(), found_port), (name, told), "{text}");
        }
        let listens_on_all = text == id_0 || text == nothing;
        if listens_on_all
            && TcpStream::connect("[::1]:1").is_err_and(|e| e.raw_os_error() == Some(111))
        {
            TcpStream::connect(format!("[::1]:{port}")).expect("no host means IPv6 as well");
        }
    }
}

#[test]
fn each_listener_tells_its_own_address() {
    let (folder, port, other) = (Folder::new(), process::free_port(), process::free_port());
    let text = "listeners=IN://127.0.0.1:{port},OUT://127.0.0.1:OTHER\nlog.dirs={data}\n\
        listener.security.protocol.map=IN:PLAINTEXT,OUT:PLAINTEXT\n\
        advertised.listeners=IN://inside:1,OUT://outside:2\ninter.broker.listener.name=IN\n";
    let _served = Served::start(&folder, &text.replace("OTHER", &other.to_string()), port);
    assert_eq!(told_by(&format!("127.0.0.1:{port}")), (1, "inside".to_owned(), 1));
    assert_eq!(told_by(&format!("127.0.0.1:{other}")), (1, "outside".to_owned(), 2));
}

#[test]
fn another_address_is_told_after_a_restart_with_it() {
    let folder = Folder::new();
    for host in ["first.example", "second.example"] {
        let port = process::free_port();
        let text = "broker.id=5\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={data}\n\
            advertised.listeners=PLAINTEXT://HOST:9092\n";
        let _served = Served::start(&folder, &text.replace("HOST", host), port);
        assert_eq!(told_by(&format!("127.0.0.1:{port}")), (5, host.to_owned(), 9092));
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is there");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_data_folder_looks_as_kafkas_does() {
    let mut broker = Broker::start(&["offsets.topic.num.partitions=3"]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("files");
    let mut client = Connection::open(broker.bootstrap());
    let dense = [("index.interval.bytes", "1")];
    assert_eq!(create_topic_with(&mut client, &topic, &dense), 0);
    for _ in 0..3 {
        produce_when_ready(&mut client, &topic, &batch(b"value"));
    }
    let find = Bytes::request(10, 0).string("group");
    while !matches!(client.exchange(&find.0), Outcome::Answer(answer) if i16_at(&answer, 4) == 0) {}
    broker.restart_cleanly_after(|data| {
        let names = names_in(data);
        for name in [
            ".kafka_cleanshutdown",
            ".lock",
            "__cluster_metadata-0",
            "log-start-offset-checkpoint",
            "meta.properties",
            "recovery-point-offset-checkpoint",
            &format!("{topic}-0"),
        ] {
            assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
        }
        let files = names_in(&data.join(format!("{topic}-0")));
        for name in [
            "00000000000000000000.index",
            "00000000000000000000.log",
            "00000000000000000000.timeindex",
            "leader-epoch-checkpoint",
            "partition.metadata",
        ] {
            assert!(files.iter().any(|found| found == name), "{name} in {files:?}");
        }
        let points = fs::read_to_string(data.join("recovery-point-offset-checkpoint"));
        let points = points.expect("it is there");
        assert!(points.lines().any(|line| line == format!("{topic} 0 3")), "{points}");
    });
}

#[test]
fn what_is_removed_from_a_stopped_brokers_folder_is_gone_and_nothing_else() {
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        return;
    }
    let names = Names::fresh();
    let (kept, removed) = (names.topic("kept"), names.topic("removed"));
    let record = batch(b"value");
    let mut client = Connection::open(broker.bootstrap());
    for topic in [&kept, &removed] {
        assert_eq!(create_topic(&mut client, topic), 0);
        assert_eq!(produce_when_ready(&mut client, topic, &record), (0, 0));
        assert_eq!(produce(&mut client, topic, &record), (0, 1));
    }
    broker.restart_cleanly_after(|data| {
        fs::remove_dir_all(data.join(format!("{removed}-0"))).expect("it is there");
    });
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(fetch(&mut client, &kept, 0).1.len(), 2 * record.len());
    assert_eq!(produce_when_ready(&mut client, &removed, &record), (0, 0), "it is empty");
    let log = broker.log();
    assert!(log.contains(&format!("{removed}-0: its folder is gone")), "{log}");
    let meta = |data: &Path| fs::read_to_string(data.join("meta.properties")).expect("it is there");
    let before = meta(&broker.data_folder());
    broker.restart_cleanly_after(|data| fs::remove_dir_all(data).expect("it is ours"));
    assert_ne!(meta(&broker.data_folder()), before, "another cluster");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(fetch(&mut client, &kept, 0).0, 3, "the topic is unknown");
}

#[test]
fn topics_are_made_and_deleted_only_as_the_settings_say() {
    let broker = Broker::start(&["auto.create.topics.enable=false", "delete.topic.enable=false"]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("settled");
    let mut client = Connection::open(broker.bootstrap());
    let ask = |client: &mut Connection, request: Bytes, at: usize| match client.exchange(&request.0)
    {
        Outcome::Answer(answer) => i16_at(&answer, at),
        Outcome::Closed => panic!("the broker closed the connection"),
    };
    // Metadata v0 asks for a topic, and makes it where that is allowed; after the only broker's
    // id, host and port come the topics.
    let host = broker.bootstrap().split(':').next().expect("host:port").len();
    let metadata = Bytes::request(3, 0).i32(1).string(&topic);
    for _ in 0..3 {
        assert_eq!(ask(&mut client, metadata.clone(), 4 + 4 + 4 + 2 + host + 4 + 4), 3);
    }
    assert_eq!(create_topic(&mut client, &topic), 0, "but by command");
    for (version, error) in [(1, 42), (3, 73)] {
        let request = Bytes::request(20, version).i32(1).string(&topic).i32(10_000);
        assert_eq!(ask(&mut client, request, 4 + 4 + 4 + 2 + topic.len()), error);
    }
    assert_eq!(produce_when_ready(&mut client, &topic, &batch(b"value")), (0, 0));
}

#[test]
fn a_fetch_waits_for_bytes_or_for_its_time() {
    let broker = Broker::start(&[]);
    let topic = Names::fresh().topic("waits");
    let record = batch(b"value");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create_topic(&mut client, &topic), 0);
    assert_eq!(produce_when_ready(&mut client, &topic, &record), (0, 0));
    let fetch_from = |offset: i64, wait_ms: i32, bytes_min: i32| {
        let request = Bytes::request(1, 4).i32(-1).i32(wait_ms).i32(bytes_min).i32(1 << 20).i8(0);
        request.i32(1).string(&topic).i32(1).i32(0).i64(offset).i32(1 << 20)
    };
    let records_at = 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 18 + 4;
    // More than there is: what there is comes when the time is over.
    let Outcome::Answer(answer) = client.exchange(&fetch_from(0, 200, 1 << 20).0) else {
        panic!("closed");
    };
    assert_eq!(i32_at(&answer, records_at), i32::try_from(record.len()).expect("small"));
    // Longer than this test: only a record ends it, and what is asked behind it waits.
    let mut reader = Connection::open(broker.bootstrap());
    reader.write(&with_length(&fetch_from(1, 600_000, 1).0));
    reader.write(&with_length(&Bytes::request(18, 0).0));
    reader.set_read_timeout(Duration::from_millis(300));
    assert_eq!(reader.try_outcome(), None, "nothing to read yet");
    assert_eq!(produce(&mut client, &topic, &record), (0, 1));
    reader.set_read_timeout(READY_WITHIN);
    let Outcome::Answer(answer) = reader.outcome() else { panic!("closed") };
    assert_eq!(i64_at(&answer, records_at + 4), 1, "base offset of the new batch");
    let Outcome::Answer(answer) = reader.outcome() else { panic!("closed") };
    assert_eq!(answer[..6], [0, 0, 0, 7, 0, 0], "then that of ApiVersions");
}

#[test]
fn only_idle_connections_are_closed() {
    let broker = Broker::start(&["connections.max.idle.ms=600"]);
    if !broker.is_own() {
        return;
    }
    let mut idle = Connection::open(broker.bootstrap());
    let mut busy = Connection::open(broker.bootstrap());
    let api_versions = Bytes::request(18, 0).0;
    assert!(matches!(idle.exchange(&api_versions), Outcome::Answer(_)));
    idle.set_read_timeout(Duration::from_millis(50));
    let end = Instant::now() + READY_WITHIN;
    loop {
        assert!(matches!(busy.exchange(&api_versions), Outcome::Answer(_)), "it was used");
        match idle.try_outcome() {
            Some(outcome) => break assert_eq!(outcome, Outcome::Closed),
            None => assert!(Instant::now() < end, "the idle one is still open"),
        }
    }
}

#[test]
fn a_topic_path_is_the_topic_and_the_partitions_number() {
    let broker = Broker::start(&["num.partitions=3"]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("parts");
    let mut client = Connection::open(broker.bootstrap());
    let metadata = Bytes::request(3, 0).i32(1).string(&topic);
    let folders =
        |number: i32| -> PathBuf { broker.data_folder().join(format!("{topic}-{number}")) };
    let end = Instant::now() + READY_WITHIN;
    // The first request makes it; records make its folders.
    while (0..3).any(|number| !folders(number).exists()) {
        assert!(matches!(client.exchange(&metadata.0), Outcome::Answer(_)));
        for number in 0..3 {
            crate::raw::produce_to(&mut client, &topic, number, &batch(b"value"));
        }
        assert!(Instant::now() < end, "{:?}", names_in(&broker.data_folder()));
    }
    assert!(!folders(3).exists(), "three partitions, from 0 to 2");
}
