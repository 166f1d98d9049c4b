//! The `loadgen` program: commands, exit status, what is printed.

use clap::Parser;
use loadgen::args::{Cli, Command, ConsumeArgs, QuickstartArgs, RunArgs};
use loadgen::embedded::Embedded;
use loadgen::gather::Live;
use loadgen::report::{text, write_json};
use loadgen::run::{self, BrokerProcess, RunError, Surroundings};
use loadgen::{catchup, clock, quickstart};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The load was run, but its result is not valid.
const NOT_VALID: u8 = 2;

fn main() -> ExitCode {
    if std::env::args().any(|word| word.starts_with("--zookeeper")) {
        let lesson = "there is no ZooKeeper here: name a broker with --bootstrap HOST:PORT";
        let _ = writeln!(std::io::stderr(), "loadgen: {lesson}");
        return ExitCode::from(2);
    }
    let command: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
    let command = command.join(" ");
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args, &command),
        Command::Quickstart(args) => quickstart(&args, &command),
        Command::Consume(args) => consume(&args),
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
        is_probed: true,
    };
    let outcome = run::run(args, around)?;
    outcome.write(&folder).map_err(|source| write_error(&folder, source))?;
    print(&text::terminal(&outcome.report));
    print(&format!("Report: {}\n", folder.join("report.html").display()));
    Ok(outcome.report.valid)
}

/// Returns whether every record was verified.
fn quickstart(args: &QuickstartArgs, command: &str) -> Result<bool, RunError> {
    let folder = report_folder(args.out.as_deref())?;
    let around = (Live::detect(), folder.as_path(), command);
    let mut show = |line: &str| {
        around.0.end();
        print(&format!("{line}\n"));
    };
    let mut args = args.clone();
    let embedded = if args.bootstrap.is_none() { Some(Embedded::start()?) } else { None };
    let broker = match &embedded {
        Some(embedded) => {
            args.bootstrap = Some(embedded.bootstrap());
            if args.cpus.is_empty() {
                args.cpus.clone_from(&embedded.client_cpus);
            }
            BrokerProcess::Embedded
        }
        None => BrokerProcess::from_option(args.pid),
    };
    let bootstrap = args.bootstrap.clone().unwrap_or_default();
    let matrix = quickstart::run(&args, &bootstrap, broker, around, &mut show)?;
    print(&format!("\n{}\n", quickstart::verdict(&matrix)));
    print(&format!("Report: {}\n", folder.join("report.html").display()));
    Ok(matrix.is_verified())
}

/// Returns whether the result is valid.
fn consume(args: &ConsumeArgs) -> Result<bool, RunError> {
    let found = catchup::consume(args, Live::detect())?;
    if let Some(path) = &args.json {
        write_json(path, &found).map_err(|source| write_error(path, source))?;
    }
    print(&catchup::terminal(&found));
    Ok(found.valid)
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
