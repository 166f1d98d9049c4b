//! Clients of other projects against the real program: they judge the protocol.

use crate::process::Broker;
use crate::programs::{Names, Program, Run};

const KAFKA_PYTHON: Program = Program::Python { environment: "python", file: "kafka_python.py" };
const LIBRDKAFKA: Program = Program::Python { environment: "python", file: "librdkafka.py" };
const JAVA: Program = Program::Java { line: "current", class: "Clients" };
const JAVA_TOOLS: Program = Program::Java { line: "current", class: "Tools" };

fn check(program: Program, phases: &[&str]) {
    if program.is_ready() {
        let broker = Broker::start(&[]);
        Run::new(&broker).phases(program, phases);
    }
}

/// What `write` stored is read back by `read` after a clean stop, and again after SIGKILL.
fn check_survival(program: Program, write: &[&str], read: &[&str]) {
    if !program.is_ready() {
        return;
    }
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        eprintln!("skipped: the broker is not ours to stop");
        return;
    }
    let names = Names::fresh();
    Run::at(&broker, names.clone()).phases(program, write);
    broker.restart_after_kill();
    Run::at(&broker, names.clone()).phases(program, read);
    broker.restart_cleanly();
    Run::at(&broker, names).phases(program, read);
}

#[test]
fn kafka_python_topics_and_records() {
    check(KAFKA_PYTHON, &["create", "write", "read", "latest", "too_large", "delete"]);
}

#[test]
fn kafka_python_group() {
    check(KAFKA_PYTHON, &["create", "write", "group"]);
}

#[test]
fn librdkafka_topics_and_records() {
    check(LIBRDKAFKA, &["create", "write", "read", "latest", "too_large", "delete"]);
}

#[test]
fn librdkafka_admin() {
    check(LIBRDKAFKA, &["create", "configs", "partitions", "delete"]);
}

#[test]
fn librdkafka_group() {
    check(LIBRDKAFKA, &["create", "write", "group"]);
}

#[test]
fn java_topics_and_records() {
    check(JAVA, &["create", "write", "read", "latest", "too_large", "delete"]);
}

#[test]
fn java_group_and_configs() {
    check(JAVA, &["create", "write", "group", "configs"]);
}

#[test]
fn java_tools_topics_and_console() {
    check(JAVA_TOOLS, &["topics", "console", "delete"]);
}

#[test]
fn each_client_reads_what_another_wrote() {
    let programs = [KAFKA_PYTHON, LIBRDKAFKA, JAVA];
    if !programs.iter().all(|program| program.is_ready()) {
        return;
    }
    let broker = Broker::start(&[]);
    for writer in programs {
        let run = Run::new(&broker);
        run.phases(writer, &["create", "write"]);
        for reader in programs {
            run.phases(reader, &["read"]);
        }
    }
}

#[test]
fn records_survive_a_kill_and_a_clean_restart() {
    check_survival(KAFKA_PYTHON, &["create", "write", "latest"], &["read", "latest"]);
}

#[test]
fn console_records_survive_a_kill_and_a_clean_restart() {
    check_survival(JAVA_TOOLS, &["topics", "console"], &["console_again"]);
}
