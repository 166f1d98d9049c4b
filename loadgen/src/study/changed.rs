//! What the command line changes in a study.

use super::file::broker_at;
use super::{Row, Study, Work};
use crate::args::StudyArgs;
use crate::brokers::BrokerSpec;
use std::fmt::Write;

impl Study {
    /// Repeats of a row.
    pub fn repeats_of(&self, row: &Row) -> u32 {
        row.repeats.unwrap_or(self.repeats)
    }

    /// With what the command line changes.
    pub fn changed_by(mut self, args: &StudyArgs) -> Result<Self, String> {
        for broker in &args.broker {
            let (name, at) = broker
                .split_once('=')
                .ok_or_else(|| format!("--broker {broker}: not NAME=HOST:PORT"))?;
            let broker = broker_at(Some(name), at)?;
            // Another process at the same place may go on with a study, another place may not.
            let _ = write!(
                self.text,
                "\n# --broker {name}={}",
                broker.address.as_deref().unwrap_or("")
            );
            self.brokers.push(broker);
        }
        for broker in &args.start {
            let (name, start) = broker
                .split_once('=')
                .ok_or_else(|| format!("--start {broker}: not NAME=COMMAND"))?;
            let _ = write!(self.text, "\n# --start {name}={start}");
            let (name, start) = (name.to_owned(), Some(start.to_owned()));
            self.brokers.push(BrokerSpec { name, start, ..Default::default() });
        }
        self.check_names()?;
        if self.brokers.is_empty() {
            return Err("no broker: name one with --broker NAME=HOST:PORT@PID".to_owned());
        }
        let can_start = self.brokers.iter().any(|broker| broker.start.is_some());
        if !can_start && self.rows.iter().all(|row| row.work.needs_start()) {
            return Err("it starts brokers: say how with --start NAME=COMMAND".to_owned());
        }
        if !args.cpus.is_empty() {
            let _ = write!(self.text, "\n# --cpus {:?}", args.cpus);
            self.client_cpus.clone_from(&args.cpus);
        }
        if !args.only.is_empty() {
            let unknown =
                args.only.iter().find(|name| !self.rows.iter().any(|row| row.name == **name));
            if let Some(name) = unknown {
                let names: Vec<&str> = self.rows.iter().map(|row| row.name.as_str()).collect();
                return Err(format!("--only {name}: the rows are {}", names.join("; ")));
            }
            self.only.clone_from(&args.only);
        }
        if let Some(repeats) = args.repeats {
            self.repeats = repeats;
            for row in &mut self.rows {
                row.repeats = row.repeats.map(|own| own.min(repeats));
            }
        }
        if let Some(warm_up) = args.warm_up {
            let _ = write!(self.text, "\n# --warm-up {}s", warm_up.as_secs_f64());
            self.brokers.iter_mut().for_each(|broker| broker.warm_up = warm_up);
        }
        if let Some(duration) = args.duration {
            let _ = write!(self.text, "\n# --duration {}s", duration.as_secs_f64());
            for fill in self.brokers.iter_mut().filter_map(|broker| broker.fill.as_mut()) {
                (fill.duration, fill.records) = (duration, None);
            }
            for row in &mut self.rows {
                match &mut row.work {
                    Work::Run(run) => (run.duration, run.warmup) = (duration, duration / 10),
                    Work::Churn(churn) => churn.duration = duration,
                    Work::Idle(idle) => (idle.duration, idle.settle) = (duration, duration / 10),
                    Work::Crash(crash) => crash.rounds = crash.rounds.min(2),
                    _ => {}
                }
            }
        }
        Ok(self)
    }

    /// Names become folders, one for each broker.
    pub fn check_names(&self) -> Result<(), String> {
        let folders: Vec<String> =
            self.brokers.iter().map(|broker| broker.name.replace(' ', "-")).collect();
        for (place, (broker, folder)) in self.brokers.iter().zip(&folders).enumerate() {
            let name = &broker.name;
            if !is_name(name) {
                return Err(format!("broker '{name}': letters, digits, - _ . only"));
            }
            if folders[..place].contains(folder) {
                return Err(format!("two brokers are named {name}"));
            }
        }
        Ok(())
    }
}

/// Whether a name can be that of a folder.
pub(super) fn is_name(text: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_. ,=".contains(c);
    !text.is_empty() && !text.starts_with('.') && text.chars().all(is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::study::file;
    use clap::Parser;

    fn changed(words: &[&str]) -> Result<Study, String> {
        let words = ["loadgen", "study", "acks1-latency", "--out", "o"].iter().chain(words);
        let Command::Study(args) = Cli::try_parse_from(words).expect("options").command else {
            panic!("a study")
        };
        file::preset("acks1-latency").expect("a preset").changed_by(&args)
    }

    #[test]
    fn brokers_of_the_command_line_are_part_of_what_a_folder_holds() {
        let text = |words: &[&str]| changed(words).expect("a study").text;
        let one = text(&["--broker", "A=a:1@7"]);
        assert_eq!(one, text(&["--broker", "A=a:1@8"]), "it was started again");
        for other in [&["--broker", "A=b:1@7"], &["--broker", "B=a:1@7"], &["--start", "A=a:1@7"]] {
            assert_ne!(one, text(other), "{other:?}");
        }
        assert_ne!(one, text(&["--broker", "A=a:1@7", "--cpus", "1"]));
    }

    #[test]
    fn each_broker_has_a_name_and_a_folder_of_its_own() {
        let rows: [(&[&str], &str); 4] = [
            (&["--broker", "A=a:1", "--broker", "A=b:1"], "two brokers are named A"),
            (&["--broker", "A B=a:1", "--broker", "A-B=b:1"], "two brokers are named A-B"),
            (&["--broker", "../A=a:1"], "letters, digits"),
            (&["--start", "=a"], "letters, digits"),
        ];
        for (words, expected) in rows {
            let error = changed(words).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
