//! Is what loadgen says true? Each figure against another way to know it: a closed form, bytes that
//! another counted, delays that were injected, the kernel's own account of a child.
//!
//! Nothing here depends on how fast the host is: lower bounds hold whatever else runs, upper ones
//! leave room for what a loaded host adds, and are far below what a mistake would give.

mod fake;
mod harness;
mod proxy;

use fake::{Fake, Fault};
use harness::{args, args_for, interval_log, run};
use loadgen::args::{Acks, Codec, RunArgs, Switch};
use loadgen::histogram::Latencies;
use proxy::Proxy;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// `loadgen respond` as a process of its own, perhaps below a shell.
struct Responder {
    child: Child,
    output: BufReader<ChildStdout>,
    pid: u32,
    address: String,
}

impl Responder {
    fn start(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.args(["respond", "--listen", "127.0.0.1:0"]).args(options);
        let mut responder = Self::of(command);
        responder.pid = responder.child.id();
        responder
    }

    /// Below a shell that prints, after it has ended, what getrusage says of its children.
    fn start_below_a_shell() -> Self {
        let script = "\"$0\" respond --listen 127.0.0.1:0 & echo \"pid $!\"; wait $!; times";
        let mut command = Command::new("bash");
        command.args(["-c", script, env!("CARGO_BIN_EXE_loadgen")]);
        Self::of(command)
    }

    /// Waits for the lines that say the address, and perhaps the process.
    fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it can be started");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut responder = Self { child, output, pid: 0, address: String::new() };
        while responder.address.is_empty() {
            let mut line = String::new();
            let bytes = responder.output.read_line(&mut line).expect("text");
            assert!(bytes > 0, "it ended before it said its address");
            match line.trim().rsplit_once(' ').expect("two words") {
                ("pid", pid) => responder.pid = pid.parse().expect("a number"),
                (_, address) => responder.address = address.to_owned(),
            }
        }
        responder
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("it has been told");
        kill_process(pid, signal).expect("it is there");
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// 1,000 one-record requests a second on one connection for 10 s.
fn ten_seconds(responder: &Responder) -> RunArgs {
    let mut args = args_for(&responder.address);
    (args.connections, args.batch_records, args.consumers) = (1, 1, 0);
    (args.duration, args.warmup) = (Duration::from_secs(10), Duration::ZERO);
    args.fetch.verify = Switch::Off;
    args
}

/// A run during which the broker stands still for half a second; how long it did at least, at most.
fn run_with_a_stop(args: &RunArgs, responder: &Responder) -> (Latencies, Latencies, [f64; 2]) {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(args));
        std::thread::sleep(Duration::from_secs(4));
        let before = Instant::now();
        responder.signal(Signal::STOP);
        let stopped = Instant::now();
        std::thread::sleep(Duration::from_millis(500));
        let least = stopped.elapsed();
        responder.signal(Signal::CONT);
        let most = before.elapsed();
        let outcome = running.join().expect("no panic");
        (outcome.response, outcome.service, [least, most].map(|time| time.as_secs_f64()))
    })
}

#[test]
fn a_stopped_broker_is_seen_by_the_open_loop_in_the_share_of_the_closed_form() {
    let (steady, paced) = (Responder::start(&[]), Responder::start(&["--delay", "5ms"]));
    let open = ten_seconds(&steady);
    let mut closed = ten_seconds(&paced);
    (closed.rate, closed.inflight) = (None, 1);
    let ((response, service, [least, most]), (closed, ..)) = std::thread::scope(|scope| {
        let opened = scope.spawn(|| run_with_a_stop(&open, &steady));
        let closed = run_with_a_stop(&closed, &paced);
        (opened.join().expect("no panic"), closed)
    });
    let (samples, seconds) = (response.count() as f64, 10.0);
    for late_s in [0.1, 0.25, 0.4] {
        let share = |latencies: &Latencies| {
            latencies.count_above_us(late_s * 1e6) as f64 / latencies.count() as f64
        };
        // Due uniformly over the run; late are those due in the first part of the stop.
        let [form, form_max] = [least, most].map(|stop: f64| (stop - late_s) / seconds);
        assert!(share(&response) >= form - 2.0 / samples, "{late_s}: {} {form}", share(&response));
        assert!(share(&response) <= 2.0 * form_max, "{late_s}: {} {form_max}", share(&response));
        // One request was under way, and few more on a slow host.
        let hidden = share(&closed);
        assert!(hidden > 0.0 && hidden <= 0.1 * form, "{late_s}: closed {hidden}, open {form}");
        assert!(share(&service) <= 0.1 * form, "{late_s}: service times hide it too");
    }
}

#[test]
fn histograms_agree_with_a_sorted_list_of_the_same_samples() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut uniform = || random.f64();
    type Shape<'a> = &'a mut dyn FnMut() -> f64;
    let mut second = fastrand::Rng::with_seed(12);
    let shapes: [(&str, Shape<'_>); 4] = [
        ("uniform", &mut || 1e4 + 1e7 * uniform()),
        ("heavy tail", &mut || 2e4 / (1.0 - second.f64()).powf(0.8)),
        ("constant", &mut || 12_345_678.0),
        ("two humps", &mut || if fastrand::u8(..) < 5 { 5e8 } else { 3e5 }),
    ];
    for (name, shape) in shapes {
        let mut latencies = Latencies::default();
        let mut samples: Vec<u64> = (0..100_000).map(|_| shape() as u64).collect();
        samples.iter().for_each(|ns| latencies.record(*ns));
        samples.sort_unstable();
        let exact_us = |rank: usize| samples[rank] as f64 / 1e3;
        // Three digits: a thousandth of the value, and the unit of the lowest bucket.
        let agrees = |given: f64, exact: f64| (given - exact).abs() <= exact / 1e3 + 1.1;
        for (quantile, us) in latencies.curve() {
            // The largest sample that `quantile` of all do not exceed; a product may fall just
            // short of a whole rank.
            let rank = (samples.len() as f64 * quantile - 1e-6).ceil().max(1.0) as usize - 1;
            assert!(agrees(us, exact_us(rank)), "{name} {quantile}: {us} {}", exact_us(rank));
        }
        let percentiles = latencies.percentiles();
        let max = percentiles.max.expect("there are samples");
        assert!(agrees(max, exact_us(samples.len() - 1)), "{name}: {max}");
        assert_eq!(percentiles.count, 100_000);
        let mean = samples.iter().map(|ns| *ns as f64 / 1e3).sum::<f64>() / 1e5;
        assert!(agrees(latencies.mean_us(), mean), "{name}: {} {mean}", latencies.mean_us());
        // Half-way between samples far apart: exact.
        if name == "two humps" {
            let above = samples.iter().filter(|ns| **ns > 1_000_000).count() as u64;
            assert_eq!(latencies.count_above_us(1e3), above);
        }
    }
}

/// What HdrHistogram 2.2.2 for Java writes of the same samples, and what a reader makes of both.
#[test]
fn an_interval_log_is_that_of_hdrhistogram_for_java() {
    let mut ours = Vec::new();
    Latencies::write_hlog_head(1_700_000_000_123, &mut ours).expect("a vector takes it");
    let mut x = 42_u64;
    for start_s in [0.0, 0.5, 1.0] {
        let mut latencies = Latencies::default();
        for _ in 0..1_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            latencies.record(1_000 + (((x >> 33) % 1_000_000) << ((x >> 20) & 7)));
        }
        latencies.write_hlog(start_s, 0.5, &mut ours).expect("a vector takes it");
    }
    let ours = String::from_utf8(ours).expect("text");
    let java = include_str!("vectors/hdrhistogram-2.2.2.hlog");
    assert_eq!(interval_log(&ours), interval_log(java));
    assert_eq!(interval_log(java).len(), 3);
    // All but the packed samples, and the date in words.
    let heads = |text: &str| -> Vec<String> {
        let heads = text.lines().map(|line| line.rsplit_once(',').map_or(line, |cut| cut.0));
        heads.map(str::to_owned).collect()
    };
    assert_eq!(heads(&ours), heads(java));
}

#[test]
fn injected_delays_are_measured_back_in_their_shares() {
    const SHORT: Duration = Duration::from_millis(8);
    const MIDDLE: Duration = Duration::from_millis(24);
    const LONG: Duration = Duration::from_millis(72);
    static DELAYS: [Duration; 10] =
        [SHORT, MIDDLE, SHORT, SHORT, LONG, SHORT, MIDDLE, SHORT, MIDDLE, SHORT];
    let fake = Fake::start(Fault::Delays(&DELAYS));
    let mut args = args(&fake);
    (args.connections, args.batch_records, args.inflight) = (2, 1, 1);
    (args.rate, args.records, args.consumers) = (None, Some(500), 0);
    (args.duration, args.warmup) = (Duration::from_secs(60), Duration::ZERO);
    let outcome = run(&args);
    let kept_back = fake.delayed();
    let samples = kept_back.len();
    assert_eq!(samples, 500);
    // Service counts from when the write has returned: by then a busy host may have let the broker
    // work already.
    let rows = [("service", &outcome.service, 0.9), ("response", &outcome.response, 0.999)];
    for (name, measured, share) in rows {
        assert_eq!(measured.count(), samples as u64, "{name}");
        for (quantile, us) in measured.curve() {
            // Every request took at least as long as it was kept back, so every rank did.
            let rank = (samples as f64 * quantile - 1e-6).ceil().max(1.0) as usize - 1;
            let least_us = kept_back[rank].as_secs_f64() * 1e6;
            assert!(us >= least_us * share, "{name} {quantile}: {us} of {least_us}");
        }
        // In the first quarter of each of the three, where a busy host has added least, next to
        // nothing came on top.
        for quantile in [0.15, 0.675, 0.925] {
            let us = measured.quantile_us(quantile).expect("enough samples");
            let least_us = kept_back[(samples as f64 * quantile) as usize].as_secs_f64() * 1e6;
            assert!(us <= least_us * 1.15, "{name} {quantile}: {us} of {least_us}");
        }
    }
}

#[test]
fn counts_bytes_and_batch_sizes_are_those_of_the_bytes_on_the_wire() {
    type Change = fn(&mut RunArgs);
    let rows: [(&str, Change); 8] = [
        ("plain", |_| ()),
        ("one by one", |args| args.batch_records = 1),
        ("acks 0", |args| args.acks = Acks::None),
        ("several batches a request", |args| args.batches_per_request = 3),
        ("linger", |args| (args.linger_ms, args.batch_records) = (10.0, 100)),
        ("zstd", |args| (args.codec, args.compressible) = (Codec::Zstd, 80)),
        ("keys and ids", |args| (args.keys, args.idempotent) = (9, Switch::On)),
        ("closed", |args| args.rate = None),
    ];
    for (name, change) in rows {
        let proxy = Proxy::start();
        let fake = Fake::advertised_as(Some(proxy.address), Fault::None);
        proxy.forward_to(fake.address());
        let mut args = args_for(&proxy.address.to_string());
        // Ends when all is answered: the measured time holds every request.
        (args.records, args.duration) = (Some(600), Duration::from_secs(60));
        (args.warmup, args.record_bytes) = (Duration::ZERO, 321);
        change(&mut args);
        let report = run(&args).report;
        let seen = proxy.seen();
        let whole = |per_second: f64| (per_second * report.measured_seconds).round() as u64;
        assert!(seen.records >= 600, "{name}: {seen:?}");
        assert_eq!(report.records_sent, seen.records, "{name}");
        assert_eq!(report.records_verified, seen.fetched, "{name}: {:?}", report.integrity);
        assert_eq!(whole(report.records_per_second), seen.records, "{name}");
        assert_eq!(whole(report.bytes_per_second), seen.records * 321, "{name}");
        let ratios = [
            (report.records_per_batch, seen.records, seen.batches),
            (report.batches_per_request, seen.batches, seen.requests),
            (report.bytes_per_request, seen.request_bytes, seen.requests),
        ];
        for (told, amount, count) in ratios {
            assert_eq!(told, Some(amount as f64 / count as f64), "{name}");
        }
        assert!(seen.most <= u64::from(args.batch_records), "{name}: {seen:?}");
        let is_exact = args.linger_ms == 0.0;
        assert!(!is_exact || seen.fewest == seen.most, "{name}: {seen:?}");
    }
}

#[test]
fn the_brokers_cpu_is_what_getrusage_says_of_it() {
    let mut responder = Responder::start_below_a_shell();
    let mut args = args_for(&responder.address);
    (args.connections, args.batch_records, args.rate) = (4, 1, None);
    (args.duration, args.warmup, args.consumers) = (Duration::from_secs(2), Duration::ZERO, 0);
    args.fetch.verify = Switch::Off;
    args.target.pid = Some(responder.pid);
    let told_s = run(&args).report.broker.expect("--pid was given").cpu_s;
    responder.signal(Signal::TERM);
    let mut text = String::new();
    responder.output.read_to_string(&mut text).expect("text");
    // The shell's own times, then those of its children: user and system, 0m1.234s each.
    let times = text.lines().last().expect("two lines").split_whitespace();
    let seconds = times.map(|time| {
        let (minutes, seconds) = time.split_once('m').expect("minutes");
        let [minutes, seconds] = [minutes, seconds.trim_end_matches('s')].map(str::parse::<f64>);
        minutes.expect("a number") * 60.0 + seconds.expect("a number")
    });
    let used_s: f64 = seconds.sum();
    assert!(used_s > 0.1, "it was loaded: {used_s}");
    // Its start and end are not in the measured time; getrusage is told to the millisecond.
    assert!(told_s <= used_s + 0.003 && told_s >= 0.8 * used_s, "{told_s} of {used_s}");
}
