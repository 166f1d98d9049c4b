//! The `millrace` program: arguments; then a client's command, or configuration and a look at the
//! host, or start and a wait for a signal.

use std::ffi::OsString;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use millrace_cli::Printer;
use millrace_doctor::calibrate::Bounds;
use millrace_server::banner::{Facts, banner};
use millrace_server::cli::{Action, parse};
use millrace_server::config::Config;
use millrace_server::{RunningBroker, start, subject};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> ExitCode {
    let began = Instant::now();
    let outcome = match parse(std::env::args_os()) {
        Action::Print(text) => {
            print(&text);
            Ok(())
        }
        Action::Refuse(text) => return fail(&text, 2),
        Action::Client(command) => return be_client(&command),
        Action::Serve { file, overrides } => {
            load(file.as_deref(), &overrides).and_then(|config| serve(config, began))
        }
        Action::Examine { file, overrides, calibrate, json } => {
            match load(file.as_deref(), &overrides)
                .and_then(|config| examine(&config, calibrate, json))
            {
                Ok(true) => Ok(()),
                Ok(false) => return ExitCode::FAILURE,
                Err(text) => Err(text),
            }
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => fail(&format!("millrace: {text}"), 1),
    }
}

fn load(file: Option<&Path>, overrides: &[String]) -> Result<Config, String> {
    // What is not text is no variable of ours.
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    Config::load(file, std::env::vars_os().filter_map(text), overrides)
        .map_err(|error| error.to_string())
}

/// Looks at this host as a place for such a broker; whether nothing is in the way.
fn examine(config: &Config, calibrate: bool, json: bool) -> Result<bool, String> {
    if calibrate {
        millrace_doctor::calibrate::calibrate(&config.log_dirs[0], Bounds::default())?;
    }
    let findings = millrace_doctor::examine(&subject(config));
    print(&match json {
        true => format!("{:#}", millrace_doctor::as_json(&findings)),
        false => millrace_doctor::as_text(&findings),
    });
    Ok(!millrace_doctor::has_problem(&findings))
}

/// Runs a command that is a client of some broker.
fn be_client(command: &millrace_cli::Command) -> ExitCode {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout());
    let mut notes = std::io::stderr();
    let done = command.run(&mut Printer { out: &mut out, notes: &mut notes });
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough.
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = out.flush();
            let advice = failure.advice().map_or(String::new(), |advice| format!("\n  {advice}"));
            fail(&format!("millrace: {failure}{advice}"), 1)
        }
    }
}

/// Serves until the first SIGTERM or Ctrl-C, then stops cleanly; a second one ends at once.
fn serve(config: Config, began: Instant) -> Result<(), String> {
    let is_stopping = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(|error| error.to_string())?;
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&is_stopping))
            .map_err(|error| error.to_string())?;
    }
    for note in config.notes() {
        complain(&format!("note: {note}"));
    }
    let broker = start(config.clone()).map_err(|error| error.to_string())?;
    print(&banner(&facts(&config, &broker, began)));
    signals.forever().next();
    is_stopping.store(true, Ordering::Release);
    print("stopping: bringing everything to disk");
    broker.stop().map_err(|error| format!("the stop was not clean: {error}"))
}

fn facts(config: &Config, broker: &RunningBroker, began: Instant) -> Facts {
    let listeners = config.listeners.bound.iter().zip(broker.addresses());
    let first = &config.listeners.advertised[0];
    let port = if first.port == 0 { broker.addresses()[0].port() } else { first.port };
    Facts {
        version: env!("CARGO_PKG_VERSION"),
        node_id: config.node_id,
        cluster_id: broker.cluster_id().to_owned(),
        io_backend: match millrace_io::probe::ring() {
            Ok(ring) => ring.to_string(),
            Err(problem) => problem.to_string(),
        },
        cpus: broker.cpus().to_vec(),
        data_dirs: config.log_dirs.clone(),
        writes_direct: broker.writes_direct(),
        acks_all: config.own.acks_all.default_choice(),
        listeners: listeners.map(|(bound, at)| format!("{}://{at}", bound.name)).collect(),
        advertised: format!("{}:{port}", first.host),
        started_in_ms: began.elapsed().as_millis(),
    }
}

fn print(text: &str) {
    // A reader that closed the pipe has seen enough.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn complain(text: &str) {
    // Nobody reads it where standard error is closed.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

fn fail(text: &str, code: u8) -> ExitCode {
    complain(text);
    ExitCode::from(code)
}
