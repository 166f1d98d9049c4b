//! The `millrace` program: arguments, configuration, start, wait for a signal.

use std::io::Write as _;
use std::process::ExitCode;

use millrace_server::cli::{Action, parse};
use millrace_server::config::Config;

fn main() -> ExitCode {
    match parse(std::env::args_os()) {
        Action::Print(text) => {
            // A reader that closed the pipe has seen enough.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Action::Refuse(text) => fail(&text, 2),
        Action::Serve { file, overrides } => match Config::load(file.as_deref(), &overrides) {
            Ok(_) => fail("millrace: serving follows with the shards", 1),
            Err(error) => fail(&format!("millrace: {error}"), 1),
        },
    }
}

fn fail(text: &str, code: u8) -> ExitCode {
    // Nobody reads it where standard error is closed.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
    ExitCode::from(code)
}
