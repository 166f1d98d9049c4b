//! The command line: what it accepts, what it teaches, and what it says about mistakes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use millrace_cli::nearest;

use crate::config::{BROKER_KEYS, TOPIC_KEYS, reference};

const ABOUT: &str = "A message broker for Linux that speaks the Apache Kafka protocol.

Without a command it serves: it listens on 127.0.0.1:9092, keeps its data in ./millrace-data, and \
needs nothing else installed. Every Kafka client works unchanged. The other commands are clients \
themselves, of Millrace or Apache Kafka; their flags have the names of Kafka's tools.";

const EXAMPLES: &str = "Examples:
  millrace
      serve with the defaults
  millrace serve server.properties
      serve with a file of Kafka's keys
  millrace serve --override log.dirs=/data --override listeners=PLAINTEXT://0.0.0.0:9092
      serve with single keys set
  millrace config retention
      what the keys with this word mean
  millrace doctor
      what is in the way on this host, and what could be better
  millrace topics --create --topic first
  echo hello | millrace produce --topic first
  millrace consume --topic first --from-beginning
      a topic, a record into it, and out of it; each command has a --help with examples
  source <(millrace completion bash)
      the shell completes commands and flags";

#[derive(Debug, Parser)]
#[command(name = "millrace", version, about = ABOUT, after_help = EXAMPLES)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Clone, Debug, Args)]
struct Overrides {
    /// Sets one key above the file; may be repeated.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients until SIGTERM or Ctrl-C.
    Serve {
        /// Java properties file with Kafka's keys.
        #[arg(value_name = "server.properties")]
        file: Option<PathBuf>,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Print every configuration key with type, default and meaning.
    Config {
        /// Only keys whose name contains this.
        word: Option<String>,
        /// The whole reference as Markdown (docs/config.md).
        #[arg(long, conflicts_with = "word")]
        markdown: bool,
    },
    /// Look at this host as a place for a broker: a line each of what is well, could be better, or
    /// is in the way, with what to do. Changes nothing; exit status 1 if something is in the way.
    Doctor {
        /// Java properties file with Kafka's keys, for log.dirs and millrace.*.
        #[arg(value_name = "server.properties")]
        file: Option<PathBuf>,
        /// First measure the disk, for at most 15 s, and keep the result for reports of loadgen.
        #[arg(long)]
        calibrate: bool,
        /// JSON for programs instead of text for people.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        overrides: Overrides,
    },
    #[command(flatten)]
    Client(millrace_cli::Command),
    /// Print a script that makes the shell complete commands and flags.
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve, with the keys of a file and then those of the command line.
    Serve {
        /// A properties file.
        file: Option<PathBuf>,
        /// Texts of the form KEY=VALUE.
        overrides: Vec<String>,
    },
    /// Examine this host for such a broker.
    Examine {
        /// A properties file.
        file: Option<PathBuf>,
        /// Texts of the form KEY=VALUE.
        overrides: Vec<String>,
        /// Measure the disk first.
        calibrate: bool,
        /// Print JSON.
        json: bool,
    },
    /// Be a client.
    Client(millrace_cli::Command),
    /// Print this and end well.
    Print(String),
    /// Print this as an error and end with exit code 2.
    Refuse(String),
}

/// Reads the command line, the program's name first.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Action {
    let mut line: Vec<OsString> = line.into_iter().collect();
    if let Some(command) = line.first().and_then(|name| command_of_tool(name)) {
        line.splice(..1, ["millrace".into(), command.into()]);
    }
    let words = || line.iter().skip(1).filter_map(|word| word.to_str());
    let is_client = words().next().is_some_and(|word| {
        !word.starts_with('-') && !["serve", "config", "doctor"].contains(&word)
    });
    if let Some(lesson) = words().find_map(|word| lesson(word, is_client)) {
        return Action::Refuse(lesson);
    }
    match Line::try_parse_from(&line) {
        Ok(Line { command, overrides: Overrides { mut overrides } }) => match command {
            None => Action::Serve { file: None, overrides },
            Some(Command::Serve { file, overrides: more }) => {
                overrides.extend(more.overrides);
                Action::Serve { file, overrides }
            }
            Some(Command::Doctor { file, calibrate, json, overrides: more }) => {
                overrides.extend(more.overrides);
                Action::Examine { file, overrides, calibrate, json }
            }
            Some(Command::Config { markdown: true, .. }) => Action::Print(reference::as_markdown()),
            Some(Command::Client(command)) => Action::Client(command),
            Some(Command::Completion { shell }) => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Line::command(), "millrace", &mut script);
                Action::Print(String::from_utf8_lossy(&script).into_owned())
            }
            Some(Command::Config { word, .. }) => keys(word.as_deref().unwrap_or_default()),
        },
        Err(error)
            if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            Action::Print(error.to_string())
        }
        Err(error) => {
            let file = line.get(1).and_then(|word| word.to_str());
            let hint = file
                .filter(|word| error.kind() == ErrorKind::InvalidSubcommand && word.contains('.'))
                .map(|word| format!("\n  a file goes after the command: millrace serve {word}\n"));
            Action::Refuse(format!("{error}{}", hint.unwrap_or_default()))
        }
    }
}

/// The command that stands for one of Kafka's tools, when a link of that name leads here.
fn command_of_tool(name: &OsStr) -> Option<&'static str> {
    Some(match Path::new(name).file_stem()?.to_str()? {
        "kafka-topics" => "topics",
        "kafka-console-producer" => "produce",
        "kafka-console-consumer" => "consume",
        "kafka-consumer-groups" => "groups",
        "kafka-configs" => "configs",
        "kafka-get-offsets" => "offsets",
        "kafka-dump-log" => "log",
        "kafka-server-start" => "serve",
        _ => return None,
    })
}

/// Options of Kafka's own scripts that mean nothing here, and what to do instead.
fn lesson(word: &str, is_client: bool) -> Option<String> {
    let said = match (word.split('=').next()?, is_client) {
        ("--zookeeper", true) => {
            "there is no ZooKeeper, neither here nor in Kafka since 4.0: commands ask a broker. Give \
             `--bootstrap-server 127.0.0.1:9092` (a broker's address) in place of `--zookeeper`."
        }
        ("--zookeeper", false) => {
            "there is no ZooKeeper, neither here nor in Kafka since 4.0. Topics and settings are \
             kept in the broker's own data folder. Start `millrace` alone, and give `millrace \
             topics` or Kafka's tools `--bootstrap-server 127.0.0.1:9092` in place of `--zookeeper`."
        }
        ("-daemon" | "--daemon", false) => {
            "it always runs in the foreground. Let a service manager run it, or the shell: \
             `millrace serve server.properties &`."
        }
        ("--bootstrap-server", false) => {
            "this is the broker; its clients are commands, such as `millrace topics \
             --bootstrap-server 127.0.0.1:9092 --list`. `millrace --help` has them all."
        }
        _ => return None,
    };
    Some(format!("millrace: {said}"))
}

fn keys(word: &str) -> Action {
    match reference::as_text(word) {
        text if !text.is_empty() => Action::Print(text),
        _ => {
            let names = BROKER_KEYS.iter().chain(TOPIC_KEYS).map(|key| key.name);
            let hint = match nearest(word, names) {
                Some(near) => format!("the nearest is {near}"),
                None => "`millrace config` lists all".into(),
            };
            Action::Refuse(format!("millrace: no key contains {word}; {hint}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Action {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn serves_by_default() {
        let serve = |file: Option<&str>, overrides: &[&str]| Action::Serve {
            file: file.map(PathBuf::from),
            overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
        };
        for (line, expected) in [
            ("millrace", serve(None, &[])),
            ("millrace serve", serve(None, &[])),
            ("millrace serve x.properties", serve(Some("x.properties"), &[])),
            ("bin/kafka-server-start.sh x.properties", serve(Some("x.properties"), &[])),
            ("millrace --override a=b", serve(None, &["a=b"])),
            ("millrace serve x --override a=b --override c=d", serve(Some("x"), &["a=b", "c=d"])),
        ] {
            assert_eq!(parsed(line), expected, "{line}");
        }
        let expected = Action::Examine {
            file: Some("x".into()),
            overrides: vec!["a=b".into()],
            calibrate: false,
            json: true,
        };
        assert_eq!(parsed("millrace doctor x --json --override a=b"), expected);
    }

    #[test]
    fn prints_what_is_asked_for() {
        for (line, part) in [
            ("millrace --version", "millrace 0."),
            ("millrace --help", "millrace serve server.properties"),
            ("millrace config", "log.segment.bytes  [INT, at least 1048576; default 1073741824]"),
            ("millrace config acks", "millrace.acks.all"),
            ("millrace config --markdown", "# Configuration"),
            ("millrace doctor --help", "--calibrate"),
            ("millrace topics --help", "millrace topics --create --topic orders"),
            ("kafka-console-consumer.sh --help", "millrace consume --topic"),
            ("millrace completion bash", "--from-beginning"),
            ("millrace completion zsh", "--from-beginning"),
            ("millrace completion fish", "from-beginning"),
        ] {
            let Action::Print(text) = parsed(line) else { panic!("{line} does not print") };
            assert!(text.contains(part), "{line}: {text}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, part) in [
            ("millrace serv", "'serve'"),
            ("millrace server.properties", "millrace serve server.properties"),
            ("millrace --zookeeper localhost:2181", "--bootstrap-server 127.0.0.1:9092"),
            ("millrace serve --zookeeper=localhost:2181", "there is no ZooKeeper"),
            ("millrace topics --list --zookeeper localhost:2181", "in place of `--zookeeper`"),
            ("millrace --bootstrap-server x:1 --list", "millrace topics"),
            ("kafka-topics.sh --list --zookeeper localhost:2181", "in place of `--zookeeper`"),
            ("millrace topics --bootstrap-servr x:1 --list", "'--bootstrap-server'"),
            ("millrace topics", "--create|--list|--describe|--alter|--delete"),
            ("millrace topic --list", "'topics'"),
            ("millrace consume", "--topic"),
            ("millrace -daemon x.properties", "runs in the foreground"),
            ("millrace serve --overide a=b", "'--override'"),
            ("millrace config retenton.ms", "the nearest is retention.ms"),
            ("millrace config xyzzy", "`millrace config` lists all"),
        ] {
            let Action::Refuse(text) = parsed(line) else { panic!("{line} is not refused") };
            assert!(text.contains(part), "{line}: {text}");
        }
    }
}
