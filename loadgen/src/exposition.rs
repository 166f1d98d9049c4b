//! Counters and times of a load under way, for Prometheus: `GET` anything, text format 0.0.4.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A reader that sends no request in this time is sent away.
const PATIENCE: Duration = Duration::from_secs(2);

/// One metric: name, what it is, and a value for each set of labels.
pub type Metric<'a> = (&'a str, &'a str, &'a [(&'a str, f64)]);

/// Serves what was last shown, until it is dropped.
#[derive(Debug)]
pub struct Exposition {
    address: SocketAddr,
    page: Arc<Mutex<String>>,
    is_over: Arc<AtomicBool>,
}

impl Exposition {
    /// Listens on HOST:PORT.
    pub fn start(listen: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let address = listener.local_addr()?;
        let (page, is_over) = (Arc::<Mutex<String>>::default(), Arc::<AtomicBool>::default());
        let (shown, over) = (Arc::clone(&page), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Acquire) {
                    break;
                }
                let page = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // Whoever goes away while reading wanted no more.
                let _ = answer(stream, &page);
            }
        });
        Ok(Self { address, page, is_over })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces what is served.
    pub fn show(&self, metrics: &[Metric<'_>]) {
        let mut text = String::new();
        for (name, help, values) in metrics {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let _ = writeln!(text, "# HELP loadgen_{name} {help}\n# TYPE loadgen_{name} {kind}");
            for (labels, value) in *values {
                let _ = writeln!(text, "loadgen_{name}{labels} {value}");
            }
        }
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

impl Drop for Exposition {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the thread, which then ends.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, page: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 1 << 16 {
        match stream.read(&mut bytes)? {
            0 => break,
            count => request.extend_from_slice(&bytes[..count]),
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{page}",
        page.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_what_was_last_shown_to_everyone_who_asks() {
        let exposition = Exposition::start("127.0.0.1:0").expect("a free port");
        for sent in [1.0, 2.5] {
            let errors = [("{kind=\"a\"}", 0.0), ("{kind=\"b\"}", 3.0)];
            let metrics: [Metric<'_>; 2] =
                [("sent_total", "Records.", &[("", sent)]), ("errors", "By kind.", &errors)];
            exposition.show(&metrics);
            let mut stream = TcpStream::connect(exposition.address()).expect("it listens");
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("text");
            let (head, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("Content-Length: {}", page.len())), "{head}");
            let expected = format!(
                "# HELP loadgen_sent_total Records.\n# TYPE loadgen_sent_total counter\n\
                 loadgen_sent_total {sent}\n# HELP loadgen_errors By kind.\n\
                 # TYPE loadgen_errors gauge\nloadgen_errors{{kind=\"a\"}} 0\n\
                 loadgen_errors{{kind=\"b\"}} 3\n"
            );
            assert_eq!(page, expected);
        }
    }
}
