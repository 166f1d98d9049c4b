//! The study: each measurement in a process of its own, all variants in turns, repeated; every
//! single result as a line of a file, and medians with ranges as a table.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, Result, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, Load};
use crate::pin;
use crate::writes::{RUNTIMES, WORKS};

const SERVERS: &[&str] = &["epoll", "ring", "ring-multishot", "tokio", "monoio", "glommio"];

const LOADS: &[Load] = &[
    Load { payload_bytes: 100, connections: 16, depth: 1 },
    Load { payload_bytes: 100, connections: 128, depth: 1 },
    Load { payload_bytes: 100, connections: 128, depth: 8 },
    Load { payload_bytes: 16 << 10, connections: 16, depth: 8 },
];

const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1200);

/// One server in a process of its own.
struct Server {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Server {
    fn start(name: &str) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Self { child, commands, answers, port: 0 };
        server.port = server.number()? as u16;
        Ok(server)
    }

    fn number(&mut self) -> Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| Error::other(format!("{line}: not a number")))
    }

    fn cpu_ns(&mut self) -> Result<u64> {
        self.commands.write_all(b"cpu\n")?;
        self.number()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The network loop.
pub fn net(out: &str, repeats: usize) -> Result<()> {
    pin(1)?;
    let mut table = Table::new(out, "payload connections depth server cpu_us rate", SERVERS)?;
    for _ in 0..repeats {
        for load in LOADS {
            let work = format!("{}\t{}\t{}", load.payload_bytes, load.connections, load.depth);
            for name in SERVERS {
                let mut server = Server::start(name)?;
                let mut client = Client::connect(server.port, *load)?;
                client.run(WARM_UP)?;
                let (replies, cpu, start) = (client.replies, server.cpu_ns()?, Instant::now());
                client.run(MEASURED)?;
                let took = start.elapsed().as_secs_f64();
                let cpu_us = (server.cpu_ns()? - cpu) as f64 / 1e3;
                let requests = (client.replies - replies) as f64;
                table.add(&work, name, cpu_us / requests, requests / took)?;
            }
        }
    }
    table.print("payload | connections | depth", "CPU of the server, us a request", "requests/s");
    Ok(())
}

/// Direct writes.
pub fn disk(folder: &str, out: &str, repeats: usize) -> Result<()> {
    let path = Path::new(folder).join(format!("runtime-study-{}", std::process::id()));
    let mut table = Table::new(out, "bytes depth flushed runtime cpu_us rate", RUNTIMES)?;
    for _ in 0..repeats {
        for (number, work) in WORKS.iter().enumerate() {
            let what = format!("{}\t{}\t{}", work.bytes, work.depth, work.is_flushed);
            for name in RUNTIMES {
                let output = Command::new(std::env::current_exe()?)
                    .args(["write", name])
                    .arg(&path)
                    .arg(number.to_string())
                    .stderr(Stdio::inherit())
                    .output()?;
                let text = String::from_utf8_lossy(&output.stdout);
                let numbers: Vec<f64> =
                    text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
                let [took_ns, cpu_ns] = numbers[..] else {
                    return Err(Error::other(format!("{name}: {text}")));
                };
                let count = work.count as f64;
                table.add(&what, name, cpu_ns / 1e3 / count, count / took_ns * 1e9)?;
            }
        }
    }
    table.print("bytes | depth | flushed", "CPU of the process, us a write", "writes/s");
    Ok(())
}

/// All results, by work and variant.
struct Table {
    file: File,
    variants: &'static [&'static str],
    rows: Vec<(String, Vec<Vec<(f64, f64)>>)>,
}

impl Table {
    fn new(out: &str, columns: &str, variants: &'static [&'static str]) -> Result<Self> {
        let mut file = File::create(out)?;
        writeln!(file, "{}", columns.replace(' ', "\t"))?;
        Ok(Self { file, variants, rows: Vec::new() })
    }

    fn add(&mut self, work: &str, variant: &str, cpu_us: f64, rate: f64) -> Result<()> {
        writeln!(self.file, "{work}\t{variant}\t{cpu_us:.3}\t{rate:.0}")?;
        let row = match self.rows.iter().position(|(name, _)| name == work) {
            Some(row) => row,
            None => {
                self.rows.push((work.to_owned(), vec![Vec::new(); self.variants.len()]));
                self.rows.len() - 1
            }
        };
        let column = self.variants.iter().position(|name| *name == variant).expect("listed");
        self.rows[row].1[column].push((cpu_us, rate));
        Ok(())
    }

    /// Two tables: medians with their ranges.
    fn print(&self, work: &str, cpu: &str, rate: &str) {
        for (title, is_cpu) in [(cpu, true), (rate, false)] {
            println!("\n{title}:\n\n| {work} | {} |", self.variants.join(" | "));
            println!("|{}", "---|".repeat(3 + self.variants.len()));
            for (work, cells) in &self.rows {
                let cells: Vec<String> = cells.iter().map(|cell| shown(cell, is_cpu)).collect();
                println!("| {} | {} |", work.replace('\t', " | "), cells.join(" | "));
            }
        }
    }
}

fn shown(results: &[(f64, f64)], is_cpu: bool) -> String {
    let pick = |&(cpu, rate): &(f64, f64)| if is_cpu { cpu } else { rate };
    let mut values: Vec<f64> = results.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    let text = |value: f64| match is_cpu {
        true => format!("{value:.2}"),
        false => format!("{:.1} k", value / 1e3),
    };
    let median = values[values.len() / 2];
    format!("{} ({} to {})", text(median), text(values[0]), text(values[values.len() - 1]))
}
