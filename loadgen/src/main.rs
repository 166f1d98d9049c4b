//! The `loadgen` program: commands, exit status, what is printed.

use clap::Parser;
use loadgen::args::{Cli, Command, RunArgs};
use loadgen::clock;
use loadgen::gather::Live;
use loadgen::report::text;
use loadgen::run::{self, BrokerProcess, RunError, Surroundings};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The load was run, but its result is not valid.
const NOT_VALID: u8 = 2;

fn main() -> ExitCode {
    let command: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
    let command = command.join(" ");
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args, &command),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_VALID),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the result is valid.
fn run(args: &RunArgs, command: &str) -> Result<bool, RunError> {
    let folder = report_folder(args.out.as_deref())?;
    let around = Surroundings {
        broker: BrokerProcess::from_option(args.target.pid),
        live: Live::detect(),
        folder: &folder,
        command,
    };
    let outcome = run::run(args, around)?;
    outcome.write(&folder).map_err(|source| write_error(&folder, source))?;
    print(&text::terminal(&outcome.report));
    print(&format!("Report: {}\n", folder.join("report.html").display()));
    Ok(outcome.report.valid)
}

fn report_folder(out: Option<&Path>) -> Result<PathBuf, RunError> {
    let folder = out.map_or_else(
        || {
            let [year, month, day, hour, minute, second] = clock::utc(clock::wall_ms());
            PathBuf::from(format!(
                "loadgen-report-{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}"
            ))
        },
        Path::to_path_buf,
    );
    std::fs::create_dir_all(&folder).map_err(|source| write_error(&folder, source))?;
    Ok(folder)
}

fn write_error(path: &Path, source: std::io::Error) -> RunError {
    RunError::Write { path: path.display().to_string(), source }
}

fn print(text: &str) {
    // A reader that has gone away, as `head` does, is no failure of the run.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
