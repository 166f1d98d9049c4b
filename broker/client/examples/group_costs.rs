//! What consumer groups cost a broker: the gap in delivery when a group of many members
//! rebalances, and the CPU of many groups that commit. For Millrace and Apache Kafka alike:
//!
//! ```text
//! group_costs BOOTSTRAP PID rebalance MEMBERS HEARTBEAT_MS ROUNDS
//! group_costs BOOTSTRAP PID commits GROUPS SECONDS
//! ```
//! PID is the broker's, for its CPU time in /proc. Start the broker with
//! `group.initial.rebalance.delay.ms=0`, or groups only wait at first.

#![allow(clippy::print_stdout, reason = "what it measures is printed")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_client::{
    Client, ClientError, Fetcher, Member, Options, Outgoing, Producer, To, TopicPartition, refuse,
};
use millrace_wire::compression::Compression;
use millrace_wire::messages::CreateTopicsRequest;
use millrace_wire::messages::create_topics_request::CreatableTopic;

type Outcome<T = ()> = Result<T, ClientError>;

/// Each partition gets a record so often.
const RECORD_EVERY: Duration = Duration::from_millis(50);
const LATEST: i64 = -1;
/// Kernel ticks of /proc/PID/stat, on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> u64 { args[at].parse().expect("a number") };
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [at, _, "rebalance", ..] if args.len() == 6 => {
            rebalance(at, number(3) as usize, Duration::from_millis(number(4)), number(5))
        }
        [at, _, "commits", ..] if args.len() == 5 => {
            commits(at, number(1), number(3) as usize, Duration::from_secs(number(4)))
        }
        _ => panic!("the usage is in the head of the source"),
    }
}

fn connect(bootstrap: &str, stop: &Arc<AtomicBool>) -> Outcome<Client> {
    Client::connect(bootstrap, Options { stop: Arc::clone(stop), ..Options::default() })
}

/// A topic of its own for each run.
fn create_topic(client: &mut Client, partitions: usize) -> Outcome<String> {
    let name = format!("group-costs-{}", std::process::id());
    let topic = CreatableTopic {
        name: &name,
        num_partitions: partitions as i32,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic].into();
    let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
    let answer = client.call(To::Controller, &request, 2..=4)?;
    for topic in &answer.topics {
        refuse(topic.error_code, None, || format!("making {name}"))?;
    }
    client.wait_for_topic(&name)?;
    Ok(name)
}

/// When each partition delivered last, and its longest gap, in nanoseconds since the start.
struct Deliveries {
    start: Instant,
    last: Vec<AtomicU64>,
    gap: Vec<AtomicU64>,
    /// The generation that each member is in; -1 of one that is not there.
    generations: Vec<AtomicI32>,
}

impl Deliveries {
    fn new(members: usize) -> Self {
        let zeros = || (0..members).map(|_| AtomicU64::new(0)).collect();
        let generations = (0..=members).map(|_| AtomicI32::new(-1)).collect();
        Self { start: Instant::now(), last: zeros(), gap: zeros(), generations }
    }

    fn note(&self, partition: usize) {
        let now = self.start.elapsed().as_nanos() as u64;
        let last = self.last[partition].swap(now, Relaxed);
        self.gap[partition].fetch_max(now.saturating_sub(last), Relaxed);
    }

    /// Waits until `count` members are in one generation after `before` and every partition has
    /// delivered in it; returns that generation.
    fn settle(&self, count: usize, before: i32) -> i32 {
        loop {
            thread::sleep(Duration::from_millis(5));
            let there: Vec<i32> = self.generations.iter().map(|g| g.load(Relaxed)).collect();
            let there: Vec<i32> = there.into_iter().filter(|generation| *generation >= 0).collect();
            let newest = there.iter().copied().max().unwrap_or(-1);
            if newest > before && there.len() == count && there.iter().all(|g| *g == newest) {
                let now = self.start.elapsed().as_nanos() as u64;
                while self.last.iter().any(|last| last.load(Relaxed) < now) {
                    thread::sleep(Duration::from_millis(5));
                }
                return newest;
            }
        }
    }

    /// Longest and median of the partitions' longest gaps, in ms, which begin anew.
    fn take_gaps(&self) -> (f64, f64) {
        let mut gaps: Vec<u64> = self.gap.iter().map(|gap| gap.swap(0, Relaxed)).collect();
        gaps.sort_unstable();
        let ms = |ns: u64| ns as f64 / 1e6;
        (ms(gaps[gaps.len() - 1]), ms(gaps[gaps.len() / 2]))
    }
}

/// Members come and go in a group that reads as many partitions as it has members.
fn rebalance(bootstrap: &str, members: usize, heartbeat: Duration, rounds: u64) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let topic = create_topic(&mut connect(bootstrap, &stop)?, members)?;
    let seen = Arc::new(Deliveries::new(members));
    let (at, name) = (bootstrap.to_owned(), topic.clone());
    let spawn = |slot: usize, stop: &Arc<AtomicBool>| {
        let (at, topic, seen, stop) = (at.clone(), name.clone(), Arc::clone(&seen), stop.clone());
        thread::spawn(move || consume(&at, &topic, heartbeat, slot, &seen, &stop))
    };
    let mut threads: Vec<_> = (0..members).map(|slot| spawn(slot, &stop)).collect();
    let producer = {
        let (at, topic, stop) = (at.clone(), topic.clone(), Arc::clone(&stop));
        thread::spawn(move || produce(&at, &topic, members, &stop))
    };
    let mut generation = seen.settle(members, 0);
    println!("members {members}, heartbeat {} ms", heartbeat.as_millis());
    for round in 0..rounds {
        thread::sleep(heartbeat + Duration::from_millis(500));
        seen.take_gaps();
        let leaves = Arc::new(AtomicBool::new(false));
        let one = spawn(members, &leaves);
        generation = seen.settle(members + 1, generation);
        let joined = seen.take_gaps();
        thread::sleep(heartbeat);
        seen.take_gaps();
        leaves.store(true, Relaxed);
        one.join().expect("it ends without a panic")?;
        generation = seen.settle(members, generation);
        let left = seen.take_gaps();
        println!(
            "round {round}: one joined, gap {:.0} ms (median partition {:.0}); one left, {:.0} ms \
             (median {:.0})",
            joined.0, joined.1, left.0, left.1
        );
    }
    stop.store(true, Relaxed);
    threads.push(producer);
    threads.into_iter().try_for_each(|thread| thread.join().expect("it ends without a panic"))
}

fn produce(bootstrap: &str, topic: &str, partitions: usize, stop: &Arc<AtomicBool>) -> Outcome {
    let mut client = connect(bootstrap, &Arc::default())?;
    let mut producer = Producer::new(&mut client, 1, Compression::None)?;
    while !stop.load(Relaxed) {
        let next = Instant::now() + RECORD_EVERY;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let timestamp = now.as_millis() as i64;
        let value = Some(b"record".to_vec());
        let record = || Outgoing { timestamp, value: value.clone(), ..Default::default() };
        let batches = (0..partitions as i32)
            .map(|partition| (TopicPartition::new(topic, partition), vec![record()]));
        producer.send(&mut client, batches.collect())?;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// One member, until it is told to leave.
fn consume(
    bootstrap: &str,
    topic: &str,
    heartbeat: Duration,
    slot: usize,
    seen: &Deliveries,
    stop: &Arc<AtomicBool>,
) -> Outcome {
    let mut client = connect(bootstrap, &Arc::default())?;
    let mut member = Member::new("group-costs", &[topic.to_owned()]);
    member.heartbeat_every = heartbeat;
    let mut fetcher = Fetcher::new(BTreeMap::new(), Some(LATEST));
    fetcher.wait = heartbeat.min(Duration::from_millis(100));
    let mut has_joined = false;
    while !stop.load(Relaxed) {
        if !has_joined || member.must_rejoin(&mut client)? {
            if has_joined {
                member.commit(&mut client, &fetcher.positions)?;
            }
            member.join(&mut client)?;
            has_joined = true;
            let mut positions = member.committed(&mut client)?;
            let missing = member.assigned().iter().filter(|at| !positions.contains_key(at));
            let missing: Vec<_> = missing.map(|at| (at.clone(), LATEST)).collect();
            let ends = client.offsets_at(&missing)?;
            positions.extend(ends.into_iter().map(|(at, (offset, _))| (at, offset)));
            fetcher.positions = positions;
            seen.generations[slot].store(member.generation(), Relaxed);
        }
        if fetcher.positions.is_empty() {
            thread::sleep(fetcher.wait);
            continue;
        }
        fetcher.poll::<ClientError>(&mut client, &mut |fetched| {
            seen.note(fetched.at.partition as usize);
            Ok(ControlFlow::Continue(()))
        })?;
    }
    member.commit(&mut client, &fetcher.positions)?;
    seen.generations[slot].store(-1, Relaxed);
    member.leave(&mut client)
}

/// CPU time of a process, in seconds.
fn cpu_seconds(pid: u64) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the broker is running");
    let after_name = stat.rsplit_once(')').expect("a name in brackets").1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Groups of one member each, which commit one offset a second, each on a connection of its own.
fn commits(bootstrap: &str, pid: u64, groups: usize, how_long: Duration) -> Outcome {
    const THREADS: usize = 8;
    let topic = create_topic(&mut connect(bootstrap, &Arc::default())?, 1)?;
    let (ready, begin) = (Arc::new(Barrier::new(THREADS + 1)), Arc::new(Barrier::new(THREADS + 1)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (at, topic) = (bootstrap.to_owned(), topic.clone());
            let (ready, begin) = (Arc::clone(&ready), Arc::clone(&begin));
            let own: Vec<usize> = (0..groups).filter(|group| group % THREADS == thread).collect();
            thread::spawn(move || commit_in_turns(&at, &topic, &own, how_long, &ready, &begin))
        })
        .collect();
    ready.wait();
    let (cpu, start) = (cpu_seconds(pid), Instant::now());
    begin.wait();
    let mut count = 0;
    for thread in threads {
        count += thread.join().expect("it ends without a panic")?;
    }
    let (cpu, elapsed) = (cpu_seconds(pid) - cpu, start.elapsed().as_secs_f64());
    println!(
        "groups {groups}: {count} commits in {elapsed:.1} s, broker's CPU {cpu:.2} s: {:.2} % of a \
         core, {:.0} us a commit",
        100.0 * cpu / elapsed,
        1e6 * cpu / count as f64
    );
    Ok(())
}

fn commit_in_turns(
    bootstrap: &str,
    topic: &str,
    groups: &[usize],
    how_long: Duration,
    ready: &Barrier,
    begin: &Barrier,
) -> Outcome<u64> {
    let mut members = Vec::new();
    for group in groups {
        let mut client = connect(bootstrap, &Arc::default())?;
        let mut member = Member::new(&format!("{topic}-{group}"), &[topic.to_owned()]);
        member.join(&mut client)?;
        members.push((client, member));
    }
    ready.wait();
    begin.wait();
    let (start, mut count) = (Instant::now(), 0_u64);
    let turn = Duration::from_secs(1) / groups.len().max(1) as u32;
    while start.elapsed() < how_long {
        for (client, member) in &mut members {
            let due = start + turn * count as u32;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            count += 1;
            let offsets = BTreeMap::from([(TopicPartition::new(topic, 0), count as i64)]);
            if member.must_rejoin(client)? || !member.commit(client, &offsets)? {
                member.join(client)?;
            }
        }
    }
    Ok(count)
}
