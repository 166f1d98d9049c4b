//! The `millrace` program: arguments, configuration, start, wait for a signal.

fn main() {}
