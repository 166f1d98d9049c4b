//! The `loadgen` program: commands, exit status, what is printed.

use clap::Parser;
use loadgen::args::{
    ChurnArgs, Cli, Command, CompareArgs, ConsumeArgs, CrashArgs, FindMaxArgs, IdleArgs,
    QuickstartArgs, RecoverArgs, RespondArgs, ResultsArgs, RunArgs, StudyArgs,
};
use loadgen::driver::worker;
use loadgen::embedded::Embedded;
use loadgen::gather::Live;
use loadgen::report::{self, text, write_json};
use loadgen::run::{self, BrokerProcess, RunError, Surroundings};
use loadgen::study::{Study, engine, file, page};
use loadgen::{
    brokers, catchup, churn, clock, crash, findmax, interrupt, lifecycle, quickstart, respond,
    results, room,
};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The load was run, but its result is not valid.
const NOT_VALID: u8 = 2;
/// The result is valid, but does not meet what was demanded.
const NOT_MET: u8 = 3;

fn main() -> ExitCode {
    if std::env::args().any(|word| word.starts_with("--zookeeper")) {
        let lesson = "there is no ZooKeeper here: name a broker with --bootstrap HOST:PORT";
        let _ = writeln!(std::io::stderr(), "loadgen: {lesson}");
        return ExitCode::from(2);
    }
    let words: Vec<String> = std::env::args().map(|word| quoted(&word)).collect();
    let words = words.join(" ");
    let command = Cli::parse().command;
    room::raise_open_files();
    // Only `respond` has nothing to write when it is ended.
    let listening = match command {
        Command::Respond(_) => Ok(()),
        _ => interrupt::listen(),
    };
    if let Err(error) = listening {
        let _ =
            writeln!(std::io::stderr(), "loadgen: Ctrl-C will end it without a report: {error}");
    }
    let done = match command {
        Command::Run(args) => run(&args, &words),
        Command::Quickstart(args) => quickstart(&args, &words),
        Command::Consume(args) => consume(&args),
        Command::Study(args) => study(&args, &words),
        Command::Compare(args) => compare(&args, &words),
        Command::FindMax(args) => find_max(&args, &words),
        Command::Crash(args) => crash(&args),
        Command::Idle(args) => idle(&args),
        Command::Recover(args) => recover(&args),
        Command::Churn(args) => churn(&args),
        Command::Respond(args) => respond(&args),
        Command::Results(args) => results(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs, command: &str) -> Result<ExitCode, RunError> {
    if args.target.count_flushes && args.target.pid.is_none() {
        return Err(RunError::Options("--count-flushes needs --pid".to_owned()));
    }
    let folder = ReportFolder::make(args.out.as_deref())?;
    let around = Surroundings {
        broker: BrokerProcess::from_target(&args.target),
        live: Live::detect(),
        folder: &folder.path,
        command,
        is_probed: true,
    };
    let outcome = run::run(args, around)?;
    // First of all, so that a disk that has become full costs the report, not the result.
    print(&text::terminal(&outcome.report));
    outcome.write(&folder.path).map_err(|source| write_error(&folder.path, source))?;
    print(&format!("Report: {}\n", folder.path.join("report.html").display()));
    Ok(by_validity(outcome.report.valid))
}

fn quickstart(args: &QuickstartArgs, command: &str) -> Result<ExitCode, RunError> {
    let folder = ReportFolder::make(args.out.as_deref())?;
    let around = (Live::detect(), folder.path.as_path(), command);
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
    print(&format!("Report: {}\n", folder.path.join("report.html").display()));
    Ok(by_validity(matrix.is_verified() && !matrix.headline.partial))
}

fn consume(args: &ConsumeArgs) -> Result<ExitCode, RunError> {
    let found = catchup::consume(args, Live::detect())?;
    finish(&found, found.valid, args.json.as_deref(), &catchup::terminal(&found))
}

fn study(args: &StudyArgs, command: &str) -> Result<ExitCode, RunError> {
    let name = args.file.display().to_string();
    let study = match std::fs::read_to_string(&args.file) {
        Ok(text) => file::parse(&name, &text),
        Err(error) if error.kind() == ErrorKind::NotFound => file::preset(&name),
        Err(error) => Err(format!("{name}: {error}")),
    };
    let study = study.map_err(RunError::Options)?;
    let study = study.changed_by(args).map_err(RunError::Options)?;
    let variables = brokers::variables(&args.set).map_err(RunError::Options)?;
    if args.check {
        let (rows, brokers) = (study.rows.len(), study.brokers.len());
        print(&format!("{name}: {rows} rows on {brokers} brokers\n"));
        return Ok(ExitCode::SUCCESS);
    }
    conduct(&study, &args.out, command, variables)
}

fn compare(args: &CompareArgs, command: &str) -> Result<ExitCode, RunError> {
    let study = file::comparison(args).map_err(RunError::Options)?;
    conduct(&study, &args.out, command, Vec::new())
}

fn conduct(
    study: &Study,
    out: &Path,
    command: &str,
    variables: Vec<(String, String)>,
) -> Result<ExitCode, RunError> {
    let found = engine::run(study, out, Live::detect(), command, variables)?;
    print(&page::terminal(&found));
    print(&format!("Report: {}\n", out.join("report.html").display()));
    Ok(match (found.valid, found.demands_met) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(NOT_MET),
        (false, _) => ExitCode::from(NOT_VALID),
    })
}

fn find_max(args: &FindMaxArgs, command: &str) -> Result<ExitCode, RunError> {
    let folder = ReportFolder::make(args.run.out.as_deref())?;
    let around = Surroundings {
        broker: BrokerProcess::from_target(&args.run.target),
        live: Live::detect(),
        folder: &folder.path,
        command,
        is_probed: true,
    };
    let found = findmax::find_max(args, around)?;
    print(&format!("{}\n", findmax::verdict(&found)));
    print(&format!("Report: {}\n", folder.path.join("report.html").display()));
    Ok(by_validity(found.valid))
}

fn crash(args: &CrashArgs) -> Result<ExitCode, RunError> {
    let found = crash::crash_alone(args, Live::detect())?;
    finish(&found, found.valid, args.json.as_deref(), &crash::words(&found))
}

fn idle(args: &IdleArgs) -> Result<ExitCode, RunError> {
    let found = lifecycle::idle(args, Live::detect())?;
    finish(&found, found.valid, args.json.as_deref(), &lifecycle::idle_words(&found))
}

fn churn(args: &ChurnArgs) -> Result<ExitCode, RunError> {
    let found = churn::churn(args, Live::detect())?;
    finish(&found, found.valid, args.json.as_deref(), &churn::words(&found))
}

fn recover(args: &RecoverArgs) -> Result<ExitCode, RunError> {
    let found = lifecycle::recover_alone(args, Live::detect())?;
    finish(&found, found.valid, args.json.as_deref(), &lifecycle::recover_words(&found))
}

fn results(args: &ResultsArgs) -> Result<ExitCode, RunError> {
    let page = std::fs::read_to_string(&args.page);
    let page = page.map_err(|source| write_error(&args.page, source))?;
    let index = results::index(&args.folder).map_err(RunError::Options)?;
    let with_headline = results::with_headline(&args.folder, &page).map_err(RunError::Options)?;
    let mut made = results::pictures(&args.folder).map_err(RunError::Options)?;
    made.extend([(args.folder.join("README.md"), index), (args.page.clone(), with_headline)]);
    for (path, text) in made {
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if args.check {
            print(&format!("{} is not up to date\n", path.display()));
            return Ok(ExitCode::from(NOT_MET));
        }
        std::fs::write(&path, text).map_err(|source| write_error(&path, source))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn respond(args: &RespondArgs) -> Result<ExitCode, RunError> {
    worker::pin(&args.cpus)?;
    let served = respond::respond(args, |address| print(&format!("listening on {address}\n")));
    served.map_err(|error| RunError::Options(format!("--listen {}: {error}", args.listen)))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows a result, writes it where it was asked for, and says by status whether it is valid.
fn finish(
    found: &impl Serialize,
    is_valid: bool,
    json: Option<&Path>,
    words: &str,
) -> Result<ExitCode, RunError> {
    if let Some(path) = json {
        write_json(path, found).map_err(|source| write_error(path, source))?;
    }
    print(words);
    Ok(by_validity(is_valid))
}

fn by_validity(is_valid: bool) -> ExitCode {
    if is_valid { ExitCode::SUCCESS } else { ExitCode::from(NOT_VALID) }
}

/// The folder of a report; a folder made for a run that did not begin goes away again.
struct ReportFolder {
    path: PathBuf,
    is_made: bool,
}

impl Drop for ReportFolder {
    fn drop(&mut self) {
        if self.is_made {
            // Refused by the system when it holds anything.
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

impl ReportFolder {
    /// Makes it, or takes it over: of an earlier run nothing stays, so that no figure of one stands
    /// beside those of the other.
    fn make(out: Option<&Path>) -> Result<Self, RunError> {
        let path = out.map_or_else(name_by_time, Path::to_path_buf);
        let is_made = !path.exists();
        let wrong = |source| write_error(&path, source);
        std::fs::create_dir_all(&path).map_err(wrong)?;
        if path.join("runs").exists() || path.join("study.toml").exists() {
            let place = path.display();
            return Err(RunError::Options(format!("--out {place}: it holds a study")));
        }
        report::clear(&path).map_err(wrong)?;
        // Better told now than after the run.
        let probe = path.join(".loadgen-writes");
        std::fs::write(&probe, [0; 4096]).map_err(wrong)?;
        std::fs::remove_file(&probe).map_err(wrong)?;
        Ok(Self { path, is_made })
    }
}

fn name_by_time() -> PathBuf {
    let [year, month, day, hour, minute, second] = clock::utc(clock::wall_ms());
    let name = format!("loadgen-report-{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}");
    PathBuf::from(name)
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
