//! Fetch sessions over the wire, and which of the foreign clients use them.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::process::Broker;
use crate::programs::{Names, Program, Run};
use crate::raw::{
    Bytes, Connection, Outcome, batch, create_topic, i16_at, i32_at, produce, produce_to,
};

/// What a Fetch answered: error, session, and the partitions named with their errors.
type Answer = (i16, i32, Vec<(i32, i16)>);

/// Fetch v7 that does not wait: `(partition, offset)` wanted and partitions forgotten.
fn fetch(
    connection: &mut Connection,
    topic: &str,
    session: (i32, i32),
    wanted: &[(i32, i64)],
    forgotten: &[i32],
) -> Answer {
    fetch_up_to(1 << 20, connection, topic, session, wanted, forgotten)
}

/// As [`fetch`], of so many bytes, but for the first batch, which always comes whole.
fn fetch_up_to(
    bytes_max: i32,
    connection: &mut Connection,
    topic: &str,
    session: (i32, i32),
    wanted: &[(i32, i64)],
    forgotten: &[i32],
) -> Answer {
    let count = |items: usize| i32::try_from(items).expect("few");
    let named = |request: Bytes, any: bool| {
        if any { request.i32(1).string(topic) } else { request.i32(0) }
    };
    let request = Bytes::request(1, 7).i32(-1).i32(0).i32(1).i32(bytes_max).i8(0);
    let request = request.i32(session.0).i32(session.1);
    let mut request = named(request, !wanted.is_empty());
    if !wanted.is_empty() {
        request = request.i32(count(wanted.len()));
    }
    for (partition, offset) in wanted {
        request = request.i32(*partition).i64(*offset).i64(-1).i32(1 << 20);
    }
    request = named(request, !forgotten.is_empty());
    if !forgotten.is_empty() {
        request = request.i32(count(forgotten.len()));
    }
    let request = forgotten.iter().fold(request, |request, partition| request.i32(*partition));
    let Outcome::Answer(answer) = connection.exchange(&request.0) else {
        panic!("the broker closed the connection of a Fetch request");
    };
    // correlation, throttle time, error, session
    let (error, id) = (i16_at(&answer, 8), i32_at(&answer, 10));
    let mut partitions = Vec::new();
    let mut at = 18;
    for _ in 0..i32_at(&answer, 14) {
        at += 2 + topic.len();
        let count = i32_at(&answer, at);
        at += 4;
        for _ in 0..count {
            partitions.push((i32_at(&answer, at), i16_at(&answer, at + 4)));
            // index, error, high watermark, last stable offset, log start, no aborted, records
            let bytes = i32_at(&answer, at + 34);
            at += 38 + usize::try_from(bytes).expect("never null");
        }
    }
    assert_eq!(at, answer.len(), "the answer ends with its last partition");
    (error, id, partitions)
}

/// Every partition of a topic of three, from its beginning.
const ALL: [(i32, i64); 3] = [(0, 0), (1, 0), (2, 0)];

fn topic_of_three(client: &mut Connection) -> String {
    let topic = Names::fresh().topic("sessions");
    let request = Bytes::request(19, 4).i32(1).string(&topic).i32(3).i16(1).i32(0).i32(0);
    assert!(matches!(client.exchange(&request.i32(10_000).i8(0).0), Outcome::Answer(_)));
    // Apache Kafka answers with errors until the new partitions have their leader.
    while fetch(client, &topic, (0, -1), &ALL, &[]) != (0, 0, vec![(0, 0), (1, 0), (2, 0)]) {}
    topic
}

/// Whoever brought records is read last next time.
#[test]
fn an_answer_too_small_for_all_partitions_serves_them_in_turn() {
    let broker = Broker::start(&["millrace.shards=2"]);
    let mut client = Connection::open(broker.bootstrap());
    let topic = topic_of_three(&mut client);
    for partition in [0, 0, 0, 1, 1, 1, 2, 2, 2] {
        assert_eq!(produce_to(&mut client, &topic, partition, &batch(b"record")).0, 0);
    }
    let one_batch = i32::try_from(batch(b"record").len()).expect("small");
    let mut read = |session, wanted: &[(i32, i64)]| {
        fetch_up_to(one_batch, &mut client, &topic, session, wanted, &[])
    };
    let (_, id, _) = read((0, 0), &ALL);
    let mut offsets = [1, 0, 0];
    let (mut last, mut turns) = (0, Vec::new());
    for epoch in 1..9 {
        let wanted = [(last, offsets[usize::try_from(last).expect("0 to 2")])];
        let (error, _, partitions) = read((id, epoch), &wanted);
        let [(partition, 0)] = partitions[..] else { panic!("{error}, {partitions:?}") };
        turns.push(partition);
        offsets[usize::try_from(partition).expect("0 to 2")] += 1;
        last = partition;
    }
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 1, 2]);
}

/// Two connections are on two shards; the session's id names the one that keeps it.
#[test]
fn a_session_is_found_from_any_connection() {
    let broker = Broker::start(&["millrace.shards=2"]);
    let mut one = Connection::open(broker.bootstrap());
    let mut two = Connection::open(broker.bootstrap());
    let topic = topic_of_three(&mut one);
    let whole = vec![(0, 0), (1, 0), (2, 0)];
    let (error, id, partitions) = fetch(&mut one, &topic, (0, 0), &ALL, &[]);
    assert_eq!((error, partitions), (0, whole.clone()), "a full answer");
    assert_ne!(id, 0, "a session");
    assert_eq!(fetch(&mut one, &topic, (id, 1), &[], &[]), (0, id, vec![]), "no news");
    assert_eq!(produce(&mut one, &topic, &batch(b"record")), (0, 0));
    assert_eq!(fetch(&mut two, &topic, (id, 2), &[], &[]), (0, id, vec![(0, 0)]), "records");
    assert_eq!(fetch(&mut one, &topic, (id, 3), &[(0, 1)], &[]), (0, id, vec![]), "read");
    let beyond = fetch(&mut two, &topic, (id, 4), &[(1, 9)], &[0]);
    assert_eq!(beyond, (0, id, vec![(1, 1)]), "an error");
    assert_eq!(produce(&mut one, &topic, &batch(b"record")), (0, 1));
    let within = fetch(&mut one, &topic, (id, 5), &[(1, 0)], &[]);
    assert_eq!(within, (0, id, vec![(1, 0)]), "it is over");
    assert_eq!(fetch(&mut two, &topic, (id, 5), &[], &[]), (71, 0, vec![]), "an old epoch");
    assert_eq!(fetch(&mut two, &topic, (0, 1), &[], &[]), (70, 0, vec![]), "no id");
    let (error, other, _) = fetch(&mut two, &topic, (id, 0), &ALL, &[]);
    assert!(error == 0 && other != id && other != 0, "a new session ends the one it names");
    let sessionless = fetch(&mut two, &topic, (other, -1), &ALL, &[]);
    assert_eq!(sessionless, (0, 0, whole), "ends the session, too");
    for gone in [id, other] {
        assert_eq!(fetch(&mut two, &topic, (gone, 6), &[], &[]), (70, 0, vec![]), "{gone}");
    }
}

#[test]
fn without_slots_there_are_no_sessions() {
    let broker = Broker::start(&["max.incremental.fetch.session.cache.slots=0"]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("slots");
    let mut connection = Connection::open(broker.bootstrap());
    assert_eq!(create_topic(&mut connection, &topic), 0);
    for _ in 0..2 {
        assert_eq!(fetch(&mut connection, &topic, (0, 0), &[(0, 0)], &[]), (0, 0, vec![(0, 0)]));
    }
}

/// Clients that keep sessions name only what changes; the others never ask for one.
#[test]
fn java_and_kafka_python_use_sessions() {
    let python = Program::Python { environment: "python", file: "kafka_python.py" };
    let librdkafka = Program::Python { environment: "python", file: "librdkafka.py" };
    let java = Program::Java { line: "current", class: "Clients" };
    let java_2_4 = Program::Java { line: "old", class: "Clients" };
    let rows = [(java, true), (java_2_4, true), (python, true), (librdkafka, false)];
    for (program, uses_sessions) in rows {
        if !program.is_ready() {
            continue;
        }
        let spy = Spy::new();
        let broker = Broker::start(&[&format!("advertised.listeners=PLAINTEXT://{}", spy.address)]);
        if !broker.is_own() {
            return;
        }
        spy.watch(broker.bootstrap());
        Run::new(&broker).phases(program, &["create", "write", "group", "latest"]);
        let seen = spy.seen.lock().expect("no thread panicked");
        let (going_on, rest): (Vec<Seen>, Vec<Seen>) = seen.iter().partition(|seen| seen.epoch > 0);
        println!("{program:?}: {} of {} fetches in sessions", going_on.len(), seen.len());
        assert!(!rest.is_empty(), "{program:?} fetched nothing");
        assert_eq!(!going_on.is_empty(), uses_sessions, "{program:?}: {rest:?}");
        if uses_sessions {
            let least = going_on.iter().map(|seen| seen.bytes).min();
            let full = rest.iter().map(|seen| seen.bytes).max();
            println!("{program:?}: {least:?} bytes instead of {full:?}");
            assert!(least < full, "{program:?}: {least:?} bytes of a full request's {full:?}");
        }
    }
}

/// A Fetch request on its way.
#[derive(Debug, Clone, Copy)]
struct Seen {
    bytes: usize,
    epoch: i32,
}

/// Stands between clients and the broker and looks at Fetch requests.
struct Spy {
    listener: TcpListener,
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Spy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        Self { listener, address, seen: Arc::default() }
    }

    /// Passes everything on, in threads that end with their connections.
    fn watch(&self, broker: &str) {
        let listener = self.listener.try_clone().expect("a file descriptor is left");
        let (broker, seen) = (broker.to_owned(), Arc::clone(&self.seen));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(broker)) = (client, TcpStream::connect(&broker)) else {
                    return;
                };
                let seen = Arc::clone(&seen);
                let back = (broker.try_clone(), client.try_clone());
                if let (Ok(mut from), Ok(mut to)) = back {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                thread::spawn(move || {
                    let _ = pass_on(client, &broker, &seen);
                    let _ = broker.shutdown(Shutdown::Both);
                });
            }
        });
    }
}

fn pass_on(
    mut client: TcpStream,
    mut broker: &TcpStream,
    seen: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    loop {
        let mut size = [0_u8; 4];
        client.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        client.read_exact(&mut frame)?;
        if i16_at(&frame, 0) == 1 {
            seen.lock().expect("no thread panicked").push(look_at(&frame));
        }
        broker.write_all(&size)?;
        broker.write_all(&frame)?;
    }
}

fn look_at(frame: &[u8]) -> Seen {
    let version = i16_at(frame, 2);
    if version < 7 {
        return Seen { bytes: frame.len(), epoch: -1 };
    }
    let client_id = usize::try_from(i16_at(frame, 8)).unwrap_or(0);
    // header, its tags, replica id, wait, minimum, maximum, isolation, session id
    let replica = if version < 15 { 4 } else { 0 };
    let at = 10 + client_id + usize::from(version >= 12) + replica + 13 + 4;
    Seen { bytes: frame.len(), epoch: i32_at(frame, at) }
}
