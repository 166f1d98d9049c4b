//! Which runtime should a broker's data path stand on? One small server written six times, and
//! one sequence of direct writes written twice, measured in turns. `docs/decisions/runtime.md`
//! draws the conclusion; README.md says how to repeat it.
//!
//! | file | what it holds |
//! |---|---|
//! | `frame` | the requests, and how a server cuts them |
//! | `epoll`, `ring`, `ring_multishot`, `on_tokio`, `on_monoio`, `on_glommio` | the server |
//! | `client` | the load, a closed loop |
//! | `writes` | direct writes through a plain ring and through glommio |
//! | `study` | processes started in turns, medians, the table |

mod client;
mod epoll;
mod frame;
mod on_glommio;
mod on_monoio;
mod on_tokio;
mod ring;
mod ring_multishot;
mod study;
mod writes;

use std::io::Result;
use std::net::TcpListener;

use rustix::net::sockopt::set_tcp_congestion;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

const USAGE: &str = "usage:
  runtime-study net OUT.tsv [REPEATS]             the network loop, server on CPU 0, client on CPU 1
  runtime-study disk FOLDER OUT.tsv [REPEATS]     direct writes, on CPU 0";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse().expect("a number");
    match arguments[..] {
        ["net", out] => study::net(out, 5),
        ["net", out, repeats] => study::net(out, count(repeats)),
        ["disk", folder, out] => study::disk(folder, out, 5),
        ["disk", folder, out, repeats] => study::disk(folder, out, count(repeats)),
        // What the study starts.
        ["serve", server] => serve(server),
        ["write", runtime, path, work] => writes::run(runtime, path, count(work)),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2)
        }
    }
}

/// Serves on CPU 0 until standard input ends. Prints the port first, and then for each line read
/// the nanoseconds of CPU spent so far by all threads of the process, with the kernel's workers.
fn serve(server: &str) -> Result<()> {
    pin(0)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // With bbr the host's pacing timers would be measured. Where cubic is not allowed: the default.
    let _ = set_tcp_congestion(&listener, "cubic");
    println!("{}", listener.local_addr()?.port());
    std::thread::spawn(|| {
        for _ in std::io::stdin().lines() {
            println!("{}", cpu_ns());
        }
        std::process::exit(0)
    });
    match server {
        "epoll" => epoll::serve(listener),
        "ring" => ring::serve(listener),
        "ring-multishot" => ring_multishot::serve(listener),
        "tokio" => on_tokio::serve(listener),
        "monoio" => on_monoio::serve(listener),
        "glommio" => on_glommio::serve(listener),
        _ => panic!("{server}: no such server"),
    }
}

/// Keeps the calling thread, and those it starts, on one CPU.
fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

/// CPU of this process so far.
fn cpu_ns() -> u64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
