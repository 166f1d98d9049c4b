//! A Millrace broker inside this process, in a folder that goes away with it.

use crate::machine::usable_cpus;
use crate::run::RunError;
use millrace_server::config::Config;
use millrace_server::{RunningBroker, start};
use std::fmt::Write;
use std::path::PathBuf;

/// A broker for the length of a quickstart.
pub struct Embedded {
    broker: Option<RunningBroker>,
    folder: PathBuf,
    /// CPUs left to the client; empty on a host with one.
    pub client_cpus: Vec<usize>,
}

impl Embedded {
    /// Starts it: the last CPU this process may use is the client's, the others are the broker's.
    pub fn start() -> Result<Self, RunError> {
        let folder = std::env::temp_dir().join(format!("loadgen-broker-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let mut embedded = Self { broker: None, folder, client_cpus: Vec::new() };
        let mut cpus = usable_cpus();
        if cpus.len() > 1 {
            embedded.client_cpus.extend(cpus.pop());
        }
        let mut list = String::new();
        for cpu in cpus {
            let _ = write!(list, "{}{cpu}", if list.is_empty() { "" } else { "," });
        }
        let data = embedded.folder.display().to_string();
        let config = Config::of([
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("log.dirs", data.as_str()),
            ("millrace.cpus", list.as_str()),
            // The data of finished cells would fill the disk.
            ("log.segment.delete.delay.ms", "1000"),
        ]);
        let broker = start(config.map_err(|error| failed(&error))?);
        embedded.broker = Some(broker.map_err(|error| failed(&error))?);
        Ok(embedded)
    }

    /// Where it listens.
    pub fn bootstrap(&self) -> String {
        let addresses = self.broker.as_ref().map(RunningBroker::addresses).unwrap_or_default();
        addresses.first().map(ToString::to_string).unwrap_or_default()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Its data goes away in any case; what could still fail hurts nobody.
        let _ = self.broker.take().map(RunningBroker::stop);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn failed(error: &dyn std::fmt::Display) -> RunError {
    RunError::Options(format!("the embedded broker did not start: {error}"))
}
