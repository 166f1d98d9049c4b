//! Whole runs against a broker that is known to the last batch, sound or lying.

mod fake;
mod harness;

use fake::{Fake, Fault};
use harness::{Folder, args, run};
use hdrhistogram::Histogram;
use loadgen::args::{Acks, Codec, ConsumeArgs, FindMaxArgs, QuickstartArgs, RunArgs, Switch};
use loadgen::findmax::{self, Slo};
use loadgen::gather::Live;
use loadgen::histogram::Latencies;
use loadgen::report::Outcome as RunOutcome;
use loadgen::run::{self, BrokerProcess, Surroundings};
use loadgen::study::metric::Outcome;
use loadgen::study::{engine, file};
use loadgen::{catchup, quickstart};
use std::time::Duration;

const TEN_MS: Duration = Duration::from_millis(10);

/// What spoils a result, without those reasons that come from a slow host.
fn complaints(outcome: &RunOutcome) -> Vec<String> {
    let reasons = outcome.report.invalid_reasons.iter();
    reasons.filter(|reason| !reason.contains("client")).cloned().collect()
}

#[test]
fn every_record_of_a_sound_broker_is_verified_and_every_count_is_exact() {
    type Change = fn(&mut RunArgs);
    let rows: [(&str, Change); 11] = [
        ("open", |_| ()),
        ("acks 1", |args| args.acks = Acks::Leader),
        ("acks 0", |args| args.acks = Acks::None),
        ("one by one", |args| args.batch_records = 1),
        ("keys", |args| args.keys = 100),
        ("idempotent", |args| args.idempotent = Switch::On),
        ("zstd", |args| args.codec = Codec::Zstd),
        ("read back", |args| args.consumers = 0),
        ("fan-out", |args| (args.consumers, args.fanout) = (2, 2)),
        ("several batches a request", |args| args.batches_per_request = 3),
        ("poisson", |args| args.spread = loadgen::schedule::Spread::Poisson),
    ];
    for (name, change) in rows {
        let fake = Fake::start(Fault::None);
        let mut args = args(&fake);
        args.duration = Duration::from_millis(400);
        change(&mut args);
        let report = run(&args).report;
        let seen = fake.counts();
        let is_poisson = name == "poisson";
        // 0.5 s at 1,000 records a second, cut to whole requests of each connection.
        let expected = 500;
        let slack = u64::from(args.batch_records * args.batches_per_request * args.connections);
        let slack = if is_poisson { 200 } else { slack };
        assert!(report.records_sent.abs_diff(expected) <= slack, "{name} {}", report.records_sent);
        assert_eq!(report.records_sent, seen.records, "{name}");
        assert_eq!(report.records_verified, seen.records, "{name}: {:?}", report.integrity);
        assert_eq!(seen.largest_batch, u64::from(args.batch_records), "{name}");
        assert_eq!(seen.records, seen.batches * u64::from(args.batch_records), "{name}");
        let batches = seen.requests * u64::from(args.batches_per_request);
        assert_eq!(seen.batches, batches, "{name}");
        assert_eq!(report.records_per_batch, Some(f64::from(args.batch_records)), "{name}");
        assert_eq!(report.batches_per_request, Some(f64::from(args.batches_per_request)), "{name}");
        assert_eq!((report.errors, report.integrity.foreign), (0, 0), "{name}");
        let has_answers = args.acks != Acks::None;
        assert_eq!(report.response_us.count > 0, has_answers, "{name}");
        assert_eq!(report.end_to_end_us.count > 0, args.consumers > 0, "{name}");
    }
}

#[test]
fn a_lying_broker_is_found_out() {
    let rows: [(Fault, [u64; 4], &str); 6] = [
        // lost, duplicated, reordered, altered
        (Fault::Lose(50), [5, 0, 0, 0], "lost"),
        (Fault::Double(50), [0, 5, 0, 0], "duplicated"),
        (Fault::Swap(50), [0, 0, 5, 0], "out of order"),
        (Fault::Alter(50), [1, 0, 0, 1], "altered"),
        (Fault::AlterBehindCrc(50), [5, 0, 0, 5], "altered"),
        (Fault::None, [0; 4], ""),
    ];
    for (fault, expected, words) in rows {
        let fake = Fake::start(fault);
        let mut args = args(&fake);
        // Neighbours in a partition come from one connection, so that a swap is one of sequences.
        args.connections = 1;
        let outcome = run(&args);
        let found = &outcome.report.integrity;
        let counts = [found.lost, found.duplicated, found.reordered, found.altered];
        assert_eq!(counts, expected, "{fault:?}: {found:?}");
        assert_eq!(outcome.report.valid || fault == Fault::None, fault == Fault::None, "{fault:?}");
        let complaints = complaints(&outcome);
        match words {
            "" => assert!(complaints.is_empty(), "{complaints:?}"),
            _ => assert!(complaints.iter().any(|c| c.contains(words)), "{fault:?} {complaints:?}"),
        }
    }
}

#[test]
fn errors_are_counted_by_code_and_retried_when_kafka_says_so() {
    // NOT_LEADER_OR_FOLLOWER is retriable, MESSAGE_TOO_LARGE is not.
    let rows = [
        (Fault::Refuse(50, 6), "NOT_LEADER_OR_FOLLOWER (6)", 1, 0),
        (Fault::Refuse(50, 10), "MESSAGE_TOO_LARGE (10)", 0, 5),
    ];
    for (fault, name, retries, uncertain) in rows {
        let fake = Fake::start(fault);
        let report = run(&args(&fake)).report;
        assert_eq!(report.errors_by_code.get(name), Some(&1), "{:?}", report.errors_by_code);
        assert_eq!((report.errors, report.retries), (1, retries), "{fault:?}");
        assert_eq!(report.integrity.uncertain, uncertain, "{fault:?}");
        assert_eq!(report.integrity.lost, 0, "{fault:?}: what was refused is not lost");
        assert_eq!(report.records_verified + uncertain, report.records_sent, "{fault:?}");
        assert!(!report.valid, "errors spoil a result");
    }
}

#[test]
fn a_lost_connection_is_made_again_and_leaves_only_doubt() {
    let fake = Fake::start(Fault::HangUp(50));
    let report = run(&args(&fake)).report;
    assert_eq!(report.integrity.lost, 0, "{:?}", report.integrity);
    assert!(report.integrity.uncertain >= 5);
    assert!(report.errors_by_code.contains_key("CONNECTION_LOST"), "{:?}", report.errors_by_code);
    assert!(report.records_sent > 1_000, "the load went on: {}", report.records_sent);
}

#[test]
fn an_open_loop_sees_a_stall_in_its_share_of_the_samples_and_a_closed_loop_does_not() {
    let stall = Fault::Freeze(Duration::from_millis(400), Duration::from_millis(500));
    let late = |latencies: &loadgen::histogram::Latencies| latencies.count_above_us(250_000.0);

    let fake = Fake::start(stall);
    let mut open = args(&fake);
    (open.connections, open.batch_records) = (1, 1);
    (open.duration, open.warmup) = (Duration::from_secs(2), Duration::ZERO);
    let outcome = run(&open);
    // Due in the first half of the stall: 250 ms at 1,000 a second. A slow host makes it more, and
    // moves the start of the stall by the time of the first request.
    let (response, service) = (late(&outcome.response), late(&outcome.service));
    assert!((200..600).contains(&response), "{response} late responses");
    assert!(service <= 2 * 5, "service times hide it: {service} late");

    let fake = Fake::start(stall);
    let mut closed = args(&fake);
    (closed.connections, closed.batch_records, closed.inflight) = (1, 1, 1);
    (closed.duration, closed.warmup, closed.rate) = (Duration::from_secs(2), Duration::ZERO, None);
    let outcome = run(&closed);
    let response = late(&outcome.response);
    assert!((1..10).contains(&response), "{response} late responses of a closed loop");
}

#[test]
fn a_known_delay_is_measured_back() {
    let delay = Duration::from_millis(20);
    let fake = Fake::start(Fault::Delay(delay));
    let mut args = args(&fake);
    (args.connections, args.batch_records, args.rate) = (1, 1, Some(20.0));
    args.duration = Duration::from_secs(2);
    let outcome = run(&args);
    let p50_us = outcome.report.response_us.p50.expect("40 samples");
    // Never less than the delay; a loaded host adds to it.
    assert!((20_000.0..120_000.0).contains(&p50_us), "{p50_us}");
    let least_us = outcome.service.quantile_us(0.0).expect("40 samples");
    // The clock is read after the write; a busy host may take the thread away between the two.
    assert!(least_us >= 10_000.0, "{least_us}");
}

#[test]
fn linger_cuts_batches_by_time_and_by_count() {
    for (linger_ms, batch_records, expected) in [(20.0, 100, 10.0..12.5), (50.0, 10, 9.9..10.1)] {
        let fake = Fake::start(Fault::None);
        let mut args = args(&fake);
        (args.linger_ms, args.batch_records, args.connections) = (linger_ms, batch_records, 2);
        let report = run(&args).report;
        // 500 records a second on each connection: one every 2 ms, 11 in 20 ms.
        let per_batch = report.records_per_batch.expect("there are batches");
        assert!(expected.contains(&per_batch) || per_batch > 10.0, "{per_batch}");
        assert!(per_batch <= f64::from(batch_records));
        assert_eq!(report.records_verified, fake.counts().records);
        assert!(report.records_sent.abs_diff(1_100) <= 2, "{}", report.records_sent);
    }
    // Records 50 ms apart, each alone in its batch, which is due to leave 40 ms after it.
    let fake = Fake::start(Fault::None);
    let mut args = args(&fake);
    (args.linger_ms, args.rate, args.connections) = (40.0, Some(20.0), 1);
    args.duration = Duration::from_secs(2);
    let report = run(&args).report;
    assert_eq!(report.records_per_batch, Some(1.0));
    let lag_us = report.schedule_lag_percentiles_us.p50.expect("40 samples");
    assert!(lag_us < 20_000.0, "to wait as asked is no lag: {lag_us}");
}

#[test]
fn a_topic_is_read_from_its_beginning_and_holes_are_seen() {
    for (fault, lost) in [(Fault::None, 0), (Fault::Lose(20), 5)] {
        let fake = Fake::start(fault);
        let mut args = args(&fake);
        (args.topic, args.keep_topic) = (Some("kept".to_owned()), true);
        (args.duration, args.connections) = (Duration::from_millis(400), 1);
        let sent = run(&args).report.records_sent;
        for fanout in [1, 3] {
            let consume = ConsumeArgs {
                target: args.target.clone(),
                topic: "kept".to_owned(),
                consumers: 2,
                fanout,
                fetch: args.fetch.clone(),
                bytes_per_second: 0,
                timeout: Duration::from_secs(60),
                json: None,
            };
            let found = catchup::consume(&consume, Live::Silent).expect("the topic is there");
            let expected = (sent - lost) * u64::from(fanout);
            assert_eq!((found.records, found.records_verified), (expected, expected));
            assert_eq!(found.integrity.lost, lost * u64::from(fanout), "{fault:?}");
            assert_eq!(found.valid, lost == 0, "{:?}", found.invalid_reasons);
        }
    }
}

#[test]
fn quickstart_fills_the_matrix_and_verifies_every_record() {
    let fake = Fake::start(Fault::None);
    let folder = Folder::new();
    let args = QuickstartArgs {
        bootstrap: Some(fake.address()),
        pid: None,
        cpus: Vec::new(),
        duration: Duration::from_millis(100),
        out: None,
    };
    let mut lines = Vec::new();
    let around = (Live::Silent, folder.0.as_path(), "loadgen quickstart");
    let mut show = |line: &str| lines.push(line.to_owned());
    let matrix = quickstart::run(&args, &fake.address(), BrokerProcess::None, around, &mut show)
        .expect("the matrix is run");
    assert!(matrix.is_verified(), "{:?}", matrix.headline.invalid_reasons);
    assert_eq!((matrix.cells.len(), lines.len()), (12, 13));
    assert_eq!(matrix.headline.records_verified, fake.counts().records);
    let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).expect(name);
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).expect("JSON");
    assert_eq!(json["records_verified"], fake.counts().records);
    assert_eq!(json["cells"][3]["batch_records"], 1000);
    assert!(read("report.html").matches("<tr>").count() > 12);
    assert!(read("acks-all-batch-100-response.hgrm").contains("#[Mean"));
}

#[test]
fn the_report_has_the_promised_keys_and_files() {
    let fake = Fake::start(Fault::None);
    let mut args = args(&fake);
    args.target.pid = Some(std::process::id());
    let folder = Folder::new();
    let around = Surroundings {
        broker: BrokerProcess::from_option(args.target.pid),
        live: Live::Silent,
        folder: &folder.0,
        command: "loadgen run --topic '<x>'",
        is_probed: true,
    };
    let outcome = run::run(&args, around).expect("the run ends with a report");
    outcome.write(&folder.0).expect("the folder can be written");
    let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).expect(name);
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).expect("JSON");
    let keys = [
        "valid",
        "invalid_reasons",
        "records_per_second",
        "bytes_per_second",
        "errors",
        "records_verified",
        "records_per_batch",
        "batches_per_request",
        "response_us",
        "service_us",
        "end_to_end_us",
        "broker_cpu_us_per_record",
        "broker_cpu_s_per_gb",
        "client_cpu_fraction",
        "schedule_lag_us",
        "configuration",
        "machine",
        "version",
        "command",
        "seed",
        "intervals",
    ];
    for key in keys {
        assert!(json.get(key).is_some(), "{key}");
    }
    for times in ["response_us", "service_us", "end_to_end_us"] {
        for key in ["p50", "p90", "p99", "p99_9", "p99_99", "max", "count"] {
            assert!(json[times].get(key).is_some(), "{times}.{key}");
        }
        // 200 batches: enough for p90, not for p99 and beyond.
        assert!(json[times]["p90"].is_f64() && json[times]["p99_9"].is_null(), "{times}");
    }
    assert!(json["broker_cpu_us_per_record"].is_f64(), "--pid was given");
    assert_eq!(json["configuration"]["record_bytes"], 100);
    let intervals = json["intervals"].as_array().expect("a list");
    let of_intervals: f64 =
        intervals.iter().filter_map(|row| row["records_per_second"].as_f64()).sum();
    let total = json["records_per_second"].as_f64().expect("a number");
    assert!((of_intervals / intervals.len() as f64 - total).abs() < total * 0.01);

    let html = read("report.html");
    assert!(html.contains("&lt;x&gt;") && !html.contains("<x>") && !html.contains("<script"));
    assert!(html.matches("<svg").count() >= 5 && html.contains("records verified"));
    assert_eq!(read("intervals.csv").lines().count(), intervals.len() + 1);
    assert!(read("summary.md").contains("| response |"));
    let hgrm = ["response.hgrm", "service.hgrm", "end_to_end.hgrm"];
    assert!(hgrm.iter().all(|name| read(name).contains("#[Mean")));
    for (name, whole) in
        [("response.hlog", &outcome.response), ("end_to_end.hlog", &outcome.end_to_end)]
    {
        assert_adds_up(&harness::interval_log(&read(name)), intervals.len(), whole);
    }
}

fn assert_adds_up(lines: &[(f64, Histogram<u64>)], intervals: usize, whole: &Latencies) {
    assert_eq!(lines.len(), intervals);
    let mut sum = lines[0].1.clone();
    lines[1..].iter().for_each(|(_, more)| sum.add(more).expect("the same bounds"));
    assert_eq!(sum.len(), whole.count());
    let ours = [0.1, 0.5, 0.9].map(|quantile| whole.quantile_us(quantile));
    let theirs = [0.1, 0.5, 0.9].map(|q| Some(sum.value_at_quantile(q) as f64 / 1e3));
    assert_eq!(ours, theirs);
}

#[test]
fn find_max_finds_what_a_broker_of_known_capacity_can_do() {
    // 10 ms a request, one after the other on the one connection: 100 a second.
    let fake = Fake::start(Fault::Delay(TEN_MS));
    let mut run = args(&fake);
    (run.connections, run.batch_records, run.partitions) = (1, 1, 1);
    (run.rate, run.duration) = (Some(50.0), Duration::from_millis(800));
    let slo = Slo::parse("p50=200ms").expect("a bound");
    let folder = Folder::new();
    let args = FindMaxArgs { slo, resolution: 20.0, run };
    let around = Surroundings {
        broker: BrokerProcess::None,
        live: Live::Silent,
        folder: &folder.0,
        command: "loadgen find-max",
        is_probed: false,
    };
    // On a host that stands still for a moment not even 50 a second hold: it may try again.
    let tries = (0..5).map(|_| findmax::find_max(&args, around).expect("it ends with a report"));
    let mut tries = tries.filter(|found| found.max_records_per_second.is_some());
    let found = tries.next().expect("50 a second hold");
    // A loaded host makes it less, nothing makes it more: 1 % may be missing at the end.
    let max = found.max_records_per_second.expect("it was looked for");
    assert!((40.0..=103.0).contains(&max), "{max}: {:?}", found.steps);
    assert!(found.steps.iter().any(|step| !step.has_held && step.rate >= max));
    let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).expect(name);
    assert!(
        read("summary.md").contains("| acknowledged |") && read("report.html").contains("<svg")
    );
    assert!(read("at-max/report.json").contains("\"response_us\""));
}

#[test]
fn a_study_interleaves_its_brokers_compares_them_and_goes_on_where_it_stopped() {
    let (fast, slow) = (Fake::start(Fault::None), Fake::start(Fault::Delay(TEN_MS)));
    let folder = Folder::new();
    let text = format!(
        "title = \"fast and slow\"\nrepeats = 3\nretries = 0\nsettle = \"1ms\"\n\
         [[broker]]\nname = \"fast\"\naddress = \"{}\"\n\
         [[broker]]\nname = \"slow\"\naddress = \"{}\"\n\
         [[row]]\nname = \"closed\"\nrun = \"--batch-records 1 --inflight 1 --warmup 0s \
         --duration 500ms --partitions 1\"\n\
         bounds = [\"records_per_second ratio >= 2\", \"response_us.p50 ratio >= 1\"]\n",
        fast.address(),
        slow.address()
    );
    let study = file::parse("s.toml", &text).expect("a sound study");
    let run = || engine::run(&study, &folder.0, Live::Silent, "loadgen study", Vec::new());
    let found = run().expect("both brokers answer");
    assert!(!found.partial);
    let row = &found.rows[0];
    // A closed loop of one request at a time: at most 50 requests of 10 ms in 500 ms.
    let per_second = &row.figures[0].brokers[1].values;
    assert!(per_second.iter().all(|value| *value <= 101.0), "{per_second:?}");
    let outcomes: Vec<Outcome> = row.demands.iter().map(|demand| demand.outcome).collect();
    if found.valid {
        assert_eq!(outcomes, [Outcome::Reached, Outcome::Missed]);
    }
    let read = |name: &str| std::fs::read_to_string(folder.0.join(name)).expect(name);
    assert!(read("summary.md").contains("| fast | slow | ratio |"));
    assert!(read("report.html").contains("records/s") && !read("report.html").contains("<script"));
    assert!(read("runs/closed/slow-3/response.hgrm").contains("#[Mean"));

    // Valid results are kept, others are measured again.
    let counts = (fast.counts().requests, slow.counts().requests);
    std::fs::remove_dir_all(folder.0.join("runs/closed/slow-2")).expect("it was measured");
    let kept = (1..=3)
        .filter(|n| {
            read(&format!("runs/closed/fast-{n}/report.json")).contains("\"cost_valid\": true")
        })
        .count();
    let found = run().expect("both brokers answer");
    assert!(!found.partial && slow.counts().requests > counts.1);
    assert_eq!(fast.counts().requests == counts.0, kept == 3);

    let other = file::parse("s.toml", &text.replace("repeats = 3", "repeats = 2"));
    let other = other.expect("a sound study");
    let error = engine::run(&other, &folder.0, Live::Silent, "", Vec::new());
    assert!(error.expect_err("another study").to_string().contains("holds another study"));
}
