//! Answers every produce request at once and keeps nothing: what the client itself can do.
//!
//! `cargo run --release -p loadgen --example null_broker -- 127.0.0.1:9999`, then `loadgen run
//! --bootstrap 127.0.0.1:9999 --consumers 0 --verify off`.

#[path = "../tests/fake/mod.rs"]
#[allow(dead_code)]
mod fake;

fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9999".to_owned());
    let _broker = fake::Fake::listen(&address, fake::Fault::Discard);
    std::thread::park();
}
